"""What the five parts of the SQLite store share: its connections, its time, and who waits."""

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from sqlite3 import Connection
from typing import TypeVar

from holdfast.clock import Clock
from holdfast.stores.lifetime import Lifetime
from holdfast.stores.listeners import Listeners
from holdfast.stores.readiness import Readiness
from holdfast.stores.sqlite_schema import connect_to_read, connect_to_write, translate
from holdfast.stores.sqlite_writer import Writer
from holdfast.stores.store_time import StoreTime, micros, moment

S = TypeVar("S")
T = TypeVar("T")

READERS = 3
CHECKPOINT_EVERY = 8000
"""Changed rows after which the log is copied to the file beside the writer.

What the writer itself must copy, at every `wal_autocheckpoint`, is little then, and nobody waits long for a commit.
"""

LONGEST_LEASE = 3600.0
"""Seconds. One that ends later was written while the machine's clock was astray, and would keep its job until then."""
ASTRAY = (
    "UPDATE jobs SET lease_until = :now WHERE state = 'leased' AND lease_until > :latest",
    "UPDATE leases SET until = :now WHERE until > :latest",
)


class Engine:
    """One file, opened."""

    def __init__(self, path: str, clock: Clock, skew_ms: int) -> None:
        self.path = path
        self._clock = clock
        self.lifetime = Lifetime(f"sqlite:///{path}")
        self.time = StoreTime(clock, skew_ms)
        self.readiness = Readiness(clock, self.time)
        self.listeners = Listeners()
        self.origin = secrets.token_hex(8)
        """Who published a fact: this opened store."""
        self._last_fact = 0
        self._checkpointed = 0
        self._noted = self.time.now()

    async def open(self) -> None:
        self.lifetime.open()
        self._readers = Readers(self.path)
        self._writer = Writer(self)
        try:
            await self._writer.start()
        except BaseException:
            self.lifetime.close()
            raise

    async def close(self) -> None:
        if self.lifetime.is_open:
            self.lifetime.close()
            await self._writer.stop()

    async def write(self, change: Callable[[Connection], T], *, committed: Callable[[], None] | None = None) -> T:
        """The change's result once it is on the disk; `committed` is called then in any case."""
        self.lifetime.check()
        return await self._writer.write(change, committed=committed)

    def write_together(
        self,
        change: Callable[[Connection, Sequence[S]], Sequence[T]],
        given: S,
        *,
        committed: Callable[[], None] | None = None,
    ) -> Awaitable[T]:
        """As `write`, for a change that makes what several callers want at once: one result for each."""
        self.lifetime.check()
        return self._writer.write_together(change, given, committed=committed)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The query's result, on what was committed last."""
        self.lifetime.check()
        return await self._readers.read(query)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Meanwhile, notice what other processes write."""
        self.lifetime.check()
        with self._writer.watching():
            yield

    def monotonic(self) -> float:
        """Seconds that only run forwards."""
        return self._clock.monotonic()

    def now(self) -> int:
        """The store's time in microseconds."""
        return micros(self.time.now())

    def after(self, seconds: float) -> int:
        """That many seconds from now, in microseconds."""
        return micros(self.time.after(seconds))

    def connect(self) -> Connection:
        connection = connect_to_write(self.path)
        self._checkpointed = 0
        for (written,) in connection.execute("SELECT value FROM meta WHERE name = 'time'"):
            self.time.not_before(moment(written))
        for statement in ASTRAY:
            connection.execute(statement, {"now": self.now(), "latest": self.after(LONGEST_LEASE)})
        (self._last_fact,) = connection.execute("SELECT coalesce(max(number), 0) FROM facts").fetchone()
        return connection

    def before_commit(self, connection: Connection) -> None:
        """Now and then start a checkpoint, and write the time down, so that it does not run back over a restart."""
        if connection.total_changes - self._checkpointed >= CHECKPOINT_EVERY:
            self._checkpointed = connection.total_changes
            self._readers.checkpoint()
        now = self.time.now()
        if now - self._noted >= timedelta(seconds=1):
            self._noted = now
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('time', ?)", (micros(now),))

    def look_at_others(self, connection: Connection) -> Callable[[], None]:
        facts = connection.execute(
            "SELECT number, origin, topic, fact FROM facts WHERE number > ? ORDER BY number", (self._last_fact,)
        ).fetchall()
        if facts:
            self._last_fact = facts[-1][0]
        return partial(self._others_wrote, [(topic, fact) for _, origin, topic, fact in facts if origin != self.origin])

    def disconnect(self) -> None:
        self._readers.close()

    def _others_wrote(self, facts: list[tuple[str, str]]) -> None:
        self.readiness.changed()
        for topic, fact in facts:
            self.listeners.tell(topic, fact)


class Readers:
    """A few threads with a connection each."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="holdfast-sqlite-reader")
        self._mine = threading.local()
        self._copying: Future[None] | None = None
        self._connections: list[Connection] = []

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)

    def checkpoint(self) -> None:
        """Copy the log to the file, without making a writer wait; when that fails, the next one copies more."""
        if self._copying is None or self._copying.done():
            self._copying = self._threads.submit(self._read, _copy_log)

    def close(self) -> None:
        """Let running queries end."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            return query(self._connection())
        except Exception as error:  # a border: the table of errors tells them apart
            refusal = translate(error)
            if refusal is error:
                raise
            raise refusal from error

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = connect_to_read(self._path)
            self._connections.append(connection)
        return connection


def _copy_log(connection: Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
