"""The quick way for common requests: it reads what h11 reads, and leaves everything else to it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.testing.clock import ManualClock
from holdfast.testing.journal import Journal
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.quick import LARGEST_BODY, LARGEST_HEAD, answer_bytes, parse
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.telegram import TelegramSimulator

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\n\r\nhello"
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


def read_by_h11(received: bytes) -> Request | None:
    """None: it takes them for no request, or has not got all of it."""
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(received)
    body = b""
    head: h11.Request | None = None
    while True:
        try:
            event = wire.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers)
            return Request(method=head.method.decode(), target=head.target.decode(), headers=headers, body=body)
        else:
            return None


def test_a_common_request_is_read_with_the_length_it_has() -> None:
    assert parse(GET + POST) == (
        Request(method="GET", target="/a?b=c", headers=(("host", "x"), ("accept", "*/*"))),
        len(GET),
    )
    assert parse(POST) == (
        Request(method="POST", target="/a", headers=(("host", "x"), ("content-length", "5")), body=b"hello"),
        len(POST),
    )


@pytest.mark.parametrize("received", [GET, POST], ids=["get", "post"])
def test_any_beginning_of_a_request_is_waited_for(received: bytes) -> None:
    assert [parse(received[:length]) for length in range(len(received))] == [True] * len(received)


@pytest.mark.parametrize(
    "received",
    [
        b"GET / HTTP/1.0\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xe4 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\na: b\r\n\r\n",
        b"GET / HTTP/1.1\nhost: x\n\n\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: \xb2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\nx" % (LARGEST_BODY + 1),
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * LARGEST_HEAD + b"\r\n\r\n",
        b"x" * (LARGEST_HEAD + 1),
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_odd_is_left_to_h11(received: bytes) -> None:
    assert parse(received) is False


@given(
    target=st.text(st.sampled_from("/abc?=&%41.;~"), max_size=10),
    headers=st.lists(st.tuples(st.sampled_from(["a", "Accept", "X-B", "cookie"]), TEXT), max_size=4),
    body=st.binary(max_size=40),
    noise=st.tuples(st.integers(0, 80), st.binary(max_size=3)),
)
def test_it_never_reads_anything_that_h11_reads_otherwise(
    target: str, headers: list[tuple[str, str]], body: bytes, noise: tuple[int, bytes]
) -> None:
    # given
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST /{target} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n"
    received = head.encode() + body
    place, inserted = noise
    received = received[:place] + inserted + received[place:]

    # when
    found = parse(received)

    # then
    if isinstance(found, tuple):
        assert found[0] == read_by_h11(received[: found[1]])


@pytest.mark.parametrize("status", [200, 204, 304, 404, 503])
@pytest.mark.parametrize("is_head", [False, True])
def test_an_answer_is_written_as_h11_writes_it(status: int, is_head: bool) -> None:
    # given
    response = Response(status=status, headers=(("content-type", "text/plain"), ("x-a", "ä")), body=b"hello")
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(GET.replace(b"GET", b"HEAD") if is_head else GET)
    while not isinstance(wire.next_event(), h11.EndOfMessage):
        pass

    # when
    bodiless = status in (204, 304)
    length = [] if bodiless else [(b"content-length", b"5")]
    latin = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
    words = HTTPStatus(status).phrase
    said = wire.send(h11.Response(status_code=status, headers=[*latin, *length], reason=words)) or b""
    said += b"" if bodiless or is_head else b"hello"

    # then
    assert answer_bytes(response, is_head=is_head) == said


# On the wire


@asynccontextmanager
async def connected(
    simulator: TelegramSimulator,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Edge]]:
    async with asyncio.timeout(30), Edge(simulator) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        yield reader, writer, edge
        writer.close()


def get_me(telegram: TelegramSimulator, *more: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in ("host: x", *more))
    return f"GET /bot{telegram.bot_token}/getMe HTTP/1.1\r\n{lines}\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return await reader.readexactly(length)


async def test_a_request_that_comes_byte_by_byte_is_answered_once() -> None:
    telegram = TelegramSimulator(clock=ManualClock())
    async with connected(telegram) as (reader, writer, _):
        for byte in get_me(telegram):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

        assert b"simulated_bot" in await answer(reader)
        assert len(telegram.requests) == 1


async def test_common_and_odd_requests_in_one_go_are_answered_in_their_order() -> None:
    telegram = TelegramSimulator(clock=ManualClock())
    async with connected(telegram) as (reader, writer, edge):
        # when
        odd = b"POST /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        writer.write(get_me(telegram) + odd + get_me(telegram) + odd + get_me(telegram)[:20])
        said = [await answer(reader) for _ in range(4)]
        writer.write(get_me(telegram)[20:])
        said.append(await answer(reader))

        # then
        assert [b"simulated_bot" in one for one in said] == [True, False, True, False, True]
        assert edge.listener.accepted == 1


async def test_an_answer_larger_than_the_socket_takes_at_once_arrives_whole() -> None:
    # given
    class Talkative(TelegramSimulator):
        def answer(self, request: Request) -> Response:
            return Response(body=b"x" * 20_000_000)

    clock = ManualClock()
    journal = Journal(clock)
    telegram = Talkative(clock=clock, journal=journal)
    async with connected(telegram) as (reader, writer, _):
        # when
        writer.write(get_me(telegram) * 2)
        await reader.readexactly(1)
        arrived = [call.arrived for call in journal.calls()]
        said = [await answer(reader) for _ in range(2)]

    # then
    assert [len(one) for one in said] == [20_000_000] * 2
    assert arrived == [False]
    assert [call.arrived for call in journal.calls()] == [True, True]


async def test_what_was_answered_is_written_down_as_arrived() -> None:
    clock = ManualClock()
    journal = Journal(clock)
    telegram = TelegramSimulator(clock=clock, journal=journal)
    async with connected(telegram) as (reader, writer, _):
        writer.write(get_me(telegram))
        await answer(reader)

    assert [call.arrived for call in journal.calls()] == [True]


async def test_a_client_that_leaves_in_the_middle_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    telegram = TelegramSimulator(clock=ManualClock())
    async with connected(telegram) as (reader, writer, edge):
        for received in (b"", get_me(telegram)[:30], b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx"):
            _, leaving = await asyncio.open_connection("127.0.0.1", edge.listener.port)
            leaving.write(received)
            await leaving.drain()
            leaving.close()
        writer.write(get_me(telegram))

        assert b"simulated_bot" in await answer(reader)
        assert not caplog.records
