"""Every answer becomes a value or a cause, and nothing secret gets into either."""

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import httpx
import pytest
from pydantic import field_validator

from holdfast.clock import SystemClock
from holdfast.errors import CallFailed, InsecureSetup, InvalidInput, OutcomeUnknown, Rejected
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse, HttpxTransport
from holdfast.http.vendor import CAUSES, Causes, HttpDefaults
from holdfast.http.wire import VendorError
from holdfast.outcome import Cause, Effect
from holdfast.values import Secret, Secrets
from tests.http.vendors import KEY, Order, Shop, answers, mocked, once


async def create(http: Http) -> Order:
    return await http.post("/orders", Order, operation="create_order", effect=Effect.ONCE, json={"n": 1})


async def failure(http: Http) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await create(http)
    return caught.value


async def test_an_amount_arrives_with_its_own_digits() -> None:
    http = mocked(answers(content=b'{"id": "o1", "amount": 0.10}'))
    assert (await create(http)).amount == Decimal("0.10")


async def test_every_verb_sends_what_it_was_given() -> None:
    # given
    seen: list[tuple[str, str, str | None, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, str(request.url), request.headers.get("content-type"), request.content))
        return httpx.Response(200, json={"id": "o1"})

    http = mocked(answer)

    # when
    await http.get("/orders", Order, operation="o", params={"q": "a b"})
    await http.post("/orders", None, operation="o", effect=Effect.ONCE, form={"a": "1 2"})
    await http.put("/orders", Order, operation="o", effect=Effect.IDEMPOTENT, json={"amount": Decimal("1.50")})
    await http.patch(
        "/orders", None, operation="o", effect=Effect.ONCE, content=b"raw", headers={"Content-Type": "x/y"}
    )
    await http.delete("/orders", None, operation="o", effect=Effect.IDEMPOTENT)

    # then
    json, form = "application/json", "application/x-www-form-urlencoded"
    assert seen == [
        ("GET", "https://api.shop.example/orders?q=a+b", None, b""),
        ("POST", "https://api.shop.example/orders", form, b"a=1+2"),
        ("PUT", "https://api.shop.example/orders", json, b'{"amount":1.50}'),
        ("PATCH", "https://api.shop.example/orders", "x/y", b"raw"),
        ("DELETE", "https://api.shop.example/orders", None, b""),
    ]


async def test_a_request_has_one_body() -> None:
    with pytest.raises(InvalidInput):
        await mocked(answers()).post("/orders", None, operation="o", effect=Effect.ONCE, json={}, content=b"")


@pytest.mark.parametrize(
    ("status", "body", "cause", "hard"),
    [
        (301, "", Cause.UNKNOWN, False),
        (400, "", Cause.REJECTED, False),
        (401, "", Cause.CREDENTIAL, False),
        (403, "", Cause.REJECTED, False),
        (404, "", Cause.REJECTED, False),
        (404, '{"code": 1001}', Cause.CREDENTIAL, False),
        (404, '{"code": 1002}', Cause.REJECTED, False),
        (408, "", Cause.UNKNOWN, False),
        (409, "", Cause.REJECTED, False),
        (429, "", Cause.THROTTLED, False),
        (500, "<html>", Cause.UNKNOWN, True),
        (503, "", Cause.UNKNOWN, True),
        (520, "", Cause.REJECTED, False),
    ],
)
async def test_the_table_decides_what_a_status_means(status: int, body: str, cause: Cause, hard: bool) -> None:
    error = await failure(mocked(answers(status, text=body)))
    assert (error.cause, error.hard, error.status) == (cause, hard, status)


async def test_a_failure_says_what_happened_to_what_and_what_to_do() -> None:
    # given
    headers = {"x-zm-trackingid": "WEB_1", "content-type": "application/json"}
    http = mocked(answers(404, content=b'{"code": 1001, "message": "User does not exist"}', headers=headers))

    # when
    error = await failure(http)

    # then
    assert str(error) == (
        "shop: create_order refused our credential (404, code 1001): User does not exist; "
        "check the credential, or rotate it"
    )
    assert (error.provider, error.operation, error.code, error.request_id) == ("shop", "create_order", "1001", "WEB_1")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "the body is not JSON"),
        (b"", "there is no body"),
        (b'{"amount": "KEYED-SECRET"}', "the body does not fit Order: id (missing), amount (decimal_parsing)"),
        (b'{"id": NaN}', "the body is not JSON"),
        (b"[]", "the body does not fit Order: "),
    ],
)
async def test_a_success_that_cannot_be_read_is_unknown_and_not_quoted(body: bytes, words: str) -> None:
    # when
    error = await failure(mocked(answers(200, content=body, headers={"request-id": "r1"})))

    # then
    assert isinstance(error, OutcomeUnknown)
    assert (error.reason, error.status, error.request_id) == ("unreadable", 200, "r1")
    assert words in str(error)
    assert "KEYED-SECRET" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None  # what the parser raised holds the body


@pytest.mark.parametrize("body", [b"", b"ok", b"{}"])
async def test_where_no_body_is_wanted_a_success_is_one(body: bytes) -> None:
    http = mocked(answers(200, content=body))
    await http.delete("/orders/o1", None, operation="cancel", effect=Effect.IDEMPOTENT)


async def test_a_page_is_no_success_even_where_no_body_is_wanted() -> None:
    http = mocked(answers(200, content=b"\n <!DOCTYPE html>"))
    with pytest.raises(OutcomeUnknown, match="page"):
        await http.delete("/orders/o1", None, operation="cancel", effect=Effect.IDEMPOTENT)


async def test_a_looking_that_failed_does_not_speak_of_effects() -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await mocked(answers(500)).get("/orders/o1", Order, operation="fetch_order")
    assert str(caught.value) == "shop: fetch_order failed (500)"


ONE_TIME = "one-time-token"


@dataclass(frozen=True, kw_only=True)
class Chat(HttpDefaults):
    """A vendor with its token in the path, and with failures among its 200s."""

    token: Secret = field(default=Secret("110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"))
    old: Secrets = field(default=Secrets("first-secret", "second-secret"))
    name: str = "chat"
    base_url: str = "https://chat.example"
    causes: Causes = field(
        default_factory=lambda: CAUSES | {200: Cause.REJECTED, (200, "ratelimited"): Cause.THROTTLED}
    )

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": "Basic cGF0cmljazpzZWNyZXQ="}


async def send_chat(http: Http, chat: Chat) -> None:
    path = f"/bot{chat.token.reveal()}/send"
    await http.post(path, None, operation="send", effect=Effect.ONCE, json={}, headers={"X-Token": ONE_TIME})


def chat_http(chat: Chat, status: int, body: str) -> Http:
    transport = HttpxTransport(httpx.MockTransport(answers(status, text=body)))
    return Http(chat, transport, once(), SystemClock())


@pytest.mark.parametrize(
    ("body", "cause"), [('{"error": "ratelimited"}', Cause.THROTTLED), ('{"error": "no_chat"}', Cause.REJECTED)]
)
async def test_a_vendor_may_fail_with_200_when_its_table_says_so(body: str, cause: Cause) -> None:
    chat = Chat()
    with pytest.raises(CallFailed) as caught:
        await send_chat(chat_http(chat, 200, body), chat)
    assert caught.value.cause is cause
    await send_chat(chat_http(chat, 200, '{"ok": true}'), chat)


@pytest.mark.parametrize(
    "secret",
    [Chat().token.reveal(), "second-secret", "cGF0cmljazpzZWNyZXQ=", ONE_TIME],
    ids=["in the path", "rotated", "in a header", "of this call"],
)
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
async def test_a_vendor_that_echoes_a_secret_does_not_get_it_into_our_error(
    status: int, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    caplog.set_level(logging.DEBUG)
    chat = Chat()
    http = chat_http(chat, status, f'{{"error": "key {secret}", "message": "bad key {secret}: not {secret}"}}')

    # when
    with pytest.raises(CallFailed) as caught:
        await send_chat(http, chat)

    # then
    assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in repr(vars(caught.value))
    assert "***" in str(caught.value)
    assert chat.token.reveal() not in caplog.text


async def test_an_endless_message_is_cut_and_no_half_secret_is_left_at_the_cut() -> None:
    error = await failure(mocked(answers(400, json={"code": "c" * 999, "message": "x" * 150 + KEY + "x" * 9999})))
    assert len(str(error)) < 500
    assert len(error.code) == 200
    assert KEY[:8] not in str(error)


async def test_a_model_that_breaks_on_an_answer_leaves_the_outcome_unknown() -> None:
    class Broken(Order):
        @field_validator("id")
        @classmethod
        def look_up(cls, value: str) -> str:
            raise KeyError(value)

    with pytest.raises(OutcomeUnknown, match="Broken: KeyError") as caught:
        await mocked(answers(json={"id": "quoted"})).post("/orders", Broken, operation="o", effect=Effect.ONCE)
    assert "quoted" not in str(caught.value)


async def test_the_address_is_not_logged_over_a_real_transport_either(caplog: pytest.LogCaptureFixture) -> None:
    # given
    caplog.set_level(logging.DEBUG)
    chat = Chat(base_url="http://127.0.0.1:9")
    http = Http(chat, HttpxTransport(), once(), SystemClock())

    # when
    with pytest.raises(CallFailed) as caught:
        await send_chat(http, chat)
    await http.aclose()

    # then
    assert chat.token.reveal() not in caplog.text
    assert chat.token.reveal() not in str(caught.value)


async def test_another_host_gets_no_credentials() -> None:
    # given
    def answer(request: httpx.Request) -> httpx.Response:
        assert "api-key" not in request.headers
        return httpx.Response(200, json={"id": "o1"})

    # then
    await mocked(answer).get("https://elsewhere.example/orders", Order, operation="fetch")


async def test_the_vendors_own_host_gets_them_by_absolute_address_too() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["api-key"] == KEY
        return httpx.Response(200, json={"id": "o1"})

    await mocked(answer).get("https://api.shop.example:443/orders", Order, operation="fetch")


async def test_credentials_do_not_travel_in_clear() -> None:
    with pytest.raises(InsecureSetup):
        mocked(answers(), Shop(base_url="http://api.shop.example"))


async def test_a_reader_of_errors_that_breaks_does_not_hide_the_status() -> None:
    class Broken(Shop):
        def read_error(self, response: HttpResponse) -> VendorError:
            raise KeyError("code")

    assert isinstance(await failure(mocked(answers(422), Broken())), Rejected)


async def test_a_vendors_own_word_stands_above_the_table() -> None:
    class Quota(Shop):
        def read_error(self, response: HttpResponse) -> VendorError:
            return VendorError(cause=Cause.REFUSED, reason="host_quota", retry_after=3600.4)

    error = await failure(mocked(answers(429), Quota()))
    assert (error.cause, error.reason, error.retry_after) == (Cause.REFUSED, "host_quota", 3600.4)
    assert str(error).endswith("; ask again in 3600 s")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30),
        ({"Retry-After": "2015-10-21T07:29:00Z", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 60),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
async def test_the_pause_a_vendor_asks_for_is_understood(headers: Mapping[str, str], seconds: float | None) -> None:
    assert (await failure(mocked(answers(429, headers=headers)))).retry_after == seconds
