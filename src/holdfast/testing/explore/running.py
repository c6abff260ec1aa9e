"""One history, run from its beginning to its end in virtual time."""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol, TypeVar, cast

from holdfast.testing.explore.chance import seeded
from holdfast.testing.explore.crashes import DISPOSAL, Crashes, Notes
from holdfast.testing.explore.history import CallFails, Crash, History, Step
from holdfast.testing.explore.stepping import Life, Place, Stepped, is_own, stepping_tasks
from holdfast.testing.faults import Call, Fault, Faults, Refused

ResultT = TypeVar("ResultT")
DAY: Final = 86_400.0

APART: Final = ("connect", "webhook")
"""Operations that are no calls."""


class Time(Protocol):
    """A virtual clock."""

    def run(self, program: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT: ...

    async def sleep(self, seconds: float) -> None: ...


class Post(Protocol):
    """Who delivers the webhooks."""

    runner: Any

    @property
    def owed(self) -> int: ...

    def order(self, number: int, how: str) -> None: ...


class Parts(Protocol):
    """What a test is given: `holdfast.testing.world.World`."""

    @property
    def crashes(self) -> Crashes: ...

    @property
    def faults(self) -> Faults: ...

    @property
    def journal(self) -> Notes: ...

    @property
    def vclock(self) -> Time: ...

    @property
    def webhooks(self) -> Post: ...

    @property
    def fakes(self) -> Any: ...


Test = Callable[..., Awaitable[object]]
"""What is explored: it takes a `world`, or parts of one by their names."""


class HistoryHangs(AssertionError):
    """A history does not come to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a history is said to hang."""

    seconds: float = 30 * DAY
    """Of virtual time."""
    turns: int = 200_000
    """How often anything may wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """One call a history made."""

    vendor: str
    operation: str
    index: int
    awaits: int
    """How often the program had waited by then."""

    @property
    def place(self) -> object:
        """As a step's."""
        return self.vendor, self.operation, self.index


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What became of a history."""

    history: History
    error: BaseException | None
    places: Sequence[Place]
    """Where the program waited, in order."""
    calls: Sequence[Called]
    webhooks: int
    """How many were owed."""
    struck: frozenset[Step]
    """The steps that were reached."""
    timeline: str
    """What happened, where it failed."""

    @property
    def failure(self) -> "Failure | None":
        """What kind of failure it is."""
        return None if self.error is None else Failure.of(self.error)


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one kind have the same error, raised by the same line of the test or the program."""

    kind: str
    line: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """The kind of this one."""
        error = first_of(error)
        frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        own = [found for found in frames if is_own(found[0])]
        filename, line = (own or frames or [("", 0)])[-1]
        return cls(type(error).__qualname__, f"{filename}:{line}")


def first_of(error: BaseException) -> BaseException:
    """The error itself, or the first in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast(BaseExceptionGroup[BaseException], error).exceptions[0]
    return error


class _Observer:
    """Has each call suffer what the history says, and remembers it; afterwards no vendor is there any more."""

    def __init__(self, history: History, crashes: Crashes) -> None:
        self.calls: list[Called] = []
        self.struck: set[Step] = set()
        self.gone = False
        self._seen: set[object] = set()
        self._planned = {step.place: step for step in history.steps if isinstance(step, CallFails)}
        self._crashes = crashes

    def plan(self, call: Call, random: Random) -> Fault | None:
        if call.operation in APART:
            return None
        if self.gone:
            return Refused()
        awaits = self._crashes.awaits
        called = Called(vendor=call.vendor, operation=call.operation, index=call.index, awaits=awaits)
        if called.place not in self._seen:  # who has to know beforehand asks twice
            self._seen.add(called.place)
            self.calls.append(called)
        step = self._planned.get(called.place)
        if step is None:
            return None
        self.struck.add(step)
        return step.fault


def run_history(test: Test, history: History, world: Callable[[History], Parts], limits: Limits) -> Ran:
    """Run the test in a world of its own, with this going wrong; whatever it raises is in what is returned."""
    with seeded(history.seed):
        parts = world(history)
        observer = _Observer(history, parts.crashes)
        parts.faults.on("*").plan(observer.plan)
        for step in history.webhooks:
            parts.webhooks.order(step.number, step.how)
        parts.webhooks.runner = parts.crashes.receive
        parts.crashes.journal = parts.journal
        error, timeline = parts.vclock.run(lambda: _to_its_end(test, parts, observer, limits))
    webhooks = parts.webhooks.owed
    reached: set[Step] = {step for step in history.webhooks if step.number < webhooks}
    reached |= {Crash(at) for at in parts.crashes.struck & history.crashes}
    return Ran(
        history=history,
        error=error,
        places=parts.crashes.places or (),
        calls=observer.calls,
        webhooks=webhooks,
        struck=frozenset(reached | observer.struck),
        timeline=timeline,
    )


async def _to_its_end(
    test: Test, parts: Parts, observer: _Observer, limits: Limits
) -> tuple[BaseException | None, str]:
    turns = 0

    def count(_life: Life, _stepped: Stepped) -> None:
        nonlocal turns
        turns += 1
        if turns > limits.turns:
            stage.kill()

    stage = Life(count)
    parts.crashes.watch(told=count)
    with stepping_tasks():
        try:
            error = await _watched(stage, lambda: test(**given(test, parts)), parts.vclock, limits)
            timeline = "" if error is None else str(parts.fakes.explain())
        finally:  # also where the history itself is cancelled, nothing of it goes on
            observer.gone = True
            try:
                await stage.dispose(within=DISPOSAL)
            finally:
                await parts.crashes.dispose()
    return error, timeline


async def _watched(
    stage: Life, test: Callable[[], Awaitable[object]], time: Time, limits: Limits
) -> BaseException | None:
    async with asyncio.TaskGroup() as tasks:
        overdue = tasks.create_task(time.sleep(limits.seconds))
        running = tasks.create_task(stage.run(test))
        await asyncio.wait((running, overdue), return_when=asyncio.FIRST_COMPLETED)
        late = not running.done()
        overdue.cancel()
        if late:
            stage.kill()
    ended = running.result()
    if ended is not None:
        return asyncio.CancelledError() if ended.cancelled() else ended.exception()
    text = f"took more than {limits.seconds / DAY:g} days" if late else f"waited more than {limits.turns} times"
    return HistoryHangs(f"the history does not come to its end: it {text}")


def given(test: Test, parts: Parts) -> dict[str, object]:
    """The arguments of a test: the world, or its parts by their names."""
    names = inspect.signature(test).parameters
    return {name: parts if name == "world" else getattr(parts, name) for name in names}
