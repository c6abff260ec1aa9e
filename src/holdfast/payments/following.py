"""Payments followed to their end: by what vendors deliver, by sweeps, and when somebody asks."""

from collections.abc import Mapping
from dataclasses import replace

from holdfast.errors import NotFound, StoreError
from holdfast.payments import facts
from holdfast.payments.book import Book
from holdfast.payments.desk import Desk
from holdfast.payments.models import Attempt, Payment
from holdfast.payments.provider import PaymentProvider, SupportsLocating
from holdfast.payments.record import KIND
from holdfast.payments.refunding import RefundDesk
from holdfast.payments.refunds import KIND as REFUNDS
from holdfast.queue.inbox import Arrived
from holdfast.runtime import Runtime
from holdfast.telemetry import Security


class FollowDesk:
    """What the worker asks for."""

    def __init__(
        self,
        runtime: Runtime,
        book: Book,
        desk: Desk,
        refunds: RefundDesk,
        providers: Mapping[str, PaymentProvider],
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._desk = desk
        self._refunds = refunds
        self._providers = providers

    async def refresh(self, payment: Payment) -> Payment:
        """Ask the vendors how it stands, now."""
        payment = await self._desk.tend(payment, everything=True)
        await self._refunds.tend(payment, everything=True)
        return payment

    async def sweep(self, limit: int) -> int:
        """Look at every payment that wants to be looked at; how many there were."""
        due = await self._book.due(limit)
        refunded = [record.key for record in await self._runtime.store.records.due(REFUNDS, limit=limit)]
        await self._runtime.each([*map(self._sweep_one, due), *map(self._sweep_refunds, refunded)])
        return len(due) + len(refunded)

    async def _sweep_one(self, payment: Payment) -> None:
        try:
            await self._desk.tend(payment, everything=False)
        except StoreError:
            raise
        except Exception:  # a border: whatever makes one payment fail, it must not stay first in line before all others
            await self._desk.postpone(await self._book.get(payment.reference))
            raise

    async def _sweep_refunds(self, reference: str) -> None:
        await self._refunds.tend(await self._book.get(reference), everything=False)

    async def arrived(self, delivery: Arrived) -> bool:
        """Look at the object a delivery is about; False: it is none of ours. Raises what `Payments.arrived` names."""
        found = await self._find(delivery)
        if found is None:
            return False
        payment, attempt = found
        vendor_id = attempt.vendor_id or delivery.vendor_id
        if not vendor_id:
            await self._desk.look_up(payment, attempt.number)
            return True
        if delivery.vendor_id not in ("", vendor_id):
            return self._strange(delivery, payment)
        return await self.learn(payment, attempt, vendor_id) or self._strange(delivery, payment)

    async def learn(self, payment: Payment, attempt: Attempt, vendor_id: str) -> bool:
        """Ask the vendor about an object and take in what it says; False: it is not this attempt's."""
        fact = await self._desk.ask(attempt, vendor_id)
        if not attempt.vendor_id:
            # Who told of it only hinted: the object itself says whose it is.
            if fact.snapshot is None or fact.snapshot.attempt_id not in ("", attempt.id):
                return False
            discovered = facts.Discovered(at=self._desk.now(), number=attempt.number, vendor_id=vendor_id)
            payment = await self._book.commit(payment, discovered)
        payment = await self._desk.do_chores(await self._book.commit(payment, fact))
        await self._refunds.tend(payment, everything=True)
        return True

    def _strange(self, delivery: Arrived, payment: Payment) -> bool:
        self._runtime.telemetry.emit(
            Security("delivery names another object", delivery.provider, f"payment {payment.reference}")
        )
        return False

    # Whose it is.

    async def _find(self, delivery: Arrived) -> tuple[Payment, Attempt] | None:
        """The attempt a delivery is about: by the URL we gave, by the vendor's id, by what the object echoes.

        None: what it names is not ours. Raises NotFound: it may be, but there is no such payment yet.
        """
        found = await self._book.find(delivery)
        provider = self._providers.get(delivery.provider)
        unnamed = not (delivery.vendor_id or delivery.attempt_id)
        if found is None and unnamed and isinstance(provider, SupportsLocating):
            attempt_id = await provider.locate(self._runtime.http(provider), delivery.facts)
            if not attempt_id:
                return None
            found = await self._book.find(replace(delivery, attempt_id=attempt_id))
        if found is None and delivery.reference:
            found = await (self._find_by_echo(delivery) if delivery.vendor_id else self._find_by_reference(delivery))
        if found is None:
            raise NotFound(KIND, f"that {delivery.provider} calls {delivery.vendor_id or delivery.reference}")
        return found

    async def _find_by_reference(self, delivery: Arrived) -> tuple[Payment, Attempt] | None:
        """A delivery that names nothing but our reference is about what was paid, or else about the last offer."""
        payment = await self._book.load(delivery.reference)
        theirs = [a for a in payment.attempts if a.provider == delivery.provider and a.vendor_id] if payment else []
        if payment is None or not theirs:
            return None
        return payment, next((attempt for attempt in reversed(theirs) if attempt.paid), theirs[-1])

    async def _find_by_echo(self, delivery: Arrived) -> tuple[Payment, Attempt] | None:
        """The reference is a hint of where to look; whose the object is, the vendor says when asked."""
        payment = await self._book.load(delivery.reference)
        unbound = [
            attempt
            for attempt in (payment.attempts if payment else ())
            if attempt.provider == delivery.provider and not attempt.vendor_id
        ]
        if payment is None or not unbound:
            return None
        asked = await self._desk.ask(unbound[0], delivery.vendor_id)
        echo = asked.snapshot.attempt_id if asked.snapshot else ""
        return next(((payment, attempt) for attempt in unbound if attempt.id == echo), None)
