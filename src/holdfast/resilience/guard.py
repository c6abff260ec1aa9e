"""The one path every protected exchange takes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from random import Random
from typing import NoReturn, ParamSpec, TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, CallInsideTransaction, CircuitOpen, InvalidInput, NotSent, OutcomeUnknown
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState, Denied, Permit, Result, Transition
from holdfast.resilience.budget import Budget
from holdfast.resilience.classify import Classify, classify
from holdfast.resilience.context import deadline_scope, in_transaction, remaining, retry_scope
from holdfast.resilience.decide import Again, Circumstances, Decision, Next, Resolve, counts_as, decide
from holdfast.resilience.latency import Latency
from holdfast.resilience.policy import Policy, Seconds
from holdfast.resilience.retry import FailedOutcome, RetryState, after_pause, backoff, stops
from holdfast.telemetry import (
    AttemptFailed,
    CallFinished,
    CallRejected,
    CircuitChanged,
    RetryDenied,
    RetryScheduled,
    Telemetry,
)

T = TypeVar("T")
P = ParamSpec("P")

PROBE_MARGIN = 1.0
"""A probe's lease outlasts its attempt's timeout by so many seconds."""
LONGEST_LEASE = 3600.0
"""The lease of a probe whose attempt has no timeout."""

Permits = list[tuple[str, Circuit, Permit]]


@dataclass(slots=True)
class _Run:
    """One call as it passes through."""

    effect: Effect
    operation: str
    refresh: Callable[[], Awaitable[object]] | None
    key_valid: Callable[[], bool] | None
    timeout: float
    begun: float
    may_retry: bool
    attempts: int = 0
    """Exchanges made so far; what was rejected here is none."""
    idled: float = 0.0
    refreshed: bool = False
    hurried: bool = False
    unsettled: bool = False
    """An attempt ended unknown, so a later one's "nothing happened" is not the whole truth."""
    last: CallFailed | None = None


class Guard:
    """Protects calls to one provider: deadline, retry, circuit, timeout, in this order.

    `weather = Guard("weather", Policy(deadline=3))`, then `await weather.read(fetch, city)`. The verb says what
    repeating the call would do: `read`, `idempotent`, `keyed(key, …)` where the provider honours the key, `once`.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        telemetry: Telemetry | None = None,
        classify: Classify = classify,
    ) -> None:
        self.name = name
        self.policy = policy or Policy()
        self._clock = clock or SystemClock()
        self._random = random or Random()  # jitter, not a secret
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._classify = classify
        self._budget = Budget()
        self._latency = Latency()
        self._circuits: dict[str, Circuit] = {}

    # Verbs.

    async def read(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that only looks. Raises CallFailed."""
        return await self._call(Effect.READ, function, args, kwargs)

    async def idempotent(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that is the same done twice. Raises CallFailed."""
        return await self._call(Effect.IDEMPOTENT, function, args, kwargs)

    async def keyed(self, key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something the provider does once per `key`, which the function passes on. Raises CallFailed."""
        if not key:
            raise InvalidInput("a keyed call needs its key; use once() where the provider takes none")
        return await self._call(Effect.KEYED, function, args, kwargs)

    async def once(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that must not happen twice. Raises CallFailed; OutcomeUnknown when it may have happened."""
        return await self._call(Effect.ONCE, function, args, kwargs)

    async def _call(
        self, effect: Effect, function: Callable[..., Awaitable[T]], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> T:
        operation = getattr(function, "__name__", "call")
        return await self.run(lambda: function(*args, **kwargs), effect=effect, operation=operation)

    async def run(
        self,
        exchange: Callable[[], Awaitable[T]],
        *,
        effect: Effect,
        operation: str,
        refresh: Callable[[], Awaitable[object]] | None = None,
        key_valid: Callable[[], bool] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> T:
        """Make one exchange, as often as effect and cause allow.

        `refresh` gets a fresh credential after a refusal, once; `key_valid` says whether a keyed exchange may still be
        repeated. `deadline` and `timeout`, in seconds, may only shorten the policy's.

        Raises:
            CallFailed: By cause; its notes say why it was not tried again.
            CallInsideTransaction: Called inside `handled_in`; nothing was sent.
        """
        if in_transaction():
            raise CallInsideTransaction(f"{self.name} {operation}")
        retries = self.policy.retry is not None
        with deadline_scope(_least(self.policy.deadline, deadline), self._clock), retry_scope(retries) as outermost:
            run = _Run(
                effect=effect,
                operation=operation,
                refresh=refresh,
                key_valid=key_valid,
                timeout=_least(self.policy.timeout, timeout),
                begun=self._clock.monotonic(),
                may_retry=outermost,
            )
            try:
                return await self._repeat(exchange, run)
            except CallFailed as error:
                self._finish(run, error.cause)
                raise
            except asyncio.CancelledError:
                self._finish(run, "cancelled")
                raise
            except BaseException:  # the caller's own: told, and passed on
                self._finish(run, "error")
                raise

    async def _repeat(self, exchange: Callable[[], Awaitable[T]], run: _Run) -> T:
        while True:
            try:
                value = await self._attempt(exchange, run)
            except CallFailed as error:
                await self._after_failure(error, run)
            else:
                self._finish(run, "ok")
                return value

    def snapshot(self) -> dict[str, CircuitSnapshot]:
        """Every circuit as it stands; the provider's own under the empty name."""
        now = self._clock.monotonic()
        return {name: circuit.snapshot(now) for name, circuit in self._circuits.items()}

    def circuit(self, operation: str = "") -> Circuit | None:
        """The provider's circuit, or an operation's; None when the policy has no breaker."""
        if self.policy.breaker is None:
            return None
        if operation not in self._circuits:
            self._circuits[operation] = Circuit(self.policy.breaker, self._random)
        return self._circuits[operation]

    # By hand.

    def isolate(self, reason: str, *, operation: str = "", ttl: float | None = None) -> None:
        """Let no call through, until `automatic` or for `ttl` seconds; of one operation, or all."""
        self._by_hand(operation, lambda circuit, now: circuit.isolate(reason, now, ttl=ttl))

    def metrics_only(self, reason: str, *, operation: str = "", ttl: float | None = None) -> None:
        """Let every call through and only count, until `automatic` or for `ttl` seconds."""
        self._by_hand(operation, lambda circuit, now: circuit.metrics_only(reason, now, ttl=ttl))

    def close(self, reason: str, *, operation: str = "") -> None:
        """Close the circuit now; from here on it opens by itself as ever."""
        self._by_hand(operation, lambda circuit, now: circuit.close(reason, now))

    def automatic(self, *, operation: str = "") -> None:
        """End what was set by hand."""
        self._by_hand(operation, lambda circuit, now: circuit.automatic(now))

    def _by_hand(self, operation: str, change: Callable[[Circuit, float], Transition]) -> None:
        circuit = self.circuit(operation)
        if circuit is None:
            raise InvalidInput(f"{self.name} has no circuit: its policy has breaker=None")
        self._tell(operation, change(circuit, self._clock.monotonic()))

    # One attempt.

    async def _attempt(self, exchange: Callable[[], Awaitable[T]], run: _Run) -> T:
        seconds = min(run.timeout, remaining(self._clock))
        if seconds <= 0:
            self._reject(run, "deadline", NotSent(f"{self.name}: no time left for {run.operation}"))
        permits = self._admit(run, seconds)
        begun = self._clock.monotonic()
        if run.attempts == 0:
            self._budget.deposit(begun)
        run.attempts += 1
        try:
            value = await self._exchange(exchange, run, seconds)
        except CallFailed as error:
            self._record(permits, self._judge(error, run, seconds), begun, error)
            self._tell_failure(error, run)
            raise
        except BaseException:
            # Cancelled, or the caller's own exception: it says nothing about the provider.
            self._record(permits, Result.NEUTRAL, begun)
            raise
        self._record(permits, Result.SUCCESS, begun)
        self._latency.add(run.operation, self._clock.monotonic() - begun)
        return value

    async def _exchange(self, exchange: Callable[[], Awaitable[T]], run: _Run, seconds: float) -> T:
        """Run it within its time, and turn what it raises into a cause."""
        limit: object = None
        try:
            async with self._clock.timeout(seconds if seconds < inf else None) as limit:
                return await exchange()
        except Exception as error:  # the border to what is called: the classifier names what counts
            failure = _late(error, limit, f"{self.name}: {run.operation} had no answer after {seconds:.3g} s")
            failure = failure or self._classify(error)
            if failure is None:
                raise
            failure.provider = failure.provider or self.name
            failure.operation = failure.operation or run.operation
            if failure is error:
                raise
            raise failure from error

    def _admit(self, run: _Run, seconds: float) -> Permits:
        """A permit of the provider's circuit, then of the operation's; raises CircuitOpen, holding neither."""
        if self.policy.breaker is None:
            return []
        lease = min(seconds, LONGEST_LEASE) + PROBE_MARGIN
        now = self._clock.monotonic()
        permits: Permits = []
        for name in ("",) if run.effect is Effect.READ else ("", run.operation):
            circuit = self.circuit(name)
            assert circuit is not None
            permit = circuit.admit(now, lease=lease)
            if permit.change is not None:
                self._tell(name, permit.change)
            if isinstance(permit, Denied):
                for _, held, given in permits:
                    held.record(given, Result.NEUTRAL, now)
                self._reject(run, "circuit", self._circuit_open(circuit.snapshot(now), run))
            permits.append((name, circuit, permit))
        return permits

    def _circuit_open(self, circuit: CircuitSnapshot, run: _Run) -> CircuitOpen:
        after, why = circuit.retry_after, f" ({circuit.reason})" if circuit.reason else ""
        then = "" if after is None else f"; ask again in {after:.3g} s"
        state = "open" if circuit.state is CircuitState.HALF_OPEN else circuit.state
        return CircuitOpen(
            f"{self.name}: circuit {state}{why}, {run.operation} was not sent{then}",
            reason=circuit.state.value,
            retry_after=after,
        )

    def _reject(self, run: _Run, layer: str, error: NotSent) -> NoReturn:
        error.provider, error.operation, error.local = self.name, run.operation, True
        if self._telemetry:
            self._telemetry.emit(CallRejected(self.name, run.operation, layer, error.retry_after))
        raise error from run.last

    def _judge(self, error: CallFailed, run: _Run, seconds: float) -> Result:
        """What it says of the provider: nothing, if the caller's deadline left less time than the operation takes."""
        if error.reason == "timeout" and seconds < run.timeout and seconds < self._latency.normal(run.operation):
            return Result.NEUTRAL
        return counts_as(error)

    def _record(self, permits: Permits, result: Result, begun: float, error: CallFailed | None = None) -> None:
        if not permits:
            return
        now = self._clock.monotonic()
        breaker = self.policy.breaker
        slow = breaker is not None and breaker.slow_after is not None and now - begun > breaker.seconds("slow_after")
        hard = error is not None and error.hard
        open_at_least = (error.retry_after or 0.0) if error is not None and error.status == 503 else 0.0
        for name, circuit, permit in permits:
            if name and error is not None and error.cause is Cause.NOT_SENT:
                result = Result.NEUTRAL  # a vendor that cannot be reached says nothing of one operation
            change = circuit.record(permit, result, now, hard=hard, slow=slow, open_at_least=open_at_least)
            if change is not None:
                self._tell(name, change)

    def _tell(self, operation: str, change: Transition) -> None:
        if self._telemetry:
            signal = CircuitChanged(self.name, operation, change.before, change.after, change.reason, change.open_for)
            self._telemetry.emit(signal)

    def _tell_failure(self, error: CallFailed, run: _Run) -> None:
        if self._telemetry:
            self._telemetry.emit(
                AttemptFailed(
                    self.name, run.operation, run.attempts, error.cause, error.status, error.reason, error.retry_after
                )
            )

    # After a failure.

    async def _after_failure(self, error: CallFailed, run: _Run) -> None:
        """Wait for the next attempt, or raise the error with the reason why there is none."""
        wait = self._backoff(error, run)
        decision = self._decide(error, run, wait)
        run.last, run.unsettled = error, run.unsettled or error.cause is Cause.UNKNOWN
        if not isinstance(decision, Again):
            self._give_up(error, run, self._why_not(decision, run))
        if error.cause is Cause.CREDENTIAL and run.refresh is not None:
            await self._refresh(run.refresh, error, run)
            return
        if decision.after:
            wait = max(wait, after_pause(decision.after, self._random))
        left = remaining(self._clock)
        if wait + self._latency.normal(run.operation) >= left or (left == inf and self._impatient(decision.after)):
            self._give_up(error, run, "deadline")
        if not self._budget.spend(self._clock.monotonic(), 2.0 if error.reason == "timeout" else 1.0):
            self._give_up(error, run, "budget")
        if self._telemetry:
            self._telemetry.emit(RetryScheduled(self.name, run.operation, run.attempts, wait))
        run.idled += wait
        if wait > 0:
            await self._clock.sleep(wait)

    def _backoff(self, error: CallFailed, run: _Run) -> float:
        """Seconds the policy waits; none before the first repeat after no connection: a fresh one often succeeds."""
        retry = self.policy.retry
        if retry is None or error.local or not run.may_retry:
            return 0.0
        if error.cause is Cause.NOT_SENT and error.hard and retry.wait is None and not run.hurried:
            run.hurried = True
            return 0.0
        return backoff(retry, self._state(error, run), error.cause, self._random)

    def _decide(self, error: CallFailed, run: _Run, wait: float) -> Decision:
        retry = self.policy.retry
        refreshable = error.cause is Cause.CREDENTIAL and run.refresh is not None and not run.refreshed
        may = retry is not None and run.may_retry and not error.local
        if may and retry is not None:
            may = not stops(retry, self._state(error, run, max(wait, error.retry_after or 0.0)))
        return decide(
            error.cause,
            run.effect,
            Circumstances(
                attempts_left=1 if may or refreshable else 0,
                refreshable=refreshable,
                remaining=remaining(self._clock),
                retry_after=error.retry_after,
                local=error.local,
                key_valid=run.key_valid is None or run.key_valid(),
                unsettled=run.unsettled,
            ),
        )

    def _state(self, error: CallFailed, run: _Run, upcoming_sleep: float = 0.0) -> RetryState:
        return RetryState(
            attempt_number=run.attempts,
            outcome=FailedOutcome(error),
            seconds_since_start=self._clock.monotonic() - run.begun,
            idle_for=run.idled,
            upcoming_sleep=upcoming_sleep,
        )

    def _impatient(self, after: float | None) -> bool:
        """Whether the vendor asks for a longer pause than the policy waits; whoever has a deadline said it himself."""
        retry = self.policy.retry
        return after is not None and retry is not None and after > retry.seconds("cap")

    async def _refresh(self, refresh: Callable[[], Awaitable[object]], error: CallFailed, run: _Run) -> None:
        """Get a fresh credential, within the deadline."""
        run.refreshed = True
        left = remaining(self._clock)
        try:
            async with self._clock.timeout(left if left < inf else None):
                await refresh()
        except TimeoutError:
            self._give_up(error, run, "deadline")
        except CallFailed as failure:
            failure.provider = failure.provider or self.name
            failure.operation = failure.operation or run.operation
            self._give_up(failure, run, "")

    def _why_not(self, decision: Decision, run: _Run) -> str:
        if self.policy.retry is None or isinstance(decision, Again | Next) or decision.why == "final":
            return ""
        return "nested" if decision.why == "attempts" and not run.may_retry else decision.why

    def _give_up(self, error: CallFailed, run: _Run, why: str) -> NoReturn:
        if why and self._telemetry:
            self._telemetry.emit(RetryDenied(self.name, run.operation, why))
        if error.cause is not Cause.UNKNOWN and self._in_doubt(error, run):
            doubt = OutcomeUnknown(
                f"{self.name}: {run.operation} may have happened in an earlier attempt; the last one: {error}",
                provider=error.provider,
                operation=error.operation,
                status=error.status,
                code=error.code,
                reason=error.reason,
                retry_after=error.retry_after,
                request_id=error.request_id,
            )
            doubt.__cause__ = error
            error = doubt
        if why:
            error.add_note(f"not tried again: {_WHY[why]}")
        raise error

    def _in_doubt(self, error: CallFailed, run: _Run) -> bool:
        return isinstance(decide(error.cause, run.effect, Circumstances(unsettled=run.unsettled)), Resolve)

    def _finish(self, run: _Run, outcome: str) -> None:
        if self._telemetry:
            seconds = self._clock.monotonic() - run.begun
            self._telemetry.emit(CallFinished(self.name, run.operation, outcome, seconds, run.attempts))


_WHY = {
    "nested": "an outer guard still can",
    "attempts": "the policy's attempts are used up",
    "deadline": "the wait would outlast the deadline, or without one the policy's cap",
    "unsafe": "it may have taken effect, and repeating it could take effect twice",
    "budget": "too many retries of this provider already",
}


def _late(error: Exception, limit: object, what: str) -> CallFailed | None:
    """The failure, if it was our own time limit that ended the attempt."""
    if isinstance(error, TimeoutError) and isinstance(limit, asyncio.Timeout) and limit.expired():
        return OutcomeUnknown(what, reason="timeout", hard=True)
    return None


def _least(ours: Seconds | None, callers: float | None) -> float:
    return min(inf if ours is None else float(ours), inf if callers is None else callers)  # type: ignore[arg-type]  # a number once the policy is made
