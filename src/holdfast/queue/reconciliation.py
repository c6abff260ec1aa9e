"""Finding what webhooks did not tell: vendors that can be asked are asked now and then what happened since.

What was missed enters by the door of deliveries, under the key the vendor's own webhook would have had: whichever of
the two comes second is a duplicate.
"""

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final, Protocol, runtime_checkable

from holdfast.clock import Clock
from holdfast.errors import CallFailed, StoreError, VersionConflict
from holdfast.http.session import Http
from holdfast.queue.inbox import to_job
from holdfast.queue.signals import DeliveriesMissed, Reconciled
from holdfast.resilience import Priority, priority
from holdfast.stores.store import Added, Draft, NewJob, Record, Store
from holdfast.telemetry import Telemetry
from holdfast.webhooks.request import Delivery, RawRequest

log = logging.getLogger("holdfast.reconciliation")

KIND: Final = "reconciliation"
BATCH: Final = 100
"""Deliveries that are added at once."""
OVERLAP: Final = timedelta(minutes=10)
"""Looked at again, for clocks that differ and for what a vendor lists late."""
FIRST: Final = timedelta(days=1)
"""How far back the first look goes."""
FARTHEST: Final = timedelta(days=30)
"""How far back any look goes."""


@runtime_checkable
class SupportsListing(Protocol):
    """The vendor can be asked what happened, also where its webhooks did not arrive."""

    @property
    def name(self) -> str: ...

    def list_deliveries(self, http: Http, since: datetime) -> AsyncIterable[Delivery]:
        """What its webhooks would have told since then, page by page, in any order.

        Each has the `dedup_key` and the `digest` that `parse` gives the webhook of the same happening. More than that,
        or a little of before `since`, does no harm. What cannot be read is left out, or it would hide what follows.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What one look found."""

    seen: int
    missed: int
    """Of these, what no webhook had told: it is in the queue now."""


class Reconciliation:
    """Asks each vendor that can be asked, one process of the fleet at a time."""

    def __init__(
        self,
        sources: Mapping[str, SupportsListing],
        store: Store,
        http: Callable[[SupportsListing], Http],
        lease: Callable[[], Awaitable[object]],
        each: Callable[[Iterable[Awaitable[object]]], Awaitable[None]],
        *,
        every: float,
        clock: Clock,
        chance: Random,
        telemetry: Telemetry,
    ) -> None:
        """`lease` says whether this process is the one to do it; None: it is not. `each` awaits all, whatever fails."""
        self._sources = sources
        self._store = store
        self._http = http
        self._lease = lease
        self._each = each
        self._every = every
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry

    async def run(self) -> None:
        """Look soon, then now and then, until cancelled."""
        if not self._sources or self._every <= 0:
            return
        await self._clock.sleep(min(self._every, 10.0) * self._chance.random())
        while True:
            try:
                if await self._lease() is not None:
                    await self._each([self._look_if_due(name) for name in self._sources])
            except StoreError as error:
                log.warning("cannot look for what was missed: %s", error)
            await self._clock.sleep(self._every * self._chance.uniform(0.8, 1.2))

    async def look(self) -> Mapping[str, Counts]:
        """Ask every vendor now.

        Raises:
            CallFailed: A vendor could not be asked; the others were.
        """
        found: dict[str, Counts] = {}
        failures: list[CallFailed] = []
        for name in self._sources:
            try:
                found[name] = await self._look(name, await self._store.records.get(KIND, name))
            except CallFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return found

    async def _look_if_due(self, name: str) -> None:
        """Another process may have looked just now, and lost its lease."""
        record = await self._store.records.get(KIND, name)
        if record is not None and await self._store.now() - _watermark(record) < timedelta(seconds=self._every / 2):
            return
        try:
            await self._look(name, record)
        except CallFailed as error:
            log.warning("%s could not be asked what was missed: %s", name, error)

    async def _look(self, name: str, record: Record | None) -> Counts:
        """Add what is missing since the watermark, then move that to when this look began."""
        source, begun = self._sources[name], await self._store.now()
        since = begun - FIRST if record is None else max(_watermark(record) - OVERLAP, begun - FARTHEST)
        seen = missed = 0
        jobs: list[NewJob] = []
        with priority(Priority.BULK):  # it waits for nobody, and nobody is to wait for it
            async for delivery in source.list_deliveries(self._http(source), since):
                jobs.append(to_job(name, delivery, _asked(begun)))
                seen += 1
                if len(jobs) == BATCH:
                    missed += await self._add(jobs)
                    jobs = []
        missed += await self._add(jobs)
        await self._advance(name, record, begun)
        self._telemetry.emit(Reconciled(name, seen, missed))
        if missed:
            self._telemetry.emit(DeliveriesMissed(name, missed))
        return Counts(seen=seen, missed=missed)

    async def _add(self, jobs: list[NewJob]) -> int:
        return (await self._store.jobs.add(jobs)).count(Added.NEW) if jobs else 0

    async def _advance(self, name: str, record: Record | None, to: datetime) -> None:
        version = 0 if record is None else record.version
        try:
            await self._store.records.apply(KIND, name, version, Draft(value={"watermark": to.isoformat()}))
        except VersionConflict:
            log.debug("somebody else has just asked %s, too", name)


def _watermark(record: Record) -> datetime:
    return datetime.fromisoformat(str(record.value["watermark"]))


def _asked(at: datetime) -> RawRequest:
    """In place of the request that never came."""
    return RawRequest(method="GET", url="", headers=(), body=b"", received_at=at)
