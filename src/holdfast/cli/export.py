"""`holdfast export`: what is stored about somebody, for them."""

import asyncio
import json as json_text
import os
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import jobs
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.forget import Reference
from holdfast.cli.output import messages, print_json, waiting
from holdfast.stores.store import Json


def export_command(
    target: jobs.Target,
    reference: Reference,
    reason: jobs.Why,
    by: jobs.By = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", dir_okay=False, metavar="FILE", help="Write it to this file, which only you may read."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on one line.")] = False,
) -> None:
    """Print all that is stored about somebody, as JSON without secrets of your program; that you did is written down.

    It holds what is private: it is for the person it is about. Ends with 1 when there is nothing.
    """
    if out is not None and out.exists():
        raise typer.BadParameter(f"{str(out)!r} is there already", param_hint="'--out'")

    async def export() -> dict[str, Json]:
        async with jobs.opened(target) as (found, _):
            with waiting("looking through the store"):
                return await found.export(reference, by=jobs.login(by), reason=reason)

    exported = asyncio.run(export())
    if out is not None:
        _write(out, exported)
        messages().print(f"written to {out}")
    elif json:
        print_json(exported)
    else:
        typer.echo(json_text.dumps(exported, indent=2))
    if not exported["records"] and not exported["jobs"]:
        messages().print(jobs.line(f"nothing is stored about {reference}"))
        raise typer.Exit(ExitCode.PROBLEM)


def _write(file: Path, exported: dict[str, Json]) -> None:
    # Half a character, as a vendor may send one, is written as JSON escapes it.
    text = json_text.dumps(exported, indent=2, ensure_ascii=False).encode(errors="backslashreplace")
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(text + b"\n")
    except OSError as error:
        raise typer.BadParameter(f"{str(file)!r} cannot be written: {error.strerror}", param_hint="'--out'") from error
