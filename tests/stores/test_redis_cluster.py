"""A Redis Cluster follows the rules."""

import asyncio
from functools import partial
from uuid import uuid4

import pytest
from redis.crc import key_slot

from holdfast.errors import StoreUnavailable
from holdfast.stores import NewJob, open_store
from holdfast.stores.redis import RedisStore
from tests.servers.ports import LOOPBACK
from tests.servers.redis import SLOTS, RedisCluster
from tests.stores.conformance_bus import BusConformance
from tests.stores.conformance_counters import CountersConformance
from tests.stores.conformance_jobs import JobsConformance
from tests.stores.conformance_leases import LeasesConformance
from tests.stores.conformance_lifetime import LifetimeConformance
from tests.stores.conformance_records import RecordsConformance
from tests.stores.conftest import MakeStore

pytestmark = pytest.mark.xdist_group("redis-cluster")


@pytest.fixture
def make_store(redis_cluster: RedisCluster) -> MakeStore:
    return partial(open_store, f"{redis_cluster.store_url}&namespace={uuid4().hex}")


class TestJobs(JobsConformance):
    pass


class TestRecords(RecordsConformance):
    pass


class TestLeases(LeasesConformance):
    pass


class TestCounters(CountersConformance):
    pass


class TestBus(BusConformance):
    pass


class TestLifetime(LifetimeConformance):
    pass


def test_it_outlives_the_process(make_store: MakeStore) -> None:
    assert make_store().durable


def slot_of(store: RedisStore) -> int:
    """Where its only partition lies."""
    return key_slot(store._engine.partition_keys(0, ("job",))[0])


def holder_of(cluster: RedisCluster, slot: int) -> int:
    return next(number for number in range(3) if slot < (number + 1) * SLOTS // 3)


async def test_a_slot_that_moves_takes_its_jobs_along(redis_cluster: RedisCluster) -> None:
    async with RedisStore(f"{redis_cluster.store_url}&namespace={uuid4().hex}&partitions=1") as store:
        await store.jobs.add([NewJob(queue="deliveries", key="before", kind="stripe")])
        slot = slot_of(store)
        number = holder_of(redis_cluster, slot)
        source, target = redis_cluster.servers[number], redis_cluster.servers[(number + 1) % 3]
        source_id, target_id = (server.ask("CLUSTER", "MYID").decode() for server in (source, target))

        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        source.ask("MIGRATE", LOOPBACK, target.port, "", 0, 5000, "KEYS", *keys)
        with pytest.raises(StoreUnavailable):
            await store.jobs.add([NewJob(queue="deliveries", key="while it moved", kind="stripe")])
        for server in (target, source, redis_cluster.servers[(number + 2) % 3]):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

        await store.jobs.add([NewJob(queue="deliveries", key="after", kind="stripe")])
        claimed = await store.jobs.claim(["deliveries"], owner="a", limit=9, lease=60)
        assert [job.key for job in claimed] == ["before", "after"]


async def test_facts_reach_listeners_on_every_server(redis_cluster: RedisCluster) -> None:
    url = f"{redis_cluster.store_url}&namespace={uuid4().hex}"
    async with RedisStore(url) as one, RedisStore(url) as other, asyncio.timeout(30):
        await other._engine.servers.another()  # so that the two listen to different servers
        async with one.bus.listen("circuit") as here, other.bus.listen("circuit") as there:
            await one.bus.publish("circuit", {"open": True})

            assert await anext(here) == await anext(there) == {"open": True}
