"""What is asked for beside an offer: capture, cancel, renew, refunds, checks, and a person's word."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from holdfast.errors import (
    CallFailed,
    InvalidInput,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Rejected,
    VersionConflict,
)
from holdfast.outcome import Effect
from holdfast.payments.client import Payments
from holdfast.payments.desk import Screen, Screening
from holdfast.payments.facts import Decision, Verdict
from holdfast.payments.models import Anomaly, AttemptState, Capture, MoveState, Payer, PaymentStatus, RefundStatus
from holdfast.payments.provider import Capabilities, Fee, Refunding, RefundSnapshot
from holdfast.payments.refunds import Refund
from holdfast.queue.events import Event
from holdfast.queue.inbox import Arrived
from holdfast.routing import Cheapest, Route
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from tests.payments.vendors import AbleVendor, Vendor

DUE = Money("120.00", "CHF")
S = PaymentStatus
LOST = OutcomeUnknown("connection reset", hard=True)


class Shop:
    """Payments over some vendors, on one clock; events are told by their kind, in order."""

    def __init__(self, *vendors: Vendor, screen: Screen | None = None, route: Route | None = None) -> None:
        self.clock = ManualClock()
        self.store = open_store("memory://", clock=self.clock)
        self.runtime = Runtime(self.store, clock=self.clock)
        self.events: list[str] = []
        jobs = self.runtime.subscriptions.jobs

        def noting(events: tuple[Event, ...]) -> object:
            self.events += [event.type for event in events]
            return jobs(events)

        self.runtime.subscriptions.jobs = noting  # type: ignore[method-assign, assignment]
        self.payments = Payments(vendors, runtime=self.runtime, screen=screen, route=route)

    async def __aenter__(self) -> Payments:
        return await self.payments.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.runtime.__aexit__(None, None, None)


def once(error: CallFailed) -> Callable[[], object]:
    """Fails the first time."""
    left = [error]

    def fail() -> object:
        if left:
            raise left.pop()
        return None

    return fail


@pytest.fixture
def vendor() -> AbleVendor:
    return AbleVendor()


@pytest.fixture
async def shop(vendor: AbleVendor) -> AsyncGenerator[Shop]:
    shop = Shop(vendor, Vendor(name="other"))
    async with shop:
        yield shop


async def vendor_id(shop: Shop, reference: str = "order-1") -> str:
    return (await shop.payments.get(reference)).attempts[-1].vendor_id


async def authorized(shop: Shop, vendor: AbleVendor) -> None:
    await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)
    vendor.agree(await vendor_id(shop))
    await shop.payments.refresh("order-1")


async def paid(shop: Shop, vendor: AbleVendor) -> None:
    await shop.payments.create("order-1", DUE)
    vendor.pay(await vendor_id(shop))
    await shop.payments.refresh("order-1")


class TestResubmission:
    """A lost answer, and a vendor that remembers our key."""

    async def test_what_a_dead_process_asked_for_is_asked_again_under_the_same_key(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        vendor.after = once(KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            await shop.payments.create("order-1", DUE)
        await shop.clock.advance(60)

        payment = await shop.payments.create("order-1", DUE)

        assert payment.status is S.PENDING
        assert len(vendor.held) == 1
        first, second = vendor.requests
        assert replace(first, key_valid=None) == replace(second, key_valid=None)
        assert payment.attempts[0].claim == 2

    async def test_a_key_the_vendor_may_have_forgotten_is_not_used_again(self, shop: Shop, vendor: AbleVendor) -> None:
        vendor.after = once(KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            await shop.payments.create("order-1", DUE, expires_in=timedelta(days=2))
        await shop.clock.advance(86_400)

        payment = await shop.payments.create("order-1", DUE)

        assert len(vendor.requests) == 1
        assert payment.route == ("vendor:unknown", "other:offered")

    async def test_a_second_submission_that_was_not_sent_proves_nothing_of_the_first(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        vendor.after = once(KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            await shop.payments.create("order-1", DUE)
        await shop.clock.advance(60)
        create = vendor.create

        async def refused(*_: object) -> object:
            raise Rejected("the key was used with other parameters", status=400)

        vendor.create = refused  # type: ignore[method-assign, assignment]
        payment = await shop.payments.create("order-1", DUE)
        vendor.create = create  # type: ignore[method-assign]

        assert payment.route == ("vendor:unknown", "other:offered")


class TestCapture:
    """Money that is set aside moves once."""

    async def test_it_moves_when_the_caller_says_so(self, shop: Shop, vendor: AbleVendor) -> None:
        await authorized(shop, vendor)
        assert (await shop.payments.get("order-1")).status is S.AUTHORIZED

        payment = await shop.payments.capture("order-1")

        assert payment.status is S.PAID
        assert shop.events == ["payment.authorized", "payment.paid"]
        assert await shop.payments.capture("order-1") == payment
        assert list(vendor.captured.values()) == [DUE]

    async def test_a_part_of_it_is_what_was_due(self, shop: Shop, vendor: AbleVendor) -> None:
        await authorized(shop, vendor)

        payment = await shop.payments.capture("order-1", Money("70.00", "CHF"))

        assert payment.status is S.PAID
        assert payment.received == Money("70.00", "CHF")
        assert not payment.anomalies

    @pytest.mark.parametrize("money", [Money("120.01", "CHF"), Money("0", "CHF"), Money("1", "EUR")], ids=str)
    async def test_no_more_than_what_is_set_aside(self, shop: Shop, vendor: AbleVendor, money: Money) -> None:
        await authorized(shop, vendor)

        with pytest.raises(InvalidInput, match="set aside"):
            await shop.payments.capture("order-1", money)

        assert not vendor.captured

    async def test_a_lost_answer_is_one_capture(self, shop: Shop, vendor: AbleVendor) -> None:
        await authorized(shop, vendor)
        vendor.after = once(LOST)

        with pytest.raises(OutcomeUnknown):
            await shop.payments.capture("order-1")
        move = (await shop.payments.get("order-1")).attempts[0].capture
        assert move is not None
        assert move.state is MoveState.UNKNOWN
        payment = await shop.payments.refresh("order-1")

        assert payment.status is S.PAID
        assert len(vendor.captured) == 1

    async def test_a_lost_question_is_asked_again_under_the_same_key(self, shop: Shop, vendor: AbleVendor) -> None:
        await authorized(shop, vendor)
        vendor.before = once(LOST)

        with pytest.raises(OutcomeUnknown):
            await shop.payments.capture("order-1")
        payment = await shop.payments.refresh("order-1")

        assert payment.status is S.PAID
        assert len(vendor.captured) == 1
        assert payment.attempts[0].capture is not None
        assert payment.attempts[0].capture.claim == 2

    async def test_what_the_payer_approved_is_captured_by_itself(self) -> None:
        able = AbleVendor().capabilities
        vendor = AbleVendor(capabilities=replace(able, captures=True, revocable=False))
        shop = Shop(vendor)
        async with shop:
            await shop.payments.create("order-1", DUE)
            vendor.agree(await vendor_id(shop), S.APPROVED)

            payment = await shop.payments.refresh("order-1")

        assert payment.status is S.PAID
        assert list(vendor.captured.values()) == [DUE]

    async def test_money_that_is_refused_fails_the_payment_in_the_vendors_words(self) -> None:
        able = AbleVendor().capabilities
        vendor = AbleVendor(capabilities=replace(able, captures=True, revocable=False))
        vendor.before = lambda: None
        shop = Shop(vendor)
        async with shop:
            await shop.payments.create("order-1", DUE)
            vendor.agree(await vendor_id(shop), S.APPROVED)
            vendor.before = once(Rejected("declined", code="INSTRUMENT_DECLINED"))

            payment = await shop.payments.refresh("order-1")
            again = await shop.payments.renew("order-1")

        assert payment.status is S.FAILED
        assert shop.events[0] == "payment.failed"
        assert again.status is S.PENDING
        assert again.route == ("vendor:closed", "vendor:offered")

    async def test_a_capture_that_stays_unknown_is_closed_by_a_person_and_asked_for_anew(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        # given
        vendor.capabilities = replace(vendor.capabilities, capture_effect=Effect.ONCE)
        await authorized(shop, vendor)
        vendor.before = once(LOST)
        with pytest.raises(OutcomeUnknown):
            await shop.payments.capture("order-1")
        await shop.clock.advance(60)
        flagged = await shop.payments.refresh("order-1")
        assert flagged.anomalies == {Anomaly.CAPTURE_UNKNOWN}

        # when
        said = {"actor": "ada", "reason": "asked the vendor", "evidence": "its page"}
        await shop.payments.resolve("order-1", Verdict.NEVER_HAPPENED, number=1, expected=flagged.version, **said)
        payment = await shop.payments.capture("order-1")

        # then
        assert payment.status is S.PAID
        assert list(vendor.captured.values()) == [DUE]

    async def test_nothing_is_set_aside_by_who_cannot(self) -> None:
        async with Shop(Vendor()) as payments:
            with pytest.raises(InvalidInput, match="set money aside"):
                await payments.create("order-1", DUE, capture=Capture.MANUAL)


class TestAuthorizing:
    """A vendor that sets aside, only when asked, what the payer approved."""

    @pytest.fixture
    def vendor(self) -> AbleVendor:
        able = AbleVendor().capabilities
        return AbleVendor(capabilities=replace(able, captures=True, authorizes=True, revocable=False, releasable=True))

    async def approved(self, shop: Shop, vendor: AbleVendor) -> None:
        await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)
        vendor.agree(await vendor_id(shop), S.APPROVED)

    async def test_it_is_set_aside_by_itself_and_captured_when_the_caller_says_so(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        await self.approved(shop, vendor)

        waiting = await shop.payments.refresh("order-1")
        paid = await shop.payments.capture("order-1")

        assert (waiting.status, paid.status) == (S.AUTHORIZED, S.PAID)
        assert shop.events == ["payment.authorized", "payment.paid"]

    async def test_until_it_is_it_is_asked_for_again(self, shop: Shop, vendor: AbleVendor) -> None:
        await self.approved(shop, vendor)
        vendor.before = once(LOST)

        unsure = await shop.payments.refresh("order-1")
        await shop.clock.advance(60)
        await shop.payments.sweep()

        assert unsure.status is S.APPROVED
        assert (await shop.payments.get("order-1")).status is S.AUTHORIZED

    async def test_money_that_is_refused_fails_the_payment(self, shop: Shop, vendor: AbleVendor) -> None:
        await self.approved(shop, vendor)
        vendor.before = once(Rejected("declined", code="INSTRUMENT_DECLINED"))

        payment = await shop.payments.refresh("order-1")
        await shop.payments.refresh("order-1")

        assert payment.status is S.FAILED
        assert shop.events == ["payment.failed"]

    async def test_what_is_canceled_is_let_go_of(self, shop: Shop, vendor: AbleVendor) -> None:
        await self.approved(shop, vendor)
        await shop.payments.refresh("order-1")
        vendor.before = once(LOST)

        with pytest.raises(OutcomeUnknown):
            await shop.payments.cancel("order-1")
        held = await shop.payments.get("order-1")
        payment = await shop.payments.refresh("order-1")

        assert held.status is S.AUTHORIZED
        assert payment.status is S.CANCELED
        assert vendor.held[payment.attempts[0].vendor_id].status is S.CANCELED


class TestDeliveries:
    """What a delivery is about, where it does not name the payment."""

    def about(self, **facts: Any) -> Arrived:
        given: dict[str, Any] = {"vendor_id": "", "attempt_id": "", "reference": "", "facts": {}} | facts
        return Arrived(id="1", provider="vendor", type="disputed", recognised=True, body=b"", attempts=0, **given)

    async def test_a_part_leads_to_its_payment(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        id = await vendor_id(shop)
        vendor.held[id] = replace(vendor.held[id], disputed=DUE)

        assert await shop.payments.arrived(self.about(facts={"part_of": id}))

        assert shop.events == ["payment.paid", "payment.disputed"]

    async def test_a_part_of_something_else_is_none_of_ours(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)

        assert not await shop.payments.arrived(self.about(facts={"part_of": "strange"}))

        assert shop.events == ["payment.paid"]

    async def test_a_reference_alone_leads_to_what_was_paid(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        id = await vendor_id(shop)
        vendor.held[id] = replace(vendor.held[id], disputed=DUE)
        unable = Payments([Vendor(name="vendor", held=vendor.held)], runtime=shop.runtime)  # names no parts

        assert await unable.arrived(self.about(reference="order-1"))

        assert shop.events == ["payment.paid", "payment.disputed"]


class TestCancel:
    """Nothing more is wanted."""

    async def test_an_offer_that_can_be_revoked_is_canceled_at_once(self, shop: Shop, vendor: AbleVendor) -> None:
        await shop.payments.create("order-1", DUE)

        payment = await shop.payments.cancel("order-1")

        assert payment.status is S.CANCELED
        assert payment.offer is None
        assert shop.events == ["payment.canceled"]

    async def test_one_that_cannot_is_waited_out(self) -> None:
        vendor = Vendor()
        shop = Shop(vendor)
        async with shop:
            await shop.payments.create("order-1", DUE)
            waiting = await shop.payments.cancel("order-1")
            await shop.clock.advance(18 * 60)
            over = await shop.payments.refresh("order-1")

        assert (waiting.status, waiting.offer) == (S.PENDING, None)
        assert over.status is S.CANCELED
        assert shop.events == ["payment.canceled"]

    async def test_money_that_comes_all_the_same_is_paid_and_late(self) -> None:
        vendor = Vendor()
        shop = Shop(vendor)
        async with shop:
            await shop.payments.create("order-1", DUE)
            await shop.payments.cancel("order-1")
            vendor.pay(await vendor_id(shop))
            payment = await shop.payments.refresh("order-1")

        assert payment.status is S.PAID
        assert payment.anomalies == {Anomaly.LATE}

    async def test_who_paid_before_it_was_revoked_has_paid(self, shop: Shop, vendor: AbleVendor) -> None:
        await shop.payments.create("order-1", DUE)
        vendor.pay(await vendor_id(shop))

        payment = await shop.payments.cancel("order-1")

        assert payment.status is S.PAID

    async def test_a_paid_one_stays_so(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)

        assert (await shop.payments.cancel("order-1")).status is S.PAID


class TestRenew:
    """Never two live offers."""

    async def test_the_first_is_revoked_before_there_is_a_second(self, shop: Shop, vendor: AbleVendor) -> None:
        first = await shop.payments.create("order-1", DUE)

        second = await shop.payments.renew("order-1")

        assert second.status is S.PENDING
        assert second.offer is not None
        assert second.offer != first.offer
        assert vendor.held[first.attempts[0].vendor_id].status is S.CANCELED
        assert shop.events == []

    async def test_what_cannot_be_revoked_forbids_another(self) -> None:
        shop = Shop(Vendor())
        async with shop:
            await shop.payments.create("order-1", DUE)
            with pytest.raises(Rejected, match="can be paid until") as refused:
                await shop.payments.renew("order-1")

        assert refused.value.reason == "not_revocable"
        assert refused.value.retry_after == 17 * 60

    async def test_after_its_end_there_is_another(self) -> None:
        shop = Shop(Vendor())
        async with shop:
            await shop.payments.create("order-1", DUE)
            await shop.clock.advance(18 * 60)
            await shop.payments.refresh("order-1")
            payment = await shop.payments.renew("order-1")

        assert payment.status is S.PENDING
        assert payment.route == ("vendor:closed", "vendor:offered")

    async def test_late_money_on_the_first_revokes_the_second(self, shop: Shop, vendor: AbleVendor) -> None:
        first = await shop.payments.create("order-1", DUE)
        await shop.clock.advance(18 * 60)
        await shop.payments.refresh("order-1")
        second = await shop.payments.renew("order-1")
        vendor.pay(first.attempts[0].vendor_id)
        await shop.clock.advance(600)

        payment = await shop.payments.refresh("order-1")

        assert payment.status is S.PAID
        assert payment.anomalies == {Anomaly.LATE}
        assert vendor.held[second.attempts[1].vendor_id].status is S.CANCELED

    async def test_what_was_paid_needs_no_other(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)

        assert (await shop.payments.renew("order-1")).status is S.PAID


class TestRefunds:
    """Money goes back once per key, and never more than came."""

    async def test_all_of_it(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)

        refund = await shop.payments.refund("order-1", key="r1", reason="ill")

        assert (refund.status, refund.money) == (RefundStatus.SUCCEEDED, DUE)
        assert shop.events == ["payment.paid", "payment.refunded"]

    async def test_the_same_key_is_the_same_refund(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        part = Money("20.00", "CHF")

        first = await shop.payments.refund("order-1", part, key="r1")
        second = await shop.payments.refund("order-1", part, key="r1")

        assert first == second
        assert len(vendor.refunded) == 1
        with pytest.raises(ReferenceConflict):
            await shop.payments.refund("order-1", DUE, key="r1")

    async def test_parts_never_sum_to_more_than_came_in(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        await shop.payments.refund("order-1", Money("100.00", "CHF"), key="r1")

        with pytest.raises(InvalidInput, match=r"20\.00 CHF can go back"):
            await shop.payments.refund("order-1", Money("20.01", "CHF"), key="r2")
        rest = await shop.payments.refund("order-1", key="r3")

        assert rest.money == Money("20.00", "CHF")
        assert [refund.key for refund in await shop.payments.refunds("order-1")] == ["r1", "r3"]

    async def test_a_lost_answer_is_one_refund(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        vendor.after = once(LOST)

        with pytest.raises(OutcomeUnknown):
            await shop.payments.refund("order-1", key="r1")
        await shop.clock.advance(6)
        await shop.payments.sweep()

        assert len(vendor.refunded) == 1
        assert [refund.status for refund in await shop.payments.refunds("order-1")] == [RefundStatus.SUCCEEDED]

    async def test_one_that_comes_back_is_told_and_may_be_sent_anew(self, shop: Shop, vendor: AbleVendor) -> None:
        # given
        await paid(shop, vendor)
        await shop.payments.refund("order-1", key="r1")
        [(key, sent)] = vendor.refunded.items()
        vendor.refunded[key] = replace(sent, status=RefundStatus.FAILED, reason="account_closed")

        # when
        await shop.clock.advance(86_400)
        await shop.payments.sweep()
        again = await shop.payments.refund("order-1", key="r2")

        # then
        assert shop.events == ["payment.paid", "payment.refunded", "payment.refund_failed", "payment.refunded"]
        [bounced, _] = await shop.payments.refunds("order-1")
        assert (bounced.status, bounced.error) == (RefundStatus.FAILED, "account_closed")
        assert (again.status, again.money) == (RefundStatus.SUCCEEDED, DUE)

    async def test_one_that_went_well_is_looked_at_for_a_month_and_no_longer(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        await paid(shop, vendor)
        await shop.payments.refund("order-1", key="r1")
        swept = []

        for day in range(1, 41):
            await shop.clock.advance(86_400)
            if await shop.payments.sweep():
                swept.append(day)

        assert swept == [1, 7, 30]

    async def test_without_keys_a_lost_answer_is_for_a_person(self) -> None:
        able = AbleVendor().capabilities
        vendor = AbleVendor(capabilities=replace(able, refund_effect=Effect.ONCE))
        shop = Shop(vendor)
        async with shop:
            await paid(shop, vendor)
            vendor.after = once(LOST)
            with pytest.raises(OutcomeUnknown):
                await shop.payments.refund("order-1", key="r1")
            for _ in range(3):
                await shop.clock.advance(400)
                await shop.payments.sweep()
            [waiting] = await shop.payments.refunds("order-1")
            settled = await shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="bank statement")

        assert waiting.status is RefundStatus.UNKNOWN
        assert len(vendor.refunded) == 1
        assert settled.status is RefundStatus.SUCCEEDED
        assert settled.note == "ada: bank statement"

    async def test_a_refund_that_is_refused_can_be_asked_for_again_under_another_key(
        self, shop: Shop, vendor: AbleVendor
    ) -> None:
        await paid(shop, vendor)
        vendor.before = once(Rejected("no balance", code="balance_insufficient"))

        with pytest.raises(Rejected):
            await shop.payments.refund("order-1", key="r1")
        again = await shop.payments.refund("order-1", key="r2")

        assert again.status is RefundStatus.SUCCEEDED
        assert shop.events == ["payment.paid", "payment.refund_failed", "payment.refunded"]

    async def test_what_is_pending_is_looked_at_until_it_is_over(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        vendor.refund_status = RefundStatus.PENDING
        refund = await shop.payments.refund("order-1", key="r1")
        assert refund.status is RefundStatus.PENDING
        [[key, held]] = vendor.refunded.items()
        vendor.refunded[key] = replace(held, status=RefundStatus.SUCCEEDED)

        await shop.clock.advance(5)
        assert await shop.payments.sweep() == 1

        assert shop.events == ["payment.paid", "payment.refunded"]

    async def test_a_vendor_without_refunds_leaves_it_to_a_person(self) -> None:
        vendor = Vendor(capabilities=Capabilities(currencies=None, refunding=Refunding.NONE))
        shop = Shop(vendor)
        async with shop:
            await shop.payments.create("order-1", DUE)
            vendor.pay(await vendor_id(shop))
            await shop.payments.refresh("order-1")
            refund = await shop.payments.refund("order-1", key="r1")
            await shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="sent by hand")
            await shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="sent by hand")

        assert refund.status is RefundStatus.MANUAL_REQUIRED
        assert shop.events == ["payment.paid", "payment.refund_by_hand", "payment.refunded"]

    async def test_nothing_goes_back_of_what_never_came(self, shop: Shop) -> None:
        await shop.payments.create("order-1", DUE)

        with pytest.raises(InvalidInput, match="nothing came in"):
            await shop.payments.refund("order-1", key="r1")
        with pytest.raises(NotFound):
            await shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="none")


class TestClaims:
    """Money set aside for the payer to claim: a person says that it is done, and the link is still there."""

    @pytest.fixture
    async def shop(self) -> AsyncGenerator[Shop]:
        able = replace(AbleVendor().capabilities, refunding=Refunding.MANUAL)
        shop = Shop(AbleVendor(capabilities=able, refund_status=RefundStatus.MANUAL_REQUIRED))
        async with shop:
            vendor = self.vendor(shop)
            await paid(shop, vendor)
            await shop.payments.refund("order-1", key="r1")
            yield shop

    def vendor(self, shop: Shop) -> AbleVendor:
        vendor = shop.payments.providers["vendor"]
        assert isinstance(vendor, AbleVendor)
        return vendor

    async def settle(self, shop: Shop, *, sent: bool = True) -> None:
        said = {"actor": "ada", "evidence": "handed over"} if sent else {"actor": "ada", "evidence": "never did"}
        await shop.payments.settle_refund("order-1", key="r1", sent=sent, **said)

    def claim(self, shop: Shop, status: RefundStatus = RefundStatus.SUCCEEDED) -> None:
        refunded = self.vendor(shop).refunded
        [[key, held]] = refunded.items()
        refunded[key] = replace(held, status=status)

    async def swept(self, shop: Shop, days: int) -> int:
        looks = 0
        for _ in range(days):
            await shop.clock.advance(86_400)
            looks += await shop.payments.sweep()
        return looks

    async def refund(self, shop: Shop) -> Refund:
        [item] = await shop.payments.refunds("order-1")
        return item

    async def test_it_is_looked_at_until_it_is_claimed(self, shop: Shop) -> None:
        await self.settle(shop)

        waiting = await self.swept(shop, 40)
        self.claim(shop)
        claimed = await self.swept(shop, 40)

        assert waiting == 40
        assert claimed == 1
        assert (await self.refund(shop)).status is RefundStatus.SUCCEEDED
        assert shop.events == ["payment.paid", "payment.refund_by_hand", "payment.refunded"]

    async def test_one_that_comes_back_is_told_and_stays_as_it_was_settled_until_somebody_says_otherwise(
        self, shop: Shop
    ) -> None:
        # given
        await self.settle(shop)
        self.claim(shop, RefundStatus.CANCELED)

        # when
        looked = await self.swept(shop, 40)
        told = await self.refund(shop)
        await self.settle(shop, sent=False)
        again = await shop.payments.refund("order-1", key="r2")

        # then
        assert looked == 1
        assert (told.status, told.error) == (
            RefundStatus.SUCCEEDED,
            "settled as succeeded, and the vendor says canceled",
        )
        assert (await shop.payments.refunds("order-1"))[0].status is RefundStatus.FAILED
        assert again.money == DUE
        assert shop.events[2:5] == ["payment.refunded", "payment.flagged", "payment.refund_failed"]

    async def test_one_that_is_claimed_though_it_was_given_up_is_told_too(self, shop: Shop) -> None:
        await self.settle(shop, sent=False)
        self.claim(shop)
        await self.swept(shop, 2)
        told = await self.refund(shop)
        await self.settle(shop)

        assert told.status is RefundStatus.FAILED
        assert (await self.refund(shop)).status is RefundStatus.SUCCEEDED
        assert shop.events[2:] == ["payment.refund_failed", "payment.flagged", "payment.refunded"]

    async def test_what_both_say_alike_cannot_be_said_otherwise(self, shop: Shop) -> None:
        await self.settle(shop)
        self.claim(shop)
        await self.swept(shop, 2)

        with pytest.raises(InvalidInput, match="its vendor says what becomes of it"):
            await self.settle(shop, sent=False)

        assert (await self.refund(shop)).status is RefundStatus.SUCCEEDED

    async def test_a_vendor_that_cannot_be_asked_is_asked_again(self, shop: Shop) -> None:
        await self.settle(shop)
        self.claim(shop)
        vendor = self.vendor(shop)
        fetch = vendor.fetch_refund

        async def away(*_: object) -> RefundSnapshot:
            raise NotSent("connection refused")

        vendor.fetch_refund = away  # type: ignore[method-assign, assignment]
        in_vain = await self.swept(shop, 3)
        vendor.fetch_refund = fetch  # type: ignore[method-assign]

        assert (in_vain, await self.swept(shop, 3)) == (3, 1)

    async def test_the_account_is_needed_until_then(self, shop: Shop) -> None:
        await self.settle(shop)
        waiting = await shop.store.records.find("refunds", "open_at", "vendor")
        self.claim(shop)
        await self.swept(shop, 2)

        assert len(waiting) == 1
        assert await shop.store.records.find("refunds", "open_at", "vendor") == []


class TestScreen:
    """A check of the caller's: fraud, identity, sanctions."""

    async def test_denied_before_the_offer_nothing_is_sent(self, vendor: AbleVendor) -> None:
        async def deny(_: object) -> Decision:
            return Decision.DENY

        async with Shop(vendor, screen=deny) as payments:
            with pytest.raises(Rejected, match="denied before it was offered"):
                await payments.create("order-1", DUE)

        assert vendor.requests == []

    async def test_held_before_the_offer_it_waits_for_a_person(self, vendor: AbleVendor) -> None:
        answers = [Decision.HOLD, Decision.ALLOW]

        async def check(_: object) -> Screening:
            return Screening(decision=answers.pop(0), reason="new customer")

        async with Shop(vendor, screen=check) as payments:
            held = await payments.create("order-1", DUE)
            assert (held.status, held.offer) == (S.HELD, None)
            await payments.resolve(
                "order-1", Verdict.RELEASE, actor="ada", reason="known", evidence="call", expected=held.version
            )
            payment = await payments.create("order-1", DUE)

        assert payment.status is S.PENDING

    async def test_what_a_person_refused_before_any_offer_gets_none_whoever_asks(self, vendor: AbleVendor) -> None:
        # given
        async def hold(_: object) -> Decision:
            return Decision.HOLD

        async with Shop(vendor, screen=hold) as payments:
            held = await payments.create("order-1", DUE)
            refused = await payments.resolve(
                "order-1", Verdict.REFUSE, actor="ada", reason="stolen card", evidence="call", expected=held.version
            )

            # when
            with pytest.raises(Rejected, match="payment order-1 was refused by a person") as told:
                await payments.renew("order-1")
            again = await payments.create("order-1", DUE)

        # then
        assert told.value.reason == "refused"
        assert (refused.status, again.status, again.offer) == (S.CANCELED, S.CANCELED, None)
        assert vendor.requests == []

    async def test_nor_does_it_once_its_money_came_in_and_was_refused(self, vendor: AbleVendor) -> None:
        answers = [Decision.ALLOW, Decision.HOLD]

        async def check(_: object) -> Decision:
            return answers.pop(0)

        shop = Shop(vendor, screen=check)
        async with shop as payments:
            await paid(shop, vendor)
            held = await payments.get("order-1")
            await payments.resolve(
                "order-1", Verdict.REFUSE, actor="ada", reason="stolen card", evidence="call", expected=held.version
            )
            with pytest.raises(Rejected, match="refused by a person"):
                await payments.renew("order-1")

        assert len(vendor.requests) == 1

    async def test_what_was_released_and_canceled_is_offered_again_when_it_is_renewed(self, vendor: AbleVendor) -> None:
        async def hold(_: object) -> Decision:
            return Decision.HOLD

        async with Shop(vendor, screen=hold) as payments:
            held = await payments.create("order-1", DUE)
            await payments.resolve(
                "order-1", Verdict.RELEASE, actor="ada", reason="known", evidence="call", expected=held.version
            )
            canceled = await payments.cancel("order-1")

            assert (canceled.status, (await payments.renew("order-1")).status) == (S.CANCELED, S.PENDING)

    @pytest.mark.parametrize("decision", [Decision.HOLD, Decision.DENY])
    async def test_money_that_is_held_counts_when_a_person_lets_it_pass(
        self, vendor: AbleVendor, decision: Decision
    ) -> None:
        answers = [Decision.ALLOW, decision]

        async def check(_: object) -> Decision:
            return answers.pop(0)

        shop = Shop(vendor, screen=check)
        async with shop:
            await paid(shop, vendor)
            held = await shop.payments.get("order-1")
            assert held.status is S.HELD
            assert held.anomalies == {Anomaly.HELD}
            payment = await shop.payments.resolve(
                "order-1", Verdict.RELEASE, actor="ada", reason="known", evidence="call", expected=held.version
            )

        assert payment.status is S.PAID
        assert shop.events == ["payment.flagged", "payment.paid"]

    async def test_a_check_that_allows_is_not_noticed(self, vendor: AbleVendor) -> None:
        async def allow(_: object) -> Decision:
            return Decision.ALLOW

        shop = Shop(vendor, screen=allow)
        async with shop:
            await paid(shop, vendor)
            payment = await shop.payments.get("order-1")

        assert payment.status is S.PAID
        assert shop.events == ["payment.paid"]

    async def test_a_check_that_fails_is_asked_again_by_the_sweep(self, vendor: AbleVendor) -> None:
        answers: list[Decision | Exception] = [Decision.ALLOW, RuntimeError("down"), Decision.ALLOW]

        async def check(_: object) -> Decision:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        shop = Shop(vendor, screen=check)
        async with shop:
            with pytest.raises(RuntimeError):
                await paid(shop, vendor)
            assert (await shop.payments.get("order-1")).status is S.HELD
            await shop.clock.advance(31)
            await shop.payments.sweep()
            payment = await shop.payments.get("order-1")

        assert payment.status is S.PAID


class TestResolve:
    """What only a person can close."""

    async def unknown(self, shop: Shop, vendor: Vendor) -> int:
        vendor.after = once(LOST)
        with pytest.raises(OutcomeUnknown):
            await shop.payments.create("order-1", DUE)
        return (await shop.payments.get("order-1")).version

    async def test_an_attempt_that_never_happened_may_be_made_again(self) -> None:
        vendor = Vendor(capabilities=Capabilities(currencies=None, payer_visible=True))
        shop = Shop(vendor)
        async with shop:
            version = await self.unknown(shop, vendor)
            said = {"actor": "ada", "reason": "asked the vendor", "evidence": "ticket 17"}
            await shop.payments.resolve(
                "order-1",
                Verdict.NEVER_HAPPENED,
                number=1,
                expected=version,
                **said,
            )
            again = await shop.payments.resolve(
                "order-1",
                Verdict.NEVER_HAPPENED,
                number=1,
                expected=version,
                **said,
            )
            payment = await shop.payments.create("order-1", DUE)

        assert again.attempts[0].state is AttemptState.FAILED
        assert payment.route == ("vendor:failed", "vendor:offered")
        [line] = [line for line in payment.history if line.what == "resolved"]
        assert line.note == "never_happened by ada: asked the vendor (ticket 17)"

    async def test_a_stale_view_is_refused(self) -> None:
        vendor = Vendor(capabilities=Capabilities(currencies=None, payer_visible=True))
        shop = Shop(vendor)
        async with shop:
            version = await self.unknown(shop, vendor)
            with pytest.raises(VersionConflict):
                await shop.payments.resolve(
                    "order-1", Verdict.ABANDON, number=1, actor="a", reason="r", evidence="e", expected=version - 1
                )

    async def test_money_is_never_undone(self, shop: Shop, vendor: AbleVendor) -> None:
        await paid(shop, vendor)
        version = (await shop.payments.get("order-1")).version

        for verdict in Verdict:
            with pytest.raises(InvalidInput, match="does not fit"):
                await shop.payments.resolve(
                    "order-1", verdict, number=1, actor="a", reason="r", evidence="e", expected=version
                )

        assert (await shop.payments.get("order-1")).status is S.PAID

    async def test_who_decides_says_why(self, shop: Shop) -> None:
        await shop.payments.create("order-1", DUE)
        with pytest.raises(InvalidInput, match="on what evidence"):
            await shop.payments.resolve("order-1", Verdict.ABANDON, actor="a", reason=" ", evidence="e", expected=1)


async def test_the_history_tells_what_was_learned_in_order(shop: Shop, vendor: AbleVendor) -> None:
    await paid(shop, vendor)

    history = await shop.payments.history("order-1")

    assert [(line.what, str(line.status)) for line in history] == [
        ("started", "created"),
        ("answered", "pending"),
        ("looked", "paid"),
    ]


async def test_a_payer_is_asked_for_where_the_vendor_has_to_be_told() -> None:
    vendor = Vendor(capabilities=Capabilities(currencies=None, payer=True))
    async with Shop(vendor) as payments:
        with pytest.raises(InvalidInput, match="who pays"):
            await payments.create("order-1", DUE)
        payment = await payments.create("order-1", DUE, payer=Payer(msisdn="46733123453"))

    assert vendor.requests[0].payer == Payer(msisdn="46733123453")
    assert "46733123453" not in repr(payment)


async def test_the_route_decides_who_is_asked_and_its_reason_is_kept() -> None:
    def fee(percent: str) -> Capabilities:
        price = Fee(percent=Decimal(percent), as_of=date(2026, 1, 1), source="https://vendor.example/fees")
        return Capabilities(currencies=None, fee=price)

    dear, cheap = Vendor(name="dear", capabilities=fee("2.9")), Vendor(name="cheap", capabilities=fee("1"))
    async with Shop(dear, cheap, route=Cheapest()) as payments:
        payment = await payments.create("order-1", DUE)

    assert payment.provider == "cheap"
    assert payment.attempts[0].why == "keeps 1.20 CHF"


async def test_who_is_switched_off_is_asked_for_nothing_new_and_looked_after_as_before() -> None:
    first, second = Vendor(name="first"), Vendor(name="second")
    shop = Shop(first, second)
    async with shop as payments:
        before = await payments.create("order-1", DUE)
        await payments.switch("first", on=False, actor="ada", reason="their incident")
        after = await payments.create("order-2", DUE)
        first.pay(before.attempts[0].vendor_id)
        paid = await payments.refresh("order-1")
        await payments.switch("second", on=False, actor="ada", reason="theirs, too")
        with pytest.raises(NotSent, match="first is off: their incident"):
            await payments.create("order-3", DUE)
        with pytest.raises(InvalidInput, match="no payment provider third"):
            await payments.switch("third", on=False, actor="ada", reason="who?")

    assert (before.provider, after.provider) == ("first", "second")
    assert paid.status is S.PAID
