"""The plans of one run, and what each call is in for: one seed for all of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from functools import partial
from random import Random
from typing import Final

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults.errors import NotAValue, UnknownOperation
from holdfast.testing.faults.plans import (
    APART,
    Always,
    At,
    Call,
    Every,
    FaultPlan,
    First,
    Match,
    Plan,
    Rate,
    Script,
    read_window,
    within,
)
from holdfast.testing.faults.values import Bandwidth, ClockSkew, Fault, Latency, OneOf, Stage

Own = Callable[[Call, Random], Fault | OneOf | None]
"""A plan of your own: the fault of a call, or None for one that goes well. It cannot be written down."""
When = float | str | time | datetime | timedelta
"""A moment: seconds since the start, or a time of day in UTC, or an instant."""


def chance(seed: int, *parts: object) -> Random:
    """A source of chance of its own for these parts: what happens elsewhere does not reshuffle it."""
    return Random(":".join(map(str, (seed, *parts))))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a call is in for."""

    fault: Fault | None = None
    delay: float = 0.0
    """Seconds until the answer begins."""
    bytes_per_second: float = 0.0
    """How fast it comes in then; 0 is at once."""
    skew: float = 0.0
    """Seconds the vendor's clock is ahead."""


GOES_WELL: Final = Drawn()
"""What nothing is planned for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the next plans apply; what narrows it may be said in any order, the verbs come last."""

    faults: "Faults"
    vendor: str = "*"
    operation: str = "*"
    limit: Match | None = None
    window: tuple[When, When] | None = None

    def on(self, vendor: str, operation: str = "*") -> "Target":
        """Only the calls of this vendor and operation."""
        return replace(self, vendor=vendor, operation=operation)

    def when(self, match: Match) -> "Target":
        """Only the calls that match, which are counted by themselves."""
        return replace(self, limit=match if self.limit is None else self.limit & match)

    def between(self, first: When, last: When) -> "Target":
        """Only from the first moment on and before the last, which are counted by themselves."""
        return replace(self, window=(first, last))

    def script(self, *faults: Fault | OneOf | None) -> None:
        """Exactly these, in order; afterwards all goes well."""
        self.plan(Script(*faults))

    def rate(self, probability: float, *faults: Fault | OneOf) -> None:
        """With this probability, one of these."""
        self.plan(Rate(probability, _one(faults)))

    def every(self, n: int, fault: Fault | OneOf) -> None:
        """The n-th, the 2n-th, and so on."""
        self.plan(Every(n, fault))

    def first(self, n: int, fault: Fault | OneOf) -> None:
        """The first n."""
        self.plan(First(n, fault))

    def always(self, fault: Fault | OneOf) -> None:
        """Each one."""
        self.plan(Always(fault))

    def at(self, index: int, fault: Fault | OneOf) -> None:
        """The one that so many came before."""
        self.plan(At(index, fault))

    def plan(self, plan: Plan | Own) -> None:
        """Any plan, also a function of your own."""
        self.faults.add(self.vendor, self.operation, plan, when=self.limit, between=self.window)


def _one(faults: Sequence[Fault | OneOf]) -> Fault | OneOf:
    first, *others = faults
    for other in others:
        first = first | other
    return first


@dataclass(slots=True)
class _Entry:
    """One rule, and how many calls it has counted."""

    vendor: str
    operation: str
    plan: Plan | Own
    name: str
    """Decides its chance: the same however many other rules there are."""
    when: Match | None
    between: tuple[float | str, float | str] | None
    counted: Counter[tuple[str, str]]
    struck: int = 0

    @property
    def limited(self) -> bool:
        return self.when is not None or self.between is not None


class Faults:
    """The plans of one run, and a count of every fault that fired.

    `clock` is what `between` goes by; without one it is that of the first simulator. With `plan` all begins with its
    rules, and its seed unless there is another.
    """

    def __init__(self, seed: int | None = None, *, clock: Clock | None = None, plan: FaultPlan | None = None) -> None:
        self.seed: int = seed if seed is not None else plan.seed if plan is not None else 0
        self.fired: Counter[str] = Counter()
        """How often each happened, by `vendor.fault`."""
        self._clock = clock
        self._began = clock.monotonic() if clock is not None else 0.0
        self._entries: list[_Entry] = []
        self._covering: dict[tuple[str, str], Sequence[_Entry]] = {}
        self._calls: Counter[tuple[str, str]] = Counter()
        self._attempts: Counter[object] = Counter()
        self._counts_attempts = False
        self._operations: dict[str, frozenset[str]] = {}
        self.watchers: list[Callable[[], None]] = []
        """Called whenever something else is planned, by whoever has to act before a call is made."""
        if plan is not None:
            self.take(plan)

    # Planning

    def on(self, vendor: str, operation: str = "*") -> Target:
        """Plan faults for one operation of a vendor; `*` is all of them but `connect`."""
        return Target(self, vendor, operation)

    def when(self, match: Match) -> Target:
        """Plan faults for the calls that match."""
        return Target(self, limit=match)

    def between(self, first: When, last: When) -> Target:
        """Plan faults for the calls from the first moment on and before the last."""
        return Target(self, window=(first, last))

    def add(
        self,
        vendor: str,
        operation: str,
        plan: Plan | Own,
        *,
        when: Match | None = None,
        between: tuple[When, When] | None = None,
    ) -> None:
        """The same without the sentence.

        Raises:
            UnknownOperation: The vendor is known by now, and has no such operation.
        """
        self._check(vendor, operation)
        window = None if between is None else read_window(*between)
        if isinstance(plan, Plan):
            when = when if plan.when is None else plan.when if when is None else plan.when & when
            window = window or plan.between
            plan = plan.model_copy(update={"when": when, "between": window})
        kind = plan.kind if isinstance(plan, Plan) else "own"
        same = sum(entry.name.startswith(f"{vendor} {operation} {kind} ") for entry in self._entries)
        name = f"{vendor} {operation} {kind} {same}"
        self._entries.append(_Entry(vendor, operation, plan, name, when, window, Counter()))
        self._counts_attempts |= when is not None and when.attempt is not None
        self._changed()

    def take(self, plan: FaultPlan) -> None:
        """Add the rules of a plan; its seed is left alone."""
        for rule in plan.rules:
            self.add(rule.vendor, rule.operation, rule.plan)

    def value(self) -> FaultPlan:
        """Everything planned, as a value: `Faults(plan=…)` does the same again.

        Raises:
            NotAValue: One of the plans is a function of your own.
        """
        rules: list[dict[str, object]] = []
        for entry in self._entries:
            if not isinstance(entry.plan, Plan):
                raise NotAValue(entry.vendor, entry.operation)
            rules.append({"vendor": entry.vendor, "operation": entry.operation, "plan": entry.plan})
        return FaultPlan.model_validate({"seed": self.seed, "rules": rules})

    def meet(self, vendor: str, operations: Iterable[str], clock: Clock) -> None:
        """Get to know a vendor's simulator: what it can do, and by which clock.

        Raises:
            UnknownOperation: A rule is about something this vendor cannot do.
        """
        if self._clock is None:
            self._clock, self._began = clock, clock.monotonic()
        self._operations[vendor] = self._operations.get(vendor, frozenset()) | frozenset(operations)
        for entry in self._entries:
            if entry.vendor == vendor:
                self._check(vendor, entry.operation)

    @property
    def idle(self) -> list[str]:
        """The rules that have not struck yet, as `vendor operation plan`."""
        return [entry.name.rpartition(" ")[0] for entry in self._entries if not entry.struck]

    @property
    def vendors(self) -> frozenset[str]:
        """The vendors the rules name."""
        return frozenset(entry.vendor for entry in self._entries) - {"*"}

    def plans(self, vendor: str, operation: str) -> bool:
        """Whether anything is planned for such calls."""
        return bool(self._covers(vendor, operation))

    # Drawing

    def draw(
        self,
        vendor: str,
        operation: str,
        *,
        path: str = "",
        body: bytes = b"",
        method: str = "",
        headers: Sequence[tuple[str, str]] = (),
        key: str | None = None,
    ) -> Drawn:
        """Decide what this call is in for; the first rule that names a fault wins, delays add up."""
        index = self._calls[vendor, operation]
        self._calls[vendor, operation] = index + 1
        entries = self._covers(vendor, operation)
        if not entries and not self._counts_attempts:
            return GOES_WELL
        attempt = 1
        if self._counts_attempts:
            identity = (vendor, operation, key) if key is not None else (vendor, operation, method, path, body)
            self._attempts[identity] += 1
            attempt = self._attempts[identity]
        call = Call(
            vendor=vendor,
            operation=operation,
            index=index,
            path=path,
            body=body,
            method=method,
            headers=headers,
            key=key,
            attempt=attempt,
        )
        drawn = self._drawn(entries, call)
        if drawn.fault is not None:
            self.count(vendor, drawn.fault.name)
        return drawn

    def peek(self, vendor: str, operation: str) -> Fault | None:
        """What the next such call is in for, if it were made now; nothing is counted."""
        call = Call(vendor=vendor, operation=operation, index=self._calls[vendor, operation])
        for entry in self._covers(vendor, operation):
            fault = self._fault(entry, call, counts=False)
            if fault is not None and fault.stage is not Stage.TIME:
                return fault
        return None

    def skew(self, vendor: str, number: int) -> float:
        """Seconds the vendor's clock is ahead when it sends its webhook of this number: the operation `webhook`.

        A skew of all of a vendor's calls is one of its webhooks too.
        """
        call = Call(vendor=vendor, operation="webhook", index=number)
        entries = [entry for entry in self._entries if entry.vendor in ("*", vendor)]
        skewed = (self._fault(entry, call) for entry in entries if entry.operation in ("*", "webhook"))
        return sum(fault.seconds for fault in skewed if isinstance(fault, ClockSkew))

    def count(self, vendor: str, name: str) -> None:
        """One more of these happened."""
        self.fired[f"{vendor}.{name}"] += 1

    def calm(self) -> None:
        """No more faults from now on; the counts stay."""
        self._entries.clear()
        self._changed()

    def reset(self) -> None:
        """Start over: the same plans, the first call again."""
        self._calls.clear()
        self._attempts.clear()
        self.fired.clear()
        for entry in self._entries:
            entry.counted.clear()
            entry.struck = 0

    def _changed(self) -> None:
        self._covering.clear()
        for watcher in self.watchers:
            watcher()

    def _drawn(self, entries: Iterable[_Entry], call: Call) -> Drawn:
        chosen: Fault | None = None
        delay, speed, skew = 0.0, 0.0, 0.0
        for entry in entries:
            fault = self._fault(entry, call)
            match fault:
                case None:
                    continue
                case Latency():
                    delay += fault.seconds(self._chance(entry, call, "latency"))
                case Bandwidth():
                    speed = min(speed or fault.bytes_per_second, fault.bytes_per_second)
                case ClockSkew():
                    skew += fault.seconds
                case _ if chosen is None:
                    chosen = fault
                case _:
                    continue  # an earlier rule has named this call's fault
            entry.struck += 1
        return Drawn(chosen, delay, speed, skew)

    def _fault(self, entry: _Entry, call: Call, *, counts: bool = True) -> Fault | None:
        if entry.limited:
            if not self._holds(entry, call):
                return None
            counted = entry.counted
            index = counted[call.vendor, call.operation]
            if counts:
                counted[call.vendor, call.operation] = index + 1
        else:
            index = call.index
        if isinstance(entry.plan, Plan):
            return entry.plan.choose(index, partial(self._chance, entry, call))
        random = self._chance(entry, call)
        fault = entry.plan(call, random)
        return fault.draw(random) if isinstance(fault, OneOf) else fault

    def _holds(self, entry: _Entry, call: Call) -> bool:
        if entry.between is not None:
            clock = self._clock or SystemClock()
            if not within(entry.between, clock.now(), clock.monotonic() - self._began):
                return False
        return entry.when is None or entry.when.holds(call)

    def _chance(self, entry: _Entry, call: Call, *more: str) -> Random:
        return chance(self.seed, call.vendor, call.operation, call.index, entry.name, *more)

    def _covers(self, vendor: str, operation: str) -> Sequence[_Entry]:
        place = (vendor, operation)
        if place not in self._covering:
            self._covering[place] = tuple(entry for entry in self._entries if _is_for(entry, vendor, operation))
        return self._covering[place]

    def _check(self, vendor: str, operation: str) -> None:
        known = self._operations.get(vendor)
        if known is not None and operation not in APART and not any(fnmatchcase(one, operation) for one in known):
            raise UnknownOperation(vendor, operation, {*known, *APART})


def _is_for(entry: _Entry, vendor: str, operation: str) -> bool:
    if entry.vendor not in ("*", vendor):
        return False
    return entry.operation == operation or (operation not in APART and fnmatchcase(operation, entry.operation))
