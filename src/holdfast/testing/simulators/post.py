"""Posting bytes to an address and reading the answer: all a vendor does with a webhook."""

import asyncio
from typing import Final
from urllib.parse import urlsplit

import h11

from holdfast.clock import Clock, SystemClock
from holdfast.testing.simulators.simulator import Headers, Reply

_MOST_READ: Final = 65_536


class Poster:
    """Sends over a connection of its own each time, plain HTTP: the receiver is on this machine.

    With an `address` everything is sent there, whatever its own address says: the receiver is behind a proxy.
    """

    def __init__(self, address: str = "", *, timeout: float = 10, clock: Clock | None = None) -> None:
        self._address = address
        self._timeout = timeout
        self._clock: Clock = clock or SystemClock()

    async def __call__(self, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer; with status 0 where there is none."""
        try:
            async with self._clock.timeout(self._timeout):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Reply(status=0, failure="timeout")
        except h11.RemoteProtocolError:
            return Reply(status=0, failure="no HTTP answer")
        except OSError as error:
            return Reply(status=0, failure=type(error).__name__)

    async def _post(self, url: str, headers: Headers, body: bytes) -> Reply:
        parts, there = urlsplit(url), urlsplit(self._address or url)
        reader, writer = await asyncio.open_connection(there.hostname, there.port or 80)
        try:
            wire = h11.Connection(h11.CLIENT)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            own = [("host", parts.netloc), ("connection", "close"), ("content-length", str(len(body)))]
            head = h11.Request(method="POST", target=target, headers=[*own, *headers])
            for part in (head, h11.Data(body), h11.EndOfMessage()):
                writer.write(wire.send(part) or b"")
            await writer.drain()
            return await _read(wire, reader)
        finally:
            writer.close()


async def _read(wire: h11.Connection, reader: asyncio.StreamReader) -> Reply:
    """The answer with the beginning of its body; a receiver that ends early has still said its status."""
    head: h11.Response | None = None
    body = bytearray()
    while len(body) < _MOST_READ:
        try:
            event = wire.next_event()
        except h11.RemoteProtocolError:
            if head is None:
                raise
            break
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(_MOST_READ))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if head is None:
        return Reply(status=0, failure="no HTTP answer")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
    return Reply(status=head.status_code, headers=headers, body=bytes(body))
