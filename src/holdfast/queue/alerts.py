"""What somebody should look at: a handler's first dead letter, many at once, and jobs that wait too long."""

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from holdfast.clock import Clock
from holdfast.errors import InvalidInput, StoreError, VersionConflict
from holdfast.queue.signals import DeadRateHigh, FirstDead, WaitsLong
from holdfast.stores.store import Draft, JobFilter, JobState, Json, Store
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.worker")

EVERY: Final = 10.0
LOOK_AT: Final = 500
"""The newest dead letters; of more than these at once, the older ones are not looked at."""
KIND: Final = "alert"
KEY: Final = "dead"

Source = tuple[str, str, str]
"""Queue, kind and handler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertLimits:
    """From when on somebody is told."""

    dead: int = 10
    """So many new dead letters within `window` seconds."""
    window: float = 300.0
    oldest: float = 60.0
    """Seconds for which a job has been due and not begun."""

    def __post_init__(self) -> None:
        if self.dead < 1 or not self.window > 0 or not self.oldest > 0:
            given = f"{self.dead}, {self.window} and {self.oldest}"
            raise InvalidInput(f"dead, window and oldest of AlertLimits are greater than zero, not {given}")


class Alerts:
    """Looks at the queue now and then, in one process of the fleet."""

    def __init__(
        self,
        store: Store,
        lease: Callable[[], Awaitable[object]],
        *,
        limits: AlertLimits,
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
    ) -> None:
        """`lease` says whether this process is the one to do it; None: it is not."""
        self._store = store
        self._lease = lease
        self._limits = limits
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._dead: int | None = None
        self._died: deque[tuple[float, int]] = deque()
        self._many = False
        self._late: set[str] = set()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                if await self._lease() is not None:
                    await self.look()
            except StoreError as error:
                log.warning("cannot look for what should alarm: %s", error)
            await self._clock.sleep(EVERY * self._chance.uniform(0.8, 1.2))

    async def look(self) -> None:
        """Tell what is new since the last look."""
        counts = await self._store.jobs.count()
        dead = sum(jobs for (_, state), jobs in counts.items() if state is JobState.DEAD)
        if dead != self._dead:
            await self._look_at_handlers()
        self._look_at_rate(dead)
        self._look_at_age(await self._store.now(), await self._store.jobs.oldest())

    async def _look_at_handlers(self) -> None:
        jobs = await self._store.jobs.list(JobFilter(state=JobState.DEAD), limit=LOOK_AT)
        there = {(job.queue, job.kind, job.handler) for job in jobs}
        record = await self._store.records.get(KIND, KEY)
        known = set[Source]() if record is None else _sources(record.value)
        told = there if len(jobs) < LOOK_AT else there | known
        if told == known:
            return
        value: dict[str, Json] = {"handlers": [list(source) for source in sorted(told)]}
        try:
            await self._store.records.apply(KIND, KEY, record.version if record else 0, Draft(value=value))
        except VersionConflict:
            return  # another process tells
        for source in sorted(there - known):
            self._telemetry.emit(FirstDead(*source))

    def _look_at_rate(self, dead: int) -> None:
        now = self._clock.monotonic()
        if self._dead is not None and dead > self._dead:
            self._died.append((now, dead - self._dead))
        self._dead = dead
        while self._died and self._died[0][0] <= now - self._limits.window:
            self._died.popleft()
        died = sum(jobs for _, jobs in self._died)
        before, self._many = self._many, died >= self._limits.dead
        if self._many and not before:
            self._telemetry.emit(DeadRateHigh(died, self._limits.window))

    def _look_at_age(self, now: datetime, oldest: Mapping[str, datetime]) -> None:
        ages = {queue: (now - since).total_seconds() for queue, since in oldest.items()}
        late = {queue for queue, age in ages.items() if age >= self._limits.oldest}
        for queue in sorted(late - self._late):
            self._telemetry.emit(WaitsLong(queue, ages[queue]))
        self._late = late


def _sources(value: Mapping[str, Json]) -> set[Source]:
    return {(queue, kind, handler) for queue, kind, handler in cast("list[list[str]]", value["handlers"])}
