"""How long an operation normally takes, of its last successes."""

from collections import deque
from statistics import median

KEPT = 32
ENOUGH = 5
"""Fewer durations than this say nothing."""


class Latency:
    """Adding is cheap, for every success does; asking sorts, for only a failure does."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def add(self, operation: str, seconds: float) -> None:
        """A call succeeded after so many seconds."""
        try:
            self._seconds[operation].append(seconds)
        except KeyError:
            self._seconds[operation] = deque([seconds], maxlen=KEPT)

    def normal(self, operation: str) -> float:
        """The median; 0 after too few successes, for then nothing is too short."""
        known = self._seconds.get(operation, ())
        return median(known) if len(known) >= ENOUGH else 0.0
