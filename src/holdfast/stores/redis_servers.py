"""Which server to ask, and its connections.

Every command here is a script whose keys share one slot, so that routing is one look into a table. redis-py's own
cluster client repeats commands whose answer was lost, and cannot send `WAIT` over the connection of the script it is
about; nothing here is repeated unless the server said that it did not run.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, ReadOnlyError
from redis.exceptions import TimeoutError as SocketTimeout

from holdfast.stores.redis_address import Address

CONNECTIONS: Final = 32
"""To each server, at most."""
REDIRECTIONS: Final = 5

LOST: Final = (ConnectionError, SocketTimeout, OSError)
"""A server that cannot be reached, or does not answer in time."""

Command = tuple[Any, ...]
Place = tuple[str, int]


class Client(Protocol):
    """What is used of redis-py, which leaves its own types open."""

    async def execute_command(self, *command: Any) -> Any: ...
    def pipeline(self, transaction: bool) -> Any: ...
    def pubsub(self) -> Any: ...
    async def aclose(self) -> None: ...


class Servers:
    """One server, or those of a cluster."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._clients: dict[Place, Client] = {}
        self._slots: list[tuple[int, int, Place]] = []
        self._stale = address.cluster
        self._refreshing = asyncio.Lock()
        self._turn = 0

    async def run(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        """What each answered, over one connection to the server of the slot; the first error is raised."""
        place = await self._place(slot)
        for _ in range(REDIRECTIONS):
            try:
                return await self._run(place, commands)
            except MovedError as error:
                place = _named(error, place)
                self._stale = True
            except AskError as error:
                return (await self._run(_named(error, place), [("ASKING",), *commands]))[1:]
            except (*LOST, ClusterDownError, ReadOnlyError):
                self._stale = self._address.cluster
                raise
        raise ClusterDownError("the servers go on naming one another")

    async def all(self) -> list[Client]:
        """Every server that holds slots."""
        if self._stale:
            await self._refresh()
        places = dict.fromkeys(place for _, _, place in self._slots)
        return [self.client(place) for place in places or self._address.hosts]

    async def another(self) -> Client:
        """Each time another one of them, to try elsewhere when one is down."""
        self._turn += 1
        self._stale = self._stale or (self._address.cluster and self._turn > 1)
        clients = await self.all()
        return clients[self._turn % len(clients)]

    def client(self, place: Place) -> Client:
        """The connections to one server."""
        if place not in self._clients:
            self._clients[place] = cast(Client, Redis.from_pool(self._pool(place)))
        return self._clients[place]

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

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
            for place in dict.fromkeys([*self._address.hosts, *self._clients]):
                if not self._stale:
                    return
                try:
                    [found] = await self._run(place, [("CLUSTER", "SLOTS")])
                except (*LOST, ClusterDownError) as error:
                    trouble = error
                else:
                    self._slots = [(first, last, _primary(primary, place)) for first, last, primary, *_ in found]
                    self._stale = False
            if self._stale:
                raise trouble

    async def _run(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        client = self.client(place)
        async with asyncio.timeout(self._address.timeout):
            if len(commands) == 1:
                return [await client.execute_command(*commands[0])]
            async with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)  # to raise, it repeats the arguments
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

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
