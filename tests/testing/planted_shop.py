"""A shop that charges a card at Stripe and ships what was paid for: right as it is, and wrong in ways that are common.

`Shop(…, bugs={"no-dedup"})` has one of them.
"""

import asyncio
import hmac
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.clock import Clock
from holdfast.testing.intents import charge
from holdfast.testing.world import World

Bug = Literal["retry-unknown", "fresh-key-on-retry", "trust-body", "no-dedup", "lost-orphan"]
Status = Literal["charging", "paid", "failed"]

TRIES: Final = 3
AMOUNT: Final = 12_000


@dataclass(frozen=True)
class Order:
    """What the shop knows about an order."""

    reference: str
    key: str
    """The idempotency key of its one charge."""
    status: Status = "charging"


@dataclass
class Database:
    """Survives crashes; each change takes a while to get there, and a while until one hears of it."""

    orders: dict[str, Order] = field(default_factory=dict[str, Order])
    shipped: list[str] = field(default_factory=list[str])

    async def add(self, order: Order) -> Order:
        """Keep a new order, unless there is one already."""
        await asyncio.sleep(0)
        kept = self.orders.setdefault(order.reference, order)
        await asyncio.sleep(0)
        return kept

    async def change(self, reference: str, status: Status, *, ship: bool = False, of: Collection[Status] = ()) -> None:
        """In one transaction: the order's new status and its parcel, if its status is one `of` these, or `of` none."""
        await asyncio.sleep(0)
        order = self.orders.get(reference)
        if order is not None and (not of or order.status in of):
            self.orders[reference] = replace(order, status=status)
            if ship:
                self.shipped.append(reference)
        await asyncio.sleep(0)

    def open(self) -> list[Order]:
        """Orders of which nobody knows yet how they end."""
        return [order for order in self.orders.values() if order.status == "charging"]


class OutcomeUnknown(Exception):
    """Stripe may have charged the card, or not."""


class Shop:
    """One process of it; everything that has to outlive it is in the database."""

    def __init__(self, database: Database, world: World, bugs: Collection[Bug] = ()) -> None:
        self._database = database
        self._clock: Clock = world.vclock
        self._bugs = frozenset(bugs)
        stripe = world.fakes.stripe()
        self._webhook_secret = stripe.webhook_secret.encode()
        self._stripe = httpx.AsyncClient(
            base_url=stripe.base_url,
            transport=world.fakes.httpx(),
            headers={"authorization": f"Bearer {stripe.api_key}"},
            timeout=10,
        )
        self.app = Starlette(routes=[Route("/hooks/stripe", self.hear, methods=["POST"])])

    async def checkout(self, reference: str) -> None:
        """Take an order and charge it; asked again, go on with what was begun."""
        order = await self._database.add(Order(reference, key=str(uuid4())))
        if order.status == "charging":
            await self._charge(order)

    async def sweep(self) -> None:
        """Bring every order to its end that neither an answer nor a webhook has brought there."""
        while orders := self._database.open():
            for order in orders:
                if "lost-orphan" in self._bugs:
                    await self._database.change(order.reference, "failed", of=["charging"])
                elif (intent := await self._look_up(order.reference)) is None:
                    await self._charge(order)
                else:
                    await self._act_on(intent)
            await self._clock.sleep(60)

    async def hear(self, request: Request) -> Response:
        """A webhook: it says that there is something to look at."""
        body = await request.body()
        if not self._is_genuine(body, request.headers.get("stripe-signature", "")):
            return Response(status_code=400)
        event = json.loads(body)
        intent: Mapping[str, Any] = event["data"]["object"]
        if "trust-body" in self._bugs and event["type"].startswith("payment_intent."):
            await self._believe(intent)
        elif event["type"] == "payment_intent.succeeded":
            try:
                await self._act_on(await self._call("GET", f"/v1/payment_intents/{intent['id']}"))
            except OutcomeUnknown:
                return Response(status_code=503)
        return Response()

    async def _charge(self, order: Order) -> None:
        for tries in range(TRIES):
            try:
                await self._call(
                    "POST",
                    "/v1/payment_intents",
                    data={
                        "amount": str(AMOUNT),
                        "currency": "chf",
                        "confirm": "true",
                        "payment_method": "pm_card_visa",
                        "automatic_payment_methods[enabled]": "true",
                        "automatic_payment_methods[allow_redirects]": "never",
                        "metadata[reference]": order.reference,
                    },
                    key=self._key(order, tries),
                )
            except OutcomeUnknown:
                await self._clock.sleep(2**tries)
            else:
                return  # Stripe tells us, and if it does not, the sweep asks

    def _key(self, order: Order, tries: int) -> str | None:
        if "retry-unknown" in self._bugs:
            return None
        return f"{order.key}-{tries}" if "fresh-key-on-retry" in self._bugs else order.key

    async def _look_up(self, reference: str) -> Mapping[str, Any] | None:
        try:
            found = await self._call("GET", "/v1/payment_intents")
        except OutcomeUnknown:
            return None  # then it is asked for again, under the same key
        return next((one for one in found["data"] if one["metadata"].get("reference") == reference), None)

    async def _act_on(self, intent: Mapping[str, Any]) -> None:
        """Ship what is paid for, once."""
        if intent["status"] == "succeeded":
            only: list[Status] = [] if "no-dedup" in self._bugs else ["charging", "failed"]
            await self._database.change(str(intent["metadata"]["reference"]), "paid", ship=True, of=only)

    async def _believe(self, intent: Mapping[str, Any]) -> None:
        if intent["status"] == "succeeded":
            await self._act_on(intent)
        else:
            await self._database.change(str(intent["metadata"]["reference"]), "charging")

    async def _call(
        self, method: str, path: str, *, data: Mapping[str, str] | None = None, key: str | None = None
    ) -> Mapping[str, Any]:
        headers = {"idempotency-key": key} if key else {}
        try:
            response = await self._stripe.request(method, path, data=data, headers=headers)
            answer: object = response.json()
        except (httpx.TransportError, ValueError) as error:
            raise OutcomeUnknown(str(error)) from error
        if response.is_error or not isinstance(answer, dict):
            raise OutcomeUnknown(response.text)
        return cast(Mapping[str, Any], answer)

    def _is_genuine(self, body: bytes, signature: str) -> bool:
        fields = [field.partition("=") for field in signature.split(",")]
        timestamp = next((value for name, _, value in fields if name == "t"), "")
        expected = hmac.new(self._webhook_secret, timestamp.encode() + b"." + body, "sha256").hexdigest()
        return any(hmac.compare_digest(value, expected) for name, _, value in fields if name == "v1")


async def an_order_is_charged_and_shipped_once(world: World, bugs: Collection[Bug] = ()) -> None:
    """The rule the shop is held to."""
    database = Database()
    world.fakes.stripe().webhook_url = "https://shop.example/hooks/stripe"

    async def order() -> None:
        await Shop(database, world, bugs).checkout("o1")

    async def sweep() -> None:
        await Shop(database, world, bugs).sweep()

    await world.crashes.run(order)
    await world.webhooks.to(lambda: Shop(database, world, bugs).app, "/hooks/stripe").deliver()
    await world.crashes.run(sweep)

    world.fakes.ledger.exactly_once(charge(reference="o1"))
    assert database.orders["o1"].status == "paid", f"the order is {database.orders['o1'].status}, not paid"
    assert database.shipped == ["o1"], f"shipped {len(database.shipped)} times"
