"""A keyspace that a former version of holdfast wrote opens, and goes on."""

import shutil
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.stores import Added, JobFilter, JobState, NewJob
from holdfast.stores.backup import verify_store
from holdfast.stores.redis import RedisStore
from holdfast.testing.clock import ManualClock
from tests.servers.redis import RedisServer

FIXTURE = Path(__file__).parent / "fixtures/redis_layout_1.aof"
"""Two keyspaces of the first layout as the server wrote them down: p1 with one partition, p3 with three."""


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    (tmp_path / "redis").mkdir()
    shutil.copy(FIXTURE, tmp_path / "redis/appendonly.aof")
    with RedisServer(tmp_path / "redis", "--aof-use-rdb-preamble", "no") as server:
        yield server


@pytest.fixture(params=[1, 3], ids=["one partition", "three partitions"])
def url(request: pytest.FixtureRequest, server: RedisServer) -> str:
    return f"{server.store_url}&namespace=p{request.param}&partitions={request.param}"


@pytest.fixture
def clock() -> ManualClock:
    """Two seconds after the keyspaces were left."""
    clock = ManualClock()
    return ManualClock(clock.now() + timedelta(seconds=4))


WORK = {"done": "done", "dead": "dead", "retried": "ready", "leased": "leased", "ignored": "ignored", "ready": "ready"}
WORK |= {"delayed": "ready", "first": "ready", "second": "ready", "other": "ready", "of a record": "ready"}


async def test_every_job_is_listed_and_counted_as_before(url: str, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock) as store:
        listed = await store.jobs.list()

        assert {job.key: job.state for job in listed} == WORK
        for state in JobState:
            of_state = {key for key, its_state in WORK.items() if its_state == state}
            assert {job.key for job in await store.jobs.list(JobFilter(state=state))} == of_state
        assert sum((await store.jobs.count()).values()) == len(WORK)


async def test_what_a_job_carries_is_kept(url: str, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock) as store:
        jobs = {job.key: job for job in await store.jobs.list()}

        assert (jobs["ready"].body, jobs["ready"].headers) == (b"kept", {"x": "y"})
        assert (jobs["dead"].body, jobs["dead"].reason, jobs["dead"].error) == (b"\x00dead", "permanent", "gone")
        assert (jobs["retried"].attempts, jobs["retried"].error) == (1, "late")
        assert (jobs["other"].queue, jobs["other"].handler) == ("events", "h")
        assert await store.records.get("payment", "a") is not None


async def test_every_job_that_was_left_runs_once_and_in_order(url: str, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock) as store:
        ran: list[str] = []
        for _ in range(2):
            while jobs := await store.jobs.claim(["deliveries", "events"], owner="new", limit=3, lease=60):
                for job in jobs:
                    await store.jobs.complete(job)
                    ran.append(job.key)
            await clock.advance(120)

        assert sorted(ran) == sorted(key for key, state in WORK.items() if state in ("ready", "leased"))
        assert ran.index("first") < ran.index("second")
        assert await store.jobs.list(JobFilter(state=JobState.READY)) == []


async def test_keys_go_on_deduplicating_and_digests_go_on_conflicting(url: str, clock: ManualClock) -> None:
    def new(key: str, digest: str = "") -> NewJob:
        return NewJob(queue="deliveries", key=key, kind="stripe", digest=digest)

    async with RedisStore(url, clock=clock) as store:
        again = [await store.jobs.add([new(key)]) for key in ("purged", "dead", "ignored")]
        same = [await store.jobs.add([new("done", "ab" * 32)]), await store.jobs.add([new("ready", "cd" * 32)])]
        other = await store.jobs.add([new("ready", "ab" * 32)])

        assert again == [[Added.DUPLICATE]] * 3
        assert same == [[Added.DUPLICATE]] * 2
        assert other == [Added.CONFLICT]


async def test_what_ended_is_purged_by_state_and_age(url: str, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock) as store:
        assert await store.jobs.purge(older_than=0, states=[JobState.DEAD]) == 1
        assert await store.jobs.purge(older_than=0) == 2

        left = {job.key for job in await store.jobs.list()}
        assert left == WORK.keys() - {"done", "dead", "ignored"}


async def test_a_keyspace_agrees_with_itself_when_it_was_opened(url: str, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock):
        assert await verify_store(url) == []


async def test_a_keyspace_is_brought_to_the_new_layout_once(url: str, server: RedisServer, clock: ManualClock) -> None:
    async with RedisStore(url, clock=clock) as store:
        namespace = store._engine.address.namespace
        await store.jobs.complete((await store.jobs.claim(["deliveries"], owner="new", limit=1, lease=60))[0])

    async with RedisStore(url, clock=clock) as store:
        assert server.ask("HGET", f"{namespace}:schema", "version") == b"2"
        assert {job.key for job in await store.jobs.list(JobFilter(state=JobState.DONE))} >= {"done"}
