"""The simulated PayPal says no as PayPal does, and forgets when PayPal forgets."""

import json
from base64 import b64encode
from datetime import timedelta
from typing import Any

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.intents import charge
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.paypal import PayPalSimulator
from holdfast.testing.simulators.simulator import Request, Response

CHF = {"currency_code": "CHF", "value": "120.00"}


class Merchant:
    """Somebody who talks to PayPal with nothing but HTTP."""

    def __init__(self, **facts: Any) -> None:
        self.clock = ManualClock()
        self.vendor = PayPalSimulator(clock=self.clock, webhook_url="https://shop.example/paypal", **facts)
        self.sign_in()

    def sign_in(self) -> None:
        self.token = self.body(self.get_token())["access_token"]

    def get_token(self, secret: str = "", form: bytes = b"grant_type=client_credentials") -> Response:
        credentials = f"{self.vendor.client_id}:{secret or self.vendor.client_secret}"
        basic = (("authorization", f"Basic {b64encode(credentials.encode()).decode()}"),)
        return self.vendor.handle(Request(method="POST", target="/v1/oauth2/token", headers=basic, body=form))

    def ask(self, method: str, target: str, asked: object = None, **headers: str) -> Response:
        sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
        sent += [("authorization", f"Bearer {self.token}"), ("prefer", "return=representation")]
        body = b"" if asked is None else json.dumps(asked).encode()
        return self.vendor.handle(Request(method=method, target=target, headers=sent, body=body))

    def refused(self, method: str, target: str, asked: object = None) -> tuple[int, str]:
        answer = self.ask(method, target, asked)
        details = self.body(answer).get("details") or [{"issue": self.body(answer).get("name")}]
        return answer.status, details[0]["issue"]

    def body(self, answer: Response) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def order(self, amount: object = CHF, *, intent: str = "CAPTURE", **unit: object) -> str:
        asked = {"intent": intent, "purchase_units": [{"amount": amount, **unit}]}
        return str(self.body(self.ask("POST", "/v2/checkout/orders", asked))["id"])

    def authorized(self) -> str:
        order = self.order(intent="AUTHORIZE")
        self.vendor.pay(order)
        self.ask("POST", f"/v2/checkout/orders/{order}/authorize")
        return self.vendor.orders[order].authorizations[0].id


@pytest.fixture
def merchant() -> Merchant:
    return Merchant()


@pytest.mark.parametrize("currency", ["HUF", "JPY", "TWD"])
def test_what_has_no_decimals_has_none_anywhere(merchant: Merchant, currency: str) -> None:
    order = merchant.order({"currency_code": currency, "value": "1999"})
    merchant.vendor.pay(order)
    told = merchant.ask("POST", f"/v2/checkout/orders/{order}/capture").body
    assert b'"value":"1999"' in told
    assert b'"value":"59"' in told
    assert b"." not in told.partition(b"seller_receivable_breakdown")[2].partition(b"invoice_id")[0]


@pytest.mark.parametrize(
    ("amount", "status", "issue"),
    [
        ({"currency_code": "HUF", "value": "10.00"}, 422, "DECIMAL_PRECISION"),
        ({"currency_code": "CHF", "value": "10.001"}, 422, "DECIMAL_PRECISION"),
        ({"currency_code": "XOF", "value": "10"}, 422, "INVALID_CURRENCY_CODE"),
        ({"currency_code": "CHF", "value": "0.00"}, 422, "CANNOT_BE_ZERO_OR_NEGATIVE"),
        ({"currency_code": "CHF", "value": "ten"}, 400, "INVALID_PARAMETER_SYNTAX"),
        ({"currency_code": "CHF", "value": 10}, 400, "INVALID_PARAMETER_SYNTAX"),
        (None, 400, "INVALID_PARAMETER_SYNTAX"),
    ],
)
def test_an_amount_that_paypal_does_not_take_is_refused(
    merchant: Merchant, amount: object, status: int, issue: str
) -> None:
    asked = {"intent": "CAPTURE", "purchase_units": [{"amount": amount}]}
    assert merchant.refused("POST", "/v2/checkout/orders", asked) == (status, issue)
    assert merchant.vendor.orders == {}


@pytest.mark.parametrize(
    ("asked", "issue"),
    [
        ({"intent": "SELL", "purchase_units": [{"amount": CHF}]}, "INVALID_PARAMETER_VALUE"),
        ({"intent": "CAPTURE", "purchase_units": []}, "INVALID_ARRAY_MAX_ITEMS"),
        ({"intent": "CAPTURE", "purchase_units": [{"amount": CHF, "custom_id": "x" * 128}]}, "INVALID_STRING_LENGTH"),
    ],
)
def test_an_order_of_another_form_is_refused(merchant: Merchant, asked: object, issue: str) -> None:
    assert merchant.refused("POST", "/v2/checkout/orders", asked) == (400, issue)


def test_who_asks_has_to_be_known(merchant: Merchant) -> None:
    assert merchant.get_token(secret="wrong").status == 401
    assert merchant.get_token(form=b"grant_type=password").status == 400
    merchant.vendor.revoke()
    assert merchant.ask("GET", "/v2/checkout/orders/X").status == 401


def test_beyond_its_limit_every_call_is_refused_for_a_second() -> None:
    merchant = Merchant(calls=2)
    assert [merchant.ask("GET", "/v1/customer/disputes").status for _ in range(3)] == [200, 200, 429]


def test_an_order_is_authorized_or_captured_as_it_was_meant(merchant: Merchant) -> None:
    order = merchant.order()
    merchant.vendor.pay(order)
    path = f"/v2/checkout/orders/{order}"
    assert merchant.refused("POST", f"{path}/authorize") == (422, "ACTION_DOES_NOT_MATCH_INTENT")
    assert merchant.ask("POST", f"{path}/capture").status == 201
    assert merchant.refused("POST", f"{path}/capture") == (422, "ORDER_ALREADY_CAPTURED")


def test_a_card_is_refused_rather_than_waited_for(merchant: Merchant) -> None:
    asked = {
        "intent": "CAPTURE",
        "purchase_units": [{"amount": CHF}],
        "payment_source": {"card": {"number": "4111111111111111", "expiry": "2030-01"}},
    }

    answer = merchant.ask("POST", "/v2/checkout/orders", asked, paypal_request_id="k1")

    [detail] = merchant.body(answer)["details"]
    assert (answer.status, detail["issue"]) == (422, "NOT_ENABLED_FOR_CARD_PROCESSING")
    assert not merchant.vendor.orders


def test_a_key_shows_what_was_made_as_it_is_now(merchant: Merchant) -> None:
    order = merchant.order()
    merchant.vendor.pay(order)
    path = f"/v2/checkout/orders/{order}/capture"
    statuses = [merchant.ask("POST", path, paypal_request_id="k").status for _ in range(2)]
    assert statuses == [201, 200]
    merchant.vendor.ledger.exactly_once(charge(reference=order))


@pytest.mark.parametrize(
    ("asked", "issue"),
    [
        ({"amount": {"currency_code": "CHF", "value": "120.01"}}, "MAX_CAPTURE_AMOUNT_EXCEEDED"),
        ({"amount": {"currency_code": "EUR", "value": "1.00"}}, "AUTH_CAPTURE_CURRENCY_MISMATCH"),
    ],
)
def test_more_than_was_set_aside_is_not_captured(merchant: Merchant, asked: object, issue: str) -> None:
    path = f"/v2/payments/authorizations/{merchant.authorized()}/capture"
    assert merchant.refused("POST", path, asked) == (422, issue)
    merchant.vendor.ledger.never(charge())


def test_what_is_set_aside_ends_by_capture_by_void_or_by_time(merchant: Merchant) -> None:
    # given
    captured, voided, old = (f"/v2/payments/authorizations/{merchant.authorized()}" for _ in range(3))

    # when
    merchant.ask("POST", f"{captured}/capture", {})
    assert merchant.ask("POST", f"{voided}/void").status == 204

    # then
    assert merchant.refused("POST", f"{captured}/capture", {}) == (422, "AUTHORIZATION_ALREADY_CAPTURED")
    assert merchant.refused("POST", f"{captured}/void") == (422, "PREVIOUSLY_CAPTURED")
    assert merchant.refused("POST", f"{voided}/capture", {}) == (422, "AUTHORIZATION_VOIDED")
    assert merchant.body(merchant.ask("GET", voided))["status"] == "VOIDED"
    merchant.vendor.orders[next(reversed(merchant.vendor.orders))].authorizations[0].expires_at = merchant.clock.now()
    assert merchant.refused("POST", f"{old}/capture", {}) == (422, "AUTHORIZATION_EXPIRED")


async def test_an_order_waits_three_hours_for_the_payer_and_six_for_us(merchant: Merchant) -> None:
    # given
    alone, approved = merchant.order(), merchant.order()
    merchant.vendor.pay(approved)

    # when
    await merchant.clock.advance(timedelta(hours=3).total_seconds())
    with pytest.raises(LookupError, match="gone"):
        merchant.vendor.pay(alone)
    after_three = [merchant.ask("GET", f"/v2/checkout/orders/{one}").status for one in (alone, approved)]
    await merchant.clock.advance(timedelta(hours=3).total_seconds())
    after_six = merchant.ask("GET", f"/v2/checkout/orders/{approved}").status

    # then
    assert (after_three, after_six) == ([404, 200], 404)
    assert {entry.id for entry in merchant.vendor.ledger.entries(Kind.OFFER_CLOSED)} == {alone, approved}


def test_what_is_looked_at_first_cannot_go_back_and_may_be_denied(merchant: Merchant) -> None:
    order = merchant.order()
    merchant.vendor.pay(order)
    merchant.vendor.hold(order)
    merchant.ask("POST", f"/v2/checkout/orders/{order}/capture")
    capture = merchant.vendor.orders[order].captures[0]
    path = f"/v2/payments/captures/{capture.id}"

    assert merchant.refused("POST", f"{path}/refund", {}) == (422, "PENDING_CAPTURE")
    merchant.vendor.deny(order)

    assert merchant.body(merchant.ask("GET", path))["status"] == "DECLINED"
    with pytest.raises(LookupError):
        merchant.vendor.release(order)
    merchant.vendor.ledger.never(charge())


def test_an_event_can_be_read_and_sent_again(merchant: Merchant) -> None:
    merchant.vendor.pay(merchant.order())
    [event] = merchant.vendor.events
    path = f"/v1/notifications/webhooks-events/{event['id']}"
    assert merchant.body(merchant.ask("GET", path)) == event
    assert merchant.ask("POST", f"{path}/resend").status == 202
    assert [webhook.event for webhook in merchant.vendor.outbox] == ["CHECKOUT.ORDER.APPROVED"] * 2


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v2/payments/captures/NONE", 404),
        ("/v2/payments/refunds/NONE", 404),
        ("/v2/payments/authorizations/NONE", 404),
        ("/v1/customer/disputes/NONE", 404),
        ("/v1/notifications/webhooks-events/NONE", 404),
        ("/v1/notifications/certs/NONE", 404),
        ("/v3/anything", 404),
        ("/v1/reporting/transactions", 400),
        ("/v1/reporting/transactions?start_date=2026-01-01T00:00:00Z&end_date=2026-03-01T00:00:00Z", 400),
    ],
)
def test_what_is_not_there_is_refused_in_paypals_words(merchant: Merchant, target: str, status: int) -> None:
    answer = merchant.ask("GET", target)
    assert answer.status == status
    assert {"name", "message", "debug_id"} <= set(merchant.body(answer))
    assert any(name == "paypal-debug-id" for name, _ in answer.headers)


def test_one_seed_makes_one_account_with_one_signature() -> None:
    one, same, other = (PayPalSimulator(seed=seed, clock=ManualClock()) for seed in (7, 7, 8))
    at = one.clock.now()
    assert one.credentials == same.credentials
    assert one.webhook_secret != other.webhook_secret
    assert one.sign(b"{}", secret="w", at=at) == same.sign(b"{}", secret="w", at=at)
    assert one.root == same.root
