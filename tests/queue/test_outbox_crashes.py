"""Processes that die anywhere: at any command to the store, before or after it, and in the middle of a handler."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from holdfast.errors import OutcomeUnknown, Rejected, RetryLater
from holdfast.queue.calls import Call, Callees
from holdfast.queue.outbox import Outbox
from holdfast.queue.worker import Worker, WorkerOptions
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Job, JobState
from holdfast.telemetry import Telemetry
from holdfast.testing.clock import ManualClock

HISTORIES = 40
LIVES = 6
"""Processes that die at a command; later ones only where a handler kills them."""
MOST = 200


class Died(BaseException):
    """The process is no more."""


class Cut:
    """A store that a process can use until it dies, at a command or when `kill` says so."""

    durable = False

    def __init__(self, store: MemoryStore, chance: Random, after: int) -> None:
        self._store = store
        self._chance = chance
        self._left = after
        self.jobs: Any = _Part(self, store.jobs)
        self.records: Any = _Part(self, store.records)

    def kill(self) -> None:
        self._left = 0
        raise Died

    async def now(self) -> datetime:
        now: datetime = await self.do(self._store.now)
        return now

    async def do(self, command: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        self._left -= 1
        if self._left < 0 or (self._left == 0 and self._chance.random() < 0.5):
            self.kill()
        result = await command(*arguments, **named)
        if self._left == 0:
            self.kill()
        return result


class _Part:
    def __init__(self, cut: Cut, part: object) -> None:
        self._cut = cut
        self._part = part

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._part, name)
        return lambda *arguments, **named: self._cut.do(command, *arguments, **named)


class World:
    """Some calls of every kind, made by one process after the other; what happened is written down outside of them."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.effects: list[tuple[str, str, datetime]] = []
        self.runs: list[tuple[str, str]] = []
        self.happened: set[tuple[str, str]] = set()
        self.expires: dict[str, datetime] = {}
        self.kept: set[tuple[str, str]] = set()
        self.jobs: dict[str, Job] = {}
        self.to_add = [(name, f"{number}") for number in range(4) for name in ("plain", "hold", "resend", "check")]
        self.to_add += [("otp", f"{number}") for number in range(4)] + [("order", f"{number}") for number in range(6)]
        self.chance.shuffle(self.to_add)
        numbers = iter(range(6))
        self.to_add = [(name, f"{next(numbers)}" if name == "order" else key) for name, key in self.to_add]
        self.cut = self.live(after=0)

    def live(self, *, after: int) -> Cut:
        """A new process, with so many commands to live."""
        self.cut = Cut(self.store, self.chance, after)
        self.owner = f"process {self.chance.random()}"
        callees = Callees()
        for name in ("plain", "otp", "order"):
            callees.add(name, self.make)
        callees.add("hold", self.make, once=True)
        callees.add("resend", self.make, once=True, on_unknown="resend")
        callees.add("check", self.make, once=True, check=self.check)
        store: Any = self.cut  # as much of one as is used
        self.outbox = Outbox(callees, store, clock=self.clock, telemetry=Telemetry([]))
        self.worker = Worker(
            self.cut.jobs,
            self.outbox.perform,
            queues=self.outbox.queues,
            owner=self.owner,
            clock=self.clock,
            chance=self.chance,
            telemetry=Telemetry([]),
            options=WorkerOptions(concurrency=8, attempts=1000, lease=10, retry_cap=5),
        )
        return self.cut

    async def make(self, call: Call[Any]) -> None:
        self.runs.append((call.name, call.key))
        await asyncio.sleep(0)
        fate = self.chance.random()
        if fate < 0.1:
            raise Rejected("no")
        if fate < 0.2:
            raise RetryLater("closed", after=1)
        if fate < 0.25:
            self.cut.kill()
        self.effects.append((call.name, call.key, self.clock.now()))
        self.happened.add((call.name, call.key))
        await asyncio.sleep(0)
        if fate < 0.35:
            self.cut.kill()
        if fate < 0.45:
            raise OutcomeUnknown("the answer was lost")
        if fate < 0.5:
            raise ConnectionError("reset")

    async def check(self, call: Call[Any]) -> bool | None:
        return None if self.chance.random() < 0.3 else (call.name, call.key) in self.happened

    async def act(self) -> None:
        """What a process does in its life: add what is to be added, work, let time pass."""
        while True:
            if self.to_add and self.chance.random() < 0.6:
                name, key = self.to_add[0]
                ends = self.expires.setdefault(key, self.clock.now() + timedelta(seconds=30)) if name == "otp" else None
                if ends is None or ends > self.clock.now():
                    await self.outbox.add(name, key=key, expires_at=ends, ordering_key="all" if name == "order" else "")
                    self.kept.add((name, key))
                self.to_add.pop(0)
            await self.worker.run_once()
            if not self.to_add and await self.is_over():
                return
            await self.clock.advance(self.chance.choice([0, 0.3, 2, 7]))

    async def is_over(self) -> bool:
        counted = await self.store.jobs.count()
        return not any(state in (JobState.READY, JobState.LEASED) for _, state in counted)


async def live_through(seed: int) -> World:
    """A history: processes that die somewhere, one after the other, until one is left alone."""
    world = World(seed)
    async with world.store:
        for life in range(MOST):
            world.live(after=world.chance.randrange(1, 60) if life < LIVES else 10**9)
            try:
                await world.act()
                break
            except Died:
                pass
            except BaseExceptionGroup as died:
                if died.split(Died)[1] is not None:
                    raise
            # Twice their leases run out, which is a loss; a third one would bury what the dead had in their hands.
            if life < 2:
                await world.clock.advance(11)
            else:
                await world.store.jobs.release(world.owner)
        else:
            raise AssertionError("it never comes to an end")
        world.jobs = {job.key: job for job in await world.store.jobs.list(limit=1000)}
    return world


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_wherever_processes_die_calls_are_made_as_they_are_declared(seed: int) -> None:
    world = await live_through(seed)
    times = Counter((name, key) for name, key, _ in world.effects)
    jobs = world.jobs

    for name, key in world.kept:
        state = jobs[f"{name}/{key}"].state
        if name in ("plain", "order", "resend"):
            assert (times[name, key] >= 1, state) == (True, JobState.DONE)
        if name == "hold":
            assert times[name, key] <= 1
            assert state is JobState.DONE or jobs[f"{name}/{key}"].reason == "unknown"
        if name == "check":
            assert (times[name, key], state) == (1, JobState.DONE)
        if name == "otp":
            assert times[name, key] >= 1 or state is JobState.IGNORED


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_wherever_processes_die_nothing_is_made_after_its_end_or_out_of_its_order(seed: int) -> None:
    world = await live_through(seed)

    late = [(key, at) for name, key, at in world.effects if name == "otp" and at >= world.expires[key]]
    order = [int(key) for name, key in world.runs if name == "order"]

    assert late == []
    assert order == sorted(order)
