"""What processes tell one another: facts, and that a job may have become ready.

A notification only says "look". What there is to see is in tables, and is looked for every second anyway while
somebody waits: a notification may be lost, and some proxies pass none on.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from psycopg import sql
from psycopg.types.numeric import Int8

from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.stores.listeners import BACKLOG, Listeners
from holdfast.stores.postgres_connection import Address, Connection, lock_number, select
from holdfast.stores.postgres_waiting import Waiting

T = TypeVar("T")

POLL: Final = 1.0

# Facts are best effort: their commit waits for no disk. The lock makes their numbers visible in their order.
SOON: Final = "SELECT set_config('synchronous_commit', 'off', true)"
LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
PUBLISH: Final = """
INSERT INTO facts (origin, topic, fact)
SELECT %(origin)s, topic, fact
FROM unnest(%(topics)s::text[], %(facts)s::text[]) WITH ORDINALITY AS given (topic, fact, place) ORDER BY place
RETURNING number
"""
FORGET: Final = "DELETE FROM facts WHERE number <= %s"
NOTIFY: Final = "SELECT pg_notify(%s, word) FROM unnest(%s::text[]) AS word"
LAST: Final = "SELECT coalesce(max(number), 0) FROM facts"
SINCE: Final = "SELECT number, origin, topic, fact FROM facts WHERE number > %s ORDER BY number"

JOBS: Final = "jobs"
FACTS: Final = "facts"

logger: Final = logging.getLogger("holdfast.stores")


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact to publish."""

    topic: str
    text: str


class Surroundings(Protocol):
    """Who hears."""

    @property
    def listeners(self) -> Listeners: ...
    @property
    def waiting(self) -> Waiting: ...

    async def run(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Ask the database."""
        ...


class Signals:
    """One process's voice and ear."""

    def __init__(self, address: Address, clock: Clock, surroundings: Surroundings) -> None:
        self._address = address
        self._clock = clock
        self._surroundings = surroundings
        self._channel = f"holdfast_{address.schema}"
        self._origin = secrets.token_hex(8)
        self._watchers = 0
        self._hearing: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._last: int | None = None

    async def tell_each(self, connection: Connection, works: Sequence[Fact | None]) -> list[None]:
        """Publish these facts; None stands for jobs that changed."""
        facts = [fact for fact in works if fact is not None]
        if facts:
            async with connection.transaction():
                await connection.execute(SOON)
                await connection.execute(LOCK, [lock_number("facts", self._address.schema)])
                written = {
                    "origin": self._origin,
                    "topics": [fact.topic for fact in facts],
                    "facts": [fact.text for fact in facts],
                }
                numbers = await select(connection, PUBLISH, written)
                await connection.execute(FORGET, [Int8(max(number for (number,) in numbers) - BACKLOG)])
        words = {FACTS if fact else JOBS for fact in works}
        await connection.execute(NOTIFY, [self._channel, [f"{self._origin} {word}" for word in words]])
        return [None] * len(works)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Meanwhile, notice what other processes do."""
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._hear_always())
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def look(self) -> None:
        """Hand over the facts that others published since the last look; the first one only begins."""
        async with self._looking:
            if self._last is None:
                [(last,)] = await self._surroundings.run(lambda connection: select(connection, LAST))
                self._last = last
                return
            since = [Int8(self._last)]
            for number, origin, topic, fact in await self._surroundings.run(
                lambda connection: select(connection, SINCE, since)
            ):
                self._last = number
                if origin != self._origin:
                    self._surroundings.listeners.tell(topic, fact)

    async def stop(self) -> None:
        """Hear nothing more."""
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.cancel()
            await asyncio.wait([hearing])

    async def _hear_always(self) -> None:
        while True:
            try:
                await self._hear()
            except Exception as error:  # a border: whatever ended the connection, there will be another
                logger.debug("not hearing other processes: %s", self._address.translate(error))
            await self._clock.sleep(POLL)
            await self._look_around()

    async def _hear(self) -> None:
        async with await self._address.connect() as connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            await self._look_around()
            while True:
                heard = [each.payload.partition(" ") async for each in connection.notifies(timeout=POLL, stop_after=1)]
                others = {word for origin, _, word in heard if origin != self._origin}
                if JOBS in others:
                    self._surroundings.waiting.changed()
                if FACTS in others and self._watchers:
                    await self.look()
                if not heard:
                    await self._look_around()

    async def _look_around(self) -> None:
        if self._watchers:
            with suppress(StoreError):  # the next look sees it
                await self.look()
                await self._surroundings.waiting.look()
