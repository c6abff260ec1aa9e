"""saq: `enqueue` or `work`, with its defaults."""

import asyncio
import sys

from saq import Queue, Worker

from benchmarks._recovery import ENQUEUE, enqueue_all, job

queue = Queue.from_url(sys.argv[2])


async def wait(context: object, *, number: int) -> None:
    await job(number)


async def main() -> None:
    await queue.connect()
    if sys.argv[1] == ENQUEUE:
        await enqueue_all(lambda number: queue.enqueue("wait", number=number))
    else:
        await Worker(queue, functions=[wait]).start()


if __name__ == "__main__":
    asyncio.run(main())
