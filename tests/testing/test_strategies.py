"""Plans, histories and deliveries drawn by hypothesis, and what shrinking leaves of them."""

import inspect
from collections.abc import Collection

import pytest
from hypothesis import Phase, find, given, settings

from holdfast.testing.deliveries import Door
from holdfast.testing.explore import History, replay
from holdfast.testing.faults import At, Fault, FaultPlan, Faults, Reset, Rule, Stage
from holdfast.testing.intents import charge
from holdfast.testing.strategies import Manner, deliveries, fault_plans, histories, histories_like
from holdfast.testing.world import World
from tests.testing.planted_shop import Bug, Database, Shop, an_order_is_charged_and_shipped_once

OPERATIONS = {"stripe": ["payments.create", "payments.fetch"]}
FEW = settings(max_examples=100, deadline=None, database=None, derandomize=True, phases=(Phase.generate, Phase.shrink))


def outcome_of(plan: FaultPlan, bugs: Collection[Bug]) -> BaseException | None:
    """What the shop's test makes of a fault plan."""

    async def test(world: World) -> None:
        world.faults.take(plan)
        await an_order_is_charged_and_shipped_once(world, bugs)

    return replay(test, "").error


def test_the_smallest_plan_that_charges_twice_is_one_lost_answer() -> None:
    smallest = find(fault_plans(OPERATIONS), lambda plan: outcome_of(plan, {"retry-unknown"}) is not None, settings=FEW)

    assert len(smallest.rules) == 1
    assert smallest.rules[0].operation == "payments.create"
    plan = smallest.rules[0].plan
    assert isinstance(plan, At)
    assert plan.index == 0
    assert isinstance(plan.fault, Fault)
    assert plan.fault.stage in (Stage.AFTER_EFFECT, Stage.BODY)


def test_without_operations_a_plan_strikes_any_call() -> None:
    smallest = find(fault_plans(), lambda plan: outcome_of(plan, {"retry-unknown"}) is not None, settings=FEW)

    [rule] = smallest.rules
    assert (rule.vendor, rule.operation) == ("*", "*")
    assert isinstance(rule.plan, At)
    assert isinstance(rule.plan.fault, Fault)
    assert rule.plan.fault.stage in (Stage.AFTER_EFFECT, Stage.BODY)


@given(plan=fault_plans(OPERATIONS))
@settings(FEW, max_examples=30)
def test_a_shop_that_is_right_holds_under_any_plan(plan: FaultPlan) -> None:
    assert outcome_of(plan, ()) is None


@given(plan=fault_plans(OPERATIONS, faults=[Reset()], calls=2, most=2))
@settings(FEW)
def test_plans_are_values_within_their_bounds(plan: FaultPlan) -> None:
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert len(plan.rules) <= 2
    assert len({(rule.vendor, rule.operation, rule.plan) for rule in plan.rules}) == len(plan.rules)
    assert all(isinstance(rule.plan, At) and rule.plan.index < 2 and rule.plan.fault == Reset() for rule in plan.rules)
    assert Faults(plan=plan).value() == plan


def test_the_smallest_history_is_the_simplest() -> None:
    async def wrong(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world, {"lost-orphan"})

    strategy = histories_like(replay(wrong, ""))
    smallest = find(strategy, lambda history: replay(wrong, history).error is not None, settings=FEW)

    assert str(smallest) == "webhook#2=never"


@given(history=histories(awaits=10, operations=OPERATIONS, calls=2, webhooks=3, most=4, seed=5))
@settings(FEW)
def test_histories_are_values_within_their_bounds(history: History) -> None:
    assert History.parse(str(history), seed=5) == history
    assert len(history.steps) <= 4
    assert all(at < 10 for at in history.crashes)
    assert all(webhook.number < 3 for webhook in history.webhooks)


def test_histories_of_nothing_have_no_steps() -> None:
    assert find(histories(), lambda history: True) == History(7, ())


def test_the_smallest_delivery_that_ships_twice_is_one_double() -> None:
    def ships_twice(manner: Manner) -> bool:
        database = Database()

        async def test(world: World) -> None:
            world.fakes.stripe().webhook_url = "https://shop.example/hooks/stripe"
            shop = Shop(database, world, {"no-dedup"})
            await shop.checkout("o1")
            await world.webhooks.to(shop.app, "/hooks/stripe").deliver(**manner)
            world.fakes.ledger.exactly_once(charge(reference="o1"))

        assert replay(test, "").error is None
        return len(database.shipped) > 1

    smallest = find(deliveries(webhooks=3), ships_twice, settings=FEW)

    assert smallest in ({"duplicate": 1}, {"together": True})


def test_what_a_delivery_names_a_door_takes() -> None:
    taken = set(inspect.signature(Door.deliver).parameters)

    assert set(Manner.__annotations__) <= taken


@pytest.mark.parametrize("rule", [Rule("stripe", "payments.create", At(0, Reset()))])
def test_a_plan_of_hypothesis_is_a_plan_of_the_kit(rule: Rule) -> None:
    found = find(fault_plans(OPERATIONS, faults=[Reset()]), lambda plan: rule in plan.rules)

    assert found == FaultPlan(rules=(rule,))
