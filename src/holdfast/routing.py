"""In which order providers are asked: by preference, cost, speed, health or share; the same for every family.

A route is a value: `Payments([...], route=Cheapest())`. It is asked once per payment, meeting or message, and says why
it chose as it did. What is switched off at run time is left out of every route.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Final, Protocol

from holdfast.clock import Clock
from holdfast.errors import InvalidInput, VersionConflict
from holdfast.stores.store import Draft, Json, Store
from holdfast.values import Money

KIND: Final = "switch"
FRESH: Final = 2.0
"""Seconds for which a process uses what it read of the switches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What is to be done, as far as a route may care."""

    key: str
    """The caller's reference or key; the same one is routed alike."""
    money: Money | None = None
    region: str = ""
    """Where the customer's data has to stay: `CH`, `EU`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A provider that could do it, as it stands now."""

    name: str
    cost: Decimal | None = None
    """What it would keep, in the currency of the ask; None: not known."""
    seconds: float = 0.0
    """What it usually takes; 0: not known."""
    failing: float = 0.0
    """Share of recent calls that failed."""
    shut: bool = False
    """Its circuit is open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A provider, in its place, and why it is there."""

    name: str
    why: str


class Route(Protocol):
    """Puts providers into an order; leaves out those that must not be asked."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        """The first is asked first."""
        ...


@dataclass(frozen=True, slots=True)
class Ordered:
    """As they were given."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        return [Choice(name=one.name, why=f"preference {place}") for place, one in enumerate(candidates, 1)]


@dataclass(frozen=True, slots=True)
class Cheapest:
    """By what they keep of it; whose fee is not known comes last."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        ranked = sorted(candidates, key=lambda one: (one.shut, one.cost is None, one.cost or Decimal(0)))
        return [Choice(name=one.name, why=_priced(one, ask)) for one in ranked]


@dataclass(frozen=True, slots=True)
class Fastest:
    """By what they usually take; of whom nothing is known yet is tried first, or nothing ever would be."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        ranked = sorted(candidates, key=lambda one: (one.shut, one.seconds))
        return [
            Choice(
                name=one.name, why=_shut(one) or (f"usually {one.seconds:.2f} s" if one.seconds else "not timed yet")
            )
            for one in ranked
        ]


@dataclass(frozen=True, slots=True)
class Healthiest:
    """By how few of their recent calls failed, in steps of five percent; preference decides between equals."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        ranked = sorted(candidates, key=lambda one: (one.shut, round(one.failing * 20)))
        return [Choice(name=one.name, why=_shut(one) or f"{one.failing:.0%} of recent calls failed") for one in ranked]


@dataclass(frozen=True, slots=True)
class Weighted:
    """A share of what is asked goes to each first: `Weighted({"new": 5, "old": 95})` is a canary of five percent.

    The same key always goes the same way; who has no weight comes after all who have.

    Raises:
        InvalidInput: A weight is below zero, or none is above.
    """

    weights: Mapping[str, int]

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights.values()) or not any(self.weights.values()):
            raise InvalidInput("weights are whole numbers from 0 up, and one of them at least is above 0")

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        left = [one for one in candidates if self.weights.get(one.name, 0)]
        rest = [one for one in candidates if one not in left]
        chosen: list[Choice] = []
        while left:
            total = sum(self.weights[one.name] for one in left)
            point = _point(f"{len(chosen)}/{ask.key}", total)
            for one in left:
                point -= self.weights[one.name]
                if point < 0:
                    chosen.append(Choice(name=one.name, why=f"{self.weights[one.name]} of {total} parts"))
                    left.remove(one)
                    break
        return [*chosen, *(Choice(name=one.name, why="no share of its own") for one in rest)]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which providers may be asked for what; empty conditions hold for everything."""

    providers: Sequence[str]
    currencies: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    least: Money | None = None
    most: Money | None = None

    def holds(self, ask: Ask) -> bool:
        """Whether it speaks of this ask."""
        money = ask.money
        if self.currencies and (money is None or money.currency not in self.currencies):
            return False
        if self.regions and ask.region not in self.regions:
            return False
        for bound, sign in ((self.least, 1), (self.most, -1)):
            if bound is None:
                continue
            if money is None or money.currency != bound.currency:
                return False
            if sign * (money.minor_units - bound.minor_units) < 0:
                return False
        return True


@dataclass(frozen=True, slots=True)
class ByRule:
    """The first rule that holds says who may be asked, `then` in which order; where none holds, anybody may.

    `ByRule([Rule(["sbp-ch"], regions=frozenset({"CH"}))], then=Cheapest())` keeps a customer's data where it belongs.
    """

    rules: Sequence[Rule]
    then: Route = field(default_factory=Ordered)

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        for number, rule in enumerate(self.rules, 1):
            if rule.holds(ask):
                allowed = [one for one in candidates if one.name in rule.providers]
                return [replace(choice, why=f"rule {number}, {choice.why}") for choice in self.then.order(ask, allowed)]
        return self.then.order(ask, candidates)


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """What somebody decided about a provider at run time, for every process on the store."""

    name: str
    on: bool
    actor: str
    reason: str
    at: datetime
    until: datetime | None = None
    """From then on it counts no more; None: until it is switched again."""


class Switches:
    """Providers that are switched off by hand, read from the store every two seconds at most."""

    def __init__(self, family: str, store: Store, clock: Clock) -> None:
        self._family = family
        self._store = store
        self._clock = clock
        self._known: Mapping[str, Switch] = {}
        self._read_at = -FRESH

    async def set(self, name: str, *, on: bool, actor: str, reason: str, ttl: timedelta | None = None) -> Switch:
        """Switch a provider on or off, for everybody, until `ttl` is over.

        Raises:
            InvalidInput: Actor or reason is empty.
        """
        if not (actor.strip() and reason.strip()):
            raise InvalidInput("who switches, and why, has to be said")
        now = self._clock.now()
        switch = Switch(name=name, on=on, actor=actor, reason=reason, at=now, until=now + ttl if ttl else None)
        value: dict[str, Json] = {
            "on": on,
            "actor": actor,
            "reason": reason,
            "at": now.isoformat(),
            "until": switch.until.isoformat() if switch.until else None,
        }
        while True:
            record = await self._store.records.get(KIND, self._family)
            switches: dict[str, Json] = dict(record.value) if record else {}
            try:
                draft = Draft(value=switches | {name: value})
                await self._store.records.apply(KIND, self._family, record.version if record else 0, draft)
            except VersionConflict:
                continue
            self._read_at = -FRESH
            return switch

    async def off(self) -> Mapping[str, Switch]:
        """Those that are off now, by provider."""
        if self._clock.monotonic() - self._read_at >= FRESH:
            record = await self._store.records.get(KIND, self._family)
            kept: Mapping[str, Json] = record.value if record else {}
            self._known = {name: _switch(name, value) for name, value in kept.items()}
            self._read_at = self._clock.monotonic()
        now = self._clock.now()
        return {
            name: switch
            for name, switch in self._known.items()
            if not switch.on and (switch.until is None or now < switch.until)
        }


def _switch(name: str, value: Json) -> Switch:
    assert isinstance(value, Mapping)
    until = value["until"]
    return Switch(
        name=name,
        on=bool(value["on"]),
        actor=str(value["actor"]),
        reason=str(value["reason"]),
        at=datetime.fromisoformat(str(value["at"])),
        until=datetime.fromisoformat(str(until)) if until else None,
    )


def _priced(one: Candidate, ask: Ask) -> str:
    currency = f" {ask.money.currency}" if ask.money else ""
    return _shut(one) or (f"keeps {one.cost:f}{currency}" if one.cost is not None else "its fee is not known")


def _shut(one: Candidate) -> str:
    return "its circuit is open" if one.shut else ""


def _point(text: str, total: int) -> int:
    """A number below `total`, the same for the same text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8]) % total
