"""A worker is killed with ten jobs in flight, on a queue where nothing else happens, and another one starts at once.

How many of the ten run again, and how long that takes: on each of our stores, with the dead of the own host looked for
and without, beside other queues with their defaults. All wait at the same time, so what takes longer than `--watch`
seconds is reported as not having happened by then.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._recovery import ENQUEUE, JOBS, SECONDS, WORK
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

ROOT: Final = Path(__file__).parents[1]
BEGIN_WITHIN: Final = 10.0
IN_FLIGHT: Final = SECONDS / 2
"""Of a job's seconds, those that have passed when its worker is killed."""
LOOK_EVERY: Final = 0.02
PEERS: Final = {"arq": "arq", "saq": "peers", "taskiq": "peers", "streaq": "peers", "dramatiq": "peers"}
"""Which environment of `.venv` they are in."""


@dataclass(kw_only=True)
class Candidate:
    """A queue, and what its processes are started with."""

    name: str
    script: str
    url: str
    python: Path
    file: Path
    more: tuple[str, ...] = ()
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list["subprocess.Popen[bytes]"])

    def start(self, what: str) -> "subprocess.Popen[bytes]":
        """A process that enqueues or works; all that it starts is in its group."""
        command = [self.python, "-m", f"benchmarks.peers.{self.script}", what, self.url, self.file, *self.more]
        with self.file.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.running.append(process)
        return process

    def starts(self) -> dict[int, list[float]]:
        """When each job began, as often as it did."""
        begun: dict[int, list[float]] = {}
        with suppress(FileNotFoundError):
            for line in self.file.read_text().splitlines():
                number, _, at = line.split()
                begun.setdefault(int(number), []).append(float(at))
        return begun

    def kill(self) -> None:
        """kill -9 of everything that runs."""
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-recovery-") as place, ExitStack() as servers:
        directory = Path(place)
        redis = servers.enter_context(RedisServer(directory / "redis"))
        postgres = servers.enter_context(PostgresServer()) if not options.without_postgres else None
        candidates = _candidates(directory, redis, postgres)
        try:
            found = await asyncio.gather(*(_recover(candidate, options.watch) for candidate in candidates))
        finally:
            for candidate in candidates:
                candidate.kill()
    figures: dict[str, float] = {}
    remarks: dict[str, str] = {}
    for candidate, recovered in zip(candidates, found, strict=True):
        if recovered is None:
            continue
        share, seconds = recovered
        figures[f"rerun_share_{candidate.name}"] = share
        if seconds is None:
            remarks[f"rerun_share_{candidate.name}"] = f"by {options.watch:g} s after the kill; the rest, nobody knows"
        else:
            figures[f"seconds_{candidate.name}"] = round(seconds, 2)
            remarks[f"seconds_{candidate.name}"] = "until the last of ten ran again"
    publish(Report(name="recovery", figures=figures, versions=versions("redis"), remarks=remarks), options)


def _candidates(directory: Path, redis: RedisServer, postgres: PostgresServer | None) -> list[Candidate]:
    databases = iter(range(16))
    ours: Mapping[str, Callable[[str], str]] = {
        "sqlite": lambda name: f"sqlite:///{directory}/{name}.db",
        "redis": lambda name: f"{redis.url}/0?namespace={name}",
    }
    if postgres is not None:
        postgres.execute("CREATE DATABASE second")
        postgres_urls = {
            "postgresql": postgres.url,
            "postgresql_lease": postgres.url.removesuffix("holdfast") + "second",
        }
        ours = {**ours, "postgresql": lambda name: postgres_urls[name]}
    candidates = [
        Candidate(
            name=f"{engine}{way}",
            script="holdfast_recovery",
            url=url(f"{engine}{way}"),
            python=Path(sys.executable),
            file=directory / f"{engine}{way}.txt",
            more=("--no-takeover",) if way else (),
        )
        for engine, url in ours.items()
        for way in ("", "_lease")
    ]
    next(databases)  # the first is ours
    for name, environment in PEERS.items():
        python = ROOT / ".venv" / environment / "bin" / "python"
        if not python.exists():
            print(f"recovery: no {name}, since {python} is not there", file=sys.stderr)
            continue
        url = f"{redis.url}/{next(databases)}"
        candidates.append(
            Candidate(name=name, script=f"{name}_recovery", url=url, python=python, file=directory / f"{name}.txt")
        )
    return candidates


async def _recover(candidate: Candidate, watch: float) -> tuple[float, float | None] | None:
    """The part of the jobs that ran again, and the seconds until the last did, where all of them did.

    None: it is a peer that does not run on this server at all, and is left out.
    """
    await asyncio.to_thread(candidate.start(ENQUEUE).wait)
    candidate.start(WORK)
    if not await _until(lambda: len(candidate.starts()) == JOBS, BEGIN_WITHIN):
        log = candidate.file.with_suffix(".log").read_text(errors="replace")
        if candidate.name in PEERS:
            print(f"recovery: no {candidate.name}, which began no job: {log.strip()[-300:]}", file=sys.stderr)
            return None
        raise RuntimeError(f"{candidate.name} began {len(candidate.starts())} of {JOBS} jobs:\n{log[-2000:]}")
    await asyncio.sleep(IN_FLIGHT)
    killed_at = time.monotonic()
    candidate.kill()
    before = candidate.starts()
    candidate.start(WORK)

    def again() -> list[float]:
        return [
            min(times[len(before[job]) :]) for job, times in candidate.starts().items() if len(times) > len(before[job])
        ]

    all_of_them = await _until(lambda: len(again()) == JOBS, watch)
    return len(again()) / JOBS, max(again()) - killed_at if all_of_them else None


async def _until(true: Callable[[], bool], within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if true():
            return True
        await asyncio.sleep(LOOK_EVERY)
    return true()


if __name__ == "__main__":
    parser = arguments("recovery", __doc__)
    parser.add_argument("--watch", type=float, default=30.0, help="seconds after the kill; 330 for the long one")
    parser.add_argument("--without-postgres", action="store_true", help="leave that store out")
    asyncio.run(main(parser.parse_args()))
