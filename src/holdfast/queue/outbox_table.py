"""The outbox's table in the user's own database: written in the user's transaction, emptied by the relay."""

import json
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta

from holdfast.errors import ConfigurationError
from holdfast.queue.sessions import Row, execute
from holdfast.queue.subjects import of_key
from holdfast.stores.store import NewJob

_TABLE = "holdfast_outbox"
_WRITTEN = ("queue", "call_key", "call_name", "body", "headers", "digest", "ordering_key", "not_before", "added_at")
_COLUMNS = ", ".join(_WRITTEN)

INSERT = f"INSERT INTO {_TABLE} ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in _WRITTEN)})"

# What is there, in the order it was written: a position to go on from would step over rows that commit late.
TAKE = {
    "sqlite": f"SELECT id, {_COLUMNS} FROM {_TABLE} ORDER BY id LIMIT :most",
    # Who locks the first row of an ordering key has the key, and others pass it by.
    "postgresql": f"SELECT id, {_COLUMNS} FROM {_TABLE} AS mine WHERE ordering_key = '' OR NOT EXISTS "
    f"(SELECT 1 FROM {_TABLE} AS first WHERE first.ordering_key = mine.ordering_key AND first.id < mine.id) "
    "ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED",
}

# An id is never used again: a relay that is late must not delete a row it has not read. The unique pair is an index.
_COMMON = (
    "queue text NOT NULL, call_key text NOT NULL, call_name text NOT NULL, body text NOT NULL, headers text NOT NULL, "
    "digest text NOT NULL, ordering_key text NOT NULL, not_before text NOT NULL, added_at text NOT NULL, "
    "UNIQUE (ordering_key, id))"
)
_DDL = {
    "sqlite": f"CREATE TABLE IF NOT EXISTS {_TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT, {_COMMON}",
    "postgresql": f"CREATE TABLE IF NOT EXISTS {_TABLE} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {_COMMON}",
}


def outbox_ddl(dialect: str = "sqlite") -> str:
    """The statement that makes the table `hub.outbox.add_in` writes to, for `sqlite` or `postgresql`.

    Raises:
        ConfigurationError: Another dialect.
    """
    try:
        return _DDL[dialect]
    except KeyError:
        raise ConfigurationError(f"no table for {dialect!r}; choose one of {', '.join(_DDL)}") from None


def insert(session: object, new: NewJob, *, now: datetime) -> int | Awaitable[int]:
    """Write a job into the table, in the transaction that is open on the session; see `sessions.execute`."""
    not_before = (now + timedelta(seconds=new.delay)).isoformat() if new.delay else ""
    row = {
        "queue": new.queue,
        "call_key": new.key,
        "call_name": new.kind,
        "body": new.body.decode(),
        "headers": json.dumps(dict(new.headers)),
        "digest": new.digest,
        "ordering_key": new.ordering_key,
        "not_before": not_before,
        "added_at": now.isoformat(),
    }
    return execute(session, INSERT, row)


def from_row(row: Row, *, now: datetime) -> NewJob:
    """The job again."""
    _, queue, key, name, body, headers, digest, ordering_key, not_before, _ = row
    delay = (datetime.fromisoformat(not_before) - now).total_seconds() if not_before else 0.0
    return NewJob(
        queue=queue,
        key=key,
        kind=name,
        body=body.encode(),
        headers=json.loads(headers),
        digest=digest,
        ordering_key=ordering_key,
        delay=max(0.0, delay),
        subject=of_key(key.removeprefix(f"{name}/")),
    )


def behind(keys: Sequence[str]) -> tuple[str, dict[str, object]]:
    """The statement that reads all there is of these ordering keys, in order; and its parameters but for `most`."""
    names = {f"key{number}": key for number, key in enumerate(keys)}
    places = ", ".join(f":{name}" for name in names)
    return f"SELECT id, {_COLUMNS} FROM {_TABLE} WHERE ordering_key IN ({places}) ORDER BY id LIMIT :most", {**names}


def delete(rows: Sequence[Row]) -> tuple[str, dict[str, object]]:
    """The statement that deletes these rows, and its parameters."""
    names = {f"id{number}": row[0] for number, row in enumerate(rows)}
    places = ", ".join(f":{name}" for name in names)
    return f"DELETE FROM {_TABLE} WHERE id IN ({places})", {**names}
