"""What is due, in the currency that a provider takes."""

from datetime import timedelta
from decimal import Decimal

from holdfast.payments.models import Quote
from holdfast.payments.provider import Capabilities, PaymentProvider, SupportsQuotes
from holdfast.payments.rates import Rates
from holdfast.runtime import Runtime
from holdfast.values import BTC, Money


class Quotes:
    """Prices at rates of one source, or of each provider's own."""

    def __init__(self, runtime: Runtime, rates: Rates | None, rates_for: timedelta) -> None:
        self._runtime = runtime
        self._rates = rates
        self._rates_for = rates_for
        self._known: dict[tuple[str, str], Quote] = {}

    def can_price(self, provider: PaymentProvider, due: Money) -> bool:
        """Whether it can be asked for this money, in whatever currency."""
        priced = self._rates is not None or isinstance(provider, SupportsQuotes)
        return priced or _takes(provider.capabilities, due)

    async def price(self, provider: PaymentProvider, due: Money) -> Quote | None:
        """The price in the provider's currency, at a rate that is a few seconds old at most; None: it takes the due.

        Raises:
            CallFailed: There is no rate now.
        """
        if _takes(provider.capabilities, due):
            return None
        known, now = self._known.get((provider.name, due.currency)), self._runtime.clock.now()
        if known and now - known.at < self._rates_for:
            return Quote.of(due, Decimal(known.rate), known.price.currency, source=known.source, at=known.at)
        if self._rates is not None:
            quote = await self._rates.quote(due, _only(provider.capabilities), at=now)
        else:
            assert isinstance(provider, SupportsQuotes)  # no other is asked for a currency it does not take
            quote = await provider.quote(self._runtime.http(provider), due, at=now)
        self._known[provider.name, due.currency] = quote
        return quote


def _takes(capabilities: Capabilities, due: Money) -> bool:
    """Whether it can be asked for what is due as it is."""
    return capabilities.currencies is None or due.currency in capabilities.currencies


def _only(capabilities: Capabilities) -> str:
    """The currency a provider that does not take the due one is to be asked in: bitcoin, or its first."""
    currencies = capabilities.currencies or frozenset()
    return BTC if BTC in currencies else min(currencies)
