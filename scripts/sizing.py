"""Write the tables of docs/how-to/scale-out.md from what was measured: python scripts/sizing.py.

Each input is a figure of a benchmark, from benchmarks/results; until that is measured an assumption stands in, and the
page says so. Everything else is arithmetic, here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "how-to" / "scale-out.md"
RESULTS: Final = ROOT / "benchmarks" / "results"
BLOCK: Final = re.compile(
    r"(<!-- (inputs|sizes), written by scripts/sizing\.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL
)

RATES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
"""Events a second."""
JOBS: Final = 2
"""For an event: its delivery, and one handler."""
BYTES: Final = 1500
"""Of a body."""
SPARE: Final = 0.5
"""So much of what was measured is used: the rest is for peaks, restarts, and machines that are slower."""
HANDLER: Final = 0.1
"""Seconds a handler takes, nearly all of it waiting for others."""
PLACES: Final = 64
"""Jobs at once in a worker process."""
STANDSTILL: Final = 600
"""Seconds of work that may pile up."""
DAY: Final = 86_400


Run = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Input:
    """A figure of a benchmark."""

    words: str
    result: str
    keys: Sequence[str]
    """Under which it may be found."""
    assumed: float


INPUTS: Final[Mapping[str, Input]] = {
    "receiver": Input("requests a second, one receiver process, SQLite behind it", "http_ingest", ["per_s"], 10_000),
    "sqlite_add": Input("jobs added a second, SQLite", "ingest_sqlite", ["rows_per_s"], 30_000),
    "sqlite_work": Input("jobs worked through a second, one process, SQLite", "drain_sqlite", ["ours_per_s"], 10_000),
    "postgres_add": Input("jobs added a second, PostgreSQL", "ingest_postgres", ["rows_per_s", "ours_per_s"], 5_000),
    "postgres_work": Input(
        "jobs worked through a second, one process, PostgreSQL", "drain_postgres", ["ours_per_s"], 2_000
    ),
    "redis_add": Input("jobs added a second, one Redis", "ingest_redis", ["rows_per_s", "ours_per_s"], 20_000),
    "redis_work": Input("jobs worked through a second, one process, one Redis", "drain_redis", ["ours_per_s"], 10_000),
    "sqlite_job": Input("bytes of a waiting job, SQLite", "storage", ["sqlite_job"], 2_400),
    "sqlite_key": Input("bytes of the key of a purged job, SQLite", "storage", ["sqlite_key"], 80),
    "postgres_job": Input("bytes of a waiting job, PostgreSQL", "storage", ["postgres_job"], 2_400),
    "postgres_key": Input("bytes of the key of a purged job, PostgreSQL", "storage", ["postgres_key"], 150),
    "redis_job": Input("bytes of a waiting job, Redis", "storage", ["redis_job"], 2_400),
    "redis_key": Input("bytes of the key of a purged job, Redis", "storage", ["redis_key"], 120),
}


@dataclass(frozen=True, slots=True)
class Found:
    """An input's value, and whether it was measured."""

    value: float
    measured: bool


def main() -> None:
    """Rewrite the page when its tables are not what was measured last."""
    written = PAGE.read_text(encoding="utf-8")
    current = filled(written, inputs(RESULTS))
    if current != written:
        PAGE.write_text(current, encoding="utf-8")
        print(PAGE.relative_to(ROOT))


def inputs(results: Path) -> dict[str, Found]:
    """Every input: the median of the runs, else what is assumed."""
    return {name: _found(each, results) for name, each in INPUTS.items()}


def filled(text: str, given: Mapping[str, Found]) -> str:
    """The page with its tables."""
    tables = {"inputs": _inputs(given), "sizes": _sizes(given)}
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables[block[2]]}\n\n{block[3]}", text)


def capacity(engine: str, given: Mapping[str, Found]) -> float:
    """Events a second that one server of an engine, and the one process that was measured with it, get through."""
    return SPARE / (JOBS / given[f"{engine}_add"].value + JOBS / given[f"{engine}_work"].value)


def workers(rate: float, engine: str, given: Mapping[str, Found]) -> int:
    """Processes: enough for the work itself, and enough places for handlers that wait."""
    by_work = JOBS * rate / (SPARE * given[f"{engine}_work"].value)
    by_places = rate * HANDLER / PLACES
    return ceil(max(by_work, by_places))


def _found(each: Input, results: Path) -> Found:
    file = results / f"{each.result}.json"
    runs: list[Run] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for key in each.keys:
        if values := [run["figures"][key] for run in runs if run["figures"].get(key)]:
            return Found(median(values), measured=True)
    return Found(each.assumed, measured=False)


def _inputs(given: Mapping[str, Found]) -> str:
    rows = ["| what | figure | from |", "|---|---|---|"]
    for name, each in INPUTS.items():
        source = f"measured, `{each.result}`" if given[name].measured else "assumed, not measured yet"
        rows.append(f"| {each.words} | {given[name].value:,.0f} | {source} |")
    return "\n".join(rows)


def _sizes(given: Mapping[str, Found]) -> str:
    rows = [
        "| | " + " | ".join(f"{rate:,}/s" for rate in RATES) + " |",
        "|---|" + "---|" * len(RATES),
        _row("receiver processes", [f"{ceil(rate / (SPARE * given['receiver'].value)):,}" for rate in RATES]),
        _row("worker processes on Redis", [f"{workers(rate, 'redis', given):,}" for rate in RATES]),
        _row("SQLite", [_fits(rate, "sqlite", given) for rate in RATES]),
        _row("PostgreSQL", [_fits(rate, "postgres", given) for rate in RATES]),
        _row("Redis primaries", [f"{ceil(rate / capacity('redis', given)):,}" for rate in RATES]),
        _row("from vendors", [_bits(rate * BYTES) for rate in RATES]),
        _row("to and from the store", [_bits(rate * BYTES * 2 * JOBS) for rate in RATES]),
        _row(
            f"{STANDSTILL // 60} minutes of standstill, in Redis",
            [_bytes(rate * STANDSTILL * JOBS * given["redis_job"].value) for rate in RATES],
        ),
        _row("payloads of a day", [_bytes(rate * DAY * JOBS * given["redis_job"].value) for rate in RATES]),
        _row("keys of a day, Redis", [_bytes(rate * DAY * JOBS * given["redis_key"].value) for rate in RATES]),
        _row("keys of a day, PostgreSQL", [_bytes(rate * DAY * JOBS * given["postgres_key"].value) for rate in RATES]),
    ]
    return "\n".join(rows)


def _row(what: str, cells: Sequence[str]) -> str:
    return f"| {what} | " + " | ".join(cells) + " |"


def _fits(rate: float, engine: str, given: Mapping[str, Found]) -> str:
    return "one" if rate <= capacity(engine, given) else "no"


def _bits(bytes_per_second: float) -> str:
    return _scaled(8 * bytes_per_second, "bit/s")


def _bytes(count: float) -> str:
    return _scaled(count, "B")


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


if __name__ == "__main__":
    main()
