"""Payments over a real store and vendors that fail in every way."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    CredentialRefused,
    Exhausted,
    InvalidMoney,
    InvalidReference,
    Mismatch,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Rejected,
)
from holdfast.http.session import Http
from holdfast.payments.client import Payments
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Payment, PaymentStatus, Quote
from holdfast.payments.provider import Capabilities, OfferRequest, PaymentSnapshot
from holdfast.queue.inbox import Arrived
from holdfast.runtime import Runtime
from holdfast.stores import JobFilter, Store, open_store
from holdfast.telemetry import FellOver, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from tests.payments.vendors import SearchableVendor, Vendor

DUE = Money("120.00", "CHF")


def failing(error: CallFailed) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


LOST = OutcomeUnknown("connection reset", hard=True)
REFUSED = NotSent("connection refused", hard=True)


class Shop:
    """Payments over some vendors, on one store and one clock."""

    def __init__(self, *vendors: Vendor, store: Store | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.store = store or open_store("memory://", clock=self.clock)
        self.runtime = Runtime(self.store, clock=self.clock)
        self.payments = Payments(vendors, runtime=self.runtime)

    async def __aenter__(self) -> Payments:
        return await self.payments.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.runtime.__aexit__(None, None, None)

    async def events(self) -> list[str]:
        return sorted(job.kind for job in await self.store.jobs.list(JobFilter(queue="events")))


async def test_an_offer_is_made_once_however_often_it_is_asked_for() -> None:
    vendor = Vendor()
    async with Shop(vendor) as payments:
        first = await payments.create("order-1", DUE)
        second = await payments.create("order-1", DUE)

    assert first.offer == second.offer
    assert first.offer is not None
    assert len(vendor.requests) == 1


async def test_two_calls_at_once_make_one_offer() -> None:
    clock = ManualClock()
    vendor = Vendor()
    async with Shop(vendor, clock=clock) as payments:
        both = [asyncio.ensure_future(payments.create("order-1", DUE)) for _ in range(2)]
        await clock.advance(1)
        first, second = [await one for one in both]

    assert first.offer == second.offer
    assert len(vendor.requests) == 1


async def test_the_attempt_is_on_record_before_the_first_byte() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    seen: list[object] = []

    async def look() -> None:
        seen.append((await shop.payments.get("order-1")).attempts[0].state)

    create = vendor.create

    async def create_after_looking(http: object, request: object) -> object:
        await look()
        return await create(http, request)  # type: ignore[arg-type]

    vendor.create = create_after_looking  # type: ignore[assignment, method-assign]
    async with shop as payments:
        await payments.create("order-1", DUE)

    assert seen == [AttemptState.SENDING]


async def test_the_same_reference_with_other_money_is_refused() -> None:
    vendor = Vendor()
    async with Shop(vendor) as payments:
        await payments.create("order-1", DUE)
        with pytest.raises(ReferenceConflict, match=r"120\.00 CHF due"):
            await payments.create("order-1", Money("12.00", "CHF"))

    assert len(vendor.requests) == 1


@pytest.mark.parametrize("money", [Money("0", "CHF"), Money("-1", "CHF"), 12.0, "12.00 CHF"])
async def test_money_that_cannot_be_due_is_refused_before_anything_is_sent(money: Money) -> None:
    vendor = Vendor()
    async with Shop(vendor) as payments:
        with pytest.raises(InvalidMoney):
            await payments.create("order-1", money)

    assert vendor.requests == []


async def test_a_bad_reference_is_refused_before_anything_is_sent() -> None:
    vendor = Vendor()
    async with Shop(vendor) as payments:
        with pytest.raises(InvalidReference):
            await payments.create("order 1", DUE)

    assert vendor.requests == []


@pytest.mark.parametrize("error", [REFUSED, LOST])
async def test_a_provider_that_fails_is_followed_by_the_next(error: CallFailed) -> None:
    first, second = Vendor(name="first", before=failing(error)), Vendor(name="second")
    async with Shop(first, second) as payments:
        payment = await payments.create("order-1", DUE)

    assert payment.provider == "second"
    assert payment.offer is not None
    assert [attempt.provider for attempt in payment.attempts] == ["first", "second"]


async def test_a_rejection_is_the_callers_and_nobody_else_is_asked() -> None:
    first, second = Vendor(name="first", before=failing(Rejected("amount too small"))), Vendor(name="second")
    async with Shop(first, second) as payments:
        with pytest.raises(Rejected, match="too small"):
            await payments.create("order-1", DUE)

    assert second.requests == []


async def test_what_reaches_the_payer_by_itself_never_falls_over_on_an_unknown_outcome() -> None:
    visible = Capabilities(currencies=None, payer_visible=True)
    first = Vendor(name="first", capabilities=visible, after=failing(LOST))
    second = Vendor(name="second")
    async with Shop(first, second) as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)

    assert len(first.requests) == 1
    assert second.requests == []


async def test_a_lost_answer_is_found_by_our_own_id_before_anybody_else_is_asked() -> None:
    first, second = SearchableVendor(name="first", after=failing(LOST)), Vendor(name="second")
    async with Shop(first, second) as payments:
        payment = await payments.create("order-1", DUE)

    assert payment.provider == "first"
    assert len(first.requests) == 1
    assert second.requests == []


async def test_when_everybody_fails_the_error_carries_each_failure_and_a_later_call_tries_again() -> None:
    first, second = Vendor(name="first", before=failing(REFUSED)), Vendor(name="second", before=failing(REFUSED))
    async with Shop(first, second) as payments:
        with pytest.raises(Exhausted) as raised:
            await payments.create("order-1", DUE)
        first.before = lambda: None
        payment = await payments.create("order-1", DUE)

    assert len(raised.value.failures) == 2
    assert payment.provider == "first"


async def test_a_later_call_that_sends_nothing_does_not_say_so_while_an_earlier_attempt_may_exist() -> None:
    shop = Shop(Vendor(name="first", after=failing(LOST)), Vendor(name="second", before=failing(REFUSED)))
    async with shop as payments:
        with pytest.raises(Exhausted):
            await payments.create("order-1", DUE)

        with pytest.raises(OutcomeUnknown, match="first: payment order-1 may exist there"):
            await payments.create("order-1", DUE)


async def test_a_payers_refusal_arrives_as_itself_beside_an_attempt_that_may_exist() -> None:
    second = Vendor(name="second", before=failing(REFUSED))
    async with Shop(Vendor(name="first", after=failing(LOST)), second) as payments:
        with pytest.raises(Exhausted):
            await payments.create("order-1", DUE)
        second.before = failing(Rejected("card declined"))

        with pytest.raises(Rejected, match="card declined"):
            await payments.create("order-1", DUE)


class StandsStill(Vendor):
    """Whoever asks it first stands still, and finds when it goes on that it is too late to send anything."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.asked, self.on = asyncio.Event(), asyncio.Event()

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        self.asked.set()
        await self.on.wait()
        raise NotSent("the time for it is over", provider=self.name)


@pytest.mark.parametrize("fate", [REFUSED, LOST], ids=["another sent nothing", "another got no answer"])
async def test_a_call_that_stood_still_does_not_say_that_nothing_was_sent_while_anybodys_attempt_is_unknown(
    fate: CallFailed,
) -> None:
    # given
    still, second = StandsStill("first"), Vendor(name="second", after=failing(fate))
    shop = Shop(still, second)
    async with shop as payments:
        slow = asyncio.ensure_future(payments.create("order-1", DUE, expires_in=timedelta(hours=2)))
        await still.asked.wait()
        await shop.clock.advance(3600)

        # when
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)
        still.on.set()

        # then
        with pytest.raises(OutcomeUnknown, match="may exist there"):
            await slow


async def test_a_call_that_stood_still_before_it_gave_up_says_what_others_have_done_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    vendor = Vendor(name="first", before=failing(REFUSED))
    shop = Shop(vendor)
    read, still, on = shop.payments._book.load, asyncio.Event(), asyncio.Event()

    async def load(reference: str) -> Payment | None:
        found = await read(reference)
        if found and not still.is_set():
            still.set()
            await on.wait()
        return found

    async with shop as payments:
        monkeypatch.setattr(payments._book, "load", load)
        slow = asyncio.ensure_future(payments.create("order-1", DUE))
        await still.wait()

        # when
        vendor.before, vendor.after = lambda: None, failing(LOST)
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)
        on.set()

        # then
        with pytest.raises(OutcomeUnknown, match="first: payment order-1 may exist there"):
            await slow


async def test_one_failure_raises_itself() -> None:
    async with Shop(Vendor(before=failing(REFUSED))) as payments:
        with pytest.raises(NotSent, match="refused"):
            await payments.create("order-1", DUE)


async def test_paid_is_told_once_whether_polled_or_swept() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        payment = await payments.create("order-1", DUE)
        vendor.pay(payment.attempts[0].vendor_id)
        await payments.refresh("order-1")
        await payments.refresh("order-1")
        await shop.clock.advance(3600)
        await payments.sweep()
        paid = await payments.get("order-1")
        events = await shop.events()

    assert paid.status is PaymentStatus.PAID
    assert paid.received == DUE
    assert events == ["payment.paid"]


async def test_the_sweep_finds_money_no_webhook_told_of() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        payment = await payments.create("order-1", DUE)
        vendor.pay(payment.attempts[0].vendor_id)
        assert await payments.sweep() == 0
        await shop.clock.advance(31)
        assert await payments.sweep() == 1
        paid = await payments.get("order-1")

    assert paid.status is PaymentStatus.PAID


async def test_a_crash_before_the_answer_leaves_an_attempt_the_sweep_finds() -> None:
    vendor = SearchableVendor()
    shop = Shop(vendor)
    async with shop as payments:
        vendor.after = failing(asyncio.CancelledError())  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await payments.create("order-1", DUE)
        left = await payments.get("order-1")
        await shop.clock.advance(60)
        await payments.sweep()
        found = await payments.get("order-1")

    assert left.attempts[0].state is AttemptState.SENDING
    assert found.attempts[0].state is AttemptState.OFFERED
    assert len(vendor.requests) == 1


async def test_a_caller_outwaits_another_that_died_and_asks_the_next_provider() -> None:
    first, second = Vendor(name="first"), Vendor(name="second")
    shop = Shop(first, second)
    async with shop as payments:
        first.after = failing(asyncio.CancelledError())  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await payments.create("order-1", DUE)
        waiting = asyncio.ensure_future(payments.create("order-1", DUE))
        await shop.clock.advance(10)
        payment = await waiting

    assert payment.route == ("first:unknown", "second:offered")
    assert len(first.requests) == 1


async def test_an_offer_that_ends_unpaid_is_over_and_told() -> None:
    shop = Shop(Vendor())
    async with shop as payments:
        await payments.create("order-1", DUE, expires_in=timedelta(minutes=5))
        await shop.clock.advance(8 * 60)
        await payments.sweep()
        payment = await payments.get("order-1")
        events = await shop.events()

    assert payment.status is PaymentStatus.EXPIRED
    assert payment.offer is None
    assert events == ["payment.expired"]


async def test_a_vendor_that_is_down_never_ends_an_offer() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        await payments.create("order-1", DUE)

        async def down(http: object, vendor_id: str) -> object:
            raise NotSent("down", hard=True)

        vendor.fetch = down  # type: ignore[assignment, method-assign]
        for _ in range(50):
            await shop.clock.advance(120)
            await payments.sweep()
        payment = await payments.get("order-1")

    assert payment.status is PaymentStatus.PENDING


async def test_wait_returns_when_the_money_is_there() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        payment = await payments.create("order-1", DUE)
        waiting = asyncio.ensure_future(payments.wait("order-1", timeout=5))
        await shop.clock.advance(1)
        vendor.pay(payment.attempts[0].vendor_id)
        await payments.refresh("order-1")
        await shop.clock.advance(1)

        assert (await waiting).status is PaymentStatus.PAID


async def test_a_payment_nobody_made_is_not_found() -> None:
    async with Shop(Vendor()) as payments:
        with pytest.raises(NotFound, match="no payment order-1"):
            await payments.get("order-1")


async def test_a_currency_nobody_takes_is_a_mistake_of_the_program() -> None:
    francs = Capabilities(currencies=frozenset({"CHF"}))
    async with Shop(Vendor(capabilities=francs)) as payments:
        with pytest.raises(ConfigurationError, match="no payment provider takes XOF"):
            await payments.create("order-1", Money("5000", "XOF"))


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="share a name"):
        Payments([Vendor(), Vendor()])


NO_RATE = NotSent("there is no rate now", local=True)


class NoRates:
    """A source of rates that has none."""

    async def quote(self, due: Money, currency: str, *, at: datetime) -> Quote:
        raise NO_RATE


@pytest.mark.parametrize(
    ("able", "failure", "expected"),
    [
        (Capabilities(currencies=None), Rejected("amount too small"), Rejected),
        (Capabilities(currencies=None, payer_visible=True), LOST, OutcomeUnknown),
    ],
)
async def test_what_ends_the_call_is_raised_as_itself_though_the_next_provider_could_not_even_be_asked(
    able: Capabilities, failure: CallFailed, expected: type[CallFailed]
) -> None:
    first = Vendor(name="first", capabilities=able, after=failing(failure))
    second = Vendor(name="second", capabilities=Capabilities(currencies=frozenset({"BTC"})))
    signals: list[Signal] = []
    clock = ManualClock()
    runtime = Runtime(open_store("memory://", clock=clock), clock=clock, telemetry=Telemetry([signals.append]))
    async with Payments([first, second], runtime=runtime, rates=NoRates()) as payments:
        with pytest.raises(expected):
            await payments.create("order-1", DUE)

    assert [signal for signal in signals if isinstance(signal, FellOver)] == []


async def test_a_404_that_is_about_our_key_is_not_the_end_of_the_offer() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        await payments.create("order-1", DUE)

        async def refused(http: object, vendor_id: str) -> object:
            raise CredentialRefused("Wallet not found.", status=404)

        vendor.fetch = refused  # type: ignore[assignment, method-assign]
        await shop.clock.advance(3600)
        await payments.sweep()
        payment = await payments.get("order-1")

    assert payment.status is PaymentStatus.PENDING


async def test_an_object_that_is_not_what_it_should_be_is_flagged_not_retried_in_silence() -> None:
    vendor = Vendor()
    shop = Shop(vendor)
    async with shop as payments:
        await payments.create("order-1", DUE)

        async def unproven(http: object, vendor_id: str) -> object:
            raise Mismatch("the preimage does not prove the payment")

        vendor.fetch = unproven  # type: ignore[assignment, method-assign]
        await payments.refresh("order-1")
        payment = await payments.get("order-1")
        events = await shop.events()

    assert payment.anomalies == {Anomaly.MISMATCH}
    assert events == ["payment.flagged"]


async def test_a_payment_nobody_can_look_at_does_not_stay_first_in_line() -> None:
    broken, good = Vendor(name="broken"), Vendor(name="good")
    shop = Shop(broken, good)
    async with shop as payments:
        for number in range(3):
            await payments.create(f"broken-{number}", DUE)
        await shop.clock.advance(1)
        broken.before = failing(REFUSED)
        paid = await payments.create("good-1", DUE)
        good.pay(paid.attempts[-1].vendor_id)

        async def bug(http: object, vendor_id: str) -> object:
            raise KeyError("a bug in the provider")

        broken.fetch = bug  # type: ignore[assignment, method-assign]
        await shop.clock.advance(31)
        for _ in range(2):
            await payments.sweep(limit=3)
        payment = await payments.get("good-1")

    assert payment.status is PaymentStatus.PAID


async def test_payments_of_a_provider_that_is_gone_do_not_stay_first_in_line() -> None:
    gone, good = Vendor(name="gone"), Vendor(name="good")
    shop = Shop(gone, good)
    async with shop as payments:
        for number in range(3):
            await payments.create(f"gone-{number}", DUE)
        await shop.clock.advance(1)
        gone.before = failing(REFUSED)
        paid = await payments.create("good-1", DUE)
        good.pay(paid.attempts[-1].vendor_id)
        del payments.providers["gone"]
        await shop.clock.advance(31)
        for _ in range(2):
            await payments.sweep(limit=3)
        payment = await payments.get("good-1")

    assert payment.status is PaymentStatus.PAID


def delivery(provider: str = "vendor", **said: str) -> Arrived:
    facts = {"type": "paid", "vendor_id": "", "attempt_id": "", "reference": ""} | said
    return Arrived(id="1", provider=provider, recognised=True, body=b"", facts={}, attempts=0, **facts)


async def test_a_delivery_that_names_somebody_elses_object_does_not_bind_it() -> None:
    vendor = SearchableVendor(after=failing(asyncio.CancelledError()))  # type: ignore[arg-type]
    shop = Shop(vendor)
    async with shop as payments:
        with pytest.raises(asyncio.CancelledError):
            await payments.create("order-1", DUE)
        attempt = (await payments.get("order-1")).attempts[0]
        [ours] = vendor.held
        vendor.held["strange"] = replace(vendor.held[ours], vendor_id="strange", attempt_id="of-somebody-else")

        for vendor_id in ("strange", "made-up"):
            assert not await payments.arrived(delivery(attempt_id=attempt.id, vendor_id=vendor_id))
        vendor.pay(ours)
        await shop.clock.advance(60)
        await payments.sweep()
        payment = await payments.get("order-1")

    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.ORPHAN_PAID}


async def test_money_on_an_orphan_that_cannot_be_looked_up_is_found_by_what_its_webhook_echoes() -> None:
    first, second = Vendor(name="first", after=failing(LOST)), Vendor(name="second")
    shop = Shop(first, second)
    async with shop as payments:
        await payments.create("order-1", DUE)
        [orphan] = first.held
        first.pay(orphan)

        assert await payments.arrived(delivery("first", vendor_id=orphan, reference="order-1"))
        payment = await payments.get("order-1")

    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.ORPHAN_PAID}


@pytest.mark.parametrize("echo", ["", "of-another-payment"])
async def test_a_reference_alone_binds_nothing(echo: str) -> None:
    first, second = Vendor(name="first", after=failing(LOST)), Vendor(name="second")
    async with Shop(first, second) as payments:
        await payments.create("order-1", DUE)
        [orphan] = first.held
        first.held[orphan] = replace(first.held[orphan], attempt_id=echo, status=PaymentStatus.PAID)

        with pytest.raises(NotFound):
            await payments.arrived(delivery("first", vendor_id=orphan, reference="order-1"))
        payment = await payments.get("order-1")

    assert payment.status is PaymentStatus.PENDING


async def test_a_delivery_that_names_only_the_attempt_is_looked_up_by_it() -> None:
    vendor = SearchableVendor(after=failing(asyncio.CancelledError()))  # type: ignore[arg-type]
    shop = Shop(vendor)
    async with shop as payments:
        with pytest.raises(asyncio.CancelledError):
            await payments.create("order-1", DUE)
        attempt = (await payments.get("order-1")).attempts[0]
        assert await payments.arrived(delivery(attempt_id=attempt.id))
        payment = await payments.get("order-1")

    assert payment.attempts[0].state is AttemptState.OFFERED


async def test_money_on_an_attempt_that_failed_by_all_we_knew_is_found_by_its_webhook() -> None:
    first, second = Vendor(name="first", after=failing(REFUSED)), Vendor(name="second")
    async with Shop(first, second) as payments:
        payment = await payments.create("order-1", DUE)
        [made] = first.held
        first.pay(made)

        assert await payments.arrived(delivery("first", vendor_id=made, attempt_id=payment.attempts[0].id))
        payment = await payments.get("order-1")

    assert payment.attempts[0].state is AttemptState.CLOSED
    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.ORPHAN_PAID}


async def test_what_is_found_by_our_id_and_is_another_vendors_object_is_flagged() -> None:
    class Liar(SearchableVendor):
        async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
            raise Mismatch("vendor: find: it pays another wallet", provider="vendor")

    shop = Shop(Liar(after=failing(OutcomeUnknown("reset"))))
    async with shop as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)

        payment = await payments.refresh("order-1")

    assert payment.anomalies == {Anomaly.MISMATCH}
    assert "another wallet" in payment.attempts[0].error
