"""What the conformance suites stand on: a clock that stands still, and an open store."""

from collections.abc import AsyncGenerator, Callable

import pytest

from holdfast.stores import Store
from holdfast.testing.clock import ManualClock

pytest.register_assert_rewrite(
    "tests.stores.conformance_bus",
    "tests.stores.conformance_counters",
    "tests.stores.conformance_jobs",
    "tests.stores.conformance_leases",
    "tests.stores.conformance_lifetime",
    "tests.stores.conformance_records",
)

MakeStore = Callable[..., Store]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(make_store: MakeStore, clock: ManualClock) -> AsyncGenerator[Store]:
    async with make_store(clock=clock) as store:
        yield store
