"""How many jobs end in a second, and so how many to have at hand before there is a place for them."""

from collections.abc import Callable
from typing import Final

AHEAD: Final = 0.05
"""Seconds of work to have at hand: more would keep jobs from other workers, with less quick ones wait for the store."""
MOST: Final = 512
WINDOW: Final = 0.02


class Pace:
    """Counts jobs that ended, in short windows; the slower of the last two counts, for one may be a burst."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begun = now()
        self._count = 0
        self._before = 0.0
        self._ahead = 0

    def ended(self) -> None:
        """One more."""
        self._count += 1

    def ahead(self) -> int:
        """Jobs that will begin in the next moment if all goes on as it did; none where a job takes longer than that."""
        since = self._now() - self._begun
        if since >= WINDOW:
            rate = self._count / since
            self._ahead = min(MOST, int(min(rate, self._before) * AHEAD))
            self._begun, self._count, self._before = self._now(), 0, rate
        return self._ahead
