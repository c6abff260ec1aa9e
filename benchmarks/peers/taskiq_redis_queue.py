"""taskiq with taskiq-redis: a stream, no result backend, one `kiq` per caller; 100 tasks at once that do nothing."""

import sys
from collections.abc import Mapping

from _lines import CONCURRENCY, Drained, Verb, add, serve
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker


async def verbs() -> Mapping[str, Verb]:
    broker = RedisStreamBroker(sys.argv[1], consumer_id="0")
    drained = Drained()

    @broker.task("handle")
    async def handle(body: str) -> None:
        drained.count()

    await broker.startup()

    async def drain(jobs: int) -> float:
        await add(handle.kiq, jobs)
        return await drained.by(lambda: run_receiver_task(broker, max_async_tasks=CONCURRENCY), jobs)

    return {"add": lambda jobs: add(handle.kiq, jobs), "drain": drain}


serve(verbs)
