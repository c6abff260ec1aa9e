"""Which claimed job runs next: nobody waits behind another's backlog."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import pytest

from holdfast.queue.lanes import GroupLimit, Lanes
from holdfast.resilience.policy import Rate
from holdfast.stores.store import Job, JobState
from holdfast.testing.clock import ManualClock

NUMBERS = count()


def job(
    kind: str, *, handler: str = "", attempts: int = 0, generation: int = 0, losses: int = 0, **headers: str
) -> Job:
    now = ManualClock().now()
    return Job(
        id=str(next(NUMBERS)), queue="events", key="", kind=kind, handler=handler, body=b"", headers=headers,
        ordering_key="", state=JobState.LEASED, token=1, attempts=attempts, losses=losses, generation=generation,
        arrivals=1, conflicts=0, created_at=now, due_at=now, error="", reason="",
    )  # fmt: skip


def lanes(
    *jobs: Job, concurrency: int = 4, clock: ManualClock | None = None, limits: Mapping[str, GroupLimit] | None = None
) -> Lanes:
    made = Lanes(concurrency, limits or {}, (clock or ManualClock()).monotonic)
    for each in jobs:
        made.put(each)
    return made


def taken(lanes: Lanes) -> list[str]:
    kinds: list[str] = []
    while (each := lanes.take()) is not None:
        kinds.append(each.kind)
    return kinds


def drained(lanes: Lanes) -> list[str]:
    """The kinds in the order they run, one at a time."""
    kinds: list[str] = []
    while (each := lanes.take()) is not None:
        kinds.append(each.kind)
        lanes.done(each, 0.01)
    return kinds


def test_groups_take_turns() -> None:
    queue = lanes(*[job("a") for _ in range(4)], job("b"), job("c"), concurrency=8)

    assert taken(queue) == ["a", "b", "c", "a", "a", "a"]


def test_tenants_of_one_source_take_turns() -> None:
    queue = lanes(*[job("a", tenant="big") for _ in range(3)], job("a", tenant="small"), concurrency=8)

    assert [each.headers["tenant"] for each in iter(queue.take, None)] == ["big", "small", "big", "big"]


def test_one_group_never_fills_every_place() -> None:
    queue = lanes(*[job("slow") for _ in range(10)])

    assert taken(queue) == ["slow"] * 3
    queue.put(job("quick"))
    assert taken(queue) == ["quick"]


def test_a_redrive_delays_no_new_job() -> None:
    queue = lanes(*[job("a", generation=1) for _ in range(10)])

    assert taken(queue) == ["a"]
    queue.put(job("a"))
    queue.put(job("a"))
    assert taken(queue) == ["a", "a"]


def test_of_new_jobs_and_retries_every_fifth_is_a_retry() -> None:
    queue = lanes(*[job("retry", attempts=1) for _ in range(3)], *[job("new") for _ in range(8)])

    assert drained(queue) == ["new"] * 4 + ["retry"] + ["new"] * 4 + ["retry"] + ["retry"]


@pytest.mark.parametrize("name", ["paid", "paid/confirm"])
def test_a_limit_holds_for_all_below_its_name(name: str) -> None:
    queue = lanes(
        *[job("paid", handler="confirm", tenant=str(number)) for number in range(5)],
        limits={f"events/{name}": GroupLimit(concurrency=1)},
    )

    first = queue.take()
    assert first is not None
    assert queue.take() is None
    queue.done(first, 1.0)
    assert queue.take() is not None


def test_a_rate_lets_so_many_begin_and_says_when_the_next_may() -> None:
    clock = ManualClock()
    queue = lanes(
        *[job("paid") for _ in range(5)],
        clock=clock,
        limits={"events/paid": GroupLimit(rate=Rate(2, per=10, counted_from="start"))},
    )

    assert len(taken(queue)) == 2
    assert queue.pause() == pytest.approx(10)
    clock.pause(10)
    assert queue.take() is not None


def test_a_job_that_was_lost_twice_runs_alone() -> None:
    suspect = job("suspect", losses=2)
    queue = lanes(job("a"), suspect)
    queue.put(job("b"))

    before = list(drained(lanes(job("a"), job("b"))))
    assert before == ["a", "b"]
    assert queue.take() is suspect
    assert queue.take() is None
    queue.done(suspect, 1.0)
    assert sorted(taken(queue)) == ["a", "b"]


def test_a_suspect_waits_for_what_runs_and_nothing_new_begins() -> None:
    running, suspect = job("a"), job("suspect", losses=2)
    queue = lanes(running)
    assert queue.take() is running

    queue.put(suspect)
    queue.put(job("b"))

    assert queue.take() is None
    queue.done(running, 1.0)
    assert queue.take() is suspect


def test_what_is_given_back_comes_again_when_its_turn_may_come() -> None:
    queue = lanes(*[job("slow") for _ in range(53)])
    first = [queue.take() for _ in range(3)]
    assert first[0] is not None
    queue.done(first[0], 3.0)
    queue.take()

    given = queue.shed()

    assert queue.waiting == 3
    assert len(given) == 46
    delays = sorted(after for _, after in given)
    assert (delays[0], delays[-1]) == (3.0, 30.0)


def test_a_group_that_ended_leaves_nothing_behind() -> None:
    queue = lanes(*[job("a", tenant=str(number)) for number in range(100)])

    drained(queue)

    assert (queue.running, queue.waiting, queue.pause()) == (0, 0, None)
    assert queue._groups == {}


def test_a_job_with_another_number_of_attempts_is_another_group() -> None:
    one = job("a")
    queue = lanes(one, replace(one, id="again", attempts=1))

    assert taken(queue) == ["a", "a"]
