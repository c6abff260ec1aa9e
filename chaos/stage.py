"""What every scenario stands on: one store, the processes on it, the vendor, and all that is written down."""

import asyncio
import sqlite3
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

from sqlalchemy import create_engine, text

from chaos import history, journal
from chaos.checker import Violation, check
from chaos.engines import ENGINES, Engine
from chaos.history import Effect, History, Recovery, Replay, Row
from chaos.journal import Journal
from chaos.processes import Life
from chaos.producer import Producer, Traffic
from chaos.roles import Role
from holdfast import WorkerOptions
from holdfast.clock import SystemClock
from holdfast.queue.operations import Queue
from holdfast.stores import open_store
from holdfast.stores.store import JobFilter, JobState, Store
from holdfast.telemetry import Telemetry
from tests.servers.ports import free_port

OPTIONS: Final = WorkerOptions(
    lease=2.0, heartbeat=0.4, idle=0.25, grace=5.0, retry_base=0.05, retry_cap=0.5, takeover=0.1, attempts=200
)
SLACK: Final = 5.0
"""Seconds for starting a process, and for a machine that is busy with other things."""
NEXT: Final = 0.1
"""Seconds after which workers that begin nothing have nothing to begin."""
WHEN_IDLE: Final = "held"
"""What is sent when nothing else is under way."""
SUSPECT: Final = 2
"""Losses after which a job waits until it can run alone."""
ALL: Final = 1_000_000
ACTIVE: Final = (JobState.READY, JobState.LEASED)

Tell = Callable[[str], None]


@dataclass(kw_only=True)
class Found:
    """What came of a scenario."""

    name: str
    engine: str
    level: str
    history: History
    violations: Sequence[Violation]
    directory: Path
    kills: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    notes: Mapping[str, float] = field(default_factory=dict[str, float])
    """More figures, by their names."""

    @property
    def places(self) -> Counter[str]:
        """The named places at which processes died."""
        return Counter(fault.how for fault in self.history.faults if "." in fault.how)


class Stage:
    """One run on one store."""

    def __init__(
        self, engine: Engine, directory: Path, faults: Journal, chance: Random, tell: Tell, *, mutation: str = ""
    ) -> None:
        self.engine = engine
        self.directory = directory
        self.faults = faults
        self.chance = chance
        self.tell = tell
        self.mutation = mutation
        self.options = OPTIONS
        self.ports = [free_port(), free_port()]
        self.kills: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}
        """Of the history: what a scenario found out itself."""
        self.notes: dict[str, float] = {}
        self._lives: list[Life] = []

    def producer(self, traffic: Traffic | None = None, *, ports: int = 1) -> Producer:
        """The vendor; there is one in a run."""
        notes = Journal(self.directory / "vendor.jsonl")
        return Producer(self.ports[:ports], notes, Random(self.chance.random()), traffic)

    def start(self, kind: str, *, number: int = 0, **more: Any) -> Life:
        """A process; `number` tells receivers apart."""
        role = Role(
            kind=kind,
            url=self.engine.url,
            effects=self.engine.effects,
            inside=self.engine.inside,
            directory=self.directory,
            port=self.ports[number],
            mutation=self.mutation,
            options=self.options,
            **more,
        )
        life = Life(role, self.faults)
        self._lives.append(life)
        return life

    async def ready(self, kind: str, **more: Any) -> Life:
        """A process that does already what it is for."""
        life = self.start(kind, **more)
        if not await life.ready():
            raise RuntimeError(f"a {kind} ended at once; see {self.directory}/{kind}.log")
        return life

    async def end(self) -> None:
        """Stop all processes that are left."""
        for life in self._lives:
            life.thaw()
        await asyncio.gather(*(life.stop() for life in self._lives if not life.is_over))

    def work(self) -> list[dict[str, Any]]:
        """What workers wrote so far."""
        return journal.read(self.directory / "work.jsonl")

    def runs_of(self, id: str) -> list[dict[str, Any]]:
        """The runs of this delivery's event that have begun."""
        return [
            line
            for line in self.work()
            if line["what"] == "start" and line["queue"] == "events" and history.of_key(line["key"]) == id
        ]

    async def quiet(self, within: float = 120.0) -> bool:
        """Wait until nothing is to be done any more; False: that takes too long."""
        end = time.monotonic() + within
        async with open_store(self.engine.url) as store:
            while time.monotonic() < end:
                counts = await store.jobs.count()
                waiting = sum(number for (_, state), number in counts.items() if state in ACTIVE)
                if not waiting:
                    return True
                self.tell(f"{waiting} jobs to go")
                await asyncio.sleep(0.05)
        return False

    async def replay(self, most: int = 20, rate: float = 100.0) -> None:
        """Run what died again, and a few that are done; the request comes twice at once, and a third time."""
        async with open_store(self.engine.url) as store:
            dead = await store.jobs.list(JobFilter(state=JobState.DEAD), limit=ALL)
            done = await store.jobs.list(JobFilter(queue="events", state=JobState.DONE), limit=ALL)
            chosen = {JobState.DEAD: dead, JobState.DONE: self.chance.sample(done, min(most, len(done)))}
            queue = Queue(store, owner=lambda: "chaos", clock=SystemClock(), telemetry=Telemetry([]))

            async def redrive() -> None:
                for state, jobs in chosen.items():
                    ids = [job.id for job in jobs] or ["none"]
                    request: dict[str, Any] = {"id": f"chaos-{state}", "by": "chaos", "reason": "to see it run again"}
                    await queue.redrive(JobFilter(state=state), ids=ids, limit=ALL, rate=rate, **request)

            begun = time.monotonic()
            await asyncio.gather(redrive(), redrive())
            self.facts |= {"replay_seconds": time.monotonic() - begun, "replay_rate": rate}
            await self.quiet()
            await redrive()
            self.facts["replays"] = [
                Replay(job=job.id, before=job.generation, after=(await store.jobs.get(job.id)).generation, requests=3)
                for job in (*dead, *chosen[JobState.DONE])
            ]

    async def collect(self, name: str, begun: float) -> Found:
        """All that is known in the end, and what is wrong with it."""
        async with open_store(self.engine.url) as store:
            rows = await rows_of(store)
            counts = {(queue, state.value): number for (queue, state), number in (await store.jobs.count()).items()}
        found = read(self.directory)
        found = replace(
            found,
            effects=effects_of(self.engine, self.directory),
            rows=rows,
            counts=counts,
            recoveries=recoveries(found, self.options),
            attempts=self.options.attempts,
        )
        found = replace(found, **self.facts)
        return Found(
            name=name,
            engine=self.engine.name,
            level=self.engine.level,
            history=found,
            violations=check(found),
            directory=self.directory,
            kills=self.kills,
            seconds=time.monotonic() - begun,
            notes=self.notes,
        )


def judged(found: Found, complete: History) -> Found:
    """The same with more known of it."""
    return replace(found, history=complete, violations=check(complete))


@asynccontextmanager
async def stage(engine: str, seed: str, tell: Tell, *, mutation: str = "") -> AsyncGenerator[Stage]:
    """A store of that engine, with nothing in it."""
    directory = Path(tempfile.mkdtemp(prefix=f"holdfast-chaos-{engine}-"))
    faults, chance = Journal(directory / "faults.jsonl"), Random(seed)
    async with ENGINES[engine](directory, faults, chance) as store:
        set_up = Stage(store, directory, faults, chance, tell, mutation=mutation)
        try:
            yield set_up
        finally:
            await set_up.end()


def read(directory: Path) -> History:
    """What was written down in a directory."""
    lines = journal.read(directory / "work.jsonl")
    runs, claims, changes = history.work(lines)
    return History(
        sent=history.sent(directory / "vendor.jsonl"),
        runs=runs,
        claims=claims,
        changes=changes,
        faults=history.faults([*lines, *journal.read(directory / "faults.jsonl")]),
        purged=history.may_have_purged(lines),
    )


async def rows_of(store: Store) -> list[Row]:
    """All jobs in the store."""
    return [
        Row(
            queue=job.queue,
            job=job.id,
            id=history.of_key(job.key),
            key=job.key,
            state=job.state.value,
            token=job.token,
            reason=job.reason,
            attempts=job.attempts,
            losses=job.losses,
            generation=job.generation,
        )
        for job in await store.jobs.list(limit=ALL)
    ]


def effects_of(engine: Engine, directory: Path) -> list[Effect]:
    """All rows of the user's database."""
    query = "SELECT event, handler, generation, token, variant FROM effects"
    rows: list[Any]
    if engine.effects:
        database = create_engine(engine.effects.replace("postgresql://", "postgresql+psycopg://"))
        with database.connect() as connection:
            rows = list(connection.execute(text(query)))
        database.dispose()
    else:
        file, table = ("holdfast.db", "shop_effects") if engine.inside else ("shop.db", "effects")
        with closing(sqlite3.connect(directory / file)) as database_file:
            rows = database_file.execute(query.replace("effects", table)).fetchall()
    return [
        Effect(id=history.of_key(event), handler=handler, generation=generation, token=token, variant=variant)
        for event, handler, generation, token, variant in rows
    ]


def recoveries(found: History, options: WorkerOptions) -> list[Recovery]:
    """For each job that a dead process had begun: when it began again, since the last death before that."""
    runs_of: dict[tuple[str, str], list[history.Run]] = {}
    for run in found.runs:
        runs_of.setdefault((run.queue, run.job), []).append(run)
    deaths = sorted(found.deaths.values())
    begun = sorted(run.began for run in found.runs)
    suspects = sorted(run.began for run in found.runs if run.losses >= SUSPECT)
    outages = [fault for fault in found.faults if fault.what in ("outage", "frozen")]
    within = options.lease + options.heartbeat + options.idle + SLACK
    recovered: list[Recovery] = []
    for before, after in (pair for runs in runs_of.values() for pair in pairwise(runs)):
        died = found.deaths.get(before.pid)
        if died is None or before.ended is not None or after.generation != before.generation:
            continue
        since = max([died, *_between(deaths, died, after.began)])
        if any(fault.at < after.began and fault.until > since for fault in outages):
            continue
        if _between(suspects, since, after.began):
            continue  # while a suspect runs alone, all others wait for it
        idle = before.id in found.sent and found.sent[before.id].mode == WHEN_IDLE
        busy = 0.0 if idle else _busy(_between(begun, since, after.began))
        recovered.append(Recovery(seconds=after.began - since, within=within, idle=idle, busy=busy))
    return recovered


def _between(moments: Sequence[float], since: float, until: float) -> Sequence[float]:
    """Those of the sorted moments, both ends included."""
    return moments[bisect_left(moments, since) : bisect_right(moments, until)]


def _busy(begun: Sequence[float]) -> float:
    """The seconds in which one job began after the other."""
    return sum(after - before for before, after in pairwise(begun) if after - before < NEXT)
