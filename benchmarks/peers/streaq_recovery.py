"""streaq: `enqueue` or `work`, with its defaults."""

import asyncio
import sys

from streaq import Worker

from benchmarks._recovery import ENQUEUE, enqueue_all, job

worker = Worker(redis_url=sys.argv[2])


@worker.task
async def wait(number: int) -> None:
    await job(number)


async def main() -> None:
    async with worker:
        await enqueue_all(wait.enqueue)


if __name__ == "__main__":
    if sys.argv[1] == ENQUEUE:
        asyncio.run(main())
    else:
        worker.run_sync()
