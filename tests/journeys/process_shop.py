"""A hub as a user's module has it, for processes that the command line starts; all it is told is in the environment."""

import asyncio
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from holdfast import Event, Holdfast, Secrets, WorkerOptions
from tests.payments.vendors import SigningVendor

DIRECTORY = os.environ.get("PROCESS_SHOP", "")
SECONDS = float(os.environ.get("PROCESS_SHOP_SECONDS", "0"))


def make(worker: WorkerOptions) -> Holdfast:
    """The hub with another worker."""
    return Holdfast(
        store=f"sqlite:///{DIRECTORY}/holdfast.db",
        secret=Secrets("process-secret"),
        public_url="https://shop.example/webhooks",
        payments=[SigningVendor(name="signed")],
        worker=worker,
    )


hub = make(WorkerOptions(idle=0.05, grace=5))
quick = make(WorkerOptions(idle=0.05, grace=5, lease=1.0, heartbeat=0.2))


@dataclass(frozen=True, kw_only=True)
class Ordered(Event):
    """Something was ordered."""

    type: ClassVar[str] = "test.ordered"


def note(what: str, reference: str) -> None:
    """Write down, where the test sees it, who did what."""
    with closing(sqlite3.connect(f"{DIRECTORY}/notes.db", timeout=10)) as notes, notes:
        notes.execute("CREATE TABLE IF NOT EXISTS notes (what TEXT, reference TEXT, pid INTEGER)")
        notes.execute("INSERT INTO notes VALUES (?, ?, ?)", (what, reference, os.getpid()))


@quick.on(Ordered, name="ship")
@hub.on(Ordered, name="ship")
async def ship(ordered: Ordered) -> None:
    """Take a while."""
    note("begun", ordered.reference)
    if ordered.reference.startswith("deadly"):
        os._exit(9)
    await asyncio.sleep(SECONDS)
    note("done", ordered.reference)
