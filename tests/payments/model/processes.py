"""Processes of a shop in one thread: every one of their steps is taken, left standing or cut off by the history."""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.payments.client import Payments
from holdfast.payments.desk import Screen
from holdfast.payments.facts import Fact, Resolved, Unreachable
from holdfast.payments.models import Payment
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Budget, Policy, Retry
from holdfast.runtime import Runtime
from holdfast.stores.memory import MemoryStore
from holdfast.telemetry import Telemetry
from holdfast.values import Secrets

POLICY = Policy(timeout=8.0, retry=Retry(attempts=2), budget=Budget())
SECRET = Secrets("a secret of the model's own")


class Killed(BaseException):
    """What `kill -9` is to a coroutine: no clean-up of ours catches it."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a step ends: something else may happen before the next one, or the process may die."""

    until: float | None = None
    """The next step is not taken before this moment."""
    pause: bool = True
    """It may be left standing here for as long as the history likes; a guard's timeout forbids that on the wire."""

    def __await__(self) -> Generator["Point"]:
        yield self


HERE, IN_FLIGHT = Point(), Point(pause=False)


class ModelClock:
    """Time that the history sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        late = max(seconds, 1.0) if seconds > 0 else 0.0  # a busy machine's timers ring late, and polls are fewer
        await Point(until=self.seconds + late, pause=False)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()  # who is modelled as slow keeps the limits itself

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> "ModelClock":
        return self

    def cancel(self) -> None: ...

    def pause(self, seconds: float, until: Event | None = None) -> bool:
        return False


class Skewed:
    """The same time, by the clock of a machine that is a little wrong, and is set right now and then."""

    def __init__(self, clock: ModelClock) -> None:
        self._clock = clock
        self.skew = 0.0

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.skew)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


class ModelRuntime(Runtime):
    """The runtime, which asks the modelled vendors, and does several things one after another."""

    def __init__(self, store: Any, clock: Any, chance: Random, dial: Callable[[Any, Guard], Any]) -> None:
        super().__init__(store, clock=clock, chance=chance, telemetry=Telemetry([]), secret=SECRET)
        self._dial_model = dial
        self._lines: dict[str, Any] = {}
        self.unexpected: list[str] = []

    def guard(self, provider: Any) -> Guard:
        if provider.name not in self._guards:
            self._guards[provider.name] = Guard(provider.name, POLICY, clock=self.clock, random=self.chance)
        return self._guards[provider.name]

    def http(self, provider: Any) -> Any:
        if provider.name not in self._lines:
            self._lines[provider.name] = self._dial_model(provider, self.guard(provider))
        return self._lines[provider.name]

    def nonce(self) -> str:
        return f"{self.chance.getrandbits(64):x}"

    def live(self, provider: object) -> bool:
        return True  # so that test money is strange

    def admit(self, provider: object) -> None: ...

    async def each(self, work: Iterable[Awaitable[object]], *, at_once: int = 8) -> None:
        items: list[Any] = list(work)
        try:
            while items:
                await self._one(items.pop(0))
        finally:
            for item in items:
                item.close()

    async def _one(self, item: Awaitable[object]) -> None:
        try:
            await item
        except HoldfastError:
            return
        except Exception as error:  # what the real one would only log is what a model is for
            self.unexpected.append(f"{type(error).__name__}: {error}")


class Tapped:
    """The common store as one process sees it: before and after each write something else may happen."""

    durable = False

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.jobs, self.leases, self.counters, self.bus = store.jobs, store.leases, store.counters, store.bus
        self.records = self

    async def apply(self, *args: Any, **kwargs: Any) -> Any:
        await HERE
        record = await self._store.records.apply(*args, **kwargs)
        await HERE
        return record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.records, name)


class Process:
    """One process of the shop: its own runtime, guards and clients, on the common store."""

    def __init__(
        self,
        store: MemoryStore,
        clock: ModelClock,
        chance: Random,
        providers: list[Any],
        dial: Callable[[Any, Guard], Any],
        *,
        screen: Screen | None,
        echo: float,
    ) -> None:
        self.clock = Skewed(clock)
        self.runtime = ModelRuntime(Tapped(store), self.clock, chance, dial)
        self.payments = Payments(providers, runtime=self.runtime, screen=screen)
        self.works: list[Work] = []
        book = self.payments._book  # pyright: ignore[reportPrivateUsage]
        commit = book.commit

        async def commit_again(payment: Payment, fact: Fact) -> Payment:
            """An answer may arrive twice."""
            committed = await commit(payment, fact)
            if isinstance(fact, Resolved | Unreachable) or chance.random() >= echo:
                return committed
            return await commit(committed, fact)

        book.commit = commit_again  # type: ignore[method-assign]


@dataclass(eq=False)
class Work:
    """One call of a process, under way."""

    what: str
    process: Process
    coroutine: Coroutine[Any, Any, Any]
    then: Callable[[Any], object] = lambda _: None
    context: Context = field(default_factory=copy_context)
    at: Point = HERE
    done: bool = False
    failure: BaseException | None = None

    def step(self) -> None:
        """On to the next point, or to the end."""
        try:
            self.at = self.context.run(self.coroutine.send, None) or HERE
        except StopIteration as stop:
            self._end()
            self.then(stop.value)
        except (HoldfastError, Killed) as error:
            self.failure = error
            self._end()

    def die(self, by: BaseException) -> None:
        """Cut it off where it stands."""
        if not self.done:
            with contextlib.suppress(type(by), HoldfastError, StopIteration, RuntimeError):
                self.context.run(self.coroutine.throw, by)
            self.coroutine.close()
            self._end()

    def _end(self) -> None:
        self.done = True
        if self in self.process.works:
            self.process.works.remove(self)


def due(works: Iterable[Work], now: float) -> list[Work]:
    """Those whose next step may be taken."""
    return [work for work in works if work.at.until is None or work.at.until <= now]


Answers = Mapping[str, Callable[[], object]]
