"""`holdfast dlq`: dead letters."""

import asyncio
import secrets as entropy
from dataclasses import asdict, replace
from typing import Annotated

import typer

from holdfast.cli import jobs
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import data, messages, print_json, progress
from holdfast.queue.redrive import Redrive
from holdfast.stores.store import JobState

dlq = typer.Typer(
    name="dlq",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at dead letters, run them again, or give them up.",
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these of the jobs that fit.")]


@dlq.command("list")
def list_command(
    target: jobs.Target,
    queue: jobs.QueueName = None,
    kind: jobs.Kind = None,
    handler: jobs.HandlerName = None,
    dead_by: jobs.ReasonOfDeath = None,
    error: jobs.ErrorText = None,
    since: jobs.Since = None,
    until: jobs.Until = None,
    after: jobs.After = "",
    limit: jobs.Limit = 50,
    json: jobs.JsonOption = False,
) -> None:
    """List dead letters, newest first, without what they carry."""

    async def show() -> None:
        async with jobs.opened(target) as (found, operations):
            where = jobs.job_filter(queue, JobState.DEAD, kind, handler, dead_by, error, since, until)
            jobs.print_jobs(found, await operations.list(where, after=after, limit=limit), json)

    asyncio.run(show())


@dlq.command("redrive")
def redrive_command(
    target: jobs.Target,
    ids: Ids = None,
    reason: jobs.Why = "",
    by: jobs.By = "",
    queue: jobs.QueueName = None,
    kind: jobs.Kind = None,
    handler: jobs.HandlerName = None,
    dead_by: jobs.ReasonOfDeath = None,
    error: jobs.ErrorText = None,
    since: jobs.Since = None,
    until: jobs.Until = None,
    id: Annotated[
        str, typer.Option("--id", help="Names the redrive; with the same one it goes on where it was cut off.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    limit: jobs.Limit = 1000,
    rate: Annotated[float, typer.Option(min=0.001, help="Jobs in a second.")] = 100.0,
    canary: Annotated[int, typer.Option(min=0, help="So many run first, and must end well before the rest goes.")] = 0,
    canary_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds the canaries have.")] = 300.0,
    json: jobs.JsonOption = False,
) -> None:
    """Run dead letters again, oldest first. Ends with 1 when a canary did not end well.

    Each job gets one new generation, however often this is cut off and repeated with the same --id.
    """
    if not reason and not dry_run:
        raise typer.BadParameter("say why with --reason; it is written down")
    name = id or entropy.token_hex(4)
    where = jobs.job_filter(queue, JobState.DEAD, kind, handler, dead_by, error, since, until)

    async def redrive() -> Redrive:
        async with jobs.opened(target) as (_, operations):
            who = jobs.login(by)
            meant = await operations.redrive(
                where, id=name, by=who, reason=reason or "dry run", ids=ids or (), dry_run=True, limit=limit
            )
            if dry_run:
                return meant
            messages().print(f"redrive {name}: if it is cut off, go on with --id {name}")
            with progress(f"redriving {meant.fits}") as show:
                return await operations.redrive(
                    where,
                    id=name,
                    by=who,
                    reason=reason,
                    ids=ids or (),
                    limit=limit,
                    rate=rate,
                    canary=canary,
                    canary_timeout=canary_timeout,
                    show=lambda now: show(now.fits / max(1, meant.fits)),
                )

    report = asyncio.run(redrive())
    if json:
        print_json(asdict(report))
    elif report.state == "dry run":
        data().print(f"{report.fits} jobs fit")
    else:
        gone = f", {report.skipped} were gone" if report.skipped else ""
        why = f": {jobs.line(report.why)}" if report.why else ""
        data().print(f"{report.state}, {report.replayed} replayed{gone}{why}")
    raise typer.Exit(ExitCode.PROBLEM if report.state == "stopped" else ExitCode.OK)


@dlq.command("drop")
def drop_command(
    target: jobs.Target,
    reason: jobs.Why,
    by: jobs.By = "",
    queue: jobs.QueueName = None,
    kind: jobs.Kind = None,
    handler: jobs.HandlerName = None,
    dead_by: jobs.ReasonOfDeath = None,
    error: jobs.ErrorText = None,
    since: jobs.Since = None,
    until: jobs.Until = None,
    limit: jobs.Limit = 1000,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: jobs.JsonOption = False,
) -> None:
    """Give dead letters up, oldest first: they are gone for good. Their ids and keys are written down."""
    where = jobs.job_filter(queue, JobState.DEAD, kind, handler, dead_by, error, since, until)

    async def drop() -> int:
        async with jobs.opened(target) as (_, operations):
            who = jobs.login(by)
            meant = await operations.redrive(where, id="drop", by=who, reason=reason, dry_run=True, limit=limit)
            if not yes and not typer.confirm(f"Drop {meant.fits} dead letters for good?", err=True):
                raise typer.Exit(ExitCode.PROBLEM)
            return await operations.drop(where, by=who, reason=reason, limit=limit)

    dropped = asyncio.run(drop())
    if json:
        print_json({"dropped": dropped})
    else:
        data().print(f"dropped {dropped}")


@dlq.command("audit")
def audit_command(
    target: jobs.Target,
    after: Annotated[str, typer.Option("--after", metavar="KEY", help="Begin behind this entry.")] = "",
    limit: jobs.Limit = 50,
    json: jobs.JsonOption = False,
) -> None:
    """List who did what to jobs, and why, newest first."""

    async def show() -> None:
        async with jobs.opened(target) as (_, operations):
            for entry in await operations.audit(after=after, limit=limit):
                if json:
                    print_json(asdict(replace(entry, facts=dict(entry.facts))) | {"at": entry.at.isoformat()})
                else:
                    said = f"{entry.at:%Y-%m-%d %H:%M:%SZ} {entry.what} by {entry.by}: {entry.reason}"
                    data().print(jobs.line(f"{said} {jobs.line(dict(entry.facts))}"))

    asyncio.run(show())
