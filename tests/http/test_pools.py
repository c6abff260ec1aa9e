"""Small pools instead of a big one: as many connections as are needed, and no more."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest

from holdfast.http.pools import CONNECTIONS, KEEPALIVE, SHARDS, ShardedTransport
from holdfast.testing import ManualClock
from tests.http.byte_server import PATIENCE, ByteServer, Connection, byte_server


class Gate:
    """Keeps connections open, and answers while it is open itself."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()
        self.waiting = 0
        self.changed = asyncio.Condition()

    async def reached_by(self, number: int) -> None:
        """Wait until so many requests wait here."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.waiting >= number)

    async def script(self, connection: Connection) -> None:
        while True:
            async with self.changed:
                self.waiting += 1
                self.changed.notify_all()
            await self.opened.wait()
            self.waiting -= 1
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await connection.receive()


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def server(gate: Gate) -> AsyncGenerator[ByteServer]:
    async with byte_server(gate.script) as server:
        yield server


def client_over(pools: ShardedTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=pools, timeout=PATIENCE)


async def several(client: httpx.AsyncClient, url: str, number: int, gate: Gate) -> None:
    """So many requests, all under way at once."""
    gate.opened.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(client.get(url))
        await gate.reached_by(number)
        gate.opened.set()


async def test_sequential_requests_share_one_connection_even_after_a_burst(server: ByteServer, gate: Gate) -> None:
    async with ShardedTransport() as pools, client_over(pools) as client:
        # given
        await several(client, server.url, 20, gate)
        assert server.connections == 20

        # when
        for _ in range(10):
            await client.get(server.url)

        # then
        assert server.connections == 20
        assert len(pools.shards) == SHARDS


async def test_a_pool_is_opened_when_all_others_are_in_use(server: ByteServer, gate: Gate) -> None:
    async with ShardedTransport() as pools, client_over(pools) as client:
        for _ in range(3):
            await client.get(server.url)
            assert len(pools.shards) == 1
        await several(client, server.url, 3, gate)
        assert len(pools.shards) == 3


async def test_connections_have_an_upper_bound(server: ByteServer, gate: Gate) -> None:
    async with ShardedTransport() as pools, client_over(pools) as client:
        # given
        most = SHARDS * CONNECTIONS
        gate.opened.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(most):
                group.create_task(client.get(server.url))
            await gate.reached_by(most)

            # when
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url, timeout=httpx.Timeout(PATIENCE, pool=0.1))

            # then
            assert server.connections == most
            gate.opened.set()


async def test_a_pool_nobody_needs_any_more_is_closed(server: ByteServer, gate: Gate) -> None:
    # given
    clock = ManualClock()
    async with ShardedTransport(clock=clock) as pools, client_over(pools) as client:
        await several(client, server.url, 3, gate)

        # when
        await clock.advance(KEEPALIVE + 1)
        for _ in range(3):
            await client.get(server.url)

        # then
        assert len(pools.shards) == 1


async def test_a_request_is_under_way_until_its_answer_is_closed(server: ByteServer) -> None:
    async with ShardedTransport() as pools, client_over(pools) as client:
        async with client.stream("GET", server.url) as response:
            assert [shard.running for shard in pools.shards] == [1]
            await response.aclose()
            await response.aclose()
        assert [shard.running for shard in pools.shards] == [0]


async def test_whatever_ends_a_request_it_is_no_longer_counted() -> None:
    async def fall_silent(connection: Connection) -> None:
        await connection.hang()

    pools = ShardedTransport()
    async with byte_server(fall_silent) as server, client_over(pools) as client:
        # when
        with pytest.raises(httpx.ReadTimeout):
            await client.get(server.url, timeout=httpx.Timeout(PATIENCE, read=0.05))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.get(server.url)

        # then
        assert [shard.running for shard in pools.shards] == [0]


async def test_it_can_be_used_again_after_it_was_closed(server: ByteServer) -> None:
    pools = ShardedTransport()
    for _ in range(2):
        async with client_over(pools) as client:
            assert (await client.get(server.url)).text == "ok"
    await pools.aclose()
    assert pools.shards == []
