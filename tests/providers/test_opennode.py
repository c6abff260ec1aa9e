"""OpenNode: amounts exact, webhooks believed in nothing, nobody written to unasked."""

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    InvalidInput,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.transports import HttpxTransport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.iso4217 import EXPONENTS
from holdfast.payments.models import Anomaly, AttemptState, Payer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    LineKind,
    Lookup,
    PaymentProvider,
    Refunding,
    SupportsLookup,
    SupportsQuotes,
    SupportsRefunds,
    SupportsRevoking,
    SupportsStatements,
    WebhookTrust,
)
from holdfast.providers import OpenNode
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Html, Reset, Status, Truncate
from holdfast.testing.faults import Refused as NoConnection
from holdfast.testing.intents import charge
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.opennode import OpenNodeSimulator
from holdfast.testing.simulators.webhooks import Mischief
from holdfast.values import Money, Secrets
from tests.providers.connection import NOON, Canned, canned, connection, incoming, offer_request
from tests.providers.shop import Shop

S = PaymentStatus
KEY = "a-key-to-hide-from-everybody"
ID = "ba57e419-a6c9-41b2-a54c-b870d073d899"
DUE = Money("120.00", "CHF")

CHARGE: dict[str, JsonOut] = {
    "id": ID,
    "description": "Consultation",
    "created_at": int(NOON.timestamp()),
    "status": "unpaid",
    "amount": 150_000,
    "missing_amt": 150_000,
    "order_id": "consultation-4711",
    "currency": "CHF",
    "source_fiat_value": 120,
    "fiat_value": Decimal("131.42"),
    "hosted_checkout_url": f"https://checkout.opennode.com/{ID}",
    "address": "bc1qexample",
    "metadata": {"holdfast_attempt": "att_5f2c"},
    "chain_invoice": {"address": "bc1qexample", "settled_at": None},
    "lightning_invoice": {"expires_at": int((NOON + timedelta(minutes=15)).timestamp()), "payreq": "lnbc1example"},
    "ttl": 15,
}


def provider(**changes: Any) -> OpenNode:
    facts: dict[str, Any] = {"api_key": Secrets(KEY)}
    return OpenNode(**(facts | changes))


@pytest.fixture
def opennode() -> OpenNode:
    return provider()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> OpenNodeSimulator:
    return OpenNodeSimulator(api_key=KEY, clock=clock)


@pytest.fixture
async def shop(vendor: OpenNodeSimulator, clock: ManualClock) -> AsyncIterator[Shop]:
    async with Shop(provider(base_url="http://127.0.0.1:1/v1"), vendor, clock) as shop:
        yield shop


def form(key: str = KEY, **changes: str) -> bytes:
    fields = {"id": ID, "status": "paid", "order_id": "consultation-4711", "price": "150000", "auto_settle": "0"}
    fields["hashed_order"] = hmac.new(key.encode(), ID.encode(), hashlib.sha256).hexdigest()
    return urlencode(fields | changes).encode()


# Facts


def test_what_it_can_do_is_what_it_has(opennode: OpenNode) -> None:
    payments: PaymentProvider = opennode

    assert isinstance(payments, SupportsQuotes)
    assert isinstance(payments, SupportsStatements)
    assert isinstance(payments, SupportsListing)
    for absent in (SupportsLookup, SupportsRefunds, SupportsRevoking):
        assert not isinstance(payments, absent)
    able = payments.capabilities
    assert (able.lookup, able.revocable, able.refunding) == (Lookup.NONE, False, Refunding.NONE)
    assert (able.webhook_trust, opennode.scheme) == (WebhookTrust.KEYED_URL, None)


@pytest.mark.parametrize(
    ("base_url", "live"),
    [
        (OpenNode.base_url, True),
        ("https://dev-api.opennode.com/v1", False),
        ("https://dev-api.opennode.com.example/v1", True),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_it_is_live_everywhere_but_on_this_machine_and_the_test_network(base_url: str, live: bool) -> None:
    assert provider(base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENNODE_API_KEY", "new-to-hide,old-to-hide")
    monkeypatch.setenv("OPENNODE_URL", "https://dev-api.opennode.com/v1")

    opennode = OpenNode.from_env()

    assert opennode.headers() == {"authorization": "new-to-hide"}
    assert opennode.base_url == "https://dev-api.opennode.com/v1"
    assert "to-hide" not in repr(opennode)


def test_a_missing_credential_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENNODE_API_KEY", raising=False)
    with pytest.raises(MissingCredential, match="OPENNODE_API_KEY"):
        OpenNode.from_env()


# Creating


async def test_the_request_on_the_wire_is_exactly_this(opennode: OpenNode) -> None:
    answering = canned({"data": CHARGE}, status=201)
    asked = offer_request(Money("21.50", "CHF"), return_url="https://shop.ch/done", metadata={"seat": "7"})

    await opennode.create(connection(opennode, answering), asked)

    [request] = answering.requests
    assert (request.method, request.url) == ("POST", "https://api.opennode.com/v1/charges")
    assert dict(request.headers)["authorization"] == KEY
    assert request.content == (
        b'{"amount":21.50,"currency":"CHF","description":"Consultation","order_id":"consultation-4711","ttl":15,'
        b'"auto_settle":false,"metadata":{"seat":"7","holdfast_attempt":"att_5f2c"},'
        b'"callback_url":"https://api.example.ch/webhooks/vendor","success_url":"https://shop.ch/done"}'
    )


@pytest.mark.parametrize(
    ("wanted", "payer", "told"),
    [
        (False, Payer(email="ada@example.org"), None),
        (True, Payer(email="ada@example.org"), "ada@example.org"),
        (True, Payer(msisdn="41791234567"), None),
        (True, None, None),
    ],
)
async def test_notif_email_is_sent_only_when_the_caller_wants_a_receipt_to_go_out(
    wanted: bool, payer: Payer | None, told: str | None
) -> None:
    opennode, answering = provider(notify_payer=wanted), canned({"data": CHARGE}, status=201)

    await opennode.create(connection(opennode, answering), offer_request(DUE, payer=payer))

    sent = json.loads(answering.requests[0].content)
    assert sent.get("notif_email") == told
    assert not {"customer_email", "notify_receiver"} & set(sent)


@pytest.mark.parametrize("currency", sorted(EXPONENTS))
async def test_every_currency_is_written_and_read_exactly(opennode: OpenNode, currency: str) -> None:
    price = Money.from_minor(1_234_567, currency)
    answering = canned({"data": CHARGE | {"currency": currency, "source_fiat_value": price.amount}})

    snapshot = await opennode.create(connection(opennode, answering), offer_request(price))

    sent = json.loads(answering.requests[0].content, parse_float=Decimal)
    assert (sent["amount"], sent["currency"]) == (price.amount, currency)
    assert snapshot.price == price


@pytest.mark.parametrize("source", [0, 2100, None])
async def test_what_is_asked_for_in_satoshi_has_no_currency_and_is_bitcoin(
    opennode: OpenNode, source: int | None
) -> None:
    answering = canned({"data": CHARGE | {"currency": "BTC", "amount": 2100, "source_fiat_value": source}})

    snapshot = await opennode.create(connection(opennode, answering), offer_request(Money.from_sat(2100)))

    sent = json.loads(answering.requests[0].content)
    assert sent["amount"] == 2100
    assert "currency" not in sent
    assert snapshot.price == Money.from_sat(2100)


async def test_a_fraction_of_a_satoshi_is_refused_before_anything_is_sent(opennode: OpenNode) -> None:
    answering = canned({"data": CHARGE})

    with pytest.raises(InvalidMoney, match="whole number of satoshi"):
        await opennode.create(connection(opennode, answering), offer_request(Money.from_minor(1, "BTC")))

    assert not answering.requests


@pytest.mark.parametrize(("value", "currency"), [(Decimal("120.001"), "CHF"), (1, "DOGE"), (Decimal("0.5"), "JPY")])
async def test_an_answer_with_a_price_nobody_can_hold_is_a_mismatch(
    opennode: OpenNode, value: Decimal | int, currency: str
) -> None:
    answering = canned({"data": CHARGE | {"source_fiat_value": value, "currency": currency}})
    with pytest.raises(Mismatch, match="cannot read"):
        await opennode.create(connection(opennode, answering), offer_request(DUE))


@pytest.mark.parametrize(
    ("asked", "minutes"),
    [
        (timedelta(minutes=15), 15),
        (timedelta(minutes=2), 10),
        (timedelta(days=3), 1440),
        (timedelta(seconds=659), 10),
    ],
)
async def test_a_charge_lives_from_ten_minutes_to_a_day(opennode: OpenNode, asked: timedelta, minutes: int) -> None:
    answering = canned({"data": CHARGE})

    await opennode.create(connection(opennode, answering), offer_request(DUE, expires_in=asked))

    assert json.loads(answering.requests[0].content)["ttl"] == minutes


async def test_an_offer_is_a_page_an_invoice_and_an_address(opennode: OpenNode, vendor: OpenNodeSimulator) -> None:
    http = connection(opennode, InProcess(vendor))

    small = (await opennode.create(http, offer_request(DUE))).offer
    large = (await opennode.create(http, offer_request(Money.from_sat(500_000_001)))).offer

    first, second = vendor.charges.values()
    assert small is not None
    assert first.invoice is not None
    assert (small.bolt11, small.address) == (first.invoice.bolt11, first.address)
    assert small.checkout_url == f"https://opennode.test/{first.id}"
    assert small.expires_at == NOON + timedelta(minutes=15)
    assert large is not None
    assert (large.bolt11, large.address) == (None, second.address)


# Statuses


@pytest.mark.parametrize(
    ("theirs", "facts", "ours", "received"),
    [
        ("unpaid", {}, S.PENDING, None),
        ("processing", {"missing_amt": 0}, S.PROCESSING, None),
        ("underpaid", {"missing_amt": 50_000}, S.PARTIALLY_PAID, Money("80.00", "CHF")),
        ("underpaid", {"missing_amt": 149_999}, S.PARTIALLY_PAID, Money("0.00", "CHF")),
        ("underpaid", {"missing_amt": None, "transactions": [{"amount": 75_000}]}, S.PARTIALLY_PAID, Money(60, "CHF")),
        ("paid", {"missing_amt": 0}, S.PAID, DUE),
        ("paid", {"missing_amt": None, "fee": 1500}, S.PAID, DUE),
        ("paid", {"transactions": [{"amount": 100_000}, {"amount": 62_500}]}, S.PAID, Money("130.00", "CHF")),
        ("expired", {}, S.EXPIRED, None),
        ("expired", {"missing_amt": 50_000}, S.EXPIRED, Money("80.00", "CHF")),
        ("refunded", {"missing_amt": 50_000}, S.FAILED, Money("80.00", "CHF")),
        ("failed", {}, S.FAILED, None),
        ("invented-tomorrow", {}, S.UNKNOWN, None),
    ],
)
async def test_a_status_means_what_the_table_says(
    opennode: OpenNode, theirs: str, facts: dict[str, JsonOut], ours: PaymentStatus, received: Money | None
) -> None:
    answering = canned({"data": CHARGE | {"status": theirs} | facts})

    snapshot = await opennode.fetch(connection(opennode, answering), ID)

    assert (snapshot.status, snapshot.received, snapshot.price) == (ours, received, DUE)
    assert (snapshot.vendor_id, snapshot.attempt_id) == (ID, "att_5f2c")
    assert snapshot.refunded == (received if theirs == "refunded" else None)
    assert answering.requests[0].url == f"https://api.opennode.com/v1/charge/{ID}"


async def test_what_they_keep_is_told_in_satoshi(opennode: OpenNode) -> None:
    answering = canned({"data": CHARGE | {"status": "paid", "fee": 1500}})
    assert (await opennode.fetch(connection(opennode, answering), ID)).fee == Money.from_sat(1500)


async def test_satoshi_and_their_hundred_millions_are_never_confused(opennode: OpenNode) -> None:
    in_bitcoin = CHARGE | {"currency": "BTC", "amount": Decimal("0.0015")}
    with pytest.raises(OutcomeUnknown):
        await opennode.create(
            connection(opennode, canned({"data": in_bitcoin})), offer_request(Money.from_sat(150_000))
        )


# Rates


@pytest.mark.parametrize(
    ("due", "price", "sats"),
    [
        (Money("120.00", "CHF"), 80_000, 150_000),
        (Money("3.00", "CHF"), 30_000, 10_000),  # a third has no end in decimals, and must not cost a satoshi
        (Money("0.01", "CHF"), Decimal("79968.01279488"), 13),
        (Money(5000, "XOF"), 55_700_000, 8977),
        (Money(1, "JPY"), 14_204_545, 8),
        (Money("1.001", "KWD"), Decimal("25906.50"), 3864),
    ],
    ids=str,
)
async def test_a_quote_is_rounded_up_to_a_whole_satoshi(
    opennode: OpenNode, due: Money, price: Decimal | int, sats: int
) -> None:
    pair: JsonOut = {due.currency: price, "BTC": Decimal("0.1"), "currency": due.currency}
    answering = canned({"data": {f"BTC{due.currency}": pair}})

    quote = await opennode.quote(connection(opennode, answering), due, at=NOON)

    assert quote.price == Money.from_sat(sats)
    assert (quote.source, quote.at) == ("opennode", NOON)


@pytest.mark.parametrize("rates", [{}, {"BTCCHF": {}}, {"BTCCHF": {"CHF": 0}}, {"BTCCHF": {"CHF": "many"}}])
async def test_no_rate_is_a_refusal_another_provider_may_not_share(opennode: OpenNode, rates: JsonOut) -> None:
    with pytest.raises(Refused) as caught:
        await opennode.quote(connection(opennode, canned({"data": rates})), Money(1, "CHF"), at=NOON)
    assert caught.value.reason == "no_rate"


async def test_the_simulators_rates_can_be_read(opennode: OpenNode, vendor: OpenNodeSimulator) -> None:
    quote = await opennode.quote(connection(opennode, InProcess(vendor)), DUE, at=NOON)
    assert quote.price == Money.from_sat(150_000)


# Errors


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (401, {"success": False, "message": "Failed to authenticate token"}, CredentialRefused),
        (400, {"success": False, "message": "Amount is not valid"}, Rejected),
        (403, {"success": False, "message": "Forbidden"}, Rejected),
        (404, {"success": False, "message": "Not found"}, Rejected),
        (429, {"success": False, "message": "Too many requests"}, Throttled),
        (408, "", OutcomeUnknown),
        (500, {"success": False, "message": "oops"}, OutcomeUnknown),
        (503, "<html>", OutcomeUnknown),
    ],
)
async def test_an_error_means_what_the_table_says(
    opennode: OpenNode, status: int, answer: JsonOut, error: type[CallFailed]
) -> None:
    content = answer.encode() if isinstance(answer, str) else encode_json(answer)
    with pytest.raises(error) as caught:
        await opennode.create(connection(opennode, Canned(status=status, content=content)), offer_request(DUE))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [Reset(), Truncate(), Hang(0), BadJson(), Html(), Status(500)], ids=lambda one: one.name
)
async def test_a_lost_answer_is_unknown(opennode: OpenNode, vendor: OpenNodeSimulator, fault: Fault) -> None:
    vendor.faults.on("opennode", "payments.create").script(fault)
    with pytest.raises(OutcomeUnknown):
        await opennode.create(connection(opennode, InProcess(vendor)), offer_request(DUE))


async def test_nothing_is_asked_where_there_is_no_connection(opennode: OpenNode, vendor: OpenNodeSimulator) -> None:
    vendor.faults.on("opennode", "payments.create").script(NoConnection())
    with pytest.raises(NotSent):
        await opennode.create(connection(opennode, InProcess(vendor)), offer_request(DUE))
    assert not vendor.charges


async def test_a_wrong_key_a_missing_charge_and_a_strange_currency_are_told_apart(vendor: OpenNodeSimulator) -> None:
    stranger, owner = provider(api_key=Secrets("nobody's")), provider()
    with pytest.raises(CredentialRefused):
        await stranger.create(connection(stranger, InProcess(vendor)), offer_request(DUE))
    with pytest.raises(Rejected) as missing:
        await owner.fetch(connection(owner, InProcess(vendor)), ID)
    with pytest.raises(Rejected, match="Currency is not supported"):
        await owner.create(connection(owner, InProcess(vendor)), offer_request(Money(1, "UYW")))
    assert missing.value.status == 404


# Webhooks


def test_a_form_is_a_delivery(opennode: OpenNode) -> None:
    [delivery] = opennode.parse(incoming(form()))

    assert (delivery.type, delivery.vendor_id, delivery.reference) == ("paid", ID, "consultation-4711")
    assert delivery.dedup_key == f"{ID}:paid"
    assert delivery.recognised


def test_the_key_that_is_being_replaced_still_counts() -> None:
    opennode = provider(api_key=Secrets("new", KEY))
    [delivery] = opennode.parse(incoming(form()))
    assert delivery.recognised


@pytest.mark.parametrize(
    "body",
    [
        form(key="somebody else's"),
        form(id="another-charge"),
        form(hashed_order=""),
        form(hashed_order="é"),
        form(status="invented-tomorrow"),
    ],
    ids=["other key", "other id", "none", "no hex", "unknown status"],
)
def test_what_is_not_proven_to_be_our_charge_is_kept_and_not_acted_on(opennode: OpenNode, body: bytes) -> None:
    [delivery] = opennode.parse(incoming(body))
    assert not delivery.recognised


def test_an_order_without_an_id_has_no_reference(opennode: OpenNode) -> None:
    assert opennode.parse(incoming(form(order_id="N/A")))[0].reference == ""


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"id=", b"id=1", b"status=paid", b"\xff", b"&".join([b"a=1"] * 1001)],
    ids=["empty", "json", "no id", "no status", "no charge", "no text", "too many"],
)
def test_a_body_that_cannot_be_read_is_a_value_error(opennode: OpenNode, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        opennode.parse(incoming(body))


async def test_what_was_paid_is_listed_as_its_webhook_tells_it(opennode: OpenNode, vendor: OpenNodeSimulator) -> None:
    http = connection(opennode, InProcess(vendor))
    paid, _open = [await opennode.create(http, offer_request(DUE)) for _ in range(2)]
    vendor.pay(paid.vendor_id)

    [found] = [delivery async for delivery in opennode.list_deliveries(http, NOON)]

    [told] = opennode.parse(incoming(vendor.outbox[-1].body))
    assert (found.dedup_key, found.digest, found.vendor_id) == (told.dedup_key, told.digest, told.vendor_id)
    assert (found.type, found.recognised, found.reference) == ("paid", True, "consultation-4711")


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (CHARGE | {"status": "paid"}, 1),
        (CHARGE | {"status": "invented-tomorrow"}, 0),
        (CHARGE | {"status": "paid", "created_at": int((NOON - timedelta(days=1, seconds=1)).timestamp())}, 0),
        ({"id": ID}, 0),
        ("no charge", 0),
    ],
    ids=["ours", "unknown", "too old", "half told", "nonsense"],
)
async def test_a_list_may_hold_anything(opennode: OpenNode, row: JsonOut, count: int) -> None:
    http = connection(opennode, canned({"data": [row]}))

    found = [delivery async for delivery in opennode.list_deliveries(http, NOON)]

    assert len(found) == count


async def test_a_statement_has_what_came_in_its_time(
    opennode: OpenNode, vendor: OpenNodeSimulator, clock: ManualClock
) -> None:
    http = connection(opennode, InProcess(vendor))
    first, last, _open = [await opennode.create(http, offer_request(DUE)) for _ in range(3)]
    vendor.pay(first.vendor_id)
    await clock.advance(600)
    vendor.see_onchain(last.vendor_id)
    vendor.confirm(last.vendor_id)

    everything = [line async for line in opennode.statement(http, NOON, NOON + timedelta(days=1))]
    [early] = [line async for line in opennode.statement(http, NOON, NOON + timedelta(minutes=10))]

    assert {line.payment_id for line in everything} == {first.vendor_id, last.vendor_id}
    assert (early.kind, early.payment_id, early.money) == (LineKind.PAYMENT, first.vendor_id, DUE)
    assert (early.fee, early.attempt_id, early.reference) == (Money.from_sat(1500), "att_5f2c", "consultation-4711")


# The whole way


async def test_a_charge_is_created_paid_and_fetched_over_a_socket(vendor: OpenNodeSimulator) -> None:
    async with Edge(vendor) as edge:
        opennode = provider(base_url=f"{edge.url}/v1")
        transport = HttpxTransport()
        http = connection(opennode, transport)
        created = await opennode.create(http, offer_request(DUE))
        assert created.offer is not None
        vendor.pay(created.offer.payload)
        snapshot = await opennode.fetch(http, created.vendor_id)
        await transport.aclose()

    assert (snapshot.status, snapshot.received) == (S.PAID, DUE)
    vendor.ledger.exactly_once(charge(reference="consultation-4711", amount=DUE))


async def test_a_payment_is_told_once_by_webhooks(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    await shop.create("order-2", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)

    sent = await shop.deliver(Mischief(duplicate=1, forge=1, lie=1, delay=0.5))

    assert (await shop.payments.get("order-1")).status is S.PAID
    assert (await shop.payments.get("order-2")).status is S.PENDING
    assert shop.told == ["paid"]
    assert "lie" in [one.manner for one in sent if one.accepted]
    assert [one for one in sent if one.manner.forged and one.accepted] == []
    vendor.ledger.exactly_once(charge(reference="order-1", amount=DUE))


async def test_a_status_flipped_under_a_valid_hashed_order_changes_no_state_without_a_re_fetch(
    shop: Shop, vendor: OpenNodeSimulator
) -> None:
    # given: the genuine word of a transaction that is not confirmed
    payment = await shop.create("order-1", DUE)
    vendor.see_onchain(payment.attempts[0].vendor_id)
    genuine = vendor.outbox.popleft()
    fields = dict(parse_qsl(genuine.body.decode()))
    fetches = len(vendor.requests)

    # when: somebody who saw it says that it is paid
    flipped = urlencode(fields | {"status": "paid", "price": "1"}).encode()
    status = await shop.post(genuine.url, genuine.headers, flipped)
    await shop.settle()

    # then: they were asked, and what they said counts
    assert status == 200
    assert [request.target for request in list(vendor.requests)[fetches:]] == [f"/v1/charge/{fields['id']}"]
    assert (await shop.payments.get("order-1")).status is S.PROCESSING
    assert shop.told == []

    # and: the genuine word, when it comes, is not lost behind the lie
    vendor.confirm(fields["id"])
    await shop.deliver()
    await shop.clock.advance(60)
    await shop.settle()
    assert (await shop.payments.get("order-1")).status is S.PAID
    assert shop.told == ["paid"]


async def test_a_right_hashed_order_at_an_address_nobody_was_given_is_turned_away(
    shop: Shop, vendor: OpenNodeSimulator
) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    genuine = vendor.outbox.popleft()

    statuses = [
        await shop.post(url, genuine.headers, genuine.body)
        for url in ("https://shop.example/webhooks/opennode", genuine.url[:-1] + "x")
    ]

    assert statuses == [404, 404]


async def test_a_payment_is_found_by_the_sweep_alone(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)

    await shop.clock.advance(60)
    await shop.settle()

    assert (await shop.payments.get("order-1")).status is S.PAID
    assert shop.told == ["paid"]


async def test_a_payment_is_found_by_asking_for_what_was_missed(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    vendor.outbox.clear()

    await shop.run(shop.hub.reconcile())
    await shop.settle()

    assert shop.told == ["paid"]


async def test_a_lost_answer_is_asked_for_no_second_time_and_known_once_it_expires(
    shop: Shop, vendor: OpenNodeSimulator
) -> None:
    vendor.faults.on("opennode", "payments.create").script(Reset())

    with pytest.raises(OutcomeUnknown):
        await shop.create("order-1", DUE)
    await shop.clock.advance(16 * 60)
    vendor.tick()
    await shop.deliver()

    payment = await shop.payments.get("order-1")
    assert len(vendor.charges) == 1
    assert payment.attempts[0].vendor_id == next(iter(vendor.charges))
    assert payment.attempts[0].state is AttemptState.CLOSED
    vendor.ledger.no_orphans()


async def test_a_part_then_the_rest(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id, 50_000)
    partial = await shop.refresh("order-1")
    vendor.see_onchain(id)
    unconfirmed = await shop.refresh("order-1")
    vendor.confirm(id)
    paid = await shop.refresh("order-1")

    assert (partial.status, partial.received) == (S.PARTIALLY_PAID, Money("40.00", "CHF"))
    assert unconfirmed.status is S.PROCESSING
    assert (paid.status, paid.received) == (S.PAID, DUE)
    assert shop.told == ["flagged underpaid", "paid"]


async def test_too_much_is_paid_and_flagged(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id, 162_500)
    vendor.confirm(id)

    paid = await shop.refresh("order-1")

    assert (paid.status, paid.received) == (S.PAID, Money("130.00", "CHF"))
    assert paid.anomalies == {Anomaly.OVERPAID}


async def test_who_sent_too_little_and_took_it_back_is_owed_nothing(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    id = payment.attempts[0].vendor_id
    vendor.see_onchain(id, 50_000)
    await shop.refresh("order-1")
    vendor.ask_back(id)
    await shop.deliver()

    [attempt] = (await shop.payments.get("order-1")).attempts
    with pytest.raises(InvalidInput, match="go back"):
        await shop.run(shop.payments.refund("order-1", key="r1"))

    assert attempt.refunded == Money("40.00", "CHF")


async def test_a_refund_is_for_a_person(shop: Shop, vendor: OpenNodeSimulator) -> None:
    payment = await shop.create("order-1", DUE)
    vendor.pay(payment.attempts[0].vendor_id)
    await shop.refresh("order-1")

    refund = await shop.run(shop.payments.refund("order-1", key="r1"))
    await shop.settle()
    done = await shop.run(shop.payments.settle_refund("order-1", key="r1", actor="ada", evidence="txid 00ff"))
    await shop.settle()

    assert (refund.status, done.status) == (RefundStatus.MANUAL_REQUIRED, RefundStatus.SUCCEEDED)
    assert [event.key for event in shop.by_hand] == ["r1"]
    assert shop.told == ["paid", "refunded"]


async def test_a_second_offer_waits_for_the_end_of_the_first(shop: Shop, vendor: OpenNodeSimulator) -> None:
    await shop.create("order-1", DUE)
    with pytest.raises(Rejected) as refused:
        await shop.run(shop.payments.renew("order-1"))
    await shop.clock.advance(18 * 60)
    await shop.refresh("order-1")

    second = await shop.run(shop.payments.renew("order-1"))

    assert refused.value.reason == "not_revocable"
    assert second.route == ("opennode:closed", "opennode:offered")
    vendor.ledger.never_two_offers()


async def test_no_secret_is_in_a_log_line_or_an_error(
    shop: Shop, vendor: OpenNodeSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Status(400, body=f'{{"message": "key {KEY}"}}'.encode(), content_type="application/json")
    vendor.faults.on("opennode", "payments.create").always(echo)

    with pytest.raises(CallFailed) as caught:
        await shop.create("order-1", DUE)

    assert KEY not in caplog.text + str(caught.value) + repr(caught.value)
