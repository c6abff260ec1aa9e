"""How much waits, and when that is too much: a warning first, then vendors are asked to come again later."""

import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.queue.intake import RESERVE
from holdfast.queue.signals import BacklogHigh
from holdfast.settings import check_most
from holdfast.stores.store import Jobs, JobState
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.receiver")

EVERY: Final = 1.0
SPARE: Final = 20
"""Counting takes at most this part of the time: where many rows are kept, it is slow."""
DISK_PART: Final = 0.05
DISK_BYTES: Final = 256 * 1024 * 1024
"""The smaller of the two is left free on the store's disk, so that what was taken can be finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BacklogLimits:
    """How much may wait. Vendors that do not sign get four fifths of it."""

    soft: int = 10_000
    """Jobs; from here on a signal tells of it."""
    hard: int = 100_000
    """Jobs; from here on vendors are asked to come again."""
    bytes: int = 1024 * 1024 * 1024
    """From here on too: reckoned from the jobs that wait, and the size of those this process took."""

    def __post_init__(self) -> None:
        for name in ("soft", "hard", "bytes"):
            check_most(name, getattr(self, name))


@runtime_checkable
class KeptInFile(Protocol):
    """A store that is one file of this host, so that the room that is left is quickly told."""

    @property
    def path(self) -> str: ...


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
        store: object = None,
    ) -> None:
        self._jobs = jobs
        self._spawn = spawn
        self._limits = limits
        self._clock = clock
        self._telemetry = telemetry
        self._file = store.path if isinstance(store, KeptInFile) else None
        self._state = ""
        self._full = self._full_for_unsigned = ""
        self._next = float("-inf")
        self._taken = self._size = 0.0

    def refuses(self, *, signed: bool) -> str:
        """What there is too much of, by the last count: `backlog`, `bytes` or `disk`; empty: there is room.

        If the count is old, another one begins. Raises NotOpen, WrongLoop.
        """
        if self._clock.monotonic() >= self._next:
            self._begin()
        return self._full if signed else self._full_for_unsigned

    def took(self, jobs: int, size: int) -> None:
        """So many jobs were added, of so many bytes in all."""
        self._taken += jobs
        self._size += size

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
        size = waiting * self._size / self._taken if self._taken else 0.0
        self._taken, self._size = self._taken / 2, self._size / 2  # what came lately counts for more
        disk = "disk" if _disk_is_full(self._file) else ""
        self._full = disk or self._above(1.0, waiting, size)
        self._full_for_unsigned = disk or self._above(1 - RESERVE, waiting, size)
        before, self._state = self._state, "refusing" if self._full else "high" * (waiting >= self._limits.soft)
        if self._state not in ("", before) and before != "refusing":
            self._telemetry.emit(BacklogHigh(waiting, self._state, self._full or "backlog"))

    def _above(self, part: float, waiting: int, size: float) -> str:
        if waiting >= part * self._limits.hard:
            return "backlog"
        return "bytes" if size >= part * self._limits.bytes else ""


def _disk_is_full(file: str | None) -> bool:
    if file is None:
        return False
    try:
        disk = os.statvfs(os.path.dirname(file) or ".")
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < min(DISK_PART * disk.f_blocks * disk.f_frsize, DISK_BYTES)
