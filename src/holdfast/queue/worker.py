"""The worker: claims jobs, runs them, and never lets a lease it lost change anything."""

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

from holdfast.clock import Clock
from holdfast.errors import (
    AlreadyHandled,
    CallFailed,
    ConfigurationError,
    LeaseLost,
    NotFound,
    Permanent,
    RetryLater,
    StoreError,
)
from holdfast.queue import inbox
from holdfast.queue.events import HandlerRetry
from holdfast.queue.heartbeat import Heartbeat
from holdfast.queue.lanes import GroupLimit, Lanes
from holdfast.queue.pace import Pace
from holdfast.queue.patience import Patience
from holdfast.settings import check_kind, check_seconds, check_whole
from holdfast.stores.store import HandsOver, Job, Jobs, Store
from holdfast.telemetry import JobFinished, Telemetry

log = logging.getLogger("holdfast.worker")

Result = Literal["done", "ignored", "recorded"]
"""`recorded`: done, and the store knows it already."""

LONGEST_LEASE = 3600.0

PATIENCE = 0.1
"""Seconds that no job can begin before the worker looks past those it has."""
LOOK_PAST = 100
"""Jobs it then takes at a time; those whose turn is far off are given back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker works; seconds throughout."""

    concurrency: int = 16
    lease: float = 10.0
    """At most an hour: a longer one would be taken for that of a clock gone astray."""
    heartbeat: float = 2.0
    grace: float = 25.0
    attempts: int = 24
    """Failures after which a job is a dead letter; with the waits below they fill about 12 hours."""
    retry_base: float = 0.5
    retry_cap: float = 3600.0
    handler_timeout: float = 60.0
    """After it a handler is cancelled and has failed; one that goes on nevertheless loses its lease."""
    idle: float = 1.0
    """The longest wait before looking again, however quiet the store is."""
    limits: Mapping[str, GroupLimit] = field(default_factory=dict[str, GroupLimit])
    """By queue, source or handler: `"deliveries"`, `"deliveries/stripe"`, `"events/payment.paid/confirm"`."""
    blocked_after: float = 5.0
    """The event loop stood still for so long: a signal says where."""
    takeover: float = 0.25
    """How often to look whether another process of this host died, whose jobs are then free at once; 0: never."""
    retention: float = 7 * 86_400.0
    """Age at which the payloads of done and ignored jobs are dropped; their keys go on deduplicating as long again.

    Until then an ignored job can be replayed.
    """
    retention_dead: float = 90 * 86_400.0
    """Age at which dead letters are dropped."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts"):
            check_whole(name, getattr(self, name))
        for name in ("lease", "heartbeat", "handler_timeout", "idle", "blocked_after"):
            check_seconds(name, getattr(self, name), above=0)
        for name in ("grace", "retry_base", "retry_cap", "takeover", "retention", "retention_dead"):
            check_seconds(name, getattr(self, name))
        if self.lease > LONGEST_LEASE:
            raise ConfigurationError(f"lease is more than 0 and at most {LONGEST_LEASE:g} seconds, not {self.lease:g}")
        if self.heartbeat >= self.lease:
            raise ConfigurationError(
                f"heartbeat is shorter than lease, not {self.heartbeat:g} to {self.lease:g} seconds"
            )
        for group, limit in self.limits.items():
            check_kind(f"limits[{group!r}]", limit, GroupLimit, "GroupLimit(concurrency=2)")


@dataclass(slots=True, eq=False)
class _Run:
    """A job that was begun."""

    job: Job
    task: asyncio.Task[None] = field(init=False)
    begun: bool = False
    settling: bool = False
    """Its result is being recorded: what the store says, not a lost lease, decides now."""
    lost: bool = False


class Together(Protocol):
    """Runs many jobs at once, and records them as done with their effects."""

    def takes(self, job: Job) -> bool:
        """Whether the job is one of these."""
        ...

    async def perform_each(self, taken: Sequence[Job]) -> list[Exception | None]:
        """For each what stood in the way; None: it is done, and the store knows."""
        ...


class Worker:
    """Runs the jobs of some queues through `perform` until it is stopped."""

    def __init__(
        self,
        jobs: Jobs,
        perform: Callable[[Job], Awaitable[Result]],
        *,
        queues: Sequence[str],
        owner: str,
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
        options: WorkerOptions | None = None,
        retry: Callable[[Job], HandlerRetry | None] = lambda job: None,
        redact: Callable[[str], str] = str,
        apart: Callable[[], Store] | None = None,
        together: Together | None = None,
    ) -> None:
        """`retry` says how a job is tried again, where that is not as `options` say; `redact` takes secrets out of what
        handlers raise, before it is logged or stored; `apart` makes a second connection to the store, with which leases
        are kept from a thread.
        """
        self._jobs = jobs
        self._hands_over = jobs if isinstance(jobs, HandsOver) else None
        self._perform = perform
        self._queues = tuple(queues)
        self._owner = owner
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._options = options = options or WorkerOptions()
        self._retry = retry
        self._redact = redact
        self._together = together
        self._batches: set[asyncio.Task[None]] = set()
        self._lanes = Lanes(options.concurrency, options.limits, clock.monotonic)
        self._pace = Pace(clock.monotonic)
        self._patience = Patience(options.handler_timeout, clock)
        self._heartbeat = Heartbeat(
            jobs,
            lost=self._lose,
            every=options.heartbeat,
            lease=options.lease,
            clock=clock,
            telemetry=telemetry,
            apart=apart,
            blocked_after=options.blocked_after,
        )
        self._running: dict[_Run, None] = {}
        self._free = asyncio.Event()
        self._stopping = self._giving_back = False
        self._past = False
        """Those at hand may not begin, so the worker looks past them."""

    async def run(self) -> None:
        """Work until cancelled: then take nothing new, finish what runs within the grace period, release the rest."""
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(self._heartbeat.run())
            try:
                await self._claim_forever(group)
            finally:
                self._stopping = True
                await self._drain()
                beat.cancel()

    async def run_once(self) -> int:
        """Run what is due now, and wait for it; how many jobs there were."""
        options = self._options
        claimed = await self._jobs.claim(
            self._queues, owner=self._owner, limit=options.concurrency, lease=options.lease
        )
        async with asyncio.TaskGroup() as group:
            for job in claimed:
                self._start(job, group)
        return len(claimed)

    # Claiming.

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            ahead = self._pace.ahead()
            full = self._lanes.running >= self._options.concurrency
            if self._lanes.alone or (full and self._lanes.waiting >= ahead / 2):
                self._free.clear()
                await self._free.wait()
                continue
            room = self._options.concurrency + ahead - self._lanes.running - self._lanes.waiting
            self._past = self._past and bool(self._lanes.waiting)
            if room <= ahead / 2 and not self._past:
                self._past = await self._is_blocked(group)
                continue
            try:
                await self._claim(group, LOOK_PAST if self._past else room)
            except StoreError as error:
                log.warning("cannot claim jobs: %s", error)
                await self._clock.sleep(self._options.idle)

    async def _is_blocked(self, group: asyncio.TaskGroup) -> bool:
        """Wait for a job to end; true when none did, and there are places that the jobs at hand may not take."""
        self._free.clear()
        pause = self._lanes.pause()
        try:
            async with self._clock.timeout(PATIENCE if pause is None else min(PATIENCE, max(0.001, pause))):
                await self._free.wait()
        except TimeoutError:
            return not self._begin(group)
        return False

    async def _claim(self, group: asyncio.TaskGroup, limit: int) -> None:
        asked_at, lease = self._clock.monotonic(), self._options.lease
        claimed = await self._jobs.claim(self._queues, owner=self._owner, limit=limit, lease=lease)
        await self._take(group, claimed, asked_at)
        if not claimed:
            await self._wait(group)

    async def _wait(self, group: asyncio.TaskGroup) -> None:
        """Until there may be more to claim; the next job that comes is welcome at once where no handler runs.

        One that runs may hold up the event loop, and with it a job that another worker could begin.
        """
        idle, lease = self._options.idle, self._options.lease
        busy = self._lanes.waiting or self._batches or not all(run.settling for run in self._running)
        if self._hands_over is None or busy:
            await self._jobs.wait(idle)
            return
        asked_at = self._clock.monotonic()
        handed = await self._hands_over.take_next(self._queues, owner=self._owner, lease=lease, timeout=idle)
        if handed:
            await self._take(group, handed, asked_at)

    async def _take(self, group: asyncio.TaskGroup, claimed: Sequence[Job], asked_at: float) -> None:
        """Keep what was leased for a question of `asked_at`, and begin what may begin."""
        lease = self._options.lease
        if claimed and self._clock.monotonic() - asked_at >= lease - self._options.heartbeat:
            # The answer was long under way: others may have them by now.
            asked_at = self._clock.monotonic()
            gone = await self._jobs.heartbeat(claimed, lease=lease)
            claimed = [job for job in claimed if job.id not in gone]
        for job in claimed:
            self._heartbeat.hold(job, asked_at=asked_at)
            self._lanes.put(job)
        await self._give_back([(job, PATIENCE) for job in self._lanes.set_aside()])
        self._begin(group)
        if self._past:
            await self._give_back(self._lanes.shed(still_for=PATIENCE))

    async def _give_back(self, jobs: Sequence[tuple[Job, float]]) -> None:
        """Others may have them meanwhile, or we when their turn comes; to no attempt and no loss of theirs."""
        for job, _ in jobs:
            self._heartbeat.drop(job)
        self._giving_back = True  # meanwhile nothing begins: a job that is to run alone is not alone yet
        try:
            results = await asyncio.gather(
                *(self._jobs.snooze(job, after=after) for job, after in jobs), return_exceptions=True
            )
        finally:
            self._giving_back = False
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, StoreError):
                raise result

    def _begin(self, group: asyncio.TaskGroup) -> int:
        """Begin what may begin; how many that were."""
        begun, together = 0, list[Job]()
        while not self._stopping and not self._giving_back and (job := self._lanes.take()) is not None:
            if self._together is not None and self._together.takes(job):
                together.append(job)
            else:
                self._start(job, group, laned=True)
            begun += 1
        if together:
            batch = group.create_task(self._run_together(together, group))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)
        return begun

    # Running.

    async def _run_together(self, jobs: Sequence[Job], group: asyncio.TaskGroup) -> None:
        """Nobody can cut them off: they run in another thread. If a lease is lost the store says so."""
        assert self._together is not None
        begun = self._clock.monotonic()
        for job in jobs:
            self._heartbeat.hold(job, seconds=self._options.handler_timeout + self._options.heartbeat)
        failed: list[tuple[Job, Exception]] = []
        try:
            for job, failure in zip(jobs, await self._together.perform_each(jobs), strict=True):
                if failure is None:
                    self._report(job, "done")
                else:
                    failed.append((job, failure))
        finally:
            seconds = (self._clock.monotonic() - begun) / len(jobs)
            remaining = {job.id for job, _ in failed}
            for job in jobs:
                if job.id not in remaining:
                    self._heartbeat.drop(job)
                    self._pace.ended()
                    self._lanes.done(job, seconds)
            for job, failure in failed:
                self._start(job, group, laned=True, failure=failure)
            self._begin(group)
            self._free.set()

    def _start(
        self, job: Job, group: asyncio.TaskGroup, *, laned: bool = False, failure: Exception | None = None
    ) -> None:
        self._heartbeat.hold(job, seconds=self._options.handler_timeout + self._options.heartbeat)
        run = _Run(job)
        run.task = group.create_task(self._run(run, group, laned, failure))
        self._running[run] = None

    async def _run(self, run: _Run, group: asyncio.TaskGroup, laned: bool, failure: Exception | None = None) -> None:
        job, begun = run.job, self._clock.monotonic()
        run.begun = True
        try:
            if run.lost or (not self._heartbeat.is_sure(job) and await self._is_gone(job)):
                raise LeaseLost(f"job {job.id}")
            result, error, after = await self._attempt(job, failure)
            run.settling = True
            await self._finish(job, result, error, after)
        except LeaseLost:
            self._report(job, "lost")
        except StoreError as error:
            log.warning("the result of job %s was not recorded, it will run again: %s", job.id, error)
        except asyncio.CancelledError:
            if run.lost:
                self._report(job, "lost")
            raise
        finally:
            del self._running[run]
            self._heartbeat.drop(job)
            self._pace.ended()
            if laned:
                self._lanes.done(job, self._clock.monotonic() - begun)
                self._begin(group)
            self._free.set()

    async def _is_gone(self, job: Job) -> bool:
        """This process stood still since it claimed the job: the store says whether somebody else has it."""
        return job.id in await self._jobs.heartbeat([job], lease=self._options.lease)

    async def _attempt(self, job: Job, failure: Exception | None = None) -> tuple[str, str, float]:
        """What became of it: the result, the error's text, and the seconds to wait where it is to run again."""
        try:
            if failure is not None:
                raise failure
            with self._patience.limit():
                return await self._perform(job), "", 0.0
        except AlreadyHandled:
            return "done", "", 0.0
        except Permanent as error:
            return error.reason, self._describe(error), 0.0
        except RetryLater as error:
            return "snoozed", self._describe(error), error.after
        except StoreError as error:
            return "snoozed", self._describe(error), self._options.idle
        except CallFailed as error:
            after = max(error.retry_after or 0.0, self._backoff(job))
            return "snoozed" if error.local else "failed", self._describe(error), after
        except Exception as error:  # the border to the user's handlers: whatever they raise is their job's failure
            self._log_failure(job, error)
            return "failed", self._describe(error), self._backoff(job)

    async def _finish(self, job: Job, result: str, error: str, after: float) -> None:
        match result:
            case "recorded":
                result = "done"
            case "done":
                await self._jobs.complete(job)
            case "ignored":
                await self._jobs.ignore(job)
            case "snoozed":
                await self._jobs.snooze(job, after=after)
            case "permanent" | "unknown":
                await self._jobs.bury(job, reason=result, error=error)
            case _ if job.attempts + 1 >= self._attempts(job):
                result = "dead"
                await self._jobs.bury(job, reason="attempts", error=error)
            case _:
                await self._jobs.retry(job, after=after, error=error)
        self._report(job, result)

    def _lose(self, jobs: Sequence[Job]) -> None:
        """Others have them by now: what we still do about them must not go on."""
        for job in jobs:
            run = next((each for each in self._running if each.job is job), None)
            if run is None:
                self._lanes.remove(job)
                self._heartbeat.drop(job)
            elif not run.settling:
                run.lost = True
                if run.begun:  # a task that is cancelled before its first step never gives its place back
                    run.task.cancel()

    # Stopping.

    async def _drain(self) -> None:
        tasks = [*(run.task for run in self._running), *self._batches]
        try:
            await self._give_back([(job, 0.0) for job in self._lanes.remove_all()])
            with suppress(TimeoutError):
                async with self._clock.timeout(self._options.grace):
                    await self._ended(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await self._ended(tasks)
            await self._release()

    async def _ended(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks)

    async def _release(self) -> None:
        try:
            await self._jobs.release(self._owner)
        except StoreError as error:
            log.warning("what was not finished is free once its leases run out: %s", error)

    # Words.

    def _attempts(self, job: Job) -> int:
        retry = self._retry(job)
        return self._options.attempts if retry is None or retry.attempts is None else retry.attempts

    def _backoff(self, job: Job) -> float:
        retry, options = self._retry(job) or HandlerRetry(), self._options
        base = options.retry_base if retry.base is None else retry.base
        cap = options.retry_cap if retry.cap is None else retry.cap
        return min(cap, base * 2.0 ** min(job.attempts, 32)) * self._chance.uniform(0.5, 1.0)

    def _report(self, job: Job, result: str) -> None:
        if result != "done" or self._telemetry.hears(JobFinished):
            self._telemetry.emit(JobFinished(job.queue, job.kind, job.handler, result, job.attempts + 1))

    def _log_failure(self, job: Job, error: Exception) -> None:
        delivery = job.queue == inbox.QUEUE
        if delivery and isinstance(error, NotFound):
            # No program's fault: it came before our own commit, or is about an object of somebody else's.
            log.info("%s told of what is not known here: %s", job.kind, self._describe(error))
            return
        what = f"handler {job.handler} of" if job.handler else "a delivery of" if delivery else "a run of"
        log.warning(
            "%s %s failed\n%s", what, job.kind, self._redact(_writable("".join(traceback.format_exception(error))))
        )

    def _describe(self, error: BaseException) -> str:
        try:
            words = _writable(f"{type(error).__name__}: {error}")
        except Exception:  # a border: the user's exception may be unable to say what it is
            words = type(error).__name__
        return self._redact(words)[:500]


def _writable(text: str) -> str:
    """The text as any store and any log file can hold it: half a surrogate pair is neither."""
    return text.encode("utf-8", "replace").decode()
