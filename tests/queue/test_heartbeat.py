"""Leases are kept whatever the event loop does, and a loop that stands still is told of."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from holdfast.queue.signals import HandlerOverran, LoopBlocked
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.stores import Store, open_store
from holdfast.stores.store import Job, JobState, NewJob
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock


class SharedClock(ManualClock):
    """A manual clock that a second thread with an event loop of its own may sleep by."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    async def sleep(self, seconds: float) -> None:
        if threading.get_ident() == self._thread:
            await super().sleep(seconds)
            return
        until = self.monotonic() + seconds
        while self.monotonic() < until:  # noqa: ASYNC110  # it is another thread that moves the clock
            await asyncio.sleep(0.001)


class Bench:
    """A worker with a thread for its leases, on a file."""

    def __init__(self, directory: Path) -> None:
        self.clock = SharedClock()
        self.path = directory / "holdfast.db"
        self.signals: list[Signal] = []
        self.store = self.open()

    def open(self) -> Store:
        return open_store(f"sqlite:///{self.path}", clock=self.clock)

    def worker(self, perform: Callable[[Job], Awaitable[Result]]) -> Worker:
        return Worker(
            self.store.jobs,
            perform,
            queues=["work"],
            owner="one",
            clock=self.clock,
            chance=Random(1),
            telemetry=Telemetry([self.signals.append]),
            options=WorkerOptions(lease=10, heartbeat=2, blocked_after=4),
            apart=self.open,
        )

    def leased_for(self) -> float:
        """Seconds the only lease has left."""
        with closing(sqlite3.connect(self.path)) as file:
            [(until,)] = file.execute("SELECT lease_until FROM jobs").fetchall()
        return float(until) / 1e6 - self.clock.now().timestamp()

    def wait_for_beat(self) -> bool:
        """Let time pass until the lease was extended; whether it was."""
        self.clock.pause(2)
        return self.eventually(lambda: self.leased_for() > 9)

    def eventually(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true while time passes, and this thread, with the event loop in it, stands still."""
        until = time.monotonic() + 30
        while not condition():
            if time.monotonic() > until:
                return False
            self.clock.pause(0.01)
            time.sleep(0.01)  # as fast as the clock: a thread that has to wait for the disk loses no lease meanwhile
        return True


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    async with bench.store:
        await bench.store.jobs.add([NewJob(queue="work", key="a", kind="test")])
        yield bench


async def until_done(working: "asyncio.Future[None]", done: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await done.wait()
        await asyncio.sleep(0.05)
        working.cancel()
        await asyncio.wait([working])


async def test_a_handler_that_blocks_the_event_loop_keeps_its_lease(bench: Bench) -> None:
    kept: list[bool] = []
    done = asyncio.Event()

    async def block(job: Job) -> Result:
        kept.append(all(bench.wait_for_beat() for _ in range(15)))
        done.set()
        return "done"

    await until_done(asyncio.ensure_future(bench.worker(block).run()), done)

    assert kept == [True]
    [job] = await bench.store.jobs.list()
    assert (job.state, job.losses) == (JobState.DONE, 0)


async def test_a_loop_that_stands_still_is_told_of_once_with_the_place(bench: Bench) -> None:
    told: list[bool] = []
    done = asyncio.Event()

    async def block(job: Job) -> Result:
        for _ in range(5):
            bench.wait_for_beat()
        told.append(bench.eventually(lambda: any(isinstance(signal, LoopBlocked) for signal in bench.signals)))
        done.set()
        return "done"

    await until_done(asyncio.ensure_future(bench.worker(block).run()), done)

    assert told == [True]
    [signal] = [signal for signal in bench.signals if isinstance(signal, LoopBlocked)]
    assert signal.seconds >= 4
    assert signal.where


async def test_a_handler_past_its_time_limit_loses_its_lease_even_while_it_blocks(bench: Bench) -> None:
    lost: list[bool] = []
    done = asyncio.Event()

    async def block(job: Job) -> Result:
        bench.wait_for_beat()
        bench.clock.pause(61)
        told = bench.eventually(overran)
        bench.clock.pause(12)
        lost.append(told and bench.leased_for() < 0)
        done.set()
        return "done"

    def overran() -> bool:
        return any(isinstance(signal, HandlerOverran) for signal in bench.signals)

    working = asyncio.ensure_future(bench.worker(block).run())
    await until_done(working, done)

    assert lost  # once, and again where it was claimed anew before the end was recorded
    assert all(lost)


async def test_a_worker_that_stops_leaves_no_thread(bench: Bench) -> None:
    done = asyncio.Event()

    async def perform(job: Job) -> Result:
        done.set()
        return "done"

    await until_done(asyncio.ensure_future(bench.worker(perform).run()), done)

    assert bench.eventually(lambda: "holdfast-heartbeat" not in {thread.name for thread in threading.enumerate()})
