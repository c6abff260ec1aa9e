"""The store is lost, and its backup restored: what the vendor knows comes back, and nothing is done twice."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from holdfast import Holdfast, Money, PaymentPaid, Payments, PaymentStatus, Secrets, handled_ddl
from holdfast.providers import LNbits
from holdfast.stores.backup import back_up, restore
from holdfast.stores.store import JobFilter, JobState
from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Headers
from holdfast.testing.simulators.webhooks import WebhookSimulator
from holdfast.values import Secret

PRICE = Money.from_sat(2100)
DAYS = timedelta(days=20)
"""Sweeps come too late for anything."""


class Shop:
    """A vendor and a database of the shop's own, which outlive the hub's store."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.vendor = LNbitsSimulator(clock=self.clock, invoice_key="k" * 32)
        self.runs: list[str] = []
        self._path = directory / "shop.db"
        with closing(sqlite3.connect(self._path)) as database:
            database.execute("CREATE TABLE confirmed (reference TEXT)")
            database.execute(handled_ddl("sqlite"))

    def hub(self, store: str) -> Holdfast:
        hub = Holdfast(
            store=store,
            secret=Secrets("hub-secret"),
            public_url="https://shop.example/webhooks",
            payments=Payments([LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("k" * 32))], poll=[DAYS]),
            clock=self.clock,
            transport=lambda _: InProcess(self.vendor),
            fleet=False,
        )

        @hub.on(PaymentPaid, name="confirm")
        async def confirm(paid: PaymentPaid) -> None:
            self.runs.append(paid.id)
            with closing(sqlite3.connect(self._path)) as database:
                async with paid.handled_in(database):
                    database.execute("INSERT INTO confirmed VALUES (?)", (paid.reference,))
                database.commit()

        return hub

    @property
    def confirmed(self) -> list[str]:
        with closing(sqlite3.connect(self._path)) as database:
            return sorted(reference for (reference,) in database.execute("SELECT reference FROM confirmed"))

    async def sell(self, hub: Holdfast, reference: str) -> str:
        payment = await hub.payments.create(reference, PRICE, expires_in=DAYS)
        assert payment.offer
        return payment.offer.bolt11 or ""

    async def deliver(self, hub: Holdfast) -> None:
        """Every webhook there is, and all that follows from it."""

        async def post(url: str, headers: Headers, body: bytes) -> int:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.receiver)) as client:
                answer = await client.post(url.replace("/webhooks/", "/"), content=body, headers=list(headers))
            return answer.status_code

        assert all(sent.accepted for sent in await WebhookSimulator([self.vendor], post, clock=self.clock).deliver())
        await hub.settle()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_what_was_paid_and_confirmed_after_the_backup_is_found_again_and_confirmed_once(
    shop: Shop, tmp_path: Path
) -> None:
    before, after = (f"sqlite:///{tmp_path / name}.db" for name in ("before", "after"))
    async with shop.hub(before) as hub:
        invoices = [await shop.sell(hub, reference) for reference in ("early", "late")]
        shop.vendor.pay(invoices[0])
        await shop.deliver(hub)
        await back_up(before, tmp_path / "backup.zip")
        await shop.clock.advance(600)
        shop.vendor.pay(invoices[1])
        await shop.deliver(hub)
    assert shop.confirmed == ["early", "late"]

    await restore(tmp_path / "backup.zip", after)
    async with shop.hub(after) as hub:
        assert (await hub.payments.get("late")).status is PaymentStatus.PENDING
        found = await hub.reconcile()
        await hub.settle()

        assert found["lnbits"].missed == 1
        assert (await hub.payments.get("late")).status is PaymentStatus.PAID
    assert len(shop.runs) == 3
    assert shop.runs[1] == shop.runs[2], "the same event, under the same id"
    assert shop.confirmed == ["early", "late"]


async def test_a_payment_the_store_forgot_is_kept_as_a_delivery_nobody_knows(shop: Shop, tmp_path: Path) -> None:
    before, after = (f"sqlite:///{tmp_path / name}.db" for name in ("before", "after"))
    async with shop.hub(before) as hub:
        await back_up(before, tmp_path / "backup.zip")
        shop.vendor.pay(await shop.sell(hub, "forgotten"))

    await restore(tmp_path / "backup.zip", after)
    async with shop.hub(after) as hub:
        await hub.reconcile()
        for _ in range(20):
            await hub.settle()
            await shop.clock.advance(60)

        [delivery] = await hub.store.jobs.list(JobFilter(queue="deliveries"))
    assert delivery.state is JobState.IGNORED
    assert delivery.headers["reference"] == "forgotten"
    assert shop.confirmed == []
