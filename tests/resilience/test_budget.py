"""Repeats are a share of first attempts, so that an outage is not multiplied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.resilience.budget import KEPT, RetryBudget
from holdfast.resilience.policy import Budget


def emptied(options: Budget | None = None, now: float = 0.0) -> RetryBudget:
    budget = RetryBudget(options or Budget())
    while budget.spend(now):
        pass
    return budget


def test_a_new_budget_has_ten_seconds_of_reserve_and_this_one() -> None:
    budget = RetryBudget(Budget())

    assert [budget.spend(0) for _ in range(12)] == [True] * 11 + [False]


@pytest.mark.parametrize(("share", "firsts"), [(0.2, 5), (0.5, 2), (1.0, 1)])
def test_first_attempts_beyond_what_idle_seconds_lent_pay_for_repeats(share: float, firsts: int) -> None:
    budget = emptied(Budget(share, reserve=0))

    for _ in range(firsts - 1):
        budget.deposit(0)
    assert not budget.spend(0)
    budget.deposit(0)

    assert budget.spend(0)
    assert not budget.spend(0)


def test_busy_seconds_pay_back_what_idle_ones_lent() -> None:
    budget = RetryBudget(Budget(0.2, reserve=1))
    for _ in range(11):
        assert budget.spend(0)

    for _ in range(55):  # a fifth of it is the reserve of this second and the ten that were lent
        budget.deposit(0)
    assert not budget.spend(0)
    for _ in range(5):
        budget.deposit(0)

    assert budget.spend(0)
    assert not budget.spend(0)


def test_a_second_pays_for_one_repeat_of_whoever_calls_rarely() -> None:
    budget = emptied()

    assert not budget.spend(0.9)
    assert budget.spend(1.0)
    assert not budget.spend(1.0)


def test_without_a_reserve_whoever_calls_rarely_repeats_nothing() -> None:
    budget = RetryBudget(Budget(0.2, reserve=0))

    for second in range(4):
        budget.deposit(second)
        assert not budget.spend(second)


def test_the_reserve_does_not_grow_beyond_ten_seconds_and_this_one() -> None:
    budget = emptied()

    assert [budget.spend(10_000) for _ in range(12)] == [True] * 11 + [False]


@pytest.mark.parametrize("looks", [1, 1000])
def test_deposits_expire_after_ten_seconds_however_often_one_looks(looks: int) -> None:
    budget = emptied()
    for _ in range(100):
        budget.deposit(0)

    for look in range(1, looks + 1):
        budget.spend((KEPT + 1) * look / looks, cost=1000)

    assert budget.balance <= KEPT + 1


def test_a_denial_costs_nothing() -> None:
    budget = emptied()
    budget.deposit(0)
    before = budget.balance

    assert not budget.spend(0)

    assert budget.balance == before


def test_a_repeat_after_a_timeout_costs_two() -> None:
    budget = RetryBudget(Budget())

    assert [budget.spend(0, 2.0) for _ in range(6)] == [True] * 5 + [False]


@given(
    options=st.builds(Budget, st.floats(0, 1), reserve=st.floats(0, 5)),
    events=st.lists(st.tuples(st.floats(0, 2), st.booleans(), st.sampled_from([1.0, 2.0])), max_size=300),
)
def test_repeats_never_exceed_the_share_of_first_attempts_and_the_reserve(
    options: Budget, events: list[tuple[float, bool, float]]
) -> None:
    budget, now, first, spent = RetryBudget(options), 0.0, 0, 0.0
    for seconds, is_first, cost in events:
        now += seconds
        if is_first:
            budget.deposit(now)
            first += 1
        elif budget.spend(now, cost):
            spent += cost
        assert budget.balance >= -1e-9

    assert spent <= options.share * first + options.reserve * (KEPT + 1 + now) + 1e-6
