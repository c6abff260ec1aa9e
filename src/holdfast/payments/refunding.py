"""What is asked of vendors for money that goes back."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from holdfast.errors import CallFailed, InvalidInput, NotFound, VersionConflict
from holdfast.outcome import Cause
from holdfast.payments import refunds as ledger
from holdfast.payments.book import MANY
from holdfast.payments.desk import MOVE_WITHIN
from holdfast.payments.keys import derive, key_until, key_valid
from holdfast.payments.models import Attempt, MoveState, Payment
from holdfast.payments.provider import (
    Capabilities,
    PaymentProvider,
    Refunding,
    RefundRequest,
    RefundSnapshot,
    SupportsRefundLookup,
    SupportsRefunds,
)
from holdfast.payments.record import hours
from holdfast.payments.refunds import KIND, Asked, Fact, Failed, Passed, Refund, Refunds, Seen, Sent, Settled
from holdfast.resilience.context import deadline_scope
from holdfast.runtime import Runtime
from holdfast.telemetry import OutcomeBecameUnknown
from holdfast.values import Money

LONGEST_KEY: Final = 64


class RefundDesk:
    """The verbs, over the refunds' own records."""

    def __init__(self, runtime: Runtime, providers: Mapping[str, PaymentProvider]) -> None:
        self._runtime = runtime
        self._providers = providers

    async def load(self, reference: str) -> Refunds:
        """All refunds of a payment; none at first."""
        record = await self._runtime.store.records.get(KIND, reference)
        return ledger.decode(record) if record else Refunds(reference=reference)

    async def refund(
        self, payment: Payment, money: Money | None, *, key: str, reason: str, number: int | None
    ) -> Refund:
        """Ask for money to go back. Raises CallFailed, already recorded, and what `Payments.refund` names."""
        if not 0 < len(key) <= LONGEST_KEY:
            raise InvalidInput(f"a refund's key is 1 to {LONGEST_KEY} characters of your choice; it names the refund")
        attempt = _attempt(payment, number)
        refunds = await self.load(payment.reference)
        known = refunds.get(key)
        if money is not None:
            exact = _in_price(payment, attempt, money)
        else:
            exact = known.money if known else _left(refunds, attempt)
        wanted = Refund(
            key=key,
            number=attempt.number,
            provider=attempt.provider,
            money=exact,
            reason=reason,
            created_at=self._now(),
        )
        can = isinstance(self._providers.get(attempt.provider), SupportsRefunds)
        refunding = self._able(attempt.provider).refunding if can else Refunding.NONE
        refunds = await self._commit(
            refunds, Asked(at=self._now(), refund=wanted, attempt=attempt, refunding=refunding)
        )
        return await self._submit(payment, refunds, key)

    async def settled_between(self, since: datetime, until: datetime) -> AsyncIterator[Refunds]:
        """Those of which something was settled in that time, hour by hour; some may come twice."""
        for hour in hours(since, until):
            for record in await self._runtime.store.records.find(KIND, "settled_in", hour, limit=MANY):
                yield ledger.decode(record)

    async def find(self, provider: str, vendor_id: str) -> Refunds | None:
        """Those with the one that the vendor calls so."""
        found = await self._runtime.store.records.find(KIND, "vendor", f"{provider}/{vendor_id}")
        return ledger.decode(found[0]) if found else None

    async def ask(self, payment: Payment, item: Refund) -> RefundSnapshot | None:
        """The refund as its vendor has it now; None: it cannot be asked. Raises CallFailed."""
        provider = self._providers.get(item.provider)
        if not isinstance(provider, SupportsRefunds):
            return None
        return await provider.fetch_refund(self._runtime.http(provider), self._request(payment, item), item.vendor_id)

    async def settle(self, reference: str, key: str, *, sent: bool, note: str) -> Refund:
        """A person says what became of it. Raises NotFound, InvalidInput: the vendor is still asked."""
        refunds = await self.load(reference)
        item = refunds.get(key)
        if item is None:
            raise NotFound("refund", f"{key} of payment {reference}")
        if not ledger.may_settle(item, sent=sent):
            raise InvalidInput(
                f"refund {key} of payment {reference} is {item.status}: its vendor says what becomes of it"
            )
        if item.move and item.move.state is MoveState.SENDING:
            raise InvalidInput(f"refund {key} of payment {reference} is being asked for at this moment: look again")
        return _get(await self._commit(refunds, Settled(at=self._now(), key=key, sent=sent, note=note)), key)

    async def tend(self, payment: Payment, *, everything: bool) -> None:
        """Look at what is not over, and ask again where that is safe."""
        refunds = await self._commit(await self.load(payment.reference), Passed(at=self._now()))
        for item in refunds.items:
            due = ledger.next_look(item)
            if due is None or (not everything and due > self._now()) or not _is_seen(payment, item):
                continue
            try:
                refunds = await self._look(payment, refunds, item)
            except CallFailed:
                refunds = await self._commit(
                    await self.load(payment.reference), Seen(at=self._now(), key=item.key, snapshot=None)
                )

    async def _look(self, payment: Payment, refunds: Refunds, item: Refund) -> Refunds:
        provider = self._providers.get(item.provider)
        if not isinstance(provider, SupportsRefunds):
            return await self._commit(refunds, Seen(at=self._now(), key=item.key, snapshot=None))
        if item.move is None:
            await self._submit(payment, refunds, item.key)
            return await self.load(payment.reference)
        http, request = self._runtime.http(provider), self._request(payment, item)
        snapshot = None
        if item.vendor_id:
            snapshot = await provider.fetch_refund(http, request, item.vendor_id)
        elif isinstance(provider, SupportsRefundLookup):
            snapshot = await provider.find_refund(http, request)
        if snapshot is None and ledger.may_resend(item, self._now()):
            await self._submit(payment, refunds, item.key)
            return await self.load(payment.reference)
        return await self._commit(refunds, Seen(at=self._now(), key=item.key, snapshot=snapshot))

    async def _submit(self, payment: Payment, refunds: Refunds, key: str) -> Refund:
        """Ask the vendor, if it is to be asked now; a process that stood still since it said so asks no more."""
        with deadline_scope(MOVE_WITHIN, self._runtime.clock):
            return await self._ask_vendor(payment, refunds, key)

    async def _ask_vendor(self, payment: Payment, refunds: Refunds, key: str) -> Refund:
        item = _get(refunds, key)
        provider = self._providers.get(item.provider)
        waiting = item.move is not None and not ledger.may_resend(item, self._now())
        if waiting or not ledger.is_open(item) or not isinstance(provider, SupportsRefunds):
            return item
        able, now, timeout = provider.capabilities, self._now(), timedelta(seconds=MOVE_WITHIN)
        fact = Sent(
            at=now,
            key=key,
            vendor_key=derive(payment.reference, "refund", item.number, key, item.money),
            timeout=timeout,
            key_until=key_until(able.refund_effect, able.refund_key_window, at=now, timeout=timeout),
        )
        sent = ledger.step(refunds, fact).refunds
        try:
            refunds = await self._apply(sent, refunds.version)
        except VersionConflict:
            return _get(await self.load(payment.reference), key)  # another process was first
        item = _get(refunds, key)
        assert item.move is not None
        http, request = self._runtime.http(provider), self._request(payment, item)
        try:
            snapshot = await provider.refund(http, request)
        except CallFailed as error:
            await self._commit(refunds, Failed(at=self._now(), key=key, claim=item.move.claim, error=error))
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(provider.name, "refund", payment.reference))
            raise
        return _get(await self._commit(refunds, Seen(at=self._now(), key=key, snapshot=snapshot)), key)

    def _request(self, payment: Payment, item: Refund) -> RefundRequest:
        attempt = payment.attempts[item.number - 1]
        until = item.move.key_until if item.move else None
        return RefundRequest(
            reference=payment.reference,
            attempt_id=attempt.id,
            vendor_id=attempt.vendor_id,
            key=item.move.key if item.move else "",
            money=item.money,
            reason=item.reason,
            key_valid=key_valid(self._runtime.clock, until),
        )

    def _able(self, provider: str) -> Capabilities:
        found = self._providers.get(provider)
        return found.capabilities if found else Capabilities(currencies=None, refunding=Refunding.NONE)

    def _now(self) -> datetime:
        return self._runtime.clock.now()

    async def _commit(self, refunds: Refunds, fact: Fact) -> Refunds:
        """Apply the fact to the refunds as stored; on a lost race, read and decide again."""
        while True:
            stepped = ledger.step(refunds, fact)
            if stepped.refunds == refunds:
                return refunds
            try:
                jobs = self._runtime.subscriptions.jobs(stepped.events)
                draft = ledger.encode(stepped.refunds)
                record = await self._runtime.store.records.apply(
                    KIND, refunds.reference, refunds.version, draft, jobs=jobs
                )
            except VersionConflict:
                refunds = await self.load(refunds.reference)
                continue
            return replace(stepped.refunds, version=record.version)

    async def _apply(self, refunds: Refunds, expected: int) -> Refunds:
        record = await self._runtime.store.records.apply(KIND, refunds.reference, expected, ledger.encode(refunds))
        return replace(refunds, version=record.version)


def _is_seen(payment: Payment, item: Refund) -> bool:
    """The payment was read late enough to show what this is a refund of."""
    return item.number <= len(payment.attempts) and payment.attempts[item.number - 1].vendor_id != ""


def _get(refunds: Refunds, key: str) -> Refund:
    item = refunds.get(key)
    assert item is not None
    return item


def _attempt(payment: Payment, number: int | None) -> Attempt:
    """The attempt the money came in by. Raises InvalidInput: none did, or not by that one."""
    came = [
        attempt for attempt in payment.attempts if attempt.received and attempt.number in (number or attempt.number,)
    ]
    if not came:
        raise InvalidInput(f"nothing came in for payment {payment.reference} that could go back")
    paid = [attempt for attempt in came if attempt.paid]
    return (paid or came)[0]


def _in_price(payment: Payment, attempt: Attempt, money: Money) -> Money:
    """In the currency the vendor was asked in; what is due is converted at the frozen quote, rounded down."""
    if money.currency == attempt.price.currency:
        return money
    if money.currency != payment.due.currency:
        raise InvalidInput(f"payment {payment.reference} is of {payment.due.currency}, so {money} cannot go back")
    units = money.minor_units * attempt.price.minor_units // payment.due.minor_units
    return Money.from_minor(units, attempt.price.currency)


def _left(refunds: Refunds, attempt: Attempt) -> Money:
    assert attempt.received is not None
    return attempt.received - refunds.of(attempt.number, attempt.received.currency)
