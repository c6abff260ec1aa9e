"""When to try again: jitter, tenacity's strategies, and what vendors write into Retry-After."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import NotSent
from holdfast.outcome import Cause
from holdfast.resilience.policy import Retry
from holdfast.resilience.retry import (
    LONGEST,
    FailedOutcome,
    RetryState,
    after_pause,
    backoff,
    parse_milliseconds,
    parse_retry_after,
    stops,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def state(attempt: int = 1, *, seconds: float = 0.0, sleep: float = 0.0) -> RetryState:
    return RetryState(
        attempt_number=attempt,
        outcome=FailedOutcome(NotSent("down", retry_after=9)),
        seconds_since_start=seconds,
        upcoming_sleep=sleep,
    )


# Backoff.


@given(attempt=st.integers(1, 100), seed=st.integers(), cause=st.sampled_from(Cause))
def test_a_wait_is_drawn_from_nothing_to_twice_as_much_each_time_up_to_the_cap(
    attempt: int, seed: int, cause: Cause
) -> None:
    retry = Retry(base=0.1, throttled_base=1, cap=20)
    base = 1 if cause in (Cause.THROTTLED, Cause.REFUSED) else 0.1

    wait = backoff(retry, state(attempt), cause, Random(seed))

    assert 0 <= wait <= min(20, base * 2 ** (attempt - 1))


def test_the_jitter_is_full() -> None:
    random = Random(1)
    waits = [backoff(Retry(base=1), state(), Cause.UNKNOWN, random) for _ in range(1000)]

    assert min(waits) < 0.01
    assert max(waits) > 0.99
    assert sum(waits) / 1000 == pytest.approx(0.5, abs=0.05)


@given(asked=st.floats(0, 1000), seed=st.integers())
def test_a_vendors_pause_is_never_shortened_and_a_little_spread(asked: float, seed: int) -> None:
    assert asked <= after_pause(asked, Random(seed)) <= asked + min(1, asked / 10)


# Strategies.


def as_the_error_says(state: RetryState) -> float:
    error = state.outcome.exception()
    return getattr(error, "retry_after", 0.0)


@pytest.mark.parametrize(
    ("wait", "attempt", "least", "most"),
    [
        (tenacity.wait_none(), 1, 0, 0),
        (tenacity.wait_fixed(30), 1, 30, 30),
        (tenacity.wait_fixed(timedelta(seconds=2)), 1, 2, 2),
        (tenacity.wait_random(1, 2), 3, 1, 2),
        (tenacity.wait_exponential(multiplier=1, max=60), 4, 8, 8),
        (tenacity.wait_random_exponential(0.1, max=20), 3, 0, 0.4),
        (tenacity.wait_exponential_jitter(initial=1, max=10, jitter=1), 2, 2, 3),
        (tenacity.wait_incrementing(start=1, increment=2), 3, 5, 5),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(5)), 2, 5, 5),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_fixed(2)), 1, 3, 3),
        (tenacity.wait_fixed(1) + tenacity.wait_random(0, 2), 1, 1, 3),
        (as_the_error_says, 1, 9, 9),
    ],
)
def test_every_wait_strategy_of_tenacity_replaces_the_numbers(
    wait: Any, attempt: int, least: float, most: float
) -> None:
    assert least <= backoff(Retry(wait=wait), state(attempt), Cause.UNKNOWN, Random(1)) <= most


@pytest.mark.parametrize(
    ("said", "meant"),
    [(-5, 0), (math.nan, 0), (-math.inf, 0), (math.inf, 3600), (1e12, 3600), ("5", 0), (None, 0), (True, 0)],
)
def test_a_strategy_that_says_something_absurd_does_no_harm(said: object, meant: float) -> None:
    assert backoff(Retry(wait=lambda _: said), state(), Cause.UNKNOWN, Random(1)) == meant


@pytest.mark.parametrize(
    ("stop", "going_on", "ending"),
    [
        (tenacity.stop_after_attempt(3), state(2), state(3)),
        (tenacity.stop_after_delay(10), state(seconds=9.9), state(seconds=10)),
        (tenacity.stop_before_delay(10), state(seconds=8, sleep=1.9), state(seconds=8, sleep=2)),
        (
            tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(10),
            state(2, seconds=9),
            state(1, seconds=10),
        ),
        (
            tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(10),
            state(9, seconds=9),
            state(3, seconds=10),
        ),
    ],
)
def test_every_stop_strategy_of_tenacity_replaces_the_attempts(
    stop: Any, going_on: RetryState, ending: RetryState
) -> None:
    retry = Retry(attempts=1, stop=stop)

    assert not stops(retry, going_on)
    assert stops(retry, ending)


def test_a_strategy_that_never_stops_never_stops() -> None:
    assert not stops(Retry(stop=tenacity.stop_never), state(10_000))


def test_without_a_strategy_the_attempts_count() -> None:
    assert not stops(Retry(attempts=3), state(2))
    assert stops(Retry(attempts=3), state(3))


def test_a_strategy_sees_the_last_attempts_outcome() -> None:
    outcome = state().outcome

    assert outcome.failed
    assert isinstance(outcome.exception(), NotSent)
    with pytest.raises(NotSent):
        outcome.result()


# Retry-After.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("120", 120),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30),
        ("Sun Mar  1 12:00:30 2026", 30),
        ("2026-03-01T12:00:30Z", 30),
        ("2026-03-01T13:00:30+01:00", 30),
        (str(int(LONGEST)), LONGEST),
    ],
)
def test_every_dialect_of_retry_after_is_read(text: str, seconds: float) -> None:
    assert parse_retry_after(text, date=None, now=NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "-1",
        "-0.5",
        "soon",
        "1e3",
        "Infinity",
        "NaN",
        "٣",
        "1,5",
        "9" * 400,
        str(int(LONGEST) + 1),
        "Sun, 01 Mar 2026 11:59:59 GMT",
        "Sun, 01 Mar 2099 12:00:00 GMT",
        "Sun, 99 Foo 2026 12:00:00 GMT",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_a_retry_after_that_is_negative_absurd_or_no_time_says_nothing(text: str | None) -> None:
    assert parse_retry_after(text, date=None, now=NOW) is None


def test_a_date_is_held_against_the_vendors_clock_where_it_shows_it() -> None:
    an_hour_off = "Sun, 01 Mar 2026 11:00:00 GMT"

    assert parse_retry_after("Sun, 01 Mar 2026 11:00:30 GMT", date=an_hour_off, now=NOW) == 30
    assert parse_retry_after("Sun, 01 Mar 2026 12:00:30 GMT", date="nonsense", now=NOW) == 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1500", 1.5), ("0", 0), (None, None), ("", None), ("-1", None), ("soon", None), ("9" * 15, None)],
)
def test_milliseconds_are_read_too(text: str | None, seconds: float | None) -> None:
    assert parse_milliseconds(text) == seconds


@given(text=st.none() | st.text(), date=st.none() | st.text())
def test_whatever_a_vendor_writes_is_a_sane_pause_or_nothing(text: str | None, date: str | None) -> None:
    for seconds in (parse_retry_after(text, date=date, now=NOW), parse_milliseconds(text)):
        assert seconds is None or 0 <= seconds <= LONGEST


@given(moment=st.datetimes(timezones=st.just(UTC)), date=st.datetimes(timezones=st.just(UTC)))
def test_whatever_date_a_vendor_writes_is_a_sane_pause_or_nothing(moment: datetime, date: datetime) -> None:
    seconds = parse_retry_after(format_datetime(moment), date=format_datetime(date), now=NOW)

    assert seconds is None or 0 <= seconds <= LONGEST
