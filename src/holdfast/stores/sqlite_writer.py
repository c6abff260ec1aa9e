"""The thread that writes: many changes per commit, each undone alone when it fails."""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from typing import Any, Protocol, TypeVar

from holdfast.clock import works_beside
from holdfast.errors import StoreUnavailable
from holdfast.stores.sqlite_schema import translate

S = TypeVar("S")
T = TypeVar("T")

GROUP = 512
"""Changes that share one commit at most."""
POLL = 0.05
"""Seconds between looks for what other processes wrote, while somebody waits for that."""

# Texts of our own: what a change of the user's may not say is never prepared under the words it would say it in.
BEGIN = "BEGIN IMMEDIATE -- holdfast"
COMMIT = "COMMIT -- holdfast"
ROLLBACK = "ROLLBACK -- holdfast"
SAVE = "SAVEPOINT holdfast_change -- holdfast"
UNDO = "ROLLBACK TO holdfast_change -- holdfast"
KEEP = "RELEASE holdfast_change -- holdfast"


class Surroundings(Protocol):
    """What happens around the changes; all but `others_wrote` run in the writer's thread."""

    def connect(self) -> Connection:
        """The connection to write to."""
        ...

    def before_commit(self, connection: Connection) -> None:
        """Add to the transaction; something was changed in it."""
        ...

    def look_at_others(self, connection: Connection) -> Callable[[], None]:
        """Another process committed; what is returned is called in the event loop."""
        ...

    def disconnect(self) -> None:
        """The last commit is done."""
        ...


class _Work:
    """What one caller wants, what became of it, and the future that waits for that."""

    __slots__ = ("_committed", "_future", "change", "error", "given", "result")

    def __init__(
        self,
        change: Callable[[Connection, Sequence[Any]], Sequence[object]],
        given: object,
        future: asyncio.Future[Any],
        committed: Callable[[], None] | None,
    ) -> None:
        self.change = change
        self.given = given
        self.result: object = None
        self.error: Exception | None = None
        self._future = future
        self._committed = committed

    def fail(self, error: Exception) -> None:
        """The transaction failed."""
        failure = translate(error)
        if not isinstance(failure, StoreUnavailable):
            failure = StoreUnavailable(f"sqlite: {error!r}")
            failure.__cause__ = error
        self.error = failure

    def settle(self) -> None:
        """Tell the caller; in its event loop."""
        if self.error is None and self._committed is not None:
            self._committed()
        if self._future.done():
            return
        if self.error is None:
            self._future.set_result(self.result)
        else:
            self._future.set_exception(self.error)


class Writer:
    """Owns the one connection that writes, and the thread it lives in."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._loop = asyncio.get_running_loop()
        self._handed: list[_Work] = []
        self._inbox = SimpleQueue[Sequence[_Work]]()
        self._waiting: deque[_Work] = deque()
        self._opened = Future[None]()
        self._ended = Future[None]()
        self._stopping = False
        self._watchers = 0
        self._version = 0
        self._awaited = 0
        works_beside(self, self._loop)

    @property
    def busy(self) -> bool:
        """Whether the loop waits for the thread."""
        return self._awaited > 0

    async def start(self) -> None:
        """Connect. Raises what connecting raised."""
        for future in (self._opened, self._ended):
            future.set_running_or_notify_cancel()  # from here on nobody who waits can cancel it
        # A daemon, so that a program which forgets to close still ends: what was acknowledged is on the disk.
        threading.Thread(target=self._run, name="holdfast-sqlite", daemon=True).start()
        try:
            with self._waiting_for_it():
                await asyncio.wrap_future(self._opened)
        except asyncio.CancelledError:
            self._stop()
            raise

    def write(self, change: Callable[[Connection], T], *, committed: Callable[[], None] | None = None) -> Awaitable[T]:
        """Make the change in the next transaction; its result, once that is on the disk.

        `committed` is called then, even when the caller was cancelled meanwhile.
        """
        return self.write_together(lambda connection, _: [change(connection)], None, committed=committed)

    def write_together(
        self,
        change: Callable[[Connection, Sequence[S]], Sequence[T]],
        given: S,
        *,
        committed: Callable[[], None] | None = None,
    ) -> Awaitable[T]:
        """As `write`; what callers give to an equal change one after the other is handed to it at once.

        It returns a result for each. When it raises, nothing of it is kept, and it is made again for each alone.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._handed:
            # What the loop does in this turn goes over at once: woken for the first of it, the thread would begin a
            # transaction for that alone, and wait for the interpreter at each statement while the loop makes the rest.
            self._loop.call_soon(self._hand_over)
        self._handed.append(_Work(change, given, future, committed))
        return future

    async def stop(self) -> None:
        """Commit what is waiting and disconnect."""
        self._stop()
        with self._waiting_for_it():
            await asyncio.wrap_future(self._ended)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Meanwhile, look for what other processes write."""
        self._watchers += 1
        if self._watchers == 1:
            self._inbox.put(())
        try:
            yield
        finally:
            self._watchers -= 1

    @contextmanager
    def _waiting_for_it(self) -> Generator[None]:
        self._awaited += 1
        try:
            yield
        finally:
            self._awaited -= 1

    def _hand_over(self) -> None:
        handed, self._handed = self._handed, []
        self._awaited += len(handed)
        self._inbox.put(handed)

    def _stop(self) -> None:
        self._hand_over()
        self._stopping = True
        self._inbox.put(())

    def _run(self) -> None:
        try:
            connection = self._surroundings.connect()
            self._version = _data_version(connection)
        except Exception as error:  # a border: it belongs to whoever opens the store
            self._opened.set_exception(translate(error))
            return
        self._opened.set_result(None)
        while not (self._stopping and self._inbox.empty() and not self._waiting):
            group = self._next_group()
            if self._watchers:
                self._look_at_others(connection)
            if group:
                self._commit(connection, group)
        self._surroundings.disconnect()
        connection.close()
        self._ended.set_result(None)

    def _next_group(self) -> Sequence[_Work]:
        with suppress(Empty):
            if not self._waiting:
                self._waiting.extend(self._inbox.get(timeout=POLL if self._watchers else None))
            while len(self._waiting) < GROUP:
                self._waiting.extend(self._inbox.get_nowait())
        return [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]

    def _commit(self, connection: Connection, group: Sequence[_Work]) -> None:
        try:
            connection.execute(BEGIN)
            before = connection.total_changes
            for place, (_, works) in enumerate(groupby(group, key=attrgetter("change"))):
                _attempt(connection, list(works), first=not place)
            if connection.total_changes != before:
                self._surroundings.before_commit(connection)
            connection.execute(COMMIT)
        except Exception as error:  # a border: the thread outlives whatever the disk does
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute(ROLLBACK)
            for work in group:
                work.fail(error)
        self._in_loop(partial(self._settle, group))

    def _look_at_others(self, connection: Connection) -> None:
        with suppress(sqlite3.Error):  # the next look finds it
            version = _data_version(connection)
            if version != self._version:
                self._in_loop(self._surroundings.look_at_others(connection))
                self._version = version

    def _settle(self, group: Sequence[_Work]) -> None:
        self._awaited -= len(group)
        for work in group:
            work.settle()

    def _in_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(call)


def _attempt(connection: Connection, works: Sequence[_Work], *, first: bool = False) -> None:
    """Make the change that all of these want, or nothing of it. Raises what fails the whole transaction.

    The first one of a transaction needs no savepoint, which costs a copy of every page that is changed.
    """
    if not first:
        connection.execute(SAVE)
    try:
        results = works[0].change(connection, [work.given for work in works])
    except Exception as error:  # a border: whatever it is belongs to its caller, not to the neighbours
        refusal = translate(error)
        if isinstance(refusal, StoreUnavailable):
            raise
        connection.execute(ROLLBACK if first else UNDO)
        if first:
            connection.execute(BEGIN)
        if len(works) == 1:
            works[0].error = refusal
        else:
            for work in works:
                _attempt(connection, [work])
    else:
        for work, result in zip(works, results, strict=True):
            work.result = result
    if not first:
        connection.execute(KEEP)


def _data_version(connection: Connection) -> int:
    """Changes when another connection commits, not with our own commits."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version
