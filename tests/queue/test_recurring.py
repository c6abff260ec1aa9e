"""Recurring work: each slot once in the whole fleet, whoever dies and whatever their clocks say."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from holdfast import Call, Holdfast, WorkerOptions
from holdfast.errors import ConfigurationError, StoreUnavailable
from holdfast.queue.recurring import Recurring
from holdfast.queue.signals import SlotsMissed
from holdfast.stores import Store, open_store
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import JobFilter, JobState
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, 12, 30, tzinfo=UTC))


class Shared:
    """A store that is open already, for several hubs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def __aenter__(self) -> "Shared":
        return self

    async def __aexit__(self, *error: object) -> None:
        pass


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Any]:
    async with open_store("memory://", clock=clock) as store:
        yield Shared(store)


class Fleet:
    """Some hubs on one store, and the slots they ran."""

    def __init__(self, store: Store, clock: ManualClock, size: int = 1, *, every: timedelta = HOUR) -> None:
        self.clock = clock
        self.ran: list[datetime] = []
        self.signals: list[Signal] = []
        self.hubs = [
            Holdfast(
                store=store,
                clock=clock,
                chance=Random(number),
                telemetry=Telemetry([self.signals.append]),
                worker=WorkerOptions(idle=0.5),
            )
            for number in range(size)
        ]
        for hub in self.hubs:
            hub.every(every, name="close-stale-bookings")(self.close)

    async def close(self, call: Call[datetime]) -> None:
        self.ran.append(call.payload)

    async def settle(self) -> None:
        for hub in self.hubs:
            await hub.settle()


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


async def test_three_hubs_run_each_slot_once(store: Store, clock: ManualClock) -> None:
    fleet = Fleet(store, clock, 3, every=timedelta(minutes=1))

    async with AsyncExitStack() as stack:
        for hub in fleet.hubs:
            await stack.enter_async_context(hub.lifespan())
        await clock.advance(3 * 60 + 1)

    assert fleet.ran == [at(12, 31), at(12, 32), at(12, 33)]


async def test_work_that_was_never_known_begins_with_its_next_slot(store: Store, clock: ManualClock) -> None:
    fleet = Fleet(store, clock)

    async with fleet.hubs[0]:
        await fleet.settle()
        first = list(fleet.ran)
        await clock.advance(30 * 60)
        await fleet.settle()

    assert first == []
    assert fleet.ran == [at(13)]


async def test_missed_slots_are_made_up_for_once(store: Store, clock: ManualClock) -> None:
    fleet = Fleet(store, clock)

    async with fleet.hubs[0]:
        await fleet.settle()
        await clock.advance(5 * 3600)
        await fleet.settle()
        await clock.advance(3600)
        await fleet.settle()

    assert fleet.ran == [at(17), at(18)]
    assert [signal for signal in fleet.signals if isinstance(signal, SlotsMissed)] == [
        SlotsMissed("close-stale-bookings", 4)
    ]


async def test_a_slot_whose_process_dies_before_it_is_run_is_run_by_another(store: Store, clock: ManualClock) -> None:
    fleet = Fleet(store, clock, 2)
    one, other = fleet.hubs

    async with one, other:
        await fleet.settle()
        await clock.advance(30 * 60)
        looks = Recurring(store, clock=clock, chance=Random(1), telemetry=Telemetry([]))
        looks.add("close-stale-bookings", fleet.close, every=HOUR, offset=timedelta(0), jitter=timedelta(0))
        await looks.look()
        await store.jobs.claim(["timers"], owner="dies", limit=1, lease=10)
        await clock.advance(11)
        await other.settle()

    assert fleet.ran == [at(13)]


async def test_a_slot_that_keeps_failing_gives_way_to_the_next(store: Store, clock: ManualClock) -> None:
    hub = Holdfast(store=store, clock=clock)
    ran: list[datetime] = []

    @hub.every(HOUR, name="close")
    async def close(call: Call[datetime]) -> None:
        ran.append(call.payload)
        if call.payload == at(13):
            raise ValueError("a bug of that hour")

    async with hub:
        await hub.settle()
        for _ in range(8):
            await clock.advance(30 * 60)
            await hub.settle()
        states = [job.state for job in await store.jobs.list(JobFilter(queue="timers"))]

    assert sorted(set(ran)) == [at(13), at(14), at(15), at(16)]
    assert Counter(ran)[at(14)] == 1
    assert sorted(states) == [JobState.DONE] * 3 + [JobState.IGNORED]


async def test_a_run_that_outlasts_its_slot_is_not_joined_by_the_next(store: Store, clock: ManualClock) -> None:
    hub = Holdfast(store=store, clock=clock, worker=WorkerOptions(handler_timeout=300, idle=1.0))
    at_once: list[int] = []
    running = 0
    ran: list[datetime] = []

    @hub.every(timedelta(minutes=1), name="close")
    async def close(call: Call[datetime]) -> None:
        nonlocal running
        running += 1
        at_once.append(running)
        ran.append(call.payload)
        if len(ran) == 1:
            await clock.sleep(150)
        running -= 1

    async with hub.lifespan():
        await clock.advance(4 * 60 + 2)

    assert max(at_once) == 1
    assert ran == [at(12, 31), at(12, 33), at(12, 34)]


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
async def test_a_slot_is_not_run_again_when_the_clock_is_set_back(
    store: Store, clock: ManualClock, jump: float
) -> None:
    fleet = Fleet(store, clock)

    async with fleet.hubs[0]:
        await fleet.settle()
        await clock.advance(3600)
        await fleet.settle()
        clock.jump(jump)
        await fleet.settle()
        clock.jump(-jump)
        await fleet.settle()
        await clock.advance(4 * 3600)
        await fleet.settle()

    assert len(fleet.ran) == len(set(fleet.ran))
    assert fleet.ran == sorted(fleet.ran)


async def test_a_clock_that_was_years_ahead_for_a_moment_stops_nothing(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(store, clock)

    async def astray() -> datetime:
        return clock.now() + timedelta(days=3650)

    async with fleet.hubs[0]:
        await fleet.settle()
        with monkeypatch.context() as patch:
            patch.setattr(store, "now", astray, raising=False)
            await fleet.settle()
        fleet.ran.clear()
        for _ in range(3):
            await fleet.settle()
            await clock.advance(3600)
        await fleet.settle()

    assert fleet.ran == [at(13), at(14), at(15)]


@pytest.mark.parametrize(
    ("every", "offset", "now", "next_slot"),
    [
        (timedelta(minutes=15), timedelta(0), at(12, 30), at(12, 45)),
        (timedelta(days=1), timedelta(0), at(12, 30), at(0, day=2)),
        (timedelta(days=1), timedelta(hours=3), at(12, 30), at(3, day=2)),
        (timedelta(days=1), timedelta(hours=3), at(2, 59), at(3)),
        (timedelta(days=7), timedelta(0), at(12, 30), at(0, day=2)),  # the second of March 2026 is a Monday
        # The nights in which Switzerland changes its clocks are nights like others.
        (
            timedelta(days=1),
            timedelta(hours=1),
            datetime(2026, 3, 28, 12, tzinfo=UTC),
            datetime(2026, 3, 29, 1, tzinfo=UTC),
        ),
        (
            timedelta(days=1),
            timedelta(hours=1),
            datetime(2026, 3, 29, 12, tzinfo=UTC),
            datetime(2026, 3, 30, 1, tzinfo=UTC),
        ),
    ],
)
async def test_slots_begin_at_midnight_utc(
    every: timedelta, offset: timedelta, now: datetime, next_slot: datetime
) -> None:
    clock = ManualClock(now)
    ran: list[tuple[datetime, datetime]] = []
    hub = Holdfast(store="memory://", clock=clock)

    @hub.every(every, offset=offset, name="work")
    async def work(call: Call[datetime]) -> None:
        ran.append((call.payload, clock.now()))

    async with hub:
        await hub.settle()
        await clock.advance((next_slot - now).total_seconds() - 1)
        await hub.settle()
        early = list(ran)
        await clock.advance(1)
        await hub.settle()

    assert early == []
    assert ran == [(next_slot, next_slot)]


async def test_jitter_delays_a_run_by_less_than_it_says(store: Store, clock: ManualClock) -> None:
    hub = Holdfast(store=store, clock=clock, chance=Random(7))
    ran: list[float] = []

    @hub.every(timedelta(minutes=1), jitter=timedelta(seconds=20), name="work")
    async def work(call: Call[datetime]) -> None:
        ran.append((clock.now() - call.payload).total_seconds())

    async with hub.lifespan():
        await clock.advance(12 * 60 + 30)

    assert len(ran) == 12
    assert all(0 <= late <= 22 for late in ran)
    assert max(ran) - min(ran) > 5


async def test_a_handler_may_take_nothing_and_may_be_a_plain_function(store: Store, clock: ManualClock) -> None:
    hub = Holdfast(store=store, clock=clock)
    ran: list[str] = []
    hub.every(HOUR, name="plain")(lambda: ran.append("plain"))

    async with hub:
        await hub.settle()
        await clock.advance(3600)
        await hub.settle()

    assert ran == ["plain"]


@pytest.mark.parametrize(
    ("every", "offset", "jitter"),
    [(0, 0, 0), (0.5, 0, 0), (60, 60, 0), (60, -1, 0), (60, 0, 60), (60, 0, -1)],
)
def test_times_that_do_not_go_together_are_refused(every: float, offset: float, jitter: float) -> None:
    hub = Holdfast(store="memory://")

    with pytest.raises(ConfigurationError):
        hub.every(
            timedelta(seconds=every), offset=timedelta(seconds=offset), jitter=timedelta(seconds=jitter), name="work"
        )(lambda: None)


async def test_a_store_that_is_away_for_a_while_costs_no_slot(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(store, clock, every=timedelta(minutes=1))
    down = True
    now = store.now

    async def sometimes() -> datetime:
        if down:
            raise StoreUnavailable("down")
        return await now()

    async with fleet.hubs[0].lifespan():
        await clock.advance(30)
        monkeypatch.setattr(store, "now", sometimes, raising=False)
        await clock.advance(45)
        down = False
        await clock.advance(10)

    assert fleet.ran == [at(12, 31)]


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_dies_when_each_slot_that_somebody_saw_is_one_job(seed: int) -> None:
    chance = Random(seed)
    clock = ManualClock(at(12, 30))
    store = MemoryStore(clock=clock)
    seen: set[datetime] = set()

    async def look() -> None:
        hub = Recurring(store, clock=clock, chance=chance, telemetry=Telemetry([]))
        hub.add("work", lambda: None, every=HOUR, offset=timedelta(0), jitter=timedelta(0))
        looking = asyncio.ensure_future(hub.look())
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

    async with store:
        for _ in range(60):
            await asyncio.gather(*(look() for _ in range(3)))
            record = await store.records.get("timer", "work")
            seen |= {datetime.fromisoformat(str(record.value["slot"]))} if record else set()
            await clock.advance(chance.choice([0, 60, 1800, 3600, 10_000]))
        jobs = await store.jobs.list(JobFilter(queue="timers"), limit=1000)

    slots = [datetime.fromisoformat(job.key.removeprefix("work/")) for job in jobs]
    assert len(slots) == len(set(slots))
    assert set(slots) == seen - {min(seen)}
