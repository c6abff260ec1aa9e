"""Telling of dead letters, each once, however they died and whoever restarts: one message for all that are new.

Workers bury jobs, and so does the store itself, so what is in the store decides and not who noticed. Which ones were
told is written down together with the event that tells of them: both or neither.
"""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, cast

from holdfast.clock import Clock
from holdfast.errors import StoreError, VersionConflict
from holdfast.queue.alarms import HANDLER, Alarm, alarm
from holdfast.queue.events import Event, Subscriptions
from holdfast.stores.store import Draft, Job, JobFilter, JobState, Json, Record, Store

log = logging.getLogger("holdfast.worker")

KIND: Final = "alert"
KEY: Final = "dead_letters"
EVERY: Final = 10.0
LOOK_CLOSELY_EVERY: Final = 300.0
"""Seconds after which all are looked at, also when there are as many as before: one may have come for one that went."""
QUIET: Final = timedelta(minutes=5)
"""Between two messages; what dies meanwhile is in the second."""
PAGE: Final = 500
MOST: Final = 5_000
"""The newest dead letters; of more than these, the older ones are not looked at."""
MOST_SOURCES: Final = 20


@dataclass(frozen=True, kw_only=True)
class DeadLetters(Event):
    """Jobs were given up on: one, or a thousand at once; a person has to look. Each is told of once."""

    type: ClassVar[str] = "queue.dead_letters"

    jobs: int
    sources: Mapping[str, int]
    """How many by queue, kind and handler, the most first: `{"events/payment.paid/ship": 2}`; 20 at most."""
    reasons: Mapping[str, int]
    """How many by the reason: `attempts`, `poison`, `permanent`, `unknown`."""

    def alarm(self) -> Alarm:
        """What to tell a person."""
        subject = "1 dead letter" if self.jobs == 1 else f"{self.jobs} dead letters"
        others = self.jobs - sum(self.sources.values())
        parts = [*_counted(self.sources), *([f"others {others}"] if others else [])]
        return alarm(
            subject,
            happened=f"given up on for good: {', '.join(parts)}; why: {', '.join(_counted(self.reasons))}",
            to_do="look with `holdfast dlq list`, mend the cause, then replay",
        )


class DeadLetterWatch:
    """Looks for dead letters nobody was told of, in one process of the fleet."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        lease: Callable[[], Awaitable[object]],
        *,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        """`lease` says whether this process is the one to do it; None: it is not."""
        self._store = store
        self._subscriptions = subscriptions
        self._lease = lease
        self._clock = clock
        self._chance = chance
        self._dead: int | None = None
        self._looked_at = 0.0

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                if await self._lease() is not None:
                    await self.look()
            except StoreError as error:
                log.warning("cannot look for dead letters: %s", error)
            await self._clock.sleep(EVERY * self._chance.uniform(0.8, 1.2))

    async def look(self) -> bool:
        """Tell of those that are new, if anybody wants to hear; whether there were any."""
        if not self._subscriptions.wants(DeadLetters):
            return False
        counts = await self._store.jobs.count()
        dead = sum(jobs for (_, state), jobs in counts.items() if state is JobState.DEAD)
        looked_ago = self._clock.monotonic() - self._looked_at
        if dead == self._dead and looked_ago < LOOK_CLOSELY_EVERY:
            return False
        record = await self._store.records.get(KIND, KEY)
        now = await self._store.now()
        told = _told(record)
        there = {_name(job): job for job in await self._list() if not _is_alarm(job)}
        new = [job for name, job in there.items() if name not in told]
        if new and record is not None and now - _told_at(record) < QUIET:
            return False
        if new or not there.keys() >= told.keys():
            try:
                await self._write(record, there, told, new, now)
            except VersionConflict:  # somebody else has just told; of how many, the next look shows
                return False
        self._dead, self._looked_at = dead, self._clock.monotonic()
        return bool(new)

    async def _list(self) -> list[Job]:
        """The newest dead letters, newest first."""
        found: list[Job] = []
        while len(found) < MOST:
            after = found[-1].id if found else ""
            page = await self._store.jobs.list(JobFilter(state=JobState.DEAD), after=after, limit=PAGE)
            found += page
            if len(page) < PAGE:
                break
        return found

    async def _write(
        self,
        record: Record | None,
        there: Mapping[str, Job],
        told: Mapping[str, None],
        new: Sequence[Job],
        now: datetime,
    ) -> None:
        # Those that are no more are struck off, or the list would grow for ever; of too many nobody knows who went.
        kept = [*there, *(name for name in told if name not in there)][: 2 * MOST] if len(there) >= MOST else [*there]
        at = now if new or record is None else _told_at(record)
        version = record.version if record else 0
        jobs = self._subscriptions.jobs([_event(new, version + 1, now)] if new else [])
        value: dict[str, Json] = {"told": [*kept], "at": at.isoformat()}
        await self._store.records.apply(KIND, KEY, version, Draft(value=value), jobs=jobs)


def _event(jobs: Sequence[Job], number: int, at: datetime) -> DeadLetters:
    sources = Counter("/".join(filter(None, (job.queue, job.kind, job.handler))) for job in jobs)
    return DeadLetters(
        id=f"{KEY}/{number}",
        reference=KEY,
        at=at,
        jobs=len(jobs),
        sources=dict(sources.most_common(MOST_SOURCES)),
        reasons=dict(Counter(job.reason for job in jobs).most_common()),
    )


def _is_alarm(job: Job) -> bool:
    """Whether it was to tell of such things itself: telling of it would bring about the next one."""
    return job.handler == HANDLER or job.kind == DeadLetters.type


def _name(job: Job) -> str:
    """A replayed job that dies again is told of again."""
    return f"{job.id}/{job.generation}"


def _told(record: Record | None) -> dict[str, None]:
    """In the order they were written."""
    return dict.fromkeys(cast("list[str]", record.value["told"])) if record else {}


def _told_at(record: Record) -> datetime:
    return datetime.fromisoformat(str(record.value["at"]))


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{name} {count}" for name, count in counts.items()]
