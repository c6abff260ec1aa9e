"""Breakers of others behind the adapter of the conformance kit, each as its documentation would have it set up best.

All run on the machine's clock: what a public setting cannot change stays as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import aiobreaker  # type: ignore[import-untyped]
import aioresilience
import httpware
import httpx2
import hyx.circuitbreaker
import hyx.retry
import purgatory
import pybreaker
import pyresilience
import redress
from aiobreaker.storage.memory import CircuitMemoryStorage  # type: ignore[import-untyped]
from httpware.middleware.chain import compose_async
from redress.contrib.httpx import arequest_with_retry, is_idempotent_method

from holdfast.resilience.breaker import CircuitState
from holdfast.testing.conformance.breaker import BreakerUnderTest, Down, Lost, Make, SaidNo, Settings, SlowDown

Function = Callable[[], Awaitable[object]]
RATE_WINDOW: Final = 20
"""Calls, or seconds, in the window of those that have one."""


class OnTheRealClock:
    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pybreaker(OnTheRealClock):
    """A `fleet` shares its storage, as its processes do one in Redis."""

    excluded: tuple[type[BaseException], ...] = (SaidNo, SlowDown)

    def __init__(self, settings: Settings, storage: pybreaker.CircuitMemoryStorage | None = None) -> None:
        self._settings = settings
        self._storage = storage or pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.consecutive,
            reset_timeout=settings.open_for,
            exclude=self.excluded,
            throw_new_error_on_trip=False,  # else a cancellation that opens it becomes an error of its own
            state_storage=self._storage,
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState(self._breaker.current_state.replace("-", "_"))

    async def call(self, function: Function) -> object:
        with self._breaker.calling():
            return await function()

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        return [self, *(type(self)(self._settings, self._storage) for _ in range(members - 1))]


class PybreakerWithoutCancellations(Pybreaker):
    excluded = (SaidNo, SlowDown, asyncio.CancelledError)


class Aiobreaker(OnTheRealClock):
    """A `fleet` shares its storage, as its processes do one in Redis."""

    def __init__(self, settings: Settings, storage: CircuitMemoryStorage | None = None) -> None:
        self._settings = settings
        self._storage = storage or CircuitMemoryStorage(aiobreaker.CircuitBreakerState.CLOSED)
        self._breaker = aiobreaker.CircuitBreaker(
            fail_max=settings.consecutive,
            timeout_duration=timedelta(seconds=settings.open_for),
            exclude=[SaidNo, SlowDown],
            state_storage=self._storage,
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState[self._breaker.current_state.name]

    async def call(self, function: Function) -> object:
        return await self._breaker.call_async(function)

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        return [self, *(Aiobreaker(self._settings, self._storage) for _ in range(members - 1))]


class Purgatory(OnTheRealClock):
    """It tells its state to listeners only. A `fleet` shares its unit of work, as its processes do one in Redis."""

    excluded: tuple[type[BaseException], ...] = (SaidNo, SlowDown)

    def __init__(self, settings: Settings, shared: purgatory.AsyncInMemoryUnitOfWork | None = None) -> None:
        self._settings = settings
        self._shared = shared or purgatory.AsyncInMemoryUnitOfWork()
        self._breakers = purgatory.AsyncCircuitBreakerFactory(
            default_threshold=settings.consecutive,
            default_ttl=settings.open_for,
            exclude=list(self.excluded),
            uow=self._shared,
        )
        self._breakers.add_listener(self._hear)
        self.state = CircuitState.CLOSED

    def _hear(self, _name: str, _kind: str, event: object) -> None:
        state = getattr(event, "state", None)
        if isinstance(state, str):
            self.state = CircuitState(state.replace("opened", "open").replace("-", "_"))

    async def call(self, function: Function) -> object:
        async with await self._breakers.get_breaker("provider"):
            return await function()

    async def fleet(self, members: int) -> Sequence[BreakerUnderTest]:
        return [self, *(type(self)(self._settings, self._shared) for _ in range(members - 1))]


class PurgatoryWithoutCancellations(Purgatory):
    excluded = (SaidNo, SlowDown, asyncio.CancelledError)


class Hyx(OnTheRealClock):
    states: Final = {
        "working": CircuitState.CLOSED,
        "failing": CircuitState.OPEN,
        "recovering": CircuitState.HALF_OPEN,
    }

    def __init__(self, settings: Settings) -> None:
        self._breaker = hyx.circuitbreaker.consecutive_breaker(
            exceptions=Down,
            failure_threshold=settings.consecutive,
            recovery_time_secs=settings.open_for,
            recovery_threshold=1,
        )
        retry = hyx.retry.retry(on=Down, attempts=settings.attempts - 1, backoff=0)
        self._call: Callable[[Function], Awaitable[object]] = (
            retry(self._through) if settings.attempts > 1 else self._through
        )

    @property
    def state(self) -> CircuitState:
        return self.states[self._breaker.state.name]

    async def call(self, function: Function) -> object:
        return await self._call(function)

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self._call(lambda: function(key))

    async def _through(self, function: Function) -> object:
        async with self._breaker:
            return await function()


class Aioresilience(OnTheRealClock):
    def __init__(self, settings: Settings) -> None:
        self._breaker = aioresilience.CircuitBreaker(
            "provider",
            aioresilience.CircuitConfig(
                failure_threshold=settings.consecutive,
                recovery_timeout=settings.open_for,
                success_threshold=1,
                half_open_max_calls=1,
                failure_exceptions=(Down,),
            ),
        )
        self._retry = aioresilience.RetryPolicy(
            aioresilience.RetryConfig(
                max_attempts=settings.attempts, initial_delay=0, jitter=0, retry_on_exceptions=(Down,)
            )
        )
        self._repeats = settings.attempts > 1

    @property
    def state(self) -> CircuitState:
        return CircuitState[self._breaker.get_state().name]

    async def call(self, function: Function) -> object:
        async def through() -> object:
            return await self._breaker.call(coroutine)

        async def coroutine() -> object:  # it awaits coroutine functions only
            return await function()

        return await self._retry.execute(through) if self._repeats else await through()

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self.call(lambda: function(key))


class Redress(OnTheRealClock):
    """It counts failures in a window, not a rate; its HTTP helper tells methods that may be repeated from others."""

    def __init__(self, settings: Settings) -> None:
        self._breaker = redress.CircuitBreaker(
            failure_threshold=settings.consecutive,
            window_s=RATE_WINDOW,
            recovery_timeout_s=settings.open_for,
        )
        self._policy = redress.AsyncPolicy(
            retry=redress.AsyncRetry(
                classifier=self._classify, strategy=_at_once, max_attempts=settings.attempts, max_unknown_attempts=None
            ),
            circuit_breaker=self._breaker,
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState(self._breaker.state.value)

    async def call(self, function: Function) -> object:
        return await self._policy.call(function)

    async def once(self, function: Function) -> object:
        class Client:
            async def request(self, method: str, url: object, **_kwargs: object) -> object:
                return await function()

        return await arequest_with_retry(
            Client(),
            self._policy,  # type: ignore[arg-type]  # its own policy does not fit its own protocol
            "POST",
            "/",
            skip_if=lambda method, _url: not is_idempotent_method(method),
        )

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self._policy.call(lambda: function(key))

    @staticmethod
    def _classify(error: BaseException) -> redress.ErrorClass:
        if isinstance(error, Down):
            return redress.ErrorClass.SERVER_ERROR
        return redress.ErrorClass.RATE_LIMIT if isinstance(error, SlowDown) else redress.ErrorClass.PERMANENT


def _at_once(_context: object) -> float:
    return 0.0


class Pyresilience(OnTheRealClock):
    """With its sliding window, which counts a rate."""

    def __init__(self, settings: Settings) -> None:
        @pyresilience.resilient(
            retry=pyresilience.RetryConfig(max_attempts=settings.attempts, delay=0, jitter=False, retry_on=(Down,)),
            circuit_breaker=pyresilience.CircuitBreakerConfig(
                recovery_timeout=settings.open_for,
                success_threshold=1,
                error_types=(Down,),
                sliding_window_size=RATE_WINDOW,
                failure_rate_threshold=settings.failure_rate,
                minimum_calls=settings.consecutive,
                slow_call_duration=settings.slow_after or 0.0,
                slow_call_rate_threshold=0.8,
            ),
        )
        async def call(function: Function) -> object:
            return await function()

        self._call = call

    @property
    def state(self) -> CircuitState:
        breaker: pyresilience.CircuitBreaker = self._call._executor._circuit_breaker  # type: ignore[attr-defined]  # it is told nowhere else
        return CircuitState(breaker.state.value)

    async def call(self, function: Function) -> object:
        return await self._call(function)

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self._call(lambda: function(key))


class Httpware(OnTheRealClock):
    """With its rolling window, which counts a rate. A call is a GET, what must not happen twice a POST."""

    def __init__(self, settings: Settings) -> None:
        self._breaker = httpware.AsyncCircuitBreaker(
            reset_timeout=settings.open_for,
            failure_rate_threshold=settings.failure_rate,
            window_seconds=RATE_WINDOW,
            minimum_calls=settings.consecutive,
        )
        self._retry = httpware.AsyncRetry(max_attempts=settings.attempts, base_delay=0)
        self._retry_posts = httpware.AsyncRetry(
            max_attempts=settings.attempts, base_delay=0, retry_methods=frozenset({"POST"})
        )

    @property
    def state(self) -> CircuitState:
        return CircuitState(self._breaker.state.value)

    async def call(self, function: Function) -> object:
        return await self._send("GET", function, self._retry)

    async def once(self, function: Function) -> object:
        return await self._send("POST", function, self._retry)

    async def keyed(self, key: str, function: Callable[[str], Awaitable[object]]) -> object:
        return await self._send("POST", lambda: function(key), self._retry_posts)

    async def _send(self, method: str, function: Function, retry: httpware.AsyncRetry) -> object:
        async def provider(request: httpx2.Request) -> httpx2.Response:
            try:
                await function()
            except Lost as error:
                raise httpware.NetworkError("the answer was lost") from error
            except Down as error:
                raise _status(httpware.ServiceUnavailableError, 503, request) from error
            except SaidNo as error:
                raise _status(httpware.NotFoundError, 404, request) from error
            except SlowDown as error:
                raise _status(httpware.RateLimitedError, 429, request, error.retry_after) from error
            return httpx2.Response(200, request=request)

        return await compose_async([self._breaker, retry], provider)(httpx2.Request(method, "http://provider/"))


def _status(
    kind: type[httpware.StatusError], status: int, request: httpx2.Request, retry_after: float | None = None
) -> httpware.StatusError:
    headers = {} if retry_after is None else {"Retry-After": str(round(retry_after) or 1)}
    return kind(httpx2.Response(status, headers=headers, request=request))


PEERS: Final[dict[str, Make]] = {
    "pybreaker": Pybreaker,
    "aiobreaker": Aiobreaker,
    "purgatory": Purgatory,
    "hyx": Hyx,
    "aioresilience": Aioresilience,
    "redress": Redress,
    "pyresilience": Pyresilience,
    "httpware": Httpware,
}
VARIANTS: Final[dict[str, Make]] = {
    "pybreaker_cancellations_excluded": PybreakerWithoutCancellations,
    "purgatory_cancellations_excluded": PurgatoryWithoutCancellations,
}
"""The same libraries, told that a cancellation is no failure, which makes it a success."""
