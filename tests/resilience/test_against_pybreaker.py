"""Our circuit against pybreaker, on the same random histories.

What is made equal, for the two differ there on purpose: ours shortens each open period at random (here: not at all)
and doubles it after a failed probe (here: capped at the first); it reads a monotonic clock, pybreaker the wall clock
(here: one manual clock is both); it opens at a failure rate too, which 100,000 calls at least keep out of play; and it
lets one probe through at a time, pybreaker all of them (here: all). The histories are synchronous: with calls that
overlap, or are cancelled, pybreaker does what our circuit was made to avoid.
"""

from contextlib import suppress
from datetime import datetime, tzinfo
from random import Random
from typing import Literal

import pybreaker
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import OutcomeUnknown
from holdfast.resilience.breaker import Circuit, CircuitState, Denied, Result
from holdfast.resilience.interop import PybreakerCircuit, pybreaker_guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.testing.clock import ManualClock

OPEN_FOR = 5
Step = Literal["success", "failure"] | int
"""A call that goes well or does not, or so many seconds that pass."""

histories = st.lists(
    st.one_of(st.sampled_from(["failure", "failure", "success"]), st.integers(0, OPEN_FOR + 1)), max_size=60
)


class Longest(Random):
    """No jitter: always the longest."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The time of both: pybreaker reads `datetime.now`."""
    clock = ManualClock()

    class Now(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
            return clock.now()

    monkeypatch.setattr(pybreaker, "datetime", Now)
    return clock


def options_of(consecutive: int, probes_to_close: int) -> Breaker:
    return Breaker(
        consecutive=consecutive,
        failure_rate=1.0,
        minimum_calls=100_000,
        open_for=OPEN_FOR,
        open_cap=OPEN_FOR,
        probes=None,
        probes_to_close=probes_to_close,
    )


def breaker_of(consecutive: int, probes_to_close: int) -> pybreaker.CircuitBreaker:
    return pybreaker.CircuitBreaker(
        fail_max=consecutive, reset_timeout=OPEN_FOR, success_threshold=probes_to_close, throw_new_error_on_trip=False
    )


def asked_of_breaker(breaker: pybreaker.CircuitBreaker, step: str) -> bool:
    """Make a call through pybreaker; whether it was let through."""
    reached = False

    def call() -> None:
        nonlocal reached
        reached = True
        if step == "failure":
            raise ConnectionError

    with suppress(ConnectionError, pybreaker.CircuitBreakerError):
        breaker.call(call)
    return reached


def asked_of_circuit(circuit: Circuit, step: str, now: float) -> bool:
    """Make a call through a circuit of ours; whether it was let through."""
    permit = circuit.admit(now, lease=1)
    if isinstance(permit, Denied):
        return False
    circuit.record(permit, Result.FAILURE if step == "failure" else Result.SUCCESS, now, hard=True)
    return True


def name_of(state: CircuitState) -> str:
    return state.value.replace("_", "-")


FIXTURE_IS_TIME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)


@FIXTURE_IS_TIME
@given(history=histories, consecutive=st.integers(1, 4), probes_to_close=st.integers(1, 3))
def test_our_circuit_goes_where_pybreaker_goes(
    clock: ManualClock, history: list[Step], consecutive: int, probes_to_close: int
) -> None:
    ours, theirs = (
        Circuit(options_of(consecutive, probes_to_close), Longest()),
        breaker_of(consecutive, probes_to_close),
    )

    for step in history:
        if isinstance(step, int):
            clock.pause(step)
            continue
        let_through = asked_of_circuit(ours, step, clock.monotonic())
        assert let_through == asked_of_breaker(theirs, step)
        assert name_of(ours.state(clock.monotonic())) == theirs.current_state


@FIXTURE_IS_TIME
@given(history=histories, consecutive=st.integers(1, 4), probes_to_close=st.integers(1, 3))
def test_a_breaker_that_is_plugged_in_goes_where_it_goes_alone(
    clock: ManualClock, history: list[Step], consecutive: int, probes_to_close: int
) -> None:
    alone, inner = breaker_of(consecutive, probes_to_close), breaker_of(consecutive, probes_to_close)
    plugged = PybreakerCircuit(inner, clock=clock)

    for step in history:
        if isinstance(step, int):
            clock.pause(step)
            continue
        let_through = asked_of_circuit(plugged, step, clock.monotonic())
        assert let_through == asked_of_breaker(alone, step)
        assert name_of(plugged.state(clock.monotonic())) == alone.current_state == inner.current_state
        assert inner.fail_counter == alone.fail_counter


class Ear(pybreaker.CircuitBreakerListener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.results: list[tuple[str, str]] = []

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self.results.append(("failure", str(cb.name)))

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        self.results.append(("success", str(cb.name)))

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self.changes.append((old_state.name if old_state else "", new_state.name))


@FIXTURE_IS_TIME
@given(history=histories, consecutive=st.integers(1, 4), probes_to_close=st.integers(1, 3))
def test_a_listener_hears_the_same_of_a_guard_as_of_pybreaker(
    clock: ManualClock, history: list[Step], consecutive: int, probes_to_close: int
) -> None:
    here, there = Ear(), Ear()
    policy = Policy(retry=None, breaker=options_of(consecutive, probes_to_close))
    guard = pybreaker_guard("crm", policy, listeners=[here], clock=clock, random=Longest())
    breaker = breaker_of(consecutive, probes_to_close)
    breaker.name = "crm"
    breaker.add_listener(there)

    for step in history:
        if isinstance(step, int):
            clock.pause(step)
            continue
        with suppress(OutcomeUnknown, pybreaker.CircuitBreakerError):
            guard.sync.read(lost if step == "failure" else well)
        asked_of_breaker(breaker, step)
        assert (here.changes, here.results) == (there.changes, there.results)


def lost() -> None:
    raise ConnectionError


def well() -> None:
    pass


def test_the_histories_reach_every_state(clock: ManualClock) -> None:
    ours, theirs = Circuit(options_of(2, 2), Longest()), breaker_of(2, 2)
    seen: list[str] = []

    for step in ("failure", "failure", OPEN_FOR, "success", "success", "failure", "failure", OPEN_FOR, "failure"):
        if isinstance(step, int):
            clock.pause(step)
            continue
        assert asked_of_circuit(ours, step, clock.monotonic()) == asked_of_breaker(theirs, step)
        assert name_of(ours.state(clock.monotonic())) == theirs.current_state
        seen.append(theirs.current_state)

    assert seen == ["closed", "open", "half-open", "closed", "closed", "open", "open"]
