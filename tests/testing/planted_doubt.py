"""A shop with a path in it that only four mishaps together reach, and a mistake at the end of that path.

A shop that finds an order begun and unfinished asks Stripe what became of it. Where Stripe cannot say, the order is in
doubt, and webhooks about it are put aside. Who insists is believed: then it ships first and writes it down afterwards.
"""

from collections.abc import Mapping
from typing import Any

from holdfast.testing.intents import charge
from holdfast.testing.world import World
from tests.testing.planted_shop import Database, Order, OutcomeUnknown, Shop


class Doubts(Database):
    """Remembers of which orders it does not know how they end, and who has asked after them."""

    def __init__(self) -> None:
        super().__init__()
        self.doubtful: set[str] = set()
        self.asked_after: set[str] = set()


class DoubtfulShop(Shop):
    """One process of it; `in_two_steps` is the mistake."""

    def __init__(self, database: Doubts, world: World, *, in_two_steps: bool) -> None:
        super().__init__(database, world)
        self._doubts = database
        self._in_two_steps = in_two_steps

    async def checkout(self, reference: str) -> None:
        """Take an order; one that was begun is looked up."""
        if reference not in self._doubts.orders:
            await super().checkout(reference)
            return
        order = self._doubts.orders[reference]
        try:
            found = await self._call("GET", "/v1/payment_intents")
        except OutcomeUnknown:
            self._doubts.doubtful.add(reference)
        else:
            await self._resume(order, found)

    async def _resume(self, order: Order, found: Mapping[str, Any]) -> None:
        intent = next((one for one in found["data"] if one["metadata"].get("reference") == order.reference), None)
        if intent is None:
            await self._charge(order)
        else:
            await self._act_on(intent)

    async def _act_on(self, intent: Mapping[str, Any]) -> None:
        reference = str(intent["metadata"]["reference"])
        if reference not in self._doubts.doubtful or intent["status"] != "succeeded":
            await super()._act_on(intent)
        elif reference not in self._doubts.asked_after:
            self._doubts.asked_after.add(reference)
        elif self._in_two_steps and self._doubts.orders[reference].status == "charging":
            await self._doubts.change(reference, "charging", ship=True)
            await self._doubts.change(reference, "paid")
        else:
            await super()._act_on(intent)


async def a_doubtful_order_is_shipped_once(world: World, *, in_two_steps: bool) -> None:
    """The rule the shop is held to."""
    database = Doubts()
    world.fakes.stripe().webhook_url = "https://shop.example/hooks/stripe"

    def shop() -> DoubtfulShop:
        return DoubtfulShop(database, world, in_two_steps=in_two_steps)

    async def order() -> None:
        await shop().checkout("o1")

    async def settle() -> None:
        database.doubtful.clear()  # after a night everybody can be asked again
        await shop().sweep()

    await world.crashes.run(order)
    await world.webhooks.to(lambda: shop().app, "/hooks/stripe").deliver()
    await world.crashes.run(settle)

    world.fakes.ledger.exactly_once(charge(reference="o1"))
    assert database.shipped == ["o1"], f"shipped {len(database.shipped)} times"
