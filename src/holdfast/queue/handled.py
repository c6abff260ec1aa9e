"""Exactly once in the user's own database: one row, in the user's own transaction."""

import sqlite3
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self

from holdfast.clock import SystemClock
from holdfast.errors import AlreadyHandled, ConfigurationError
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


class _Inserted(Protocol):
    """What every database says of an INSERT."""

    rowcount: int


class Handled:
    """The block in which a handler's effect and its proof commit together; made by `event.handled_in`."""

    def __init__(self, event: str, handler: str, session: Any) -> None:
        self._row = {"event": event, "handler": handler, "at": SystemClock().now().isoformat()}
        self._session = session
        self._mark = transaction()

    def __enter__(self) -> Self:
        self._enter(self._insert())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._mark.__exit__(kind, error, at)

    async def __aenter__(self) -> Self:
        inserted = self._insert()
        self._enter(await inserted if hasattr(inserted, "__await__") else inserted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def _enter(self, inserted: _Inserted) -> None:
        entered = ENTERED.get()
        if entered is not None:
            entered.append(self._row["event"])
        if not inserted.rowcount:
            raise AlreadyHandled(self._row["event"], self._row["handler"])
        self._mark.__enter__()

    def _insert(self) -> Any:
        if isinstance(self._session, sqlite3.Connection):
            # Since Python 3.12 `autocommit=True` says so too; before, there is no such attribute.
            alone = self._session.isolation_level is None or getattr(self._session, "autocommit", False) is True
            if alone and not self._session.in_transaction:
                raise ConfigurationError("handled_in needs an open transaction; execute BEGIN first")
            return self._session.execute(_INSERT, self._row)
        if any(base.__module__.startswith("sqlalchemy.") for base in type(self._session).__mro__):
            from sqlalchemy import text  # the session is SQLAlchemy's, so it is installed

            return self._session.execute(text(_INSERT), self._row)
        raise ConfigurationError(
            f"handled_in takes a sqlite3 connection or a SQLAlchemy session, not {type(self._session).__name__}"
        )
