"""The relay: moves calls from the outbox table in the user's own database to the queue."""

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError
from holdfast.queue import outbox_table, sessions
from holdfast.queue.sessions import Row
from holdfast.queue.signals import DeferredCallConflict, OutboxRelayed
from holdfast.stores.store import Added, Store
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.outbox")

T = TypeVar("T")

BATCH = 100
LONGEST_PAUSE = 30.0
"""Seconds between two looks while the database cannot be reached."""


class Relay:
    """Takes what has been committed, adds it to the queue, deletes it.

    A crash in between takes the same rows again, and the queue knows their keys. Any number of relays may work on one
    table, in one process or many.
    """

    def __init__(
        self,
        connect: Callable[[], object],
        store: Store,
        *,
        every: float,
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
    ) -> None:
        self._connect = connect
        self._store = store
        self._every = every
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry

    async def run(self) -> None:
        """Move calls until cancelled. Raises ConfigurationError: it can never work with this database."""
        failures = 0
        while True:
            try:
                async with _open(self._connect) as database:
                    while True:
                        while await self._move(database):
                            failures = 0
                        failures = 0
                        await self._clock.sleep(self._every * self._chance.uniform(0.8, 1.2))
            except ConfigurationError:
                raise
            except Exception as error:  # a border: whatever the user's database raises, the next look may go well
                log.warning("cannot empty the outbox table: %s: %s", type(error).__name__, error)
            failures += 1
            await self._clock.sleep(min(LONGEST_PAUSE, self._every * 2.0 ** min(failures, 16)))

    async def move(self) -> int:
        """Move all there is; how many calls that were."""
        moved = 0
        async with _open(self._connect) as database:
            while batch := await self._move(database):
                moved += batch
        return moved

    async def _move(self, database: "_Database") -> int:
        """Move one batch; how many calls that were."""
        try:
            await database.begin()
            rows = await self._take(database)
            if database.dialect == "sqlite" or not rows:
                # A file has one writer: the lock is not kept while the queue works, which may be in the same file.
                await database.commit()
            if not rows:
                return 0
            now = await self._store.now()
            added = await self._store.jobs.add([outbox_table.from_row(row, now=now) for row in rows])
            await database.begin()
            await database.execute(*outbox_table.delete(rows))
            await database.commit()
        except BaseException:
            await database.rollback()
            raise
        self._tell(rows, added)
        return len(rows)

    async def _take(self, database: "_Database") -> Sequence[Row]:
        rows = await database.fetch(outbox_table.TAKE[database.dialect], {"most": BATCH})
        keys = sorted({row[7] for row in rows if row[7]})
        if database.dialect == "sqlite" or not keys:
            return rows
        statement, parameters = outbox_table.behind(keys)
        ordered = await database.fetch(statement, {**parameters, "most": BATCH})
        return sorted([*(row for row in rows if not row[7]), *ordered], key=lambda row: cast("int", row[0]))

    def _tell(self, rows: Sequence[Row], added: Sequence[Added]) -> None:
        for row, result in zip(rows, added, strict=True):
            if result is Added.CONFLICT:
                self._telemetry.emit(DeferredCallConflict(row[3], row[2]))
        self._telemetry.emit(OutboxRelayed(len(rows)))


class _Database:
    """A session of the user's: an asynchronous one as it is, a synchronous one in a thread that is its own."""

    def __init__(self, session: Any, beside: "Callable[..., Awaitable[Any]]") -> None:
        self._session = session
        self._beside = beside
        self._waits = sessions.is_asynchronous(session)
        self.dialect = ""

    async def find_dialect(self) -> None:
        self.dialect = await self._do(sessions.dialect)
        if self.dialect not in outbox_table.TAKE:
            raise ConfigurationError(f"the outbox table is for {', '.join(outbox_table.TAKE)}, not {self.dialect}")

    async def begin(self) -> None:
        await self._do(sessions.begin)

    async def commit(self) -> None:
        await self._do(sessions.commit)

    async def rollback(self) -> None:
        try:
            await self._do(sessions.rollback)
        except Exception as error:  # a border: it is broken, and closed next; what broke it is what is told
            log.debug("cannot roll back: %s", error)

    async def execute(self, sql: str, parameters: dict[str, object]) -> None:
        await self._do(sessions.execute, sql, parameters)

    async def fetch(self, sql: str, parameters: dict[str, object]) -> Sequence[Row]:
        return cast("Sequence[Row]", await self._do(sessions.fetch, sql, parameters))

    async def close(self) -> None:
        await self._do(sessions.close)

    async def _do(self, function: Callable[..., Any], *arguments: object) -> Any:
        if not self._waits:
            return await self._beside(function, self._session, *arguments)
        result = function(self._session, *arguments)
        return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def _open(connect: Callable[[], object]) -> AsyncGenerator[_Database]:
    """What the user's function gives: a session, an awaitable of one, or a context manager around one."""
    # One thread for all of it: a connection of sqlite3 works only where it was made.
    pool = ThreadPoolExecutor(1, thread_name_prefix="holdfast-relay")

    async def beside(function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments))

    async with AsyncExitStack() as stack:
        stack.callback(pool.shutdown, wait=False)
        blocking = ExitStack()
        stack.push_async_callback(beside, blocking.close)
        opened: Any = await beside(connect)
        if inspect.isawaitable(opened) and not hasattr(opened, "__aenter__"):
            opened = await opened
        if hasattr(opened, "__aenter__"):
            database = _Database(await stack.enter_async_context(cast("Any", opened)), beside)
            stack.push_async_callback(database.rollback)
        elif sessions.is_known(opened):  # by its own word: sqlite3's, as a context manager, does not close
            database = _Database(opened, beside)
            stack.push_async_callback(database.close)
        else:
            database = _Database(await beside(blocking.enter_context, opened), beside)
            stack.push_async_callback(database.rollback)
        await database.find_dialect()
        yield database
