"""Backups of a PostgreSQL store: every table of its schema, copied in one snapshot."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final, LiteralString, TypeVar

from psycopg import IsolationLevel, sql

from holdfast.clock import SystemClock
from holdfast.errors import BackupUnusable, ConfigurationError, SchemaTooNew, StoreNotEmpty
from holdfast.stores.archive import Archive, Manifest, NewArchive
from holdfast.stores.fencing import BEYOND
from holdfast.stores.findings import Finding, Findings
from holdfast.stores.postgres_connection import Address, Connection, check_encoding, lock_number, select
from holdfast.stores.postgres_schema import LOCK, MIGRATIONS, migrate
from holdfast.stores.postgres_time import MOMENT, ServerTime
from holdfast.stores.store import JobState
from holdfast.stores.store_time import moment

T = TypeVar("T")
Progress = Callable[[float], None]

LEFT_OUT: Final = ("facts", "meta", "slots")
"""What was told, the schema's version, which the manifest has, and slots of the moment."""
END: Final = ".copy"
BATCH: Final = 1000

# A backup may take long, reads whole tables, and compresses between two pieces.
PATIENT: Final = """
SELECT set_config(name, value, false) FROM (VALUES
    ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('lock_timeout', '30s'),
    ('enable_seqscan', 'on'), ('enable_bitmapscan', 'on')
) AS given (name, value)
"""
NOW: Final = f"WITH {MOMENT} SELECT now FROM moment"
TABLES: Final = """
SELECT relname::text,
    array_agg(attname::text ORDER BY attnum) FILTER (WHERE attnum > 0 AND NOT attisdropped AND attgenerated = '')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname = %s AND relkind IN ('r', 'p') AND NOT relispartition
GROUP BY relname ORDER BY relname
"""
SEQUENCES: Final = "SELECT sequencename::text, coalesce(last_value, 1) FROM pg_sequences WHERE schemaname = %s"
ADVANCE: Final = "SELECT setval(to_regclass(%s), %s::bigint)"
COPY_OUT: Final = "COPY (SELECT {columns} FROM {table}) TO STDOUT"
COPY_IN: Final = "COPY {table} ({columns}) FROM STDIN"
STATES: Final = "SELECT queue || '/' || state, count(*) FROM jobs GROUP BY 1"
KINDS: Final = "SELECT kind, count(*) FROM records GROUP BY 1"
KEYS: Final = "SELECT count(*) FROM keys WHERE dropped_at IS NOT NULL"
FENCE_LEASES: Final = "UPDATE leases SET number = number + %s::bigint, owner = '', until = 0"
VERSION: Final = "SELECT value FROM meta WHERE name = 'schema'"
OURS: Final = "SELECT to_regclass(%s) IS NOT NULL"

WRONG: Final[dict[str, LiteralString]] = {
    "jobs without a payload": """
        SELECT number::text FROM jobs WHERE NOT EXISTS (SELECT FROM payloads WHERE payloads.number = jobs.number)
    """,
    "payloads without a job": """
        SELECT number::text FROM payloads WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.number = payloads.number)
    """,
    "jobs without a key": """
        SELECT number::text FROM jobs WHERE NOT EXISTS (SELECT FROM keys WHERE keys.number = jobs.number)
    """,
    "keys without a job": """
        SELECT number::text FROM keys
        WHERE dropped_at IS NULL AND NOT EXISTS (SELECT FROM jobs WHERE jobs.number = keys.number)
    """,
    "jobs in no known state": """
        SELECT number::text FROM jobs WHERE state NOT IN ('ready', 'leased', 'done', 'dead', 'ignored')
    """,
    "jobs that wait and will never run": """
        SELECT number::text FROM jobs WHERE line IS NULL AND NOT head AND state IN ('ready', 'leased')
    """,
    "ended jobs that stand in line": "SELECT number::text FROM jobs WHERE head AND state NOT IN ('ready', 'leased')",
    "jobs of an ordering key that runs no more": """
        SELECT min(number)::text FROM jobs WHERE line IS NOT NULL AND state IN ('ready', 'leased')
        GROUP BY line HAVING count(*) FILTER (WHERE head) <> 1
    """,
    "index entries without a record": """
        SELECT kind || '/' || key FROM record_index AS entry
        WHERE NOT EXISTS (SELECT FROM records WHERE records.kind = entry.kind AND records.key = entry.key)
    """,
    "indexes the server does not use": """
        SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)
    """,
}
TEXTS: Final[dict[str, LiteralString]] = {
    "unreadable headers": "SELECT number::text, headers FROM payloads",
    "unreadable records": "SELECT kind || '/' || key, value FROM records",
}


class PostgresBackup:
    """A store in one schema."""

    def __init__(self, store: str) -> None:
        """Raises ConfigurationError: no such URL."""
        self._address = Address(store)

    def save(self, archive: NewArchive, progress: Progress) -> Manifest:
        return self._run(lambda connection: self._save(connection, archive, progress))

    def load(self, archive: Archive, *, replace: bool, progress: Progress) -> None:
        archive.check()  # so that a damaged one costs no long transaction
        self._run(lambda connection: self._load(connection, archive, replace, progress))

    def examine(self, progress: Progress) -> list[Finding]:
        return self._run(lambda connection: self._examine(connection, progress))

    @staticmethod
    def inspect(archive: Archive, progress: Progress) -> list[Finding]:
        return _inspected(archive, progress)

    def _run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """In an event loop of this thread's own."""
        return asyncio.run(self._connected(work))

    async def _connected(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        try:
            async with await self._address.connect() as connection:
                await check_encoding(connection)
                await connection.execute(PATIENT, prepare=False)
                return await work(connection)
        except Exception as error:  # a border: the table of errors tells them apart
            refusal = self._address.translate(error)
            if refusal is error:
                raise
            raise refusal from error

    async def _save(self, connection: Connection, archive: NewArchive, progress: Progress) -> Manifest:
        schema = await self._schema(connection)
        if not schema:
            raise ConfigurationError(f"postgresql: there is no holdfast in schema {self._address.schema}")
        begun_at = await _now(connection)
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        async with connection.transaction():
            jobs: dict[str, int] = dict(await select(connection, STATES))
            records: dict[str, int] = dict(await select(connection, KINDS))
            [(keys,)] = await select(connection, KEYS)
            every = await select(connection, TABLES, [self._address.schema])
            tables = [(name, columns) for name, columns in every if name not in LEFT_OUT]
            total = max(1, 3 * sum(jobs.values()) + 2 * sum(records.values()) + keys)
            done = 0
            for name, columns in tables:
                statement = _statement(COPY_OUT, name, columns)
                with archive.part(name + END) as part:
                    async with connection.cursor() as cursor, cursor.copy(statement) as copying:
                        async for data in copying:
                            rows = bytes(data).count(b"\n")
                            part.write(bytes(data), rows=rows)
                            done += rows
                            progress(min(1.0, done / total))
        # Read last: a number that was given out is never given out again.
        sequences: dict[str, int] = dict(await select(connection, SEQUENCES, [self._address.schema]))
        return Manifest(
            engine="postgresql",
            schema=schema,
            begun_at=begun_at,
            ended_at=await _now(connection),
            one_moment=True,
            jobs=jobs,
            records=records,
            keys=keys,
            facts={"columns": dict(tables), "sequences": sequences},
        )

    async def _load(self, connection: Connection, archive: Archive, replace: bool, progress: Progress) -> None:
        manifest = archive.manifest
        if manifest.schema > len(MIGRATIONS):
            raise SchemaTooNew(manifest.schema, len(MIGRATIONS))
        columns: dict[str, list[str]] = manifest.facts["columns"]
        total, done = max(1, sum(part.bytes for part in manifest.parts.values())), 0
        async with connection.transaction():
            await connection.execute(LOCK, [lock_number("migrate", self._address.schema)])
            await self._clear(connection, manifest.schema, replace)
            for name, order in columns.items():
                fence = _Fence(order) if name == "jobs" else None
                statement = _statement(COPY_IN, name, order)
                async with connection.cursor() as cursor, cursor.copy(statement) as copying:
                    for data in _pieces(archive, name + END):
                        await copying.write(fence(data) if fence else data)
                        done += len(data)
                        progress(0.95 * done / total)
            await connection.execute(FENCE_LEASES, [BEYOND])
            for name, value in manifest.facts["sequences"].items():
                await connection.execute(ADVANCE, [f"{self._address.schema}.{name}", value + BEYOND])
            await migrate(connection, self._address.schema)
        await connection.execute("ANALYZE")
        progress(1.0)

    async def _clear(self, connection: Connection, schema: int, replace: bool) -> None:
        """Leave every table there, as that schema version has it, and empty. Raises StoreNotEmpty."""
        found = await self._schema(connection)
        if found and not replace and await _holds_something(connection):
            raise StoreNotEmpty(
                f"postgresql: schema {self._address.schema} is not empty; restore elsewhere, or replace it"
            )
        if found:
            for name, _ in await select(connection, TABLES, [self._address.schema]):
                statement = "TRUNCATE {}" if found == schema else "DROP TABLE {} CASCADE"
                if found != schema or name != "meta":
                    await connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        if found and found != schema:
            for name, _ in await select(connection, SEQUENCES, [self._address.schema]):
                await connection.execute(sql.SQL("DROP SEQUENCE {}").format(sql.Identifier(name)))
            await connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(self._address.schema)))
        if found != schema:
            await migrate(connection, self._address.schema, MIGRATIONS[:schema])

    async def _examine(self, connection: Connection, progress: Progress) -> list[Finding]:
        if not await self._schema(connection):
            raise ConfigurationError(f"postgresql: there is no holdfast in schema {self._address.schema}")
        found = Findings()
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        steps = len(WRONG) + len(TEXTS)
        async with connection.transaction():
            for done, (what, query) in enumerate(WRONG.items(), 1):
                found.all([(what, [row for (row,) in await select(connection, query)])])
                progress(done / steps)
            for done, (what, query) in enumerate(TEXTS.items(), len(WRONG) + 1):
                async with connection.cursor(name="texts") as cursor:
                    cursor.itersize = BATCH
                    await cursor.execute(query)
                    async for name, text in cursor:
                        if not _is_document(text):
                            found.add(what, name)
                progress(done / steps)
        return found.list

    async def _schema(self, connection: Connection) -> int:
        """Zero: there is none. Raises SchemaTooNew."""
        [(ours,)] = await select(connection, OURS, [f"{self._address.schema}.meta"])
        if not ours:
            return 0
        [(found,)] = await select(connection, VERSION)
        if found > len(MIGRATIONS):
            raise SchemaTooNew(found, len(MIGRATIONS))
        version: int = found
        return version


class _Fence:
    """Rows of jobs as they are restored: nobody holds one, and tokens are greater than any that was given out."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._state, self._token = columns.index("state"), columns.index("token")
        self._owner, self._until = columns.index("owner"), columns.index("lease_until")

    def __call__(self, lines: bytes) -> bytes:
        return b"".join(self._row(line) for line in lines.splitlines(keepends=True))

    def _row(self, line: bytes) -> bytes:
        fields = line[:-1].split(b"\t")
        fields[self._token] = b"%d" % (int(fields[self._token]) + BEYOND)
        fields[self._owner], fields[self._until] = b"", b"0"
        if fields[self._state] == b"leased":
            fields[self._state] = b"ready"
        return b"\t".join(fields) + b"\n"


def _statement(text: LiteralString, table: str, columns: Iterable[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL(text).format(table=sql.Identifier(table), columns=names)


def _pieces(archive: Archive, name: str) -> Generator[bytes]:
    """The part in pieces of whole lines."""
    rest = b""
    for chunk in archive.chunks(name):
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            yield whole + end
    if rest:
        raise BackupUnusable(f"{archive.file}: {name} ends in the middle of a row")


def _inspected(archive: Archive, progress: Progress) -> list[Finding]:
    """What a server would find wrong, without one."""
    found, manifest = Findings(), archive.manifest
    with _shaped(archive):
        columns: dict[str, list[str]] = manifest.facts["columns"]
        at = {table: {name: place for place, name in enumerate(names)} for table, names in columns.items()}
        jobs, heads, states = set[bytes](), Counter[bytes](), Counter[str]()
        waiting = dict[bytes, bytes]()
        for row in _rows(archive, "jobs"):
            number, state, line = (row[at["jobs"][name]] for name in ("number", "state", "line"))
            head = row[at["jobs"]["head"]] == b"t"
            jobs.add(number)
            states[f"{_text(row[at['jobs']['queue']])}/{state.decode()}"] += 1
            active = state in (b"ready", b"leased")
            if state.decode() not in set(JobState):
                found.add("jobs in no known state", number.decode())
            if head and not active:
                found.add("ended jobs that stand in line", number.decode())
            if active and line == b"\\N" and not head:
                found.add("jobs that wait and will never run", number.decode())
            if active and line != b"\\N":
                waiting.setdefault(line, number)
                heads[line] += head
        progress(0.4)
        for line, number in waiting.items():
            if heads[line] != 1:
                found.add("jobs of an ordering key that runs no more", number.decode())
        payloads = set[bytes]()
        for row in _rows(archive, "payloads"):
            payloads.add(row[at["payloads"]["number"]])
            if not _is_document(_text(row[at["payloads"]["headers"]])):
                found.add("unreadable headers", row[at["payloads"]["number"]].decode())
        progress(0.8)
        found.all([("jobs without a payload", _decoded(jobs - payloads))])
        found.all([("payloads without a job", _decoded(payloads - jobs))])
        kinds = Counter[str]()
        for row in _rows(archive, "records"):
            kinds[_text(row[at["records"]["kind"]])] += 1
            if not _is_document(_text(row[at["records"]["value"]])):
                found.add("unreadable records", _text(row[at["records"]["key"]]))
        keys = sum(row[at["keys"]["dropped_at"]] != b"\\N" for row in _rows(archive, "keys"))
        found.compare("jobs by queue and state", dict(manifest.jobs), dict(states))
        found.compare("records by kind", dict(manifest.records), dict(kinds))
        found.compare("keys of purged jobs", manifest.keys, keys)
    progress(1.0)
    return found.list


@contextmanager
def _shaped(archive: Archive) -> Generator[None]:
    try:
        yield
    except (KeyError, IndexError, UnicodeDecodeError) as error:
        raise BackupUnusable(f"{archive.file} has rows of another shape: {error!r}") from error


def _rows(archive: Archive, table: str) -> Generator[list[bytes]]:
    for line in archive.lines(table + END):
        yield line.split(b"\t")


ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _text(field: bytes) -> str:
    """A field of COPY's text format, which escapes with backslashes."""
    text = field.decode()
    if "\\" not in text:
        return text
    first, *parts = text.split("\\")
    result, escaped = [first], False
    for part in parts:
        if escaped:
            result.append(part)
            escaped = False
        elif not part:
            result.append("\\")
            escaped = True
        else:
            result.append(ESCAPES.get(part[0], part[0]) + part[1:])
    return "".join(result)


def _is_document(text: str) -> bool:
    with suppress(ValueError):
        return isinstance(json.loads(text), dict)
    return False


def _decoded(numbers: Iterable[bytes]) -> list[str]:
    return sorted(number.decode() for number in numbers)


async def _holds_something(connection: Connection) -> bool:
    [(holds,)] = await select(connection, "SELECT EXISTS (TABLE jobs) OR EXISTS (TABLE records) OR EXISTS (TABLE keys)")
    return bool(holds)


async def _now(connection: Connection) -> datetime:
    [(now,)] = await select(connection, NOW, ServerTime(SystemClock(), 0).parameters())
    return moment(now)
