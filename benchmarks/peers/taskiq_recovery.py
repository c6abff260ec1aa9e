"""taskiq on a Redis stream: `enqueue` or `work`, with its defaults."""

import asyncio
import sys

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks._recovery import ENQUEUE, enqueue_all, job

broker = RedisStreamBroker(sys.argv[2])


@broker.task
async def wait(number: int) -> None:
    await job(number)


async def main() -> None:
    if sys.argv[1] == ENQUEUE:
        await broker.startup()
        await enqueue_all(wait.kiq)
        await broker.shutdown()
    else:
        broker.is_worker_process = True
        await run_receiver_task(broker, run_startup=True)


if __name__ == "__main__":
    asyncio.run(main())
