"""Stripe in a form of the caller's own: an intent per attempt, whose secret is fetched and kept nowhere."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import stripe as sdk
from stripe import params

from holdfast import PaymentExpired, PaymentFailed
from holdfast.errors import InvalidInput, InvalidMoney, Mismatch, OutcomeUnknown, Rejected
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.wire import JsonOut
from holdfast.outcome import Effect
from holdfast.payments.models import Anomaly, Attempt, Capture, Payer, Payment, PaymentStatus, RefundStatus
from holdfast.payments.provider import PaymentProvider, PaymentSnapshot, SupportsClientSecret
from holdfast.providers import Stripe, StripeIntents
from holdfast.providers.stripe.intents import UNWANTED
from holdfast.providers.stripe.objects import (
    ABANDONED,
    COMPLETED,
    DELAYED,
    EMBEDDED,
    EMBEDDED_EVENTS,
    VOUCHERS,
    Intent,
    PayableIntent,
)
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments import PaymentConformance
from holdfast.testing.faults import Fault, Refused, Reset, Status
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.webhooks import Mischief
from holdfast.values import Money, Secret, Secrets
from tests.providers.connection import NOON, Canned, canned, connection, incoming
from tests.providers.test_stripe import (
    DUE,
    FIXTURES,
    HOOK_SECRET,
    INTENT,
    KEY,
    attempt,
    back,
    request,
    signed,
    simulator,
    words,
)
from tests.providers.test_stripe_payments import DOOR, LOST, Shop, open_shop

S = PaymentStatus

FRESH: dict[str, JsonOut] = INTENT | {
    "status": "requires_payment_method",
    "amount_received": 0,
    "latest_charge": None,
    "client_secret": "pi_1_secret_to-hide",
}
BY_DEBIT: JsonOut = {"code": "debit_not_authorized", "payment_method": {"type": "sepa_debit"}}
BY_CARD: JsonOut = {"code": "card_declined", "decline_code": "lost_card", "payment_method": {"type": "card"}}


@pytest.fixture
def vendor() -> StripeSimulator:
    return simulator()


@pytest.fixture
def stripe() -> StripeIntents:
    return StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET))


def waiting(vendor_id: str, **changes: Any) -> Attempt:
    """An attempt whose offer is shown, and which nobody has paid as far as we know."""
    return replace(attempt(vendor_id), status=S.PENDING, **changes)


def in_browser(vendor: StripeSimulator, secret: Secret, card: str = "pm_card_visa", *, look: bool = False) -> Response:
    """What a payer's form asks of Stripe: it knows the publishable key and the secret, and nothing else."""
    text = secret.reveal()
    path = f"/v1/payment_intents/{text.partition('_secret_')[0]}"
    form = {"client_secret": text} if look else {"client_secret": text, "payment_method": card, "return_url": "app://x"}
    headers = {"authorization": f"Bearer {vendor.publishable_key}", "content-type": "application/x-www-form-urlencoded"}
    body = urlencode(form).encode()
    asked = (
        Request(method="GET", target=f"{path}?{body.decode()}", headers=tuple(headers.items()))
        if look
        else Request(method="POST", target=f"{path}/confirm", headers=tuple(headers.items()), body=body)
    )
    return vendor.handle(asked)


# Facts


def test_it_is_the_same_account_with_an_offer_that_has_a_secret(stripe: StripeIntents) -> None:
    provider: PaymentProvider = stripe
    able = provider.capabilities
    assert isinstance(provider, SupportsClientSecret)
    assert not isinstance(Stripe(api_key=Secret(KEY), webhook_secret=Secrets("whsec_x")), SupportsClientSecret)
    assert (able.open_ended, able.revocable, able.minimum_expiry) == (True, True, timedelta(minutes=1))
    assert not Stripe.capabilities.open_ended


def test_the_tables_know_every_word_the_sdk_knows() -> None:
    assert set(EMBEDDED) == set(COMPLETED) == words(sdk.PaymentIntent, "status")
    assert words(sdk.PaymentMethod, "type") >= DELAYED
    assert set(sdk.PaymentIntent.NextAction.__annotations__) >= VOUCHERS
    assert words(sdk.PaymentIntent, "cancellation_reason") >= {ABANDONED, UNWANTED}
    assert set(EMBEDDED_EVENTS) <= words(sdk.Event, "type")
    assert len(EMBEDDED_EVENTS) <= 20  # in one question
    assert set(PayableIntent.model_fields) <= set(sdk.PaymentIntent.__annotations__)


# Creating


async def test_the_request_on_the_wire_is_exactly_this(stripe: StripeIntents) -> None:
    # given
    asked = canned(FRESH)

    # when
    snapshot = await stripe.create(connection(stripe, asked), request())

    # then
    [sent] = asked.requests
    assert (sent.method, sent.url) == ("POST", "https://api.stripe.com/v1/payment_intents")
    assert dict(sent.headers)["idempotency-key"] == "att_5f2c"
    assert dict(parse_qsl(sent.content.decode())) == {
        "amount": "12000",
        "currency": "chf",
        "description": "Consultation",
        "metadata[attempt]": "att_5f2c",
        "metadata[reference]": "consultation-4711",
        "metadata[provider]": "stripe",
    }
    assert (snapshot.vendor_id, snapshot.status, snapshot.price) == ("pi_1", S.PENDING, DUE)
    assert snapshot.offer
    assert (snapshot.offer.embedded, snapshot.offer.checkout_url) == (True, None)
    assert snapshot.offer.expires_at == NOON + timedelta(hours=1)
    assert "to-hide" not in repr(snapshot)


async def test_there_is_nothing_to_scan_in_a_form(stripe: StripeIntents) -> None:
    snapshot = await stripe.create(connection(stripe, canned(FRESH)), request())
    assert snapshot.offer
    with pytest.raises(InvalidInput, match="form of your own"):
        snapshot.offer.qr_svg()


async def test_what_stripe_has_no_exact_number_for_is_refused_before_anything_is_sent(stripe: StripeIntents) -> None:
    asked = canned(FRESH)
    with pytest.raises(InvalidMoney):
        await stripe.create(connection(stripe, asked), request(Money("1.234", "KWD")))
    assert not asked.requests


@pytest.mark.parametrize("price", [Money("120.05", "CHF"), Money(5000, "XOF"), Money("1.230", "KWD")], ids=str)
async def test_a_price_is_exact_on_the_way_there_and_back(
    stripe: StripeIntents, vendor: StripeSimulator, price: Money
) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(price))
    vendor.pay(created.vendor_id)
    paid = await stripe.fetch(http, created.vendor_id)
    assert (created.price, paid.price, paid.received) == (price, price, price)
    assert vendor.ledger.exactly_once(charge(reference="consultation-4711")).money == price


async def test_every_parameter_that_is_sent_is_one_of_the_sdks(stripe: StripeIntents) -> None:
    # given
    nothing: list[JsonOut] = []
    asked = canned(FRESH | {"data": nothing})
    http = connection(stripe, asked)

    # when
    await stripe.create(http, request(capture=Capture.MANUAL, payer=Payer(email="ada@example.com")))
    await stripe.find(http, attempt())
    await stripe.fetch(http, "pi_1")
    await stripe.client_secret(http, waiting("pi_1"))
    await stripe.revoke(http, attempt("pi_1"))
    await stripe.capture(http, attempt("pi_1"), DUE, key="c1")
    await stripe.disputes(http, attempt("pi_1"))
    assert [delivery async for delivery in stripe.list_deliveries(http, NOON)] == []

    # then
    known: Mapping[tuple[str, str], type] = {
        ("POST", "/v1/payment_intents"): params.PaymentIntentCreateParams,
        ("GET", "/v1/payment_intents"): params.PaymentIntentListParams,
        ("GET", "/v1/payment_intents/pi_1"): params.PaymentIntentRetrieveParams,
        ("POST", "/v1/payment_intents/pi_1/cancel"): params.PaymentIntentCancelParams,
        ("POST", "/v1/payment_intents/pi_1/capture"): params.PaymentIntentCaptureParams,
        ("GET", "/v1/disputes"): params.DisputeListParams,
        ("GET", "/v1/events"): params.EventListParams,
    }
    seen: set[tuple[str, str]] = set()
    for sent in asked.requests:
        url = urlsplit(sent.url)
        names = {name.partition("[")[0] for name, _ in parse_qsl(url.query) + parse_qsl(sent.content.decode())}
        seen.add((sent.method, url.path))
        assert names <= set(known[sent.method, url.path].__annotations__)
    assert seen == set(known)
    first = dict(parse_qsl(asked.requests[0].content.decode()))
    assert (first["capture_method"], first["receipt_email"]) == ("manual", "ada@example.com")


# What it says


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, S.PENDING, ""),
        ({"last_payment_error": BY_CARD}, S.PENDING, "lost_card"),
        ({"last_payment_error": BY_DEBIT}, S.FAILED, "debit_not_authorized"),
        ({"last_payment_error": {"code": "payment_intent_authentication_failure"}}, S.PENDING, "*"),
        ({"status": "requires_confirmation"}, S.PENDING, ""),
        ({"status": "requires_action", "next_action": {"type": "redirect_to_url"}}, S.PENDING, ""),
        ({"status": "requires_action", "next_action": {"type": "oxxo_display_details"}}, S.PROCESSING, ""),
        ({"status": "processing"}, S.PROCESSING, ""),
        ({"status": "requires_capture"}, S.AUTHORIZED, ""),
        ({"status": "succeeded"}, S.PAID, ""),
        ({"status": "canceled", "cancellation_reason": "requested_by_customer"}, S.CANCELED, ""),
        ({"status": "canceled", "cancellation_reason": "automatic"}, S.CANCELED, ""),
        ({"status": "canceled", "cancellation_reason": None}, S.CANCELED, ""),
        ({"status": "canceled", "cancellation_reason": "abandoned"}, S.EXPIRED, ""),
        ({"status": "invented-tomorrow"}, S.UNKNOWN, ""),
    ],
)
async def test_a_status_means_what_the_table_says(
    stripe: StripeIntents, changes: dict[str, JsonOut], status: S, reason: str
) -> None:
    snapshot = await stripe.fetch(connection(stripe, canned(FRESH | changes)), "pi_1")
    assert (snapshot.vendor_id, snapshot.status, snapshot.price) == ("pi_1", status, DUE)
    assert (snapshot.attempt_id, snapshot.live) == ("att_5f2c", False)
    assert snapshot.reason == ("payment_intent_authentication_failure" if reason == "*" else reason)


async def test_what_went_back_is_disputed_and_kept_is_told(stripe: StripeIntents, vendor: StripeSimulator) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)

    # when
    sent_back = await stripe.refund(http, back(created.vendor_id, Money("20.00", "CHF")))
    found = await stripe.find_refund(http, back(created.vendor_id, Money("20.00", "CHF")))
    vendor.dispute(created.vendor_id, amount=10_000)
    contested = await stripe.fetch(http, created.vendor_id)
    [dispute] = await stripe.disputes(http, attempt(created.vendor_id))

    # then
    assert found == sent_back
    assert (contested.refunded, contested.disputed) == (Money("20.00", "CHF"), Money("100.00", "CHF"))
    assert (contested.fee, dispute.money) == (Money("3.78", "CHF"), Money("100.00", "CHF"))


# The secret


async def test_the_secret_is_read_when_it_is_asked_for_and_shows_itself_to_nobody(stripe: StripeIntents) -> None:
    secret = await stripe.client_secret(connection(stripe, canned(FRESH)), waiting("pi_1"))
    assert secret.reveal() == "pi_1_secret_to-hide"
    assert "to-hide" not in repr(PayableIntent.model_validate(FRESH))
    assert "client_secret" in stripe.private_fields


@pytest.mark.parametrize(
    "status", sorted(set(EMBEDDED) - {name for name, word in EMBEDDED.items() if word is S.PENDING})
)
async def test_of_what_is_over_or_under_way_there_is_no_secret(stripe: StripeIntents, status: str) -> None:
    http = connection(stripe, canned(FRESH | {"status": status}))
    with pytest.raises(Rejected, match="nothing to be paid") as refused:
        await stripe.client_secret(http, waiting("pi_1"))
    assert refused.value.reason == status


@pytest.mark.parametrize(
    "other", [{"id": "pi_2"}, {"amount": 1}, {"currency": "usd"}, {"metadata": {"attempt": "att_other"}}], ids=str
)
async def test_of_what_is_not_what_was_asked_for_there_is_no_secret(
    stripe: StripeIntents, other: dict[str, JsonOut]
) -> None:
    with pytest.raises(Mismatch) as refused:
        await stripe.client_secret(connection(stripe, canned(FRESH | other)), waiting("pi_1"))
    assert "to-hide" not in str(refused.value)


@pytest.mark.parametrize("text", [None, "", 7, ["pi_1_secret_to-hide"]])
async def test_an_answer_without_a_secret_quotes_nothing(stripe: StripeIntents, text: JsonOut) -> None:
    http = connection(stripe, canned(FRESH | {"client_secret": text}))
    with pytest.raises(OutcomeUnknown) as refused:
        await stripe.client_secret(http, waiting("pi_1"))
    assert "to-hide" not in repr(refused.value) + str(refused.value.__cause__)


# Looking up, taking back, capturing


async def test_what_was_asked_for_is_found_by_our_id_as_soon_as_it_exists(
    stripe: StripeIntents, vendor: StripeSimulator
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    ours = await stripe.create(http, request())
    for number in range(130):  # more than a page of a list
        await stripe.create(http, request(attempt_id=f"att_{number}"))

    # when
    found, absent = await stripe.find(http, attempt()), await stripe.find(http, attempt(id="att_unheard-of"))

    # then
    assert found == ours
    assert absent is None


async def test_of_two_intents_with_one_id_the_paid_one_counts(stripe: StripeIntents) -> None:
    answer: JsonOut = {"data": [FRESH, {"id": "pi_0"}, 7, INTENT | {"id": "pi_2"}], "has_more": False}
    found = await stripe.find(connection(stripe, canned(answer)), attempt())
    assert found
    assert (found.vendor_id, found.status) == ("pi_2", S.PAID)


@pytest.mark.parametrize(("withdrawn", "status"), [(True, S.CANCELED), (False, S.EXPIRED)])
async def test_a_revoked_intent_says_why_and_cannot_be_paid(
    stripe: StripeIntents, vendor: StripeSimulator, withdrawn: bool, status: S
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    held = waiting(created.vendor_id, withdrawn=withdrawn)
    secret = await stripe.client_secret(http, held)

    # when
    first, second = [await stripe.revoke(http, held) for _ in range(2)]

    # then
    assert (first.status, second.status) == (status, status)
    assert in_browser(vendor, secret).status == 400


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_who_paid_before_it_was_revoked_has_paid(
    stripe: StripeIntents, vendor: StripeSimulator, withdrawn: bool
) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.pay(created.vendor_id)
    assert (await stripe.revoke(http, waiting(created.vendor_id, withdrawn=withdrawn))).status is S.PAID


@pytest.mark.parametrize(("withdrawn", "status"), [(True, S.CANCELED), (False, S.AUTHORIZED)])
async def test_money_set_aside_at_the_last_moment_is_let_go_of_only_if_nobody_wants_it(
    stripe: StripeIntents, vendor: StripeSimulator, withdrawn: bool, status: S
) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    assert (await stripe.revoke(http, waiting(created.vendor_id, withdrawn=withdrawn))).status is status
    vendor.ledger.never(charge(reference="consultation-4711"))


async def test_an_intent_that_stays_open_is_not_called_revoked(stripe: StripeIntents, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    vendor.faults.on("stripe", "payments.cancel").script(Status(400))
    with pytest.raises(Rejected):
        await stripe.revoke(http, waiting(created.vendor_id))


SAID_NO: JsonOut = {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}}
FAILED_DEBIT: JsonOut = {**FRESH, "last_payment_error": {"payment_method": {"type": "sepa_debit"}, "code": "refused"}}


class Stubborn(Canned):
    """Says that an intent is in no state to be canceled, and shows it."""

    def __init__(self, intent: JsonOut) -> None:
        self._intent = intent

    async def send(self, request: HttpRequest) -> HttpResponse:
        return await (canned(SAID_NO, 400) if request.method == "POST" else canned(self._intent)).send(request)


@pytest.mark.parametrize("intent", [FRESH, FAILED_DEBIT], ids=["waits for its payer", "may be paid once more"])
async def test_an_intent_that_is_said_to_be_in_no_state_to_be_canceled_and_is_open_is_not_called_revoked(
    stripe: StripeIntents, intent: JsonOut
) -> None:
    http = connection(stripe, Stubborn(intent))
    with pytest.raises(Rejected):
        await stripe.revoke(http, waiting("pi_1", withdrawn=True))


@pytest.mark.parametrize(
    ("intent", "status"),
    [
        ({"status": "processing"}, S.PROCESSING),
        ({"status": "requires_capture"}, S.AUTHORIZED),
        ({"status": "succeeded", "amount_received": 12000}, S.PAID),
        ({"status": "canceled", "cancellation_reason": "abandoned"}, S.EXPIRED),
        ({"status": "canceled", "cancellation_reason": "requested_by_customer"}, S.CANCELED),
    ],
    ids=lambda value: value["status"] if isinstance(value, dict) else "",
)
async def test_of_an_intent_in_no_state_to_be_canceled_it_is_said_how_it_stands(
    stripe: StripeIntents, intent: dict[str, JsonOut], status: S
) -> None:
    http = connection(stripe, Stubborn({**FRESH, **intent}))
    assert (await stripe.revoke(http, waiting("pi_1", withdrawn=True))).status is status


async def test_a_part_is_captured_in_one_exchange_and_the_rest_is_no_refund(
    stripe: StripeIntents, vendor: StripeSimulator
) -> None:
    # given
    http, part = connection(stripe, InProcess(vendor)), Money("70.00", "CHF")
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    vendor.requests.clear()

    # when
    first, second = [await stripe.capture(http, attempt(created.vendor_id), part, key="c1") for _ in range(2)]
    asked = [one.path for one in vendor.requests]
    later = await stripe.fetch(http, created.vendor_id)

    # then
    assert second == first
    assert asked == [f"/v1/payment_intents/{created.vendor_id}/capture"] * 2
    assert (later.status, later.price, later.received, later.refunded) == (S.PAID, DUE, part, Money(0, "CHF"))
    assert vendor.ledger.exactly_once(charge(reference="consultation-4711")).money == part


async def test_what_was_captured_elsewhere_is_captured(stripe: StripeIntents, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request(capture=Capture.MANUAL))
    vendor.pay(created.vendor_id)
    await stripe.capture(http, attempt(created.vendor_id), DUE, key="by-hand")
    assert (await stripe.capture(http, attempt(created.vendor_id), DUE, key="c1")).status is S.PAID


async def test_an_id_cannot_leave_its_path(stripe: StripeIntents) -> None:
    asked = canned(FRESH)
    await stripe.fetch(connection(stripe, asked), "pi_1/cancel?x=#")
    assert asked.requests[0].url.startswith("https://api.stripe.com/v1/payment_intents/pi_1%2Fcancel%3Fx%3D%23?")


class TestPromises(PaymentConformance[StripeSimulator]):
    """Those that the family of payments relies on."""

    def simulator(self, clock: ManualClock) -> StripeSimulator:
        return StripeSimulator(clock=clock)

    def provider(self, simulator: StripeSimulator) -> StripeIntents:
        return StripeIntents(api_key=Secret(simulator.api_key), webhook_secret=Secrets(simulator.webhook_secret))

    def pay(self, simulator: StripeSimulator, snapshot: PaymentSnapshot) -> None:
        simulator.pay(snapshot.vendor_id)


# Beside pages, at one account


async def test_two_providers_of_one_account_each_know_their_own(vendor: StripeSimulator) -> None:
    # given
    credentials: dict[str, Any] = {"api_key": Secret(KEY), "webhook_secret": Secrets(HOOK_SECRET)}
    pages = Stripe(**credentials, return_url="https://shop.example")
    intents = StripeIntents(**credentials, name="stripe-app")
    http = connection(pages, InProcess(vendor))
    page, intent = await pages.create(http, request()), await intents.create(http, request(attempt_id="att_app"))
    for created in (page, intent):
        vendor.pay(created.vendor_id)
    await intents.refund(http, back(intent.vendor_id, Money("20.00", "CHF")))
    vendor.dispute(intent.vendor_id, amount=100)

    # when
    told = {
        provider.name: [one async for one in provider.list_deliveries(http, NOON) if one.recognised]
        for provider in (pages, intents)
    }
    disputed = [one for one in told["stripe"] if one.type.startswith("charge.dispute.")]
    located = [await provider.locate(http, disputed[0].facts or {}) for provider in (pages, intents)]
    until = NOON + timedelta(days=1)
    listed = {
        provider.name: [one.vendor_id async for one in provider.statement(http, NOON, until)]
        for provider in (pages, intents)
    }

    # then
    named = {name: {(one.facts or {}).get("attempt_id") for one in told[name]} for name in told}
    assert named["stripe"] == {"att_5f2c", None}
    assert named["stripe-app"] >= {"att_app", None}
    assert located == ["", "att_app"]
    assert page.vendor_id in {one.vendor_id for one in told["stripe"]}
    assert intent.vendor_id in {one.vendor_id for one in told["stripe-app"]}
    assert not {one.vendor_id for one in told["stripe-app"]} & {page.vendor_id}
    assert intent.vendor_id not in listed["stripe"]
    assert len(listed["stripe"]) == 1
    assert intent.vendor_id in listed["stripe-app"]
    assert len(listed["stripe-app"]) == 3  # paid, sent back, disputed


def test_an_event_of_an_intent_names_it_and_asks_to_look(stripe: StripeIntents) -> None:
    # given
    about: dict[str, JsonOut] = {"id": "pi_1", "object": "payment_intent"}
    ours: JsonOut = {"attempt": "att_5f2c", "reference": "consultation-4711", "provider": "stripe"}
    event: dict[str, JsonOut] = {"id": "evt_1", "type": "payment_intent.payment_failed"}
    body = json.dumps(event | {"data": {"object": about | {"metadata": ours}}}).encode()

    # when
    asked = incoming(body, signed(body))
    [delivery] = stripe.parse(asked)

    # then
    assert stripe.scheme.verify(asked, stripe.webhook_secrets).valid
    assert (delivery.vendor_id, delivery.reference, delivery.recognised) == ("pi_1", "consultation-4711", True)
    assert delivery.facts == {"attempt_id": "att_5f2c"}


async def test_what_stripe_publishes_as_an_example_can_be_read(stripe: StripeIntents) -> None:
    if not FIXTURES.exists():
        pytest.skip("the published API descriptions are not here")
    published = json.loads(FIXTURES.read_text())["resources"]["payment_intent"]
    snapshot = await stripe.fetch(connection(stripe, canned(published)), published["id"])
    assert (snapshot.vendor_id, snapshot.status) == (published["id"], S.PENDING)
    assert PayableIntent.model_validate(published).client_secret


async def test_an_intent_is_created_paid_in_a_browser_and_refunded_over_a_socket(vendor: StripeSimulator) -> None:
    async with Edge(vendor) as edge:
        # given
        stripe = StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), base_url=edge.url)
        transport = HttpxTransport()
        http = connection(stripe, transport)

        # when
        created = await stripe.create(http, request())
        secret = await stripe.client_secret(http, waiting(created.vendor_id))
        seen = json.loads(in_browser(vendor, secret, look=True).body)
        confirmed = in_browser(vendor, secret)
        paid = await stripe.fetch(http, created.vendor_id)
        sent_back = await stripe.refund(http, back(created.vendor_id))
        await transport.aclose()

    # then
    assert (seen["status"], "metadata" in seen) == ("requires_payment_method", False)
    assert (confirmed.status, paid.status, paid.received) == (200, S.PAID, DUE)
    assert sent_back.status is RefundStatus.SUCCEEDED


# Through a hub


async def made(shop: Shop, reference: str = "o1", **more: Any) -> tuple[Payment, Secret]:
    """A payment, and the secret its payer's form was given."""
    payment = await shop.create(reference, **more)
    return payment, await shop.run(shop.payments.client_secret(reference))


async def test_a_payer_pays_in_the_form_and_it_is_told_once_whatever_becomes_of_its_webhooks() -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe", provider=StripeIntents) as shop:
        # given
        payment, secret = await made(shop)

        # when
        confirmed = in_browser(shop.vendor, secret)
        sent = await shop.deliver(Mischief(duplicate=1, delay=0.5, forge=1, lie=1))
        await shop.run(shop.hub.settle())

        # then
        assert payment.offer
        assert payment.offer.embedded
        assert confirmed.status == 200
        assert {one.status for one in sent if one.manner in (Manner.GENUINE, Manner.DUPLICATE)} == {200}
        assert (await shop.payments.get("o1")).status is S.PAID
        assert [(paid.reference, paid.received) for paid in shop.told] == [("o1", DUE)]


async def test_a_declined_payer_tries_another_card_on_the_same_offer() -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe", provider=StripeIntents) as shop:
        # given
        payment, secret = await made(shop)

        # when
        declined = in_browser(shop.vendor, secret, "pm_card_chargeDeclined")
        await shop.deliver()
        await shop.run(shop.hub.settle())
        between = await shop.payments.get("o1")
        again = await shop.run(shop.payments.client_secret("o1"))
        paid = in_browser(shop.vendor, again)
        after = await shop.refresh()

        # then
        assert (declined.status, between.status, between.offer) == (402, S.PENDING, payment.offer)
        assert (again, paid.status, after.status) == (secret, 200, S.PAID)
        shop.vendor.ledger.exactly_once(offer(reference="o1"))


async def test_a_challenged_payer_answers_the_bank() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        _, secret = await made(shop)
        in_browser(shop.vendor, secret, "pm_card_threeDSecure2Required")
        during = await shop.refresh()
        shop.vendor.authenticate(secret.reveal())
        assert (during.status, (await shop.refresh()).status) == (S.PENDING, S.PAID)


async def test_without_webhooks_it_is_found_by_the_sweep_and_by_asking_for_events() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        for reference in ("o1", "o2"):
            _, secret = await made(shop, reference)
            in_browser(shop.vendor, secret)

        # when
        counts = await shop.run(shop.hub.reconcile())
        await shop.run(shop.hub.settle())
        _, secret = await made(shop, "o3")
        in_browser(shop.vendor, secret)
        await shop.clock.advance(31)
        await shop.run(shop.payments.sweep())
        await shop.run(shop.hub.settle())

        # then
        assert counts["stripe"].missed
        assert sorted(paid.reference for paid in shop.told) == ["o1", "o2", "o3"]


async def pay(shop: Shop) -> None:
    shop.vendor.pay((await shop.payments.get("o1")).attempts[0].vendor_id)
    await shop.refresh()


async def cancel(shop: Shop) -> None:
    await shop.run(shop.payments.cancel("o1"))


async def wait(shop: Shop) -> None:
    await shop.clock.advance(15 * 60)


async def wait_and_sweep(shop: Shop) -> None:
    await shop.clock.advance(17 * 60)
    await shop.run(shop.payments.sweep())


async def debit(shop: Shop) -> None:
    shop.vendor.pay_later((await shop.payments.get("o1")).attempts[0].vendor_id)
    await shop.refresh()


@pytest.mark.parametrize("happens", [pay, cancel, wait, wait_and_sweep, debit], ids=lambda each: each.__name__)
@pytest.mark.parametrize("capture", list(Capture))
async def test_of_a_payment_with_nothing_to_be_paid_now_there_is_no_secret(happens: Any, capture: Capture) -> None:
    async with open_shop(provider=StripeIntents) as shop:
        await made(shop, capture=capture)
        await happens(shop)
        shop.vendor.requests.clear()
        with pytest.raises(InvalidInput, match="no offer that could be paid now"):
            await shop.run(shop.payments.client_secret("o1"))
        assert not shop.vendor.requests


async def test_an_offer_that_is_paid_elsewhere_has_no_secret() -> None:
    async with open_shop() as shop:
        await shop.create()
        with pytest.raises(InvalidInput, match="stripe: the offer for payment o1 has no client secret"):
            await shop.run(shop.payments.client_secret("o1"))


async def test_a_page_has_no_secret_even_once_its_account_makes_intents() -> None:
    async with open_shop() as shop:
        await shop.create()
        intents = StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET))
        shop.payments.providers["stripe"] = intents
        with pytest.raises(InvalidInput, match="has no client secret"):
            await shop.run(shop.payments.client_secret("o1"))


async def test_what_stripe_knows_to_be_paid_has_no_secret_even_before_we_know() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        payment = await shop.create()
        shop.vendor.pay(payment.attempts[0].vendor_id)
        with pytest.raises(Rejected, match="succeeded"):
            await shop.run(shop.payments.client_secret("o1"))


async def test_an_offer_whose_time_is_over_is_revoked_with_proof() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        expired: list[str] = []

        @shop.hub.on(PaymentExpired, name="expired")
        async def tell(event: PaymentExpired) -> None:
            expired.append(event.reference)

        _, secret = await made(shop)

        # when
        await shop.clock.advance(17 * 60)
        await shop.run(shop.payments.sweep())
        await shop.run(shop.hub.settle())
        payment = await shop.payments.get("o1")
        late = in_browser(shop.vendor, secret)
        second, fresh = await shop.run(shop.payments.renew("o1")), await shop.run(shop.payments.client_secret("o1"))

        # then
        assert (payment.status, payment.offer, expired, late.status) == (S.EXPIRED, None, ["o1"], 400)
        assert (second.status, fresh == secret) == (S.PENDING, False)
        assert in_browser(shop.vendor, fresh).status == 200


async def test_an_offer_that_cannot_be_revoked_is_not_believed_to_be_over() -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe", provider=StripeIntents) as shop:
        # given
        _, secret = await made(shop)
        shop.vendor.faults.on("stripe", "payments.cancel").always(Refused())

        # when
        await shop.clock.advance(17 * 60)
        in_browser(shop.vendor, secret, "pm_card_chargeDeclined")
        await shop.deliver()
        await shop.run(shop.hub.settle())
        await shop.run(shop.payments.sweep())
        unsure = await shop.refresh()
        in_browser(shop.vendor, secret)
        paid = await shop.refresh()

        # then
        assert (unsure.status, paid.status, paid.anomalies) == (S.PENDING, S.PAID, frozenset())


async def test_who_pays_at_the_last_moment_has_paid() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        _, secret = await made(shop)
        await shop.clock.advance(17 * 60)
        in_browser(shop.vendor, secret)
        assert (await shop.refresh()).status is S.PAID


async def test_another_offer_is_made_once_the_first_is_revoked() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        first, secret = await made(shop)
        second = await shop.run(shop.payments.renew("o1"))
        assert first.attempts[0].vendor_id != second.attempts[1].vendor_id
        assert in_browser(shop.vendor, secret).status == 400
        assert in_browser(shop.vendor, await shop.run(shop.payments.client_secret("o1"))).status == 200


async def test_a_debit_that_failed_is_told_and_may_be_followed_by_another_offer_only_once_it_is_revoked() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        failed: list[str] = []

        @shop.hub.on(PaymentFailed, name="failed")
        async def tell(event: PaymentFailed) -> None:
            failed.append(event.reason)

        payment, secret = await made(shop)
        shop.vendor.pay_later(payment.attempts[0].vendor_id)
        during = await shop.refresh()
        shop.vendor.settle(payment.attempts[0].vendor_id, succeeds=False)
        after = await shop.refresh()
        await shop.run(shop.hub.settle())

        # when
        still = shop.vendor.resources[payment.attempts[0].vendor_id]["status"]
        second = await shop.create()

        # then
        assert (during.status, after.status, failed) == (S.PROCESSING, S.FAILED, ["insufficient_funds"])
        assert (still, second.status) == ("requires_payment_method", S.PENDING)
        assert shop.vendor.resources[payment.attempts[0].vendor_id]["status"] == "canceled"
        assert in_browser(shop.vendor, secret).status == 400


async def test_a_debit_that_failed_and_was_paid_after_all_is_not_asked_for_again() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        payment, secret = await made(shop)
        shop.vendor.pay_later(payment.attempts[0].vendor_id)
        await shop.refresh()
        shop.vendor.settle(payment.attempts[0].vendor_id, succeeds=False)
        await shop.refresh()
        in_browser(shop.vendor, secret)

        # when
        again = await shop.create()

        # then
        assert (again.status, len(again.attempts)) == (S.PAID, 1)
        assert Anomaly.LATE in again.anomalies


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
async def test_a_lost_creation_is_one_intent_which_is_shown(fault: Fault) -> None:
    async with open_shop(provider=StripeIntents) as shop:
        shop.vendor.faults.on("stripe", "payments.create").script(fault)
        payment, secret = await made(shop)
        assert payment.route == ("stripe:offered",)
        assert secret.reveal().startswith(payment.attempts[0].vendor_id)
        shop.vendor.ledger.exactly_once(offer(reference="o1"))


async def test_a_stored_500_is_read_and_never_asked_for_under_another_key() -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        shop.vendor.faults.on("stripe", "payments.create").script(Status(500).after_effect())

        # when
        payment = await shop.create()

        # then
        asked = [one for one in shop.vendor.requests if one.method == "POST"]
        assert {one.header("idempotency-key") for one in asked} == {payment.attempts[0].id}
        assert payment.attempts[0].vendor_id in shop.vendor.resources


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
async def test_a_lost_capture_and_a_lost_refund_are_one_of_each(fault: Fault) -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        _, secret = await made(shop, capture=Capture.MANUAL)
        in_browser(shop.vendor, secret)
        assert (await shop.refresh()).status is S.AUTHORIZED
        for operation in ("payments.capture", "payments.refund"):
            shop.vendor.faults.on("stripe", operation).always(fault)

        # when
        with pytest.raises(OutcomeUnknown):
            await shop.run(shop.payments.capture("o1", Money("70.00", "CHF")))
        payment = await shop.refresh()
        with pytest.raises(OutcomeUnknown):
            await shop.run(shop.payments.refund("o1", Money("20.00", "CHF"), key="r1"))
        await shop.clock.advance(10)
        await shop.run(shop.payments.sweep())

        # then
        [sent_back] = await shop.payments.refunds("o1")
        assert (payment.status, payment.received) == (S.PAID, Money("70.00", "CHF"))
        assert (sent_back.status, sent_back.money) == (RefundStatus.SUCCEEDED, Money("20.00", "CHF"))
        assert shop.vendor.ledger.exactly_once(charge(reference="o1")).money == Money("70.00", "CHF")
        shop.vendor.ledger.exactly_once(refund(reference="o1"))


@pytest.mark.parametrize("capture", list(Capture))
async def test_a_payment_nobody_wants_any_more_is_canceled_with_proof(capture: Capture) -> None:
    async with open_shop(provider=StripeIntents) as shop:
        # given
        _, secret = await made(shop, capture=capture)
        if capture is Capture.MANUAL:
            in_browser(shop.vendor, secret)
            await shop.refresh()

        # when
        canceled = await shop.run(shop.payments.cancel("o1"))

        # then
        assert (canceled.status, canceled.offer) == (S.CANCELED, None)
        assert in_browser(shop.vendor, secret).status == 400
        assert not shop.vendor.ledger.entries(Kind.CAPTURE)


async def test_the_secret_is_in_no_record_log_error_or_repr(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        async with open_shop(webhook_url=f"{DOOR}/stripe", provider=StripeIntents) as shop:
            # given
            payment, secret = await made(shop, payer=Payer(email="ada@example.com"))
            shop.vendor.faults.on("stripe", "payments.fetch").script(Reset())

            # when
            again = await shop.run(shop.payments.client_secret("o1"))
            in_browser(shop.vendor, secret)
            await shop.deliver()
            await shop.run(shop.hub.settle())
            paid = await shop.payments.get("o1")
            record = await shop.hub.store.records.get("payment", "o1")
            kept = b" ".join([job.body for job in await shop.hub.store.jobs.list()]).decode()
            shown = [
                caplog.text,
                repr(payment),
                repr(paid),
                repr(shop.signals),
                repr(record),
                kept,
                repr(again),
                f"{again}",
            ]

    # then
    assert again == secret
    assert '"client_secret": null' in kept
    assert not [text for text in (KEY, secret.reveal()) if text in " ".join(shown)]


# What a browser may do, at the simulator


def asked_by_browser(vendor: StripeSimulator, method: str, path: str, **form: str) -> Any:
    headers = (
        ("authorization", f"Bearer {vendor.publishable_key}"),
        ("content-type", "application/x-www-form-urlencoded"),
    )
    answer = vendor.handle(Request(method=method, target=path, headers=headers, body=urlencode(form).encode()))
    return answer.status, json.loads(answer.body)


async def test_a_browser_sees_and_confirms_its_own_intent_and_nothing_else(
    stripe: StripeIntents, vendor: StripeSimulator
) -> None:
    # given
    http = connection(stripe, InProcess(vendor))
    ours, other = [await stripe.create(http, request(attempt_id=f"att_{number}")) for number in range(2)]
    secret = (await stripe.client_secret(http, waiting(ours.vendor_id, id="att_0"))).reveal()

    # when
    status, seen = asked_by_browser(vendor, "GET", f"/v1/payment_intents/{ours.vendor_id}?client_secret={secret}")
    refusals = [
        asked_by_browser(vendor, "GET", f"/v1/payment_intents/{other.vendor_id}?client_secret={secret}"),
        asked_by_browser(vendor, "GET", f"/v1/payment_intents/{ours.vendor_id}"),
        asked_by_browser(vendor, "POST", f"/v1/payment_intents/{other.vendor_id}/confirm", client_secret=secret),
        asked_by_browser(vendor, "POST", f"/v1/payment_intents/{ours.vendor_id}/cancel", client_secret=secret),
        asked_by_browser(vendor, "POST", f"/v1/payment_intents/{ours.vendor_id}", client_secret=secret, amount="50"),
        asked_by_browser(vendor, "POST", "/v1/payment_intents", amount="50", currency="chf"),
        asked_by_browser(vendor, "GET", "/v1/payment_intents"),
    ]

    # then
    assert (status, seen["id"], seen["client_secret"]) == (200, ours.vendor_id, secret)
    assert not {"metadata", "latest_charge", "customer"} & set(seen)
    assert [(status, said["error"]["code"]) for status, said in refusals] == [
        *[(400, "payment_intent_invalid_parameter")] * 3,
        *[(403, "secret_key_required")] * 4,
    ]
    for created in (ours, other):
        assert vendor.resources[created.vendor_id]["status"] == "requires_payment_method"


async def test_an_intent_is_canceled_only_for_a_reason_there_is(stripe: StripeIntents, vendor: StripeSimulator) -> None:
    http = connection(stripe, InProcess(vendor))
    created = await stripe.create(http, request())
    path = f"/v1/payment_intents/{created.vendor_id}/cancel"
    with pytest.raises(Rejected, match="cancellation_reason"):
        await http.post(path, Intent, operation="x", effect=Effect.ONCE, form={"cancellation_reason": "bored"})
    assert (await stripe.fetch(http, created.vendor_id)).status is S.PENDING
