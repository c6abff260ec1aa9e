"""The ledger: what happened, once and for all, and what a test demands of it by its meaning."""

import json

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.intents import Intent, charge, meeting, message, offer, refund
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.values import Money

FRANCS = Money(120, "CHF")


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(ManualClock())
    ledger.record(Kind.OFFER, vendor="swiss-bitcoin-pay", id="a", key="o1", money=FRANCS)
    ledger.record(Kind.CAPTURE, vendor="swiss-bitcoin-pay", id="a", key="o1", money=FRANCS)
    ledger.record(Kind.OFFER, vendor="lnbits", id="b", key="o2", money=Money.from_sat(150_000))
    return ledger


def test_what_happened_once_is_found_as_one(ledger: Ledger) -> None:
    assert ledger.exactly_once(charge(reference="o1")).vendor == "swiss-bitcoin-pay"
    assert ledger.at_least_one(charge(reference="o1")) == [ledger.at_most_once(charge(reference="o1"))]


def test_what_happened_twice_names_every_vendor_it_happened_at(ledger: Ledger) -> None:
    ledger.record(Kind.CAPTURE, vendor="lnbits", id="c", key="o1", money=Money.from_sat(150_000))

    with pytest.raises(AssertionError, match=r"charge of o1 happened 2 times, not once:\n.*pay a at .*\n.*lnbits c at"):
        ledger.exactly_once(charge(reference="o1"))
    with pytest.raises(AssertionError, match="charge of o1 happened 2 times, not at most once"):
        ledger.at_most_once(charge(reference="o1"))
    assert len(ledger.at_least_one(charge(reference="o1"))) == 2
    assert ledger.exactly_once(charge(reference="o1", vendor="lnbits")).id == "c"


def test_what_did_not_happen_is_no_once(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="charge of o2 happened 0 times, not once: none"):
        ledger.exactly_once(charge(reference="o2"))
    with pytest.raises(AssertionError, match="charge of o2 happened 0 times, not at least once: none"):
        ledger.at_least_one(charge(reference="o2"))
    assert ledger.at_most_once(charge(reference="o2")) is None


def test_what_must_not_happen_and_did_is_told(ledger: Ledger) -> None:
    ledger.never(refund(reference="o1"))
    with pytest.raises(AssertionError, match="charge of o1 happened 1 time, not never"):
        ledger.never(charge(reference="o1"))


def test_a_failed_demand_shows_what_happened(ledger: Ledger) -> None:
    with pytest.raises(AssertionError) as failed:
        ledger.never(charge(reference="o1"))

    assert str(failed.value).count("what happened:") == 1
    assert "capture of o1 over 120.00 CHF" in str(failed.value).partition("what happened:")[2]


@pytest.mark.parametrize(
    ("intent", "times"),
    [
        (charge(), 2),
        (charge(reference="o1"), 1),
        (charge(amount=FRANCS), 1),
        (charge(amount=Money("120.01", "CHF")), 0),
        (charge(vendor="lnbits"), 1),
        (charge(reference="o1", vendor="lnbits"), 0),
        (refund(reference="o1"), 1),
        (refund(reference="o1", amount=FRANCS), 0),
        (offer(reference="o2"), 1),
        (offer(reference="o"), 0),
        (meeting(reference="o1"), 1),
        (meeting(reference="Talk about o1"), 1),
        (meeting(reference="o"), 0),
        (meeting(reference="o7"), 0),
        (meeting(reference="o7.b"), 1),
        (meeting(reference="4711"), 1),
        (message(to="ada"), 2),
        (message(to="ada", text_contains="paid"), 1),
        (message(to="ada", text_contains="Receipt"), 1),
        (message(to="eve"), 0),
        (message(key="m1"), 1),
    ],
)
def test_an_intent_matches_by_what_it_says_and_by_nothing_else(ledger: Ledger, intent: Intent, times: int) -> None:
    ledger.record(Kind.CAPTURE, vendor="lnbits", id="c", key="o2", money=Money.from_sat(150_000))
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="r", key="o1", money=Money(1, "CHF"))
    ledger.record(Kind.MEETING, vendor="zoom", id="m", key="Talk about o1", facts={"agenda": "[ref:4711]"})
    ledger.record(Kind.MEETING, vendor="zoom", id="n", key="Talk about o7.b.")
    ledger.record(Kind.MESSAGE, vendor="slack", id="1", key="m1", facts={"to": "ada", "text": "paid"})
    ledger.record(Kind.MESSAGE, vendor="smtp", id="2", key="ada", facts={"to": "ada", "subject": "Receipt"})

    assert sum(map(intent.matches, ledger)) == times


def test_a_deleted_meeting_does_not_stand() -> None:
    # given
    ledger = Ledger(ManualClock())
    ledger.record(Kind.MEETING, vendor="zoom", id="m1", key="o1")
    ledger.record(Kind.MEETING, vendor="zoom", id="m2", key="o1")

    # when
    with pytest.raises(AssertionError, match="2 times"):
        ledger.exactly_once(meeting(reference="o1"))
    ledger.record(Kind.MEETING_DELETED, vendor="zoom", id="m1", key="o1")

    # then
    assert ledger.exactly_once(meeting(reference="o1")).id == "m2"


def test_a_message_is_known_by_the_key_its_call_carried() -> None:
    # given
    journal = Journal(ManualClock())
    ledger = Ledger(journal=journal)

    # when
    for key in ("k1", "k2"):
        number = journal.begin()
        ledger.record(Kind.MESSAGE, vendor="sms", id=f"of {key}", key="+41", facts={"to": "+41"})
        journal.call("sms", "messages.send", None, status=201, key=key, number=number)

    # then
    assert ledger.exactly_once(message(key="k2")).id == "of k2"


def test_captured_is_less_what_was_refunded_and_each_currency_alone(ledger: Ledger) -> None:
    # when
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="a", key="o1", money=Money(20, "CHF"))
    ledger.record(Kind.CAPTURE, vendor="lnbits", id="c", key="o1", money=Money.from_sat(7))

    # then
    assert ledger.captured("o1", "CHF") == Money(100, "CHF")
    assert ledger.captured("o1", "BTC") == Money.from_sat(7)


def test_a_refund_that_came_back_counts_as_captured_and_is_no_second_charge(ledger: Ledger) -> None:
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="r", key="o1", money=FRANCS)
    ledger.record(Kind.REFUND_FAILED, vendor="swiss-bitcoin-pay", id="r", key="o1", money=FRANCS)

    assert ledger.captured("o1", "CHF") == FRANCS
    ledger.exactly_once(charge(reference="o1"))
    ledger.refunded_at_most_captured()


def test_more_given_back_than_taken_is_told(ledger: Ledger) -> None:
    # given
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="r1", key="o1", money=Money(100, "CHF"))
    ledger.refunded_at_most_captured()

    # when
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="r2", key="o1", money=Money(21, "CHF"))

    # then
    with pytest.raises(AssertionError, match=r"more was given back than was taken:\n  o1: .*r2.*leaves -1.00 CHF"):
        ledger.refunded_at_most_captured()


@pytest.mark.parametrize(("vendor", "key"), [("lnbits", "o1"), ("swiss-bitcoin-pay", "o2")])
def test_money_given_back_elsewhere_or_for_something_else_was_never_taken(
    ledger: Ledger, vendor: str, key: str
) -> None:
    ledger.record(Kind.REFUND, vendor=vendor, id="r", key=key, money=FRANCS)
    with pytest.raises(AssertionError, match="more was given back"):
        ledger.refunded_at_most_captured()


def test_entries_are_found_by_any_of_their_facts(ledger: Ledger) -> None:
    assert [entry.id for entry in ledger.entries(Kind.OFFER)] == ["a", "b"]
    assert [entry.id for entry in ledger.entries(vendor="lnbits")] == ["b"]
    assert [entry.kind for entry in ledger.entries(key="o1")] == [Kind.OFFER, Kind.CAPTURE]
    assert [entry.kind for entry in ledger.entries(id="a")] == [Kind.OFFER, Kind.CAPTURE]
    assert ledger.keys(Kind.OFFER) == {"o1", "o2"}


def test_the_dump_is_json_with_exact_amounts(ledger: Ledger) -> None:
    found = json.loads(ledger.dump())
    assert [(entry["number"], entry["amount"], entry["currency"]) for entry in found] == [
        (0, "120.00", "CHF"),
        (1, "120.00", "CHF"),
        (2, "0.00150000000", "BTC"),
    ]
    assert [entry.number for entry in ledger] == [0, 1, 2]


def test_a_cleared_ledger_starts_over(ledger: Ledger) -> None:
    ledger.clear()
    assert not len(ledger)


@pytest.mark.parametrize(
    ("intent", "text"),
    [
        (charge(), "charge"),
        (charge(reference="o1", amount=FRANCS, vendor="stripe"), "charge of o1 over 120.00 CHF at stripe"),
        (message(to="ada", key="k", text_contains="x"), "message to ada with key k saying 'x'"),
    ],
)
def test_an_intent_reads_as_a_sentence(intent: Intent, text: str) -> None:
    assert str(intent) == text
