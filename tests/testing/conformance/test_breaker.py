"""The kit passes our own breakers, and fails those of others where they were measured to fail."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count

import aiobreaker
import purgatory
import pybreaker
import pytest

from holdfast.resilience.breaker import CircuitState
from holdfast.testing.conformance.breaker import (
    BEYOND,
    FURTHER,
    NO_SUCH_NOTION,
    SCENARIOS,
    SEVEN,
    BreakerUnderTest,
    CircuitUnderTest,
    Finding,
    GuardUnderTest,
    Make,
    SaidNo,
    Settings,
    SlowDown,
    examine,
)

OPEN_FOR = 0.005
"""Real seconds, for breakers that know no other."""


@pytest.mark.parametrize("make", [GuardUnderTest, CircuitUnderTest])
@pytest.mark.parametrize("open_for", [0.03, 60])
async def test_our_breakers_behave_in_every_scenario(make: Make, open_for: float) -> None:
    findings = await examine(make, open_for=open_for)

    assert [finding for finding in findings if not finding.passed] == []
    assert [finding.scenario for finding in findings] == [scenario.name for scenario in SCENARIOS]


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # aiobreaker's, on 3.12 and later
@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("pybreaker", {"old_success", "refused_probe"}),
        ("pybreaker without cancellations", {"cancelled_calls", "old_success", "refused_probe"}),
        ("aiobreaker", {"cancelled_calls", "cancelled_probe", "old_success", "refused_probe"}),
        ("purgatory", {"refused_probe"}),
    ],
)
async def test_breakers_of_others_fail_where_they_were_measured_to_fail(name: str, passes: set[str]) -> None:
    findings = await examine(FOREIGN[name], open_for=OPEN_FOR, scenarios=SEVEN)

    assert {finding.scenario for finding in findings if finding.passed} == passes


async def test_a_breaker_of_consecutive_failures_fails_nearly_all_that_goes_further() -> None:
    findings = await examine(PybreakerUnderTest, open_for=OPEN_FOR, scenarios=FURTHER)

    assert {finding.scenario: finding.passed for finding in findings} == {
        "slow_calls": False,
        "growing_open_time": False,
        "neutral_results": False,
        "hung_probe": False,
        "cancelled_probes": False,
        "late_results": False,
        "few_failures": True,
    }


async def test_a_finding_says_what_happened() -> None:
    [finding] = await examine(PybreakerUnderTest, open_for=OPEN_FOR, scenarios=SEVEN[:1])

    assert finding == Finding(
        scenario="one_probe",
        rule="Of 100 callers after the open period one reaches the provider.",
        passed=False,
        happened="100 of 100 callers reached the provider",
    )


async def test_a_breaker_that_never_opens_passes_only_what_must_not_open_it() -> None:
    findings = await examine(NoBreaker)

    assert [finding.scenario for finding in findings if finding.passed] == ["cancelled_calls"]


async def test_a_breaker_that_admits_nobody_passes_nothing() -> None:
    findings = await examine(AlwaysOpen)

    assert [finding.scenario for finding in findings if finding.passed] == []


async def test_a_breaker_that_never_recovers_passes_only_what_must_not_open_it() -> None:
    findings = await examine(NeverRecovers)

    assert [finding.scenario for finding in findings if finding.passed] == ["cancelled_calls", "few_failures"]


async def test_a_guard_repeats_what_it_may_holds_what_it_must_and_shares_what_it_knows() -> None:
    findings = await examine(GuardUnderTest, scenarios=BEYOND)

    passed = {finding.scenario for finding in findings if finding.passed}
    assert passed == {"unknown_outcome", "keyed_retry", "hold", "fleet"}


async def test_what_an_adapter_does_not_offer_is_not_passed() -> None:
    findings = await examine(CircuitUnderTest, scenarios=BEYOND)

    assert [(finding.passed, finding.happened) for finding in findings] == [(False, NO_SUCH_NOTION)] * 4


async def test_retries_that_know_no_effects_repeat_what_must_not_happen_twice() -> None:
    findings = await examine(RetriesAll, scenarios=BEYOND)

    assert {finding.scenario: finding.happened for finding in findings} == {
        "unknown_outcome": "with its answer lost a read was sent 3 times, and what must not happen twice 3",
        "keyed_retry": "sent 3 times with 3 key, answered",
        "hold": NO_SUCH_NOTION,
        "fleet": NO_SUCH_NOTION,
    }
    assert not any(finding.passed for finding in findings)


@pytest.mark.parametrize(("per_credential", "passed"), [(True, True), (False, False)])
async def test_a_hold_stops_one_credential_only(per_credential: bool, passed: bool) -> None:
    findings = await examine(lambda settings: Holding(settings, per_credential), scenarios=BEYOND)

    assert [finding.passed for finding in findings if finding.scenario == "hold"] == [passed]


@pytest.mark.parametrize(("shared", "happened"), [(True, 1), (False, 8)])
async def test_a_fleet_sends_one_probe(shared: bool, happened: int) -> None:
    findings = await examine(lambda settings: InFleet(settings, shared), scenarios=BEYOND)

    [finding] = [finding for finding in findings if finding.scenario == "fleet"]
    assert finding.happened == f"{happened} of 200 callers in 8 processes reached the provider"
    assert finding.passed == shared


class RetriesAll(CircuitUnderTest):
    """Three times, whatever it is, and with a new key each time."""

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        for _ in range(2):
            with suppress(Exception):
                return await super().call(function)
        return await super().call(function)

    async def once(self, function: Callable[[], Awaitable[object]]) -> object:
        return await self.call(function)

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        numbers = count(1)
        return await self.call(lambda: function(f"{key}-{next(numbers)}"))


class Holding(CircuitUnderTest):
    """Waits as long as it is asked to, by credential or altogether."""

    def __init__(self, settings: Settings, per_credential: bool) -> None:
        super().__init__(settings)
        self._per_credential = per_credential
        self._until: dict[str, float] = {}
        self._at = 0.0

    async def call_as(self, credential: str, function: Callable[[], Awaitable[object]]) -> object:
        scope = credential if self._per_credential else ""
        if self._at < self._until.get(scope, 0.0):
            raise RuntimeError("on hold")
        try:
            return await self.call(function)
        except SlowDown as error:
            self._until[scope] = self._at + (error.retry_after or 0.0)
            raise

    async def pass_time(self, seconds: float) -> None:
        self._at += seconds
        await super().pass_time(seconds)


class InFleet(CircuitUnderTest):
    """One circuit for all processes, or one for each."""

    def __init__(self, settings: Settings, shared: bool) -> None:
        super().__init__(settings)
        self._others = [] if shared else [CircuitUnderTest(settings) for _ in range(7)]

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        return [self, *self._others] if self._others else [self] * members

    async def pass_time(self, seconds: float) -> None:
        await super().pass_time(seconds)
        for other in self._others:
            await other.pass_time(seconds)


class NoBreaker:
    """Everything goes through."""

    state = CircuitState.CLOSED

    def __init__(self, _settings: Settings) -> None: ...

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        return await function()

    async def pass_time(self, seconds: float) -> None: ...


class AlwaysOpen(NoBreaker):
    """Nothing goes through."""

    state = CircuitState.OPEN

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        raise RuntimeError("open")


class NeverRecovers(NoBreaker):
    """Whatever went wrong so often in a row, it was the last call."""

    def __init__(self, settings: Settings) -> None:
        self._left = self._allowed = settings.consecutive

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        if self.state is CircuitState.OPEN:
            raise RuntimeError("open")
        self._left -= 1
        try:
            answer = await function()
            self._left = self._allowed
        except asyncio.CancelledError:
            self._left += 1
            raise
        finally:
            self.state = CircuitState.OPEN if self._left <= 0 else CircuitState.CLOSED
        return answer


class OnTheRealClock:
    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class PybreakerUnderTest(OnTheRealClock):
    excluded: tuple[type[BaseException], ...] = (SaidNo, SlowDown)

    def __init__(self, settings: Settings) -> None:
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.consecutive, reset_timeout=settings.open_for, exclude=self.excluded
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState(self._breaker.current_state.replace("-", "_"))

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        with self._breaker.calling():
            return await function()


class PybreakerWithoutCancellations(PybreakerUnderTest):
    excluded = (SaidNo, SlowDown, asyncio.CancelledError)


class AiobreakerUnderTest(OnTheRealClock):
    def __init__(self, settings: Settings) -> None:
        self._breaker = aiobreaker.CircuitBreaker(
            fail_max=settings.consecutive,
            timeout_duration=timedelta(seconds=settings.open_for),
            exclude=[SaidNo, SlowDown],
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState[self._breaker.current_state.name]

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        return await self._breaker.call_async(function)


class PurgatoryUnderTest(OnTheRealClock):
    """It tells its state to listeners only."""

    def __init__(self, settings: Settings) -> None:
        self._breakers = purgatory.AsyncCircuitBreakerFactory(
            default_threshold=settings.consecutive, default_ttl=settings.open_for, exclude=[SaidNo, SlowDown]
        )
        self._breakers.add_listener(self._hear)
        self.state = CircuitState.CLOSED

    def _hear(self, _name: str, _kind: str, event: object) -> None:
        state = getattr(event, "state", None)
        if isinstance(state, str):
            self.state = CircuitState(state.replace("opened", "open").replace("-", "_"))

    async def call(self, function: Callable[[], Awaitable[object]]) -> object:
        async with await self._breakers.get_breaker("provider"):
            return await function()


FOREIGN: dict[str, Callable[[Settings], BreakerUnderTest]] = {
    "pybreaker": PybreakerUnderTest,
    "pybreaker without cancellations": PybreakerWithoutCancellations,
    "aiobreaker": AiobreakerUnderTest,
    "purgatory": PurgatoryUnderTest,
}
