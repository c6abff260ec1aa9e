"""The kernel in memory: for tests, and the model the other engines are held to."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Self

from holdfast.clock import Clock, SystemClock
from holdfast.errors import AlreadyReplayed, LeaseLost, NaiveDatetime, NotFound, VersionConflict
from holdfast.stores import poison
from holdfast.stores.documents import decode, encode, utf8
from holdfast.stores.lifetime import Lifetime
from holdfast.stores.listeners import Listeners
from holdfast.stores.readiness import Outlook, Readiness
from holdfast.stores.store import ALL_JOBS, Added, Draft, Job, JobFilter, JobState, Json, Lease, NewJob, Record
from holdfast.stores.store_time import EPOCH, StoreTime

ACTIVE = {JobState.READY, JobState.LEASED}


class MemoryStore:
    """A store that forgets everything with the process."""

    durable = False

    def __init__(self, *, clock: Clock | None = None, skew_ms: int = 0) -> None:
        clock = clock or SystemClock()
        self._lifetime = Lifetime("memory://")
        self._time = StoreTime(clock, skew_ms)
        self.jobs = MemoryJobs(self._lifetime, self._time, Readiness(clock, self._time))
        self.records = MemoryRecords(self._lifetime, self._time, self.jobs)
        self.leases = MemoryLeases(self._lifetime, self._time)
        self.counters = MemoryCounters(self._lifetime, self._time)
        self.bus = MemoryBus(self._lifetime)

    async def __aenter__(self) -> Self:
        self._lifetime.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._lifetime.close()

    async def now(self) -> datetime:
        self._lifetime.check()
        return self._time.now()


@dataclass(slots=True)
class _Row:
    """A job, and what nobody outside may see."""

    number: int
    digest: str
    job: Job
    owner: str = ""
    lease_until: datetime = EPOCH
    ended_at: datetime = EPOCH

    @property
    def leased(self) -> bool:
        return self.job.state is JobState.LEASED

    @property
    def claimable_at(self) -> datetime:
        return self.lease_until if self.leased else self.job.due_at

    @property
    def order(self) -> tuple[str, str]:
        return self.job.queue, self.job.ordering_key


class MemoryJobs:
    """The queue."""

    def __init__(self, lifetime: Lifetime, time: StoreTime, readiness: Readiness) -> None:
        self._lifetime = lifetime
        self._time = time
        self._readiness = readiness
        self._rows: dict[str, _Row] = {}
        self._by_key: dict[tuple[str, str], _Row] = {}
        self._active: dict[str, _Row] = {}
        self._dropped: dict[tuple[str, str], datetime] = {}
        self._number = 0

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        self._lifetime.check()
        return self.keep(jobs)

    def keep(self, jobs: Sequence[NewJob]) -> list[Added]:
        """Add these to the queue, inside another change."""
        for new in jobs:
            encode(new.headers)  # what cannot be kept is refused before anything is
            utf8(new.key)
        now = self._time.now()
        added = [self._keep(new, now) for new in jobs]
        self._readiness.changed()
        return added

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        self._lifetime.check()
        self._readiness.claiming()
        now = self._time.now()
        for row in [row for row in self._active.values() if row.job.queue in queues]:
            if row.leased and row.lease_until <= now and row.job.losses + 1 >= poison.MAX_LOSSES:
                self._end(row, JobState.DEAD, losses=poison.MAX_LOSSES, reason=poison.REASON, error=poison.ERROR)
        due = [row for row in self._heads() if row.job.queue in queues and row.claimable_at <= now]
        due.sort(key=lambda row: (row.job.due_at, row.number))
        return [self._lease(row, owner, now + timedelta(seconds=lease)) for row in due[: max(0, limit)]]

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        self._lifetime.check()
        until = self._time.after(lease)
        lost: set[str] = set()
        for job in claimed:
            try:
                self._held(job).lease_until = until
            except LeaseLost:
                lost.add(job.id)
        return lost

    async def complete(self, job: Job) -> None:
        self._end(self._held(job), JobState.DONE)

    async def ignore(self, job: Job) -> None:
        self._end(self._held(job), JobState.IGNORED)

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        row = self._held(job)
        self._give_back(row, attempts=row.job.attempts + 1, error=error, due_at=self._time.after(after))

    async def snooze(self, job: Job, *, after: float) -> None:
        self._give_back(self._held(job), due_at=self._time.after(after))

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        self._end(self._held(job), JobState.DEAD, reason=reason, error=error)

    async def release(self, owner: str) -> int:
        self._lifetime.check()
        held = [row for row in self._active.values() if row.leased and row.owner == owner]
        for row in held:
            self._give_back(row)
        return len(held)

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        row = self._row(job_id, generation)
        if row.job.state not in ACTIVE:
            row.job = replace(
                row.job,
                state=JobState.READY,
                token=row.job.token + 1,
                generation=row.job.generation + 1,
                attempts=0,
                losses=0,
                due_at=self._time.now(),
                reason="",
            )
            self._active[job_id] = row
            self._readiness.changed()
        return row.job

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        row = self._row(job_id, generation)
        if row.job.state in ACTIVE:
            return False
        self._drop(row)
        return True

    async def get(self, job_id: str) -> Job:
        return self._row(job_id).job

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        self._lifetime.check()
        if after and not (after.isascii() and after.isdigit()):
            raise NotFound("job", after)
        rows = reversed(self._rows.values()) if newest else self._rows.values()
        behind = (row for row in rows if not after or (row.number < int(after) if newest else row.number > int(after)))
        wanted = (row.job for row in behind if where.matches(row.job))
        return list(islice(wanted, max(0, limit)))

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        self._lifetime.check()
        return Counter((row.job.queue, row.job.state) for row in self._rows.values())

    async def oldest(self) -> Mapping[str, datetime]:
        self._lifetime.check()
        now = self._time.now()
        oldest: dict[str, datetime] = {}
        for job in (row.job for row in self._heads() if not row.leased and row.job.due_at <= now):
            oldest[job.queue] = min(job.due_at, oldest.get(job.queue, now))
        return oldest

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        self._lifetime.check()
        horizon = self._time.after(-older_than)
        for key in [key for key, dropped_at in self._dropped.items() if dropped_at <= horizon][:limit]:
            del self._dropped[key]
        ended = [row for row in self._rows.values() if row.job.state in states and row.job.state not in ACTIVE]
        old = sorted((row for row in ended if row.ended_at <= horizon), key=lambda row: row.ended_at)[:limit]
        for row in old:
            self._drop(row)
        return len(old)

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        self._lifetime.check()
        encode(headers)
        row = self._rows.get(job.id)
        if row is None or row.job.body != job.body:
            return False
        row.job = replace(row.job, body=body, headers=dict(headers))
        return True

    async def wait(self, timeout: float) -> None:
        self._lifetime.check()
        await self._readiness.wait(timeout, self._outlook)

    async def _outlook(self, claimed_at: datetime) -> Outlook:
        moments = [row.claimable_at for row in self._heads()]
        return Outlook(
            overdue=any(moment <= claimed_at for moment in moments),
            next=min((moment for moment in moments if moment > claimed_at), default=None),
        )

    def _keep(self, new: NewJob, now: datetime) -> Added:
        key = (new.queue, new.key)
        if key in self._dropped:
            return Added.DUPLICATE
        if (row := self._by_key.get(key)) is not None:
            conflict = row.digest != new.digest
            row.job = replace(row.job, arrivals=row.job.arrivals + 1, conflicts=row.job.conflicts + conflict)
            return Added.CONFLICT if conflict else Added.DUPLICATE
        self._number += 1
        job = _job(str(self._number), new, now)
        self._rows[job.id] = self._by_key[key] = row = _Row(self._number, new.digest, job, ended_at=now)
        if not new.ignored:
            self._active[job.id] = row
        return Added.NEW

    def _heads(self) -> Iterable[_Row]:
        """Who may run next: of each ordering key only the leased row, else the one added first."""
        heads: dict[tuple[str, str], _Row] = {}
        for row in sorted(self._active.values(), key=lambda row: (not row.leased, row.number)):
            if row.job.ordering_key:
                heads.setdefault(row.order, row)
            else:
                yield row
        yield from heads.values()

    def _lease(self, row: _Row, owner: str, until: datetime) -> Job:
        row.job = replace(row.job, state=JobState.LEASED, token=row.job.token + 1, losses=row.job.losses + row.leased)
        row.owner, row.lease_until = owner, until
        return row.job

    def _give_back(self, row: _Row, **changes: object) -> None:
        row.job = replace(row.job, state=JobState.READY, **changes)  # type: ignore[arg-type]  # fields of Job
        self._readiness.changed()

    def _end(self, row: _Row, state: JobState, **changes: object) -> None:
        row.job = replace(row.job, state=state, **changes)  # type: ignore[arg-type]  # fields of Job
        row.ended_at = self._time.now()
        del self._active[row.job.id]
        self._readiness.changed()

    def _drop(self, row: _Row) -> None:
        key = row.job.queue, row.job.key
        del self._rows[row.job.id], self._by_key[key]
        self._dropped[key] = self._time.now()

    def _held(self, job: Job) -> _Row:
        self._lifetime.check()
        row = self._active.get(job.id)
        if row is None or not row.leased or row.job.token != job.token:
            raise LeaseLost(f"job {job.id}")
        return row

    def _row(self, job_id: str, generation: int | None = None) -> _Row:
        self._lifetime.check()
        if job_id not in self._rows:
            raise NotFound("job", job_id)
        row = self._rows[job_id]
        if generation not in (None, row.job.generation):
            raise AlreadyReplayed(job_id, row.job.generation)
        return row


def _job(job_id: str, new: NewJob, now: datetime) -> Job:
    return Job(
        id=job_id,
        queue=new.queue,
        key=new.key,
        kind=new.kind,
        handler=new.handler,
        body=new.body,
        headers=dict(new.headers),
        ordering_key=new.ordering_key,
        state=JobState.IGNORED if new.ignored else JobState.READY,
        token=0,
        attempts=0,
        losses=0,
        generation=0,
        arrivals=1,
        conflicts=0,
        created_at=now,
        due_at=now + timedelta(seconds=new.delay),
        error="",
        reason="",
    )


@dataclass(slots=True)
class _Document:
    """A record, as text, so that nobody holds a reference into it."""

    version: int
    text: str
    index: dict[str, set[str]]
    due_at: datetime | None


class MemoryRecords:
    """Versioned documents."""

    def __init__(self, lifetime: Lifetime, time: StoreTime, jobs: MemoryJobs) -> None:
        self._lifetime = lifetime
        self._time = time
        self._jobs = jobs
        self._documents: defaultdict[str, dict[str, _Document]] = defaultdict(dict)

    async def get(self, kind: str, key: str) -> Record | None:
        return next(iter(self._records(kind, [key] if key in self._documents[kind] else [])), None)

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        self._lifetime.check()
        if new.due_at is not None and new.due_at.tzinfo is None:
            raise NaiveDatetime("due_at")
        text = encode(new.value)
        current = self._documents[kind].get(key)
        if (current.version if current else 0) != expected:
            raise VersionConflict(kind, key)
        if jobs:
            self._jobs.keep(jobs)
        index = {name: set(values) for name, values in new.index.items()}
        self._documents[kind][key] = _Document(expected + 1, text, index, new.due_at)
        return Record(kind=kind, key=key, version=expected + 1, value=decode(text), due_at=new.due_at)

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        documents = self._documents[kind]
        found = [key for key, document in documents.items() if value in document.index.get(index, ())]
        return self._records(kind, sorted(found)[:limit])

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        now = self._time.now()
        due = sorted(
            (document.due_at, key)
            for key, document in self._documents[kind].items()
            if document.due_at is not None and document.due_at <= now
        )
        return self._records(kind, [key for _, key in due[:limit]])

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        self._lifetime.check()
        text = encode(value)
        document = self._documents[record.kind].get(record.key)
        if document is None or document.version != record.version:
            return False
        document.text = text
        return True

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        return self._records(kind, sorted(key for key in self._documents[kind] if key > after)[:limit])

    def _records(self, kind: str, keys: Iterable[str]) -> Sequence[Record]:
        self._lifetime.check()
        return [
            Record(kind=kind, key=key, version=found.version, value=decode(found.text), due_at=found.due_at)
            for key in keys
            for found in [self._documents[kind][key]]
        ]


class MemoryLeases:
    """Who may do what only one may do."""

    def __init__(self, lifetime: Lifetime, time: StoreTime) -> None:
        self._lifetime = lifetime
        self._time = time
        self._current: dict[str, tuple[Lease, datetime]] = {}

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        self._lifetime.check()
        last, until = self._current.get(name, (Lease(name=name, owner="", number=0), EPOCH))
        if until <= self._time.now():
            last = replace(last, owner=owner, number=last.number + 1)
        elif last.owner != owner:
            return None
        self._current[name] = last, self._time.after(ttl)
        return last

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        held = self._holds(lease)
        if held:
            self._current[lease.name] = lease, self._time.after(ttl)
        return held

    async def release(self, lease: Lease) -> None:
        if self._holds(lease):
            self._current[lease.name] = lease, EPOCH

    def _holds(self, lease: Lease) -> bool:
        self._lifetime.check()
        current, until = self._current.get(lease.name, (None, EPOCH))
        return current == lease and until > self._time.now()


@dataclass(slots=True)
class _Slots:
    """Some slots one owner took, or gave back to be free later."""

    owner: str
    count: int
    until: datetime
    cooling: bool = False


class MemoryCounters:
    """Sums and slots over a time window."""

    def __init__(self, lifetime: Lifetime, time: StoreTime) -> None:
        self._lifetime = lifetime
        self._time = time
        self._sums: dict[str, list[tuple[datetime, int]]] = {}
        self._taken: dict[str, list[_Slots]] = {}

    async def add(self, name: str, amount: int, *, window: float) -> int:
        self._lifetime.check()
        oldest = self._time.after(-window)
        kept = [(at, added) for at, added in self._sums.get(name, ()) if at > oldest]
        self._sums[name] = [*kept, (self._time.now(), amount)]
        return await self.total(name, window=window)

    async def total(self, name: str, *, window: float) -> int:
        self._lifetime.check()
        oldest = self._time.after(-window)
        return sum(added for at, added in self._sums.get(name, ()) if at > oldest)

    async def take(self, name: str, *, owner: str, slots: int, wanted: int, ttl: float) -> int:
        self._lifetime.check()
        taken = self._live(name)
        had = max(0, min(wanted, slots - sum(some.count for some in taken)))
        if had:
            taken.append(_Slots(owner, had, self._time.after(ttl)))
        return had

    async def give(self, name: str, *, owner: str, count: int, after: float = 0.0) -> None:
        self._lifetime.check()
        taken = self._live(name)
        for some in sorted(taken, key=lambda some: some.until):
            if some.owner == owner and not some.cooling and count > 0:
                given = min(count, some.count)
                some.count -= given
                count -= given
                taken.append(_Slots(owner, given, self._time.after(after), cooling=True))

    def _live(self, name: str) -> list[_Slots]:
        now = self._time.now()
        live = [some for some in self._taken.get(name, ()) if some.until > now and some.count]
        self._taken[name] = live
        return live


class MemoryBus:
    """Small facts to every listener of this process."""

    def __init__(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._listeners = Listeners()

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        self._lifetime.check()
        self._listeners.tell(topic, encode(fact))

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        self._lifetime.check()
        return self._listeners.listen(topic)
