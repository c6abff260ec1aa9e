"""What is in the schema, and how it gets there."""

from collections.abc import Sequence
from typing import Final, LiteralString

from psycopg import sql

from holdfast.errors import ConfigurationError, SchemaTooNew
from holdfast.stores.postgres_connection import Connection, lock_number, select

# Text is compared by its bytes, which is the order of its characters here as in Python.
FIRST: Final = """
CREATE TABLE meta (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- Each key that was ever added, for as long as it deduplicates. A table of its own, so that a key is never free
-- between the moment its job is dropped and the moment that is written down.
CREATE TABLE keys (
    fingerprint bytea PRIMARY KEY,  -- of queue and key, which may be longer than an index takes
    number bigint NOT NULL,
    dropped_at bigint
);
-- What `purge` forgets: only keys of dropped jobs, oldest first.
CREATE INDEX keys_dropped ON keys (dropped_at) WHERE dropped_at IS NOT NULL;

CREATE SEQUENCE job_numbers;
CREATE TABLE jobs (
    number bigint PRIMARY KEY,
    fingerprint bytea NOT NULL,
    queue text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    handler text COLLATE "C" NOT NULL,
    ordering_key text COLLATE "C" NOT NULL,
    line bigint,  -- the queue and the ordering key in 64 bits; NULL: no order
    digest text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    head boolean NOT NULL,  -- next of its ordering key, or without one; only such a row may be claimed
    token bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    losses bigint NOT NULL DEFAULT 0,
    generation bigint NOT NULL DEFAULT 0,
    arrivals bigint NOT NULL DEFAULT 1,
    conflicts bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL,
    due_at bigint NOT NULL,
    ended_at bigint NOT NULL,
    owner text COLLATE "C" NOT NULL DEFAULT '',
    lease_until bigint NOT NULL DEFAULT 0,
    error text COLLATE "C" NOT NULL DEFAULT '',
    reason text COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
-- What a claim reads, in its order: only what may run, so that neither ended jobs nor those behind a head are walked.
CREATE INDEX jobs_due ON jobs (queue, due_at, number) WHERE state = 'ready' AND head;
-- What runs, which is little. Without `lease_until`, so that a heartbeat changes no index.
CREATE INDEX jobs_leased ON jobs (queue) WHERE state = 'leased';
-- Who is next of an ordering key.
CREATE INDEX jobs_in_line ON jobs (line, number) WHERE line IS NOT NULL AND state IN ('ready', 'leased');
-- One active job per ordering key, whatever happens elsewhere.
CREATE UNIQUE INDEX jobs_head ON jobs (line) WHERE line IS NOT NULL AND head;
-- What `purge` drops, oldest first.
CREATE INDEX jobs_ended ON jobs (state, ended_at, number) WHERE state IN ('done', 'ignored', 'dead');
-- `count` reads this one alone, never the table; `list` by state reads it from the end.
CREATE INDEX jobs_states ON jobs (state, number) INCLUDE (queue);

-- Apart, so that a change of state does not write the body again.
CREATE TABLE payloads (
    number bigint PRIMARY KEY,
    headers text NOT NULL,
    body bytea NOT NULL
);

CREATE TABLE records (
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    value text NOT NULL,  -- no jsonb: that holds neither every character nor the order of keys
    due_at bigint,
    PRIMARY KEY (kind, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
-- What is due, in its order.
CREATE INDEX records_due ON records (kind, due_at, key) WHERE due_at IS NOT NULL;

CREATE TABLE record_index (
    entry bytea NOT NULL,  -- of kind, name and value, which may be longer than an index takes
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (entry, key)
);
-- What a record was found by until it changed.
CREATE INDEX record_index_by_key ON record_index (kind, key);

CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    until bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE sums (
    name text COLLATE "C" NOT NULL,
    bucket bigint NOT NULL,
    amount bigint NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (name, bucket)
) WITH (fillfactor = 50);
-- What nobody counts any more.
CREATE INDEX sums_expired ON sums (expires_at);

CREATE TABLE slots (
    name text COLLATE "C" NOT NULL,
    until bigint NOT NULL,
    owner text COLLATE "C" NOT NULL,
    cooling boolean NOT NULL,  -- given back, free to take from `until` on
    taken bigint NOT NULL,
    PRIMARY KEY (name, until, owner, cooling)
);

CREATE TABLE facts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin text NOT NULL,
    topic text NOT NULL,
    fact text NOT NULL
);
"""

MIGRATIONS: Final[tuple[LiteralString, ...]] = (FIRST,)
"""Each leads to the next schema version; released ones never change."""

FOUND: Final = """
SELECT to_regclass(%(meta)s) IS NOT NULL,
    EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %(schema)s)
"""
VERSION: Final = "SELECT value FROM meta WHERE name = 'schema'"
WRITE_VERSION: Final = """
INSERT INTO meta (name, value) VALUES ('schema', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
PATIENCE: Final = "SELECT set_config('statement_timeout', '10min', true), set_config('lock_timeout', '10min', true)"
LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"


async def migrate(connection: Connection, schema: str, migrations: Sequence[LiteralString] = MIGRATIONS) -> None:
    """Bring the schema up to date; several processes may do so at once.

    Raises:
        SchemaTooNew: The schema was written by a newer holdfast.
        ConfigurationError: It holds something that is not holdfast's.
    """
    # Who finds the schema up to date needs no right to change it, and waits for nobody.
    if await _version(connection, schema, len(migrations)) == len(migrations):
        return
    async with connection.transaction():
        await connection.execute(PATIENCE)
        await connection.execute(LOCK, [lock_number("migrate", schema)])
        found = await _version(connection, schema, len(migrations))
        if not found:
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        for migration in migrations[found:]:
            await connection.execute(migration, prepare=False)  # several statements cannot be prepared as one
        await connection.execute(WRITE_VERSION, [len(migrations)])


async def _version(connection: Connection, schema: str, known: int) -> int:
    """Zero when nothing is there. Raises SchemaTooNew, ConfigurationError."""
    [(ours, used)] = await select(connection, FOUND, {"meta": f"{schema}.meta", "schema": schema})
    if not ours:
        if used:
            raise ConfigurationError(
                f"postgresql: schema {schema} holds something else; give holdfast one of its own with ?schema=name"
            )
        return 0
    [(found,)] = await select(connection, VERSION)
    if found > known:
        raise SchemaTooNew(found, known)
    version: int = found
    return version
