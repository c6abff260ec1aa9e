"""What the model check found, each as the shortest story that shows it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from holdfast import Money
from holdfast.errors import InvalidInput, NotSent, OutcomeUnknown
from holdfast.outcome import Cause
from holdfast.payments import refunds as ledger
from holdfast.payments.client import POLL, Payments
from holdfast.payments.facts import (
    Answered,
    CaptureFailed,
    CaptureStarted,
    Decision,
    Discovered,
    Fact,
    Failed,
    Looked,
    Passed,
    Renewed,
    Resolved,
    Screened,
    Started,
    Unreachable,
    Verdict,
)
from holdfast.payments.machine import step
from holdfast.payments.models import (
    Anomaly,
    AttemptState,
    Move,
    MoveState,
    Offer,
    Payment,
    PaymentStatus,
    RefundStatus,
)
from holdfast.payments.planning import GiveUp, LookUp, Start, next_look, todo
from holdfast.payments.provider import Capabilities, Lookup, PaymentSnapshot, Refunding
from holdfast.payments.refunds import Asked, Refund, Refunds, Seen
from holdfast.queue.events import Event
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from holdfast.values import Reference
from tests.payments.vendors import AbleVendor

NOW = ManualClock().now()
DUE = Money("120.00", "CHF")
END = NOW + timedelta(minutes=15)
SILENT = Capabilities(currencies=None)
FINDS = Capabilities(currencies=None, lookup=Lookup.AUTHORITATIVE)


def said(status: PaymentStatus, received: Money | None = None, **more: object) -> PaymentSnapshot:
    snapshot = PaymentSnapshot(
        vendor_id="v1", status=status, price=DUE, received=received, offer=Offer(checkout_url="https://v.example/1")
    )
    return replace(snapshot, **more)  # type: ignore[arg-type]  # fields of a snapshot


def looked(status: PaymentStatus, at: datetime = NOW, received: Money | None = None, **more: object) -> Looked:
    return Looked(at=at, number=1, snapshot=said(status, received, **more), capabilities=SILENT)


def live(*facts: Fact, offered: bool = True) -> tuple[Payment, list[Event]]:
    payment = Payment(reference=Reference("order-1"), due=DUE, expires_in=timedelta(minutes=15), created_at=NOW)
    first: list[Fact] = [
        Started(
            at=NOW,
            provider="first",
            attempt_id="a1",
            price=DUE,
            quote=None,
            timeout=timedelta(seconds=8),
            expires_in=timedelta(minutes=15),
        )
    ]
    if offered:
        first.append(Answered(at=NOW, number=1, claim=1, snapshot=said(PaymentStatus.PENDING)))
    events: list[Event] = []
    for fact in [*first, *facts]:
        stepped = step(payment, fact)
        payment = stepped.payment
        events += stepped.events
    return payment, events


def test_what_is_about_something_else_does_not_end_an_offer_the_payer_may_have_paid() -> None:
    strange = looked(PaymentStatus.PENDING, END + timedelta(minutes=5), price=Money("1.00", "CHF"))

    payment, _ = live(strange, Renewed(at=END + timedelta(minutes=5)))

    assert payment.attempts[0].state is AttemptState.OFFERED
    assert payment.status is PaymentStatus.PENDING


def test_what_the_payer_set_aside_in_time_ends_when_the_vendor_says_so() -> None:
    status = PaymentStatus.AUTHORIZED
    agreed, _ = live(looked(status), looked(status, END + timedelta(hours=2)))
    lapsed, _ = live(looked(status), looked(PaymentStatus.CANCELED, END + timedelta(days=7)))

    assert agreed.status is status
    assert lapsed.status is PaymentStatus.CANCELED


def test_while_money_may_be_moving_no_end_is_taken_for_the_end() -> None:
    moving: list[Fact] = [
        looked(PaymentStatus.APPROVED),
        CaptureStarted(at=NOW, number=1, key="k", money=DUE, timeout=timedelta(seconds=20)),
        CaptureFailed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer")),
    ]
    later = END + timedelta(hours=1)

    payment, _ = live(*moving, looked(PaymentStatus.APPROVED, later), Renewed(at=later))
    calm, _ = live(looked(PaymentStatus.APPROVED), looked(PaymentStatus.APPROVED, later))

    assert payment.status is PaymentStatus.APPROVED
    assert calm.status is PaymentStatus.EXPIRED


def test_what_a_vendor_calls_expired_is_not_over_while_it_may_still_be_paid() -> None:
    early, _ = live(looked(PaymentStatus.EXPIRED, END + timedelta(seconds=1)))
    over, _ = live(looked(PaymentStatus.EXPIRED, END + SILENT.grace + timedelta(seconds=1)))

    assert early.status is PaymentStatus.PENDING
    assert over.status is PaymentStatus.EXPIRED


def test_after_a_long_standstill_an_orphan_is_looked_for_before_it_is_given_up() -> None:
    lost = Failed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer"))
    days_later = Passed(at=NOW + timedelta(days=3), capabilities={"first": FINDS})

    payment, _ = live(lost, days_later, offered=False)

    assert payment.attempts[0].state is AttemptState.UNKNOWN


def test_money_that_failed_to_come_is_not_money_that_came() -> None:
    payment, _ = live(looked(PaymentStatus.PROCESSING, received=DUE), looked(PaymentStatus.FAILED))

    assert payment.attempts[0].received is None


def test_money_on_its_way_is_not_called_too_little() -> None:
    _, events = live(looked(PaymentStatus.PROCESSING, received=DUE))

    assert events == []


def test_held_money_stays_held_though_an_attempt_beside_it_ends() -> None:
    paid = replace(looked(PaymentStatus.PAID, received=DUE), screen=True)
    second = Started(
        at=NOW,
        provider="second",
        attempt_id="a2",
        price=DUE,
        quote=None,
        timeout=timedelta(seconds=8),
        expires_in=timedelta(minutes=15),
    )
    lost = Failed(at=NOW, number=2, claim=1, error=OutcomeUnknown("no answer"))
    over = Passed(at=END + timedelta(days=2), capabilities={"first": SILENT, "second": SILENT})

    payment, _ = live(second, lost, paid, Screened(at=NOW, decision=Decision.HOLD), over)

    assert payment.status is PaymentStatus.HELD


def test_after_money_that_was_refused_no_other_offer_is_made() -> None:
    paid = replace(looked(PaymentStatus.PAID, received=DUE), screen=True)
    refused = Resolved(at=NOW, verdict=Verdict.REFUSE, number=0, actor="a", reason="b", evidence="c")

    payment, _ = live(paid, Screened(at=NOW, decision=Decision.DENY), refused, Renewed(at=NOW))

    assert payment.status is PaymentStatus.CANCELED


def capture(*, key_until: datetime | None) -> list[Fact]:
    return [
        looked(PaymentStatus.AUTHORIZED),
        CaptureStarted(at=NOW, number=1, key="k", money=DUE, timeout=timedelta(seconds=20), key_until=key_until),
        CaptureFailed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer")),
    ]


def test_a_capture_nobody_can_ask_about_any_more_is_flagged_once() -> None:
    later = NOW + timedelta(minutes=2)
    again: list[Fact] = [looked(PaymentStatus.AUTHORIZED, later), Passed(at=later, capabilities={})]

    _, events = live(*capture(key_until=None), *again, *again)
    _, remembered = live(*capture(key_until=NOW + timedelta(hours=1)), *again)

    assert [getattr(event, "anomaly", None) for event in events if hasattr(event, "anomaly")] == [
        Anomaly.CAPTURE_UNKNOWN
    ]
    assert not any(hasattr(event, "anomaly") for event in remembered)


def test_a_capture_of_what_the_vendor_has_ended_is_proven_not_to_have_happened() -> None:
    payment, _ = live(*capture(key_until=None), looked(PaymentStatus.CANCELED))

    assert payment.attempts[0].capture is not None
    assert payment.attempts[0].capture.state is MoveState.FAILED


def refund_of(payment: Payment, *, at: datetime = NOW) -> Refunds:
    wanted = Refund(key="r1", number=1, provider="first", money=DUE, created_at=at)
    asked = Asked(at=at, refund=wanted, attempt=payment.attempts[0], refunding=Refunding.API)
    return ledger.step(Refunds(reference="order-1"), asked).refunds


def test_money_on_its_way_cannot_go_back() -> None:
    under_way, _ = live(looked(PaymentStatus.PROCESSING, received=DUE))
    paid, _ = live(looked(PaymentStatus.PAID, received=DUE))

    with pytest.raises(InvalidInput, match="can go back"):
        refund_of(under_way)
    assert refund_of(paid).items[0].money == DUE


def test_a_refund_nobody_can_ask_about_any_more_is_flagged_once() -> None:
    paid, _ = live(looked(PaymentStatus.PAID, received=DUE))
    refunds = refund_of(paid)
    lost = Move(key="k", money=DUE, state=MoveState.UNKNOWN, claimed_until=NOW, cause=Cause.UNKNOWN)
    refunds = replace(refunds, items=(replace(refunds.items[0], move=lost, status=RefundStatus.UNKNOWN),))
    events: list[Event] = []
    for minutes in range(1, 10):
        stepped = ledger.step(refunds, Seen(at=NOW + timedelta(minutes=minutes), key="r1", snapshot=None))
        refunds = stepped.refunds
        events += stepped.events

    assert [getattr(event, "anomaly", None) for event in events] == [Anomaly.REFUND_UNKNOWN]


class Unlucky(AbleVendor):
    """One that asks the payer by itself, and whose circuit is open once the answer to that was lost."""


async def test_a_caller_is_never_told_that_nothing_happened_while_something_may_have() -> None:
    clock = ManualClock()
    vendor = Unlucky(name="unlucky", capabilities=replace(AbleVendor().capabilities, payer_visible=True))
    answers: list[Exception] = [
        OutcomeUnknown("no answer", provider="unlucky"),
        NotSent("the circuit is open", provider="unlucky", local=True),
        NotSent("the circuit is open", provider="unlucky", local=True),
    ]

    def fail() -> None:
        raise answers.pop(0) if answers else NotSent("the circuit is open", provider="unlucky", local=True)

    vendor.before = fail
    async with Payments([vendor], runtime=Runtime("memory://", clock=clock)) as payments:
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await payments.create("order-1", DUE)


def test_who_asks_again_for_what_may_exist_has_it_looked_for_again() -> None:
    lost = Failed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer"))
    able = {"first": replace(FINDS, payer_visible=True)}

    payment, _ = live(lost, Unreachable(at=NOW, number=1), offered=False)
    at_once = todo(payment, ["first"], able, failed=frozenset(), now=NOW + timedelta(seconds=1))
    later = todo(payment, ["first"], able, failed=frozenset(), now=NOW + timedelta(seconds=10))

    assert at_once == GiveUp(1)
    assert later == LookUp(1)


def test_late_money_on_its_way_is_looked_at_until_it_is_there() -> None:
    at = END + timedelta(hours=25)

    payment, _ = live(
        looked(PaymentStatus.EXPIRED, END + timedelta(minutes=5)), looked(PaymentStatus.PROCESSING, at, DUE)
    )
    moment = next_look(payment, {"first": SILENT}, POLL)

    assert payment.attempts[0].state is AttemptState.CLOSED
    assert moment is not None
    assert moment > at


async def test_what_was_offered_is_given_again_though_every_provider_is_switched_off_since() -> None:
    async with Payments([AbleVendor()], runtime=Runtime("memory://", clock=ManualClock())) as payments:
        offered = await payments.create("order-1", DUE)
        await payments.switch("vendor", on=False, actor="a person", reason="a reason")
        again = await payments.create("order-1", DUE)
        with pytest.raises(NotSent):
            await payments.create("order-2", DUE)

    assert again.offer == offered.offer


@pytest.mark.parametrize("status", [PaymentStatus.PROCESSING, PaymentStatus.PARTIALLY_PAID, PaymentStatus.AUTHORIZED])
def test_while_money_of_an_offer_nobody_was_shown_is_on_its_way_there_is_no_other(status: PaymentStatus) -> None:
    lost = Failed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer"))
    discovered = Discovered(at=NOW, number=1, vendor_id="v1")
    order = ("first", "second")

    waiting, _ = live(lost, discovered, offered=False)
    moving, _ = live(lost, discovered, looked(status), offered=False)

    def then(payment: Payment) -> object:
        looked_at = replace(payment.attempts[0], looks=1, looked_at=NOW)
        able = dict.fromkeys(order, SILENT)
        return todo(
            replace(payment, attempts=(looked_at,)),
            order,
            able,
            failed=frozenset({"first"}),
            now=NOW + timedelta(seconds=1),
        )

    assert then(waiting) == Start("second")
    assert then(moving) == GiveUp(1)


def test_what_was_given_up_and_answered_after_all_ends_once_more() -> None:
    later, able = END + timedelta(minutes=5), {"first": SILENT}
    given_up: list[Fact] = [Passed(at=END, capabilities=able), Passed(at=later, capabilities=able)]
    late = Answered(at=later, number=1, claim=1, snapshot=said(PaymentStatus.PENDING))

    answered, _ = live(*given_up, late, offered=False)
    ended, _ = live(*given_up, late, looked(PaymentStatus.EXPIRED, later), offered=False)

    assert (answered.status, answered.attempts[0].state) == (PaymentStatus.UNKNOWN, AttemptState.UNKNOWN)
    assert (ended.status, ended.attempts[0].state) == (PaymentStatus.FAILED, AttemptState.CLOSED)
