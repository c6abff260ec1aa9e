"""How much virtual time passes in a second of the machine's."""

import asyncio
import time
from datetime import timedelta

from holdfast import Holdfast, Money
from holdfast.queue.worker import WorkerOptions
from holdfast.testing import FakePayments
from holdfast.testing.virtual_clock import VirtualClock

HOUR = 3600.0


def sleepers(hours: float = 100.0, *, tasks: int = 10, every: float = 5.0) -> float:
    """Virtual hours per real second, of so many tasks that sleep and wake."""
    clock = VirtualClock()

    async def sleep() -> None:
        for _ in range(int(hours * HOUR / every)):
            await asyncio.sleep(every)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(sleep())

    begun = time.perf_counter()
    clock.run(main)
    return hours / (time.perf_counter() - begun)


def working_hub(
    hours: float = 1.0,
    *,
    store: str = "memory://",
    every: timedelta = timedelta(minutes=1),
    worker: WorkerOptions | None = None,
    sweep_every: float = 5.0,
) -> float:
    """Virtual hours per real second, of a hub with a worker, sweeps, open payments and a timer that enqueues jobs.

    The default options look every second for jobs, and four times a second for processes that died.
    """
    clock = VirtualClock()
    ran: list[float] = []

    async def main() -> float:
        hub = Holdfast(store=store, payments=[FakePayments()], clock=clock, worker=worker, sweep_every=sweep_every)

        @hub.every(every, name="tick")
        async def tick(_: object) -> None:
            ran.append(clock.elapsed)

        async with hub.lifespan():
            for number in range(5):
                await hub.payments.create(f"order-{number}", Money("10.00", "CHF"))
            begun = time.perf_counter()
            await clock.sleep(hours * HOUR)
            return time.perf_counter() - begun

    taken = clock.run(main)
    if len(ran) < hours * HOUR / every.total_seconds() - 2:
        raise RuntimeError(f"the timer rang {len(ran)} times only")
    return hours / taken


def empty_runs(runs: int = 2000) -> float:
    """Milliseconds of one fresh event loop under virtual time, made, run and closed."""

    async def sleep() -> None:
        await asyncio.sleep(1)

    begun = time.perf_counter()
    for _ in range(runs):
        VirtualClock().run(sleep)
    return (time.perf_counter() - begun) * 1000 / runs


def main() -> None:
    print(f"plain sleepers: {sleepers():,.0f} virtual hours per second")
    print(f"a working hub on memory://: {working_hub():,.2f} virtual hours per second")
    print(f"a fresh loop: {empty_runs():.3f} ms")


if __name__ == "__main__":
    main()
