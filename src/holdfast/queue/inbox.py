"""Deliveries between the door and the code that acts on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b, sha256
from typing import Final

from holdfast.frozen import frozen
from holdfast.queue import subjects
from holdfast.queue.events import idempotency_key
from holdfast.stores.store import Job, NewJob
from holdfast.webhooks.request import Delivery, RawRequest, ReceivedHeaders

QUEUE = "deliveries"

KEPT_HEADERS = frozenset({"content-type", "content-encoding", "user-agent", "x-request-id", "x-zm-trackingid"})
"""What is stored of a request's headers; signatures and authorisations are not."""
_KEPT_AS_SENT: Final = frozenset(name.encode() for name in KEPT_HEADERS)
MOST_CONFLICTS: Final = 3
"""Other bodies under one key that are kept."""


@frozen
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
    fencing_token: int = 0
    """Greater with every run of the job."""
    idempotency_key: str = ""
    """The same for every run about this delivery, until it is replayed."""


def to_job(provider: str, delivery: Delivery, request: RawRequest, *, attempt_id: str = "") -> NewJob:
    """The delivery as a job: deduplicated by the vendor's own identity of the happening, ordered by its object."""
    body = delivery.body or request.body
    kept = {f"header.{name}": value for name, value in _kept(request.headers)}
    headers = {
        "type": delivery.type,
        "vendor_id": delivery.vendor_id,
        "attempt_id": attempt_id,
        "reference": delivery.reference,
        "recognised": "yes" if delivery.recognised else "",
        **kept,
    }
    if delivery.facts:
        headers |= {f"fact.{name}": value for name, value in delivery.facts.items()}
        headers["attempt_id"] = attempt_id or delivery.facts.get("attempt_id", "")
    return NewJob(
        queue=QUEUE,
        key=f"{provider}/{delivery.dedup_key}",
        kind=provider,
        body=body,
        headers=headers,
        digest=delivery.digest or sha256(body).hexdigest(),
        ordering_key=f"{provider}/{delivery.vendor_id}" if delivery.vendor_id else "",
        subject=subjects.of_delivery(
            provider,
            reference=delivery.reference,
            attempt_id=headers["attempt_id"],
            vendor_id=delivery.vendor_id,
        ),
    )


def _kept(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    if isinstance(headers, ReceivedHeaders):
        return headers.some(_KEPT_AS_SENT)
    return [header for header in headers if header[0] in KEPT_HEADERS]


def to_conflict(job: NewJob, number: int) -> NewJob:
    """Another body under a key that is taken: kept aside, so that a person can look at it and replay it."""
    headers = {**job.headers, "conflict_with": job.key}
    return replace(job, key=f"{job.key}/conflict-{number}", headers=headers, ignored=True)


def unread(request: RawRequest) -> Delivery:
    """An authentic body nobody could read."""
    return Delivery(type="unparsed", dedup_key=f"unparsed/{sha256(request.body).hexdigest()}", recognised=False)


def receipt(jobs: Sequence[NewJob]) -> bytes:
    """What the vendor is told these are called here: equal for every arrival of the same, and nothing to guess from."""
    keys = "\n".join([job.key for job in jobs])
    return blake2b(keys.encode("utf-8", "replace"), digest_size=12).hexdigest().encode()


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
        fencing_token=job.token,
        idempotency_key=idempotency_key(job.key, job.kind, job.generation),
    )
