"""The same rules over every transport, shown by a server of bytes: httpx and httpx2, each twice, and aiohttp."""

import asyncio
import gc
import gzip
import pickle
import socket
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import httpx2
import pytest

from holdfast import Breaker, Policy, Retry
from holdfast.clock import SystemClock
from holdfast.errors import (
    BulkheadFull,
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    InvalidInput,
    NotSent,
    OnHold,
    OutcomeUnknown,
    RateLimited,
)
from holdfast.http.errors import MEANINGS, meaning
from holdfast.resilience import CircuitState
from holdfast.resilience.context import deadline_scope, transaction
from holdfast.resilience.policy import Cache, Concurrency, Hedge, Rate
from holdfast.testing import ManualClock
from tests.http.byte_server import PATIENCE, Connection, Script, byte_server, closed_port
from tests.http.transports import KINDS, Client, Kind, client, every_transport

ONE = Policy(retry=None)
"""One attempt, so that a test sees what it came to."""
# A connection the test server accepted in its last moment may outlive the loop; it is no connection of ours.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected() -> Generator[None]:
    """Whatever is to be warned of is warned of here, not in other tests."""
    yield
    gc.collect()


NOW = Policy(retry=Retry(base=1e-9, throttled_base=1e-9), budget=None)
"""Again, without a wait."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
NO_BODY = ("content-length", "0")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} So", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def in_turn(*answers: bytes) -> Script:
    """One answer after the other, the last for ever."""
    left = list(answers)

    async def script(connection: Connection) -> None:
        await connection.send(left.pop(0) if len(left) > 1 else left[0])

    return script


async def failure(crm: Client, method: str, url: str, **options: Any) -> CallFailed:
    """What the request raises: ours, and the client's."""
    with pytest.raises(CallFailed) as caught:
        await crm.request(method, url, **options)
    assert isinstance(caught.value, crm.error("TransportError"))
    return caught.value


# What breaks on the wire.


async def reset_before_answer(connection: Connection) -> None:
    connection.reset()


async def reset_in_body(connection: Connection) -> None:
    await connection.send(HEAD + b'content-length: 100\r\n\r\n{"id"')
    await asyncio.sleep(0.05)  # so that it is read, mostly: a reset throws away what was not
    connection.reset()


async def hang(connection: Connection) -> None:
    await connection.hang()


async def stall_in_body(connection: Connection) -> None:
    await connection.send(HEAD + b'content-length: 100\r\n\r\n{"id"')
    await connection.hang()


SILENCE = 0.1
"""How long a client waits for bytes that never come."""
FAULTS: dict[str, tuple[Script | bytes, str]] = {
    "reset before the answer": (reset_before_answer, "ReadError"),
    "reset in the body": (reset_in_body, "ReadError"),
    "closed without an answer": (b"", "RemoteProtocolError"),
    "truncated body": (HEAD + b'content-length: 100\r\n\r\n{"id"', "RemoteProtocolError"),
    "truncated chunk": (HEAD + b'transfer-encoding: chunked\r\n\r\nff\r\n{"id"', "RemoteProtocolError"),
    "bad chunk header": (HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n", "RemoteProtocolError"),
    "garbage instead of a status line": (b"\x00\xff\x00 hello\r\n\r\n", "RemoteProtocolError"),
    "a header that never ends": (HEAD + b"x: " + b"a" * 300_000 + b"\r\n\r\n{}", "RemoteProtocolError"),
    "contradictory lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", "RemoteProtocolError"),
    "no answer": (hang, "ReadTimeout"),
    "a body that stops": (stall_in_body, "ReadTimeout"),
}


@every_transport
@pytest.mark.parametrize(("script", "theirs"), list(FAULTS.values()), ids=list(FAULTS))
async def test_whatever_breaks_after_the_request_was_read_is_unknown_and_not_repeated(
    kind: Kind, script: Script | bytes, theirs: str
) -> None:
    silence = SILENCE if theirs == "ReadTimeout" else None
    async with byte_server(script) as server, client(kind, NOW, silence=silence) as crm:
        # when
        error = await failure(crm, "POST", server.url, json={"n": 1})
        await server.heard()

        # then
        assert isinstance(error, crm.error(theirs))
        assert isinstance(error, OutcomeUnknown)
        assert not isinstance(error, NotSent)
        assert len(server.requests) == 1
        assert "look before you repeat it" in str(error)
        assert crm.circuit().failures == 1


@every_transport
async def test_a_refused_connection_was_never_sent_and_is_tried_again(kind: Kind) -> None:
    async with client(kind, NOW) as crm:
        # when
        error = await failure(crm, "POST", f"http://127.0.0.1:{closed_port()}")

        # then
        assert isinstance(error, crm.error("ConnectError"))
        assert isinstance(error, NotSent)
        assert (error.reason, error.hard, error.local) == ("refused", True, False)
        assert crm.circuit().failures == 3


@every_transport
async def test_a_failed_tls_handshake_was_never_sent(kind: Kind) -> None:
    async with byte_server(b"") as server, client(kind, ONE) as crm:
        # when
        error = await failure(crm, "POST", server.url.replace("http://", "https://"))

        # then
        assert isinstance(error, crm.error("ConnectError"))
        assert isinstance(error, NotSent)
        assert error.reason == "tls"
        assert server.requests == []


@every_transport
async def test_a_name_nobody_knows_was_never_sent(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a resolver that asks nobody: every library goes through this function of the machine's
    def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with client(kind, ONE) as crm:
        # when
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", unknown)
            error = await failure(crm, "POST", "http://nobody.invalid")

        # then
        assert isinstance(error, crm.error("ConnectError"))
        assert isinstance(error, NotSent)
        assert error.reason == "dns"


@every_transport
@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        (HEAD + b'content-length: 8\r\n\r\n{"id": "', 200),
        (HEAD + b"content-length: 13\r\n\r\n<html></html>", 200),
        (answer(302, location="/login"), 302),
    ],
    ids=["truncated JSON", "a page with 200", "a redirect"],
)
async def test_an_answer_that_means_nothing_is_the_clients_to_judge(kind: Kind, bytes_: bytes, status: int) -> None:
    async with byte_server(bytes_) as server, client(kind, NOW) as crm:
        # when
        response = await crm.request("POST", server.url)

        # then
        assert response.status_code == status
        with pytest.raises(ValueError):  # noqa: PT011  # of whatever the client decodes with
            response.json()
        assert len(server.requests) == 1


@every_transport
async def test_a_body_that_is_no_gzip_is_the_clients_error_and_not_repeated(kind: Kind) -> None:
    script = HEAD + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    async with byte_server(script) as server, client(kind, NOW) as crm:
        with pytest.raises(crm.error("DecodingError")):
            await crm.request("GET", server.url)
        assert len(server.requests) == 1


@every_transport
async def test_a_compressed_body_arrives_decompressed(kind: Kind) -> None:
    script = answer(200, gzip.compress(b"hello" * 1000), content_encoding="gzip")
    async with byte_server(script) as server, client(kind, ONE) as crm:
        assert (await crm.request("GET", server.url)).content == b"hello" * 1000


async def dribble(connection: Connection) -> None:
    await connection.send(HEAD + b"content-length: 1000000\r\n\r\n")
    for _ in range(3000):  # half a minute, so that a client that does not give up is seen to
        await connection.send(b" ")
        await asyncio.sleep(0.01)


@every_transport
async def test_a_dribbled_body_is_cut_by_the_total_deadline(kind: Kind) -> None:
    # given
    clock = ManualClock()
    async with byte_server(dribble) as server, client(kind, Policy(deadline=5), clock=clock) as crm:
        response = await crm.open("GET", server.url)

        # when
        reading = asyncio.create_task(crm.read(response))
        await clock.advance(5)

        # then
        with pytest.raises(crm.error("ReadTimeout")) as caught:
            await reading
        assert isinstance(caught.value, OutcomeUnknown)


@every_transport
@pytest.mark.parametrize(
    ("policy", "script"),
    [
        (Policy(timeout=SILENCE, retry=None), hang),  # it ends with the headers
        (Policy(deadline=SILENCE), hang),
        (Policy(deadline=SILENCE), stall_in_body),
    ],
)
async def test_time_is_up_though_the_client_itself_would_wait(kind: Kind, policy: Policy, script: Script) -> None:
    # given a clock that stands still until the request was sent; a thread's reads end by themselves
    clock = ManualClock()
    async with byte_server(script) as server, client(kind, policy, timeout=None, clock=clock) as crm:
        asking = asyncio.create_task(failure(crm, "POST", server.url))
        await server.heard()

        # when
        await clock.advance(SILENCE)

        # then
        error = await asking
        assert isinstance(error, crm.error("ReadTimeout"))
        assert isinstance(error, OutcomeUnknown)
        assert error.reason == "timeout"


@every_transport
async def test_the_attempts_timeout_ends_with_the_headers(kind: Kind) -> None:
    # given a body that pauses for longer than an attempt may take; a thread's reads keep to real time
    clock, resumed = ManualClock(), asyncio.Event()

    async def pause(connection: Connection) -> None:
        await connection.send(HEAD + b"content-length: 2\r\n\r\no")
        await resumed.wait()
        await asyncio.sleep(0 if kind.is_async else 1.2)
        await connection.send(b"k")

    policy = Policy(timeout=1, retry=None)
    async with byte_server(pause) as server, client(kind, policy, timeout=None, clock=clock) as crm:
        response = await crm.open("GET", server.url)

        # when
        reading = asyncio.create_task(crm.read(response))
        await clock.advance(1.2)
        resumed.set()

        # then
        assert await reading == b"ok"


# What is repeated.


EFFECTS = {
    "read": ("GET", {}),
    "idempotent": ("PUT", {}),
    "keyed": ("POST", {"Idempotency-Key": "k1"}),
    "once": ("POST", {}),
}


@every_transport
@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        # read, idempotent, keyed, once
        (reset_before_answer, (3, 3, 3, 1)),
        (b"", (3, 3, 3, 1)),
        (answer(408), (3, 3, 3, 1)),
        (answer(500), (3, 3, 3, 1)),
        (answer(503), (3, 3, 3, 1)),
        (answer(429, retry_after="0"), (3, 3, 3, 3)),
        (answer(401), (1, 1, 1, 1)),
        (answer(403), (1, 1, 1, 1)),
        (answer(404), (1, 1, 1, 1)),
        (OK, (1, 1, 1, 1)),
    ],
)
async def test_what_may_be_repeated_is_decided_by_the_method_and_the_failure(
    kind: Kind, fault: Script | bytes, asked: tuple[int, ...]
) -> None:
    for (method, headers), times in zip(EFFECTS.values(), asked, strict=True):
        async with byte_server(fault) as server, client(kind, NOW) as crm:
            # when
            with suppress(CallFailed):
                await crm.request(method, server.url, headers=headers, content=b"same")

            # then
            assert len(server.requests) == times, method
            assert {request.partition(b"\r\n\r\n")[2] for request in server.requests} == {b"same"}


@every_transport
async def test_a_body_that_is_no_bytes_is_sent_once_and_arrives(kind: Kind) -> None:
    # given
    async def parts() -> AsyncIterator[bytes]:
        yield b"first,"
        yield b"second"

    def sync_parts() -> Iterator[bytes]:
        yield b"first,"
        yield b"second"

    async with byte_server(answer(503)) as server, client(kind, NOW) as crm:
        # when
        response = await crm.request("PUT", server.url, content=parts() if kind.is_async else sync_parts())

        # then
        assert response.status_code == 503
        assert len(server.requests) == 1
        assert b"first," in server.requests[0]
        assert b"second" in server.requests[0]
        assert b"transfer-encoding: chunked" in server.requests[0].lower()


@pytest.mark.parametrize("name", ["httpx", "httpx-sync", "httpx2", "httpx2-sync"])
async def test_a_file_of_the_callers_that_cannot_be_read_says_nothing_of_the_vendor(name: str) -> None:
    # given
    def sync_parts() -> Iterator[bytes]:
        raise FileNotFoundError(2, "No such file", "report.pdf")
        yield b""

    async def parts() -> AsyncIterator[bytes]:
        raise FileNotFoundError(2, "No such file", "report.pdf")
        yield b""

    async with byte_server(OK) as server, client(KINDS[name], ONE) as crm:
        # when
        with pytest.raises(FileNotFoundError):
            await crm.request("PUT", server.url, content=parts() if KINDS[name].is_async else sync_parts())

        # then
        assert crm.circuit().failures == 0


@every_transport
async def test_a_failure_that_stays_one_is_returned_with_its_body(kind: Kind) -> None:
    async with byte_server(in_turn(answer(503, b"no"), answer(503, b"still no"))) as server, client(kind, NOW) as crm:
        response = await crm.request("GET", server.url)
        assert (response.status_code, response.content) == (503, b"still no")
        with pytest.raises(crm.error("HTTPStatusError")):
            response.raise_for_status()


@every_transport
async def test_a_long_failure_is_returned_whole(kind: Kind) -> None:
    long = b"".join(bytes([number % 256]) * 1024 for number in range(200))
    async with byte_server(answer(500, long)) as server, client(kind, NOW) as crm:
        assert (await crm.request("POST", server.url)).content == long


@every_transport
async def test_a_failure_whose_body_breaks_is_no_answer(kind: Kind) -> None:
    half = b"HTTP/1.1 429 Slow\r\ncontent-length: 100\r\n\r\nhalf"
    async with byte_server(half) as server, client(kind, NOW) as crm:
        error = await failure(crm, "POST", server.url)
        assert isinstance(error, OutcomeUnknown)
        assert isinstance(error, crm.error("RemoteProtocolError"))
        assert len(server.requests) == 1


@every_transport
async def test_nothing_beneath_the_guard_repeats_what_broke_a_kept_connection(kind: Kind) -> None:
    # given a connection that is kept after the first answer, and closed when it is used again
    async def close_the_second(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await connection.receive()

    async with byte_server(close_the_second) as server, client(kind, ONE) as crm:
        await crm.request("GET", server.url)

        # when
        error = await failure(crm, "DELETE", server.url)

        # then
        assert isinstance(error, crm.error("RemoteProtocolError"))
        assert (len(server.requests), server.connections) == (2, 1)


@every_transport
@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b""), ("POST", b"body"), ("DELETE", b"")])
async def test_what_is_sent_is_what_the_client_wrote(kind: Kind, method: str, body: bytes) -> None:
    # given
    path = "/a%2Fb/%7Euser/ü?q=a+b&q=%26&sig=x/y%3D"
    headers = {"Cookie": "mine=1", "Authorization": "Basic eDp5", "X-Many": "a"}
    async with byte_server(answer(200, set_cookie="theirs=2")) as server, client(kind, ONE) as crm:
        # when twice, so that a cookie kept below the client would come back; some keep none of a host without a name
        url = server.url.replace("127.0.0.1", "localhost") + path
        for _ in range(2):
            await crm.request(method, url, headers=headers, content=body)
            crm.client.cookies.clear()
        written = crm.client.build_request(method, url, headers=headers, content=body)

        # then
        head, _, sent_body = server.requests[1].partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert sent_body == body
        assert lines[0] == f"{method} {written.url.raw_path.decode()} HTTP/1.1"
        sent = {(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        # Without a body a length of nothing is the same as none.
        assert sent - {NO_BODY} == {(name.lower(), value) for name, value in written.headers.multi_items()} - {NO_BODY}


@every_transport
async def test_a_body_goes_with_a_redirected_request(kind: Kind) -> None:
    script = in_turn(answer(307, location="/there"), OK)
    async with byte_server(script) as server, client(kind, NOW) as crm:
        response = await crm.request("POST", server.url, content=b"body", follow_redirects=True)
        assert response.status_code == 200
        assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b"body", b"body"]


@every_transport
async def test_headers_of_an_answer_arrive_in_order_and_all_of_them(kind: Kind) -> None:
    script = b"HTTP/1.1 200 Fine\r\nset-cookie: a=1\r\nX-B: 2\r\nset-cookie: c=3\r\ncontent-length: 0\r\n\r\n"
    async with byte_server(script) as server, client(kind, ONE) as crm:
        response = await crm.request("GET", server.url)
        assert response.headers.multi_items()[:3] == [("set-cookie", "a=1"), ("x-b", "2"), ("set-cookie", "c=3")]
        assert (response.reason_phrase, response.http_version) == ("Fine", "HTTP/1.1")


@every_transport
async def test_a_long_header_is_no_fault(kind: Kind) -> None:
    async with byte_server(answer(200, x_long="a" * 30_000)) as server, client(kind, ONE) as crm:
        assert len((await crm.request("GET", server.url)).headers["x-long"]) == 30_000


@every_transport
async def test_sequential_requests_share_one_connection(kind: Kind) -> None:
    async def keep(connection: Connection) -> None:
        while True:
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await connection.receive()

    async with byte_server(keep) as server, client(kind, ONE) as crm:
        for _ in range(5):
            await crm.request("GET", server.url)
        assert (len(server.requests), server.connections) == (5, 1)


# What holds, and what ends it.


@every_transport
async def test_a_place_is_held_until_the_answer_is_closed(kind: Kind) -> None:
    policy = Policy(retry=None, concurrency=Concurrency(1, max_waiting=0))
    async with byte_server(OK) as server, client(kind, policy) as crm:
        # given
        for method in ("GET", "POST"):
            response = await crm.open(method, server.url)

            # when
            error = await failure(crm, "GET", server.url)

            # then
            assert isinstance(error, BulkheadFull)
            assert isinstance(error, crm.error("PoolTimeout"))
            await crm.close(response)
            assert (await crm.request("GET", server.url)).content == b"ok"


@every_transport
@pytest.mark.parametrize("status", [200, 404])
async def test_a_final_answer_holds_its_place_whatever_its_status(kind: Kind, status: int) -> None:
    policy = Policy(retry=None, concurrency=Concurrency(1, max_waiting=0))
    async with byte_server(answer(status, b"body")) as server, client(kind, policy) as crm:
        response = await crm.open("GET", server.url)
        assert isinstance(await failure(crm, "GET", server.url), BulkheadFull)
        assert await crm.read(response) == b"body"
        assert (await crm.request("GET", server.url)).status_code == status
        assert crm.circuit().failures == 0


@every_transport
async def test_a_body_that_breaks_counts_once_and_gives_its_place_back(kind: Kind) -> None:
    policy = Policy(retry=None, concurrency=Concurrency(1, max_waiting=0))
    opened = asyncio.Event()

    async def reset_once_opened(connection: Connection) -> None:
        await connection.send(HEAD + b'content-length: 100\r\n\r\n{"id"')
        await opened.wait()  # a reset throws away what was sent and not yet read
        connection.reset()

    async with byte_server(reset_once_opened) as server, client(kind, policy) as crm:
        for failures in (1, 2):
            opened.clear()
            response = await crm.open("GET", server.url)
            opened.set()
            with pytest.raises(crm.error("ReadError")) as caught:
                await crm.read(response)
            assert isinstance(caught.value, OutcomeUnknown)
            await crm.close(response)
            assert crm.circuit().failures == failures


@every_transport
async def test_a_rate_without_a_slot_is_the_clients_pool_timeout(kind: Kind) -> None:
    policy = Policy(retry=None, rate=Rate(1, per=60), deadline=30)
    async with byte_server(OK) as server, client(kind, policy) as crm:
        await crm.request("GET", server.url)
        error = await failure(crm, "GET", server.url)
        assert isinstance(error, RateLimited)
        assert isinstance(error, crm.error("PoolTimeout"))
        assert len(server.requests) == 1


@every_transport
async def test_an_open_circuit_rejects_before_anything_is_sent(kind: Kind) -> None:
    policy = Policy(retry=None, breaker=Breaker(consecutive=2))
    async with byte_server(answer(500)) as server, client(kind, policy) as crm:
        # given
        for _ in range(2):
            await crm.request("GET", server.url)

        # when
        error = await failure(crm, "GET", server.url)

        # then
        assert isinstance(error, CircuitOpen)
        assert isinstance(error, crm.error("ConnectError"))
        assert error.local
        assert error.retry_after is not None
        assert len(server.requests) == 2
        assert crm.circuit().state is CircuitState.OPEN


@every_transport
async def test_each_origin_has_a_guard_of_its_own_unless_there_is_a_name(kind: Kind) -> None:
    policy = Policy(retry=None, breaker=Breaker(consecutive=1))
    async with (
        byte_server(answer(500)) as down,
        byte_server(OK) as up,
        client(kind, policy, name=None) as crm,
    ):
        # given
        await crm.request("GET", down.url)

        # then
        assert (await crm.request("GET", up.url)).status_code == 200
        states = {origin: guard.circuits[""].state for origin, guard in crm.transport.snapshot().items()}
        assert states == {down.url: CircuitState.OPEN, up.url: CircuitState.CLOSED}


@every_transport
async def test_a_pause_is_for_the_credential_that_was_asked_to_make_it(kind: Kind) -> None:
    policy = Policy(retry=None, deadline=30)

    async def by_credential(connection: Connection) -> None:
        slow = b"Bearer correct-horse" in connection.request
        await connection.send(answer(429, retry_after="60") if slow else OK)

    async with byte_server(by_credential) as server, client(kind, policy) as crm:
        # given
        mine = {"Authorization": "Bearer correct-horse"}
        assert (await crm.request("GET", server.url, headers=mine)).status_code == 429

        # when
        error = await failure(crm, "GET", server.url, headers=mine)

        # then
        assert isinstance(error, OnHold)
        assert isinstance(error, crm.error("ConnectError"))
        assert error.retry_after is not None
        assert 50 < error.retry_after <= 60
        assert (await crm.request("GET", server.url, headers={"Authorization": "Bearer battery"})).status_code == 200
        assert (await crm.request("GET", server.url)).status_code == 200
        assert len(server.requests) == 3
        assert "correct-horse" not in repr((error, crm.transport.snapshot()))


@every_transport
@pytest.mark.parametrize(("status", "held"), [(401, 1), (403, 0)])
async def test_a_credential_that_was_refused_pauses_until_it_is_another(kind: Kind, status: int, held: int) -> None:
    policy = Policy(retry=None, deadline=30)
    async with byte_server(answer(status)) as server, client(kind, policy) as crm:
        # when
        await crm.request("GET", server.url, headers={"Authorization": "Bearer old"})
        await crm.request("GET", server.url, headers={"Authorization": "Bearer new"})
        await crm.request("GET", server.url)

        # then
        assert len(crm.transport.snapshot()["crm"].holds) == 2 * held
        assert crm.circuit().failures == 0


@every_transport
async def test_the_failure_that_is_both_survives_pickle_without_the_request(kind: Kind) -> None:
    async with byte_server(hang) as server, client(kind, ONE, silence=SILENCE) as crm:
        error = await failure(crm, "POST", server.url, headers={"Authorization": "Bearer correct-horse"})
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (again.args, again.cause, again.reason) == (error.args, error.cause, "timeout")
        assert b"correct-horse" not in pickle.dumps(error)


@every_transport
async def test_nothing_is_sent_inside_a_transaction_or_without_time(kind: Kind) -> None:
    async with byte_server(OK) as server, client(kind, ONE) as crm:
        with transaction(), pytest.raises(CallInsideTransaction):
            await crm.request("GET", server.url)
        with deadline_scope(0, SystemClock()):
            error = await failure(crm, "GET", server.url)
        assert isinstance(error, NotSent)
        assert isinstance(error, crm.error("ConnectTimeout"))
        assert server.requests == []


@every_transport
async def test_closing_twice_is_harmless(kind: Kind) -> None:
    async with byte_server(OK) as server, client(kind, ONE) as crm:
        await crm.request("GET", server.url)
        for _ in range(2):
            if kind.is_async:
                await crm.transport.aclose()
            else:
                crm.transport.close()
        assert crm.circuit().calls == 1


@every_transport
async def test_many_at_once_are_all_counted(kind: Kind) -> None:
    policy = Policy(retry=None, concurrency=8, rate=Rate(1000, per=1))
    async with byte_server(OK) as server, client(kind, policy) as crm:
        # when
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(crm.request("GET", server.url)) for _ in range(40)]

        # then
        assert {task.result().content for task in asking} == {b"ok"}
        assert (crm.circuit().calls, crm.circuit().failures) == (40, 0)
        assert crm.transport.snapshot()["crm"].operations["GET"].outcomes == {"ok": 40}


@pytest.mark.parametrize("name", ["httpx-sync", "httpx2-sync"])
async def test_a_thread_waits_as_long_as_the_vendor_asked(name: str) -> None:
    # given a clock on which waiting takes no time
    clock, script = ManualClock(), in_turn(answer(429, retry_after="7"), OK)
    async with byte_server(script) as server, client(KINDS[name], Policy(), clock=clock) as crm:
        # when
        response = await crm.request("POST", server.url)

        # then
        assert response.status_code == 200
        assert 7 <= clock.monotonic() < 9


# What one transport is, whatever client it is under.


async def test_threads_and_coroutines_share_the_guard() -> None:
    # given one transport under two clients
    transport = KINDS["httpx"].transport("crm", Policy(retry=None, breaker=Breaker(consecutive=2)))
    async with byte_server(answer(500)) as server, httpx.AsyncClient(transport=transport, timeout=PATIENCE) as crm:
        with httpx.Client(transport=transport, timeout=PATIENCE) as crm_of_threads:
            # when
            await crm.get(server.url)
            await asyncio.to_thread(crm_of_threads.get, server.url)

            # then
            with pytest.raises(CircuitOpen):
                await crm.get(server.url)
            with pytest.raises(httpx.ConnectError):
                await asyncio.to_thread(crm_of_threads.get, server.url)


@pytest.mark.parametrize("kind", [KINDS["httpx"], KINDS["httpx2"]])
async def test_an_inner_transport_of_the_wrong_kind_is_named(kind: Kind) -> None:
    library = kind.library
    with library.Client(transport=kind.transport(inner=library.AsyncHTTPTransport())) as crm:
        told = r"Client, inner is a httpx2?\.BaseTransport, not AsyncHTTPTransport"
        with pytest.raises(InvalidInput, match=told):
            crm.get("https://a.example")
    async with library.AsyncClient(transport=kind.transport(inner=library.HTTPTransport())) as crm:
        with pytest.raises(InvalidInput, match="AsyncClient"):
            await crm.get("https://a.example")


@pytest.mark.parametrize("kind", [KINDS["httpx"], KINDS["httpx2"]])
def test_what_does_not_apply_to_streams_is_refused(kind: Kind) -> None:
    for policy in (Policy(cache=Cache(5)), Policy(hedge=Hedge())):
        with pytest.raises(InvalidInput, match="neither cache nor hedge"):
            kind.transport("crm", policy)


def test_no_exception_of_httpx2_is_missing_from_the_table() -> None:
    # given what a transport raises; the rest is raised above it
    kinds = [getattr(httpx2, name) for name in httpx2.__all__]
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, httpx2.TransportError)]

    # then
    assert len(errors) > 10
    for kind in errors:
        assert meaning(kind("")) is MEANINGS[getattr(httpx, kind.__name__, httpx.TransportError)]


def test_a_redirected_sync_request_keeps_the_clients_own_timeouts() -> None:
    # given
    seen: list[dict[str, float]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.extensions["timeout"]))
        return httpx.Response(302, headers={"location": "/there"}) if len(seen) == 1 else httpx.Response(200)

    transport = KINDS["httpx"].transport("crm", Policy(timeout=3, retry=None), inner=httpx.MockTransport(handle))

    # when
    with httpx.Client(transport=transport, timeout=httpx.Timeout(9, connect=1), follow_redirects=True) as crm:
        response = crm.get("https://a.example")

    # then
    assert [timeouts["connect"] for timeouts in seen] == [1, 1]
    assert all(2.5 < timeouts["read"] <= 3 for timeouts in seen)
    assert response.request.extensions["timeout"]["read"] == 9
