"""`holdfast drift`: whether a vendor still answers in the shapes it answered in."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import complain, data, messages, print_json
from holdfast.errors import HoldfastError
from holdfast.testing.drift import SANDBOXES, Baseline, Change, check, record

drift = typer.Typer(
    name="drift",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Notice when a vendor's answers change their shape. Only reads; credentials come from the environment.",
)

BaseUrl = Annotated[str, typer.Option("--base-url", metavar="URL", help="Where to ask, if not where it was before.")]


@drift.command("record")
def record_command(
    provider: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(SANDBOXES)}.")],
    out: Annotated[Path, typer.Option(dir_okay=False, writable=True, metavar="FILE", help="Where to keep it.")],
    base_url: BaseUrl = "",
) -> None:
    """Keep the shapes of a sandbox's answers: types and fields, no values.

    Exits with 2 where it could not be asked.
    """
    with _or_exit():
        baseline = record(provider, base_url=base_url)
    try:
        out.write_text(baseline.dump(), encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{str(out)!r} cannot be written: {error.strerror}", param_hint="'--out'") from error
    messages().print(f"{len(baseline.reads)} answers of {provider} kept in {out}")


@drift.command("check")
def check_command(
    baseline: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="What was recorded.")],
    base_url: BaseUrl = "",
    json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Ask again, and print what changed.

    Exits with 0 where all is the same, with 1 on a change, and with 2 where it could not be asked.
    """
    with _or_exit():
        known = Baseline.load(baseline.read_text(encoding="utf-8", errors="replace"))
        changes = check(known, base_url=base_url)
    if json:
        print_json({"vendor": known.vendor, "reads": len(known.reads), "changes": [asdict(one) for one in changes]})
    else:
        _print(known, changes)
    if changes:
        raise typer.Exit(ExitCode.PROBLEM)


def _print(known: Baseline, changes: Sequence[Change]) -> None:
    for read, found in groupby(changes, key=lambda change: change.read):
        data().print(f"GET {read}")
        for change in found:
            data().print(f"  {change}")
    messages().print(f"{known.vendor}: {len(changes)} changes in the shapes of {len(known.reads)} answers")


@contextmanager
def _or_exit() -> Generator[None]:
    """1 means a change, and nothing else: whatever went wrong ends with 2."""
    try:
        yield
    except HoldfastError as error:
        complain(str(error))
        raise typer.Exit(ExitCode.USAGE) from error
