"""An outage: what a rejected call costs, and how much of what is offered still reaches the provider."""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from benchmarks._measure import BARE, Report, Timings, arguments, measure, publish, versions
from holdfast.errors import CallFailed, CircuitOpen, OutcomeUnknown
from holdfast.resilience.fleet import Fleet
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.resilience.simulate import Failure, simulate
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Json, Lease

RPS: Final = 50
OUTAGE: Final = 600
"""Seconds."""
POLICY: Final = Policy(deadline=20, timeout=5)
CLOSED: Final = replace(POLICY, breaker=None)
"""As if nothing opened the circuit."""
AT_ONCE: Final = 50
LATENCY: Final = 0.001
"""Seconds the store takes for anything."""
STALL_ROUNDS: Final = 41
STALL_ROUND: Final = 0.15
"""Seconds; at its begin the circuit changes, which is published."""
REMARKS: Final = {
    "rejected_us": "one call while the circuit is open, above the bare call",
    "loop_stall_ms": "how much longer the event loop stands still at worst, 50 calls at once, shared state 1 ms away",
    "sent_over_offered_outage": f"{OUTAGE // 60} minutes of nothing but 500s, {RPS} calls a second",
    "sent_over_offered_40pct": f"{OUTAGE // 60} minutes of two failures in five, the circuit kept closed",
}


async def exchange() -> None: ...


def main() -> None:
    options = arguments("outage", __doc__).parse_args()
    timings = asyncio.run(reject())
    stall = asyncio.run(loop_stall())
    down = simulate(POLICY, rps=RPS, outage=OUTAGE)
    ailing = simulate(CLOSED, rps=RPS, outage=OUTAGE, start=0, failure=Failure(share=0.4))
    publish(
        Report(
            name="outage",
            figures={
                "rejected_us": round(timings.above_bare("rejected"), 3),
                "loop_stall_ms": round(stall * 1000, 3),
                "sent_over_offered_outage": round(down.sent_over_offered, 5),
                "sent_over_offered_40pct": round(ailing.sent_over_offered, 4),
            },
            versions=versions("holdfast"),
            remarks=REMARKS,
            lines=["", *(f"  {line}" for line in down.summary().splitlines()), ""],
            timings=timings,
        ),
        options,
    )


async def reject() -> Timings:
    candidates: dict[str, Callable[[], Awaitable[object]]] = {BARE: exchange, "rejected": await rejected()}
    return await measure(candidates, rounds=31)


class DistantStore:
    """A store in memory that takes its time."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self.published = 0
        self.leases = self.bus = self

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        await asyncio.sleep(LATENCY)
        return await self._memory.leases.acquire(name, owner=owner, ttl=ttl)

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        await asyncio.sleep(LATENCY)
        return await self._memory.leases.renew(lease, ttl=ttl)

    async def release(self, lease: Lease) -> None:
        await asyncio.sleep(LATENCY)
        await self._memory.leases.release(lease)

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        await asyncio.sleep(LATENCY)
        self.published += 1
        await self._memory.bus.publish(topic, fact)

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        return self._memory.bus.listen(topic)


async def loop_stall() -> float:
    """Seconds the loop stands still at worst, above a guard that shares nothing; both in turn."""
    alone, shared = (Guard(name, POLICY) for name in ("alone", "shared"))
    stalls: dict[Guard, list[float]] = {alone: [], shared: []}
    gc.disable()  # its pauses are longer than what is measured
    async with MemoryStore() as memory:
        store = DistantStore(memory)
        async with Fleet(store, [shared]):
            for number in range(STALL_ROUNDS):
                for guard in (alone, shared) if number % 2 else (shared, alone):
                    guard.metrics_only("to be published")
                    guard.automatic()
                    stalls[guard].append(await _longest_turn(guard))
        if store.published < STALL_ROUNDS / 2:
            raise AssertionError("too little was published to say anything")
    gc.enable()
    return max(0.0, statistics.median(stalls[shared]) - statistics.median(stalls[alone]))


async def _longest_turn(guard: Guard) -> float:
    """The longest turn of the loop while many calls are made through the guard."""
    gc.collect()
    until = time.perf_counter() + STALL_ROUND
    longest = 0.0

    async def call() -> None:
        while time.perf_counter() < until:
            await guard.read(asyncio.sleep, LATENCY)

    async with asyncio.TaskGroup() as calls:
        for _ in range(AT_ONCE):
            calls.create_task(call())
        before = time.perf_counter()
        while before < until:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
    return longest


async def rejected() -> Callable[[], Awaitable[None]]:
    """A call of a guard whose circuit is open."""
    guard = Guard("down", replace(POLICY, breaker=Breaker(consecutive=1, open_for=3600, open_cap=3600)))

    async def fail() -> None:
        raise OutcomeUnknown("down", hard=True)

    async def call() -> None:
        try:
            await guard.read(exchange)
        except CircuitOpen:
            return
        raise AssertionError("the circuit is not open")

    try:
        await guard.once(fail)
    except CallFailed:
        await call()
    return call


if __name__ == "__main__":
    main()
