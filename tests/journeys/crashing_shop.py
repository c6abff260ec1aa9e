"""A process that sells and confirms until it is killed; its arguments are a directory, a first number and a count."""

import asyncio
import sqlite3
import sys
from pathlib import Path

from holdfast import Holdfast, Money, PaymentPaid, Secrets, WorkerOptions, handled_ddl
from holdfast.testing import FakePayments

DUE = Money("10.00", "CHF")


async def main(directory: Path, first: int, count: int) -> None:
    """Create payments, print each reference once it is accepted, and handle what is there until told to stop."""
    fakes = FakePayments()
    hub = Holdfast(
        store=f"sqlite:///{directory}/holdfast.db",
        secret=Secrets("crash-secret"),
        payments=[fakes],
        worker=WorkerOptions(lease=0.5, heartbeat=0.1, idle=0.05),
    )
    shop = sqlite3.connect(directory / "shop.db", timeout=10)
    shop.execute("PRAGMA journal_mode=WAL")
    shop.execute("CREATE TABLE IF NOT EXISTS confirmed (reference TEXT)")
    shop.execute(handled_ddl("sqlite"))
    shop.commit()

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        with shop:
            async with paid.handled_in(shop):
                shop.execute("INSERT INTO confirmed VALUES (?)", (paid.reference,))

    async with hub.lifespan():
        for number in range(first, first + count):
            reference = f"order-{number}"
            await hub.payments.create(reference, DUE)
            fakes.pay(reference)
            await hub.payments.refresh(reference)
            print(reference, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
