"""The rules of `Records`, for every engine."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from holdfast.errors import InvalidInput, NaiveDatetime, VersionConflict
from holdfast.stores import Added, Draft, Json, NewJob, Record, Store
from holdfast.testing.clock import ManualClock

JOB = NewJob(queue="events", key="paid", kind="PaymentPaid")


async def keep(store: Store, key: str, *, kind: str = "payment", expected: int = 0, **draft: object) -> Record:
    return await store.records.apply(kind, key, expected, Draft(**{"value": {}} | draft))  # type: ignore[arg-type]


class ApplyRules:
    async def test_an_unknown_record_is_none(self, store: Store) -> None:
        assert await store.records.get("payment", "a") is None

    async def test_a_new_record_has_version_one(self, store: Store) -> None:
        kept = await keep(store, "a", value={"amount": 1})

        assert kept == Record(kind="payment", key="a", version=1, value={"amount": 1}, due_at=None)
        assert await store.records.get("payment", "a") == kept

    async def test_every_change_is_one_version_more(self, store: Store) -> None:
        await keep(store, "a", value={"step": 1})
        changed = await keep(store, "a", expected=1, value={"step": 2})

        assert (changed.version, changed.value) == (2, {"step": 2})
        assert await store.records.get("payment", "a") == changed

    @pytest.mark.parametrize("expected", [0, 2, 7])
    async def test_another_version_than_expected_changes_nothing(self, store: Store, expected: int) -> None:
        kept = await keep(store, "a", value={"step": 1}, index={"vendor": ["v1"]})

        with pytest.raises(VersionConflict):
            await store.records.apply(
                "payment", "a", expected, Draft(value={"step": 2}, index={"vendor": ["v2"]}), jobs=[JOB]
            )

        assert await store.records.get("payment", "a") == kept
        assert await store.records.find("payment", "vendor", "v2") == []
        assert await store.jobs.list() == []

    async def test_a_record_that_does_not_exist_cannot_be_changed(self, store: Store) -> None:
        with pytest.raises(VersionConflict):
            await keep(store, "a", expected=1)

    async def test_a_record_and_its_jobs_are_kept_together(self, store: Store) -> None:
        await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[JOB])

        assert [job.key for job in await store.jobs.list()] == ["paid"]
        assert await store.jobs.add([JOB]) == [Added.DUPLICATE]

    async def test_a_job_that_was_added_before_stays_and_the_record_changes(self, store: Store) -> None:
        await store.jobs.add([JOB])

        await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[JOB])

        [job] = await store.jobs.list()
        assert job.arrivals == 2
        assert await store.records.get("payment", "a") is not None

    async def test_a_job_that_cannot_be_kept_leaves_the_record_unchanged(self, store: Store) -> None:
        wrong = NewJob(queue="events", key="x", kind="x", headers={"weight": 1.5})  # type: ignore[dict-item]

        with pytest.raises(InvalidInput):
            await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[JOB, wrong])

        assert await store.records.get("payment", "a") is None
        assert await store.jobs.list() == []

    @pytest.mark.parametrize(
        "value",
        [
            {"a": [1, -(2**80), True, False, None, "", {"b": []}]},
            {"": {"\x00": "\x00\n\"'\\"}, "ü": "€ 💶 \u2028", "lone": "\ud800"},
            {"z": 1, "a": 2},
        ],
    )
    async def test_json_reads_back_exactly(self, store: Store, value: dict[str, Json]) -> None:
        await keep(store, "a", value=value)

        kept = await store.records.get("payment", "a")
        assert kept is not None
        assert kept.value == value
        assert list(kept.value) == list(value)
        assert repr(kept.value) == repr(value)

    @pytest.mark.parametrize("value", [1.0, float("nan"), (1, 2), {1: 2}, b"bytes", {"deep": [{"er": 0.1}]}])
    async def test_what_json_would_change_is_refused(self, store: Store, value: object) -> None:
        with pytest.raises(InvalidInput):
            await keep(store, "a", value={"value": value})

        assert await store.records.get("payment", "a") is None

    async def test_nobody_holds_a_reference_into_a_record(self, store: Store) -> None:
        value: dict[str, list[int]] = {"parts": [1]}
        kept = await keep(store, "a", value=value)
        value["parts"].append(2)
        kept.value["parts"].append(3)  # type: ignore[union-attr]

        again = await store.records.get("payment", "a")
        assert again is not None
        assert again.value == {"parts": [1]}

    async def test_kinds_are_apart(self, store: Store) -> None:
        await keep(store, "a", index={"vendor": ["v"]}, due_at=datetime(2000, 1, 1, tzinfo=UTC))

        assert await store.records.get("meeting", "a") is None
        assert await store.records.find("meeting", "vendor", "v") == []
        assert await store.records.due("meeting") == []
        assert await store.records.list("meeting") == []
        assert (await keep(store, "a", kind="meeting")).version == 1


class FindRules:
    async def test_several_records_may_share_a_value(self, store: Store) -> None:
        for key in "abc":
            await keep(store, key, index={"vendor": ["v", f"only {key}"]})

        assert [found.key for found in await store.records.find("payment", "vendor", "v")] == ["a", "b", "c"]
        assert [found.key for found in await store.records.find("payment", "vendor", "only b")] == ["b"]
        assert len(await store.records.find("payment", "vendor", "v", limit=2)) == 2

    async def test_only_the_current_index_finds(self, store: Store) -> None:
        await keep(store, "a", index={"vendor": ["old", "both"], "status": ["open"]})
        await keep(store, "a", expected=1, value={"now": True}, index={"vendor": ["both", "new"]})

        async def found(index: str, value: str) -> list[object]:
            return [record.value for record in await store.records.find("payment", index, value)]

        assert await found("vendor", "both") == await found("vendor", "new") == [{"now": True}]
        assert await found("vendor", "old") == await found("status", "open") == await found("status", "new") == []

    async def test_a_value_given_twice_is_one_entry(self, store: Store) -> None:
        await keep(store, "a", index={"vendor": ["v", "v"]})

        assert len(await store.records.find("payment", "vendor", "v")) == 1


class DueRules:
    async def test_longest_overdue_comes_first(self, store: Store, clock: ManualClock) -> None:
        for key, seconds in (("b", 2), ("c", 3), ("a", 1), ("later", 99)):
            await keep(store, key, due_at=clock.now() + timedelta(seconds=seconds))
        await keep(store, "never")
        await clock.advance(3)

        assert [record.key for record in await store.records.due("payment")] == ["a", "b", "c"]
        assert [record.key for record in await store.records.due("payment", limit=1)] == ["a"]

    async def test_a_change_moves_or_removes_the_time(self, store: Store, clock: ManualClock) -> None:
        await keep(store, "a", due_at=clock.now())
        await keep(store, "b", due_at=clock.now())

        await keep(store, "a", expected=1, due_at=clock.now() + timedelta(seconds=1))
        await keep(store, "b", expected=1)

        assert await store.records.due("payment") == []
        await clock.advance(1)
        assert [record.key for record in await store.records.due("payment")] == ["a"]

    async def test_the_time_is_an_instant_kept_to_the_microsecond(self, store: Store) -> None:
        due_at = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5)))

        await keep(store, "a", due_at=due_at)

        kept = await store.records.get("payment", "a")
        assert kept is not None
        assert kept.due_at == due_at

    async def test_a_time_without_a_zone_is_refused(self, store: Store) -> None:
        with pytest.raises(NaiveDatetime):
            await keep(store, "a", due_at=datetime(2026, 1, 1))


class ListRules:
    async def test_records_come_in_the_order_of_their_keys(self, store: Store) -> None:
        keys = ["a", "B", "ä", "a:1", "1", "💶", "Z"]
        for key in keys:
            await keep(store, key)

        assert [record.key for record in await store.records.list("payment")] == sorted(keys)

    async def test_a_page_begins_behind_the_last_one(self, store: Store) -> None:
        for key in "abcde":
            await keep(store, key)

        page = await store.records.list("payment", limit=2)
        rest = await store.records.list("payment", after=page[-1].key)

        assert [record.key for record in page] == ["a", "b"]
        assert [record.key for record in rest] == ["c", "d", "e"]


class RewriteRules:
    async def test_the_value_changes_and_nothing_else(self, store: Store, clock: ManualClock) -> None:
        kept = await keep(store, "a", value={"amount": 1}, index={"vendor": ["v"]}, due_at=clock.now())

        assert await store.records.rewrite(kept, {"sealed": "…"})

        [found] = await store.records.find("payment", "vendor", "v")
        assert found == replace(kept, value={"sealed": "…"})
        assert await store.records.due("payment") == [found]
        assert (await keep(store, "a", expected=1)).version == 2

    async def test_a_record_at_another_version_stays(self, store: Store) -> None:
        first = await keep(store, "a", value={"step": 1})
        await keep(store, "a", expected=1, value={"step": 2})

        assert not await store.records.rewrite(first, {"step": 3})
        assert not await store.records.rewrite(replace(first, key="b"), {"step": 3})

        kept = await store.records.get("payment", "a")
        assert kept is not None
        assert kept.value == {"step": 2}
        assert await store.records.get("payment", "b") is None


class RecordsConformance(ApplyRules, FindRules, DueRules, ListRules, RewriteRules):
    """All of them."""
