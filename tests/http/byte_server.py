"""A server that answers with bytes of the test's choosing, well-formed or not."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[["Connection"], Awaitable[None]]
PATIENCE = 30.0
"""Seconds for what takes milliseconds, so that a busy machine's pause is no fault of the server's."""


@dataclass
class Connection:
    """One accepted connection; the script runs when its first request has been read."""

    server: "ByteServer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes = b""
    """The last one that was read, head and body."""

    @property
    def closing(self) -> asyncio.Event:
        return self.server.closing

    async def receive(self, begun: bytes = b"") -> bytes:
        """Read the next request."""
        head = begun + await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
        self.request = head + await self.reader.readexactly(length)
        if b"transfer-encoding: chunked" in lines:
            self.request += await self.reader.readuntil(b"\r\n0\r\n\r\n")
        self.server.note(self.request)
        return self.request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        link: socket.socket = self.writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        await self.closing.wait()


@dataclass
class ByteServer:
    """Where it listens, and what it has read: one item per request, head and body."""

    script: Script
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list[bytes])
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    _read: asyncio.Event = field(default_factory=asyncio.Event)
    _accepted: "dict[asyncio.Task[None], asyncio.StreamWriter]" = field(
        default_factory=dict["asyncio.Task[None]", asyncio.StreamWriter]
    )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def note(self, request: bytes) -> None:
        """It was read, whole."""
        self.requests.append(request)
        self._read.set()

    async def heard(self, number: int = 1) -> None:
        """Wait until so many requests were read; a client that gave up may be ahead of us."""
        async with asyncio.timeout(PATIENCE):
            while len(self.requests) < number:
                self._read.clear()
                await self._read.wait()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._accepted[task] = writer
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                first = await reader.readexactly(1)
                if first == b"\x16":  # a TLS client's hello: nothing of a request yet
                    return await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await connection.receive(first)
                await self.script(connection)
            finally:
                writer.close()
                await writer.wait_closed()
                del self._accepted[task]

    async def hang_up(self) -> None:
        """End whatever connection is still open, and see it end."""
        self.closing.set()
        for _ in range(10):  # turns in which a connection that was just accepted comes to be known
            await asyncio.sleep(0)
        for writer in self._accepted.values():
            writer.transport.abort()
        if self._accepted:
            await asyncio.wait(list(self._accepted))


@asynccontextmanager
async def byte_server(script: Script | bytes) -> AsyncGenerator[ByteServer]:
    """Serve on a loopback port; bytes are sent as they are, then the connection is closed."""

    async def reply(connection: Connection) -> None:
        await connection.send(script if isinstance(script, bytes) else b"")

    server = ByteServer(reply if isinstance(script, bytes) else script)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.hang_up()
        await listener.wait_closed()  # from Python 3.12 on it waits for every connection


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
