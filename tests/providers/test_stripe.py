"""Stripe: a page per attempt, found again when its answer is lost; money in Stripe's own units; events are hints."""

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import stripe as sdk
from pydantic import BaseModel
from stripe import params
from stripe.params import checkout

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    InvalidInput,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.iso4217 import EXPONENTS
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, AttemptState, Capture, Payer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    DisputeStatus,
    LineKind,
    Lookup,
    PaymentProvider,
    Refunding,
    RefundRequest,
    SupportsCapture,
    SupportsDisputes,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    SupportsStatements,
)
from holdfast.providers import Stripe
from holdfast.providers.stripe.amounts import CURRENCIES, from_wire, to_wire
from holdfast.providers.stripe.objects import (
    COMPLETED,
    DISPUTES,
    EVENTS,
    PAGES,
    SETTLED,
    Charge,
    Dispute,
    Intent,
    Line,
    Refund,
    Session,
)
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Html, Reset, Status
from holdfast.testing.faults import Refused as NotListening
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.forgeries import Manner, forgeries
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.stripe import Limits, StripeSimulator
from holdfast.values import Money, Secret, Secrets
from tests.providers.connection import NOON, Canned, Unguarded, canned, connection, incoming, offer_request

T = TypeVar("T")
S = PaymentStatus

KEY = "sk_test_51" + "k" * 40
HOOK_SECRET = "whsec_" + "s" * 32
THANKS = "https://shop.example/thanks"
DOOR = "https://shop.example/webhooks"
DUE = Money("120.00", "CHF")
FIXTURES = Path(__file__).parents[3] / "shared" / "specs" / "payments" / "stripe" / "fixtures3.json"

CHARGE: dict[str, JsonOut] = {"id": "ch_1", "amount": 12_000, "amount_captured": 12_000, "currency": "chf"}
INTENT: dict[str, JsonOut] = {
    "id": "pi_1",
    "status": "succeeded",
    "amount": 12_000,
    "amount_received": 12_000,
    "currency": "chf",
    "livemode": False,
    "metadata": {"attempt": "att_5f2c"},
    "latest_charge": CHARGE,
}
PAGE: dict[str, JsonOut] = {
    "id": "cs_1",
    "url": "https://checkout.stripe.com/c/pay/cs_1",
    "status": "open",
    "payment_status": "unpaid",
    "amount_total": 12_000,
    "currency": "chf",
    "expires_at": int(NOON.timestamp()) + 1800,
    "livemode": False,
    "metadata": {"attempt": "att_5f2c", "reference": "consultation-4711"},
    "payment_intent": None,
}
COMPLETE: dict[str, JsonOut] = PAGE | {"status": "complete", "url": None, "payment_intent": INTENT}


def simulator(clock: ManualClock | None = None, *, webhook_url: str = "") -> StripeSimulator:
    return StripeSimulator(
        api_key=KEY,
        webhook_secret=HOOK_SECRET,
        webhook_url=webhook_url,
        clock=clock or ManualClock(NOON),
        limits=Limits(calls=0),
    )


@pytest.fixture
def vendor() -> StripeSimulator:
    return simulator()


@pytest.fixture
def stripe() -> Stripe:
    return Stripe(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), return_url=THANKS)


def request(price: Money = DUE, **changes: object) -> Any:
    hour = timedelta(hours=1)
    return offer_request(price, **({"expires_in": hour, "expires_at": NOON + hour} | changes))


def attempt(vendor_id: str = "", id: str = "att_5f2c", price: Money = DUE) -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="stripe",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=price,
        claimed_at=NOON,
        claimed_until=NOON + timedelta(seconds=8),
        expires_at=NOON + timedelta(hours=1),
        vendor_id=vendor_id,
    )


def back(vendor_id: str, money: Money = DUE, key: str = "r1", **changes: Any) -> RefundRequest:
    return RefundRequest(
        reference="consultation-4711", attempt_id="att_5f2c", vendor_id=vendor_id, key=key, money=money, **changes
    )


# Facts


def test_it_can_do_everything_but_quote(stripe: Stripe) -> None:
    provider: PaymentProvider = stripe
    able = provider.capabilities
    for protocol in (
        SupportsLookup,
        SupportsRevoking,
        SupportsCapture,
        SupportsRefunds,
        SupportsRefundLookup,
        SupportsDisputes,
        SupportsStatements,
        SupportsListing,
    ):
        assert isinstance(provider, protocol)
    assert (able.lookup, able.refunding, able.revocable) == (Lookup.AUTHORITATIVE, Refunding.API, True)
    assert able.key_window == able.capture_key_window == able.refund_key_window == timedelta(hours=24)


@pytest.mark.parametrize(
    ("key", "base_url", "live"),
    [
        ("sk_live_51abc", "https://api.stripe.com", True),
        ("rk_live_51abc", "https://api.stripe.com", True),
        ("sk_test_51abc", "https://api.stripe.com", False),
        ("rk_test_51abc", "https://api.stripe.com", False),
        ("sk_live_51_test_", "https://api.stripe.com", True),
        ("of-a-kind-yet-to-come", "https://api.stripe.com", True),
        ("sk_live_51abc", "http://127.0.0.1:12111", False),
    ],
)
def test_money_is_real_unless_the_key_or_the_address_says_otherwise(key: str, base_url: str, live: bool) -> None:
    assert Stripe(api_key=Secret(key), webhook_secret=Secrets("whsec_x"), base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_to-hide")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_new-to-hide,whsec_old-to-hide")
    monkeypatch.setenv("STRIPE_RETURN_URL", THANKS)

    # when
    stripe = Stripe.from_env()

    # then
    assert (stripe.return_url, stripe.base_url, stripe.live) == (THANKS, "https://api.stripe.com", False)
    assert stripe.headers()["authorization"] == "Bearer sk_test_to-hide"
    assert [secret.reveal() for secret in stripe.webhook_secrets] == ["whsec_new-to-hide", "whsec_old-to-hide"]
    assert "to-hide" not in repr(stripe)


@pytest.mark.parametrize("missing", ["STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_x")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        Stripe.from_env()


# Money


@pytest.mark.parametrize(
    ("money", "wire"),
    [
        (Money("120.05", "CHF"), 12_005),
        (Money(5000, "XOF"), 5000),
        (Money(980, "JPY"), 980),
        (Money("1.230", "KWD"), 1230),
        (Money("5.00", "MGA"), 5),
        (Money(5, "ISK"), 500),
        (Money(5, "UGX"), 500),
        (Money("90071992547409931234567890.01", "USD"), 9007199254740993123456789001),
    ],
    ids=str,
)
def test_an_amount_is_counted_in_stripes_own_units_and_back(money: Money, wire: int) -> None:
    assert to_wire(money) == wire
    assert from_wire(wire, money.currency.lower()) == money


@pytest.mark.parametrize(
    "money",
    [
        Money("1.234", "KWD"),
        Money("5.20", "MGA"),
        Money.from_sat(2100),
        Money("1.000", "IQD"),
        Money("1.0000", "CLF"),
        Money(1, "UYI"),
    ],
    ids=str,
)
async def test_what_stripe_has_no_exact_number_for_is_refused_before_anything_is_sent(
    stripe: Stripe, money: Money
) -> None:
    asked = canned(PAGE)
    with pytest.raises(InvalidMoney):
        await stripe.create(connection(stripe, asked), request(money))
    assert not asked.requests


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
async def test_every_currency_it_takes_is_exact_on_the_way_there_and_back(stripe: Stripe, currency: str) -> None:
    # given
    vendor, price = simulator(), Money(75_000, currency)
    http = connection(stripe, InProcess(vendor))

    # when
    created = await stripe.create(http, request(price))
    vendor.pay(created.vendor_id)
    paid = await stripe.fetch(http, created.vendor_id)

    # then
    assert vendor.ledger.exactly_once(charge(reference="consultation-4711")).money == price
    assert (created.price, paid.price, paid.received) == (price, price, price)


def test_every_currency_it_takes_is_one_of_ours() -> None:
    assert set(EXPONENTS) >= CURRENCIES
    assert len(CURRENCIES) > 130


@pytest.mark.parametrize(("amount", "currency"), [(540, "isk"), (1, "xyz")])
async def test_a_price_that_cannot_be_is_a_mismatch(stripe: Stripe, amount: int, currency: str) -> None:
    answer = PAGE | {"amount_total": amount, "currency": currency}
    with pytest.raises(Mismatch):
        await stripe.fetch(connection(stripe, canned(answer)), "cs_1")


# Creating


async def test_the_request_on_the_wire_is_exactly_this(stripe: Stripe) -> None:
    # given
    asked = canned(PAGE)

    # when
    snapshot = await stripe.create(connection(stripe, asked), request(return_url="https://shop.example/done"))

    # then
    [sent] = asked.requests
    headers = dict(sent.headers)
    assert (sent.method, sent.url) == ("POST", "https://api.stripe.com/v1/checkout/sessions")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"] == "att_5f2c"
    assert headers["stripe-version"] == "2026-10-28.endive"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(sent.content.decode())) == {
        "mode": "payment",
        "client_reference_id": "consultation-4711",
        "success_url": "https://shop.example/done",
        "expires_at": str(int(NOON.timestamp()) + 3600),
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "chf",
        "line_items[0][price_data][unit_amount]": "12000",
        "line_items[0][price_data][product_data][name]": "Consultation",
        "payment_intent_data[description]": "Consultation",
        "metadata[attempt]": "att_5f2c",
        "metadata[reference]": "consultation-4711",
        "payment_intent_data[metadata][attempt]": "att_5f2c",
        "payment_intent_data[metadata][reference]": "consultation-4711",
    }
    assert (snapshot.vendor_id, snapshot.status, snapshot.price) == ("cs_1", S.PENDING, DUE)
    assert snapshot.offer
    assert snapshot.offer.checkout_url == "https://checkout.stripe.com/c/pay/cs_1"
    assert snapshot.offer.expires_at == NOON + timedelta(minutes=30)


async def test_stripe_writes_to_the_payer_only_where_the_caller_names_one(stripe: Stripe) -> None:
    asked = canned(PAGE)
    await stripe.create(connection(stripe, asked), request(description="mail me at a@b.ch"))
    await stripe.create(connection(stripe, asked), request(payer=Payer(email="ada@example.com")))

    silent, told = (parse_qs(sent.content.decode()) for sent in asked.requests)
    assert not [name for name in silent if "email" in name]
    assert told["customer_email"] == told["payment_intent_data[receipt_email]"] == ["ada@example.com"]


async def test_without_a_place_to_return_to_nothing_is_sent(vendor: StripeSimulator) -> None:
    stripe = Stripe(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET))
    with pytest.raises(InvalidInput, match="return_url"):
        await stripe.create(connection(stripe, InProcess(vendor)), request())
    assert not vendor.requests


@pytest.mark.parametrize("hours", [1, 24, 72])
async def test_a_page_lives_as_long_as_asked_for_and_as_stripe_allows(
    stripe: Stripe, vendor: StripeSimulator, hours: int
) -> None:
    # given
    vendor.clock = ManualClock(NOON - timedelta(seconds=20))  # theirs is behind ours
    wanted = timedelta(hours=hours)

    # when
    asked = request(expires_in=wanted, expires_at=NOON + wanted)
    snapshot = await stripe.create(connection(stripe, InProcess(vendor)), asked)

    # then
    assert snapshot.offer
    assert snapshot.offer.expires_at == NOON + min(wanted, timedelta(hours=23, minutes=55))


# Fetching


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (PAGE, S.PENDING),
        (PAGE | {"status": "expired", "url": None}, S.EXPIRED),
        (PAGE | {"status": "invented-tomorrow"}, S.UNKNOWN),
        (PAGE | {"status": None}, S.UNKNOWN),
        (COMPLETE, S.PAID),
        (COMPLETE | {"payment_intent": "pi_1", "payment_status": "paid"}, S.PAID),
        (COMPLETE | {"payment_intent": "pi_1", "payment_status": "unpaid"}, S.PROCESSING),
        (COMPLETE | {"payment_intent": None, "payment_status": "no_payment_required"}, S.UNKNOWN),
        (COMPLETE | {"payment_intent": INTENT | {"status": "requires_payment_method"}}, S.FAILED),
        (COMPLETE | {"payment_intent": INTENT | {"status": "requires_confirmation"}}, S.PROCESSING),
        (COMPLETE | {"payment_intent": INTENT | {"status": "requires_action"}}, S.PROCESSING),  # a voucher is out
        (COMPLETE | {"payment_intent": INTENT | {"status": "processing"}}, S.PROCESSING),
        (COMPLETE | {"payment_intent": INTENT | {"status": "requires_capture"}}, S.AUTHORIZED),
        (COMPLETE | {"payment_intent": INTENT | {"status": "canceled"}}, S.CANCELED),
        (COMPLETE | {"payment_intent": INTENT | {"status": "invented-tomorrow"}}, S.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_tables_say(stripe: Stripe, page: dict[str, JsonOut], status: S) -> None:
    snapshot = await stripe.fetch(connection(stripe, canned(page)), "cs_1")
    assert (snapshot.vendor_id, snapshot.status, snapshot.price) == ("cs_1", status, DUE)
    assert (snapshot.attempt_id, snapshot.live) == ("att_5f2c", False)


async def test_a_decline_on_an_open_page_leaves_it_open(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.decline(created.vendor_id, "insufficient_funds")
    assert (await stripe.fetch(http, created.vendor_id)).status is S.PENDING


@pytest.mark.parametrize(
    ("succeeds", "status", "reason"), [(True, S.PAID, ""), (False, S.FAILED, "insufficient_funds")]
)
async def test_a_debit_that_takes_days_is_processing_until_it_is_paid_or_failed(
    stripe: Stripe, vendor: StripeSimulator, succeeds: bool, status: S, reason: str
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay_later(created.vendor_id)
    during = await stripe.fetch(http, created.vendor_id)

    # when
    vendor.settle(created.vendor_id, succeeds=succeeds)
    after = await stripe.fetch(http, created.vendor_id)

    # then
    assert (during.status, during.received) == (S.PROCESSING, None)
    assert (after.status, after.reason) == (status, reason)


async def test_what_went_back_is_disputed_and_kept_is_told(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    fresh = await stripe.fetch(http, created.vendor_id)

    # when
    await stripe.refund(http, back(created.vendor_id, Money("20.00", "CHF")))
    dispute = vendor.dispute(created.vendor_id, amount=10_000)
    contested = await stripe.fetch(http, created.vendor_id)
    vendor.close_dispute(dispute, won=True)
    won = await stripe.fetch(http, created.vendor_id)

    # then
    assert (fresh.refunded, fresh.disputed, fresh.fee) == (Money(0, "CHF"), None, Money("3.78", "CHF"))
    assert (contested.refunded, contested.disputed) == (Money("20.00", "CHF"), Money("100.00", "CHF"))
    assert won.disputed is None


async def test_an_id_cannot_leave_its_path(stripe: Stripe) -> None:
    asked = canned(PAGE)
    await stripe.fetch(connection(stripe, asked), "cs_1/expire?x=#")
    assert asked.requests[0].url.startswith("https://api.stripe.com/v1/checkout/sessions/cs_1%2Fexpire%3Fx%3D%23?")


# Looking up, and taking back


async def test_what_was_asked_for_is_found_by_our_id_as_soon_as_it_exists(
    stripe: Stripe, vendor: StripeSimulator
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    ours = await stripe.create(http, request())
    for number in range(130):  # more than a page of a list
        await stripe.create(http, request(attempt_id=f"att_{number}"))

    # when
    found, absent = await stripe.find(http, attempt()), await stripe.find(http, attempt(id="att_unheard-of"))

    # then
    assert found
    assert (found.vendor_id, found.offer) == (ours.vendor_id, ours.offer)
    assert absent is None
    assert [asked.path for asked in list(vendor.requests)[-4:]] == ["/v1/checkout/sessions"] * 4


async def test_only_what_was_made_while_we_asked_is_looked_through(stripe: Stripe) -> None:
    asked = canned({"data": [], "has_more": False})

    await stripe.find(connection(stripe, asked), attempt())

    asks = dict(parse_qsl(urlsplit(asked.requests[0].url).query))
    now = int(NOON.timestamp())
    assert (int(asks["created[gte]"]), int(asks["created[lte]"])) == (now - 60, now + 8 + 60)


async def test_a_page_nobody_can_read_does_not_hide_the_others(stripe: Stripe) -> None:
    answer: JsonOut = {"data": [{"id": "cs_0"}, 7, PAGE | {"metadata": None}, PAGE], "has_more": False}
    found = await stripe.find(connection(stripe, canned(answer)), attempt())
    assert found
    assert found.vendor_id == "cs_1"


async def test_of_two_pages_with_one_id_the_completed_one_counts(stripe: Stripe) -> None:
    answer: JsonOut = {"data": [PAGE, COMPLETE | {"id": "cs_2"}], "has_more": False}
    found = await stripe.find(connection(stripe, canned(answer)), attempt())
    assert found
    assert (found.vendor_id, found.status) == ("cs_2", S.PAID)


async def test_an_open_page_is_expired_and_expired_again_it_still_is(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())

    # when
    first, second = [await stripe.revoke(http, attempt(created.vendor_id)) for _ in range(2)]

    # then
    assert (first.status, second.status) == (S.EXPIRED, S.EXPIRED)
    with pytest.raises(LookupError, match="is expired"):
        vendor.pay(created.vendor_id)


async def test_who_paid_before_the_page_was_revoked_has_paid(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    assert (await stripe.revoke(http, attempt(created.vendor_id))).status is S.PAID


async def test_money_that_is_set_aside_is_let_go_of(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)

    # when
    snapshot = await stripe.revoke(http, attempt(created.vendor_id))

    # then
    assert (snapshot.vendor_id, snapshot.status) == (created.vendor_id, S.CANCELED)
    assert (await stripe.fetch(http, created.vendor_id)).status is S.CANCELED
    vendor.ledger.never(charge(reference="consultation-4711"))


async def test_a_page_that_stays_open_is_not_called_revoked(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.faults.on("stripe", "payments.cancel").script(Status(400))
    with pytest.raises(Rejected):
        await stripe.revoke(http, attempt(created.vendor_id))


# Capturing


async def test_a_part_is_captured_and_the_rest_is_no_refund(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http, part = connection(stripe, InProcess(vendor)), Money("70.00", "CHF")
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    assert (await stripe.fetch(http, created.vendor_id)).status is S.AUTHORIZED

    # when
    first, second = [await stripe.capture(http, attempt(created.vendor_id), part, key="c1") for _ in range(2)]
    later = await stripe.fetch(http, created.vendor_id)

    # then
    assert (first.vendor_id, first.status, first.received) == (created.vendor_id, S.PAID, part)
    assert second == first
    assert (later.price, later.received, later.refunded) == (DUE, part, Money(0, "CHF"))
    assert vendor.ledger.exactly_once(charge(reference="consultation-4711")).money == part


async def test_what_was_captured_elsewhere_is_captured(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    await stripe.capture(http, attempt(created.vendor_id), DUE, key="somebody-else's")

    snapshot = await stripe.capture(http, attempt(created.vendor_id), DUE, key="c1")

    assert (snapshot.status, snapshot.received) == (S.PAID, DUE)
    vendor.ledger.exactly_once(charge(reference="consultation-4711"))


async def test_what_was_let_go_of_cannot_be_captured(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    await stripe.revoke(http, attempt(created.vendor_id))
    with pytest.raises(Rejected) as caught:
        await stripe.capture(http, attempt(created.vendor_id), DUE, key="c1")
    assert caught.value.code == "payment_intent_unexpected_state"


async def test_a_failure_to_read_the_page_has_moved_nothing(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    vendor.faults.on("stripe", "payments.fetch").script(Reset(), Reset())

    # then
    with pytest.raises(NotSent, match="refund was not asked for"):
        await stripe.refund(http, back(created.vendor_id))
    with pytest.raises(NotSent, match="capture was not asked for"):
        await stripe.capture(http, attempt(created.vendor_id), DUE, key="c1")
    vendor.ledger.never(refund(reference="consultation-4711"))


async def test_nothing_moves_of_a_page_nobody_has_paid(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    with pytest.raises(Rejected, match="nobody has paid"):
        await stripe.refund(http, back(created.vendor_id))
    assert await stripe.disputes(http, attempt(created.vendor_id)) == ()


# Refunding


async def test_a_refund_is_one_per_key_and_found_by_it(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http, part = connection(stripe, InProcess(vendor)), Money("20.00", "CHF")
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    wanted = back(created.vendor_id, part, reason="the patient was ill " * 50)

    # when
    first, second = [await stripe.refund(http, wanted) for _ in range(2)]
    found = await stripe.find_refund(http, wanted)

    # then
    assert first == second == found == await stripe.fetch_refund(http, wanted, first.vendor_id)
    assert (first.status, first.money, first.key) == (RefundStatus.SUCCEEDED, part, "r1")
    assert await stripe.find_refund(http, back(created.vendor_id, part, "r2")) is None
    vendor.ledger.exactly_once(refund(reference="consultation-4711", amount=part))


async def test_what_went_back_under_our_key_already_is_that_refund(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    clock = ManualClock(NOON)
    vendor = simulator(clock)
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    first = await stripe.refund(http, back(created.vendor_id))
    await clock.advance(86_400)  # the key is forgotten

    # when
    again = await stripe.refund(http, back(created.vendor_id))

    # then
    assert again == first
    with pytest.raises(Rejected) as caught:
        await stripe.refund(http, back(created.vendor_id, key="r2"))
    assert caught.value.code == "charge_already_refunded"


@pytest.mark.parametrize(
    ("card", "status", "reason"),
    [
        ("4000000000007726", RefundStatus.PENDING, ""),
        ("4000000000005126", RefundStatus.FAILED, "expired_or_canceled_card"),
    ],
)
async def test_a_refund_that_is_pending_or_failed_says_so(
    stripe: Stripe, vendor: StripeSimulator, card: str, status: RefundStatus, reason: str
) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay_with(created.vendor_id, card)
    asked = await stripe.refund(http, back(created.vendor_id))
    assert (asked.status, asked.reason) == (status, reason)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", RefundStatus.PENDING),
        ("requires_action", RefundStatus.MANUAL_REQUIRED),
        ("succeeded", RefundStatus.SUCCEEDED),
        ("failed", RefundStatus.FAILED),
        ("canceled", RefundStatus.CANCELED),
        ("invented-tomorrow", RefundStatus.UNKNOWN),
    ],
)
async def test_a_refunds_status_means_what_the_table_says(stripe: Stripe, word: str, status: RefundStatus) -> None:
    answer: JsonOut = {"id": "re_1", "status": word, "amount": 500, "currency": "jpy", "metadata": {"key": "r1"}}
    snapshot = await stripe.fetch_refund(connection(stripe, canned(answer)), back("cs_1"), "re_1")
    assert (snapshot.status, snapshot.money, snapshot.key) == (status, Money(500, "JPY"), "r1")


# Disputes and statements


async def test_disputes_are_listed_with_when_an_answer_is_due(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    id = vendor.dispute(created.vendor_id)

    # when
    [open_] = await stripe.disputes(http, attempt(created.vendor_id))
    vendor.close_dispute(id, won=False)
    [lost] = await stripe.disputes(http, attempt(created.vendor_id))

    # then
    assert (open_.vendor_id, open_.status, open_.money) == (id, DisputeStatus.OPEN, DUE)
    assert (open_.reason, open_.answer_by) == ("fraudulent", NOON + timedelta(days=7))
    assert lost.status is DisputeStatus.LOST


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("warning_needs_response", DisputeStatus.OPEN),
        ("warning_under_review", DisputeStatus.UNDER_REVIEW),
        ("warning_closed", DisputeStatus.WON),
        ("needs_response", DisputeStatus.OPEN),
        ("under_review", DisputeStatus.UNDER_REVIEW),
        ("won", DisputeStatus.WON),
        ("lost", DisputeStatus.LOST),
        ("appeal_needs_response", DisputeStatus.OPEN),
        ("appeal_under_review", DisputeStatus.UNDER_REVIEW),
        ("prevented", DisputeStatus.WON),
        ("invented-tomorrow", DisputeStatus.UNDER_REVIEW),
    ],
)
async def test_a_disputes_status_means_what_the_table_says(stripe: Stripe, word: str, status: DisputeStatus) -> None:
    row: JsonOut = {"id": "du_1", "status": word, "amount": 100, "currency": "chf"}
    http = connection(stripe, canned(COMPLETE | {"data": [row], "has_more": False}))  # the page, and its list
    [dispute] = await stripe.disputes(http, attempt("cs_1"))
    assert dispute.status is status


async def test_a_statement_lists_what_moved_of_a_time_with_our_own_names(stripe: Stripe) -> None:
    # given
    clock = ManualClock(NOON)
    vendor = simulator(clock)
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    await clock.advance(60)
    await stripe.refund(http, back(created.vendor_id, Money("20.00", "CHF")))
    vendor.close_dispute(vendor.dispute(created.vendor_id), won=True)
    until = clock.now() + timedelta(seconds=1)

    # when
    lines = [line async for line in stripe.statement(http, NOON, until)]
    first_minute = [line async for line in stripe.statement(http, NOON, NOON + timedelta(seconds=60))]

    # then
    moved = sorted((line.kind, str(line.money), line.reference) for line in lines)
    assert moved == [
        (LineKind.DISPUTE, "-120.00 CHF", "consultation-4711"),
        (LineKind.DISPUTE, "120.00 CHF", "consultation-4711"),
        (LineKind.PAYMENT, "120.00 CHF", "consultation-4711"),
        (LineKind.REFUND, "-20.00 CHF", "consultation-4711"),
    ]
    assert len({line.payment_id for line in lines}) == 1
    assert {line.attempt_id for line in lines} == {"att_5f2c"}
    assert sum(asked.path.startswith("/v1/payment_intents/") for asked in vendor.requests) == 1
    [payment] = first_minute
    assert (payment.vendor_id, payment.attempt_id, payment.at) == (payment.payment_id, "att_5f2c", NOON)
    assert payment.fee == Money("3.78", "CHF")


async def test_a_statement_is_in_the_payers_currency_and_without_payouts(stripe: Stripe) -> None:
    ours: JsonOut = {"attempt": "att_5f2c"}
    source: JsonOut = {"id": "re_1", "amount": 500, "currency": "jpy", "payment_intent": "pi_1", "metadata": ours}
    line: dict[str, JsonOut] = {"id": "txn_1", "amount": -312, "currency": "chf", "created": 1, "source": source}
    rows: JsonOut = [line | {"reporting_category": word} for word in ("refund", "payout", "invented-tomorrow")]
    http = connection(stripe, canned({"data": rows, "has_more": False}))
    [only] = [line async for line in stripe.statement(http, NOON, NOON)]
    assert (only.kind, only.money, only.payment_id) == (LineKind.REFUND, Money(-500, "JPY"), "pi_1")


# What would happen if it were repeated


class Noting(Unguarded):
    """Runs an exchange once, and notes what was said of it."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Effect, object]] = []

    async def run(self, exchange: Callable[[], Awaitable[T]], **said: Any) -> T:
        self.said.append((said["operation"], said["effect"], said["key_valid"]))
        return await super().run(exchange, effect=said["effect"], operation=said["operation"])


async def test_every_exchange_says_what_a_second_one_would_do(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    guard, ours = Noting(), lambda: True
    http = Http(stripe, InProcess(vendor), guard, vendor.clock)  # type: ignore[arg-type]  # a guard by its one verb

    # when
    held = await stripe.create(http, request(capture=Capture.MANUAL, key_valid=ours))
    vendor.pay(held.vendor_id)
    await stripe.capture(http, attempt(held.vendor_id), DUE, key="c1", key_valid=ours)
    await stripe.refund(http, back(held.vendor_id, key_valid=ours))
    await stripe.revoke(http, attempt((await stripe.create(http, request(attempt_id="att_2"))).vendor_id))

    # then
    assert guard.said == [
        ("create", Effect.KEYED, ours),
        ("capture", Effect.READ, None),
        ("capture", Effect.KEYED, ours),
        ("refund", Effect.READ, None),
        ("refund", Effect.KEYED, ours),
        ("create", Effect.KEYED, None),
        ("revoke", Effect.IDEMPOTENT, None),
    ]


# Errors


def refusal(type: str, code: str | None = None, **more: JsonOut) -> JsonOut:
    return {"error": {"type": type, "code": code, "message": "Stripe says why.", **more}}


@pytest.mark.parametrize(
    ("status", "body", "error", "code", "reason"),
    [
        (400, refusal("invalid_request_error", "parameter_missing"), Rejected, "parameter_missing", ""),
        (400, refusal("idempotency_error"), Rejected, "idempotency_error", ""),
        (401, refusal("invalid_request_error"), CredentialRefused, "invalid_request_error", ""),
        (402, refusal("card_error", "expired_card"), Rejected, "expired_card", "expired_card"),
        (
            402,
            refusal("card_error", "card_declined", decline_code="lost_card"),
            Rejected,
            "card_declined",
            "lost_card",
        ),
        (403, refusal("invalid_request_error"), CredentialRefused, "invalid_request_error", ""),
        (404, refusal("invalid_request_error", "resource_missing"), Rejected, "resource_missing", ""),
        (408, refusal("api_error"), OutcomeUnknown, "api_error", ""),
        (
            409,
            refusal("idempotency_error", "idempotency_key_in_use"),
            OutcomeUnknown,
            "idempotency_key_in_use",
            "",
        ),
        (424, refusal("api_error"), OutcomeUnknown, "api_error", ""),
        (429, refusal("invalid_request_error", "rate_limit"), Throttled, "rate_limit", ""),
        (429, refusal("invalid_request_error", "lock_timeout"), Refused, "lock_timeout", ""),
        (500, refusal("api_error"), OutcomeUnknown, "api_error", ""),
        (503, refusal("api_error"), OutcomeUnknown, "api_error", ""),
        (502, "bad gateway", OutcomeUnknown, "", ""),
    ],
)
async def test_an_error_means_what_the_table_says(
    stripe: Stripe, status: int, body: JsonOut, error: type[CallFailed], code: str, reason: str
) -> None:
    with pytest.raises(error) as caught:
        await stripe.create(connection(stripe, canned(body, status)), request())
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.code, caught.value.reason) == (status, code, reason)


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        (400, {"stripe-should-retry": "true"}, OutcomeUnknown, None),
        (401, {"stripe-should-retry": "true"}, CredentialRefused, None),
        (429, {"stripe-should-retry": "true"}, Throttled, None),
        (500, {"stripe-should-retry": "true", "idempotency-key": "k"}, OutcomeUnknown, None),
        (500, {"stripe-should-retry": "false", "idempotency-key": "k"}, OutcomeUnknown, 86_400),
        (500, {"stripe-should-retry": "false"}, OutcomeUnknown, None),  # of a look, which nothing is stored of
        (409, {"stripe-should-retry": "false", "idempotency-key": "k"}, OutcomeUnknown, None),
    ],
)
async def test_stripe_says_itself_whether_to_ask_again(
    stripe: Stripe, status: int, headers: dict[str, str], error: type[CallFailed], retry_after: float | None
) -> None:
    answer = Canned(status=status, content=encode_json(refusal("api_error")), headers=tuple(headers.items()))
    with pytest.raises(error) as caught:
        await stripe.create(connection(stripe, answer), request())
    assert type(caught.value) is error
    assert caught.value.retry_after == retry_after


async def test_an_error_carries_stripes_request_id_and_no_secret(stripe: Stripe, vendor: StripeSimulator) -> None:
    coded = encode_json({"error": {"type": "api_error", "code": f"key {KEY}"}})
    worded = encode_json({"error": {"type": "api_error", "message": f"key {KEY}, hook {HOOK_SECRET}"}})
    for content in (coded, worded):
        answer = Canned(status=400, content=content, headers=(("request-id", "req_1"),))
        with pytest.raises(CallFailed) as caught:
            await stripe.create(connection(stripe, answer), request())
        assert caught.value.request_id == "req_1"
        assert KEY not in str(caught.value)
        assert HOOK_SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "error", "pages"),
    [
        (NotListening(), NotSent, 0),
        (Status(503), OutcomeUnknown, 0),
        (Status(500).after_effect(), OutcomeUnknown, 1),
        (Reset(), OutcomeUnknown, 1),
        (BadJson(), OutcomeUnknown, 1),
        (Html(), OutcomeUnknown, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_lost_answer_is_unknown_and_the_same_key_makes_no_second_page(
    stripe: Stripe, vendor: StripeSimulator, fault: Fault, error: type[CallFailed], pages: int
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    vendor.faults.on("stripe", "payments.create").script(fault)

    # when
    with pytest.raises(error):
        await stripe.create(http, request())

    # then
    assert len(vendor.ledger.entries(Kind.OFFER)) == pages
    found = await stripe.find(http, attempt())
    assert (found is not None) == bool(pages)
    if not (isinstance(fault, Status) and pages):
        await stripe.create(http, request())
        vendor.ledger.exactly_once(offer(reference="consultation-4711"))


# Webhooks


def signed(body: bytes, *, secret: str = HOOK_SECRET, at: datetime = NOON, name: str = "v1") -> tuple[str, str]:
    time = int(at.timestamp())
    digest = hmac.new(secret.encode(), f"{time}.".encode() + body, "sha256").hexdigest()
    return "stripe-signature", f"t={time},{name}={digest}"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (signed(b"{}"), ""),
        (signed(b"{}", at=NOON - timedelta(seconds=299)), ""),
        (signed(b"{}", at=NOON - timedelta(seconds=301)), "stale"),
        (signed(b"{}", at=NOON + timedelta(seconds=301)), "future"),
        (signed(b"{}", secret="whsec_other"), "wrong_signature"),
        (signed(b"{}", secret=HOOK_SECRET.removeprefix("whsec_")), "wrong_signature"),
        (signed(b"{ }"), "wrong_signature"),
        (signed(b"{}", name="v0"), "malformed_header"),
        (("stripe-signature", "\xff,=,t=,v1="), "malformed_header"),
        (("another-header", "x"), "missing_header"),
    ],
)
def test_a_signature_is_believed_or_refused_with_a_reason(stripe: Stripe, header: tuple[str, str], reason: str) -> None:
    verdict = stripe.scheme.verify(incoming(b"{}", header), stripe.webhook_secrets)
    assert (verdict.valid, verdict.reason) == (not reason, reason)


def test_while_a_secret_is_rolled_either_is_believed(stripe: Stripe) -> None:
    rolling = Stripe(api_key=Secret(KEY), webhook_secret=Secrets("whsec_new", HOOK_SECRET))
    verdict = rolling.scheme.verify(incoming(b"{}", signed(b"{}")), rolling.webhook_secrets)
    assert (verdict.valid, verdict.secret) == (True, 1)


async def test_a_delivery_is_genuine_and_no_forgery_of_it_is(stripe: Stripe, vendor: StripeSimulator) -> None:
    # given
    vendor.webhook_url = f"{DOOR}/stripe"
    created = await stripe.create(connection(stripe, InProcess(vendor)), request())
    vendor.pay(created.vendor_id)
    [webhook] = [one for one in vendor.outbox if one.event == "checkout.session.completed"]
    signature = vendor.sign(webhook.body, secret=HOOK_SECRET, at=NOON)

    # when
    arrived = incoming(webhook.body, *signature)
    reserialised = incoming(json.dumps(json.loads(webhook.body)).encode(), *signature)
    [delivery] = stripe.parse(arrived)

    # then
    assert stripe.scheme.verify(arrived, stripe.webhook_secrets).valid
    assert "re-serialised" in stripe.scheme.verify(reserialised, stripe.webhook_secrets).hint
    assert {Manner.WRONG_KEY, Manner.STALE} <= set(forgeries(vendor, webhook))
    assert (delivery.type, delivery.vendor_id) == ("checkout.session.completed", created.vendor_id)
    assert (delivery.reference, delivery.facts) == ("consultation-4711", {"attempt_id": "att_5f2c"})
    assert delivery.recognised
    assert stripe.handshake(arrived) is None


@pytest.mark.parametrize(
    ("type", "about", "recognised", "vendor_id"),
    [
        ("checkout.session.completed", {"object": "checkout.session", "id": "cs_1"}, True, "cs_1"),
        ("payment_intent.succeeded", {"object": "payment_intent", "id": "pi_1"}, True, ""),
        ("refund.updated", {"object": "refund", "id": "re_1"}, True, ""),
        ("invoice.paid", {"object": "invoice", "id": "in_1"}, False, ""),
    ],
)
def test_only_a_page_is_named_by_its_id_and_the_rest_by_the_attempt(
    stripe: Stripe, type: str, about: dict[str, JsonOut], recognised: bool, vendor_id: str
) -> None:
    for metadata in ({"attempt": "a1", "reference": "o1"}, {}, None):
        body: JsonOut = {"id": "evt_1", "type": type, "data": {"object": about | {"metadata": metadata}}}
        [delivery] = stripe.parse(incoming(encode_json(body)))
        ours = metadata is not None and bool(metadata)
        assert (delivery.dedup_key, delivery.vendor_id) == ("evt_1", vendor_id)
        assert delivery.recognised is (recognised and ours)
        assert delivery.facts == ({"attempt_id": "a1"} if ours else None)


def test_what_names_only_its_intent_leads_there(stripe: Stripe) -> None:
    about: JsonOut = {"object": "dispute", "id": "du_1", "payment_intent": "pi_1", "metadata": {}}
    body: JsonOut = {"id": "evt_1", "type": "charge.dispute.created", "data": {"object": about}}

    [delivery] = stripe.parse(incoming(encode_json(body)))

    assert (delivery.recognised, delivery.vendor_id, delivery.facts) == (True, "", {"intent": "pi_1"})


async def test_an_intent_of_somebody_else_is_none_of_ours(stripe: Stripe, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))

    assert await stripe.locate(http, {"intent": "pi_unheard_of"}) == ""
    assert await stripe.locate(http, {}) == ""


def test_a_thin_event_is_kept(stripe: Stripe) -> None:
    [delivery] = stripe.parse(incoming(b'{"id": "evt_1", "object": "v2.core.event", "type": "v2.core.account.closed"}'))
    assert (delivery.type, delivery.recognised) == ("v2.core.account.closed", False)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"paid"', b'{"id": 7}', b"\xff", b'{"id": "", "type": "x"}'])
def test_a_body_that_cannot_be_read_is_a_value_error(stripe: Stripe, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        stripe.parse(incoming(body))


async def test_what_happened_is_listed_as_its_webhooks_told_it(stripe: Stripe) -> None:
    # given
    clock = ManualClock(NOON)
    vendor = simulator(clock, webhook_url=f"{DOOR}/stripe")
    http = connection(stripe, InProcess(vendor))
    before = await stripe.create(http, request(attempt_id="att_before"))
    vendor.pay(before.vendor_id)
    await clock.advance(60)
    vendor.outbox.clear()
    for number in range(60):  # of each the page and the intent: more than a page of a list
        created = await stripe.create(http, request(attempt_id=f"att_{number}"))
        vendor.pay(created.vendor_id)
    told = [stripe.parse(incoming(webhook.body))[0] for webhook in vendor.outbox]

    # when
    found = [delivery async for delivery in stripe.list_deliveries(http, clock.now())]

    # then
    known = {(one.dedup_key, one.digest, one.vendor_id, one.recognised) for one in told if one.type in EVENTS}
    assert {(one.dedup_key, one.digest, one.vendor_id, one.recognised) for one in found} == known
    assert len(found) == 120


def test_the_kinds_fit_into_one_question() -> None:
    assert len(EVENTS) <= 20


# Over a socket


async def test_a_page_is_created_paid_refunded_and_listed_over_a_socket(vendor: StripeSimulator) -> None:
    # given
    transport = HttpxTransport()
    async with Edge(vendor) as edge:
        stripe = Stripe(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), return_url=THANKS, base_url=edge.url)
        http = connection(stripe, transport)

        # when
        created = await stripe.create(http, request(description="Größe & Co"))
        vendor.pay(created.vendor_id)
        paid = await stripe.fetch(http, created.vendor_id)
        sent_back = await stripe.refund(http, back(created.vendor_id, Money("20.00", "CHF")))
        events = [delivery.type async for delivery in stripe.list_deliveries(http, NOON)]
        await transport.aclose()

    # then
    assert (paid.status, paid.received, sent_back.status) == (S.PAID, DUE, RefundStatus.SUCCEEDED)
    assert events[-1] == "payment_intent.succeeded"
    assert "refund.created" in events


# The published description


@pytest.mark.parametrize("name", ["checkout.session", "payment_intent", "charge", "refund", "dispute"])
async def test_what_stripe_publishes_as_an_example_can_be_read(stripe: Stripe, name: str) -> None:
    if not FIXTURES.exists():
        pytest.skip("the published API descriptions are not here")
    published = json.loads(FIXTURES.read_text())["resources"]
    page = published["checkout.session"] | {"amount_total": 1099, "currency": "usd"}
    charged = published["payment_intent"] | {"latest_charge": published["charge"]}
    answers: dict[str, Any] = {
        "checkout.session": page,
        "payment_intent": page | {"status": "complete", "payment_intent": charged},
        "charge": page | {"status": "complete", "payment_intent": charged | {"status": "succeeded"}},
        "refund": published["refund"],
        "dispute": page | {"data": [published["dispute"]], "has_more": False},
    }
    http = connection(stripe, canned(answers[name]))

    if name == "refund":
        assert (await stripe.fetch_refund(http, back("cs_1"), "re_1")).money == Money("1.00", "USD")
    elif name == "dispute":
        [dispute] = await stripe.disputes(http, attempt("cs_1"))
        assert (dispute.status, dispute.answer_by) == (DisputeStatus.OPEN, datetime.fromtimestamp(1723679999, UTC))
    else:
        snapshot = await stripe.fetch(http, "cs_1")
        assert snapshot.price == Money("10.99", "USD")
        assert snapshot.status in (S.PENDING, S.FAILED, S.PAID)


# The official SDK, made of the same description as its documentation


def words(kind: type, field: str) -> set[str]:
    """The texts a field of the SDK may have."""
    parts = get_args(kind.__annotations__[field])
    return {word for word in (*parts, *(inner for part in parts for inner in get_args(part))) if isinstance(word, str)}


def test_the_version_asked_for_is_the_one_the_sdk_of_today_speaks(stripe: Stripe) -> None:
    assert stripe.api_version == sdk.api_version


def test_the_tables_know_every_word_the_sdk_knows() -> None:
    assert words(sdk.PaymentIntent, "status") == set(COMPLETED)
    assert words(sdk.Dispute, "status") == set(DISPUTES)
    assert words(sdk.checkout.Session, "status") == {*PAGES, "complete"}
    assert words(sdk.checkout.Session, "payment_status") == {*SETTLED, "no_payment_required"}
    assert set(EVENTS) <= words(sdk.Event, "type")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Session, sdk.checkout.Session),
        (Intent, sdk.PaymentIntent),
        (Charge, sdk.Charge),
        (Refund, sdk.Refund),
        (Dispute, sdk.Dispute),
        (Line, sdk.BalanceTransaction),
    ],
    ids=lambda each: each.__name__,
)
def test_every_field_that_is_read_is_one_of_the_sdks(model: type[BaseModel], kind: type) -> None:
    assert set(model.model_fields) <= set(kind.__annotations__)


async def test_every_parameter_that_is_sent_is_one_of_the_sdks(stripe: Stripe) -> None:
    # given
    nothing: list[JsonOut] = []
    asked = canned(COMPLETE | {"data": nothing, "amount": 1})
    http = connection(stripe, asked)

    # when
    await stripe.create(http, request(capture=Capture.MANUAL, payer=Payer(email="ada@example.com")))
    await stripe.find(http, attempt())
    await stripe.refund(http, back("cs_1", reason="ill"))
    await stripe.find_refund(http, back("cs_1"))
    assert [line async for line in stripe.statement(http, NOON, NOON)] == []
    assert [delivery async for delivery in stripe.list_deliveries(http, NOON)] == []

    # then
    known: Mapping[tuple[str, str], type] = {
        ("POST", "/v1/checkout/sessions"): checkout.SessionCreateParams,
        ("GET", "/v1/checkout/sessions"): checkout.SessionListParams,
        ("GET", "/v1/checkout/sessions/cs_1"): checkout.SessionRetrieveParams,
        ("POST", "/v1/refunds"): params.RefundCreateParams,
        ("GET", "/v1/refunds"): params.RefundListParams,
        ("GET", "/v1/balance_transactions"): params.BalanceTransactionListParams,
        ("GET", "/v1/events"): params.EventListParams,
    }
    seen: set[tuple[str, str]] = set()
    for sent in asked.requests:
        url = urlsplit(sent.url)
        names = {name.partition("[")[0] for name, _ in parse_qsl(url.query) + parse_qsl(sent.content.decode())}
        seen.add((sent.method, url.path))
        assert names <= set(known[sent.method, url.path].__annotations__)
    assert seen == set(known)
    inner = {
        re.match(r"payment_intent_data\[(\w+)", name) for name in dict(parse_qsl(asked.requests[0].content.decode()))
    }
    given = {found[1] for found in inner if found}
    assert given == {"description", "metadata", "capture_method", "receipt_email"}
    assert given <= set(checkout.SessionCreateParamsPaymentIntentData.__annotations__)
