"""A policy is checked when it is made, and can say what it does."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import pytest
import tenacity

from holdfast.errors import InvalidPolicy
from holdfast.resilience.policy import Breaker, Budget, Cache, Concurrency, Hedge, Policy, Rate, Retry


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (Policy, "deadline", 0),
        (Policy, "deadline", -1),
        (Policy, "deadline", float("nan")),
        (Policy, "deadline", float("inf")),
        (Policy, "deadline", "5"),
        (Policy, "deadline", True),
        (Policy, "timeout", 0),
        (Policy, "timeout", timedelta(days=2)),
        (Policy, "retry", 3),
        (Policy, "breaker", 5),
        (Retry, "attempts", 0),
        (Retry, "attempts", 101),
        (Retry, "attempts", 2.0),
        (Retry, "attempts", True),
        (Retry, "base", -0.1),
        (Retry, "throttled_base", 3601),
        (Retry, "cap", float("nan")),
        (Retry, "wait", 5),
        (Retry, "stop", "never"),
        (Breaker, "failure_rate", 0),
        (Breaker, "failure_rate", 1.01),
        (Breaker, "failure_rate", float("nan")),
        (Breaker, "failure_rate", True),
        (Breaker, "slow_rate", -1),
        (Breaker, "slow_after", 0),
        (Breaker, "minimum_calls", 0),
        (Breaker, "consecutive", 100_001),
        (Breaker, "probes_to_close", 0),
        (Breaker, "window", 0),
        (Breaker, "open_for", 0),
        (Breaker, "open_cap", 4),
        (Concurrency, "limit", 0),
        (Policy, "concurrency", True),
        (Policy, "concurrency", "3"),
        (Policy, "rate", 5),
        (Policy, "rate", (5,)),
        (Policy, "budget", 0.2),
        (Policy, "cache", 60),
        (Policy, "hedge", 0.1),
        (Budget, "share", 1.01),
        (Budget, "share", float("nan")),
        (Budget, "reserve", -1),
        (Hedge, "after", 0),
    ],
)
def test_an_option_outside_its_range_is_refused_by_name(kind: Any, option: str, value: object) -> None:
    with pytest.raises(InvalidPolicy, match=option):
        kind(**{option: value})


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (Policy, "deadline", 0.001),
        (Policy, "deadline", 86_400),
        (Policy, "deadline", None),
        (Policy, "timeout", None),
        (Retry, "attempts", 1),
        (Retry, "attempts", 100),
        (Retry, "base", 0),
        (Retry, "cap", 3600),
        (Breaker, "failure_rate", 1),
        (Breaker, "failure_rate", 0.001),
        (Breaker, "minimum_calls", 1),
        (Breaker, "consecutive", 100_000),
        (Breaker, "open_cap", 5),
    ],
)
def test_the_ends_of_a_range_belong_to_it(kind: Any, option: str, value: object) -> None:
    assert getattr(kind(**{option: value}), option) == value


def test_a_duration_is_seconds_or_a_timedelta() -> None:
    assert Policy(deadline=timedelta(seconds=3), timeout=1) == Policy(deadline=3.0, timeout=timedelta(seconds=1))


def test_a_policy_is_a_value() -> None:
    policy = Policy()

    assert policy == Policy()
    assert hash(policy) == hash(Policy())
    with pytest.raises(FrozenInstanceError):
        policy.deadline = 5  # type: ignore[misc]  # what is tested


def test_a_strategy_that_would_have_to_be_awaited_is_refused() -> None:
    async def wait(state: object) -> float:
        return 1.0

    class Waiting:
        async def __call__(self, state: object) -> float:
            return 1.0

    for strategy in (wait, Waiting()):
        with pytest.raises(InvalidPolicy, match="async"):
            Retry(wait=strategy)


def test_a_policy_explains_the_order_of_its_parts() -> None:
    policy = Policy(
        deadline=20,
        cache=Cache(60, stale=600),
        hedge=Hedge(0.2),
        budget=Budget(0.1),
        rate=(Rate(5, per=60, key=lambda: "user"), Rate(30)),
        concurrency=Concurrency(16, adaptive=True),
        timeout=5,
    )

    assert policy.explain().splitlines() == [
        "1. deadline: 20 s",
        "2. cache, of reads: for 60 s, up to 600 s longer rather than fail",
        "3. hedge, of reads: 0.2 s",
        "4. retry: 3 attempts, waits of 0 to 0.1 s doubling up to 20.0 s, for 10% of the calls",
        "5. circuit open? rejected at once",
        "6. hold: waits while the vendor asked this credential to pause",
        "7. rate: 5 per 60 s and key and 30 per 1 s",
        "8. concurrency: 16 at once, adaptive",
        "9. circuit: opens at 50% failures of 20 or more calls in 10.0 s, or 5 hard failures in a row; first for 5.0 s",
        "10. attempt timeout: 5 s",
        "11. the call",
    ]


def test_what_is_off_is_explained_as_off() -> None:
    assert Policy(timeout=None, retry=None, breaker=None).explain().splitlines() == [
        "1. deadline: none",
        "2. cache, of reads: off",
        "3. hedge, of reads: off",
        "4. retry: off",
        "5. circuit open? rejected at once",
        "6. hold: waits while the vendor asked this credential to pause",
        "7. rate: unlimited",
        "8. concurrency: unlimited",
        "9. circuit: off",
        "10. attempt timeout: none",
        "11. the call",
    ]


def test_a_hedge_without_a_time_is_explained_by_what_calls_take() -> None:
    assert "3. hedge, of reads: after what 19 of 20 calls take" in Policy(hedge=Hedge()).explain()


def test_retries_without_a_budget_are_explained_so() -> None:
    assert "20.0 s, for any share of the calls" in Policy(budget=None).explain()


def test_strategies_are_explained_instead_of_the_numbers_they_replace() -> None:
    retry = Retry(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_delay(5))

    assert "4. retry: until stop_after_delay, waits by wait_fixed, for 20%" in Policy(retry=retry).explain()


def test_one_rate_and_a_number_of_places_are_short_for_their_long_forms() -> None:
    assert Policy(rate=Rate(5), concurrency=3) == Policy(rate=(Rate(5),), concurrency=Concurrency(3))
    assert Policy().rates == ()
