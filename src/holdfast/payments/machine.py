"""The life of a payment as a pure function: `step(payment, fact)`.

Nothing here waits or calls. The client does what `planning` says is to be done, feeds back what it learned, and commits
after every step; so resuming after a crash is the same path as the first time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from holdfast.outcome import Cause
from holdfast.payments import facts
from holdfast.payments.events import (
    PaymentAuthorized,
    PaymentCanceled,
    PaymentDisputed,
    PaymentExpired,
    PaymentFailed,
    PaymentFlagged,
    PaymentPaid,
)
from holdfast.payments.facts import (
    Answered,
    AuthorizationFailed,
    CaptureFailed,
    CaptureStarted,
    Decision,
    Discovered,
    Fact,
    Failed,
    Looked,
    LookedUp,
    Passed,
    Renewed,
    Resolved,
    Resubmitted,
    Screened,
    Started,
    Unreachable,
    Verdict,
    Withdrawn,
)
from holdfast.payments.models import (
    Anomaly,
    Attempt,
    AttemptState,
    Change,
    Move,
    MoveState,
    Payment,
    PaymentStatus,
)
from holdfast.payments.planning import CLAIM_MARGIN, UNKNOWN_LOOKS, can_revoke, is_given_up, is_moving
from holdfast.payments.provider import Capabilities, Lookup, PaymentSnapshot
from holdfast.queue.events import Event
from holdfast.values import Money

S = PaymentStatus

HISTORY: Final = 200
"""Lines of a payment's history that are kept: the first ones and the last."""

SUBMISSIONS_TOLD: Final = 12
"""After so many submissions without an end a person is told, even while the vendor remembers the key."""

_OPEN = frozenset({S.CREATED, S.UNKNOWN, S.PENDING, S.AUTHORIZED, S.APPROVED, S.HELD, S.PROCESSING, S.PARTIALLY_PAID})
_ENDED = frozenset({S.FAILED, S.EXPIRED, S.CANCELED})
_UNPAID = frozenset({S.CREATED, S.UNKNOWN, S.PENDING})

ALLOWED: Mapping[PaymentStatus, frozenset[PaymentStatus]] = {
    S.CREATED: frozenset(S) - {S.CREATED, S.HELD},
    S.UNKNOWN: frozenset(S) - {S.UNKNOWN},
    S.PENDING: frozenset(
        {S.APPROVED, S.AUTHORIZED, S.PROCESSING, S.PARTIALLY_PAID, S.PAID, S.FAILED, S.EXPIRED, S.CANCELED, S.HELD}
    ),
    S.APPROVED: frozenset({S.AUTHORIZED, S.PROCESSING, S.PAID, S.FAILED, S.EXPIRED, S.CANCELED}),
    S.AUTHORIZED: frozenset({S.PROCESSING, S.PAID, S.CANCELED, S.EXPIRED, S.FAILED}),
    S.HELD: frozenset({S.PENDING, S.PROCESSING, S.PAID, S.CANCELED, S.FAILED}),
    S.PROCESSING: frozenset({S.AUTHORIZED, S.PAID, S.FAILED, S.PARTIALLY_PAID, S.EXPIRED, S.CANCELED}),
    S.PARTIALLY_PAID: frozenset({S.PROCESSING, S.PAID, S.EXPIRED, S.FAILED}),
    S.EXPIRED: frozenset({S.PARTIALLY_PAID, S.PROCESSING, S.PAID}),
    S.CANCELED: frozenset({S.PAID}),
    S.FAILED: frozenset({S.PAID}),
    S.PAID: frozenset(),
}
"""Which status may follow which; anything else a vendor says keeps the state, for orders do not run backwards."""

REOPENED: Mapping[PaymentStatus, frozenset[PaymentStatus]] = {
    S.PROCESSING: frozenset({S.PENDING}),
    S.FAILED: frozenset({S.PARTIALLY_PAID, S.PROCESSING, S.EXPIRED, S.CANCELED}),
}
"""What else may follow where an offer does not end by itself: who failed to pay tries again, until it is revoked."""


@dataclass(frozen=True, slots=True)
class Step:
    """The payment after a fact, and what the fact means to the world."""

    payment: Payment
    events: tuple[Event, ...] = ()


def step(payment: Payment, fact: Fact) -> Step:
    """The payment as it is once `fact` is known; unchanged when the fact is old news."""
    stepped = _step(payment, fact)
    return _remembered(payment, stepped, fact)


def _step(payment: Payment, fact: Fact) -> Step:
    match fact:
        case Started():
            return Step(_start(payment, fact))
        case Resubmitted():
            return Step(_resubmit(payment, fact))
        case Answered():
            return _answer(payment, fact)
        case Failed():
            return _fail(payment, fact)
        case Looked():
            return _look(payment, fact)
        case LookedUp():
            return _look_up(payment, fact)
        case Unreachable():
            tried = _attempt(payment, fact.number)
            return Step(_with(payment, replace(tried, looks=tried.looks + 1, looked_at=fact.at)))
        case Discovered():
            return Step(_discover(payment, fact))
        case Passed():
            return _pass(payment, fact)
        case Withdrawn():
            return _withdraw(payment, fact)
        case Renewed():
            return Step(_renew(payment))
        case CaptureStarted():
            return Step(_start_capture(payment, fact))
        case CaptureFailed():
            return _fail_capture(payment, fact)
        case AuthorizationFailed():
            return _fail_authorization(payment, fact)
        case Screened():
            return _screen(payment, fact)
        case Resolved():
            return _resolve(payment, fact)


def _remembered(before: Payment, stepped: Step, fact: Fact) -> Step:
    """With a line in the history, where anything changed that somebody may ask about later."""
    after = stepped.payment
    number = getattr(fact, "number", 0)
    number = len(after.attempts) if isinstance(fact, Started) else number
    was = before.attempts[number - 1] if 0 < number <= len(before.attempts) else None
    now = after.attempts[number - 1] if 0 < number <= len(after.attempts) else None
    same = after.status is before.status and (was is now or (was and now and _gist(was) == _gist(now)))
    if same and not stepped.events and not isinstance(fact, Resolved):
        return stepped
    note = _note(fact, now)
    line = Change(at=fact.at, what=facts.name(fact), number=number, status=after.status, note=note)
    history = (*after.history, line)
    if len(history) > HISTORY:
        history = (*history[: HISTORY // 2], *history[-HISTORY // 2 :])
    return replace(stepped, payment=replace(after, history=history))


def _gist(attempt: Attempt) -> object:
    return attempt.state, attempt.status, attempt.claim, attempt.vendor_id, attempt.received, attempt.capture


def _note(fact: Fact, attempt: Attempt | None) -> str:
    if isinstance(fact, Resolved):
        return facts.note(fact)
    if isinstance(fact, Screened):
        return f"{fact.decision}: {fact.reason}" if fact.reason else str(fact.decision)
    if attempt is None:
        return ""
    parts = [attempt.provider, str(attempt.state)]
    if attempt.cause:
        parts.append(str(attempt.cause))
    return " ".join(parts)


def _start(payment: Payment, fact: Started) -> Payment:
    attempt = Attempt(
        number=len(payment.attempts) + 1,
        id=fact.attempt_id,
        provider=fact.provider,
        state=AttemptState.SENDING,
        claim=1,
        why=fact.why,
        price=fact.price,
        quote=fact.quote,
        claimed_at=fact.at,
        claimed_until=fact.at + fact.timeout,
        expires_at=fact.at + fact.expires_in,
        key_until=fact.key_until,
    )
    return replace(payment, attempts=(*payment.attempts, attempt), status=S.CREATED)


def _resubmit(payment: Payment, fact: Resubmitted) -> Payment:
    attempt = _attempt(payment, fact.number)
    if attempt.state is not AttemptState.UNKNOWN or attempt.vendor_id:
        return payment
    again = replace(attempt, state=AttemptState.SENDING, claim=attempt.claim + 1, claimed_until=fact.at + fact.timeout)
    return _with(payment, again)


def _answer(payment: Payment, fact: Answered) -> Step:
    attempt, snapshot = _attempt(payment, fact.number), fact.snapshot
    known = attempt.state is AttemptState.OFFERED or (attempt.state is AttemptState.CLOSED and attempt.vendor_id)
    if attempt.claim != fact.claim or known:
        return Step(payment)
    superseded = _superseded(payment, attempt)
    unsure = payment.status if superseded else S.UNKNOWN
    difference = _difference(attempt, snapshot)
    showable = (
        not superseded
        and attempt.state is not AttemptState.CLOSED
        and snapshot.status in _OPEN
        and fact.at < attempt.expires_at
    )
    vendor_id = attempt.vendor_id or snapshot.vendor_id
    attempt = replace(
        attempt, vendor_id=vendor_id, offer=snapshot.offer, looked_at=fact.at, answered_at=fact.at, looks=0
    )
    if snapshot.offer and snapshot.offer.expires_at:
        attempt = replace(attempt, expires_at=max(attempt.expires_at, snapshot.offer.expires_at))
    if difference:
        wrong = replace(attempt, state=AttemptState.UNKNOWN, cause=Cause.MISMATCH, error=difference)
        return _flagged(Step(_with(payment, wrong, status=unsure)), wrong, Anomaly.MISMATCH, snapshot, fact.at)
    if not showable:
        # Nobody may be shown it, but it exists, so it is looked after as an orphan, whatever we believed before.
        orphan = replace(attempt, state=AttemptState.UNKNOWN, cause=Cause.UNKNOWN)
        return Step(_with(payment, orphan, status=unsure))
    attempt = replace(
        attempt, state=AttemptState.OFFERED, status=snapshot.status, shown_at=fact.at, cause=None, error=""
    )
    return Step(_with(payment, attempt, status=snapshot.status))


def _superseded(payment: Payment, attempt: Attempt) -> bool:
    """A later attempt is under way, money came in, or nobody wants any: this offer must never be shown."""
    return attempt.number != len(payment.attempts) or payment.status in (S.PAID, S.HELD, S.CANCELED)


def _fail(payment: Payment, fact: Failed) -> Step:
    attempt = _attempt(payment, fact.number)
    if attempt.claim != fact.claim or attempt.state is not AttemptState.SENDING:
        return Step(payment)
    # Of a second submission only its own fate is known: the first may have had its effect all the same.
    unknown = fact.error.cause in (Cause.UNKNOWN, Cause.MISMATCH) or attempt.claim > 1
    attempt = replace(
        attempt,
        state=AttemptState.UNKNOWN if unknown else AttemptState.FAILED,
        cause=Cause.UNKNOWN if unknown and fact.error.cause is not Cause.MISMATCH else fact.error.cause,
        error=str(fact.error),
    )
    status = payment.status if _superseded(payment, attempt) else S.UNKNOWN if unknown else S.FAILED
    failed = Step(_with(payment, attempt, status=status))
    if fact.error.cause is Cause.MISMATCH:
        unseen = PaymentSnapshot(vendor_id=attempt.vendor_id, status=S.UNKNOWN)
        return _flagged(failed, attempt, Anomaly.MISMATCH, unseen, fact.at)
    return failed


def _look_up(payment: Payment, fact: LookedUp) -> Step:
    attempt = _attempt(payment, fact.number)
    given_up = attempt.state is AttemptState.CLOSED and not attempt.vendor_id
    if attempt.state not in (AttemptState.SENDING, AttemptState.UNKNOWN) and not given_up:
        return Step(payment)
    if fact.snapshot:
        return _found(payment, attempt, fact, fact.snapshot)
    status = payment.status if _superseded(payment, attempt) else S.FAILED
    absent = fact.capabilities.lookup is Lookup.AUTHORITATIVE_ABSENCE
    # What was sent may still be on its way, until the time it had is over.
    if absent and attempt.state is AttemptState.UNKNOWN and fact.at >= attempt.claimed_until:
        return Step(_with(payment, replace(attempt, state=AttemptState.FAILED, cause=Cause.NOT_SENT), status=status))
    seen = replace(attempt, looks=attempt.looks + 1, looked_at=fact.at, answered_at=fact.at)
    if given_up or fact.at < attempt.expires_at + fact.capabilities.grace:
        return Step(_with(payment, seen))
    return Step(_with(payment, replace(seen, state=AttemptState.CLOSED, status=S.EXPIRED), status=status))


def _found(payment: Payment, attempt: Attempt, fact: LookedUp, snapshot: PaymentSnapshot) -> Step:
    """What was found is an answer; where it can no longer be shown, it is also the news of what became of it."""
    found = _answer(payment, Answered(at=fact.at, number=fact.number, claim=attempt.claim, snapshot=snapshot))
    if found.events or _attempt(found.payment, fact.number).state is AttemptState.OFFERED:
        return found
    look = Looked(
        at=fact.at,
        number=fact.number,
        snapshot=snapshot,
        capabilities=fact.capabilities,
        live=fact.live,
        screen=fact.screen,
    )
    return _look(found.payment, look)


def _discover(payment: Payment, fact: Discovered) -> Payment:
    attempt = _attempt(payment, fact.number)
    if attempt.vendor_id:
        return payment
    if attempt.state is not AttemptState.FAILED:
        return _with(payment, replace(attempt, vendor_id=fact.vendor_id))
    # We were told that nothing had happened, and it had.
    orphan = replace(attempt, state=AttemptState.UNKNOWN, cause=Cause.UNKNOWN, vendor_id=fact.vendor_id)
    return _with(payment, orphan, status=payment.status if _superseded(payment, attempt) else S.UNKNOWN)


def _look(payment: Payment, fact: Looked) -> Step:
    attempt = _attempt(payment, fact.number)
    able = fact.capabilities
    over = fact.at > attempt.expires_at + able.grace
    if fact.snapshot is None and not fact.mismatch and not over:
        seen = replace(attempt, looks=attempt.looks + 1, looked_at=fact.at, answered_at=fact.at)
        return Step(_with(payment, seen))
    # What a vendor has forgotten after its end can no longer be paid.
    said = fact.snapshot or PaymentSnapshot(vendor_id=attempt.vendor_id, status=S.EXPIRED)
    shown = attempt.shown_at is not None or able.payer_visible
    final = able.revocable or able.captures or able.expiry_is_final
    if shown and said.status is S.EXPIRED and not over and not final:
        # Its end is not the end of what may come in, and nobody is to be offered anything else before that.
        said = replace(said, status=attempt.status)
    anomaly, reason = _quarantine(attempt, said, fact)
    snapshot = said
    if anomaly:
        # It says nothing of our own object, which may have been paid: time goes on, but only to the last look for that.
        snapshot = PaymentSnapshot(vendor_id=attempt.vendor_id, status=attempt.status)
        given_up = attempt.looks >= len(UNKNOWN_LOOKS)
        over = given_up and fact.at > attempt.expires_at + max((able.grace, *able.late_looks))
    elif able.open_ended and attempt.state is not AttemptState.UNKNOWN and said.status in _UNPAID:
        over = False  # who was shown it can pay it until the vendor says otherwise, which revoking it brings about
    # It was being set aside while it ended here: nobody wants it any more, and it is to be let go of.
    ended = attempt.status in (S.EXPIRED, S.CANCELED) or (attempt.status is S.FAILED and attempt.withdrawn)
    aside = snapshot.status is S.AUTHORIZED and ended and (able.releasable or able.revocable)
    status, received = _believed(attempt, snapshot, able, over=over)
    status = S.AUTHORIZED if aside else status
    known = replace(
        attempt,
        status=status,
        received=received,
        state=AttemptState.CLOSED if status is S.PAID or status in _ENDED else attempt.state,
        withdrawn=attempt.withdrawn or aside,
        offer=attempt.offer or snapshot.offer,
        refunded=attempt.refunded if snapshot.refunded is None else snapshot.refunded,
        disputed=snapshot.disputed or attempt.disputed,
        fee=attempt.fee if snapshot.fee is None else snapshot.fee,
        paid_at=attempt.paid_at or (fact.at if status is S.PAID else None),
        capture=_moved(attempt, snapshot.status, status),
        looks=0 if (status, received) != (attempt.status, attempt.received) else attempt.looks + 1,
        looked_at=fact.at,
        answered_at=fact.at,
        error=reason or attempt.error,
    )
    settled = _disputed(payment, attempt, known, _settle(payment, _with(payment, known), known, said, fact), fact.at)
    if anomaly and reason != attempt.error:
        return _flagged(settled, attempt, anomaly, said, fact.at)
    return settled


def _disputed(payment: Payment, was: Attempt, now: Attempt, settled: Step, at: datetime) -> Step:
    """Told whenever the sum that is disputed grows."""
    if now.disputed is None or (was.disputed is not None and now.disputed <= was.disputed):
        return settled
    told = PaymentDisputed(
        id=_event_id(payment, PaymentDisputed.type),
        reference=payment.reference,
        at=at,
        money=now.disputed,
        provider=now.provider,
    )
    return Step(settled.payment, (*settled.events, told))


def _quarantine(attempt: Attempt, said: PaymentSnapshot, fact: Looked) -> tuple[Anomaly | None, str]:
    """Why what the vendor said must not move our money's state; nothing, when it may."""
    if difference := fact.mismatch or _difference(attempt, said):
        return Anomaly.MISMATCH, difference
    if said.live is False and fact.live:
        return Anomaly.TEST_MODE, "the vendor says it is test money"
    return None, ""


def _believed(
    attempt: Attempt, snapshot: PaymentSnapshot, able: Capabilities, *, over: bool
) -> tuple[PaymentStatus, Money | None]:
    """Status and money of the attempt, once the vendor's word was held against what we know."""
    status = snapshot.status
    moving = attempt.capture is not None and attempt.capture.state in (MoveState.SENDING, MoveState.UNKNOWN)
    if over and status in _OPEN and status not in (S.PROCESSING, S.AUTHORIZED) and not moving:
        status = S.EXPIRED
    allowed = ALLOWED[attempt.status]
    if able.open_ended:
        allowed |= REOPENED.get(attempt.status, frozenset())
    if attempt.capture is not None and attempt.capture.state is not MoveState.FAILED and attempt.status is S.PROCESSING:
        allowed -= {S.AUTHORIZED}  # it moves already: what says that it is still to be moved is older than that
    if status is not attempt.status and status not in allowed:
        status = attempt.status
    wanted = _wanted(attempt)
    if status is S.PAID and not attempt.paid and snapshot.received is not None and snapshot.received < wanted:
        status = S.PARTIALLY_PAID if S.PARTIALLY_PAID in allowed else attempt.status
    received = _received(attempt, snapshot, able, status)
    if status is S.PAID and (received is None or received < wanted):
        received = wanted
    return status, received


def _received(attempt: Attempt, snapshot: PaymentSnapshot, able: Capabilities, status: PaymentStatus) -> Money | None:
    """What came in, or is on its way."""
    if snapshot.status is S.FAILED and not attempt.paid:
        return None
    if snapshot.status is S.PROCESSING and status is not S.PROCESSING:
        return attempt.received  # the answer is older than what we know
    failed = able.open_ended and attempt.status is S.PROCESSING and status in (S.PENDING, *_ENDED)
    return snapshot.received or (None if failed else attempt.received)


def _settle(before: Payment, after: Payment, attempt: Attempt, snapshot: PaymentSnapshot, fact: Looked) -> Step:
    """What the attempt's new state means for the payment."""
    was = _attempt(before, attempt.number)
    if attempt.paid and not was.paid:
        return _paid(before, after, attempt, snapshot, fact)
    settled = _follow(before, after, attempt, fact)
    if attempt.paid:
        more = _over(attempt) and not _over(was)
        return _flagged(settled, attempt, Anomaly.OVERPAID, snapshot, fact.at) if more else settled
    partial = S.PARTIALLY_PAID
    short = attempt.received is not None and attempt.received < _wanted(attempt)
    if (short and attempt.received != was.received) or (attempt.status is partial and was.status is not partial):
        return _flagged(settled, attempt, Anomaly.UNDERPAID, snapshot, fact.at)
    return settled


def _follow(before: Payment, after: Payment, attempt: Attempt, fact: Looked) -> Step:
    """The payment's status after that of its current attempt."""
    if before.status in (S.PAID, S.HELD) or _superseded(after, attempt):
        return Step(after)
    was = _attempt(before, attempt.number)
    over = was.status in _ENDED or (was.status is S.AUTHORIZED and was.withdrawn)
    if attempt.status in _ENDED and over and was.state is AttemptState.CLOSED:
        return Step(after)  # it was over before
    if attempt.withdrawn and attempt.status is S.AUTHORIZED:
        return Step(after)  # it is let go of
    if attempt.status in _ENDED and (attempt.withdrawn or not attempt.shown_at):
        return _gone(before, after, fact.at)
    moved = attempt.shown_at and (attempt.status is before.status or attempt.status in ALLOWED[before.status])
    if not moved or attempt.status is before.status:
        return Step(after)
    reason = fact.snapshot.reason if fact.snapshot else ""
    return _entered(before, replace(after, status=attempt.status), attempt, fact.at, reason)


def _gone(before: Payment, after: Payment, at: datetime) -> Step:
    """The last offer is over without anybody having waited for it: another may be made, unless nobody wants one."""
    if not before.canceling:
        return Step(replace(after, status=S.FAILED))
    if before.status is S.CANCELED:
        return Step(after)
    return _entered(before, replace(after, status=S.CANCELED), None, at)


def _entered(before: Payment, after: Payment, attempt: Attempt | None, at: datetime, reason: str = "") -> Step:
    """With the event of the status it came to."""
    provider = attempt.provider if attempt else ""
    reference = before.reference
    event: Event | None = None
    match after.status:
        case S.EXPIRED:
            event = PaymentExpired(id=_event_id(before, PaymentExpired.type), reference=reference, at=at)
        case S.CANCELED:
            event = PaymentCanceled(id=_event_id(before, PaymentCanceled.type), reference=reference, at=at)
        case S.FAILED:
            id = _event_id(before, PaymentFailed.type)
            event = PaymentFailed(id=id, reference=reference, at=at, provider=provider, reason=reason)
        case S.AUTHORIZED:
            id = _event_id(before, PaymentAuthorized.type)
            event = PaymentAuthorized(id=id, reference=reference, at=at, due=before.due, provider=provider)
        case _:
            pass
    return Step(after, (event,) if event else ())


def _paid(before: Payment, after: Payment, attempt: Attempt, snapshot: PaymentSnapshot, fact: Looked) -> Step:
    if before.status is S.PAID or any(a.paid for a in before.attempts):
        return _flagged(Step(after), attempt, Anomaly.DUPLICATE, snapshot, fact.at)
    was = _attempt(before, attempt.number)
    late = before.status in _ENDED or was.state is AttemptState.CLOSED or before.canceling
    settled = _let_pass(before, replace(after, status=S.HELD), attempt, fact.at, late=late)
    if fact.screen:
        settled = Step(replace(after, status=S.HELD, screened=False))
    for anomaly, holds in (
        (Anomaly.LATE, late),
        (Anomaly.ORPHAN_PAID, attempt.shown_at is None),
        (Anomaly.OVERPAID, _over(attempt)),
        (Anomaly.MANUAL, snapshot.by_hand),
    ):
        if holds:
            settled = _flagged(settled, attempt, anomaly, snapshot, fact.at)
    return settled


def _let_pass(before: Payment, after: Payment, attempt: Attempt, at: datetime, *, late: bool) -> Step:
    """The money counts: the one event of a payment."""
    after = replace(after, status=S.PAID, paid_at=at)
    paid = PaymentPaid(
        id=_event_id(before, PaymentPaid.type),
        reference=before.reference,
        at=at,
        due=before.due,
        received=after.received,
        provider=attempt.provider,
        late=late,
    )
    return Step(after, (paid,))


def _over(attempt: Attempt) -> bool:
    return attempt.received is not None and attempt.received > _wanted(attempt)


def _wanted(attempt: Attempt) -> Money:
    """What has to come in: the price, or as much of it as was captured."""
    return attempt.capture.money if attempt.capture else attempt.price


def _pass(payment: Payment, fact: Passed) -> Step:
    settled = Step(payment)
    for attempt in payment.attempts:
        able = fact.capabilities.get(attempt.provider) or Capabilities(currencies=None)
        settled = _pass_attempt(settled, _expired_claim(attempt, fact.at), able, fact.at)
        if _lost_capture(settled.payment, attempt.number, able, fact.at):
            unseen = PaymentSnapshot(vendor_id=attempt.vendor_id, status=attempt.status)
            settled = replace(settled, payment=_told(settled.payment, attempt.number))
            settled = _flagged(settled, attempt, Anomaly.CAPTURE_UNKNOWN, unseen, fact.at)
    return settled


def _lost_capture(payment: Payment, number: int, able: Capabilities, at: datetime) -> bool:
    """The vendor was asked since, and neither says that the money moved nor is to be asked to move it again."""
    attempt = _attempt(payment, number)
    asked, looked = attempt.capture, attempt.looked_at
    if asked is None or asked.state is not MoveState.UNKNOWN or asked.told:
        return False
    remembered = asked.may_be_repeated(at) and asked.claim < SUBMISSIONS_TOLD
    hopeful = remembered and (not is_given_up(payment, attempt) or can_revoke(able, attempt))
    return not hopeful and looked is not None and looked > asked.claimed_until


def _told(payment: Payment, number: int) -> Payment:
    attempt = _attempt(payment, number)
    assert attempt.capture is not None
    return _with(payment, replace(attempt, capture=replace(attempt.capture, told=True)))


def _expired_claim(attempt: Attempt, at: datetime) -> Attempt:
    """Money whose vendor should have answered by now may have moved."""
    asked = attempt.capture
    if asked is None or asked.state is not MoveState.SENDING or at <= asked.claimed_until + CLAIM_MARGIN:
        return attempt
    lost = replace(asked, state=MoveState.UNKNOWN, cause=Cause.UNKNOWN, error="no answer was recorded")
    return replace(attempt, capture=lost)


def _pass_attempt(settled: Step, attempt: Attempt, able: Capabilities, at: datetime) -> Step:
    payment = settled.payment
    # Who can be asked by our own id is asked once more after the end, as long as late money is looked for.
    late = able.late_looks if able.lookup is not Lookup.NONE else ()
    end = attempt.expires_at + max((able.grace, *late))
    status = payment.status if _superseded(payment, attempt) else None
    if attempt.state is AttemptState.SENDING and at > attempt.claimed_until + CLAIM_MARGIN:
        lost = replace(attempt, state=AttemptState.UNKNOWN, cause=Cause.UNKNOWN, error="no answer was recorded")
        return replace(settled, payment=_with(payment, lost, status=status or S.UNKNOWN))
    if attempt.state is AttemptState.UNKNOWN and not attempt.vendor_id and at > end and _looked_for(attempt, able, end):
        closed = _with(payment, replace(attempt, state=AttemptState.CLOSED, status=S.EXPIRED), status=status)
        if status is not None:
            return replace(settled, payment=closed)
        gone = _gone(payment, closed, at)
        return Step(gone.payment, (*settled.events, *gone.events))
    if attempt != _attempt(payment, attempt.number):
        return replace(settled, payment=_with(payment, attempt))
    return settled


def _looked_for(attempt: Attempt, able: Capabilities, end: datetime) -> bool:
    """Nobody can be asked for it, or was asked in vain often enough, and since the end too: we may have been down."""
    if able.lookup is Lookup.NONE:
        return True
    return attempt.looks >= len(UNKNOWN_LOOKS) and attempt.answered_at is not None and attempt.answered_at >= end


# What the caller asks for beside an offer.


def _withdraw(payment: Payment, fact: Withdrawn) -> Step:
    """An offer is not shown any more; where only we could move its money, that is its end."""
    if payment.status in (S.PAID, S.HELD):
        return Step(payment)
    wanted = replace(payment, canceling=payment.canceling or fact.final)
    if not fact.number:
        return _gone(wanted, wanted, fact.at)
    attempt = replace(_attempt(wanted, fact.number), withdrawn=True)
    moving = attempt.capture is not None and attempt.capture.state is not MoveState.FAILED
    held = attempt.status in (S.AUTHORIZED, S.PROCESSING)  # set aside, or about to be, until it is let go of
    if fact.capabilities.captures and attempt.state is AttemptState.OFFERED and not moving and not held:
        attempt = replace(attempt, state=AttemptState.CLOSED, status=S.CANCELED)
    after = _with(wanted, attempt)
    if attempt.state in (AttemptState.CLOSED, AttemptState.FAILED) and not _superseded(after, attempt):
        return _gone(wanted, after, fact.at)
    return Step(after)


def _renew(payment: Payment) -> Payment:
    """Another offer may be made after one that ended; what can still be paid, or was, or a person forbids it."""
    if payment.refused:
        return payment
    ended = payment.status in _ENDED and all(
        not attempt.paid
        and not is_moving(attempt)
        and (attempt.state in (AttemptState.CLOSED, AttemptState.FAILED) or attempt.shown_at is None)
        for attempt in payment.attempts
    )
    return replace(payment, status=S.CREATED, canceling=False) if ended else payment


def _start_capture(payment: Payment, fact: CaptureStarted) -> Payment:
    attempt, until = _attempt(payment, fact.number), fact.at + fact.timeout
    asked = attempt.capture
    if is_given_up(payment, attempt) or attempt.status not in (S.APPROVED, S.AUTHORIZED):
        return payment
    if asked is None or asked.state is MoveState.FAILED:
        move = Move(key=fact.key, money=fact.money, claimed_until=until, key_until=fact.key_until)
        attempt = replace(attempt, captures=attempt.captures + 1)
    elif asked.may_be_repeated(fact.at):
        move = replace(asked, state=MoveState.SENDING, claim=asked.claim + 1, claimed_until=until)
    else:
        return payment
    return _with(payment, replace(attempt, capture=move))


def _fail_capture(payment: Payment, fact: CaptureFailed) -> Step:
    attempt = _attempt(payment, fact.number)
    asked = attempt.capture
    if asked is None or asked.claim != fact.claim or asked.state is not MoveState.SENDING:
        return Step(payment)
    # Of a second submission only its own fate is known: the first may have moved the money all the same.
    unknown = fact.error.cause in (Cause.UNKNOWN, Cause.MISMATCH) or asked.claim > 1
    state = MoveState.UNKNOWN if unknown else MoveState.FAILED
    failed = replace(asked, state=state, cause=fact.error.cause, error=str(fact.error))
    attempt = replace(attempt, capture=failed)
    refused = state is MoveState.FAILED and fact.error.cause is Cause.REJECTED and attempt.status is S.APPROVED
    if not refused:
        again = state is MoveState.FAILED and attempt.status is S.APPROVED  # nothing happened: it is tried again
        return Step(_with(payment, replace(attempt, capture=None) if again else attempt))
    return _refused(payment, attempt, fact)


def _fail_authorization(payment: Payment, fact: AuthorizationFailed) -> Step:
    """Only a refusal says anything: setting aside is asked for again otherwise, and happens once."""
    attempt = _attempt(payment, fact.number)
    asked = attempt.status is S.APPROVED and attempt.capture is None and not attempt.withdrawn
    if fact.error.cause is not Cause.REJECTED or not asked:
        return Step(payment)
    return _refused(payment, attempt, fact)


def _refused(payment: Payment, attempt: Attempt, fact: CaptureFailed | AuthorizationFailed) -> Step:
    """The payer's money was refused, and without us it does not move: as good as never offered."""
    attempt = replace(attempt, state=AttemptState.CLOSED, status=S.FAILED, withdrawn=True)
    after = _with(payment, attempt)
    if _superseded(after, attempt):
        return Step(after)
    return _entered(payment, replace(after, status=S.FAILED), attempt, fact.at, fact.error.code or fact.error.reason)


def _moved(attempt: Attempt, said: PaymentStatus, status: PaymentStatus) -> Move | None:
    """What was asked to move, once the vendor's object shows what became of it."""
    asked = attempt.capture
    if asked is None or asked.state is MoveState.DONE:
        return asked
    if status in (S.PAID, S.PARTIALLY_PAID, S.PROCESSING):
        return replace(asked, state=MoveState.DONE, cause=None, error="")
    if said in _ENDED and status in _ENDED:
        return replace(asked, state=MoveState.FAILED)
    return asked


def _screen(payment: Payment, fact: Screened) -> Step:
    """A check spoke: of money that came in, or of a payment before any offer."""
    if payment.screened or (payment.status is not S.HELD and payment.attempts):
        return Step(payment)
    paid = next((attempt for attempt in payment.attempts if attempt.paid), None)
    if fact.decision is Decision.ALLOW:
        if paid is None:
            return Step(payment)
        late = Anomaly.LATE in payment.anomalies
        return _let_pass(payment, replace(payment, screened=True), paid, fact.at, late=late)
    held = replace(payment, status=S.HELD, screened=True)
    if paid is None:
        return Step(held)
    unseen = PaymentSnapshot(vendor_id=paid.vendor_id, status=S.PAID, received=paid.received)
    return _flagged(Step(held), paid, Anomaly.HELD, unseen, fact.at)


def _resolve(payment: Payment, fact: Resolved) -> Step:
    """What a person decided; where it does not fit how things stand, nothing changes."""
    paid = next((attempt for attempt in payment.attempts if attempt.paid), None)
    if fact.verdict in (Verdict.RELEASE, Verdict.REFUSE):
        if payment.status is not S.HELD:
            return Step(payment)
        if fact.verdict is Verdict.REFUSE:
            refused = replace(payment, status=S.CANCELED, screened=True, canceling=True, refused=True)
            return _entered(payment, refused, None, fact.at)
        released = replace(payment, screened=True)
        if paid is None:
            return Step(replace(released, status=S.CREATED))
        return _let_pass(payment, released, paid, fact.at, late=Anomaly.LATE in payment.anomalies)
    attempt = _attempt(payment, fact.number)
    if fact.verdict is Verdict.NEVER_HAPPENED and attempt.capture and attempt.capture.state is MoveState.UNKNOWN:
        again = attempt.status is S.APPROVED  # by us alone; what is set aside is captured when the caller says so
        unmoved = replace(attempt.capture, state=MoveState.FAILED, cause=Cause.NOT_SENT)
        return Step(_with(payment, replace(attempt, capture=None if again else unmoved)))
    if attempt.state is not AttemptState.UNKNOWN:
        return Step(payment)
    if fact.verdict is Verdict.NEVER_HAPPENED:
        closed = replace(attempt, state=AttemptState.FAILED, cause=Cause.NOT_SENT)
    else:
        closed = replace(attempt, state=AttemptState.CLOSED, status=S.EXPIRED)
    after = _with(payment, closed)
    return Step(after) if _superseded(after, closed) else _gone(payment, after, fact.at)


def can_resolve(payment: Payment, verdict: Verdict, number: int) -> bool:
    """Whether this verdict fits how the payment stands."""
    if verdict in (Verdict.RELEASE, Verdict.REFUSE):
        return payment.status is S.HELD
    if not 0 < number <= len(payment.attempts):
        return False
    attempt = _attempt(payment, number)
    unmoved = verdict is Verdict.NEVER_HAPPENED and attempt.capture and attempt.capture.state is MoveState.UNKNOWN
    return bool(unmoved) or attempt.state is AttemptState.UNKNOWN


def _flagged(settled: Step, attempt: Attempt, anomaly: Anomaly, snapshot: PaymentSnapshot, at: datetime) -> Step:
    """Told whenever it happens to an attempt; a payment carries the flag once."""
    payment = settled.payment
    flagged = PaymentFlagged(
        id=_event_id(payment, f"{PaymentFlagged.type}/{anomaly}"),
        reference=payment.reference,
        at=at,
        anomaly=anomaly,
        provider=attempt.provider,
        vendor_id=snapshot.vendor_id,
        received=snapshot.received,
    )
    return Step(replace(payment, anomalies=payment.anomalies | {anomaly}), (*settled.events, flagged))


def _difference(attempt: Attempt, snapshot: PaymentSnapshot) -> str:
    """In what the vendor's object is not the one we asked for; empty when it is."""
    if attempt.vendor_id and snapshot.vendor_id != attempt.vendor_id:
        return f"asked for {attempt.vendor_id}, got {snapshot.vendor_id}"
    if snapshot.price is not None and snapshot.price != attempt.price:
        return f"asked for {attempt.price}, the vendor says {snapshot.price}"
    if snapshot.attempt_id and snapshot.attempt_id != attempt.id:
        return "it belongs to another attempt"
    if snapshot.received is not None and snapshot.received.currency != attempt.price.currency:
        return f"asked for {attempt.price.currency}, received {snapshot.received.currency}"
    return ""


def _attempt(payment: Payment, number: int) -> Attempt:
    return payment.attempts[number - 1]


def _with(payment: Payment, attempt: Attempt, *, status: PaymentStatus | None = None) -> Payment:
    attempts = tuple(attempt if old.number == attempt.number else old for old in payment.attempts)
    return replace(payment, attempts=attempts, status=status or payment.status)


def _event_id(payment: Payment, kind: str) -> str:
    return f"payment/{payment.reference}/{payment.version + 1}/{kind}"
