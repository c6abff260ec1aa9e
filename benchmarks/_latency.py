"""What measures the time from enqueuing a job to its start, the same for every queue. Needs Python alone.

Time is the host's monotonic clock, which all its processes share.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

RATE: Final = 50
"""Jobs a second."""
WITHIN: Final = 20
"""Seconds in which all of a round are to have begun."""


class Started:
    """What a worker found: how long each job had waited."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._more = asyncio.Event()

    def saw(self, sent: float) -> None:
        """A job that was sent then begins now."""
        self._waits.append(time.monotonic() - sent)
        self._more.set()

    async def collect(self, count: int) -> Sequence[float]:
        """The waits of so many jobs, in seconds."""
        async with asyncio.timeout(WITHIN):
            while len(self._waits) < count:
                self._more.clear()
                await self._more.wait()
        waits, self._waits = self._waits, []
        return waits


async def produce(count: int, enqueue: Callable[[float], Awaitable[object]]) -> Sequence[float]:
    """Enqueue so many jobs, each with the time at which that began."""
    begun = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        await enqueue(time.monotonic())
    return []


async def obey(act: Callable[[int], Awaitable[Sequence[float]]]) -> None:
    """Act on each line of standard input, a count, until it ends; answer with a line of JSON."""
    print("[]", flush=True)
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        print(json.dumps(list(await act(int(line)))), flush=True)


class Process:
    """One that obeys."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, count: int) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)

    def answer(self) -> list[float]:
        """Its next answer."""
        assert self._process.stdout is not None
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def process(command: Sequence[str]) -> Generator[Process]:
    """Started and ready; it ends with the block."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        obeying = Process(started)
        obeying.answer()
        yield obeying
        started.communicate()
