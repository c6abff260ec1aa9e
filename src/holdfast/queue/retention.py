"""Dropping what ended long ago, by one process of the fleet at a time."""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.queue.signals import Purged
from holdfast.stores.store import Jobs, JobState
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.worker")

EVERY = 60.0
BATCH = 1000
PAUSE = 0.05
"""Seconds between two batches, for the others who write."""


class Retention:
    """Purges jobs that are older than they need to be kept."""

    def __init__(
        self,
        jobs: Jobs,
        lease: Callable[[], Awaitable[object]],
        *,
        older_than: float,
        dead: float,
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
    ) -> None:
        """`lease` says whether this process is the one to do it; None: it is not.

        Done and ignored jobs are kept for `older_than` seconds, dead letters for `dead`.
        """
        self._jobs = jobs
        self._lease = lease
        self._kept = {(JobState.DONE, JobState.IGNORED): older_than, (JobState.DEAD,): dead}
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry

    async def run(self) -> None:
        """Purge now and then, until cancelled."""
        while True:
            await self._clock.sleep(EVERY * self._chance.uniform(0.8, 1.2))
            try:
                if await self._lease() is not None:
                    await self.purge()
            except StoreError as error:
                log.warning("cannot drop old jobs: %s", error)

    async def purge(self) -> int:
        """Drop all that is due, in batches; how many jobs that were."""
        dropped = sum([await self._purge(states, older_than) for states, older_than in self._kept.items()])
        if dropped:
            self._telemetry.emit(Purged(dropped))
        return dropped

    async def _purge(self, states: Sequence[JobState], older_than: float) -> int:
        dropped = batch = await self._jobs.purge(older_than=older_than, states=states, limit=BATCH)
        while batch == BATCH:
            await self._clock.sleep(PAUSE)
            batch = await self._jobs.purge(older_than=older_than, states=states, limit=BATCH)
            dropped += batch
        return dropped
