"""The life of a payment, without a single await."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import CallFailed, NotSent, OutcomeUnknown, Rejected, Throttled
from holdfast.outcome import Cause, Effect
from holdfast.payments.events import PaymentExpired, PaymentFlagged, PaymentPaid
from holdfast.payments.facts import Answered, Discovered, Fact, Failed, Looked, LookedUp, Passed, Started, Unreachable
from holdfast.payments.machine import ALLOWED, step
from holdfast.payments.models import Anomaly, AttemptState, Offer, Payment, PaymentStatus
from holdfast.payments.planning import GiveUp, LookUp, Show, Start, Wait, next_look, todo
from holdfast.payments.provider import Capabilities, Lookup, PaymentSnapshot
from holdfast.queue.events import Event
from holdfast.values import Money, Reference

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DUE = Money("120.00", "CHF")
SILENT = Capabilities(currencies=None)
KEYED = Capabilities(currencies=None, lookup=Lookup.AUTHORITATIVE)
ABSENCE = Capabilities(currencies=None, lookup=Lookup.AUTHORITATIVE_ABSENCE)
VISIBLE = Capabilities(currencies=None, payer_visible=True, create_effect=Effect.ONCE)
POLL = (timedelta(seconds=30), timedelta(seconds=60))
ORDER = ("first", "second")


def new() -> Payment:
    return Payment(reference=Reference("order-1"), due=DUE, expires_in=timedelta(minutes=15), created_at=NOW)


def started(provider: str = "first", *, at: datetime = NOW) -> Started:
    return Started(
        at=at,
        provider=provider,
        attempt_id=f"attempt-of-{provider}",
        price=DUE,
        quote=None,
        timeout=timedelta(seconds=5),
        expires_in=timedelta(minutes=15),
    )


def snapshot(vendor_id: str = "v1", status: PaymentStatus = PaymentStatus.PENDING, **facts: object) -> PaymentSnapshot:
    offer = Offer(checkout_url=f"https://pay.example/{vendor_id}")
    return PaymentSnapshot(vendor_id=vendor_id, status=status, price=DUE, offer=offer, **facts)  # type: ignore[arg-type]


def run(payment: Payment, *facts: Fact) -> tuple[Payment, list[Event]]:
    events: list[Event] = []
    for fact in facts:
        stepped = step(payment, fact)
        if stepped.payment != payment:
            payment = replace(stepped.payment, version=payment.version + 1)
        events += stepped.events
    return payment, events


def answered(number: int = 1, vendor_id: str = "v1", *, claim: int = 1, at: datetime = NOW) -> Answered:
    return Answered(at=at, number=number, claim=claim, snapshot=snapshot(vendor_id))


def failed(error: CallFailed, number: int = 1, *, at: datetime = NOW) -> Failed:
    return Failed(at=at, number=number, claim=1, error=error)


def looked(status: PaymentStatus, number: int = 1, *, vendor_id: str = "v1", at: datetime = NOW) -> Looked:
    return Looked(at=at, number=number, snapshot=snapshot(vendor_id, status), capabilities=SILENT)


def what_next(payment: Payment, able: Capabilities = SILENT, *, failed: frozenset[str] = frozenset()) -> object:
    return todo(payment, ORDER, {"first": able, "second": able}, failed=failed, now=NOW)


def test_a_new_payment_starts_with_the_first_provider() -> None:
    assert what_next(new()) == Start("first")


def test_an_attempt_is_recorded_as_sending_before_anything_is_sent() -> None:
    payment, events = run(new(), started())

    assert payment.attempts[0].state is AttemptState.SENDING
    assert payment.offer is None
    assert events == []
    assert what_next(payment) == Wait(NOW + timedelta(seconds=5))


def test_an_answer_is_an_offer_and_counts_as_shown() -> None:
    payment, _ = run(new(), started(), answered())

    assert payment.status is PaymentStatus.PENDING
    assert payment.offer == Offer(checkout_url="https://pay.example/v1")
    assert payment.attempts[0].shown_at == NOW
    assert what_next(payment) == Show()


@pytest.mark.parametrize(
    ("error", "able", "expected"),
    [
        (NotSent("refused"), SILENT, Start("second")),
        (Throttled("slow down"), SILENT, Start("second")),
        (Rejected("no"), SILENT, GiveUp(None)),
        (OutcomeUnknown("reset"), SILENT, Start("second")),
        (OutcomeUnknown("reset"), KEYED, LookUp(1)),
        (OutcomeUnknown("reset"), VISIBLE, GiveUp(1)),
    ],
)
def test_a_failure_is_followed_by_what_it_proves(error: CallFailed, able: Capabilities, expected: object) -> None:
    payment, _ = run(new(), started(), failed(error))

    assert what_next(payment, able, failed=frozenset({"first"})) == expected


def test_an_unknown_outcome_is_never_asked_of_the_same_provider_again() -> None:
    payment, _ = run(new(), started(), failed(OutcomeUnknown("reset")), started("second"), failed(NotSent("x"), 2))

    assert what_next(payment, failed=frozenset({"second"})) == GiveUp(None)
    assert isinstance(what_next(payment), Start)
    assert what_next(payment) == Start("second")


def test_a_proven_absence_lets_the_same_provider_be_asked_again() -> None:
    payment, _ = run(new(), started(), failed(OutcomeUnknown("reset")))

    over = payment.attempts[0].claimed_until
    payment, _ = run(payment, LookedUp(at=over, number=1, snapshot=None, capabilities=ABSENCE))

    assert payment.attempts[0].state is AttemptState.FAILED
    assert what_next(payment, ABSENCE) == Start("first")


def test_absence_proves_nothing_while_what_was_sent_may_still_be_on_its_way() -> None:
    payment, _ = run(new(), started(), failed(OutcomeUnknown("reset")))
    early = payment.attempts[0].claimed_until - timedelta(seconds=1)

    payment, _ = run(payment, LookedUp(at=early, number=1, snapshot=None, capabilities=ABSENCE))

    assert payment.attempts[0].state is AttemptState.UNKNOWN


def test_what_a_look_up_finds_becomes_the_offer() -> None:
    payment, _ = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        LookedUp(at=NOW, number=1, snapshot=snapshot(), capabilities=KEYED),
    )

    assert payment.offer is not None
    assert payment.attempts[0].vendor_id == "v1"


def test_a_late_answer_is_never_shown_beside_another_offer() -> None:
    payment, _ = run(
        new(), started(), failed(OutcomeUnknown("reset")), started("second"), answered(2, "v2"), answered(1, "v1")
    )

    assert [attempt.shown_at is not None for attempt in payment.attempts] == [False, True]
    assert payment.attempts[0].vendor_id == "v1"
    assert payment.offer == Offer(checkout_url="https://pay.example/v2")


def test_an_answer_retires_only_its_own_claim() -> None:
    payment, _ = run(new(), started())

    assert step(payment, answered(claim=2)).payment == payment


def test_an_answer_about_other_money_is_a_mismatch_and_never_shown() -> None:
    other = replace(snapshot(), price=Money("12.00", "CHF"))

    payment, _ = run(new(), started(), Answered(at=NOW, number=1, claim=1, snapshot=other))

    assert payment.offer is None
    assert payment.anomalies == {Anomaly.MISMATCH}
    assert payment.attempts[0].cause is Cause.MISMATCH
    assert what_next(payment, failed=frozenset({"first"})) == GiveUp(1)


def test_paid_is_told_once_however_often_it_is_seen() -> None:
    payment, events = run(new(), started(), answered(), *[looked(PaymentStatus.PAID)] * 3)

    assert payment.status is PaymentStatus.PAID
    assert payment.received == DUE
    assert [type(event) for event in events] == [PaymentPaid]
    assert events[0].id == "payment/order-1/3/payment.paid"


def test_paid_never_goes_back() -> None:
    payment, _ = run(new(), started(), answered(), looked(PaymentStatus.PAID))

    for status in PaymentStatus:
        assert run(payment, looked(status))[0].status is PaymentStatus.PAID


def test_a_fetched_object_of_other_money_changes_no_state_and_is_flagged() -> None:
    payment, _ = run(new(), started(), answered())
    cheap = replace(snapshot(status=PaymentStatus.PAID), price=Money("1.00", "CHF"))

    payment, events = run(payment, Looked(at=NOW, number=1, snapshot=cheap, capabilities=SILENT))

    assert payment.status is PaymentStatus.PENDING
    assert [event.anomaly for event in events if isinstance(event, PaymentFlagged)] == [Anomaly.MISMATCH]


def test_test_money_never_pays_a_live_payment() -> None:
    payment, _ = run(new(), started(), answered())
    test_money = replace(snapshot(status=PaymentStatus.PAID), live=False)

    payment, events = run(payment, Looked(at=NOW, number=1, snapshot=test_money, capabilities=SILENT, live=True))

    assert payment.status is PaymentStatus.PENDING
    assert [event.anomaly for event in events if isinstance(event, PaymentFlagged)] == [Anomaly.TEST_MODE]


def test_paid_with_less_than_the_price_is_partially_paid() -> None:
    payment, _ = run(new(), started(), answered())
    short = replace(snapshot(status=PaymentStatus.PAID), received=Money("119.99", "CHF"))

    payment, events = run(payment, Looked(at=NOW, number=1, snapshot=short, capabilities=SILENT))

    assert payment.status is PaymentStatus.PARTIALLY_PAID
    assert [event.anomaly for event in events if isinstance(event, PaymentFlagged)] == [Anomaly.UNDERPAID]


def test_an_offer_ends_by_itself_when_the_vendor_never_says_so() -> None:
    end = NOW + timedelta(minutes=15) + SILENT.grace + timedelta(seconds=1)

    payment, events = run(new(), started(), answered(), looked(PaymentStatus.PENDING, at=end))

    assert payment.status is PaymentStatus.EXPIRED
    assert payment.offer is None
    assert [type(event) for event in events] == [PaymentExpired]


def test_money_after_the_end_is_accepted_and_flagged_as_late() -> None:
    end = NOW + timedelta(hours=1)

    payment, events = run(
        new(), started(), answered(), looked(PaymentStatus.EXPIRED, at=end), looked(PaymentStatus.PAID, at=end)
    )

    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.LATE}
    assert [type(event) for event in events] == [PaymentExpired, PaymentPaid, PaymentFlagged]


def test_a_second_payment_to_another_offer_is_flagged_never_told_as_paid_again() -> None:
    payment, events = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        started("second"),
        answered(2, "v2"),
        looked(PaymentStatus.PAID, 2, vendor_id="v2"),
        Discovered(at=NOW, number=1, vendor_id="v1"),
        looked(PaymentStatus.PAID, 1, vendor_id="v1"),
    )

    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged]
    assert payment.anomalies == {Anomaly.DUPLICATE}


def test_money_on_an_offer_nobody_was_shown_pays_and_is_flagged() -> None:
    payment, events = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        Discovered(at=NOW, number=1, vendor_id="v1"),
        looked(PaymentStatus.PAID),
    )

    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.ORPHAN_PAID}
    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged]


def test_a_claim_without_an_answer_becomes_unknown_whoever_died() -> None:
    payment, _ = run(new(), started())
    late = NOW + timedelta(seconds=11)

    payment, _ = run(payment, Passed(at=late, capabilities={"first": SILENT}))

    assert payment.attempts[0].state is AttemptState.UNKNOWN
    assert payment.status is PaymentStatus.UNKNOWN
    assert what_next(payment) == Start("second")


def test_an_unknown_attempt_nobody_can_look_up_is_closed_after_its_end_and_may_be_tried_anew() -> None:
    payment, _ = run(new(), started(), failed(OutcomeUnknown("reset")))
    end = NOW + timedelta(minutes=15) + SILENT.grace

    assert next_look(payment, {"first": SILENT}, POLL) == end
    payment, _ = run(payment, Passed(at=end + timedelta(seconds=1), capabilities={"first": SILENT}))

    assert payment.status is PaymentStatus.FAILED
    assert next_look(payment, {"first": SILENT}, POLL) is None
    assert what_next(payment) == Start("first")


def test_an_open_offer_is_looked_at_with_growing_pauses_and_at_its_end() -> None:
    payment, _ = run(new(), started(), answered())
    assert next_look(payment, {"first": SILENT}, POLL) == NOW + timedelta(seconds=30)

    payment, _ = run(payment, Unreachable(at=NOW + timedelta(seconds=30), number=1))
    assert next_look(payment, {"first": SILENT}, POLL) == NOW + timedelta(seconds=90)


def test_late_money_is_looked_for_after_ten_minutes_an_hour_and_a_day() -> None:
    end = NOW + timedelta(minutes=15)
    over = end + SILENT.grace + timedelta(seconds=1)
    payment, _ = run(new(), started(), answered(), looked(PaymentStatus.EXPIRED, at=over))

    for after in (timedelta(minutes=10), timedelta(hours=1), timedelta(hours=24)):
        assert next_look(payment, {"first": SILENT}, POLL) == end + after
        payment, _ = run(payment, looked(PaymentStatus.EXPIRED, at=end + after))
    assert next_look(payment, {"first": SILENT}, POLL) is None


def test_a_late_look_that_failed_is_made_up_for() -> None:
    end, able = NOW + timedelta(minutes=15), {"first": SILENT}
    over = end + timedelta(hours=1, seconds=1)
    payment, _ = run(new(), started(), answered(), looked(PaymentStatus.EXPIRED, at=over))
    down = end + timedelta(hours=24)

    payment, _ = run(payment, Unreachable(at=down, number=1), Unreachable(at=down + timedelta(seconds=30), number=1))

    again = next_look(payment, able, POLL)
    assert again == down + timedelta(seconds=30 + 300)
    payment, _ = run(payment, looked(PaymentStatus.EXPIRED, at=again))
    assert next_look(payment, able, POLL) is None


def test_what_a_vendor_calls_ended_for_good_ends_at_once() -> None:
    final = replace(SILENT, expiry_is_final=True)

    waits, _ = run(new(), started(), answered(), looked(PaymentStatus.EXPIRED))
    over, events = run(new(), started(), answered(), replace(looked(PaymentStatus.EXPIRED), capabilities=final))

    assert waits.status is PaymentStatus.PENDING
    assert over.status is PaymentStatus.EXPIRED
    assert [event.type for event in events] == ["payment.expired"]


def test_money_that_only_a_person_at_the_vendors_has_seen_is_flagged() -> None:
    marked = replace(looked(PaymentStatus.PAID), snapshot=snapshot(status=PaymentStatus.PAID, by_hand=True))

    payment, _ = run(new(), started(), answered(), marked)

    assert payment.status is PaymentStatus.PAID
    assert payment.anomalies == {Anomaly.MANUAL}


def test_a_paid_payment_is_never_looked_at_again() -> None:
    payment, _ = run(new(), started(), answered(), looked(PaymentStatus.PAID))

    assert next_look(payment, {"first": SILENT}, POLL) is None


_moments = st.integers(0, 3000).map(lambda seconds: NOW + timedelta(seconds=seconds))
_numbers = st.integers(1, 2)
_vendor = {1: "v1", 2: "v2"}


def _facts() -> st.SearchStrategy[Fact]:
    return st.one_of(
        st.builds(lambda at: started("first", at=at), _moments),
        st.builds(lambda at: started("second", at=at), _moments),
        st.builds(lambda at, n: answered(n, _vendor[n], at=at), _moments, _numbers),
        st.builds(
            lambda at, n, kind: failed(kind("x"), n, at=at),
            _moments,
            _numbers,
            st.sampled_from([NotSent, OutcomeUnknown, Rejected]),
        ),
        st.builds(
            lambda at, n, status: looked(status, n, vendor_id=_vendor[n], at=at),
            _moments,
            _numbers,
            st.sampled_from(PaymentStatus),
        ),
        st.builds(lambda at, n: Discovered(at=at, number=n, vendor_id=_vendor[n]), _moments, _numbers),
        st.builds(lambda at: Passed(at=at, capabilities={"first": SILENT, "second": KEYED}), _moments),
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(_facts(), max_size=25))
def test_no_history_tells_of_money_twice_or_shows_two_live_offers(facts: list[Fact]) -> None:
    payment, events, statuses = new(), list[Event](), [PaymentStatus.CREATED]
    for fact in facts:
        able = {"first": SILENT, "second": KEYED}
        if isinstance(fact, Started):
            # The client starts only what todo() says.
            if todo(payment, ORDER, able, failed=frozenset(), now=fact.at) != Start(fact.provider):
                continue
        elif getattr(fact, "number", 1) > len(payment.attempts):
            continue
        payment, told = run(payment, fact)
        events += told
        statuses.append(payment.status)

        live = [a for a in payment.attempts if a.shown_at and a.state is AttemptState.OFFERED]
        assert len(live) <= 1
        assert len({event.id for event in events}) == len(events)

    assert sum(isinstance(event, PaymentPaid) for event in events) == (payment.status is PaymentStatus.PAID)
    assert PaymentStatus.PAID not in [before for before, after in pairwise(statuses) if before is not after]


def test_every_status_has_its_row_in_the_table_of_transitions() -> None:
    assert set(ALLOWED) == set(PaymentStatus)
    assert ALLOWED[PaymentStatus.PAID] == frozenset()


END = NOW + timedelta(minutes=15) + SILENT.grace


def looked_up(found: PaymentSnapshot | None, *, at: datetime = NOW, able: Capabilities = KEYED) -> LookedUp:
    return LookedUp(at=at, number=1, snapshot=found, capabilities=able)


def test_what_a_look_up_finds_paid_is_told_and_never_shown() -> None:
    payment, events = run(
        new(), started(), failed(OutcomeUnknown("reset")), looked_up(snapshot(status=PaymentStatus.PAID))
    )

    assert payment.status is PaymentStatus.PAID
    assert payment.attempts[0].shown_at is None
    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged]


def test_what_a_look_up_finds_ended_is_no_offer_and_another_may_be_made() -> None:
    payment, events = run(
        new(), started(), failed(OutcomeUnknown("reset")), looked_up(snapshot(status=PaymentStatus.EXPIRED))
    )

    assert payment.offer is None
    assert events == []
    assert what_next(payment, KEYED) == Start("first")


def test_an_answer_that_is_paid_already_is_looked_at_before_anybody_else_is_asked() -> None:
    answer = Answered(at=NOW, number=1, claim=1, snapshot=snapshot(status=PaymentStatus.PAID))

    payment, _ = run(new(), started(), answer)
    assert what_next(payment) == LookUp(1)
    payment, events = run(payment, looked(PaymentStatus.PAID))

    assert payment.status is PaymentStatus.PAID
    assert sum(isinstance(event, PaymentPaid) for event in events) == 1


def test_a_mismatch_is_not_looked_up_over_and_over() -> None:
    wrong = PaymentSnapshot(vendor_id="v1", status=PaymentStatus.PENDING, price=Money("12.00", "CHF"))

    payment, events = run(new(), started(), Answered(at=NOW, number=1, claim=1, snapshot=wrong))

    assert what_next(payment, KEYED) == GiveUp(1)
    assert [event.anomaly for event in events if isinstance(event, PaymentFlagged)] == [Anomaly.MISMATCH]


def test_a_wrong_answer_never_takes_back_that_the_payment_is_paid() -> None:
    wrong = PaymentSnapshot(vendor_id="v1", status=PaymentStatus.PENDING, price=Money("12.00", "CHF"))
    paid = (started(), failed(OutcomeUnknown("x")), started("second"), answered(2, "v2"))

    payment, events = run(
        new(),
        *paid,
        looked(PaymentStatus.PAID, 2, vendor_id="v2"),
        Answered(at=NOW, number=1, claim=1, snapshot=wrong),
        looked(PaymentStatus.PAID, 2, vendor_id="v2"),
    )

    assert payment.status is PaymentStatus.PAID
    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged]


def test_an_answer_that_contradicts_a_proven_absence_is_kept_and_swept() -> None:
    absent = looked_up(None, able=ABSENCE)

    payment, _ = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        absent,
        started("second"),
        answered(1, "v1"),
        answered(2, "v2"),
    )

    assert payment.attempts[0].vendor_id == "v1"
    assert payment.attempts[0].state is AttemptState.UNKNOWN
    assert payment.offer == Offer(checkout_url="https://pay.example/v2")


def test_a_delivery_about_an_attempt_that_failed_by_all_we_knew_brings_it_back() -> None:
    payment, events = run(
        new(),
        started(),
        failed(NotSent("refused")),
        started("second"),
        answered(2, "v2"),
        Discovered(at=NOW, number=1, vendor_id="v1"),
        looked(PaymentStatus.PAID, 1),
        looked(PaymentStatus.PAID, 2, vendor_id="v2"),
    )

    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged, PaymentFlagged]
    assert payment.anomalies == {Anomaly.ORPHAN_PAID, Anomaly.DUPLICATE}


def test_an_attempt_without_an_answer_is_looked_up_once_more_after_its_end() -> None:
    able = {"first": KEYED}
    vendor_was_down = [Unreachable(at=NOW + timedelta(seconds=after), number=1) for after in (5, 30, 300)]
    payment, _ = run(new(), started(), failed(OutcomeUnknown("reset")), *vendor_was_down)
    assert next_look(payment, able, POLL) == END

    payment, _ = run(payment, Passed(at=END + timedelta(seconds=1), capabilities=able))
    assert payment.attempts[0].state is AttemptState.UNKNOWN

    payment, _ = run(payment, Unreachable(at=END, number=1))
    later = next_look(payment, able, POLL)
    assert later is not None
    assert later > END
    payment, _ = run(payment, Passed(at=END + timedelta(days=3), capabilities=able))
    assert payment.attempts[0].state is AttemptState.UNKNOWN  # who could not be asked has said nothing
    payment, _ = run(payment, looked_up(None, at=later))
    assert payment.attempts[0].state is AttemptState.CLOSED
    assert next_look(payment, able, POLL) is None


def test_an_offer_nobody_was_shown_ends_without_a_word_and_another_may_be_made() -> None:
    payment, events = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        Discovered(at=NOW, number=1, vendor_id="v1"),
        looked(PaymentStatus.EXPIRED),
    )

    assert events == []
    assert what_next(payment) == Start("first")


def test_once_paid_no_other_offer_is_shown_any_more() -> None:
    payment, _ = run(
        new(),
        started(),
        failed(OutcomeUnknown("reset")),
        started("second"),
        answered(2, "v2"),
        Discovered(at=NOW, number=1, vendor_id="v1"),
        looked(PaymentStatus.PAID, 1),
    )

    assert payment.attempts[1].state is AttemptState.OFFERED
    assert payment.offer is None


@pytest.mark.parametrize("wrong", ["price", "test money"])
def test_what_is_quarantined_still_ends_with_its_time(wrong: str) -> None:
    snap = replace(
        snapshot(status=PaymentStatus.PAID),
        **({"price": Money("1.00", "CHF")} if wrong == "price" else {"live": False}),
    )
    moments = [NOW, *(END + timedelta(minutes=number) for number in range(1, 6)), END + timedelta(hours=25)]
    looks = [Looked(at=at, number=1, snapshot=snap, capabilities=SILENT) for at in moments]

    before, _ = run(new(), started(), answered(), *looks[:-1])
    payment, events = run(new(), started(), answered(), *looks)

    assert before.status is PaymentStatus.PENDING  # it may have been paid: nobody is offered anything else
    assert payment.status is PaymentStatus.EXPIRED
    assert payment.offer is None
    assert [type(event) for event in events] == [PaymentFlagged, PaymentExpired]


def test_what_the_vendor_says_that_proves_the_object_is_not_ours_is_flagged_once() -> None:
    no_proof = Looked(at=NOW, number=1, snapshot=None, capabilities=SILENT, mismatch="the preimage proves nothing")

    payment, events = run(new(), started(), answered(), no_proof, no_proof)

    assert payment.status is PaymentStatus.PENDING
    assert [event.anomaly for event in events if isinstance(event, PaymentFlagged)] == [Anomaly.MISMATCH]


def test_part_of_the_money_found_only_after_the_end_is_flagged() -> None:
    part = replace(snapshot(status=PaymentStatus.PARTIALLY_PAID), received=Money("60.00", "CHF"))

    payment, events = run(
        new(),
        started(),
        answered(),
        Looked(at=END + timedelta(seconds=1), number=1, snapshot=part, capabilities=SILENT),
    )

    assert payment.received == Money("60.00", "CHF")
    assert [type(event) for event in events] == [PaymentExpired, PaymentFlagged]
    assert payment.anomalies == {Anomaly.UNDERPAID}


def test_more_money_on_a_paid_offer_is_flagged() -> None:
    more = replace(snapshot(status=PaymentStatus.PAID), received=Money("240.00", "CHF"))
    looks = [Looked(at=NOW, number=1, snapshot=more, capabilities=SILENT) for _ in range(2)]

    payment, events = run(new(), started(), answered(), looked(PaymentStatus.PAID), *looks)

    assert payment.received == Money("240.00", "CHF")
    assert [type(event) for event in events] == [PaymentPaid, PaymentFlagged]


def test_every_further_payment_is_flagged_not_only_the_second() -> None:
    payment, events = run(
        new(),
        *(started("first"), failed(OutcomeUnknown("x"), 1)),
        *(started("second"), failed(OutcomeUnknown("x"), 2)),
        *(started("third"), answered(3, "v3"), looked(PaymentStatus.PAID, 3, vendor_id="v3")),
        *(Discovered(at=NOW, number=n, vendor_id=f"v{n}") for n in (1, 2)),
        *(looked(PaymentStatus.PAID, n, vendor_id=f"v{n}") for n in (1, 2)),
    )

    flagged = [event.vendor_id for event in events if isinstance(event, PaymentFlagged)]
    assert flagged == ["v1", "v2"]
    assert payment.received == Money("360.00", "CHF")


def test_absence_proves_nothing_while_the_request_is_on_its_way() -> None:
    payment, _ = run(new(), started(), looked_up(None, able=ABSENCE))

    assert payment.attempts[0].state is AttemptState.SENDING


def test_what_stays_unknown_for_days_is_looked_up_once_a_day_and_not_all_the_time() -> None:
    able = replace(KEYED, grace=timedelta(days=30))
    payment, _ = run(new(), started(), Failed(at=NOW, number=1, claim=1, error=OutcomeUnknown("lost")))
    looks: list[datetime] = []

    while len(looks) < 8:
        due = next_look(payment, {"first": able}, POLL)
        assert due is not None
        looks.append(due)
        payment, _ = run(payment, LookedUp(at=due, number=1, snapshot=None, capabilities=able))

    assert [round((look - NOW).total_seconds()) for look in looks[:5]] == [5, 30, 300, 3600, 86_400]
    assert {after - before for before, after in pairwise(looks[4:])} == {timedelta(days=1)}
