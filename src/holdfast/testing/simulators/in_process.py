"""A simulated vendor without sockets: a transport whose faults are the errors the wire would have caused."""

from holdfast.errors import CallFailed
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.outcome import Cause
from holdfast.testing.simulators.simulator import Ending, Request, Simulator


class InProcess:
    """A `holdfast.http.transports.Transport` straight into a simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def send(self, request: HttpRequest) -> HttpResponse:
        asked = Request(
            method=request.method, target=_target(request.url), headers=tuple(request.headers), body=request.content
        )
        exchange = self.simulator.exchange(asked)
        await self.simulator.clock.sleep(exchange.delay)
        response = exchange.response
        match exchange.ending:
            case Ending.ANSWERED if response is not None:
                headers = tuple((name.lower(), value) for name, value in response.headers)
                return HttpResponse(status=response.status, headers=headers, content=response.body)
            case Ending.REFUSED:
                text = "could not connect: the connection was refused"
                raise CallFailed.of(Cause.NOT_SENT, text, reason="refused", hard=True)
            case Ending.HANG:
                await self.simulator.clock.sleep(exchange.seconds)
                raise CallFailed.of(Cause.UNKNOWN, "got no answer in time", reason="timeout", hard=True)
            case Ending.TRUNCATED:
                text = "got an answer that is not HTTP, or half of one"
                raise CallFailed.of(Cause.UNKNOWN, text, reason="protocol", hard=True)
            case _:
                text = "lost the connection before the whole answer"
                raise CallFailed.of(Cause.UNKNOWN, text, reason="reset", hard=True)

    async def aclose(self) -> None:
        """There is nothing to close."""


def _target(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]
