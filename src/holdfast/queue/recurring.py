"""Recurring work: each slot of time once in the whole fleet, without a leader."""

import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, StoreError, VersionConflict
from holdfast.queue.calls import Callee, Callees, Handler
from holdfast.queue.signals import SlotsMissed
from holdfast.queue.worker import Result
from holdfast.stores.store import Draft, Job, NewJob, Record, Store
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.worker")

QUEUE = "timers"
KIND = "timer"

MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
"""Slots are counted from here: a day begins at midnight UTC, a week on a Monday."""
LOOK = 60.0
"""The longest wait, in seconds, before the store's time is asked again: our own clock may have stood still."""
SPREAD = 0.5
"""Seconds over which the processes of a fleet look at a new slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timer:
    """Work that recurs."""

    callee: Callee
    every: timedelta
    offset: timedelta
    jitter: timedelta

    def slot(self, now: datetime) -> datetime:
        """When the slot began that `now` is in."""
        return now - (now - MONDAY - self.offset) % self.every


class Recurring:
    """Adds a job for each slot of each timer; which process does it is of no importance."""

    def __init__(self, store: Store, *, clock: Clock, chance: random.Random, telemetry: Telemetry) -> None:
        self._store = store
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._callees = Callees()
        self._timers: dict[str, Timer] = {}
        self._seen: dict[str, datetime] = {}

    def add(self, name: str, handler: Handler, *, every: timedelta, offset: timedelta, jitter: timedelta) -> None:
        """Register work that recurs.

        Raises:
            ConfigurationError: The name is taken, or the times do not go together.
        """
        if every < timedelta(seconds=1) or not timedelta(0) <= offset < every or not timedelta(0) <= jitter < every:
            raise ConfigurationError(f"{name}: every is a second or more, offset and jitter are shorter than every")
        self._callees.add(name, handler, payload=datetime)
        self._timers[name] = Timer(callee=self._callees.get(name), every=every, offset=offset, jitter=jitter)

    @property
    def queues(self) -> list[str]:
        """The queue its jobs wait in, if there are any."""
        return [QUEUE] if self._timers else []

    async def run(self) -> None:
        """Add what is due until cancelled."""
        while self._timers:
            try:
                pause = await self.look()
            except StoreError as error:
                log.warning("cannot look for recurring work: %s", error)
                pause = 1.0
            await self._clock.sleep(pause + self._chance.uniform(0.0, SPREAD))

    async def look(self) -> float:
        """Add what is due; the seconds until the next slot."""
        if not self._timers:
            return LOOK
        now = await self._store.now()
        for name, timer in self._timers.items():
            slot = timer.slot(now)
            if self._seen.get(name) != slot:
                await self._reach(name, timer, slot)
                self._seen[name] = slot
        until = min(timer.slot(now) + timer.every - now for timer in self._timers.values())
        return min(LOOK, until.total_seconds())

    async def perform(self, job: Job) -> Result:
        """Run the work, unless the next slot has come before this one could begin, or succeed."""
        timer = self._timer(job.kind)
        call = timer.callee.call(job)
        record = await self._store.records.get(KIND, job.kind)
        if record is not None and _slot_of(record) > call.payload:
            return "ignored"
        await timer.callee.run(call)
        return "done"

    async def _reach(self, name: str, timer: Timer, slot: datetime) -> None:
        """Have the slot on record, and its job in the queue."""
        record = await self._store.records.get(KIND, name)
        last = _slot_of(record) if record is not None else None
        if last == slot:
            return
        # Work that was never known begins with its next slot: it missed nothing. And so it is when the store's time was
        # set back: what ran too early is in the queue, whose keys keep it from running again.
        jobs = [self._job(name, timer, slot)] if last is not None and last < slot else []
        try:
            version = record.version if record is not None else 0
            await self._store.records.apply(KIND, name, version, Draft(value={"slot": slot.isoformat()}), jobs=jobs)
        except VersionConflict:
            await self._reach(name, timer, slot)  # somebody else was first
            return
        missed = (slot - last) // timer.every - 1 if last is not None else 0
        if missed > 0:
            self._telemetry.emit(SlotsMissed(name, missed))

    def _job(self, name: str, timer: Timer, slot: datetime) -> NewJob:
        return NewJob(
            queue=QUEUE,
            key=f"{name}/{slot.isoformat()}",
            kind=name,
            body=timer.callee.payload.dump_json(slot),
            ordering_key=name,
            delay=self._chance.uniform(0.0, timer.jitter.total_seconds()),
        )

    def _timer(self, name: str) -> Timer:
        if name not in self._timers:
            raise ConfigurationError(f"no handler does the recurring work {name!r}; register one with hub.every")
        return self._timers[name]


def _slot_of(record: Record) -> datetime:
    value: Any = record.value.get("slot")
    return datetime.fromisoformat(value)
