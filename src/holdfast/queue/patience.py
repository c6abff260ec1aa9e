"""Waiting so long and no longer, many at a time, for the price of an entry in a dictionary each."""

import asyncio
from types import TracebackType

from holdfast.clock import Clock
from holdfast.resilience.timers import Line, running_task


class Patience:
    """`with patience.limit(): …` raises TimeoutError after so many seconds, as `asyncio.timeout` does."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._line: Line | None = None

    def limit(self) -> "_Wait":
        """The limit of the running task; beside the loop's other tasks it needs no timer of its own."""
        line, task = self._line, running_task()
        if line is None or line.loop is not task.get_loop():
            line = self._line = Line(task.get_loop(), self._seconds, self._clock)
        return _Wait(line, task, self._clock.monotonic() + self._seconds)

    def __len__(self) -> int:
        """How many are waiting."""
        return 0 if self._line is None else len(self._line.waiting)

    def give_up_oldest(self) -> None:
        """The one that has waited longest raises TimeoutError now."""
        if self._line is not None and self._line.waiting:
            waiting = self._line.waiting
            waiting.pop(next(iter(waiting)))[1].cancel()


class _Wait:
    __slots__ = ("_cancelling", "_end", "_line", "_number", "_task")

    def __init__(self, line: Line, task: "asyncio.Task[object]", end: float) -> None:
        self._line = line
        self._task = task
        self._end = end

    def __enter__(self) -> None:
        line = self._line
        self._cancelling = self._task.cancelling()
        self._number = number = next(line.numbers)
        line.waiting[number] = (self._end, self._task)
        if not line.armed:
            line.arm(line.seconds)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._line.waiting.pop(self._number, None) is None:
            mine = self._task.uncancel() <= self._cancelling
            if mine and isinstance(error, asyncio.CancelledError):
                raise TimeoutError(f"not over within {self._line.seconds:g} s") from error
