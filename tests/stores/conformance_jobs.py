"""The rules of `Jobs`, for every engine."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast.errors import AlreadyReplayed, InvalidInput, LeaseLost, NaiveDatetime, NotFound
from holdfast.stores import Added, Draft, Job, JobFilter, Jobs, JobState, NewJob, Store
from holdfast.testing.clock import ManualClock

LEASE = 10.0

StartWaiting = Callable[[], Awaitable[asyncio.Task[None]]]


def new(key: str, **facts: object) -> NewJob:
    return replace(NewJob(queue="deliveries", key=key, kind="stripe"), **facts)  # type: ignore[arg-type]


async def claim(store: Store, *queues: str, owner: str = "worker", limit: int = 100) -> list[Job]:
    return await store.jobs.claim(queues or ["deliveries"], owner=owner, limit=limit, lease=LEASE)


async def claimed(store: Store, **options: object) -> list[str]:
    return [job.key for job in await claim(store, **options)]  # type: ignore[arg-type]


async def add_and_claim(store: Store, job: NewJob) -> Job:
    await store.jobs.add([job])
    [held] = await claim(store)
    return held


Transition = Callable[[Jobs, Job], Awaitable[None]]

complete: Transition = lambda jobs, job: jobs.complete(job)  # noqa: E731  # named for the ids of the tests
ignore: Transition = lambda jobs, job: jobs.ignore(job)  # noqa: E731
retry: Transition = lambda jobs, job: jobs.retry(job, after=5, error="late")  # noqa: E731
snooze: Transition = lambda jobs, job: jobs.snooze(job, after=5)  # noqa: E731
bury: Transition = lambda jobs, job: jobs.bury(job, reason="permanent", error="gone")  # noqa: E731

ENDS = {"complete": complete, "ignore": ignore, "bury": bury}
PAUSES = {"retry": retry, "snooze": snooze}


def each(transitions: dict[str, Transition]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("move", transitions.values(), ids=transitions)


class AddRules:
    async def test_each_job_gets_an_answer_in_order(self, store: Store) -> None:
        await store.jobs.add([new("b")])

        assert await store.jobs.add([new("a"), new("b"), new("c")]) == [Added.NEW, Added.DUPLICATE, Added.NEW]

    async def test_a_job_is_kept_as_it_was_given(self, store: Store, clock: ManualClock) -> None:
        given = new("a", handler="shop:paid", body=b"\x00\xff", headers={"X-Ü": "1"}, ordering_key="pi_1", delay=1.5)

        await store.jobs.add([given])

        [job] = await store.jobs.list()
        assert job == Job(
            id=job.id,
            queue="deliveries",
            key="a",
            kind="stripe",
            handler="shop:paid",
            body=b"\x00\xff",
            headers={"X-Ü": "1"},
            ordering_key="pi_1",
            state=JobState.READY,
            token=0,
            attempts=0,
            losses=0,
            generation=0,
            arrivals=1,
            conflicts=0,
            created_at=clock.now(),
            due_at=clock.now() + timedelta(seconds=1.5),
            error="",
            reason="",
        )
        assert await store.jobs.get(job.id) == job

    async def test_the_same_key_and_digest_is_a_duplicate_and_counted(self, store: Store) -> None:
        await store.jobs.add([new("a", digest="1", body=b"first")])

        assert await store.jobs.add([new("a", digest="1", body=b"second")]) == [Added.DUPLICATE]

        [job] = await store.jobs.list()
        assert (job.body, job.arrivals, job.conflicts) == (b"first", 2, 0)

    async def test_another_digest_is_a_conflict_and_the_first_stays(self, store: Store) -> None:
        await store.jobs.add([new("a", digest="1", body=b"first")])

        assert await store.jobs.add([new("a", digest="2", body=b"second")]) == [Added.CONFLICT]

        [job] = await store.jobs.list()
        assert (job.body, job.arrivals, job.conflicts) == (b"first", 2, 1)

    async def test_a_duplicate_is_found_within_one_call(self, store: Store) -> None:
        assert await store.jobs.add([new("a"), new("a")]) == [Added.NEW, Added.DUPLICATE]

    async def test_keys_of_two_queues_are_different_keys(self, store: Store) -> None:
        assert await store.jobs.add([new("a"), new("a", queue="events")]) == [Added.NEW, Added.NEW]

    async def test_a_duplicate_is_found_in_every_state(self, store: Store) -> None:
        await store.jobs.complete(await add_and_claim(store, new("done")))
        await store.jobs.bury(await add_and_claim(store, new("dead")), reason="permanent", error="")
        await store.jobs.add([new("ignored", ignored=True)])

        again = await store.jobs.add([new("done"), new("dead"), new("ignored")])

        assert again == [Added.DUPLICATE] * 3
        assert await claimed(store) == []

    @pytest.mark.parametrize("wrong", [new("b", headers={"weight": 1.5}), new("\ud800")], ids=["header", "key"])
    async def test_all_are_kept_or_none(self, store: Store, wrong: NewJob) -> None:
        with pytest.raises(InvalidInput):
            await store.jobs.add([new("a"), wrong])

        assert await store.jobs.list() == []

    async def test_a_delayed_job_waits(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("a", delay=60)])

        await clock.advance(59.999)
        assert await claimed(store) == []

        await clock.advance(0.001)
        assert await claimed(store) == ["a"]

    async def test_an_ignored_job_is_kept_for_replay(self, store: Store) -> None:
        await store.jobs.add([new("a", ignored=True)])
        assert await claimed(store) == []

        [job] = await store.jobs.list(JobFilter(state=JobState.IGNORED))
        await store.jobs.replay(job.id)

        assert await claimed(store) == ["a"]


class ClaimRules:
    async def test_oldest_due_comes_first(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("third", delay=3), new("first", delay=1), new("second", delay=2)])
        await clock.advance(5)

        assert await claimed(store) == ["first", "second", "third"]

    async def test_jobs_due_at_once_come_as_they_were_added(self, store: Store) -> None:
        await store.jobs.add([new(str(number)) for number in range(12)])

        assert await claimed(store) == [str(number) for number in range(12)]

    async def test_no_more_than_the_limit(self, store: Store) -> None:
        await store.jobs.add([new("a"), new("b"), new("c")])

        assert await claimed(store, limit=2) == ["a", "b"]
        assert await claimed(store, limit=0) == []
        assert await claimed(store, limit=2) == ["c"]

    async def test_only_the_queues_asked_for(self, store: Store) -> None:
        await store.jobs.add([new("a"), new("b", queue="events"), new("c", queue="timers")])

        assert [job.key for job in await claim(store, "timers", "events")] == ["b", "c"]

    async def test_the_oldest_of_several_queues_comes_first(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("late", queue="events", delay=2), new("early", delay=1)])
        await clock.advance(5)

        assert [job.key for job in await claim(store, "events", "deliveries", limit=1)] == ["early"]

    async def test_a_leased_job_is_not_claimed(self, store: Store, clock: ManualClock) -> None:
        job = await add_and_claim(store, new("a"))
        await clock.advance(LEASE - 0.001)

        assert job.state is JobState.LEASED
        assert await claimed(store) == []

    async def test_a_lease_that_ran_out_is_claimed_and_counts_a_loss(self, store: Store, clock: ManualClock) -> None:
        first = await add_and_claim(store, new("a"))
        await clock.advance(LEASE)

        [second] = await claim(store)

        assert (first.losses, second.losses, second.attempts) == (0, 1, 0)

    async def test_tokens_grow_over_claims_and_replays(self, store: Store, clock: ManualClock) -> None:
        tokens: list[int] = []
        await store.jobs.add([new("a")])
        for _ in range(2):
            [job] = await claim(store)
            tokens.append(job.token)
            await clock.advance(LEASE)
        [job] = await claim(store)
        tokens.append(job.token)
        await store.jobs.complete(job)
        tokens.append((await store.jobs.replay(job.id)).token)
        [job] = await claim(store)
        tokens.append(job.token)

        assert tokens == sorted(set(tokens))

    async def test_three_losses_bury_a_job_as_poison(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("poison"), new("healthy")])
        for _ in range(3):
            held = {job.key: job for job in await claim(store)}
            if healthy := held.get("healthy"):
                await store.jobs.complete(healthy)
            await clock.advance(LEASE)

        assert await claimed(store) == []
        job = await store.jobs.get(held["poison"].id)
        assert (job.state, job.reason, job.losses, job.attempts) == (JobState.DEAD, "poison", 3, 0)
        assert "3 times" in job.error

    async def test_poison_frees_its_ordering_key_in_the_same_claim(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("poison", ordering_key="k"), new("next", ordering_key="k")])
        for _ in range(3):
            assert await claimed(store) == ["poison"]
            await clock.advance(LEASE)

        assert await claimed(store) == ["next"]


class OrderRules:
    async def test_one_job_of_a_key_at_a_time_in_the_order_of_addition(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new(key, ordering_key="k", delay=delay) for key, delay in (("1", 2), ("2", 0), ("3", 1))])
        await clock.advance(5)

        seen: list[str] = []
        for _ in range(3):
            [job] = await claim(store)
            seen.append(job.key)
            assert await claimed(store) == []
            await store.jobs.complete(job)

        assert seen == ["1", "2", "3"]

    async def test_other_keys_never_wait(self, store: Store) -> None:
        await store.jobs.add(
            [new("k1", ordering_key="k"), new("k2", ordering_key="k"), new("l1", ordering_key="l"), new("free")]
        )

        assert await claimed(store) == ["k1", "l1", "free"]

    @each(PAUSES)
    async def test_a_waiting_job_blocks_the_later_ones(
        self, store: Store, clock: ManualClock, move: Transition
    ) -> None:
        await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k")])
        [first] = await claim(store)
        await move(store.jobs, first)

        assert await claimed(store) == []

        await clock.advance(5)
        assert await claimed(store) == ["first"]

    @each(ENDS)
    async def test_an_ended_job_frees_the_next(self, store: Store, move: Transition) -> None:
        await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k")])
        [first] = await claim(store)

        await move(store.jobs, first)

        assert await claimed(store) == ["second"]

    async def test_a_lost_job_goes_before_the_later_ones(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k")])
        assert await claimed(store) == ["first"]
        await clock.advance(LEASE)

        assert await claimed(store) == ["first"]

    async def test_a_job_added_while_another_runs_waits(self, store: Store) -> None:
        first = await add_and_claim(store, new("first", ordering_key="k"))
        await store.jobs.add([new("second", ordering_key="k")])
        assert await claimed(store) == []

        await store.jobs.complete(first)

        assert await claimed(store) == ["second"]

    async def test_a_replayed_job_takes_its_old_place(self, store: Store) -> None:
        first = await add_and_claim(store, new("first", ordering_key="k"))
        await store.jobs.complete(first)
        await store.jobs.add([new("second", ordering_key="k")])

        await store.jobs.replay(first.id)

        assert await claimed(store) == ["first"]

    async def test_a_replayed_job_waits_for_the_one_that_runs(self, store: Store, clock: ManualClock) -> None:
        first = await add_and_claim(store, new("first", ordering_key="k"))
        await store.jobs.complete(first)
        second = await add_and_claim(store, new("second", ordering_key="k"))
        await store.jobs.add([new("third", ordering_key="k")])

        await store.jobs.replay(first.id)

        assert await claimed(store) == []
        await clock.advance(LEASE)
        [again] = await claim(store)
        assert again.key == second.key
        await store.jobs.complete(again)
        assert await claimed(store) == ["first"]

    async def test_an_ignored_job_blocks_nobody(self, store: Store) -> None:
        await store.jobs.add([new("first", ordering_key="k", ignored=True), new("second", ordering_key="k")])

        assert await claimed(store) == ["second"]

    async def test_each_queue_has_an_order_of_its_own(self, store: Store) -> None:
        await store.jobs.add([new("a", ordering_key="k"), new("b", ordering_key="k", queue="events")])

        assert [job.key for job in await claim(store, "deliveries", "events")] == ["a", "b"]


class HoldRules:
    async def test_a_heartbeat_extends_the_lease(self, store: Store, clock: ManualClock) -> None:
        job = await add_and_claim(store, new("a"))
        await clock.advance(LEASE - 1)

        assert await store.jobs.heartbeat([job], lease=LEASE) == set()

        await clock.advance(LEASE - 1)
        assert await claimed(store) == []
        await clock.advance(1)
        assert await claimed(store) == ["a"]

    async def test_a_heartbeat_returns_what_is_lost(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("kept"), new("lost"), new("done")])
        kept, lost, done = await claim(store)
        await store.jobs.complete(done)
        await clock.advance(LEASE - 1)
        await store.jobs.heartbeat([kept], lease=LEASE)
        await clock.advance(1)
        assert await claimed(store) == ["lost"]

        assert await store.jobs.heartbeat([kept, lost, done], lease=LEASE) == {lost.id, done.id}

    async def test_a_lease_nobody_else_claimed_is_still_held(self, store: Store, clock: ManualClock) -> None:
        job = await add_and_claim(store, new("a"))
        await clock.advance(LEASE * 2)

        assert await store.jobs.heartbeat([job], lease=LEASE) == set()
        await store.jobs.complete(job)

        assert (await store.jobs.get(job.id)).state is JobState.DONE

    async def test_an_empty_heartbeat_loses_nothing(self, store: Store) -> None:
        assert await store.jobs.heartbeat([], lease=LEASE) == set()

    @pytest.mark.parametrize(
        ("move", "state"),
        [(complete, JobState.DONE), (ignore, JobState.IGNORED), (bury, JobState.DEAD)],
        ids=["complete", "ignore", "bury"],
    )
    async def test_an_ended_job_is_never_claimed(
        self, store: Store, clock: ManualClock, move: Transition, state: JobState
    ) -> None:
        job = await add_and_claim(store, new("a"))

        await move(store.jobs, job)

        await clock.advance(LEASE * 2)
        assert await claimed(store) == []
        assert (await store.jobs.get(job.id)).state is state

    async def test_a_retry_comes_later_with_one_attempt_more(self, store: Store, clock: ManualClock) -> None:
        job = await add_and_claim(store, new("a"))

        await store.jobs.retry(job, after=5, error="vendor down")

        waiting = await store.jobs.get(job.id)
        assert (waiting.state, waiting.attempts, waiting.error) == (JobState.READY, 1, "vendor down")
        assert waiting.due_at == clock.now() + timedelta(seconds=5)
        await clock.advance(4.999)
        assert await claimed(store) == []
        await clock.advance(0.001)
        assert await claimed(store) == ["a"]

    async def test_a_snooze_costs_no_attempt(self, store: Store, clock: ManualClock) -> None:
        job = await add_and_claim(store, new("a"))

        await store.jobs.snooze(job, after=5)

        assert await claimed(store) == []
        await clock.advance(5)
        [again] = await claim(store)
        assert (again.attempts, again.losses, again.error) == (0, 0, "")

    async def test_a_buried_job_says_why(self, store: Store) -> None:
        job = await add_and_claim(store, new("a"))

        await store.jobs.bury(job, reason="permanent", error="no such invoice")

        dead = await store.jobs.get(job.id)
        assert (dead.reason, dead.error, dead.body) == ("permanent", "no such invoice", job.body)

    @each(ENDS | PAUSES)
    async def test_an_old_token_changes_nothing(self, store: Store, clock: ManualClock, move: Transition) -> None:
        zombie = await add_and_claim(store, new("a"))
        await clock.advance(LEASE)
        [current] = await claim(store)

        with pytest.raises(LeaseLost):
            await move(store.jobs, zombie)

        assert await store.jobs.get(current.id) == current
        await store.jobs.complete(current)

    @each(ENDS | PAUSES)
    async def test_what_was_given_back_is_no_longer_held(self, store: Store, move: Transition) -> None:
        job = await add_and_claim(store, new("a"))
        await store.jobs.release("worker")

        with pytest.raises(LeaseLost):
            await move(store.jobs, job)

    @each(ENDS | PAUSES)
    async def test_a_job_is_ended_or_paused_once(self, store: Store, move: Transition) -> None:
        job = await add_and_claim(store, new("a"))
        await move(store.jobs, job)

        with pytest.raises(LeaseLost):
            await move(store.jobs, job)

    async def test_release_gives_back_everything_at_once_without_a_loss(self, store: Store) -> None:
        await store.jobs.add([new("a"), new("b"), new("c")])
        await claim(store, owner="leaving", limit=2)
        await claim(store, owner="staying")

        assert await store.jobs.release("leaving") == 2

        again = await claim(store)
        assert [(job.key, job.losses, job.attempts) for job in again] == [("a", 0, 0), ("b", 0, 0)]
        assert await store.jobs.release("leaving") == 0


class ReplayRules:
    @each(ENDS)
    async def test_a_replayed_job_starts_over_with_a_new_generation(
        self, store: Store, clock: ManualClock, move: Transition
    ) -> None:
        job = await add_and_claim(store, new("a", body=b"kept"))
        await store.jobs.retry(job, after=0, error="once")
        [job] = await claim(store)
        await clock.advance(LEASE)
        [job] = await claim(store)
        await move(store.jobs, job)

        replayed = await store.jobs.replay(job.id)

        assert (replayed.state, replayed.generation, replayed.reason) == (JobState.READY, 1, "")
        assert (replayed.attempts, replayed.losses, replayed.due_at) == (0, 0, clock.now())
        assert replayed == await store.jobs.get(job.id)
        [again] = await claim(store)
        assert (again.body, again.generation) == (b"kept", 1)

    async def test_replaying_what_is_to_run_anyway_changes_nothing(self, store: Store) -> None:
        await store.jobs.add([new("a")])
        [waiting] = await store.jobs.list()
        assert await store.jobs.replay(waiting.id) == waiting

        [running] = await claim(store)
        assert await store.jobs.replay(running.id) == running

    async def test_a_job_is_replayed_at_the_generation_that_was_looked_at(self, store: Store) -> None:
        job = await add_and_claim(store, new("a"))
        await store.jobs.complete(job)

        assert (await store.jobs.replay(job.id, generation=0)).generation == 1

    @each(ENDS)
    async def test_a_job_that_was_replayed_meanwhile_stays_as_it_is(self, store: Store, move: Transition) -> None:
        await move(store.jobs, await add_and_claim(store, new("a")))
        [job] = await store.jobs.list()
        await store.jobs.replay(job.id)
        await move(store.jobs, (await claim(store))[0])
        before = await store.jobs.get(job.id)

        for verb in (store.jobs.replay, store.jobs.drop):
            with pytest.raises(AlreadyReplayed) as raised:
                await verb(job.id, generation=job.generation)
            assert (raised.value.job_id, raised.value.generation) == (job.id, 1)

        assert await store.jobs.get(job.id) == before

    async def test_an_active_job_of_that_generation_comes_back_as_it_is(self, store: Store) -> None:
        running = await add_and_claim(store, new("a"))

        assert await store.jobs.replay(running.id, generation=0) == running

    @pytest.mark.parametrize("job_id", ["", "0", "-1", "7", "no number", "9" * 30])
    async def test_an_unknown_job_is_not_found(self, store: Store, job_id: str) -> None:
        for verb in (store.jobs.replay, store.jobs.drop, store.jobs.get):
            with pytest.raises(NotFound):
                await verb(job_id)


class ViewRules:
    async def test_the_list_is_newest_first_and_filtered(self, store: Store) -> None:
        await store.jobs.add([new("a"), new("b", queue="events"), new("c"), new("d", ignored=True)])

        async def keys(queue: str | None = None, state: JobState | None = None, limit: int = 100) -> list[str]:
            return [job.key for job in await store.jobs.list(JobFilter(queue=queue, state=state), limit=limit)]

        assert await keys() == ["d", "c", "b", "a"]
        assert await keys(limit=2) == ["d", "c"]
        assert await keys(queue="deliveries") == ["d", "c", "a"]
        assert await keys(state=JobState.READY) == ["c", "b", "a"]
        assert await keys(queue="deliveries", state=JobState.READY, limit=1) == ["c"]

    async def test_a_list_holds_what_fits_everything_asked_for(self, store: Store, clock: ManualClock) -> None:
        begin = clock.now()
        await store.jobs.add([new("a", handler="x"), new("b", handler="y"), new("c", kind="zoom", queue="events")])
        await clock.advance(10)
        await store.jobs.add([new("d", handler="x"), new("e", kind="zoom")])
        for job in await claim(store, "deliveries", "events", limit=4):
            error = f"TimeoutError: {job.key} [100%] took too long"
            await store.jobs.bury(job, reason="poison" if job.key == "b" else "attempts", error=error)

        async def keys(**facts: Any) -> list[str]:
            return [job.key for job in await store.jobs.list(JobFilter(**facts))]

        assert await keys(kind="stripe") == ["d", "b", "a"]
        assert await keys(handler="x") == ["d", "a"]
        assert await keys(handler="") == ["e", "c"]
        assert await keys(reason="attempts") == ["d", "c", "a"]
        assert await keys(reason="") == ["e"]
        assert await keys(error="TimeoutError: b") == ["b"]
        assert await keys(error="[100%]") == ["d", "c", "b", "a"]
        assert await keys(error="timeouterror") == []
        assert await keys(error="") == ["e", "d", "c", "b", "a"]
        assert await keys(since=begin + timedelta(seconds=10)) == ["e", "d"]
        assert await keys(until=begin + timedelta(seconds=10)) == ["c", "b", "a"]
        assert await keys(since=begin, until=begin + timedelta(seconds=10), queue="events") == ["c"]
        assert await keys(queue="deliveries", state=JobState.DEAD, kind="stripe", error="took", handler="y") == ["b"]

    async def test_a_list_asks_for_moments_not_for_local_times(self, store: Store) -> None:
        with pytest.raises(NaiveDatetime):
            await store.jobs.list(JobFilter(since=datetime(2026, 1, 1)))

    @pytest.mark.parametrize("newest", [True, False])
    @pytest.mark.parametrize("where", [JobFilter(), JobFilter(kind="odd"), JobFilter(state=JobState.DEAD, error="odd")])
    async def test_pages_hold_every_job_once_and_in_order(self, store: Store, where: JobFilter, newest: bool) -> None:
        await store.jobs.add([new(str(number), kind="odd" if number % 2 else "even") for number in range(23)])
        for job in await claim(store):
            await store.jobs.bury(job, reason="permanent", error=job.kind)
        everything = await store.jobs.list(where, newest=newest)

        paged: list[Job] = []
        while page := await store.jobs.list(where, after=paged[-1].id if paged else "", limit=4, newest=newest):
            assert len(page) <= 4
            paged += page

        assert paged == everything
        assert [int(job.key) for job in paged] == sorted((int(job.key) for job in paged), reverse=newest)
        assert len(paged) == (23 if where == JobFilter() else 11)

    async def test_a_page_begins_behind_a_job_that_is_gone(self, store: Store) -> None:
        for key in "abc":
            await store.jobs.complete(await add_and_claim(store, new(key)))
        _, gone, _ = await store.jobs.list()
        await store.jobs.drop(gone.id)

        assert [job.key for job in await store.jobs.list(after=gone.id)] == ["a"]
        assert [job.key for job in await store.jobs.list(after=gone.id, newest=False)] == ["c"]

    async def test_a_list_behind_what_can_be_no_job_is_refused(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.jobs.list(after="no number")

    async def test_the_oldest_that_waits_is_told_per_queue(self, store: Store, clock: ManualClock) -> None:
        begin = clock.now()
        assert await store.jobs.oldest() == {}
        await store.jobs.add([new("a", delay=5), new("b", delay=60), new("c", queue="events", delay=3)])
        await clock.advance(4)
        await store.jobs.add([new("late"), new("behind", queue="timers", ordering_key="k", delay=1)])
        assert await store.jobs.oldest() == {
            "deliveries": begin + timedelta(seconds=4),
            "events": begin + timedelta(seconds=3),
        }

        await clock.advance(4)
        [early, _] = await claim(store, "deliveries", limit=2)
        assert await store.jobs.oldest() == {
            "events": begin + timedelta(seconds=3),
            "timers": begin + timedelta(seconds=5),
        }

        await store.jobs.snooze(early, after=0)
        assert (await store.jobs.oldest())["deliveries"] == clock.now()

    async def test_what_waits_for_its_turn_is_not_the_oldest(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("first", ordering_key="k"), new("second", ordering_key="k")])
        await clock.advance(4)
        await claim(store)

        assert await store.jobs.oldest() == {}

    async def test_the_count_is_per_queue_and_state(self, store: Store) -> None:
        assert await store.jobs.count() == {}
        await store.jobs.add([new("a"), new("b"), new("c", queue="events")])
        await claim(store, limit=1)

        assert await store.jobs.count() == {
            ("deliveries", JobState.LEASED): 1,
            ("deliveries", JobState.READY): 1,
            ("events", JobState.READY): 1,
        }


class PurgeRules:
    async def test_done_and_ignored_jobs_are_dropped_when_old(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.complete(await add_and_claim(store, new("done")))
        await store.jobs.ignore(await add_and_claim(store, new("ignored")))
        await store.jobs.add([new("ignored from the start", ignored=True)])
        await store.jobs.bury(await add_and_claim(store, new("dead")), reason="permanent", error="")
        await store.jobs.add([new("ready")])

        await clock.advance(99)
        assert await store.jobs.purge(older_than=100) == 0
        await clock.advance(1)
        assert await store.jobs.purge(older_than=100) == 3

        assert [job.key for job in await store.jobs.list()] == ["ready", "dead"]

    async def test_only_the_states_asked_for_are_dropped_and_never_what_is_active(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.jobs.bury(await add_and_claim(store, new("dead")), reason="permanent", error="")
        await store.jobs.complete(await add_and_claim(store, new("done")))
        await add_and_claim(store, new("running"))
        await store.jobs.add([new("ready")])
        await clock.advance(1)

        assert await store.jobs.purge(older_than=2, states=[JobState.DEAD]) == 0
        assert await store.jobs.purge(older_than=1, states=[JobState.DEAD, JobState.READY, JobState.LEASED]) == 1
        assert [job.key for job in await store.jobs.list()] == ["ready", "running", "done"]
        assert await store.jobs.purge(older_than=1, states=[]) == 0
        assert await store.jobs.purge(older_than=1, states=[JobState.DONE, JobState.DONE]) == 1

    async def test_a_dead_job_that_was_purged_deduplicates(self, store: Store) -> None:
        await store.jobs.bury(await add_and_claim(store, new("a")), reason="permanent", error="")
        await store.jobs.purge(older_than=0, states=[JobState.DEAD])

        assert await store.jobs.add([new("a")]) == [Added.DUPLICATE]

    async def test_a_purge_drops_the_oldest_of_several_states(self, store: Store, clock: ManualClock) -> None:
        for key, end in (("a", complete), ("b", bury), ("c", ignore), ("d", bury), ("e", complete)):
            await end(store.jobs, await add_and_claim(store, new(key)))
            await clock.advance(1)
        states = [JobState.DONE, JobState.IGNORED, JobState.DEAD]

        assert await store.jobs.purge(older_than=0, states=states, limit=3) == 3

        assert [job.key for job in await store.jobs.list()] == ["e", "d"]

    async def test_a_replayed_job_is_not_purged_for_when_it_ended_before(
        self, store: Store, clock: ManualClock
    ) -> None:
        job = await add_and_claim(store, new("a"))
        await store.jobs.bury(job, reason="permanent", error="")
        await clock.advance(100)
        await store.jobs.replay(job.id)
        assert await store.jobs.purge(older_than=100, states=[JobState.DEAD]) == 0
        [again] = await claim(store)
        await store.jobs.bury(again, reason="permanent", error="")

        assert await store.jobs.purge(older_than=100, states=[JobState.DEAD]) == 0
        await clock.advance(100)
        assert await store.jobs.purge(older_than=100, states=[JobState.DEAD]) == 1

    @each(ENDS)
    async def test_one_ended_job_is_dropped_and_its_key_goes_on_deduplicating(
        self, store: Store, move: Transition
    ) -> None:
        job = await add_and_claim(store, new("a"))
        await move(store.jobs, job)

        assert await store.jobs.drop(job.id, generation=0) is True

        with pytest.raises(NotFound):
            await store.jobs.get(job.id)
        assert await store.jobs.add([new("a")]) == [Added.DUPLICATE]
        assert await store.jobs.count() == {}
        assert await store.jobs.purge(older_than=0, states=[JobState.DONE, JobState.IGNORED, JobState.DEAD]) == 0

    async def test_an_active_job_is_not_dropped(self, store: Store) -> None:
        await store.jobs.add([new("a"), new("b")])
        [running] = await claim(store, limit=1)

        assert [await store.jobs.drop(job.id) for job in await store.jobs.list()] == [False, False]

        await store.jobs.complete(running)
        assert await claimed(store) == ["b"]

    async def test_a_dropped_job_is_gone(self, store: Store) -> None:
        job = await add_and_claim(store, new("a"))
        await store.jobs.complete(job)
        await store.jobs.purge(older_than=0)

        with pytest.raises(NotFound):
            await store.jobs.get(job.id)
        with pytest.raises(NotFound):
            await store.jobs.replay(job.id)
        with pytest.raises(LeaseLost):
            await store.jobs.complete(job)

    async def test_a_dropped_key_deduplicates_until_it_is_that_old_again(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.jobs.complete(await add_and_claim(store, new("a")))
        await clock.advance(100)
        await store.jobs.purge(older_than=100)

        await clock.advance(99)
        await store.jobs.purge(older_than=100)
        assert await store.jobs.add([new("a"), new("a", queue="events")]) == [Added.DUPLICATE, Added.NEW]

        await clock.advance(1)
        await store.jobs.purge(older_than=100)
        assert await store.jobs.add([new("a")]) == [Added.NEW]

    async def test_a_purge_drops_the_oldest_up_to_its_limit(self, store: Store, clock: ManualClock) -> None:
        for key in "abc":
            await store.jobs.complete(await add_and_claim(store, new(key)))
            await clock.advance(1)

        assert await store.jobs.purge(older_than=0, limit=2) == 2

        assert [job.key for job in await store.jobs.list()] == ["c"]

    async def test_ids_are_never_used_again(self, store: Store) -> None:
        first = await add_and_claim(store, new("a"))
        await store.jobs.complete(first)
        await store.jobs.purge(older_than=0)

        second = await add_and_claim(store, new("b"))

        assert second.id != first.id


class WaitRules:
    """Each begins after a claim that found nothing, as a worker does."""

    @pytest.fixture
    async def waiting(self, store: Store) -> StartWaiting:
        async def wait() -> asyncio.Task[None]:
            await claim(store)
            task = asyncio.create_task(store.jobs.wait(1000))
            await asyncio.sleep(0)
            return task

        return wait

    async def test_it_ends_after_its_timeout(self, store: Store, clock: ManualClock) -> None:
        await claim(store)
        task = asyncio.create_task(store.jobs.wait(30))
        await clock.advance(29.999)
        assert not task.done()

        await clock.advance(0.001)

        await soon(task)

    async def test_what_was_added_before_it_began_ends_it(self, store: Store) -> None:
        await claim(store)
        await store.jobs.add([new("a")])

        await soon(store.jobs.wait(1000))

    async def test_an_added_job_ends_it(self, store: Store, waiting: StartWaiting) -> None:
        task = await waiting()

        await store.jobs.add([new("a")])

        await soon(task)

    async def test_a_job_added_with_a_record_ends_it(self, store: Store, waiting: StartWaiting) -> None:
        task = await waiting()

        await store.records.apply("payment", "a", 0, Draft(value={}), jobs=[new("a")])

        await soon(task)

    async def test_a_delayed_job_ends_it_when_due(
        self, store: Store, clock: ManualClock, waiting: StartWaiting
    ) -> None:
        await store.jobs.add([new("a", delay=10)])
        task = await waiting()
        await clock.advance(9.9)
        assert not task.done()

        await clock.advance(0.1)

        await soon(task)

    async def test_a_lease_that_runs_out_ends_it(self, store: Store, clock: ManualClock, waiting: StartWaiting) -> None:
        await add_and_claim(store, new("a"))
        task = await waiting()

        await clock.advance(LEASE)

        await soon(task)

    async def test_a_retry_ends_it_when_due(self, store: Store, clock: ManualClock, waiting: StartWaiting) -> None:
        await store.jobs.retry(await add_and_claim(store, new("a")), after=5, error="")
        task = await waiting()

        await clock.advance(5)

        await soon(task)

    async def test_a_released_job_ends_it(self, store: Store, waiting: StartWaiting) -> None:
        await add_and_claim(store, new("a"))
        task = await waiting()

        await store.jobs.release("worker")

        await soon(task)

    async def test_a_freed_ordering_key_ends_it(self, store: Store, waiting: StartWaiting) -> None:
        first = await add_and_claim(store, new("first", ordering_key="k"))
        await store.jobs.add([new("second", ordering_key="k")])
        task = await waiting()

        await store.jobs.complete(first)

        await soon(task)

    async def test_a_replayed_job_ends_it(self, store: Store, waiting: StartWaiting) -> None:
        job = await add_and_claim(store, new("a"))
        await store.jobs.complete(job)
        task = await waiting()

        await store.jobs.replay(job.id)

        await soon(task)

    async def test_a_job_of_a_queue_nobody_serves_does_not_make_it_spin(self, store: Store, clock: ManualClock) -> None:
        await store.jobs.add([new("a", queue="nobody's")])
        await claim(store)
        task = asyncio.create_task(store.jobs.wait(1000))
        await clock.advance(0)

        assert not task.done()

        task.cancel()
        await asyncio.wait([task])

    async def test_several_may_wait(self, store: Store, waiting: StartWaiting) -> None:
        tasks = [await waiting() for _ in range(3)]

        await store.jobs.add([new("a")])

        await soon(asyncio.gather(*tasks))

    async def test_it_can_be_cancelled(self, store: Store, waiting: StartWaiting) -> None:
        task = await waiting()

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await soon(task)


class RewriteRules:
    async def test_a_job_carries_something_else_and_nothing_else_changes(self, store: Store) -> None:
        held = await add_and_claim(store, new("a", body=b"old", headers={"type": "paid"}, ordering_key="o"))

        assert await store.jobs.rewrite(held, body=b"\x00new", headers={"sealed": "1"})

        assert await store.jobs.get(held.id) == replace(held, body=b"\x00new", headers={"sealed": "1"})
        await store.jobs.complete(held)
        assert await store.jobs.add([new("a", body=b"old", ordering_key="o")]) == [Added.DUPLICATE]

    async def test_a_job_that_carries_something_else_by_now_stays(self, store: Store) -> None:
        held = await add_and_claim(store, new("a", body=b"old"))
        await store.jobs.rewrite(held, body=b"first", headers={})

        assert not await store.jobs.rewrite(held, body=b"second", headers={})

        assert (await store.jobs.get(held.id)).body == b"first"

    async def test_a_job_that_is_gone_is_not_rewritten(self, store: Store) -> None:
        held = await add_and_claim(store, new("a", body=b"old"))
        await store.jobs.complete(held)
        await store.jobs.drop(held.id)

        assert not await store.jobs.rewrite(held, body=b"new", headers={})


class JobsConformance(
    AddRules, ClaimRules, OrderRules, HoldRules, ReplayRules, ViewRules, PurgeRules, WaitRules, RewriteRules
):
    """All of them."""


async def soon(awaitable: Awaitable[object]) -> None:
    """A rule that is broken should fail, not hang."""
    async with asyncio.timeout(30):
        await awaitable
