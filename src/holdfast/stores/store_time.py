"""The store's own time: the wall clock, kept from running backwards."""

import threading
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from holdfast.clock import Clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class StoreTime:
    """Follows the wall clock forwards; when that is set back, goes on from where it was.

    Standing still until the wall clock has caught up would let no lease run out and no retry come due meanwhile.
    """

    def __init__(self, clock: Clock, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms
        self._clock = clock
        self._lock = threading.Lock()
        self._last = EPOCH
        self._last_monotonic = clock.monotonic()

    def now(self) -> datetime:
        with self._lock:
            wall = self._clock.now() + timedelta(milliseconds=self.skew_ms)
            monotonic = self._clock.monotonic()
            if wall < self._last:
                wall = self._last + timedelta(seconds=monotonic - self._last_monotonic)
            self._last, self._last_monotonic = wall, monotonic
            return wall

    def after(self, seconds: float) -> datetime:
        """That many seconds from now."""
        return self.now() + timedelta(seconds=seconds)

    def not_before(self, written: datetime) -> None:
        """Go on from a time that was written down earlier, unless that was a clock gone astray."""
        if self.now() < written < self.now() + timedelta(hours=1):
            self._last = written


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (moment - EPOCH) // MICROSECOND


@lru_cache(maxsize=1024)
def moment(micros: int) -> datetime:
    """The inverse of `micros`."""
    return EPOCH + timedelta(microseconds=micros)
