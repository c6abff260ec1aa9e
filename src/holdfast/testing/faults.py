"""What can go wrong between us and a vendor: faults as values, plans that choose them, one seed for all of it.

faults = Faults(seed=7)
faults.on("swiss-bitcoin-pay", "payments.create").script(Reset(), Status(503), None)
faults.on("zoom").rate(0.2, Status(429, retry_after=3))
faults.on("lnbits").always(Latency(median=0.25, p99=1.5))
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Protocol


class Stage(StrEnum):
    """Where in an exchange a fault strikes."""

    BEFORE_SEND = "before_send"
    """No connection: the vendor never hears of it."""
    BEFORE_EFFECT = "before_effect"
    """The vendor hears of it and does nothing."""
    AFTER_EFFECT = "after_effect"
    """The vendor did it and its answer is lost: where double charges come from."""
    BODY = "body"
    """The vendor did it and its answer cannot be read."""
    TIME = "time"
    """It takes a while."""


class Fault(Protocol):
    """One thing going wrong, as a value."""

    @property
    def name(self) -> str: ...

    @property
    def stage(self) -> Stage: ...


@dataclass(frozen=True, slots=True)
class Refused:
    """Connections are refused; on sockets nobody listens for so many seconds."""

    seconds: float = 0.5
    name: str = "refused"
    stage: Stage = Stage.BEFORE_SEND


@dataclass(frozen=True, slots=True)
class Status:
    """An error status, with an empty body unless told otherwise."""

    status: int
    retry_after: float | None = None
    body: bytes = b""
    content_type: str = "application/json"
    stage: Stage = Stage.BEFORE_EFFECT

    @property
    def name(self) -> str:
        return f"status_{self.status}"


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset, after so many bytes of the answer."""

    after_bytes: int = 0
    name: str = "reset"
    stage: Stage = Stage.AFTER_EFFECT


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, the connection stays open, for at most so many seconds."""

    seconds: float = 60
    name: str = "hang"
    stage: Stage = Stage.AFTER_EFFECT


@dataclass(frozen=True, slots=True)
class Truncate:
    """The connection closes in the middle of the body."""

    name: str = "truncate"
    stage: Stage = Stage.BODY


@dataclass(frozen=True, slots=True)
class BadJson:
    """A success whose JSON breaks off."""

    name: str = "bad_json"
    stage: Stage = Stage.BODY


@dataclass(frozen=True, slots=True)
class Html:
    """A success that is some proxy's web page."""

    name: str = "html"
    stage: Stage = Stage.BODY


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes: lognormal, by its median and its 99th percentile in seconds."""

    median: float = 0.25
    p99: float = 1.5
    name: str = "latency"
    stage: Stage = Stage.TIME

    def seconds(self, random: Random) -> float:
        """One draw."""
        if self.p99 <= self.median:
            return self.median
        sigma = math.log(self.p99 / self.median) / 2.3263478740408408  # the normal distribution's 99th percentile
        return self.median * math.exp(random.gauss(0, sigma))


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call at a vendor, as a plan sees it."""

    vendor: str
    operation: str
    """In the words of the family: `payments.create`, `meetings.create`, `messages.send`, or `connect`."""
    index: int
    """How many calls of this vendor and operation came before."""
    path: str = ""
    body: bytes = b""


Plan = Callable[[Call, Random], Fault | None]
"""Chooses the fault of a call; None: this one goes well."""


def script(*faults: Fault | None) -> Plan:
    """Exactly these, in order; afterwards all goes well."""
    return lambda call, random: faults[call.index] if call.index < len(faults) else None


def rate(probability: float, *faults: Fault) -> Plan:
    """With this probability, one of these."""
    return lambda call, random: random.choice(faults) if random.random() < probability else None


def every(n: int, fault: Fault) -> Plan:
    """The n-th, the 2n-th, and so on."""
    return lambda call, random: fault if (call.index + 1) % n == 0 else None


def first(n: int, fault: Fault) -> Plan:
    """The first n."""
    return lambda call, random: fault if call.index < n else None


def always(fault: Fault) -> Plan:
    """Each one."""
    return lambda call, random: fault


def when(holds: Callable[[Call], bool], plan: Plan) -> Plan:
    """What `plan` says, for the calls for which this holds."""
    return lambda call, random: plan(call, random) if holds(call) else None


def chance(seed: int, *parts: object) -> Random:
    """A source of chance of its own for these parts: what happens elsewhere does not reshuffle it."""
    return Random(":".join(map(str, (seed, *parts))))


@dataclass(frozen=True, slots=True)
class Target:
    """Where the next plan applies; every verb takes the arguments of the function of its name."""

    faults: "Faults"
    vendor: str
    operation: str

    def plan(self, plan: Plan) -> None:
        """Any plan, also your own."""
        self.faults.add(self.vendor, self.operation, plan)

    def script(self, *faults: Fault | None) -> None:
        self.plan(script(*faults))

    def rate(self, probability: float, *faults: Fault) -> None:
        self.plan(rate(probability, *faults))

    def every(self, n: int, fault: Fault) -> None:
        self.plan(every(n, fault))

    def first(self, n: int, fault: Fault) -> None:
        self.plan(first(n, fault))

    def always(self, fault: Fault) -> None:
        self.plan(always(fault))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a call is in for."""

    fault: Fault | None
    delay: float
    random: Random


class Faults:
    """The plans of one run, and a count of every fault that fired."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.fired: Counter[str] = Counter()
        """How often each happened, by `vendor.fault`."""
        self._plans: list[tuple[str, str, Plan]] = []
        self._calls: Counter[tuple[str, str]] = Counter()

    def on(self, vendor: str, operation: str = "*") -> Target:
        """Plan faults for one operation of a vendor; `*` is all of them but `connect`."""
        return Target(self, vendor, operation)

    def add(self, vendor: str, operation: str, plan: Plan) -> None:
        """The same without the sentence."""
        self._plans.append((vendor, operation, plan))

    def draw(self, vendor: str, operation: str, *, path: str = "", body: bytes = b"") -> Drawn:
        """Decide what this call is in for; the first plan that names a fault wins, delays add up."""
        index = self._calls[vendor, operation]
        self._calls[vendor, operation] += 1
        call = Call(vendor=vendor, operation=operation, index=index, path=path, body=body)
        random = chance(self.seed, vendor, operation, index)
        delay, chosen = 0.0, None
        for number, plan in self._matching(vendor, operation):
            fault = plan(call, chance(self.seed, vendor, operation, index, number))
            if isinstance(fault, Latency):
                delay += fault.seconds(random)
            elif fault is not None and chosen is None:
                chosen = fault
        if chosen is not None:
            self.count(vendor, chosen.name)
        return Drawn(chosen, delay, random)

    def count(self, vendor: str, name: str) -> None:
        """One more of these happened."""
        self.fired[f"{vendor}.{name}"] += 1

    def calm(self) -> None:
        """No more faults from now on; the counts stay."""
        self._plans.clear()

    def reset(self) -> None:
        """Start over: the same plans, the first call again."""
        self._calls.clear()
        self.fired.clear()

    def _matching(self, vendor: str, operation: str) -> list[tuple[int, Plan]]:
        wanted = (operation,) if operation == "connect" else (operation, "*")
        return [
            (number, plan)
            for number, (of_vendor, of_operation, plan) in enumerate(self._plans)
            if of_vendor in (vendor, "*") and of_operation in wanted
        ]
