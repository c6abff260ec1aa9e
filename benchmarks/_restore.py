"""Losing a store of many jobs: how much a backup disturbs, how soon work goes on, what is lost, what is found again.

Deliveries that were accepted after the backup are lost with the store; a vendor that can be asked tells of them again.
"""

import asyncio
import os
import tempfile
import time
from argparse import Namespace
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from random import Random
from typing import Final, cast

from benchmarks._measure import Report, arguments, publish, versions
from holdfast.clock import SystemClock
from holdfast.http.session import Http
from holdfast.queue.inbox import to_job
from holdfast.queue.reconciliation import Reconciliation
from holdfast.stores import Added, NewJob, Store, open_store
from holdfast.stores.backup import back_up, verify_backup
from holdfast.stores.drill import drill
from holdfast.telemetry import Telemetry
from holdfast.webhooks.request import Delivery, RawRequest

BYTES: Final = 1500
"""Of a job's body."""
AT_ONCE: Final = 500
SINCE: Final = 2000
"""Accepted after the backup."""
PAUSE: Final = 0.005
"""Between two writes of whoever is disturbed."""
KNOWN: Final = 1000
"""Of these a worker held the first when the store was lost."""

ASKED: Final = RawRequest(method="GET", url="", headers=(), body=b"", received_at=datetime(2026, 1, 1, tzinfo=UTC))

REMARKS: Final = {
    "jobs": f"of {BYTES} bytes each",
    "backup_s": "until the file is there, while somebody writes",
    "backup_mb": "the file",
    "write_p99_ms": "one write in a quiet store",
    "write_in_backup_p99_ms": "one write while the backup is made",
    "verify_s": "to read the backup and compare all of it",
    "restore_s": "from the file to the last row",
    "recovery_s": "the same, and until a worker holds the first job",
    "examine_s": "to examine the restored store",
    "accepted_since": "deliveries accepted after the backup, and so lost with the store",
    "found_again": "of these, when the vendor was asked what happened",
    "doubled": "deliveries that were there and entered again",
    "found_again_s": "until all of them were in the queue",
}


def main(
    name: str, description: str | None, started: Callable[[Path], AbstractContextManager[tuple[str, str]]]
) -> None:
    """`started` gives the URLs of two empty stores of one engine."""
    parser = arguments(name, description)
    parser.add_argument("--jobs", type=int, default=100_000, help="in the store (default 100000)")
    parser.add_argument("--directory", help="on the disk that is to be measured (default: a temporary one)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-restore-", dir=options.directory) as directory,
        started(Path(directory)) as (here, there),
    ):
        figures = asyncio.run(run(here, there, Path(directory) / "backup.zip", options))
    publish(Report(name=name, figures=figures, versions=versions("holdfast"), remarks=REMARKS), options)


async def run(here: str, there: str, file: Path, options: Namespace) -> dict[str, float]:
    vendor = Vendor()
    async with open_store(here) as store:
        for _ in range(0, options.jobs, AT_ONCE):
            await store.jobs.add([vendor.arrives() for _ in range(AT_ONCE)])
        await store.jobs.claim(["deliveries"], owner="lost", limit=KNOWN, lease=600)
        calm = await disturbed(store, asyncio.sleep(2))
        begun = time.perf_counter()
        busy = await disturbed(store, back_up(here, file))
        backup_s = time.perf_counter() - begun
        after = [vendor.arrives() for _ in range(SINCE)]
        accepted = await store.jobs.add(after)
        assert accepted == [Added.NEW] * SINCE
    begun = time.perf_counter()
    _, wrong = await verify_backup(file)
    verify_s = time.perf_counter() - begun
    drilled = await drill(file, there)
    assert not wrong
    assert not drilled.findings
    begun = time.perf_counter()
    async with open_store(there) as store:
        before = sum((await store.jobs.count()).values())
        counts = (await asking(vendor, store).look())["vendor"]
        entered = sum((await store.jobs.count()).values()) - before
    return {
        "jobs": float(options.jobs),
        "backup_s": round(backup_s, 2),
        "backup_mb": round(os.stat(file).st_size / 1e6, 1),
        "write_p99_ms": calm,
        "write_in_backup_p99_ms": busy,
        "verify_s": round(verify_s, 2),
        "restore_s": round(drilled.steps["restore"], 2),
        "recovery_s": round(drilled.recovery, 2),
        "examine_s": round(drilled.steps["examine"], 2),
        "accepted_since": SINCE,
        "found_again": counts.missed,
        "doubled": entered - SINCE,
        "found_again_s": round(time.perf_counter() - begun, 2),
    }


async def disturbed(store: Store, work: Awaitable[object]) -> float:
    """The 99th percentile of one write after the other, in milliseconds, while the work is done."""
    waited: list[float] = []

    async def write() -> None:
        while True:
            begun = time.perf_counter()
            await store.counters.add("disturbed", 1, window=60)
            waited.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        await work
        writing.cancel()
    waited.sort()
    return round(1000 * waited[ceil(0.99 * len(waited)) - 1], 2)


class Vendor:
    """Sends deliveries, and remembers the latest of them for whoever asks: as many of before the backup as of after."""

    name = "vendor"

    def __init__(self) -> None:
        self._chance = Random(1)
        self._sent = deque[Delivery](maxlen=2 * SINCE)

    def arrives(self) -> NewJob:
        body = self._chance.randbytes(BYTES // 2).hex().encode()
        id = f"evt_{self._chance.randbytes(12).hex()}"
        self._sent.append(Delivery(type="paid", dedup_key=id, vendor_id=id, body=body))
        return to_job(self.name, self._sent[-1], ASKED)

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        for delivery in self._sent:
            yield delivery


def asking(vendor: Vendor, store: Store) -> Reconciliation:
    async def lead() -> object:
        return vendor

    async def each(work: Iterable[Awaitable[object]]) -> None:
        await asyncio.gather(*work)

    return Reconciliation(
        {vendor.name: vendor},
        store,
        lambda _: cast(Http, None),
        lead,
        each,
        every=300,
        clock=SystemClock(),
        chance=Random(1),
        telemetry=Telemetry([]),
    )
