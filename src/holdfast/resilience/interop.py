"""pybreaker in and out: listeners, errors and breakers you already have go on working with a guard.

tenacity needs no bridge: `Retry(wait=…, stop=…)` speaks its strategies.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from math import inf, isfinite
from random import Random

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, CircuitOpen, MissingExtra
from holdfast.outcome import Cause
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState, Denied, Permit, Result, Transition
from holdfast.resilience.classify import Classify, classify
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.telemetry import AttemptFailed, CallFinished, CircuitChanged, Signal, Telemetry

try:
    import pybreaker
except ImportError as error:
    raise MissingExtra("pybreaker") from error

_OURS = {
    pybreaker.STATE_CLOSED: CircuitState.CLOSED,
    pybreaker.STATE_OPEN: CircuitState.OPEN,
    pybreaker.STATE_HALF_OPEN: CircuitState.HALF_OPEN,
}
_THEIRS = {
    CircuitState.CLOSED: pybreaker.STATE_CLOSED,
    CircuitState.METRICS_ONLY: pybreaker.STATE_CLOSED,
    CircuitState.OPEN: pybreaker.STATE_OPEN,
    CircuitState.ISOLATED: pybreaker.STATE_OPEN,
    CircuitState.HALF_OPEN: pybreaker.STATE_HALF_OPEN,
}


class PybreakerCircuitOpen(CircuitOpen, pybreaker.CircuitBreakerError):
    """A `CircuitOpen` that `except pybreaker.CircuitBreakerError` catches too."""


def pybreaker_guard(
    name: str,
    policy: Policy | None = None,
    *,
    breaker: pybreaker.CircuitBreaker | None = None,
    listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
    clock: Clock | None = None,
    random: Random | None = None,
    telemetry: Telemetry | None = None,
    classify: Classify = classify,
) -> Guard:
    """A guard for code that knows pybreaker: while a circuit is open it raises `PybreakerCircuitOpen`.

    `breaker` decides instead of the policy's own; `listeners` hear of the guard's circuits as of pybreaker's.
    """
    policy = policy or Policy()
    listeners = tuple(listeners)
    sinks: list[Callable[[Signal], object]] = [telemetry.emit] if telemetry is not None else []
    if listeners:
        sinks.append(ListenerSink(listeners))
    return Guard(
        name,
        policy if breaker is None else replace(policy, breaker=None),
        clock=clock,
        random=random,
        telemetry=Telemetry(sinks),
        classify=classify,
        circuit=None if breaker is None else PybreakerCircuit(breaker, clock=clock),
        rejection=PybreakerCircuitOpen,
    )


class ListenerSink:
    """Tells `pybreaker.CircuitBreakerListener`s what happens: `Telemetry([ListenerSink([listener])])`.

    They get `state_change` of every circuit, and `failure` and `success` of the provider's; not `before_call`. The
    failure that opens a circuit is told after the change, not before. What they are handed as `cb` is a breaker that
    shows the circuit's name and state; changing it changes nothing.
    """

    def __init__(self, listeners: Iterable[pybreaker.CircuitBreakerListener]) -> None:
        self._listeners = tuple(listeners)
        self._shown: dict[str, _Shown] = {}

    def __call__(self, signal: Signal) -> None:
        match signal:
            case CircuitChanged():
                name = f"{signal.provider}.{signal.operation}" if signal.operation else signal.provider
                self._circuit(name).change(signal)
            case AttemptFailed(cause=Cause.REJECTED) | CallFinished(outcome="ok"):  # the vendor is alive
                self._circuit(signal.provider).succeeded()
            case AttemptFailed(cause=Cause.UNKNOWN | Cause.NOT_SENT) | AttemptFailed(cause=Cause.REFUSED, status=503):
                self._circuit(signal.provider).failed(signal)
            case _:
                pass

    def _circuit(self, name: str) -> "_Shown":
        if name not in self._shown:
            self._shown[name] = _Shown(name, self._listeners)
        return self._shown[name]


class _Shown(pybreaker.CircuitBreaker):
    """A circuit of a guard, as pybreaker's listeners look at one."""

    def __init__(self, name: str, listeners: Iterable[pybreaker.CircuitBreakerListener]) -> None:
        self._counts = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._told = tuple(listeners)
        super().__init__(name=name, listeners=self._told, state_storage=self._counts)

    def change(self, signal: CircuitChanged) -> None:
        """Go where the circuit went, and say so."""
        state = _THEIRS[CircuitState(signal.after)]
        if state == self.current_state:
            return
        if signal.open_for:
            self.reset_timeout = signal.open_for
        moves = {
            pybreaker.STATE_OPEN: self.open,
            pybreaker.STATE_HALF_OPEN: self.half_open,
            pybreaker.STATE_CLOSED: self.close,
        }
        moves[state]()

    def succeeded(self) -> None:
        """A call went well."""
        self._counts.reset_counter()
        for listener in self._told:
            listener.success(self)

    def failed(self, signal: AttemptFailed) -> None:
        """An attempt failed; the exception itself is not in the signal, so its like is made."""
        error = CallFailed.of(
            Cause(signal.cause),
            f"{signal.provider}: {signal.operation} failed ({signal.reason or signal.cause})",
            provider=signal.provider,
            operation=signal.operation,
            status=signal.status,
            reason=signal.reason,
            retry_after=signal.retry_after,
        )
        self._counts.increment_counter()
        for listener in self._told:
            listener.failure(self, error)


class PybreakerCircuit(Circuit):
    """An existing `pybreaker.CircuitBreaker` as the circuit of a guard; whoever else uses it shares its state.

    What counts is decided here: a cancelled call says nothing, a late result changes nothing, and its `exclude` is not
    asked. The rest is pybreaker's: failures in a row, a fixed open time by the wall clock, probes without a limit, and
    with Redis storage commands that block the event loop. Its listeners must not call the guard. What others did to it
    is signalled at the next call that is let through.
    """

    _generation: int

    def __init__(self, breaker: pybreaker.CircuitBreaker, *, clock: Clock | None = None) -> None:
        super().__init__(Breaker(), Random())
        self._breaker = breaker
        self._clock = clock or SystemClock()
        self._heard: list[tuple[str, str]] = []
        self._state = _OURS[breaker.current_state]
        self.standing = None  # it is asked every time
        breaker.add_listener(_Ear(self._hear))

    def state(self, now: float) -> CircuitState:
        return self._overridden(now) or _OURS[self._breaker.current_state]

    def admit(self, now: float, *, lease: float) -> Permit | Denied:
        ended = self._end_override(now)
        wait = self.refuses(now)
        if wait is not None:
            return Denied(wait if isfinite(wait) else None, ended or self._told())
        if self._override is None and self._breaker.current_state == pybreaker.STATE_OPEN:
            self._breaker.half_open()
        return Permit(self._generation, 0, ended or self._told())

    def refuses(self, now: float) -> float | None:
        override = self._overridden(now)
        if override is CircuitState.ISOLATED:
            return self._override_until - now
        if override is CircuitState.METRICS_ONLY or self._breaker.current_state != pybreaker.STATE_OPEN:
            return None
        opened_at = self._breaker._state_storage.opened_at  # pyright: ignore[reportPrivateUsage]  # it says so nowhere else
        if opened_at is None:
            return None
        left = self._breaker.reset_timeout - (self._clock.now() - opened_at).total_seconds()
        return left if left > 0 else None

    def record(
        self,
        permit: Permit,
        result: Result,
        now: float,
        *,
        hard: bool = False,
        slow: bool = False,
        open_at_least: float = 0.0,
    ) -> Transition | None:
        ended = self._end_override(now)
        counts = permit.generation == self._generation and result is not Result.NEUTRAL
        if counts and self._override is None:
            with suppress(CallFailed, pybreaker.CircuitBreakerError):  # the guard raises the real one
                self._breaker.call(_went_well if result is Result.SUCCESS else _failed)
        return ended or self._told()

    def hasten(self, now: float) -> None:
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._breaker.half_open()

    def snapshot(self, now: float) -> CircuitSnapshot:
        wait = self.refuses(now) or 0.0
        failures = self._breaker.fail_counter
        return CircuitSnapshot(
            state=self.state(now),
            generation=self._generation,
            calls=failures,
            failures=failures,
            slow=0,
            retry_after=None if wait == inf else wait,
            reason=self.reason,
        )

    def _close(self, now: float) -> None:
        self._breaker.close()
        self._heard.clear()

    def _next_generation(self) -> None:
        self._generation += 1
        self.standing = None

    def _hear(self, before: str, after: str) -> None:
        self._heard.append((before, after))
        self._state = _OURS[after]
        self._reason = "pybreaker opened it" if after == pybreaker.STATE_OPEN else ""
        self._next_generation()

    def _told(self) -> Transition | None:
        """What changed since it was last told, by us or by whoever else uses the breaker."""
        if not self._heard:
            return None
        (before, _), (_, after) = self._heard[0], self._heard[-1]
        self._heard.clear()
        open_for = float(self._breaker.reset_timeout) if after == pybreaker.STATE_OPEN else 0.0
        return (
            Transition(_OURS[before], _OURS[after], self._reason or "pybreaker", open_for) if before != after else None
        )


class _Ear(pybreaker.CircuitBreakerListener):
    """Hears of a breaker's changes."""

    def __init__(self, hear: Callable[[str, str], None]) -> None:
        self._hear = hear

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._hear(old_state.name if old_state is not None else new_state.name, new_state.name)


def _went_well() -> None:
    """What a breaker is told to have called."""


def _failed() -> None:
    raise CallFailed("a call failed")
