"""The LNbits provider against LNbits itself: what the simulator claims is true of the real one."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from holdfast.errors import CredentialRefused, Mismatch, Refused, Rejected
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.payments.client import Payments
from holdfast.payments.models import Anomaly, PaymentStatus
from holdfast.providers import LNbits
from holdfast.values import Money, Secret
from tests.providers.connection import connection, incoming, offer_request
from tests.providers.test_lnbits import attempt
from tests.servers.lnbits import LnbitsServer, Wallet

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


# Two wallets


async def balance(server: LnbitsServer, wallet: Wallet) -> int:
    """Millisatoshi, as the wallet's own key sees them."""
    key = {"X-Api-Key": wallet.inkey}
    async with httpx.AsyncClient(base_url=server.url, headers=key, trust_env=False, timeout=30) as client:
        return int((await client.get("/api/v1/wallet")).raise_for_status().json()["balance"])


async def test_one_wallet_pays_the_other_and_what_leaves_the_one_arrives_in_the_other(
    lnbits: LnbitsServer, transport: HttpxTransport
) -> None:
    # given
    provider, http = account(lnbits, transport)
    created = await provider.create(http, offer_request(PRICE, webhook_url=None))
    assert created.offer
    assert created.offer.bolt11
    wallets = (lnbits.merchant, lnbits.payer)
    before = [await balance(lnbits, wallet) for wallet in wallets]

    # when
    await lnbits.pay(created.offer.bolt11)

    # then
    after = [await balance(lnbits, wallet) for wallet in wallets]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2_100_000, -2_100_000]
    assert (await provider.fetch(http, created.vendor_id)).received == PRICE


async def test_a_wallet_neither_sees_nor_lists_what_another_is_owed_or_was_paid(
    lnbits: LnbitsServer, transport: HttpxTransport
) -> None:
    # given
    merchant, http = account(lnbits, transport)
    other, theirs = account(lnbits, transport, lnbits.payer.inkey)
    before, until = datetime.now(UTC), datetime.now(UTC) + timedelta(minutes=1)
    owed, paid = [
        await merchant.create(http, offer_request(PRICE, webhook_url=None, attempt_id=f"att-two-{number}"))
        for number in range(2)
    ]
    assert paid.offer
    assert paid.offer.bolt11

    # when
    await lnbits.pay(paid.offer.bolt11)

    # then
    with pytest.raises(Rejected) as refused:
        await other.fetch(theirs, owed.vendor_id)
    assert refused.value.status == 404
    with pytest.raises(Mismatch, match="another wallet's"):  # it has a payment of that hash: its own
        await other.fetch(theirs, paid.vendor_id)
    for number, ours in enumerate((owed, paid)):
        found = await merchant.find(http, attempt(f"att-two-{number}"))
        assert found
        assert found.vendor_id == ours.vendor_id
        assert await other.find(theirs, attempt(f"att-two-{number}")) is None
    assert paid.vendor_id in [each.vendor_id async for each in merchant.list_deliveries(http, before)]
    assert [each.vendor_id async for each in merchant.statement(http, before, until)] == [paid.vendor_id]
    assert [each async for each in other.list_deliveries(theirs, before)] == []
    assert [each async for each in other.statement(theirs, before, until)] == []


async def test_money_that_another_wallet_received_pays_nothing_of_ours(lnbits: LnbitsServer, tmp_path: Path) -> None:
    # given
    def opened(wallet: Wallet) -> Payments:
        key = Secret(wallet.inkey)
        return Payments([LNbits(base_url=lnbits.url, invoice_key=key)], store=f"sqlite:///{tmp_path}/shop.db")

    async with opened(lnbits.merchant) as payments:
        owed, paid = [await payments.create(f"two-wallets-{number}", PRICE) for number in range(2)]
    assert paid.offer
    assert paid.offer.bolt11

    # when
    await lnbits.pay(paid.offer.bolt11)
    async with opened(lnbits.payer) as payments:  # by mistake, the key of the wallet that pays
        mistaken = [await payments.refresh(one.reference) for one in (owed, paid)]
    async with opened(lnbits.merchant) as payments:
        corrected = [await payments.refresh(one.reference) for one in (owed, paid)]

    # then
    assert [one.status for one in mistaken] == [PaymentStatus.PENDING, PaymentStatus.PENDING]
    assert [one.anomalies for one in mistaken] == [frozenset(), frozenset({Anomaly.MISMATCH})]
    assert [one.status for one in corrected] == [PaymentStatus.PENDING, PaymentStatus.PAID]
    assert corrected[1].received == PRICE


async def test_two_wallets_of_one_server_are_two_providers_that_never_take_one_anothers_money(
    lnbits: LnbitsServer, tmp_path: Path
) -> None:
    # given
    wallets = {"first": lnbits.merchant, "second": lnbits.payer}
    accounts = [
        LNbits(base_url=lnbits.url, invoice_key=Secret(wallet.inkey), name=name) for name, wallet in wallets.items()
    ]
    async with Payments(accounts, store=f"sqlite:///{tmp_path}/shop.db") as payments:
        payment = await payments.create("of-the-first", PRICE)
        await payments.switch("first", on=False, actor="ada", reason="the other one's turn")
        other = await payments.create("of-the-second", PRICE)
        assert payment.offer
        assert other.offer

        # when
        for offer, wallet in ((payment.offer, lnbits.payer), (other.offer, lnbits.merchant)):
            await lnbits.pay(offer.bolt11 or "", wallet)
        paid = [await payments.refresh(one.reference) for one in (payment, other)]

    # then
    assert [(one.provider, one.status, one.received) for one in paid] == [
        ("first", PaymentStatus.PAID, PRICE),
        ("second", PaymentStatus.PAID, PRICE),
    ]
    assert [one.anomalies for one in paid] == [frozenset(), frozenset()]
