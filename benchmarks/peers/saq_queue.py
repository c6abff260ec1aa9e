"""saq: jobs on its Redis queue, one enqueue per caller; a worker of concurrency 100 whose handler does nothing."""

import sys
from collections.abc import Mapping
from typing import Any

from _lines import CONCURRENCY, Drained, Verb, add, serve
from saq import Queue, Worker


async def verbs() -> Mapping[str, Verb]:
    queue = Queue.from_url(sys.argv[1])
    await queue.connect()
    drained = Drained()

    async def handle(context: Any, *, body: str) -> None:
        drained.count()

    async def drain(jobs: int) -> float:
        await add(lambda body: queue.enqueue("handle", body=body), jobs)
        worker = Worker(queue, [("handle", handle)], concurrency=CONCURRENCY)
        seconds = await drained.by(worker.start, jobs)
        await worker.stop()
        return seconds

    return {"add": lambda jobs: add(lambda body: queue.enqueue("handle", body=body), jobs), "drain": drain}


serve(verbs)
