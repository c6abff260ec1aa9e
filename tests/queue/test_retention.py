"""How long what ended is kept, and how often a handler is run again: as each is declared."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import pytest

from holdfast import Event, Holdfast, WorkerOptions
from holdfast.errors import InvalidInput
from holdfast.queue.events import HandlerRetry, Subscriptions
from holdfast.queue.retention import Retention
from holdfast.queue.signals import Purged
from holdfast.stores import JobState, NewJob, Store, open_store
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock

DAY = 86_400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store("memory://", clock=clock) as store:
        yield store


async def mine() -> object:
    return "mine"


async def end_each(store: Store) -> None:
    await store.jobs.add([NewJob(queue="work", key=key, kind="x") for key in ("done", "dead")])
    await store.jobs.add([NewJob(queue="work", key="ignored", kind="x", ignored=True)])
    done, dead = await store.jobs.claim(["work"], owner="w", limit=2, lease=10)
    await store.jobs.complete(done)
    await store.jobs.bury(dead, reason="attempts", error="late")


async def test_dead_letters_are_kept_longer_than_what_is_done(store: Store, clock: ManualClock) -> None:
    options = WorkerOptions()
    signals: list[Signal] = []
    retention = Retention(
        store.jobs,
        mine,
        older_than=options.retention,
        dead=options.retention_dead,
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([signals.append]),
    )
    await end_each(store)

    await clock.advance(7 * DAY)
    assert await retention.purge() == 2
    assert [job.key for job in await store.jobs.list()] == ["dead"]

    await clock.advance(83 * DAY - 1)
    assert await retention.purge() == 0
    await clock.advance(1)
    assert await retention.purge() == 1
    assert signals == [Purged(2), Purged(1)]


async def test_an_ignored_job_can_be_replayed_until_its_time_is_over(store: Store, clock: ManualClock) -> None:
    await end_each(store)
    await clock.advance(7 * DAY - 1)
    await store.jobs.purge(older_than=7 * DAY)

    [ignored] = [job for job in await store.jobs.list() if job.key == "ignored"]

    assert (await store.jobs.replay(ignored.id)).state is JobState.READY


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "test.ordered"


async def test_a_handler_carries_how_it_is_run_again(store: Store) -> None:
    subscriptions = Subscriptions()
    rarely = HandlerRetry(attempts=3, base=1.0, cap=60.0)
    subscriptions.on(Ordered, print, name="rarely", retry=rarely)
    subscriptions.on(Ordered, print, name="as usual")
    new = [
        NewJob(queue=queue, key=f"{queue}/{handler}", kind=Ordered.type, handler=handler)
        for queue, handler in (("events", "rarely"), ("events", "as usual"), ("events", "gone"), ("other", "rarely"))
    ]
    await store.jobs.add(new)

    found = [subscriptions.retry_of(job) for job in await store.jobs.list(newest=False)]

    assert found == [rarely, None, None, None]


def test_a_hub_takes_it_with_the_handler() -> None:
    hub = Holdfast(store="memory://")

    @hub.on(Ordered, name="rarely", retry=HandlerRetry(attempts=3))
    async def handle(event: Ordered) -> None: ...

    found = hub._runtime.subscriptions.find(Ordered.type, "rarely")
    assert found is not None
    assert found.retry == HandlerRetry(attempts=3)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base": -1.0}, {"cap": float("inf")}, {"base": float("nan")}])
def test_retries_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        HandlerRetry(**wrong)
