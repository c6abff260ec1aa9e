"""What processes tell one another of their circuits, and how much of it each believes: no waiting, no store."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias, cast

from holdfast.resilience.breaker import Report

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None
Name: TypeAlias = tuple[str, str]
"""A guard, and an operation: empty for the provider's own circuit. Or a guard, and the scope of a hold."""

VERSION = 1
FRESH = 3.5
"""A report is good for so many seconds: three that are missing are too many."""
LEAST = 2
"""Fewer processes than this open no circuit of another one by their word alone."""
SHARE = (3, 10)
"""Nor does a smaller share of those that report."""
MOST_PROCESSES = 500
"""So many are listened to at once; whoever comes later waits until one falls silent."""
MOST_CIRCUITS = 40
"""In one fact: those that are not closed first, then the busiest."""
MOST_HOLDS = 100
"""In one fact."""
LONGEST_NAME = 200
"""A longer name is not shared."""
LONGEST = 86_400_000
"""Milliseconds."""
MANY = 10**9
AGES = 2**53


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """What one process says at once."""

    sender: str
    number: int
    """Grows with every fact of a sender."""
    reports: Mapping[Name, Report] = field(default_factory=dict[Name, Report])
    holds: Mapping[Name, float] = field(default_factory=dict[Name, float])
    """Seconds left."""
    released: Collection[Name] = ()

    def to_json(self) -> dict[str, Json]:
        """As small JSON: times are in milliseconds, for the store takes no fractions."""
        first = sorted(self.reports.items(), key=lambda item: (not item[1].failing, item[1].closed, -item[1].calls))
        holds: list[Json] = [[*name, _ms(seconds)] for name, seconds in list(self.holds.items())[:MOST_HOLDS]]
        return {
            "v": VERSION,
            "from": self.sender,
            "n": self.number,
            "circuits": [[*name, _written(report)] for name, report in first[:MOST_CIRCUITS]],
            "holds": holds,
            "released": [[*name] for name in list(self.released)[:MOST_HOLDS]],
        }


def read(fact: Mapping[str, Any]) -> Fact | None:
    """The fact, without what is not understood of it; None when it is none."""
    sender: Any = fact.get("from")
    number: Any = fact.get("n")
    if fact.get("v") != VERSION or not _is_name(sender) or not _is_whole(number, AGES):
        return None
    reports = {name: report for name, last in _rows(fact.get("circuits")) if (report := _report(last)) is not None}
    holds = {name: last / 1000 for name, last in _rows(fact.get("holds")) if _is_whole(last, LONGEST)}
    released = tuple(name for name, _ in _rows(fact.get("released")))
    return Fact(sender=sender, number=number, reports=reports, holds=holds, released=released)


def believed(failing: int, reporting: int, *, doubtful: bool) -> bool:
    """Whether a circuit opens on the word of others: of at least two and three in ten, or of one if ours go badly too.

    One process with a broken network must not close a provider to all.
    """
    part, whole = SHARE
    return (failing >= LEAST and failing * whole >= reporting * part) or (failing > 0 and doubtful)


@dataclass(frozen=True, slots=True)
class _Heard:
    report: Report
    at: float


class Reports:
    """The last report of each process about each of our circuits, while it is fresh."""

    def __init__(self) -> None:
        self._senders: dict[str, tuple[int, float]] = {}
        self._heard: dict[Name, dict[str, _Heard]] = {}

    def is_news(self, fact: Fact, now: float) -> bool:
        """Whether its sender is listened to, and has said nothing later; from now on it has."""
        last, at = self._senders.get(fact.sender, (-1, now))
        if fact.number <= last and now - at < FRESH:
            return False
        if fact.sender not in self._senders and len(self._senders) >= MOST_PROCESSES:
            return False
        self._senders[fact.sender] = fact.number, now
        return True

    def keep(self, sender: str, circuit: Name, report: Report, now: float) -> bool:
        """Remember it; whether the sender's circuit is another than in its last report."""
        heard = self._heard.setdefault(circuit, {})
        before = heard.get(sender)
        heard[sender] = _Heard(report, now)
        return before is None or before.report.generation != report.generation

    def tally(self, circuit: Name, since: float, now: float) -> "Tally":
        """How many fail, of those that opened after `since`, when the circuit was closed last."""
        heard = self._heard.get(circuit, {}).values()
        failing = [each for each in heard if each.report.failing and each.at - each.report.opened >= since - 0.001]
        return Tally(
            failing=len(failing),
            reporting=len(heard),
            open_for=max((max(0.0, each.report.left - (now - each.at)) for each in failing), default=0.0),
            reopened=max((each.report.reopened for each in failing), default=0),
        )

    def trouble(self) -> bool:
        """Whether anybody's circuit is not closed."""
        return any(not each.report.closed for heard in self._heard.values() for each in heard.values())

    def forget(self, now: float) -> None:
        """Drop what is not fresh any more."""
        self._senders = {sender: said for sender, said in self._senders.items() if now - said[1] < FRESH}
        for circuit, heard in list(self._heard.items()):
            fresh = {sender: each for sender, each in heard.items() if now - each.at < FRESH}
            self._heard[circuit] = fresh
            if not fresh:
                del self._heard[circuit]

    def clear(self) -> None:
        """Drop everything."""
        self._senders.clear()
        self._heard.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the others say of a circuit."""

    failing: int
    reporting: int
    open_for: float
    """The longest of the open periods that are left."""
    reopened: int


def _written(report: Report) -> dict[str, Json]:
    return {
        "g": report.generation,
        "calls": report.calls,
        "failures": report.failures,
        "slow": report.slow,
        "closed": report.closed,
        "failing": report.failing,
        "opened": _ms(report.opened),
        "left": _ms(report.left),
        "reopened": report.reopened,
        "passed": None if report.passed is None else _ms(report.passed),
    }


def _report(written: Any) -> Report | None:
    if not isinstance(written, dict):
        return None
    said = cast("dict[str, Any]", written)
    counts = [said.get(name) for name in ("g", "calls", "failures", "slow", "reopened")]
    times = [said.get(name) for name in ("opened", "left")]
    closed, failing, passed = said.get("closed"), said.get("failing"), said.get("passed")
    if not (
        all(_is_whole(count, MANY) for count in counts)
        and all(_is_whole(time, LONGEST) for time in times)
        and isinstance(closed, bool)
        and isinstance(failing, bool)
        and (passed is None or _is_whole(passed, LONGEST))
    ):
        return None
    generation, calls, failures, slow, reopened = cast("list[int]", counts)
    opened, left = cast("list[int]", times)
    return Report(
        generation=generation,
        calls=calls,
        failures=failures,
        slow=slow,
        closed=closed,
        failing=failing and not closed,
        opened=opened / 1000,
        left=left / 1000,
        reopened=reopened,
        passed=None if passed is None or not closed else passed / 1000,
    )


def _rows(written: Any) -> Iterable[tuple[Name, Any]]:
    """What stands in a list of lists, each with two names first."""
    if not isinstance(written, list):
        return
    for row in cast("list[list[Any]]", written)[:MOST_HOLDS]:
        if isinstance(row, list):  # pyright: ignore[reportUnnecessaryIsInstance]  # it came from outside
            cells = row
            if len(cells) >= 2 and _is_name(cells[0]) and _is_name(cells[1], empty=True):
                yield (cells[0], cells[1]), cells[2] if len(cells) > 2 else None


def _is_name(value: Any, *, empty: bool = False) -> bool:
    return isinstance(value, str) and (empty or value != "") and len(value) <= LONGEST_NAME


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _ms(seconds: float) -> int:
    return min(LONGEST, max(0, ceil(seconds * 1000)))
