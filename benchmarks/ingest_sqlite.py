"""How fast jobs enter the SQLite store, durable and deduplicated: beside SQLite itself, and beside huey.

Every candidate has a file of its own in one directory, and syncs every commit to the disk.
"""

import asyncio
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from hashlib import sha256
from math import ceil
from pathlib import Path
from random import Random
from sqlite3 import Connection, sqlite_version
from typing import Any, Final

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
    "ratio_huey": "the same, over huey's SqliteHuey with fsync",
    "p50_ms": f"from a caller's `add` to its answer, {CALLERS} callers at once",
    "p99_ms": "the same, 99th percentile",
    "rows_per_s": f"jobs of {BYTES} bytes through `store.jobs.add`, {CALLERS} callers with one job each",
    "single_commit_per_s": "rows and payloads by hand, a commit each",
    "group50_per_s": "rows and payloads by hand, 50 in a commit",
    "huey_per_s": "tasks enqueued one after the other: its enqueue blocks the caller's thread",
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
            ours = ThroughStore(store)
            peers: dict[str, tuple[Callable[[Sequence[NewJob]], None], int]] = {
                "single_commit": (lambda jobs: by_hand(single, jobs, 1), 10),
                "group50": (lambda jobs: by_hand(group, jobs, CALLERS), 1),
                "huey": (enqueuing(directory / "huey.db"), 10),
            }
            return await compare(ours, peers, rounds=options.rounds, jobs=options.jobs)


async def compare(
    ours: "ThroughStore",
    peers: dict[str, tuple[Callable[[Sequence[NewJob]], None], int]],
    *,
    rounds: int,
    jobs: int,
) -> dict[str, float]:
    """Everyone in every round, another one first each time; a slow peer gets a fraction of the jobs."""
    vendor = Vendor()
    rates: dict[str, list[float]] = {name: [] for name in ("rows", *peers)}

    async def play(name: str, count: int) -> float:
        given = vendor.jobs(count)
        begun = time.perf_counter()
        if name == "rows":
            await ours.add(given)
        else:
            peers[name][0](given)
        return count / (time.perf_counter() - begun)

    for name in rates:
        await play(name, WARM_UP)
    ours.forget()
    for number in range(rounds):
        names = list(rates)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            rates[name].append(await play(name, jobs // peers[name][1] if name in peers else jobs))
            ours.end_round()
    assert await ours.kept() == WARM_UP + rounds * jobs
    ratios = {
        f"ratio_{name}": statistics.median(
            mine / theirs for mine, theirs in zip(rates["rows"], rates[name], strict=True)
        )
        for name in peers
    }
    return (
        {name: round(ratio, 2) for name, ratio in ratios.items()}
        | {f"p{percent}_ms": round(ours.percentile(percent), 2) for percent in (50, 99)}
        | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()}
    )


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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waited: list[float] = []
        self._rounds: list[list[float]] = []

    async def add(self, jobs: Sequence[NewJob]) -> None:
        left = iter(jobs)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._caller(left))

    async def _caller(self, jobs: Iterator[NewJob]) -> None:
        for job in jobs:
            begun = time.perf_counter()
            answers = await self._store.jobs.add([job])
            self._waited.append(time.perf_counter() - begun)
            assert answers == [Added.NEW]

    def end_round(self) -> None:
        if self._waited:
            self._rounds.append(sorted(self._waited))
            self.forget()

    def forget(self) -> None:
        self._waited = []

    def percentile(self, percent: int) -> float:
        """In milliseconds: the median of the rounds' own."""
        return 1000 * statistics.median(waited[ceil(percent / 100 * len(waited)) - 1] for waited in self._rounds)

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


def by_hand(connection: Connection, jobs: Sequence[NewJob], group: int) -> None:
    """The fewest statements the schema allows, so many jobs in a commit."""
    now = time.time_ns() // 1000
    for begin in range(0, len(jobs), group):
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs[begin : begin + group]:
            row = (job.queue, job.key, job.kind, job.handler, job.ordering_key, job.digest, now, now, now)
            added = connection.execute(ADD, row)
            connection.execute(ADD_PAYLOAD, (added.lastrowid, HEADERS_TEXT, job.body))
        connection.execute("COMMIT")


def enqueuing(path: Path) -> Callable[[Sequence[NewJob]], None]:
    """A task of huey's for every job; nobody works."""
    huey: Any = SqliteHuey(filename=str(path), fsync=True)

    @huey.task()  # type: ignore[untyped-decorator]
    def handle(body: bytes) -> None:
        """What a worker would do with it."""

    def enqueue(jobs: Sequence[NewJob]) -> None:
        for job in jobs:
            handle(job.body)

    return enqueue


if __name__ == "__main__":
    main()
