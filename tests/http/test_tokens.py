"""One token for everybody: fetched once, kept sealed, replaced in time, and never in a storm."""

import asyncio
import base64
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import httpx
import pytest
from pydantic import BaseModel

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    HoldfastError,
    MissingExtra,
    NotOpen,
    NotSent,
    StoreUnavailable,
)
from holdfast.http.sealing import Seal
from holdfast.http.session import Http
from holdfast.http.tokens import BearerToken, Token, TokenSource, TokenVendor
from holdfast.http.transports import HttpxTransport
from holdfast.http.vendor import HttpDefaults
from holdfast.outcome import Cause, Effect
from holdfast.resilience.context import deadline_scope, retry_scope
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock
from holdfast.values import Secret, Secrets
from tests.http.vendors import Order, once

HUB = Secrets("hub-secret")
LIFE = 3600


class Issued(BaseModel):
    access_token: str
    expires_in: float


@dataclass(frozen=True, kw_only=True)
class Meet(HttpDefaults):
    """A vendor whose tokens come from another host, as Zoom's do."""

    client_secret: Secret = field(default=Secret("client-secret"))
    name: str = "meet"
    base_url: str = "https://api.meet.example"

    def token_scope(self) -> str:
        return "account-1 client-1"

    async def fetch_token(self, http: Http) -> Token:
        issued = await http.post(
            "https://auth.meet.example/token",
            Issued,
            operation="fetch_token",
            effect=Effect.IDEMPOTENT,
            form={"grant_type": "account_credentials"},
            headers={"authorization": f"Basic {self.client_secret.reveal()}"},
        )
        return Token(value=Secret(issued.access_token), expires_in=issued.expires_in)


@dataclass
class Vendor:
    """The other end: hands out `token-1`, `token-2`, …; only the newest is good."""

    issued: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    gate: asyncio.Event | None = None
    failing: int = 0
    """The status with which the token endpoint answers instead."""
    accepts: Mapping[str, bool] = field(default_factory=dict[str, bool])

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.meet.example":
            return await self._issue(request)
        token = request.headers["authorization"].removeprefix("Bearer ")
        good = self.accepts.get(token, token == f"token-{self.issued}")
        self.calls.append((token, 200 if good else 401))
        return httpx.Response(200, json={"id": "m1"}) if good else httpx.Response(401, json={"code": 124})

    async def _issue(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Basic client-secret"
        if self.gate:
            await self.gate.wait()
        if self.failing:
            return httpx.Response(self.failing, json={"error": "invalid_client"})
        self.issued += 1
        return httpx.Response(200, json={"access_token": f"token-{self.issued}", "expires_in": LIFE})


@dataclass
class World:
    """One store, one vendor, one clock; as many processes as a test makes."""

    clock: ManualClock
    store: MemoryStore
    vendor: Vendor
    group: asyncio.TaskGroup

    def process(self, owner: str = "a", *, secret: Secrets = HUB, vendor: Meet | None = None) -> TokenSource:
        return TokenSource(
            vendor or Meet(),
            transport=self.transport(),
            guard=once(self.clock, timeout=1000),
            store=self.store,
            secret=secret,
            clock=self.clock,
            spawn=self.group.create_task,
            owner=owner,
        )

    def http(self, tokens: TokenSource) -> Http:
        return Http(Meet(), self.transport(), once(self.clock, timeout=1000), self.clock, tokens=tokens)

    def transport(self) -> HttpxTransport:
        return HttpxTransport(httpx.MockTransport(self.vendor.answer))


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    clock = ManualClock()
    async with MemoryStore(clock=clock) as store, asyncio.TaskGroup() as group:
        yield World(clock, store, Vendor(), group)


async def create(http: Http) -> Order:
    return await http.post("/meetings", Order, operation="create_meeting", effect=Effect.ONCE, json={})


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# One fetch


async def test_fifty_callers_share_one_fetch(world: World) -> None:
    # when
    http = world.http(world.process())
    await asyncio.gather(*(create(http) for _ in range(50)))

    # then
    assert world.vendor.issued == 1
    assert world.vendor.calls == [("token-1", 200)] * 50


async def test_two_processes_share_one_fetch(world: World) -> None:
    # given two processes that ask while the vendor is slow
    world.vendor.gate = asyncio.Event()
    processes = [world.http(world.process(owner)) for owner in "ab"]
    asking = [world.group.create_task(create(http)) for http in processes for _ in range(5)]
    await world.clock.advance(1)
    assert world.vendor.issued == 0

    # when
    world.vendor.gate.set()
    await world.clock.advance(0.1)
    await asyncio.gather(*asking)

    # then
    assert world.vendor.issued == 1


async def test_two_providers_of_one_account_share_one_token(world: World) -> None:
    # given
    world.vendor.gate = asyncio.Event()
    sources = [world.process(vendor=Meet(name=name)) for name in ("meet", "meet-again")]
    asking = [world.group.create_task(tokens.current()) for tokens in sources]
    await turns()

    # when
    world.vendor.gate.set()
    await world.clock.advance(0.1)

    # then
    assert {(await token).value for token in asking} == {Secret("token-1")}


async def test_a_later_process_takes_the_token_from_the_store(world: World) -> None:
    first = await world.process("a").current()
    second = await world.process("b").current()
    assert world.vendor.issued == 1
    assert (first.value, first.generation) == (second.value, second.generation)


async def test_giving_up_waiting_does_not_stop_the_fetch(world: World) -> None:
    # given
    world.vendor.gate = asyncio.Event()
    tokens = world.process()
    impatient, patient = (world.group.create_task(tokens.current()) for _ in range(2))
    await turns()

    # when
    impatient.cancel()
    await turns()
    world.vendor.gate.set()

    # then
    assert (await patient).value == Secret("token-1")
    assert impatient.cancelled()
    assert world.vendor.issued == 1


async def test_a_process_that_died_while_fetching_is_waited_for_and_then_replaced(world: World) -> None:
    # given a lease nobody will release
    tokens = world.process("b")
    dead = world.process("a")
    world.vendor.gate = asyncio.Event()
    abandoned = world.group.create_task(dead._obtain(None))  # pyright: ignore[reportPrivateUsage]
    await turns()
    lease_name = f"token:{dead._key}"  # pyright: ignore[reportPrivateUsage]
    abandoned.cancel()
    await turns()
    assert await world.store.leases.acquire(lease_name, owner="a", ttl=10)
    world.vendor.gate = None

    # when it has not run out yet
    waiting = world.group.create_task(failure(tokens))
    await world.clock.advance(6)

    # then
    error = await waiting
    assert isinstance(error, NotSent)
    assert error.local
    assert world.vendor.issued == 0

    # when it has
    await world.clock.advance(5)
    assert (await tokens.current()).value == Secret("token-1")


async def test_who_lost_its_lease_takes_the_token_of_who_was_quicker(world: World) -> None:
    # given a slow fetch whose lease is lost
    gate = world.vendor.gate = asyncio.Event()
    slow = world.process("a")
    waiting = world.group.create_task(slow.current())
    await turns()
    lease = await world.store.leases.acquire(
        f"token:{slow._key}",  # pyright: ignore[reportPrivateUsage]
        owner="a/meet",
        ttl=1,
    )
    assert lease
    await world.store.leases.release(lease)

    # when another process fetches one meanwhile
    world.vendor.gate = None
    quick = await world.process("b").current()
    gate.set()
    await world.clock.advance(1)

    # then
    assert (await waiting).value == quick.value


async def failure(tokens: TokenSource) -> HoldfastError:
    with pytest.raises(HoldfastError) as caught:
        await tokens.current()
    return caught.value


# Refused tokens


async def test_a_refused_token_is_replaced_once_and_the_call_replayed_once(world: World) -> None:
    # given a token that somebody else's token has invalidated
    http = world.http(world.process())
    await create(http)
    world.vendor.accepts = {"token-1": False}
    world.vendor.calls.clear()

    # when
    await create(http)

    # then
    assert world.vendor.issued == 2
    assert world.vendor.calls == [("token-1", 401), ("token-2", 200)]


async def test_a_second_refusal_goes_to_the_caller(world: World) -> None:
    # given
    http = world.http(world.process())
    world.vendor.accepts = {f"token-{number}": False for number in range(1, 10)}

    # when
    with pytest.raises(CredentialRefused):
        await create(http)

    # then
    assert [token for token, _ in world.vendor.calls] == ["token-1", "token-2"]


async def test_callers_refused_together_share_one_replacement(world: World) -> None:
    # given
    http = world.http(world.process())
    await create(http)
    world.vendor.accepts = {"token-1": False}

    # when
    await asyncio.gather(*(create(http) for _ in range(20)))

    # then
    assert world.vendor.issued == 2


async def test_a_token_another_process_has_replaced_is_not_replaced_again(world: World) -> None:
    # given
    mine, theirs = world.process("a"), world.process("b")
    old = await mine.current()
    await theirs.current()
    newest = await theirs.newer(old)

    # when
    found = await mine.newer(old)

    # then
    assert found.value == newest.value == Secret("token-2")
    assert world.vendor.issued == 2


async def test_a_token_that_is_always_refused_makes_no_storm(world: World) -> None:
    # given
    tokens = world.process()
    token = await tokens.current()
    for _ in range(3):
        token = await tokens.newer(token)

    # when
    with pytest.raises(CredentialRefused, match="3 new tokens in 300 s"):
        await tokens.newer(token)

    # then
    assert world.vendor.issued == 4

    # when the window has passed
    await world.clock.advance(331)
    await tokens.newer(token)
    assert world.vendor.issued == 5


# Time


async def test_a_token_is_replaced_before_its_end(world: World) -> None:
    # given a life of an hour: the margin is five minutes
    http = world.http(world.process())
    await create(http)
    await world.clock.advance(LIFE - 301)
    await create(http)
    assert world.vendor.issued == 1

    # when
    await world.clock.advance(1)
    await create(http)

    # then
    assert world.vendor.issued == 2


async def test_a_token_near_its_end_in_the_store_is_not_taken(world: World) -> None:
    await world.process("a").current()
    await world.clock.advance(LIFE - 300)
    assert (await world.process("b").current()).value == Secret("token-2")


async def test_a_token_with_time_left_serves_while_no_new_one_is_to_be_had(world: World) -> None:
    # given
    tokens = world.process()
    await tokens.current()
    world.vendor.failing = 503
    await world.clock.advance(LIFE - 200)

    # then
    assert (await tokens.current()).value == Secret("token-1")
    world.vendor.failing = 0
    assert (await tokens.current()).value == Secret("token-1")  # not asked again at once

    # when
    await world.clock.advance(5)
    assert (await tokens.current()).value == Secret("token-2")


async def test_a_dead_token_does_not_serve(world: World) -> None:
    tokens = world.process()
    await tokens.current()
    world.vendor.failing = 503
    await world.clock.advance(LIFE)
    assert isinstance(await failure(tokens), NotSent)


async def test_a_fetch_that_takes_longer_than_its_lease_is_given_up(world: World) -> None:
    # given
    world.vendor.gate = asyncio.Event()
    waiting = world.group.create_task(failure(world.process()))

    # when
    await world.clock.advance(9)

    # then
    assert isinstance(await waiting, NotSent)


# What a failed fetch means


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, Cause.CREDENTIAL),
        (401, Cause.CREDENTIAL),
        (429, Cause.THROTTLED),
        (500, Cause.NOT_SENT),
        (302, Cause.NOT_SENT),
    ],
)
async def test_without_a_token_nothing_was_sent(world: World, status: int, cause: Cause) -> None:
    # given
    world.vendor.failing = status

    # when
    with pytest.raises(CallFailed) as caught:
        await create(world.http(world.process()))

    # then
    assert caught.value.cause is cause
    assert caught.value.provider == "meet"
    assert world.vendor.calls == []


async def test_everybody_who_waits_gets_an_error_of_their_own(world: World) -> None:
    # given
    world.vendor.failing = 500
    tokens = world.process()

    # when
    errors = await asyncio.gather(*(failure(tokens) for _ in range(5)))

    # then
    assert len({id(error) for error in errors}) == 5


async def test_a_store_that_is_down_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(world.store.leases, "acquire", down)
    assert isinstance(await failure(world.process()), StoreUnavailable)


async def test_closing_while_a_token_is_fetched_is_said_to_who_waits(world: World) -> None:
    # given
    world.vendor.gate = asyncio.Event()
    tokens = world.process()
    waiting = world.group.create_task(failure(tokens))
    await turns()

    # when
    assert tokens._flight  # pyright: ignore[reportPrivateUsage]
    tokens._flight.cancel()  # pyright: ignore[reportPrivateUsage]

    # then
    assert isinstance(await waiting, NotOpen)


# At rest


async def test_a_token_rests_sealed(world: World) -> None:
    # when
    await world.process().current()

    # then
    (record,) = await world.store.records.list("token")
    assert "token-1" not in str(record)
    sealed = base64.b64decode(str(record.value["sealed"]))
    assert b"token-1" not in sealed


@pytest.mark.parametrize(
    ("secret", "issued"),
    [
        (HUB, 1),
        (Secrets("new-secret", "hub-secret"), 1),
        (Secrets("another-secret"), 2),
    ],
    ids=["the same", "rotated", "another"],
)
async def test_a_token_sealed_with_a_secret_we_lost_is_fetched_anew(world: World, secret: Secrets, issued: int) -> None:
    await world.process("a").current()
    await world.process("b", secret=secret).current()
    assert world.vendor.issued == issued


@pytest.mark.parametrize("change", [lambda text: "A" + text[1:], lambda text: text[:8], lambda _: "é", lambda _: ""])
def test_a_changed_seal_does_not_open(change: "type[str]") -> None:
    seal = Seal(HUB, "token")
    assert seal.open(change(seal.seal(Secret("x"), "k")), "k") is None


def test_a_seal_opens_only_where_it_belongs() -> None:
    sealed = Seal(HUB, "token").seal(Secret("x"), "k")
    assert Seal(HUB, "token").open(sealed, "k") == Secret("x")
    assert Seal(HUB, "token").open(sealed, "other") is None
    assert Seal(HUB, "payload").open(sealed, "k") is None


async def test_a_missing_package_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    error = await failure(world.process())
    assert isinstance(error, MissingExtra)
    assert "holdfast[encryption]" in str(error)


def test_a_token_does_not_show_itself() -> None:
    assert "hidden" not in repr(Token(value=Secret("hidden"), expires_in=1))
    assert "hidden" not in repr(BearerToken(value=Secret("hidden"), generation=1, renew_at=0, expires_at=0))


def test_a_vendor_with_tokens_is_recognised() -> None:
    assert isinstance(Meet(), TokenVendor)
    assert not isinstance(HttpDefaults(), TokenVendor)


@pytest.mark.parametrize(
    ("expires_in", "serves"), [(86_400, 86_100), (3600, 3300), (1000, 900), (300, 240), (100, 50), (0, 0), (-5, 0)]
)
async def test_the_margin_is_a_tenth_within_bounds(world: World, expires_in: float, serves: float) -> None:
    # given
    class Short(Meet):
        async def fetch_token(self, http: Http) -> Token:
            return Token(value=Secret("t"), expires_in=expires_in)

    tokens = world.process(vendor=Short())

    # then
    assert (await tokens.current()).renew_at == serves


# Deadlines


async def test_a_caller_out_of_time_gives_up_alone(world: World) -> None:
    # given a caller with a second left, and one with time
    world.vendor.gate = asyncio.Event()
    tokens = world.process()

    async def hurried() -> HoldfastError:
        with deadline_scope(1, world.clock), retry_scope():
            return await failure(tokens)

    waiting = world.group.create_task(hurried())
    await turns()
    patient = world.group.create_task(tokens.current())

    # when
    await world.clock.advance(2)

    # then
    error = await waiting
    assert isinstance(error, NotSent)
    assert error.local
    world.vendor.gate.set()
    assert (await patient).value == Secret("token-1")
    assert world.vendor.issued == 1
