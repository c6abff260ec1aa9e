"""From a history that fails to the simplest that fails the same way."""

from collections.abc import Callable

import pytest

from holdfast.testing.explore import History
from holdfast.testing.explore.history import Step
from holdfast.testing.explore.shrinking import shrink

Steps = tuple[Step, ...]


def shrunk(line: str, fails: Callable[[str], bool], most: int = 300) -> tuple[str, list[str]]:
    """What is left of the history, and everything that was tried."""
    tried: list[str] = []

    def asked(steps: Steps) -> bool:
        tried.append(str(History(0, steps)))
        return fails(tried[-1])

    return str(History(0, shrink(History.parse(line).steps, asked, most=most))), tried


def test_steps_that_are_not_needed_are_left_out() -> None:
    left, _ = shrunk("crash@5 webhook#1=never a.b#0=hang", lambda line: "webhook#1=never" in line)

    assert left == "webhook#1=never"


def test_a_step_that_is_not_needed_is_left_out_even_if_it_could_be_simpler() -> None:
    left, tried = shrunk("crash@90 crash@99", lambda line: bool(line))

    assert left == "crash@0"
    assert tried[0] == "crash@99"


@pytest.mark.parametrize("first", [0, 1, 63, 64, 99])
def test_a_crash_moves_to_the_earliest_place(first: int) -> None:
    left, tried = shrunk("crash@100", lambda line: line != "" and int(line.removeprefix("crash@")) >= first)

    assert left == f"crash@{first}"
    assert len(tried) < 100


def test_a_call_fails_as_harmlessly_and_as_early_as_it_can() -> None:
    left, _ = shrunk("a.b#4=hang", lambda line: line.startswith(("a.b#2", "a.b#4")))

    assert left == "a.b#2=refused"


def test_a_webhook_comes_as_harmlessly_and_as_early_as_it_can() -> None:
    left, _ = shrunk("webhook#3=never", lambda line: line.endswith(("never", "last")) and line >= "webhook#1")

    assert left == "webhook#1=last"


def test_two_steps_never_meet_at_one_place() -> None:
    left, _ = shrunk("crash@3 crash@7", lambda line: len(line.split()) == 2)

    assert sorted(left.split()) == ["crash@0", "crash@1"]


def test_it_ends_after_so_many_runs() -> None:
    left, tried = shrunk("crash@1000", lambda line: "crash@" in line and int(line[6:]) % 7 == 6, most=5)

    assert len(tried) == 5
    assert left == "crash@1000"


def test_nothing_is_tried_twice() -> None:
    _, tried = shrunk("crash@50 a.b#2=reset webhook#2=never", lambda line: "crash" in line and "webhook" in line)

    assert len(tried) == len(set(tried))
