"""One call as it passes through a guard: every decision, and no waiting.

The drivers, `guard.py` for coroutines and `sync.py` for threads, wait where a method here says so.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NoReturn, TypeVar

from holdfast.errors import BulkheadFull, CallFailed, CircuitOpen, NotSent, OnHold, OutcomeUnknown, RateLimited
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Circuit, Denied, Permit, Result, Transition
from holdfast.resilience.context import Surroundings
from holdfast.resilience.decide import counts_as
from holdfast.resilience.limits import Burden, ConcurrencyLimit, RateLimit, Ticket
from holdfast.resilience.metrics import Operation
from holdfast.resilience.policy import Priority
from holdfast.resilience.retry import after_pause
from holdfast.resilience.shared import TRIED_OUT, Limit, Shared, running_loop
from holdfast.resilience.timers import TimeLimit
from holdfast.telemetry import AttemptFailed, CallFinished, CallRejected, CredentialHeld

T = TypeVar("T")

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


@dataclass(slots=True, kw_only=True)
class Options:
    """What a call wants otherwise than the policy says."""

    credential: str = ""
    """What pauses when the vendor asks for a pause."""
    scope: str = ""
    """What pauses alone when the vendor means only it."""
    refresh: Callable[[], object] | None = None
    key_valid: Callable[[], bool] | None = None
    """Whether the vendor still remembers the key of a KEYED exchange; asked before every attempt, also the first."""
    deadline: float = inf
    timeout: float = inf
    whose: tuple[str, ...] | None = None
    """Whose slots of the rates it takes, where that is known before it begins."""
    repeatable: bool = True
    """Its request can be sent more than once."""
    is_health: bool = False
    kept: "Kept | None" = None
    """Its answer is read after the guard is through with it."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Everything whose hold concerns it, the widest first."""
        return (self.credential, f"{self.credential}/{self.scope}") if self.scope else (self.credential,)


USUAL = Options()


@dataclass(slots=True)
class Kept:
    """A call whose answer is read later."""

    call: "Call | None" = None
    answered_at: float = 0.0


@dataclass(slots=True)
class Past:
    """What came of a call's earlier attempts."""

    last: Exception | None = None
    idled: float = 0.0
    refreshed: bool = False
    hurried: bool = False
    """It was repeated at once, for there was no connection."""
    unsettled: bool = False
    """An attempt ended unknown, so a later one's "nothing happened" is not the whole truth."""


class Call:
    """One call, once something is not as usual: it has to wait for something, has failed, or is answered in parts."""

    __slots__ = (
        "admitted",
        "attempts",
        "begun",
        "effect",
        "finished",
        "limit",
        "operation",
        "options",
        "outer",
        "own_permit",
        "past",
        "permit",
        "shared",
        "started",
        "taken",
        "timer",
        "until",
        "whose",
    )

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
        self.options = options
        self.past = Past()
        self.begun = self.started = now
        self.attempts = 0
        """Exchanges made so far; what was rejected here is none."""
        self.admitted = False
        """An attempt is under way: it holds what it was given."""
        self.finished = False
        self.taken = 0
        """So many of the limits, in their order, gave their slot."""
        self.permit: Permit | None = None
        self.own_permit: Permit | None = None
        """Of the operation's own circuit."""
        self.timer: TimeLimit | None = None
        self.whose = shared.whose() if options.whose is None else options.whose
        self.until = min(outer[0], now + min(shared.deadline, options.deadline))
        self.limit = min(self.longest(), self.until - now)

    @property
    def surroundings(self) -> Surroundings:
        """What surrounds whatever it calls."""
        _, retrying, priority, transaction = self.outer
        return self.until, retrying or self.shared.retries, priority, transaction

    @property
    def priority(self) -> Priority:
        """Who goes first."""
        return self.outer[2]

    @property
    def may_retry(self) -> bool:
        """Whether it is for this guard to repeat the call: nobody further out does, and it can be sent again."""
        return self.options.repeatable and not self.outer[1]

    @property
    def circuit(self) -> Circuit | None:
        """The operation's own, unless it only looks."""
        return None if self.effect is Effect.READ else self.operation.circuit

    def under_way(self, permit: Permit | None, own_permit: Permit | None, timer: TimeLimit | None) -> None:
        """The first attempt is under way already, and has all it needs."""
        self.permit, self.own_permit, self.timer = permit, own_permit, timer
        self.taken = len(self.shared.limits)
        self.attempts = 1
        self.admitted = True
        with self.shared.lock:
            self.shared.running += 1

    def longest(self) -> float:
        """Seconds an attempt may take while the deadline is far."""
        return min(self.shared.timeout, self.options.timeout)

    # What an attempt needs, in the guard's order.

    def again(self) -> None:
        """Another attempt is to be made."""
        self.started = self.shared.monotonic()
        self.limit = min(self.longest(), self.until - self.started)

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
            left = max(shared.holds.left(scope, now) for scope in self.options.scopes)
            refused = any(scope in shared.holds.refused for scope in self.options.scopes)
            shared.settle()
        if left == 0:
            return 0.0
        patience = self._patience(now)
        if left < patience and not refused:  # to wait for a credential that was refused helps nobody
            pause = after_pause(left, shared.random)
            return pause if pause < patience else left
        whose = f" for {self.options.scopes[-1]}" if any(self.options.scopes) else ""
        text = f"{shared.name}: on hold{whose}, {self.operation.name} was not sent; ask again in {left:.3g} s"
        return self.reject("hold", OnHold(text, reason="hold", retry_after=left))

    def _patience(self, now: float) -> float:
        """How long it may wait for a vendor's pause: whoever has no deadline waits as long as between attempts."""
        if self.until < inf:
            return self.until - now
        retry = self.shared.policy.retry
        return retry.seconds("cap") if retry is not None else 0.0

    def _take(self, limit: Limit, now: float) -> bool:
        if isinstance(limit, ConcurrencyLimit):
            return limit.take(self.priority, now)
        return limit.take(self.whose[self.taken], now)

    def line_up(self, wake: Callable[[], None]) -> Ticket | None:
        """Take a place in the next limit's line; None: there is none to wait for. Raises RateLimited, BulkheadFull.

        `wake` is called while the guard is locked, from whatever thread gave its slot back.
        """
        shared, now = self.shared, self.shared.monotonic()
        while self.taken < len(shared.limits):
            limit = shared.limits[self.taken]
            with shared.lock:
                if self._take(limit, now):
                    self.taken += 1
                    continue
                if isinstance(limit, ConcurrencyLimit):
                    ticket = limit.line_up(self.priority, now, wake)
                else:
                    ticket = limit.line_up(self.whose[self.taken], now, wake)
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
            too_late = self.until <= now or inf > ticket.due >= self.until
            if too_late:
                limit.leave(ticket, now)  # what is said of the wait is not to count it
        if ticket.dropped:
            self._reject_full(limit, "calls of higher priority took the room")
        if too_late:
            self._reject_full(limit, "none comes free before the deadline")
        return max(min(ticket.due, self.until) - now, MOMENT)

    def may_block(self) -> None:
        """Reject a wait in an event loop's own thread: those who are to give a slot back may be in that loop."""
        if running_loop() is not None:
            self._reject_full(self.shared.limits[self.taken], "a plain function in an event loop cannot wait for one")

    def overtaken(self, *, health: bool) -> bool:
        """Whether a pause began while it stood in line, or a circuit can be tried out: both come before the limits."""
        shared, now = self.shared, self.shared.monotonic()
        with shared.lock:
            held = any(shared.holds.left(scope, now) for scope in self.options.scopes)
        return held or (health and self.tries_out())

    def step_back(self) -> None:
        """Give back what the limits gave, unused."""
        self._give_back(Result.NEUTRAL, None, sent=False)

    def abandon(self, ticket: Ticket) -> None:
        """It is no longer waited for."""
        with self.shared.lock:
            self.shared.limits[self.taken].leave(ticket, self.shared.monotonic())

    def elects(self, wake: Callable[[], None]) -> float:
        """Seconds to wait, at most, until it is known which process tries out an open circuit; 0: go on."""
        shared, peers = self.shared, self.shared.peers
        if peers is None:
            return 0.0
        now = shared.monotonic()
        lease = self._lease(now)
        with shared.lock:
            for name, circuit in (("", shared.circuit), (self.operation.name, self.circuit)):
                if circuit is not None and circuit.undecided(now):
                    return peers.elect(name, lease, wake, now)
        return 0.0

    def _lease(self, now: float) -> float:
        """Seconds after which a probe that begins now is forgotten."""
        return min(self.longest(), self.until - now, LONGEST_LEASE) + PROBE_MARGIN

    def permitted(self) -> None:
        """Begin the attempt with a permit of the provider's circuit, then of the operation's. Raises CircuitOpen."""
        shared, now = self.shared, self.shared.monotonic()
        self.limit = min(self.longest(), self.until - now)
        if self.limit <= 0:
            self.reject("deadline", NotSent(f"{shared.name}: no time left for {self.operation.name}"))
        if self.effect is Effect.KEYED and self.options.key_valid is not None and not self.options.key_valid():
            text = f"{shared.name}: {self.operation.name} was not sent, the vendor may have forgotten its key by now"
            self.reject("key", NotSent(text, reason="key"))
        self.permit = self._ask("", shared.circuit, now)
        self.own_permit = self._ask(self.operation.name, self.circuit, now)
        with shared.lock:
            self.started = now
            self.admitted = True
            self.attempts += 1
            shared.running += 1
            if self.attempts == 1 and shared.budget is not None:
                shared.budget.deposit(now)

    def _ask(self, name: str, circuit: Circuit | None, now: float) -> Permit | None:
        if circuit is None:
            return None
        with self.shared.lock:
            answer = circuit.admit(now, lease=self._lease(now))
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
        return circuit.state(now) in TRIED_OUT and circuit.refuses(now) is None

    def not_tried_out(self, error: Exception) -> NoReturn:
        """Reject it, for the health operation did not find the provider well. Raises CircuitOpen."""
        assert self.shared.circuit is not None
        self.past.last = error
        self._reject_open(self.shared.circuit, self.shared.monotonic())

    def time_left(self) -> float:
        """Seconds until the attempt's time limit, or the deadline before it."""
        now = self.shared.monotonic()
        return max(0.0, min(self.started + self.longest(), self.until) - now)

    # How an attempt ended.

    def succeeded(self) -> None:
        """The attempt, and so the call, went well."""
        self._stop_timer(None)
        shared, kept, now = self.shared, self.options.kept, self.shared.monotonic()
        seconds = (now if kept is None else kept.answered_at) - self.started
        self._give_back(Result.SUCCESS, None, slow=seconds > shared.slow_after, outcome="ok")
        with shared.lock:
            self.operation.succeeded(seconds)
        self.finished = True
        if shared.telemetry.sinks:
            self._tell_finished("ok")

    def answered(self) -> None:
        """The answer begins, and its body is read later: its time limit is over, what the attempt holds is not."""
        self._stop_timer(None)
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
        try:
            failed = self._understand(error)
        except BaseException as broken:  # the classifier is the caller's own
            self._give_back(Result.NEUTRAL, None)
            self.broken_off(broken)
            raise
        if self.admitted:
            with self.shared.lock:
                self.operation.failed += 1
            self._record(failed)
        else:
            self._give_back(Result.NEUTRAL, None, sent=False)
        if failed is None:
            self.broken_off(error)
        return failed

    def _understand(self, error: BaseException) -> CallFailed | None:
        shared = self.shared
        failed: CallFailed | None = None
        if self._stop_timer(error):
            text = f"{shared.name}: {self.operation.name} had no answer after {self.limit:.3g} s"
            failed = OutcomeUnknown(text, reason="timeout", hard=True)
            failed.__cause__ = TimeoutError()
        elif not self.admitted:  # of ours, and no classifier's business
            failed = error if isinstance(error, CallFailed) else None
        elif isinstance(error, Exception):  # the border to what is called: the classifier names what counts
            failed = shared.classify(error)
            if failed is not None and failed is not error:
                failed.__cause__ = error
        if failed is not None:
            failed.provider = failed.provider or shared.name
            failed.operation = failed.operation or self.operation.name
        return failed

    def _stop_timer(self, error: BaseException | None) -> bool:
        """Whether the attempt's time limit ended it. The timer is let go, for its task may hold the error, too."""
        timer, self.timer = self.timer, None
        if timer is None:
            return False
        timer.stop()
        return timer.ended(error)

    def _record(self, failed: CallFailed | None) -> None:
        """Count what the attempt says of the provider, and give back what it held."""
        self._give_back(self._judge(failed), failed)
        if failed is None:
            return
        paused = failed.cause in (Cause.THROTTLED, Cause.REFUSED) and failed.status != 503 and not failed.local
        if paused and failed.retry_after and (self.options.scope or not failed.narrow):
            self.hold(self.options.scopes[-1 if failed.narrow else 0], failed.retry_after)
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

    def _give_back(
        self,
        result: Result,
        failed: CallFailed | None,
        *,
        sent: bool = True,
        slow: bool | None = None,
        outcome: Burden | None = None,
    ) -> None:
        shared, now = self.shared, self.shared.monotonic()
        slow = now - self.started > shared.slow_after if slow is None else slow
        # A vendor that cannot be reached says nothing of one operation.
        own = Result.NEUTRAL if failed is not None and failed.cause is Cause.NOT_SENT else result
        with shared.lock:
            change = _count(shared.circuit, self.permit, result, now, failed, slow=slow)
            own_change = _count(self.circuit, self.own_permit, own, now, failed, slow=slow)
            for rate, key in zip(shared.rates[: self.taken], self.whose, strict=False):
                rate.release(key, now, sent=sent and not (failed is not None and failed.local))
                if failed is not None and failed.cause is Cause.THROTTLED:
                    rate.throttled(key, now, failed.retry_after)
            if shared.places is not None and self.taken > len(shared.rates):
                shared.places.release(self.priority, now, outcome=outcome or (_burden(failed) if sent else "unused"))
            shared.running -= self.admitted
        self.permit = self.own_permit = None
        self.taken = 0
        self.admitted = False
        shared.tell("", change)
        shared.tell(self.operation.name, own_change)

    def hold(self, scope: str, seconds: float, *, refused: bool = False) -> None:
        """Let a credential, or something narrower, pause for so long."""
        shared = self.shared
        with shared.lock:
            longer = shared.holds.extend(scope, seconds, shared.monotonic(), refused=refused)
            shared.settle()
        if longer and (peers := shared.peers) is not None:
            peers.held(scope, seconds)
        if longer and shared.telemetry.sinks:
            shared.telemetry.emit(CredentialHeld(shared.name, scope, seconds))

    def broken_off(self, error: BaseException) -> None:
        """The call is over by something that says nothing of the provider."""
        self.finish("cancelled" if isinstance(error, asyncio.CancelledError) else "error")

    def finish(self, outcome: str) -> None:
        """The call is over, otherwise than well; only the first time counts."""
        self.past.last = None  # which may be what is raised now, and whose traceback leads here
        if self.finished:
            return
        self.finished = True
        with self.shared.lock:
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
        with self.shared.lock:
            self.operation.rejected += 1
        if self.shared.telemetry.sinks:
            self.shared.telemetry.emit(CallRejected(self.shared.name, self.operation.name, layer, error.retry_after))
        try:
            raise error from self.past.last
        finally:
            del error  # else it would hold itself, by its traceback

    def _reject_open(self, circuit: Circuit, now: float) -> NoReturn:
        self.reject("circuit", circuit_open(self.shared, self.operation.name, circuit, now))

    def _reject_full(self, limit: Limit, why: str) -> NoReturn:
        name, operation = self.shared.name, self.operation.name
        if isinstance(limit, RateLimit):
            with self.shared.lock:
                after = limit.retry_after(self.whose[self.taken], self.shared.monotonic())
            text = f"{name}: {operation} was not sent, the rate has no slot: {why}; ask again in {after:.3g} s"
            self.reject("rate", RateLimited(text, reason="rate", retry_after=after))
        text = f"{name}: {operation} was not sent, no place among the concurrent calls: {why}"
        self.reject("concurrency", BulkheadFull(text, reason="concurrency"))


def circuit_open(shared: Shared, operation: str, circuit: Circuit, now: float) -> CircuitOpen:
    """The error of a call that an open circuit rejects."""
    after, state = circuit.refuses(now), circuit.state(now).value
    return shared.rejection.at(shared.name, operation, circuit.reason, None if after == inf else after, state)


def _count(
    circuit: Circuit | None, permit: Permit | None, result: Result, now: float, failed: CallFailed | None, *, slow: bool
) -> Transition | None:
    if circuit is None or permit is None:
        return None
    return circuit.record(
        permit,
        result,
        now,
        hard=failed is not None and failed.hard,
        slow=slow,
        open_at_least=(failed.retry_after or 0.0) if failed is not None and failed.status == 503 else 0.0,
    )


def _burden(failed: CallFailed | None) -> Burden:
    """What a failure says of the number of calls at once."""
    if failed is None:
        return "neutral"
    return "overload" if failed.cause is Cause.THROTTLED or failed.reason == "timeout" else "neutral"
