"""What a broken line means, shown by a server of bytes: only what was never sent may be repeated at will."""

import asyncio
import gzip
from collections.abc import AsyncGenerator

import pytest

from holdfast.aiohttp import AiohttpTransport
from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.outcome import Cause, Effect
from holdfast.resilience import Guard, Policy, Retry
from holdfast.testing.clock import ManualClock
from tests.http.byte_server import PATIENCE, Connection, Script, byte_server, closed_port
from tests.http.vendors import Order, Shop, once

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.fixture(params=["httpx", "aiohttp"])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[HttpxTransport]:
    inner = AiohttpTransport() if request.param == "aiohttp" else None
    transport = HttpxTransport(inner, connect_timeout=PATIENCE, max_body=100_000)
    yield transport
    await transport.aclose()


@pytest.fixture(params=["httpx", "aiohttp"])
async def hurried(request: pytest.FixtureRequest) -> AsyncGenerator[HttpxTransport]:
    """Waits for the next bytes only for a moment."""
    inner = AiohttpTransport() if request.param == "aiohttp" else None
    transport = HttpxTransport(inner, connect_timeout=PATIENCE, idle_timeout=0.1)
    yield transport
    await transport.aclose()


def connection(url: str, transport: HttpxTransport, *, clock: Clock | None = None, timeout: float = PATIENCE) -> Http:
    clock = clock or SystemClock()
    return Http(Shop(base_url=url), transport, once(clock, timeout=timeout), clock)


async def failure(http: Http, *, effect: Effect = Effect.ONCE) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await http.post("/orders", Order, operation="create_order", effect=effect, json={"n": 1})
    return caught.value


async def reset_before_answer(connection: Connection) -> None:
    connection.reset()


async def reset_in_body(connection: Connection) -> None:
    await connection.send(OK + b'content-length: 100\r\n\r\n{"id"')
    connection.reset()


async def hang(connection: Connection) -> None:
    await connection.hang()


async def stall_in_body(connection: Connection) -> None:
    await connection.send(OK + b'content-length: 100\r\n\r\n{"id"')
    await connection.hang()


async def never_ending(connection: Connection) -> None:
    await connection.send(OK + b"transfer-encoding: chunked\r\n\r\n")
    while not connection.closing.is_set():
        await connection.send(b"3e8\r\n" + b" " * 1000 + b"\r\n")


FAULTS: list[tuple[str, Script | bytes, str, bool]] = [
    # what is broken, what the server does, the reason we give, whether it counts at once towards opening the circuit
    ("reset before the answer", reset_before_answer, "reset", True),
    ("reset in the body", reset_in_body, "reset", True),
    ("closed without an answer", b"", "protocol", True),
    ("truncated body", OK + b'content-length: 100\r\n\r\n{"id"', "protocol", True),
    ("truncated chunk", OK + b'transfer-encoding: chunked\r\n\r\nff\r\n{"id"', "protocol", True),
    ("bad chunk header", OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n", "protocol", True),
    ("garbage instead of a status line", b"\x00\xff\x00 hello\r\n\r\n", "protocol", True),
    ("a header that never ends", OK + b"x: " + b"a" * 300_000 + b"\r\n\r\n{}", "protocol", True),
    ("contradictory lengths", OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", "protocol", True),
    ("a body that is no gzip", OK + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello", "unreadable", False),
    ("truncated JSON", OK + b'content-length: 8\r\n\r\n{"id": "', "unreadable", False),
    ("a page with 200", OK + b"content-length: 13\r\n\r\n<html></html>", "unreadable", False),
    ("no body", OK + b"content-length: 0\r\n\r\n", "unreadable", False),
    ("a redirect", b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", "redirect", False),
    ("more than we read", OK + b"content-length: 200000\r\n\r\n" + b" " * 200_000, "too_large", False),
    (
        "more than we read, once decompressed",
        OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b" " * 5_000_000),
        "too_large",
        False,
    ),
    ("more than we read, in chunks", never_ending, "too_large", False),
]


@pytest.mark.parametrize(
    ("script", "reason", "hard"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
async def test_whatever_breaks_after_the_request_was_read_is_unknown(
    transport: HttpxTransport, script: Script | bytes, reason: str, hard: bool
) -> None:
    async with byte_server(script) as server:
        # when
        error = await failure(connection(server.url, transport))

        # then
        assert (error.cause, error.reason, error.hard, error.local) == (Cause.UNKNOWN, reason, hard, False)
        assert len(server.requests) == 1
        assert (error.provider, error.operation) == ("shop", "create_order")
        assert "look before you repeat it" in str(error)


@pytest.mark.parametrize("script", [hang, stall_in_body], ids=["no answer", "a body that stops"])
async def test_silence_after_the_request_was_sent_is_unknown(hurried: HttpxTransport, script: Script) -> None:
    async with byte_server(script) as server:
        # when
        error = await failure(connection(server.url, hurried))
        await server.heard()

        # then
        assert (error.cause, error.reason, error.hard, error.local) == (Cause.UNKNOWN, "timeout", True, False)
        assert len(server.requests) == 1


async def test_a_refused_connection_was_never_sent(transport: HttpxTransport) -> None:
    # when
    error = await failure(connection(f"http://127.0.0.1:{closed_port()}", transport))

    # then
    assert (error.cause, error.reason, error.hard, error.local) == (Cause.NOT_SENT, "refused", True, False)
    assert str(error) == "shop: create_order could not connect: the connection was refused; nothing was sent"


async def test_a_failed_tls_handshake_was_never_sent(transport: HttpxTransport) -> None:
    async with byte_server(b"") as server:
        # when
        error = await failure(connection(server.url.replace("http://", "https://"), transport))

    # then
    assert (error.cause, error.reason, error.hard) == (Cause.NOT_SENT, "tls", True)
    assert server.requests == []


async def test_a_dribbled_body_is_cut_by_the_total_deadline(transport: HttpxTransport) -> None:
    # given
    clock, dribbled = ManualClock(), asyncio.Event()

    async def dribble(connection: Connection) -> None:
        await connection.send(OK + b"content-length: 1000000\r\n\r\n")
        while not connection.closing.is_set():
            await connection.send(b" ")
            await SystemClock().sleep(0.01)
            dribbled.set()

    async with byte_server(dribble) as server:
        asking = asyncio.create_task(failure(connection(server.url, transport, clock=clock, timeout=5)))
        await dribbled.wait()

        # when
        await clock.advance(5)
        error = await asking

    # then
    assert (error.cause, error.reason) == (Cause.UNKNOWN, "timeout")


async def test_what_is_sent_is_a_plain_request(transport: HttpxTransport) -> None:
    async with byte_server(
        OK + b'set-cookie: a=b\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{"id":"o1"}'
    ) as server:
        # when twice, so that a cookie would come back
        for _ in range(2):
            await connection(server.url, transport).post(
                "/orders", Order, operation="create_order", effect=Effect.ONCE, json={"n": 1}
            )

        # then
        head, _, body = server.requests[1].partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == "post /orders http/1.1"
        assert sorted(line.partition(":")[0] for line in lines[1:]) == [
            "accept",
            "accept-encoding",
            "api-key",
            "content-length",
            "content-type",
            "host",
            "user-agent",
        ]
        assert body == b'{"n":1}'


@pytest.mark.parametrize(
    ("script", "effect", "asked"),
    [
        (reset_before_answer, Effect.ONCE, 1),
        (reset_before_answer, Effect.IDEMPOTENT, 3),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Effect.ONCE, 1),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n", Effect.ONCE, 3),
        (b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n", Effect.IDEMPOTENT, 1),
        (OK + b"content-length: 13\r\n\r\n<html></html>", Effect.ONCE, 1),
        (OK + b"content-length: 13\r\n\r\n<html></html>", Effect.READ, 3),
    ],
)
async def test_only_what_may_be_repeated_is(
    transport: HttpxTransport, script: Script | bytes, effect: Effect, asked: int
) -> None:
    # given a guard that retries without waiting
    guard = Guard("shop", Policy(retry=Retry(base=1e-9, throttled_base=1e-9)))

    async with byte_server(script) as server:
        # when
        await failure(Http(Shop(base_url=server.url), transport, guard, SystemClock()), effect=effect)

        # then
        assert len(server.requests) == asked
        assert len({request.partition(b"\r\n\r\n")[2] for request in server.requests}) == 1


async def test_a_refused_connection_is_tried_again_even_for_what_must_not_happen_twice(
    transport: HttpxTransport,
) -> None:
    # given
    guard = Guard("shop", Policy(retry=Retry(base=1e-9)))
    http = Http(Shop(base_url=f"http://127.0.0.1:{closed_port()}"), transport, guard, SystemClock())

    # when
    error = await failure(http)

    # then
    assert error.cause is Cause.NOT_SENT
    assert "attempts are used up" in error.__notes__[0]
