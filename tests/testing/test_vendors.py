"""The fakes of a run, and every door to them."""

import json
import socket
import ssl
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest
import respx

from holdfast import Holdfast, Money, Secret, Secrets
from holdfast.clock import SystemClock
from holdfast.errors import CallFailed, ConfigurationError, InsecureSetup
from holdfast.http.transports import HttpRequest, HttpxTransport
from holdfast.providers import SwissBitcoinPay
from holdfast.testing import Fakes, Faults, Ledger, NotSimulated, VirtualClock, World, charge, message
from holdfast.testing.faults import (
    BadChunk,
    BadGzip,
    BadJson,
    Close,
    ConflictingLengths,
    Dns,
    Dribble,
    Fault,
    GarbageStatus,
    Hang,
    Html,
    HugeHeader,
    Latency,
    Refused,
    Reset,
    Stall,
    Status,
    TlsError,
    Truncate,
)
from holdfast.testing.journal import Journal

CHARGES = "https://api.stripe.com/v1/charges"


@pytest.fixture
def world() -> World:
    return World(seed=7)


def signed_in(fakes: Fakes) -> httpx.BasicAuth:
    return httpx.BasicAuth(fakes.stripe().api_key, "")


# The vendors


def test_every_vendor_has_a_method_of_its_name_and_is_made_once() -> None:
    fakes = Fakes(seed=7)
    made = [
        fakes.lnbits(),
        fakes.slack(),
        fakes.stripe(),
        fakes.swiss_bitcoin_pay(),
        fakes.telegram(),
        fakes.twilio(),
        fakes.zoom(),
    ]
    assert [fakes.vendor(simulator.vendor) for simulator in made] == made
    assert list(fakes.simulators.values()) == made
    assert {simulator.seed for simulator in made} == {7}


def test_all_vendors_share_books_faults_and_time() -> None:
    clock = VirtualClock()
    journal, faults = Journal(clock), Faults(7, clock=clock)
    ledger = Ledger(clock, journal=journal)
    fakes = Fakes(seed=7, clock=clock, faults=faults, ledger=ledger, journal=journal)
    for simulator in (fakes.stripe(), fakes.zoom()):
        assert (simulator.clock, simulator.faults, simulator.ledger) == (clock, faults, ledger)
        assert simulator.ledger is ledger is fakes.ledger
        assert simulator.journal is journal


def test_an_unknown_vendor_is_refused_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no simulator of acme; there are .*lnbits, .*zoom"):
        Fakes().vendor("acme")


# Through httpx


@pytest.mark.parametrize("url", [CHARGES, "https://stripe.test/v1/charges", "http://127.0.0.1:5/v1/charges"])
async def test_a_vendor_is_found_by_its_true_host_and_by_the_address_it_was_given(world: World, url: str) -> None:
    fakes = world.fakes
    if "127" in url:
        fakes.stripe().base_url = "http://127.0.0.1:5"
    async with httpx.AsyncClient(transport=fakes.httpx(), auth=signed_in(fakes)) as http:
        answer = await http.get(url)
    assert answer.json()["url"] == "/v1/charges"
    assert answer.headers["content-length"] == str(len(answer.content))
    [call] = fakes.calls("stripe", "payments.find")
    assert call.arrived


def test_a_synchronous_client_sees_the_same(world: World) -> None:
    fakes = world.fakes
    world.faults.on("stripe").script(Status(503), Reset(), Latency.constant(5))
    with httpx.Client(transport=fakes.httpx_sync(), auth=signed_in(fakes)) as http:
        assert http.get(CHARGES).status_code == 503
        with pytest.raises(httpx.ReadError):
            http.get(CHARGES)
        assert http.get(CHARGES, timeout=10).status_code == 200
        with pytest.raises(NotSimulated, match=r"api\.example\.org is no simulated vendor; there are: .*api\.zoom\.us"):
            http.get("https://api.example.org")
    assert world.clock.monotonic() == 5


async def test_a_client_of_one_vendor_needs_its_paths_only(world: World) -> None:
    async with world.fakes.client("telegram") as http:
        answer = await http.get(f"/bot{world.fakes.telegram().bot_token}/getMe")
    assert answer.json()["ok"] is True


# Measured on a byte server; the holdfast words for them are those of holdfast.http.errors.
@pytest.mark.parametrize(
    ("fault", "error", "reason", "reached"),
    [
        (Refused(), httpx.ConnectError, "refused", 0),
        (Dns(), httpx.ConnectError, "dns", 0),
        (TlsError(), httpx.ConnectError, "tls", 0),
        (Reset(), httpx.ReadError, "reset", 1),
        (Reset(after_bytes=40), httpx.ReadError, "reset", 1),
        (Close(), httpx.RemoteProtocolError, "protocol", 1),
        (Truncate(), httpx.RemoteProtocolError, "protocol", 1),
        (BadChunk(), httpx.RemoteProtocolError, "protocol", 1),
        (GarbageStatus(), httpx.RemoteProtocolError, "protocol", 1),
        (HugeHeader(), httpx.RemoteProtocolError, "protocol", 1),
        (ConflictingLengths(), httpx.RemoteProtocolError, "protocol", 1),
        (Hang(60), httpx.ReadTimeout, "timeout", 1),
        (Hang(3), httpx.RemoteProtocolError, "protocol", 1),
        (Stall(), httpx.ReadTimeout, "timeout", 1),
        (Latency.constant(6), httpx.ReadTimeout, "timeout", 1),
        (BadGzip(), httpx.DecodingError, "unreadable", 1),
    ],
    ids=str,
)
async def test_a_fault_is_the_exception_the_wire_would_have_caused(
    world: World, fault: Fault, error: type[httpx.RequestError], reason: str, reached: int
) -> None:
    # given
    fakes = world.fakes
    world.faults.on("stripe").always(fault)
    holdfast = HttpxTransport(fakes.httpx(), idle_timeout=5)

    # when
    async with world.vclock.running():
        async with httpx.AsyncClient(transport=fakes.httpx(), timeout=5) as http:
            with pytest.raises(error) as caught:
                await http.get(CHARGES)
        took = world.clock.monotonic()
        with pytest.raises(CallFailed) as ours:
            await holdfast.send(HttpRequest(method="GET", url=CHARGES))

    # then
    assert type(caught.value) is error
    assert caught.value.request.url == CHARGES
    assert ours.value.reason == reason
    assert len(fakes.stripe().requests) == 2 * reached
    assert took == {"timeout": 5, "protocol": 3}.get(reason, 0) or (reason == "protocol" and took == 0)
    assert [call.arrived for call in fakes.calls()] == [isinstance(fault, BadGzip)] * len(fakes.calls())


async def test_a_plan_for_connections_strikes_before_any_call(world: World) -> None:
    world.faults.on("stripe", "connect").script(Refused(), None)
    async with httpx.AsyncClient(transport=world.fakes.httpx()) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(CHARGES)
        assert (await http.get(CHARGES)).status_code == 401
    assert len(world.fakes.calls("stripe")) == 1


def test_what_keeps_a_connection_from_being_made_is_beneath(world: World) -> None:
    world.faults.on("stripe").script(Refused(), Dns(), TlsError())
    beneath: list[type[BaseException]] = []
    with httpx.Client(transport=world.fakes.httpx_sync()) as http:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError) as caught:
                http.get(CHARGES)
            beneath.append(type(caught.value.__cause__))
    assert beneath == [ConnectionRefusedError, socket.gaierror, ssl.SSLError]


@pytest.mark.parametrize("fault", [BadJson(), Html()], ids=str)
async def test_a_body_that_is_no_json_comes_through(world: World, fault: Fault) -> None:
    world.faults.on("stripe").always(fault)
    async with httpx.AsyncClient(transport=world.fakes.httpx(), auth=signed_in(world.fakes)) as http:
        answer = await http.get(CHARGES)
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_an_answer_that_dribbles_in_takes_its_time(world: World) -> None:
    world.faults.on("stripe").always(Dribble(0.01))
    http = httpx.AsyncClient(transport=world.fakes.httpx(), auth=signed_in(world.fakes), timeout=5)
    async with world.vclock.running(), http:
        assert (await http.get(CHARGES)).status_code == 200
    assert world.clock.monotonic() > 1


# Through respx


@pytest.mark.parametrize("mocker", ["httpx", "httpcore"])
async def test_respx_routes_to_the_vendors_and_keeps_its_records(world: World, mocker: str) -> None:
    # given
    world.faults.on("stripe").script(Reset(), Latency.constant(2), Status(503))
    auth = signed_in(world.fakes)

    # when
    with respx.mock(using=mocker) as router:
        mine = router.get("https://shop.example/").respond(204)
        route = world.fakes.respx(router)
        async with httpx.AsyncClient(auth=auth, trust_env=False) as http, world.vclock.running():
            with pytest.raises(httpx.ReadError):
                await http.get(CHARGES)
            assert (await http.get(CHARGES)).status_code == 200
            assert world.clock.monotonic() == 2
            assert (await http.get("https://shop.example/")).status_code == 204
            # In the same thread as the loop: respx hands both kinds of client to the same function.
            with httpx.Client(auth=auth, trust_env=False) as blocking:
                assert blocking.get(CHARGES).status_code == 503  # noqa: ASYNC212
                with pytest.raises(respx.models.AllMockedAssertionError):
                    blocking.get("https://elsewhere.example/")  # noqa: ASYNC212

    # then
    assert (mine.call_count, route.call_count) == (1, 3)
    assert len(world.fakes.calls("stripe")) == 3


def test_respx_decorated_tests_find_the_route_by_name(world: World) -> None:
    with respx.mock() as router:
        world.fakes.respx(router)
        assert httpx.get(CHARGES).status_code == 401
        assert router["holdfast"].calls.last.response.status_code == 401
        assert router.calls.call_count == 1


# Through holdfast


@pytest.mark.parametrize("vendor", ["swiss-bitcoin-pay", "lnbits"])
async def test_a_provider_is_one_of_holdfasts_own_with_the_accounts_credentials(world: World, vendor: str) -> None:
    # given
    fakes = world.fakes
    hub = Holdfast(
        store="memory://",
        public_url="https://shop.example/webhooks",
        payments=[fakes.provider(vendor)],
        transport=fakes.transport,
        clock=world.vclock,
    )

    # when
    async with world.vclock.running(), hub:
        payment = await hub.payments.create("o1", Money("21.00", "CHF"))
        assert payment.offer is not None
        fakes.vendor(vendor).pay(payment.offer.bolt11 or payment.offer.checkout_url or "")
        await hub.payments.refresh("o1")

    # then
    assert fakes.ledger.exactly_once(charge(reference=fakes.ledger.entries()[0].key)).vendor == vendor


async def test_a_provider_by_another_name_is_found_by_its_address(world: World) -> None:
    # given
    telegram = world.fakes.provider("telegram", name="bot-2", base_url="https://telegram.test")
    transport = world.fakes.transport(telegram)

    # when
    url = f"https://telegram.test/bot{world.fakes.telegram().bot_token}/sendMessage"
    body = b'{"chat_id":"4711","text":"hello"}'
    headers = (("content-type", "application/json"),)
    answer = await transport.send(HttpRequest(method="POST", url=url, headers=headers, content=body))

    # then
    assert answer.status == 200
    world.fakes.ledger.exactly_once(message(to="4711"))


def test_every_provider_that_has_a_simulator_can_be_had(world: World) -> None:
    zoom = world.fakes.provider("zoom", webhook_secret=None)
    assert zoom.account_id == world.fakes.zoom().account_id
    assert (zoom.base_url, zoom.token_url) == ("http://127.0.0.1/v2", "http://127.0.0.1/oauth/token")
    assert zoom.webhook_secret is None
    assert isinstance(world.fakes.provider("telegram").webhook_secret, Secrets)
    assert world.fakes.provider("lnbits").live is False


async def test_a_store_outlives_the_programs_that_open_it(world: World) -> None:
    store = world.fakes.store()
    for _ in range(2):
        async with Holdfast(store=store, clock=world.vclock) as hub:
            assert hub.store is world.fakes.store()


# What happened


async def test_what_happened_is_told_line_by_line(world: World) -> None:
    assert world.fakes.explain() == "nothing happened"
    async with httpx.AsyncClient(transport=world.fakes.httpx(), auth=signed_in(world.fakes)) as http:
        for _ in range(3):
            await http.get(CHARGES)
    assert world.fakes.explain().count("payments.find") == 3
    assert world.fakes.explain(last=1).count("payments.find") == 1


# The world


def test_a_world_with_another_clock_has_no_virtual_one(world: World) -> None:
    assert world.vclock is world.clock
    with pytest.raises(ConfigurationError, match="SystemClock"):
        _ = World(clock=SystemClock()).vclock


def test_a_world_knows_which_calls_went_astray() -> None:
    # given
    strict, lenient = World(providers=["zoom"]), World(providers=["zoom"], strict=False)

    # when
    for world in (strict, lenient):
        with httpx.Client(transport=world.fakes.httpx_sync()) as http:
            http.post("https://zoom.us/oauth/token")
            with suppress(NotSimulated):
                http.get(CHARGES)

    # then
    lenient.check()
    with pytest.raises(NotSimulated, match="stripe is not among this test's providers: zoom"):
        strict.check()


def test_the_public_names_are_sorted_and_cheap() -> None:
    program = (
        "import sys, holdfast.testing as t; assert list(t.__all__) == sorted(t.__all__);"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'httpx', 'pydantic', 'pytest', 'respx', 'yaml'});"
        "print(*[name for name in t.__all__ if getattr(t, name).__module__ == 'builtins'])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == []


async def test_behind_simulated_vendors_no_credential_is_live(world: World) -> None:
    """A provider at its true address is given to a hub that forgets: nothing leaves this process."""
    sbp = world.fakes.swiss_bitcoin_pay()
    provider = SwissBitcoinPay(api_key=Secret(sbp.api_key), webhook_secret=Secrets(sbp.webhook_secret))

    async with Holdfast(store="memory://", payments=[provider], transport=world.fakes.transport) as hub:
        payment = await hub.payments.create("o1", Money("120.00", "CHF"))

    assert payment.provider == "swiss-bitcoin-pay"
    with pytest.raises(InsecureSetup):
        Holdfast(store="memory://", payments=[provider])
