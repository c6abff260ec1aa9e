"""The kill loop: a receiver over HTTP and two workers, killed at random and at named places while traffic comes in."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from chaos import leftovers, points
from chaos.history import Sample
from chaos.processes import Life
from chaos.producer import Producer, Traffic, until
from chaos.stage import WHEN_IDLE, Found, Stage, judged
from holdfast.errors import StoreError
from holdfast.stores import open_store
from holdfast.stores.store import JobState

SAMPLE_EVERY: Final = 0.4
BUSY: Final = (0.05, 0.6)
"""Seconds a process works before it is killed."""
ARMED: Final = 0.6
"""Part of all processes that are to kill themselves at a named place."""
ARMED_FOR: Final = 1.5
"""Seconds it has for that."""
TRIES: Final = 3
KEPT: Final = 3.0
"""Seconds that what is done is kept, in the part of a run in which it is pruned."""


@dataclass(kw_only=True)
class Plan:
    """How much is to happen."""

    kills: int = 100
    hits: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often what is done to the store."""
    traffic: Traffic = field(default_factory=Traffic)
    prune: bool = True
    idle_kills: int = 2
    places: Sequence[str] | None = None
    """Named places to die at; None: all of them."""
    quiet_within: float = 120.0
    replay: bool = True


class KillLoop:
    """One run."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self._stage = stage
        self._plan = plan
        self._producer: Producer = stage.producer(plan.traffic)
        self._left = plan.kills
        self._pruning = False
        self._unused: dict[str, list[str]] = {}
        self._samples: list[Sample] = []

    async def run(self) -> Found:
        """Kill, wait until all is quiet, and collect what is to be known."""
        stage, plan, begun = self._stage, self._plan, time.monotonic()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._producer.run())
            group.create_task(self._sample())
            slots = [group.create_task(self._slot(kind)) for kind in ("receiver", "worker", "worker")]
            hitting = group.create_task(self._hit())
            await asyncio.wait([*slots, hitting])
            await self._die_at_the_rest()
            self._producer.stop()
            await stage.ready("receiver")
            await sending
        workers = [await stage.ready("worker"), await stage.ready("worker")]
        calm = await stage.quiet(plan.quiet_within)
        for _ in range(plan.idle_kills):
            workers = await self._kill_when_idle(workers)
        left: leftovers.Leftovers = {}
        if calm and plan.replay:
            async with leftovers.of_process(workers[0].pid, left):
                await stage.replay()
                await stage.quiet(plan.quiet_within)
        await stage.end()
        stage.facts["samples"] = self._samples
        found = await stage.collect("kill loop", begun)
        if not calm or not plan.replay:
            return found
        left |= await leftovers.of_store(stage)
        return judged(found, replace(found.history, leftovers=left))

    async def _slot(self, kind: str) -> None:
        """One process after the other, each killed."""
        while self._left > 0:
            self._left -= 1
            self._pruning = self._plan.prune and self._left < self._plan.kills / 3
            crash = self._crash(kind)
            prune = KEPT if self._pruning and kind == "worker" else 0.0
            life = self._stage.start(kind, crash=crash, prune=prune)
            working = await life.ready()
            if crash and await life.ended(ARMED_FOR):
                life.close()
                self._count(f"{kind} at a named place")
            elif working:
                await life.ended(self._stage.chance.uniform(*BUSY))
                await life.kill()
                self._count(f"{kind} at random")

    async def _hit(self) -> None:
        hits = [name for name, times in self._plan.hits.items() for _ in range(times)]
        self._stage.chance.shuffle(hits)
        for name in hits:
            await asyncio.sleep(self._stage.chance.uniform(0.1, 0.7))
            await self._stage.engine.hits[name]()
            self._count(f"store: {name}")

    async def _die_at_the_rest(self) -> None:
        """At the named places where nobody died so far, while traffic still comes in."""
        if self._plan.places is not None:
            return
        survivors = [await self._stage.ready("receiver"), await self._stage.ready("worker")]
        for place in sorted(self._missing()):
            kind = "receiver" if place.partition(".")[0] in points.OF_RECEIVER else "worker"
            if kind == "receiver":
                await survivors[0].kill()
            for _ in range(TRIES):
                life = self._stage.start(kind, crash=f"{place}:1", prune=KEPT / 2)
                await life.ready()
                reached = await life.ended(2 * ARMED_FOR)
                await life.kill()
                self._count(f"{kind} at a named place" if reached else f"{kind} at random")
                if reached:
                    break
            if kind == "receiver":
                survivors[0] = await self._stage.ready("receiver")
        for life in survivors:
            await life.kill()
            self._count(f"{life.role.kind} at random")
        self._stage.facts["places_left"] = sorted(self._missing())

    def _missing(self) -> set[str]:
        died = {line["how"] for line in self._stage.work() if line["what"] == "died"}
        return set(self._places("receiver") + self._places("worker", pruning=True)) - died

    def _places(self, kind: str, *, pruning: bool = False) -> list[str]:
        """Where such a process can die."""
        places: tuple[str, ...] = points.OF_RECEIVER if kind == "receiver" else points.OF_WORKER
        if pruning:
            places += points.OF_PRUNER if self._stage.engine.name == "sqlite" else points.OF_PRUNER[:1]
        return points.every(places)

    def _count(self, what: str) -> None:
        self._stage.kills[what] += 1
        self._stage.tell(f"{sum(self._stage.kills.values())} kills, {len(self._producer.acked)} accepted")

    def _crash(self, kind: str) -> str:
        """A place for this process to die at, if it is to die at one: one not used so far, where there is any."""
        chance = self._stage.chance
        if chance.random() > ARMED:
            return ""
        wanted = self._places(kind, pruning=kind == "worker" and self._pruning)
        if self._plan.places is not None:
            wanted = [place for place in wanted if place in self._plan.places]
        if not wanted:
            return ""
        unused = self._unused.setdefault(f"{kind}{self._pruning}", [])
        if not unused:
            unused += chance.sample(wanted, len(wanted))
        place = unused.pop()
        rare = place.startswith(("prune", "checkpoint"))
        return f"{place}:{chance.choice((1, 2) if rare else (1, 2, 5, 10, 20, 40))}"

    async def _kill_when_idle(self, workers: list[Life]) -> list[Life]:
        """Nothing is to do but one job; who runs it dies."""
        stage = self._stage
        id = await self._producer.send(WHEN_IDLE)
        await until(lambda: stage.runs_of(id), 60)
        pids = [run["pid"] for run in stage.runs_of(id)]
        victim = next((life for life in workers if life.pid in pids), None)
        if victim is None:
            return workers
        await asyncio.sleep(0.2)
        await victim.kill()
        self._count("worker when idle")
        another = await stage.ready("worker")
        await until(lambda: len(stage.runs_of(id)) > 1, 60)
        return [*(life for life in workers if life is not victim), another]

    async def _sample(self) -> None:
        """Now and then: there are as many deliveries as were accepted at least, and as were sent at most."""
        while not self._pruning and self._left > 0:
            await asyncio.sleep(SAMPLE_EVERY)
            try:
                async with open_store(self._stage.engine.url) as store:
                    least = len(self._producer.acked)
                    counts = await store.jobs.count()
            except StoreError:
                continue
            rows = sum(
                number
                for (queue, state), number in counts.items()
                if queue == "deliveries" and state is not JobState.IGNORED  # so are other bodies under an id kept
            )
            if not self._pruning:
                self._samples.append(Sample(least=least, rows=rows, most=len(self._producer.sent)))
