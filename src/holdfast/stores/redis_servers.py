"""Which server to ask, and its connections.

Every command here is a script whose keys share one slot, so that routing is one look into a table. redis-py's own
cluster client repeats commands whose answer was lost, and cannot send `WAIT` over the connection of the script it is
about; nothing here is repeated unless the server said that it did not run.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, ReadOnlyError
from redis.exceptions import TimeoutError as SocketTimeout

from holdfast.stores.redis_address import Address
from holdfast.stores.redis_lane import Client, Command, Lane

CONNECTIONS: Final = 4
"""To each server, at most: one for all calls, one that listens, and what a broken one leaves for a moment."""
ASKING: Final[Command] = ("ASKING",)
REDIRECTIONS: Final = 5

LOST: Final = (ConnectionError, SocketTimeout, OSError)
"""A server that cannot be reached, or does not answer in time."""

Place = tuple[str, int]


class Servers:
    """One server, or those of a cluster."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.timeout = address.timeout
        self._lanes: dict[Place, Lane] = {}
        self._slots: list[tuple[int, int, Place]] = []
        self._stale = address.cluster
        self._refreshing = asyncio.Lock()
        self._turn = 0

    async def run(self, slot: int, command: Command, confirm: Command | None = None) -> tuple[Any, Any]:
        """What the server of the slot answered, and what it answered to `confirm` behind it, over one connection."""
        place = await self._place(slot)
        before: tuple[Command, ...] = ()
        for _ in range(REDIRECTIONS):
            try:
                return await self._lane(place).run((*before, command), confirm)
            except MovedError as error:
                place, before = _named(error, place), ()
                self._stale = True
            except AskError as error:
                place, before = _named(error, place), (ASKING,)
            except (*LOST, ClusterDownError, ReadOnlyError):
                self._stale = self._address.cluster
                raise
        raise ClusterDownError("the servers go on naming one another")

    async def ask_all(self, command: Command) -> list[Any]:
        """What every server that holds slots answered."""
        return [(await self._lane(place).run((command,)))[0] for place in await self._places()]

    async def another(self) -> Client:
        """Each time another server, to try elsewhere when one is down."""
        self._turn += 1
        self._stale = self._stale or (self._address.cluster and self._turn > 1)
        places = await self._places()
        return self._lane(places[self._turn % len(places)]).client

    async def close(self) -> None:
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            await lane.close()

    async def _places(self) -> list[Place]:
        if self._stale:
            await self._refresh()
        return list(dict.fromkeys(place for _, _, place in self._slots)) or list(self._address.hosts)

    def _lane(self, place: Place) -> Lane:
        if place not in self._lanes:
            client = cast(Client, Redis.from_pool(self._pool(place)))
            self._lanes[place] = Lane(client, self.timeout)
        return self._lanes[place]

    async def _place(self, slot: int) -> Place:
        if self._stale:
            await self._refresh()
        for first, last, place in self._slots:
            if first <= slot <= last:
                return place
        if self._address.cluster:
            self._stale = True
            raise ClusterDownError(f"no server holds slot {slot}")
        return self._address.hosts[0]

    async def _refresh(self) -> None:
        async with self._refreshing:
            trouble: Exception = ConnectionError("no server is known")
            for place in dict.fromkeys([*self._address.hosts, *self._lanes]):
                if not self._stale:
                    return
                try:
                    found, _ = await self._lane(place).run((("CLUSTER", "SLOTS"),))
                except (*LOST, ClusterDownError) as error:
                    trouble = error
                else:
                    self._slots = [(first, last, _primary(primary, place)) for first, last, primary, *_ in found]
                    self._stale = False
            if self._stale:
                raise trouble

    def _pool(self, place: Place) -> BlockingConnectionPool:
        address = self._address
        return BlockingConnectionPool(
            connection_class=SSLConnection if address.tls else Connection,
            max_connections=CONNECTIONS,
            timeout=address.timeout,
            host=place[0],
            port=place[1],
            db=address.database,
            username=address.username,
            password=address.password,
            # None: with one, redis-py waits by `asyncio.wait_for`, which loses a cancellation now and then.
            socket_timeout=None,
            socket_connect_timeout=address.timeout,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )


def _primary(described: Sequence[Any], asked: Place) -> Place:
    return (described[0] or b"").decode() or asked[0], described[1]


def _named(error: AskError, asked: Place) -> Place:
    """Where a server sends us; one that does not know its own address leaves it empty."""
    return getattr(error, "host", "") or asked[0], error.port
