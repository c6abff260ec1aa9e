"""A second call beside one that takes longer than usual: the first answer wins."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from holdfast.clock import Clock

T = TypeVar("T")

LEAST = 0.05
"""Sooner than this many seconds nobody is slow."""


async def hedged(
    begin: Callable[[], Coroutine[object, object, T]], after: float, may: Callable[[], bool], clock: Clock
) -> T:
    """The first answer of one call, or of two if the first took longer than `after` seconds and `may` says so.

    What is not waited for any more is cancelled, and has ended when this returns. If both fail, the first one's error
    is raised.
    """
    calls: list[asyncio.Task[T]] = [asyncio.create_task(begin())]
    try:
        try:
            async with clock.timeout(after):
                await asyncio.wait(calls)
        except TimeoutError:
            if may():
                calls.append(asyncio.create_task(begin()))
        pending = set(calls)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for call in done:
                if not call.cancelled() and call.exception() is None:
                    return call.result()
        return calls[0].result()
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
