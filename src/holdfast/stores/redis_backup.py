"""Backups of a Redis store, row by row, since no server shows all of a large one as of one moment.

What is read first is the older: records, then what is on its way between partitions, then jobs, then the keys of purged
jobs. So nothing that was there when the backup began can fall between two of them: a record whose change added a job is
in the backup at most together with that job. The other way round does no harm: a sweep or a look changes such a record
again, and adds the same job under the same key.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from redis.crc import key_slot

from holdfast.clock import SystemClock
from holdfast.errors import BackupUnusable, ConfigurationError, SchemaTooNew, StoreNotEmpty
from holdfast.stores import redis_scripts as scripts
from holdfast.stores.archive import Archive, Manifest, NewArchive
from holdfast.stores.fencing import BEYOND
from holdfast.stores.findings import Finding, Findings
from holdfast.stores.redis_address import parse
from holdfast.stores.redis_engine import Engine
from holdfast.stores.redis_migrations import SCHEMA
from holdfast.stores.redis_records import KEYS as RECORD_KEYS
from holdfast.stores.redis_rows import KEYS as JOB_KEYS
from holdfast.stores.redis_rows import STATES
from holdfast.stores.redis_scripts import Script

T = TypeVar("T")
Progress = Callable[[float], None]
Value = bytes | int
Row = Sequence[Value]

PAGE: Final = 100
"""Rows that a server looks at in one step."""
ONE_CALL: Final = 500_000
"""Bytes that are sent to it in one step, about."""
STAGE: Final = "restored:"
"""In front of the names of keys until all of them are there."""
RECORDS: Final = "records"
"""What they are counted as: of a kind only a digest is kept."""
NUMBER, QUEUE, STATE = 0, 2, 7
"""Places in a job's row: the number, the payload, then the columns."""


class RedisBackup:
    """A store in one keyspace."""

    def __init__(self, store: str) -> None:
        """Raises ConfigurationError: no such URL."""
        self._store = store
        parse(store)

    def save(self, archive: NewArchive, progress: Progress) -> Manifest:
        return asyncio.run(self._save(archive, progress))

    def load(self, archive: Archive, *, replace: bool, progress: Progress) -> None:
        archive.check()
        asyncio.run(self._load(archive, replace, progress))

    def examine(self, progress: Progress) -> list[Finding]:
        return asyncio.run(self._examine(progress))

    @staticmethod
    def inspect(archive: Archive, progress: Progress) -> list[Finding]:
        return _inspected(archive, progress)

    async def _save(self, archive: NewArchive, progress: Progress) -> Manifest:
        async with _opened(self._store) as space:
            schema = await space.require_schema()
            begun_at = await space.engine.now()
            steps = _Steps(progress, 5 * space.engine.partitions)
            marks = [await space.marks(partition) for partition in space.partitions]
            with archive.part("records") as part:
                for partition in space.partitions:
                    async for row in space.records(partition):
                        part.write(_line(partition, row), rows=1)
                    steps.done()
                records = part.rows
            with archive.part("carried") as part:
                for partition in space.partitions:
                    async for row in space.carried(partition):
                        part.write(_line(partition, row), rows=1)
                    steps.done()
            jobs = Counter[str]()
            with archive.part("jobs") as part:
                for partition in space.partitions:
                    async for row in space.jobs(partition):
                        part.write(_line(partition, row), rows=1)
                        jobs[_counted_as(row)] += 1
                    steps.done(3)
            with archive.part("keys") as part:
                for partition in space.partitions:
                    async for row in space.purged(partition):
                        part.write(_line(partition, row), rows=1)
                keys = part.rows
            return Manifest(
                engine="redis",
                schema=schema,
                begun_at=begun_at,
                ended_at=await space.engine.now(),
                one_moment=False,
                jobs=dict(jobs),
                records={RECORDS: records} if records else {},
                keys=keys,
                facts={"partitions": space.engine.partitions, "marks": marks},
            )

    async def _load(self, archive: Archive, replace: bool, progress: Progress) -> None:
        manifest = archive.manifest
        if manifest.schema > SCHEMA:
            raise SchemaTooNew(manifest.schema, SCHEMA)
        with _shaped(archive):
            partitions, marks = int(manifest.facts["partitions"]), manifest.facts["marks"]
        async with _opened(self._store) as space:
            found = await space.schema()
            before = space.engine.partitions if found else 0
            if not replace and found and not await space.is_empty():
                raise StoreNotEmpty(f"{space.engine.address}: it is not empty; restore elsewhere, or replace it")
            space.engine.partitions = partitions
            total, done = max(1, sum(part.rows for part in manifest.parts.values())), 0
            await space.clear_stage()
            for name, put in (("records", space.put_records), ("carried", space.put_carried), ("jobs", space.put_jobs)):
                for partition, rows in _batches(archive, name):
                    await put(partition, rows)
                    done += len(rows)
                    progress(0.95 * done / total)
            for partition, rows in _batches(archive, "keys"):
                await space.put_purged(partition, rows)
            for partition in space.partitions:
                await space.put_heads(partition)
                await space.put_marks(partition, marks[partition])
            # Who opens it meanwhile finds the keyspace it will be, with nothing in it yet.
            await space.write_schema(SCHEMA, partitions)  # rows are written as they are laid out today
            for partition in range(max(before, partitions)):
                await space.reveal(partition)
            progress(1.0)

    async def _examine(self, progress: Progress) -> list[Finding]:
        found = Findings()
        async with _opened(self._store) as space:
            await space.require_schema()
            steps = _Steps(progress, 4 * space.engine.partitions)
            for partition in space.partitions:
                await space.compare_counts(partition, found)
                for script, more in (
                    (scripts.EXAMINE_JOBS, ()),
                    (scripts.EXAMINE_REST, ("row",)),
                    (scripts.EXAMINE_REST, ("key",)),
                    (scripts.EXAMINE_RECORDS, ()),
                ):
                    await space.look_through(script, partition, more, found)
                    steps.done()
        return found.list


class _Keyspace:
    """The keys of a store, read and written in steps that are short for the server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def partitions(self) -> range:
        return range(self.engine.partitions)

    # Reading.

    async def schema(self) -> int:
        """Its version, zero where there is none; how many partitions it has is known then. Raises SchemaTooNew."""
        found = await self._command("HMGET", self.engine.key("schema").encode(), "version", "partitions")
        version, partitions = (int(number or 0) for number in found)
        if version > SCHEMA:
            raise SchemaTooNew(version, SCHEMA)
        if version:
            self.engine.partitions = partitions
        return version

    async def require_schema(self) -> int:
        """Raises ConfigurationError: there is nothing of holdfast's."""
        if not (version := await self.schema()):
            raise ConfigurationError(f"{self.engine.address}: there is no holdfast in {self.engine.address.namespace}")
        return version

    async def is_empty(self) -> bool:
        """Nothing was ever kept, or nothing is left to deduplicate."""
        names = {"body": "HLEN", "record": "HLEN", "gone": "ZCARD", "out": "ZCARD"}
        counts = [
            await self._command(command, self._key(partition, name))
            for partition in self.partitions
            for name, command in names.items()
        ]
        return not any(counts)

    async def marks(self, partition: int) -> dict[str, str]:
        """What a partition remembers beside its rows."""
        found = await self._command("HGETALL", self._key(partition, "misc"))
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(): value.decode() for name, value in pairs if name != b"told"}

    async def records(self, partition: int) -> AsyncIterator[Row]:
        keys = self.engine.partition_keys(partition, RECORD_KEYS[:1])
        async for row in _each(lambda at: self.engine.call(scripts.BACKUP_RECORDS, keys, at, PAGE)):
            yield row

    async def jobs(self, partition: int) -> AsyncIterator[Row]:
        async for row in _each(lambda at: self._call(scripts.BACKUP_JOBS, partition, at, PAGE)):
            yield row

    async def carried(self, partition: int) -> AsyncIterator[Row]:
        """Jobs that are kept here until they are brought to another partition."""
        async for member, _ in self._members(partition, "out"):
            packed = await self._command("HGET", self._key(partition, "outbody"), member[4:])
            if packed is not None:
                yield member, packed

    async def purged(self, partition: int) -> AsyncIterator[Row]:
        async for member, score in self._members(partition, "gone"):
            yield member, score

    async def _members(self, partition: int, name: str) -> AsyncIterator[tuple[bytes, bytes]]:
        cursor, seen = b"0", set[bytes]()
        while True:
            cursor, found = await self._command("ZSCAN", self._key(partition, name), cursor, "COUNT", 10 * PAGE)
            for member, score in zip(found[::2], found[1::2], strict=True):
                if member not in seen:
                    seen.add(member)
                    yield member, score
            if cursor == b"0":
                return

    # Writing, under names of its own.

    async def clear_stage(self) -> None:
        """What a restore that was broken off left."""
        for partition in self.partitions:
            await self._command("UNLINK", *self._stage(partition, JOB_KEYS + RECORD_KEYS))

    async def put_records(self, partition: int, rows: Sequence[Row]) -> None:
        arguments = [part for row in rows for part in (*row[:4], len(row) - 4, *row[4:])]
        await self.engine.call(scripts.RESTORE_RECORDS, self._stage(partition, RECORD_KEYS), *arguments)

    async def put_carried(self, partition: int, rows: Sequence[Row]) -> None:
        out, bodies = self._stage(partition, ("out", "outbody"))
        for member, packed in rows:
            assert isinstance(member, bytes)
            await self._command("ZADD", out, 0, member)
            await self._command("HSET", bodies, member[4:], packed)

    async def put_jobs(self, partition: int, rows: Sequence[Row]) -> None:
        arguments = [part for number, payload, *columns in rows for part in (number, payload, *map(_marked, columns))]
        await self._call(
            scripts.RESTORE_JOBS, partition, BEYOND, len(rows[0]), *arguments, keys=self._stage(partition, JOB_KEYS)
        )

    async def put_purged(self, partition: int, rows: Sequence[Row]) -> None:
        [gone] = self._stage(partition, ("gone",))
        await self._command("ZADD", gone, *(part for member, score in rows for part in (score, member)))

    async def put_heads(self, partition: int) -> None:
        cursor = b"0"
        while True:
            cursor = await self._call(
                scripts.RESTORE_HEADS, partition, cursor, PAGE, keys=self._stage(partition, JOB_KEYS)
            )
            if cursor == b"0":
                return

    async def put_marks(self, partition: int, marks: dict[str, str]) -> None:
        if marks:
            [misc] = self._stage(partition, ("misc",))
            await self._command("HSET", misc, *(part for mark in marks.items() for part in mark))

    async def write_schema(self, version: int, partitions: int) -> None:
        key = self.engine.key("schema").encode()
        await self._command("HSET", key, "version", version, "partitions", partitions)

    async def reveal(self, partition: int) -> None:
        """Put what is under names of its own in place of what is there, in one step."""
        names = JOB_KEYS + RECORD_KEYS
        keys = (*self._stage(partition, names), *self.engine.partition_keys(partition, names))
        await self.engine.call(scripts.RESTORE_DONE, keys, confirm=True)

    # Examining.

    async def compare_counts(self, partition: int, found: Findings) -> None:
        payloads, *others = await self._call(scripts.EXAMINE_COUNTS, partition)
        for what, count in zip(("keys", "jobs in lists", "counters"), others, strict=True):
            found.compare(f"partition {partition}: {what} of jobs", payloads, count)

    async def look_through(self, script: Script, partition: int, more: Sequence[str], found: Findings) -> None:
        cursor = b"0"
        while True:
            if script is scripts.EXAMINE_RECORDS:
                keys = self.engine.partition_keys(partition, RECORD_KEYS)
                cursor, *wrong = await self.engine.call(script, keys, cursor, PAGE)
            else:
                cursor, *wrong = await self._call(script, partition, *more, cursor, PAGE)
            for what, name in zip(wrong[::2], wrong[1::2], strict=True):
                found.add(what.decode(), name.decode("utf-8", "replace"))
            if cursor == b"0":
                return

    def _key(self, partition: int, name: str) -> bytes:
        return self.engine.partition_keys(partition, (name,))[0]

    def _stage(self, partition: int, names: tuple[str, ...]) -> Sequence[bytes]:
        return self.engine.partition_keys(partition, tuple(STAGE + name for name in names))

    async def _call(
        self, script: Script, partition: int, *arguments: Value | str, keys: Sequence[bytes] | None = None
    ) -> Any:
        waking = self.engine.key("ready"), self.engine.origin
        keys = keys or self.engine.partition_keys(partition, JOB_KEYS)
        return await self.engine.call(script, keys, *waking, *arguments)

    async def _command(self, name: str, key: bytes, *arguments: Value | str) -> Any:
        try:
            answer, _ = await self.engine.servers.run(key_slot(key), (name, key, *arguments))
        except Exception as error:  # a border: the table of errors tells them apart
            self.engine.refuse(error)
        return answer


class _Steps:
    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps, self._done = progress, max(1, steps), 0

    def done(self, steps: int = 1) -> None:
        self._done += steps
        self._progress(self._done / self._steps)


@asynccontextmanager
async def _opened(store: str) -> AsyncGenerator[_Keyspace]:
    """The keyspace, without making one where there is none."""
    engine = Engine(parse(store), SystemClock(), 0)
    engine.lifetime.open()
    try:
        yield _Keyspace(engine)
    finally:
        engine.lifetime.close()
        await engine.servers.close()


async def _each(page: Callable[[bytes], Awaitable[Any]]) -> AsyncIterator[Row]:
    """Every row once: a server that makes room for more rows meanwhile shows some of them twice."""
    cursor, seen = b"0", set[Value]()
    while True:
        cursor, *rows = await page(cursor)
        for row in rows:
            if row[NUMBER] not in seen:
                seen.add(row[NUMBER])
                yield row
        if cursor == b"0":
            return


def _marked(column: Value) -> bytes:
    return b"#%d" % column if isinstance(column, int) else b"$" + column


def _counted_as(row: Row) -> str:
    queue, state = row[QUEUE], row[STATE]
    assert isinstance(queue, bytes)
    return f"{queue.decode()}/{STATES[state] if isinstance(state, bytes) else state}"


def _line(partition: int, row: Row) -> bytes:
    """A row as JSON; bytes as the characters of the same numbers."""
    values = [value.decode("latin-1") if isinstance(value, bytes) else value for value in row]
    return json.dumps([partition, *values], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _rows(archive: Archive, name: str) -> Iterator[tuple[int, list[Value]]]:
    for line in archive.lines(name):
        partition, *values = json.loads(line)
        yield partition, [value.encode("latin-1") if isinstance(value, str) else int(value) for value in values]


def _batches(archive: Archive, name: str) -> Iterator[tuple[int, list[list[Value]]]]:
    """Rows of one partition that make one call."""
    batch: list[list[Value]] = []
    here, size = -1, 0
    with _shaped(archive):
        for partition, row in _rows(archive, name):
            if batch and (partition != here or len(batch) == PAGE or size > ONE_CALL):
                yield here, batch
                batch, size = [], 0
            here = partition
            batch.append(row)
            size += sum(len(value) for value in row if isinstance(value, bytes))
        if batch:
            yield here, batch


@contextmanager
def _shaped(archive: Archive) -> Generator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BackupUnusable(f"{archive.file} has rows of another shape: {error!r}") from error


def _inspected(archive: Archive, progress: Progress) -> list[Finding]:
    """What can be told without a server: it makes all that points to rows anew."""
    found, manifest = Findings(), archive.manifest
    with _shaped(archive):
        partitions = int(manifest.facts["partitions"])
        jobs, records, keys = Counter[str](), 0, 0
        for partition, row in _rows(archive, "jobs"):
            jobs[_counted_as(row)] += 1
            if not 0 <= partition < partitions:
                found.add("jobs in no partition", row[NUMBER])
            if not _is_payload(row[1]):
                found.add("unreadable payloads", row[NUMBER])
        progress(0.7)
        for _, (name, _version, value, *_rest) in _rows(archive, "records"):
            records += 1
            if not _is_document(value):
                found.add("unreadable records", name)
        keys = sum(1 for _ in _rows(archive, "keys"))
    found.compare("jobs by queue and state", dict(manifest.jobs), dict(jobs))
    found.compare("records", sum(manifest.records.values()), records)
    found.compare("keys of purged jobs", manifest.keys, keys)
    progress(1.0)
    return found.list


def _is_payload(payload: Value) -> bool:
    """How long what describes it is, that, and the body."""
    if not isinstance(payload, bytes):
        return False
    length, space, behind = payload.partition(b" ")
    try:
        return bool(space) and len(json.loads(behind[: int(length)])) == 5
    except ValueError:
        return False


def _is_document(value: Value) -> bool:
    try:
        return isinstance(json.loads(value if isinstance(value, bytes) else b""), dict)
    except ValueError:
        return False
