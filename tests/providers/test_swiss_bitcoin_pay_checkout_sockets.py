"""Swiss Bitcoin Pay's serverless checkout over sockets: the package opens its own WebSockets, we make its requests."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import Server, ServerConnection, serve

from holdfast import Holdfast, Money, Secrets
from holdfast.http.transports import HttpxTransport, OpensWebSockets
from holdfast.payments.models import PaymentStatus
from holdfast.providers import SwissBitcoinPayCheckout
from holdfast.testing.httpx_transport import FakeAsyncTransport
from holdfast.testing.intents import charge
from holdfast.testing.simulators.simulator import Request
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout import SwissBitcoinPayCheckoutSimulator
from holdfast.values import Secret

HOSTS = ("relay-one.test", "relay-two.test")


@asynccontextmanager
async def relays(identity: ssl.SSLContext) -> AsyncIterator[tuple[SwissBitcoinPayCheckoutSimulator, list[str]]]:
    """The simulator's relays on one port of this machine, and the user agents that came."""
    vendors: list[SwissBitcoinPayCheckoutSimulator] = []
    agents: list[str] = []

    async def talk(connection: ServerConnection) -> None:
        assert connection.request
        agents.append(connection.request.headers["User-Agent"])
        async for message in connection:
            told = message.encode() if isinstance(message, str) else message
            host = (("host", connection.request.headers["Host"]),)
            asked = Request(method=json.loads(told)[0], target="/", headers=host, body=told)
            response = vendors[0].exchange(asked).response
            assert response
            for answer in json.loads(response.body):
                await connection.send(json.dumps(answer))

    server: Server
    async with serve(talk, "127.0.0.1", 0, ssl=identity) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        vendors.append(SwissBitcoinPayCheckoutSimulator(relays=[f"{host}:{port}" for host in HOSTS]))
        yield vendors[0], agents


def identity(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of the relays, and what serves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relays")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "relays.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


def stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is this machine's."""
    loop = asyncio.get_running_loop()

    async def here(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", here)


async def test_an_offer_is_made_paid_and_seen_over_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    file, context = identity(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    stay_here(monkeypatch)
    async with relays(context) as (vendor, agents):
        transport = HttpxTransport(FakeAsyncTransport(lambda _: vendor))
        assert not isinstance(transport, OpensWebSockets)
        hub = Holdfast(
            store=f"sqlite:///{tmp_path / 'shop.db'}",
            secret=Secrets("a secret of the shop, long enough"),
            payments=[SwissBitcoinPayCheckout(key=Secret(vendor.key))],
            transport=lambda _: transport,
        )

        # when
        async with hub:
            payment = await hub.payments.create("order-1", Money.from_sat(500))
            assert payment.offer
            vendor.pay(payment.offer.payload)
            paid = await hub.payments.refresh("order-1")

    # then
    assert paid.status is PaymentStatus.PAID
    vendor.ledger.exactly_once(charge(reference="order-1"))
    assert set(agents) == {"SwissBitcoinPay-Checkout/1"}
    gets = [request for request in vendor.requests if request.method == "GET"]
    assert {request.header("user-agent") for request in gets} == {"SwissBitcoinPay-Checkout/1"}
    assert vendor.key not in "".join(
        f"{request.target}{request.headers}{request.body!r}" for request in vendor.requests
    )
