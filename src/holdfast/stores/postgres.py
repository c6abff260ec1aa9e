"""PostgreSQL, for an app on several machines: durable at every commit, shared by any number of processes.

The driver is psycopg 3, because it is libpq underneath: every `postgresql://` URL, certificate and failover setting
that works elsewhere works here.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Final, LiteralString, Self

from psycopg.types.numeric import Int8

from holdfast.clock import Clock, SystemClock
from holdfast.errors import NaiveDatetime, VersionConflict
from holdfast.stores.documents import decode, encode
from holdfast.stores.postgres_adding import add, lock, prepare
from holdfast.stores.postgres_connection import Connection, fingerprint, select
from holdfast.stores.postgres_counters import PostgresCounters
from holdfast.stores.postgres_engine import Engine
from holdfast.stores.postgres_jobs import PostgresJobs
from holdfast.stores.postgres_time import MOMENT, span
from holdfast.stores.store import Draft, Json, Lease, NewJob, Record
from holdfast.stores.store_time import micros, moment


class PostgresStore:
    """A store in one schema of a PostgreSQL database: `postgresql://user:password@host/database?schema=holdfast`.

    It opens up to eight connections, each when it is first needed. They have settings of their own, so a proxy between
    here and the server must not share one among several clients.
    """

    durable = True

    def __init__(self, url: str, *, clock: Clock | None = None, skew_ms: int = 0) -> None:
        """Raises ConfigurationError: no such URL."""
        self._engine = Engine(url, clock or SystemClock(), skew_ms)
        self.jobs = PostgresJobs(self._engine)
        self.records = PostgresRecords(self._engine)
        self.leases = PostgresLeases(self._engine)
        self.counters = PostgresCounters(self._engine)
        self.bus = PostgresBus(self._engine)

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()

    async def now(self) -> datetime:
        return await self._engine.now()


INDEX: Final = """
unindexed AS (
    DELETE FROM record_index
    WHERE kind = %(kind)s AND key = %(key)s AND entry <> ALL (%(entries)b::bytea[]) AND EXISTS (SELECT FROM written)
),
indexed AS (
    INSERT INTO record_index (entry, kind, key)
    SELECT entry, %(kind)s, %(key)s FROM unnest(%(entries)b::bytea[]) AS entry WHERE EXISTS (SELECT FROM written)
    ON CONFLICT DO NOTHING
)
SELECT version FROM written
"""
INSERT: Final = f"""
WITH written AS (
    INSERT INTO records (kind, key, version, value, due_at)
    VALUES (%(kind)s, %(key)s, 1, %(value)s, %(due_at)s) ON CONFLICT DO NOTHING RETURNING version
),
{INDEX}
"""
UPDATE: Final = f"""
WITH written AS (
    UPDATE records SET version = version + 1, value = %(value)s, due_at = %(due_at)s
    WHERE kind = %(kind)s AND key = %(key)s AND version = %(expected)s RETURNING version
),
{INDEX}
"""
GET: Final = "SELECT kind, key, version, value, due_at FROM records WHERE kind = %s AND key = %s"
FIND: Final = """
SELECT kind, key, version, value, due_at FROM record_index JOIN records USING (kind, key)
WHERE entry = %s ORDER BY key LIMIT %s
"""
DUE: Final = f"""
WITH {MOMENT}
SELECT kind, key, version, value, due_at FROM records
WHERE kind = %(kind)s AND due_at IS NOT NULL AND due_at <= (SELECT now FROM moment)
ORDER BY due_at, key LIMIT %(limit)s
"""
REWRITE: Final = """
UPDATE records SET value = %(value)s WHERE kind = %(kind)s AND key = %(key)s AND version = %(version)s
RETURNING version
"""
LIST: Final = """
SELECT kind, key, version, value, due_at FROM records WHERE kind = %s AND key > %s ORDER BY key LIMIT %s
"""


class PostgresRecords:
    """Versioned documents."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, kind: str, key: str) -> Record | None:
        return next(iter(await self._select(GET, [kind, key])), None)

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        if new.due_at is not None and new.due_at.tzinfo is None:
            raise NaiveDatetime("due_at")
        given = prepare(jobs)
        text = encode(new.value)
        due_at = None if new.due_at is None else micros(new.due_at)
        entries = {fingerprint(kind, name, value) for name, values in new.index.items() for value in values}
        change = {
            "kind": kind,
            "key": key,
            "expected": Int8(expected),
            "value": text,
            "due_at": None if due_at is None else Int8(due_at),
            "entries": sorted(entries),
        }

        async def write(connection: Connection) -> None:
            if not await select(connection, UPDATE if expected else INSERT, change):
                raise VersionConflict(kind, key)

        async def apply(connection: Connection) -> None:
            async with connection.transaction():
                await lock(connection, [job.line for job in given])
                await write(connection)
                await add(connection, self._engine.time, given)

        if jobs:
            await self._engine.run(apply, committed=self._engine.jobs_changed_here)
        else:
            await self._engine.run(write)
        return _record((kind, key, expected + 1, text, due_at))

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        return await self._select(FIND, [fingerprint(kind, index, value), limit])

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        return await self._select(DUE, self._engine.time.parameters() | {"kind": kind, "limit": limit})

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        place = {"kind": record.kind, "key": record.key, "version": Int8(record.version)}
        change = place | {"value": encode(value)}
        return bool(await self._engine.run(lambda connection: select(connection, REWRITE, change)))

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        return await self._select(LIST, [kind, after, limit])

    async def _select(self, query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any]) -> Sequence[Record]:
        rows = await self._engine.run(lambda connection: select(connection, query, parameters))
        return [_record(row) for row in rows]


def _record(row: Sequence[Any]) -> Record:
    kind, key, version, text, due_at = row
    due = None if due_at is None else moment(due_at)
    return Record(kind=kind, key=key, version=version, value=decode(text), due_at=due)


ACQUIRE: Final = f"""
WITH {MOMENT}
INSERT INTO leases AS held (name, owner, number, until)
SELECT %(name)s, %(owner)s, 1, now + %(ttl)s::bigint FROM moment
ON CONFLICT (name) DO UPDATE SET
    number = held.number + (held.until <= (SELECT now FROM moment))::int,
    owner = excluded.owner,
    until = excluded.until
WHERE held.until <= (SELECT now FROM moment) OR held.owner = excluded.owner
RETURNING number
"""
EXTEND: Final = f"""
WITH {MOMENT}
UPDATE leases SET until = (SELECT now FROM moment) + %(ttl)s::bigint
WHERE name = %(name)s AND owner = %(owner)s AND number = %(number)s AND until > (SELECT now FROM moment)
RETURNING number
"""


class PostgresLeases:
    """Who may do what only one may do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        wanted = {"name": name, "owner": owner, "ttl": span(ttl)} | self._engine.time.parameters()
        acquired = await self._engine.run(lambda connection: select(connection, ACQUIRE, wanted))
        return Lease(name=name, owner=owner, number=acquired[0][0]) if acquired else None

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        return await self._extend(lease, ttl)

    async def release(self, lease: Lease) -> None:
        await self._extend(lease, 0.0)

    async def _extend(self, lease: Lease, ttl: float) -> bool:
        held = {"name": lease.name, "owner": lease.owner, "number": Int8(lease.number), "ttl": span(ttl)}
        parameters = self._engine.time.parameters() | held
        return bool(await self._engine.run(lambda connection: select(connection, EXTEND, parameters), urgent=True))


class PostgresBus:
    """Small facts: to this process directly, to others through a short table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        await self._engine.publish(topic, encode(fact))

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        return self._listen(topic)

    @asynccontextmanager
    async def _listen(self, topic: str) -> AsyncGenerator[AsyncIterator[Mapping[str, Json]]]:
        with self._engine.watching():
            await self._engine.catch_up()  # what others published before is not for this listener
            async with self._engine.listeners.listen(topic) as facts:
                yield facts
