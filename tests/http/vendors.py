"""A vendor over HTTP, and connections to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import httpx
from pydantic import BaseModel

from holdfast.clock import Clock, SystemClock
from holdfast.http.session import Bearers, Http
from holdfast.http.transports import HttpxTransport
from holdfast.http.vendor import CAUSES, Causes, HttpDefaults
from holdfast.outcome import Cause
from holdfast.resilience import Guard, Policy
from holdfast.values import Secret

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


def once(clock: Clock | None = None, *, timeout: float = 30) -> Guard:
    """A guard that makes one attempt, so that a test sees what it came to."""
    return Guard("shop", Policy(retry=None, breaker=None, timeout=timeout), clock=clock)


Answering = Callable[[httpx.Request], httpx.Response]


def mocked(answering: Answering, shop: Shop | None = None, *, tokens: Bearers | None = None) -> Http:
    """The vendor's connection, answered by a function."""
    transport = HttpxTransport(httpx.MockTransport(answering))
    return Http(shop or Shop(), transport, once(), SystemClock(), tokens=tokens)


def answers(status: int = 200, **facts: object) -> Answering:
    """The same answer to every request."""
    return lambda _request: httpx.Response(status, **facts)  # type: ignore[arg-type]  # httpx's own keywords
