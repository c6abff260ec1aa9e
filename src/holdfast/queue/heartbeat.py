"""Keeping the leases of what runs, even while a handler blocks the event loop."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import inf

from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.queue.signals import HandlerOverran, LoopBlocked
from holdfast.stores.store import Job, Jobs, Store
from holdfast.telemetry import Telemetry

log = logging.getLogger("holdfast.worker")


class Heartbeat:
    """Extends the leases of the jobs it is told of; `lost` is called, in the loop of `run`, with those that are lost.

    `apart` makes a second connection to the same store. With it the leases are kept by a thread with an event loop
    of its own, which a blocked loop cannot hold up, and which notices that.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        lost: Callable[[Sequence[Job]], None],
        every: float,
        lease: float,
        clock: Clock,
        telemetry: Telemetry,
        apart: Callable[[], Store] | None = None,
        blocked_after: float = 5.0,
    ) -> None:
        self._jobs = jobs
        self._lost = lost
        self._every = every
        self._lease = lease
        self._clock = clock
        self._telemetry = telemetry
        self._apart = apart
        self._blocked_after = blocked_after
        self._held: dict[str, tuple[Job, float]] = {}
        self._sure: dict[str, float] = {}
        """Until when each lease lasts at least, by our own clock."""
        self._lock = threading.Lock()

    def hold(self, job: Job, *, seconds: float = inf, asked_at: float | None = None) -> None:
        """Keep its lease from now on, for so many seconds at most; it was given for a question of `asked_at`."""
        with self._lock:
            self._held[job.id] = job, self._clock.monotonic() + seconds
            if asked_at is not None:
                self._sure[job.id] = asked_at + self._lease

    def is_sure(self, job: Job) -> bool:
        """Nobody else can have it by now: this process did not stand still for as long as its lease lasts."""
        with self._lock:
            return self._clock.monotonic() < self._sure.get(job.id, inf)

    def drop(self, job: Job) -> None:
        """Keep its lease no longer."""
        with self._lock:
            held = self._held.get(job.id)
            if held is not None and held[0].token == job.token:
                del self._held[job.id]
                self._sure.pop(job.id, None)

    async def run(self) -> None:
        """Keep leases until cancelled."""
        if self._apart is None:
            await self._beat_forever(self._jobs, self._lost)
        else:
            await self._in_thread(self._apart)

    async def _beat_forever(self, jobs: Jobs, lost: Callable[[Sequence[Job]], object]) -> None:
        while True:
            await self._clock.sleep(self._every)
            held = self._due()
            if not held:
                continue
            asked_at = self._clock.monotonic()
            try:
                gone = await jobs.heartbeat(held, lease=self._lease)
            except StoreError as error:
                log.warning("cannot renew leases: %s", error)
                continue
            with self._lock:
                for job in held:
                    if job.id in self._sure and job.id not in gone:
                        self._sure[job.id] = asked_at + self._lease
            if gone:
                lost([job for job in held if job.id in gone])

    def _due(self) -> list[Job]:
        """What is held; a job whose time is over is let go, so that a handler that hangs keeps it from nobody."""
        now = self._clock.monotonic()
        with self._lock:
            over = [job for job, until in self._held.values() if until <= now]
            for job in over:
                del self._held[job.id]
                self._sure.pop(job.id, None)
            held = [job for job, _ in self._held.values()]
        for job in over:
            self._telemetry.emit(HandlerOverran(job.queue, job.kind, job.handler))
        return held

    async def _in_thread(self, apart: Callable[[], Store]) -> None:
        loop = asyncio.get_running_loop()
        watch = _Watch(loop, self._clock, self._telemetry, self._blocked_after)
        begun, ended = Future[Callable[[], object]](), Future[None]()
        for future in (begun, ended):
            future.set_running_or_notify_cancel()  # from here on nobody who waits can cancel it

        async def keep() -> None:
            this = asyncio.current_task()
            assert this is not None
            inner = asyncio.get_running_loop()
            begun.set_result(lambda: inner.call_soon_threadsafe(this.cancel))
            async with asyncio.TaskGroup() as group:
                group.create_task(watch.run(self._every))
                group.create_task(self._keep_apart(apart, loop))

        def work() -> None:
            try:
                with suppress(asyncio.CancelledError):
                    asyncio.run(keep())
                ended.set_result(None)
            except BaseException as error:  # the border of a thread: it belongs to who runs the worker
                ended.set_exception(error)

        # A daemon, so that a store that hangs keeps no program from ending.
        threading.Thread(target=work, name="holdfast-heartbeat", daemon=True).start()
        over = asyncio.wrap_future(ended)
        try:
            await asyncio.wait([over])  # which, unlike awaiting it, does not cancel it
        finally:
            if not over.done():
                stop = await asyncio.wrap_future(begun)
                with suppress(RuntimeError):  # its loop has just ended
                    stop()
                await asyncio.wait([over], timeout=self._lease)
        over.result()

    async def _keep_apart(self, apart: Callable[[], Store], loop: asyncio.AbstractEventLoop) -> None:
        def lost(jobs: Sequence[Job]) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nothing runs there any more
                loop.call_soon_threadsafe(self._lost, jobs)

        while True:
            try:
                async with apart() as store:
                    await self._beat_forever(store.jobs, lost)
            except StoreError as error:
                log.warning("cannot renew leases: %s", error)
                await self._clock.sleep(self._every)


class _Watch:
    """Sees from another thread whether an event loop still turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, telemetry: Telemetry, after: float) -> None:
        self._loop = loop
        self._clock = clock
        self._telemetry = telemetry
        self._after = after
        self._thread = threading.get_ident()
        self._asked_at: float | None = None
        self._told = False

    async def run(self, every: float) -> None:
        while True:
            self._look()
            await self._clock.sleep(min(every, self._after / 2))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if self._asked_at is None:
            self._asked_at, self._told = now, False
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._answer)
        elif now - self._asked_at >= self._after and not self._told:
            self._told = True
            self._telemetry.emit(LoopBlocked(now - self._asked_at, self._where()))

    def _answer(self) -> None:
        self._asked_at = None

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread)  # pyright: ignore[reportPrivateUsage]  # documented, for this use
        return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}" if frame is not None else ""
