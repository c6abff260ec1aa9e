"""The retry budget: repeats are a share of first attempts, so that an outage is not multiplied."""

from collections import deque

RATIO = 0.2
RESERVE_PER_SECOND = 1.0
KEPT = 10
"""Seconds for which a deposit is good, and for which the reserve is saved up."""


class Budget:
    """Tokens: each first attempt deposits a fifth, every second one more, a repeat costs one, after a timeout two."""

    __slots__ = ("_at", "_deposits", "_reserve")

    def __init__(self) -> None:
        self._deposits: deque[list[float]] = deque()  # [second, tokens], oldest first
        self._reserve = KEPT * RESERVE_PER_SECOND
        self._at = 0.0

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        second = self._pass(now)
        if self._deposits and self._deposits[-1][0] == second:
            self._deposits[-1][1] += RATIO
        else:
            self._deposits.append([second, RATIO])

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take the tokens for a repeat, if there are enough: what expires first, first."""
        self._pass(now)
        if self.balance < cost - 1e-9:  # five fifths are one
            return False
        while cost > 0 and self._deposits:
            taken = min(self._deposits[0][1], cost)
            cost -= taken
            self._deposits[0][1] -= taken
            if self._deposits[0][1] <= 0:
                self._deposits.popleft()
        self._reserve = max(0.0, self._reserve - cost)
        return True

    @property
    def balance(self) -> float:
        """Tokens there are, as of the last use."""
        return self._reserve + sum(tokens for _, tokens in self._deposits)

    def _pass(self, now: float) -> int:
        elapsed, self._at = max(0.0, now - self._at), max(now, self._at)
        self._reserve = min(KEPT * RESERVE_PER_SECOND, self._reserve + elapsed * RESERVE_PER_SECOND)
        second = int(self._at)
        while self._deposits and self._deposits[0][0] <= second - KEPT:
            self._deposits.popleft()
        return second
