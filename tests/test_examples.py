"""The example app, whole: a booking, a payment, a room, a message, over simulated vendors on loopback."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import func, select

from holdfast import Holdfast, PaymentStatus
from holdfast.stores.store import JobState
from holdfast.testing import Faults, Ledger
from holdfast.testing.faults import Reset
from holdfast.testing.intents import charge
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.smtp import SmtpSimulator
from holdfast.testing.simulators.webhooks import Mischief, WebhookSimulator
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

PUBLIC = "https://shop.example/webhooks"
EXAMPLE = "examples.fastapi_receiver"
QUEUES = ("deliveries", "events")
BOOKING = {
    "reference": "consultation-4711",
    "email": "ada@example.org",
    "telegram": "4711",
    "amount": "120.00",
    "starts_at": "2030-05-06T09:00:00",
}


@dataclass(kw_only=True)
class Vendors:
    """Every vendor of the example, each on a socket of its own."""

    simulators: Mapping[str, Simulator]
    mail: SmtpSimulator
    urls: Mapping[str, str]
    ledger: Ledger
    faults: Faults

    def environment(self, directory: Path, store: str) -> dict[str, str]:
        """What the example reads its settings from."""
        given = {name: dict(simulator.credentials) for name, simulator in self.simulators.items()}
        sbp, zoom = given["swiss-bitcoin-pay"], given["zoom"]
        return {
            "HOLDFAST_STORE": store,
            "SHOP_DATABASE": f"sqlite+aiosqlite:///{directory}/shop.db",
            "HOLDFAST_SECRET": "a secret of the shop's own",
            "PUBLIC_URL": PUBLIC,
            "SBP_URL": self.urls["swiss-bitcoin-pay"],
            "SBP_API_KEY": sbp["api_key"],
            "SBP_WEBHOOK_SECRET": sbp["webhook_secret"],
            "LNBITS_URL": self.urls["lnbits"],
            "LNBITS_INVOICE_KEY": given["lnbits"]["invoice_key"],
            "ZOOM_URL": f"{self.urls['zoom']}/v2",
            "ZOOM_TOKEN_URL": f"{self.urls['zoom']}/oauth/token",
            "ZOOM_ACCOUNT_ID": zoom["account_id"],
            "ZOOM_CLIENT_ID": zoom["client_id"],
            "ZOOM_CLIENT_SECRET": zoom["client_secret"],
            "ZOOM_HOST": zoom["host"],
            "JAAS_APP_ID": "vpaas-magic-cookie-example",
            "JAAS_KEY_ID": "example",
            "JAAS_PRIVATE_KEY": _rsa_key(),
            "TELEGRAM_URL": self.urls["telegram"],
            "TELEGRAM_BOT_TOKEN": given["telegram"]["bot_token"],
            "SMTP_URL": self.mail.url,
            "SMTP_SENDER": "shop@example.org",
        }


def _rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    ledger, faults = Ledger(), Faults(seed=7)
    names = ("swiss-bitcoin-pay", "lnbits", "zoom", "telegram")
    simulators = {name: load_simulator(name)(seed=7, ledger=ledger, faults=faults) for name in names}
    async with AsyncExitStack() as stack:
        urls = {name: (await stack.enter_async_context(Edge(one))).url for name, one in simulators.items()}
        mail = await stack.enter_async_context(SmtpSimulator(ledger=ledger, faults=faults))
        yield Vendors(simulators=simulators, mail=mail, urls=urls, ledger=ledger, faults=faults)


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where holdfast keeps what it knows; the app is the same on all of them."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return f"{postgres.url}?schema=s{uuid4().hex}"
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return f"{redis.store_url}&namespace={uuid4().hex}"
    return f"sqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
def example(vendors: Vendors, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's app, imported afresh: it reads the environment as it is imported."""
    for name, value in vendors.environment(tmp_path, store).items():
        monkeypatch.setenv(name, value)
    for name in ("CHF_BTC", "PAYMENTS_POLL", "SWEEP_EVERY", "WORKER_LEASE"):
        monkeypatch.delenv(name, raising=False)
    _forget()
    yield importlib.import_module(f"{EXAMPLE}.app")
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.startswith(EXAMPLE)]:
        del sys.modules[name]


@asynccontextmanager
async def opened(example: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    """The app, running, and a browser in front of it."""
    async with (
        example.app.router.lifespan_context(example.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(example.app), base_url="https://shop.example") as browser,
    ):
        yield browser


async def confirmations(example: ModuleType, browser: httpx.AsyncClient, vendors: Vendors, mischief: Mischief) -> int:
    """Deliver every webhook, wait until nothing is left to do, and count the rows in the shop's database."""

    async def post(url: str, headers: Headers, body: bytes) -> int:
        return (await browser.post(url, headers=list(headers), content=body)).status_code

    simulator = WebhookSimulator(list(vendors.simulators.values()), post, mischief=mischief, seed=7)
    sent = await simulator.deliver()
    assert all(one.accepted != one.manner.forged for one in sent)
    payment = await example.hub.payments.wait(BOOKING["reference"], timeout=60)
    assert payment.status is PaymentStatus.PAID
    async with asyncio.timeout(60):
        while await _busy(example.hub):
            await example.hub.store.jobs.wait(0.05)
    return await _count(example.shop)


async def _busy(hub: Holdfast) -> bool:
    """Whether a delivery or an event is still to be handled."""
    count = await hub.store.jobs.count()
    return any(count.get((queue, state)) for queue in QUEUES for state in (JobState.READY, JobState.LEASED))


async def _count(shop: ModuleType) -> int:
    async with shop.Session() as session:
        return int(await session.scalar(select(func.count()).select_from(shop.Confirmation)) or 0)


async def test_a_booking_is_paid_confirmed_once_and_told(example: ModuleType, vendors: Vendors) -> None:
    async with opened(example) as browser:
        offered = (await browser.post("/bookings", json=BOOKING)).json()
        assert offered["qr_svg"].startswith("<svg")
        vendors.simulators["swiss-bitcoin-pay"].pay(offered["checkout_url"])

        confirmed = await confirmations(example, browser, vendors, Mischief(duplicate=1, forge=1, lie=1))
        shown = (await browser.get("/bookings/consultation-4711")).json()

    assert confirmed == 1
    assert shown["status"] == "paid"
    vendors.ledger.exactly_once(charge(reference="consultation-4711"))
    assert len(vendors.ledger.entries(Kind.MEETING, vendor="zoom")) == 1
    [message] = vendors.ledger.entries(Kind.MESSAGE)
    assert (message.vendor, message.key) == ("telegram", "4711")


async def test_a_lost_answer_and_a_blocked_bot_cost_the_patient_nothing(example: ModuleType, vendors: Vendors) -> None:
    vendors.faults.on("swiss-bitcoin-pay", "payments.create").script(Reset())
    vendors.simulators["telegram"].block("4711")  # type: ignore[attr-defined]  # Telegram's own
    async with opened(example) as browser:
        offered = (await browser.post("/bookings", json=BOOKING)).json()
        assert offered["route"] == ["swiss-bitcoin-pay:unknown", "lnbits:offered"]
        vendors.simulators["lnbits"].pay(offered["bolt11"])

        confirmed = await confirmations(example, browser, vendors, Mischief(duplicate=1))

    assert confirmed == 1
    [mail] = vendors.mail.mails
    assert mail.recipients == ("ada@example.org",)


async def test_asking_again_shows_the_same_offer(example: ModuleType, vendors: Vendors) -> None:
    async with opened(example) as browser:
        first = (await browser.post("/bookings", json=BOOKING)).json()
        again = (await browser.post("/bookings", json=BOOKING)).json()

    assert again == first
    assert len(vendors.ledger.entries(Kind.OFFER)) == 1


async def test_an_error_is_told_in_words(example: ModuleType, vendors: Vendors) -> None:
    async with opened(example) as browser:
        await browser.post("/bookings", json=BOOKING)
        answer = await browser.post("/bookings", json=BOOKING | {"amount": "5.00"})

    assert answer.status_code == 409
    assert answer.json()["error"] == "ReferenceConflict"
