"""When to try again: full jitter, tenacity's strategies, and every dialect of Retry-After."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any

from holdfast.outcome import Cause
from holdfast.resilience.policy import Retry

LONGEST = 30 * 86_400.0
"""A vendor that asks for a longer pause than this is not believed."""
LONGEST_WAIT = 3600.0
"""What a strategy that says more is taken to mean."""


@dataclass(frozen=True, slots=True)
class FailedOutcome:
    """What tenacity's strategies ask about the last attempt."""

    error: BaseException
    failed: bool = True

    def exception(self) -> BaseException:
        return self.error

    def result(self) -> Any:
        raise self.error


@dataclass(slots=True, kw_only=True)
class RetryState:
    """The part of tenacity's `RetryCallState` its strategies read."""

    attempt_number: int
    outcome: FailedOutcome
    seconds_since_start: float
    idle_for: float = 0.0
    upcoming_sleep: float = 0.0
    fn: Callable[..., object] | None = None
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = field(default_factory=dict[str, object])


def backoff(retry: Retry, state: RetryState, cause: Cause, random: Random) -> float:
    """Seconds to wait before the next attempt, never negative: full jitter up to the cap, or what the strategy says."""
    if retry.wait is not None:
        return _sane(retry.wait(state))
    base = retry.seconds("throttled_base" if cause in (Cause.THROTTLED, Cause.REFUSED) else "base")
    return random.uniform(0.0, min(retry.seconds("cap"), base * 2.0 ** min(state.attempt_number - 1, 32)))


def after_pause(asked: float, random: Random) -> float:
    """The vendor's Retry-After and up to a tenth more, for whoever else was told the same."""
    return asked + random.uniform(0.0, min(1.0, asked / 10))


def stops(retry: Retry, state: RetryState) -> bool:
    """Whether the policy ends here."""
    if retry.stop is not None:
        return bool(retry.stop(state))
    return state.attempt_number >= retry.attempts


def _sane(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        return 0.0
    return float(min(max(0.0, seconds), LONGEST_WAIT))


_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)


def parse_retry_after(text: str | None, *, date: str | None, now: datetime) -> float | None:
    """Seconds from now, of a number of seconds, an HTTP date or an ISO 8601 moment; None when it says nothing sane.

    A date is held against the answer's own `Date` header where there is one, for the vendor's clock may not be ours.
    """
    text = (text or "").strip()
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return _believable(float(text))
    moment = _moment(text)
    if moment is None:
        return None
    reference = (_moment(date.strip()) if date else None) or now
    return _believable((moment - reference).total_seconds())


def parse_milliseconds(text: str | None) -> float | None:
    """Seconds, of a header that counts milliseconds."""
    text = (text or "").strip()
    return _believable(float(text) / 1000) if _NUMBER.fullmatch(text) else None


def _moment(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _believable(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST else None
