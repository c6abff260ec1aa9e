"""Backups of a store: made while it is used, restored elsewhere, and examined."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from holdfast.errors import BackupUnusable, ConfigurationError, MissingExtra
from holdfast.stores import redis_address
from holdfast.stores.archive import Archive, Manifest, NewArchive
from holdfast.stores.findings import Finding
from holdfast.stores.sqlite_backup import SqliteBackup

T = TypeVar("T")
Progress = Callable[[float], None]
"""Told the share that is done, from a thread of the backup's own."""


class SupportsBackup(Protocol):
    """An engine whose content can be put into a file and taken out again; every method blocks its thread."""

    def __init__(self, store: str) -> None:
        """Nothing is opened yet. Raises ConfigurationError: no such URL."""
        ...

    def save(self, archive: NewArchive, progress: Progress) -> Manifest:
        """Put everything into the archive; others read and write meanwhile."""
        ...

    def load(self, archive: Archive, *, replace: bool, progress: Progress) -> None:
        """Take everything out of the archive, with no job leased and no old token or number good any more.

        Raises:
            StoreNotEmpty: There is something already, and it is not to be replaced.
            BackupUnusable: The archive is damaged. Nothing was changed.
        """
        ...

    def examine(self, progress: Progress) -> list[Finding]:
        """What is wrong in the store."""
        ...

    @staticmethod
    def inspect(archive: Archive, progress: Progress) -> list[Finding]:
        """What is wrong in a backup of this engine. Raises BackupUnusable."""
        ...


async def back_up(store: str, file: str | os.PathLike[str], *, progress: Progress | None = None) -> Manifest:
    """Write a backup of the store at this URL; it may be used meanwhile.

    Raises:
        ConfigurationError: There is no such store, or the file is there already.
        StoreUnavailable: The store did not answer; there is no file.
    """

    def save(tell: Progress) -> Manifest:
        with NewArchive(Path(file)) as archive:
            return archive.finish(_engine(store).save(archive, tell))

    return await _in_thread(save, progress)


async def restore(
    file: str | os.PathLike[str], store: str, *, replace: bool = False, progress: Progress | None = None
) -> Manifest:
    """Put a backup into the empty store at this URL, or in place of what is there.

    Jobs that ran are ready again, and who held one of them is fenced.

    Raises:
        BackupUnusable: It is no backup, is damaged, or was made from another engine.
        StoreNotEmpty: There is something already, and it is not to be replaced.
    """

    def load(tell: Progress) -> Manifest:
        engine = _engine(store)
        with Archive(Path(file)) as archive:
            if archive.manifest.engine != engine_name(store):
                raise BackupUnusable(
                    f"{file} is from {archive.manifest.engine}; it can be restored there, not into {engine_name(store)}"
                )
            engine.load(archive, replace=replace, progress=tell)
            return archive.manifest

    return await _in_thread(load, progress)


async def verify_backup(
    file: str | os.PathLike[str], *, progress: Progress | None = None
) -> tuple[Manifest, list[Finding]]:
    """What a backup holds, and what is wrong in it. Raises BackupUnusable: it cannot be read at all."""

    def inspect(tell: Progress) -> tuple[Manifest, list[Finding]]:
        with Archive(Path(file)) as archive:
            archive.check()
            return archive.manifest, _backup_of(archive.manifest.engine).inspect(archive, tell)

    return await _in_thread(inspect, progress)


async def verify_store(store: str, *, progress: Progress | None = None) -> list[Finding]:
    """What is wrong in the store at this URL; it may be used meanwhile. Raises StoreUnavailable."""
    return await _in_thread(lambda tell: _engine(store).examine(tell), progress)


ENGINES: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    **dict.fromkeys(redis_address.SCHEMES, "redis"),
}


def engine_name(store: str) -> str:
    """`sqlite`, `postgresql` or `redis`. Raises ConfigurationError: what is there cannot be backed up."""
    scheme, separator, _ = store.partition("://")
    if not separator or scheme not in ENGINES:
        raise ConfigurationError("only sqlite:///, postgresql:// and redis:// stores can be backed up")
    return ENGINES[scheme]


def _engine(store: str) -> SupportsBackup:
    return _backup_of(engine_name(store))(store)


def _backup_of(engine: str) -> type[SupportsBackup]:
    match engine:
        case "sqlite":
            return SqliteBackup
        case "postgresql":
            return _postgres()
        case "redis":
            return _redis()
        case _:
            raise BackupUnusable(f"the backup is of an engine this holdfast does not have: {engine}")


def _postgres() -> type[SupportsBackup]:
    try:
        from holdfast.stores.postgres_backup import PostgresBackup
    except ImportError as error:
        if (error.name or "psycopg").partition(".")[0] != "psycopg":
            raise
        raise MissingExtra("postgres") from error
    return PostgresBackup


def _redis() -> type[SupportsBackup]:
    try:
        from holdfast.stores.redis_backup import RedisBackup
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise MissingExtra("redis") from error
    return RedisBackup


class _Stopped(BaseException):
    """Nobody waits for it any more."""


async def _in_thread(work: Callable[[Progress], T], progress: Progress | None) -> T:
    """What the work returns; when the caller is cancelled, it ends at its next step."""
    stopping = threading.Event()

    def tell(share: float) -> None:
        if stopping.is_set():
            raise _Stopped
        if progress is not None:
            progress(share)

    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, _contained, work, tell)
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        stopping.set()
        await asyncio.wait([running])
        raise
    if isinstance(result, _Stopped):
        raise asyncio.CancelledError
    return result


def _contained(work: Callable[[Progress], T], tell: Progress) -> T | _Stopped:
    try:
        return work(tell)
    except _Stopped as stopped:  # nobody is left to be told
        return stopped
    except OSError as error:  # of our own files: what a store raises is translated where it is known
        raise ConfigurationError(f"a file cannot be read or written: {error}") from error
