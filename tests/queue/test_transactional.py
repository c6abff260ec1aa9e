"""Handlers in the store's own transactions: their effect and the end of their job are one commit."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast import Event, Holdfast, Secrets, WorkerOptions
from holdfast.errors import ConfigurationError, LeaseLost, NotSent, Permanent, RetryLater, StoreUnavailable
from holdfast.queue.signals import TransactionSlow
from holdfast.queue.transactional import Transactional
from holdfast.resilience import Guard
from holdfast.stores.sqlite_schema import connect_to_write
from holdfast.stores.sqlite_transactions import LONGEST, OWN_TABLES
from holdfast.stores.store import Change, Job, JobFilter, JobState, SupportsTransactions
from holdfast.telemetry import JobFinished, Signal, Telemetry
from holdfast.testing.clock import ManualClock


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "test.ordered"


Handler = Callable[[Ordered, sqlite3.Connection], Any]


class Shop:
    """A hub whose handlers write into the store's own file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.signals: list[Signal] = []
        self.hub = Holdfast(
            store=f"sqlite:///{path}",
            secret=Secrets("shop-secret"),
            clock=self.clock,
            telemetry=Telemetry([self.signals.append]),
            worker=WorkerOptions(attempts=3),
        )

    @property
    def jobs(self) -> SupportsTransactions:
        assert isinstance(self.hub.store.jobs, SupportsTransactions)
        return self.hub.store.jobs

    def on(self, handler: Handler, name: str = "note") -> None:
        self.hub.on(Ordered, name=name, transactional=True)(handler)

    async def order(self, *references: str) -> None:
        """Add one job per reference and handler, as a payment's change does."""
        at = datetime.now(UTC)
        events = [Ordered(id=f"order/{reference}", reference=reference, at=at) for reference in references]
        await self.hub.store.jobs.add(self.hub._runtime.subscriptions.jobs(events))

    def noted(self) -> list[str]:
        """What is committed, as another process sees it."""
        with closing(sqlite3.connect(self.path)) as other:
            return [reference for (reference,) in other.execute("SELECT reference FROM notes ORDER BY rowid")]

    async def states(self) -> dict[str, JobState]:
        return {job.key.split("/")[1]: job.state for job in await self.hub.store.jobs.list()}

    async def claim(self, limit: int = 10) -> list[Job]:
        return await self.hub.store.jobs.claim(["events"], owner="me", limit=limit, lease=10)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncGenerator[Shop]:
    shop = Shop(tmp_path / "holdfast.db")
    async with shop.hub:
        with closing(sqlite3.connect(shop.path)) as database:
            database.execute("CREATE TABLE notes (reference TEXT)")
        yield shop


def note(ordered: Ordered, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes VALUES (?)", (ordered.reference,))


def writing(reference: str) -> Change:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (reference,))

    return change


class TestEffects:
    async def test_the_effect_and_the_end_of_the_job_are_one_commit(self, shop: Shop) -> None:
        seen: list[tuple[list[str], str]] = []

        def look(ordered: Ordered, connection: sqlite3.Connection) -> None:
            note(ordered, connection)
            with closing(sqlite3.connect(shop.path)) as other:
                seen.append((shop.noted(), other.execute("SELECT state FROM jobs").fetchone()[0]))

        shop.on(look)
        await shop.order("a")

        await shop.hub.settle()

        assert seen == [([], "leased")]
        assert shop.noted() == ["a"]
        assert await shop.states() == {"a": JobState.DONE}

    async def test_many_handlers_share_a_commit(self, shop: Shop) -> None:
        statements: list[str] = []
        shop.on(note)
        await shop.order(*"abcdefgh")
        await shop.hub.store._engine.write(lambda connection: connection.set_trace_callback(statements.append))  # type: ignore[attr-defined]

        await shop.hub.settle()

        assert sorted(shop.noted()) == list("abcdefgh")
        assert len([text for text in statements if text.startswith("COMMIT")]) <= 5
        assert len([text for text in statements if "state = 'done'" in text or "SET state =" in text]) <= 3

    async def test_who_raises_leaves_nothing_and_its_neighbours_everything(self, shop: Shop) -> None:
        def fail_for_b(ordered: Ordered, connection: sqlite3.Connection) -> None:
            note(ordered, connection)
            if ordered.reference == "b":
                raise ValueError("not b")

        shop.on(fail_for_b)
        await shop.order("a", "b", "c")

        await shop.hub.settle()

        assert sorted(shop.noted()) == ["a", "c"]
        assert await shop.states() == {"a": JobState.DONE, "b": JobState.READY, "c": JobState.DONE}

    async def test_a_failure_is_tried_again_and_in_the_end_a_dead_letter(self, shop: Shop) -> None:
        def fail(ordered: Ordered, connection: sqlite3.Connection) -> None:
            raise ValueError("never")

        shop.on(fail)
        await shop.order("a")
        for _ in range(3):
            await shop.hub.settle()
            await shop.clock.advance(10)

        [job] = await shop.hub.store.jobs.list()
        assert (job.state, job.reason, job.error) == (JobState.DEAD, "attempts", "ValueError: never")

    @pytest.mark.parametrize(
        ("error", "state", "attempts"),
        [
            (Permanent("no such order"), JobState.DEAD, 0),
            (RetryLater("closed", after=5), JobState.READY, 0),
            (ValueError("odd"), JobState.READY, 1),
            (SystemExit(1), JobState.READY, 1),
            (sqlite3.OperationalError("database is locked"), JobState.READY, 1),
        ],
    )
    async def test_what_a_handler_raises_means_what_it_means_elsewhere(
        self, shop: Shop, error: BaseException, state: JobState, attempts: int
    ) -> None:
        def fail(ordered: Ordered, connection: sqlite3.Connection) -> None:
            note(ordered, connection)
            raise error

        shop.on(fail)
        await shop.order("a")

        await shop.hub.settle()

        [job] = await shop.hub.store.jobs.list()
        assert (job.state, job.attempts) == (state, attempts)
        assert shop.noted() == []

    async def test_the_next_of_an_ordering_key_runs_afterwards(self, shop: Shop) -> None:
        shop.on(note)
        at = datetime.now(UTC)
        events = [Ordered(id=f"order/a/{number}", reference="a", at=at) for number in range(3)]
        await shop.hub.store.jobs.add(shop.hub._runtime.subscriptions.jobs(events))

        ran = await shop.hub.settle()

        assert (ran, shop.noted()) == (3, ["a", "a", "a"])

    async def test_a_handler_sees_its_event_as_every_handler_does(self, shop: Shop) -> None:
        seen: list[Ordered] = []
        shop.on(lambda ordered, connection: seen.append(ordered))
        await shop.order("a")

        await shop.hub.settle()

        [ordered] = seen
        assert (ordered.reference, ordered.handler, ordered.fencing_token) == ("a", "note", 1)
        assert len(ordered.idempotency_key) == 64

    async def test_what_is_done_is_reported_as_done(self, shop: Shop) -> None:
        shop.on(note)
        await shop.order("a")

        await shop.hub.settle()

        assert [signal.result for signal in shop.signals if isinstance(signal, JobFinished)] == ["done"]


class TestLeases:
    async def test_who_lost_the_lease_is_not_begun_and_keeps_nothing(self, shop: Shop) -> None:
        shop.on(note)
        await shop.order("a", "b")
        lost, held = await shop.claim()
        await shop.clock.advance(11)
        [_, held] = await shop.claim()
        begun: list[str] = []

        def change(name: str, connection: sqlite3.Connection) -> None:
            begun.append(name)
            writing(name)(connection)

        results = await shop.jobs.complete_with([(lost, partial(change, "a")), (held, partial(change, "b"))])

        assert isinstance(results[0], LeaseLost)
        assert results[1:] == [None]
        assert (begun, shop.noted()) == (["b"], ["b"])

    async def test_a_job_is_completed_once_however_often_it_is_given(self, shop: Shop) -> None:
        shop.on(note)
        await shop.order("a")
        [job] = await shop.claim()

        results = await shop.jobs.complete_with([(job, writing("a")), (job, writing("again"))])
        [later] = await shop.jobs.complete_with([(job, writing("later"))])

        assert results[0] is None
        assert isinstance(results[1], LeaseLost)
        assert isinstance(later, LeaseLost)
        assert shop.noted() == ["a"]

    @pytest.mark.parametrize("id", ["", "none", "1x", "\ud800", "9" * 30])
    async def test_what_is_no_job_of_this_store_is_lost(self, shop: Shop, id: str) -> None:
        shop.on(note)
        await shop.order("a")
        [job] = await shop.claim()

        [result] = await shop.jobs.complete_with([(replace(job, id=id), writing("a"))])

        assert isinstance(result, LeaseLost)
        assert shop.noted() == []

    async def test_a_transaction_that_grows_too_long_leaves_the_rest_for_the_next(self, shop: Shop) -> None:
        shop.on(note)
        await shop.order(*"abc")
        jobs = await shop.claim()

        def slow(connection: sqlite3.Connection) -> None:
            shop.clock.pause(LONGEST)

        first = await shop.jobs.complete_with([(job, slow) for job in jobs])

        assert first == [None]


class TestConfinement:
    @pytest.mark.parametrize(
        "end",
        [
            lambda connection: connection.commit(),
            lambda connection: connection.rollback(),
            lambda connection: connection.execute("COMMIT"),
            lambda connection: connection.execute("commit -- now"),
            lambda connection: connection.execute("END TRANSACTION"),
            lambda connection: connection.execute("BEGIN"),
            lambda connection: connection.executescript("SELECT 1"),
            lambda connection: connection.__exit__(None, None, None),
            lambda connection: connection.execute("RELEASE holdfast_job"),
            lambda connection: connection.execute("ROLLBACK TO HOLDFAST_CHANGE"),
        ],
    )
    @pytest.mark.parametrize("swallow", [False, True])
    async def test_a_handler_cannot_end_the_transaction(
        self, shop: Shop, end: Callable[[sqlite3.Connection], object], swallow: bool
    ) -> None:
        def handler(ordered: Ordered, connection: sqlite3.Connection) -> None:
            note(ordered, connection)
            try:
                end(connection)
            except sqlite3.Error:
                if not swallow:
                    raise

        shop.on(lambda ordered, connection: None, "other")
        await shop.order("before")
        await shop.hub.settle()  # from here on our own statements are prepared
        shop.on(handler)
        await shop.order("a")

        await shop.hub.settle()

        [job] = await shop.hub.store.jobs.list(JobFilter(handler="note"))
        assert job.error.startswith("ConfigurationError: a transactional handler may not begin, commit or roll back")
        assert (job.state, job.attempts, shop.noted()) == (JobState.READY, 1, [])

    @pytest.mark.parametrize(
        ("statement", "error"),
        [
            ("DELETE FROM jobs", "jobs is a table of holdfast's"),
            ("UPDATE meta SET value = 99", "meta is a table of holdfast's"),
            ("DROP TABLE payloads", "payloads is a table of holdfast's"),
            ("PRAGMA user_version = 7", "may not change its connection: user_version 7"),
            ("ATTACH ':memory:' AS other", "may not change its connection: :memory:"),
        ],
    )
    async def test_a_handler_leaves_the_store_alone(self, shop: Shop, statement: str, error: str) -> None:
        shop.on(lambda ordered, connection: connection.execute(statement))
        await shop.order("a")

        await shop.hub.settle()

        [job] = await shop.hub.store.jobs.list()
        assert error in job.error
        assert (job.state, job.attempts) == (JobState.READY, 1)

    def test_every_table_of_ours_is_known(self, tmp_path: Path) -> None:
        with closing(connect_to_write(str(tmp_path / "a.db"))) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}

        assert tables - {"sqlite_sequence"} == OWN_TABLES

    async def test_a_handler_may_read_the_store_make_tables_and_use_savepoints(self, shop: Shop) -> None:
        def handler(ordered: Ordered, connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TABLE IF NOT EXISTS mine (jobs INTEGER)")
            connection.execute("SAVEPOINT maybe")
            connection.execute("INSERT INTO mine VALUES (0)")
            connection.execute("ROLLBACK TO maybe")
            connection.execute("RELEASE maybe")
            connection.execute("INSERT INTO mine SELECT count(*) FROM jobs")
            note(ordered, connection)

        shop.on(handler)
        await shop.order("a", "b")

        await shop.hub.settle()

        with closing(sqlite3.connect(shop.path)) as other:
            assert other.execute("SELECT jobs FROM mine").fetchall() == [(2,), (2,)]

    async def test_what_a_handler_sets_on_the_connection_is_gone_with_it(self, shop: Shop) -> None:
        def handler(ordered: Ordered, connection: sqlite3.Connection) -> None:
            connection.row_factory = sqlite3.Row
            connection.text_factory = bytes
            note(ordered, connection)

        shop.on(handler)
        for reference in "ab":
            await shop.order(reference)
            await shop.hub.settle()

        assert shop.noted() == ["a", "b"]
        assert await shop.states() == {"a": JobState.DONE, "b": JobState.DONE}

    async def test_a_vendor_cannot_be_called(self, shop: Shop) -> None:
        guard = Guard("weather")
        shop.on(lambda ordered, connection: guard.sync.read(lambda: "sunny"))
        await shop.order("a")

        await shop.hub.settle()

        [job] = await shop.hub.store.jobs.list()
        assert job.error.startswith("CallInsideTransaction: weather")

    async def test_what_waits_is_refused(self, shop: Shop) -> None:
        async def later() -> None:
            raise NotSent("never awaited")

        shop.on(lambda ordered, connection: later())
        await shop.order("a")

        await shop.hub.settle()

        [job] = await shop.hub.store.jobs.list()
        assert "a transactional handler is a plain function" in job.error

    async def test_a_full_disk_keeps_nothing_and_counts_no_failure(self, shop: Shop) -> None:
        def large(ordered: Ordered, connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO notes VALUES (?)", ("x" * 1_000_000,))

        shop.on(large)
        await shop.order("a", "b")
        engine = shop.hub.store._engine  # type: ignore[attr-defined]
        await engine.write(lambda connection: connection.execute("PRAGMA max_page_count = 60").fetchall())

        await shop.hub.settle()

        assert shop.noted() == []
        assert [(job.state, job.attempts) for job in await shop.hub.store.jobs.list()] == [(JobState.READY, 0)] * 2

    async def test_a_handler_that_keeps_everybody_from_writing_is_told_of(self, shop: Shop) -> None:
        def slow(ordered: Ordered, connection: sqlite3.Connection) -> None:
            shop.clock.pause(1.5)

        shop.on(slow)
        await shop.order("a")

        await shop.hub.settle()

        told = [signal for signal in shop.signals if isinstance(signal, TransactionSlow)]
        assert [(signal.kind, signal.handler) for signal in told] == [("test.ordered", "note")]
        assert told[0].seconds == pytest.approx(1.5)


class TestRegistration:
    def test_another_store_is_refused_with_what_to_use_instead(self) -> None:
        hub = Holdfast(store="memory://")

        with pytest.raises(ConfigurationError, match=r"handled_in"):
            hub.on(Ordered, transactional=True)(note)

    def test_a_coroutine_function_is_refused(self, tmp_path: Path) -> None:
        async def waits(ordered: Ordered, connection: sqlite3.Connection) -> None:
            note(ordered, connection)

        with pytest.raises(ConfigurationError, match="plain function"):
            Shop(tmp_path / "holdfast.db").hub.on(Ordered, transactional=True)(waits)

    def test_it_promises_nothing_beside(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="require"):
            Shop(tmp_path / "holdfast.db").hub.on(Ordered, transactional=True, require="handled_in")(note)


async def test_what_was_recorded_stays_recorded_when_the_store_fails_afterwards(shop: Shop) -> None:
    shop.on(note)
    await shop.order("a", "b")
    jobs = await shop.claim()

    class Failing:
        calls = 0

        async def complete_with(self, changes: Any) -> list[Exception | None]:
            self.calls += 1
            if self.calls > 1:
                raise StoreUnavailable("gone")
            return [None]

    subscriptions = shop.hub._runtime.subscriptions
    transactional = Transactional(subscriptions, lambda: Failing(), shop.clock, Telemetry())  # type: ignore[arg-type, return-value]

    first, second = await transactional.perform_each(jobs)

    assert first is None
    assert isinstance(second, StoreUnavailable)


@pytest.mark.xdist_group("processes")
def test_kill_9_in_the_middle_of_a_transaction_leaves_every_effect_exactly_once(tmp_path: Path) -> None:
    orders, deadly = 200, ["20", "21", "150"]
    command = [sys.executable, "-m", "tests.journeys.transactional_shop", str(tmp_path), str(orders), *deadly]

    ends = [subprocess.run(command, timeout=120, check=False).returncode for _ in deadly]
    last = subprocess.Popen(command)
    try:
        until = time.monotonic() + 120
        while len(noted := _notes(tmp_path)) < orders and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        last.kill()
        last.wait()

    assert ends == [-signal.SIGKILL] * len(deadly)
    assert sorted(noted, key=int) == [str(number) for number in range(orders)]


def _notes(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "holdfast.db", timeout=10)) as database:
        return [reference for (reference,) in database.execute("SELECT reference FROM notes")]
