"""A store in which payloads rest sealed: bodies, headers and record values, whatever the engine.

What the engine has to look at stays readable: ids, queues, keys, kinds, handlers, ordering keys, states, index values,
times, digests and errors.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, Self

from holdfast.errors import Forgotten, LeaseLost, NotFound, UnknownKey, Unreadable, VersionConflict
from holdfast.stores.documents import decode, encode, utf8
from holdfast.stores.key_ring import SUBJECT, Envelope, KeyRing
from holdfast.stores.sealed import (
    MARKED,
    Keys,
    SealedJob,
    emptied_job,
    envelope_of,
    named,
    open_job,
    open_record,
    seal_job,
    seal_record,
    subject_of,
)
from holdfast.stores.store import (
    ALL_JOBS,
    Added,
    Bus,
    Change,
    Counters,
    Draft,
    Job,
    JobFilter,
    Jobs,
    JobState,
    Json,
    Leases,
    NewJob,
    Record,
    Records,
    Store,
    SupportsTransactions,
)
from holdfast.stores.subject_keys import Openers, SubjectKeys

log = logging.getLogger("holdfast.store")

UNREADABLE: Final = "unreadable"
"""The reason of a dead job that was altered."""
PATIENCE: Final = 60.0
"""Seconds after which a job whose key is not there is looked at again."""
TOLD: Final = 10
"""Records that cannot be opened and are named, each time; the others are counted, for every sweep meets them again."""

KINDS: Final = ("encryption", "kinds")
"""The record that lists the kinds of sealed records, for rotation to find them."""


class EncryptedStore:
    """Any store, with its payloads sealed."""

    def __init__(self, inner: Store, ring: KeyRing, *, subject_keys: Store | None = None) -> None:
        """`subject_keys` is a store of its own for the subjects' keys: a backup of the one then opens nothing without
        the other."""
        self.inner = inner
        """The engine, in which everything is sealed."""
        self.ring = ring
        self.keys_in = subject_keys or inner
        """Where the subjects' keys are."""
        self.subject_keys = SubjectKeys(lambda: self.keys_in.records, ring)
        kind = TransactionalJobs if isinstance(inner.jobs, SupportsTransactions) else EncryptedJobs
        self.jobs = kind(inner.jobs, ring, self.subject_keys)
        self.records = EncryptedRecords(inner.records, ring, self.subject_keys, self.jobs)
        self._stack: AsyncExitStack | None = None

    @property
    def leases(self) -> Leases:
        return self.inner.leases

    @property
    def counters(self) -> Counters:
        return self.inner.counters

    @property
    def bus(self) -> Bus:
        return self.inner.bus

    @property
    def durable(self) -> bool:
        return self.inner.durable

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.inner)
            if self.keys_in is not self.inner:
                await stack.enter_async_context(self.keys_in)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        stack, self._stack = self._stack, None
        if stack is None:
            await self.inner.__aexit__(*error)
        else:
            await stack.aclose()

    async def now(self) -> datetime:
        return await self.inner.now()


class EncryptedJobs:
    """The queue."""

    def __init__(self, inner: Jobs, ring: KeyRing, subject_keys: SubjectKeys) -> None:
        self._inner = inner
        self._ring = ring
        self._subject_keys = subject_keys

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        return await self._inner.add(await self.sealed(jobs))

    async def sealed(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """These as they are to rest."""
        keys = await self._subject_keys.for_sealing({named(job.subject) for job in jobs if job.subject})
        return [self._seal(job, keys) for job in jobs]

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        while True:
            claimed = await self._inner.claim(queues, owner=owner, limit=limit, lease=lease)
            opened = await self.opened(claimed)
            readable = [job for job in opened if not isinstance(job, SealedJob)]
            if len(readable) < len(opened):
                await self._set_aside([job for job in opened if isinstance(job, SealedJob)])
            if readable or not claimed:
                return readable

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        return await self._inner.heartbeat(claimed, lease=lease)

    async def complete(self, job: Job) -> None:
        await self._inner.complete(job)

    async def ignore(self, job: Job) -> None:
        await self._inner.ignore(job)

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        await self._inner.retry(job, after=after, error=error)

    async def snooze(self, job: Job, *, after: float) -> None:
        await self._inner.snooze(job, after=after)

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        await self._inner.bury(job, reason=reason, error=error)

    async def release(self, owner: str) -> int:
        return await self._inner.release(owner)

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        """As any store does; a job that cannot be opened comes back as a `SealedJob`."""
        [job] = await self.opened([await self._inner.replay(job_id, generation=generation)])
        return job

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        return await self._inner.drop(job_id, generation=generation)

    async def get(self, job_id: str) -> Job:
        """One row. Raises NotFound, UnknownKey, Forgotten, Unreadable."""
        [job] = await self.opened([await self._inner.get(job_id)])
        if isinstance(job, SealedJob):
            raise job.problem
        return job

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        """As any store does; jobs that cannot be opened come as `SealedJob`."""
        return await self.opened(await self._inner.list(where, after=after, limit=limit, newest=newest))

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        return await self._inner.count()

    async def oldest(self) -> Mapping[str, datetime]:
        return await self._inner.oldest()

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        return await self._inner.purge(older_than=older_than, states=states, limit=limit)

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            present = await self._inner.get(job.id)
        except NotFound:
            return False
        [opened] = await self.opened([present])
        if isinstance(opened, SealedJob) or opened.body != job.body:
            return False
        return await self.reseal(present, replace(opened, body=body, headers=headers), subject_of(present))

    async def wait(self, timeout: float) -> None:
        await self._inner.wait(timeout)

    async def opened(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """These with what they carry; one that cannot be opened as a `SealedJob`."""
        envelopes = [envelope_of(job) for job in jobs]
        keys = await _openers(self._subject_keys, envelopes)
        return [open_job(job, envelope, keys, self._ring) for job, envelope in zip(jobs, envelopes, strict=True)]

    async def reseal(self, present: Job, opened: Job, subject: str) -> bool:
        """Let `present` carry what `opened` does, sealed anew; False: it changed meanwhile."""
        keys = await self._subject_keys.for_sealing({subject} if subject else ())
        body = seal_job(opened, subject, keys, self._ring)
        return await self._inner.rewrite(present, body=body, headers=MARKED)

    async def shred(self, present: Job, subject: str) -> bool:
        """Let `present` carry nothing, as if it had rested under a key of the subject that was destroyed."""
        return await self._inner.rewrite(present, body=emptied_job(subject), headers=MARKED)

    def _seal(self, new: NewJob, keys: Keys) -> NewJob:
        utf8(new.key)
        body = seal_job(new, named(new.subject), keys, self._ring)
        return replace(new, body=body, headers=MARKED, subject="")

    async def _set_aside(self, jobs: Sequence[SealedJob]) -> None:
        """What nobody can read is nobody's to handle: kept until its key is back, ended where it cannot come back."""
        told = Counter[str]()
        for job in jobs:
            with suppress(LeaseLost):
                match job.problem:
                    case Forgotten():
                        await self._inner.ignore(job)
                    case UnknownKey(why=why):
                        await self._inner.snooze(job, after=PATIENCE)
                        told[f"{why}; they are tried again in {PATIENCE:g} s"] += 1
                    case problem:
                        await self._inner.bury(job, reason=UNREADABLE, error=str(problem))
                        told[f"{problem.why}; they are dead letters now"] += 1
        for words, count in told.items():
            log.error("%d jobs cannot be opened: %s", count, words)


class TransactionalJobs(EncryptedJobs):
    """The queue in a database that also holds what its handlers change."""

    async def complete_with(self, changes: Sequence[tuple[Job, Change]]) -> list[Exception | None]:
        inner = self._inner
        assert isinstance(inner, SupportsTransactions)
        return await inner.complete_with(changes)


class EncryptedRecords:
    """Versioned documents."""

    def __init__(self, inner: Records, ring: KeyRing, subject_keys: SubjectKeys, jobs: EncryptedJobs) -> None:
        self._inner = inner
        self._ring = ring
        self._subject_keys = subject_keys
        self._jobs = jobs
        self._kinds: set[str] = set()

    async def get(self, kind: str, key: str) -> Record | None:
        """The record as last committed. Raises UnknownKey, Forgotten, Unreadable."""
        record = await self._inner.get(kind, key)
        if record is None:
            return None
        [opened] = await self.opened([record])
        if isinstance(opened, Unreadable):
            raise opened
        return opened

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        text = encode(new.value)
        await self._note(kind)
        subject = named(new.subject)
        keys = await self._subject_keys.for_sealing({subject} if subject else ())
        value = seal_record(kind, key, text, subject, keys, self._ring)
        sealed = replace(new, value=value, subject="")
        applied = await self._inner.apply(kind, key, expected, sealed, jobs=await self._jobs.sealed(jobs))
        return replace(applied, value=decode(text))

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        return _readable(await self.opened(await self._inner.find(kind, index, value, limit=limit)))

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        # However many cannot be opened: they are due for ever, and must not keep all others from their turn.
        wanted = limit
        while True:
            found = await self._inner.due(kind, limit=wanted)
            opened = [record for record in await self.opened(found) if not isinstance(record, Forgotten)]
            if len(found) < wanted or sum(isinstance(record, Record) for record in opened) >= limit:
                return _readable(opened)[:limit]
            wanted *= 2

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        return _readable(await self.opened(await self._inner.list(kind, after=after, limit=limit)))

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        text = encode(value)
        present = await self._inner.get(record.kind, record.key)
        if present is None or present.version != record.version:
            return False
        return await self.reseal(present, text, subject_of(present))

    async def opened(self, records: Sequence[Record]) -> Sequence[Record | Unreadable]:
        """These with their values, and in the place of one that cannot be opened the reason."""
        envelopes = [envelope_of(record) for record in records]
        keys = await _openers(self._subject_keys, envelopes)
        return [self._open(record, envelope, keys) for record, envelope in zip(records, envelopes, strict=True)]

    async def reseal(self, present: Record, text: str, subject: str) -> bool:
        """Keep this JSON in the place of `present`, sealed anew; False: it changed meanwhile."""
        keys = await self._subject_keys.for_sealing({subject} if subject else ())
        value = seal_record(present.kind, present.key, text, subject, keys, self._ring)
        return await self._inner.rewrite(present, value)

    async def kinds(self) -> set[str]:
        """The kinds of records that were ever sealed here."""
        record = await self._inner.get(*KINDS)
        return _listed(record)

    def _open(self, record: Record, envelope: Envelope | None, keys: Openers) -> Record | Unreadable:
        try:
            return open_record(record, envelope, keys, self._ring)
        except Unreadable as error:
            return error

    async def _note(self, kind: str) -> None:
        """List the kind, once for each process and kind."""
        while kind not in self._kinds:
            record = await self._inner.get(*KINDS)
            known = _listed(record)
            if kind not in known:
                draft = Draft(value={"kinds": [*sorted(known | {kind})]})
                try:
                    await self._inner.apply(*KINDS, record.version if record else 0, draft)
                except VersionConflict:
                    continue
            self._kinds |= known | {kind}


async def _openers(keys: SubjectKeys, envelopes: Iterable[Envelope | None]) -> Openers:
    return await keys.for_opening({each.name for each in envelopes if each is not None and each.kind == SUBJECT})


def _readable(opened: Sequence[Record | Unreadable]) -> Sequence[Record]:
    """One that cannot be opened must not stand before all others; where none can be, that is told.

    First one that may be opened again, with its key, then one that is forgotten.
    """
    readable = [record for record in opened if isinstance(record, Record)]
    problems = [problem for problem in opened if isinstance(problem, Unreadable)]
    if problems and not readable:
        raise min(problems, key=lambda problem: isinstance(problem, Forgotten))
    for problem in problems[:TOLD]:
        log.error("%s; it is left out", problem)
    if len(problems) > TOLD:
        log.error("%d more cannot be opened, and are left out", len(problems) - TOLD)
    return readable


def _listed(record: Record | None) -> set[str]:
    kinds = record.value.get("kinds") if record else None
    return {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list) else set()
