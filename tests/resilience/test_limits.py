"""Rate and concurrency: never over the limit, nobody forgotten, nothing leaked, in every history."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.resilience.limits import ConcurrencyLimit, RateLimit, Ticket
from holdfast.resilience.policy import Concurrency, Priority, Rate

BULK, WEBHOOK, INTERACTIVE = Priority.BULK, Priority.WEBHOOK, Priority.INTERACTIVE
TICK = 1 / 64  # seconds are exact in binary, so that a boundary is one
WINDOW = 64 * TICK


class Owner:
    """Whoever waits: he looks at his ticket when woken and at its `due`, and at no other time."""

    def __init__(self, seen: "Callable[[Owner], None] | None" = None) -> None:
        self.ticket: Ticket | None = None
        self.alarm = inf
        self.woken = 0
        self.seen = seen

    def holds(self, ticket: Ticket | None) -> Ticket:
        assert ticket is not None, "the line is full"
        self.ticket, self.alarm = ticket, ticket.due
        return ticket

    def wake(self) -> None:
        assert self.ticket is not None, "woken within his own call"
        self.woken += 1
        self.alarm = self.ticket.due
        if self.seen is not None:
            self.seen(self)


def waits(limit: RateLimit, now: float, key: str = "") -> Ticket:
    owner = Owner()
    return owner.holds(limit.line_up(key, now, owner.wake))


def waits_for_place(limit: ConcurrencyLimit, priority: Priority = INTERACTIVE, now: float = 0.0) -> Ticket:
    owner = Owner()
    return owner.holds(limit.line_up(priority, now, owner.wake))


def taken(limit: RateLimit, now: float, key: str = "", at_most: int = 1000) -> int:
    return sum(limit.take(key, now) for _ in range(at_most))


# Rate: the window.


def test_a_slot_comes_free_one_window_after_the_answer() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    assert not limit.take("", 5.0)  # still under way

    limit.release("", 5.0)

    assert not limit.take("", 5.9999)
    assert limit.retry_after("", 5.75) == 0.25
    assert limit.take("", 6.0)


def test_counted_from_the_start_a_slot_comes_free_however_long_the_answer_takes() -> None:
    limit = RateLimit(Rate(1, per=1, counted_from="start"))

    assert limit.take("", 0.0)

    assert not limit.take("", 0.99)
    assert limit.take("", 1.0)
    limit.release("", 1.5)
    limit.release("", 1.5)
    assert not limit.take("", 1.99)
    assert limit.take("", 2.0)


@pytest.mark.parametrize("counted_from", ["answer", "start"])
def test_a_slot_through_which_nothing_was_sent_is_free_at_once(counted_from: Literal["answer", "start"]) -> None:
    limit = RateLimit(Rate(1, per=1, counted_from=counted_from))
    assert limit.take("", 100.0)

    limit.release("", 100.5, sent=False)

    assert limit.take("", 100.5)


def test_an_unsent_slot_counted_from_the_start_is_free_though_others_came_free_before() -> None:
    limit = RateLimit(Rate(3, per=1, counted_from="start"))
    for _ in range(2):
        assert limit.take("", 0.0)
        limit.release("", 0.0)

    assert limit.take("", 1.5)
    limit.release("", 1.5, sent=False)

    assert taken(limit, 1.5) == 3


@pytest.mark.parametrize("given_up", [1.0, 1.5])
def test_an_unsent_slot_counted_from_the_start_frees_no_other_call_s_slot(given_up: float) -> None:
    # given one that dallied for more than its window, and another that was sent meanwhile
    limit = RateLimit(Rate(1, per=1, counted_from="start"))
    assert limit.take("", 0.0)
    assert limit.take("", 1.0)

    # when the first gives up
    limit.release("", given_up, sent=False)

    # then the second one's slot is still in use
    assert not limit.take("", given_up)
    assert limit.take("", 2.0)


def test_each_key_has_a_window_of_its_own() -> None:
    limit = RateLimit(Rate(2, per=1, key=lambda: ""))

    assert taken(limit, 0.0, "alice") == 2

    assert taken(limit, 0.0, "bob") == 2


@dataclass
class Sent:
    """A call as the vendor sees it."""

    start: int
    answer: int
    counted: int


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 4),
    counted_from=st.sampled_from(["answer", "start"]),
    calls=st.lists(
        st.tuples(
            st.integers(0, 20), st.one_of(st.integers(0, 8), st.integers(0, 150)), st.floats(0, 1), st.booleans()
        ),
        max_size=60,
    ),
)
def test_no_window_of_the_vendor_s_ever_sees_more_than_the_limit(
    limit: int, counted_from: Literal["answer", "start"], calls: list[tuple[int, int, float, bool]]
) -> None:
    # given calls at any time, with answers that take as long as they like
    rate = RateLimit(Rate(limit, per=WINDOW, counted_from=counted_from))
    under_way: list[tuple[int, bool]] = []
    vendor: list[int] = []
    now = 0

    # when they are made as the limit allows
    for gap, takes, moment, sent in calls:
        now += gap
        for ends, was_sent in sorted(under_way):
            if ends <= now:
                rate.release("", ends * TICK, sent=was_sent)
                under_way.remove((ends, was_sent))
        if rate.take("", now * TICK):
            under_way.append((now + takes, sent))
            if sent:
                vendor.append(now + (round(takes * moment) if counted_from == "answer" else 0))

    # then, whenever in between he counted them
    vendor.sort()
    assert all(later - earlier >= 64 for earlier, later in zip(vendor, vendor[limit:], strict=False))


class RateHistories(RuleBasedStateMachine):
    """Callers of two keys, against lists of calls."""

    @initialize(
        limit=st.integers(1, 3),
        counted_from=st.sampled_from(["answer", "start"]),
        max_waiting=st.sampled_from([0, 2, 9]),
    )
    def begin(self, limit: int, counted_from: Literal["answer", "start"], max_waiting: int) -> None:
        self.limit, self.max_waiting, self.from_answer = limit, max_waiting, counted_from == "answer"
        self.rate = RateLimit(Rate(limit, per=WINDOW, counted_from=counted_from, max_waiting=max_waiting))
        self.now = 0.0
        self.lines: dict[str, list[Owner]] = {"a": [], "b": []}
        self.under_way: dict[str, list[tuple[float, Ticket | None]]] = {"a": [], "b": []}  # when each was taken
        self.occupied: dict[str, list[float]] = {"a": [], "b": []}  # until when, of those that are not under way
        self.closed_until = {"a": -inf, "b": -inf}
        self.exact = {"a": True, "b": True}  # no throttling so far, and nothing unsent whose slot is unsure

    def free(self, key: str) -> int:
        self.occupied[key] = [until for until in self.occupied[key] if until > self.now]
        under_way = len(self.under_way[key]) if self.from_answer else 0
        return self.limit - under_way - len(self.occupied[key])

    def begins(self, key: str, ticket: Ticket | None = None) -> None:
        assert self.free(key) > 0, "over the limit"
        assert self.now >= self.closed_until[key], "sent into a pause"
        self.under_way[key].append((self.now, ticket))
        if not self.from_answer:
            self.occupied[key].append(self.now + WINDOW)

    def seen(self, owner: Owner) -> None:
        assert owner.ticket is not None
        if owner.ticket.granted:
            key = owner.ticket.key
            assert self.lines[key].pop(0) is owner, "out of turn"
            owner.alarm = inf
            self.begins(key, owner.ticket)

    @rule(key=st.sampled_from("ab"))
    def take(self, key: str) -> None:
        possible = self.free(key) > 0 and not self.lines[key]
        got = self.rate.take(key, self.now)
        assert not got or possible
        assert got or not possible or not self.exact[key]
        if got:
            self.begins(key)

    @rule(key=st.sampled_from("ab"))
    def line_up(self, key: str) -> None:
        owner = Owner(self.seen)
        line = self.lines[key]
        ticket = self.rate.line_up(key, self.now, owner.wake)
        if ticket is None:
            assert len(line) >= self.max_waiting
            return
        owner.holds(ticket)
        if ticket.granted:
            assert not line
            self.begins(key, ticket)
        else:
            assert len(line) < self.max_waiting
            line.append(owner)

    def forgo(self, key: str, began: float) -> None:
        if not self.from_answer:
            self.exact[key] = False
            if began + WINDOW > self.now:
                self.occupied[key].remove(began + WINDOW)

    @rule(key=st.sampled_from("ab"), which=st.integers(0, 99), sent=st.sampled_from([True, True, False]))
    def answer(self, key: str, which: int, sent: bool) -> None:
        if not self.under_way[key]:
            return
        began, ticket = self.under_way[key].pop(which % len(self.under_way[key]))
        if not sent:
            self.forgo(key, began)
        elif self.from_answer:
            self.occupied[key].append(self.now + WINDOW)
        if sent or ticket is None:
            self.rate.release(key, self.now, sent=sent)
        else:
            self.rate.leave(ticket, self.now)
            self.rate.leave(ticket, self.now)

    @rule(key=st.sampled_from("ab"), which=st.integers(0, 99))
    def give_up(self, key: str, which: int) -> None:
        if self.lines[key]:
            owner = self.lines[key].pop(which % len(self.lines[key]))
            assert owner.ticket is not None
            self.rate.leave(owner.ticket, self.now)
            self.rate.leave(owner.ticket, self.now)

    @rule(key=st.sampled_from("ab"), seconds=st.sampled_from([None, 0.0, 0.5, 3.0, -1.0, inf]))
    def complain(self, key: str, seconds: float | None) -> None:
        pause = seconds if seconds is not None and 0 <= seconds < inf else WINDOW
        self.closed_until[key] = max(self.closed_until[key], self.now + pause)
        self.exact[key] = False
        self.rate.throttled(key, self.now, seconds)

    @rule(ticks=st.one_of(st.integers(0, 20), st.sampled_from([63, 64, 65, 6400])))
    def pass_time(self, ticks: int) -> None:
        until = self.now + ticks * TICK
        while (alarm := min((owner.alarm for line in self.lines.values() for owner in line), default=inf)) <= until:
            self.now = max(self.now, alarm)
            rung = [owner for line in self.lines.values() for owner in line if owner.alarm == alarm]
            self.rate.poll(self.now)
            for owner in rung:
                assert owner.ticket is not None
                owner.alarm = inf if owner.ticket.granted else owner.ticket.due
                assert owner.ticket.granted or owner.alarm > self.now, "he would poll for ever"
        self.now = until

    @invariant()
    def nobody_waits_where_a_slot_is_free(self) -> None:
        for key, line in self.lines.items():
            if self.exact[key] and not any(owner.alarm <= self.now for owner in line):
                assert not line or self.free(key) == 0

    @invariant()
    def the_count_is_right(self) -> None:
        if all(self.exact.values()):
            shown = self.rate.snapshot(self.now)
            assert shown.in_use == sum(self.limit - self.free(key) for key in self.lines)
            assert shown.waiting == sum(map(len, self.lines.values()))

    @invariant()
    def a_newcomer_is_told_when(self) -> None:
        for key, line in self.lines.items():
            if self.exact[key]:
                free = self.free(key)
                assert (self.rate.retry_after(key, self.now) == 0) == (free > 0 and not line)

    def teardown(self) -> None:
        if not hasattr(self, "rate"):
            return
        for _ in range(100):
            for key in "ab":
                while self.under_way[key]:
                    self.answer(key, 0, True)
            self.pass_time(640)
            if not any(self.under_way.values()) and not any(self.lines.values()):
                break
        assert not any(self.lines.values()), "starved"
        self.pass_time(64 * 600)
        assert self.rate.snapshot(self.now).keys == 0, "leaked"


TestRateHistories = RateHistories.TestCase
TestRateHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# Rate: the line.


def test_who_waits_is_granted_in_turn_as_slots_come_free() -> None:
    limit = RateLimit(Rate(2, per=1))
    assert taken(limit, 0.0) == 2
    limit.release("", 0.0)
    limit.release("", 0.25)
    first, second, third = (waits(limit, 0.5) for _ in range(3))

    limit.poll(1.0)
    assert (first.granted, second.granted, third.granted) == (True, False, False)

    limit.poll(1.25)
    assert (second.granted, third.granted) == (True, False)


def test_only_the_first_in_line_is_asked_to_come_back() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)

    first, second = waits(limit, 0.0), waits(limit, 0.0)
    assert (first.due, second.due) == (1.0, inf)
    limit.leave(first, 0.5)

    assert second.due == 1.0


def test_an_answer_tells_the_first_in_line_when_to_come_back() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    owner = Owner()
    ticket = owner.holds(limit.line_up("", 0.0, owner.wake))
    assert ticket.due == inf

    limit.release("", 3.0)

    assert (ticket.granted, ticket.due, owner.woken) == (False, 4.0, 1)


def test_nobody_overtakes_who_waits() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)
    ticket = waits(limit, 0.5)

    assert not limit.take("", 1.0)

    limit.poll(1.0)
    assert ticket.granted


def test_a_slot_that_came_free_before_lining_up_is_granted_at_once() -> None:
    limit = RateLimit(Rate(1, per=1, max_waiting=0))
    assert limit.take("", 0.0)
    limit.release("", 0.0)

    assert limit.line_up("", 0.99, lambda: None) is None
    assert waits(limit, 1.0).granted


def test_a_full_line_takes_nobody_and_other_keys_have_their_own() -> None:
    limit = RateLimit(Rate(1, per=1, key=lambda: "", max_waiting=1))
    for key in "ab":
        assert limit.take(key, 0.0)

    assert limit.line_up("a", 0.0, lambda: None) is not None
    assert limit.line_up("a", 0.0, lambda: None) is None
    assert limit.line_up("b", 0.0, lambda: None) is not None


def test_a_granted_slot_that_is_not_wanted_goes_to_the_next() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)
    first, second = waits(limit, 0.0), waits(limit, 0.0)
    limit.poll(1.0)
    assert first.granted

    limit.leave(first, 1.0)

    assert second.granted
    limit.leave(first, 1.0)  # twice is harmless
    assert limit.snapshot(1.0).in_use == 1


def test_the_estimate_counts_who_waits_already() -> None:
    limit = RateLimit(Rate(2, per=1))
    assert taken(limit, 0.0) == 2
    limit.release("", 0.0)
    limit.release("", 0.5)

    assert limit.retry_after("", 0.75) == 0.25
    waits(limit, 0.75)
    assert limit.retry_after("", 0.75) == 0.75
    waits(limit, 0.75)
    assert limit.retry_after("", 0.75) == 1.25
    assert limit.retry_after("another", 0.75) == 0


# Rate: a vendor that complains.


def test_after_a_complaint_nothing_is_sent_before_the_vendor_s_time() -> None:
    limit = RateLimit(Rate(30, per=1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)

    limit.throttled("", 0.0, 7.0)

    assert limit.retry_after("", 1.0) == 6.0
    assert not limit.take("", 6.99)
    assert limit.take("", 7.0)


@pytest.mark.parametrize("retry_after", [None, -1.0, inf, float("nan")])
def test_without_a_sensible_time_the_pause_is_one_window(retry_after: float | None) -> None:
    limit = RateLimit(Rate(30, per=2))

    limit.throttled("", 0.0, retry_after)

    assert not limit.take("", 1.99)
    assert limit.take("", 2.0)


def test_a_complaint_lowers_the_pace_by_30_percent_and_quiet_time_restores_it() -> None:
    limit = RateLimit(Rate(30, per=1))

    limit.throttled("", 0.0, None)

    now, paces = 1.0, []
    for _ in range(11):
        paces.append(taken(limit, now))
        for _ in range(paces[-1]):
            limit.release("", now)
        now += 10
    assert paces == [21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 30]
    assert limit._windows[""].plain  # and is no slower for it


def test_the_pace_recovers_as_far_when_nobody_looks_meanwhile() -> None:
    limit = RateLimit(Rate(30, per=1))
    limit.throttled("", 0.0, None)

    assert [limit.snapshot(31.0).limit for _ in range(2)] == [24, 24]
    assert limit.snapshot(41.0).limit == 25


def test_who_waits_is_granted_when_the_limit_has_grown_back() -> None:
    limit = RateLimit(Rate(3, per=1))
    assert taken(limit, 0.0, at_most=2) == 2
    limit.throttled("", 0.0, 0.0)

    ticket = waits(limit, 0.5)
    assert ticket.due == 11.0
    limit.poll(11.0)

    assert ticket.granted


def test_where_more_is_in_use_than_the_lowered_limit_several_slots_must_come_free() -> None:
    limit = RateLimit(Rate(10, per=8))
    assert taken(limit, 0.0) == 10
    for number in range(10):
        limit.release("", number / 8)
    limit.throttled("", 2.0, 0.0)

    assert waits(limit, 2.0).due == 8 + 3 / 8


def test_the_complaints_of_one_burst_lower_the_pace_once() -> None:
    limit = RateLimit(Rate(10, per=1))

    for _ in range(10):
        limit.throttled("", 0.0, 0.0)
    assert limit.snapshot(0.0).limit == 7

    limit.throttled("", 1.0, 0.0)
    assert limit.snapshot(1.0).limit == 4


def test_a_complaint_only_makes_a_pause_longer() -> None:
    limit = RateLimit(Rate(10, per=1))

    limit.throttled("", 0.0, 9.0)
    limit.throttled("", 5.0, 1.0)

    assert limit.snapshot(5.0).limit == 7
    assert not limit.take("", 8.99)
    assert limit.take("", 9.0)


def test_who_waits_is_granted_when_the_pause_ends() -> None:
    limit = RateLimit(Rate(1, per=1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)
    ticket = waits(limit, 0.0)

    limit.throttled("", 0.5, 9.5)
    limit.poll(1.0)
    assert not ticket.granted
    assert ticket.due == 10.0

    limit.poll(10.0)
    assert ticket.granted


def test_one_slot_is_left_however_often_the_vendor_complains() -> None:
    limit = RateLimit(Rate(2, per=1))

    for second in range(0, 100, 2):
        limit.throttled("", float(second), 0.0)

    assert limit.take("", 98.0)
    assert limit.snapshot(98.0).limit == 1


# Rate: memory.


@pytest.mark.parametrize("counted_from", ["answer", "start"])
def test_keys_whose_window_is_empty_are_forgotten(counted_from: Literal["answer", "start"]) -> None:
    limit = RateLimit(Rate(5, per=1, key=lambda: "", counted_from=counted_from))
    most = 0
    for number in range(100):
        assert limit.take(f"long call {number}", 0.0)

    for number in range(5000):  # a hundred new ones a second
        now = number / 100
        assert limit.take(f"user {number}", now)
        limit.release(f"user {number}", now)
        most = max(most, len(limit._windows))

    for number in range(100):
        limit.release(f"long call {number}", 50.0)
    assert most <= 2 * (100 + 100) + 3
    assert limit.snapshot(51.0).keys == 0


def test_a_key_that_is_paused_or_under_way_is_remembered() -> None:
    limit = RateLimit(Rate(1, per=1, key=lambda: ""))
    assert limit.take("under way", 0.0)
    limit.throttled("paused", 0.0, 1000.0)

    for number in range(100):
        limit.take(f"user {number}", 500.0)

    assert not limit.take("under way", 500.0)
    assert not limit.take("paused", 500.0)


def test_who_lines_up_and_leaves_again_leaks_nothing() -> None:
    # given a slot that stays in use for a month
    limit = RateLimit(Rate(1, per=31 * 86_400))
    places = ConcurrencyLimit(Concurrency(1))
    assert limit.take("", 0.0)
    limit.release("", 0.0)
    assert places.take(INTERACTIVE, 0.0)
    held = waits(limit, 0.0), waits_for_place(places)

    # when thousands lose patience behind who waits for it
    def come_and_go(times: int) -> None:
        for _ in range(times):
            limit.leave(waits(limit, 1.0), 1.0)
            places.leave(waits_for_place(places), 1.0)

    come_and_go(100)
    tracemalloc.start()
    come_and_go(10_000)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then nothing of them is left
    assert grown < 20_000
    assert sum(type(thing) is Ticket for thing in gc.get_objects()) <= len(held)
    assert (limit.snapshot(1.0).waiting, places.snapshot(1.0).waiting) == (1, 1)


def test_a_key_that_is_waited_for_and_given_up_leaves_no_appointment() -> None:
    limit = RateLimit(Rate(1, per=1, key=lambda: ""))

    for number in range(1000):
        assert limit.take(f"user {number}", number)
        limit.release(f"user {number}", number)
        limit.leave(waits(limit, number, f"user {number}"), number)

    assert len(limit._schedule) <= 2


def test_a_million_slots_take_little_memory() -> None:
    limit = RateLimit(Rate(1_000_000, per=60))
    calls = 20_000
    tracemalloc.start()

    for number in range(calls):
        limit.take("", number / 1000)
        limit.release("", number / 1000)

    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / calls < 50
    assert limit.snapshot(19.999).in_use == calls


def test_slots_that_came_free_are_forgotten_as_others_are_used() -> None:
    limit = RateLimit(Rate(1_000_000, per=1))
    for _ in range(1000):
        assert limit.take("", 0.0)
    for _ in range(1000):
        limit.release("", 0.0)

    for number in range(1100):
        limit.take("", 1 + number)
        limit.release("", 1 + number)

    assert len(limit._windows[""].freed) <= 2


# Concurrency.


def test_no_more_calls_than_the_limit_are_under_way() -> None:
    limit = ConcurrencyLimit(Concurrency(2))

    assert [limit.take(INTERACTIVE, 0.0) for _ in range(3)] == [True, True, False]
    limit.release(INTERACTIVE, 0.0, outcome="ok")

    assert limit.take(INTERACTIVE, 0.0)


@pytest.mark.parametrize(
    ("options", "bulk", "webhook", "interactive"),
    [
        (Concurrency(10), 5, 9, 10),
        (Concurrency(1), 1, 1, 1),
        (Concurrency(10, bulk_share=0.01, webhook_share=0.01), 1, 1, 10),
        (Concurrency(100, bulk_share=0.29), 29, 90, 100),
        (Concurrency(10, bulk_share=1.0, webhook_share=0.4), 4, 4, 10),
    ],
)
def test_lower_priorities_have_a_share_of_the_places(
    options: Concurrency, bulk: int, webhook: int, interactive: int
) -> None:
    def places(*priorities: Priority) -> int:
        limit = ConcurrencyLimit(options)
        return sum(limit.take(priority, 0.0) for priority in priorities for _ in range(200))

    assert places(BULK) == bulk
    assert places(WEBHOOK) == places(BULK, WEBHOOK) == webhook
    assert places(INTERACTIVE) == places(BULK, WEBHOOK, INTERACTIVE) == interactive


def test_the_higher_priority_goes_first_and_within_one_who_came_first() -> None:
    limit = ConcurrencyLimit(Concurrency(1))
    assert limit.take(INTERACTIVE, 0.0)
    order: list[str] = []

    def line_up(name: str, priority: Priority) -> None:
        limit.line_up(priority, 0.0, lambda: order.append(name))

    for name, priority in (("b1", BULK), ("w1", WEBHOOK), ("b2", BULK), ("i1", INTERACTIVE), ("i2", INTERACTIVE)):
        line_up(name, priority)
    for priority in (INTERACTIVE, INTERACTIVE, INTERACTIVE, WEBHOOK, BULK):
        limit.release(priority, 0.0, outcome="ok")

    assert order == ["i1", "i2", "w1", "b1", "b2"]


def test_in_a_full_line_the_latest_of_the_lowest_priority_is_dropped() -> None:
    limit = ConcurrencyLimit(Concurrency(1, max_waiting=3))
    assert limit.take(INTERACTIVE, 0.0)
    webhook, early, late = (waits_for_place(limit, priority) for priority in (WEBHOOK, BULK, BULK))

    assert limit.line_up(BULK, 0.0, lambda: None) is None
    assert not waits_for_place(limit, INTERACTIVE).dropped
    assert (webhook.dropped, early.dropped, late.dropped) == (False, False, True)
    assert not waits_for_place(limit, WEBHOOK).dropped
    assert (webhook.dropped, early.dropped) == (False, True)
    assert limit.line_up(WEBHOOK, 0.0, lambda: None) is None
    limit.leave(late, 0.0)
    assert limit.snapshot(0.0).waiting == 3


def test_a_granted_place_that_is_not_wanted_goes_to_the_next() -> None:
    limit = ConcurrencyLimit(Concurrency(1))
    assert limit.take(INTERACTIVE, 0.0)
    first, second = waits_for_place(limit), waits_for_place(limit)
    limit.release(INTERACTIVE, 0.0, outcome="ok")
    assert first.granted

    limit.leave(first, 0.0)

    assert second.granted
    limit.leave(first, 0.0)  # twice is harmless
    assert limit.snapshot(0.0).in_use == 1


# Concurrency: the adaptive limit.


def full(limit: ConcurrencyLimit) -> int:
    """Use every place."""
    return sum(limit.take(INTERACTIVE, 0.0) for _ in range(1000))


def ends(limit: ConcurrencyLimit, times: int, outcome: Literal["ok", "overload", "neutral"]) -> int:
    """So many end one after the other, each replaced at once; the limit then."""
    for _ in range(times):
        limit.release(INTERACTIVE, 0.0, outcome=outcome)
        limit.take(INTERACTIVE, 0.0)
    return limit.snapshot(0.0).limit


def test_an_overload_takes_a_tenth_of_the_limit_once_in_a_round_trip() -> None:
    limit = ConcurrencyLimit(Concurrency(100, adaptive=True))
    assert full(limit) == 100

    assert ends(limit, 1, "overload") == 90
    assert ends(limit, 99, "overload") == 90  # they were sent before the cut
    assert ends(limit, 1, "overload") == 81


def test_successes_raise_the_limit_by_about_one_in_a_round_trip() -> None:
    limit = ConcurrencyLimit(Concurrency(100, adaptive=True))
    full(limit)
    assert ends(limit, 1, "overload") == 90

    assert ends(limit, 89, "ok") == 90
    assert ends(limit, 2, "ok") == 91
    assert ends(limit, 2000, "ok") == 100


def test_the_limit_does_not_grow_while_less_than_half_of_it_is_in_use() -> None:
    limit = ConcurrencyLimit(Concurrency(100, adaptive=True))
    full(limit)
    ends(limit, 1, "overload")
    for _ in range(46):
        limit.release(INTERACTIVE, 0.0, outcome="neutral")
    in_use = limit.snapshot(0.0).in_use
    assert in_use == 44 + 9  # nine above the new limit went unreplaced

    for _ in range(9):
        limit.release(INTERACTIVE, 0.0, outcome="neutral")

    assert ends(limit, 1000, "ok") == 90
    for _ in range(2):
        assert limit.take(INTERACTIVE, 0.0)  # 46 of 90
    assert ends(limit, 92, "ok") == 91


def test_neutral_ends_change_nothing_and_a_fixed_limit_is_fixed() -> None:
    adaptive, fixed = ConcurrencyLimit(Concurrency(10, adaptive=True)), ConcurrencyLimit(Concurrency(10))
    full(adaptive)
    full(fixed)

    assert ends(adaptive, 1, "overload") == 9
    assert ends(adaptive, 100, "neutral") == 9
    assert ends(fixed, 100, "overload") == 10


def test_the_limit_stays_at_least_at_the_least() -> None:
    limit = ConcurrencyLimit(Concurrency(100, adaptive=True, least=20))
    full(limit)

    assert ends(limit, 10_000, "overload") == 20


def test_a_lower_limit_grants_nothing_until_enough_have_ended() -> None:
    limit = ConcurrencyLimit(Concurrency(10, adaptive=True))
    full(limit)
    ticket = waits_for_place(limit)

    limit.release(INTERACTIVE, 0.0, outcome="overload")
    assert not ticket.granted
    limit.release(INTERACTIVE, 0.0, outcome="neutral")

    assert ticket.granted


# Concurrency: slow start.


def test_after_a_circuit_closed_the_limit_returns_in_thirds() -> None:
    limit = ConcurrencyLimit(Concurrency(16))

    limit.restart(100.0, 9.0)

    shown = [limit.snapshot(now).limit for now in (100.0, 102.9, 103.0, 105.9, 106.0, 200.0)]
    assert shown == [4, 4, 8, 8, 16, 16]


def test_a_slow_start_leaves_at_least_one_place() -> None:
    limit = ConcurrencyLimit(Concurrency(1))

    limit.restart(0.0, 9.0)

    assert limit.take(INTERACTIVE, 0.0)


def test_who_waits_during_a_slow_start_comes_back_at_its_steps() -> None:
    # given two places in use and three who wait
    limit = ConcurrencyLimit(Concurrency(4))
    assert full(limit) == 4
    owner = Owner()
    first = owner.holds(limit.line_up(INTERACTIVE, 0.0, owner.wake))
    assert first.due == inf

    # when the limit becomes one
    limit.restart(0.0, 3.0)
    second = waits_for_place(limit)
    for _ in range(3):
        limit.release(INTERACTIVE, 0.0, outcome="ok")

    # then they are told of its steps, and granted at them
    assert (owner.woken, first.due, second.due) == (1, 1.0, 1.0)
    limit.poll(1.0)
    assert (first.granted, second.granted, second.due) == (True, False, 2.0)
    limit.poll(2.0)
    assert second.granted


def test_who_is_still_without_a_place_after_a_slow_start_waits_for_a_release() -> None:
    limit = ConcurrencyLimit(Concurrency(1))
    limit.restart(0.0, 3.0)
    assert limit.take(INTERACTIVE, 0.0)
    ticket = waits_for_place(limit)

    limit.poll(2.0)

    assert (ticket.granted, ticket.due) == (False, inf)


def test_a_newcomer_during_a_slow_start_sees_its_steps() -> None:
    limit = ConcurrencyLimit(Concurrency(4))
    limit.restart(0.0, 3.0)

    assert [limit.take(INTERACTIVE, now) for now in (0.0, 0.5, 1.0, 1.5, 2.0)] == [True, False, True, False, True]


@pytest.mark.parametrize("waiting", [1, 3])
def test_a_release_that_comes_with_a_step_grants_by_both(waiting: int) -> None:
    limit = ConcurrencyLimit(Concurrency(4))
    limit.restart(0.0, 3.0)
    assert limit.take(INTERACTIVE, 0.0)
    tickets = [waits_for_place(limit) for _ in range(waiting)]

    limit.release(INTERACTIVE, 1.0, outcome="ok")

    assert [ticket.granted for ticket in tickets] == [True, True, False][:waiting]
    assert limit.snapshot(1.0).in_use == min(waiting, 2)


@dataclass
class Model:
    """Places, naively."""

    options: Concurrency
    under_way: list[Priority] = field(default_factory=list[Priority])
    lines: dict[Priority, list[Owner]] = field(default_factory=lambda: {BULK: [], WEBHOOK: [], INTERACTIVE: []})

    def may_begin(self, priority: Priority, places: int) -> bool:
        return self.fits([*self.under_way, priority], priority, places)

    def fits(self, calls: list[Priority], priority: Priority, places: int) -> bool:
        """Whether these calls are within the limits that hold for this priority."""
        counts = Counter(calls)
        webhooks = max(1, round(places * self.options.webhook_share - 0.5 + 1e-6))
        bulk = max(1, round(places * self.options.bulk_share - 0.5 + 1e-6))
        return (
            len(calls) <= places
            and (priority is INTERACTIVE or counts[WEBHOOK] + counts[BULK] <= webhooks)
            and (priority is not BULK or counts[BULK] <= bulk)
        )


class ConcurrencyHistories(RuleBasedStateMachine):
    """Callers of all priorities, against a list of calls."""

    @initialize(
        limit=st.integers(1, 8),
        adaptive=st.booleans(),
        shares=st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([0.5, 0.75, 1.0])),
        max_waiting=st.sampled_from([0, 2, 9]),
        data=st.data(),
    )
    def begin(self, limit: int, adaptive: bool, shares: tuple[float, float], max_waiting: int, data: Any) -> None:
        least = data.draw(st.integers(1, limit))
        self.options = Concurrency(
            limit,
            adaptive=adaptive,
            least=least,
            bulk_share=shares[0],
            webhook_share=shares[1],
            max_waiting=max_waiting,
        )
        self.limit, self.model = ConcurrencyLimit(self.options), Model(self.options)
        self.now = 0.0
        self.restarted = (-inf, 1.0)
        self.begun: list[Priority] = []

    def places(self) -> int:
        """By the model where it can say; else within bounds, as shown."""
        began, over = self.restarted
        passed = (self.now - began) / over
        share = 0.25 if passed < 1 / 3 else 0.5 if passed < 2 / 3 else 1.0
        shown = self.limit.snapshot(self.now).limit
        most, least = (max(1, int(limit * share)) for limit in (self.options.limit, self.options.least))
        assert least <= shown <= most
        assert self.options.adaptive or shown == most
        return shown

    def seen(self, owner: Owner) -> None:
        assert owner.ticket is not None
        priority = owner.ticket.priority
        if owner.ticket.granted:
            assert not any(self.model.lines[higher] for higher in Priority if higher > priority)
            assert self.model.lines[priority].pop(0) is owner, "out of turn"
            self.model.under_way.append(priority)
            self.begun.append(priority)
        elif owner.ticket.dropped:
            assert not any(self.model.lines[lower] for lower in Priority if lower < priority)
            assert self.model.lines[priority].pop() is owner, "not the latest"

    @rule(priority=st.sampled_from(Priority))
    def take(self, priority: Priority) -> None:
        may = self.model.may_begin(priority, self.places())
        assert self.limit.take(priority, self.now) == may
        if may:
            self.model.under_way.append(priority)

    @rule(priority=st.sampled_from(Priority))
    def line_up(self, priority: Priority) -> None:
        may = self.model.may_begin(priority, self.places())
        waiting = sum(map(len, self.model.lines.values()))
        lower = sum(len(self.model.lines[other]) for other in Priority if other < priority)
        owner = Owner(self.seen)
        ticket = self.limit.line_up(priority, self.now, owner.wake)
        if ticket is None:
            assert not may
            assert waiting >= self.options.max_waiting
            assert not lower
            return
        owner.holds(ticket)
        assert ticket.granted == may
        if may:
            self.model.under_way.append(priority)
        else:
            self.model.lines[priority].append(owner)
            assert sum(map(len, self.model.lines.values())) <= self.options.max_waiting

    @precondition(lambda self: self.model.under_way)
    @rule(which=st.integers(0, 99), outcome=st.sampled_from(["ok", "overload", "neutral"]))
    def end(self, which: int, outcome: Literal["ok", "overload", "neutral"]) -> None:
        priority = self.model.under_way.pop(which % len(self.model.under_way))
        self.limit.release(priority, self.now, outcome=outcome)

    @rule(priority=st.sampled_from(Priority), which=st.integers(0, 99))
    def give_up(self, priority: Priority, which: int) -> None:
        line = self.model.lines[priority]
        if line:
            owner = line.pop(which % len(line))
            assert owner.ticket is not None
            self.limit.leave(owner.ticket, self.now)
            self.limit.leave(owner.ticket, self.now)

    @rule(over=st.sampled_from([3.0, 9.0]))
    def restart(self, over: float) -> None:
        self.restarted = (self.now, over)
        self.limit.restart(self.now, over)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (alarm := min((owner.alarm for owner in self.waiting()), default=inf)) <= until:
            self.now = max(self.now, alarm)
            self.limit.poll(self.now)
            for owner in self.waiting():
                if owner.alarm <= self.now:
                    assert owner.ticket is not None
                    owner.alarm = owner.ticket.due
                    assert owner.alarm > self.now, "he would poll for ever"
        self.now = until

    def waiting(self) -> list[Owner]:
        return [owner for line in self.model.lines.values() for owner in line]

    @invariant()
    def what_was_granted_was_within_the_limits(self) -> None:
        places = self.places()
        for priority in self.begun:
            assert self.model.fits(self.model.under_way, priority, places)
        self.begun.clear()

    @invariant()
    def nobody_waits_who_may_have_a_place(self) -> None:
        places = self.places()
        for priority, line in self.model.lines.items():
            assert not line or not self.model.may_begin(priority, places)

    @invariant()
    def the_count_is_right(self) -> None:
        shown = self.limit.snapshot(self.now)
        assert (shown.in_use, shown.waiting) == (len(self.model.under_way), len(self.waiting()))

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        while self.model.under_way:
            self.end(0, "ok")
        assert not self.waiting(), "starved"


TestConcurrencyHistories = ConcurrencyHistories.TestCase
TestConcurrencyHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
