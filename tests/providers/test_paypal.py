"""PayPal: nothing moves before we capture it; one order, one capture, one refund per key, whatever answers are lost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from jsonschema import Draft202012Validator

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.tokens import TokenVendor
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.http.wire import JsonOut
from holdfast.payments.models import Attempt, AttemptState, Capture, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    DisputeStatus,
    LineKind,
    PaymentProvider,
    PaymentSnapshot,
    RefundRequest,
    StatementLine,
    SupportsAuthorizing,
    SupportsCapture,
    SupportsDisputes,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    SupportsStatements,
)
from holdfast.providers.paypal import PayPal
from holdfast.providers.paypal.wire import CURRENCIES, write_money
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Reset, Status
from holdfast.testing.intents import charge, refund
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.paypal import PayPalSimulator
from holdfast.testing.simulators.simulator import Request
from holdfast.values import Money, Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import Delivery
from tests.providers.connection import NOON, canned, connection, incoming, offer_request

SPECS = Path(__file__).resolve().parents[3] / "shared/specs/payments/paypal"
PRICE = Money("120.00", "CHF")
ATTEMPT = "0123456789abcdef0123456789abcdef"
KEY = "fedcba9876543210fedcba9876543210"
ORDER: dict[str, JsonOut] = {
    "id": "5O190127TN364715T",
    "intent": "CAPTURE",
    "status": "PAYER_ACTION_REQUIRED",
    "purchase_units": [
        {
            "amount": {"currency_code": "CHF", "value": "120.00"},
            "custom_id": ATTEMPT,
            "invoice_id": "consultation-4711",
            "payee": {"merchant_id": "C7CYMKZDG8D6E"},
        }
    ],
    "links": [{"href": "https://www.paypal.com/checkoutnow?token=5O190127TN364715T", "rel": "payer-action"}],
}


def paypal(**changes: object) -> PayPal:
    facts: dict[str, object] = {
        "client_id": PayPalSimulator.client_id,
        "client_secret": Secret(PayPalSimulator.client_secret),
        "webhook_id": Secrets("4JH86294D6297924G"),
        "base_url": "http://127.0.0.1",
    }
    return PayPal(**facts | changes)  # type: ignore[arg-type]  # PayPal's own fields


def attempt(vendor_id: str = "5O190127TN364715T", status: PaymentStatus = PaymentStatus.APPROVED) -> Attempt:
    return Attempt(
        number=1,
        id=ATTEMPT,
        provider="paypal",
        state=AttemptState.OFFERED,
        claim=1,
        price=PRICE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON,
        vendor_id=vendor_id,
        status=status,
    )


def to_refund(vendor_id: str, money: Money = PRICE, key: str = KEY) -> RefundRequest:
    return RefundRequest(reference="consultation-4711", attempt_id=ATTEMPT, vendor_id=vendor_id, key=key, money=money)


def order(**changes: JsonOut) -> dict[str, JsonOut]:
    return ORDER | changes


def paid_with(*captures: Mapping[str, JsonOut], **payments: JsonOut) -> dict[str, JsonOut]:
    """A completed order with these captures; each of them has what is not said."""
    common = {"id": "2GG279541U471931P", "amount": {"currency_code": "CHF", "value": "120.00"}}
    unit = dict(ORDER["purchase_units"][0])  # type: ignore[index,arg-type]  # the one above
    unit["payments"] = {"captures": [common | dict(one) for one in captures], **payments}
    return order(status="COMPLETED", purchase_units=[unit], links=[])


class SignedIn:
    """The simulator behind a connection that carries a token."""

    def __init__(self, vendor: PayPalSimulator, token: str) -> None:
        self.inner, self.token = InProcess(vendor), token

    async def send(self, request: HttpRequest) -> HttpResponse:
        if any(name == "authorization" for name, _ in request.headers):
            return await self.inner.send(request)
        return await self.inner.send(
            replace(request, headers=(*request.headers, ("authorization", f"Bearer {self.token}")))
        )

    async def aclose(self) -> None:
        pass


@dataclass
class Account:
    """A simulated account, and a provider that is signed in to it."""

    clock: ManualClock
    vendor: PayPalSimulator
    paypal: PayPal
    http: Http

    async def create(self, **changes: Any) -> PaymentSnapshot:
        price = changes.pop("price", PRICE)
        return await self.paypal.create(self.http, offer_request(price, **{"attempt_id": ATTEMPT, **changes}))

    async def capture(self, vendor_id: str, *, key: str = "capture-1") -> PaymentSnapshot:
        return await self.paypal.capture(self.http, attempt(vendor_id), PRICE, key=key)

    async def paid(self, **changes: Any) -> PaymentSnapshot:
        made = await self.create(**changes)
        self.vendor.pay(made.vendor_id)
        return await self.capture(made.vendor_id)


@pytest.fixture
async def account() -> Account:
    clock = ManualClock(NOON)
    vendor = PayPalSimulator(clock=clock, webhook_url="https://api.example.ch/webhooks/paypal")
    provider = paypal(webhook_id=Secrets(vendor.webhook_secret), merchant_id=vendor.merchant_id)
    token = await provider.fetch_token(connection(provider, InProcess(vendor)))
    return Account(clock, vendor, provider, connection(provider, SignedIn(vendor, token.value.reveal())))


def spec(name: str, schema: str) -> dict[str, Any]:
    path = SPECS / f"{name}.json"
    if not path.exists():
        pytest.skip("the published descriptions are not on this machine")
    document = json.loads(path.read_text())
    return {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}


# Facts


def test_it_can_do_what_its_protocols_say() -> None:
    provider: PaymentProvider = paypal()
    for able in (
        TokenVendor,
        SupportsAuthorizing,
        SupportsCapture,
        SupportsRevoking,
        SupportsRefunds,
        SupportsRefundLookup,
        SupportsDisputes,
        SupportsStatements,
        SupportsListing,
        ReceivesWebhooks,
    ):
        assert isinstance(provider, able)
    assert not isinstance(provider, SupportsLookup)
    assert provider.capabilities.captures
    assert provider.capabilities.key_window == timedelta(hours=6)
    assert provider.capabilities.refund_key_window == timedelta(days=45)


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("PAYPAL_CLIENT_ID", "client")
    monkeypatch.setenv("PAYPAL_CLIENT_SECRET", "secret-to-hide")
    monkeypatch.setenv("PAYPAL_WEBHOOK_ID", "NEW4294D6297924G1,OLD4294D6297924G1")
    monkeypatch.setenv("PAYPAL_URL", "https://api-m.sandbox.paypal.com")

    # when
    found = PayPal.from_env()

    # then
    assert (found.base_url, found.live) == ("https://api-m.sandbox.paypal.com", False)
    assert found.webhook_id is not None
    assert len(found.webhook_id) == 2
    assert "to-hide" not in repr(found)


@pytest.mark.parametrize("missing", ["PAYPAL_CLIENT_ID", "PAYPAL_CLIENT_SECRET"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYPAL_CLIENT_ID", "c")
    monkeypatch.setenv("PAYPAL_CLIENT_SECRET", "s")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        PayPal.from_env()


@pytest.mark.parametrize(
    ("base_url", "live"),
    [
        ("https://api-m.paypal.com", True),
        ("https://api-m.sandbox.paypal.com", False),
        ("http://127.0.0.1:8080", False),
        ("https://sandbox.paypal.com.evil.example", True),
    ],
)
def test_money_is_real_everywhere_but_in_the_sandbox(base_url: str, live: bool) -> None:
    assert paypal(base_url=base_url).live is live


# Tokens


async def test_a_token_is_asked_for_with_the_credentials_in_a_header_only() -> None:
    answering = canned({"access_token": "A21AAtoken", "token_type": "Bearer", "expires_in": 32400})

    token = await paypal().fetch_token(connection(paypal(), answering))

    [request] = answering.requests
    assert (request.method, request.url) == ("POST", "http://127.0.0.1/v1/oauth2/token")
    assert request.content == b"grant_type=client_credentials"
    assert dict(request.headers)["authorization"].startswith("Basic ")
    assert (token.value.reveal(), token.expires_in) == ("A21AAtoken", 32400)
    assert "A21AAtoken" not in repr(token)


async def test_a_wrong_secret_is_our_credential() -> None:
    stranger = paypal(client_secret=Secret("wrong"))
    with pytest.raises(CredentialRefused) as caught:
        await stranger.fetch_token(connection(stranger, InProcess(PayPalSimulator())))
    assert caught.value.code == "invalid_client"


async def test_a_token_that_ran_out_is_refused_by_name(account: Account) -> None:
    await account.clock.advance(9 * 3600)
    with pytest.raises(CredentialRefused) as caught:
        await account.create()
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")


# Creating


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    # given
    answering = canned(ORDER, status=201)

    # when
    await paypal().create(
        connection(paypal(), answering),
        offer_request(PRICE, attempt_id=ATTEMPT, return_url="https://shop.example/thanks"),
    )

    # then
    [request] = answering.requests
    assert (request.method, request.url) == ("POST", "http://127.0.0.1/v2/checkout/orders")
    assert dict(request.headers)["paypal-request-id"] == ATTEMPT
    assert dict(request.headers)["prefer"] == "return=representation"
    assert json.loads(request.content) == {
        "intent": "CAPTURE",
        "purchase_units": [
            {
                "amount": {"currency_code": "CHF", "value": "120.00"},
                "custom_id": ATTEMPT,
                "invoice_id": "consultation-4711",
                "description": "Consultation",
            }
        ],
        "payment_source": {
            "paypal": {
                "experience_context": {
                    "user_action": "PAY_NOW",
                    "shipping_preference": "NO_SHIPPING",
                    "return_url": "https://shop.example/thanks",
                    "cancel_url": "https://shop.example/thanks",
                }
            }
        },
    }


async def test_the_answer_is_an_offer_to_approve_at_paypal() -> None:
    snapshot = await paypal().create(connection(paypal(), canned(ORDER, 201)), offer_request(PRICE))
    assert (snapshot.vendor_id, snapshot.status, snapshot.price) == ("5O190127TN364715T", PaymentStatus.PENDING, PRICE)
    assert snapshot.attempt_id == ATTEMPT
    assert snapshot.offer
    assert snapshot.offer.checkout_url == "https://www.paypal.com/checkoutnow?token=5O190127TN364715T"


async def test_an_order_without_a_page_is_not_what_was_asked_for() -> None:
    with pytest.raises(Mismatch, match="no page"):
        await paypal().create(connection(paypal(), canned(order(links=[]), 201)), offer_request(PRICE))


async def test_the_same_attempt_asked_again_is_the_same_order_within_six_hours(account: Account) -> None:
    # given
    account.vendor.faults.on("paypal", "payments.create").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await account.create()

    # when
    again = await account.create()
    await account.clock.advance(6 * 3600 + 1)
    after_the_window = await account.create()

    # then
    assert [entry.id for entry in account.vendor.ledger.entries(Kind.OFFER)] == [
        again.vendor_id,
        after_the_window.vendor_id,
    ]


@pytest.mark.parametrize("capture", list(Capture))
async def test_the_request_fits_the_published_description(capture: Capture) -> None:
    schema = spec("checkout_orders_v2", "order_request")
    answering = canned(ORDER, 201)
    asked = offer_request(PRICE, capture=capture, description="d" * 200, return_url="https://shop.example")

    await paypal().create(connection(paypal(), answering), asked)

    Draft202012Validator(schema).validate(json.loads(answering.requests[0].content))


# Money


@pytest.mark.parametrize(
    ("money", "value"),
    [
        (Money("120.00", "CHF"), "120.00"),
        (Money("0.01", "USD"), "0.01"),
        (Money("1234567.80", "EUR"), "1234567.80"),
        (Money(1500, "JPY"), "1500"),
        (Money(1500, "HUF"), "1500"),
        (Money("1500.00", "TWD"), "1500"),
    ],
    ids=str,
)
async def test_money_has_the_decimals_that_paypal_takes(money: Money, value: str, account: Account) -> None:
    assert write_money(money) == {"currency_code": money.currency, "value": value}
    snapshot = await account.create(price=money)
    assert snapshot.price == money


@pytest.mark.parametrize(
    "money",
    [
        Money("1500.50", "HUF"),
        Money("0.10", "TWD"),
        Money(5000, "XOF"),
        Money(5000, "GNF"),
        Money("1.001", "KWD"),
        Money("1.00", "RUB"),
        Money.from_sat(2100),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_for_exactly_is_refused_before_anything_is_sent(money: Money) -> None:
    answering = canned(ORDER, 201)
    with pytest.raises(InvalidMoney):
        await paypal().create(connection(paypal(), answering), offer_request(money))
    assert not answering.requests


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
async def test_every_currency_comes_back_as_it_was_sent(currency: str, account: Account) -> None:
    made = await account.create(price=Money(77, currency))
    assert (await account.paypal.fetch(account.http, made.vendor_id)).price == Money(77, currency)


@pytest.mark.parametrize(
    "amount",
    [
        {"currency_code": "CHF", "value": "120.005"},
        {"currency_code": "XXY", "value": "120.00"},
        {"currency_code": "CHF", "value": "many"},
        {"currency_code": "CHF"},
        "120.00",
    ],
    ids=str,
)
async def test_an_amount_that_is_none_makes_an_answer_unreadable(amount: JsonOut) -> None:
    answer = order(purchase_units=[{"amount": amount}])
    with pytest.raises(OutcomeUnknown):
        await paypal().fetch(connection(paypal(), canned(answer)), "5O190127TN364715T")


# Statuses


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("CREATED", PaymentStatus.PENDING),
        ("SAVED", PaymentStatus.PENDING),
        ("PAYER_ACTION_REQUIRED", PaymentStatus.PENDING),
        ("APPROVED", PaymentStatus.APPROVED),
        ("VOIDED", PaymentStatus.CANCELED),
        ("COMPLETED", PaymentStatus.UNKNOWN),
        ("INVENTED_TOMORROW", PaymentStatus.UNKNOWN),
    ],
)
async def test_an_order_means_what_the_table_says(theirs: str, ours: PaymentStatus) -> None:
    snapshot = await paypal().fetch(connection(paypal(), canned(order(status=theirs))), "5O190127TN364715T")
    assert (snapshot.status, snapshot.received) == (ours, None)


@pytest.mark.parametrize(
    ("theirs", "ours", "received"),
    [
        ("COMPLETED", PaymentStatus.PAID, PRICE),
        ("PARTIALLY_REFUNDED", PaymentStatus.PAID, PRICE),
        ("REFUNDED", PaymentStatus.PAID, PRICE),
        ("PENDING", PaymentStatus.PROCESSING, None),
        ("DECLINED", PaymentStatus.FAILED, None),
        ("FAILED", PaymentStatus.FAILED, None),
        ("INVENTED_TOMORROW", PaymentStatus.UNKNOWN, None),
    ],
)
async def test_a_completed_order_is_what_its_capture_is(
    theirs: str, ours: PaymentStatus, received: Money | None
) -> None:
    answer = paid_with({"status": theirs, "status_details": {"reason": "ECHECK"}})
    snapshot = await paypal().fetch(connection(paypal(), canned(answer)), "5O190127TN364715T")
    assert (snapshot.status, snapshot.received, snapshot.reason) == (ours, received, "ECHECK")


@pytest.mark.parametrize("statuses", [("DECLINED", "COMPLETED"), ("COMPLETED", "DECLINED"), ("COMPLETED", "PENDING")])
async def test_of_several_captures_the_money_that_came_counts(statuses: tuple[str, str]) -> None:
    answer = paid_with(*({"status": status} for status in statuses))
    snapshot = await paypal().fetch(connection(paypal(), canned(answer)), "5O190127TN364715T")
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PAID, PRICE)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("CREATED", PaymentStatus.AUTHORIZED),
        ("PENDING", PaymentStatus.PROCESSING),
        ("DENIED", PaymentStatus.FAILED),
        ("VOIDED", PaymentStatus.CANCELED),
        ("CAPTURED", PaymentStatus.UNKNOWN),  # the capture says more, and is not there
    ],
)
async def test_an_authorized_order_is_what_its_authorization_is(theirs: str, ours: PaymentStatus) -> None:
    answer = paid_with(authorizations=[{"id": "0VF52814937998046", "status": theirs}])
    snapshot = await paypal().fetch(connection(paypal(), canned(answer)), "5O190127TN364715T")
    assert snapshot.status is ours


async def test_what_paypal_calls_null_is_not_said() -> None:
    answer = paid_with({"status": "COMPLETED", "status_details": None, "custom_id": None}, refunds=None)
    snapshot = await paypal().fetch(connection(paypal(), canned(answer | {"intent": None})), "5O190127TN364715T")
    assert snapshot.status is PaymentStatus.PAID


async def test_what_went_back_and_what_paypal_kept_are_counted_apart() -> None:
    def chf(value: str) -> JsonOut:
        return {"currency_code": "CHF", "value": value}

    answer = paid_with(
        {"status": "PARTIALLY_REFUNDED", "seller_receivable_breakdown": {"paypal_fee": chf("3.60")}},
        refunds=[
            {"id": "1", "status": "COMPLETED", "amount": chf("20.00")},
            {"id": "2", "status": "COMPLETED", "amount": chf("5.00")},
            {"id": "3", "status": "PENDING", "amount": chf("50.00")},
            {"id": "4", "status": "FAILED", "amount": chf("1.00")},
        ],
    )
    snapshot = await paypal().fetch(connection(paypal(), canned(answer)), "5O190127TN364715T")
    assert (snapshot.received, snapshot.refunded, snapshot.fee) == (PRICE, Money("25.00", "CHF"), Money("3.60", "CHF"))


async def test_an_order_of_another_payee_is_a_mismatch() -> None:
    provider = paypal(merchant_id="SOMEBODYELSE1")
    with pytest.raises(Mismatch, match="another merchant"):
        await provider.fetch(connection(provider, canned(ORDER)), "5O190127TN364715T")


# Capturing


async def test_an_approved_order_is_captured_under_our_key(account: Account) -> None:
    # given
    made = await account.create()
    account.vendor.pay(made.offer.checkout_url if made.offer and made.offer.checkout_url else "")
    assert (await account.paypal.fetch(account.http, made.vendor_id)).status is PaymentStatus.APPROVED

    # when
    snapshot = await account.capture(made.vendor_id)

    # then
    assert (snapshot.status, snapshot.received, snapshot.attempt_id) == (PaymentStatus.PAID, PRICE, ATTEMPT)
    account.vendor.ledger.exactly_once(charge(reference="consultation-4711", amount=PRICE))
    assert account.vendor.requests[-1].header("paypal-request-id") == "capture-1"


@pytest.mark.parametrize("key", ["capture-1", "capture-2"])
async def test_a_capture_whose_answer_was_lost_is_found_and_not_repeated(account: Account, key: str) -> None:
    # given
    made = await account.create()
    account.vendor.pay(made.vendor_id)
    account.vendor.faults.on("paypal", "payments.capture").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await account.capture(made.vendor_id)

    # when
    snapshot = await account.capture(made.vendor_id, key=key)

    # then
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PAID, PRICE)
    account.vendor.ledger.exactly_once(charge(reference="consultation-4711"))


async def test_an_order_that_nobody_approved_cannot_be_captured(account: Account) -> None:
    made = await account.create()
    with pytest.raises(Rejected) as caught:
        await account.capture(made.vendor_id)
    assert caught.value.code == "ORDER_NOT_APPROVED"
    account.vendor.ledger.never(charge())


async def test_a_payer_without_money_is_told_apart_from_everything_else(account: Account) -> None:
    made = await account.create()
    account.vendor.pay(made.vendor_id)
    account.vendor.decline(made.vendor_id)
    with pytest.raises(Rejected) as caught:
        await account.capture(made.vendor_id)
    assert (caught.value.code, caught.value.reason) == ("INSTRUMENT_DECLINED", "declined")


async def test_of_two_orders_with_one_reference_only_one_takes_money(account: Account) -> None:
    # given
    await account.paid()
    other = await account.create(attempt_id="another")
    account.vendor.pay(other.vendor_id)

    # when
    with pytest.raises(Rejected) as caught:
        await account.capture(other.vendor_id, key="capture-2")

    # then
    assert (caught.value.code, caught.value.reason) == ("DUPLICATE_INVOICE_ID", "duplicate_reference")
    account.vendor.ledger.exactly_once(charge(reference="consultation-4711"))


async def test_a_refused_capture_that_cannot_be_looked_at_may_have_happened(account: Account) -> None:
    """Had the look's own failure been raised, it would have said that nothing was sent."""
    made = await account.paid()
    account.vendor.faults.on("paypal", "payments.fetch").script(Status(429))
    with pytest.raises(OutcomeUnknown, match="may have moved"):
        await account.capture(made.vendor_id, key="capture-2")


async def test_a_capture_under_review_is_processing_until_paypal_decides(account: Account) -> None:
    made = await account.create()
    account.vendor.pay(made.vendor_id)
    account.vendor.hold(made.vendor_id)
    captured = await account.capture(made.vendor_id)
    account.vendor.release(made.vendor_id)
    released = await account.paypal.fetch(account.http, made.vendor_id)
    assert (captured.status, captured.reason) == (PaymentStatus.PROCESSING, "PENDING_REVIEW")
    assert (released.status, released.received) == (PaymentStatus.PAID, PRICE)


# Setting aside


async def approved_to_set_aside(account: Account) -> Attempt:
    made = await account.create(capture=Capture.MANUAL)
    account.vendor.pay(made.vendor_id)
    assert (await account.paypal.fetch(account.http, made.vendor_id)).status is PaymentStatus.APPROVED
    return attempt(made.vendor_id, PaymentStatus.APPROVED)


async def set_aside(account: Account) -> Attempt:
    ours = await approved_to_set_aside(account)
    assert (await account.paypal.authorize(account.http, ours)).status is PaymentStatus.AUTHORIZED
    return replace(ours, status=PaymentStatus.AUTHORIZED)


async def test_what_is_to_be_captured_by_hand_is_set_aside_and_partly_captured(account: Account) -> None:
    # given
    ours, part = await set_aside(account), Money("80.00", "CHF")

    # when
    snapshot = await account.paypal.capture(account.http, ours, part, key="capture-1")

    # then
    assert (snapshot.status, snapshot.price, snapshot.received) == (PaymentStatus.PAID, PRICE, part)
    account.vendor.ledger.exactly_once(charge(reference="consultation-4711", amount=part))
    assert snapshot == replace(await account.paypal.fetch(account.http, ours.vendor_id), offer=snapshot.offer)


async def test_money_is_set_aside_once(account: Account) -> None:
    ours = await approved_to_set_aside(account)
    account.vendor.faults.on("paypal", "payments.authorize").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await account.paypal.authorize(account.http, ours)
    await account.clock.advance(7 * 3600)  # the key is forgotten
    account.vendor.orders[ours.vendor_id].lapsed = False
    token = await account.paypal.fetch_token(connection(account.paypal, InProcess(account.vendor)))
    account.http = connection(account.paypal, SignedIn(account.vendor, token.value.reveal()))

    again = await account.paypal.authorize(account.http, ours)

    assert again.status is PaymentStatus.AUTHORIZED
    assert len(account.vendor.orders[ours.vendor_id].authorizations) == 1


@pytest.mark.parametrize("key", ["capture-1", "capture-2"])
async def test_a_lost_answer_while_what_is_set_aside_is_captured_moves_money_once(account: Account, key: str) -> None:
    # given
    ours = await set_aside(account)
    account.vendor.faults.on("paypal", "authorizations.capture").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await account.paypal.capture(account.http, ours, PRICE, key="capture-1")

    # when
    snapshot = await account.paypal.capture(account.http, ours, PRICE, key=key)

    # then
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PAID, PRICE)
    account.vendor.ledger.exactly_once(charge(reference="consultation-4711"))


async def test_after_money_moved_nothing_is_asked_that_could_fail(account: Account) -> None:
    """A look that is refused would say that nothing happened."""
    ours = await set_aside(account)
    account.vendor.faults.on("paypal", "payments.fetch").script(None, None, Status(429))  # the third look
    snapshot = await account.paypal.capture(account.http, ours, PRICE, key="capture-1")
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PAID, PRICE)


async def test_what_is_set_aside_is_let_go_of(account: Account) -> None:
    # given
    ours = await set_aside(account)
    account.vendor.faults.on("paypal", "authorizations.void").script(Reset())

    # when
    with pytest.raises(OutcomeUnknown):
        await account.paypal.revoke(account.http, ours)
    released = await account.paypal.revoke(account.http, ours)
    again = await account.paypal.revoke(account.http, ours)

    # then
    assert released.status is again.status is PaymentStatus.CANCELED
    [held] = account.vendor.orders[ours.vendor_id].authorizations
    assert held.status == "VOIDED"


async def test_why_paypal_did_not_set_it_aside_is_told(account: Account) -> None:
    # given
    ours = await approved_to_set_aside(account)
    account.vendor.hold(ours.vendor_id)

    # when
    reviewed = await account.paypal.authorize(account.http, ours)
    account.vendor.deny(ours.vendor_id)
    denied = await account.paypal.fetch(account.http, ours.vendor_id)

    # then
    assert (reviewed.status, reviewed.reason) == (PaymentStatus.PROCESSING, "PENDING_REVIEW")
    assert (denied.status, denied.reason) == (PaymentStatus.FAILED, "DECLINED_BY_RISK_FRAUD_FILTERS")


async def test_what_was_captured_meanwhile_is_not_let_go_of(account: Account) -> None:
    ours = await set_aside(account)
    await account.paypal.capture(account.http, ours, PRICE, key="capture-1")

    snapshot = await account.paypal.revoke(account.http, ours)

    assert snapshot.status is PaymentStatus.PAID


@pytest.mark.parametrize("status", ["VOIDED", "PENDING"])
async def test_what_is_not_set_aside_is_not_captured(status: str) -> None:
    answer = paid_with(authorizations=[{"id": "0VF52814937998046", "status": status}])
    answering = canned(answer)
    with pytest.raises(Rejected, match="nothing is set aside"):
        await paypal().capture(
            connection(paypal(), answering), attempt(status=PaymentStatus.AUTHORIZED), PRICE, key="capture-1"
        )
    assert [request.method for request in answering.requests] == ["GET"]


# Refunds


async def test_money_goes_back_once_per_key_also_where_an_answer_is_lost(account: Account) -> None:
    # given
    paid, part = await account.paid(), Money("20.00", "CHF")
    account.vendor.faults.on("paypal", "payments.refund").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await account.paypal.refund(account.http, to_refund(paid.vendor_id, part))

    # when
    again = await account.paypal.refund(account.http, to_refund(paid.vendor_id, part))
    found = await account.paypal.find_refund(account.http, to_refund(paid.vendor_id, part))
    fetched = await account.paypal.fetch_refund(account.http, to_refund(paid.vendor_id), again.vendor_id)

    # then
    assert (again.status, again.money, again.key) == (RefundStatus.SUCCEEDED, part, KEY)
    assert found == fetched == again
    account.vendor.ledger.exactly_once(refund(reference="consultation-4711", amount=part))


async def test_a_refund_of_another_key_is_another_refund(account: Account) -> None:
    paid = await account.paid()
    for key in ("a" * 32, "b" * 32):
        await account.paypal.refund(account.http, to_refund(paid.vendor_id, Money("60.00", "CHF"), key))
    snapshot = await account.paypal.fetch(account.http, paid.vendor_id)
    assert (snapshot.status, snapshot.refunded) == (PaymentStatus.PAID, PRICE)
    assert await account.paypal.find_refund(account.http, to_refund(paid.vendor_id, key="c" * 32)) is None


async def test_after_the_key_is_forgotten_a_refund_that_was_made_is_still_found(account: Account) -> None:
    # given
    paid = await account.paid()
    first = await account.paypal.refund(account.http, to_refund(paid.vendor_id))
    account.vendor._payment_keys._used.clear()  # pyright: ignore[reportPrivateUsage]

    # when
    again = await account.paypal.refund(account.http, to_refund(paid.vendor_id))

    # then
    assert again == first
    account.vendor.ledger.exactly_once(refund())


async def test_more_than_is_left_is_refused_by_name(account: Account) -> None:
    paid = await account.paid()
    with pytest.raises(Rejected) as caught:
        await account.paypal.refund(account.http, to_refund(paid.vendor_id, Money("120.01", "CHF")))
    assert caught.value.code == "REFUND_AMOUNT_EXCEEDED"
    account.vendor.ledger.never(refund())


async def test_what_was_not_captured_cannot_go_back(account: Account) -> None:
    made = await account.create()
    with pytest.raises(Rejected, match="nothing of order"):
        await account.paypal.refund(account.http, to_refund(made.vendor_id))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("PENDING", RefundStatus.PENDING),
        ("COMPLETED", RefundStatus.SUCCEEDED),
        ("FAILED", RefundStatus.FAILED),
        ("CANCELLED", RefundStatus.CANCELED),
        ("INVENTED_TOMORROW", RefundStatus.UNKNOWN),
    ],
)
async def test_a_refund_means_what_the_table_says(theirs: str, ours: RefundStatus) -> None:
    answering = canned({"id": "1JU08902781691411", "status": theirs, "custom_id": f"{ATTEMPT}.{KEY}"})
    found = await paypal().fetch_refund(connection(paypal(), answering), to_refund("o"), "1JU08902781691411")
    assert (found.status, found.key) == (ours, KEY)


# Errors


def failed(name: str, issue: str = "") -> dict[str, JsonOut]:
    details: list[JsonOut] = [{"issue": issue, "description": f"about {issue}"}] if issue else []
    return {"name": name, "message": "General words.", "debug_id": "b1d1f06c7246c", "details": details}


def unprocessable(issue: str) -> dict[str, JsonOut]:
    return failed("UNPROCESSABLE_ENTITY", issue)


def conflict(issue: str) -> dict[str, JsonOut]:
    return failed("RESOURCE_CONFLICT", issue)


@pytest.mark.parametrize(
    ("status", "answer", "error", "code"),
    [
        (400, failed("INVALID_REQUEST", "MISSING_REQUIRED_PARAMETER"), Rejected, "MISSING_REQUIRED_PARAMETER"),
        (401, failed("AUTHENTICATION_FAILURE"), CredentialRefused, "AUTHENTICATION_FAILURE"),
        (401, {"error": "invalid_token", "error_description": "expired"}, CredentialRefused, "invalid_token"),
        (403, failed("NOT_AUTHORIZED", "PERMISSION_DENIED"), Rejected, "PERMISSION_DENIED"),
        (404, failed("RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"), Rejected, "INVALID_RESOURCE_ID"),
        (409, conflict("PREVIOUS_REQUEST_IN_PROGRESS"), OutcomeUnknown, "PREVIOUS_REQUEST_IN_PROGRESS"),
        (422, unprocessable("DUPLICATE_INVOICE_ID"), Rejected, "DUPLICATE_INVOICE_ID"),
        (422, unprocessable("ORDER_COMPLETION_IN_PROGRESS"), OutcomeUnknown, "ORDER_COMPLETION_IN_PROGRESS"),
        (422, unprocessable("PAYEE_ACCOUNT_RESTRICTED"), CredentialRefused, "PAYEE_ACCOUNT_RESTRICTED"),
        (422, unprocessable(""), Rejected, "UNPROCESSABLE_ENTITY"),
        (429, failed("RATE_LIMIT_REACHED"), Throttled, "RATE_LIMIT_REACHED"),
        (500, failed("INTERNAL_SERVER_ERROR"), OutcomeUnknown, "INTERNAL_SERVER_ERROR"),
        (503, failed("SERVICE_UNAVAILABLE"), OutcomeUnknown, "SERVICE_UNAVAILABLE"),
        (502, "<html>", OutcomeUnknown, ""),
        (422, {"name": 7, "details": ["x"]}, Rejected, ""),
    ],
)
async def test_an_error_means_what_the_table_says(
    status: int, answer: JsonOut, error: type[CallFailed], code: str
) -> None:
    headers = (("paypal-debug-id", "b1d1f06c7246c"),)
    answering = replace(canned(answer, status), headers=headers)
    with pytest.raises(error) as caught:
        await paypal().create(connection(paypal(), answering), offer_request(PRICE))
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.request_id) == (code, "b1d1f06c7246c")
    assert PayPalSimulator.client_secret not in str(caught.value)


async def test_of_an_error_the_issue_is_said_and_not_the_general_words() -> None:
    answering = canned(failed("UNPROCESSABLE_ENTITY", "PAYER_CANNOT_PAY"), 422)
    with pytest.raises(Rejected, match="about PAYER_CANNOT_PAY") as caught:
        await paypal().create(connection(paypal(), answering), offer_request(PRICE))
    assert caught.value.reason == "declined"


async def test_an_order_that_lapsed_is_not_found(account: Account) -> None:
    made = await account.create()
    await account.clock.advance(3 * 3600)
    with pytest.raises(Rejected) as caught:
        await account.paypal.fetch(account.http, made.vendor_id)
    assert caught.value.status == 404


# Disputes and history


async def test_disputes_of_a_payment_are_told_with_their_end(account: Account) -> None:
    # given
    paid = await account.paid()
    dispute = account.vendor.dispute(paid.vendor_id)

    # when
    [opened] = await account.paypal.disputes(account.http, attempt(paid.vendor_id))
    account.vendor.resolve(dispute, "RESOLVED_BUYER_FAVOUR")
    [lost] = await account.paypal.disputes(account.http, attempt(paid.vendor_id))

    # then
    assert (opened.status, opened.money, opened.vendor_id) == (DisputeStatus.OPEN, PRICE, dispute.id)
    assert opened.answer_by == NOON + timedelta(days=10)
    assert lost.status is DisputeStatus.LOST


@pytest.mark.parametrize(
    ("status", "outcome", "ours"),
    [
        ("OPEN", "", DisputeStatus.OPEN),
        ("WAITING_FOR_SELLER_RESPONSE", "", DisputeStatus.OPEN),
        ("WAITING_FOR_BUYER_RESPONSE", "", DisputeStatus.UNDER_REVIEW),
        ("UNDER_REVIEW", "", DisputeStatus.UNDER_REVIEW),
        ("RESOLVED", "RESOLVED_SELLER_FAVOUR", DisputeStatus.WON),
        ("RESOLVED", "CANCELED_BY_BUYER", DisputeStatus.WON),
        ("RESOLVED", "ACCEPTED", DisputeStatus.LOST),
        ("RESOLVED", "NONE", DisputeStatus.UNDER_REVIEW),
        ("INVENTED_TOMORROW", "", DisputeStatus.UNDER_REVIEW),
    ],
)
async def test_a_dispute_means_what_the_table_says(
    account: Account, status: str, outcome: str, ours: DisputeStatus
) -> None:
    paid = await account.paid()
    dispute = account.vendor.dispute(paid.vendor_id)
    dispute.status, dispute.outcome = status, outcome
    [found] = await account.paypal.disputes(account.http, attempt(paid.vendor_id))
    assert found.status is ours


async def lines(account: Account, since: datetime, until: datetime) -> list[StatementLine]:
    return [line async for line in account.paypal.statement(account.http, since, until)]


async def signed_in_anew(account: Account) -> None:
    token = await account.paypal.fetch_token(connection(account.paypal, InProcess(account.vendor)))
    account.http = connection(account.paypal, SignedIn(account.vendor, token.value.reveal()))


async def test_the_history_has_what_moved_with_our_names(account: Account) -> None:
    # given
    paid = await account.paid()
    back = await account.paypal.refund(account.http, to_refund(paid.vendor_id, Money("20.00", "CHF")))
    assert await lines(account, NOON, NOON + timedelta(days=1)) == []  # up to three hours late
    await account.clock.advance(4 * 3600)

    # when
    found = {line.kind: line for line in await lines(account, NOON, NOON + timedelta(days=1))}

    # then
    taken, given_back = found[LineKind.PAYMENT], found[LineKind.REFUND]
    assert (taken.payment_id, taken.money, taken.at) == (paid.vendor_id, PRICE, NOON)
    assert (taken.attempt_id, taken.reference) == (ATTEMPT, "consultation-4711")
    assert (given_back.vendor_id, given_back.payment_id) == (back.vendor_id, taken.vendor_id)
    assert (given_back.money, given_back.attempt_id) == (Money("20.00", "CHF"), ATTEMPT)


async def test_a_long_history_is_asked_for_a_month_at_a_time(account: Account) -> None:
    # given
    await account.paid()
    await account.clock.advance(timedelta(days=60).total_seconds())
    await signed_in_anew(account)
    # when: the capture is the last moment of one month and would be the first of the next
    found = await lines(account, NOON - timedelta(days=31), account.clock.now())

    # then
    asked = [
        Request(method="GET", target=one.target).query for one in account.vendor.requests if "report" in one.target
    ]
    spans = [datetime.fromisoformat(one["end_date"]) - datetime.fromisoformat(one["start_date"]) for one in asked]
    assert len(found) == 1
    assert max(spans) == timedelta(days=31)
    assert timedelta(days=91) - sum(spans, timedelta()) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"transaction_status": "P"}, 0),
        ({"transaction_status": "D"}, 0),
        ({"transaction_event_code": "T0400"}, 0),
        ({"transaction_event_code": "T1201"}, 1),
        ({"transaction_amount": "12"}, 0),
    ],
    ids=str,
)
async def test_a_history_may_hold_anything(changes: dict[str, JsonOut], count: int) -> None:
    row: dict[str, JsonOut] = {
        "transaction_id": "5TY05013RG002845M",
        "transaction_event_code": "T0006",
        "transaction_initiation_date": "2026-03-02T12:00:00+0000",
        "transaction_amount": {"currency_code": "CHF", "value": "-12.00"},
        "transaction_status": "S",
    }
    answering = canned({"transaction_details": [{"transaction_info": row | changes}, {}], "total_pages": 1})
    http = connection(paypal(), answering)
    found = [line async for line in paypal().statement(http, NOON, NOON + timedelta(days=1))]
    assert [line.money for line in found] == [Money("12.00", "CHF")] * count


# Webhooks and the list of them


async def test_an_event_says_whose_it_is_and_never_what_state_it_is_in(account: Account) -> None:
    # given
    paid = await account.paid()
    await account.paypal.refund(account.http, to_refund(paid.vendor_id, Money("20.00", "CHF")))
    account.vendor.dispute(paid.vendor_id)

    # when
    told = [account.paypal.parse(incoming(webhook.body))[0] for webhook in account.vendor.outbox]

    # then
    assert [(one.type, one.vendor_id) for one in told] == [
        ("CHECKOUT.ORDER.APPROVED", paid.vendor_id),
        ("PAYMENT.CAPTURE.COMPLETED", paid.vendor_id),
        ("PAYMENT.CAPTURE.REFUNDED", ""),
        ("CUSTOMER.DISPUTE.CREATED", ""),
    ]
    assert {one.reference for one in told} == {"consultation-4711"}
    assert all(one.facts and one.facts["attempt_id"] == ATTEMPT and one.recognised for one in told)
    assert len({one.dedup_key for one in told}) == 4


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b"[]", b"7", b"\xff", b'{"id":"WH-1"}', b'{"id":"","event_type":"x"}']
)
def test_a_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        paypal().parse(incoming(body))


def test_an_event_nobody_knows_is_kept() -> None:
    body = b'{"id":"WH-1","event_type":"BILLING.PLAN.CREATED","resource":{"id":"P-1","supplementary_data":null}}'
    [told] = paypal().parse(incoming(body))
    assert (told.type, told.recognised, told.dedup_key) == ("BILLING.PLAN.CREATED", False, "WH-1")


async def listed(account: Account, since: datetime) -> list[Delivery]:
    return [delivery async for delivery in account.paypal.list_deliveries(account.http, since)]


async def test_what_happened_is_listed_as_its_webhook_tells_it_page_by_page(account: Account) -> None:
    # given
    for number in range(60):
        made = await account.create(reference=f"order-{number}", attempt_id=f"attempt-{number}")
        account.vendor.pay(made.vendor_id)
        await account.capture(made.vendor_id, key=f"capture-{number}")
    told = [account.paypal.parse(incoming(webhook.body))[0] for webhook in account.vendor.outbox]

    # when
    found = await listed(account, NOON)

    # then
    assert {(one.dedup_key, one.digest, one.vendor_id) for one in found} == {
        (one.dedup_key, one.digest, one.vendor_id) for one in told
    }
    assert len(found) == 120
    assert await listed(account, NOON + timedelta(seconds=1)) == []


async def test_a_next_page_elsewhere_gets_neither_our_token_nor_a_second_look() -> None:
    # given
    elsewhere = "https://evil.example/v1/notifications/webhooks-events?page_size=100&cursor=2"
    answering = canned(
        {"events": [{"id": "WH-1", "event_type": "x"}, "?"], "links": [{"rel": "next", "href": elsewhere}]}
    )

    # when
    found = [one async for one in paypal().list_deliveries(connection(paypal(), answering), NOON)]

    # then
    assert {urlsplit(request.url).netloc for request in answering.requests} == {"127.0.0.1"}
    assert [parse_qs(urlsplit(request.url).query).get("cursor") for request in answering.requests] == [None, ["2"]]
    assert len(found) == 2


# The postback


async def told(account: Account) -> tuple[bytes, Mapping[str, str]]:
    """What is kept of a genuine delivery."""
    made = await account.create()
    account.vendor.pay(made.vendor_id)
    body = account.vendor.outbox[-1].body
    headers = account.vendor.sign(body, secret=account.vendor.webhook_secret, at=account.clock.now())
    [delivery] = account.paypal.parse(incoming(body, *headers))
    return delivery.body, delivery.facts or {}


async def test_paypal_is_asked_with_the_very_bytes_that_came(account: Account) -> None:
    # given
    body, facts = await told(account)

    # when
    genuine = await account.paypal.verify_webhook(account.http, body, facts)
    sent = account.vendor.requests[-1].body
    spaced = await account.paypal.verify_webhook(account.http, json.dumps(json.loads(body)).encode(), facts)

    # then
    assert genuine
    assert sent.endswith(b',"webhook_event":' + body + b"}")
    assert not spaced


async def test_the_postback_fits_the_published_description(account: Account) -> None:
    schema = spec("notifications_webhooks_v1", "verify_webhook_signature")
    body, facts = await told(account)
    await account.paypal.verify_webhook(account.http, body, facts)
    Draft202012Validator(schema).validate(json.loads(account.vendor.requests[-1].body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'{"id":1},"webhook_id":"THEIRS",{"x":1}',
        b'{"id":1},"webhook_id":"THEIRS"',
        b'{"id":1}}',
        '{"id":1}'.encode("utf-16"),
        b"\xff",
    ],
)
async def test_what_is_no_object_by_itself_is_never_put_between_our_own_words(account: Account, body: bytes) -> None:
    _, facts = await told(account)
    asked = len(account.vendor.requests)
    assert not await account.paypal.verify_webhook(account.http, body, facts)
    assert len(account.vendor.requests) == asked


async def test_a_delivery_without_its_transmission_cannot_be_confirmed(account: Account) -> None:
    body, facts = await told(account)
    assert not await account.paypal.verify_webhook(account.http, body, {**facts, "transmission_sig": ""})


# Shapes


@pytest.mark.parametrize(
    ("name", "schema", "path"),
    [
        ("checkout_orders_v2", "order", "/v2/checkout/orders/{order}"),
        ("payments_payment_v2", "capture", "/v2/payments/captures/{capture}"),
        ("payments_payment_v2", "refund", "/v2/payments/refunds/{refund}"),
        ("notifications_webhooks_v1", "event", "/v1/notifications/webhooks-events/{event}"),
        ("notifications_webhooks_v1", "EventList", "/v1/notifications/webhooks-events"),
    ],
)
async def test_the_simulator_answers_as_published(account: Account, name: str, schema: str, path: str) -> None:
    # given
    document = spec(name, schema)
    paid = await account.paid(return_url="https://shop.example")
    back = await account.paypal.refund(account.http, to_refund(paid.vendor_id))
    capture = account.vendor.orders[paid.vendor_id].captures[0]
    ids = {"order": paid.vendor_id, "capture": capture.id, "refund": back.vendor_id}
    token = next(one for one in account.vendor.requests if one.header("authorization") and "/v2/" in one.target)

    # when
    target = path.format(**ids, event=account.vendor.events[0]["id"])
    answer = account.vendor.handle(Request(method="GET", target=target, headers=token.headers))

    # then
    assert answer.status == 200
    Draft202012Validator(document).validate(json.loads(answer.body))


async def test_without_a_preference_an_answer_is_short_and_a_key_is_asked_for(account: Account) -> None:
    token = account.vendor.requests[0]
    await account.create()
    signed = next(one for one in account.vendor.requests if one is not token)
    bare = [header for header in signed.headers if header[0] not in ("prefer", "paypal-request-id")]

    keyed = account.vendor.handle(replace(signed, headers=(*bare, ("PayPal-Request-Id", "k"))))
    unkeyed = account.vendor.handle(replace(signed, headers=bare))

    assert set(json.loads(keyed.body)) == {"id", "status", "links"}
    assert json.loads(unkeyed.body)["details"][0]["issue"] == "PAYPAL_REQUEST_ID_REQUIRED"
