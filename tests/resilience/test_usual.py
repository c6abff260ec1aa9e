"""The usual path and the careful one: the same promises, the same signals, and nothing left behind."""

import asyncio
import gc
import pickle
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from holdfast import telemetry
from holdfast.errors import (
    BulkheadFull,
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    CredentialRefused,
    NotSent,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.call import Call
from holdfast.resilience.context import deadline_scope, priority, remaining, surroundings, transaction
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Concurrency, Policy, Priority, Rate, Retry
from holdfast.telemetry import (
    AttemptFailed,
    CallFinished,
    CallRejected,
    CircuitChanged,
    RetryDenied,
    RetryScheduled,
    Signal,
    Telemetry,
)
from holdfast.testing.clock import ManualClock
from tests.resilience.virtual import LoopClock, play

Exchange = Callable[[], Awaitable[object]]
Way = Callable[[Guard, Exchange, Effect], Coroutine[Any, Any, object]]
ONE = Policy(retry=None)
AT_ONCE = Retry(base=0, throttled_base=0, cap=0)


async def usual(guard: Guard, exchange: Exchange, effect: Effect = Effect.READ) -> object:
    @guard.guarded(Effect.IDEMPOTENT if effect is Effect.KEYED else effect, operation="fetch")
    async def fetch() -> object:
        return await exchange()

    return await fetch()


async def careful(guard: Guard, exchange: Exchange, effect: Effect = Effect.READ) -> object:
    return await guard.run(exchange, effect=effect, operation="fetch")


both_ways = pytest.mark.parametrize("way", [usual, careful])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def raising(error: BaseException) -> Exchange:
    async def exchange() -> object:
        raise error

    return exchange


async def answer() -> str:
    return "answer"


def unleaked(guard: Guard) -> None:
    """Nothing is held any more."""
    seen = guard.snapshot()
    assert seen.running == 0
    if seen.concurrency is not None:
        assert (seen.concurrency.in_use, seen.concurrency.waiting) == (0, 0)
    for rate in seen.rates:
        assert rate.waiting == 0
    for circuit in guard.circuits().values():
        assert not circuit._leases


# Signals.


async def failing_twice(guard: Guard, way: Way, clock: ManualClock) -> None:
    script: list[object] = [NotSent("dns", hard=True), OutcomeUnknown("reset", reason="reset"), "answer"]

    async def exchange() -> object:
        said = script.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    await way(guard, exchange, Effect.READ)


async def refused_for_good(guard: Guard, way: Way, clock: ManualClock) -> None:
    with pytest.raises(Rejected):
        await way(guard, raising(Rejected("404", status=404)), Effect.ONCE)


async def unsafe(guard: Guard, way: Way, clock: ManualClock) -> None:
    with pytest.raises(OutcomeUnknown):
        await way(guard, raising(OutcomeUnknown("reset")), Effect.ONCE)


async def own_error(guard: Guard, way: Way, clock: ManualClock) -> None:
    with pytest.raises(ZeroDivisionError):
        await way(guard, raising(ZeroDivisionError()), Effect.ONCE)


async def cancelled(guard: Guard, way: Way, clock: ManualClock) -> None:
    with pytest.raises(asyncio.CancelledError):
        await way(guard, raising(asyncio.CancelledError()), Effect.ONCE)


async def opening(guard: Guard, way: Way, clock: ManualClock) -> None:
    for _ in range(5):
        with pytest.raises(OutcomeUnknown):
            await way(guard, raising(OutcomeUnknown("500", status=500, hard=True)), Effect.ONCE)
    with pytest.raises(CircuitOpen):
        await way(guard, answer, Effect.ONCE)


async def slow(guard: Guard, way: Way, clock: ManualClock) -> None:
    async def exchange() -> None:
        clock.pause(2)

    for _ in range(20):
        await way(guard, exchange, Effect.READ)


Happening = Callable[[Guard, Way, ManualClock], Awaitable[None]]


@both_ways
@pytest.mark.parametrize(
    ("happening", "kinds"),
    [
        (failing_twice, [AttemptFailed, RetryScheduled, AttemptFailed, RetryScheduled, CallFinished]),
        (refused_for_good, [AttemptFailed, CallFinished]),
        (unsafe, [AttemptFailed, RetryDenied, CallFinished]),
        (own_error, [CallFinished]),
        (cancelled, [CallFinished]),
        (
            opening,
            [AttemptFailed, RetryDenied, CallFinished] * 4
            + [CircuitChanged, CircuitChanged, AttemptFailed, RetryDenied, CallFinished, CallRejected, CallFinished],
        ),
        (slow, [CallFinished] * 19 + [CircuitChanged, CallFinished]),
    ],
)
async def test_each_happening_is_told_once_and_in_order(
    clock: ManualClock, way: Way, happening: Happening, kinds: list[type[Signal]]
) -> None:
    told: list[Signal] = []
    policy = Policy(retry=AT_ONCE, breaker=Breaker(slow_after=1, window=60))

    await happening(Guard("vendor", policy, clock=clock, telemetry=Telemetry([told.append])), way, clock)

    assert [type(signal) for signal in told] == kinds


@pytest.mark.parametrize("happening", [failing_twice, refused_for_good, unsafe, own_error, opening, slow])
async def test_both_ways_tell_the_same(happening: Happening) -> None:
    told: dict[Way, list[Signal]] = {usual: [], careful: []}
    for way, signals in told.items():
        clock = ManualClock()
        guard = Guard(
            "vendor",
            Policy(retry=AT_ONCE, breaker=Breaker(slow_after=1, window=60)),
            clock=clock,
            random=Random(1),
            telemetry=Telemetry([signals.append]),
        )
        await happening(guard, way, clock)

    assert told[usual] == told[careful]


@both_ways
@pytest.mark.parametrize("happening", [failing_twice, refused_for_good, unsafe, own_error, opening, slow])
async def test_nothing_is_made_to_be_told_where_nobody_listens(
    clock: ManualClock, way: Way, happening: Happening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object) -> object:
        raise AssertionError("a signal was made")

    for kind in vars(telemetry).values():
        if isinstance(kind, type) and issubclass(kind, Signal):
            monkeypatch.setattr(kind, "__init__", made)

    guard = Guard("vendor", Policy(retry=AT_ONCE, breaker=Breaker(slow_after=1, window=60)), clock=clock)
    await happening(guard, way, clock)

    assert sum(guard.snapshot().operations["fetch"].outcomes.values()) > 0


@both_ways
async def test_a_listener_that_joins_later_hears_of_the_very_next_call(way: Way) -> None:
    told: list[Signal] = []
    listeners = Telemetry()
    guard = Guard("vendor", telemetry=listeners)
    await way(guard, answer, Effect.READ)

    listeners.add(told.append)
    await way(guard, answer, Effect.READ)

    assert [type(signal) for signal in told] == [CallFinished]


@both_ways
async def test_a_listener_may_look_at_the_guard_and_call_through_it(way: Way, clock: ManualClock) -> None:
    seen: list[object] = []
    listening = False

    def listen(signal: Signal) -> None:
        nonlocal listening
        if listening:  # to what it does itself
            return
        listening = True
        seen.append(guard.snapshot())
        try:
            seen.append(guard.sync.read(lambda: "answer"))
        except CallFailed as error:
            seen.append(error)
        listening = False

    policy = Policy(retry=AT_ONCE, deadline=5, concurrency=1, breaker=Breaker(slow_after=1, window=60))
    guard = Guard("vendor", policy, clock=clock, telemetry=Telemetry([listen]))
    for happening in (slow, failing_twice, unsafe):
        guard.close("anew")
        await happening(guard, way, clock)

    assert len(seen) > 50
    assert not any(isinstance(each, BulkheadFull) for each in seen)
    assert clock.monotonic() < 50  # none of them waited for a place
    unleaked(guard)


# By hand.


@pytest.mark.parametrize("effect", [Effect.READ, Effect.ONCE])
async def test_what_is_set_by_hand_holds_for_the_very_next_call(clock: ManualClock, effect: Effect) -> None:
    guard = Guard("vendor", ONE, clock=clock)
    assert await usual(guard, answer, effect) == "answer"

    guard.isolate("broken")
    with pytest.raises(CircuitOpen, match="broken"):
        await usual(guard, answer, effect)
    guard.automatic()
    assert await usual(guard, answer, effect) == "answer"
    guard.metrics_only("watched")
    for _ in range(30):
        with pytest.raises(OutcomeUnknown):
            await usual(guard, raising(OutcomeUnknown("500", hard=True)), Effect.READ)
    guard.close("well")
    assert await usual(guard, answer, effect) == "answer"

    assert guard.snapshot().circuits[""].failures == 0


async def test_an_operations_circuit_by_hand_stops_writes_of_that_operation(clock: ManualClock) -> None:
    guard = Guard("vendor", ONE, clock=clock)
    assert await usual(guard, answer, Effect.ONCE) == "answer"

    guard.isolate("broken", operation="fetch")

    with pytest.raises(CircuitOpen):
        await usual(guard, answer, Effect.ONCE)
    assert await usual(guard, answer, Effect.READ) == "answer"
    assert await guard.once(answer) == "answer"


async def test_an_operation_that_was_read_first_has_a_circuit_of_its_own_when_it_is_written(
    clock: ManualClock,
) -> None:
    guard = Guard("vendor", ONE, clock=clock)
    await guard.read(answer)

    await guard.once(answer)

    assert sorted(guard.snapshot().circuits) == ["", "answer"]


async def test_an_isolation_that_ends_by_itself_is_over_for_the_next_call(clock: ManualClock) -> None:
    guard = Guard("vendor", ONE, clock=clock)
    guard.isolate("break", ttl=5)
    with pytest.raises(CircuitOpen):
        await guard.read(answer)

    await clock.advance(5)

    assert await guard.read(answer) == "answer"
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


@both_ways
async def test_a_result_from_before_the_circuit_was_closed_by_hand_says_nothing(way: Way, clock: ManualClock) -> None:
    guard = Guard("vendor", Policy(retry=None, breaker=Breaker(consecutive=1)), clock=clock)

    async def exchange() -> None:
        await clock.sleep(1)
        raise OutcomeUnknown("500", hard=True)

    task = asyncio.create_task(way(guard, exchange, Effect.READ))
    await clock.advance(0)
    guard.close("anew")
    await clock.advance(1)

    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], OutcomeUnknown)
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


async def test_the_rejection_of_an_open_circuit_says_all_there_is_to_say(clock: ManualClock) -> None:
    guard = Guard("vendor", Policy(retry=None, breaker=Breaker(consecutive=1)), clock=clock)
    with pytest.raises(OutcomeUnknown):
        await usual(guard, raising(OutcomeUnknown("500", hard=True)))

    with pytest.raises(CircuitOpen) as by_usual:
        await usual(guard, answer)
    with pytest.raises(CircuitOpen) as by_careful:
        await careful(guard, answer)

    error = by_usual.value
    assert str(error) == str(by_careful.value)
    assert vars(error) == vars(by_careful.value)
    assert str(error).startswith("vendor: circuit open (1 hard failures in a row), fetch was not sent; ask again in ")
    assert error.retry_after is not None
    assert error.retry_after > 0
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


# Exceptions.


@both_ways
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, KeyError])
async def test_an_exception_of_the_callers_own_passes_as_it_is_and_all_is_given_back(
    way: Way, kind: type[BaseException], clock: ManualClock
) -> None:
    guard = Guard("vendor", Policy(rate=Rate(5), concurrency=1, timeout=5), clock=clock)
    raised, outer = kind("mine"), surroundings.get()

    async def call() -> object:  # in no task of its own: asyncio lets KeyboardInterrupt and SystemExit end the loop
        try:
            return await way(guard, raising(raised), Effect.ONCE)
        except BaseException as error:
            return error

    assert await call() is raised

    assert raised.__cause__ is None
    assert raised.__context__ is None
    assert surroundings.get() is outer
    unleaked(guard)


@both_ways
@pytest.mark.parametrize("kind", [KeyError, Rejected])
async def test_a_traceback_names_each_frame_once(way: Way, kind: type[Exception], clock: ManualClock) -> None:
    with pytest.raises(kind) as caught:
        await way(Guard("vendor", clock=clock), raising(kind("no")), Effect.READ)

    frames = [(frame.filename, frame.name) for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert len(frames) == len(set(frames))
    assert frames[-1][1] == "exchange"


@both_ways
async def test_a_classified_exception_is_the_cause_and_nothing_hides_it(way: Way, clock: ManualClock) -> None:
    origin = ConnectionResetError("reset")

    with pytest.raises(OutcomeUnknown) as caught:
        await way(Guard("vendor", clock=clock), raising(origin), Effect.ONCE)

    assert caught.value.__cause__ is origin
    assert "exchange" in "".join(traceback.format_exception(caught.value))


def failing(error: Callable[[], Exception]) -> Callable[[Guard], Awaitable[object]]:
    async def exchange() -> None:
        raise error()

    return lambda guard: usual(guard, exchange)


async def unknown() -> None:
    raise OutcomeUnknown("reset")


async def reset() -> None:
    raise OSError("reset")


async def by_attempt(guard: Guard) -> None:
    async with guard.attempt():
        raise OSError("reset")


async def by_sync_attempt(guard: Guard) -> None:
    with guard.sync.attempt():
        raise OSError("reset")


async def by_sync(guard: Guard) -> None:
    def exchange() -> None:
        raise OSError("reset")

    guard.sync.read(exchange)


async def by_run(guard: Guard) -> None:
    await careful(guard, reset)


async def by_rejection(guard: Guard) -> None:
    guard.isolate("broken")
    await asyncio.create_task(usual(guard, answer))


async def by_gather(guard: Guard) -> None:
    await asyncio.gather(usual(guard, unknown), usual(guard, unknown), return_exceptions=True)


async def by_timeout(guard: Guard) -> None:
    await guard.read(asyncio.sleep, 1000)


async def by_task(guard: Guard) -> None:
    await asyncio.create_task(guard.read(unknown))


async def by_careful_task(guard: Guard) -> None:
    await asyncio.create_task(guard.run(unknown, effect=Effect.READ, operation="fetch"))


async def in_doubt(guard: Guard) -> None:
    script: list[Exception] = [OutcomeUnknown("reset"), Throttled("429", retry_after=1e6)]

    async def exchange() -> None:
        raise script.pop(0)

    await guard.keyed("key", exchange)


@pytest.mark.parametrize(
    "fail",
    [
        failing(lambda: OutcomeUnknown("reset")),
        failing(lambda: ValueError("mine")),
        failing(lambda: OSError("reset")),
        by_attempt,
        by_sync_attempt,
        by_sync,
        by_run,
        by_rejection,
        by_gather,
        by_timeout,
        by_task,
        by_careful_task,
        in_doubt,
    ],
)
def test_a_failed_call_leaves_no_garbage(fail: Callable[[Guard], Awaitable[object]]) -> None:
    async def main() -> int:
        breaker = Breaker(consecutive=100_000, minimum_calls=100_000)
        guard = Guard("vendor", Policy(retry=AT_ONCE, budget=None, timeout=1, breaker=breaker), clock=LoopClock())
        gc.collect()
        gc.disable()
        try:
            for _ in range(1000):
                with suppress(Exception):  # whatever it is, what it leaves behind is counted
                    await fail(guard)
            return gc.collect()
        finally:
            gc.enable()

    assert play(main()) == 0


@both_ways
async def test_a_classifier_that_breaks_costs_no_place(way: Way, clock: ManualClock) -> None:
    def broken(error: BaseException) -> CallFailed | None:
        raise RuntimeError("a bug in the classifier")

    guard = Guard("vendor", Policy(concurrency=1, rate=Rate(9)), clock=clock, classify=broken)

    for _ in range(3):
        with pytest.raises(RuntimeError, match="a bug"):
            await way(guard, raising(KeyError()), Effect.READ)

    unleaked(guard)
    assert guard.snapshot().operations["fetch"].outcomes == {"error": 3}


@both_ways
async def test_a_strategy_that_breaks_ends_the_call_and_that_is_counted(way: Way, clock: ManualClock) -> None:
    def broken(state: object) -> float:
        raise RuntimeError("a bug in the strategy")

    guard = Guard("vendor", Policy(retry=Retry(wait=broken), concurrency=1), clock=clock)

    with pytest.raises(RuntimeError, match="a bug"):
        await way(guard, raising(OutcomeUnknown("reset")), Effect.READ)

    unleaked(guard)
    assert guard.snapshot().operations["fetch"].outcomes == {"error": 1}


@both_ways
async def test_a_classifier_of_ones_own_has_no_say_in_what_the_guard_rejects(way: Way, clock: ManualClock) -> None:
    def mine(error: BaseException) -> CallFailed | None:
        return OutcomeUnknown("reset", hard=True) if isinstance(error, KeyError) else None

    guard = Guard("vendor", Policy(retry=AT_ONCE, breaker=Breaker(consecutive=1)), clock=clock, classify=mine)

    with pytest.raises(OutcomeUnknown, match="earlier attempt") as caught:
        await way(guard, raising(KeyError()), Effect.IDEMPOTENT)

    assert isinstance(caught.value.__cause__, CircuitOpen)
    assert guard.snapshot().operations["fetch"].outcomes == {"unknown": 1}


# Surroundings.


@both_ways
async def test_what_surrounded_a_call_surrounds_its_caller_again(way: Way, clock: ManualClock) -> None:
    guard = Guard("vendor", Policy(deadline=3, retry=AT_ONCE), clock=clock)

    with deadline_scope(50, clock), priority(Priority.BULK):
        outer = surroundings.get()
        for exchange in (answer, raising(OutcomeUnknown("reset")), raising(KeyError())):
            with suppress(OutcomeUnknown, KeyError):
                await way(guard, exchange, Effect.READ)
            assert surroundings.get() is outer


@both_ways
async def test_inside_a_call_the_sooner_deadline_holds(way: Way, clock: ManualClock) -> None:
    async def look() -> float:
        return remaining(clock)

    guard = Guard("vendor", Policy(deadline=9, timeout=5), clock=clock)

    assert await way(guard, look, Effect.READ) == 9
    with deadline_scope(7, clock):
        assert await way(guard, look, Effect.READ) == 7
    with deadline_scope(2, clock):
        assert await way(guard, look, Effect.READ) == 2


@both_ways
async def test_no_call_is_made_inside_a_transaction(way: Way, clock: ManualClock) -> None:
    guard = Guard("vendor", clock=clock)
    guard.isolate("even then")

    with transaction(), pytest.raises(CallInsideTransaction):
        await way(guard, answer, Effect.READ)


# Loops.


def test_loops_one_after_the_other_keep_time_limits_and_leave_nothing() -> None:
    guard = Guard("vendor", Policy(retry=None, timeout=1), clock=LoopClock())

    async def main() -> None:
        with pytest.raises(OutcomeUnknown):
            await guard.read(asyncio.sleep, 5)
        await guard.read(asyncio.sleep, 0.5)
        left = asyncio.create_task(guard.read(asyncio.sleep, 0.7))  # the loop ends first
        await asyncio.sleep(0)
        assert not left.done()
        assert guard._shared.calm

    for _ in range(3):
        play(main())

    assert len(guard._lines) == 1


# Cancellation.


RUNS, TASKS = 100, 100


class Storm:
    """Calls of every kind, cancelled anywhere."""

    def __init__(self, guard: Guard, random: Random) -> None:
        self.guard, self.random = guard, random
        self.inner = Guard("inner", Policy(deadline=4, concurrency=30), clock=LoopClock())

    async def exchange(self) -> object:
        random = self.random
        match random.randrange(8):
            case 0:
                return "answer"
            case 1:
                raise OutcomeUnknown("500", status=500, hard=True)
            case 2:
                raise Throttled("429", retry_after=random.uniform(0, 0.5))
            case 3:
                raise CredentialRefused("401")
            case 4:
                raise KeyError("mine")
            case 5:
                return await self.inner.read(asyncio.sleep, random.uniform(0, 2))
            case _:
                await asyncio.sleep(random.uniform(0, 3))
                return "late"

    async def refresh(self) -> None:
        await asyncio.sleep(self.random.uniform(0, 1))

    async def call(self) -> object:
        guard, random = self.guard, self.random
        outer = surroundings.get()
        try:
            with priority(random.choice(list(Priority))):
                match random.randrange(5):
                    case 0:
                        return await guard.read(self.exchange)
                    case 1:
                        return await guard.once(self.exchange)
                    case 2:
                        return await guard.run(
                            self.exchange,
                            effect=random.choice(list(Effect)),
                            operation="run",
                            refresh=self.refresh,
                            credential=random.choice("abc"),
                        )
                    case 3:
                        async with guard.attempt():
                            return await self.exchange()
                    case _:
                        return await self.stream()
        finally:
            assert surroundings.get() is outer

    async def stream(self) -> object:
        value, call = await self.guard.open(self.exchange, effect=Effect.READ, operation="stream", repeat=True)
        try:
            await asyncio.sleep(self.random.uniform(0, 1))
        except BaseException as error:
            call.end(error)
            raise
        call.end()
        call.end()
        return value

    async def rage(self) -> None:
        for _ in range(RUNS):
            tasks = [asyncio.create_task(self.call()) for _ in range(TASKS)]
            for task in tasks:
                if self.random.random() < 0.2:
                    await asyncio.sleep(self.random.uniform(0, 0.3))
                task.cancel()
                if self.random.random() < 0.1:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert not isinstance(result, AssertionError | RuntimeError), result
            self.calm()

    def calm(self) -> None:
        for guard in (self.guard, self.inner):
            seen = guard.snapshot()
            assert seen.running == 0
            assert seen.concurrency is not None
            assert (seen.concurrency.in_use, seen.concurrency.waiting) == (0, 0)
            assert all(rate.waiting == 0 for rate in seen.rates)
            assert seen.budget >= 0
            for circuit in guard.circuits().values():
                assert not circuit._leases


@pytest.mark.parametrize("health", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_ten_thousand_cancellations_leak_nothing(health: bool, keyed: bool) -> None:
    async def main() -> None:
        random = Random(11)

        async def well() -> None:
            await asyncio.sleep(random.uniform(0, 1))
            if random.random() < 0.3:
                raise OutcomeUnknown("still down", hard=True)

        policy = Policy(
            timeout=2,
            deadline=6,
            rate=(Rate(40, per=0.5, key=lambda: random.choice("xy")) if keyed else Rate(40, per=0.5), Rate(200)),
            concurrency=Concurrency(20, adaptive=True, max_waiting=50),
            breaker=Breaker(open_for=0.2, open_cap=0.4),
        )
        guard = Guard("vendor", policy, clock=LoopClock(), random=random, health=well if health else None)
        storm = Storm(guard, random)
        await storm.rage()

        await asyncio.sleep(60)
        rates = guard.snapshot().rates
        assert [rate.in_use for rate in rates] == [0, 0]
        for _ in range(20):
            await asyncio.gather(guard.once(answer), return_exceptions=True)
            await asyncio.sleep(1)
        assert await guard.once(answer) == "answer"
        storm.calm()
        outcomes = [outcome for each in guard.snapshot().operations.values() for outcome in each.outcomes]
        assert "cancelled" in outcomes

    play(main())


@both_ways
async def test_a_call_that_is_closed_in_the_middle_gives_everything_back(way: Way, clock: ManualClock) -> None:
    guard = Guard("vendor", Policy(concurrency=1, rate=Rate(9)), clock=clock)

    async def stream() -> AsyncGenerator[None]:
        async def inner() -> None:
            await clock.sleep(5)

        await way(guard, inner, Effect.READ)
        yield

    task = asyncio.create_task(anext(stream()))
    await clock.advance(0)
    assert guard.snapshot().running == 1
    coroutine = careful(guard, answer)
    coroutine.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    unleaked(guard)


async def test_a_forgotten_call_that_is_collected_in_the_middle_of_a_decision_blocks_nobody() -> None:
    class Collecting(Random):
        def uniform(self, a: float, b: float) -> float:
            forgotten.clear()
            return a

    guard = Guard("vendor", Policy(retry=None, breaker=Breaker(consecutive=1), concurrency=5), random=Collecting())
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await never

    forgotten = [guard.run(wait, effect=Effect.READ, operation="wait")]
    forgotten[0].send(None)
    with pytest.raises(OutcomeUnknown):
        await guard.read(raising(OutcomeUnknown("500", hard=True)))

    unleaked(guard)


async def test_calls_end_once_however_often_they_are_ended(clock: ManualClock) -> None:
    told: list[Signal] = []
    guard = Guard("vendor", Policy(concurrency=1, rate=Rate(2)), clock=clock, telemetry=Telemetry([told.append]))
    _, first = await guard.open(answer, effect=Effect.READ, operation="stream", repeat=True)
    assert guard.snapshot().running == 1

    for error in (None, None, OutcomeUnknown("broken off"), asyncio.CancelledError()):
        first.end(error)
    _, second = await guard.open(answer, effect=Effect.READ, operation="stream", repeat=True)
    for late in (OutcomeUnknown("broken off"), None, KeyError()):
        second.end(late)

    assert isinstance(first, Call)
    assert [signal.outcome for signal in told if isinstance(signal, CallFinished)] == ["ok", "unknown"]
    assert guard.snapshot().operations["stream"].outcomes == {"ok": 1, "unknown": 1}
    unleaked(guard)
