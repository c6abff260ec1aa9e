"""Time limits of many tasks for the price of one timer: as `asyncio.timeout`, first in, first out per duration."""

import asyncio
from asyncio import current_task
from typing import Protocol, TypeVar, cast

from holdfast.clock import Clock, TimerHandle


class Limited(Protocol):
    """What has a time limit. The fields belong to the timers."""

    task: "asyncio.Task[object] | None"
    cancelling: int
    """How often the task was asked to cancel before."""
    ends: float
    expired: bool
    timer: "Line | TimerHandle | None"


L = TypeVar("L", bound=Limited)


class Line:
    """All limits of one duration that are running: whoever came first ends first, so only the first needs a timer."""

    __slots__ = ("armed", "clock", "seconds", "waiting")

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self.clock = clock
        self.waiting: dict[Limited, None] = {}
        self.armed = False

    def arm(self, seconds: float) -> None:
        """Look in so many seconds who is late."""
        self.armed = True
        self.clock.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self.armed = False
        now = self.clock.monotonic()
        late: list[Limited] = []
        for limited in self.waiting:
            if limited.expired:
                continue  # on its way out
            if limited.ends > now:
                self.arm(limited.ends - now)
                break
            late.append(limited)
        for limited in late:
            expire(limited)


class Timers:
    """The lines of one event loop, for a few durations that come again and again; any other gets a timer of its own."""

    __slots__ = ("_clock", "_lines", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, usual: frozenset[float]) -> None:
        self.loop = loop
        self._clock = clock
        self._lines = {seconds: Line(seconds, clock) for seconds in usual}

    def __len__(self) -> int:
        return sum(len(line.waiting) for line in self._lines.values())

    def start(self, limited: Limited, seconds: float, now: float) -> None:
        """Cancel the running task in so many seconds, unless `stop` comes first. Raises RuntimeError outside a task."""
        task = limited.task = current_task(self.loop)
        if task is None:
            raise RuntimeError("a guarded call with a time limit runs in a task")
        limited.cancelling = task.cancelling()
        line = self._lines.get(seconds)
        if line is None:
            limited.timer = self._clock.call_later(seconds, expire, limited)
            return
        limited.timer = line
        limited.ends = now + seconds
        line.waiting[limited] = None
        if not line.armed:
            line.arm(seconds)


def stop(limited: Limited) -> None:
    """The limit is over, in time or not."""
    timer, limited.timer = limited.timer, None
    if type(timer) is Line:
        timer.waiting.pop(limited, None)
    elif timer is not None:
        cast(TimerHandle, timer).cancel()


def expire(limited: Limited) -> None:
    """Its time is up; `stop` still takes it out of its line."""
    limited.expired = True
    assert limited.task is not None
    limited.task.cancel()


def ended_by(limited: Limited, error: BaseException | None) -> bool:
    """Whether the limit, and nobody else, ended the task with this error; takes its cancellation back."""
    if not limited.expired or limited.task is None:
        return False
    limited.expired = False
    mine = limited.task.uncancel() <= limited.cancelling
    return mine and isinstance(error, asyncio.CancelledError)
