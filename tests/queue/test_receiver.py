"""The door: 2xx only for what is kept, and nothing kept that is not proven."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest

from holdfast import Holdfast, Money, Secrets
from holdfast.errors import NotSent, StoreUnavailable
from holdfast.queue.receiver import MAX_BODY
from holdfast.stores import JobFilter
from holdfast.telemetry import DeliveryArrived, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.webhooks.request import Delivery
from tests.payments.vendors import SigningVendor, UnsignedVendor

HUB = Secrets("hub-secret")


class Door:
    """A hub, its receiver as an HTTP client, and the signals it sent."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.signals: list[Signal] = []
        self.signed, self.unsigned = SigningVendor(name="signed"), UnsignedVendor(name="unsigned")
        self.hub = Holdfast(
            store="memory://",
            secret=HUB,
            public_url="https://shop.example/webhooks",
            payments=[self.signed, self.unsigned],
            telemetry=Telemetry([self.signals.append]),
            clock=clock,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.hub.receiver), base_url="http://door")

    async def post(self, path: str, body: bytes, *, secret: str = "webhook-secret") -> httpx.Response:
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return await self.client.post(path, content=body, headers={"x-signature": signature})

    async def jobs(self) -> Sequence[Any]:
        return await self.hub.store.jobs.list(JobFilter(queue="deliveries"))

    @property
    def arrivals(self) -> list[DeliveryArrived]:
        return [signal for signal in self.signals if isinstance(signal, DeliveryArrived)]


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    async with door.hub, door.client:
        yield door


async def test_a_signed_delivery_is_kept_before_it_is_acknowledged(door: Door) -> None:
    answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 200
    assert [(job.kind, job.body) for job in await door.jobs()] == [("signed", b"object-1")]


async def test_the_same_delivery_twice_is_acknowledged_twice_and_kept_once(door: Door) -> None:
    answers = [await door.post("/signed", b"object-1") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(await door.jobs()) == 1
    assert [arrival.result for arrival in door.arrivals] == ["accepted", "duplicate"]


async def test_a_wrong_signature_is_refused_with_a_reason_and_nothing_is_kept(door: Door) -> None:
    answer = await door.post("/signed", b"object-1", secret="of somebody else")

    assert answer.status_code == 401
    assert answer.json() == {"error": "wrong_signature"}
    assert await door.jobs() == []
    assert door.arrivals[0].hint


async def test_a_missing_signature_is_refused(door: Door) -> None:
    answer = await door.client.post("/signed", content=b"object-1")

    assert (answer.status_code, answer.json()["error"]) == (401, "missing_header")


async def test_an_unsigned_vendor_comes_in_by_the_url_it_was_given(door: Door) -> None:
    door.signed.before = _refuse
    payment = await door.hub.payments.create("order-1", Money("1.00", "CHF"))
    url = door.unsigned.requests[0].webhook_url or ""

    answer = await door.client.post(url.removeprefix("https://shop.example/webhooks"), content=b"object-1")

    assert url.startswith("https://shop.example/webhooks/unsigned/")
    assert answer.status_code == 200
    assert [job.headers["attempt_id"] for job in await door.jobs()] == [payment.attempts[1].id]


def _refuse() -> None:
    raise NotSent("connection refused", hard=True)


async def test_an_unsigned_vendor_with_a_wrong_url_gets_404_and_nothing_is_kept(door: Door) -> None:
    for path in ("/unsigned", "/unsigned/attempt.00000000000000000000000000000000", "/unsigned/attempt"):
        answer = await door.client.post(path, content=b"object-1")
        assert answer.status_code == 404

    assert await door.jobs() == []


async def test_an_unknown_door_is_404(door: Door) -> None:
    assert (await door.client.post("/nobody", content=b"x")).status_code == 404


async def test_only_post_is_answered(door: Door) -> None:
    answer = await door.client.get("/signed")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_body_over_the_cap_is_refused_while_it_streams(door: Door) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 100 * MAX_BODY:
            read += 65_536
            yield b"x" * 65_536

    answer = await door.client.post("/signed", content=endless())

    assert answer.status_code == 413
    assert await door.jobs() == []


async def test_an_authentic_body_nobody_can_read_is_kept(door: Door) -> None:
    answer = await door.post("/signed", b'{"half": ')

    assert answer.status_code == 200
    assert [job.headers["type"] for job in await door.jobs()] == ["unparsed"]


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), TimeoutError()])
async def test_what_could_not_be_kept_is_never_acknowledged(
    door: Door, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_jobs: object) -> object:
        raise error

    monkeypatch.setattr(door.hub.store.jobs, "add", fail)

    answer = await door.post("/signed", b"object-1")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_no_secret_and_no_signature_is_stored(door: Door) -> None:
    await door.post("/signed", b"object-1")

    assert "signature" not in str((await door.jobs())[0].headers)


Mount = Callable[[Any], Any]


def starlette_mount(receiver: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount as Route

    return Starlette(routes=[Route("/webhooks", receiver)])


def fastapi_mount(receiver: Any) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/webhooks", receiver)
    return app


@pytest.mark.parametrize("mount", [starlette_mount, fastapi_mount])
async def test_it_can_be_mounted_anywhere(door: Door, mount: Mount) -> None:
    transport = httpx.ASGITransport(mount(door.hub.receiver))
    body = b"object-1"
    signature = hmac.new(b"webhook-secret", body, hashlib.sha256).hexdigest()

    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        answer = await client.post("/webhooks/signed", content=body, headers={"x-signature": signature})

    assert answer.status_code == 200


@pytest.mark.parametrize("verb", ["parse", "handshake"])
@pytest.mark.parametrize("error", [KeyError("id"), TypeError("not a dict"), RecursionError("too deep")])
async def test_whatever_reading_an_authentic_body_raises_it_is_kept(
    door: Door, verb: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_request: object) -> object:
        raise error

    monkeypatch.setattr(door.signed, verb, fail)

    answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 200
    assert [(job.headers["type"], job.body) for job in await door.jobs()] == [("unparsed", b"object-1")]


async def test_an_authentic_body_with_half_a_character_in_it_is_kept(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Delivery(type="paid", dedup_key="\ud800/paid", vendor_id="\ud800")
    monkeypatch.setattr(door.signed, "parse", lambda _request: [half])

    answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 200
    assert [(job.headers["type"], job.body) for job in await door.jobs()] == [("unparsed", b"object-1")]


async def test_a_signature_nobody_could_judge_is_no_valid_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def verify(self, request: object, secrets: object) -> object:
            raise KeyError("a bug in the scheme")

    monkeypatch.setattr(door.signed, "scheme", Broken())

    with pytest.raises(KeyError):
        await door.post("/signed", b"object-1")

    assert await door.jobs() == []


async def test_a_door_whose_hub_is_closed_asks_the_vendor_to_come_again() -> None:
    door = Door()
    async with door.client:
        answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 503


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    clock = ManualClock()
    door = Door(clock)
    answers: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/signed", "headers": []}
    async with door.hub:
        asking = asyncio.ensure_future(door.hub.receiver(scope, never, keep))
        await clock.advance(11)
        await asking

    assert answers[0]["status"] == 408
