"""A job that comes alone goes straight to a worker that waits: never twice, never lost, never out of turn."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from holdfast.clock import SystemClock
from holdfast.errors import LeaseLost, StoreUnavailable
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.stores import Added, Job, JobState, NewJob, redis_facts
from holdfast.stores.backup import verify_store
from holdfast.stores.redis import RedisStore
from holdfast.stores.store import HandsOver
from holdfast.telemetry import Telemetry
from tests.servers.redis import RedisServer

LONG = 1000.0
"""Seconds nobody waits in full."""
PATIENCE = 60
"""Seconds after which a test has failed."""


def new(key: str, **facts: Any) -> NewJob:
    return replace(NewJob(queue="deliveries", key=key, kind="stripe"), **facts)


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by itself after a while."""
    monkeypatch.setattr(redis_facts, "RECHECK", 10**6)


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return f"{redis_server.store_url}&namespace={uuid4().hex}"


@pytest.fixture
async def store(url: str) -> AsyncGenerator[RedisStore]:
    """Of whoever works."""
    async with RedisStore(url) as store:
        yield store


@pytest.fixture
async def other(url: str) -> AsyncGenerator[RedisStore]:
    """Of another process."""
    async with RedisStore(url) as store:
        yield store


async def claim(store: RedisStore, owner: str = "other") -> Sequence[Job]:
    return await store.jobs.claim(["deliveries"], owner=owner, limit=10, lease=60)


def take(store: RedisStore, *, timeout: float = LONG, queues: Sequence[str] = ("deliveries",)) -> Any:
    return store.jobs.take_next(queues, owner="worker", lease=60, timeout=timeout)


@asynccontextmanager
async def waiting(store: RedisStore) -> AsyncGenerator["asyncio.Task[Sequence[Job]]"]:
    """One who found nothing, and whose wait is known to the server."""
    assert await claim(store, "worker") == []
    task = asyncio.ensure_future(take(store))
    await asyncio.sleep(0)
    await store.jobs.count()  # answered behind what the wait asked
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(PATIENCE):
            yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def waits(server: RedisServer, store: RedisStore) -> bool:
    """Whether the server knows of anyone who takes the next job."""
    fields = server.ask("HKEYS", f"{{{store._engine.address.namespace}:0}}:misc")
    return any(field.startswith(b"waiting ") for field in fields)


async def test_a_job_that_comes_alone_is_leased_to_who_waits(store: RedisStore, other: RedisStore, url: str) -> None:
    assert isinstance(store.jobs, HandsOver)
    async with waiting(store) as taking:
        given = new("a", body=b"\x97body", headers={"x": "y"}, digest="ab" * 32, ordering_key="k", handler="h")
        assert await other.jobs.add([given]) == [Added.NEW]
        [job] = await taking

    assert (job.key, job.body, job.headers, job.ordering_key, job.handler) == ("a", b"\x97body", {"x": "y"}, "k", "h")
    assert (job.state, job.token, job.attempts, job.losses, job.arrivals) == (JobState.LEASED, 1, 0, 0, 1)
    assert await other.jobs.get(job.id) == job
    assert await claim(other) == []
    assert await store.jobs.heartbeat([job], lease=60) == set()
    await store.jobs.complete(job)
    assert await store.jobs.count() == {("deliveries", JobState.DONE): 1}
    assert await verify_store(url) == []


async def test_it_is_recognised_when_it_comes_again(store: RedisStore, other: RedisStore, url: str) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a", digest="1")])
        [job] = await taking

    assert await other.jobs.add([new("a", digest="1")]) == [Added.DUPLICATE]
    assert await other.jobs.add([new("a", digest="2")]) == [Added.CONFLICT]
    await store.jobs.complete(job)
    found = await store.jobs.get(job.id)
    assert (found.state, found.arrivals, found.conflicts) == (JobState.DONE, 3, 1)
    assert await verify_store(url) == []


async def test_the_next_one_of_its_ordering_key_waits_for_its_end(store: RedisStore, other: RedisStore) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("first", ordering_key="k")])
        [first] = await taking

    async with waiting(store) as taking:
        await other.jobs.add([new("second", ordering_key="k")])
        assert await claim(other) == []
        await store.jobs.complete(first)
        assert [job.key for job in await claim(other)] == ["second"]


async def test_what_was_due_before_goes_before(store: RedisStore, other: RedisStore) -> None:
    await other.jobs.add([new("retried")])
    [job] = await claim(other)

    async with waiting(store) as taking:
        await other.jobs.retry(job, after=0, error="")
        await other.jobs.add([new("new")])
        assert await taking == []

    assert [(job.key, job.token) for job in await claim(store)] == [("retried", 2), ("new", 1)]


async def test_what_came_since_the_claim_goes_before(store: RedisStore, other: RedisStore) -> None:
    assert await claim(store, "worker") == []
    await other.jobs.add([new("first")])
    with store.jobs._handovers.expected() as handover:
        offer = store.jobs._handovers.offer(handover, ["deliveries"], owner="worker", lease=60, timeout=LONG)
        await store.jobs._outlook(await store.now(), offer)

        await other.jobs.add([new("second")])

    assert [(job.key, job.token) for job in await claim(store)] == [("first", 1), ("second", 1)]


async def test_jobs_that_come_together_wake_and_are_claimed(store: RedisStore, other: RedisStore) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a"), new("b")])
        assert await taking == []

    assert [job.key for job in await claim(store)] == ["a", "b"]


@pytest.mark.parametrize("facts", [{"delay": 60}, {"ignored": True}, {"queue": "events"}], ids=str)
async def test_what_may_not_begin_there_now_is_not_handed_over(
    store: RedisStore, other: RedisStore, facts: dict[str, Any]
) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a", **facts)])
        assert await taking == [] if taking.done() else True

    [job] = await other.jobs.list()
    assert job.state in (JobState.READY, JobState.IGNORED)


async def test_what_the_same_process_adds_wakes_it(store: RedisStore) -> None:
    async with waiting(store) as taking:
        await store.jobs.add([new("a")])
        assert await taking == []

    assert [job.losses for job in await claim(store)] == [0]


async def test_who_waited_takes_one_only(store: RedisStore, other: RedisStore) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a")])
        await other.jobs.add([new("b")])
        assert [job.key for job in await taking] == ["a"]

    assert [job.key for job in await claim(other)] == ["b"]


async def test_of_two_who_wait_one_has_it(store: RedisStore, other: RedisStore, url: str) -> None:
    async with RedisStore(url) as second, waiting(store) as one, waiting(second) as two:
        await other.jobs.add([new("a")])
        done, _ = await asyncio.wait([one, two], return_when=asyncio.FIRST_COMPLETED)

        assert [job.key for task in done for job in await task] == ["a"]
        assert await claim(other) == []


async def test_one_that_comes_too_late_is_given_back_at_no_loss(
    store: RedisStore, other: RedisStore, redis_server: RedisServer
) -> None:
    # given a wait that ended and that the server still knows of
    async with waiting(store) as taking:
        taking.cancel()
    assert waits(redis_server, store)

    await other.jobs.add([new("a")])
    async with asyncio.timeout(PATIENCE):
        while not (jobs := await claim(other)):
            await other.jobs.wait(LONG)

    assert [(job.key, job.token, job.attempts, job.losses) for job in jobs] == [("a", 2, 0, 0)]


async def test_one_that_was_lost_on_the_way_comes_back_at_no_loss(store: RedisStore, other: RedisStore) -> None:
    # given a job that was sent, and never came
    take_it, store._engine.take = store._engine.take, None
    async with waiting(store):
        await other.jobs.add([new("a")])
        assert await claim(other) == []
    store._engine.take = take_it

    # when it waits once more
    assert await claim(store) == []
    async with asyncio.timeout(PATIENCE):
        assert await take(store) == []

    assert [(job.key, job.attempts, job.losses) for job in await claim(store)] == [("a", 0, 0)]


async def test_one_that_came_is_not_taken_for_lost(store: RedisStore, other: RedisStore) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a")])
        [job] = await taking

    async with waiting(store):
        assert await store.jobs.heartbeat([job], lease=60) == set()
        await store.jobs.complete(job)


async def test_a_job_that_was_given_back_is_fenced(store: RedisStore, other: RedisStore) -> None:
    async with waiting(store) as taking:
        await other.jobs.add([new("a")])
        [job] = await taking

    assert await other.jobs.release("worker") == 1
    with pytest.raises(LeaseLost):
        await store.jobs.complete(job)


async def test_nothing_goes_to_who_does_not_listen_any_more(
    store: RedisStore, other: RedisStore, redis_server: RedisServer
) -> None:
    async with waiting(store):
        [listener] = [
            line.split()[0].removeprefix("id=")
            for line in redis_server.ask("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
            if line
        ][-1:]
        redis_server.ask("CLIENT", "KILL", "ID", listener)
        await other.jobs.add([new("a")])

        assert [(job.key, job.token) for job in await claim(other)] == [("a", 1)]


async def test_nothing_goes_to_whoever_waited_before_a_claim_or_a_release(
    store: RedisStore, other: RedisStore, redis_server: RedisServer
) -> None:
    for over in (claim(store), store.jobs.release("worker")):
        async with waiting(store):
            assert waits(redis_server, store)
            await over
            assert not waits(redis_server, store)


async def test_a_wait_that_is_over_takes_nothing(store: RedisStore, other: RedisStore) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await claim(store) == []
        assert await take(store, timeout=0.001) == []
        over = await other.now() + timedelta(seconds=0.01)
        while await other.now() <= over:
            """The server's time goes on."""

    await other.jobs.add([new("a")])

    assert [job.token for job in await claim(other)] == [1]


async def test_a_wait_that_fails_gives_back_what_came(
    store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*arguments: Any, **options: Any) -> None:
        await call(*arguments, **options)
        await other.jobs.add([new("a")])
        await came.wait()
        raise StoreUnavailable("the answer is missing")

    came = asyncio.Event()
    take_it, call = store._engine.take, store.jobs._call
    assert take_it is not None

    def comes(data: bytes) -> None:
        take_it(data)
        came.set()

    assert await claim(store) == []
    store._engine.take = comes
    with monkeypatch.context() as patch:
        patch.setattr(store.jobs, "_call", fails)
        with pytest.raises(StoreUnavailable):
            await take(store)

    async with asyncio.timeout(PATIENCE):
        while not (jobs := await claim(other)):
            await other.jobs.wait(LONG)
    assert [(job.key, job.token, job.losses) for job in jobs] == [("a", 2, 0)]


async def test_an_old_question_that_is_late_takes_nothing_away(store: RedisStore, other: RedisStore) -> None:
    # given a job that went to a wait, and one wait of before, of which the server hears only now
    with store.jobs._handovers.expected() as before:
        late = store.jobs._handovers.offer(before, ["deliveries"], owner="worker", lease=60, timeout=LONG)
    async with waiting(store) as taking:
        await other.jobs.add([new("a")])
        [job] = await taking

    await store.jobs._outlook(await store.now(), late)

    await store.jobs.complete(job)


async def test_two_who_wait_in_one_process_take_nothing_from_each_other(store: RedisStore, other: RedisStore) -> None:
    # given a job on its way to one of them
    on_its_way: list[bytes] = []
    take_it = store._engine.take
    assert take_it is not None
    store._engine.take = on_its_way.append
    async with waiting(store) as one:
        await other.jobs.add([new("a")])
        async with waiting(store):
            while not on_its_way:
                await store.jobs.count()
            take_it(on_its_way[0])
            [job] = await one

    await store.jobs.complete(job)


async def test_who_waits_for_several_queues_takes_one_job(
    store: RedisStore, other: RedisStore, redis_server: RedisServer
) -> None:
    queues = ["events", "deliveries", "calls"]
    assert await store.jobs.claim(queues, owner="worker", limit=1, lease=60) == []
    async with asyncio.timeout(PATIENCE):
        taking = asyncio.ensure_future(take(store, queues=queues))
        while not waits(redis_server, store):
            await other.jobs.count()
        await other.jobs.add([new("a")])

        assert not waits(redis_server, store)
        assert [job.key for job in await taking] == ["a"]


async def test_what_others_say_on_its_channel_is_left_out(
    store: RedisStore, other: RedisStore, redis_server: RedisServer
) -> None:
    async with waiting(store) as taking:
        channel = store._engine.key("ready", store._engine.origin)
        for said in ("", "nobody", "1 ", "1 short", "x" * 100):
            assert redis_server.ask("PUBLISH", channel, said) == 1

        await other.jobs.add([new("a")])
        assert [job.key for job in await taking] == ["a"]


async def test_with_several_partitions_everything_is_claimed(url: str) -> None:
    url = f"{url}&partitions=2"
    async with RedisStore(url) as store, RedisStore(url) as other, waiting(store) as taking:
        await other.jobs.add([new("a")])
        assert await taking == []

        assert [job.key for job in await claim(store)] == ["a"]


async def test_what_is_to_be_confirmed_first_is_claimed(
    store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store._engine), "confirms", True)
    async with waiting(store) as taking:
        await other.jobs.add([new("a")])
        assert await taking == []

    assert [job.key for job in await claim(store)] == ["a"]


def worker(store: RedisStore, did: list[str], *, owner: str, idle: float) -> Worker:
    async def perform(job: Job) -> Result:
        did.append(job.key)
        return "done"

    return Worker(
        store.jobs,
        perform,
        queues=["deliveries"],
        owner=owner,
        clock=SystemClock(),
        chance=Random(1),
        telemetry=Telemetry(),
        options=WorkerOptions(idle=idle),
    )


async def all_are_done(store: RedisStore, jobs: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await store.jobs.count() != {("deliveries", JobState.DONE): jobs}:
            """They are being done."""


async def test_a_worker_that_waits_begins_what_comes_without_a_claim(
    store: RedisStore, other: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: Any, **options: Any) -> None:
        await asyncio.get_running_loop().create_future()

    did: list[str] = []
    working = asyncio.ensure_future(worker(store, did, owner="worker", idle=LONG).run())
    async with asyncio.timeout(PATIENCE):
        while not waits(redis_server, store):
            await other.jobs.count()
    monkeypatch.setattr(store.jobs, "claim", never)

    await other.jobs.add([new("a")])
    await all_are_done(other, 1)

    assert did == ["a"]
    working.cancel()
    await asyncio.wait([working])
    assert not waits(redis_server, store)


async def test_workers_do_each_of_many_jobs_once_and_in_order(store: RedisStore, other: RedisStore, url: str) -> None:
    did: list[str] = []
    async with RedisStore(url) as second:
        working = [
            asyncio.ensure_future(worker(each, did, owner=f"{number}", idle=0.05).run())
            for number, each in enumerate((store, second))
        ]
        for number in range(300):
            await other.jobs.add([new(str(number), ordering_key=str(number % 7) if number % 3 else "")])
            if number % 5 == 0:
                await all_are_done(other, number + 1)
        await all_are_done(other, 300)
        for task in working:
            task.cancel()
        await asyncio.wait(working)

    assert sorted(did, key=int) == [str(number) for number in range(300)]
    for key in range(7):
        of_key = [int(each) for each in did if int(each) % 3 and int(each) % 7 == key]
        assert of_key == sorted(of_key)
    assert await verify_store(url) == []
