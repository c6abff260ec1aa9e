"""A shop over the simulated Swiss Bitcoin Pay and LNbits, in one process or several on one store."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any, Self, TypeVar

from holdfast import Holdfast, Money, Payment, PaymentFlagged, PaymentPaid, Secret, Secrets
from holdfast.errors import HoldfastError
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import HttpVendor
from holdfast.providers import LNbits, SwissBitcoinPay
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Job, JobFilter
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Faults
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.testing.simulators.webhooks import Mischief, Sent, WebhookSimulator

DUE = Money("120.00", "CHF")
DOOR = "https://shop.example/webhooks"
SBP, LNBITS = "swiss-bitcoin-pay", "lnbits"
QUIET = Mischief()
WEBHOOK_SECRET = "the-secret-of-swiss-bitcoin-pay"

T = TypeVar("T")


class World:
    """The vendors, the store, the clock: what outlives a process."""

    def __init__(
        self, *, seed: int = 0, clock: ManualClock | None = None, make_store: Callable[..., Any] = MemoryStore
    ) -> None:
        self.seed = seed
        self.clock = clock or ManualClock()
        self.ledger = Ledger(self.clock)
        self.faults = Faults(seed)
        self.store: Any = make_store(clock=self.clock)
        common: dict[str, Any] = {"seed": seed, "ledger": self.ledger, "faults": self.faults, "clock": self.clock}
        self.sbp = SwissBitcoinPaySimulator(**common, webhook_secret=WEBHOOK_SECRET)
        self.lnbits = LNbitsSimulator(**common)
        self.vendors: dict[str, Simulator] = {SBP: self.sbp, LNBITS: self.lnbits}
        self.signals: list[Signal] = []
        self.told: list[PaymentPaid] = []
        self.flagged: list[PaymentFlagged] = []

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

    async def jobs(self, kind: str) -> Sequence[Job]:
        """All jobs that carry events of this kind."""
        return [job for job in await self.store.jobs.list(JobFilter(queue="events"), limit=10_000) if job.kind == kind]


async def nothing() -> None:
    """What happens between two steps of a process that does not crash."""


class Process:
    """One process of the shop: its own hub, on the world's store; `step` is awaited around everything it does."""

    def __init__(
        self,
        world: World,
        *,
        order: Sequence[str] = (SBP, LNBITS),
        step: Callable[[], Awaitable[None]] = nothing,
        wire: Callable[[HttpVendor], Transport] | None = None,
        number: int = 0,
    ) -> None:
        self.world = world
        credentials = world.lnbits.credentials
        providers = {
            SBP: SwissBitcoinPay(
                api_key=Secret(world.sbp.api_key), webhook_secret=Secrets(WEBHOOK_SECRET), base_url="http://127.0.0.1:1"
            ),
            LNBITS: LNbits(base_url="http://127.0.0.1:2", invoice_key=Secret(credentials["invoice_key"])),
        }
        wire = wire or (lambda vendor: InProcess(world.vendors[vendor.name]))
        self.hub = Holdfast(
            store=_Tapped(world.store, step),  # type: ignore[arg-type]  # a Store by __getattr__
            secret=Secrets("hub-secret"),
            public_url=DOOR,
            payments=[providers[name] for name in order],
            clock=world.clock,
            chance=Random(f"{world.seed}/{number}"),
            transport=lambda vendor: _TappedWire(wire(vendor), step),
            telemetry=Telemetry([world.signals.append]),
        )
        self.payments = self.hub.payments

        @self.hub.on(PaymentPaid, name="tell")
        async def tell(paid: PaymentPaid) -> None:
            world.told.append(paid)

        @self.hub.on(PaymentFlagged, name="flag")
        async def flag(flagged: PaymentFlagged) -> None:
            world.flagged.append(flagged)

    async def __aenter__(self) -> Self:
        await self.hub.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.__aexit__(None, None, None)

    async def create(self, reference: str, due: Money = DUE) -> Payment:
        return await self.world.run(self.payments.create(reference, due))

    async def get(self, reference: str) -> Payment | None:
        with contextlib.suppress(HoldfastError):
            return await self.payments.get(reference)
        return None

    async def settle(self) -> None:
        await self.world.run(self._settle())

    async def _settle(self) -> None:
        await self.hub.settle()

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        """One request to the receiver, as its server would hand it over; the status of the answer."""
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

    async def deliver(self, mischief: Mischief = QUIET, *, seed: int = 0) -> list[Sent]:
        """Everything the vendors owe, through the door."""
        post = WebhookSimulator(
            list(self.world.vendors.values()), self.post, mischief=mischief, seed=seed, clock=self.world.clock
        )
        return await self.world.run(post.deliver())


class _Tapped:
    """The world's store as one process sees it; the world's own opening is shared."""

    durable = False
    _users: Counter[int] = Counter()

    def __init__(self, store: Any, step: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self.jobs, self.records = _Tap(store.jobs, step), _Tap(store.records, step)
        self.leases, self.counters, self.bus = store.leases, store.counters, store.bus

    async def __aenter__(self) -> Self:
        self._users[id(self._store)] += 1
        if self._users[id(self._store)] == 1:
            await self._store.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._users[id(self._store)] -= 1
        if not self._users[id(self._store)]:
            del self._users[id(self._store)]
            await self._store.__aexit__()

    async def now(self) -> object:
        return await self._store.now()


class _Tap:
    """Any part of the store, with a step before and after each call."""

    def __init__(self, part: object, step: Callable[[], Awaitable[None]]) -> None:
        self._part = part
        self._step = step

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        async def tapped(*args: Any, **kwargs: Any) -> Any:
            await self._step()
            result = await method(*args, **kwargs)
            await self._step()
            return result

        return tapped


class _TappedWire:
    """The network, with a step before and after each exchange."""

    def __init__(self, wire: Transport, step: Callable[[], Awaitable[None]]) -> None:
        self._wire = wire
        self._step = step

    async def send(self, request: HttpRequest) -> HttpResponse:
        await self._step()
        response = await self._wire.send(request)
        await self._step()
        return response

    async def aclose(self) -> None:
        await self._wire.aclose()
