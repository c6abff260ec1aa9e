"""One guard in threads and loops at once: its limits are exact, its counts are, and nobody waits for ever."""

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from threading import Barrier, Event, Lock, Thread
from typing import TypeVar

import pytest

from holdfast.errors import (
    BulkheadFull,
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    CredentialRefused,
    InvalidInput,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.context import deadline_scope, surroundings, transaction
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Concurrency, Policy, Rate, Retry
from holdfast.resilience.shared import Shared
from holdfast.resilience.sync import attempt_timeout
from holdfast.telemetry import CallFinished, Signal, Telemetry
from holdfast.testing.clock import ManualClock

T = TypeVar("T")
THREADS = 8
CALLS = 300
NEVER = Breaker(consecutive=100_000, minimum_calls=100_000)


@pytest.fixture
def hasty() -> Generator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def together(*jobs: Callable[[], object]) -> None:
    """Run each in a thread of its own, all begun at once; what one raises is raised here."""
    barrier, errors = Barrier(len(jobs)), list[BaseException]()

    def run(job: Callable[[], object]) -> None:
        try:
            barrier.wait(60)
            job()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "it hangs"
    if errors:
        raise errors[0]


class Inside:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most, self.calls = Lock(), 0, 0, 0

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def outcome(number: int) -> None:
    """Fail in some way or other, or not."""
    match number % 5:
        case 0:
            raise KeyError("mine")
        case 1:
            raise OutcomeUnknown("reset")
        case 2:
            raise Throttled("429")
        case _:
            pass


def settled(guard: Guard) -> None:
    seen = guard.snapshot()
    assert seen.running == 0
    assert seen.concurrency is not None
    assert (seen.concurrency.in_use, seen.concurrency.waiting) == (0, 0)


# Threads and loops at once.


def in_threads(guard: Guard, inside: Inside) -> None:
    def fetch(number: int) -> None:
        with inside:
            pass
        outcome(number)

    for number in range(CALLS):
        with suppress(CallFailed, KeyError):
            guard.sync.read(fetch, number)


def in_a_loop(guard: Guard, inside: Inside) -> None:
    async def fetch(number: int) -> None:
        with inside:
            await asyncio.sleep(0)
        outcome(number)

    async def work(first: int) -> None:
        for number in range(first, CALLS, 10):
            with suppress(CallFailed, KeyError):
                await guard.read(fetch, number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for first in range(10):
                group.create_task(work(first))

    asyncio.run(main())


Worker = Callable[[Guard, Inside], None]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "workers",
    [[in_threads] * THREADS, [in_a_loop] + [in_threads] * (THREADS - 1), [in_a_loop] * 2, [in_a_loop, in_threads] * 3],
)
def test_the_places_are_exact_and_so_are_the_counts(workers: list[Worker]) -> None:
    inside = Inside()
    policy = Policy(retry=None, breaker=NEVER, concurrency=3, deadline=60)
    guard = Guard("vendor", policy)

    together(*[lambda worker=worker: worker(guard, inside) for worker in workers])

    calls = CALLS * len(workers)
    assert inside.most <= 3
    assert inside.calls == calls
    settled(guard)
    fetch = guard.snapshot().operations["fetch"]
    assert fetch.outcomes == {"ok": calls * 2 // 5, "error": calls // 5, "unknown": calls // 5, "throttled": calls // 5}
    assert fetch.attempts == calls
    assert sum(fetch.durations) == calls * 2 // 5


@pytest.mark.usefixtures("hasty")
def test_the_rate_is_exact_over_threads_and_a_loop() -> None:
    inside, rejected, lock = Inside(), [0], Lock()
    guard = Guard("vendor", Policy(retry=None, rate=Rate(50, per=3600, max_waiting=0), concurrency=4, deadline=60))

    def enter() -> None:
        with inside:
            pass

    async def enter_too() -> None:
        enter()

    def thread() -> None:
        for _ in range(50):
            try:
                guard.sync.read(enter)
            except RateLimited:
                with lock:
                    rejected[0] += 1

    async def loop() -> None:
        for _ in range(50):
            try:
                await guard.read(enter_too)
            except RateLimited:
                with lock:
                    rejected[0] += 1
            await asyncio.sleep(0)

    together(*[thread] * 4, lambda: asyncio.run(loop()))

    assert inside.calls == 50
    assert rejected[0] == 200
    assert guard.snapshot().rates[0].in_use == 50


@pytest.mark.usefixtures("hasty")
def test_of_all_threads_and_loops_one_probes() -> None:
    guard = Guard("vendor", Policy(retry=None, breaker=Breaker(consecutive=1, open_for=0.001, open_cap=0.001)))
    inside = Inside()

    def probe() -> None:
        with inside:
            Event().wait(0.0005)
        raise OutcomeUnknown("500", hard=True)

    async def probe_too() -> None:
        probe()

    def thread() -> None:
        for _ in range(100):
            with suppress(CallFailed):
                guard.sync.read(probe)

    async def loop() -> None:
        for _ in range(100):
            with suppress(CallFailed):
                await guard.read(probe_too)
            await asyncio.sleep(0)

    with suppress(CallFailed):
        guard.sync.read(probe)

    together(*[thread] * 4, lambda: asyncio.run(loop()))

    assert inside.most == 1
    assert inside.calls > 1


@pytest.mark.usefixtures("hasty")
def test_a_snapshot_may_be_taken_while_others_call() -> None:
    guard = Guard("vendor", Policy(retry=None, concurrency=4, deadline=60))
    over = Event()

    def look() -> None:
        while not over.is_set():
            assert guard.snapshot().running >= 0

    def call() -> None:
        for number in range(300):
            guard.sync.run(lambda: None, effect=Effect.ONCE, operation=f"operation {number}")

    def loops() -> None:
        for _ in range(20):
            asyncio.run(guard.read(nothing))

    async def nothing() -> None:
        await asyncio.sleep(0)

    def work() -> None:
        try:
            together(call, call, loops)
        finally:
            over.set()

    together(work, look)

    settled(guard)
    assert all(len(guard.snapshot().operations[f"operation {n}"].outcomes) == 1 for n in range(300))
    assert guard.snapshot().operations["operation 7"].outcomes == {"ok": 2}


# From one loop to threads.


def test_usual_calls_end_with_the_first_thread_that_joins_and_what_is_under_way_is_given_back() -> None:
    guard = Guard("vendor", Policy(retry=None, concurrency=2, timeout=30))
    begun, go_on = Event(), Event()

    async def fetch() -> str:
        begun.set()
        while not go_on.is_set():  # noqa: ASYNC110  # it is set in another thread
            await asyncio.sleep(0)
        return "answer"

    async def main() -> list[str]:
        return list(await asyncio.gather(guard.read(fetch), guard.read(fetch)))

    def loop() -> None:
        assert asyncio.run(main()) == ["answer", "answer"]

    def thread() -> None:
        assert begun.wait(60)
        assert guard._shared.calm
        with suppress(CallFailed):
            guard.sync.run(lambda: None, effect=Effect.READ, operation="x", deadline=0.01)
        assert not guard._shared.calm
        go_on.set()
        assert guard.sync.read(lambda: "answer") == "answer"

    together(loop, thread)

    assert not guard._shared.calm
    settled(guard)


def test_every_thread_that_joins_waits_until_no_usual_call_is_in_the_middle_of_a_decision() -> None:
    guard = Guard("vendor", Policy(retry=None, concurrency=1))
    shared: Shared = guard._shared
    deciding, decided, passed = Event(), Event(), list[bool]()

    async def main() -> None:
        await guard.read(asyncio.sleep, 0)
        deciding.set()
        Event().wait(0.2)  # a decision that takes its time: the loop does not come round
        decided.set()
        await asyncio.sleep(0.05)

    def join() -> None:
        assert deciding.wait(60)
        shared.go_threaded()
        passed.append(decided.is_set())

    together(lambda: asyncio.run(main()), join, join, join)

    assert passed == [True] * 3


@pytest.mark.parametrize(
    "look",
    [Guard.snapshot, lambda guard: guard.isolate("broken"), lambda guard: guard.close("well")],
    ids=["snapshot", "isolate", "close"],
)
def test_who_looks_from_another_thread_takes_turns_with_usual_calls(look: Callable[[Guard], object]) -> None:
    guard = Guard("vendor", Policy(retry=None, rate=Rate(5), concurrency=1))
    deciding, decided, looked = Event(), Event(), Event()

    async def main() -> None:
        await guard.read(asyncio.sleep, 0)
        deciding.set()
        Event().wait(0.1)  # a decision that takes its time: the loop does not come round
        decided.set()
        while not looked.is_set():  # noqa: ASYNC110  # in another thread
            await asyncio.sleep(0)

    def thread() -> None:
        assert deciding.wait(60)
        look(guard)
        assert decided.is_set()
        looked.set()

    together(lambda: asyncio.run(main()), thread)

    assert guard._shared.calm


def test_who_looks_is_told_what_went_wrong_and_is_not_kept_by_a_loop_that_stands_still() -> None:
    shared = Guard("vendor")._shared
    asked: list[int] = []

    def look() -> None:
        asked.append(1)
        raise TimeoutError("mine")

    async def main() -> None:
        shared.move_to(asyncio.get_running_loop())
        await asyncio.to_thread(looking)
        standing = Thread(target=looking)
        standing.start()
        standing.join(10)  # what no coroutine should do

    def looking() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            shared.in_turn(look)

    asyncio.run(main())
    looking()

    assert len(asked) == 3


def test_a_call_under_way_when_threads_join_gives_back_under_the_lock() -> None:
    guard = Guard("vendor", Policy(retry=None, concurrency=1))
    begun, go_on, over = Event(), Event(), Event()

    async def fetch() -> None:
        begun.set()
        while not go_on.is_set():  # noqa: ASYNC110  # in another thread
            await asyncio.sleep(0)

    def loop() -> None:
        asyncio.run(guard.read(fetch))
        over.set()

    def thread() -> None:
        assert begun.wait(60)
        guard._shared.go_threaded()
        with guard._shared.lock:
            go_on.set()
            assert not over.wait(0.1)
        assert over.wait(60)

    together(loop, thread)

    settled(guard)


def test_a_loop_that_stands_still_holds_up_a_thread_for_a_moment_only() -> None:
    guard = Guard("vendor", Policy(retry=None))

    async def main() -> str:
        await guard.read(asyncio.sleep, 0)
        answers: list[str] = []
        thread = Thread(target=lambda: answers.append(guard.sync.read(lambda: "answer")))
        thread.start()
        thread.join(10)  # what no coroutine should do
        return answers[0]

    assert asyncio.run(main()) == "answer"


def test_two_loops_that_begin_at_once_never_share_time_limits() -> None:
    for _ in range(8):
        guard = Guard("vendor", Policy(retry=None, breaker=NEVER, timeout=0.5, concurrency=50, deadline=30))

        async def main(guard: Guard = guard) -> None:
            quick = [guard.read(asyncio.sleep, 0) for _ in range(20)]
            late = [guard.read(asyncio.sleep, 60) for _ in range(3)]
            results = await asyncio.gather(*quick, *late, return_exceptions=True)
            assert [type(each) for each in results] == [type(None)] * 20 + [OutcomeUnknown] * 3

        together(lambda: asyncio.run(main()), lambda: asyncio.run(main()))

        settled(guard)


def test_loops_one_after_the_other_stay_on_the_usual_path() -> None:
    guard = Guard("vendor", Policy(retry=None, timeout=0.5))

    async def main() -> None:
        assert await guard.read(asyncio.sleep, 0, "answer") == "answer"
        with pytest.raises(OutcomeUnknown):
            await guard.read(asyncio.sleep, 60)

    for _ in range(3):
        asyncio.run(main())

    assert guard._shared.calm


@pytest.mark.usefixtures("hasty")
def test_listeners_in_threads_may_look_and_call() -> None:
    seen, inside = Inside(), Inside()

    def listen(signal: Signal) -> None:
        if isinstance(signal, CallFinished) and signal.operation == "fetch":
            guard.snapshot()
            guard.sync.run(seen.__enter__, effect=Effect.READ, operation="listener")

    policy = Policy(retry=None, breaker=NEVER, concurrency=2, deadline=10)
    guard = Guard("vendor", policy, telemetry=Telemetry([listen]))

    together(*[lambda: in_threads(guard, inside)] * 4)

    assert seen.calls == inside.calls == CALLS * 4
    settled(guard)


@pytest.mark.usefixtures("hasty")
def test_listeners_in_loops_may_look() -> None:
    running, inside = Inside(), Inside()

    def listen(signal: Signal) -> None:
        if guard.snapshot().running <= 10:
            running.__enter__()

    policy = Policy(retry=None, breaker=NEVER, concurrency=2, deadline=10)
    guard = Guard("vendor", policy, telemetry=Telemetry([listen]))

    together(*[lambda: in_a_loop(guard, inside)] * 2, lambda: in_threads(guard, inside))

    assert running.calls > inside.calls == CALLS * 3
    settled(guard)


def test_who_waits_in_a_loop_is_woken_by_a_thread_and_the_other_way_round() -> None:
    guard = Guard("vendor", Policy(retry=None, concurrency=1, deadline=30))
    order: list[str] = []
    in_thread, in_loop = Event(), Event()

    def thread() -> None:
        def first() -> None:
            in_thread.set()
            while guard.snapshot().concurrency.waiting < 1:  # type: ignore[union-attr]  # there are places
                Event().wait(0.001)
            order.append("thread")

        guard.sync.read(first)
        assert in_loop.wait(60)
        guard.sync.read(lambda: order.append("thread again"))

    async def second() -> None:
        in_loop.set()
        while guard.snapshot().concurrency.waiting < 1:  # type: ignore[union-attr]  # noqa: ASYNC110  # in another thread
            await asyncio.sleep(0.001)
        order.append("loop")

    def loop() -> None:
        assert in_thread.wait(60)
        asyncio.run(guard.read(second))

    together(thread, loop)

    assert order == ["thread", "loop", "thread again"]


# What a plain function sees.


def test_verbs_decorator_and_block_pass_on_what_they_are_given(clock: ManualClock) -> None:
    guard = Guard("vendor", clock=clock)

    def book(city: str, *, nights: int) -> str:
        """Book a room."""
        return f"{city} {nights}"

    decorated = guard.sync.guarded(Effect.IDEMPOTENT)(book)

    assert guard.sync.read(book, "Bern", nights=1) == "Bern 1"
    assert guard.sync.idempotent(book, "Bern", nights=2) == "Bern 2"
    assert guard.sync.keyed("key", book, "Bern", nights=3) == "Bern 3"
    assert guard.sync.once(book, "Bern", nights=4) == "Bern 4"
    assert decorated("Bern", nights=5) == "Bern 5"
    assert (decorated.__name__, decorated.__doc__) == ("book", "Book a room.")
    assert guard.snapshot().operations["book"].outcomes == {"ok": 5}


def test_a_keyed_call_needs_its_key(clock: ManualClock) -> None:
    guard = Guard("vendor", clock=clock)

    with pytest.raises(InvalidInput, match="once"):
        guard.sync.keyed("", print)
    with pytest.raises(InvalidInput, match="key"):
        guard.sync.guarded(Effect.KEYED)


def test_a_plain_function_is_tried_again_and_told_how_long_it_may_take(clock: ManualClock) -> None:
    limits: list[float | None] = []

    def fetch() -> str:
        limits.append(attempt_timeout())
        clock.pause(4)
        if len(limits) < 3:
            raise Throttled("429", retry_after=2)
        return "answer"

    guard = Guard("vendor", Policy(timeout=5, deadline=16), clock=clock)

    assert guard.sync.once(fetch) == "answer"
    assert limits[:2] == pytest.approx([5, 5])
    assert limits[2] is not None
    assert limits[2] < 5
    assert attempt_timeout() is None
    assert attempt_timeout(3) == 3


def test_a_call_within_a_call_leaves_the_outer_one_its_time(clock: ManualClock) -> None:
    inner, outer = Guard("inner", Policy(timeout=2), clock=clock), Guard("outer", Policy(timeout=9), clock=clock)
    limits: list[float | None] = []

    def inside() -> None:
        limits.append(attempt_timeout())

    def outside() -> None:
        limits.append(attempt_timeout())
        inner.sync.read(inside)
        with inner.sync.attempt():
            inside()
        limits.append(attempt_timeout())

    outer.sync.read(outside)

    assert limits == [9, 2, 2, 9]


def test_a_deadline_and_a_transaction_hold_in_a_thread_too(clock: ManualClock) -> None:
    guard = Guard("vendor", Policy(timeout=9), clock=clock)
    before = surroundings.get()

    with deadline_scope(3, clock):
        assert guard.sync.read(attempt_timeout) == 3
        clock.pause(3)
        with pytest.raises(NotSent, match="no time left"):
            guard.sync.read(attempt_timeout)
    with transaction(), pytest.raises(CallInsideTransaction):
        guard.sync.read(attempt_timeout)

    assert surroundings.get() is before


def test_a_refused_credential_is_refreshed_once_in_a_thread_too(clock: ManualClock) -> None:
    refreshed: list[float] = []

    def fetch() -> None:
        raise CredentialRefused("401")

    guard = Guard("vendor", clock=clock)
    with pytest.raises(CredentialRefused):
        guard.sync.run(fetch, effect=Effect.ONCE, operation="x", refresh=lambda: refreshed.append(1), credential="a")

    assert refreshed == [1]
    assert list(guard.snapshot().holds) == ["a"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, KeyError])
def test_an_exception_of_the_callers_own_passes_and_all_is_given_back(kind: type[BaseException]) -> None:
    guard, mine = Guard("vendor", Policy(concurrency=1)), kind("mine")

    def fetch() -> None:
        raise mine

    for _ in range(2):
        with pytest.raises(kind) as caught:
            guard.sync.read(fetch)
        assert caught.value is mine
        with pytest.raises(kind) as caught, guard.sync.attempt():
            raise mine
        assert caught.value is mine

    settled(guard)


def test_a_health_operation_tries_out_an_open_circuit_in_a_thread_too(clock: ManualClock) -> None:
    asked: list[str] = []
    well = False

    def health() -> None:
        asked.append("health")
        if not well:
            raise OutcomeUnknown("500", hard=True)

    def pay() -> str:
        asked.append("pay")
        return "paid"

    def down() -> None:
        raise OutcomeUnknown("500", hard=True)

    policy = Policy(retry=Retry(base=0, cap=0), concurrency=Concurrency(1), breaker=Breaker(consecutive=1), deadline=60)
    guard = Guard("vendor", policy, clock=clock, health=health)
    with pytest.raises(CallFailed):
        guard.sync.read(down)
    clock.pause(5)

    with pytest.raises(CircuitOpen) as caught:
        guard.sync.once(pay)
    assert isinstance(caught.value.__cause__, OutcomeUnknown)
    assert guard.snapshot().circuits[""].state is CircuitState.OPEN
    well = True
    clock.pause(10)

    assert guard.sync.once(pay) == "paid"
    assert asked == ["health", "health", "health", "pay"]
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED
    settled(guard)


async def test_a_plain_function_in_an_event_loop_does_not_wait_for_a_place() -> None:
    guard = Guard("vendor", Policy(concurrency=1, retry=None))

    async with guard.attempt():
        with pytest.raises(BulkheadFull, match="in an event loop cannot wait"):
            guard.sync.read(int)


def test_a_health_operation_that_is_a_coroutine_finds_nobody_well() -> None:
    async def health() -> None: ...

    clock = ManualClock()
    breaker = Breaker(consecutive=1, open_for=1)
    guard = Guard("vendor", Policy(retry=None, breaker=breaker), clock=clock, health=lambda: health())

    def fail() -> None:
        raise OutcomeUnknown("down", hard=True)

    with pytest.raises(OutcomeUnknown):
        guard.sync.read(fail)
    clock.pause(10)

    with pytest.raises(CircuitOpen) as caught:
        guard.sync.read(int)
    assert isinstance(caught.value.__cause__, InvalidInput)
