"""Paystack: one transaction per attempt, a page only its first answer tells, events signed with the API key."""

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from holdfast import Payer
from holdfast.clock import SystemClock
from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    CredentialRefused,
    InvalidInput,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport, Transport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.outcome import Effect
from holdfast.payments.models import Anomaly, Attempt, AttemptState, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    DisputeStatus,
    LineKind,
    Lookup,
    OfferRequest,
    PaymentProvider,
    RefundRequest,
    SupportsDisputes,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    SupportsStatements,
    WebhookTrust,
)
from holdfast.providers.paystack import Paystack
from holdfast.queue.reconciliation import SupportsListing
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Dns, Fault, Html, Latency, Reset, Stage, Status, Truncate
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.paystack import LIVE_RETRIES, PaystackSimulator
from holdfast.testing.simulators.simulator import Reply
from holdfast.values import Money, Secrets
from tests.providers.connection import NOON, Unguarded, canned, connection, incoming, offer_request
from tests.providers.till import DOOR, Till

SPEC = Path(__file__).resolve().parents[3] / "shared/specs/payments/paystack/openapi.yaml"
KEY = "sk_test_7e1f0c64c1d3a5b0f1c2d3e4f5061728394a5b6c"
ATTEMPT = "6d0c1f0a6d1e5c39ad551f2f6b9d6a01"
DUE = Money("120.00", "GHS")
PAYER = Payer(email="ama@example.org")

TRANSACTION: dict[str, JsonOut] = {
    "id": 4099260516,
    "domain": "test",
    "status": "success",
    "reference": ATTEMPT,
    "amount": 12000,
    "requested_amount": 12000,
    "gateway_response": "Successful",
    "currency": "GHS",
    "fees": 234,
    "metadata": {"reference": "consultation-4711"},
    "customer": {"email": "ama@example.org"},
}


def paystack(**changes: object) -> Paystack:
    facts: dict[str, object] = {"api_key": Secrets(KEY), "base_url": "http://127.0.0.1"}
    return Paystack(**facts | changes)  # type: ignore[arg-type]  # its own fields


def wanted(price: Money = DUE, **changes: object) -> OfferRequest:
    return offer_request(price, **{"attempt_id": ATTEMPT, "payer": PAYER} | changes)


def verified(**changes: JsonOut) -> dict[str, JsonOut]:
    return {"status": True, "message": "Verification successful", "data": TRANSACTION | changes}


def attempt(id: str = ATTEMPT) -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="paystack",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON + timedelta(minutes=15),
        vendor_id=id,
    )


def refund_request(money: Money = DUE, key: str = "key-1") -> RefundRequest:
    return RefundRequest(
        reference="consultation-4711", attempt_id=ATTEMPT, vendor_id=ATTEMPT, key=key, money=money, reason="ill"
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> PaystackSimulator:
    return PaystackSimulator(clock=clock, api_key=KEY, webhook_url=f"{DOOR}/paystack")


@pytest.fixture
def http(vendor: PaystackSimulator) -> Http:
    return connection(paystack(), InProcess(vendor))


@pytest.fixture
async def till(vendor: PaystackSimulator, clock: ManualClock) -> AsyncGenerator[Till]:
    async with Till(vendor, paystack(), clock=clock) as till:
        yield till


# Facts


def test_what_it_can_do_is_what_it_has() -> None:
    provider: PaymentProvider = paystack()
    for can in (SupportsLookup, SupportsRefunds, SupportsRefundLookup, SupportsDisputes, SupportsStatements):
        assert isinstance(provider, can)
    assert isinstance(provider, SupportsListing)
    assert not isinstance(provider, SupportsRevoking)
    able = provider.capabilities
    assert (able.create_effect, able.refund_effect, able.lookup) == (Effect.KEYED, Effect.ONCE, Lookup.AUTHORITATIVE)
    assert (able.payer, able.payer_visible, able.webhook_trust) == (True, False, WebhookTrust.SIGNED_BODY)


def test_with_an_address_of_ours_no_payer_has_to_be_named() -> None:
    assert paystack(email="shop@example.org").capabilities.payer is False


def test_an_account_may_take_fewer_currencies_and_others_need_their_units() -> None:
    assert paystack(currencies=frozenset({"GHS"})).capabilities.currencies == frozenset({"GHS"})
    with pytest.raises(ConfigurationError, match="subunits= lacks RWF"):
        paystack(currencies=frozenset({"RWF", "GHS"}))


@pytest.mark.parametrize(
    ("key", "base_url", "live"),
    [
        ("sk_live_1", "https://api.paystack.co", True),
        ("sk_test_1", "https://api.paystack.co", False),
        ("sk_live_1", "http://127.0.0.1", False),
    ],
)
def test_money_is_real_with_a_live_key(key: str, base_url: str, live: bool) -> None:
    assert paystack(api_key=Secrets(key), base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYSTACK_SECRET_KEY", "sk_test_new-to-hide,sk_test_old-to-hide")
    monkeypatch.setenv("PAYSTACK_CURRENCIES", "GHS, XOF")
    monkeypatch.setenv("PAYSTACK_EMAIL", "shop@example.org")

    made = Paystack.from_env()

    assert made.headers() == {"authorization": "Bearer sk_test_new-to-hide"}
    assert (made.currencies, made.email) == (frozenset({"GHS", "XOF"}), "shop@example.org")
    assert len(made.webhook_secrets) == 2
    assert "to-hide" not in repr(made)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAYSTACK_SECRET_KEY", raising=False)
    with pytest.raises(MissingCredential, match="PAYSTACK_SECRET_KEY"):
        Paystack.from_env()


# What is sent


async def sent(price: Money = DUE, **changes: object) -> dict[str, Any]:
    answer = canned({"status": True, "data": {"authorization_url": "https://pay.example/a", "reference": ATTEMPT}})
    await paystack().create(connection(paystack(), answer), wanted(price, **changes))
    found: dict[str, Any] = json.loads(answer.requests[0].content)
    return found


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    answer = canned({"status": True, "data": {"authorization_url": "https://pay.example/a", "reference": ATTEMPT}})
    request = wanted(return_url="https://shop.example/thanks", metadata={"room": "7"})
    await paystack().create(connection(paystack(), answer), request)

    [asked] = answer.requests
    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/transaction/initialize")
    assert ("authorization", f"Bearer {KEY}") in asked.headers
    assert asked.content == (
        b'{"email":"ama@example.org","amount":12000,"currency":"GHS","reference":"6d0c1f0a6d1e5c39ad551f2f6b9d6a01",'
        b'"metadata":{"room":"7","reference":"consultation-4711"},"callback_url":"https://shop.example/thanks"}'
    )


@pytest.mark.parametrize(
    ("price", "units"),
    [
        (Money("120.00", "GHS"), 12000),
        (Money("0.01", "NGN"), 1),
        (Money("1.10", "ZAR"), 110),
        (Money("99.99", "KES"), 9999),
        (Money("5.00", "USD"), 500),
        (Money(5000, "XOF"), 500_000),
    ],
    ids=str,
)
async def test_an_amount_is_in_their_units_and_comes_back_the_same(price: Money, units: int) -> None:
    assert (await sent(price))["amount"] == units

    told = canned(verified(amount=units, requested_amount=units, currency=price.currency))
    assert (await paystack().fetch(connection(paystack(), told), ATTEMPT)).price == price


@pytest.mark.parametrize("price", [Money("1.000", "KWD"), Money(100, "JPY"), Money("1.00", "CHF")], ids=str)
async def test_a_currency_without_units_is_refused_before_anything_is_sent(price: Money) -> None:
    answer = canned({})
    with pytest.raises(InvalidMoney, match="no whole units"):
        await paystack().create(connection(paystack(), answer), wanted(price))
    assert not answer.requests


async def test_units_can_be_said_otherwise_and_a_fraction_of_one_is_refused() -> None:
    plain = paystack(currencies=frozenset({"XOF", "GHS"}), subunits={"XOF": 1, "GHS": 10})
    answer = canned({"status": True, "data": {"authorization_url": "https://pay.example/a", "reference": ATTEMPT}})
    http = connection(plain, answer)

    await plain.create(http, wanted(Money(5000, "XOF")))
    with pytest.raises(InvalidMoney):
        await plain.create(http, wanted(Money("1.05", "GHS")))

    assert [json.loads(asked.content)["amount"] for asked in answer.requests] == [5000]


@pytest.mark.parametrize("payer", [None, Payer(), Payer(msisdn="233200000000")])
async def test_without_an_address_nothing_is_sent(payer: Payer | None) -> None:
    answer = canned({})
    with pytest.raises(InvalidInput, match="e-mail"):
        await paystack().create(connection(paystack(), answer), wanted(payer=payer))
    assert not answer.requests


async def test_an_address_of_ours_stands_in_for_the_payers() -> None:
    ours = paystack(email="shop@example.org")
    answer = canned({"status": True, "data": {"authorization_url": "https://pay.example/a", "reference": ATTEMPT}})
    await ours.create(connection(ours, answer), wanted(payer=None))
    assert json.loads(answer.requests[0].content)["email"] == "shop@example.org"


async def test_a_page_of_another_reference_is_a_mismatch() -> None:
    answer = canned({"status": True, "data": {"authorization_url": "https://pay.example/a", "reference": "other"}})
    with pytest.raises(Mismatch):
        await paystack().create(connection(paystack(), answer), wanted())


# What is answered


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("success", PaymentStatus.PAID),
        ("abandoned", PaymentStatus.PENDING),
        ("ongoing", PaymentStatus.PENDING),
        ("pending", PaymentStatus.PENDING),
        ("processing", PaymentStatus.PENDING),
        ("queued", PaymentStatus.PENDING),
        ("failed", PaymentStatus.FAILED),
        ("reversed", PaymentStatus.PAID),
        ("invented", PaymentStatus.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_table_says(theirs: str, ours: PaymentStatus) -> None:
    snapshot = await paystack().fetch(connection(paystack(), canned(verified(status=theirs))), ATTEMPT)

    assert (snapshot.status, snapshot.price, snapshot.attempt_id) == (ours, DUE, ATTEMPT)
    assert snapshot.received == (DUE if ours is PaymentStatus.PAID else None)
    assert snapshot.refunded == (DUE if theirs == "reversed" else None)
    assert snapshot.fee == Money("2.34", "GHS")


@pytest.mark.parametrize(("domain", "live"), [("live", True), ("test", False), ("", None), ("else", None)])
async def test_whether_money_is_real_the_transaction_says(domain: str, live: bool | None) -> None:
    snapshot = await paystack().fetch(connection(paystack(), canned(verified(domain=domain))), ATTEMPT)
    assert snapshot.live is live


@pytest.mark.parametrize(
    "metadata", ["", "0", 0, None, '{"reference":"consultation-4711"}', {"custom_fields": []}, [], "{"]
)
async def test_metadata_may_come_back_as_anything(metadata: JsonOut) -> None:
    snapshot = await paystack().fetch(connection(paystack(), canned(verified(metadata=metadata))), ATTEMPT)
    assert snapshot.price == DUE


async def test_what_was_asked_and_what_came_are_told_apart() -> None:
    answer = canned(verified(amount=12300, requested_amount=12000))
    snapshot = await paystack().fetch(connection(paystack(), answer), ATTEMPT)
    assert (snapshot.price, snapshot.received) == (DUE, Money("123.00", "GHS"))


async def test_a_fee_in_fractions_of_a_franc_is_not_told() -> None:
    answer = canned(verified(amount=500_000, requested_amount=500_000, currency="XOF", fees=9750))
    snapshot = await paystack().fetch(connection(paystack(), answer), ATTEMPT)
    assert (snapshot.received, snapshot.fee) == (Money(5000, "XOF"), None)


@pytest.mark.parametrize(
    "changes",
    [{"amount": 500_050, "currency": "XOF"}, {"currency": "CHF"}, {"currency": "COINS"}, {"reference": "other"}],
)
async def test_what_is_not_ours_or_cannot_be_read_is_a_mismatch(changes: dict[str, JsonOut]) -> None:
    with pytest.raises(Mismatch):
        await paystack().fetch(connection(paystack(), canned(verified(**changes))), ATTEMPT)


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (401, {"status": False, "message": "Invalid key"}, CredentialRefused),
        (400, {"status": False, "message": "Invalid Amount Sent", "code": "invalid_amount"}, Rejected),
        (403, {"status": False, "message": "Currency not supported by merchant"}, Rejected),
        (429, {"message": "Too many requests"}, Throttled),
        (500, {"status": False, "message": "An error occurred"}, OutcomeUnknown),
        (200, {"status": False, "message": "no data"}, OutcomeUnknown),
    ],
)
async def test_an_error_means_what_the_table_says(status: int, answer: JsonOut, error: type[CallFailed]) -> None:
    with pytest.raises(error) as caught:
        await paystack().create(connection(paystack(), canned(answer, status)), wanted())
    assert type(caught.value) is error
    assert KEY not in str(caught.value)


# It exists already


@pytest.mark.parametrize("said", [{"code": "duplicate_reference"}, {}])
async def test_a_duplicate_reference_is_looked_at_and_is_never_as_if_nothing_had_happened(
    said: dict[str, JsonOut],
) -> None:
    # given: the same answer to everything, so that looking fails as well
    refusal: dict[str, JsonOut] = {"status": False, "message": "Duplicate Transaction Reference"}
    answer = canned(refusal | said, 400)
    http = connection(paystack(), answer)

    # when
    with pytest.raises(OutcomeUnknown) as caught:
        await paystack().create(http, wanted())

    # then
    assert caught.value.reason == "exists"
    assert [asked.method for asked in answer.requests] == ["POST", "GET"]


async def test_a_duplicate_that_was_paid_is_the_payment(http: Http, vendor: PaystackSimulator) -> None:
    await paystack().create(http, wanted())
    vendor.pay(ATTEMPT)
    assert (await paystack().create(http, wanted())).status is PaymentStatus.PAID


async def test_a_transaction_whose_page_was_lost_is_over(http: Http, vendor: PaystackSimulator) -> None:
    # given
    assert await paystack().find(http, attempt()) is None
    await paystack().create(http, wanted())

    # when
    found = await paystack().find(http, attempt())

    # then
    assert found is not None
    assert (found.status, found.reason) == (PaymentStatus.EXPIRED, "page_lost")
    assert (await paystack().fetch(http, ATTEMPT)).status is PaymentStatus.PENDING


async def test_one_that_was_paid_all_the_same_is_found_paid(http: Http, vendor: PaystackSimulator) -> None:
    await paystack().create(http, wanted())
    vendor.pay(ATTEMPT)
    found = await paystack().find(http, attempt())
    assert found is not None
    assert (found.status, found.received) == (PaymentStatus.PAID, DUE)


# Webhooks


def event(name: str = "charge.success", **changes: JsonOut) -> bytes:
    return encode_json({"event": name, "data": TRANSACTION | changes})


def signed(body: bytes, key: str = KEY) -> tuple[str, str]:
    return ("x-paystack-signature", hmac.new(key.encode(), body, hashlib.sha512).hexdigest())


def test_a_signature_is_the_hmac_sha512_of_the_raw_body_with_the_api_key() -> None:
    # given: RFC 4231, test case 2
    body, key = b"what do ya want for nothing?", "Jefe"
    mac = (
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd"
        "caeab1a34d4a6b4b636e070a38bce737"
    )
    ours = paystack(api_key=Secrets(key))

    assert ours.scheme.verify(incoming(body, ("x-paystack-signature", mac)), ours.webhook_secrets).valid
    assert not ours.scheme.verify(incoming(body + b" ", ("x-paystack-signature", mac)), ours.webhook_secrets).valid


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (event(), [], "missing_header"),
        (event(), [("x-paystack-signature", "zz")], "malformed_header"),
        (event(), [signed(event(), "sk_test_other")], "wrong_signature"),
        (json.dumps(json.loads(event()), indent=1).encode(), [signed(event())], "wrong_signature"),
        (event(amount=1), [signed(event())], "wrong_signature"),
    ],
    ids=["missing", "malformed", "forged", "re-serialised", "changed"],
)
def test_what_is_not_signed_is_not_believed(body: bytes, headers: list[tuple[str, str]], reason: str) -> None:
    verdict = paystack().scheme.verify(incoming(body, *headers), paystack().webhook_secrets)
    assert (verdict.valid, verdict.reason) == (False, reason)


def test_a_key_that_was_replaced_still_verifies() -> None:
    ours = paystack(api_key=Secrets("sk_test_new", KEY))
    assert ours.scheme.verify(incoming(event(), signed(event())), ours.webhook_secrets).secret == 1


def test_an_event_is_a_hint_of_what_it_is_about() -> None:
    [told] = paystack().parse(incoming(event()))
    assert (told.type, told.vendor_id, told.reference) == ("charge.success", ATTEMPT, "consultation-4711")
    assert told.dedup_key == "charge.success:4099260516:success"
    assert (told.recognised, told.facts) == (True, {"attempt_id": ATTEMPT})


@pytest.mark.parametrize(
    ("name", "data", "key"),
    [
        ("refund.processed", {"id": 7, "status": "processed", "transaction_reference": ATTEMPT}, "7:processed"),
        (
            "refund.processed",
            {"status": "processed", "transaction_reference": ATTEMPT, "refund_reference": "TRF_1"},
            "TRF_1:processed",
        ),
        ("charge.dispute.create", {"id": 8, "status": "pending", "transaction": {"reference": ATTEMPT}}, "8:pending"),
        ("charge.dispute.create", {"id": 8, "transaction": 4, "reference": ATTEMPT}, "8:"),
    ],
)
def test_refunds_and_disputes_name_the_transaction(name: str, data: dict[str, JsonOut], key: str) -> None:
    [told] = paystack().parse(incoming(encode_json({"event": name, "data": data})))
    assert (told.vendor_id, told.dedup_key, told.recognised) == (ATTEMPT, f"{name}:{key}", True)


def test_what_we_do_not_know_is_kept() -> None:
    [told] = paystack().parse(incoming(encode_json({"event": "transfer.success", "data": {"reference": "t-1"}})))
    assert (told.recognised, told.vendor_id, told.facts) == (False, "t-1", None)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b'{"event":"x"}', b'{"event":1,"data":{}}', b"\xff"])
def test_a_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        paystack().parse(incoming(body))


async def test_what_was_paid_is_listed_as_its_webhook_tells_it(http: Http, vendor: PaystackSimulator) -> None:
    await paystack().create(http, wanted())
    await paystack().create(http, wanted(attempt_id=ATTEMPT[:-1] + "2"))
    vendor.pay(ATTEMPT)

    [found] = [one async for one in paystack().list_deliveries(http, NOON - timedelta(hours=1))]
    [told] = paystack().parse(incoming(vendor.outbox[0].body))

    assert (found.dedup_key, found.digest, found.vendor_id) == (told.dedup_key, told.digest, told.vendor_id)
    assert (found.facts, found.reference) == (told.facts, told.reference)


@pytest.mark.parametrize("row", ["nonsense", {}, TRANSACTION | {"reference": "somebody-elses"}])
async def test_a_list_may_hold_anything(row: JsonOut) -> None:
    listed: JsonOut = {"status": True, "data": [row]}
    http = connection(paystack(), canned(listed))
    assert [one async for one in paystack().list_deliveries(http, NOON)] == []


# Refunds, disputes, statements


async def paid(http: Http, vendor: PaystackSimulator) -> None:
    await paystack().create(http, wanted())
    vendor.pay(ATTEMPT)


async def test_a_refund_is_asked_for_and_arrives_later(http: Http, vendor: PaystackSimulator) -> None:
    await paid(http, vendor)
    half = Money("60.00", "GHS")

    made = await paystack().refund(http, refund_request(half))
    vendor.process_refund(int(made.vendor_id))
    done = await paystack().fetch_refund(http, refund_request(half), made.vendor_id)

    assert (made.status, made.money, made.key) == (RefundStatus.PENDING, half, "key-1")
    assert done.status is RefundStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pending", RefundStatus.PENDING),
        ("processing", RefundStatus.PENDING),
        ("processed", RefundStatus.SUCCEEDED),
        ("failed", RefundStatus.FAILED),
        ("needs-attention", RefundStatus.MANUAL_REQUIRED),
        ("invented", RefundStatus.UNKNOWN),
    ],
)
async def test_a_refunds_status_means_what_the_table_says(theirs: str, ours: RefundStatus) -> None:
    data: dict[str, JsonOut] = {"id": 7, "status": theirs, "amount": 12000, "currency": "GHS"}
    http = connection(paystack(), canned({"status": True, "data": data}))
    assert (await paystack().fetch_refund(http, refund_request(), "7")).status is ours


async def test_a_refund_of_other_money_is_a_mismatch() -> None:
    data: dict[str, JsonOut] = {"id": 7, "status": "pending", "amount": 1, "currency": "GHS"}
    with pytest.raises(Mismatch):
        await paystack().refund(connection(paystack(), canned({"status": True, "data": data})), refund_request())


async def test_a_refund_whose_answer_was_lost_is_found_by_its_note(http: Http, vendor: PaystackSimulator) -> None:
    await paid(http, vendor)
    for number in range(101):
        await paystack().refund(http, refund_request(Money("0.01", "GHS"), f"other-{number}"))
    assert await paystack().find_refund(http, refund_request(Money("1.00", "GHS"))) is None
    vendor.faults.on("paystack", "refunds.create").always(Reset())
    with pytest.raises(OutcomeUnknown):
        await paystack().refund(http, refund_request(Money("1.00", "GHS")))

    found = await paystack().find_refund(http, refund_request(Money("1.00", "GHS")))
    first = await paystack().find_refund(http, refund_request(Money("0.01", "GHS"), "other-0"))

    assert found is not None
    assert found.money == Money("1.00", "GHS")
    assert first is not None


@pytest.mark.parametrize(("won", "status"), [(True, DisputeStatus.WON), (False, DisputeStatus.LOST)])
async def test_disputes_are_told_and_how_they_end(
    http: Http, vendor: PaystackSimulator, won: bool, status: DisputeStatus
) -> None:
    await paid(http, vendor)
    assert await paystack().disputes(http, attempt()) == []
    number = vendor.dispute(ATTEMPT)

    [opened] = await paystack().disputes(http, attempt())
    vendor.resolve_dispute(number, won=won)
    [closed] = await paystack().disputes(http, attempt())

    assert (opened.status, opened.money) == (DisputeStatus.OPEN, DUE)
    assert closed.status is status


async def test_a_statement_has_what_came_and_what_went_back(
    http: Http, vendor: PaystackSimulator, clock: ManualClock
) -> None:
    await paid(http, vendor)
    await paystack().refund(http, refund_request(Money("20.00", "GHS")))

    hour = timedelta(hours=1)
    lines = [line async for line in paystack().statement(http, NOON - hour, NOON + hour)]
    later = [line async for line in paystack().statement(http, NOON + hour, NOON + 2 * hour)]

    assert [(line.kind, line.money, line.attempt_id) for line in lines] == [
        (LineKind.PAYMENT, DUE, ATTEMPT),
        (LineKind.REFUND, Money("20.00", "GHS"), ATTEMPT),
    ]
    assert (lines[0].fee, lines[0].reference) == (Money("1.80", "GHS"), "consultation-4711")
    assert later == []


# The whole way, through `Payments`


async def test_a_page_is_paid_told_and_paid_once(till: Till, vendor: PaystackSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE, payer=PAYER)
    assert payment.offer is not None
    assert payment.offer.checkout_url is not None

    # when
    vendor.pay(payment.offer.checkout_url)
    statuses = [one.status for one in await till.deliver()]
    await till.settle()

    # then
    assert statuses == [200]
    assert [one.reference for one in till.paid] == ["order-1"]
    vendor.ledger.exactly_once(charge(reference="order-1", amount=DUE))
    vendor.ledger.no_orphans()


async def test_without_any_webhook_the_sweep_notices_it(clock: ManualClock) -> None:
    vendor = PaystackSimulator(clock=clock, api_key=KEY)
    async with Till(vendor, paystack(), clock=clock, webhooks=False) as till:
        payment = await till.create("order-1", Money(5000, "XOF"), payer=PAYER)
        assert payment.offer is not None
        vendor.pay(payment.offer.payload)
        await clock.advance(31)
        await till.settle()

    assert [one.due for one in till.paid] == [Money(5000, "XOF")]


@pytest.mark.parametrize(
    "fault",
    [
        Dns(),
        Status(500),
        Status(503, stage=Stage.AFTER_EFFECT),
        Reset(),
        Truncate(),
        Html(),
        BadJson(),
        Status(429, retry_after=1),
        Latency(1, 2),
    ],
    ids=lambda one: f"{one.name}-{one.stage}",
)
async def test_whatever_goes_wrong_once_there_is_one_page_that_can_be_paid(
    till: Till, vendor: PaystackSimulator, fault: Fault
) -> None:
    # given
    vendor.faults.on("paystack", "payments.create").script(fault)

    # when
    payment = await till.create("order-1", DUE, payer=PAYER)

    # then
    assert payment.status is PaymentStatus.PENDING
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.deliver()
    await till.settle()
    assert len(till.paid) == 1
    vendor.ledger.exactly_once(charge(reference="order-1"))
    assert len(vendor.ledger.entries(key="order-1")) <= 3


async def test_after_a_lost_answer_the_lost_page_is_left_and_another_is_made(
    till: Till, vendor: PaystackSimulator
) -> None:
    vendor.faults.on("paystack", "payments.create").script(Reset())

    payment = await till.create("order-1", DUE, payer=PAYER)

    assert payment.route == ("paystack:closed", "paystack:offered")
    assert len(vendor.ledger.at_least_one(offer(reference="order-1"))) == 2


async def test_a_lost_refund_is_one_refund(till: Till, vendor: PaystackSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE, payer=PAYER)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    vendor.faults.on("paystack", "refunds.create").script(Reset())

    # when
    with pytest.raises(OutcomeUnknown):
        await till.refund("order-1", Money("20.00", "GHS"), key="r1", reason="ill")
    await till.clock.advance(120)
    await till.refresh("order-1")
    [waiting] = await till.payments.refunds("order-1")
    [number] = vendor.refunds
    vendor.process_refund(number)
    await till.deliver()
    await till.settle()

    # then
    [done] = await till.payments.refunds("order-1")
    assert (waiting.status, done.status) == (RefundStatus.PENDING, RefundStatus.SUCCEEDED)
    vendor.ledger.exactly_once(refund(reference="order-1", amount=Money("20.00", "GHS")))


async def test_a_declined_card_may_be_followed_by_one_that_is_not(till: Till, vendor: PaystackSimulator) -> None:
    payment = await till.create("order-1", DUE, payer=PAYER)
    assert payment.offer is not None
    vendor.decline(payment.offer.payload)
    assert (await till.refresh("order-1")).status is PaymentStatus.FAILED

    vendor.pay(payment.offer.payload)
    await till.deliver()
    await till.settle()

    assert (await till.payments.get("order-1")).status is PaymentStatus.PAID


class Noting:
    """Keeps what was asked and answered."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.exchanges: list[tuple[HttpRequest, HttpResponse]] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        response = await self._inner.send(request)
        self.exchanges.append((request, response))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Lasting(MemoryStore):
    """One that says it outlives the process, as a live credential wants it."""

    durable = True


async def test_test_money_is_flagged_where_money_should_be_real(clock: ManualClock) -> None:
    # given: a live key, and a transaction of the test domain
    vendor = PaystackSimulator(clock=clock, api_key="sk_live_1", webhook_url=f"{DOOR}/paystack")
    ours = paystack(api_key=Secrets("sk_live_1"), base_url="https://api.paystack.co")
    async with Till(vendor, ours, clock=clock, store=Lasting(clock=clock)) as till:
        payment = await till.create("order-1", DUE, payer=PAYER)
        assert payment.offer is not None
        [transaction] = vendor.transactions.values()
        transaction["domain"] = "test"

        # when
        vendor.pay(payment.offer.payload)
        await till.deliver()
        await till.settle()

        # then
        assert Anomaly.TEST_MODE in (await till.payments.get("order-1")).anomalies
        assert not till.paid


async def test_a_lie_in_a_signed_body_changes_nothing(till: Till, vendor: PaystackSimulator) -> None:
    payment = await till.create("order-1", DUE, payer=PAYER)
    body = event(reference=payment.attempts[0].vendor_id)
    assert await till.post(f"{DOOR}/paystack", [signed(body)], body) == 200
    assert await till.post(f"{DOOR}/paystack", [signed(body, "sk_test_other")], body) == 401
    await till.settle()
    assert (await till.payments.get("order-1")).status is PaymentStatus.PENDING


async def test_no_secret_is_in_any_signal_or_error(
    till: Till, vendor: PaystackSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    vendor.webhook_secret = "sk_test_another"
    with pytest.raises(CallFailed) as caught:
        await till.create("order-1", DUE, payer=PAYER)
    told = f"{caught.value} {till.signals} {caplog.text} {paystack()}"
    assert KEY not in told
    assert "ama@example.org" not in told


async def test_it_works_over_real_sockets() -> None:
    vendor = PaystackSimulator(api_key=KEY)
    async with Edge(vendor) as edge:
        provider = paystack(base_url=edge.url)
        http = Http(provider, HttpxTransport(), Unguarded(), SystemClock())  # type: ignore[arg-type]  # no guard
        made = await provider.create(http, wanted())
        assert made.offer is not None
        vendor.pay(made.offer.payload)
        found = await provider.fetch(http, made.vendor_id)
        await http.aclose()

    assert (found.status, found.received) == (PaymentStatus.PAID, DUE)


# The simulator


@pytest.mark.skipif(not SPEC.exists(), reason="the published description is not on this machine")
async def test_what_is_asked_and_what_the_simulator_answers_is_as_published(vendor: PaystackSimulator) -> None:
    # given
    document = yaml.safe_load(SPEC.read_text())
    answering = Noting(InProcess(vendor))
    http = connection(paystack(), answering)

    # when
    await paystack().create(http, wanted(return_url="https://shop.example/thanks"))
    vendor.pay(ATTEMPT)
    await paystack().fetch(http, ATTEMPT)
    made = await paystack().refund(http, refund_request())
    await paystack().fetch_refund(http, refund_request(), made.vendor_id)

    # then
    paths = ["/transaction/initialize", "/transaction/verify/{reference}", "/refund", "/refund/{id}"]
    for path, (request, response) in zip(paths, answering.exchanges, strict=True):
        described = document["paths"][path][request.method.lower()]
        if request.content:
            schema = content(described["requestBody"], document)
            Draft202012Validator(schema | {"components": document["components"]}).validate(json.loads(request.content))
            assert set(json.loads(request.content)) <= properties(schema, document)
        told = content(described["responses"]["200"], document)["properties"]["data"]
        assert properties(told, document) <= set(json.loads(response.content)["data"])


def content(described: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = resolved(described, document)["content"]["application/json"]["schema"]
    return resolved(found, document)


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def properties(schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """The names of what an object schema has, those of its parts included."""
    schema = resolved(schema, document)
    parts = (properties(part, document) for part in schema.get("allOf", []))
    return set(schema.get("properties", {})).union(*parts)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"currency": "XAF"}, 403, "Currency not supported"),
        ({"amount": "12.5"}, 400, "Invalid Amount"),
        ({"reference": "a b"}, 400, "invalid character"),
        ({"email": "nobody"}, 400, "Invalid Email"),
    ],
)
async def test_the_simulator_refuses_in_the_vendors_words(
    http: Http, changes: dict[str, JsonOut], status: int, words: str
) -> None:
    body: dict[str, JsonOut] = {"email": "a@b.ch", "amount": 100, "currency": "GHS", "reference": "r"}
    with pytest.raises(Rejected, match=words) as caught:
        await http.post("/transaction/initialize", None, operation="create", effect=Effect.ONCE, json=body | changes)
    assert caught.value.status == status


def test_the_simulator_tries_again_as_the_vendor_does(clock: ManualClock) -> None:
    live = PaystackSimulator(clock=clock, api_key="sk_live_1")
    test = PaystackSimulator(clock=clock, api_key=KEY)
    failed = Reply(status=500)
    assert [live.retry_after(number, failed) for number in (1, 4, 5, len(LIVE_RETRIES) + 1)] == [180, 180, 3600, None]
    assert [test.retry_after(number, failed) for number in (1, 72, 73)] == [3600, 3600, None]
