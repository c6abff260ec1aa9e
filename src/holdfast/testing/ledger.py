"""What really happened at the vendors: the truth that tests and the demo's oracle are judged by."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from holdfast.clock import Clock, SystemClock
from holdfast.values import Money


class Kind(StrEnum):
    """What can happen at a vendor."""

    OFFER = "offer"
    CAPTURE = "capture"
    REFUND = "refund"
    DISPUTE = "dispute"
    """The payer's bank takes the money back; what becomes of it is the vendor's affair."""
    MEETING = "meeting"
    MEETING_DELETED = "meeting_deleted"
    MESSAGE = "message"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that happened once, at one vendor."""

    number: int
    kind: Kind
    vendor: str
    id: str
    """The vendor's own id of the object."""
    key: str
    """The business object it is about: the caller's reference, as far as the vendor was told."""
    at: datetime
    money: Money | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "number": self.number,
            "kind": str(self.kind),
            "vendor": self.vendor,
            "id": self.id,
            "key": self.key,
            "at": self.at.isoformat(),
            "amount": f"{self.money.amount:f}" if self.money else None,
            "currency": self.money.currency if self.money else None,
            "facts": dict(self.facts),
        }


class Ledger:
    """Everything that happened, over all vendors, in order; only ever appended to.

    Count with `entries(kind, key=…)`, demand with `exactly_once(kind, key)`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
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
            number=len(self._entries),
            kind=kind,
            vendor=vendor,
            id=id,
            key=key,
            at=self._clock.now(),
            money=money,
            facts=facts or {},
        )
        self._entries.append(entry)
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

    def exactly_once(self, kind: Kind, key: str) -> Entry:
        """The one entry of this kind for this business object.

        Raises:
            AssertionError: There is none, or more than one; the message lists them.
        """
        found = self.entries(kind, key=key)
        if len(found) != 1:
            where = ", ".join(f"{entry.vendor} {entry.id} at {entry.at:%H:%M:%S.%f}" for entry in found) or "none"
            raise AssertionError(f"{kind} of {key} happened {len(found)} times, not once: {where}")
        return found[0]

    def captured(self, key: str, currency: str) -> Money:
        """Captured minus refunded in one currency, over all vendors."""
        total = Money.from_minor(0, currency)
        for entry in self.entries(key=key):
            if entry.money is None or entry.money.currency != currency:
                continue
            if entry.kind is Kind.CAPTURE:
                total += entry.money
            elif entry.kind is Kind.REFUND:
                total -= entry.money
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
