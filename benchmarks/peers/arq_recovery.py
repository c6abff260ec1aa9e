"""arq: `enqueue` or `work`, with its defaults."""

import asyncio
import sys

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks._recovery import ENQUEUE, enqueue_all, job

SETTINGS = RedisSettings.from_dsn(sys.argv[2])


async def wait(context: object, number: int) -> None:
    await job(number)


async def main() -> None:
    if sys.argv[1] == ENQUEUE:
        pool = await create_pool(SETTINGS)
        await enqueue_all(lambda number: pool.enqueue_job("wait", number))
    else:
        await Worker([wait], redis_settings=SETTINGS).async_run()


if __name__ == "__main__":
    asyncio.run(main())
