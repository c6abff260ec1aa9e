"""The rules of `Counters`, for every engine."""

from holdfast.stores import Store
from holdfast.testing.clock import ManualClock

WINDOW = 60.0
TTL = 30.0


async def take(store: Store, wanted: int, owner: str = "a", name: str = "zoom") -> int:
    return await store.counters.take(name, owner=owner, slots=5, wanted=wanted, ttl=TTL)


class SumRules:
    async def test_the_sum_includes_what_is_added(self, store: Store) -> None:
        assert await store.counters.add("spent", 3, window=WINDOW) == 3
        assert await store.counters.add("spent", 4, window=WINDOW) == 7
        assert await store.counters.add("spent", -1, window=WINDOW) == 6
        assert await store.counters.total("spent", window=WINDOW) == 6

    async def test_names_are_apart(self, store: Store) -> None:
        await store.counters.add("a", 3, window=WINDOW)

        assert await store.counters.total("b", window=WINDOW) == 0
        assert await store.counters.add("b", 1, window=WINDOW) == 1

    async def test_what_is_younger_than_the_window_counts(self, store: Store, clock: ManualClock) -> None:
        await clock.advance(1.234)
        await store.counters.add("spent", 1, window=WINDOW)

        await clock.advance(WINDOW - 0.001)

        assert await store.counters.total("spent", window=WINDOW) == 1

    async def test_what_is_a_tenth_older_than_the_window_does_not(self, store: Store, clock: ManualClock) -> None:
        await clock.advance(1.234)
        await store.counters.add("spent", 1, window=WINDOW)

        await clock.advance(WINDOW * 1.1)

        assert await store.counters.total("spent", window=WINDOW) == 0
        assert await store.counters.add("spent", 5, window=WINDOW) == 5

    async def test_the_window_slides(self, store: Store, clock: ManualClock) -> None:
        sums: list[int] = []
        for _ in range(40):
            sums.append(await store.counters.add("spent", 1, window=WINDOW))
            await clock.advance(WINDOW / 20)

        assert sums[:20] == list(range(1, 21))
        assert all(20 <= total <= 22 for total in sums[20:])


class SlotRules:
    async def test_no_more_than_there_are(self, store: Store) -> None:
        assert await take(store, 3) == 3
        assert await take(store, 3, owner="b") == 2
        assert await take(store, 3) == 0
        assert await take(store, 0) == 0

    async def test_names_are_apart(self, store: Store) -> None:
        await take(store, 5)

        assert await take(store, 5, name="jaas") == 5

    async def test_taken_slots_return_after_their_time(self, store: Store, clock: ManualClock) -> None:
        await take(store, 2)
        await clock.advance(TTL / 2)
        await take(store, 3)

        await clock.advance(TTL / 2 - 0.001)
        assert await take(store, 5) == 0
        await clock.advance(0.001)
        assert await take(store, 5) == 2

    async def test_given_slots_are_free_at_once(self, store: Store) -> None:
        await take(store, 5)

        await store.counters.give("zoom", owner="a", count=2)

        assert await take(store, 5, owner="b") == 2

    async def test_given_slots_may_be_free_later(self, store: Store, clock: ManualClock) -> None:
        await take(store, 5)

        await store.counters.give("zoom", owner="a", count=2, after=7)

        await clock.advance(6.999)
        assert await take(store, 5) == 0
        await clock.advance(0.001)
        assert await take(store, 5) == 2

    async def test_later_may_be_later_than_their_own_time(self, store: Store, clock: ManualClock) -> None:
        await take(store, 5)

        await store.counters.give("zoom", owner="a", count=5, after=TTL * 2)

        await clock.advance(TTL * 2 - 0.001)
        assert await take(store, 5) == 0
        await clock.advance(0.001)
        assert await take(store, 5) == 5

    async def test_slots_are_given_back_once(self, store: Store, clock: ManualClock) -> None:
        await take(store, 2)
        await take(store, 3, owner="b")
        await store.counters.give("zoom", owner="a", count=2, after=10)

        await store.counters.give("zoom", owner="a", count=9)

        assert await take(store, 5, owner="c") == 0

    async def test_only_what_the_owner_holds_is_given(self, store: Store, clock: ManualClock) -> None:
        await take(store, 2)
        await take(store, 3, owner="b")

        await store.counters.give("zoom", owner="a", count=5)
        await store.counters.give("zoom", owner="nobody", count=5)

        assert await take(store, 5) == 2

    async def test_fewer_slots_than_are_taken_is_none_to_take(self, store: Store) -> None:
        await take(store, 5)

        assert await store.counters.take("zoom", owner="b", slots=3, wanted=1, ttl=TTL) == 0


class CountersConformance(SumRules, SlotRules):
    """All of them."""
