"""A shop that sells over one simulated vendor: a hub, a clock that runs as far as it must, a door for webhooks."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from holdfast import Holdfast, Money, Payment, PaymentFlagged, PaymentPaid, PaymentRefunded, RefundByHand, Secrets
from holdfast.payments.provider import PaymentProvider
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.webhooks import Mischief, Sent, WebhookSimulator

DOOR = "https://shop.example/webhooks"
QUIET = Mischief()

T = TypeVar("T")


class Shop:
    """One process; what it was told is in `told`, by the kind of event and in order."""

    def __init__(self, provider: PaymentProvider, vendor: Simulator, clock: ManualClock) -> None:
        self.clock = clock
        self.vendor = vendor
        self.told: list[str] = []
        self.by_hand: list[RefundByHand] = []
        self.hub = Holdfast(
            store=MemoryStore(clock=clock),
            secret=Secrets("hub-secret"),
            public_url=DOOR,
            payments=[provider],
            clock=clock,
            transport=lambda _: InProcess(vendor),
        )
        self.payments = self.hub.payments

        @self.hub.on(PaymentPaid, name="paid")
        async def paid(event: PaymentPaid) -> None:
            self.told.append("paid")

        @self.hub.on(PaymentFlagged, name="flagged")
        async def flagged(event: PaymentFlagged) -> None:
            self.told.append(f"flagged {event.anomaly}")

        @self.hub.on(PaymentRefunded, name="refunded")
        async def refunded(event: PaymentRefunded) -> None:
            self.told.append("refunded")

        @self.hub.on(RefundByHand, name="by_hand")
        async def by_hand(event: RefundByHand) -> None:
            self.by_hand.append(event)

    async def __aenter__(self) -> Self:
        await self.hub.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.__aexit__(None, None, None)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await it while time passes as far as it must."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await self.clock.advance(0.25)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return task.result()

    async def create(self, reference: str, due: Money, **options: Any) -> Payment:
        return await self.run(self.payments.create(reference, due, **options))

    async def refresh(self, reference: str) -> Payment:
        payment = await self.run(self.payments.refresh(reference))
        await self.settle()
        return payment

    async def settle(self) -> None:
        """Run what is due: handlers, sweeps, deliveries."""
        await self.run(self.hub.settle())

    async def deliver(self, mischief: Mischief = QUIET) -> list[Sent]:
        """Everything the vendor owes, through the door, and worked on."""
        post = WebhookSimulator([self.vendor], self.post, mischief=mischief, clock=self.clock)
        sent = await self.run(post.deliver())
        await self.settle()
        return sent

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        """One request at the door; the status of the answer."""
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "method": "POST", "path": url.removeprefix(DOOR), "headers": pairs}
        await self.hub.receiver(scope, receive, send)
        return statuses[0]
