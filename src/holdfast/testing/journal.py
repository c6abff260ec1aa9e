"""Everything that happened between a program and its vendors, under one sequence of numbers."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.clock import Clock, SystemClock
from holdfast.telemetry import Redactor
from holdfast.testing.calls import Asked, CallRecord, Calls
from holdfast.testing.timeline import Line, Record
from holdfast.values import Secret

if TYPE_CHECKING:
    from holdfast.testing.faults import Fault

_GENUINE: Final = frozenset({"genuine", "duplicate", "retry", "straggler"})
"""Manners of sending in which a vendor itself sends the truth."""


class Owed(Protocol):
    """The webhook that was sent."""

    @property
    def vendor(self) -> str: ...

    @property
    def event(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class Sending(Protocol):
    """One request made to a receiver: `holdfast.testing.simulators.webhooks.Sent`."""

    @property
    def webhook(self) -> Owed: ...

    @property
    def manner(self) -> str: ...

    @property
    def status(self) -> int: ...

    @property
    def failure(self) -> str: ...


@dataclass(slots=True, eq=False, kw_only=True)
class WebhookRecord:
    """One webhook sent, and its answer."""

    number: int
    at: datetime
    sent: Sending

    @property
    def taken(self) -> bool:
        """Whether it is the vendor's own and was answered 2xx."""
        return self.sent.manner in _GENUINE and 200 <= self.sent.status < 300

    def line(self) -> Line:
        """In words."""
        webhook, sent = self.sent.webhook, self.sent
        manner = "" if sent.manner == "genuine" else f"{sent.manner}, "
        answer = f"{sent.status or 'no answer'}" + (f": {sent.failure}" if sent.failure else "")
        return Line("webhook", webhook.vendor, f"{webhook.event} of {webhook.key or webhook.about}", manner + answer)


@dataclass(slots=True, eq=False, kw_only=True)
class Note:
    """Anything else worth a line: a crash, a restart, a change of state."""

    number: int
    at: datetime
    kind: str
    text: str
    facts: Mapping[str, object] = field(default_factory=dict[str, object])

    def line(self) -> Line:
        """In words."""
        return Line(self.kind, str(self.facts.get("vendor", "")), self.text)


class Journal:
    """What happened, in order: calls, ledger entries, webhooks, and notes; only ever appended to.

    Writing is cheap, nothing is put into words before it is read. With a `limit` the oldest are forgotten.
    """

    def __init__(self, clock: Clock | None = None, *, limit: int | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.started = self.clock.now()
        self.acting: int | None = None
        """The number of the call whose effects are being written down now."""
        self._began = self.started
        self._records: deque[Record] = deque(maxlen=limit)
        self._next = 0
        self._written = 0
        self._redactor = Redactor()

    # Writing

    def number(self) -> int:
        """The next number of the one sequence."""
        taken = self._next
        self._next = taken + 1
        return taken

    def begin(self) -> int:
        """A call begins: its number, for `call(number=…)`; ledger entries until then are its effects."""
        self.acting = self.number()
        self._began = self.clock.now()
        return self.acting

    def call(
        self,
        vendor: str,
        operation: str,
        request: Asked | None,
        *,
        fault: "Fault | None" = None,
        ending: str = "answered",
        status: int | None = None,
        delay: float = 0.0,
        key: str | None = None,
        answer: bytes = b"",
        number: int | None = None,
    ) -> CallRecord:
        """Write down one call, with what the vendor answered even if that was lost, and the number it began with.

        A transport that knows whether the answer reached the program says so in `arrived` of what is returned: False
        while the answer is on its way, True when it has been handed over.
        """
        record = CallRecord(
            number=self.number() if number is None else number,
            at=self.clock.now() if number is None else self._began,
            vendor=vendor,
            operation=operation,
            request=request,
            fault=fault,
            ending=ending,
            status=status,
            delay=delay,
            key=key,
            answer=answer,
        )
        self.acting = None
        self.add(record)
        return record

    def webhook(self, sent: Sending) -> None:
        """Write down one webhook and its answer."""
        self.add(WebhookRecord(number=self.number(), at=self.clock.now(), sent=sent))

    def note(self, kind: str, text: str = "", **facts: object) -> None:
        """Write down anything else: `note("crash", "at await 17")`; `vendor=` puts it into that column."""
        self.add(Note(number=self.number(), at=self.clock.now(), kind=kind, text=text, facts=facts))

    def add(self, record: Record) -> None:
        """Write down a record that has its number already."""
        self._records.append(record)
        self._written += 1

    def conceal(self, *secrets: str | Secret) -> None:
        """Blot these wherever the journal is put into words."""
        for secret in secrets:
            self._redactor.learn(Secret(secret) if isinstance(secret, str) else secret)

    def clear(self) -> None:
        """Forget everything; numbers go on."""
        self._records.clear()
        self._written = 0

    # Reading

    @property
    def records(self) -> Sequence[Record]:
        """All there is."""
        return tuple(self._records)

    @property
    def forgotten(self) -> int:
        """How many were written down and are forgotten."""
        return self._written - len(self._records)

    def calls(self, vendor: str | None = None, operation: str | None = None) -> Calls:
        """The calls of that vendor and operation, or all."""
        found = (record for record in self._records if isinstance(record, CallRecord))
        wanted = (call for call in found if vendor in (None, call.vendor) and operation in (None, call.operation))
        return Calls(sorted(wanted, key=lambda call: call.number), self)

    def notes(self, kind: str | None = None) -> list[Note]:
        """The notes of that kind, or all."""
        return [record for record in self._records if isinstance(record, Note) and kind in (None, record.kind)]

    def states(self, circuit: str) -> list[str]:
        """The states a circuit went through, by its provider's name: `["closed", "open", "half_open", "closed"]`.

        Where a provider has several, `"stripe.payments.create"` is the one of that operation. It needs
        `watch(hub, journal)`; a circuit that never changed is closed.
        """
        changes = [note.facts for note in self.notes("circuit") if circuit in _names_of(note)]
        first = changes[0]["before"] if changes else "closed"
        return [str(first), *(str(change["after"]) for change in changes)]

    def redact(self, text: str) -> str:
        """The text with `***` for what was concealed and for what looks like a secret."""
        return self._redactor.redact(text)


def _names_of(note: Note) -> tuple[str, str]:
    return f"{note.facts.get('vendor')}", f"{note.facts.get('vendor')}.{note.facts.get('operation')}"
