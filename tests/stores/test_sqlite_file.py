"""What only a file can go through: other processes, crashes, full disks, other versions."""

import asyncio
import gc
import inspect
import sqlite3
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, InvalidInput, LeaseLost, SchemaTooNew, StoreUnavailable, VersionConflict
from holdfast.stores import Added, Draft, JobState, NewJob, open_store, sqlite_adding, sqlite_jobs, sqlite_settling
from holdfast.stores.documents import decode_strings, encode
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.sqlite_schema import ERRORS, FIRST, MIGRATIONS, connect_to_write
from holdfast.stores.store import Job
from holdfast.testing.clock import ManualClock


def new(key: str, body: bytes = b"") -> NewJob:
    return NewJob(queue="deliveries", key=key, kind="stripe", body=body)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture
async def store(path: str) -> AsyncGenerator[SqliteStore]:
    async with SqliteStore(path) as store:
        yield store


async def pragma(store: SqliteStore, text: str) -> Any:
    """Ask SQLite something on the connection that writes."""
    return await store._engine.write(lambda connection: connection.execute(f"PRAGMA {text}").fetchone())


class Stalled:
    """Holds the writer's thread, so that what is written meanwhile shares one commit."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._go = threading.Event()

    async def __aenter__(self) -> None:
        running = threading.Event()

        def stall(connection: sqlite3.Connection) -> None:
            running.set()
            self._go.wait()

        self._stall = asyncio.create_task(self._store._engine.write(stall))
        await asyncio.to_thread(running.wait)

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)
        self._go.set()
        await self._stall


async def started(*coroutines: Any) -> list[asyncio.Task[Any]]:
    """They have handed their work to the writer."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


class TestGroups:
    async def test_a_conflict_does_not_undo_its_neighbours(self, store: SqliteStore) -> None:
        async with Stalled(store):
            tasks = await started(
                store.records.apply("payment", "a", 0, Draft(value={"by": "first"})),
                store.records.apply("payment", "a", 0, Draft(value={"by": "second"}), jobs=[new("never")]),
                store.records.apply("payment", "b", 0, Draft(value={}), jobs=[new("kept")]),
            )
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(second, VersionConflict)
        assert [first, third] == [await store.records.get("payment", "a"), await store.records.get("payment", "b")]
        assert [job.key for job in await store.jobs.list()] == ["kept"]

    async def test_what_cannot_be_stored_does_not_undo_its_neighbours(self, store: SqliteStore) -> None:
        async with Stalled(store):
            tasks = await started(
                store.jobs.add([new("before")]),
                store.jobs.add([new("with it"), replace(new("wrong"), kind="\ud800")]),
                store.jobs.add([new("after")]),
            )
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(results[1], InvalidInput)
        assert [job.key for job in await store.jobs.list()] == ["after", "before"]

    async def test_an_answer_comes_after_the_commit(self, store: SqliteStore, path: str) -> None:
        await store.jobs.add([new("a")])

        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT key FROM jobs").fetchall() == [("a",)]

    async def test_a_cancelled_caller_breaks_nothing(self, store: SqliteStore) -> None:
        async with Stalled(store):
            cancelled, kept = await started(store.jobs.add([new("a")]), store.jobs.add([new("b")]))
            cancelled.cancel()

        await kept
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert [job.key for job in await store.jobs.list()] == ["b", "a"]

    async def test_a_cancelled_caller_still_wakes_who_waits(self, store: SqliteStore) -> None:
        await store.jobs.claim(["deliveries"], owner="a", limit=1, lease=1)
        [waiting] = await started(store.jobs.wait(1000))
        async with Stalled(store):
            [cancelled] = await started(store.jobs.add([new("a")]))
            cancelled.cancel()

        async with asyncio.timeout(30):
            await waiting

    async def test_closing_writes_what_is_waiting(self, path: str) -> None:
        store = await SqliteStore(path).__aenter__()
        async with Stalled(store):
            tasks = await started(*(store.jobs.add([new(str(number))]) for number in range(1000)))
            [closing_it] = await started(store.__aexit__(None, None, None))
        await asyncio.gather(closing_it, *tasks)

        async with SqliteStore(path) as again:
            assert (await again.jobs.count())[("deliveries", JobState.READY)] == 1000


class TestAddedTogether:
    async def test_every_caller_gets_the_answers_to_its_own_jobs(self, store: SqliteStore) -> None:
        async with Stalled(store):
            tasks = await started(
                store.jobs.add([new("a", b"first")]),
                store.jobs.add([new("b", b"of b"), new("a", b"again")]),
                store.jobs.add([]),
                store.jobs.add([replace(new("a"), digest="other"), new("c", b"of c")]),
            )
        answers = await asyncio.gather(*tasks)

        assert answers == [[Added.NEW], [Added.NEW, Added.DUPLICATE], [], [Added.CONFLICT, Added.NEW]]
        assert [(job.key, job.body, job.arrivals, job.conflicts) for job in reversed(await store.jobs.list())] == [
            ("a", b"first", 3, 1),
            ("b", b"of b", 1, 0),
            ("c", b"of c", 1, 0),
        ]

    async def test_fifty_callers_share_a_few_statements(self, store: SqliteStore) -> None:
        statements: list[str] = []
        await store._engine.write(lambda connection: connection.set_trace_callback(statements.append))

        async with Stalled(store):
            tasks = await started(*(store.jobs.add([new(str(number))]) for number in range(50)))
        await asyncio.gather(*tasks)

        assert len([text for text in statements if "INSERT INTO jobs" in text]) <= 6

    @pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
    async def test_jobs_are_numbered_as_given_however_many_there_are(self, store: SqliteStore, count: int) -> None:
        given = [new(f"job {number}", f"body {number}".encode()) for number in range(count)]

        assert await store.jobs.add(given) == [Added.NEW] * count

        kept = reversed(await store.jobs.list(limit=count + 1))
        assert [(job.key, job.body) for job in kept] == [(job.key, job.body) for job in given]

    async def test_one_job_of_an_ordering_key_can_be_claimed(self, store: SqliteStore) -> None:
        async with Stalled(store):
            tasks = await started(
                store.jobs.add([replace(new("k1"), ordering_key="k"), replace(new("l1"), ordering_key="l")]),
                store.jobs.add([replace(new("k2"), ordering_key="k")]),
            )
        await asyncio.gather(*tasks)
        await store.jobs.add([replace(new("l2"), ordering_key="l")])

        claimed = await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=1000)

        assert [job.key for job in claimed] == ["k1", "l1"]

    async def test_a_duplicate_does_not_hold_up_its_ordering_key(self, store: SqliteStore) -> None:
        first, second = (replace(new(key), ordering_key="k") for key in ("first", "second"))
        await store.jobs.add([first])
        [held] = await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=1000)
        await store.jobs.complete(held)

        assert await store.jobs.add([first, second]) == [Added.DUPLICATE, Added.NEW]

        claimed = await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=1000)
        assert [job.key for job in claimed] == ["second"]

    async def test_an_ignored_job_does_not_hold_up_its_ordering_key(self, store: SqliteStore) -> None:
        ignored, ready = replace(new("a"), ignored=True, ordering_key="k"), replace(new("b"), ordering_key="k")

        await store.jobs.add([ignored, ready])

        claimed = await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=1000)
        assert [job.key for job in claimed] == ["b"]

    async def test_keys_of_purged_jobs_are_refused_among_others(self, store: SqliteStore) -> None:
        await store.jobs.add([replace(new(key), ignored=True) for key in ("old", "older")])
        assert await store.jobs.purge(older_than=0) == 2

        async with Stalled(store):
            tasks = await started(
                store.jobs.add([new("a", b"of a"), new("old")]), store.jobs.add([new("older"), new("b", b"of b")])
            )
        answers = await asyncio.gather(*tasks)

        assert answers == [[Added.NEW, Added.DUPLICATE], [Added.DUPLICATE, Added.NEW]]
        assert [(job.key, job.body) for job in await store.jobs.list()] == [("b", b"of b"), ("a", b"of a")]

    async def test_a_number_is_never_given_twice(self, store: SqliteStore, path: str) -> None:
        numbers: list[int] = []
        async with SqliteStore(path) as other:
            for number, adding in enumerate([store, other, other, store]):
                await adding.jobs.add([replace(new(f"{number}-{place}"), ignored=True) for place in range(3)])
                numbers += sorted(int(job.id) for job in await adding.jobs.list())
                await adding.jobs.purge(older_than=0)

        assert numbers == sorted(set(numbers))
        assert len(numbers) == 12

    async def test_who_cannot_be_served_is_refused_alone_and_the_others_keep_their_order(
        self, store: SqliteStore
    ) -> None:
        async with Stalled(store):
            tasks = await started(
                store.jobs.add([new("a")]),
                store.jobs.add([new("b"), new("never", b"x"), replace(new("late"), delay=1e30)]),
                store.jobs.add([new("b"), new("a")]),
            )
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(second, InvalidInput)
        assert [first, third] == [[Added.NEW], [Added.NEW, Added.DUPLICATE]]
        assert [(job.key, job.arrivals) for job in await store.jobs.list()] == [("b", 1), ("a", 2)]

    @pytest.mark.parametrize(
        "headers", [{}, {"a": "1"}, {"quote": '"\\\n', "X-Ü": "\ud800\x00€😀"}, {"": "", "b": "2"}]
    )
    def test_headers_are_written_as_every_document(self, headers: dict[str, str]) -> None:
        [given] = sqlite_adding.prepare([replace(new("a"), headers=headers)])

        assert given.headers == encode(headers)
        assert decode_strings(given.headers) == headers


class TestHandedOver:
    async def test_what_the_loop_asks_for_in_one_turn_shares_a_commit(self, store: SqliteStore) -> None:
        statements: list[str] = []
        await store._engine.write(lambda connection: connection.set_trace_callback(statements.append))
        statements.clear()  # of that write

        await asyncio.gather(*(store.jobs.add([new(str(number))]) for number in range(50)))

        assert len([text for text in statements if text.startswith("COMMIT")]) == 1

    async def test_what_is_alone_in_its_transaction_needs_no_savepoint(self, store: SqliteStore) -> None:
        statements: list[str] = []
        await store._engine.write(lambda connection: connection.set_trace_callback(statements.append))

        await store.jobs.add([new("a")])

        assert [text for text in statements if "SAVEPOINT" in text] == []


class TestSettledTogether:
    async def claimed(self, store: SqliteStore, count: int) -> list[Job]:
        await store.jobs.add([new(str(number)) for number in range(count)])
        return await store.jobs.claim(["deliveries"], owner="a", limit=count, lease=1000)

    async def test_jobs_that_end_at_once_share_a_few_statements(self, store: SqliteStore) -> None:
        jobs = await self.claimed(store, 50)
        statements: list[str] = []
        await store._engine.write(lambda connection: connection.set_trace_callback(statements.append))

        await asyncio.gather(*(store.jobs.complete(job) for job in jobs))

        assert len([text for text in statements if "UPDATE jobs" in text]) == 1
        assert await store.jobs.count() == {("deliveries", JobState.DONE): 50}

    @pytest.mark.parametrize("settle", ["complete", "ignore", "bury", "retry", "snooze"])
    async def test_who_lost_its_lease_is_refused_alone(self, store: SqliteStore, settle: str) -> None:
        held, lost, other = await self.claimed(store, 3)
        arguments: dict[str, dict[str, Any]] = {
            "bury": {"reason": "permanent", "error": "no"},
            "retry": {"after": 5, "error": "no"},
            "snooze": {"after": 5},
        }

        results = await asyncio.gather(
            *(
                getattr(store.jobs, settle)(job, **arguments.get(settle, {}))
                for job in (held, replace(lost, token=lost.token + 1), other, held)
            ),
            return_exceptions=True,
        )

        assert [type(result) for result in results] == [type(None), LeaseLost, type(None), LeaseLost]
        states = {job.key: job.state for job in await store.jobs.list()}
        assert states["1"] is JobState.LEASED
        assert JobState.LEASED not in (states["0"], states["2"])


class TestTrouble:
    async def test_a_full_disk_keeps_nothing_and_passes(self, store: SqliteStore) -> None:
        await store.jobs.add([new("before")])
        (pages,) = await pragma(store, "page_count")
        (limit,) = await pragma(store, "max_page_count")
        await pragma(store, f"max_page_count = {pages + 2}")

        async with Stalled(store):
            tasks = await started(store.jobs.add([new("small")]), store.jobs.add([new("large", bytes(100_000))]))
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
        assert [job.key for job in await store.jobs.list()] == ["before"]
        await pragma(store, f"max_page_count = {limit}")
        await store.jobs.add([new("large", bytes(100_000))])
        assert [job.key for job in await store.jobs.list()] == ["large", "before"]

    async def test_a_locked_file_is_unavailable_until_unlocked(self, store: SqliteStore, path: str) -> None:
        await pragma(store, "busy_timeout = 1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(StoreUnavailable):
                await store.jobs.add([new("a")])
            assert await store.jobs.list() == []

            other.execute("ROLLBACK")
        await store.jobs.add([new("a")])

    async def test_trouble_with_the_file_undoes_the_whole_group(self, store: SqliteStore) -> None:
        def unreadable(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        async with Stalled(store):
            tasks = await started(store.jobs.add([new("a")]), store._engine.write(unreadable))
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
        assert await store.jobs.list() == []
        await store.jobs.add([new("a")])

    async def test_a_bug_reaches_its_caller_only(self, store: SqliteStore) -> None:
        def bug(connection: sqlite3.Connection) -> None:
            raise ZeroDivisionError

        async with Stalled(store):
            tasks = await started(store.jobs.add([new("a")]), store._engine.write(bug))
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(results[1], ZeroDivisionError)
        assert [job.key for job in await store.jobs.list()] == ["a"]

    async def test_opening_can_be_cancelled(self, path: str) -> None:
        async with SqliteStore(path):
            pass
        store = SqliteStore(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            [opening] = await started(store.__aenter__())
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

        async with store:
            await store.jobs.add([new("a")])

    async def test_a_missing_directory_is_unavailable(self, tmp_path: Path) -> None:
        store = open_store(f"sqlite:///{tmp_path}/missing/store.db")

        with pytest.raises(StoreUnavailable):
            await store.__aenter__()

        (tmp_path / "missing").mkdir()
        async with store:
            assert await store.jobs.list() == []

    async def test_a_file_that_is_no_database_is_unavailable(self, path: str) -> None:
        with open(path, "wb") as file:  # noqa: ASYNC230  # nothing else runs
            file.write(b"something else" * 100)

        with pytest.raises(StoreUnavailable):
            await SqliteStore(path).__aenter__()

    async def test_a_database_of_somebody_else_is_left_alone(self, path: str) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE customers (name TEXT)")

        with pytest.raises(ConfigurationError, match="a file of its own"):
            await SqliteStore(path).__aenter__()

    def test_every_error_of_sqlite_has_a_meaning_here(self) -> None:
        errors = {error for _, error in inspect.getmembers(sqlite3, inspect.isclass) if issubclass(error, Exception)}

        assert errors <= set(ERRORS)


class TestVersions:
    async def test_a_newer_schema_is_refused(self, path: str) -> None:
        async with SqliteStore(path):
            pass
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
            other.commit()

        with pytest.raises(SchemaTooNew) as raised:
            await SqliteStore(path).__aenter__()

        assert (raised.value.found, raised.value.known) == (99, len(MIGRATIONS))

    def test_a_migration_runs_once_and_keeps_what_is_there(self, path: str) -> None:
        second = "ALTER TABLE leases ADD COLUMN host TEXT NOT NULL DEFAULT 'here';\nCREATE TABLE more (name TEXT);"
        with closing(connect_to_write(path, (FIRST,))) as connection:
            connection.execute("INSERT INTO leases VALUES ('sweep', 'a', 7, 0)")

        for _ in range(2):
            with closing(connect_to_write(path, (FIRST, second))) as connection:
                assert connection.execute("SELECT * FROM leases").fetchall() == [("sweep", "a", 7, 0, "here")]
                assert connection.execute("PRAGMA user_version").fetchone() == (2,)

    def test_a_migration_that_fails_changes_nothing(self, path: str) -> None:
        wrong = "CREATE TABLE more (name TEXT);\nCREATE TABLE more (name TEXT);"
        connect_to_write(path, (FIRST,)).close()

        with pytest.raises(sqlite3.OperationalError):
            connect_to_write(path, (FIRST, wrong))

        connect_to_write(path, (FIRST,)).close()

    async def test_a_commit_survives_a_power_loss(self, store: SqliteStore) -> None:
        full = 2

        assert await pragma(store, "journal_mode") == ("wal",)
        assert await pragma(store, "synchronous") == (full,)

    @pytest.mark.parametrize(
        "query",
        [
            "ADDED",
            "HEAD_NEW",
            "ARRIVE_AGAIN",
            "EXPIRED",
            "DUE",
            "LEASE",
            "LEASED",
            "NEXT_IN_ORDER",
            "HEARTBEAT",
            "END",
            "BURY",
            "GIVE_BACK",
            "PROMOTE",
            "HELD",
            "RELEASE",
            "OUTLOOK",
            "OLD",
        ],
    )
    def test_no_query_walks_through_all_jobs(self, path: str, query: str) -> None:
        text: str = (vars(sqlite_adding) | vars(sqlite_jobs) | vars(sqlite_settling))[query]
        with closing(connect_to_write(path)) as connection:
            parameters = defaultdict(int) if ":" in text else (0,) * text.count("?")
            plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()

        steps = [step for *_, step in plan]
        all_of_a_queue = "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (queue=?)"
        slow = {"SCAN jobs", "SCAN next", "SCAN ended", "SCAN head", all_of_a_queue}
        assert not slow.intersection(steps), steps

    async def test_time_does_not_run_backwards_over_a_restart(self, path: str) -> None:
        clock = ManualClock()
        async with SqliteStore(path, clock=clock) as store:
            await clock.advance(60)
            await store.jobs.add([new("a")])
            before = await store.now()

        clock.jump(-30)
        async with SqliteStore(path, clock=clock) as store:
            assert await store.now() == before

        clock.jump(-7200)
        async with SqliteStore(path, clock=clock) as store:
            assert await store.now() < before - timedelta(hours=1)


INGEST = """
import asyncio, sys
from itertools import count
from holdfast.stores import NewJob, open_store

async def ingest(store, numbers):
    for number in numbers:
        await store.jobs.add([NewJob(queue="deliveries", key=f"{sys.argv[2]}-{number}", kind="k", body=bytes(1500))])
        print(number, flush=True)

async def main():
    async with open_store(f"sqlite:///{sys.argv[1]}") as store:
        numbers = iter(range(int(sys.argv[3])))
        await asyncio.gather(*(ingest(store, numbers) for _ in range(10)))

asyncio.run(main())
"""

NEIGHBOUR = """
import asyncio, sys
from holdfast.stores import NewJob, open_store

async def main():
    async with open_store(f"sqlite:///{sys.argv[1]}") as store:
        print("open", flush=True)
        for line in sys.stdin:
            await store.jobs.add([NewJob(queue="deliveries", key=line, kind="k")])
            await store.bus.publish("circuit", {"line": line.strip()})

asyncio.run(main())
"""


async def process(script: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


class TestProcesses:
    async def test_a_kill_loses_nothing_acknowledged(self, path: str) -> None:
        acknowledged: set[str] = set()
        for kill in range(5):
            ingest = await process(INGEST, path, str(kill), "1000000")
            assert ingest.stdout is not None
            for _ in range(20 + 53 * kill):
                acknowledged.add(f"{kill}-{(await ingest.stdout.readline()).decode().strip()}")
            ingest.kill()
            acknowledged |= {f"{kill}-{line.decode().strip()}" async for line in ingest.stdout if line.endswith(b"\n")}
            await ingest.wait()

        async with SqliteStore(path) as store:
            kept = {job.key for job in await store.jobs.list(limit=10**6)}
            assert await store.jobs.count() == {("deliveries", JobState.READY): len(kept)}
        assert len(acknowledged) > 500
        assert acknowledged <= kept
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    async def test_several_processes_create_and_write_one_file(self, path: str) -> None:
        processes = [await process(INGEST, path, str(number), "100") for number in range(3)]
        await asyncio.gather(*(each.communicate() for each in processes))

        async with SqliteStore(path) as store:
            assert await store.jobs.count() == {("deliveries", JobState.READY): 300}

    async def test_what_another_process_writes_is_noticed(self, path: str) -> None:
        async with SqliteStore(path) as store, asyncio.timeout(30):
            other = await process(NEIGHBOUR, path)
            assert other.stdin is not None
            assert other.stdout is not None
            await other.stdout.readline()
            async with store.bus.listen("circuit") as facts:
                for line in ("one", "two"):
                    await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=1000)
                    [waiting] = await started(store.jobs.wait(1000))
                    other.stdin.write(f"{line}\n".encode())

                    await waiting
                    assert await anext(facts) == {"line": line}
            await other.communicate(b"")


async def test_many_jobs_leave_nothing_behind_in_memory(store: SqliteStore) -> None:
    async def live_objects() -> int:
        for number in range(200):
            await store.jobs.add([new(f"{id(object())}-{number}", bytes(1500))])
            for job in await store.jobs.claim(["deliveries"], owner="a", limit=10, lease=10):
                await store.jobs.complete(job)
        gc.collect()
        return len(gc.get_objects())

    await live_objects()
    before = await live_objects()

    assert await live_objects() < before + 200


async def test_a_lease_from_a_clock_that_was_hours_ahead_ends_when_that_is_set_right(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url, clock=ManualClock(), skew_ms=2 * 3_600_000) as ahead:
        await ahead.jobs.add([NewJob(queue="work", key="a", kind="test")])
        assert await ahead.jobs.claim(["work"], owner="dies", limit=1, lease=10)
        assert await ahead.leases.acquire("sweep", owner="dies", ttl=10)

    async with open_store(url, clock=ManualClock()) as store:
        [job] = await store.jobs.claim(["work"], owner="lives", limit=1, lease=10)

        assert job.key == "a"
        assert await store.leases.acquire("sweep", owner="lives", ttl=10)
