"""`holdfast store`: backups of the store, and what is wrong in it."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import data, messages, print_json, progress, table
from holdfast.cli.rotate import rotate_command
from holdfast.stores.archive import Manifest
from holdfast.stores.backup import back_up, restore, verify_backup, verify_store
from holdfast.stores.drill import Drilled, drill
from holdfast.stores.findings import Finding

store = typer.Typer(
    name="store", no_args_is_help=True, rich_markup_mode=None, help="Back up, restore and examine the store."
)
store.command("rotate")(rotate_command)

Url = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="HOLDFAST_STORE",
        metavar="URL",
        help="The store; from the environment its password shows in no list of processes.",
        show_envvar=True,
    ),
]
Backup = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="The backup.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@store.command("backup")
def backup_command(file: Backup, url: Url, json: Json = False) -> None:
    """Write everything in the store to one file, while it is used.

    Only you may read the file. It holds what the store holds: payloads are encrypted where the store encrypts them.
    """
    with progress("backing up") as show:
        manifest = asyncio.run(back_up(url, file, progress=show))
    _print_manifest(manifest, json)
    messages().print(f"written to {file}")


@store.command("restore")
def restore_command(
    file: Backup,
    url: Url,
    replace: Annotated[bool, typer.Option("--replace", help="Also where there is something: it is gone then.")] = False,
    json: Json = False,
) -> None:
    """Put a backup into an empty store of the same kind.

    Jobs that ran are ready again. Stop your processes first. What was accepted after the backup comes back by
    reconciliation and sweeps, when they run again.
    """
    with progress("restoring") as show:
        manifest = asyncio.run(restore(file, url, replace=replace, progress=show))
    _print_manifest(manifest, json)
    messages().print("restored")


@store.command("verify")
def verify_command(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", dir_okay=False, help="A backup.")] = None,
    url: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="HOLDFAST_STORE",
            metavar="URL",
            help="Without a file: the store itself.",
            show_envvar=True,
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Examine a backup, or the store while it is used. Ends with 1 when something is wrong."""
    if file is None and not url:
        raise typer.BadParameter("name a backup, or a store with --store or HOLDFAST_STORE")
    manifest: Manifest | None = None
    with progress("verifying") as show:
        if file is not None:
            manifest, findings = asyncio.run(verify_backup(file, progress=show))
        else:
            findings = asyncio.run(verify_store(url, progress=show))
    if json:
        print_json({"ok": not findings, "findings": [asdict(each) for each in findings]} | _facts(manifest))
    else:
        if manifest is not None:
            _print_manifest(manifest, json)
        _print_findings(findings)
    raise typer.Exit(ExitCode.PROBLEM if findings else ExitCode.OK)


@store.command("drill")
def drill_command(file: Backup, url: Url, json: Json = False) -> None:
    """Restore a backup into an empty store, examine it, claim one job, and say how long that took.

    Nothing is handled: the job is given back. The store stays, for you to look at or to throw away.
    """
    with progress("drilling") as show:
        drilled = asyncio.run(drill(file, url, progress=show))
    if json:
        print_json({"ok": not drilled.findings} | drilled.to_json())
    else:
        _print_drill(drilled)
        _print_findings(drilled.findings)
    raise typer.Exit(ExitCode.PROBLEM if drilled.findings else ExitCode.OK)


def _facts(manifest: Manifest | None) -> dict[str, object]:
    return {} if manifest is None else {"backup": manifest.to_json()}


def _print_manifest(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        print_json(manifest.to_json())
        return
    rows = table("what", "how many")
    for name, count in (*manifest.jobs.items(), *manifest.records.items()):
        rows.add_row(name, f"{count:,}")
    rows.add_row("keys of purged jobs", f"{manifest.keys:,}")
    console = data()
    console.print(f"{manifest.engine}, schema {manifest.schema}, as of {manifest.begun_at:%Y-%m-%d %H:%M:%S} UTC")
    console.print(rows)


def _print_findings(findings: Sequence[Finding]) -> None:
    console = data()
    for each in findings:
        more = ", ..." if each.count > len(each.examples) else ""
        console.print(f"{each.count} x {each.what}" + (f": {', '.join(each.examples)}{more}" if each.examples else ""))
    if not findings:
        console.print("nothing is wrong")


def _print_drill(drilled: Drilled) -> None:
    rows = table("step", "seconds")
    for step, seconds in drilled.steps.items():
        rows.add_row(step, f"{seconds:.2f}")
    rows.add_row("recovery time", f"{drilled.recovery:.2f}")
    rows.add_row("age of the backup: what was accepted since is not in it", f"{drilled.age:,.0f}")
    data().print(rows)
