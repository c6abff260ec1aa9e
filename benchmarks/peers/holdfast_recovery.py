"""holdfast: `enqueue` or `work`, with its defaults, and once without looking for the dead of its own host."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from benchmarks._recovery import ENQUEUE, enqueue_all, job
from holdfast import Event, Holdfast, WorkerOptions
from holdfast.queue.events import QUEUE, encode
from holdfast.stores.store import NewJob

takeover = WorkerOptions().takeover if "--no-takeover" not in sys.argv else 0.0
hub = Holdfast(store=sys.argv[2], worker=WorkerOptions(takeover=takeover))


@dataclass(frozen=True, kw_only=True)
class Wait(Event):
    """Something to wait for."""

    type: ClassVar[str] = "wait"
    number: int


@hub.on(Wait, name="wait")
async def wait(event: Wait) -> None:
    await job(event.number)


async def add(number: int) -> None:
    event = Wait(id=f"wait/{number}", reference=str(number), at=datetime.now(UTC), number=number)
    new = NewJob(queue=QUEUE, key=event.id, kind=Wait.type, handler="wait", body=encode(event))
    await hub.store.jobs.add([new])


async def main() -> None:
    async with hub:
        if sys.argv[1] == ENQUEUE:
            await enqueue_all(add)
        else:
            await hub.work()


if __name__ == "__main__":
    asyncio.run(main())
