"""Waiting for a job, and noticing what other processes add meanwhile."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from holdfast.clock import Clock
from holdfast.stores.postgres_connection import Connection, select
from holdfast.stores.postgres_time import MOMENT, ServerTime
from holdfast.stores.readiness import Outlook, Readiness
from holdfast.stores.store_time import StoreTime

Rows = list[TupleRow]
Query = Callable[[Connection], Awaitable[Rows]]

# One look into the index per queue, however many jobs there are.
OUTLOOK: Final = f"""
WITH RECURSIVE {MOMENT},
queues (name) AS (
    SELECT min(queue) FROM jobs WHERE state = 'ready' AND head
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 'ready' AND head AND queue > name)
    FROM queues WHERE name IS NOT NULL
),
ahead (first, next) AS (
    SELECT
        (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head AND queue = name),
        (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head AND queue = name AND due_at > %(since)s::bigint)
    FROM queues WHERE name IS NOT NULL
    UNION ALL
    SELECT min(lease_until), min(lease_until) FILTER (WHERE lease_until > %(since)s::bigint)
    FROM jobs WHERE state = 'leased'
)
SELECT now, min(first), min(next) FROM ahead CROSS JOIN moment GROUP BY now
"""


class Waiting:
    """Who waits for a job, and what they know of the next one."""

    def __init__(self, clock: Clock, time: ServerTime, run: Callable[[Query], Awaitable[Rows]]) -> None:
        self._time = time
        self._run = run
        self._local = StoreTime(clock)
        self._readiness = Readiness(clock, self._local)
        self._claimed_at = 0
        self._known: tuple[bool, int | None] = (False, None)

    def changed(self) -> None:
        """Jobs were added, given back, or freed."""
        self._readiness.changed()

    def claiming(self) -> None:
        """A claim begins."""
        self._readiness.claiming()

    def claimed(self, at: int) -> None:
        """It saw what was due at that moment of the server."""
        self._claimed_at = at

    async def wait(self, timeout: float) -> None:
        """Return at the next change or due job, or after `timeout` seconds."""
        await self._readiness.wait(timeout, self._outlook)

    async def look(self) -> None:
        """Wake those who wait when there is more, or something sooner, than they know."""
        _, overdue, coming = await self._ask()
        knew_overdue, knew_coming = self._known
        sooner = coming is not None and (knew_coming is None or coming < knew_coming)
        if sooner or (overdue and not knew_overdue):
            self.changed()

    async def _outlook(self, claimed_at: datetime) -> Outlook:
        asked_at = self._local.now()
        now, overdue, coming = await self._ask()
        self._known = (overdue, coming)
        return Outlook(
            overdue=overdue,
            next=None if coming is None else asked_at + timedelta(microseconds=coming - now),
        )

    async def _ask(self) -> tuple[int, bool, int | None]:
        """The server's time, whether something could have been claimed before, and when the next one is due."""
        since = self._claimed_at
        parameters = self._time.parameters() | {"since": Int8(since)}
        [(now, first, coming)] = await self._run(lambda connection: select(connection, OUTLOOK, parameters))
        return now, first is not None and first <= since, coming
