"""Payments over a route that people change at run time."""

from typing import Any

import pytest

from holdfast.errors import InvalidInput, ReferenceConflict
from holdfast.payments.client import Payments
from holdfast.routing import ByRule, Route, Rule, Weighted
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from tests.payments.vendors import Vendor

DUE = Money("120.00", "CHF")
SAID: dict[str, Any] = {"actor": "ada", "reason": "the canary sings"}


def shop(route: Route) -> Payments:
    clock = ManualClock()
    runtime = Runtime(open_store("memory://", clock=clock), clock=clock)
    return Payments([Vendor(name="old"), Vendor(name="new")], runtime=runtime, route=route)


async def test_a_canary_grows_at_run_time_and_each_payment_says_so() -> None:
    async with shop(Weighted({"old": 1})) as payments:
        before = await payments.create("order-1", DUE)
        await payments.switch("old", weight=0, **SAID)
        await payments.switch("new", weight=100, **SAID)
        after = await payments.create("order-2", DUE)
        again = await payments.create("order-1", DUE)

    assert [(one.provider, one.attempts[0].why) for one in (before, after)] == [
        ("old", "1 of 1 parts"),
        ("new", "100 of 100 parts, set at run time"),
    ]
    assert again == before


async def test_who_changed_what_can_be_read() -> None:
    async with shop(Weighted({"old": 1})) as payments:
        await payments.switch("new", weight=5, **SAID)
        await payments.switch("new", on=False, actor="bob", reason="it stopped")
        switched = await payments.switches()

    assert (switched.off["new"].reason, switched.weights["new"].weight) == ("it stopped", 5)
    assert [change.actor for change in switched.changes] == ["bob", "ada"]


async def test_a_switch_that_says_nothing_is_refused() -> None:
    async with shop(Weighted({"old": 1})) as payments:
        with pytest.raises(InvalidInput, match="what is switched"):
            await payments.switch("new", **SAID)


async def test_data_stays_in_its_region_for_every_further_offer_too() -> None:
    # given
    payments, clock = shop(ByRule([Rule(["new"], regions=frozenset({"CH"}))])), ManualClock()
    payments.bind(Runtime(open_store("memory://", clock=clock), clock=clock))
    async with payments:
        first = await payments.create("order-1", DUE, region="CH")
        await clock.advance(3600)  # its time is over
        await payments.refresh("order-1")

        # when
        again = await payments.renew("order-1")
        with pytest.raises(ReferenceConflict, match="region CH"):
            await payments.create("order-1", DUE)

    # then
    assert [first.provider, again.provider] == ["new", "new"]
    assert len(again.attempts) == 2
