"""Freeing the jobs of processes of this host that died: at once, and not when their leases run out."""

import logging
from collections.abc import Mapping
from datetime import timedelta

from holdfast.clock import Clock
from holdfast.errors import StoreError, VersionConflict
from holdfast.queue.owners import Owner
from holdfast.queue.signals import TakenOver
from holdfast.stores.store import Draft, Record, Store
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.worker")

KIND = "worker"
CRASHES = 3
"""Takeovers in the fleet within ten leases. A job that ends every process it runs in must come to be lost: only a lease
that runs out counts a loss, and only losses bury it."""
LEASES = 10


class Takeover:
    """Keeps this owner in the store's list of owners, and frees what those of this host left when they died.

    The list has a place per owner alive at a time; places of the dead are used again.
    """

    def __init__(
        self, store: Store, owner: str, *, every: float, lease: float, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._store = store
        self._owner = owner
        self._self = Owner.parse(owner)
        self._every = every
        self._lease = lease
        self._clock = clock
        self._telemetry = telemetry
        self._place: Record | None = None
        self._neighbours: dict[str, Record] = {}
        self._read_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled; without a way to tell who is dead there is nothing to do."""
        if self._self is None or not self._self.host or not self._store.durable or self._every <= 0:
            return
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.warning("cannot look for dead processes: %s", error)
            await self._clock.sleep(self._every)

    async def look(self) -> None:
        """Free what the dead left; now and then, also read the list again."""
        if self._clock.monotonic() - self._read_at >= self._lease / 5:
            await self._read()
            self._read_at = self._clock.monotonic()
        for name, record in list(self._neighbours.items()):
            neighbour = Owner.parse(name)
            if neighbour is not None and self._self is not None and neighbour.is_dead(self._self):
                await self._take_over(name, record)
                self._neighbours.pop(name, None)

    async def _take_over(self, name: str, record: Record) -> None:
        if await self._store.counters.total("takeovers", window=LEASES * self._lease) >= CRASHES:
            return
        try:
            # Whoever of us strikes it off the list frees its jobs; it is a note only, since freeing twice is harmless.
            await self._store.records.apply(KIND, record.key, record.version, Draft(value={"owner": ""}))
        except VersionConflict:
            return
        freed = await self._store.jobs.release(name)
        if freed:
            await self._store.counters.add("takeovers", 1, window=LEASES * self._lease)
            self._telemetry.emit(TakenOver(name, freed))

    async def _read(self) -> None:
        """Who is there; and stay on the list ourselves, or take a free place, or make one."""
        records: list[Record] = []
        while page := await self._store.records.list(KIND, after=records[-1].key if records else ""):
            records += page
        owners = {str(record.value.get("owner", "")): record for record in records}
        owners.pop("", None)
        mine = owners.pop(self._owner, None)
        self._neighbours = {name: record for name, record in owners.items() if self._is_neighbour(name)}
        now = await self._store.now()
        until = now + timedelta(seconds=LEASES * self._lease)
        if mine is not None and mine.due_at is not None and mine.due_at - now > (until - now) / 2:
            return
        draft = Draft(value={"owner": self._owner}, due_at=until)
        places: Mapping[str, int] = (
            {mine.key: mine.version}
            if mine is not None
            else {
                record.key: record.version
                for record in records
                if not record.value.get("owner") or (record.due_at is not None and record.due_at <= now)
            }
            | {f"{len(records) + extra:06d}": 0 for extra in range(100)}
        )
        for key, version in places.items():
            try:
                self._place = await self._store.records.apply(KIND, key, version, draft)
                return
            except VersionConflict:
                continue

    def _is_neighbour(self, name: str) -> bool:
        owner = Owner.parse(name)
        return owner is not None and self._self is not None and owner.host == self._self.host
