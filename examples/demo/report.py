"""What the demo shows: a live line while it runs, then a table against the targets and the verdict."""

import json
import statistics
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo.customers import Customers, Visit
from examples.demo.oracle import Verdict
from examples.demo.world import LATENCY, World

TARGETS: Final[Mapping[str, float]] = {
    "offer_p95_s": 2.0,
    "link_p95_s": 2.0,
    "confirm_p95_s": 5.0,
    "failover_s": 60.0,
    "error_rate": 0.0002,
}
WHAT: Final[Mapping[str, str]] = {
    "offer_p95_s": "offer with QR code, 95th percentile, seconds",
    "link_p95_s": "meeting link, 95th percentile, seconds",
    "confirm_p95_s": "first accepted webhook to confirmed, 95th percentile, seconds",
    "failover_s": "slowest offer that fell over to another vendor, seconds",
    "error_rate": "errors customers saw, per booking",
}


class View:
    """The live display."""

    def __init__(self, console: Console, count: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks = {
            name: self._progress.add_task(name, total=count) for name in ("booked", "offered", "paid", "confirmed")
        }
        self._live = Live(self._progress, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.__exit__(kind, error, at)

    def update(self, customers: Customers, verdict: Verdict, phase: str) -> None:
        """Show how far it is."""
        shown = {
            "booked": len(customers.visits),
            "offered": customers.shown,
            "paid": customers.paid,
            "confirmed": verdict.confirmed_once,
        }
        for name, value in shown.items():
            self._progress.update(self._tasks[name], completed=value)
        self._progress.update(self._tasks["booked"], description="booked" if phase == "storm" else phase)


def introduce(console: Console, seed: int, sabotage: str, count: int, per_second: float) -> None:
    """What is about to happen."""
    median, p99 = LATENCY
    console.print(f"[bold]{count} consultations through a storm[/], {per_second:g} a second, seed {seed}")
    console.print(
        "Swiss Bitcoin Pay before LNbits, Zoom before Jitsi (JaaS), Telegram before e-mail; simulated vendors over "
        f"real sockets, each answer lognormal with median {median * 1000:.0f} ms and 99th percentile {p99:g} s."
    )
    console.print(
        "Swiss Bitcoin Pay refuses, answers 503, loses answers; webhooks come doubled, late, forged, or never; Zoom "
        "loses answers and runs out of quota; Telegram throttles; the receiver is killed once and frozen once."
    )
    if sabotage:
        console.print(f"[red]Sabotage: {sabotage}. The oracle does not know, and must object.[/]")


def conclude(console: Console, result: Mapping[str, Any]) -> None:
    """The table, the faults, the verdict."""
    table = Table(title="Against the targets")
    for heading in ("", "measured", "target"):
        table.add_column(heading)
    for name, limit in TARGETS.items():
        measured = result["targets"][name]
        colour = "green" if measured <= limit else "red"
        table.add_row(WHAT[name], f"[{colour}]{measured:g}[/]", f"{limit:g}")
    console.print(table)
    oracle = Table(title="The oracle, over the vendors' own ledgers")
    for heading in ("", "count"):
        oracle.add_column(heading)
    for name, value in result["oracle"].items():
        oracle.add_row(name.replace("_", " "), str(value))
    oracle.add_row("confirmed by the sweep, without a webhook", str(result["confirmed_by_sweep"]))
    console.print(oracle)
    console.print("Faults: " + ", ".join(f"{name} {count}" for name, count in sorted(result["faults"].items())))
    for objection in result["objections"]:
        console.print(f"[red]✗ {objection}[/]")
    console.print("[green bold]✓ all holds[/]" if result["ok"] else "[red bold]✗ it does not hold[/]")


def measure(world: World, visits: Sequence[Visit], confirmed: Sequence[float]) -> dict[str, float]:
    """The figures of the table."""
    links = world.directory / "links.jsonl"
    link_times = [json.loads(line)["seconds"] for line in links.read_text().splitlines()] if links.exists() else []
    offered = [visit.seconds for visit in visits if visit.offers]
    failed_over = [visit.seconds for visit in visits if len(visit.route) > 1]
    errors = sum(len(visit.errors) for visit in visits) / max(1, len(visits))
    return {
        "offer_p95_s": _p95(offered),
        "link_p95_s": _p95(link_times),
        "confirm_p95_s": _p95(confirmed),
        "failover_s": round(max(failed_over, default=0.0), 3),
        "error_rate": round(errors, 5),
    }


def _p95(values: Sequence[float]) -> float:
    return round(statistics.quantiles(values, n=20)[-1], 3) if len(values) > 1 else 0.0
