"""The simulated vendors as transports of httpx: what breaks, breaks with the exceptions the wire would have caused."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from holdfast.testing.simulators.simulator import Ending, Exchange, Request, Simulator

Find = Callable[[str], Simulator]
"""The simulator that lives at a host."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client sees, and after how many seconds."""

    after: float
    result: httpx.Response | Exception

    def reveal(self) -> httpx.Response:
        """The answer, or the error."""
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class FakeAsyncTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=…)`: each request goes to the vendor whose host it names."""

    def __init__(self, find: Find) -> None:
        self._find = find

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        simulator, asked = self._find(request.url.host), as_asked(request, await request.aread())
        await simulator.clock.sleep(0)  # the others' turn: a crash can strike before the effect
        outcome = outcome_of(simulator.exchange(asked), request)
        await simulator.clock.sleep(outcome.after)  # and after it
        return outcome.reveal()


class FakeTransport(httpx.BaseTransport):
    """For `httpx.Client(transport=…)`."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        simulator, asked = self._find(request.url.host), as_asked(request, request.read())
        outcome = outcome_of(simulator.exchange(asked), request)
        simulator.clock.pause(outcome.after)
        return outcome.reveal()


def as_asked(request: httpx.Request, body: bytes) -> Request:
    """The request, as a simulator sees it."""
    return Request(
        method=request.method,
        target=request.url.raw_path.decode("ascii"),
        headers=tuple(request.headers.multi_items()),
        body=body,
    )


def outcome_of(exchange: Exchange, request: httpx.Request) -> Outcome:
    """What an httpx client sees of this exchange, given its own time limits."""
    patience = request.extensions.get("timeout", {}).get("read")
    ends = exchange.delay + (exchange.seconds if exchange.ending is Ending.HANG else 0)
    if exchange.ending is not Ending.REFUSED and patience is not None and ends > patience:
        return Outcome(patience, httpx.ReadTimeout("", request=request))
    return Outcome(ends, _result(exchange, request))


def _result(exchange: Exchange, request: httpx.Request) -> httpx.Response | Exception:
    response = exchange.response
    match exchange.ending:
        case Ending.ANSWERED if response is not None:
            return httpx.Response(
                response.status, headers=list(response.headers), content=response.body, request=request
            )
        case Ending.REFUSED:
            refused = httpx.ConnectError("All connection attempts failed", request=request)
            refused.__cause__ = ConnectionRefusedError("connection refused")
            return refused
        case Ending.RESET:
            return httpx.ReadError("", request=request)
        case _:
            gone = "peer closed connection without sending complete message body"
            return httpx.RemoteProtocolError(gone, request=request)
