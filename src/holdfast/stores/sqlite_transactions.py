"""Changes of the user's own, made in the transaction that ends their jobs."""

import re
import sqlite3
from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

from holdfast.errors import ConfigurationError, StoreUnavailable
from holdfast.stores.sqlite_schema import MIGRATIONS, translate

LONGEST: Final = 0.05
"""Seconds after which a transaction takes no further change: whoever else wants to write waits for it."""

# As the writer's own texts, these are not prepared under words that a change of the user's may say.
SAVE: Final = "SAVEPOINT holdfast_job -- holdfast"
UNDO: Final = "ROLLBACK TO holdfast_job -- holdfast"
KEEP: Final = "RELEASE holdfast_job -- holdfast"

OWN_TABLES: Final = frozenset(re.findall(r"CREATE TABLE (\w+)", "".join(MIGRATIONS)))
READING: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
ATTACHING: Final = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}

ENDING: Final = (
    "a transactional handler may not begin, commit or roll back, and executescript() commits: "
    "what it changes is committed with the end of its job, and undone when it raises"
)


class Changes:
    """Makes changes of the user's, and keeps them from ending the transaction and from the store's own tables."""

    def __init__(self) -> None:
        self._guarded: Connection | None = None
        self._theirs = False
        self._refusal = ""

    def make(self, connection: Connection, change: Callable[[Connection], None]) -> Exception | None:
        """What the change raised, and then nothing of it is kept. Raises StoreUnavailable: nothing of anything is."""
        if self._guarded is not connection:
            connection.set_authorizer(self._authorize)
            self._guarded = connection
        connection.execute(SAVE)
        raised = self._attempt(connection, change)
        if not connection.in_transaction:  # as SQLite does where the disk is full
            raise StoreUnavailable("sqlite: the transaction is gone") from raised
        if raised is not None:
            connection.execute(UNDO)
        connection.execute(KEEP)
        return raised

    def _attempt(self, connection: Connection, change: Callable[[Connection], None]) -> Exception | None:
        raised: BaseException | None = None
        self._theirs, self._refusal = True, ""
        try:
            change(connection)
        except BaseException as error:  # a border: beyond it is the thread that writes, which nothing may end
            raised = error
        finally:
            self._theirs = False
            connection.row_factory, connection.text_factory = None, str
        if self._refusal:
            refused = ConfigurationError(self._refusal)
            refused.__cause__ = raised
            return refused
        return _as_failure(raised)

    def _authorize(self, action: int, what: str | None, also: str | None, database: str | None, by: str | None) -> int:
        """Asked when a statement is prepared, with what it would do."""
        if not self._theirs or action in READING:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_TRANSACTION or (
            action == sqlite3.SQLITE_SAVEPOINT and str(also).casefold().startswith("holdfast")
        ):
            self._refusal = ENDING
        elif what in OWN_TABLES or also in OWN_TABLES:
            table = what if what in OWN_TABLES else also
            self._refusal = f"{table} is a table of holdfast's: a transactional handler changes only tables of its own"
        elif action in ATTACHING or (action == sqlite3.SQLITE_PRAGMA and also is not None):
            self._refusal = f"a transactional handler may not change its connection: {what} {also or ''}"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def _as_failure(raised: BaseException | None) -> Exception | None:
    if raised is None:
        return None
    if not isinstance(raised, Exception):
        failure = RuntimeError(f"a transactional handler raised {type(raised).__name__}")
        failure.__cause__ = raised
        return failure
    disk = getattr(raised, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return translate(raised) if disk else raised
