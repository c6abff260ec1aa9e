"""Official SDKs, real ones, in a guard, against a server on loopback that fails as it is told."""

import asyncio
import copy
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs

import aiohttp
import boto3  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]
import pytest
import requests
import slack_sdk
import slack_sdk.errors
import slack_sdk.web.async_client
import stripe
import twilio.base.exceptions  # type: ignore[import-untyped]
import twilio.http.async_http_client  # type: ignore[import-untyped]
import twilio.http.http_client  # type: ignore[import-untyped]
import twilio.rest  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from holdfast.errors import (
    CallFailed,
    CircuitOpen,
    CredentialRefused,
    InvalidInput,
    NotSent,
    OnHold,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.outcome import Cause, Effect
from holdfast.resilience.both import both
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.resilience.protect import guard_of, protect
from holdfast.resilience.sdks import SDKS
from holdfast.telemetry import CallFinished, Signal, Telemetry
from holdfast.testing.clock import ManualClock

RESET = "the connection is reset once the request is read"
SILENCE = "the request is read and never answered"
CALM = Policy(breaker=None)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: object = field(default_factory=dict[str, object])
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Seen:
    """A request as it arrived: what it may have done is done."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


class Vendor:
    """A server that answers from a script, the last line for ever."""

    def __init__(self) -> None:
        self.script: list[Answer | str] = [Answer()]
        self.seen: list[Seen] = []
        self.over = threading.Event()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                vendor.seen.append(Seen(self.command, self.path, headers, body))
                answer = vendor.script.pop(0) if len(vendor.script) > 1 else vendor.script[0]
                self.close_connection = True
                if isinstance(answer, str):
                    if answer == SILENCE:
                        vendor.over.wait(30)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.connection.close()
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in ({"content-type": "application/json"} | answer.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a reset connection is what was asked for

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def says(self, *script: Answer | str) -> None:
        self.script = list(script)

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with closing(Vendor()) as vendor:
        yield vendor


@pytest.fixture
def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Hurried(ManualClock):
    """Waiting takes no time: the server is real, the waits are not."""

    async def sleep(self, seconds: float) -> None:
        self.pause(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return Hurried()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no credential, no setting of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "AWS_PROFILE", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


# stripe


INTENT = Answer(200, {"id": "pi_1", "object": "payment_intent", "amount": 12000})


def stripe_error(status: int, kind: str, code: str = "", **headers: str) -> Answer:
    error = {"type": kind, "code": code, "message": "No."}
    return Answer(
        status, {"error": error}, {"request-id": "req_1"} | {n.replace("_", "-"): v for n, v in headers.items()}
    )


@pytest.fixture
def stripe_at(clock: ManualClock) -> Iterator[Callable[..., stripe.StripeClient]]:
    session = requests.Session()

    def make(url: str, policy: Policy = CALM, **options: Any) -> stripe.StripeClient:
        client = stripe.StripeClient(
            "sk_test_4711",
            base_addresses={"api": url, "connect": url},
            http_client=stripe.RequestsClient(session=session, timeout=30),
            max_network_retries=2,
        )
        return protect(client, "stripe", policy, clock=clock, **options)

    yield make
    session.close()


@pytest.fixture
def shop(vendor: Vendor, stripe_at: Callable[..., stripe.StripeClient]) -> stripe.StripeClient:
    return stripe_at(vendor.url)


def test_a_lost_answer_is_asked_for_again_with_the_same_key(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(RESET, INTENT)

    intent = shop.v1.payment_intents.create({"amount": 12000, "currency": "chf"})

    assert intent.id == "pi_1"
    first, second = vendor.seen
    assert first.key
    assert first.key == second.key
    assert parse_qs(first.body) == parse_qs(second.body)


def test_two_calls_have_two_keys(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(INTENT)

    shop.v1.payment_intents.create({"amount": 12000, "currency": "chf"})
    shop.v1.payment_intents.create({"amount": 12000, "currency": "chf"})

    assert len({seen.key for seen in vendor.seen}) == 2


def test_the_callers_own_key_is_kept(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(Answer(500, {}), INTENT)

    shop.v1.payment_intents.create({"amount": 1, "currency": "chf"}, options={"idempotency_key": "consultation-4711"})

    assert [seen.key for seen in vendor.seen] == ["consultation-4711"] * 2


def test_options_by_position_keep_their_place(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(INTENT)

    shop.v1.payment_intents.capture("pi_1", {"amount_to_capture": 5}, {"stripe_account": "acct_1"})

    [seen] = vendor.seen
    assert seen.path == "/v1/payment_intents/pi_1/capture"
    assert seen.headers["stripe-account"] == "acct_1"
    assert seen.key


def test_the_sdk_does_not_retry_beneath_the_guard(
    vendor: Vendor, stripe_at: Callable[..., stripe.StripeClient]
) -> None:
    shop = stripe_at(vendor.url, Policy(breaker=None, retry=None))
    vendor.says(Answer(500, {}))

    with pytest.raises(OutcomeUnknown):
        shop.v1.payment_intents.create({"amount": 1, "currency": "chf"})

    assert len(vendor.seen) == 1  # though the client was made with max_network_retries=2


def test_a_declined_card_is_final_and_still_a_card_error(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(stripe_error(402, "card_error", "card_declined"))

    with pytest.raises(stripe.CardError) as caught:
        shop.v1.payment_intents.create({"amount": 1, "currency": "chf", "confirm": True})

    error = caught.value
    assert isinstance(error, Rejected)
    assert (error.code, error.http_status, error.request_id, error.user_message) == (
        "card_declined",
        402,
        "req_1",
        "No.",
    )
    assert (error.provider, error.operation, error.reason) == ("stripe", "v1.payment_intents.create", "card_declined")
    assert str(error) == "Request req_1: No."
    assert isinstance(error.__cause__, stripe.CardError)
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(
    ("answer", "ours", "theirs", "asked"),
    [
        (stripe_error(400, "invalid_request_error", "parameter_missing"), Rejected, stripe.InvalidRequestError, 1),
        (stripe_error(400, "idempotency_error"), Rejected, stripe.IdempotencyError, 1),
        (stripe_error(401, "invalid_request_error"), CredentialRefused, stripe.AuthenticationError, 1),
        (stripe_error(403, "invalid_request_error"), CredentialRefused, stripe.PermissionError, 1),
        (stripe_error(404, "invalid_request_error", "resource_missing"), Rejected, stripe.InvalidRequestError, 1),
        (stripe_error(409, "idempotency_error", "idempotency_key_in_use"), Refused, stripe.APIError, 3),
        (stripe_error(429, "invalid_request_error", "rate_limit"), Throttled, stripe.RateLimitError, 3),
        (stripe_error(500, "api_error"), OutcomeUnknown, stripe.APIError, 3),
        (stripe_error(500, "api_error", stripe_should_retry="false"), OutcomeUnknown, stripe.APIError, 1),
        (Answer(503, b"<html>"), OutcomeUnknown, stripe.APIError, 3),
        (Answer(200, b"<html>"), OutcomeUnknown, stripe.APIError, 3),
        (RESET, OutcomeUnknown, stripe.APIConnectionError, 3),
    ],
)
def test_what_stripes_errors_mean(
    vendor: Vendor,
    shop: stripe.StripeClient,
    answer: Answer | str,
    ours: type[CallFailed],
    theirs: type[stripe.StripeError],
    asked: int,
) -> None:
    vendor.says(answer)

    with pytest.raises(ours) as caught:
        shop.v1.refunds.create({"payment_intent": "pi_1"})

    assert isinstance(caught.value, theirs)
    assert len(vendor.seen) == asked
    assert len({seen.key for seen in vendor.seen}) == 1


def test_an_unknown_outcome_names_its_key(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown) as caught:
        shop.v1.refunds.create({"payment_intent": "pi_1"})

    assert f"asking again has no second effect with the same key: {vendor.seen[0].key}" in caught.value.__notes__


def test_a_refusal_after_a_lost_answer_is_not_passed_off_as_nothing_happened(
    vendor: Vendor, shop: stripe.StripeClient
) -> None:
    vendor.says(RESET, stripe_error(429, "invalid_request_error"))

    with pytest.raises(OutcomeUnknown) as caught:
        shop.v1.refunds.create({"payment_intent": "pi_1"})

    assert isinstance(caught.value, stripe.APIConnectionError)
    assert not isinstance(caught.value, stripe.RateLimitError)


def test_retry_after_is_waited_for(vendor: Vendor, shop: stripe.StripeClient, clock: ManualClock) -> None:
    vendor.says(stripe_error(429, "invalid_request_error", retry_after="7"), INTENT)

    shop.v1.payment_intents.retrieve("pi_1")

    assert clock.monotonic() >= 7


def test_nobody_listens_so_nothing_was_sent(stripe_at: Callable[..., stripe.StripeClient], nowhere: str) -> None:
    with pytest.raises(NotSent) as caught:
        stripe_at(nowhere).v1.refunds.create({"payment_intent": "pi_1"})

    assert isinstance(caught.value, stripe.APIConnectionError)
    assert caught.value.hard


def test_an_open_circuit_is_the_sdks_own_error_too(
    vendor: Vendor, stripe_at: Callable[..., stripe.StripeClient]
) -> None:
    shop = stripe_at(vendor.url, Policy(retry=None, breaker=Breaker(consecutive=1)))
    vendor.says(RESET)
    with pytest.raises(OutcomeUnknown):
        shop.v1.payment_intents.retrieve("pi_1")

    with pytest.raises(stripe.APIConnectionError) as caught:
        shop.v1.payment_intents.retrieve("pi_1")

    assert isinstance(caught.value, CircuitOpen)
    assert str(caught.value) == str(caught.value.user_message)
    assert caught.value.retry_after is not None
    assert len(vendor.seen) == 1


def test_a_deleted_object_may_be_deleted_again(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(RESET, Answer(200, {"id": "cus_1", "object": "customer", "deleted": True}))

    assert shop.v1.customers.delete("cus_1").deleted
    assert [seen.method for seen in vendor.seen] == ["DELETE", "DELETE"]


@pytest.mark.parametrize(("method", "keyed"), [("get", False), ("post", True), ("delete", False)])
def test_a_raw_request_is_judged_by_its_method(
    vendor: Vendor, shop: stripe.StripeClient, method: str, keyed: bool
) -> None:
    vendor.says(RESET, Answer(200, {"id": "x"}))

    shop.raw_request(method, "/v1/anything")

    assert len(vendor.seen) == 2
    assert [bool(seen.key) for seen in vendor.seen] == [keyed] * 2


def test_a_code_of_oauth_is_used_once(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown):
        shop.oauth.token({"grant_type": "authorization_code", "code": "ac_1"})

    assert len(vendor.seen) == 1


STRIPE_OVER_HTTPX = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@STRIPE_OVER_HTTPX
async def test_an_async_call_is_guarded_too(vendor: Vendor, clock: ManualClock) -> None:
    transport = stripe.HTTPXClient(timeout=30, allow_sync_methods=False)
    shop = protect(
        stripe.StripeClient("sk_test_4711", base_addresses={"api": vendor.url}, http_client=transport),
        "stripe",
        CALM,
        clock=clock,
    )
    vendor.says(RESET, stripe_error(500, "api_error"), INTENT)

    intent = await shop.v1.payment_intents.create_async({"amount": 1, "currency": "chf"})
    vendor.says(stripe_error(402, "card_error", "expired_card"))
    with pytest.raises(stripe.CardError) as caught:
        await shop.v1.payment_intents.confirm_async("pi_1")
    await transport.close_async()  # type: ignore[no-untyped-call]

    assert intent.id == "pi_1"
    assert len({seen.key for seen in vendor.seen[:3]}) == 1
    assert isinstance(caught.value, Rejected)
    assert caught.value.operation == "v1.payment_intents.confirm"


async def test_an_async_attempt_ends_with_the_policys_timeout(vendor: Vendor) -> None:
    transport, clock = stripe.HTTPXClient(timeout=30, allow_sync_methods=False), ManualClock()
    shop = protect(
        stripe.StripeClient("sk_test_4711", base_addresses={"api": vendor.url}, http_client=transport),
        "stripe",
        Policy(timeout=5, retry=None),
        clock=clock,
    )
    vendor.says(SILENCE)

    asking = asyncio.ensure_future(shop.v1.payment_intents.retrieve_async("pi_1"))
    while not vendor.seen:  # noqa: ASYNC110  # in another thread
        await asyncio.sleep(0.01)
    await clock.advance(5)
    with pytest.raises(stripe.APIConnectionError) as caught:
        await asking
    await transport.close_async()  # type: ignore[no-untyped-call]

    assert isinstance(caught.value, OutcomeUnknown)
    assert caught.value.reason == "timeout"


def test_a_webhook_is_checked_without_the_guard(shop: stripe.StripeClient) -> None:
    with pytest.raises(stripe.SignatureVerificationError) as caught:
        shop.construct_event(b"{}", "t=1,v1=0", "whsec_4711")

    assert not isinstance(caught.value, CallFailed)
    assert guard_of(shop).snapshot().operations == {}


# slack_sdk


POSTED = Answer(200, {"ok": True, "ts": "1.2", "channel": "C1"})


def slack_at(url: str, clock: ManualClock, policy: Policy = CALM, **options: Any) -> slack_sdk.WebClient:
    client = slack_sdk.WebClient("xoxb-4711-secret", base_url=f"{url}/api/", timeout=30, retry_handlers=[])
    return protect(client, "slack", policy, clock=clock, **options)


@pytest.fixture
def slack(vendor: Vendor, clock: ManualClock) -> slack_sdk.WebClient:
    return slack_at(vendor.url, clock)


def test_a_message_whose_answer_is_lost_is_not_posted_again(vendor: Vendor, slack: slack_sdk.WebClient) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown) as caught:
        slack.chat_postMessage(channel="C1", text="Your consultation begins.")

    assert isinstance(caught.value, ConnectionResetError)  # what slack_sdk itself lets through
    assert len(vendor.seen) == 1


def test_a_throttled_message_is_posted_after_the_pause(
    vendor: Vendor, slack: slack_sdk.WebClient, clock: ManualClock
) -> None:
    vendor.says(Answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "9"}), POSTED)

    posted = slack.chat_postMessage(channel="C1", text="Hello")

    assert posted["ts"] == "1.2"
    assert clock.monotonic() >= 9


def test_a_throttled_method_pauses_alone(vendor: Vendor, clock: ManualClock) -> None:
    slack = slack_at(vendor.url, clock, Policy(breaker=None, deadline=2))
    vendor.says(Answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "60"}), POSTED)

    with pytest.raises(Throttled):
        slack.chat_postMessage(channel="C1", text="Hello")
    with pytest.raises(OnHold):
        slack.chat_postMessage(channel="C1", text="Hello")
    slack.chat_update(channel="C1", ts="1.2", text="Hello")

    assert [seen.path for seen in vendor.seen] == ["/api/chat.postMessage", "/api/chat.update"]


def test_a_look_up_is_repeated(vendor: Vendor, slack: slack_sdk.WebClient) -> None:
    vendor.says(RESET, Answer(500, {}), Answer(200, {"ok": True, "channels": []}))

    assert slack.conversations_list()["channels"] == []
    assert len(vendor.seen) == 3


@pytest.mark.parametrize(
    ("answer", "ours"),
    [
        (Answer(200, {"ok": False, "error": "channel_not_found"}), Rejected),
        (Answer(200, {"ok": False, "error": "token_revoked"}), CredentialRefused),
        (Answer(200, {"ok": False, "error": "internal_error"}), OutcomeUnknown),
        (Answer(200, {"ok": False, "error": "ratelimited"}), Throttled),
        (Answer(200, b"<html> busy </html>", {"content-type": "text/html"}), OutcomeUnknown),
        (Answer(500, {}), OutcomeUnknown),
        (Answer(404, {}), Rejected),
    ],
)
def test_what_slacks_errors_mean(
    vendor: Vendor, slack: slack_sdk.WebClient, answer: Answer, ours: type[CallFailed]
) -> None:
    vendor.says(answer)

    with pytest.raises(slack_sdk.errors.SlackApiError) as caught:
        slack.chat_postMessage(channel="C1", text="Hello")

    assert type(caught.value).__mro__[2] is ours
    assert caught.value.response.status_code == answer.status


def test_a_raw_api_call_is_judged_by_its_name(vendor: Vendor, slack: slack_sdk.WebClient) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown):
        slack.api_call("chat.postMessage", json={"channel": "C1"})
    posted = len(vendor.seen)
    with pytest.raises(OutcomeUnknown):
        slack.api_call("conversations.info", params={"channel": "C1"})

    assert (posted, len(vendor.seen) - posted) == (1, 3)


@pytest.mark.parametrize("name", ["chat.postMessage", "chat_postMessage"])
def test_an_effect_is_corrected_by_the_caller(vendor: Vendor, clock: ManualClock, name: str) -> None:
    slack = slack_at(vendor.url, clock, effects={name: Effect.IDEMPOTENT})
    vendor.says(RESET, POSTED)

    assert slack.chat_postMessage(channel="C1", text="Twice is fine")["ok"]


def test_no_connection_is_proof_for_slack_too(clock: ManualClock, nowhere: str) -> None:
    with pytest.raises(URLError) as caught:
        slack_at(nowhere, clock).chat_postMessage(channel="C1", text="Hello")

    assert isinstance(caught.value, NotSent)
    assert isinstance(caught.value.reason, ConnectionRefusedError)  # theirs, for that is what is read of a URLError


async def test_an_async_message_is_not_posted_twice(vendor: Vendor, clock: ManualClock) -> None:
    client = slack_sdk.web.async_client.AsyncWebClient(
        "xoxb-4711-secret", base_url=f"{vendor.url}/api/", retry_handlers=[]
    )
    slack = protect(client, "slack", CALM, clock=clock)
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown):
        await slack.chat_postMessage(channel="C1", text="Hello")
    posted = len(vendor.seen)
    vendor.says(Answer(200, {"ok": False, "error": "not_in_channel"}))
    with pytest.raises(slack_sdk.errors.SlackApiError) as caught:
        await slack.chat_postMessage(channel="C1", text="Hello")

    with pytest.raises(slack_sdk.errors.SlackApiError):
        await slack.users_setPhoto(image=io.BytesIO(b"face"))
    vendor.says(POSTED)
    photo = await slack.users_setPhoto(image=io.BytesIO(b"face"))

    assert posted == 1
    assert isinstance(caught.value, Rejected)
    assert photo["ok"]


def test_every_method_of_the_async_client_is_awaited_in_the_guard() -> None:
    [sdk] = [each for each in SDKS if each.name == "slack_sdk"]
    client = slack_sdk.web.async_client.AsyncWebClient("xoxb-4711-secret")

    plain = [
        name
        for name in dir(client)
        if not name.startswith("_")
        and sdk.is_exchange(client, name)
        and not asyncio.iscoroutinefunction(getattr(client, name))
    ]

    assert plain == []


# twilio


SENT = Answer(201, {"sid": "SM1", "status": "queued"})


def twilio_error(status: int, code: int) -> Answer:
    return Answer(status, {"code": code, "message": "No.", "status": status})


@pytest.fixture
def phone(vendor: Vendor, clock: ManualClock) -> Iterator[twilio.rest.Client]:
    http = twilio.http.http_client.TwilioHttpClient(timeout=30)
    client = twilio.rest.Client("AC1", "4711-secret", http_client=http)
    client.api.base_url = vendor.url
    yield protect(client, "twilio", CALM, clock=clock)
    assert http.session is not None
    http.session.close()


def test_a_text_whose_answer_is_lost_is_not_sent_again(vendor: Vendor, phone: twilio.rest.Client) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown) as caught:
        phone.messages.create(to="+41790000000", from_="+41791111111", body="Hello")

    assert isinstance(caught.value, requests.ConnectionError)
    assert len(vendor.seen) == 1


def test_a_success_that_cannot_be_read_is_unknown(vendor: Vendor, phone: twilio.rest.Client) -> None:
    vendor.says(Answer(201, b"{"))

    with pytest.raises(OutcomeUnknown) as caught:
        phone.messages.create(to="+41790000000", from_="+41791111111", body="Hello")

    assert isinstance(caught.value, json.JSONDecodeError)
    assert len(vendor.seen) == 1


def test_a_part_that_is_called_stays_protected(vendor: Vendor, phone: twilio.rest.Client) -> None:
    vendor.says(RESET, Answer(200, {"sid": "SM1", "status": "sent"}))

    by_call = phone.messages("SM1").fetch()
    by_get = phone.messages.get("SM1").fetch()

    assert (by_call.status, by_get.status) == ("sent", "sent")
    assert len(vendor.seen) == 3
    assert guard_of(phone).snapshot().operations["messages.fetch"].attempts == 3


@pytest.mark.parametrize(
    ("answer", "ours", "asked"),
    [
        (twilio_error(400, 21610), Rejected, 1),
        (twilio_error(401, 20003), CredentialRefused, 1),
        (twilio_error(429, 20429), Throttled, 3),
        (twilio_error(500, 20500), OutcomeUnknown, 1),
        (Answer(503, b"<html>"), OutcomeUnknown, 1),
    ],
)
def test_what_twilios_errors_mean(
    vendor: Vendor, phone: twilio.rest.Client, answer: Answer, ours: type[CallFailed], asked: int
) -> None:
    vendor.says(answer)

    with pytest.raises(twilio.base.exceptions.TwilioRestException) as caught:
        phone.messages.create(to="+41790000000", from_="+41791111111", body="Hello")

    assert type(caught.value).__mro__[2] is ours
    assert caught.value.status == answer.status
    assert len(vendor.seen) == asked


def test_twilios_code_stays_a_number(vendor: Vendor, phone: twilio.rest.Client) -> None:
    vendor.says(twilio_error(400, 21610))

    with pytest.raises(Rejected) as caught:
        phone.messages.create(to="+41790000000", from_="+41791111111", body="Hello")

    assert caught.value.code == 21610  # type: ignore[comparison-overlap]  # theirs wins, for handlers compare it
    assert caught.value.reason == "recipient_gone"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # twilio's own, of aiohttp
async def test_an_async_text_is_not_sent_again(vendor: Vendor, clock: ManualClock) -> None:
    async with twilio.http.async_http_client.AsyncTwilioHttpClient(timeout=30) as http:
        client = twilio.rest.Client("AC1", "4711-secret", http_client=http)
        client.api.base_url = vendor.url
        phone = protect(client, "twilio", CALM, clock=clock)
        vendor.says(RESET, Answer(200, {"sid": "SM1", "status": "sent"}))

        with pytest.raises(OutcomeUnknown) as caught:
            await phone.messages.create_async(to="+41790000000", from_="+41791111111", body="Hello")
        vendor.says(RESET, Answer(200, {"sid": "SM1", "status": "sent"}))
        fetched = await phone.messages("SM1").fetch_async()

    assert isinstance(caught.value, aiohttp.ClientError)
    assert fetched.status == "sent"
    assert len(vendor.seen) == 3


async def test_an_async_client_that_retries_by_itself_is_refused() -> None:
    async with twilio.http.async_http_client.AsyncTwilioHttpClient(max_retries=2) as http:
        with pytest.raises(InvalidInput, match="AsyncTwilioHttpClient"):
            protect(twilio.rest.Client("AC1", "4711-secret", http_client=http), "twilio")


@pytest.mark.parametrize(("method", "asked"), [("GET", 3), ("POST", 1), ("DELETE", 3)])
def test_a_raw_request_of_twilios_is_judged_by_its_method(
    vendor: Vendor, phone: twilio.rest.Client, method: str, asked: int
) -> None:
    vendor.says(Answer(503, b"busy"))

    answer = phone.request(method, f"{vendor.url}/2010-04-01/Anything.json")

    assert (answer.status_code, answer.text) == (503, "busy")
    assert len(vendor.seen) == asked


# boto3


def aws(service: str, url: str, **config: Any) -> Any:
    return boto3.client(
        service,
        region_name="eu-central-2",
        endpoint_url=url,
        aws_access_key_id="AKIA4711",
        aws_secret_access_key="secret-4711",
        config=Config(**({"retries": {"total_max_attempts": 1}, "read_timeout": 5} | config)),
    )


def aws_error(status: int, code: str, **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    return Answer(status, body, {"content-type": "application/xml", "x-amz-request-id": "R1"} | headers)


@pytest.fixture
def s3(vendor: Vendor, clock: ManualClock) -> Iterator[Any]:
    client = aws("s3", vendor.url, s3={"addressing_style": "path"})
    yield protect(client, "s3", CALM, clock=clock)
    client.close()


def test_an_object_is_read_again_and_put_once(vendor: Vendor, s3: Any) -> None:
    vendor.says(RESET, Answer(200, b""))
    s3.head_object(Bucket="records", Key="a")
    looked = len(vendor.seen)
    vendor.says(RESET)

    with pytest.raises(botocore.exceptions.ConnectionClosedError) as caught:
        s3.put_object(Bucket="records", Key="a", Body=b"scan")

    assert isinstance(caught.value, OutcomeUnknown)
    assert (looked, len(vendor.seen) - looked) == (2, 1)


def test_a_file_that_was_read_is_not_sent_again(vendor: Vendor, clock: ManualClock) -> None:
    client = aws("s3", vendor.url)
    s3 = protect(client, "s3", CALM, clock=clock, effects={"put_object": Effect.IDEMPOTENT})
    vendor.says(aws_error(503, "SlowDown"), aws_error(503, "SlowDown"), Answer(200, b""))

    with pytest.raises(Throttled):
        s3.put_object(Bucket="records", Key="a", Body=io.BytesIO(b"scan"))
    s3.put_object(Bucket="records", Key="a", Body=b"scan")
    client.close()

    assert [seen.body for seen in vendor.seen[1:]] == [b"scan"] * 2


@pytest.mark.parametrize(
    ("answer", "ours", "asked"),
    [
        (aws_error(404, "NoSuchBucket"), Rejected, 1),
        (aws_error(403, "AccessDenied"), Rejected, 1),
        (aws_error(403, "InvalidAccessKeyId"), CredentialRefused, 1),
        (aws_error(503, "SlowDown"), Throttled, 3),
        (aws_error(500, "InternalError"), OutcomeUnknown, 3),
        (aws_error(400, "RequestTimeout"), OutcomeUnknown, 3),
    ],
)
def test_what_botocores_errors_mean(
    vendor: Vendor, s3: Any, answer: Answer, ours: type[CallFailed], asked: int
) -> None:
    vendor.says(answer)

    with pytest.raises(botocore.exceptions.ClientError) as caught:
        s3.list_objects_v2(Bucket="records")

    error: Any = caught.value
    assert type(error).__mro__[2] is ours
    assert error.response["Error"]["Code"] == error.code
    assert (error.status, error.request_id) == (answer.status, "R1")
    assert len(vendor.seen) == asked


def test_an_error_class_of_the_client_still_catches(vendor: Vendor, s3: Any) -> None:
    vendor.says(aws_error(404, "NoSuchBucket"))

    with pytest.raises(s3.exceptions.NoSuchBucket) as caught:
        s3.list_objects_v2(Bucket="records")

    back = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(back, Rejected)
    assert isinstance(back, botocore.exceptions.ClientError)  # NoSuchBucket is made as boto3 goes: nobody can import it
    assert back.response["Error"]["Code"] == "NoSuchBucket"


def test_the_token_a_service_declares_makes_a_call_keyed(vendor: Vendor, clock: ManualClock) -> None:
    client = aws("secretsmanager", vendor.url)
    vault = protect(client, "vault", CALM, clock=clock)
    vendor.says(RESET, Answer(200, {"ARN": "arn:1"}))

    vault.create_secret(Name="db", SecretString="x")
    vendor.says(Answer(200, {"ARN": "arn:1"}))
    vault.create_secret(Name="db", SecretString="x", ClientRequestToken="my-own-token-4711-4711-4711-4711")
    client.close()

    first, second, own = (json.loads(seen.body)["ClientRequestToken"] for seen in vendor.seen)
    assert first == second
    assert own == "my-own-token-4711-4711-4711-4711"


def test_the_callers_mistake_passes_through(s3: Any) -> None:
    with pytest.raises(botocore.exceptions.ParamValidationError) as caught:
        s3.list_objects_v2()

    assert not isinstance(caught.value, CallFailed)


def test_a_paginator_and_a_presigned_address_pass_through(vendor: Vendor, s3: Any) -> None:
    address = s3.generate_presigned_url("get_object", Params={"Bucket": "records", "Key": "a"})

    assert address.startswith(vendor.url)
    assert type(s3.get_paginator("list_objects_v2")).__module__.startswith("botocore")
    assert s3.meta.region_name == "eu-central-2"


# requests


@pytest.fixture
def session(vendor: Vendor, clock: ManualClock) -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield protect(session, "crm", CALM, clock=clock)


@pytest.mark.parametrize(
    ("method", "headers", "asked"),
    [
        ("get", {}, 3),
        ("head", {}, 3),
        ("put", {}, 3),
        ("delete", {}, 3),
        ("post", {}, 1),
        ("patch", {}, 1),
        ("post", {"idempotency-key": "k"}, 3),
    ],
)
def test_the_http_method_says_what_is_repeated(
    vendor: Vendor, session: requests.Session, method: str, headers: dict[str, str], asked: int
) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown) as caught:
        getattr(session, method)(vendor.url, headers=headers)

    assert isinstance(caught.value, requests.ConnectionError)
    assert len(vendor.seen) == asked
    with pytest.raises(OutcomeUnknown):
        session.request(method, vendor.url, headers=headers)
    assert len(vendor.seen) == 2 * asked
    with pytest.raises(OutcomeUnknown):
        session.send(requests.Request(method, vendor.url, headers=headers).prepare())
    assert len(vendor.seen) == 3 * asked


def test_an_answer_that_stays_a_failure_is_returned(vendor: Vendor, session: requests.Session) -> None:
    vendor.says(Answer(503, b"busy"))

    answer = session.get(vendor.url)

    assert (answer.status_code, answer.text) == (503, "busy")
    assert len(vendor.seen) == 3


def test_an_answer_that_is_no_failure_of_the_vendor_is_returned_at_once(
    vendor: Vendor, session: requests.Session
) -> None:
    vendor.says(Answer(404, b"gone"))

    assert session.get(vendor.url).text == "gone"
    assert len(vendor.seen) == 1


def test_a_refusal_after_a_lost_answer_is_not_returned_as_the_answer(vendor: Vendor, session: requests.Session) -> None:
    vendor.says(RESET, Answer(429))

    with pytest.raises(OutcomeUnknown, match="may have happened"):
        session.put(vendor.url, json={"paid": True})


def test_a_key_is_made_where_the_caller_says_it_is_honoured(vendor: Vendor, clock: ManualClock) -> None:
    with requests.Session() as plain:
        session = protect(plain, "crm", CALM, clock=clock, effects={"POST": Effect.KEYED})
        vendor.says(RESET, Answer(201))

        session.post(vendor.url, json={"amount": 1})
        session.send(requests.Request("POST", vendor.url).prepare())

    first, second, third = (seen.key for seen in vendor.seen)
    assert first
    assert first == second
    assert third not in (None, first)


def test_a_body_that_is_a_stream_is_sent_once(vendor: Vendor, session: requests.Session) -> None:
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown):
        session.put(vendor.url, data=io.BytesIO(b"scan"))
    with pytest.raises(OutcomeUnknown):
        session.put(vendor.url, files={"scan": ("scan.pdf", io.BytesIO(b"scan"))})

    assert len(vendor.seen) == 2


def test_a_throttling_host_pauses_alone(vendor: Vendor, clock: ManualClock) -> None:
    vendor.says(Answer(429, headers={"Retry-After": "60"}), Answer(200))
    with requests.Session() as plain:
        crm = protect(plain, "crm", Policy(breaker=None, deadline=2), clock=clock)

        assert crm.get(vendor.url).status_code == 429
        with pytest.raises(OnHold):
            crm.get(vendor.url)
        elsewhere = crm.get(vendor.url.replace("127.0.0.1", "localhost"))

    assert elsewhere.status_code == 200


def test_a_body_that_is_a_stream_may_arrive(vendor: Vendor, session: requests.Session) -> None:
    vendor.says(Answer(201))

    put = session.put(vendor.url, data=io.BytesIO(b"scan"))
    sent = session.send(requests.Request("PUT", vendor.url, data=iter([b"scan"])).prepare())

    assert (put.status_code, sent.status_code) == (201, 201)


def test_a_timeout_in_two_parts_stays_the_callers(vendor: Vendor, session: requests.Session) -> None:
    assert session.get(vendor.url, timeout=(20, 30)).status_code == 200


def test_a_call_without_a_timeout_gets_the_attempts(vendor: Vendor) -> None:
    vendor.says(SILENCE)

    with requests.Session() as plain:
        session = protect(plain, "crm", Policy(timeout=0.1, retry=None))
        with pytest.raises(requests.ReadTimeout) as caught:
            session.post(vendor.url)
        with pytest.raises(requests.ReadTimeout):
            session.post(vendor.url, timeout=20)

    assert isinstance(caught.value, OutcomeUnknown)
    assert caught.value.reason == "timeout"


def test_a_redirect_to_nowhere_proves_nothing_of_the_first_request(
    vendor: Vendor, session: requests.Session, nowhere: str
) -> None:
    vendor.says(Answer(303, headers={"location": nowhere}))

    with pytest.raises(OutcomeUnknown):
        session.post(vendor.url)
    with pytest.raises(NotSent):
        session.post(nowhere)

    assert len(vendor.seen) == 1


def test_an_address_that_is_none_is_the_callers_mistake(session: requests.Session) -> None:
    with pytest.raises(requests.exceptions.MissingSchema) as caught:
        session.get("crm.example")

    assert not isinstance(caught.value, CallFailed)
    assert guard_of(session).snapshot().operations["GET"].attempts == 1


def test_the_session_goes_on_being_one(vendor: Vendor, session: requests.Session) -> None:
    session.headers["x-shop"] = "1"
    session.auth = ("shop", "secret")
    with session as entered:
        assert entered is session
        entered.get(vendor.url)

    assert isinstance(session, requests.Session)
    assert vendor.seen[0].headers["x-shop"] == "1"
    assert vendor.seen[0].headers["authorization"].startswith("Basic ")


# All of them


class Untyped:
    pass


def refused_clients() -> dict[str, Callable[[], object]]:
    def session() -> requests.Session:
        session = requests.Session()
        session.mount("https://", HTTPAdapter(max_retries=2))
        return session

    def phone() -> twilio.rest.Client:
        http = twilio.http.http_client.TwilioHttpClient(max_retries=2)
        return twilio.rest.Client("AC1", "secret", http_client=http)

    return {
        "slack_sdk": lambda: slack_sdk.WebClient("xoxb-4711-secret"),
        "boto3": lambda: aws("s3", "http://127.0.0.1:1", retries={"mode": "standard"}),
        "requests": session,
        "twilio": phone,
    }


@pytest.mark.parametrize("name", list(refused_clients()))
def test_a_client_that_retries_by_itself_is_refused_with_the_way_out(name: str) -> None:
    client: Any = refused_clients()[name]()

    with pytest.raises(InvalidInput, match=r"retries by itself.*; make it .*retr"):
        protect(client, name)

    if name != "twilio" and hasattr(client, "close"):
        client.close()


def test_what_is_no_known_client_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Untyped is no client of boto3, requests, slack_sdk, stripe, twilio"):
        protect(Untyped(), "nobody")


def test_a_protected_client_is_not_protected_twice(shop: stripe.StripeClient) -> None:
    with pytest.raises(InvalidInput, match="protected already"):
        protect(shop, "again")
    with pytest.raises(InvalidInput, match="protected already"):
        protect(shop.v1, "again")


def test_effects_are_checked(clock: ManualClock) -> None:
    with pytest.raises(InvalidInput, match="slack_sdk takes no idempotency keys"):
        slack_at("http://127.0.0.1:1", clock, effects={"chat.postMessage": Effect.KEYED})
    with pytest.raises(InvalidInput, match="is an Effect"):
        slack_at("http://127.0.0.1:1", clock, effects={"chat.postMessage": "once"})


def test_a_call_that_takes_no_token_is_no_keyed_call(vendor: Vendor, clock: ManualClock) -> None:
    client = aws("s3", vendor.url)
    s3 = protect(client, "s3", CALM, clock=clock, effects={"put_object": Effect.KEYED})

    with pytest.raises(InvalidInput, match="takes no idempotency key for put_object"):
        s3.put_object(Bucket="records", Key="a", Body=b"")
    client.close()

    assert vendor.seen == []


def test_all_parts_share_one_guard(vendor: Vendor, shop: stripe.StripeClient) -> None:
    vendor.says(INTENT)

    shop.v1.payment_intents.retrieve("pi_1")
    shop.v1.checkout.sessions.list()

    assert set(guard_of(shop).snapshot().operations) == {"v1.payment_intents.retrieve", "v1.checkout.sessions.list"}
    assert guard_of(shop.v1) is guard_of(shop)
    with pytest.raises(InvalidInput, match="Untyped is not protected"):
        guard_of(Untyped())


def test_a_guard_is_steered_by_hand(vendor: Vendor, stripe_at: Callable[..., stripe.StripeClient]) -> None:
    shop = stripe_at(vendor.url, Policy())
    guard_of(shop).isolate("maintenance")

    with pytest.raises(CircuitOpen, match="maintenance"):
        shop.v1.payment_intents.retrieve("pi_1")

    assert guard_of(shop).snapshot().circuits[""].state is CircuitState.ISOLATED


@pytest.mark.parametrize(
    ("make", "call", "theirs"),
    [
        (
            lambda: slack_sdk.WebClient("xoxb-4711-secret", retry_handlers=[]),
            lambda slack: slack.auth_test(),
            slack_sdk.errors.SlackClientError,
        ),
        (
            lambda: twilio.rest.Client("AC1", "4711-secret"),
            lambda phone: phone.messages.list(limit=1),
            twilio.base.exceptions.TwilioException,
        ),
        (
            lambda: aws("s3", "http://127.0.0.1:1"),
            lambda s3: s3.list_buckets(),
            botocore.exceptions.HTTPClientError,
        ),
        (requests.Session, lambda session: session.get("http://127.0.0.1:1"), requests.ConnectionError),
    ],
    ids=["slack_sdk", "twilio", "boto3", "requests"],
)
def test_what_the_guard_rejects_is_the_sdks_own_error(
    make: Callable[[], object], call: Callable[[Any], object], theirs: type[Exception]
) -> None:
    client = protect(make(), "vendor")
    guard_of(client).isolate("maintenance")

    with pytest.raises(theirs, match="maintenance") as caught:
        call(client)

    assert isinstance(caught.value, CircuitOpen)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


def test_what_no_table_knows_is_unknown_and_opens_nothing_at_once(vendor: Vendor) -> None:
    class Odd(requests.RequestException):
        pass

    def odd(answer: requests.Response, **kwargs: object) -> None:
        answer.close()
        raise Odd("what is this?")

    with requests.Session() as plain:
        plain.hooks["response"].append(odd)
        with pytest.raises(Odd) as caught:
            protect(plain, "crm").post(vendor.url)

    assert isinstance(caught.value, OutcomeUnknown)
    assert not caught.value.hard


def test_an_exception_of_nobodys_passes_through_and_counts_for_nothing(vendor: Vendor) -> None:
    def odd(answer: requests.Response, **kwargs: object) -> None:
        answer.close()
        raise LookupError("the caller's own")

    with requests.Session() as plain:
        plain.hooks["response"].append(odd)
        session = protect(plain, "crm")
        with pytest.raises(LookupError) as caught:
            session.post(vendor.url)

    assert type(caught.value) is LookupError
    assert guard_of(session).snapshot().circuits[""].calls == 0


def test_an_error_that_is_ours_already_stays_itself(vendor: Vendor) -> None:
    def throttled(answer: requests.Response, **kwargs: object) -> None:
        answer.close()
        raise Throttled("our own limit", retry_after=3)

    with requests.Session() as plain:
        plain.hooks["response"].append(throttled)
        with pytest.raises(Throttled) as caught:
            protect(plain, "crm", Policy(retry=None)).post(vendor.url)

    assert caught.value.retry_after == 3


def test_what_decides_is_ours_and_what_was_answered_is_theirs() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("odd")
            self.cause, self.hard, self.code = "bad weather", "very", 4711

    error = both(OutcomeUnknown("lost", code="x", hard=False), Odd())

    assert (error.cause, error.hard) == (Cause.UNKNOWN, False)
    assert vars(error)["code"] == 4711


def test_a_class_that_nothing_can_be_added_to_leaves_ours_alone() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("no class of mine")

    ours = Rejected("no")

    assert both(ours, Final("no")) is ours


def test_signals_name_the_operation(vendor: Vendor, clock: ManualClock) -> None:
    heard: list[Signal] = []
    slack = slack_at(vendor.url, clock, telemetry=Telemetry([heard.append]))
    vendor.says(POSTED)

    slack.chat_postMessage(channel="C1", text="Hello")

    assert heard == [CallFinished("slack", "chat_postMessage", "ok", 0.0, 1)]


def test_what_is_shown_holds_no_secret(slack: slack_sdk.WebClient, shop: stripe.StripeClient) -> None:
    assert repr(slack) == "<WebClient protected as 'slack'>"
    assert repr(shop.v1.payment_intents) == "<PaymentIntentService protected as 'stripe'>"


def test_a_protected_client_passes_for_what_it_is(slack: slack_sdk.WebClient) -> None:
    assert isinstance(slack, slack_sdk.WebClient)
    assert slack.timeout == 30
    assert "chat_postMessage" in dir(slack)
    assert slack.chat_postMessage.__doc__ == slack_sdk.WebClient.chat_postMessage.__doc__
    slack.token = "xoxb-rotated"
    assert slack.token == "xoxb-rotated"
    del slack.token
    assert not hasattr(slack, "token")


def test_a_protected_client_is_not_copied(slack: slack_sdk.WebClient) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.copy(slack)


@pytest.mark.parametrize("answer", [stripe_error(402, "card_error", "card_declined"), RESET])
def test_an_error_survives_pickle(vendor: Vendor, shop: stripe.StripeClient, answer: Answer | str) -> None:
    vendor.says(answer)
    with pytest.raises(stripe.StripeError) as caught:
        shop.v1.refunds.create({"payment_intent": "pi_1"})

    error: Any = caught.value
    back = pickle.loads(pickle.dumps(error))

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back)["operation"] == "v1.refunds.create"
    assert (back.cause, back.provider, back.http_status) == (error.cause, "stripe", error.http_status)


def test_a_pickled_error_holds_no_credential(vendor: Vendor, session: requests.Session, slack: Any) -> None:
    vendor.says(RESET)
    with pytest.raises(OutcomeUnknown) as from_requests:
        session.post(vendor.url, headers={"Authorization": "Bearer 4711-secret"})
    vendor.says(Answer(200, {"ok": False, "error": "not_in_channel"}))
    with pytest.raises(Rejected) as from_slack:
        slack.chat_postMessage(channel="C1", text="Hello")

    for error in (from_requests.value, from_slack.value):
        pickled = pickle.dumps(error)
        assert b"4711-secret" not in pickled
        assert type(pickle.loads(pickled)) is type(error)


def test_a_nested_guard_leaves_the_retries_to_the_outer_one(
    vendor: Vendor, clock: ManualClock, session: requests.Session
) -> None:
    outer = Guard("shop", CALM, clock=clock)
    vendor.says(RESET)

    with pytest.raises(OutcomeUnknown):
        outer.sync.read(session.get, vendor.url)

    assert len(vendor.seen) == 3


def test_importing_it_imports_no_sdk() -> None:
    program = (
        "import sys, holdfast.resilience.protect\n"
        "found = {'stripe', 'slack_sdk', 'twilio', 'boto3', 'botocore', 'requests', 'aiohttp'} & set(sys.modules)\n"
        "assert not found, found"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
