"""Time and chance, injected: the only file that touches the machine's clocks."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from threading import TIMEOUT_MAX, Event
from typing import Final, Protocol
from weakref import WeakKeyDictionary, WeakSet


class TimerHandle(Protocol):
    """What `call_later` set, as `asyncio.TimerHandle` is."""

    def cancel(self) -> None:
        """It is not to ring."""
        ...


class Clock(Protocol):
    """Where holdfast reads the time, waits, and sets deadlines."""

    def now(self) -> datetime:
        """The wall clock, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, giving way to other tasks."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Cancel the body after `seconds` and raise `TimeoutError`, as `asyncio.timeout` does."""
        ...

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        """Call back from the running event loop in so many seconds, as `loop.call_later` does."""
        ...

    def pause(self, seconds: float, until: Event | None = None) -> bool:
        """Block this thread for so many seconds, or until the event is set; whether it was."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # without a call in between: every guarded call asks twice

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, callback, *args)

    def pause(self, seconds: float, until: Event | None = None) -> bool:
        if until is not None:
            return until.wait(min(seconds, TIMEOUT_MAX))
        time.sleep(max(0.0, seconds))
        return False


class WorksBeside(Protocol):
    """A thread that does an event loop's work."""

    @property
    def busy(self) -> bool:
        """Whether the loop waits for something of it; read in the loop's own thread, where it changes."""
        ...


# Of the whole process, since nobody else knows both a loop and the threads beside it; it keeps neither of them alive.
_beside: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[WorksBeside]]()


def works_beside(thread: WorksBeside, loop: asyncio.AbstractEventLoop) -> None:
    """Make it known, so that a clock which runs ahead waits for it."""
    _beside.setdefault(loop, WeakSet()).add(thread)


def beside(loop: asyncio.AbstractEventLoop) -> WeakSet[WorksBeside] | tuple[()]:
    """The threads that do this loop's work; asked in the loop's own thread."""
    return _beside.get(loop, ())
