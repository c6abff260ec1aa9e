"""Full disks, full memory, full queues: 503 and nothing else, and every 2xx is in the store afterwards."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from chaos.history import of_key
from chaos.journal import read as lines
from chaos.producer import Connection, Producer
from chaos.stage import Found, Stage, judged
from holdfast.stores import open_store

FILE: Final = 3_000_000
PADDING: Final = 4000
REFUSALS: Final = 60
MOST: Final = 6000
AT_ONCE: Final = 8


async def disk(stage: Stage) -> Found:
    """No file of the receiver's may grow any more, as on a full disk; then it may again, and it goes on by itself."""
    begun = time.monotonic()
    receiver = await stage.ready("receiver", largest_file=FILE)

    async def relieve() -> None:
        resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    return await _fill(stage, "full disk", begun, relieve)


async def memory(stage: Stage) -> Found:
    """The server has no memory left for anything new; then it has."""
    begun = time.monotonic()
    await stage.ready("receiver")
    await stage.engine.hits["full"]()
    return await _fill(stage, "full memory", begun, stage.engine.hits["relieve"])


async def queue(stage: Stage) -> Found:
    """More wait than are allowed to, until a worker comes."""
    begun = time.monotonic()
    await stage.ready("receiver", backlog=300)

    async def relieve() -> None:
        """A worker is started in any case."""

    return await _fill(stage, "full queue", begun, relieve)


async def _fill(stage: Stage, name: str, begun: float, relieve: Callable[[], Awaitable[None]]) -> Found:
    producer = stage.producer()
    refused = await _until_full(stage, producer)
    stage.kills[name] += 1
    await relieve()
    await stage.ready("worker")
    late = await producer.send("plain")
    producer.sync()
    stage.notes["refused"] = refused
    await stage.quiet()
    async with open_store(stage.engine.url) as store:
        held = {of_key(job.key) for job in await store.jobs.list(limit=1_000_000)}
    await stage.end()
    found = await stage.collect(name, begun)
    left = [] if refused >= REFUSALS else [f"{name}: only {refused} requests were refused"]
    left += [] if late in held else [f"{name}: it took nothing any more when there was room again"]
    return judged(found, replace(found.history, places_left=left))


async def _until_full(stage: Stage, producer: Producer) -> int:
    """Send until it was refused often; how often that was."""
    refused = 0
    left = iter(range(MOST))

    async def lane() -> None:
        nonlocal refused
        connection = Connection(stage.ports[0])
        for _ in left:
            if refused >= REFUSALS:
                break
            fact = producer.fact() | {"padding": "x" * PADDING}
            if not await producer.attempt(connection, fact):
                refused += 1
        connection.close()

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    return sum(line["what"] == "answer" and line["status"] == 503 for line in lines(stage.directory / "vendor.jsonl"))
