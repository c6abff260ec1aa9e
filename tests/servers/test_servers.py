"""The servers the other tests trust do what they promise."""

import asyncio
import json
import smtplib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.lnbits import LnbitsServer
from tests.servers.ports import LOOPBACK
from tests.servers.smtp import SmtpServer

on_lnbits = pytest.mark.xdist_group("lnbits")


@dataclass(kw_only=True)
class Receiver:
    """What arrived over plain sockets: the head as sent, and the body."""

    url: str
    requests: asyncio.Queue[tuple[list[str], bytes]] = field(default_factory=asyncio.Queue[tuple[list[str], bytes]])


@asynccontextmanager
async def webhook_receiver() -> AsyncGenerator[Receiver]:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
        length = next(int(line.partition(":")[2]) for line in head if line.lower().startswith("content-length:"))
        receiver.requests.put_nowait((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, LOOPBACK, 0) as server:
        host, port = server.sockets[0].getsockname()
        receiver = Receiver(url=f"http://{host}:{port}/hooks/lnbits")
        yield receiver


@asynccontextmanager
async def merchant_of(lnbits: LnbitsServer) -> AsyncGenerator[httpx.AsyncClient]:
    headers = {"X-Api-Key": lnbits.merchant.inkey}
    async with httpx.AsyncClient(base_url=lnbits.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


async def create_invoice(merchant: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    answer = await merchant.post("/api/v1/payments", json={"out": False, "amount": 21, "memo": "coffee"} | fields)
    invoice: dict[str, Any] = answer.raise_for_status().json()
    return invoice


@on_lnbits
async def test_lnbits_sends_the_same_webhook_twice_as_json_inside_a_json_string(lnbits: LnbitsServer) -> None:
    async with asyncio.timeout(30), merchant_of(lnbits) as merchant, webhook_receiver() as receiver:
        invoice = await create_invoice(merchant, webhook=receiver.url, external_id="order-1")

        await lnbits.pay(invoice["bolt11"])
        head, body = await receiver.requests.get()
        again = await receiver.requests.get()

    assert again == (head, body)
    assert head == [
        "POST /hooks/lnbits HTTP/1.1",
        f"Host: {httpx.URL(receiver.url).netloc.decode()}",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: LNbits/1.6.2",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
    ]
    assert body.startswith(rb'"{\"checking_id\": \"' + invoice["payment_hash"].encode() + rb"\", ")
    payment = json.loads(json.loads(body))
    assert payment["status"] == "success"
    assert payment["amount"] == 21_000
    assert payment["external_id"] == "order-1"
    assert payment["webhook_status"] is None


@on_lnbits
async def test_lnbits_settles_an_invoice_that_the_payer_pays(lnbits: LnbitsServer) -> None:
    async with merchant_of(lnbits) as merchant:
        invoice = await create_invoice(merchant)

        await lnbits.pay(invoice["bolt11"])

        payment = (await merchant.get(f"/api/v1/payments/{invoice['payment_hash']}")).json()
    assert invoice["status"] == "pending"
    assert payment["paid"] is True
    assert payment["details"]["status"] == "success"
    assert sha256(bytes.fromhex(payment["preimage"])).hexdigest() == invoice["payment_hash"]


@on_lnbits
async def test_lnbits_refuses_to_pay_twice_with_520(lnbits: LnbitsServer) -> None:
    async with merchant_of(lnbits) as merchant:
        invoice = await create_invoice(merchant)
    await lnbits.pay(invoice["bolt11"])

    with pytest.raises(httpx.HTTPStatusError) as refused:
        await lnbits.pay(invoice["bolt11"])

    assert refused.value.response.status_code == 520
    assert refused.value.response.json() == {"detail": "Internal invoice already paid.", "status": "failed"}


@on_lnbits
async def test_lnbits_writes_the_expiry_of_a_new_invoice_in_its_own_local_time(lnbits: LnbitsServer) -> None:
    async with merchant_of(lnbits) as merchant:
        invoice = await create_invoice(merchant, expiry=600)
        read_back = (await merchant.get(f"/api/v1/payments/{invoice['payment_hash']}")).json()["details"]

    local, utc = datetime.fromisoformat(invoice["expiry"]), datetime.fromisoformat(read_back["expiry"])
    assert local.tzinfo is None
    assert utc.utcoffset() == timedelta(0)
    assert local.replace(tzinfo=UTC) - utc == timedelta(hours=1)


@on_lnbits
async def test_an_lnbits_that_stopped_comes_back_with_its_wallets(tmp_path: Path) -> None:
    with LnbitsServer(tmp_path) as lnbits:
        async with merchant_of(lnbits) as merchant:
            paid, pending = await create_invoice(merchant), await create_invoice(merchant)
            await lnbits.pay(paid["bolt11"])

            lnbits.stop()
            with pytest.raises(httpx.ConnectError):
                await merchant.get("/api/v1/wallet")
            lnbits.start()

            wallet = await merchant.get("/api/v1/wallet")
            forgotten = await merchant.get(f"/api/v1/payments/{pending['payment_hash']}")

    assert wallet.json() == {"name": "merchant", "balance": 21_000}
    assert forgotten.json()["details"]["status"] == "failed"


def mail_to(*recipients: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = (
        "shop@holdfast.test",
        ", ".join(recipients),
        "Your rendez-vous ☕",
    )
    message["Message-ID"] = "<notification-1@holdfast.test>"
    message.set_content(".a dot first\nà bientôt\n")
    return message


def connected_to(smtp: SmtpServer) -> smtplib.SMTP:
    return smtplib.SMTP(smtp.host, smtp.port, timeout=30)


def test_smtp_keeps_a_message_as_it_was_written(smtp: SmtpServer) -> None:
    with connected_to(smtp) as client:
        client.send_message(mail_to("ada@example.com"))

    (received,) = smtp.messages
    assert (received.sender, received.recipients) == ("shop@holdfast.test", ("ada@example.com",))
    assert received.message["Subject"] == "Your rendez-vous ☕"
    assert received.message["Message-ID"] == "<notification-1@holdfast.test>"
    assert received.message.get_content().splitlines() == [".a dot first", "à bientôt"]


def test_smtp_delivers_to_the_recipients_it_does_not_refuse(smtp: SmtpServer) -> None:
    smtp.refuse["gone@example.com"] = "550 5.1.1 no such user"

    with connected_to(smtp) as client:
        refused = client.send_message(mail_to("ada@example.com", "gone@example.com"))

    assert refused == {"gone@example.com": (550, b"5.1.1 no such user")}
    assert [received.recipients for received in smtp.messages] == [("ada@example.com",)]


def test_smtp_keeps_nothing_when_every_recipient_is_refused() -> None:
    with (
        SmtpServer(refuse={"gone@example.com": "550 5.1.1 no such user"}) as smtp,
        connected_to(smtp) as client,
        pytest.raises(smtplib.SMTPRecipientsRefused),
    ):
        client.send_message(mail_to("gone@example.com"))

    assert smtp.messages == ()


def test_smtp_greylists_a_recipient_once(smtp: SmtpServer) -> None:
    smtp.greylist.add("ada@example.com")

    with connected_to(smtp) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as greylisted:
            client.send_message(mail_to("ada@example.com"))
        client.send_message(mail_to("ada@example.com"))

    assert greylisted.value.recipients["ada@example.com"][0] == 451
    assert len(smtp.messages) == 1


def test_smtp_can_keep_a_message_and_hang_up_before_it_says_so(smtp: SmtpServer) -> None:
    smtp.drop_after_data = True

    with connected_to(smtp) as client, pytest.raises(smtplib.SMTPServerDisconnected):
        client.send_message(mail_to("ada@example.com"))

    assert len(smtp.messages) == 1


def test_smtp_stops_while_a_client_is_connected(smtp: SmtpServer) -> None:
    with connected_to(smtp) as client:
        client.noop()

        smtp.stop()
        smtp.stop()

        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
