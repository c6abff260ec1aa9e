"""Calls that many callers share: each gets its own answer, and none stands for another."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.errors import LeaseLost, StoreUnavailable
from holdfast.stores import Added, Job, JobState, NewJob
from holdfast.stores.redis import RedisStore
from tests.servers.redis import RedisServer


def new(key: str, **facts: Any) -> NewJob:
    return replace(NewJob(queue="deliveries", key=key, kind="stripe"), **facts)


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return f"{redis_server.store_url}&namespace={uuid4().hex}"


@pytest.fixture
async def store(url: str) -> AsyncGenerator[RedisStore]:
    async with RedisStore(url) as store:
        yield store


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    """A server nobody else uses."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def claim(store: RedisStore, limit: int = 9000) -> list[Job]:
    return await store.jobs.claim(["deliveries"], owner="a", limit=limit, lease=60)


def scripts_run(server: RedisServer) -> int:
    statistics = server.ask("INFO", "commandstats")
    return sum(statistics.get(name, {"calls": 0})["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval"))


async def test_what_callers_do_in_one_turn_is_a_few_scripts(server: RedisServer) -> None:
    async with RedisStore(server.store_url) as store:
        await store.jobs.add([new("before")])
        await store.jobs.complete((await claim(store))[0])
        before = scripts_run(server)

        await asyncio.gather(*(store.jobs.add([new(str(number))]) for number in range(200)))
        jobs = await claim(store)
        await asyncio.gather(*(store.jobs.complete(job) for job in jobs))

        assert scripts_run(server) - before < 40
        assert await store.jobs.count() == {("deliveries", JobState.DONE): 201}


async def test_each_caller_learns_what_became_of_its_own(store: RedisStore) -> None:
    await store.jobs.add([new("known", digest="1")])

    answers = await asyncio.gather(
        store.jobs.add([new("a")]),
        store.jobs.add([new("known", digest="1"), new("b"), new("a")]),
        store.jobs.add([new("known", digest="2")]),
        store.jobs.add([new("c"), new("d")]),
    )

    assert [*answers] == [
        [Added.NEW],
        [Added.DUPLICATE, Added.NEW, Added.DUPLICATE],
        [Added.CONFLICT],
        [Added.NEW, Added.NEW],
    ]
    assert [job.key for job in await claim(store)] == ["known", "a", "b", "c", "d"]


async def test_the_same_key_of_many_callers_is_new_to_one(store: RedisStore) -> None:
    answers = await asyncio.gather(*(store.jobs.add([new("a")]) for _ in range(50)))

    assert Counter(answer for [answer] in answers) == {Added.NEW: 1, Added.DUPLICATE: 49}
    [job] = await claim(store)
    assert job.arrivals == 50


async def test_a_lost_lease_is_lost_to_its_holder_only(store: RedisStore) -> None:
    await store.jobs.add([new(str(number)) for number in range(9)])
    jobs = await claim(store)
    zombies = [replace(job, token=job.token - 1) if number % 3 == 0 else job for number, job in enumerate(jobs)]

    results = await asyncio.gather(*(store.jobs.complete(job) for job in zombies), return_exceptions=True)

    assert [isinstance(result, LeaseLost) for result in results] == [number % 3 == 0 for number in range(9)]
    assert await store.jobs.count() == {("deliveries", JobState.DONE): 6, ("deliveries", JobState.LEASED): 3}


async def test_a_job_ends_once_however_many_end_it_at_once(store: RedisStore) -> None:
    await store.jobs.add([new("a")])
    [job] = await claim(store)

    ended = await asyncio.gather(*(store.jobs.complete(job) for _ in range(3)), return_exceptions=True)
    given_back = await asyncio.gather(store.jobs.retry(job, after=0, error=""), return_exceptions=True)

    assert Counter(type(result) for result in [*ended, *given_back]) == {type(None): 1, LeaseLost: 3}


async def test_one_call_may_hold_more_than_a_script_can_hand_over_at_once(store: RedisStore) -> None:
    jobs = [new(str(number), ordering_key=str(number) if number % 2 else "") for number in range(5000)]

    assert await store.jobs.add(jobs) == [Added.NEW] * 5000
    claimed = await claim(store)
    assert [job.key for job in claimed] == [job.key for job in jobs]
    assert await store.jobs.heartbeat(claimed, lease=60) == set()
    assert await store.jobs.release("a") == 5000
    assert await store.jobs.count() == {("deliveries", JobState.READY): 5000}


async def test_what_was_claimed_before_the_server_went_away_comes_back(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisStore(server.store_url) as store:
        await store.jobs.add([new(f"{number:03}") for number in range(250)])
        claim_some = store.jobs._claim_some

        async def and_die(*arguments: Any) -> Any:
            jobs = await claim_some(*arguments)
            server.kill()
            return jobs

        monkeypatch.setattr(store.jobs, "_claim_some", and_die)
        claimed = await claim(store)

        assert [job.key for job in claimed] == [f"{number:03}" for number in range(100)]
        with pytest.raises(StoreUnavailable):
            await claim(store)


async def test_what_was_asked_for_is_answered_before_the_store_closes(url: str) -> None:
    async with RedisStore(url) as store:
        adding = [asyncio.ensure_future(store.jobs.add([new(str(number))])) for number in range(100)]
        await asyncio.sleep(0)

    assert [await each for each in adding] == [[Added.NEW]] * 100


async def test_who_shares_a_refused_call_is_refused(server: RedisServer) -> None:
    async with RedisStore(server.store_url) as store:
        await store.jobs.add([new("before")])
        server.ask("CONFIG", "SET", "maxmemory", 1)

        # A duplicate alone frees a little, which must not let the others in.
        keys = ("before", "one", "two")
        refused = await asyncio.gather(*(store.jobs.add([new(key)]) for key in keys), return_exceptions=True)

        assert [type(error) for error in refused] == [StoreUnavailable] * 3
        server.ask("CONFIG", "SET", "maxmemory", 0)
        assert [job.arrivals for job in await store.jobs.list()] == [1]


async def test_a_server_that_goes_away_fails_what_is_under_way_and_nothing_else(server: RedisServer) -> None:
    async with RedisStore(server.store_url) as store:
        await store.jobs.add([new("before")])
        server.freeze()
        adding = [asyncio.ensure_future(store.jobs.add([new(f"{number}")])) for number in range(100)]
        await asyncio.sleep(0)
        server.kill()

        results = await asyncio.gather(*adding, return_exceptions=True)
        server.start()

        assert {type(result) for result in results} == {StoreUnavailable}
        answers = await asyncio.gather(*(store.jobs.add([new(f"{number}")]) for number in range(100)))
        assert {answer for [answer] in answers} <= {Added.NEW, Added.DUPLICATE}
        assert await store.jobs.count() == {("deliveries", JobState.READY): 101}


async def test_a_job_that_waits_takes_up_little_more_than_what_it_carries(server: RedisServer) -> None:
    async with RedisStore(server.store_url) as store:
        before = server.ask("INFO", "memory")["used_memory"]
        body = b"x" * 1500
        for begin in range(0, 2000, 100):
            await store.jobs.add([new(str(number), body=body, digest="a" * 64) for number in range(begin, begin + 100)])

        grown = server.ask("INFO", "memory")["used_memory"] - before

        assert grown < 1.35 * 1500 * 2000
        assert server.ask("HLEN", "{holdfast:0}:job") == 0
