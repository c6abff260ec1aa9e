"""The ledger: what happened, once and for all."""

import json

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.ledger import Kind, Ledger
from holdfast.values import Money


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(ManualClock())
    ledger.record(Kind.OFFER, vendor="swiss-bitcoin-pay", id="a", key="o1", money=Money(120, "CHF"))
    ledger.record(Kind.CAPTURE, vendor="swiss-bitcoin-pay", id="a", key="o1", money=Money(120, "CHF"))
    ledger.record(Kind.OFFER, vendor="lnbits", id="b", key="o2", money=Money.from_sat(150_000))
    return ledger


def test_what_happened_once_is_found_as_one(ledger: Ledger) -> None:
    assert ledger.exactly_once(Kind.CAPTURE, "o1").vendor == "swiss-bitcoin-pay"


def test_what_happened_twice_names_every_vendor_it_happened_at(ledger: Ledger) -> None:
    ledger.record(Kind.CAPTURE, vendor="lnbits", id="c", key="o1", money=Money.from_sat(150_000))
    with pytest.raises(AssertionError, match=r"capture of o1 happened 2 times.*swiss-bitcoin-pay a.*lnbits c"):
        ledger.exactly_once(Kind.CAPTURE, "o1")


def test_what_did_not_happen_is_no_once(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="0 times, not once: none"):
        ledger.exactly_once(Kind.CAPTURE, "o2")


def test_captured_is_less_what_was_refunded_and_each_currency_alone(ledger: Ledger) -> None:
    # when
    ledger.record(Kind.REFUND, vendor="swiss-bitcoin-pay", id="a", key="o1", money=Money(20, "CHF"))
    ledger.record(Kind.CAPTURE, vendor="lnbits", id="c", key="o1", money=Money.from_sat(7))

    # then
    assert ledger.captured("o1", "CHF") == Money(100, "CHF")
    assert ledger.captured("o1", "BTC") == Money.from_sat(7)


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
