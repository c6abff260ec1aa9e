"""The retry budget: repeats are a share of first attempts, so that an outage is not multiplied."""

from holdfast.resilience.policy import Budget

KEPT = 10
"""Seconds for which what was not spent is good."""


class RetryBudget:
    """Tokens: a second earns a share of its first attempts, or the reserve; a repeat costs one, two after a timeout.

    What idle seconds earned is a loan: busy seconds pay it back, so that in the long run the share is kept to.
    """

    __slots__ = ("_kept", "_loan", "_options", "_second", "_spent", "edge", "firsts")

    def __init__(self, options: Budget) -> None:
        self._options = options
        self._kept = [options.reserve] * KEPT  # of the seconds before this one, oldest first
        self._loan = KEPT * options.reserve
        self._second: int | None = None
        self.edge = float("-inf")
        """When this second is over."""
        self.firsts = 0
        """First attempts in this second."""
        self._spent = 0.0

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        if now >= self.edge:
            self._roll(now)
        self.firsts += 1

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take the tokens for a repeat, if there are enough: what expires first, first."""
        if now >= self.edge:
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
        share = self._options.share * self.firsts
        return max(share - self._repaid(), self._options.reserve) - self._spent

    def _repaid(self) -> float:
        return min(self._loan, max(0.0, self._options.share * self.firsts - self._options.reserve))

    def _roll(self, now: float) -> None:
        """Another second begins; those nobody called in earned the reserve."""
        second, reserve = int(now), self._options.reserve
        idle = KEPT if self._second is None else min(second - self._second - 1, KEPT)
        if self._second is not None:
            self._kept.append(self._earned())
            self._loan = min(self._loan - self._repaid() + idle * reserve, KEPT * reserve)
        self._kept.extend([reserve] * idle)
        del self._kept[:-KEPT]
        self._second, self.edge, self.firsts, self._spent = second, second + 1.0, 0, 0.0
