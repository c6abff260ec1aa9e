"""Answers shared through a store: the same rules on every engine."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from holdfast.errors import InvalidInput, NotOpen, StoreUnavailable
from holdfast.resilience.cache import AnswerCache, SharedAnswer
from holdfast.resilience.policy import Cache
from holdfast.stores import Draft, Store, open_store
from holdfast.stores.cache import MAX_SIZE, SharedCache
from holdfast.testing.clock import ManualClock


@pytest.fixture(params=["memory://", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncGenerator[Store]:
    url = request.param if request.param != "sqlite" else f"sqlite:///{tmp_path}/store.db"
    async with open_store(url, clock=clock) as store:
        yield store


def rates(store: Store, *, name: str = "rates", slots: int = 4096) -> SharedCache[str]:
    return SharedCache(store, name, encode=str.encode, decode=bytes.decode, slots=slots)


async def never() -> str:
    raise AssertionError("another process knows it")


async def test_what_was_put_is_there_with_its_age_until_its_time_is_over(store: Store, clock: ManualClock) -> None:
    cache = rates(store)
    assert await cache.get("chf") is None

    await cache.put("chf", b"\x000.9", ttl=60)

    assert await cache.get("chf") == SharedAnswer(b"\x000.9", 0)
    assert await cache.get("eur") is None
    await clock.advance(59)
    assert await cache.get("chf") == SharedAnswer(b"\x000.9", 59)
    await clock.advance(1)
    assert await cache.get("chf") is None


async def test_a_newer_answer_takes_the_place_of_an_older(store: Store, clock: ManualClock) -> None:
    cache = rates(store)
    await cache.put("chf", b"old", ttl=60)
    await clock.advance(50)

    await cache.put("chf", b"new", ttl=60)
    await clock.advance(50)

    assert await cache.get("chf") == SharedAnswer(b"new", 50)


async def test_caches_of_different_names_are_apart(store: Store) -> None:
    await rates(store).put("chf", b"0.9", ttl=60)

    assert await rates(store, name="fees").get("chf") is None


async def test_keys_that_meet_in_one_slot_take_turns(store: Store) -> None:
    cache = rates(store, slots=1)
    await cache.put("chf", b"0.9", ttl=60)

    await cache.put("eur", b"0.95", ttl=60)

    assert await cache.get("chf") is None
    assert await cache.get("eur") == SharedAnswer(b"0.95", 0)


async def test_there_are_never_more_records_than_slots(store: Store) -> None:
    cache = rates(store, slots=4)

    for number in range(40):
        await cache.put(str(number), b"1", ttl=60)

    assert len(await store.records.list("cache:rates")) <= 4


async def test_the_store_does_not_see_the_key(store: Store) -> None:
    await rates(store).put("('balance', 'ann@example.org')", b"1", ttl=60)

    [record] = await store.records.list("cache:rates")
    assert "ann" not in f"{record.key} {record.value}"


async def test_a_purge_empties_what_is_old_and_only_that(store: Store, clock: ManualClock) -> None:
    cache = rates(store)
    await cache.put("chf", b"0.9", ttl=10)
    await cache.put("eur", b"0.95", ttl=60)
    await clock.advance(10)

    assert (await cache.purge(), await cache.purge()) == (1, 0)

    kept = [record.value.get("data") for record in await store.records.list("cache:rates")]
    assert sorted(map(bool, kept)) == [False, True]
    assert await cache.get("eur") is not None
    await cache.put("chf", b"again", ttl=10)
    assert await cache.get("chf") == SharedAnswer(b"again", 0)


async def test_of_two_who_put_at_the_same_moment_one_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, get = rates(store), rates(store), store.records.get

    async def get_and_be_overtaken(kind: str, key: str) -> object:
        found = await get(kind, key)
        monkeypatch.setattr(store.records, "get", get)
        await theirs.put("chf", b"theirs", ttl=60)
        return found

    monkeypatch.setattr(store.records, "get", get_and_be_overtaken)
    await ours.put("chf", b"ours", ttl=60)

    assert await ours.get("chf") == SharedAnswer(b"theirs", 0)


async def test_what_is_too_large_is_not_shared(store: Store) -> None:
    cache = rates(store)

    await cache.put("chf", b"x" * (MAX_SIZE + 1), ttl=60)
    assert await cache.get("chf") is None
    await cache.put("chf", b"x" * MAX_SIZE, ttl=60)

    assert await cache.get("chf") == SharedAnswer(b"x" * MAX_SIZE, 0)


@pytest.mark.parametrize(("name", "slots"), [("", 1), ("rates", 0), ("rates", 1_000_001)])
async def test_a_cache_without_name_or_slots_is_refused(store: Store, name: str, slots: int) -> None:
    with pytest.raises(InvalidInput):
        rates(store, name=name, slots=slots)


async def test_two_caches_over_one_store_fetch_once(store: Store, clock: ManualClock) -> None:
    async def fetch() -> str:
        return "0.9"

    theirs = AnswerCache[str](Cache(60), clock=clock, shared=rates(store))
    ours = AnswerCache[str](Cache(60), clock=clock, shared=rates(store))
    await theirs.get(("rate", "chf"), fetch)
    await shared(theirs)
    await clock.advance(40)

    answer = await ours.get(("rate", "chf"), never)

    assert (answer.value, answer.age(clock.monotonic())) == ("0.9", 40)


async def shared(cache: AnswerCache[str]) -> None:
    """Wait until what it fetched has reached the store."""
    for task in list(cache._tasks):
        await task


async def test_a_record_of_another_making_costs_a_fetch(store: Store, clock: ManualClock) -> None:
    async def fetch() -> str:
        return "0.9"

    await rates(store).put("'chf'", b"1", ttl=60)
    [record] = await store.records.list("cache:rates")
    spoilt = Draft(value={**record.value, "data": 7, "at": "yesterday"}, due_at=record.due_at)
    await store.records.apply(record.kind, record.key, record.version, spoilt)

    answer = await AnswerCache[str](Cache(60), clock=clock, shared=rates(store)).get("chf", fetch)

    assert answer.value == "0.9"


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), NotOpen("closed")])
async def test_a_store_that_is_down_is_nobodys_failure(
    store: Store, clock: ManualClock, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(kind: str, key: str) -> object:
        raise error

    async def fetch() -> str:
        return "0.9"

    monkeypatch.setattr(store.records, "get", down)
    cache = AnswerCache[str](Cache(60), clock=clock, shared=rates(store))

    assert (await cache.get("chf", fetch)).value == "0.9"
    assert (await cache.get("chf", never)).value == "0.9"
