"""Clocks that jump, processes that stand still, handlers that block: leases are kept, or lost and fenced."""

import asyncio
import time
from dataclasses import replace
from typing import Final

from chaos.history import Recovery
from chaos.processes import Life
from chaos.producer import Traffic, until
from chaos.stage import Found, Stage
from holdfast.errors import StoreError
from holdfast.stores import open_store

JUMPS: Final = (3600.0, -3600.0, -7200.0, 1800.0, 0.0)
"""By how much the wall clock is wrong, one after the other."""
BETWEEN: Final = 0.6


async def zombie(stage: Stage) -> Found:
    """A worker stands still for longer than its lease, and then goes on: what it does no longer counts.

    One whose handler blocks the event loop for as long keeps its lease.
    """
    begun = time.monotonic()
    stage.options = replace(stage.options, lease=1.0, heartbeat=0.2)
    producer = stage.producer(Traffic(rate=60, modes={"plain": 90, "long": 10}, lanes=8))
    await stage.ready("receiver")
    frozen = await stage.ready("worker")
    held = [await producer.send("held") for _ in range(3)]
    await until(lambda: all(stage.runs_of(id) for id in held), 10)
    await stage.ready("worker")
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(producer.run())
        await asyncio.sleep(0.5)
        await _freeze(stage, frozen)
        stage.kills["worker frozen"] += 1
        taken = await until(lambda: all(len(stage.runs_of(id)) > 1 for id in held), 5 * stage.options.lease)
        frozen.thaw()
        await asyncio.sleep(0.5)
        producer.stop()
        await sending
    await stage.quiet(10)
    blocking = [await producer.send("blocks") for _ in range(2)]
    await until(lambda: all(stage.runs_of(id) for id in blocking), 10)
    await stage.quiet(10)
    await stage.end()
    stage.notes["fenced"] = sum(line["what"] == "fenced" for line in stage.work())
    if not taken:
        stage.facts["recoveries"] = [Recovery(seconds=5 * stage.options.lease, within=2 * stage.options.lease)]
    return await stage.collect("frozen worker", begun)


async def _freeze(stage: Stage, life: Life) -> None:
    """Not while it keeps the whole store from everybody else, as one that writes to a file may."""
    while True:
        life.freeze()
        try:
            async with asyncio.timeout(0.3), open_store(stage.engine.url) as store:
                await store.leases.acquire("chaos", owner="chaos", ttl=1.0)
        except (TimeoutError, StoreError):
            life.thaw()
            await asyncio.sleep(0.02)
        else:
            return


async def jumps(stage: Stage) -> Found:
    """The wall clock of all processes jumps, forwards and backwards, while traffic comes in and a worker dies."""
    begun = time.monotonic()
    set_wall(stage, 0.0)
    producer = stage.producer(Traffic(rate=100, lanes=8))
    receiver = await stage.ready("receiver", wall=True)
    workers = [await stage.ready("worker", wall=True) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(producer.run())
        for offset in JUMPS:
            await asyncio.sleep(BETWEEN)
            set_wall(stage, offset)
            stage.kills["clock jumped"] += 1
            await asyncio.sleep(BETWEEN)
            victim = stage.chance.randrange(2)
            await workers[victim].kill()
            stage.kills["worker at random"] += 1
            workers[victim] = await stage.ready("worker", wall=True)
        producer.stop()
        await sending
    await receiver.kill()
    await workers[0].kill()
    await stage.ready("worker", wall=True)
    stage.notes["quiet"] = float(await stage.quiet(15))
    await stage.end()
    return await stage.collect("clock jumps", begun)


def set_wall(stage: Stage, offset: float) -> None:
    """From now on. A jump forwards ends all leases on a store that keeps this clock, which counts as an outage."""
    (stage.directory / "wall").write_text(f"{offset:<32}")
    stage.faults.write("outage", at=time.monotonic(), until=time.monotonic() + stage.options.lease)
