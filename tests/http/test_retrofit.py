"""A client the user already has, guarded: its own `except` clauses hold, and nothing happens twice."""

import asyncio
import pickle
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import respx

from holdfast import Breaker, Guard, GuardedTransport, Policy, Retry
from holdfast.clock import Clock
from holdfast.errors import (
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    NotSent,
    OutcomeUnknown,
)
from holdfast.http.retrofit import MOST_ORIGINS
from holdfast.http.retrofit_bodies import KEPT
from holdfast.resilience import CircuitSnapshot, CircuitState
from holdfast.resilience.context import deadline_scope, transaction
from holdfast.telemetry import AttemptFailed, CallRejected, CircuitChanged, Signal, Telemetry
from holdfast.testing import ManualClock
from tests.http.byte_server import PATIENCE, Connection, Script, byte_server, closed_port

NOW = Retry(base=1e-9, throttled_base=1e-9)
"""Again, without a wait."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
EFFECTS = {
    "read": ("GET", {}),
    "idempotent": ("PUT", {}),
    "keyed": ("POST", {"Idempotency-Key": "k1"}),
    "once": ("POST", {}),
}


@asynccontextmanager
async def client(
    policy: Policy | None = None,
    *,
    inner: httpx.AsyncBaseTransport | None = None,
    name: str | None = "crm",
    clock: Clock | None = None,
    telemetry: Telemetry | None = None,
    timeout: float | None = PATIENCE,
    silence: float | None = None,
) -> AsyncGenerator[tuple[httpx.AsyncClient, GuardedTransport]]:
    """A client over a guarded transport, and the transport; `silence` is how long it waits for the next bytes."""
    limits = httpx.Timeout(timeout, read=silence or timeout)
    transport = GuardedTransport(name, policy or Policy(retry=NOW), inner=inner, clock=clock, telemetry=telemetry)
    async with httpx.AsyncClient(transport=transport, timeout=limits) as made:
        yield made, transport


def circuit(transport: GuardedTransport, operation: str = "") -> CircuitSnapshot:
    """The one guard's circuit: of all its requests, or of one method's."""
    [guard] = transport.snapshot().values()
    return guard.circuits[operation]


class Answers(httpx.AsyncBaseTransport):
    """Answers with what it is given, in order, the last for ever; streams, so that closing shows."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[], httpx.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.open: list[Body] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        response = answer if isinstance(answer, httpx.Response) else answer()
        if isinstance(response.stream, Body):
            self.open.append(response.stream)
        return response


class Body(httpx.AsyncByteStream):
    """A body in chunks; an exception among them breaks it there."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.closed = False
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            self.given += 1
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


def answer(status: int, *chunks: bytes | Exception, **headers: str) -> Callable[[], httpx.Response]:
    """A response with a body of its own each time."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: httpx.Response(status, headers=named, stream=Body(*chunks))


async def reset(connection: Connection) -> None:
    connection.reset()


async def reset_in_body(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    connection.reset()


async def hang(connection: Connection) -> None:
    await connection.hang()


async def stall_in_body(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await connection.hang()


# What is repeated.


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        # read, idempotent, keyed, once
        (reset, (3, 3, 3, 1)),
        (b"", (3, 3, 3, 1)),
        (b"\x00\xff nonsense\r\n\r\n", (3, 3, 3, 1)),
        (b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n", (3, 3, 3, 1)),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", (3, 3, 3, 1)),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", (3, 3, 3, 1)),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n", (3, 3, 3, 3)),
        (b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n", (1, 1, 1, 1)),
        (b"HTTP/1.1 404 None\r\ncontent-length: 0\r\n\r\n", (1, 1, 1, 1)),
        (b"HTTP/1.1 302 There\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", (1, 1, 1, 1)),
        (OK, (1, 1, 1, 1)),
    ],
)
async def test_what_may_be_repeated_is_decided_by_the_method_and_the_failure(
    fault: Script | bytes, asked: tuple[int, ...]
) -> None:
    for (method, headers), times in zip(EFFECTS.values(), asked, strict=True):
        async with byte_server(fault) as server, client() as (crm, _):
            # when
            with suppress(httpx.TransportError):
                await crm.request(method, server.url, headers=headers)

            # then
            assert len(server.requests) == times, method
            assert len(set(server.requests)) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_methods_that_may_be_repeated_are(method: str) -> None:
    inner = Answers(httpx.ReadError("gone"), answer(200))
    async with client(inner=inner) as (crm, _):
        assert (await crm.request(method, "https://a.example")).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPFIND"])
async def test_any_other_method_is_done_once(method: str) -> None:
    inner = Answers(httpx.ReadError("gone"), answer(200))
    async with client(inner=inner) as (crm, _):
        with pytest.raises(httpx.ReadError):
            await crm.request(method, "https://a.example")


async def test_what_never_left_is_tried_again_even_if_it_must_not_happen_twice() -> None:
    inner = Answers(httpx.ConnectError("refused"), answer(201, b"made"))
    async with client(inner=inner) as (crm, _):
        assert (await crm.post("https://a.example", json={"n": 1})).content == b"made"
    assert [request.content for request in inner.requests] == [b'{"n":1}'] * 2


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("fault", [httpx.ConnectError("refused"), answer(429), answer(503)])
async def test_a_body_that_can_be_read_only_once_is_sent_only_once(
    method: str, fault: Exception | Callable[[], httpx.Response]
) -> None:
    # given
    async def upload() -> AsyncIterator[bytes]:
        yield b"part"

    inner = Answers(fault, answer(200))
    async with client(inner=inner) as (crm, _):
        # when
        with suppress(httpx.ConnectError):
            await crm.request(method, "https://a.example", content=upload())

    # then
    assert len(inner.requests) == 1


async def test_an_outer_guard_is_the_one_that_repeats() -> None:
    inner = Answers(httpx.ReadError("gone"))
    outer = Guard("outer", Policy(retry=NOW))
    async with client(inner=inner) as (crm, _):
        with pytest.raises(httpx.ReadError):
            await outer.read(crm.get, "https://a.example")
    assert len(inner.requests) == 3


@pytest.mark.parametrize(
    ("fault", "asked"), [(httpx.ReadError("gone"), 3), (answer(200, b"half", httpx.ReadError("gone")), 1)]
)
async def test_a_guarded_transport_under_another_is_transparent(
    fault: Exception | Callable[[], httpx.Response], asked: int
) -> None:
    inner = Answers(fault)
    async with client(inner=GuardedTransport("inner", Policy(retry=NOW), inner=inner)) as (crm, transport):
        with pytest.raises(httpx.ReadError):
            await crm.get("https://a.example")
        assert circuit(transport).failures == asked
    assert len(inner.requests) == asked


async def test_nothing_is_sent_inside_a_transaction() -> None:
    inner = Answers(answer(200))
    async with client(inner=inner) as (crm, _):
        with transaction(), pytest.raises(CallInsideTransaction):
            await crm.get("https://a.example")
    assert inner.requests == []


# What comes back.


async def test_a_failure_that_stays_one_is_returned_as_httpx_would() -> None:
    inner = Answers(answer(503, b"no"), answer(503, b"still ", b"no"))
    async with client(inner=inner) as (crm, _):
        # when
        response = await crm.get("https://a.example")

        # then
        assert (response.status_code, response.content) == (503, b"still no")
        with pytest.raises(httpx.HTTPStatusError):
            response.raise_for_status()
    assert len(inner.open) == 3
    assert all(body.closed for body in inner.open)


async def test_the_answer_before_a_success_is_closed() -> None:
    long = [b"x" * 1024] * 1000
    inner = Answers(answer(503, *long), answer(200, b"ok"))
    async with client(inner=inner) as (crm, _):
        assert (await crm.get("https://a.example")).content == b"ok"
    assert [body.closed for body in inner.open] == [True, True]
    assert inner.open[0].given * 1024 == KEPT + 1024


async def test_a_long_failure_is_returned_whole() -> None:
    long = [bytes([n % 256]) * 1024 for n in range(200)]
    inner = Answers(answer(500, *long))
    async with client(inner=inner) as (crm, _):
        assert (await crm.post("https://a.example")).content == b"".join(long)


async def test_a_short_failure_frees_its_connection_while_the_guard_waits() -> None:
    # given
    clock, inner = ManualClock(), Answers(answer(429, b"slow", retry_after="7"), answer(200))
    async with client(Policy(timeout=None), inner=inner, clock=clock, timeout=None) as (crm, _):
        # when
        asking = asyncio.create_task(crm.get("https://a.example"))
        await clock.advance(6.9)

        # then
        assert inner.open[0].closed
        assert len(inner.requests) == 1
        await clock.advance(2)
        assert (await asking).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "7"},
        {"retry_after_ms": "7000"},
        {"retry_after": "Fri, 01 May 2020 10:00:07 GMT", "date": "Fri, 01 May 2020 10:00:00 GMT"},
        {"retry_after": "Thu, 01 Jan 2026 00:00:07 GMT"},
    ],
)
async def test_a_pause_the_vendor_asks_for_is_made(headers: dict[str, str]) -> None:
    clock, inner = ManualClock(), Answers(answer(429, **headers), answer(201))
    async with client(inner=inner, clock=clock) as (crm, _):
        asking = asyncio.create_task(crm.post("https://a.example"))
        await clock.advance(6.9)
        assert len(inner.requests) == 1
        await clock.advance(1)
        assert (await asking).status_code == 201


async def test_a_pause_beyond_the_deadline_is_for_the_caller_to_make() -> None:
    inner = Answers(answer(429, retry_after="30"))
    async with client(Policy(deadline=5), inner=inner) as (crm, _):
        response = await crm.get("https://a.example")
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    assert len(inner.requests) == 1


@pytest.mark.parametrize("broken", [httpx.ReadError("gone"), httpx.ReadTimeout("late")])
async def test_a_failure_whose_body_breaks_is_no_answer(broken: Exception) -> None:
    inner = Answers(answer(429, b"half", broken))
    async with client(inner=inner) as (crm, _):
        with pytest.raises(type(broken)) as caught:
            await crm.post("https://a.example")
    assert isinstance(caught.value, OutcomeUnknown)
    assert len(inner.requests) == 1
    assert inner.open[0].closed


async def test_after_an_unknown_outcome_an_open_circuit_does_not_say_that_nothing_was_sent() -> None:
    policy = Policy(retry=NOW, breaker=Breaker(consecutive=1))
    async with client(policy, inner=Answers(httpx.ReadTimeout("late"))) as (crm, _):
        with pytest.raises(httpx.ReadError) as caught:
            await crm.put("https://a.example")
    assert isinstance(caught.value, OutcomeUnknown)
    assert not isinstance(caught.value, NotSent)


async def test_an_answer_stands_when_the_circuit_lets_no_second_attempt_through() -> None:
    inner = Answers(answer(503, b"busy"))
    async with client(Policy(retry=NOW, breaker=Breaker(consecutive=1)), inner=inner) as (crm, _):
        assert (await crm.get("https://a.example")).content == b"busy"
        with pytest.raises(CircuitOpen):
            await crm.get("https://a.example")
    assert len(inner.requests) == 1


# Errors.


CLIENT_ERRORS: list[tuple[type[httpx.TransportError], type[CallFailed]]] = [
    (httpx.ConnectError, NotSent),
    (httpx.ConnectTimeout, NotSent),
    (httpx.ProxyError, NotSent),
    (httpx.PoolTimeout, NotSent),
    (httpx.UnsupportedProtocol, NotSent),
    (httpx.LocalProtocolError, NotSent),
    (httpx.ReadError, OutcomeUnknown),
    (httpx.WriteError, OutcomeUnknown),
    (httpx.CloseError, OutcomeUnknown),
    (httpx.ReadTimeout, OutcomeUnknown),
    (httpx.WriteTimeout, OutcomeUnknown),
    (httpx.RemoteProtocolError, OutcomeUnknown),
    (httpx.TransportError, OutcomeUnknown),
]


@pytest.mark.parametrize(("theirs", "ours"), CLIENT_ERRORS)
async def test_an_error_is_httpxs_and_ours(theirs: type[httpx.TransportError], ours: type[CallFailed]) -> None:
    async with client(Policy(retry=None), inner=Answers(theirs("text"))) as (crm, _):
        # when
        with pytest.raises(theirs) as caught:
            await crm.post("https://a.example/x", headers={"authorization": "Bearer correct-horse"})

    # then
    error = caught.value
    assert isinstance(error, ours)
    assert (error.provider, error.operation) == ("crm", "POST")
    assert str(error).startswith("crm: POST ")
    assert error.request.url == "https://a.example/x"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.args, again.cause, again.hard) == (error.args, error.cause, error.hard)
    assert b"correct-horse" not in pickle.dumps(error)


async def test_an_error_of_the_users_own_transport_stays_one() -> None:
    class TunnelDown(httpx.ConnectError):
        def __init__(self, tunnel: str, hops: int) -> None:
            super().__init__(tunnel)
            self.hops = hops

    async with client(inner=Answers(TunnelDown("t1", 3))) as (crm, _):
        with pytest.raises(TunnelDown) as caught:
            await crm.get("https://a.example")
    assert isinstance(caught.value, NotSent)
    assert caught.value.hops == 3


async def test_an_error_says_why_it_was_not_tried_again() -> None:
    async with client(inner=Answers(httpx.ReadError("gone"))) as (crm, _):
        with pytest.raises(httpx.ReadError) as caught:
            await crm.post("https://a.example")
    assert "it may have happened, so look before you repeat it" in str(caught.value)
    assert "could take effect twice" in caught.value.__notes__[0]


async def test_a_header_httpx_cannot_send_is_not_shown() -> None:
    inner = Answers(httpx.LocalProtocolError("Illegal header value b'Bearer correct-horse'"))
    async with client(inner=inner) as (crm, _):
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await crm.get("https://a.example")
    assert "correct-horse" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("error", "theirs"), [(OSError("x"), httpx.ReadError), (TimeoutError(), httpx.ReadTimeout)])
async def test_what_an_inner_transport_lets_through_becomes_httpxs(
    error: Exception, theirs: type[httpx.TransportError]
) -> None:
    async with client(inner=Answers(error)) as (crm, _):
        with pytest.raises(theirs):
            await crm.get("https://a.example")


async def test_anything_else_passes_and_says_nothing_of_the_vendor() -> None:
    async with client(Policy(breaker=Breaker(consecutive=1)), inner=Answers(ValueError("mine"))) as (crm, transport):
        with pytest.raises(ValueError, match="mine"):
            await crm.get("https://a.example")
    assert circuit(transport).failures == 0


async def test_a_refused_connection_over_a_socket_is_a_connect_error() -> None:
    async with client() as (crm, _):
        with pytest.raises(httpx.ConnectError) as caught:
            await crm.post(f"http://127.0.0.1:{closed_port()}")
    assert isinstance(caught.value, NotSent)
    assert caught.value.reason == "refused"


@pytest.mark.parametrize(
    ("script", "theirs"),
    [
        (reset, httpx.ReadError),
        (b"", httpx.RemoteProtocolError),
        (hang, httpx.ReadTimeout),
        (reset_in_body, httpx.ReadError),
        (stall_in_body, httpx.ReadTimeout),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n", httpx.RemoteProtocolError),
    ],
)
async def test_a_broken_line_is_an_unknown_outcome_of_httpxs_class(
    script: Script | bytes, theirs: type[httpx.TransportError]
) -> None:
    silence = 0.1 if theirs is httpx.ReadTimeout else None
    async with byte_server(script) as server, client(silence=silence) as (crm, transport):
        with pytest.raises(theirs) as caught:
            await crm.post(server.url)
        await server.heard()
        assert isinstance(caught.value, OutcomeUnknown)
        assert len(server.requests) == 1
        assert circuit(transport).failures == 1


# The circuit.


async def test_a_circuit_opens_for_its_own_origin_only() -> None:
    policy = Policy(retry=None, breaker=Breaker(consecutive=2))

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if request.url.host == "down.example" else 200)

    async with client(policy, name=None, inner=httpx.MockTransport(handle)) as (crm, transport):
        # given
        for _ in range(2):
            await crm.get("https://down.example/x")

        # when
        with pytest.raises(httpx.ConnectError) as caught:
            await crm.get("https://down.example/y")

        # then
        assert isinstance(caught.value, CircuitOpen)
        assert caught.value.retry_after is not None
        assert caught.value.local
        assert (await crm.get("https://up.example")).status_code == 200
        assert (await crm.get("https://down.example:8443")).status_code == 500
        assert {name: guard.circuits[""].state for name, guard in transport.snapshot().items()} == {
            "https://down.example:443": CircuitState.OPEN,
            "https://up.example:443": CircuitState.CLOSED,
            "https://down.example:8443": CircuitState.CLOSED,
        }


async def test_a_name_makes_it_one_circuit() -> None:
    policy = Policy(retry=None, breaker=Breaker(consecutive=2))
    async with client(policy, inner=Answers(answer(500))) as (crm, transport):
        await crm.get("https://a.example")
        await crm.get("https://b.example")
        with pytest.raises(CircuitOpen):
            await crm.get("https://c.example")
    assert list(transport.snapshot()) == ["crm"]


async def test_origins_without_end_are_not_kept_without_end() -> None:
    async with client(name=None, inner=Answers(answer(200))) as (crm, transport):
        for number in range(MOST_ORIGINS + 5):
            await crm.get(f"https://{number}.example")
        assert len(transport.snapshot()) == MOST_ORIGINS


@pytest.mark.parametrize(
    ("status", "failures"), [(200, 0), (304, 0), (404, 0), (401, 0), (429, 0), (408, 1), (500, 1), (503, 1)]
)
async def test_statuses_count_by_the_table(status: int, failures: int) -> None:
    async with client(Policy(retry=None), inner=Answers(answer(status))) as (crm, transport):
        await crm.get("https://a.example")
        counted = circuit(transport)
    assert counted.failures == failures
    assert counted.calls == (0 if status in (401, 429) else 1)


async def test_retry_after_of_a_503_keeps_the_circuit_open() -> None:
    policy = Policy(retry=None, breaker=Breaker(consecutive=1, open_for=1))
    async with client(policy, inner=Answers(answer(503, retry_after="120")), clock=ManualClock()) as (crm, transport):
        await crm.get("https://a.example")
        assert circuit(transport).retry_after == 120


async def test_a_policy_without_a_breaker_has_no_circuit() -> None:
    async with client(Policy(retry=None, breaker=None), inner=Answers(answer(500))) as (crm, transport):
        for _ in range(10):
            await crm.get("https://a.example")
        assert transport.snapshot()["crm"].circuits == {}


async def test_what_happens_is_signalled_once() -> None:
    # given
    signals: list[Signal] = []
    policy = Policy(retry=None, breaker=Breaker(consecutive=1))
    async with client(policy, inner=Answers(answer(500)), telemetry=Telemetry([signals.append])) as (crm, _):
        # when
        await crm.get("https://a.example")
        with pytest.raises(CircuitOpen):
            await crm.get("https://a.example")

    # then
    assert [
        type(signal) for signal in signals if isinstance(signal, AttemptFailed | CircuitChanged | CallRejected)
    ] == [
        CircuitChanged,
        AttemptFailed,
        CallRejected,
    ]


# Streams.


async def test_a_probe_decides_when_its_stream_is_closed() -> None:
    # given an open circuit whose probe is due
    clock = ManualClock()
    policy = Policy(retry=None, breaker=Breaker(consecutive=1, open_for=1, probes_to_close=1))
    inner = Answers(answer(500), answer(200, b"a", b"b"))
    async with client(policy, inner=inner, clock=clock) as (crm, transport):
        await crm.get("https://a.example")
        await clock.advance(2)

        # when
        async with crm.stream("GET", "https://a.example") as response:
            first = await anext(response.aiter_raw(1))

            # then the permit is held
            assert first == b"a"
            assert circuit(transport).state is CircuitState.HALF_OPEN
            with pytest.raises(CircuitOpen):
                await crm.get("https://a.example")
        assert circuit(transport).state is CircuitState.CLOSED


async def test_a_body_that_breaks_counts_and_is_not_repeated() -> None:
    inner = Answers(answer(200, b"half", httpx.ReadError("gone")))
    policy = Policy(retry=NOW, breaker=Breaker(consecutive=2))
    async with client(policy, inner=inner) as (crm, transport):
        for _ in range(2):
            with pytest.raises(httpx.ReadError) as caught:
                await crm.get("https://a.example")
            assert isinstance(caught.value, OutcomeUnknown)
        assert circuit(transport).state is CircuitState.OPEN
    assert len(inner.requests) == 2
    assert all(body.closed for body in inner.open)


async def test_a_stream_is_handed_on_chunk_by_chunk() -> None:
    body = Body(b"a", b"b", b"c")
    async with client(inner=Answers(httpx.Response(200, stream=body))) as (crm, transport):
        async with crm.stream("GET", "https://a.example") as response:
            assert body.given == 0
            assert [chunk async for chunk in response.aiter_raw()] == [b"a", b"b", b"c"]
        assert circuit(transport).calls == 1


async def test_a_reader_who_stops_early_blames_nobody() -> None:
    body = Body(b"a", b"b")
    async with client(inner=Answers(httpx.Response(200, stream=body))) as (crm, transport):
        async with crm.stream("GET", "https://a.example"):
            pass
        assert body.closed
        assert (circuit(transport).calls, circuit(transport).failures) == (1, 0)


async def test_the_deadline_holds_until_the_stream_is_closed() -> None:
    # given a body that never ends
    clock = ManualClock()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await clock.sleep(1)
                yield b"."

    policy = Policy(deadline=5, timeout=2, retry=None)
    async with client(policy, inner=Answers(httpx.Response(200, stream=Endless())), clock=clock) as (crm, transport):
        # when
        reading = asyncio.create_task(crm.get("https://a.example"))
        await clock.advance(4.9)
        assert not reading.done()
        await clock.advance(0.2)

        # then
        with pytest.raises(httpx.ReadTimeout) as caught:
            await reading
        assert isinstance(caught.value, OutcomeUnknown)
        assert circuit(transport).failures == 1


async def test_a_dribbled_body_is_cut_by_the_deadline() -> None:
    # given
    clock = ManualClock()

    async def dribble(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not connection.closing.is_set():
            await connection.send(b" ")
            await asyncio.sleep(0.01)

    async with (
        byte_server(dribble) as server,
        client(Policy(deadline=5), clock=clock) as (crm, _),
        crm.stream("GET", server.url) as response,
    ):
        # when
        reading = asyncio.create_task(response.aread())
        await clock.advance(5)

        # then
        with pytest.raises(httpx.ReadTimeout):
            await reading


async def test_a_file_can_be_streamed_to_disk(tmp_path: Path) -> None:
    answering = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
    async with byte_server(answering) as server, client() as (crm, _), crm.stream("GET", server.url) as response:
        with (tmp_path / "file").open("wb") as file:
            async for chunk in response.aiter_bytes():
                file.write(chunk)
    assert (tmp_path / "file").stat().st_size == 300_000


# Time, and cancellation.


@pytest.mark.parametrize("policy", [Policy(timeout=1, retry=None), Policy(deadline=1, timeout=None)])
async def test_no_answer_in_time_is_a_read_timeout(policy: Policy) -> None:
    clock = ManualClock()

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await clock.sleep(100)
            raise AssertionError("cut off before")

    async with client(policy, inner=Silent(), clock=clock) as (crm, transport):
        asking = asyncio.create_task(crm.post("https://a.example"))
        await clock.advance(1.1)
        with pytest.raises(httpx.ReadTimeout) as caught:
            await asking
        assert isinstance(caught.value, OutcomeUnknown)
        assert circuit(transport).failures == 1


async def test_a_deadline_too_short_for_anybody_blames_nobody() -> None:
    # given a vendor that usually takes 2 s
    clock = ManualClock()

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await clock.sleep(2)
            return answer(200)()

    async with client(Policy(retry=None), inner=Slow(), clock=clock) as (crm, transport):
        for _ in range(5):
            asking = asyncio.create_task(crm.get("https://a.example"))
            await clock.advance(2)
            await asking

        # when the caller has one second
        with deadline_scope(1, clock):
            hurried = asyncio.create_task(crm.get("https://a.example"))
        await clock.advance(1)
        with pytest.raises(httpx.ReadTimeout):
            await hurried

        # then
        assert (circuit(transport).calls, circuit(transport).failures) == (5, 0)


async def test_without_any_time_left_nothing_is_sent() -> None:
    # given
    clock, inner = ManualClock(), Answers(answer(200))

    async with client(inner=inner, clock=clock) as (crm, transport):
        with deadline_scope(1, clock):
            await clock.advance(2)

            # when
            with pytest.raises(httpx.ConnectTimeout) as caught:
                await crm.get("https://a.example")

        # then
        assert isinstance(caught.value, NotSent)
        assert circuit(transport).calls == 0
    assert inner.requests == []


@pytest.mark.parametrize("script", [hang, stall_in_body])
async def test_cancellation_passes_and_says_nothing_of_the_vendor(script: Script) -> None:
    reached = asyncio.Event()

    async def tell(connection: Connection) -> None:
        reached.set()
        await script(connection)

    async with byte_server(tell) as server, client(timeout=None) as (crm, transport):
        # given
        asking = asyncio.create_task(crm.get(server.url))
        async with asyncio.timeout(PATIENCE):
            await reached.wait()

        # when
        asking.cancel()

        # then
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (circuit(transport).calls, circuit(transport).failures) == (0, 0)
        assert len(server.requests) == 1


async def test_a_cancelled_probe_lets_the_next_one_through() -> None:
    # given
    clock = ManualClock()
    policy = Policy(retry=None, breaker=Breaker(consecutive=1, open_for=1, probes_to_close=1))
    answers = iter([500, None, 200])

    class Once(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            status = next(answers)
            if status is None:
                await clock.sleep(100)
            return answer(status or 200)()

    async with client(policy, inner=Once(), clock=clock) as (crm, transport):
        await crm.get("https://a.example")
        await clock.advance(2)
        probe = asyncio.create_task(crm.get("https://a.example"))
        await clock.advance(0)

        # when
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe

        # then
        assert (await crm.get("https://a.example")).status_code == 200
        assert circuit(transport).state is CircuitState.CLOSED


async def test_cancelled_while_it_waits_for_another_attempt_it_closes_the_answer() -> None:
    clock, inner = ManualClock(), Answers(answer(503, *[b"x" * 1024] * 100, retry_after="9"))
    async with client(Policy(), inner=inner, clock=clock) as (crm, _):
        asking = asyncio.create_task(crm.get("https://a.example"))
        await clock.advance(1)
        assert not inner.open[0].closed
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert inner.open[0].closed


# What a client is used with.


async def test_redirects_and_cookies_stay_the_clients_business() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/":
            return httpx.Response(302, headers={"location": "/home", "set-cookie": "a=b"})
        return httpx.Response(200, text=request.headers["cookie"])

    async with client(inner=httpx.MockTransport(handle)) as (crm, _):
        response = await crm.get("https://a.example/", follow_redirects=True)
    assert (response.text, len(response.history)) == ("a=b", 1)


async def test_an_app_can_be_beneath() -> None:
    async def app(scope: object, receive: object, send: Callable[[dict[str, object]], asyncio.Future[None]]) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})

    async with client(inner=httpx.ASGITransport(app=app)) as (crm, transport):  # type: ignore[arg-type]
        assert (await crm.post("https://a.example")).content == b"made"
        assert circuit(transport).calls == 1


async def test_respx_answers_for_the_sockets() -> None:
    async with client() as (crm, _):
        with respx.mock as router:  # not using="httpx": that one puts itself in the transport's place
            # given
            route = router.get("https://a.example/").mock(
                side_effect=[httpx.ConnectError, httpx.Response(503), httpx.Response(200, json={"n": 1})]
            )

            # when
            response = await crm.get("https://a.example/")

            # then
            assert response.json() == {"n": 1}
            assert route.call_count == 3


async def test_a_respx_router_can_be_beneath() -> None:
    router = respx.Router()
    router.post("https://a.example/").mock(return_value=httpx.Response(500))
    async with client(inner=httpx.MockTransport(router.async_handler)) as (crm, transport):
        assert (await crm.post("https://a.example/")).status_code == 500
        assert circuit(transport).failures == 1
