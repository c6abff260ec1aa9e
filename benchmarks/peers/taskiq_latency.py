"""taskiq on a Redis stream: `produce` or `work`, and how long tasks wait for their start."""

import asyncio
import contextlib
import sys

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks._latency import Started, obey, produce

broker = RedisStreamBroker(sys.argv[2])
started = Started()


@broker.task
async def start(sent: float) -> None:
    started.saw(sent)


async def main() -> None:
    if sys.argv[1] == "produce":
        await broker.startup()
        await obey(lambda count: produce(count, start.kiq))
        await broker.shutdown()
        return
    broker.is_worker_process = True
    working = asyncio.ensure_future(run_receiver_task(broker, run_startup=True))
    await asyncio.sleep(1)
    await obey(started.collect)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


if __name__ == "__main__":
    uvloop.run(main())
