"""What people do with jobs: each thing once, whatever is cut off in the middle, and written down."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Holdfast
from holdfast.errors import AlreadyReplayed, InvalidInput, NotFound, ReferenceConflict
from holdfast.queue.operations import Queue
from holdfast.queue.redrive import PAGE, Redrive
from holdfast.queue.signals import BodyRevealed, DeadDropped, JobReplayed, Redriven
from holdfast.stores import Added, JobFilter, JobState, NewJob, Store, open_store
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from tests.queue.cut_store import CutStore, Killed
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

T = TypeVar("T")

ME: dict[str, Any] = {"by": "ada", "reason": "the vendor is back"}
DEAD = JobFilter(state=JobState.DEAD)


class Bench:
    """A store, and what is done to it."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.signals: list[Signal] = []
        self.queue = self.queue_on(store)

    def queue_on(self, store: Any) -> Queue:
        telemetry = Telemetry([self.signals.append])
        return Queue(cast("Store", store), owner=lambda: "here", clock=self.clock, telemetry=telemetry)

    async def add_dead(self, count: int, *, first: int = 0, **facts: Any) -> None:
        numbers = range(first, first + count)
        await self.store.jobs.add([NewJob(queue="work", key=str(n), kind="odd" if n % 2 else "even") for n in numbers])
        await self.fail(**facts)

    async def fail(self, *, reason: str = "attempts", error: str = "TimeoutError: late") -> list[str]:
        claimed = await self.store.jobs.claim(["work"], owner="w", limit=1000, lease=10)
        for job in claimed:
            await self.store.jobs.bury(job, reason=reason, error=error)
        return [job.key for job in claimed]

    async def finish(self) -> list[str]:
        claimed = await self.store.jobs.claim(["work"], owner="w", limit=1000, lease=10)
        for job in claimed:
            await self.store.jobs.complete(job)
        return [job.key for job in claimed]

    async def redrive(self, where: JobFilter = DEAD, **options: Any) -> Redrive:
        return await self.queue.redrive(where, **{"id": "again", "rate": inf} | ME | options)

    async def generations(self) -> dict[str, int]:
        return {job.key: job.generation for job in await self.store.jobs.list(limit=10_000)}

    async def passing(self, work: Awaitable[T]) -> T:
        """Let time pass until it is done."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.clock.advance(0.1)
        return await task


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        yield Bench(store, clock)


# Replaying one.


async def test_a_replay_makes_one_generation_and_says_who_and_why(bench: Bench) -> None:
    await bench.add_dead(1)
    [job] = await bench.queue.list(DEAD)

    replayed = await bench.queue.replay(job.id, **ME)

    assert (replayed.state, replayed.generation) == (JobState.READY, 1)
    [entry] = await bench.queue.audit()
    assert (entry.what, entry.by, entry.reason, entry.at) == ("replay", "ada", "the vendor is back", bench.clock.now())
    assert entry.facts == {
        "job": job.id, "queue": "work", "kind": "even", "handler": "", "generation": 1, "result": "replayed",
    }  # fmt: skip
    assert bench.signals == [JobReplayed("work", "even", "", 1)]


async def test_a_replay_of_what_is_to_run_anyway_changes_nothing(bench: Bench) -> None:
    await bench.store.jobs.add([NewJob(queue="work", key="a", kind="even")])
    [job] = await bench.queue.list()

    assert await bench.queue.replay(job.id, **ME) == job

    [entry] = await bench.queue.audit()
    assert entry.facts["result"] == "active"
    assert bench.signals == []


async def test_what_somebody_else_replayed_meanwhile_is_left_alone(bench: Bench) -> None:
    await bench.add_dead(1)
    [job] = await bench.queue.list(DEAD)
    await bench.queue.replay(job.id, **ME)
    await bench.fail()
    await bench.clock.advance(1)

    with pytest.raises(AlreadyReplayed):
        await bench.queue.replay(job.id, generation=job.generation, **ME)

    assert await bench.generations() == {"0": 1}
    [latest, _] = await bench.queue.audit()
    assert latest.facts["result"] == "refused"


async def test_nothing_is_replayed_that_is_not_written_down(bench: Bench) -> None:
    await bench.add_dead(1)
    [job] = await bench.queue.list(DEAD)
    commands = CutStore(bench.store)
    await bench.queue_on(commands).replay(job.id, **ME)
    await bench.fail()

    for at in range(len(commands.commands)):
        [before] = await bench.queue.list(DEAD)
        known = len(await bench.queue.audit())
        with pytest.raises(Killed):
            await bench.queue_on(CutStore(bench.store, at)).replay(job.id, **ME)
        [after] = await bench.queue.list()
        assert len(await bench.queue.audit()) - known >= after.generation - before.generation
        await bench.clock.advance(1)
        await bench.fail()


@pytest.mark.parametrize("who", [{"by": ""}, {"reason": " "}])
async def test_nobody_does_anything_for_no_reason(bench: Bench, who: dict[str, str]) -> None:
    await bench.add_dead(1)
    [job] = await bench.queue.list(DEAD)
    verbs: list[Callable[..., Awaitable[object]]] = [bench.queue.replay, bench.queue.reveal]

    for verb in verbs:
        with pytest.raises(InvalidInput):
            await verb(job.id, **ME | who)
    with pytest.raises(InvalidInput):
        await bench.redrive(**who)
    with pytest.raises(InvalidInput):
        await bench.queue.drop(**ME | who)

    assert await bench.queue.audit() == []
    assert await bench.generations() == {"0": 0}


# Looking.


async def test_the_repr_of_a_job_shows_neither_body_nor_headers(bench: Bench) -> None:
    new = NewJob(queue="work", key="a", kind="even", body=b"4242 4242", headers={"token": "hush-hush"})
    await bench.store.jobs.add([new])

    [job] = await bench.queue.list()

    for shown in (repr(job), repr(new), str(job)):
        assert "4242" not in shown
        assert "hush" not in shown


async def test_who_sees_a_body_is_written_down_first(bench: Bench) -> None:
    await bench.store.jobs.add([NewJob(queue="work", key="a", kind="even", body=b"raw")])
    [job] = await bench.queue.list()

    revealed = await bench.queue.reveal(job.id, by="ada", reason="case 7")

    assert revealed.body == b"raw"
    [entry] = await bench.queue.audit()
    assert (entry.what, entry.by, entry.facts["job"]) == ("reveal", "ada", job.id)
    assert bench.signals == [BodyRevealed("work", "even")]


async def test_the_audit_is_newest_first_and_read_in_pages(bench: Bench) -> None:
    await bench.add_dead(5)
    for job in await bench.queue.list(DEAD):
        await bench.clock.advance(1)
        await bench.queue.replay(job.id, **ME)
    everything = await bench.queue.audit()

    first = await bench.queue.audit(limit=2)
    rest = await bench.queue.audit(after=first[-1].key)

    assert [*first, *rest] == everything
    assert [entry.at for entry in everything] == sorted((entry.at for entry in everything), reverse=True)
    assert len(everything) == 5


# Redriving.


async def test_a_redrive_gives_what_fits_one_generation(bench: Bench) -> None:
    await bench.add_dead(2 * PAGE + 3)
    await bench.store.jobs.add([NewJob(queue="other", key="a", kind="even", ignored=True)])

    report = await bench.redrive(JobFilter(kind="odd"))

    assert report == Redrive(id="again", state="done", fits=101, replayed=101, skipped=0, why="")
    assert await bench.generations() == {"a": 0} | {str(number): number % 2 for number in range(203)}
    [entry] = await bench.queue.audit()
    assert (entry.what, entry.by, entry.reason) == ("redrive", "ada", "the vendor is back")
    assert entry.facts["where"] == {"kind": "odd", "state": "dead"}
    assert (entry.facts["id"], entry.facts["state"], entry.facts["replayed"]) == ("again", "done", 101)
    replayed = await bench.queue.generations("again")
    assert len(replayed) == 101
    assert {generation for _, generation in replayed} == {1}
    assert [(await bench.queue.get(job_id)).key for job_id, _ in replayed[:2]] == ["1", "3"]
    assert bench.signals == [Redriven("done", 101, 0)]


async def test_a_dry_run_counts_and_changes_nothing(bench: Bench) -> None:
    await bench.add_dead(PAGE + 7)

    report = await bench.redrive(dry_run=True)

    assert (report.state, report.fits, report.replayed) == ("dry run", PAGE + 7, 0)
    assert (await bench.redrive(dry_run=True, limit=5)).fits == 5
    assert set((await bench.generations()).values()) == {0}
    assert await bench.queue.audit() == []
    assert (await bench.redrive()).replayed == PAGE + 7


async def test_a_redrive_ends_at_its_cap_with_the_oldest_first(bench: Bench) -> None:
    await bench.add_dead(PAGE + 20)

    report = await bench.redrive(limit=PAGE + 5)

    assert report.replayed == PAGE + 5
    assert [key for key, generation in (await bench.generations()).items() if not generation] == [
        str(number) for number in range(PAGE + 19, PAGE + 4, -1)
    ]


async def test_a_redrive_of_named_jobs_leaves_the_others(bench: Bench) -> None:
    await bench.add_dead(6)
    jobs = {job.key: job.id for job in await bench.queue.list(DEAD)}

    report = await bench.redrive(JobFilter(kind="odd"), ids=[jobs["3"], jobs["1"], jobs["2"], "12345"])

    assert report.replayed == 2
    assert {key for key, generation in (await bench.generations()).items() if generation} == {"1", "3"}


async def test_a_repeated_redrive_does_nothing_twice_even_for_jobs_that_died_again(bench: Bench) -> None:
    await bench.add_dead(5)
    first = await bench.redrive()
    await bench.fail()
    await bench.add_dead(1, first=5)

    assert await bench.redrive(by="somebody else") == first

    assert await bench.generations() == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1, "5": 0}
    assert len(await bench.queue.audit()) == 1
    assert len(bench.signals) == 1


async def test_what_dies_while_it_goes_on_is_not_redriven_for_ever(bench: Bench) -> None:
    await bench.add_dead(3)
    rounds: list[Redrive] = []

    async def fail_at_once(report: Redrive) -> None:
        rounds.append(report)
        await bench.clock.sleep(1)
        await bench.fail()
        await bench.add_dead(1, first=100 + len(rounds))

    waiting: list[asyncio.Future[None]] = []
    report = await bench.passing(
        bench.redrive(rate=0.2, show=lambda now: waiting.append(asyncio.ensure_future(fail_at_once(now))))
    )
    await bench.passing(asyncio.gather(*waiting))

    assert report.replayed == 3
    assert {key: generation for key, generation in (await bench.generations()).items() if generation} == {
        "0": 1, "1": 1, "2": 1,
    }  # fmt: skip


async def test_an_id_is_that_of_one_redrive(bench: Bench) -> None:
    await bench.add_dead(2)
    await bench.redrive()

    with pytest.raises(ReferenceConflict):
        await bench.redrive(JobFilter(kind="odd"))
    with pytest.raises(ReferenceConflict):
        await bench.redrive(limit=7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"where": JobFilter(state=JobState.READY)},
        {"id": ""},
        {"id": "x" * 129},
        {"limit": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"canary": -1},
        {"canary_timeout": 0.0},
    ],
)
async def test_a_redrive_that_cannot_be_meant_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await bench.redrive(**wrong)


async def test_ignored_jobs_are_redriven_when_the_filter_says_so(bench: Bench) -> None:
    await bench.store.jobs.add([NewJob(queue="work", key="a", kind="new", ignored=True)])
    await bench.add_dead(1)

    assert (await bench.redrive(JobFilter(state=JobState.IGNORED))).replayed == 1

    assert await bench.generations() == {"a": 1, "0": 0}


async def test_no_more_are_replayed_in_a_second_than_the_rate_allows(bench: Bench) -> None:
    await bench.add_dead(50)
    running = asyncio.ensure_future(bench.redrive(rate=4.0))
    done: list[int] = []

    for _ in range(12):
        await bench.clock.advance(1)
        done.append(sum((await bench.generations()).values()))
    await bench.passing(running)

    steps = [later - sooner for sooner, later in pairwise(done)]
    assert set(steps) == {4}
    assert sum((await bench.generations()).values()) == 50


async def test_a_job_that_is_gone_meanwhile_is_skipped(bench: Bench) -> None:
    await bench.add_dead(3)
    jobs = await bench.queue.list(DEAD)
    running = asyncio.ensure_future(bench.redrive(rate=1.0))
    await bench.clock.advance(0.5)

    await bench.store.jobs.drop(jobs[0].id)

    report = await bench.passing(running)
    assert (report.fits, report.replayed, report.skipped) == (3, 2, 1)


# Canaries.


async def test_the_rest_goes_when_the_canaries_are_done(bench: Bench) -> None:
    await bench.add_dead(6)
    running = asyncio.ensure_future(bench.redrive(canary=2))
    await bench.clock.advance(5)
    assert [key for key, generation in (await bench.generations()).items() if generation] == ["1", "0"]

    assert await bench.finish() == ["0", "1"]

    report = await bench.passing(running)
    assert (report.state, report.replayed) == ("done", 6)
    assert set((await bench.generations()).values()) == {1}


async def test_a_canary_that_dies_again_stops_the_redrive_and_is_named(bench: Bench) -> None:
    await bench.add_dead(6)
    running = asyncio.ensure_future(bench.redrive(canary=2))
    await bench.clock.advance(5)

    await bench.fail(reason="permanent", error="Permanent: no such order")

    report = await bench.passing(running)
    assert (report.state, report.replayed) == ("stopped", 2)
    assert report.why.startswith("dead again: job ")
    assert "Permanent: no such order" in report.why
    assert sum((await bench.generations()).values()) == 2
    assert await bench.redrive(canary=2) == report
    [entry] = await bench.queue.audit()
    assert (entry.facts["state"], entry.facts["why"]) == ("stopped", report.why)
    assert bench.signals == [Redriven("stopped", 2, 0)]


async def test_a_canary_nobody_runs_stops_the_redrive(bench: Bench) -> None:
    await bench.add_dead(3)

    report = await bench.passing(bench.redrive(canary=1, canary_timeout=60.0))

    assert (report.state, report.replayed) == ("stopped", 1)
    assert report.why.startswith("not done within 60 s, still ready: job ")
    assert bench.clock.now() - (await bench.queue.audit())[0].at < timedelta(seconds=62)


async def test_a_redrive_without_anything_to_do_is_done(bench: Bench) -> None:
    assert await bench.redrive(canary=3) == Redrive(id="again", state="done", fits=0, replayed=0, skipped=0, why="")


# Two at once, and none at all.


async def test_two_that_run_at_once_are_one_redrive(bench: Bench) -> None:
    await bench.add_dead(30)

    both = asyncio.gather(bench.redrive(rate=10.0), bench.redrive(rate=10.0))
    await bench.clock.advance(1)
    assert sum((await bench.generations()).values()) <= 11
    one, other = await bench.passing(both)

    assert one == other
    assert one.replayed == 30
    assert set((await bench.generations()).values()) == {1}
    assert len(await bench.queue.audit()) == 1


async def redrive_cut(bench: Bench, cuts: list[tuple[int, bool]], *, canary: int = 0) -> Redrive:
    """Killed at each cut in turn, while workers fail what was replayed; then once to the end."""
    for at, done in cuts:
        queue = bench.queue_on(CutStore(bench.store, at, done=done))
        try:
            await queue.redrive(DEAD, id="again", rate=inf, canary=canary, **ME)
        except Killed:
            await (bench.finish() if canary else bench.fail())
        await bench.clock.advance(20)
    if canary:
        await bench.finish()
    return await bench.redrive(canary=canary)


async def check_cut(bench: Bench, count: int, cuts: list[tuple[int, bool]]) -> None:
    await bench.add_dead(count)
    await bench.store.jobs.add([NewJob(queue="other", key="untouched", kind="even")])

    report = await redrive_cut(bench, cuts)

    assert await bench.generations() == {"untouched": 0} | {str(number): 1 for number in range(count)}
    assert (report.state, report.fits, report.replayed, report.skipped) == ("done", count, count, 0)
    assert sorted(await bench.queue.generations("again")) == sorted(
        (job.id, 1) for job in await bench.queue.list(JobFilter(queue="work"), limit=1000)
    )
    [entry] = await bench.queue.audit()
    assert (entry.facts["state"], entry.facts["replayed"]) == ("done", count)


async def commands_of_a_redrive(count: int) -> int:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        bench = Bench(store, clock)
        await bench.add_dead(count)
        whole = CutStore(store)
        await bench.queue_on(whole).redrive(DEAD, id="again", rate=inf, **ME)
        return len(whole.commands)


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_cut_at_any_command_and_repeated_each_job_has_one_new_generation(engine: str, tmp_path: Path) -> None:
    commands = await commands_of_a_redrive(4)
    assert commands > 10

    for at in range(commands):
        for done in (True, False):
            clock = ManualClock()
            url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path / f'{at}{done}.db'}"
            async with open_store(url, clock=clock) as store:
                await check_cut(Bench(store, clock), 4, [(at, done)])


async def test_cut_anywhere_with_canaries_each_job_has_one_new_generation() -> None:
    for at in range(24):
        clock = ManualClock()
        async with open_store("memory://", clock=clock) as store:
            bench = Bench(store, clock)
            await bench.add_dead(4)
            cut = asyncio.ensure_future(redrive_cut(bench, [(at, True)], canary=2))
            while not cut.done():
                await clock.advance(1)
                await bench.finish()
            report = await cut

            assert (report.state, report.replayed) == ("done", 4)
            assert set((await bench.generations()).values()) == {1}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    engine=st.sampled_from(["memory", "sqlite"]),
    count=st.sampled_from([1, 3, PAGE, PAGE + 2]),
    cuts=st.lists(st.tuples(st.integers(0, 30) | st.integers(0, 130), st.booleans()), max_size=4),
)
def test_however_often_it_is_cut_each_job_has_one_new_generation(
    engine: str, count: int, cuts: list[tuple[int, bool]]
) -> None:
    async def run() -> None:
        clock = ManualClock()
        with tempfile.TemporaryDirectory() as directory:
            url = "memory://" if engine == "memory" else f"sqlite:///{directory}/store.db"
            async with open_store(url, clock=clock) as store:
                await check_cut(Bench(store, clock), count, cuts)

    asyncio.run(run())


@pytest.mark.parametrize("url", ["{}?schema=s{}"])
async def test_on_postgresql_too(url: str, postgres_server: PostgresServer) -> None:
    clock = ManualClock()
    async with open_store(url.format(postgres_server.url, uuid4().hex), clock=clock) as store:
        await check_cut(Bench(store, clock), PAGE + 2, [(3, True), (50, False), (90, True)])


@pytest.mark.parametrize("partitions", [1, 3])
async def test_on_redis_too(partitions: int, redis_server: RedisServer) -> None:
    clock = ManualClock()
    url = f"{redis_server.store_url}&partitions={partitions}&namespace={uuid4().hex}"
    async with open_store(url, clock=clock) as store:
        await check_cut(Bench(store, clock), PAGE + 2, [(3, True), (50, False), (90, True)])


# Giving up.


async def test_dropped_dead_letters_are_gone_and_go_on_deduplicating(bench: Bench) -> None:
    await bench.add_dead(PAGE + 4)
    jobs = {job.key: job.id for job in await bench.queue.list(DEAD, limit=1000)}

    assert await bench.queue.drop(JobFilter(kind="odd"), **ME) == PAGE // 2 + 2

    assert set(await bench.generations()) == {str(number) for number in range(0, PAGE + 4, 2)}
    with pytest.raises(NotFound):
        await bench.queue.get(jobs["1"])
    assert await bench.store.jobs.add([NewJob(queue="work", key="1", kind="odd")]) == [Added.DUPLICATE]
    [entry] = await bench.queue.audit()
    assert (entry.what, entry.by) == ("drop", "ada")
    assert {"id": jobs["1"], "key": "1"} in cast("list[object]", entry.facts["jobs"])
    assert bench.signals == [DeadDropped(PAGE // 2 + 2)]


async def test_nothing_but_dead_letters_is_dropped(bench: Bench) -> None:
    await bench.add_dead(2)
    await bench.store.jobs.add([NewJob(queue="work", key="waits", kind="odd")])

    with pytest.raises(InvalidInput):
        await bench.queue.drop(JobFilter(state=JobState.DONE), **ME)
    assert await bench.queue.drop(limit=1, **ME) == 1

    assert set(await bench.generations()) == {"1", "waits"}
    assert await bench.queue.drop(JobFilter(error="no such words"), **ME) == 0


async def test_what_somebody_replays_meanwhile_is_not_dropped(bench: Bench) -> None:
    await bench.add_dead(2)

    class Meanwhile(CutStore):
        async def run(self, name: str, command: Callable[[], Awaitable[object]]) -> object:
            if name == "drop" and "drop" not in self.commands:
                for job in await bench.store.jobs.list(DEAD):
                    await bench.store.jobs.replay(job.id)
                await bench.fail()
            return await super().run(name, command)

    assert await bench.queue_on(Meanwhile(bench.store)).drop(**ME) == 0

    assert await bench.generations() == {"0": 1, "1": 1}


async def test_a_hub_has_its_queue_without_running_handlers() -> None:
    hub = Holdfast(store="memory://", clock=ManualClock())
    async with hub:
        await hub.store.jobs.add([NewJob(queue="events", key="a", kind="x", ignored=True)])
        [job] = await hub.queue.list()

        replayed = await hub.queue.replay(job.id, **ME)

        assert replayed == replace(job, state=JobState.READY, generation=1, token=1)
        assert await hub.queue.count() == {("events", JobState.READY): 1}
