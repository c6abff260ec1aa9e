"""Many calls over one connection.

A call is sent while the answers to others are still on their way, so that neither side waits for the other; those that
come while enough is under way gather, and go together: a wait for a disk or a replica, where the URL asks for it, is
paid once for all of them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from redis.exceptions import ResponseError

Command = tuple[Any, ...]

EXCHANGES: Final = 4
"""Under way at once, at most."""
CALLS: Final = 256
"""In one exchange, at most."""
BYTES: Final = 1_000_000
"""In one exchange, about."""


class Pool(Protocol):
    """What is used of redis-py's pool, which connects, and says who we are."""

    async def get_connection(self) -> Any: ...
    async def release(self, connection: Any) -> None: ...


class Client(Protocol):
    """What is used of redis-py, which leaves its own types open."""

    connection_pool: Pool

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    commands: int
    packed: bytes
    confirm: Command | None
    future: asyncio.Future[tuple[Any, Any]]

    def answer(self, answer: Any, confirmed: Any) -> None:
        if self.confirm and isinstance(confirmed, Exception) and not isinstance(answer, Exception):
            answer = confirmed
        if isinstance(answer, Exception):
            self.fail(answer)
        elif not self.future.done():
            self.future.set_result((answer, confirmed if self.confirm else None))

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Calls that were sent together, and what is asked behind them for those that want it."""

    calls: Sequence[_Call]
    confirm: Command | None

    @property
    def packed(self) -> bytes:
        if len(self.calls) == 1 and not self.confirm:
            return self.calls[0].packed
        return b"".join([*(call.packed for call in self.calls), pack(self.confirm) if self.confirm else b""])

    async def read(self, connection: Any) -> None:
        """Answer each call as soon as it can be."""
        unconfirmed: list[tuple[_Call, Any]] = []
        for call in self.calls:
            answer: Any = None
            for _ in range(call.commands):
                answer = await _answer(connection)
            if self.confirm is None:
                call.answer(answer, None)
            else:
                unconfirmed.append((call, answer))
        if self.confirm is not None:
            confirmed = await _answer(connection)
            for call, answer in unconfirmed:
                call.answer(answer, confirmed)

    def fail(self, error: Exception) -> None:
        for call in self.calls:
            call.fail(error)

    def cancel(self) -> None:
        for call in self.calls:
            call.future.cancel()


class Lane:
    """The calls to one server."""

    def __init__(self, client: Client, timeout: float) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._under_way: deque[_Exchange] = deque()
        self._connection: Any = None
        self._writing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def run(self, commands: Sequence[Command], confirm: Command | None = None) -> tuple[Any, Any]:
        """What the last of the commands answered, and what `confirm` did after all of them."""
        loop = asyncio.get_running_loop()
        packed = pack(commands[0]) if len(commands) == 1 else b"".join(map(pack, commands))
        call = _Call(len(commands), packed, confirm, loop.create_future())
        self._waiting.append(call)
        if self._under_way:
            self._write_on()
        elif len(self._waiting) == 1:
            # Not at once: others may ask in this turn of the loop, and one more tells whether the server has gone away.
            loop.call_soon(self._write_on)
        return await call.future

    async def close(self) -> None:
        """Let what was begun end."""
        while self._waiting or self._under_way:
            self._write_on()
            await asyncio.wait([task for task in (self._writing, self._reading) if task is not None])
        await self._disconnect()
        await self.client.aclose()

    def _write_on(self) -> None:
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def _read_on(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _write(self) -> None:
        while len(self._under_way) < EXCHANGES and (calls := self._next_calls()):
            exchange = _Exchange(calls, next((call.confirm for call in calls if call.confirm), None))
            try:
                # The machine's own time: no clock of a test moves a socket.
                async with asyncio.timeout(self._timeout):
                    connection = await self._connected()
                    self._under_way.append(exchange)
                    await connection.send_packed_command(exchange.packed, check_health=False)
                self._read_on()
            except Exception as error:  # a border: whoever called translates it
                exchange.fail(error)
                await self._break(error)
            except asyncio.CancelledError:
                exchange.cancel()
                raise

    async def _read(self) -> None:
        while self._under_way:
            exchange, connection = self._under_way[0], self._connection
            try:
                async with asyncio.timeout(self._timeout):
                    await exchange.read(connection)
            except Exception as error:  # a border: whoever called translates it
                if connection is self._connection:
                    await self._break(error)
                continue
            except asyncio.CancelledError:
                for exchange in self._under_way:
                    exchange.cancel()
                raise
            if connection is self._connection:
                self._under_way.popleft()
                self._write_on()
        self._write_on()

    def _next_calls(self) -> list[_Call]:
        calls: list[_Call] = []
        size = 0
        while self._waiting and len(calls) < CALLS and size < BYTES:
            call = self._waiting.popleft()
            if not call.future.done():
                calls.append(call)
                size += len(call.packed)
        return calls

    async def _connected(self) -> Any:
        """The connection in use; where nothing is under way, one that was seen to be alive."""
        if self._connection is not None and not self._under_way and await _is_over(self._connection):
            await self._disconnect()
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        return self._connection

    async def _break(self, error: Exception) -> None:
        """The connection is of no more use, and nobody knows what became of what is under way."""
        lost = list(self._under_way)
        self._under_way.clear()
        for exchange in lost:
            exchange.fail(error)
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is broken
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)


async def _is_over(connection: Any) -> bool:
    """The server has hung up, or says what nobody asked for. The pool looks for the same, at ten times the price."""
    try:
        look = connection.can_read if hasattr(connection, "can_read") else connection.can_read_destructive
        return bool(await look())
    except Exception:  # a border: whatever stands in the way of looking stands in the way of all else
        return True


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:  # an answer, too
        return error


def pack(command: Command) -> bytes:
    """As it goes over the wire."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        if type(part) is not bytes:
            part = part.encode() if isinstance(part, str) else b"%d" % part
        parts.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(parts)
