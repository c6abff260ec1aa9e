"""What is there when all is done: of files, threads, rows and keys."""

import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from redis import Redis

from chaos.stage import Stage
from holdfast.stores import open_store
from holdfast.stores.redis_address import parse
from holdfast.stores.store import JobState

WAL: Final = 64 * 1024 * 1024
"""Bytes of log that are kept at most."""
SPARE: Final = 8
"""Files and threads that come and go."""
PASSING: Final = ("job", "body", "due", "held", "order", "head", "rows", "ended", "out", "outbody", "key", "gone")
"""Keys in Redis that end with their jobs, or with the memory of them."""
ENDED: Final = (JobState.DONE, JobState.IGNORED, JobState.DEAD)

Leftovers = dict[str, tuple[float, float]]


@asynccontextmanager
async def of_process(pid: int, found: Leftovers) -> AsyncGenerator[None]:
    """What it has open more in the end than in the beginning."""
    before = _opened(pid)
    yield
    for what, number in _opened(pid).items():
        found[what] = number, before[what] + SPARE


async def of_store(stage: Stage) -> Leftovers:
    """What is in it when everything that ended was dropped, and the memory of it as well."""
    found: Leftovers = {}
    if stage.engine.name == "sqlite":
        found["bytes of log"] = sum(file.stat().st_size for file in stage.directory.glob("holdfast.db-wal")), WAL
    async with open_store(stage.engine.url) as store:
        for _ in range(2):
            while await store.jobs.purge(older_than=0.0, states=ENDED, limit=1000):
                pass
        found["jobs"] = sum((await store.jobs.count()).values()), 0
    if stage.engine.name == "sqlite":
        with closing(sqlite3.connect(stage.directory / "holdfast.db")) as file:
            [(state,)] = file.execute("PRAGMA integrity_check").fetchall()
            found["damaged pages"] = float(state != "ok"), 0
            [(payloads,)] = file.execute("SELECT count(*) FROM payloads").fetchall()
            found["payloads"] = payloads, 0
    if stage.engine.name == "redis":
        host, port = parse(stage.engine.url).hosts[0]
        server: Any = Redis(host=host, port=port)
        with server:
            left: list[str] = [key.decode() for key in server.keys("*:*")]
        found["keys"] = sum(key.rpartition(":")[2] in PASSING for key in left), 0
    return found


def _opened(pid: int) -> dict[str, int]:
    process = Path(f"/proc/{pid}")
    return {
        "files of a worker": len(os.listdir(process / "fd")),
        "threads of a worker": len(os.listdir(process / "task")),
    }
