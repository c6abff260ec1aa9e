"""Who is on call hears of limits: by the channel each names, once, and never at the price of a payment."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from holdfast import Holdfast, Money, Payments, Recipient, Secrets, SpendLimit, SpendLimitReached
from holdfast.errors import ConfigurationError
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import Capabilities, Fee
from holdfast.stores.store import JobFilter, JobState
from holdfast.testing import FakeNotifications
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import Vendor

LISTED = Fee(percent=Decimal(10), as_of=date(2026, 1, 1), source="https://v.example/fees")
OPS = Recipient(email="ops@example.org", sms="+41790000000")
SOME, MANY = Money("10.00", "CHF"), Money("20.00", "CHF")


class Shop:
    """A hub that pays 10.00 CHF for each sale."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.vendor = Vendor(name="stripe", capabilities=Capabilities(currencies=None, fee=LISTED))
        self.mail, self.sms = FakeNotifications(channel="email"), FakeNotifications(channel="sms")
        limits: Any = options.pop("limits", {"stripe": SpendLimit(SOME, channel="email")})
        others: dict[str, Any] = {"notifications": [self.mail, self.sms], "on_call": OPS}
        self.hub = Holdfast(
            store="memory://",
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
    ],
    ids=str,
)
def test_a_limit_that_could_reach_nobody_is_refused_at_once(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Shop(**options)
