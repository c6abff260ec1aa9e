"""A shop over holdfast, and the test that explores it: crashes, faults, and webhooks in any order.

    pytest -p holdfast.testing.plugin examples/shop_under_test.py

Whatever is made in the test survives crashes, as databases do; whatever `Shop` makes dies with its process.
"""

import sqlite3
from contextlib import closing
from typing import Any, Final

import pytest

from holdfast import Holdfast, HoldfastError, Money, Payment, PaymentPaid, Secrets, handled_ddl
from holdfast.clock import Clock
from holdfast.testing.deliveries import Webhooks
from holdfast.testing.explore import Crashes, KeptStore
from holdfast.testing.intents import charge
from holdfast.testing.vendors import Fakes
from holdfast.testing.virtual_clock import VirtualClock

PRICE: Final = Money("120.00", "CHF")
PATIENCE: Final = 4 * 3600
"""Seconds a worker waits for money that does not come."""


class Books:
    """The shop's own database: an order is confirmed once, or the books are wrong."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.execute(handled_ddl("sqlite"))
        self._connection.execute("CREATE TABLE confirmations (reference TEXT)")

    def confirm(self, paid: PaymentPaid) -> None:
        """In one transaction with the proof that this event was handled."""
        with self._connection, paid.handled_in(self._connection):
            self._connection.execute("INSERT INTO confirmations VALUES (?)", (paid.reference,))

    def confirmed(self) -> list[str]:
        """Every confirmation."""
        return [reference for (reference,) in self._connection.execute("SELECT reference FROM confirmations")]

    def close(self) -> None:
        """Give up the database."""
        self._connection.close()


class Shop:
    """One process of the shop."""

    def __init__(self, books: Books, hub: Holdfast, clock: Clock) -> None:
        self._books = books
        self._hub = hub
        self._clock = clock
        hub.on(PaymentPaid, name="confirm")(self._confirm)

    async def checkout(self, reference: str) -> Payment:
        """What the customer is shown."""
        async with self._hub as hub:
            while True:
                try:
                    return await hub.payments.create(reference, PRICE)
                except HoldfastError:
                    await self._clock.sleep(60)  # the customer tries again

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Where the vendors' webhooks arrive."""
        async with self._hub as hub:
            await hub.receiver(scope, receive, send)

    async def work(self) -> None:
        """Handlers and sweeps, until an order is confirmed and a minute more: it must not be confirmed again."""
        async with self._hub.lifespan():
            until = self._clock.monotonic() + PATIENCE
            while not self._books.confirmed() and self._clock.monotonic() < until:
                await self._clock.sleep(5)
            await self._clock.sleep(60)

    async def _confirm(self, paid: PaymentPaid) -> None:
        self._books.confirm(paid)


@pytest.mark.holdfast(seed=7, providers=["swiss-bitcoin-pay", "lnbits"], explore=200)
async def test_an_order_is_paid_and_confirmed_once(
    fakes: Fakes, vclock: VirtualClock, webhooks: Webhooks, crashes: Crashes
) -> None:
    store = KeptStore(clock=vclock)
    providers = [fakes.provider("swiss-bitcoin-pay"), fakes.provider("lnbits")]

    with closing(Books()) as books:

        def shop() -> Shop:
            hub = Holdfast(
                store=store,
                secret=Secrets(["a secret of the shop's own"]),
                public_url="https://shop.example",
                payments=providers,
                transport=fakes.transport,
                clock=vclock,
            )
            return Shop(books, hub, vclock)

        payment = await crashes.run(lambda: shop().checkout("o1"))
        again = await crashes.run(lambda: shop().checkout("o1"))  # the customer reloads the page
        assert payment.offer is not None
        assert payment.offer == again.offer, "the customer was shown two offers"
        fakes.vendor(payment.provider).pay(payment.offer.bolt11 or "")
        await webhooks.to(lambda: shop().app).deliver()
        await crashes.run(lambda: shop().work())

        fakes.ledger.exactly_once(charge(reference="o1"))
        assert books.confirmed() == ["o1"], f"confirmed: {books.confirmed()}"
