"""Rates of your own: exact, positive, frozen for a while."""

from datetime import timedelta
from decimal import Decimal

import pytest

from holdfast.errors import InvalidMoney, NotSent
from holdfast.payments.client import Payments
from holdfast.payments.provider import Capabilities
from holdfast.payments.rates import FixedRates
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from tests.payments.vendors import Vendor

DUE = Money("120.00", "CHF")


@pytest.mark.parametrize("rate", ["0", "-1", "much", Decimal("NaN"), 0.0000125])
def test_a_rate_is_a_positive_decimal(rate: str) -> None:
    with pytest.raises(InvalidMoney, match="CHF/BTC"):
        FixedRates({("CHF", "BTC"): rate})


async def test_what_is_due_is_rounded_up_to_a_whole_satoshi_and_the_rate_is_kept_with_it() -> None:
    clock = ManualClock()

    quote = await FixedRates({("CHF", "BTC"): "0.000012501"}, source="treasury").quote(DUE, "BTC", at=clock.now())

    assert quote.price == Money.from_sat(150_012)
    assert (quote.rate, quote.source, quote.at) == ("0.000012501", "treasury", clock.now())


async def test_a_pair_without_a_rate_lets_the_next_provider_be_asked() -> None:
    with pytest.raises(NotSent, match="no rate of CHF/EUR"):
        await FixedRates({}).quote(DUE, "EUR", at=ManualClock().now())


async def test_your_rates_price_a_provider_that_has_none_and_are_asked_again_after_a_while() -> None:
    clock = ManualClock()
    asked: list[str] = []

    class Counting(FixedRates):
        async def quote(self, due, currency, *, at):  # type: ignore[no-untyped-def]
            asked.append(currency)
            return await super().quote(due, currency, at=at)

    vendor = Vendor(capabilities=Capabilities(currencies=frozenset({"BTC"})))
    runtime = Runtime(open_store("memory://", clock=clock), clock=clock)
    payments = Payments([vendor], rates=Counting({("CHF", "BTC"): "0.0000125"}), rates_for=15, runtime=runtime)
    async with payments:
        first = await payments.create("order-1", DUE)
        await payments.create("order-2", DUE)
        await clock.advance(16)
        third = await payments.create("order-3", DUE)

    assert asked == ["BTC", "BTC"]
    assert first.attempts[0].price == Money.from_sat(150_000)
    assert first.attempts[0].quote is not None
    assert third.attempts[0].quote is not None
    assert third.attempts[0].quote.at - first.attempts[0].quote.at == timedelta(seconds=16)
