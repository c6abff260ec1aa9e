"""How fast jobs enter the SQLite store, durable and deduplicated: beside SQLite itself, and beside huey.

Every candidate has a file of its own in one directory, and syncs every commit to the disk.
"""

import asyncio
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from hashlib import sha256
from math import ceil
from pathlib import Path
from random import Random
from sqlite3 import Connection, sqlite_version
from typing import Any, Final, Protocol

from huey import SqliteHuey  # type: ignore[import-untyped]

from benchmarks._measure import Report, arguments, publish, versions
from holdfast.stores import Added, NewJob, Store, open_store
from holdfast.stores.sqlite_schema import connect_to_write

CALLERS: Final = 50
BYTES: Final = 1500
"""Of a job's body."""
WARM_UP: Final = 500
HEADERS: Final = {"content-type": "application/json", "user-agent": "Vendor/1.0 (+https://vendor.example/webhooks)"}
HEADERS_TEXT: Final = '{"content-type":"application/json","user-agent":"Vendor/1.0 (+https://vendor.example/webhooks)"}'

REMARKS: Final = {
    "ratio_single_commit": "jobs per second, over SQLite with the same schema and a commit per row",
    "ratio_group50": "the same, over SQLite with the same schema and a commit per 50 rows",
    "ratio_huey": f"the same, over huey's SqliteHuey with fsync, {CALLERS} callers at once, each a thread",
    "ratio_huey_alone": "the same, over one caller of huey's, who waits for no other",
    "p50_ms": f"from a caller's `add` to its answer, {CALLERS} callers at once",
    "p99_ms": "the same, 99th percentile",
    "group50_p50_ms": "by hand, a commit of 50",
    "group50_p99_ms": "the same, 99th percentile: what the disk and the machine alone take",
    "rows_per_s": f"jobs of {BYTES} bytes through `store.jobs.add`, {CALLERS} callers with one job each",
    "single_commit_per_s": "rows and payloads by hand, a commit each",
    "group50_per_s": "rows and payloads by hand, 50 in a commit",
    "huey_per_s": f"tasks enqueued by {CALLERS} threads",
    "huey_alone_per_s": "tasks enqueued one after the other",
}


def main() -> None:
    parser = arguments("ingest_sqlite", __doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of every candidate in turn (default 9)")
    parser.add_argument("--jobs", type=int, default=5000, help="of each of the fast ones in a round (default 5000)")
    parser.add_argument("--directory", help="on the disk that is to be measured (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-ingest-", dir=options.directory) as directory:
        figures = asyncio.run(run(Path(directory), options))
    found = {"sqlite": sqlite_version} | versions("holdfast", "huey")
    publish(Report(name="ingest_sqlite", figures=figures, versions=found, remarks=REMARKS), options)


async def run(directory: Path, options: Namespace) -> dict[str, float]:
    with connected(directory / "single.db") as single, connected(directory / "group.db") as group:
        async with open_store(f"sqlite:///{directory / 'store.db'}") as store:
            candidates: dict[str, Candidate] = {
                "rows": ThroughStore(store),
                "single_commit": ByHand(single, 1),
                "group50": ByHand(group, CALLERS),
                "huey": Enqueuing(directory / "huey.db", CALLERS),
                "huey_alone": Enqueuing(directory / "huey_alone.db", 1),
            }
            return await compare(candidates, rounds=options.rounds, jobs=options.jobs)


class Candidate(Protocol):
    """One way to keep jobs."""

    share: int
    """It gets one of so many jobs: a commit each takes long."""

    async def add(self, jobs: Sequence[NewJob]) -> list[float]:
        """How long each caller waited, in seconds."""
        ...

    async def kept(self) -> int:
        """Jobs in its file."""
        ...


async def compare(candidates: dict[str, Candidate], *, rounds: int, jobs: int) -> dict[str, float]:
    """Everyone in every round, another one first each time."""
    vendor = Vendor()
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    waits: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        await candidate.add(vendor.jobs(WARM_UP))
    for number in range(rounds):
        names = list(candidates)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            given = vendor.jobs(jobs // candidates[name].share)
            begun = time.perf_counter()
            waits[name].append(sorted(await candidates[name].add(given)))
            rates[name].append(len(given) / (time.perf_counter() - begun))
    for candidate in candidates.values():
        assert await candidate.kept() == WARM_UP + rounds * (jobs // candidate.share)
    return (
        {f"ratio_{name}": round(ratio(rates["rows"], rates[name]), 2) for name in candidates if name != "rows"}
        | {f"p{percent}_ms": round(percentile(waits["rows"], percent), 2) for percent in (50, 99)}
        | {f"group50_p{percent}_ms": round(percentile(waits["group50"], percent), 2) for percent in (50, 99)}
        | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()}
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own: what disturbs a round disturbs both."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def percentile(rounds: Sequence[Sequence[float]], percent: int) -> float:
    """In milliseconds, the median of the rounds' own."""
    return 1000 * statistics.median(waits[ceil(percent / 100 * len(waits)) - 1] for waits in rounds)


class Vendor:
    """Sends deliveries with identifiers in no order, as vendors do."""

    def __init__(self) -> None:
        self._chance = Random(1)

    def jobs(self, count: int) -> list[NewJob]:
        return [self._job() for _ in range(count)]

    def _job(self) -> NewJob:
        body = self._chance.randbytes(BYTES // 2).hex().encode()
        return NewJob(
            queue="deliveries",
            key=f"vendor:evt_{self._chance.randbytes(12).hex()}",
            kind="vendor",
            body=body,
            headers=HEADERS,
            digest=sha256(body).hexdigest(),
        )


class ThroughStore:
    """Callers that each wait for the answer to one job before they add the next."""

    share = 1

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, jobs: Sequence[NewJob]) -> list[float]:
        left, waited = iter(jobs), list[float]()
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._caller(left, waited))
        return waited

    async def _caller(self, jobs: Iterator[NewJob], waited: list[float]) -> None:
        for job in jobs:
            begun = time.perf_counter()
            answers = await self._store.jobs.add([job])
            waited.append(time.perf_counter() - begun)
            assert answers == [Added.NEW]

    async def kept(self) -> int:
        return sum((await self._store.jobs.count()).values())


def connected(path: Path) -> AbstractContextManager[Connection]:
    """A connection as the store's own, to a file with the store's schema."""
    return closing(connect_to_write(str(path)))


ADD: Final = """
INSERT INTO jobs (queue, key, kind, handler, ordering_key, digest, state, head, created_at, due_at, ended_at)
VALUES (?, ?, ?, ?, ?, ?, 'ready', 1, ?, ?, ?)
ON CONFLICT (queue, key) DO NOTHING
"""
ADD_PAYLOAD: Final = "INSERT INTO payloads (number, headers, body) VALUES (?, ?, ?)"


class ByHand:
    """The fewest statements the schema allows, so many jobs in a commit, with no caller and no other thread."""

    def __init__(self, connection: Connection, group: int) -> None:
        self.share = 1 if group > 1 else 10
        self._connection = connection
        self._group = group

    async def add(self, jobs: Sequence[NewJob]) -> list[float]:
        waited = list[float]()
        for begin in range(0, len(jobs), self._group):
            begun = time.perf_counter()
            self._commit(jobs[begin : begin + self._group])
            waited.append(time.perf_counter() - begun)
        return waited

    def _commit(self, jobs: Sequence[NewJob]) -> None:
        now = time.time_ns() // 1000
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            row = (job.queue, job.key, job.kind, job.handler, job.ordering_key, job.digest, now, now, now)
            added = self._connection.execute(ADD, row)
            self._connection.execute(ADD_PAYLOAD, (added.lastrowid, HEADERS_TEXT, job.body))
        self._connection.execute("COMMIT")

    async def kept(self) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM payloads").fetchone()[0]
        return count


class Enqueuing:
    """A task of huey's for every job; nobody works, and nobody looks for duplicates.

    Its enqueue blocks the caller, so that every caller at once is a thread.
    """

    share = 10

    def __init__(self, path: Path, threads: int) -> None:
        self._huey: Any = SqliteHuey(filename=str(path), fsync=True)
        self._handle: Any = self._huey.task()(handle)
        self._callers = threads
        self._threads = ThreadPoolExecutor(threads)

    async def add(self, jobs: Sequence[NewJob]) -> list[float]:
        left, waited = iter(jobs), list[float]()
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._caller, left, waited) for _ in range(self._callers))
        )
        return waited

    def _caller(self, jobs: Iterator[NewJob], waited: list[float]) -> None:
        for job in jobs:
            begun = time.perf_counter()
            self._handle(job.body)
            waited.append(time.perf_counter() - begun)

    async def kept(self) -> int:
        count: int = self._huey.pending_count()
        return count


def handle(body: bytes) -> None:
    """What a worker of huey's would do."""


if __name__ == "__main__":
    main()
