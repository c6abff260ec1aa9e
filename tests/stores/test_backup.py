"""Backups: made while the store is used, restored elsewhere with nobody's lease, and examined."""

import asyncio
import json
import os
import sqlite3
import stat
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from redis import Redis

from holdfast.errors import BackupUnusable, ConfigurationError, LeaseLost, StoreNotEmpty
from holdfast.stores import (
    Added,
    Draft,
    Job,
    JobState,
    NewJob,
    Store,
    open_store,
    postgres_backup,
    postgres_schema,
    sqlite_backup,
)
from holdfast.stores.archive import MANIFEST
from holdfast.stores.backup import back_up, restore, verify_backup, verify_store
from holdfast.stores.drill import drill
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.key_ring import KeyRing
from holdfast.stores.redis_jobs import RedisJobs
from tests.servers.ports import LOOPBACK
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

Place = Callable[[], str]
ENGINES = ("sqlite", "postgresql", "redis", "redis in 4 partitions")
QUEUES = ("deliveries", "events")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """URLs of stores where nothing is yet, all of one engine."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / uuid4().hex}.db"
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return lambda: f"{postgres.url}?schema=s{uuid4().hex}"
    redis: RedisServer = request.getfixturevalue("redis_server")
    partitions = "&partitions=4" if "partitions" in request.param else ""
    return lambda: f"{redis.store_url}&namespace={uuid4().hex}{partitions}"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


def job(key: str, **more: object) -> NewJob:
    new = NewJob(queue="deliveries", key=key, kind="vendor", handler="h", body=b"\x00\xff\n\\" + key.encode())
    return replace(new, headers={"type": "paid\n\t\\N", "ü": "→"}, digest="d", **more)  # type: ignore[arg-type]


async def fill(store: Store) -> None:
    """Jobs in every state, some in line, one purged, and records."""
    await store.jobs.add([job("purged", ignored=True)])
    await asyncio.sleep(0.002)
    assert await store.jobs.purge(older_than=0.001) == 1
    await store.jobs.add([job(f"line-{number}", ordering_key="o") for number in range(3)])
    await store.jobs.add([job("twice"), job("ignored", ignored=True), job("later", delay=3600)])
    await store.jobs.add([job("twice"), replace(job("twice"), digest="other")])
    await store.jobs.add([job("done"), job("dead"), job("failed")])
    for each in await store.jobs.claim(QUEUES, owner="w", limit=100, lease=60):
        match each.key:
            case "done":
                await store.jobs.complete(each)
            case "dead":
                await store.jobs.bury(each, reason="permanent", error="no\tgood\n")
            case "failed":
                await store.jobs.retry(each, after=0, error="once")
            case _:
                pass  # stays leased: "twice", and the first in line
    record = await store.records.apply("payment", "a/1", 0, Draft(value={"n": 1}, index={"vendor": ["v/1"]}))
    await store.records.apply(
        "payment", "a/1", record.version, Draft(value={"n": 2, "t": "\\ü\n"}, index={"vendor": ["v/2", "v/3"]})
    )
    await store.records.apply("meeting", "m", 0, Draft(value={}, due_at=LATER), jobs=[job("of a record")])


async def jobs_of(store: Store) -> Sequence[Job]:
    return sorted(await store.jobs.list(limit=1000), key=lambda each: each.key)


def as_restored(each: Job) -> Job:
    """What a restore leaves of a job."""
    state = JobState.READY if each.state is JobState.LEASED else each.state
    return replace(each, state=state, token=0)


async def test_what_was_backed_up_comes_back(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await fill(store)
        before, counted = await jobs_of(store), await store.jobs.count()

    manifest = await back_up(here, backup)
    await restore(backup, there)

    assert manifest.jobs == {f"{queue}/{state}": rows for (queue, state), rows in counted.items()}
    assert manifest.keys == 1
    async with open_store(there) as store:
        after = await jobs_of(store)
        assert [as_restored(each) for each in after] == [as_restored(each) for each in before]
        [found] = await store.records.find("payment", "vendor", "v/3")
        assert (found.key, found.version, found.value) == ("a/1", 2, {"n": 2, "t": "\\ü\n"})
        assert await store.records.find("payment", "vendor", "v/1") == []
        [meeting] = await store.records.list("meeting")
        assert meeting.due_at == LATER
    assert await verify_store(there) == []


async def test_a_restored_store_deduplicates_what_was_there_and_what_was_purged(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await fill(store)

    await back_up(here, backup)
    await restore(backup, there)

    async with open_store(there) as store:
        added = await store.jobs.add([job("purged"), job("done"), job("line-1", ordering_key="o"), job("new")])
    assert added == [Added.DUPLICATE, Added.DUPLICATE, Added.DUPLICATE, Added.NEW]


async def test_who_held_a_job_is_fenced_after_a_restore(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await store.jobs.add([job("held")])
        [held] = await store.jobs.claim(QUEUES, owner="before", limit=1, lease=60)
        await back_up(here, backup)
        await store.jobs.release("before")
        [later] = await store.jobs.claim(QUEUES, owner="before", limit=1, lease=60)

    await restore(backup, there)

    async with open_store(there) as store:
        [again] = await store.jobs.claim(QUEUES, owner="after", limit=1, lease=60)
        assert (again.id, again.losses, again.attempts) == (held.id, 0, 0)
        for stale in (held, later):
            with pytest.raises(LeaseLost):
                await store.jobs.complete(stale)
        await store.jobs.complete(again)


async def test_no_number_of_a_lost_job_is_given_to_another_one(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await store.jobs.add([job("kept")])
        await back_up(here, backup)
        await store.jobs.add([job("lost")])
        lost = {each.key: each.id for each in await jobs_of(store)}["lost"]

    await restore(backup, there)

    async with open_store(there) as store:
        await store.jobs.add([job("new")])
        assert lost not in {each.id for each in await jobs_of(store)}


async def test_a_lease_by_name_is_free_after_a_restore_and_its_number_is_greater(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        before = await store.leases.acquire("sweep", owner="before", ttl=60)
        await back_up(here, backup)

    await restore(backup, there)

    async with open_store(there) as store:
        after = await store.leases.acquire("sweep", owner="after", ttl=60)
    assert before is not None
    assert after is not None
    assert after.number > before.number


async def test_jobs_of_an_ordering_key_go_on_in_their_order(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await store.jobs.add([job(f"line-{number}", ordering_key="o") for number in range(3)])
        await store.jobs.claim(QUEUES, owner="before", limit=9, lease=60)

    await back_up(here, backup)
    await restore(backup, there)

    ran: list[str] = []
    async with open_store(there) as store:
        while claimed := await store.jobs.claim(QUEUES, owner="after", limit=9, lease=60):
            [each] = claimed
            ran.append(each.key)
            await store.jobs.complete(each)
    assert ran == ["line-0", "line-1", "line-2"]


async def test_everybody_goes_on_writing_while_a_backup_is_made(
    place: Place, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = place(), place()
    monkeypatch.setattr(sqlite_backup, "PAGES", 8)
    loop = asyncio.get_running_loop()
    async with open_store(here) as store:
        await store.jobs.add([job(f"first-{number}") for number in range(300)])
        changed: list[str] = []

        async def change() -> None:
            """A record, and the job its change means, at once."""
            name = f"change-{len(changed)}"
            await store.records.apply("payment", name, 0, Draft(value={}), jobs=[job(name)])
            changed.append(name)

        def meanwhile(_: float) -> None:
            if len(changed) < 50:
                asyncio.run_coroutine_threadsafe(change(), loop).result(timeout=10)

        manifest = await back_up(here, backup, progress=meanwhile)

    await restore(backup, there)

    assert changed
    assert (await verify_backup(backup))[1] == []
    async with open_store(there) as store:
        keys = {each.key for each in await jobs_of(store)}
        records = {record.key for record in await store.records.list("payment", limit=100)}
    assert {f"first-{number}" for number in range(300)} <= keys
    assert records <= keys, "the job of a change was lost"
    if manifest.one_moment:
        assert not records & set(changed[1:]), "it is not of one moment"


async def test_a_backup_goes_into_an_empty_store_only(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await store.jobs.add([job("old")])
    await back_up(here, backup)
    async with open_store(there) as store:
        await store.jobs.add([job("other")])

        with pytest.raises(StoreNotEmpty, match="not empty"):
            await restore(backup, there)

        assert [each.key for each in await jobs_of(store)] == ["other"]


async def test_what_is_there_is_replaced_also_for_who_has_it_open(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await fill(store)
        before = [each.key for each in await jobs_of(store)]
    await back_up(here, backup)
    async with open_store(there) as store:
        await store.jobs.add([job("other", ordering_key="o"), job("another")])

        await restore(backup, there, replace=True)

        assert [each.key for each in await jobs_of(store)] == before
        assert await store.jobs.add([job("another")]) == [Added.NEW]
    assert await verify_store(there) == []


async def test_a_store_that_was_only_opened_counts_as_empty(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await store.jobs.add([job("old")])
    await back_up(here, backup)
    async with open_store(there):
        pass

    await restore(backup, there)

    async with open_store(there) as store:
        assert [each.key for each in await jobs_of(store)] == ["old"]


async def test_only_the_owner_may_read_a_backup_and_nothing_else_is_left(place: Place, backup: Path) -> None:
    here = place()
    async with open_store(here) as store:
        await store.jobs.add([job("secret")])
    beside = set(backup.parent.iterdir())

    await back_up(here, backup)
    await verify_backup(backup)

    assert mode(backup) == 0o600
    assert set(backup.parent.iterdir()) - beside == {backup}


async def test_a_backup_never_replaces_another_one(place: Place, backup: Path) -> None:
    here = place()
    async with open_store(here):
        pass
    written(backup, b"the only copy")

    with pytest.raises(ConfigurationError, match="there already"):
        await back_up(here, backup)

    assert content_of(backup) == b"the only copy"


async def test_what_is_not_there_is_not_backed_up_and_not_made(place: Place, backup: Path) -> None:
    nowhere = place()

    with pytest.raises(ConfigurationError, match="there is no"):
        await back_up(nowhere, backup)

    assert content_of(backup) is None
    with pytest.raises(ConfigurationError, match="there is no"):
        await verify_store(nowhere)


async def test_a_backup_that_is_given_up_leaves_nothing(place: Place, backup: Path) -> None:
    here = place()
    async with open_store(here) as store:
        await store.jobs.add([job(f"job-{number}") for number in range(300)])
    started, loop = asyncio.Event(), asyncio.get_running_loop()
    beside = set(backup.parent.iterdir())

    def tell(_: float) -> None:
        loop.call_soon_threadsafe(started.set)

    async with asyncio.TaskGroup() as group:
        making = group.create_task(back_up(here, backup, progress=tell))
        await started.wait()
        making.cancel()

    assert making.cancelled()
    assert set(backup.parent.iterdir()) == beside


async def test_a_damaged_backup_is_told_and_changes_nothing(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await fill(store)
    await back_up(here, backup)
    rewrite(backup, lambda name, data: data.replace(b"vendor", b"Vendor") if name != MANIFEST else data)
    async with open_store(there):
        pass

    with pytest.raises(BackupUnusable, match="damaged"):
        await verify_backup(backup)
    with pytest.raises(BackupUnusable, match="damaged"):
        await restore(backup, there)

    async with open_store(there) as store:
        assert await store.jobs.list() == []


async def test_a_manifest_that_says_otherwise_is_told(place: Place, backup: Path) -> None:
    here = place()
    async with open_store(here) as store:
        await fill(store)
    await back_up(here, backup)

    def alter(name: str, data: bytes) -> bytes:
        return data if name != MANIFEST else json.dumps(json.loads(data) | {"keys": 7}).encode()

    rewrite(backup, alter)
    _, [finding] = await verify_backup(backup)

    assert finding.what == "keys of purged jobs: 7 expected, 1 found"


async def test_a_drill_says_how_long_it_takes_until_work_goes_on(place: Place, backup: Path) -> None:
    here, there = place(), place()
    async with open_store(here) as store:
        await fill(store)
    await back_up(here, backup)

    drilled = await drill(backup, there)

    assert drilled.findings == []
    assert list(drilled.steps) == ["restore", "open and claim one job", "examine"]
    assert 0 < drilled.recovery < 60
    assert timedelta(seconds=drilled.age) < timedelta(minutes=1)
    async with open_store(there) as store:
        assert (await store.jobs.count()).keys().isdisjoint({(queue, JobState.LEASED) for queue in QUEUES})


async def test_what_rests_sealed_is_sealed_in_a_backup_and_readable_after_it(place: Place, backup: Path) -> None:
    here, there = place(), place()
    keys = KeyRing("b2xkIGtleSwgMzIgYnl0ZXMgb2YgYmFzZTY0ISEhISE=")
    async with EncryptedStore(open_store(here), keys) as store:
        await store.jobs.add([replace(job("k"), body=b"ada@example.org", headers={"to": "ada@example.org"})])
        await store.records.apply("payment", "p", 0, Draft(value={"to": "ada@example.org"}))

    await back_up(here, backup)
    await restore(backup, there)

    assert (await verify_backup(backup))[1] == []
    assert b"ada@example.org" not in unpacked(backup)
    async with EncryptedStore(open_store(there), keys) as store:
        [read] = await jobs_of(store)
        assert (read.body, read.headers) == (b"ada@example.org", {"to": "ada@example.org"})
        [record] = await store.records.list("payment")
        assert record.value == {"to": "ada@example.org"}


async def test_a_backup_of_another_engine_is_refused(tmp_path: Path, backup: Path, redis_server: RedisServer) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}"):
        await back_up(f"sqlite:///{tmp_path / 'a.db'}", backup)

    with pytest.raises(BackupUnusable, match="is from sqlite"):
        await restore(backup, f"{redis_server.store_url}&namespace={uuid4().hex}")


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x05\x06" + bytes(18)], ids=["empty", "text", "bare"])
async def test_what_is_no_backup_is_refused(content: bytes, backup: Path, tmp_path: Path) -> None:
    written(backup, content)

    with pytest.raises(BackupUnusable):
        await verify_backup(backup)
    with pytest.raises(BackupUnusable):
        await restore(backup, f"sqlite:///{tmp_path / 'new.db'}")

    assert not (tmp_path / "new.db").exists()


async def test_a_backup_of_a_newer_holdfast_is_refused(tmp_path: Path, backup: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}"):
        await back_up(f"sqlite:///{tmp_path / 'a.db'}", backup)

    rewrite(backup, lambda name, data: data.replace(b'"holdfast_backup": 1', b'"holdfast_backup": 2'))

    with pytest.raises(BackupUnusable, match="format 2"):
        await verify_backup(backup)


async def test_a_log_that_is_left_of_another_file_is_not_replayed_into_the_new_one(
    tmp_path: Path, backup: Path
) -> None:
    here, there = tmp_path / "a.db", tmp_path / "b.db"
    async with open_store(f"sqlite:///{here}") as store:
        await store.jobs.add([job("old")])
        await back_up(f"sqlite:///{here}", backup)
        await store.jobs.add([job("lost")])
        (tmp_path / "b.db-wal").write_bytes((tmp_path / "a.db-wal").read_bytes())

    with pytest.raises(StoreNotEmpty, match=r"b\.db-wal"):
        await restore(backup, f"sqlite:///{there}")
    await restore(backup, f"sqlite:///{there}", replace=True)

    async with open_store(f"sqlite:///{there}") as store:
        assert [each.key for each in await jobs_of(store)] == ["old"]


async def test_a_file_of_somebody_else_is_neither_backed_up_nor_replaced(tmp_path: Path, backup: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}"):
        await back_up(f"sqlite:///{tmp_path / 'a.db'}", backup)

    with pytest.raises(ConfigurationError, match="not a file of holdfast's"):
        await back_up(f"sqlite:///{foreign}", tmp_path / "other.zip")
    with pytest.raises(ConfigurationError, match="not a file of holdfast's"):
        await restore(backup, f"sqlite:///{foreign}", replace=True)

    with closing(sqlite3.connect(foreign)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


async def test_a_backup_of_an_older_schema_is_migrated_when_it_is_restored(
    postgres_server: PostgresServer, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (f"{postgres_server.url}?schema=s{uuid4().hex}" for _ in range(2))
    async with open_store(here) as store:
        await store.jobs.add([job("old")])
    await back_up(here, backup)
    newer = (*postgres_schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN extra bigint NOT NULL DEFAULT 7")
    for module in (postgres_schema, postgres_backup):
        monkeypatch.setattr(module, "MIGRATIONS", newer)
    monkeypatch.setattr(postgres_schema.migrate, "__defaults__", (newer,))

    for replacing in (False, True):
        await restore(backup, there, replace=replacing)

        with psycopg.connect(postgres_server.url) as connection:
            schema = there.rpartition("=")[2]
            assert connection.execute(f"SELECT key, extra FROM {schema}.jobs".encode()).fetchall() == [("old", 7)]


SQLITE_DAMAGE = {
    "jobs without a payload": "DELETE FROM payloads WHERE number = 1",
    "payloads without a job": "INSERT INTO payloads VALUES (99, '{}', x'')",
    "jobs that wait and will never run": "UPDATE jobs SET head = 0 WHERE key = 'alone'",
    "jobs of an ordering key that runs no more": "UPDATE jobs SET head = 0 WHERE key = 'first'",
    "ended jobs that stand in line": "UPDATE jobs SET state = 'done' WHERE key = 'alone'",
    "index entries without a record": "INSERT INTO record_index VALUES ('payment', 'vendor', 'v', 'nobody')",
    "unreadable headers": "UPDATE payloads SET headers = '{' WHERE number = 1",
    "unreadable records": "UPDATE records SET value = 'x'",
}
POSTGRES_DAMAGE = {
    "jobs without a payload": "DELETE FROM payloads WHERE number = (SELECT min(number) FROM jobs)",
    "payloads without a job": "INSERT INTO payloads VALUES (99, '{}', '')",
    "keys without a job": "INSERT INTO keys VALUES ('x', 99)",
    "jobs without a key": "DELETE FROM keys WHERE number = (SELECT min(number) FROM jobs)",
    "jobs that wait and will never run": "UPDATE jobs SET head = false WHERE key = 'alone'",
    "jobs of an ordering key that runs no more": "UPDATE jobs SET head = false WHERE key = 'first'",
    "ended jobs that stand in line": "UPDATE jobs SET state = 'done' WHERE key = 'alone'",
    "index entries without a record": "INSERT INTO record_index VALUES ('x', 'payment', 'nobody')",
    "unreadable headers": "UPDATE payloads SET headers = '{' WHERE number = (SELECT min(number) FROM jobs)",
    "unreadable records": "UPDATE records SET value = 'x'",
}
REDIS_DAMAGE: dict[str, tuple[str, ...]] = {
    "jobs without a payload": ("DEL", "body"),
    "payloads without a job": ("HSET", "body", "0000000000000099", ""),
    "keys without a job": ("HSET", "key", "x", "0000000000000099"),
    "jobs without a key": ("DEL", "key"),
    "jobs in no list": ("DEL", "rows"),
    "jobs that wait and will never run": ("DEL", "order"),
    "jobs of an ordering key that runs no more": ("DEL", "head"),
    "records that are not found": ("DEL", "names"),
    "partition 0: counters of jobs: 3 expected, 0 found": ("DEL", "count"),
}


async def healthy(url: str) -> None:
    async with open_store(url) as store:
        await store.jobs.add([job("alone"), job("first", ordering_key="o"), job("second", ordering_key="o")])
        await store.records.apply("payment", "p", 0, Draft(value={}, index={"vendor": ["v"]}))
    assert await verify_store(url) == []


@pytest.mark.parametrize("what", SQLITE_DAMAGE)
async def test_damage_in_sqlite_is_found_in_the_file_and_in_its_backup(what: str, tmp_path: Path, backup: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    await healthy(url)
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.execute(SQLITE_DAMAGE[what])

    await back_up(url, backup)

    assert what in {finding.what for finding in await verify_store(url)}
    assert what in {finding.what for finding in (await verify_backup(backup))[1]}


NEEDS_A_SERVER = {"keys without a job", "jobs without a key", "index entries without a record"}


@pytest.mark.parametrize("what", POSTGRES_DAMAGE)
async def test_damage_in_postgresql_is_found(what: str, postgres_server: PostgresServer, backup: Path) -> None:
    schema = f"s{uuid4().hex}"
    url = f"{postgres_server.url}?schema={schema}"
    await healthy(url)
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema}".encode())
        connection.execute(POSTGRES_DAMAGE[what].encode())

    await back_up(url, backup)

    assert what in {finding.what for finding in await verify_store(url)}
    in_the_backup = {finding.what for finding in (await verify_backup(backup))[1]}
    assert what in NEEDS_A_SERVER or what in in_the_backup


@pytest.mark.parametrize("what", REDIS_DAMAGE)
async def test_damage_in_redis_is_found(what: str, redis_server: RedisServer) -> None:
    namespace = uuid4().hex
    url = f"{redis_server.store_url}&namespace={namespace}"
    await healthy(url)
    command, name, *rest = REDIS_DAMAGE[what]
    with closing(Redis(LOOPBACK, redis_server.port)) as client:
        client.execute_command(command, f"{{{namespace}:0}}:{name}", *rest)  # type: ignore[no-untyped-call]

    assert what in {finding.what for finding in await verify_store(url)}


async def test_a_broken_page_in_sqlite_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await healthy(f"sqlite:///{file}")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'jobs_ended'")

    found = await verify_store(f"sqlite:///{file}")

    assert any(finding.what.startswith("sqlite: ") for finding in found)


async def test_jobs_on_their_way_to_another_partition_are_in_a_backup(
    redis_server: RedisServer, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (f"{redis_server.store_url}&namespace={uuid4().hex}&partitions=4" for _ in range(2))

    async def die(*_: object) -> list[Added]:
        return []

    async with open_store(here) as store:
        with monkeypatch.context() as dying:
            dying.setattr(RedisJobs, "settle", die)  # whoever adds dies before it brings them where they belong
            await store.records.apply("payment", "p", 0, Draft(value={}), jobs=[job(str(each)) for each in range(20)])
        await back_up(here, backup)
    await restore(backup, there)

    async with open_store(there) as store:
        ran: set[str] = set()
        while claimed := await store.jobs.claim(QUEUES, owner="w", limit=100, lease=60):
            ran |= {each.key for each in claimed}
    assert ran == {str(each) for each in range(20)}


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def content_of(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def unpacked(file: Path) -> bytes:
    with zipfile.ZipFile(file) as parts:
        return b"".join(map(parts.read, parts.namelist()))


def rewrite(file: Path, change: Callable[[str, bytes], bytes]) -> None:
    """The same zip with other content, as a tool that knows nothing of manifests leaves it."""
    with zipfile.ZipFile(file) as before:
        parts = {name: before.read(name) for name in before.namelist()}
    os.remove(file)
    with zipfile.ZipFile(file, "w") as after:
        for name, data in parts.items():
            after.writestr(name, change(name, data))
