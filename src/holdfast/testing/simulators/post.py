"""Posting bytes to an address and reading the status: all a vendor does with a webhook."""

import asyncio
from urllib.parse import urlsplit

import h11

from holdfast.clock import Clock, SystemClock
from holdfast.testing.simulators.simulator import Headers


class Poster:
    """Sends over a connection of its own each time, plain HTTP: the receiver is on this machine."""

    def __init__(self, *, timeout: float = 10, clock: Clock | None = None) -> None:
        self._timeout = timeout
        self._clock: Clock = clock or SystemClock()

    async def __call__(self, url: str, headers: Headers, body: bytes) -> int:
        """The status of the answer; 0 where there is none."""
        try:
            async with self._clock.timeout(self._timeout):
                return await _post(url, headers, body)
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            return 0


async def _post(url: str, headers: Headers, body: bytes) -> int:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        wire = h11.Connection(h11.CLIENT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = [("host", parts.netloc), ("connection", "close"), ("content-length", str(len(body)))]
        head = h11.Request(method="POST", target=target, headers=[*own, *headers])
        for part in (head, h11.Data(body), h11.EndOfMessage()):
            writer.write(wire.send(part) or b"")
        await writer.drain()
        while True:
            event = wire.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if isinstance(event, h11.ConnectionClosed):
                return 0
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(65_536))
    finally:
        writer.close()
