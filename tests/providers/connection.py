"""A provider's connection into a simulator or a canned answer, guarded by nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import HttpVendor
from holdfast.http.wire import JsonOut, encode_json
from holdfast.outcome import Effect
from holdfast.payments.provider import OfferRequest
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from holdfast.webhooks.request import RawRequest

T = TypeVar("T")

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Unguarded:
    """Runs an exchange once."""

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
        credential: str = "",
        scope: str = "",
    ) -> T:
        return await exchange()


@dataclass
class Canned:
    """Answers every request the same, and keeps what was asked."""

    status: int = 200
    content: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    requests: list[HttpRequest] = field(default_factory=list[HttpRequest])

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return HttpResponse(status=self.status, content=self.content, headers=self.headers)

    async def aclose(self) -> None:
        pass


def connection(vendor: HttpVendor, transport: Transport) -> Http:
    return Http(vendor, transport, Unguarded(), ManualClock(NOON))


def canned(data: JsonOut, status: int = 200) -> Canned:
    return Canned(status=status, content=encode_json(data))


def offer_request(price: Money, **changes: object) -> OfferRequest:
    facts: dict[str, object] = {
        "reference": "consultation-4711",
        "attempt_id": "att_5f2c",
        "price": price,
        "description": "Consultation",
        "expires_in": timedelta(minutes=15),
        "expires_at": NOON + timedelta(minutes=15),
        "webhook_url": "https://api.example.ch/webhooks/vendor",
        "return_url": None,
    }
    return OfferRequest(**(facts | changes))  # type: ignore[arg-type]  # the facts are OfferRequest's own fields


def incoming(body: bytes, *headers: tuple[str, str]) -> RawRequest:
    return RawRequest(
        method="POST", url="https://api.example.ch/webhooks/vendor", headers=headers, body=body, received_at=NOON
    )
