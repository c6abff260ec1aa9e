"""An event loop whose time moves on as soon as nothing is left to do, and the clock that reads it."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from holdfast.clock import SystemClock

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.elapsed += timeout or 0.0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing: what would be waited passes at once."""

    def __init__(self) -> None:
        self._own_selector = _Selector()
        super().__init__(self._own_selector)

    def time(self) -> float:
        return self._own_selector.elapsed


class LoopClock(SystemClock):
    """The time of the running loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def play(main: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
