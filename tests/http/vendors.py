"""A vendor over HTTP, and a guard that does only what an exchange relies on."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

import httpx
from pydantic import BaseModel

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CredentialRefused, OutcomeUnknown
from holdfast.http.session import Bearers, Http
from holdfast.http.transports import HttpxTransport
from holdfast.http.vendor import CAUSES, Causes, HttpDefaults
from holdfast.outcome import Cause, Effect
from holdfast.values import Secret

T = TypeVar("T")

KEY = "sk_live_correct-horse"


class Order(BaseModel):
    """What the vendor answers with."""

    id: str
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class Shop(HttpDefaults):
    """A vendor with a key in a header, and a row of its own in the table."""

    api_key: Secret = field(default=Secret(KEY))
    name: str = "shop"
    base_url: str = "https://api.shop.example"
    causes: Causes = field(default_factory=lambda: CAUSES | {(404, "1001"): Cause.CREDENTIAL, 520: Cause.REJECTED})

    def headers(self) -> Mapping[str, str]:
        return {"Api-Key": self.api_key.reveal()}


@dataclass
class PlainGuard:
    """Runs an exchange once, within `timeout`, and once more after a refresh."""

    clock: Clock = field(default_factory=SystemClock)
    timeout: float = 5.0
    attempts: int = 0

    async def run(
        self,
        exchange: Callable[[], Awaitable[T]],
        *,
        effect: Effect,
        operation: str,
        refresh: Callable[[], Awaitable[object]] | None = None,
        key_valid: Callable[[], bool] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> T:
        try:
            return await self._attempt(exchange, timeout)
        except CredentialRefused:
            if refresh is None:
                raise
        await refresh()
        return await self._attempt(exchange, timeout)

    async def _attempt(self, exchange: Callable[[], Awaitable[T]], timeout: float | None) -> T:
        self.attempts += 1
        try:
            async with self.clock.timeout(timeout or self.timeout):
                return await exchange()
        except TimeoutError as error:
            raise OutcomeUnknown("no answer in time", reason="timeout") from error


Answering = Callable[[httpx.Request], httpx.Response]


def mocked(answering: Answering, shop: Shop | None = None, *, tokens: Bearers | None = None) -> Http:
    """The vendor's connection, answered by a function."""
    transport = HttpxTransport(httpx.MockTransport(answering))
    return Http(shop or Shop(), transport, PlainGuard(), SystemClock(), tokens=tokens)


def answers(status: int = 200, **facts: object) -> Answering:
    """The same answer to every request."""
    return lambda _request: httpx.Response(status, **facts)  # type: ignore[arg-type]  # httpx's own keywords
