"""The life of a meeting as a pure function: `step(meeting, fact)`, and what to do next, `todo` and `tidy`.

Nothing here waits or calls. The client performs what `todo` says, feeds back what it learned, and commits after
every step; so resuming after a crash is the same path as the first time.

The first attempt that is made becomes the meeting. Any other that exists, or may exist, is an orphan: it is looked
for, and deleted. That is why an unknown outcome may move on to the next provider here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast.errors import CallFailed
from holdfast.meetings.models import Meeting, MeetingAttempt, MeetingSnapshot, MeetingStatus, TryState
from holdfast.meetings.provider import Capabilities, CreateSemantics
from holdfast.outcome import Cause, Effect
from holdfast.queue.events import Event
from holdfast.resilience.decide import Circumstances, Decision, Next, decide

S = MeetingStatus

LOOKS = (
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=6),
    timedelta(hours=24),
)
"""When, after its claim, an attempt without an answer is searched for; not found by the last look, it is absent."""

AGAIN = timedelta(seconds=30)
"""How soon a look that got no answer is repeated."""

DELETIONS = (timedelta(0), *LOOKS)
"""How long to wait after each try to delete an orphan that failed; the last one for ever."""

QUIET_LOOKS = 2
"""After so many looks in vain a caller who asks again may have another attempt at the same provider."""

_OVER = frozenset({S.SCHEDULED, S.STARTED, S.ENDED, S.CANCELED})
_EFFECTS = {CreateSemantics.REMOTE_KEY: Effect.KEYED, CreateSemantics.NATURAL_KEY: Effect.IDEMPOTENT}


# Facts: what was learned.


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A provider was chosen; the attempt is committed before its first byte."""

    at: datetime
    provider: str
    token: str
    timeout: timedelta
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The provider made the meeting."""

    at: datetime
    number: int
    snapshot: MeetingSnapshot
    capabilities: Capabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class TryFailed:
    """The attempt failed, with what that proves."""

    at: datetime
    number: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedUp:
    """The provider was searched for the attempt's token; `None`: it shows nothing, which proves little."""

    at: datetime
    number: int
    snapshot: MeetingSnapshot | None
    capabilities: Capabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreachable:
    """The provider could not be asked to look or to delete."""

    at: datetime
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted:
    """The attempt's meeting is gone."""

    at: datetime
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Canceled:
    """The caller wants the meeting no more."""

    at: datetime


Fact = Started | Made | TryFailed | LookedUp | Unreachable | Deleted | Canceled


@dataclass(frozen=True, slots=True)
class Step:
    """The meeting after a fact, and what the fact means to the world."""

    meeting: Meeting
    events: tuple[Event, ...] = ()


def step(meeting: Meeting, fact: Fact) -> Step:
    """The meeting as it is once `fact` is known; unchanged when the fact is old news."""
    after = _learn(meeting, fact)
    return Step(replace(after, status=_status(after)))


def _learn(meeting: Meeting, fact: Fact) -> Meeting:
    match fact:
        case Started():
            return _start(meeting, fact)
        case Made():
            return _make(meeting, fact)
        case TryFailed():
            return _fail(meeting, fact)
        case LookedUp():
            return _look_up(meeting, fact)
        case Unreachable():
            return _unreachable(meeting, fact)
        case Deleted():
            return _with(meeting, replace(_attempt(meeting, fact.number), state=TryState.DELETED))
        case Canceled():
            return replace(meeting, status=S.CANCELED)


# Actions: what to do next.


@dataclass(frozen=True, slots=True)
class Show:
    """There is a meeting, or an end: give it to the caller."""


@dataclass(frozen=True, slots=True)
class Start:
    """Ask this provider next."""

    provider: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Another call is asking; its answer arrives in the record, or the claim runs out."""

    number: int
    until: datetime


@dataclass(frozen=True, slots=True)
class LookUp:
    """Search the provider for the attempt's token."""

    number: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the attempt's meeting: it is not, or no longer, the one guests were given."""

    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left to try; `unknown` is the attempt whose outcome is still being found out."""

    unknown: int | None


Action = Show | Start | Wait | LookUp | GiveUp


def todo(
    meeting: Meeting,
    order: Sequence[str],
    capabilities: Mapping[str, Capabilities],
    *,
    failed: frozenset[str],
    now: datetime,
) -> Action:
    """What a caller who wants the link does next.

    `order` is the route; `failed` are the providers that already failed in this call, so that a later call may try
    them anew.
    """
    if meeting.status in _OVER:
        return Show()
    for attempt in meeting.attempts:
        if attempt.state is TryState.SENDING and now < attempt.claimed_until:
            return Wait(attempt.number, attempt.claimed_until)
    for attempt in meeting.attempts:
        if _may_exist(attempt) and _searchable(attempt, capabilities) and _worth_a_look(attempt, now):
            return LookUp(attempt.number)
    left = [name for name in order if name not in failed and not _orphaned(meeting, name)]
    unknown = next((attempt.number for attempt in reversed(meeting.attempts) if _may_exist(attempt)), None)
    last = meeting.attempts[-1] if meeting.attempts else None
    if last and last.provider in failed and not isinstance(_decision(last, capabilities, len(left)), Next):
        return GiveUp(unknown)
    return Start(left[0]) if left else GiveUp(unknown)


def tidy(meeting: Meeting, *, now: datetime) -> Delete | LookUp | None:
    """What the sweep does next about this meeting; None: nothing is due."""
    for attempt in meeting.attempts:
        due = _due(meeting, attempt)
        if due is not None and due <= now:
            return Delete(attempt.number) if attempt.state is TryState.MADE else LookUp(attempt.number)
    return None


def next_look(meeting: Meeting) -> datetime | None:
    """When the sweep is to look at this meeting again; None: never, nothing is open."""
    moments = [due for attempt in meeting.attempts if (due := _due(meeting, attempt)) is not None]
    return min(moments, default=None)


def _decision(last: MeetingAttempt, capabilities: Mapping[str, Capabilities], providers_left: int) -> Decision:
    able = capabilities.get(last.provider)
    return decide(
        last.cause or Cause.UNKNOWN,
        _EFFECTS.get(able.create, Effect.ONCE) if able else Effect.ONCE,
        Circumstances(
            providers_left=providers_left,
            elsewhere=able is not None and last.code in able.elsewhere,
            unknown_may_move=True,
        ),
    )


def _due(meeting: Meeting, attempt: MeetingAttempt) -> datetime | None:
    looked = attempt.looked_at
    match attempt.state:
        case TryState.SENDING | TryState.UNKNOWN:
            scheduled = attempt.claimed_at + LOOKS[attempt.looks]
            return max(scheduled, looked + AGAIN) if looked else scheduled
        case TryState.MADE if meeting.status is S.CANCELED or not _is_current(meeting, attempt):
            return (looked or attempt.claimed_at) + DELETIONS[min(attempt.looks, len(DELETIONS) - 1)]
        case _:
            return None


def _may_exist(attempt: MeetingAttempt) -> bool:
    return attempt.state in (TryState.SENDING, TryState.UNKNOWN)


def _searchable(attempt: MeetingAttempt, capabilities: Mapping[str, Capabilities]) -> bool:
    able = capabilities.get(attempt.provider)
    return able is not None and able.create not in (CreateSemantics.BLIND, CreateSemantics.LOCAL)


def _worth_a_look(attempt: MeetingAttempt, now: datetime) -> bool:
    """Once at once, then as the sweep does: what was not found a moment ago is not there now."""
    return attempt.looked_at is None or now >= max(attempt.claimed_at + LOOKS[attempt.looks], attempt.looked_at + AGAIN)


def _orphaned(meeting: Meeting, provider: str) -> bool:
    """An attempt there may exist: another one could make two."""
    open_ones = (attempt for attempt in meeting.attempts if attempt.provider == provider and _may_exist(attempt))
    return any(attempt.looks < QUIET_LOOKS for attempt in open_ones)


# The steps themselves.


def _start(meeting: Meeting, fact: Started) -> Meeting:
    attempt = MeetingAttempt(
        number=len(meeting.attempts) + 1,
        provider=fact.provider,
        token=fact.token,
        state=TryState.SENDING,
        claimed_at=fact.at,
        claimed_until=fact.at + fact.timeout,
        why=fact.why,
    )
    return replace(meeting, attempts=(*meeting.attempts, attempt))


def _make(meeting: Meeting, fact: Made) -> Meeting:
    attempt = _attempt(meeting, fact.number)
    if attempt.state in (TryState.MADE, TryState.DELETED):
        return meeting
    made = replace(attempt, state=TryState.MADE, vendor_id=fact.snapshot.vendor_id, cause=None, code="", error="")
    meeting = _with(meeting, replace(made, looks=0, looked_at=None))
    if meeting.vendor_id or meeting.status is S.CANCELED:
        return meeting
    return replace(
        meeting,
        provider=attempt.provider,
        vendor_id=fact.snapshot.vendor_id,
        join_url=fact.snapshot.join_url,
        degraded=meeting.prefer - fact.capabilities.features,
    )


def _fail(meeting: Meeting, fact: TryFailed) -> Meeting:
    attempt = _attempt(meeting, fact.number)
    if attempt.state is not TryState.SENDING:
        return meeting
    unknown = fact.error.cause in (Cause.UNKNOWN, Cause.MISMATCH)
    state = TryState.UNKNOWN if unknown else TryState.FAILED
    why = replace(attempt, state=state, cause=fact.error.cause, code=fact.error.code, error=str(fact.error))
    return _with(meeting, why)


def _look_up(meeting: Meeting, fact: LookedUp) -> Meeting:
    attempt = _attempt(meeting, fact.number)
    if not _may_exist(attempt):
        return meeting
    if fact.snapshot and fact.snapshot.token == attempt.token:
        return _make(
            meeting, Made(at=fact.at, number=fact.number, snapshot=fact.snapshot, capabilities=fact.capabilities)
        )
    looks = attempt.looks + (fact.at >= attempt.claimed_at + LOOKS[attempt.looks])
    state = TryState.ABSENT if looks == len(LOOKS) else TryState.UNKNOWN
    return _with(
        meeting, replace(attempt, state=state, cause=attempt.cause or Cause.UNKNOWN, looks=looks, looked_at=fact.at)
    )


def _unreachable(meeting: Meeting, fact: Unreachable) -> Meeting:
    attempt = _attempt(meeting, fact.number)
    if attempt.state is TryState.MADE:
        return _with(meeting, replace(attempt, looks=attempt.looks + 1, looked_at=fact.at))
    return _with(meeting, replace(attempt, looked_at=fact.at)) if _may_exist(attempt) else meeting


def _status(meeting: Meeting) -> MeetingStatus:
    if meeting.status in (S.CANCELED, S.STARTED, S.ENDED):
        return meeting.status
    if meeting.vendor_id:
        return S.SCHEDULED
    states = {attempt.state for attempt in meeting.attempts}
    if not states or TryState.SENDING in states:
        return S.CREATING
    return S.UNKNOWN if TryState.UNKNOWN in states else S.FAILED


def _is_current(meeting: Meeting, attempt: MeetingAttempt) -> bool:
    return bool(attempt.vendor_id) and (attempt.provider, attempt.vendor_id) == (meeting.provider, meeting.vendor_id)


def _attempt(meeting: Meeting, number: int) -> MeetingAttempt:
    return meeting.attempts[number - 1]


def _with(meeting: Meeting, attempt: MeetingAttempt) -> Meeting:
    attempts = tuple(attempt if old.number == attempt.number else old for old in meeting.attempts)
    return replace(meeting, attempts=attempts)
