"""What vendors keep: told when it is known, summed by vendor and day, held against limits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, NotSent, StoreUnavailable
from holdfast.payments import events
from holdfast.payments.client import Payments
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import Capabilities, Fee
from holdfast.payments.spend import DAYS_TOLD, KIND, LOOK_EVERY, Spend, SpendLimit, SpendLimits, estimate, limits_of
from holdfast.queue.events import decode
from holdfast.runtime import Runtime
from holdfast.stores import Store, open_store
from holdfast.stores.store import JobFilter, Record
from holdfast.telemetry import FeeKept, Signal, SpendLimitReached, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.values import BTC, Money
from tests.payments.vendors import Vendor

DUE = Money("120.00", "CHF")
LISTED = Fee(
    percent=Decimal("1.5"), fixed=Money("0.30", "CHF"), as_of=date(2026, 1, 1), source="https://v.example/fees"
)
PRICED = Capabilities(currencies=None, fee=LISTED)


def chf(amount: str) -> Money:
    return Money(amount, "CHF")


class Till:
    """Payments with some vendors; what they tell of fees is kept."""

    def __init__(self, *vendors: Vendor, limits: SpendLimits | None = None, store: Store | None = None) -> None:
        self.clock = ManualClock()
        self.vendors = {vendor.name: vendor for vendor in vendors}
        self.signals: list[Signal] = []
        self.store = store or open_store("memory://", clock=self.clock)
        runtime = Runtime(self.store, clock=self.clock, telemetry=Telemetry([self.signals.append]))
        self.payments = Payments(vendors, runtime=runtime, spend_limits=limits)

    async def sell(self, reference: str, *, fee: Money | None = None) -> None:
        payment = await self.payments.create(reference, DUE)
        vendor = self.vendors[payment.provider]
        vendor.pay(payment.attempts[-1].vendor_id)
        await self.say(reference, fee)

    async def say(self, reference: str, fee: Money | None) -> None:
        """The vendor says what it kept, and we look."""
        payment = await self.payments.get(reference)
        vendor, vendor_id = self.vendors[payment.provider], payment.attempts[-1].vendor_id
        vendor.held[vendor_id] = replace(vendor.held[vendor_id], fee=fee)
        await self.payments.refresh(reference)

    @property
    def today(self) -> date:
        return self.clock.now().date()

    @property
    def fees(self) -> list[tuple[str, bool]]:
        return [(one.money, one.estimated) for one in self.signals if isinstance(one, FeeKept)]

    @property
    def warnings(self) -> list[tuple[str, str]]:
        return [(one.provider, one.spent) for one in self.signals if isinstance(one, SpendLimitReached)]


async def events_of(till: Till) -> list[events.SpendLimitReached]:
    """What handlers are told, in order."""
    jobs = await till.store.jobs.list(JobFilter(kind="payment.spend_limit"), newest=False)
    return [decode(events.SpendLimitReached, job.body) for job in jobs]


@asynccontextmanager
async def opened(till: Till) -> AsyncGenerator[Till]:
    async with till.payments:
        yield till


@pytest.mark.parametrize(
    ("money", "kept"),
    [
        (chf("120.00"), chf("2.10")),
        (chf("0.00"), chf("0.30")),
        (chf("1.00"), chf("0.32")),  # 0.315, rounded half up
        (Money("120.00", "EUR"), None),
    ],
    ids=str,
)
def test_a_price_list_speaks_of_its_own_currency(money: Money, kept: Money | None) -> None:
    assert estimate(LISTED, money) == kept


def test_a_share_alone_fits_every_currency() -> None:
    share = replace(LISTED, fixed=None)

    assert estimate(share, Money("5000", "JPY")) == Money("75", "JPY")
    assert estimate(share, Money("1.000", "KWD")) == Money("0.015", "KWD")
    assert estimate(share, Money.from_sat(100)) == Money.from_minor(1500, BTC)


async def test_what_the_vendor_says_counts_and_else_its_price_list() -> None:
    async with opened(Till(Vendor(capabilities=PRICED))) as till:
        await till.sell("order-1", fee=chf("3.00"))
        await till.sell("order-2")
        spent = await till.payments.spend(till.today)

    assert till.fees == [("3.00 CHF", False), ("2.10 CHF", True)]
    assert spent == [
        Spend(provider="vendor", day=till.today, fees=chf("5.10"), estimated=chf("2.10"), payments=2),
    ]


async def test_a_fee_of_nothing_is_one_that_was_said() -> None:
    async with opened(Till(Vendor(capabilities=PRICED))) as till:
        await till.sell("order-1", fee=chf("0.00"))
        [spent] = await till.payments.spend(till.today)

    assert (spent.fees, spent.estimated) == (chf("0.00"), chf("0.00"))


async def test_a_vendor_of_whom_nothing_is_known_is_not_free() -> None:
    async with opened(Till(Vendor())) as till:
        await till.sell("order-1")
        [spent] = await till.payments.spend(till.today)

    assert (spent.fees, spent.payments, spent.unknown) == (chf("0.00"), 1, 1)
    assert till.fees == []


async def test_days_and_vendors_are_apart_and_days_are_in_utc() -> None:
    first, second = Vendor(name="first", capabilities=PRICED), Vendor(name="second", capabilities=PRICED)
    async with opened(Till(first, second)) as till:
        await till.sell("order-1")
        first.before = _down
        await till.sell("order-2")
        monday = till.today
        await till.clock.advance(86_400)
        await till.sell("order-3")

        assert [(one.provider, one.payments) for one in await till.payments.spend(monday)] == [
            ("first", 1),
            ("second", 1),
        ]
        assert [one.provider for one in await till.payments.spend(till.today)] == ["second"]
        assert await till.payments.spend(monday - timedelta(days=1)) == []


async def test_a_payment_that_is_paid_again_the_next_day_costs_on_both() -> None:
    vendor = Vendor(capabilities=PRICED)
    async with opened(Till(vendor)) as till:
        first = await till.payments.create("order-1", DUE)
        await till.clock.advance(3600)
        await till.payments.refresh("order-1")
        second = await till.payments.renew("order-1")
        vendor.pay(second.attempts[1].vendor_id)
        await till.payments.refresh("order-1")
        monday = till.today
        vendor.pay(first.attempts[0].vendor_id)
        await till.clock.advance(86_400)
        await till.payments.refresh("order-1")

        assert [[one.payments for one in await till.payments.spend(day)] for day in (monday, till.today)] == [[1], [1]]


async def test_who_pays_nothing_costs_nothing() -> None:
    async with opened(Till(Vendor(capabilities=PRICED))) as till:
        payment = await till.payments.create("order-1", DUE)
        await till.payments.refresh("order-1")

        assert payment.status is PaymentStatus.PENDING
        assert await till.payments.spend(till.today) == []


async def test_a_limit_tells_once_a_day_when_it_is_reached() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("4.20")})
    async with opened(till):
        await till.sell("order-1")
        assert till.warnings == []
        await till.sell("order-2")
        await till.sell("order-3")
        assert till.warnings == [("vendor", "4.20 CHF")]
        await till.clock.advance(86_400)
        await till.sell("order-4")
        await till.sell("order-5")

    assert till.warnings == [("vendor", "4.20 CHF")] * 2


async def test_a_limit_is_of_one_currency() -> None:
    async with opened(Till(Vendor(capabilities=PRICED), limits={"vendor": Money("1.00", "EUR")})) as till:
        await till.sell("order-1")

    assert till.warnings == []


async def test_what_the_vendor_says_later_replaces_the_estimate() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("4.00")})
    async with opened(till):
        await till.sell("order-1")
        payment = await till.payments.get("order-1")
        vendor_id = payment.attempts[0].vendor_id
        vendor = till.vendors["vendor"]
        vendor.held[vendor_id] = replace(vendor.held[vendor_id], fee=chf("0.10"))
        await till.payments._following.learn(payment, payment.attempts[0], vendor_id)  # as a webhook would have it
        await till.sell("order-2")
        assert till.warnings == []
        await till.sell("order-3")
        assert till.warnings == [("vendor", "4.30 CHF")]
        [spent] = await till.payments.spend(till.today)

    assert (spent.fees, spent.estimated) == (chf("4.30"), chf("4.20"))
    assert till.fees[:2] == [("2.10 CHF", True), ("0.10 CHF", False)]


async def test_two_processes_share_one_sum_and_a_restart_keeps_it(tmp_path: object) -> None:
    path, limits = f"sqlite:///{tmp_path}/till.db", {"vendor": chf("6.30")}
    clock = ManualClock()
    tills = [Till(Vendor(capabilities=PRICED), limits=limits, store=open_store(path, clock=clock)) for _ in range(3)]
    async with opened(tills[0]) as first, opened(tills[1]) as second:
        await first.sell("order-1")
        await second.sell("order-2")
    async with opened(tills[2]) as third:
        await third.sell("order-3")

    assert [len(till.warnings) for till in tills] == [0, 0, 1]


async def test_a_meter_that_cannot_count_stops_no_payment(monkeypatch: pytest.MonkeyPatch) -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("1.00")})

    async def full(*_: object, **__: object) -> int:
        raise StoreUnavailable("the disk is full")

    async with opened(till):
        monkeypatch.setattr(till.store.counters, "add", full)
        await till.sell("order-1")

        assert (await till.payments.get("order-1")).status is PaymentStatus.PAID


def test_limits_are_given_one_by_one_or_together() -> None:
    alone, by_mail = SpendLimit(chf("1.00")), SpendLimit(chf("5.00"), channel="email")

    assert limits_of({"a": chf("1.00"), "b": by_mail, "c": [chf("1.00"), by_mail]}) == {
        "a": (alone,),
        "b": (by_mail,),
        "c": (alone, by_mail),
    }


async def test_each_limit_is_an_event_of_its_own_for_handlers() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": [chf("2.00"), SpendLimit(chf("4.00"), channel="sms")]})
    async with opened(till):
        for number in range(3):
            await till.sell(f"order-{number}")
        told = await events_of(till)

    assert [(one.provider, one.day, one.spent, one.limit, one.channel) for one in told] == [
        ("vendor", till.today, chf("2.10"), chf("2.00"), ""),
        ("vendor", till.today, chf("4.20"), chf("4.00"), "sms"),
    ]


async def test_one_payment_may_reach_several_limits() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": [chf("1.00"), chf("2.00"), chf("3.00")]})
    async with opened(till):
        await till.sell("order-1")
        told = await events_of(till)

    assert [one.limit for one in told] == [chf("1.00"), chf("2.00")]


async def test_currencies_of_one_vendor_are_summed_apart() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": [chf("5.00"), Money("5.00", "EUR")]})
    async with opened(till):
        await till.sell("order-1", fee=chf("4.00"))
        await till.sell("order-2", fee=Money("4.00", "EUR"))
        assert till.warnings == []
        await till.sell("order-3", fee=Money("1.00", "EUR"))

    assert till.warnings == [("vendor", "5.00 EUR")]


async def test_processes_that_reach_a_limit_at_once_tell_it_once(tmp_path: object) -> None:
    path, limits = f"sqlite:///{tmp_path}/till.db", {"vendor": chf("2.00")}
    tills = [Till(Vendor(capabilities=PRICED), limits=limits, store=open_store(path)) for _ in range(4)]
    async with AsyncExitStack() as stack:
        for number, till in enumerate(tills):
            await stack.enter_async_context(till.payments)
            payment = await till.payments.create(f"order-{number}", DUE)
            till.vendors["vendor"].pay(payment.attempts[-1].vendor_id)
        async with asyncio.TaskGroup() as group:
            for number, till in enumerate(tills):
                group.create_task(till.payments.refresh(f"order-{number}"))
        told = await events_of(tills[0])

    assert sum(len(till.warnings) for till in tills) == 1
    assert len(told) == 1


async def test_a_restart_tells_nothing_again(tmp_path: object) -> None:
    path, clock = f"sqlite:///{tmp_path}/till.db", ManualClock()
    limits = {"vendor": chf("2.00")}
    tills = [Till(Vendor(capabilities=PRICED), limits=limits, store=open_store(path, clock=clock)) for _ in range(2)]
    async with opened(tills[0]):
        await tills[0].sell("order-1")
    async with opened(tills[1]):
        await tills[1].sell("order-2")
        await tills[1].payments.sweep()
        told = await events_of(tills[1])

    assert (len(tills[0].warnings), len(tills[1].warnings), len(told)) == (1, 0, 1)


async def test_what_was_counted_and_not_told_before_a_crash_is_told_by_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("2.00")})
    apply = till.store.records.apply

    async def killed(kind: str, *arguments: Any, **options: Any) -> Record:
        if kind == KIND:
            raise KeyboardInterrupt
        return await apply(kind, *arguments, **options)

    async with opened(till):
        monkeypatch.setattr(till.store.records, "apply", killed)
        with pytest.raises(KeyboardInterrupt):
            await till.sell("order-1")
        monkeypatch.undo()
        assert till.warnings == []
        for _ in range(3):
            await till.clock.advance(LOOK_EVERY)
            await till.payments.sweep()
        told = await events_of(till)

    assert till.warnings == [("vendor", "2.10 CHF")]
    assert len(told) == 1


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("a defect")], ids=repr)
async def test_a_meter_that_cannot_tell_stops_neither_payment_nor_sweep(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("1.00")})
    get = till.store.records.get

    async def broken(kind: str, key: str) -> Record | None:
        if kind == KIND:
            raise error
        return await get(kind, key)

    async with opened(till):
        monkeypatch.setattr(till.store.records, "get", broken)
        await till.sell("order-1")
        await till.clock.advance(LOOK_EVERY)
        await till.payments.sweep()
        assert (await till.payments.get("order-1")).status is PaymentStatus.PAID
        assert till.warnings == []
        monkeypatch.undo()
        await till.sell("order-2")

    assert till.warnings == [("vendor", "4.20 CHF")]


async def test_what_was_told_is_forgotten_after_a_while() -> None:
    till = Till(Vendor(capabilities=PRICED), limits={"vendor": chf("2.00")})
    async with opened(till):
        for number in range(DAYS_TOLD + 3):
            await till.sell(f"order-{number}")
            await till.clock.advance(86_400)
        record = await till.store.records.get(KIND, "vendor")
        assert record is not None

    assert len(till.warnings) == DAYS_TOLD + 3
    assert len(record.value) == DAYS_TOLD
    assert max(record.value) == f"{till.today - timedelta(days=1)}"


def test_a_limit_names_a_provider() -> None:
    with pytest.raises(ConfigurationError, match="spend_limits names stripe"):
        Payments([Vendor()], spend_limits={"stripe": chf("1.00")})


def _down() -> None:
    raise NotSent("connection refused", hard=True)
