"""What a program can know of what happened at its vendors: what an answer or a webhook has told it since."""

import re
from collections import defaultdict
from collections.abc import Iterable

from holdfast.testing.calls import CallRecord
from holdfast.testing.entries import Entry, Kind
from holdfast.testing.journal import Journal, WebhookRecord

_IDS = ("charge", "payment_intent", "checkout_session")
"""Facts that are vendor's ids of the same thing."""


class Learned:
    """The journal, read for what it told the program: make it anew when more has happened."""

    def __init__(self, journal: Journal) -> None:
        self._calls: dict[str, list[CallRecord]] = defaultdict(list)
        self._webhooks: dict[str, list[WebhookRecord]] = defaultdict(list)
        for record in sorted(journal.records, key=lambda record: record.number):
            if isinstance(record, CallRecord) and record.came_through:
                self._calls[record.vendor].append(record)
            elif isinstance(record, WebhookRecord) and record.taken:
                self._webhooks[record.sent.webhook.vendor].append(record)

    def when(self, entry: Entry) -> int | None:
        """The number of what first told the program of it, once it had happened; None: nothing did.

        A call tells when its answer came through and it named the thing: the answer in any case, the request where it
        was not refused. A webhook tells when it was the vendor's own and was answered 2xx. What is made without a call
        in the journal, by hand in a test, is known at once; money that a payer sends is not.
        """
        if entry.call is None and entry.kind is not Kind.CAPTURE:
            return entry.number
        names = _word_of({entry.id, *(entry.facts[name] for name in _IDS if name in entry.facts)})
        told = (*self._told_by_calls(entry, names), *self._told_by_webhooks(entry, names))
        return min(told, default=None)

    def _told_by_calls(self, entry: Entry, names: re.Pattern[bytes]) -> Iterable[int]:
        for call in self._calls[entry.vendor]:
            if call.number != entry.call and call.number < entry.number:
                continue
            if names.search(call.answer) or (call.succeeded and names.search(call.asked)):
                # It tells when it ends, after what it did.
                yield max(call.number, entry.number)
                return

    def _told_by_webhooks(self, entry: Entry, names: re.Pattern[bytes]) -> Iterable[int]:
        for record in self._webhooks[entry.vendor]:
            webhook = record.sent.webhook
            if record.number > entry.number and (names.search(webhook.about.encode()) or names.search(webhook.body)):
                yield record.number
                return


def _word_of(names: Iterable[str]) -> re.Pattern[bytes]:
    """Any of the names, not as a part of a longer one."""
    any_of = "|".join(re.escape(name) for name in sorted(names) if name)
    return re.compile(rf"(?<![A-Za-z0-9_])(?:{any_of})(?![A-Za-z0-9_])".encode())
