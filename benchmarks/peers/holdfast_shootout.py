"""holdfast: each order is a deferred call that creates its payment, over one provider for the scripted vendor.

A process that is killed is started again. `docs/how-to/defer-work.md` and `docs/how-to/add-a-provider.md` are how it is
done; all else is as it is by default, but for the seconds. The circuit opens at such a vendor, and waits at most two
seconds here: by default it is five minutes, and an order that waits would count as lost.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from benchmarks._intents import CENTS, CURRENCY, TIMEOUT, Task, finish
from benchmarks._shootout_vendor import SECRET
from holdfast import Breaker, Call, Holdfast, Money, PaymentPaid, Payments, Policy, Secrets
from holdfast.http.session import Http
from holdfast.http.vendor import CAUSES, HttpDefaults
from holdfast.http.wire import decode_json, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Offer, PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup, OfferRequest, PaymentSnapshot, WebhookTrust
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody

WITHIN: Final = 60.0
"""Seconds; what has not happened by then is lost."""
LOOK_EVERY: Final = 0.05
STATUSES: Final = {"processing": PaymentStatus.PROCESSING, "paid": PaymentStatus.PAID}


class Charge(BaseModel):
    """A charge, as the scripted vendor writes it."""

    id: str
    order: str
    reference: str
    cents: int
    currency: str
    status: str

    def to_snapshot(self, base_url: str) -> PaymentSnapshot:
        price = Money.from_minor(self.cents, self.currency)
        status = STATUSES.get(self.status, PaymentStatus.UNKNOWN)
        return PaymentSnapshot(
            vendor_id=self.id,
            status=status,
            price=price,
            received=price if status is PaymentStatus.PAID else None,
            attempt_id=self.reference,
            offer=Offer(checkout_url=f"{base_url}/charges/{self.id}"),
        )


class Charges(BaseModel):
    """The answer to `GET /charges`."""

    charges: list[Charge]


class Happened(BaseModel):
    """A webhook."""

    id: str
    type: str
    charge: Charge


@dataclass(frozen=True, kw_only=True)
class Scripted(HttpDefaults):
    """Charge with the scripted vendor."""

    base_url: str
    honours_keys: bool
    name: str = "scripted"

    causes = CAUSES | {503: Cause.REFUSED}  # "503 means that nothing was done"
    scheme = HmacBody("scripted-signature")
    webhook_secrets = Secrets(SECRET)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            currencies=frozenset({CURRENCY}),
            create_effect=Effect.KEYED if self.honours_keys else Effect.ONCE,
            lookup=Lookup.AUTHORITATIVE_ABSENCE,  # it shows a charge "from the moment it was made"
            payer_visible=True,
            webhook_trust=WebhookTrust.SIGNED_BODY,
        )

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        charge = await http.post(
            "/charges",
            Charge,
            operation="create",
            effect=self.capabilities.create_effect,
            json={
                "order": request.reference,
                "reference": request.attempt_id,
                "cents": request.price.minor_units,
                "currency": request.price.currency,
                "webhook": request.webhook_url,
            },
            headers={"idempotency-key": request.attempt_id} if self.honours_keys else None,
        )
        return charge.to_snapshot(self.base_url)

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        charge = await http.get(f"/charges/{segment(vendor_id)}", Charge, operation="fetch")
        return charge.to_snapshot(self.base_url)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        found = await http.get("/charges", Charges, operation="find", params={"reference": attempt.id})
        return found.charges[0].to_snapshot(self.base_url) if found.charges else None

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        happened = Happened.model_validate(decode_json(request.body))
        charge = happened.charge
        return [Delivery(type=happened.type, dedup_key=happened.id, vendor_id=charge.id, reference=charge.order)]


def open_hub(task: Task, port: int) -> Holdfast:
    """The shop's hub: it charges what it is asked to, and writes down what was paid."""
    hub = Holdfast(
        store=f"sqlite:///{task.directory}/holdfast.db",
        secret=Secrets("of the shoot-out"),
        public_url=f"http://127.0.0.1:{port}/webhooks",
        payments=Payments([Scripted(base_url=task.url, honours_keys=task.keys)], deadline=3 * TIMEOUT),
        policies={"scripted": Policy(timeout=TIMEOUT, breaker=Breaker(open_for=1, open_cap=2))},
    )

    @hub.call("charge")
    async def charge(call: Call[str]) -> None:
        await hub.payments.create(call.payload, Money.from_minor(CENTS, CURRENCY), expires_in=timedelta(hours=1))

    @hub.on(PaymentPaid, name="shop", transactional=True)
    def write_down(paid: PaymentPaid, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO paid VALUES (?)", (paid.reference,))

    return hub


async def main(task: Task, port: int) -> None:
    hub = open_hub(task, port)
    door = Starlette(routes=[Mount("/webhooks", app=hub.receiver)], lifespan=hub.lifespan)
    server = uvicorn.Server(uvicorn.Config(door, port=port, log_level="warning", access_log=False))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await _until(lambda: server.started)
        with closing(sqlite3.connect(task.directory / "holdfast.db")) as database:
            database.execute("CREATE TABLE IF NOT EXISTS paid (reference TEXT)")
            for order in task.orders:
                await hub.outbox.add("charge", order, key=order)
            with suppress(TimeoutError):
                async with asyncio.timeout(WITHIN):
                    await _until(lambda: _told(database)[1] == task.intents)
            told, _ = _told(database)
        server.should_exit = True
    finish("holdfast", told=told)


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  # neither a server nor a file tells
        await asyncio.sleep(LOOK_EVERY)


def _told(database: sqlite3.Connection) -> tuple[int, int]:
    """How often the shop was told of a payment, and of how many."""
    times, orders = database.execute("SELECT count(*), count(DISTINCT reference) FROM paid").fetchone()
    return times, orders


if __name__ == "__main__":
    asyncio.run(main(Task.given(), int(sys.argv[5])))
