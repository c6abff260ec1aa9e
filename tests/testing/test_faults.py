"""Faults: one seed decides all of them, and what happens elsewhere changes nothing."""

from itertools import pairwise
from statistics import median

import pytest

from holdfast.testing.faults import (
    BadJson,
    Call,
    Drawn,
    Fault,
    Faults,
    Hang,
    Html,
    Latency,
    Refused,
    Reset,
    Stage,
    Status,
    Truncate,
    always,
    chance,
    when,
)


def names(faults: Faults, vendor: str, operation: str, calls: int) -> list[str | None]:
    drawn = [faults.draw(vendor, operation).fault for _ in range(calls)]
    return [fault.name if fault else None for fault in drawn]


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        (Refused(), Stage.BEFORE_SEND),
        (Status(503), Stage.BEFORE_EFFECT),
        (Reset(), Stage.AFTER_EFFECT),
        (Hang(), Stage.AFTER_EFFECT),
        (Truncate(), Stage.BODY),
        (BadJson(), Stage.BODY),
        (Html(), Stage.BODY),
        (Latency(), Stage.TIME),
    ],
)
def test_a_fault_says_where_it_strikes(fault: Fault, stage: Stage) -> None:
    assert fault.stage is stage


def test_a_script_is_followed_to_its_end_and_then_all_is_well() -> None:
    faults = Faults()
    faults.on("sbp", "payments.create").script(Reset(), None, Status(503))
    assert names(faults, "sbp", "payments.create", 5) == ["reset", None, "status_503", None, None]


def test_every_and_first_count_calls() -> None:
    # given
    faults = Faults()
    faults.on("sbp", "a").every(3, Reset())
    faults.on("sbp", "b").first(2, Reset())

    # then
    assert names(faults, "sbp", "a", 6) == [None, None, "reset", None, None, "reset"]
    assert names(faults, "sbp", "b", 3) == ["reset", "reset", None]


def test_a_plan_may_ask_about_the_call() -> None:
    # given
    faults = Faults()
    faults.on("sbp").plan(when(lambda call: b"4711" in call.body, always(Html())))

    # then
    assert faults.draw("sbp", "x", body=b"no").fault is None
    assert faults.draw("sbp", "x", body=b"consultation-4711").fault == Html()


def test_the_first_plan_that_names_a_fault_wins_and_delays_add_up() -> None:
    # given
    faults = Faults()
    faults.on("sbp").always(Latency(1, 1))
    faults.on("sbp", "x").always(Reset())
    faults.on("*", "x").always(Html())
    faults.on("*").always(Latency(2, 2))

    # when
    drawn: Drawn = faults.draw("sbp", "x")

    # then
    assert (drawn.fault, drawn.delay) == (Reset(), 3)


def test_connecting_is_planned_by_name_only() -> None:
    faults = Faults()
    faults.on("sbp").always(Reset())
    assert faults.draw("sbp", "connect").fault is None


def test_every_fault_that_fires_is_counted() -> None:
    # given
    faults = Faults()
    faults.on("sbp").every(2, Status(503))
    faults.on("sbp").always(Latency())

    # when
    names(faults, "sbp", "x", 6)

    # then
    assert faults.fired == {"sbp.status_503": 3}


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    def drawn(seed: int) -> list[str | None]:
        faults = Faults(seed)
        faults.on("sbp").rate(0.4, Reset(), Status(503))
        return names(faults, "sbp", "x", 60)

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert {"reset", "status_503", None} == set(drawn(7))


def test_calls_elsewhere_do_not_reshuffle_these() -> None:
    # given
    alone, among_others = Faults(7), Faults(7)
    for faults in (alone, among_others):
        faults.on("sbp", "x").rate(0.5, Reset())
        faults.on("zoom").rate(0.5, Reset())

    # when
    expected = names(alone, "sbp", "x", 40)
    found = []
    for _ in range(40):
        among_others.draw("zoom", "y")
        found += names(among_others, "sbp", "x", 1)
        among_others.draw("sbp", "other")

    # then
    assert found == expected


def test_reset_starts_over_and_calm_ends_it() -> None:
    # given
    faults = Faults()
    faults.on("sbp").script(Reset())
    names(faults, "sbp", "x", 2)

    # then
    faults.reset()
    assert names(faults, "sbp", "x", 2) == ["reset", None]
    faults.reset()
    faults.calm()
    assert names(faults, "sbp", "x", 2) == [None, None]


def test_latency_has_the_median_and_the_99th_percentile_it_is_given() -> None:
    # when
    draws = sorted(Latency(median=0.25, p99=1.5).seconds(chance(3, index)) for index in range(4000))

    # then
    assert 0.23 < median(draws) < 0.27
    assert 1.3 < draws[int(0.99 * len(draws))] < 1.8
    assert all(low <= high for low, high in pairwise(draws))


def test_latency_without_spread_is_constant() -> None:
    assert Latency(median=0.3, p99=0.3).seconds(chance(1)) == 0.3


def test_a_call_knows_how_many_came_before() -> None:
    # given
    seen: list[Call] = []
    faults = Faults()
    faults.on("sbp").plan(lambda call, random: seen.append(call))

    # when
    names(faults, "sbp", "x", 2)
    names(faults, "sbp", "y", 1)

    # then
    assert [(call.operation, call.index) for call in seen] == [("x", 0), ("x", 1), ("y", 0)]
