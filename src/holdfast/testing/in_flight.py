"""The threads that do an event loop's work, and which of them it waits for."""

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

from holdfast.clock import beside

T = TypeVar("T")

GUEST: Final = 1.0
"""Real seconds that a thread may work after a pause, when nothing else is known of it."""
BLOCKED: Final = 0.02
"""Real seconds that a thread which handed work to the loop stays blocked, until it counts as waiting for that."""


@dataclass(eq=False, slots=True)
class Errand:
    """What a thread does while the loop waits for it."""

    what: str
    thread: int | None = None
    paused: bool = False
    """It waits for time to pass."""
    handed: bool = False
    """It has handed work to the loop, and may wait for that."""
    blocked_since: float | None = None
    since: float = 0.0


class Errands:
    """What the threads of one event loop are at, from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, real: Callable[[], float]) -> None:
        self._loop: Any = loop
        self._real = real
        self._jobs = set[Errand]()
        self._by_thread = dict[int, Errand]()
        self._guests = dict[threading.Thread, Errand]()
        self._children = WeakSet[Any]()

    def start(self) -> None:
        """From now on notice jobs as they are handed to threads, and processes as they begin."""
        self._run_in_executor = self._loop.run_in_executor
        self._call_soon_threadsafe = self._loop.call_soon_threadsafe
        self._make_subprocess_transport = self._loop._make_subprocess_transport
        self._loop.run_in_executor = self._send
        self._loop._make_subprocess_transport = self._bear
        self._loop.call_soon_threadsafe = self._hand_back

    def stop(self) -> None:
        """Leave the loop as it was."""
        del self._loop.run_in_executor, self._loop.call_soon_threadsafe, self._loop._make_subprocess_transport

    def in_flight(self, callers: Callable[[], int]) -> dict[object, str]:
        """What the loop waits for, each with words for it.

        `callers` tells how many requests of this process the loop itself has to answer: so many threads wait for it.
        """
        jobs = [job for job in self._jobs if not job.paused and not self._waits_for_the_loop(job)]
        jobs += self._anyio()
        if jobs and (waiting := callers()):
            jobs = jobs[waiting:]
        flights: dict[object, str] = {job: job.what for job in jobs}
        for thread in beside(self._loop):
            if thread.busy:
                flights[thread] = f"a thread of {type(thread).__module__}"
        if self._guests:
            flights |= self._busy_guests()
        if self._children:
            flights |= {child: f"the process {child.get_pid()}" for child in self._children if _is_awaited(child)}
        return flights

    def mark(self, thread: threading.Thread, *, paused: bool, known: bool) -> None:
        """The thread waits for time to pass, or did; in the loop's thread."""
        job = self._by_thread.get(thread.ident or 0)
        if job is None and not known:
            job = self._guests.setdefault(thread, Errand(f"the thread {thread.name}", thread.ident))
        if job is not None:
            job.paused, job.since = paused, self._real()

    def _send(self, executor: Any, func: Callable[..., T], *args: object) -> "asyncio.Future[T]":
        job = Errand(f"a job in a thread, {_name(func)}")
        future: asyncio.Future[T] = self._run_in_executor(executor, partial(self._do, job, func), *args)
        self._jobs.add(job)
        # When the loop knows the result, not when the thread has it: in between nobody else knows of it.
        future.add_done_callback(lambda _: self._jobs.discard(job))
        return future

    async def _bear(self, *args: Any, **kwargs: Any) -> Any:
        child = await self._make_subprocess_transport(*args, **kwargs)
        self._children.add(child)
        return child

    def _do(self, job: Errand, func: Callable[..., T], *args: object) -> T:
        job.thread = get_ident()
        self._by_thread[job.thread] = job
        try:
            return func(*args)
        finally:
            del self._by_thread[job.thread]

    def _hand_back(self, callback: Callable[..., object], *args: object, context: Any = None) -> asyncio.Handle:
        if getattr(callback, "__name__", "") == "_report_result":  # a thread of anyio has done its job
            self._by_thread.pop(get_ident(), None)
        elif (job := self._by_thread.get(get_ident())) is not None:
            job.handed, job.blocked_since = True, None
        handle: asyncio.Handle = self._call_soon_threadsafe(callback, *args, context=context)
        return handle

    def _waits_for_the_loop(self, job: Errand) -> bool:
        """Whether it sits at a lock after it handed the loop something, as `run_coroutine_threadsafe` does."""
        if not job.handed or job.thread is None:
            return False
        frame = sys._current_frames().get(job.thread)  # pyright: ignore[reportPrivateUsage]  # documented, for this use
        if frame is None or frame.f_code is not threading.Condition.wait.__code__:
            job.blocked_since = None
            return False
        job.blocked_since = job.blocked_since or self._real()
        return self._real() - job.blocked_since >= BLOCKED

    def _anyio(self) -> list[Errand]:
        """Its worker threads get their work without the loop's help."""
        if "anyio" not in sys.modules:
            return []
        busy: list[Errand] = []
        for thread in threading.enumerate():
            idle: Any = getattr(thread, "idle_workers", None)
            if idle is not None and getattr(thread, "loop", None) is self._loop and thread not in idle:
                job = self._by_thread.setdefault(thread.ident or 0, Errand("a job in a thread of anyio", thread.ident))
                if not job.paused and not self._waits_for_the_loop(job):
                    busy.append(job)
        return busy

    def _busy_guests(self) -> dict[object, str]:
        """Threads that paused, until they do it again or have nothing to do."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # documented, for this use
        for thread, guest in tuple(self._guests.items()):
            frame = frames.get(thread.ident or 0)
            idle = frame is None or frame.f_code.co_name == "_worker"  # of a pool, between two jobs
            if not guest.paused and (idle or not thread.is_alive() or self._real() - guest.since > GUEST):
                del self._guests[thread]
        return {guest: guest.what for guest in self._guests.values() if not guest.paused}


def _name(function: Any) -> str:
    while isinstance(function, partial):  # asyncio.to_thread wraps it in Context.run
        wrapped: Any = cast("Any", function)
        function = wrapped.args[0] if wrapped.args and wrapped.func.__name__ == "run" else wrapped.func
    return str(getattr(function, "__qualname__", function))


def _is_awaited(child: Any) -> bool:
    """Whether a task waits for a child process to end, or to write something."""
    if child.get_returncode() is not None:
        return False
    readers = (getattr(child.get_protocol(), name, None) for name in ("stdout", "stderr"))
    return bool(child._exit_waiters) or any(getattr(reader, "_waiter", None) is not None for reader in readers)
