"""The worker: claims jobs, runs them, and never lets a lease it lost change anything."""

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.clock import Clock
from holdfast.errors import AlreadyHandled, CallFailed, LeaseLost, Permanent, RetryLater, StoreError
from holdfast.stores.store import Job, Jobs
from holdfast.telemetry import JobFinished, Telemetry

log = logging.getLogger("holdfast.worker")

Result = Literal["done", "ignored"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker works; seconds throughout."""

    concurrency: int = 16
    lease: float = 10.0
    heartbeat: float = 2.0
    grace: float = 25.0
    attempts: int = 24
    """Failures after which a job is a dead letter; with the waits below they fill about 12 hours."""
    retry_base: float = 0.5
    retry_cap: float = 3600.0
    handler_timeout: float = 60.0
    idle: float = 1.0
    """The longest wait before looking again, however quiet the store is."""


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
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` takes secrets out of what handlers raise, before it is logged or stored."""
        self._jobs = jobs
        self._perform = perform
        self._queues = tuple(queues)
        self._owner = owner
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._options = options or WorkerOptions()
        self._redact = redact
        self._running: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._free = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled: then take nothing new, finish what runs within the grace period, release the rest."""
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(self._keep_leases())
            try:
                await self._claim_forever(group)
            finally:
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
                group.create_task(self._run(job))
        return len(claimed)

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        options = self._options
        while True:
            room = options.concurrency - len(self._running)
            if room <= 0:
                self._free.clear()
                await self._free.wait()
                continue
            try:
                claimed = await self._jobs.claim(self._queues, owner=self._owner, limit=room, lease=options.lease)
                for job in claimed:
                    self._running[job.id] = job, group.create_task(self._run(job))
                if not claimed:
                    await self._jobs.wait(options.idle)
            except StoreError as error:
                log.warning("cannot claim jobs: %s", error)
                await self._clock.sleep(options.idle)

    async def _run(self, job: Job) -> None:
        try:
            await self._finish(job, *await self._attempt(job))
        except LeaseLost:
            self._report(job, "lost")
        except StoreError as error:
            log.warning("the result of job %s was not recorded, it will run again: %s", job.id, error)
        finally:
            self._running.pop(job.id, None)
            self._free.set()

    async def _attempt(self, job: Job) -> tuple[str, str, float]:
        """What became of it: the result, the error's text, and the seconds to wait where it is to run again."""
        try:
            async with self._clock.timeout(self._options.handler_timeout):
                return await self._perform(job), "", 0.0
        except AlreadyHandled:
            return "done", "", 0.0
        except Permanent as error:
            return "permanent", self._describe(error), 0.0
        except RetryLater as error:
            return "snoozed", self._describe(error), error.after
        except StoreError as error:
            return "snoozed", self._describe(error), self._options.idle
        except CallFailed as error:
            result = "snoozed" if error.local else "failed"
            return result, self._describe(error), max(error.retry_after or 0.0, self._backoff(job))
        except Exception as error:  # the border to the user's handlers: whatever they raise is their job's failure
            trace = self._redact(_writable("".join(traceback.format_exception(error))))
            log.warning("handler %s of %s failed\n%s", job.handler, job.kind, trace)
            return "failed", self._describe(error), self._backoff(job)

    async def _finish(self, job: Job, result: str, error: str, after: float) -> None:
        match result:
            case "done":
                await self._jobs.complete(job)
            case "ignored":
                await self._jobs.ignore(job)
            case "snoozed":
                await self._jobs.snooze(job, after=after)
            case "permanent":
                await self._jobs.bury(job, reason="permanent", error=error)
            case _ if job.attempts + 1 >= self._options.attempts:
                result = "dead"
                await self._jobs.bury(job, reason="attempts", error=error)
            case _:
                await self._jobs.retry(job, after=after, error=error)
        self._report(job, result)

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep(self._options.heartbeat)
            held = [job for job, _ in self._running.values()]
            if not held:
                continue
            try:
                lost = await self._jobs.heartbeat(held, lease=self._options.lease)
            except StoreError as error:
                log.warning("cannot renew leases: %s", error)
                continue
            for job_id in lost & self._running.keys():
                self._running[job_id][1].cancel()

    async def _drain(self) -> None:
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._options.grace)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            await self._jobs.release(self._owner)
        except StoreError as error:
            log.warning("what was not finished is free once its leases run out: %s", error)

    def _backoff(self, job: Job) -> float:
        full = min(self._options.retry_cap, self._options.retry_base * 2.0 ** min(job.attempts, 32))
        return full * self._chance.uniform(0.5, 1.0)

    def _report(self, job: Job, result: str) -> None:
        self._telemetry.emit(JobFinished(job.queue, job.kind, job.handler, result, job.attempts + 1))

    def _describe(self, error: BaseException) -> str:
        try:
            words = _writable(f"{type(error).__name__}: {error}")
        except Exception:  # a border: the user's exception may be unable to say what it is
            words = type(error).__name__
        return self._redact(words)[:500]


def _writable(text: str) -> str:
    """The text as any store and any log file can hold it: half a surrogate pair is neither."""
    return text.encode("utf-8", "replace").decode()
