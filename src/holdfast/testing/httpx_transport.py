"""The simulated vendors as transports of httpx: what breaks, breaks with the exceptions the wire would have caused."""

import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from holdfast.testing.faults import Dns, Fault, TlsError
from holdfast.testing.simulators.messages import Ending, Exchange, Request, Response
from holdfast.testing.simulators.simulator import Simulator

Find = Callable[[str], Simulator]
"""The simulator that lives at a host."""

_CLOSED: Final = "Server disconnected without sending a response."
_TEXTS: Final = {
    Ending.HANG: _CLOSED,  # the client has waited until the end
    Ending.CLOSED: _CLOSED,
    Ending.TRUNCATED: "peer closed connection without sending complete message body",
    Ending.GARBLED: "illegal bytes in the answer",
}


class FakeAsyncTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=…)`: each request goes to the vendor whose host it names."""

    def __init__(self, find: Find) -> None:
        self._find = find

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        __tracebackhide__ = True
        simulator, asked = self._find(request.url.host), _as_asked(request, await request.aread())
        await simulator.clock.sleep(0)  # the others' turn: whoever is killed here has sent nothing
        with _exchanged(simulator, asked, request) as seen:
            await simulator.clock.sleep(seen.after)  # and here the vendor has acted
        return seen.reveal()


class FakeTransport(httpx.BaseTransport):
    """For `httpx.Client(transport=…)`: the same, and whoever waits, waits with the thread."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        __tracebackhide__ = True
        simulator, asked = self._find(request.url.host), _as_asked(request, request.read())
        with _exchanged(simulator, asked, request) as seen:
            simulator.clock.pause(seen.after)
        return seen.reveal()


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client sees, and after how many seconds."""

    after: float
    result: httpx.Response | Exception

    def reveal(self) -> httpx.Response:
        """The answer, or the error."""
        __tracebackhide__ = True
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@contextmanager
def _exchanged(simulator: Simulator, asked: Request, request: httpx.Request) -> Generator[Seen]:
    """The exchange, while its answer is on the way."""
    exchange = simulator.connection() or simulator.exchange(asked)
    seen = _seen(exchange, request)
    if exchange.record is not None:
        exchange.record.arrived = False
    yield seen
    if exchange.record is not None:
        exchange.record.arrived = isinstance(seen.result, httpx.Response)


def _as_asked(request: httpx.Request, body: bytes) -> Request:
    return Request(
        method=request.method,
        target=request.url.raw_path.decode("ascii"),
        headers=tuple(request.headers.multi_items()),
        body=body,
    )


def _seen(exchange: Exchange, request: httpx.Request) -> Seen:
    """What an httpx client sees of this exchange, and of its own patience, which is for each silence anew."""
    patience: float | None = request.extensions.get("timeout", {}).get("read")
    if exchange.ending is not Ending.REFUSED and patience is not None:
        silences = (exchange.delay, exchange.seconds if exchange.ending is Ending.HANG else 0.0)
        if silences[0] > patience:
            return Seen(patience, httpx.ReadTimeout("", request=request))
        if silences[1] > patience:
            return Seen(exchange.delay + patience, httpx.ReadTimeout("", request=request))
    return Seen(exchange.lasts, _result(exchange, request))


def _result(exchange: Exchange, request: httpx.Request) -> httpx.Response | Exception:
    match exchange.ending:
        case Ending.ANSWERED:
            return _answer(exchange.response or Response(), request)
        case Ending.REFUSED:
            return _not_connected(exchange.fault, request)
        case Ending.RESET:
            return httpx.ReadError("", request=request)
        case ending:
            return httpx.RemoteProtocolError(_TEXTS[ending], request=request)


def _answer(response: Response, request: httpx.Request) -> httpx.Response:
    bodiless = request.method == "HEAD" or response.status in (204, 304)
    body = b"" if bodiless else response.body
    # As a stream, so that it is the client who decompresses it, and fails if it cannot.
    return httpx.Response(
        response.status,
        headers=[*response.headers, ("content-length", str(len(response.body)))],
        stream=httpx.ByteStream(body),
        extensions={"http_version": b"HTTP/1.1"},
        request=request,
    )


def _not_connected(fault: Fault | None, request: httpx.Request) -> httpx.ConnectError:
    """One class for all of them, as on the wire; what lies beneath tells them apart."""
    beneath: Exception
    match fault:
        case Dns():
            beneath = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        case TlsError():
            beneath = ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] ssl/tls alert handshake failure")
        case _:
            beneath = ConnectionRefusedError("All connection attempts failed")
    error = httpx.ConnectError("" if isinstance(fault, TlsError) else str(beneath), request=request)
    error.__cause__ = beneath
    return error
