"""The worker: what becomes of a job, whoever dies, stands still or stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from holdfast.errors import (
    AlreadyHandled,
    CircuitOpen,
    ConfigurationError,
    Permanent,
    Rejected,
    RetryLater,
    StoreUnavailable,
)
from holdfast.queue.events import HandlerRetry
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.stores import Store, open_store
from holdfast.stores.store import Job, JobState, NewJob
from holdfast.telemetry import JobFinished, Signal, Telemetry
from holdfast.testing.clock import ManualClock

Perform = Callable[[Job], Awaitable[Result]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store("memory://", clock=clock) as store:
        yield store


def make(
    store: Store,
    clock: ManualClock,
    perform: Perform,
    *,
    owner: str = "one",
    signals: list[Signal] | None = None,
    lease: float = 10,
) -> Worker:
    return Worker(
        store.jobs,
        perform,
        queues=["work"],
        owner=owner,
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([signals.append] if signals is not None else []),
        options=WorkerOptions(attempts=3, lease=lease, heartbeat=2),
    )


def raising(error: Exception) -> Perform:
    async def perform(job: Job) -> Result:
        raise error

    return perform


async def add(store: Store, *keys: str) -> None:
    await store.jobs.add([NewJob(queue="work", key=key, kind="test") for key in keys])


@pytest.mark.parametrize(
    ("error", "state", "attempts", "wait"),
    [
        (AlreadyHandled("event", "handler"), JobState.DONE, 0, None),
        (Permanent("no such booking"), JobState.DEAD, 0, None),
        (RetryLater("closed", after=30), JobState.READY, 0, 30.0),
        (CircuitOpen("open", local=True, retry_after=7.0), JobState.READY, 0, 7.0),
        (StoreUnavailable("locked"), JobState.READY, 0, 1.0),
        (Rejected("no", retry_after=90.0), JobState.READY, 1, 90.0),
        (ValueError("a bug"), JobState.READY, 1, None),
    ],
)
async def test_what_a_handler_raises_decides_what_becomes_of_its_job(
    store: Store, clock: ManualClock, error: Exception, state: JobState, attempts: int, wait: float | None
) -> None:
    await add(store, "a")

    await make(store, clock, raising(error)).run_once()

    [job] = await store.jobs.list()
    assert (job.state, job.attempts) == (state, attempts)
    if wait is not None:
        assert (job.due_at - clock.now()).total_seconds() == pytest.approx(wait)


async def test_a_job_that_keeps_failing_is_a_dead_letter_with_its_last_error(store: Store, clock: ManualClock) -> None:
    await add(store, "a")
    worker = make(store, clock, raising(ValueError("still a bug")))

    for _ in range(3):
        await worker.run_once()
        await clock.advance(3600)

    [job] = await store.jobs.list()
    assert (job.state, job.reason, job.error) == (JobState.DEAD, "attempts", "ValueError: still a bug")


async def test_a_handler_that_never_ends_is_cut_off_and_tried_again(store: Store, clock: ManualClock) -> None:
    await add(store, "a")

    async def hang(job: Job) -> Result:
        await asyncio.Event().wait()
        return "done"

    running = asyncio.ensure_future(make(store, clock, hang).run_once())
    await clock.advance(61)
    await running

    [job] = await store.jobs.list()
    assert job.error.startswith("TimeoutError")


async def test_leases_are_kept_while_a_handler_runs(store: Store, clock: ManualClock) -> None:
    await add(store, "a")
    go_on = asyncio.Event()

    async def slow(job: Job) -> Result:
        await go_on.wait()
        return "done"

    working = asyncio.ensure_future(make(store, clock, slow).run())
    for _ in range(15):
        await clock.advance(2)
    stolen = await store.jobs.claim(["work"], owner="two", limit=1, lease=10)
    go_on.set()
    await clock.advance(2)
    working.cancel()
    await asyncio.wait([working])

    assert stolen == []
    assert [job.state for job in await store.jobs.list()] == [JobState.DONE]


async def test_a_worker_that_stood_still_past_its_lease_changes_nothing_any_more(
    store: Store, clock: ManualClock
) -> None:
    await add(store, "a")
    signals: list[Signal] = []
    go_on = asyncio.Event()

    async def frozen(job: Job) -> Result:
        await go_on.wait()
        return "done"

    zombie = asyncio.ensure_future(make(store, clock, frozen, signals=signals).run_once())
    await clock.advance(11)
    [taken] = await store.jobs.claim(["work"], owner="two", limit=1, lease=10)
    go_on.set()
    await zombie

    assert (await store.jobs.get(taken.id)).state is JobState.LEASED
    assert [signal.result for signal in signals if isinstance(signal, JobFinished)] == ["lost"]


async def test_a_lost_lease_cancels_the_handler_at_the_next_heartbeat(store: Store, clock: ManualClock) -> None:
    await add(store, "a")
    cancelled = asyncio.Event()

    async def slow(job: Job) -> Result:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "done"

    working = asyncio.ensure_future(make(store, clock, slow).run())
    await clock.advance(1)
    [job] = await store.jobs.list()
    await store.jobs.release("one")
    await store.jobs.claim(["work"], owner="two", limit=1, lease=100)
    await clock.advance(3)
    working.cancel()
    await asyncio.wait([working])

    assert cancelled.is_set()
    assert (await store.jobs.get(job.id)).state is JobState.LEASED


async def test_stopping_finishes_what_runs_and_leaves_the_rest_to_others(store: Store, clock: ManualClock) -> None:
    await add(store, "a")
    go_on = asyncio.Event()

    async def slow(job: Job) -> Result:
        await go_on.wait()
        return "done"

    working = asyncio.ensure_future(make(store, clock, slow).run())
    await clock.advance(1)
    working.cancel()
    await clock.advance(0)
    await add(store, "b")
    go_on.set()
    await asyncio.wait([working])

    assert {job.key: job.state for job in await store.jobs.list()} == {"a": JobState.DONE, "b": JobState.READY}


async def test_a_store_that_fails_while_there_is_nothing_to_do_does_not_end_the_worker(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[float] = []

    async def fail(timeout: float) -> None:
        failures.append(timeout)
        raise StoreUnavailable("locked")

    monkeypatch.setattr(store.jobs, "wait", fail)

    async def perform(job: Job) -> Result:
        return "done"

    working = asyncio.ensure_future(make(store, clock, perform).run())
    await clock.advance(1)
    await add(store, "a")
    await clock.advance(3)
    working.cancel()
    await asyncio.wait([working])

    assert failures
    assert [job.state for job in await store.jobs.list()] == [JobState.DONE]


async def test_a_store_that_fails_at_the_end_does_not_turn_stopping_into_an_error(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(owner: str) -> int:
        raise StoreUnavailable("gone")

    async def perform(job: Job) -> Result:
        return "done"

    working = asyncio.ensure_future(make(store, clock, perform).run())
    await clock.advance(1)
    monkeypatch.setattr(store.jobs, "release", fail)
    working.cancel()
    await asyncio.wait([working])

    assert working.cancelled()


async def test_a_job_whose_result_could_not_be_recorded_runs_again(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "a")
    runs: list[str] = []
    complete, down = store.jobs.complete, [StoreUnavailable("disk full")]

    async def fail_once(job: Job) -> None:
        if down:
            raise down.pop()
        await complete(job)

    monkeypatch.setattr(store.jobs, "complete", fail_once)

    async def perform(job: Job) -> Result:
        runs.append(job.key)
        return "done"

    worker = make(store, clock, perform)
    await worker.run_once()
    await clock.advance(11)
    await worker.run_once()

    assert runs == ["a", "a"]
    assert [job.state for job in await store.jobs.list()] == [JobState.DONE]


async def test_a_heartbeat_that_fails_is_repeated_and_the_handler_goes_on(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "a")
    heartbeat, down = store.jobs.heartbeat, [StoreUnavailable("locked"), StoreUnavailable("locked")]
    go_on = asyncio.Event()

    async def fail_twice(claimed: Sequence[Job], *, lease: float) -> set[str]:
        if down:
            raise down.pop()
        return await heartbeat(claimed, lease=lease)

    monkeypatch.setattr(store.jobs, "heartbeat", fail_twice)

    async def slow(job: Job) -> Result:
        await go_on.wait()
        return "done"

    working = asyncio.ensure_future(make(store, clock, slow).run())
    for _ in range(10):
        await clock.advance(2)
    go_on.set()
    await clock.advance(2)
    working.cancel()
    await asyncio.wait([working])

    [job] = await store.jobs.list()
    assert (job.state, job.losses) == (JobState.DONE, 0)


async def test_a_handler_that_outlives_the_grace_period_is_cut_off_and_its_job_is_free_at_once(
    store: Store, clock: ManualClock
) -> None:
    await add(store, "a")

    async def hang(job: Job) -> Result:
        await asyncio.Event().wait()
        return "done"

    options = WorkerOptions(grace=5)
    worker = Worker(
        store.jobs,
        hang,
        queues=["work"],
        owner="one",
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([]),
        options=options,
    )
    working = asyncio.ensure_future(worker.run())
    await clock.advance(1)
    working.cancel()
    await clock.advance(5)
    await asyncio.wait([working])

    [job] = await store.jobs.claim(["work"], owner="two", limit=1, lease=10)
    assert (job.attempts, job.losses) == (0, 0)


async def test_what_a_handler_raises_is_kept_and_logged_without_secrets(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, "a")
    worker = Worker(
        store.jobs,
        raising(ValueError("GET https://vendor.example/?key=s3cr3t-key failed")),
        queues=["work"],
        owner="one",
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([]),
        redact=lambda text: text.replace("s3cr3t-key", "***"),
    )

    await worker.run_once()

    [job] = await store.jobs.list()
    assert job.error == "ValueError: GET https://vendor.example/?key=*** failed"
    assert "vendor.example/?key=***" in caplog.text
    assert "s3cr3t" not in caplog.text


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("an exception without words")


@pytest.mark.parametrize("error", [_Mute(), ValueError("half a character: \ud800"), ValueError("a\x00b")])
async def test_an_error_that_cannot_be_written_down_fails_its_job_and_not_the_worker(
    tmp_path: Path, clock: ManualClock, error: Exception
) -> None:
    async with open_store(f"sqlite:///{tmp_path}/holdfast.db", clock=clock) as store:
        await add(store, "a")

        await make(store, clock, raising(error)).run_once()

        [job] = await store.jobs.list()
        assert (job.state, job.attempts) == (JobState.READY, 1)
        assert job.error.startswith(type(error).__name__)


async def test_each_handler_has_the_same_time_whenever_it_began(store: Store, clock: ManualClock) -> None:
    ended: dict[str, float] = {}

    async def hang(job: Job) -> Result:
        try:
            await asyncio.Event().wait()
        finally:
            ended[job.key] = clock.monotonic()
        return "done"

    begun = clock.monotonic()
    worker = make(store, clock, hang, lease=100)
    await add(store, "first")
    first = asyncio.ensure_future(worker.run_once())
    await clock.advance(30)
    await add(store, "second")
    second = asyncio.ensure_future(worker.run_once())
    await clock.advance(61)
    await asyncio.gather(first, second)

    assert ended == {"first": begun + 60, "second": begun + 90}


async def test_a_handler_that_ends_in_time_although_it_is_cancelled_has_done_its_work(
    store: Store, clock: ManualClock
) -> None:
    await add(store, "a")

    async def insist(job: Job) -> Result:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"
        raise AssertionError

    running = asyncio.ensure_future(make(store, clock, insist).run_once())
    await clock.advance(61)
    await running

    [job] = await store.jobs.list()
    assert job.state is JobState.DONE


async def test_stopping_in_the_moment_a_handler_is_cut_off_ends_the_worker(store: Store, clock: ManualClock) -> None:
    await add(store, "a")

    async def slow_to_end(job: Job) -> Result:
        try:
            await asyncio.Event().wait()
        finally:
            await clock.sleep(1000)
        return "done"

    worker = make(store, clock, slow_to_end)
    running = asyncio.ensure_future(worker.run())
    await clock.advance(61)
    running.cancel()
    await clock.advance(26)

    with pytest.raises(asyncio.CancelledError):
        await running
    [job] = await store.jobs.list()
    assert job.state is JobState.READY


async def test_a_handler_may_say_itself_how_often_and_when_it_is_run_again(store: Store, clock: ManualClock) -> None:
    worker = Worker(
        store.jobs,
        raising(ValueError("a bug")),
        queues=["work"],
        owner="one",
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([]),
        options=WorkerOptions(attempts=24),
        retry=lambda job: HandlerRetry(attempts=2, base=100, cap=150) if job.key == "own" else None,
    )
    await add(store, "own", "usual")

    await worker.run_once()

    waits = {job.key: (job.due_at - clock.now()).total_seconds() for job in await store.jobs.list()}
    assert 50 <= waits["own"] <= 100
    assert waits["usual"] <= 0.5

    await clock.advance(100)
    await worker.run_once()

    assert {job.key: job.state for job in await store.jobs.list()} == {"own": JobState.DEAD, "usual": JobState.READY}


async def test_a_claim_whose_answer_comes_after_its_lease_is_over_begins_nothing(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    await add(store, "a")
    claim = store.jobs.claim

    async def late(queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        claimed = await claim(queues, owner=owner, limit=limit, lease=lease)
        if claimed:  # this event loop stood still, and another worker did not
            await clock.advance(lease + 1)
            [other] = await claim(queues, owner="quick", limit=1, lease=lease)
            await store.jobs.complete(other)
        return claimed

    async def perform(job: Job) -> Result:
        ran.append(job.key)
        return "done"

    monkeypatch.setattr(store.jobs, "claim", late)
    working = asyncio.ensure_future(make(store, clock, perform, owner="slow").run())
    await clock.advance(5)
    working.cancel()
    await asyncio.wait([working])

    assert not ran


@pytest.mark.parametrize("lease", [0, -1, 3601, float("nan")])
def test_a_lease_no_store_could_keep_is_refused_at_once(lease: float) -> None:
    with pytest.raises(ConfigurationError, match="lease"):
        WorkerOptions(lease=lease)


@pytest.mark.parametrize("taken", [True, False])
async def test_a_process_that_stood_still_begins_only_what_nobody_else_has(
    store: Store, clock: ManualClock, taken: bool
) -> None:
    # given
    await add(store, "a", "b")
    begun: list[str] = []
    others: list[str] = []

    async def perform(job: Job) -> Result:
        begun.append(job.key)
        if job.key == "a":
            clock._alarms.now += 11  # time passes, and nothing in this process notices
            if taken:
                others.extend(each.key for each in await store.jobs.claim(["work"], owner="two", limit=5, lease=10))
        return "done"

    worker = Worker(
        store.jobs,
        perform,
        queues=["work"],
        owner="one",
        clock=clock,
        chance=Random(1),
        telemetry=Telemetry([]),
        options=WorkerOptions(lease=10, heartbeat=2, concurrency=1),
    )

    # when
    working = asyncio.ensure_future(worker.run())
    for _ in range(50):
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.wait([working])

    # then
    assert begun == (["a"] if taken else ["a", "b"])
    assert others == (["a", "b"] if taken else [])
