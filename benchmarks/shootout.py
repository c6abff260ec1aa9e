"""How often a charge happens when the vendor loses answers, is unavailable, slow, and sends its webhooks twice.

Every candidate is asked to charge each of 200 orders once, in the way its own documentation says, by the same scripted
vendor; what happened is counted in the vendor's ledger. Once where the vendor honours idempotency keys, and once where
it has none. Candidates that promise to survive it are killed twice on the way, with charges in flight, and started
again.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Final, Required, TypedDict

import httpx

from benchmarks._intents import KEYS, NO_KEYS, orders
from benchmarks._measure import arguments, versions
from tests.servers.postgres import PostgresServer

ROOT: Final = Path(__file__).parents[1]
MODES: Final = (KEYS, NO_KEYS)
INTENTS: Final = 200
TWICE: Final = (0.35, 0.7)
WITHIN: Final = 80.0
LOOK_EVERY: Final = 0.05
PROCESSES: Final = 5
"""At once."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A library and how it is started."""

    name: str
    script: str
    environment: str = "shootout"
    arguments: tuple[str, ...] = ()
    killed_at: tuple[float, ...] = ()
    """Where it promises to go on after a kill: of the orders, those that are charged when its process is killed."""

    @property
    def python(self) -> Path:
        if self.environment:
            return ROOT / ".venv" / self.environment / "bin" / "python"
        return Path(sys.executable)


CANDIDATES: Final = (
    Candidate("holdfast", "holdfast", environment="", killed_at=TWICE),
    Candidate("dbos", "dbos", killed_at=TWICE),
    Candidate("httpx_tenacity", "httpx_tenacity"),
    Candidate("httpx_tenacity_key", "httpx_tenacity", arguments=("--key",)),
    Candidate("redress", "redress"),
    Candidate("paybridge", "paybridge"),
    Candidate("paybridge_fallback", "paybridge", arguments=("--fallback",)),
    Candidate("getpaid", "getpaid", environment="getpaid"),
    Candidate("apprise", "apprise"),
    Candidate("apprise_retry", "apprise", arguments=("--retry",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one candidate did to so many orders, by the vendor's ledger."""

    effects_per_intent: float
    most: int
    lost: int
    """Orders nothing happened for."""
    doubled: int
    """Orders it happened for more than once."""

    @classmethod
    def of(cls, effects: Mapping[str, int], intents: int) -> "Outcome":
        counts = [effects.get(order, 0) for order in orders(intents)]
        return cls(
            effects_per_intent=round(mean(counts), 3),
            most=max(counts),
            lost=counts.count(0),
            doubled=sum(count > 1 for count in counts),
        )


def main() -> None:
    parser = arguments("shootout", __doc__)
    parser.add_argument("--intents", type=int, default=INTENTS, help=f"orders (default {INTENTS})")
    parser.add_argument("--only", help="these candidates, by commas")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [candidate.name for candidate in CANDIDATES]
    candidates = [candidate for candidate in CANDIDATES if candidate.name in wanted]
    with PostgresServer() as postgres:
        found = asyncio.run(run(candidates, options.intents, postgres))
    publish(found, candidates, options)


class Said(TypedDict, total=False):
    """A candidate's last line, as `_intents.finish` writes it."""

    versions: Required[dict[str, str]]
    told: int
    """How often the shop heard that an order was paid."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one candidate did in one mode, and what it said at its end."""

    outcome: Outcome
    said: Said


Key = tuple[str, str]
"""A candidate's name and the mode."""


async def run(candidates: Sequence[Candidate], intents: int, postgres: PostgresServer) -> dict[Key, Found]:
    """Every candidate that is there, in both modes."""
    played = list(product([candidate for candidate in candidates if candidate.python.exists()], MODES))
    gate = asyncio.Semaphore(PROCESSES)
    with tempfile.TemporaryDirectory(prefix="holdfast-shootout-") as place:
        edges = [f"{candidate.name}:{mode}" for candidate, mode in played]
        async with vendor(Path(place), edges, intents) as urls, asyncio.TaskGroup() as group:
            tasks: dict[Key, asyncio.Task[Found]] = {}
            for (candidate, mode), edge in zip(played, edges, strict=True):
                directory = Path(place) / edge.replace(":", "-")
                directory.mkdir()
                own = [postgres.url.removesuffix("holdfast") + f"dbos_{mode}"] if candidate.name == "dbos" else []
                task = [urls[edge], mode, str(intents), str(directory), *own]
                tasks[candidate.name, mode] = group.create_task(_play(candidate, task, gate))
    return {key: task.result() for key, task in tasks.items()}


async def play_one(candidate: Candidate, mode: str, *, intents: int, directory: Path) -> Found:
    """One candidate in one mode, by itself."""
    edge = f"{candidate.name}:{mode}"
    async with vendor(directory, [edge], intents) as urls:
        return await _play(candidate, [urls[edge], mode, str(intents), str(directory)], asyncio.Semaphore())


@asynccontextmanager
async def vendor(directory: Path, edges: Sequence[str], intents: int) -> AsyncGenerator[Mapping[str, str]]:
    """The scripted vendor in a process of its own; the address of each edge."""
    file = directory / "vendor.json"
    command = ["-m", "benchmarks._shootout_vendor", "--edges", ",".join(edges), "--port-file", str(file)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--intents", str(intents), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        while not file.exists():
            if process.returncode is not None:
                raise RuntimeError("the scripted vendor did not start")
            await asyncio.sleep(LOOK_EVERY)
        yield json.loads(file.read_text())
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _play(candidate: Candidate, task: Sequence[str], gate: asyncio.Semaphore) -> Found:
    """`task` is what the candidate is started with, as `_intents.Task` reads it."""
    url, _, intents, directory, *_ = task
    task = [*task, *candidate.arguments, *([str(_free_port())] if candidate.name == "holdfast" else [])]
    log = Path(directory, "log.txt")
    async with gate, httpx.AsyncClient(base_url=url, timeout=10) as ledger, asyncio.timeout(WITHIN):
        for share in candidate.killed_at:
            async with _running(candidate, task, log) as process:
                await _until_charged(ledger, int(share * int(intents)), process)
        async with _running(candidate, task, log) as process:
            said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{candidate.name} failed:\n{_end(log)}")
        return Found(Outcome.of(await _effects(ledger), int(intents)), json.loads(said.splitlines()[-1]))


@asynccontextmanager
async def _running(candidate: Candidate, task: Sequence[str], log: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The candidate's process and all that it starts; they get kill -9 at the end, whatever they are doing."""
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            str(candidate.python),
            "-m",
            f"benchmarks.peers.{candidate.script}_shootout",
            *task,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def _until_charged(ledger: httpx.AsyncClient, orders: int, process: asyncio.subprocess.Process) -> None:
    """Until so many orders were charged, with others in flight."""
    while len(await _effects(ledger)) < orders:
        if process.returncode is not None:
            return
        await asyncio.sleep(LOOK_EVERY)


async def _effects(ledger: httpx.AsyncClient) -> dict[str, int]:
    found: dict[str, int] = (await ledger.get("/__fake/effects")).json()
    return found


def _free_port() -> int:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        port: int = here.getsockname()[1]
        return port


def publish(found: Mapping[Key, Found], candidates: Sequence[Candidate], options: argparse.Namespace) -> None:
    """Print a table for each mode, and one JSON object on the last line."""
    missing = {
        candidate.name: f"{candidate.python.relative_to(ROOT)} is not there"
        for candidate in candidates
        if not candidate.python.exists()
    }
    for name, why in missing.items():
        print(f"shootout: no {name}, since {why}", file=sys.stderr)
    tables = {
        mode: {name: each.outcome for (name, in_mode), each in found.items() if in_mode == mode} for mode in MODES
    }
    if not options.json:
        for mode, outcomes in tables.items():
            _print_table(mode, outcomes)
    flat = figures(tables) | {
        f"{name}_{mode}_told": each.said["told"] for (name, mode), each in found.items() if "told" in each.said
    }
    report = {
        "name": "shootout",
        "figures": flat,
        "effects_per_intent": {name: flat[name] for name in tables[KEYS]},
        "tables": {mode: {name: asdict(each) for name, each in outcomes.items()} for mode, outcomes in tables.items()},
        "absent": missing,
        "versions": versions("holdfast") | _versions(found),
        "command": "make bench NAME=shootout ARGS=--json",
    }
    print(json.dumps(report))


def figures(tables: Mapping[str, Mapping[str, Outcome]]) -> dict[str, float]:
    """Flat: of each candidate the mean that is farther from one, all lost and all doubled; then each mode alone."""
    flat: dict[str, float] = {}
    for name in tables[KEYS]:
        outcomes = {mode: table[name] for mode, table in tables.items()}
        flat[name] = max((each.effects_per_intent for each in outcomes.values()), key=lambda mean: abs(mean - 1))
        flat[f"{name}_lost"] = sum(each.lost for each in outcomes.values())
        flat[f"{name}_doubled"] = sum(each.doubled for each in outcomes.values())
        for mode, outcome in outcomes.items():
            flat |= {f"{name}_{mode}_{key}": value for key, value in asdict(outcome).items()}
    return flat


def _versions(found: Mapping[Key, Found]) -> dict[str, str]:
    """What the candidates say they are; Python and holdfast are ours."""
    said: dict[str, str] = {}
    for each in found.values():
        said |= each.said["versions"]
    return {name: version for name, version in said.items() if name not in ("python", "holdfast")}


def _print_table(mode: str, outcomes: Mapping[str, Outcome]) -> None:
    print("the vendor honours idempotency keys" if mode == KEYS else "the vendor has no idempotency keys")
    width = max(map(len, outcomes), default=0)
    print(f"  {'':{width}}   effects per order   most   lost   doubled")
    for name, outcome in outcomes.items():
        print(
            f"  {name:{width}} {outcome.effects_per_intent:>19g} {outcome.most:>6} {outcome.lost:>6} "
            f"{outcome.doubled:>9}"
        )


if __name__ == "__main__":
    main()
