"""How many jobs wait, and when that is too many: a warning first, then vendors are asked to come again later."""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.queue.signals import BacklogHigh
from holdfast.stores.store import Jobs, JobState
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.receiver")

EVERY = 1.0
SPARE = 20
"""Counting takes at most this part of the time: where many rows are kept, it is slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BacklogLimits:
    """How many jobs may wait."""

    soft: int = 10_000
    """From here on a signal tells of it."""
    hard: int = 100_000
    """From here on the receiver answers 503 with `Retry-After`."""


class Backlog:
    """What is known of the jobs that wait; asking costs nothing, the counting goes on beside."""

    def __init__(
        self,
        jobs: Callable[[], Jobs],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        limits: BacklogLimits,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._jobs = jobs
        self._spawn = spawn
        self._limits = limits
        self._clock = clock
        self._telemetry = telemetry
        self._level = 0
        self._next = float("-inf")

    def is_full(self) -> bool:
        """No more can be taken, by the last count; if that is old, another one begins. Raises NotOpen, WrongLoop."""
        if self._clock.monotonic() >= self._next:
            self._begin()
        return self._level == 2

    def _begin(self) -> None:
        counting = self._count()
        try:
            self._spawn(counting)
        except HoldfastError:
            counting.close()
            raise
        self._next = float("inf")

    async def _count(self) -> None:
        began = self._clock.monotonic()
        try:
            counts = await self._jobs().count()
            self._see(sum(rows for (_, state), rows in counts.items() if state is JobState.READY))
        except HoldfastError as error:
            log.warning("cannot count the jobs that wait: %s", error)
        finally:
            now = self._clock.monotonic()
            self._next = now + max(EVERY, SPARE * (now - began))

    def _see(self, waiting: int) -> None:
        before, self._level = self._level, (waiting >= self._limits.soft) + (waiting >= self._limits.hard)
        if self._level > before:
            self._telemetry.emit(BacklogHigh(waiting, "refusing" if self._level == 2 else "high"))
