"""Clocks that jump, processes that stand still, handlers that block: leases are kept, or lost and fenced."""

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg

from chaos.history import Recovery
from chaos.processes import Life
from chaos.producer import Traffic, until
from chaos.stage import Found, Stage

JUMPS: Final = (-3000.0, 0.0, 3000.0, 0.0, 500.0)
"""By how much the wall clock is wrong, one after the other."""
BETWEEN: Final = 0.6
OPEN: Final = """
SELECT 1 FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '40 ms'
"""


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
    await until(lambda: all(stage.runs_of(id) for id in held), 60)
    await stage.ready("worker")
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(producer.run())
        await asyncio.sleep(0.5)
        await _freeze(stage, frozen)
        stage.kills["worker frozen"] += 1
        taken = await until(lambda: all(len(stage.runs_of(id)) > 1 for id in held), 60)
        frozen.thaw()
        await asyncio.sleep(0.5)
        producer.stop()
        await sending
    await stage.quiet(60)
    blocking = [await producer.send("blocks") for _ in range(2)]
    await until(lambda: all(stage.runs_of(id) for id in blocking), 60)
    await stage.quiet(60)
    await stage.end()
    stage.notes["fenced"] = sum(line["what"] == "fenced" for line in stage.work())
    if not taken:
        stage.facts["recoveries"] = [Recovery(seconds=60, within=2 * stage.options.lease)]
    return await stage.collect("frozen worker", begun)


async def _freeze(stage: Stage, life: Life) -> None:
    """Not while it keeps others from their work: by a file, or rows, the store's or the user's, that it writes to."""
    while True:
        life.freeze()
        await asyncio.sleep(0.05)
        if not any(_is_locked(file) for file in stage.directory.glob("*.db")) and not _is_amid(stage.engine.effects):
            return
        life.thaw()
        await asyncio.sleep(0.02)


def _is_amid(url: str) -> bool:
    """A transaction has been open on the server for as long as a process has stood still."""
    if not url.startswith("postgresql"):
        return False
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(OPEN).fetchone() is not None


def _is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        file.execute("ROLLBACK")
    return False


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
    stage.notes["quiet"] = float(await stage.quiet(60))
    await stage.end()
    return await stage.collect("clock jumps", begun)


def set_wall(stage: Stage, offset: float) -> None:
    """From now on. A jump forwards ends all leases on a store that keeps this clock, which counts as an outage."""
    file = os.open(stage.directory / "wall", os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(file, f"{offset:<32}".encode(), 0)  # in one write, over what it said before
    os.close(file)
    stage.faults.write("outage", at=time.monotonic(), until=time.monotonic() + stage.options.lease)
