"""Broken replacements for one production object each: with any of them in place the oracle must object."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from holdfast import Arrived, Holdfast, PaymentPaid, PaymentStatus
from holdfast.errors import VersionConflict
from holdfast.http.session import Http
from holdfast.outcome import Cause, Effect
from holdfast.payments import book, facts, machine
from holdfast.payments.models import Payment
from holdfast.payments.provider import PaymentSnapshot
from holdfast.resilience import guard
from holdfast.resilience.decide import Again, Circumstances, Decision, decide
from holdfast.stores.store import Draft, NewJob, Record


def no_dedup(hub: Holdfast) -> None:
    """Every delivery is new, and every look that finds money tells of it again."""
    add, step = hub.store.jobs.add, machine.step

    async def add_all(jobs: Sequence[NewJob]) -> Any:
        return await add([replace(job, key=f"{job.key}/{uuid.uuid4()}") for job in jobs])

    def tell_again(payment: Payment, fact: facts.Fact) -> machine.Step:
        stepped = step(payment, fact)
        again = isinstance(fact, facts.Looked) and fact.snapshot and fact.snapshot.status is PaymentStatus.PAID
        if not again or payment.status is not PaymentStatus.PAID:
            return stepped
        paid = PaymentPaid(
            id=f"payment/{payment.reference}/{uuid.uuid4()}",
            reference=payment.reference,
            at=fact.at,
            due=payment.due,
            received=payment.received,
            provider=payment.provider,
        )
        return machine.Step(replace(payment, metadata={"told": str(uuid.uuid4())}), (paid,))

    hub.store.jobs.add = add_all  # type: ignore[method-assign]
    book.step = tell_again  # type: ignore[attr-defined]


def trust_body(hub: Holdfast) -> None:
    """What a webhook says is believed, without asking the vendor."""
    said: dict[str, PaymentStatus] = {}
    arrived = hub.payments.arrived

    async def read(delivery: Arrived) -> bool:
        body = json.loads(delivery.body)
        body = json.loads(body) if isinstance(body, str) else body
        if body.get("status") in ("settled", "paid", "success"):
            said[delivery.vendor_id] = PaymentStatus.PAID
        return await arrived(delivery)

    hub.payments.arrived = read  # type: ignore[method-assign]
    for name, provider in hub.payments.providers.items():
        hub.payments.providers[name] = _believing(provider, said)


def _believing(provider: Any, said: Mapping[str, PaymentStatus]) -> Any:
    """The same provider, which asks only about what nobody said anything of."""

    async def fetch(self: Any, http: Http, vendor_id: str) -> PaymentSnapshot:
        if vendor_id in said:
            return PaymentSnapshot(vendor_id=vendor_id, status=said[vendor_id])
        snapshot: PaymentSnapshot = await provider.fetch(http, vendor_id)
        return snapshot

    gullible: Any = type("Gullible", (provider.__class__,), {"fetch": fetch})
    names: list[str] = [field.name for field in fields(provider)]
    return gullible(**{name: getattr(provider, name) for name in names})


def retry_unknown(hub: Holdfast) -> None:
    """What may have happened is simply tried again."""

    def retry(cause: Cause, effect: Effect, circumstances: Circumstances) -> Decision:
        if cause is Cause.UNKNOWN and circumstances.attempts_left > 0:
            return Again(0.0)
        return decide(cause, effect, circumstances)

    guard.__dict__["decide"] = retry


def no_fence(hub: Holdfast) -> None:
    """Records are written whoever wrote them in between."""
    apply, get = hub.store.records.apply, hub.store.records.get

    async def overwrite(kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        while True:
            try:
                return await apply(kind, key, expected, new, jobs=jobs)
            except VersionConflict:
                current = await get(kind, key)
                expected = current.version if current else 0

    hub.store.records.apply = overwrite  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[Holdfast], None]] = {
    "no-dedup": no_dedup,
    "trust-body": trust_body,
    "retry-unknown": retry_unknown,
    "no-fence": no_fence,
}


def apply(name: str, hub: Holdfast) -> None:
    """Put the broken object in; an empty name breaks nothing."""
    if name:
        SABOTAGES[name](hub)
