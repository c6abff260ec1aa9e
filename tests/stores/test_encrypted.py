"""An encrypted store follows the rules of every store, and gives nothing away."""

import base64
import json
import logging
import string
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, Forgotten, MissingCredential, MissingExtra, UnknownKey, Unreadable
from holdfast.stores import Draft, Job, JobState, NewJob, Record, Store, open_store
from holdfast.stores.encrypted import UNREADABLE, EncryptedStore
from holdfast.stores.key_ring import MAGIC, Envelope, KeyRing
from holdfast.stores.rotation import Rotating, Rotation
from holdfast.stores.sealed import MARK, SealedJob, key_id_of, subject_of
from holdfast.stores.subject_keys import KIND as SUBJECT_KEY
from holdfast.testing.clock import ManualClock
from tests.stores.conformance_bus import BusConformance
from tests.stores.conformance_counters import CountersConformance
from tests.stores.conformance_jobs import JobsConformance
from tests.stores.conformance_leases import LeasesConformance
from tests.stores.conformance_lifetime import LifetimeConformance
from tests.stores.conformance_records import RecordsConformance
from tests.stores.conftest import MakeStore

OLD, NEW = "b2xkIGtleSwgMzIgYnl0ZXMgb2YgYmFzZTY0ISEhISE=", "bmV3IGtleSwgMzIgYnl0ZXMgb2YgYmFzZTY0ISEhISE="
ADA = "ada@example.org"
LETTERS = string.ascii_letters + string.digits + "+/="


@pytest.fixture(params=["memory", "sqlite", "sqlite-with-keys-apart"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    def make(*, clock: Clock | None = None, skew_ms: int = 0) -> Store:
        if request.param == "memory":
            return EncryptedStore(open_store("memory://", clock=clock, skew_ms=skew_ms), KeyRing(OLD))
        inner = open_store(f"sqlite:///{tmp_path}/store.db", clock=clock, skew_ms=skew_ms)
        apart = open_store(f"sqlite:///{tmp_path}/keys.db", clock=clock) if "apart" in request.param else None
        return EncryptedStore(inner, KeyRing(OLD), subject_keys=apart)

    return make


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


# What rests in the engine.


def new(key: str = "a", *, subject: str = "", **facts: object) -> NewJob:
    job = NewJob(queue="deliveries", key=key, kind="stripe", body=ADA.encode(), headers={"name": "Ada"})
    return replace(job, subject=subject, **facts)  # type: ignore[arg-type]


def over(inner: Store, *keys: str, require: bool = False) -> EncryptedStore:
    return EncryptedStore(inner, KeyRing(*keys, require=require))


def memory(clock: ManualClock | None = None) -> Store:
    return open_store("memory://", clock=clock or ManualClock())


def _bytes_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


@pytest.mark.parametrize("subject", ["", "order-1"])
async def test_nothing_personal_is_in_the_file(tmp_path: Path, subject: str) -> None:
    async with over(open_store(f"sqlite:///{tmp_path}/store.db"), OLD) as store:
        await store.jobs.add([new(subject=subject, ordering_key="o")])
        await store.records.apply(
            "payment", "order-1", 0, Draft(value={"email": ADA}, subject=subject), jobs=[new("b", subject=subject)]
        )
        resting = _bytes_in(tmp_path)
        jobs, record = await store.jobs.list(), await store.records.get("payment", "order-1")

    assert ADA.encode() not in resting
    assert b"Ada" not in resting
    assert base64.b64encode(ADA.encode())[:-4] not in resting
    assert [(job.body, job.headers) for job in jobs] == [(ADA.encode(), {"name": "Ada"})] * 2
    assert record is not None
    assert record.value == {"email": ADA}


async def test_what_the_engine_has_to_look_at_stays_readable() -> None:
    async with over(memory(), OLD) as store:
        await store.jobs.add([new(ordering_key="o", handler="confirm")])
        await store.records.apply("payment", "order-1", 0, Draft(value={"a": 1}, index={"vendor": ["v"]}))
        [job] = await store.inner.jobs.list()
        [record] = await store.inner.records.find("payment", "vendor", "v")

    assert (job.queue, job.key, job.kind, job.handler, job.ordering_key) == (
        *("deliveries", "a", "stripe", "confirm", "o"),
    )
    assert (record.kind, record.key, list(record.value)) == ("payment", "order-1", [MARK])


async def test_no_two_rows_of_the_same_content_look_the_same() -> None:
    async with over(memory(), OLD) as store:
        await store.jobs.add([new("a"), new("b")])
        first, second = await store.inner.jobs.list()

    assert first.body != second.body


async def test_what_was_kept_before_encryption_stays_readable_and_is_sealed_with_its_next_change() -> None:
    async with memory() as plain:
        await plain.jobs.add([new()])
        await plain.records.apply("payment", "order-1", 0, Draft(value={"email": ADA}))
        store = over(plain, OLD)

        [job] = await store.jobs.claim(["deliveries"], owner="w", limit=1, lease=10)
        record = await store.records.get("payment", "order-1")
        await store.records.apply("payment", "order-1", 1, Draft(value={"email": ADA}))
        resting = await plain.records.get("payment", "order-1")

    assert (job.body, job.headers) == (ADA.encode(), {"name": "Ada"})
    assert record is not None
    assert record.value == {"email": ADA}
    assert resting is not None
    assert key_id_of(resting) == KeyRing(OLD).current


async def test_a_plain_record_may_have_a_field_of_the_same_name_as_the_mark() -> None:
    token = {MARK: "by other means", "expires_at": "2026-01-01T00:00:00+00:00"}
    async with memory() as plain:
        await plain.records.apply("token", "zoom", 0, Draft(value=dict(token)))

        record = await over(plain, OLD).records.get("token", "zoom")

    assert record is not None
    assert record.value == token


async def test_a_row_that_is_not_sealed_is_refused_where_everything_has_to_be() -> None:
    async with memory() as plain:
        await plain.records.apply("payment", "order-1", 0, Draft(value={"email": ADA}))

        with pytest.raises(Unreadable, match="it is not sealed"):
            await over(plain, OLD, require=True).records.get("payment", "order-1")


async def test_what_is_kept_is_sealed_under_the_newest_key_and_opened_by_any() -> None:
    async with memory() as inner:
        await over(inner, OLD).records.apply("payment", "a", 0, Draft(value={"email": ADA}))
        store = over(inner, NEW, OLD)
        old = await store.records.get("payment", "a")
        await store.records.apply("payment", "a", 1, Draft(value={"email": ADA}))
        resting = await inner.records.get("payment", "a")

    assert old is not None
    assert old.value == {"email": ADA}
    assert resting is not None
    assert key_id_of(resting) == KeyRing(NEW).current


# What was altered.


async def _kept(subject: str) -> tuple[Store, Job, Record]:
    inner = await memory().__aenter__()
    store = over(inner, OLD)
    await store.jobs.add([new(subject=subject)])
    await store.records.apply("payment", "a", 0, Draft(value={"email": ADA}, subject=subject))
    [job] = await inner.jobs.list()
    record = await inner.records.get("payment", "a")
    assert record is not None
    return inner, job, record


@pytest.mark.parametrize("subject", ["", "order-1"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_job_of_which_any_byte_was_altered_is_refused(subject: str, data: st.DataObject) -> None:
    inner, job, _ = await _kept(subject)
    at = data.draw(st.integers(0, len(job.body) - 1))
    bits = data.draw(st.integers(1, 255))
    altered = job.body[:at] + bytes([job.body[at] ^ bits]) + job.body[at + 1 :]

    await inner.jobs.rewrite(job, body=altered, headers=job.headers)

    with pytest.raises(Unreadable):
        await over(inner, OLD).jobs.get(job.id)


@pytest.mark.parametrize("subject", ["", "order-1"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_record_of_which_any_letter_was_altered_is_refused(subject: str, data: st.DataObject) -> None:
    inner, _, record = await _kept(subject)
    text = json.dumps(record.value)
    inside = [at for at, letter in enumerate(text) if letter not in '{}": ']
    at = data.draw(st.sampled_from(inside))
    # By so much further in the alphabet, since what is drawn must not depend on a random text.
    letter = LETTERS[(LETTERS.index(text[at]) + data.draw(st.integers(1, len(LETTERS) - 1))) % len(LETTERS)]

    await inner.records.rewrite(record, json.loads(text[:at] + letter + text[at + 1 :]))

    with pytest.raises(Unreadable):
        await over(inner, OLD).records.get("payment", "a")


@pytest.mark.parametrize("headers", [{}, {MARK: "2"}, {"sealef": "1"}, {MARK: "1", "more": ""}])
async def test_a_job_that_lost_its_mark_does_not_pass_for_a_plain_one(headers: dict[str, str]) -> None:
    inner, job, _ = await _kept("")
    await inner.jobs.rewrite(job, body=job.body, headers=headers)

    with pytest.raises(Unreadable):
        await over(inner, OLD).jobs.get(job.id)


@pytest.mark.parametrize("subject", ["", "order-1"])
@pytest.mark.parametrize("column", ["queue", "key", "kind", "handler", "ordering_key"])
async def test_a_job_moved_to_another_place_is_refused(subject: str, column: str) -> None:
    inner, job, _ = await _kept(subject)
    moved = replace(job, **{column: "another"})  # type: ignore[arg-type]

    [here, there] = await over(inner, OLD).jobs.opened([job, moved])

    assert here.body == ADA.encode()
    assert isinstance(there, SealedJob)


@pytest.mark.parametrize("subject", ["", "order-1"])
async def test_a_job_copied_to_another_key_is_refused(subject: str) -> None:
    inner, job, _ = await _kept(subject)
    await inner.jobs.add([replace(new("b"), body=job.body, headers=job.headers)])
    [copy] = [found for found in await inner.jobs.list() if found.key == "b"]

    with pytest.raises(Unreadable):
        await over(inner, OLD).jobs.get(copy.id)


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_of_several_texts_for_the_same_bytes_only_the_one_that_was_written_is_taken(size: int) -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.records.apply("payment", "a", 0, Draft(value={"x": "y" * size}))
        record = await inner.records.get("payment", "a")
        assert record is not None
        text = str(record.value[MARK])
        others = [
            text[:at] + letter + text[at + 1 :]
            for at in range(len(text) - 4, len(text))
            for letter in LETTERS
            if letter != text[at]
        ]
        copies = [replace(record, value={MARK: other}) for other in others]

        opened = await store.records.opened(copies)

    assert all(isinstance(found, Unreadable) for found in opened)


@pytest.mark.parametrize("label", [b"k:+0:3f9a1c02", b"k:00:3f9a1c02", b"x:0:3f9a1c02", b"k:0", b"k:x:y", b"\xff:0:a"])
def test_a_label_has_one_spelling(label: bytes) -> None:
    packed = MAGIC + len(label).to_bytes(2, "big") + label + bytes(28)

    assert Envelope.unpack(packed) is None


@pytest.mark.parametrize("subject", ["", "order-1"])
@pytest.mark.parametrize(("kind", "key"), [("payment", "b"), ("meeting", "a")])
async def test_a_record_moved_to_another_key_is_refused(subject: str, kind: str, key: str) -> None:
    inner, _, record = await _kept(subject)
    await inner.records.apply(kind, key, 0, Draft(value=record.value))

    with pytest.raises(Unreadable, match=f"{kind} {key} cannot be opened"):
        await over(inner, OLD).records.get(kind, key)


async def test_a_subjects_key_moved_to_another_subject_is_refused() -> None:
    inner, _, _ = await _kept("order-1")
    stolen = await inner.records.get(SUBJECT_KEY, "order-1")
    assert stolen is not None
    await over(inner, OLD).jobs.add([new("b", subject="order-2")])
    theirs = await inner.records.get(SUBJECT_KEY, "order-2")
    assert theirs is not None
    await inner.records.rewrite(theirs, stolen.value)

    with pytest.raises(Unreadable, match="the key of order-2"):
        await over(inner, OLD).jobs.add([new("c", subject="order-2")])


async def test_an_altered_job_becomes_a_dead_letter_and_the_others_go_on() -> None:
    inner, job, _ = await _kept("")
    await inner.jobs.rewrite(job, body=job.body[:-1], headers=job.headers)
    store = over(inner, OLD)
    await store.jobs.add([new("b")])

    claimed = await store.jobs.claim(["deliveries"], owner="w", limit=1, lease=10)

    dead = await inner.jobs.get(job.id)
    assert [job.key for job in claimed] == ["b"]
    assert (dead.state, dead.reason) == (JobState.DEAD, UNREADABLE)


async def test_an_altered_record_is_left_out_of_what_is_due(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    async with memory(clock) as inner:
        store = over(inner, OLD)
        for key in "ab":
            await store.records.apply("payment", key, 0, Draft(value={}, due_at=clock.now()))
        first = await inner.records.get("payment", "a")
        assert first is not None
        await inner.records.rewrite(first, {MARK: "altered"})

        due = await store.records.due("payment")

    assert [record.key for record in due] == ["b"]
    assert "payment a cannot be opened" in caplog.text


async def test_of_many_records_that_cannot_be_opened_some_are_named_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    async with memory(clock) as inner:
        sealed = Draft(value={}, due_at=clock.now())
        for number in range(25):
            await over(inner, NEW).records.apply("payment", f"{number:02}", 0, sealed)
        store = over(inner, OLD)
        await store.records.apply("payment", "mine", 0, sealed)

        due = await store.records.due("payment", limit=5)

    assert [record.key for record in due] == ["mine"]
    assert [line.getMessage()[:10] for line in caplog.records[:10]] == [f"payment {number:02}" for number in range(10)]
    assert [line.getMessage() for line in caplog.records[10:]] == ["15 more cannot be opened, and are left out"]


async def test_however_many_due_records_cannot_be_opened_the_others_have_their_turn() -> None:
    clock = ManualClock()
    async with memory(clock) as inner:
        store = over(inner, OLD)
        for number in range(5):
            draft = Draft(value={}, due_at=clock.now(), subject=f"order-{number}" if number < 2 else "")
            await store.records.apply("payment", str(number), 0, draft)
        for number in (0, 1):
            await _forget(store, f"order-{number}")
        altered = await inner.records.get("payment", "2")
        assert altered is not None
        await inner.records.rewrite(altered, {MARK: "altered"})

        due = await store.records.due("payment", limit=1)

    assert [record.key for record in due] == ["3"]


async def test_a_key_that_can_come_back_is_told_before_one_that_is_destroyed() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        for key in ("order-1", "order-2"):
            draft = Draft(value={}, subject=key, index={"vendor": ["v"]})
            await store.records.apply("payment", key, 0, draft)
        await _forget(store, "order-1")
        altered = await inner.records.get("payment", "order-2")
        assert altered is not None
        await inner.records.rewrite(altered, {MARK: "altered"})

        with pytest.raises(Unreadable) as caught:
            await store.records.find("payment", "vendor", "v")

    assert not isinstance(caught.value, Forgotten)


async def test_nothing_is_due_of_those_who_were_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    async with memory(clock) as inner:
        store = over(inner, OLD)
        await store.records.apply("payment", "a", 0, Draft(value={}, due_at=clock.now(), subject="order-1"))
        await _forget(store, "order-1")

        assert await store.records.due("payment") == []

    assert not caplog.records


async def test_where_no_record_can_be_opened_that_is_told() -> None:
    async with memory() as inner:
        await over(inner, OLD).records.apply("payment", "a", 0, Draft(value={}, index={"vendor": ["v"]}))

        with pytest.raises(UnknownKey):
            await over(inner, NEW).records.find("payment", "vendor", "v")


# Keys that are not there.


@pytest.mark.parametrize("subject", ["", "order-1"])
async def test_without_its_key_a_job_waits_until_the_key_is_back(
    subject: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    key_id = KeyRing(OLD).current
    async with memory(clock) as inner:
        await over(inner, OLD).jobs.add([new(subject=subject)])
        other = over(inner, NEW)

        claimed = await other.jobs.claim(["deliveries"], owner="w", limit=1, lease=10)
        [listed] = await other.jobs.list()
        with pytest.raises(UnknownKey, match=key_id) as refused:
            await other.jobs.get(listed.id)
        await clock.advance(60)
        [found] = await over(inner, NEW, OLD).jobs.claim(["deliveries"], owner="w", limit=1, lease=10)

    assert claimed == []
    assert refused.value.key_id == key_id
    assert isinstance(listed, SealedJob)
    assert isinstance(listed.problem, UnknownKey)
    assert (found.body, found.attempts, found.losses) == (ADA.encode(), 0, 0)
    assert key_id in caplog.text
    assert ADA not in caplog.text


async def test_a_missing_subject_key_keeps_what_comes_from_being_acknowledged() -> None:
    async with memory() as inner:
        await over(inner, OLD).jobs.add([new(subject="order-1")])

        with pytest.raises(UnknownKey):
            await over(inner, NEW).jobs.add([new("b", subject="order-1")])

        assert len(await inner.jobs.list()) == 1


@pytest.mark.parametrize("text", ["", "short", "!" * 44, base64.b64encode(bytes(31)).decode()])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises((ConfigurationError, MissingCredential)) as refused:
        KeyRing(text)

    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("missing", ["cryptography.exceptions", "cryptography.hazmat.primitives.ciphers.aead"])
def test_without_its_extra_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(MissingExtra, match=r"holdfast\[encryption\]"):
        KeyRing(OLD)


def test_a_ring_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    made = KeyRing.generate()
    monkeypatch.setenv("HOLDFAST_KEYS", f"{made}, {OLD}")

    ring = KeyRing.from_env("HOLDFAST_KEYS")

    assert ring.ids == (KeyRing(made).current, KeyRing(OLD).current)
    assert made not in repr(ring)
    assert all(key_id in repr(ring) for key_id in ring.ids)


async def test_nothing_is_logged_of_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    inner, job, _ = await _kept("order-1")
    await inner.jobs.rewrite(job, body=job.body[:-1], headers=job.headers)

    await over(inner, OLD).jobs.claim(["deliveries"], owner="w", limit=1, lease=10)

    assert "cannot be opened" in caplog.text
    assert ADA not in caplog.text
    assert OLD not in caplog.text


# Subjects.


async def _forget(store: EncryptedStore, subject: str) -> None:
    await store.subject_keys.retire(subject)
    await store.subject_keys.destroy(subject, {"by": "ada", "reason": "she asked"})


async def test_what_rests_under_a_destroyed_key_is_gone_and_its_job_is_ignored() -> None:
    async with memory() as inner:
        store, elsewhere = over(inner, OLD), over(inner, OLD)
        await store.jobs.add([new("a", subject="order-1"), new("b", subject="order-2"), new("c")])
        assert len(await elsewhere.jobs.list()) == 3  # which has the keys at hand now

        await _forget(store, "order-1")
        claimed = await elsewhere.jobs.claim(["deliveries"], owner="w", limit=10, lease=10)
        [gone] = [job for job in await elsewhere.jobs.list() if job.key == "a"]
        with pytest.raises(Forgotten, match="order-1 was forgotten"):
            await elsewhere.jobs.get(gone.id)

    assert sorted(job.key for job in claimed) == ["b", "c"]
    assert gone.state is JobState.IGNORED
    assert isinstance(gone, SealedJob)


async def test_a_copy_of_the_rows_is_gone_with_the_key(tmp_path: Path) -> None:
    keys = open_store(f"sqlite:///{tmp_path}/keys.db")
    inner = open_store(f"sqlite:///{tmp_path}/store.db")
    async with EncryptedStore(inner, KeyRing(OLD), subject_keys=keys) as store:
        await store.jobs.add([new(subject="order-1")])
        [backup] = await store.inner.jobs.list()
        await _forget(store, "order-1")

        [restored] = await store.jobs.opened([backup])

    assert isinstance(restored, SealedJob)
    assert isinstance(restored.problem, Forgotten)


async def test_what_comes_after_forgetting_is_kept_under_a_new_key() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.jobs.add([new("a", subject="order-1")])
        await _forget(store, "order-1")

        await store.jobs.add([new("b", subject="order-1")])
        [job] = await store.jobs.claim(["deliveries"], owner="w", limit=10, lease=10)
        await _forget(store, "order-1")
        [again] = [found for found in await store.jobs.list() if found.id == job.id]

    assert (job.key, job.body) == ("b", ADA.encode())
    assert isinstance(again, SealedJob)


async def test_keys_of_an_older_backup_make_a_job_wait_and_not_be_forgotten() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.jobs.add([new("a", subject="order-1")])
        await _forget(store, "order-1")
        await store.jobs.add([new("b", subject="order-1")])
        backup = await inner.records.get(SUBJECT_KEY, "order-1")
        assert backup is not None
        await store.subject_keys.retire("order-1")
        await store.jobs.add([new("c", subject="order-1")])
        present = await inner.records.get(SUBJECT_KEY, "order-1")
        assert present is not None
        await inner.records.rewrite(present, backup.value)

        found = {job.key: job for job in await over(inner, OLD).jobs.list()}

    problems = {key: type(job.problem) for key, job in found.items() if isinstance(job, SealedJob)}
    assert problems == {"a": Forgotten, "c": UnknownKey}


async def test_a_key_that_was_read_while_it_was_destroyed_is_not_kept_at_hand() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.jobs.add([new("a", subject="order-1"), new("b", subject="order-2")])
        slow = over(inner, OLD)
        await slow.jobs.list()
        await store.subject_keys.retire("order-3")
        slow.subject_keys._at_hand.pop("order-1")
        get = inner.records.get

        async def get_before_it_is_destroyed(kind: str, key: str) -> Record | None:
            found = await get(kind, key)
            if (kind, key) == (SUBJECT_KEY, "order-1"):
                inner.records.get = get  # type: ignore[method-assign]
                await _forget(store, "order-1")
                await slow.jobs.add([new("c", subject="order-2")])  # which learns of the new epoch
            return found

        inner.records.get = get_before_it_is_destroyed  # type: ignore[method-assign]
        await slow.subject_keys.for_opening(["order-1"])
        [after] = [job for job in await slow.jobs.list() if job.key == "a"]

    assert isinstance(after, SealedJob)


async def test_a_retired_key_opens_until_it_is_destroyed() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.jobs.add([new("a", subject="order-1")])
        await store.subject_keys.retire("order-1")
        await store.jobs.add([new("b", subject="order-1")])

        bodies = [job.body for job in await store.jobs.list()]

    assert bodies == [ADA.encode()] * 2


async def test_two_processes_that_meet_a_subject_at_once_agree_on_its_key() -> None:
    async with memory() as inner:
        first, second = over(inner, OLD), over(inner, OLD)
        apply = inner.records.apply

        async def apply_after_the_other(kind: str, key: str, *args: object, **options: object) -> Record:
            inner.records.apply = apply  # type: ignore[method-assign]
            await second.jobs.add([new("b", subject=key)])
            return await apply(kind, key, *args, **options)  # type: ignore[arg-type]

        inner.records.apply = apply_after_the_other  # type: ignore[method-assign]
        await first.jobs.add([new("a", subject="order-1")])

        for store in (first, second, over(inner, OLD)):
            assert [job.body for job in await store.jobs.list()] == [ADA.encode()] * 2


async def test_a_subject_of_any_length_has_a_key() -> None:
    async with memory() as inner:
        store = over(inner, OLD)
        await store.jobs.add([new("a", subject="x" * 100_000)])
        [job] = await store.jobs.list()
        [resting] = await inner.jobs.list()

    assert job.body == ADA.encode()
    assert len(subject_of(resting)) < 100


# Rotation.


async def _filled(inner: Store) -> None:
    """Rows under no key, under the old one, and under keys of subjects."""
    await inner.jobs.add([new("plain")])
    await inner.records.apply("payment", "plain", 0, Draft(value={"email": ADA}, index={"vendor": ["plain"]}))
    store = over(inner, OLD)
    for number in range(5):
        subject = f"order-{number}" if number % 2 else ""
        await store.jobs.add([new(f"job-{number}", subject=subject)])
        draft = Draft(value={"email": ADA}, index={"vendor": [f"v{number}"]}, subject=subject)
        await store.records.apply("payment" if number < 3 else "rates", f"record-{number}", 0, draft)


async def _check_filled(store: EncryptedStore) -> None:
    jobs = await store.jobs.list()
    assert [(job.body, job.headers) for job in jobs] == [(ADA.encode(), {"name": "Ada"})] * 6
    found = [
        record
        for kind in ("payment", "rates")
        for vendor in ("plain", "v0", "v1", "v2", "v3", "v4")
        for record in await store.records.find(kind, "vendor", vendor)
    ]
    assert [record.value for record in found] == [{"email": ADA}] * 6
    assert {record.version for record in found} == {1}


async def test_after_a_rotation_the_old_key_is_not_needed() -> None:
    async with memory() as inner:
        await _filled(inner)
        told: list[Rotation] = []

        done = await Rotating(over(inner, NEW, OLD), clock=ManualClock(), pause=0, told=told.append, batch=2).run()

        await _check_filled(over(inner, NEW, require=True))
        again = await Rotating(over(inner, NEW, OLD), clock=ManualClock(), pause=0).run()

    assert done.complete
    assert (done.keys, done.jobs, done.records) == (2, 4, 4)
    assert told[-1] == done
    assert len(told) > 5
    assert (again.keys, again.jobs, again.records, again.complete) == (0, 0, 0, True)


class Interrupted(Exception):
    """The process ended here."""


class Interrupting:
    """Lets so many changes of an engine through, then none."""

    def __init__(self, inner: object, left: list[int]) -> None:
        self._inner = inner
        self._left = left

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name in ("jobs", "records"):
            return Interrupting(found, self._left)
        if name in ("apply", "rewrite", "add"):
            return self._counted(found)
        return found

    def _counted(self, change: Callable[..., object]) -> Callable[..., object]:
        async def counted(*args: object, **options: object) -> object:
            if not self._left[0]:
                raise Interrupted
            self._left[0] -= 1
            return await change(*args, **options)  # type: ignore[misc]

        return counted


@pytest.mark.parametrize("changes", range(11))
async def test_a_rotation_interrupted_anywhere_loses_nothing_and_is_taken_up_again(changes: int) -> None:
    async with memory() as inner:
        await _filled(inner)
        dying: Store = Interrupting(inner, [changes])  # type: ignore[assignment]
        try:
            await Rotating(over(dying, NEW, OLD), clock=ManualClock(), pause=0, batch=2).run()
            interrupted = False
        except Interrupted:
            interrupted = True

        await _check_filled(over(inner, NEW, OLD))
        done = await Rotating(over(inner, NEW, OLD), clock=ManualClock(), pause=0).run()
        await _check_filled(over(inner, NEW, require=True))

    assert interrupted is (changes < 10)
    assert done.complete


async def test_a_rotation_says_which_old_keys_are_still_needed() -> None:
    other = KeyRing.generate()
    async with memory() as inner:
        await over(inner, other).jobs.add([new("a")])
        await over(inner, OLD).jobs.add([new("b")])

        done = await Rotating(over(inner, NEW, OLD), clock=ManualClock(), pause=0).run()

    assert not done.complete
    assert done.old_keys == {KeyRing(other).current: 1}
    assert KeyRing(other).current in done.problems[0]
