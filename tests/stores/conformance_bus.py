"""The rules of `Bus`, for every engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from holdfast.errors import InvalidInput
from holdfast.stores import Json, Store


async def next_of(facts: AsyncIterator[Mapping[str, Json]]) -> Mapping[str, Json]:
    async with asyncio.timeout(30):
        return await anext(facts)


class BusConformance:
    async def test_a_listener_hears_what_is_published_from_now_on(self, store: Store) -> None:
        await store.bus.publish("circuit", {"number": 0})
        async with store.bus.listen("circuit") as facts:
            await store.bus.publish("circuit", {"number": 1})
            await store.bus.publish("circuit", {"number": 2})

            assert [await next_of(facts), await next_of(facts)] == [{"number": 1}, {"number": 2}]

    async def test_each_listener_hears_each_fact_once(self, store: Store) -> None:
        async with store.bus.listen("circuit") as first, store.bus.listen("circuit") as second:
            await store.bus.publish("circuit", {"number": 1})
            await store.bus.publish("circuit", {"number": 2})

            for facts in (first, second):
                assert [await next_of(facts), await next_of(facts)] == [{"number": 1}, {"number": 2}]

    async def test_topics_are_apart(self, store: Store) -> None:
        async with store.bus.listen("circuit") as facts:
            await store.bus.publish("switch", {"number": 1})
            await store.bus.publish("circuit", {"number": 2})

            assert await next_of(facts) == {"number": 2}

    async def test_nobody_needs_to_listen(self, store: Store) -> None:
        await store.bus.publish("circuit", {"number": 1})

    async def test_a_listener_that_left_hears_nothing(self, store: Store) -> None:
        async with store.bus.listen("circuit"):
            pass
        async with store.bus.listen("later") as later:  # between servers facts are under way for a moment, in order
            await store.bus.publish("circuit", {"number": 1})
            await store.bus.publish("later", {})
            await next_of(later)

        async with store.bus.listen("circuit") as facts:
            await store.bus.publish("circuit", {"number": 2})
            assert await next_of(facts) == {"number": 2}

    async def test_listeners_do_not_share_a_fact(self, store: Store) -> None:
        async with store.bus.listen("circuit") as first, store.bus.listen("circuit") as second:
            await store.bus.publish("circuit", {"list": [1]})
            (await next_of(first))["list"].append(2)  # type: ignore[union-attr]

            assert await next_of(second) == {"list": [1]}

    async def test_a_listener_who_does_not_read_costs_a_bounded_memory(self, store: Store) -> None:
        async with store.bus.listen("circuit") as facts:
            await asyncio.gather(*(store.bus.publish("circuit", {"number": number}) for number in range(1500)))

            assert (await next_of(facts))["number"] == 0

    async def test_a_fact_is_json(self, store: Store) -> None:
        with pytest.raises(InvalidInput):
            await store.bus.publish("circuit", {"rate": 0.5})  # type: ignore[dict-item]
