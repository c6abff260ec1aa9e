"""The store kernel: five small protocols, and nothing else touches a database.

Time is the store's own: every duration here is in seconds, and engines add `skew_ms`, zero outside tests.
Every method raises `StoreUnavailable` when the engine cannot answer; then nothing was changed.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from sqlite3 import Connection
from typing import Protocol, Self, runtime_checkable

from holdfast.errors import NaiveDatetime
from holdfast.frozen import frozen

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]


class JobState(StrEnum):
    """`ready → leased → done | dead | ignored`; a retry is `ready` with a later `due`."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"
    IGNORED = "ignored"


class Added(StrEnum):
    """What became of a job that was added."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """The same key with the same digest: only the count of arrivals grew."""
    CONFLICT = "conflict"
    """The same key with another digest: the first stays, the arrival is counted as a conflict."""


@frozen
class NewJob:
    """Work to be done, once per `(queue, key)`."""

    queue: str
    """Which worker takes it: `deliveries`, `events`, `calls`, `calls-urgent`, `timers`."""
    key: str
    """Deduplication: a second job of the same queue and key is not added."""
    kind: str
    """What it carries, for the worker to choose its code: a provider's name, an event's type."""
    handler: str = ""
    """Which registered handler is meant, where several take one kind."""
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    digest: str = ""
    """Of the body without what the vendor changes between deliveries; differing digests are a conflict."""
    ordering_key: str = ""
    """Jobs of one ordering key run one at a time, in the order they were added; empty: no order."""
    delay: float = 0.0
    """Seconds before it may run first."""
    ignored: bool = False
    """Kept for replay, but nobody is to run it now."""
    subject: str = ""
    """Whom it is about: an encrypted store keeps it under a key of theirs, which can be destroyed. Others ignore it."""


@frozen
class Job:
    """A row of the queue; its repr shows neither body nor headers."""

    id: str
    queue: str
    key: str
    kind: str
    handler: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ordering_key: str
    state: JobState
    token: int
    """The fencing number: grows with every claim, and only its holder may change the row."""
    attempts: int
    """Times a handler failed."""
    losses: int
    """Times a lease ran out: the process died, or stood still."""
    generation: int
    """Times it was replayed."""
    arrivals: int
    conflicts: int
    created_at: datetime
    due_at: datetime
    error: str
    """The last failure, redacted; empty when there was none."""
    reason: str
    """Why it is dead: `attempts`, `poison`, `permanent`, `unknown`; empty otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Which jobs are meant: those that fit everything that is given."""

    queue: str | None = None
    state: JobState | None = None
    kind: str | None = None
    handler: str | None = None
    reason: str | None = None
    error: str | None = None
    """Text the last error contains."""
    since: datetime | None = None
    """Created at this moment or later."""
    until: datetime | None = None
    """Created before this moment."""

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise NaiveDatetime(name)

    def matches(self, job: Job) -> bool:
        """Whether this job is one of them."""
        return (
            self.queue in (None, job.queue)
            and self.state in (None, job.state)
            and self.kind in (None, job.kind)
            and self.handler in (None, job.handler)
            and self.reason in (None, job.reason)
            and (self.error is None or self.error in job.error)
            and (self.since is None or self.since <= job.created_at)
            and (self.until is None or job.created_at < self.until)
        )


ALL_JOBS = JobFilter()


class Jobs(Protocol):
    """The queue."""

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        """Keep these, all or none; durable when it returns, one answer per job in order."""
        ...

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        """Lease up to `limit` due jobs, oldest due first, at most one per ordering key, each with a new token.

        A job whose lease ran out is claimed like a ready one and counts a loss; one with `max_losses` (3) losses
        is buried with the reason `poison` instead.
        """
        ...

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        """Extend these leases; the ids whose token is no longer current come back, and are lost."""
        ...

    async def complete(self, job: Job) -> None:
        """`leased → done`. Raises LeaseLost: the token is not current."""
        ...

    async def ignore(self, job: Job) -> None:
        """`leased → ignored`, kept for replay. Raises LeaseLost: the token is not current."""
        ...

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        """`leased → ready` in `after` seconds, one attempt more. Raises LeaseLost: the token is not current."""
        ...

    async def snooze(self, job: Job, *, after: float) -> None:
        """`leased → ready` in `after` seconds, attempts unchanged. Raises LeaseLost: the token is not current."""
        ...

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        """`leased → dead`, kept for replay. Raises LeaseLost: the token is not current."""
        ...

    async def release(self, owner: str) -> int:
        """Give back, at once and without a loss, everything `owner` still leases; how many there were."""
        ...

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        """`done | dead | ignored → ready`, one generation more, counters zero; an active job comes back as it is.

        Raises:
            NotFound: There is no such job.
            AlreadyReplayed: It is not of this `generation`; nothing was changed.
        """
        ...

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        """Forget one `done | dead | ignored` job as `purge` does; False: it is active, and stays.

        Raises:
            NotFound: There is no such job.
            AlreadyReplayed: It is not of this `generation`; nothing was changed.
        """
        ...

    async def get(self, job_id: str) -> Job:
        """One row. Raises NotFound."""
        ...

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        """Rows in the order they were added, newest first or last, beginning behind the job `after`.

        That job may be gone by now. Raises NotFound: `after` cannot be a job of this store.
        """
        ...

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        """How many rows per queue and state; states without rows are absent."""
        ...

    async def oldest(self) -> Mapping[str, datetime]:
        """Since when the job that waits longest is due, per queue; queues where none could be claimed are absent.

        Of each ordering key only the job whose turn it is waits.
        """
        ...

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        """Drop jobs of these states that ended this many seconds ago, oldest first; how many were dropped.

        Their keys go on deduplicating, until a purge finds that they were dropped as long ago as it asks for. Active
        jobs are never dropped.
        """
        ...

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        """Let the job carry this, and change nothing else; False: it is gone, or its body is not `job.body` any more.

        For what changes the form of the payload and not its meaning, such as another encryption.
        """
        ...

    async def wait(self, timeout: float) -> None:
        """Return when a job may have become ready, or after `timeout` seconds; early is allowed, late is not."""
        ...


@runtime_checkable
class HandsOver(Protocol):
    """Jobs of which the next one that comes may go straight to a worker that waits."""

    async def take_next(self, queues: Sequence[str], *, owner: str, lease: float, timeout: float) -> Sequence[Job]:
        """As `Jobs.wait`, and at most one job that came meanwhile, leased as a claim of now would lease it.

        For who claimed just now, and found nothing. Where this is cancelled, `release` frees what was on its way.
        """
        ...


Change = Callable[[Connection], None]
"""Something of the user's own, done in a transaction of the store."""


@runtime_checkable
class SupportsTransactions(Protocol):
    """Jobs that lie in a database which also holds what their handlers change."""

    async def complete_with(self, changes: Sequence[tuple[Job, Change]]) -> list[Exception | None]:
        """`leased → done` for each of these jobs, in one transaction with its change; what it raised where it did.

        Then nothing of that change is kept, and its job stays leased. A job whose token is not current has LeaseLost,
        and its change is not begun. Where the transaction grows too long the last ones are left as they were, without
        a result; there is one result at least.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What a record is to become."""

    value: Mapping[str, Json]
    index: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Values this record is found by, per index name; several records may share one."""
    due_at: datetime | None = None
    """When it wants to be looked at again; None: never."""
    subject: str = ""
    """Whom it is about, as `NewJob.subject`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One versioned JSON document."""

    kind: str
    key: str
    version: int
    """1 for a new record, one more with every change."""
    value: Mapping[str, Json]
    due_at: datetime | None


class Records(Protocol):
    """Versioned documents."""

    async def get(self, kind: str, key: str) -> Record | None:
        """The record as last committed."""
        ...

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        """Change one record and add jobs, both or neither; `expected=0` inserts.

        Raises:
            VersionConflict: The record is not at `expected`; nothing was changed, no job added.
        """
        ...

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        """Records whose current index holds `value`."""
        ...

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        """Records whose `due_at` has passed, longest overdue first."""
        ...

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        """Keep another value, and the version, index and time as they are; False: it is at another version.

        For what changes the form of the value and not its meaning, such as another encryption.
        """
        ...

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """Records in the order of their keys, beginning behind `after`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A name owned for a while."""

    name: str
    owner: str
    number: int
    """The fencing number: every acquisition of the name gets a greater one."""


class Leases(Protocol):
    """Who may do what only one may do."""

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        """Own the name for `ttl` seconds, unless somebody else does; the owner itself renews, same number."""
        ...

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Own it for `ttl` seconds from now; False when it was lost meanwhile."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give it back; harmless when it was lost."""
        ...


class Counters(Protocol):
    """Sums and slots over a time window, shared by all processes."""

    async def add(self, name: str, amount: int, *, window: float) -> int:
        """Add to the name's sum; what was added in the last `window` seconds, this included (to a tenth of it)."""
        ...

    async def total(self, name: str, *, window: float) -> int:
        """What was added in the last `window` seconds, to a tenth of it."""
        ...

    async def take(self, name: str, *, owner: str, slots: int, wanted: int, ttl: float) -> int:
        """Take up to `wanted` of the name's `slots` for `owner`; how many were had. After `ttl` seconds they return."""
        ...

    async def give(self, name: str, *, owner: str, count: int, after: float = 0.0) -> None:
        """Return `count` of the owner's slots, free to take `after` seconds from now."""
        ...


class Bus(Protocol):
    """Small facts to every process, best effort: one may be lost, none is repeated to a listener."""

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        """Tell whoever listens now, in this process and others."""
        ...

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        """Facts published from now on."""
        ...


class Store(Protocol):
    """One engine: the five, and its lifetime."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def records(self) -> Records: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def bus(self) -> Bus: ...

    @property
    def durable(self) -> bool:
        """What it keeps outlives the process."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, and migrate the schema forward. Raises SchemaTooNew, StoreUnavailable."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Flush and disconnect; closing twice is harmless."""
        ...

    async def now(self) -> datetime:
        """The store's own time, aware and in UTC."""
        ...
