"""SQLite, the embedded default: one file, durable at every commit, shared by the processes of one host.

The event loop never waits for the disk: one thread writes, a few read (`sqlite_writer.py`, `sqlite_engine.py`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from sqlite3 import Connection
from typing import Any, Self

from holdfast.clock import Clock, SystemClock
from holdfast.errors import NaiveDatetime, VersionConflict
from holdfast.stores.documents import decode, encode
from holdfast.stores.listeners import BACKLOG
from holdfast.stores.sqlite_engine import Engine
from holdfast.stores.sqlite_jobs import SqliteJobs
from holdfast.stores.store import Draft, Json, Lease, NewJob, Record
from holdfast.stores.store_time import micros, moment


class SqliteStore:
    """A store in one file on a local disk."""

    durable = True

    def __init__(self, path: str, *, clock: Clock | None = None, skew_ms: int = 0) -> None:
        self._engine = Engine(path, clock or SystemClock(), skew_ms)
        self.jobs = SqliteJobs(self._engine)
        self.records = SqliteRecords(self._engine, self.jobs)
        self.leases = SqliteLeases(self._engine)
        self.counters = SqliteCounters(self._engine)
        self.bus = SqliteBus(self._engine)

    @property
    def path(self) -> str:
        """The file."""
        return self._engine.path

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()

    async def now(self) -> datetime:
        self._engine.lifetime.check()
        return self._engine.time.now()


INSERT = "INSERT INTO records (kind, key, version, value, due_at) VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING"
UPDATE = "UPDATE records SET version = version + 1, value = ?, due_at = ? WHERE kind = ? AND key = ? AND version = ?"
INDEXED = "SELECT name, value FROM record_index WHERE kind = ? AND key = ?"
UNINDEX = "DELETE FROM record_index WHERE kind = ? AND key = ? AND name = ? AND value = ?"
INDEX = "INSERT INTO record_index (kind, key, name, value) VALUES (?, ?, ?, ?)"

GET = "SELECT kind, key, version, value, due_at FROM records WHERE kind = ? AND key = ?"
FIND = """
SELECT kind, key, version, records.value, due_at
FROM record_index AS entry JOIN records USING (kind, key)
WHERE kind = ? AND entry.name = ? AND entry.value = ?
ORDER BY key LIMIT ?
"""
DUE = """
SELECT kind, key, version, value, due_at FROM records
WHERE kind = ? AND due_at IS NOT NULL AND due_at <= ?
ORDER BY due_at, key LIMIT ?
"""
REWRITE = "UPDATE records SET value = ? WHERE kind = ? AND key = ? AND version = ?"
LIST = "SELECT kind, key, version, value, due_at FROM records WHERE kind = ? AND key > ? ORDER BY key LIMIT ?"


class SqliteRecords:
    """Versioned documents."""

    def __init__(self, engine: Engine, jobs: SqliteJobs) -> None:
        self._engine = engine
        self._jobs = jobs

    async def get(self, kind: str, key: str) -> Record | None:
        return next(iter(await self._select(GET, kind, key)), None)

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        if new.due_at is not None and new.due_at.tzinfo is None:
            raise NaiveDatetime("due_at")
        text = encode(new.value)
        due_at = None if new.due_at is None else micros(new.due_at)
        index = {(name, value) for name, values in new.index.items() for value in values}
        add = self._jobs.adding(jobs)

        def apply(connection: Connection) -> None:
            if expected:
                written = connection.execute(UPDATE, (text, due_at, kind, key, expected))
            else:
                written = connection.execute(INSERT, (kind, key, text, due_at))
            if written.rowcount != 1:
                raise VersionConflict(kind, key)
            _index(connection, kind, key, index)
            add(connection)

        await self._engine.write(apply, committed=self._engine.readiness.changed if jobs else None)
        return _record((kind, key, expected + 1, text, due_at))

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        return await self._select(FIND, kind, index, value, limit)

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        return await self._select(DUE, kind, self._engine.now(), limit)

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        change = (encode(value), record.kind, record.key, record.version)
        return await self._engine.write(lambda connection: connection.execute(REWRITE, change).rowcount == 1)

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        return await self._select(LIST, kind, after, limit)

    async def _select(self, query: str, *parameters: str | int) -> Sequence[Record]:
        return await self._engine.read(
            lambda connection: [_record(row) for row in connection.execute(query, parameters)]
        )


def _index(connection: Connection, kind: str, key: str, wanted: set[tuple[str, str]]) -> None:
    """Touch only what changed: most changes of a record change nothing it is found by."""
    present = set(connection.execute(INDEXED, (kind, key)))
    connection.executemany(UNINDEX, [(kind, key, *entry) for entry in present - wanted])
    connection.executemany(INDEX, [(kind, key, *entry) for entry in wanted - present])


def _record(row: Sequence[Any]) -> Record:
    kind, key, version, text, due_at = row
    due = None if due_at is None else moment(due_at)
    return Record(kind=kind, key=key, version=version, value=decode(text), due_at=due)


ACQUIRE = """
INSERT INTO leases (name, owner, number, until) VALUES (:name, :owner, 1, :until)
ON CONFLICT (name) DO UPDATE SET number = number + (until <= :now), owner = excluded.owner, until = excluded.until
WHERE until <= :now OR owner = excluded.owner
RETURNING number
"""
EXTEND = "UPDATE leases SET until = ? WHERE name = ? AND owner = ? AND number = ? AND until > ?"


class SqliteLeases:
    """Who may do what only one may do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        def acquire(connection: Connection) -> Lease | None:
            until = self._engine.after(ttl)
            wanted = {"name": name, "owner": owner, "until": until, "now": self._engine.now()}
            acquired = connection.execute(ACQUIRE, wanted).fetchall()
            return Lease(name=name, owner=owner, number=acquired[0][0]) if acquired else None

        return await self._engine.write(acquire)

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        return await self._engine.write(partial(self._extend, lease, ttl))

    async def release(self, lease: Lease) -> None:
        await self._engine.write(partial(self._extend, lease, 0.0))

    def _extend(self, lease: Lease, ttl: float, connection: Connection) -> bool:
        now, until = self._engine.now(), self._engine.after(ttl)
        return connection.execute(EXTEND, (until, lease.name, lease.owner, lease.number, now)).rowcount == 1


BUCKETS = 10
SUM_UP = """
INSERT INTO sums (name, bucket, amount, expires_at) VALUES (?, ?, ?, ?)
ON CONFLICT (name, bucket) DO UPDATE SET
    amount = amount + excluded.amount,
    expires_at = max(expires_at, excluded.expires_at)
"""
TOTAL = "SELECT coalesce(sum(amount), 0) FROM sums WHERE name = ? AND bucket > ?"
FORGET_SUMS = """
DELETE FROM sums WHERE (name, bucket) IN (SELECT name, bucket FROM sums WHERE expires_at <= ? LIMIT 100)
"""

FREE = "DELETE FROM slots WHERE name = ? AND until <= ?"
TAKEN = "SELECT coalesce(sum(taken), 0) FROM slots WHERE name = ?"
HELD = "SELECT until, taken FROM slots WHERE name = ? AND owner = ? AND cooling = 0 ORDER BY until"
CHANGE_TAKEN = """
INSERT INTO slots (name, owner, until, cooling, taken) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET taken = taken + excluded.taken
"""


class SqliteCounters:
    """Sums and slots over a time window."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, name: str, amount: int, *, window: float) -> int:
        def add(connection: Connection) -> int:
            now, width = self._engine.now(), _width(window)
            bucket = now - now % width
            connection.execute(FORGET_SUMS, (now,))
            connection.execute(SUM_UP, (name, bucket, amount, bucket + (BUCKETS + 1) * width))
            return _total(connection, name, window, now)

        return await self._engine.write(add)

    async def total(self, name: str, *, window: float) -> int:
        return await self._engine.read(lambda connection: _total(connection, name, window, self._engine.now()))

    async def take(self, name: str, *, owner: str, slots: int, wanted: int, ttl: float) -> int:
        def take(connection: Connection) -> int:
            connection.execute(FREE, (name, self._engine.now()))
            (taken,) = connection.execute(TAKEN, (name,)).fetchone()
            had: int = max(0, min(wanted, slots - taken))
            if had:
                connection.execute(CHANGE_TAKEN, (name, owner, self._engine.after(ttl), 0, had))
            return had

        return await self._engine.write(take)

    async def give(self, name: str, *, owner: str, count: int, after: float = 0.0) -> None:
        def give(connection: Connection) -> None:
            connection.execute(FREE, (name, self._engine.now()))
            left = count
            for until, taken in connection.execute(HELD, (name, owner)).fetchall():
                given = min(left, taken)
                left -= given
                if given > 0:
                    connection.execute(CHANGE_TAKEN, (name, owner, until, 0, -given))
                    connection.execute(CHANGE_TAKEN, (name, owner, self._engine.after(after), 1, given))

        await self._engine.write(give)


def _width(window: float) -> int:
    return max(1, round(window * 1_000_000 / BUCKETS))


def _total(connection: Connection, name: str, window: float, now: int) -> int:
    """Counts a bucket while any part of it is in the window: a limit is kept too early rather than too late."""
    width = _width(window)
    total: int = connection.execute(TOTAL, (name, now - (BUCKETS + 1) * width)).fetchone()[0]
    return total


PUBLISH = "INSERT INTO facts (origin, topic, fact) VALUES (?, ?, ?) RETURNING number"
FORGET_FACTS = "DELETE FROM facts WHERE number <= ?"


class SqliteBus:
    """Small facts: to this process directly, to others through a short table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        text = encode(fact)

        def publish(connection: Connection) -> None:
            [(number,)] = connection.execute(PUBLISH, (self._engine.origin, topic, text)).fetchall()
            connection.execute(FORGET_FACTS, (number - BACKLOG,))

        await self._engine.write(publish, committed=partial(self._engine.listeners.tell, topic, text))

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        return self._listen(topic)

    @asynccontextmanager
    async def _listen(self, topic: str) -> AsyncGenerator[AsyncIterator[Mapping[str, Json]]]:
        with self._engine.watching():
            await self._engine.write(_nothing)  # what others published before is not for this listener
            async with self._engine.listeners.listen(topic) as facts:
                yield facts


def _nothing(connection: Connection) -> None:
    """Only passes through the writer, which first looks at what others wrote."""
