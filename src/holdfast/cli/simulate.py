"""`holdfast simulate`: what a policy would do in an outage."""

import re
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.output import can_encode, data, messages, print_json, progress
from holdfast.cli.values import duration, from_module
from holdfast.resilience.chart import BEYOND_ASCII, LABEL
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy, Retry
from holdfast.resilience.simulate import ERRORS, SILENT, UNREACHABLE, Failure, Simulation, simulate

_FAILURES: Final = {"errors": ERRORS, "unreachable": UNREACHABLE, "silent": SILENT}
_WIDEST: Final = 120


def _failure(text: str) -> Failure:
    if text in _FAILURES:
        return _FAILURES[text]
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share is None or float(share[1]) > 100:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(_FAILURES)}, and no share of calls such as 40%")
    return Failure(share=float(share[1]) / 100)


def _policy(text: str) -> Policy:
    found = from_module(text)
    if isinstance(found, Guard):
        return found.policy
    if not isinstance(found, Policy):
        raise typer.BadParameter(f"{text} is a {type(found).__name__}, and neither a Policy nor a Guard")
    return found


def simulate_command(
    outage: Annotated[timedelta, typer.Option(parser=duration, metavar="DURATION", help="How long it is down: 10m.")],
    rps: Annotated[float, typer.Option(metavar="NUMBER", help="Calls your program makes in a second.")],
    attempts: Annotated[int | None, typer.Option(help="Submissions of a call in all; 1 repeats nothing.")] = None,
    timeout: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="DURATION", help="For each attempt: 30s, 500ms.")
    ] = None,
    failure: Annotated[
        Failure | None,
        typer.Option(
            parser=_failure,
            metavar="KIND",
            help="errors (the default), unreachable, silent, or the share of calls that fail: 40%.",
        ),
    ] = None,
    policy: Annotated[
        Policy | None,
        typer.Option(parser=_policy, metavar="MODULE:NAME", help="A Policy or a Guard of yours, not the default one."),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(dir_okay=False, writable=True, metavar="FILE", help="Draw it to this file, too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures and every second as JSON.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
) -> None:
    """Show what a policy does while a provider is down, and how it recovers.

    Runs the real guard on time that never waits.
    """
    if svg is not None and not svg.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {str(svg.parent)!r}", param_hint="'--svg'")
    tried = _changed(policy or Policy(), attempts, timeout)
    with progress("simulating") as show:
        simulation = simulate(tried, rps=rps, outage=outage, failure=failure or ERRORS, seed=seed, progress=show)
    if svg is not None:
        _draw(simulation, svg)
    if json:
        print_json(_facts(simulation))
    else:
        _print_chart(simulation)


def _draw(simulation: Simulation, file: Path) -> None:
    try:
        file.write_text(simulation.svg(), encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{str(file)!r} cannot be written: {error.strerror}", param_hint="'--svg'") from error
    messages().print(f"drawn to {file}")


def _print_chart(simulation: Simulation) -> None:
    console = data()
    chart = simulation.chart(
        max(20, min(console.width, _WIDEST) - LABEL),
        plain=not can_encode(console, BEYOND_ASCII),
        colour=console.color_system is not None and not console.no_color,
    )
    typer.echo(f"{simulation.title}\n\n{chart}", color=True)


def _facts(simulation: Simulation) -> dict[str, object]:
    return {
        "rps": simulation.rps,
        "outage": {"start": simulation.outage.start, "seconds": len(simulation.outage)},
        "offered": simulation.offered,
        "sent": simulation.sent,
        "sent_over_offered": simulation.sent_over_offered,
        "amplification": simulation.amplification,
        "recovery": simulation.recovery,
        "longest_open": simulation.longest_open,
        "probes_at_once": simulation.probes_at_once,
        "changes": [
            {
                "at": change.at,
                "operation": change.signal.operation,
                "before": change.signal.before,
                "after": change.signal.after,
                "reason": change.signal.reason,
                "open_for": change.signal.open_for,
            }
            for change in simulation.changes
        ],
        "seconds": [asdict(second) for second in simulation.seconds],
    }


def _changed(policy: Policy, attempts: int | None, timeout: timedelta | None) -> Policy:
    if attempts is not None:
        policy = replace(policy, retry=replace(policy.retry or Retry(), attempts=attempts))
    return policy if timeout is None else replace(policy, timeout=timeout)
