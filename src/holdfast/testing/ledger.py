"""What really happened at the vendors: the truth that tests and the demo's oracle are judged by."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from holdfast.clock import Clock
from holdfast.testing.entries import Entry, Kind
from holdfast.testing.intents import Intent
from holdfast.testing.journal import Journal
from holdfast.testing.learned import Learned
from holdfast.testing.offers import Offers
from holdfast.testing.timeline import failure
from holdfast.values import Money

__all__ = ["Entry", "Kind", "Ledger"]

_SIGNS: Mapping[Kind, int] = {Kind.CAPTURE: 1, Kind.REFUND_FAILED: 1, Kind.REFUND: -1}
"""Whose money is the merchant's then."""


class Ledger:
    """Everything that happened, over all vendors, in order; only ever appended to.

    Demand what should be true: `ledger.exactly_once(charge(reference="o1"))`. A demand that is not met is an
    `AssertionError` that ends with the timeline. What happened is numbered together with what the journal holds.
    """

    def __init__(self, clock: Clock | None = None, *, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal(clock)
        """The calls and webhooks between which it happened."""
        self._clock = clock or self.journal.clock
        self._entries: list[Entry] = []

    def record(
        self,
        kind: Kind,
        *,
        vendor: str,
        id: str,
        key: str,
        money: Money | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> Entry:
        """Write down that it happened, now."""
        entry = Entry(
            number=self.journal.number(),
            kind=kind,
            vendor=vendor,
            id=id,
            key=key,
            at=self._clock.now(),
            money=money,
            facts=facts or {},
            call=self.journal.acting,
        )
        self._entries.append(entry)
        self.journal.add(entry)
        return entry

    def entries(
        self, kind: Kind | None = None, *, key: str | None = None, vendor: str | None = None, id: str | None = None
    ) -> list[Entry]:
        """Those that match, in the order they happened."""
        return [
            entry
            for entry in self._entries
            if kind in (None, entry.kind)
            and key in (None, entry.key)
            and vendor in (None, entry.vendor)
            and id in (None, entry.id)
        ]

    # Demands

    def exactly_once(self, intent: Intent) -> Entry:
        """It happened once over all vendors; what happened.

        Raises:
            AssertionError: Never, or more than once.
        """
        __tracebackhide__ = True
        return self._demand(intent, at_least=1, at_most=1, wanted="once")[0]

    def at_least_one(self, intent: Intent) -> list[Entry]:
        """It happened; each time it did.

        Raises:
            AssertionError: It did not.
        """
        __tracebackhide__ = True
        return self._demand(intent, at_least=1, at_most=None, wanted="at least once")

    def at_most_once(self, intent: Intent) -> Entry | None:
        """It did not happen twice; what happened, if it did.

        Raises:
            AssertionError: It happened more than once.
        """
        __tracebackhide__ = True
        return next(iter(self._demand(intent, at_least=0, at_most=1, wanted="at most once")), None)

    def never(self, intent: Intent) -> None:
        """It did not happen.

        Raises:
            AssertionError: It did.
        """
        __tracebackhide__ = True
        self._demand(intent, at_least=0, at_most=0, wanted="never")

    def no_orphans(self) -> None:
        """Whatever lasts at a vendor, the program was told of after it happened.

        What lasts is an offer that can be paid now, a meeting not deleted since, money taken and not given back, and
        money given back. The program was told when an answer that came through named the thing: the answer to the call
        that made it, to the same call made again, or to a look-up; or when the vendor's webhook about it was answered
        2xx. An answer that was lost, damaged or given up on tells nothing. So an orphan is an effect whose answer was
        lost and after which nobody looked, and a payment whose webhook nobody took and nobody went to see.

        Messages leave nothing to look after, and are never orphans. What the journal was limited to forget counts as
        not told.

        Raises:
            AssertionError: Something lasts that the program knows nothing of.
        """
        __tracebackhide__ = True
        learned, offers = Learned(self.journal), Offers(self._entries)
        orphans = [entry for entry in self._lasting(offers) if learned.when(entry) is None]
        if orphans:
            listed = _listed(f"{entry.kind} of {entry.key}: {entry}" for entry in orphans)
            raise failure(f"the program was never told of what lasts at its vendors:{listed}", self.journal)

    def never_two_offers(self) -> None:
        """At no time did the program hold two offers of one reference that could both be paid.

        An offer is held once the program was told of it, as in `no_orphans`: one that it does not know it can show
        nobody. It can be paid until money was taken for it, it was cancelled, or it expired.

        Raises:
            AssertionError: It did.
        """
        __tracebackhide__ = True
        learned, offers = Learned(self.journal), Offers(self._entries)
        held = [(entry, learned.when(entry)) for entry in self.entries(Kind.OFFER)]
        times = {record.number: record.at for record in self.journal.records}
        doubled: list[str] = []
        for (one, one_held), (other, other_held) in combinations(held, 2):
            if one.key != other.key or one_held is None or other_held is None:
                continue
            both = max(one_held, other_held)
            at = times.get(both, other.at)
            if offers.payable(one, before=both, at=at) and offers.payable(other, before=both, at=at):
                doubled.append(f"{one.key}: {one} and {other}")
        if doubled:
            raise failure(
                f"two offers of one reference could be paid at the same time:{_listed(doubled)}", self.journal
            )

    def refunded_at_most_captured(self) -> None:
        """At no time, at no vendor and in no currency, more was given back for a reference than had been taken.

        Raises:
            AssertionError: It was.
        """
        __tracebackhide__ = True
        held: dict[tuple[str, str, str], Money] = {}
        beyond: list[str] = []
        for entry in self._entries:
            if entry.money is None or entry.kind not in _SIGNS:
                continue
            account = (entry.key, entry.vendor, entry.money.currency)
            nothing = Money.from_minor(0, entry.money.currency)
            held[account] = held.get(account, nothing) + _signed(entry.kind, entry.money)
            if held[account] < nothing:
                beyond.append(f"{entry.key}: {entry}, which leaves {held[account]}")
        if beyond:
            raise failure(f"more was given back than was taken:{_listed(beyond)}", self.journal)

    # Sums

    def captured(self, reference: str, currency: str) -> Money:
        """Captured minus refunded in one currency, over all vendors."""
        total = Money.from_minor(0, currency)
        for entry in self.entries(key=reference):
            if entry.money is not None and entry.money.currency == currency and entry.kind in _SIGNS:
                total += _signed(entry.kind, entry.money)
        return total

    def keys(self, kind: Kind) -> set[str]:
        """The business objects something of this kind happened to."""
        return {entry.key for entry in self._entries if entry.kind is kind}

    def clear(self) -> None:
        """Forget everything; for a server that starts over."""
        self._entries.clear()

    def to_json(self) -> list[dict[str, object]]:
        """As plain data, in order."""
        return [entry.to_json() for entry in self._entries]

    def dump(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_json(), indent=1)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def _demand(self, intent: Intent, *, at_least: int, at_most: int | None, wanted: str) -> list[Entry]:
        __tracebackhide__ = True
        found = self._found(intent)
        if len(found) < at_least or (at_most is not None and len(found) > at_most):
            text = f"{intent} happened {_times(len(found))}, not {wanted}:{_listed(map(str, found)) or ' none'}"
            raise failure(text, self.journal)
        return found

    def _found(self, intent: Intent) -> list[Entry]:
        keys = {call.number: call.key for call in self.journal.calls()} if intent.key is not None else {}
        deleted = {(entry.vendor, entry.id) for entry in self.entries(Kind.MEETING_DELETED)}
        return [
            entry
            for entry in self._entries
            if intent.matches(entry, key=keys.get(entry.call) if entry.call is not None else None)
            and not (entry.kind is Kind.MEETING and (entry.vendor, entry.id) in deleted)
        ]

    def _lasting(self, offers: Offers) -> Iterator[Entry]:
        deleted = {(entry.vendor, entry.id) for entry in self.entries(Kind.MEETING_DELETED)}
        for entry in self._entries:
            match entry.kind:
                case Kind.OFFER if offers.payable(entry, at=self._clock.now()):
                    yield entry
                case Kind.MEETING if (entry.vendor, entry.id) not in deleted:
                    yield entry
                case Kind.REFUND:
                    yield entry
                case Kind.CAPTURE if entry.money is not None and self._kept(entry):
                    yield entry
                case _:
                    pass

    def _kept(self, capture: Entry) -> bool:
        """Whether any of what was taken for that reference at that vendor is still there."""
        assert capture.money is not None
        kept = Money.from_minor(0, capture.money.currency)
        for entry in self.entries(key=capture.key, vendor=capture.vendor):
            if entry.money is not None and entry.money.currency == kept.currency and entry.kind in _SIGNS:
                kept += _signed(entry.kind, entry.money)
        return kept > Money.from_minor(0, kept.currency)


def _signed(kind: Kind, money: Money) -> Money:
    return Money.from_minor(_SIGNS[kind] * money.minor_units, money.currency)


def _times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"


def _listed(texts: Iterable[str]) -> str:
    return "".join(f"\n  {text}" for text in texts)
