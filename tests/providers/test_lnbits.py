"""LNbits: satoshi in, millisatoshi out, never confused; proof of payment is checked; webhooks are only a hint."""

import hashlib
import json
from datetime import datetime, timedelta
from decimal import Decimal
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
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.wire import JsonOut
from holdfast.payments.models import Attempt, AttemptState, PaymentStatus
from holdfast.payments.provider import Lookup, PaymentProvider, SupportsLookup, SupportsQuotes
from holdfast.providers import LNbits
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Reset
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.values import Money, Secret
from holdfast.webhooks.request import Delivery
from tests.providers.connection import NOON, canned, connection, incoming, offer_request

KEY = "a" * 32
PREIMAGE = "11" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()
SPEC = Path(__file__).resolve().parents[3] / "shared/specs/payments/lnbits/openapi-1.6.2.json"

PAYMENT: dict[str, JsonOut] = {
    "checking_id": HASH,
    "payment_hash": HASH,
    "wallet_id": "w" * 32,
    "amount": 2_100_000,
    "fee": 0,
    "bolt11": "lnbc21u1example",
    "status": "pending",
    "expiry": "2026-03-02T12:15:00",
    "preimage": None,
    "external_id": "att_5f2c",
    "extra": {"reference": "consultation-4711"},
}


@pytest.fixture
def lnbits() -> LNbits:
    return LNbits(base_url="https://lnbits.example.ch", invoice_key=Secret(KEY))


@pytest.fixture
def vendor() -> LNbitsSimulator:
    return LNbitsSimulator(invoice_key=KEY, clock=ManualClock(NOON))


def attempt(id: str = "att_5f2c") -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="lnbits",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=Money.from_sat(2100),
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON,
    )


def spec(name: str) -> dict[str, Any]:
    if not SPEC.exists():
        pytest.skip("the published description is not on this machine")
    document = json.loads(SPEC.read_text())
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


# Facts


def test_it_can_be_asked_for_what_we_created_and_for_a_rate(lnbits: LNbits) -> None:
    provider: PaymentProvider = lnbits
    assert isinstance(provider, SupportsLookup)
    assert isinstance(provider, SupportsQuotes)
    assert provider.capabilities.lookup is Lookup.AUTHORITATIVE
    assert provider.capabilities.currencies == frozenset({"BTC"})
    assert lnbits.scheme is None


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("LNBITS_URL", "http://127.0.0.1:5000")
    monkeypatch.setenv("LNBITS_INVOICE_KEY", "key-to-hide")

    # when
    lnbits = LNbits.from_env()

    # then
    assert (lnbits.base_url, lnbits.live) == ("http://127.0.0.1:5000", False)
    assert lnbits.headers() == {"x-api-key": "key-to-hide"}
    assert "to-hide" not in repr(lnbits)


@pytest.mark.parametrize("missing", ["LNBITS_URL", "LNBITS_INVOICE_KEY"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNBITS_URL", "https://lnbits.example.ch")
    monkeypatch.setenv("LNBITS_INVOICE_KEY", "k")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        LNbits.from_env()


# Creating


async def test_the_request_on_the_wire_is_exactly_this(lnbits: LNbits) -> None:
    # given
    answering = canned(PAYMENT, status=201)

    # when
    await lnbits.create(connection(lnbits, answering), offer_request(Money.from_sat(2100)))

    # then
    [request] = answering.requests
    assert (request.method, request.url) == ("POST", "https://lnbits.example.ch/api/v1/payments")
    assert dict(request.headers)["x-api-key"] == KEY
    assert request.content == (
        b'{"out":false,"amount":2100,"unit":"sat","memo":"Consultation","expiry":900,"external_id":"att_5f2c",'
        b'"extra":{"reference":"consultation-4711"},"webhook":"https://api.example.ch/webhooks/vendor"}'
    )


async def test_the_request_fits_the_published_description(lnbits: LNbits) -> None:
    # given
    schema = spec("CreateInvoice")
    answering = canned(PAYMENT, status=201)

    # when
    await lnbits.create(connection(lnbits, answering), offer_request(Money.from_sat(1), description="m" * 1000))

    # then
    sent = json.loads(answering.requests[0].content)
    Draft202012Validator(schema).validate(sent)
    assert set(sent) <= set(schema["components"]["schemas"]["CreateInvoice"]["properties"])


async def test_the_simulator_answers_as_published(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    # given
    schema = spec("Payment")

    # when
    await lnbits.create(connection(lnbits, InProcess(vendor)), offer_request(Money.from_sat(2100)))
    [payment] = vendor.payments.values()

    # then
    told = {name: value for name, value in payment.to_json(vendor.wallet).items() if value is not None}
    Draft202012Validator(schema).validate(told)


@pytest.mark.parametrize("price", [Money.from_minor(2_100_500, "BTC"), Money.from_minor(1, "BTC"), Money(21, "CHF")])
async def test_what_is_no_whole_satoshi_is_refused_before_anything_is_sent(lnbits: LNbits, price: Money) -> None:
    answering = canned(PAYMENT, status=201)
    with pytest.raises(InvalidMoney, match="whole number of satoshi"):
        await lnbits.create(connection(lnbits, answering), offer_request(price))
    assert not answering.requests


async def test_an_answer_in_millisatoshi_is_the_price_that_was_asked(lnbits: LNbits) -> None:
    # when
    snapshot = await lnbits.create(connection(lnbits, canned(PAYMENT, status=201)), offer_request(Money.from_sat(2100)))

    # then
    assert snapshot.price == Money.from_sat(2100)
    assert (snapshot.vendor_id, snapshot.attempt_id, snapshot.status) == (HASH, "att_5f2c", PaymentStatus.PENDING)
    assert snapshot.offer
    assert snapshot.offer.bolt11 == "lnbc21u1example"


async def test_a_time_without_an_offset_is_the_servers_and_not_believed(lnbits: LNbits) -> None:
    # given: one hour off, as the answer to a creation is on a server that does not stand in UTC
    answering = canned(PAYMENT | {"expiry": "2026-03-02T13:15:00"}, status=201)
    naive: JsonOut = {"paid": False, "details": PAYMENT | {"expiry": "2026-03-02T13:15:00"}}
    aware: JsonOut = {"paid": False, "details": PAYMENT | {"expiry": "2026-03-02T12:15:00+00:00"}}

    # when
    created = await lnbits.create(connection(lnbits, answering), offer_request(Money.from_sat(2100)))
    unsaid = await lnbits.fetch(connection(lnbits, canned(naive)), HASH)
    said = await lnbits.fetch(connection(lnbits, canned(aware)), HASH)

    # then
    assert [found.offer and found.offer.expires_at for found in (created, unsaid, said)] == [
        NOON + timedelta(minutes=15),
        None,
        NOON + timedelta(minutes=15),
    ]


async def test_what_was_paid_out_is_never_found(lnbits: LNbits) -> None:
    answering = canned([PAYMENT | {"amount": -2_100_000, "status": "success"}])
    assert await lnbits.find(connection(lnbits, answering), attempt()) is None


@pytest.mark.parametrize("amount", [2100, 2_100_000_000])
async def test_satoshi_and_millisatoshi_confused_either_way_show_as_another_price(lnbits: LNbits, amount: int) -> None:
    answering = canned(PAYMENT | {"amount": amount}, status=201)
    snapshot = await lnbits.create(connection(lnbits, answering), offer_request(Money.from_sat(2100)))
    assert snapshot.price is not None
    assert snapshot.price != Money.from_sat(2100)


async def test_an_amount_with_a_point_is_no_invoice_of_theirs(lnbits: LNbits) -> None:
    answering = canned(PAYMENT | {"amount": Decimal("2100.5")}, status=201)
    with pytest.raises(OutcomeUnknown):
        await lnbits.create(connection(lnbits, answering), offer_request(Money.from_sat(2100)))


# Fetching


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pending", PaymentStatus.PENDING),
        ("success", PaymentStatus.PAID),
        ("failed", PaymentStatus.FAILED),
        ("invented-tomorrow", PaymentStatus.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_table_says(lnbits: LNbits, theirs: str, ours: PaymentStatus) -> None:
    # given
    answer: JsonOut = {"paid": theirs == "success", "details": PAYMENT | {"status": theirs, "preimage": PREIMAGE}}

    # when
    snapshot = await lnbits.fetch(connection(lnbits, canned(answer)), HASH)

    # then
    assert (snapshot.status, snapshot.price) == (ours, Money.from_sat(2100))
    assert snapshot.received == (Money.from_sat(2100) if ours is PaymentStatus.PAID else None)


@pytest.mark.parametrize("preimage", ["22" * 32, "not hex", PREIMAGE[:-2]])
async def test_a_preimage_that_proves_nothing_is_a_mismatch(lnbits: LNbits, preimage: str) -> None:
    answer: JsonOut = {"paid": True, "details": PAYMENT | {"status": "success", "preimage": preimage}}
    with pytest.raises(Mismatch, match="does not prove"):
        await lnbits.fetch(connection(lnbits, canned(answer)), HASH)


@pytest.mark.parametrize("preimage", [None, "", "0" * 64])
async def test_a_wallet_that_tells_no_preimage_is_believed(lnbits: LNbits, preimage: str | None) -> None:
    answer: JsonOut = {"paid": True, "details": PAYMENT | {"status": "success", "preimage": preimage}}
    snapshot = await lnbits.fetch(connection(lnbits, canned(answer)), HASH)
    assert snapshot.status is PaymentStatus.PAID


async def test_a_preimage_told_before_payment_is_no_payment(lnbits: LNbits) -> None:
    answer: JsonOut = {"paid": False, "details": PAYMENT | {"preimage": PREIMAGE}}
    snapshot = await lnbits.fetch(connection(lnbits, canned(answer)), HASH)
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PENDING, None)


async def test_an_answer_without_the_invoice_means_the_key_is_not_its_wallets(lnbits: LNbits) -> None:
    with pytest.raises(CredentialRefused, match="another wallet"):
        await lnbits.fetch(connection(lnbits, canned({"paid": True, "preimage": PREIMAGE})), HASH)


# Looking up, and rates


async def test_a_lost_answer_is_found_by_the_attempts_id(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    # given
    vendor.faults.on("lnbits", "payments.create").script(Reset())
    http = connection(lnbits, InProcess(vendor))
    with pytest.raises(OutcomeUnknown):
        await lnbits.create(http, offer_request(Money.from_sat(2100)))

    # when
    found = await lnbits.find(http, attempt())
    missing = await lnbits.find(http, attempt("att_other"))

    # then
    assert found is not None
    assert found.offer
    assert found.price == Money.from_sat(2100)
    assert missing is None


async def test_of_two_invoices_with_one_id_the_paid_one_is_found(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    # given
    http = connection(lnbits, InProcess(vendor))
    first = await lnbits.create(http, offer_request(Money.from_sat(2100)))
    await lnbits.create(http, offer_request(Money.from_sat(2100)))
    vendor.pay(first.vendor_id)

    # when
    found = await lnbits.find(http, attempt())

    # then
    assert found is not None
    assert found.vendor_id == first.vendor_id


async def test_a_server_that_ignores_the_filter_finds_nothing_by_chance(lnbits: LNbits) -> None:
    answering = canned([PAYMENT | {"external_id": None}, PAYMENT | {"external_id": "att_other"}])
    assert await lnbits.find(connection(lnbits, answering), attempt()) is None
    assert answering.requests[0].url.endswith("/api/v1/payments?external_id=att_5f2c")


@pytest.mark.parametrize(
    ("due", "rate", "sats"),
    [
        (Money("120.00", "CHF"), "1250", 150_000),
        (Money("0.01", "CHF"), "1250.5", 13),  # 12.505, rounded up
        (Money(5000, "XOF"), "1.7953321364452424", 8977),
        (Money(1, "JPY"), "7.04", 8),
        (Money("1.001", "KWD"), "3860.0386", 3864),
    ],
    ids=str,
)
async def test_a_quote_is_rounded_up_to_a_whole_satoshi(lnbits: LNbits, due: Money, rate: str, sats: int) -> None:
    # given
    answering = canned({"rate": Decimal(rate), "price": 1})

    # when
    quote = await lnbits.quote(connection(lnbits, answering), due, at=NOON)

    # then
    assert quote.price == Money.from_sat(sats)
    assert (quote.source, quote.at) == ("lnbits", NOON)
    assert Decimal(quote.rate) == Decimal(rate).scaleb(-8)
    assert answering.requests[0].url.endswith(f"/api/v1/rate/{due.currency}")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"rate": Decimal("0.0"), "price": Decimal("0.0")}),
        (400, {"detail": "Could not get exchange rate for CHF."}),
        (400, {"detail": "Could not fetch any Bitcoin price."}),
    ],
)
async def test_no_rate_is_a_refusal_another_provider_may_not_share(
    lnbits: LNbits, status: int, answer: dict[str, JsonOut]
) -> None:
    with pytest.raises(Refused) as caught:
        await lnbits.quote(connection(lnbits, canned(answer, status)), Money(1, "CHF"), at=NOON)
    assert caught.value.reason == "no_rate"


# Errors


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (520, {"detail": "Internal invoice already paid.", "status": "failed"}, Rejected),
        (404, {"detail": "Wallet not found."}, CredentialRefused),
        (404, {"detail": "Payment does not exist."}, Rejected),
        (401, {"detail": "No Api Key provided."}, CredentialRefused),
        (400, {"detail": [{"loc": ["body", "amount"], "msg": "field required", "type": "missing"}]}, Rejected),
        (429, {"detail": "Rate limit exceeded"}, Throttled),
        (500, {"detail": "oops"}, OutcomeUnknown),
        (502, "<html>", OutcomeUnknown),
    ],
)
async def test_an_error_means_what_the_table_says(
    lnbits: LNbits, status: int, answer: JsonOut, error: type[CallFailed]
) -> None:
    with pytest.raises(error) as caught:
        await lnbits.create(connection(lnbits, canned(answer, status)), offer_request(Money.from_sat(1)))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)


async def test_what_is_wrong_with_a_request_is_said(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    complaint: JsonOut = {"detail": [{"loc": ["body", "amount"], "msg": "field required", "type": "missing"}]}
    with pytest.raises(Rejected, match=r"body\.amount: field required"):
        await lnbits.create(connection(lnbits, canned(complaint, 400)), offer_request(Money.from_sat(1)))


# Webhooks


async def test_the_doubled_doubly_encoded_body_is_one_delivery(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    # given
    created = await lnbits.create(connection(lnbits, InProcess(vendor)), offer_request(Money.from_sat(2100)))
    vendor.pay(created.vendor_id)
    [webhook] = vendor.outbox
    assert webhook.body.startswith(b'"{')

    # when
    [first] = lnbits.parse(incoming(webhook.body))
    [second] = lnbits.parse(incoming(webhook.body))

    # then
    assert (first.type, first.vendor_id, first.reference) == ("success", created.vendor_id, "consultation-4711")
    assert first.recognised
    assert first.dedup_key == second.dedup_key


def test_a_singly_encoded_body_is_the_same_delivery(lnbits: LNbits) -> None:
    once = json.dumps(PAYMENT).encode()
    twice = json.dumps(json.dumps(PAYMENT)).encode()
    assert lnbits.parse(incoming(once))[0].dedup_key == lnbits.parse(incoming(twice))[0].dedup_key


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'"{"', b'"text"', b"[]", b"7", b"\xff"])
def test_a_body_that_cannot_be_read_is_a_value_error(lnbits: LNbits, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        lnbits.parse(incoming(body))


# The whole way, against the simulator


async def test_an_invoice_is_created_paid_and_fetched(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    # given
    http = connection(lnbits, InProcess(vendor))
    created = await lnbits.create(http, offer_request(Money.from_sat(2100)))
    assert created.offer
    assert created.offer.expires_at == NOON + timedelta(minutes=15)
    assert (await lnbits.fetch(http, created.vendor_id)).status is PaymentStatus.PENDING

    # when
    vendor.pay(created.offer.payload)
    snapshot = await lnbits.fetch(http, created.vendor_id)

    # then
    assert (snapshot.status, snapshot.received) == (PaymentStatus.PAID, Money.from_sat(2100))


async def test_a_wrong_key_is_told_apart_from_a_missing_invoice(vendor: LNbitsSimulator) -> None:
    stranger = LNbits(base_url="https://lnbits.example.ch", invoice_key=Secret("b" * 32))
    http = connection(stranger, InProcess(vendor))
    with pytest.raises(CredentialRefused):
        await stranger.create(http, offer_request(Money.from_sat(1)))
    with pytest.raises(Rejected) as caught:
        await stranger.fetch(http, HASH)
    assert caught.value.status == 404


async def listed(provider: LNbits, http: Http, since: datetime) -> list[Delivery]:
    return [delivery async for delivery in provider.list_deliveries(http, since)]


async def test_what_was_paid_is_listed_as_its_webhook_tells_it(lnbits: LNbits, vendor: LNbitsSimulator) -> None:
    http = connection(lnbits, InProcess(vendor))
    request = offer_request(Money.from_sat(2100), webhook_url="https://api.example.ch/webhooks/lnbits/a")
    paid, _open = [await lnbits.create(http, request) for _ in range(2)]
    vendor.pay(paid.vendor_id)

    [found] = await listed(lnbits, http, NOON)

    [told] = lnbits.parse(incoming(vendor.outbox[0].body))
    assert (found.dedup_key, found.digest, found.vendor_id) == (told.dedup_key, told.digest, told.vendor_id)
    assert (found.type, found.recognised, found.reference) == ("success", True, "consultation-4711")
    assert found.facts == {"attempt_id": "att_5f2c"}


async def test_a_list_goes_back_page_by_page_to_what_was_asked_for(lnbits: LNbits) -> None:
    clock = ManualClock(NOON)
    vendor = LNbitsSimulator(invoice_key=KEY, clock=clock)
    http = connection(lnbits, InProcess(vendor))
    for _ in range(251):
        offer = await lnbits.create(http, offer_request(Money.from_sat(2100)))
        vendor.pay(offer.vendor_id)
        await clock.advance(60)

    everything = await listed(lnbits, http, NOON)
    the_last_hour = await listed(lnbits, http, clock.now() - timedelta(hours=1))

    assert len({delivery.dedup_key for delivery in everything}) == 251
    assert len(the_last_hour) == 60


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (PAYMENT | {"status": "success"}, 1),
        (PAYMENT | {"status": "success", "bolt11": "", "expiry": None, "fiat": Decimal("1.5")}, 1),
        (PAYMENT | {"status": "success", "external_id": None}, 0),
        (PAYMENT | {"status": "success", "amount": -2_100_000}, 0),
        (PAYMENT | {"status": "success", "updated_at": "2026-03-02T11:59:59+00:00"}, 0),
        ({"status": "success"}, 0),
        ("no payment", 0),
    ],
    ids=["ours", "half told", "somebody else's", "paid out", "too old", "unreadable", "nonsense"],
)
async def test_a_list_may_hold_anything(lnbits: LNbits, row: JsonOut, count: int) -> None:
    found = await listed(lnbits, connection(lnbits, canned([row])), NOON)

    assert len(found) == count
