"""The vendor: sends over real HTTP, again where it got no answer, and writes down for itself what it was told."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from chaos.journal import Journal
from chaos.shop import NAME, SIGNATURE, sign

TIMEOUT: Final = 5.0
PAUSE: Final = 0.02
SYNC_EVERY: Final = 0.02
REMEMBERED: Final = 40
RECENT: Final = 4.0
"""Seconds in which something is sent once more, well within the time keys are kept."""


class Connection:
    """One connection to one receiver, made again when it is lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None, path: str = f"/{NAME}") -> int | None:
        """The status of the answer; None: there was none, and nobody knows what became of it."""
        head = {"host": "shop.example", "content-length": str(len(body)), SIGNATURE: sign(body)} | dict(headers or {})
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        try:
            async with asyncio.timeout(TIMEOUT):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write("\r\n".join(lines).encode() + body)
                await writer.drain()
                return await self._answer(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return None

    async def _answer(self, reader: asyncio.StreamReader) -> int:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return status

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(kw_only=True)
class Traffic:
    """What is sent, and how much of it."""

    rate: float = 250.0
    """New ones a second, of all lanes together."""
    lanes: int = 24
    modes: Mapping[str, int] = field(default_factory=lambda: {"plain": 92, "slow": 6, "fails": 2})
    again: float = 0.12
    """Part of those that were accepted which are sent once more."""
    conflicts: float = 0.03
    given_up: float = 0.02
    """How often a missing answer makes the vendor give up."""


class Producer:
    """Many lanes, each with its own connection and its own objects, whose order it keeps."""

    def __init__(self, ports: list[int], journal: Journal, chance: Random, traffic: Traffic | None = None) -> None:
        self._ports = ports
        self._journal = journal
        self._chance = chance
        self._traffic = traffic or Traffic()
        self._numbers = iter(range(10**9))
        self._stopping = False
        self.sent: set[str] = set()
        self.acked: set[str] = set()

    async def run(self) -> None:
        """Send until told to stop; what is under way then is brought to its end."""
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(self._lane(number)) for number in range(self._traffic.lanes)]
            syncing = group.create_task(self._sync())
            await asyncio.wait(lanes)
            syncing.cancel()
        self._journal.sync()

    def stop(self) -> None:
        """No new ones."""
        self._stopping = True

    def sync(self) -> None:
        """What was noted so far is on the disk."""
        self._journal.sync()

    def fact(self, mode: str = "plain", order: str = "", seq: int = 0) -> dict[str, Any]:
        """A new one, to be sent."""
        return {"id": f"e{next(self._numbers)}", "order": order, "seq": seq, "mode": mode}

    async def send(self, mode: str, *, order: str = "", seq: int = 0) -> str:
        """One, until it is accepted; its id."""
        fact = self.fact(mode, order, seq)
        connection = Connection(self._ports[0])
        await self.insist(connection, fact)
        connection.close()
        self._journal.sync()
        return str(fact["id"])

    async def insist(self, connection: Connection, fact: dict[str, Any]) -> None:
        """Send it until it is accepted."""
        while True:
            if await self.attempt(connection, fact):
                return
            await asyncio.sleep(PAUSE)

    async def _lane(self, number: int) -> None:
        connection = Connection(self._ports[number % len(self._ports)])
        chance = Random(self._chance.random())
        recent: deque[tuple[float, dict[str, Any]]] = deque(maxlen=REMEMBERED)
        seqs = {f"{number}-{each}": 0 for each in range(3)}
        traffic = self._traffic
        interval = traffic.lanes / traffic.rate
        due = time.monotonic() + interval * chance.random()
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic() - 1.0)
            order = chance.choice(["", "", "", *seqs])
            if order:
                seqs[order] += 1
            [mode] = chance.choices([*traffic.modes], [*traffic.modes.values()])
            fact = self.fact(mode, order, seqs.get(order, 0))
            if await self._deliver(connection, fact, chance):
                recent.append((time.monotonic(), fact))
            while recent and recent[0][0] < time.monotonic() - RECENT:
                recent.popleft()
            if recent and chance.random() < traffic.again:
                await self.attempt(connection, chance.choice(recent)[1])
            if recent and chance.random() < traffic.conflicts:
                await self.attempt(connection, chance.choice(recent)[1] | {"variant": "other"})
        connection.close()

    async def _deliver(self, connection: Connection, fact: dict[str, Any], chance: Random) -> bool:
        """Until it is accepted, or given up; an object's next one is not sent before that."""
        while not await self.attempt(connection, fact):
            if chance.random() < self._traffic.given_up:
                return False
            await asyncio.sleep(PAUSE)
        return True

    async def attempt(self, connection: Connection, fact: dict[str, Any]) -> bool:
        """Send it once; whether it was accepted."""
        self.sent.add(fact["id"])
        self._journal.write("sent", **fact)
        status = await connection.post(json.dumps(fact).encode())
        self._journal.write("answer", id=fact["id"], status=status, at=time.monotonic())
        accepted = status is not None and 200 <= status < 300
        if accepted:
            self.acked.add(fact["id"])
        return accepted

    async def _sync(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(SYNC_EVERY)
                await asyncio.to_thread(self._journal.sync)


async def until(true: Callable[[], Any], within: float, every: float = 0.02) -> bool:
    """Whether it became true in that time."""
    end = time.monotonic() + within
    while not true():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(every)
    return True
