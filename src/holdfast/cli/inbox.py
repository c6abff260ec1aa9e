"""`holdfast inbox`: jobs in any state."""

import asyncio
import base64
from typing import Annotated

import typer

from holdfast.cli import jobs
from holdfast.cli.output import data, messages, print_json
from holdfast.stores.store import JobState

inbox = typer.Typer(
    name="inbox", no_args_is_help=True, rich_markup_mode=None, help="Look at deliveries and events, and replay them."
)

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Jobs, as `list` shows them.")]


@inbox.command("list")
def list_command(
    target: jobs.Target,
    queue: jobs.QueueName = None,
    state: jobs.State = None,
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
    """List jobs, newest first, without what they carry."""

    async def show() -> None:
        async with jobs.opened(target) as (found, operations):
            where = jobs.job_filter(queue, state, kind, handler, dead_by, error, since, until)
            jobs.print_jobs(found, await operations.list(where, after=after, limit=limit), json)

    asyncio.run(show())


@inbox.command("show")
def show_command(
    target: jobs.Target,
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Print its body as it is; that you did is written down.")] = False,
    by: jobs.By = "",
    reason: jobs.Why = "",
    json: jobs.JsonOption = False,
) -> None:
    """Show one job, without what is private or secret in it."""
    if raw and not reason:
        raise typer.BadParameter("--raw needs a --reason: it is written down who saw what, and why")

    async def show() -> None:
        async with jobs.opened(target) as (found, operations):
            if raw:
                job = await operations.reveal(job_id, by=jobs.login(by), reason=reason)
                if json:
                    print_json(found.view(job) | {"raw": base64.b64encode(job.body).decode()})
                else:
                    typer.echo(job.body, nl=False)
                return
            shown = found.view(await operations.get(job_id))
            if json:
                print_json(shown)
            else:
                for name, value in shown.items():
                    data().print(f"{name}: {jobs.line(value)}")

    asyncio.run(show())


@inbox.command("replay")
def replay_command(
    target: jobs.Target,
    ids: Ids,
    reason: jobs.Why,
    by: jobs.By = "",
    json: jobs.JsonOption = False,
) -> None:
    """Run ended jobs again: each gets a new generation, and a worker takes it."""

    async def replay() -> None:
        async with jobs.opened(target) as (found, operations):
            for job_id in ids:
                before = await operations.get(job_id)
                job = await operations.replay(job_id, by=jobs.login(by), reason=reason, generation=before.generation)
                if json:
                    print_json(jobs.summary(found, job))
                elif job.generation > before.generation:
                    messages().print(f"job {job.id} is {JobState.READY} again, generation {job.generation}")
                else:
                    messages().print(f"job {job.id} is {job.state} already, generation {job.generation}")

    asyncio.run(replay())
