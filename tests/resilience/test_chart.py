"""What a terminal shows of a run."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.resilience import Policy, Retry
from holdfast.resilience.chart import BEYOND_ASCII, clock_time, equal_columns, in_words, ticks
from holdfast.resilience.simulate import UNREACHABLE, Simulation, Span, simulate
from tests.resilience.runs import CLOSED, HALF_OPEN, OPEN, change, tiny

GOLDEN = """\
outage    ···××××·····
offered   ▆▆▆▆▆▆▆▆▆▆▆▆
sent      ▆▆▆█  ▂ ▄▆▆▆
succeeded ▆▆▆     ▄▆▆▆
rejected     ▂▆▆▄▆▂
retried      ▃
circuit   ···███▒█▒···
          0:00

· closed, ▒ half-open, █ open; a column is 1 s, a full one 6 a second
During the outage 7 submissions of 16 calls reached the provider (43.75%), 1.40 per call let through.
The circuit was closed 1.4 s after its end; its longest open period was 3.0 s."""

PLAIN = """\
outage    ...xxxx.....
offered   ************
sent      ***#  : =***
succeeded ***     =***
rejected     :**=*:
retried      -
circuit   ...###~#~...
          0:00

. closed, ~ half-open, # open; a column is 1 s, a full one 6 a second
"""


@pytest.fixture(scope="module")
def seen() -> Simulation:
    return simulate(Policy(retry=Retry(attempts=2)), rps=5, outage=timedelta(minutes=5), duration=420)


def test_the_chart_of_a_small_run() -> None:
    assert tiny().chart() == GOLDEN


def test_a_stream_that_knows_only_ascii_gets_the_same_chart_in_ascii() -> None:
    plain = tiny().chart(plain=True)

    assert plain.isascii()
    assert plain.startswith(PLAIN)
    assert not set(BEYOND_ASCII) - set(GOLDEN) - set("▁▅▇")


def test_colours_change_nothing_but_the_colour() -> None:
    coloured = tiny().chart(colour=True)

    assert coloured != GOLDEN
    assert re.sub(r"\x1b\[\d+m", "", coloured) == GOLDEN
    assert coloured.count("\x1b[0m") == coloured.count("\x1b[") / 2
    assert "\x1b[31m××××\x1b[0m" in coloured.splitlines()[0]


def test_the_chart_has_a_row_for_each_series_of_equal_length(seen: Simulation) -> None:
    lines = seen.chart(width=50).splitlines()

    names = [line.split()[0] for line in lines[:7]]
    assert names == ["outage", "offered", "sent", "succeeded", "rejected", "retried", "circuit"]
    assert {len(lines[row]) for row in (0, 1, 6)} == {10 + len(range(0, 420, 9))}
    assert lines[-2:] == seen.summary().splitlines()


def test_the_chart_shows_a_single_probe(seen: Simulation) -> None:
    probed = [at for at in seen.outage if at > seen.outage.start + 30 and seen.seconds[at].sent]

    lines = seen.chart(width=len(seen.seconds)).splitlines()

    assert probed
    assert all(lines[2][10 + at] != " " for at in probed)
    assert all(lines[6][10 + at] == "▒" for at in probed)


def test_the_chart_of_a_naive_policy_is_scaled_to_what_is_sent() -> None:
    naive = simulate(Policy(breaker=None), rps=10, outage=60, start=0, duration=60, failure=UNREACHABLE)

    assert naive.amplification > 1.1
    assert "█" not in naive.chart().splitlines()[1]
    assert naive.summary().endswith("The circuit never opened.")
    assert naive.verdict.endswith("the circuit never opened")


def test_the_spans_of_a_run_follow_one_another_without_a_gap(seen: Simulation) -> None:
    for simulation in (seen, tiny()):
        spans = simulation.spans()

        assert spans[0].start == 0
        assert spans[-1].stop == len(simulation.seconds)
        assert [span.stop for span in spans[:-1]] == [span.start for span in spans[1:]]
        assert [span.state for span in spans[:-1]] != [span.state for span in spans[1:]]


def test_of_two_circuits_the_one_that_lets_least_through_is_shown() -> None:
    both = replace(
        tiny(),
        changes=(
            change(2, CLOSED, OPEN, operation="call"),
            change(4, CLOSED, OPEN),
            change(6, OPEN, HALF_OPEN, operation="call"),
            change(7, OPEN, CLOSED),
            change(9, HALF_OPEN, CLOSED, operation="call"),
        ),
    )

    assert both.spans() == [Span(0, 2, CLOSED), Span(2, 7, OPEN), Span(7, 9, HALF_OPEN), Span(9, 12, CLOSED)]


def test_a_column_shows_the_state_it_was_in_for_longest() -> None:
    brief = replace(tiny(), changes=(change(1.5, CLOSED, OPEN, 1.0), change(3.1, OPEN, CLOSED)))

    assert brief.chart(width=6).splitlines()[6] == "circuit   ·█····"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (59.66, "59.7 s"),
        (60, "1 min"),
        (600, "10 min"),
        (118.3, "1 min 58 s"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("seconds", [1, 59, 600, 1020, 86_400])
def test_the_scale_has_at_most_nine_marks_and_they_are_full_minutes(seconds: int) -> None:
    marks = ticks(seconds)

    assert 1 <= len(marks) <= 9
    assert all(clock_time(mark).endswith(":00") for mark in marks)


@pytest.mark.parametrize("most", [1, 7, 68, 1000])
def test_columns_cover_every_second_once(most: int) -> None:
    columns = equal_columns(420, most)

    assert len(columns) <= most
    assert [at for column in columns for at in column] == list(range(420))
