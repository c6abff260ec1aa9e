"""What only a server can go through: other processes, crashes, lost connections, other versions."""

import asyncio
import inspect
import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, run_state_machine_as_test
from psycopg import errors

from holdfast.clock import SystemClock
from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    InvalidInput,
    LeaseLost,
    SchemaTooNew,
    StoreUnavailable,
    VersionConflict,
)
from holdfast.stores import Added, Draft, Job, JobFilter, JobState, NewJob, open_store, postgres_connection
from holdfast.stores import postgres_signals as signals
from holdfast.stores.postgres import PostgresStore
from holdfast.stores.postgres_adding import add, lock, prepare
from holdfast.stores.postgres_connection import ERRORS, Address, Connection, select
from holdfast.stores.postgres_schema import FIRST, MIGRATIONS, migrate
from holdfast.stores.postgres_time import ServerTime
from holdfast.testing.clock import ManualClock
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.stores.test_jobs_model import Histories


def new(key: str, **facts: object) -> NewJob:
    return replace(NewJob(queue="deliveries", key=key, kind="stripe"), **facts)  # type: ignore[arg-type]


async def claim(store: PostgresStore, limit: int = 1000) -> list[Job]:
    return await store.jobs.claim(["deliveries"], owner="worker", limit=limit, lease=60)


async def keys(store: PostgresStore) -> list[str]:
    return [job.key for job in await store.jobs.list()]


async def setting(store: PostgresStore, name: str) -> str:
    [(value,)] = await store._engine.run(lambda connection: select(connection, "SELECT current_setting(%s)", [name]))
    return str(value)


@pytest.fixture
def schema() -> str:
    return f"s{uuid4().hex}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a lock that a test holds, or for a busy machine, is not told to give up."""
    monkeypatch.setitem(postgres_connection._REACH, "connect_timeout", 30)
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(postgres_connection._SETTINGS, name, "60s")


@pytest.fixture
def url(postgres_server: PostgresServer, schema: str) -> str:
    return f"{postgres_server.url}?schema={schema}"


@pytest.fixture
async def store(url: str) -> AsyncGenerator[PostgresStore]:
    async with PostgresStore(url) as store:
        yield store


@pytest.fixture
async def other(store: PostgresStore, url: str) -> AsyncGenerator[PostgresStore]:
    """Another process, as far as the database can tell."""
    async with PostgresStore(url) as other:
        yield other


class Held:
    """Holds a table, so that whoever writes to it waits, with its transaction open."""

    def __init__(self, url: str, schema: str, table: str) -> None:
        self._url = url
        self._table = f"{schema}.{table}"

    async def __aenter__(self) -> "Held":
        self._connection = await Address(self._url).connect()
        await self._connection.execute("BEGIN")
        await self._connection.execute(f"LOCK TABLE {self._table} IN EXCLUSIVE MODE".encode())
        return self

    async def somebody_waits(self) -> None:
        async with asyncio.timeout(30):
            while not await self._of_those_who_wait("pid"):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0)

    async def end_those_who_wait(self) -> None:
        await self._of_those_who_wait("pg_terminate_backend(pid, 10000)")

    async def __aexit__(self, *error: object) -> None:
        await self._connection.close()

    async def _of_those_who_wait(self, what: LiteralString) -> list[object]:
        query = f"SELECT {what} FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
        return list(await select(self._connection, query, [self._table]))


@pytest.fixture
def jobs_held(url: str, schema: str) -> Held:
    return Held(url, schema, "jobs")


class TestGroups:
    async def test_callers_share_a_commit_and_each_gets_its_own_answers(
        self, store: PostgresStore, jobs_held: Held, schema: str, postgres_server: PostgresServer
    ) -> None:
        await store.jobs.add([new("known", digest="1")])
        async with jobs_held:
            first = asyncio.create_task(store.jobs.add([new("first")]))
            await jobs_held.somebody_waits()
            rest = [
                asyncio.create_task(store.jobs.add(jobs))
                for jobs in (
                    [new("a"), new("known", digest="1")],
                    [],
                    [new("known", digest="2"), new("b", digest="1"), new("b", digest="2")],
                    [new("a")],
                )
            ]
            await asyncio.sleep(0)
        answers = await asyncio.gather(first, *rest)

        assert answers == [
            [Added.NEW],
            [Added.NEW, Added.DUPLICATE],
            [],
            [Added.CONFLICT, Added.NEW, Added.CONFLICT],
            [Added.DUPLICATE],
        ]
        counts = {job.key: (job.arrivals, job.conflicts) for job in await store.jobs.list()}
        assert counts == {"first": (1, 0), "known": (3, 1), "a": (2, 0), "b": (2, 1)}
        commits = f"SELECT count(DISTINCT xmin::text) FROM {schema}.payloads"
        assert postgres_server.execute(commits) == [(3,)]

    async def test_what_cannot_be_stored_does_not_undo_its_neighbours(
        self, store: PostgresStore, jobs_held: Held
    ) -> None:
        async with jobs_held:
            first = asyncio.create_task(store.jobs.add([new("first")]))
            await jobs_held.somebody_waits()
            rest = [
                asyncio.create_task(store.jobs.add(jobs))
                for jobs in ([new("before")], [new("with it"), new("wrong", delay=1e13)], [new("after")])
            ]
            await asyncio.sleep(0)
        results = await asyncio.gather(first, *rest, return_exceptions=True)

        assert isinstance(results[2], InvalidInput)
        assert sorted(await keys(store)) == ["after", "before", "first"]

    @pytest.mark.parametrize("wrong", ["\0", "\ud800"])
    async def test_what_no_text_holds_is_refused_before_anything_is_kept(
        self, store: PostgresStore, wrong: str
    ) -> None:
        for job in (new(wrong), new("a", kind=wrong), new("a", ordering_key=wrong), new("a", digest=wrong)):
            with pytest.raises(InvalidInput):
                await store.jobs.add([new("with it"), job])

        with pytest.raises(InvalidInput):
            await store.records.apply("payment", wrong, 0, Draft(value={}), jobs=[new("with it")])
        assert await keys(store) == []

    async def test_half_a_character_is_no_index_value(self, store: PostgresStore) -> None:
        with pytest.raises(InvalidInput):
            await store.records.apply("payment", "a", 0, Draft(value={}, index={"vendor": ["\ud800"]}))
        with pytest.raises(InvalidInput):
            await store.records.find("payment", "vendor", "\ud800")

    @pytest.mark.parametrize("wrong", ["\0", "\ud800"])
    async def test_an_error_in_any_words_is_kept(self, store: PostgresStore, wrong: str) -> None:
        await store.jobs.add([new("a")])
        [job] = await claim(store)

        await store.jobs.retry(job, after=0, error=f"vendor said {wrong}")

        assert (await store.jobs.get(job.id)).error.startswith("vendor said ")

    async def test_long_keys_are_kept(self, store: PostgresStore) -> None:
        long = "".join(uuid4().hex for _ in range(1000))
        await store.jobs.add([new(long, ordering_key=long)])
        await store.records.apply("payment", "a", 0, Draft(value={}, index={"vendor": [long]}))

        assert await store.jobs.add([new(long)]) == [Added.DUPLICATE]
        assert len(await store.records.find("payment", "vendor", long)) == 1
        with pytest.raises(InvalidInput):
            await store.records.apply("payment", long, 0, Draft(value={}))

    async def test_one_job_settled_twice_at_once_is_settled_once(self, store: PostgresStore, jobs_held: Held) -> None:
        await store.jobs.add([new("a"), new("b")])
        a, b = await claim(store)
        async with jobs_held:
            first = asyncio.create_task(store.jobs.complete(b))
            await jobs_held.somebody_waits()
            rest = [asyncio.create_task(store.jobs.complete(job)) for job in (a, a, replace(b, token=0))]
            await asyncio.sleep(0)
        results = await asyncio.gather(first, *rest, return_exceptions=True)

        assert [type(result) for result in results] == [type(None), type(None), LeaseLost, LeaseLost]


class TestTrouble:
    @pytest.mark.parametrize("table", ["keys", "payloads"])
    async def test_a_connection_lost_half_way_leaves_nothing_and_is_replaced(
        self, store: PostgresStore, url: str, schema: str, table: str
    ) -> None:
        async with Held(url, schema, table) as held:
            task = asyncio.create_task(store.records.apply("payment", "a", 0, Draft(value={}), jobs=[new("a")]))
            await held.somebody_waits()
            await held.end_those_who_wait()
            with pytest.raises(StoreUnavailable):
                await task

        assert await store.records.get("payment", "a") is None
        assert await keys(store) == []
        await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[new("a")])
        assert await keys(store) == ["a"]

    async def test_an_idle_connection_the_server_ended_is_replaced_unnoticed(
        self, store: PostgresStore, postgres_server: PostgresServer
    ) -> None:
        await store.jobs.add([new("a")])
        await claim(store)

        postgres_server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'holdfast'"
        )

        assert await store.jobs.add([new("b")]) == [Added.NEW]
        assert [job.key for job in await claim(store)] == ["b"]

    async def test_a_crash_of_the_server_loses_nothing_acknowledged(
        self, store: PostgresStore, postgres_server: PostgresServer
    ) -> None:
        acknowledged: list[str] = []
        numbers = iter(range(10**6))
        enough = asyncio.Event()

        async def ingest() -> None:
            for number in numbers:
                await store.jobs.add([new(str(number), body=bytes(1500))])
                acknowledged.append(str(number))
                if len(acknowledged) > 500:
                    enough.set()

        tasks = [asyncio.create_task(ingest()) for _ in range(10)]
        await enough.wait()
        await asyncio.to_thread(postgres_server.crash)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(StoreUnavailable):
            await store.jobs.count()
        await asyncio.to_thread(postgres_server.start)

        assert {type(result) for result in results} == {StoreUnavailable}
        kept = [job.key for job in await store.jobs.list(limit=10**6)]
        assert set(acknowledged) <= set(kept)
        assert await store.jobs.count() == {("deliveries", JobState.READY): len(kept)}
        assert len(await claim(store, limit=10**6)) == len(kept)

    async def test_a_cancelled_caller_leaves_no_transaction_open(
        self, store: PostgresStore, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        async with Held(url, schema, "jobs") as held:
            tasks = [
                asyncio.create_task(store.jobs.add([new("a", ordering_key="k")])),
                asyncio.create_task(store.records.apply("payment", "a", 0, Draft(value={}), jobs=[new("b")])),
                asyncio.create_task(store.jobs.claim(["deliveries"], owner="a", limit=1, lease=1)),
            ]
            await held.somebody_waits()
            for task in tasks:
                task.cancel()
            assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 3

        assert await store.jobs.add([new("c")]) == [Added.NEW]
        for _ in range(3):  # each of the connections
            await store.jobs.count()
        await store.__aexit__(None, None, None)
        assert postgres_server.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == [(0,)]

    async def test_a_cancelled_caller_still_wakes_who_waits(
        self, store: PostgresStore, jobs_held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def see_nothing(self: signals.Signals) -> None:
            pass

        monkeypatch.setattr(signals.Signals, "_look_around", see_nothing)
        await claim(store)
        async with jobs_held:
            adding = asyncio.create_task(store.jobs.add([new("a")]))
            await jobs_held.somebody_waits()
            adding.cancel()
            waiting = asyncio.create_task(store.jobs.wait(1000))
            for _ in range(6):  # behind the question of the one who waits, on each connection
                await store.jobs.list()
            assert not waiting.done()

        async with asyncio.timeout(30):
            await waiting

    async def test_who_is_locked_out_is_told_and_nothing_is_kept(
        self, url: str, schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(postgres_connection._SETTINGS, "lock_timeout", "50ms")
        async with PostgresStore(url) as store:
            async with Held(url, schema, "payloads"):
                with pytest.raises(StoreUnavailable, match="lock timeout"):
                    await store.jobs.add([new("a"), new("b")])

            assert await store.jobs.add([new("a")]) == [Added.NEW]

    async def test_a_query_that_takes_too_long_is_ended(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(postgres_connection._SETTINGS, "statement_timeout", "1s")
        async with PostgresStore(url) as store:
            with pytest.raises(StoreUnavailable, match="statement timeout"):
                await store._engine.run(lambda connection: select(connection, "SELECT pg_sleep(60)"))

    async def test_a_server_that_never_answers_is_hung_up_on(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_connection, "ANSWER_WITHIN", 0.05)

        with pytest.raises(StoreUnavailable):
            await store._engine.run(lambda connection: select(connection, "SELECT pg_sleep(4)"))

        monkeypatch.undo()
        assert await store.jobs.list() == []

    async def test_what_lost_against_another_transaction_runs_again(self, store: PostgresStore) -> None:
        tried: list[int] = []

        async def deadlocked(connection: Connection) -> int:
            tried.append(len(tried))
            if len(tried) < 3:
                raise errors.DeadlockDetected("deadlock detected")
            return len(tried)

        assert await store._engine.run(deadlocked) == 3
        with pytest.raises(StoreUnavailable):
            await store._engine.run(always_deadlocked)

    async def test_a_server_that_is_not_there_is_unavailable(
        self, postgres_server: PostgresServer, schema: str
    ) -> None:
        store = open_store(f"postgresql://holdfast@127.0.0.1:1/holdfast?schema={schema}")

        with pytest.raises(StoreUnavailable):
            await store.__aenter__()
        with pytest.raises(StoreUnavailable):
            await store.__aenter__()

    async def test_a_database_that_is_not_there_is_said(self, postgres_server: PostgresServer) -> None:
        url = f"{postgres_server.url.removesuffix('/holdfast')}/nowhere"

        with pytest.raises(HoldfastError, match="nowhere"):
            await PostgresStore(url).__aenter__()

    async def test_a_database_that_cannot_hold_every_text_is_refused(self, postgres_server: PostgresServer) -> None:
        postgres_server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

        with pytest.raises(ConfigurationError, match="UTF8"):
            await PostgresStore(f"{postgres_server.url.removesuffix('/holdfast')}/latin").__aenter__()

    async def test_closing_writes_what_is_waiting(self, url: str, schema: str) -> None:
        store = await PostgresStore(url).__aenter__()
        async with Held(url, schema, "jobs") as held:
            adding = [asyncio.create_task(store.jobs.add([new("first")]))]
            await held.somebody_waits()
            adding += [asyncio.create_task(store.jobs.add([new(str(number))])) for number in range(300)]
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.__aexit__(None, None, None))
            await asyncio.sleep(0)
        await asyncio.gather(closing, *adding)

        async with PostgresStore(url) as again:
            assert await again.jobs.count() == {("deliveries", JobState.READY): 301}

    async def test_closing_ends_although_the_server_is_gone(self, url: str, postgres_server: PostgresServer) -> None:
        store = await PostgresStore(url).__aenter__()
        await asyncio.to_thread(postgres_server.crash)
        try:
            adding = [asyncio.create_task(store.jobs.add([new(str(number))])) for number in range(300)]
            await asyncio.sleep(0)
            async with asyncio.timeout(30):
                await store.__aexit__(None, None, None)
            results = await asyncio.gather(*adding, return_exceptions=True)
        finally:
            await asyncio.to_thread(postgres_server.start)

        assert {type(result) for result in results} == {StoreUnavailable}

    async def test_a_connection_that_cannot_be_set_up_is_not_left_behind(
        self, url: str, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
    ) -> None:
        monkeypatch.setitem(postgres_connection._SETTINGS, "jit", "perhaps")

        with pytest.raises(HoldfastError, match="jit"):
            await PostgresStore(f"{url}&application_name=left-behind").__aenter__()

        left = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'left-behind'"
        async with asyncio.timeout(30):
            while await asyncio.to_thread(postgres_server.execute, left):
                pass
        assert postgres_server.execute(left) == []

    async def test_nothing_added_is_nothing_answered(self, store: PostgresStore) -> None:
        assert await store.jobs.add([]) == []

    async def test_opening_can_be_cancelled(self, url: str, schema: str, store: PostgresStore) -> None:
        again = PostgresStore(url)
        opening = asyncio.create_task(again.__aenter__())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

        async with again:
            assert await again.jobs.list() == []

    def test_every_error_of_the_driver_has_a_meaning_here(self) -> None:
        theirs = {
            error
            for module in (psycopg, errors)
            for _, error in inspect.getmembers(module, inspect.isclass)
            if issubclass(error, Exception)
        }
        kinds = {error for error in theirs if getattr(error, "sqlstate", None) is None}
        waits_of_its_own = {errors.ConnectionTimeout, errors.CancellationTimeout, errors.PipelineAborted}

        assert len(theirs) > 250
        assert {kind for kind in kinds if not kind.__name__.startswith("_")} - waits_of_its_own <= set(ERRORS)
        address = Address("postgresql://holdfast@127.0.0.1/holdfast")
        assert all(isinstance(address.translate(error("what")), HoldfastError) for error in theirs)

    @pytest.mark.parametrize(
        ("error", "meaning"),
        [
            (errors.AdminShutdown, StoreUnavailable),
            (errors.DiskFull, StoreUnavailable),
            (errors.TooManyConnections, StoreUnavailable),
            (errors.QueryCanceled, StoreUnavailable),
            (errors.ReadOnlySqlTransaction, StoreUnavailable),
            (errors.SerializationFailure, StoreUnavailable),
            (errors.NumericValueOutOfRange, InvalidInput),
            (errors.InsufficientPrivilege, ConfigurationError),
            (ConnectionResetError, StoreUnavailable),
        ],
    )
    def test_errors_mean_what_the_caller_can_do(self, error: type[Exception], meaning: type[HoldfastError]) -> None:
        assert type(Address("postgresql://127.0.0.1/shop").translate(error("what"))) is meaning

    def test_a_missing_driver_names_the_extra(self) -> None:
        without = "import sys; sys.modules['psycopg'] = None; from holdfast.stores import open_store; "

        tried = subprocess.run(
            [sys.executable, "-c", f"{without} open_store('postgresql://localhost')"], capture_output=True, check=False
        )

        assert b'MissingExtra: this needs an optional package; install it with: pip install "holdfast[postgres]"' in (
            tried.stderr
        )


async def always_deadlocked(connection: Connection) -> None:
    raise errors.DeadlockDetected("deadlock detected")


class TestSecrets:
    async def test_the_right_password_opens(self, postgres_server: PostgresServer, schema: str) -> None:
        async with PostgresStore(f"{postgres_server.locked_url}?schema={schema}") as store:
            assert await store.jobs.list() == []

    async def test_a_wrong_password_is_not_repeated(self, postgres_server: PostgresServer) -> None:
        store = PostgresStore(postgres_server.locked_url.replace(PASSWORD, "my-real-password"))

        with pytest.raises(HoldfastError, match="password authentication failed") as raised:
            await store.__aenter__()

        assert "my-real-password" not in "".join(traceback.format_exception(raised.value))
        for shown in (store, store._engine, store._engine.address, store.jobs, store._engine.lifetime):
            assert "my-real-password" not in repr(shown)

    async def test_an_error_that_is_raised_while_open_does_not_repeat_it(
        self, postgres_server: PostgresServer, schema: str
    ) -> None:
        async with PostgresStore(f"{postgres_server.locked_url}?schema={schema}") as store:
            with pytest.raises(ConfigurationError) as raised:
                await store.__aenter__()

        assert PASSWORD not in str(raised.value)

    async def test_what_was_to_be_written_is_not_in_an_error(self, store: PostgresStore) -> None:
        with pytest.raises(HoldfastError) as raised:
            await store._engine.run(
                lambda connection: select(connection, "INSERT INTO leases VALUES (NULL, 'private', 1, 1)")
            )

        assert "private" not in str(raised.value)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://shop:hunter2@db:hunter2/shop",
            "postgresql://shop:hunter2@[::1/shop",
            "postgresql://shop:pass@hunter2@db/shop",
            "postgresql://shop:pass/hunter2@db/shop",
            "postgresql://shop:12/hunter2@db/shop",
            "postgresql://shop:hunter2@db/shop?hunter2=1",
            "postgresql://shop:hunter2@db/shop?hunter2",
            "postgresql://shop:hunter2@db/shop?schema=hunter2-",
            "postgresql://shop:hunter2@db/shop?schema=Hunter2",
            "postgresql://shop:hunter2%zz@db/shop",
        ],
    )
    def test_a_malformed_url_is_refused_without_repeating_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as raised:
            open_store(url)

        assert "hunter2" not in "".join(traceback.format_exception(raised.value)).lower().replace(url.lower(), "")


class TestSettings:
    async def test_a_commit_survives_a_power_loss_whatever_the_database_says(self, url: str) -> None:
        lax = "-c%20synchronous_commit%3Doff%20-c%20default_transaction_isolation%3Dserializable"

        async with PostgresStore(f"{url}&options={lax}") as store:
            assert await setting(store, "synchronous_commit") == "on"
            assert await setting(store, "transaction_isolation") == "read committed"

    async def test_a_stricter_commit_is_left_as_it_is(self, url: str) -> None:
        async with PostgresStore(f"{url}&options=-c%20synchronous_commit%3Dremote_apply") as store:
            assert await setting(store, "synchronous_commit") == "remote_apply"

    async def test_nobody_waits_for_ever(self, store: PostgresStore) -> None:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert await setting(store, name) not in ("0", "")

    async def test_the_schema_has_a_default_name(self, postgres_server: PostgresServer) -> None:
        async with open_store(postgres_server.url.replace("postgresql://", "postgres://")):
            pass

        assert postgres_server.execute("SELECT count(*) FROM holdfast.meta") == [(1,)]

    async def test_schemas_are_apart(self, store: PostgresStore, postgres_server: PostgresServer) -> None:
        await store.jobs.add([new("a")])

        async with PostgresStore(f"{postgres_server.url}?schema=s{uuid4().hex}") as elsewhere:
            assert await elsewhere.jobs.list() == []

    async def test_the_time_is_the_servers(self, url: str) -> None:
        class Wrong(SystemClock):
            def now(self) -> datetime:
                return super().now() + timedelta(hours=1)

        async with PostgresStore(url, clock=Wrong(), skew_ms=-60_000) as store:
            behind = datetime.now(UTC) - await store.now()

        assert timedelta(seconds=50) < behind < timedelta(seconds=90)

    async def test_a_lease_runs_out_by_the_servers_time(self, store: PostgresStore, url: str) -> None:
        await store.jobs.add([new("a")])
        [held] = await store.jobs.claim(["deliveries"], owner="a", limit=1, lease=10)

        async with PostgresStore(url, skew_ms=5_000) as early, PostgresStore(url, skew_ms=15_000) as late:
            assert await claim(early) == []
            [again] = await claim(late)

        assert (again.id, again.losses, again.token) == (held.id, 1, held.token + 1)


class TestVersions:
    async def test_a_newer_schema_is_refused(self, url: str, schema: str, postgres_server: PostgresServer) -> None:
        async with PostgresStore(url):
            pass
        postgres_server.execute(f"UPDATE {schema}.meta SET value = 99")

        with pytest.raises(SchemaTooNew) as raised:
            await PostgresStore(url).__aenter__()

        assert (raised.value.found, raised.value.known) == (99, len(MIGRATIONS))

    async def test_a_migration_runs_once_and_keeps_what_is_there(self, url: str, schema: str) -> None:
        second = "ALTER TABLE leases ADD COLUMN host text NOT NULL DEFAULT 'here'; CREATE TABLE more (name text);"
        async with await Address(url).connect() as connection:
            await migrate(connection, schema, (FIRST,))
            await connection.execute("INSERT INTO leases VALUES ('sweep', 'a', 7, 0)")

            for _ in range(2):
                await migrate(connection, schema, (FIRST, second))

            assert await select(connection, "SELECT * FROM leases") == [("sweep", "a", 7, 0, "here")]
            assert await select(connection, "SELECT value FROM meta WHERE name = 'schema'") == [(2,)]

    async def test_a_migration_that_fails_changes_nothing(self, url: str, schema: str) -> None:
        wrong = "CREATE TABLE more (name text); CREATE TABLE more (name text);"
        async with await Address(url).connect() as connection:
            await migrate(connection, schema, (FIRST,))

            with pytest.raises(errors.DuplicateTable):
                await migrate(connection, schema, (FIRST, wrong))

            assert await select(connection, "SELECT to_regclass('more'), value FROM meta") == [(None, 1)]

    async def test_several_may_open_a_new_schema_at_once(self, url: str) -> None:
        stores = [PostgresStore(url) for _ in range(6)]

        await asyncio.gather(*(store.__aenter__() for store in stores))

        await asyncio.gather(*(store.jobs.add([new(str(number))]) for number, store in enumerate(stores)))
        assert len(await keys(stores[0])) == 6
        await asyncio.gather(*(store.__aexit__(None, None, None) for store in stores))

    async def test_who_uses_a_schema_need_not_be_allowed_to_change_it(
        self, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        async with PostgresStore(url):
            pass
        role = f"r{schema[:12]}"
        postgres_server.execute(f"CREATE ROLE {role} LOGIN")
        postgres_server.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        for what in ("TABLES", "SEQUENCES"):
            postgres_server.execute(f"GRANT ALL ON ALL {what} IN SCHEMA {schema} TO {role}")

        async with PostgresStore(url.replace("holdfast@", f"{role}@")) as store:
            await store.jobs.add([new("a")])
            assert await keys(store) == ["a"]

        with pytest.raises(ConfigurationError, match="permission denied"):
            await PostgresStore(postgres_server.url.replace("holdfast@", f"{role}@") + "?schema=mine").__aenter__()

    async def test_a_schema_of_somebody_else_is_left_alone(
        self, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        postgres_server.execute(f"CREATE SCHEMA {schema} CREATE TABLE customers (name text)")

        with pytest.raises(ConfigurationError, match="schema=name"):
            await PostgresStore(url).__aenter__()

    async def test_an_empty_schema_is_used(self, url: str, schema: str, postgres_server: PostgresServer) -> None:
        postgres_server.execute(f"CREATE SCHEMA {schema}")

        async with PostgresStore(url) as store:
            assert await store.jobs.list() == []


class TestScale:
    """What the server counted, rather than what a plan promises."""

    @contextmanager
    def reads(self, server: PostgresServer, schema: str) -> Generator[dict[str, int]]:
        """How often tables were scanned whole, and how many entries of each index were read."""
        queries = (
            "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = '{}'",
            "SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = '{}'",
        )

        def read() -> dict[str, int]:
            return {str(name): int(str(number)) for q in queries for name, number in server.execute(q.format(schema))}

        before = read()
        during: dict[str, int] = {}
        yield during
        during |= {name: number - before.get(name, 0) for name, number in read().items()}

    async def test_nothing_walks_through_a_whole_table(
        self, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        async with PostgresStore(url) as store:
            await store.jobs.add([new(f"old {number}", ordering_key=f"k{number % 9}") for number in range(3000)])

        with self.reads(postgres_server, schema) as reads:
            async with PostgresStore(url) as store:
                await store.jobs.add([new("a"), new("a"), new("b", ordering_key="k1")])
                jobs = await claim(store, limit=7)
                await store.jobs.heartbeat(jobs, lease=60)
                await store.jobs.complete(jobs[0])
                await store.jobs.bury(jobs[1], reason="permanent", error="")
                await store.jobs.retry(jobs[2], after=0, error="")
                await store.jobs.replay(jobs[1].id)
                await store.jobs.get(jobs[1].id)
                await store.jobs.list(JobFilter(queue="deliveries", state=JobState.DONE))
                await store.jobs.list(JobFilter(state=JobState.DEAD))
                await store.jobs.list()
                await store.jobs.count()
                await store.jobs.release("worker")
                await store.jobs.oldest()
                await store.jobs.list(JobFilter(state=JobState.DEAD, kind="stripe"), after="1", newest=False)
                await store.jobs.purge(older_than=0)
                await store.jobs.purge(older_than=0, states=[JobState.DEAD])
                await store._engine.waiting.look()
                await store.records.apply("payment", "a", 0, Draft(value={}, index={"v": ["1"]}), jobs=[new("c")])
                await store.records.apply("payment", "a", 1, Draft(value={}, index={"v": ["2"]}))
                await store.records.find("payment", "v", "2")
                await store.records.due("payment")
                await store.records.list("payment")
                lease = await store.leases.acquire("sweep", owner="a", ttl=1)
                assert lease is not None
                await store.leases.renew(lease, ttl=1)
                await store.counters.add("spent", 1, window=60)
                await store.counters.take("slots", owner="a", slots=5, wanted=1, ttl=1)
                await store.counters.give("slots", owner="a", count=1)
                await store.bus.publish("circuit", {})
                await store._engine.catch_up()

        tables = ["jobs", "keys", "payloads", "records", "record_index", "leases", "sums", "slots", "facts"]
        assert {table: reads[table] for table in tables} == dict.fromkeys(tables, 0)
        counted = reads.pop("jobs_states")
        assert 3000 <= counted < 3200
        assert sum(number for name, number in reads.items() if name.startswith("jobs_")) < 500

    async def test_a_claim_reads_about_what_it_takes(
        self, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        async with PostgresStore(url) as store:
            await store.jobs.add([new(f"behind {number}", ordering_key="blocked") for number in range(2000)])
            await store.jobs.add([new(f"ready {number}") for number in range(2000)])
            await store.jobs.add([new(f"later {number}", delay=600) for number in range(2000)])
            await claim(store, limit=2)

        with self.reads(postgres_server, schema) as reads:
            async with PostgresStore(url) as store:
                claimed = await claim(store, limit=5)
                assert len(claimed) == 5
                await store.jobs.complete(claimed[0])
                await store._engine.waiting.look()

        assert sum(number for name, number in reads.items() if name.startswith("jobs_")) < 100

    async def test_freeing_an_ordering_key_reads_only_who_is_next(
        self, url: str, schema: str, postgres_server: PostgresServer
    ) -> None:
        async with PostgresStore(url) as store:
            await store.jobs.add([new(str(number), ordering_key="k") for number in range(2000)])
            [held] = await claim(store)

        with self.reads(postgres_server, schema) as reads:
            async with PostgresStore(url) as store:
                await store.jobs.complete(held)
                assert [job.key for job in await claim(store)] == ["1"]

        assert sum(number for name, number in reads.items() if name.startswith("jobs_")) < 100


class TestNeighbours:
    async def test_another_process_wakes_who_waits(
        self, store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(signals, "POLL", 1000)
        async with asyncio.timeout(30), store.bus.listen("circuit") as facts:
            await other.bus.publish("circuit", {"number": 1})
            assert await anext(facts) == {"number": 1}
            await claim(store)
            waiting = asyncio.create_task(store.jobs.wait(1000))

            await other.jobs.add([new("a")])

            await waiting
            assert [job.key for job in await claim(store)] == ["a"]

    @pytest.mark.parametrize("delay", [0.0, 0.2])
    async def test_a_notification_that_is_lost_is_made_up_for(
        self, store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch, delay: float
    ) -> None:
        monkeypatch.setattr(signals, "POLL", 0.05)
        other._engine._signals._channel = "nobody_listens"
        async with asyncio.timeout(30), store.bus.listen("circuit") as facts:
            await claim(store)
            waiting = asyncio.create_task(store.jobs.wait(1000))
            await asyncio.sleep(0)

            await other.jobs.add([new("a", delay=delay)])
            await other.bus.publish("circuit", {"number": 1})

            await waiting
            assert await anext(facts) == {"number": 1}

    async def test_a_listener_that_was_cut_off_hears_again_what_was_said_meanwhile(
        self,
        store: PostgresStore,
        other: PostgresStore,
        monkeypatch: pytest.MonkeyPatch,
        postgres_server: PostgresServer,
    ) -> None:
        monkeypatch.setattr(signals, "POLL", 0.05)
        async with asyncio.timeout(30), store.bus.listen("circuit") as facts:
            for number in range(3):
                postgres_server.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                )
                await other.bus.publish("circuit", {"number": number})

                assert await anext(facts) == {"number": number}

    async def test_facts_of_several_processes_arrive_once_each(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        async with asyncio.timeout(30), store.bus.listen("circuit") as here, other.bus.listen("circuit") as there:
            await asyncio.gather(
                *(each.bus.publish("circuit", {"number": number}) for number, each in enumerate([store, other] * 50))
            )
            for facts in (here, there):
                assert sorted([(await anext(facts))["number"] for _ in range(100)]) == list(range(100))  # type: ignore[type-var]

    async def test_a_record_changes_once_for_all_who_read_the_same(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        await store.records.apply("payment", "a", 0, Draft(value={}))

        results = await asyncio.gather(
            *(
                each.records.apply("payment", "a", 1, Draft(value={"by": number}), jobs=[new(str(number))])
                for number, each in enumerate([store, other] * 5)
            ),
            return_exceptions=True,
        )

        kept = await store.records.get("payment", "a")
        assert kept is not None
        assert [type(result) for result in results].count(VersionConflict) == 9
        assert await keys(store) == [str(kept.value["by"])]

    async def test_a_key_added_while_its_job_is_dropped_stays_a_duplicate(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        for number in range(30):
            await store.jobs.add([new(str(number))])
            [job] = await claim(store)
            await store.jobs.complete(job)

            _, answer = await asyncio.gather(store.jobs.purge(older_than=0), other.jobs.add([new(str(number))]))

            assert answer == [Added.DUPLICATE]

    async def test_a_job_added_while_the_one_before_it_ends_runs_next(self, store: PostgresStore, url: str) -> None:
        first, second = new("first", ordering_key="k"), prepare([new("second", ordering_key="k")])
        await store.jobs.add([first])
        [held] = await claim(store)
        async with await Address(url).connect() as neighbour:
            async with neighbour.transaction():
                await lock(neighbour, [second[0].line])
                await add(neighbour, ServerTime(SystemClock(), 0), second)
                completing = asyncio.create_task(store.jobs.complete(held))
                waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
                while not completing.done() and not await select(neighbour, waits):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0)
            await completing

        assert [job.key for job in await claim(store)] == ["second"]

    async def test_one_order_survives_everybody_adding_and_settling_at_once(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        done: list[str] = []

        async def work(mine: PostgresStore) -> None:
            while len(done) < 200:
                for job in await claim(mine):
                    assert await mine.jobs.heartbeat([job], lease=60) == set()
                    done.append(job.key)
                    await mine.jobs.complete(job)

        async def ingest(mine: PostgresStore, name: str) -> None:
            for number in range(100):
                await mine.jobs.add([new(f"{name}{number}", ordering_key="k")])

        async with asyncio.timeout(60):
            await asyncio.gather(work(store), work(other), work(other), ingest(store, "a"), ingest(other, "b"))

        assert sorted(done) == sorted(f"{name}{number}" for name in "ab" for number in range(100))
        for name in "ab":
            assert [key for key in done if key.startswith(name)] == [f"{name}{number}" for number in range(100)]


WORK = """
import asyncio, sys, time
from holdfast.stores import JobState, open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        async def run(job):
            begun = time.monotonic()
            await asyncio.sleep(0)
            print(job.key, job.ordering_key or "-", begun, time.monotonic(), flush=True)
            await store.jobs.complete(job)

        while True:
            jobs = await store.jobs.claim(["deliveries"], owner=sys.argv[2], limit=10, lease=60)
            await asyncio.gather(*map(run, jobs))
            if not jobs:
                if not {state for _, state in await store.jobs.count()} & {JobState.READY, JobState.LEASED}:
                    return
                await store.jobs.wait(1)

asyncio.run(main())
"""


async def test_four_processes_do_each_of_2000_jobs_once_and_in_order(store: PostgresStore, url: str) -> None:
    for batch in range(20):
        numbers = range(batch * 100, batch * 100 + 100)
        await store.jobs.add([new(f"{n:04}", ordering_key=f"k{n % 40}" if n % 2 else "") for n in numbers])

    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORK, url, f"worker-{number}", stdout=asyncio.subprocess.PIPE
        )
        for number in range(4)
    ]
    outputs = [out.decode().splitlines() for out, _ in await asyncio.gather(*(each.communicate() for each in workers))]

    effects = [line.split() for lines in outputs for line in lines]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert all(lines for lines in outputs)
    assert sorted(key for key, *_ in effects) == [f"{number:04}" for number in range(2000)]
    by_order: defaultdict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for key, order, begun, ended in effects:
        by_order[order].append((float(begun), float(ended), key))
    del by_order["-"]
    assert len(by_order) == 20
    for runs in by_order.values():
        runs.sort()
        assert [key for *_, key in runs] == sorted(key for *_, key in runs)
        assert all(before[1] <= after[0] for before, after in pairwise(runs))
    assert await store.jobs.count() == {("deliveries", JobState.DONE): 2000}


def test_random_histories_are_those_of_the_memory_store(postgres_server: PostgresServer) -> None:
    class PostgresHistories(Histories):
        @initialize()
        def open(self) -> None:
            self.runner = asyncio.Runner()
            self.clock = ManualClock()
            schema = f"s{uuid4().hex}"
            urls = ("memory://", f"{postgres_server.url}?schema={schema}")
            self.stores = [open_store(url, clock=self.clock) for url in urls]
            for store in self.stores:
                self.run(store.__aenter__())
            self.held = []
            self.tokens = {}

        def teardown(self) -> None:
            if hasattr(self, "runner"):
                for store in self.stores:
                    self.run(store.__aexit__(None, None, None))
                self.runner.close()

    run_state_machine_as_test(
        PostgresHistories,
        settings=settings(
            max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
