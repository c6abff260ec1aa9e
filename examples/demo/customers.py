"""Customers: they book, double-click, reload when nobody answers, pay, or think better of it."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import httpx

from examples.demo.world import World

PAY = 0.9
"""How many of those who see an offer pay it."""
DOUBLE_CLICK = 0.2
AMOUNT = "120.00"


@dataclass(kw_only=True)
class Visit:
    """What one customer went through."""

    reference: str
    offers: list[str] = field(default_factory=list[str])
    """Every different offer shown, as the payer sees it."""
    seconds: float = 0.0
    route: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list[str])
    """Errors the customer saw, whether or not a reload helped."""
    paid_at: float | None = None
    ended_well: bool = False


class Customers:
    """Sends customers in at a steady rate, and remembers what they saw."""

    def __init__(self, world: World, *, count: int, per_second: float, seed: int) -> None:
        self._world = world
        self._count = count
        self._every = 1 / per_second
        self._seed = seed
        self.visits: list[Visit] = []

    @property
    def shown(self) -> int:
        return sum(bool(visit.offers) for visit in self.visits)

    @property
    def paid(self) -> int:
        return sum(visit.paid_at is not None for visit in self.visits)

    async def come(self) -> None:
        """All of them, until the last has paid or gone."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=15, limits=limits) as client, asyncio.TaskGroup() as group:
            begun = time.monotonic()
            for number in range(self._count):
                visit = Visit(reference=f"consultation-{number:04}")
                self.visits.append(visit)
                group.create_task(self._visit(client, visit, Random(f"{self._seed}:{number}")))
                await asyncio.sleep(max(0.0, begun + (number + 1) * self._every - time.monotonic()))

    async def _visit(self, client: httpx.AsyncClient, visit: Visit, random: Random) -> None:
        twice = random.random() < DOUBLE_CLICK
        pays, thinks = random.random() < PAY, random.uniform(0.5, 3.0)
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._book(client, self._world.web, visit, reloads=3))
            if twice:
                group.create_task(self._book(client, self._world.receiver, visit, reloads=0))
        visit.seconds = visit.seconds or time.perf_counter() - begun
        visit.ended_well = bool(visit.offers)
        if not visit.offers or not pays:
            return
        await asyncio.sleep(thinks)
        if await self._pay(client, visit.offers[0]):
            visit.paid_at = time.time()

    async def _pay(self, client: httpx.AsyncClient, offer: str) -> bool:
        if self._world.real_lnbits is not None and offer.startswith("ln"):
            return await self._world.real_lnbits.pay(offer)
        return (await client.post(f"{self._world.admin}/__fake/pay", json={"offer": offer})).status_code == 200

    async def _book(self, client: httpx.AsyncClient, instance: str, visit: Visit, *, reloads: int) -> None:
        booking = {
            "reference": visit.reference,
            "email": f"{visit.reference}@example.org",
            "telegram": str(100_000 + int(visit.reference[-4:])),
            "amount": AMOUNT,
            "starts_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        }
        for attempt in range(reloads + 1):
            begun = time.perf_counter()
            try:
                answer = await client.post(f"{instance}/bookings", json=booking)
            except httpx.TransportError:
                await asyncio.sleep(0.3)
                continue
            if answer.status_code == 200 and answer.json()["qr_svg"]:
                offer = answer.json()
                visit.route = tuple(offer["route"])
                visit.seconds = visit.seconds or time.perf_counter() - begun
                shown = offer["checkout_url"] or offer["bolt11"]
                if shown not in visit.offers:
                    visit.offers.append(shown)
                return
            if reloads:
                visit.errors.append(f"{answer.status_code} {answer.text[:200]}")
                await asyncio.sleep(0.5 * (attempt + 1))
