"""What many callers ask for goes to the server as one call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

CALLS: Final = 3
"""Under way at once: one is worked on, one comes, and the answers of one are being read."""
FEW: Final = 16
"""That many need not wait for the rest of what is asked for in this turn of the event loop."""
MANY: Final = 256
"""In one call, at most."""
BYTES: Final = 1_000_000
"""In one call, about."""


class Gathering(Generic[Ask, Answer]):
    """Those who ask in one turn of the event loop, or while enough is under way, share a call."""

    def __init__(self, call: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]]) -> None:
        self._call = call
        self._waiting: deque[tuple[Ask, int, asyncio.Future[Answer]]] = deque()
        self._calls: set[asyncio.Task[None] | None] = set()
        self._begins = False

    async def ask(self, ask: Ask, size: int = 0) -> Answer:
        """The answer to this one; `size` in bytes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, size, future))
        if len(self._waiting) >= FEW:
            self._begin()
        elif not self._begins:
            self._begins = True
            loop.call_soon(self._begin)
        return await future

    async def close(self) -> None:
        """Let what was asked for be answered."""
        while self._waiting or self._calls:
            self._begin()
            await asyncio.wait([call for call in self._calls if call is not None])

    def _begin(self) -> None:
        self._begins = False
        while len(self._calls) < CALLS and (asked := self._next()):
            task = asyncio.get_running_loop().create_task(self._run(asked))
            self._calls.add(task)

    def _next(self) -> list[tuple[Ask, asyncio.Future[Answer]]]:
        """Half of those who wait, so that the others are on their way while these are answered."""
        asked: list[tuple[Ask, asyncio.Future[Answer]]] = []
        most, total = min(MANY, max(FEW, len(self._waiting) // 2)), 0
        while self._waiting and len(asked) < most and total < BYTES:
            ask, size, future = self._waiting.popleft()
            if not future.done():
                asked.append((ask, future))
                total += size
        return asked

    async def _run(self, asked: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        answer = partial(_cancel, asked)
        try:
            answers = await self._call([ask for ask, _ in asked])
            answer = partial(_answer, asked, answers)
        except Exception as error:  # a border: whoever asked is told
            answer = partial(_fail, asked, error)
        finally:
            # The next call is sent first, so that the server works on it while these go on with their answers.
            self._calls.discard(asyncio.current_task())
            self._begin()
            asyncio.get_running_loop().call_soon(answer)


def _answer(asked: Sequence[tuple[Any, asyncio.Future[Any]]], answers: Sequence[Any]) -> None:
    for (_, future), answer in zip(asked, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _fail(asked: Sequence[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)


def _cancel(asked: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
    for _, future in asked:
        future.cancel()
