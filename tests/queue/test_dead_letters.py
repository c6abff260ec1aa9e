"""Dead letters are told of: each once, all that are new in one message, and never about the telling itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.errors import StoreUnavailable
from holdfast.queue import dead_letters
from holdfast.queue.alarms import HANDLER
from holdfast.queue.dead_letters import EVERY, LOOK_CLOSELY_EVERY, QUIET, DeadLetters, DeadLetterWatch
from holdfast.queue.events import Subscriptions, decode
from holdfast.stores import JobFilter, JobState, NewJob, Store, open_store
from holdfast.testing.clock import ManualClock


class Yard:
    """A store in which jobs die, and somebody who is told."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.subscriptions = Subscriptions()
        self.subscriptions.on(DeadLetters, self.hear, name="hear")
        self.lease: object = "mine"
        self.watch = self.another()
        self.number = 0

    async def hear(self, event: DeadLetters) -> None: ...

    def another(self) -> DeadLetterWatch:
        """As it is in a process that was just begun."""

        async def lease() -> object:
            if isinstance(self.lease, Exception):
                raise self.lease
            return self.lease

        return DeadLetterWatch(self.store, self.subscriptions, lease, clock=self.clock, chance=Random(1))

    async def die(self, *handlers: str, kind: str = "paid", reason: str = "attempts") -> None:
        new = [
            NewJob(queue="events", key=str(self.number + each), kind=kind, handler=handler)
            for each, handler in enumerate(handlers)
        ]
        self.number += len(new)
        await self.store.jobs.add(new)
        await self.bury(reason)

    async def bury(self, reason: str = "attempts") -> None:
        claimed = await self.store.jobs.claim(["events"], owner="w", limit=10_000, lease=10)
        bury = self.store.jobs.bury
        await asyncio.gather(*(bury(job, reason=reason, error="ada@example.org is gone") for job in claimed))

    async def told(self) -> list[DeadLetters]:
        """What was told since the last time."""
        jobs = await self.store.jobs.claim(["events"], owner="w", limit=10_000, lease=10)
        for job in jobs:
            await self.store.jobs.complete(job)
        return [decode(DeadLetters, job.body) for job in jobs]

    async def look(self) -> list[DeadLetters]:
        await self.watch.look()
        return await self.told()

    async def quiet(self) -> None:
        await self.clock.advance(QUIET.total_seconds() + 1)


@pytest.fixture(params=["memory", "sqlite"])
async def yard(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    clock = ManualClock()
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/yard.db"
    async with open_store(url, clock=clock) as store:
        yield Yard(store, clock)


async def test_all_that_died_are_told_in_one_message_and_once(yard: Yard) -> None:
    assert await yard.look() == []

    await yard.die(*["ship"] * 1000)
    await yard.die("mail", reason="permanent")
    [event] = await yard.look()

    assert (event.jobs, event.sources) == (1001, {"events/paid/ship": 1000, "events/paid/mail": 1})
    assert event.reasons == {"attempts": 1000, "permanent": 1}
    await yard.quiet()
    assert await yard.look() == []
    assert await yard.another().look() is False


async def test_what_the_store_buries_by_itself_is_told_too(yard: Yard) -> None:
    await yard.store.jobs.add([NewJob(queue="events", key="1", kind="paid", handler="ship")])
    for _ in range(4):
        await yard.store.jobs.claim(["events"], owner="w", limit=1, lease=1)
        await yard.clock.advance(2)

    [event] = await yard.look()

    assert event.reasons == {"poison": 1}


async def test_what_dies_soon_after_a_message_is_in_the_next_one_also_after_a_restart(yard: Yard) -> None:
    # given
    await yard.die("ship")
    assert len(await yard.look()) == 1

    # when
    for _ in range(20):
        await yard.die("ship")
        assert await yard.look() == []
        yard.watch = yard.another()
    await yard.quiet()

    # then
    assert [event.jobs for event in await yard.look()] == [20]


async def test_a_replayed_job_that_dies_again_is_told_again(yard: Yard) -> None:
    await yard.die("ship")
    await yard.look()
    [job] = await yard.store.jobs.list(JobFilter(state=JobState.DEAD))
    await yard.store.jobs.replay(job.id)
    await yard.bury()
    await yard.quiet()
    yard.watch = yard.another()

    assert [event.jobs for event in await yard.look()] == [1]


async def test_one_that_came_for_one_that_went_is_found_though_there_are_as_many(yard: Yard) -> None:
    # given
    await yard.die("ship")
    await yard.look()
    await yard.quiet()
    await yard.look()
    [job] = await yard.store.jobs.list(JobFilter(state=JobState.DEAD))
    await yard.store.jobs.drop(job.id)
    await yard.die("mail")

    # when
    await yard.clock.advance(LOOK_CLOSELY_EVERY + 1)

    # then
    assert [event.sources for event in await yard.look()] == [{"events/paid/mail": 1}]


@pytest.mark.parametrize(("kind", "handler"), [("payment.flagged", HANDLER), (DeadLetters.type, "mine")])
async def test_what_was_to_tell_and_died_is_not_told_of_or_it_would_never_end(
    yard: Yard, kind: str, handler: str
) -> None:
    await yard.die(handler, kind=kind)

    assert await yard.look() == []


async def test_nobody_who_wants_to_hear_is_told_later_of_what_died_before(yard: Yard) -> None:
    # given
    heard, yard.subscriptions = yard.subscriptions, Subscriptions()
    yard.watch = yard.another()
    await yard.die("ship")
    assert await yard.look() == []

    # when
    yard.subscriptions = heard
    yard.watch = yard.another()

    # then
    assert [event.jobs for event in await yard.look()] == [1]


async def test_of_two_processes_that_look_at_once_one_tells(yard: Yard) -> None:
    await yard.die("ship")

    await asyncio.gather(yard.watch.look(), yard.another().look())

    assert [event.jobs for event in await yard.told()] == [1]


async def test_a_process_that_dies_before_it_could_tell_leaves_it_to_the_next(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    async def die(*args: Any, **options: Any) -> None:
        raise StoreUnavailable("killed")

    await yard.die("ship")
    with monkeypatch.context() as patch:
        patch.setattr(yard.store.records, "apply", die)
        with pytest.raises(StoreUnavailable):
            await yard.watch.look()

    # then
    assert [event.jobs for event in await yard.look()] == [1]


async def test_the_list_of_those_told_grows_no_longer_than_there_are_dead_letters(yard: Yard) -> None:
    await yard.die("ship", "ship", "ship")
    await yard.look()
    await yard.store.jobs.purge(older_than=0, states=[JobState.DEAD])

    assert await yard.look() == []

    record = await yard.store.records.get(dead_letters.KIND, dead_letters.KEY)
    assert record is not None
    assert record.value["told"] == []


async def test_of_more_than_are_looked_at_none_is_told_twice(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(dead_letters, "PAGE", 10)
    monkeypatch.setattr(dead_letters, "MOST", 30)
    told = 0
    for _ in range(5):
        await yard.die(*["ship"] * 12)
        told += sum(event.jobs for event in await yard.look())
        await yard.quiet()

    # when
    for job in (await yard.store.jobs.list(JobFilter(state=JobState.DEAD)))[:20]:
        await yard.store.jobs.drop(job.id)
    again = await yard.look()

    # then
    record = await yard.store.records.get(dead_letters.KIND, dead_letters.KEY)
    assert record is not None
    assert told == 60
    assert again == []
    assert len(str(record.value["told"]).split(",")) <= 60


async def test_it_looks_now_and_then_where_it_holds_the_lease_and_survives_the_store(yard: Yard) -> None:
    running = asyncio.ensure_future(yard.watch.run())
    try:
        yard.lease = None
        await yard.die("ship")
        await yard.clock.advance(3 * EVERY)
        assert await yard.told() == []

        yard.lease = StoreUnavailable("away")
        await yard.clock.advance(3 * EVERY)
        assert await yard.told() == []

        yard.lease, told = "mine", list[DeadLetters]()
        for _ in range(60):  # a store on disk answers in its own time
            await yard.clock.advance(EVERY / 10)
            if told := await yard.told():
                break
        assert [event.jobs for event in told] == [1]
    finally:
        running.cancel()


def test_the_message_names_sources_and_reasons_and_no_error() -> None:
    event = DeadLetters(
        id="dead_letters/1",
        reference="dead_letters",
        at=ManualClock().now(),
        jobs=12,
        sources={"events/payment.paid/ship": 7, "deliveries/stripe": 3},
        reasons={"attempts": 9, "poison": 3},
    )

    assert event.alarm().subject == "12 dead letters"
    assert event.alarm().text == (
        "12 dead letters.\n"
        "What happened: given up on for good: events/payment.paid/ship 7, deliveries/stripe 3, others 2;"
        " why: attempts 9, poison 3.\n"
        "What to do: look with `holdfast dlq list`, mend the cause, then replay."
    )
