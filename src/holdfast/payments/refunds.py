"""Refunds: the life of the money that goes back, as a pure function beside that of the payment.

They are a record of their own, so that a refund's news never races a payment's. All refunds of one payment are one
record: what two callers ask for at the same time can never be more than what came in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import TypeAdapter

from holdfast.errors import CallFailed, InvalidInput, ReferenceConflict
from holdfast.outcome import Cause
from holdfast.payments.events import PaymentFlagged, PaymentRefunded, RefundByHand, RefundFailed
from holdfast.payments.models import Anomaly, Attempt, Move, MoveState, PaymentStatus, RefundStatus
from holdfast.payments.planning import CLAIM_MARGIN
from holdfast.payments.provider import Refunding, RefundSnapshot
from holdfast.payments.record import hour
from holdfast.queue.events import Event
from holdfast.stores.store import Draft, Record
from holdfast.values import Money

KIND: Final = "refunds"
LOOKS: Final = tuple(timedelta(seconds=after) for after in (5, 30, 300, 3600, 86_400))
"""The waits between looks at a refund that is not over; then daily."""
RECALLS: Final = tuple(timedelta(days=after) for after in (1, 7, 30))
"""When a refund that went well is looked at again: a bank may still send it back."""
TELL_AFTER: Final = 3
"""Looks in vain at a refund whose answer was lost, and that may not be asked for again, before a person is told."""

_OVER: Final = frozenset({RefundStatus.SUCCEEDED, RefundStatus.FAILED, RefundStatus.CANCELED})
_GONE: Final = frozenset({RefundStatus.FAILED, RefundStatus.CANCELED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Refund:
    """Money that goes back to the payer, once, under the caller's key."""

    key: str
    """The caller's name of it."""
    number: int
    """Of the attempt it came in by; it goes back by the same vendor."""
    provider: str
    money: Money
    """In the currency that attempt was asked in."""
    reason: str = ""
    status: RefundStatus = RefundStatus.CREATED
    move: Move | None = None
    """None while nothing was asked of the vendor."""
    vendor_id: str = ""
    claim_url: str | None = None
    created_at: datetime
    settled_at: datetime | None = None
    """When we learned what became of it."""
    looked_at: datetime | None = None
    answered_at: datetime | None = None
    """When the vendor last said anything of it."""
    looks: int = 0
    error: str = ""
    note: str = ""
    """Who settled it by hand, and on what evidence."""
    told: bool = False
    """It was flagged: whether the money went back, only a person can find out."""
    confirmed: bool = False
    """After a person had settled it, the vendor itself said what became of it, alike or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refunds:
    """All refunds of one payment."""

    reference: str
    items: tuple[Refund, ...] = ()
    version: int = 0

    def get(self, key: str) -> Refund | None:
        """The refund of this key."""
        return next((item for item in self.items if item.key == key), None)

    def of(self, number: int, currency: str) -> Money:
        """What went back, or may, of one attempt's money."""
        total = Money.from_minor(0, currency)
        for item in self.items:
            if item.number == number and item.status not in _GONE:
                total += item.money
        return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The caller wants money to go back."""

    at: datetime
    refund: Refund
    attempt: Attempt
    refunding: Refunding


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """The vendor is about to be asked; committed before the first byte."""

    at: datetime
    key: str
    vendor_key: str
    timeout: timedelta
    key_until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The vendor could not be asked, or did not answer, with what that proves."""

    at: datetime
    key: str
    claim: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The refund as the vendor has it: it answered, or was asked again; `None`: it shows none."""

    at: datetime
    key: str
    snapshot: RefundSnapshot | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """A person saw for themselves what became of the money, or sent it by other means."""

    at: datetime
    key: str
    sent: bool
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """Time went by: claims run out."""

    at: datetime


Fact = Asked | Sent | Failed | Seen | Settled | Passed


@dataclass(frozen=True, slots=True)
class Step:
    """The refunds after a fact, and what the fact means to the world."""

    refunds: Refunds
    events: tuple[Event, ...] = ()


def step(refunds: Refunds, fact: Fact) -> Step:
    """The refunds as they are once `fact` is known; unchanged when it is old news.

    Raises:
        InvalidInput: More is asked for than came in and has not gone back.
        ReferenceConflict: The key names another refund.
    """
    match fact:
        case Asked():
            return _ask(refunds, fact)
        case Sent():
            return Step(_send(refunds, fact))
        case Failed():
            return _fail(refunds, fact)
        case Seen():
            return _see(refunds, fact)
        case Settled():
            return _take_word(refunds, fact)
        case Passed():
            return Step(_pass(refunds, fact))


def _ask(refunds: Refunds, fact: Asked) -> Step:
    wanted, attempt = fact.refund, fact.attempt
    known = refunds.get(wanted.key)
    if known is not None:
        if (known.number, known.money) != (wanted.number, wanted.money):
            raise ReferenceConflict("refund", wanted.key, f"{known.money} of attempt {known.number}")
        return Step(refunds)
    nothing = Money.from_minor(0, attempt.price.currency)
    received = nothing if attempt.status is PaymentStatus.PROCESSING else attempt.received or nothing
    elsewhere = attempt.refunded or nothing
    left = received - max(refunds.of(wanted.number, received.currency), elsewhere)
    if not 0 < wanted.money.minor_units <= left.minor_units:
        raise InvalidInput(
            f"of payment {refunds.reference} {left} can go back by {attempt.provider}, so {wanted.money} cannot"
        )
    refunds = replace(refunds, items=(*refunds.items, wanted))
    if fact.refunding is Refunding.NONE:
        return _by_hand(refunds, wanted, fact.at)
    return Step(refunds)


def _send(refunds: Refunds, fact: Sent) -> Refunds:
    item = _item(refunds, fact.key)
    until, asked = fact.at + fact.timeout, item.move
    if item.status in _OVER or item.vendor_id:
        return refunds
    if asked is None:
        move = Move(key=fact.vendor_key, money=item.money, claimed_until=until, key_until=fact.key_until)
    elif may_resend(item, fact.at):
        move = replace(asked, state=MoveState.SENDING, claim=asked.claim + 1, claimed_until=until)
    else:
        return refunds
    return _with(refunds, replace(item, move=move))


def _fail(refunds: Refunds, fact: Failed) -> Step:
    item = _item(refunds, fact.key)
    asked = item.move
    if asked is None or asked.claim != fact.claim or asked.state is not MoveState.SENDING:
        return Step(refunds)
    # Of a second submission only its own fate is known: the first may have moved the money all the same.
    unknown = fact.error.cause in (Cause.UNKNOWN, Cause.MISMATCH) or asked.claim > 1
    if not unknown and fact.error.cause is not Cause.REJECTED:
        return Step(_with(refunds, replace(item, move=None, error=str(fact.error))))  # nothing happened: ask again
    state = MoveState.UNKNOWN if unknown else MoveState.FAILED
    move = replace(asked, state=state, cause=fact.error.cause, error=str(fact.error))
    item = replace(item, move=move, error=str(fact.error))
    if unknown:
        return Step(_with(refunds, replace(item, status=RefundStatus.UNKNOWN)))
    return _settle(refunds, item, RefundStatus.FAILED, fact.at)


def _see(refunds: Refunds, fact: Seen) -> Step:
    item = _item(refunds, fact.key)
    if item.status in _OVER:
        return _see_again(refunds, item, fact)
    if fact.snapshot is None:
        return _in_vain(refunds, replace(item, looks=item.looks + 1, looked_at=fact.at), fact.at)
    seen, changed = fact.snapshot, fact.snapshot.status is not item.status
    if seen.money is not None and seen.money != item.money:
        strange = f"the vendor says that {seen.money} go back, and not {item.money}"
        item = replace(item, looks=item.looks + 1, looked_at=fact.at, error=strange)
        if item.move and not item.vendor_id:
            move = replace(item.move, state=MoveState.UNKNOWN, cause=Cause.MISMATCH, error=strange)
            item = replace(item, move=move, status=RefundStatus.UNKNOWN)
        return _flagged(refunds, item, fact.at)
    item = replace(
        item,
        vendor_id=seen.vendor_id or item.vendor_id,
        claim_url=seen.claim_url or item.claim_url,
        move=replace(item.move, state=MoveState.DONE, cause=None, error="") if item.move else None,
        looks=0 if changed else item.looks + 1,
        looked_at=fact.at,
        answered_at=fact.at,
        error=seen.reason or item.error,
    )
    if seen.status in (RefundStatus.UNKNOWN, RefundStatus.CREATED):
        return Step(_with(refunds, item))
    if seen.status is RefundStatus.MANUAL_REQUIRED and changed:
        return _by_hand(_with(refunds, item), item, fact.at)
    if seen.status in _OVER:
        return _settle(refunds, item, seen.status, fact.at)
    return Step(_with(refunds, replace(item, status=seen.status)))


def _see_again(refunds: Refunds, item: Refund, fact: Seen) -> Step:
    """What went well may come back after all; what a person settled is not the vendor's to say."""
    if item.note:
        return _compare(refunds, item, fact)
    if item.status in _GONE:
        return Step(refunds)
    item, seen = replace(item, looks=item.looks + 1, looked_at=fact.at), fact.snapshot
    if seen is None:
        return Step(_with(refunds, item))
    item = replace(item, answered_at=fact.at, looks=0)
    if seen.status not in _GONE:
        return Step(_with(refunds, item))
    return _settle(refunds, replace(item, error=seen.reason or item.error), seen.status, fact.at)


def _compare(refunds: Refunds, item: Refund, fact: Seen) -> Step:
    """A person's word stands; where its vendor ends it otherwise, people have to know, for money may go back twice."""
    if not _is_awaited(item):
        return Step(refunds)
    item, seen = replace(item, looks=item.looks + 1, looked_at=fact.at), fact.snapshot
    if seen is None:
        return Step(_with(refunds, item))
    item = replace(item, answered_at=fact.at, confirmed=seen.status in _OVER)
    if not item.confirmed or (seen.status in _GONE) is (item.status in _GONE):
        return Step(_with(refunds, item))
    strange = f"settled as {item.status}, and the vendor says {seen.status}"
    return _flagged(refunds, replace(item, error=strange), fact.at)


def _take_word(refunds: Refunds, fact: Settled) -> Step:
    item = _item(refunds, fact.key)
    if not may_settle(item, sent=fact.sent):
        return Step(refunds)
    item = replace(item, note=fact.note, told=False)
    return _settle(refunds, item, RefundStatus.SUCCEEDED if fact.sent else RefundStatus.FAILED, fact.at)


def _in_vain(refunds: Refunds, item: Refund, at: datetime) -> Step:
    """Once it was looked for a few times, and may not be asked for again, or to no avail, a person has to know."""
    lost = item.move is not None and item.move.state is MoveState.UNKNOWN
    if not lost or item.looks < (len(LOOKS) if may_resend(item, at) else TELL_AFTER):
        return Step(_with(refunds, item))
    return _flagged(refunds, item, at)


def _flagged(refunds: Refunds, item: Refund, at: datetime) -> Step:
    """Told once: whether the money went back, only a person can find out."""
    if item.told:
        return Step(_with(refunds, item))
    event = PaymentFlagged(
        id=_event_id(refunds, item, f"{refunds.version + 1}/{PaymentFlagged.type}/{Anomaly.REFUND_UNKNOWN}"),
        reference=refunds.reference,
        at=at,
        anomaly=Anomaly.REFUND_UNKNOWN,
        provider=item.provider,
        vendor_id=item.vendor_id,
        received=item.money,
    )
    return Step(_with(refunds, replace(item, told=True)), (event,))


def _by_hand(refunds: Refunds, item: Refund, at: datetime) -> Step:
    waiting = _with(refunds, replace(item, status=RefundStatus.MANUAL_REQUIRED))
    event = RefundByHand(
        id=_event_id(refunds, item, RefundByHand.type),
        reference=refunds.reference,
        at=at,
        key=item.key,
        money=item.money,
        provider=item.provider,
        claim_url=item.claim_url,
    )
    return Step(waiting, (event,))


def _settle(refunds: Refunds, item: Refund, status: RefundStatus, at: datetime) -> Step:
    was = _item(refunds, item.key).status
    if was is status or (was in _GONE and status in _GONE):
        return Step(refunds)
    settled = _with(refunds, replace(item, status=status, settled_at=at))
    id, reference = _event_id(refunds, item, str(status)), refunds.reference
    event: Event
    if status is RefundStatus.SUCCEEDED:
        event = PaymentRefunded(
            id=id, reference=reference, at=at, key=item.key, money=item.money, provider=item.provider
        )
    else:
        event = RefundFailed(
            id=id,
            reference=reference,
            at=at,
            key=item.key,
            money=item.money,
            provider=item.provider,
            reason=item.error,
        )
    return Step(settled, (event,))


def _pass(refunds: Refunds, fact: Passed) -> Refunds:
    for item in refunds.items:
        asked = item.move
        if asked and asked.state is MoveState.SENDING and fact.at > asked.claimed_until + CLAIM_MARGIN:
            lost = replace(asked, state=MoveState.UNKNOWN, cause=Cause.UNKNOWN, error="no answer was recorded")
            refunds = _with(refunds, replace(item, move=lost, status=RefundStatus.UNKNOWN))
    return refunds


def may_resend(item: Refund, now: datetime) -> bool:
    """The vendor surely remembers the key, so that asking again sends nothing twice."""
    return item.move is not None and item.move.may_be_repeated(now)


def is_open(item: Refund) -> bool:
    """Whether anything can still be learned of it by asking the vendor."""
    return item.status not in _OVER and not (item.status is RefundStatus.MANUAL_REQUIRED and not item.vendor_id)


def may_settle(item: Refund, *, sent: bool) -> bool:
    """A person's word counts: its vendor cannot say, or said otherwise than a person did, who is asked once more."""
    same = item.status is (RefundStatus.SUCCEEDED if sent else RefundStatus.FAILED)
    unclear = item.status in (RefundStatus.MANUAL_REQUIRED, RefundStatus.UNKNOWN) or (item.told and item.note != "")
    return same or unclear


def _is_awaited(item: Refund) -> bool:
    """A person settled it, and its vendor, which holds it too, has yet to say what became of it."""
    return item.note != "" and item.vendor_id != "" and item.status in _OVER and not item.confirmed


def next_look(item: Refund) -> datetime | None:
    """When the sweep is to look at it again; None: never."""
    if _is_awaited(item):
        return (item.looked_at or item.created_at) + LOOKS[min(item.looks, len(LOOKS) - 1)]
    if item.status is RefundStatus.SUCCEEDED and item.vendor_id and item.settled_at and not item.note:
        seen = max(item.settled_at, item.answered_at or item.settled_at)
        due = next((moment for after in RECALLS if (moment := item.settled_at + after) > seen), None)
        if due is None or item.looked_at is None or item.looked_at < due:
            return due
        return item.looked_at + LOOKS[min(item.looks, len(LOOKS) - 1)]  # it could not be asked then
    if not is_open(item):
        return None
    if item.move and item.move.state is MoveState.SENDING:
        return item.move.claimed_until + CLAIM_MARGIN
    return (item.looked_at or item.created_at) + LOOKS[min(item.looks, len(LOOKS) - 1)]


def _item(refunds: Refunds, key: str) -> Refund:
    item = refunds.get(key)
    if item is None:
        raise LookupError(f"payment {refunds.reference} has no refund {key}")
    return item


def _with(refunds: Refunds, item: Refund) -> Refunds:
    return replace(refunds, items=tuple(item if old.key == item.key else old for old in refunds.items))


def _event_id(refunds: Refunds, item: Refund, kind: str) -> str:
    return f"refund/{refunds.reference}/{item.key}/{kind}"


# The record.

_ADAPTER = TypeAdapter(Refunds)


def encode(refunds: Refunds) -> Draft:
    """The refunds of a payment, and when they want to be looked at."""
    moments: Sequence[datetime] = [moment for item in refunds.items if (moment := next_look(item)) is not None]
    return Draft(
        value=_ADAPTER.dump_python(refunds, mode="json", exclude={"version"}),
        index={
            "vendor": [f"{item.provider}/{item.vendor_id}" for item in refunds.items if item.vendor_id],
            "settled_in": sorted({hour(item.settled_at) for item in refunds.items if item.settled_at}),
            "open_at": sorted({item.provider for item in refunds.items if is_open(item) or _is_awaited(item)}),
        },
        due_at=min(moments, default=None),
        subject=refunds.reference,
    )


def decode(record: Record) -> Refunds:
    """The inverse of `encode`."""
    return replace(_ADAPTER.validate_python(dict(record.value)), version=record.version)
