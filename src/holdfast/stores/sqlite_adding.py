"""Adding jobs: what many callers add at once shares a few statements.

Every statement lets go of the interpreter and must win it back from the event loop: a few for all are quick, one or
two for each job are not.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from holdfast.stores.documents import encode, utf8
from holdfast.stores.store import Added, NewJob

MOST_ROWS: Final = 64
"""In one statement."""

LAST_NUMBER = "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"
DROPPED = "SELECT fingerprint FROM dropped WHERE fingerprint IN"
ADD = """
INSERT INTO jobs (number, queue, key, kind, handler, ordering_key, digest, state, head, created_at, due_at, ended_at)
VALUES {rows}
ON CONFLICT (queue, key) DO NOTHING
"""
ADDED = "SELECT number FROM jobs WHERE number >= ?"
ADD_PAYLOAD = "INSERT INTO payloads (number, headers, body) VALUES {rows}"
HEAD_NEW = """
UPDATE jobs SET head = 1
WHERE number >= ? AND ordering_key <> '' AND state = 'ready' AND NOT EXISTS (
    SELECT 1 FROM jobs AS earlier
    WHERE earlier.queue = jobs.queue AND earlier.ordering_key = jobs.ordering_key AND earlier.ordering_key <> ''
        AND earlier.state IN ('ready', 'leased') AND earlier.number < jobs.number
)
"""
ARRIVE_AGAIN = """
UPDATE jobs SET arrivals = arrivals + 1, conflicts = conflicts + (digest <> :digest)
WHERE queue = :queue AND key = :key
RETURNING digest <> :digest
"""


class Given(NamedTuple):
    """A job to add, prepared outside the transaction."""

    new: NewJob
    fingerprint: bytes
    headers: str


def prepare(jobs: Sequence[NewJob]) -> list[Given]:
    """Raises InvalidInput: one of them holds what cannot be written."""
    return [Given(new, fingerprint(new.queue, new.key), _text(new.headers)) for new in jobs]


def add_each(connection: Connection, now: int, works: Sequence[Sequence[Given]]) -> list[list[Added]]:
    """Add what several callers gave, in their order."""
    added = iter(add(connection, now, [job for work in works for job in work]))
    return [[next(added) for _ in work] for work in works]


def add(connection: Connection, now: int, given: Sequence[Given]) -> list[Added]:
    """Add these in the open transaction, in their order."""
    first = _next_number(connection)
    dropped = _dropped(connection, given)
    new = {number: job for number, job in enumerate(given, first) if job.fingerprint not in dropped}
    if _insert(connection, ADD, [_row(number, job.new, now) for number, job in new.items()]) < len(new):
        added = {number for (number,) in connection.execute(ADDED, (first,))}
        new = {number: job for number, job in new.items() if number in added}
    _insert(connection, ADD_PAYLOAD, [(number, job.headers, job.new.body) for number, job in new.items()])
    if any(job.new.ordering_key for job in new.values()):
        connection.execute(HEAD_NEW, (first,))
    return [
        Added.NEW if number in new else _arrive_again(connection, job.new) for number, job in enumerate(given, first)
    ]


def fingerprint(queue: str, key: str) -> bytes:
    """What is kept of a key when its job is purged."""
    return blake2b(utf8(f"{len(queue)}:{queue}{key}"), digest_size=16).digest()


def _text(headers: Mapping[str, str]) -> str:
    """What `encode` gives; strings need no proof that they read back the same."""
    for name, value in headers.items():
        if type(name) is not str or type(value) is not str:
            return encode(headers)
    return "{" + ",".join([f"{quoted(name)}:{quoted(value)}" for name, value in headers.items()]) + "}"


def _next_number(connection: Connection) -> int:
    """Nobody else takes it meanwhile: only one transaction writes."""
    last = connection.execute(LAST_NUMBER).fetchone()
    return 1 if last is None else last[0] + 1


def _dropped(connection: Connection, given: Sequence[Given]) -> set[bytes]:
    """The fingerprints among these whose job was purged."""
    found: set[bytes] = set()
    for part in _parts([job.fingerprint for job in given]):
        found.update(row[0] for row in connection.execute(f"{DROPPED} {_marks(len(part))}", part))
    return found


def _row(number: int, new: NewJob, now: int) -> tuple[object, ...]:
    """With an ordering key it is not the head yet: the row before it may turn out to be a duplicate."""
    return (
        number,
        new.queue,
        new.key,
        new.kind,
        new.handler,
        new.ordering_key,
        new.digest,
        "ignored" if new.ignored else "ready",
        not new.ignored and not new.ordering_key,
        now,
        now + round(new.delay * 1_000_000),
        now,
    )


def _insert(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """How many of the rows were not there yet."""
    inserted = 0
    for part in _parts(rows):
        text = _for_rows(statement, len(part), len(part[0]))
        inserted += connection.execute(text, [value for row in part for value in row]).rowcount
    return inserted


def _arrive_again(connection: Connection, new: NewJob) -> Added:
    """Of a purged job there is nothing left to count."""
    same = {"queue": new.queue, "key": new.key, "digest": new.digest}
    compared = connection.execute(ARRIVE_AGAIN, same).fetchall()
    return Added.CONFLICT if compared == [(1,)] else Added.DUPLICATE


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut into powers of two, so that a handful of prepared statements serves every number of rows."""
    begin = 0
    while left := len(rows) - begin:
        size = min(MOST_ROWS, 1 << left.bit_length() - 1)
        yield rows[begin : begin + size]
        begin += size


@cache
def _for_rows(statement: str, rows: int, values: int) -> str:
    return statement.format(rows=", ".join([_marks(values)] * rows))


@cache
def _marks(values: int) -> str:
    return f"({', '.join('?' * values)})"
