"""The main job on real servers: a Lightning payment through LNbits, confirmed once, told once by e-mail."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from holdfast import Holdfast, Message, Money, PaymentPaid, PaymentStatus, Recipient, Secret, Secrets, handled_ddl
from holdfast.providers import LNbits, Smtp
from holdfast.stores.store import JobState
from tests.servers.lnbits import LnbitsServer
from tests.servers.ports import free_port
from tests.servers.smtp import SmtpServer

pytestmark = pytest.mark.xdist_group("lnbits")


@asynccontextmanager
async def served(app: FastAPI, port: int) -> AsyncGenerator[None]:
    """The app on a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="on"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the test run keeps its own
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
            assert not serving.done()
        yield
        server.should_exit = True


async def test_a_lightning_payment_is_confirmed_once_and_told_once(
    lnbits: LnbitsServer, smtp: SmtpServer, tmp_path: Path
) -> None:
    port = free_port()
    shop = tmp_path / "shop.db"
    with closing(sqlite3.connect(shop)) as database, database:
        database.execute("CREATE TABLE confirmed (reference TEXT)")
        database.execute(handled_ddl("sqlite"))
    hub = Holdfast(
        store=f"sqlite:///{tmp_path}/holdfast.db",
        secret=Secrets("a secret of the shop's own"),
        public_url=f"http://127.0.0.1:{port}/webhooks",
        payments=[LNbits(base_url=lnbits.url, invoice_key=Secret(lnbits.merchant.inkey))],
        notifications=[Smtp(host=smtp.host, port=smtp.port, sender="shop@example.org")],
    )
    paid_events: list[PaymentPaid] = []

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        paid_events.append(paid)
        message = Message("We have your payment.", subject="Thank you")
        await hub.notifications.send(message, to=Recipient(email="ada@example.org"), key=f"thanks:{paid.reference}")
        with closing(sqlite3.connect(shop)) as database, database:
            async with paid.handled_in(database):
                database.execute("INSERT INTO confirmed VALUES (?)", (paid.reference,))

    app = FastAPI(lifespan=hub.lifespan)
    app.mount("/webhooks", hub.receiver)

    async with served(app, port), asyncio.timeout(120):
        payment = await hub.payments.create("consultation-4711", Money.from_sat(2100), description="Consultation")
        assert payment.offer is not None
        assert payment.offer.bolt11 is not None
        assert payment.offer.qr_svg().startswith("<svg")

        await lnbits.pay(payment.offer.bolt11)
        payment = await hub.payments.wait("consultation-4711", timeout=60)
        while True:
            jobs = await hub.store.jobs.list()
            arrivals = [job.arrivals for job in jobs if job.queue == "deliveries"]
            if arrivals == [2] and all(job.state is JobState.DONE for job in jobs):
                break
            await asyncio.sleep(0.05)

    assert payment.status is PaymentStatus.PAID
    assert payment.received == Money.from_sat(2100)
    assert len(paid_events) == 1
    assert [mail.message["subject"] for mail in smtp.messages] == ["Thank you"]
    with closing(sqlite3.connect(shop)) as database:
        assert database.execute("SELECT reference FROM confirmed").fetchall() == [("consultation-4711",)]
