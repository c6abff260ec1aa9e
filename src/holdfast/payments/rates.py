"""Where prices in another currency come from, when not from the provider itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Protocol

from holdfast.errors import InvalidMoney, NotSent
from holdfast.payments.models import Quote
from holdfast.values import Money


class Rates(Protocol):
    """A source of rates: your treasury's, an exchange's, a fixed list."""

    async def quote(self, due: Money, currency: str, *, at: datetime) -> Quote:
        """`due` in `currency`, rounded up. Raises CallFailed: there is no rate now; another provider is asked."""
        ...


@dataclass(frozen=True)
class FixedRates:
    """Rates you set yourself: `FixedRates({("CHF", "BTC"): "0.0000125"}, source="treasury")`.

    Raises:
        InvalidMoney: A rate that is no positive number, or a float.
    """

    rates: Mapping[tuple[str, str], str | Decimal]
    source: str = field(default="fixed", kw_only=True)

    def __post_init__(self) -> None:
        for pair, rate in self.rates.items():
            try:
                # The type checker refuses a float already; this is for who does not ask it.
                positive = not isinstance(rate, float) and Decimal(rate) > 0  # type: ignore[redundant-expr]
            except InvalidOperation:
                positive = False
            if not positive:
                raise InvalidMoney(f"the rate of {'/'.join(pair)} is a positive decimal as text, not {rate!r}")

    async def quote(self, due: Money, currency: str, *, at: datetime) -> Quote:
        rate = self.rates.get((due.currency, currency))
        if rate is None:
            raise NotSent(f"there is no rate of {due.currency}/{currency} in {self.source}", local=True)
        return Quote.of(due, Decimal(rate), currency, source=self.source, at=at)
