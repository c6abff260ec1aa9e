"""What only a server can go through: crashes, full memory, lost answers, other versions, other settings."""

import asyncio
import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import redis

from holdfast.errors import ConfigurationError, MissingExtra, SchemaTooNew, StoreError, StoreUnavailable
from holdfast.stores import Added, Draft, Job, JobState, NewJob, open_store, redis_facts
from holdfast.stores import redis_scripts as scripts
from holdfast.stores.redis import RedisStore
from holdfast.stores.redis_address import Durability, parse
from holdfast.stores.redis_doctor import Settings, findings
from holdfast.stores.redis_errors import ERRORS
from tests.servers.ports import LOOPBACK, free_port
from tests.servers.redis import RedisServer, valkey

T = TypeVar("T")
PASSWORD = "hunter2"  # of nothing


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
    """A server of the test's own, which it may break."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """What it answers, once it answers in time again."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await ask()


async def claim(store: RedisStore, limit: int = 100) -> list[Job]:
    return await store.jobs.claim(["deliveries"], owner="a", limit=limit, lease=60)


class TestTrouble:
    async def test_a_crash_loses_nothing_acknowledged_and_the_store_goes_on(self, server: RedisServer) -> None:
        async with RedisStore(server.store_url) as store:
            for number in range(50):
                await store.jobs.add([new(str(number))])

            server.kill()
            with pytest.raises(StoreUnavailable):
                await store.jobs.add([new("while it was down")])
            server.start()

            assert await store.jobs.add([new("0"), new("afterwards")]) == [Added.DUPLICATE, Added.NEW]
            assert await store.jobs.count() == {("deliveries", JobState.READY): 51}

    async def test_a_listener_hears_again_after_a_crash(self, server: RedisServer) -> None:
        async with RedisStore(server.store_url) as store, asyncio.timeout(30), store.bus.listen("circuit") as facts:
            server.kill()
            server.start()
            heard = asyncio.ensure_future(anext(facts))
            while not heard.done():
                await store.bus.publish("circuit", {"open": True})
                await asyncio.wait([heard], timeout=0.1)

            assert await heard == {"open": True}

    async def test_a_server_that_does_not_answer_is_unavailable_in_time(self, server: RedisServer) -> None:
        async with RedisStore(f"{server.url}?timeout=1") as store:
            server.freeze()
            try:
                async with asyncio.timeout(30):
                    with pytest.raises(StoreUnavailable):
                        await store.leases.acquire("sweep", owner="a", ttl=10)
            finally:
                server.thaw()

            assert await answered(lambda: store.leases.acquire("sweep", owner="a", ttl=10))

    async def test_a_first_claim_does_not_wait_for_ever(self, server: RedisServer) -> None:
        async with RedisStore(f"{server.url}?timeout=1") as store:
            server.freeze()
            try:
                async with asyncio.timeout(30):
                    with pytest.raises(StoreUnavailable):
                        await claim(store)
            finally:
                server.thaw()

            assert await answered(lambda: claim(store)) == []

    async def test_what_others_say_on_our_channel_is_left_out(
        self, store: RedisStore, redis_server: RedisServer, url: str
    ) -> None:
        async with store.bus.listen("circuit") as facts, asyncio.timeout(30):
            for said in ("hello", "[]", '"circuit"', "7"):
                redis_server.ask("PUBLISH", f"{parse(url).namespace}:facts", said)
            await store.bus.publish("circuit", {"open": True})

            assert await anext(facts) == {"open": True}

    async def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        store = RedisStore(f"redis://{LOOPBACK}:{free_port()}")

        with pytest.raises(StoreUnavailable):
            await store.__aenter__()
        with pytest.raises(StoreUnavailable):
            await store.__aenter__()

    async def test_a_lost_answer_is_not_asked_for_again(self, redis_server: RedisServer, url: str) -> None:
        async with Wire(redis_server.port) as wire, RedisStore(url.replace(str(redis_server.port), wire.port)) as store:
            await store.jobs.add([new("before")])
            await store.counters.add("spent", 1, window=60)

            wire.lose_next = True
            with pytest.raises(StoreUnavailable):
                await store.jobs.add([new("lost", digest="1")])
            await store.counters.total("spent", window=60)
            wire.lose_next = True
            with pytest.raises(StoreUnavailable):
                await store.counters.add("spent", 1, window=60)

            assert await store.counters.total("spent", window=60) == 2
            assert await store.jobs.add([new("lost", digest="1")]) == [Added.DUPLICATE]
            [lost, _] = await store.jobs.list()
            assert lost.arrivals == 2

    async def test_a_cancelled_caller_breaks_nothing(self, store: RedisStore) -> None:
        kept, cancelled = (asyncio.ensure_future(store.jobs.add([new(key)])) for key in ("kept", "cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()

        assert await kept == [Added.NEW]
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await store.jobs.add([new("kept")]) == [Added.DUPLICATE]

    async def test_scripts_that_were_forgotten_are_sent_again(
        self, store: RedisStore, redis_server: RedisServer
    ) -> None:
        await store.jobs.add([new("a")])

        redis_server.ask("SCRIPT", "FLUSH")

        assert await store.jobs.add([new("a"), new("b")]) == [Added.DUPLICATE, Added.NEW]
        assert [job.key for job in await claim(store)] == ["a", "b"]

    async def test_a_full_server_takes_nothing_and_still_lets_work_end(self, server: RedisServer) -> None:
        async with RedisStore(server.store_url) as store:
            await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k"), new("third")])
            first, third = await claim(store)
            server.ask("CONFIG", "SET", "maxmemory", 1)

            with pytest.raises(StoreUnavailable):
                await store.jobs.add([new("fourth")])
            with pytest.raises(StoreUnavailable):
                await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[new("fourth")])
            assert await store.jobs.heartbeat([first, third], lease=60) == set()
            await store.jobs.complete(first)
            await store.jobs.retry(third, after=0, error="late")
            [second, again] = await claim(store)

            assert (second.key, again.key, again.attempts) == ("second", "third", 1)
            server.ask("CONFIG", "SET", "maxmemory", 0)
            assert await store.records.get("payment", "a") is None
            assert await store.jobs.add([new("fourth")]) == [Added.NEW]

    def test_every_error_of_redis_has_a_meaning_here(self) -> None:
        named = inspect.getmembers(redis.exceptions, inspect.isclass)
        errors = {
            error for _, error in named if issubclass(error, Exception) and error.__module__ == "redis.exceptions"
        }

        assert len(errors) > 30
        assert errors <= set(ERRORS)


class Wire:
    """Between a store and its server; it can lose an answer, and the connection with it."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._connections: set[asyncio.Task[Any] | None] = set()
        self.lose_next = False

    async def __aenter__(self) -> "Wire":
        self._listener = await asyncio.start_server(self._connect, LOOPBACK, 0)
        self.port = str(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listener.close()
        await asyncio.gather(*filter(None, self._connections))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.current_task())
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self._server_port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
            while data := await source.read(65536):
                if answers and self.lose_next:
                    self.lose_next = False
                    break
                sink.write(data)
            writer.close()
            server_writer.close()

        async with asyncio.TaskGroup() as both:
            both.create_task(pump(reader, server_writer, answers=False))
            both.create_task(pump(server_reader, writer, answers=True))


class TestPasswords:
    @pytest.fixture
    def guarded(self, tmp_path: Path) -> Generator[RedisServer]:
        with RedisServer(tmp_path / "redis") as server:
            server.ask("CONFIG", "SET", "requirepass", PASSWORD)
            try:
                yield server
            finally:
                server.kill()

    async def test_the_right_one_opens(self, guarded: RedisServer) -> None:
        async with RedisStore(f"redis://:{PASSWORD}@{LOOPBACK}:{guarded.port}") as store:
            assert await store.jobs.add([new("a")]) == [Added.NEW]

    @pytest.mark.parametrize("login", ["", ":wrong-hunter2@", "shop:wrong-hunter2@"])
    async def test_a_wrong_one_is_refused_without_repeating_it(self, guarded: RedisServer, login: str) -> None:
        with pytest.raises(StoreUnavailable) as raised:
            await RedisStore(f"redis://{login}{LOOPBACK}:{guarded.port}").__aenter__()

        assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r}"

    async def test_what_the_server_repeats_of_it_is_left_out(self) -> None:
        async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(65536)
            writer.write(b"-ERR unknown command 'AUTH', with args beginning with: %r\r\n" % data)
            writer.close()

        async with await asyncio.start_server(parrot, LOOPBACK, 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(StoreError) as raised:
                await RedisStore(f"redis://:{PASSWORD}@{LOOPBACK}:{port}").__aenter__()

        assert PASSWORD not in f"{raised.value!r} {raised.value.__cause__!r}"
        assert raised.value.__suppress_context__

    async def test_it_is_in_no_repr(self, redis_server: RedisServer) -> None:
        store = RedisStore(f"redis://shop:{PASSWORD}@{LOOPBACK}:{redis_server.port}")

        shown = [store, vars(store), *vars(store).values(), vars(store._engine), store._engine.address]

        assert PASSWORD not in repr(shown) + str(store._engine.address)


class TestUrls:
    def test_it_says_everything(self) -> None:
        address = parse(
            "rediss://shop:p%40ss@db.example:6380/3?durability=fsync&namespace=shop&partitions=4&timeout=0.5"
        )

        assert (address.hosts, address.database) == ((("db.example", 6380),), 3)
        assert (address.tls, address.cluster) == (True, False)
        assert (address.username, address.password) == ("shop", "p@ss")
        assert (address.namespace, address.partitions) == ("shop", 4)
        assert (address.durability, address.timeout) == (Durability.FSYNC, 0.5)

    def test_its_defaults(self) -> None:
        address = parse("redis://db")

        assert (address.hosts, address.database, address.partitions) == ((("db", 6379),), 0, 1)
        assert (address.durability, address.timeout) == (Durability.ASYNC, 2.0)

    def test_a_cluster_has_several_hosts_and_partitions(self) -> None:
        address = parse("redis+cluster://:secret@a:1,[::1]:2,c")

        assert address.cluster
        assert address.hosts == (("a", 1), ("::1", 2), ("c", 6379))
        assert address.partitions == 16

    @pytest.mark.parametrize(
        "url",
        [
            "redis://",
            "redis://:hunter2@",
            "redis://:hunter2@a,b",
            "redis://:hunter2@a:port",
            "redis://:hunter2@a/first",
            "redis://:hunter2@a?timeout=0",
            "redis://:hunter2@a?timeout=hunter2",
            "redis://:hunter2@a?durability=hunter2",
            "redis://:hunter2@a?hunter2=1",
            "redis://:hunter2@a?namespace={hunter2}",
            "redis://:hunter2@a?partitions=0",
            "redis+cluster://:hunter2@a/1",
        ],
    )
    def test_what_cannot_be_right_is_refused_without_repeating_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as raised:
            open_store(url)

        assert "hunter2" not in str(raised.value)

    def test_redis_is_imported_by_its_url_only(self) -> None:
        script = "import sys, holdfast, holdfast.stores; assert 'redis' not in sys.modules"

        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_without_the_package_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith(("redis.", "holdfast.stores.redis"))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "redis", None)

        with pytest.raises(MissingExtra, match=r"holdfast\[redis\]"):
            open_store("redis://db")


class TestVersions:
    async def test_a_newer_schema_is_refused(self, redis_server: RedisServer, url: str) -> None:
        namespace = parse(url).namespace
        redis_server.ask("HSET", f"{namespace}:schema", "version", 99, "partitions", 1)

        with pytest.raises(SchemaTooNew) as raised:
            await RedisStore(url).__aenter__()

        assert (raised.value.found, raised.value.known) == (99, 2)

    async def test_the_partitions_of_a_keyspace_are_fixed_when_it_is_made(self, url: str) -> None:
        async with RedisStore(f"{url}&partitions=3") as store:
            await store.jobs.add([new(str(number)) for number in range(9)])

        async with RedisStore(f"{url}&partitions=5") as store:
            assert len(await claim(store)) == 9


def _calls(server: RedisServer, command: str) -> int:
    found = server.ask("INFO", "commandstats").get(f"cmdstat_{command}")
    return int(found["calls"]) if found else 0


class TestDurability:
    async def test_fsync_is_refused_where_nobody_can_promise_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"appendfsync always, or Redis 7\.2"):
            await RedisStore(f"{url}&durability=fsync").__aenter__()

    async def test_a_newer_server_says_when_its_disk_has_it(self, valkey_server: RedisServer) -> None:
        async with RedisStore(f"{valkey_server.store_url}&namespace={uuid4().hex}&durability=fsync") as store:
            before = _calls(valkey_server, "waitaof")
            assert await store.jobs.add([new("a")]) == [Added.NEW]

        assert _calls(valkey_server, "waitaof") > before

    async def test_what_is_on_no_disk_is_not_called_stored(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path / "valkey", program=valkey()) as server:
            async with RedisStore(f"{server.store_url}&durability=fsync") as store:
                server.ask("CONFIG", "SET", "appendonly", "no")

                with pytest.raises(StoreError, match="appendonly is disabled"):
                    await store.jobs.add([new("a")])

    async def test_fsync_is_refused_without_a_log(self, server: RedisServer) -> None:
        server.ask("CONFIG", "SET", "appendonly", "no")

        with pytest.raises(ConfigurationError, match="appendonly yes"):
            await RedisStore(f"{server.store_url}&durability=fsync").__aenter__()

    async def test_fsync_is_what_a_server_that_always_does_it_gives(self, server: RedisServer) -> None:
        server.ask("CONFIG", "SET", "appendfsync", "always")

        async with RedisStore(f"{server.store_url}&durability=fsync") as store:
            assert await store.jobs.add([new("a")]) == [Added.NEW]

    async def test_replicated_is_unavailable_without_a_replica_and_kept_with_one(
        self, server: RedisServer, tmp_path: Path
    ) -> None:
        async with RedisStore(f"{server.store_url}&durability=replicated&timeout=2") as store:
            with pytest.raises(StoreUnavailable, match="no replica"):
                await store.jobs.add([new("a")])

        with RedisServer(
            tmp_path / "replica", "--appendonly", "no", "--replicaof", LOOPBACK, str(server.port)
        ) as replica:
            while not server.ask("WAIT", 1, 100):
                """It copies what the server holds."""
            async with RedisStore(f"{server.store_url}&durability=replicated") as store:
                await store.jobs.add([new("b")])

            assert replica.ask("HLEN", "{holdfast:0}:key") == 2


class TestDoctor:
    async def test_it_says_what_to_change(self, server: RedisServer) -> None:
        async with RedisStore(server.store_url) as store:
            assert await store.doctor() == ["The server has no replica: when its disk is lost, everything is."]

            server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            server.ask("CONFIG", "SET", "appendfsync", "no")
            found = await store.doctor()

        assert [sentence.split()[0] for sentence in found] == ["maxmemory-policy", "appendfsync", "The"]

    def test_old_servers_and_missing_logs_are_named(self) -> None:
        bad = Settings(version=(5, 0), append_only=False, fsync="", eviction="noeviction", replicas=1)

        assert [sentence.split(",")[0].split(";")[0] for sentence in findings(bad)] == [
            "The server is Redis 5.0",
            "appendonly is off",
        ]


class TestPartitions:
    """Jobs that belong to another partition than what they were added with."""

    @pytest.fixture
    async def store(self, url: str) -> AsyncGenerator[RedisStore]:
        async with RedisStore(f"{url}&partitions=7") as store:
            yield store

    async def add_and_die(self, store: RedisStore, jobs: list[NewJob]) -> int:
        """Only the first step of an addition; where the jobs are kept."""
        arguments = store.jobs.arguments(jobs)
        here = int(arguments[0])
        await store.jobs._call(scripts.ADD, here, here, *arguments)
        return here

    async def test_whoever_claims_brings_what_the_dead_left(self, store: RedisStore) -> None:
        await self.add_and_die(store, [new(str(number)) for number in range(20)])
        await claim(store, limit=0)

        assert [job.key for job in await claim(store)] == [str(number) for number in range(20)]
        assert await store.jobs.count() == {("deliveries", JobState.LEASED): 20}

    async def test_whoever_waits_brings_what_the_dead_left(self, store: RedisStore) -> None:
        assert await claim(store) == []
        await self.add_and_die(store, [new(str(number)) for number in range(20)])
        async with asyncio.timeout(30):
            await store.jobs.wait(1000)

        assert await store.jobs.count() == {("deliveries", JobState.READY): 20}

    async def test_what_two_bring_at_once_is_added_once(self, store: RedisStore) -> None:
        jobs = [new(str(number)) for number in range(50)]

        here = await self.add_and_die(store, jobs)
        await asyncio.gather(*(store.jobs._carry_all(here) for _ in range(5)))

        listed = await store.jobs.list()
        assert Counter(job.key for job in listed) == Counter(job.key for job in jobs)
        assert {job.arrivals for job in listed} == {1}

    async def test_each_caller_learns_what_became_of_its_own(self, store: RedisStore) -> None:
        jobs = [new(str(number)) for number in range(30)]

        answers = await asyncio.gather(*(store.jobs.add(jobs) for _ in range(4)))

        became = Counter(zip([job.key for job in jobs] * 4, [one for each in answers for one in each], strict=True))
        assert {key for key, answer in became if answer is Added.NEW} == {job.key for job in jobs}
        assert max(count for (_, answer), count in became.items() if answer is Added.NEW) == 1

    async def test_a_purge_drops_the_oldest_of_all_partitions(self, store: RedisStore) -> None:
        await store.jobs.add([new(str(number)) for number in range(9)])
        for job in await claim(store):
            await store.jobs.complete(job)

        assert await store.jobs.purge(older_than=0, limit=6) == 6
        assert [job.key for job in await store.jobs.list()] == ["8", "7", "6"]

    async def test_a_record_and_its_jobs_are_kept_together_wherever_they_belong(self, store: RedisStore) -> None:
        for number in range(20):
            job = new(f"paid {number}", ordering_key=f"{number}")
            await store.records.apply("payment", str(number), 0, Draft(value={}), jobs=[job])

        assert [job.key for job in await claim(store)] == [f"paid {number}" for number in range(20)]


async def test_a_worker_is_woken_by_what_another_process_adds(
    store: RedisStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that does not look by itself after a while
    monkeypatch.setattr(redis_facts, "RECHECK", 1000)
    async with RedisStore(url) as other, asyncio.timeout(30):
        for key in ("first", "second"):
            await claim(store)
            waiting = asyncio.ensure_future(store.jobs.wait(1000))
            await asyncio.sleep(0)
            await store.jobs.count()  # behind its look at what there is, so that now it can only be told

            await other.jobs.add([new(key)])

            await waiting
            assert [job.key for job in await claim(store)] == [key]


async def test_a_job_that_came_since_the_claim_is_seen_behind_one_that_nobody_wanted(store: RedisStore) -> None:
    await store.jobs.add([new("of another queue", queue="events")])
    claimed_at = await store.now()
    await store.jobs.add([new("since", queue="events")])

    ahead = await store.jobs._outlook(claimed_at)

    assert ahead.overdue
    assert ahead.next is not None
    assert ahead.next > claimed_at


async def test_a_replayed_job_stays_behind_those_that_came_before_it(store: RedisStore) -> None:
    await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k")])
    ended: list[Job] = []
    while jobs := await claim(store):
        await store.jobs.complete(jobs[0])
        ended += jobs

    for job in ended:
        await store.jobs.replay(job.id)

    assert [job.key for job in ended] == ["first", "second"]
    assert [job.key for job in await claim(store)] == ["first"]


async def test_nothing_is_left_of_jobs_that_ended_but_what_deduplicates(
    store: RedisStore, redis_server: RedisServer, url: str
) -> None:
    await store.jobs.add([new(str(number), ordering_key=str(number % 7)) for number in range(100)])
    while jobs := await claim(store):
        for job in jobs:
            await store.jobs.complete(job)

    def left() -> dict[str, int]:
        tag = f"{{{parse(url).namespace}:0}}"
        hashes = {name: redis_server.ask("HLEN", f"{tag}:{name}") for name in ("job", "body", "key", "head", "count")}
        sets = {name: redis_server.ask("ZCARD", f"{tag}:{name}") for name in ("due", "held", "order", "rows", "ended")}
        return {name: size for name, size in (hashes | sets).items() if size}

    assert left().keys() == {"job", "body", "key", "count", "rows", "ended"}
    assert await store.jobs.purge(older_than=0) == 100
    assert left() == {}
    assert await store.jobs.add([new("1")]) == [Added.DUPLICATE]
    await store.jobs.purge(older_than=0)
    assert await store.jobs.add([new("1")]) == [Added.NEW]


async def test_leases_counters_and_slots_are_forgotten_by_themselves(
    store: RedisStore, redis_server: RedisServer, url: str
) -> None:
    await store.leases.acquire("sweep", owner="a", ttl=1)
    await store.counters.add("spent", 1, window=1)
    await store.counters.take("zoom", owner="a", slots=1, wanted=1, ttl=1)

    namespace = parse(url).namespace
    for name in ("lease:sweep", "sum:spent", "slots:zoom"):
        assert 0 < redis_server.ask("PTTL", f"{namespace}:{name}") <= 86_401_000


WORKER = """
import asyncio, os, sys
from holdfast.stores import open_store

async def main():
    url, owner, total, log = sys.argv[1], sys.argv[2], int(sys.argv[3]), os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND)

    async def work(store, job):
        os.write(log, f"begin {job.ordering_key} {job.key}\\n".encode())
        await asyncio.sleep(0)
        os.write(log, f"end {job.ordering_key} {job.key}\\n".encode())
        await store.jobs.complete(job)
        await store.counters.add("done", 1, window=600)

    async with open_store(url) as store:
        while await store.counters.total("done", window=600) < total:
            jobs = await store.jobs.claim(["deliveries"], owner=owner, limit=20, lease=30)
            await asyncio.gather(*(work(store, job) for job in jobs))

asyncio.run(main())
"""


@asynccontextmanager
async def worker(*arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_four_processes_do_each_of_2000_jobs_once_and_in_order(
    store: RedisStore, url: str, tmp_path: Path
) -> None:
    total, keys = 2000, 50
    for start in range(0, total, 100):
        await store.jobs.add([new(f"{n:04}", ordering_key=f"k{n % keys}") for n in range(start, start + 100)])
    log = tmp_path / "log"
    log.touch()

    async with asyncio.timeout(100), AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker(url, f"worker {n}", str(total), str(log))) for n in range(4)]
        codes = await asyncio.gather(*(each.wait() for each in workers))

    assert codes == [0] * 4
    assert await store.jobs.count() == {("deliveries", JobState.DONE): total}
    lines = log.read_text().splitlines()
    for key in range(keys):
        in_order = [f"{step} k{key} {n:04}" for n in range(key, total, keys) for step in ("begin", "end")]
        assert [line for line in lines if f" k{key} " in line] == in_order
