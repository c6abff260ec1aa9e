"""The retry budget: repeats are a share of first attempts, so that an outage is not multiplied."""

from holdfast.resilience.policy import Budget

KEPT = 10
"""Seconds for which what was not spent is good."""


class RetryBudget:
    """Every second earns its share of first attempts, at least the reserve; a repeat costs one, after a timeout two."""

    __slots__ = ("_edge", "_firsts", "_kept", "_options", "_second", "_spent")

    def __init__(self, options: Budget) -> None:
        self._options = options
        self._kept = [options.reserve] * KEPT  # of the seconds before this one, oldest first
        self._second: int | None = None
        self._edge = float("-inf")
        self._firsts = 0
        self._spent = 0.0

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        if now >= self._edge:
            self._roll(now)
        self._firsts += 1

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take the tokens for a repeat, if there are enough: what expires first, first."""
        if now >= self._edge:
            self._roll(now)
        if self.balance < cost - 1e-9:  # five fifths are one
            return False
        for index, tokens in enumerate(self._kept):
            taken = min(tokens, cost)
            self._kept[index] -= taken
            cost -= taken
        self._spent += cost
        return True

    @property
    def balance(self) -> float:
        """Tokens there are, as of the last use."""
        return sum(self._kept) + self._earned()

    def _earned(self) -> float:
        return max(self._options.share * self._firsts, self._options.reserve) - self._spent

    def _roll(self, now: float) -> None:
        """Another second begins; those nobody called in earned the reserve."""
        second = int(now)
        idle = KEPT if self._second is None else min(second - self._second - 1, KEPT)
        if self._second is not None:
            self._kept.append(self._earned())
        self._kept.extend([self._options.reserve] * idle)
        del self._kept[:-KEPT]
        self._second, self._edge, self._firsts, self._spent = second, second + 1.0, 0, 0.0
