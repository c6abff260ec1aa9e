"""How fast jobs enter the Redis store, deduplicated and ready to be worked on: beside the queues others keep in Redis.

One server for all, on a core of its own, which syncs its log every second; 50 callers, each of which waits for the
answer to one job before it adds the next. Ours check every job for being a duplicate or a conflict; of the others,
those that look for a duplicate look for one job id. Everyone runs as one process, those in Python on the event loop
Python brings; with `--loop uvloop` they all are faster, and those that ask the server for each job by itself gain more.
"""

import asyncio
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from hashlib import sha256
from random import Random
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._queues import LOOPS, NO_NODE, Peer, add_loop, peers, percentile, ratio, running_server
from holdfast.stores import Added, NewJob, Store, open_store
from tests.servers.redis import RedisServer

CALLERS: Final = 50
BYTES: Final = 1500
"""Of a job's body."""
WARM_UP: Final = 500
HEADERS: Final = {"content-type": "application/json", "user-agent": "Vendor/1.0 (+https://vendor.example/webhooks)"}
OTHERS: Final = ("saq", "taskiq", "arq", "bullmq")

REMARKS: Final = {
    "ratio_best_python": "jobs per second, over the fastest of saq, taskiq-redis and arq in the same round; "
    "streaq needs the functions of Redis 7",
    "ratio_bullmq": "the same, over BullMQ on ioredis",
    "per_s": f"jobs of {BYTES} bytes through `store.jobs.add`, {CALLERS} callers with one job each",
    "p50_ms": "from a caller's `add` to its answer",
    "p99_ms": "the same, 99th percentile",
    "ordered_per_s": "the same jobs, each with an ordering key, of which every second comes again",
    "saq_per_s": "`enqueue`, one per caller",
    "taskiq_per_s": "`kiq` to a stream, one per caller, no result backend",
    "arq_per_s": "`enqueue_job`, one per caller",
    "bullmq_per_s": "`add`, one per caller",
}


def main() -> None:
    parser = arguments("ingest_redis", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of everyone in turn (default 5)")
    parser.add_argument("--jobs", type=int, default=6000, help="of ours in a round (default 6000); others get half")
    add_loop(parser)
    options = parser.parse_args()
    with running_server() as server, peers(server, *OTHERS, loop=options.loop) as others:
        figures = LOOPS[options.loop](run(server, others, options))
        version = str(server.ask("INFO", "server")["redis_version"])
    found = {"redis-server": version} | versions("holdfast", "redis")
    publish(
        Report(
            name="ingest_redis",
            figures=figures,
            versions=found,
            remarks=REMARKS,
            lines=() if "bullmq" in others else (NO_NODE,),
        ),
        options,
    )


async def run(server: RedisServer, others: dict[str, Peer], options: Namespace) -> dict[str, float]:
    vendor = Vendor()
    async with open_store(server.url) as store:
        rates: dict[str, list[float]] = {name: [] for name in ("ours", "ordered", *others)}
        waits: list[list[float]] = []
        await add(store, vendor.jobs(WARM_UP))
        for name in others:
            await asyncio.to_thread(others[name].per_second, "add", WARM_UP)
        for number in range(options.rounds):
            names = list(rates)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name in others:
                    jobs = options.jobs // 2
                    rates[name].append(await asyncio.to_thread(others[name].per_second, "add", jobs))
                    continue
                given = vendor.jobs(options.jobs, ordered=name == "ordered")
                begun = time.perf_counter()
                waited = await add(store, given)
                rates[name].append(len(given) / (time.perf_counter() - begun))
                if name == "ours":
                    waits.append(sorted(waited))
        kept = sum((await store.jobs.count()).values())
        assert kept == WARM_UP + 2 * options.rounds * options.jobs
    python = [max(found) for found in zip(*(rates[name] for name in others if name != "bullmq"), strict=True)]
    return (
        {"ratio_best_python": round(ratio(rates["ours"], python), 2)}
        | ({"ratio_bullmq": round(ratio(rates["ours"], rates["bullmq"]), 2)} if "bullmq" in others else {})
        | {"per_s": round(statistics.median(rates["ours"]))}
        | {f"p{percent}_ms": round(percentile(waits, percent), 2) for percent in (50, 99)}
        | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items() if name != "ours"}
    )


async def add(store: Store, jobs: Sequence[NewJob]) -> list[float]:
    """How long each caller waited, in seconds."""
    left, waited = iter(jobs), list[float]()
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(_caller(store, left, waited))
    return waited


async def _caller(store: Store, jobs: Iterator[NewJob], waited: list[float]) -> None:
    for job in jobs:
        begun = time.perf_counter()
        answers = await store.jobs.add([job])
        waited.append(time.perf_counter() - begun)
        assert answers == [Added.NEW]


class Vendor:
    """Sends deliveries with identifiers in no order, as vendors do."""

    def __init__(self) -> None:
        self._chance = Random(1)

    def jobs(self, count: int, *, ordered: bool = False) -> list[NewJob]:
        """With `ordered`, two for each ordering key, far apart."""
        round_of = self._chance.randbytes(4).hex()
        return [self._job(f"pi_{round_of}_{number % (count // 2)}" if ordered else "") for number in range(count)]

    def _job(self, ordering_key: str) -> NewJob:
        body = self._chance.randbytes(BYTES // 2).hex().encode()
        return NewJob(
            queue="deliveries",
            key=f"vendor:evt_{self._chance.randbytes(12).hex()}",
            kind="vendor",
            body=body,
            headers=HEADERS,
            digest=sha256(body).hexdigest(),
            ordering_key=ordering_key,
        )


if __name__ == "__main__":
    main()
