"""Deliveries between the door and the code that acts on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from holdfast.stores.store import Job, NewJob
from holdfast.webhooks.request import Delivery, RawRequest

QUEUE = "deliveries"

KEPT_HEADERS = frozenset({"content-type", "user-agent", "x-request-id", "x-zm-trackingid"})
"""What is stored of a request's headers; signatures and authorisations are not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """A delivery as its worker sees it."""

    id: str
    provider: str
    type: str
    vendor_id: str
    attempt_id: str
    """From our own URL, or as the vendor echoes it."""
    reference: str
    recognised: bool
    body: bytes
    facts: Mapping[str, str]
    attempts: int
    """How often acting on it failed."""


def to_job(provider: str, delivery: Delivery, request: RawRequest, *, attempt_id: str = "") -> NewJob:
    """The delivery as a job: deduplicated by the vendor's own identity of the happening, ordered by its object."""
    body = delivery.body or request.body
    facts = {f"fact.{name}": value for name, value in (delivery.facts or {}).items()}
    kept = {f"header.{name}": value for name, value in request.headers if name in KEPT_HEADERS}
    return NewJob(
        queue=QUEUE,
        key=f"{provider}/{delivery.dedup_key}",
        kind=provider,
        body=body,
        headers={
            "type": delivery.type,
            "vendor_id": delivery.vendor_id,
            "attempt_id": attempt_id or (delivery.facts or {}).get("attempt_id", ""),
            "reference": delivery.reference,
            "recognised": "yes" if delivery.recognised else "",
            **facts,
            **kept,
        },
        digest=delivery.digest or sha256(body).hexdigest(),
        ordering_key=f"{provider}/{delivery.vendor_id}" if delivery.vendor_id else "",
    )


def from_job(job: Job) -> Arrived:
    """The delivery again."""
    headers = job.headers
    return Arrived(
        id=job.id,
        provider=job.kind,
        type=headers.get("type", ""),
        vendor_id=headers.get("vendor_id", ""),
        attempt_id=headers.get("attempt_id", ""),
        reference=headers.get("reference", ""),
        recognised=bool(headers.get("recognised")),
        body=job.body,
        facts={name.removeprefix("fact."): value for name, value in headers.items() if name.startswith("fact.")},
        attempts=job.attempts,
    )
