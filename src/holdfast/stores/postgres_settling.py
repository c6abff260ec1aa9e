"""Ending and giving back claimed jobs: what many callers settle at once becomes one statement and one commit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.types.numeric import Int8

from holdfast.errors import LeaseLost
from holdfast.stores.postgres_adding import lock
from holdfast.stores.postgres_connection import Connection, select
from holdfast.stores.postgres_time import MOMENT, ServerTime
from holdfast.stores.store import JobState

# The token and the state are compared on the locked row, so that whoever lost the lease changes nothing.
SETTLE: Final = f"""
WITH {MOMENT},
given AS (
    SELECT * FROM unnest(
        %(numbers)s::bigint[], %(tokens)s::bigint[], %(states)s::text[], %(delays)s::bigint[], %(attempts)s::bigint[],
        %(reasons)s::text[], %(errors)s::text[]
    ) AS given (number, token, state, delay, attempts, reason, error)
),
held AS MATERIALIZED (
    SELECT number FROM jobs
    WHERE state = 'leased' AND (number, token) IN (SELECT number, token FROM given)
    ORDER BY number FOR UPDATE
)
UPDATE jobs SET
    state = given.state,
    head = jobs.head AND given.state = 'ready',
    due_at = CASE WHEN given.state = 'ready' THEN now + given.delay ELSE jobs.due_at END,
    ended_at = CASE WHEN given.state = 'ready' THEN jobs.ended_at ELSE now END,
    attempts = jobs.attempts + given.attempts,
    reason = given.reason,
    error = coalesce(given.error, jobs.error)
FROM held JOIN given USING (number) CROSS JOIN moment
WHERE jobs.number = held.number
RETURNING jobs.number
"""
NEXT_IN_LINE: Final = """
UPDATE jobs SET head = true WHERE number IN (
    SELECT (
        SELECT number FROM jobs
        WHERE line = given.line AND line IS NOT NULL AND state IN ('ready', 'leased') ORDER BY number LIMIT 1
    )
    FROM unnest(%s::bigint[]) AS given (line)
    WHERE NOT EXISTS (SELECT FROM jobs WHERE line = given.line AND line IS NOT NULL AND head)
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settling:
    """What becomes of a claimed job."""

    number: int
    token: int
    line: int | None
    state: JobState
    delay: int = 0
    attempts: int = 0
    reason: str = ""
    error: str | None = None

    @property
    def frees_another(self) -> bool:
        return self.line is not None and self.state is not JobState.READY

    @property
    def frees_work(self) -> bool:
        """Somebody may have something to claim."""
        return self.frees_another or self.state is JobState.READY


async def settle_each(time: ServerTime, connection: Connection, works: Sequence[Settling]) -> list[LeaseLost | None]:
    """Settle what several callers hold; whose token is not current is refused alone."""
    rounds = list(_each_job_once(works))
    lines = [work.line for work in works if work.frees_another]
    if not lines and len(rounds) == 1:
        return await _settle(connection, time, works)
    async with connection.transaction():
        await lock(connection, lines)
        settled = [lost for once in rounds for lost in await _settle(connection, time, once)]
        await promote(connection, lines)
    return settled


async def promote(connection: Connection, lines: Sequence[int | None]) -> None:
    """Let the next of these ordering keys run, whose locks the transaction holds."""
    numbers = [Int8(line) for line in set(lines) if line is not None]
    if numbers:
        await connection.execute(NEXT_IN_LINE, [numbers])


async def _settle(connection: Connection, time: ServerTime, works: Sequence[Settling]) -> list[LeaseLost | None]:
    columns = {
        "numbers": [Int8(work.number) for work in works],
        "tokens": [Int8(work.token) for work in works],
        "states": [work.state.value for work in works],
        "delays": [Int8(work.delay) for work in works],
        "attempts": [Int8(work.attempts) for work in works],
        "reasons": [work.reason for work in works],
        "errors": [work.error for work in works],
    }
    done = {number for (number,) in await select(connection, SETTLE, time.parameters() | columns)}
    return [None if work.number in done else LeaseLost(f"job {work.number}") for work in works]


def _each_job_once(works: Sequence[Settling]) -> Iterator[Sequence[Settling]]:
    """Split before the second of the same job, which has to see what the first one did."""
    seen: set[int] = set()
    begin = 0
    for place, work in enumerate(works):
        if work.number in seen:
            yield works[begin:place]
            seen.clear()
            begin = place
        seen.add(work.number)
    yield works[begin:]
