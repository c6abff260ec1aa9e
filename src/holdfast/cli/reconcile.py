"""`holdfast reconcile`: ask vendors what their webhooks did not tell, and hold our books against theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.hubs import hub, log_to_stderr
from holdfast.cli.jobs import line, moment
from holdfast.cli.output import complain, data, messages, print_json
from holdfast.errors import CallFailed

if TYPE_CHECKING:
    from holdfast.hub import Holdfast
    from holdfast.payments.reconcile import Finding, MoneyReport
    from holdfast.queue.reconciliation import Counts
    from holdfast.stores.store import Json

DAY: Final = timedelta(days=1)


def reconcile_command(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")],
    since: Annotated[
        datetime | None,
        typer.Option("--since", parser=moment, metavar="TIME", help="Money from then on.", show_default="a day ago"),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--until", parser=moment, metavar="TIME", help="Money before that.", show_default="now"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask every vendor that can be asked what happened, and compare your books with what it moved.

    What its webhooks did not tell is in the queue then, and money that was not noticed is in the books. Workers do the
    first by themselves every few minutes. Exits with 1 where a person has to look, and with 3 where a vendor could not
    be asked for its list.
    """
    log_to_stderr()
    deliveries, money, failure = asyncio.run(_look(hub(target), since, until))
    if json:
        print_json({"deliveries": {name: asdict(counts) for name, counts in deliveries.items()}, "money": _told(money)})
    else:
        if failure is None:
            _print_deliveries(deliveries)
        if money is not None:
            _print_money(money)
    if money is not None and money.needs_person:
        if failure is not None:
            complain(str(failure))
        raise typer.Exit(ExitCode.PROBLEM)
    if failure is not None:
        raise failure
    if money is not None and money.unreachable:
        raise typer.Exit(ExitCode.UNREACHABLE)


async def _look(
    found: Holdfast, since: datetime | None, until: datetime | None
) -> tuple[Mapping[str, Counts], MoneyReport | None, CallFailed | None]:
    """What was found, and why a vendor could not be asked what its webhooks did not tell."""
    deliveries: Mapping[str, Counts] = {}
    failure: CallFailed | None = None
    async with found:
        try:
            deliveries = await found.reconcile()
        except CallFailed as error:
            failure = error  # money is compared all the same
        end = until or await found.store.now()
        money = await found.payments.reconcile(since or end - DAY, end) if found.payments.providers else None
        return deliveries, money, failure


def _print_deliveries(found: Mapping[str, Counts]) -> None:
    for name, counts in found.items():
        data().print(f"{name}: {counts.seen} seen, {counts.missed} of them missed")
    if not found:
        data().print("no vendor of this hub can be asked what its webhooks did not tell")


def _print_money(money: MoneyReport) -> None:
    data().print(f"money from {_time(money.since)} until {_time(money.until)}")
    for name, of_provider in groupby(money.totals, key=lambda total: total.provider):
        sums = ", ".join(f"{total.kind} {total.money} in {total.lines}" for total in of_provider)
        data().print(f"{name}: {sums}")
    for name in money.cannot_list:
        data().print(f"{name}: has no list of what it moved")
    for finding in money.findings:
        data().print(line(_words(finding)))
    for name, why in money.unreachable.items():
        messages().print(f"{name} could not be asked: {why}")
    left = sum(not one.settled for one in money.findings)
    messages().print(f"{left} of {len(money.findings)} differences are for a person to look at")


def _words(one: Finding) -> str:
    """One difference on one line."""
    parts = [
        "settled" if one.settled else "LOOK",
        one.kind,
        one.provider,
        f"{one.about} {one.vendor_id}",
        f"of {one.reference}" if one.reference else "of no payment known",
        f"ours {one.ours or '-'}",
        f"theirs {one.theirs or '-'}",
        _time(one.at) if one.at else "",
        one.note,
    ]
    return "  ".join(part for part in parts if part)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _told(money: MoneyReport | None) -> Json:
    if money is None:
        return None
    return {
        "since": money.since.isoformat(),
        "until": money.until.isoformat(),
        "needs_person": money.needs_person,
        "findings": [{field.name: _json(getattr(one, field.name)) for field in fields(one)} for one in money.findings],
        "totals": [
            {"provider": one.provider, "kind": one.kind, "money": str(one.money), "lines": one.lines}
            for one in money.totals
        ],
        "cannot_list": list(money.cannot_list),
        "unreachable": dict(money.unreachable),
    }


def _json(value: object) -> Json:
    if value is None or isinstance(value, bool | int):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)
