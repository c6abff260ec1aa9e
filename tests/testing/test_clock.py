"""The manual clock keeps time as a clock does, when told to."""

import asyncio
from datetime import timedelta

import pytest

from holdfast.clock import Clock
from holdfast.testing.clock import ManualClock


async def test_it_is_a_clock_that_stands_still() -> None:
    clock: Clock = ManualClock()

    before = clock.now(), clock.monotonic()
    await asyncio.sleep(0)

    assert (clock.now(), clock.monotonic()) == before


async def test_both_clocks_advance_together() -> None:
    clock = ManualClock()
    wall, monotonic = clock.now(), clock.monotonic()

    await clock.advance(1.5)

    assert clock.now() - wall == timedelta(seconds=1.5)
    assert clock.monotonic() - monotonic == 1.5


async def test_a_jump_moves_the_wall_clock_only() -> None:
    clock = ManualClock()
    wall, monotonic = clock.now(), clock.monotonic()

    clock.jump(-3600)

    assert clock.now() - wall == timedelta(hours=-1)
    assert clock.monotonic() == monotonic


async def test_sleepers_wake_in_the_order_of_their_time_and_see_it() -> None:
    clock = ManualClock()
    woken: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as sleepers:
        for seconds in (3.0, 1.0, 2.0, 0.0):
            sleepers.create_task(sleep(seconds))
        await clock.advance(3)

    assert woken == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]


async def test_who_wakes_may_sleep_again_within_the_same_advance() -> None:
    clock = ManualClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(tick())
    await clock.advance(3.5)
    task.cancel()

    assert ticks == [1, 2, 3]


async def test_a_timeout_cancels_the_body_when_its_time_comes() -> None:
    clock = ManualClock()

    async def wait() -> None:
        async with clock.timeout(5):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait())
    await clock.advance(4.999)
    assert not task.done()
    await clock.advance(0.001)

    with pytest.raises(TimeoutError):
        await task


async def test_a_body_in_time_is_left_alone() -> None:
    clock = ManualClock()

    async with clock.timeout(5):
        pass
    await clock.advance(10)

    assert clock.pending == 0


async def test_no_timeout_and_no_time_are_as_in_asyncio() -> None:
    clock = ManualClock()

    async with clock.timeout(None):
        await clock.advance(1000)
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.get_running_loop().create_future()


async def test_timeouts_nest() -> None:
    clock = ManualClock()

    async def wait() -> str:
        try:
            async with clock.timeout(5), clock.timeout(10):
                await clock.sleep(20)
        except TimeoutError:
            return f"after {clock.monotonic()}"
        return "never"

    task = asyncio.create_task(wait())
    await clock.advance(30)

    assert await task == "after 5.0"


async def test_sleepers_and_timeouts_can_be_cancelled() -> None:
    clock = ManualClock()

    async def sleep() -> None:
        async with clock.timeout(10):
            await clock.sleep(5)

    task = asyncio.create_task(sleep())
    await asyncio.sleep(0)
    assert clock.pending == 2
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.pending == 0
    await clock.advance(20)
