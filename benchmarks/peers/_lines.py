"""How a peer is asked to work: a line with a verb and a number of jobs, answered by a line with the seconds it took."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from random import Random

import uvloop

CALLERS = 50
CONCURRENCY = 100
"""Of a worker."""
BYTES = 1500
"""Of what a job carries."""

Verb = Callable[[int], Awaitable[float]]


def serve(verbs: Callable[[], Awaitable[Mapping[str, Verb]]]) -> None:
    """Answer line after line until there is none."""
    run = uvloop.run if "uvloop" in sys.argv else asyncio.run
    run(_answer(verbs))


async def _answer(verbs: Callable[[], Awaitable[Mapping[str, Verb]]]) -> None:
    known = await verbs()
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, jobs = line.split()
        print(await known[verb](int(jobs)), flush=True)


def bodies(jobs: int) -> list[str]:
    """One for each job, all different."""
    chance = Random(1)
    return [chance.randbytes(BYTES // 2).hex() for _ in range(jobs)]


async def add(enqueue: Callable[[str], Awaitable[object]], jobs: int) -> float:
    """Seconds that so many callers take, each of whom waits for one job before it enqueues the next."""
    left = iter(bodies(jobs))
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(_caller(left, enqueue))
    return time.perf_counter() - begun


async def _caller(left: Iterator[str], enqueue: Callable[[str], Awaitable[object]]) -> None:
    for body in left:
        await enqueue(body)


class Drained:
    """Counts the jobs a worker has run."""

    def __init__(self) -> None:
        self._left = 0
        self._over = asyncio.Event()

    def count(self) -> None:
        """One more."""
        self._left -= 1
        if not self._left:
            self._over.set()

    async def by(self, work: Callable[[], Awaitable[object]], jobs: int) -> float:
        """Seconds from the worker's start until so many were run; then it is cancelled."""
        self._left = jobs
        self._over.clear()
        begun = time.perf_counter()
        working = asyncio.ensure_future(work())
        await self._over.wait()
        seconds = time.perf_counter() - begun
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        return seconds
