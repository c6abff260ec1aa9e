"""Redis follows the rules, from 6.2 on, and Valkey does."""

from functools import partial
from uuid import uuid4

import pytest

from holdfast.stores import open_store
from tests.servers.redis import RedisServer
from tests.stores.conformance_bus import BusConformance
from tests.stores.conformance_counters import CountersConformance
from tests.stores.conformance_jobs import JobsConformance
from tests.stores.conformance_leases import LeasesConformance
from tests.stores.conformance_lifetime import LifetimeConformance
from tests.stores.conformance_records import RecordsConformance
from tests.stores.conftest import MakeStore


@pytest.fixture(params=["redis_server", "valkey_server"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    server: RedisServer = request.getfixturevalue(request.param)
    return partial(open_store, f"{server.store_url}&namespace={uuid4().hex}")


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
