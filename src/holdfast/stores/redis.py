"""Redis."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Self

from holdfast.clock import Clock, SystemClock
from holdfast.stores import redis_scripts as scripts
from holdfast.stores.documents import encode, utf8
from holdfast.stores.redis_address import parse
from holdfast.stores.redis_doctor import findings
from holdfast.stores.redis_engine import Engine
from holdfast.stores.redis_jobs import RedisJobs
from holdfast.stores.redis_records import RedisRecords
from holdfast.stores.store import Json, Lease


class RedisStore:
    """A store on one Redis server, or on a Redis Cluster."""

    durable = True

    def __init__(self, url: str, *, clock: Clock | None = None, skew_ms: int = 0) -> None:
        self._engine = Engine(parse(url), clock or SystemClock(), skew_ms)
        self.jobs = RedisJobs(self._engine)
        self.records = RedisRecords(self._engine, self.jobs)
        self.leases = RedisLeases(self._engine)
        self.counters = RedisCounters(self._engine)
        self.bus = RedisBus(self._engine)

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()

    async def now(self) -> datetime:
        return await self._engine.now()

    async def doctor(self) -> list[str]:
        """What to change in the servers' settings so that they keep what they are given; empty when all is well."""
        return list(dict.fromkeys(said for each in await self._engine.settings() for said in findings(each)))


class RedisLeases:
    """Who may do what only one may do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        number = await self._engine.call(
            scripts.LEASE_ACQUIRE, [self._key(name)], utf8(owner), _micros(ttl), confirm=True
        )
        return None if number is None else Lease(name=name, owner=owner, number=int(number))

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        return await self._extend(lease, ttl)

    async def release(self, lease: Lease) -> None:
        await self._extend(lease, 0.0)

    async def _extend(self, lease: Lease, ttl: float) -> bool:
        extended: int = await self._engine.call(
            scripts.LEASE_EXTEND, [self._key(lease.name)], utf8(lease.owner), lease.number, _micros(ttl), confirm=True
        )
        return extended == 1

    def _key(self, name: str) -> bytes:
        return utf8(self._engine.key("lease", name))


BUCKETS = 10


class RedisCounters:
    """Sums and slots over a time window."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, name: str, amount: int, *, window: float) -> int:
        return int(await self._engine.call(scripts.SUM_ADD, [self._key("sum", name)], amount, _width(window)))

    async def total(self, name: str, *, window: float) -> int:
        return int(await self._engine.call(scripts.SUM_TOTAL, [self._key("sum", name)], _width(window)))

    async def take(self, name: str, *, owner: str, slots: int, wanted: int, ttl: float) -> int:
        key = self._key("slots", name)
        return int(await self._engine.call(scripts.SLOTS_TAKE, [key], utf8(owner), slots, wanted, _micros(ttl)))

    async def give(self, name: str, *, owner: str, count: int, after: float = 0.0) -> None:
        await self._engine.call(scripts.SLOTS_GIVE, [self._key("slots", name)], utf8(owner), count, _micros(after))

    def _key(self, *names: str) -> bytes:
        return utf8(self._engine.key(*names))


class RedisBus:
    """Small facts to every process that listens, by the servers' own publish and subscribe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        await self._engine.publish(topic, encode(fact))

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        return self._listen(topic)

    @asynccontextmanager
    async def _listen(self, topic: str) -> AsyncGenerator[AsyncIterator[Mapping[str, Json]]]:
        await self._engine.listening()
        async with self._engine.listeners.listen(topic) as facts:
            yield facts


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _width(window: float) -> int:
    return max(1, round(window * 1_000_000 / BUCKETS))
