"""Canaries in every credential, failures of every kind: none sings in a log, a signal, an error or the file."""

import asyncio
import json
import logging
import pickle
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast import Holdfast, Money, Payer, PaymentPaid, Policy, Recipient, Retry, Secret, Secrets
from holdfast.errors import CallFailed, HoldfastError
from holdfast.http.tokens import TokenVendor
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport, Transport
from holdfast.http.vendor import HttpVendor
from holdfast.payments.provider import PaymentProvider
from holdfast.providers import (
    BTCPay,
    JaaS,
    LNbits,
    Lnd,
    MtnMomo,
    OpenNode,
    OrangeMoney,
    PayPal,
    Paystack,
    Smtp,
    Stripe,
    SwissBitcoinPay,
    Telegram,
    Zoom,
)
from holdfast.queue.inbox import Arrived
from holdfast.telemetry import Signal
from holdfast.testing.faults import Fault, Faults, Hang, Html, Refused, Reset, Status, Truncate
from holdfast.testing.simulators.btcpay import BTCPaySimulator
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.forgeries import Manner, dress
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.lnd import LndSimulator
from holdfast.testing.simulators.mtn_momo import MtnMomoSimulator
from holdfast.testing.simulators.opennode import OpenNodeSimulator
from holdfast.testing.simulators.orange_money import OrangeMoneySimulator
from holdfast.testing.simulators.paypal import PayPalSimulator
from holdfast.testing.simulators.paystack import PaystackSimulator
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator

CANARIES = {
    "hub": "canary/hub+secret=1 new",
    "hub, old": "canary/hub+secret=0 old",
    "sbp key": "canary/sbp+key=4b1d",
    "sbp hook": "canary/sbp+hook=77e0",
    "sbp hook, old": "canary/sbp+hook=66d9",
    "lnbits key": "canary/lnbits+key=91cc",
    "zoom client": "canary/zoom+client=c0de",
    "zoom hook": "canary/zoom+hook=aa31",
    "telegram token": "4711000002:AAcanary-telegram_token-0123456789",
    "telegram hook": "canary-telegram_hook-5150",
    "jaas hook": "canary/jaas+hook=9f9f",
    "smtp password": "canary/smtp+pässword=0ff1",
    "btcpay key": "canary/btcpay+key=b7c9",
    "btcpay hook": "canary/btcpay+hook=3e1a",
    "lnd macaroon": "0201036c6e64" + "cafe" * 20,
    "lnd preimage": "canary/lnd+preimage=key-of-at-least-thirty-two-characters",
    "momo subscription": "canary/momo+subscription=77aa",
    "momo key": "canary/momo+key=12fe",
    "opennode key": "canary/opennode+key=0de5",
    "orange secret": "canary/orange+secret=8b0b",
    "orange merchant": "canary/orange+merchant=c4f3",
    "paypal secret": "canary/paypal+secret=d1ce",
    "paypal hook": "canary-paypal-hook-9a7b",
    "paystack key": "sk_test_canary-paystack-key-5eed",
    "stripe key": "sk_test_canary-stripe-key-f00d",
    "stripe hook": "whsec_canary/stripe+hook=beef",
}
TOGETHER = list(CANARIES)[: list(CANARIES).index("smtp password") + 1]
"""Those of the hub that has one vendor of each kind; the others are tried one at a time."""
PUBLIC = "https://shop.example/webhooks"
ADA = Recipient(telegram="4711", email="ada@example.org")
START = datetime(2030, 5, 6, 9, tzinfo=UTC)

FORMS: Mapping[str, Callable[[str], str]] = {
    "exact": str,
    "urlencoded": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64url": lambda text: urlsafe_b64encode(text.encode()).decode(),
}


@cache
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


def heard(text: str | bytes, secrets: Mapping[str, str]) -> list[str]:
    """Which secrets the text tells, and in which form."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return [
        f"{name} ({form})"
        for name, secret in secrets.items()
        for form, write in FORMS.items()
        if write(secret).encode() in raw
    ]


def written(secret: str) -> str:
    """The secret in every form."""
    return " ".join(write(secret) for write in FORMS.values())


class Echo:
    """A vendor that answers with what it knows of us: `answer` of everything secret it was sent, and of its own."""

    def __init__(self, inner: InProcess, own: Sequence[str], status: int, kind: str) -> None:
        self.inner, self.own, self.status, self.kind = inner, own, status, kind

    async def send(self, request: HttpRequest) -> HttpResponse:
        if request.url.endswith(TOKEN_PATHS):
            return await self.inner.send(request)
        said = " ".join(map(written, [*self.own, *_credentials(request)]))
        if self.kind == "html":
            body = f"<html>{said}</html>"
        elif self.kind == "json":
            names = ("code", "message", "reason", "detail", "description", "error")
            body = "{" + ",".join(f'"{name}": "{said}"' for name in names) + "}"
        else:
            body = '{"id": {"' + said + '": 1}, "result": "' + said + '", "payment_hash": ["' + said + '"]}'
        headers = (("content-type", "application/json"), ("x-request-id", said), ("retry-after", said))
        return HttpResponse(status=self.status, headers=headers, content=body.encode())

    async def aclose(self) -> None:
        pass


def _credentials(request: HttpRequest) -> list[str]:
    return [
        part
        for name, value in request.headers
        if name in ("authorization", "api-key", "x-api-key", "grpc-metadata-macaroon", "ocp-apim-subscription-key")
        for part in value.split()
    ]


class Mail:
    """A mail server that asks for a password and answers `reply` with what it was told, or takes the message."""

    def __init__(self, refuse: str) -> None:
        self._refuse = refuse
        self.told: list[str] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        while line := await reader.readline():
            verb = line[:4].upper().decode()
            if verb == "AUTH":
                self.told += line.decode().split()[2:]
            if verb == self._refuse:
                words = [written(CANARIES["smtp password"]), *self.told]
                writer.write(f"5{'35' if verb == 'AUTH' else '50'} 5.7.8 {' '.join(words)}\r\n".encode())
                continue
            match verb:
                case "EHLO":
                    writer.write(b"250-mail.test\r\n250 AUTH PLAIN\r\n")
                case "AUTH":
                    writer.write(b"235 welcome\r\n")
                case "DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 taken\r\n")
                case "QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 OK\r\n")
        writer.close()


@dataclass
class Ear:
    """Everything that may be overheard."""

    records: list[logging.LogRecord] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    file: bytes = b""

    def everything(self) -> Iterator[tuple[str, str | bytes]]:
        formatter = logging.Formatter()
        for record in self.records:
            yield f"log {record.name}", formatter.format(record)
            yield f"extra of log {record.name}", repr(vars(record))
        for signal in self.signals:
            yield "signal", repr(signal)
        for error in self.errors:
            yield from _told_by(error)
        for text in self.shown:
            yield "repr", text
        yield "file", self.file


def _told_by(error: BaseException) -> Iterator[tuple[str, str | bytes]]:
    seen: BaseException | None = error
    while seen is not None:
        what = f"{type(error).__name__}: {type(seen).__name__}"
        yield what, " ".join([str(seen), repr(seen), repr(seen.args), repr(vars(seen))])
        yield f"note of {what}", repr(getattr(seen, "__notes__", ()))
        if isinstance(seen, HoldfastError):
            yield f"pickle of {what}", pickle.dumps(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


class _Listening(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    root, handler = logging.getLogger(), _Listening(ear.records)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield ear
    root.setLevel(level)
    root.removeHandler(handler)


@dataclass(kw_only=True)
class World:
    """Every vendor, the hub that knows them, and an ear at each door."""

    path: Path
    ear: Ear
    simulators: dict[str, Simulator]
    hub: Holdfast
    host_links: dict[str, str] = field(default_factory=dict)

    async def attempt(self, work: Any) -> Any:
        """What it returns; what it raises is overheard."""
        try:
            done = await work
        except Exception as error:
            self.ear.errors.append(error)
            return None
        self.ear.shown.append(repr(done))
        return done

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.hub.receiver), base_url="https://shop.example"
        ) as vendor:
            answer = await vendor.post(url.removeprefix(PUBLIC), headers=list(headers), content=body)
        self.ear.shown.append(answer.text)
        return answer.status_code

    async def business(self, number: int = 1) -> None:
        """All that a backend asks of a hub."""
        hub, reference = self.hub, f"order-{number}"
        await self.attempt(hub.payments.create(reference, Money("1.00", "CHF")))
        await self.attempt(hub.payments.refresh(reference))
        for name in ("one", "two"):
            await self.attempt(hub.meetings.create(f"{reference}-{name}", starts_at=START, duration=timedelta(hours=1)))
            link = await self.attempt(hub.meetings.host_url(f"{reference}-{name}"))
            if isinstance(link, Secret):
                self.host_links[f"host link {reference}-{name}"] = link.reveal()
        await self.attempt(hub.meetings.cancel(f"{reference}-two"))
        await self.attempt(hub.notifications.send("hello", to=ADA, key=reference))
        await self.attempt(
            hub.notifications.send("hello", to=Recipient(email="ada@example.org"), key=f"{reference}-mail")
        )

    async def webhooks(self) -> list[int]:
        """Each webhook rightly, wrongly signed, and unreadable; then what the handlers make of them."""
        statuses: list[int] = []
        for simulator in self.simulators.values():
            while simulator.outbox:
                webhook = simulator.outbox.popleft()
                broken = replace(webhook, body=b'{"half": ')
                for one, manner in ((webhook, Manner.WRONG_KEY), (broken, Manner.GENUINE), (webhook, Manner.GENUINE)):
                    statuses.append(await self.post(*dress(simulator, one, manner, simulator.clock.now())))
        await self.attempt(self.hub.settle())
        return statuses

    @property
    def secrets(self) -> dict[str, str]:
        """All that must not be told; tokens and links of the host are secrets as soon as a vendor made them."""
        lines = [line for line in private_key().splitlines() if not line.startswith("-")]
        zoom = self.simulators["zoom"]
        assert isinstance(zoom, ZoomSimulator)
        zaks = {f"zak {name}": link.rpartition("zak=")[2] for name, link in self.host_links.items() if "zak=" in link}
        return (
            CANARIES
            | {"jaas key": private_key(), "jaas key, a line": lines[0], "jaas key, another": lines[7]}
            | ({"zoom token": zoom._token} if zoom._token else {})
            | zaks
            | self.host_links
        )

    def listen(self) -> None:
        """What the hub shows of itself, and what rests on the disk."""
        hub = self.hub
        families = (hub.payments, hub.meetings, hub.notifications)
        for thing in (hub, hub._runtime, hub.receiver, hub.store, *families):
            self.ear.shown += [repr(thing), str(thing), f"{thing}"]
        for family in families:
            for provider in family.providers.values():
                self.ear.shown += [repr(provider), str(provider), repr(vars(provider))]
        self.listen_to_the_file()

    def listen_to_the_file(self) -> None:
        """What rests on the disk."""
        self.ear.file += b"".join(path.read_bytes() for path in sorted(self.path.glob("holdfast.db*")))

    def assert_silent(self) -> None:
        secrets = self.secrets
        told = {(where, what) for where, text in self.ear.everything() for what in heard(text, secrets)}
        assert sorted(told) == []


@asynccontextmanager
async def opened(
    path: Path,
    ear: Ear,
    *,
    transport: Callable[[World, HttpVendor], Any] | None = None,
    urls: Mapping[str, str] | None = None,
    simulators: dict[str, Simulator] | None = None,
    mail_port: int = 1,
) -> AsyncIterator[World]:
    """The hub, open; over the simulators in process unless it is told another way."""
    vendors = simulators or make_simulators()
    at = urls or dict.fromkeys(vendors, "http://127.0.0.1:1")

    def dial(vendor: HttpVendor) -> Any:
        return transport(world, vendor) if transport else InProcess(vendors[vendor.name])

    quick = Policy(retry=Retry(attempts=2, base=0.001, throttled_base=0.001), timeout=2)
    hub = Holdfast(
        store=f"sqlite:///{path}/holdfast.db",
        secret=Secrets(CANARIES["hub"], CANARIES["hub, old"]),
        public_url=PUBLIC,
        payments=[
            SwissBitcoinPay(
                api_key=Secret(CANARIES["sbp key"]),
                webhook_secret=Secrets(CANARIES["sbp hook"], CANARIES["sbp hook, old"]),
                base_url=at["swiss-bitcoin-pay"],
            ),
            LNbits(invoice_key=Secret(CANARIES["lnbits key"]), base_url=at["lnbits"]),
        ],
        meetings=[
            Zoom(
                account_id=ZoomSimulator.account_id,
                client_id=ZoomSimulator.client_id,
                client_secret=Secret(CANARIES["zoom client"]),
                webhook_secret=Secrets(CANARIES["zoom hook"]),
                host="host@example.org",
                base_url=f"{at['zoom']}/v2",
                token_url=f"{at['zoom']}/oauth/token",
            ),
            JaaS(
                app_id="app",
                key_id="key",
                private_key=Secret(private_key()),
                webhook_secret=Secrets(CANARIES["jaas hook"]),
            ),
        ],
        notifications=[
            Telegram(
                token=Secret(CANARIES["telegram token"]),
                webhook_secret=Secrets(CANARIES["telegram hook"]),
                base_url=at["telegram"],
            ),
            Smtp(
                host="127.0.0.1",
                port=mail_port,
                username="shop",
                password=Secret(CANARIES["smtp password"]),
                sender="shop@example.org",
            ),
        ],
        policies=dict.fromkeys((*vendors, "smtp"), quick),
        transport=dial if urls is None else None,
    )
    hub._runtime.telemetry.add(ear.signals.append)
    world = World(path=path, ear=ear, simulators=vendors, hub=hub)

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(event: PaymentPaid) -> None:
        _tell_all()

    @hub.on_delivery("telegram")
    async def read(delivery: Arrived) -> None:
        _tell_all()

    async with hub:
        yield world
        world.listen()
    world.listen()


def _tell_all(*secrets: str) -> None:
    """What a handler must not do, and does: of a hub with all of them, all."""
    told = " ".join(map(written, secrets or (*(CANARIES[name] for name in TOGETHER), private_key())))
    try:
        raise LookupError(told)
    except LookupError as error:
        failure = RuntimeError(f"could not log in with {told}")
        failure.add_note(told)
        raise failure from error


def make_simulators() -> dict[str, Simulator]:
    """The four, with our credentials, owing webhooks."""
    faults = Faults()
    zoom = ZoomSimulator(faults=faults, webhook_secret=CANARIES["zoom hook"], webhook_url=f"{PUBLIC}/zoom", seed=1)
    zoom.client_secret = CANARIES["zoom client"]  # type: ignore[misc]  # this account's own
    telegram = TelegramSimulator(
        faults=faults, webhook_secret=CANARIES["telegram hook"], webhook_url=f"{PUBLIC}/telegram"
    )
    telegram.bot_token = CANARIES["telegram token"]  # type: ignore[misc]  # this account's own
    sbp = SwissBitcoinPaySimulator(faults=faults, api_key=CANARIES["sbp key"], webhook_secret=CANARIES["sbp hook"])
    lnbits = LNbitsSimulator(faults=faults, invoice_key=CANARIES["lnbits key"])
    return {one.vendor: one for one in (sbp, lnbits, zoom, telegram)}


async def test_a_good_day_tells_nothing(tmp_path: Path, ear: Ear) -> None:
    async with Mail("") as port, opened(tmp_path, ear, mail_port=port) as world:
        sbp, zoom, telegram = (world.simulators[name] for name in ("swiss-bitcoin-pay", "zoom", "telegram"))
        await world.business()
        assert world.ear.errors == []
        offer = (await world.hub.payments.get("order-1")).offer
        assert offer is not None
        sbp.pay(offer.checkout_url or "")
        assert isinstance(telegram, TelegramSimulator)
        telegram.write("4711", "hello bot")
        assert isinstance(zoom, ZoomSimulator)
        zoom.validate_url()
        statuses = await world.webhooks()
        jobs = await world.hub.store.jobs.list(limit=1000)
        world.ear.shown += [repr(job) for job in jobs]

    assert set(statuses) == {200, 401}
    assert sum("RuntimeError: could not log in with ***" in job.error for job in jobs) == 3
    assert len(world.host_links) == 2
    world.assert_silent()


FAULTS: Mapping[str, Fault] = {
    "401": Status(401),
    "404": Status(404),
    "429": Status(429),
    "500": Status(500),
    "503": Status(503),
    "reset": Reset(),
    "refused": Refused(seconds=0.0),
    "hang": Hang(seconds=0.0),
    "truncated": Truncate(),
    "html": Html(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_no_failure_of_a_vendor_tells_a_secret(tmp_path: Path, ear: Ear, fault: Fault) -> None:
    simulators = make_simulators()
    for name in simulators:
        simulators[name].faults.on(name).always(fault)

    async with opened(tmp_path, ear, simulators=simulators) as world:
        await world.business()

    assert any(isinstance(error, CallFailed) for error in ear.errors) or any(ear.signals)
    world.assert_silent()


OWN = {
    "swiss-bitcoin-pay": ("sbp key", "sbp hook", "sbp hook, old"),
    "lnbits": ("lnbits key",),
    "zoom": ("zoom client", "zoom hook"),
    "telegram": ("telegram token", "telegram hook"),
}


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "json"), (400, "json"), (503, "html"), (200, "misfit"), (200, "html")]
)
async def test_a_vendor_that_quotes_our_secrets_is_not_quoted(tmp_path: Path, ear: Ear, status: int, kind: str) -> None:
    def echo(world: World, vendor: HttpVendor) -> Echo:
        own = [CANARIES[name] for name in OWN[vendor.name]]
        return Echo(InProcess(world.simulators[vendor.name]), own, status, kind)

    async with opened(tmp_path, ear, transport=echo) as world:
        await world.business()

    assert sum(isinstance(error, HoldfastError) for error in ear.errors) >= 1
    world.assert_silent()


@pytest.mark.parametrize("refuse", ["AUTH", "RCPT", "MAIL"])
async def test_a_mail_server_that_quotes_the_password_is_not_quoted(tmp_path: Path, ear: Ear, refuse: str) -> None:
    mail = Mail(refuse)
    async with mail as port, opened(tmp_path, ear, mail_port=port) as world:
        await world.business()
        secrets = {f"login {number}": told for number, told in enumerate(mail.told)}

    assert secrets
    assert b"canary/smtp" in b64decode(mail.told[0])
    world.assert_silent()
    assert [what for _, text in ear.everything() for what in heard(text, secrets)] == []


async def test_over_real_sockets_no_logger_of_any_library_tells_a_secret(tmp_path: Path, ear: Ear) -> None:
    simulators = make_simulators()
    async with AsyncExitStack() as stack:
        urls = {name: (await stack.enter_async_context(Edge(one))).url for name, one in simulators.items()}
        port = await stack.enter_async_context(Mail(""))
        async with opened(tmp_path, ear, simulators=simulators, urls=urls, mail_port=port) as world:
            await world.business(1)
            for name in simulators:
                simulators[name].faults.on(name).script(*[None] * 3, Status(401), Reset(), Html(), Truncate())
            for number in range(2, 4):
                await world.business(number)

    assert {record.name.partition(".")[0] for record in ear.records} >= {"holdfast", "httpcore"}
    world.assert_silent()


async def test_what_cannot_be_written_as_http_is_not_quoted(tmp_path: Path, ear: Ear) -> None:
    vendor = LNbits(invoice_key=Secret(f"{CANARIES['lnbits key']}\r\n"), base_url="http://127.0.0.1:1")
    hub = Holdfast(
        store=f"sqlite:///{tmp_path}/holdfast.db",
        secret=Secrets(CANARIES["hub"]),
        payments=[vendor],
        transport=lambda _: HttpxTransport(),
    )
    async with hub:
        with pytest.raises(HoldfastError) as caught:
            await hub.payments.create("order-1", Money.from_sat(1000))
    ear.errors.append(caught.value)

    assert [what for _, text in ear.everything() for what in heard(text, CANARIES)] == []


async def test_only_the_guests_link_is_on_the_disk(tmp_path: Path, ear: Ear) -> None:
    simulators = make_simulators()
    simulators["zoom"].faults.on("zoom").always(Refused(seconds=0.0))

    async with opened(tmp_path, ear, simulators=simulators) as world:
        meeting = await world.hub.meetings.create("booking-1", starts_at=START, duration=timedelta(hours=1))
        host = (await world.hub.meetings.host_url("booking-1")).reveal()

    guest = meeting.join_url.rpartition("jwt=")[2]
    assert meeting.provider == "jaas"
    assert guest.encode() in ear.file
    assert _moderates(host.rpartition("jwt=")[2])
    assert not _moderates(guest)
    assert host.rpartition("jwt=")[2].encode() not in ear.file
    logged = [logging.Formatter().format(record) for record in ear.records]
    assert not any(link in line for line in logged for link in (guest, unquote(host)))


def _moderates(token: str) -> bool:
    claims: Any = jwt.decode(token, options={"verify_signature": False})
    return bool(claims["context"]["user"]["moderator"] == "true")


# The other payment vendors, one at a time

TOKEN_PATHS = ("/oauth/token", "/v1/oauth2/token", "/collection/token/", "/oauth/v3/token")
PAYER = Payer(email="ada@example.org", msisdn="224660000000")
PAID_IN_KIND: Mapping[str, Money] = {
    "lnd": Money.from_sat(21_000),
    "mtn-momo": Money(12_000, "GNF"),
    "orange-money": Money(12_000, "GNF"),
    "paystack": Money("120.00", "GHS"),
}
"""What is due, where francs are not taken."""


def till(name: str) -> tuple[Simulator, PaymentProvider]:
    """A payment vendor that has our canaries for credentials, and the provider that signs in with them."""
    here, ours = "http://127.0.0.1:1", CANARIES
    door = f"{PUBLIC}/{name}"
    match name:
        case "btcpay":
            btcpay = BTCPaySimulator(
                api_key=ours["btcpay key"], webhook_secret=ours["btcpay hook"], webhook_url=door, store_id="store"
            )
            return btcpay, BTCPay(
                base_url=here,
                store_id="store",
                api_key=Secret(ours["btcpay key"]),
                webhook_secret=Secrets(ours["btcpay hook"]),
            )
        case "lnd":
            lnd = LndSimulator(macaroon=ours["lnd macaroon"])
            return lnd, Lnd(
                base_url=here,
                macaroon=Secret(ours["lnd macaroon"]),
                preimage_key=Secrets(ours["lnd preimage"]),
                network=lnd.network,
            )
        case "mtn-momo":
            momo = MtnMomoSimulator(
                environment="mtnguineaconakry",
                currency="GNF",
                subscription_key=ours["momo subscription"],
                api_key=ours["momo key"],
            )
            return momo, MtnMomo(
                base_url=here,
                environment=momo.environment,
                subscription_key=Secret(ours["momo subscription"]),
                api_user=momo.api_user,
                api_key=Secret(ours["momo key"]),
            )
        case "opennode":
            opennode = OpenNodeSimulator(api_key=ours["opennode key"])
            return opennode, OpenNode(base_url=f"{here}/v1", api_key=Secrets(ours["opennode key"]))
        case "orange-money":
            orange = OrangeMoneySimulator(
                country="gn",
                currency="GNF",
                client_secret=ours["orange secret"],
                merchant_key=ours["orange merchant"],
            )
            return orange, OrangeMoney(
                base_url=here,
                country="gn",
                client_id=orange.client_id,
                client_secret=Secret(ours["orange secret"]),
                merchant_key=Secret(ours["orange merchant"]),
            )
        case "paypal":
            paypal = PayPalSimulator(webhook_secret=ours["paypal hook"], webhook_url=door)
            paypal.client_secret = ours["paypal secret"]  # type: ignore[misc]  # this account's own
            return paypal, PayPal(
                base_url=here,
                client_id=paypal.client_id,
                client_secret=Secret(ours["paypal secret"]),
                webhook_id=Secrets(ours["paypal hook"]),
            )
        case "paystack":
            paystack = PaystackSimulator(api_key=ours["paystack key"], webhook_url=door)
            return paystack, Paystack(base_url=here, api_key=Secrets(ours["paystack key"]))
        case _:
            stripe = StripeSimulator(api_key=ours["stripe key"], webhook_secret=ours["stripe hook"], webhook_url=door)
            return stripe, Stripe(
                base_url=here, api_key=Secret(ours["stripe key"]), webhook_secret=Secrets(ours["stripe hook"])
            )


TILLS: Mapping[str, tuple[str, ...]] = {
    "btcpay": ("btcpay key", "btcpay hook"),
    "lnd": ("lnd macaroon", "lnd preimage"),
    "mtn-momo": ("momo subscription", "momo key"),
    "opennode": ("opennode key",),
    "orange-money": ("orange secret", "orange merchant"),
    "paypal": ("paypal secret", "paypal hook"),
    "paystack": ("paystack key",),
    "stripe": ("stripe key", "stripe hook"),
}
"""Each vendor, and what it knows of us."""


class Bearing:
    """A transport that overhears the tokens a vendor gives out: they are as secret as what they are given for."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.tokens: dict[str, str] = {}

    async def send(self, request: HttpRequest) -> HttpResponse:
        response = await self.inner.send(request)
        if request.url.endswith(TOKEN_PATHS) and response.status == 200:
            with suppress(ValueError):
                self.tokens[f"token {len(self.tokens)}"] = json.loads(response.content)["access_token"]
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


async def trade(name: str, path: Path, ear: Ear, *, spoil: Callable[[Simulator, Transport], Transport]) -> None:
    """A whole day with one vendor, whatever of it fails: all that was to be heard is in `ear`, and none a secret."""
    vendor, provider = till(name)
    bearing = Bearing(spoil(vendor, InProcess(vendor)))
    hub = Holdfast(
        store=f"sqlite:///{path}/holdfast.db",
        secret=Secrets(CANARIES["hub"]),
        public_url=PUBLIC,
        payments=[provider],
        policies={name: Policy(retry=Retry(attempts=2, base=0.001, throttled_base=0.001), timeout=2)},
        transport=lambda _: bearing,
    )
    hub._runtime.telemetry.add(ear.signals.append)

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(event: PaymentPaid) -> None:
        _tell_all(CANARIES["hub"], *(CANARIES[secret] for secret in TILLS[name]))

    async with hub:
        world = World(path=path, ear=ear, simulators={name: vendor}, hub=hub)
        payments, due = hub.payments, PAID_IN_KIND.get(name, Money("120.00", "CHF"))
        wishes: Any = {"payer": PAYER, "return_url": "https://shop.example/thanks"}
        await world.attempt(payments.create("order-1", due, **wishes))
        payment = await world.attempt(payments.get("order-1"))
        if payment and payment.offer:
            offer = payment.offer
            with suppress(LookupError):  # nothing was made, whatever the answer said
                vendor.pay(offer.checkout_url or offer.bolt11 or payment.attempts[-1].vendor_id)
        await world.webhooks()
        await world.attempt(payments.refresh("order-1"))
        await world.attempt(payments.refund("order-1", key="refund-1"))
        await world.attempt(payments.create("order-2", due, **wishes))
        await world.attempt(payments.cancel("order-2"))
        await world.attempt(hub.settle())
        ear.shown += [repr(job) for job in await hub.store.jobs.list(limit=1000)]
        ear.shown += [repr(provider), str(provider), repr(vars(provider)), repr(hub), repr(payments)]
    world.listen_to_the_file()
    secrets = CANARIES | bearing.tokens
    told = {(where, what) for where, text in ear.everything() for what in heard(text, secrets)}
    assert sorted(told) == []
    assert bool(bearing.tokens) >= (isinstance(provider, TokenVendor) and not ear.errors)


@pytest.mark.parametrize("name", TILLS)
async def test_a_good_day_with_a_payment_vendor_tells_nothing(tmp_path: Path, ear: Ear, name: str) -> None:
    await trade(name, tmp_path, ear, spoil=lambda _, wire: wire)

    assert any("could not log in with ***" in text for text in ear.shown)
    assert not any(isinstance(error, CallFailed) for error in ear.errors)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("name", TILLS)
async def test_no_failure_of_a_payment_vendor_tells_a_secret(tmp_path: Path, ear: Ear, name: str, fault: Fault) -> None:
    def spoil(vendor: Simulator, wire: Transport) -> Transport:
        vendor.faults.on(name).always(fault)
        return wire

    await trade(name, tmp_path, ear, spoil=spoil)

    assert any(isinstance(error, CallFailed) for error in ear.errors)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "json"), (400, "json"), (503, "html"), (200, "misfit"), (200, "html")]
)
@pytest.mark.parametrize("name", TILLS)
async def test_a_payment_vendor_that_quotes_our_secrets_is_not_quoted(
    tmp_path: Path, ear: Ear, name: str, status: int, kind: str
) -> None:
    own = [CANARIES[secret] for secret in TILLS[name]]

    await trade(name, tmp_path, ear, spoil=lambda vendor, _: Echo(InProcess(vendor), own, status, kind))

    assert any(isinstance(error, HoldfastError) for error in ear.errors)
