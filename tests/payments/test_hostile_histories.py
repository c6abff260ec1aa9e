"""What somebody who wished the shop ill would try, each as the shortest story that shows it."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast import Money
from holdfast.errors import InvalidInput, NotSent, OutcomeUnknown
from holdfast.http.session import Http
from holdfast.payments import refunds as ledger
from holdfast.payments.client import POLL, Payments
from holdfast.payments.events import PaymentFlagged
from holdfast.payments.facts import (
    Answered,
    CaptureFailed,
    CaptureStarted,
    Decision,
    Fact,
    Failed,
    Looked,
    Passed,
    Renewed,
    Resolved,
    Screened,
    Started,
    Verdict,
    Withdrawn,
)
from holdfast.payments.machine import step
from holdfast.payments.models import (
    Anomaly,
    Capture,
    Move,
    MoveState,
    Offer,
    Payment,
    PaymentStatus,
    RefundStatus,
)
from holdfast.payments.planning import MoveMoney, Resubmit, Revoke, Show, Start, chores, next_look, todo
from holdfast.payments.provider import Capabilities, PaymentSnapshot, Refunding, RefundRequest, RefundSnapshot
from holdfast.payments.refunds import Asked, Refund, Refunds, Seen, Sent
from holdfast.queue.events import Event
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from holdfast.values import Reference
from tests.payments.vendors import AbleVendor

S = PaymentStatus
NOW = ManualClock().now()
DUE = Money("120.00", "CHF")
END = NOW + timedelta(minutes=15)
PLAIN = Capabilities(currencies=None)
PAGE = Capabilities(currencies=None, manual_capture=True, captures=True, authorizes=True, releasable=True)
"""Who sets aside and captures what the payer approved, and cannot take an offer back."""


def said(status: PaymentStatus, *, number: int = 1, received: Money | None = None, **more: object) -> PaymentSnapshot:
    offer = Offer(checkout_url=f"https://v.example/{number}")
    snapshot = PaymentSnapshot(vendor_id=f"v{number}", status=status, price=DUE, received=received, offer=offer)
    return replace(snapshot, **more)  # type: ignore[arg-type]  # fields of a snapshot


def started(number: int = 1, *, after: timedelta = timedelta(0)) -> Started:
    return Started(
        at=NOW + after,
        provider=f"vendor-{number}",
        attempt_id=f"a{number}",
        price=DUE,
        quote=None,
        timeout=timedelta(seconds=8),
        expires_in=timedelta(minutes=15),
    )


def answered(number: int = 1, status: PaymentStatus = S.PENDING, *, after: timedelta = timedelta(0)) -> Answered:
    return Answered(at=NOW + after, number=number, claim=1, snapshot=said(status, number=number))


def looked(
    status: PaymentStatus,
    *,
    number: int = 1,
    after: timedelta = timedelta(0),
    able: Capabilities = PLAIN,
    screen: bool = False,
    **more: Any,
) -> Looked:
    received = DUE if status is S.PAID else None
    snapshot = said(status, number=number, received=received, **more)
    return Looked(at=NOW + after, number=number, snapshot=snapshot, capabilities=able, screen=screen)


def withdrawn(number: int = 1, *, able: Capabilities = PLAIN, final: bool = False) -> Withdrawn:
    return Withdrawn(at=NOW, number=number, capabilities=able, final=final)


def capturing(number: int = 1, key: str = "k", **more: Any) -> list[Fact]:
    """The vendor was asked to move the money, and its answer was lost."""
    asked = CaptureStarted(at=NOW, number=number, key=key, money=DUE, timeout=timedelta(seconds=20), **more)
    return [asked, CaptureFailed(at=NOW, number=number, claim=1, error=OutcomeUnknown("no answer"))]


def live(*facts: Fact, capture: Capture = Capture.AUTO) -> tuple[Payment, list[Event]]:
    payment = Payment(
        reference=Reference("order-1"), due=DUE, expires_in=timedelta(minutes=15), capture=capture, created_at=NOW
    )
    events: list[Event] = []
    for fact in facts:
        stepped = step(payment, fact)
        payment = replace(stepped.payment, version=payment.version + 1)
        events += stepped.events
    return payment, events


def then(payment: Payment, after: timedelta = timedelta(0)) -> object:
    """What a caller who wants an offer does next."""
    order = ("vendor-1", "vendor-2", "vendor-3")
    return todo(payment, order, dict.fromkeys(order, PLAIN), failed=frozenset(), now=NOW + after)


# Offers nobody wants any more.


@pytest.mark.parametrize("answer", [answered(), Failed(at=NOW, number=1, claim=1, error=NotSent("no"))])
def test_what_was_canceled_while_it_was_being_created_is_offered_to_nobody(answer: Fact) -> None:
    payment, _ = live(started(), withdrawn(0, final=True), answer)

    assert payment.status is S.CANCELED
    assert payment.offer is None
    assert then(payment) == Show()


def test_the_offer_that_came_of_it_is_revoked() -> None:
    payment, _ = live(started(), withdrawn(0, final=True), answered())

    assert chores(payment, {"vendor-1": replace(PLAIN, revocable=True)}, NOW) == [Revoke(1)]


def test_what_a_person_refused_before_anything_was_offered_is_never_offered() -> None:
    refused = Resolved(at=NOW, verdict=Verdict.REFUSE, number=0, actor="a", reason="b", evidence="c")

    payment, _ = live(Screened(at=NOW, decision=Decision.HOLD), refused, Renewed(at=NOW))

    assert payment.status is S.CANCELED
    assert then(payment) == Show()


LATER = timedelta(minutes=20)
AGAIN: list[Fact] = [
    started(),
    answered(),
    looked(S.EXPIRED, after=LATER),
    Renewed(at=NOW + LATER),
    started(2, after=LATER),
    answered(2, after=LATER),
]
"""An offer that ended, and another one that was made instead."""


def test_while_money_is_held_that_came_by_an_earlier_offer_the_later_one_is_shown_to_nobody() -> None:
    payment, _ = live(*AGAIN, looked(S.PAID, after=LATER, screen=True))

    assert payment.status is S.HELD
    assert payment.offer is None


def test_after_money_was_refused_no_offer_beside_it_is_shown() -> None:
    refused = Resolved(at=NOW, verdict=Verdict.REFUSE, number=0, actor="a", reason="b", evidence="c")
    hold = Screened(at=NOW, decision=Decision.HOLD)

    payment, _ = live(*AGAIN, looked(S.PAID, after=LATER, screen=True), hold, refused)

    assert payment.status is S.CANCELED
    assert payment.offer is None


def test_who_takes_nothing_new_is_not_asked_again_for_what_may_exist() -> None:
    lost = Failed(at=NOW, number=1, claim=1, error=OutcomeUnknown("no answer"))
    keyed = replace(started(), key_until=NOW + timedelta(hours=1))
    payment, _ = live(keyed, lost)
    able = {"vendor-1": PLAIN, "vendor-2": PLAIN}

    usual = todo(payment, ["vendor-1", "vendor-2"], able, failed=frozenset(), now=NOW)
    retired = todo(payment, ["vendor-2"], able, failed=frozenset(), now=NOW)

    assert usual == Resubmit(1)
    assert retired == Start("vendor-2")


# Money that is moved by us.


def test_once_money_came_in_by_one_offer_none_is_moved_by_another() -> None:
    approved = looked(S.APPROVED, number=2, after=LATER, able=PAGE)

    held, _ = live(*AGAIN, approved, looked(S.PAID, after=LATER, screen=True), *capturing(2))
    paid, _ = live(*AGAIN, approved, looked(S.PAID, after=LATER), *capturing(2))

    assert held.attempts[1].capture is None
    assert paid.attempts[1].capture is None


def test_a_capture_whose_answer_was_lost_is_not_asked_for_again_once_money_came_in_otherwise() -> None:
    until = NOW + timedelta(hours=6)
    approved = looked(S.APPROVED, number=2, after=LATER, able=PAGE)
    able = {"vendor-1": PLAIN, "vendor-2": PAGE}

    alone, _ = live(*AGAIN, approved, *capturing(2, key_until=until))
    payment, _ = live(*AGAIN, approved, *capturing(2, key_until=until), looked(S.PAID, after=LATER))
    again, _ = live(*AGAIN, approved, *capturing(2, key_until=until), looked(S.PAID, after=LATER), *capturing(2))

    assert chores(alone, able, NOW + LATER) == [MoveMoney(2)]
    assert chores(payment, able, NOW + LATER) == []
    assert again.attempts[1].capture == payment.attempts[1].capture


def test_a_person_is_told_of_every_capture_of_which_nobody_knows() -> None:
    approved, passed = looked(S.APPROVED, able=PAGE), Passed(at=NOW + LATER, capabilities={})
    lost: list[Fact] = [*capturing(), looked(S.APPROVED, after=LATER, able=PAGE), passed]
    never = Resolved(at=NOW, verdict=Verdict.NEVER_HAPPENED, number=1, actor="a", reason="b", evidence="c")

    _, events = live(started(), answered(), approved, *lost, passed, never, *lost, passed)

    assert [getattr(event, "anomaly", None) for event in events] == [Anomaly.CAPTURE_UNKNOWN] * 2


# Money that is set aside.


def test_what_is_set_aside_after_it_was_withdrawn_is_let_go_of() -> None:
    approved, aside = looked(S.APPROVED, able=PAGE), looked(S.AUTHORIZED, able=PAGE)

    payment, events = live(
        started(), answered(), approved, withdrawn(able=PAGE, final=True), aside, capture=Capture.MANUAL
    )

    assert payment.status is S.CANCELED
    assert [event.type for event in events] == ["payment.canceled"]
    assert chores(payment, {"vendor-1": PAGE}, NOW) == [Revoke(1)]
    assert next_look(payment, {"vendor-1": PAGE}, POLL) is not None


def test_what_was_let_go_of_after_that_is_over() -> None:
    approved, aside = looked(S.APPROVED, able=PAGE), looked(S.AUTHORIZED, able=PAGE)
    gone = looked(S.CANCELED, after=timedelta(days=2), able=PAGE)

    payment, events = live(started(), answered(), approved, withdrawn(able=PAGE), aside, gone, capture=Capture.MANUAL)

    assert payment.attempts[0].status is S.CANCELED
    assert events == []
    assert chores(payment, {"vendor-1": PAGE}, NOW) == []
    assert next_look(payment, {"vendor-1": PAGE}, POLL) is None


def test_what_is_to_be_let_go_of_is_so_though_a_capture_of_it_was_lost() -> None:
    aside = looked(S.AUTHORIZED, able=PAGE)

    payment, _ = live(
        started(), answered(), aside, *capturing(), withdrawn(able=PAGE, final=True), capture=Capture.MANUAL
    )

    assert chores(payment, {"vendor-1": PAGE}, NOW) == [Revoke(1)]


@pytest.mark.parametrize("state", MoveState)
@pytest.mark.parametrize(
    ("key_until", "counts"), [(None, False), (NOW, False), (NOW + timedelta(seconds=1), True)], ids=str
)
def test_money_is_asked_for_again_only_after_a_lost_answer_and_under_a_key_that_counts(
    state: MoveState, key_until: datetime | None, counts: bool
) -> None:
    move = Move(key="k", money=DUE, state=state, claimed_until=NOW, key_until=key_until)

    assert move.may_be_repeated(NOW) is (counts and state is MoveState.UNKNOWN)


# Money that goes back.


async def test_nobody_says_what_became_of_a_refund_while_it_is_being_asked_for() -> None:
    vendor = AbleVendor()
    answers = iter([OutcomeUnknown("no answer", provider="vendor")])
    entered, leave = asyncio.Event(), asyncio.Event()
    ask = vendor.refund

    async def slow(http: Http, request: RefundRequest) -> RefundSnapshot:
        for error in answers:
            raise error
        entered.set()
        await leave.wait()
        return await ask(http, request)

    vendor.refund = slow  # type: ignore[method-assign]
    async with Payments([vendor], runtime=Runtime("memory://", clock=ManualClock())) as payments:
        offered = await payments.create("order-1", DUE)
        vendor.pay(offered.attempts[0].vendor_id)
        await payments.refresh("order-1")
        with pytest.raises(OutcomeUnknown):
            await payments.refund("order-1", key="r1")

        again = asyncio.ensure_future(payments.refund("order-1", key="r1"))
        await entered.wait()
        with pytest.raises(InvalidInput, match="at this moment"):
            await payments.settle_refund("order-1", key="r1", actor="a person", evidence="the bank", sent=False)
        leave.set()

        assert (await again).status is RefundStatus.SUCCEEDED


def refunds(payment: Payment, *, key: str = "r1") -> Refunds:
    wanted = Refund(key=key, number=1, provider="vendor-1", money=DUE, created_at=NOW)
    asked = Asked(at=NOW, refund=wanted, attempt=payment.attempts[0], refunding=Refunding.API)
    sent = Sent(at=NOW, key=key, vendor_key="k", timeout=timedelta(seconds=20), key_until=NOW + timedelta(days=3650))
    return ledger.step(ledger.step(Refunds(reference="order-1"), asked).refunds, sent).refunds


def seen(status: RefundStatus | None, *, after: timedelta = timedelta(0), money: Money = DUE) -> Seen:
    snapshot = RefundSnapshot(vendor_id="refund-1", status=status, money=money) if status else None
    return Seen(at=NOW + after, key="r1", snapshot=snapshot)


PAID = (started(), answered(), looked(S.PAID))


def test_what_the_payers_bank_sent_back_can_be_refunded_once_more() -> None:
    nothing = Money("0.00", "CHF")

    came_back, _ = live(*PAID, looked(S.PAID, refunded=DUE), looked(S.PAID, refunded=nothing))

    assert came_back.attempts[0].refunded == nothing
    assert refunds(came_back).items[0].money == DUE


def test_a_refund_of_other_money_than_was_asked_for_is_flagged_once() -> None:
    payment, _ = live(*PAID)
    kept, events = refunds(payment), list[Event]()
    for minute in range(6):
        after = timedelta(minutes=minute)
        stepped = ledger.step(kept, seen(RefundStatus.SUCCEEDED, after=after, money=Money("1.00", "CHF")))
        kept = stepped.refunds
        events += stepped.events

    assert [getattr(event, "anomaly", None) for event in events] == [Anomaly.REFUND_UNKNOWN]
    assert kept.items[0].status is RefundStatus.UNKNOWN


def test_a_refund_that_never_becomes_known_is_flagged_though_its_key_lasts_for_ever() -> None:
    payment, _ = live(*PAID)
    lost = ledger.Failed(at=NOW, key="r1", claim=1, error=OutcomeUnknown("no answer"))
    kept, events = ledger.step(refunds(payment), lost).refunds, list[Event]()
    for day in range(10):
        stepped = ledger.step(kept, seen(None, after=timedelta(days=day)))
        kept = stepped.refunds
        events += stepped.events

    assert [getattr(event, "anomaly", None) for event in events] == [Anomaly.REFUND_UNKNOWN]


def test_a_refund_that_may_have_come_back_is_asked_about_after_an_outage() -> None:
    payment, _ = live(*PAID)
    went = ledger.step(refunds(payment), seen(RefundStatus.SUCCEEDED)).refunds
    day, month = timedelta(days=1), timedelta(days=30)

    in_vain = ledger.step(went, seen(None, after=month)).refunds
    asked = ledger.step(in_vain, seen(RefundStatus.SUCCEEDED, after=month + day)).refunds

    assert ledger.next_look(went.items[0]) == NOW + day
    again = ledger.next_look(in_vain.items[0])
    assert again is not None
    assert again > NOW + month
    assert ledger.next_look(asked.items[0]) is None


def test_a_refund_that_was_flagged_and_settled_is_flagged_once_more_when_its_vendor_says_otherwise() -> None:
    # given
    payment, _ = live(*PAID)
    kept, told = refunds(payment), list[Event]()
    lost = ledger.Failed(at=NOW, key="r1", claim=1, error=OutcomeUnknown("no answer"))
    settled = ledger.Settled(at=NOW, key="r1", sent=True, note="a person: the bank")
    vain: list[ledger.Fact] = [seen(None, after=timedelta(days=day)) for day in range(6)]

    # when
    for fact in (lost, *vain, seen(RefundStatus.MANUAL_REQUIRED), settled, seen(RefundStatus.CANCELED)):
        stepped = ledger.step(kept, fact)
        kept = replace(stepped.refunds, version=kept.version + 1)
        told += [event for event in stepped.events if isinstance(event, PaymentFlagged)]

    # then
    assert len({event.id for event in told}) == len(told) == 2
    assert kept.items[0].status is RefundStatus.SUCCEEDED
