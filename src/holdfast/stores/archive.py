"""The file a backup is: a zip of what the engine gave, and a manifest that says what is in it."""

import json
import os
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from holdfast.errors import BackupUnusable, ConfigurationError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CHUNK: Final = 1 << 20
ONLY_MINE: Final = 0o600
FAST: Final = 1
"""How hard zlib tries: bodies shrink to a third already, and a backup is waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file in the backup."""

    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a backup holds, and from when it is."""

    engine: str
    """`sqlite`, `postgresql` or `redis`."""
    schema: int
    begun_at: datetime
    """By the store's own time. What was accepted after it may be missing."""
    ended_at: datetime
    one_moment: bool
    """All of it is as it was at `begun_at`; False: each row is whole, and rows differ by up to the whole span."""
    jobs: Mapping[str, int]
    """How many, by `queue/state`."""
    records: Mapping[str, int]
    """How many, by kind; those of Redis are counted under one name, since it keeps no names of kinds."""
    keys: int
    """Of purged jobs, which go on deduplicating."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the engine wants to know again."""
    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])

    @property
    def rows(self) -> int:
        """Jobs and records together."""
        return sum(self.jobs.values()) + sum(self.records.values())

    def to_json(self) -> dict[str, Any]:
        """As it is written in the file."""
        times = {"begun_at": self.begun_at.isoformat(), "ended_at": self.ended_at.isoformat()}
        return {"holdfast_backup": FORMAT} | asdict(self) | times

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Raises BackupUnusable: it is of a newer holdfast, or not one of ours."""
        if found.get("holdfast_backup") != FORMAT:
            raise BackupUnusable(f"the backup has format {found.get('holdfast_backup')}, this holdfast reads {FORMAT}")
        known: dict[str, Any] = {name: found[name] for name in cls.__dataclass_fields__ if name in found}
        try:
            known["begun_at"] = datetime.fromisoformat(known["begun_at"])
            known["ended_at"] = datetime.fromisoformat(known["ended_at"])
            known["parts"] = {name: Part(**part) for name, part in known["parts"].items()}
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackupUnusable(f"the backup's manifest cannot be read: {error!r}") from error


class Writing:
    """One part while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = sha256()
        self._bytes = 0
        self.rows = 0

    def write(self, data: bytes, *, rows: int = 0) -> None:
        """Append; `rows` of them end in it."""
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)
        self.rows += rows

    @property
    def part(self) -> Part:
        return Part(bytes=self._bytes, sha256=self._digest.hexdigest(), rows=self.rows)


class NewArchive:
    """`with NewArchive(file)`: the file is there when `finish` was called and the body has ended, and not before.

    Nobody but the owner may read it: it holds what the store holds.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        """Beside the file, so that other things of this backup can be kept beside it, too."""
        self._parts: dict[str, Part] = {}
        self._finished = False

    def __enter__(self) -> Self:
        """Raises ConfigurationError: the file is there already, or cannot be made."""
        if self.file.exists():
            raise ConfigurationError(f"{self.file} is there already; a backup never replaces another one")
        try:
            self._raw = os.fdopen(os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, ONLY_MINE), "w+b")
        except OSError as error:
            raise ConfigurationError(f"{self.file} cannot be written: {error.strerror}") from error
        self._zip = zipfile.ZipFile(self._raw, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None and self._finished:
                self._zip.close()
                self._raw.flush()
                os.fsync(self._raw.fileno())
                os.link(self.partial, self.file)  # fails where another one came first
        finally:
            with suppress(ValueError, OSError):  # after an error it has nothing more to say
                self._zip.close()
            self._raw.close()
            self.partial.unlink(missing_ok=True)

    @contextmanager
    def part(self, name: str) -> Generator[Writing]:
        """Write one part."""
        with self._zip.open(name, "w", force_zip64=True) as file:
            writing = Writing(file)
            yield writing
        self._parts[name] = writing.part

    def finish(self, manifest: Manifest) -> Manifest:
        """Say what is in it; the last thing that is written."""
        said = replace(manifest, parts=dict(self._parts))
        self._zip.writestr(MANIFEST, json.dumps(said.to_json(), indent=1))
        self._finished = True
        return said


class Archive:
    """`with Archive(file)`: a backup, to be read; every part is compared with its checksum while it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.manifest: Manifest

    def __enter__(self) -> Self:
        """Raises BackupUnusable: it is no backup."""
        try:
            self._zip = zipfile.ZipFile(self.file)
        except OSError as error:
            raise BackupUnusable(f"{self.file} cannot be read: {error.strerror}") from error
        except zipfile.BadZipFile as error:
            raise BackupUnusable(f"{self.file} is no backup, or only a part of one: {error}") from error
        try:
            with _readable(self.file):
                self.manifest = Manifest.from_json(json.loads(self._zip.read(MANIFEST)))
        except BaseException:
            self._zip.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """The part, piece by piece. Raises BackupUnusable: it is not what was written."""
        expected = self.manifest.parts.get(name)
        if expected is None:
            raise BackupUnusable(f"{self.file} has no part {name}")
        digest, size = sha256(), 0
        with _readable(self.file), self._zip.open(name) as part:
            while chunk := part.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        if (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
            raise BackupUnusable(f"{self.file}: {name} is damaged, its checksum is another one")

    def lines(self, name: str) -> Iterator[bytes]:
        """The part, line by line, without their ends. Raises BackupUnusable."""
        rest = b""
        for chunk in self.chunks(name):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
        if rest:
            raise BackupUnusable(f"{self.file}: {name} ends in the middle of a line")

    def extract(self, name: str, target: Path) -> None:
        """Write the part to a file of its own, which nobody but the owner may read. Raises BackupUnusable."""
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_MINE), "wb") as file:
            for chunk in self.chunks(name):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def check(self) -> None:
        """Read all of it. Raises BackupUnusable: it is not what was written."""
        for name in self.manifest.parts:
            for _ in self.chunks(name):
                pass


@contextmanager
def _readable(file: Path) -> Generator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise BackupUnusable(f"{file} is damaged: {error}") from error


def remove(*files: Path) -> None:
    """Files of ours that may be there."""
    for file in files:
        with suppress(FileNotFoundError):
            file.unlink()
