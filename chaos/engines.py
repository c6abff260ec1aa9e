"""The stores under test: where they are, and what can be done to them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from chaos.journal import Journal
from chaos.shop import InFile, InPostgres, InStore
from holdfast.stores import open_store
from holdfast.stores.redis_address import Durability
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

Hit = Callable[[], Awaitable[None]]
INSIDE: Final = "sqlite, transactional handlers"
DOWN: Final = (0.05, 0.4)
"""Seconds a server stays away."""
ROOM: Final = 1_000_000
"""Bytes a server that is about to be full has left."""
PATIENCE: Final = 5.0
"""Seconds for a server to write down what it was given."""
SETTLING: Final = 1.5
"""Seconds after a server came back in which connections are made again."""


@dataclass(kw_only=True)
class Engine:
    """One store, ready for use."""

    name: str
    url: str
    effects: str = ""
    """The URL of the user's database; empty: a SQLite file in the directory."""
    level: str = ""
    """What the store promises when it says that something is kept."""
    inside: bool = False
    """Effects are in the store's own file, and commit with the end of their jobs."""
    hits: Mapping[str, Hit] = field(default_factory=dict[str, Hit])
    """What can be done to the store itself, and counts as a kill."""


@asynccontextmanager
async def sqlite(directory: Path, faults: Journal, chance: Random) -> AsyncGenerator[Engine]:
    """A file."""
    InFile.create(directory / "shop.db")
    yield Engine(name="sqlite", url=f"sqlite:///{directory}/holdfast.db", level="WAL, synchronous=FULL")


@asynccontextmanager
async def sqlite_inside(directory: Path, faults: Journal, chance: Random) -> AsyncGenerator[Engine]:
    """A file that holds the user's table as well."""
    url = f"sqlite:///{directory}/holdfast.db"
    async with open_store(url):
        """Ours first, or it would be somebody else's file."""
    InStore.create(directory / "holdfast.db")
    yield Engine(name="sqlite", url=url, level="WAL, synchronous=FULL", inside=True)


@asynccontextmanager
async def redis(directory: Path, faults: Journal, chance: Random) -> AsyncGenerator[Engine]:
    """A server of our own, with an append-only file that is synced every second."""
    InFile.create(directory / "shop.db")
    server = RedisServer(directory / "redis")

    async def restart() -> None:
        async with _outage(faults):
            await asyncio.to_thread(_wait_for_the_log, server)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(chance.uniform(*DOWN))
            await asyncio.to_thread(server.start)

    def ask(*command: str) -> Hit:
        async def hit() -> None:
            async with _outage(faults):
                await asyncio.to_thread(server.ask, *command)

        return hit

    async def fill() -> None:
        used = (await asyncio.to_thread(server.ask, "INFO", "memory"))["used_memory"]
        await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory", str(used + ROOM))

    await asyncio.to_thread(server.start)
    try:
        yield Engine(
            name="redis",
            url=f"{server.url}?timeout=1&durability={Durability.ASYNC}",
            level="appendonly yes, appendfsync everysec",
            hits={
                "server": restart,
                "scripts": ask("SCRIPT", "FLUSH"),
                "clients": ask("CLIENT", "KILL", "TYPE", "normal"),
                "listeners": ask("CLIENT", "KILL", "TYPE", "pubsub"),
                "rewrite": ask("BGREWRITEAOF"),
                "full": fill,
                "relieve": ask("CONFIG", "SET", "maxmemory", "0"),
            },
        )
    finally:
        await asyncio.to_thread(server.stop)


def _wait_for_the_log(server: RedisServer) -> None:
    """While its fsync is under way, the server keeps to itself for up to two seconds even what it only has to write.

    That is said in what is guaranteed; on a slow disk it would be found again and again.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        known = server.ask("INFO", "persistence")
        if not known["aof_pending_bio_fsync"] and not known["aof_buffer_length"]:
            return
        time.sleep(0.01)


@asynccontextmanager
async def postgresql(directory: Path, faults: Journal, chance: Random) -> AsyncGenerator[Engine]:
    """A server of our own, which holds the user's tables as well."""
    server = PostgresServer()

    async def restart() -> None:
        async with _outage(faults):
            await asyncio.to_thread(server.crash)
            await asyncio.sleep(chance.uniform(*DOWN))
            await asyncio.to_thread(server.start)

    async def terminate() -> None:
        async with _outage(faults):
            await asyncio.to_thread(server.execute, TERMINATE)

    await asyncio.to_thread(server.start)
    try:
        await asyncio.to_thread(InPostgres.create, server.url)
        yield Engine(
            name="postgresql",
            url=server.url,
            effects=server.url,
            level="synchronous_commit=on",
            hits={"server": restart, "backends": terminate},
        )
    finally:
        await asyncio.to_thread(server.__exit__)


TERMINATE: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.6
"""


@asynccontextmanager
async def _outage(faults: Journal) -> AsyncGenerator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        faults.write("outage", at=began, until=time.monotonic() + SETTLING)


ENGINES: Final = {"sqlite": sqlite, INSIDE: sqlite_inside, "redis": redis, "postgresql": postgresql}
