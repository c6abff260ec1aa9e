"""Time that passes only when a test says so."""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from math import inf
from threading import Event

TURNS = 20
"""Turns of the loop a woken task gets before time goes on: enough for a few tasks to hand over to one another."""


@dataclass(eq=False, slots=True)
class Alarm:
    """What is to happen at a time, and in the order of being set at one time."""

    at: float
    number: int
    ring: Callable[[], object]
    silenced: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    """In which it was set, where that matters."""

    def __lt__(self, other: "Alarm") -> bool:
        return self.at < other.at or (self.at == other.at and self.number < other.number)

    def cancel(self) -> None:
        """It is not to ring."""
        self.silenced = True

    def go_off(self) -> None:
        """Ring, once."""
        if not self.silenced:
            self.silenced = True
            self.ring()


class Alarms:
    """A time, and what is to happen after it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.numbers = count()
        self.waiting: list[Alarm] = []
        """A heap."""

    def set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        """Ring in so many seconds."""
        alarm = Alarm(self.now + seconds, next(self.numbers), ring)
        heapq.heappush(self.waiting, alarm)
        return alarm

    @property
    def next(self) -> float:
        """When the first one rings; never, without one."""
        while self.waiting and self.waiting[0].silenced:
            heapq.heappop(self.waiting)
        return self.waiting[0].at if self.waiting else inf

    def pop(self) -> Alarm:
        """The first one, which rings no more by itself."""
        return heapq.heappop(self.waiting)


class ManualClock:
    """A clock that stands still until `advance` moves it.

    Threads are not waited for: after work that runs in one, await that work before advancing. `VirtualClock` waits for
    them, and moves by itself.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._alarms = Alarms()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._alarms.now)

    def monotonic(self) -> float:
        return self._alarms.now

    @property
    def pending(self) -> int:
        """How many sleepers and timeouts wait for time to pass."""
        return sum(not alarm.silenced for alarm in self._alarms.waiting)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return await asyncio.sleep(0)
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        alarm = self._set(seconds, wake)
        try:
            await woken
        finally:
            alarm.silenced = True

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        return asyncio.timeout(seconds) if seconds is None or seconds <= 0 else self._timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Alarm:
        return self._set(seconds, partial(copy_context().run, callback, *args))

    def pause(self, seconds: float, until: Event | None = None) -> bool:
        """Synchronous code does not wait: the time passes at once, unless the event is set."""
        if until is not None and until.is_set():
            return True
        self._alarms.now += max(0.0, seconds)
        return until is not None and until.is_set()

    async def advance(self, seconds: float) -> None:
        """Let that much time pass: sleepers and timeouts whose time comes are woken in its order, and run."""
        target = self._alarms.now + seconds
        await self._settle()
        while self._alarms.next <= target:
            alarm = self._alarms.pop()
            self._alarms.now = alarm.at
            alarm.go_off()
            await self._settle()
        self._alarms.now = target
        await self._settle()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator would; nothing else notices."""
        self._start += timedelta(seconds=seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncGenerator[asyncio.Timeout]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            alarm = self._set(seconds, lambda: limit.reschedule(loop.time()))
            try:
                yield limit
            finally:
                alarm.silenced = True

    def _set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        return self._alarms.set(seconds, ring)

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
