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
from holdfast.queue.signals import OldSecretUsed
from holdfast.stores import JobFilter
from holdfast.telemetry import DeliveryArrived, Security, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.webhooks.door import VERBS, DoorFacts, ReceivesWebhooks, receives_webhooks
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody
from tests.payments.vendors import SigningVendor, UnsignedVendor, Vendor

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


async def test_a_delivery_that_is_put_is_kept_too(door: Door) -> None:
    forged = await door.client.put("/signed", content=b"object-1")
    door.signed.before = _refuse
    await door.hub.payments.create("order-1", Money("1.00", "CHF"))
    url = door.unsigned.requests[0].webhook_url or ""

    answer = await door.client.put(url.removeprefix("https://shop.example/webhooks"), content=b"object-1")

    assert (forged.status_code, answer.status_code) == (401, 200)
    assert [job.body for job in await door.jobs()] == [b"object-1"]


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

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")


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

    assert answer.status_code == 503
    assert 5 <= int(answer.headers["retry-after"]) <= 10


async def test_vendors_are_not_all_asked_to_come_again_at_the_same_moment(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_jobs: object) -> object:
        raise StoreUnavailable("down")

    monkeypatch.setattr(door.hub.store.jobs, "add", fail)

    answers = [await door.post("/signed", b"object-1") for _ in range(30)]

    assert len({answer.headers["retry-after"] for answer in answers}) > 2


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

    answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 503
    assert await door.jobs() == []


async def test_while_secrets_cannot_be_had_the_vendor_is_asked_to_come_again_and_not_disbelieved() -> None:
    class Locked(SigningVendor):
        locked = False

        def __getattribute__(self, name: str) -> Any:
            if name == "webhook_secrets" and type(self).locked:
                raise ConnectionError("the vault does not answer")
            return super().__getattribute__(name)

    signals: list[Signal] = []
    telemetry = Telemetry([signals.append])
    hub = Holdfast(store="memory://", secret=HUB, payments=[Locked(name="locked")], telemetry=telemetry)
    Locked.locked = True
    async with hub, httpx.AsyncClient(transport=httpx.ASGITransport(hub.receiver), base_url="http://door") as client:
        answer = await client.post("/locked", content=b"x", headers={"x-signature": "0" * 64})

    assert answer.status_code == 503
    assert hub.receiver.quarantine.counts == {("locked", "secret"): 1}
    assert [(signal.reason, signal.hint) for signal in signals if isinstance(signal, DeliveryArrived)] == [
        ("secret", "no request can be verified: ConnectionError")
    ]


@pytest.mark.parametrize("failure", [ConnectionError, AttributeError])
async def test_without_its_secrets_a_hub_is_made_and_a_payment_too(failure: type[Exception]) -> None:
    class Vault(Vendor):
        scheme, handshake, parse = HmacBody("x-signature"), SigningVendor.handshake, SigningVendor.parse
        asked = 0

        @property
        def webhook_secrets(self) -> Secrets:
            type(self).asked += 1
            raise failure("the vault does not answer")

    vault = Vault(name="vault")
    hub = Holdfast(store="memory://", secret=HUB, public_url="https://shop.example/webhooks", payments=[vault])
    async with hub, httpx.AsyncClient(transport=httpx.ASGITransport(hub.receiver), base_url="http://door") as client:
        payment = await hub.payments.create("order-1", Money("10.00", "CHF"))
        assert Vault.asked == 0
        answer = await client.post("/vault", content=b"x", headers={"x-signature": "0" * 64})

    assert payment.offer is not None
    assert vault.requests[0].webhook_url == "https://shop.example/webhooks/vault"
    assert answer.status_code == 503


def test_a_door_is_known_by_all_its_verbs() -> None:
    assert set(VERBS) == {name for name in vars(ReceivesWebhooks) if not name.startswith("_")}
    assert receives_webhooks(SigningVendor(name="signed"))
    assert not receives_webhooks(Vendor(name="never calls"))
    assert not receives_webhooks(object())


def test_a_provider_behind_a_proxy_receives_webhooks_as_it_does_itself() -> None:
    class Proxy:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    assert receives_webhooks(Proxy(SigningVendor(name="signed")))
    assert not receives_webhooks(Proxy(Vendor(name="never calls")))


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

    assert answers[0]["status"] == 503
    assert [arrival.reason for arrival in door.arrivals] == ["slow_body"]


# One id with two bodies.


async def conflicting(door: Door, *bodies: bytes) -> list[int]:
    """Each body with the same id."""
    return [(await door.post("/same-id", body)).status_code for body in bodies]


@pytest.fixture
async def careless() -> AsyncIterator[Door]:
    """A vendor that gives the same id to whatever it sends."""

    class Careless(SigningVendor):
        def parse(self, request: Any) -> Sequence[Delivery]:
            return [Delivery(type="paid", dedup_key="id-1", vendor_id="object-1")]

    door = Door()
    door.hub = Holdfast(
        store="memory://", payments=[Careless(name="same-id")], telemetry=Telemetry([door.signals.append])
    )
    door.client = httpx.AsyncClient(transport=httpx.ASGITransport(door.hub.receiver), base_url="http://door")
    async with door.hub, door.client:
        yield door


async def test_of_one_id_with_two_bodies_the_first_is_worked_on_and_the_second_kept_aside(careless: Door) -> None:
    assert await conflicting(careless, b"first", b"second") == [200, 200]

    kept = {job.key: (job.state.value, job.body) for job in await careless.jobs()}
    assert kept == {"same-id/id-1": ("ready", b"first"), "same-id/id-1/conflict-0": ("ignored", b"second")}
    assert [signal.what for signal in careless.signals if isinstance(signal, Security)]


async def test_what_was_kept_aside_can_be_replayed(careless: Door) -> None:
    await conflicting(careless, b"first", b"second")
    aside = next(job for job in await careless.jobs() if job.body == b"second")

    replayed = await careless.hub.store.jobs.replay(aside.id)

    assert (replayed.state.value, replayed.headers["type"], replayed.headers["conflict_with"]) == (
        "ready",
        "paid",
        "same-id/id-1",
    )


async def test_a_flood_of_bodies_under_one_id_keeps_only_a_few(careless: Door) -> None:
    bodies = [b"body %d" % number for number in range(20)]

    assert set(await conflicting(careless, *bodies, *bodies)) == {200}

    assert sorted(job.body for job in await careless.jobs()) == [b"body 0", b"body 1", b"body 2", b"body 3"]


async def test_a_conflict_that_cannot_be_kept_aside_is_not_acknowledged(
    careless: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    await conflicting(careless, b"first")
    add = careless.hub.store.jobs.add

    async def fail(jobs: Sequence[Any]) -> object:
        if jobs[0].ignored:
            raise StoreUnavailable("disk full")
        return await add(jobs)

    monkeypatch.setattr(careless.hub.store.jobs, "add", fail)

    assert await conflicting(careless, b"second") == [503]


# What is told.


async def test_the_answer_names_what_was_kept_by_a_receipt_that_says_nothing(door: Door) -> None:
    first, again, other = [await door.post("/signed", body) for body in (b"object-1", b"object-1", b"object-2")]

    assert first.json()["received"] == 1
    assert first.json()["receipt"] == again.json()["receipt"] != other.json()["receipt"]
    assert "object" not in first.text


async def test_a_secret_that_was_replaced_still_lets_in_and_is_told_of(door: Door) -> None:
    door.signed.webhook_secrets = Secrets("the new one", "webhook-secret")

    answer = await door.post("/signed", b"object-1")

    assert answer.status_code == 200
    assert [signal for signal in door.signals if isinstance(signal, OldSecretUsed)] == [OldSecretUsed("signed", 1)]


async def test_refusals_are_counted_and_a_sample_is_kept_without_secrets() -> None:
    clock = ManualClock()
    door = Door(clock)
    async with door.hub, door.client:
        for _ in range(500):
            await door.post("/signed", b'{"password": "webhook-secret"}', secret="another")
        await clock.advance(1)
        await door.post("/signed", b"x", secret="another")

    quarantine = door.hub.receiver.quarantine
    assert quarantine.counts == {("signed", "wrong_signature"): 501}
    assert [arrival.times for arrival in door.arrivals] == [1, 500]
    assert [(refused.reason, refused.size) for refused in quarantine.kept] == [
        ("wrong_signature", 30),
        ("wrong_signature", 1),
    ]
    assert "webhook-secret" not in repr(quarantine.kept)
    assert quarantine.kept[0].headers["x-signature"] == "***"


async def test_the_sample_holds_a_hundred() -> None:
    clock = ManualClock()
    door = Door(clock)
    async with door.hub, door.client:
        for number in range(120):
            await door.post("/signed", b"%d" % number, secret="another")
            await clock.advance(1)

    assert [refused.body for refused in door.hub.receiver.quarantine.kept] == [str(number) for number in range(20, 120)]


async def test_nobody_who_listens_means_that_no_signal_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        def hears(self, kind: type[Signal]) -> bool:
            return False

        def __call__(self, signal: Signal) -> None:
            raise AssertionError(signal)

    door = Door()
    door.hub.telemetry.sinks[:] = [Deaf()]
    async with door.hub, door.client:
        assert (await door.post("/signed", b"object-1")).status_code == 200


# What vendors differ in.


class Peculiar(SigningVendor):
    """Reads status codes in its own way, asks first whether we are there, and sends much."""

    door = DoorFacts(accepted=202, refused=406, later=429, max_body=MAX_BODY + 1000)

    def probe(self, request: RawRequest) -> Answer | None:
        if "boom" in request.url:
            raise KeyError("no challenge")
        _, _, challenge = request.url.partition("challenge=")
        return (
            Answer(body=challenge.encode(), content_type="text/plain", headers=[("x-ok", "1")]) if challenge else None
        )


@pytest.fixture
async def peculiar() -> AsyncIterator[Door]:
    door = Door()
    door.hub = Holdfast(store="memory://", payments=[Peculiar(name="peculiar")])
    door.client = httpx.AsyncClient(transport=httpx.ASGITransport(door.hub.receiver), base_url="http://door")
    async with door.client:
        yield door


async def test_a_vendor_is_answered_in_the_codes_it_understands(peculiar: Door) -> None:
    closed = await peculiar.post("/peculiar", b"object-1")
    async with peculiar.hub:
        kept = await peculiar.post("/peculiar", b"object-1")
        refused = await peculiar.post("/peculiar", b"object-1", secret="another")

    assert (closed.status_code, kept.status_code, refused.status_code) == (429, 202, 406)
    assert "retry-after" in closed.headers


async def test_a_vendor_may_send_more_than_others(peculiar: Door) -> None:
    async with peculiar.hub:
        kept = await peculiar.post("/peculiar", b"x" * (MAX_BODY + 1000))
        refused = await peculiar.post("/peculiar", b"x" * (MAX_BODY + 1001))

    assert (kept.status_code, refused.status_code) == (202, 413)


async def test_a_vendor_that_looks_first_is_answered(peculiar: Door) -> None:
    got = await peculiar.client.get("/peculiar?challenge=abc")
    headed = await peculiar.client.head("/peculiar?challenge=abc")

    sent = []
    scope = {"type": "http", "method": "HEAD", "path": "/peculiar", "query_string": b"challenge=abc", "headers": []}

    async def send(message: Any) -> None:
        sent.append(message)

    await peculiar.hub.receiver(scope, lambda: asyncio.sleep(0, {}), send)

    assert sent[1]["body"] == b""
    assert (got.status_code, got.text, got.headers["x-ok"]) == (200, "abc", "1")
    assert (headed.status_code, headed.text, headed.headers["content-length"]) == (200, "", "3")


@pytest.mark.parametrize(("method", "query"), [("GET", ""), ("HEAD", "?boom"), ("DELETE", "?challenge=abc")])
async def test_what_is_no_such_look_is_not_answered(peculiar: Door, method: str, query: str) -> None:
    answer = await peculiar.client.request(method, f"/peculiar{query}")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, PUT")
