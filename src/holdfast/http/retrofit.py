"""The guard beneath an httpx client you already have."""

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Final, cast

import httpx

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, CircuitOpen
from holdfast.http.errors import shows_request, translate
from holdfast.http.origin import origin
from holdfast.http.vendor import CAUSES, cause_of
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, Denied, Permit, Result, Transition
from holdfast.resilience.context import remaining
from holdfast.resilience.decide import counts_as
from holdfast.resilience.guard import LONGEST_LEASE, PROBE_MARGIN, Guard
from holdfast.resilience.latency import Latency
from holdfast.resilience.policy import Policy
from holdfast.resilience.retry import parse_milliseconds, parse_retry_after
from holdfast.telemetry import CallRejected, CircuitChanged, Telemetry

KEPT: Final = 64 * 1024
"""So much of a failure's body is read at once: its connection is then free while the guard waits."""
MOST_ORIGINS: Final = 1000
"""Whoever follows links of strangers meets more; the one longest unused is then forgotten."""

_EFFECTS: Final = {
    "GET": Effect.READ,
    "HEAD": Effect.READ,
    "OPTIONS": Effect.READ,
    "PUT": Effect.IDEMPOTENT,
    "DELETE": Effect.IDEMPOTENT,
}


def effect_of(request: httpx.Request) -> Effect:
    """What HTTP says of the method; any other is done once, or once per its `Idempotency-Key`."""
    keyed = Effect.KEYED if request.headers.get("idempotency-key") else Effect.ONCE
    return _EFFECTS.get(request.method, keyed)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Guards every request of an `httpx.AsyncClient`: `httpx.AsyncClient(transport=GuardedTransport("crm"))`.

    With a `name` there is one circuit for all requests, without one there is one per origin. An answer that is a
    failure is repeated where that is safe, and returned when it stays one. Where there is no answer the error is both
    ours (`NotSent`, `OutcomeUnknown`, `CircuitOpen`) and httpx's own (`ConnectError`, `ReadTimeout`, …). The deadline
    and the circuit's permit last until the answer is closed; the attempt's timeout until its headers are there.

    `inner` does the sending and must not retry; it takes what the client would have: `verify`, `proxy`, `http2`.
    """

    def __init__(
        self,
        name: str | None = None,
        policy: Policy | None = None,
        *,
        inner: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        random: Random | None = None,
    ) -> None:
        self._name = name
        self._policy = policy or Policy()
        self._inner = inner or httpx.AsyncHTTPTransport(retries=0)
        self._clock = clock or SystemClock()
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._random = random or Random()  # jitter, not a secret
        self._lanes: dict[str, _Lane] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request of the client, guarded. Raises httpx.TransportError that is also CallFailed."""
        lane = self._lane(request)
        call = _Call(request, self._inner, lane)
        # A body that is no bytes can be read only once, so it can be sent only once.
        guard = lane.repeating if isinstance(request.stream, httpx.ByteStream) else lane.single
        try:
            call.leave = lane.admit(request.method)
            await guard.run(call.attempt, effect=effect_of(request), operation=request.method)
        except CallFailed as error:
            call.end(error)
            if call.answer is None:
                if isinstance(error, httpx.TransportError):
                    raise
                raise _both(error, _nearest(error)) from error.__cause__
        except BaseException:  # cancelled, or the caller's own mistake: the permit goes back, the answer is closed
            call.end(None)
            await call.drop()
            raise
        assert call.answer is not None
        return call.answer

    def snapshot(self) -> dict[str, CircuitSnapshot]:
        """Every circuit as it stands, by name or origin."""
        now = self._clock.monotonic()
        return {lane.name: lane.circuit.snapshot(now) for lane in self._lanes.values() if lane.circuit}

    async def aclose(self) -> None:
        """Close every connection; closing twice is harmless."""
        await self._inner.aclose()

    def _lane(self, request: httpx.Request) -> "_Lane":
        name = self._name or origin(str(request.url))
        lane = self._lanes.pop(name, None) or _Lane(name, self._policy, self._clock, self._telemetry, self._random)
        self._lanes[name] = lane  # the last one used comes last
        if len(self._lanes) > MOST_ORIGINS:
            del self._lanes[next(iter(self._lanes))]
        return lane


class _Lane:
    """What all requests of one name or origin share.

    The guard ends an exchange when its function returns, but a permit has to outlive that. So the guards here have
    deadline, retry and budget, and the circuit stands beside them.
    """

    def __init__(self, name: str, policy: Policy, clock: Clock, telemetry: Telemetry, random: Random) -> None:
        self.name = name
        self.clock = clock
        self._telemetry = telemetry
        self.latency = Latency()
        self.breaker = policy.breaker
        self.circuit = Circuit(policy.breaker, random) if policy.breaker else None
        self.timeout, deadline = (
            value if isinstance(value, float) else None for value in (policy.timeout, policy.deadline)
        )
        self._lease = min(self.timeout or inf, deadline or inf, LONGEST_LEASE) + PROBE_MARGIN
        rest = replace(policy, breaker=None, timeout=None)
        self.repeating = Guard(name, rest, clock=clock, telemetry=telemetry, random=random)
        self.single = Guard(name, replace(rest, retry=None), clock=clock, telemetry=telemetry, random=random)

    def admit(self, operation: str) -> "_Leave":
        """Leave for one attempt. Raises CircuitOpen."""
        now = self.clock.monotonic()
        permit = self.circuit.admit(now, lease=self._lease) if self.circuit else None
        self.tell(permit.change if permit else None)
        if not isinstance(permit, Denied):
            return _Leave(self, permit, operation, now)
        self._telemetry.emit(CallRejected(self.name, operation, "circuit", permit.retry_after))
        after = "" if permit.retry_after is None else f"; ask again in {permit.retry_after:.3g} s"
        error = CircuitOpen(
            f"{self.name}: circuit open, {operation} was not sent{after}",
            provider=self.name,
            operation=operation,
            reason="open",
            retry_after=permit.retry_after,
            local=True,
        )
        raise _both(error, httpx.ConnectError(""))

    def tell(self, change: Transition | None) -> None:
        """Signal a change of the circuit's state, if there is one."""
        if change is not None:
            signal = CircuitChanged(self.name, "", change.before, change.after, change.reason, change.open_for)
            self._telemetry.emit(signal)


@dataclass(slots=True, eq=False)
class _Leave:
    """One attempt's permit, until its result is known."""

    lane: _Lane
    permit: Permit | None
    operation: str
    begun: float
    slow: bool = False
    ended: bool = False

    def answered(self) -> None:
        """The headers of a success are there: how long they took is the vendor's doing, the rest also the reader's."""
        seconds = self.lane.clock.monotonic() - self.begun
        self.lane.latency.add(self.operation, seconds)
        breaker = self.lane.breaker
        self.slow = breaker is not None and breaker.slow_after is not None and seconds > breaker.seconds("slow_after")

    def end(self, result: Result, failure: CallFailed | None = None) -> None:
        """Count the result; only the first one counts."""
        if self.ended:
            return
        self.ended = True
        if self.permit is not None and self.lane.circuit is not None:
            change = self.lane.circuit.record(
                self.permit,
                result,
                self.lane.clock.monotonic(),
                hard=failure is not None and failure.hard,
                slow=self.slow,
                open_at_least=(failure.retry_after or 0.0) if failure is not None and failure.status == 503 else 0.0,
            )
            self.lane.tell(change)


@dataclass(slots=True, eq=False)
class _Call:
    """One request, as often as it is sent."""

    request: httpx.Request
    inner: httpx.AsyncBaseTransport
    lane: _Lane
    leave: _Leave | None = None
    answer: httpx.Response | None = None
    """What the last attempt got, still open."""

    async def attempt(self) -> None:
        """Send it once. Raises CallFailed, also for an answer that is a failure."""
        if self.leave is None or self.leave.ended:
            self.leave = self.lane.admit(self.request.method)
        leave = self.leave
        await self.drop()
        with self.counting(leave):
            async with self.lane.clock.timeout(self.lane.timeout):
                response = await self.inner.handle_async_request(self.request)
                refusal = self._refusal(response)
                if refusal is not None:
                    leave.end(counts_as(refusal), refusal)
                await self._watch(response, leave, keep=refusal is not None and refusal.cause in _REPEATABLE)
        self.answer = response
        if refusal is not None:
            raise refusal

    def end(self, error: CallFailed | None) -> None:
        """Give back a permit whose attempt was cut off: by the deadline, by cancellation, or before it began."""
        if self.leave is None or self.leave.ended:
            return
        result = Result.NEUTRAL if error is None else counts_as(error)
        taken = self.lane.clock.monotonic() - self.leave.begun
        if error is not None and error.reason == "timeout" and taken < self.lane.latency.normal(self.request.method):
            result = Result.NEUTRAL  # nobody could have answered in that time
        self.leave.end(result, error)

    async def drop(self) -> None:
        """Close the answer nobody will read."""
        if self.answer is not None:
            answer, self.answer = self.answer, None
            await answer.aclose()

    @contextmanager
    def counting(self, leave: _Leave) -> Generator[None]:
        """Turn what breaks into our error that is still the client's, and count it."""
        try:
            yield
        except CallFailed as error:  # a guarded transport beneath has said it all
            leave.end(counts_as(error), error)
            raise
        except (httpx.TransportError, OSError) as error:
            failure = self._failure(error)
            leave.end(counts_as(failure), failure)
            raise failure from (None if shows_request(error) else error)

    def _failure(self, error: httpx.TransportError | OSError) -> CallFailed:
        plain = translate(error)
        advice = "; nothing was sent" if plain.cause is Cause.NOT_SENT else ""
        if plain.cause is Cause.UNKNOWN and effect_of(self.request) is not Effect.READ:
            advice = "; it may have happened, so look before you repeat it"
        plain.args = (f"{self.lane.name}: {self.request.method} {plain}{advice}",)
        plain.provider, plain.operation = self.lane.name, self.request.method
        return _both(plain, error if isinstance(error, httpx.TransportError) else _nearest(plain))

    async def _watch(self, response: httpx.Response, leave: _Leave, *, keep: bool) -> None:
        """Let the body end the attempt."""
        if not leave.ended:
            leave.answered()
        if response.is_closed:  # a mock's, read already
            leave.end(Result.SUCCESS)
            return
        assert isinstance(response.stream, httpx.AsyncByteStream)
        clock = self.lane.clock
        response.stream = body = _Body(response.stream, self, leave, clock.monotonic() + remaining(clock))
        if keep:
            await body.keep()

    def _refusal(self, response: httpx.Response) -> CallFailed | None:
        status, headers = response.status_code, response.headers
        if status < 400:
            return None
        cause = cause_of(CAUSES, status, "")
        after = parse_milliseconds(headers.get("retry-after-ms"))
        if after is None:
            now = self.lane.clock.now()
            after = parse_retry_after(headers.get("retry-after"), date=headers.get("date"), now=now)
        return CallFailed.of(
            cause,
            f"{self.lane.name}: {self.request.method} was answered with {status}",
            status=status,
            retry_after=after,
            hard=status >= 500 and cause is Cause.UNKNOWN,
        )


_REPEATABLE: Final = (Cause.THROTTLED, Cause.UNKNOWN)
"""Causes of statuses after which the guard may wait and ask again."""


class _Body(httpx.AsyncByteStream):
    """An answer's body, read within the deadline; the attempt's permit is held until it is closed."""

    def __init__(self, source: httpx.AsyncByteStream, call: _Call, leave: _Leave, until: float) -> None:
        self._source = source
        self._chunks = aiter(source)
        self._call = call
        self._leave = leave
        self._clock = call.lane.clock
        self._until = until
        self._kept: list[bytes] = []

    async def keep(self) -> None:
        """Read it while it is short, and let go of its connection."""
        try:
            while sum(map(len, self._kept)) <= KEPT:
                chunk = await self._read()
                if chunk is None:
                    return await self.aclose()
                self._kept.append(chunk)
        except BaseException:  # whatever ends the reading, the connection is closed
            await self.aclose()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for kept in self._kept:
            yield kept
        while (chunk := await self._next()) is not None:
            yield chunk

    async def aclose(self) -> None:
        """Close it; the attempt is over."""
        try:
            await self._source.aclose()
        finally:
            self._leave.end(Result.SUCCESS)

    async def _next(self) -> bytes | None:
        try:
            with self._call.counting(self._leave):
                return await self._read()
        except BaseException:  # cancelled, or the reader's own mistake
            self._leave.end(Result.NEUTRAL)
            raise

    async def _read(self) -> bytes | None:
        left = self._until - self._clock.monotonic()
        async with self._clock.timeout(max(0.0, left) if left < inf else None):
            return await anext(self._chunks, None)


# Errors that are both ours and the client's.


class _Both(CallFailed):
    """One of our classes and one of httpx's, as one: `except` finds it by either."""

    def __reduce__(self) -> tuple[object, ...]:
        _, ours, theirs = type(self).__bases__
        state = {name: value for name, value in vars(self).items() if name != "_request"}  # it holds the credential
        return _restore, (ours, theirs, self.args, state)


def _both(error: CallFailed, client: httpx.TransportError) -> CallFailed:
    return _restore(type(error), type(client), error.args, vars(client) | vars(error))


def _restore(
    ours: type[CallFailed], theirs: type[httpx.TransportError], args: tuple[object, ...], state: dict[str, object]
) -> CallFailed:
    if (ours, theirs) not in _KINDS:
        kind = type(f"{ours.__name__}_{theirs.__name__}", (_Both, ours, theirs), {})
        _KINDS[ours, theirs] = cast(type[CallFailed], kind)
    error = _KINDS[ours, theirs].__new__(_KINDS[ours, theirs])
    error.args = args
    error.__dict__.update({"_request": None} | state)
    return error


_KINDS: Final[dict[tuple[type[CallFailed], type[httpx.TransportError]], type[CallFailed]]] = {}


def _nearest(error: CallFailed) -> httpx.TransportError:
    """What httpx would have raised in place of a failure found here."""
    if error.cause is Cause.NOT_SENT:  # no time was left
        return httpx.ConnectTimeout("")
    return httpx.ReadTimeout("") if error.reason == "timeout" else httpx.ReadError("")
