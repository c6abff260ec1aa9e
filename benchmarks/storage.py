"""What a job takes in each store while it is kept, and what its key takes when it is purged."""

import asyncio
import sqlite3
import tempfile
from argparse import Namespace
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from redis.asyncio import Redis

from benchmarks._measure import Report, arguments, publish, versions
from holdfast.stores import NewJob, Store, open_store
from tests.servers.ports import LOOPBACK
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

BYTES: Final = 1500
"""Of a job's body."""
AT_ONCE: Final = 500
OLDER: Final = 5.0

REMARKS: Final = {
    "sqlite_job": f"bytes of the file for a waiting job of {BYTES} bytes",
    "sqlite_key": "bytes of the file for the key of a purged one",
    "postgres_job": "bytes of tables and indexes for a waiting job",
    "postgres_key": "the same for the key of a purged one",
    "redis_job": "bytes of memory for a waiting job",
    "redis_key": "the same for the key of a purged one",
}

Size = Callable[[], Awaitable[float]]


def main() -> None:
    parser = arguments("storage", __doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="in each store (default 20000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-storage-") as directory:
        figures = asyncio.run(run(Path(directory), options))
    publish(Report(name="storage", figures=figures, versions=versions("holdfast"), remarks=REMARKS), options)


async def run(directory: Path, options: Namespace) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        redis = stack.enter_context(RedisServer(directory / "redis"))
        client = await stack.enter_async_context(Redis(host=LOOPBACK, port=redis.port))
        file = directory / "holdfast.db"
        engines: dict[str, tuple[str, Size]] = {
            "sqlite": (f"sqlite:///{file}", lambda: of_file(file)),
            "postgres": (postgres.url, lambda: of_database(postgres)),
            "redis": (redis.url, lambda: of_memory(client)),
        }
        figures: dict[str, float] = {}
        for name, (url, size) in engines.items():
            store = await stack.enter_async_context(open_store(url))
            empty = await size()
            await add(store, options.jobs)
            full = await size()
            await purge(store)
            figures[f"{name}_job"] = round((full - empty) / options.jobs)
            figures[f"{name}_key"] = round((await size() - empty) / options.jobs)
        return figures


async def add(store: Store, count: int) -> None:
    chance = Random(1)
    for begin in range(0, count, AT_ONCE):
        jobs = range(begin, min(count, begin + AT_ONCE))
        await store.jobs.add([job(chance) for _ in jobs])


def job(chance: Random) -> NewJob:
    key, body = f"vendor/evt_{chance.randbytes(12).hex()}", chance.randbytes(BYTES // 2).hex().encode()
    return NewJob(queue="deliveries", key=key, kind="vendor", body=body, digest=chance.randbytes(32).hex())


async def purge(store: Store) -> None:
    while claimed := await store.jobs.claim(["deliveries"], owner="benchmark", limit=AT_ONCE, lease=60):
        await asyncio.gather(*(store.jobs.complete(each) for each in claimed))
    await asyncio.sleep(OLDER)  # keys are kept as long again
    while await store.jobs.purge(older_than=OLDER, limit=10 * AT_ONCE):
        pass


async def of_file(file: Path) -> float:
    """The pages that are in use."""
    with closing(sqlite3.connect(file)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return float((pages - free) * size)


async def of_database(server: PostgresServer) -> float:
    """After tables and indexes have given back what they do not need."""
    server.execute("VACUUM FULL")
    [found] = server.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'holdfast'::regnamespace"
    )
    return float(cast(int, found[0]))


async def of_memory(client: Any) -> float:
    return float((await client.info("memory"))["used_memory"])


if __name__ == "__main__":
    main()
