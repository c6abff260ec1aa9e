"""A server that answers with bytes of the test's choosing, well-formed or not."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[["Connection"], Awaitable[None]]


@dataclass
class Connection:
    """One accepted connection whose request has been read."""

    writer: asyncio.StreamWriter
    closing: asyncio.Event

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
    requests: list[bytes] = field(default_factory=list[bytes])
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = await reader.readexactly(1)
                if head == b"\x16":  # a TLS client's hello: nothing of a request yet
                    return await Connection(writer, self.closing).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                head += await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                await self.script(Connection(writer, self.closing))
            finally:
                writer.close()


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
        server.closing.set()
        listener.close()
        await listener.wait_closed()


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
