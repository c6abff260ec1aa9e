"""paybridge with a provider for the scripted vendor, written as its own for Paystack is.

It sends the caller's reference as an `Idempotency-Key`, and retries lost answers and timeouts by itself. With
`--fallback` the shop asks a second gateway, here a second account at the same vendor, when the first one fails, as the
"Multi-Gateway Example" of its README does.

The package paybridge on PyPI.
"""

import asyncio
import sys

from paybridge import ChargeRequest, PayBridge, PaymentResponse, PaymentStatus
from paybridge.provider.base import BaseProvider
from paybridge.utils import handle_http_errors, to_minor_units

from benchmarks._intents import CENTS, CURRENCY, TIMEOUT, Task, ask_each, finish


class Scripted(BaseProvider):
    provider_name = "scripted"

    async def initialize_payment(self, request: ChargeRequest) -> PaymentResponse:
        await super().initialize_payment(request)
        response = await self._request_with_retry(
            "POST",
            f"{self.base_url}/charges",
            idempotency_key=request.reference,
            json={
                "order": request.reference,
                "reference": request.reference,
                "cents": to_minor_units(request.amount, request.currency),
                "currency": request.currency,
            },
        )
        await handle_http_errors(response)
        charged = response.json()
        return PaymentResponse(
            transaction_id=charged["id"],
            reference=charged["reference"],
            status=PaymentStatus.PROCESSING,
            amount=request.amount,
            currency=request.currency,
            provider=self.provider_name,
            provider_raw_response=charged,
        )


async def main(task: Task) -> None:
    gateways = [PayBridge(timeout=TIMEOUT) for _ in range(1 + ("--fallback" in sys.argv))]
    for number, gateway in enumerate(gateways):
        gateway.use_provider(Scripted, f"secret-{number}", base_url=task.url, timeout=TIMEOUT)

    async def create(order: str) -> object:
        for gateway in gateways[:-1]:
            try:
                return await ask(gateway, order)
            except Exception:  # as in its README
                continue
        return await ask(gateways[-1], order)

    async def ask(gateway: PayBridge, order: str) -> object:
        return await gateway.initialize_payment(
            email="customer@example.com", amount=CENTS / 100, currency=CURRENCY, reference=order
        )

    await ask_each(task.orders, create)
    for gateway in gateways:
        await gateway.close_all()
    finish("paybridge")


asyncio.run(main(Task.given()))
