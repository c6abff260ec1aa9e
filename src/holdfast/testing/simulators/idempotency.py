"""Idempotency keys as vendors keep them: the first answer again, for a while, to the same request only."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from holdfast.clock import Clock
from holdfast.testing.simulators.simulator import Response


class Conflict(Enum):
    """Why a key cannot be used for this request."""

    IN_FLIGHT = "in flight"
    """The first request with it has not been answered yet."""
    OTHER_TARGET = "other target"
    """It was used at another address."""
    OTHER_PARAMETERS = "other parameters"
    """It was used there, with other parameters."""


@dataclass(slots=True)
class _Used:
    target: Hashable
    parameters: Hashable
    response: Response
    pruned_at: float
    answered_at: float


class IdempotencyKeys:
    """The keys of one account, each kept for the vendor's window."""

    def __init__(self, clock: Clock, *, window: float) -> None:
        self._clock = clock
        self._window = window
        self._used: dict[str, _Used] = {}

    def look(self, key: str, target: Hashable, parameters: Hashable) -> Response | Conflict | None:
        """The answer kept for this request, why it may not be made, or None: it is the first with this key."""
        used = self._used.get(key)
        if used is None or used.pruned_at <= self._clock.monotonic():
            return None
        if used.answered_at > self._clock.monotonic():
            return Conflict.IN_FLIGHT
        if used.target != target:
            return Conflict.OTHER_TARGET
        return used.response if used.parameters == parameters else Conflict.OTHER_PARAMETERS

    def keep(self, key: str, target: Hashable, parameters: Hashable, response: Response) -> None:
        """Remember the first answer."""
        now = self._clock.monotonic()
        self._used[key] = _Used(target, parameters, response, pruned_at=now + self._window, answered_at=now)

    def amend(self, key: str, change: Callable[[Response], Response], *, after: float) -> None:
        """The first answer turned out differently, or takes that many seconds to arrive."""
        if (used := self._used.get(key)) is not None:
            used.response = change(used.response)
            used.answered_at = self._clock.monotonic() + after
