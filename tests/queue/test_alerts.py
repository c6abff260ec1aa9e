"""Who looks after the queue is told once of each trouble, whichever process notices."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from holdfast.errors import InvalidInput, StoreUnavailable
from holdfast.queue.alerts import EVERY, LOOK_AT, AlertLimits, Alerts
from holdfast.queue.signals import DeadRateHigh, FirstDead, WaitsLong
from holdfast.stores import JobFilter, JobState, NewJob, Store, open_store
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock


class Watch:
    """A store, and somebody who is told."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.told: list[Signal] = []
        self.lease: object = "mine"
        self.alerts = self.another()
        self.number = 0

    def another(self) -> Alerts:
        async def lease() -> object:
            if isinstance(self.lease, Exception):
                raise self.lease
            return self.lease

        return Alerts(
            self.store,
            lease,
            limits=AlertLimits(dead=3, window=60.0, oldest=30.0),
            clock=self.clock,
            chance=Random(1),
            telemetry=Telemetry([self.told.append]),
        )

    async def die(self, *handlers: str) -> None:
        new = [
            NewJob(queue="events", key=str(self.number + each), kind="paid", handler=handler)
            for each, handler in enumerate(handlers)
        ]
        self.number += len(new)
        await self.store.jobs.add(new)
        for job in await self.store.jobs.claim(["events"], owner="w", limit=1000, lease=10):
            await self.store.jobs.bury(job, reason="attempts", error="late")

    async def look(self) -> list[Signal]:
        self.told.clear()
        await self.alerts.look()
        return [*self.told]


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        yield Watch(store, clock)


async def test_the_first_dead_letter_of_a_handler_is_told_once(watch: Watch) -> None:
    assert await watch.look() == []

    await watch.die("ship", "ship", "mail")
    assert await watch.look() == [
        FirstDead("events", "paid", "mail"),
        FirstDead("events", "paid", "ship"),
        DeadRateHigh(3, 60.0),
    ]

    await watch.die("ship")
    assert await watch.look() == []


async def test_another_process_does_not_tell_it_again(watch: Watch) -> None:
    await watch.die("ship")
    await watch.look()

    watch.alerts = watch.another()

    assert await watch.look() == []


async def test_once_a_handler_has_none_left_the_next_is_the_first_again(watch: Watch) -> None:
    await watch.die("ship")
    await watch.look()
    await watch.store.jobs.purge(older_than=0, states=[JobState.DEAD])
    assert await watch.look() == []

    await watch.die("ship")

    assert await watch.look() == [FirstDead("events", "paid", "ship")]


async def test_with_more_than_are_looked_at_nobody_is_told_twice(watch: Watch) -> None:
    await watch.die("ship")
    await watch.look()
    await watch.die(*["mail"] * LOOK_AT)
    assert FirstDead("events", "paid", "mail") in await watch.look()

    await watch.die("mail")
    assert await watch.look() == []
    for job in await watch.store.jobs.list(JobFilter(handler="mail"), limit=1000):
        await watch.store.jobs.drop(job.id)

    assert await watch.look() == []


async def test_many_dead_letters_are_told_when_they_begin_and_again_after_a_pause(watch: Watch) -> None:
    await watch.die("ship", "ship", "ship", "ship")
    assert await watch.look() == [FirstDead("events", "paid", "ship")]  # they may be old

    await watch.die("ship", "ship")
    assert await watch.look() == []
    await watch.clock.advance(30)
    await watch.die("ship")
    assert await watch.look() == [DeadRateHigh(3, 60.0)]
    await watch.die("ship")
    assert await watch.look() == []

    await watch.clock.advance(60)
    assert await watch.look() == []
    await watch.die("ship", "ship", "ship")
    assert await watch.look() == [DeadRateHigh(3, 60.0)]


async def test_a_job_that_waits_too_long_is_told_once_for_its_queue(watch: Watch) -> None:
    await watch.store.jobs.add([NewJob(queue="events", key="a", kind="paid", delay=5)])
    await watch.clock.advance(34.9)
    assert await watch.look() == []

    await watch.clock.advance(0.1)
    assert await watch.look() == [WaitsLong("events", 30.0)]
    assert await watch.look() == []

    [job] = await watch.store.jobs.claim(["events"], owner="w", limit=1, lease=10)
    assert await watch.look() == []
    await watch.store.jobs.complete(job)
    await watch.store.jobs.add([NewJob(queue="events", key="b", kind="paid")])
    await watch.clock.advance(31)
    assert await watch.look() == [WaitsLong("events", 31.0)]


@pytest.mark.parametrize(("lease", "told"), [("mine", 1), (None, 0), (StoreUnavailable("locked"), 0)])
async def test_only_who_holds_the_lease_looks(watch: Watch, lease: object, told: int) -> None:
    await watch.die("ship")
    watch.lease = lease

    running = asyncio.ensure_future(watch.alerts.run())
    await watch.clock.advance(2 * EVERY)
    running.cancel()
    await asyncio.wait([running])

    assert len(watch.told) == told


@pytest.mark.parametrize("wrong", [{"dead": 0}, {"window": 0.0}, {"oldest": -1.0}])
def test_limits_are_greater_than_zero(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        AlertLimits(**wrong)  # type: ignore[arg-type]  # a table of options
