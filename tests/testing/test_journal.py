"""The journal: calls, effects, webhooks and notes under one sequence of numbers."""

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Webhook
from holdfast.testing.simulators.webhooks import Manner, Sent


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(clock: ManualClock) -> Journal:
    return Journal(clock)


def webhook(journal: Journal, clock: ManualClock) -> None:
    owed = Webhook(vendor="stripe", url="https://shop.test", event="paid", about="x1", key="o1", body=b"{}")
    journal.webhook(Sent(webhook=owed, manner=Manner.GENUINE, status=200, at=clock.now()))


def test_everything_is_numbered_in_the_order_it_happened(journal: Journal, clock: ManualClock) -> None:
    # given
    ledger = Ledger(journal=journal)

    # when
    journal.call("stripe", "payments.create", None, status=200)
    ledger.record(Kind.CAPTURE, vendor="stripe", id="x1", key="o1")
    webhook(journal, clock)
    journal.note("crash", "at await 17")

    # then
    assert [record.number for record in journal.records] == [0, 1, 2, 3]
    assert [record.line().kind for record in journal.records] == ["call", "ledger", "webhook", "crash"]


def test_a_call_that_has_begun_comes_before_its_effects_and_they_name_it(journal: Journal) -> None:
    # given
    ledger = Ledger(journal=journal)

    # when
    number = journal.begin()
    effect = ledger.record(Kind.CAPTURE, vendor="stripe", id="x1", key="o1")
    call = journal.call("stripe", "payments.create", None, status=200, number=number)
    later = ledger.record(Kind.CAPTURE, vendor="stripe", id="x2", key="o1")

    # then
    assert (call.number, effect.number, later.number) == (0, 1, 2)
    assert (effect.call, later.call) == (0, None)


async def test_a_call_is_as_old_as_its_beginning_so_that_no_effect_is_older() -> None:
    # given
    clock = ManualClock()
    journal = Journal(clock)
    ledger = Ledger(clock, journal=journal)

    # when
    number = journal.begin()
    await clock.advance(1)
    effect = ledger.record(Kind.CAPTURE, vendor="stripe", id="x1", key="o1")
    call = journal.call("stripe", "payments.create", None, status=200, number=number)

    # then
    assert (effect.at - call.at).total_seconds() == 1
    assert journal.call("stripe", "payments.fetch", None).at == effect.at


def test_calls_are_found_by_vendor_and_operation(journal: Journal) -> None:
    journal.call("stripe", "payments.create", None, key="a")
    journal.call("stripe", "payments.fetch", None, key="b")
    journal.call("zoom", "meetings.create", None, key="c")

    assert journal.calls("stripe").keys == ["a", "b"]
    assert journal.calls("stripe", "payments.fetch").keys == ["b"]
    assert journal.calls(operation="meetings.create").keys == ["c"]
    assert journal.calls().keys == ["a", "b", "c"]


def test_calls_are_in_the_order_they_began(journal: Journal) -> None:
    first = journal.begin()
    journal.call("stripe", "payments.create", None, key="second")
    journal.call("stripe", "payments.create", None, key="first", number=first)
    assert journal.calls().keys == ["first", "second"]


def test_a_limited_journal_forgets_the_oldest_and_counts_them() -> None:
    journal = Journal(ManualClock(), limit=2)
    for number in range(5):
        journal.note("step", f"{number}")

    assert [note.text for note in journal.notes("step")] == ["3", "4"]
    assert journal.forgotten == 3


def test_a_cleared_journal_has_forgotten_nothing_and_never_gives_a_number_twice(journal: Journal) -> None:
    journal.note("before")
    journal.clear()
    journal.note("after")
    assert [record.number for record in journal.records] == [1]
    assert journal.forgotten == 0


def test_notes_keep_their_facts(journal: Journal, clock: ManualClock) -> None:
    # when
    journal.note("crash", "at await 17", vendor="stripe", place=17)
    journal.note("restart")

    # then
    [note] = journal.notes("crash")
    assert (note.text, note.facts, note.at) == ("at await 17", {"vendor": "stripe", "place": 17}, clock.now())
    assert [note.kind for note in journal.notes()] == ["crash", "restart"]


def test_writing_puts_nothing_into_words(journal: Journal) -> None:
    class Unspeakable:
        method, target, headers, body = "POST", "/", (), b""

        def __str__(self) -> str:
            raise AssertionError("put into words")

        __repr__ = __str__

    call = journal.call("stripe", "payments.create", Unspeakable())
    assert call.asked == b"/\n"
