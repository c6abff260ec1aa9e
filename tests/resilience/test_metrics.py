"""What happened to each operation, as plain counts, and what a guard shows of itself."""

import asyncio
from math import inf
from random import Random

import pytest

from holdfast.errors import CallFailed, CircuitOpen, NotSent, OutcomeUnknown, Throttled
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import MOST_OPERATIONS, OTHERS, Guard
from holdfast.resilience.metrics import BOUNDS, ENOUGH, KEPT, Operation
from holdfast.resilience.policy import Breaker, Budget, Policy, Rate, Retry
from holdfast.testing.clock import ManualClock

# One operation.


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (1.0, 9), (10.0, 13), (10.1, 14), (1e6, 14)]
)
def test_a_duration_is_counted_under_the_bound_it_does_not_pass(seconds: float, bucket: int) -> None:
    operation = Operation("fetch")

    operation.succeeded(seconds)

    seen = operation.snapshot()
    assert seen.durations[bucket] == sum(seen.durations) == 1
    assert len(seen.durations) == len(BOUNDS) + 1
    assert seen.seconds == seconds


def test_the_usual_duration_is_the_median_of_the_last_successes_once_there_are_enough() -> None:
    operation = Operation("fetch")

    for _ in range(ENOUGH - 1):
        operation.succeeded(3.0)
    assert operation.usual() == 0
    operation.succeeded(100.0)
    assert operation.usual() == 3

    for _ in range(KEPT):
        operation.succeeded(7.0)
    assert operation.usual() == 7


def test_what_nineteen_of_twenty_took_needs_twenty() -> None:
    operation = Operation("fetch")

    for _ in range(4 * ENOUGH - 1):
        operation.succeeded(1.0)
    assert operation.slowest() == 0
    operation.succeeded(9.0)

    assert operation.slowest() == 9


# A guard.


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def answer() -> str:
    return "answer"


async def reset() -> None:
    raise OutcomeUnknown("reset")


async def in_time(clock: ManualClock, call: asyncio.Task[object]) -> None:
    while not call.done():
        await clock.advance(0.05)
    await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("careful", [False, True])
async def test_every_call_and_every_attempt_is_counted_once(clock: ManualClock, careful: bool) -> None:
    guard = Guard("vendor", Policy(breaker=None, retry=Retry(base=0, cap=0)), clock=clock)
    script: list[object] = [
        "answer",
        *(OutcomeUnknown("reset"), "answer"),
        *(OutcomeUnknown("reset"), OutcomeUnknown("reset"), OutcomeUnknown("reset")),
        KeyError("mine"),
        asyncio.CancelledError(),
        Throttled("429", retry_after=1e6),
    ]

    async def fetch() -> object:
        said = script.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    while script:
        try:
            await (guard.run(fetch, effect=Effect.READ, operation="fetch") if careful else guard.read(fetch))
        except (CallFailed, KeyError, asyncio.CancelledError):
            guard.release("")

    seen = guard.snapshot().operations["fetch"]
    assert seen.outcomes == {"ok": 2, "unknown": 1, "error": 1, "cancelled": 1, "throttled": 1}
    assert (seen.attempts, seen.retries, seen.rejected) == (9, 3, 0)


@pytest.mark.parametrize("careful", [False, True])
async def test_a_rejection_is_counted_and_is_no_attempt(clock: ManualClock, careful: bool) -> None:
    guard = Guard("vendor", Policy(retry=None, breaker=Breaker(consecutive=1)), clock=clock)
    with pytest.raises(NotSent):
        async with guard.attempt(Effect.READ):
            raise ConnectionRefusedError

    for _ in range(3):
        with pytest.raises(CircuitOpen):
            await (guard.run(answer, effect=Effect.READ, operation="answer") if careful else guard.read(answer))

    seen = guard.snapshot().operations["answer"]
    assert (seen.outcomes, seen.attempts, seen.rejected) == ({"not_sent": 3}, 0, 3)


async def test_a_guard_shows_all_it_keeps(clock: ManualClock) -> None:
    policy = Policy(rate=(Rate(5, per=60), Rate(9)), concurrency=3, timeout=5, budget=Budget(reserve=2))
    guard = Guard("vendor", policy, clock=clock, random=Random(1))
    usual = asyncio.create_task(guard.read(clock.sleep, 4))
    careful = asyncio.create_task(guard.run(lambda: clock.sleep(4), effect=Effect.ONCE, operation="pay"))
    await clock.advance(1)

    seen = guard.snapshot()
    assert seen.name == "vendor"
    assert {name: circuit.state for name, circuit in seen.circuits.items()} == {
        "": CircuitState.CLOSED,
        "pay": CircuitState.CLOSED,
    }
    assert [(rate.limit, rate.in_use, rate.waiting) for rate in seen.rates] == [(5, 2, 0), (9, 2, 0)]
    assert seen.concurrency is not None
    assert (seen.concurrency.limit, seen.concurrency.in_use, seen.concurrency.waiting) == (3, 2, 0)
    assert seen.running == 2
    assert seen.budget == 22
    assert seen.holds == {}

    await clock.advance(4)
    await asyncio.gather(usual, careful)
    seen = guard.snapshot()
    assert seen.running == 0
    assert seen.operations["sleep"].seconds == 4
    assert seen.circuits[""].calls == 2


def test_a_guard_without_parts_shows_none(clock: ManualClock) -> None:
    seen = Guard("vendor", Policy(breaker=None, budget=None), clock=clock).snapshot()

    assert (seen.circuits, seen.rates, seen.concurrency, seen.cache, seen.budget) == ({}, (), None, None, inf)


async def test_names_of_operations_are_told_apart_up_to_a_number_and_known_ones_stay_known(clock: ManualClock) -> None:
    guard = Guard("vendor", clock=clock)
    await guard.run(answer, effect=Effect.READ, operation="first")
    for number in range(MOST_OPERATIONS + 5):
        await guard.run(answer, effect=Effect.READ, operation=str(number))

    await guard.run(answer, effect=Effect.ONCE, operation="first")
    guard.isolate("broken", operation="first")
    await guard.once(answer)

    seen = guard.snapshot()
    assert len(seen.operations) == MOST_OPERATIONS + 1
    assert seen.operations[OTHERS].outcomes == {"ok": 7}
    assert seen.operations["first"].outcomes == {"ok": 2}
    assert seen.circuits["first"].state is CircuitState.ISOLATED
    assert seen.circuits[OTHERS].state is CircuitState.CLOSED


async def test_the_budget_is_paid_into_by_first_attempts_and_out_of_by_repeats(clock: ManualClock) -> None:
    policy = Policy(breaker=None, retry=Retry(base=0, cap=0), budget=Budget(1.0, reserve=0))
    guard = Guard("vendor", policy, clock=clock)

    for _ in range(10):
        await guard.read(answer)
    assert guard.snapshot().budget == 10
    with pytest.raises(OutcomeUnknown):
        await guard.read(reset)

    assert guard.snapshot().budget == 9
