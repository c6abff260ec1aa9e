"""Ending and giving back claimed jobs: what many callers settle at once shares a few statements."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from sqlite3 import Connection
from typing import Final, NamedTuple

from holdfast.errors import LeaseLost
from holdfast.stores.sqlite_engine import Engine
from holdfast.stores.sqlite_transactions import LONGEST, Changes
from holdfast.stores.store import Change, Job, JobState

END: Final = """
UPDATE jobs SET state = ?, head = 0, ended_at = ?, reason = ''
FROM json_each(?) AS given
WHERE jobs.number = given.key AND jobs.token = given.value AND jobs.state = 'leased'
"""
BURY: Final = """
UPDATE jobs SET state = 'dead', head = 0, ended_at = ?, reason = ?, error = ?
WHERE number = ? AND token = ? AND state = 'leased'
"""
GIVE_BACK: Final = """
UPDATE jobs SET state = 'ready', due_at = ?, attempts = attempts + ?, error = coalesce(?, error)
WHERE number = ? AND token = ? AND state = 'leased'
"""
PROMOTE: Final = """
UPDATE jobs SET head = 1 WHERE number IN (
    SELECT (
        SELECT number FROM jobs AS next
        WHERE next.queue = ended.queue AND next.ordering_key = ended.ordering_key AND next.ordering_key <> ''
            AND next.state IN ('ready', 'leased')
        ORDER BY number LIMIT 1
    )
    FROM json_each(?) AS given CROSS JOIN jobs AS ended ON ended.number = given.key
    WHERE NOT EXISTS (
        SELECT 1 FROM jobs AS head
        WHERE head.queue = ended.queue AND head.ordering_key = ended.ordering_key AND head.ordering_key <> ''
            AND head.head = 1
    )
)
"""
HELD: Final = """
SELECT json_group_array(given.key) FROM json_each(?) AS given CROSS JOIN jobs
WHERE jobs.number = given.key AND jobs.token = given.value AND jobs.state = 'leased'
"""


class Burying(NamedTuple):
    """A job that is to be dead, and why."""

    job: Job
    reason: str
    error: str


class GivingBack(NamedTuple):
    """A job that is to be ready again at a time, in microseconds."""

    job: Job
    due_at: int
    attempts: int
    error: str | None


class Settling:
    """Changes for the writer, each for all who want it at that moment.

    It raises LeaseLost when one of the jobs at least is no longer its caller's; then each caller is served alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changes = Changes()

    def complete_each(self, connection: Connection, jobs: Sequence[Job]) -> list[None]:
        """`leased → done`."""
        return self._end(connection, jobs, JobState.DONE)

    def ignore_each(self, connection: Connection, jobs: Sequence[Job]) -> list[None]:
        """`leased → ignored`."""
        return self._end(connection, jobs, JobState.IGNORED)

    def bury_each(self, connection: Connection, works: Sequence[Burying]) -> list[None]:
        """`leased → dead`."""
        now, jobs = self._engine.now(), [work.job for work in works]
        rows = [(now, work.reason, work.error, number_of(work.job.id), work.job.token) for work in works]
        _require(connection.executemany(BURY, rows).rowcount, jobs)
        _promote(connection, jobs, _tokens(jobs))
        return [None] * len(works)

    def give_back_each(self, connection: Connection, works: Sequence[GivingBack]) -> list[None]:
        """`leased → ready`."""
        rows = [(work.due_at, work.attempts, work.error, number_of(work.job.id), work.job.token) for work in works]
        _require(connection.executemany(GIVE_BACK, rows).rowcount, [work.job for work in works])
        return [None] * len(works)

    def complete_each_with(
        self, connection: Connection, works: Sequence[Sequence[tuple[Job, Change]]]
    ) -> list[list[Exception | None]]:
        """`leased → done` for each whose change could be made; it raises nothing once one was begun."""
        results = iter(self._complete_with(connection, [change for work in works for change in work]))
        return [list(islice(results, len(work))) for work in works]

    def _complete_with(
        self, connection: Connection, changes: Sequence[tuple[Job, Change]]
    ) -> Iterator[Exception | None]:
        until = self._engine.monotonic() + LONGEST
        held = _held(connection, [job for job, _ in changes])
        done: list[Job] = []
        results: list[Exception | None] = []
        for job, change in changes:
            if results and self._engine.monotonic() >= until:
                break
            if job.id in held:
                held.remove(job.id)  # the same job a second time is nobody's
                failed = self._changes.make(connection, change)
            else:
                failed = LeaseLost(f"job {job.id}")
            if failed is None:
                done.append(job)
            results.append(failed)
        if done:
            self._end(connection, done, JobState.DONE)
        return iter(results)

    def _end(self, connection: Connection, jobs: Sequence[Job], state: JobState) -> list[None]:
        ended = _tokens(jobs)
        _require(connection.execute(END, (state, self._engine.now(), ended)).rowcount, jobs)
        _promote(connection, jobs, ended)
        return [None] * len(jobs)


def number_of(job_id: str) -> int:
    """Zero, which no job has, when it cannot be one of ours."""
    return int(job_id) if job_id.isascii() and job_id.isdigit() and len(job_id) < 19 else 0


def _held(connection: Connection, jobs: Sequence[Job]) -> set[str]:
    """The ids of those that are still their caller's."""
    return set(json.loads(connection.execute(HELD, (_tokens(jobs),)).fetchone()[0]))


def _tokens(jobs: Sequence[Job]) -> str:
    """The jobs' numbers with their tokens, as `json_each` takes them."""
    return json.dumps({job.id: job.token for job in jobs})


def _require(changed: int, jobs: Sequence[Job]) -> None:
    if changed != len(jobs):
        raise LeaseLost(f"job {jobs[0].id}")


def _promote(connection: Connection, jobs: Sequence[Job], ended: str) -> None:
    """Let the next of their ordering keys run."""
    if any(job.ordering_key for job in jobs):
        connection.execute(PROMOTE, (ended,))
