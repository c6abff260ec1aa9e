"""Bearer tokens that expire: one fetch for all tasks and all processes, kept sealed in the store."""

import asyncio
import hashlib
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from holdfast.clock import Clock
from holdfast.errors import CallFailed, HoldfastError, NotOpen, NotSent, VersionConflict
from holdfast.http.sealing import Seal
from holdfast.http.session import Bearer, Http
from holdfast.http.transports import Transport
from holdfast.http.vendor import HttpVendor
from holdfast.outcome import Cause
from holdfast.resilience.context import remaining
from holdfast.resilience.guard import Guard
from holdfast.stores.store import Draft, Json, Lease, Record, Store
from holdfast.values import Secret, Secrets

T = TypeVar("T")

_KIND: Final = "token"
_FETCH_LIMIT: Final = 9.0  # seconds, below the lease: whoever holds it is done before it runs out
_LEASE: Final = 10.0
_OTHERS_FETCH: Final = 5.0
_POLL: Final = 0.1
_PAUSE: Final = 5.0
_LONGEST_LIFE: Final = 30 * 86400.0
_FORCED: Final = 3
_FORCED_WINDOW: Final = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token as the vendor issued it."""

    value: Secret
    expires_in: float
    """Seconds of life, from the moment it was asked for."""


@runtime_checkable
class TokenVendor(HttpVendor, Protocol):
    """A vendor whose requests carry a token that is fetched first."""

    def token_scope(self) -> str:
        """What the token is good for, as one text: account, client id, scopes; equal texts share one token."""
        ...

    async def fetch_token(self, http: Http) -> Token:
        """Ask for a new token; `http` carries none."""
        ...


class Spawn(Protocol):
    """Runs a coroutine beyond the life of its caller: the runtime's task group."""

    def __call__(self, coro: Coroutine[Any, Any, T], /) -> asyncio.Task[T]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BearerToken:
    """A token in use by this process."""

    value: Secret
    generation: int
    """The version of its record: every later token has another."""
    renew_at: float
    """From here on, by the monotonic clock, a new one is fetched; before `expires_at`, this one still serves."""
    expires_at: float


class TokenSource:
    """One provider's tokens.

    Within a process everybody who needs a token waits for the same flight, and giving up waiting does not stop it.
    Between processes a lease lets one fetch; the others look into the store until the new token is there.
    """

    def __init__(
        self,
        vendor: TokenVendor,
        *,
        transport: Transport,
        guard: Guard,
        store: Store,
        secret: Secrets,
        clock: Clock,
        spawn: Spawn,
        owner: str,
    ) -> None:
        """`secret` is the hub's own; `owner` names this process among those that share the store."""
        self._vendor = vendor
        self._http = Http(vendor, transport, guard, clock)
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._owner = f"{owner}/{vendor.name}"  # two providers with one account share its token, and its lease
        self._key = hashlib.sha256(f"{vendor.base_url}\0{vendor.token_scope()}".encode()).hexdigest()
        self._seal = Seal(secret, _KIND)
        self._held: BearerToken | None = None
        self._paused_until = 0.0
        self._flight: asyncio.Task[BearerToken | Exception] | None = None

    async def current(self) -> BearerToken:
        """A token that is good for a while.

        Raises:
            CallFailed: There is none, so nothing was sent: NotSent, CredentialRefused, Throttled, Refused.
        """
        held, now = self._held, self._clock.monotonic()
        if held and (now < held.renew_at or now < min(held.expires_at, self._paused_until)):
            return held
        try:
            return await self._fetched(None)
        except HoldfastError:
            if held is None or self._clock.monotonic() >= held.expires_at:
                raise
            self._paused_until = self._clock.monotonic() + _PAUSE
            return held

    async def newer(self, refused: Bearer) -> BearerToken:
        """Another token than the one the vendor refused: the store's, if another process was first, else a new one.

        Raises:
            CallFailed: As `current`; CredentialRefused also after three such fetches in five minutes.
        """
        held = self._held
        if held and held.generation != refused.generation:
            return held
        return await self._fetched(refused.generation)

    async def _fetched(self, refused: int | None) -> BearerToken:
        while True:
            if self._flight is None or self._flight.done():
                # Under an empty context: neither the deadline nor the retries of whoever asked first are the flight's.
                self._flight = Context().run(self._spawn, self._fly(refused))
            flight = self._flight
            await self._landing(flight)
            if flight.cancelled():
                raise NotOpen(f"{self._vendor.name}: closed while its token was being fetched")
            landed = flight.result()
            if isinstance(landed, CallFailed):
                raise self._no_token(landed) from landed
            if isinstance(landed, Exception):
                raise landed
            if landed.generation != refused:
                return landed

    async def _landing(self, flight: asyncio.Task[BearerToken | Exception]) -> None:
        left = remaining(self._clock)
        try:
            async with self._clock.timeout(left if left < inf else None):
                await asyncio.wait([flight])  # unlike `await flight`, giving up here leaves it flying
        except TimeoutError as error:
            raise NotSent(f"{self._vendor.name}: no token within the deadline", local=True) from error

    async def _fly(self, refused: int | None) -> BearerToken | Exception:
        try:
            self._held = await self._obtain(refused)
        except Exception as error:  # returned, not raised: it is for those who wait, not for the task group it flies in
            return error
        return self._held

    async def _obtain(self, refused: int | None) -> BearerToken:
        until = self._clock.monotonic() + _OTHERS_FETCH
        while True:
            lease = await self._store.leases.acquire(f"token:{self._key}", owner=self._owner, ttl=_LEASE)
            try:
                record = await self._store.records.get(_KIND, self._key)
                if record and record.version != refused and (token := await self._good(record)):
                    return token
                if lease:
                    return await self._fetch(record, forced=refused is not None)
            except VersionConflict:
                pass  # our lease ran out and another process was quicker: its token is the valid one
            finally:
                await self._release(lease)
            if self._clock.monotonic() >= until:
                raise NotSent(f"{self._vendor.name}: another process is still fetching the token", local=True)
            await self._clock.sleep(_POLL)

    async def _release(self, lease: Lease | None) -> None:
        if lease:
            await self._store.leases.release(lease)

    async def _good(self, record: Record) -> BearerToken | None:
        """The stored token, unless it is about to expire or we cannot open it."""
        sealed, expires_at, life = (str(record.value.get(name)) for name in ("sealed", "expires_at", "life"))
        value = self._seal.open(sealed, self._key)
        left = (datetime.fromisoformat(expires_at) - await self._store.now()).total_seconds()
        if value is None or left <= _margin(int(life)):
            return None
        return self._bearer(value, record.version, self._clock.monotonic(), left, int(life))

    async def _fetch(self, record: Record | None, *, forced: bool) -> BearerToken:
        if forced:
            await self._count_forced()
        asked, asked_at = self._clock.monotonic(), await self._store.now()
        try:
            async with self._clock.timeout(_FETCH_LIMIT):
                token = await self._vendor.fetch_token(self._http)
        except TimeoutError as error:
            raise NotSent(f"{self._vendor.name}: the token did not come within {_FETCH_LIMIT:.0f} s") from error
        life = int(min(max(0.0, token.expires_in), _LONGEST_LIFE))
        value: dict[str, Json] = {
            "sealed": self._seal.seal(token.value, self._key),
            "expires_at": (asked_at + timedelta(seconds=life)).isoformat(),
            "life": life,
        }
        stored = await self._store.records.apply(_KIND, self._key, record.version if record else 0, Draft(value=value))
        return self._bearer(token.value, stored.version, asked, life, life)

    async def _count_forced(self) -> None:
        """A wrong scope or a wrong clock must not become a storm of tokens."""
        if await self._store.counters.add(f"token:{self._key}", 1, window=_FORCED_WINDOW) > _FORCED:
            raise CallFailed.of(
                Cause.CREDENTIAL,
                f"{self._vendor.name}: {_FORCED} new tokens in {_FORCED_WINDOW:.0f} s were refused too; "
                "check the app's scopes and state at the vendor",
                provider=self._vendor.name,
                reason="token_refused",
            )

    def _bearer(self, value: Secret, generation: int, since: float, left: float, life: float) -> BearerToken:
        return BearerToken(
            value=value, generation=generation, renew_at=since + left - _margin(life), expires_at=since + left
        )

    def _no_token(self, error: CallFailed) -> CallFailed:
        """What a failed fetch means to the exchange that needed the token: that one was not sent."""
        cause = _MEANS.get(error.cause, error.cause)
        return CallFailed.of(
            cause,
            str(error),
            provider=self._vendor.name,
            operation=error.operation,
            status=error.status,
            code=error.code,
            reason=error.reason or "no_token",
            retry_after=error.retry_after,
            request_id=error.request_id,
            local=cause is Cause.NOT_SENT,  # its own guard has repeated what could be repeated
        )


_MEANS: Final = {
    Cause.UNKNOWN: Cause.NOT_SENT,
    Cause.MISMATCH: Cause.NOT_SENT,
    Cause.REJECTED: Cause.CREDENTIAL,  # OAuth says 400 invalid_client for a wrong secret
}


def _margin(life: float) -> float:
    """How long before its end a token is replaced: a tenth, from one to five minutes, at most half its life."""
    return min(max(60.0, min(life / 10, 300.0)), life / 2)
