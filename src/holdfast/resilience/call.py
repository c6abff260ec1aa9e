"""One call as it passes through a guard: every decision, and no waiting.

The drivers, `guard.py` for coroutines and `sync.py` for threads, wait where a method here says so.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from random import Random
from threading import Lock
from typing import Any, Literal, NoReturn

from holdfast.clock import Clock, TimerHandle
from holdfast.errors import BulkheadFull, CallFailed, CircuitOpen, NotSent, OnHold, OutcomeUnknown, RateLimited
from holdfast.outcome import Cause, Effect
from holdfast.resilience import timers
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState, Denied, Permit, Result, Transition
from holdfast.resilience.budget import RetryBudget
from holdfast.resilience.classify import Classify
from holdfast.resilience.context import Surroundings, Transaction
from holdfast.resilience.decide import counts_as
from holdfast.resilience.holds import REFUSED_FOR, Holds
from holdfast.resilience.limits import ConcurrencyLimit, RateLimit, Ticket
from holdfast.resilience.metrics import Operation
from holdfast.resilience.policy import Breaker, Policy, Priority
from holdfast.resilience.retry import after_pause
from holdfast.resilience.timers import Line
from holdfast.telemetry import AttemptFailed, CallFinished, CallRejected, CircuitChanged, Telemetry

PROBE_MARGIN = 1.0
"""A probe's lease outlasts its attempt's timeout by so many seconds."""
LONGEST_LEASE = 3600.0
"""The lease of a probe whose attempt has no timeout."""

MOMENT = 0.001
"""Nobody looks again sooner than this: the time of a timer and that of a limit may differ by a little."""

READ, IDEMPOTENT, KEYED, ONCE = Effect  # a lookup in an enumeration costs as much as a call
CALL = "call"
"""The operation of a function without a name."""
NOTHING: Mapping[str, Any] = {}

Limit = RateLimit | ConcurrencyLimit


@dataclass(slots=True, eq=False)
class Shared:
    """What all calls of a guard share."""

    name: str
    policy: Policy
    clock: Clock
    random: Random
    telemetry: Telemetry
    classify: Classify
    circuit: Circuit | None
    budget: RetryBudget | None
    holds: Holds
    rates: tuple[RateLimit, ...]
    places: ConcurrencyLimit | None
    limits: tuple[Limit, ...]
    """The rates, then the places."""
    keys: tuple[Callable[[], str], ...]
    """Of the rates: whose slot a call takes."""
    usual: tuple[tuple[str | Priority, ...], ...]
    """By priority, what `keys` and it make where no rate is keyed; empty where one is."""
    timeout: float
    deadline: float
    usual_limit: float
    """The shorter of the two."""
    slow_after: float
    monotonic: Callable[[], float]
    """The clock's."""
    lock: Lock
    """Held around every decision, for several loops and threads may share a guard; never while a signal is emitted."""

    def whose(self, priority: Priority) -> tuple[str | Priority, ...]:
        """Whose slot of each limit a call takes that begins here."""
        return (*(key() for key in self.keys), priority)

    def tell(self, operation: str, change: Transition | None) -> None:
        """Signal a change of a circuit's state, if there is one."""
        if change is None:
            return
        if self.places is not None and change.before is CircuitState.HALF_OPEN and change.after is CircuitState.CLOSED:
            window = self.policy.breaker or Breaker()
            with self.lock:
                self.places.restart(self.monotonic(), window.seconds("window"))
        if self.telemetry.sinks:
            self.telemetry.emit(
                CircuitChanged(self.name, operation, change.before, change.after, change.reason, change.open_for)
            )


@dataclass(slots=True, kw_only=True)
class Options:
    """What a call wants otherwise than the policy says."""

    credential: str = ""
    """What pauses when the vendor asks for a pause."""
    refresh: Callable[[], object] | None = None
    key_valid: Callable[[], bool] | None = None
    deadline: float = inf
    timeout: float = inf
    repeatable: bool = True
    """Its request can be sent more than once."""
    is_health: bool = False
    kept: "Kept | None" = None
    """Its answer is read after the guard is through with it."""


USUAL = Options()


@dataclass(slots=True)
class Kept:
    """A call whose answer is read later."""

    call: "Call | None" = None
    answered_at: float = 0.0


@dataclass(slots=True)
class Past:
    """What came of a call's earlier attempts."""

    last: CallFailed | None = None
    idled: float = 0.0
    refreshed: bool = False
    hurried: bool = False
    """It was repeated at once, for there was no connection."""
    unsettled: bool = False
    """An attempt ended unknown, so a later one's "nothing happened" is not the whole truth."""


class Call(Surroundings):
    """One call. While it runs it is also what surrounds whatever it calls."""

    __slots__ = (
        "admitted",
        "attempts",
        "begun",
        "cancelling",
        "effect",
        "ends",
        "expired",
        "limit",
        "operation",
        "options",
        "own_permit",
        "past",
        "permit",
        "shared",
        "started",
        "taken",
        "task",
        "timer",
        "whose",
    )

    task: "asyncio.Task[object] | None"
    cancelling: int
    ends: float

    def __init__(
        self,
        shared: Shared,
        effect: Effect,
        operation: Operation,
        outer: Surroundings,
        now: float,
        options: Options = USUAL,
    ) -> None:
        self.shared = shared
        self.effect = effect
        self.operation = operation
        self.outer = outer
        self.over = False
        self.options = options
        self.past: Past | None = None
        self.begun = self.started = now
        self.attempts = 0
        """Exchanges made so far; what was rejected here is none."""
        self.admitted = False
        """An attempt is under way: it holds what it was given."""
        self.taken = 0
        """So many of the limits, in their order, gave their slot."""
        self.permit: Permit | None = None
        self.own_permit: Permit | None = None
        """Of the operation's own circuit."""
        self.timer: Line | TimerHandle | None = None
        self.expired = False
        self.whose = shared.usual[outer.priority] if shared.usual else shared.whose(outer.priority)
        self.until = until = outer.until
        self.limit = shared.usual_limit
        if now + shared.deadline < until:
            self.until = now + shared.deadline
        elif until - now < self.limit:
            self.limit = until - now
        if options is not USUAL:
            self.until = min(self.until, now + options.deadline)
            self.limit = min(self.longest(), self.until - now)

    @property
    def retrying(self) -> bool:  # type: ignore[override]  # asked only by what it calls and what fails
        return self.outer.retrying or self.shared.policy.retry is not None

    @property
    def priority(self) -> Priority:  # type: ignore[override]
        return self.outer.priority

    @property
    def transaction(self) -> "Transaction | None":  # type: ignore[override]
        return self.outer.transaction

    @property
    def may_retry(self) -> bool:
        """Whether it is for this guard to repeat the call: nobody further out does, and it can be sent again."""
        return self.options.repeatable and not self.outer.retrying

    @property
    def circuit(self) -> Circuit | None:
        """The operation's own, unless it only looks."""
        return None if self.effect is READ else self.operation.circuit

    def longest(self) -> float:
        """Seconds an attempt may take while the deadline is far."""
        return min(self.shared.timeout, self.options.timeout)

    # What an attempt needs. `admit` takes all of it at once, if it is there.

    def again(self) -> None:
        """Another attempt is to be made."""
        self.started = self.shared.monotonic()
        self.limit = min(self.longest(), self.until - self.started)

    def admit(self) -> bool:
        """Begin an attempt if nothing stands in its way; else see `look`, `held`, `line_up` and `permitted`."""
        shared, now = self.shared, self.started
        if shared.holds.scopes or self.limit <= 0.0:
            return False
        shared.lock.acquire()  # `with` would cost twice as much
        try:
            if shared.circuit is not None:
                self.permit = shared.circuit.standing
                if self.permit is None:
                    return False
                if self.effect is not READ and self.operation.circuit is not None:
                    self.own_permit = self.operation.circuit.standing
                    if self.own_permit is None:
                        return False
            for rate in shared.rates:
                if not rate.take(self.whose[self.taken], now):  # type: ignore[arg-type]  # the keys come first
                    return False
                self.taken += 1
            if shared.places is not None:
                if not shared.places.take(self.whose[-1], now):  # type: ignore[arg-type]  # then the priority
                    return False
                self.taken += 1
            self.admitted = True
            self.attempts += 1
            self.operation.attempts += 1
            if self.attempts == 1 and shared.budget is not None:
                shared.budget.deposit(now)
        finally:
            shared.lock.release()
        return True

    def look(self) -> None:
        """Reject at once what cannot go out: no time is left, or a circuit is open. Raises NotSent, CircuitOpen."""
        shared, now = self.shared, self.shared.monotonic()
        if self.until <= now or self.longest() <= 0:
            self.reject("deadline", NotSent(f"{shared.name}: no time left for {self.operation.name}"))
        for circuit in (shared.circuit, self.circuit):
            if circuit is not None and circuit.refuses(now) is not None:
                self._reject_open(circuit, now)

    def held(self) -> float:
        """Seconds to wait, for the vendor asked this credential to pause. Raises OnHold: for longer than there is."""
        shared, now = self.shared, self.shared.monotonic()
        with shared.lock:
            left = shared.holds.left(self.options.credential, now)
        if left == 0:
            return 0.0
        if left < self._patience(now):
            return after_pause(left, shared.random)
        whose = f" for {self.options.credential}" if self.options.credential else ""
        text = f"{shared.name}: on hold{whose}, {self.operation.name} was not sent; ask again in {left:.3g} s"
        return self.reject("hold", OnHold(text, reason="hold", retry_after=left))

    def _patience(self, now: float) -> float:
        """How long it may wait for a vendor's pause: whoever has no deadline waits as long as between attempts."""
        if self.until < inf:
            return self.until - now
        retry = self.shared.policy.retry
        return retry.seconds("cap") if retry is not None else 0.0

    def line_up(self, wake: Callable[[], None]) -> Ticket | None:
        """Take a place in the next limit's line; None: there is none to wait for. Raises RateLimited, BulkheadFull.

        `wake` is called while the guard is locked, from whatever thread gave its slot back.
        """
        shared, now = self.shared, self.shared.monotonic()
        while self.taken < len(shared.limits):
            limit, whose = shared.limits[self.taken], self.whose[self.taken]
            with shared.lock:
                if limit.take(whose, now):  # type: ignore[arg-type]
                    self.taken += 1
                    continue
                ticket = limit.line_up(whose, now, wake)  # type: ignore[arg-type]
            if ticket is None:
                self._reject_full(limit, "too many wait already")
            return ticket
        return None

    def turn(self, ticket: Ticket) -> float:
        """Seconds until it is worth looking again; 0 when it is our turn. Raises RateLimited, BulkheadFull."""
        shared, now, limit = self.shared, self.shared.monotonic(), self.shared.limits[self.taken]
        with shared.lock:
            limit.poll(now)
            if ticket.granted:
                self.taken += 1
                return 0.0
        if ticket.dropped:
            self._reject_full(limit, "calls of higher priority took the room")
        if self.until <= now or inf > ticket.due >= self.until:
            self._reject_full(limit, "none comes free before the deadline")
        return max(min(ticket.due, self.until) - now, MOMENT)

    def abandon(self, ticket: Ticket) -> None:
        """It is no longer waited for."""
        with self.shared.lock:
            self.shared.limits[self.taken].leave(ticket, self.shared.monotonic())

    def permitted(self) -> None:
        """Begin the attempt with a permit of the provider's circuit, then of the operation's. Raises CircuitOpen."""
        shared, now = self.shared, self.shared.monotonic()
        self.limit = min(self.longest(), self.until - now)
        if self.limit <= 0:
            self.reject("deadline", NotSent(f"{shared.name}: no time left for {self.operation.name}"))
        self.permit = self._ask("", shared.circuit, now)
        self.own_permit = self._ask(self.operation.name, self.circuit, now)
        with shared.lock:
            self.started = now
            self.admitted = True
            self.attempts += 1
            self.operation.attempts += 1
            if self.attempts == 1 and shared.budget is not None:
                shared.budget.deposit(now)

    def _ask(self, name: str, circuit: Circuit | None, now: float) -> Permit | None:
        if circuit is None:
            return None
        with self.shared.lock:
            answer = circuit.admit(now, lease=min(self.limit, LONGEST_LEASE) + PROBE_MARGIN)
        self.shared.tell(name, answer.change)
        if isinstance(answer, Denied):
            self._reject_open(circuit, now)
        return answer

    def tries_out(self) -> bool:
        """Whether it would be the one that tries out an open circuit, which a health operation does better."""
        circuit = self.shared.circuit
        if circuit is None or self.options.is_health:
            return False
        now = self.shared.monotonic()
        return circuit.state(now) in _TRIED_OUT and circuit.refuses(now) is None

    def time_left(self) -> float:
        """Seconds until the attempt's time limit, or the deadline before it."""
        now = self.shared.monotonic()
        return max(0.0, min(self.started + self.longest(), self.until) - now)

    # How an attempt ended.

    def succeeded(self) -> None:
        """The attempt, and so the call, went well."""
        timer = self.timer
        if type(timer) is Line:
            del timer.waiting[self]
        elif timer is not None:
            timers.stop(self)
        shared, operation = self.shared, self.operation
        now = shared.monotonic()
        kept = self.options.kept
        seconds = (now if kept is None else kept.answered_at) - self.started
        slow = seconds > shared.slow_after
        change = own_change = None
        shared.lock.acquire()
        try:
            if shared.circuit is not None and self.permit is not None:
                change = shared.circuit.success(self.permit, now, slow)
                if self.own_permit is not None and operation.circuit is not None:
                    own_change = operation.circuit.success(self.own_permit, now, slow)
            if shared.places is not None:
                shared.places.release(self.whose[-1], now)  # type: ignore[arg-type]
            self.taken = 0
            for rate in shared.rates:
                rate.release(self.whose[self.taken], now)  # type: ignore[arg-type]
                self.taken += 1
            self.taken = 0
            operation.succeeded(seconds)
        finally:
            shared.lock.release()
        self.admitted = False
        if change is not None or own_change is not None:
            shared.tell("", change)
            shared.tell(operation.name, own_change)
        if shared.telemetry.sinks:
            self._tell_finished("ok")

    def answered(self) -> None:
        """The answer begins, and its body is read later: its time limit is over, what the attempt holds is not."""
        timers.stop(self)
        if self.options.kept is not None:
            self.options.kept.call, self.options.kept.answered_at = self, self.shared.monotonic()

    def end(self, error: BaseException | None = None) -> None:
        """The answer's body was read, or not. Harmless when the attempt is over already."""
        if not self.admitted:
            return
        if error is None:
            self.succeeded()
        elif (failed := self.failure(error)) is not None:
            self.finish(failed.cause)

    def failure(self, error: BaseException) -> CallFailed | None:
        """What the exception says of the attempt, counted and given back; None: it is the caller's own."""
        failed = self._understand(error)
        if self.admitted:
            self._record(failed)
        else:
            self._give_back(Result.NEUTRAL, None, sent=False)
        if failed is None:
            self.finish("cancelled" if isinstance(error, asyncio.CancelledError) else "error")
        return failed

    def _understand(self, error: BaseException) -> CallFailed | None:
        shared = self.shared
        failed: CallFailed | None = None
        timers.stop(self)
        if timers.ended_by(self, error):
            text = f"{shared.name}: {self.operation.name} had no answer after {self.limit:.3g} s"
            failed = OutcomeUnknown(text, reason="timeout", hard=True)
            failed.__cause__ = TimeoutError()
        elif isinstance(error, Exception):  # the border to what is called: the classifier names what counts
            failed = shared.classify(error)
            if failed is not None and failed is not error:
                failed.__cause__ = error
        if failed is not None:
            failed.provider = failed.provider or shared.name
            failed.operation = failed.operation or self.operation.name
        return failed

    def _record(self, failed: CallFailed | None) -> None:
        """Count what the attempt says of the provider, and give back what it held."""
        self._give_back(self._judge(failed), failed)
        if failed is None:
            return
        if failed.cause in (Cause.THROTTLED, Cause.REFUSED) and failed.retry_after and failed.status != 503:
            self.hold(failed.retry_after)
        if self.shared.telemetry.sinks:
            facts = (failed.cause, failed.status, failed.reason, failed.retry_after)
            self.shared.telemetry.emit(AttemptFailed(self.shared.name, self.operation.name, self.attempts, *facts))

    def _judge(self, failed: CallFailed | None) -> Result:
        """What it says of the provider: nothing, if the caller's deadline left less time than the operation takes."""
        if failed is None:  # cancelled, or the caller's own exception
            return Result.NEUTRAL
        if failed.reason == "timeout" and self.limit < min(self.longest(), self.operation.usual()):
            return Result.NEUTRAL
        return counts_as(failed)

    def _give_back(self, result: Result, failed: CallFailed | None, *, sent: bool = True) -> None:
        shared, now = self.shared, self.shared.monotonic()
        # A vendor that cannot be reached says nothing of one operation.
        own = Result.NEUTRAL if failed is not None and failed.cause is Cause.NOT_SENT else result
        with shared.lock:
            change = self._count(shared.circuit, self.permit, result, now, failed)
            own_change = self._count(self.circuit, self.own_permit, own, now, failed)
            for limit, whose in zip(shared.limits[: self.taken], self.whose, strict=False):
                if isinstance(limit, ConcurrencyLimit):
                    limit.release(self.priority, now, outcome=_burden(failed))
                    continue
                key = str(whose)
                limit.release(key, now, sent=sent and not (failed is not None and failed.local))
                if failed is not None and failed.cause is Cause.THROTTLED:
                    limit.throttled(key, now, failed.retry_after)
        self.permit = self.own_permit = None
        self.taken = 0
        self.admitted = False
        shared.tell("", change)
        shared.tell(self.operation.name, own_change)

    def _count(
        self, circuit: Circuit | None, permit: Permit | None, result: Result, now: float, failed: CallFailed | None
    ) -> Transition | None:
        if circuit is None or permit is None:
            return None
        return circuit.record(
            permit,
            result,
            now,
            hard=failed is not None and failed.hard,
            slow=now - self.started > self.shared.slow_after,
            open_at_least=(failed.retry_after or 0.0) if failed is not None and failed.status == 503 else 0.0,
        )

    def hold(self, seconds: float = REFUSED_FOR) -> None:
        """Pause the credential for so long."""
        with self.shared.lock:
            self.shared.holds.extend(self.options.credential, seconds, self.shared.monotonic())

    def finish(self, outcome: str) -> None:
        """The call is over, otherwise than well."""
        self.operation.ended(outcome)
        if self.shared.telemetry.sinks:
            self._tell_finished(outcome)

    def _tell_finished(self, outcome: str) -> None:
        seconds = self.shared.monotonic() - self.begun
        self.shared.telemetry.emit(CallFinished(self.shared.name, self.operation.name, outcome, seconds, self.attempts))

    # Rejections.

    def reject(self, layer: str, error: NotSent) -> NoReturn:
        """Say that it was not even tried, and which layer of the guard decided so."""
        error.provider, error.operation, error.local = self.shared.name, self.operation.name, True
        self.operation.rejected += 1
        if self.shared.telemetry.sinks:
            self.shared.telemetry.emit(CallRejected(self.shared.name, self.operation.name, layer, error.retry_after))
        raise error from (self.past and self.past.last)

    def _reject_open(self, circuit: Circuit, now: float) -> NoReturn:
        self.reject("circuit", circuit_open(self.shared.name, self.operation.name, circuit.snapshot(now)))

    def _reject_full(self, limit: Limit, why: str) -> NoReturn:
        name, operation = self.shared.name, self.operation.name
        if isinstance(limit, RateLimit):
            after = limit.retry_after(str(self.whose[self.taken]), self.shared.monotonic())
            text = f"{name}: {operation} was not sent, the rate has no slot: {why}; ask again in {after:.3g} s"
            self.reject("rate", RateLimited(text, reason="rate", retry_after=after))
        text = f"{name}: {operation} was not sent, no place among the concurrent calls: {why}"
        self.reject("concurrency", BulkheadFull(text, reason="concurrency"))


_TRIED_OUT = (CircuitState.OPEN, CircuitState.HALF_OPEN)


def circuit_open(name: str, operation: str, circuit: CircuitSnapshot) -> CircuitOpen:
    """The error of a call that an open circuit rejects."""
    after, why = circuit.retry_after, f" ({circuit.reason})" if circuit.reason else ""
    then = "" if after is None else f"; ask again in {after:.3g} s"
    state = "open" if circuit.state is CircuitState.HALF_OPEN else circuit.state
    return CircuitOpen(
        f"{name}: circuit {state}{why}, {operation} was not sent{then}", reason=circuit.state.value, retry_after=after
    )


def _burden(failed: CallFailed | None) -> Literal["overload", "neutral"]:
    """What a failure says of the number of calls at once."""
    if failed is None:
        return "neutral"
    return "overload" if failed.cause is Cause.THROTTLED or failed.reason == "timeout" else "neutral"
