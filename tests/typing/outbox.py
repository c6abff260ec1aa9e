"""The types a user of the outbox sees: checked by mypy and pyright, never run."""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_type

from holdfast import Call, Holdfast, Message, Recipient, outbox_ddl

hub = Holdfast(store="sqlite:///holdfast.db")


@dataclass
class Invoice:
    number: int


@hub.call("send-invoice")
async def send_invoice(call: Call[Invoice]) -> None:
    assert_type(call.payload, Invoice)
    assert_type(call.payload.number, int)
    assert_type(call.idempotency_key, str)
    assert_type(call.expires_at, datetime | None)
    await hub.notifications.send(Message("paid"), to=Recipient(email="ann@example.org"), key=call.key)
    async with call.handled_in(object()):
        pass


async def was_sent(call: Call[Invoice]) -> bool | None:
    return None


@hub.call("text", once=True, on_unknown="check", check=was_sent, urgent=True, version=2)
def text(call: Call[Invoice]) -> None:
    hub.outbox.sync.add_in(sqlite3.connect("shop.db"), "send-invoice", Invoice(1), key="invoice:1")


@hub.every(timedelta(hours=1), name="close", offset=timedelta(minutes=5), jitter=timedelta(minutes=1))
async def close(call: Call[datetime]) -> None:
    assert_type(call.payload, datetime)


@hub.every(timedelta(days=1), name="report")
def report() -> None:
    pass


assert_type(outbox_ddl("postgresql"), str)
hub.relay(lambda: sqlite3.connect("shop.db"), every=1)


async def main() -> None:
    kept = await hub.outbox.add(
        "send-invoice",
        Invoice(1),
        key="invoice:1",
        not_before=timedelta(minutes=1),
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        ordering_key="customer:7",
    )
    assert_type(kept, bool)
    await hub.outbox.add_in(sqlite3.connect("shop.db"), "send-invoice", Invoice(1), key="invoice:1")
    assert_type(await hub.outbox.cancel("send-invoice", key="invoice:1"), bool)
