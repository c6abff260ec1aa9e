"""What the processes do that are killed: receive over HTTP, or work. A fork of a warm parent begins here."""

import asyncio
import os
import resource
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio
import uvicorn

from chaos import instrument, mutations
from chaos.journal import Journal
from chaos.points import VARIABLE, Points
from chaos.shop import Effects, Happened, InFile, InPostgres, Shop
from holdfast import WorkerOptions
from holdfast.errors import StoreError
from holdfast.queue import events
from holdfast.queue.backlog import BacklogLimits

__all__ = ["Role", "begin"]

_WARM = (psycopg, redis.asyncio)  # what would otherwise be loaded in every process

events.encode(Happened(id="warm", reference="up", at=datetime.now(UTC)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A process to start."""

    kind: str
    """`receiver` or `worker`."""
    url: str
    directory: Path
    port: int = 0
    options: WorkerOptions = field(default_factory=WorkerOptions)
    crash: str = ""
    mutation: str = ""
    prune: float = 0.0
    """The age of jobs whose payloads it keeps dropping; 0: none."""
    wall: bool = False
    """Its wall clock is wrong by as much as the file `wall` in the directory says."""
    backlog: int = 0
    """The receiver refuses when so many wait; 0: as usual."""
    largest_file: int = 0
    """No file may grow beyond so many bytes; 0: any may."""
    inside: bool = False
    """Effects commit with the end of their jobs, in the store's own file."""
    effects: str = ""
    """The URL of the user's database; empty: a SQLite file in the directory."""


def begin(role: Role, said: Connection) -> None:
    """The whole life of a process; it says once that it is ready."""
    os.environ[VARIABLE] = role.crash
    log = os.open(role.directory / f"{role.kind}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(_live(role, said))


async def _live(role: Role, said: Connection) -> None:
    journal = Journal(role.directory / "work.jsonl")
    points = Points.from_environment(journal)
    effects = _effects(role)
    if role.wall:
        mutations.follow(role.directory / "wall")
    if role.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (role.largest_file, resource.RLIM_INFINITY))
    instrument.sqlite(points)
    instrument.redis(points)
    instrument.postgres(points)
    backlog = BacklogLimits(soft=role.backlog, hard=role.backlog) if role.backlog else None
    shop = Shop(role.url, options=role.options, journal=journal, points=points, effects=effects, backlog=backlog)
    mutations.apply(role.mutation, shop.store)
    instrument.store(shop.store, journal, points)
    while True:
        try:
            await shop.__aenter__()
            break
        except StoreError:  # the server is not there at this moment
            await asyncio.sleep(0.05)
    journal.write("ready", pid=os.getpid(), at=time.monotonic(), role=role.kind)
    if role.kind == "receiver":
        await _receive(shop, role, points, said)
    else:
        said.send(os.getpid())
        async with asyncio.TaskGroup() as group:
            group.create_task(shop.work())
            if role.prune:
                group.create_task(_prune(shop, role.prune, journal))


def _effects(role: Role) -> Effects | None:
    """The user's database; None: the store's own file."""
    if role.inside:
        return None
    if role.effects:
        return InPostgres(role.effects)
    return InFile(role.directory / "shop.db", proof=role.mutation != mutations.WITHOUT_PROOF)


async def _receive(shop: Shop, role: Role, points: Points, said: Connection) -> None:
    app: Any = instrument.receiver(shop.receiver, points)
    config = uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, server_header=False, backlog=128)
    listener = socket.create_server(("127.0.0.1", role.port), backlog=128)
    said.send(os.getpid())
    await uvicorn.Server(config).serve([listener])


async def _prune(shop: Shop, age: float, journal: Journal) -> None:
    while True:
        await asyncio.sleep(0.05)
        journal.write("purging", at=time.monotonic())
        with suppress(StoreError):
            dropped = await shop.store.jobs.purge(older_than=age, limit=50)
            journal.write("purged", at=time.monotonic(), jobs=dropped)
