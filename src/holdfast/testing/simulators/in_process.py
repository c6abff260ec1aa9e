"""A simulated vendor without sockets: a transport whose faults are the errors the wire would have caused."""

from collections.abc import Mapping
from typing import Final

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

    async def aclose(self) -> None:
        """There is nothing to close."""


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
