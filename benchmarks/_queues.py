"""Queues of others on a Redis server of the benchmark's own, each in a process of its own and asked in turn."""

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any, Final, Self

import uvloop

from tests.servers.redis import RedisServer

ROOT: Final = Path(__file__).parent.parent
SCRIPTS: Final = Path(__file__).parent / "peers"
PEERS: Final = ROOT / ".venv/peers/bin/python"
ARQ: Final = ROOT / ".venv/arq/bin/python"
NODE_MODULES: Final = ROOT / ".venv/bullmq/node_modules"

NO_NODE: Final = "  BullMQ is left out: no Node on PATH, or `make .venv/bullmq/.ready` was not run"

LOOPS: Final[Mapping[str, Callable[[Coroutine[Any, Any, dict[str, float]]], dict[str, float]]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
COMMANDS: Final = {
    "saq": (str(PEERS), str(SCRIPTS / "saq_queue.py")),
    "taskiq": (str(PEERS), str(SCRIPTS / "taskiq_redis_queue.py")),
    "arq": (str(ARQ), str(SCRIPTS / "arq_queue.py")),
}


class Peer:
    """A queue in a process of its own, and a database of its own."""

    def __init__(self, server: RedisServer, database: int, command: Sequence[str], *arguments: str) -> None:
        self._command = [*command, f"{server.url}/{database}", *arguments]
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def per_second(self, verb: str, jobs: int) -> float:
        """How fast it does these jobs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(verb, jobs, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.wait()}")
        return jobs / float(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running_server(*settings: str) -> Generator[RedisServer]:
    """An empty server that syncs its log every second, and never stops to rewrite it.

    It has a core of its own, where there are two, and whoever asks it has the others: else the scheduler puts both on
    one core now and then, and figures say more of that than of anyone's code.
    """
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-redis-") as directory,
        RedisServer(Path(directory), "--auto-aof-rewrite-percentage", "0", *settings) as server,
    ):
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
        if len(cores) > 1:
            os.sched_setaffinity(server.pid, {max(cores)})
            os.sched_setaffinity(0, cores - {max(cores)})
        yield server


@contextmanager
def peers(server: RedisServer, *names: str, loop: str) -> Generator[dict[str, Peer]]:
    """Those of these names that can be had: without Node there is no BullMQ; those in Python on this event loop."""
    with ExitStack() as stack:
        found: dict[str, Peer] = {}
        for database, name in enumerate(names, 1):
            if name != "bullmq":
                found[name] = stack.enter_context(Peer(server, database, COMMANDS[name], loop))
            elif (NODE_MODULES / "bullmq").exists():
                command = ("node", str(SCRIPTS / "bullmq_queue.mjs"))
                found[name] = stack.enter_context(Peer(server, database, command, str(NODE_MODULES)))
        yield found


def add_loop(parser: argparse.ArgumentParser) -> None:
    """Which event loop everyone in Python runs on."""
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="of everyone in Python (default asyncio)")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own: what disturbs a round disturbs both."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def percentile(rounds: Sequence[Sequence[float]], percent: int) -> float:
    """In milliseconds, the median of the rounds' own."""
    return 1000 * statistics.median(waits[ceil(percent / 100 * len(waits)) - 1] for waits in rounds)
