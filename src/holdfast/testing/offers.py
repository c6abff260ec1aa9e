"""Which offers could be paid, and when."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from holdfast.testing.entries import Entry, Kind


class Offers:
    """What became of the offers among these entries: each ends with its payment, its cancellation or its expiry."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._ended: dict[tuple[str, str], int] = defaultdict(lambda: _NEVER)
        for entry in entries:
            if entry.kind in (Kind.CAPTURE, Kind.OFFER_CLOSED):
                for name in {entry.id, *entry.facts.values()}:
                    offer = entry.vendor, name
                    self._ended[offer] = min(self._ended[offer], entry.number)

    def payable(self, offer: Entry, *, at: datetime, before: int | None = None) -> bool:
        """Whether somebody could pay it at that time, by what happened before that number; by default by all of it."""
        ended = self._ended.get((offer.vendor, offer.id), _NEVER)
        if ended < (_NEVER if before is None else before):
            return False
        expires_at = offer.facts.get("expires_at")
        return expires_at is None or at < datetime.fromisoformat(expires_at)


_NEVER = 1 << 62
