"""One request of a guarded client, as often as it is sent: two drivers, and what they share."""

from dataclasses import dataclass, field
from math import inf
from random import Random
from secrets import token_bytes
from threading import Lock
from types import ModuleType
from typing import ClassVar, Final

import httpx

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, InvalidInput, InvalidPolicy
from holdfast.http.errors import shows_request
from holdfast.http.origin import origin
from holdfast.http.retrofit_bodies import AsyncBody, SyncBody
from holdfast.http.retrofit_errors import both, understood
from holdfast.http.retrofit_meaning import REPEATABLE, credential_of, effect_of, refusal_of
from holdfast.outcome import Cause
from holdfast.resilience.call import Call
from holdfast.resilience.context import around
from holdfast.resilience.guard import Guard, GuardSnapshot
from holdfast.resilience.policy import Policy
from holdfast.resilience.sync import attempt_timeout
from holdfast.telemetry import Telemetry

MOST_ORIGINS: Final = 1000
"""Whoever follows links of strangers meets more; the one longest unused is then forgotten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The client's own classes: those of httpx, or of whatever has its names."""

    module: ModuleType
    async_body: type[AsyncBody]
    sync_body: type[SyncBody]


class Retrofit:
    """What `GuardedTransport` is under any library; requests and answers are written as httpx's, whose shape they have.

    The sync and the async driver share the guards, so that a vendor's outage seen by one is known to the other.
    """

    library: ClassVar[Library]

    def __init__(
        self,
        name: str | None = None,
        policy: Policy | None = None,
        *,
        inner: object = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        random: Random | None = None,
    ) -> None:
        """Raises InvalidPolicy: `cache` and `hedge` are for calls whose whole answer the guard sees."""
        policy = policy or Policy()
        if policy.cache is not None or policy.hedge is not None:
            raise InvalidPolicy("a transport hands on streams: cache and hedge are for guard.read(…), so leave them out")
        self._name = name
        self._policy = policy
        self._inner = inner
        self._usual_inner: dict[bool, object] = {}
        self._clock = clock or SystemClock()
        self._telemetry = telemetry
        self._random = random
        self._salt = token_bytes(16)
        self._guards: dict[str, Guard] = {}
        self._lock = Lock()

    def snapshot(self) -> dict[str, GuardSnapshot]:
        """Every guard as it stands, by name or origin."""
        with self._lock:
            guards = list(self._guards.values())
        return {guard.name: guard.snapshot() for guard in guards}

    async def _send_async(self, request: httpx.Request) -> httpx.Response:
        guard = self._guard(request)
        exchange = _Exchange(self.library, guard.name, request, self._clock)
        inner = self._inner_for(is_async=True)
        assert isinstance(inner, self.library.module.AsyncBaseTransport)

        async def attempt() -> httpx.Response:
            await exchange.drop_async()
            try:
                response: httpx.Response = await inner.handle_async_request(request)
                refusal = exchange.examine(response)
                body = self._async_body(exchange, response)
                if refusal is not None and body is not None:
                    await body.keep()
            except Exception as error:  # the border to the library: what is not its own, or the machine's, passes
                raise exchange.seen(error) from exchange.beneath(error)
            if refusal is not None:
                exchange.answer = response
                raise refusal
            return response

        try:
            response, call = await guard.open(
                attempt,
                effect=exchange.effect,
                operation=request.method,
                repeat=exchange.repeatable,
                credential=credential_of(request.headers, self._salt),
            )
        except CallFailed as error:
            if exchange.answer is None:
                raise both(error, self.library.module) from error.__cause__
            return exchange.answer
        except BaseException:  # cancelled, or the caller's own mistake
            await exchange.drop_async()
            raise
        return exchange.opened(response, call)

    def _send_sync(self, request: httpx.Request) -> httpx.Response:
        guard = self._guard(request)
        exchange = _Exchange(self.library, guard.name, request, self._clock)
        inner = self._inner_for(is_async=False)
        assert isinstance(inner, self.library.module.BaseTransport)
        given = request.extensions

        def attempt() -> httpx.Response:
            exchange.drop_sync()
            own = given.get("timeout") or {}
            timeouts = _shortened(own, attempt_timeout())
            request.extensions = {**given, "timeout": timeouts}
            try:
                response: httpx.Response = inner.handle_request(request)
                refusal = exchange.examine(response)
                body = self._sync_body(exchange, response, timeouts, own.get("read"))
                if refusal is not None and body is not None:
                    body.keep()
            except Exception as error:  # the border to the library: what is not its own, or the machine's, passes
                raise exchange.seen(error) from exchange.beneath(error)
            finally:
                request.extensions = given  # the client hands them on when it is redirected
            if refusal is not None:
                exchange.answer = response
                raise refusal
            return response

        try:
            response, call = guard.sync.open(
                attempt,
                effect=exchange.effect,
                operation=request.method,
                repeat=exchange.repeatable,
                credential=credential_of(request.headers, self._salt),
            )
        except CallFailed as error:
            if exchange.answer is None:
                raise both(error, self.library.module) from error.__cause__
            return exchange.answer
        except BaseException:  # interrupted, or the caller's own mistake
            exchange.drop_sync()
            raise
        return exchange.opened(response, call)

    def _guard(self, request: httpx.Request) -> Guard:
        name = self._name or origin(str(request.url))
        with self._lock:
            guard = self._guards.pop(name, None) or Guard(
                name, self._policy, clock=self._clock, random=self._random, telemetry=self._telemetry
            )
            self._guards[name] = guard  # the last one used comes last
            if len(self._guards) > MOST_ORIGINS:
                del self._guards[next(iter(self._guards))]
        return guard

    def _inner_for(self, *, is_async: bool) -> object:
        """What sends; made when it is first needed, since only then it is known under which client it is."""
        module = self.library.module
        kind = module.AsyncBaseTransport if is_async else module.BaseTransport
        found = self._inner
        if found is None:
            found = self._usual_inner.get(is_async) or self._usual(is_async=is_async)
            self._usual_inner[is_async] = found
        if not isinstance(found, kind):
            client = "AsyncClient" if is_async else "Client"
            raise InvalidInput(
                f"under {module.__name__}.{client}, inner is an {module.__name__}.{kind.__name__}, "
                f"not a {type(found).__name__}"
            )
        return found

    def _usual(self, *, is_async: bool) -> object:
        raise NotImplementedError

    def _async_body(self, exchange: "_Exchange", response: httpx.Response) -> AsyncBody | None:
        if response.is_closed:  # a mock's, read already
            return None
        assert isinstance(response.stream, self.library.module.AsyncByteStream)
        body = self.library.async_body(response.stream, self._clock, around().until, exchange.translate)
        response.stream = exchange.body = body
        return body

    def _sync_body(
        self, exchange: "_Exchange", response: httpx.Response, timeouts: dict[str, float | None], read: float | None
    ) -> SyncBody | None:
        if response.is_closed:
            return None
        assert isinstance(response.stream, self.library.module.SyncByteStream)
        body = self.library.sync_body(
            response.stream, self._clock, around().until, exchange.translate, timeouts, read
        )
        response.stream = exchange.body = body
        return body
