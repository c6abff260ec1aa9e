"""The life of a dispatch as a pure function: `step(dispatch, fact)`, and what to do next, `todo(dispatch)`.

Nothing here waits or calls. The client performs what `todo` says, feeds back what it learned, and commits after
every step; so going on after a crash is the same path as the first time.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast.errors import CallFailed
from holdfast.notifications.models import Channel, Dispatch, DispatchState, Submission
from holdfast.notifications.provider import Capabilities
from holdfast.outcome import Cause, Effect
from holdfast.resilience.decide import Circumstances, Next, decide

S = DispatchState

ACCEPTED = "accepted"
MOVED = "moved"

CLAIM_MARGIN = timedelta(seconds=5)
"""An answer may be this much later than its timeout before the submission is given up."""

WAITS = tuple(timedelta(seconds=after) for after in (5, 15, 30, 60, 120, 300, 600, 900))
"""After a round in which every channel failed, the next one comes so much later; the last one repeats."""

TEMPORARY = frozenset({Cause.NOT_SENT, Cause.THROTTLED, Cause.REFUSED, Cause.UNKNOWN})
"""Failures after which the same message to the same address may well be taken."""


# Facts: what was learned.


@dataclass(frozen=True, kw_only=True, slots=True)
class Began:
    """A provider was chosen; the submission is committed before its first byte."""

    at: datetime
    provider: str
    channel: Channel
    address: str
    timeout: timedelta
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """The provider took the message; true whenever it is heard, also after we gave up waiting."""

    at: datetime
    number: int
    vendor_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Redirected:
    """The provider sent nothing and named another address of the recipient."""

    at: datetime
    number: int
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A submission failed, with what that proves."""

    at: datetime
    number: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Deferred:
    """Every channel was tried in vain, at least one of them may work later."""

    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenUp:
    """No channel will ever take it."""

    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """Time went by: submissions run out, messages expire."""

    at: datetime


Fact = Began | Took | Redirected | Failed | Deferred | GivenUp | Passed


def step(dispatch: Dispatch, fact: Fact) -> Dispatch:
    """The dispatch as it is once `fact` is known; unchanged when the fact is old news."""
    match fact:
        case Began():
            return _begin(dispatch, fact)
        case Took():
            taken = replace(_submission(dispatch, fact.number), outcome=ACCEPTED, vendor_id=fact.vendor_id)
            return replace(_with(dispatch, taken), state=S.ACCEPTED, reason="", retry_at=None)
        case Redirected():
            return _redirect(dispatch, fact)
        case Failed():
            return _fail(dispatch, fact)
        case Deferred():
            return _defer(dispatch, fact.at)
        case GivenUp():
            reason = next((one.reason for one in reversed(dispatch.submissions) if one.reason), "")
            return replace(dispatch, state=S.FAILED, reason=dispatch.reason or reason, retry_at=None)
        case Passed():
            return _pass(dispatch, fact.at)


# Actions: what to do next.


@dataclass(frozen=True, slots=True)
class Show:
    """It is over, one way or the other: give the dispatch to the caller."""


@dataclass(frozen=True, slots=True)
class Start:
    """Hand the message to this provider."""

    provider: str
    providers_left: int
    """How many may still be asked in this round, this one included; they share the deadline."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else is submitting it; the answer arrives in the record."""


@dataclass(frozen=True, slots=True)
class Defer:
    """No channel takes it now, one may later."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No channel takes it."""


Action = Show | Start | Wait | Defer | GiveUp


def todo(
    dispatch: Dispatch, chain: Sequence[str], *, failed: AbstractSet[str], now: datetime, later: Sequence[str] = ()
) -> Action:
    """What whoever wants it told does next.

    `chain` holds the providers that reach the recipient, in order; `failed` those that already failed in this round;
    `later` those that are switched off, for now. One that said no is never asked again, one that asked for patience not
    before its time.
    """
    if dispatch.state in (S.ACCEPTED, S.DELIVERED, S.UNKNOWN):
        return Show()
    if dispatch.reason == "expired":
        return GiveUp()
    last = dispatch.submissions[-1] if dispatch.submissions else None
    if last and not last.outcome:
        return Wait()
    left = [name for name in chain if name not in failed and _may_try(dispatch, name, now)]
    if left and (last is None or last.provider not in failed or _moves_on(dispatch, last, len(left))):
        return Start(left[0], len(left))
    # An empty chain is a program without its provider, which the next deploy may bring back.
    return (
        Defer() if not (chain or later) or any(_may_recover(dispatch, name) for name in (*chain, *later)) else GiveUp()
    )


def next_look(dispatch: Dispatch) -> datetime | None:
    """When the sweep is to look at it again; None: never."""
    if dispatch.submissions and not dispatch.submissions[-1].outcome:
        return dispatch.submissions[-1].until + CLAIM_MARGIN
    return dispatch.retry_at if dispatch.state is S.QUEUED else None


def effect_of(dispatch: Dispatch, capabilities: Capabilities) -> Effect:
    """As what sending is declared: unless it must not be told twice, a lost answer is answered by telling again."""
    if capabilities.effect is not Effect.ONCE or dispatch.message.once:
        return capabilities.effect
    return Effect.IDEMPOTENT


def address_of(dispatch: Dispatch, channel: Channel) -> str:
    """Where the recipient is reached on this channel, as far as the vendors have told us."""
    return dispatch.moved.get(channel) or dispatch.recipient.on(channel) or ""


# How.


def _begin(dispatch: Dispatch, fact: Began) -> Dispatch:
    submission = Submission(
        number=len(dispatch.submissions) + 1,
        provider=fact.provider,
        channel=fact.channel,
        address=fact.address,
        started_at=fact.at,
        until=fact.at + fact.timeout,
        why=fact.why,
    )
    return replace(dispatch, state=S.SENDING, submissions=(*dispatch.submissions, submission), reason="", retry_at=None)


def _redirect(dispatch: Dispatch, fact: Redirected) -> Dispatch:
    submission = _submission(dispatch, fact.number)
    if submission.outcome:
        return dispatch
    if submission.channel in dispatch.moved:
        # Once is a move, twice is a merry-go-round.
        gone = replace(submission, outcome=Cause.REJECTED.value, reason="recipient_moved", error="it moved twice")
        return _queued(_with(dispatch, gone), fact.at)
    return _queued(_with(dispatch, replace(submission, outcome=MOVED, moved_to=fact.address)), fact.at)


def _fail(dispatch: Dispatch, fact: Failed) -> Dispatch:
    submission, error = _submission(dispatch, fact.number), fact.error
    if submission.outcome:
        return dispatch
    failed = replace(
        submission,
        outcome=error.cause.value,
        reason=error.reason,
        error=str(error),
        not_before=fact.at + timedelta(seconds=error.retry_after) if error.retry_after else None,
    )
    return _ended(_with(dispatch, failed), error.cause, fact.at)


def _ended(dispatch: Dispatch, cause: Cause, at: datetime) -> Dispatch:
    if cause is Cause.UNKNOWN and dispatch.message.once:
        return replace(dispatch, state=S.UNKNOWN, retry_at=None)
    return _queued(dispatch, at)


def _queued(dispatch: Dispatch, at: datetime) -> Dispatch:
    """Whoever sends it goes on at once; should they die first, the sweep does."""
    if dispatch.state in (S.ACCEPTED, S.DELIVERED):
        return dispatch
    return replace(dispatch, state=S.QUEUED, retry_at=at + WAITS[0])


def _defer(dispatch: Dispatch, at: datetime) -> Dispatch:
    wait = at + WAITS[min(dispatch.rounds, len(WAITS) - 1)]
    patience = [one.not_before for one in _latest(dispatch) if one.not_before]
    everybody_asked_for_it = patience and len(patience) == len(_latest(dispatch))
    retry_at = max(wait, min(patience)) if everybody_asked_for_it else wait
    return replace(
        dispatch, state=S.QUEUED, rounds=dispatch.rounds + 1, retry_at=min(retry_at, max(dispatch.expires_at, at))
    )


def _pass(dispatch: Dispatch, at: datetime) -> Dispatch:
    for submission in dispatch.submissions:
        if not submission.outcome and at > submission.until + CLAIM_MARGIN:
            lost = replace(submission, outcome=Cause.UNKNOWN.value, error="no answer was recorded")
            dispatch = _ended(_with(dispatch, lost), Cause.UNKNOWN, at)
    if dispatch.state is S.QUEUED and at >= dispatch.expires_at:
        maybe = any(one.outcome == Cause.UNKNOWN for one in dispatch.submissions)
        return replace(dispatch, state=S.UNKNOWN if maybe else S.FAILED, reason="expired", retry_at=None)
    return dispatch


def _moves_on(dispatch: Dispatch, last: Submission, providers_left: int) -> bool:
    """Whether the next channel may be asked after this failure of the last one."""
    decision = decide(
        Cause(last.outcome),
        Effect.ONCE,  # another provider knows nothing of the first one's key
        Circumstances(providers_left=providers_left, unknown_may_move=not dispatch.message.once, elsewhere=True),
    )
    return isinstance(decision, Next)


def _may_try(dispatch: Dispatch, provider: str, now: datetime) -> bool:
    last = _last_of(dispatch, provider)
    if last is None:
        return True
    patient = last.not_before is None or last.not_before <= now
    return patient and last.outcome not in (Cause.REJECTED, Cause.MISMATCH)


def _may_recover(dispatch: Dispatch, provider: str) -> bool:
    last = _last_of(dispatch, provider)
    if last is None:
        return True  # not asked, for want of time
    # A refused credential is the caller's to hear; once the message waits in the queue, it is for the operator to mend.
    return last.outcome in TEMPORARY or (dispatch.rounds > 0 and last.outcome == Cause.CREDENTIAL)


def _latest(dispatch: Dispatch) -> list[Submission]:
    """The last submission to each provider that may take it later."""
    latest = {one.provider: one for one in dispatch.submissions}
    return [one for name, one in latest.items() if _may_recover(dispatch, name)]


def _last_of(dispatch: Dispatch, provider: str) -> Submission | None:
    return next((one for one in reversed(dispatch.submissions) if one.provider == provider), None)


def _submission(dispatch: Dispatch, number: int) -> Submission:
    return dispatch.submissions[number - 1]


def _with(dispatch: Dispatch, submission: Submission) -> Dispatch:
    submissions = tuple(submission if old.number == submission.number else old for old in dispatch.submissions)
    return replace(dispatch, submissions=submissions)
