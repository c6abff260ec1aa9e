"""PayPal through a hub: approved, captured by us, told once; by webhook or without, whatever is lost or forged."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from holdfast import Holdfast, Money, Payment, Secret, Secrets
from holdfast.errors import CredentialRefused, InvalidInput, NotSent, OutcomeUnknown
from holdfast.payments.models import Anomaly, Capture, PaymentStatus, RefundStatus
from holdfast.providers.paypal import LocalVerification, PayPal
from holdfast.queue.signals import UpkeepFailed
from holdfast.telemetry import CallFinished, CircuitChanged
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Html, Latency, Refused, Reset, Status
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.paypal import PayPalSimulator
from holdfast.testing.simulators.paypal.api import CERTIFICATE
from holdfast.testing.simulators.server import Server
from holdfast.testing.simulators.simulator import Headers, Request
from holdfast.testing.simulators.webhooks import Mischief, WebhookSimulator
from tests.providers.connection import NOON
from tests.providers.test_paypal_signatures import forged_with_the_checksum_of
from tests.providers.till import DOOR, Till

S = PaymentStatus
DUE = Money("120.00", "CHF")
LOST: Sequence[Fault] = (Reset(), BadJson(), Html(), Status(500).after_effect())


class Shop:
    """A till, the account it takes money with, and people who pay."""

    def __init__(self, *, verified: bool = True, webhooks: bool = True, **facts: Any) -> None:
        self.clock = ManualClock(NOON)
        self.vendor = PayPalSimulator(clock=self.clock, webhook_url=f"{DOOR}/paypal" if webhooks else "")
        self.verification = LocalVerification(roots=self.vendor.root) if verified else None
        if self.verification:
            self.verification.add(self.vendor.certificate_url, certificate(self.vendor), at=NOON)
        provider = PayPal(
            client_id=self.vendor.client_id,
            client_secret=Secret(self.vendor.client_secret),
            webhook_id=Secrets(self.vendor.webhook_secret),
            merchant_id=self.vendor.merchant_id,
            verification=self.verification,
            base_url="http://127.0.0.1",
        )
        self.till = Till(self.vendor, provider, clock=self.clock, webhooks=webhooks, **facts)
        self.payments = self.till.payments

    async def create(self, reference: str = "o1", **wishes: Any) -> Payment:
        return await self.till.create(reference, DUE, **wishes)

    async def approved(self, reference: str = "o1", **wishes: Any) -> str:
        """A payment whose payer said yes; the page it was said on."""
        payment = await self.create(reference, **wishes)
        assert payment.offer
        assert payment.offer.checkout_url
        self.vendor.pay(payment.offer.checkout_url)
        return payment.offer.checkout_url

    async def paid(self, reference: str = "o1") -> Payment:
        await self.approved(reference)
        return await self.till.refresh(reference)

    def faults(self, operation: str) -> Any:
        return self.vendor.faults.on("paypal", operation)


def certificate(vendor: PayPalSimulator) -> bytes:
    """As anybody gets it, over its address."""
    return vendor.handle(Request(method="GET", target=f"/v1/notifications/certs/{CERTIFICATE}")).body


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    async with shop.till:
        yield shop


# Paid


async def test_what_a_payer_approves_is_captured_and_told_once_by_webhook(shop: Shop) -> None:
    # given
    await shop.approved()

    # when
    sent = [*await shop.till.deliver(), *await settled(shop)]

    # then
    payment = await shop.payments.get("o1")
    assert [one.status for one in sent] == [200] * len(sent)
    assert (payment.status, payment.received, payment.provider) == (S.PAID, DUE, "paypal")
    assert [(paid.reference, paid.received) for paid in shop.till.paid] == [("o1", DUE)]
    shop.vendor.ledger.exactly_once(charge(reference="o1", amount=DUE))


async def settled(shop: Shop) -> list[Any]:
    """All that follows, until nobody owes anything any more."""
    sent: list[Any] = []
    for _ in range(3):
        await shop.till.settle()
        sent += await shop.till.deliver()
    await shop.till.settle()
    return sent


async def test_without_any_webhook_the_sweep_finds_and_captures_it() -> None:
    shop = Shop(webhooks=False)
    async with shop.till:
        await shop.approved()
        await shop.clock.advance(31)

        await shop.till.settle()

        assert (await shop.payments.get("o1")).status is S.PAID
        assert len(shop.till.paid) == 1
        shop.vendor.ledger.exactly_once(charge(reference="o1"))


async def test_doubled_and_reordered_webhooks_are_one_payment(shop: Shop) -> None:
    # given
    for number in range(5):
        await shop.approved(f"o{number}")
    mischief = Mischief(duplicate=1, delay=0.5, together=0.5, lie=1)

    # when
    for _ in range(3):
        post = WebhookSimulator([shop.vendor], shop.till.post, mischief=mischief, seed=7, clock=shop.clock)
        await shop.till.run(post.deliver())
        await shop.till.settle()

    # then
    assert sorted(paid.reference for paid in shop.till.paid) == [f"o{number}" for number in range(5)]
    for number in range(5):
        shop.vendor.ledger.exactly_once(charge(reference=f"o{number}"))


async def test_a_payer_who_says_no_leaves_nothing_captured(shop: Shop) -> None:
    await shop.create()
    await shop.clock.advance(timedelta(minutes=18).total_seconds())
    await shop.till.settle()
    assert (await shop.payments.get("o1")).status is S.EXPIRED
    shop.vendor.ledger.never(charge())


async def test_who_approves_after_the_end_is_never_charged(shop: Shop) -> None:
    # given
    payment = await shop.create(expires_in=timedelta(minutes=15))
    await shop.clock.advance(timedelta(minutes=30).total_seconds())
    await shop.till.settle()

    # when
    assert payment.attempts[0].vendor_id
    shop.vendor.pay(payment.attempts[0].vendor_id)
    await settled(shop)

    # then
    assert (await shop.payments.get("o1")).status is S.EXPIRED
    shop.vendor.ledger.never(charge())


async def test_a_canceled_payment_is_never_captured(shop: Shop) -> None:
    # given
    payment = await shop.create()
    canceled = await shop.till.run(shop.payments.cancel("o1"))

    # when
    shop.vendor.pay(payment.attempts[0].vendor_id)
    await settled(shop)

    # then
    assert canceled.status is S.CANCELED
    assert (await shop.payments.get("o1")).status is S.CANCELED
    shop.vendor.ledger.never(charge())


async def test_a_declined_payer_fails_the_payment_and_another_offer_can_be_made(shop: Shop) -> None:
    # given
    page = await shop.approved()
    shop.vendor.decline(page)
    await shop.till.refresh("o1")
    failed = await shop.payments.get("o1")

    # when
    renewed = await shop.till.run(shop.payments.renew("o1"))
    assert renewed.offer
    assert renewed.offer.checkout_url
    shop.vendor.pay(renewed.offer.checkout_url)
    paid = await shop.till.refresh("o1")

    # then
    assert failed.status is S.FAILED
    assert renewed.offer.checkout_url != page
    assert paid.status is S.PAID
    shop.vendor.ledger.exactly_once(charge(reference="o1"))


async def test_money_under_review_is_paid_when_paypal_lets_it_pass(shop: Shop) -> None:
    # given
    page = await shop.approved()
    shop.vendor.hold(page)
    reviewed = await shop.till.refresh("o1")

    # when
    shop.vendor.release(page)
    await settled(shop)

    # then
    assert reviewed.status is S.PROCESSING
    assert (await shop.payments.get("o1")).status is S.PAID
    assert len(shop.till.paid) == 1


# Lost answers


@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_an_order_whose_answer_was_lost_is_one_order(shop: Shop, fault: Fault) -> None:
    shop.faults("payments.create").script(fault)
    payment = await shop.create()
    assert payment.offer
    shop.vendor.ledger.exactly_once(offer(reference="o1"))


@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_a_capture_whose_answer_was_lost_is_one_charge(shop: Shop, fault: Fault) -> None:
    # given
    await shop.approved()
    shop.faults("payments.capture").script(fault)

    # when
    await settled(shop)
    payment = await shop.till.refresh("o1")

    # then
    assert payment.status is S.PAID
    assert len(shop.till.paid) == 1
    shop.vendor.ledger.exactly_once(charge(reference="o1"))


async def test_a_capture_lost_for_hours_is_found_when_paypal_is_back(shop: Shop) -> None:
    # given
    await shop.approved()
    shop.faults("payments.capture").script(*[Reset()] * 3)
    shop.faults("payments.fetch").script(None, *[Refused()] * 12)
    await shop.till.refresh("o1")

    # when
    for _ in range(20):
        await shop.clock.advance(300)
        await shop.till.settle()

    # then
    assert (await shop.payments.get("o1")).status is S.PAID
    shop.vendor.ledger.exactly_once(charge(reference="o1"))


@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_a_refund_whose_answer_was_lost_is_one_refund(shop: Shop, fault: Fault) -> None:
    # given
    await shop.paid()
    shop.faults("payments.refund").script(fault)

    # when
    made = await shop.till.refund("o1", Money("20.00", "CHF"), key="r1", reason="late")
    again = await shop.till.refund("o1", Money("20.00", "CHF"), key="r1")

    # then
    assert made.status is again.status is RefundStatus.SUCCEEDED
    shop.vendor.ledger.exactly_once(refund(reference="o1", amount=Money("20.00", "CHF")))


OPERATIONS = ("token", "payments.create", "payments.capture", "payments.fetch")
FAULTS: Sequence[Fault | Latency] = (
    Refused(),
    Reset(),
    Status(500),
    Status(503),
    Status(429, 1),
    Status(401),
    Html(),
    BadJson(),
    Hang(1),
    Latency.constant(1),
)
# With 401 the token's own address says that the secret is wrong.
PAIRS = [(one, fault) for one in OPERATIONS for fault in FAULTS if (one, fault) != ("token", Status(401))]


@pytest.mark.parametrize(("operation", "fault"), PAIRS, ids=str)
async def test_no_fault_charges_twice_or_loses_a_payment(shop: Shop, operation: str, fault: Fault) -> None:
    # given
    shop.faults(operation).script(fault)
    payment = await shop.create()
    assert payment.attempts[-1].vendor_id
    shop.vendor.pay(payment.attempts[-1].vendor_id)

    # when
    for _ in range(4):
        await shop.clock.advance(60)
        await settled(shop)

    # then
    assert (await shop.payments.get("o1")).status is S.PAID
    assert len(shop.till.paid) == 1
    shop.vendor.ledger.exactly_once(charge(reference="o1"))


async def test_a_wrong_secret_is_told_at_once_and_nothing_is_made(shop: Shop) -> None:
    shop.faults("token").always(Status(401))
    with pytest.raises(CredentialRefused):
        await shop.create()
    shop.vendor.ledger.never(offer())


async def test_a_token_that_somebody_ended_is_fetched_anew_once(shop: Shop) -> None:
    await shop.create("o1")
    shop.vendor.revoke()

    await shop.create("o2")

    assert shop.vendor.tokens_issued == 2
    shop.vendor.ledger.exactly_once(offer(reference="o2"))


# Set aside


async def test_what_is_set_aside_moves_when_the_caller_says_so(shop: Shop) -> None:
    # given
    await shop.approved(capture=Capture.MANUAL)
    await settled(shop)
    waiting = await shop.payments.get("o1")
    shop.vendor.ledger.never(charge())

    # when
    paid = await shop.till.run(shop.payments.capture("o1", Money("80.00", "CHF")))
    again = await shop.till.run(shop.payments.capture("o1", Money("80.00", "CHF")))

    # then
    assert waiting.status is S.AUTHORIZED
    assert paid.status is again.status is S.PAID
    assert paid.received == Money("80.00", "CHF")
    shop.vendor.ledger.exactly_once(charge(reference="o1", amount=Money("80.00", "CHF")))


async def test_a_lost_answer_while_it_moves_is_one_charge(shop: Shop) -> None:
    # given
    await shop.approved(capture=Capture.MANUAL)
    await settled(shop)
    shop.faults("authorizations.capture").script(*[Reset()] * 4)

    # when
    with pytest.raises(OutcomeUnknown):
        await shop.till.run(shop.payments.capture("o1"))
    for _ in range(4):
        await shop.clock.advance(60)
        await settled(shop)

    # then
    assert (await shop.payments.get("o1")).status is S.PAID
    shop.vendor.ledger.exactly_once(charge(reference="o1", amount=DUE))


async def test_what_the_payer_approved_is_set_aside_though_answers_are_lost(shop: Shop) -> None:
    # given
    shop.faults("payments.authorize").script(*[Reset()] * 4)
    await shop.approved(capture=Capture.MANUAL)

    # when
    for _ in range(3):
        await settled(shop)
        await shop.clock.advance(60)

    # then
    assert (await shop.payments.get("o1")).status is S.AUTHORIZED
    [order] = shop.vendor.orders.values()
    assert [held.status for held in order.authorizations] == ["CREATED"]


async def test_what_is_set_aside_and_canceled_is_let_go_of(shop: Shop) -> None:
    # given
    await shop.approved(capture=Capture.MANUAL)
    await settled(shop)

    # when
    canceled = await shop.till.run(shop.payments.cancel("o1"))

    # then
    assert canceled.status is S.CANCELED
    [order] = shop.vendor.orders.values()
    assert [held.status for held in order.authorizations] == ["VOIDED"]
    with pytest.raises(InvalidInput):
        await shop.till.run(shop.payments.capture("o1"))
    await settled(shop)
    shop.vendor.ledger.never(charge())


async def test_what_is_not_let_go_of_at_once_is_later(shop: Shop) -> None:
    # given
    await shop.approved(capture=Capture.MANUAL)
    await settled(shop)
    shop.faults("authorizations.void").script(*[Reset(stage="before_effect")] * 4)

    # when
    with pytest.raises(OutcomeUnknown):
        await shop.till.run(shop.payments.cancel("o1"))
    for _ in range(12):
        await shop.clock.advance(60)
        await settled(shop)

    # then
    assert (await shop.payments.get("o1")).status is S.CANCELED
    [order] = shop.vendor.orders.values()
    assert [held.status for held in order.authorizations] == ["VOIDED"]


async def under_review(shop: Shop) -> str:
    """The page of an order whose payer agreed, and which PayPal looks at before it sets anything aside."""
    page = await shop.approved(capture=Capture.MANUAL)
    shop.vendor.hold(page)
    await settled(shop)
    assert (await shop.payments.get("o1")).status is S.PROCESSING
    return page


async def test_what_paypal_reviews_is_set_aside_once_it_passed_days_after_the_offers_end(shop: Shop) -> None:
    # given
    page = await under_review(shop)
    for _ in range(3):
        await shop.clock.advance(86_400)
        await settled(shop)
    during = await shop.payments.get("o1")

    # when
    shop.vendor.release(page)
    await shop.clock.advance(300)
    await settled(shop)
    passed = await shop.payments.get("o1")
    paid = await shop.till.run(shop.payments.capture("o1"))

    # then
    assert [one.status for one in (during, passed, paid)] == [S.PROCESSING, S.AUTHORIZED, S.PAID]
    shop.vendor.ledger.exactly_once(charge(reference="o1", amount=DUE))


async def test_what_does_not_pass_paypals_review_failed(shop: Shop) -> None:
    page = await under_review(shop)
    shop.vendor.deny(page)
    await shop.clock.advance(86_400)
    await settled(shop)

    assert (await shop.payments.get("o1")).status is S.FAILED
    shop.vendor.ledger.never(charge())


async def test_what_is_canceled_under_review_is_let_go_of_once_it_passed(shop: Shop) -> None:
    # given
    page = await under_review(shop)
    canceling = await shop.till.run(shop.payments.cancel("o1"))

    # when
    shop.vendor.release(page)
    await shop.clock.advance(86_400)
    await settled(shop)

    # then
    [order] = shop.vendor.orders.values()
    assert (canceling.status, canceling.offer) == (S.PROCESSING, None)
    assert (await shop.payments.get("o1")).status is S.CANCELED
    assert [held.status for held in order.authorizations] == ["VOIDED"]
    shop.vendor.ledger.never(charge())


# Standing still


def standing_still_after_the_next_commit(shop: Shop, seconds: float) -> None:
    """The process stops right after it said what it will do, as a laptop that is shut does."""
    records = shop.till.hub._runtime.store.records  # as the hub has it
    commit = records.apply

    async def apply(*args: Any, **facts: Any) -> Any:
        record = await commit(*args, **facts)
        records.apply = commit  # type: ignore[method-assign]
        await shop.clock.advance(seconds)
        return record

    records.apply = apply  # type: ignore[method-assign]


async def test_a_process_that_stood_still_before_it_captured_does_not_capture(shop: Shop) -> None:
    # given
    await shop.approved(capture=Capture.MANUAL)
    await settled(shop)
    standing_still_after_the_next_commit(shop, 3600)

    # when
    with pytest.raises(NotSent):
        await shop.payments.capture("o1")

    # then
    shop.vendor.ledger.never(charge())
    assert (await shop.till.run(shop.payments.capture("o1"))).status is S.PAID
    shop.vendor.ledger.exactly_once(charge(reference="o1"))


async def test_a_process_that_stood_still_before_it_sent_money_back_does_not_send_it(shop: Shop) -> None:
    # given
    await shop.paid()
    refunds = shop.payments._refunds  # as it is asked, after the refund was written down
    asked = refunds._ask_vendor

    async def ask(*args: Any) -> Any:
        standing_still_after_the_next_commit(shop, 46 * 86_400)
        return await asked(*args)

    refunds._ask_vendor = ask  # type: ignore[method-assign]

    # when
    with pytest.raises(NotSent):
        await shop.payments.refund("o1", key="r1")

    # then
    shop.vendor.ledger.never(refund())


# Money back


async def test_refunds_add_up_and_never_exceed_what_came_in(shop: Shop) -> None:
    # given
    await shop.paid()
    await shop.till.refund("o1", Money("50.00", "CHF"), key="r1")

    # when
    rest = await shop.till.refund("o1", key="r2")
    with pytest.raises(InvalidInput):
        await shop.till.refund("o1", Money("0.01", "CHF"), key="r3")

    # then
    assert rest.money == Money("70.00", "CHF")
    assert shop.vendor.ledger.captured("o1", "CHF") == Money("0.00", "CHF")
    shop.vendor.ledger.refunded_at_most_captured()


async def test_a_refund_that_waits_is_told_when_it_is_there(shop: Shop) -> None:
    # given
    await shop.paid()
    shop.vendor.refunds_wait = True
    waiting = await shop.till.refund("o1", key="r1")

    # when
    shop.vendor.settle_refund(waiting.vendor_id)
    await shop.till.refresh("o1")

    # then
    assert waiting.status is RefundStatus.PENDING
    assert [one.status for one in await shop.payments.refunds("o1")] == [RefundStatus.SUCCEEDED]


async def test_the_webhook_of_a_refund_leads_to_the_payment(shop: Shop) -> None:
    # given
    await shop.paid()
    await settled(shop)
    await shop.till.refund("o1", Money("20.00", "CHF"), key="r1")
    assert (await shop.payments.get("o1")).attempts[0].refunded is None

    # when
    [sent] = await shop.till.deliver()
    await shop.till.settle()

    # then
    assert (sent.status, sent.webhook.event) == (200, "PAYMENT.CAPTURE.REFUNDED")
    assert (await shop.payments.get("o1")).attempts[0].refunded == Money("20.00", "CHF")


# The door


async def test_what_is_genuine_gets_in_and_what_is_forged_does_not(shop: Shop) -> None:
    # given
    for number in range(5):
        await shop.approved(f"o{number}")
    owed = len(shop.vendor.outbox)
    post = WebhookSimulator([shop.vendor], shop.till.post, mischief=Mischief(forge=1), seed=3, clock=shop.clock)

    # when
    sent = await shop.till.run(post.deliver())

    # then
    assert post.accepted_forgeries == []
    assert {one.manner for one in sent if one.manner.forged} >= {Manner.WRONG_KEY, Manner.STALE}
    assert sum(one.accepted for one in sent if one.manner is Manner.GENUINE) == owed


@pytest.mark.parametrize("verified", [True, False])
async def test_a_forged_paypal_body_with_the_genuine_crc32_moves_no_state_without_a_re_fetch(verified: bool) -> None:
    """Somebody has caught one delivery on its way, and makes PayPal say that another order is paid."""
    shop = Shop(verified=verified)
    async with shop.till:
        # given
        await shop.approved("caught")
        unpaid = await shop.create("unpaid")
        caught = shop.vendor.outbox.popleft()
        headers = shop.vendor.sign(caught.body, secret=shop.vendor.webhook_secret, at=shop.clock.now())
        claim = {
            "id": "WH-FORGED",
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "resource": {
                "id": "2GG279541U471931P",
                "status": "COMPLETED",
                "amount": {"currency_code": "CHF", "value": "120.00"},
                "custom_id": unpaid.attempts[0].id,
                "invoice_id": "unpaid",
                "supplementary_data": {"related_ids": {"order_id": unpaid.attempts[0].vendor_id}},
            },
        }
        forged = forged_with_the_checksum_of(caught.body, claim)
        asked = len(shop.vendor.requests)

        # when
        status = await shop.till.post(f"{DOOR}/paypal", headers, forged)
        await shop.till.settle()

        # then
        assert json.loads(forged)["id"] == "WH-FORGED"
        assert status == 200  # its signature is right
        looked = [one for one in list(shop.vendor.requests)[asked:] if unpaid.attempts[0].vendor_id in one.target]
        assert [one.method for one in looked] == ["GET"]
        assert (await shop.payments.get("unpaid")).status is S.PENDING
        assert shop.till.paid == []
        shop.vendor.ledger.never(charge(reference="unpaid"))


async def test_once_the_genuine_one_has_come_a_forged_one_under_its_signature_is_refused(shop: Shop) -> None:
    # given
    await shop.approved()
    genuine = shop.vendor.outbox.popleft().body
    headers = shop.vendor.sign(genuine, secret=shop.vendor.webhook_secret, at=shop.clock.now())

    # when
    statuses = [
        await shop.till.post(f"{DOOR}/paypal", headers, genuine),
        await shop.till.post(f"{DOOR}/paypal", headers, forged_with_the_checksum_of(genuine, {"id": "WH-FORGED"})),
        await shop.till.post(f"{DOOR}/paypal", headers, genuine),
    ]

    # then
    assert statuses == [200, 401, 200]


class NewToCertificates(Shop):
    """A shop whose process was just begun: it knows no certificate, and nobody but the hub fetches any."""

    def __init__(self) -> None:
        super().__init__()
        assert self.verification
        self.verification = LocalVerification(roots=self.vendor.root)
        object.__setattr__(self.till.hub.payments.providers["paypal"], "verification", self.verification)
        self.vendor.requests.clear()

    async def delivery(self) -> tuple[Headers, bytes]:
        await self.approved()
        body = self.vendor.outbox.popleft().body
        return self.vendor.sign(body, secret=self.vendor.webhook_secret, at=self.clock.now()), body

    async def post(self, said: Headers, body: bytes) -> int:
        return await self.till.post(f"{DOOR}/paypal", said, body)

    def fetched(self) -> list[Request]:
        return [one for one in self.vendor.requests if "/certs/" in one.target]


async def test_a_certificate_that_is_not_known_yet_costs_one_refusal_and_no_code_of_yours() -> None:
    shop = NewToCertificates()
    async with shop.till:
        # given
        said, body = await shop.delivery()

        # when
        first = await shop.post(said, body)
        await shop.clock.advance(1)
        second = await shop.post(said, body)
        await shop.clock.advance(200)

        # then
        assert (first, second) == (401, 200)
        [asked] = shop.fetched()
        assert "authorization" not in {name.lower() for name, _ in asked.headers}


async def test_what_somebody_made_up_costs_nobody_else_more_than_a_minute_and_closes_no_circuit() -> None:
    shop = NewToCertificates()
    async with shop.till:
        # given
        said, body = await shop.delivery()
        made_up = [
            [(name, value + f"-{number}" if name == "paypal-cert-url" else value) for name, value in said]
            for number in range(30)
        ]

        # when
        for forged in made_up:
            assert await shop.post(forged, body) == 401
            await shop.clock.advance(1)
        first = await shop.post(said, body)
        await shop.clock.advance(75)
        second = await shop.post(said, body)

        # then
        assert (first, second) == (401, 200)
        assert len(shop.fetched()) <= 2 * 8
        assert (await shop.create("o2")).status is S.PENDING
        told = [signal for signal in shop.till.signals if isinstance(signal, UpkeepFailed)]
        assert told
        assert len(told) <= 2
        assert not [signal for signal in shop.till.signals if isinstance(signal, CircuitChanged)]


async def test_certificates_that_cannot_be_had_close_no_way_to_payments() -> None:
    shop = NewToCertificates()
    async with shop.till:
        # given
        said, body = await shop.delivery()
        shop.faults("certificates").script(*[Status(500)] * 500)

        # when
        for number in range(8):
            forged = [(name, f"{value}-{number}" if name == "paypal-cert-url" else value) for name, value in said]
            await shop.post(forged, body)
        await shop.clock.advance(200)

        # then
        asked = [one for one in shop.till.signals if isinstance(one, CallFinished) and one.operation == "certificate"]
        assert 17 <= len(asked) <= 8 * 6
        assert not [signal for signal in shop.till.signals if isinstance(signal, CircuitChanged)]
        assert (await shop.create("o2")).status is S.PENDING


@pytest.mark.parametrize("fault", [Status(503), Reset(), Refused()], ids=str)
async def test_a_certificate_that_could_not_be_fetched_is_fetched_once_it_can_be(fault: Fault) -> None:
    shop = NewToCertificates()
    async with shop.till:
        # given
        said, body = await shop.delivery()
        shop.faults("certificates").script(*[fault] * 6)

        # when
        first = await shop.post(said, body)
        await shop.clock.advance(500)
        again = shop.vendor.sign(body, secret=shop.vendor.webhook_secret, at=shop.clock.now())
        second = await shop.post(again, body)

        # then
        assert (first, second) == (401, 200)
        assert [signal for signal in shop.till.signals if isinstance(signal, UpkeepFailed)]
        assert (await shop.create("o2")).status is S.PENDING


async def test_what_no_webhook_told_is_found_in_the_list_of_events(shop: Shop) -> None:
    # given
    await shop.approved()
    shop.vendor.outbox.clear()

    # when
    found = await shop.till.run(shop.till.hub.reconcile())
    await shop.till.settle()

    # then
    assert found["paypal"].missed == 1
    assert (await shop.payments.get("o1")).status is S.PAID


# Around it


async def test_an_account_that_is_restricted_is_our_affair_and_no_payers(shop: Shop) -> None:
    page = await shop.approved()
    shop.vendor.decline(page, "PAYEE_ACCOUNT_RESTRICTED")
    await shop.till.refresh("o1")
    waiting = await shop.payments.get("o1")
    shop.vendor.decline(page, "")
    for _ in range(10):
        await shop.clock.advance(120)
        await shop.till.settle()
    assert waiting.status is S.APPROVED
    assert Anomaly.CAPTURE_UNKNOWN not in waiting.anomalies
    assert (await shop.payments.get("o1")).status is S.PAID


async def test_no_secret_and_no_token_is_in_any_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shop.faults("payments.capture").script(Status(401), Status(500), Html())
    await shop.paid()
    await settled(shop)
    texts = "\n".join([caplog.text, repr(shop.till.signals)])
    assert shop.vendor.client_secret not in texts
    assert "A21AA" not in texts


async def test_over_sockets_everything_is_the_same() -> None:
    async with Server(["paypal"], seed=7, hold_webhooks=True) as server:
        # given
        served, vendor = server.vendors["paypal"], server.simulators["paypal"]
        assert isinstance(vendor, PayPalSimulator)
        provider = PayPal(
            client_id=served.credentials["client_id"],
            client_secret=Secret(served.credentials["client_secret"]),
            merchant_id=served.credentials["merchant_id"],
            base_url=served.url,
        )
        async with Holdfast(store="memory://", secret=Secrets("hub-secret"), payments=[provider]) as hub:
            payment = await hub.payments.create("o1", DUE)
            assert payment.offer
            assert payment.offer.checkout_url
            vendor.pay(payment.offer.checkout_url)

            # when
            paid = await hub.payments.refresh("o1")
            back = await hub.payments.refund("o1", Money("20.00", "CHF"), key="r1")

            # then
            assert (paid.status, back.status) == (S.PAID, RefundStatus.SUCCEEDED)
            server.ledger.exactly_once(charge(reference="o1", amount=DUE))
            server.ledger.no_orphans()
