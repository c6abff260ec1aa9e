"""Keys that vendors know what they were asked for by: what they are made of, and until when they surely count."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from holdfast.clock import Clock
from holdfast.outcome import Effect

KEYS: Final = uuid.UUID("6d0c1f0a-6d1e-4c39-9d55-1f2f6b9d6a01")
"""The namespace that ids of attempts and keys of moves are derived in."""

FOR_EVER: Final = timedelta(days=3650)
"""A vendor that names no end remembers keys at least as long as a payment matters."""


def derive(*parts: object) -> str:
    """The same key for the same parts, in whatever process."""
    return uuid.uuid5(KEYS, "|".join(map(str, parts))).hex


def key_until(effect: Effect, window: timedelta | None, *, at: datetime, timeout: timedelta) -> datetime | None:
    """Until when a key surely counts: one request's time before the vendor may forget it; None: it has no keys."""
    return at + (window or FOR_EVER) - timeout if effect is Effect.KEYED else None


def is_remembered(until: datetime | None, now: datetime) -> bool:
    """Whether a key surely counts, that does until then; without one nothing is asked for twice."""
    return until is not None and now < until


def key_valid(clock: Clock, until: datetime | None) -> Callable[[], bool] | None:
    """Asked right before the bytes leave."""
    return None if until is None else lambda: is_remembered(until, clock.now())
