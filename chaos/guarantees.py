"""The page that says what is guaranteed, and how that was tested: fixed words, and the figures of a run."""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Final

from chaos.points import OF_PRUNER, OF_RECEIVER, OF_WORKER

TEMPLATE: Final = Path(__file__).parent / "guarantees.template.md"
PAGE: Final = Path(__file__).parents[1] / "docs" / "explanation" / "guarantees.md"
WITHOUT: Final = {
    "fence": "tokens are not compared",
    "dedup": "deliveries are not recognised when they come again",
    "handled": "effects go without `handled_in`",
    "heartbeat": "leases are not prolonged",
    "commit-order": "2xx is answered before the commit",
    "takeover": "leases of the dead do not end",
    "order": "ordering keys are forgotten",
}


def write(found: Mapping[str, Any]) -> None:
    """Write the page. Raises ValueError: the run was not a whole one, or not a good one."""
    if found["broken"] or set(found["engines"]) != {"sqlite", "redis", "postgresql"} or not found["mutations"]:
        raise ValueError("the page is written from a whole run in which nothing was broken")
    PAGE.write_text(page(found), encoding="utf-8")


def page(found: Mapping[str, Any]) -> str:
    """The page with these figures."""
    engines = {name: _table(facts) for name, facts in found["engines"].items()}
    return TEMPLATE.read_text(encoding="utf-8").format(
        **engines, places=len({*OF_RECEIVER, *OF_WORKER, *OF_PRUNER}), run=_run(found), mutations=_mutations(found)
    )


def fixed() -> list[str]:
    """The words between the figures, in order."""
    return [text for text, *_ in Formatter().parse(TEMPLATE.read_text(encoding="utf-8")) if text.strip()]


def _table(facts: Mapping[str, Any]) -> str:
    reruns = facts["reruns"]
    rows = {
        "durability in the tests": facts["level"],
        "kills": f"{facts['kills']}: " + ", ".join(f"{number} {kind}" for kind, number in facts["by_kind"].items()),
        "named places at which processes died": f"{facts['places']}",
        "deliveries sent, accepted": f"{facts['sent']:,}, {facts['acked']:,}",
        "answered 503": f"{facts['refused']:,}",
        "effects": f"{facts['effects']:,}",
        "**accepted and lost**": f"**{facts['lost']}**",
        "**effects that happened twice**": f"**{facts['doubled']}**",
        "handlers that ran again, each with a reason": f"{reruns:,}",
        "until a dead process's job ran again (lease 2 s)": f"median {facts['recovery_p50_s']} s, "
        f"at most {facts['recovery_max_s']} s; on an idle queue {facts['idle_recovery_max_s']} s",
    }
    return "\n".join(["| measured | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows.items())])


def _run(found: Mapping[str, Any]) -> str:
    sums = f"{found['kills']:,} kills, {found['acked']:,} accepted, {found['lost']} lost, {found['doubled']} doubled"
    again = f'`make chaos ARGS="--seed {found["seed"]}"`'
    return (
        f"The last run: {sums}, in {found['seconds']} seconds.\n{again} repeats its traffic, kills and places; "
        "how processes interleave is different each time."
    )


def _mutations(found: Mapping[str, Any]) -> str:
    noticed = [f"| {WITHOUT[name]} | {'yes' if good else '**no**'} |" for name, good in found["mutations"].items()]
    words = "A test that cannot fail proves nothing. So each promise is taken out once, and the oracle has to notice:"
    return "\n".join([words, "", "| what is taken out | noticed |", "|---|---|", *noticed])
