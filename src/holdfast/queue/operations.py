"""What a person does with jobs: look, replay, redrive, drop; and who did what."""

import secrets as entropy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from holdfast.clock import Clock
from holdfast.errors import AlreadyReplayed, InvalidInput, NotFound
from holdfast.queue import redrive as redriving
from holdfast.queue.audit import Audit, AuditLog, accountable, audit_key
from holdfast.queue.redrive import Redrive, Redriving, Request, fields_of
from holdfast.queue.signals import BodyRevealed, DeadDropped, JobReplayed
from holdfast.stores.store import ALL_JOBS, Job, JobFilter, JobState, Json, Store
from holdfast.telemetry import Telemetry

PAGE: Final = 100


class Queue:
    """The jobs of a hub, for the people who look after them; works without running any handler."""

    def __init__(self, store: Store, *, owner: Callable[[], str], clock: Clock, telemetry: Telemetry) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._telemetry = telemetry
        self._audit = AuditLog(store.records)

    # Looking.

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        """Jobs in the order they were added, beginning behind the job `after`; their repr shows no body."""
        return await self._store.jobs.list(where, after=after, limit=limit, newest=newest)

    async def get(self, job_id: str) -> Job:
        """One job. Raises NotFound."""
        return await self._store.jobs.get(job_id)

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        """How many jobs there are per queue and state."""
        return await self._store.jobs.count()

    async def oldest(self) -> Mapping[str, datetime]:
        """Since when the job that waits longest is due, per queue; a queue where nothing waits is absent."""
        return await self._store.jobs.oldest()

    async def reveal(self, job_id: str, *, by: str, reason: str) -> Job:
        """One job, for somebody who is to see its body; that he did is written down first.

        Raises:
            NotFound: There is no such job.
            InvalidInput: Nobody said who or why.
        """
        job = await self.get(job_id)
        await self._write(by, reason, "reveal", _facts(job))
        self._telemetry.emit(BodyRevealed(job.queue, job.kind))
        return job

    # Running again.

    async def replay(self, job_id: str, *, by: str, reason: str, generation: int | None = None) -> Job:
        """Run an ended job again, as a new generation; one that is to run anyway stays as it is.

        With the `generation` you looked at, a job somebody else replayed meanwhile is left alone.

        Raises:
            NotFound: There is no such job.
            InvalidInput: Nobody said who or why.
            AlreadyReplayed: It is at another generation by now.
        """
        seen = await self.get(job_id)
        entry = await self._write(by, reason, "replay", _facts(seen) | {"result": "begun"})
        expected = seen.generation if generation is None else generation
        try:
            job = await self._store.jobs.replay(job_id, generation=expected)
        except (NotFound, AlreadyReplayed):
            await self._audit.write(replace(entry, facts={**entry.facts, "result": "refused"}))
            raise
        replayed = job.generation > expected
        outcome: dict[str, Json] = {"result": "replayed" if replayed else "active", "generation": job.generation}
        await self._audit.write(replace(entry, facts={**entry.facts, **outcome}))
        if replayed:
            self._telemetry.emit(JobReplayed(job.queue, job.kind, job.handler, job.generation))
        return job

    async def redrive(
        self,
        where: JobFilter = ALL_JOBS,
        *,
        id: str,
        by: str,
        reason: str,
        ids: Sequence[str] = (),
        dry_run: bool = False,
        limit: int = 1000,
        rate: float = 100.0,
        canary: int = 0,
        canary_timeout: float = 300.0,
        show: Callable[[Redrive], object] | None = None,
    ) -> Redrive:
        """Run again what fits, oldest first: dead letters, unless the filter names the state `ignored` or `done`.

        At most `limit` jobs, and `rate` of them in a second; `inf` for all at once. With `canary=3` the first three run
        alone, and must end well within `canary_timeout` seconds before the rest goes. Jobs that are added later are not
        meant.

        The `id` names the request: repeated, after a crash or by another process at the same time, it goes on where it
        was, and each job gets one new generation from it. Once it has ended, its report is all that comes back.
        `show` is told how far it is.

        Raises:
            InvalidInput: Nobody said who or why, or an option is out of its range.
            ReferenceConflict: The id is that of another redrive.
        """
        accountable(by, reason)
        request = Request(
            id=id,
            where=where if where.state else replace(where, state=JobState.DEAD),
            ids=ids,
            by=by,
            reason=reason,
            limit=limit,
            rate=rate,
            canary=canary,
            canary_timeout=canary_timeout,
        )
        request.check()
        owner = f"{self._owner()}/{entropy.token_hex(8)}"
        run = Redriving(self._store, request, owner, self._clock, self._telemetry, show)
        return await (run.count() if dry_run else run.run())

    async def generations(self, redrive_id: str) -> Sequence[tuple[str, int]]:
        """The jobs a redrive has taken, each with the generation it got by that."""
        return await redriving.generations(self._store, redrive_id)

    # Giving up.

    async def drop(self, where: JobFilter = ALL_JOBS, *, by: str, reason: str, limit: int = 1000) -> int:
        """Give dead letters up, oldest first: they are gone, but their keys go on deduplicating. How many there were.

        Each one's id and key are written down first.

        Raises:
            InvalidInput: Nobody said who or why, or the filter names another state than `dead`.
        """
        accountable(by, reason)
        if where.state not in (None, JobState.DEAD):
            raise InvalidInput(f"only dead letters are dropped, and the filter says {where.state}")
        where = replace(where, state=JobState.DEAD)
        dropped, after = 0, ""
        while dropped < limit:
            page = await self.list(where, after=after, limit=min(PAGE, limit - dropped), newest=False)
            if not page:
                break
            given_up: list[Json] = [{"id": job.id, "key": job.key} for job in page]
            await self._write(by, reason, "drop", {"where": fields_of(where), "jobs": given_up})
            dropped += sum([await self._drop(job) for job in page])
            after = page[-1].id
        if dropped:
            self._telemetry.emit(DeadDropped(dropped))
        return dropped

    async def _drop(self, job: Job) -> bool:
        try:
            return await self._store.jobs.drop(job.id, generation=job.generation)
        except (NotFound, AlreadyReplayed):
            return False  # somebody else was first

    # Answering for it.

    async def audit(self, *, after: str = "", limit: int = 100) -> Sequence[Audit]:
        """What was done to jobs, by whom and why, newest first; `after` is the key of the last entry you have."""
        return await self._audit.list(after=after, limit=limit)

    async def _write(self, by: str, reason: str, what: str, facts: Mapping[str, Json]) -> Audit:
        accountable(by, reason)
        at = await self._store.now()
        entry = Audit(key=audit_key(at), at=at, by=by, reason=reason, what=what, facts=facts)
        await self._audit.write(entry)
        return entry


def _facts(job: Job) -> dict[str, Json]:
    return {"job": job.id, "queue": job.queue, "kind": job.kind, "handler": job.handler, "generation": job.generation}
