"""Too much to do: who waits, who is asked to come again, and what is dropped when it is old."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import ClassVar

import pytest

from holdfast import BacklogLimits, Event, GroupLimit, Holdfast
from holdfast.errors import ConfigurationError, StoreUnavailable
from holdfast.queue.events import encode
from holdfast.queue.retention import BATCH, Retention
from holdfast.queue.signals import BacklogHigh, NotHandledIn, Purged
from holdfast.queue.threads import Threads
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.stores import Store, open_store
from holdfast.stores.store import Job, JobState, NewJob
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from tests.queue.test_receiver import Door

Perform = Callable[[Job], Awaitable[Result]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store("memory://", clock=clock) as store:
        yield store


def worker(store: Store, clock: ManualClock, perform: Perform, **options: object) -> Worker:
    return Worker(
        store.jobs,
        perform,
        queues=["work"],
        owner="one",
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry(),
        options=WorkerOptions(**options),  # type: ignore[arg-type]
    )


async def add(store: Store, kind: str, count: int = 1) -> None:
    have = sum((await store.jobs.count()).values())
    await store.jobs.add([NewJob(queue="work", key=f"{have + each}", kind=kind) for each in range(count)])


@pytest.fixture
async def start(store: Store, clock: ManualClock) -> AsyncIterator[Callable[..., "asyncio.Future[None]"]]:
    """Starts workers, which stop with the test."""
    started: list[asyncio.Future[None]] = []

    def start(perform: Perform, **options: object) -> "asyncio.Future[None]":
        started.append(asyncio.ensure_future(worker(store, clock, perform, **options).run()))
        return started[-1]

    yield start
    for working in started:
        working.cancel()
        await clock.advance(30)
        await asyncio.wait([working])


Start = Callable[..., "asyncio.Future[None]"]


async def test_the_backlog_of_a_slow_source_holds_nobody_else_up(
    store: Store, clock: ManualClock, start: Start
) -> None:
    begun: list[str] = []

    async def perform(job: Job) -> Result:
        begun.append(job.kind)
        if job.kind == "slow":
            await clock.sleep(50)
        return "done"

    await add(store, "slow", 500)
    _ = start(perform, concurrency=8)
    await clock.advance(1)
    await add(store, "quick", 20)
    await clock.advance(1)

    assert begun.count("quick") == 20
    assert begun.count("slow") == 6
    assert (await store.jobs.count())["work", JobState.LEASED] <= 12  # the others of it are anybody's


async def test_what_was_passed_over_runs_as_soon_as_there_is_place_and_counts_no_loss(
    store: Store, clock: ManualClock, start: Start
) -> None:
    async def perform(job: Job) -> Result:
        await clock.sleep(1)
        return "done"

    await add(store, "slow", 200)
    _ = start(perform, concurrency=8)
    for _ in range(80):  # 40 s, of which 34 are needed at 6 places
        await clock.advance(0.5)

    jobs = await store.jobs.list(limit=1000)
    assert sum(job.state is JobState.DONE for job in jobs) == 200
    assert {(job.attempts, job.losses) for job in jobs} == {(0, 0)}


async def test_a_limit_of_a_group_holds_in_the_worker(store: Store, clock: ManualClock, start: Start) -> None:
    running, most = 0, 0

    async def perform(job: Job) -> Result:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await clock.sleep(0.1)
        running -= 1
        return "done"

    await add(store, "narrow", 20)
    limits = {"work/narrow": GroupLimit(concurrency=2)}
    _ = start(perform, limits=limits)
    for _ in range(60):
        await clock.advance(0.1)

    assert most == 2
    assert {job.state for job in await store.jobs.list()} == {JobState.DONE}


async def test_what_was_not_begun_is_free_for_others_as_soon_as_a_worker_stops(
    store: Store, clock: ManualClock, start: Start
) -> None:
    async def perform(job: Job) -> Result:
        await clock.sleep(20)
        return "done"

    await add(store, "slow", 8)
    working = start(perform, concurrency=8)
    await clock.advance(1)
    working.cancel()
    await clock.advance(0)

    free = await store.jobs.claim(["work"], owner="two", limit=10, lease=60)
    assert len(free) == 2
    assert {job.losses for job in free} == {0}


async def test_above_the_hard_limit_vendors_are_asked_to_come_again_and_then_let_in() -> None:
    clock = ManualClock()
    door = Door(clock)
    door.hub = Holdfast(
        store="memory://",
        secret=None,
        payments=[door.signed],
        clock=clock,
        telemetry=Telemetry([door.signals.append]),
        backlog=BacklogLimits(soft=1, hard=2),
    )
    import httpx

    door.client = httpx.AsyncClient(transport=httpx.ASGITransport(door.hub.receiver), base_url="http://door")
    async with door.hub, door.client:
        for number in range(3):
            assert (await door.post("/signed", b"object-%d" % number)).status_code in (200, 503)
            await clock.advance(2)
        refused = await door.post("/signed", b"object-9")
        for job in await door.hub.store.jobs.claim(["deliveries"], owner="x", limit=9, lease=10):
            await door.hub.store.jobs.complete(job)
        await clock.advance(2)
        await door.post("/signed", b"object-9")
        await clock.advance(2)
        taken = await door.post("/signed", b"object-9")

    assert refused.status_code == 503
    assert 5 <= int(refused.headers["retry-after"]) <= 10
    assert taken.status_code == 200
    assert [signal.state for signal in door.signals if isinstance(signal, BacklogHigh)][:2] == ["high", "refusing"]


def retention(store: Store, clock: ManualClock, signals: list[Signal], lease: object = "mine") -> Retention:
    async def acquire() -> object:
        if isinstance(lease, Exception):
            raise lease
        return lease

    return Retention(
        store.jobs,
        acquire,
        older_than=100.0,
        dead=1000.0,
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([signals.append]),
    )


@pytest.mark.parametrize(("lease", "left"), [("mine", 0), (None, 1), (StoreUnavailable("locked"), 1)])
async def test_only_who_holds_the_lease_drops_what_is_old(
    store: Store, clock: ManualClock, lease: object, left: int
) -> None:
    await add(store, "old")
    [job] = await store.jobs.claim(["work"], owner="x", limit=1, lease=10)
    await store.jobs.complete(job)
    signals: list[Signal] = []

    purging = asyncio.ensure_future(retention(store, clock, signals, lease).run())
    await clock.advance(200)
    purging.cancel()
    await asyncio.wait([purging])

    assert len(await store.jobs.list()) == left
    assert signals == ([Purged(1)] if not left else [])


async def test_old_jobs_are_dropped_in_batches(store: Store, clock: ManualClock, start: Start) -> None:
    await add(store, "old", BATCH + 5)
    for job in await store.jobs.claim(["work"], owner="x", limit=BATCH + 5, lease=10):
        await store.jobs.complete(job)
    await clock.advance(101)
    signals: list[Signal] = []

    purging = asyncio.ensure_future(retention(store, clock, signals).purge())
    await clock.advance(1)

    assert await purging == BATCH + 5
    assert signals == [Purged(BATCH + 5)]


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "test.ordered"


async def run_one(hub: Holdfast, name: str) -> None:
    event = Ordered(id="order/1", reference="1", at=ManualClock().now())
    job = NewJob(queue="events", key=name, kind=Ordered.type, handler=name, body=encode(event))
    async with hub:
        await hub.store.jobs.add([job])
        await hub.settle()


@pytest.mark.parametrize("enters", [True, False])
@pytest.mark.parametrize("plain", [True, False])
async def test_a_handler_that_breaks_its_promise_raises_an_alarm(enters: bool, plain: bool) -> None:
    import sqlite3

    from holdfast import handled_ddl

    signals: list[Signal] = []
    hub = Holdfast(store="memory://", telemetry=Telemetry([signals.append]))

    def act(ordered: Ordered) -> None:
        with sqlite3.connect(":memory:") as database:
            database.execute(handled_ddl("sqlite"))
            if enters:
                with ordered.handled_in(database):
                    pass
        database.close()

    async def act_async(ordered: Ordered) -> None:
        act(ordered)

    hub.on(Ordered, name="act", require="handled_in")(act if plain else act_async)
    await run_one(hub, "act")

    alarms = [signal for signal in signals if isinstance(signal, NotHandledIn)]
    assert alarms == ([] if enters else [NotHandledIn("test.ordered", "act")])


def test_nothing_else_can_be_required() -> None:
    hub = Holdfast(store="memory://")

    with pytest.raises(ConfigurationError, match="handled_in"):
        hub.on(Ordered, require="luck")(print)  # type: ignore[arg-type]


@pytest.mark.parametrize("configured", [True, False])
async def test_djangos_connections_are_fresh_in_a_plain_handler(
    monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    happened: list[str] = []
    db = SimpleNamespace(close_old_connections=lambda: happened.append("closed"))
    monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=SimpleNamespace(configured=configured)))
    monkeypatch.setitem(sys.modules, "django.db", db)

    await Threads().run(happened.append, "ran")

    assert happened == (["closed", "ran", "closed"] if configured else ["ran"])
