"""What a test says should have happened, by its meaning and not by its calls: `charge(reference="o1")`."""

import re
from dataclasses import dataclass

from holdfast.testing.entries import Entry, Kind
from holdfast.values import Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """One effect a program may have wanted; what is None may be anything."""

    kind: Kind
    noun: str
    reference: str | None = None
    amount: Money | None = None
    vendor: str | None = None
    to: str | None = None
    key: str | None = None
    text_contains: str | None = None

    def matches(self, entry: Entry, *, key: str | None = None) -> bool:
        """Whether this is what happened; `key` is the idempotency key of the call that had it happen."""
        return (
            entry.kind is self.kind
            and self.vendor in (None, entry.vendor)
            and self.amount in (None, entry.money)
            and (self.reference is None or self._is_about(entry))
            and self.to in (None, entry.facts.get("to"))
            and self.key in (None, entry.key, key)
            and (self.text_contains is None or any(self.text_contains in text for text in _texts(entry)))
        )

    def _is_about(self, entry: Entry) -> bool:
        if self.kind is not Kind.MEETING or entry.key == self.reference:
            return entry.key == self.reference
        # A vendor of meetings has no field for a reference: it stands somewhere in what people read.
        word = re.compile(rf"(?<![\w.-]){re.escape(self.reference or '')}(?![\w:-]|\.\w)")
        return any(word.search(text) for text in (entry.key, *entry.facts.values()))

    def __str__(self) -> str:
        said = [
            ("of", self.reference),
            ("over", self.amount),
            ("to", self.to),
            ("with key", self.key),
            ("saying", None if self.text_contains is None else repr(self.text_contains)),
            ("at", self.vendor),
        ]
        return " ".join([self.noun, *(f"{word} {value}" for word, value in said if value is not None)])


def charge(*, reference: str | None = None, amount: Money | None = None, vendor: str | None = None) -> Intent:
    """Money taken from a payer."""
    return Intent(kind=Kind.CAPTURE, noun="charge", reference=reference, amount=amount, vendor=vendor)


def refund(*, reference: str | None = None, amount: Money | None = None, vendor: str | None = None) -> Intent:
    """Money given back to a payer."""
    return Intent(kind=Kind.REFUND, noun="refund", reference=reference, amount=amount, vendor=vendor)


def offer(*, reference: str | None = None, amount: Money | None = None, vendor: str | None = None) -> Intent:
    """An offer made, whether or not it can still be paid."""
    return Intent(kind=Kind.OFFER, noun="offer", reference=reference, amount=amount, vendor=vendor)


def meeting(*, reference: str | None = None, vendor: str | None = None) -> Intent:
    """A meeting that stands: one made and deleted since does not count.

    The reference is a word of its topic, or of whatever else the vendor was told about it.
    """
    return Intent(kind=Kind.MEETING, noun="meeting", reference=reference, vendor=vendor)


def message(
    *, to: str | None = None, key: str | None = None, text_contains: str | None = None, vendor: str | None = None
) -> Intent:
    """A message a vendor took: `key` is the caller's, as far as the vendor was told it."""
    return Intent(kind=Kind.MESSAGE, noun="message", to=to, key=key, text_contains=text_contains, vendor=vendor)


def _texts(entry: Entry) -> list[str]:
    return [entry.facts[name] for name in ("text", "subject") if name in entry.facts]
