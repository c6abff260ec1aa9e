"""A trailing window, to the call and to the second."""

import re

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults.errors import InvalidPlan
from holdfast.testing.scenario import CALM, Scenario
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.rates import Rate, SlidingWindow
from holdfast.testing.simulators.server import Server
from holdfast.testing.simulators.simulator import Request, Simulator


async def test_a_call_counts_for_as_long_as_the_window_and_no_longer() -> None:
    # given
    clock = ManualClock()
    window = SlidingWindow(clock, 2, 10)
    waits: list[float] = []

    # when
    for step in (4, 3, 2, 1):
        waits.append(window.wait())
        if not waits[-1]:
            window.take()
        await clock.advance(step)

    # then
    assert waits == [0, 0, 3, 1]
    assert window.wait() == 0


async def test_a_limit_of_zero_lets_everything_through() -> None:
    window = SlidingWindow(ManualClock(), 0, 10)
    for _ in range(100):
        window.take()
    assert window.wait() == 0


@pytest.mark.parametrize(("calls", "burst"), [(1, 2), (2, 1), (3, 3)])
async def test_a_burst_passes_at_once_and_is_made_up_for(calls: int, burst: int) -> None:
    # given
    clock = ManualClock()
    window = SlidingWindow(clock, calls, 10, burst=burst)

    def passed() -> int:
        for number in range(20):
            if window.wait():
                return number
            window.take()
        return 20

    # then
    assert passed() == calls + burst
    await clock.advance(9.9)
    assert passed() == 0
    for silence in (0.1, 10, 10):  # at the steady rate none of the burst comes back
        await clock.advance(silence)
        assert passed() == calls
    await clock.advance(10 * (burst + calls))
    assert passed() == calls + burst


async def test_who_waits_as_long_as_it_is_told_is_let_through() -> None:
    # given
    clock, waits = ManualClock(), list[float]()
    window = SlidingWindow(clock, 2, 10, burst=1)

    # when
    for _ in range(7):
        waits.append(window.wait())
        await clock.advance(waits[-1])
        assert window.wait() == 0
        window.take()

    # then
    assert waits == [0, 0, 0, 10, 0, 10, 0]


# At a vendor


def made(vendor: str, clock: ManualClock) -> Simulator:
    return load_simulator(vendor)(clock=clock)


def asked(simulator: Simulator) -> Request:
    """Anything the vendor has an answer to."""
    method, pattern, _, _ = simulator._routes[0]
    target = re.sub(r"\\(.)", r"\1", re.sub(r"\(\?P<\w+>[^)]*\)", "some", pattern.pattern))
    return Request(method=method, target=target, headers=(("host", simulator.hosts[0] if simulator.hosts else ""),))


@pytest.mark.parametrize("vendor", sorted(installed_simulators()))
async def test_every_vendor_can_be_told_how_many_calls_to_let_through(vendor: str) -> None:
    # given
    clock = ManualClock()
    simulator = made(vendor, clock)
    request = asked(simulator)

    def statuses(calls: int) -> list[int]:
        found = [simulator.exchange(request).response for _ in range(calls)]
        return [one.status for one in found if one is not None]

    usual = statuses(1)[0]
    refused = simulator.limited(1).status

    # then
    simulator.at_most = Rate(1, 60, burst=1)
    assert statuses(3) == [usual, usual, refused]
    await clock.advance(60)
    assert statuses(2) == [usual, refused]

    simulator.reset()
    assert statuses(3) == [usual, usual, refused]

    simulator.at_most = Rate(0)
    assert set(statuses(300)) == {usual}
    assert refused in (429, 403)


async def test_the_vendors_own_limit_holds_until_another_is_set_and_again_afterwards() -> None:
    # given
    stripe = made("stripe", ManualClock())
    key = f"Bearer {stripe.credentials['api_key']}"

    def calls() -> list[int]:
        request = Request(method="GET", target="/v1/balance", headers=(("authorization", key),))
        found = [stripe.exchange(request).response for _ in range(26)]
        return [one.status for one in found if one is not None]

    # then
    assert calls().count(429) == 1
    stripe.at_most = Rate(0)
    assert calls().count(429) == 0
    stripe.at_most = None
    assert calls().count(429) == 26  # what had passed before is not forgotten


def test_a_run_as_a_file_says_how_many_calls_vendors_let_through() -> None:
    scenario = Scenario.from_json({"at_most": {"stripe": {"calls": 2, "burst": 5}, "*": {"calls": 0}}})

    assert scenario.rate("stripe") == Rate(2, burst=5)
    assert scenario.rate("zoom") == Rate(0)
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert scenario.vendors == {"stripe"}
    assert CALM.rate("stripe") is None


def test_a_server_takes_them_from_its_scenario() -> None:
    scenario = Scenario.from_json({"at_most": {"stripe": {"calls": 2}}})

    server = Server(["stripe", "zoom"], scenario=scenario)

    assert server.simulators["stripe"].at_most == Rate(2)
    assert server.simulators["zoom"].at_most is None


@pytest.mark.parametrize("nonsense", [{"calls": -1}, {"calls": 1, "seconds": 0}, {"calls": 1, "burst": -1}])
def test_a_rate_that_makes_no_sense_is_refused(nonsense: dict[str, float]) -> None:
    with pytest.raises(InvalidPlan):
        Scenario.from_json({"at_most": {"stripe": nonsense}})
