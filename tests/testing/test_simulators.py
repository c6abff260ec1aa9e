"""The simulators: vendors that remember, refuse and fall silent as the real ones do."""

import hashlib
import json
import subprocess
import sys
from datetime import timedelta

import pytest

from holdfast.errors import NotSent, OutcomeUnknown
from holdfast.http.transports import HttpRequest
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Hang, Refused, Reset, Status, Truncate
from holdfast.testing.intents import charge, offer
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Request, Response, Simulator, route
from holdfast.testing.simulators.smtp import SmtpSimulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.values import Money


def ask(
    simulator: Simulator, method: str, target: str, data: object = None, **headers: str
) -> tuple[int, dict[str, object]]:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    body = b"" if data is None else json.dumps(data).encode()
    response = simulator.handle(Request(method=method, target=target, headers=named, body=body))
    return response.status, Request(method="", target="", body=response.body).json()


# What all share


class Shop(Simulator):
    """A vendor with one route."""

    vendor = "shop"

    @route("GET", "/orders/{id}", "orders.fetch")
    def order(self, request: Request) -> Response:
        return Response.json({"id": request.params["id"], "page": request.query.get("page")})


class Branch(Shop):
    """The same vendor with one more."""

    @route("POST", "/orders", "orders.create")
    def create(self, request: Request) -> Response:
        return Response.json(request.json(), status=201)


def test_a_route_is_found_by_method_and_path() -> None:
    assert ask(Branch(), "GET", "/orders/a%20b?page=2") == (200, {"id": "a%20b", "page": "2"})
    assert ask(Branch(), "POST", "/orders", {"n": 1}) == (201, {"n": 1})
    assert ask(Branch(), "DELETE", "/orders/1")[0] == 404
    assert ask(Shop(), "POST", "/orders")[0] == 404


def test_an_operation_has_the_name_faults_are_planned_for() -> None:
    assert Branch().operation(Request(method="GET", target="/orders/1?x=y")) == "orders.fetch"
    assert Branch().operation(Request(method="GET", target="/elsewhere")) == "unknown"


@pytest.mark.parametrize(
    ("fault", "error", "reason", "reached"),
    [
        (Refused(), NotSent, "refused", 0),
        (Reset(), OutcomeUnknown, "reset", 1),
        (Truncate(), OutcomeUnknown, "protocol", 1),
        (Hang(0), OutcomeUnknown, "protocol", 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_in_process_a_fault_is_the_error_the_wire_would_have_caused(
    fault: Refused | Reset | Truncate | Hang, error: type[Exception], reason: str, reached: int
) -> None:
    # given
    shop = Shop()
    shop.faults.on("shop").script(fault)

    # when
    with pytest.raises(error) as caught:
        await InProcess(shop).send(HttpRequest(method="GET", url="https://shop.test/orders/1"))

    # then
    assert getattr(caught.value, "reason", None) == reason
    assert len(shop.requests) == reached


async def test_in_process_an_answer_is_bytes() -> None:
    shop = Shop()
    shop.faults.on("shop").script(None, Status(503, retry_after=2), BadJson())
    transport = InProcess(shop)
    request = HttpRequest(method="GET", url="https://shop.test/orders/1?page=3")
    answers = [await transport.send(request) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 503, 200]
    assert answers[0].content == b'{"id":"1","page":"3"}'
    assert answers[1].header("Retry-After") == "2"
    assert answers[2].content == b'{"id":"1","page":"3'


def test_the_same_seed_makes_the_same_things_up() -> None:
    def ids(seed: int) -> list[object]:
        sbp = SwissBitcoinPaySimulator(seed=seed)
        asked = {"title": "t", "amount": 1, "unit": "CHF"}
        return [ask(sbp, "POST", "/checkout", asked, api_key=sbp.api_key)[1]["id"] for _ in range(3)]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)
    assert len(set(map(str, ids(1)))) == 3


@pytest.mark.parametrize("vendor", ["swiss-bitcoin-pay", "lnbits"])
def test_a_simulator_is_found_by_its_vendors_name(vendor: str) -> None:
    assert load_simulator(vendor).vendor == vendor
    assert vendor in installed_simulators()


def test_an_unknown_vendor_has_no_simulator() -> None:
    with pytest.raises(LookupError, match="no simulator of acme"):
        load_simulator("acme")


def test_simulators_know_nothing_of_providers() -> None:
    # given
    modules = ", ".join(
        f"holdfast.testing.simulators.{name}" for name in ("lnbits", "swiss_bitcoin_pay", "edge", "admin")
    )
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('holdfast.providers')])"

    # then
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


# Swiss Bitcoin Pay


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sbp(clock: ManualClock) -> SwissBitcoinPaySimulator:
    return SwissBitcoinPaySimulator(clock=clock)


def checkout(sbp: SwissBitcoinPaySimulator, **changes: object) -> tuple[int, dict[str, object]]:
    asked = {
        "title": "Consultation",
        "amount": 21.5,
        "unit": "CHF",
        "webhook": {"url": "http://127.0.0.1/hook", "headers": {"x-mine": "1"}},
        "extra": {"reference": "o1"},
    }
    return ask(sbp, "POST", "/checkout", asked | changes, api_key=sbp.api_key)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"title": ""}, 400),
        ({"amount": "21.5"}, 400),
        ({"amount": 0}, 400),
        ({"amount": 1.234}, 400),
        ({"unit": "DOGE"}, 400),
        ({"delay": 0}, 400),
        ({"unit": "sat", "amount": 2100}, 201),
        ({"unit": "BTC", "amount": 0.00002100}, 201),
    ],
)
def test_sbp_refuses_what_makes_no_checkout(
    sbp: SwissBitcoinPaySimulator, changes: dict[str, object], status: int
) -> None:
    assert checkout(sbp, **changes)[0] == status


def test_sbp_refuses_a_wrong_key_and_a_wrong_signature(sbp: SwissBitcoinPaySimulator) -> None:
    asked = {"title": "t", "amount": 1, "unit": "CHF"}
    assert ask(sbp, "POST", "/checkout", asked)[0] == 401
    assert ask(sbp, "POST", "/checkout", asked, api_key=sbp.api_key, sbp_sig="sha256=00")[0] == 401
    assert ask(sbp, "POST", "/hmac-check", {"test": True}, api_key=sbp.api_key)[0] == 401
    assert not len(sbp.ledger)


def test_sbp_reads_need_no_key_and_miss_with_a_reason(sbp: SwissBitcoinPaySimulator) -> None:
    _, created = checkout(sbp)
    status, found = ask(sbp, "GET", f"/checkout/{created['id']}")
    assert (status, found["status"], str(found["input"])) == (200, "open", "{'unit': 'CHF', 'amount': Decimal('21.5')}")
    assert ask(sbp, "GET", "/checkout/none") == (404, {"reason": "invoice_not_found"})


def test_sbp_records_what_was_offered_and_what_was_paid(sbp: SwissBitcoinPaySimulator) -> None:
    # given
    _, created = checkout(sbp)

    # when
    sbp.pay(str(created["pr"]))

    # then
    assert sbp.ledger.exactly_once(offer(reference="o1")).money == Money("21.50", "CHF")
    assert sbp.ledger.exactly_once(charge(reference="o1")).id == created["id"]
    [webhook] = sbp.outbox
    assert (webhook.event, webhook.key, dict(webhook.headers)["x-mine"]) == ("settled", "o1", "1")


@pytest.mark.parametrize("name", ["id", "pr", "checkoutUrl"])
def test_a_payer_names_the_offer_as_it_was_shown_and_pays_once(sbp: SwissBitcoinPaySimulator, name: str) -> None:
    _, created = checkout(sbp)
    sbp.pay(str(created[name]))
    with pytest.raises(LookupError, match="settled"):
        sbp.pay(str(created[name]))


async def test_sbp_expires_what_is_not_paid_in_time_and_says_so(
    sbp: SwissBitcoinPaySimulator, clock: ManualClock
) -> None:
    # given
    _, created = checkout(sbp, delay=15)

    # when
    await clock.advance(timedelta(minutes=15).total_seconds())
    with pytest.raises(LookupError, match="expired"):
        sbp.pay(str(created["id"]))

    # then
    assert [webhook.event for webhook in sbp.outbox] == ["expired"]
    assert not sbp.ledger.entries(Kind.CAPTURE)


async def test_sbp_takes_a_late_confirmation_and_too_little(sbp: SwissBitcoinPaySimulator, clock: ManualClock) -> None:
    # given
    _, late = checkout(sbp, onChain=True)
    _, short = checkout(sbp)

    # when
    sbp.see_onchain(str(late["onChainAddr"]))
    sbp.underpay(str(short["id"]), 100)
    await clock.advance(3600)
    sbp.confirm(str(late["id"]))

    # then
    assert [webhook.event for webhook in sbp.outbox] == ["unconfirmed", "underpaid", "settled"]
    assert len(sbp.ledger.entries(Kind.CAPTURE)) == 1


# LNbits


@pytest.fixture
def lnbits(clock: ManualClock) -> LNbitsSimulator:
    return LNbitsSimulator(clock=clock)


def invoice(lnbits: LNbitsSimulator, **changes: object) -> tuple[int, dict[str, object]]:
    asked = {"out": False, "amount": 21, "webhook": "http://127.0.0.1/hook", "external_id": "a1"}
    return ask(lnbits, "POST", "/api/v1/payments", asked | changes, x_api_key=lnbits.invoice_key)


def test_lnbits_takes_satoshi_cuts_fractions_and_answers_in_millisatoshi(lnbits: LNbitsSimulator) -> None:
    assert invoice(lnbits)[1]["amount"] == 21_000
    assert invoice(lnbits, amount=10.7)[1]["amount"] == 10_000
    assert invoice(lnbits, amount=1, unit="CHF")[1]["amount"] == 1_250_000


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({"unit": "KES"}, 400, "Could not get exchange rate for KES."),
        ({"amount": 0}, 520, "Amountless invoices not supported."),
        ({"out": True}, 401, "Invoice (or Admin) key required."),
    ],
)
def test_lnbits_refuses_in_its_own_words(
    lnbits: LNbitsSimulator, changes: dict[str, object], status: int, detail: str
) -> None:
    code, said = invoice(lnbits, **changes)
    assert (code, said["detail"]) == (status, detail)


@pytest.mark.parametrize("changes", [{"amount": "21"}, {"amount": -1}, {"memo": "m" * 641}])
def test_lnbits_says_which_field_is_wrong(lnbits: LNbitsSimulator, changes: dict[str, object]) -> None:
    status, said = invoice(lnbits, **changes)
    assert status == 400
    assert isinstance(said["detail"], list)


def test_lnbits_tells_a_missing_key_from_an_unknown_one(lnbits: LNbitsSimulator) -> None:
    assert ask(lnbits, "GET", "/api/v1/payments") == (401, {"detail": "No Api Key provided."})
    assert ask(lnbits, "GET", "/api/v1/payments", x_api_key="x") == (404, {"detail": "Wallet not found."})


def test_lnbits_shows_the_invoice_to_its_own_wallet_only(lnbits: LNbitsSimulator) -> None:
    _, created = invoice(lnbits)
    path = f"/api/v1/payments/{created['payment_hash']}"
    assert set(ask(lnbits, "GET", path)[1]) == {"paid", "preimage", "status"}
    assert "details" in ask(lnbits, "GET", path, x_api_key=lnbits.invoice_key)[1]


def test_lnbits_invoices_hold_together(lnbits: LNbitsSimulator) -> None:
    _, created = invoice(lnbits)
    proof = hashlib.sha256(bytes.fromhex(str(created["preimage"]))).hexdigest()
    assert proof == created["payment_hash"]
    assert str(created["bolt11"]).startswith("lnbc210n1")


async def test_lnbits_is_paid_once_late_or_not_and_says_so_doubly_encoded(
    lnbits: LNbitsSimulator, clock: ManualClock
) -> None:
    # given
    _, created = invoice(lnbits, expiry=60)

    # when
    await clock.advance(120)
    lnbits.pay(f"LIGHTNING:{str(created['bolt11']).upper()}")
    with pytest.raises(LookupError, match="already paid"):
        lnbits.pay(str(created["payment_hash"]))

    # then
    [webhook] = lnbits.outbox
    assert json.loads(json.loads(webhook.body))["status"] == "success"
    assert lnbits.ledger.exactly_once(charge(reference="a1")).money == Money.from_sat(21)


def test_lnbits_has_rates_for_some_currencies_and_cannot_cancel(lnbits: LNbitsSimulator) -> None:
    assert ask(lnbits, "GET", "/api/v1/rate/chf")[1] == {"rate": 1250.0, "price": 80_000.0}
    assert ask(lnbits, "GET", "/api/v1/rate/KES")[1] == {"rate": 0.0, "price": 0.0}
    assert ask(lnbits, "POST", "/api/v1/payments/cancel", {}, x_api_key=lnbits.invoice_key)[0] == 520


def test_a_reset_simulator_has_forgotten_everything(lnbits: LNbitsSimulator) -> None:
    invoice(lnbits)
    lnbits.reset()
    assert (lnbits.payments, len(lnbits.requests), len(lnbits.outbox)) == ({}, 0, 0)


# The mail server


async def test_mail_is_taken_and_a_lost_answer_is_a_mail_taken() -> None:
    # given
    import aiosmtplib

    faults_then_ok = (Status(451), Reset(), None)
    server = SmtpSimulator()
    server.faults.on("smtp", "messages.send").script(*faults_then_ok)
    outcomes: list[str] = []

    # when
    async with server:
        for number in range(3):
            try:
                await aiosmtplib.send(
                    f"Subject: n{number}\r\n\r\n.hello",
                    sender="shop@example.ch",
                    recipients=["ann@example.ch"],
                    hostname="127.0.0.1",
                    port=server.listener.port,
                    start_tls=False,
                )
                outcomes.append("sent")
            except aiosmtplib.SMTPException as error:
                outcomes.append(type(error).__name__)

    # then
    assert outcomes == ["SMTPDataError", "SMTPServerDisconnected", "sent"]
    assert [mail.content["subject"] for mail in server.mails] == ["n1", "n2"]
    assert server.mails[1].content.get_content().strip() == ".hello"
    assert len(server.ledger.entries(Kind.MESSAGE, key="ann@example.ch")) == 2
