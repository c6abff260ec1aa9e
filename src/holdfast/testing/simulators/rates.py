"""How many calls a vendor lets through in any trailing window, to the call."""

from collections import deque

from holdfast.clock import Clock


class SlidingWindow:
    """At most `limit` calls within any `seconds`; a limit of zero lets everything through."""

    def __init__(self, clock: Clock, limit: int, seconds: float) -> None:
        self._clock = clock
        self._limit = limit
        self._seconds = seconds
        self._taken: deque[float] = deque()

    def wait(self) -> float:
        """Seconds until another call is let through; 0 when it is now."""
        now = self._clock.monotonic()
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if not self._limit or len(self._taken) < self._limit:
            return 0
        return self._taken[-self._limit] + self._seconds - now

    def take(self) -> None:
        """Count a call that was let through."""
        if self._limit:
            self._taken.append(self._clock.monotonic())
