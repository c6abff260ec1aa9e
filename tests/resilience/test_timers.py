"""A guard's time limit is `asyncio.timeout` with another error: in whatever is done around it and inside it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import OutcomeUnknown
from holdfast.outcome import Effect
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy
from tests.resilience.virtual import LoopClock, play

Body = Callable[[], Awaitable[object]]
Limited = Callable[["Limit", Body], Awaitable[object]]


class Own(Exception):
    """The body's own error."""


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Swallow:
    """Takes no notice of a cancellation, and takes its time then."""

    seconds: float
    more: float


@dataclass(frozen=True)
class Delay:
    """Takes its time to be cancelled."""

    seconds: float
    more: float


@dataclass(frozen=True)
class Break:
    """Answers a cancellation with an error of its own."""

    seconds: float


@dataclass(frozen=True)
class Raise:
    pass


@dataclass(frozen=True)
class Limit:
    """The limit that is tested."""

    seconds: float
    steps: "Steps"


@dataclass(frozen=True)
class Timeout:
    """One of asyncio's own."""

    seconds: float
    steps: "Steps"


@dataclass(frozen=True)
class Catch:
    """Goes on after whatever limit ended the steps."""

    steps: "Steps"


@dataclass(frozen=True)
class Group:
    """A task beside the steps: whichever fails ends the other."""

    child: "Steps"
    steps: "Steps"


Step: TypeAlias = Sleep | Swallow | Delay | Break | Raise | Limit | Timeout | Catch | Group
Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True)
class Story:
    """What a task does, and when it is cancelled from outside."""

    steps: Steps
    cancels: tuple[float, ...]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    durations = 0

    def seconds(least: int = 0) -> float:
        nonlocal durations
        durations += 1  # a fraction of its own for each, so that no two moments are the same by chance
        return draw(st.integers(least, 4)) + 2.0 ** -(durations + 1)

    same = seconds(1)

    def step(depth: int, child: bool) -> Step:
        kinds = ["sleep", "sleep", "swallow", "delay", "break", "raise"]
        kinds += ["limit", "limit", "limit", "timeout", "catch", "group"] if depth < 4 else []
        match draw(st.sampled_from(kinds)):
            case "sleep":
                return Sleep(seconds())
            case "swallow":
                return Swallow(seconds(), seconds())
            case "delay":
                return Delay(seconds(), seconds())
            case "break":
                return Break(seconds())
            case "limit":
                # Not in another task: which of two timers of the same moment rings first is nobody's promise.
                again = not child and draw(st.booleans())
                return Limit(same if again else seconds(1), steps(depth + 1, child))
            case "timeout":
                return Timeout(seconds(1), steps(depth + 1, child))
            case "catch":
                return Catch(steps(depth + 1, child))
            case "group":
                return Group(steps(depth + 1, True), steps(depth + 1, child))
            case _:
                return Raise()

    def steps(depth: int, child: bool = False) -> Steps:
        return tuple(step(depth, child) for _ in range(draw(st.integers(1, 2 if depth else 3))) if durations < 40)

    return Story(steps(0), tuple(seconds() for _ in range(draw(st.integers(0, 2)))))


@dataclass
class Told:
    """How a story went."""

    events: list[tuple[float, str, int]] = field(default_factory=list)
    ended: object = None
    cancelled: bool = False
    cancelling: int = 0


def kind_of(error: BaseException) -> object:
    if isinstance(error, BaseExceptionGroup):
        return tuple(map(kind_of, error.exceptions))
    return TimeoutError if isinstance(error, OutcomeUnknown) else type(error)


async def tell(story: Story, limited: Limited) -> Told:
    loop, told = asyncio.get_running_loop(), Told()

    def note(event: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        told.events.append((loop.time(), event, task.cancelling()))

    async def take(steps: Steps) -> None:
        for step in steps:
            try:
                await perform(step)
            except BaseException as error:
                note(f"{type(step).__name__}: {kind_of(error)}")
                raise
            note(type(step).__name__)

    async def perform(step: Step) -> None:
        match step:
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Swallow(seconds, more):
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    await asyncio.sleep(more)
            case Delay(seconds, more):
                try:
                    await asyncio.sleep(seconds)
                finally:
                    await asyncio.sleep(more)
            case Break(seconds):
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    raise Own from None
            case Raise():
                raise Own
            case Limit(_, steps):
                await limited(step, lambda: take(steps))
            case Timeout(seconds, steps):
                async with asyncio.timeout(seconds):
                    await take(steps)
            case Catch(steps):
                try:
                    await take(steps)
                except (TimeoutError, OutcomeUnknown):
                    note("caught")
            case Group(child, steps):
                async with asyncio.TaskGroup() as group:
                    group.create_task(take(child))
                    await take(steps)

    task = asyncio.create_task(take(story.steps))
    handles = [loop.call_later(after, task.cancel) for after in story.cancels]
    await asyncio.wait([task])
    for handle in handles:
        handle.cancel()
    told.cancelled, told.cancelling = task.cancelled(), task.cancelling()
    if not task.cancelled():
        error = task.exception()
        told.ended = None if error is None else kind_of(error)
    return told


async def by_asyncio(step: Limit, body: Body) -> object:
    async with asyncio.timeout(step.seconds):
        return await body()


def by_guards(*, carefully: bool) -> tuple[Limited, dict[float, Guard]]:
    guards: dict[float, Guard] = {}

    async def limited(step: Limit, body: Body) -> object:
        guard = guards.get(step.seconds)
        if guard is None:
            policy = Policy(retry=None, breaker=None, timeout=step.seconds)
            guard = guards[step.seconds] = Guard("limit", policy, clock=LoopClock())
        return await (guard.run(body, effect=Effect.READ, operation="body") if carefully else guard.read(body))

    return limited, guards


async def guarded(story: Story, *, carefully: bool) -> tuple[Told, int]:
    limited, guards = by_guards(carefully=carefully)
    told = await tell(story, limited)
    return told, sum(guard.snapshot().running for guard in guards.values())


@pytest.mark.parametrize("carefully", [False, True])
@settings(max_examples=300, deadline=None)
@given(story=stories())
def test_a_time_limit_does_what_asyncios_timeout_does(story: Story, carefully: bool) -> None:
    expected = play(tell(story, by_asyncio))

    told, running = play(guarded(story, carefully=carefully))

    assert told == expected
    assert running == 0
