"""Answers kept for a while: one call fetches what is missing, everybody else who wants it waits for that one."""

import asyncio
import copy
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Hashable
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import inf
from threading import Event, Lock
from types import NoneType
from typing import Any, Generic, Protocol, TypeVar, cast
from uuid import UUID

from holdfast.clock import Clock
from holdfast.errors import CallFailed, CredentialRefused, Mismatch, NotSent, OutcomeUnknown, Rejected
from holdfast.resilience.context import deadline, deadline_scope
from holdfast.resilience.policy import Cache

T = TypeVar("T")

SHARED_PATIENCE = 0.1
"""Seconds that what other processes know may take to read or write."""
SHARED_PAUSE = 5.0
"""After it failed or took longer, it is left alone for so many seconds."""
LANDING = 0.05
"""Seconds past its deadline in which a flight may still say how it ended: its own failure says more than ours."""
AN_ANSWER = (Rejected, CredentialRefused, Mismatch)
"""Failures that are the vendor's word, not an outage: an older answer would hide it."""
PLAIN = frozenset({str, bytes, int, float, bool, NoneType, Decimal, UUID, date})
"""Types whose repr is the same for the same value in every process."""

log = logging.getLogger("holdfast.cache")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was answered, and when. All who ask are handed the same `value`: do not change it in place."""

    value: T
    since: float
    """Monotonic seconds."""
    failure: CallFailed | None = None
    """Why an old answer is given: what fetching a new one ended with. None: it is younger than its `ttl`."""

    @property
    def stale(self) -> bool:
        """It is older than its `ttl`, and better than nothing."""
        return self.failure is not None

    def age(self, now: float) -> float:
        """Seconds since it was fetched."""
        return max(0.0, now - self.since)


@dataclass(frozen=True, slots=True)
class SharedAnswer:
    """An encoded answer, and how many seconds ago it was shared by the clock of whoever keeps it."""

    data: bytes
    age: float


class SharedAnswers(Protocol[T]):
    """Answers of one type that several processes share; whatever fails in here, callers are served without it."""

    def encode(self, answer: T, /) -> bytes:
        """The answer as bytes."""
        ...

    def decode(self, data: bytes, /) -> T:
        """The inverse of `encode`; raises on what it does not know, which is then ignored."""
        ...

    async def get(self, key: str, /) -> SharedAnswer | None:
        """What was put last under the key."""
        ...

    async def put(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Keep it for `ttl` seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSnapshot:
    """What a cache did so far, for people and gauges."""

    hits: int
    misses: int
    stale: int
    """Old answers given because a new one could not be had."""
    shared: int
    """Answers another process had fetched."""
    entries: int


class _Failed:
    """How a flight ended that brought no answer."""

    __slots__ = ("_error", "_lone")

    def __init__(self, error: Exception, *, lone: bool = False) -> None:
        self._error = error
        self._lone = lone

    def error(self) -> Exception:
        """An exception for one waiter to raise and annotate."""
        return self._error if self._lone else _twin(self._error)


class _Flight(Generic[T]):
    """One fetch, and those who wait for it."""

    def __init__(self, until: float) -> None:
        self.until = until
        """Its deadline: the longest of those who waited when it began."""
        self.longest = until
        """The longest deadline of all who ever waited."""
        self.landed: Answer[T] | _Failed | None = None
        self.waits_for: list[_Flight[Any]] = []

    def join(self, until: float) -> None:
        self.longest = max(self.longest, until)

    def ends_by_itself(self, until: float) -> bool:
        """Whether somebody with this deadline sees it end at its own."""
        return self.until <= until

    def was_cut_short(self, until: float, now: float) -> bool:
        """Whether it failed since its time was up, while somebody with this deadline has time left."""
        return isinstance(self.landed, _Failed) and self.until - LANDING <= now < until and self.until < until

    def needs(self, other: "_Flight[Any]") -> bool:
        """Whether it is `other`, or cannot land before `other` has."""
        seen: set[int] = set()
        ahead: list[_Flight[Any]] = [self]
        while ahead:
            flight = ahead.pop()
            if flight is other:
                return True
            if id(flight) not in seen:
                seen.add(id(flight))
                ahead.extend(flight.waits_for)
        return False


class _TaskFlight(_Flight[T]):
    """A task's, for the callers of one event loop."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.over = asyncio.get_running_loop().create_future()
        self.joined = self.waiting = 0
        self.task: asyncio.Task[None] | None = None


class _ThreadFlight(_Flight[T]):
    """A thread's, for other threads."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.over = Event()


_aboard: ContextVar["_Flight[Any] | None"] = ContextVar("holdfast_aboard", default=None)


@contextmanager
def _waiting_for(flight: _Flight[Any]) -> Generator[bool]:
    """False: `flight` needs the flight we are part of, so that waiting would never end."""
    ours = _aboard.get()
    if ours is None:
        yield True
        return
    # Said first, checked then: of two threads that are about to wait for each other one at least sees it.
    ours.waits_for.append(flight)
    try:
        yield not flight.needs(ours)
    finally:
        ours.waits_for.remove(flight)


class AnswerCache(Generic[T]):
    """The state of one `Cache` option: answers by key, the one longest unused dropped first.

    A missing answer is fetched by a *flight*: a task of the cache's own, under a fresh context, which all who want the
    answer wait for. Whoever is cancelled or out of time stops waiting; when nobody waits any more, the flight is
    cancelled. Its deadline is the longest of those it began for: if that ends it while others have time left, they
    begin another one.

    Several event loops and threads may use one cache; the callers of one loop share flights, and so do threads.
    """

    def __init__(self, options: Cache, *, clock: Clock, shared: SharedAnswers[T] | None = None) -> None:
        self._ttl = options.seconds("ttl")
        self._kept_for = self._ttl + options.seconds("stale")
        self._max_entries = options.max_entries
        self._clock = clock
        self._shared = shared
        self._shared_again = -inf
        self._answers: OrderedDict[Hashable, Answer[T]] = OrderedDict()
        self._flights: dict[tuple[asyncio.AbstractEventLoop, Hashable], _TaskFlight[T]] = {}
        self._thread_flights: dict[Hashable, _ThreadFlight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgotten: dict[Hashable, float] = {}
        self._all_forgotten = -inf
        self._lock = Lock()
        self._hits = self._misses = self._stale = self._from_others = 0

    def fresh(self, key: Hashable, now: float) -> Answer[T] | None:
        """The answer, if there is one younger than its `ttl`."""
        # Every cached call comes here, so there is no lock: what another thread drops meanwhile is still an answer.
        answer = self._answers.get(key)
        if answer is None or now - answer.since >= self._ttl:
            return None
        self._hits += 1
        try:
            self._answers.move_to_end(key)
        except KeyError:
            return answer
        return answer

    async def get(self, key: Hashable, fetch: Callable[[], Awaitable[T]]) -> Answer[T]:
        """The fresh answer, else a new one; else, within `stale`, the old one and why there is no newer.

        All who wait are handed the same object. A failure reaches each as an exception of its own: a copy that shows
        where the fetch failed. One that cannot be copied is shared; a lone caller gets the original.
        A fetch that needs the very answer it is fetching, itself or round about, fetches it instead of waiting.

        Raises:
            CallFailed: As `fetch`; OutcomeUnknown when the caller's deadline passed first, or the flight was stopped.
        """
        answer = self.fresh(key, self._clock.monotonic())
        if answer is not None:
            return answer
        self._misses += 1
        longest = until = deadline()
        error: Exception = _too_late()
        while self._clock.monotonic() < until:
            flight = self._airborne(key, fetch, longest)
            with _waiting_for(flight) as safe:
                if not safe:
                    return await self._alone(key, fetch)
                landed = await self._ride(key, flight, until)
            if isinstance(landed, Answer):
                return landed
            error, longest = landed.error(), flight.longest
            if not flight.was_cut_short(until, self._clock.monotonic()):
                break
        return self._instead(key, error)

    def get_sync(self, key: Hashable, fetch: Callable[[], T]) -> Answer[T]:
        """As `get`, for threads: one fetches, in its own context, and others wait; nothing comes from other processes.

        Raises:
            CallFailed: As `fetch`; OutcomeUnknown when the caller's deadline passed first.
        """
        answer = self.fresh(key, self._clock.monotonic())
        if answer is not None:
            return answer
        self._misses += 1
        until = deadline()
        error: Exception = _too_late()
        while (now := self._clock.monotonic()) < until:
            with self._lock:
                answer = self.fresh(key, now)
                if answer is not None:
                    return answer
                leads = key not in self._thread_flights
                flight = self._thread_flights.setdefault(key, _ThreadFlight(until))
            if leads:
                return self._lead(key, flight, fetch)
            with _waiting_for(flight) as safe:
                if not safe:
                    return self._alone_sync(key, fetch)
                self._follow(flight, until, now)
            landed = flight.landed
            if isinstance(landed, Answer):
                return landed
            error = landed.error() if landed is not None else _no_answer()
            # Without a word the thread that fetched was killed, or we are late.
            if landed is not None and not flight.was_cut_short(until, self._clock.monotonic()):
                break
        return self._instead(key, error)

    def forget(self, key: Hashable | None = None) -> None:
        """Drop the answer to one key, or all: what is being fetched now reaches those who wait for it, and nobody else.

        Answers shared until now are not taken over any more; other processes keep theirs.
        """
        with self._lock:
            # What is being shared right now was fetched before, and arrives up to so much later.
            moment = self._clock.monotonic() + SHARED_PATIENCE
            if key is None:
                self._answers.clear()
                self._flights.clear()
                self._thread_flights.clear()
            else:
                self._answers.pop(key, None)
                self._thread_flights.pop(key, None)
                for place in [place for place in self._flights if place[1] == key]:
                    del self._flights[place]
            if key is None or len(self._forgotten) >= self._max_entries:
                self._all_forgotten = moment
                self._forgotten.clear()
            else:
                self._forgotten[key] = moment

    def snapshot(self) -> CacheSnapshot:
        """What it did so far; threads may miss a few of each other's counts."""
        return CacheSnapshot(
            hits=self._hits,
            misses=self._misses,
            stale=self._stale,
            shared=self._from_others,
            entries=len(self._answers),
        )

    async def aclose(self) -> None:
        """Cancel the flights of this event loop and see them end; closing twice is harmless."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # A flight.

    def _airborne(self, key: Hashable, fetch: Callable[[], Awaitable[T]], until: float) -> _TaskFlight[T]:
        """The flight under way, else a new one."""
        loop = asyncio.get_running_loop()
        with self._lock:
            flight = self._flights.get((loop, key))
            if flight is not None:
                return flight
            flight = self._flights[loop, key] = _TaskFlight(until)
        flight.task = loop.create_task(self._fly(key, flight, fetch), context=Context())
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._ended(key, flight, task))
        return flight

    async def _fly(self, key: Hashable, flight: _TaskFlight[T], fetch: Callable[[], Awaitable[T]]) -> None:
        _aboard.set(flight)
        left = None if flight.until == inf else flight.until - self._clock.monotonic()
        try:
            async with self._clock.timeout(None if left is None else left + LANDING):
                with deadline_scope(left, self._clock):
                    landed, ours = await self._obtain(key, flight, fetch)
        except TimeoutError:  # ours, for a failed fetch is returned: it did not keep to the deadline around it
            landed, ours = _Failed(_no_answer()), False
        if self._land(key, flight, landed) and ours:
            await self._share(key, cast("Answer[T]", landed))

    async def _obtain(
        self, key: Hashable, flight: _TaskFlight[T], fetch: Callable[[], Awaitable[T]]
    ) -> tuple[Answer[T] | _Failed, bool]:
        """What another process knows, else what is fetched now; and whether others may want it."""
        answer = await self._from_another(key)
        if answer is not None:
            return answer, False
        try:
            return Answer(await fetch(), self._clock.monotonic()), True
        except Exception as error:  # passed on to whoever waits
            return _Failed(error, lone=flight.joined == 1), False

    def _land(self, key: Hashable, flight: _TaskFlight[T], landed: Answer[T] | _Failed) -> bool:
        """Tell those who wait, and keep the answer; False if it was forgotten, or given up, meanwhile."""
        place = flight.over.get_loop(), key
        with self._lock:
            current = self._flights.get(place) is flight
            if current:
                del self._flights[place]
                self._keep(key, landed)
        flight.landed = landed
        flight.over.set_result(None)
        return current

    def _ended(self, key: Hashable, flight: _TaskFlight[T], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._drop(key, flight)
        if not flight.over.done():
            flight.over.set_result(None)
        if not task.cancelled():
            task.exception()  # KeyboardInterrupt and its like have stopped the loop already

    def _drop(self, key: Hashable, flight: _TaskFlight[T]) -> None:
        """Nobody is to join it any more."""
        place = flight.over.get_loop(), key
        with self._lock:
            if self._flights.get(place) is flight:
                del self._flights[place]

    async def _ride(self, key: Hashable, flight: _TaskFlight[T], until: float) -> Answer[T] | _Failed:
        """Wait for it, until this deadline."""
        flight.join(until)
        flight.joined += 1
        flight.waiting += 1
        try:
            async with self._clock.timeout(_patience(flight, until, self._clock.monotonic())):
                await asyncio.wait([flight.over])  # unlike `await flight.over`, giving up leaves it as it is
        except TimeoutError:
            if flight.landed is None:
                return _Failed(_no_answer())
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.over.done() and flight.task is not None:
                self._drop(key, flight)
                flight.task.cancel()
        return flight.landed or _Failed(_stopped())

    async def _alone(self, key: Hashable, fetch: Callable[[], Awaitable[T]]) -> Answer[T]:
        try:
            return Answer(await fetch(), self._clock.monotonic())
        except CallFailed as error:
            return self._instead(key, error)

    # The same, in threads.

    def _lead(self, key: Hashable, flight: _ThreadFlight[T], fetch: Callable[[], T]) -> Answer[T]:
        """Fetch it for all threads that wait."""
        outer = _aboard.get()
        _aboard.set(flight)
        try:
            flight.landed = answer = Answer(fetch(), self._clock.monotonic())
            return answer
        except Exception as error:  # passed on to whoever waits; a copy, for this thread goes on with the original
            flight.landed = _Failed(_twin(error))
            return self._instead(key, error)
        finally:
            _aboard.set(outer)
            with self._lock:
                if self._thread_flights.get(key) is flight:
                    del self._thread_flights[key]
                    self._keep(key, flight.landed)
            flight.over.set()

    def _follow(self, flight: _ThreadFlight[T], until: float, now: float) -> None:
        seconds = _patience(flight, until, now)
        if seconds is None:
            flight.over.wait()
        else:
            self._clock.pause(seconds, flight.over)

    def _alone_sync(self, key: Hashable, fetch: Callable[[], T]) -> Answer[T]:
        try:
            return Answer(fetch(), self._clock.monotonic())
        except CallFailed as error:
            return self._instead(key, error)

    # What is kept.

    def _keep(self, key: Hashable, landed: Answer[T] | _Failed | None) -> None:
        """The lock is held."""
        if isinstance(landed, Answer):
            self._answers[key] = landed
            self._answers.move_to_end(key)
            while len(self._answers) > self._max_entries:
                self._answers.popitem(last=False)

    def _instead(self, key: Hashable, error: Exception) -> Answer[T]:
        """What is known from before, if the failure is an outage; else raises it."""
        with self._lock:
            old = self._answers.get(key)
            if (
                old is None
                or not isinstance(error, CallFailed)
                or isinstance(error, AN_ANSWER)
                or self._clock.monotonic() - old.since >= self._kept_for
            ):
                raise error
            self._answers.move_to_end(key)
            self._stale += 1
            return Answer(old.value, old.since, error)

    # What other processes know.

    async def _from_another(self, key: Hashable) -> Answer[T] | None:
        """A fresh answer another process had; an older one is kept in case there is no better."""
        shared, text, asked = self._shared, _text(key), self._clock.monotonic()
        if shared is None or text is None or asked < self._shared_again:
            return None
        try:
            async with self._clock.timeout(SHARED_PATIENCE):
                found = await shared.get(text)
        except Exception as error:  # the border to what is shared: no failure in there is the caller's
            self._leave_alone(error)
            return None
        if found is None:
            return None
        try:
            answer = Answer(shared.decode(found.data), asked - max(0.0, found.age))
        except Exception:  # the caller's own code, at what another version of it wrote
            return None
        with self._lock:
            if not self._is_news(key, answer):
                return None
            self._keep(key, answer)
        if self._clock.monotonic() - answer.since >= self._ttl:
            return None
        self._from_others += 1
        return answer

    def _is_news(self, key: Hashable, answer: Answer[T]) -> bool:
        known = self._answers.get(key)
        return (
            answer.since > max(self._all_forgotten, self._forgotten.get(key, -inf))
            and self._clock.monotonic() - answer.since < self._kept_for
            and (known is None or known.since < answer.since)
        )

    async def _share(self, key: Hashable, answer: Answer[T]) -> None:
        shared, text = self._shared, _text(key)
        if shared is None or text is None or self._clock.monotonic() < self._shared_again:
            return
        try:
            data = shared.encode(answer.value)
        except Exception as error:  # the caller's own code; its answer has arrived
            log.warning("an answer could not be encoded to be shared: %s", type(error).__name__)
            return
        try:
            async with self._clock.timeout(SHARED_PATIENCE):
                await shared.put(text, data, ttl=self._kept_for)
        except Exception as error:  # the border to what is shared: no failure in there is the caller's
            self._leave_alone(error)

    def _leave_alone(self, error: Exception) -> None:
        self._shared_again = self._clock.monotonic() + SHARED_PAUSE
        log.warning("answers are not shared for %g s: %s", SHARED_PAUSE, type(error).__name__)


def _text(key: Hashable) -> str | None:
    """A name every process gives the same key; None: it holds more than plain values and tuples."""
    if type(key) in PLAIN:
        return repr(key)
    if type(key) is not tuple:
        return None
    parts = [_text(part) for part in cast("tuple[Hashable, ...]", key)]
    texts = [part for part in parts if part is not None]
    return f"({','.join(texts)})" if len(texts) == len(parts) else None


def _patience(flight: _Flight[Any], until: float, now: float) -> float | None:
    """How long somebody with this deadline waits; None: as long as it takes."""
    if until == inf:
        return None
    return until - now + (LANDING if flight.ends_by_itself(until) else 0.0)


def _twin(error: Exception) -> Exception:
    """Its like, for one waiter: raised and annotated by many, one object gathers all their tracebacks and notes."""
    try:
        twin = copy.copy(error)
    except Exception:  # its class asks for other arguments than it keeps
        return error
    if type(twin) is not type(error) or twin.args != error.args:
        return error
    if notes := getattr(error, "__notes__", None):
        twin.__notes__ = list(notes)
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)


def _too_late() -> NotSent:
    return NotSent("no time left to ask", local=True)


def _no_answer() -> OutcomeUnknown:
    return OutcomeUnknown("no answer within the deadline", reason="timeout")


def _stopped() -> OutcomeUnknown:
    return OutcomeUnknown("the call for this answer was cancelled", reason="cancelled")
