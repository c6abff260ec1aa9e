"""Waiting for a job without asking the engine again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from holdfast.clock import Clock
from holdfast.stores.store_time import EPOCH, StoreTime

RECHECK = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What an engine knows about the jobs that can be claimed."""

    overdue: bool
    """Some could have been claimed at the last claim already: another queue's, or a busy worker's."""
    next: datetime | None
    """When the first one after the last claim is due, past or future."""


class Readiness:
    """Wakes those who wait when a job may have become ready."""

    def __init__(self, clock: Clock, time: StoreTime) -> None:
        self._clock = clock
        self._time = time
        self._waiting: set[asyncio.Future[None]] = set()
        self._changes = 0
        self._seen = -1
        self._claimed_at = EPOCH

    def changed(self) -> None:
        """Jobs were added, given back, or freed."""
        self._changes += 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def claiming(self) -> None:
        """A claim begins, and will see every change there was so far."""
        self._seen = self._changes
        self._claimed_at = self._time.now()

    async def wait(
        self,
        timeout: float,
        outlook: Callable[[datetime], Awaitable[Outlook]],
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        """Return at the next change or due job, when somebody else wakes the waiter, or after `timeout` seconds."""
        if self._seen != self._changes:
            self._seen = self._changes
            return
        waiter = waiter or asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with self._clock.timeout(timeout):
                ahead = await outlook(self._claimed_at)
                async with self._clock.timeout(self._pause(ahead)):
                    await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiter)

    def _pause(self, ahead: Outlook) -> float | None:
        pauses: list[float] = []
        if ahead.next is not None:
            pauses.append(max(0.0, (ahead.next - self._time.now()).total_seconds()))
        if ahead.overdue:
            # Returning at once would make a worker with nothing to claim from its own queues spin.
            pauses.append(RECHECK)
        return min(pauses, default=None)
