"""Payments as they are kept: read, changed by facts alone, found by what vendors call them."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from holdfast.errors import NotFound, Unreadable, VersionConflict
from holdfast.payments.facts import Fact
from holdfast.payments.machine import step
from holdfast.payments.models import Attempt, Payment
from holdfast.payments.planning import next_look
from holdfast.payments.provider import Capabilities
from holdfast.payments.record import KIND, decode, encode, hours
from holdfast.payments.spend import Meter
from holdfast.queue.inbox import Arrived
from holdfast.runtime import Runtime
from holdfast.stores.store import NewJob, Record
from holdfast.telemetry import PaymentChanged, PaymentFlagged

log = logging.getLogger("holdfast.payments")

MANY: Final = 1_000_000
"""More than is paid in one hour."""


class Book:
    """The records of one family of payments."""

    def __init__(
        self, runtime: Runtime, capabilities: Mapping[str, Capabilities], poll: Sequence[timedelta], meter: Meter
    ) -> None:
        self._runtime = runtime
        self._meter = meter
        self._capabilities = capabilities
        self._poll = poll

    async def load(self, reference: str) -> Payment | None:
        """The payment of this reference, if there is one."""
        record = await self._runtime.store.records.get(KIND, reference)
        return decode(record) if record else None

    async def get(self, reference: str) -> Payment:
        """The payment of this reference. Raises NotFound."""
        payment = await self.load(reference)
        if payment is None:
            raise NotFound(KIND, reference)
        return payment

    async def due(self, limit: int) -> list[Payment]:
        """Those that want to be looked at, the longest due first."""
        found: list[Payment] = []
        for record in await self._runtime.store.records.due(KIND, limit=limit):
            try:
                found.append(decode(record))
            except Unreadable as error:  # the others must be looked at all the same
                log.error("%s", error)
        return found

    async def commit(self, payment: Payment, fact: Fact) -> Payment:
        """Apply the fact to the payment as stored; on a lost race, read and decide again."""
        while True:
            stepped = step(payment, fact)
            if stepped.payment == payment:
                return payment
            try:
                jobs = self._runtime.subscriptions.jobs(stepped.events)
                committed = await self.apply(stepped.payment, payment.version, jobs)
            except VersionConflict:
                payment = await self.get(payment.reference)
                continue
            self._tell(payment, committed)
            await self._meter.count(payment, committed)
            return committed

    async def claim(self, payment: Payment, fact: Fact) -> Payment | None:
        """Write down what is about to be asked, before its first byte; None: it is not to be, or another was first."""
        claimed = step(payment, fact).payment
        if claimed == payment:
            return None
        try:
            return await self.apply(claimed, payment.version)
        except VersionConflict:
            return None

    async def apply(self, payment: Payment, expected: int, jobs: Sequence[NewJob] = ()) -> Payment:
        """Write it. Raises VersionConflict: somebody else has written meanwhile."""
        draft = encode(payment, due_at=next_look(payment, self._capabilities, self._poll))
        record = await self._runtime.store.records.apply(KIND, payment.reference, expected, draft, jobs=jobs)
        return replace(payment, version=record.version)

    async def find(self, delivery: Arrived) -> tuple[Payment, Attempt] | None:
        """The attempt a delivery names: by the URL we gave, or by the vendor's id."""
        if delivery.attempt_id:
            for payment in await self._indexed("attempt", delivery.attempt_id):
                for attempt in payment.attempts:
                    if (attempt.provider, attempt.id) == (delivery.provider, delivery.attempt_id):
                        return payment, attempt
        if delivery.vendor_id:
            for payment in await self._indexed("vendor", f"{delivery.provider}/{delivery.vendor_id}"):
                for attempt in payment.attempts:
                    if (attempt.provider, attempt.vendor_id) == (delivery.provider, delivery.vendor_id):
                        return payment, attempt
        return None

    async def paid_between(self, since: datetime, until: datetime) -> AsyncIterator[Payment]:
        """Payments of which an attempt was paid in that time, hour by hour; one that was paid twice may come twice."""
        for hour in hours(since, until):
            for record in await self._runtime.store.records.find(KIND, "paid_in", hour, limit=MANY):
                payment = decode(record)
                if any(a.paid_at is not None and since <= a.paid_at < until for a in payment.attempts):
                    yield payment

    async def named(self, provider: str, *, vendor_id: str, attempt_id: str) -> Payment | None:
        """The payment that a vendor means by its own id, or by ours as it echoes it."""
        for index, value in (("vendor", f"{provider}/{vendor_id}" if vendor_id else ""), ("attempt", attempt_id)):
            found = await self._indexed(index, value) if value else []
            if found:
                return found[0]
        return None

    async def _indexed(self, index: str, value: str) -> list[Payment]:
        found: Sequence[Record] = await self._runtime.store.records.find(KIND, index, value)
        return [decode(record) for record in found]

    def _tell(self, before: Payment, after: Payment) -> None:
        emit = self._runtime.telemetry.emit
        if before.status is not after.status:
            emit(PaymentChanged(after.reference, after.provider, before.status, after.status))
        for anomaly in after.anomalies - before.anomalies:
            emit(PaymentFlagged(after.reference, after.provider, anomaly))
