"""Rates, places and priorities through the guard: in which order they are asked for, and what is given back."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from random import Random
from typing import Any, Literal, TypeVar

import pytest

from holdfast.errors import (
    BulkheadFull,
    CallFailed,
    CircuitOpen,
    NotSent,
    OnHold,
    OutcomeUnknown,
    RateLimited,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState, Permit, Result
from holdfast.resilience.context import priority
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Concurrency, Policy, Priority, Rate, Retry
from holdfast.telemetry import CallRejected, Signal, Telemetry
from holdfast.testing.clock import ManualClock

T = TypeVar("T")
user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signals() -> list[Signal]:
    return []


@pytest.fixture
def make(clock: ManualClock, signals: list[Signal]) -> Callable[..., Guard]:
    def make(*, health: Callable[[], object] | None = None, **parts: Any) -> Guard:
        policy = Policy(**({"retry": None} | parts))
        telemetry = Telemetry([signals.append])
        return Guard("vendor", policy, clock=clock, random=Random(1), telemetry=telemetry, health=health)

    return make


Make = Callable[..., Guard]


async def answer() -> str:
    return "answer"


async def down() -> None:
    raise OutcomeUnknown("500", status=500, hard=True)


async def throttled() -> None:
    raise Throttled("429", status=429)


async def told(call: Coroutine[Any, Any, object]) -> object:
    """What it answers or raises."""
    try:
        return await call
    except CallFailed as error:
        return error


async def in_time(clock: ManualClock, call: Coroutine[Any, Any, T], most: float = 60) -> T:
    task = asyncio.create_task(call)
    end = clock.monotonic() + most
    await clock.advance(0)
    while not task.done() and clock.monotonic() < end:
        await clock.advance(0.05)
    assert task.done(), "it hangs"
    return await task


def begun(clock: ManualClock, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.create_task(call)


def layers(signals: list[Signal]) -> list[str]:
    return [signal.layer for signal in signals if isinstance(signal, CallRejected)]


def in_use(guard: Guard) -> tuple[list[int], int, int]:
    seen = guard.snapshot()
    assert seen.concurrency is not None
    return [rate.in_use for rate in seen.rates], seen.concurrency.in_use, seen.concurrency.waiting


# Order.


async def test_an_open_circuit_rejects_at_once_whoever_would_have_to_wait(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(rate=Rate(1, per=100), concurrency=1, breaker=Breaker(consecutive=1))
    await told(guard.read(down))
    guard._shared.holds.extend("", 50, clock.monotonic())

    error = await told(guard.read(answer))

    assert isinstance(error, CircuitOpen)
    assert layers(signals) == ["circuit"]
    assert clock.monotonic() == 0


async def test_a_hold_comes_before_the_rate_and_the_rate_before_the_places(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(rate=Rate(1, per=100, max_waiting=0), concurrency=Concurrency(1, max_waiting=0), deadline=5)
    occupied = begun(clock, guard.read(clock.sleep, 4))
    await clock.advance(0)

    assert isinstance(await told(guard.read(answer)), RateLimited)
    guard._shared.holds.extend("", 50, clock.monotonic())
    guard._shared.settle()
    assert isinstance(await told(guard.read(answer)), OnHold)
    guard.release("")
    await clock.advance(4)
    await occupied

    assert layers(signals) == ["rate", "hold"]
    assert in_use(guard) == ([1], 0, 0)


async def test_who_waits_for_a_place_has_his_slot_of_the_rate_and_gives_it_back(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(rate=(Rate(5, per=100), Rate(7, per=100)), concurrency=1, deadline=20)
    first = begun(clock, guard.read(clock.sleep, 10))
    await clock.advance(0)
    second = begun(clock, guard.read(answer))
    await clock.advance(1)
    assert in_use(guard) == ([2, 2], 1, 1)

    second.cancel()
    await asyncio.gather(second, return_exceptions=True)

    assert in_use(guard) == ([1, 1], 1, 0)
    await clock.advance(10)
    await first


async def test_who_finds_the_circuit_open_when_his_turn_comes_gives_back_what_he_took(
    make: Make, clock: ManualClock
) -> None:
    guard = make(rate=Rate(5, per=100), concurrency=1, breaker=Breaker(consecutive=1))

    async def goes_down() -> None:
        await clock.sleep(1)
        raise OutcomeUnknown("500", hard=True)

    tasks = [begun(clock, told(guard.read(goes_down))) for _ in range(4)]
    await clock.advance(2)
    results = await asyncio.gather(*tasks)

    assert [type(result) for result in results] == [OutcomeUnknown] + [CircuitOpen] * 3
    assert in_use(guard) == ([1], 0, 0)


async def test_who_waited_for_a_place_while_a_pause_began_keeps_it(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=1, breaker=None, deadline=60)
    asked: list[float] = []

    async def fetch() -> str:
        asked.append(clock.monotonic())
        await clock.sleep(1)
        if len(asked) == 1:
            raise Throttled("429", retry_after=10)
        return "answer"

    tasks = [begun(clock, told(guard.read(fetch))) for _ in range(3)]
    for _ in range(400):
        await clock.advance(0.05)
    results = await asyncio.gather(*tasks)

    assert isinstance(results[0], Throttled)
    assert results[1:] == ["answer"] * 2
    assert all(at >= 11 for at in asked[1:])
    assert in_use(guard) == ([], 0, 0)


async def test_one_full_rate_of_several_takes_nothing_of_the_others(make: Make, clock: ManualClock) -> None:
    guard = make(rate=(Rate(9, per=100), Rate(1, per=100, max_waiting=0)), concurrency=3)
    await guard.read(answer)

    for _ in range(3):
        assert isinstance(await told(guard.read(answer)), RateLimited)

    assert in_use(guard) == ([1, 1], 0, 0)


# Rates.


@pytest.mark.parametrize("kind", ["variable", "function"])
async def test_each_key_has_a_rate_of_its_own(make: Make, clock: ManualClock, kind: str) -> None:
    guard = make(rate=Rate(2, per=60, max_waiting=0, key=user if kind == "variable" else user.get))
    results: dict[str, list[object]] = {}

    for name in ("anna", "beat"):
        user.set(name)
        results[name] = [await told(guard.read(answer)) for _ in range(3)]

    for three in results.values():
        assert three[:2] == ["answer"] * 2
        assert isinstance(three[2], RateLimited)
        assert three[2].retry_after == pytest.approx(60)
    assert guard.snapshot().rates[0].keys == 2


async def test_a_key_is_the_callers_and_stays_so_over_all_attempts(make: Make, clock: ManualClock) -> None:
    guard = make(rate=Rate(9, per=60, key=user), retry=Retry(base=0, cap=0), breaker=None)
    user.set("anna")

    async def fetch() -> None:
        user.set("beat")
        raise OutcomeUnknown("reset")

    assert isinstance(await in_time(clock, told(guard.read(fetch))), OutcomeUnknown)

    assert guard.snapshot().rates[0].keys == 1
    assert guard.snapshot().rates[0].in_use == 3


@pytest.mark.parametrize("counted_from", ["answer", "start"])
async def test_no_window_sees_more_calls_than_the_rate(
    make: Make, clock: ManualClock, counted_from: Literal["answer", "start"]
) -> None:
    guard = make(rate=Rate(3, per=1, counted_from=counted_from), breaker=None)
    random, sent = Random(5), list[float]()

    async def fetch() -> None:
        sent.append(clock.monotonic())
        await clock.sleep(random.uniform(0, 0.5))

    tasks = [begun(clock, guard.read(fetch)) for _ in range(30)]
    for _ in range(1200):
        await clock.advance(0.02)
    await asyncio.gather(*tasks)

    assert len(sent) == 30
    assert all(later - sooner >= 1 - 1e-9 for sooner, later in zip(sent, sent[3:], strict=False))
    assert guard.snapshot().rates[0].in_use == 0


async def test_a_rate_that_has_no_slot_before_the_deadline_says_when_it_has(make: Make, clock: ManualClock) -> None:
    guard = make(rate=Rate(1, per=30), deadline=5)
    await guard.read(answer)
    await clock.advance(10)

    error = await told(guard.read(answer))

    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(20)
    assert (error.local, error.reason, error.provider) == (True, "rate", "vendor")
    assert clock.monotonic() == 10
    await clock.advance(16)
    assert await in_time(clock, guard.read(answer)) == "answer"


async def test_a_call_that_was_not_sent_costs_no_slot(make: Make, clock: ManualClock) -> None:
    guard = make(rate=Rate(1, per=60, max_waiting=0), breaker=Breaker(consecutive=1), concurrency=1)
    inner = make(breaker=Breaker(consecutive=1))
    inner.isolate("closed")

    for _ in range(3):
        assert isinstance(await told(guard.read(lambda: inner.read(answer))), CircuitOpen)

    assert await guard.read(answer) == "answer"


async def test_a_429_slows_the_rate_down(make: Make, clock: ManualClock) -> None:
    guard = make(rate=Rate(10, per=1), breaker=None)

    await told(guard.read(throttled))

    assert guard.snapshot().rates[0].limit == 7


# Places.


async def test_no_more_calls_run_than_there_are_places(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=3, breaker=None)
    now = most = 0

    async def fetch() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await clock.sleep(1)
        now -= 1

    tasks = [begun(clock, guard.read(fetch)) for _ in range(10)]
    await clock.advance(4)
    await asyncio.gather(*tasks)

    assert most == 3
    assert clock.monotonic() == 4


async def test_who_finds_the_line_full_is_rejected_at_once(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(concurrency=Concurrency(1, max_waiting=1))
    tasks = [begun(clock, guard.read(clock.sleep, 1)) for _ in range(2)]
    await clock.advance(0)

    error = await told(guard.once(answer))

    assert isinstance(error, BulkheadFull)
    assert isinstance(error, NotSent)
    assert (error.local, error.reason) == (True, "concurrency")
    assert layers(signals) == ["concurrency"]
    await clock.advance(2)
    await asyncio.gather(*tasks)
    assert in_use(guard) == ([], 0, 0)


async def test_nobody_waits_for_a_place_beyond_his_deadline(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=1, deadline=3)
    first = begun(clock, told(guard.run(lambda: clock.sleep(100), effect=Effect.READ, operation="x")))
    await clock.advance(1)

    error = await in_time(clock, told(guard.run(answer, effect=Effect.READ, operation="x", deadline=1)))

    assert isinstance(error, BulkheadFull)
    assert clock.monotonic() == pytest.approx(2, abs=0.1)
    await clock.advance(5)
    await first
    assert in_use(guard) == ([], 0, 0)


async def test_the_important_go_first_and_the_bulk_is_dropped_first(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=Concurrency(2, max_waiting=3, bulk_share=0.5, webhook_share=1), breaker=None)
    order: list[str] = []

    def call(name: str, of: Priority) -> asyncio.Task[object]:
        async def fetch() -> None:
            order.append(name)
            await clock.sleep(1)

        with priority(of):
            return begun(clock, told(guard.read(fetch)))

    tasks = [call("bulk", Priority.BULK), call("second bulk", Priority.BULK)]
    await clock.advance(0)
    assert order == ["bulk"]
    tasks += [call("person", Priority.INTERACTIVE)]
    await clock.advance(0)
    tasks += [call("third bulk", Priority.BULK), call("webhook", Priority.WEBHOOK), call("late", Priority.INTERACTIVE)]
    await clock.advance(5)
    results = await asyncio.gather(*tasks)

    assert order == ["bulk", "person", "late", "webhook", "second bulk"]
    assert isinstance(results[3], BulkheadFull)
    assert "higher priority" in str(results[3])
    assert in_use(guard) == ([], 0, 0)


@pytest.mark.parametrize("overload", ["timeout", "429"])
@pytest.mark.parametrize("careful", [False, True])
async def test_an_adaptive_number_of_places_falls_after_timeouts_and_429_and_grows_again(
    make: Make, clock: ManualClock, overload: str, careful: bool
) -> None:
    guard = make(concurrency=Concurrency(20, adaptive=True), breaker=None, timeout=1)

    def limit() -> int:
        places = guard.snapshot().concurrency
        assert places is not None
        return places.limit

    def call(function: Callable[[], Any]) -> Coroutine[Any, Any, object]:
        return guard.run(function, effect=Effect.READ, operation="x") if careful else guard.read(function)

    async def hangs() -> None:
        await clock.sleep(100)

    async def takes_a_while() -> None:
        await clock.sleep(0.5)

    await in_time(clock, told(call(hangs if overload == "timeout" else throttled)))
    assert limit() == 18
    for _ in range(10):
        await in_time(clock, told(call(takes_a_while)))
    assert limit() == 18  # not in demand

    for _ in range(5):
        tasks = [begun(clock, told(call(takes_a_while))) for _ in range(18)]
        await clock.advance(0.5)
        await asyncio.gather(*tasks)
    assert limit() == 20


@pytest.mark.parametrize("careful", [False, True])
async def test_calls_that_are_not_begun_say_nothing_of_the_load(make: Make, clock: ManualClock, careful: bool) -> None:
    guard = make(concurrency=Concurrency(20, adaptive=True), rate=Rate(11, per=100, max_waiting=0), breaker=None)

    async def fetch(seconds: float) -> None:
        await clock.sleep(seconds)
        raise OutcomeUnknown("late", reason="timeout")

    tasks = [begun(clock, told(guard.read(fetch, 1 if first else 2))) for first in [True] + [False] * 10]
    await clock.advance(1)
    for _ in range(50):
        call = guard.run(answer, effect=Effect.READ, operation="x") if careful else guard.read(answer)
        assert isinstance(await told(call), RateLimited)
    await clock.advance(1)
    await asyncio.gather(*tasks)

    places = guard.snapshot().concurrency
    assert places is not None
    assert places.limit == 18  # one burst is one overload


async def test_after_the_circuit_closed_the_places_come_back_in_steps(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=20, breaker=Breaker(consecutive=1, probes_to_close=1, window=9))
    await told(guard.read(down))
    await clock.advance(5)

    await guard.read(answer)

    limits = []
    for _ in range(3):
        places = guard.snapshot().concurrency
        assert places is not None
        limits.append(places.limit)
        await clock.advance(3)
    assert limits == [5, 10, 20]


# A health operation.


@pytest.mark.parametrize("parts", [{}, {"concurrency": 1}, {"rate": Rate(100), "concurrency": 1, "deadline": 9}])
@pytest.mark.parametrize("effect", [Effect.READ, Effect.ONCE])
async def test_a_health_operation_tries_an_open_circuit_out_and_nobodys_own_call_does(
    make: Make, clock: ManualClock, parts: dict[str, Any], effect: Effect
) -> None:
    asked: list[str] = []

    async def health() -> None:
        asked.append("health")

    async def pay() -> str:
        asked.append("pay")
        return "paid"

    guard = make(breaker=Breaker(consecutive=1), health=health, **parts)
    await told(guard.read(down))
    await clock.advance(5)

    assert await in_time(clock, guard.run(pay, effect=effect, operation="pay")) == "paid"

    assert asked == ["health", "health", "pay"]
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


@pytest.mark.parametrize(
    "failure", [OutcomeUnknown("500", hard=True), Throttled("429"), NotSent("dns", hard=True), KeyError("a bug")]
)
@pytest.mark.parametrize("effect", list(Effect))
async def test_where_the_health_operation_fails_the_call_is_rejected_and_nothing_is_in_doubt(
    make: Make, clock: ManualClock, failure: Exception, effect: Effect, signals: list[Signal]
) -> None:
    paid: list[str] = []

    async def health() -> None:
        raise failure

    async def pay() -> None:
        paid.append("paid")

    guard = make(breaker=Breaker(consecutive=1), retry=Retry(), health=health, concurrency=1)
    await in_time(clock, told(guard.read(down)))
    await clock.advance(5)
    signals.clear()

    error = await in_time(clock, told(guard.run(pay, effect=effect, operation="pay")))

    assert isinstance(error, CircuitOpen)
    assert error.__cause__ is failure
    assert (error.provider, error.operation) == ("vendor", "pay")
    assert paid == []
    assert layers(signals) == ["circuit"]
    assert guard.snapshot().operations["pay"].outcomes == {"not_sent": 1}
    is_down = isinstance(failure, OutcomeUnknown | NotSent)
    assert guard.snapshot().circuits[""].state is (CircuitState.OPEN if is_down else CircuitState.HALF_OPEN)
    assert in_use(guard) == ([], 0, 0)


async def test_of_many_callers_one_lets_the_health_operation_run(make: Make, clock: ManualClock) -> None:
    asked: list[float] = []

    async def health() -> None:
        asked.append(clock.monotonic())
        await clock.sleep(1)

    guard = make(breaker=Breaker(consecutive=1), health=health, concurrency=50)
    await told(guard.read(down))
    await clock.advance(5)

    tasks = [begun(clock, told(guard.once(answer))) for _ in range(100)]
    await clock.advance(3)
    results = await asyncio.gather(*tasks)

    assert asked == [5, 6]
    assert results.count("answer") == 1
    assert sum(isinstance(result, CircuitOpen) for result in results) == 99


async def test_a_circuit_that_can_be_tried_out_only_after_waiting_is_tried_out_by_the_health_operation(
    make: Make, clock: ManualClock
) -> None:
    asked: list[str] = []

    async def health() -> None:
        asked.append("health")

    async def slow() -> None:
        await clock.sleep(20)

    async def pay() -> str:
        asked.append("pay")
        return "paid"

    guard = make(breaker=Breaker(consecutive=1), health=health, concurrency=1, timeout=None)
    first = begun(clock, told(guard.read(slow)))
    await clock.advance(1)
    waiting = begun(clock, told(guard.once(pay)))
    await clock.advance(1)
    circuit = guard.circuit()
    assert circuit is not None
    permit = circuit.admit(clock.monotonic(), lease=1)
    assert isinstance(permit, Permit)
    circuit.record(permit, Result.FAILURE, clock.monotonic(), hard=True)
    await clock.advance(30)

    assert await waiting == "paid"
    assert asked == ["health", "health", "pay"]
    await first
