"""One thing that happened at a vendor, as the ledger keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from holdfast.testing.timeline import Line
from holdfast.values import Money


class Kind(StrEnum):
    """What can happen at a vendor."""

    OFFER = "offer"
    OFFER_CLOSED = "offer_closed"
    """Nobody can pay it any more, though nobody has: it was cancelled, or the vendor let it expire."""
    CAPTURE = "capture"
    REFUND = "refund"
    REFUND_FAILED = "refund_failed"
    """What was given back came back: the money is the merchant's again."""
    DISPUTE = "dispute"
    """The payer's bank takes the money back; what becomes of it is the vendor's affair."""
    MEETING = "meeting"
    MEETING_DELETED = "meeting_deleted"
    MESSAGE = "message"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that happened once, at one vendor."""

    number: int
    """In the order of everything that happened: calls and webhooks are counted too."""
    kind: Kind
    vendor: str
    id: str
    """The vendor's own id of the object."""
    key: str
    """The business object it is about: the caller's reference, as far as the vendor was told."""
    at: datetime
    money: Money | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    call: int | None = None
    """The number of the call that had it happen; None where something else did."""

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

    def line(self) -> Line:
        """In words."""
        about = f"{self.kind} of {self.key}" if self.kind is not Kind.MESSAGE else f"message to {self.key}"
        over = f" over {self.money}" if self.money else ""
        return Line("ledger", self.vendor, f"{about}{over}", self.id)

    def __str__(self) -> str:
        over = f", {self.money}" if self.money else ""
        return f"{self.vendor} {self.id} at {self.at:%H:%M:%S.%f}{over}"
