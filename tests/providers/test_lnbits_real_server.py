"""The LNbits provider against LNbits itself: what the simulator claims is true of the real one."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.errors import CredentialRefused, Refused, Rejected
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.payments.models import PaymentStatus
from holdfast.providers import LNbits
from holdfast.values import Money, Secret
from tests.providers.connection import connection, incoming, offer_request
from tests.providers.test_lnbits import attempt
from tests.servers.lnbits import LnbitsServer

pytestmark = pytest.mark.xdist_group("lnbits")
PRICE = Money.from_sat(2100)


@pytest.fixture
async def transport() -> AsyncGenerator[HttpxTransport]:
    transport = HttpxTransport()
    yield transport
    await transport.aclose()


def account(server: LnbitsServer, transport: HttpxTransport, key: str = "") -> tuple[LNbits, Http]:
    provider = LNbits(base_url=server.url, invoice_key=Secret(key or server.merchant.inkey))
    return provider, connection(provider, transport)


class Hook:
    """Takes every body and answers 200."""

    def __init__(self) -> None:
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in head if line.startswith("content-length"))
        await self.bodies.put(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()


async def test_an_invoice_is_created_found_paid_proven_and_told_of_twice(
    lnbits: LnbitsServer, transport: HttpxTransport
) -> None:
    # given
    provider, http = account(lnbits, transport)
    hook = Hook()
    listening = await asyncio.start_server(hook, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/hook"
    expires_at = datetime.now(UTC) + timedelta(minutes=15)
    request = offer_request(PRICE, webhook_url=url, expires_at=expires_at, attempt_id="att-real")

    # when
    created = await provider.create(http, request)
    found = await provider.find(http, attempt("att-real"))
    before = await provider.fetch(http, created.vendor_id)
    assert created.offer
    assert created.offer.bolt11
    await lnbits.pay(created.offer.bolt11)
    async with asyncio.timeout(20):
        bodies = [await hook.bodies.get() for _ in range(2)]
    listening.close()
    await listening.wait_closed()
    after = await provider.fetch(http, created.vendor_id)

    # then
    assert found
    assert found.vendor_id == created.vendor_id
    assert (before.status, before.price, before.attempt_id) == (PaymentStatus.PENDING, PRICE, "att-real")
    assert before.offer
    assert before.offer.expires_at
    assert abs(before.offer.expires_at - expires_at) < timedelta(seconds=10)
    assert (after.status, after.received) == (PaymentStatus.PAID, PRICE)
    [first], [second] = (provider.parse(incoming(body)) for body in bodies)
    assert (first.vendor_id, first.reference) == (created.vendor_id, "consultation-4711")
    assert first.dedup_key == second.dedup_key
    assert bodies[0].startswith(b'"{')


async def test_a_stranger_is_told_nothing(lnbits: LnbitsServer, transport: HttpxTransport) -> None:
    # given
    provider, http = account(lnbits, transport)
    created = await provider.create(http, offer_request(PRICE, webhook_url=None))
    stranger, theirs = account(lnbits, transport, "0" * 32)

    # then
    with pytest.raises(CredentialRefused):
        await stranger.create(theirs, offer_request(PRICE, webhook_url=None))
    with pytest.raises(CredentialRefused):
        await stranger.find(theirs, attempt())
    with pytest.raises(CredentialRefused):
        await stranger.fetch(theirs, created.vendor_id)


async def test_what_it_does_not_have_or_will_not_take_is_said(lnbits: LnbitsServer, transport: HttpxTransport) -> None:
    provider, http = account(lnbits, transport)
    with pytest.raises(Rejected) as caught:
        await provider.fetch(http, "0" * 64)
    assert caught.value.status == 404
    with pytest.raises(Rejected, match="Callback URL"):
        await provider.create(http, offer_request(PRICE, webhook_url="https://not-allowed.example.ch/hook"))
    with pytest.raises(Refused, match="no rate"):  # its sources are out of reach here
        await provider.quote(http, Money(120, "CHF"), at=datetime.now(UTC))


async def test_what_was_paid_is_listed_under_the_key_of_its_webhook(
    lnbits: LnbitsServer, transport: HttpxTransport
) -> None:
    # given
    provider, http = account(lnbits, transport)
    hook = Hook()
    listening = await asyncio.start_server(hook, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/hook"
    before = datetime.now(UTC)
    paid, _open = [await provider.create(http, offer_request(PRICE, webhook_url=url)) for _ in range(2)]
    assert paid.offer
    assert paid.offer.bolt11
    await lnbits.pay(paid.offer.bolt11)
    async with asyncio.timeout(20):
        body = await hook.bodies.get()
    listening.close()
    await listening.wait_closed()

    # when
    found = [delivery async for delivery in provider.list_deliveries(http, before)]
    later = [delivery async for delivery in provider.list_deliveries(http, datetime.now(UTC) + timedelta(minutes=1))]

    # then
    [told] = provider.parse(incoming(body))
    assert [(each.dedup_key, each.digest) for each in found] == [(told.dedup_key, told.digest)]
    assert later == []
