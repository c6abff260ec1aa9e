"""Swiss Bitcoin Pay: both shapes mean the same, amounts are exact, and only the right signature opens the door."""

import hashlib
import hmac
import json
from datetime import timedelta
from decimal import Decimal

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
    Rejected,
    Throttled,
)
from holdfast.http.wire import JsonOut, encode_json
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup, PaymentProvider
from holdfast.providers import SwissBitcoinPay
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Html, Refused, Reset, Status
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.swiss_bitcoin_pay import Shape, SwissBitcoinPaySimulator
from holdfast.values import Money, Secret, Secrets
from tests.providers.connection import NOON, canned, connection, incoming, offer_request

SECRET = "sbp-test-secret"


@pytest.fixture
def sbp() -> SwissBitcoinPay:
    return SwissBitcoinPay(api_key=Secret("sbp-api-key"), webhook_secret=Secrets(SECRET))


def simulator(shape: Shape = "status") -> SwissBitcoinPaySimulator:
    return SwissBitcoinPaySimulator(shape=shape, webhook_secret=SECRET, clock=ManualClock(NOON))


# Facts


def test_it_is_a_payment_provider_that_cannot_look_up_or_take_back(sbp: SwissBitcoinPay) -> None:
    provider: PaymentProvider = sbp
    capabilities: Capabilities = provider.capabilities
    assert (capabilities.lookup, capabilities.revocable, capabilities.payer_visible) == (Lookup.NONE, False, False)


@pytest.mark.parametrize(
    ("base_url", "live"), [("https://api.swiss-bitcoin-pay.ch", True), ("http://127.0.0.1:8000", False)]
)
def test_it_is_live_everywhere_but_on_this_machine(base_url: str, live: bool) -> None:
    assert SwissBitcoinPay(api_key=Secret("k"), webhook_secret=Secrets("s"), base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SBP_API_KEY", "key-to-hide")
    monkeypatch.setenv("SBP_WEBHOOK_SECRET", "new-to-hide,old-to-hide")

    # when
    sbp = SwissBitcoinPay.from_env()

    # then
    assert [secret.reveal() for secret in sbp.webhook_secrets] == ["new-to-hide", "old-to-hide"]
    assert sbp.headers() == {"api-key": "key-to-hide"}
    assert "to-hide" not in repr(sbp)


@pytest.mark.parametrize("missing", ["SBP_API_KEY", "SBP_WEBHOOK_SECRET"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBP_API_KEY", "k")
    monkeypatch.setenv("SBP_WEBHOOK_SECRET", "s")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        SwissBitcoinPay.from_env()


# Creating


async def test_the_request_on_the_wire_is_exactly_this(sbp: SwissBitcoinPay) -> None:
    # given
    vendor = canned({"id": "abc"}, status=201)

    # when
    await sbp.create(connection(sbp, vendor), offer_request(Money("21.50", "CHF"), return_url="https://shop.ch/done"))

    # then
    [request] = vendor.requests
    headers = dict(request.headers)
    body = (
        b'{"title":"Consultation","amount":21.50,"unit":"CHF","delay":15,"onChain":false,'
        b'"extra":{"reference":"consultation-4711","attempt":"att_5f2c"},'
        b'"webhook":{"url":"https://api.example.ch/webhooks/vendor"},"redirectAfterPaid":"https://shop.ch/done"}'
    )
    assert (request.method, request.url) == ("POST", "https://api.swiss-bitcoin-pay.ch/checkout")
    assert request.content == body
    assert headers["api-key"] == "sbp-api-key"
    assert headers["content-type"] == "application/json"
    assert headers["sbp-sig"] == f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"


async def test_it_never_asks_them_to_mail_the_payer(sbp: SwissBitcoinPay) -> None:
    vendor = canned({"id": "abc"}, status=201)
    await sbp.create(connection(sbp, vendor), offer_request(Money("1", "CHF"), description="mail me at a@b.ch"))
    assert "email" not in json.loads(vendor.requests[0].content)


@pytest.mark.parametrize(
    ("price", "amount", "unit"),
    [
        (Money("21.5", "CHF"), "21.50", "CHF"),
        (Money("0.10", "EUR"), "0.10", "EUR"),
        (Money(5000, "XOF"), "5000", "XOF"),
        (Money(1200, "JPY"), "1200", "JPY"),
        (Money("1.234", "KWD"), "1.234", "KWD"),
        (Money("9007199254740993.01", "CHF"), "9007199254740993.01", "CHF"),
        (Money.from_sat(2100), "2100", "sat"),
        (Money("0.00002100", "BTC"), "2100", "sat"),
    ],
    ids=str,
)
async def test_an_amount_keeps_every_digit_on_the_wire(
    sbp: SwissBitcoinPay, price: Money, amount: str, unit: str
) -> None:
    # given
    vendor = canned({"id": "abc"}, status=201)

    # when
    await sbp.create(connection(sbp, vendor), offer_request(price))

    # then
    assert f'"amount":{amount},"unit":"{unit}"'.encode() in vendor.requests[0].content


async def test_a_fraction_of_a_satoshi_is_refused_before_anything_is_sent(sbp: SwissBitcoinPay) -> None:
    vendor = canned({})
    with pytest.raises(InvalidMoney, match="whole number of satoshi"):
        await sbp.create(connection(sbp, vendor), offer_request(Money.from_minor(2_100_500, "BTC")))
    assert not vendor.requests


@pytest.mark.parametrize(("seconds", "delay", "ends_after"), [(900, 15, 900), (659, 10, 600), (30, 1, 60)])
async def test_the_offer_ends_when_theirs_does(sbp: SwissBitcoinPay, seconds: int, delay: int, ends_after: int) -> None:
    # given
    vendor = canned({"id": "abc", "pr": "lnbc1", "checkoutUrl": "https://pay/abc", "onChainAddr": "bc1q"}, status=201)
    expires_in = timedelta(seconds=seconds)
    request = offer_request(Money(1, "CHF"), expires_in=expires_in, expires_at=NOON + expires_in)

    # when
    snapshot = await sbp.create(connection(sbp, vendor), request)

    # then
    assert json.loads(vendor.requests[0].content)["delay"] == delay
    assert snapshot.offer
    assert snapshot.offer.expires_at == NOON + timedelta(seconds=ends_after)
    assert (snapshot.offer.bolt11, snapshot.offer.address) == ("lnbc1", "bc1q")


# Fetching: one meaning in two shapes

BOOLEAN: dict[str, JsonOut] = {
    "id": "abc",
    "amount": Decimal("21.50"),
    "unit": "CHF",
    "isPaid": False,
    "isExpired": False,
}
STATUS: dict[str, JsonOut] = {
    "id": "abc",
    "amount": 26_875,
    "status": "open",
    "input": {"unit": "CHF", "amount": Decimal("21.5")},
}


@pytest.mark.parametrize(
    ("checkout", "status"),
    [
        (BOOLEAN, PaymentStatus.PENDING),
        (BOOLEAN | {"isPaid": True}, PaymentStatus.PAID),
        (BOOLEAN | {"isPaid": True, "isExpired": True}, PaymentStatus.PAID),
        (BOOLEAN | {"isExpired": True}, PaymentStatus.EXPIRED),
        (BOOLEAN | {"isPending": True}, PaymentStatus.PROCESSING),
        (BOOLEAN | {"idPending": True}, PaymentStatus.PROCESSING),
        (STATUS | {"status": "draft"}, PaymentStatus.PENDING),
        (STATUS, PaymentStatus.PENDING),
        (STATUS | {"status": "unconfirmed"}, PaymentStatus.PROCESSING),
        (STATUS | {"status": "underpaid"}, PaymentStatus.PARTIALLY_PAID),
        (STATUS | {"status": "settled"}, PaymentStatus.PAID),
        (STATUS | {"status": "paid"}, PaymentStatus.PAID),
        (STATUS | {"status": "expired"}, PaymentStatus.EXPIRED),
        (STATUS | {"status": "canceled"}, PaymentStatus.CANCELED),
        (STATUS | {"status": "reserved"}, PaymentStatus.PROCESSING),
        (STATUS | {"status": "paying"}, PaymentStatus.PROCESSING),
        (STATUS | {"status": "invented-tomorrow"}, PaymentStatus.UNKNOWN),
    ],
)
async def test_either_shape_has_the_same_price_and_a_status(
    sbp: SwissBitcoinPay, checkout: dict[str, JsonOut], status: PaymentStatus
) -> None:
    # when
    snapshot = await sbp.fetch(connection(sbp, canned(checkout)), "abc")

    # then
    assert (snapshot.vendor_id, snapshot.status) == ("abc", status)
    assert snapshot.price == Money("21.50", "CHF")
    assert snapshot.received == (Money("21.50", "CHF") if status is PaymentStatus.PAID else None)


@pytest.mark.parametrize(
    ("unit", "amount", "price"),
    [
        ("sat", 2100, Money.from_sat(2100)),
        ("sats", 2100, Money.from_sat(2100)),
        ("BTC", Decimal("0.000021"), Money.from_sat(2100)),
        ("XOF", 5000, Money(5000, "XOF")),
        ("KWD", Decimal("1.234"), Money("1.234", "KWD")),
        ("chf", 1, Money(1, "CHF")),
    ],
)
async def test_the_price_is_read_in_its_own_unit(
    sbp: SwissBitcoinPay, unit: str, amount: Decimal | int, price: Money
) -> None:
    answer = STATUS | {"input": {"unit": unit, "amount": amount}}
    snapshot = await sbp.fetch(connection(sbp, canned(answer)), "abc")
    assert snapshot.price == price


async def test_satoshi_are_never_taken_for_the_price(sbp: SwissBitcoinPay) -> None:
    answer: dict[str, JsonOut] = {"id": "abc", "amount": 26_875, "status": "open"}
    snapshot = await sbp.fetch(connection(sbp, canned(answer)), "abc")
    assert snapshot.price is None


@pytest.mark.parametrize("price", [{"unit": "DOGE", "amount": 1}, {"unit": "JPY", "amount": Decimal("1.5")}])
async def test_a_price_that_cannot_be_is_a_mismatch(sbp: SwissBitcoinPay, price: dict[str, JsonOut]) -> None:
    with pytest.raises(Mismatch):
        await sbp.fetch(connection(sbp, canned(STATUS | {"input": price})), "abc")


@pytest.mark.parametrize(
    ("status", "came", "received"),
    [
        ("underpaid", 13_437, Money("10.74", "CHF")),  # half, rounded down
        ("settled", 26_875, Money("21.50", "CHF")),
        ("settled", 53_750, Money("43.00", "CHF")),
        ("settled", 26_874, Money("21.50", "CHF")),  # a tolerance the merchant set: they call it paid
    ],
)
async def test_what_came_in_is_told_in_the_currency_of_the_price(
    sbp: SwissBitcoinPay, status: str, came: int, received: Money
) -> None:
    details: JsonOut = [{"network": "lightning"}, {"network": "onchain", "amount": came, "paidAt": 1_772_452_800}]
    answer = STATUS | {"status": status, "paymentDetails": details}
    snapshot = await sbp.fetch(connection(sbp, canned(answer)), "abc")
    assert snapshot.received == received


async def test_an_id_cannot_leave_its_path(sbp: SwissBitcoinPay) -> None:
    vendor = canned(STATUS)
    await sbp.fetch(connection(sbp, vendor), "a/account?x=#")
    assert vendor.requests[0].url == "https://api.swiss-bitcoin-pay.ch/checkout/a%2Faccount%3Fx%3D%23"
    with pytest.raises(InvalidInput):
        await sbp.fetch(connection(sbp, vendor), "../account?x=#")


# Errors


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Rejected),
        (401, CredentialRefused),
        (404, Rejected),
        (408, OutcomeUnknown),
        (429, Throttled),
        (500, OutcomeUnknown),
        (503, OutcomeUnknown),
    ],
)
async def test_a_status_means_what_the_table_says(sbp: SwissBitcoinPay, status: int, error: type[CallFailed]) -> None:
    vendor = canned({"reason": "amount_too_low"}, status=status)
    with pytest.raises(error, match="amount_too_low") as caught:
        await sbp.create(connection(sbp, vendor), offer_request(Money(1, "CHF")))
    assert type(caught.value) is error
    assert (caught.value.provider, caught.value.status) == ("swiss-bitcoin-pay", status)


@pytest.mark.parametrize(
    ("fault", "error", "offers"),
    [
        (Refused(), NotSent, 0),
        (Status(503), OutcomeUnknown, 0),
        (Reset(), OutcomeUnknown, 1),
        (BadJson(), OutcomeUnknown, 1),
        (Html(), OutcomeUnknown, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_lost_answer_is_unknown_whether_or_not_the_checkout_exists(
    sbp: SwissBitcoinPay, fault: Refused | Status | Reset | BadJson | Html, error: type[CallFailed], offers: int
) -> None:
    # given
    vendor = simulator()
    vendor.faults.on(vendor.vendor, "payments.create").script(fault)

    # when
    with pytest.raises(error):
        await sbp.create(connection(sbp, InProcess(vendor)), offer_request(Money(1, "CHF")))

    # then
    assert len(vendor.ledger) == offers


# Webhooks


def test_the_computed_vector_verifies(sbp: SwissBitcoinPay) -> None:
    signature = "sha256=f633a84a311e3184ec5aa3841bf7de45dbc957e74ce8f56ac37439e77f6a5b65"
    request = incoming(b'{"id":"abc","status":"settled"}', ("sbp-sig", signature))
    assert sbp.scheme.verify(request, sbp.webhook_secrets).valid


@pytest.mark.parametrize("shape", ["status", "boolean"])
async def test_a_delivery_names_the_checkout_and_the_reference(sbp: SwissBitcoinPay, shape: Shape) -> None:
    # given
    vendor = simulator(shape)
    created = await sbp.create(connection(sbp, InProcess(vendor)), offer_request(Money("21.50", "CHF")))
    vendor.pay(created.vendor_id)
    [webhook] = vendor.outbox

    # when
    request = incoming(webhook.body, *vendor.sign(webhook.body, secret=SECRET, at=NOON))
    [delivery] = sbp.parse(request)

    # then
    assert sbp.scheme.verify(request, sbp.webhook_secrets).valid
    assert (delivery.vendor_id, delivery.reference) == (created.vendor_id, "consultation-4711")
    assert delivery.recognised
    assert sbp.handshake(request) is None


def test_the_same_bytes_are_the_same_delivery_and_another_status_is_another(sbp: SwissBitcoinPay) -> None:
    keys = [
        sbp.parse(incoming(encode_json({"id": "abc", "status": status})))[0].dedup_key
        for status in ("unconfirmed", "settled", "settled")
    ]
    assert keys[0] != keys[1] == keys[2]


def test_an_unknown_status_is_kept_for_later(sbp: SwissBitcoinPay) -> None:
    [delivery] = sbp.parse(incoming(b'{"id":"abc","status":"invented-tomorrow"}'))
    assert (delivery.type, delivery.recognised) == ("invented-tomorrow", False)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"settled"', b'{"id": 7}', b"\xff"])
def test_a_body_that_cannot_be_read_is_a_value_error(sbp: SwissBitcoinPay, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        sbp.parse(incoming(body))


# The whole way, against the simulator


@pytest.mark.parametrize("shape", ["status", "boolean"])
@pytest.mark.parametrize("price", [Money("21.50", "CHF"), Money(5000, "XOF"), Money.from_sat(2100)], ids=str)
async def test_a_checkout_is_created_paid_and_fetched(sbp: SwissBitcoinPay, shape: Shape, price: Money) -> None:
    # given
    vendor = simulator(shape)
    http = connection(sbp, InProcess(vendor))
    created = await sbp.create(http, offer_request(price))
    assert created.offer
    assert created.offer.checkout_url

    # when
    vendor.pay(created.offer.checkout_url)
    snapshot = await sbp.fetch(http, created.vendor_id)

    # then
    assert snapshot.status is PaymentStatus.PAID
    assert (snapshot.price, snapshot.received, snapshot.attempt_id) == (price, price, "att_5f2c")
