"""What the servers tell without being asked: published facts, and that jobs may have become ready."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis.exceptions import ConnectionError

from holdfast.clock import Clock
from holdfast.stores.redis_errors import ERRORS
from holdfast.stores.redis_lane import Command, Pool, pack
from holdfast.stores.redis_servers import Servers

PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
SILENCE: Final = 1.0
"""Seconds after which a server that says nothing is asked whether it is still there."""
UNANSWERED: Final = 2
RECHECK: Final = 5
"""Silences after which something may have been missed: the servers of a cluster can lose what they tell one another."""


class Facts:
    """One connection that only listens; made when somebody listens first, and made again when it breaks."""

    def __init__(
        self,
        servers: Servers,
        clock: Clock,
        *,
        channels: Mapping[str, Callable[[bytes], None]],
        missed: Callable[[], None],
    ) -> None:
        self._servers = servers
        self._clock = clock
        self._channels = {name.encode(): tell for name, tell in channels.items()}
        self._missed = missed
        self._reading: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._connection: Any = None
        self._trouble: Exception = ConnectionError("not connected yet")
        self._echoes: dict[bytes, asyncio.Future[None]] = {}

    async def settled(self) -> None:
        """Return when the connection was made, or could not be."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        await self._settled.wait()

    async def caught_up(self) -> None:
        """Return when everything published before this was told. Raises what redis-py raises."""
        await self.settled()
        if self._connection is None:
            raise self._trouble
        token = secrets.token_hex(8).encode()
        self._echoes[token] = asyncio.get_running_loop().create_future()
        try:
            await _send(self._connection, ("PING", token))
            await self._echoes[token]
        finally:
            del self._echoes[token]

    async def close(self) -> None:
        reading, self._reading = self._reading, None
        while reading is not None and not reading.done():
            reading.cancel()
            await asyncio.wait([reading], timeout=SILENCE)  # once may get lost in redis-py

    async def _read(self) -> None:
        pause = PAUSE
        while True:
            try:
                await self._listen((await self._servers.another()).connection_pool)
            except tuple(ERRORS) as error:
                pause = PAUSE if self._connection else min(pause * 2, LONGEST_PAUSE)
                self._broke(error)
            await self._clock.sleep(pause)

    async def _listen(self, pool: Pool) -> None:
        """Until the connection breaks. redis-py's own listener does the same through many more layers."""
        connection: Any = None
        try:
            async with asyncio.timeout(self._servers.timeout):
                connection = await pool.get_connection()
                await _send(connection, ("SUBSCRIBE", *self._channels))
            await self._receive(connection)
        finally:
            if connection is not None:
                try:
                    await connection.disconnect(nowait=True)
                finally:
                    await pool.release(connection)

    async def _receive(self, connection: Any) -> None:
        subscribed, silences, unanswered = 0, 0, 0
        while True:
            message = await connection.read_response(timeout=SILENCE, disconnect_on_error=False)
            if message is None:
                silences, unanswered = silences + 1, unanswered + 1
                if unanswered > UNANSWERED:
                    raise ConnectionError("the server says nothing any more")
                if silences % RECHECK == 0:
                    self._missed()
                await _send(connection, ("PING",))
                continue
            unanswered = 0
            kind, *said = message
            if kind == b"message":
                channel, data = said
                self._channels[channel](data)
            elif kind == b"pong":
                self._echo(said[0])
            elif kind == b"subscribe":
                subscribed += 1
                if subscribed == len(self._channels):
                    self._connection = connection
                    self._settled.set()
                    self._missed()

    def _echo(self, token: bytes) -> None:
        echo = self._echoes.get(token)
        if echo is not None and not echo.done():
            echo.set_result(None)

    def _broke(self, error: Exception) -> None:
        self._connection, self._trouble = None, error
        self._settled.set()
        self._missed()
        for echo in self._echoes.values():
            if not echo.done():
                echo.set_exception(error)


async def _send(connection: Any, command: Command) -> None:
    await connection.send_packed_command(pack(command), check_health=False)
