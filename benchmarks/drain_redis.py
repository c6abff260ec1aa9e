"""How fast a worker empties the Redis store, from the claim to what is left of a job that is done: beside taskiq-redis
and BullMQ.

One server for all, on a core of its own, which syncs its log every second. Everyone has one process that runs 100 jobs
at once with a handler that does nothing; jobs are added before the time begins. Ours is the worker the hub runs: every
job is leased, its lease kept and fenced, its result recorded before it counts as done. taskiq acknowledges, and its
stream grows by an entry for every job. BullMQ removes what is completed.
"""

import asyncio
import random
import statistics
import time
from argparse import Namespace
from contextlib import suppress
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._queues import LOOPS, NO_NODE, Peer, add_loop, peers, ratio, running_server
from benchmarks.ingest_redis import BYTES, Vendor
from holdfast.clock import SystemClock
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.stores import Job, JobState, Store, open_store
from holdfast.telemetry import Telemetry
from tests.servers.redis import RedisServer

CONCURRENCY: Final = 100
AT_ONCE: Final = 500
"""Jobs in one call that adds."""
WARM_UP: Final = 500
OTHERS: Final = ("taskiq", "bullmq")

REMARKS: Final = {
    "ratio_taskiq": "jobs per second, over taskiq-redis on a stream, no result backend",
    "ratio_bullmq": "the same, over BullMQ's worker, which removes what is completed",
    "per_s": f"jobs of {BYTES} bytes, claimed, run and completed by one worker, {CONCURRENCY} at once",
    "ordered_per_s": "the same, each job with an ordering key that another one shares",
    "taskiq_per_s": f"max_async_tasks={CONCURRENCY}",
    "bullmq_per_s": f"concurrency: {CONCURRENCY}",
}


def main() -> None:
    parser = arguments("drain_redis", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of everyone in turn (default 5)")
    parser.add_argument("--jobs", type=int, default=5000, help="of ours in a round (default 5000); taskiq gets a third")
    add_loop(parser)
    options = parser.parse_args()
    with running_server() as server, peers(server, *OTHERS, loop=options.loop) as others:
        figures = LOOPS[options.loop](run(server, others, options))
        version = str(server.ask("INFO", "server")["redis_version"])
    found = {"redis-server": version} | versions("holdfast", "redis")
    lines = () if "bullmq" in others else (NO_NODE,)
    publish(Report(name="drain_redis", figures=figures, versions=found, remarks=REMARKS, lines=lines), options)


async def run(server: RedisServer, others: dict[str, Peer], options: Namespace) -> dict[str, float]:
    vendor = Vendor()
    shares = {"taskiq": 3, "bullmq": 1}
    async with open_store(server.url) as store:
        rates: dict[str, list[float]] = {name: [] for name in ("ours", "ordered", *others)}
        await drain(store, server.url, vendor, WARM_UP)
        for name in others:
            await asyncio.to_thread(others[name].per_second, "drain", WARM_UP)
        for number in range(options.rounds):
            names = list(rates)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name in others:
                    jobs = options.jobs // shares[name]
                    rates[name].append(await asyncio.to_thread(others[name].per_second, "drain", jobs))
                else:
                    rates[name].append(await drain(store, server.url, vendor, options.jobs, ordered=name == "ordered"))
        done = WARM_UP + 2 * options.rounds * options.jobs
        assert await store.jobs.count() == {("deliveries", JobState.DONE): done}
    return (
        {f"ratio_{name}": round(ratio(rates["ours"], rates[name]), 2) for name in others}
        | {"per_s": round(statistics.median(rates["ours"]))}
        | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items() if name != "ours"}
    )


async def drain(store: Store, url: str, vendor: Vendor, jobs: int, *, ordered: bool = False) -> float:
    """Jobs per second, from the worker's start until the last one is recorded as done."""
    given = vendor.jobs(jobs, ordered=ordered)
    for begin in range(0, jobs, AT_ONCE):
        await store.jobs.add(given[begin : begin + AT_ONCE])
    left, over = jobs, asyncio.Event()

    async def handle(job: Job) -> Result:
        nonlocal left
        left -= 1
        if not left:
            over.set()
        return "done"

    worker = Worker(
        store.jobs,
        handle,
        queues=["deliveries"],
        owner="benchmark",
        clock=SystemClock(),
        chance=random.Random(1),
        telemetry=Telemetry(),
        options=WorkerOptions(concurrency=CONCURRENCY),
        apart=lambda: open_store(url),
    )
    begun = time.perf_counter()
    working = asyncio.create_task(worker.run())
    await over.wait()
    while any(state is JobState.LEASED for _, state in await store.jobs.count()):
        """The last ones are being recorded."""
    seconds = time.perf_counter() - begun
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    return jobs / seconds


if __name__ == "__main__":
    main()
