"""What to do next about a payment, as pure functions: for a caller who wants an offer, and for who looks after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from holdfast.outcome import Cause, Effect
from holdfast.payments.keys import is_remembered
from holdfast.payments.models import Attempt, AttemptState, Capture, MoveState, Payment, PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup
from holdfast.resilience.decide import Circumstances, Next, Resolve, decide

S = PaymentStatus

CLAIM_MARGIN: Final = timedelta(seconds=5)
"""An answer may be this much later than its timeout before the claim is given up."""

UNKNOWN_LOOKS: Final = tuple(timedelta(seconds=after) for after in (5, 30, 300, 3600, 86_400))
"""When, after the claim, an attempt without an answer is looked up; then daily while it may still be paid."""

SUBMISSIONS: Final = 3
"""How often one creation is asked for under one key, when its answers are lost."""


# For a caller who wants an offer.


@dataclass(frozen=True, slots=True)
class Show:
    """There is an offer, or an end: give the payment to the caller."""


@dataclass(frozen=True, slots=True)
class Start:
    """Ask this provider next."""

    provider: str


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Ask the same provider for the same once more, under the same key."""

    number: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Another process is asking; its answer arrives in the record."""

    until: datetime


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find out by the vendor's id, else by our own, what became of the attempt, before anything else is tried."""

    number: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Take this offer back: nobody is to pay it any more."""

    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left to try; `unknown` is the attempt whose outcome is still being found out."""

    unknown: int | None


Action = Show | Start | Resubmit | Wait | LookUp | Revoke | GiveUp


def todo(
    payment: Payment,
    order: Sequence[str],
    capabilities: Mapping[str, Capabilities],
    *,
    failed: frozenset[str],
    now: datetime,
) -> Action:
    """What a caller who wants an offer does next.

    `order` is the route: nothing new is asked of anybody else. `failed` are the providers that already failed in this
    call, so that a later call may try them anew. A provider with an attempt that may exist is never asked for a second
    one, and what may be paid once more is revoked before anything else is offered.
    """
    action = _action(payment, order, capabilities, failed=failed, now=now)
    again = may_be_paid_again(payment, capabilities)
    return Revoke(again) if isinstance(action, Start) and again is not None else action


def _action(
    payment: Payment,
    order: Sequence[str],
    capabilities: Mapping[str, Capabilities],
    *,
    failed: frozenset[str],
    now: datetime,
) -> Action:
    if payment.status is S.HELD:
        return Show()
    if payment.status in (S.PAID, S.EXPIRED, S.CANCELED):
        return Show()
    if not payment.attempts:
        return _start_next(payment, order, failed, unknown=None)
    last = payment.attempts[-1]
    if last.state is AttemptState.OFFERED:
        return Show()
    if last.state is AttemptState.CLOSED:
        return _start_next(payment, order, failed, unknown=None)
    if last.state is AttemptState.SENDING:
        return Wait(last.claimed_until)
    able = capabilities.get(last.provider)
    if last.state is AttemptState.UNKNOWN and able:
        if last.provider in order and last.provider not in failed and may_resubmit(last, now):
            return Resubmit(last.number)
        if _is_worth_a_look(last, now) and _findable(last, able):
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


def may_resubmit(attempt: Attempt, now: datetime) -> bool:
    """The vendor surely remembers the key, so that asking again cannot have a second effect."""
    return (
        is_remembered(attempt.key_until, now)
        and now < attempt.expires_at
        and attempt.claim < SUBMISSIONS
        and attempt.cause is not Cause.MISMATCH
        and not attempt.vendor_id
    )


def _is_worth_a_look(attempt: Attempt, now: datetime) -> bool:
    """Nobody looked for it lately: who asks again need not wait for the sweep."""
    return not attempt.looks or attempt.looked_at is None or now - attempt.looked_at >= UNKNOWN_LOOKS[0]


def _findable(attempt: Attempt, able: Capabilities) -> bool:
    """Looking can tell something new; of an object that is not what we asked for it cannot."""
    return attempt.cause is not Cause.MISMATCH and (bool(attempt.vendor_id) or able.lookup is not Lookup.NONE)


def _untried(payment: Payment, order: Sequence[str], failed: frozenset[str]) -> list[str]:
    over = (AttemptState.FAILED, AttemptState.CLOSED)
    alive = {attempt.provider for attempt in payment.attempts if attempt.state not in over}
    return [name for name in order if name not in failed and name not in alive]


def is_moving(attempt: Attempt) -> bool:
    """Money of it is on its way, or may be: the payer is asked for no other meanwhile."""
    asked = attempt.capture is not None and attempt.capture.state in (MoveState.SENDING, MoveState.UNKNOWN)
    held = attempt.status is S.AUTHORIZED and not attempt.withdrawn
    return asked or held or attempt.status in (S.PROCESSING, S.PARTIALLY_PAID)


def may_be_paid_again(payment: Payment, capabilities: Mapping[str, Capabilities]) -> int | None:
    """The attempt that failed and, as its vendor ends nothing by itself, may be paid once more."""
    for attempt in payment.attempts:
        able = capabilities.get(attempt.provider)
        if able and _may_be_paid_again(able, attempt):
            return attempt.number
    return None


def _may_be_paid_again(able: Capabilities, attempt: Attempt) -> bool:
    return able.open_ended and attempt.vendor_id != "" and attempt.status is S.FAILED


def _start_next(payment: Payment, order: Sequence[str], failed: frozenset[str], *, unknown: int | None) -> Action:
    moving = next((attempt.number for attempt in payment.attempts if is_moving(attempt)), None)
    if moving is not None:
        return GiveUp(moving)
    left = _untried(payment, order, failed)
    return Start(left[0]) if left else GiveUp(unknown)


# For who looks after it.


@dataclass(frozen=True, slots=True)
class SetAside:
    """Have the vendor set aside what the payer agreed to, for somebody to capture."""

    number: int


@dataclass(frozen=True, slots=True)
class MoveMoney:
    """Have the vendor move what the payer agreed to, under the key it was asked with before, if it was."""

    number: int


@dataclass(frozen=True, slots=True)
class Check:
    """Ask the caller's check whether the money that came in may count."""


Chore = Revoke | SetAside | MoveMoney | Check


def chores(payment: Payment, capabilities: Mapping[str, Capabilities], now: datetime) -> list[Chore]:
    """What is to be done without anybody asking for it."""
    found: list[Chore] = []
    if payment.status is S.HELD and not payment.screened and any(attempt.paid for attempt in payment.attempts):
        found.append(Check())
    for attempt in payment.attempts:
        able = capabilities.get(attempt.provider)
        if able is None:
            continue
        if can_revoke(able, attempt) and (is_unwanted(payment, attempt, able) or is_overdue(able, attempt, now)):
            found.append(Revoke(attempt.number))
        elif able.authorizes and is_to_be_set_aside(payment, attempt):
            found.append(SetAside(attempt.number))
        elif is_to_be_captured(payment, attempt, able, now):
            found.append(MoveMoney(attempt.number))
    return found


def can_revoke(able: Capabilities, attempt: Attempt) -> bool:
    """Its vendor proves that no money of it will move."""
    return able.revocable or (able.releasable and attempt.status is S.AUTHORIZED)


def is_to_be_set_aside(payment: Payment, attempt: Attempt) -> bool:
    """The payer agreed, and what is captured by hand is not set aside yet."""
    wanted = payment.capture is Capture.MANUAL and attempt.status is S.APPROVED and not attempt.withdrawn
    return wanted and attempt.number == len(payment.attempts) and payment.status not in (S.PAID, S.CANCELED, S.HELD)


def is_unwanted(payment: Payment, attempt: Attempt, able: Capabilities) -> bool:
    """It can be paid, and must not be: something else was paid or is being offered."""
    alive = attempt.state in (AttemptState.OFFERED, AttemptState.UNKNOWN) or attempt.status is S.AUTHORIZED
    alive = alive or _may_be_paid_again(able, attempt)
    if not attempt.vendor_id or attempt.paid or not alive:
        return False
    unwanted = attempt.withdrawn or payment.status in (S.PAID, S.CANCELED)
    if attempt.capture and attempt.capture.state is not MoveState.FAILED:
        return unwanted and attempt.capture.state is MoveState.UNKNOWN  # its end proves what became of the money
    return unwanted or attempt.number != len(payment.attempts)


def is_given_up(payment: Payment, attempt: Attempt) -> bool:
    """We never ask for its money any more: nobody wants it, or money came in otherwise."""
    return attempt.withdrawn or any(other.paid for other in payment.attempts if other.number != attempt.number)


def is_overdue(able: Capabilities, attempt: Attempt, now: datetime) -> bool:
    """Its time is over, and its vendor does not end it by itself."""
    waits = attempt.state is AttemptState.OFFERED and attempt.status in (S.PENDING, S.UNKNOWN)
    return able.open_ended and waits and now >= attempt.expires_at + able.grace


def is_to_be_captured(payment: Payment, attempt: Attempt, able: Capabilities, now: datetime) -> bool:
    """The payer agreed, and the money waits for us to move it, or we lost the vendor's answer when we asked."""
    if is_given_up(payment, attempt) or attempt.status not in (S.APPROVED, S.AUTHORIZED):
        return False
    if attempt.capture is not None:
        return attempt.capture.may_be_repeated(now)
    wanted = payment.capture is Capture.AUTO and able.captures and attempt.status is S.APPROVED
    last = attempt.number == len(payment.attempts)
    return wanted and last and payment.status not in (S.PAID, S.CANCELED, S.HELD)


def next_look(payment: Payment, capabilities: Mapping[str, Capabilities], poll: Sequence[timedelta]) -> datetime | None:
    """When the sweep is to look at this payment again; None: never, it is over."""
    moments = [
        moment
        for attempt in payment.attempts
        if (moment := _attempt_look(attempt, capabilities.get(attempt.provider), poll)) is not None
    ]
    if payment.status is S.HELD and not payment.screened:
        moments += [attempt.looked_at + poll[0] for attempt in payment.attempts if attempt.paid and attempt.looked_at]
    return min(moments, default=None)


def _attempt_look(attempt: Attempt, able: Capabilities | None, poll: Sequence[timedelta]) -> datetime | None:
    able = able or Capabilities(currencies=None)
    over = attempt.expires_at + able.grace
    looked = attempt.looked_at or attempt.claimed_at
    if attempt.capture and attempt.capture.state is MoveState.SENDING:
        return attempt.capture.claimed_until + CLAIM_MARGIN
    match attempt.state:
        case AttemptState.SENDING:
            return attempt.claimed_until + CLAIM_MARGIN
        case AttemptState.UNKNOWN if not attempt.vendor_id and able.lookup is Lookup.NONE:
            return over
        case AttemptState.UNKNOWN if not attempt.vendor_id and looked < over:
            first = attempt.looks < len(UNKNOWN_LOOKS)
            moment = attempt.claimed_at + UNKNOWN_LOOKS[attempt.looks] if first else looked + UNKNOWN_LOOKS[-1]
            return min(moment, over)
        case AttemptState.UNKNOWN | AttemptState.OFFERED:
            moment = looked + poll[min(attempt.looks, len(poll) - 1)]
            return min(moment, over) if looked < over else moment
        case AttemptState.CLOSED if attempt.status is S.PROCESSING:
            return looked + poll[-1]  # late money, on its way
        case AttemptState.CLOSED if attempt.status is S.AUTHORIZED:
            return looked + poll[min(attempt.looks, len(poll) - 1)]  # nobody wants it: it is to be let go of
        case AttemptState.CLOSED if not attempt.vendor_id and able.lookup is not Lookup.NONE:
            # A person gave it up before its end: whether it is there after all is asked once after that.
            if (attempt.answered_at or attempt.claimed_at) >= over:
                return None
            return over if looked < over else looked + UNKNOWN_LOOKS[min(attempt.looks, len(UNKNOWN_LOOKS) - 1)]
        case AttemptState.CLOSED if attempt.vendor_id and not attempt.paid:
            answered = attempt.answered_at or looked
            late = (attempt.expires_at + after for after in able.late_looks)
            due = next((moment for moment in late if moment > answered), None)
            if due is None or looked < due:
                return due
            return looked + UNKNOWN_LOOKS[min(attempt.looks, len(UNKNOWN_LOOKS) - 1)]  # it could not be asked then
        case _:
            return None
