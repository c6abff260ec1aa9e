"""`holdfast store rotate`: sealing anew what rests under an older key."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.hubs import hub, log_to_stderr
from holdfast.cli.output import data, messages, print_json

if TYPE_CHECKING:
    from holdfast.hub import Holdfast
    from holdfast.stores.rotation import Rotation


def rotate_command(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Seal what rests under an older key, or under none, with the newest key of the ring.

    Put the new key first in the ring of every process before. Run it again after an interruption: what is done is
    passed over. Ends with 1 while an older key is still needed.
    """
    log_to_stderr()
    found = hub(target)
    with _counting() as told:
        rotation = asyncio.run(_rotate(found, told))
    if json:
        print_json(
            {
                "complete": rotation.complete,
                "keys": rotation.keys,
                "records": rotation.records,
                "jobs": rotation.jobs,
                "looked_at": rotation.looked_at,
                "old_keys": dict(rotation.old_keys),
                "problems": list(rotation.problems),
            }
        )
    else:
        _print(rotation)
    raise typer.Exit(ExitCode.OK if rotation.complete else ExitCode.PROBLEM)


async def _rotate(found: Holdfast, told: Callable[[Rotation], None]) -> Rotation:
    async with found:
        return await found.rotate(told=told)


@contextmanager
def _counting() -> Generator[Callable[[Rotation], None]]:
    """A line on stderr that counts, for a person who waits."""
    if not sys.stderr.isatty():
        yield lambda rotation: None
        return
    with messages().status("rotating") as status:
        yield lambda rotation: status.update(f"rotating: {_words(rotation)}")


def _words(rotation: Rotation) -> str:
    sealed = f"{rotation.records:,} records and {rotation.jobs:,} jobs sealed anew, {rotation.keys:,} keys wrapped"
    return f"{sealed}; {rotation.looked_at:,} looked at"


def _print(rotation: Rotation) -> None:
    console = data()
    console.print(_words(rotation))
    for problem in rotation.problems:
        console.print(problem)
    for key_id, rows in rotation.old_keys.items():
        console.print(f"key {key_id} is still needed by {rows:,} rows, and is not in the ring")
    if rotation.complete:
        console.print("no older key is needed any more")
