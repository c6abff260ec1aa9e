"""A simulated vendor on a real socket: HTTP/1.1 byte by byte, so that what breaks, breaks on the wire."""

import asyncio
import logging
import socket
from types import TracebackType
from typing import Protocol, Self

import h11

from holdfast.testing.faults import Dns, Refused, Status, TlsError
from holdfast.testing.simulators.listener import HOST, Listener, reset
from holdfast.testing.simulators.messages import Ending, Exchange, Request, Response
from holdfast.testing.simulators.quick import Left, Quick
from holdfast.testing.simulators.simulator import Simulator
from holdfast.testing.simulators.wire import HANDSHAKE_FAILURE, TLS_HANDSHAKE, broken, reason, written

logger = logging.getLogger(__name__)

_CHUNK = 65_536


class Admin(Protocol):
    """Whoever answers under `/__fake/`."""

    async def respond(self, request: Request) -> Response:
        """What is behind the door that was knocked at."""
        ...


class Edge:
    """Serves one simulator on 127.0.0.1: `async with Edge(simulator) as edge: … edge.url`.

    Faults planned for the operation `connect` strike connections. `Refused` and `Dns` strike ahead of the next one:
    nobody listens for their seconds, which is all a server can do about a name. `TlsError` refuses a client's
    handshake. Planned for any other operation, these reset that one call before its effect, then nobody listens: what a
    call is about is only known when its bytes are there.
    """

    def __init__(self, simulator: Simulator, *, host: str = HOST, port: int = 0, admin: Admin | None = None) -> None:
        self._simulator = simulator
        self._admin = admin
        self.listener = Listener(self._serve, clock=simulator.clock, host=host, port=port)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def simulator(self) -> Simulator:
        """Who is served; another one may take over at the same address."""
        return self._simulator

    @simulator.setter
    def simulator(self, simulator: Simulator) -> None:
        if self._loop is not None:
            self._simulator.faults.watchers.remove(self._look_ahead)
            simulator.faults.watchers.append(self._look_ahead)
        self._simulator = simulator
        self._look_ahead()

    @property
    def url(self) -> str:
        return f"http://{self.listener.address}"

    async def __aenter__(self) -> Self:
        await self.listener.__aenter__()
        self.simulator.base_url = self.url
        self._loop = asyncio.get_running_loop()
        self.simulator.faults.watchers.append(self._look_ahead)
        self._look_ahead()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.simulator.faults.watchers.remove(self._look_ahead)
        self._loop = None
        await self.listener.__aexit__(kind, error, trace)

    def _look_ahead(self) -> None:
        """Close the door before the next one knocks, where that is planned."""
        if self._loop is not None and not _is_here(self._loop):  # planned in another thread
            self._loop.call_soon_threadsafe(self._look_ahead)
        elif self._loop is not None and not self.listener.refusing:
            faults, vendor = self.simulator.faults, self.simulator.vendor
            planned = faults.peek(vendor, "connect") if faults.plans(vendor, "connect") else None
            if isinstance(planned, Refused | Dns):
                faults.draw(vendor, "connect")
                self.listener.refuse(planned.seconds, self._look_ahead)

    async def _serve(self, connection: socket.socket) -> None:
        drawn = self.simulator.connection()
        self._look_ahead()
        if drawn is not None and drawn.delay:
            await self.simulator.clock.sleep(drawn.delay)
        if drawn is None:
            await self._talk(connection)
        elif drawn.ending is Ending.HANG:
            await self._hang(connection, drawn.seconds)
        elif isinstance(drawn.fault, TlsError):
            await self._fail_handshake(connection)
        elif drawn.ending is not Ending.CLOSED:
            reset(connection)

    async def _fail_handshake(self, connection: socket.socket) -> None:
        hello = await asyncio.get_running_loop().sock_recv(connection, _CHUNK)
        if hello.startswith(TLS_HANDSHAKE):
            await self._send(connection, HANDSHAKE_FAILURE)
        elif hello:
            reset(connection)

    async def _talk(self, connection: socket.socket) -> None:
        """One exchange after the other: what is common and goes well by itself, the rest one at a time."""
        quick = Quick(connection, self._exchange, is_ours=self._is_the_vendors)
        received: bytes | None = b""
        while received is not None:
            self.listener.idle(connection, is_idle=True)
            left = await quick.serve(received)
            self.listener.idle(connection, is_idle=False)
            await self._send(connection, left.unsent)
            if left.record is not None:
                left.record.arrived = True
            if left.closed:
                return
            received = await self._talk_once(connection, left) if left.received else b""

    def _is_the_vendors(self, request: Request) -> bool:
        return self._admin is None or not request.target.startswith("/__fake/")

    async def _talk_once(self, connection: socket.socket, left: Left) -> bytes | None:
        """What came behind the request; None: the connection cannot be used again."""
        wire = h11.Connection(h11.SERVER)
        wire.receive_data(left.received)
        try:
            request = await self._request(connection, wire)
            if request is None or not await self._answer(connection, wire, request, left.exchange):
                return None
            if wire.our_state is h11.DONE and wire.their_state is h11.DONE:
                return wire.trailing_data[0]
        except h11.RemoteProtocolError as error:
            refusal = Response(status=error.error_status_hint, headers=(("connection", "close"),))
            if wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(connection, _bytes(wire, refusal))
        return None

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

    async def _answer(
        self, connection: socket.socket, wire: h11.Connection, request: Request, exchange: Exchange | None
    ) -> bool:
        """Whether the connection can be used again."""
        if self._admin is not None and not self._is_the_vendors(request):
            response = await self._respond(self._admin, request)
            await self._send(connection, _bytes(wire, response, is_head=request.method == "HEAD"))
            return True
        exchange = exchange or self._exchange(request)
        response = exchange.response or Response()
        if exchange.record is not None:
            exchange.record.arrived = False
        if exchange.delay:
            await self.simulator.clock.sleep(exchange.delay)
        match exchange.ending:
            case Ending.ANSWERED:
                await self._trickle(connection, _bytes(wire, response, is_head=request.method == "HEAD"), exchange.pace)
                if exchange.record is not None:
                    exchange.record.arrived = True
                return True
            case Ending.REFUSED:
                self.listener.refuse(exchange.seconds, self._look_ahead)
                reset(connection)
            case Ending.RESET:
                await self._send(connection, written(response)[: exchange.after_bytes])
                reset(connection)
            case Ending.TRUNCATED | Ending.GARBLED if exchange.fault is not None:
                await self._send(connection, broken(response, exchange.fault))
            case Ending.HANG:
                await self._send(connection, written(response)[: exchange.after_bytes])
                await self._hang(connection, exchange.seconds)
            case _:
                pass  # closed without a word
        return False

    async def _trickle(self, connection: socket.socket, data: bytes, pace: float) -> None:
        """All of it, at so many seconds a byte; as much at once as takes a fiftieth of a second."""
        size = max(1, int(0.02 / pace)) if pace else len(data)
        for start in range(0, len(data), size):
            part = data[start : start + size]
            await self._send(connection, part)
            if pace:
                await self.simulator.clock.sleep(pace * len(part))

    async def _respond(self, admin: Admin, request: Request) -> Response:
        try:
            return await admin.respond(request)
        except Exception as error:  # as below
            logger.exception("the admin failed at %s %s", request.method, request.path)
            return Response.json({"error": f"{type(error).__name__}: {error}"}, status=500)

    def _exchange(self, request: Request) -> Exchange:
        try:
            return self.simulator.exchange(request)
        except Exception:  # one request nobody thought of must not end the server for all the others
            logger.exception(
                "the simulator of %s failed at %s", self.simulator.vendor, self.simulator.operation(request)
            )
            return Exchange(response=self.simulator.failure(Status(500)))

    async def _hang(self, connection: socket.socket, seconds: float) -> None:
        try:
            async with self.simulator.clock.timeout(seconds):
                while await asyncio.get_running_loop().sock_recv(connection, _CHUNK):
                    pass  # until the client gives up
        except TimeoutError:
            pass

    async def _send(self, connection: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(connection, data)


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _bytes(wire: h11.Connection, response: Response, *, is_head: bool = False) -> bytes:
    """The answer on the wire; to HEAD, and with 204 and 304, it has no body, with the latter no length either."""
    bodiless = response.status in (204, 304)
    length = () if bodiless else (("content-length", str(len(response.body))),)
    words = reason(response.status)
    head = h11.Response(status_code=response.status, headers=[*response.headers, *length], reason=words)
    body = b"" if bodiless or is_head else response.body
    return b"".join(part or b"" for part in (wire.send(head), wire.send(h11.Data(body)), wire.send(h11.EndOfMessage())))
