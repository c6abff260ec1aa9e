"""What is in the file, how it is opened, and what its errors mean."""

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from sqlite3 import Connection

from holdfast.errors import ConfigurationError, HoldfastError, InvalidInput, SchemaTooNew, StoreError, StoreUnavailable

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that is writing."""

FIRST = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    handler TEXT NOT NULL,
    ordering_key TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    head INTEGER NOT NULL,  -- 1: next of its ordering key, or without one; only such a row may be claimed
    token INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    arrivals INTEGER NOT NULL DEFAULT 1,
    conflicts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (queue, key)
);
CREATE INDEX jobs_due ON jobs (queue, due_at) WHERE state = 'ready' AND head = 1;
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 'leased';
CREATE INDEX jobs_in_order ON jobs (queue, ordering_key, number)
    WHERE ordering_key <> '' AND state IN ('ready', 'leased');
CREATE UNIQUE INDEX jobs_head ON jobs (queue, ordering_key) WHERE ordering_key <> '' AND head = 1;
CREATE INDEX jobs_ended ON jobs (state, ended_at) WHERE state IN ('done', 'ignored', 'dead');
CREATE INDEX jobs_kept ON jobs (state) WHERE state IN ('dead', 'ignored');  -- what people list, by number

CREATE TABLE payloads (  -- apart, so that the pages every claim walks stay small
    number INTEGER PRIMARY KEY,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE dropped (  -- keys of purged jobs
    fingerprint BLOB PRIMARY KEY,
    dropped_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dropped_by_age ON dropped (dropped_at);

CREATE TABLE records (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    value TEXT NOT NULL,
    due_at INTEGER,
    PRIMARY KEY (kind, key)
);
CREATE INDEX records_due ON records (kind, due_at, key) WHERE due_at IS NOT NULL;
CREATE TABLE record_index (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (kind, name, value, key)
) WITHOUT ROWID;
CREATE INDEX record_index_by_key ON record_index (kind, key);

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    number INTEGER NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sums (
    name TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (name, bucket)
) WITHOUT ROWID;
CREATE INDEX sums_expired ON sums (expires_at);

CREATE TABLE slots (
    name TEXT NOT NULL,
    until INTEGER NOT NULL,
    owner TEXT NOT NULL,
    cooling INTEGER NOT NULL,  -- 1: given back, free to take from `until` on
    taken INTEGER NOT NULL,
    PRIMARY KEY (name, until, owner, cooling)
) WITHOUT ROWID;

CREATE TABLE facts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL,
    topic TEXT NOT NULL,
    fact TEXT NOT NULL
);
"""

MIGRATIONS: tuple[str, ...] = (FIRST,)
"""Each leads to the next schema version; released ones never change."""

ERRORS: dict[type[Exception], type[HoldfastError]] = {
    sqlite3.DataError: InvalidInput,  # larger than SQLite's limit
    OverflowError: InvalidInput,  # beyond 64 bits
    UnicodeEncodeError: InvalidInput,  # half of a surrogate pair
    sqlite3.IntegrityError: StoreError,
    sqlite3.InterfaceError: StoreError,
    sqlite3.NotSupportedError: StoreError,
    sqlite3.ProgrammingError: StoreError,
    sqlite3.Warning: StoreError,
    sqlite3.DatabaseError: StoreUnavailable,  # damaged
    sqlite3.InternalError: StoreUnavailable,
    sqlite3.OperationalError: StoreUnavailable,  # locked, full, unreadable
    sqlite3.Error: StoreUnavailable,
}

HINTS: dict[str, str] = {
    "database is locked": f"; another connection has been writing for over {BUSY_TIMEOUT:g} s: end its transaction",
    "unable to open database file": "; is its directory there, and may this process write to it?",
    "not a database": "; nothing was changed: restore a backup, or choose another file",
}
"""What to do, by what SQLite says."""


def translate(error: Exception) -> Exception:
    """The error as holdfast says it; what is no error of SQLite stays as it is."""
    ours = ERRORS.get(type(error))
    if ours is None:
        return error
    hint = next((hint for said, hint in HINTS.items() if said in str(error)), "")
    translated = ours(f"sqlite: {error}{hint}")
    translated.__cause__ = error
    return translated


def connect(path: str) -> Connection:
    """A connection that waits for other writers; it may be closed by another thread than its own."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def connect_to_read(path: str) -> Connection:
    """A connection that cannot write."""
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_to_write(path: str, migrations: Sequence[str] = MIGRATIONS) -> Connection:
    """The connection that writes, to a file whose schema is up to date and whose commits survive a power loss.

    Raises:
        SchemaTooNew: The file was written by a newer holdfast.
        ConfigurationError: It is no file of holdfast's, or cannot be shared between processes.
    """
    connection = connect(path)
    try:
        _enter_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")
        # Far behind the checkpoints that are made beside the writer: one it makes itself holds up all who wait for it.
        connection.execute("PRAGMA wal_autocheckpoint = 16000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -16384")
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: Connection) -> None:
    # The change of mode does not wait for the busy timeout when two processes create the file at once.
    pause = threading.Event()
    for _ in range(100):
        try:
            mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            pause.wait(BUSY_TIMEOUT / 100)
        else:
            if mode != "wal":
                raise ConfigurationError(f"sqlite: no WAL here (journal mode {mode}); use a file on a local disk")
            return
    raise StoreUnavailable("sqlite: another process keeps the file locked")


def _migrate(connection: Connection, path: str, migrations: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection, path)
        if found > len(migrations):
            raise SchemaTooNew(found, len(migrations))
        for migration in migrations[found:]:
            for statement in _statements(migration):
                connection.execute(statement)
        if found < len(migrations):
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (len(migrations),))
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: Connection, path: str) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "meta" in tables and "jobs" in tables:
        with closing(connection.execute("SELECT value FROM meta WHERE name = 'schema'")) as rows:
            version: int = rows.fetchone()[0]
            return version
    if tables:
        raise ConfigurationError(f"sqlite: {path} is not a file of holdfast's; give it a file of its own")
    return 0


def _statements(script: str) -> list[str]:
    """Each ends with its line; one by one, since `executescript` would commit in between."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
