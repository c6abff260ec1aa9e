"""Faults: one seed decides all of them, and what happens elsewhere changes nothing."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from random import Random
from statistics import median

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import (
    FAULTS,
    Always,
    At,
    BadJson,
    Bandwidth,
    Call,
    ClockSkew,
    Close,
    Dns,
    Drawn,
    Every,
    Fault,
    FaultPlan,
    Faults,
    First,
    Hang,
    Html,
    Latency,
    Match,
    NotAValue,
    OneOf,
    Rate,
    RateLimited,
    Reset,
    Rule,
    Script,
    Stage,
    Stall,
    Status,
    UnknownOperation,
    chance,
    fault,
)
from holdfast.testing.faults.plans import Plan


def names(faults: Faults, vendor: str, operation: str, calls: int) -> list[str | None]:
    drawn = [faults.draw(vendor, operation).fault for _ in range(calls)]
    return [found.name if found else None for found in drawn]


# Faults as values


@pytest.mark.parametrize(
    ("stage", "kinds"),
    [
        (Stage.BEFORE_SEND, {"dns", "refused", "tls_error"}),
        (Stage.BEFORE_EFFECT, {"status", "rate_limited", "auth_expired"}),
        (Stage.AFTER_EFFECT, {"reset", "hang", "close"}),
        (
            Stage.BODY,
            {"truncate", "bad_json", "wrong_type", "html", "bad_gzip", "huge_header", "bad_chunk", "garbage_status"}
            | {"conflicting_lengths", "dribble", "stall"},
        ),
        (Stage.TIME, {"latency", "bandwidth", "clock_skew"}),
    ],
)
def test_a_fault_says_where_it_strikes(stage: Stage, kinds: set[str]) -> None:
    assert {kind for kind, model in FAULTS.items() if model.model_fields["stage"].default is stage} == kinds


def test_a_fault_is_written_by_place_as_well_as_by_name() -> None:
    assert Status(503, 30) == Status(status=503, retry_after=30)
    assert Latency(0.25, 1.5) == Latency(median=0.25, p99=1.5)
    assert (Reset().after_bytes, Reset(40).after_bytes) == (0, 40)
    with pytest.raises(TypeError, match="status, retry_after"):
        Status(503, status=500)  # type: ignore[misc]  # twice, which is the point


def test_a_fault_is_frozen_and_equal_by_what_it_says() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Status(503).status = 500  # type: ignore[misc]  # frozen, which is the point
    assert len({Reset(), Reset(0), Reset(1), Status(500).after_effect(), Status(500)}) == 4


@pytest.mark.parametrize(
    "wrong", [lambda: Status(999), lambda: Hang(-1), lambda: Latency(2, 1), lambda: Latency(low=1)]
)
def test_what_cannot_be_is_refused_when_it_is_said(wrong: Callable[[], Fault]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        wrong()


def test_what_may_strike_before_and_after_the_effect_can_be_moved() -> None:
    assert Status(500).after_effect().stage is Stage.AFTER_EFFECT
    assert Reset(40).before_effect() == Reset(40, stage=Stage.BEFORE_EFFECT)
    assert Hang().before_effect().after_effect() == Hang()
    assert Close().before_effect().name == "close"
    assert not hasattr(BadJson(), "before_effect")


def test_faults_joined_by_a_bar_are_one_of_them() -> None:
    # given
    joined = Reset() | Status(503) | (BadJson() | Html())

    # then
    assert joined == OneOf(faults=(Reset(), Status(503), BadJson(), Html()))
    assert {joined.draw(chance(index)).name for index in range(60)} == {"reset", "status_503", "bad_json", "html"}


@pytest.mark.parametrize("word", [*sorted(FAULTS.keys() - {"status"}), "status_503"])
def test_every_fault_has_a_name_that_stands_for_it(word: str) -> None:
    assert fault(word).name == word


def test_a_word_that_is_no_fault_is_told_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'resett' is no fault; there are dns, .*clock_skew"):
        fault("resett")


def test_a_latency_has_the_median_and_the_99th_percentile_it_is_given() -> None:
    # when
    draws = sorted(Latency.lognormal(median=0.25, p99=1.5).seconds(chance(3, index)) for index in range(4000))

    # then
    assert 0.23 < median(draws) < 0.27
    assert 1.3 < draws[int(0.99 * len(draws))] < 1.8
    assert all(low <= high for low, high in pairwise(draws))


def test_a_latency_may_be_constant_or_even() -> None:
    assert {Latency.constant(0.3).seconds(chance(index)) for index in range(5)} == {0.3}
    draws = sorted(Latency.uniform(0.1, 0.5).seconds(chance(index)) for index in range(1000))
    assert 0.1 <= draws[0] < 0.12
    assert 0.48 < draws[-1] <= 0.5


# Plans


def test_a_script_is_followed_to_its_end_and_then_all_is_well() -> None:
    faults = Faults()
    faults.on("sbp", "payments.create").script(Reset(), None, Status(503))
    assert names(faults, "sbp", "payments.create", 5) == ["reset", None, "status_503", None, None]


def test_every_first_and_at_count_calls() -> None:
    # given
    faults = Faults()
    faults.on("sbp", "a").every(3, Reset())
    faults.on("sbp", "b").first(2, Reset())
    faults.on("sbp", "c").at(1, Reset())

    # then
    assert names(faults, "sbp", "a", 6) == [None, None, "reset", None, None, "reset"]
    assert names(faults, "sbp", "b", 3) == ["reset", "reset", None]
    assert names(faults, "sbp", "c", 3) == [None, "reset", None]


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        (Match(path="/v1/pay*"), "ab"),
        (Match(path="/v1/pay"), "a"),
        (Match(method="post"), "ab"),
        (Match(header="X-Version"), "ab"),
        (Match(header="x-version: 2*"), "b"),
        (Match(body_contains="4711"), "b"),
        (Match(key="*"), "ab"),
        (Match(key="k1"), "a"),
        (Match(attempt=2), ""),
        (Match(path="/v1/*", body_contains="4711"), "b"),
        (Match(), "abc"),
    ],
    ids=repr,
)
def test_a_plan_may_be_for_the_calls_that_match(match: Match, struck: str) -> None:
    # given
    faults = Faults()
    faults.on("sbp").when(match).always(Html())

    # when
    calls = {
        "a": faults.draw("sbp", "x", path="/v1/pay?q=1", method="POST", headers=[("x-version", "1")], key="k1"),
        "b": faults.draw(
            "sbp", "x", path="/v1/pay/2", method="POST", headers=[("X-Version", "2.1")], key="k2", body=b'{"o":"4711"}'
        ),
        "c": faults.draw("sbp", "x", path="/v2", method="GET"),
    }

    # then
    assert {name for name, drawn in calls.items() if drawn.fault is not None} == {*struck}


def test_an_attempt_is_a_repetition_by_its_key_or_else_by_all_that_was_asked() -> None:
    # given
    faults = Faults()
    faults.on("sbp").when(Match(attempt=2)).always(Reset())

    # when
    asked = [("k1", b"1"), ("k2", b"1"), ("k1", b"1"), (None, b"1"), (None, b"2"), (None, b"1"), ("k1", b"1")]
    struck = [faults.draw("sbp", "x", key=key, body=body).fault is not None for key, body in asked]

    # then
    assert struck == [False, False, True, False, False, True, False]


def test_a_limited_plan_counts_the_calls_within_its_limits_only() -> None:
    # given
    faults = Faults()
    faults.on("sbp").when(Match(body_contains="o1")).script(Reset(), Status(503))

    # when
    bodies = [b"o2", b"o1", b"o2", b"o1", b"o1"]
    found = [faults.draw("sbp", "x", body=body).fault for body in bodies]

    # then
    assert found == [None, Reset(), None, Status(503), None]


@pytest.mark.parametrize(
    ("window", "struck"),
    [
        (("10:00", "10:05"), [False, True, True, False]),
        ((time(10), time(10, 5)), [False, True, True, False]),
        ((600, 660), [False, True, False, False]),
        ((timedelta(minutes=10), timedelta(minutes=11)), [False, True, False, False]),
        (("2026-01-01T10:04:00Z", datetime(2026, 1, 2, tzinfo=UTC)), [False, False, True, True]),
        (("23:00", "09:55"), [True, False, False, False]),
    ],
    ids=repr,
)
async def test_a_plan_may_be_for_a_while(window: tuple[str, str], struck: list[bool]) -> None:
    # given
    clock = ManualClock(datetime(2026, 1, 1, 9, 50, tzinfo=UTC))
    faults = Faults(clock=clock)
    faults.between(*window).on("sbp").always(Status(503))

    # when
    found: list[bool] = []
    for wait in (0, 600, 240, 60):  # 9:50, 10:00, 10:04, 10:05
        await clock.advance(wait)
        found.append(faults.draw("sbp", "x").fault is not None)

    # then
    assert found == struck


@pytest.mark.parametrize("moment", ["25:00", "soon", "10:00+02:00", -1, datetime(2026, 1, 1), True])
def test_what_is_no_moment_is_refused_when_it_is_said(moment: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Faults().between(moment, "10:00").on("sbp").always(Reset())


def test_what_narrows_a_plan_may_be_said_in_any_order() -> None:
    # given
    match = Match(path="/x")
    one, other = Faults(), Faults()

    # when
    one.on("sbp", "x").when(match).between(0, 9).always(Reset())
    other.between(0, 9).when(Match(path="/x")).on("sbp", "x").always(Reset())

    # then
    assert one.value() == other.value()
    assert one.value().rules[0].plan == Always(Reset(), when=match, between=(0, 9))


def test_two_matches_say_different_things() -> None:
    # given
    faults = Faults()
    narrowed = faults.when(Match(path="/x")).when(Match(method="GET"))

    # when
    narrowed.on("sbp").always(Reset())

    # then
    assert faults.value().rules[0].plan.when == Match(path="/x", method="GET")
    with pytest.raises(ValueError, match="path was matched before"):
        narrowed.when(Match(path="/y"))


def test_the_first_plan_that_names_a_fault_wins_and_what_takes_time_adds_up() -> None:
    # given
    faults = Faults()
    faults.on("sbp").always(Latency(1, 1))
    faults.on("sbp", "x").always(Reset())
    faults.on("*", "x").always(Html())
    faults.on("*").always(Latency(2, 2))
    faults.on("*").always(Bandwidth(100))
    faults.on("*").always(Bandwidth(50))
    faults.on("*").always(ClockSkew(-60))

    # then
    assert faults.draw("sbp", "x") == Drawn(Reset(), delay=3, bytes_per_second=50, skew=-60)


def test_connecting_is_planned_by_name_only() -> None:
    faults = Faults()
    faults.on("sbp").always(Reset())
    assert faults.draw("sbp", "connect").fault is None


def test_an_operation_may_be_a_pattern() -> None:
    faults = Faults()
    faults.on("sbp", "payments.*").always(Reset())
    assert faults.draw("sbp", "payments.create").fault == Reset()
    assert faults.draw("sbp", "account.check").fault is None


def test_every_fault_that_fires_is_counted_and_rules_that_never_struck_are_known() -> None:
    # given
    faults = Faults()
    faults.on("sbp").every(2, Status(503))
    faults.on("sbp").always(Latency())
    faults.on("zoom", "meetings.create").script(Reset())

    # when
    names(faults, "sbp", "x", 6)

    # then
    assert faults.fired == {"sbp.status_503": 3}
    assert faults.idle == ["zoom meetings.create script"]


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


def test_looking_ahead_counts_nothing() -> None:
    # given
    faults = Faults()
    faults.on("sbp", "x").when(Match()).script(Reset(), Html())

    # when
    ahead = [faults.peek("sbp", "x") for _ in range(3)]

    # then
    assert ahead == [Reset()] * 3
    assert names(faults, "sbp", "x", 2) == ["reset", "html"]
    assert faults.peek("sbp", "x") is None


# One seed


def drawn(plan: Sequence[Rule], *, seed: int = 7, calls: int = 60) -> list[str | None]:
    return names(Faults(plan=FaultPlan(seed=seed, rules=tuple(plan))), "sbp", "x", calls)


RATE = Rule("sbp", "x", Rate(0.4, Reset() | Status(503)))


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert drawn([RATE]) == drawn([RATE])
    assert drawn([RATE]) != drawn([RATE], seed=8)
    assert {"reset", "status_503", None} == set(drawn([RATE]))


@pytest.mark.parametrize(
    "others",
    [
        [Rule("zoom", "x", Rate(0.5, Reset()))],
        [Rule("sbp", "y", Rate(0.5, Reset())), Rule("sbp", "x", Always(Latency()))],
        [Rule("sbp", "x", Rate(0.0, Html())), Rule("*", "*", Every(1000, Html()))],
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_another_rule_reshuffles_nothing(others: list[Rule], *, before: bool) -> None:
    # A rule of the same vendor, operation and kind is told apart by its place among those alone.
    alike = [one for one in others if one.vendor == "sbp" and isinstance(one.plan, Rate) and one.operation == "x"]
    plan = [*others, RATE] if before and not alike else [RATE, *others]
    assert drawn(plan) == drawn([RATE])


def test_calls_elsewhere_do_not_reshuffle_these() -> None:
    # given
    among_others = Faults(7, plan=FaultPlan(rules=(RATE, Rule("zoom", "*", Rate(0.5, Reset())))))

    # when
    found: list[str | None] = []
    for _ in range(60):
        among_others.draw("zoom", "y")
        found += names(among_others, "sbp", "x", 1)
        among_others.draw("sbp", "other")

    # then
    assert found == drawn([RATE])


def test_more_of_the_same_chance_is_the_same_calls_and_more() -> None:
    seldom, often = (drawn([Rule("sbp", "x", Rate(p, Reset()))]) for p in (0.2, 0.5))
    assert {index for index, name in enumerate(seldom) if name} < {index for index, name in enumerate(often) if name}


def test_reset_starts_over_and_calm_ends_it() -> None:
    # given
    faults = Faults()
    faults.on("sbp").script(Reset())
    faults.on("sbp").when(Match()).first(1, Latency(1, 1))
    names(faults, "sbp", "x", 2)

    # then
    faults.reset()
    assert (faults.idle, faults.fired) == (["sbp * script", "sbp * first"], {})
    assert faults.draw("sbp", "x") == Drawn(Reset(), delay=1)
    faults.reset()
    faults.calm()
    assert names(faults, "sbp", "x", 2) == [None, None]


# Whole plans as values


EVERYTHING: tuple[Plan, ...] = (
    Script(Reset(40), Status(429, retry_after=30), None, when=Match(path="/v1/*", attempt=2)),
    Rate(0.2, Latency.lognormal(0.3, 0.8) | Stall(10) | BadJson()),
    Every(3, RateLimited(2, "http-date")),
    First(2, Status(500, body=b'{"no":1}').after_effect(), between=("10:00", 700)),
    Always(ClockSkew(-600)),
    At(4, Dns()),
    *(Always(fault("status_503" if word == "status" else word)) for word in FAULTS),
)


@pytest.mark.parametrize("plan", EVERYTHING, ids=repr)
def test_a_plan_is_the_same_in_python_and_in_json(plan: Plan) -> None:
    # given
    whole = FaultPlan(seed=3, rules=(Rule("stripe", "payments.create", plan),))

    # then
    assert FaultPlan.from_json(whole.to_json()) == whole
    assert FaultPlan.model_validate_json(whole.model_dump_json()) == whole
    assert Faults(plan=whole).value() == whole
    assert hash(whole) == hash(FaultPlan.from_json(whole.to_json()))


def test_a_plan_in_json_says_what_differs_from_the_usual() -> None:
    plan = FaultPlan(rules=(Rule("stripe", "*", Script(Reset(40), None, Hang())),))
    faults = [{"kind": "reset", "after_bytes": 40}, None, {"kind": "hang"}]
    assert plan.to_json() == {"rules": [{"vendor": "stripe", "plan": {"kind": "script", "faults": faults}}]}


def test_a_plan_that_is_a_function_is_no_value() -> None:
    faults = Faults()
    faults.on("stripe", "payments.create").plan(lambda call, random: None)
    with pytest.raises(NotAValue, match=r"stripe payments\.create is a function of your own"):
        faults.value()


def test_a_function_may_name_one_of_several_and_has_chance_of_its_own() -> None:
    # given
    seen: list[float] = []

    def own(call: Call, random: Random) -> OneOf:
        seen.append(random.random())
        return Reset() | Html()

    # when
    faults = Faults(7)
    faults.on("sbp").plan(own)

    # then
    assert set(names(faults, "sbp", "x", 20)) == {"reset", "html"}
    assert len(set(seen)) == 20


# Vendors that are known


def test_a_rule_for_what_a_vendor_cannot_do_is_refused_when_both_are_known() -> None:
    # given
    planned_before, planned_after = Faults(), Faults()
    planned_before.on("sbp", "payment.create").always(Reset())
    planned_after.meet("sbp", {"payments.create"}, ManualClock())

    # then
    with pytest.raises(UnknownOperation, match=r"sbp has no operation 'payment\.create' .* payments\.create"):
        planned_before.meet("sbp", {"payments.create"}, ManualClock())
    with pytest.raises(UnknownOperation):
        planned_after.on("sbp", "payment.create").always(Reset())
    for right in ("payments.create", "payments.*", "*", "connect", "webhook"):
        planned_after.on("sbp", right).always(Reset())


async def test_without_a_clock_that_of_the_first_vendor_counts() -> None:
    # given
    clock = ManualClock()
    faults = Faults()
    faults.between(60, 120).on("sbp").always(Reset())
    faults.meet("sbp", {"x"}, clock)

    # when
    before = faults.draw("sbp", "x").fault
    await clock.advance(60)

    # then
    assert (before, faults.draw("sbp", "x").fault) == (None, Reset())


def test_a_wrong_clock_is_wrong_in_webhooks_too() -> None:
    # given
    faults = Faults()
    faults.on("stripe").always(ClockSkew(-600))
    faults.on("stripe", "webhook").at(1, ClockSkew(30))
    faults.on("stripe").always(Reset())

    # then
    assert [faults.skew("stripe", number) for number in range(3)] == [-600, -570, -600]
    assert faults.skew("zoom", 0) == 0
