"""A payment as a document in the store."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from holdfast.payments.models import Attempt, AttemptState, Payment, PaymentStatus
from holdfast.stores.readable import document, value_of
from holdfast.stores.store import Draft, Record

KIND = "payment"

_ADAPTER = TypeAdapter(Payment)


_OPEN = (AttemptState.SENDING, AttemptState.UNKNOWN, AttemptState.OFFERED)
_MOVING = (PaymentStatus.PROCESSING, PaymentStatus.AUTHORIZED)
_HOUR = timedelta(hours=1)


def hour(at: datetime) -> str:
    """The hour of an instant, as records are found by it: `2026-11-21T14`."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H}"


def hours(since: datetime, until: datetime) -> Iterator[str]:
    """Every hour that has a part between the two."""
    at = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while at < until:
        yield hour(at)
        at += _HOUR


def encode(payment: Payment, *, due_at: datetime | None) -> Draft:
    """The payment, the indexes it is found by, and when it wants to be looked at."""
    return Draft(
        value=document(KIND, _ADAPTER, payment),
        index={
            "vendor": [f"{a.provider}/{a.vendor_id}" for a in payment.attempts if a.vendor_id],
            "attempt": [attempt.id for attempt in payment.attempts],
            "paid_in": sorted({hour(attempt.paid_at) for attempt in payment.attempts if attempt.paid_at}),
            "open_at": sorted({attempt.provider for attempt in payment.attempts if _is_open(attempt)}),
        },
        due_at=due_at,
        subject=payment.reference,
    )


def _is_open(attempt: Attempt) -> bool:
    """It can be paid, or, though its time is over, money of it is on its way or set aside."""
    return attempt.state in _OPEN or attempt.status in _MOVING


def decode(record: Record) -> Payment:
    """The inverse of `encode`."""
    return value_of(_ADAPTER, record)
