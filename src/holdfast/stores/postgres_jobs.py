"""The queue in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.types.numeric import Int8

from holdfast.errors import AlreadyReplayed, NotFound
from holdfast.stores import poison
from holdfast.stores.documents import decode_strings, encode
from holdfast.stores.postgres_adding import line_of, lock, prepare
from holdfast.stores.postgres_connection import Connection, select
from holdfast.stores.postgres_engine import Engine
from holdfast.stores.postgres_settling import Settling, promote
from holdfast.stores.postgres_time import MOMENT, ServerTime, span
from holdfast.stores.store import ALL_JOBS, Added, Job, JobFilter, JobState, NewJob
from holdfast.stores.store_time import micros, moment

COLUMNS: Final = """
number, queue, key, kind, handler, body, headers, ordering_key, state, token, attempts, losses, generation, arrivals,
    conflicts, created_at, due_at, error, reason
"""

# Who is locked is being claimed by somebody else, and passed over. The row of `moment` comes in any case, and says
# whether anything is to be buried.
CLAIM: Final = f"""
WITH {MOMENT},
expired AS MATERIALIZED (
    SELECT number, due_at FROM jobs
    WHERE state = 'leased' AND queue = ANY (%(queues)s::text[]) AND lease_until <= (SELECT now FROM moment)
        AND losses + 1 < %(most)s::bigint
    ORDER BY due_at, number LIMIT %(limit)s::bigint FOR UPDATE SKIP LOCKED
),
due AS MATERIALIZED (
    SELECT mine.number, mine.due_at FROM unnest(%(queues)s::text[]) AS served (queue) CROSS JOIN LATERAL (
        SELECT number, due_at FROM jobs
        WHERE jobs.queue = served.queue AND state = 'ready' AND head AND due_at <= (SELECT now FROM moment)
        ORDER BY due_at, number LIMIT %(limit)s::bigint FOR UPDATE SKIP LOCKED
    ) AS mine
),
chosen AS MATERIALIZED (
    SELECT number FROM (SELECT * FROM expired UNION ALL SELECT * FROM due) AS both_of_them
    ORDER BY due_at, number LIMIT %(limit)s::bigint
),
leased AS (
    UPDATE jobs SET state = 'leased', token = token + 1, losses = losses + (state = 'leased')::int,
        owner = %(owner)s::text, lease_until = (SELECT now FROM moment) + %(lease)s::bigint
    FROM chosen WHERE jobs.number = chosen.number
    RETURNING jobs.*
)
SELECT
    now,
    EXISTS (
        SELECT FROM jobs WHERE state = 'leased' AND queue = ANY (%(queues)s::text[])
            AND lease_until <= now AND losses + 1 >= %(most)s::bigint
    ),
    claimed.*
FROM moment LEFT JOIN (SELECT {COLUMNS} FROM leased JOIN payloads USING (number)) AS claimed ON true
ORDER BY due_at, number
"""
LOST_TOO_OFTEN: Final = f"""
WITH {MOMENT}
SELECT number, line FROM jobs
WHERE state = 'leased' AND queue = ANY (%(queues)s::text[]) AND lease_until <= (SELECT now FROM moment)
    AND losses + 1 >= %(most)s::bigint
"""
BURY_LOST: Final = f"""
WITH {MOMENT},
poisonous AS MATERIALIZED (
    SELECT number FROM jobs
    WHERE number = ANY (%(numbers)s::bigint[]) AND state = 'leased' AND lease_until <= (SELECT now FROM moment)
        AND losses + 1 >= %(most)s::bigint
    ORDER BY number FOR UPDATE
)
UPDATE jobs SET state = 'dead', head = false, losses = losses + 1, ended_at = (SELECT now FROM moment),
    reason = %(reason)s::text, error = %(error)s::text
FROM poisonous WHERE jobs.number = poisonous.number
"""

HEARTBEAT: Final = f"""
WITH {MOMENT},
held AS MATERIALIZED (
    SELECT number FROM jobs
    WHERE state = 'leased' AND (number, token) IN (SELECT * FROM unnest(%(numbers)s::bigint[], %(tokens)s::bigint[]))
    ORDER BY number FOR UPDATE
)
UPDATE jobs SET lease_until = (SELECT now FROM moment) + %(lease)s::bigint
FROM held WHERE jobs.number = held.number
RETURNING jobs.number
"""
RELEASE: Final = """
WITH held AS MATERIALIZED (
    SELECT number FROM jobs WHERE state = 'leased' AND owner = %s ORDER BY number FOR UPDATE
)
UPDATE jobs SET state = 'ready' FROM held WHERE jobs.number = held.number
RETURNING jobs.number
"""

LINE: Final = "SELECT line FROM jobs WHERE number = %s"
GENERATION: Final = "SELECT generation FROM jobs WHERE number = %s FOR UPDATE"
REPLAY: Final = f"""
WITH {MOMENT}
UPDATE jobs SET state = 'ready', head = line IS NULL, token = token + 1, generation = generation + 1, attempts = 0,
    losses = 0, due_at = (SELECT now FROM moment), reason = ''
WHERE number = %(number)s::bigint AND state IN ('done', 'dead', 'ignored')
"""
STEP_BACK: Final = "UPDATE jobs SET head = false WHERE line = %s AND line IS NOT NULL AND head AND state = 'ready'"

GET: Final = f"SELECT {COLUMNS} FROM jobs JOIN payloads USING (number) WHERE number = %s"
REWRITE: Final = """
UPDATE payloads SET body = %(body)s, headers = %(headers)s WHERE number = %(number)s AND body = %(present)s
RETURNING number
"""
LIST: Final = "SELECT * FROM jobs WHERE true"
FITS: Final[dict[str, LiteralString]] = {
    "queue": " AND queue = %(queue)s",
    "state": " AND state = %(state)s",
    "kind": " AND kind = %(kind)s",
    "handler": " AND handler = %(handler)s",
    "reason": " AND reason = %(reason)s",
    "error": " AND strpos(error, %(error)s) > 0",
    "since": " AND created_at >= %(since)s",
    "until": " AND created_at < %(until)s",
}
BEFORE: Final = " AND number < %(after)s"
BEHIND: Final = " AND number > %(after)s"
NEWEST: Final = " ORDER BY number DESC"
OLDEST: Final = " ORDER BY number"
LIMIT: Final = " LIMIT %(limit)s"
COUNT: Final = "SELECT queue, state, count(*) FROM jobs GROUP BY queue, state"

# One look into the index per queue, however many jobs there are.
LONGEST_DUE: Final = f"""
WITH RECURSIVE {MOMENT},
queues (name) AS (
    SELECT min(queue) FROM jobs WHERE state = 'ready' AND head
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 'ready' AND head AND queue > name)
    FROM queues WHERE name IS NOT NULL
)
SELECT name, oldest FROM (
    SELECT name, (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head AND queue = name) AS oldest
    FROM queues WHERE name IS NOT NULL
) AS each_queue CROSS JOIN moment WHERE oldest <= now
"""

FORGET: Final = f"""
WITH {MOMENT}
DELETE FROM keys WHERE fingerprint IN (
    SELECT fingerprint FROM keys
    WHERE dropped_at IS NOT NULL AND dropped_at <= (SELECT now FROM moment) - %(older_than)s::bigint
    ORDER BY dropped_at LIMIT %(limit)s::bigint FOR UPDATE SKIP LOCKED
)
"""
OLD: Final = """
old AS MATERIALIZED (
    SELECT mine.number, mine.fingerprint FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT number, fingerprint, ended_at FROM jobs
        WHERE jobs.state = wanted.state AND jobs.state IN ('done', 'ignored', 'dead')
            AND ended_at <= (SELECT now FROM moment) - %(older_than)s::bigint
        ORDER BY ended_at, number LIMIT %(limit)s::bigint FOR UPDATE SKIP LOCKED
    ) AS mine
    ORDER BY mine.ended_at, mine.number LIMIT %(limit)s::bigint
)
"""
ENDED: Final = """
old AS MATERIALIZED (
    SELECT number, fingerprint FROM jobs WHERE number = %(number)s::bigint AND state IN ('done', 'ignored', 'dead')
    FOR UPDATE
)
"""
DROP: Final = """
dropped AS (UPDATE keys SET dropped_at = (SELECT now FROM moment) FROM old WHERE keys.fingerprint = old.fingerprint),
dropped_payloads AS (DELETE FROM payloads USING old WHERE payloads.number = old.number)
DELETE FROM jobs USING old WHERE jobs.number = old.number
RETURNING jobs.number
"""
DROP_OLD: Final = f"WITH {MOMENT}, {OLD}, {DROP}"
DROP_ENDED: Final = f"WITH {MOMENT}, {ENDED}, {DROP}"

MOST_LOSSES: Final = Int8(poison.MAX_LOSSES)


class PostgresJobs:
    """The queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        return await self._engine.add(prepare(jobs))

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        served = [*dict.fromkeys(queues)]
        wanted = {"queues": served, "owner": owner, "lease": span(lease), "most": MOST_LOSSES}

        async def claim(connection: Connection) -> list[Job]:
            claimed, poisonous = await _claim(connection, self._engine, wanted, limit)
            if poisonous:
                await _bury_lost(connection, self._engine.time, served)
                freed, _ = await _claim(connection, self._engine, wanted, limit - len(claimed))
                claimed = sorted(claimed + freed, key=lambda job: (job.due_at, int(job.id)))
            return claimed

        self._engine.waiting.claiming()
        return await self._engine.run(claim)

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        held = {
            "numbers": [_number(job.id) for job in claimed],
            "tokens": [Int8(job.token) for job in claimed],
            "lease": span(lease),
        }

        async def heartbeat(connection: Connection) -> set[str]:
            extended = await select(connection, HEARTBEAT, self._engine.time.parameters() | held)
            return {job.id for job in claimed} - {str(number) for (number,) in extended}

        return await self._engine.run(heartbeat, urgent=True) if claimed else set()

    async def complete(self, job: Job) -> None:
        await self._settle(job, JobState.DONE)

    async def ignore(self, job: Job) -> None:
        await self._settle(job, JobState.IGNORED)

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        await self._settle(job, JobState.READY, delay=span(after), attempts=1, error=error)

    async def snooze(self, job: Job, *, after: float) -> None:
        await self._settle(job, JobState.READY, delay=span(after))

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        await self._settle(job, JobState.DEAD, reason=reason, error=error)

    async def release(self, owner: str) -> int:
        released = await self._engine.run(
            lambda connection: select(connection, RELEASE, [owner]), committed=self._engine.jobs_changed_here
        )
        return len(released)

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        number = _number(job_id)

        async def replay(connection: Connection) -> Job:
            async with connection.transaction():
                lines = [line for (line,) in await select(connection, LINE, [number])]
                await lock(connection, lines)
                await _look(connection, job_id, generation)
                async with connection.cursor() as cursor:
                    await cursor.execute(REPLAY, self._engine.time.parameters() | {"number": number})
                    replayed = cursor.rowcount
                if replayed:
                    await connection.execute(STEP_BACK, lines)
                    await promote(connection, lines)
                return await _get(connection, job_id)

        return await self._engine.run(replay, committed=self._engine.jobs_changed_here)

    async def get(self, job_id: str) -> Job:
        return await self._engine.run(lambda connection: _get(connection, job_id))

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        async def drop(connection: Connection) -> bool:
            async with connection.transaction():
                await _look(connection, job_id, generation)
                number = {"number": _number(job_id)}
                return bool(await select(connection, DROP_ENDED, self._engine.time.parameters() | number))

        return await self._engine.run(drop)

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        # Only the conditions that are asked for, so that each kind of list has a plan of its own.
        wanted = _wanted(where)
        found: LiteralString = LIST
        for name in wanted:
            found += FITS[name]
        if after:
            wanted["after"] = _place(after)
            found += BEFORE if newest else BEHIND
        order = NEWEST if newest else OLDEST
        query = f"SELECT {COLUMNS} FROM ({found}{order}{LIMIT}) AS found JOIN payloads USING (number) {order}"
        wanted["limit"] = max(0, limit)
        return [_job(row) for row in await self._engine.run(lambda connection: select(connection, query, wanted))]

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        rows = await self._engine.run(lambda connection: select(connection, COUNT))
        return {(queue, JobState(state)): jobs for queue, state, jobs in rows}

    async def oldest(self) -> Mapping[str, datetime]:
        rows = await self._engine.run(
            lambda connection: select(connection, LONGEST_DUE, self._engine.time.parameters())
        )
        return {queue: moment(due_at) for queue, due_at in rows}

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        ended = [*{state.value for state in states}]
        wanted = {"older_than": span(older_than), "limit": limit}

        async def purge(connection: Connection) -> int:
            parameters = self._engine.time.parameters() | wanted
            async with connection.transaction():
                await select(connection, FORGET, parameters)
                return len(await select(connection, DROP_OLD, parameters | {"states": ended}))

        return await self._engine.run(purge)

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        change = {"body": body, "headers": encode(headers), "number": _number(job.id), "present": job.body}
        return bool(await self._engine.run(lambda connection: select(connection, REWRITE, change)))

    async def wait(self, timeout: float) -> None:
        with self._engine.watching():
            await self._engine.waiting.wait(timeout)

    async def _settle(
        self,
        job: Job,
        state: JobState,
        *,
        delay: Int8 = Int8(0),  # noqa: B008  # a constant
        attempts: int = 0,
        reason: str = "",
        error: str | None = None,
    ) -> None:
        settling = Settling(
            number=_number(job.id),
            token=job.token,
            line=line_of(job.queue, job.ordering_key),
            state=state,
            delay=delay,
            attempts=attempts,
            reason=reason,
            error=None if error is None else _printable(error),
        )
        await self._engine.settle(settling)


async def _claim(connection: Connection, engine: Engine, wanted: dict[str, Any], limit: int) -> tuple[list[Job], bool]:
    """What is leased now, and whether something is to be buried."""
    parameters = engine.time.parameters() | wanted | {"limit": max(0, limit)}
    rows = await select(connection, CLAIM, parameters)
    now, poisonous = rows[0][:2]
    engine.waiting.claimed(now)
    return [_job(row[2:]) for row in rows if row[2] is not None], poisonous


async def _bury_lost(connection: Connection, time: ServerTime, queues: Sequence[str]) -> None:
    """Bury what was lost too often, and let the next of its ordering key run."""
    lost = await select(connection, LOST_TOO_OFTEN, time.parameters() | {"queues": queues, "most": MOST_LOSSES})
    lines = [line for _, line in lost]
    why = {
        "numbers": [Int8(number) for number, _ in lost],
        "reason": poison.REASON,
        "error": poison.ERROR,
        "most": MOST_LOSSES,
    }
    async with connection.transaction():
        await lock(connection, lines)
        await select(connection, BURY_LOST, time.parameters() | why)
        await promote(connection, lines)


async def _look(connection: Connection, job_id: str, generation: int | None) -> None:
    """Hold the row. Raises NotFound, AlreadyReplayed."""
    rows = await select(connection, GENERATION, [_number(job_id)])
    if not rows:
        raise NotFound("job", job_id)
    [(found,)] = rows
    if generation not in (None, found):
        raise AlreadyReplayed(job_id, found)


async def _get(connection: Connection, job_id: str) -> Job:
    rows = await select(connection, GET, [_number(job_id)])
    if not rows:
        raise NotFound("job", job_id)
    return _job(rows[0])


def _job(row: Sequence[Any]) -> Job:
    return Job(
        id=str(row[0]),
        queue=row[1],
        key=row[2],
        kind=row[3],
        handler=row[4],
        body=row[5],
        headers=decode_strings(row[6]),
        ordering_key=row[7],
        state=JobState(row[8]),
        token=row[9],
        attempts=row[10],
        losses=row[11],
        generation=row[12],
        arrivals=row[13],
        conflicts=row[14],
        created_at=moment(row[15]),
        due_at=moment(row[16]),
        error=row[17],
        reason=row[18],
    )


def _wanted(where: JobFilter) -> dict[str, Any]:
    """What the conditions are given."""
    wanted: dict[str, Any] = {name: value for name in FITS if (value := getattr(where, name)) is not None}
    if where.state is not None:
        wanted["state"] = where.state.value
    for name in ("since", "until"):
        if name in wanted:
            wanted[name] = Int8(micros(wanted[name]))
    return wanted


def _place(job_id: str) -> Int8:
    """Raises NotFound: it cannot be one of ours."""
    number = _number(job_id)
    if not number:
        raise NotFound("job", job_id)
    return number


def _number(job_id: str) -> Int8:
    """Zero, which no job has, when it cannot be one of ours."""
    return Int8(int(job_id)) if job_id.isascii() and job_id.isdigit() and len(job_id) < 19 else Int8(0)


def _printable(error: str) -> str:
    """Somebody else's words must not keep a job from being settled: a NUL or half a character is replaced."""
    return error.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
