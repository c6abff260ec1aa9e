"""Redis: one server, or a cluster, shared by any number of machines.

Every change is one Lua script, which runs alone and whose keys share one slot, so that a cluster runs it too. No script
makes up the name of a key. Times are the server's own, and the scripts follow the clock of a test only where one is
injected. A keyspace has P partitions, fixed when it is made: 1 on a server, 16 on a cluster. The partition of a job
follows from its queue and its ordering key, or from its key where it has none; that of a record from its kind and key.
So on a cluster an ordering key must follow from the key, as it does where both come from one delivery: a key that comes
again with another ordering key is another job there.

    {namespace:p}:job       hash     number → row, packed; none for a fresh job, which nobody claimed yet
    {namespace:p}:body      hash     number → headers and body, of a fresh job behind what makes its row
    {namespace:p}:key       hash     fingerprint of queue and key → number
    {namespace:p}:gone      zset     fingerprints of purged jobs, by when they were dropped
    {namespace:p}:due       zset     queue, due, number: what may be claimed and is not fresh; all scores are zero
    {namespace:p}:held      zset     queue, end of the lease, number
    {namespace:p}:order     zset     ordering key, number: what waits for another one to end
    {namespace:p}:head      hash     ordering key → number of the one that may run
    {namespace:p}:rows      zset     queue, state, number: all but what is held; fresh jobs have a state of their own
    {namespace:p}:ended     zset     (state, when they ended, number) of done, ignored and dead jobs
    {namespace:p}:count     hash     state and queue → rows
    {namespace:p}:misc      hash     the last number; whether those who wait were told, and who takes the next job of a
                                     queue; what came from other partitions
    {namespace:p}:out       zset     other partition, place: jobs that belong there
    {namespace:p}:outbody   hash     place → such a job
    {namespace:p}:record    hash     kind and key → version, value, time and index
    {namespace:p}:names     zset     kind, key
    {namespace:p}:index     zset     index, value, key
    {namespace:p}:wanted    zset     kind, due, key
    namespace:schema        hash     schema version, partitions
    namespace:lease:name, namespace:sum:name, namespace:slots:name      hashes that expire
    namespace:facts, namespace:ready, namespace:ready:process           channels

**Calls.** What callers add, complete or give back in one turn of the event loop goes to a partition as one script, and
each of them gets its own answer; a script writes many rows with one command.

**Jobs that are handed over.** A worker that does nothing but wait leaves its owner and lease in the queue. The script
that adds one job alone, with no other due before it, leases it to that worker and tells it over the connection that
listens: it begins without a claim. Where nobody listens any more it is an ordinary job; where the message comes too
late, or gets lost, it is given back, at no loss. With several partitions, and where changes are confirmed before they
count, every job is claimed.

**Jobs that belong elsewhere.** A script reaches one slot. Jobs added with a record, or in one call, are kept in the
partition of the record, or of the first job, by the same script that changes it: both or neither. Those that belong to
other partitions are then brought there, in their order, each exactly once, since every partition remembers up to which
place it has what came from which other one. Where whoever added them dies on the way, the next worker that claims or
waits brings them.

**What can be lost.** A server that crashes loses what its `appendfsync` allows. A failover loses what the new primary
had not received: `?durability=replicated` waits for one replica, and makes the loss rare, not impossible. Numbers and
fencing tokens of leases follow the clock, so that none comes back after either. While a slot moves to another server,
its partition is unavailable. A server whose clock is set back prolongs leases and delays by as much.
"""

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
