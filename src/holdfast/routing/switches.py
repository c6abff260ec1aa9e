"""What people change about providers at run time, for every process on the store: on, off, and their share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, cast

from holdfast.clock import Clock
from holdfast.errors import InvalidInput, VersionConflict
from holdfast.stores.store import Draft, Json, Record, Store

KIND: Final = "switch"
FRESH: Final = 2.0
"""Seconds for which a process uses what it read of the switches."""
REMEMBERED: Final = 100
"""So many changes of a family are kept, the newest."""
HEAVIEST: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """One change that somebody made to a provider; what it leaves alone is None."""

    name: str
    on: bool | None = None
    weight: int | None = None
    """Its share where the route is `Weighted`; 0: none, it is asked after all that have one."""
    reset: bool = False
    """Everything is as the program says again."""
    actor: str
    reason: str
    at: datetime
    until: datetime | None = None
    """From then on it counts no more; None: until it is switched again."""

    def counts(self, now: datetime) -> bool:
        """Whether its time is not over."""
        return self.until is None or now < self.until


@dataclass(frozen=True, kw_only=True, slots=True)
class Switched:
    """What is switched in one family now, and what was."""

    off: Mapping[str, Switch] = field(default_factory=dict[str, Switch])
    """Who is asked for nothing new, and the change that says so."""
    weights: Mapping[str, Switch] = field(default_factory=dict[str, Switch])
    """Whose share was set at run time, and the change that did."""
    changes: Sequence[Switch] = ()
    """The last hundred, the newest first."""


class Switches:
    """The switches of one family, read from the store every two seconds at most."""

    def __init__(self, family: str, store: Store, clock: Clock) -> None:
        self._family = family
        self._store = store
        self._clock = clock
        self._known = _Board()
        self._read_at = -FRESH

    async def set(
        self,
        name: str,
        *,
        on: bool | None = None,
        weight: int | None = None,
        reset: bool = False,
        actor: str,
        reason: str,
        ttl: timedelta | None = None,
    ) -> Switch:
        """Change a provider for everybody, until `ttl` is over; on and off count apart from the weight.

        Raises:
            InvalidInput: Nothing is changed, or too much at once; or actor or reason is empty.
        """
        _check(on, weight, ttl, reset=reset)
        if not (actor.strip() and reason.strip()):
            raise InvalidInput("who switches, and why, has to be said")
        now = self._clock.now()
        until = now + ttl if ttl is not None else None
        switch = Switch(name=name, on=on, weight=weight, reset=reset, actor=actor, reason=reason, at=now, until=until)
        while True:
            record = await self._store.records.get(KIND, self._family)
            board = _read(record).after(switch)
            try:
                draft = Draft(value=board.as_json())
                await self._store.records.apply(KIND, self._family, record.version if record else 0, draft)
            except VersionConflict:
                continue
            self._read_at = -FRESH
            return switch

    async def now(self) -> Switched:
        """What is switched, as far as this process knows."""
        if self._clock.monotonic() - self._read_at >= FRESH:
            self._known = _read(await self._store.records.get(KIND, self._family))
            self._read_at = self._clock.monotonic()
        now = self._clock.now()
        return Switched(
            off={one.name: one for one in self._known.power if one.on is False and one.counts(now)},
            weights={one.name: one for one in self._known.weights if one.counts(now)},
            changes=self._known.changes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Board:
    """The last change of each kind to each provider, and all changes that are remembered."""

    power: Sequence[Switch] = ()
    weights: Sequence[Switch] = ()
    changes: Sequence[Switch] = ()

    def after(self, switch: Switch) -> "_Board":
        power, weights = self.power, self.weights
        if switch.on is not None or switch.reset:
            power = [*_others(power, switch), *([] if switch.reset else [switch])]
        if switch.weight is not None or switch.reset:
            weights = [*_others(weights, switch), *([] if switch.reset else [switch])]
        return _Board(power=power, weights=weights, changes=[switch, *self.changes][:REMEMBERED])

    def as_json(self) -> dict[str, Json]:
        return {
            "power": [*map(_as_json, self.power)],
            "weights": [*map(_as_json, self.weights)],
            "changes": [*map(_as_json, self.changes)],
        }


def _check(on: bool | None, weight: int | None, ttl: timedelta | None, *, reset: bool) -> None:
    """Raises InvalidInput."""
    changes = on is not None or weight is not None
    if reset == changes:
        raise InvalidInput("say what is switched: on, off, or a weight; or reset alone, which takes all of it back")
    if weight is not None and not (type(weight) is int and 0 <= weight <= HEAVIEST):
        raise InvalidInput(f"a weight is a whole number from 0 to {HEAVIEST:,}, not {weight!r}")
    if ttl is not None and (reset or ttl <= timedelta(0)):
        raise InvalidInput("ttl is a time from now for what is switched; reset has none")


def _others(switches: Iterable[Switch], switch: Switch) -> list[Switch]:
    return [one for one in switches if one.name != switch.name]


def _read(record: Record | None) -> _Board:
    if record is None:
        return _Board()
    rows = {name: [_switch(row) for row in cast("list[dict[str, Json]]", rows)] for name, rows in record.value.items()}
    return _Board(power=rows["power"], weights=rows["weights"], changes=rows["changes"])


def _as_json(switch: Switch) -> Json:
    return {
        "name": switch.name,
        "on": switch.on,
        "weight": switch.weight,
        "reset": switch.reset,
        "actor": switch.actor,
        "reason": switch.reason,
        "at": switch.at.isoformat(),
        "until": switch.until.isoformat() if switch.until else None,
    }


def _switch(value: Mapping[str, Json]) -> Switch:
    until = value["until"]
    return Switch(
        name=str(value["name"]),
        on=cast("bool | None", value["on"]),
        weight=cast("int | None", value["weight"]),
        reset=bool(value["reset"]),
        actor=str(value["actor"]),
        reason=str(value["reason"]),
        at=datetime.fromisoformat(str(value["at"])),
        until=datetime.fromisoformat(str(until)) if until else None,
    )
