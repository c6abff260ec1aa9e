"""Adding jobs: what many callers add at once becomes one statement and one commit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.numeric import Int8

from holdfast.errors import InvalidInput
from holdfast.stores.documents import encode, utf8
from holdfast.stores.postgres_connection import Connection, fingerprint, lock_number, select
from holdfast.stores.postgres_time import MOMENT, ServerTime, span
from holdfast.stores.store import Added, NewJob

# Keys are taken in the order of their fingerprints, so that two such statements wait for each other in one direction.
ADD: Final = f"""
WITH {MOMENT},
given AS MATERIALIZED (
    SELECT nextval('job_numbers') AS number, given.* FROM unnest(
        %(fingerprints)b::bytea[], %(queues)s::text[], %(keys)s::text[], %(kinds)s::text[], %(handlers)s::text[],
        %(ordering_keys)s::text[], %(lines)s::bigint[], %(digests)s::text[], %(states)s::text[], %(delays)s::bigint[],
        %(headers)s::text[], %(bodies)b::bytea[]
    ) WITH ORDINALITY AS given (
        fingerprint, queue, key, kind, handler, ordering_key, line, digest, state, delay, headers, body, place
    )
),
fresh AS (
    INSERT INTO keys (fingerprint, number)
    SELECT DISTINCT ON (fingerprint) fingerprint, number FROM given ORDER BY fingerprint, number
    ON CONFLICT DO NOTHING
    RETURNING number
),
added AS MATERIALIZED (
    SELECT given.*, row_number() OVER (PARTITION BY line, state ORDER BY number) AS nth
    FROM given JOIN fresh USING (number)
),
added_jobs AS (
    INSERT INTO jobs (number, fingerprint, queue, key, kind, handler, ordering_key, line, digest, state, head,
        created_at, due_at, ended_at)
    SELECT number, fingerprint, queue, key, kind, handler, ordering_key, line, digest, state,
        state = 'ready' AND (line IS NULL
            OR nth = 1 AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.line = added.line AND other.head)),
        now, now + delay, now
    FROM added CROSS JOIN moment
),
added_payloads AS (
    INSERT INTO payloads (number, headers, body) SELECT number, headers, body FROM added
)
SELECT place FROM added
"""
# In the order of the rows' numbers, as every statement that waits for several rows.
ARRIVE_AGAIN: Final = """
WITH given AS (
    SELECT * FROM unnest(%(fingerprints)b::bytea[], %(digests)s::text[]) AS given (fingerprint, digest)
),
there AS MATERIALIZED (
    SELECT number, fingerprint, digest FROM jobs
    WHERE number IN (SELECT number FROM keys JOIN given USING (fingerprint))
    ORDER BY number FOR UPDATE
),
counted AS (
    SELECT there.number, count(*) AS arrivals, count(*) FILTER (WHERE given.digest <> there.digest) AS conflicts
    FROM there JOIN given USING (fingerprint) GROUP BY there.number
),
changed AS (
    UPDATE jobs SET arrivals = jobs.arrivals + counted.arrivals, conflicts = jobs.conflicts + counted.conflicts
    FROM counted WHERE jobs.number = counted.number
)
SELECT fingerprint, digest FROM there
"""
LOCK: Final = "SELECT pg_advisory_xact_lock(number) FROM unnest(%s::bigint[]) AS number"

LOCKS: Final = 1024
"""Ordering keys share this many locks, since the server has room for a few thousand."""


@dataclass(frozen=True, slots=True)
class Given:
    """A job to add, as it is written."""

    new: NewJob
    fingerprint: bytes
    line: int | None
    headers: str


def prepare(jobs: Sequence[NewJob]) -> list[Given]:
    """Raises InvalidInput: one of them holds what no database keeps."""
    return [_given(new) for new in jobs]


def line_of(queue: str, ordering_key: str) -> int | None:
    """What stands for the two where jobs run in order."""
    return lock_number(queue, ordering_key) if ordering_key else None


async def lock(connection: Connection, lines: Iterable[int | None]) -> None:
    """Keep others from changing who is next of these ordering keys, until the transaction ends.

    It must be a statement of its own: the one after it then sees what the one who held the lock before committed.
    """
    numbers = sorted({_FIRST_LOCK + line % LOCKS for line in lines if line is not None})
    if numbers:
        await connection.execute(LOCK, [[Int8(number) for number in numbers]])


async def add(connection: Connection, time: ServerTime, given: Sequence[Given]) -> list[Added]:
    """Add these in the open transaction, which holds the locks of their ordering keys."""
    if not given:
        return []
    places = {place for (place,) in await select(connection, ADD, time.parameters() | _columns(given))}
    digests = {job.fingerprint: job.new.digest for place, job in enumerate(given, 1) if place in places}
    again = [job for place, job in enumerate(given, 1) if place not in places]
    if again:
        columns = {
            "fingerprints": [job.fingerprint for job in again],
            "digests": [job.new.digest for job in again],
        }
        digests |= dict(await select(connection, ARRIVE_AGAIN, columns))
    return [
        Added.NEW if place in places else _compared(job.new.digest, digests.get(job.fingerprint))
        for place, job in enumerate(given, 1)
    ]


async def add_each(time: ServerTime, connection: Connection, works: Sequence[Sequence[Given]]) -> list[list[Added]]:
    """Add what several callers gave, in one transaction."""
    given = [job for work in works for job in work]
    async with connection.transaction():
        await lock(connection, [job.line for job in given])
        added = iter(await add(connection, time, given))
    return [[next(added) for _ in work] for work in works]


_FIRST_LOCK: Final = lock_number("ordering keys") // LOCKS * LOCKS


def _given(new: NewJob) -> Given:
    for text in (new.queue, new.key, new.kind, new.handler, new.ordering_key, new.digest):
        if b"\0" in utf8(text):
            raise InvalidInput(f"{text!r} holds a NUL, which PostgreSQL does not keep")
    return Given(new, fingerprint(new.queue, new.key), line_of(new.queue, new.ordering_key), encode(new.headers))


def _columns(given: Sequence[Given]) -> dict[str, Any]:
    jobs = [job.new for job in given]
    return {
        "fingerprints": [job.fingerprint for job in given],
        "queues": [new.queue for new in jobs],
        "keys": [new.key for new in jobs],
        "kinds": [new.kind for new in jobs],
        "handlers": [new.handler for new in jobs],
        "ordering_keys": [new.ordering_key for new in jobs],
        "lines": [None if job.line is None else Int8(job.line) for job in given],
        "digests": [new.digest for new in jobs],
        "states": ["ignored" if new.ignored else "ready" for new in jobs],
        "delays": [span(new.delay) for new in jobs],
        "headers": [job.headers for job in given],
        "bodies": [new.body for new in jobs],
    }


def _compared(digest: str, first: str | None) -> Added:
    """None: the first is dropped, and only its key is left."""
    return Added.DUPLICATE if first is None or first == digest else Added.CONFLICT
