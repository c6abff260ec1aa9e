"""Coroutines driven step by step, so that a whole program can be left where it stands: as `kill -9` leaves it.

Every task a program starts is one of ours: a context variable, inherited by all it starts, says which life it is of.
"""

import asyncio
import os
import sysconfig
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import count
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

ResultT = TypeVar("ResultT")
Place = tuple[tuple[CodeType, int], ...]
"""Where a coroutine waits: code and instruction of each frame, the outermost first."""

_KIT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARIES: Final = tuple(
    sorted(
        {
            "<frozen",
            os.path.dirname(_KIT) + os.sep,
            os.path.dirname(os.path.abspath(os.__file__)) + os.sep,
            *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        }
    )
)
"""How the names of files begin that are nobody's own program."""


class Life:
    """One run of a program, from its start until it ends or is killed.

    `suspended` is told whenever something in it waits, and may kill it then.
    """

    def __init__(self, suspended: "Callable[[Life, Stepped], None]") -> None:
        self.suspended = suspended
        self.killed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buried = False
        """Nobody looks any more: what is left of it may clean up."""
        self._context = _inside(self)
        self._started: list[tuple[asyncio.Task[Any], Stepped]] = []

    @property
    def dead(self) -> bool:
        return self.killed.done()

    @property
    def stands_still(self) -> bool:
        return self.killed.done() and not self.buried

    def kill(self) -> None:
        """Nothing of it runs from now on."""
        if not self.killed.done():
            self.killed.set_result(None)
            for task, _ in self._started:
                _forget(task)

    async def run(self, program: Callable[[], Awaitable[ResultT]]) -> asyncio.Task[ResultT] | None:
        """Run this in it until it has ended: the ended task; None where the life ended first.

        The loop's tasks are stepped meanwhile. Cancelled, it cancels the program and waits for it.
        """
        with stepping_tasks():
            task = asyncio.get_running_loop().create_task(_called(program), context=self._context.copy())
            try:
                await asyncio.wait((task, self.killed), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait((task, self.killed), return_when=asyncio.FIRST_COMPLETED)
                raise
        return task if task.done() else None

    def began(self, task: asyncio.Task[Any], stepped: "Stepped") -> None:
        """One more task of it; all are kept, so that nothing of a dead one is cleaned up by chance."""
        self._started.append((task, stepped))
        if self.dead:
            _forget(task)

    async def dispose(self, *, within: float) -> None:
        """Let go of what is left of it: it may clean up for so many seconds, and nobody hears what comes of that."""
        self.kill()
        self.buried = True
        for task, _ in self._started:
            task.cancel()
        try:
            if left := [task for task, _ in self._started if not task.done()]:
                await asyncio.wait(left, timeout=within)
        finally:
            self.close()

    def close(self) -> None:
        """The same, at once and also without an event loop: it cleans up as far as it gets without waiting."""
        self.buried = True
        for task, stepped in self._started:
            if task.done():
                _ = task.cancelled() or task.exception()  # looked at, so that nobody complains that nobody did
            else:
                _forget(task)
                stepped.abandon()
        self._started.clear()


def _forget(task: asyncio.Task[Any]) -> None:
    """Neither does its loop wait for it when it closes, nor does anybody complain that it never ended."""
    asyncio.tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch


_LIFE: Final[ContextVar[Life | None]] = ContextVar("life", default=None)


def _inside(life: Life) -> Context:
    context = copy_context()
    context.run(_LIFE.set, life)
    return context


async def _called(program: Callable[[], Awaitable[ResultT]]) -> ResultT:
    return await program()


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each real suspension, and is never resumed once its life is over."""

    __slots__ = ("_inner", "_life")

    def __init__(self, inner: Coroutine[Any, Any, Any], life: Life) -> None:
        self._inner = inner
        self._life = life

    def send(self, value: Any, /) -> Any:
        if self._life.stands_still:
            return _never()
        return self._suspended(self._inner.send(value))

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        if self._life.stands_still:
            return _never()
        return self._suspended(self._inner.throw(kind if value is None else value))

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        """Close it, whatever it makes of that."""
        for _ in range(10):  # as often as it waits again in the middle of its cleaning up
            try:
                return self._inner.close()
            except RuntimeError:
                continue
            except Exception:
                return None
        return None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # cr_frame, cr_code and the like, for whoever looks at a task

    def _suspended(self, waits_for: Any) -> Any:
        life = self._life
        if not life.buried:
            life.suspended(life, self)
        return waits_for

    @property
    def place(self) -> Place:
        """Where it waits."""
        found: list[tuple[CodeType, int]] = []
        one: Any = self._inner
        while (frame := getattr(one, "cr_frame", None)) is not None:
            found.append((frame.f_code, frame.f_lasti))
            one = one.cr_await
        return tuple(found)

    def describe(self) -> str:
        """Where it waits, for people: the innermost line of the program's own, or else the innermost of all."""
        frames: list[FrameType] = []
        one: Any = self._inner
        while (frame := getattr(one, "cr_frame", None)) is not None:
            frames.append(frame)
            one = one.cr_await
        if not frames:
            return "in a library"
        frame = next((found for found in reversed(frames) if is_own(found.f_code.co_filename)), frames[-1])
        return f"{frame.f_code.co_qualname} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"


def is_own(filename: str) -> bool:
    """Whether this file is of a program or its tests, and of no library."""
    return not filename.startswith(LIBRARIES)


def _never() -> asyncio.Future[Any]:
    """What a task waits for that is never resumed."""
    future = asyncio.get_running_loop().create_future()
    future._asyncio_future_blocking = True
    return future


class _Task(asyncio.Task[Any]):
    """A task that sets hold in the order of creation, so that one seed is one order."""

    number: int

    def __hash__(self) -> int:
        return self.number


class _Stepping:
    """A task factory that steps the tasks of lives; what another factory made, it makes still."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.users = 0
        self.numbers = count(1)

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **settings: Any
    ) -> Any:
        life = _LIFE.get() if context is None else context.get(_LIFE)
        if life is None:
            return self._make(loop, coroutine, context, settings)
        stepped = Stepped(coroutine, life)
        task = self._make(loop, stepped, context, settings)
        life.began(task, stepped)
        return task

    def _make(self, loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None, settings: Any) -> Any:
        if context is not None:
            settings["context"] = context
        if self.before is not None:
            return self.before(loop, coroutine, **settings)
        task = _Task.__new__(_Task)
        task.number = next(self.numbers)  # before __init__, which puts the task into a set
        task.__init__(coroutine, loop=loop, **settings)  # type: ignore[misc]
        return task


@contextmanager
def stepping_tasks() -> Generator[None]:
    """Until it is left, the loop's tasks that belong to a life are stepped."""
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    factory = before if isinstance(before, _Stepping) else _Stepping(before)
    if factory is not before:
        loop.set_task_factory(cast(Any, factory))
    factory.users += 1
    try:
        yield
    finally:
        factory.users -= 1
        if not factory.users and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.before)
