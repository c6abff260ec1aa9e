"""What the five parts of the PostgreSQL store share: its lanes, its time, and who waits."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar, cast

from holdfast.clock import Clock
from holdfast.stores.lifetime import Lifetime
from holdfast.stores.listeners import Listeners
from holdfast.stores.postgres_adding import Given, add_each
from holdfast.stores.postgres_connection import Address, Connection, check_encoding, select
from holdfast.stores.postgres_lanes import Lane
from holdfast.stores.postgres_schema import migrate
from holdfast.stores.postgres_settling import Settling, settle_each
from holdfast.stores.postgres_signals import Fact, Signals
from holdfast.stores.postgres_time import MOMENT, ServerTime
from holdfast.stores.postgres_waiting import Waiting
from holdfast.stores.store import Added
from holdfast.stores.store_time import moment

T = TypeVar("T")

GENERAL: Final = 3
"""Connections for what is neither added, settled, told, nor a heartbeat."""
GROUP: Final = 128
"""Callers that share one commit at most."""

NOW: Final = f"WITH {MOMENT} SELECT now FROM moment"


class Engine:
    """One schema of a database, opened.

    Five lanes, so that neither a heartbeat nor an arriving job ever waits behind a query.
    """

    def __init__(self, url: str, clock: Clock, skew_ms: int) -> None:
        self.address = Address(url)
        self.lifetime = Lifetime(repr(self.address))
        self.time = ServerTime(clock, skew_ms)
        self.listeners = Listeners()
        self.waiting = Waiting(clock, self.time, self.run)
        self._clock = clock

    async def open(self) -> None:
        self.lifetime.open()
        try:
            async with await self.address.connect() as connection:
                await check_encoding(connection)
                await migrate(connection, self.address.schema)
        except Exception as error:  # a border: the table of errors tells them apart
            self.lifetime.close()
            refusal = self.address.translate(error)
            if refusal is error:
                raise
            raise refusal from error
        except BaseException:
            self.lifetime.close()
            raise
        self._signals = Signals(self.address, self._clock, self)
        self._adding = Lane(self.address, partial(add_each, self.time), group=GROUP)
        self._settling = Lane(self.address, partial(settle_each, self.time), group=GROUP)
        self._telling = Lane(self.address, self._signals.tell_each, group=GROUP)
        self._beating = Lane(self.address, _run_each)
        self._running = Lane(self.address, _run_each, connections=GENERAL)

    async def close(self) -> None:
        if self.lifetime.is_open:
            self.lifetime.close()
            await self._signals.stop()
            for lane in (self._adding, self._settling, self._running, self._beating, self._telling):
                await lane.stop()

    async def add(self, given: Sequence[Given]) -> list[Added]:
        self.lifetime.check()
        return cast("list[Added]", await self._adding.do(given, committed=self.jobs_changed_here))

    async def settle(self, settling: Settling) -> None:
        self.lifetime.check()
        await self._settling.do(settling, committed=self.jobs_changed_here if settling.frees_work else None)

    async def run(
        self,
        body: Callable[[Connection], Awaitable[T]],
        *,
        committed: Callable[[], None] | None = None,
        urgent: bool = False,
    ) -> T:
        """What the body returns; a heartbeat is urgent."""
        self.lifetime.check()
        lane = self._beating if urgent else self._running
        return cast("T", await lane.do(body, committed=committed))

    async def publish(self, topic: str, text: str) -> None:
        self.lifetime.check()
        await self._telling.do(Fact(topic, text), committed=partial(self.listeners.tell, topic, text))

    async def catch_up(self) -> None:
        """Hand out the facts that others have published so far."""
        await self._signals.look()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Meanwhile, notice what other processes do."""
        self.lifetime.check()
        with self._signals.watching():
            yield

    async def now(self) -> datetime:
        [(now,)] = await self.run(lambda connection: select(connection, NOW, self.time.parameters()))
        return moment(now)

    def jobs_changed_here(self) -> None:
        """Jobs were added, given back, or freed by this process."""
        self.waiting.changed()
        self._telling.send(None)


async def _run_each(connection: Connection, bodies: Sequence[Callable[[Connection], Awaitable[Any]]]) -> list[Any]:
    return [await body(connection) for body in bodies]
