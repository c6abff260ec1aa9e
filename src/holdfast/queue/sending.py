"""The life of a call that must not be made twice, as a pure function: `step(sending, fact)`, and what to do, `todo`.

Nothing here waits or calls. The outbox performs what `todo` says and commits after every step: `sending` before the
handler runs, its result after it. A run that finds `sending` of an older run cannot know what became of it: unknown.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from holdfast.queue.calls import OnUnknown


class SendingState(StrEnum):
    """`ready → sending → sent | ready | unknown`; its policy decides about an unknown one."""

    READY = "ready"
    """Nothing is out."""
    SENDING = "sending"
    SENT = "sent"
    UNKNOWN = "unknown"
    HELD = "held"
    """Unknown, and left to a person."""
    CANCELLED = "cancelled"


S = SendingState

WAITS = tuple(timedelta(seconds=after) for after in (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600))
"""After so long it is looked up whether the call happened, and again; after the last one it is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """What is known of a call's effect."""

    state: SendingState = S.READY
    generation: int = 0
    token: int = 0
    """The fencing number of the run that began it last."""
    checks: int = 0
    """Look-ups that could not tell."""
    version: int = 0


# Facts: what was learned.


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run has the call now."""

    generation: int
    token: int


@dataclass(frozen=True, slots=True)
class Began:
    """The handler is about to run; committed before it does."""

    token: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The handler of this run came back; true whenever it is heard."""

    token: int


@dataclass(frozen=True, slots=True)
class NotSent:
    """The handler of this run failed, and proved that nothing happened."""

    token: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The handler of this run failed, and it may have happened."""

    token: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A look-up says whether it happened; None: it cannot tell yet."""

    happened: bool | None


@dataclass(frozen=True, slots=True)
class Held:
    """It is left to a person."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It is not wanted any more."""


Fact = Claimed | Began | Sent | NotSent | Lost | Checked | Held | Cancelled


def step(sending: Sending, fact: Fact) -> Sending:
    """The call as it is once `fact` is known; unchanged when the fact is old news."""
    match fact:
        case Claimed(generation) if generation > sending.generation:
            # Somebody replayed it: whoever did has decided that it may be made again.
            return Sending(generation=generation, version=sending.version)
        case Claimed(token=token) if sending.state is S.SENDING and token > sending.token:
            return replace(sending, state=S.UNKNOWN)
        case Began(token):
            return replace(sending, state=S.SENDING, token=token)
        case Sent(token) if token == sending.token and sending.state is S.HELD:
            # A person is about to replay a dead letter: the next generation is to find that it happened.
            return replace(sending, state=S.SENT, generation=sending.generation + 1)
        case Sent(token) if token == sending.token:
            return replace(sending, state=S.SENT)
        case NotSent(token) if token == sending.token and sending.state in (S.SENDING, S.UNKNOWN):
            return replace(sending, state=S.READY)
        case Lost(token) if token == sending.token and sending.state is S.SENDING:
            return replace(sending, state=S.UNKNOWN)
        case Checked(happened) if sending.state is S.UNKNOWN:
            if happened is None:
                return replace(sending, checks=sending.checks + 1)
            return replace(sending, state=S.SENT if happened else S.READY, checks=0)
        case Held() if sending.state is S.UNKNOWN:
            return replace(sending, state=S.HELD)
        case Cancelled() if sending.state is S.READY:
            return replace(sending, state=S.CANCELLED)
        case _:
            return sending


# Actions: what to do next.


@dataclass(frozen=True, slots=True)
class Send:
    """Run the handler."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find out whether it happened."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave it to a person."""


@dataclass(frozen=True, slots=True)
class Finish:
    """It happened: record the job as done."""


@dataclass(frozen=True, slots=True)
class Skip:
    """It is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A later run has it: do nothing."""


Action = Send | LookUp | Hold | Finish | Skip | Stop


def todo(sending: Sending, token: int, on_unknown: OnUnknown) -> Action:
    """What the run with this fencing number does next."""
    match sending.state:
        case _ if token < sending.token:
            return Stop()
        case S.READY:
            return Send()
        case S.SENT:
            return Finish()
        case S.CANCELLED:
            return Skip()
        case S.SENDING:
            return Stop()  # of this very run: it cannot be here twice
        case S.UNKNOWN if on_unknown == "resend":
            return Send()
        case S.UNKNOWN if on_unknown == "check" and sending.checks < len(WAITS):
            return LookUp()
        case S.UNKNOWN | S.HELD:
            return Hold()


def wait_to_check(sending: Sending) -> float:
    """Seconds until it is looked up next."""
    return WAITS[min(sending.checks, len(WAITS) - 1)].total_seconds()
