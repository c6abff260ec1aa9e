"""One statement on the user's own database session, whichever library it comes from, in the user's own transaction."""

import inspect
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from holdfast.errors import ConfigurationError

Parameters = Mapping[str, object]
Row = Sequence[Any]
T = TypeVar("T")

_NAME = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")

KNOWN = (
    "a sqlite3 or aiosqlite connection, a SQLAlchemy session or connection, "
    "a psycopg or asyncpg connection, or Django's connection"
)


def execute(session: object, sql: str, parameters: Parameters) -> int | Awaitable[int]:
    """How many rows the statement changed; of an asynchronous session an awaitable that says so.

    `sql` names its parameters as `:name` and holds no other colon, no percent sign and no question mark.

    Raises:
        ConfigurationError: No session we know, or none with an open transaction.
    """
    return _then(_run(session, sql, parameters, rows=False), lambda done: cast("int", done.rowcount))


def fetch(session: object, sql: str, parameters: Parameters) -> Sequence[Row] | Awaitable[Sequence[Row]]:
    """The rows the statement gives; of an asynchronous session an awaitable of them. As `execute` otherwise."""
    return _then(_run(session, sql, parameters, rows=True), lambda done: cast("Sequence[Row]", done.fetchall()))


def is_asynchronous(session: object) -> bool:
    """Whether what it does has to be awaited."""
    # aiosqlite and asyncpg's pools wrap their methods, which hides what they are.
    wrapped = _of(session, "aiosqlite") or _of(session, "asyncpg")
    return wrapped or inspect.iscoroutinefunction(getattr(session, "execute", None))


def is_known(session: object) -> bool:
    """Whether it is something that takes statements."""
    packages = ("aiosqlite", "asyncpg", "django", "psycopg", "sqlalchemy")
    return isinstance(session, sqlite3.Connection) or any(_of(session, package) for package in packages)


def dialect(session: Any) -> str:
    """Which SQL its database speaks: `sqlite`, `postgresql`, or another name. Raises ConfigurationError."""
    if isinstance(session, sqlite3.Connection) or _of(session, "aiosqlite"):
        return "sqlite"
    if _of(session, "psycopg") or _of(session, "asyncpg"):
        return "postgresql"
    if _of(session, "sqlalchemy"):
        bind = session.get_bind() if hasattr(session, "get_bind") else session
        return cast("str", bind.dialect.name)
    if _of(session, "django"):
        return cast("str", session.vendor)
    raise ConfigurationError(f"this takes {KNOWN}, not {type(session).__name__}")


def begin(session: Any) -> object:
    """Open a transaction, unless one is open or the library opens it by itself; an asynchronous one is awaited."""
    if isinstance(session, sqlite3.Connection) or _of(session, "aiosqlite"):
        alone = session.isolation_level is None or getattr(session, "autocommit", False) is True
        return session.execute("BEGIN") if alone and not session.in_transaction else None
    if _of(session, "psycopg"):
        return session.execute("BEGIN") if session.autocommit and session.info.transaction_status == 0 else None
    if _of(session, "asyncpg"):
        return session.execute("BEGIN") if not session.is_in_transaction() else None
    if _of(session, "django") and session.get_autocommit():
        session.set_autocommit(False)
    return None


def commit(session: Any) -> object:
    """Commit what `begin` opened; an asynchronous one is awaited."""
    return cast("object", session.execute("COMMIT") if _of(session, "asyncpg") else session.commit())


def rollback(session: Any) -> object:
    """Undo what `begin` opened, if it is open; an asynchronous one is awaited."""
    if _of(session, "asyncpg"):
        return session.execute("ROLLBACK") if session.is_in_transaction() else None
    return cast("object", session.rollback())


def close(session: Any) -> object:
    """Give it back to where it came from; an asynchronous one is awaited."""
    return cast("object", session.close())


def _run(session: Any, sql: str, parameters: Parameters, *, rows: bool) -> Any:
    """What the library gives for a statement, or an awaitable of it; it has a `rowcount` and a `fetchall`."""
    if isinstance(session, sqlite3.Cursor) or (_of(session, "psycopg") and hasattr(session, "fetchall")):
        session = session.connection  # what the caller's cursor holds is the caller's
    if isinstance(session, sqlite3.Connection) or _of(session, "aiosqlite"):
        return _run_sqlite(session, sql, parameters)
    if _of(session, "sqlalchemy"):
        return _run_sqlalchemy(session, sql, parameters)
    if _of(session, "psycopg"):
        return _run_psycopg(session, sql, parameters)
    if _of(session, "asyncpg"):
        return _run_asyncpg(session, sql, parameters, rows)
    if _of(session, "django"):
        return _run_django(session, sql, parameters)
    raise ConfigurationError(f"this takes {KNOWN}, not {type(session).__name__}")


def _of(session: object, package: str) -> bool:
    return any(base.__module__.partition(".")[0] == package for base in type(session).__mro__)


def _run_sqlite(session: Any, sql: str, parameters: Parameters) -> Any:
    _check_sqlite(session)
    return session.execute(sql, dict(parameters))


def _check_sqlite(connection: Any) -> None:
    # Since Python 3.12 `autocommit=True` says so too; before, there is no such attribute.
    alone = connection.isolation_level is None or getattr(connection, "autocommit", False) is True
    _check_open(connection.in_transaction or not alone)


def _run_sqlalchemy(session: Any, sql: str, parameters: Parameters) -> Any:
    from sqlalchemy import text  # the session is SQLAlchemy's, so it is installed

    # A session lends its connection, and begins its transaction by that; a connection is one already.
    lends = hasattr(session, "get_bind")
    if not is_asynchronous(session):
        _check_sqlalchemy(session.connection() if lends else session)
        return session.execute(text(sql), dict(parameters))

    async def later() -> Any:
        connection = await session.connection() if lends else session
        _check_sqlalchemy(connection.sync_connection)
        return await session.execute(text(sql), dict(parameters))

    return later()


def _check_sqlalchemy(connection: Any) -> None:
    lent = connection.connection if connection is not None else None
    driver = getattr(lent, "driver_connection", None)
    if isinstance(driver, sqlite3.Connection) or _of(driver, "aiosqlite"):
        _check_sqlite(driver)
    else:
        _check_open(lent is not None and getattr(lent.dbapi_connection, "autocommit", False) is not True)


def _run_psycopg(session: Any, sql: str, parameters: Parameters) -> Any:
    _check_open(session.info.transaction_status != 0 or not session.autocommit)
    return session.execute(_NAME.sub(r"%(\1)s", sql), dict(parameters))


async def _run_asyncpg(session: Any, sql: str, parameters: Parameters, rows: bool) -> "_Done":
    _check_open(session.is_in_transaction())
    numbered, values = _positional(sql, parameters, lambda number: f"${number}")
    if rows:
        return _Done(0, await session.fetch(numbered, *values))
    return _Done(int((await session.execute(numbered, *values)).rpartition(" ")[2]), ())


def _run_django(session: Any, sql: str, parameters: Parameters) -> "_Done":
    _check_open(not session.get_autocommit())
    plain, values = _positional(sql, parameters, lambda number: "%s")
    with session.cursor() as cursor:
        cursor.execute(plain, values)
        return _Done(cursor.rowcount, cursor.fetchall() if cursor.description else ())


def _check_open(in_transaction: bool) -> None:
    if not in_transaction:
        raise ConfigurationError("this needs an open transaction; BEGIN one first")


@dataclass(frozen=True, slots=True)
class _Done:
    """What the libraries without such a cursor say of a statement."""

    rowcount: int
    rows: Sequence[Row]

    def fetchall(self) -> Sequence[Row]:
        return self.rows


def _positional(sql: str, parameters: Parameters, mark: Callable[[int], str]) -> tuple[str, list[object]]:
    """The statement with numbered places instead of names, and the values in their order."""
    values: list[object] = []

    def place(match: re.Match[str]) -> str:
        values.append(parameters[match[1]])
        return mark(len(values))

    return _NAME.sub(place, sql), values


def _then(done: Any, read: Callable[[Any], T | Awaitable[T]]) -> T | Awaitable[T]:
    if not inspect.isawaitable(done):
        return read(done)

    async def later() -> T:
        result = read(await done)
        return cast("T", await result if inspect.isawaitable(result) else result)

    return later()
