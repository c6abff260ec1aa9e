"""The queue in SQLite."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from sqlite3 import Connection
from typing import Any

from holdfast.errors import AlreadyReplayed, NotFound
from holdfast.stores import poison
from holdfast.stores.documents import decode_strings, encode
from holdfast.stores.readiness import Outlook
from holdfast.stores.sqlite_adding import Given, add, add_each, fingerprint, prepare
from holdfast.stores.sqlite_engine import Engine
from holdfast.stores.sqlite_settling import Burying, GivingBack, Settling
from holdfast.stores.sqlite_settling import number_of as _number
from holdfast.stores.store import ALL_JOBS, Added, Change, Job, JobFilter, JobState, NewJob
from holdfast.stores.store_time import micros, moment

JOB = """
SELECT number, queue, key, kind, handler, body, headers, ordering_key, state, token, attempts, losses, generation,
    arrivals, conflicts, created_at, due_at, error, reason
FROM jobs JOIN payloads USING (number)
"""

EXPIRED = """
SELECT due_at, number, losses, queue, ordering_key FROM jobs
WHERE state = 'leased' AND lease_until <= ? AND +queue IN (SELECT value FROM json_each(?))
"""
POISONED = """
UPDATE jobs SET state = 'dead', head = 0, losses = losses + 1, ended_at = ?, reason = ?, error = ? WHERE number = ?
"""
DUE = """
SELECT due_at, number FROM jobs
WHERE queue = ? AND state = 'ready' AND head = 1 AND due_at <= ?
ORDER BY due_at, number LIMIT ?
"""
LEASE = """
UPDATE jobs SET state = 'leased', token = token + 1, losses = losses + (state = 'leased'), owner = ?, lease_until = ?
WHERE number IN (SELECT value FROM json_each(?))
"""
LEASED = f"{JOB} WHERE number IN (SELECT value FROM json_each(?))"

NEXT_IN_ORDER = """
UPDATE jobs SET head = 1
WHERE number = (
    SELECT number FROM jobs
    WHERE queue = :queue AND ordering_key = :ordering_key AND ordering_key <> '' AND state IN ('ready', 'leased')
    ORDER BY number LIMIT 1
) AND NOT EXISTS (
    SELECT 1 FROM jobs WHERE queue = :queue AND ordering_key = :ordering_key AND ordering_key <> '' AND head = 1
)
"""

HEARTBEAT = """
UPDATE jobs SET lease_until = ?
WHERE state = 'leased'
    AND (number, token) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
RETURNING number
"""
RELEASE = "UPDATE jobs SET state = 'ready' WHERE state = 'leased' AND owner = ?"

REPLAY = """
UPDATE jobs SET state = 'ready', head = ordering_key = '', token = token + 1, generation = generation + 1,
    attempts = 0, losses = 0, due_at = ?, reason = ''
WHERE number = ? AND state IN ('done', 'dead', 'ignored')
RETURNING queue, ordering_key
"""
STEP_BACK = """
UPDATE jobs SET head = 0
WHERE queue = :queue AND ordering_key = :ordering_key AND ordering_key <> '' AND head = 1 AND state = 'ready'
"""

FITS = {
    "queue": "+queue = :queue",  # a plus, for by the index of keys all of a queue would be sorted
    "kind": "kind = :kind",
    "handler": "handler = :handler",
    "reason": "reason = :reason",
    "error": "instr(error, :error)",
    "since": "created_at >= :since",
    "until": "created_at < :until",
}
IN_STATE = {
    # In the words of their index, without which it is not used.
    JobState.DEAD: "state = 'dead' AND state IN ('dead', 'ignored')",
    JobState.IGNORED: "state = 'ignored' AND state IN ('dead', 'ignored')",
}
COUNT = "SELECT queue, state, count(*) FROM jobs GROUP BY queue, state"

FORGET = """
DELETE FROM dropped WHERE fingerprint IN (SELECT fingerprint FROM dropped WHERE dropped_at <= ? LIMIT ?)
"""
OLD = """
SELECT ended_at, number, queue, key FROM jobs
WHERE state = ? AND state IN ('done', 'ignored', 'dead') AND ended_at <= ?
ORDER BY ended_at LIMIT ?
"""
ENDED = "SELECT number, queue, key FROM jobs WHERE number = ? AND state IN ('done', 'dead', 'ignored')"
DROP = "INSERT OR REPLACE INTO dropped (fingerprint, dropped_at) VALUES (?, ?)"
DROP_JOB = "DELETE FROM jobs WHERE number = ?"
REWRITE = "UPDATE payloads SET body = ?, headers = ? WHERE number = ? AND body = ?"
DROP_PAYLOAD = "DELETE FROM payloads WHERE number = ?"

# One look into the index per queue, however many jobs there are.
QUEUES = """
WITH RECURSIVE queues (name) AS (
    SELECT min(queue) FROM jobs WHERE state = 'ready' AND head = 1
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 'ready' AND head = 1 AND queue > name)
    FROM queues WHERE name IS NOT NULL
)
"""
OLDEST = f"""
{QUEUES}
SELECT name, oldest FROM (
    SELECT name, (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head = 1 AND queue = name) AS oldest
    FROM queues WHERE name IS NOT NULL
) WHERE oldest <= ?
"""
OUTLOOK = f"""
{QUEUES}
SELECT min(first), min(next) FROM (
    SELECT
        (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head = 1 AND queue = name) AS first,
        (SELECT min(due_at) FROM jobs WHERE state = 'ready' AND head = 1 AND queue = name AND due_at > :since) AS next
    FROM queues WHERE name IS NOT NULL
    UNION ALL
    SELECT
        (SELECT min(lease_until) FROM jobs WHERE state = 'leased'),
        (SELECT min(lease_until) FROM jobs WHERE state = 'leased' AND lease_until > :since)
)
"""


STATES = {state.value: state for state in JobState}


class SqliteJobs:
    """The queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settling = Settling(engine)

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        return await self._engine.write_together(
            self._add_each, prepare(jobs), committed=self._engine.readiness.changed
        )

    def adding(self, jobs: Sequence[NewJob]) -> Callable[[Connection], list[Added]]:
        """A part of a change that adds these."""
        given = prepare(jobs)
        return lambda connection: add(connection, self._engine.now(), given)

    def _add_each(self, connection: Connection, works: Sequence[Sequence[Given]]) -> list[list[Added]]:
        return add_each(connection, self._engine.now(), works)

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        def claim(connection: Connection) -> list[Any]:
            now = self._engine.now()
            due = _expired(connection, queues, now)
            for queue in dict.fromkeys(queues):
                due += connection.execute(DUE, (queue, now, max(0, limit)))
            if not due:
                return []
            numbers = json.dumps([number for _, number in sorted(due)[: max(0, limit)]])
            connection.execute(LEASE, (owner, self._engine.after(lease), numbers))
            return connection.execute(LEASED, (numbers,)).fetchall()

        self._engine.readiness.claiming()
        return [_job(row) for row in sorted(await self._engine.write(claim), key=itemgetter(16, 0))]

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        held = json.dumps([(_number(job.id), job.token) for job in claimed])

        def heartbeat(connection: Connection) -> set[str]:
            extended = connection.execute(HEARTBEAT, (self._engine.after(lease), held)).fetchall()
            return {job.id for job in claimed} - {str(number) for (number,) in extended}

        return await self._engine.write(heartbeat)

    async def complete(self, job: Job) -> None:
        await self._engine.write_together(self._settling.complete_each, job, committed=self._frees_another(job))

    async def complete_with(self, changes: Sequence[tuple[Job, Change]]) -> list[Exception | None]:
        return await self._engine.write_together(
            self._settling.complete_each_with, changes, committed=self._frees_another(*(job for job, _ in changes))
        )

    async def ignore(self, job: Job) -> None:
        await self._engine.write_together(self._settling.ignore_each, job, committed=self._frees_another(job))

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        await self._give_back(GivingBack(job, self._engine.after(after), 1, error))

    async def snooze(self, job: Job, *, after: float) -> None:
        await self._give_back(GivingBack(job, self._engine.after(after), 0, None))

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        burying = Burying(job, reason, error)
        await self._engine.write_together(self._settling.bury_each, burying, committed=self._frees_another(job))

    async def release(self, owner: str) -> int:
        return await self._engine.write(
            lambda connection: connection.execute(RELEASE, (owner,)).rowcount, committed=self._engine.readiness.changed
        )

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        def replay(connection: Connection) -> Job:
            _look(connection, job_id, generation)
            for queue, ordering_key in connection.execute(REPLAY, (self._engine.now(), _number(job_id))).fetchall():
                order = {"queue": queue, "ordering_key": ordering_key}
                connection.execute(STEP_BACK, order)
                connection.execute(NEXT_IN_ORDER, order)
            return _get(connection, job_id)

        return await self._engine.write(replay, committed=self._engine.readiness.changed)

    async def get(self, job_id: str) -> Job:
        return await self._engine.read(lambda connection: _get(connection, job_id))

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        def drop(connection: Connection) -> bool:
            _look(connection, job_id, generation)
            return _drop(connection, self._engine.now(), connection.execute(ENDED, (_number(job_id),)).fetchall()) == 1

        return await self._engine.write(drop)

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        query, wanted = _list(where, after, newest)
        wanted["limit"] = max(0, limit)
        return await self._engine.read(lambda connection: [_job(row) for row in connection.execute(query, wanted)])

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        return await self._engine.read(
            lambda connection: {(queue, JobState(state)): rows for queue, state, rows in connection.execute(COUNT)}
        )

    async def oldest(self) -> Mapping[str, datetime]:
        now = self._engine.now()
        return await self._engine.read(
            lambda connection: {queue: moment(due_at) for queue, due_at in connection.execute(OLDEST, (now,))}
        )

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        def purge(connection: Connection) -> int:
            horizon, now = self._engine.after(-older_than), self._engine.now()
            connection.execute(FORGET, (horizon, limit))
            old = [row for state in set(states) for row in connection.execute(OLD, (state, horizon, limit))]
            return _drop(connection, now, [row[1:] for row in sorted(old)[:limit]])

        return await self._engine.write(purge)

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        change = (body, encode(headers), _number(job.id), job.body)
        return await self._engine.write(lambda connection: connection.execute(REWRITE, change).rowcount == 1)

    async def wait(self, timeout: float) -> None:
        with self._engine.watching():
            await self._engine.readiness.wait(timeout, self._outlook)

    async def _outlook(self, claimed_at: datetime) -> Outlook:
        since = micros(claimed_at)
        first, due = await self._engine.read(
            lambda connection: connection.execute(OUTLOOK, {"since": since}).fetchone()
        )
        return Outlook(overdue=first is not None and first <= since, next=None if due is None else moment(due))

    def _frees_another(self, *jobs: Job) -> Callable[[], None] | None:
        return self._engine.readiness.changed if any(job.ordering_key for job in jobs) else None

    async def _give_back(self, work: GivingBack) -> None:
        await self._engine.write_together(self._settling.give_back_each, work, committed=self._engine.readiness.changed)


def _expired(connection: Connection, queues: Sequence[str], now: int) -> list[tuple[int, int]]:
    """Leased jobs that may be claimed again; those that were lost too often are buried."""
    claimable: list[tuple[int, int]] = []
    expired = connection.execute(EXPIRED, (now, json.dumps(queues))).fetchall()
    for due_at, number, losses, queue, ordering_key in expired:
        if losses + 1 < poison.MAX_LOSSES:
            claimable.append((due_at, number))
        else:
            connection.execute(POISONED, (now, poison.REASON, poison.ERROR, number))
            connection.execute(NEXT_IN_ORDER, {"queue": queue, "ordering_key": ordering_key})
    return claimable


def _list(where: JobFilter, after: str, newest: bool) -> tuple[str, dict[str, object]]:
    """Only the conditions that are asked for, so that each kind of list has a plan of its own."""
    wanted: dict[str, object] = {name: value for name in FITS if (value := getattr(where, name)) is not None}
    wanted |= {name: micros(moment) for name in ("since", "until") if (moment := getattr(where, name)) is not None}
    conditions = [FITS[name] for name in wanted]
    if where.state is not None:
        conditions.append(IN_STATE.get(where.state, f"state = '{where.state}'"))
    if after:
        conditions.append("number < :after" if newest else "number > :after")
        wanted["after"] = _place(after)
    found = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"{JOB} {found} ORDER BY number {'DESC' if newest else 'ASC'} LIMIT :limit", wanted


def _look(connection: Connection, job_id: str, generation: int | None) -> None:
    """Raises NotFound, AlreadyReplayed."""
    found = connection.execute("SELECT generation FROM jobs WHERE number = ?", (_number(job_id),)).fetchone()
    if found is None:
        raise NotFound("job", job_id)
    if generation not in (None, found[0]):
        raise AlreadyReplayed(job_id, found[0])


def _drop(connection: Connection, now: int, ended: Sequence[tuple[int, str, str]]) -> int:
    """Drop these and keep their keys; how many they are."""
    connection.executemany(DROP, [(fingerprint(queue, key), now) for _, queue, key in ended])
    connection.executemany(DROP_PAYLOAD, [(number,) for number, _, _ in ended])
    connection.executemany(DROP_JOB, [(number,) for number, _, _ in ended])
    return len(ended)


def _get(connection: Connection, job_id: str) -> Job:
    row = connection.execute(f"{JOB} WHERE number = ?", (_number(job_id),)).fetchone()
    if row is None:
        raise NotFound("job", job_id)
    return _job(row)


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
        state=STATES[row[8]],
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


def _place(job_id: str) -> int:
    """Raises NotFound: it cannot be one of ours."""
    number = _number(job_id)
    if not number:
        raise NotFound("job", job_id)
    return number
