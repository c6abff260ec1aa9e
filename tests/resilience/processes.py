"""A fleet of real processes, each with a guard before the same vendor on the loopback.

`python -m tests.resilience.processes URL PORT` is one of them: it does what it reads, and prints what came of it.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

from holdfast.errors import CallFailed, OutcomeUnknown
from holdfast.resilience.fleet import Fleet
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.stores import open_store
from tests.servers.ports import LOOPBACK

ROOT: Final = Path(__file__).parents[2]
OPEN_FOR: Final = 1.0
"""Seconds of the first open period, at most."""
POLICY: Final = Policy(retry=None, timeout=2, breaker=Breaker(open_for=OPEN_FOR, probes_to_close=1))
ALONE: Final = "alone"
"""Instead of a store's URL: the process shares nothing."""
LONGEST: Final = 60.0
"""Seconds an order may take."""


class Vendor:
    """Counts what reaches it; it answers `well` or `down`."""

    def __init__(self) -> None:
        self.calls = 0
        self.down = True
        self.port = 0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            self.calls += 1
            writer.write(b"down\n" if self.down else b"well\n")
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator["Vendor"]:
        async with await asyncio.start_server(self._answer, LOOPBACK, 0, backlog=1024) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


class Caller:
    """One process, as seen from outside."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def order(self, text: str) -> str:
        """Let it do this; what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(LONGEST):
            self.process.stdin.write(f"{text}\n".encode())
            await self.process.stdin.drain()
            answer = await self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a process ended when told to {text}")
        return answer.decode().strip()


@asynccontextmanager
async def callers(number: int, store: str, vendor: Vendor) -> AsyncGenerator[Sequence[Caller]]:
    """So many processes; they have ended when the block is left."""
    command = (sys.executable, "-m", __name__, store, str(vendor.port))
    async with AsyncExitStack() as running:
        started: list[Caller] = []
        for _ in range(number):
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
            running.push_async_callback(_end, process)
            started.append(Caller(process))
        await asyncio.gather(*(each.order("hello") for each in started))
        yield started


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def opened(fleet: Sequence[Caller]) -> None:
    """Let the circuits of all open, and their open periods pass."""
    for answer in await asyncio.gather(*(each.order("trip") for each in fleet)):
        if answer != "open":
            raise RuntimeError(f"a circuit is {answer} after failures in a row")
    await asyncio.sleep(1.2 * OPEN_FOR)


# What runs in each of them.


async def live(store: str, port: int) -> None:
    guard = Guard("vendor", POLICY, random=Random())
    async with AsyncExitStack() as stack:
        if store != ALONE:
            shared = await stack.enter_async_context(open_store(store))
            await stack.enter_async_context(Fleet(shared, [guard]))
        orders = await _orders()
        while order := (await orders.readline()).decode().split():
            print(await _carry_out(order, guard, port), flush=True)


async def _carry_out(order: Sequence[str], guard: Guard, port: int) -> str:
    circuit = guard.circuit()
    assert circuit is not None
    match order:
        case ["trip"]:
            while circuit.standing is not None:
                with suppress(CallFailed):
                    await guard.read(_fail)
        case ["call", number]:
            await asyncio.gather(*(guard.read(_ask, port) for _ in range(int(number))), return_exceptions=True)
        case _:
            pass
    return guard.snapshot().circuits[""].state.value


async def _ask(port: int) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(b"call\n")
        if await reader.readline() != b"well\n":
            raise OutcomeUnknown("down", status=503, hard=True)
    finally:
        writer.close()


async def _fail() -> None:
    raise OutcomeUnknown("down", status=503, hard=True)


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    asyncio.run(live(sys.argv[1], int(sys.argv[2])))
