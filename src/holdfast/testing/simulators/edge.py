"""A simulated vendor on a real socket: HTTP/1.1 byte by byte, so that what breaks, breaks on the wire."""

import asyncio
import logging
import socket
from types import TracebackType
from typing import Self

import h11

from holdfast.testing.faults import Refused, Reset, Status
from holdfast.testing.simulators.listener import Listener, reset
from holdfast.testing.simulators.simulator import Ending, Exchange, Request, Response, Simulator

logger = logging.getLogger(__name__)

_CHUNK = 65_536


class Edge:
    """Serves one simulator on 127.0.0.1: `async with Edge(simulator) as edge: … edge.url`.

    Faults planned for the operation `connect` strike before a byte is read: `Refused` (nobody listens for a while) and
    `Reset`. A `Refused` planned for any other operation resets that one call before its effect, then refuses.
    """

    def __init__(self, simulator: Simulator, *, port: int = 0) -> None:
        self.simulator = simulator
        self.listener = Listener(self._serve, clock=simulator.clock, port=port)

    @property
    def url(self) -> str:
        return f"http://{self.listener.address}"

    async def __aenter__(self) -> Self:
        await self.listener.__aenter__()
        self.simulator.base_url = self.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.listener.__aexit__(kind, error, trace)

    async def _serve(self, connection: socket.socket) -> None:
        fault = self.simulator.faults.draw(self.simulator.vendor, "connect").fault
        if isinstance(fault, Refused):
            self.listener.refuse(fault.seconds)
        if isinstance(fault, Refused | Reset):
            reset(connection)
        else:
            await self._talk(connection)

    async def _talk(self, connection: socket.socket) -> None:
        wire = h11.Connection(h11.SERVER)
        try:
            while (request := await self._request(connection, wire)) is not None:
                if not await self._answer(connection, wire, request):
                    return
                if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
                    return
                wire.start_next_cycle()
        except h11.RemoteProtocolError as error:
            refusal = Response(status=error.error_status_hint, headers=(("connection", "close"),))
            if wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(connection, _bytes(wire, refusal))

    async def _request(self, connection: socket.socket, wire: h11.Connection) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        self.listener.idle(connection, is_idle=True)
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                if wire.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._send(connection, wire.send(go_on) or b"")
                wire.receive_data(await asyncio.get_running_loop().sock_recv(connection, _CHUNK))
                continue
            self.listener.idle(connection, is_idle=False)
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self.simulator.largest_body:
                    raise h11.RemoteProtocolError("too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return Request(
                    method=head.method.decode(),
                    target=head.target.decode(),
                    headers=tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers),
                    body=bytes(body),
                )
            else:  # the client closed, or paused between two requests
                return None

    async def _answer(self, connection: socket.socket, wire: h11.Connection, request: Request) -> bool:
        """Whether the connection can be used again."""
        exchange = self._exchange(request)
        response = exchange.response or Response()
        if exchange.delay:
            await self.simulator.clock.sleep(exchange.delay)
        match exchange.ending:
            case Ending.ANSWERED:
                await self._send(connection, _bytes(wire, response, is_head=request.method == "HEAD"))
                return True
            case Ending.REFUSED:
                self.listener.refuse(exchange.seconds)
                reset(connection)
            case Ending.RESET:
                answer = _bytes(wire, response)
                await self._send(connection, answer[: exchange.after_bytes])
                reset(connection)
            case Ending.TRUNCATED:
                answer, body = _bytes(wire, response), len(response.body)
                await self._send(connection, answer[: len(answer) - max(body - body // 2, 1)])
            case Ending.HANG:
                await self._hang(connection, exchange)
        return False

    def _exchange(self, request: Request) -> Exchange:
        try:
            return self.simulator.exchange(request)
        except Exception:  # one request nobody thought of must not end the server for all the others
            logger.exception(
                "the simulator of %s failed at %s", self.simulator.vendor, self.simulator.operation(request)
            )
            return Exchange(response=self.simulator.failure(Status(500)))

    async def _hang(self, connection: socket.socket, exchange: Exchange) -> None:
        try:
            async with self.simulator.clock.timeout(exchange.seconds):
                while await asyncio.get_running_loop().sock_recv(connection, _CHUNK):
                    pass  # until the client gives up
        except TimeoutError:
            pass

    async def _send(self, connection: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(connection, data)


def _bytes(wire: h11.Connection, response: Response, *, is_head: bool = False) -> bytes:
    """The answer on the wire; to HEAD, and with 204 and 304, it has no body, with the latter no length either."""
    bodiless = response.status in (204, 304)
    length = () if bodiless else (("content-length", str(len(response.body))),)
    head = h11.Response(status_code=response.status, headers=[*response.headers, *length])
    body = b"" if bodiless or is_head else response.body
    return b"".join(part or b"" for part in (wire.send(head), wire.send(h11.Data(body)), wire.send(h11.EndOfMessage())))
