"""A vendor that wants every request signed for itself gets a new signature each time, and nobody else gets one."""

import asyncio
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import pytest

from holdfast.errors import CallFailed, NotSent
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport
from holdfast.http.vendor import SignsRequests
from holdfast.outcome import Effect
from holdfast.resilience import Guard, Policy, Retry
from holdfast.testing.clock import ManualClock
from tests.http.vendors import KEY, Answering, Order, Shop, answers, once

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Bank(Shop):
    """Signs what is asked, and when."""

    def sign(self, method: str, url: str, content: bytes, now: datetime) -> Mapping[str, str]:
        asked = f"{method} {url} {content.decode()} {now:%H:%M:%S.%f}"
        return {"Authorization": f"Bearer token-of <{asked}>", "X-Signature": sha256(asked.encode()).hexdigest()}


def connection(answering: Answering, clock: ManualClock, guard: Guard | None = None) -> Http:
    return Http(Bank(), HttpxTransport(httpx.MockTransport(answering)), guard or once(clock), clock)


def test_who_has_the_method_signs() -> None:
    assert isinstance(Bank(), SignsRequests)
    assert not isinstance(Shop(), SignsRequests)


async def test_what_is_signed_is_this_request_at_this_moment() -> None:
    # given
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "o1"})

    clock = ManualClock(NOON)
    http = connection(answer, clock)

    # when
    await http.get("/orders", Order, operation="o", params={"q": "a"})
    await http.post("/orders", Order, operation="o", effect=Effect.ONCE, json={"n": 1})

    # then
    assert [request.headers["authorization"] for request in seen] == [
        "Bearer token-of <GET https://api.shop.example/orders?q=a  12:00:00.000000>",
        'Bearer token-of <POST https://api.shop.example/orders {"n":1} 12:00:00.000000>',
    ]
    assert {request.headers["api-key"] for request in seen} == {KEY}


async def test_every_attempt_is_signed_anew() -> None:
    # given
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(500) if len(seen) < 3 else httpx.Response(200, json={"id": "o1"})

    clock = ManualClock(NOON)
    policy = Policy(retry=Retry(attempts=3), breaker=None, timeout=5, deadline=60)
    http = connection(answer, clock, Guard("shop", policy, clock=clock))

    # when
    call = asyncio.ensure_future(http.get("/orders/o1", Order, operation="fetch"))
    while not call.done():
        await clock.advance(1)

    # then
    assert (await call).id == "o1"
    assert len(set(seen)) == 3


async def test_another_host_gets_no_signature() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert not {"authorization", "x-signature"} & {*request.headers}
        return httpx.Response(200, json={"id": "o1"})

    http = connection(answer, ManualClock(NOON))
    assert (await http.get("https://elsewhere.example/orders", Order, operation="fetch")).id == "o1"


async def test_the_vendors_own_host_gets_one_by_absolute_address_too() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "token-of" in request.headers["authorization"]
        return httpx.Response(200, json={"id": "o1"})

    http = connection(answer, ManualClock(NOON))
    assert (await http.get("https://api.shop.example:443/orders", Order, operation="fetch")).id == "o1"


@pytest.mark.parametrize("name", ["Authorization", "X-Signature"])
@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_a_vendor_that_echoes_a_signature_does_not_get_it_into_our_error(
    name: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    caplog.set_level(logging.DEBUG)
    clock = ManualClock(NOON)
    sent = Bank().sign("POST", "https://api.shop.example/orders", b"{}", clock.now())[name]
    http = connection(answers(status, json={"message": f"bad: {sent}", "code": sent}), clock)

    # when
    with pytest.raises(CallFailed) as caught:
        await http.post("/orders", None, operation="create", effect=Effect.ONCE, json={})

    # then
    told = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert sent not in told
    assert "***" in str(caught.value)


async def test_a_signature_that_cannot_be_made_reaches_the_caller_and_nobody_else() -> None:
    # given
    class Broken(Bank):
        def sign(self, method: str, url: str, content: bytes, now: datetime) -> Mapping[str, str]:
            raise NotSent("the machine that signs is away")

    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    clock = ManualClock(NOON + timedelta(hours=1))
    http = Http(Broken(), HttpxTransport(httpx.MockTransport(answer)), once(clock), clock)

    # when
    with pytest.raises(NotSent, match="away"):
        await http.get("/orders", Order, operation="fetch")

    # then
    assert asked == []
