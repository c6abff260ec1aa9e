"""What a job of the benchmark `recovery` does, the same for every queue. Needs Python alone."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 2.0
JOBS: Final = 10

ENQUEUE, WORK = "enqueue", "work"


def note(number: int) -> None:
    """A job begins here and now; time is the host's monotonic clock, which all its processes share."""
    file = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{number} {os.getpid()} {time.monotonic()}\n".encode())
    os.close(file)


async def job(number: int) -> None:
    """Two seconds of waiting."""
    note(number)
    await asyncio.sleep(SECONDS)


async def enqueue_all(enqueue: Callable[[int], Awaitable[object]]) -> None:
    """The ten jobs."""
    for number in range(JOBS):
        await enqueue(number)
