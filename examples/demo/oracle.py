"""The oracle: what the vendors' ledgers, the shop's database and the customers say; holdfast is not asked.

Of holdfast's own records it reads one thing: which attempts were on record, to find offers that were not.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from examples.demo.customers import AMOUNT, Visit
from examples.demo.world import World
from holdfast.stores import Record, Store

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The counts of the last line, and the sentences behind those that should be zero or equal."""

    paid: int
    confirmed_once: int
    meetings_one: int
    messages: int
    two_offers: int
    unrecorded_offers: int
    overcaptured: int
    lost: int
    objections: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything the verdict rests on."""

    ledger: Sequence[Entry]
    confirmations: Sequence[tuple[str, str]]
    """Reference and moment, one per row in the shop's database."""
    attempts: frozenset[str]
    """Ids of the payment attempts on record."""
    meetings: Mapping[str, tuple[str, frozenset[str]]]
    """Per reference the provider that holds the meeting, and the tokens ever used for it."""
    visits: Sequence[Visit]


async def gather(world: World, store: Store, ledger: Sequence[Entry], visits: Sequence[Visit]) -> Evidence:
    """Read the shop's database, and holdfast's records in its store."""
    with closing(sqlite3.connect(f"file:{world.shop_database}?mode=ro", uri=True)) as shop:
        confirmations: list[tuple[str, str]] = shop.execute("SELECT reference, at FROM confirmations").fetchall()
    payments, meetings = await _records(store, "payment"), await _records(store, "meeting")
    return Evidence(
        ledger=ledger,
        confirmations=confirmations,
        attempts=frozenset(attempt["id"] for payment in payments for attempt in payment["attempts"]),
        meetings={
            meeting["reference"]: (meeting["provider"], frozenset(tried["token"] for tried in meeting["attempts"]))
            for meeting in meetings
        },
        visits=visits,
    )


async def _records(store: Store, kind: str) -> list[Mapping[str, Any]]:
    found: list[Record] = []
    while page := await store.records.list(kind, after=found[-1].key if found else ""):
        found += page
    return [record.value for record in found]


def judge(evidence: Evidence) -> Verdict:
    """Compare what is with what should be."""
    captured = Counter(entry["key"] for entry in _of(evidence, "capture"))
    confirmed = Counter(reference for reference, _ in evidence.confirmations)
    told = {entry["key"] for entry in _of(evidence, "message")}
    objections: list[str] = []

    lost = [key for key in captured if not confirmed[key]]
    _object(objections, lost, "paid and never confirmed")
    _object(objections, [key for key in confirmed if not captured[key]], "confirmed and never paid")
    _object(objections, _too_early(evidence), "confirmed before it was paid")
    _object(objections, [key for key in confirmed if confirmed[key] > 1], "confirmed more than once")

    rooms = {key: _live_meetings(evidence, key) for key in captured}
    _object(objections, [f"{key} ({rooms[key]})" for key in rooms if rooms[key] != 1], "not exactly one live meeting")
    untold = [key for key in captured if not _addresses(key) & told]
    _object(objections, untold, "paid and never told")

    two_offers = [visit.reference for visit in evidence.visits if len(visit.offers) > 1]
    _object(objections, two_offers, "shown two offers")
    unrecorded = _unrecorded(evidence)
    _object(objections, unrecorded, "offered at a vendor and not on record")
    over = [key for key in captured if _captured(evidence, key) > Decimal(AMOUNT)]
    _object(objections, over, "captured more than is due")
    return Verdict(
        paid=len(captured),
        confirmed_once=sum(confirmed[key] == 1 for key in captured),
        meetings_one=sum(count == 1 for count in rooms.values()),
        messages=len(captured) - len(untold),
        two_offers=len(two_offers),
        unrecorded_offers=len(unrecorded),
        overcaptured=len(over),
        lost=len(lost),
        objections=tuple(objections),
    )


def confirm_times(evidence: Evidence, first_accepted: Mapping[str, str]) -> tuple[list[float], int]:
    """Seconds from each payment's first accepted webhook to its confirmation, and how many had no webhook at all."""
    times: list[float] = []
    swept = 0
    for reference, at in evidence.confirmations:
        if reference in first_accepted:
            times.append((_moment(at) - _moment(first_accepted[reference])).total_seconds())
        else:
            swept += 1
    return [max(0.0, seconds) for seconds in times], swept


def _too_early(evidence: Evidence) -> list[str]:
    """Confirmed on somebody's word, before any vendor had the money."""
    paid_at = {entry["key"]: _moment(entry["at"]) for entry in _of(evidence, "capture") if entry.get("at")}
    return [reference for reference, at in evidence.confirmations if _moment(at) < paid_at.get(reference, datetime.min)]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


def _of(evidence: Evidence, kind: str) -> Iterable[Entry]:
    return (entry for entry in evidence.ledger if entry["kind"] == kind)


def _live_meetings(evidence: Evidence, reference: str) -> int:
    """Rooms that stand open: those at Zoom that were not deleted, and a room that needs no vendor."""
    provider, tokens = evidence.meetings.get(reference, ("", frozenset()))
    deleted = {entry["id"] for entry in _of(evidence, "meeting_deleted")}
    ours = {f"[ref:{token}]" for token in tokens}
    made = [entry for entry in _of(evidence, "meeting") if entry["facts"].get("agenda") in ours]
    at_zoom = sum(entry["id"] not in deleted for entry in made)
    return at_zoom + (provider == "jaas")


def _addresses(reference: str) -> set[str]:
    return {f"{reference}@example.org", str(100_000 + int(reference[-4:]))}


def _unrecorded(evidence: Evidence) -> list[str]:
    """Offers of no recorded attempt, and every offer beyond the first of one attempt."""
    per_attempt = Counter(entry["facts"].get("attempt", "") for entry in _of(evidence, "offer"))
    return [attempt or "?" for attempt, count in per_attempt.items() if attempt not in evidence.attempts or count > 1]


def _captured(evidence: Evidence, key: str) -> Decimal:
    """In francs: what was captured in francs, and one full amount for each invoice paid in bitcoin."""
    total = Decimal(0)
    for entry in evidence.ledger:
        if entry["key"] == key and entry["kind"] in ("capture", "refund"):
            amount = Decimal(entry["amount"]) if entry["currency"] == "CHF" else Decimal(AMOUNT)
            total += amount if entry["kind"] == "capture" else -amount
    return total


def _object(objections: list[str], found: Sequence[str], what: str) -> None:
    if found:
        objections.append(f"{len(found)} {what}: {', '.join(map(str, found[:5]))}{' …' if len(found) > 5 else ''}")
