"""Repeats are a share of first attempts, so that an outage is not multiplied."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.resilience.budget import KEPT, RATIO, RESERVE_PER_SECOND, Budget


def emptied(now: float = 0.0) -> Budget:
    budget = Budget()
    while budget.spend(now):
        pass
    return budget


def test_a_new_budget_has_ten_seconds_of_reserve() -> None:
    budget = Budget()

    assert [budget.spend(0) for _ in range(11)] == [True] * 10 + [False]


def test_five_first_attempts_pay_for_one_repeat() -> None:
    budget = emptied()

    for _ in range(4):
        budget.deposit(0)
    assert not budget.spend(0)
    budget.deposit(0)

    assert budget.spend(0)
    assert not budget.spend(0)


def test_a_second_pays_for_one_repeat_of_whoever_calls_rarely() -> None:
    budget = emptied()

    assert not budget.spend(0.9)
    assert budget.spend(1.0)
    assert not budget.spend(1.0)


def test_the_reserve_does_not_grow_beyond_ten_seconds() -> None:
    budget = emptied()

    assert [budget.spend(10_000) for _ in range(11)] == [True] * 10 + [False]


def test_deposits_expire_after_ten_seconds_however_often_one_looks() -> None:
    for looks in (1, 1000):
        budget = emptied()
        for _ in range(100):
            budget.deposit(0)
        for look in range(1, looks + 1):
            budget.spend(KEPT * look / looks, cost=1000)

        assert budget.balance <= KEPT * RESERVE_PER_SECOND


def test_a_denial_costs_nothing() -> None:
    budget = emptied()
    budget.deposit(0)
    before = budget.balance

    assert not budget.spend(0)

    assert budget.balance == before


def test_a_repeat_after_a_timeout_costs_two() -> None:
    budget = Budget()

    assert [budget.spend(0, 2.0) for _ in range(6)] == [True] * 5 + [False]


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.booleans(), st.sampled_from([1.0, 2.0])),
        max_size=300,
    )
)
def test_repeats_never_exceed_a_fifth_of_first_attempts_and_the_reserve(
    events: list[tuple[float, bool, float]],
) -> None:
    budget, now, first, spent = Budget(), 0.0, 0, 0.0
    for seconds, is_first, cost in events:
        now += seconds
        if is_first:
            budget.deposit(now)
            first += 1
        elif budget.spend(now, cost):
            spent += cost
        assert budget.balance >= -1e-9

    assert spent <= RATIO * first + RESERVE_PER_SECOND * (KEPT + now) + 1e-6
