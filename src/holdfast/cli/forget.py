"""`holdfast forget`: what is stored about somebody made unreadable, for good."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import jobs
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import data, messages, print_json, waiting

if TYPE_CHECKING:
    from holdfast.queue.privacy import Erasure

Reference = Annotated[str, typer.Argument(metavar="REFERENCE", help="Whom or what: the reference of an order.")]


def forget_command(
    target: jobs.Target,
    reference: Reference,
    reason: jobs.Why = "",
    by: jobs.By = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: jobs.JsonOption = False,
) -> None:
    """Make all that is stored about somebody unreadable, for good, in copies of the store too.

    It says what that is, and asks you to type the reference once more. Records keep what books need: amounts, states,
    times, vendors' ids. Ends with 1 when there is nothing, or when it was not done.
    """
    if not reason and not dry_run:
        raise typer.BadParameter("say why with --reason; it is written down")

    async def forget() -> Erasure:
        async with jobs.opened(target) as (found, _):
            who = jobs.login(by)
            with waiting("looking through the store"):
                meant = await found.forget(reference, by=who, reason=reason or "dry run", dry_run=True)
            if dry_run or not _anything(meant):
                return meant
            messages().print(jobs.line(f"{reference}: {_words(meant)}"))
            if not yes and typer.prompt("Type the reference to forget it for good", err=True) != reference:
                messages().print("that is another one: nothing was forgotten")
                raise typer.Exit(ExitCode.PROBLEM)
            with waiting("forgetting"):
                return await found.forget(reference, by=who, reason=reason)

    erasure = asyncio.run(forget())
    if json:
        print_json(asdict(erasure))
    elif not _anything(erasure):
        messages().print(jobs.line(f"nothing is stored about {reference}"))
    else:
        data().print(jobs.line(f"{'would forget' if dry_run else 'forgot'} {reference}: {_words(erasure)}"))
    raise typer.Exit(ExitCode.OK if _anything(erasure) else ExitCode.PROBLEM)


def _anything(erasure: Erasure) -> bool:
    return bool(erasure.records or erasure.dropped or erasure.pending)


def _words(erasure: Erasure) -> str:
    return (
        f"{erasure.records} records without the person, {erasure.dropped} jobs dropped, "
        f"{erasure.pending} jobs that never run"
    )
