"""The one table: what a cause means for the same provider, for the next one, and for the circuit."""

from dataclasses import dataclass, field
from math import inf
from typing import Literal, TypeAlias

from holdfast.errors import CallFailed
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Result

Why: TypeAlias = Literal["final", "attempts", "unsafe", "deadline"]
"""Why nobody is asked again: asking changes nothing, no attempt is left, it may have happened, no time is left."""


@dataclass(frozen=True, slots=True)
class Again:
    """Ask the same provider once more, `after` so many seconds; None: after the policy's own backoff."""

    after: float | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """Ask the next provider."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Tell the caller: nothing more can be done here."""

    why: Why = field(default="final", compare=False)


@dataclass(frozen=True, slots=True)
class Resolve:
    """Tell the caller that the outcome is unknown, and find out."""

    why: Why = field(default="unsafe", compare=False)


Decision: TypeAlias = Again | Next | Raise | Resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else a decision depends on; the defaults allow nothing."""

    attempts_left: int = 0
    """How often the same provider may still be asked."""
    providers_left: int = 0
    """How many other providers may still be asked."""
    remaining: float = inf
    """Seconds until the deadline."""
    retry_after: float | None = None
    """Seconds the vendor asked us to wait."""
    local: bool = False
    """Rejected here, by an open circuit or a limit."""
    key_valid: bool = True
    """KEYED: the vendor still remembers the key, and the bytes are the same."""
    refreshable: bool = False
    """A fresh credential can be had, and was not tried."""
    elsewhere: bool = False
    """REJECTED: the operation lists the code as worth asking another provider."""
    unknown_may_move: bool = False
    """The family's rule allows another provider after UNKNOWN: an offer nobody was shown, a message twice is fine."""
    unsettled: bool = False
    """An earlier attempt of this same effect ended UNKNOWN, so "nothing happened" is said of the last attempt only."""


_NOTHING_KNOWN = Circumstances()


def decide(cause: Cause, effect: Effect, circumstances: Circumstances = _NOTHING_KNOWN) -> Decision:
    """What to do after a failure: the only function that repeats or fails over; a family may narrow it, not widen."""
    here = circumstances
    in_doubt = effect is not Effect.READ and (cause is Cause.UNKNOWN or here.unsettled)
    why = _why_not_again(cause, effect, here, in_doubt=in_doubt)
    if why is None:
        return Again(_after(cause, here))
    if here.providers_left > 0 and _may_move(cause, here, in_doubt=in_doubt):
        return Next()
    if in_doubt and cause not in (Cause.MISMATCH, Cause.REJECTED):
        return Resolve(why)
    return Raise(why)


def counts_as(failure: CallFailed) -> Result:
    """The table's column for the circuit."""
    match failure.cause:
        case Cause.UNKNOWN:
            return Result.FAILURE
        case Cause.REJECTED:
            return Result.SUCCESS  # the vendor is alive
        case Cause.NOT_SENT:
            return Result.FAILURE if failure.hard and not failure.local else Result.NEUTRAL
        case Cause.REFUSED:
            return Result.FAILURE if failure.hard or failure.status == 503 else Result.NEUTRAL
        case Cause.THROTTLED | Cause.CREDENTIAL | Cause.MISMATCH:
            return Result.NEUTRAL


def _why_not_again(cause: Cause, effect: Effect, here: Circumstances, *, in_doubt: bool) -> Why | None:
    """What forbids asking the same provider again; None: it may be asked."""
    if (
        cause in (Cause.REJECTED, Cause.MISMATCH)
        or (cause is Cause.NOT_SENT and here.local)
        or (cause is Cause.CREDENTIAL and not here.refreshable)
    ):
        return "final"
    if (effect is Effect.ONCE and in_doubt) or (effect is Effect.KEYED and not here.key_valid):
        return "unsafe"
    if here.attempts_left <= 0:
        return "attempts"
    return None if (_after(cause, here) or 0.0) < here.remaining else "deadline"


def _after(cause: Cause, here: Circumstances) -> float | None:
    match cause:
        case Cause.NOT_SENT:
            return None
        case Cause.CREDENTIAL:
            return 0.0  # with another credential, waiting proves nothing
        case _ if here.retry_after is not None and here.retry_after >= 0:
            return here.retry_after
        case _:
            return None


def _may_move(cause: Cause, here: Circumstances, *, in_doubt: bool) -> bool:
    """Whether another provider may be asked."""
    if cause is Cause.MISMATCH or (cause is Cause.REJECTED and not here.elsewhere):
        return False
    return here.unknown_may_move or not in_doubt
