"""`holdfast reconcile`: ask vendors what their webhooks did not tell, now."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from holdfast.cli.hubs import hub, log_to_stderr
from holdfast.cli.output import data, print_json
from holdfast.hub import Holdfast
from holdfast.queue.reconciliation import Counts


def reconcile_command(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask every vendor that can be asked what happened; what was missed is in the queue then.

    Workers do so by themselves every few minutes. By hand it is for the moment after a restore.
    """
    log_to_stderr()
    found = asyncio.run(_look(hub(target)))
    if json:
        print_json({name: asdict(counts) for name, counts in found.items()})
        return
    for name, counts in found.items():
        data().print(f"{name}: {counts.seen} seen, {counts.missed} of them missed")
    if not found:
        data().print("no vendor of this hub can be asked")


async def _look(found: Holdfast) -> Mapping[str, Counts]:
    async with found:
        return await found.reconcile()
