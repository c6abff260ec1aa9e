"""Workers and receivers as processes: who dies, who takes over, who starts again, and how they end."""

import asyncio
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import open_store
from holdfast.queue.events import QUEUE, encode
from holdfast.queue.takeover import KIND
from holdfast.stores.store import Job, JobState, NewJob
from tests.journeys.process_shop import Ordered
from tests.servers.ports import free_port

pytestmark = pytest.mark.xdist_group("processes")

SHOP = "tests.journeys.process_shop:hub"


class Shop:
    """A directory, and the processes that work in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, seconds: float = 0.0) -> subprocess.Popen[str]:
        environ = os.environ | {"PROCESS_SHOP": str(self.directory), "PROCESS_SHOP_SECONDS": str(seconds)}
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *arguments], env=environ, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def add(self, *references: str) -> None:
        now = datetime.now(UTC)
        events = [Ordered(id=f"order/{each}", reference=each, at=now) for each in references]
        jobs = [
            NewJob(queue=QUEUE, key=event.id, kind=Ordered.type, handler="ship", body=encode(event)) for event in events
        ]
        self._with_store(lambda store: store.jobs.add(jobs))

    def jobs(self) -> list[Job]:
        jobs: list[Job] = self._with_store(lambda store: store.jobs.list())
        return jobs

    def owners(self) -> list[object]:
        owners: list[object] = self._with_store(lambda store: store.records.list(KIND))
        return owners

    def notes(self, what: str) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self.directory / "notes.db", timeout=10)) as notes, notes:
            notes.execute("CREATE TABLE IF NOT EXISTS notes (what TEXT, reference TEXT, pid INTEGER)")
            return notes.execute("SELECT reference, pid FROM notes WHERE what = ?", (what,)).fetchall()

    def _with_store(self, act: Callable[[Any], Any]) -> Any:
        async def acting() -> Any:
            async with open_store(f"sqlite:///{self.directory}/holdfast.db") as store:
                return await act(store)

        return asyncio.run(acting())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    for process in shop.running:
        process.kill()
        process.communicate(timeout=60)


def eventually(condition: Callable[[], object], *, within: float = 60.0) -> bool:
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def begun(process: subprocess.Popen[str], signal_name: str = "holdfast.worker.started") -> dict[str, Any]:
    """The first line of that kind it prints."""
    assert process.stdout is not None
    for line in process.stdout:
        fact: dict[str, Any] = json.loads(line)
        if fact["signal"] == signal_name:
            return fact
    raise AssertionError(f"it ended with {process.wait()}")


def test_the_jobs_of_a_killed_process_are_run_again_by_its_neighbour_and_not_when_their_leases_end(shop: Shop) -> None:
    first = shop.start("worker", SHOP, "--json", seconds=30)
    begun(first)
    shop.add(*(f"order-{number}" for number in range(10)))
    assert eventually(lambda: len(shop.notes("begun")) == 10)
    second = shop.start("worker", SHOP, "--json")
    begun(second)
    assert eventually(lambda: len(shop.owners()) == 2)

    first.kill()

    assert eventually(lambda: len(shop.notes("done")) == 10)
    assert {pid for _, pid in shop.notes("done")} == {second.pid}
    assert eventually(lambda: {job.state for job in shop.jobs()} == {JobState.DONE})
    assert [job.losses for job in shop.jobs()] == [0] * 10


def test_a_process_that_dies_is_started_again_and_all_stop_gracefully(shop: Shop) -> None:
    parent = shop.start("worker", SHOP, "--processes", "2", "--json", seconds=0.3)
    children = [begun(parent)["pid"], begun(parent)["pid"]]

    os.kill(children[0], signal.SIGKILL)
    assert begun(parent, "holdfast.process.restarts")["exit_code"] == -signal.SIGKILL
    third = begun(parent)["pid"]
    shop.add("order-1")
    assert eventually(lambda: shop.notes("begun"))
    parent.terminate()

    assert parent.wait(60) == 0
    assert third not in children
    assert [reference for reference, _ in shop.notes("done")] == ["order-1"]
    assert not any(_is_alive(pid) for pid in [*children, third])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_that_ends_every_process_it_runs_in_is_buried_and_takes_no_neighbour_with_it(shop: Shop) -> None:
    parent = shop.start("worker", f"{SHOP[:-3]}quick", "--processes", "2", "--json", seconds=0.05)
    begun(parent)
    shop.add("deadly", *(f"order-{number}" for number in range(5)))

    buried = eventually(lambda: any(job.state is JobState.DEAD for job in shop.jobs()))

    assert buried
    assert eventually(lambda: {job.state for job in shop.jobs()} == {JobState.DEAD, JobState.DONE})
    [deadly] = [job for job in shop.jobs() if job.state is JobState.DEAD]
    assert (deadly.key, deadly.reason, deadly.losses) == ("order/deadly", "poison", 3)
    parent.terminate()
    assert parent.wait(60) == 0


def test_ctrl_c_finishes_what_runs(shop: Shop) -> None:
    worker = shop.start("worker", SHOP, "--json", seconds=0.5)
    begun(worker)
    shop.add("order-1")
    assert eventually(lambda: shop.notes("begun"))

    worker.send_signal(signal.SIGINT)

    assert worker.wait(60) == 0
    assert [reference for reference, _ in shop.notes("done")] == ["order-1"]
    assert [job.state for job in shop.jobs()] == [JobState.DONE]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("worker", "tests.journeys.process_shop:nothing"), 2),
        (("worker", "tests.journeys.process_shop:DIRECTORY"), 2),
        (("worker", "tests.journeys.process_shop:nothing", "--processes", "2"), 2),
        (("receive", "tests.journeys.nowhere:hub"), 2),
    ],
)
def test_a_wrong_target_is_a_usage_error(shop: Shop, arguments: tuple[str, ...], code: int) -> None:
    assert shop.start(*arguments).wait(60) == code


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_store_that_cannot_be_reached_ends_it_with_a_code_of_its_own(shop: Shop, processes: str) -> None:
    shop.directory /= "missing"

    assert shop.start("worker", SHOP, "--processes", processes).wait(60) == 3


@pytest.mark.parametrize("root", ["/webhooks", ""])
def test_the_receiver_alone_keeps_what_a_worker_handles_later(shop: Shop, root: str) -> None:
    port = free_port()
    door = shop.start("receive", SHOP, "--port", str(port), "--json")
    begun(door, "holdfast.receiver.started")
    signature = hmac.new(b"webhook-secret", b"object-1", hashlib.sha256).hexdigest()

    def post() -> httpx.Response | None:
        try:
            return httpx.post(
                f"http://127.0.0.1:{port}{root}/signed",
                content=b"object-1",
                headers={"x-signature": signature},
                timeout=30,
            )
        except httpx.ConnectError:
            return None

    assert eventually(lambda: (answer := post()) is not None and answer.status_code == 200)
    assert begun(door, "holdfast.inbox.delivery")["result"] == "accepted"
    assert [(job.queue, job.kind, job.state) for job in shop.jobs()] == [("deliveries", "signed", JobState.READY)]
    door.terminate()
    assert door.wait(60) == 0
