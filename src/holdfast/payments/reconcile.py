"""Our books against what vendors list, as a pure function: `compare(entries, lines, since=…, until=…)`.

Vendors write what left the account with a minus or without, so that only the size of a refund or dispute counts here;
lines about one thing are summed first, such as a refund and its reversal.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from holdfast.payments.models import Payment, RefundStatus
from holdfast.payments.provider import LineKind, StatementLine
from holdfast.payments.refunds import Refund, Refunds
from holdfast.values import Money


class FindingKind(StrEnum):
    """In what our books and a vendor's differ."""

    ORPHAN = "orphan"
    """The vendor moved money that no record of ours knows."""
    DOUBLE = "double"
    """One payment was paid more than once."""
    LOST = "lost"
    """Our books have it, and the vendor shows nothing of it."""
    UNNOTICED = "unnoticed"
    """The money moved, and our books had not noticed."""
    LATE = "late"
    """The money came after the end of its offer."""
    AMOUNT = "amount"
    """Another amount, or another currency."""
    FEE = "fee"
    """The vendor kept something else than it had told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One difference between our books and a vendor's."""

    kind: FindingKind
    provider: str
    about: LineKind
    vendor_id: str
    """The vendor's id of the payment, refund or dispute."""
    reference: str = ""
    """Ours; empty where no record knows it."""
    number: int = 0
    """Of the attempt."""
    ours: Money | None = None
    theirs: Money | None = None
    at: datetime | None = None
    """When the vendor moved it; of what it shows nothing of, when we learned of it."""
    settled: bool = False
    """Nobody has to do anything about it."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """What a vendor lists of one kind, in one currency."""

    provider: str
    kind: LineKind
    """`fee`: those of the other lines, too."""
    money: Money
    lines: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MoneyReport:
    """What became of holding our books against those of the vendors."""

    since: datetime
    until: datetime
    findings: tuple[Finding, ...] = ()
    totals: tuple[Total, ...] = ()
    cannot_list: tuple[str, ...] = ()
    """Vendors that have no such list; their payments were not compared."""
    unreachable: Mapping[str, str]
    """Vendors that could not be asked, and why."""

    @property
    def needs_person(self) -> bool:
        """Whether somebody has to look."""
        return not all(finding.settled for finding in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One attempt as our books have it, with what went back of its money."""

    reference: str
    number: int
    provider: str
    attempt_id: str
    vendor_id: str = ""
    begun_at: datetime
    ended_at: datetime
    """When its offer could no longer be paid in the ordinary course."""
    paid_at: datetime | None = None
    received: Money | None = None
    fee: Money | None = None
    disputed: Money | None = None
    refunds: tuple[Refund, ...] = ()


def entries(payment: Payment, refunds: Refunds | None, grace: Mapping[str, timedelta]) -> list[Entry]:
    """The attempts of a payment; `grace` is by provider, how long after its expiry an offer may be paid."""
    items = refunds.items if refunds else ()
    return [
        Entry(
            reference=payment.reference,
            number=attempt.number,
            provider=attempt.provider,
            attempt_id=attempt.id,
            vendor_id=attempt.vendor_id,
            begun_at=attempt.claimed_at,
            ended_at=attempt.expires_at + grace.get(attempt.provider, timedelta(0)),
            paid_at=attempt.paid_at,
            received=attempt.received,
            fee=attempt.fee,
            disputed=attempt.disputed,
            refunds=tuple(item for item in items if item.number == attempt.number),
        )
        for attempt in payment.attempts
    ]


def compare(
    books: Iterable[Entry], lines: Mapping[str, Sequence[StatementLine]], *, since: datetime, until: datetime
) -> list[Finding]:
    """All differences of that time, in order; `lines` are by provider, of those that were asked.

    Lines of before and after only help to recognise what belongs to that time.
    """
    known = _Known(books)
    moved = [one for provider, of_provider in lines.items() for one in _moved(provider, of_provider)]
    claimed: dict[tuple[str, int], list[_Moved]] = defaultdict(list)
    found: list[Finding] = []
    for one in moved:
        if one.about is LineKind.PAYMENT:
            entry = known.learn(one)
            if entry is not None:
                claimed[entry.reference, entry.number].append(one)
            elif since <= one.at < until:
                found.append(_orphan(one, None))
    for entry in known.entries:
        payments = claimed[entry.reference, entry.number]
        if payments:
            found += _paid(entry, [one for one in payments if since <= one.at < until], alone=len(payments) == 1)
        elif entry.provider in lines and entry.paid_at is not None and since <= entry.paid_at < until:
            found.append(_lost(entry))
    found += _doubles(known.entries, claimed, moved, since, until)
    found += [finding for one in moved if since <= one.at < until for finding in _gone(one, known)]
    found += _lost_refunds(known.entries, lines, moved, since, until)
    return sorted(found, key=lambda finding: (finding.provider, finding.at or since, finding.vendor_id, finding.kind))


def totals(lines: Mapping[str, Sequence[StatementLine]], *, since: datetime, until: datetime) -> list[Total]:
    """What each vendor lists, by kind and currency."""
    sums: dict[tuple[str, LineKind, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for provider, of_provider in lines.items():
        for line in dict.fromkeys(of_provider):
            if since <= line.at < until:
                for kind, money in ((line.kind, line.money), (LineKind.FEE, line.fee)):
                    if money is not None:
                        units, count = sums[provider, kind, money.currency]
                        sums[provider, kind, money.currency] = units + money.minor_units, count + 1
    return [
        Total(
            provider=provider,
            kind=kind,
            money=Money.from_minor(units if kind is LineKind.PAYMENT else abs(units), currency),
            lines=count,
        )
        for (provider, kind, currency), (units, count) in sorted(sums.items())
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moved:
    """All lines about one thing, as one."""

    provider: str
    about: LineKind
    id: str
    payment_id: str
    money: Money
    fee: Money | None
    at: datetime
    attempt_id: str
    reference: str


def _moved(provider: str, lines: Sequence[StatementLine]) -> list[_Moved]:
    """What the lines come to; what was taken back entirely is left out."""
    together: dict[tuple[LineKind, str, str], _Moved] = {}
    for line in dict.fromkeys(lines):  # a line may be listed on two pages
        if line.kind is LineKind.FEE:
            continue
        of_payment = line.kind in (LineKind.PAYMENT, LineKind.DISPUTE)
        id = (line.payment_id if of_payment else "") or line.vendor_id
        key = (line.kind, id, line.money.currency)
        one = together.get(key)
        if one is None:
            together[key] = _Moved(
                provider=provider,
                about=line.kind,
                id=id,
                payment_id=line.payment_id,
                money=line.money,
                fee=line.fee,
                at=line.at,
                attempt_id=line.attempt_id,
                reference=line.reference,
            )
        else:
            together[key] = replace(
                one,
                money=one.money + line.money,
                fee=_sum(one.fee, line.fee),
                at=min(one.at, line.at),
                attempt_id=one.attempt_id or line.attempt_id,
                reference=one.reference or line.reference,
            )
    sized = [
        one if one.about is LineKind.PAYMENT else replace(one, money=_size(one.money)) for one in together.values()
    ]
    return [one for one in sized if one.money.minor_units > 0]


def _size(money: Money) -> Money:
    return Money.from_minor(abs(money.minor_units), money.currency)


def _sum(one: Money | None, other: Money | None) -> Money | None:
    """Of what is there; None of two currencies, which have none."""
    if one is None or other is None:
        return one or other
    return one + other if one.currency == other.currency else None


class _Known:
    """Our entries, by everything a line may call them."""

    def __init__(self, books: Iterable[Entry]) -> None:
        self.entries = list({(entry.reference, entry.number): entry for entry in books}.values())
        self._by_name = {
            (entry.provider, name): entry
            for entry in self.entries
            for name in (entry.vendor_id, entry.attempt_id)
            if name
        }
        self.refunds = {
            (entry.provider, refund.vendor_id): (entry, refund)
            for entry in self.entries
            for refund in entry.refunds
            if refund.vendor_id
        }

    def find(self, one: _Moved) -> Entry | None:
        """Whose it is: by the vendor's id, or by ours as the vendor echoes it."""
        names = [name for name in (one.payment_id, one.id, one.attempt_id) if name]
        return next((found for name in names if (found := self._by_name.get((one.provider, name)))), None)

    def learn(self, one: _Moved) -> Entry | None:
        """The same; from now on also by what this vendor calls its money, which may be another id than its offer's."""
        entry = self.find(one)
        if entry is not None:
            self._by_name.setdefault((one.provider, one.id), entry)
        return entry


def _paid(entry: Entry, payments: Sequence[_Moved], *, alone: bool) -> list[Finding]:
    """What is to be said of the money of one attempt; where there is more than one payment, only the sum is wrong."""
    found: list[Finding] = []
    for one in payments:
        if entry.received is None:
            found.append(_finding(FindingKind.UNNOTICED, one, entry))
        elif alone and entry.received != one.money:
            found.append(_finding(FindingKind.AMOUNT, one, entry, ours=entry.received))
        if one.fee is not None and entry.fee is not None and one.fee != entry.fee:
            found.append(replace(_finding(FindingKind.FEE, one, entry, ours=entry.fee), theirs=one.fee))
        if one.at > entry.ended_at:
            found.append(
                _finding(FindingKind.LATE, one, entry, ours=entry.received, settled=entry.received is not None)
            )
    return found


def _doubles(
    books: Sequence[Entry],
    claimed: Mapping[tuple[str, int], Sequence[_Moved]],
    moved: Sequence[_Moved],
    since: datetime,
    until: datetime,
) -> list[Finding]:
    """Payments whose money came in more than once, by one vendor or several."""
    back: dict[tuple[str, str], int] = defaultdict(int)
    for one in moved:
        if one.about is LineKind.REFUND:
            back[one.provider, one.payment_id] += one.money.minor_units
    pots: dict[str, list[tuple[Entry, _Moved, bool]]] = defaultdict(list)
    for entry in books:
        booked = sum(r.money.minor_units for r in entry.refunds if r.status is RefundStatus.SUCCEEDED)
        of_entry = claimed.get((entry.reference, entry.number), ()) or _by_our_books(entry)
        for one in of_entry:
            ours = len(of_entry) == 1 or one.id == entry.vendor_id  # what else came by this attempt our books know not
            went = max(back[one.provider, one.id], booked if ours else 0)
            pots[entry.reference].append((entry, one, went < one.money.minor_units))
    found: list[Finding] = []
    for of_payment in pots.values():
        if len(of_payment) < 2:
            continue
        settled = sum(kept for _, _, kept in of_payment) < 2
        first = min(of_payment, key=lambda pot: pot[1].at)
        for pot in of_payment:
            entry, one, _ = pot
            if pot is not first and since <= one.at < until:
                double = _finding(FindingKind.DOUBLE, one, entry, ours=first[1].money, settled=settled)
                found.append(replace(double, note=f"it was paid by {first[0].provider} before, {first[1].id}"))
    return found


def _by_our_books(entry: Entry) -> list[_Moved]:
    """Money of a vendor that lists nothing, or not this."""
    if entry.paid_at is None or entry.received is None:
        return []
    return [
        _Moved(
            provider=entry.provider,
            about=LineKind.PAYMENT,
            id=entry.vendor_id,
            payment_id=entry.vendor_id,
            money=entry.received,
            fee=entry.fee,
            at=entry.paid_at,
            attempt_id=entry.attempt_id,
            reference=entry.reference,
        )
    ]


def _gone(one: _Moved, known: _Known) -> list[Finding]:
    """What is to be said of money that went back, or is asked back."""
    if one.about is LineKind.REFUND:
        entry, refund = known.refunds.get((one.provider, one.id), (known.find(one), None))
        if refund is None:
            return [_orphan(one, entry)]
        assert entry is not None
        if refund.status is not RefundStatus.SUCCEEDED:
            under_way = refund.status is RefundStatus.PENDING  # some vendors list it as soon as it is asked for
            unnoticed = _finding(FindingKind.UNNOTICED, one, entry, ours=refund.money, settled=under_way)
            return [replace(unnoticed, note=f"our books have it as {refund.status}")]
        return [] if refund.money == one.money else [_finding(FindingKind.AMOUNT, one, entry, ours=refund.money)]
    if one.about is LineKind.DISPUTE:
        entry = known.find(one)
        if entry is None:
            return [_orphan(one, None)]
        if entry.disputed is None:
            return [_finding(FindingKind.UNNOTICED, one, entry)]
        same = entry.disputed == one.money
        return [] if same else [_finding(FindingKind.AMOUNT, one, entry, ours=entry.disputed)]
    return []


def _lost_refunds(
    books: Sequence[Entry],
    lines: Mapping[str, Sequence[StatementLine]],
    moved: Sequence[_Moved],
    since: datetime,
    until: datetime,
) -> list[Finding]:
    shown = {(one.provider, one.id) for one in moved if one.about is LineKind.REFUND}
    return [
        replace(
            _lost(entry), about=LineKind.REFUND, vendor_id=refund.vendor_id, ours=refund.money, at=refund.settled_at
        )
        for entry in books
        for refund in entry.refunds
        if refund.status is RefundStatus.SUCCEEDED
        and refund.vendor_id
        and refund.settled_at is not None
        and since <= refund.settled_at < until
        and entry.provider in lines
        and (entry.provider, refund.vendor_id) not in shown
    ]


def _finding(
    kind: FindingKind, one: _Moved, entry: Entry, *, ours: Money | None = None, settled: bool = False
) -> Finding:
    return Finding(
        kind=kind,
        provider=one.provider,
        about=one.about,
        vendor_id=one.id,
        reference=entry.reference,
        number=entry.number,
        ours=ours,
        theirs=one.money,
        at=one.at,
        settled=settled,
    )


def _orphan(one: _Moved, entry: Entry | None) -> Finding:
    if entry is not None:
        return replace(_finding(FindingKind.ORPHAN, one, entry), note="the payment is known, this is not")
    named = one.reference or one.attempt_id
    return Finding(
        kind=FindingKind.ORPHAN,
        provider=one.provider,
        about=one.about,
        vendor_id=one.id,
        theirs=one.money,
        at=one.at,
        note=f"it names {named}" if named else "it names nothing of ours",
    )


def _lost(entry: Entry) -> Finding:
    return Finding(
        kind=FindingKind.LOST,
        provider=entry.provider,
        about=LineKind.PAYMENT,
        vendor_id=entry.vendor_id,
        reference=entry.reference,
        number=entry.number,
        ours=entry.received,
        at=entry.paid_at,
    )
