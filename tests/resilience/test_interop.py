"""pybreaker's listeners, errors and breakers, and tenacity's strategies, with a guard."""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pybreaker
import pytest
import tenacity

from holdfast.errors import CallFailed, CircuitOpen, NotSent, OutcomeUnknown, Rejected, Throttled
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import Guard
from holdfast.resilience.interop import ListenerSink, PybreakerCircuit, PybreakerCircuitOpen, pybreaker_guard
from holdfast.resilience.policy import Breaker, Policy, Retry
from holdfast.telemetry import CircuitChanged, Signal, Telemetry
from holdfast.testing.clock import ManualClock

ONE = Policy(retry=None, breaker=Breaker(consecutive=2, probes_to_close=1, open_for=10, open_cap=10))
LOST = OutcomeUnknown("lost", hard=True)


class Ear(pybreaker.CircuitBreakerListener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self.heard.append(("failure", cb.name, type(exc), cb.fail_counter))

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        self.heard.append(("success", cb.name, cb.fail_counter))

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        assert old_state is not None
        assert isinstance(cb, pybreaker.CircuitBreaker)
        self.heard.append((old_state.name, new_state.name, cb.name))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def now_is(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The manual clock is pybreaker's, too."""

    class Now:
        now = staticmethod(lambda tz: clock.now())

    monkeypatch.setattr(pybreaker, "datetime", Now)
    return clock


def raises(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def fail(guard: Guard, error: BaseException = LOST, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            guard.sync.read(raises(error))


def well() -> str:
    return "well"


# Listeners.


def test_a_listener_hears_of_an_outage_from_its_first_failure_to_its_end(clock: ManualClock) -> None:
    ear = Ear()
    guard = pybreaker_guard("crm", ONE, listeners=[ear], clock=clock)

    fail(guard, times=2)
    clock.pause(10)
    guard.sync.read(well)

    assert [each for each in ear.heard if each[0] in ("closed", "open", "half-open")] == [
        ("closed", "open", "crm"),
        ("open", "half-open", "crm"),
        ("half-open", "closed", "crm"),
    ]
    assert [each for each in ear.heard if each[0] == "failure"] == [
        ("failure", "crm", OutcomeUnknown, 1),
        ("failure", "crm", OutcomeUnknown, 2),
    ]
    assert ear.heard[-1] == ("success", "crm", 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LOST, "failure"),
        (NotSent("refused", hard=True), "failure"),
        (Rejected("no"), "success"),  # pybreaker calls it excluded: the vendor is alive
        (Throttled("slow down"), None),
        (ValueError("mine"), None),
    ],
)
def test_what_a_listener_hears_of_a_failure(clock: ManualClock, error: Exception, told: str | None) -> None:
    ear = Ear()
    guard = pybreaker_guard("crm", Policy(retry=None), listeners=[ear], clock=clock)

    fail(guard, error)

    assert [each[0] for each in ear.heard] == ([told] if told else [])


def test_an_operations_circuit_has_a_name_of_its_own(clock: ManualClock) -> None:
    ear = Ear()
    sink = ListenerSink([ear])

    sink(CircuitChanged("crm", "invoices.create", "closed", "open", "5 failures", 5.0))

    assert ear.heard == [("closed", "open", "crm.invoices.create")]


def test_a_circuit_set_by_hand_is_open_or_closed_to_a_listener(clock: ManualClock) -> None:
    ear = Ear()
    guard = pybreaker_guard("crm", ONE, listeners=[ear], clock=clock)

    guard.isolate("maintenance")
    guard.metrics_only("trust it")
    guard.automatic()

    assert ear.heard == [("closed", "open", "crm"), ("open", "closed", "crm")]


def test_the_callers_own_telemetry_goes_on_hearing(clock: ManualClock) -> None:
    heard: list[Signal] = []
    telemetry = Telemetry()
    guard = pybreaker_guard("crm", ONE, listeners=[Ear()], clock=clock, telemetry=telemetry)
    telemetry.add(heard.append)

    fail(guard, times=2)

    assert [type(each).__name__ for each in heard].count("CircuitChanged") == 1


# Errors.


@pytest.mark.parametrize("listeners", [[], [Ear()]])
async def test_an_open_circuit_is_pybreakers_error_too(clock: ManualClock, listeners: list[Ear]) -> None:
    guard = pybreaker_guard("crm", ONE, listeners=listeners, clock=clock)
    fail(guard, times=2)

    async def call() -> str:
        return well()

    with pytest.raises(pybreaker.CircuitBreakerError):
        await guard.once(call)
    with pytest.raises(pybreaker.CircuitBreakerError) as caught:
        await guard.read(call)
    with pytest.raises(CircuitOpen) as in_thread:
        guard.sync.read(well)

    assert isinstance(caught.value, PybreakerCircuitOpen)
    assert isinstance(in_thread.value, pybreaker.CircuitBreakerError)
    assert caught.value.retry_after is not None
    back = pickle.loads(pickle.dumps(caught.value))
    assert (type(back), str(back)) == (PybreakerCircuitOpen, str(caught.value))


# A breaker that is there already.


def plugged(breaker: pybreaker.CircuitBreaker, clock: ManualClock, **options: Any) -> Guard:
    return pybreaker_guard("crm", Policy(retry=None), breaker=breaker, clock=clock, **options)


def test_an_existing_breaker_decides(now_is: ManualClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=30)
    guard = plugged(breaker, now_is)

    fail(guard, times=2)
    with pytest.raises(PybreakerCircuitOpen) as caught:
        guard.sync.read(well)
    now_is.pause(30)
    answer = guard.sync.read(well)

    assert caught.value.retry_after == 30
    assert "pybreaker opened it" in str(caught.value)
    assert answer == "well"
    assert breaker.current_state == pybreaker.STATE_CLOSED


def test_what_others_do_with_the_breaker_counts_here(now_is: ManualClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    heard: list[Signal] = []
    guard = plugged(breaker, now_is, telemetry=Telemetry([heard.append]))

    breaker.open()
    with pytest.raises(CircuitOpen):
        guard.sync.once(well)
    stands = guard.snapshot().circuits[""]
    now_is.pause(30)
    guard.sync.once(well)

    assert (stands.state, stands.retry_after) == (CircuitState.OPEN, 30)
    changes = [(each.before, each.after) for each in heard if isinstance(each, CircuitChanged)]
    assert changes == [("closed", "half_open"), ("half_open", "closed")]  # told at the next call that is let through


async def test_a_cancelled_call_says_nothing_to_the_breaker(now_is: ManualClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    guard = plugged(breaker, now_is)
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(guard.read(hang))
        await began.wait()
        task.cancel()

    assert task.cancelled()
    assert (breaker.current_state, breaker.fail_counter) == (pybreaker.STATE_CLOSED, 0)


async def test_a_late_result_says_nothing_to_the_breaker(now_is: ManualClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    guard = plugged(breaker, now_is)
    answers: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def slow() -> str:
        return await answers

    async with asyncio.TaskGroup() as group:
        late = group.create_task(guard.read(slow))
        await asyncio.sleep(0)
        breaker.open()
        breaker.half_open()
        answers.set_result("late")

    assert late.result() == "late"
    assert breaker.current_state == pybreaker.STATE_HALF_OPEN  # pybreaker alone would close


@pytest.mark.parametrize("error", [Throttled("slow down"), ValueError("mine")])
def test_a_neutral_failure_says_nothing_to_the_breaker(now_is: ManualClock, error: Exception) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)

    fail(plugged(breaker, now_is), error)

    assert breaker.fail_counter == 0


def test_a_breaker_that_is_plugged_in_is_steered_by_hand(now_is: ManualClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    guard = plugged(breaker, now_is)

    guard.isolate("maintenance", ttl=60)
    with pytest.raises(CircuitOpen, match="maintenance"):
        guard.sync.read(well)
    now_is.pause(60)
    assert guard.sync.read(well) == "well"
    guard.metrics_only("trust it")
    fail(guard, times=3)
    guard.automatic()
    assert breaker.current_state == pybreaker.STATE_CLOSED

    fail(guard)
    guard.close("it is back")
    assert guard.sync.read(well) == "well"
    breaker.open()
    circuit = guard.circuit()
    assert isinstance(circuit, PybreakerCircuit)
    circuit.hasten(now_is.monotonic())
    assert guard.sync.read(well) == "well"


# tenacity.


@pytest.mark.parametrize(
    ("wait", "waits"),
    [
        (tenacity.wait_fixed(2), [2, 2]),
        (tenacity.wait_none(), [0, 0]),
        (tenacity.wait_incrementing(start=1, increment=3), [1, 4]),
        (tenacity.wait_exponential(multiplier=1, min=0, max=10), [1, 2]),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_incrementing(start=0, increment=5)), [1, 6]),
        (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3, 3]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(7)), [1, 7]),
        (sum([tenacity.wait_fixed(1), tenacity.wait_fixed(1)]), [2, 2]),
    ],
)
def test_a_wait_strategy_decides_how_long(clock: ManualClock, wait: Any, waits: list[float]) -> None:
    asked: list[float] = []
    guard = Guard("crm", Policy(retry=Retry(wait=wait), breaker=None), clock=clock)

    def call() -> None:
        asked.append(clock.monotonic())
        raise LOST

    with pytest.raises(OutcomeUnknown):
        guard.sync.read(call)

    assert [later - before for before, later in pairwise(asked)] == waits


@pytest.mark.parametrize(
    ("wait", "most"),
    [
        (tenacity.wait_random(1, 4), 4),
        (tenacity.wait_random_exponential(multiplier=1, max=3), 3),
        (tenacity.wait_exponential_jitter(initial=1, max=5, jitter=1), 5),
    ],
)
def test_a_random_wait_stays_in_its_bounds(clock: ManualClock, wait: Any, most: float) -> None:
    guard = Guard("crm", Policy(retry=Retry(wait=wait, attempts=10), budget=None, breaker=None), clock=clock)

    fail(guard)

    assert 0 < clock.monotonic() <= 9 * most


@pytest.mark.parametrize(
    ("stop", "attempts"),
    [
        (tenacity.stop_after_attempt(4), 4),
        (tenacity.stop_after_delay(5), 4),
        (tenacity.stop_before_delay(5), 3),
        (tenacity.stop_any(tenacity.stop_after_attempt(5), tenacity.stop_after_delay(3)), 3),
        (tenacity.stop_all(tenacity.stop_after_attempt(2), tenacity.stop_after_delay(6)), 4),
        (tenacity.stop_after_attempt(2) | tenacity.stop_after_delay(60), 2),
        (tenacity.stop_after_attempt(2) & tenacity.stop_after_delay(4), 3),
        (tenacity.stop_never, 6),  # then the deadline ends it
    ],
)
def test_a_stop_strategy_decides_how_often(clock: ManualClock, stop: Any, attempts: int) -> None:
    retry = Retry(wait=tenacity.wait_fixed(2), stop=stop)
    policy = Policy(retry=retry, deadline=11, budget=None, breaker=None)
    guard = Guard("crm", policy, clock=clock, random=Random(7))
    asked = 0

    def call() -> None:
        nonlocal asked
        asked += 1
        raise LOST

    with pytest.raises(CallFailed):
        guard.sync.read(call)

    assert asked == attempts


def test_a_strategy_that_reads_the_error_is_shown_it(clock: ManualClock) -> None:
    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        assert state.outcome.failed
        return 3.0 if isinstance(state.outcome.exception(), OutcomeUnknown) else 99.0

    guard = Guard("crm", Policy(retry=Retry(wait=wait, attempts=2), breaker=None), clock=clock)

    fail(guard)

    assert clock.monotonic() == 3


# Imports.


def test_importing_holdfast_imports_neither_pybreaker_nor_redis() -> None:
    program = (
        "import sys, holdfast, holdfast.resilience\n"
        "from holdfast.resilience import Guard, Policy\n"
        "Guard('crm', Policy()).sync.read(len, 'x')\n"
        "assert not {'pybreaker', 'redis'} & set(sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_pybreaker_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['pybreaker'] = None\n"
        "from holdfast.errors import MissingExtra\n"
        "try:\n    import holdfast.resilience.interop\n"
        "except MissingExtra as error:\n    print(error.extra)"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert done.stdout == "pybreaker\n"
