"""How the benchmarks measure and report: candidates in turn, in one process, beside a bare call."""

import argparse
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from math import ceil
from typing import Final

BARE: Final = "bare"
"""The control: the same call with nothing around it."""
QUIET: Final = 1.3
"""A machine on which the bare call's 90th percentile is so many times its median says nothing of small costs."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Microseconds per call: one sample of each candidate in each round."""

    samples: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def above_bare(self, name: str) -> float:
        """What the candidate adds to the call."""
        return self.median(name) - self.median(BARE)

    def spread(self, name: str) -> float:
        """The 90th percentile over the median: 1 where nothing disturbed."""
        ordered = sorted(self.samples[name])
        return ordered[ceil(0.9 * len(ordered)) - 1] / self.median(name)


async def measure(
    candidates: Mapping[str, Callable[[], Awaitable[object]]],
    *,
    rounds: int = 15,
    calls: int = 2000,
    warm_up: int = 500,
) -> Timings:
    """Time coroutine functions, every one in every round; one of them is called `BARE`."""

    async def sample(function: Callable[[], Awaitable[object]], times: int) -> float:
        begun = time.perf_counter_ns()
        for _ in repeat(None, times):
            await function()
        return (time.perf_counter_ns() - begun) / 1000 / times

    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        await sample(function, warm_up)
    with _no_collector():
        for number in range(rounds):
            for name in _turns(candidates, number):
                samples[name].append(await sample(candidates[name], calls))
    return Timings(samples)


def measure_sync(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 15, calls: int = 2000, warm_up: int = 500
) -> Timings:
    """Time plain functions, every one in every round; one of them is called `BARE`."""

    def sample(function: Callable[[], object], times: int) -> float:
        begun = time.perf_counter_ns()
        for _ in repeat(None, times):
            function()
        return (time.perf_counter_ns() - begun) / 1000 / times

    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        sample(function, warm_up)
    with _no_collector():
        for number in range(rounds):
            for name in _turns(candidates, number):
                samples[name].append(sample(candidates[name], calls))
    return Timings(samples)


def _turns(candidates: Mapping[str, object], number: int) -> list[str]:
    """Another one begins each round, so that none always follows the same one."""
    names = list(candidates)
    first = number % len(names)
    return names[first:] + names[:first]


@contextmanager
def _no_collector() -> Generator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a benchmark found."""

    name: str
    figures: Mapping[str, float]
    versions: Mapping[str, str]
    remarks: Mapping[str, str]
    """A few words beside a figure, for people."""
    lines: Sequence[str] = ()
    """More for people, below the figures."""
    timings: Timings | None = None
    """Where figures are times: refused when the machine was not quiet."""


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of these packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes; a benchmark may add its own."""
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="only the JSON object that is otherwise the last line")
    parser.add_argument("--force", action="store_true", help="report even what a busy machine measured, and mark it")
    return parser


def publish(report: Report, options: argparse.Namespace) -> None:
    """Print a table, and one JSON object on the last line; leave with 1 when the machine was not quiet."""
    spread = report.timings.spread(BARE) if report.timings is not None else 1.0
    noisy = spread >= QUIET
    if noisy:
        why = f"the bare call's 90th percentile was {spread:.2f} times its median, and below {QUIET} says something"
        print(f"{report.name}: noisy, {why}", file=sys.stderr)
        if not options.force:
            print(
                f"{report.name}: nothing is reported; try again, or see it all the same with --force", file=sys.stderr
            )
            sys.exit(1)
    if not options.json:
        _print_table(report, noisy=noisy)
    found = {
        "name": report.name,
        "figures": dict(report.figures),
        "versions": dict(report.versions),
        "command": f"make bench NAME={report.name} ARGS=--json",
    }
    print(json.dumps(found | {"noisy": True} if noisy else found))


def _print_table(report: Report, *, noisy: bool) -> None:
    print(f"{report.name}{' (NOISY: these figures say little)' if noisy else ''}")
    width = max(map(len, report.figures), default=0)
    for name, figure in report.figures.items():
        print(f"  {name:{width}} {figure:>10g}   {report.remarks.get(name, '')}".rstrip())
    for line in report.lines:
        print(line)
    print("  " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))
