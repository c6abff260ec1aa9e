"""python-getpaid with a processor for the scripted vendor, and a repository in memory as a framework's adapter has one.

It prepares a transaction once. It has no notion of retries or of idempotency keys; what a processor raises is for the
shop.

https://getpaid-core.readthedocs.io/en/latest/getting-started.html
"""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from getpaid_core import BaseProcessor, PaymentFlow, TransactionResult
from getpaid_core.enums import FraudStatus, PaymentStatus
from getpaid_core.exceptions import CommunicationError
from getpaid_core.registry import registry
from getpaid_core.types import BuyerInfo, ItemInfo

from benchmarks._intents import CENTS, CURRENCY, TIMEOUT, Task, ask_each, charge, finish


class Scripted(BaseProcessor):
    slug = "scripted"
    display_name = "Scripted"
    accepted_currencies = (CURRENCY,)

    async def prepare_transaction(self, **kwargs: Any) -> TransactionResult:
        client: httpx.AsyncClient = self.get_setting("client")
        try:
            response = await client.post("/charges", json=charge(self.payment.order.get_description()))
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise CommunicationError(str(error)) from error
        return TransactionResult(method="GET", external_id=response.json()["id"])


@dataclass
class Order:
    name: str

    def get_total_amount(self) -> Decimal:
        return Decimal(CENTS) / 100

    def get_buyer_info(self) -> BuyerInfo:
        return {"email": "customer@example.com"}

    def get_description(self) -> str:
        return self.name

    def get_currency(self) -> str:
        return CURRENCY

    def get_items(self) -> list[ItemInfo]:
        return []

    def get_return_url(self, success: bool | None = None) -> str:
        return "http://127.0.0.1/"


@dataclass
class Payment:
    id: str
    order: Order
    amount_required: Decimal
    currency: str
    backend: str
    description: str | None
    provider_data: dict[str, Any]
    status: str = PaymentStatus.NEW
    external_id: str | None = None
    amount_paid: Decimal = Decimal(0)
    amount_locked: Decimal = Decimal(0)
    amount_refunded: Decimal = Decimal(0)
    fraud_status: str = FraudStatus.UNKNOWN
    fraud_message: str = ""


@dataclass
class Repository:
    payments: dict[str, Payment] = field(default_factory=dict)

    async def create(self, **kwargs: Any) -> Payment:
        payment = Payment(id=f"payment-{len(self.payments)}", **kwargs)
        self.payments[payment.id] = payment
        return payment

    async def save(self, payment: Payment) -> Payment:
        self.payments[payment.id] = payment
        return payment

    async def get_by_id(self, payment_id: str) -> Payment:
        return self.payments[payment_id]

    async def update_status(self, payment_id: str, status: str, **fields: Any) -> Payment:
        self.payments[payment_id].status = status
        return self.payments[payment_id]

    async def list_by_order(self, order_id: str) -> list[Payment]:
        return [payment for payment in self.payments.values() if payment.order.name == order_id]


async def main(task: Task) -> None:
    registry.register(Scripted)
    async with httpx.AsyncClient(base_url=task.url, timeout=TIMEOUT) as client:
        flow = PaymentFlow(Repository(), config={Scripted.slug: {"client": client}})

        async def create(order: str) -> object:
            return await flow.prepare(await flow.create_payment(Order(order), Scripted.slug))

        await ask_each(task.orders, create)
    finish("python-getpaid", "python-getpaid-core", "httpx")


asyncio.run(main(Task.given()))
