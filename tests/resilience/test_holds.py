"""A credential pauses after the vendor said so, the others go on."""

import asyncio
from collections.abc import Callable, Coroutine
from math import inf, nan
from random import Random
from typing import Any

import pytest

from holdfast.errors import CallFailed, CredentialRefused, OnHold, OutcomeUnknown, Refused, Throttled
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import Guard
from holdfast.resilience.holds import LONGEST, MOST, REFUSED_FOR, Holds
from holdfast.resilience.policy import Breaker, Policy, Retry
from holdfast.telemetry import CallRejected, CredentialHeld, Signal, Telemetry
from holdfast.testing.clock import ManualClock

# The holds alone.


def test_a_hold_is_only_ever_extended() -> None:
    holds = Holds()

    assert holds.extend("a", 10, 0)
    assert not holds.extend("a", 5, 0)
    assert not holds.extend("a", 4, 6)
    assert holds.extend("a", 5, 6)

    assert holds.left("a", 6) == 5
    assert holds.left("b", 6) == 0
    assert holds.left("a", 11) == 0
    assert holds.scopes == {}


@pytest.mark.parametrize("seconds", [0.0, -1.0, nan, -inf])
def test_nonsense_holds_nobody(seconds: float) -> None:
    holds = Holds()

    assert not holds.extend("a", seconds, 0)

    assert holds.scopes == {}


@pytest.mark.parametrize("seconds", [LONGEST + 1, 1e9, inf])
def test_after_an_hour_one_may_ask_again_whatever_was_said(seconds: float) -> None:
    holds = Holds()

    holds.extend("a", seconds, 0)

    assert holds.left("a", 0) == LONGEST


def test_a_rotated_credential_is_free_at_once() -> None:
    holds = Holds()
    holds.extend("a", 10, 0)

    holds.drop("a")
    holds.drop("unknown")

    assert holds.left("a", 0) == 0


def test_of_too_many_holds_those_that_end_first_are_forgotten() -> None:
    holds = Holds()
    for number in range(MOST):
        holds.extend(str(number), 1 + number / MOST, 0)

    holds.extend("one more", 5, 0)

    assert len(holds.scopes) == MOST
    assert holds.left("0", 0) == 0
    assert holds.left("one more", 0) == 5


# Through the guard.


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signals() -> list[Signal]:
    return []


@pytest.fixture
def make(clock: ManualClock, signals: list[Signal]) -> Callable[..., Guard]:
    def make(seed: int = 1, **parts: Any) -> Guard:
        policy = Policy(**({"retry": None} | parts))
        return Guard("vendor", policy, clock=clock, random=Random(seed), telemetry=Telemetry([signals.append]))

    return make


Make = Callable[..., Guard]


async def answer() -> str:
    return "answer"


def raising(error: Exception) -> Callable[[], Coroutine[Any, Any, None]]:
    async def exchange() -> None:
        raise error

    return exchange


def call(guard: Guard, exchange: Callable[[], Any], credential: str = "a", **options: Any) -> Coroutine[Any, Any, Any]:
    return guard.run(exchange, effect=Effect.ONCE, operation="send", credential=credential, **options)


async def told(coroutine: Coroutine[Any, Any, object]) -> object:
    try:
        return await coroutine
    except CallFailed as error:
        return error


async def in_time(clock: ManualClock, coroutine: Coroutine[Any, Any, object]) -> object:
    task, end = asyncio.create_task(told(coroutine)), clock.monotonic() + 100
    await clock.advance(0)
    while not task.done() and clock.monotonic() < end:
        await clock.advance(0.05)
    assert task.done(), "it hangs"
    return await task


@pytest.mark.parametrize("error", [Throttled("429", status=429, retry_after=30), Refused("quota", retry_after=30)])
async def test_a_credential_that_is_asked_to_pause_pauses_alone(
    make: Make, clock: ManualClock, signals: list[Signal], error: CallFailed
) -> None:
    guard = make(deadline=5)
    await told(call(guard, raising(error)))

    held = await told(call(guard, answer))

    assert isinstance(held, OnHold)
    assert held.retry_after == 30
    assert (held.local, held.reason, held.provider, held.operation) == (True, "hold", "vendor", "send")
    assert "for a" in str(held)
    assert await call(guard, answer, "b") == "answer"
    assert await guard.once(answer) == "answer"
    assert guard.snapshot().holds == {"a": 30}
    assert CredentialHeld("vendor", "a", 30) in signals
    assert CallRejected("vendor", "send", "hold", 30) in signals


async def test_a_503_is_of_the_provider_and_holds_no_credential(make: Make, clock: ManualClock) -> None:
    guard = make(breaker=Breaker(consecutive=1))

    await told(call(guard, raising(Refused("503", status=503, hard=True, retry_after=30))))

    assert guard.snapshot().holds == {}
    assert guard.snapshot().circuits[""].state is CircuitState.OPEN


async def test_a_429_without_a_time_holds_nobody(make: Make, clock: ManualClock) -> None:
    guard = make()

    await told(call(guard, raising(Throttled("429"))))

    assert guard.snapshot().holds == {}


async def test_a_hold_ends_by_itself_and_calls_are_usual_again(make: Make, clock: ManualClock) -> None:
    guard = make(deadline=5)
    await told(call(guard, raising(Throttled("429", retry_after=30)), ""))
    assert not guard._shared.calm
    assert isinstance(await told(guard.once(answer)), OnHold)

    await clock.advance(30)

    assert await guard.once(answer) == "answer"
    assert guard._shared.calm
    assert guard.snapshot().holds == {}


async def test_a_rotated_credential_has_another_name_and_a_released_one_its_own(make: Make, clock: ManualClock) -> None:
    guard = make(deadline=5)
    for credential in ("token-1", "token-2"):
        await told(call(guard, raising(Throttled("429", retry_after=30)), credential))

    guard.release("token-2")

    assert isinstance(await told(call(guard, answer, "token-1")), OnHold)
    assert await call(guard, answer, "token-2") == "answer"
    assert await call(guard, answer, "token-3") == "answer"


@pytest.mark.parametrize("seed", range(30))
async def test_a_pause_within_the_deadline_is_waited_for_and_never_beyond_it(
    make: Make, clock: ManualClock, seed: int
) -> None:
    guard = make(seed, deadline=10)
    await told(call(guard, raising(Throttled("429", retry_after=9.7))))

    assert await in_time(clock, call(guard, answer)) == "answer"

    assert 9.7 <= clock.monotonic() <= 10.01


@pytest.mark.parametrize(("pause", "waits"), [(15, True), (25, False)])
async def test_without_a_deadline_a_pause_is_waited_for_up_to_the_policys_cap(
    make: Make, clock: ManualClock, pause: float, waits: bool
) -> None:
    guard = make(retry=Retry(attempts=1, cap=20))
    await told(call(guard, raising(Throttled("429", retry_after=pause))))

    result = await in_time(clock, call(guard, answer))

    assert (result == "answer") == waits
    assert (clock.monotonic() >= pause) == waits
    assert waits or isinstance(result, OnHold)


async def test_without_a_deadline_or_retries_nobody_waits_for_a_pause(make: Make, clock: ManualClock) -> None:
    guard = make()
    await told(call(guard, raising(Throttled("429", retry_after=0.5))))

    assert isinstance(await told(call(guard, answer)), OnHold)


async def test_a_repeat_waits_for_its_own_credentials_pause_once(make: Make, clock: ManualClock) -> None:
    guard = make(retry=Retry(), deadline=30)
    asked: list[float] = []

    async def send() -> str:
        asked.append(clock.monotonic())
        if len(asked) == 1:
            raise Throttled("429", retry_after=7)
        return "answer"

    assert await in_time(clock, call(guard, send)) == "answer"

    assert 7 <= asked[1] <= 7.8


async def test_a_refused_credential_pauses_once_a_fresh_one_is_refused_too(make: Make, clock: ManualClock) -> None:
    guard, refreshed = make(deadline=5), list[int]()

    async def refresh() -> None:
        refreshed.append(1)

    assert isinstance(await told(call(guard, raising(CredentialRefused("401")), refresh=refresh)), CredentialRefused)

    assert refreshed == [1]
    assert guard.snapshot().holds == {"a": REFUSED_FOR}
    assert isinstance(await told(call(guard, answer)), OnHold)
    assert await call(guard, answer, "fresh") == "answer"
    assert guard.snapshot().circuits[""].state is CircuitState.CLOSED


async def test_a_refused_credential_without_a_name_pauses_nobody(make: Make, clock: ManualClock) -> None:
    guard = make()

    await told(guard.once(raising(CredentialRefused("401"))))

    assert guard.snapshot().holds == {}


async def test_a_refresh_that_helps_leaves_no_hold(make: Make, clock: ManualClock) -> None:
    guard, script = make(), [CredentialRefused("401")]

    async def send() -> str:
        if script:
            raise script.pop()
        return "answer"

    async def refresh() -> None:
        pass

    assert await call(guard, send, refresh=refresh) == "answer"

    assert guard.snapshot().holds == {}


async def test_a_refresh_that_breaks_passes_its_own_error_and_is_no_deadline(make: Make, clock: ManualClock) -> None:
    mine = TimeoutError("the token server")

    async def refresh() -> None:
        raise mine

    with pytest.raises(TimeoutError) as caught:
        await call(make(), raising(CredentialRefused("401")), refresh=refresh)

    assert caught.value is mine


async def test_an_earlier_unknown_outcome_is_not_hidden_by_a_hold(make: Make, clock: ManualClock) -> None:
    guard = make(retry=Retry(base=0, cap=0), breaker=None)

    async def send() -> None:
        guard._shared.holds.extend("a", 50, clock.monotonic())
        raise OutcomeUnknown("reset")

    error = await told(guard.run(send, effect=Effect.KEYED, operation="send", credential="a"))

    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, OnHold)
    assert error.retry_after == 50


async def test_a_refused_credential_is_not_waited_for() -> None:
    clock = ManualClock()
    guard = Guard("vendor", Policy(deadline=60), clock=clock)

    async def refuse() -> None:
        raise CredentialRefused("401")

    async def answer() -> str:
        return "answer"

    with pytest.raises(CredentialRefused):
        await guard.run(refuse, effect=Effect.READ, operation="fetch", credential="key-1")

    with pytest.raises(OnHold, match="on hold for key-1") as caught:
        await guard.run(answer, effect=Effect.READ, operation="fetch", credential="key-1")
    assert caught.value.retry_after == 10
    assert await guard.run(answer, effect=Effect.READ, operation="fetch", credential="key-2") == "answer"
    await clock.advance(10)
    assert await guard.run(answer, effect=Effect.READ, operation="fetch", credential="key-1") == "answer"
