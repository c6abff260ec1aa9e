"""Who is on call hears of what a person has to act on: once, and never at the price of a payment."""

import asyncio
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    Arrived,
    DeadLetters,
    Event,
    HandlerRetry,
    Holdfast,
    KeyRing,
    Money,
    PaymentDisputed,
    PaymentFlagged,
    PaymentPaid,
    Payments,
    Recipient,
    RefundByHand,
    RefundFailed,
    Secrets,
    SpendLimit,
    SpendLimitReached,
    WorkerOptions,
)
from holdfast.errors import ConfigurationError, Permanent
from holdfast.payments.models import PaymentStatus, RefundStatus
from holdfast.payments.provider import Capabilities, Fee, Refunding
from holdfast.queue.dead_letters import QUIET
from holdfast.stores.store import JobFilter, JobState
from holdfast.testing import FakeNotifications
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import AbleVendor, Vendor

LISTED = Fee(percent=Decimal(10), as_of=date(2026, 1, 1), source="https://v.example/fees")
OPS = Recipient(email="ops@example.org", sms="+41790000000")
SOME, MANY = Money("10.00", "CHF"), Money("20.00", "CHF")


class Shop:
    """A hub that pays 10.00 CHF for each sale."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.vendor: Vendor = options.pop("vendor", None) or Vendor(
            name="stripe", capabilities=Capabilities(currencies=None, fee=LISTED)
        )
        self.mail, self.sms = FakeNotifications(channel="email"), FakeNotifications(channel="sms")
        limits: Any = options.pop("limits", {"stripe": SpendLimit(SOME, channel="email")})
        others: dict[str, Any] = {"notifications": [self.mail, self.sms], "on_call": OPS}
        self.hub = Holdfast(
            store=options.pop("store", "memory://"),
            secret=Secrets("s"),
            clock=self.clock,
            payments=Payments([self.vendor], spend_limits=limits),
            **(others | options),
        )

    async def sell(self, reference: str) -> None:
        payment = await self.hub.payments.create(reference, Money("100.00", "CHF"))
        self.vendor.pay(payment.attempts[-1].vendor_id)
        paid = await self.hub.payments.refresh(reference)
        assert paid.status is PaymentStatus.PAID


async def test_each_limit_is_told_by_its_own_channel_once() -> None:
    shop = Shop(limits={"stripe": [SpendLimit(SOME, channel="email"), SpendLimit(MANY, channel="sms")]})
    async with shop.hub:
        for number in range(4):
            await shop.sell(f"order-{number}")
            await shop.hub.settle()

    today = shop.clock.now().date()
    assert shop.mail.sent == [
        ("ops@example.org", f"stripe kept 10.00 CHF on {today}: your limit of 10.00 CHF is reached.")
    ]
    assert shop.sms.sent == [("+41790000000", f"stripe kept 20.00 CHF on {today}: your limit of 20.00 CHF is reached.")]
    assert shop.mail.messages[0].subject == "Fees of stripe"


async def test_a_limit_without_a_channel_is_told_by_the_first_that_takes_it() -> None:
    shop = Shop(limits={"stripe": SOME})
    shop.mail.down = True
    async with shop.hub:
        await shop.sell("order-1")
        await shop.hub.settle()

    assert len(shop.sms.sent) == 1


async def test_a_job_that_runs_again_tells_nothing_twice() -> None:
    shop = Shop()
    async with shop.hub:
        await shop.sell("order-1")
        await shop.hub.settle()
        [job] = await shop.hub.store.jobs.list(JobFilter(kind="payment.spend_limit"))
        await shop.hub.store.jobs.replay(job.id)
        await shop.hub.settle()

    assert len(shop.mail.sent) == 1


async def test_people_who_cannot_be_told_stop_no_payment_and_are_told_later() -> None:
    shop = Shop()
    shop.mail.down = True
    async with shop.hub:
        await shop.sell("order-1")
        await shop.hub.settle()
        await shop.sell("order-2")
        shop.mail.down = False
        await shop.clock.advance(60)
        await shop.hub.settle()

    assert len(shop.mail.sent) == 1


async def test_who_cannot_be_told_at_all_leaves_a_job_that_is_tried_again() -> None:
    shop = Shop()
    shop.mail.gone.add("ops@example.org")
    async with shop.hub:
        await shop.sell("order-1")
        await shop.hub.settle()
        [job] = await shop.hub.store.jobs.list(JobFilter(kind="payment.spend_limit"))

    assert (job.state, job.attempts) == (JobState.READY, 1)


async def test_without_on_call_a_handler_of_yours_is_told() -> None:
    shop = Shop(on_call=None)
    heard: list[SpendLimitReached] = []

    @shop.hub.on(SpendLimitReached, name="ours")
    async def ours(reached: SpendLimitReached) -> None:
        heard.append(reached)

    async with shop.hub:
        await shop.sell("order-1")
        await shop.hub.settle()

    assert [(one.provider, one.spent, one.channel) for one in heard] == [("stripe", SOME, "email")]
    assert shop.mail.sent == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"limits": {"stripe": SpendLimit(SOME, channel="slack")}}, "told by slack, and on_call has no such address"),
        ({"notifications": [FakeNotifications(channel="sms")]}, "no notification provider speaks email"),
        ({"notifications": [], "limits": {"stripe": SOME}}, "no notification provider speaks email, sms"),
        ({"notifications": [], "limits": {}}, "no notification provider speaks email, sms"),
        ({"on_call_for": [PaymentPaid]}, "not of PaymentPaid: take a handler"),
        ({"on_call": None, "on_call_for": [PaymentFlagged]}, "on_call is missing"),
    ],
    ids=str,
)
def test_what_could_reach_nobody_is_refused_at_once(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Shop(**options)


# What else a person has to act on


def able(**changes: Any) -> AbleVendor:
    vendor = AbleVendor(name="stripe")
    vendor.capabilities = replace(vendor.capabilities, **changes)
    return vendor


async def disputed(shop: Shop) -> None:
    await shop.sell("order-1")
    [vendor_id] = shop.vendor.held
    shop.vendor.held[vendor_id] = replace(shop.vendor.held[vendor_id], disputed=Money("40.00", "CHF"))
    about: dict[str, Any] = {"vendor_id": vendor_id, "attempt_id": "", "reference": "", "facts": {}, "attempts": 0}
    await shop.hub.payments.arrived(
        Arrived(id="1", provider="stripe", type="disputed", recognised=True, body=b"", **about)
    )


async def overpaid(shop: Shop) -> None:
    payment = await shop.hub.payments.create("order-1", Money("100.00", "CHF"))
    vendor_id = payment.attempts[-1].vendor_id
    shop.vendor.pay(vendor_id)
    shop.vendor.held[vendor_id] = replace(shop.vendor.held[vendor_id], received=Money("130.00", "CHF"))
    await shop.hub.payments.refresh("order-1")


async def refunded(shop: Shop, *, status: RefundStatus = RefundStatus.SUCCEEDED) -> None:
    assert isinstance(shop.vendor, AbleVendor)
    shop.vendor.refund_status = status
    await shop.sell("order-1")
    await shop.hub.payments.refund("order-1", Money("30.00", "CHF"), key="no-show")


async def died(shop: Shop) -> None:
    async def fail(paid: PaymentPaid) -> None:
        raise Permanent("ada@example.org has no address")

    shop.hub.on(PaymentPaid, name="ship")(fail)
    for number in range(30):
        await shop.sell(f"order-{number}")


HAPPENINGS: list[Any] = [
    (PaymentFlagged, {}, overpaid, "Payment order-1 at stripe: overpaid"),
    (PaymentDisputed, {}, disputed, "Payment order-1 at stripe: disputed"),
    (
        RefundByHand,
        {"refunding": Refunding.NONE},
        refunded,
        "Payment order-1 at stripe: refund by hand",
    ),
    (RefundFailed, {}, partial(refunded, status=RefundStatus.FAILED), "Payment order-1 at stripe: refund failed"),
    (DeadLetters, {}, died, "30 dead letters"),
]


@pytest.mark.parametrize(("event", "changes", "happen", "subject"), HAPPENINGS)
async def test_what_a_person_has_to_act_on_is_told_once(
    event: type[Event], changes: dict[str, Any], happen: Any, subject: str
) -> None:
    shop = Shop(vendor=able(**changes), limits={})
    async with shop.hub:
        await happen(shop)
        for _ in range(3):
            await shop.hub.settle()
            await shop.clock.advance(400)

    assert [message.subject for message in shop.mail.messages] == [subject]
    assert "ada@example.org" not in shop.mail.messages[0].text
    assert shop.mail.sent[0][0] == "ops@example.org"
    assert shop.sms.sent == []


@pytest.mark.parametrize(("event", "changes", "happen", "subject"), HAPPENINGS)
@pytest.mark.parametrize("is_wanted", [True, False])
async def test_which_of_these_are_told_is_chosen_by_their_events(
    event: type[Event], changes: dict[str, Any], happen: Any, subject: str, is_wanted: bool
) -> None:
    others = {PaymentFlagged, PaymentDisputed, RefundByHand, RefundFailed, SpendLimitReached, DeadLetters} - {event}
    shop = Shop(vendor=able(**changes), limits={}, on_call_for={event} if is_wanted else others)
    async with shop.hub:
        await happen(shop)
        await shop.hub.settle()

    assert [message.subject for message in shop.mail.messages] == [subject] * is_wanted


async def test_while_the_hub_works_dead_letters_are_told_by_themselves() -> None:
    shop = Shop(vendor=able(), limits={})
    async with shop.hub:
        await died(shop)
        work = asyncio.ensure_future(shop.hub.work())
        try:
            for _ in range(120):
                await shop.clock.advance(1)
        finally:
            work.cancel()
            await asyncio.wait([work])

    assert [message.subject for message in shop.mail.messages] == ["30 dead letters"]


def test_a_limit_nobody_is_to_hear_of_needs_no_channel() -> None:
    shop = Shop(limits={"stripe": SpendLimit(SOME, channel="slack")}, on_call_for=[PaymentFlagged])
    assert shop.hub.payments.spend_limits


async def test_when_nobody_can_be_told_the_alarm_dies_alone_and_brings_about_no_other() -> None:
    # given
    shop = Shop(vendor=able(), limits={}, worker=WorkerOptions(attempts=2))
    shop.mail.gone.add("ops@example.org")
    shop.sms.gone.add("+41790000000")
    async with shop.hub:
        # when
        await overpaid(shop)
        await shop.sell("order-2")
        for _ in range(10):
            await shop.hub.settle()
            await shop.clock.advance(QUIET.total_seconds())

        # then
        [job] = await shop.hub.store.jobs.list(JobFilter(state=JobState.DEAD))
        assert job.kind == PaymentFlagged.type
        assert await shop.hub.store.jobs.list(JobFilter(kind=DeadLetters.type)) == []


async def test_a_handler_of_dead_letters_that_dies_brings_about_no_other() -> None:
    shop = Shop(on_call=None, limits={})

    @shop.hub.on(DeadLetters, name="mine", retry=HandlerRetry(attempts=1))
    async def mine(event: DeadLetters) -> None:
        raise Permanent("no")

    async with shop.hub:
        await died(shop)
        for _ in range(5):
            await shop.hub.settle()
            await shop.clock.advance(QUIET.total_seconds() + 1)
        told = await shop.hub.store.jobs.list(JobFilter(kind=DeadLetters.type))

    assert [(job.handler, job.state) for job in told] == [("mine", JobState.DEAD)]


async def test_who_was_told_of_dead_letters_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    mail = FakeNotifications(channel="email")
    for _ in range(2):
        shop = Shop(vendor=able(), limits={}, store=f"sqlite:///{tmp_path}/shop.db", notifications=[mail], fleet=False)
        async with shop.hub:
            if not mail.sent:
                await died(shop)
            await shop.clock.advance(1)
            await shop.hub.settle()

    assert [message.subject for message in mail.messages] == ["30 dead letters"]


async def test_an_address_that_was_mended_is_told_what_the_old_one_was_not(tmp_path: Path) -> None:
    # given
    facts: dict[str, Any] = {"vendor": able(), "limits": {}, "store": f"sqlite:///{tmp_path}/shop.db", "fleet": False}
    before, after = Shop(**facts), Shop(**facts, on_call=Recipient(email="new@example.org"))
    before.mail.gone.add("ops@example.org")
    before.sms.gone.add("+41790000000")
    async with before.hub:
        await overpaid(before)
        await before.hub.settle()
    assert before.mail.sent == []

    # when
    async with after.hub:
        await after.clock.advance(60)
        await after.hub.settle()

    # then
    assert [address for address, _ in after.mail.sent] == ["new@example.org"]


async def test_what_was_told_of_a_payment_is_forgotten_with_it() -> None:
    shop = Shop(vendor=able(), limits={}, encryption=KeyRing("0" * 43 + "="))
    async with shop.hub:
        await overpaid(shop)
        await shop.hub.settle()
        assert "overpaid" in str(await shop.hub.export("order-1"))

        forgetting = asyncio.ensure_future(shop.hub.forget("order-1", by="ada", reason="she asked"))
        while not forgetting.done():
            await shop.clock.advance(1)

        assert forgetting.result().records >= 2
        assert "overpaid" not in str([await shop.hub.store.records.list("dispatch")])
