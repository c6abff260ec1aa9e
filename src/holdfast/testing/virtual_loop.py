"""An event loop whose wait is taken over: where asyncio would sleep, time jumps, or something in flight is awaited."""

import asyncio
import heapq
import logging
import threading
from asyncio.events import Handle, TimerHandle
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable
from contextlib import suppress
from math import inf
from threading import Event, get_ident
from typing import Any, Final, cast

from holdfast.clock import SystemClock
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.testing.clock import Alarm, Alarms
from holdfast.testing.in_flight import Errand, Errands
from holdfast.testing.peers import Peers

log = logging.getLogger("holdfast.testing")

SLICE: Final = 0.02
"""Real seconds between looks at what is in flight, should nobody say that it has ended."""
UNSUPPORTED: Final = (
    "a virtual clock needs asyncio's own selector loop, not {}; run the test under it (with uvloop: leave its policy "
    "out of the tests; on Windows: asyncio.SelectorEventLoop; with anyio: the asyncio backend without use_uvloop), or "
    "step by hand with holdfast.testing.ManualClock"
)

_real = SystemClock().monotonic


class Deadlock(HoldfastError):
    """Every task waits for something that nobody is going to do."""


class VirtualLoop:
    """Takes the place of an event loop's wait: asyncio waits only when no callback is ready, which is the moment."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        alarms: Alarms,
        holds: set[Errand],
        *,
        patience: float,
        asyncio_too: bool,
        at_most: float,
    ) -> None:
        kind = type(loop)
        if not issubclass(kind, BaseSelectorEventLoop):
            raise ConfigurationError(UNSUPPORTED.format(f"{kind.__module__}.{kind.__qualname__}"))
        # The loop's inner workings have no public names: its heap of timers, its queue and its selector.
        self.loop = cast("Any", loop)
        self.thread = get_ident()
        self.body: asyncio.Task[Any] | None = None
        self.stuck: Deadlock | None = None
        self.at_most = alarms.now + at_most
        self._alarms = alarms
        self._holds = holds
        self._patience = patience
        self._selector: Any = self.loop._selector
        self._wait: Callable[[float | None], list[Any]] = self._selector.select
        if isinstance(getattr(self._wait, "__self__", None), VirtualLoop):
            raise ConfigurationError("another virtual clock runs this event loop already")
        self._asyncio_too = asyncio_too
        self._peers = Peers(self._selector, loop, _real)
        self._errands = Errands(loop, _real)
        self._silent_since: float | None = None
        self._forgiven = frozenset[object]()
        self._waiting_to_be_quiet: list[asyncio.Future[None]] = []
        self._pauses: dict[Event, Alarm] = {}
        self._elsewhere: list[Alarm] = []
        """Set from other event loops."""
        self._over = False

    # Taking over and giving back.

    def start(self) -> None:
        """Take over."""
        alarms, loop = self._alarms, self.loop
        self._elsewhere = [alarm for alarm in alarms.waiting if alarm.loop is not loop]
        alarms.waiting = [alarm for alarm in alarms.waiting if alarm.loop is loop]
        heapq.heapify(alarms.waiting)
        self._selector.select = self._select
        self._errands.start()
        if self._asyncio_too:
            by = alarms.now - loop.time()
            loop.time, loop.call_at = lambda: alarms.now, self._call_at
            _rebase(loop, by)

    def stop(self) -> None:
        """Give back."""
        alarms, loop = self._alarms, self.loop
        self._over = True
        del self._selector.select
        self._errands.stop()
        if self._asyncio_too:
            del loop.time, loop.call_at
            _rebase(loop, loop.time() - alarms.now)
        for alarm in tuple(self._pauses.values()):  # outside, synchronous code does not wait
            alarm.ring()
        for waiter in self._waiting_to_be_quiet:
            waiter.cancel()
        alarms.waiting += [alarm for alarm in self._elsewhere if alarm.loop is None or not alarm.loop.is_closed()]
        heapq.heapify(alarms.waiting)

    def wake(self) -> None:
        """Have the loop look again; from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(_nothing)

    # Waiting.

    def _select(self, timeout: float | None) -> list[Any]:
        loop = self.loop
        if self._release_due() or loop._ready or loop._stopping:
            self._silent_since = None
            return self._poll(0)
        if timeout is not None and timeout <= 0:  # a real timer of asyncio's is due
            return self._poll(0)
        if (pause := self._in_flight()) is not None:
            return self._poll(pause if timeout is None or self._asyncio_too else min(pause, timeout))
        # In this order: who is in flight no more has already handed over what it brought.
        if (events := self._poll(0)) or loop._ready:
            return events
        if self._waiting_to_be_quiet:
            for waiter in self._waiting_to_be_quiet:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting_to_be_quiet.clear()
            return events
        if not self._asyncio_too and self._someone_sleeps():
            return self._poll(timeout)
        if (at := self._next()) < inf:
            if at > self.at_most:
                self._give_up(f"{self.at_most:.0f} s of virtual time have passed, and the body still waits")
            self._alarms.now = max(at, self._alarms.now)
            self._release_due()
            return events
        return self._wait_for_others(timeout)

    def _poll(self, timeout: float | None) -> list[Any]:
        events = self._wait(timeout)
        if events:
            self._silent_since = None
            self._peers.heard(events)
        return events

    def _in_flight(self) -> float | None:
        """For how many real seconds to wait before looking again; None: nothing is in flight."""
        pause = self._peers.grace()
        things = {**self._errands.in_flight(self._peers.callers), **self._peers.owing()}
        if self._forgiven:
            self._forgiven &= things.keys()
        holds = any(not held.paused for held in tuple(self._holds))
        pressing = [text for thing, text in things.items() if thing not in self._forgiven]
        if not holds and not pressing:
            return pause
        now = _real()
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > self._patience:
            self._silent_since = now
            log.warning(
                "virtual time was held for %g s by %s%s",
                self._patience,
                ", ".join(pressing) or "clock.hold()",
                "" if holds else "; it may be waiting for us, so time goes on",
            )
            self._forgiven |= things.keys()
        return SLICE

    def _someone_sleeps(self) -> bool:
        """In real time, where that is kept: a task that waits for no clock of ours."""
        wakes = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
        return any(handle._callback is wakes for handle in self.loop._scheduled)

    def _wait_for_others(self, timeout: float | None) -> list[Any]:
        events = self._poll(self._patience if timeout is None else timeout)
        if timeout is None and not events and not self.loop._ready and self.stuck is None:
            if self._peers.anyone or self._forgiven:
                log.warning("nothing is scheduled, and nobody else has done anything for %g s", self._patience)
            elif self.body is None or not self.body.done():
                self._give_up("nothing is scheduled, nothing is in flight, and every task waits")
        return events

    def _give_up(self, why: str) -> None:
        self.at_most = inf
        self.stuck = Deadlock(f"{why}: {_waiting(self.loop)}")
        if self.body is None or self.body.done():  # entered in another task, such as a fixture's
            raise self.stuck
        self.loop.call_soon(self.body.cancel)

    async def quiet(self) -> None:
        """Return when everything waits again."""
        waiter = self.loop.create_future()
        self._waiting_to_be_quiet.append(waiter)
        await waiter

    # What is due.

    def _next(self) -> float:
        at, timers = self._alarms.next, self.loop._scheduled
        return min(at, timers[0]._when) if self._asyncio_too and timers else at

    def _release_due(self) -> bool:
        """Hand what is due to the loop, in the order of its time, and at one time of its being set."""
        now, alarms, timers = self._alarms.now, self._alarms, self.loop._scheduled
        if alarms.next > now and not (self._asyncio_too and timers and timers[0]._when <= now):
            return False
        due: list[tuple[float, int, Handle]] = []
        while alarms.next <= now:
            alarm = alarms.pop()
            due.append((alarm.at, alarm.number, Handle(alarm.go_off, (), self.loop)))
        while self._asyncio_too and timers and timers[0]._when <= now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if timer._cancelled:
                self.loop._timer_cancelled_count -= 1
            else:
                due.append((timer._when, getattr(timer, "number", -1), timer))
        due.sort(key=_time_and_number)
        self.loop._ready.extend(handle for _, _, handle in due)
        return bool(due)

    def _call_at(self, when: float, callback: Callable[..., object], *args: object, context: Any = None) -> TimerHandle:
        loop = self.loop
        loop._check_closed()
        if loop.get_debug():
            loop._check_thread()
        timer = _Timer(when, callback, args, loop, context)
        timer.number = next(self._alarms.numbers)
        heapq.heappush(loop._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    # Threads that pause.

    def pause(self, seconds: float, until: Event | None) -> bool:
        """In another thread."""
        rung, thread = Event(), threading.current_thread()
        try:
            self.loop.call_soon_threadsafe(self._begin_pause, thread, seconds, rung)
        except RuntimeError:  # the loop is closed
            return until is not None and until.is_set()
        while not rung.wait(None if until is None else SLICE / 10):
            if until is not None and until.is_set():
                with suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._end_pause, thread, rung)
                break
        return until is not None and until.is_set()

    def _begin_pause(self, thread: threading.Thread, seconds: float, rung: Event) -> None:
        if self._over:
            rung.set()
            return
        self._mark(thread, paused=True)
        self._pauses[rung] = self._alarms.set(seconds, lambda: self._end_pause(thread, rung))

    def _end_pause(self, thread: threading.Thread, rung: Event) -> None:
        alarm = self._pauses.pop(rung, None)
        if alarm is not None:
            alarm.cancel()
            self._mark(thread, paused=False)
            rung.set()

    def _mark(self, thread: threading.Thread, *, paused: bool) -> None:
        held = [each for each in tuple(self._holds) if each.thread == thread.ident]
        for each in held:
            each.paused = paused
        self._errands.mark(thread, paused=paused, known=bool(held))


class _Timer(TimerHandle):
    """Knows its place among those that ring at one time; in real time no two moments are the same."""

    __slots__ = ("number",)
    number: int


def _time_and_number(due: tuple[float, int, Handle]) -> tuple[float, int]:
    return due[:2]


def _rebase(loop: Any, by: float) -> None:
    """Move the loop's timers to another origin of time, with what remembers when its own timer rings."""
    for timer in loop._scheduled:
        owner = getattr(timer._callback, "__self__", None)
        for name in ("_when", "_deadline"):  # asyncio.Timeout, anyio.CancelScope
            if getattr(owner, name, None) == timer._when:
                setattr(owner, name, timer._when + by)
        timer._when += by
    heapq.heapify(loop._scheduled)  # what was apart by less than a float can tell is now at one time


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    """Every task, and where it waits."""
    return "; ".join(sorted(f"{task.get_name()} at {_place(task)}" for task in asyncio.all_tasks(loop)))


def _place(task: asyncio.Task[Any]) -> str:
    """The innermost line that is not asyncio's own."""
    place, awaited = "?", cast("Any", task.get_coro())
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None and not frame.f_globals.get("__name__", "").startswith("asyncio."):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return place


def _nothing() -> None:
    """Wakes the loop."""
