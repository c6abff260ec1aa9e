"""How much work a worker has at hand."""

import pytest

from holdfast.queue.pace import MOST, Pace


class Watch:
    seconds = 100.0

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


def pass_time(watch: Watch, pace: Pace, *, ended: int, seconds: float) -> int:
    for _ in range(ended):
        pace.ended()
    watch.seconds += seconds
    return pace.ahead()


def test_it_has_as_much_at_hand_as_ends_in_a_twentieth_of_a_second(watch: Watch) -> None:
    pace = Pace(watch.now)

    pass_time(watch, pace, ended=100, seconds=0.05)

    assert pass_time(watch, pace, ended=100, seconds=0.05) == 100


def test_a_burst_after_a_silence_is_not_a_pace(watch: Watch) -> None:
    pace = Pace(watch.now)

    pass_time(watch, pace, ended=0, seconds=1)

    assert pass_time(watch, pace, ended=16, seconds=0.02) == 0


def test_whoever_is_slow_has_nothing_at_hand(watch: Watch) -> None:
    pace = Pace(watch.now)

    pass_time(watch, pace, ended=16, seconds=1)

    assert pass_time(watch, pace, ended=16, seconds=1) == 0


def test_there_is_never_more_than_the_most_at_hand(watch: Watch) -> None:
    pace = Pace(watch.now)

    pass_time(watch, pace, ended=100_000, seconds=0.1)

    assert pass_time(watch, pace, ended=100_000, seconds=0.1) == MOST
