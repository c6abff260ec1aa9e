"""A shop that takes payments from one simulated vendor, in process, on one clock."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from holdfast import Holdfast, Payment, PaymentFlagged, PaymentPaid, Secrets
from holdfast.http.transports import Transport
from holdfast.http.vendor import HttpVendor
from holdfast.payments.provider import PaymentProvider
from holdfast.payments.refunds import Refund
from holdfast.stores.memory import MemoryStore
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.webhooks import Sent, WebhookSimulator

T = TypeVar("T")

DOOR = "https://shop.example/webhooks"


class Till:
    """One process of the shop; `wire` replaces the vendor's own transport."""

    def __init__(
        self,
        vendor: Simulator,
        *providers: PaymentProvider,
        clock: ManualClock,
        webhooks: bool = True,
        store: MemoryStore | None = None,
        wire: Callable[[HttpVendor], Transport] | None = None,
    ) -> None:
        self.vendor = vendor
        self.clock = clock
        self.signals: list[Signal] = []
        self.paid: list[PaymentPaid] = []
        self.flagged: list[PaymentFlagged] = []
        self.hub = Holdfast(
            store=store or MemoryStore(clock=clock),
            secret=Secrets("hub-secret"),
            public_url=DOOR if webhooks else None,
            payments=list(providers),
            clock=clock,
            transport=wire or (lambda _: InProcess(vendor)),
            telemetry=Telemetry([self.signals.append]),
        )
        self.payments = self.hub.payments

        @self.hub.on(PaymentPaid, name="tell")
        async def tell(paid: PaymentPaid) -> None:
            self.paid.append(paid)

        @self.hub.on(PaymentFlagged, name="flag")
        async def flag(flagged: PaymentFlagged) -> None:
            self.flagged.append(flagged)

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

    async def create(self, reference: str, *args: Any, **wishes: Any) -> Payment:
        return await self.run(self.payments.create(reference, *args, **wishes))

    async def refresh(self, reference: str) -> Payment:
        return await self.run(self.payments.refresh(reference))

    async def refund(self, reference: str, *args: Any, **wishes: Any) -> Refund:
        return await self.run(self.payments.refund(reference, *args, **wishes))

    async def settle(self) -> None:
        """Sweep, and do all that is due."""
        await self.run(self._settle())

    async def _settle(self) -> None:
        await self.hub.settle()

    async def deliver(self) -> list[Sent]:
        """Everything the vendor owes, through the door."""
        return await self.run(WebhookSimulator([self.vendor], self.post, clock=self.clock).deliver())

    async def post(self, url: str, headers: Headers, body: bytes, *, method: str = "POST") -> int:
        """One request to the receiver, as its server would hand it over; the status of the answer."""
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "method": method, "path": url.removeprefix(DOOR), "headers": pairs}
        await self.hub.receiver(scope, receive, send)
        return statuses[0]
