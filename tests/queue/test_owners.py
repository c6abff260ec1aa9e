"""Who is provably dead, and what becomes of the jobs they leased."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.queue.owners import Owner
from holdfast.queue.signals import TakenOver
from holdfast.queue.takeover import CRASHES, KIND, Takeover
from holdfast.stores import Store, open_store
from holdfast.stores.store import JobState, NewJob
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock

ME = Owner.of_this_process()


def dead(token: str = "dead") -> Owner:
    """A process that ended, and was waited for."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return replace(ME, pid=child.pid, started=ME.started + 1, token=token)


def test_an_owners_name_tells_which_process_it_is() -> None:
    assert Owner.parse(str(ME)) == ME
    assert ME.pid == os.getpid()
    assert ME.host
    assert ME.started > 0


@pytest.mark.parametrize("name", ["", "one", "a/b/c/d/e", "node/12/abc"])
def test_a_name_of_another_kind_is_nobody_of_ours(name: str) -> None:
    assert Owner.parse(name) is None


def test_a_process_that_ended_is_dead() -> None:
    assert dead().is_dead(ME)


def test_a_living_process_is_not_dead() -> None:
    assert not ME.is_dead(ME)


def test_another_process_with_the_number_of_a_dead_one_does_not_revive_it() -> None:
    assert replace(ME, started=ME.started - 1).is_dead(ME)


@pytest.mark.parametrize("change", [{"host": "another"}, {"host": ""}, {"started": 0}])
def test_nobody_is_dead_whom_we_cannot_see(change: dict[str, object]) -> None:
    assert not replace(dead(), **change).is_dead(ME)  # type: ignore[arg-type]


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    owner = replace(ME, pid=child.pid, started=started)
    assert not owner.is_dead(ME)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert owner.is_dead(ME)
    child.communicate()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store(f"sqlite:///{tmp_path}/holdfast.db", clock=clock) as store:
        yield store


def takeover(store: Store, clock: ManualClock, owner: Owner, signals: list[Signal] | None = None) -> Takeover:
    sinks = [signals.append] if signals is not None else []
    return Takeover(store, str(owner), every=0.25, lease=10, clock=clock, telemetry=Telemetry(sinks))


async def leave_leased(store: Store, clock: ManualClock, owner: Owner, key: str = "a") -> None:
    """What a worker leaves behind when it dies."""
    await takeover(store, clock, owner).look()
    await store.jobs.add([NewJob(queue="work", key=key, kind="test")])
    await store.jobs.claim(["work"], owner=str(owner), limit=1, lease=10)


async def test_the_jobs_of_a_dead_neighbour_are_free_at_once(store: Store, clock: ManualClock) -> None:
    gone, signals = dead(), list[Signal]()
    await leave_leased(store, clock, gone)

    await takeover(store, clock, ME, signals).look()

    [job] = await store.jobs.list()
    assert (job.state, job.losses) == (JobState.READY, 0)
    assert signals == [TakenOver(str(gone), 1)]


@pytest.mark.parametrize("change", [{"host": "another"}, {"pid": ME.pid, "started": ME.started}])
async def test_the_jobs_of_the_living_and_of_other_hosts_are_left_alone(
    store: Store, clock: ManualClock, change: dict[str, object]
) -> None:
    await leave_leased(store, clock, replace(dead(), **change))  # type: ignore[arg-type]

    await takeover(store, clock, ME).look()

    assert [job.state for job in await store.jobs.list()] == [JobState.LEASED]


async def test_a_crash_that_repeats_is_left_to_the_leases_which_count_it(store: Store, clock: ManualClock) -> None:
    for number in range(CRASHES + 1):
        await leave_leased(store, clock, dead(str(number)), key=str(number))
        await takeover(store, clock, ME).look()

    assert sorted(job.state for job in await store.jobs.list()) == [JobState.LEASED] + [JobState.READY] * CRASHES


async def test_the_list_has_as_many_places_as_there_are_owners(store: Store, clock: ManualClock) -> None:
    for number in range(5):
        await leave_leased(store, clock, dead(str(number)), key=str(number))
        await clock.advance(101)
        await takeover(store, clock, replace(ME, token=str(number))).look()
        await clock.advance(101)

    assert len(await store.records.list(KIND)) <= 2


async def test_an_owner_stays_on_the_list_while_it_lives(store: Store, clock: ManualClock) -> None:
    mine = takeover(store, clock, ME)

    for _ in range(100):
        await mine.look()
        await clock.advance(5)

    [record] = await store.records.list(KIND)
    assert record.value == {"owner": str(ME)}
    assert record.due_at is not None
    assert record.due_at > clock.now()
