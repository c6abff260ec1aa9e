"""In which order providers are asked, and why."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Holdfast
from holdfast.errors import ConfigurationError, InvalidInput, NotSent
from holdfast.outcome import Effect
from holdfast.resilience import Guard, Policy
from holdfast.routing import (
    Ask,
    ByRule,
    Candidate,
    Cheapest,
    Fastest,
    Healthiest,
    Ordered,
    Route,
    Router,
    Rule,
    Switch,
    Switched,
    Switches,
    Weighted,
)
from holdfast.routing.switches import REMEMBERED
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


def test_your_own_costs_go_before_price_lists() -> None:
    choices = Cheapest({"slow": Decimal(4), "new": Decimal("0.08")}).order(ASK, ALL)

    assert [(choice.name, choice.why) for choice in choices] == [
        ("new", "costs 0.08"),
        ("dear", "keeps 3.00 CHF"),
        ("slow", "costs 4"),
        ("shut", "its circuit is open"),
    ]


@pytest.mark.parametrize("cost", [0.08, 1, "0.08", Decimal("NaN")], ids=repr)
def test_a_cost_is_exact(cost: Any) -> None:
    with pytest.raises(InvalidInput, match="Decimal"):
        Cheapest({"sms": cost})


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


# What is switched at run time.

SAID: dict[str, Any] = {"actor": "ada", "reason": "their incident"}


class Room:
    """Switches of several processes on one store and one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = open_store("memory://", clock=self.clock)

    def switches(self, family: str = "payment") -> Switches:
        return Switches(family, self.store, self.clock)


@pytest.fixture
async def room() -> AsyncGenerator[Room]:
    room = Room()
    async with room.store:
        yield room


async def test_a_switch_holds_for_every_process_until_its_time_is_over(room: Room) -> None:
    ours, theirs = room.switches(), room.switches()
    assert (await theirs.now()).off == {}

    await ours.set("zoom", on=False, **SAID, ttl=timedelta(minutes=5))
    await ours.set("jaas", on=False, actor="ada", reason="contract ended")
    assert set((await ours.now()).off) == {"zoom", "jaas"}
    assert (await theirs.now()).off == {}
    await room.clock.advance(2)
    assert set((await theirs.now()).off) == {"zoom", "jaas"}
    await room.clock.advance(298)
    assert set((await theirs.now()).off) == {"jaas"}
    await theirs.set("jaas", on=True, actor="bob", reason="contract renewed")
    assert (await theirs.now()).off == {}


async def test_a_weight_outlives_an_outage_that_was_switched_for_an_hour(room: Room) -> None:
    switches = room.switches()
    await switches.set("new", weight=20, actor="ada", reason="the canary sings")
    await switches.set("new", on=False, **SAID, ttl=timedelta(hours=1))

    during = await switches.now()
    await room.clock.advance(3600)
    after = await switches.now()

    assert (set(during.off), during.weights["new"].weight) == ({"new"}, 20)
    assert (set(after.off), after.weights["new"].weight) == (set(), 20)


async def test_a_weight_that_is_set_during_an_outage_switches_nobody_on(room: Room) -> None:
    switches = room.switches()
    await switches.set("new", on=False, **SAID)
    await switches.set("new", weight=1, **SAID)

    now = await switches.now()
    assert (set(now.off), set(now.weights)) == ({"new"}, {"new"})


async def test_a_weight_has_its_own_end(room: Room) -> None:
    switches = room.switches()
    await switches.set("new", weight=0, **SAID, ttl=timedelta(minutes=1))
    assert (await switches.now()).weights["new"].weight == 0
    await room.clock.advance(60)
    assert (await switches.now()).weights == {}


async def test_a_reset_takes_back_all_that_was_switched_of_one_provider(room: Room) -> None:
    switches = room.switches()
    for name in ("new", "old"):
        await switches.set(name, on=False, weight=5, **SAID)

    await switches.set("new", reset=True, actor="bob", reason="it is over")

    now = await switches.now()
    assert (set(now.off), set(now.weights)) == ({"old"}, {"old"})


async def test_every_change_is_remembered_with_who_and_why_and_when(room: Room) -> None:
    switches, began = room.switches(), room.clock.now()
    await switches.set("new", weight=20, actor="ada", reason="the canary sings")
    await room.clock.advance(10)
    await switches.set("new", on=False, actor="bob", reason="it stopped", ttl=timedelta(minutes=1))
    await room.clock.advance(10)
    await switches.set("new", reset=True, actor="cid", reason="it is over")

    last, second, first = (await room.switches().now()).changes

    assert first == Switch(name="new", weight=20, actor="ada", reason="the canary sings", at=began)
    assert (second.on, second.actor, second.at) == (False, "bob", began + timedelta(seconds=10))
    assert second.until == began + timedelta(seconds=70)
    assert (last.reset, last.on, last.weight, last.reason) == (True, None, None, "it is over")


async def test_only_the_newest_changes_are_kept_and_what_counts_is_never_forgotten(room: Room) -> None:
    switches = room.switches()
    await switches.set("forgotten", on=False, **SAID)
    for number in range(REMEMBERED + 5):
        await switches.set("new", weight=number, **SAID)

    now = await switches.now()

    assert len(now.changes) == REMEMBERED
    assert now.changes[0].weight == REMEMBERED + 4
    assert set(now.off) == {"forgotten"}


async def test_families_are_apart(room: Room) -> None:
    await room.switches("payment").set("acme", on=False, **SAID)

    assert (await room.switches("meeting").now()) == Switched()


async def test_changes_made_at_once_are_both_kept(room: Room) -> None:
    ours, theirs = room.switches(), room.switches()

    async with asyncio.TaskGroup() as group:
        group.create_task(ours.set("new", on=False, **SAID))
        group.create_task(theirs.set("old", weight=3, **SAID))

    now = await room.switches().now()
    assert (set(now.off), set(now.weights), len(now.changes)) == ({"new"}, {"old"}, 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"on": False, "reason": " "}, "why"),
        ({"on": False, "actor": ""}, "who"),
        ({}, "what is switched"),
        ({"reset": True, "on": True}, "reset alone"),
        ({"weight": -1}, "a weight"),
        ({"weight": True}, "a weight"),
        ({"weight": 1_000_001}, "a weight"),
        ({"on": False, "ttl": timedelta(0)}, "ttl"),
        ({"reset": True, "ttl": timedelta(1)}, "ttl"),
    ],
    ids=str,
)
async def test_a_switch_that_means_nothing_is_refused(room: Room, change: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        await room.switches().set("zoom", **(SAID | change))

    assert (await room.switches().now()) == Switched()


# What a family asks.


class Shop:
    """A router over guards of which a test knows the state."""

    def __init__(self, room: Room, route: Route | None = None, *names: str) -> None:
        self.guards = {name: Guard(name, Policy(retry=None), clock=room.clock) for name in names or ("old", "new")}
        self.router = Router(
            "payment", "create", route, ["local", *self.guards], self.guards.get, store=room.store, clock=room.clock
        )

    async def why(self, *names: str, key: str = "order-1") -> dict[str, str]:
        routed = await self.router.order(Ask(key=key), names)
        assert list(routed.why) == routed.names
        return dict(routed.why)

    async def switch(self, name: str, **change: Any) -> None:
        nothing: dict[str, Any] = {"on": None, "weight": None, "reset": False, "ttl": None}
        await self.router.switch(name, **(nothing | SAID | change))


async def fail() -> None:
    raise NotSent("connection refused", hard=True)


async def test_a_candidate_is_what_its_guard_knows(room: Room) -> None:
    shop = Shop(room, Healthiest(), "shaky", "shut", "fine")

    async def quickly() -> None:
        await room.clock.advance(0.25)

    for _ in range(5):
        with pytest.raises(NotSent):
            await shop.guards["shut"].run(fail, effect=Effect.ONCE, operation="create")
    with pytest.raises(NotSent):
        await shop.guards["shaky"].run(fail, effect=Effect.ONCE, operation="create")
    for name in ("shaky", "fine", "fine"):
        await shop.guards[name].run(quickly, effect=Effect.ONCE, operation="create")

    assert await shop.why("shaky", "shut", "fine", "local") == {
        "fine": "0% of recent calls failed",
        "local": "makes no call",
        "shaky": "50% of recent calls failed",
        "shut": "its circuit is open",
    }


async def test_who_makes_no_call_is_the_fastest(room: Room) -> None:
    assert list(await Shop(room, Fastest()).why("old", "local")) == ["local", "old"]


async def test_a_canary_grows_at_run_time_and_ends_with_nothing(room: Room) -> None:
    shop = Shop(room, Weighted({"new": 1, "old": 99}))
    keys = [f"order-{number}" for number in range(1000)]

    async def share() -> int:
        return sum([next(iter(await shop.why("old", "new", key=key))) == "new" for key in keys])

    small = await share()
    await shop.switch("new", weight=99)
    half = await share()
    await shop.switch("new", weight=0)
    why = await shop.why("old", "new")

    assert (small < 30, 400 < half < 600) == (True, True)
    assert why == {"old": "99 of 99 parts", "new": "no share of its own, set at run time"}
    assert await share() == 0


async def test_the_only_share_of_a_canary_that_was_taken_away_leaves_the_others_as_they_were_given(room: Room) -> None:
    shop = Shop(room, Weighted({"new": 1}))
    await shop.switch("new", weight=0)

    assert list(await shop.why("old", "new")) == ["old", "new"]


async def test_a_weight_says_nothing_to_a_route_without_shares(room: Room) -> None:
    shop = Shop(room)
    await shop.switch("old", weight=0)

    assert await shop.why("old", "new") == {"old": "preference 1", "new": "preference 2"}


async def test_whom_the_rules_allow_and_is_off_may_be_asked_later(room: Room) -> None:
    shop = Shop(room, ByRule([Rule(["new"])]))
    await shop.switch("new", on=False)
    await shop.switch("old", on=False)

    routed = await shop.router.order(Ask(key="order-1"), ["old", "new"])

    assert (routed.names, list(routed.later)) == ([], ["new"])
    assert "new is off: their incident (ada)" in str(routed.refusal("order-1", "create"))


async def test_rules_that_allow_nobody_are_told_as_such(room: Room) -> None:
    routed = await Shop(room, ByRule([Rule([])])).router.order(Ask(key="order-1"), ["old", "new"])

    assert (routed.names, list(routed.later)) == ([], [])
    assert "its rules allow none" in str(routed.refusal("order-1", "create"))


async def test_only_who_is_there_is_switched(room: Room) -> None:
    with pytest.raises(InvalidInput, match="no payment provider zoom; there are local, old, new"):
        await Shop(room).switch("zoom", on=False)


@pytest.mark.parametrize(
    "route",
    [
        Weighted({"stripe": 95, "strpie": 5}),
        Cheapest({"strpie": Decimal(1)}),
        ByRule([Rule(["strpie"])]),
        ByRule([], then=Weighted({"strpie": 5})),
    ],
)
def test_a_route_that_names_nobody_there_is_refused_at_once(route: Route) -> None:
    with pytest.raises(ConfigurationError, match="names strpie, and the payment providers are: stripe"):
        Router(
            "payment",
            "create",
            route,
            ["stripe"],
            lambda name: None,
            store=open_store("memory://"),
            clock=ManualClock(),
        )


def test_a_policy_for_nobody_there_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="policies names strpie; the providers are: "):
        Holdfast(store="memory://", policies={"strpie": Policy(deadline=1)})
