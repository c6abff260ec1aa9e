"""The circuit: seven scenarios no other Python breaker passes all of, and what holds in every history."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from holdfast.resilience.breaker import Circuit, CircuitState, Denied, Permit, Result, Transition, Window
from holdfast.resilience.policy import Breaker

LEASE = 6.0


def circuit(**options: object) -> Circuit:
    return Circuit(Breaker(**options), Random(1))  # type: ignore[arg-type]  # the options under test


def admitted(circuit: Circuit, now: float, lease: float = LEASE) -> Permit:
    permit = circuit.admit(now, lease=lease)
    assert isinstance(permit, Permit), permit
    return permit


def call(circuit: Circuit, result: Result, now: float, *, hard: bool = True, slow: bool = False) -> Transition | None:
    return circuit.record(admitted(circuit, now), result, now, hard=hard, slow=slow)


def opened(circuit: Circuit, now: float = 0.0) -> float:
    """Trip it by hard failures; when a probe is due."""
    change = None
    while change is None:
        change = call(circuit, Result.FAILURE, now)
    assert change.after is CircuitState.OPEN
    return now + change.open_for


# The seven scenarios.


def test_of_a_hundred_concurrent_callers_one_probes() -> None:
    breaker = circuit()
    due = opened(breaker)

    admissions = [breaker.admit(due, lease=LEASE) for _ in range(100)]

    assert [isinstance(each, Permit) for each in admissions] == [True] + [False] * 99
    assert breaker.state(due) is CircuitState.HALF_OPEN


def test_cancellations_never_open_it() -> None:
    breaker = circuit(consecutive=2)

    for _ in range(100):
        call(breaker, Result.NEUTRAL, 0)

    assert breaker.state(0) is CircuitState.CLOSED


def test_after_a_cancelled_probe_the_next_caller_probes() -> None:
    breaker = circuit()
    due = opened(breaker)

    call(breaker, Result.NEUTRAL, due)

    assert breaker.state(due) is CircuitState.HALF_OPEN
    assert admitted(breaker, due).probe == 2


def test_a_success_from_before_it_opened_does_not_help_to_close_it() -> None:
    breaker = circuit(probes_to_close=1)
    old = admitted(breaker, 0)
    due = opened(breaker)
    probe = admitted(breaker, due)

    assert breaker.record(old, Result.SUCCESS, due) is None

    assert breaker.state(due) is CircuitState.HALF_OPEN
    assert breaker.record(probe, Result.SUCCESS, due) is not None


def test_a_failure_from_before_it_opened_does_not_open_it_again() -> None:
    breaker = circuit(consecutive=1, probes_to_close=1)
    old = admitted(breaker, 0)
    due = opened(breaker)
    call(breaker, Result.SUCCESS, due)

    assert breaker.record(old, Result.FAILURE, due, hard=True) is None

    assert breaker.state(due) is CircuitState.CLOSED


def test_four_failures_in_five_open_it_though_never_five_in_a_row() -> None:
    breaker = circuit(consecutive=5)

    changes = [
        call(breaker, Result.SUCCESS if number % 5 == 0 else Result.FAILURE, number / 100) for number in range(20)
    ]

    assert changes[:-1] == [None] * 19
    assert changes[-1] is not None
    assert changes[-1].after is CircuitState.OPEN
    assert changes[-1].reason == "16 of 20 calls failed"


def test_a_vendor_that_says_no_to_the_probe_is_alive() -> None:
    breaker = circuit(probes_to_close=1)
    due = opened(breaker)

    change = call(breaker, Result.SUCCESS, due)  # a 404 counts as one: see test_decide

    assert change == Transition(CircuitState.HALF_OPEN, CircuitState.CLOSED, "probes passed")


# Opening.


def test_hard_failures_in_a_row_open_it_even_at_low_traffic() -> None:
    breaker = circuit(consecutive=3)

    changes = [call(breaker, Result.FAILURE, number * 100.0) for number in range(3)]

    assert changes[:2] == [None, None]
    assert changes[2] is not None
    assert changes[2].reason == "3 hard failures in a row"


def test_a_success_ends_a_row_and_a_soft_or_neutral_result_does_not() -> None:
    breaker = circuit(consecutive=2)
    call(breaker, Result.FAILURE, 0)
    call(breaker, Result.SUCCESS, 0)
    call(breaker, Result.FAILURE, 0)
    call(breaker, Result.FAILURE, 0, hard=False)
    call(breaker, Result.NEUTRAL, 0)
    assert breaker.state(0) is CircuitState.CLOSED

    assert call(breaker, Result.FAILURE, 0) is not None


def test_a_rate_means_nothing_below_the_minimum_of_calls() -> None:
    breaker = circuit(minimum_calls=20)

    for _ in range(19):
        assert call(breaker, Result.FAILURE, 0, hard=False) is None

    assert call(breaker, Result.FAILURE, 0, hard=False) is not None


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = circuit(minimum_calls=20)
    for _ in range(19):
        call(breaker, Result.FAILURE, 0, hard=False)

    call(breaker, Result.FAILURE, 10, hard=False)

    assert breaker.state(10) is CircuitState.CLOSED
    assert breaker.snapshot(10).calls == 1


def test_slow_calls_open_it_only_where_slow_is_defined() -> None:
    for slow_after, state in ((None, CircuitState.CLOSED), (1, CircuitState.OPEN)):
        breaker = circuit(slow_after=slow_after)

        for number in range(20):
            call(breaker, Result.SUCCESS, 0, slow=number >= 4)

        assert breaker.state(0) is state


def test_while_open_nobody_is_admitted_and_the_wait_is_told() -> None:
    breaker = circuit(open_for=10)
    due = opened(breaker)

    denied = breaker.admit(due - 2, lease=LEASE)

    assert isinstance(denied, Denied)
    assert denied.retry_after == breaker.refuses(due - 2) == pytest.approx(2)


def test_the_open_time_is_shortened_by_up_to_half_at_random() -> None:
    spans = [opened(Circuit(Breaker(open_for=10), Random(seed))) for seed in range(200)]

    assert 5 <= min(spans) < 5.5
    assert 9.5 < max(spans) <= 10


def test_each_failed_probe_doubles_the_open_time_up_to_the_cap() -> None:
    breaker = circuit(open_for=5, open_cap=60)
    due = opened(breaker)

    spans: list[float] = []
    for _ in range(40):
        change = call(breaker, Result.FAILURE, due)
        assert change is not None
        assert (change.before, change.reason) == (CircuitState.HALF_OPEN, "probe failed")
        spans.append(change.open_for)
        due += change.open_for

    assert 5 <= spans[0] <= 10
    assert 10 <= spans[1] <= 20
    assert all(30 <= span <= 60 for span in spans[4:])


def test_each_healthy_window_takes_back_one_doubling() -> None:
    def third_span(healthy: float) -> float:
        breaker = Circuit(Breaker(open_for=8, probes_to_close=1, consecutive=1), Random(3))
        due = opened(breaker)
        for _ in range(2):
            change = call(breaker, Result.FAILURE, due)
            assert change is not None
            due += change.open_for
        call(breaker, Result.SUCCESS, due)
        return opened(breaker, due + healthy) - due - healthy

    assert [round(third_span(healthy) / third_span(1000), 2) for healthy in (9.9, 10, 20, 30)] == [4, 2, 1, 1]


def test_a_vendors_retry_after_keeps_it_open_at_least_so_long_and_at_most_fifteen_minutes() -> None:
    for asked, least, most in ((60.0, 60, 60), (1e9, 900, 900), (0.0, 2.5, 5)):
        breaker = circuit(consecutive=1)

        change = breaker.record(admitted(breaker, 0), Result.FAILURE, 0, hard=True, open_at_least=asked)

        assert change is not None
        assert least <= change.open_for <= most


# Half open.


def test_a_probe_before_its_time_does_not_make_the_next_wait_longer() -> None:
    breaker = circuit(open_for=5, open_cap=300)
    opened(breaker)

    waits = []
    for moment in range(1, 40):
        breaker.hasten(moment / 10)
        change = call(breaker, Result.FAILURE, moment / 10)
        assert change is not None
        waits.append(change.open_for)

    assert max(waits) <= 5
    due = 4 + waits[-1]
    later = call(breaker, Result.FAILURE, due)
    assert later is not None
    assert 5 <= later.open_for <= 10


def test_the_first_probe_reports_that_it_made_the_circuit_half_open() -> None:
    breaker = circuit()
    due = opened(breaker)

    assert admitted(breaker, due).change == Transition(CircuitState.OPEN, CircuitState.HALF_OPEN, "a probe is due")
    assert breaker.admit(due, lease=LEASE) == Denied(5)


def test_as_many_probes_in_a_row_as_the_policy_says_close_it() -> None:
    breaker = circuit(probes_to_close=3)
    due = opened(breaker)

    changes = [call(breaker, Result.SUCCESS, due) for _ in range(3)]

    assert changes[:2] == [None, None]
    assert changes[2] is not None
    assert breaker.state(due) is CircuitState.CLOSED
    assert breaker.snapshot(due).calls == 0


def test_a_failed_probe_starts_the_count_of_probes_over() -> None:
    breaker = circuit(probes_to_close=2)
    due = opened(breaker)
    call(breaker, Result.SUCCESS, due)
    again = call(breaker, Result.FAILURE, due)
    assert again is not None

    assert call(breaker, Result.SUCCESS, due + again.open_for) is None

    assert breaker.state(due + again.open_for) is CircuitState.HALF_OPEN


def test_a_slow_probe_does_not_pass_where_slow_calls_count() -> None:
    breaker = circuit(slow_after=1, probes_to_close=1)
    due = opened(breaker)

    change = call(breaker, Result.SUCCESS, due, slow=True)

    assert change is not None
    assert (change.after, change.reason) == (CircuitState.OPEN, "probe was slow")


def test_a_probe_that_outlives_its_lease_frees_the_place_and_then_says_nothing() -> None:
    breaker = circuit(probes_to_close=1)
    due = opened(breaker)
    lost = admitted(breaker, due)
    assert isinstance(breaker.admit(due + LEASE - 0.01, lease=LEASE), Denied)

    second = admitted(breaker, due + LEASE)

    assert breaker.record(lost, Result.FAILURE, due + LEASE, hard=True) is None
    assert breaker.record(lost, Result.SUCCESS, due + LEASE) is None
    assert breaker.state(due + LEASE) is CircuitState.HALF_OPEN
    assert breaker.record(second, Result.SUCCESS, due + LEASE) is not None


def test_a_probe_counts_once() -> None:
    breaker = circuit(probes_to_close=2)
    due = opened(breaker)
    probe = admitted(breaker, due)

    breaker.record(probe, Result.SUCCESS, due)
    breaker.record(probe, Result.SUCCESS, due)

    assert breaker.state(due) is CircuitState.HALF_OPEN


# By hand.


def test_isolated_lets_nothing_through_until_it_is_automatic_again() -> None:
    breaker = circuit()

    assert breaker.isolate("maintenance", 0) == Transition(CircuitState.CLOSED, CircuitState.ISOLATED, "maintenance")
    assert breaker.admit(1e9, lease=LEASE) == Denied(None)
    assert breaker.snapshot(1e9).retry_after is None
    assert breaker.snapshot(1e9).reason == "maintenance"

    assert breaker.automatic(1e9).after is CircuitState.CLOSED
    assert isinstance(breaker.admit(1e9, lease=LEASE), Permit)


def test_an_override_ends_by_itself_and_that_is_told() -> None:
    breaker = circuit()
    breaker.isolate("maintenance", 0, ttl=60)

    assert breaker.admit(59, lease=LEASE) == Denied(1)
    assert admitted(breaker, 60).change == Transition(CircuitState.ISOLATED, CircuitState.CLOSED, "override ended")


def test_a_probe_from_before_it_was_isolated_decides_nothing() -> None:
    breaker = circuit(probes_to_close=1)
    due = opened(breaker)
    probe = admitted(breaker, due)
    breaker.isolate("maintenance", due)

    assert breaker.record(probe, Result.SUCCESS, due) is None

    assert breaker.automatic(due).after is CircuitState.HALF_OPEN


def test_metrics_only_counts_and_never_opens() -> None:
    breaker = circuit()
    breaker.metrics_only("watching", 0)

    for _ in range(100):
        assert call(breaker, Result.FAILURE, 0) is None

    assert breaker.state(0) is CircuitState.METRICS_ONLY
    assert breaker.snapshot(0).failures == 100


def test_what_was_admitted_while_only_watched_does_not_prolong_an_open_period() -> None:
    breaker = circuit(consecutive=1)
    due = opened(breaker)
    breaker.metrics_only("watching", 0, ttl=1)
    late = admitted(breaker, 0)

    change = breaker.record(late, Result.FAILURE, 2, hard=True)

    assert change == Transition(CircuitState.METRICS_ONLY, CircuitState.OPEN, "override ended")
    assert breaker.refuses(2) == pytest.approx(due - 2)


def test_close_closes_at_once_and_it_may_open_again() -> None:
    breaker = circuit()
    opened(breaker)

    assert breaker.close("fixed", 1) == Transition(CircuitState.OPEN, CircuitState.CLOSED, "fixed")

    admitted(breaker, 1)
    opened(breaker, 1)


def test_an_instant_in_the_past_disturbs_no_count() -> None:
    window = Window(10)
    window.add(100, failure=True, slow=False)

    window.add(50, failure=False, slow=False)
    window.roll(101)

    assert (window.calls, window.failures) == (2, 1)


# Every history.


class Histories(RuleBasedStateMachine):
    """Calls come, end early or late, in any order, through every state."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.circuit = circuit(consecutive=3, minimum_calls=5, open_for=1, open_cap=8, slow_after=1)
        self.now = 0.0
        self.state = CircuitState.CLOSED
        self.probing: dict[int, float] = {}
        self.generation = 1

    def told(self, change: Transition | None) -> None:
        if change is not None:
            assert change.before is self.state
            self.state = change.after

    @rule(target=permits, lease=st.floats(0.5, 5))
    def admit(self, lease: float) -> Permit | None:
        refuses = self.circuit.refuses(self.now)
        answer = self.circuit.admit(self.now, lease=lease)
        self.told(answer.change)
        assert isinstance(answer, Denied) == (refuses is not None)
        if isinstance(answer, Denied):
            return None
        assert self.circuit.state(self.now) in (
            CircuitState.CLOSED,
            CircuitState.HALF_OPEN,
            CircuitState.METRICS_ONLY,
        )
        if answer.probe:
            assert all(until <= self.now for until in self.probing.values()), "two probes in flight"
            self.probing[answer.probe] = self.now + lease
        return answer

    @rule(
        permit=permits,
        result=st.sampled_from(Result),
        hard=st.booleans(),
        slow=st.booleans(),
        asked=st.sampled_from([0.0, 3.0]),
    )
    def record(self, permit: Permit | None, result: Result, hard: bool, slow: bool, asked: float) -> None:
        if permit is None:
            return
        self.tick()
        before = self.circuit.snapshot(self.now)
        stale = permit.generation != before.generation
        change = self.circuit.record(permit, result, self.now, hard=hard, slow=slow, open_at_least=asked)
        after = self.circuit.snapshot(self.now)
        self.told(change)
        self.probing.pop(permit.probe, None)
        if stale:
            assert change is None
            assert after == before
        if result is Result.NEUTRAL:
            assert change is None
            assert (after.state, after.generation, after.calls) == (before.state, before.generation, before.calls)
        if change is not None:
            assert after.generation > before.generation

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(state=st.sampled_from(["isolate", "metrics_only"]), ttl=st.none() | st.floats(0.1, 5))
    def override(self, state: str, ttl: float | None) -> None:
        self.tick()
        self.told(getattr(self.circuit, state)("by hand", self.now, ttl=ttl))
        self.probing.clear()

    @rule()
    def automatic(self) -> None:
        self.tick()
        self.told(self.circuit.automatic(self.now))
        self.probing.clear()

    @rule()
    def close(self) -> None:
        self.tick()
        self.told(self.circuit.close("by hand", self.now))
        self.probing.clear()

    def tick(self) -> None:
        """Let an override whose time is over be noticed, as any result of an old call would."""
        self.told(self.circuit.record(Permit(0, 0), Result.NEUTRAL, self.now))

    @invariant()
    def the_state_is_what_was_told(self) -> None:
        self.tick()
        assert self.circuit.state(self.now) is self.state

    @invariant()
    def generations_only_grow(self) -> None:
        generation = self.circuit.snapshot(self.now).generation
        assert generation >= self.generation
        self.generation = generation

    @invariant()
    def nobody_is_locked_out_for_ever(self) -> None:
        refuses = self.circuit.refuses(self.now)
        if refuses is not None and self.circuit.state(self.now) is not CircuitState.ISOLATED:
            assert 0 < refuses <= 8


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
