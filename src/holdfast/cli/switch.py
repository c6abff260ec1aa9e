"""`holdfast switch`: providers on, off and their share, while everything runs; and who changed what."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from holdfast.cli import jobs
from holdfast.cli.hubs import hub, log_to_stderr
from holdfast.cli.output import messages, print_json
from holdfast.cli.values import duration
from holdfast.stores.store import Json

if TYPE_CHECKING:
    from holdfast.hub import Holdfast
    from holdfast.routing import Switch, Switched


class FamilyName(StrEnum):
    """As the hub calls them."""

    PAYMENTS = "payments"
    MEETINGS = "meetings"
    NOTIFICATIONS = "notifications"


class Family(Protocol):
    """What has switches."""

    @property
    def providers(self) -> Mapping[str, object]: ...

    async def switch(
        self,
        provider: str,
        *,
        on: bool | None = None,
        weight: int | None = None,
        reset: bool = False,
        actor: str,
        reason: str,
        ttl: timedelta | None = None,
    ) -> Switch: ...

    async def switches(self) -> Switched: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What the command line asks for."""

    provider: str
    on: bool | None
    weight: int | None
    reset: bool
    ttl: timedelta | None

    def __bool__(self) -> bool:
        return self.on is not None or self.weight is not None or self.reset


def switch_command(
    target: jobs.Target,
    family: Annotated[FamilyName | None, typer.Argument(metavar="FAMILY", show_default="all")] = None,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="By its name.", show_default=False)] = "",
    on: Annotated[bool | None, typer.Option("--on/--off", help="Whether it is asked for anything new.")] = None,
    weight: Annotated[int | None, typer.Option("--weight", help="Its share where the route is weighted.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Take back all that was switched of it.")] = False,
    ttl: Annotated[
        timedelta | None,
        typer.Option("--ttl", parser=duration, metavar="TIME", help="For so long: 1h.", show_default="until switched"),
    ] = None,
    reason: jobs.Why = "",
    by: jobs.By = "",
    past: Annotated[bool, typer.Option("--past", help="List the last changes instead, the newest first.")] = False,
    json: jobs.JsonOption = False,
) -> None:
    """Switch a provider for every process on the store; without one, list what is switched.

    What a provider holds already is looked after as before. Other processes heed it within two seconds.
    """
    log_to_stderr()
    change = Change(provider, on, weight, reset, ttl)
    if change and not provider:
        raise typer.BadParameter("name the family and the provider that is switched")
    if change and not reason:
        raise typer.BadParameter("say why with --reason; it is written down")
    if provider and not change:
        raise typer.BadParameter("say what is switched: --on, --off, --weight or --reset")
    found = hub(target)
    if family is not None and change:
        said = asyncio.run(_switch(found, family, change, jobs.login(by), reason))
        if json:
            print_json({"family": family.value, **_json(said)})
        else:
            messages().print(jobs.line(f"{family} {said.name}: {_words(said)}"))
        return
    boards = asyncio.run(_read(found, [family] if family else list(FamilyName)))
    if past:
        _print_past(boards, json)
    else:
        _print_now(found, boards, json)


async def _switch(found: Holdfast, name: FamilyName, change: Change, actor: str, reason: str) -> Switch:
    async with found:
        return await _family(found, name).switch(
            change.provider,
            on=change.on,
            weight=change.weight,
            reset=change.reset,
            ttl=change.ttl,
            actor=actor,
            reason=reason,
        )


async def _read(found: Holdfast, names: Sequence[FamilyName]) -> dict[FamilyName, Switched]:
    async with found:
        return {name: await _family(found, name).switches() for name in names}


def _family(found: Holdfast, name: FamilyName) -> Family:
    families: dict[FamilyName, Family] = {
        FamilyName.PAYMENTS: found.payments,
        FamilyName.MEETINGS: found.meetings,
        FamilyName.NOTIFICATIONS: found.notifications,
    }
    return families[name]


def _print_now(found: Holdfast, boards: Mapping[FamilyName, Switched], as_json: bool) -> None:
    """Every provider, on or off, one on each line."""
    rows: list[list[str]] = []
    for family, board in boards.items():
        for provider in _family(found, family).providers:
            off, weight = board.off.get(provider), board.weights.get(provider)
            if as_json:
                print_json(
                    {
                        "family": family.value,
                        "provider": provider,
                        "on": off is None,
                        "weight": weight.weight if weight else None,
                        "because": [_json(one) for one in _changes(off, weight)],
                    }
                )
            else:
                because = "; ".join(_words(one) for one in _changes(off, weight))
                rows.append([family, provider, "off" if off else "on", because])
    jobs.print_rows(rows)


def _print_past(boards: Mapping[FamilyName, Switched], as_json: bool) -> None:
    """The last changes, one on each line."""
    rows: list[list[str]] = []
    for family, board in boards.items():
        for one in board.changes:
            if as_json:
                print_json({"family": family.value, **_json(one)})
            else:
                rows.append([_time(one.at), family, one.name, _words(one)])
    jobs.print_rows(rows)


def _changes(off: Switch | None, weight: Switch | None) -> list[Switch]:
    """Of one provider; one change may have done both."""
    return [one for one in ([off] if off == weight else [off, weight]) if one]


def _words(switch: Switch) -> str:
    """`off until 2026-11-01 15:00 UTC, by ada: their incident`."""
    done = ["reset"] if switch.reset else []
    if switch.on is not None:
        done.append("on" if switch.on else "off")
    if switch.weight is not None:
        done.append(f"weight {switch.weight}")
    until = f" until {_time(switch.until)}" if switch.until else ""
    return f"{', '.join(done)}{until}, by {switch.actor}: {switch.reason}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _json(switch: Switch) -> dict[str, Json]:
    return {
        "provider": switch.name,
        "on": switch.on,
        "weight": switch.weight,
        "reset": switch.reset,
        "actor": switch.actor,
        "reason": switch.reason,
        "at": switch.at.isoformat(),
        "until": switch.until.isoformat() if switch.until else None,
    }
