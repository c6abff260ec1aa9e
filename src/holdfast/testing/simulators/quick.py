"""The common request, read and answered without ceremony: whole, small, on a connection that is kept.

Whatever is not plainly that is left to h11, which sees the same bytes.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.testing.simulators.messages import Ending, Exchange, Request, Response
from holdfast.testing.simulators.wire import head

if TYPE_CHECKING:
    from holdfast.testing.calls import CallRecord

LARGEST_HEAD: Final = 16_384
LARGEST_BODY: Final = 65_536
CHUNK: Final = 65_536
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_HEAD: Final = re.compile(
    rb"([A-Z]++) (/[\x21-\x7e]*+) HTTP/1\.1\r\n((?:%(token)s:%(text)s\r\n)*+)\r\n" % {b"token": _TOKEN, b"text": _TEXT}
)
_ODD: Final = frozenset(("transfer-encoding", "expect", "upgrade"))
_BODILESS: Final = frozenset((204, 304))


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is left to others: the rest of an answer, and what has been received since."""

    received: bytes = b""
    """A request, or its beginning, and whatever came behind it."""
    exchange: Exchange | None = None
    """What becomes of that request, where that is decided already."""
    unsent: bytes = b""
    """The rest of the answer before it."""
    record: "CallRecord | None" = None
    """Where that answer is written down."""
    closed: bool = False
    """The client has hung up."""


def parse(received: bytes | bytearray) -> tuple[Request, int] | bool:
    """The first request in these bytes and its length; True: wait for more; False: it is none of the common kind."""
    end = received.find(b"\r\n\r\n")
    if end < 0 or end > LARGEST_HEAD:
        return end < 0 and len(received) <= LARGEST_HEAD
    head = _HEAD.match(received, 0, end + 4)
    if head is None:
        return False
    method, target, fields = head.groups()
    headers: list[tuple[str, str]] = []
    hosts, lengths = 0, 0
    length = "0"
    for line in fields.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in _ODD or (name == "connection" and value.lower() != "keep-alive"):
            return False
        if name == "host":
            hosts += 1
        elif name == "content-length":
            lengths += 1
            length = value
        headers.append((name, value))
    if hosts != 1 or lengths > 1 or not (length.isascii() and length.isdigit()) or len(length) > 9:
        return False
    whole = end + 4 + int(length)
    if int(length) > LARGEST_BODY:
        return False
    if len(received) < whole:
        return True
    body = bytes(received[end + 4 : whole])
    return Request(method=method.decode(), target=target.decode(), headers=tuple(headers), body=body), whole


def answer_bytes(response: Response, *, is_head: bool = False) -> bytes:
    """The answer on the wire; to HEAD, and with 204 and 304, it has no body, with the latter no length either."""
    if response.status in _BODILESS:
        return head(response.status, response.headers)
    said = head(response.status, (*response.headers, ("content-length", str(len(response.body)))))
    return said if is_head else said + response.body


class Quick:
    """Serves one connection without a task, as long as all is common and goes well."""

    def __init__(
        self,
        connection: socket.socket,
        exchange: Callable[[Request], Exchange],
        *,
        is_ours: Callable[[Request], bool],
    ) -> None:
        """`exchange` has the vendor act; `is_ours` says whether it may be asked in here."""
        self._connection = connection
        self._exchange = exchange
        self._is_ours = is_ours
        self._received = bytearray()
        self._left: asyncio.Future[Left] = asyncio.get_running_loop().create_future()

    async def serve(self, received: bytes = b"") -> Left:
        """Answer these bytes and all that follow, until there is something for others to do."""
        loop = asyncio.get_running_loop()
        self._left = loop.create_future()
        self._received += received
        self._answer_all()
        if not self._left.done():
            loop.add_reader(self._connection, self._readable)
        try:
            return await self._left
        finally:
            loop.remove_reader(self._connection)

    def _readable(self) -> None:
        if self._left.done():
            return
        try:
            data = self._connection.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""  # the client has left, as clients do
        self._received += data
        if data:
            self._answer_all()
        else:
            self._leave(Left(received=bytes(self._received), closed=True))

    def _answer_all(self) -> None:
        """A client may send several requests at once."""
        while self._received:
            found = parse(self._received)
            if found is True:
                return None
            if found is False:
                return self._leave(Left(received=bytes(self._received)))
            request, length = found
            if not self._is_ours(request):
                return self._leave(Left(received=bytes(self._received)))
            exchange = self._exchange(request)
            answer = _plainly(exchange, request)
            if answer is None:
                return self._leave(Left(received=bytes(self._received), exchange=exchange))
            del self._received[:length]
            unsent, record = self._send(answer), exchange.record
            if record is not None:
                record.arrived = not unsent
            if unsent:
                return self._leave(Left(received=bytes(self._received), unsent=unsent, record=record))
        return None

    def _send(self, answer: bytes) -> bytes:
        """What could not be sent at once."""
        try:
            return answer[self._connection.send(answer) :]
        except (BlockingIOError, InterruptedError):
            return answer

    def _leave(self, left: Left) -> None:
        self._received.clear()
        self._left.set_result(left)


def _plainly(exchange: Exchange, request: Request) -> bytes | None:
    """The bytes of an answer that is sent whole and at once; None for any other end."""
    response = exchange.response
    if response is None or exchange.delay or exchange.pace or exchange.ending is not Ending.ANSWERED:
        return None
    if any("\r" in value or "\n" in value for _, value in response.headers):
        return None  # h11 refuses what would end a header
    return answer_bytes(response, is_head=request.method == "HEAD")
