"""A stampede: how many of 1000 callers reach a vendor that is still down, once the open period is over."""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from tests.resilience.processes import ALONE, Vendor, callers, opened
from tests.servers.redis import RedisServer

CALLERS: Final = 1000
PROCESSES: Final = 8
ROUNDS: Final = 3
"""Of each; the worst is reported."""
REMARKS: Final = {
    "calls_one_process": f"{CALLERS} callers at once in one process; the worst of {ROUNDS} rounds",
    "calls_fleet": f"as many in {PROCESSES} processes that share a Redis; the worst of {ROUNDS} rounds",
}


def main() -> None:
    options = arguments("stampede", __doc__).parse_args()
    with tempfile.TemporaryDirectory() as directory, RedisServer(Path(directory)) as redis:
        one = [asyncio.run(stampede(1, ALONE)) for _ in range(ROUNDS)]
        fleet = [asyncio.run(stampede(PROCESSES, f"{redis.url}?namespace=round-{number}")) for number in range(ROUNDS)]
    publish(
        Report(
            name="stampede",
            figures={"calls_one_process": max(one), "calls_fleet": max(fleet)},
            versions=versions("holdfast", "redis"),
            remarks=REMARKS,
        ),
        options,
    )


async def stampede(processes: int, store: str) -> int:
    """How many reached the vendor, of all callers of so many processes."""
    async with Vendor().serve() as vendor, callers(processes, store, vendor) as fleet:
        await opened(fleet)
        await asyncio.gather(*(each.order(f"call {CALLERS // processes}") for each in fleet))
        return vendor.calls


if __name__ == "__main__":
    main()
