"""Backups of a SQLite store: SQLite's own online backup of one moment, in steps between which everybody else writes."""

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from holdfast.clock import SystemClock
from holdfast.errors import BackupUnusable, ConfigurationError, SchemaTooNew, StoreNotEmpty
from holdfast.stores.archive import Archive, Manifest, NewArchive, remove
from holdfast.stores.fencing import BEYOND
from holdfast.stores.findings import Finding, Findings
from holdfast.stores.sqlite_schema import MIGRATIONS, connect, connect_to_read, connect_to_write, translate

Progress = Callable[[float], None]

STORE: Final = "store.db"
PAGES: Final = 256
"""A step: a megabyte."""
COPYING, CHECKING, PACKING = 0.3, 0.5, 1.0
"""How far a backup is when each of these is done."""

STATES: Final = "SELECT queue || '/' || state, count(*) FROM jobs GROUP BY 1"
KINDS: Final = "SELECT kind, count(*) FROM records GROUP BY 1"
# Everything a copy must not go on with: leases, slots of the moment, facts that were told. Tokens and numbers go beyond
# whatever was given out after the backup.
FENCE: Final = (
    f"""
    UPDATE jobs SET token = token + {BEYOND}, owner = '', lease_until = 0,
        state = CASE state WHEN 'leased' THEN 'ready' ELSE state END
    """,
    f"UPDATE sqlite_sequence SET seq = seq + {BEYOND}",
    f"UPDATE leases SET number = number + {BEYOND}, owner = '', until = 0",
    "DELETE FROM slots",
    "DELETE FROM facts",
)
WRONG: Final = {
    "jobs without a payload": "SELECT number FROM jobs WHERE number NOT IN (SELECT number FROM payloads)",
    "payloads without a job": "SELECT number FROM payloads WHERE number NOT IN (SELECT number FROM jobs)",
    "jobs in no known state": """
        SELECT number FROM jobs WHERE state NOT IN ('ready', 'leased', 'done', 'dead', 'ignored')
    """,
    "jobs that wait and will never run": """
        SELECT number FROM jobs WHERE ordering_key = '' AND head = 0 AND state IN ('ready', 'leased')
    """,
    "ended jobs that stand in line": "SELECT number FROM jobs WHERE head <> 0 AND state NOT IN ('ready', 'leased')",
    "jobs of an ordering key that runs no more": """
        SELECT min(number) FROM jobs WHERE ordering_key <> '' AND state IN ('ready', 'leased')
        GROUP BY queue, ordering_key HAVING sum(head) <> 1
    """,
    "index entries without a record": """
        SELECT entry.kind || '/' || entry.key FROM record_index AS entry
        LEFT JOIN records USING (kind, key) WHERE records.key IS NULL
    """,
    "unreadable headers": "SELECT number FROM payloads WHERE NOT json_valid(headers)",
    "unreadable records": "SELECT kind || '/' || key FROM records WHERE NOT json_valid(value)",
}


class SqliteBackup:
    """A store in one file."""

    def __init__(self, store: str) -> None:
        """Raises ConfigurationError: no such URL."""
        path = store.removeprefix("sqlite:///")
        if path == store or not path or "?" in path:
            raise ConfigurationError("that is no sqlite:/// URL")
        self._path = Path(path)

    def save(self, archive: NewArchive, progress: Progress) -> Manifest:
        self._require_file()
        copy = archive.partial.with_suffix(".db")
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with _translated(), closing(connect_to_read(str(self._path))) as source:
                schema = _schema(source, self._path)
                begun_at = SystemClock().now()
                _copy(source, copy, progress)
            with _translated(), closing(connect(str(copy))) as copied:
                _require_sound(copied)
                progress(CHECKING)
                counted = _counted(copied)
            with archive.part(STORE) as part:
                _pack(copy, part.write, progress)
        finally:
            remove(copy, *_beside(copy))
        return Manifest(
            engine="sqlite",
            schema=schema,
            begun_at=begun_at,
            ended_at=SystemClock().now(),
            one_moment=True,
            jobs=counted[0],
            records=counted[1],
            keys=counted[2],
        )

    def load(self, archive: Archive, *, replace: bool, progress: Progress) -> None:
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}.restoring")
        with _translated():
            if not replace:
                self._require_empty()
            try:
                archive.extract(STORE, new)
                progress(0.4)
                with closing(connect_to_write(str(new))) as restored:
                    _require_sound(restored)
                    progress(0.6)
                    _fence(restored)
                    progress(0.8)
                    if self._path.exists():
                        self._overwrite(restored)
                    else:
                        _into_one_file(restored)
                if not self._path.exists():
                    remove(*_beside(self._path))  # a log that was left behind would be replayed into the new file
                    os.link(new, self._path)
                progress(1.0)
            finally:
                remove(new, *_beside(new))

    def examine(self, progress: Progress) -> list[Finding]:
        self._require_file()
        with _translated(), closing(connect_to_read(str(self._path))) as connection:
            _schema(connection, self._path)
            return _examined(connection, progress).list

    @staticmethod
    def inspect(archive: Archive, progress: Progress) -> list[Finding]:
        copy = archive.file.with_name(f".{archive.file.name}.{os.getpid()}.verifying")
        try:
            archive.extract(STORE, copy)
            with _translated(), closing(connect(str(copy))) as connection:
                found = _examined(connection, progress)
                jobs, records, keys = _counted(connection)
            found.compare("jobs by queue and state", dict(archive.manifest.jobs), jobs)
            found.compare("records by kind", dict(archive.manifest.records), records)
            found.compare("keys of purged jobs", archive.manifest.keys, keys)
            return found.list
        finally:
            remove(copy, *_beside(copy))

    def _require_file(self) -> None:
        if not self._path.is_file():
            raise ConfigurationError(f"sqlite: there is no file {self._path}")

    def _require_empty(self) -> None:
        if self._path.exists():
            with closing(connect_to_read(str(self._path))) as connection:
                tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
                if tables and _schema(connection, self._path) and _holds_something(connection):
                    raise StoreNotEmpty(f"sqlite: {self._path} is not empty; restore elsewhere, or replace it")
        elif left := [file for file in _beside(self._path) if file.exists()]:
            raise StoreNotEmpty(f"sqlite: {left[0]} is left of another file, which is gone; take it away first")

    def _overwrite(self, restored: Connection) -> None:
        """Through SQLite, so that whoever has the file open goes on with what is in it now."""
        with closing(connect_to_write(str(self._path))) as target:
            target.execute("BEGIN IMMEDIATE")  # wait for whoever writes, and fail when that takes too long
            target.execute("ROLLBACK")
            restored.backup(target)
            target.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _copy(source: Connection, copy: Path, progress: Progress) -> None:
    """As the source is now, however long it takes."""
    # The open transaction keeps the moment; without it each commit of somebody else would begin the copy anew.
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM meta").fetchone()
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        source.backup(target, pages=PAGES, progress=lambda _, left, all: progress(COPYING * (1 - left / max(1, all))))
        target.execute("PRAGMA journal_mode = DELETE").fetchall()
    source.execute("COMMIT")


def _pack(copy: Path, write: Callable[[bytes], None], progress: Progress) -> None:
    size, done = max(1, copy.stat().st_size), 0
    with copy.open("rb") as file:
        while chunk := file.read(1 << 20):
            write(chunk)
            done += len(chunk)
            progress(CHECKING + (PACKING - CHECKING) * done / size)


def _fence(connection: Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for change in FENCE:
        connection.execute(change)
    connection.execute("COMMIT")


def _into_one_file(connection: Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()


def _examined(connection: Connection, progress: Progress) -> Findings:
    """What is wrong, as of one moment."""
    found = Findings()
    connection.execute("BEGIN")
    for (said,) in connection.execute("PRAGMA integrity_check").fetchall():
        if said != "ok":
            found.add(f"sqlite: {said}")
    for done, (what, query) in enumerate(WRONG.items(), 1):
        found.all([(what, (row for (row,) in connection.execute(query)))])
        progress(0.5 + 0.5 * done / len(WRONG))
    connection.execute("COMMIT")
    return found


def _require_sound(connection: Connection) -> None:
    said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if said != "ok":
        raise BackupUnusable(f"sqlite says of the copy: {said}")


def _counted(connection: Connection) -> tuple[dict[str, int], dict[str, int], int]:
    """Jobs, records, and keys of purged jobs."""
    keys: int = connection.execute("SELECT count(*) FROM dropped").fetchone()[0]
    return dict(connection.execute(STATES).fetchall()), dict(connection.execute(KINDS).fetchall()), keys


def _holds_something(connection: Connection) -> bool:
    jobs, records, keys = _counted(connection)
    return bool(jobs or records or keys)


def _schema(connection: Connection, path: Path) -> int:
    """Raises ConfigurationError: it is no file of holdfast's. Raises SchemaTooNew."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not {"meta", "jobs", "payloads", "records"} <= tables:
        raise ConfigurationError(f"sqlite: {path} is not a file of holdfast's")
    found: int = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0]
    if found > len(MIGRATIONS):
        raise SchemaTooNew(found, len(MIGRATIONS))
    return found


def _beside(path: Path) -> tuple[Path, ...]:
    """What SQLite keeps beside the file."""
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error) from error
