"""Broken replacements for one production object each: with any of them in place the oracle must object."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from holdfast import Holdfast, PaymentPaid, PaymentStatus
from holdfast.errors import VersionConflict
from holdfast.outcome import Cause, Effect
from holdfast.payments import client, machine
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

    def tell_again(payment: Payment, fact: machine.Fact) -> machine.Step:
        stepped = step(payment, fact)
        again = isinstance(fact, machine.Looked) and fact.snapshot and fact.snapshot.status is PaymentStatus.PAID
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
    client.step = tell_again  # type: ignore[attr-defined]


def trust_body(hub: Holdfast) -> None:
    """What a webhook says is believed, without asking the vendor."""

    async def believe(payment: Payment, number: int, *, tolerate: bool) -> Payment:
        attempt = payment.attempts[number - 1]
        said = _saying[attempt.vendor_id]
        snapshot = PaymentSnapshot(vendor_id=attempt.vendor_id, status=said)
        fact = machine.Looked(
            at=payment.created_at,
            number=number,
            snapshot=snapshot,
            capabilities=hub.payments.providers[attempt.provider].capabilities,
        )
        return await hub.payments._commit(payment, fact)  # pyright: ignore[reportPrivateUsage]

    _saying: dict[str, PaymentStatus] = {}
    fetch, arrived = hub.payments._fetch, hub.payments.arrived  # pyright: ignore[reportPrivateUsage]

    async def read(delivery: Any) -> bool:
        body = json.loads(delivery.body)
        body = json.loads(body) if isinstance(body, str) else body
        if body.get("status") in ("settled", "paid", "success"):
            _saying[delivery.vendor_id] = PaymentStatus.PAID
        return await arrived(delivery)

    async def fetch_or_believe(payment: Payment, number: int, *, tolerate: bool) -> Payment:
        known = payment.attempts[number - 1].vendor_id in _saying
        return await (believe if known else fetch)(payment, number, tolerate=tolerate)

    hub.payments.arrived = read  # type: ignore[method-assign]
    hub.payments._fetch = fetch_or_believe  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]


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
