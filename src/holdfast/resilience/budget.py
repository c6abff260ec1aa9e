"""The retry budget: repeats are a share of first attempts, so that an outage is not multiplied."""

RATIO = 0.2
RESERVE_PER_SECOND = 1.0
MOST = 10.0
"""Seconds of deposits that are kept; what was not spent by then expires."""


class Budget:
    """Tokens: each first attempt deposits a fifth, every second one more, a repeat costs one, after a timeout two."""

    __slots__ = ("_at", "_deposits", "_reserve")

    def __init__(self) -> None:
        self._deposits = 0.0
        self._reserve = MOST * RESERVE_PER_SECOND
        self._at = 0.0

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        self._pass(now)
        self._deposits += RATIO

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take the tokens for a repeat, if there are enough."""
        self._pass(now)
        if self._deposits + self._reserve < cost:
            return False
        from_deposits = min(self._deposits, cost)
        self._deposits -= from_deposits
        self._reserve -= cost - from_deposits
        return True

    @property
    def balance(self) -> float:
        """Tokens there are, as of the last use."""
        return self._deposits + self._reserve

    def _pass(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = now
        self._reserve = min(MOST * RESERVE_PER_SECOND, self._reserve + elapsed * RESERVE_PER_SECOND)
        # Deposits fade over the ten seconds they are good for.
        self._deposits *= max(0.0, 1.0 - elapsed / MOST)
