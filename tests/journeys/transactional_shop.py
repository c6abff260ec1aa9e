"""A process that notes orders in the store's own transactions, and is killed in the middle of some.

Its arguments are a directory, how many orders to add, and which of them are deadly, once each.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from holdfast import Event, Holdfast, Secrets, WorkerOptions
from holdfast.queue.events import QUEUE, encode
from holdfast.stores.store import NewJob


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "test.ordered"


async def main(directory: Path, count: int, deadly: set[str]) -> None:
    """Add the orders that are not there yet, and note them until told to stop."""
    hub = Holdfast(
        store=f"sqlite:///{directory}/holdfast.db",
        secret=Secrets("transactional-secret"),
        worker=WorkerOptions(concurrency=40, lease=0.5, heartbeat=0.1, idle=0.05),
    )

    @hub.on(Ordered, name="note", transactional=True)
    def note(ordered: Ordered, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (ordered.reference,))
        killed = directory / f"killed-{ordered.reference}"
        if ordered.reference in deadly and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    async with hub:
        with closing(sqlite3.connect(directory / "holdfast.db", timeout=10)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS notes (reference TEXT)")
        now = datetime.now(UTC)
        orders = [Ordered(id=f"order/{number}", reference=str(number), at=now) for number in range(count)]
        await hub.store.jobs.add(
            [NewJob(queue=QUEUE, key=each.id, kind=each.type, handler="note", body=encode(each)) for each in orders]
        )
        await hub.work()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])))
