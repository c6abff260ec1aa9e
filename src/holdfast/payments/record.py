"""A payment as a document in the store."""

from dataclasses import replace
from datetime import datetime

from pydantic import TypeAdapter

from holdfast.payments.models import Payment
from holdfast.stores.store import Draft, Record

KIND = "payment"

_ADAPTER = TypeAdapter(Payment)


def encode(payment: Payment, *, due_at: datetime | None) -> Draft:
    """The payment, the indexes it is found by, and when it wants to be looked at."""
    return Draft(
        value=_ADAPTER.dump_python(payment, mode="json", exclude={"version"}),
        index={
            "vendor": [f"{a.provider}/{a.vendor_id}" for a in payment.attempts if a.vendor_id],
            "attempt": [attempt.id for attempt in payment.attempts],
        },
        due_at=due_at,
        subject=payment.reference,
    )


def decode(record: Record) -> Payment:
    """The inverse of `encode`."""
    return replace(_ADAPTER.validate_python(dict(record.value)), version=record.version)
