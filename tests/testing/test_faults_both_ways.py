"""Every fault, on a real socket and in process: what holdfast's provider is told is the same."""

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import pytest

from holdfast.errors import CallFailed
from holdfast.http.errors import translate
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpxTransport, Transport
from holdfast.outcome import Cause
from holdfast.payments.provider import PaymentSnapshot
from holdfast.providers import LNbits
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import (
    FAULTS,
    AuthExpired,
    BadChunk,
    BadGzip,
    BadJson,
    Bandwidth,
    ClockSkew,
    Close,
    ConflictingLengths,
    Dialect,
    Dns,
    Dribble,
    Fault,
    GarbageStatus,
    Hang,
    Html,
    HugeHeader,
    Latency,
    RateLimited,
    Refused,
    Reset,
    Stage,
    Stall,
    Status,
    TlsError,
    Truncate,
    WrongType,
)
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Request, Response, Simulator
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.twilio import TwilioSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator
from holdfast.values import Money, Secret
from tests.http.vendors import once
from tests.providers.connection import offer_request

PATIENCE: Final = 30.0
WELL: Final = "well"
UNREADABLE: Final = (Cause.UNKNOWN, "unreadable")
PROTOCOL: Final = (Cause.UNKNOWN, "protocol")
RESET: Final = (Cause.UNKNOWN, "reset")
TIMEOUT: Final = (Cause.UNKNOWN, "timeout")

Told = tuple[Cause, str] | str

ROWS: Final[list[tuple[Fault, Told, int]]] = [
    # The fault, what the provider is told, and how often the vendor did it.
    (Dns(), (Cause.NOT_SENT, "refused"), 0),  # over a socket; in process it is told as what it is
    (Refused(), (Cause.NOT_SENT, "refused"), 0),
    (TlsError(), (Cause.NOT_SENT, "tls"), 0),
    (Status(503), (Cause.UNKNOWN, ""), 0),
    (Status(400), (Cause.REJECTED, ""), 0),
    (Status(500).after_effect(), (Cause.UNKNOWN, ""), 1),
    (RateLimited(), (Cause.THROTTLED, ""), 0),
    (AuthExpired(), (Cause.CREDENTIAL, ""), 0),
    (Reset(), RESET, 1),
    (Reset(after_bytes=40), RESET, 1),
    (Reset().before_effect(), RESET, 0),
    (Hang(), TIMEOUT, 1),
    (Hang().before_effect(), TIMEOUT, 0),
    (Hang(0), PROTOCOL, 1),
    (Close(), PROTOCOL, 1),
    (Close().before_effect(), PROTOCOL, 0),
    (Truncate(), PROTOCOL, 1),
    (BadJson(), UNREADABLE, 1),
    (WrongType(), UNREADABLE, 1),
    (WrongType("string"), UNREADABLE, 1),
    (Html(), UNREADABLE, 1),
    (BadGzip(), UNREADABLE, 1),
    (HugeHeader(), PROTOCOL, 1),
    (BadChunk(), PROTOCOL, 1),
    (GarbageStatus(), PROTOCOL, 1),
    (ConflictingLengths(), PROTOCOL, 1),
    (Dribble(), TIMEOUT, 1),
    (Dribble(1e-6), WELL, 1),
    (Stall(), TIMEOUT, 1),
    (Stall(after_bytes=200), TIMEOUT, 1),
    (Stall(seconds=0), PROTOCOL, 1),
    (Latency.constant(60), TIMEOUT, 1),
    (Latency.uniform(0, 0.001), WELL, 1),
    (Bandwidth(10), TIMEOUT, 1),
    (Bandwidth(1e6), WELL, 1),
    (ClockSkew(), WELL, 1),
]


async def told(vendor: LNbitsSimulator, url: str, transport: Transport, expected: Told) -> Told:
    """What comes of it; where time is to run out, it does once the vendor was asked, however long that took."""
    provider, clock = LNbits(base_url=url, invoice_key=Secret(vendor.invoice_key)), ManualClock()
    http = Http(provider, transport, once(clock, timeout=PATIENCE), clock)
    asking = asyncio.ensure_future(provider.create(http, offer_request(Money.from_sat(21))))
    try:
        if expected == TIMEOUT:
            async with asyncio.timeout(PATIENCE):
                while not (vendor.requests or vendor.faults.fired):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.001)
            await clock.advance(PATIENCE)
        snapshot: PaymentSnapshot = await asking
    except CallFailed as error:
        return error.cause, error.reason
    finally:
        await transport.aclose()
    assert snapshot.offer is not None
    return WELL


def suffering(fault: Fault) -> LNbitsSimulator:
    vendor = LNbitsSimulator(seed=7)
    operation = "connect" if fault.stage is Stage.BEFORE_SEND else "payments.create"
    vendor.faults.on("lnbits", operation).always(fault)
    return vendor


@pytest.mark.parametrize(("fault", "expected", "offers"), ROWS, ids=lambda value: repr(value))
async def test_a_provider_is_told_the_same_over_a_socket_and_in_process(
    fault: Fault, expected: Told, offers: int
) -> None:
    # given
    served, called = suffering(fault), suffering(fault)

    # when
    async with Edge(served) as edge:
        url = edge.url.replace("http:", "https:") if isinstance(fault, TlsError) else edge.url
        over_a_socket = await told(served, url, HttpxTransport(), expected)
    in_process = await told(called, "http://127.0.0.1", InProcess(called), expected)

    # then
    assert over_a_socket == expected
    assert in_process == ((Cause.NOT_SENT, "dns") if isinstance(fault, Dns) else expected)
    assert [len(vendor.ledger) for vendor in (served, called)] == [offers, offers]
    assert served.faults.fired.keys() == called.faults.fired.keys()


def test_no_fault_is_left_out() -> None:
    assert {fault.kind for fault, _, _ in ROWS} == FAULTS.keys()


async def test_in_process_a_name_that_is_not_found_is_what_httpx_makes_of_it() -> None:
    # given
    error = httpx.ConnectError("")
    error.__cause__ = socket.gaierror()

    # when
    vendor = suffering(Dns())
    with pytest.raises(CallFailed) as caught:
        await InProcess(vendor).send(HttpRequest(method="GET", url="http://127.0.0.1/"))

    # then
    expected = translate(error)
    assert (str(caught.value), caught.value.reason) == (str(expected), expected.reason)


# What httpx itself makes of the bytes


WIRE: Final[list[tuple[Fault, type[Exception] | None]]] = [
    (Refused(), httpx.ConnectError),
    (Dns(), httpx.ConnectError),
    (TlsError(), httpx.ConnectError),
    (Reset(), httpx.ReadError),
    (Reset(after_bytes=300), httpx.ReadError),
    (Close(), httpx.RemoteProtocolError),
    (Truncate(), httpx.RemoteProtocolError),
    (BadChunk(), httpx.RemoteProtocolError),
    (GarbageStatus(), httpx.RemoteProtocolError),
    (HugeHeader(), httpx.RemoteProtocolError),
    (ConflictingLengths(), httpx.RemoteProtocolError),
    (Hang(), httpx.ReadTimeout),
    (Stall(), httpx.ReadTimeout),
    (Stall(after_bytes=300), httpx.ReadTimeout),
    (BadGzip(), httpx.DecodingError),
    (BadJson(), None),
    (WrongType(), None),
    (Html(), None),
    (Dribble(0.0005), None),
]


@pytest.mark.parametrize(("fault", "error"), WIRE, ids=repr)
async def test_the_wire_breaks_as_was_measured(fault: Fault, error: type[Exception] | None) -> None:
    # given
    vendor = suffering(fault)
    asked = {"json": {"out": False, "amount": 21}, "headers": {"x-api-key": vendor.invoice_key}}

    # when
    limits = httpx.Timeout(PATIENCE, read=0.25 if error is httpx.ReadTimeout else PATIENCE)
    async with Edge(vendor) as edge, httpx.AsyncClient(timeout=limits, trust_env=False) as client:
        url = edge.url.replace("http:", "https:") if isinstance(fault, TlsError) else edge.url
        try:
            answer = await client.post(f"{url}/api/v1/payments", **asked)  # type: ignore[arg-type]  # as httpx has them
        except httpx.HTTPError as raised:
            found: type[Exception] | None = type(raised)
        else:
            found = None
            assert answer.is_success

    # then
    assert found is error


async def test_what_resists_a_read_timeout_takes_as_long_as_it_says() -> None:
    # given
    clock = ManualClock()
    vendor = LNbitsSimulator(seed=7, clock=clock)
    vendor.faults.on("lnbits", "payments.quote").script(Dribble(0.5), None)
    vendor.faults.on("lnbits", "payments.quote").at(1, Bandwidth(10))
    request = Request(method="GET", target="/api/v1/rate/CHF")

    # when
    dribbled, slow = vendor.exchange(request), vendor.exchange(request)

    # then
    length = len(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n") + 31
    assert dribbled.lasts == pytest.approx(length * 0.5, rel=0.05)
    assert slow.lasts == pytest.approx(length / 10, rel=0.05)


# In the vendor's words


NOW: Final = datetime(2026, 3, 2, 12, 0, 0, 400_000, tzinfo=UTC)


def limited(dialect: Dialect, vendor: type[Simulator] = StripeSimulator) -> dict[str, str]:
    simulator = vendor(seed=7, clock=ManualClock(NOW))
    simulator.faults.on(simulator.vendor).always(RateLimited(1.5, dialect))
    response = simulator.exchange(Request(method="GET", target="/v1/charges")).response
    assert response is not None
    assert response.status == 429
    assert sum(name in ("retry-after", "retry-after-ms") for name, _ in response.headers) < 2
    return dict(response.headers) | {"body": response.body.decode()}


def test_a_limit_is_told_in_every_dialect() -> None:
    assert limited("seconds")["retry-after"] == "2"
    assert limited("milliseconds")["retry-after-ms"] == "1500"
    assert limited("x-ratelimit-reset")["x-ratelimit-reset"] == str(int(NOW.timestamp()) + 2)
    assert not {"retry-after", "retry-after-ms", "x-ratelimit-reset"} & limited("none").keys()


def test_a_limit_told_as_a_date_is_never_too_short() -> None:
    headers = limited("http-date")
    assert parsedate_to_datetime(headers["retry-after"]) >= NOW + timedelta(seconds=1.5)
    assert parsedate_to_datetime(headers["date"]) <= NOW


def test_a_limit_is_told_as_the_vendor_tells_it() -> None:
    assert json.loads(limited("vendor", TelegramSimulator)["body"])["parameters"] == {"retry_after": 2}
    assert limited("vendor", SlackSimulator)["retry-after"] == "2"
    assert json.loads(limited("vendor", TwilioSimulator)["body"])["code"] == 20429
    assert json.loads(limited("none")["body"])["error"]["code"] == "rate_limit"


def test_a_token_that_expires_has_really_expired() -> None:
    # given
    zoom = ZoomSimulator(seed=7)
    zoom.faults.on("zoom", "meetings.find").script(AuthExpired(), None, None)

    def ask(method: str, target: str, authorization: str) -> Response:
        response = zoom.exchange(Request(method=method, target=target, headers=(("authorization", authorization),)))
        assert response.response is not None
        return response.response

    def token() -> str:
        basic = "Basic em9vbS1jbGllbnQ6em9vbS1jbGllbnQtc2VjcmV0"  # zoom-client:zoom-client-secret
        found = ask("POST", "/oauth/token?grant_type=account_credentials&account_id=zoom-account", basic)
        return str(json.loads(found.body)["access_token"])

    # when
    old = f"Bearer {token()}"
    answers = [ask("GET", "/v2/users/me/meetings", old) for _ in range(2)]
    answers.append(ask("GET", "/v2/users/me/meetings", f"Bearer {token()}"))

    # then
    assert [answer.status for answer in answers] == [401, 401, 200]
    assert json.loads(answers[0].body) == {"code": 124, "message": "Access token is expired."}


def test_slacks_rotated_token_expires_as_slack_says_it() -> None:
    slack = SlackSimulator(seed=7, token_life=3600)
    slack.faults.on("slack", "auth.test").script(AuthExpired())
    asked = Request(method="POST", target="/api/auth.test", headers=(("authorization", f"Bearer {slack.bot_token}"),))
    answers = [slack.exchange(asked).response for _ in range(2)]
    assert [json.loads(answer.body)["error"] for answer in answers if answer] == ["token_expired"] * 2


@pytest.mark.parametrize(
    ("simulator", "request_", "words"),
    [
        (
            StripeSimulator(seed=7, api_key="sk_test_1"),
            Request(method="GET", target="/v1/charges", headers=(("authorization", "Bearer sk_test_1"),)),
            "Invalid API Key provided",
        ),
        (
            TelegramSimulator(seed=7),
            Request(method="GET", target=f"/bot{TelegramSimulator.bot_token}/getMe"),
            "Unauthorized",
        ),
    ],
    ids=lambda value: getattr(value, "vendor", None),
)
def test_a_key_that_does_not_expire_is_refused_once_as_the_vendor_refuses_keys(
    simulator: Simulator, request_: Request, words: str
) -> None:
    # given
    operation = simulator.operation(request_)
    simulator.faults.on(simulator.vendor, operation).script(AuthExpired())

    # when
    refused, after = simulator.exchange(request_).response, simulator.exchange(request_).response

    # then
    assert refused is not None
    assert after is not None
    assert refused.status == 401
    assert words in refused.body.decode()
    assert after.status == 200


def test_a_wrong_clock_is_in_the_date_of_every_answer() -> None:
    # given
    vendor = LNbitsSimulator(seed=7, clock=ManualClock(NOW))
    vendor.faults.on("lnbits").always(ClockSkew(-600))
    vendor.faults.on("lnbits", "payments.quote").script(Status(503))

    # when
    answers = [vendor.exchange(Request(method="GET", target="/api/v1/rate/CHF")).response for _ in range(2)]

    # then
    dates = {dict(answer.headers)["date"] for answer in answers if answer}
    assert dates == {"Mon, 02 Mar 2026 11:50:00 GMT"}


@pytest.mark.parametrize(
    ("fault", "body", "broken"),
    [
        (BadJson(), b'{"a":1}', b'{"a":'),
        (BadJson(), b"123", b'{"'),
        (BadJson(), b"", b'{"'),
        (WrongType(), b'{"a":1}', b'[{"a":1}]'),
        (WrongType(), b"[]", b"{}"),
        (WrongType("string"), b'{"a":1}', b'"{\\"a\\":1}"'),
    ],
)
def test_a_body_is_broken_whatever_it_was(fault: Fault, body: bytes, broken: bytes) -> None:
    # given
    class Plain(LNbitsSimulator):
        def answer(self, request: Request) -> Response:
            return Response(status=204 if not body else 200, body=body)

    vendor = Plain(seed=7)
    vendor.faults.on("lnbits").always(fault)

    # when
    response = vendor.exchange(Request(method="GET", target="/api/v1/rate/CHF")).response

    # then
    assert response is not None
    assert (response.status, response.body) == (200, broken)


# Turns of the loop, where a crash can strike


class Crash(BaseException):
    """What `kill -9` is to a coroutine."""


class Counting(ManualClock):
    """Dies at the turn it is told to."""

    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.turns = 0
        self._dies_at = dies_at

    async def sleep(self, seconds: float) -> None:
        if self.turns == self._dies_at:
            raise Crash
        self.turns += 1
        await super().sleep(seconds)


@pytest.mark.parametrize(("dies_at", "offers"), [(0, 0), (1, 1)])
async def test_in_process_one_turn_passes_before_the_effect_and_one_after_it(dies_at: int, offers: int) -> None:
    # given
    vendor = LNbitsSimulator(seed=7, clock=Counting(dies_at))
    request = HttpRequest(
        method="POST",
        url="http://127.0.0.1/api/v1/payments",
        headers=[("x-api-key", vendor.invoice_key)],
        content=b'{"out":false,"amount":21}',
    )

    # when
    with pytest.raises(Crash):
        await InProcess(vendor).send(request)

    # then
    assert len(vendor.ledger) == offers
