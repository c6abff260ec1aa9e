"""Someone else's outage stays theirs: what policies do in ten minutes of it, in seconds."""

import asyncio
import signal
import threading
from datetime import timedelta
from time import process_time

import pytest

from holdfast.clock import SystemClock
from holdfast.errors import InvalidInput
from holdfast.outcome import Cause, Effect
from holdfast.resilience import Breaker, CircuitState, Policy
from holdfast.resilience.budget import KEPT
from holdfast.resilience.context import deadline_scope
from holdfast.resilience.policy import Budget
from holdfast.resilience.simulate import ERRORS, SILENT, UNREACHABLE, Failure, simulate

TEN_MINUTES = 600


@pytest.mark.parametrize("failure", [ERRORS, UNREACHABLE], ids=["errors", "unreachable"])
@pytest.mark.parametrize("effect", [Effect.READ, Effect.ONCE])
@pytest.mark.parametrize("seed", [1, 2])
def test_under_two_percent_of_the_calls_of_a_ten_minute_outage_reach_the_provider(
    failure: Failure, effect: Effect, seed: int
) -> None:
    simulation = simulate(Policy(), rps=5, outage=TEN_MINUTES, duration=660, failure=failure, effect=effect, seed=seed)

    assert simulation.offered == 5 * TEN_MINUTES
    assert simulation.sent_over_offered < 0.02


def test_the_busier_the_program_the_smaller_the_share_and_ten_minutes_take_seconds() -> None:
    begun = process_time()

    simulation = simulate(Policy(), rps=50, outage=TEN_MINUTES, start=10, duration=610)

    assert simulation.sent_over_offered < 0.002
    assert process_time() - begun < TEN_MINUTES / 20  # two seconds, and room for coverage


def test_of_a_provider_that_never_answers_the_calls_within_one_timeout_are_sent_besides() -> None:
    patient, brisk = (
        simulate(Policy(timeout=timeout), rps=5, outage=TEN_MINUTES, duration=660, failure=SILENT)
        for timeout in (30, 5)
    )

    assert brisk.sent_over_offered < 0.02
    assert 30 / TEN_MINUTES <= patient.sent_over_offered < 30 / TEN_MINUTES + 0.02


def test_a_policy_without_circuit_and_retry_sends_every_call_once() -> None:
    simulation = simulate(Policy(retry=None, breaker=None), rps=5, outage=60, duration=120)

    assert simulation.sent_over_offered == simulation.amplification == 1.0
    assert simulation.recovery == 0.0
    assert {second.state for second in simulation.seconds} == {CircuitState.CLOSED}


@pytest.mark.parametrize("rps", [5, 50])
def test_failures_at_random_are_repeated_within_the_budget_only(rps: int) -> None:
    simulation = simulate(Policy(breaker=None), rps=rps, outage=60, duration=120, failure=Failure(share=0.4))

    budget = Budget()
    saved_up = KEPT * (budget.share * rps + budget.reserve) / simulation.offered
    assert simulation.sent_over_offered <= 1 + budget.share + budget.reserve / rps + saved_up
    assert simulation.sent_over_offered < 1.56  # what three attempts each would make


def test_timeouts_at_random_cost_twice_as_much_of_the_budget() -> None:
    lost = Failure(share=0.4, after=timedelta(hours=1))

    simulation = simulate(Policy(timeout=1, breaker=None), rps=50, outage=60, duration=120, failure=lost)

    assert 1.1 < simulation.sent_over_offered <= 1.2


def test_one_failure_in_a_hundred_never_opens_the_circuit() -> None:
    simulation = simulate(Policy(), rps=5, outage=TEN_MINUTES, duration=660, failure=Failure(share=0.01))

    assert simulation.changes == ()
    assert simulation.sent_over_offered < 1.02


def test_recovery_is_decided_by_one_probe_at_a_time() -> None:
    simulation = simulate(Policy(), rps=20, outage=60, duration=210, latency=1.0)

    [closed_again] = [change.at for change in simulation.changes if change.signal.after == CircuitState.CLOSED]
    settled = simulation.outage.start + 3
    probes = sum(simulation.seconds[at].sent for at in range(settled, int(closed_again)))
    half_open = [change for change in simulation.changes if change.signal.after == CircuitState.HALF_OPEN]
    assert simulation.probes_at_once == 1
    assert len(half_open) <= probes <= len(half_open) + 1  # in the last period two, one after the other
    assert simulation.recovery == closed_again - simulation.outage.stop
    assert simulation.recovery <= simulation.longest_open + 2 * 1.5 + 1


def test_after_recovery_every_call_goes_through_again() -> None:
    simulation = simulate(Policy(), rps=10, outage=60, duration=240)

    last_minute = simulation.seconds[-60:-1]
    assert {(second.offered, second.sent, second.rejected) for second in last_minute} == {(10, 10, 0)}


def test_a_circuit_that_opens_only_after_the_outage_has_to_recover_too() -> None:
    policy = Policy(timeout=10, breaker=Breaker(failure_rate=0.2))

    simulation = simulate(policy, rps=5, outage=5, duration=120, failure=SILENT)

    assert min(change.at for change in simulation.changes) > simulation.outage.stop
    assert simulation.recovery is not None
    assert simulation.recovery > 5


def test_recovery_is_unknown_when_the_run_ends_before_it() -> None:
    simulation = simulate(Policy(), rps=5, outage=120, start=10, duration=130)

    assert simulation.recovery is None
    assert "was not closed again within the run" in simulation.summary()
    assert simulation.verdict.endswith("no recovery within the run")


def test_every_call_succeeds_is_rejected_or_fails_at_the_provider() -> None:
    policy = Policy(retry=None)

    simulation = simulate(policy, rps=10, outage=60, duration=200)

    offered, sent, succeeded, rejected = (
        sum(getattr(second, name) for second in simulation.seconds)
        for name in ("offered", "sent", "succeeded", "rejected")
    )
    assert offered == sent + rejected == 2000
    assert 0 < sent - succeeded < 20


def test_a_503_with_retry_after_keeps_the_circuit_open_for_as_long_as_asked() -> None:
    asked = Failure(status=503, retry_after=120)

    simulation = simulate(Policy(retry=None), rps=5, outage=60, duration=120, failure=asked)

    assert [change.signal.open_for for change in simulation.changes if change.signal.open_for] == [120.0]


def test_a_provider_that_only_becomes_slow_opens_the_circuit_where_slowness_counts() -> None:
    slow = Failure(cause=None, after=3)
    unmindful, mindful = (
        simulate(Policy(breaker=Breaker(slow_after=after)), rps=10, outage=60, duration=120, failure=slow)
        for after in (None, 1)
    )

    assert unmindful.changes == ()
    assert mindful.changes[0].signal.reason.endswith("calls were slow")


def test_the_same_seed_gives_the_same_run() -> None:
    one, again, other = (simulate(Policy(), rps=5, outage=60, duration=150, seed=seed) for seed in (1, 1, 2))

    assert one == again
    assert one.changes != other.changes


async def test_it_runs_beside_a_running_loop_and_outside_its_callers_deadline() -> None:
    with deadline_scope(1.0, SystemClock()):
        simulation = await asyncio.to_thread(simulate, Policy(), rps=5, outage=60, duration=120)
        here = simulate(Policy(), rps=5, outage=60, duration=120)

    assert simulation == here
    assert here.sent > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rps": 0}, "rps is above 0"),
        ({"outage": -1}, "outage is 0 or more seconds"),
        ({"outage": 1.5}, "outage is a whole number of seconds"),
        ({"start": float("nan")}, "start is 0 or more seconds"),
        ({"latency": -1}, "latency is 0 or more seconds"),
        ({"outage": 0, "start": 0}, "the outage ends after 0 s"),
        ({"duration": 60}, "the outage ends after 120 s, above 0, and the run after it, not after 60 s"),
        ({"failure": Failure(share=1.5)}, "failure.share is from 0 to 1"),
        ({"failure": Failure(after=-1)}, "failure.after is 0 or more seconds"),
    ],
)
def test_numbers_that_make_no_run_are_refused(options: dict[str, float], complaint: str) -> None:
    arguments: dict[str, float] = {"rps": 5, "outage": 60} | options

    with pytest.raises(InvalidInput, match=complaint):
        simulate(Policy(), **arguments)  # type: ignore[arg-type]  # a table of wrong ones


def test_progress_is_told_once_a_second() -> None:
    shares: list[float] = []

    simulate(Policy(), rps=5, outage=10, start=5, duration=20, progress=shares.append)

    assert shares == [pytest.approx(second / 20) for second in range(1, 20)]


def test_an_interrupted_run_ends_at_its_next_call() -> None:
    shares: list[float] = []
    here = threading.get_ident()

    def interrupt(share: float) -> None:
        shares.append(share)
        if len(shares) == 100:  # by now this thread waits
            signal.pthread_kill(here, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        simulate(Policy(), rps=100, outage=3600, start=0, progress=interrupt)

    assert shares[-1] < 0.5


def test_a_call_that_was_refused_for_lack_of_credentials_says_nothing_of_the_circuit() -> None:
    simulation = simulate(
        Policy(), rps=5, outage=60, duration=120, failure=Failure(cause=Cause.CREDENTIAL, status=401, hard=False)
    )

    assert simulation.changes == ()
    assert simulation.amplification == 1.0
