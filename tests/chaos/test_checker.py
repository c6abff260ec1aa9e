"""The oracle: it finds nothing in a good history, and for every invariant there is a history it refuses."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from chaos.checker import INVARIANTS, check, doubled, lost, reruns
from chaos.history import Change, Claim, Effect, Fault, History, Recovery, Replay, Row, Run, Sample, Sent

COUNTS = {("deliveries", "done"): 3, ("events", "done"): 2, ("events", "dead"): 1}


def run(id: str, token: int, began: float, **more: Any) -> Run:
    """A run of an event's job that took a tenth of a second."""
    facts: dict[str, Any] = {
        "queue": "events",
        "job": id,
        "ended": began + 0.1,
        "outcome": "done",
        "pid": 1,
    }
    return Run(id=id, token=token, began=began, **(facts | more))


def claim(job: str, token: int, at: float) -> Claim:
    return Claim(job=job, token=token, asked=at - 0.01, at=at)


def complete(job: str, token: int, at: float) -> Change:
    return Change(verb="complete", job=job, token=token, asked=at, at=at + 0.01)


def rows(**states: str) -> list[Row]:
    """A delivery that is done and an event in some state, for each id."""
    return [
        row
        for id, state in states.items()
        for row in (
            Row(queue="deliveries", job=f"d-{id}", id=id, key=f"chaos/{id}", state="done", token=1),
            Row(
                queue="events",
                job=id,
                id=id,
                key=f"chaos/{id}/count",
                state=state,
                token=2,
                reason="poison" if state == "dead" else "",
                losses=3 if state == "dead" else 0,
            ),
        )
    ]


# Of three deliveries of one object, the first was run by a process that died, the last one killed three.
GOOD = History(
    sent={
        "a": Sent(id="a", order="o", seq=1, answers=(None, 200)),
        "b": Sent(id="b", order="o", seq=2, answers=(503, 200, 200)),
        "c": Sent(id="c", order="", seq=0, mode="deadly", answers=(200,)),
        "never": Sent(id="never", order="o", seq=3, answers=(None,)),
    },
    effects=[
        Effect(id="a", handler="count", generation=0, token=2),
        Effect(id="b", handler="count", generation=0, token=1),
    ],
    runs=[
        run("a", 1, 1.0, ended=None, outcome="", pid=7),
        run("a", 2, 2.0),
        run("b", 1, 3.0),
    ],
    claims=[claim("a", 1, 0.9), claim("a", 2, 1.9), claim("b", 1, 2.9)],
    changes=[complete("a", 2, 2.1), complete("b", 1, 3.1)],
    rows=rows(a="done", b="done", c="dead"),
    counts=COUNTS,
    faults=[Fault(what="died", pid=7, at=1.05)],
    samples=[Sample(least=2, rows=3, most=4)],
    recoveries=[Recovery(seconds=0.95, within=2.0)],
    replays=[Replay(job="a", before=0, after=1, requests=3)],
    beside_blocked=0.97,
    leftovers={"keys": (0, 0)},
)

REFUSED: Mapping[str, list[History]] = {
    "I1": [
        replace(GOOD, effects=GOOD.effects[1:], rows=rows(b="done", c="dead")),
        replace(GOOD, effects=GOOD.effects[1:], rows=rows(a="leased", b="done", c="dead")),
    ],
    "I2": [
        replace(GOOD, effects=[*GOOD.effects, Effect(id="x", handler="count", generation=0, token=1)]),
        replace(GOOD, effects=[replace(GOOD.effects[0], variant="other"), GOOD.effects[1]]),
        replace(GOOD, rows=[*GOOD.rows, *rows(x="done")]),
    ],
    "I3": [
        replace(GOOD, effects=[*GOOD.effects, GOOD.effects[0]]),
        replace(GOOD, effects=GOOD.effects[:1]),
        replace(GOOD, faults=[]),
        replace(GOOD, runs=[*GOOD.runs, run("b", 2, 3.5)]),
    ],
    "I4": [
        replace(GOOD, changes=[*GOOD.changes, complete("a", 1, 2.05)]),
        replace(GOOD, claims=[*GOOD.claims, claim("b", 1, 5.0)]),
        replace(GOOD, claims=[claim("a", 2, 0.9), claim("a", 1, 1.9)]),
    ],
    "I5": [
        replace(GOOD, runs=[*GOOD.runs[:2], run("b", 1, 2.05)]),
        replace(GOOD, runs=[run("b", 1, 0.5), *GOOD.runs[:2]]),
        replace(GOOD, runs=[GOOD.runs[0], run("b", 1, 1.5), run("a", 2, 2.0)]),
    ],
    "I6": [replace(GOOD, beside_blocked=0.2)],
    "I7": [replace(GOOD, recoveries=[Recovery(seconds=2.1, within=2.0)])],
    "I8": [
        replace(GOOD, rows=[replace(row, reason="") for row in GOOD.rows]),
        replace(GOOD, rows=[*GOOD.rows[:-1], replace(GOOD.rows[-1], losses=2)]),
        replace(GOOD, rows=[replace(row, attempts=25) for row in GOOD.rows]),
        replace(GOOD, rows=rows(a="dead", b="done", c="dead")),
        replace(GOOD, rows=rows(a="done", b="done", c="done")),
    ],
    "I9": [
        replace(GOOD, samples=[Sample(least=2, rows=1, most=4)]),
        replace(GOOD, samples=[Sample(least=2, rows=5, most=4)]),
        replace(GOOD, counts=COUNTS | {("events", "done"): 3}),
        replace(GOOD, rows=[*GOOD.rows, *rows(a="done")]),
        replace(GOOD, rows=rows(a="ready", b="done", c="dead")),
    ],
    "I10": [
        replace(GOOD, sent={**GOOD.sent, "a": replace(GOOD.sent["a"], answers=(500, 200))}),
        replace(GOOD, rows=rows(b="done", c="dead")),
    ],
    "I11": [replace(GOOD, leftovers={"keys": (1, 0)})],
    "I12": [
        replace(GOOD, replays=[Replay(job="a", before=0, after=2, requests=3)]),
        replace(GOOD, replays=[Replay(job="a", before=0, after=0, requests=3)]),
        replace(GOOD, replays=[*GOOD.replays] * 100, replay_seconds=0.1, replay_rate=100),
    ],
    "history": [replace(GOOD, places_left=["mark.after"])],
}


def test_in_a_good_history_nothing_is_wrong() -> None:
    assert check(GOOD) == []


def test_an_empty_history_breaks_no_promise() -> None:
    assert check(History()) == []


@pytest.mark.parametrize(
    ("invariant", "history"),
    [
        pytest.param(name, history, id=f"{name}-{at}")
        for name, those in REFUSED.items()
        for at, history in enumerate(those)
    ],
)
def test_a_history_that_breaks_a_promise_is_refused(invariant: str, history: History) -> None:
    assert invariant in {violation.invariant for violation in check(history)}


def test_every_invariant_has_a_history_it_refuses() -> None:
    assert set(REFUSED) == set(INVARIANTS)


def test_what_was_never_answered_may_be_lost() -> None:
    assert "never" not in " ".join(lost(GOOD))


@pytest.mark.parametrize("state", ["dead", "ignored"])
def test_what_somebody_can_look_at_and_replay_is_not_lost(state: str) -> None:
    history = replace(GOOD, effects=GOOD.effects[1:], rows=rows(a=state, b="done", c="dead"))

    assert lost(history) == []


def test_what_was_dropped_after_its_effect_is_not_lost() -> None:
    history = replace(GOOD, rows=rows(b="done", c="dead"), purged=True, counts={})

    assert lost(history) == []


def test_two_handlers_of_one_event_are_no_double() -> None:
    history = replace(GOOD, effects=[*GOOD.effects, replace(GOOD.effects[0], handler="other")])

    assert doubled(history) == []


@pytest.mark.parametrize(
    "reason",
    [
        {"changes": [*GOOD.changes, Change(verb="retry", job="a", token=1, asked=1.04, at=1.05)]},
        {"faults": [Fault(what="died", pid=7, at=1.05)]},
        {"faults": [Fault(what="frozen", pid=7, at=1.05)]},
        {"faults": [Fault(what="outage", at=0.5, until=1.5)]},
    ],
    ids=["given back", "died", "frozen", "outage"],
)
def test_a_handler_may_run_again_where_there_is_a_reason(reason: dict[str, Any]) -> None:
    history = replace(GOOD, **({"faults": []} | reason))

    assert reruns(history) == 1
    assert "I3" not in {violation.invariant for violation in check(history)}


@pytest.mark.parametrize(
    "fault",
    [Fault(what="frozen", pid=8, at=1.05), Fault(what="outage", at=0.1, until=0.9), Fault(what="died", pid=8, at=1.05)],
    ids=["another stood still", "the store came back before", "another died"],
)
def test_somebody_elses_trouble_is_no_reason(fault: Fault) -> None:
    assert "I3" in {violation.invariant for violation in check(replace(GOOD, faults=[fault]))}


def test_a_change_that_was_under_way_when_a_newer_token_was_given_out_is_no_breach() -> None:
    under_way = Change(verb="complete", job="a", token=1, asked=1.85, at=2.5)

    assert "I4" not in {violation.invariant for violation in check(replace(GOOD, changes=[under_way]))}


def test_order_is_asked_only_of_what_was_accepted() -> None:
    early = [run("never", 1, 0.5), *GOOD.runs]

    assert "I5" not in {violation.invariant for violation in check(replace(GOOD, runs=early))}


def test_recovery_under_load_may_wait_behind_other_jobs() -> None:
    loaded = Recovery(seconds=5.0, within=2.0, idle=False, busy=3.5)

    assert check(replace(GOOD, recoveries=[loaded])) == []


def test_another_body_under_an_id_is_kept_aside_and_is_no_second_row() -> None:
    aside = Row(queue="deliveries", job="9", id="a", key="chaos/a/conflict-0", state="ignored", token=0)
    history = replace(GOOD, rows=[*GOOD.rows, aside], counts=COUNTS | {("deliveries", "ignored"): 1})

    assert check(history) == []


def test_of_many_violations_some_are_told_and_the_rest_is_counted() -> None:
    history = replace(
        GOOD, effects=[*GOOD.effects] * 30 + [Effect(id=str(n), handler="h", generation=0, token=1) for n in range(30)]
    )

    phantoms = [violation for violation in check(history) if violation.invariant == "I2"]

    assert len(phantoms) == 9
    assert phantoms[-1].what == "and 22 more"
    assert GOOD.replay_rate == inf
