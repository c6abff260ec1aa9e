"""`attempt()`, `open()`, the decorator and strategies: the guard's other faces."""

import asyncio
import inspect
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import tenacity

from holdfast.errors import (
    BulkheadFull,
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    InvalidInput,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.context import deadline_scope, remaining, surroundings, transaction
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Concurrency, Policy, Rate, Retry
from holdfast.telemetry import AttemptFailed, CallFinished, RetryDenied, Signal, Telemetry
from holdfast.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signals() -> list[Signal]:
    return []


@pytest.fixture
def make(clock: ManualClock, signals: list[Signal]) -> Callable[..., Guard]:
    def make(**parts: Any) -> Guard:
        return Guard("vendor", Policy(**parts), clock=clock, random=Random(1), telemetry=Telemetry([signals.append]))

    return make


Make = Callable[..., Guard]


async def answer() -> str:
    return "answer"


def kinds(signals: list[Signal]) -> list[type[Signal]]:
    return [type(signal) for signal in signals]


def settled(guard: Guard) -> None:
    seen = guard.snapshot()
    assert seen.running == 0
    if seen.concurrency is not None:
        assert (seen.concurrency.in_use, seen.concurrency.waiting) == (0, 0)


# A block.


@pytest.mark.parametrize("sync", [False, True])
async def test_a_block_holds_its_place_until_it_is_left(
    make: Make, clock: ManualClock, signals: list[Signal], sync: bool
) -> None:
    guard = make(concurrency=Concurrency(1, max_waiting=0), deadline=9)

    if sync:
        with guard.sync.attempt(Effect.READ, operation="talk"):
            assert guard.snapshot().running == 1
            with pytest.raises(BulkheadFull):
                guard.sync.read(lambda: "answer")
            assert remaining(clock) == 9
    else:
        async with guard.attempt(Effect.READ, operation="talk"):
            assert guard.snapshot().running == 1
            with pytest.raises(BulkheadFull):
                await guard.read(answer)
            assert remaining(clock) == 9

    settled(guard)
    assert guard.snapshot().operations["talk"].outcomes == {"ok": 1}
    assert signals[-1] == CallFinished("vendor", "talk", "ok", 0.0, 1)


async def test_a_block_that_takes_too_long_is_ended_and_its_outcome_is_unknown(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(timeout=5)

    async def block() -> None:
        async with guard.attempt():
            await clock.sleep(100)

    task = asyncio.create_task(block())
    await clock.advance(5)

    with pytest.raises(OutcomeUnknown, match="no answer after 5 s") as caught:
        await task
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert task.cancelling() == 0
    assert kinds(signals) == [AttemptFailed, CallFinished]
    settled(guard)


async def in_a_block(guard: Guard, raised: BaseException | None, *, sync: bool) -> list[str]:
    """Leave a block with this; what happened inside."""
    entered: list[str] = []

    def body() -> None:
        entered.append("entered")
        if raised is not None:
            raise raised

    if sync:
        with guard.sync.attempt(operation="talk"):
            body()
    else:
        async with guard.attempt(operation="talk"):
            body()
    return entered


@pytest.mark.parametrize("sync", [False, True])
async def test_a_block_is_not_tried_again_and_its_failure_is_classified_once(
    make: Make, signals: list[Signal], sync: bool
) -> None:
    guard, origin = make(concurrency=1), ConnectionResetError("reset")

    with pytest.raises(OutcomeUnknown) as caught:
        await in_a_block(guard, origin, sync=sync)

    assert caught.value.__cause__ is origin
    assert kinds(signals) == [AttemptFailed, CallFinished]
    settled(guard)


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("kind", [KeyError, Rejected, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
async def test_an_exception_of_the_blocks_own_passes_as_it_is(
    make: Make, sync: bool, kind: type[BaseException]
) -> None:
    guard, before, mine = make(concurrency=1), surroundings.get(), kind("mine")

    with pytest.raises(kind) as caught:
        await in_a_block(guard, mine, sync=sync)

    assert caught.value is mine
    assert surroundings.get() is before
    settled(guard)


@pytest.mark.parametrize("sync", [False, True])
async def test_a_block_that_is_rejected_is_not_entered(make: Make, sync: bool) -> None:
    guard, mine = make(), KeyError("entered")
    guard.isolate("broken")

    with pytest.raises(CircuitOpen):
        await in_a_block(guard, mine, sync=sync)
    with transaction(), pytest.raises(CallInsideTransaction):
        await in_a_block(guard, mine, sync=sync)

    assert guard.snapshot().operations["talk"].outcomes == {"not_sent": 1}
    assert guard.snapshot().operations["talk"].attempts == 0


async def test_failing_blocks_open_the_circuit_and_a_good_one_closes_it(make: Make, clock: ManualClock) -> None:
    guard = make(breaker=Breaker(consecutive=2, probes_to_close=1))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            async with guard.attempt(Effect.READ):
                raise OutcomeUnknown("500", hard=True)
    assert guard.snapshot().circuits[""].state is CircuitState.OPEN

    await clock.advance(5)
    async with guard.attempt(Effect.READ):
        pass

    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


# An answer that is read later.


async def test_what_is_read_later_holds_its_place_and_no_time_limit(make: Make, clock: ManualClock) -> None:
    guard = make(concurrency=Concurrency(1, max_waiting=0), timeout=5, rate=Rate(9), breaker=Breaker(slow_after=2))

    value, call = await guard.open(answer, effect=Effect.READ, operation="stream", repeat=True)
    assert value == "answer"
    await clock.advance(50)
    with pytest.raises(BulkheadFull):
        await guard.read(answer)
    call.end()
    call.end()

    settled(guard)
    assert guard.snapshot().operations["stream"].outcomes == {"ok": 1}
    assert guard.snapshot().circuits[""].slow == 0  # the body's length says nothing of the provider
    assert await guard.read(answer) == "answer"


async def test_an_answer_is_asked_for_again_until_it_begins_unless_it_can_be_sent_only_once(make: Make) -> None:
    guard = make(retry=Retry(base=0, cap=0), breaker=None, concurrency=1)
    script: list[object] = []

    async def exchange() -> object:
        said = script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    script[:] = [OutcomeUnknown("reset"), "answer"]
    value, call = await guard.open(exchange, effect=Effect.READ, operation="stream", repeat=True)
    call.end()
    assert value == "answer"

    script[:] = [OutcomeUnknown("reset"), "answer"]
    with pytest.raises(OutcomeUnknown):
        await guard.open(exchange, effect=Effect.READ, operation="stream", repeat=False)

    assert script == ["answer"]
    settled(guard)


async def test_a_probe_that_is_read_later_decides_when_it_ends(make: Make, clock: ManualClock) -> None:
    guard = make(breaker=Breaker(consecutive=1, probes_to_close=1), timeout=60, retry=None)
    with pytest.raises(OutcomeUnknown):
        async with guard.attempt(Effect.READ):
            raise OutcomeUnknown("500", hard=True)
    await clock.advance(5)

    _, call = await guard.open(answer, effect=Effect.READ, operation="stream", repeat=True)
    assert guard.snapshot().circuits[""].state is CircuitState.HALF_OPEN
    with pytest.raises(CircuitOpen):
        await guard.read(answer)
    call.end(OutcomeUnknown("broken off", hard=True))

    assert guard.snapshot().circuits[""].state is CircuitState.OPEN


# The decorator.


async def test_a_decorated_function_keeps_its_name_its_signature_and_its_arguments(make: Make) -> None:
    guard = make()

    @guard.guarded(Effect.READ)
    async def book(city: str, *, nights: int = 1) -> str:
        """Book a room."""
        return f"{city} {nights}"

    assert await book("Bern", nights=2) == "Bern 2"
    assert (book.__name__, book.__doc__) == ("book", "Book a room.")
    assert list(inspect.signature(book).parameters) == ["city", "nights"]
    assert inspect.iscoroutinefunction(book)
    assert guard.snapshot().operations["book"].outcomes == {"ok": 1}


async def test_a_decorated_function_is_once_unless_it_says_otherwise_and_never_keyed(make: Make) -> None:
    guard, asked = make(), list[int]()

    @guard.guarded(operation="book")
    async def book() -> None:
        asked.append(1)
        raise OutcomeUnknown("reset")

    with pytest.raises(OutcomeUnknown):
        await book()
    with pytest.raises(InvalidInput, match="key"):
        guard.guarded(Effect.KEYED)

    assert asked == [1]


# Repeating.


async def in_time(clock: ManualClock, call: Any) -> Any:
    task = asyncio.create_task(call)
    for _ in range(4000):
        await clock.advance(0.05)
        if task.done():
            return await task
    raise AssertionError("it hangs")


@pytest.mark.parametrize(
    ("retry", "asked"),
    [
        (Retry(wait=tenacity.wait_fixed(2), stop=tenacity.stop_after_attempt(4)), [0, 2, 4, 6]),
        (Retry(wait=tenacity.wait_incrementing(1, 1), attempts=3), [0, 1, 3]),
        (Retry(wait=tenacity.wait_fixed(3), stop=tenacity.stop_after_delay(5)), [0, 3, 6]),
        (Retry(wait=tenacity.wait_fixed(1), stop=tenacity.stop_any(tenacity.stop_after_attempt(2))), [0, 1]),
        (Retry(wait=tenacity.wait_none(), attempts=1), [0]),
    ],
)
async def test_tenacitys_strategies_say_when_and_how_often(
    make: Make, clock: ManualClock, retry: Retry, asked: list[float]
) -> None:
    guard, at = make(retry=retry, breaker=None, budget=None), list[float]()

    async def fetch() -> None:
        at.append(round(clock.monotonic(), 1))
        raise OutcomeUnknown("reset")

    with pytest.raises(OutcomeUnknown):
        await in_time(clock, guard.read(fetch))

    assert at == asked


async def test_once_in_doubt_is_told_as_unknown_and_survives_pickle(make: Make, signals: list[Signal]) -> None:
    guard = make(breaker=Breaker(consecutive=1))

    async def pay() -> None:
        raise OutcomeUnknown("reset", hard=True, reason="reset", request_id="r1")

    with pytest.raises(OutcomeUnknown) as caught:
        await guard.once(pay)

    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.reason, error.request_id, error.provider, error.operation) == ("reset", "r1", "vendor", "pay")
    assert error.__notes__ == ["not tried again: it may have taken effect, and repeating it could take effect twice"]
    assert [signal.why for signal in signals if isinstance(signal, RetryDenied)] == ["unsafe"]


async def test_three_guards_in_one_another_try_three_times_in_all(make: Make, clock: ManualClock) -> None:
    guards, asked = [make(breaker=None) for _ in range(3)], 0

    async def fetch() -> None:
        nonlocal asked
        asked += 1
        raise OutcomeUnknown("reset")

    with pytest.raises(OutcomeUnknown):
        await in_time(clock, guards[0].read(lambda: guards[1].read(lambda: guards[2].read(fetch))))

    assert asked == 3


async def test_an_inner_guard_has_what_is_left_of_the_outer_ones_deadline(make: Make, clock: ManualClock) -> None:
    outer, inner, seen = make(deadline=8, retry=None), make(deadline=60, timeout=None, retry=None), list[float]()

    async def fetch() -> None:
        seen.append(remaining(clock))
        await clock.sleep(100)

    async def late() -> None:
        await clock.sleep(3)
        await inner.read(fetch)

    with pytest.raises(OutcomeUnknown):
        await in_time(clock, outer.read(late))

    assert seen == pytest.approx([5])
    assert clock.monotonic() == pytest.approx(8, abs=0.06)
    settled(inner)
    settled(outer)


async def test_a_repeat_that_would_begin_after_the_deadline_is_told_at_once_with_the_pause(
    make: Make, clock: ManualClock
) -> None:
    guard = make(breaker=None)

    async def fetch() -> None:
        raise Throttled("429", retry_after=30)

    with deadline_scope(10, clock), pytest.raises(CallFailed) as caught:
        await guard.read(fetch)

    assert caught.value.retry_after == 30
    assert clock.monotonic() == 0
