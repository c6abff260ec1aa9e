"""Versioned documents in Redis."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from holdfast.errors import NaiveDatetime, StoreUnavailable, VersionConflict
from holdfast.stores import redis_scripts as scripts
from holdfast.stores import store_time
from holdfast.stores.documents import decode, encode, utf8
from holdfast.stores.redis_engine import Engine, together
from holdfast.stores.redis_jobs import RedisJobs, split
from holdfast.stores.redis_rows import KEYS as JOB_KEYS
from holdfast.stores.store import Draft, Json, NewJob, Record

KEYS: Final = ("record", "names", "index", "wanted")
BEFORE_1970: Final = 10**17
"""Microseconds added to a time, so that its eighteen digits sort also where it is negative."""
DIGITS: Final = 18


class RedisRecords:
    """Versioned documents."""

    def __init__(self, engine: Engine, jobs: RedisJobs) -> None:
        self._engine = engine
        self._jobs = jobs

    async def get(self, kind: str, key: str) -> Record | None:
        self._engine.lifetime.check()
        keys = self._engine.partition_keys(self._partition(kind, key), KEYS[:1])
        found = await self._engine.call(scripts.RECORD_GET, keys, _kind_id(kind), utf8(key))
        return None if found is None else _record(kind, found)

    async def apply(self, kind: str, key: str, expected: int, new: Draft, *, jobs: Sequence[NewJob] = ()) -> Record:
        self._engine.lifetime.check()
        if new.due_at is not None and new.due_at.tzinfo is None:
            raise NaiveDatetime("due_at")
        text = encode(new.value)
        due = b"" if new.due_at is None else b"%018d" % (store_time.micros(new.due_at) + BEFORE_1970)
        index = {_index_id(kind, name, value) for name, values in new.index.items() for value in values}
        here, added = self._partition(kind, key), self._jobs.arguments(jobs)
        answers = await self._engine.call(
            scripts.RECORD_APPLY,
            self._engine.partition_keys(here, JOB_KEYS + KEYS),
            *(self._engine.key("ready"), self._engine.origin),
            *(_kind_id(kind), utf8(key), expected, text, due, len(index), *index, here, *added),
            confirm=True,
        )
        if answers is None:
            raise VersionConflict(kind, key)
        with suppress(StoreUnavailable):  # the change is made; whoever claims next brings its jobs
            await self._jobs.settle(here, added, split(answers))
        return _record(kind, (utf8(key), expected + 1, text.encode(), due))

    async def find(self, kind: str, index: str, value: str, *, limit: int = 10) -> Sequence[Record]:
        found = await self._range(kind, "index", _index_id(kind, index, value), limit)
        return sorted(found, key=lambda record: record.key)[: max(0, limit)]

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Record]:
        found = await self._range(kind, "wanted", _kind_id(kind), limit, to="now", between=DIGITS)
        return sorted(found, key=lambda record: (record.due_at, record.key))[: max(0, limit)]

    async def rewrite(self, record: Record, value: Mapping[str, Json]) -> bool:
        self._engine.lifetime.check()
        kind, key = record.kind, record.key
        keys = self._engine.partition_keys(self._partition(kind, key), KEYS[:1])
        change = _kind_id(kind), utf8(key), record.version, encode(value)
        return bool(await self._engine.call(scripts.RECORD_REWRITE, keys, *change, confirm=True))

    async def list(self, kind: str, *, after: str = "", limit: int = 100) -> Sequence[Record]:
        found = await self._range(kind, "names", _kind_id(kind), limit, after=after)
        return sorted(found, key=lambda record: record.key)[: max(0, limit)]

    async def _range(
        self, kind: str, ordered: str, prefix: bytes, limit: int, *, after: str = "", to: str = "", between: int = 0
    ) -> Sequence[Record]:
        """The first of every partition."""
        self._engine.lifetime.check()
        arguments = _kind_id(kind), prefix, utf8(after), to, between, max(0, limit)
        answers = await together(
            self._engine.call(
                scripts.RECORD_FIND, self._engine.partition_keys(partition, (KEYS[0], ordered)), *arguments
            )
            for partition in range(self._engine.partitions)
        )
        return [_record(kind, found) for answer in answers for found in answer]

    def _partition(self, kind: str, key: str) -> int:
        return self._engine.partition(utf8(f"{len(kind)}:{kind}{key}"))


def _record(kind: str, found: Sequence[Any]) -> Record:
    key, version, text, due = found
    due_at = store_time.moment(int(due) - BEFORE_1970) if due else None
    return Record(kind=kind, key=key.decode(), version=version, value=decode(text.decode()), due_at=due_at)


def _kind_id(kind: str) -> bytes:
    return blake2b(utf8(kind), digest_size=8).digest()


def _index_id(kind: str, name: str, value: str) -> bytes:
    return blake2b(utf8(f"{len(kind)}:{kind}{len(name)}:{name}{value}"), digest_size=16).digest()
