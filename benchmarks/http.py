"""What a request costs the caller's processor: a typed client beneath a guard, and httpx with the parts named most.

The server is a process of its own on 127.0.0.1; only the client's time is counted.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import aiohttp
import aiolimiter
import anyio
import httpx
import pybreaker
import tenacity
from pydantic import BaseModel

from benchmarks._measure import BARE, Report, Timings, arguments, publish, versions
from holdfast.clock import SystemClock
from holdfast.http.aiohttp_transport import AiohttpTransport
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.http.vendor import HttpDefaults
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Budget, Policy, Rate, Retry

PACKAGES: Final = ("holdfast", "httpx", "aiohttp", "pydantic", "tenacity", "pybreaker", "aiolimiter", "anyio")
AT_ONCE: Final = 64
REQUESTS: Final = 320
"""Of each candidate in each round."""
BARE_REQUESTS: Final = 10 * REQUESTS
"""Of the bare call, which is so much quicker, and whose spread says whether the machine was quiet."""
ROUNDS: Final = 15
NEVER_REACHED: Final = 1_000_000
"""Calls a second."""
FULL: Final = Policy(
    deadline=20,
    retry=Retry(),
    budget=Budget(),
    rate=Rate(NEVER_REACHED),
    concurrency=AT_ONCE,
    breaker=Breaker(),
    timeout=5,
)
REMARKS: Final = {
    "ratio_fast": f"requests per second of processor time, {AT_ONCE} at once: over aiohttp, over the card's",
    "ratio_default": "the same with the default transport",
    "card_us": "httpx, tenacity, pybreaker, aiolimiter, CapacityLimiter, asyncio.timeout, response.json()",
    "httpx_us": "httpx alone, response.json()",
    "default_us": "typed client and guard, into a pydantic model",
    "fast_us": "the same, over aiohttp",
    "bare_us": "aiohttp alone, the body not even read as JSON",
    "connections": "the most the default transport had open at once",
    "connections_sequential": "the same, one request after the other",
}

Request = Callable[[], Awaitable[object]]


class Invoice(BaseModel):
    """What the server answers with."""

    id: str
    amount: Decimal
    currency: str
    status: str
    live: bool


@dataclass(frozen=True, kw_only=True)
class Shop(HttpDefaults):
    """A vendor."""

    base_url: str
    name: str = "shop"


def main() -> None:
    parser = arguments("http", __doc__)
    parser.add_argument("--serve", action="store_true", help="be the server; the benchmark starts it by itself")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    with server() as url:
        timings, connections = asyncio.run(run(url))
    publish(
        Report(
            name="http",
            figures=figures(timings) | connections,
            versions=versions(*PACKAGES),
            remarks=REMARKS,
            timings=timings,
        ),
        options,
    )


async def run(url: str) -> tuple[Timings, dict[str, float]]:
    async with AsyncExitStack() as stack:
        ours = {"default": typed(url, HttpxTransport()), "fast": typed(url, HttpxTransport(AiohttpTransport()))}
        for http in ours.values():
            stack.push_async_callback(http.aclose)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        session = await stack.enter_async_context(aiohttp.ClientSession(base_url=url))
        default = request(ours["default"])

        async def bare() -> bytes:
            async with session.get("/invoice") as answer:
                return await answer.read()

        async def plain() -> object:
            return (await client.get("/invoice")).json()

        await several(default, 100, at_once=1)
        sequential = await open_connections(session)
        candidates = {BARE: bare, "httpx": plain, "card": card(client)}
        candidates |= {"default": default, "fast": request(ours["fast"])}
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        await several(default, REQUESTS, at_once=AT_ONCE)
        parallel = await open_connections(session)
        for function in candidates.values():
            await several(function, 2 * AT_ONCE, at_once=AT_ONCE)
        for _ in range(ROUNDS):
            for name, function in candidates.items():
                times = BARE_REQUESTS if name == BARE else REQUESTS
                samples[name].append(await several(function, times, at_once=AT_ONCE))
        # The session that asks has one itself.
        return Timings(samples), {"connections": parallel - 1, "connections_sequential": sequential - 1}


def typed(url: str, transport: HttpxTransport) -> Http:
    return Http(Shop(base_url=url), transport, Guard("shop", FULL), SystemClock())


def request(http: Http) -> Request:
    async def fetch() -> Invoice:
        return await http.get("/invoice", Invoice, operation="fetch")

    return fetch


def card(client: httpx.AsyncClient) -> Request:
    """The parts that are named most."""
    limiter, places = aiolimiter.AsyncLimiter(NEVER_REACHED, 1), anyio.CapacityLimiter(AT_ONCE)
    breaker = pybreaker.CircuitBreaker(exclude=[asyncio.CancelledError])

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(httpx.TransportError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(0.1, max=20),
    )
    async def fetch() -> Any:
        async with limiter, places:
            with breaker.calling():
                async with asyncio.timeout(5):
                    response = await client.get("/invoice")
                    return response.json()

    return fetch


async def several(function: Request, times: int, *, at_once: int) -> float:
    """Microseconds of this process's processor time per request."""

    async def worker() -> None:
        for _ in range(times // at_once):
            await function()

    begun = time.process_time_ns()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return (time.process_time_ns() - begun) / 1000 / times


async def open_connections(session: aiohttp.ClientSession) -> int:
    async with session.get("/connections") as answer:
        return int(await answer.text())


def figures(timings: Timings) -> dict[str, float]:
    medians = {name: timings.median(name) for name in timings.samples}
    ratios = {f"ratio_{name}": medians["card"] / medians[name] for name in ("fast", "default")}
    return {name: round(ratio, 2) for name, ratio in ratios.items()} | {
        f"{name}_us": round(median, 1) for name, median in medians.items()
    }


# The server: so small that the client is what takes time.


class Answering(asyncio.Protocol):
    """Answers every request on a connection, whatever it asks."""

    open = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Answering.open += 1
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        Answering.open -= 1

    def data_received(self, data: bytes) -> None:
        body = b'{"id":"inv_0123456789","amount":"120.00","currency":"CHF","status":"paid","live":true}'
        if b" /connections " in data:
            body = b"%d" % Answering.open
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write((head + body) * data.count(b"\r\n\r\n"))


async def serve() -> None:
    """Serve until standard input ends; the first line says where."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(Answering, "127.0.0.1", 0, backlog=256)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    listener.close()


@contextmanager
def server() -> Generator[str]:
    """Its address; it ends with the block."""
    command = [sys.executable, "-m", "benchmarks.http", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.communicate()


if __name__ == "__main__":
    main()
