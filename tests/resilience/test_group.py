"""Groups of providers: the time is shared, and not all of them are ever shut."""

import pytest

from holdfast.errors import CircuitOpen, OutcomeUnknown
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.group import never_shut, share
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.testing.clock import ManualClock


async def answer() -> str:
    return "answer"


async def fail() -> str:
    raise OutcomeUnknown("down", hard=True)


async def opened(name: str, clock: ManualClock, *, open_for: float) -> Guard:
    """A guard whose circuit is open for half of `open_for` seconds or more."""
    breaker = Breaker(consecutive=1, open_for=open_for, open_cap=1000, probes_to_close=1)
    guard = Guard(name, Policy(retry=None, breaker=breaker), clock=clock)
    with pytest.raises(OutcomeUnknown):
        await guard.read(fail)
    return guard


async def test_where_all_are_open_the_one_due_first_is_tried_at_once() -> None:
    clock = ManualClock()
    late, soon = await opened("late", clock, open_for=300), await opened("soon", clock, open_for=10)

    chosen = never_shut([late, soon], "answer")

    assert chosen is soon
    assert await soon.read(answer) == "answer"
    assert soon.snapshot().circuits[""].state is CircuitState.CLOSED
    with pytest.raises(CircuitOpen):
        await late.read(answer)


async def test_while_one_is_closed_the_others_stay_open() -> None:
    clock = ManualClock()
    shut, well = await opened("shut", clock, open_for=10), Guard("well", clock=clock)

    assert never_shut([shut, well], "answer") is None

    with pytest.raises(CircuitOpen):
        await shut.read(answer)


async def test_one_that_is_being_tried_out_is_not_tried_again() -> None:
    clock = ManualClock()
    guard = await opened("only", clock, open_for=10)
    never_shut([guard], "answer")
    async with guard.attempt():
        never_shut([guard], "answer")

        with pytest.raises(CircuitOpen):
            await guard.read(answer)


async def test_a_circuit_isolated_by_hand_stays_so() -> None:
    clock = ManualClock()
    guard = Guard("only", clock=clock)
    guard.isolate("maintenance")

    assert never_shut([guard], "answer") is None

    with pytest.raises(CircuitOpen, match="maintenance"):
        await guard.read(answer)


async def test_a_group_of_nobody_is_nothing() -> None:
    assert never_shut([], "answer") is None


@pytest.mark.parametrize(
    ("left", "among", "usual", "expected"),
    [(9.0, 3, 0.0, 3.0), (9.0, 3, 5.0, 5.0), (9.0, 3, 20.0, 9.0), (9.0, 0, 0.0, 9.0), (0.0, 2, 1.0, 0.0)],
)
def test_a_share_is_equal_but_as_long_as_the_operation_usually_takes(
    left: float, among: int, usual: float, expected: float
) -> None:
    assert share(left, among, usual) == expected
