"""The rules of `Store` itself, for every engine."""

import asyncio
from datetime import UTC, timedelta

import pytest

from holdfast.errors import ConfigurationError, NotOpen, WrongLoop
from holdfast.stores import NewJob, Store
from holdfast.testing.clock import ManualClock
from tests.stores.conftest import MakeStore

JOB = NewJob(queue="deliveries", key="a", kind="stripe")


class LifetimeConformance:
    def test_it_is_made_without_a_loop(self, make_store: MakeStore) -> None:
        store = make_store()

        async def use() -> int:
            async with store:
                await store.jobs.add([JOB])
                return len(await store.jobs.list())

        assert asyncio.run(use()) == 1

    async def test_it_is_used_only_while_open(self, make_store: MakeStore) -> None:
        store = make_store()
        with pytest.raises(NotOpen):
            await store.jobs.add([JOB])
        async with store:
            await store.jobs.add([JOB])

        with pytest.raises(NotOpen):
            await store.jobs.list()
        with pytest.raises(NotOpen):
            await store.jobs.wait(1)
        with pytest.raises(NotOpen):
            await store.records.get("payment", "a")
        with pytest.raises(NotOpen):
            await store.leases.acquire("a", owner="a", ttl=1)
        with pytest.raises(NotOpen):
            await store.counters.total("a", window=1)
        with pytest.raises(NotOpen):
            await store.bus.publish("a", {})
        with pytest.raises(NotOpen):
            async with store.bus.listen("a"):
                pass
        with pytest.raises(NotOpen):
            await store.now()

    async def test_closing_twice_is_harmless(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.__aexit__(None, None, None)
        async with store:
            await store.__aexit__(None, None, None)

    async def test_it_opens_again(self, make_store: MakeStore) -> None:
        store = make_store()
        for _ in range(2):
            async with store:
                await store.jobs.add([JOB])

    async def test_it_is_not_opened_twice(self, store: Store) -> None:
        with pytest.raises(ConfigurationError):
            await store.__aenter__()

        assert await store.jobs.list() == []

    async def test_another_loop_is_refused(self, store: Store) -> None:
        def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                asyncio.run(store.jobs.add([JOB]))

        await asyncio.to_thread(elsewhere)

    async def test_its_time_is_aware_and_follows_the_clock(self, store: Store, clock: ManualClock) -> None:
        assert await store.now() == clock.now()
        assert (await store.now()).tzinfo is UTC

        await clock.advance(5)

        assert await store.now() == clock.now()

    async def test_skew_is_added(self, make_store: MakeStore, clock: ManualClock) -> None:
        async with make_store(clock=clock, skew_ms=-1500) as store:
            assert await store.now() == clock.now() - timedelta(seconds=1.5)

    async def test_its_time_never_runs_backwards_nor_stands_still(self, store: Store, clock: ManualClock) -> None:
        before = await store.now()

        clock.jump(-3600)
        assert await store.now() == before

        await clock.advance(5)
        assert await store.now() == before + timedelta(seconds=5)

    async def test_a_clock_set_back_neither_prolongs_nor_ends_a_lease(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([JOB])
        await store.jobs.claim(["deliveries"], owner="a", limit=1, lease=10)
        clock.jump(-3600)

        await clock.advance(9)
        assert await store.jobs.claim(["deliveries"], owner="b", limit=1, lease=10) == []
        await clock.advance(1)
        assert len(await store.jobs.claim(["deliveries"], owner="b", limit=1, lease=10)) == 1
