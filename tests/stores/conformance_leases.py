"""The rules of `Leases`, for every engine."""

from dataclasses import replace

from holdfast.stores import Lease, Store
from holdfast.testing.clock import ManualClock

TTL = 10.0


async def acquired(store: Store, owner: str, name: str = "sweep") -> Lease:
    lease = await store.leases.acquire(name, owner=owner, ttl=TTL)
    assert lease is not None
    return lease


class LeasesConformance:
    async def test_a_name_has_one_owner(self, store: Store) -> None:
        lease = await acquired(store, "a")

        assert (lease.name, lease.owner) == ("sweep", "a")
        assert await store.leases.acquire("sweep", owner="b", ttl=TTL) is None

    async def test_names_are_apart(self, store: Store) -> None:
        await acquired(store, "a")

        await acquired(store, "b", name="other")

    async def test_it_ends_with_its_time(self, store: Store, clock: ManualClock) -> None:
        await acquired(store, "a")
        await clock.advance(TTL - 0.001)
        assert await store.leases.acquire("sweep", owner="b", ttl=TTL) is None

        await clock.advance(0.001)

        await acquired(store, "b")

    async def test_the_owner_renews_by_acquiring_with_the_same_number(self, store: Store, clock: ManualClock) -> None:
        first = await acquired(store, "a")
        await clock.advance(TTL - 1)

        assert await acquired(store, "a") == first

        await clock.advance(TTL - 1)
        assert await store.leases.acquire("sweep", owner="b", ttl=TTL) is None

    async def test_every_acquisition_has_a_greater_number(self, store: Store, clock: ManualClock) -> None:
        numbers: list[int] = []
        for owner in ("a", "b", "a", "a"):
            lease = await acquired(store, owner)
            numbers.append(lease.number)
            await clock.advance(TTL)
        for owner in ("b", "b"):
            lease = await acquired(store, owner)
            numbers.append(lease.number)
            await store.leases.release(lease)

        assert numbers == sorted(set(numbers))

    async def test_renewing_counts_from_now(self, store: Store, clock: ManualClock) -> None:
        lease = await acquired(store, "a")
        await clock.advance(TTL - 1)

        assert await store.leases.renew(lease, ttl=TTL)

        await clock.advance(TTL - 0.001)
        assert await store.leases.acquire("sweep", owner="b", ttl=TTL) is None

    async def test_a_lost_lease_is_not_renewed(self, store: Store, clock: ManualClock) -> None:
        lost = await acquired(store, "a")
        await clock.advance(TTL)
        assert not await store.leases.renew(lost, ttl=TTL)

        current = await acquired(store, "b")

        assert not await store.leases.renew(lost, ttl=TTL)
        assert not await store.leases.renew(replace(current, number=lost.number), ttl=TTL)
        assert not await store.leases.renew(replace(current, owner="a"), ttl=TTL)
        assert not await store.leases.renew(replace(current, name="never acquired"), ttl=TTL)
        assert await store.leases.renew(current, ttl=TTL)

    async def test_a_released_name_is_free(self, store: Store) -> None:
        lease = await acquired(store, "a")

        await store.leases.release(lease)

        await acquired(store, "b")
        assert not await store.leases.renew(lease, ttl=TTL)

    async def test_releasing_what_was_lost_is_harmless(self, store: Store, clock: ManualClock) -> None:
        lost = await acquired(store, "a")
        await clock.advance(TTL)
        current = await acquired(store, "b")

        await store.leases.release(lost)

        assert await store.leases.renew(current, ttl=TTL)
