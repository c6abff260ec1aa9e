"""Exactly once in the user's own database: one row, in the user's own transaction."""

import inspect
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self, cast

from holdfast.clock import SystemClock
from holdfast.errors import AlreadyHandled, ConfigurationError
from holdfast.queue.sessions import execute, is_asynchronous
from holdfast.resilience.context import transaction

ENTERED: ContextVar[list[str] | None] = ContextVar("holdfast_entered", default=None)
"""Where a block that is entered puts its event's id, for who called the handler to see."""

_TABLE = "holdfast_handled"
_COLUMNS = "event, handler, at"
_INSERT = f"INSERT INTO {_TABLE} ({_COLUMNS}) VALUES (:event, :handler, :at) ON CONFLICT DO NOTHING"  # constants only

_DDL = {
    "sqlite": f"CREATE TABLE IF NOT EXISTS {_TABLE} "
    "(event TEXT NOT NULL, handler TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (event, handler)) WITHOUT ROWID",
    "postgresql": f"CREATE TABLE IF NOT EXISTS {_TABLE} "
    "(event text NOT NULL, handler text NOT NULL, at text NOT NULL, PRIMARY KEY (event, handler))",
}


def handled_ddl(dialect: str = "sqlite") -> str:
    """The statement that makes the table `handled_in` writes to, for `sqlite` or `postgresql`.

    Raises:
        ConfigurationError: Another dialect.
    """
    try:
        return _DDL[dialect]
    except KeyError:
        raise ConfigurationError(f"no table for {dialect!r}; choose one of {', '.join(_DDL)}") from None


@contextmanager
def _table_named() -> Generator[None]:
    """Where the database lacks the table, its own error also says how to make it."""
    try:
        yield
    except Exception as error:  # whatever the caller's driver raises: it is the caller's, and goes on as it is
        if "holdfast_handled" in str(error):
            error.add_note("is the table there? make it once, with your migrations: holdfast.handled_ddl(…)")
        raise


class Handled:
    """The block in which a handler's effect and its proof commit together; made by `event.handled_in`."""

    def __init__(self, event: str, handler: str, session: object) -> None:
        self._row = {"event": event, "handler": handler, "at": SystemClock().now().isoformat()}
        self._session = session
        self._mark = transaction()

    def __enter__(self) -> Self:
        if is_asynchronous(self._session):
            raise ConfigurationError("this session is asynchronous: write async with event.handled_in(session)")
        with _table_named():
            inserted = cast("int", self._insert())
        self._enter(inserted)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._mark.__exit__(kind, error, at)

    async def __aenter__(self) -> Self:
        with _table_named():
            inserted = self._insert()
            inserted = await inserted if inspect.isawaitable(inserted) else inserted
        self._enter(inserted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def _enter(self, inserted: int) -> None:
        entered = ENTERED.get()
        if entered is not None:
            entered.append(self._row["event"])
        if inserted == 0:
            raise AlreadyHandled(self._row["event"], self._row["handler"])
        if inserted != 1:
            # As in psycopg's pipeline: the answer comes later, and whether this is the first run is needed now.
            raise ConfigurationError(
                "this session does not say whether the row is new; use handled_in outside a pipeline"
            )
        self._mark.__enter__()

    def _insert(self) -> int | Awaitable[int]:
        return execute(self._session, _INSERT, self._row)
