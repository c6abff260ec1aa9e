"""`handled_in` keeps its promise with every library that speaks to the user's own database."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiosqlite
import asyncpg  # type: ignore[import-untyped]  # it brings no types
import django  # type: ignore[import-untyped]  # nor does this
import psycopg
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.db import connection as django_connection  # type: ignore[import-untyped]
from django.db import connections as django_connections
from django.db import transaction as django_transaction
from psycopg.errors import SerializationFailure
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from holdfast import Holdfast, Money, PaymentPaid, handled_ddl
from holdfast.errors import AlreadyHandled, ConfigurationError
from holdfast.queue.events import idempotency_key
from holdfast.stores import JobState
from holdfast.stores.store import JobFilter
from holdfast.testing import FakePayments
from holdfast.testing.clock import ManualClock
from tests.servers.postgres import PostgresServer

EFFECT = "INSERT INTO confirmed VALUES ('order-1')"


def paid_event(handler: str = "confirm") -> PaymentPaid:
    return PaymentPaid(
        id="payment/order-1/3/payment.paid",
        reference="order-1",
        at=datetime.now(UTC),
        due=Money("1.00", "CHF"),
        received=Money("1.00", "CHF"),
        provider="fake",
        handler=handler,
    )


class ShopDatabase:
    """The user's own database: where its libraries reach it, and what is in it."""

    def __init__(self, path: Path, server: PostgresServer | None) -> None:
        self.path = path
        self.server = server
        self.schema = f"shop{uuid4().hex}"
        if server is None:
            with closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE confirmed (reference TEXT)")
                database.execute(handled_ddl("sqlite"))
        else:
            server.execute(f"CREATE SCHEMA {self.schema}")
            server.execute(f"SET search_path = {self.schema}; CREATE TABLE confirmed (reference text)")
            server.execute(f"SET search_path = {self.schema}; {handled_ddl('postgresql')}")

    @property
    def dsn(self) -> str:
        assert self.server is not None
        return (
            f"host=127.0.0.1 port={self.server.port} user=holdfast dbname=holdfast options=-csearch_path={self.schema}"
        )

    @property
    def handled(self) -> list[str]:
        """Who has handled the event."""
        return [str(row[0]) for row in self._rows("SELECT handler FROM holdfast_handled ORDER BY 1")]

    @property
    def effects(self) -> int:
        return len(self._rows("SELECT * FROM confirmed"))

    def _rows(self, query: str) -> list[Any]:
        if self.server is None:
            with closing(sqlite3.connect(self.path)) as database:
                return database.execute(query).fetchall()
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(query.encode()).fetchall()


Transaction = Callable[[ShopDatabase], Any]
"""A context that gives a session with an open transaction and a way to execute on it; committed at its end."""


@contextmanager
def by_sqlite3(shop: ShopDatabase) -> Generator[Any]:
    with closing(sqlite3.connect(shop.path)) as database, database:
        yield database, database.execute


@contextmanager
def by_sqlite3_cursor(shop: ShopDatabase) -> Generator[Any]:
    with closing(sqlite3.connect(shop.path)) as database, database:
        cursor = database.cursor()
        yield cursor, cursor.execute


@contextmanager
def by_scoped_session(shop: ShopDatabase) -> Generator[Any]:
    sessions = scoped_session(sessionmaker(create_engine(f"sqlite:///{shop.path}", poolclass=NullPool)))
    try:
        with sessions.begin():
            yield sessions, lambda sql: sessions.execute(text(sql))
    finally:
        sessions.remove()


@asynccontextmanager
async def by_aiosqlite(shop: ShopDatabase) -> AsyncGenerator[Any]:
    async with aiosqlite.connect(shop.path) as database:
        yield database, database.execute
        await database.commit()


@contextmanager
def by_sqlalchemy_session(shop: ShopDatabase) -> Generator[Any]:
    engine = create_engine(f"sqlite:///{shop.path}", poolclass=NullPool)
    with Session(engine) as session, session.begin():
        yield session, lambda sql: session.execute(text(sql))


@contextmanager
def by_sqlalchemy_connection(shop: ShopDatabase) -> Generator[Any]:
    engine = create_engine(f"sqlite:///{shop.path}", poolclass=NullPool)
    with engine.begin() as connection:
        yield connection, lambda sql: connection.execute(text(sql))


def _engine(shop: ShopDatabase, driver: str) -> Any:
    assert shop.server is not None
    url = f"postgresql+{driver}://holdfast@127.0.0.1:{shop.server.port}/holdfast"
    places: dict[str, Any] = {
        "asyncpg": {"server_settings": {"search_path": shop.schema}},
        "psycopg": {"options": f"-csearch_path={shop.schema}"},
    }
    return create_async_engine(url, poolclass=NullPool, connect_args=places[driver])


def by_async_session(driver: str) -> Transaction:
    @asynccontextmanager
    async def transaction(shop: ShopDatabase) -> AsyncGenerator[Any]:
        async with AsyncSession(_engine(shop, driver)) as session, session.begin():
            yield session, lambda sql: session.execute(text(sql))

    return transaction


def by_async_connection(driver: str) -> Transaction:
    @asynccontextmanager
    async def transaction(shop: ShopDatabase) -> AsyncGenerator[Any]:
        async with _engine(shop, driver).begin() as connection:
            yield connection, lambda sql: connection.execute(text(sql))

    return transaction


@contextmanager
def by_psycopg(shop: ShopDatabase) -> Generator[Any]:
    with psycopg.connect(shop.dsn) as connection:
        yield connection, connection.execute


@contextmanager
def by_psycopg_cursor(shop: ShopDatabase) -> Generator[Any]:
    with psycopg.connect(shop.dsn) as connection, connection.cursor() as cursor:
        yield cursor, cursor.execute


@contextmanager
def by_psycopg_in_autocommit(shop: ShopDatabase) -> Generator[Any]:
    with psycopg.connect(shop.dsn, autocommit=True) as connection, connection.transaction():
        yield connection, connection.execute


@asynccontextmanager
async def by_async_psycopg(shop: ShopDatabase) -> AsyncGenerator[Any]:
    async with await psycopg.AsyncConnection.connect(shop.dsn) as connection:
        yield connection, connection.execute


@asynccontextmanager
async def by_async_psycopg_cursor(shop: ShopDatabase) -> AsyncGenerator[Any]:
    async with await psycopg.AsyncConnection.connect(shop.dsn) as connection, connection.cursor() as cursor:
        yield cursor, cursor.execute


async def _connect_asyncpg(shop: ShopDatabase) -> Any:
    assert shop.server is not None
    where = {"host": "127.0.0.1", "port": shop.server.port, "user": "holdfast", "database": "holdfast"}
    return await asyncpg.connect(**where, server_settings={"search_path": shop.schema})


@asynccontextmanager
async def by_asyncpg(shop: ShopDatabase) -> AsyncGenerator[Any]:
    connection = await _connect_asyncpg(shop)
    try:
        async with connection.transaction():
            yield connection, connection.execute
    finally:
        await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(shop: ShopDatabase) -> AsyncGenerator[Any]:
    assert shop.server is not None
    where = {"host": "127.0.0.1", "port": shop.server.port, "user": "holdfast", "database": "holdfast"}
    async with (
        asyncpg.create_pool(**where, server_settings={"search_path": shop.schema}, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection, connection.execute


@contextmanager
def by_django(shop: ShopDatabase) -> Generator[Any]:
    """Through `django.db.connection`, within `transaction.atomic`."""
    _configure_django(shop)
    try:
        with django_transaction.atomic():
            yield django_connection, lambda sql: django_connection.cursor().execute(sql)
    finally:
        django_connections.close_all()


def _configure_django(shop: ShopDatabase) -> None:
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
    if shop.server is None:
        one: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(shop.path)}
    else:
        where = {"HOST": "127.0.0.1", "PORT": shop.server.port, "USER": "holdfast", "NAME": "holdfast"}
        one = {"ENGINE": "django.db.backends.postgresql", **where}
        one["OPTIONS"] = {"options": f"-csearch_path={shop.schema}"}
    # Another database for each test: what Django keeps of the one before is forgotten.
    django_connections.settings = django_connections.configure_settings({"default": one})
    if hasattr(django_connections._connections, "default"):
        delattr(django_connections._connections, "default")


SQLITE: dict[str, Transaction] = {
    "sqlite3": by_sqlite3,
    "sqlite3-cursor": by_sqlite3_cursor,
    "aiosqlite": by_aiosqlite,
    "sqlalchemy-session": by_sqlalchemy_session,
    "sqlalchemy-scoped-session": by_scoped_session,
    "sqlalchemy-connection": by_sqlalchemy_connection,
    "django-sqlite": by_django,
}
POSTGRES: dict[str, Transaction] = {
    "psycopg": by_psycopg,
    "psycopg-cursor": by_psycopg_cursor,
    "psycopg-transaction-in-autocommit": by_psycopg_in_autocommit,
    "async-psycopg": by_async_psycopg,
    "async-psycopg-cursor": by_async_psycopg_cursor,
    "asyncpg": by_asyncpg,
    "asyncpg-pool": by_asyncpg_pool,
    "sqlalchemy-asyncpg-session": by_async_session("asyncpg"),
    "sqlalchemy-asyncpg-connection": by_async_connection("asyncpg"),
    "sqlalchemy-psycopg-session": by_async_session("psycopg"),
    "sqlalchemy-psycopg-connection": by_async_connection("psycopg"),
    "django-postgres": by_django,
}
ALL = {**SQLITE, **POSTGRES}


@pytest.fixture(params=ALL)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def shop(library: str, tmp_path: Path, request: pytest.FixtureRequest) -> ShopDatabase:
    server = request.getfixturevalue("postgres_server") if library in POSTGRES else None
    return ShopDatabase(tmp_path / "shop.db", server)


async def handle(shop: ShopDatabase, library: str, handler: str = "confirm", *, fails: bool = False) -> None:
    """What a handler does: in one transaction, `handled_in` and the effect."""
    opened = ALL[library](shop)
    if hasattr(opened, "__aenter__"):
        async with opened as (session, execute), paid_event(handler).handled_in(session):
            await execute(EFFECT)
            if fails:
                raise ConnectionError("the process dies here")
        return

    def blocking() -> None:
        with opened as (session, execute), paid_event(handler).handled_in(session):
            execute(EFFECT)
            if fails:
                raise ConnectionError("the process dies here")

    await asyncio.to_thread(blocking)


async def test_the_effect_happens_once_however_often_the_handler_runs(shop: ShopDatabase, library: str) -> None:
    await handle(shop, library)
    with pytest.raises(AlreadyHandled, match="has handled payment/order-1/3"):
        await handle(shop, library)

    assert (shop.effects, shop.handled) == (1, ["confirm"])


async def test_a_transaction_that_is_rolled_back_leaves_no_row(shop: ShopDatabase, library: str) -> None:
    with pytest.raises(ConnectionError):
        await handle(shop, library, fails=True)
    assert (shop.effects, shop.handled) == (0, [])

    await handle(shop, library)

    assert (shop.effects, shop.handled) == (1, ["confirm"])


async def test_two_handlers_of_one_event_know_nothing_of_each_other(shop: ShopDatabase, library: str) -> None:
    await handle(shop, library, "confirm")
    with pytest.raises(ConnectionError):
        await handle(shop, library, "archive", fails=True)
    await handle(shop, library, "archive")

    assert (shop.effects, shop.handled) == (2, ["archive", "confirm"])


# Without a transaction.


async def _psycopg_alone(shop: ShopDatabase) -> None:
    with psycopg.connect(shop.dsn, autocommit=True) as connection, paid_event().handled_in(connection):
        pytest.fail("entered")


async def _async_psycopg_alone(shop: ShopDatabase) -> None:
    async with (
        await psycopg.AsyncConnection.connect(shop.dsn, autocommit=True) as connection,
        paid_event().handled_in(connection),
    ):
        pytest.fail("entered")


async def _asyncpg_alone(shop: ShopDatabase) -> None:
    connection = await _connect_asyncpg(shop)
    try:
        async with paid_event().handled_in(connection):
            pytest.fail("entered")
    finally:
        await connection.close()


async def _sqlalchemy_alone(shop: ShopDatabase, driver: str, *, at_the_engine: bool = False) -> None:
    engine = _engine(shop, driver)
    if at_the_engine:
        alone = AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT"))
        async with alone as session, paid_event().handled_in(session):
            pytest.fail("entered")
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        async with paid_event().handled_in(connection):
            pytest.fail("entered")


async def _django_alone(shop: ShopDatabase) -> None:
    def blocking() -> None:
        _configure_django(shop)
        try:
            with paid_event().handled_in(django_connection):
                pytest.fail("entered")
        finally:
            django_connections.close_all()

    await asyncio.to_thread(blocking)


ALONE: dict[str, Callable[[ShopDatabase], Awaitable[None]]] = {
    "psycopg": _psycopg_alone,
    "async-psycopg": _async_psycopg_alone,
    "asyncpg": _asyncpg_alone,
    "sqlalchemy-asyncpg": lambda shop: _sqlalchemy_alone(shop, "asyncpg"),
    "sqlalchemy-psycopg": lambda shop: _sqlalchemy_alone(shop, "psycopg"),
    "sqlalchemy-asyncpg-engine": lambda shop: _sqlalchemy_alone(shop, "asyncpg", at_the_engine=True),
    "django": _django_alone,
}


@pytest.mark.parametrize("alone", ALONE)
async def test_without_an_open_transaction_it_is_refused(
    alone: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    shop = ShopDatabase(tmp_path / "shop.db", postgres_server)

    with pytest.raises(ConfigurationError, match="needs an open transaction"):
        await ALONE[alone](shop)

    assert shop.handled == []


def test_sqlalchemy_in_autocommit_is_refused_on_sqlite_too(tmp_path: Path) -> None:
    shop = ShopDatabase(tmp_path / "shop.db", None)
    engine = create_engine(f"sqlite:///{shop.path}", poolclass=NullPool, isolation_level="AUTOCOMMIT")

    with (
        pytest.raises(ConfigurationError, match="needs an open transaction"),
        Session(engine) as session,
        paid_event().handled_in(session),
    ):
        pytest.fail("entered")

    assert shop.handled == []


@pytest.mark.parametrize("library", [name for name, opened in ALL.items() if "async" in name or name == "aiosqlite"])
async def test_with_alone_is_refused_for_what_has_to_be_awaited(shop: ShopDatabase, library: str) -> None:
    async with ALL[library](shop) as (session, _):
        with pytest.raises(ConfigurationError, match="write async with"), paid_event().handled_in(session):
            pytest.fail("entered")

    assert shop.handled == []


async def test_a_pipeline_that_does_not_answer_is_refused(postgres_server: PostgresServer, tmp_path: Path) -> None:
    shop = ShopDatabase(tmp_path / "shop.db", postgres_server)

    async with await psycopg.AsyncConnection.connect(shop.dsn) as connection:
        async with connection.pipeline():
            with pytest.raises(ConfigurationError, match="outside a pipeline"):
                async with paid_event().handled_in(connection):
                    pytest.fail("entered")
        await connection.rollback()

    assert shop.handled == []


# At the same time.


async def test_of_two_runs_at_once_one_waits_and_finds_it_handled(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    shop = ShopDatabase(tmp_path / "shop.db", postgres_server)
    first, second = await _connect_asyncpg(shop), await _connect_asyncpg(shop)
    try:
        transaction = first.transaction()
        await transaction.start()
        async with paid_event().handled_in(first):
            await first.execute(EFFECT)

        async def run_again() -> None:
            async with second.transaction(), paid_event().handled_in(second):
                await second.execute(EFFECT)

        async with asyncio.TaskGroup() as group:
            again = group.create_task(_outcome(run_again()))
            await _until_somebody_waits(first)
            assert not again.done()
            await transaction.commit()
    finally:
        await first.close()
        await second.close()

    assert isinstance(again.result(), AlreadyHandled)
    assert (shop.effects, shop.handled) == (1, ["confirm"])


async def _outcome(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except AlreadyHandled as error:
        return error
    return None


async def _until_somebody_waits(connection: Any) -> None:
    async with asyncio.timeout(30):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass


async def test_a_serialization_failure_is_an_ordinary_retry(postgres_server: PostgresServer, tmp_path: Path) -> None:
    shop = ShopDatabase(tmp_path / "shop.db", postgres_server)
    clock, vendor = ManualClock(), FakePayments()
    hub = Holdfast(store="memory://", payments=[vendor], clock=clock)
    failures: list[BaseException] = []

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        async with await psycopg.AsyncConnection.connect(shop.dsn) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await connection.execute("SELECT count(*) FROM confirmed")
            if not failures:
                await _change_elsewhere(shop)
            async with paid.handled_in(connection):
                try:
                    await connection.execute("UPDATE confirmed SET reference = 'taken' WHERE reference = 'free'")
                except SerializationFailure as error:
                    failures.append(error)
                    raise
                await connection.execute(EFFECT)

    with psycopg.connect(shop.dsn) as connection:
        connection.execute("INSERT INTO confirmed VALUES ('free')")
    async with hub:
        offer = await hub.payments.create("order-1", Money("1.00", "CHF"))
        vendor.pay(offer.reference)
        await hub.payments.refresh("order-1")
        await hub.settle()
        [failed] = await hub.store.jobs.list(JobFilter(queue="events"))
        nothing = (shop.effects, shop.handled)
        await clock.advance(60)
        await hub.settle()
        [done] = await hub.store.jobs.list(JobFilter(queue="events"))

    assert (failed.state, failed.attempts, len(failures)) == (JobState.READY, 1, 1)
    assert nothing == (1, [])
    assert (done.state, shop.effects, shop.handled) == (JobState.DONE, 2, ["confirm"])


async def _change_elsewhere(shop: ShopDatabase) -> None:
    async with await psycopg.AsyncConnection.connect(shop.dsn) as other:
        await other.execute("UPDATE confirmed SET reference = 'free' WHERE reference = 'free'")


# What a handler hands on.


async def test_a_handler_is_told_its_fencing_token_and_its_idempotency_key() -> None:
    clock, vendor = ManualClock(), FakePayments()
    hub = Holdfast(store="memory://", payments=[vendor], clock=clock)
    seen: list[PaymentPaid] = []

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        seen.append(paid)
        if len(seen) == 1:
            raise ConnectionError("once more")

    @hub.on(PaymentPaid, name="archive")
    async def archive(paid: PaymentPaid) -> None:
        seen.append(paid)

    async with hub:
        await hub.payments.create("order-1", Money("1.00", "CHF"))
        vendor.pay("order-1")
        await hub.payments.refresh("order-1")
        await hub.settle()
        await clock.advance(60)
        await hub.settle()
        [job] = await hub.store.jobs.list(JobFilter(handler="confirm"))
        await hub.store.jobs.replay(job.id)
        await hub.settle()

    runs = [event for event in seen if event.handler == "confirm"]
    tokens = [event.fencing_token for event in runs]
    assert tokens == sorted(set(tokens))
    assert runs[0].idempotency_key == runs[1].idempotency_key == idempotency_key(runs[0].id, "confirm", 0)
    assert len({event.idempotency_key for event in seen}) == 3
    assert all(len(event.idempotency_key) == 64 for event in seen)


def test_event_and_handler_cannot_be_shifted_into_each_other() -> None:
    assert idempotency_key("a", "bc", 0) != idempotency_key("ab", "c", 0)
