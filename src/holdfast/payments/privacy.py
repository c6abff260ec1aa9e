"""What a payment holds of a person, and what stays of it once they are forgotten."""

from collections.abc import Sequence
from dataclasses import replace

from holdfast.payments.record import KIND, decode, encode
from holdfast.stores.store import Draft, Record, Records


class PaymentPrivacy:
    """Forgets descriptions, links and what was said; keeps amounts, states, times and vendors' ids: the law asks so."""

    async def find(self, records: Records, reference: str) -> Sequence[Record]:
        """The payment of this reference."""
        record = await records.get(KIND, reference)
        return [record] if record else []

    def subjects(self, record: Record) -> set[str]:
        """Under whose keys deliveries about it rest."""
        attempts = decode(record).attempts
        ids = {(attempt.provider, name) for attempt in attempts for name in (attempt.id, attempt.vendor_id) if name}
        return {f"{provider}/{name}" for provider, name in ids}

    def scrub(self, record: Record) -> Draft:
        """The payment without the person."""
        payment = decode(record)
        attempts = tuple(replace(attempt, offer=None, error="") for attempt in payment.attempts)
        scrubbed = replace(payment, description="", return_url=None, metadata={}, attempts=attempts)
        return encode(scrubbed, due_at=record.due_at)
