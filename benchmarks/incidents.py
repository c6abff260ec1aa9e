"""A shop day with two vendors, each 99 % up: what is sold, charged twice, or left lying about, by three clients.

Everything is virtual time, and decided by the seed. The first vendor asks the payer by itself (mobile money): whoever
asks it twice without a key rings twice. The second has a page to be shown.
"""

import asyncio
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from random import Random
from typing import Any, Final

import pybreaker
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from benchmarks._incidents import PAGE, PUSH, Incident, Payers, Thing, Vendor, day_of, hour_of, providers
from benchmarks._measure import Report, arguments, publish, versions
from holdfast import Holdfast, Money, PaymentPaid, Secrets
from holdfast.errors import CallFailed, HoldfastError, OutcomeUnknown
from holdfast.http.transports import HttpRequest
from holdfast.queue.worker import WorkerOptions
from holdfast.telemetry import Telemetry
from holdfast.testing.virtual_clock import VirtualClock

DUE: Final = Money("120.00", "CHF")
DAY_SALES, HOUR_SALES = 3000, 720
TRIES: Final = 3
"""How often somebody presses the button before they leave."""
AGAIN_AFTER: Final = 10.0
TIMEOUT: Final = 5.0
"""Of each attempt of `bare` and `glue`."""
PATIENCE: Final = 180.0
"""Seconds for which somebody looks at a page that says: look at your phone, we are finding out."""
LOOK_EVERY: Final = 15.0
IN_TIME: Final = 900.0
"""A sale that is not confirmed by then is none."""


class FindingOut(Exception):
    """The payer may have been asked; the page says so, and looks again."""


@dataclass(kw_only=True)
class Sale:
    """One order, as it went."""

    reference: str
    at: float
    offered_after: float | None = None
    confirmed_at: float | None = None


@dataclass(kw_only=True)
class Shop:
    """A shop, whichever client it uses."""

    clock: VirtualClock
    vendors: dict[str, Vendor]
    chance: Random
    known: set[str] = field(default_factory=set)
    """What it knows to exist at vendors."""
    sales: dict[str, Sale] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What it needs beside."""

    async def offer(self, reference: str) -> Thing | None:
        """Ask for the money; what is to be shown, or None: the vendor asks the payer by itself. Raises: it failed."""
        raise NotImplementedError

    async def hear(self, thing: Thing, body: bytes, signature: str) -> bool:
        """Take a webhook in. These take its word for it."""
        self.confirm(thing.reference)
        return True

    def confirm(self, reference: str) -> None:
        sale = self.sales[reference]
        if sale.confirmed_at is None:
            sale.confirmed_at = self.clock.elapsed

    async def close(self) -> None: ...

    async def _exchange(self, vendor: str, reference: str) -> Thing:
        """One POST as a plain client makes it. Raises CallFailed, TimeoutError."""
        body = {"reference": reference, "attempt": "", "amount": str(DUE.amount)}
        request = HttpRequest(method="POST", url="http://127.0.0.1:1/payments", content=json.dumps(body).encode())
        async with asyncio.timeout(TIMEOUT):
            response = await self.vendors[vendor].send(request)
        if response.status != 201:
            raise ConnectionError(f"{response.status}")
        thing = self.vendors[vendor].things[json.loads(response.content)["id"]]
        self.known.add(thing.id)
        return thing


class Bare(Shop):
    """One vendor, one attempt."""

    async def offer(self, reference: str) -> Thing | None:
        await self._exchange(PUSH, reference)
        return None


class Glue(Shop):
    """Retries, circuit breakers and a fallback, put together as the pages of tenacity and pybreaker show them."""

    def __post_init__(self) -> None:
        self._breakers = {name: pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60) for name in self.vendors}

    async def offer(self, reference: str) -> Thing | None:
        try:
            await self._ask(PUSH, reference)
        except (CallFailed, OSError, pybreaker.CircuitBreakerError):
            return await self._ask(PAGE, reference)
        return None

    async def _ask(self, vendor: str, reference: str) -> Thing:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(3),
            wait=wait_exponential_jitter(multiplier=0.2, max=2),
            retry=retry_if_exception_type((CallFailed, OSError)),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt, self._breakers[vendor].calling():
                return await self._exchange(vendor, reference)
        raise AssertionError("tenacity raises or returns")


class Ours(Shop):
    """A hub with its worker; the preferred vendor first."""

    def __post_init__(self) -> None:
        self.hub = Holdfast(
            store="memory://",
            secret=Secrets("a secret of the benchmark's own"),
            public_url="http://127.0.0.1/webhooks",
            payments=providers(),
            clock=self.clock,
            chance=self.chance,
            telemetry=Telemetry([]),
            transport=lambda vendor: self.vendors[vendor.name],
            worker=WorkerOptions(takeover=0.0, idle=5.0),
        )
        self._until: asyncio.Event = asyncio.Event()

        @self.hub.on(PaymentPaid, name="confirm")
        async def confirm(paid: PaymentPaid) -> None:
            self.confirm(paid.reference)

        self._work = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        async with self.hub.lifespan():
            await self._until.wait()
            for vendor in self.vendors.values():
                references = {thing.reference for thing in vendor.things.values()}
                for reference in references:
                    payment = await self.hub.payments.get(reference)
                    self.known |= {name for one in payment.attempts for name in (one.id, one.vendor_id) if name}

    async def close(self) -> None:
        self._until.set()
        await self._work

    async def offer(self, reference: str) -> Thing | None:
        try:
            payment = await self.hub.payments.create(reference, DUE, expires_in=timedelta(minutes=10))
        except OutcomeUnknown as error:
            raise FindingOut from error
        if payment.provider == PAGE and payment.offer is not None:
            return self.vendors[PAGE].things[payment.attempts[-1].vendor_id]
        return None

    async def hear(self, thing: Thing, body: bytes, signature: str) -> bool:
        statuses: list[int] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"x-signature", signature.encode()), (b"content-type", b"application/json")]
        path = f"/{thing.vendor.name}"
        await self.hub.receiver({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
        return statuses[0] < 300


SHOPS: Final[dict[str, type[Shop]]] = {"bare": Bare, "glue": Glue, "holdfast": Ours}


class VirtualDatetime(datetime):
    """What pybreaker takes for the time."""

    clock: VirtualClock

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.clock.now().astimezone(UTC)


def live(
    row: str,
    seed: int,
    *,
    sales: int,
    seconds: float,
    incidents: Callable[[Random], Sequence[Incident]],
    together: bool,
) -> dict[str, float]:
    """A day, or an hour, of one shop: its figures."""
    clock = VirtualClock()
    VirtualDatetime.clock = clock
    pybreaker.datetime = VirtualDatetime  # type: ignore[attr-defined]

    async def main() -> dict[str, float]:
        plans = {name: Random(f"{seed}/{'' if together else name}") for name in (PUSH, PAGE)}
        vendors = {
            name: Vendor(name=name, clock=clock, chance=Random(f"{seed}/{name}/luck"), incidents=incidents(plan))
            for name, plan in plans.items()
        }
        shop = SHOPS[row](clock=clock, vendors=vendors, chance=Random(f"{seed}/shop"))
        arrivals = Random(f"{seed}/sales")
        times = sorted(arrivals.uniform(0, seconds) for _ in range(sales))
        async with asyncio.TaskGroup() as group:
            payers = Payers(clock=clock, chance=Random(f"{seed}/payers"), spawn=group.create_task, post=shop.hear)
            vendors[PUSH].asked = payers.ring
            for number, at in enumerate(times):
                group.create_task(sell(shop, payers, Sale(reference=f"order-{number}", at=at)))
        await clock.sleep(120.0)
        figures = figures_of(shop, payers)
        await shop.close()
        things = [thing for vendor in vendors.values() for thing in vendor.things.values()]
        orphans = [thing for thing in things if not {thing.id, thing.attempt} & shop.known]
        return figures | {"orphans": len(orphans)}

    return clock.run(main)


async def sell(shop: Shop, payers: Payers, sale: Sale) -> None:
    """Somebody wants to buy, and presses the button again when it fails."""
    clock = shop.clock
    await clock.sleep(sale.at)
    shop.sales[sale.reference] = sale
    tries = TRIES
    while tries and clock.elapsed - sale.at <= PATIENCE:
        payers.failed.discard(sale.reference)
        try:
            shown = await shop.offer(sale.reference)
        except FindingOut:
            sale.offered_after = sale.offered_after or clock.elapsed - sale.at
            await clock.sleep(LOOK_EVERY)
            continue
        except (CallFailed, HoldfastError, OSError, pybreaker.CircuitBreakerError):
            payers.failed.add(sale.reference)
            tries -= 1
            await clock.sleep(AGAIN_AFTER)
            continue
        sale.offered_after = sale.offered_after or clock.elapsed - sale.at
        if shown is not None:
            payers.see(shown)
        return


def figures_of(shop: Shop, payers: Payers) -> dict[str, float]:
    sales = shop.sales.values()
    money: dict[str, list[Thing]] = {}
    for thing in payers.things:
        money.setdefault(thing.reference, []).append(thing)
    sold = [sale for sale in sales if sale.confirmed_at is not None and sale.confirmed_at - sale.at <= IN_TIME]
    waits = [
        sale.confirmed_at - min(thing.paid_at or 0.0 for thing in money[sale.reference])
        for sale in sales
        if sale.confirmed_at is not None
    ]
    return {
        "success": round(len(sold) / len(shop.sales), 5),
        "offer_p95_s": round(p95([sale.offered_after for sale in sales if sale.offered_after is not None]), 3),
        "confirm_p95_s": round(p95(waits), 3),
        "double_charges": sum(len(things) > 1 for things in money.values()),
        "calls_per_sale": round(sum(vendor.calls for vendor in shop.vendors.values()) / len(shop.sales), 3),
    }


def p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[ceil(0.95 * len(ordered)) - 1] if ordered else 0.0


def run(seed: int, sales: int) -> dict[str, float]:
    """All rows: the day, and apart from it the hour in which both vendors are ill together."""
    figures: dict[str, float] = {}
    for row in SHOPS:
        day = live(row, seed, sales=sales, seconds=86_400.0, incidents=day_of, together=False)
        hour = live(row, seed, sales=HOUR_SALES, seconds=3600.0, incidents=hour_of, together=True)
        figures |= {f"{row}.{name}": figure for name, figure in day.items()}
        figures |= {f"{row}.correlated_hour.{name}": figure for name, figure in hour.items()}
    return figures


REMARKS: Final = {
    "holdfast.success": "paid, and the shop knows, within 15 minutes; each vendor is down 1 % of the day",
    "holdfast.double_charges": "orders whose payer was charged more than once",
    "holdfast.orphans": "requests for money that lie at a vendor and that the shop's own records do not name",
    "holdfast.offer_p95_s": "until there is an offer, or the page says: look at your phone, we are finding out",
    "holdfast.calls_per_sale": "one more than the others': every webhook is held against a look at the vendor",
    "glue.double_charges": "half the payers who are asked again by a lost answer's repetition pay again",
    "glue.success": "its webhooks are believed by their reference alone, to its favour",
}


def main() -> None:
    parser = arguments("incidents", __doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sales", type=int, default=DAY_SALES)
    parser.add_argument("--days", type=int, default=1, help="seeds in a row; the figures are their means")
    options = parser.parse_args()
    days = [run(options.seed + number, options.sales) for number in range(options.days)]
    figures = {name: round(statistics.mean(day[name] for day in days), 5) for name in days[0]}
    publish(
        Report(
            name="incidents",
            figures=figures,
            versions=versions("holdfast", "tenacity", "pybreaker"),
            remarks=REMARKS,
            lines=["", f"  seed {options.seed}, {options.sales} sales a day, virtual time: the same on every machine"],
        ),
        options,
    )


if __name__ == "__main__":
    main()
