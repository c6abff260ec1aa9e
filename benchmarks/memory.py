"""What events leave behind in Redis, and what they take up while they wait.

Waves of events go through the queue, one a week: all of a wave are added, claimed and completed, and a week later they
are purged, as a worker purges what is older than its retention. What is left of an event is its key, which goes on
deduplicating for a week more. A run takes 100,000 events, to end in time; `--events 1000000` takes ten times as many.
"""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._queues import running_server
from benchmarks.ingest_redis import BYTES, HEADERS, Vendor
from holdfast.stores import Store, open_store
from holdfast.testing.clock import ManualClock
from tests.servers.redis import RedisServer

WAVES: Final = 10
WEEK: Final = 7 * 86_400.0
AT_ONCE: Final = 500
ORDERED: Final = 5000
PAYLOAD: Final = BYTES + sum(len(name) + len(value) for name, value in HEADERS.items())
"""Bytes that a caller hands over: a delivery's body and headers."""
GONE: Final = "{holdfast:0}:gone"
"""Where the keys of purged jobs are."""

REMARKS: Final = {
    "growth_bytes_per_event": "of the server's memory from wave to wave, beyond the keys that deduplicate",
    "pending_over_payload": f"memory of an event that waits, over the {PAYLOAD} bytes of its body and headers",
    "pending_bytes": "memory of an event that waits",
    "pending_over_body": f"the same, over the {BYTES} bytes of its body alone",
    "ordered_pending_bytes": "memory of an event that waits and has an ordering key of its own",
    "done_bytes": "memory of an event that is done and kept for replay, until it is purged",
    "key_bytes": "memory of the key of a purged event, which deduplicates",
    "left_bytes": "of everything, when the keys' time is over, too: beyond an empty store's, for all events together",
    "events": "that went through",
}


def main() -> None:
    parser = arguments("memory", __doc__)
    parser.add_argument("--events", type=int, default=100_000, help="in all (default 100000)")
    options = parser.parse_args()
    with running_server("--slowlog-log-slower-than", "-1") as server:
        figures = asyncio.run(run(server, options))
        version = str(server.ask("INFO", "server")["redis_version"])
    found = {"redis-server": version} | versions("holdfast", "redis")
    publish(Report(name="memory", figures=figures, versions=found, remarks=REMARKS), options)


async def run(server: RedisServer, options: Namespace) -> dict[str, float]:
    vendor, clock, wave = Vendor(), ManualClock(), options.events // WAVES
    pending, done, after, keys = list[int](), list[int](), list[int](), list[int]()
    async with open_store(server.url, clock=clock) as store:
        await add(store, vendor, AT_ONCE)  # so that all scripts are known to the server
        await drain(store)
        await forget(server, store, clock)
        empty = used(server)
        for _ in range(WAVES):
            before = used(server)
            await add(store, vendor, wave)
            pending.append((used(server) - before) // wave)
            await drain(store)
            done.append((used(server) - before) // wave)
            await purge_in_a_week(store, clock)
            assert server.ask("ZCARD", GONE) == wave
            keys.append(int(server.ask("MEMORY", "USAGE", GONE, "SAMPLES", 0)))
            after.append(used(server) - keys[-1])
        await forget(server, store, clock)
        left = used(server) - empty
        await add(store, vendor, ORDERED, ordered=True)
        ordered = (used(server) - empty - left) // ORDERED
    return {
        "growth_bytes_per_event": round(growth(after) / wave, 1) + 0.0,
        "pending_over_payload": round(max(pending) / PAYLOAD, 3),
        "pending_bytes": max(pending),
        "pending_over_body": round(max(pending) / BYTES, 3),
        "ordered_pending_bytes": ordered,
        "done_bytes": max(done),
        "key_bytes": round(keys[-1] / wave),
        "left_bytes": left,
        "events": WAVES * wave,
    }


def used(server: RedisServer) -> int:
    """Bytes the server holds, but for what is on its way to the log."""
    memory = server.ask("INFO", "memory")
    return int(memory["used_memory"]) - int(memory["mem_aof_buffer"])


def growth(levels: Sequence[int]) -> float:
    """From one to the next, of the lowest: what buffers hold at a moment only adds. The first is left out."""
    middle = (len(levels) + 1) // 2
    return (min(levels[middle:]) - min(levels[1:middle])) / (len(levels) - middle)


async def add(store: Store, vendor: Vendor, events: int, *, ordered: bool = False) -> None:
    for _ in range(0, events, AT_ONCE):
        await store.jobs.add(vendor.jobs(AT_ONCE, ordered=ordered))


async def drain(store: Store) -> None:
    while jobs := await store.jobs.claim(["deliveries"], owner="benchmark", limit=AT_ONCE, lease=60):
        await asyncio.gather(*(store.jobs.complete(job) for job in jobs))


async def purge_in_a_week(store: Store, clock: ManualClock) -> int:
    """How many events were dropped; the keys of those that were dropped a week before are, too."""
    await clock.advance(WEEK)
    dropped = 0
    while some := await store.jobs.purge(older_than=WEEK):
        dropped += some
    return dropped


async def forget(server: RedisServer, store: Store, clock: ManualClock) -> None:
    """Let the time of the keys be over, too."""
    while await purge_in_a_week(store, clock):
        """What is dropped now leaves its key for a week."""
    await clock.advance(WEEK)
    while server.ask("ZCARD", GONE):
        await store.jobs.purge(older_than=WEEK)


if __name__ == "__main__":
    main()
