"""What is wrong with a store or a backup, counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of damage."""

    what: str
    count: int
    examples: tuple[str, ...] = ()
    """Ids of some of the rows."""


class Findings:
    """Damage as it is found, row by row."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, *rows: object, count: int = 0) -> None:
        """`rows` have it, or `count` that have no names."""
        self._counts[what] = self._counts.get(what, 0) + (count or len(rows) or 1)
        examples = self._examples.setdefault(what, [])
        examples += [str(row) for row in rows[: EXAMPLES - len(examples)]]

    def compare(self, what: str, expected: object, found: object) -> None:
        """They should be equal."""
        if expected != found:
            self.add(f"{what}: {expected} expected, {found} found")

    def all(self, found: Iterable[tuple[str, Iterable[object]]]) -> None:
        """Each kind with its rows, where there are any."""
        for what, rows in found:
            if some := list(rows):
                self.add(what, *some)

    @property
    def list(self) -> list[Finding]:
        return [Finding(what, count, tuple(self._examples[what])) for what, count in self._counts.items()]
