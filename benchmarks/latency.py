"""How long a job waits for its start at 50 a second: on Redis beside taskiq, and on SQLite.

Whoever enqueues and whoever works are processes of their own, as they are for taskiq.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from math import ceil
from pathlib import Path
from random import Random
from typing import Final

import uvloop

from benchmarks._latency import RATE, Process, Started, obey, process, produce
from benchmarks._measure import Report, arguments, publish, versions
from holdfast.clock import SystemClock
from holdfast.queue.worker import Result, Worker
from holdfast.stores import NewJob, Store, open_store
from holdfast.stores.store import Job
from holdfast.telemetry import LoggingSink, Redactor, Telemetry
from tests.servers.redis import RedisServer

QUEUE: Final = "work"
REMARKS: Final = {
    "p50_over_taskiq": "the wait of a job on Redis, from before it is enqueued to its start, over that of taskiq's",
    "p99_over_taskiq": "the same, 99th percentile",
    "redis_p50_ms": f"at {RATE} jobs a second",
    "taskiq_p50_ms": "on a Redis stream",
    "sqlite_p50_ms": "enqueued by the process that works",
    "sqlite_across_p50_ms": "enqueued by another process",
}
OURS: Final = (sys.executable, "-m", "benchmarks.latency", "--be")
TASKIQ: Final = (str(Path(sys.prefix) / "peers" / "bin" / "python"), "-m", "benchmarks.peers.taskiq_latency")


def main() -> None:
    parser = arguments("latency", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of every candidate in turn (default 5)")
    parser.add_argument("--jobs", type=int, default=100, help="of each in a round (default 100)")
    parser.add_argument("--be", nargs=2, metavar=("WHAT", "URL"), help="be one of the processes")
    options = parser.parse_args()
    if options.be:
        uvloop.run(be(*options.be))
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-latency-") as directory:
        waits = run(Path(directory), options.rounds, options.jobs)
    publish(
        Report(name="latency", figures=figures(waits), versions=versions("holdfast", "redis"), remarks=REMARKS),
        options,
    )


def run(directory: Path, rounds: int, jobs: int) -> dict[str, list[list[float]]]:
    """Each candidate's waits in each round, in seconds and ascending."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory / "redis"))

        def pair(command: Sequence[str], url: str) -> tuple[Process, Process]:
            works = stack.enter_context(process([*command, "work", url]))
            return stack.enter_context(process([*command, "produce", url])), works

        alone = stack.enter_context(process([*OURS, "both", f"sqlite:///{directory}/alone.db"]))
        candidates = {
            "redis": pair(OURS, f"{redis.url}/0"),
            "taskiq": pair(TASKIQ, f"{redis.url}/1"),
            "sqlite": (alone, alone),
            "sqlite_across": pair(OURS, f"sqlite:///{directory}/across.db"),
        }
        waits: dict[str, list[list[float]]] = {name: [] for name in candidates}
        for number in range(rounds + 1):
            for name, (producer, worker) in candidates.items():
                found = one_round(producer, worker, jobs if number else 10)
                assert len(found) == (jobs if number else 10), f"{name}: {len(found)} jobs began"
                if number:  # the first one only warms up
                    waits[name].append(sorted(found))
    return waits


def one_round(producer: Process, worker: Process, jobs: int) -> list[float]:
    producer.ask(jobs)
    found = producer.answer()
    if worker is not producer:
        worker.ask(jobs)
        found = worker.answer()
    return found


def figures(waits: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float]:
    found = {
        (name, percent): [1000 * waits[ceil(percent / 100 * len(waits)) - 1] for waits in rounds]
        for name, rounds in waits.items()
        for percent in (50, 99)
    }
    ratios = {
        f"p{percent}_over_taskiq": round(ratio(found["redis", percent], found["taskiq", percent]), 2)
        for percent in (50, 99)
    }
    return ratios | {
        f"{name}_p{percent}_ms": round(statistics.median(each), 2) for (name, percent), each in found.items()
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own: what disturbs a round disturbs both."""
    return statistics.median([mine / other for mine, other in zip(ours, theirs, strict=True)])


# The processes.


async def be(what: str, url: str) -> None:
    started, numbers = Started(), count()
    async with open_store(url) as store:

        async def enqueue(sent: float) -> None:
            await store.jobs.add([NewJob(queue=QUEUE, key=f"{next(numbers)}", kind="start", body=b"%r" % sent)])

        async def both(jobs: int) -> Sequence[float]:
            await produce(jobs, enqueue)
            return await started.collect(jobs)

        if what == "produce":
            await obey(lambda jobs: produce(jobs, enqueue))
            return
        working = asyncio.ensure_future(worker(store, started).run())
        await obey(both if what == "both" else started.collect)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def worker(store: Store, started: Started) -> Worker:
    async def perform(job: Job) -> Result:
        started.saw(float(job.body))
        return "done"

    return Worker(
        store.jobs,
        perform,
        queues=[QUEUE],
        owner="worker",
        clock=SystemClock(),
        chance=Random(1),
        telemetry=Telemetry([LoggingSink(Redactor())]),
    )


if __name__ == "__main__":
    main()
