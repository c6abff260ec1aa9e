"""Break everything that can break, and ask an oracle outside of it: `python -m chaos --seed 7 --engine sqlite`."""

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import time
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from chaos import guarantees, report, tiers
from chaos.tiers import ENGINES, Model, Outcome, Scenario

CHANCES: Final = 4
"""Runs in which a promise that was taken out must be noticed once: in one of a few seconds nobody may need it."""


def main() -> int:
    """What the process ends with: 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the traffic, the kills and the places of an earlier run")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    parser.add_argument("--only", default="", metavar="NAME", help="only scenarios of this name: 'kill loop', storm, …")
    parser.add_argument("--nightly", action="store_true", help="ten times the kills, and everything on every engine")
    parser.add_argument("--mutations", action="store_true", help="only prove that the oracle notices what is missing")
    parser.add_argument("--without-mutations", action="store_true", help="leave that proof out")
    parser.add_argument("--write-docs", action="store_true", help="write docs/explanation/guarantees.md from this run")
    parser.add_argument("--keep", action="store_true", help="keep the directories of scenarios that went well, too")
    options = parser.parse_args()
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    begun = time.monotonic()
    outcomes, model = asyncio.run(_run(options, seed))
    found = report.summary(outcomes, model, seed, time.monotonic() - begun)
    _tell(outcomes, model, seed)
    if options.write_docs and report.is_good(outcomes, model):
        guarantees.write(found)
    for outcome in outcomes:
        if outcome.is_good and not options.keep:
            _forget(outcome)
    print(json.dumps(found))
    return 0 if report.is_good(outcomes, model) else 1


async def _run(options: argparse.Namespace, seed: int) -> tuple[list[Outcome], Model | None]:
    batches = [] if options.mutations else tiers.nightly() if options.nightly else tiers.short()
    if options.mutations or not options.without_mutations:
        batches += tiers.without()
    engines = [options.engine] if options.engine else ENGINES
    outcomes: list[Outcome] = []
    model: Model | None = None
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for batch in batches:
            chosen = [each for each in batch if each.engine in engines and options.only in ("", each.name)]
            outcomes += await asyncio.gather(*(_one(each, seed, progress) for each in chosen))
        if not options.mutations and options.only in ("", "model"):
            task = progress.add_task("model", total=1, now="")
            model = await tiers.model(seed, engines)
            progress.update(task, completed=1, now="FAILED" if model.failed else "good")
    return outcomes, model


async def _one(scenario: Scenario, seed: int, progress: Progress) -> Outcome:
    task = progress.add_task(f"{scenario.engine}: {scenario.name}", total=1, now="")

    def tell(now: str) -> None:
        progress.update(task, now=now)

    outcome = await tiers.perform(scenario, seed, tell)
    for number in range(1, CHANCES if scenario.mutation else 1):
        if not outcome.is_good:
            _forget(outcome)
            outcome = await tiers.perform(scenario, seed + number, tell)
    progress.update(task, completed=1, now=report.in_words(outcome))
    return outcome


def _forget(outcome: Outcome) -> None:
    if outcome.found is not None:
        shutil.rmtree(outcome.found.directory, ignore_errors=True)


def _tell(outcomes: list[Outcome], model: Model | None, seed: int) -> None:
    console = Console(stderr=True)
    table = Table("scenario", "engine", "seconds", "what came of it")
    for outcome in outcomes:
        table.add_row(
            outcome.scenario.name, outcome.scenario.engine, f"{outcome.seconds:.0f}", report.in_words(outcome)
        )
    console.print(table)
    for outcome in outcomes:
        if outcome.is_good:
            continue
        where = outcome.found.directory if outcome.found is not None else "no directory"
        print(f"{outcome.scenario.engine}, {outcome.scenario.name}: broken; see {where}", file=sys.stderr)
        for violation in outcome.violations:
            print(f"  {violation.invariant}: {violation.what}", file=sys.stderr)
        again = f'--seed {seed} --engine {outcome.scenario.engine} --only "{outcome.scenario.name}"'
        print(f"  again: python -m chaos {again}", file=sys.stderr)
    if model is not None and model.failed:
        print(model.failed, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
