"""All that is stored about one reference: given out, or forgotten."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, Forgotten, InvalidInput, VersionConflict
from holdfast.queue import calls, events, inbox, views
from holdfast.queue.audit import Audit, AuditLog, accountable, audit_key
from holdfast.queue.subjects import of_delivery, of_key
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.sealed import SealedJob, named, subject_of
from holdfast.stores.store import Draft, Job, JobState, Json, Record, Records, Store

PAGE: Final = 500
GRACE: Final = 2.0
"""Seconds between the last row that may be sealed under a key and the key's end: no change of a store takes so long."""
ENDED: Final = (JobState.DONE, JobState.DEAD, JobState.IGNORED)


class Personal(Protocol):
    """A family, as far as its records hold something of people."""

    async def find(self, records: Records, reference: str) -> Sequence[Record]:
        """The records about this reference."""
        ...

    def subjects(self, record: Record) -> set[str]:
        """Under whose keys deliveries about it rest, beside the reference's."""
        ...

    def scrub(self, record: Record) -> Draft:
        """The record without the person: amounts, states and vendors' ids stay."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """What was forgotten, or would be."""

    reference: str
    records: int
    """Scrubbed: they keep what books need."""
    dropped: int
    """Jobs that had ended, and are gone."""
    pending: int
    """Jobs that had not run: nobody can read them, and they end as ignored."""


class Privacy:
    """Looks through the whole store, page by page; so it is for one person's wish and not for every minute."""

    def __init__(
        self,
        store: Store,
        families: Sequence[Personal],
        *,
        clock: Clock,
        redact: Callable[[str], str],
        grace: float = GRACE,
    ) -> None:
        self._store = store
        self._families = families
        self._clock = clock
        self._redact = redact
        self._grace = grace

    async def forget(self, reference: str, *, by: str, reason: str, dry_run: bool = False) -> Erasure:
        """Destroy the keys under which this rests, scrub its records, and drop its jobs.

        What is interrupted is done again by asking again. With `dry_run` it is only counted.

        Raises:
            ConfigurationError: The store is not encrypted, so copies of it could not be made unreadable.
            InvalidInput: No reference, nobody, or for no reason.
        """
        accountable(by, reason)
        if not isinstance(self._store, EncryptedStore):
            raise ConfigurationError(
                "forget destroys keys, so it needs them: Holdfast(encryption=KeyRing.from_env(...)); "
                "then `holdfast store rotate` seals what is there already"
            )
        if not reference:
            raise InvalidInput("say what to forget: a reference")
        if dry_run:
            return await self._count(reference)
        at = await self._store.now()
        audit, key = AuditLog(self._store.records), audit_key(at)
        entry = Audit(key=key, at=at, by=by, reason=reason, what="forget", facts={"reference": reference})
        await audit.write(entry)
        erasure = await self._forget(self._store, reference, {"at": at.isoformat()})
        facts: dict[str, Json] = {
            "reference": reference,
            "records": erasure.records,
            "dropped": erasure.dropped,
            "pending": erasure.pending,
        }
        await audit.write(Audit(key=key, at=at, by=by, reason=reason, what="forget", facts=facts))
        return erasure

    async def export(self, reference: str, *, by: str = "", reason: str = "") -> dict[str, Json]:
        """All that is stored about this reference, as JSON: for the person it is about, so only secrets are left out.

        Whoever gives it out says who they are and why; that is written down before they see it.

        Raises:
            InvalidInput: No reference, or one of the two without the other.
        """
        if not reference:
            raise InvalidInput("say what to export: a reference")
        if by or reason:
            accountable(by, reason)
        found, subjects = await self._records(reference)
        jobs = [job async for _, job in self._jobs(subjects)]
        if by:
            at = await self._store.now()
            facts: dict[str, Json] = {"reference": reference, "records": len(found), "jobs": len(jobs)}
            entry = Audit(key=audit_key(at), at=at, by=by, reason=reason, what="export", facts=facts)
            await AuditLog(self._store.records).write(entry)
        return {
            "reference": reference,
            "at": (await self._store.now()).isoformat(),
            "records": [self._record(record) for _, record in found],
            "jobs": [self._job(job) for job in jobs],
            "handled": [self._handled(job) for job in jobs if job.queue == events.QUEUE and job.state is JobState.DONE],
        }

    # Forgetting.

    async def _count(self, reference: str) -> Erasure:
        found, subjects = await self._records(reference)
        states = [raw.state async for raw, _ in self._jobs(subjects)]
        dropped = sum(state in ENDED for state in states)
        return Erasure(reference=reference, records=len(found), dropped=dropped, pending=len(states) - dropped)

    async def _forget(self, store: EncryptedStore, reference: str, told: dict[str, Json]) -> Erasure:
        _, subjects = await self._records(reference)
        # From here on what is written rests under other keys, which stay: nothing that is kept is under a doomed one
        # once it was scrubbed, whoever writes meanwhile.
        for subject in subjects:
            await store.subject_keys.retire(subject)
        await self._clock.sleep(self._grace)
        found, more = await self._records(reference)
        for subject in more - subjects:
            await store.subject_keys.retire(subject)
        for family, record in found:
            await self._scrub(family, record)
        for subject in subjects | more:
            await store.subject_keys.destroy(subject, told)
        dropped, pending = await self._drop(store, named(reference), subjects | more)
        return Erasure(reference=reference, records=len(found), dropped=dropped, pending=pending)

    async def _scrub(self, family: Personal, record: Record | None) -> None:
        while record is not None:
            try:
                await self._store.records.apply(record.kind, record.key, record.version, family.scrub(record))
            except VersionConflict:
                record = await self._store.records.get(record.kind, record.key)
                continue
            return

    async def _drop(self, store: EncryptedStore, reference: str, subjects: set[str]) -> tuple[int, int]:
        """Drop the jobs that ended; those that did not become unreadable, whatever they rested under."""
        dropped = pending = 0
        async for raw, job in self._jobs(subjects):
            if raw.state in ENDED and await store.inner.jobs.drop(raw.id, generation=raw.generation):
                dropped += 1
            elif isinstance(job, SealedJob) or await self._shred(store, raw, reference):
                pending += 1
        return dropped, pending

    async def _shred(self, store: EncryptedStore, raw: Job, reference: str) -> bool:
        """What never rested under a subject's key is emptied; what does by now came later, and stays."""
        return not subject_of(raw) and await store.jobs.shred(raw, reference)

    # Finding.

    async def _records(self, reference: str) -> tuple[list[tuple[Personal, Record]], set[str]]:
        """The records about the reference, and under whose keys all that is about it rests."""
        found = [
            (family, record)
            for family in self._families
            for record in await family.find(cast(Records, _Legible(self._store.records)), reference)
        ]
        names = {reference}.union(*(family.subjects(record) for family, record in found))
        subjects = {named(name) for name in names}
        if isinstance(self._store, EncryptedStore):
            for _, record in found:
                resting = await self._store.inner.records.get(record.kind, record.key)
                subjects |= {subject_of(resting)} if resting is not None and subject_of(resting) else set()
        return found, subjects

    async def _jobs(self, subjects: set[str]) -> AsyncGenerator[tuple[Job, Job]]:
        """Jobs about these subjects, as they rest and as they can be read."""
        engine = self._store.inner.jobs if isinstance(self._store, EncryptedStore) else self._store.jobs
        after = ""
        while page := await engine.list(after=after, limit=PAGE, newest=False):
            after = page[-1].id
            opened = await self._store.jobs.opened(page) if isinstance(self._store, EncryptedStore) else page
            for raw, job in zip(page, opened, strict=True):
                if (subject_of(raw) or named(of_job(job))) in subjects:
                    yield raw, job

    # Telling.

    def _record(self, record: Record) -> Json:
        return {
            "kind": record.kind,
            "key": record.key,
            "version": record.version,
            "due_at": record.due_at.isoformat() if record.due_at else None,
            "value": views.cleaned(dict(record.value), redact=self._redact),
        }

    def _job(self, job: Job) -> Json:
        shown = views.redacted(job, redact=self._redact)
        if not isinstance(job, SealedJob):
            headers = dict(job.headers)
            shown |= {"headers": views.cleaned(headers, redact=self._redact), "body": self._body(job.body)}
        return shown

    def _body(self, body: bytes) -> Json:
        try:
            return views.cleaned(json.loads(body), redact=self._redact)
        except (ValueError, RecursionError):
            pass
        try:
            return self._redact(body.decode())
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(body).decode()}

    def _handled(self, job: Job) -> Json:
        return {"event": job.key.removesuffix(f"/{job.handler}"), "handler": job.handler, "generation": job.generation}


class _Legible:
    """Records without those of somebody forgotten: a backup brought them back, and not their keys."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def get(self, kind: str, key: str) -> Record | None:
        try:
            return await self._records.get(kind, key)
        except Forgotten:
            return None

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        try:
            return await self._records.find(kind, index, value, limit=limit)
        except Forgotten:  # raised where none of them can be opened
            return []


def of_job(job: Job) -> str:
    """Whom a job is about, as it was said when it was added; of one that cannot be read nobody."""
    if isinstance(job, SealedJob):
        return ""
    match job.queue:
        case inbox.QUEUE:
            arrived = inbox.from_job(job)
            return of_delivery(
                arrived.provider,
                reference=arrived.reference,
                attempt_id=arrived.attempt_id,
                vendor_id=arrived.vendor_id,
            )
        case events.QUEUE:
            return _reference(job.body)
        case calls.QUEUE | calls.URGENT:
            return of_key(job.key.removeprefix(f"{job.kind}/"))
        case _:
            return ""


def of_record(record: Record) -> str:
    """Whom a record of a family is about."""
    match record.kind:
        case "payment" | "meeting":
            return record.key
        case "dispatch":
            return of_key(record.key)
        case _:
            return ""


def _reference(body: bytes) -> str:
    try:
        event = json.loads(body)
    except ValueError:
        return ""
    return str(cast("dict[str, object]", event).get("reference", "")) if isinstance(event, dict) else ""
