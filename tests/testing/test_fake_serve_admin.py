"""The doors under `/__fake/`: what they tell, what they do, and what they refuse."""

import asyncio
import json
import smtplib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Every, Reset, Rule
from holdfast.testing.ledger import Kind
from holdfast.testing.scenario import Scenario
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.server import Server
from holdfast.testing.simulators.simulator import Request, Response, Simulator

CONNECTIONS = 500
"""As many as a port serves at once."""
INVOICE = {"out": False, "amount": 21, "external_id": "o1"}


class World:
    """One server, a client for its vendors and its admin, and an app that takes webhooks."""

    def __init__(self, server: Server, client: httpx.AsyncClient, hook: str, app: "App") -> None:
        self.server = server
        self.client = client
        self.hook = hook
        self.app = app

    async def ask(self, method: str, door: str, data: object = None) -> Any:
        answer = await self.client.request(method, f"{self.server.admin}/__fake/{door}", json=data)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, method: str, door: str, data: object = None, **headers: str) -> tuple[int, str]:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        address = f"{self.server.admin}/__fake/{door}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.client.request(method, address, content=content, headers=named)
        return answer.status_code, answer.json()["error"]

    async def invoice(self, **more: object) -> Any:
        """An invoice at LNbits, whose webhook goes to the app."""
        lnbits = self.server.vendors["lnbits"]
        headers = {"x-api-key": lnbits.credentials["invoice_key"]}
        asked = {**INVOICE, "webhook": f"{self.hook}/hooks/lnbits", **more}
        answer = await self.client.post(f"{lnbits.url}/api/v1/payments", json=asked, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()


class App(Simulator):
    """Takes every webhook."""

    vendor = "app"

    def __init__(self) -> None:
        super().__init__()
        self.called = asyncio.Event()

    def answer(self, request: Request) -> Response:
        self.called.set()
        return Response()


@asynccontextmanager
async def opened(*providers: str, **options: Any) -> AsyncGenerator[World]:
    app = App()
    async with (
        asyncio.timeout(30),
        Edge(app) as hook,
        Server(providers or ("lnbits",), **{"seed": 7, "hold_webhooks": True} | options) as server,
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
    ):
        yield World(server, client, hook.url, app)


# Looking


async def test_every_door_is_listed_with_a_sentence_and_opens_on_every_port() -> None:
    async with opened("lnbits", "stripe") as world:
        # when
        listed = await world.ask("GET", "")
        at_vendors = [(await world.client.get(f"{one.url}/__fake/")).json() for one in world.server.vendors.values()]

        # then
        assert at_vendors == [listed, listed]
        assert all(sentence.endswith((".", "`.")) for sentence in listed.values())
        for door in listed:
            method, _, path = door.partition(" ")
            answer = await world.client.request(method, world.server.admin + path)
            assert answer.status_code < 500, (door, answer.text)
        assert not world.server.journal.calls()


async def test_the_vendors_are_told_as_their_customers_see_them() -> None:
    async with opened("stripe", "smtp") as world:
        told = await world.ask("GET", "vendors")

        assert told == world.server.to_json()
        stripe = told["vendors"]["stripe"]
        assert stripe["client"] == (
            f'stripe.StripeClient("{stripe["credentials"]["api_key"]}", base_addresses={{"api": "{stripe["url"]}"}})'
        )


async def test_state_ledger_journal_and_timeline_say_what_happened() -> None:
    async with opened("lnbits", "smtp") as world:
        # given
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})
        port = int(world.server.vendors["smtp"].url.rpartition(":")[2])
        await asyncio.to_thread(_mail, port)

        # when
        state, ledger = await world.ask("GET", "state"), await world.ask("GET", "ledger")
        captures = await world.ask("GET", "ledger?kind=capture&vendor=lnbits&key=o1")
        journal = await world.ask("GET", "journal")
        timeline = (await world.client.get(f"{world.server.admin}/__fake/timeline?last=2")).text

    # then
    assert state == {
        "lnbits": {
            "calls": {"payments.create": 1},
            "effects": {"capture": 1, "offer": 1},
            "webhooks_owed": 1,
        },
        "smtp": {"calls": state["smtp"]["calls"], "effects": {"message": 1}, "webhooks_owed": 0},
    }
    assert [entry["kind"] for entry in ledger] == ["offer", "capture", "message"]
    assert [entry["id"] for entry in captures] == [made["payment_hash"]]
    assert journal["forgotten"] == 0
    numbers = [record["number"] for record in journal["records"]]
    assert numbers == sorted(numbers)
    assert {record["kind"] for record in journal["records"]} >= {"call", "ledger"}
    assert timeline.startswith("… ")
    assert "message to c@d.ch" in timeline


def _mail(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as mail:
        mail.sendmail("a@b.ch", "c@d.ch", "Subject: hi\r\n\r\nhi")


async def test_the_page_escapes_what_clients_wrote_and_shows_no_secret() -> None:
    async with opened() as world:
        # given
        key = world.server.vendors["lnbits"].credentials["invoice_key"]
        await world.invoice(memo="<script>alert(1)</script>", external_id=f"<b>{key}")

        # when
        answer = await world.client.get(f"{world.server.admin}/__fake/page")

    # then
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "<b>" not in answer.text
    assert "&lt;b&gt;***" in answer.text
    assert key not in answer.text
    assert "http" not in answer.text.replace(world.server.vendors["lnbits"].url, "")


async def test_no_door_tells_the_journal_a_secret() -> None:
    async with opened("telegram") as world:
        # given
        telegram = world.server.vendors["telegram"]
        token = telegram.credentials["bot_token"]
        await world.client.get(f"{telegram.url}/bot{token}/getMe")

        # when
        told = [
            (await world.client.get(f"{world.server.admin}/__fake/{door}")).text
            for door in ("journal", "timeline", "page", "state")
        ]

    # then
    assert "getMe" in told[0]
    assert not [text for text in told if token in text]


# Faults


async def test_faults_are_planned_counted_and_called_off() -> None:
    # given
    rule = {"vendor": "lnbits", "operation": "payments.create", "plan": {"kind": "first", "n": 1, "fault": "reset"}}
    async with opened() as world:
        # when
        planned = await world.ask("POST", "faults", rule)
        with pytest.raises(httpx.ReadError):
            await world.invoice()
        fired = await world.ask("GET", "faults")
        calm = await world.ask("DELETE", "faults")
        again = await world.ask("POST", "faults", planned["plan"])

    # then
    plan = {"kind": "first", "n": 1, "fault": {"kind": "reset"}}
    assert planned["plan"] == {"seed": 7, "rules": [rule | {"plan": plan}]}
    assert (planned["fired"], planned["idle"]) == ({}, ["lnbits payments.create first"])
    assert (fired["fired"], fired["idle"]) == ({"lnbits.reset": 1}, [])
    assert not calm["plan"].get("rules")
    assert calm["fired"] == {"lnbits.reset": 1}
    assert again["plan"] == planned["plan"]


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"vendor": "lnbits", "plan": {"kind": "first", "n": 1, "fault": "flood"}}, "flood"),
        ({"vendor": "lnbits", "plan": "storm"}, "rules[0].plan"),
        ({"rules": 7}, "rules"),
        ([7], "rules[0]"),
        ({"vendor": "strip", "plan": {"kind": "always", "fault": "reset"}}, "no vendor 'strip' here"),
        (
            {"vendor": "lnbits", "operation": "pay", "plan": {"kind": "always", "fault": "reset"}},
            "lnbits has no operation 'pay' to plan faults for; it has",
        ),
        (b"{", "the body is not JSON"),
    ],
)
async def test_a_plan_that_says_nothing_sensible_is_refused_as_a_whole(asked: object, complaint: str) -> None:
    async with opened() as world:
        good = {"vendor": "lnbits", "plan": {"kind": "always", "fault": "reset"}}
        both = {"rules": [good, asked]} if isinstance(asked, dict) and "vendor" in asked else asked

        status, error = await world.refused("POST", "faults", asked)
        await world.refused("POST", "faults", both)

        assert status == 400
        assert complaint in error
        assert not world.server.faults.plans("lnbits", "payments.create")


async def test_a_scenario_plans_faults_and_gives_the_seed() -> None:
    # given
    rules = (Rule("lnbits", "payments.create", Every(2, Reset())),)
    async with opened(scenario=Scenario(seed=11, rules=rules), seed=None) as world:
        # when
        await world.invoice()
        with pytest.raises(httpx.ReadError):
            await world.invoice()

        # then
        assert (await world.ask("GET", "vendors"))["seed"] == 11


# Webhooks


async def test_webhooks_are_held_until_they_are_asked_for_then_sent_as_asked() -> None:
    async with opened() as world:
        # given
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})
        assert not world.app.requests

        # when
        sent = await world.ask("POST", "deliver", {"duplicate": 1, "forge": "all", "lie": False})
        nothing = await world.ask("POST", "deliver")
        again = await world.ask("POST", "deliver", {"again": True, "to": f"{world.hook}/elsewhere"})
        counted = await world.ask("GET", "webhooks")

    # then
    assert [(one["manner"], one["number"], one["accepted"]) for one in sent] == [
        ("wrong_url", 0, True),
        ("genuine", 0, True),
        ("genuine", 0, True),  # LNbits sends everything twice
        ("duplicate", 0, True),
    ]
    assert nothing == []
    assert [(one["manner"], one["about"]) for one in again] == [("genuine", made["payment_hash"])] * 2
    assert [request.path for request in world.app.requests][-1] == "/elsewhere"
    assert (counted["accepted_forgeries"], counted["owed"], counted["dropped"]) == (1, 0, 0)
    assert counted["sent"] == {"wrong_url": 1, "genuine": 4, "duplicate": 1}


async def test_unless_held_webhooks_come_by_themselves() -> None:
    async with opened(hold_webhooks=False) as world:
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"], "vendor": "lnbits"})

        await world.app.called.wait()

        assert {request.path for request in world.app.requests} == {"/hooks/lnbits"}


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"duplicate": -1}, "duplicate: Input should be greater than or equal to 0"),
        ({"twice": True}, "twice: Extra inputs are not permitted"),
        ({"to": "http://shop.example/hooks"}, "'http://shop.example/hooks' is no address on this machine"),
        ({"vendor": "paypal"}, "no vendor 'paypal' here; there are lnbits"),
        ({"late": "soon"}, "a length of time is written 72h, -10m or 1h30m"),
        ({"forge": "badly"}, "badly"),
        (b"[", "Invalid JSON"),
    ],
)
async def test_a_delivery_that_makes_no_sense_is_refused_and_nothing_is_lost(asked: object, complaint: str) -> None:
    async with opened() as world:
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})

        status, error = await world.refused("POST", "deliver", asked)

        assert (status, complaint in error) == (400, True), error
        assert [one["number"] for one in await world.ask("POST", "deliver")] == [0, 0]  # LNbits sends everything twice


# Verdicts


async def test_verdicts_say_what_holds_and_why_not() -> None:
    async with opened() as world:
        # given
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})
        demands = [
            {"exactly_once": {"charge": {"reference": "o1"}}},
            {"never": {"charge": {"reference": "o1", "amount": "0.00000021", "currency": "BTC"}}},
            {"at_least_one": {"message": {"to": "ada"}}},
            "never_two_offers",
        ]

        # when
        judged = await world.ask("POST", "verdicts", demands)
        alone = await world.ask("POST", "verdicts", demands[0])

    # then
    assert not judged["holds"]
    assert [one["holds"] for one in judged["verdicts"]] == [True, False, False, True]
    assert [one["demand"] for one in judged["verdicts"]] == demands
    assert judged["verdicts"][1]["why"].startswith("charge of o1 over 0.00000021000 BTC happened 1 time, not never:")
    assert "what happened" not in judged["verdicts"][1]["why"]
    assert alone == {"holds": True, "verdicts": [{"demand": demands[0], "holds": True}]}


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("no_problems", "'no_problems' is none of no_orphans, never_two_offers"),
        ({}, "a demand is an object with one of exactly_once, at_least_one, at_most_once, never"),
        ({"exactly_once": "charge"}, "what exactly_once is demanded of is an object with one of charge, refund"),
        ({"exactly_once": {"charge": {"order": "o1"}}}, "a charge is an object of amount, reference, vendor"),
        ({"exactly_once": {"charge": {"reference": 1}}}, "what is said of a charge is text"),
        ({"exactly_once": {"charge": {"amount": "1.00"}}}, "an amount comes with its currency"),
        ({"exactly_once": {"charge": {"amount": "1.001", "currency": "CHF"}}}, "1.001"),
        ({"never": {"meeting": {"amount": "1", "currency": "CHF"}}}, "a meeting is an object of reference, vendor"),
        (b"nothing", "the body is not JSON"),
    ],
)
async def test_what_is_no_demand_is_refused(asked: object, complaint: str) -> None:
    async with opened() as world:
        status, error = await world.refused("POST", "verdicts", asked)

    assert (status, complaint in error) == (400, True), error


# Starting over


async def test_a_reset_forgets_what_happened_and_begins_the_same_run_again() -> None:
    rules = (Rule("lnbits", "payments.create", Every(2, Reset())),)
    async with opened("lnbits", "stripe", scenario=Scenario(rules=rules), hold_webhooks=False) as world:

        async def run() -> tuple[str, Mapping[str, int]]:
            made = await world.invoice()
            with pytest.raises(httpx.ReadError):
                await world.invoice()
            return made["payment_hash"], dict(world.server.faults.fired)

        # when
        first = await run()
        await world.ask("POST", "reset")
        nothing = [await world.ask("GET", "ledger"), (await world.ask("GET", "journal"))["records"]]
        second = await run()
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})
        await world.app.called.wait()
        await world.ask("POST", "seed", {"seed": 8})
        other = await run()

    # then
    assert nothing == [[], []]
    assert second == first
    assert other[0] != first[0]
    assert other[1] == first[1]


@pytest.mark.parametrize("asked", [{}, {"seed": "8"}, {"seed": True}, b"8", b""])
async def test_a_seed_is_a_number(asked: object) -> None:
    async with opened() as world:
        assert (await world.refused("POST", "seed", asked))[0] == 400


# What is refused


async def test_what_is_no_door_or_the_wrong_way_through_it_is_refused() -> None:
    async with opened() as world:
        assert await world.refused("GET", "nothing") == (404, "no such door; they are listed under /__fake/")
        assert await world.refused("DELETE", "ledger") == (405, "/__fake/ledger answers GET")
        assert (await world.refused("GET", "journal?last=0"))[0] == 400
        assert (await world.refused("GET", "journal?last=99999999999999999999"))[0] == 400
        assert (await world.refused("GET", "ledger?kind=theft"))[0] == 400
        assert (await world.refused("POST", "pay", {"offer": "none"})) == (404, "nobody can pay 'none'")
        assert (await world.client.get(world.server.admin)).status_code == 404


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_web_page_from_elsewhere_has_no_business_here(site: str) -> None:
    async with opened() as world:
        await world.invoice()

        assert (await world.refused("POST", "reset", {}, sec_fetch_site=site))[0] == 403
        assert len(world.server.ledger.entries(Kind.OFFER)) == 1


async def test_a_door_that_fails_is_a_500_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as world:
        monkeypatch.setattr(world.server, "to_json", lambda: 1 / 0)

        assert await world.refused("GET", "vendors") == (500, "ZeroDivisionError: division by zero")
        assert await world.ask("GET", "ledger") == []
        assert "the admin failed at GET /__fake/vendors" in caplog.text


# Bounds


async def test_of_what_was_sent_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.simulators.server.JOURNAL", 3)
    clock = ManualClock()
    async with opened(clock=clock) as world:
        # given
        made = await world.invoice()
        await world.ask("POST", "pay", {"offer": made["bolt11"]})
        await world.ask("POST", "deliver", {"duplicate": 5, "drop": False})
        assert len(world.server.sent) == 7

        # when
        await clock.advance(10)

        # then
        assert len(world.server.sent) == 3


async def test_the_journal_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.simulators.server.JOURNAL", 5)
    async with opened() as world:
        for _ in range(4):
            await world.invoice()

        journal = await world.ask("GET", "journal")

        assert len(journal["records"]) == 5
        assert journal["forgotten"] == 3


async def test_more_connections_than_the_limit_are_reset() -> None:
    async with opened() as world:
        # given
        port = int(world.server.vendors["lnbits"].url.rpartition(":")[2])
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        await asyncio.sleep(0)

        # then
        with pytest.raises(ConnectionResetError):
            await _first_byte(port)
        for _, one in open_ones:
            one.close()


async def _first_byte(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read(1)
    finally:
        writer.close()
