"""The life of a payment as a pure function: `step(payment, fact)`, and what to do next, `todo(payment)`.

Nothing here waits or calls. The client performs what `todo` says, feeds back what it learned, and commits after
every step; so resuming after a crash is the same path as the first time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast.errors import CallFailed
from holdfast.outcome import Cause, Effect
from holdfast.payments.events import PaymentExpired, PaymentFlagged, PaymentPaid
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Payment, PaymentStatus, Quote
from holdfast.payments.provider import Capabilities, Lookup, PaymentSnapshot
from holdfast.queue.events import Event
from holdfast.resilience.decide import Circumstances, Next, Resolve, decide
from holdfast.values import Money

S = PaymentStatus

CLAIM_MARGIN = timedelta(seconds=5)
"""An answer may be this much later than its timeout before the claim is given up."""

UNKNOWN_LOOKS = tuple(timedelta(seconds=after) for after in (5, 30, 300, 3600, 86_400))
"""When, after the claim, an attempt without an answer is looked up; then daily while it may still be paid."""

_OPEN = frozenset({S.CREATED, S.UNKNOWN, S.PENDING, S.AUTHORIZED, S.APPROVED, S.HELD, S.PROCESSING, S.PARTIALLY_PAID})
_ENDED = frozenset({S.FAILED, S.EXPIRED, S.CANCELED})

ALLOWED: Mapping[PaymentStatus, frozenset[PaymentStatus]] = {
    S.CREATED: frozenset(S) - {S.CREATED, S.HELD},
    S.UNKNOWN: frozenset(S) - {S.UNKNOWN},
    S.PENDING: frozenset(
        {S.APPROVED, S.AUTHORIZED, S.PROCESSING, S.PARTIALLY_PAID, S.PAID, S.FAILED, S.EXPIRED, S.CANCELED, S.HELD}
    ),
    S.APPROVED: frozenset({S.PROCESSING, S.PAID, S.FAILED, S.EXPIRED, S.CANCELED}),
    S.AUTHORIZED: frozenset({S.PROCESSING, S.PAID, S.CANCELED, S.EXPIRED, S.FAILED}),
    S.HELD: frozenset({S.PENDING, S.PROCESSING, S.PAID, S.CANCELED, S.FAILED}),
    S.PROCESSING: frozenset({S.PAID, S.FAILED, S.PARTIALLY_PAID, S.EXPIRED}),
    S.PARTIALLY_PAID: frozenset({S.PROCESSING, S.PAID, S.EXPIRED}),
    S.EXPIRED: frozenset({S.PARTIALLY_PAID, S.PROCESSING, S.PAID}),
    S.CANCELED: frozenset({S.PAID}),
    S.FAILED: frozenset({S.PAID}),
    S.PAID: frozenset(),
}
"""Which status may follow which; anything else a vendor says keeps the state, for orders do not run backwards."""


# Facts: what was learned.


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A provider was chosen and priced; the attempt is committed before its first byte."""

    at: datetime
    provider: str
    attempt_id: str
    price: Money
    quote: Quote | None
    timeout: timedelta
    expires_in: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The provider answered a submission."""

    at: datetime
    number: int
    claim: int
    snapshot: PaymentSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A submission failed, with what that proves."""

    at: datetime
    number: int
    claim: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The provider's object was fetched again; `None`: it has none of that id."""

    at: datetime
    number: int
    snapshot: PaymentSnapshot | None
    capabilities: Capabilities
    live: bool = True
    mismatch: str = ""
    """Why what the vendor answered cannot be about ours, where there is no snapshot because of that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedUp:
    """The provider was asked for an attempt by our own id; `None`: it shows nothing."""

    at: datetime
    number: int
    snapshot: PaymentSnapshot | None
    capabilities: Capabilities
    live: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreachable:
    """The provider could not be asked; nothing was learned but that it was tried."""

    at: datetime
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovered:
    """The vendor holds an object that belongs to an attempt without an answer, whatever we believed of it."""

    at: datetime
    number: int
    vendor_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """Time went by: claims run out, offers end."""

    at: datetime
    capabilities: Mapping[str, Capabilities]


Fact = Started | Answered | Failed | Looked | LookedUp | Unreachable | Discovered | Passed


@dataclass(frozen=True, slots=True)
class Step:
    """The payment after a fact, and what the fact means to the world."""

    payment: Payment
    events: tuple[Event, ...] = ()


def step(payment: Payment, fact: Fact) -> Step:
    """The payment as it is once `fact` is known; unchanged when the fact is old news."""
    match fact:
        case Started():
            return Step(_start(payment, fact))
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
            return Step(_pass(payment, fact))


# Actions: what to do next.


@dataclass(frozen=True, slots=True)
class Show:
    """There is an offer, or an end: give the payment to the caller."""


@dataclass(frozen=True, slots=True)
class Start:
    """Ask this provider next."""

    provider: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Another process is asking; its answer arrives in the record."""

    until: datetime


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find out by the vendor's id, else by our own, what became of the attempt, before anything else is tried."""

    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left to try; `unknown` is the attempt whose outcome is still being found out."""

    unknown: int | None


Action = Show | Start | Wait | LookUp | GiveUp


def todo(
    payment: Payment,
    order: Sequence[str],
    capabilities: Mapping[str, Capabilities],
    *,
    failed: frozenset[str],
    now: datetime,
) -> Action:
    """What a caller who wants an offer does next.

    `order` is the route; `failed` are the providers that already failed in this call, so that a later call may try
    them anew. A provider with an attempt that may exist is never asked a second time.
    """
    if not payment.attempts:
        return _start_next(payment, order, failed, unknown=None)
    last = payment.attempts[-1]
    if payment.status in (S.PAID, S.EXPIRED, S.CANCELED) or last.state is AttemptState.OFFERED:
        return Show()
    if last.state is AttemptState.CLOSED:
        return _start_next(payment, order, failed, unknown=None)
    if last.state is AttemptState.SENDING:
        return Wait(last.claimed_until)
    able = capabilities.get(last.provider)
    if last.state is AttemptState.UNKNOWN and not last.looks and able and _findable(last, able):
        return LookUp(last.number)
    cause = last.cause or Cause.UNKNOWN
    decision = decide(
        cause,
        able.create_effect if able else Effect.ONCE,
        Circumstances(
            providers_left=len(_untried(payment, order, failed)),
            unknown_may_move=able is not None and not able.payer_visible and last.shown_at is None,
        ),
    )
    unknown = last.number if isinstance(decision, Resolve) or last.state is AttemptState.UNKNOWN else None
    if isinstance(decision, Next):
        return _start_next(payment, order, failed, unknown=unknown)
    if last.state is AttemptState.FAILED and last.provider not in failed:
        return _start_next(payment, order, failed, unknown=None)  # an earlier call's failure binds this call to nothing
    return GiveUp(unknown)


def _findable(attempt: Attempt, able: Capabilities) -> bool:
    """Looking can tell something new; of an object that is not what we asked for it cannot."""
    return attempt.cause is not Cause.MISMATCH and (bool(attempt.vendor_id) or able.lookup is not Lookup.NONE)


def _untried(payment: Payment, order: Sequence[str], failed: frozenset[str]) -> list[str]:
    over = (AttemptState.FAILED, AttemptState.CLOSED)
    alive = {attempt.provider for attempt in payment.attempts if attempt.state not in over}
    return [name for name in order if name not in failed and name not in alive]


def _start_next(payment: Payment, order: Sequence[str], failed: frozenset[str], *, unknown: int | None) -> Action:
    left = _untried(payment, order, failed)
    return Start(left[0]) if left else GiveUp(unknown)


def next_look(payment: Payment, capabilities: Mapping[str, Capabilities], poll: Sequence[timedelta]) -> datetime | None:
    """When the sweep is to look at this payment again; None: never, it is over."""
    moments = [
        moment
        for attempt in payment.attempts
        if (moment := _attempt_look(attempt, capabilities.get(attempt.provider), poll)) is not None
    ]
    return min(moments, default=None)


def _attempt_look(attempt: Attempt, able: Capabilities | None, poll: Sequence[timedelta]) -> datetime | None:
    able = able or Capabilities(currencies=None)
    over = attempt.expires_at + able.grace
    looked = attempt.looked_at or attempt.claimed_at
    match attempt.state:
        case AttemptState.SENDING:
            return attempt.claimed_until + CLAIM_MARGIN
        case AttemptState.UNKNOWN if not attempt.vendor_id and able.lookup is Lookup.NONE:
            return over
        case AttemptState.UNKNOWN if not attempt.vendor_id and looked < over:
            return min(attempt.claimed_at + UNKNOWN_LOOKS[min(attempt.looks, len(UNKNOWN_LOOKS) - 1)], over)
        case AttemptState.UNKNOWN | AttemptState.OFFERED:
            moment = looked + poll[min(attempt.looks, len(poll) - 1)]
            return min(moment, over) if looked < over else moment
        case AttemptState.CLOSED if attempt.vendor_id and not attempt.paid:
            late = (attempt.expires_at + after for after in able.late_looks)
            return next((moment for moment in late if moment > looked), None)
        case _:
            return None


# The steps themselves.


def _start(payment: Payment, fact: Started) -> Payment:
    attempt = Attempt(
        number=len(payment.attempts) + 1,
        id=fact.attempt_id,
        provider=fact.provider,
        state=AttemptState.SENDING,
        claim=1,
        price=fact.price,
        quote=fact.quote,
        claimed_at=fact.at,
        claimed_until=fact.at + fact.timeout,
        expires_at=fact.at + fact.expires_in,
    )
    return replace(payment, attempts=(*payment.attempts, attempt), status=S.CREATED)


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
    attempt = replace(attempt, vendor_id=vendor_id, offer=snapshot.offer, looked_at=fact.at, looks=0)
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
    """A later attempt is under way: this offer must never be shown beside it."""
    return attempt.number != len(payment.attempts) or payment.status is S.PAID


def _fail(payment: Payment, fact: Failed) -> Step:
    attempt = _attempt(payment, fact.number)
    if attempt.claim != fact.claim or attempt.state is not AttemptState.SENDING:
        return Step(payment)
    unknown = fact.error.cause in (Cause.UNKNOWN, Cause.MISMATCH)
    attempt = replace(
        attempt,
        state=AttemptState.UNKNOWN if unknown else AttemptState.FAILED,
        cause=fact.error.cause,
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
    if attempt.state not in (AttemptState.SENDING, AttemptState.UNKNOWN):
        return Step(payment)
    if fact.snapshot:
        return _found(payment, attempt, fact, fact.snapshot)
    status = payment.status if _superseded(payment, attempt) else S.FAILED
    absent = fact.capabilities.lookup is Lookup.AUTHORITATIVE_ABSENCE
    if absent and attempt.state is AttemptState.UNKNOWN:  # what is still being sent may yet arrive
        return Step(_with(payment, replace(attempt, state=AttemptState.FAILED, cause=Cause.NOT_SENT), status=status))
    seen = replace(attempt, looks=attempt.looks + 1, looked_at=fact.at)
    if fact.at < attempt.expires_at + fact.capabilities.grace:
        return Step(_with(payment, seen))
    return Step(_with(payment, replace(seen, state=AttemptState.CLOSED, status=S.EXPIRED), status=status))


def _found(payment: Payment, attempt: Attempt, fact: LookedUp, snapshot: PaymentSnapshot) -> Step:
    """What was found is an answer; where it can no longer be shown, it is also the news of what became of it."""
    found = _answer(payment, Answered(at=fact.at, number=fact.number, claim=attempt.claim, snapshot=snapshot))
    if found.events or _attempt(found.payment, fact.number).state is AttemptState.OFFERED:
        return found
    look = Looked(at=fact.at, number=fact.number, snapshot=snapshot, capabilities=fact.capabilities, live=fact.live)
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
    over = fact.at > attempt.expires_at + fact.capabilities.grace
    if fact.snapshot is None and not fact.mismatch and not over:
        return Step(_with(payment, replace(attempt, looks=attempt.looks + 1, looked_at=fact.at)))
    # What a vendor has forgotten after its end can no longer be paid.
    said = fact.snapshot or PaymentSnapshot(vendor_id=attempt.vendor_id, status=S.EXPIRED)
    anomaly, reason = _quarantine(attempt, said, fact)
    # What is quarantined says nothing of our own object, but does not stop time either.
    snapshot = PaymentSnapshot(vendor_id=attempt.vendor_id, status=attempt.status) if anomaly else said
    status, received = _believed(attempt, snapshot, over=over)
    known = replace(
        attempt,
        status=status,
        received=received,
        state=AttemptState.CLOSED if status is S.PAID or status in _ENDED else attempt.state,
        offer=attempt.offer or snapshot.offer,
        looks=0 if (status, received) != (attempt.status, attempt.received) else attempt.looks + 1,
        looked_at=fact.at,
        error=reason or attempt.error,
    )
    settled = _settle(payment, _with(payment, known), known, said, fact)
    if anomaly and reason != attempt.error:
        return _flagged(settled, attempt, anomaly, said, fact.at)
    return settled


def _quarantine(attempt: Attempt, said: PaymentSnapshot, fact: Looked) -> tuple[Anomaly | None, str]:
    """Why what the vendor said must not move our money's state; nothing, when it may."""
    if difference := fact.mismatch or _difference(attempt, said):
        return Anomaly.MISMATCH, difference
    if said.live is False and fact.live:
        return Anomaly.TEST_MODE, "the vendor says it is test money"
    return None, ""


def _believed(attempt: Attempt, snapshot: PaymentSnapshot, *, over: bool) -> tuple[PaymentStatus, Money | None]:
    """Status and money of the attempt, once the vendor's word was held against what we know."""
    status = snapshot.status
    if over and status in _OPEN and status is not S.PROCESSING:
        status = S.EXPIRED
    if status is not attempt.status and status not in ALLOWED[attempt.status]:
        status = attempt.status
    if status is S.PAID and not attempt.paid and snapshot.received is not None and snapshot.received < attempt.price:
        status = S.PARTIALLY_PAID if S.PARTIALLY_PAID in ALLOWED[attempt.status] else attempt.status
    received = snapshot.received or attempt.received
    if status is S.PAID and (received is None or received < attempt.price):
        received = attempt.price
    return status, received


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
    if attempt.received != was.received or (attempt.status is partial and was.status is not partial):
        return _flagged(settled, attempt, Anomaly.UNDERPAID, snapshot, fact.at)
    return settled


def _follow(before: Payment, after: Payment, attempt: Attempt, fact: Looked) -> Step:
    """The payment's status after that of its current attempt."""
    if before.status is S.PAID or _superseded(after, attempt):
        return Step(after)
    if attempt.status is S.EXPIRED and not attempt.shown_at:
        return Step(replace(after, status=S.FAILED))  # nobody ever saw an offer, so another may be made
    if attempt.status is S.EXPIRED and before.status is not S.EXPIRED:
        expired = PaymentExpired(id=_event_id(before, PaymentExpired.type), reference=before.reference, at=fact.at)
        return Step(replace(after, status=S.EXPIRED), (expired,))
    if attempt.shown_at and (attempt.status is before.status or attempt.status in ALLOWED[before.status]):
        after = replace(after, status=attempt.status)
    return Step(after)


def _paid(before: Payment, after: Payment, attempt: Attempt, snapshot: PaymentSnapshot, fact: Looked) -> Step:
    if before.status is S.PAID:
        return _flagged(Step(after), attempt, Anomaly.DUPLICATE, snapshot, fact.at)
    late = before.status in _ENDED
    after = replace(after, status=S.PAID, paid_at=fact.at)
    paid = PaymentPaid(
        id=_event_id(before, PaymentPaid.type),
        reference=before.reference,
        at=fact.at,
        due=before.due,
        received=after.received,
        provider=attempt.provider,
        late=late,
    )
    settled = Step(after, (paid,))
    for anomaly, holds in (
        (Anomaly.LATE, late),
        (Anomaly.ORPHAN_PAID, attempt.shown_at is None),
        (Anomaly.OVERPAID, _over(attempt)),
    ):
        if holds:
            settled = _flagged(settled, attempt, anomaly, snapshot, fact.at)
    return settled


def _over(attempt: Attempt) -> bool:
    return attempt.received is not None and attempt.received > attempt.price


def _pass(payment: Payment, fact: Passed) -> Payment:
    for attempt in payment.attempts:
        able = fact.capabilities.get(attempt.provider) or Capabilities(currencies=None)
        # Who can be asked by our own id is asked once more after the end, as long as late money is looked for.
        late = able.late_looks if able.lookup is not Lookup.NONE else ()
        over = fact.at > attempt.expires_at + max((able.grace, *late))
        if attempt.state is AttemptState.SENDING and fact.at > attempt.claimed_until + CLAIM_MARGIN:
            status = payment.status if _superseded(payment, attempt) else S.UNKNOWN
            lost = replace(attempt, state=AttemptState.UNKNOWN, cause=Cause.UNKNOWN, error="no answer was recorded")
            payment = _with(payment, lost, status=status)
        elif attempt.state is AttemptState.UNKNOWN and not attempt.vendor_id and over:
            status = payment.status if _superseded(payment, attempt) else S.FAILED
            payment = _with(payment, replace(attempt, state=AttemptState.CLOSED, status=S.EXPIRED), status=status)
    return payment


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
