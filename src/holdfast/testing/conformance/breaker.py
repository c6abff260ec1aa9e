"""How a circuit breaker must behave, as scenarios that run on any of them through a small adapter."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import Final, Protocol, TypeAlias, runtime_checkable

from holdfast.errors import CallFailed, CircuitOpen, OutcomeUnknown, Rejected, Throttled
from holdfast.outcome import Effect
from holdfast.resilience.breaker import Circuit, CircuitState, Denied, Result
from holdfast.resilience.fleet import Fleet
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy, Retry
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock

TURNS: Final = 20
"""Turns of the loop a call gets to reach the provider."""
LATER: Final = 1.1
"""Open periods after which one is surely over."""
NO_SUCH_NOTION: Final = "no such notion"
"""What happened where an adapter offers no such thing: the scenario was not played, and is not passed."""


class Down(Exception):
    """The provider failed: a 5xx, no connection."""


class Lost(Down):
    """The request was sent and its answer never came: it may have taken effect."""


class SaidNo(Exception):
    """The provider is alive and refused this one request, as with a 404: no failure of its health."""


class SlowDown(Exception):
    """The provider asked us to slow down, as with a 429: it says nothing of its health, neither way."""

    def __init__(self, message: str = "slow down", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds it asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The breaker a scenario wants; an adapter leaves out what its breaker does not have."""

    open_for: float
    """Seconds of the first open period, on whatever clock the adapter's `pass_time` moves."""
    consecutive: int = 2
    """Opens after so many failures in a row."""
    failure_rate: float = 0.5
    """Opens when this share of the last calls failed, from 20 on."""
    slow_after: float | None = None
    """A call that takes longer is slow, and four slow calls in five open it; None: slowness does not count."""
    probe_lease: float = inf
    """A probe that has not ended after so many seconds is given up."""
    attempts: int = 1
    """Submissions of one call in all, without a wait between them, where repeating it does no harm."""


class BreakerUnderTest(Protocol):
    """A breaker behind an adapter."""

    @property
    def state(self) -> CircuitState:
        """Closed, open or half-open."""
        ...

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        """Call it through the breaker; any exception without the function called is a rejection.

        It only looks, so it may be repeated.
        """
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let time pass: move a manual clock, or sleep."""
        ...


# What not every breaker has; an adapter offers it by having the method.


@runtime_checkable
class SupportsOnce(Protocol):
    """Knows that some calls must not be repeated."""

    async def once(self, function: Callable[[], Awaitable[object]]) -> object:
        """Call what must not happen twice, with the same settings as any other call."""
        ...


@runtime_checkable
class SupportsKeyed(Protocol):
    """Repeats a call that changes something, where the provider honours its key."""

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        """Call it, with this key in every submission."""
        ...


@runtime_checkable
class SupportsHolds(Protocol):
    """Pauses a credential that was asked to slow down, and no other."""

    async def call_as(self, credential: str, function: Callable[[], Awaitable[object]]) -> object:
        """Call it with this credential."""
        ...


@runtime_checkable
class SupportsFleet(Protocol):
    """Shares what it knows with other processes."""

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        """So many breakers as in processes of their own, sharing state and time."""
        ...


@runtime_checkable
class SupportsClosing(Protocol):
    """Holds something that has to be given back."""

    async def aclose(self) -> None:
        """The scenario is over."""
        ...


Make: TypeAlias = Callable[[Settings], BreakerUnderTest]
"""Makes a fresh breaker for each scenario."""
Seen: TypeAlias = tuple[bool, str]
"""Whether it went as it should, and what happened."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that happens to every breaker one day."""

    rule: str
    play: Callable[[Make, float], Awaitable[Seen]]

    @property
    def name(self) -> str:
        return self.play.__name__


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a breaker did in a scenario."""

    scenario: str
    rule: str
    passed: bool
    happened: str


async def examine(
    make: Make, *, open_for: float = 0.03, scenarios: Sequence[Scenario] | None = None
) -> tuple[Finding, ...]:
    """Play scenarios on breakers that `make` makes, by default all that take no more than a breaker; in their order.

    `open_for` is the scale of time: with breakers on the real clock a run takes about 60 times as long.
    """
    findings: list[Finding] = []
    for scenario in SCENARIOS if scenarios is None else scenarios:
        try:
            passed, happened = await scenario.play(make, open_for)
        except _Unfit as why:
            passed, happened = False, str(why)
        findings.append(Finding(scenario=scenario.name, rule=scenario.rule, passed=passed, happened=happened))
    return tuple(findings)


# The scenarios.


async def one_probe(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        await bench.trip(2)
        callers = [await bench.start() for _ in range(100)]
        probes = sum(caller.reached for caller in callers)
        return probes == 1, f"{probes} of 100 callers reached the provider"


async def cancelled_calls(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        for _ in range(3):
            await (await bench.start()).cancel()
        return bench.stands(CircuitState.CLOSED), f"{bench.state} after three cancelled calls"


async def cancelled_probe(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        await bench.trip(2)
        await (await bench.start()).cancel()
        state = bench.state
        following = await bench.start()
        said = f"{state} after it, the next call was {'admitted' if following.reached else 'rejected'}"
        return state is not CircuitState.CLOSED and following.reached, said


async def old_success(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        old = await bench.start()
        await bench.trip(2)
        await bench.start()
        await old.answer()
        return bench.stands(CircuitState.HALF_OPEN), f"{bench.state} after it"


async def old_failure(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for, consecutive=1)) as bench:
        old = await bench.start()
        await bench.trip(1)
        await bench.call()
        if not bench.stands(CircuitState.CLOSED):
            return False, f"{bench.state} after a probe succeeded"
        await old.answer(Down())
        return bench.stands(CircuitState.CLOSED), f"{bench.state} after it"


async def interleaved_failures(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for, consecutive=5)) as bench:
        for number in range(1, 501):
            reached = await bench.call(Down() if number % 5 else None)
            if not reached and number == 1:
                raise _Unfit("the first call was rejected")
            if bench.stands(CircuitState.OPEN):
                return True, f"open after {number} calls"
        return False, f"{bench.state} after 500 calls"


async def refused_probe(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        await bench.trip(2)
        await bench.call(SaidNo())
        return bench.stands(CircuitState.CLOSED), f"{bench.state} after it"


async def slow_calls(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for, consecutive=5, slow_after=open_for)) as bench:
        calls = [await bench.start() for _ in range(20)]
        if not all(call.reached for call in calls):
            raise _Unfit("not every first call was admitted")
        await bench.pass_time(2 * open_for)
        for call in calls:
            await call.answer()
        return bench.stands(CircuitState.OPEN), f"{bench.state} after 20 calls of twice the time that is slow"


async def growing_open_time(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        await bench.fail(2)
        periods = [await _open_period(bench, open_for) for _ in range(4)]
        said = "open periods, in first ones: " + ", ".join(f"{period:g}" for period in periods)
        return periods[0] <= LATER * 1.25 and periods[3] >= 2.5, said


async def _open_period(bench: "_Bench", open_for: float) -> float:
    """Wait until a probe is admitted, and fail it; in multiples of `open_for`.

    It counts polls and reads no clock: a machine that stalls then makes no period look longer.
    """
    for quarters in range(1, 48):
        await bench.pass_time(open_for / 4)
        if await bench.call(Down()):
            return quarters / 4
    raise _Unfit("no call was admitted in 12 open periods")


async def neutral_results(make: Make, open_for: float) -> Seen:
    settings = Settings(open_for=open_for, consecutive=3)
    async with _bench(make, settings) as bench:
        for _ in range(30):
            await bench.call(SlowDown())
        if not bench.stands(CircuitState.CLOSED):
            return False, f"{bench.state} after nothing but neutral results"
    async with _bench(make, settings) as bench:
        for error in (Down(), Down(), SlowDown(), Down()):
            await bench.call(error)
        if not bench.stands(CircuitState.OPEN):
            return False, f"{bench.state}: one neutral result took back two failures"
        await bench.pass_time(LATER * open_for)
        await bench.call(SlowDown())
        state = bench.state
        following = await bench.start()
        said = f"{state} after a neutral probe, the next call was {'admitted' if following.reached else 'rejected'}"
        return state is not CircuitState.CLOSED and following.reached, said


async def hung_probe(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for, probe_lease=3 * open_for)) as bench:
        await bench.trip(2)
        hung = await bench.start()
        for waited in range(1, 20):
            await bench.pass_time(open_for)
            if (await bench.start()).reached:
                await hung.answer()
                said = f"after {waited} open periods another call was admitted; {bench.state} after the late answer"
                return not bench.stands(CircuitState.CLOSED), said
        return False, "no call was admitted in 20 open periods"


async def cancelled_probes(make: Make, open_for: float) -> Seen:
    async with _bench(make, Settings(open_for=open_for)) as bench:
        await bench.trip(2)
        for number in range(1, 51):
            probe = await bench.start()
            if not probe.reached:
                return False, f"probe {number} was rejected"
            await probe.cancel()
            if not probe.cancelled:
                return False, f"the cancellation of probe {number} became something else"
            if bench.stands(CircuitState.CLOSED):
                return False, f"closed after {number} cancelled probes"
        await bench.call()
        return bench.stands(CircuitState.CLOSED), f"{bench.state} after 50 cancelled probes and one that succeeded"


async def late_results(make: Make, open_for: float) -> Seen:
    wrong: list[str] = []
    for kind, end in _ENDS.items():
        for when, play in (("open", _late_open), ("half-open", _late_half_open), ("closed again", _late_closed)):
            async with _bench(make, Settings(open_for=open_for, consecutive=1)) as bench:
                old = await bench.start()
                if not await play(bench, partial(end, old)):
                    wrong.append(f"{kind} while {when}")
    return not wrong, f"these changed something: {', '.join(wrong)}" if wrong else "none of fifteen changed anything"


async def _late_open(bench: "_Bench", end: "_End") -> bool:
    """It stays open, and not longer than before."""
    await bench.fail(1)
    await bench.pass_time(bench.open_for / 4)
    await end()
    stayed = bench.stands(CircuitState.OPEN)
    await bench.pass_time((LATER - 0.25) * bench.open_for)
    return stayed and (await bench.start()).reached


async def _late_half_open(bench: "_Bench", end: "_End") -> bool:
    """It stays half-open, and the probe keeps its place."""
    await bench.trip(1)
    probe = await bench.start()
    await end()
    stayed = bench.stands(CircuitState.HALF_OPEN) and not (await bench.start()).reached
    await probe.answer()
    return stayed and bench.stands(CircuitState.CLOSED)


async def _late_closed(bench: "_Bench", end: "_End") -> bool:
    """It stays closed."""
    await bench.trip(1)
    await bench.call()
    was_closed = bench.stands(CircuitState.CLOSED)
    await end()
    return was_closed and bench.stands(CircuitState.CLOSED)


async def few_failures(make: Make, open_for: float) -> Seen:
    settings = Settings(open_for=open_for, consecutive=5)
    async with _bench(make, settings) as bench:
        await bench.fail(5)
    chance = Random(1)
    async with _bench(make, settings) as bench:
        for number in range(1, 2001):
            reached = await bench.call(Down() if chance.random() < 0.01 else None)
            if not reached or not bench.stands(CircuitState.CLOSED):
                return False, f"{bench.state} after {number} calls"
        return True, "closed after 2000 calls"


async def unknown_outcome(make: Make, open_for: float) -> Seen:
    breaker = make(Settings(open_for=open_for, consecutive=10, attempts=3))
    if not isinstance(breaker, SupportsOnce):
        raise _Unfit(NO_SUCH_NOTION)
    reads, effects = _Losing(3), _Losing(3)
    with suppress(Exception):  # whatever it makes of a lost answer
        await breaker.call(reads)
    with suppress(Exception):
        await breaker.once(effects)
    said = f"with its answer lost a read was sent {reads.sent} times, and what must not happen twice {effects.sent}"
    return reads.sent == 3 and effects.sent == 1, said


async def keyed_retry(make: Make, open_for: float) -> Seen:
    breaker = make(Settings(open_for=open_for, consecutive=10, attempts=3))
    if not isinstance(breaker, SupportsKeyed):
        raise _Unfit(NO_SUCH_NOTION)
    keys: list[str] = []
    post = _Losing(2)

    async def at_provider(key: str) -> None:
        keys.append(key)
        await post()

    answered = False
    with suppress(Exception):
        await breaker.keyed("key-1", at_provider)
        answered = True
    said = f"sent {len(keys)} times with {len(set(keys))} key, {'answered' if answered else 'given up'}"
    return answered and keys == ["key-1"] * 3, said


async def hold(make: Make, open_for: float) -> Seen:
    asked = 10 * open_for
    async with _bench(make, Settings(open_for=open_for)) as bench:
        breaker = bench.breaker
        if not isinstance(breaker, SupportsHolds):
            raise _Unfit(NO_SUCH_NOTION)
        first, second = partial(breaker.call_as, "first"), partial(breaker.call_as, "second")
        await (await bench.start(first)).answer(SlowDown(retry_after=asked))
        paused = not (await bench.start(first)).reached
        other = (await bench.start(second)).reached
        closed = bench.stands(CircuitState.CLOSED)
        await bench.pass_time(LATER * asked)
        afterwards = (await bench.start(first)).reached
        said = (
            f"the credential {'paused' if paused else 'went on'}, another {'went on' if other else 'was stopped too'}, "
            f"the circuit was {'closed' if closed else 'not closed'}; "
            f"afterwards the credential {'went on' if afterwards else 'was still stopped'}"
        )
        return paused and other and closed and afterwards, said


async def fleet(make: Make, open_for: float) -> Seen:
    breaker = make(Settings(open_for=open_for))
    if not isinstance(breaker, SupportsFleet):
        raise _Unfit(NO_SUCH_NOTION)
    benches = [_Bench(member, open_for) for member in await breaker.fleet(8)]
    try:
        for bench in benches:
            for _ in range(2):
                await bench.call(Down())
        await benches[0].pass_time(LATER * open_for)
        callers = [await bench.start() for bench in benches for _ in range(25)]
        probes = sum(caller.reached for caller in callers)
        return probes == 1, f"{probes} of 200 callers in 8 processes reached the provider"
    finally:
        for bench in benches:
            await bench.close()
        if isinstance(breaker, SupportsClosing):
            await breaker.aclose()


SEVEN: Final = (
    Scenario("Of 100 callers after the open period one reaches the provider.", one_probe),
    Scenario("Cancelled calls count for nothing.", cancelled_calls),
    Scenario("A cancelled probe decides nothing, and the next call may probe.", cancelled_probe),
    Scenario("A success from before it opened does not close it.", old_success),
    Scenario("A failure from before it opened does not open it again.", old_failure),
    Scenario("Four failures in five open it, though never five in a row.", interleaved_failures),
    Scenario("A probe that is refused as a request proves the provider alive.", refused_probe),
)
"""What the breakers of the field were measured by."""
FURTHER: Final = (
    Scenario("Four slow calls in five open it.", slow_calls),
    Scenario("Open periods grow while probes fail.", growing_open_time),
    Scenario("A neutral result is neither a failure nor a success.", neutral_results),
    Scenario("A probe that never ends does not stop the next, and its late answer decides nothing.", hung_probe),
    Scenario(
        "Any number of cancelled probes decide nothing, and stay cancellations to their callers.", cancelled_probes
    ),
    Scenario("No late result of any kind changes a later state, frees a place or prolongs anything.", late_results),
    Scenario("One failure in a hundred never opens it.", few_failures),
)
"""What else a breaker meets."""
BEYOND: Final = (
    Scenario("What may have happened and must not happen twice is never repeated, though reads are.", unknown_outcome),
    Scenario("A call with a key the provider honours is repeated with that key.", keyed_retry),
    Scenario("A credential asked to slow down pauses for as long, and no other with it.", hold),
    Scenario("Of a whole fleet's callers after the open period one reaches the provider.", fleet),
)
"""What takes more than a breaker; an adapter says by its methods which of it there is."""
EXTENDED: Final = FURTHER + BEYOND
SCENARIOS: Final = SEVEN + FURTHER


class _Unfit(Exception):
    """The breaker did not get as far as the scenario."""


class _Call:
    """A call under way, that ends when the scenario says so; it owns its task, and `answer` or `cancel` ends it."""

    def __init__(self, through: "_Through") -> None:
        self.reached = False
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._make(through))

    @property
    def cancelled(self) -> bool:
        """Whether it ended as a cancellation."""
        return self._task.cancelled()

    async def _make(self, through: "_Through") -> None:
        with suppress(Exception):  # whatever a breaker makes of a failure or a rejection
            await through(self._at_provider)

    async def _at_provider(self) -> None:
        self.reached = True
        await self._answer

    async def answer(self, error: Exception | None = None) -> None:
        """Let the provider answer, if it was reached and is still waited for."""
        if not self.reached or self._answer.done():
            return
        if error is None:
            self._answer.set_result(None)
        else:
            self._answer.set_exception(error)
        await asyncio.wait({self._task})

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


class _Losing:
    """A provider that does what it is asked, but whose first answers are lost."""

    def __init__(self, lost: int) -> None:
        self.sent = 0
        self._lost = lost

    async def __call__(self) -> None:
        self.sent += 1
        if self.sent <= self._lost:
            raise Lost


class _Bench:
    """One breaker, and the calls made through it."""

    def __init__(self, breaker: BreakerUnderTest, open_for: float) -> None:
        self.breaker = breaker
        self.open_for = open_for
        self._calls: list[_Call] = []

    @property
    def state(self) -> CircuitState:
        return self.breaker.state

    def stands(self, state: CircuitState) -> bool:
        return self.breaker.state is state

    async def pass_time(self, seconds: float) -> None:
        await self.breaker.pass_time(seconds)

    async def start(self, through: "_Through | None" = None) -> _Call:
        """Begin a call, and give it time to reach the provider."""
        call = _Call(through or self.breaker.call)
        self._calls.append(call)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return call

    async def call(self, error: Exception | None = None) -> bool:
        """Make a call that the provider answers at once; whether it was reached."""
        reached = False

        async def at_provider() -> None:
            nonlocal reached
            reached = True
            if error is not None:
                raise error

        with suppress(Exception):  # whatever a breaker makes of a failure or a rejection
            await self.breaker.call(at_provider)
        return reached

    async def fail(self, times: int) -> None:
        """Open it."""
        for _ in range(times):
            if not await self.call(Down()):
                raise _Unfit("a call was rejected before anything had failed often enough")
        if self.stands(CircuitState.CLOSED):
            raise _Unfit(f"still closed after {times} failures in a row")

    async def trip(self, failures: int) -> None:
        """Open it, and wait until a probe is due."""
        await self.fail(failures)
        await self.pass_time(LATER * self.open_for)

    async def close(self) -> None:
        for call in self._calls:
            await call.cancel()


_Through: TypeAlias = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]
_End: TypeAlias = Callable[[], Awaitable[None]]
_ENDS: Final[dict[str, Callable[[_Call], Awaitable[None]]]] = {
    "success": _Call.answer,
    "failure": lambda call: call.answer(Down()),
    "refusal": lambda call: call.answer(SaidNo()),
    "neutral result": lambda call: call.answer(SlowDown()),
    "cancellation": _Call.cancel,
}


@asynccontextmanager
async def _bench(make: Make, settings: Settings) -> AsyncGenerator[_Bench]:
    bench = _Bench(make(settings), settings.open_for)
    try:
        yield bench
    finally:
        await bench.close()


# Our own breakers, as examples of adapters.


class GuardUnderTest:
    """A guard with nothing but its circuit, its timeout and its repeats, on a manual clock."""

    def __init__(self, settings: Settings, clock: ManualClock | None = None, seed: int = 0) -> None:
        self._settings = settings
        self._clock = clock or ManualClock()
        self._fleet = AsyncExitStack()
        policy = Policy(
            retry=Retry(attempts=settings.attempts, base=0) if settings.attempts > 1 else None,
            timeout=settings.probe_lease if settings.probe_lease < inf else None,
            breaker=_breaker(settings),
        )
        self._guard = Guard("under-test", policy, clock=self._clock, random=Random(seed), classify=_as_failure)

    @property
    def state(self) -> CircuitState:
        circuit = self._guard.circuit()
        assert circuit is not None
        return circuit.state(self._clock.monotonic())

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        return await self._guard.read(function)

    async def once(self, function: Callable[[], Awaitable[object]]) -> object:
        return await self._guard.once(function)

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self._guard.keyed(key, function, key)

    async def call_as(self, credential: str, function: Callable[[], Awaitable[object]]) -> object:
        return await self._guard.run(function, effect=Effect.READ, operation="call", credential=credential)

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        store = await self._fleet.enter_async_context(MemoryStore(clock=self._clock))
        fleet = [GuardUnderTest(self._settings, self._clock, seed) for seed in range(members)]
        for member in fleet:
            await self._fleet.enter_async_context(Fleet(store, [member._guard], clock=self._clock))
        return fleet

    async def aclose(self) -> None:
        await self._fleet.aclose()

    async def pass_time(self, seconds: float) -> None:
        await self._clock.advance(seconds)


class CircuitUnderTest:
    """A bare circuit, told the time."""

    def __init__(self, settings: Settings) -> None:
        self._circuit = Circuit(_breaker(settings), Random(0))
        self._settings = settings
        self._now = 0.0

    @property
    def state(self) -> CircuitState:
        return self._circuit.state(self._now)

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        permit = self._circuit.admit(self._now, lease=self._settings.probe_lease)
        if isinstance(permit, Denied):
            raise CircuitOpen("denied", retry_after=permit.retry_after)
        begun, result = self._now, Result.NEUTRAL
        try:
            answer = await function()
            result = Result.SUCCESS
        except (Down, SaidNo) as error:
            result = Result.FAILURE if isinstance(error, Down) else Result.SUCCESS
            raise
        finally:
            slow = self._now - begun > (self._settings.slow_after or inf)
            self._circuit.record(permit, result, self._now, hard=result is Result.FAILURE, slow=slow)
        return answer

    async def pass_time(self, seconds: float) -> None:
        self._now += seconds


def _breaker(settings: Settings) -> Breaker:
    return Breaker(
        open_for=settings.open_for,
        consecutive=settings.consecutive,
        failure_rate=settings.failure_rate,
        slow_after=settings.slow_after,
        probes_to_close=1,
    )


def _as_failure(error: BaseException) -> CallFailed | None:
    if isinstance(error, Down):
        return OutcomeUnknown("down", status=500, hard=True)
    if isinstance(error, SaidNo):
        return Rejected("no", status=404)
    if isinstance(error, SlowDown):
        return Throttled(str(error), status=429, retry_after=error.retry_after)
    return None
