"""Working through a queue: ours in this process, peers in processes of their own, in turn."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from holdfast import Event, Holdfast
from holdfast.queue.events import QUEUE, encode
from holdfast.stores.store import JobState, NewJob
from holdfast.telemetry import JobFinished, Signal

BYTES: Final = 1500
"""Of a job's body."""
PEERS: Final = Path(__file__).parent / "peers"
PYTHON: Final = Path(sys.prefix) / "peers" / "bin" / "python"
HANDLER: Final = "note"

Drain = Callable[[int], Awaitable[float]]
"""Adds so many jobs, works through them, and says in how many seconds: of the work alone."""


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "benchmark.ordered"
    text: str


class Finished:
    """Hears from the hub how many jobs are done."""

    def __init__(self) -> None:
        self._left = 0
        self._over = asyncio.Event()

    def hears(self, kind: type[Signal]) -> bool:
        return kind is JobFinished

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, JobFinished):
            assert signal.result in ("done", "lost"), signal  # what was lost is not done, and told in the end
            self._left -= 1
            if not self._left:
                self._over.set()

    async def wait(self, jobs: int) -> None:
        self._left = jobs
        self._over.clear()
        await self._over.wait()


class Ours:
    """A hub that is open, and has a handler `HANDLER` of `Ordered`."""

    def __init__(self, hub: Holdfast, finished: Finished) -> None:
        self._hub = hub
        self._finished = finished
        self.added = 0

    async def drain(self, count: int) -> float:
        for begin in range(0, count, 500):
            await self._hub.store.jobs.add(self._jobs(min(500, count - begin)))
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._hub.work())
            await self._finished.wait(count)
            seconds = time.perf_counter() - begun
            working.cancel()
        return seconds

    async def all_done(self) -> bool:
        return dict(await self._hub.store.jobs.count()) == {(QUEUE, JobState.DONE): self.added}

    def _jobs(self, count: int) -> list[NewJob]:
        """As a payment's change adds them: a key each, and in order with others of the same reference and handler."""
        numbers = range(self.added, self.added + count)
        self.added += count
        orders = [self._order(number) for number in numbers]
        return [
            NewJob(
                queue=QUEUE,
                key=f"{order.id}/{HANDLER}",
                kind=order.type,
                handler=HANDLER,
                body=encode(order),
                ordering_key=f"{order.reference}/{HANDLER}",
            )
            for order in orders
        ]

    def _order(self, number: int) -> Ordered:
        order = Ordered(id=f"order/{number}/1/ordered", reference=f"order-{number}", at=datetime.now(UTC), text="")
        return Ordered(id=order.id, reference=order.reference, at=order.at, text="x" * (BYTES - len(encode(order))))


class Peer:
    """A script that takes a number of jobs per line, and answers with the seconds its work took."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def drain(self, count: int) -> float:
        return await asyncio.to_thread(self._drain, count)

    def _drain(self, count: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(count, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def peer(script: str, *arguments: str) -> Generator[Peer]:
    """It ends with the block."""
    command = [str(PYTHON), str(PEERS / script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Peer(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def compare(candidates: Mapping[str, tuple[Drain, int]], *, rounds: int) -> dict[str, list[float]]:
    """Jobs per second in each round: everyone in every round, another one first each time; each its number of jobs."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        names = list(candidates)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            drain, jobs = candidates[name]
            seconds = await drain(jobs)
            if number:  # the first one only warms up
                rates[name].append(jobs / seconds)
    return rates


def figures(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Ratios are medians of the rounds' own: what disturbs a round disturbs all."""
    peers = [name for name in rates if name != "ours"]
    return {
        f"ratio_{name}": round(
            statistics.median(mine / other for mine, other in zip(rates["ours"], rates[name], strict=True)), 2
        )
        for name in peers
    } | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()}
