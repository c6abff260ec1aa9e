"""What the commands about jobs share: their filters, how they open the store, and how jobs are printed."""

from __future__ import annotations

import getpass
import json as json_text
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast.cli.hubs import hub, log_to_stderr
from holdfast.cli.output import data, print_json
from holdfast.stores.store import Job, JobFilter, JobState, Json

if TYPE_CHECKING:
    from holdfast.hub import Holdfast
    from holdfast.queue.operations import Queue

_ONE_LINE: Final = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
"""A vendor's words move no cursor of ours."""


def moment(text: str) -> datetime:
    """A time as ISO 8601, in UTC where it names no zone. Raises typer.BadParameter."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-02-28 or 2026-02-28T14:30+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print lines of JSON.")]
QueueName = Annotated[str | None, typer.Option("--queue", help="deliveries, events, ...")]
Kind = Annotated[str | None, typer.Option("--kind", help="A provider's name, or an event's type.")]
HandlerName = Annotated[str | None, typer.Option("--handler", help="The handler's name.")]
ReasonOfDeath = Annotated[str | None, typer.Option("--dead-by", help="attempts, permanent, poison, ...")]
ErrorText = Annotated[str | None, typer.Option("--error", help="Text the last error contains.")]
Since = Annotated[datetime | None, typer.Option("--since", parser=moment, metavar="TIME", help="Added then or later.")]
Until = Annotated[datetime | None, typer.Option("--until", parser=moment, metavar="TIME", help="Added before.")]
State = Annotated[JobState | None, typer.Option("--state", help="In which state.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="No more than so many.")]
After = Annotated[str, typer.Option("--after", metavar="ID", help="Begin behind this job.")]
By = Annotated[
    str, typer.Option("--by", envvar="HOLDFAST_BY", help="Who does this.", show_default="your login", show_envvar=True)
]
Why = Annotated[str, typer.Option("--reason", help="Why; it is written down.")]


def login(by: str) -> str:
    """Who does this: as they say, or the name they are logged in with."""
    return by or getpass.getuser()


@asynccontextmanager
async def opened(target: str) -> AsyncGenerator[tuple[Holdfast, Queue]]:
    """The hub and its queue, with the store open and no handler running."""
    log_to_stderr()
    found = hub(target)
    async with found:
        yield found, found.queue


def summary(found: Holdfast, job: Job) -> dict[str, Json]:
    """The job in a list: without its headers and its body."""
    return {name: value for name, value in found.view(job).items() if name not in ("headers", "body")}


def print_jobs(found: Holdfast, jobs: Sequence[Job], as_json: bool) -> None:
    """Jobs, one on each line."""
    if as_json:
        for job in jobs:
            print_json(summary(found, job))
        return
    columns = ("id", "queue", "kind", "handler", "state", "reason", "attempts", "generation", "created_at", "error")
    shown = [summary(found, job) | {"created_at": f"{job.created_at:%Y-%m-%d %H:%M:%SZ}"} for job in jobs]
    print_rows([columns, *([line(job[column]) for column in columns] for job in shown)])


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns that are never cut: somebody copies an id out of them, and what is given as a reason may be long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        data().print(line("  ".join(cells).rstrip()))


def line(value: Json) -> str:
    """The value on one line, whatever it holds; half a character, which no terminal takes, is escaped."""
    text = value if isinstance(value, str) else json_text.dumps(value, ensure_ascii=False)
    return text.translate(_ONE_LINE).encode(errors="backslashreplace").decode()


def job_filter(
    queue: str | None,
    state: JobState | None,
    kind: str | None,
    handler: str | None,
    dead_by: str | None,
    error: str | None,
    since: datetime | None,
    until: datetime | None,
) -> JobFilter:
    """What the options ask for."""
    return JobFilter(
        queue=queue, state=state, kind=kind, handler=handler, reason=dead_by, error=error, since=since, until=until
    )
