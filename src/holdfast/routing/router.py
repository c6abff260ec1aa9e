"""Asks a family's route: who could do it, less who is switched off, each as its guard knows it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, InvalidInput, NotSent
from holdfast.resilience import Guard
from holdfast.routing.routes import Ask, Candidate, Choice, Ordered, Route, named
from holdfast.routing.switches import Switch, Switched, Switches
from holdfast.stores.store import Store

PROVIDER: Final = ""
"""The name under which a guard keeps the circuit of the provider as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Routed:
    """Who is asked, and who could have been."""

    choices: Sequence[Choice]
    off: Sequence[Switch] = ()
    """Who could do it and is switched off."""
    later: Sequence[str] = ()
    """Of these, whom the route would ask if they were on."""

    @property
    def names(self) -> list[str]:
        """Who is asked, in this order."""
        return [choice.name for choice in self.choices]

    @property
    def why(self) -> Mapping[str, str]:
        """Of each who is asked, why there."""
        return {choice.name: choice.why for choice in self.choices}

    def refusal(self, what: str, operation: str) -> NotSent:
        """What to raise where nobody is left to be asked."""
        told = "; ".join(f"{one.name} is off: {one.reason} ({one.actor})" for one in self.off)
        text = f"the route leaves no provider for {what}; {told or 'its rules allow none'}"
        return NotSent(text, operation=operation, reason="no_route", local=True)


class Router:
    """One family's route and its switches."""

    def __init__(
        self,
        family: str,
        operation: str,
        route: Route | None,
        providers: Iterable[str],
        guard_of: Callable[[str], Guard | None],
        *,
        store: Store,
        clock: Clock,
    ) -> None:
        """`guard_of` gives None for a provider that makes no call; `operation` is what is asked of them all.

        Raises:
            ConfigurationError: The route is none, or names a provider that is not there.
        """
        self._family = family
        self._operation = operation
        self._route = route or Ordered()
        self._providers = list(providers)
        if isinstance(self._route, type) or not callable(getattr(self._route, "order", None)):
            raise ConfigurationError(f"{self._route!r} is no route: route=Cheapest(), Fastest(), Weighted({{…}})")
        if strange := sorted(named(self._route) - set(self._providers)):
            there = ", ".join(self._providers) or "none"
            raise ConfigurationError(f"the route names {', '.join(strange)}, and the {family} providers are: {there}")
        self._guard_of = guard_of
        self._switches = Switches(family, store, clock)

    async def order(
        self, ask: Ask, names: Sequence[str], costs: Mapping[str, Decimal | None] | None = None
    ) -> "Routed":
        """Who of `names` is asked, in which order, and why; `costs` are of this ask, as price lists have them."""
        switched = await self._switches.now()
        candidates = [self._candidate(name, switched.weights.get(name), (costs or {}).get(name)) for name in names]
        off = [switched.off[name] for name in names if name in switched.off]
        if not off:
            return Routed(choices=self._route.order(ask, candidates))
        on = [one for one in candidates if one.name not in switched.off]
        all_of_them = [choice.name for choice in self._route.order(ask, candidates)]
        return Routed(
            choices=self._route.order(ask, on),
            off=off,
            later=[name for name in all_of_them if name in switched.off],
        )

    async def switch(
        self,
        provider: str,
        *,
        on: bool | None,
        weight: int | None,
        reset: bool,
        actor: str,
        reason: str,
        ttl: timedelta | None,
    ) -> Switch:
        """Change a provider of the family, for everybody. Raises InvalidInput."""
        if provider not in self._providers:
            there = ", ".join(self._providers) or "none"
            raise InvalidInput(f"there is no {self._family} provider {provider}; there are {there}")
        return await self._switches.set(
            provider, on=on, weight=weight, reset=reset, actor=actor, reason=reason, ttl=ttl
        )

    async def switched(self) -> Switched:
        """What is switched now, and what was."""
        return await self._switches.now()

    def _candidate(self, name: str, switch: Switch | None, cost: Decimal | None) -> Candidate:
        """The provider as it stands now."""
        weight = switch.weight if switch else None
        guard = self._guard_of(name)
        if guard is None:
            return Candidate(name=name, cost=cost, weight=weight, local=True)
        circuit = guard.snapshot().circuits.get(PROVIDER)
        return Candidate(
            name=name,
            cost=cost,
            weight=weight,
            seconds=guard.usual(self._operation),
            failing=circuit.failures / circuit.calls if circuit and circuit.calls else 0.0,
            shut=guard.shut_for(self._operation) is not None,
        )
