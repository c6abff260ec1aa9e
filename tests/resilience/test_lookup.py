"""Reads through the cache, and reads asked for twice."""

import asyncio
from contextvars import ContextVar

import pytest

from holdfast.errors import InvalidInput, OutcomeUnknown, Rejected
from holdfast.resilience.context import priority
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Budget, Cache, Hedge, Policy, Priority, Rate, Retry
from holdfast.telemetry import CallHedged, CallRejected, Signal, StaleAnswer, Telemetry
from holdfast.testing.clock import ManualClock


class Weather:
    """A vendor that answers after so many seconds, or fails."""

    def __init__(self, clock: ManualClock, *script: float | Exception) -> None:
        self._clock = clock
        self._script = list(script)
        self.asked: list[str] = []
        self.given_up = 0

    async def fetch(self, city: str) -> str:
        self.asked.append(city)
        what = self._script.pop(0) if self._script else 0.0
        if isinstance(what, Exception):
            raise what
        try:
            await self._clock.sleep(what)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return f"{city} {len(self.asked)}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signals() -> list[Signal]:
    return []


def guarded(clock: ManualClock, policy: Policy, signals: list[Signal] | None = None) -> Guard:
    return Guard("weather", policy, clock=clock, telemetry=Telemetry([signals.append] if signals is not None else []))


# The cache.


async def test_a_fresh_answer_is_not_asked_for_again(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(cache=Cache(60))), Weather(clock)

    answers = [await guard.read(vendor.fetch, city) for city in ("Bern", "Bern", "Basel")]
    await clock.advance(61)
    again = await guard.read(vendor.fetch, "Bern")

    assert answers == ["Bern 1", "Bern 1", "Basel 2"]
    assert again == "Bern 3"
    snapshot = guard.snapshot().cache
    assert snapshot is not None
    assert (snapshot.hits, snapshot.entries) == (1, 2)


async def test_one_call_fetches_for_all_who_wait(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(cache=Cache(60))), Weather(clock, 1.0)

    waiting = [asyncio.create_task(guard.read(vendor.fetch, "Bern")) for _ in range(50)]
    await clock.advance(1)

    assert {await task for task in waiting} == {"Bern 1"}
    assert vendor.asked == ["Bern"]


async def test_an_old_answer_is_better_than_an_outage_and_told_of(clock: ManualClock, signals: list[Signal]) -> None:
    policy = Policy(cache=Cache(60, stale=600), retry=None)
    vendor = Weather(clock, 0.0, OutcomeUnknown("down"))
    guard = guarded(clock, policy, signals)

    await guard.read(vendor.fetch, "Bern")
    await clock.advance(100)

    assert await guard.read(vendor.fetch, "Bern") == "Bern 1"
    assert [one for one in signals if isinstance(one, StaleAnswer)] == [StaleAnswer("weather", "fetch", 100, "unknown")]


async def test_a_no_is_not_hidden_behind_an_old_answer(clock: ManualClock) -> None:
    guard = guarded(clock, Policy(cache=Cache(60, stale=600)))
    vendor = Weather(clock, 0.0, Rejected("no such city"))
    await guard.read(vendor.fetch, "Bern")
    await clock.advance(100)

    with pytest.raises(Rejected, match="no such city"):
        await guard.read(vendor.fetch, "Bern")


async def test_what_a_closure_holds_cannot_be_a_key(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(cache=Cache(60))), Weather(clock)
    city = "Bern"

    with pytest.raises(InvalidInput, match=r"guard.read\(fetch, city\)"):
        await guard.read(lambda: vendor.fetch(city))
    with pytest.raises(InvalidInput, match="hashable, not list"):
        await guard.read(vendor.fetch, ["Bern"])  # type: ignore[arg-type]

    assert vendor.asked == []


async def test_equal_arguments_of_other_types_are_other_keys(clock: ManualClock) -> None:
    guard = guarded(clock, Policy(cache=Cache(60)))

    seen = [await guard.read(_kind, value) for value in (1, True, 1.0)]

    assert seen == ["int", "bool", "float"]


async def _kind(value: object) -> str:
    return type(value).__name__


async def test_two_clients_do_not_share_answers(clock: ManualClock) -> None:
    guard, ours, theirs = guarded(clock, Policy(cache=Cache(60))), Weather(clock), Weather(clock)

    await guard.read(ours.fetch, "Bern")
    await guard.read(theirs.fetch, "Bern")

    assert ours.asked == theirs.asked == ["Bern"]


async def test_a_fetch_has_its_callers_priority_and_pays_from_his_rate(
    clock: ManualClock, signals: list[Signal]
) -> None:
    user = ContextVar[str]("user")
    policy = Policy(cache=Cache(60), rate=Rate(1, per=60, key=user, max_waiting=0), concurrency=4, retry=None)
    guard, vendor = guarded(clock, policy, signals), Weather(clock)

    for name, city in (("ann", "Bern"), ("bob", "Basel")):
        user.set(name)
        with priority(Priority.BULK):
            await guard.read(vendor.fetch, city)
    user.set("ann")
    with pytest.raises(Exception, match="the rate has no slot"):
        await guard.read(vendor.fetch, "Chur")

    assert vendor.asked == ["Bern", "Basel"]
    assert [one.layer for one in signals if isinstance(one, CallRejected)] == ["rate"]


def test_threads_share_the_cache_too(clock: ManualClock) -> None:
    guard = guarded(clock, Policy(cache=Cache(60)))

    answers = [guard.sync.read(_forecast, city) for city in ("Bern", "Bern")]

    assert answers == ["Bern", "Bern"]
    snapshot = guard.snapshot().cache
    assert snapshot is not None
    assert snapshot.hits == 1


def _forecast(city: str) -> str:
    return city


# Hedging.


async def test_a_second_call_answers_when_the_first_takes_long(clock: ManualClock, signals: list[Signal]) -> None:
    guard, vendor = guarded(clock, Policy(hedge=Hedge(0.1)), signals), Weather(clock, 10.0, 0.1)

    answer = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(0.3)

    assert await answer == "Bern 2"
    assert vendor.given_up == 1
    assert [one for one in signals if isinstance(one, CallHedged)] == [CallHedged("weather", "fetch", 0.1)]
    assert guard.snapshot().circuits[""].calls == 1  # who was given up says nothing


async def test_a_call_in_time_is_made_once(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(hedge=Hedge(0.1))), Weather(clock, 0.05)

    answer = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(1)

    assert await answer == "Bern 1"
    assert vendor.asked == ["Bern"]


async def test_what_is_slow_is_learnt_from_the_operation_itself(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(hedge=Hedge())), Weather(clock, *[0.2] * 20, 10.0, 0.1)
    for _ in range(20):
        task = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
        await clock.advance(0.2)
        await task

    slow = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(0.19)
    before = len(vendor.asked)
    await clock.advance(0.2)

    assert (before, len(vendor.asked)) == (21, 22)
    assert await slow == "Bern 22"


async def test_the_budget_pays_for_second_calls(clock: ManualClock) -> None:
    policy = Policy(hedge=Hedge(0.1), budget=Budget(0.0, reserve=0.1), timeout=5)
    guard, vendor = guarded(clock, policy), Weather(clock, *[1.0] * 20)

    calls = [asyncio.create_task(guard.read(vendor.fetch, "Bern")) for _ in range(10)]
    await clock.advance(2)

    assert len([await call for call in calls]) == 10
    assert len(vendor.asked) == 11


async def test_nothing_is_doubled_while_a_circuit_is_not_closed(clock: ManualClock) -> None:
    policy = Policy(hedge=Hedge(0.1), retry=None, breaker=Breaker(consecutive=1, open_for=1))
    guard = guarded(clock, policy)
    vendor = Weather(clock, OutcomeUnknown("down", hard=True), 1.0)
    with pytest.raises(OutcomeUnknown):
        await guard.read(vendor.fetch, "Bern")
    await clock.advance(1)

    probe = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(2)

    assert await probe == "Bern 2"
    assert len(vendor.asked) == 2


async def test_both_calls_end_with_their_caller(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(hedge=Hedge(0.1))), Weather(clock, 10.0, 10.0)
    caller = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(1)

    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)

    assert caller.cancelled()
    assert vendor.given_up == 2
    assert guard.snapshot().running == 0


async def test_when_both_fail_the_first_ones_error_is_told(clock: ManualClock) -> None:
    guard = guarded(clock, Policy(hedge=Hedge(0.1), retry=None, timeout=1))
    vendor = Weather(clock, 10.0, Rejected("no"))
    caller = asyncio.create_task(guard.read(vendor.fetch, "Bern"))
    await clock.advance(2)

    with pytest.raises(OutcomeUnknown, match="no answer after 1 s"):
        await caller


async def test_a_write_is_never_doubled(clock: ManualClock) -> None:
    guard, vendor = guarded(clock, Policy(hedge=Hedge(0.1), cache=Cache(60), retry=Retry())), Weather(clock, 1.0, 1.0)

    calls = [asyncio.create_task(verb(vendor.fetch, "Bern")) for verb in (guard.idempotent, guard.once)]
    await clock.advance(2)

    assert [await call for call in calls] == ["Bern 2", "Bern 2"]
    assert len(vendor.asked) == 2
