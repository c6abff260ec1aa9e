"""What a protected call costs when all goes well: every layer, each layer alone, and the parts of others."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import aiolimiter
import anyio
import httpware
import httpx2
import hyx.circuitbreaker
import hyx.retry
import pybreaker
import redress
import tenacity
from httpware.middleware.chain import compose_async

from benchmarks._measure import BARE, Report, Timings, arguments, measure, measure_sync, publish, versions
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Budget, Policy, Rate, Retry

PACKAGES: Final = (
    "holdfast",
    "tenacity",
    "pybreaker",
    "aiolimiter",
    "anyio",
    "hyx",
    "redress",
    "httpware",
)
NEVER_REACHED: Final = 1_000_000
"""Calls a second."""
FULL: Final = Policy(
    deadline=20,
    retry=Retry(),
    budget=Budget(),
    rate=Rate(NEVER_REACHED),
    concurrency=64,
    breaker=Breaker(),
    timeout=5,
)
OFF: Final = Policy(retry=None, budget=None, breaker=None, timeout=None)
LAYERS: Final = {
    "deadline": replace(OFF, deadline=20),
    "retry": replace(OFF, retry=Retry()),
    "budget": replace(OFF, budget=Budget()),
    "rate": replace(OFF, rate=Rate(NEVER_REACHED)),
    "concurrency": replace(OFF, concurrency=64),
    "breaker": replace(OFF, breaker=Breaker()),
    "timeout": replace(OFF, timeout=5),
}
LIKE_REDRESS: Final = replace(OFF, deadline=20, retry=Retry(), breaker=Breaker())
LIKE_HTTPWARE: Final = replace(LIKE_REDRESS, budget=Budget(), concurrency=64)

Call = Callable[[], Awaitable[object]]


class Status:
    """What a provider answers."""

    status = 200


STATUS: Final = Status()


async def exchange() -> Status:
    return STATUS


def exchange_sync() -> Status:
    return STATUS


def main() -> None:
    parser = arguments("guard", __doc__)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each candidate (default 15)")
    parser.add_argument("--calls", type=int, default=2000, help="calls in a sample (default 2000)")
    options = parser.parse_args()

    timings = asyncio.run(run(options.rounds, options.calls))
    sync = measure_sync(
        {BARE: exchange_sync, "ours": partial(Guard("full", FULL).sync.idempotent, exchange_sync)},
        rounds=options.rounds,
        calls=options.calls,
    )

    publish(
        Report(
            name="guard",
            figures=figures(timings) | {"ours_sync_us": round(sync.above_bare("ours"), 3)},
            versions=versions(*PACKAGES),
            remarks=REMARKS,
            timings=timings,
        ),
        options,
    )


async def run(rounds: int, calls: int) -> Timings:
    candidates = {BARE: exchange, "timeout": with_timeout} | ours() | theirs()
    return await measure(candidates, rounds=rounds, calls=calls)


def ours() -> dict[str, Call]:
    guards: dict[str, Call] = {
        "ours": partial(Guard("full", FULL).idempotent, exchange),
        "ours_read": partial(Guard("full", FULL).read, exchange),
        "off": partial(Guard("off", OFF).idempotent, exchange),
        "like_redress": partial(Guard("like-redress", LIKE_REDRESS).read, exchange),
        "like_httpware": partial(Guard("like-httpware", LIKE_HTTPWARE).read, exchange),
    }
    alone: dict[str, Call] = {
        f"layer_{name}": partial(Guard(name, policy).idempotent, exchange) for name, policy in LAYERS.items()
    }
    return guards | alone


def theirs() -> dict[str, Call]:
    return {"parts": parts(), "card": card(), "redress": redress_policy(), "httpware": httpware_chain()}


async def with_timeout() -> Status:
    async with asyncio.timeout(5):  # noqa: ASYNC100  # empty: its own cost
        return STATUS


def parts() -> Call:
    """The cheapest parts there are."""
    limiter, places = aiolimiter.AsyncLimiter(NEVER_REACHED, 1), asyncio.Semaphore(64)
    breaker = hyx.circuitbreaker.consecutive_breaker(exceptions=OSError)

    @hyx.retry.retry(on=OSError, attempts=2, backoff=0.1)
    async def protected() -> Status:
        async with limiter, places, breaker, asyncio.timeout(5):
            return await exchange()

    return protected


def card() -> Call:
    """The parts that are named most."""
    limiter, places = aiolimiter.AsyncLimiter(NEVER_REACHED, 1), anyio.CapacityLimiter(64)
    breaker = pybreaker.CircuitBreaker(exclude=[asyncio.CancelledError])

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(OSError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(0.1, max=20),
    )
    async def protected() -> Status:
        async with limiter, places:
            with breaker.calling():
                async with asyncio.timeout(5):
                    return await exchange()

    return protected


def redress_policy() -> Call:
    """Deadline, retry and breaker: its time limit per attempt makes a task on Python 3.11, and is left out."""
    policy = redress.AsyncPolicy(
        retry=redress.AsyncRetry(
            classifier=redress.default_classifier,
            strategy=redress.decorrelated_jitter(0.1, 20),
            deadline_s=20,
            max_attempts=3,
        ),
        circuit_breaker=redress.CircuitBreaker(),
    )
    return partial(policy.call, exchange)


def httpware_chain() -> Call:
    """Breaker, deadline, places, retry and its budget, in the order of its documentation; without its client."""
    request = httpx2.Request("GET", "http://provider/")
    response = httpx2.Response(200, request=request)

    async def provider(_request: httpx2.Request) -> httpx2.Response:
        return response

    chain = compose_async(
        [
            httpware.AsyncCircuitBreaker(failure_rate_threshold=0.5),
            httpware.AsyncTimeout(timeout=20),
            httpware.AsyncBulkhead(max_concurrent=64),
            httpware.AsyncRetry(),
        ],
        provider,
    )
    return partial(chain, request)


def figures(timings: Timings) -> dict[str, float]:
    above = timings.above_bare
    full = above("ours")
    times = {
        "ours_us": full,
        "ours_read_us": above("ours_read"),
        "timeout_us": above("timeout"),
        "over_timeout": full / above("timeout"),
        "ratio_parts": above("parts") / full,
        "ratio_card": above("card") / full,
        "ratio_redress": above("redress") / above("like_redress"),
        "ratio_httpware": above("httpware") / above("like_httpware"),
        "off_us": above("off"),
    }
    alone = {f"layer_{name}_us": above(f"layer_{name}") - above("off") for name in LAYERS}
    bare = {"bare_us": timings.median(BARE), "bare_spread": timings.spread(BARE)}
    return {name: round(figure, 3) for name, figure in (times | alone | bare).items()}


REMARKS: Final = {
    "ours_us": "every layer, two circuits; above the bare call",
    "ours_read_us": "every layer, one circuit",
    "timeout_us": "an empty `async with asyncio.timeout(5)`, above the bare call",
    "over_timeout": "ours_us / timeout_us",
    "ratio_parts": "hyx retry and breaker, aiolimiter, Semaphore, asyncio.timeout, over ours",
    "ratio_card": "tenacity, pybreaker, aiolimiter, CapacityLimiter, asyncio.timeout, over ours",
    "ratio_redress": "deadline, retry, breaker on both sides",
    "ratio_httpware": "breaker, deadline, places, retry, budget on both sides",
    "off_us": "a guard with every layer off",
    **{f"layer_{name}_us": "alone, above a guard with every layer off" for name in LAYERS},
    "ours_sync_us": "every layer, two circuits, from code without a loop; above a bare call",
    "bare_spread": "90th percentile over median",
}


if __name__ == "__main__":
    main()
