"""How long it took until what a dead process ran began again, as the kill loop reckons it."""

from dataclasses import replace

import pytest

from chaos.history import Fault, History, Run, Sent
from chaos.stage import OPTIONS, recoveries

FIRST = Run(queue="events", job="1", id="a", token=1, began=10.0, pid=7)
AGAIN = replace(FIRST, token=2, began=12.0, ended=12.1, pid=8)
DIED = Fault(what="died", pid=7, at=10.5)
HISTORY = History(sent={"a": Sent(id="a", mode="held")}, runs=[FIRST, AGAIN], faults=[DIED])


def test_it_counts_from_the_death_to_the_next_start() -> None:
    [recovery] = recoveries(HISTORY, OPTIONS)

    assert (recovery.seconds, recovery.idle) == (1.5, True)
    assert recovery.within >= OPTIONS.lease + OPTIONS.heartbeat + OPTIONS.idle


def test_when_who_could_have_taken_over_died_as_well_it_counts_from_then() -> None:
    history = replace(HISTORY, faults=[DIED, Fault(what="died", pid=9, at=11.5)])

    [recovery] = recoveries(history, OPTIONS)

    assert recovery.seconds == 0.5


@pytest.mark.parametrize(
    "history",
    [
        replace(HISTORY, runs=[replace(FIRST, ended=10.2), AGAIN]),
        replace(HISTORY, runs=[FIRST, replace(AGAIN, generation=1)]),
        replace(HISTORY, runs=[FIRST, replace(AGAIN, losses=2)]),
        replace(HISTORY, faults=[DIED, Fault(what="outage", at=11.0, until=11.5)]),
        replace(HISTORY, faults=[]),
    ],
    ids=["it had ended", "it was replayed", "it had to run alone", "the store was away", "nobody died"],
)
def test_what_says_nothing_of_recovery_is_left_out(history: History) -> None:
    assert recoveries(history, OPTIONS) == []


def test_while_jobs_begin_one_after_the_other_workers_are_busy() -> None:
    others = [replace(FIRST, job=f"o{n}", pid=8, began=11.0 + n * 0.05, ended=11.0 + n * 0.05) for n in range(10)]

    [recovery] = recoveries(replace(HISTORY, sent={}, runs=[FIRST, *others, AGAIN]), OPTIONS)

    assert not recovery.idle
    assert recovery.busy == pytest.approx(0.45)
