"""Stripe through a hub: one page, one charge, one refund, told once, whatever is lost on the way."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import pytest

from holdfast import Holdfast, Payment, PaymentPaid
from holdfast.errors import InvalidInput, OutcomeUnknown
from holdfast.payments.events import PaymentDisputed
from holdfast.payments.models import Capture, Payer, PaymentStatus, RefundStatus
from holdfast.providers import Stripe, StripeIntents
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Html, Latency, Reset, Status
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Headers, Request
from holdfast.testing.simulators.webhooks import Mischief, Sent, WebhookSimulator
from holdfast.values import Money, Secret, Secrets
from tests.providers.connection import NOON
from tests.providers.test_stripe import DUE, HOOK_SECRET, KEY, THANKS, simulator

T = TypeVar("T")
S = PaymentStatus

DOOR = "https://shop.example/webhooks"
QUIET = Mischief()
LOST: Sequence[Fault] = (Reset(), BadJson(), Html(), Status(500).after_effect())


class Shop:
    """A hub over one Stripe account, and time that passes as far as it must."""

    def __init__(self, *, webhook_url: str = "", provider: type[Stripe] = Stripe) -> None:
        self.clock = ManualClock(NOON)
        self.vendor = simulator(self.clock, webhook_url=webhook_url)
        self.told: list[PaymentPaid] = []
        self.signals: list[Signal] = []
        self.provider = provider(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), return_url=THANKS)
        self.hub = Holdfast(
            store="memory://",
            public_url=DOOR,
            secret=Secrets("hub-secret"),
            payments=[self.provider],
            clock=self.clock,
            chance=Random(7),
            transport=lambda _: InProcess(self.vendor),
            telemetry=Telemetry([self.signals.append]),
        )
        self.payments = self.hub.payments

        @self.hub.on(PaymentPaid, name="tell")
        async def tell(paid: PaymentPaid) -> None:
            self.told.append(paid)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await self.clock.advance(0.25)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return task.result()

    async def create(self, reference: str = "o1", due: Money = DUE, **more: Any) -> Payment:
        return await self.run(self.payments.create(reference, due, **more))

    async def refresh(self, reference: str = "o1") -> Payment:
        return await self.run(self.payments.refresh(reference))

    async def pay(self, reference: str = "o1", **more: Any) -> Payment:
        payment = await self.create(reference, **more)
        assert payment.offer
        assert payment.offer.checkout_url
        self.vendor.pay(payment.offer.checkout_url)
        return await self.refresh(reference)

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "method": "POST", "path": url.removeprefix(DOOR), "headers": pairs}
        await self.hub.receiver(scope, receive, send)
        return statuses[0]

    async def deliver(self, mischief: Mischief = QUIET) -> list[Sent]:
        post = WebhookSimulator([self.vendor], self.post, mischief=mischief, seed=3, clock=self.clock)
        return await self.run(post.deliver())


@asynccontextmanager
async def open_shop(*, webhook_url: str = "", provider: type[Stripe] = Stripe) -> AsyncGenerator[Shop]:
    shop = Shop(webhook_url=webhook_url, provider=provider)
    async with shop.hub:
        yield shop


async def test_a_payment_is_told_once_whatever_becomes_of_its_webhooks() -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe") as shop:
        # given
        payment = await shop.create()
        assert payment.offer
        assert payment.offer.checkout_url
        shop.vendor.pay(payment.offer.checkout_url)

        # when
        sent = await shop.deliver(Mischief(duplicate=1, delay=0.5, forge=1, lie=1))
        await shop.run(shop.hub.settle())

        # then
        assert {one.status for one in sent if one.manner in (Manner.GENUINE, Manner.DUPLICATE)} == {200}
        forged = [one.status for one in sent if one.manner not in (Manner.GENUINE, Manner.DUPLICATE, Manner.LIE)]
        assert len(forged) == 4  # one beside each of four events
        assert set(forged) <= {401, 404}
        assert (await shop.payments.get("o1")).status is S.PAID
        assert [(paid.reference, paid.received) for paid in shop.told] == [("o1", DUE)]


async def test_a_webhook_that_lies_moves_nothing() -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe") as shop:
        await shop.create("o1")
        await shop.pay("o2")
        sent = await shop.deliver(Mischief(lie=1))
        await shop.run(shop.hub.settle())

        assert [one.status for one in sent if one.manner is Manner.LIE][:1] == [200]
        assert (await shop.payments.get("o1")).status is S.PENDING
        assert [paid.reference for paid in shop.told] == ["o2"]


async def test_a_payment_is_found_by_the_sweep_alone() -> None:
    async with open_shop() as shop:
        payment = await shop.create()
        assert payment.offer
        assert payment.offer.checkout_url
        shop.vendor.pay(payment.offer.checkout_url)
        await shop.clock.advance(31)

        await shop.run(shop.payments.sweep())

        assert (await shop.payments.get("o1")).status is S.PAID


async def test_what_no_webhook_told_is_found_by_asking_for_events() -> None:
    async with open_shop() as shop:
        payment = await shop.create()
        assert payment.offer
        assert payment.offer.checkout_url
        shop.vendor.pay(payment.offer.checkout_url)

        counts = await shop.run(shop.hub.reconcile())
        await shop.run(shop.hub.settle())

        assert counts["stripe"].missed == 2  # of the page, and of its intent
        assert [paid.reference for paid in shop.told] == ["o1"]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
async def test_a_lost_creation_is_one_page_which_is_shown(fault: Fault) -> None:
    async with open_shop() as shop:
        shop.vendor.faults.on("stripe", "payments.create").script(fault)

        payment = await shop.create()

        assert payment.route == ("stripe:offered",)
        assert payment.offer
        shop.vendor.ledger.exactly_once(offer(reference="o1"))


async def test_a_stored_500_is_read_and_never_asked_for_under_another_key() -> None:
    async with open_shop() as shop:
        # given
        shop.vendor.faults.on("stripe", "payments.create").script(Status(500).after_effect())

        # when
        payment = await shop.create()

        # then
        asked = [one for one in shop.vendor.requests if one.method == "POST"]
        assert {one.header("idempotency-key") for one in asked} == {payment.attempts[0].id}
        assert len(asked) <= 3  # once per claim, and not once more within one
        assert payment.attempts[0].vendor_id in shop.vendor.resources


async def test_a_lost_creation_under_way_still_is_one_page() -> None:
    async with open_shop() as shop:
        shop.vendor.faults.on("stripe", "payments.create").script(Latency(40, 40))

        payment = await shop.create()

        assert payment.offer
        shop.vendor.ledger.exactly_once(offer(reference="o1"))


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
async def test_a_lost_capture_is_one_capture(fault: Fault) -> None:
    async with open_shop() as shop:
        # given
        assert (await shop.pay(capture=Capture.MANUAL)).status is S.AUTHORIZED
        shop.vendor.faults.on("stripe", "payments.capture").always(fault)

        # when
        with pytest.raises(OutcomeUnknown):
            await shop.run(shop.payments.capture("o1", Money("70.00", "CHF")))
        payment = await shop.refresh()

        # then
        assert (payment.status, payment.received) == (S.PAID, Money("70.00", "CHF"))
        assert shop.vendor.ledger.exactly_once(charge(reference="o1")).money == Money("70.00", "CHF")


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
async def test_a_lost_refund_is_one_refund(fault: Fault) -> None:
    async with open_shop() as shop:
        # given
        await shop.pay()
        shop.vendor.faults.on("stripe", "payments.refund").always(fault)

        # when
        with pytest.raises(OutcomeUnknown):
            await shop.run(shop.payments.refund("o1", Money("20.00", "CHF"), key="r1", reason="ill"))
        await shop.clock.advance(10)
        await shop.run(shop.payments.sweep())

        # then
        [found] = await shop.payments.refunds("o1")
        assert (found.status, found.money) == (RefundStatus.SUCCEEDED, Money("20.00", "CHF"))
        shop.vendor.ledger.exactly_once(refund(reference="o1"))


@pytest.mark.parametrize(
    ("succeeds", "status"), [(True, RefundStatus.SUCCEEDED), (False, RefundStatus.FAILED)], ids=str
)
async def test_a_refund_that_takes_days_ends_by_its_webhook(succeeds: bool, status: RefundStatus) -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe") as shop:
        # given
        payment = await shop.create()
        shop.vendor.pay_with(payment.attempts[0].vendor_id, "4000000000007726")
        await shop.refresh()
        pending = await shop.run(shop.payments.refund("o1", key="r1"))
        shop.vendor.outbox.clear()

        # when
        shop.vendor.settle_refund(pending.vendor_id, succeeds=succeeds)
        await shop.deliver()
        await shop.run(shop.hub.settle())

        # then
        [found] = await shop.payments.refunds("o1")
        assert (pending.status, found.status) == (RefundStatus.PENDING, status)


async def test_all_that_was_captured_can_go_back_and_no_more() -> None:
    async with open_shop() as shop:
        await shop.pay(capture=Capture.MANUAL)
        await shop.run(shop.payments.capture("o1", Money("70.00", "CHF")))

        rest = await shop.run(shop.payments.refund("o1", key="r1"))

        assert (rest.status, rest.money) == (RefundStatus.SUCCEEDED, Money("70.00", "CHF"))
        with pytest.raises(InvalidInput, match="can go back"):
            await shop.run(shop.payments.refund("o1", Money("0.01", "CHF"), key="r2"))


async def test_money_set_aside_outlives_its_page_and_is_captured_days_later() -> None:
    async with open_shop() as shop:
        await shop.pay(capture=Capture.MANUAL)
        await shop.clock.advance(3 * 86_400)
        assert (await shop.refresh()).status is S.AUTHORIZED

        payment = await shop.run(shop.payments.capture("o1"))

        assert (payment.status, payment.received) == (S.PAID, DUE)


async def test_money_nobody_captures_within_a_week_is_gone() -> None:
    async with open_shop() as shop:
        await shop.pay(capture=Capture.MANUAL)
        await shop.clock.advance(7 * 86_400)

        assert (await shop.refresh()).status is S.CANCELED


@pytest.mark.parametrize("capture", list(Capture))
async def test_a_payment_nobody_wants_any_more_is_canceled_with_proof(capture: Capture) -> None:
    async with open_shop() as shop:
        payment = await shop.create(capture=capture)
        assert payment.offer
        assert payment.offer.checkout_url
        if capture is Capture.MANUAL:
            shop.vendor.pay(payment.offer.checkout_url)
            await shop.refresh()

        canceled = await shop.run(shop.payments.cancel("o1"))

        assert (canceled.status, canceled.offer) == (S.CANCELED, None)
        with pytest.raises(LookupError):
            shop.vendor.pay(payment.offer.checkout_url)


async def test_another_offer_is_made_once_the_first_is_expired() -> None:
    async with open_shop() as shop:
        first = await shop.create()
        second = await shop.run(shop.payments.renew("o1"))

        assert first.offer
        assert second.offer
        assert second.offer != first.offer
        assert shop.vendor.resources[first.attempts[0].vendor_id]["status"] == "expired"


async def test_a_page_that_ran_out_is_expired_and_not_looked_at_again() -> None:
    async with open_shop() as shop:
        await shop.create()
        await shop.clock.advance(36 * 60)
        assert (await shop.refresh()).status is S.EXPIRED
        shop.vendor.requests.clear()

        await shop.clock.advance(30 * 86_400)
        await shop.run(shop.payments.sweep())

        assert not shop.vendor.requests


async def test_no_secret_is_in_a_log_an_error_or_a_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        async with open_shop(webhook_url=f"{DOOR}/stripe") as shop:
            payment = await shop.pay(payer=Payer(email="ada@example.com"))
            await shop.deliver()
            await shop.run(shop.hub.settle())
            secrets = {str(one["client_secret"]) for one in shop.vendor.resources.values() if one.get("client_secret")}
            shown = " ".join([caplog.text, repr(payment), repr(shop.signals), repr(await shop.payments.history("o1"))])

    assert secrets
    assert not [one for one in (KEY, HOOK_SECRET, "ada@example.com", *secrets) if one in shown]


@pytest.mark.parametrize("provider", [Stripe, StripeIntents])
async def test_a_dispute_and_a_refund_from_the_dashboard_are_learned_of_by_webhook(provider: type[Stripe]) -> None:
    async with open_shop(webhook_url=f"{DOOR}/stripe", provider=provider) as shop:
        # given
        disputed: list[PaymentDisputed] = []

        @shop.hub.on(PaymentDisputed, name="answer")
        async def answer(event: PaymentDisputed) -> None:
            disputed.append(event)

        payment = await shop.create()
        vendor_id = payment.attempts[0].vendor_id
        shop.vendor.pay(vendor_id)
        await shop.refresh()
        intent = next(one["payment_intent"] for one in shop.vendor.resources.values() if one["object"] == "charge")
        call = Request(
            method="POST",
            target="/v1/refunds",
            headers=[("authorization", f"Bearer {KEY}"), ("content-type", "application/x-www-form-urlencoded")],
            body=f"payment_intent={intent}&amount=2000".encode(),
        )

        # when
        assert shop.vendor.handle(call).status == 200
        shop.vendor.dispute(vendor_id, amount=5_000)
        await shop.deliver()
        await shop.run(shop.hub.settle())

        # then
        [attempt] = (await shop.payments.get("o1")).attempts
        assert attempt.refunded == Money("20.00", "CHF")
        assert attempt.disputed == Money("50.00", "CHF")
        assert {event.money for event in disputed} == {Money("50.00", "CHF")}
