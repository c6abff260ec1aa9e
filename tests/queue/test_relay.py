"""Calls kept in the user's own transaction: committed with it, moved to the queue whoever dies, each made once."""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiosqlite
import asyncpg  # type: ignore[import-untyped]  # it brings no types
import django  # type: ignore[import-untyped]  # nor does this
import psycopg
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.db import connections, transaction  # type: ignore[import-untyped]
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from holdfast import Call, Holdfast, outbox_ddl
from holdfast.clock import SystemClock
from holdfast.errors import ConfigurationError, InvalidInput
from holdfast.queue.relay import Relay
from holdfast.queue.signals import DeferredCallConflict
from holdfast.stores.store import Added, JobFilter, JobState, NewJob, Store
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from tests.servers.postgres import PostgresServer

Connect = Callable[[], Any]


class Database:
    """The user's own database, and the table in it."""

    def __init__(self, path: Path, server: PostgresServer | None) -> None:
        self.path = path
        self.server = server
        self.schema = f"outbox{uuid4().hex}"
        if server is None:
            self.execute(outbox_ddl("sqlite"))
        else:
            server.execute(f"CREATE SCHEMA {self.schema}")
            self.execute(outbox_ddl("postgresql"))

    @property
    def dsn(self) -> str:
        assert self.server is not None
        return (
            f"host=127.0.0.1 port={self.server.port} user=holdfast dbname=holdfast options=-csearch_path={self.schema}"
        )

    def execute(self, statement: str) -> list[Any]:
        if self.server is None:
            with closing(sqlite3.connect(self.path)) as database, database:
                return database.execute(statement).fetchall()
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def rows(self) -> list[str]:
        return [row[0] for row in self.execute("SELECT call_key FROM holdfast_outbox ORDER BY id")]

    def engine(self, driver: str) -> Any:
        if self.server is None:
            url = f"sqlite{driver}:///{self.path}"
            arguments: dict[str, Any] = {}
        else:
            url = f"postgresql{driver}://holdfast@127.0.0.1:{self.server.port}/holdfast"
            asks: dict[str, Any] = {"server_settings": {"search_path": self.schema}}
            arguments = asks if "asyncpg" in driver else {"options": f"-csearch_path={self.schema}"}
        make = create_async_engine if driver in ("+aiosqlite", "+asyncpg") else create_engine
        return make(url, poolclass=NullPool, connect_args=arguments)

    def asyncpg(self) -> Any:
        assert self.server is not None
        return asyncpg.connect(
            host="127.0.0.1",
            port=self.server.port,
            user="holdfast",
            database="holdfast",
            server_settings={"search_path": self.schema},
        )


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return Database(tmp_path / "shop.db", None)


@pytest.fixture
def postgres(tmp_path: Path, postgres_server: PostgresServer) -> Database:
    return Database(tmp_path, postgres_server)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    made: Database = request.getfixturevalue(request.param)
    return made


def plain(database: Database) -> Connect:
    """The most ordinary way to connect."""
    if database.server is None:
        return lambda: sqlite3.connect(database.path, timeout=10)
    return lambda: psycopg.connect(database.dsn)


class Shop:
    """A hub whose calls are written down."""

    def __init__(self, store: str, clock: ManualClock | None = None) -> None:
        self.signals: list[Signal] = []
        self.made: list[str] = []
        self.hub = Holdfast(store=store, clock=clock, telemetry=Telemetry([self.signals.append]), fleet=False)
        self.hub.call("tell")(self.tell)

    def tell(self, call: Call[Any]) -> None:
        self.made.append(call.key)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop("memory://", ManualClock())
    async with shop.hub:
        yield shop


def keep(shop: Shop, database: Database, *keys: str, order: str = "", payload: object = None) -> None:
    """Add calls in one transaction of its own."""
    with closing(plain(database)()) as session:
        for key in keys:
            shop.hub.outbox.sync.add_in(session, "tell", payload, key=key, ordering_key=order)
        session.commit()


# Every library.

Write = Callable[[Shop, str, bool], Awaitable[None]]


def blocking(connect: Connect) -> Write:
    async def write(shop: Shop, key: str, commits: bool) -> None:
        with closing(connect()) as session:
            shop.hub.outbox.sync.add_in(session, "tell", {"key": key}, key=key)
            session.commit() if commits else session.rollback()

    return write


def waiting(connect: Connect) -> Write:
    async def write(shop: Shop, key: str, commits: bool) -> None:
        opened = connect()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                opened if hasattr(opened, "__aenter__") else await opened  # psycopg's has to be awaited first
            )
            await shop.hub.outbox.add_in(session, "tell", {"key": key}, key=key)
            await (session.commit() if commits else session.rollback())

    return write


def with_asyncpg(connect: Connect) -> Write:
    async def write(shop: Shop, key: str, commits: bool) -> None:
        session = await connect()
        with suppress(LookupError):
            async with session.transaction():
                await shop.hub.outbox.add_in(session, "tell", {"key": key}, key=key)
                if not commits:
                    raise LookupError
        await session.close()

    return write


def autocommit(connect: Connect) -> Write:
    async def write(shop: Shop, key: str, commits: bool) -> None:
        with closing(connect()) as session:
            session.execute("BEGIN")
            shop.hub.outbox.sync.add_in(session, "tell", {"key": key}, key=key)
            session.execute("COMMIT" if commits else "ROLLBACK")

    return write


def wrapped(database: Database) -> Connect:
    @contextmanager
    def connect() -> Any:
        with closing(sqlite3.connect(database.path)) as session:
            yield session

    return connect


def wrapped_async(database: Database) -> Connect:
    @asynccontextmanager
    async def connect() -> Any:
        async with await psycopg.AsyncConnection.connect(database.dsn) as session:
            yield session

    return connect


LIBRARIES: dict[str, tuple[str, Callable[[Database], Connect], Callable[[Connect], Write] | None]] = {
    "sqlite3": ("sqlite", lambda of: lambda: sqlite3.connect(of.path), blocking),
    "sqlite3 autocommit": ("sqlite", lambda of: lambda: sqlite3.connect(of.path, isolation_level=None), autocommit),
    "a context manager": ("sqlite", wrapped, None),
    "aiosqlite": ("sqlite", lambda of: lambda: aiosqlite.connect(of.path), waiting),
    "SQLAlchemy session": ("sqlite", lambda of: lambda: Session(of.engine("")), blocking),
    "SQLAlchemy connection": ("sqlite", lambda of: lambda: of.engine("").connect(), blocking),
    "SQLAlchemy asyncio": ("sqlite", lambda of: lambda: AsyncSession(of.engine("+aiosqlite")), waiting),
    "psycopg": ("postgres", lambda of: lambda: psycopg.connect(of.dsn), blocking),
    "psycopg autocommit": ("postgres", lambda of: lambda: psycopg.connect(of.dsn, autocommit=True), autocommit),
    "psycopg asyncio": ("postgres", lambda of: lambda: psycopg.AsyncConnection.connect(of.dsn), waiting),
    "an async context manager": ("postgres", wrapped_async, None),
    "asyncpg": ("postgres", lambda of: of.asyncpg, with_asyncpg),
    "SQLAlchemy psycopg": ("postgres", lambda of: lambda: Session(of.engine("+psycopg")), blocking),
    "SQLAlchemy asyncpg": ("postgres", lambda of: lambda: AsyncSession(of.engine("+asyncpg")), waiting),
    "SQLAlchemy asyncpg connection": ("postgres", lambda of: lambda: of.engine("+asyncpg").connect(), waiting),
}


@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_is_committed_is_made_and_what_is_rolled_back_never_was(
    library: str, shop: Shop, request: pytest.FixtureRequest
) -> None:
    kind, connects, writes = LIBRARIES[library]
    database: Database = request.getfixturevalue(kind)
    connect = connects(database)
    write = writes(connect) if writes else blocking(plain(database))
    shop.hub.relay(connect)

    await write(shop, "committed", True)
    await write(shop, "rolled-back", False)
    kept = database.rows
    await shop.hub.settle()

    assert kept == ["tell/committed"]
    assert (shop.made, database.rows) == (["committed"], [])


async def test_the_relay_leaves_no_transaction_open_between_looks(postgres: Database) -> None:
    shop, clock = Shop("memory://"), SystemClock()
    shop.hub.relay(lambda: psycopg.connect(postgres.dsn), every=0.01)
    state = "SELECT state FROM pg_stat_activity WHERE state LIKE 'idle in%' AND query LIKE '%holdfast_outbox%'"

    async with shop.hub.lifespan():
        keep(shop, postgres, "1")
        async with asyncio.timeout(30):
            while not shop.made:
                await clock.sleep(0.01)
        left = postgres.execute(state)
        async with asyncio.timeout(30):
            while left:
                await clock.sleep(0.01)  # in which the relay may end a look that it had begun
                left = postgres.execute(state)

    assert left == []


# What is kept.


async def test_a_call_keeps_its_time_and_its_order(shop: Shop, database: Database) -> None:
    with closing(plain(database)()) as session:
        later = timedelta(minutes=10)
        shop.hub.outbox.sync.add_in(session, "tell", key="1", not_before=later, expires_at=2 * later, ordering_key="a")
        session.commit()
    shop.hub.relay(plain(database))

    await shop.hub.settle()
    [job] = await shop.hub.store.jobs.list(JobFilter())

    assert shop.made == []
    assert job.due_at - job.created_at == later
    assert job.ordering_key == "a"
    assert job.headers["expires"] == (job.created_at + 2 * later).isoformat()


async def test_a_session_without_a_transaction_is_refused(shop: Shop, sqlite: Database) -> None:
    with (
        closing(sqlite3.connect(sqlite.path, isolation_level=None)) as session,
        pytest.raises(ConfigurationError, match="open transaction"),
    ):
        shop.hub.outbox.sync.add_in(session, "tell", key="1")


async def test_an_asynchronous_session_is_to_be_awaited(shop: Shop, sqlite: Database) -> None:
    async with AsyncSession(sqlite.engine("+aiosqlite")) as session:
        with pytest.raises(ConfigurationError, match="await"):
            shop.hub.outbox.sync.add_in(session, "tell", key="1")


async def test_a_synchronous_session_may_be_awaited_too(shop: Shop, sqlite: Database) -> None:
    with closing(sqlite3.connect(sqlite.path)) as session:
        await shop.hub.outbox.add_in(session, "tell", key="1")
        session.commit()

    assert sqlite.rows == ["tell/1"]


async def test_what_is_no_session_is_refused(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="not str"):
        shop.hub.outbox.sync.add_in("shop.db", "tell", key="1")


async def test_a_payload_that_cannot_be_made_is_refused_in_the_transaction(shop: Shop, sqlite: Database) -> None:
    shop.hub.call("count", payload=int)(lambda call: None)

    with closing(sqlite3.connect(sqlite.path)) as session, pytest.raises(InvalidInput):
        shop.hub.outbox.sync.add_in(session, "count", "one", key="1")

    assert sqlite.rows == []


def test_there_is_a_table_for_two_dialects_only() -> None:
    with pytest.raises(ConfigurationError, match="mysql"):
        outbox_ddl("mysql")


# Twice, late, at once.


async def test_a_key_used_twice_is_made_once_and_another_payload_is_told(shop: Shop, database: Database) -> None:
    shop.hub.relay(plain(database))
    keep(shop, database, "1", payload={"amount": 5})
    keep(shop, database, "1", payload={"amount": 5})
    keep(shop, database, "1", payload={"amount": 6})

    await shop.hub.settle()

    assert (shop.made, database.rows) == (["1"], [])
    assert [signal for signal in shop.signals if isinstance(signal, DeferredCallConflict)] == [
        DeferredCallConflict("tell", "tell/1")
    ]


async def test_a_crash_between_adding_and_deleting_makes_nothing_twice(shop: Shop, sqlite: Database) -> None:
    shop.hub.relay(plain(sqlite))
    sqlite.execute("CREATE TRIGGER dies BEFORE DELETE ON holdfast_outbox BEGIN SELECT RAISE(ABORT, 'killed'); END")
    keep(shop, sqlite, "1", "2")

    with pytest.raises(sqlite3.DatabaseError, match="killed"):
        await shop.hub.settle()
    left = sqlite.rows
    sqlite.execute("DROP TRIGGER dies")
    await shop.hub.settle()

    assert left == ["tell/1", "tell/2"]
    assert (sorted(shop.made), sqlite.rows) == (["1", "2"], [])


async def test_a_row_that_commits_after_later_ones_were_moved_is_not_skipped(shop: Shop, postgres: Database) -> None:
    shop.hub.relay(plain(postgres))

    with psycopg.connect(postgres.dsn) as late:
        shop.hub.outbox.sync.add_in(late, "tell", key="early-number")
        keep(shop, postgres, "late-number")
        await shop.hub.settle()
        first = list(shop.made)
        late.commit()
    await shop.hub.settle()

    assert first == ["late-number"]
    assert shop.made == ["late-number", "early-number"]


async def test_a_late_relay_deletes_only_what_it_has_read(sqlite: Database) -> None:
    shop = Shop("memory://", ManualClock())
    async with shop.hub:
        keep(shop, sqlite, "1")
        slow, reads, go_on = relay(shop, sqlite), asyncio.Event(), asyncio.Event()
        slow_store: Any = Slow(shop.hub.store, reads, go_on)
        slow._store = slow_store
        moving = asyncio.ensure_future(slow.move())
        await reads.wait()
        await relay(shop, sqlite).move()
        keep(shop, sqlite, "2")
        go_on.set()
        await moving
        await relay(shop, sqlite).move()
        await shop.hub.settle()

    assert shop.made == ["1", "2"]


class Slow:
    """A store that keeps its second caller waiting."""

    def __init__(self, store: Store, reads: asyncio.Event, go_on: asyncio.Event) -> None:
        self._store = store
        self._reads = reads
        self._go_on = go_on
        self.jobs = self

    async def now(self) -> Any:
        return await self._store.now()

    async def add(self, jobs: list[NewJob]) -> list[Added]:
        self._reads.set()
        await self._go_on.wait()
        return await self._store.jobs.add(jobs)


def relay(shop: Shop, database: Database) -> Relay:
    """One more relay on the same table."""
    shop.hub.relay(plain(database))
    return shop.hub._background.relays.pop()


async def test_several_relays_at_once_move_each_call_once_and_keep_the_order(shop: Shop, database: Database) -> None:
    keys = [f"{number:03}" for number in range(300)]
    for start in range(0, 300, 3):
        keep(shop, database, *keys[start : start + 2], order=f"customer:{start % 7}")
        keep(shop, database, keys[start + 2])

    await asyncio.gather(*(relay(shop, database).move() for _ in range(4)))
    jobs = await shop.hub.store.jobs.list(JobFilter(), limit=1000, newest=False)
    orders = defaultdict[str, list[str]](list)
    for job in jobs:
        orders[job.ordering_key].append(job.key)

    assert sorted(job.key for job in jobs) == [f"tell/{key}" for key in keys]
    assert all(order == sorted(order) for key, order in orders.items() if key)
    assert database.rows == []


async def test_an_ordering_key_that_one_relay_has_is_passed_by_and_others_are_not(
    shop: Shop, postgres: Database
) -> None:
    keep(shop, postgres, "a1", "a2", order="a")
    keep(shop, postgres, "b1", order="b")

    with psycopg.connect(postgres.dsn) as other:
        other.execute("SELECT * FROM holdfast_outbox WHERE call_key = 'tell/a1' FOR UPDATE")
        moved = await relay(shop, postgres).move()
        left = postgres.rows
    rest = await relay(shop, postgres).move()

    assert (moved, left, rest) == (1, ["tell/a1", "tell/a2"], 2)


@pytest.mark.parametrize("isolation", ["DEFERRED", None])
async def test_the_queue_may_be_in_the_same_file(tmp_path: Path, isolation: Any) -> None:
    shop = Shop(f"sqlite:///{tmp_path}/shop.db")

    async with shop.hub:
        sqlite = Database(tmp_path / "shop.db", None)
        shop.hub.relay(lambda: sqlite3.connect(sqlite.path, isolation_level=isolation))
        keep(shop, sqlite, *(f"{number}" for number in range(150)))
        async with asyncio.timeout(30):
            await shop.hub.settle()

    assert len(shop.made) == len(set(shop.made)) == 150
    assert sqlite.rows == []


async def test_a_relay_goes_on_when_the_database_comes_back(sqlite: Database) -> None:
    shop = Shop("memory://")
    refused = 0

    def connect() -> sqlite3.Connection:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.connect(sqlite.path)

    shop.hub.relay(connect, every=0.01)
    async with shop.hub.lifespan():
        keep(shop, sqlite, "1")
        async with asyncio.timeout(30):
            while not shop.made:
                await SystemClock().sleep(0.01)
        jobs = await shop.hub.store.jobs.count()

    assert (refused, shop.made) == (2, ["1"])
    assert {state for _, state in jobs} <= {JobState.DONE, JobState.LEASED}


async def test_a_database_of_another_dialect_is_refused(shop: Shop) -> None:
    class Elsewhere:
        """A session as SQLAlchemy's, of a database we have no table for."""

        __module__ = "sqlalchemy.orm"

        class dialect:  # as it is named there
            name = "mysql"

        def close(self) -> None:
            pass

    shop.hub.relay(Elsewhere)

    with pytest.raises(ConfigurationError, match="mysql"):
        await shop.hub.settle()
    with pytest.raises(ExceptionGroup) as told:
        await shop.hub.work()
    assert told.group_contains(ConfigurationError, match="mysql")


def test_a_handler_in_a_thread_may_use_its_own_connection(sqlite: Database, tmp_path: Path) -> None:
    async def main() -> list[str]:
        shop = Shop("memory://", ManualClock())
        shop.hub.relay(plain(sqlite))

        @shop.hub.call("sell")
        def sell(call: Call[None]) -> None:
            keep(shop, sqlite, "from-a-thread")

        async with shop.hub:
            await shop.hub.outbox.add("sell", key="1")
            await shop.hub.settle()
        return shop.made

    assert asyncio.run(main()) == ["from-a-thread"]


async def test_django_takes_part_with_its_own_connection(
    shop: Shop, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
    ours = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(sqlite.path)}
    monkeypatch.setattr(connections, "settings", connections.configure_settings({"default": {}, "outbox": ours}))
    shop.hub.relay(lambda: connections["outbox"])

    def sell() -> None:
        connection = connections["outbox"]
        with transaction.atomic(using="outbox"):
            shop.hub.outbox.sync.add_in(connection, "tell", key="1")
        connection.close()

    await asyncio.to_thread(sell)
    await shop.hub.settle()

    assert (shop.made, sqlite.rows) == (["1"], [])


async def test_sqlalchemys_own_transaction_is_the_one_that_counts(shop: Shop, sqlite: Database) -> None:
    sqlite.execute("CREATE TABLE sold (reference TEXT)")
    with suppress(LookupError), Session(sqlite.engine("")) as session, session.begin():
        session.execute(text("INSERT INTO sold VALUES ('order-1')"))
        shop.hub.outbox.sync.add_in(session, "tell", key="order-1")
        raise LookupError

    assert (sqlite.execute("SELECT * FROM sold"), sqlite.rows) == ([], [])
