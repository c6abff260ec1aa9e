"""What happened, line by line, in the order it happened: calls, effects, webhooks, crashes and changes of state.

print(Timeline(journal).render())
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

MOST_LINES: Final = 60
"""How much of it a failed assertion shows."""
_WIDEST: Final = 80
"""Columns of a cell; what is longer is cut."""


@dataclass(frozen=True, slots=True)
class Line:
    """One happening, in the words of a timeline."""

    kind: str
    """`call`, `ledger`, `webhook`, or the kind of a note."""
    vendor: str
    what: str
    outcome: str = ""


class Record(Protocol):
    """One thing a journal holds."""

    @property
    def number(self) -> int: ...

    @property
    def at(self) -> datetime: ...

    def line(self) -> Line:
        """In words."""
        ...


class Records(Protocol):
    """What a timeline is drawn from: a journal."""

    @property
    def started(self) -> datetime: ...

    @property
    def records(self) -> Sequence[Record]: ...

    @property
    def forgotten(self) -> int: ...

    def redact(self, text: str) -> str: ...


class Timeline:
    """A journal, drawn for a terminal: seconds since the start, kind, vendor, what, and what came of it."""

    def __init__(self, journal: Records) -> None:
        self._journal = journal

    def lines(self, *, last: int | None = None) -> list[tuple[float, Line]]:
        """Seconds since the start, and what happened: redacted, and cut where it is long."""
        started = self._journal.started
        records = sorted(self._journal.records, key=lambda record: record.number)
        shown = records if last is None else records[max(0, len(records) - last) :]
        return [((record.at - started).total_seconds(), self._fitted(record.line())) for record in shown]

    def render(self, *, last: int | None = None) -> str:
        """As text in columns; of a long one, on request, only the last lines."""
        lines = self.lines(last=last)
        missing = self._journal.forgotten + len(self._journal.records) - len(lines)
        rows = [(f"{seconds:+.3f}s", line.kind, line.vendor, line.what, line.outcome) for seconds, line in lines]
        head = [f"… {missing} earlier left out"] if missing else []
        return "\n".join([*head, *_aligned(rows)]) or "nothing happened"

    def _fitted(self, line: Line) -> Line:
        return Line(*map(self._cell, (line.kind, line.vendor, line.what, line.outcome)))

    def _cell(self, text: str) -> str:
        # Redacted before it is cut: half a secret is one too.
        return cut(_on_one_line(self._journal.redact(text)), _WIDEST)


def failure(text: str, journal: Records) -> AssertionError:
    """The error of an assertion, with the timeline's last lines behind its message."""
    drawn = Timeline(journal).render(last=MOST_LINES)
    return AssertionError(f"{journal.redact(text)}\n\nwhat happened:\n{drawn}")


def cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns, the first one to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join([row[0].rjust(widths[0]), *cells[1:]]).rstrip() for row, cells in zip(rows, padded, strict=True)]


def _on_one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
