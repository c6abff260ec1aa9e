"""An outage: what a rejected call costs, and how much of what is offered still reaches the provider."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from benchmarks._measure import BARE, Report, Timings, arguments, measure, publish, versions
from holdfast.errors import CallFailed, CircuitOpen, OutcomeUnknown
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.resilience.simulate import Failure, simulate

RPS: Final = 50
OUTAGE: Final = 600
"""Seconds."""
POLICY: Final = Policy(deadline=20, timeout=5)
CLOSED: Final = replace(POLICY, breaker=None)
"""As if nothing opened the circuit."""
REMARKS: Final = {
    "rejected_us": "one call while the circuit is open, above the bare call",
    "sent_over_offered_outage": f"{OUTAGE // 60} minutes of nothing but 500s, {RPS} calls a second",
    "sent_over_offered_40pct": f"{OUTAGE // 60} minutes of two failures in five from the first call on, the circuit kept closed",
}


async def exchange() -> None: ...


def main() -> None:
    options = arguments("outage", __doc__).parse_args()
    timings = asyncio.run(reject())
    down = simulate(POLICY, rps=RPS, outage=OUTAGE)
    ailing = simulate(CLOSED, rps=RPS, outage=OUTAGE, start=0, failure=Failure(share=0.4))
    publish(
        Report(
            name="outage",
            figures={
                "rejected_us": round(timings.above_bare("rejected"), 3),
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
