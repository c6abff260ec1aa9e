"""The guard: every part alone, and what they do together."""

import asyncio
import pickle
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar

import pytest
import tenacity

from holdfast.errors import (
    CallFailed,
    CallInsideTransaction,
    CircuitOpen,
    CredentialRefused,
    InvalidInput,
    Mismatch,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.context import deadline_scope, remaining, transaction
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy, Retry
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

T = TypeVar("T")
CALM = Policy(breaker=None)
ONE = Policy(retry=None)
EFFECTS = list(Effect)


class Vendor:
    """Answers from a script: a value, an error, or so many seconds of silence first; then the last one for ever."""

    def __init__(self, clock: ManualClock, *script: object) -> None:
        self.clock = clock
        self.script = list(script)
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(self.clock.monotonic())
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, float):
            await self.clock.sleep(answer)
        if isinstance(answer, BaseException):
            raise answer
        return "answer"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signals() -> list[Signal]:
    return []


@pytest.fixture
def make(clock: ManualClock, signals: list[Signal]) -> Callable[..., Guard]:
    def make(policy: Policy = CALM, **options: Any) -> Guard:
        return Guard("vendor", policy, clock=clock, random=Random(1), telemetry=Telemetry([signals.append]), **options)

    return make


Make = Callable[..., Guard]


async def in_time(clock: ManualClock, call: Coroutine[Any, Any, T], *, step: float = 0.05, most: float = 120) -> T:
    """Its result, while time passes as it needs to."""
    task = asyncio.create_task(call)
    end = clock.monotonic() + most
    await clock.advance(0)
    while not task.done() and clock.monotonic() < end:
        await clock.advance(step)
    assert task.done(), "it hangs"
    return await task


async def failure(clock: ManualClock, call: Coroutine[Any, Any, object], **options: float) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await in_time(clock, call, **options)
    return caught.value


def run(guard: Guard, vendor: Vendor, effect: Effect = Effect.READ, **options: Any) -> Coroutine[Any, Any, str]:
    return guard.run(vendor, effect=effect, operation="fetch", **options)


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def of(signals: list[Signal], kind: type[Signal]) -> list[Signal]:
    return [signal for signal in signals if type(signal) is kind]


async def tripped(guard: Guard, clock: ManualClock, effect: Effect = Effect.READ) -> None:
    """Open the provider's circuit."""
    vendor = Vendor(clock, OutcomeUnknown("500", status=500, hard=True))
    circuit = guard.circuit()
    assert circuit is not None
    while circuit.state(clock.monotonic()) is not CircuitState.OPEN:
        await failure(clock, run(guard, vendor, effect))


# Success and verbs.


async def test_an_answer_passes_through(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    assert await make(Policy(deadline=3)).read(Vendor(clock, "answer")) == "answer"

    assert signals == [CallFinished("vendor", "call", "ok", 0.0, 1)]
    assert clock.pending <= LINES


async def test_verbs_pass_arguments_on_and_name_the_operation(make: Make, signals: list[Signal]) -> None:
    async def book(city: str, *, nights: int) -> str:
        return f"{city} {nights}"

    guard = make()

    assert await guard.read(book, "Bern", nights=1) == "Bern 1"
    assert await guard.idempotent(book, "Bern", nights=2) == "Bern 2"
    assert await guard.keyed("key", book, "Bern", nights=3) == "Bern 3"
    assert await guard.once(book, "Bern", nights=4) == "Bern 4"
    assert {getattr(signal, "operation", None) for signal in signals} == {"book"}


async def test_a_keyed_call_without_a_key_is_refused(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, "answer")

    with pytest.raises(InvalidInput, match="once"):
        await make().keyed("", vendor)

    assert vendor.asked == []


@pytest.mark.parametrize(("verb", "sent"), [("read", 3), ("idempotent", 3), ("keyed", 3), ("once", 1)])
async def test_a_verb_says_what_repeating_would_do(make: Make, clock: ManualClock, verb: str, sent: int) -> None:
    vendor = Vendor(clock, OutcomeUnknown("reset"))
    guard = make()
    calls: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
        "read": lambda: guard.read(vendor),
        "idempotent": lambda: guard.idempotent(vendor),
        "keyed": lambda: guard.keyed("k", vendor),
        "once": lambda: guard.once(vendor),
    }

    error = await failure(clock, calls[verb]())

    assert isinstance(error, OutcomeUnknown)
    assert len(vendor.asked) == sent


# Retry.


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    "error", [NotSent("dns", hard=True), NotSent("pool"), Throttled("429", status=429), Refused("503", status=503)]
)
async def test_what_did_not_happen_is_tried_again(
    make: Make, clock: ManualClock, effect: Effect, error: CallFailed
) -> None:
    vendor = Vendor(clock, error, "answer")

    assert await in_time(clock, run(make(), vendor, effect)) == "answer"

    assert len(vendor.asked) == 2


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("error", [Rejected("404", status=404), Mismatch("other money"), CredentialRefused("401")])
async def test_what_asking_again_cannot_change_is_asked_once_and_without_a_note(
    make: Make, clock: ManualClock, signals: list[Signal], effect: Effect, error: CallFailed
) -> None:
    vendor = Vendor(clock, error)

    assert await failure(clock, run(make(), vendor, effect)) is error

    assert len(vendor.asked) == 1
    assert notes(error) == []
    assert of(signals, RetryDenied) == []


async def test_a_once_is_never_repeated_after_an_unknown_outcome_and_says_so(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    vendor = Vendor(clock, NotSent("dns", hard=True), OutcomeUnknown("reset", reason="reset"), "answer")

    error = await failure(clock, run(make(), vendor, Effect.ONCE))

    assert isinstance(error, OutcomeUnknown)
    assert len(vendor.asked) == 2
    assert notes(error) == ["not tried again: it may have taken effect, and repeating it could take effect twice"]
    assert of(signals, RetryDenied) == [RetryDenied("vendor", "fetch", "unsafe")]


async def test_a_host_that_swallows_packets_is_not_tried_again_into_a_timeout_that_proves_nothing(
    make: Make, clock: ManualClock
) -> None:
    asked: list[float] = []

    async def swallows() -> str:
        asked.append(clock.monotonic())
        await clock.sleep(3)
        raise NotSent("could not connect within 3 s", hard=True)

    error = await failure(clock, run(make(Policy(deadline=4)), swallows, Effect.ONCE))

    assert isinstance(error, NotSent)
    assert len(asked) == 1


async def test_a_key_the_vendor_may_have_forgotten_is_not_used_at_all(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    error = await failure(clock, run(make(), vendor, Effect.KEYED, key_valid=lambda: False))

    assert isinstance(error, NotSent)
    assert error.reason == "key"
    assert not vendor.asked


async def test_a_key_the_vendor_forgot_is_not_used_again(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    error = await failure(clock, run(make(), vendor, Effect.KEYED, key_valid=lambda: not vendor.asked))

    assert len(vendor.asked) == 1
    assert "twice" in notes(error)[0]


@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.KEYED])
@pytest.mark.parametrize(
    "later",
    [NotSent("dns", hard=True), Throttled("429"), Refused("503"), CredentialRefused("401"), NotSent("x", local=True)],
)
async def test_a_later_nothing_happened_does_not_hide_an_earlier_unknown(
    make: Make, clock: ManualClock, effect: Effect, later: CallFailed
) -> None:
    vendor = Vendor(clock, OutcomeUnknown("reset"), later)

    error = await failure(clock, run(make(), vendor, effect))

    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is later
    assert "earlier attempt" in str(error)
    assert pickle.loads(pickle.dumps(error)).cause is error.cause


async def test_a_circuit_that_opens_meanwhile_does_not_hide_an_earlier_unknown(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(breaker=Breaker(consecutive=1)))
    vendor = Vendor(clock, OutcomeUnknown("reset", hard=True))

    error = await failure(clock, run(guard, vendor, Effect.KEYED))

    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, CircuitOpen)
    assert error.retry_after is not None
    assert len(vendor.asked) == 1


async def test_a_read_that_meets_an_open_circuit_says_so_and_what_opened_it(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(breaker=Breaker(consecutive=1)))
    first = OutcomeUnknown("reset", hard=True)

    error = await failure(clock, run(guard, Vendor(clock, first)))

    assert isinstance(error, CircuitOpen)
    assert error.__cause__ is first


@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.KEYED])
async def test_a_no_settles_an_earlier_unknown(make: Make, clock: ManualClock, effect: Effect) -> None:
    no = Rejected("402", status=402, code="card_declined")

    assert await failure(clock, run(make(), Vendor(clock, OutcomeUnknown("reset"), no), effect)) is no


async def test_a_no_without_the_vendors_own_word_does_not_settle_what_was_asked_under_a_key(
    make: Make, clock: ManualClock
) -> None:
    no = Rejected("403", status=403)  # as a proxy says it

    error = await failure(clock, run(make(), Vendor(clock, OutcomeUnknown("reset"), no), Effect.KEYED))

    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is no


async def test_the_first_repeat_after_no_connection_is_at_once_and_only_that_one(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    vendor = Vendor(clock, NotSent("refused", hard=True))

    await failure(clock, run(make(), vendor))

    waits = [signal.after for signal in signals if isinstance(signal, RetryScheduled)]
    assert waits[0] == 0
    assert waits[1] > 0


async def test_a_full_connection_pool_is_not_asked_again_at_once(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    await failure(clock, run(make(), Vendor(clock, NotSent("pool"))))

    assert all(signal.after > 0 for signal in signals if isinstance(signal, RetryScheduled))


async def test_attempts_end_with_the_last_error_and_the_reason(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    error = await failure(clock, run(make(), Vendor(clock, OutcomeUnknown("reset"))))

    assert notes(error) == ["not tried again: the policy's attempts are used up"]
    assert [type(signal) for signal in signals] == [
        AttemptFailed,
        RetryScheduled,
        AttemptFailed,
        RetryScheduled,
        AttemptFailed,
        RetryDenied,
        CallFinished,
    ]
    finished = signals[-1]
    assert isinstance(finished, CallFinished)
    assert (finished.outcome, finished.attempts) == ("unknown", 3)
    assert finished.seconds == pytest.approx(clock.monotonic(), abs=0.1)


async def test_tenacitys_strategies_run_the_retries(make: Make, clock: ManualClock) -> None:
    retry = Retry(wait=tenacity.wait_fixed(30), stop=tenacity.stop_after_delay(60))
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    await failure(clock, run(make(Policy(breaker=None, retry=retry)), vendor))

    assert vendor.asked == [0, 30, 60]


async def test_a_strategy_that_stops_before_a_delay_counts_the_coming_wait(make: Make, clock: ManualClock) -> None:
    retry = Retry(wait=tenacity.wait_fixed(4), stop=tenacity.stop_before_delay(10))
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    await failure(clock, run(make(Policy(breaker=None, retry=retry)), vendor))

    assert vendor.asked == [0, 4, 8]


# Retry-After.


async def test_a_vendors_pause_is_kept(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, Throttled("429", retry_after=7), "answer")

    await in_time(clock, run(make(Policy(breaker=None, deadline=30)), vendor), step=0.01)

    assert 7 <= vendor.asked[1] <= 7.71


async def test_a_pause_beyond_the_deadline_fails_at_once_and_is_told(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    vendor = Vendor(clock, Throttled("429", retry_after=7))

    error = await failure(clock, run(make(Policy(breaker=None, deadline=5)), vendor))

    assert clock.monotonic() == 0
    assert error.retry_after == 7
    assert "deadline" in notes(error)[0]
    assert of(signals, RetryDenied) == [RetryDenied("vendor", "fetch", "deadline")]


async def test_without_a_deadline_a_pause_beyond_the_cap_is_not_slept_through(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, Throttled("429", retry_after=3600))

    error = await failure(clock, run(make(), vendor))

    assert clock.monotonic() == 0
    assert error.retry_after == 3600


@pytest.mark.parametrize("nonsense", [-5.0, float("nan")])
async def test_a_pause_that_makes_no_sense_is_ignored(make: Make, clock: ManualClock, nonsense: float) -> None:
    assert await in_time(clock, run(make(), Vendor(clock, Throttled("429", retry_after=nonsense), "answer")))


# Nesting and budget.


async def test_nested_guards_do_not_multiply_attempts(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    inner, outer = make(), make()
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    error = await failure(clock, outer.read(lambda: inner.read(vendor)))

    assert len(vendor.asked) == 3
    assert [signal.why for signal in signals if isinstance(signal, RetryDenied)] == ["nested"] * 3 + ["attempts"]
    assert notes(error)[0] == "not tried again: an outer guard still can"


async def test_inside_a_guard_that_never_retries_the_inner_one_does(make: Make, clock: ManualClock) -> None:
    inner, outer = make(), make(Policy(retry=None, breaker=None))
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    await failure(clock, outer.read(lambda: inner.read(vendor)))

    assert len(vendor.asked) == 3


async def test_retries_are_a_share_of_all_calls(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    guard = make()
    vendor = Vendor(clock, Throttled("429"))

    errors = [await failure(clock, run(guard, vendor, timeout=30), step=0.1) for _ in range(200)]

    first, seconds = 200, clock.monotonic()
    assert len(vendor.asked) - first <= first * 0.2 + 10 + seconds
    assert isinstance(errors[-1], Throttled)
    assert "too many retries" in " ".join(note for error in errors for note in notes(error))
    assert RetryDenied("vendor", "fetch", "budget") in signals


async def test_calls_an_open_circuit_rejects_pay_nothing_into_the_budget(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(retry=None))
    await tripped(guard, clock)
    before = guard.snapshot().budget

    for _ in range(100):
        await failure(clock, run(guard, Vendor(clock, "answer")))

    assert guard.snapshot().budget == before


# Deadline and timeout.


async def test_each_attempt_has_its_own_timeout(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, 100.0, "answer")

    guard = make(Policy(breaker=None, timeout=5))

    assert await in_time(clock, run(guard, vendor)) == "answer"

    assert 5 <= vendor.asked[1] <= 5.2
    assert guard.snapshot().running == 0


async def test_a_timeout_is_an_unknown_outcome(make: Make, clock: ManualClock) -> None:
    error = await failure(clock, run(make(Policy(retry=None, timeout=5)), Vendor(clock, 100.0), Effect.ONCE))

    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, TimeoutError)
    assert (error.reason, error.hard, error.provider, error.operation) == ("timeout", True, "vendor", "fetch")
    assert str(error) == "vendor: fetch had no answer after 5 s"


async def test_the_deadline_cuts_an_attempt_and_every_wait(make: Make, clock: ManualClock) -> None:
    policy = Policy(breaker=None, deadline=8, timeout=5, retry=Retry(attempts=100))

    await failure(clock, run(make(policy), Vendor(clock, 100.0)))

    assert clock.monotonic() <= 8.05


async def test_a_callers_timeout_and_deadline_only_shorten(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(breaker=None, retry=None, timeout=5, deadline=9))

    for options, end in (
        ({"timeout": 2.0}, 2),
        ({"timeout": 60.0}, 5),
        ({"deadline": 3.0}, 3),
        ({"deadline": 60.0}, 5),
    ):
        before = clock.monotonic()
        await failure(clock, run(guard, Vendor(clock, 100.0), Effect.READ, **options), step=0.01)
        assert clock.monotonic() - before == pytest.approx(end, abs=0.02)


@pytest.mark.parametrize("options", [{"timeout": 0.0}, {"deadline": 0.0}, {"deadline": -1.0}])
async def test_no_time_is_no_attempt(
    make: Make, clock: ManualClock, signals: list[Signal], options: dict[str, float]
) -> None:
    vendor = Vendor(clock, "answer")

    error = await failure(clock, run(make(), vendor, Effect.ONCE, **options))

    assert isinstance(error, NotSent)
    assert error.local
    assert vendor.asked == []
    assert signals == [
        CallRejected("vendor", "fetch", "deadline", None),
        CallFinished("vendor", "fetch", "not_sent", 0.0, 0),
    ]


async def test_without_any_timeout_an_attempt_may_take_days(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(timeout=None))

    call = asyncio.create_task(run(guard, Vendor(clock, 200_000.0)))
    await clock.advance(200_000)

    assert await call == "answer"


async def test_an_outer_deadline_holds_inside(make: Make, clock: ManualClock) -> None:
    seen: list[float] = []

    async def look() -> None:
        seen.append(remaining(clock))

    with deadline_scope(4, clock):
        await make(Policy(deadline=9)).read(look)
        await make(Policy(deadline=2)).read(look)

    assert seen == [4, 2]


async def test_a_deadline_shorter_than_the_operation_normally_takes_does_not_blame_the_provider(
    make: Make, clock: ManualClock
) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(consecutive=3)))
    for _ in range(5):
        await in_time(clock, run(guard, Vendor(clock, 1.0)))

    for _ in range(10):
        error = await failure(clock, run(guard, Vendor(clock, 100.0), deadline=0.5))
        assert isinstance(error, OutcomeUnknown)
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED

    for _ in range(3):
        await failure(clock, run(guard, Vendor(clock, 100.0), deadline=2))
    assert guard.snapshot().circuits[""].state is CircuitState.OPEN


async def test_a_provider_nobody_knows_yet_is_blamed_for_every_timeout(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(consecutive=3)))

    for _ in range(3):
        await failure(clock, run(guard, Vendor(clock, 100.0), deadline=0.5))

    assert guard.snapshot().circuits[""].state is CircuitState.OPEN


async def test_no_repeat_is_begun_that_could_not_normally_end_in_time(make: Make, clock: ManualClock) -> None:
    guard = make()
    for _ in range(5):
        await in_time(clock, run(guard, Vendor(clock, 2.0)))
    vendor = Vendor(clock, OutcomeUnknown("reset"))

    error = await failure(clock, run(guard, vendor, deadline=1.5))

    assert len(vendor.asked) == 1
    assert "deadline" in notes(error)[0]


# Circuit.


async def test_an_open_circuit_is_not_asked_and_says_when_to_ask(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(ONE)
    await tripped(guard, clock)
    signals.clear()
    vendor = Vendor(clock, "answer")

    error = await failure(clock, run(guard, vendor, Effect.ONCE))

    assert isinstance(error, CircuitOpen)
    assert vendor.asked == []
    assert error.local
    assert (error.provider, error.operation, error.reason) == ("vendor", "fetch", "open")
    assert error.retry_after is not None
    assert 2.5 <= error.retry_after <= 5
    assert "5 hard failures in a row" in str(error)
    assert signals == [
        CallRejected("vendor", "fetch", "circuit", error.retry_after),
        CallFinished("vendor", "fetch", "not_sent", 0.0, 0),
    ]


async def test_a_rejection_ends_the_retries_at_once(make: Make, clock: ManualClock) -> None:
    guard = make()
    guard_with_circuit = make(Policy())
    await tripped(guard_with_circuit, clock)
    before = clock.monotonic()

    error = await failure(clock, guard.read(lambda: guard_with_circuit.read(Vendor(clock, "answer"))))

    assert isinstance(error, CircuitOpen)
    assert clock.monotonic() == before


async def test_each_attempt_counts_for_the_circuit(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(breaker=Breaker(consecutive=3)))

    await failure(clock, run(guard, Vendor(clock, OutcomeUnknown("500", hard=True))))

    assert guard.snapshot().circuits[""].state is CircuitState.OPEN


async def test_recovery_is_decided_by_one_probe_of_many_callers(
    make: Make, clock: ManualClock, signals: list[Signal]
) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(probes_to_close=1)))
    await tripped(guard, clock)
    await clock.advance(5)
    vendor = Vendor(clock, 1.0)

    calls = [asyncio.create_task(run(guard, vendor)) for _ in range(1000)]
    await clock.advance(1)
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert len(vendor.asked) == 1
    assert [type(result) for result in results] == [str] + [CircuitOpen] * 999
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED
    assert [(change.before, change.after) for change in signals if isinstance(change, CircuitChanged)] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


async def test_an_operations_circuit_stops_that_operation_only(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(minimum_calls=10, failure_rate=0.6)))
    for _ in range(10):
        await failure(clock, guard.run(Vendor(clock, OutcomeUnknown("500")), effect=Effect.ONCE, operation="create"))
        await guard.run(Vendor(clock, "answer"), effect=Effect.ONCE, operation="refund")

    error = await failure(clock, guard.run(Vendor(clock, "x"), effect=Effect.ONCE, operation="create"))

    assert isinstance(error, CircuitOpen)
    assert await guard.run(Vendor(clock, "x"), effect=Effect.ONCE, operation="refund") == "answer"
    assert await run(guard, Vendor(clock, "x")) == "answer"


async def test_a_probe_the_operations_circuit_stops_gives_its_place_back(make: Make, clock: ManualClock) -> None:
    guard = make(ONE)
    await tripped(guard, clock)
    guard.isolate("broken", operation="create")
    await clock.advance(5)

    error = await failure(clock, guard.run(Vendor(clock, "x"), effect=Effect.ONCE, operation="create"))

    assert isinstance(error, CircuitOpen)
    assert "broken" in str(error)
    assert await run(guard, Vendor(clock, "x")) == "answer"


@pytest.mark.parametrize(
    "harmless",
    [
        Rejected("404", status=404),
        Throttled("429", status=429),
        CredentialRefused("401", status=401),
        Refused("quota", status=403),
        NotSent("pool"),
        NotSent("no token", local=True, hard=True),
        ValueError("the caller's own"),
        KeyError("the caller's own"),
    ],
)
async def test_what_is_not_the_providers_fault_never_opens_it(
    make: Make, clock: ManualClock, harmless: Exception
) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(consecutive=1, minimum_calls=1)))

    for _ in range(50):
        with pytest.raises(type(harmless)):
            await run(guard, Vendor(clock, harmless))

    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


async def test_a_503_with_retry_after_keeps_the_circuit_open_so_long(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(consecutive=1)))

    await failure(clock, run(guard, Vendor(clock, Refused("503", status=503, hard=True, retry_after=120))))

    assert guard.snapshot().circuits[""].retry_after == 120


async def test_a_circuit_set_by_hand_holds_and_is_told(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    guard = make(ONE)

    guard.isolate("maintenance", ttl=60)
    error = await failure(clock, run(guard, Vendor(clock, "x")))
    assert (error.reason, error.retry_after) == ("isolated", 60)
    guard.automatic()
    assert await run(guard, Vendor(clock, "x")) == "answer"
    guard.metrics_only("watching")
    for _ in range(20):
        await failure(clock, run(guard, Vendor(clock, OutcomeUnknown("500", hard=True))))
    guard.close("fixed")

    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED
    assert [(change.after, change.reason) for change in signals if isinstance(change, CircuitChanged)] == [
        ("isolated", "maintenance"),
        ("closed", "automatic"),
        ("metrics_only", "watching"),
        ("closed", "fixed"),
    ]


async def test_isolated_without_an_end_names_no_time(make: Make, clock: ManualClock) -> None:
    guard = make(ONE)
    guard.isolate("maintenance")

    error = await failure(clock, run(guard, Vendor(clock, "x")))

    assert error.retry_after is None
    assert str(error) == "vendor: circuit isolated (maintenance), fetch was not sent"


def test_a_guard_without_a_circuit_cannot_be_isolated(make: Make) -> None:
    with pytest.raises(InvalidInput, match="breaker=None"):
        make().isolate("maintenance")


async def test_the_wall_clock_neither_opens_nor_closes_a_circuit(make: Make, clock: ManualClock) -> None:
    guard = make(ONE)
    await tripped(guard, clock)

    for jump in (3600, -7200):
        clock.jump(jump)
        assert isinstance(await failure(clock, run(guard, Vendor(clock, "x"))), CircuitOpen)
    await clock.advance(5)

    assert await run(guard, Vendor(clock, "x")) == "answer"


# Credentials.


async def test_a_refused_credential_is_refreshed_once_even_without_retries(make: Make, clock: ManualClock) -> None:
    refreshed: list[float] = []

    async def refresh() -> None:
        refreshed.append(clock.monotonic())

    vendor = Vendor(clock, CredentialRefused("401"), "answer")
    assert await run(make(ONE), vendor, Effect.ONCE, refresh=refresh) == "answer"

    refused = Vendor(clock, CredentialRefused("401"))
    assert isinstance(await failure(clock, run(make(), refused, refresh=refresh)), CredentialRefused)

    assert len(refreshed) == 2
    assert len(refused.asked) == 2


async def test_a_refresh_is_bound_by_the_deadline(make: Make, clock: ManualClock) -> None:
    async def refresh() -> None:
        await clock.sleep(100)

    error = await failure(clock, run(make(), Vendor(clock, CredentialRefused("401")), refresh=refresh, deadline=3))

    assert isinstance(error, CredentialRefused)
    assert clock.monotonic() <= 3.05
    assert "deadline" in notes(error)[0]


async def test_a_refresh_that_fails_is_the_failure(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    async def refresh() -> None:
        raise NotSent("no token", local=True)

    error = await failure(clock, run(make(), Vendor(clock, CredentialRefused("401")), refresh=refresh))

    assert str(error) == "no token"
    assert of(signals, CallFinished) == [CallFinished("vendor", "fetch", "not_sent", 0.0, 1)]


# Classifying.


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionRefusedError("refused"), NotSent),
        (socket.gaierror("no such host"), NotSent),
        (ssl.SSLCertVerificationError("expired"), NotSent),
        (ssl.SSLEOFError("broken off"), OutcomeUnknown),
        (ConnectionResetError("reset"), OutcomeUnknown),
        (BrokenPipeError("pipe"), OutcomeUnknown),
        (TimeoutError(), OutcomeUnknown),
        (OSError(), OutcomeUnknown),
    ],
)
async def test_a_plain_functions_exception_gets_its_cause_and_keeps_its_origin(
    make: Make, clock: ManualClock, raised: Exception, kind: type[CallFailed]
) -> None:
    error = await failure(clock, run(make(ONE), Vendor(clock, raised), Effect.ONCE))

    assert type(error) is kind
    assert error.__cause__ is raised
    assert str(error)
    assert (error.provider, error.operation, error.hard) == ("vendor", "fetch", True)


async def test_a_callers_own_exception_passes_unchanged(make: Make, clock: ManualClock, signals: list[Signal]) -> None:
    mine = ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        await run(make(), Vendor(clock, mine))

    assert caught.value is mine
    assert notes(mine) == []
    assert signals == [CallFinished("vendor", "fetch", "error", 0.0, 1)]


async def test_a_classifier_of_ones_own_decides(make: Make, clock: ManualClock) -> None:
    def mine(error: BaseException) -> CallFailed | None:
        return Throttled("slow down", retry_after=1) if isinstance(error, TimeoutError) else None

    vendor = Vendor(clock, TimeoutError("theirs"), "answer")

    assert await in_time(clock, run(make(classify=mine), vendor, Effect.ONCE)) == "answer"


# Transactions.


async def test_nothing_is_called_inside_a_transaction(make: Make, clock: ManualClock) -> None:
    vendor = Vendor(clock, "answer")

    with transaction(), pytest.raises(CallInsideTransaction, match="vendor fetch inside handled_in"):
        await run(make(), vendor)

    assert vendor.asked == []


# Cancellation.


LINES = 2
"""One timer for all attempts' limits, one for all deadlines: each rings once more after the last call, for nobody."""


def unleaked(guard: Guard, clock: ManualClock) -> None:
    """Nothing is held any more: no timer, and one probe may come at once."""
    assert guard.snapshot().running == 0
    assert clock.pending <= LINES
    for operation in ("", "fetch"):
        circuit = guard.circuit(operation)
        assert circuit is not None
        assert circuit.refuses(clock.monotonic()) is None


@pytest.mark.parametrize("at", ["attempt", "wait", "refresh", "probe"])
async def test_a_cancellation_passes_unchanged_wherever_it_strikes(
    make: Make, clock: ManualClock, signals: list[Signal], at: str
) -> None:
    guard = make(Policy(deadline=500, breaker=Breaker(consecutive=3)))
    script: dict[str, list[object]] = {
        "attempt": [100.0],
        "wait": [Throttled("429", retry_after=50)],
        "refresh": [CredentialRefused("401")],
        "probe": [100.0],
    }
    if at == "probe":
        await tripped(guard, clock, Effect.ONCE)
        await clock.advance(20)
    before = guard.snapshot().circuits

    async def refresh() -> None:
        await clock.sleep(100)

    task = asyncio.create_task(run(guard, Vendor(clock, *script[at]), Effect.ONCE, refresh=refresh))
    await clock.advance(1)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert caught.value.args == ("enough",)
    assert task.cancelled()
    finished = of(signals, CallFinished)[-1]
    assert isinstance(finished, CallFinished)
    assert finished.outcome == "cancelled"
    unleaked(guard, clock)
    for name, circuit in guard.snapshot().circuits.items():
        assert circuit.calls == (before[name].calls if name in before else 0)


async def test_a_cancelled_probe_leaves_its_place_to_the_next_caller(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(retry=None, breaker=Breaker(probes_to_close=1)))
    await tripped(guard, clock)
    await clock.advance(5)
    probe = asyncio.create_task(run(guard, Vendor(clock, 100.0)))
    await clock.advance(0)
    assert isinstance(await failure(clock, run(guard, Vendor(clock, "x"))), CircuitOpen)

    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert guard.snapshot().circuits[""].state is CircuitState.HALF_OPEN

    assert await run(guard, Vendor(clock, "x")) == "answer"
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


async def test_a_probe_that_will_not_end_holds_its_place_for_its_timeout_and_a_second(
    make: Make, clock: ManualClock
) -> None:
    guard = make(Policy(retry=None, timeout=5, breaker=Breaker(probes_to_close=1)))
    await tripped(guard, clock)
    await clock.advance(5)
    released = asyncio.Event()

    async def stubborn() -> str:
        try:
            await released.wait()
        except asyncio.CancelledError:  # what no exchange should do
            await released.wait()
        return "late"

    probe = asyncio.create_task(guard.read(stubborn))
    await clock.advance(5.9)
    assert isinstance(await failure(clock, run(guard, Vendor(clock, "x"))), CircuitOpen)
    await clock.advance(0.2)

    assert await run(guard, Vendor(clock, "x")) == "answer"
    released.set()
    assert await probe == "late"


async def test_an_outer_timeout_wins(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(timeout=5, breaker=Breaker(consecutive=1)))

    async def call() -> None:
        async with clock.timeout(2):
            await run(guard, Vendor(clock, 100.0))

    task = asyncio.create_task(call())
    await clock.advance(2)

    with pytest.raises(TimeoutError) as caught:
        await task
    assert not isinstance(caught.value, CallFailed)
    assert task.cancelling() == 0
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED
    unleaked(guard, clock)


async def test_an_outer_timeout_at_the_same_instant_wins_too(make: Make, clock: ManualClock) -> None:
    guard = make(Policy(timeout=5, retry=None))

    async def call() -> str:
        try:
            async with clock.timeout(5):
                await run(guard, Vendor(clock, 100.0))
        except TimeoutError:
            return "outer"
        except OutcomeUnknown:
            return "inner"
        return "none"

    task = asyncio.create_task(call())
    await clock.advance(5)

    assert await task in ("outer", "inner")
    assert task.cancelling() == 0
    unleaked(guard, clock)


async def test_a_timeout_inside_the_exchange_is_the_exchanges_own(make: Make, clock: ManualClock) -> None:
    async def exchange() -> str:
        try:
            async with clock.timeout(1):
                await clock.sleep(100)
        except TimeoutError:
            return "handled"
        return "never"

    assert await in_time(clock, make(Policy(timeout=5)).read(exchange)) == "handled"


async def test_ten_thousand_cancellations_leak_nothing(clock: ManualClock) -> None:
    random = Random(7)
    guard = Guard(
        "vendor", Policy(timeout=2, deadline=8, breaker=Breaker(open_for=0.5, open_cap=1)), clock=clock, random=random
    )
    script: list[Callable[[], object]] = [
        lambda: "answer",
        lambda: random.uniform(0, 4),
        lambda: OutcomeUnknown("500", hard=True),
        lambda: Throttled("429", retry_after=random.uniform(0, 3)),
        lambda: NotSent("dns", hard=True),
        lambda: CredentialRefused("401"),
    ]

    async def refresh() -> None:
        await clock.sleep(random.uniform(0, 2))

    for _ in range(100):
        tasks = [
            asyncio.create_task(
                run(guard, Vendor(clock, random.choice(script)()), random.choice(EFFECTS), refresh=refresh)
            )
            for _ in range(100)
        ]
        for task in tasks:
            if random.random() < 0.02:
                await clock.advance(random.uniform(0, 1))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert guard.snapshot().running == 0
        assert clock.pending <= LINES

    await clock.advance(10)
    for _ in range(4):
        assert await run(guard, Vendor(clock, "answer"), Effect.ONCE) == "answer"
    assert {circuit.state for circuit in guard.snapshot().circuits.values()} == {CircuitState.CLOSED}


# An outage as a whole.


async def test_a_ten_minute_outage_is_not_multiplied(make: Make, clock: ManualClock) -> None:
    guard = make(Policy())
    vendor = Vendor(clock, OutcomeUnknown("500", hard=True))
    offered = 0

    calls: list[Awaitable[object]] = []
    while clock.monotonic() < 600:
        calls.append(asyncio.create_task(run(guard, vendor)))
        offered += 1
        await clock.advance(0.2)
    await asyncio.gather(*calls, return_exceptions=True)

    assert len(vendor.asked) / offered < 0.02


def test_resilience_imports_no_http_library_no_pydantic_and_no_tenacity() -> None:
    heavy = {"anyio", "httpcore", "httpx", "pybreaker", "pydantic", "redis", "tenacity"}
    code = "import sys, holdfast.resilience, holdfast.resilience.guard; print(*sys.modules)"

    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert heavy & set(imported) == set()


async def test_a_vendor_that_cannot_be_reached_opens_its_own_circuit_and_no_operations(clock: ManualClock) -> None:
    guard = Guard("shop", ONE, clock=clock)

    for _ in range(5):
        with pytest.raises(NotSent):
            await guard.run(Vendor(clock, NotSent("down", hard=True)), effect=Effect.ONCE, operation="order")

    assert {name: circuit.state for name, circuit in guard.snapshot().circuits.items()} == {
        "": CircuitState.OPEN,
        "order": CircuitState.CLOSED,
    }


async def test_a_refresh_that_fails_names_the_provider(clock: ManualClock) -> None:
    async def refresh() -> None:
        raise NotSent("the token server is down", local=True)

    with pytest.raises(NotSent) as caught:
        await Guard("shop", clock=clock).run(
            Vendor(clock, CredentialRefused("old")), effect=Effect.READ, operation="order", refresh=refresh
        )

    assert (caught.value.provider, caught.value.operation) == ("shop", "order")


async def test_a_file_of_the_callers_own_that_is_missing_says_nothing_about_the_vendor(clock: ManualClock) -> None:
    guard = Guard("shop", Policy(retry=None, breaker=Breaker(consecutive=1)), clock=clock)
    vendor = Vendor(clock, FileNotFoundError(2, "No such file", "settings.toml"))

    with pytest.raises(FileNotFoundError):
        await guard.read(vendor)

    assert len(vendor.asked) == 1
    assert guard.snapshot().circuits[""].calls == 0
