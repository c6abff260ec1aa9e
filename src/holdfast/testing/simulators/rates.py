"""How many calls a vendor lets through in any trailing window, to the call."""

from collections import deque
from collections.abc import Callable
from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat

from holdfast.clock import Clock
from holdfast.testing.faults.values import Value


class Rate(Value, frozen=True):
    """So many calls within any so many seconds; `Rate(0)` lets everything through.

    Of a `burst` so many more pass at once, as if each had come when it would have been its turn: whoever goes on at the
    steady rate afterwards has none left, and has it back once it has been silent for as long.
    """

    calls: NonNegativeInt = Field(kw_only=False)
    seconds: PositiveFloat = Field(default=1.0, kw_only=False)
    burst: NonNegativeInt = 0


class SlidingWindow:
    """At most `limit` calls within any `seconds`, and a `burst` more; a limit of zero lets everything through."""

    def __init__(
        self, clock: Clock, limit: int, seconds: float, *, burst: int = 0, holds: Callable[[], bool] | None = None
    ) -> None:
        """While it `holds` not, everything is let through, and nothing counts."""
        self._clock = clock
        self._limit = limit
        self._seconds = seconds
        self._burst = burst
        self._holds = holds
        self._turns: deque[float] = deque()
        """When each call had its turn; of a burst that is yet to come."""

    @classmethod
    def of(cls, rate: Rate, clock: Clock) -> Self:
        """The window of this rate."""
        return cls(clock, rate.calls, rate.seconds, burst=rate.burst)

    def wait(self) -> float:
        """Seconds until another call is let through; 0 when it is now."""
        if not self._counts:
            return 0
        now = self._clock.monotonic()
        while self._turns and self._turns[0] <= now - self._seconds:
            self._turns.popleft()
        place = len(self._turns) - self._burst
        if place < 0:
            return 0
        turn = self._turns[place] if self._burst else self._next_turn(now)
        return max(0, turn - now)

    def take(self) -> None:
        """Count a call that was let through."""
        if self._counts:
            self._turns.append(self._next_turn(self._clock.monotonic()))

    @property
    def _counts(self) -> bool:
        return bool(self._limit) and (self._holds is None or self._holds())

    def _next_turn(self, now: float) -> float:
        if len(self._turns) < self._limit:
            return now
        return max(now, self._turns[-self._limit] + self._seconds)
