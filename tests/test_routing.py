"""In which order providers are asked, and why."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.routing import (
    Ask,
    ByRule,
    Candidate,
    Cheapest,
    Fastest,
    Healthiest,
    Ordered,
    Route,
    Rule,
    Switches,
    Weighted,
)
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Money

ASK = Ask(key="order-1", money=Money("120.00", "CHF"), region="CH")
SLOW = Candidate(name="slow", cost=Decimal("0.50"), seconds=2.0, failing=0.0)
DEAR = Candidate(name="dear", cost=Decimal("3.00"), seconds=0.2, failing=0.3)
NEW = Candidate(name="new")
SHUT = Candidate(name="shut", cost=Decimal("0.10"), seconds=0.1, shut=True)
ALL = [SLOW, DEAR, NEW, SHUT]


@pytest.mark.parametrize(
    ("route", "names"),
    [
        (Ordered(), "slow dear new shut"),
        (Cheapest(), "slow dear new shut"),
        (Fastest(), "new dear slow shut"),
        (Healthiest(), "slow new dear shut"),
        (Weighted({"dear": 1}), "dear slow new shut"),
        (ByRule([Rule(["dear", "new"], regions=frozenset({"CH"}))], then=Fastest()), "new dear"),
        (ByRule([Rule(["dear"], regions=frozenset({"EU"}))]), "slow dear new shut"),
        (ByRule([Rule(["dear"], currencies=frozenset({"EUR"})), Rule(["slow"])]), "slow"),
        (ByRule([Rule(["dear"], least=Money("120.01", "CHF")), Rule(["slow"])]), "slow"),
        (ByRule([Rule(["dear"], least=Money("120.00", "CHF"), most=Money("120.00", "CHF"))]), "dear"),
        (ByRule([Rule(["dear"], most=Money("119.99", "CHF")), Rule(["new"])]), "new"),
        (ByRule([Rule(["dear"], most=Money("1000", "EUR")), Rule(["new"])]), "new"),
    ],
    ids=str,
)
def test_each_route_has_its_order(route: Route, names: str) -> None:
    assert " ".join(choice.name for choice in route.order(ASK, ALL)) == names


def test_a_route_says_why() -> None:
    assert [choice.why for choice in Cheapest().order(ASK, ALL)] == [
        "keeps 0.50 CHF",
        "keeps 3.00 CHF",
        "its fee is not known",
        "its circuit is open",
    ]
    assert [choice.why for choice in ByRule([Rule(["dear"])], then=Fastest()).order(ASK, ALL)] == [
        "rule 1, usually 0.20 s"
    ]


def test_weights_are_kept_over_many_keys_and_the_same_for_one() -> None:
    canary = Weighted({"dear": 5, "slow": 95})
    firsts = Counter(canary.order(Ask(key=f"order-{number}"), ALL)[0].name for number in range(10_000))

    assert set(firsts) == {"dear", "slow"}
    assert 400 < firsts["dear"] < 600
    assert canary.order(ASK, ALL) == canary.order(ASK, ALL)


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}], ids=str)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="weights"):
        Weighted(weights)


@given(
    st.lists(
        st.builds(
            Candidate,
            name=st.text(min_size=1, max_size=4),
            cost=st.none() | st.decimals(0, 9, places=2),
            seconds=st.floats(0, 9),
            failing=st.floats(0, 1),
            shut=st.booleans(),
        ),
        unique_by=lambda one: one.name,
        max_size=5,
    ),
    st.sampled_from([Ordered(), Cheapest(), Fastest(), Healthiest(), Weighted({"a": 1})]),
)
def test_without_rules_nobody_is_left_out_and_nobody_asked_twice(candidates: list[Candidate], route: Route) -> None:
    assert sorted(choice.name for choice in route.order(ASK, candidates)) == sorted(one.name for one in candidates)


async def test_a_switch_holds_for_every_process_until_its_time_is_over() -> None:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        ours, theirs = Switches("payment", store, clock), Switches("payment", store, clock)
        assert await theirs.off() == {}

        await ours.set("zoom", on=False, actor="ada", reason="their incident", ttl=timedelta(minutes=5))
        await ours.set("jaas", on=False, actor="ada", reason="contract ended")
        assert set(await ours.off()) == {"zoom", "jaas"}
        assert await theirs.off() == {}
        await clock.advance(2)
        assert set(await theirs.off()) == {"zoom", "jaas"}
        await clock.advance(300)
        assert set(await theirs.off()) == {"jaas"}
        await theirs.set("jaas", on=True, actor="bob", reason="contract renewed")
        assert await theirs.off() == {}


async def test_who_switches_says_why() -> None:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        with pytest.raises(InvalidInput, match="why"):
            await Switches("payment", store, clock).set("zoom", on=False, actor="ada", reason=" ")
