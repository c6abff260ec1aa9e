"""Holds: a credential, or a narrower scope, pauses after the vendor said so; the provider itself is well."""

from math import isfinite

LONGEST = 3600.0
"""Then one call may ask again, whatever the vendor said: its clock may be wrong, or its limit lifted."""
REFUSED_FOR = 10.0
"""How long a credential pauses that was refused, unless it is rotated before."""
MOST = 10_000
"""Scopes on hold at once; past that those that end first are forgotten."""


class Holds:
    """Until when each scope pauses. A hold is only ever extended; a new generation of a credential is a new scope."""

    __slots__ = ("refused", "scopes")

    def __init__(self) -> None:
        self.scopes: dict[str, float] = {}
        """Until when each pauses, in monotonic seconds; nearly always empty."""
        self.refused: set[str] = set()
        """Those of them that pause because the vendor refused them, not because it asked for a pause."""

    def left(self, scope: str, now: float) -> float:
        """Seconds this scope still pauses; 0 when it may go on."""
        for ended in [each for each, until in self.scopes.items() if until <= now]:
            self.drop(ended)
        return self.scopes.get(scope, now) - now

    def extend(self, scope: str, seconds: float, now: float, *, refused: bool = False) -> bool:
        """Pause for so many seconds from now; False when it pauses longer already."""
        until = now + min(seconds, LONGEST)
        if not isfinite(until) or until <= self.scopes.get(scope, now):
            return False
        if len(self.scopes) >= MOST and scope not in self.scopes:
            self._forget(now)
        self.scopes[scope] = until
        if refused:
            self.refused.add(scope)
        return True

    def drop(self, scope: str) -> None:
        """It may go on: the credential was rotated, or worked."""
        self.scopes.pop(scope, None)
        self.refused.discard(scope)

    def snapshot(self, now: float) -> dict[str, float]:
        """Seconds left, by scope."""
        return {scope: until - now for scope, until in self.scopes.items() if until > now}

    def _forget(self, now: float) -> None:
        self.left("", now)
        while len(self.scopes) >= MOST:
            self.drop(min(self.scopes, key=self.scopes.__getitem__))
