"""A trailing window, to the call and to the second."""

from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.rates import SlidingWindow


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
