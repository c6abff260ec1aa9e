"""A simulated vendor without sockets: a transport whose faults are the errors the wire would have caused."""

import asyncio
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from holdfast.errors import CallFailed
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.outcome import Cause
from holdfast.testing.faults import BadGzip, Dns, Fault, TlsError
from holdfast.testing.simulators.messages import Ending, Exchange, Request, Response
from holdfast.testing.simulators.simulator import Simulator

_RESET: Final = (Cause.UNKNOWN, "lost the connection before the whole answer", "reset")
_PROTOCOL: Final = (Cause.UNKNOWN, "got an answer that is not HTTP, or half of one", "protocol")
# What holdfast.http.errors says of the exceptions that a byte server causes at httpx.
_MEANINGS: Final[Mapping[Ending, tuple[Cause, str, str]]] = {
    Ending.RESET: _RESET,
    Ending.HANG: _PROTOCOL,  # a client that waits that long sees it closed
    Ending.CLOSED: _PROTOCOL,
    Ending.TRUNCATED: _PROTOCOL,
    Ending.GARBLED: _PROTOCOL,
}


class InProcess:
    """A `holdfast.http.transports.Transport` straight into a simulator; each exchange is a connection of its own."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def send(self, request: HttpRequest) -> HttpResponse:
        asked = Request(
            method=request.method, target=_target(request.url), headers=tuple(request.headers), body=request.content
        )
        exchange = await play(self.simulator, asked)
        if exchange.ending is Ending.ANSWERED and exchange.response is not None:
            return _read(exchange.response, exchange.fault)
        if exchange.ending is Ending.REFUSED:
            raise _not_connected(exchange.fault)
        cause, text, reason = _MEANINGS[exchange.ending]
        raise CallFailed.of(cause, text, reason=reason, hard=True)

    async def websocket(self, url: str) -> "SimulatedWebSocket":
        """A WebSocket to one of the vendor's hosts. Raises OSError: there is none, or none now."""
        host = urlsplit(url).netloc
        asked = Request(method="GET", target=_target(url), headers=(("host", host), ("upgrade", "websocket")))
        exchange = await play(self.simulator, asked)
        if exchange.ending is not Ending.ANSWERED or exchange.response is None or exchange.response.status != 101:
            raise ConnectionRefusedError(f"{host} does not speak WebSocket")
        return SimulatedWebSocket(self.simulator, host, _target(url))

    async def aclose(self) -> None:
        """There is nothing to close."""


class SimulatedWebSocket:
    """A WebSocket whose every message, a JSON list, is a request: the method is its first word, the answer a list too.

    Whatever befalls such an exchange ends the connection.
    """

    def __init__(self, simulator: Simulator, host: str, target: str) -> None:
        self._simulator = simulator
        self._host = host
        self._target = target
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()

    async def send(self, message: str) -> None:
        """Play the exchange, and keep what comes back for `recv`."""
        asked = Request(
            method=json.loads(message)[0], target=self._target, headers=(("host", self._host),), body=message.encode()
        )
        exchange = await play(self._simulator, asked)
        if exchange.ending is not Ending.ANSWERED or exchange.response is None or exchange.response.status != 200:
            self._answers.put_nowait(None)
            return
        for answer in json.loads(exchange.response.body):
            self._answers.put_nowait(json.dumps(answer))

    async def recv(self) -> str:
        """The next message. Raises ConnectionResetError: there is none any more."""
        if (answer := await self._answers.get()) is None:
            self._answers.put_nowait(None)
            raise ConnectionResetError("the connection was lost")
        return answer

    async def close(self) -> None:
        """Nothing more comes."""
        self._answers.put_nowait(None)


async def play(simulator: Simulator, request: Request) -> Exchange:
    """An exchange in its own time: the others have their turn before the effect, and after it.

    Whoever is killed at the first of these two moments has sent nothing; at the second, the vendor has acted.
    """
    clock = simulator.clock
    await clock.sleep(0)
    exchange = simulator.connection() or simulator.exchange(request)
    record = exchange.record
    if record is not None:
        record.arrived = False
    await clock.sleep(exchange.lasts)
    if record is not None:
        record.arrived = exchange.ending is Ending.ANSWERED
    return exchange


def _read(response: Response, fault: Fault | None) -> HttpResponse:
    if isinstance(fault, BadGzip):
        raise CallFailed.of(Cause.UNKNOWN, "got an answer that does not decompress", reason="unreadable")
    headers = tuple((name.lower(), value) for name, value in response.headers)
    return HttpResponse(status=response.status, headers=headers, content=response.body)


def _not_connected(fault: Fault | None) -> CallFailed:
    match fault:
        case Dns():
            why, reason = "the host name was not found", "dns"
        case TlsError():
            why, reason = "the TLS handshake failed", "tls"
        case _:
            why, reason = "the connection was refused", "refused"
    return CallFailed.of(Cause.NOT_SENT, f"could not connect: {why}", reason=reason, hard=True)


def _target(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]
