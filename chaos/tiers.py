"""What is run: the short tier of every change, the long one of the night, and holdfast with a promise taken out."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from chaos import clocks, doors, full, mutations, small, storm
from chaos.checker import Violation
from chaos.engines import INSIDE
from chaos.loop import KillLoop, Plan
from chaos.points import OF_PRUNER, OF_RECEIVER, OF_WORKER, every
from chaos.producer import Traffic
from chaos.stage import Found, Stage, Tell, stage

Play = Callable[[Stage], Awaitable[Found]]
ENGINES: Final = ("sqlite", "redis", "postgresql")
ROOT: Final = Path(__file__).parents[1]
HITS: Final[Mapping[str, Mapping[str, int]]] = {
    "sqlite": {},
    "redis": {"server": 10, "scripts": 3, "clients": 3, "listeners": 3, "rewrite": 1},
    "postgresql": {"server": 4, "backends": 6},
}
KILLS: Final = {"sqlite": 104, "redis": 60, "postgresql": 40}
MODEL: Final = (
    "tests/stores/test_jobs_model.py",
    "tests/stores/test_redis_model.py",
    "tests/stores/test_postgres_server.py",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One play on one engine."""

    name: str
    engine: str
    play: Play
    mutation: str = ""
    store: str = ""
    """A variety of the engine; empty: the usual one."""


@dataclass(kw_only=True)
class Outcome:
    """What came of a scenario: its findings, or what it failed with."""

    scenario: Scenario
    found: Found | None = None
    violations: Sequence[Violation] = ()
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Nothing is wrong; of holdfast with a promise taken out: that was noticed."""
        if self.scenario.mutation:
            return bool(mutations.EXPECTED[self.scenario.mutation] & {each.invariant for each in self.violations})
        return not self.violations


def loop(plan: Plan) -> Play:
    """The kill loop with this plan."""
    return lambda stage: KillLoop(stage, plan).run()


def kills(engine: str, times: int = 1) -> Scenario:
    """The kill loop of an engine, so many times as long."""
    hits = {name: number * times for name, number in HITS[engine].items()}
    return Scenario(name="kill loop", engine=engine, play=loop(Plan(kills=KILLS[engine] * times, hits=hits)))


INSIDE_LOOP: Final = Scenario(
    name="transactional handlers",
    engine="sqlite",
    store=INSIDE,
    play=loop(
        Plan(
            kills=30,
            idle_kills=0,
            replay=False,
            places=[place for place in every((*OF_RECEIVER, *OF_WORKER, *OF_PRUNER)) if place != "effect.after"],
        )
    ),
)


def short() -> list[list[Scenario]]:
    """Of every change; what stands together runs at the same time."""
    return [
        [kills("sqlite")],
        [INSIDE_LOOP],
        [kills("redis")],
        [kills("postgresql")],
        [Scenario(name="storm", engine="sqlite", play=storm.storm)],
        [Scenario(name="frozen worker", engine=engine, play=clocks.zombie) for engine in ENGINES],
        [Scenario(name="clock jumps", engine=engine, play=clocks.jumps) for engine in ENGINES],
        [
            Scenario(name="full disk", engine="sqlite", play=full.disk),
            Scenario(name="full memory", engine="redis", play=full.memory),
            Scenario(name="full queue", engine="sqlite", play=full.queue),
            Scenario(name="doors", engine="sqlite", play=doors.doors),
        ],
        [Scenario(name="poison", engine=engine, play=small.poison) for engine in ENGINES],
        [Scenario(name="blocked key", engine="sqlite", play=small.blocked_key)],
    ]


def nightly() -> list[list[Scenario]]:
    """More of everything, on every engine."""
    more = [[kills(engine, 10)] for engine in ENGINES] + [[INSIDE_LOOP]]
    storms = [[Scenario(name="storm", engine=engine, play=storm.storm)] for engine in ENGINES[1:]]
    blocked = [[Scenario(name="blocked key", engine=engine, play=small.blocked_key)] for engine in ENGINES[1:]]
    return more + short()[4:] + storms + blocked


def without() -> list[list[Scenario]]:
    """Holdfast with one promise after the other taken out, two at a time."""
    lives = Plan(
        kills=14,
        idle_kills=0,
        replay=False,
        prune=False,
        quiet_within=5.0,
        places=["append.before", "effect.after", "mark.before"],
        traffic=Traffic(rate=150),
    )
    # Few objects with much to tell each, and handlers that take a while: what is out of order overlaps for sure.
    crowded = replace(lives, traffic=Traffic(rate=150, lanes=4, modes={"plain": 60, "slow": 30, "fails": 10}))
    plays: dict[str, Play] = {"fence": clocks.zombie, "heartbeat": clocks.zombie, "order": loop(crowded)}
    scenarios = [
        Scenario(name=f"without {name}", engine="sqlite", play=plays.get(name, loop(lives)), mutation=name)
        for name in mutations.EXPECTED
    ]
    return [scenarios[at : at + 2] for at in range(0, len(scenarios), 2)]


async def perform(scenario: Scenario, seed: int, tell: Tell) -> Outcome:
    """Run it; whatever it raises is a finding, too."""
    begun = time.monotonic()
    try:
        name = f"{seed}/{scenario.engine}/{scenario.name}"
        async with stage(scenario.store or scenario.engine, name, tell, mutation=scenario.mutation) as set_up:
            found = await scenario.play(set_up)
    except Exception as error:  # the border of a scenario: the others are to run all the same
        broken = [Violation("history", f"{type(error).__name__}: {error}")]
        return Outcome(scenario=scenario, violations=broken, seconds=time.monotonic() - begun)
    return Outcome(scenario=scenario, found=found, violations=found.violations, seconds=time.monotonic() - begun)


@dataclass(kw_only=True)
class Model:
    """The random histories of the stores' own tests, with this seed."""

    seconds: float = 0.0
    failed: str = ""
    lines: list[str] = field(default_factory=list[str])


async def model(seed: int, engines: Sequence[str]) -> Model:
    """Run them; what they say where one fails."""
    begun = time.monotonic()
    wanted = [file for file, engine in zip(MODEL, ENGINES, strict=True) if engine in engines]
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", f"--hypothesis-seed={seed}", "-k", CHOSEN]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *wanted, *arguments),
        cwd=ROOT,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    return Model(seconds=time.monotonic() - begun, failed=text[-4000:] if process.returncode else "")


CHOSEN: Final = "Histories or as_the_memory_store_does"
