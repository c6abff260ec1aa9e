"""Running many dead letters again: with a cap, a rate and canaries, and exactly once however often it is cut off.

Which jobs are next is written down, with their generations, before any of them is replayed. Whoever takes over finds
that page, and replays by it only what has not been: a job at a later generation has had its turn.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast

from holdfast.clock import Clock
from holdfast.errors import (
    AlreadyReplayed,
    InvalidInput,
    LeaseLost,
    NotFound,
    ReferenceConflict,
    StoreError,
    VersionConflict,
)
from holdfast.queue.audit import Audit, AuditLog, audit_key
from holdfast.queue.signals import Redriven
from holdfast.stores.store import Draft, Job, JobFilter, JobState, Json, Lease, Record, Store
from holdfast.telemetry import Telemetry

KIND: Final = "redrive"
PAGES: Final = "redrive.page"
PAGE: Final = 100
SECONDS_A_PAGE: Final = 5.0
"""A page is at most so much work, and that much is gone through again after a crash."""
LEASE: Final = 15.0
LOOK_EVERY: Final = 0.5
ENDED: Final = (JobState.DEAD, JobState.IGNORED, JobState.DONE)

State = Literal["dry run", "canary", "running", "done", "stopped"]
RUNNING: Final[tuple[State, ...]] = ("canary", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class Redrive:
    """What became of a redrive; while it goes on, so far."""

    id: str
    state: State
    """`stopped`: a canary did not end well, `why` says which; the rest was left alone."""
    fits: int
    """Jobs it meant: of a dry run all that fit up to the cap, else those it got to."""
    replayed: int
    """Jobs that have a new generation by it."""
    skipped: int
    """Jobs that were gone when it got to them."""
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be redriven, and how."""

    id: str
    where: JobFilter
    ids: Sequence[str] = ()
    """Not empty: of the jobs that fit only these."""
    by: str
    reason: str
    limit: int
    rate: float
    canary: int
    canary_timeout: float

    def check(self) -> None:
        """Raises InvalidInput."""
        if not 0 < len(self.id) <= 128:
            raise InvalidInput("a redrive has an id of 1 to 128 characters")
        if self.where.state not in ENDED:
            raise InvalidInput(f"jobs that are {self.where.state} run anyway; redrive dead, ignored or done ones")
        if self.limit < 1 or not self.rate > 0 or self.canary < 0 or not self.canary_timeout > 0:
            raise InvalidInput("limit, rate and canary_timeout are greater than zero, and canary is not less")

    def what(self) -> dict[str, Json]:
        """What a repeated request must agree in."""
        return {
            "where": fields_of(self.where),
            "ids": cast("list[Json]", sorted(set(self.ids))),
            "limit": self.limit,
            "canary": self.canary,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Progress:
    """How far it came, as it is written down."""

    what: Mapping[str, Json]
    by: str
    reason: str
    at: str
    state: State
    why: str = ""
    after: str = ""
    """The last job of the last page that is done."""
    pages: int = 0
    taken: int = 0
    """Jobs on those pages."""
    replayed: int = 0
    skipped: int = 0

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.at)


@dataclass(slots=True)
class Redriving:
    """One run of a request; there may be several, one after the other and at once."""

    store: Store
    request: Request
    owner: str
    """Of this very run."""
    clock: Clock
    telemetry: Telemetry
    show: Callable[[Redrive], object] | None
    _progress: _Progress = field(init=False)
    _version: int = field(init=False, default=0)
    _lease: Lease | None = field(init=False, default=None)
    _next: float = field(init=False, default=float("-inf"))

    async def count(self) -> Redrive:
        """How many jobs it means by now; nothing is changed."""
        request = self.request
        fits, after = 0, ""
        until = _just_after(await self.store.now())
        while fits < request.limit and (page := await self._find(after, min(PAGE, request.limit - fits), until)):
            fits, after = fits + len(page), page[-1].id
        return Redrive(id=request.id, state="dry run", fits=fits, replayed=0, skipped=0, why="")

    async def run(self) -> Redrive:
        """Begin it, go on with it, or say what came of it.

        Raises:
            ReferenceConflict: The id is that of another redrive.
        """
        await self._begin()
        if self._progress.state in RUNNING:
            async with self._alone():
                await self._load()
                await self._write_audit()
                while self._progress.state in RUNNING:
                    await self._step()
                    if self.show is not None:
                        self.show(self._report())
                    if not await self._lead():
                        raise LeaseLost(f"redrive {self.request.id}")
        if await self._write_audit():
            done = self._progress
            self.telemetry.emit(Redriven(done.state, done.replayed, done.skipped))
        return self._report()

    async def _begin(self) -> None:
        request = self.request
        self._progress = _Progress(
            what=request.what(),
            by=request.by,
            reason=request.reason,
            at=(await self.store.now()).isoformat(),
            state="canary" if request.canary else "running",
        )
        if (found := await self.store.records.get(KIND, request.id)) is None:
            try:
                await self._save(self._progress)
            except VersionConflict:
                await self._load()
        else:
            self._take(found)

    async def _load(self) -> None:
        found = await self.store.records.get(KIND, self.request.id)
        assert found is not None  # records are never removed
        self._take(found)

    def _take(self, found: Record) -> None:
        self._progress, self._version = _Progress(**cast("dict[str, Any]", found.value)), found.version
        if self._progress.what != self.request.what():
            raise ReferenceConflict("redrive", self.request.id, "another filter, limit or canary")

    async def _save(self, progress: _Progress) -> None:
        value = cast("dict[str, Json]", asdict(progress))
        self._version = (
            await self.store.records.apply(KIND, self.request.id, self._version, Draft(value=value))
        ).version
        self._progress = progress

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Wait for another run of the same request, which has stopped or died when this one begins."""
        while not await self._lead():
            await self.clock.sleep(LOOK_EVERY)
        try:
            yield
        finally:
            if self._lease is not None:
                with suppress(StoreError):  # it runs out by itself
                    await self.store.leases.release(self._lease)

    async def _lead(self) -> bool:
        self._lease = await self.store.leases.acquire(f"redrive/{self.request.id}", owner=self.owner, ttl=LEASE)
        return self._lease is not None

    # One step.

    async def _step(self) -> None:
        before = self._progress
        if before.state == "canary" and before.pages:
            await self._look_at_canaries()
            return
        room = self.request.limit - before.taken
        page = await self._page(min(self._size(), room)) if room > 0 else []
        if not page:
            await self._save(replace(before, state="done"))
            return
        replayed = sum([await self._replay(job_id, generation) for job_id, generation in page])
        await self._save(
            replace(
                before,
                after=page[-1][0],
                pages=before.pages + 1,
                taken=before.taken + len(page),
                replayed=before.replayed + replayed,
                skipped=before.skipped + len(page) - replayed,
            )
        )

    def _size(self) -> int:
        if self._progress.state == "canary":
            return self.request.canary
        return max(1, int(min(PAGE, self.request.rate * SECONDS_A_PAGE)))

    async def _page(self, size: int) -> list[tuple[str, int]]:
        """The next jobs with their generations: those that were written down, if a run got so far before."""
        key = f"{self.request.id}/{self._progress.pages:09d}"
        found = await self.store.records.get(PAGES, key)
        if found is None:
            # What came later is not meant, or a redrive might never end.
            until = _just_after(self._progress.started)
            page: list[Json] = [[job.id, job.generation] for job in await self._find(self._progress.after, size, until)]
            if not page:
                return []
            found = await self.store.records.apply(PAGES, key, 0, Draft(value={"jobs": page}))
        return _jobs_of(found)

    async def _find(self, after: str, size: int, until: datetime) -> Sequence[Job]:
        where = self.request.where
        if self.request.ids:
            return await self._find_named(after, size)
        if where.until is None or where.until > until:
            where = replace(where, until=until)
        return await self.store.jobs.list(where, after=after, limit=size, newest=False)

    async def _find_named(self, after: str, size: int) -> list[Job]:
        found: list[Job] = []
        for job_id in sorted(job_id for job_id in set(self.request.ids) if job_id > after):
            try:
                job = await self.store.jobs.get(job_id)
            except NotFound:
                continue
            if self.request.where.matches(job):
                found.append(job)
            if len(found) == size:
                break
        return found

    async def _replay(self, job_id: str, generation: int) -> bool:
        await self._turn()
        try:
            job = await self.store.jobs.replay(job_id, generation=generation)
        except AlreadyReplayed:
            return True  # since the page was written: by the run before this one
        except NotFound:
            return False
        return job.generation > generation

    async def _turn(self) -> None:
        """Wait until the rate allows one more."""
        now = self.clock.monotonic()
        if self._next > now:
            await self.clock.sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self.request.rate

    # Canaries.

    async def _look_at_canaries(self) -> None:
        found = await self.store.records.get(PAGES, f"{self.request.id}/{0:09d}")
        assert found is not None  # written before anything was replayed
        waiting = [verdict for job_id, _ in _jobs_of(found) if (verdict := await self._verdict(job_id))]
        failed = [verdict for verdict in waiting if verdict.startswith("dead")]
        now = await self.store.now()
        if not waiting:
            await self._save(replace(self._progress, state="running"))
        elif failed:
            await self._save(replace(self._progress, state="stopped", why=failed[0]))
        elif now - self._progress.started > timedelta(seconds=self.request.canary_timeout):
            why = f"not done within {self.request.canary_timeout:g} s, {waiting[0]}"
            await self._save(replace(self._progress, state="stopped", why=why))
        else:
            await self.clock.sleep(LOOK_EVERY)

    async def _verdict(self, job_id: str) -> str:
        """What is to be said against a canary; empty: it ended well, or is gone."""
        try:
            job = await self.store.jobs.get(job_id)
        except NotFound:
            return ""
        if job.state in (JobState.DONE, JobState.IGNORED):
            return ""
        said = f", {job.error}" if job.error else ""
        if job.state is JobState.DEAD:
            return f"dead again: job {job_id} ({job.reason}{said})"
        return f"still {job.state}: job {job_id} ({job.attempts} failed attempts{said})"

    # Words.

    def _report(self) -> Redrive:
        now = self._progress
        return Redrive(
            id=self.request.id, state=now.state, fits=now.taken, replayed=now.replayed, skipped=now.skipped, why=now.why
        )

    async def _write_audit(self) -> bool:
        now = self._progress
        facts: dict[str, Json] = {"id": self.request.id, **now.what}
        facts |= {"state": now.state, "replayed": now.replayed, "skipped": now.skipped, "why": now.why}
        entry = Audit(
            key=audit_key(now.started, f"redrive-{self.request.id}"),
            at=now.started,
            by=now.by,
            reason=now.reason,
            what="redrive",
            facts=facts,
        )
        return await AuditLog(self.store.records).write(entry)


async def generations(store: Store, redrive_id: str) -> list[tuple[str, int]]:
    """The jobs a redrive has taken, each with the generation it gave it, in their order."""
    found: list[tuple[str, int]] = []
    number = 0
    while page := await store.records.get(PAGES, f"{redrive_id}/{number:09d}"):
        found += [(job_id, generation + 1) for job_id, generation in _jobs_of(page)]
        number += 1
    return found


def fields_of(where: JobFilter) -> dict[str, Json]:
    """The filter as JSON: what it asks for."""
    given = {name: value for name, value in asdict(where).items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else str(value) for name, value in given.items()}


def _just_after(moment: datetime) -> datetime:
    """What was created at this very moment lies before it."""
    return moment + timedelta(microseconds=1)


def _jobs_of(page: Record) -> list[tuple[str, int]]:
    jobs = cast("list[tuple[str, int]]", page.value["jobs"])
    return [(job_id, generation) for job_id, generation in jobs]
