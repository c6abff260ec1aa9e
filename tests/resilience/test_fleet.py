"""Several processes share what they learn of an outage: quorum, one prober, holds, and a store that fails."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import (
    CallFailed,
    CircuitOpen,
    InvalidInput,
    NotSent,
    OnHold,
    OutcomeUnknown,
    StoreUnavailable,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience import reports
from holdfast.resilience.breaker import Circuit, CircuitState, Permit, Report, Result
from holdfast.resilience.fleet import TOPIC, Fleet
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy
from holdfast.resilience.reports import MOST_CIRCUITS, MOST_PROCESSES, Fact, Reports, believed
from holdfast.runtime import Runtime
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Json, Lease
from holdfast.telemetry import CircuitChanged, SharedStateChanged, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from tests.resilience.processes import OPEN_FOR, callers, opened
from tests.resilience.processes import Vendor as LoopbackVendor
from tests.servers.redis import RedisServer

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
POLICY = Policy(retry=None, timeout=2.0, breaker=Breaker(open_for=10, probes_to_close=1))
OPENED = 10.1
"""Seconds after which every circuit's first open period is over."""


class CountingStore:
    """A store in memory that counts what it is asked, and can be made to fail, or to say nothing."""

    def __init__(self, clock: ManualClock) -> None:
        self.memory = MemoryStore(clock=clock)
        self.asked: list[str] = []
        self.down = False
        self.silent = False
        self.leases = self.bus = self

    async def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.down:
            raise StoreUnavailable("down")

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Lease | None:
        await self._answer("acquire")
        return await self.memory.leases.acquire(name, owner=owner, ttl=ttl)

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        await self._answer("renew")
        return await self.memory.leases.renew(lease, ttl=ttl)

    async def release(self, lease: Lease) -> None:
        await self._answer("release")
        await self.memory.leases.release(lease)

    async def publish(self, topic: str, fact: Mapping[str, Json]) -> None:
        await self._answer("publish")
        await self.memory.bus.publish(topic, fact)

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Json]]]:
        return self.memory.bus.listen(topic)


class Vendor:
    """What all processes call."""

    def __init__(self) -> None:
        self.calls = 0
        self.down = False
        self.hangs: asyncio.Event | None = None

    async def __call__(self) -> None:
        self.calls += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.down:
            raise OutcomeUnknown("down", status=500, hard=True)


class Process:
    """A guard as it would be in a process of its own."""

    def __init__(self, world: "World", number: int, policy: Policy) -> None:
        self.signals: list[Signal] = []
        self.guard = Guard(
            "weather", policy, clock=world.clock, random=Random(number), telemetry=Telemetry([self.signals.append])
        )
        self.fleet = Fleet(world.store, [self.guard], clock=world.clock)
        self._world = world

    @property
    def state(self) -> CircuitState:
        circuit = self.guard.circuit()
        assert circuit is not None
        return circuit.state(self._world.clock.monotonic())

    async def call(self) -> bool:
        """Whether the vendor was reached."""
        before = self._world.vendor.calls
        with suppress(CallFailed):
            await self.guard.read(self._world.vendor)
        return self._world.vendor.calls > before

    async def call_and_cancel(self) -> None:
        """Begin a call that reaches the vendor, and give it up."""
        self._world.vendor.hangs = asyncio.Event()
        call = asyncio.ensure_future(self.call())
        await self._world.clock.advance(0)
        call.cancel()
        await asyncio.wait([call])
        self._world.vendor.hangs = None

    async def fail(self, times: int = 5) -> None:
        async def fail() -> None:
            raise OutcomeUnknown("down", status=500, hard=True)

        for _ in range(times):
            with suppress(CallFailed):
                await self.guard.read(fail)

    async def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            await self.guard.read(asyncio.sleep, 0)


class World:
    """Processes, in one event loop, that share a store and a clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = CountingStore(self.clock)
        self.vendor = Vendor()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "World":
        await self._open.enter_async_context(self.store.memory)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    async def processes(self, number: int, policy: Policy = POLICY) -> list[Process]:
        made = [Process(self, seed, policy) for seed in range(number)]
        for each in made:
            await self._open.enter_async_context(each.fleet)
        await self.clock.advance(1)
        return made


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with World() as world:
        yield world


def states(processes: list[Process]) -> list[CircuitState]:
    return [each.state for each in processes]


# Opening on the word of others.


async def test_one_bad_node_opens_no_other_process(world: World) -> None:
    bad, *others = await world.processes(6)
    for each in others:
        await each.succeed(30)

    for _ in range(20):
        await bad.fail()
        await world.clock.advance(0.5)
        assert states(others) == [CLOSED] * 5

    assert bad.state is OPEN


async def test_one_bad_node_and_an_odd_failure_open_no_process_that_is_well(world: World) -> None:
    bad, well = await world.processes(2)
    await well.succeed(30)
    await bad.fail()

    await well.fail(1)
    await world.clock.advance(1)

    assert well.state is CLOSED


async def test_two_of_six_open_all(world: World) -> None:
    processes = await world.processes(6)
    for each in processes[2:]:
        await each.succeed(30)
    await world.clock.advance(1)

    await processes[0].fail()
    await processes[1].fail()
    await world.clock.advance(0.5)

    assert states(processes) == [OPEN] * 6
    [change] = [each for each in processes[5].signals if isinstance(each, CircuitChanged)]
    assert change.reason == "2 of 6 processes found that it fails"


async def test_two_of_seven_open_no_other(world: World) -> None:
    processes = await world.processes(7)
    for each in processes[2:]:
        await each.succeed(30)
    await world.clock.advance(1)

    await processes[0].fail()
    await processes[1].fail()
    await world.clock.advance(1)

    assert states(processes) == [OPEN] * 2 + [CLOSED] * 5


async def test_one_other_and_a_failure_of_its_own_open_a_process(world: World) -> None:
    first, second, third = await world.processes(3)
    await first.fail()
    await world.clock.advance(1)

    await second.fail(1)
    await world.clock.advance(0.5)

    assert states([second, third]) == [OPEN, CLOSED]


async def test_a_process_that_opened_on_the_word_of_others_is_no_witness(world: World) -> None:
    processes = await world.processes(4)
    await processes[0].fail()
    await world.clock.advance(1)
    await processes[1].fail(1)
    await world.clock.advance(1)

    assert states(processes) == [OPEN, OPEN, CLOSED, CLOSED]


@pytest.mark.parametrize(
    ("failing", "reporting", "doubtful", "opens"),
    [
        (0, 1, True, False),
        (1, 2, False, False),
        (1, 200, True, True),
        (2, 2, False, True),
        (2, 6, False, True),
        (2, 7, False, False),
        (3, 10, False, True),
        (29, 100, False, False),
        (30, 100, False, True),
    ],
)
def test_the_quorum(failing: int, reporting: int, doubtful: bool, opens: bool) -> None:
    assert believed(failing, reporting, doubtful=doubtful) is opens


async def test_what_others_found_before_a_circuit_was_closed_does_not_open_it_again(world: World) -> None:
    processes = await world.processes(4)
    for each in processes[:3]:
        await each.fail()
    await world.clock.advance(1)
    assert processes[3].state is OPEN

    processes[3].guard.close("it is well again")
    await world.clock.advance(1)

    assert processes[3].state is CLOSED


async def test_what_was_set_by_hand_is_not_changed_by_others(world: World) -> None:
    *failing, isolated, watching = await world.processes(4)
    isolated.guard.isolate("maintenance")
    watching.guard.metrics_only("a test")

    for each in failing:
        await each.fail()
    await world.clock.advance(1)

    assert states([isolated, watching]) == [CircuitState.ISOLATED, CircuitState.METRICS_ONLY]


@pytest.mark.parametrize("override", ["isolate", "metrics_only"])
def test_a_circuit_set_by_hand_takes_nobodys_word(override: str) -> None:
    closed, opened = Circuit(Breaker(), Random(1)), Circuit(Breaker(), Random(1))
    assert opened.trip("others say so", 0.0, open_for=5.0) is not None
    for circuit in (closed, opened):
        getattr(circuit, override)("a test", 1.0)

    assert closed.trip("others say so", 2.0, open_for=5.0) is None
    assert opened.follow(2.0, open_for=5.0, reopened=1) is None
    assert opened.recover(2.0, since=1.0) is None

    assert [circuit.automatic(3.0).after for circuit in (closed, opened)] == [CLOSED, OPEN]


def test_an_open_period_grows_by_the_failed_probes_of_others() -> None:
    circuit = Circuit(Breaker(open_for=1), Random(1))
    circuit.trip("others say so", 0.0, open_for=1.0)
    circuit.follow(0.5, open_for=8.0, reopened=3)
    assert circuit.refuses(4.4) is not None

    probe = circuit.admit(8.5, lease=5.0)
    assert isinstance(probe, Permit)
    change = circuit.record(probe, Result.FAILURE, 9.0)

    assert change is not None
    assert 8.0 <= change.open_for <= 16.0


# One prober.


async def test_of_eight_processes_with_a_hundred_callers_each_one_probes(world: World) -> None:
    processes = await world.processes(8)
    world.vendor.down = True
    for each in processes:
        await each.fail()
    await world.clock.advance(OPENED)

    await asyncio.gather(*(each.call() for each in processes for _ in range(100)))

    assert world.vendor.calls == 1


async def test_all_close_when_the_prober_closes(world: World) -> None:
    processes = await world.processes(8)
    for each in processes:
        await each.fail()
    await world.clock.advance(OPENED)

    assert await processes[3].call()
    await world.clock.advance(0.25)

    assert states(processes) == [CLOSED] * 8


async def test_after_a_probe_that_failed_the_others_wait_too(world: World) -> None:
    processes = await world.processes(8)
    for each in processes:
        await each.fail()
    await world.clock.advance(OPENED)
    world.vendor.down = True
    await processes[0].call()

    for _ in range(4):  # the second open period lasts ten seconds at least, that of others half of it
        await world.clock.advance(1)
        await asyncio.gather(*(each.call() for each in processes[1:] for _ in range(10)))

    assert world.vendor.calls == 1


async def test_after_a_probe_that_failed_another_process_is_due_first(world: World) -> None:
    processes = await world.processes(8)
    for each in processes:
        await each.fail()
    await world.clock.advance(OPENED)
    world.vendor.down = True
    await processes[0].call()
    await world.clock.advance(4)

    prober, *others = [each.guard.shut_for("call") or 0.0 for each in processes]

    assert sum(left < 0.8 * prober for left in others) >= 3


async def test_open_periods_grow_whoever_probes(world: World) -> None:
    processes = await world.processes(4)
    world.vendor.down = True
    for each in processes:
        await each.fail()

    for _ in range(600):
        await world.clock.advance(1)
        await asyncio.gather(*(each.call() for each in processes))

    assert 5 <= world.vendor.calls <= 15  # one process alone would make six to eleven


async def test_the_next_process_probes_when_the_prober_has_died(world: World) -> None:
    [process] = await world.processes(1)
    await process.fail()
    await world.clock.advance(OPENED)
    await world.store.memory.leases.acquire("circuit:weather:", owner="dead", ttl=3.0)

    with pytest.raises(CircuitOpen) as rejected:
        await process.guard.read(world.vendor)
    assert rejected.value.retry_after == 0.5
    for _ in range(5):
        await world.clock.advance(0.5)
        assert not await process.call()
    await world.clock.advance(0.5)

    assert await process.call()


async def test_a_lease_lasts_one_second_longer_than_an_attempt(world: World) -> None:
    [process] = await world.processes(1)
    await process.fail()
    await world.clock.advance(OPENED)
    world.vendor.hangs = asyncio.Event()

    async with asyncio.TaskGroup() as calls:
        calls.create_task(process.call())
        await world.clock.advance(0)
        assert await world.store.memory.leases.acquire("circuit:weather:", owner="other", ttl=1) is None
        assert process.state is HALF_OPEN
        await world.clock.advance(2.5)
    await world.clock.advance(1.5)

    assert await world.store.memory.leases.acquire("circuit:weather:", owner="other", ttl=1) is not None


async def test_a_lease_is_kept_while_a_probe_runs_however_long(world: World) -> None:
    patient = Policy(retry=None, timeout=None, breaker=POLICY.breaker)
    first, second = await world.processes(2, patient)
    for each in (first, second):
        await each.fail()
    await world.clock.advance(OPENED)
    world.vendor.hangs = asyncio.Event()

    async with asyncio.TaskGroup() as calls:
        calls.create_task(first.call())
        for _ in range(5):
            await world.clock.advance(40)
            assert not await second.call()
        world.vendor.hangs.set()

    await world.clock.advance(1)
    assert states([first, second]) == [CLOSED, CLOSED]


async def test_a_process_without_calls_passes_the_lease_on(world: World) -> None:
    first, second = await world.processes(2)
    for each in (first, second):
        await each.fail()
    await world.clock.advance(OPENED)
    await first.call_and_cancel()
    assert not await second.call()

    await world.clock.advance(1.5)

    assert await second.call()


async def test_however_rare_calls_are_the_first_after_the_open_period_probes(world: World) -> None:
    first, second = await world.processes(2)
    for each in (first, second):
        await each.fail()
    await world.clock.advance(120)

    assert await second.call()


async def test_probes_that_passed_do_not_close_what_has_failed_since(world: World) -> None:
    first, second = await world.processes(2)
    await first.fail()
    await world.clock.advance(OPENED)
    await first.call()
    await world.clock.advance(0.001)

    await second.fail()
    await world.clock.advance(3)

    assert second.state is OPEN


async def test_while_one_process_probes_the_state_of_the_others_stays(world: World) -> None:
    first, second = await world.processes(2, Policy(retry=None, timeout=20.0, breaker=POLICY.breaker))
    for each in (first, second):
        await each.fail()
    await world.clock.advance(OPENED)
    await first.call_and_cancel()
    assert first.state is HALF_OPEN
    await world.clock.advance(1.5)
    world.vendor.hangs = asyncio.Event()
    told = len(first.signals)

    async with asyncio.TaskGroup() as calls:
        calls.create_task(second.call())
        await world.clock.advance(5)
        assert first.state is HALF_OPEN
        assert not any(isinstance(each, CircuitChanged) for each in first.signals[told:])
        world.vendor.hangs.set()


async def test_threads_wait_for_the_election_too(world: World) -> None:
    store = world.store.memory
    guards = [Guard("weather", Policy(breaker=Breaker(open_for=0.05, consecutive=1))) for _ in range(2)]
    called: list[int] = []
    async with Fleet(store, guards[:1]), Fleet(store, guards[1:]):
        for each in guards:
            with suppress(CallFailed):
                await each.once(fail)
        await asyncio.to_thread(_until_due, guards)

        results = await asyncio.gather(
            *(asyncio.to_thread(_call_in_thread, each, called) for each in guards for _ in range(5))
        )

    assert sum(results) == len(called) >= 1
    assert len(set(called)) == 1


def _until_due(guards: list[Guard]) -> None:
    while any(each.shut_for("call") is not None for each in guards):
        pass


def _call_in_thread(guard: Guard, called: list[int]) -> bool:
    try:
        guard.sync.read(called.append, id(guard))
    except NotSent:
        return False
    return True


async def fail() -> None:
    raise OutcomeUnknown("down", hard=True)


# The store.


async def test_no_call_asks_the_store(world: World) -> None:
    [process] = await world.processes(1)
    world.store.asked.clear()

    await process.succeed(500)
    await process.fail(5)
    for _ in range(500):
        await process.call()
    asked = list(world.store.asked)
    await world.clock.advance(3)

    assert world.vendor.calls == 0
    assert set(asked) <= {"publish"}
    assert len(asked) <= 1  # told at once, in the background, that it opened
    assert len(world.store.asked) <= 5


async def test_an_idle_process_writes_once_a_second(world: World) -> None:
    await world.processes(1)
    world.store.asked.clear()

    await world.clock.advance(60)

    assert set(world.store.asked) == {"publish"}
    assert 55 <= len(world.store.asked) <= 60


async def test_a_storm_of_news_is_told_four_times_a_second_at_most(world: World) -> None:
    [process] = await world.processes(1)
    world.store.asked.clear()

    for _ in range(100):
        process.guard.isolate("flapping")
        process.guard.automatic()
        await world.clock.advance(0.1)

    assert len(world.store.asked) <= 42


@pytest.mark.parametrize("how", ["down", "silent"])
async def test_while_the_store_fails_each_process_decides_alone(world: World, how: str) -> None:
    processes = await world.processes(3)
    setattr(world.store, how, True)
    await world.clock.advance(5)

    for each in processes[:2]:
        await each.fail()
    await world.clock.advance(OPENED)

    assert [each.fleet.state for each in processes] == ["degraded"] * 3
    assert [each.guard.snapshot().shared_state for each in processes] == ["degraded"] * 3
    assert processes[2].state is CLOSED
    before = len(world.store.asked)
    assert [await each.call() for each in processes] == [True] * 3
    assert world.store.asked[before:].count("acquire") == 0


@pytest.mark.parametrize("how", ["down", "silent"])
async def test_a_store_that_has_just_failed_delays_a_probe_by_a_tenth_of_a_second(world: World, how: str) -> None:
    [process] = await world.processes(1)
    await process.fail()
    await world.clock.advance(OPENED)
    setattr(world.store, how, True)

    probe = asyncio.ensure_future(process.call())
    await world.clock.advance(0.15)

    assert probe.done()
    assert probe.result()


async def test_what_others_said_is_dropped_when_the_store_fails(world: World) -> None:
    processes = await world.processes(3)
    await processes[0].fail()
    await world.clock.advance(0.9)
    world.store.down = True
    await world.clock.advance(3.2)
    assert processes[1].fleet.state == "degraded"

    await processes[1].fail(1)
    await world.clock.advance(1)

    assert states(processes) == [OPEN, CLOSED, CLOSED]


async def test_who_cannot_be_heard_does_not_listen_either(world: World) -> None:
    [process] = await world.processes(1)
    world.store.down = True
    await world.clock.advance(5)

    for sender in ("a", "b"):
        await world.store.memory.bus.publish(TOPIC, fact(sender).to_json())
    await world.clock.advance(1)

    assert process.state is CLOSED


async def test_they_find_one_another_again(world: World) -> None:
    processes = await world.processes(3)
    world.store.down = True
    await world.clock.advance(60)
    world.store.down = False

    await world.clock.advance(6)
    await processes[0].fail()
    await processes[1].fail()
    await world.clock.advance(0.5)

    assert [each.fleet.state for each in processes] == ["ok"] * 3
    assert states(processes) == [OPEN] * 3
    told = [(each.state, each.severity) for each in processes[2].signals if isinstance(each, SharedStateChanged)]
    assert told == [("degraded", logging.WARNING), ("ok", logging.DEBUG)]


async def test_a_store_that_fails_is_asked_less_and_less(world: World) -> None:
    await world.processes(1)
    world.store.down = True
    await world.clock.advance(30)
    world.store.asked.clear()

    await world.clock.advance(60)

    assert 10 <= len(world.store.asked) <= 13


async def test_a_store_that_loses_every_fact_counts_as_failing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    [process] = await world.processes(1)

    async def lose(topic: str, fact: Mapping[str, Json]) -> None: ...

    monkeypatch.setattr(world.store.memory.bus, "publish", lose)
    await world.clock.advance(4)

    assert process.fleet.state == "degraded"


# Holds.


async def throttle(process: Process, credential: str, seconds: float) -> None:
    async def throttled() -> None:
        raise Throttled("slow down", status=429, retry_after=seconds)

    with suppress(CallFailed):
        await process.guard.run(throttled, effect=Effect.READ, operation="call", credential=credential, deadline=1)


async def test_a_hold_is_shared_at_once(world: World) -> None:
    first, second = await world.processes(2)
    await world.clock.advance(0.3)

    await throttle(first, "old", 30)
    await world.clock.advance(0)

    assert second.guard.snapshot().holds == {"old": 30}
    with pytest.raises(OnHold):
        await second.guard.run(world.vendor, effect=Effect.READ, operation="call", credential="old", deadline=1)
    await second.guard.run(world.vendor, effect=Effect.READ, operation="call", credential="new")


async def test_a_hold_of_another_process_only_extends_ours(world: World) -> None:
    [process] = await world.processes(1)
    await throttle(process, "key", 60)

    for number, seconds in enumerate((5, 0, 90)):
        said = Fact(sender="a", number=number, holds={("weather", "key"): seconds})
        await world.store.memory.bus.publish(TOPIC, said.to_json())
        await world.clock.advance(0)
        assert process.guard.snapshot().holds == {"key": max(60, seconds)}


async def test_a_rotated_credential_goes_on_everywhere(world: World) -> None:
    first, second = await world.processes(2)
    await throttle(first, "key", 60)
    await world.clock.advance(1)

    second.guard.release("key")
    await world.clock.advance(5)

    assert first.guard.snapshot().holds == {}


async def test_a_hold_ends_on_its_own_clock_whatever_the_wall_clock_says(world: World) -> None:
    first, second = await world.processes(2)
    await throttle(first, "key", 30)
    await world.clock.advance(1)

    world.clock.jump(86_400)
    assert second.guard.snapshot().holds["key"] == pytest.approx(29, abs=0.1)
    world.clock.jump(-2 * 86_400)

    assert second.guard.snapshot().holds["key"] == pytest.approx(29, abs=0.1)


# What is said.


def report(**facts: Any) -> Report:
    said: dict[str, Any] = {
        "generation": 2,
        "calls": 5,
        "failures": 5,
        "slow": 0,
        "closed": False,
        "failing": True,
        "opened": 0.5,
        "left": 4.25,
        "reopened": 1,
        "passed": None,
    }
    return Report(**said | facts)


def fact(sender: str = "a", number: int = 1, **facts: Any) -> Fact:
    return Fact(sender=sender, number=number, reports={("weather", ""): report(**facts)})


def test_a_fact_reads_back_as_it_was_written() -> None:
    said = Fact(
        sender="a",
        number=7,
        reports={("weather", ""): report(), ("weather", "pay"): report(closed=True, failing=False, passed=1.5)},
        holds={("weather", "key"): 2.5},
        released=(("weather", "old"),),
    )

    assert reports.read(said.to_json()) == said


def test_what_a_later_version_adds_is_ignored() -> None:
    written = fact().to_json() | {"weather": "fine"}
    written["circuits"][0][2]["colour"] = "red"  # type: ignore[index, call-overload]  # a list of lists

    assert reports.read(written) == fact()


@pytest.mark.parametrize(
    "changed",
    [{"v": 2}, {"from": ""}, {"from": "x" * 1000}, {"from": 3}, {"n": -1}, {"n": "1"}, {"n": True}, {"n": 10**40}],
)
def test_what_is_no_fact_is_ignored(changed: dict[str, Any]) -> None:
    assert reports.read(fact().to_json() | changed) is None


@pytest.mark.parametrize("name", ["g", "calls", "failures", "slow", "closed", "failing", "opened", "left", "passed"])
@pytest.mark.parametrize("nonsense", ["x", -1, 1.5, 10**30, [], {}])
def test_a_report_with_nonsense_is_ignored_and_the_rest_is_not(name: str, nonsense: Any) -> None:
    said = Fact(sender="a", number=1, reports={("weather", ""): report(), ("weather", "pay"): report()})
    written = said.to_json()
    written["circuits"][0][2][name] = nonsense  # type: ignore[index, call-overload]

    found = reports.read(written)

    assert found is not None
    assert set(found.reports) == {("weather", "pay")}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(rows=st.fixed_dictionaries(dict.fromkeys(("circuits", "holds", "released"), JSON)))
def test_whatever_stands_in_a_fact_reading_it_does_not_fail(rows: dict[str, Any]) -> None:
    found = reports.read({"v": 1, "from": "a", "n": 1} | rows)

    assert found is not None
    assert len(found.reports) + len(found.holds) + len(found.released) <= 300


def test_a_fact_stays_small_and_tells_of_trouble_first() -> None:
    known = {("weather", f"{number:0200}"): report(closed=True, failing=False, left=0.0) for number in range(1000)}
    said = Fact(sender="a", number=1, reports=known | {("weather", "pay"): report()}).to_json()

    circuits = said["circuits"]
    assert isinstance(circuits, list)
    assert len(circuits) == MOST_CIRCUITS
    assert circuits[0][1] == "pay"  # type: ignore[index]


def test_of_a_flood_of_processes_a_bounded_number_is_remembered() -> None:
    known = Reports()
    for number in range(3 * MOST_PROCESSES):
        if known.is_news(fact(str(number)), 0.0):
            known.keep(str(number), ("weather", ""), report(), 0.0)

    assert known.tally(("weather", ""), 0.0, 0.0).reporting == MOST_PROCESSES
    known.forget(10.0)
    assert known.is_news(fact("another"), 10.0)


def test_who_fell_silent_is_forgotten() -> None:
    known = Reports()
    known.is_news(fact(), 0.0)
    known.keep("a", ("weather", ""), report(), 0.0)

    known.forget(3.0)
    assert known.tally(("weather", ""), -9.0, 3.0).failing == 1
    known.forget(4.0)

    assert known.tally(("weather", ""), -9.0, 4.0).failing == 0
    assert not known.trouble()


async def test_a_fact_that_comes_late_or_twice_is_ignored(world: World) -> None:
    [process] = await world.processes(1)
    publish = world.store.memory.bus.publish
    for sender in ("a", "b"):
        await publish(TOPIC, fact(sender, 9, closed=True, failing=False).to_json())
        await publish(TOPIC, fact(sender, 8).to_json())
        await publish(TOPIC, fact(sender, 9).to_json())
    await world.clock.advance(0.5)

    assert process.state is CLOSED

    for sender in ("a", "b"):
        await publish(TOPIC, fact(sender, 10).to_json())
    await world.clock.advance(0.5)

    assert process.state is OPEN


async def test_garbage_and_floods_change_nothing(world: World) -> None:
    [process] = await world.processes(1)
    for number in range(2000):
        await world.store.memory.bus.publish(TOPIC, {"v": 1, "from": f"{number}", "n": number, "circuits": [[number]]})
        await world.store.memory.bus.publish(TOPIC, {"number": number})
        await world.store.memory.bus.publish(TOPIC, fact("a", number).to_json() | {"from": None})
    await world.clock.advance(2)

    await process.succeed()

    assert process.state is CLOSED
    assert process.fleet.state == "ok"


async def test_a_flood_leaves_turns_to_others(world: World) -> None:
    [process] = await world.processes(1)
    for number in range(500):
        said = Fact(sender="a", number=number, holds={("weather", f"{number}"): 60})
        await world.store.memory.bus.publish(TOPIC, said.to_json())

    turns = 0
    while len(process.guard.snapshot().holds) < 500:
        turns += 1
        await asyncio.sleep(0)

    assert turns > 250


# A fleet's life.


async def test_guards_of_other_names_are_apart(world: World) -> None:
    weather, news = Guard("weather", POLICY, clock=world.clock), Guard("news", POLICY, clock=world.clock)
    async with Fleet(world.store, [weather, news], clock=world.clock):
        await world.clock.advance(1)
        for sender in ("a", "b"):
            await world.store.memory.bus.publish(TOPIC, fact(sender).to_json())
        await world.clock.advance(1)

        assert weather.snapshot().circuits[""].state is OPEN
        assert news.snapshot().circuits[""].state is CLOSED


async def test_two_guards_of_one_name_are_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="two guards are named weather"):
        Fleet(world.store, [Guard("weather"), Guard("weather")])


async def test_circuits_of_operations_are_shared_each_for_itself(world: World) -> None:
    first, second, third = await world.processes(3)
    for each in (first, second, third):
        await each.guard.once(asyncio.sleep, 0)
    await world.clock.advance(1)

    for each in (first, second):
        for _ in range(5):
            with suppress(CallFailed):
                await each.guard.run(fail, effect=Effect.ONCE, operation="sleep")
        each.guard.close("the provider is well")
    await world.clock.advance(1)

    circuits = third.guard.snapshot().circuits
    assert (circuits[""].state, circuits["sleep"].state) == (CLOSED, OPEN)


async def test_after_its_end_a_guard_goes_on_alone_and_others_may_probe_at_once(world: World) -> None:
    first, second = Process(world, 0, POLICY), Process(world, 1, POLICY)
    async with second.fleet:
        async with first.fleet:
            for each in (first, second):
                await each.fail()
            await world.clock.advance(OPENED)
            world.vendor.down = True
            await first.call()
        assert await world.store.memory.leases.acquire("circuit:weather:", owner="other", ttl=0.1) is not None
        pending = world.clock.pending
        assert first.guard.snapshot().shared_state is None
        world.vendor.down = False
        await world.clock.advance(30)

        assert await first.call()
        assert await second.call()
        assert world.clock.pending <= pending


async def test_the_error_of_the_block_is_the_callers_own(world: World) -> None:
    fleet = Fleet(world.store, [Guard("weather", clock=world.clock)], clock=world.clock)

    with pytest.raises(KeyError):
        async with fleet:
            raise KeyError

    async with fleet:  # once more
        await world.clock.advance(2)
        assert fleet.state == "ok"


class Named:
    name = "weather"


@pytest.mark.parametrize(
    ("store", "fleet", "state"), [("sqlite", True, "ok"), ("sqlite", False, None), ("memory", True, None)]
)
async def test_a_hub_shares_its_circuits_where_its_store_outlives_it(
    tmp_path: Path, store: str, fleet: bool, state: str | None
) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/holdfast.db"
    async with Runtime(url, fleet=fleet) as runtime:
        assert runtime.guard(Named()).snapshot().shared_state == state


# Real processes.


@pytest.mark.parametrize("engine", ["redis", "sqlite"])
async def test_eight_real_processes_send_one_probe_and_recover_together(
    engine: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    store = f"{redis_server.store_url}&namespace=fleet" if engine == "redis" else f"sqlite:///{tmp_path}/holdfast.db"
    async with LoopbackVendor().serve() as vendor, callers(8, store, vendor) as fleet:
        await opened(fleet)
        await asyncio.gather(*(each.order("call 20") for each in fleet))
        assert vendor.calls == 1

        vendor.down = False
        await asyncio.sleep(2 * OPEN_FOR)
        while vendor.calls == 1:
            await asyncio.gather(*(each.order("call 1") for each in fleet))
        async with asyncio.timeout(60):
            while await asyncio.gather(*(each.order("look") for each in fleet)) != ["closed"] * 8:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
