"""Several processes that guard the same providers: what one has learnt of an outage, all of them know.

Each process decides by its own circuits, and no call ever waits for the store but one: the one that would try out a
provider whose open period is over. A task in the background tells the others of changes, and sums up once a second.
What is heard from them does two things. It opens a circuit when enough of them find that the provider fails. And it
makes one process at a time try the provider out, for what that one finds holds for all.

**Who tries it out** is decided when a call wants to, by a lease that the background task asks for while the call waits,
at most 150 ms. So recovery is never put off to a later call, however rare calls are, and a process that has no calls
holds no lease. It is given back a second after its last use: after a failure that is time enough for the others to hear
that they have to wait. If its holder dies it ends by itself, one second after the attempt would have timed out.

**When the store fails**, three silent seconds let every process decide alone, on its own jittered open periods, until
the store is heard again. No caller sees any of it.

What was set by hand, with `isolate` and its like, holds for this process only.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from math import inf
from typing import Any, ParamSpec, Protocol, Self

from holdfast.clock import Clock, SystemClock
from holdfast.errors import InvalidInput
from holdfast.resilience.breaker import Report
from holdfast.resilience.elections import PATIENCE, Elections, Leases, Seat, in_time, log
from holdfast.resilience.guard import Guard
from holdfast.resilience.reports import LONGEST_NAME, MOST_HOLDS, Fact, Json, Name, Reports, believed, read
from holdfast.resilience.shared import SharedState
from holdfast.telemetry import SharedStateChanged

P = ParamSpec("P")

TOPIC = "circuits"
EVERY = 1.0
"""Seconds between two facts of a process that has nothing new to say."""
APART = 0.25
"""Seconds between any two facts of a process, and between two looks while a circuit is not closed."""
MISSES = 3
"""So many facts that could not be published or heard, and each process decides alone."""
LONGEST_PAUSE = 5.0
"""While the store fails it is tried less and less often, at least once in so many seconds."""
REMEMBERED = 10.0
"""For so many seconds others are told that probes passed."""


class Bus(Protocol):
    """Small facts to every process."""

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        """Tell whoever listens, here too."""
        ...

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        """Facts published from now on."""
        ...


class SharedStore(Protocol):
    """What several processes have in common; every store is one."""

    @property
    def leases(self) -> Leases: ...
    @property
    def bus(self) -> Bus: ...


class Fleet:
    """Guards that share the state of their circuits with guards of the same names in other processes.

    `async with Fleet(store, [guard, …]):` around the life of the program; the store is open. A hub does this by itself
    where its store outlives the process.
    """

    def __init__(self, store: SharedStore, guards: Iterable[Guard] = (), *, clock: Clock | None = None) -> None:
        """`clock` is the guards' own, or both are the machine's.

        Raises:
            InvalidInput: Two guards share a name.
        """
        self._store = store
        self._clock = clock or SystemClock()
        self._id = secrets.token_hex(8)
        self.elections = Elections(store.leases, self._id, self._clock, self._spawn)
        self._members: dict[str, _Member] = {}
        self._reports = Reports()
        self._holds: dict[Name, float] = {}
        self._released: set[Name] = set()
        self._state: SharedState = "ok"
        self._number = 0
        self._unheard: float | None = None
        self._missed = 0
        self._due = 0.0
        self._woken = asyncio.Event()
        self._news = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        for guard in guards:
            self.add(guard)

    @property
    def state(self) -> SharedState:
        """Whether the other processes can be heard."""
        return self._state

    def add(self, guard: Guard) -> None:
        """Share this one's state as well.

        Raises:
            InvalidInput: There is another one of its name.
        """
        if guard.name in self._members:
            raise InvalidInput(f"two guards are named {guard.name}, and others could not tell them apart")
        member = self._members[guard.name] = _Member(self, guard)
        if self._loop is not None:
            member.begin(self._loop)

    async def __aenter__(self) -> Self:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._state, self._missed, self._unheard, self._due = "ok", 0, None, 0.0
        self._reports.clear()
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for member in self._members.values():
            member.begin(self._loop)
        self._spawn(self._listen)
        self._spawn(self._talk)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._loop = self._tasks = None
        terms = [term for member in self._members.values() for term in member.end()]
        for task in self._running:
            task.cancel()
        await self._stack.aclose()
        for term in terms:
            if not await self.elections.give_back(term):
                break  # it ends by itself

    # Told by guards, from any thread.

    def tell(self, *, hold: tuple[Name, float] | None = None, released: Name | None = None) -> None:
        """Something happened that others should hear of soon."""
        if hold is not None and len(self._holds) < MOST_HOLDS and _shared(hold[0]):
            self._released.discard(hold[0])
            self._holds[hold[0]] = self._clock.monotonic() + hold[1]
        if released is not None and len(self._released) < MOST_HOLDS and _shared(released):
            self._holds.pop(released, None)
            self._released.add(released)
        self._news = True
        self.call_soon(self._woken.set)

    def call_soon(self, function: Callable[..., object], *args: object) -> bool:
        """Do it in the fleet's event loop; False when that is over."""
        with suppress(RuntimeError):  # the loop was closed just now
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *args)
                return True
        return False

    def _spawn(self, work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._tasks is None:
            return
        task = self._tasks.create_task(_contained(work, *args, **kwargs))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # Talking.

    async def _talk(self) -> None:
        while True:
            now = self._clock.monotonic()
            self._look(now)
            if now >= self._due or (self._news and self._state == "ok"):
                await self._publish(now)
                await self._clock.sleep(APART)
            else:
                await self._pause(min(self._due - now, APART if self._trouble() else EVERY))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await self._woken.wait()

    def _look(self, now: float) -> None:
        """Do what has to be done now and then."""
        self._woken.clear()
        self._reports.forget(now)
        for member in self._members.values():
            member.look()
        for seat in self._seats():
            self.elections.tend(seat, now)
            self._judge(seat, now)

    def _trouble(self) -> bool:
        return self._reports.trouble() or any(seat.circuit.standing is None for seat in self._seats())

    async def _publish(self, now: float) -> None:
        self._news = False
        self._number += 1
        if self._unheard is not None and now - self._unheard >= EVERY / 2:
            self._miss(now)
        self._unheard = now if self._unheard is None else self._unheard
        holds, released = dict(self._holds), set(self._released)
        fact = Fact(
            sender=self._id,
            number=self._number,
            reports={seat.name: report for seat in self._seats() if (report := _worth_telling(seat, now)) is not None},
            holds={name: until - now for name, until in holds.items() if until > now},
            released=released,
        )
        published, _ = await in_time(self._store.bus.publish(TOPIC, fact.to_json()), self._clock)
        if published:
            self._released -= released
            for name, until in holds.items():
                if self._holds.get(name) == until:
                    del self._holds[name]
        else:
            self._miss(now)
        pause = EVERY if self._state == "ok" else min(LONGEST_PAUSE, EVERY * 2.0 ** min(self._missed - MISSES, 8))
        self._due = now + pause

    def _seats(self) -> list[Seat]:
        return [seat for member in self._members.values() for seat in list(member.seats.values())]

    def _miss(self, now: float) -> None:
        self._unheard = None
        self._missed += 1
        if self._missed >= MISSES and self._state == "ok":
            self._reports.clear()
            self._now("degraded")

    def _now(self, state: SharedState) -> None:
        self._state = state
        for telemetry in {id(each.shared.telemetry): each.shared.telemetry for each in self._members.values()}.values():
            telemetry.emit(SharedStateChanged(state))

    # Listening.

    async def _listen(self) -> None:
        while True:
            try:
                async with self._store.bus.listen(TOPIC) as facts:
                    async for fact in facts:
                        self._hear(fact)
                        await self._clock.sleep(0)  # a flood of facts does not stop the loop
            except Exception as error:  # the border to the store, as above
                log.debug("the store cannot be listened to: %s", type(error).__name__)
            await self._clock.sleep(EVERY)

    def _hear(self, written: Mapping[str, Any]) -> None:
        fact, now = read(written), self._clock.monotonic()
        if fact is None:
            return
        if fact.sender == self._id:
            self._heard_ourselves(fact.number)
            return
        if self._state == "degraded" or not self._reports.is_news(fact, now):
            return
        for name in fact.released:
            if name[0] in self._members:
                self._members[name[0]].release(name[1])
        for name, seconds in fact.holds.items():
            if name[0] in self._members:
                self._members[name[0]].hold(name[1], seconds, now)
        for name, report in fact.reports.items():
            seat = self._members[name[0]].seats.get(name[1]) if name[0] in self._members else None
            if seat is not None:
                self._learn(seat, fact.sender, report, now)

    def _heard_ourselves(self, number: int) -> None:
        if number > self._number:
            return
        self._missed = 0
        if number == self._number:
            self._unheard = None
        if self._state == "degraded":
            self._due = 0.0
            self._now("ok")

    def _learn(self, seat: Seat, sender: str, report: Report, now: float) -> None:
        another = self._reports.keep(sender, seat.name, report, now)
        with seat.shared.lock:
            change = None
            if report.passed is not None:
                change = seat.circuit.recover(now, since=now - report.passed)
            elif report.failing and another and report.left > 0:
                change = seat.circuit.follow(now, open_for=report.left, reopened=report.reopened)
        seat.shared.tell(seat.name[1], change)
        self._judge(seat, now)

    def _judge(self, seat: Seat, now: float) -> None:
        """Open the circuit, if enough others say so."""
        if seat.circuit.standing is None:
            return
        with seat.shared.lock:
            tally = self._reports.tally(seat.name, seat.circuit.closed_since, now)
            if not tally.failing:
                return
            here = seat.circuit.report(now).calls > 0
            reporting = tally.reporting + here
            if not believed(tally.failing, reporting, doubtful=seat.circuit.doubtful(now)):
                return
            reason = f"{tally.failing} of {reporting} processes found that it fails"
            change = seat.circuit.trip(reason, now, open_for=tally.open_for, reopened=tally.reopened)
        seat.shared.tell(seat.name[1], change)


class _Member:
    """One guard in the fleet: its `Peers`."""

    def __init__(self, fleet: Fleet, guard: Guard) -> None:
        self._fleet = fleet
        self._guard = guard
        self.shared = guard.share_with(None)
        self.seats: dict[str, Seat] = {}

    @property
    def state(self) -> SharedState:
        return self._fleet.state

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self.shared.move_to(loop)
        self._guard.share_with(self)
        self.look()

    def end(self) -> list[Any]:
        """Go on alone; the leases to give back."""
        self._guard.share_with(None)
        with self.shared.lock:
            for seat in self.seats.values():
                seat.circuit.elect(-inf)
                seat.decided()
        terms = [seat.term for seat in self.seats.values() if seat.term is not None]
        self.seats.clear()
        return terms

    def look(self) -> None:
        """Take a seat for every circuit there is."""
        for operation, circuit in self._guard.circuits().items():
            if operation not in self.seats and _shared((self.shared.name, operation)):
                self.seats.setdefault(operation, Seat(self.shared, operation, circuit))

    # What calls tell and ask.

    def elect(self, operation: str, lease: float, wake: Callable[[], None], now: float) -> float:
        if operation not in self.seats:
            self.look()
        seat = self.seats.get(operation)
        if seat is None or self._fleet.state == "degraded":
            return 0.0
        if seat.asked is None:
            if not self._fleet.call_soon(self._fleet.elections.hold, seat, lease):
                return 0.0
            seat.asked = now
        left = max(0.0, seat.asked + PATIENCE - now)
        if left:
            seat.waiting.append(wake)
        return left

    def changed(self) -> None:
        self._fleet.tell()

    def held(self, credential: str, seconds: float) -> None:
        self._fleet.tell(hold=((self.shared.name, credential), seconds))

    def released(self, credential: str) -> None:
        self._fleet.tell(released=(self.shared.name, credential))

    # What others say.

    def hold(self, credential: str, seconds: float, now: float) -> None:
        with self.shared.lock:
            self.shared.holds.extend(credential, seconds, now)
            self.shared.settle()

    def release(self, credential: str) -> None:
        with self.shared.lock:
            self.shared.holds.drop(credential)
            self.shared.settle()


def _shared(name: Name) -> bool:
    return max(map(len, name)) <= LONGEST_NAME


async def _contained(work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        await work(*args, **kwargs)
    except Exception:  # the border of a task nobody awaits; it would take the program's own task with it
        log.exception("sharing the state of circuits failed")


def _worth_telling(seat: Seat, now: float) -> Report | None:
    """What is known of the circuit, if it was used lately, or others may wait for it."""
    with seat.shared.lock:
        report = seat.circuit.report(now)
        told = report.calls > 0 or not report.closed or now - seat.circuit.closed_since < REMEMBERED
    return report if told else None
