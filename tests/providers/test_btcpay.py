"""BTCPay Server: amounts exact, late money noticed, only the right signature opens the door, refunds once."""

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.iso4217 import EXPONENTS
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Method, Payer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    LineKind,
    Lookup,
    PaymentProvider,
    Refunding,
    RefundRequest,
    SupportsLookup,
    SupportsQuotes,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    SupportsStatements,
)
from holdfast.providers import BTCPay
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Html, Reset, Status, Truncate
from holdfast.testing.faults import Refused as NoConnection
from holdfast.testing.intents import charge, refund
from holdfast.testing.simulators.btcpay import BTCPaySimulator
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Reply
from holdfast.testing.simulators.webhooks import Mischief
from holdfast.values import Money, Secret, Secrets
from holdfast.webhooks.request import Delivery
from tests.providers.connection import NOON, Canned, canned, connection, incoming, offer_request
from tests.providers.shop import DOOR, Shop

S = PaymentStatus
KEY = "a-key-to-hide-from-everybody"
SECRET = "btcpay-webhook-secret-to-hide"
STORE = "9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpFQd4m2K776"
ID = "HMprBnL9BTXWuPvpoKBS6e"
DUE = Money("120.00", "CHF")
SPECS = Path(__file__).resolve().parents[3] / "shared/specs/payments/btcpay"
VECTORS = SPECS.parents[1] / "signature-vectors.json"

INVOICE: dict[str, JsonOut] = {
    "id": ID,
    "storeId": STORE,
    "amount": "120.00",
    "paidAmount": "0",
    "currency": "CHF",
    "type": "Standard",
    "checkoutLink": f"https://pay.example.ch/i/{ID}",
    "createdTime": int(NOON.timestamp()),
    "expirationTime": int((NOON + timedelta(minutes=15)).timestamp()),
    "monitoringExpiration": int((NOON + timedelta(days=1, minutes=15)).timestamp()),
    "status": "New",
    "additionalStatus": "None",
    "metadata": {"orderId": "consultation-4711", "holdfastAttempt": "att_5f2c", "posData": {"tip": Decimal("0.48")}},
}
EVENT: dict[str, object] = {
    "deliveryId": "first",
    "webhookId": "hook",
    "originalDeliveryId": "first",
    "isRedelivery": False,
    "type": "InvoiceSettled",
    "timestamp": int(NOON.timestamp()),
    "storeId": STORE,
    "invoiceId": ID,
    "metadata": {"orderId": "consultation-4711", "holdfastAttempt": "att_5f2c"},
    "manuallyMarked": False,
}


def provider(**changes: Any) -> BTCPay:
    facts: dict[str, Any] = {
        "base_url": "https://pay.example.ch",
        "store_id": STORE,
        "api_key": Secret(KEY),
        "webhook_secret": Secrets(SECRET),
    }
    return BTCPay(**(facts | changes))


@pytest.fixture
def btcpay() -> BTCPay:
    return provider()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> BTCPaySimulator:
    return BTCPaySimulator(
        api_key=KEY, store_id=STORE, webhook_secret=SECRET, webhook_url=f"{DOOR}/btcpay", clock=clock
    )


@pytest.fixture
async def shop(vendor: BTCPaySimulator, clock: ManualClock) -> AsyncIterator[Shop]:
    async with Shop(provider(base_url="http://127.0.0.1:1", payment_codes=True), vendor, clock) as shop:
        yield shop


def attempt(id: str = "att_5f2c") -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="btcpay",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON,
    )


def refund_request(money: Money = DUE, key: str = "b" * 32, vendor_id: str = ID) -> RefundRequest:
    return RefundRequest(
        reference="consultation-4711", attempt_id="att_5f2c", vendor_id=vendor_id, key=key, money=money
    )


@cache
def schemas() -> dict[str, Any]:
    """All that is published, in one: the files refer to one another."""
    if not SPECS.exists():
        pytest.skip("the published description is not on this machine")
    found: dict[str, Any] = {}
    for path in sorted(SPECS.glob("*.json")):
        found |= json.loads(path.read_text()).get("components", {}).get("schemas", {})
    return found


def misfits(name: str, said: Any) -> list[str]:
    """Where it is not of the published form."""
    # Unknown fields are looked at by their names: the schemas of a whole and of its parts forbid those of the other.
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas()}})
    errors = [error for error in validator.iter_errors(said) if error.validator != "additionalProperties"]
    return [f"{name}{error.json_path}: {error.message}" for error in errors]


def properties(name: str) -> set[str]:
    """The fields a published schema knows."""
    schema = schemas()[name]
    parts: list[dict[str, Any]] = schema.get("allOf", [schema])
    found: set[str] = set()
    for part in parts:
        found |= set(part.get("properties", {}))
        if "$ref" in part:
            found |= properties(str(part["$ref"]).rpartition("/")[2])
    return found


def signed(event: Mapping[str, object], secret: str = SECRET) -> tuple[bytes, str]:
    body = json.dumps(event, indent=2).encode()
    return body, f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


class Answers:
    """Answers by the end of the path; keeps what was asked."""

    def __init__(self, **answers: JsonOut) -> None:
        self.answers = answers
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        path = request.url.partition("?")[0]
        word = path.rpartition("/")[2].replace("-", "_")
        return HttpResponse(status=200, content=encode_json(self.answers.get(word, self.answers.get("invoice"))))

    async def aclose(self) -> None:
        pass


# Facts


def test_what_it_can_do_is_what_it_has(btcpay: BTCPay) -> None:
    payments: PaymentProvider = btcpay

    assert isinstance(payments, SupportsLookup)
    assert isinstance(payments, SupportsQuotes)
    assert isinstance(payments, SupportsRefunds)
    assert isinstance(payments, SupportsRefundLookup)
    assert isinstance(payments, SupportsStatements)
    assert isinstance(payments, SupportsListing)
    assert not isinstance(payments, SupportsRevoking)
    able = payments.capabilities
    assert (able.lookup, able.revocable, able.refunding) == (Lookup.AUTHORITATIVE, False, Refunding.MANUAL)
    assert able.grace == timedelta(hours=24)


@pytest.mark.parametrize(
    ("methods", "grace"),
    [
        ((), timedelta(hours=24)),
        (("BTC-LN", "BTC-CHAIN"), timedelta(hours=24)),
        (("BTC-LN",), timedelta(minutes=2)),
        (("BTC-LN", "BTC-LNURL"), timedelta(minutes=2)),
    ],
)
def test_only_an_address_can_be_paid_a_day_later(methods: tuple[str, ...], grace: timedelta) -> None:
    able = provider(payment_methods=methods).capabilities
    assert able.grace == grace
    assert (Method.ON_CHAIN in able.methods) == (grace > timedelta(hours=1))


@pytest.mark.parametrize(
    ("base_url", "live"),
    [
        ("https://pay.example.ch", True),
        ("https://mainnet.demo.btcpayserver.org", True),
        ("https://testnet.demo.btcpayserver.org/", False),
        ("http://127.0.0.1:14142", False),
    ],
)
def test_it_is_live_everywhere_but_on_this_machine_and_the_test_server(base_url: str, live: bool) -> None:
    assert provider(base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCPAY_URL", "https://pay.example.ch/btcpay")
    monkeypatch.setenv("BTCPAY_STORE_ID", STORE)
    monkeypatch.setenv("BTCPAY_API_KEY", "key-to-hide")
    monkeypatch.setenv("BTCPAY_WEBHOOK_SECRET", "new-to-hide,old-to-hide")
    monkeypatch.setenv("BTCPAY_WEBHOOK_ID", "hook")

    btcpay = BTCPay.from_env()

    assert (btcpay.base_url, btcpay.store_id, btcpay.webhook_id) == ("https://pay.example.ch/btcpay", STORE, "hook")
    assert btcpay.headers() == {"authorization": "token key-to-hide"}
    assert [secret.reveal() for secret in btcpay.webhook_secrets] == ["new-to-hide", "old-to-hide"]
    assert "to-hide" not in repr(btcpay)


@pytest.mark.parametrize("missing", ["BTCPAY_URL", "BTCPAY_STORE_ID", "BTCPAY_API_KEY", "BTCPAY_WEBHOOK_SECRET"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BTCPAY_URL", "BTCPAY_STORE_ID", "BTCPAY_API_KEY", "BTCPAY_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)

    with pytest.raises(MissingCredential, match=missing):
        BTCPay.from_env()


# Creating


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    btcpay = provider(payment_methods=("BTC-LN",), speed="LowSpeed", base_url="https://example.ch/btcpay")
    answering = canned(INVOICE)
    asked = offer_request(DUE, return_url="https://shop.ch/done", metadata={"seat": "7", "orderId": "not ours"})

    await btcpay.create(connection(btcpay, answering), asked)

    [request] = answering.requests
    assert (request.method, request.url) == ("POST", f"https://example.ch/btcpay/api/v1/stores/{STORE}/invoices")
    assert dict(request.headers)["authorization"] == f"token {KEY}"
    assert request.content == (
        b'{"amount":"120.00","currency":"CHF",'
        b'"metadata":{"seat":"7","orderId":"consultation-4711","itemDesc":"Consultation",'
        b'"holdfastAttempt":"att_5f2c"},'
        b'"checkout":{"expirationMinutes":15,"monitoringMinutes":1440,"paymentTolerance":0,'
        b'"paymentMethods":["BTC-LN"],"speedPolicy":"LowSpeed","redirectURL":"https://shop.ch/done"},'
        b'"additionalSearchTerms":["att_5f2c"]}'
    )


async def test_a_request_is_as_published(btcpay: BTCPay) -> None:
    answering = canned(INVOICE)

    await btcpay.create(connection(btcpay, answering), offer_request(DUE, return_url="https://shop.ch/done"))

    sent = json.loads(answering.requests[0].content)
    assert set(sent) <= properties("CreateInvoiceRequest")
    assert set(sent["checkout"]) <= properties("CheckoutOptions")
    assert misfits("CreateInvoiceRequest", sent) == []


@pytest.mark.parametrize(("wanted", "told"), [(False, None), (True, "ada@example.org")])
async def test_the_store_learns_whom_it_may_write_to_only_when_that_is_wanted(wanted: bool, told: str | None) -> None:
    btcpay, answering = provider(notify_payer=wanted), canned(INVOICE)

    await btcpay.create(connection(btcpay, answering), offer_request(DUE, payer=Payer(email="ada@example.org")))

    assert json.loads(answering.requests[0].content)["metadata"].get("buyerEmail") == told


@pytest.mark.parametrize("currency", sorted(EXPONENTS))
async def test_every_currency_is_written_and_read_exactly(btcpay: BTCPay, currency: str) -> None:
    price = Money.from_minor(1_234_567, currency)
    answering = canned(INVOICE | {"amount": f"{price.amount:f}", "currency": currency})

    snapshot = await btcpay.create(connection(btcpay, answering), offer_request(price))

    sent = json.loads(answering.requests[0].content)
    assert (Decimal(sent["amount"]), sent["currency"]) == (price.amount, currency)
    assert snapshot.price == price


@pytest.mark.parametrize(
    ("price", "amount"),
    [
        (Money("120.00", "CHF"), "120.00"),
        (Money(5000, "XOF"), "5000"),
        (Money(100, "JPY"), "100"),
        (Money("1.001", "KWD"), "1.001"),
        (Money.from_sat(2100), "0.00002100"),
        (Money("1", "BTC"), "1.00000000"),
    ],
    ids=str,
)
async def test_an_amount_is_a_text_in_decimals_of_its_currency(btcpay: BTCPay, price: Money, amount: str) -> None:
    answering = canned(INVOICE | {"amount": amount, "currency": price.currency})

    snapshot = await btcpay.create(connection(btcpay, answering), offer_request(price))

    assert json.loads(answering.requests[0].content)["amount"] == amount
    assert snapshot.price == price


async def test_a_fraction_of_a_satoshi_is_refused_before_anything_is_sent(btcpay: BTCPay) -> None:
    answering = canned(INVOICE)

    with pytest.raises(InvalidMoney, match="whole number of satoshi"):
        await btcpay.create(connection(btcpay, answering), offer_request(Money.from_minor(1, "BTC")))

    assert not answering.requests


@pytest.mark.parametrize(("amount", "price"), [("2100", Money.from_sat(2100)), ("2100.0", Money.from_sat(2100))])
async def test_an_answer_in_satoshi_is_bitcoin(btcpay: BTCPay, amount: str, price: Money) -> None:
    answering = canned(INVOICE | {"amount": amount, "currency": "SATS"})
    assert (await btcpay.fetch(connection(btcpay, answering), ID)).price == price


@pytest.mark.parametrize(("amount", "currency"), [("120.001", "CHF"), ("1", "DOGE"), ("0.5", "JPY")])
async def test_an_answer_with_an_amount_nobody_can_hold_is_a_mismatch(
    btcpay: BTCPay, amount: str, currency: str
) -> None:
    answering = canned(INVOICE | {"amount": amount, "currency": currency})
    with pytest.raises(Mismatch, match="cannot read"):
        await btcpay.create(connection(btcpay, answering), offer_request(DUE))


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1e999999", "1e-999999", "9" * 41, "", "many"])
async def test_an_answer_with_no_amount_at_all_is_unreadable(btcpay: BTCPay, amount: str) -> None:
    for field in ("amount", "paidAmount"):
        with pytest.raises(OutcomeUnknown):
            await btcpay.fetch(connection(btcpay, canned(INVOICE | {field: amount})), ID)


@pytest.mark.parametrize(
    ("asked", "minutes"), [(timedelta(minutes=15), 15), (timedelta(seconds=119), 1), (timedelta(seconds=5), 1)]
)
async def test_an_offer_lasts_whole_minutes(btcpay: BTCPay, asked: timedelta, minutes: int) -> None:
    answering = canned(INVOICE)

    await btcpay.create(connection(btcpay, answering), offer_request(DUE, expires_in=asked))

    assert json.loads(answering.requests[0].content)["checkout"]["expirationMinutes"] == minutes


async def test_an_offer_is_the_page_and_when_asked_for_what_a_wallet_reads(vendor: BTCPaySimulator) -> None:
    plain, full = provider(), provider(payment_codes=True)

    page = (await plain.create(connection(plain, InProcess(vendor)), offer_request(DUE))).offer
    both = (await full.create(connection(full, InProcess(vendor)), offer_request(DUE))).offer

    assert page is not None
    assert (page.bolt11, page.address, page.expires_at) == (None, None, NOON + timedelta(minutes=15))
    assert page.checkout_url == f"https://btcpay.test/i/{next(iter(vendor.invoices))}"
    assert both is not None
    last = list(vendor.invoices.values())[-1]
    assert (both.bolt11, both.address) == (last.bolt11.bolt11, last.address)


async def test_an_offer_whose_codes_cannot_be_read_is_still_the_page(vendor: BTCPaySimulator) -> None:
    vendor.faults.on("btcpay", "payments.methods").always(Status(500))
    btcpay = provider(payment_codes=True)

    snapshot = await btcpay.create(connection(btcpay, InProcess(vendor)), offer_request(DUE))

    assert snapshot.offer is not None
    assert snapshot.offer.checkout_url
    assert snapshot.offer.bolt11 is None


async def test_a_method_the_payer_has_yet_to_choose_and_those_of_older_servers() -> None:
    methods: JsonOut = [
        {"paymentMethod": "BTC-LightningNetwork", "destination": "lnbc1"},
        {"paymentMethodId": "BTC-CHAIN", "destination": None, "activated": False},
        {"paymentMethodId": "BTC-LNURL", "destination": "lnurl1"},
    ]
    btcpay = provider(payment_codes=True)
    answering = Answers(invoices=INVOICE, payment_methods=methods)

    snapshot = await btcpay.create(connection(btcpay, answering), offer_request(DUE))

    assert snapshot.offer is not None
    assert (snapshot.offer.bolt11, snapshot.offer.address) == ("lnbc1", None)


# Statuses

COME = Money("120.50", "CHF")


@pytest.mark.parametrize(
    ("status", "additional", "paid", "ours", "received"),
    [
        ("New", "None", "0", S.PENDING, None),
        ("New", "PaidPartial", "20.009", S.PARTIALLY_PAID, Money("20.00", "CHF")),
        ("Processing", "None", "120.00", S.PROCESSING, None),
        ("Processing", "PaidOver", "120.50", S.PROCESSING, None),
        ("Settled", "None", "119.999999", S.PAID, DUE),
        ("Settled", "None", "120.50", S.PAID, DUE),
        ("Settled", "PaidOver", "120.50", S.PAID, COME),
        ("Settled", "PaidLate", "120.00", S.PAID, DUE),
        ("Settled", "Marked", "0", S.PAID, DUE),
        ("Expired", "None", "0", S.EXPIRED, None),
        ("Expired", "PaidPartial", "20.00", S.EXPIRED, Money("20.00", "CHF")),
        ("Expired", "InventedTomorrow", "0", S.EXPIRED, None),
        ("Invalid", "None", "120.00", S.FAILED, None),
        ("Invalid", "Marked", "0", S.CANCELED, None),
        ("Invalid", "Marked", "120.00", S.FAILED, None),
        ("InventedTomorrow", "None", "0", S.UNKNOWN, None),
    ],
)
async def test_a_status_means_what_the_table_says(
    btcpay: BTCPay, status: str, additional: str, paid: str, ours: PaymentStatus, received: Money | None
) -> None:
    answering = canned(INVOICE | {"status": status, "additionalStatus": additional, "paidAmount": paid})

    snapshot = await btcpay.fetch(connection(btcpay, answering), ID)

    assert (snapshot.status, snapshot.received, snapshot.price) == (ours, received, DUE)
    assert (snapshot.vendor_id, snapshot.attempt_id) == (ID, "att_5f2c")
    assert snapshot.by_hand == ((status, additional) == ("Settled", "Marked"))
    assert len(answering.requests) == 1


@pytest.mark.parametrize(
    ("payments", "ours"),
    [(["Settled"], S.PAID), (["Settled", "Processing"], S.PROCESSING), (["Invalid"], S.PROCESSING), ([], S.PROCESSING)],
)
async def test_what_was_paid_late_is_paid_once_each_payment_is_confirmed(
    btcpay: BTCPay, payments: list[str], ours: PaymentStatus
) -> None:
    at = int(NOON.timestamp())
    came: list[JsonOut] = [{"id": "tx", "receivedDate": at, "value": "0.1", "status": word} for word in payments]
    answering = Answers(
        invoice=INVOICE | {"status": "Expired", "additionalStatus": "PaidLate", "paidAmount": "119.9999"},
        payment_methods=[{"paymentMethodId": "BTC-CHAIN", "destination": "bc1", "payments": came}],
    )

    snapshot = await btcpay.fetch(connection(btcpay, answering), ID)

    assert snapshot.status is ours
    assert snapshot.received == (DUE if ours is S.PAID else None)


async def test_a_server_that_does_not_say_what_came_is_believed_when_it_settles(btcpay: BTCPay) -> None:
    old = {name: value for name, value in INVOICE.items() if name != "paidAmount"}

    settled = await btcpay.fetch(connection(btcpay, canned(old | {"status": "Settled"})), ID)
    partial = await btcpay.fetch(connection(btcpay, canned(old | {"additionalStatus": "PaidPartial"})), ID)

    assert (settled.status, settled.received) == (S.PAID, DUE)
    assert (partial.status, partial.received) == (S.PARTIALLY_PAID, None)


async def test_an_invoice_of_another_store_is_a_mismatch(btcpay: BTCPay) -> None:
    with pytest.raises(Mismatch, match="another store") as caught:
        await btcpay.fetch(connection(btcpay, canned(INVOICE | {"storeId": "somebody else's"})), ID)
    assert caught.value.reason == "recipient"


@pytest.mark.parametrize("metadata", [{}, {"orderId": 7, "holdfastAttempt": ["x"]}])
async def test_metadata_may_hold_anything(btcpay: BTCPay, metadata: JsonOut) -> None:
    snapshot = await btcpay.fetch(connection(btcpay, canned(INVOICE | {"metadata": metadata})), ID)
    assert snapshot.attempt_id == ""


# Looking up, and rates


@pytest.mark.parametrize(
    "fault", [Reset(), Truncate(), Hang(0), BadJson(), Html(), Status(500)], ids=lambda one: one.name
)
async def test_a_lost_answer_is_found_by_the_attempts_id(btcpay: BTCPay, vendor: BTCPaySimulator, fault: Fault) -> None:
    vendor.faults.on("btcpay", "payments.create").script(fault)
    http = connection(btcpay, InProcess(vendor))
    with pytest.raises(OutcomeUnknown):
        await btcpay.create(http, offer_request(DUE))

    found, missing = await btcpay.find(http, attempt()), await btcpay.find(http, attempt("att_other"))

    assert missing is None
    assert (found is None) == (not vendor.invoices)
    if found is not None:
        assert (found.attempt_id, found.price, found.status) == ("att_5f2c", DUE, S.PENDING)
        assert found.offer is not None


async def test_nothing_is_asked_where_there_is_no_connection(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    vendor.faults.on("btcpay", "payments.create").script(NoConnection())
    with pytest.raises(NotSent):
        await btcpay.create(connection(btcpay, InProcess(vendor)), offer_request(DUE))
    assert not vendor.invoices


async def test_an_archived_invoice_is_found_too(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    await btcpay.create(http, offer_request(DUE))
    next(iter(vendor.invoices.values())).archived = True

    assert await btcpay.find(http, attempt()) is not None


async def test_of_two_invoices_with_one_id_the_paid_one_is_found(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    first, _second = [await btcpay.create(http, offer_request(DUE)) for _ in range(2)]
    vendor.pay(first.vendor_id)

    found = await btcpay.find(http, attempt())

    assert found is not None
    assert (found.vendor_id, found.status) == (first.vendor_id, S.PAID)


async def test_an_id_that_only_begins_alike_is_not_found(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    await btcpay.create(http, offer_request(DUE, attempt_id="att_5f2c-and-more"))

    assert await btcpay.find(http, attempt()) is None


@pytest.mark.parametrize(
    ("due", "price", "sats"),
    [
        (Money("120.00", "CHF"), "80000", 150_000),
        (Money("3.00", "CHF"), "30000", 10_000),  # a third has no end in decimals, and must not cost a satoshi
        (Money("0.01", "CHF"), "79968.01279488", 13),
        (Money(5000, "XOF"), "55700000", 8977),
        (Money(1, "JPY"), "14204545", 8),
        (Money("1.001", "KWD"), "25906.50", 3864),
    ],
    ids=str,
)
async def test_a_quote_is_rounded_up_to_a_whole_satoshi(btcpay: BTCPay, due: Money, price: str, sats: int) -> None:
    answering = canned([{"currencyPair": f"BTC_{due.currency}", "errors": [], "rate": price}])

    quote = await btcpay.quote(connection(btcpay, answering), due, at=NOON)

    assert quote.price == Money.from_sat(sats)
    assert (quote.source, quote.at) == ("btcpay", NOON)
    assert answering.requests[0].url.endswith(f"/stores/{STORE}/rates?currencyPair=BTC_{due.currency}")


@pytest.mark.parametrize("rates", [[], [{"currencyPair": "BTC_CHF", "errors": ["no"], "rate": None}]])
async def test_no_rate_is_a_refusal_another_provider_may_not_share(btcpay: BTCPay, rates: JsonOut) -> None:
    with pytest.raises(Refused) as caught:
        await btcpay.quote(connection(btcpay, canned(rates)), Money(1, "CHF"), at=NOON)
    assert caught.value.reason == "no_rate"


# Errors


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (401, {"code": "unauthenticated", "message": "Authentication is required"}, CredentialRefused),
        (403, {"code": "missing-permission", "message": "Insufficient API Permissions."}, CredentialRefused),
        (403, "<html>", Rejected),
        (404, {"code": "invoice-not-found", "message": "The invoice was not found"}, Rejected),
        (400, {"code": "generic-error", "message": "No wallet has been linked to your BTCPay Store."}, Rejected),
        (400, {"code": "generic-error", "message": "Error retrieving a matching payment method or rate.\nx"}, Refused),
        (400, [{"path": "amount", "message": "The amount should be 0 or more."}], Rejected),
        (422, [{"path": "amount", "message": "The amount should be 0 or more."}], Rejected),
        (429, "", Throttled),
        (408, "", OutcomeUnknown),
        (500, "", OutcomeUnknown),
        (503, {"code": "generic-error", "message": "x"}, OutcomeUnknown),
        (502, "<html>", OutcomeUnknown),
    ],
)
async def test_an_error_means_what_the_table_says(
    btcpay: BTCPay, status: int, answer: JsonOut, error: type[CallFailed]
) -> None:
    content = answer.encode() if isinstance(answer, str) else encode_json(answer)
    with pytest.raises(error) as caught:
        await btcpay.create(connection(btcpay, Canned(status=status, content=content)), offer_request(DUE))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)


async def test_what_is_wrong_with_a_request_is_said(vendor: BTCPaySimulator) -> None:
    btcpay = provider(payment_methods=("DOGE-CHAIN",))
    with pytest.raises(Rejected, match=r"checkout\.paymentMethods\[0\]: Invalid PaymentMethodId") as caught:
        await btcpay.create(connection(btcpay, InProcess(vendor)), offer_request(DUE))
    assert caught.value.status == 422


async def test_a_currency_the_store_has_no_rate_for_is_refused(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    with pytest.raises(Refused) as caught:
        await btcpay.create(connection(btcpay, InProcess(vendor)), offer_request(Money(1, "UYW")))
    assert caught.value.reason == "no_rate"


async def test_a_wrong_key_a_missing_permission_and_a_missing_invoice_are_told_apart(vendor: BTCPaySimulator) -> None:
    stranger, owner = provider(api_key=Secret("nobody's")), provider()
    with pytest.raises(CredentialRefused) as refused:
        await stranger.create(connection(stranger, InProcess(vendor)), offer_request(DUE))
    with pytest.raises(Rejected) as missing:
        await owner.fetch(connection(owner, InProcess(vendor)), ID)
    vendor.permissions = frozenset({"btcpay.store.cancreateinvoice"})
    with pytest.raises(CredentialRefused) as forbidden:
        await owner.fetch(connection(owner, InProcess(vendor)), ID)

    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
    assert (missing.value.status, missing.value.code) == (404, "invoice-not-found")
    assert (forbidden.value.status, forbidden.value.code) == (403, "missing-permission")


# Webhooks


def test_the_published_form_of_the_signature_opens_the_door(btcpay: BTCPay) -> None:
    body, signature = signed(EVENT)

    genuine = btcpay.scheme.verify(incoming(body, ("btcpay-sig", signature)), btcpay.webhook_secrets)
    forged = btcpay.scheme.verify(incoming(body, ("btcpay-sig", signed(EVENT, "k")[1])), btcpay.webhook_secrets)
    changed = btcpay.scheme.verify(incoming(body + b" ", ("btcpay-sig", signature)), btcpay.webhook_secrets)
    compact = json.dumps(EVENT, separators=(",", ":")).encode()
    again = btcpay.scheme.verify(incoming(compact, ("btcpay-sig", signature)), btcpay.webhook_secrets)

    assert genuine.valid
    assert [verdict.reason for verdict in (forged, changed, again)] == ["wrong_signature"] * 3
    assert "re-serialised" in again.hint


def test_published_signatures_of_this_form_are_judged_as_published_and_made_by_the_simulator(
    btcpay: BTCPay, vendor: BTCPaySimulator
) -> None:
    if not VECTORS.exists():
        pytest.skip("the published signatures are not on this machine")
    vectors = [one for one in json.loads(VECTORS.read_text())["vectors"] if one["scheme"] == "sha256-header"]
    assert len(vectors) >= 2

    for vector in vectors:
        body, secret, signature = vector["body"].encode(), vector["secret"], vector["headers"]["BTCPay-Sig"]
        verdict = btcpay.scheme.verify(incoming(body, ("btcpay-sig", signature)), Secrets(secret))
        assert (vector["id"], verdict.valid) == (vector["id"], vector["valid"])
        if vector["valid"]:
            assert vendor.sign(body, secret=secret, at=NOON) == (("BTCPay-Sig", signature),)


@pytest.mark.parametrize("header", ["", "sha256=", "sha256=zz", "sha1=" + "0" * 40, "0" * 64, "sha256=" + "0" * 63])
def test_any_header_is_a_verdict(btcpay: BTCPay, header: str) -> None:
    assert not btcpay.scheme.verify(incoming(b"{}", ("btcpay-sig", header)), btcpay.webhook_secrets).valid


def test_a_secret_that_is_being_replaced_still_opens_it() -> None:
    btcpay = provider(webhook_secret=Secrets("new", SECRET))
    body, signature = signed(EVENT)
    verdict = btcpay.scheme.verify(incoming(body, ("btcpay-sig", signature)), btcpay.webhook_secrets)
    assert (verdict.valid, verdict.secret) == (True, 1)


def test_a_new_try_is_the_same_delivery(btcpay: BTCPay) -> None:
    again = EVENT | {"deliveryId": "second", "isRedelivery": True, "timestamp": int(NOON.timestamp()) + 70}
    other = EVENT | {"deliveryId": "third", "originalDeliveryId": None}

    [first], [second], [third] = (btcpay.parse(incoming(signed(event)[0])) for event in (EVENT, again, other))

    assert (first.dedup_key, first.digest) == (second.dedup_key, second.digest)
    assert first.dedup_key == "first"
    assert third.dedup_key == "third"
    assert (first.vendor_id, first.reference, first.facts) == (ID, "consultation-4711", {"attempt_id": "att_5f2c"})
    assert first.recognised


@pytest.mark.parametrize(
    "event",
    [
        EVENT | {"metadata": {"orderId": "the till's"}},
        EVENT | {"metadata": None},
        EVENT | {"type": "InventedTomorrow"},
        {"type": "PayoutUpdated", "deliveryId": "x", "payoutId": "p"},
    ],
    ids=["sold by somebody else", "without metadata", "unknown", "no invoice"],
)
def test_what_is_not_of_ours_is_kept_and_not_acted_on(btcpay: BTCPay, event: dict[str, object]) -> None:
    [delivery] = btcpay.parse(incoming(json.dumps(event).encode()))
    assert not delivery.recognised


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"7", b"\xff", b'{"type": "InvoiceSettled"}'])
def test_a_body_that_cannot_be_read_is_a_value_error(btcpay: BTCPay, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        btcpay.parse(incoming(body))


async def listed(btcpay: BTCPay, http: Http, since: datetime = NOON) -> list[Delivery]:
    return [delivery async for delivery in btcpay.list_deliveries(http, since)]


@pytest.mark.parametrize("named", [True, False], ids=["its own webhook", "every webhook of the store"])
async def test_what_was_sent_is_listed_as_the_webhook_told_it(vendor: BTCPaySimulator, named: bool) -> None:
    btcpay = provider(webhook_id=vendor.webhook_id if named else "")
    http = connection(btcpay, InProcess(vendor))
    vendor.pay((await btcpay.create(http, offer_request(DUE))).vendor_id)
    told = [btcpay.parse(incoming(webhook.body))[0] for webhook in vendor.outbox]

    found = await listed(btcpay, http)

    assert (told[0].type, told[-1].type) == ("InvoiceCreated", "InvoiceSettled")
    assert {(one.dedup_key, one.digest, one.facts is None) for one in found} == {
        (one.dedup_key, one.digest, one.facts is None) for one in told
    }


async def test_a_list_goes_back_to_what_was_asked_for_and_leaves_out_what_was_pruned(
    vendor: BTCPaySimulator, clock: ManualClock
) -> None:
    btcpay = provider(webhook_id=vendor.webhook_id)
    http = connection(btcpay, InProcess(vendor))
    for _ in range(150):
        await btcpay.create(http, offer_request(DUE))
        await clock.advance(1)
    vendor.deliveries[-1].pruned = True

    everything, latest = await listed(btcpay, http), await listed(btcpay, http, NOON + timedelta(seconds=140))

    assert len(everything) == 149
    assert len(latest) == 9


async def test_a_list_that_may_not_be_asked_for_says_so(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    vendor.permissions = frozenset({"btcpay.store.canviewinvoices"})
    with pytest.raises(CredentialRefused, match="canmodifywebhooks"):
        await listed(btcpay, connection(btcpay, InProcess(vendor)))


# Refunds


async def paid_invoice(btcpay: BTCPay, vendor: BTCPaySimulator, http: Http) -> str:
    created = await btcpay.create(http, offer_request(DUE))
    vendor.pay(created.vendor_id)
    return created.vendor_id


async def test_a_refund_is_a_link_until_its_payout_is_paid(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    asked = refund_request(vendor_id=await paid_invoice(btcpay, vendor, http))

    made = await btcpay.refund(http, asked)
    untouched = await btcpay.fetch_refund(http, asked, made.vendor_id)
    payout = vendor.claim(made.vendor_id)
    claimed = await btcpay.fetch_refund(http, asked, made.vendor_id)
    vendor.pay_out(payout)
    done = await btcpay.fetch_refund(http, asked, made.vendor_id)

    statuses = [refund.status for refund in (made, untouched, claimed, done)]
    assert statuses == [
        RefundStatus.MANUAL_REQUIRED,
        RefundStatus.MANUAL_REQUIRED,
        RefundStatus.PENDING,
        RefundStatus.SUCCEEDED,
    ]
    assert (made.money, made.key) == (DUE, asked.key)
    assert made.claim_url == f"https://btcpay.test/pull-payments/{made.vendor_id}"
    vendor.ledger.exactly_once(refund(reference="consultation-4711", amount=DUE))


async def test_a_part_that_was_claimed_leaves_the_rest_to_be_claimed(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    asked = refund_request(vendor_id=await paid_invoice(btcpay, vendor, http))
    made = await btcpay.refund(http, asked)
    vendor.pay_out(vendor.claim(made.vendor_id, Decimal("20.00")))

    assert (await btcpay.fetch_refund(http, asked, made.vendor_id)).status is RefundStatus.MANUAL_REQUIRED


async def test_a_refund_that_was_taken_back_is_canceled(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    asked = refund_request(vendor_id=await paid_invoice(btcpay, vendor, http))
    made = await btcpay.refund(http, asked)
    vendor.claim(made.vendor_id)
    vendor.archive(made.vendor_id)

    assert (await btcpay.fetch_refund(http, asked, made.vendor_id)).status is RefundStatus.CANCELED


async def test_a_refund_whose_answer_was_lost_is_found_by_its_key(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    asked = refund_request(vendor_id=await paid_invoice(btcpay, vendor, http))
    vendor.faults.on("btcpay", "payments.refund").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await btcpay.refund(http, asked)

    found = await btcpay.find_refund(http, asked)
    other = await btcpay.find_refund(http, refund_request(key="c" * 32, vendor_id=asked.vendor_id))

    assert found is not None
    assert (found.vendor_id, found.money) == (next(iter(vendor.pull_payments)), DUE)
    assert other is None


async def test_the_refund_on_the_wire_is_as_published(btcpay: BTCPay) -> None:
    answering = canned({"id": "pp", "currency": "KWD", "amount": "1.001", "viewLink": "https://x/pp"})

    await btcpay.refund(connection(btcpay, answering), refund_request(Money("1.001", "KWD")))

    sent = json.loads(answering.requests[0].content)
    assert misfits("RefundInvoiceRequest", sent) == []
    assert set(sent) <= properties("RefundInvoiceRequest")
    assert (sent["refundVariant"], sent["customAmount"], sent["customCurrency"]) == ("Custom", "1.001", "KWD")


async def test_what_nobody_paid_cannot_be_refunded(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    created = await btcpay.create(http, offer_request(DUE))
    with pytest.raises(Rejected) as caught:
        await btcpay.refund(http, refund_request(vendor_id=created.vendor_id))
    assert caught.value.code == "non-refundable"


# Statements


async def test_a_statement_has_what_came_and_what_went_back_in_its_time(
    btcpay: BTCPay, vendor: BTCPaySimulator, clock: ManualClock
) -> None:
    http = connection(btcpay, InProcess(vendor))
    first = await btcpay.create(http, offer_request(DUE))
    await btcpay.create(http, offer_request(DUE, attempt_id="att_unpaid"))
    vendor.pay(first.vendor_id)
    await clock.advance(3600)
    made = await btcpay.refund(http, refund_request(vendor_id=first.vendor_id))
    vendor.pay_out(vendor.claim(made.vendor_id))
    last = await btcpay.create(http, offer_request(Money(5000, "XOF"), attempt_id="att_last"))
    vendor.see_onchain(last.vendor_id)

    everything = [line async for line in btcpay.statement(http, NOON, NOON + timedelta(days=1))]
    first_hour = [line async for line in btcpay.statement(http, NOON, NOON + timedelta(hours=1))]

    assert [(line.kind, line.payment_id, line.money) for line in everything] == [
        (LineKind.PAYMENT, first.vendor_id, DUE),
        (LineKind.REFUND, first.vendor_id, DUE),
    ]
    assert (everything[0].attempt_id, everything[0].reference) == ("att_5f2c", "consultation-4711")
    assert [line.kind for line in first_hour] == [LineKind.PAYMENT]


async def test_a_statement_is_read_page_by_page(btcpay: BTCPay, vendor: BTCPaySimulator, clock: ManualClock) -> None:
    http = connection(btcpay, InProcess(vendor))
    for number in range(101):
        created = await btcpay.create(http, offer_request(DUE, attempt_id=f"att_{number}"))
        vendor.pay(created.vendor_id)

    lines = [line async for line in btcpay.statement(http, NOON, NOON + timedelta(days=1))]

    assert len({line.attempt_id for line in lines}) == 101


async def test_one_invoice_nobody_can_read_hides_no_other(btcpay: BTCPay) -> None:
    came: list[JsonOut] = [{"id": "tx", "receivedDate": int(NOON.timestamp()), "value": "0.1", "status": "Settled"}]
    answering = Answers(
        invoices=[{"id": "broken"}, INVOICE | {"status": "Settled", "paidAmount": "120"}],
        payment_methods=[{"paymentMethodId": "BTC-CHAIN", "payments": came}],
        pull_payments=[],
        payouts=[],
    )

    lines = [line async for line in btcpay.statement(connection(btcpay, answering), NOON, NOON + timedelta(hours=1))]

    assert [line.vendor_id for line in lines] == [ID]


# What the simulator says is what is published


async def test_the_simulator_answers_as_published(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    http = connection(btcpay, InProcess(vendor))
    id = await paid_invoice(btcpay, vendor, http)
    made = await btcpay.refund(http, refund_request(vendor_id=id))
    vendor.claim(made.vendor_id)
    answers = {
        "InvoiceData": f"stores/{STORE}/invoices/{id}",
        "PullPaymentData": f"pull-payments/{made.vendor_id}",
        "PayoutDataList": f"pull-payments/{made.vendor_id}/payouts",
        "WebhookDataList": f"stores/{STORE}/webhooks",
        "WebhookDeliveryList": f"stores/{STORE}/webhooks/{vendor.webhook_id}/deliveries",
    }

    for name, path in answers.items():
        answer = await InProcess(vendor).send(
            HttpRequest(method="GET", url=f"https://x/api/v1/{path}", headers=tuple(btcpay.headers().items()))
        )
        said = json.loads(answer.content)
        assert answer.status == 200
        # A payout's date is called a text there, and "a unix timestamp"; the server writes a number.
        assert [wrong for wrong in misfits(name, said) if ".date: " not in wrong] == []
        if name == "InvoiceData":
            assert set(said) <= properties("InvoiceData") | properties("InvoiceDataBase")


async def test_every_webhook_has_the_published_fields(btcpay: BTCPay, vendor: BTCPaySimulator) -> None:
    await paid_invoice(btcpay, vendor, connection(btcpay, InProcess(vendor)))
    schemas = {
        "InvoiceCreated": "WebhookInvoiceEvent",
        "InvoiceReceivedPayment": "WebhookInvoiceReceivedPaymentEvent",
        "InvoicePaymentSettled": "WebhookInvoicePaymentSettledEvent",
        "InvoiceProcessing": "WebhookInvoiceProcessingEvent",
        "InvoiceSettled": "WebhookInvoiceSettledEvent",
    }

    assert [webhook.event for webhook in vendor.outbox] == [
        "InvoiceCreated",
        "InvoiceReceivedPayment",
        "InvoiceProcessing",
        "InvoicePaymentSettled",
        "InvoiceSettled",
    ]
    for webhook in vendor.outbox:
        assert set(json.loads(webhook.body)) == properties(schemas[webhook.event])
        assert webhook.body.startswith(b'{\n  "deliveryId"')


def test_a_webhook_is_tried_again_for_an_hour_unless_it_was_refused(vendor: BTCPaySimulator) -> None:
    waits = [vendor.retry_after(number, Reply(status=503)) for number in range(1, 10)]

    assert waits == [10, 60, *[600] * 6, None]
    assert [vendor.retry_after(1, Reply(status=status)) for status in (400, 401, 404, 409)] == [None] * 4
    assert [vendor.retry_after(1, Reply(status=status)) for status in (0, 408, 429, 500)] == [10] * 4


# The whole way


async def test_an_invoice_is_created_paid_and_fetched_over_a_socket(vendor: BTCPaySimulator) -> None:
    async with Edge(vendor) as edge:
        btcpay = provider(base_url=edge.url, payment_codes=True)
        transport = HttpxTransport()
        http = connection(btcpay, transport)
        created = await btcpay.create(http, offer_request(DUE))
        assert created.offer is not None
        vendor.pay(created.offer.payload)
        snapshot = await btcpay.fetch(http, created.vendor_id)
        await transport.aclose()

    assert (snapshot.status, snapshot.received) == (S.PAID, DUE)
    vendor.ledger.exactly_once(charge(reference="consultation-4711", amount=DUE))


async def test_a_payment_is_told_once_by_webhooks(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)

    sent = await shop.deliver(Mischief(duplicate=1, forge=1, lie=1, delay=0.5))

    assert (await shop.payments.get("order-1")).status is S.PAID
    assert shop.told == ["paid"]
    assert [one for one in sent if one.manner.forged and one.accepted] == []
    vendor.ledger.exactly_once(charge(reference="order-1", amount=DUE))


async def test_a_webhook_that_claims_too_much_changes_nothing(shop: Shop, vendor: BTCPaySimulator) -> None:
    await shop.create("order-1", DUE)

    sent = await shop.deliver(Mischief(lie=1))

    assert "lie" in [one.manner for one in sent if one.accepted]
    assert (await shop.payments.get("order-1")).status is S.PENDING
    assert shop.told == []


async def test_a_payment_is_found_by_the_sweep_alone(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)

    await shop.clock.advance(60)
    await shop.settle()

    assert (await shop.payments.get("order-1")).status is S.PAID
    assert shop.told == ["paid"]


async def test_a_payment_is_found_by_asking_for_what_was_missed(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    vendor.outbox.clear()

    await shop.run(shop.hub.reconcile())
    await shop.settle()

    assert shop.told == ["paid"]


async def test_a_lost_answer_is_one_invoice_and_one_offer(shop: Shop, vendor: BTCPaySimulator) -> None:
    vendor.faults.on("btcpay", "payments.create").script(Reset())

    payment = await shop.create("order-1", DUE)

    assert payment.route == ("btcpay:offered",)
    assert payment.offer is not None
    assert payment.offer.bolt11
    assert len(vendor.invoices) == 1


async def test_an_invoice_whose_answer_was_lost_is_known_by_its_first_webhook(
    shop: Shop, vendor: BTCPaySimulator
) -> None:
    vendor.faults.on("btcpay", "payments.create").script(Reset())
    vendor.faults.on("btcpay", "payments.find").always(Status(500))
    with pytest.raises(OutcomeUnknown):
        await shop.create("order-1", DUE)

    await shop.deliver()

    [attempt] = (await shop.payments.get("order-1")).attempts
    assert attempt.vendor_id == next(iter(vendor.invoices))


async def test_a_part_then_the_rest(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id, 50_000)
    vendor.confirm(id)

    partial = await shop.refresh("order-1")
    vendor.see_onchain(id)
    unconfirmed = await shop.refresh("order-1")
    vendor.confirm(id)
    paid = await shop.refresh("order-1")

    assert (partial.status, partial.received) == (S.PARTIALLY_PAID, Money("40.00", "CHF"))
    assert unconfirmed.status is S.PROCESSING
    assert (paid.status, paid.received) == (S.PAID, DUE)
    assert shop.told == ["flagged underpaid", "paid"]


async def test_too_much_is_paid_and_flagged(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id, 200_000)
    vendor.confirm(id)

    paid = await shop.refresh("order-1")

    assert (paid.status, paid.received) == (S.PAID, Money("160.00", "CHF"))
    assert paid.anomalies == {Anomaly.OVERPAID}


async def test_money_that_comes_after_the_end_is_noticed_once_it_is_confirmed(
    shop: Shop, vendor: BTCPaySimulator
) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    await shop.clock.advance(16 * 60)
    await shop.refresh("order-1")
    vendor.see_onchain(id)
    await shop.deliver()
    seen = await shop.payments.get("order-1")
    vendor.confirm(id)
    await shop.deliver()

    paid = await shop.payments.get("order-1")

    assert vendor.invoices[id].status == "Expired"
    assert (seen.status, paid.status) == (S.PROCESSING, S.PAID)
    assert shop.told.count("paid") == 1


async def test_an_offer_over_lightning_alone_ends_soon_after_its_invoice(
    vendor: BTCPaySimulator, clock: ManualClock
) -> None:
    lightning = provider(base_url="http://127.0.0.1:1", payment_methods=("BTC-LN",))
    async with Shop(lightning, vendor, clock) as shop:
        await shop.create("order-1", DUE)
        await shop.clock.advance(18 * 60)

        assert (await shop.refresh("order-1")).status is S.EXPIRED


async def test_late_money_is_found_without_webhooks_a_day_later(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    await shop.clock.advance(16 * 60)
    await shop.settle()
    vendor.see_onchain(id)
    vendor.confirm(id)

    for _ in range(5):
        await shop.clock.advance(6 * 3600)
        await shop.settle()

    assert (await shop.payments.get("order-1")).status is S.PAID


async def test_a_transaction_that_is_replaced_is_no_payment(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id)
    assert (await shop.refresh("order-1")).status is S.PROCESSING
    vendor.double_spend(id)
    await shop.clock.advance(25 * 3600)

    assert (await shop.refresh("order-1")).status is S.EXPIRED
    assert shop.told == []


async def test_marking_an_invoice_invalid_does_not_stop_who_pays(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)

    canceled = await shop.run(shop.payments.cancel("order-1"))
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id)
    vendor.confirm(id)
    paid = await shop.refresh("order-1")

    assert (canceled.status, canceled.offer) == (S.PENDING, None)
    assert paid.status is S.PAID
    assert paid.anomalies == {Anomaly.LATE}


async def test_a_second_offer_waits_for_the_end_of_the_first(shop: Shop, vendor: BTCPaySimulator) -> None:
    await shop.create("order-1", DUE)

    with pytest.raises(Rejected) as refused:
        await shop.run(shop.payments.renew("order-1"))

    assert refused.value.reason == "not_revocable"
    vendor.ledger.never_two_offers()


async def test_a_refund_is_claimed_by_the_payer_and_told(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    await shop.refresh("order-1")

    asked = await shop.run(shop.payments.refund("order-1", Money("20.00", "CHF"), key="r1", reason="ill"))
    again = await shop.run(shop.payments.refund("order-1", Money("20.00", "CHF"), key="r1"))
    await shop.settle()
    [held] = vendor.pull_payments.values()
    vendor.pay_out(vendor.claim(held.id))
    await shop.refresh("order-1")

    [done] = await shop.payments.refunds("order-1")
    assert (asked.status, asked.claim_url) == (
        RefundStatus.MANUAL_REQUIRED,
        f"https://btcpay.test/pull-payments/{held.id}",
    )
    assert again.status is RefundStatus.MANUAL_REQUIRED
    assert [event.claim_url for event in shop.by_hand] == [asked.claim_url]
    assert done.status is RefundStatus.SUCCEEDED
    assert shop.told == ["paid", "refunded"]
    vendor.ledger.exactly_once(refund(reference="order-1", amount=Money("20.00", "CHF")))
    vendor.ledger.refunded_at_most_captured()


async def test_a_link_that_was_settled_by_hand_is_looked_at_until_it_is_claimed(
    shop: Shop, vendor: BTCPaySimulator
) -> None:
    # given
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    await shop.refresh("order-1")
    await shop.run(shop.payments.refund("order-1", key="r1"))
    await shop.settle()
    await shop.run(shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="wrote to them"))

    # when
    asked: list[int] = []
    for day in range(6):
        if day == 3:
            [held] = vendor.pull_payments.values()
            vendor.pay_out(vendor.claim(held.id))
        seen = len(vendor.requests)
        await shop.clock.advance(86_400)
        await shop.settle()
        asked.append(sum("/pull-payments/" in one.target for one in list(vendor.requests)[seen:]))

    # then
    [done] = await shop.payments.refunds("order-1")
    assert [number > 0 for number in asked] == [True, True, True, True, False, False]
    assert (done.status, done.confirmed) == (RefundStatus.SUCCEEDED, True)
    assert shop.told == ["paid", "refunded"]


async def test_a_lost_answer_to_a_refund_is_one_refund(shop: Shop, vendor: BTCPaySimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    await shop.refresh("order-1")
    vendor.faults.on("btcpay", "payments.refund").script(Reset())

    with pytest.raises(OutcomeUnknown):
        await shop.run(shop.payments.refund("order-1", key="r1"))
    await shop.refresh("order-1")

    [found] = await shop.payments.refunds("order-1")
    assert (found.status, found.claim_url is None) == (RefundStatus.MANUAL_REQUIRED, False)
    assert len(vendor.pull_payments) == 1


async def test_no_secret_is_in_a_log_line_or_an_error(
    shop: Shop, vendor: BTCPaySimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Status(500, body=f'{{"message": "token {KEY} {SECRET}"}}'.encode(), content_type="application/json")
    vendor.faults.on("btcpay", "payments.create").always(echo)

    with pytest.raises(CallFailed) as caught:
        await shop.create("order-1", DUE)

    told = caplog.text + str(caught.value) + repr(caught.value)
    assert KEY not in told
    assert SECRET not in told
