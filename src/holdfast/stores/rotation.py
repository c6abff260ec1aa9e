"""Sealing anew what rests under an older key, or under none."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from holdfast.clock import Clock
from holdfast.errors import Unreadable
from holdfast.stores import subject_keys
from holdfast.stores.documents import encode
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.sealed import SealedJob, key_id_of, named, subject_of
from holdfast.stores.store import Job, Record, Records

BATCH = 100
PAUSE = 0.02
"""Seconds between two batches, for the others who use the store."""

KINDS = frozenset({"audit", "call", "dispatch", "meeting", "payment", "redrive", "redrive.page", "token", "worker"})
"""Kinds of records that may be older than the encryption; those sealed once are listed in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """What a rotation did, and what it could not do."""

    keys: int = 0
    """Subjects' keys that were wrapped anew; what rests under them needs nothing."""
    records: int = 0
    jobs: int = 0
    looked_at: int = 0
    problems: tuple[str, ...] = ()
    """Rows that could not be opened, and stay as they are; the first hundred."""
    old_keys: Mapping[str, int] = field(default_factory=dict[str, int])
    """Keys that rows still rest under, by their ids: they have to stay in the ring."""

    @property
    def complete(self) -> bool:
        """Nothing rests under an older key, or under none."""
        return not self.problems and not self.old_keys


class Rotating:
    """One pass through the store; run it again after an interruption: what is done is passed over."""

    def __init__(
        self,
        store: EncryptedStore,
        *,
        clock: Clock,
        told: Callable[[Rotation], None] | None = None,
        kinds: Collection[str] = (),
        subject_of_job: Callable[[Job], str] = lambda job: "",
        subject_of_record: Callable[[Record], str] = lambda record: "",
        batch: int = BATCH,
        pause: float = PAUSE,
    ) -> None:
        """`told` hears of every batch. Subjects are asked for where a row was never sealed; others name their own."""
        self._store = store
        self._clock = clock
        self._told = told
        self._kinds = KINDS | set(kinds)
        self._subject_of_job = subject_of_job
        self._subject_of_record = subject_of_record
        self._batch = batch
        self._pause = pause
        self._done = Rotation()

    async def run(self) -> Rotation:
        """Go through keys, records and jobs once."""
        keys = self._store.keys_in.records
        async for records in _pages(keys, subject_keys.KIND, self._batch):
            for record in records:
                await self._key(record)
            await self._breathe(len(records))
        for kind in sorted(self._kinds | await self._store.records.kinds()):
            async for records in _pages(self._store.inner.records, kind, self._batch):
                for record in records:
                    await self._record(record)
                await self._breathe(len(records))
        after = ""
        while jobs := await self._store.inner.jobs.list(after=after, limit=self._batch, newest=False):
            after = jobs[-1].id
            for job in jobs:
                await self._job(job)
            await self._breathe(len(jobs))
        return self._done

    async def _key(self, record: Record) -> None:
        try:
            if await self._store.subject_keys.rewrap(record):
                self._done = replace(self._done, keys=self._done.keys + 1)
        except Unreadable as problem:
            self._note(problem)

    async def _record(self, record: Record | None) -> None:
        while record is not None and not self._is_current(record):
            [opened] = await self._store.records.opened([record])
            if isinstance(opened, Unreadable):
                self._note(opened, record)
                return
            subject = subject_of(record) or named(self._subject_of_record(opened))
            if await self._store.records.reseal(record, encode(opened.value), subject):
                self._done = replace(self._done, records=self._done.records + 1)
                return
            record = await self._store.inner.records.get(record.kind, record.key)

    async def _job(self, job: Job) -> None:
        if self._is_current(job):
            return
        [opened] = await self._store.jobs.opened([job])
        if isinstance(opened, SealedJob):
            self._note(opened.problem, job)
            return
        subject = subject_of(job) or named(self._subject_of_job(opened))
        # What a job carries never changes; where it did, somebody else rotates too, or it was dropped.
        if await self._store.jobs.reseal(job, opened, subject):
            self._done = replace(self._done, jobs=self._done.jobs + 1)

    def _is_current(self, row: Job | Record) -> bool:
        """What rests under a subject's key is turned by its key."""
        return key_id_of(row) in ("", self._store.ring.current)

    def _note(self, problem: Unreadable, row: Job | Record | None = None) -> None:
        key_id = key_id_of(row) if row is not None else None
        old = dict(self._done.old_keys)
        if key_id:
            old[key_id] = old.get(key_id, 0) + 1
        problems = self._done.problems
        if len(problems) < 100:
            problems = (*problems, str(problem))
        self._done = replace(self._done, problems=problems, old_keys=old)

    async def _breathe(self, looked_at: int) -> None:
        self._done = replace(self._done, looked_at=self._done.looked_at + looked_at)
        if self._told is not None:
            self._told(self._done)
        await self._clock.sleep(self._pause)


async def _pages(records: Records, kind: str, limit: int) -> AsyncGenerator[Sequence[Record]]:
    after = ""
    while page := await records.list(kind, after=after, limit=limit):
        yield page
        after = page[-1].key
