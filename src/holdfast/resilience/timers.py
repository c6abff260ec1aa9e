"""Time limits of many tasks for the price of one timer: as `asyncio.timeout`, first in, first out per duration."""

import asyncio
from itertools import count
from math import inf

from holdfast.clock import Clock, TimerHandle

Limits = dict[int, "tuple[float, asyncio.Task[object]]"]


class Line:
    """All limits of one duration that run in one event loop: whoever came first ends first, so one timer is enough.

    A task takes a number and puts `waiting[number] = (end, task)`; when it is done it takes that out again. If it is
    not there any more, its time was up, and the task is being cancelled. The caller does this itself, for a method
    call would cost as much again.
    """

    __slots__ = ("_clock", "armed", "loop", "numbers", "seconds", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, clock: Clock) -> None:
        self.loop = loop
        self.seconds = seconds
        self.numbers = count()
        self.waiting: Limits = {}
        self.armed = False
        self._clock = clock

    def arm(self, seconds: float) -> None:
        """Look in so many seconds whose time is up; goes on by itself while anybody waits."""
        self.armed = True
        if seconds < inf:
            self._clock.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self.armed = False
        now = self._clock.monotonic()
        late: list[int] = []
        for number, (end, _) in self.waiting.items():
            if end > now:
                self.arm(end - now)
                break
            late.append(number)
        for number in late:
            self.waiting.pop(number)[1].cancel()


class TimeLimit:
    """The limit of one attempt, with a timer of its own."""

    __slots__ = ("_cancelling", "_task", "_timer", "expired")

    def __init__(self, task: "asyncio.Task[object]", cancelling: int, *, expired: bool = False) -> None:
        self._task = task
        self._cancelling = cancelling
        """How often the task had been asked to cancel before."""
        self._timer: TimerHandle | None = None
        self.expired = expired

    @classmethod
    def start(cls, seconds: float, clock: Clock) -> "TimeLimit":
        """Cancel the running task in so many seconds, unless `stop` comes first."""
        task = running_task()
        limit = cls(task, task.cancelling())
        limit._timer = clock.call_later(seconds, limit._expire)
        return limit

    def stop(self) -> None:
        """It is over, in time or not."""
        if self._timer is not None:
            self._timer.cancel()

    def ended(self, error: BaseException | None) -> bool:
        """Whether it, and nobody else, ended the task with this error; takes its cancellation back."""
        if not self.expired:
            return False
        self.expired = False
        mine = self._task.uncancel() <= self._cancelling
        return mine and isinstance(error, asyncio.CancelledError)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


def running_task() -> "asyncio.Task[object]":
    """The task this runs in. Raises RuntimeError: in none, which nothing could end."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a guarded call with a time limit runs in a task")
    return task
