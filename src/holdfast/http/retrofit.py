"""The guard beneath an httpx client you already have."""

from random import Random
from secrets import token_bytes
from threading import Lock
from typing import Any, ClassVar, Final

import httpx

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, InvalidInput, InvalidPolicy
from holdfast.http.origin import origin
from holdfast.http.pools import ShardedTransport
from holdfast.http.retrofit_bodies import AsyncBody, SyncBody
from holdfast.http.retrofit_errors import raised_by_guard
from holdfast.http.retrofit_exchange import Exchange, Library, shortened
from holdfast.http.retrofit_meaning import credential_of
from holdfast.resilience.guard import Guard, GuardSnapshot
from holdfast.resilience.policy import Policy
from holdfast.resilience.sync import attempt_timeout
from holdfast.telemetry import Telemetry

MOST_ORIGINS: Final = 1000
"""Whoever follows links of strangers meets more; the one longest unused is then forgotten."""


class Retrofit:
    """What `GuardedTransport` is under any library; requests and answers are typed as httpx's, whose shape they have.

    Both drivers share the guards: an outage that threads met is known to coroutines.
    """

    _library: ClassVar[Library]

    def __init__(
        self,
        name: str | None,
        policy: Policy | None,
        inner: object,
        clock: Clock | None,
        telemetry: Telemetry | None,
        random: Random | None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidPolicy('the first argument is the service\'s name, a text: GuardedTransport("crm", Policy(…))')
        if policy is not None and not isinstance(policy, Policy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidPolicy(f"the policy of {name} is a Policy, not {policy!r}: Policy(deadline=5)")
        if inner is not None and not (hasattr(inner, "handle_async_request") or hasattr(inner, "handle_request")):
            raise InvalidPolicy(f"inner is a transport, not a {type(inner).__name__}: inner=httpx.AsyncHTTPTransport()")
        self._name = name
        self._policy = policy or Policy()
        if self._policy.cache is not None or self._policy.hedge is not None:
            raise InvalidPolicy("a transport hands on streams, so it has neither cache nor hedge; use guard.read(…)")
        self._async_inner: Any = inner
        self._sync_inner: Any = inner
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

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """The driver for coroutines."""
        guard, inner = self._guard(request), self._inner_for_coroutines()
        exchange = Exchange(self._library, guard.name, request, self._clock)

        async def attempt() -> httpx.Response:
            await drop()
            with exchange.translated():
                response = await inner.handle_async_request(request)
                refusal, body = exchange.refusal(response), exchange.async_body(response)
                if refusal is not None and body is not None:
                    await body.keep()
            if refusal is not None:
                exchange.answer = response
                raise refusal
            return response

        async def drop() -> None:
            if (answer := exchange.take_answer()) is not None:
                await answer.aclose()

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
                raise raised_by_guard(error, self._library.module) from error.__cause__
            return exchange.answer
        except BaseException:  # cancelled, or the caller's own mistake
            await drop()
            raise
        return exchange.stands(response, call)

    def _send_sync(self, request: httpx.Request) -> httpx.Response:
        """The driver for threads: what ends an attempt in time is the timeouts that the transport beneath gets."""
        guard, inner = self._guard(request), self._inner_for_threads()
        exchange = Exchange(self._library, guard.name, request, self._clock)
        given = request.extensions
        wanted: dict[str, float | None] = given.get("timeout") or {}

        def attempt() -> httpx.Response:
            drop()
            timeouts = shortened(wanted, attempt_timeout())
            request.extensions = {**given, "timeout": timeouts}
            try:
                with exchange.translated():
                    response = inner.handle_request(request)
                    refusal = exchange.refusal(response)
                    body = exchange.sync_body(response, timeouts, wanted.get("read"))
                    if refusal is not None and body is not None:
                        body.keep()
            finally:
                request.extensions = given  # the client hands them on when it is redirected
            if refusal is not None:
                exchange.answer = response
                raise refusal
            return response

        def drop() -> None:
            if (answer := exchange.take_answer()) is not None:
                answer.close()

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
                raise raised_by_guard(error, self._library.module) from error.__cause__
            return exchange.answer
        except BaseException:  # interrupted, or the caller's own mistake
            drop()
            raise
        return exchange.stands(response, call)

    def _guard(self, request: httpx.Request) -> Guard:
        name = self._name or origin(str(request.url))
        with self._lock:
            guard = self._guards.pop(name, None) or Guard(
                name, self._policy, clock=self._clock, telemetry=self._telemetry, random=self._random
            )
            self._guards[name] = guard  # the last one used comes last
            if len(self._guards) > MOST_ORIGINS:
                del self._guards[next(iter(self._guards))]
        return guard

    # What sends: made when it is first needed, for only then it is known under which kind of client it is.

    def _inner_for_coroutines(self) -> httpx.AsyncBaseTransport:
        if self._async_inner is None:
            self._async_inner = self._library.pool(clock=self._clock)
        self._check_inner("AsyncBaseTransport", "AsyncClient", self._async_inner)
        return self._async_inner  # type: ignore[no-any-return]  # as checked

    def _inner_for_threads(self) -> httpx.BaseTransport:
        with self._lock:
            if self._sync_inner is None:
                self._sync_inner = self._library.module.HTTPTransport(retries=0)
        self._check_inner("BaseTransport", "Client", self._sync_inner)
        return self._sync_inner  # type: ignore[no-any-return]  # as checked

    def _check_inner(self, kind: str, client: str, inner: object) -> None:
        module = self._library.module
        if not isinstance(inner, getattr(module, kind)):
            text = f"under {module.__name__}.{client}, inner is a {module.__name__}.{kind}, not {type(inner).__name__}"
            raise InvalidInput(text)

    async def _close_async(self) -> None:
        if isinstance(self._async_inner, self._library.module.AsyncBaseTransport):
            await self._async_inner.aclose()

    def _close_sync(self) -> None:
        if isinstance(self._sync_inner, self._library.module.BaseTransport):
            self._sync_inner.close()


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    """A body as `httpx.AsyncClient` knows it."""


class _SyncBody(SyncBody, httpx.SyncByteStream):
    """A body as `httpx.Client` knows it."""


class GuardedTransport(Retrofit, httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Guards every request of an `httpx.AsyncClient` or an `httpx.Client`: `transport=GuardedTransport("crm")`.

    With a `name` there is one guard for all requests, without one there is one per origin. An answer that is a
    failure is repeated where that is safe, and returned when it stays one. Where there is no answer the error is both
    ours (`NotSent`, `OutcomeUnknown`, `CircuitOpen`) and httpx's own (`ConnectError`, `ReadTimeout`, …). The deadline
    and what an attempt holds last until the answer is closed; the attempt's timeout until its headers are there.

    `inner` does the sending and must not retry; it takes what the client would have: `verify`, `proxy`, `http2`.

    Raises:
        InvalidPolicy: The policy has a `cache` or a `hedge`, which are for `guard.read(…)`.
    """

    _library: ClassVar[Library] = Library(
        module=httpx, pool=ShardedTransport, async_body=_AsyncBody, sync_body=_SyncBody
    )

    def __init__(
        self,
        name: str | None = None,
        policy: Policy | None = None,
        *,
        inner: httpx.AsyncBaseTransport | httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__(name, policy, inner, clock, telemetry, random)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request of an `AsyncClient`, guarded. Raises httpx.TransportError that is also CallFailed."""
        return await self._send(request)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request of a `Client`, guarded. Raises httpx.TransportError that is also CallFailed."""
        return self._send_sync(request)

    async def aclose(self) -> None:
        """Close every connection of coroutines; closing twice is harmless."""
        await self._close_async()

    def close(self) -> None:
        """Close every connection of threads; closing twice is harmless."""
        self._close_sync()
