"""The one path every protected exchange takes."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from random import Random
from typing import NoReturn, ParamSpec, TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, CallInsideTransaction, CircuitOpen, NotSent, OutcomeUnknown
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, Denied, Permit, Result, Transition
from holdfast.resilience.budget import Budget
from holdfast.resilience.context import deadline_scope, in_transaction, remaining, retry_scope
from holdfast.resilience.decide import Again, Circumstances, Decision, decide
from holdfast.resilience.policy import Policy
from holdfast.resilience.retry import FailedOutcome, RetryState, backoff, stops
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
LONGEST_ATTEMPT = 3600.0

Classify = Callable[[BaseException], CallFailed | None]


def classify(error: BaseException) -> CallFailed | None:
    """What a plain function's exception means; None: it is the caller's own, passes through, and counts for nothing."""
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLError):
        return NotSent(str(error) or type(error).__name__, hard=True)
    if isinstance(error, TimeoutError | OSError):
        return OutcomeUnknown(str(error) or type(error).__name__, hard=True)
    return None


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
    idled: float = 0.0
    refreshed: bool = False
    hurried: bool = False


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
            raise ValueError("a keyed call needs its key; use once() where the provider takes none")
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
        with deadline_scope(_least(self.policy.deadline, deadline), self._clock), retry_scope() as outermost:
            run = _Run(
                effect=effect,
                operation=operation,
                refresh=refresh,
                key_valid=key_valid,
                timeout=_least(self.policy.timeout, timeout) or LONGEST_ATTEMPT,
                begun=self._clock.monotonic(),
                may_retry=outermost,
            )
            self._budget.deposit(run.begun)
            while True:
                run.attempts += 1
                try:
                    value = await self._attempt(exchange, run)
                except CallFailed as error:
                    await self._after_failure(error, run)
                else:
                    if self._telemetry:
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

    # One attempt.

    async def _attempt(self, exchange: Callable[[], Awaitable[T]], run: _Run) -> T:
        seconds = min(run.timeout, remaining(self._clock))
        if seconds <= 0:
            raise NotSent(
                f"{self.name}: no time left for {run.operation}",
                provider=self.name,
                operation=run.operation,
                local=True,
            )
        permits = self._admit(run, seconds)
        begun = self._clock.monotonic()
        try:
            value = await self._exchange(exchange, run, seconds)
        except CallFailed as error:
            self._record(permits, _judge(error), begun, run, hard=error.hard, error=error)
            raise
        except BaseException:
            # Cancelled, or the caller's own exception: it says nothing about the provider.
            self._record(permits, Result.NEUTRAL, begun, run)
            raise
        self._record(permits, Result.SUCCESS, begun, run)
        return value

    async def _exchange(self, exchange: Callable[[], Awaitable[T]], run: _Run, seconds: float) -> T:
        """Run it within its time, and turn what it raises into a cause."""
        try:
            async with self._clock.timeout(seconds if seconds < inf else None) as limit:
                return await exchange()
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            ours = bool(getattr(limit, "expired", bool)())
            what = f"{self.name}: {run.operation} had no answer after {seconds:.3g} s" if ours else str(error)
            raise OutcomeUnknown(
                what or "timed out", provider=self.name, operation=run.operation, reason="timeout", hard=True
            ) from error
        except Exception as error:  # the border to what is called: the classifier names what counts
            failure = self._classify(error)
            if failure is None:
                raise
            failure.provider = failure.provider or self.name
            failure.operation = failure.operation or run.operation
            if failure is error:
                raise
            raise failure from error

    def _admit(self, run: _Run, seconds: float) -> list[tuple[str, Circuit, Permit]]:
        """A permit of the provider's circuit, then of the operation's; raises CircuitOpen, holding neither."""
        if self.policy.breaker is None:
            return []
        names = ("",) if run.effect is Effect.READ else ("", run.operation)
        now = self._clock.monotonic()
        permits: list[tuple[str, Circuit, Permit]] = []
        for name in names:
            circuit = self.circuit(name)
            assert circuit is not None
            permit = circuit.admit(now, lease=seconds + PROBE_MARGIN)
            if isinstance(permit, Denied):
                for _, held, given in permits:
                    held.record(given, Result.NEUTRAL, now)
                self._reject(run, permit)
            else:
                permits.append((name, circuit, permit))
        return permits

    def _reject(self, run: _Run, denied: Denied) -> None:
        if self._telemetry:
            self._telemetry.emit(CallRejected(self.name, run.operation, "circuit", denied.retry_after))
        raise CircuitOpen(
            f"{self.name}: circuit open, {run.operation} was not sent; a probe is due in {denied.retry_after:.3g} s",
            provider=self.name,
            operation=run.operation,
            retry_after=denied.retry_after,
            local=True,
        )

    def _record(
        self,
        permits: list[tuple[str, Circuit, Permit]],
        result: Result,
        begun: float,
        run: _Run,
        *,
        hard: bool = False,
        error: CallFailed | None = None,
    ) -> None:
        now = self._clock.monotonic()
        breaker = self.policy.breaker
        slow = breaker is not None and breaker.slow_after is not None and now - begun > breaker.seconds("slow_after")
        open_at_least = error.retry_after or 0.0 if error is not None and error.status == 503 else 0.0
        for name, circuit, permit in permits:
            change = circuit.record(permit, result, now, hard=hard, slow=slow, open_at_least=open_at_least)
            if change is not None:
                self._tell(name, change)

    def _tell(self, operation: str, change: Transition) -> None:
        if self._telemetry:
            signal = CircuitChanged(self.name, operation, change.before, change.after, change.reason, change.open_for)
            self._telemetry.emit(signal)

    # After a failure.

    async def _after_failure(self, error: CallFailed, run: _Run) -> None:
        """Wait for the next attempt, or raise the error with the reason why there is none."""
        if self._telemetry:
            self._telemetry.emit(
                AttemptFailed(
                    self.name, run.operation, run.attempts, error.cause, error.status, error.reason, error.retry_after
                )
            )
        state = RetryState(
            attempt_number=run.attempts,
            outcome=FailedOutcome(error),
            seconds_since_start=self._clock.monotonic() - run.begun,
            idle_for=run.idled,
        )
        decision = self._decide(error, run, state)
        if not isinstance(decision, Again):
            self._give_up(error, run, self._why_not(error, run, state))
        if error.cause is Cause.CREDENTIAL and run.refresh is not None:
            run.refreshed = True
            await run.refresh()
            return
        wait = self._pause(error, run, state, decision)
        if wait >= remaining(self._clock):
            self._give_up(error, run, "deadline")
        if not self._budget.spend(self._clock.monotonic(), 2.0 if error.reason == "timeout" else 1.0):
            self._give_up(error, run, "budget")
        if self._telemetry:
            self._telemetry.emit(RetryScheduled(self.name, run.operation, run.attempts, wait))
        run.idled += wait
        if wait > 0:
            await self._clock.sleep(wait)

    def _decide(self, error: CallFailed, run: _Run, state: RetryState) -> Decision:
        retry = self.policy.retry
        may = retry is not None and run.may_retry and not stops(retry, state)
        refreshable = error.cause is Cause.CREDENTIAL and run.refresh is not None and not run.refreshed
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
            ),
        )

    def _pause(self, error: CallFailed, run: _Run, state: RetryState, decision: Again) -> float:
        retry = self.policy.retry
        assert retry is not None
        if error.cause is Cause.NOT_SENT and not run.hurried:
            run.hurried = True  # a fresh connection often succeeds where a stale one did not
            return 0.0
        wait = backoff(retry, state, error.cause, self._random)
        return wait if decision.after is None else max(wait, decision.after)

    def _why_not(self, error: CallFailed, run: _Run, state: RetryState) -> str:
        retry = self.policy.retry
        if retry is None or error.cause in (Cause.REJECTED, Cause.MISMATCH, Cause.CREDENTIAL) or error.local:
            return ""
        if not run.may_retry:
            return "nested"
        if stops(retry, state):
            return "attempts"
        return "deadline" if error.retry_after and error.retry_after >= remaining(self._clock) else "unsafe"

    def _give_up(self, error: CallFailed, run: _Run, why: str) -> NoReturn:
        if why:
            error.add_note(f"not tried again: {_WHY[why]}")
        if self._telemetry:
            if why:
                self._telemetry.emit(RetryDenied(self.name, run.operation, why))
            self._finish(run, error.cause)
        raise error

    def _finish(self, run: _Run, outcome: str) -> None:
        seconds = self._clock.monotonic() - run.begun
        self._telemetry.emit(CallFinished(self.name, run.operation, outcome, seconds, run.attempts))


_WHY = {
    "nested": "an outer guard still can",
    "attempts": "the policy's attempts are used up",
    "deadline": "the wait would outlast the deadline",
    "unsafe": "it may have taken effect, and repeating it could take effect twice",
    "budget": "too many retries of this provider already",
}


def _judge(error: CallFailed) -> Result:
    """What a failure says about the provider's health."""
    match error.cause:
        case Cause.REJECTED:
            return Result.SUCCESS  # it understood us: it is alive
        case Cause.UNKNOWN:
            return Result.FAILURE
        case Cause.NOT_SENT:
            return Result.FAILURE if error.hard else Result.NEUTRAL
        case Cause.REFUSED:
            return Result.FAILURE if error.status == 503 else Result.NEUTRAL
        case _:
            return Result.NEUTRAL


def _least(*values: object) -> float | None:
    numbers = [float(value) for value in values if value is not None]  # type: ignore[arg-type]  # seconds, all of them
    return min(numbers, default=None)
