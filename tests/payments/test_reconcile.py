"""Our books against what vendors list: what is missing on either side, twice, late, or another amount."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import Holdfast
from holdfast.errors import InvalidInput, NaiveDatetime, NotSent, Rejected
from holdfast.http.session import Http
from holdfast.payments.client import Payments
from holdfast.payments.models import Anomaly, PaymentStatus, RefundStatus
from holdfast.payments.provider import LineKind, PaymentSnapshot, RefundRequest, RefundSnapshot, StatementLine
from holdfast.payments.reconcile import Entry, Finding, FindingKind, MoneyReport, Total, compare, totals
from holdfast.payments.refunds import Refund
from holdfast.providers import LNbits, lnbits
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.telemetry import MoneyDiffers, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.values import Money, Secret, Secrets
from tests.payments.vendors import AbleVendor, Vendor

K = FindingKind
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=12), NOON + timedelta(hours=12)
DUE = Money("120.00", "CHF")
HOUR = timedelta(hours=1)


def chf(amount: str) -> Money:
    return Money(amount, "CHF")


def entry(**other: object) -> Entry:
    """An attempt of `order-1` that our books have as paid at noon."""
    paid = Entry(
        reference="order-1",
        number=1,
        provider="v",
        attempt_id="a1",
        vendor_id="p1",
        begun_at=NOON - HOUR,
        ended_at=NOON + HOUR,
        paid_at=NOON,
        received=DUE,
    )
    return replace(paid, **other)  # type: ignore[arg-type]


OPEN: dict[str, object] = {"paid_at": None, "received": None}


def line(id: str = "p1", **other: object) -> StatementLine:
    """The vendor's line of it."""
    paid = StatementLine(kind=LineKind.PAYMENT, vendor_id=id, payment_id=id, money=DUE, at=NOON)
    return replace(paid, **other)  # type: ignore[arg-type]


def sent_back(id: str = "r1", **other: object) -> StatementLine:
    return line(id, **({"kind": LineKind.REFUND, "payment_id": "p1"} | other))


def refund(**other: object) -> Refund:
    """A refund of all of it, which our books have as sent."""
    sent = Refund(
        key="k",
        number=1,
        provider="v",
        money=DUE,
        status=RefundStatus.SUCCEEDED,
        vendor_id="r1",
        created_at=NOON,
        settled_at=NOON,
    )
    return replace(sent, **other)  # type: ignore[arg-type]


def found(books: list[Entry], *lines: StatementLine) -> list[tuple[FindingKind, str]]:
    """What a person has to look at, and `-` before what they need not."""
    return [
        (one.kind, ("-" if one.settled else "") + one.vendor_id)
        for one in compare(books, {"v": lines}, since=SINCE, until=UNTIL)
    ]


COMPARED: dict[str, tuple[list[Entry], list[StatementLine], list[tuple[FindingKind, str]]]] = {
    "the same on both sides": ([entry()], [line()], []),
    "listed on two pages": ([entry()], [line(), line()], []),
    "in two parts": ([entry()], [line(money=chf("100.00")), line(money=chf("20.00"))], []),
    "charged, and the charge failed": ([entry(**OPEN)], [line(), line(money=chf("-120.00"))], []),
    "of nobody": ([entry()], [line(), line("p2")], [(K.ORPHAN, "p2")]),
    "of nobody, before that time": ([entry()], [line(), line("p2", at=SINCE - HOUR)], []),
    "of nobody, right when it ends": ([entry()], [line(), line("p2", at=UNTIL)], []),
    "known by our id alone": ([entry(vendor_id="page")], [line("intent", attempt_id="a1")], []),
    "shown by nobody": ([entry()], [], [(K.LOST, "p1")]),
    "shown by nobody, paid before that time": ([entry(paid_at=SINCE - HOUR)], [], []),
    "moved before that time, noticed within": ([entry(paid_at=SINCE)], [line(at=SINCE - HOUR)], []),
    "not noticed": ([entry(**OPEN)], [line()], [(K.UNNOTICED, "p1")]),
    "noticed, but late": ([entry(ended_at=NOON - HOUR)], [line()], [(K.LATE, "-p1")]),
    "less": ([entry()], [line(money=chf("119.99"))], [(K.AMOUNT, "p1")]),
    "another currency": ([entry()], [line(money=Money("120.00", "EUR"))], [(K.AMOUNT, "p1")]),
    "another fee": ([entry(fee=chf("2.00"))], [line(fee=chf("2.50"))], [(K.FEE, "p1")]),
    "a fee nobody had told": ([entry()], [line(fee=chf("2.50"))], []),
    "two objects for one attempt": (
        [entry()],
        [line(), line("p2", attempt_id="a1", at=NOON + HOUR, money=chf("60.00"))],
        [(K.DOUBLE, "p2")],
    ),
    "two attempts of one payment": (
        [entry(), entry(number=2, attempt_id="a2", vendor_id="p2")],
        [line(), line("p2", at=NOON + HOUR)],
        [(K.DOUBLE, "p2")],
    ),
    "two attempts, one of a vendor that was not asked": (
        [entry(provider="other"), entry(number=2, attempt_id="a2", vendor_id="p2")],
        [line("p2", at=NOON + HOUR)],
        [(K.DOUBLE, "p2")],
    ),
    "twice, and one went back": (
        [entry(refunds=(refund(),)), entry(number=2, attempt_id="a2", vendor_id="p2")],
        [line(), line("p2", at=NOON + HOUR), sent_back()],
        [(K.DOUBLE, "-p2")],
    ),
    "twice, and some of one went back": (
        [entry(refunds=(refund(money=chf("1.00")),)), entry(number=2, attempt_id="a2", vendor_id="p2")],
        [line(), line("p2", at=NOON + HOUR), sent_back(money=chf("1.00"))],
        [(K.DOUBLE, "p2")],
    ),
    "sent back": ([entry(refunds=(refund(),))], [line(), sent_back()], []),
    "sent back, with a minus": ([entry(refunds=(refund(),))], [line(), sent_back(money=chf("-120.00"))], []),
    "sent back by somebody else": ([entry()], [line(), sent_back()], [(K.ORPHAN, "r1")]),
    "sent back, of a payment nobody knows": ([], [sent_back()], [(K.ORPHAN, "r1")]),
    "sent back, not noticed": (
        [entry(refunds=(refund(status=RefundStatus.FAILED),))],
        [line(), sent_back()],
        [(K.UNNOTICED, "r1")],
    ),
    "sent back, and still under way": (
        [entry(refunds=(refund(status=RefundStatus.PENDING, settled_at=None),))],
        [line(), sent_back()],
        [(K.UNNOTICED, "-r1")],
    ),
    "another amount sent back": (
        [entry(refunds=(refund(),))],
        [line(), sent_back(money=chf("12.00"))],
        [(K.AMOUNT, "r1")],
    ),
    "sent back, and shown by nobody": ([entry(refunds=(refund(),))], [line()], [(K.LOST, "r1")]),
    "sent back, and it bounced": (
        [entry(refunds=(refund(),))],
        [line(), sent_back(money=chf("-120.00")), sent_back()],
        [(K.LOST, "r1")],
    ),
    "sent back by hand": ([entry(refunds=(refund(vendor_id=""),))], [line()], []),
    "disputed": ([entry()], [line(), sent_back(kind=LineKind.DISPUTE)], [(K.UNNOTICED, "p1")]),
    "disputed, as we know": ([entry(disputed=DUE)], [line(), sent_back(kind=LineKind.DISPUTE)], []),
    "disputed, and won": (
        [entry()],
        [line(), sent_back(kind=LineKind.DISPUTE, money=chf("-120.00")), sent_back("r2", kind=LineKind.DISPUTE)],
        [],
    ),
    "disputed, of nobody": ([], [sent_back(kind=LineKind.DISPUTE)], [(K.ORPHAN, "p1")]),
    "a fee by itself": ([entry()], [line(), line("f1", kind=LineKind.FEE, payment_id="")], []),
}


@pytest.mark.parametrize("case", COMPARED)
def test_books_are_compared(case: str) -> None:
    books, lines, expected = COMPARED[case]

    assert found(books, *lines) == expected


def test_nothing_is_said_of_a_vendor_that_was_not_asked() -> None:
    assert compare([entry(refunds=(refund(),))], {}, since=SINCE, until=UNTIL) == []


def test_a_finding_has_both_sides() -> None:
    [differs] = compare([entry()], {"v": [line(money=chf("119.99"))]}, since=SINCE, until=UNTIL)

    assert differs == Finding(
        kind=K.AMOUNT,
        provider="v",
        about=LineKind.PAYMENT,
        vendor_id="p1",
        reference="order-1",
        number=1,
        ours=DUE,
        theirs=chf("119.99"),
        at=NOON,
    )


def test_an_orphan_tells_what_it_names() -> None:
    lines = [line("p1", reference="order-9"), line("p2")]

    notes = [one.note for one in compare([], {"v": lines}, since=SINCE, until=UNTIL)]

    assert notes == ["it names order-9", "it names nothing of ours"]


def test_totals_are_by_kind_and_currency_and_count_a_line_once() -> None:
    lines = [
        line(fee=chf("3.00")),
        line(fee=chf("3.00")),
        line("p2", money=Money("5", "EUR")),
        sent_back(money=chf("-20.00")),
        line("f1", kind=LineKind.FEE, money=chf("1.00")),
        line("p3", at=UNTIL),
    ]

    assert totals({"v": lines}, since=SINCE, until=UNTIL) == [
        Total(provider="v", kind=LineKind.FEE, money=chf("4.00"), lines=2),
        Total(provider="v", kind=LineKind.PAYMENT, money=DUE, lines=1),
        Total(provider="v", kind=LineKind.PAYMENT, money=Money("5", "EUR"), lines=1),
        Total(provider="v", kind=LineKind.REFUND, money=chf("20.00"), lines=1),
    ]


# Through the client.


@dataclass(kw_only=True, eq=False)
class ListingVendor(AbleVendor):
    """One that lists what came in and went back; `hidden` is not on its list."""

    clock: ManualClock
    moved: dict[str, datetime] = field(default_factory=dict[str, datetime])
    hidden: set[str] = field(default_factory=set[str])
    strangers: list[StatementLine] = field(default_factory=list[StatementLine])
    asked: list[tuple[datetime, datetime]] = field(default_factory=list[tuple[datetime, datetime]])

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        self.asked.append((since, until))
        self.before()
        for held in self.held.values():
            if held.received is not None and held.vendor_id not in self.hidden:
                yield self._line(LineKind.PAYMENT, held.vendor_id, held)
        for refund in self.refunded.values():
            if refund.money is not None and refund.vendor_id not in self.hidden:
                held = next(iter(self.held.values()))
                yield replace(self._line(LineKind.REFUND, refund.vendor_id, held), money=refund.money)
        for stranger in self.strangers:
            yield stranger

    def _line(self, kind: LineKind, id: str, held: PaymentSnapshot) -> StatementLine:
        return StatementLine(
            kind=kind,
            vendor_id=id,
            payment_id=held.vendor_id,
            money=held.received or DUE,
            at=self.moved.get(id, self.clock.now()),
            fee=held.fee,
            attempt_id=held.attempt_id,
        )

    def pay(self, vendor_id: str) -> None:
        super().pay(vendor_id)
        self.moved[vendor_id] = self.clock.now()

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        sent = await super().refund(http, request)
        self.moved[sent.vendor_id] = self.clock.now()
        return sent


class Shop:
    """Payments with one vendor that lists and one that does not."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.vendor = ListingVendor(clock=self.clock)
        self.silent = Vendor(name="silent")
        self.signals: list[Signal] = []
        store = open_store("memory://", clock=self.clock)
        self.runtime = Runtime(store, clock=self.clock, telemetry=Telemetry([self.signals.append]))
        self.payments = Payments([self.vendor, self.silent], runtime=self.runtime)

    async def sell(self, reference: str = "order-1", *, notice: bool = True) -> str:
        payment = await self.payments.create(reference, DUE)
        vendor_id = payment.attempts[-1].vendor_id
        self.vendor.pay(vendor_id)
        if notice:
            await self.payments.refresh(reference)
        return vendor_id

    async def report(self, hours: float = 24) -> MoneyReport:
        now = self.clock.now()
        return await self.payments.reconcile(now - timedelta(hours=hours), now + timedelta(seconds=1))

    @property
    def told(self) -> list[str]:
        return [signal.finding for signal in self.signals if isinstance(signal, MoneyDiffers)]


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    shop = Shop()
    async with shop.payments:
        yield shop


async def test_books_that_agree_have_totals_and_no_findings(shop: Shop) -> None:
    await shop.sell()

    report = await shop.report()

    assert report.findings == ()
    assert not report.needs_person
    assert report.totals == (Total(provider="vendor", kind=LineKind.PAYMENT, money=DUE, lines=1),)
    assert report.cannot_list == ("silent",)
    assert shop.told == []


async def test_money_that_was_not_noticed_is_taken_into_the_books(shop: Shop) -> None:
    vendor_id = await shop.sell(notice=False)

    report = await shop.report()
    again = await shop.report()

    [one] = report.findings
    assert (one.kind, one.vendor_id, one.settled) == (K.UNNOTICED, vendor_id, True)
    assert (await shop.payments.get("order-1")).status is PaymentStatus.PAID
    assert again.findings == ()


async def test_money_that_came_when_nobody_looked_any_more_is_found(shop: Shop) -> None:
    payment = await shop.payments.create("order-1", DUE)
    for _ in range(40):
        await shop.clock.advance(7200)
        await shop.payments.sweep()
    assert (await shop.payments.get("order-1")).status is PaymentStatus.EXPIRED
    shop.vendor.pay(payment.attempts[0].vendor_id)

    report = await shop.report()

    late = await shop.payments.get("order-1")
    assert [(one.kind, one.settled) for one in report.findings] == [(K.LATE, True), (K.UNNOTICED, True)]
    assert late.status is PaymentStatus.PAID
    assert Anomaly.LATE in late.anomalies


async def test_money_on_an_attempt_without_an_answer_is_found_by_our_own_id(shop: Shop) -> None:
    shop.vendor.after = _raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        await shop.payments.create("order-1", DUE)
    shop.vendor.after = lambda: None
    [vendor_id] = shop.vendor.held
    await shop.clock.advance(60)
    shop.vendor.pay(vendor_id)

    report = await shop.report()

    assert [(one.kind, one.settled) for one in report.findings] == [(K.UNNOTICED, True)]
    assert (await shop.payments.get("order-1")).status is PaymentStatus.PAID


async def test_what_the_vendor_shows_when_asked_by_its_id_is_not_lost(shop: Shop) -> None:
    vendor_id = await shop.sell()
    shop.vendor.hidden.add(vendor_id)

    assert (await shop.report()).findings == ()


async def test_what_the_vendor_has_nothing_of_is_lost(shop: Shop) -> None:
    vendor_id = await shop.sell()
    del shop.vendor.held[vendor_id]

    report = await shop.report()

    [one] = report.findings
    assert (one.kind, one.reference, one.ours, one.note) == (K.LOST, "order-1", DUE, "the vendor has none of that id")
    assert report.needs_person
    assert shop.told == ["lost"]


async def test_what_the_vendor_calls_unpaid_by_now_is_lost(shop: Shop) -> None:
    vendor_id = await shop.sell()
    shop.vendor.held[vendor_id] = replace(shop.vendor.held[vendor_id], status=PaymentStatus.FAILED, received=None)

    [one] = (await shop.report()).findings

    assert (one.kind, one.note) == (K.LOST, "the vendor says that it is failed")


async def test_refunds_are_compared_too(shop: Shop) -> None:
    await shop.sell()
    await shop.clock.advance(86_400 * 3)
    await shop.payments.refund("order-1", Money("20.00", "CHF"), key="goodwill")
    fine = await shop.report()
    shop.vendor.hidden.add("refund-0")
    confirmed = await shop.report()
    shop.vendor.refunded = {key: replace(one, status=RefundStatus.FAILED) for key, one in shop.vendor.refunded.items()}
    lost = await shop.report()

    assert fine.findings == confirmed.findings == ()
    assert [(one.kind, one.about, one.vendor_id) for one in lost.findings] == [(K.LOST, LineKind.REFUND, "refund-0")]
    assert lost.findings[0].note == "the vendor says that it is failed"


async def test_a_refund_that_succeeded_unseen_is_taken_into_the_books(shop: Shop) -> None:
    await shop.sell()
    shop.vendor.refund_status = RefundStatus.PENDING
    await shop.payments.refund("order-1", key="all")
    shop.vendor.refunded = {
        key: replace(one, status=RefundStatus.SUCCEEDED) for key, one in shop.vendor.refunded.items()
    }

    report = await shop.report()

    assert [(one.kind, one.about, one.settled) for one in report.findings] == [(K.UNNOTICED, LineKind.REFUND, True)]
    [refunded] = await shop.payments.refunds("order-1")
    assert refunded.status is RefundStatus.SUCCEEDED


async def test_money_of_nobody_is_told(shop: Shop) -> None:
    shop.vendor.strangers.append(line("theirs", at=shop.clock.now()))

    report = await shop.report()

    assert [(one.kind, one.vendor_id, one.reference) for one in report.findings] == [(K.ORPHAN, "theirs", "")]
    assert shop.told == ["orphan"]


async def test_a_vendor_that_cannot_be_asked_is_named_and_the_others_are_compared(shop: Shop) -> None:
    await shop.sell()
    shop.vendor.before = _raising(NotSent("vendor: connection refused"))

    report = await shop.report()

    assert report.unreachable == {"vendor": "vendor: connection refused"}
    assert report.findings == ()


async def test_a_finding_that_cannot_be_settled_now_stays_one(shop: Shop) -> None:
    await shop.sell(notice=False)

    async def rejected(http: Http, vendor_id: str) -> PaymentSnapshot:
        raise Rejected("vendor: forbidden", status=403)

    shop.vendor.fetch = rejected  # type: ignore[method-assign]
    report = await shop.report()

    assert [(one.kind, one.settled) for one in report.findings] == [(K.UNNOTICED, False)]


async def test_a_vendor_is_asked_from_when_the_money_may_have_moved(shop: Shop) -> None:
    await shop.payments.create("order-1", DUE)
    begun = shop.clock.now()
    await shop.clock.advance(600)
    shop.vendor.pay((await shop.payments.get("order-1")).attempts[0].vendor_id)
    await shop.clock.advance(120)
    await shop.payments.refresh("order-1")

    report = await shop.report(hours=1 / 60)

    assert shop.vendor.asked[0][0] == begun
    assert report.findings == ()


async def test_a_time_has_a_zone_and_a_length(shop: Shop) -> None:
    with pytest.raises(NaiveDatetime):
        await shop.payments.reconcile(datetime(2026, 11, 21), NOON)
    with pytest.raises(InvalidInput, match="no time to compare"):
        await shop.payments.reconcile(NOON, NOON)


def _raising(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


# LNbits.


class Wallet:
    """A hub with LNbits behind it; no webhook arrives."""

    def __init__(self, store: str) -> None:
        self.clock = ManualClock()
        self.lnbits = LNbitsSimulator(clock=self.clock, invoice_key="k" * 32)
        self.hub = Holdfast(
            store=store,
            secret=Secrets("hub-secret"),
            payments=[LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("k" * 32))],
            clock=self.clock,
            transport=lambda _: InProcess(self.lnbits),
            fleet=False,
        )

    async def sell(self, reference: str) -> str:
        payment = await self.hub.payments.create(reference, Money.from_sat(2100))
        assert payment.offer
        self.lnbits.pay(payment.offer.bolt11 or "")
        return payment.attempts[0].vendor_id


async def test_lnbits_lists_what_came_in_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lnbits, "PAGE_SIZE", 4)
    wallet = Wallet("memory://")
    async with wallet.hub as hub:
        for number in range(11):
            await wallet.sell(f"order-{number}")
            await wallet.clock.advance(1)
        await hub.payments.refresh("order-7")
        now = wallet.clock.now()

        report = await hub.payments.reconcile(now - timedelta(hours=1), now)
        again = await hub.payments.reconcile(now - timedelta(hours=1), now + timedelta(seconds=1))

    assert {(one.kind, one.settled) for one in report.findings} == {(K.UNNOTICED, True)}
    assert len(report.findings) == 10
    assert again.findings == ()
    assert [(str(one.kind), str(one.money), one.lines) for one in again.totals] == [
        ("fee", "0.00000000000 BTC", 11),
        ("payment", "0.00023100000 BTC", 11),
    ]


async def test_lnbits_tells_of_money_that_nobody_expects() -> None:
    wallet = Wallet("memory://")
    async with wallet.hub as hub:
        mine = await wallet.sell("order-1")
        other = replace(wallet.lnbits.payments[mine], external_id=None, extra={})
        other.invoice = replace(other.invoice, payment_hash="f" * 64)
        wallet.lnbits.payments["f" * 64] = other
        await hub.payments.refresh("order-1")
        now = wallet.clock.now()

        report = await hub.payments.reconcile(now - HOUR, now + HOUR)
        earlier = await hub.payments.reconcile(now - HOUR, now)

    assert [(one.kind, one.vendor_id) for one in report.findings] == [(K.ORPHAN, "f" * 64)]
    assert earlier.totals == ()


async def test_lnbits_lists_what_changed_in_that_time_alone() -> None:
    wallet = Wallet("memory://")
    async with wallet.hub as hub:
        begun = wallet.clock.now()
        ids: list[str] = []
        for number in range(4):
            ids.append(await wallet.sell(f"order-{number}"))
            await wallet.clock.advance(60)
        await hub.payments.create("open", Money.from_sat(1))
        provider = hub.payments.providers["lnbits"]
        assert isinstance(provider, LNbits)
        since, until = begun + timedelta(minutes=1), begun + timedelta(minutes=3)

        http = hub.payments._runtime.http(provider)
        lines = [one async for one in provider.statement(http, since, until)]

    assert [(one.vendor_id, one.at, one.reference) for one in lines] == [
        (ids[2], begun + timedelta(minutes=2), "order-2"),
        (ids[1], since, "order-1"),
    ]
    assert {(str(one.money), str(one.fee)) for one in lines} == {("0.00002100000 BTC", "0.00000000000 BTC")}
