"""Small promises, each with a scenario of its own: poison, and keys that fail for ever."""

import asyncio
import random
import statistics
import time
from functools import partial
from itertools import count
from math import inf
from typing import Final

from chaos.processes import Life
from chaos.producer import until
from chaos.stage import Found, Stage
from holdfast import WorkerOptions
from holdfast.clock import SystemClock
from holdfast.queue.worker import Result, Worker
from holdfast.stores import open_store
from holdfast.stores.store import Job, NewJob, Store
from holdfast.telemetry import Telemetry

OTHERS: Final = 600
ROUNDS: Final = 5
MOST_ROUNDS: Final = 15
"""On a machine that is busy with other things."""
ENOUGH: Final = 0.92
_numbers = count()


async def poison(stage: Stage) -> Found:
    """One delivery ends every process that handles it: it dies of exactly three losses, and takes no other with it."""
    begun = time.monotonic()
    producer = stage.producer()
    await stage.ready("receiver")
    await producer.send("deadly")
    for _ in range(40):
        await producer.send("plain")
    over = asyncio.Event()

    async def slot() -> None:
        while not over.is_set():
            life = stage.start("worker")
            if await until(partial(_is_enough, life, over), inf) and life.is_over:
                stage.kills["worker poisoned"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(slot())
        await stage.quiet()
        over.set()
    await stage.end()
    return await stage.collect("poison", begun)


def _is_enough(life: Life, over: asyncio.Event) -> bool:
    return life.is_over or over.is_set()


async def blocked_key(stage: Stage) -> Found:
    """One ordering key fails for ever: the others are as quick as without it."""
    begun = time.monotonic()
    ratios: list[float] = []
    async with open_store(stage.engine.url) as store:
        while len(ratios) < ROUNDS or (len(ratios) < MOST_ROUNDS and statistics.median(ratios) < ENOUGH):
            usual = await _seconds(store, blocked=False)
            ratios.append(usual / await _seconds(store, blocked=True))
    stage.facts |= {"beside_blocked": statistics.median(ratios), "rows": [], "counts": {}}
    stage.notes["of the usual pace"] = round(statistics.median(ratios), 2)
    return await stage.collect("blocked key", begun)


async def _seconds(store: Store, *, blocked: bool) -> float:
    """How long the others take."""
    name = f"round{next(_numbers)}"
    jobs = [_job(name, f"key{number % 60}") for number in range(OTHERS)]
    if blocked:
        jobs += [_job(name, "hopeless") for _ in range(20)]
    await store.jobs.add(jobs)
    left, done = OTHERS, asyncio.Event()

    async def perform(job: Job) -> Result:
        nonlocal left
        if job.ordering_key == "hopeless":
            raise ValueError("never")
        await asyncio.sleep(0.002)
        left -= 1
        if not left:
            done.set()
        return "done"

    worker = Worker(
        store.jobs,
        perform,
        queues=[name],
        owner=name,
        clock=SystemClock(),
        chance=random.Random(1),
        telemetry=Telemetry([]),
        options=WorkerOptions(retry_base=0.05, retry_cap=0.1, attempts=100_000, grace=1.0),
    )
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker.run())
        await done.wait()
        seconds = time.monotonic() - begun
        working.cancel()
    return seconds


def _job(queue: str, key: str) -> NewJob:
    return NewJob(queue=queue, key=f"chaos/{next(_numbers)}", kind="chaos", ordering_key=key)
