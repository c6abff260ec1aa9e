"""What holdfast itself tells, written into a journal: circuits, retries, fallbacks, jobs and payments."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Final, Protocol

from holdfast.telemetry import (
    CallHedged,
    CallRejected,
    CircuitChanged,
    CredentialHeld,
    DeliveryArrived,
    FellOver,
    JobFinished,
    OutcomeBecameUnknown,
    PaymentChanged,
    PaymentFlagged,
    RetryDenied,
    RetryScheduled,
    Security,
    SharedStateChanged,
    Signal,
    StaleAnswer,
    Telemetry,
)
from holdfast.testing.journal import Journal


class SupportsTelemetry(Protocol):
    """A hub, or whatever else says where its signals go."""

    @property
    def telemetry(self) -> Telemetry: ...


def watch(watched: SupportsTelemetry | Telemetry, journal: Journal) -> None:
    """Write the signals of a hub into the journal from now on: its timeline, and `journal.states("stripe")`.

    Calls and their failures are left out: the simulators write those.
    """
    telemetry = watched if isinstance(watched, Telemetry) else watched.telemetry
    telemetry.add(_Watcher(journal))


class _Watcher:
    """A sink."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def hears(self, kind: type[Signal]) -> bool:
        return kind in _WORDS

    def __call__(self, signal: Signal) -> None:
        if (words := _WORDS.get(type(signal))) is None:
            return
        kind, template = words
        facts = {field.name: getattr(signal, field.name) for field in fields(signal)}
        shown = {name: "" if value is None else value for name, value in facts.items()}
        vendor = facts.get("provider", facts.get("from_provider", ""))
        own = {name: value for name, value in facts.items() if name not in _TAKEN}
        self._journal.note(kind, " ".join(template(shown).split()), vendor=vendor, **own)


_TAKEN: Final = frozenset({"kind", "text", "vendor"})
"""What a note calls things of its own."""
_Template = Callable[[Mapping[str, object]], str]
_WORDS: Final[Mapping[type[Signal], tuple[str, _Template]]] = {
    CircuitChanged: ("circuit", "{operation} {before} → {after}: {reason}".format_map),
    RetryScheduled: ("retry", "{operation} again in {after:.3g}s, after attempt {attempt}".format_map),
    RetryDenied: ("no retry", "{operation}: {why}".format_map),
    CallHedged: ("hedge", "{operation} a second time, after {after:.3g}s".format_map),
    StaleAnswer: ("stale", "{operation}: {age:.3g}s old, because {cause}".format_map),
    CredentialHeld: ("hold", "{credential} for {seconds:.3g}s".format_map),
    SharedStateChanged: ("shared", "{state}".format_map),
    CallRejected: ("rejected", "{operation} by {layer}".format_map),
    FellOver: ("fallback", "{operation} to {to_provider}: {cause}".format_map),
    OutcomeBecameUnknown: ("unknown", "{operation} of {reference}".format_map),
    DeliveryArrived: ("delivery", "{result} {reason} {hint}".format_map),
    JobFinished: ("job", "{queue} {kind} {handler}: {result}, attempt {attempts}".format_map),
    PaymentChanged: ("payment", "{reference} {before} → {after}".format_map),
    PaymentFlagged: ("flagged", "{reference}: {anomaly}".format_map),
    Security: ("security", "{what}: {detail}".format_map),
}
