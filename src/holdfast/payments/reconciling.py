"""What is asked of the store and of vendors to hold our books against theirs."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from holdfast.errors import CallFailed, Rejected
from holdfast.payments.book import Book
from holdfast.payments.models import Attempt, Payment, PaymentStatus, RefundStatus
from holdfast.payments.provider import LineKind, PaymentProvider, StatementLine, SupportsStatements
from holdfast.payments.reconcile import Entry, Finding, FindingKind, MoneyReport, compare, entries, totals
from holdfast.payments.refunding import RefundDesk
from holdfast.payments.refunds import Refunds
from holdfast.resilience import Priority, priority
from holdfast.runtime import Runtime
from holdfast.telemetry import MoneyDiffers

EARLIER: Final = timedelta(days=1)
"""So much before its beginning a vendor is asked at most: it may have moved the money before we noticed."""
ASKED: Final = 100
"""Of what a list does not show, so many are asked about one by one: a list may be hours behind."""

Learn = Callable[[Payment, Attempt, str], Awaitable[bool]]
"""Ask the vendor about an object of this id and take what it says into our books; False: it is not this attempt's."""


class Books:
    """What of our books a comparison needs, read as it needs it."""

    def __init__(self, book: Book, refunds: RefundDesk, grace: Mapping[str, timedelta]) -> None:
        self._book = book
        self._refunds = refunds
        self._grace = grace
        self._entries: dict[str, list[Entry]] = {}
        self._named: set[tuple[str, str]] = set()

    @property
    def entries(self) -> list[Entry]:
        """Every attempt read so far."""
        return [entry for of_payment in self._entries.values() for entry in of_payment]

    async def add_paid(self, since: datetime, until: datetime) -> None:
        """What came in or went back in that time."""
        async for payment in self._book.paid_between(since, until):
            await self._add(payment)
        async for refunds in self._refunds.settled_between(since, until):
            await self.reload(refunds.reference)

    async def add_named(self, provider: str, lines: Iterable[StatementLine]) -> None:
        """What these lines name."""
        for line in lines:
            names = {(provider, name) for name in (line.payment_id or line.vendor_id, line.attempt_id) if name}
            if line.kind is LineKind.REFUND or not names & self._named:
                await self._add_line(provider, line)

    async def reload(self, reference: str) -> None:
        """Read this payment again."""
        payment = await self._book.load(reference)
        if payment is not None:
            await self._add(payment)

    async def _add_line(self, provider: str, line: StatementLine) -> None:
        if line.kind is LineKind.FEE:
            return
        if line.kind is LineKind.REFUND and (refunds := await self._refunds.find(provider, line.vendor_id)):
            await self.reload(refunds.reference)
            return
        vendor_id = line.payment_id or line.vendor_id
        payment = await self._book.named(provider, vendor_id=vendor_id, attempt_id=line.attempt_id)
        if payment is not None:
            await self._add(payment)

    async def _add(self, payment: Payment) -> None:
        refunds: Refunds = await self._refunds.load(payment.reference)
        found = entries(payment, refunds, self._grace)
        self._entries[payment.reference] = found
        self._named |= {(one.provider, name) for one in found for name in (one.vendor_id, one.attempt_id) if name}


class ReconcileDesk:
    """The one verb."""

    def __init__(
        self,
        runtime: Runtime,
        book: Book,
        refunds: RefundDesk,
        providers: Mapping[str, PaymentProvider],
        learn: Learn,
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._refunds = refunds
        self._providers = providers
        self._learn = learn

    async def report(self, since: datetime, until: datetime) -> MoneyReport:
        """Compare, take in what our books had missed, and ask once more about what a list does not show."""
        with priority(Priority.BULK):
            books = Books(self._book, self._refunds, self._grace())
            await books.add_paid(since, until)
            lines, unreachable = await self._lists(books, since, until)
            for provider, of_provider in lines.items():
                await books.add_named(provider, of_provider)
            first = compare(books.entries, lines, since=since, until=until)
            unnoticed = [finding for finding in first if finding.kind is FindingKind.UNNOTICED]
            findings = first
            if unnoticed:
                await self._take_in(unnoticed)
                for reference in {finding.reference for finding in unnoticed}:
                    await books.reload(reference)
                findings = compare(books.entries, lines, since=since, until=until)
                findings += _taken_in(unnoticed, findings)
            findings = await self._confirmed(findings)
        for finding in findings:
            if not finding.settled:
                self._runtime.telemetry.emit(MoneyDiffers(finding.provider, finding.kind, finding.reference))
        return MoneyReport(
            since=since,
            until=until,
            findings=tuple(findings),
            totals=tuple(totals(lines, since=since, until=until)),
            cannot_list=tuple(name for name, one in self._providers.items() if not isinstance(one, SupportsStatements)),
            unreachable=unreachable,
        )

    def _grace(self) -> Mapping[str, timedelta]:
        return {name: provider.capabilities.grace for name, provider in self._providers.items()}

    async def _lists(
        self, books: Books, since: datetime, until: datetime
    ) -> tuple[dict[str, list[StatementLine]], dict[str, str]]:
        """What each vendor lists, and which could not be asked."""
        lines: dict[str, list[StatementLine]] = {}
        unreachable: dict[str, str] = {}
        for name, provider in self._providers.items():
            if not isinstance(provider, SupportsStatements):
                continue
            begun = [
                one.begun_at for one in books.entries if one.provider == name and _within(one.paid_at, since, until)
            ]
            begin = max(since - EARLIER, min([since, *begun]))
            try:
                lines[name] = [line async for line in provider.statement(self._runtime.http(provider), begin, until)]
            except CallFailed as error:
                unreachable[name] = str(error)
        return lines, unreachable

    async def _take_in(self, findings: Iterable[Finding]) -> None:
        """Have our books learn what they missed; what cannot be learned stays a finding."""
        for finding in findings:
            payment = await self._book.get(finding.reference)
            attempt = payment.attempts[finding.number - 1]
            vendor_id = attempt.vendor_id or finding.vendor_id
            try:
                if finding.about is LineKind.REFUND:
                    await self._refunds.tend(payment, everything=True)
                else:
                    await self._learn(payment, attempt, vendor_id)
            except CallFailed:
                continue

    async def _confirmed(self, findings: Iterable[Finding]) -> list[Finding]:
        """Without what the vendor has after all, when it is asked for it by its id."""
        found: list[Finding] = []
        asked = 0
        for finding in findings:
            if finding.kind is not FindingKind.LOST:
                found.append(finding)
            elif asked < ASKED:
                asked += 1
                said = await self._ask(finding)
                found += [replace(finding, note=said)] if said else []
            else:
                found.append(replace(finding, note="it was not asked about by itself: there are too many"))
        return found

    async def _ask(self, finding: Finding) -> str:
        """What the vendor says of what its list does not show; empty: it has it."""
        payment = await self._book.get(finding.reference)
        provider = self._providers[finding.provider]
        status: PaymentStatus | RefundStatus
        try:
            if finding.about is LineKind.REFUND:
                refunds = await self._refunds.load(finding.reference)
                item = next(item for item in refunds.items if item.vendor_id == finding.vendor_id)
                refund = await self._refunds.ask(payment, item)
                status = refund.status if refund else RefundStatus.UNKNOWN
            else:
                status = (await provider.fetch(self._runtime.http(provider), finding.vendor_id)).status
        except Rejected as error:
            return "the vendor has none of that id" if error.status == 404 else str(error)
        except CallFailed as error:
            return f"it could not be asked about by itself: {error}"
        return "" if status in (PaymentStatus.PAID, RefundStatus.SUCCEEDED) else f"the vendor says that it is {status}"


def _within(at: datetime | None, since: datetime, until: datetime) -> bool:
    return at is not None and since <= at < until


def _taken_in(before: Iterable[Finding], after: Iterable[Finding]) -> list[Finding]:
    """Those that the books know by now."""
    left = {(one.provider, one.about, one.vendor_id) for one in after if one.kind is FindingKind.UNNOTICED}
    return [
        replace(one, settled=True, ours=one.theirs, note="noticed by this very look")
        for one in before
        if (one.provider, one.about, one.vendor_id) not in left
    ]
