"""Write the figures on the pages from what was measured: python scripts/bench_table.py.

`make results` keeps the runs of each benchmark as a list in benchmarks/results/{name}.json; each run is the JSON object
the benchmark prints. A page shows them between `<!-- figures of guard … -->` and `<!-- end of figures -->`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
RESULTS: Final = ROOT / "benchmarks" / "results"

BLOCK: Final = re.compile(
    r"(?P<begin><!-- figures of (?P<name>\w+)[^>]*-->\n).*?(?P<end><!-- end of figures -->)", re.DOTALL
)
SEVEN: Final = 7
ELEVEN: Final = 11
"""Scenarios the conformance benchmark plays beyond its seven, whose figures end in `MORE`."""
MODES: Final[Mapping[str, str]] = {
    "keys": "The vendor honours idempotency keys",
    "no_keys": "The vendor has no idempotency keys",
}
CANDIDATES: Final[Mapping[str, str]] = {
    "holdfast": "holdfast, killed twice",
    "dbos": "DBOS, killed twice",
    "httpx_tenacity": "httpx and tenacity",
    "httpx_tenacity_key": "httpx and tenacity, with a key of the shop's own",
    "redress": "redress",
    "paybridge": "paybridge",
    "paybridge_fallback": "paybridge, with a second gateway",
    "getpaid": "python-getpaid",
    "apprise": "Apprise, messages",
    "apprise_retry": "Apprise with `retry=3`, messages",
}
"""Those of the shoot-out, in words."""
MORE: Final = "_extended"
WIDTH: Final = 120

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """How one figure is told."""

    words: str
    unit: str = "{}"
    scale: float = 1.0


TIMES: Final = "{} times ours"
RESTORED: Final[Mapping[str, Figure]] = {
    "recovery_s": Figure("from the loss to the first job in a worker's hands: restore, open, claim", "{} s"),
    "restore_s": Figure("of that, the restore", "{} s"),
    "backup_s": Figure("making the backup, while somebody writes", "{} s"),
    "backup_mb": Figure("the file", "{} MB"),
    "write_p99_ms": Figure("a write in the quiet store, 99th percentile", "{} ms"),
    "write_in_backup_p99_ms": Figure("a write while the backup is made, 99th percentile", "{} ms"),
    "verify_s": Figure("verifying the backup", "{} s"),
    "examine_s": Figure("examining the restored store", "{} s"),
    "accepted_since": Figure("deliveries accepted after the backup, and so lost with the store"),
    "found_again": Figure("of these, found again by reconciliation"),
    "doubled": Figure("deliveries that entered twice by that"),
    "found_again_s": Figure("until they were in the queue", "{} s"),
}
FIGURES: Final[Mapping[str, Mapping[str, Figure]]] = {
    "storage": {
        "sqlite_job": Figure("SQLite: a waiting job of 1,500 bytes, in the file", "{} bytes"),
        "sqlite_key": Figure("SQLite: the key of a purged one", "{} bytes"),
        "postgres_job": Figure("PostgreSQL: a waiting job, in tables and indexes", "{} bytes"),
        "postgres_key": Figure("PostgreSQL: the key of a purged one", "{} bytes"),
        "redis_job": Figure("Redis: a waiting job, in memory", "{} bytes"),
        "redis_key": Figure("Redis: the key of a purged one", "{} bytes"),
    },
    "restore_sqlite": RESTORED,
    "restore_postgres": RESTORED,
    "restore_redis": RESTORED,
    "guard": {
        "ours_us": Figure("holdfast: every layer, two circuits", "{} µs"),
        "ours_read_us": Figure("holdfast: the same around a read, one circuit", "{} µs"),
        "timeout_us": Figure("an empty `async with asyncio.timeout(5)`", "{} µs"),
        "ratio_card": Figure("tenacity, pybreaker, aiolimiter, `CapacityLimiter`, `asyncio.timeout`", TIMES),
        "ratio_parts": Figure("hyx retry and breaker, aiolimiter, `Semaphore`, `asyncio.timeout`", TIMES),
        "ratio_redress": Figure("redress, beside ours with the same layers: deadline, retry, breaker", TIMES),
        "ratio_httpware": Figure(
            "httpware, beside ours with the same layers: breaker, deadline, places, retry, budget", TIMES
        ),
        "ours_sync_us": Figure("holdfast from code without an event loop, `guard.sync`", "{} µs"),
    },
    "stampede": {
        "calls_one_process": Figure("of 1,000 callers in one process, so many reach a provider that is still down"),
        "calls_fleet": Figure("of 1,000 callers in eight processes that share a Redis"),
    },
    "outage": {
        "rejected_us": Figure("one call that an open circuit rejects", "{} µs"),
        "loop_stall_ms": Figure(
            "longer the event loop stands still at worst, 50 calls at once, state shared through a store 1 ms away",
            "{} ms",
        ),
        "sent_over_offered_outage": Figure(
            "of the calls of ten minutes of outage, 50 a second, the provider sees", "{} %", 100
        ),
        "sent_over_offered_40pct": Figure(
            "requests sent per call while two in five fail and the circuit is kept closed", "{}"
        ),
    },
    "cancel": {
        "cancelled": Figure("calls cancelled, at any point"),
        "leaked": Figure("permits, slots, places in a line and timers left behind"),
        "swallowed": Figure("cancellations that became something else"),
    },
}
"""Figures a benchmark has and this does not name are left out; a benchmark that is not named here shows all it has."""


def main() -> None:
    """Rewrite every page whose figures are not those measured last."""
    for page in sorted(DOCS.rglob("*.md")):
        written = page.read_text(encoding="utf-8")
        current = filled(written, RESULTS)
        if current != written:
            page.write_text(current, encoding="utf-8")
            print(page.relative_to(ROOT))


def filled(text: str, results: Path) -> str:
    """The page with the figures of `results` in its blocks."""
    return BLOCK.sub(lambda block: block["begin"] + table(block["name"], results) + block["end"], text)


def table(name: str, results: Path) -> str:
    """What was measured, as a table and where it comes from."""
    file = results / f"{name}.json"
    if not file.exists():
        return f"\nNot measured yet: `make results NAME={name}`.\n\n"
    runs: list[Run] = json.loads(file.read_text(encoding="utf-8"))
    match name:
        case "conformance":
            rows = _conformance(runs)
        case "shootout":
            rows = _shootout(runs)
        case _:
            rows = _figures(runs, FIGURES.get(name, {}))
    return "\n".join(["", *rows, "", _source(name, runs), "", ""])


def _figures(runs: Sequence[Run], named: Mapping[str, Figure]) -> list[str]:
    told = named or {key: Figure(f"`{key}`") for key in runs[0]["figures"]}
    rows = ["| what | measured |", "|---|---|"]
    for key, figure in told.items():
        values = [run["figures"][key] * figure.scale for run in runs if key in run["figures"]]
        if values:
            rows.append(f"| {figure.words} | {figure.unit.format(_said(values))} |")
    return rows


def _conformance(runs: Sequence[Run]) -> list[str]:
    """One line for each breaker, the best first."""
    figures, packages = runs[0]["figures"], runs[0]["versions"]
    worst = {key: min(run["figures"][key] for run in runs) for key in figures}
    breakers = [key for key in figures if f"{key}{MORE}" in figures]
    breakers.sort(key=lambda key: (worst[key], worst[f"{key}{MORE}"]), reverse=True)
    rows = [f"| breaker | of the {SEVEN} | of {ELEVEN} more |", "|---|---|---|"]
    for key in breakers:
        package = next((each for each in packages if key.startswith(each)), key)
        variant = key.removeprefix(package).replace("_", " ").strip()
        words = f"{package}, {variant}" if variant else package
        rows.append(f"| {words} | {worst[key]:g} | {worst[f'{key}{MORE}']:g} |")
    return rows


def _shootout(runs: Sequence[Run]) -> list[str]:
    """A table for each kind of vendor."""
    rows: list[str] = []
    for mode, heading in MODES.items():
        rows += [f"| {heading} | effects per order | lost | doubled |", "|---|---|---|---|"]
        for name, words in CANDIDATES.items():
            figures = [
                [run["figures"][f"{name}_{mode}_{key}"] for run in runs if f"{name}_{mode}_{key}" in run["figures"]]
                for key in ("effects_per_intent", "lost", "doubled")
            ]
            if all(figures):
                rows.append(f"| {words} | {' | '.join(map(_said, figures))} |")
        rows.append("")
    return rows[:-1]


def _said(values: Sequence[float]) -> str:
    """The median, and how far the runs lay apart if they did."""
    lowest, middle, highest = (_number(value) for value in (min(values), median(values), max(values)))
    return middle if lowest == highest else f"{middle} ({lowest} to {highest})"


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _source(name: str, runs: Sequence[Run]) -> str:
    packages = ", ".join(f"{package} {version}" for package, version in runs[0]["versions"].items())
    count = f"Median of {len(runs)} runs, in brackets the lowest and the highest" if len(runs) > 1 else "One run"
    noisy = sum(bool(run.get("noisy")) for run in runs)
    doubt = f" The machine was busy in {noisy} of them, so this says little." if noisy else ""
    return fill(f"`make bench NAME={name}`. {count}; {packages}.{doubt}", WIDTH, break_on_hyphens=False)


if __name__ == "__main__":
    main()
