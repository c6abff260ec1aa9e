"""The orders in which providers may be asked: by preference, cost, speed, health or share, and by rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from typing import Protocol

from holdfast.errors import InvalidInput
from holdfast.values import Money


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
    local: bool = False
    """It makes no call at all, so it is neither slow nor down."""
    failing: float = 0.0
    """Share of recent calls that failed."""
    shut: bool = False
    """Its circuit is open."""
    weight: int | None = None
    """Its share as somebody set it at run time; None: nobody did."""


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
    """By what they keep of it, or by what you say that each costs; of whom it is not known comes last.

    `Cheapest({"telegram": Decimal(0), "twilio": Decimal("0.08")})`: your own costs, all in one currency, go before
    what price lists say.

    Raises:
        InvalidInput: A cost is a float, or no number.
    """

    costs: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])

    def __post_init__(self) -> None:
        for name, cost in self.costs.items():
            is_number = isinstance(cost, Decimal)  # pyright: ignore[reportUnnecessaryIsInstance]
            if not is_number or not cost.is_finite():
                raise InvalidInput(f'the cost of {name} is a Decimal: Cheapest({{"{name}": Decimal("0.08")}})')

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        cost = {one.name: self.costs.get(one.name, one.cost) for one in candidates}
        ranked = sorted(candidates, key=lambda one: (one.shut, cost[one.name] is None, cost[one.name] or Decimal(0)))
        return [Choice(name=one.name, why=_shut(one) or self._priced(one, ask)) for one in ranked]

    def _priced(self, one: Candidate, ask: Ask) -> str:
        if one.name in self.costs:
            return f"costs {self.costs[one.name]:f}"
        currency = f" {ask.money.currency}" if ask.money else ""
        return f"keeps {one.cost:f}{currency}" if one.cost is not None else "its fee is not known"


@dataclass(frozen=True, slots=True)
class Fastest:
    """By what they usually take; of whom nothing is known yet is tried first, or nothing ever would be."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        ranked = sorted(candidates, key=lambda one: (one.shut, not one.local, one.seconds))
        return [Choice(name=one.name, why=_shut(one) or _timed(one)) for one in ranked]


@dataclass(frozen=True, slots=True)
class Healthiest:
    """By how few of their recent calls failed, in steps of five percent; preference decides between equals."""

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        ranked = sorted(candidates, key=lambda one: (one.shut, round(one.failing * 20)))
        return [Choice(name=one.name, why=_shut(one) or _failing(one)) for one in ranked]


@dataclass(frozen=True, slots=True)
class Weighted:
    """A share of what is asked goes to each first: `Weighted({"new": 5, "old": 95})` is a canary of five percent.

    The same key always goes the same way; who has no weight comes after all who have. A weight that was switched at
    run time counts instead of the one given here.

    Raises:
        InvalidInput: A weight is below zero, or none is above.
    """

    weights: Mapping[str, int]

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights.values()) or not any(self.weights.values()):
            raise InvalidInput("weights are whole numbers from 0 up, and one of them at least is above 0")

    def order(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Choice]:
        weights = {one.name: self._weight(one) for one in candidates}
        left = [one for one in candidates if weights[one.name]]
        rest = [one for one in candidates if not weights[one.name]]
        chosen: list[Choice] = []
        while left:
            total = sum(weights[one.name] for one in left)
            point = _point(f"{len(chosen)}/{ask.key}", total)
            for one in left:
                point -= weights[one.name]
                if point < 0:
                    chosen.append(Choice(name=one.name, why=f"{weights[one.name]} of {total} parts{_set(one)}"))
                    left.remove(one)
                    break
        return [*chosen, *(Choice(name=one.name, why=f"no share of its own{_set(one)}") for one in rest)]

    def _weight(self, one: Candidate) -> int:
        return self.weights.get(one.name, 0) if one.weight is None else one.weight


@dataclass(frozen=True, slots=True)
class Rule:
    """Which providers may be asked for what; empty conditions hold for everything.

    Raises:
        InvalidInput: One text stands where several belong.
    """

    providers: Sequence[str]
    currencies: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    least: Money | None = None
    most: Money | None = None

    def __post_init__(self) -> None:
        for name in ("providers", "currencies", "regions"):
            if isinstance(text := getattr(self, name), str):
                right = f'["{text}"]' if name == "providers" else f'frozenset({{"{text}"}})'
                raise InvalidInput(f"{name} of a Rule are several: {name}={right}")

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


def named(route: Route) -> frozenset[str]:
    """The providers that one of these routes names; of a route of your own nobody can tell."""
    match route:
        case Weighted(weights):
            return frozenset(weights)
        case Cheapest(costs):
            return frozenset(costs)
        case ByRule(rules, then):
            return named(then).union(*(rule.providers for rule in rules))
        case _:
            return frozenset()


def _failing(one: Candidate) -> str:
    return "makes no call" if one.local else f"{one.failing:.0%} of recent calls failed"


def _timed(one: Candidate) -> str:
    if one.local:
        return "makes no call"
    return f"usually {one.seconds:.2f} s" if one.seconds else "not timed yet"


def _set(one: Candidate) -> str:
    return "" if one.weight is None else ", set at run time"


def _shut(one: Candidate) -> str:
    return "its circuit is open" if one.shut else ""


def _point(text: str, total: int) -> int:
    """A number below `total`, the same for the same text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8]) % total
