"""Coinbase Business: a signed token for each request, one checkout per attempt, refunds, events signed by Hook0."""

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SystemClock
from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    CredentialRefused,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    MissingExtra,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.vendor import SignsRequests
from holdfast.http.wire import JsonOut, encode_json
from holdfast.outcome import Effect
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Method, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Lookup,
    OfferRequest,
    PaymentProvider,
    Refunding,
    RefundRequest,
    SupportsCapture,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    WebhookTrust,
)
from holdfast.providers.coinbase import SANDBOX, Checkout, Coinbase, Hook0Signature
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments import PaymentConformance
from holdfast.testing.faults import BadJson, Dns, Fault, Html, Latency, Reset, Stage, Status, Truncate
from holdfast.testing.intents import charge, offer, refund
from holdfast.testing.simulators.coinbase import CoinbaseSimulator
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.forgeries import forgeries
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.webhooks import Manner, Mischief, WebhookSimulator
from holdfast.values import Money, Secret, Secrets
from holdfast.webhooks.request import RawRequest
from tests.providers.connection import NOON, Canned, Unguarded, canned, connection, incoming, offer_request
from tests.providers.till import DOOR, Till

SECRET = "webhook-secret-to-hide"
ATTEMPT = "6d0c1f0a6d1e5c39ad551f2f6b9d6a01"
KEY = "0f1c2d3e4f5061728394a5b6c7d8e9fa"
ID = "68f7a946db0529ea9b6d3a12"
DUE = Money("120.00", "USDC")
PART = Money("20.00", "USDC")

CHECKOUT: dict[str, JsonOut] = {
    "id": ID,
    "url": "https://payments.coinbase.com/payment-links/pl_01h8441j23abcd1234567890ef",
    "status": "COMPLETED",
    "amount": "120.00",
    "currency": "USDC",
    "network": "base",
    "address": "0x742d35Cc6634C0532925a3b844Bc454e4438f44e",
    "createdAt": "2026-03-02T12:00:00.000Z",
    "updatedAt": "2026-03-02T12:03:00.000Z",
    "expiresAt": "2026-03-02T12:15:00Z",
    "metadata": {"reference": "consultation-4711", "holdfast_attempt": ATTEMPT},
    "settlement": {"totalAmount": "120.00", "feeAmount": "1.50", "netAmount": "118.50", "currency": "USDC"},
}
REFUND: dict[str, JsonOut] = {
    "id": "69163c762331ed43dc64b7f0",
    "checkoutId": ID,
    "amount": "20.00",
    "currency": "USDC",
    "status": "PENDING",
    "reason": f"ill [{KEY}]",
    "createdAt": "2026-03-02T12:05:00.000Z",
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> CoinbaseSimulator:
    return CoinbaseSimulator(clock=clock, webhook_secret=SECRET, webhook_url=f"{DOOR}/coinbase")


KEYS = CoinbaseSimulator(webhook_secret=SECRET)
"""Has the same key as any other of this seed."""


def coinbase(vendor: CoinbaseSimulator = KEYS, /, **changes: object) -> Coinbase:
    facts: dict[str, object] = {
        "api_key_id": vendor.api_key_id,
        "api_key_secret": Secret(vendor.credentials["api_key_secret"]),
        "webhook_secret": Secrets(SECRET),
        "base_url": "http://127.0.0.1/api/v1",
    }
    return Coinbase(**facts | changes)  # type: ignore[arg-type]  # its own fields


@pytest.fixture
def http(vendor: CoinbaseSimulator, clock: ManualClock) -> Http:
    return Http(coinbase(), InProcess(vendor), Unguarded(), clock)  # type: ignore[arg-type]  # no guard


@pytest.fixture
async def till(vendor: CoinbaseSimulator, clock: ManualClock) -> AsyncGenerator[Till]:
    async with Till(vendor, coinbase(), clock=clock) as till:
        yield till


def wanted(price: Money = DUE, **changes: object) -> OfferRequest:
    return offer_request(price, **{"attempt_id": ATTEMPT} | changes)


def attempt(vendor_id: str = ID, id: str = ATTEMPT) -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="coinbase",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON + timedelta(minutes=15),
        vendor_id=vendor_id,
    )


def refund_request(vendor_id: str = ID, money: Money = PART, key: str = KEY) -> RefundRequest:
    return RefundRequest(
        reference="consultation-4711", attempt_id=ATTEMPT, vendor_id=vendor_id, key=key, money=money, reason="ill"
    )


async def fetched(**changes: JsonOut) -> Any:
    return await coinbase().fetch(connection(coinbase(), canned(CHECKOUT | changes)), ID)


# Facts


def test_what_it_can_do_is_what_it_has() -> None:
    provider: PaymentProvider = coinbase()
    for can in (SupportsLookup, SupportsRefunds, SupportsRefundLookup, SupportsRevoking, SupportsListing):
        assert isinstance(provider, can)
    assert isinstance(provider, SignsRequests)
    assert not isinstance(provider, SupportsCapture)
    able = provider.capabilities
    assert (able.create_effect, able.refund_effect, able.lookup) == (Effect.KEYED, Effect.KEYED, Lookup.AUTHORITATIVE)
    assert able.key_window == able.refund_key_window == timedelta(hours=24)
    assert (able.methods, able.refunding) == (frozenset({Method.STABLECOIN}), Refunding.API)
    assert (able.revocable, able.payer_visible, able.webhook_trust) == (True, False, WebhookTrust.SIGNED_BODY)
    assert able.currencies == frozenset({"USDC", "USD", "EUR", "GBP", "SGD"})


def test_an_account_may_ask_in_fewer_currencies() -> None:
    assert coinbase(currencies=frozenset({"USDC"})).capabilities.currencies == frozenset({"USDC"})


@pytest.mark.parametrize(
    ("base_url", "live"),
    [
        ("https://business.coinbase.com/api/v1", True),
        (SANDBOX, False),
        ("http://127.0.0.1/api/v1", False),
    ],
)
def test_money_is_real_outside_the_sandbox(base_url: str, live: bool) -> None:
    assert coinbase(base_url=base_url).live is live


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given: the key on one line, as environments want it
    pem = CoinbaseSimulator(algorithm="ES256").credentials["api_key_secret"]
    monkeypatch.setenv("CDP_API_KEY_ID", "organizations/o/apiKeys/k")
    monkeypatch.setenv("CDP_API_KEY_SECRET", pem.replace("\n", "\\n"))
    monkeypatch.setenv("COINBASE_WEBHOOK_SECRET", "new-to-hide,old-to-hide")
    monkeypatch.setenv("COINBASE_CURRENCIES", "USDC, EUR")
    monkeypatch.setenv("COINBASE_URL", SANDBOX)

    # when
    made = Coinbase.from_env()

    # then
    assert (made.api_key_id, made.currencies) == ("organizations/o/apiKeys/k", frozenset({"USDC", "EUR"}))
    assert (made.base_url, made.live, len(made.webhook_secrets)) == (SANDBOX, False, 2)
    assert "to-hide" not in repr(made)
    assert "PRIVATE" not in repr(made)
    assert pem.splitlines()[1] not in repr(made)


@pytest.mark.parametrize("missing", ["CDP_API_KEY_ID", "CDP_API_KEY_SECRET", "COINBASE_WEBHOOK_SECRET"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CDP_API_KEY_ID", "CDP_API_KEY_SECRET", "COINBASE_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "to-hide")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        Coinbase.from_env()


def ec_key(curve: EllipticCurve) -> str:
    return generate_private_key(curve).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    "key",
    [
        "to-hide",
        "dG8taGlkZQ==",
        "-----BEGIN EC PRIVATE KEY-----\nto-hide\n-----END EC PRIVATE KEY-----",
        ec_key(SECP384R1()),
        "",
    ],
    ids=["text", "short", "broken", "another curve", "empty"],
)
def test_a_key_that_is_none_of_theirs_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key_secret") as caught:
        coinbase(api_key_secret=Secret(key))
    assert "to-hide" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_an_ecdsa_key_may_be_written_either_way() -> None:
    assert coinbase(api_key_secret=Secret(ec_key(SECP256R1()))).name == "coinbase"


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = coinbase()
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(MissingExtra, match="jwt"):
        ours.sign("GET", "https://business.coinbase.com/api/v1/checkouts", b"", NOON)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtra, match="jwt"):
        coinbase()


class TestEveryPromise(PaymentConformance[CoinbaseSimulator]):
    """What all payment vendors keep."""

    def simulator(self, clock: ManualClock) -> CoinbaseSimulator:
        return CoinbaseSimulator(clock=clock, webhook_secret=SECRET, webhook_url=f"{DOOR}/coinbase")

    def provider(self, simulator: CoinbaseSimulator) -> Coinbase:
        return coinbase(simulator)


# The token of each request


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, signature, and what is signed: read without the library that wrote it."""
    signed, _, signature = token.rpartition(".")
    header, _, claims = signed.partition(".")

    def raw(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    return json.loads(raw(header)), json.loads(raw(claims)), raw(signature), signed.encode()


def token(ours: Coinbase, method: str = "GET", path: str = "/checkouts?pageSize=1") -> str:
    told = ours.sign(method, f"https://business.coinbase.com/api/v1{path}", b"", NOON)
    assert set(told) == {"authorization"}
    return told["authorization"].removeprefix("Bearer ")


def test_a_token_says_what_it_is_for_and_for_how_long() -> None:
    header, claims, _, _ = parts(token(coinbase(api_key_id="organizations/o/apiKeys/k"), "POST"))

    uri = "POST business.coinbase.com/api/v1/checkouts"
    now = int(NOON.timestamp())
    assert header.pop("nonce")
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": "organizations/o/apiKeys/k"}
    assert claims == {
        "iss": "cdp",
        "sub": "organizations/o/apiKeys/k",
        "nbf": now,
        "exp": now + 120,
        "uri": uri,
        "uris": [uri],
    }


def test_a_token_of_an_ed25519_key_verifies() -> None:
    public = base64.b64decode(KEYS.credentials["api_key_secret"])[32:]
    _, _, signature, signed = parts(token(coinbase()))
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)


def test_a_token_of_an_ecdsa_key_verifies() -> None:
    secret = CoinbaseSimulator(algorithm="ES256").credentials["api_key_secret"]
    header, _, signature, signed = parts(token(coinbase(api_key_secret=Secret(secret))))
    numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public: Any = load_pem_private_key(secret.encode(), None).public_key()
    public.verify(encode_dss_signature(*numbers), signed, ECDSA(SHA256()))
    assert header["alg"] == "ES256"


def test_no_two_tokens_are_the_same() -> None:
    assert len({token(coinbase()) for _ in range(100)}) == 100


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
async def test_the_vendor_lets_both_kinds_of_keys_in(algorithm: str, clock: ManualClock) -> None:
    vendor = CoinbaseSimulator(clock=clock, algorithm=algorithm)
    ours = coinbase(vendor)
    assert (await ours.create(connection(ours, InProcess(vendor)), wanted())).status is PaymentStatus.PENDING


async def answered(vendor: CoinbaseSimulator, authorization: str, path: str = "/checkouts") -> int:
    url, headers = f"http://127.0.0.1/api/v1{path}", (("authorization", authorization),)
    return (await InProcess(vendor).send(HttpRequest(method="GET", url=url, headers=headers))).status


async def test_the_vendor_takes_a_token_for_that_request_only_and_in_its_time(
    vendor: CoinbaseSimulator, clock: ManualClock
) -> None:
    def bearer(method: str = "GET", path: str = "/checkouts", after: float = 0, **changes: object) -> str:
        now = NOON + timedelta(seconds=after)
        told = coinbase(**changes).sign(method, f"http://127.0.0.1/api/v1{path}", b"", now)
        return told["authorization"]

    another = CoinbaseSimulator(seed=8).credentials["api_key_secret"]
    head, _, rest = bearer().partition(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    statuses = {
        "right": await answered(vendor, bearer()),
        "another method": await answered(vendor, bearer("POST")),
        "another path": await answered(vendor, bearer(path="/checkouts/1")),
        "another host": await answered(
            vendor, coinbase().sign("GET", "https://evil.example/api/v1/checkouts", b"", NOON)["authorization"]
        ),
        "another key": await answered(vendor, bearer(api_key_secret=Secret(another))),
        "another key's name": await answered(vendor, bearer(api_key_id="other")),
        "too early": await answered(vendor, bearer(after=1)),
        "just in time": await answered(vendor, bearer(after=-119)),
        "too late": await answered(vendor, bearer(after=-120)),
        "unsigned": await answered(vendor, f"Bearer {unsigned}.{rest.partition('.')[0]}."),
        "another header": await answered(vendor, f"{head}x.{rest}"),
        "basic": await answered(vendor, "Basic cGF0cmljazpzZWNyZXQ="),
        "none": await answered(vendor, ""),
    }
    assert {name for name, status in statuses.items() if status == 200} == {"right", "just in time"}
    assert set(statuses.values()) == {200, 401}


async def test_a_call_that_is_tried_again_much_later_has_a_token_that_still_counts(
    till: Till, vendor: CoinbaseSimulator, clock: ManualClock
) -> None:
    payment = await till.create("order-1", DUE)
    await clock.advance(600)
    assert (await till.refresh("order-1")).status is payment.status
    tokens = [request.header("authorization") for request in vendor.requests]
    assert len(set(tokens)) == len(tokens) == 2


# What is sent


async def sent(price: Money = DUE, **changes: object) -> HttpRequest:
    answer = canned(CHECKOUT | {"status": "ACTIVE"})
    await coinbase().create(connection(coinbase(), answer), wanted(price, **changes))
    return answer.requests[0]


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    asked = await sent(return_url="https://shop.example/thanks", metadata={"room": "7"})

    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/api/v1/checkouts")
    assert asked.content == (
        b'{"amount":"120.00","currency":"USDC","description":"Consultation","expiresAt":"2026-03-02T12:15:00Z",'
        b'"metadata":{"room":"7","reference":"consultation-4711","holdfast_attempt":"6d0c1f0a6d1e5c39ad551f2f6b9d6a01"},'
        b'"successRedirectUrl":"https://shop.example/thanks","failRedirectUrl":"https://shop.example/thanks"}'
    )


async def test_the_key_is_the_attempts_id_as_a_uuid_of_version_4() -> None:
    asked = await sent()
    assert dict(asked.headers)["x-idempotency-key"] == "6d0c1f0a-6d1e-4c39-ad55-1f2f6b9d6a01"


async def test_a_description_is_as_long_as_it_may_be_and_never_missing() -> None:
    assert json.loads((await sent(description="")).content)["description"] == "consultation-4711"
    assert len(json.loads((await sent(description="x" * 501)).content)["description"]) == 500


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Money("0.01", "USDC"), "0.01"),
        (Money("100000000", "USDC"), "100000000.00"),
        (Money("1.5", "USD"), "1.50"),
        (Money("99.99", "EUR"), "99.99"),
        (Money("5", "GBP"), "5.00"),
        (Money("1234567.89", "SGD"), "1234567.89"),
    ],
    ids=str,
)
async def test_an_amount_is_a_text_of_two_decimals_and_comes_back_the_same(price: Money, text: str) -> None:
    asked = json.loads((await sent(price)).content)
    assert (asked["amount"], asked["currency"]) == (text, price.currency)

    told: dict[str, JsonOut] = {"amount": text, "currency": "USDC", "settlement": None}
    if price.currency != "USDC":
        told |= {"amount": "7.77", "fiatAmount": text, "fiatCurrency": price.currency}
    snapshot = await fetched(**told)
    assert (snapshot.price, snapshot.received) == (price, price)


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (Money("0.001", "USDC"), "two decimals"),
        (Money("1.000001", "USDC"), "two decimals"),
        (Money("9" * 40 + ".001", "USDC"), "two decimals"),
        (Money("1.00", "CHF"), "not asked for CHF"),
        (Money(100, "JPY"), "not asked for JPY"),
        (Money("1.000", "KWD"), "not asked for KWD"),
        (Money.from_sat(1), "not asked for BTC"),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_for_exactly_is_refused_before_anything_is_sent(price: Money, words: str) -> None:
    answer = canned({})
    with pytest.raises(InvalidMoney, match=words):
        await coinbase().create(connection(coinbase(), answer), wanted(price))
    assert not answer.requests


async def test_currencies_of_other_exponents_are_exact_or_refused_too() -> None:
    ours = coinbase(currencies=frozenset({"JPY", "KWD"}))
    told: dict[str, JsonOut] = {"amount": "7.77", "fiatAmount": "1200", "fiatCurrency": "JPY"}
    answer = canned(CHECKOUT | told)
    http = connection(ours, answer)

    made = await ours.create(http, wanted(Money(1200, "JPY")))
    await ours.create(http, wanted(Money("1.010", "KWD")))
    with pytest.raises(InvalidMoney, match="two decimals"):
        await ours.create(http, wanted(Money("1.005", "KWD")))

    assert made.price == Money(1200, "JPY")
    assert [json.loads(asked.content)["amount"] for asked in answer.requests] == ["1200.00", "1.01"]


async def test_a_checkout_of_another_attempt_is_a_mismatch() -> None:
    http = connection(coinbase(), canned(CHECKOUT | {"metadata": {"holdfast_attempt": "another"}}))
    with pytest.raises(Mismatch):
        await coinbase().create(http, wanted())


# What is answered


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ACTIVE", PaymentStatus.PENDING),
        ("PROCESSING", PaymentStatus.PROCESSING),
        ("COMPLETED", PaymentStatus.PAID),
        ("REFUNDED", PaymentStatus.PAID),
        ("PARTIALLY_REFUNDED", PaymentStatus.PAID),
        ("DEACTIVATED", PaymentStatus.CANCELED),
        ("EXPIRED", PaymentStatus.EXPIRED),
        ("FAILED", PaymentStatus.FAILED),
        ("INVENTED", PaymentStatus.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_table_says(theirs: str, ours: PaymentStatus) -> None:
    snapshot = await fetched(status=theirs)

    assert (snapshot.status, snapshot.price, snapshot.attempt_id) == (ours, DUE, ATTEMPT)
    assert snapshot.received == (DUE if ours is PaymentStatus.PAID else None)
    assert snapshot.reason == ("FAILED" if theirs == "FAILED" else "")
    assert snapshot.offer.checkout_url == CHECKOUT["url"]
    assert snapshot.offer.expires_at == NOON + timedelta(minutes=15)
    assert snapshot.offer.address is None  # a QR code of it would be read as one of bitcoin


async def test_what_was_kept_is_told_in_usdc() -> None:
    snapshot = await fetched(fiatAmount="100.00", fiatCurrency="EUR")
    assert (snapshot.price, snapshot.fee) == (Money("100.00", "EUR"), Money("1.50", "USDC"))


@pytest.mark.parametrize(
    ("told", "received"),
    [
        ({"totalAmount": "119.99", "feeAmount": "0", "currency": "USDC"}, Money("119.99", "USDC")),
        ({"totalAmount": "120.000001", "feeAmount": "0", "currency": "USDC"}, Money("120.000001", "USDC")),
        ({"totalAmount": "1", "feeAmount": "0", "currency": "EUR"}, DUE),
    ],
)
async def test_what_came_is_what_was_settled(told: JsonOut, received: Money) -> None:
    assert (await fetched(settlement=told)).received == received


async def test_what_came_for_a_price_in_another_currency_is_its_share_rounded_down() -> None:
    settled = {"totalAmount": "119.99", "feeAmount": "0", "currency": "USDC"}
    snapshot = await fetched(fiatAmount="100.00", fiatCurrency="EUR", settlement=settled)
    assert snapshot.received == Money("99.99", "EUR")


async def test_what_went_back_is_told_in_the_currency_of_the_price() -> None:
    back = REFUND | {"status": "COMPLETED"}
    euro = back | {"amount": "21.71", "fiatAmount": "20.00", "fiatCurrency": "EUR"}
    some = {"status": "PARTIALLY_REFUNDED"}
    assert (await fetched(**some, refunds=[back, REFUND, back])).refunded == Money("40.00", "USDC")
    assert (await fetched(**some, refunds=[euro], fiatAmount="99", fiatCurrency="EUR")).refunded == Money(20, "EUR")
    assert (await fetched(**some, refunds=[back], fiatAmount="99", fiatCurrency="EUR")).refunded is None
    assert (await fetched()).refunded is None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "68f7a946db0529ea9b6d3a13"},
        {"currency": "COINS"},
        {"amount": "120.0000001"},
        {"fiatAmount": "1.001", "fiatCurrency": "EUR"},
    ],
)
async def test_what_is_not_ours_or_cannot_be_read_is_a_mismatch(changes: dict[str, JsonOut]) -> None:
    with pytest.raises(Mismatch):
        await fetched(**changes)


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", 1e400, "1e999999", "x", None])
async def test_an_amount_that_is_none_leaves_the_outcome_unknown(amount: Any) -> None:
    body = json.dumps(CHECKOUT | {"amount": amount}).encode()
    with pytest.raises(OutcomeUnknown):
        await coinbase().fetch(connection(coinbase(), Canned(content=body)), ID)


async def test_real_money_comes_on_the_one_network_there_is() -> None:
    # given
    live = coinbase(base_url="https://business.coinbase.com/api/v1")
    elsewhere = canned(CHECKOUT | {"network": "base-sepolia"})

    # then
    assert (await live.fetch(connection(live, canned(CHECKOUT)), ID)).status is PaymentStatus.PAID
    with pytest.raises(Mismatch, match="base-sepolia"):
        await live.fetch(connection(live, elsewhere), ID)
    sandbox = coinbase(base_url=SANDBOX)
    assert (await sandbox.fetch(connection(sandbox, elsewhere), ID)).status is PaymentStatus.PAID


@pytest.mark.parametrize(
    ("status", "answer", "error", "code"),
    [
        (400, {"errorType": "invalid_request", "errorMessage": "Invalid amount"}, Rejected, "invalid_request"),
        (401, {"errorType": "unauthorized", "errorMessage": "no"}, CredentialRefused, "unauthorized"),
        (403, {"errorType": "forbidden", "errorMessage": "no"}, Rejected, "forbidden"),
        (404, {"errorType": "not_found", "errorMessage": "no"}, Rejected, "not_found"),
        (409, {"errorType": "already_exists", "errorMessage": "no"}, Rejected, "already_exists"),
        (400, {"errorType": "idempotency_error", "errorMessage": "no"}, OutcomeUnknown, "idempotency_error"),
        (422, {"errorType": "idempotency_error", "errorMessage": "no"}, OutcomeUnknown, "idempotency_error"),
        (429, {"errors": [{"id": "rate_limit_exceeded", "message": "no"}]}, Throttled, "rate_limit_exceeded"),
        (429, {"errorType": "rate_limit_exceeded", "errorMessage": "no"}, Throttled, "rate_limit_exceeded"),
        (500, {"errorType": "internal_server_error", "errorMessage": "no"}, OutcomeUnknown, "internal_server_error"),
        (503, {}, OutcomeUnknown, ""),
        (201, {}, OutcomeUnknown, ""),
        (400, [], Rejected, ""),
        (400, {"errors": ["x"], "errorType": 7}, Rejected, ""),
    ],
)
async def test_an_error_means_what_the_table_says(
    status: int, answer: JsonOut, error: type[CallFailed], code: str
) -> None:
    with pytest.raises(error) as caught:
        await coinbase().create(connection(coinbase(), canned(answer, status)), wanted())
    assert type(caught.value) is error
    assert caught.value.code == code


async def test_an_answer_that_is_no_json_says_nothing() -> None:
    with pytest.raises(Rejected):
        await coinbase().fetch(connection(coinbase(), Canned(status=400, content=b"<html>")), ID)


# Once, and found again


async def test_the_same_attempt_asked_for_twice_is_one_checkout(http: Http, vendor: CoinbaseSimulator) -> None:
    first = await coinbase().create(http, wanted())
    second = await coinbase().create(http, wanted())
    assert first == second
    assert len(vendor.checkouts) == 1


async def test_a_key_used_with_other_parameters_leaves_the_outcome_unknown(
    http: Http, vendor: CoinbaseSimulator
) -> None:
    await coinbase().create(http, wanted())
    with pytest.raises(OutcomeUnknown, match="idempotency_error"):
        await coinbase().create(http, wanted(Money("1.00", "USDC")))
    assert len(vendor.checkouts) == 1


async def test_after_a_day_their_key_is_forgotten(http: Http, vendor: CoinbaseSimulator, clock: ManualClock) -> None:
    await coinbase().create(http, wanted(expires_at=NOON + timedelta(days=3)))
    await clock.advance(24 * 3600)
    await coinbase().create(http, wanted(expires_at=NOON + timedelta(days=3)))
    assert len(vendor.checkouts) == 2


async def test_a_checkout_is_found_by_our_id_however_many_came_after_it(http: Http, vendor: CoinbaseSimulator) -> None:
    # given
    assert await coinbase().find(http, attempt("")) is None
    made = await coinbase().create(http, wanted())
    for number in range(101):
        await coinbase().create(http, wanted(attempt_id=f"{number:032x}"))

    # when
    found = await coinbase().find(http, attempt(""))

    # then
    assert found == made


class Pages:
    """A list of checkouts, page by page, and what was asked of it."""

    def __init__(self, *pages: list[JsonOut]) -> None:
        self._pages = pages
        self.asked: list[str] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request.url.partition("?")[2])
        number = len(self.asked)
        page: dict[str, JsonOut] = {"checkouts": self._pages[number - 1]}
        if number < len(self._pages):
            page["nextPageToken"] = f"t{number}"
        return HttpResponse(status=200, content=encode_json(page), headers=())

    async def aclose(self) -> None:
        """There is nothing to close."""


def made_at(time: datetime, **changes: JsonOut) -> JsonOut:
    return CHECKOUT | {"createdAt": time.isoformat(), "updatedAt": time.isoformat()} | changes


OLD = NOON - timedelta(days=3)


async def test_a_list_is_read_to_its_end_unless_it_is_seen_to_run_backwards() -> None:
    later = OLD + timedelta(hours=1)
    forwards = Pages([made_at(OLD), made_at(later)], [made_at(NOON)])
    backwards = Pages([made_at(later), made_at(OLD)], [made_at(NOON)])

    found = await coinbase().find(connection(coinbase(), forwards), attempt(""))
    lost = await coinbase().find(connection(coinbase(), backwards), attempt(""))

    assert found is not None
    assert forwards.asked == ["pageSize=100", "pageSize=100&pageToken=t1"]
    assert lost is None
    assert backwards.asked == ["pageSize=100"]


async def test_a_row_that_cannot_be_read_hides_no_other() -> None:
    pages = Pages(["nonsense", {}, CHECKOUT | {"amount": None}, CHECKOUT])
    assert await coinbase().find(connection(coinbase(), pages), attempt("")) is not None


# Taking it back


async def test_a_checkout_that_was_taken_back_can_be_paid_by_nobody(http: Http, vendor: CoinbaseSimulator) -> None:
    made = await coinbase().create(http, wanted())

    gone = await coinbase().revoke(http, attempt(made.vendor_id))
    again = await coinbase().revoke(http, attempt(made.vendor_id))

    assert gone.status is again.status is PaymentStatus.CANCELED
    with pytest.raises(LookupError):
        vendor.pay(made.vendor_id)


async def test_what_was_paid_before_that_is_told_as_it_stands(http: Http, vendor: CoinbaseSimulator) -> None:
    made = await coinbase().create(http, wanted())
    vendor.begin(made.vendor_id)
    paying = await coinbase().revoke(http, attempt(made.vendor_id))
    vendor.pay(made.vendor_id)
    paid = await coinbase().revoke(http, attempt(made.vendor_id))

    assert (paying.status, paid.status) == (PaymentStatus.PROCESSING, PaymentStatus.PAID)


async def test_without_an_answer_nothing_is_proven(http: Http, vendor: CoinbaseSimulator) -> None:
    made = await coinbase().create(http, wanted())
    vendor.faults.on("coinbase", "payments.revoke").always(Reset())
    with pytest.raises(OutcomeUnknown):
        await coinbase().revoke(http, attempt(made.vendor_id))


# Refunds


async def paid(http: Http, vendor: CoinbaseSimulator, price: Money = DUE) -> str:
    made = await coinbase().create(http, wanted(price))
    vendor.pay(made.vendor_id)
    return made.vendor_id


async def test_a_refund_on_the_wire_is_exactly_this() -> None:
    answer = canned({"checkout": CHECKOUT, "refund": REFUND})
    await coinbase().refund(connection(coinbase(), answer), refund_request())

    [asked] = answer.requests
    assert asked.url == f"http://127.0.0.1/api/v1/checkouts/{ID}/refund"
    assert asked.content == f'{{"amount":"20.00","currency":"USDC","reason":"ill [{KEY}]"}}'.encode()
    assert dict(asked.headers)["x-idempotency-key"] == "0f1c2d3e-4f50-4172-8394-a5b6c7d8e9fa"


@pytest.mark.parametrize("reason", ["", "x" * 600])
async def test_our_key_is_behind_any_reason(reason: str) -> None:
    answer = canned({"checkout": CHECKOUT, "refund": REFUND})
    await coinbase().refund(connection(coinbase(), answer), replace(refund_request(), reason=reason))
    noted = json.loads(answer.requests[0].content)["reason"]
    assert noted.endswith(f"[{KEY}]")
    assert len(noted) <= 500


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("PENDING", RefundStatus.PENDING),
        ("COMPLETED", RefundStatus.SUCCEEDED),
        ("FAILED", RefundStatus.FAILED),
        ("INVENTED", RefundStatus.UNKNOWN),
    ],
)
async def test_a_refunds_status_means_what_the_table_says(theirs: str, ours: RefundStatus) -> None:
    http = connection(coinbase(), canned(CHECKOUT | {"refunds": [REFUND | {"status": theirs}]}))
    found = await coinbase().fetch_refund(http, refund_request(), str(REFUND["id"]))
    assert (found.status, found.key, found.money) == (ours, KEY, Money("20.00", "USDC"))


async def test_a_refund_of_other_money_is_a_mismatch() -> None:
    http = connection(coinbase(), canned({"refund": REFUND | {"amount": "20.01"}}))
    with pytest.raises(Mismatch):
        await coinbase().refund(http, refund_request())


async def test_a_refund_in_the_currency_of_the_price(http: Http, vendor: CoinbaseSimulator) -> None:
    id, part = await paid(http, vendor, Money("100.00", "EUR")), Money("25.00", "EUR")

    made = await coinbase().refund(http, refund_request(id, part))
    vendor.complete_refund(made.vendor_id)
    done = await coinbase().fetch_refund(http, refund_request(id, part), made.vendor_id)

    assert (made.status, made.money) == (RefundStatus.PENDING, part)
    assert (done.status, done.money) == (RefundStatus.SUCCEEDED, part)
    assert (await coinbase().fetch(http, id)).refunded == part


async def test_a_refund_that_is_not_there_is_no_refund(http: Http, vendor: CoinbaseSimulator) -> None:
    id = await paid(http, vendor)
    with pytest.raises(Rejected) as caught:
        await coinbase().fetch_refund(http, refund_request(id), "69163c762331ed43dc64b7ff")
    assert caught.value.status == 404
    assert await coinbase().find_refund(http, refund_request(id)) is None


async def test_a_refund_whose_answer_was_lost_is_found_by_its_note_and_asked_twice_is_one(
    http: Http, vendor: CoinbaseSimulator
) -> None:
    # given
    id = await paid(http, vendor)
    await coinbase().refund(http, refund_request(id, Money("1.00", "USDC"), "f" * 32))
    vendor.faults.on("coinbase", "refunds.create").script(None, Reset())
    with pytest.raises(OutcomeUnknown):
        await coinbase().refund(http, refund_request(id))

    # when
    found = await coinbase().find_refund(http, refund_request(id))
    again = await coinbase().refund(http, refund_request(id))

    # then
    assert found == again
    assert len(vendor.checkouts[id].refunds) == 2


async def test_no_more_goes_back_than_came(http: Http, vendor: CoinbaseSimulator) -> None:
    id = await paid(http, vendor)
    await coinbase().refund(http, refund_request(id, Money("110.00", "USDC"), "f" * 32))
    with pytest.raises(Rejected, match="exceeds the remaining"):
        await coinbase().refund(http, refund_request(id))


# Webhooks


def incoming_at(seconds: int, body: bytes, *headers: tuple[str, str]) -> RawRequest:
    return replace(incoming(body, *headers), received_at=datetime.fromtimestamp(seconds, UTC))


V0 = "v0=d17d66b66fca89390c5b967c45e8928fc732db07a0aabe8167b1e98213081ffe"
V1 = "v1=19a6fb8f6581715b241a93af02a58611c3b0ac7b747a8d2a5b120ee418d0c347"
SWAPPED = "v1=bf5f4e5fe0c9143510ae192f983316a09ed392d0104d2ce0faa3d7bce3687acb"
T, H = "t=1800000000", "h=x-event-id x-delivery-id"


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (f"{T},{V0}", ""),
        (f"{T},{H},{V1}", ""),
        (f"{T},{H},{SWAPPED.replace('v1', 'v0')},{V1}", ""),
        (f"{T},{H},{V0},{SWAPPED}", "wrong_signature"),
        (f"{T},h=x-delivery-id x-event-id,{V1}", "wrong_signature"),
        (f"{T},h=x-delivery-id x-event-id,{SWAPPED}", ""),
        (f"{T},h=x-event-id x-missing,{V1}", "missing_header"),
        (f"{T},{V0[:-1]}z", "malformed_header"),
        (f"{T},{V0[:-1]}", "malformed_header"),
        ("t=1799999699,v0=4168cc6c683357e103055b48584715f12e2baa4e679b8e076254247f11edf34d", "stale"),
        ("t=1800000301,v0=ba4b79e449ae52edb505b6baa07380be2baa6e0c4c6fec3b9a01c85d47a4935f", "future"),
        ("t=1799999700,v0=f9689580483e051113d28de23c1658c509da2b00e7bc15a5aaa83b8bdf83ff81", ""),
    ],
)
def test_a_signature_is_judged_as_hook0_wants_it_of_all_its_clients(signature: str, reason: str) -> None:
    # https://github.com/hook0/hook0/blob/master/clients/conformance/signature.json: the codes are made by other tools
    sent = [("x-event-id", "evt-1"), ("x-delivery-id", "dlv-1"), ("content-type", "application/json")]
    request = incoming_at(1800000000, b'{"event":"user.created"}', *sent, ("x-hook0-signature", signature))

    verdict = Hook0Signature().verify(request, Secrets("a-subscription-secret"))

    assert (verdict.valid, verdict.reason) == (not reason, reason)


def event(name: str = "checkout.payment.success", **changes: JsonOut) -> bytes:
    return encode_json(CHECKOUT | {"eventType": name} | changes)


def signed(body: bytes, secret: str = SECRET, at: datetime = NOON) -> list[tuple[str, str]]:
    covered = {"content-type": "application/json", "x-event-id": "e1", "x-event-type": "checkout.payment.success"}
    time, names = int(at.timestamp()), " ".join(covered)
    message = f"{time}.{names}.{'.'.join(covered.values())}.".encode() + body
    code = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return [*covered.items(), ("x-hook0-signature", f"t={time},h={names},v1={code}")]


def dropped(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [header for header in headers if header[0] != name]


GENUINE = signed(event())


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (event(), [], "missing_header"),
        (event(), [("x-hook0-signature", "nonsense")], "malformed_header"),
        (event(), dropped(GENUINE, "x-event-id"), "missing_header"),
        (event(), [*dropped(GENUINE, "x-event-id"), ("x-event-id", "e2")], "wrong_signature"),
        (event(), [*GENUINE, ("x-event-id", "e2")], "malformed_header"),
        (event(), [*GENUINE, ("x-hook0-signature", "t=1,v0=00")], "malformed_header"),
        (event(), signed(event(), "another"), "wrong_signature"),
        (event(), signed(event(), at=NOON - timedelta(minutes=6)), "stale"),
        (json.dumps(json.loads(event()), indent=1).encode(), GENUINE, "wrong_signature"),
        (event(amount="1.00"), GENUINE, "wrong_signature"),
    ],
)
def test_what_is_not_signed_is_not_believed(body: bytes, headers: list[tuple[str, str]], reason: str) -> None:
    assert coinbase().scheme.verify(incoming(event(), *GENUINE), coinbase().webhook_secrets).valid
    verdict = coinbase().scheme.verify(incoming(body, *headers), coinbase().webhook_secrets)
    assert (verdict.valid, verdict.reason) == (False, reason)


def test_a_body_that_was_written_anew_is_called_that() -> None:
    verdict = coinbase().scheme.verify(incoming(json.dumps(json.loads(event())).encode(), *GENUINE), Secrets(SECRET))
    assert "re-serialised" in verdict.hint


@pytest.mark.parametrize(
    ("covered", "value"),
    [
        ("content-type", "{body}"),
        ("content-type", "{timestamp}"),
        ("content-type", "\u00e9"),
        ("content-type", "\udcff"),
        ("content-type content_type.", "x"),
        ("", "x"),
        ("a " * 17, "x"),
    ],
)
def test_headers_that_would_change_what_is_signed_are_refused(covered: str, value: str) -> None:
    headers = [("content-type", value), ("x-hook0-signature", f"t=1772452800,h={covered},v1={'0' * 64}")]
    verdict = coinbase().scheme.verify(incoming(event(), *headers), coinbase().webhook_secrets)
    assert (verdict.valid, verdict.reason) == (False, "malformed_header")


@given(header=st.text(max_size=80) | st.from_regex(r"t=[0-9]+,h=[a-z -]*,v[01]=[0-9a-f]{64}"), body=st.binary())
def test_any_bytes_have_a_verdict(header: str, body: bytes) -> None:
    headers = [("content-type", "application/json"), ("x-hook0-signature", header)]
    assert not Hook0Signature().verify(incoming(body, *headers), Secrets(SECRET)).valid


def test_a_secret_that_was_replaced_still_verifies() -> None:
    ours = coinbase(webhook_secret=Secrets("new", SECRET))
    assert ours.scheme.verify(incoming(event(), *GENUINE), ours.webhook_secrets).secret == 1


def test_an_event_is_a_hint_of_what_it_is_about() -> None:
    [told] = coinbase().parse(incoming(event()))
    assert (told.type, told.vendor_id, told.reference) == ("checkout.payment.success", ID, "consultation-4711")
    assert told.dedup_key == f"checkout.payment.success:{ID}"
    assert (told.recognised, told.facts, told.body) == (True, {"attempt_id": ATTEMPT}, event())


def test_refunds_are_told_apart_and_the_same_one_twice_is_the_same() -> None:
    one, two = REFUND | {"status": "COMPLETED"}, REFUND | {"status": "COMPLETED", "id": "69163c762331ed43dc64b7f1"}
    name = "checkout.refund.success"
    bodies = [event(name, refunds=[one]), event(name, refunds=[one, REFUND]), event(name, refunds=[two, one])]

    keys = [coinbase().parse(incoming(body))[0].dedup_key for body in bodies]

    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_what_we_do_not_know_is_kept() -> None:
    [told] = coinbase().parse(incoming(encode_json({"eventType": "checkout.new", "id": ID, "metadata": None})))
    assert (told.recognised, told.vendor_id, told.facts) == (False, ID, None)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b'{"eventType":"x"}', b'{"eventType":1,"id":"x"}', b"\xff"])
def test_a_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        coinbase().parse(incoming(body))


async def test_what_happened_is_listed_as_its_webhooks_told_it(
    http: Http, vendor: CoinbaseSimulator, clock: ManualClock
) -> None:
    # given: one paid and partly given back, one failed, one expired, one open, one of somebody else's
    ours, requests = coinbase(), [wanted(attempt_id=f"{number:032x}") for number in range(4)]
    made = [(await ours.create(http, request)).vendor_id for request in requests]
    vendor.pay(made[0])
    back = await ours.refund(http, refund_request(made[0]))
    vendor.complete_refund(back.vendor_id)
    lost = await ours.refund(http, refund_request(made[0], key="f" * 32))
    vendor.complete_refund(lost.vendor_id, failed=True)
    vendor.fail(made[1])
    await clock.advance(16 * 60)
    vendor.tick()
    expired = [one for one in vendor.checkouts.values() if one.status == "EXPIRED"]
    await ours.create(http, wanted(attempt_id="e" * 32, expires_at=NOON + timedelta(hours=1)))
    next(iter(vendor.checkouts.values())).metadata = dict(vendor.checkouts[made[0]].metadata)

    # when
    listed = [one async for one in ours.list_deliveries(http, NOON - timedelta(hours=1))]
    told = [ours.parse(incoming(webhook.body))[0] for webhook in vendor.outbox]

    # then
    assert len(expired) == 2
    assert {(one.dedup_key, one.digest, one.vendor_id, one.type) for one in listed} == {
        (one.dedup_key, one.digest, one.vendor_id, one.type) for one in told
    }
    assert [one async for one in ours.list_deliveries(http, clock.now() + timedelta(hours=1))] == []


async def test_what_is_not_ours_is_not_listed() -> None:
    pages = Pages([CHECKOUT | {"metadata": None}, CHECKOUT | {"metadata": {"holdfast_attempt": 7}}])
    assert [one async for one in coinbase().list_deliveries(connection(coinbase(), pages), NOON)] == []


# The whole way, through `Payments`


async def test_a_page_is_paid_told_and_paid_once(till: Till, vendor: CoinbaseSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
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


@pytest.mark.parametrize("due", [DUE, Money("80.00", "EUR")], ids=str)
async def test_without_any_webhook_the_sweep_notices_it(clock: ManualClock, due: Money) -> None:
    vendor = CoinbaseSimulator(clock=clock)
    async with Till(vendor, coinbase(), clock=clock, webhooks=False) as till:
        payment = await till.create("order-1", due)
        assert payment.offer is not None
        vendor.begin(payment.offer.payload)
        await clock.advance(31)
        await till.settle()
        assert (await till.payments.get("order-1")).status is PaymentStatus.PROCESSING
        vendor.pay(payment.offer.payload)
        await clock.advance(600)
        await till.settle()

    assert [one.due for one in till.paid] == [due]


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
async def test_whatever_goes_wrong_once_there_is_one_checkout(
    till: Till, vendor: CoinbaseSimulator, fault: Fault
) -> None:
    # given
    vendor.faults.on("coinbase", "payments.create").script(fault)

    # when
    payment = await till.create("order-1", DUE)

    # then
    assert payment.route == ("coinbase:offered",)
    assert payment.offer is not None
    vendor.ledger.exactly_once(offer(reference="order-1"))
    vendor.pay(payment.offer.payload)
    await till.deliver()
    await till.settle()
    assert len(till.paid) == 1
    vendor.ledger.exactly_once(charge(reference="order-1"))


async def test_an_answer_that_stays_lost_is_found_later_and_is_one_checkout(
    till: Till, vendor: CoinbaseSimulator, clock: ManualClock
) -> None:
    # given: nobody answers while it is created, nor for a while after that
    vendor.faults.on("coinbase", "payments.create").always(Reset())
    with pytest.raises(OutcomeUnknown):
        await till.create("order-1", DUE)
    assert len(vendor.checkouts) == 1

    # when
    await clock.advance(301)
    await till.settle()
    payment = await till.payments.get("order-1")

    # then
    assert payment.route == ("coinbase:offered",)
    assert payment.attempts[0].vendor_id in vendor.checkouts
    vendor.ledger.exactly_once(offer(reference="order-1"))


async def test_a_payment_that_is_canceled_can_be_paid_by_nobody(till: Till, vendor: CoinbaseSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None

    canceled = await till.run(till.payments.cancel("order-1"))

    assert canceled.status is PaymentStatus.CANCELED
    with pytest.raises(LookupError, match="DEACTIVATED"):
        vendor.pay(payment.offer.payload)


async def test_who_was_paying_when_it_was_canceled_has_paid(till: Till, vendor: CoinbaseSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.begin(payment.offer.payload)

    # when
    waiting = await till.run(till.payments.cancel("order-1"))
    vendor.pay(payment.offer.payload)
    await till.deliver()
    await till.settle()

    # then
    assert waiting.status is not PaymentStatus.CANCELED
    assert (await till.payments.get("order-1")).status is PaymentStatus.PAID
    vendor.ledger.exactly_once(charge(reference="order-1"))


async def test_another_page_is_made_once_the_first_is_taken_back(till: Till, vendor: CoinbaseSimulator) -> None:
    first = await till.create("order-1", DUE)
    second = await till.run(till.payments.renew("order-1"))

    assert first.offer is not None
    assert second.offer is not None
    assert first.offer.checkout_url != second.offer.checkout_url
    assert [one.status for one in vendor.checkouts.values()] == ["DEACTIVATED", "ACTIVE"]
    vendor.ledger.never_two_offers()


async def test_what_nobody_paid_expires(till: Till, vendor: CoinbaseSimulator, clock: ManualClock) -> None:
    payment = await till.create("order-1", DUE)
    await clock.advance((payment.attempts[0].expires_at - clock.now()).total_seconds() + 180)
    vendor.tick()
    assert [one.status for one in await till.deliver()] == [200]
    await till.settle()
    assert (await till.payments.get("order-1")).status is PaymentStatus.EXPIRED


async def test_a_payment_that_fails_says_so(till: Till, vendor: CoinbaseSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.fail(payment.offer.payload)
    await till.deliver()
    await till.settle()
    assert (await till.payments.get("order-1")).status is PaymentStatus.FAILED


class Short(InProcess):
    """Tells that a cent of what was due did not come; no page of theirs says that this can happen."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        answer = await super().send(request)
        return replace(answer, content=answer.content.replace(b'"totalAmount":"120.00"', b'"totalAmount":"119.99"'))


async def test_less_than_was_due_is_not_paid(vendor: CoinbaseSimulator, clock: ManualClock) -> None:
    async with Till(vendor, coinbase(), clock=clock, wire=lambda _: Short(vendor)) as till:
        # given
        payment = await till.create("order-1", DUE)
        assert payment.offer is not None

        # when
        vendor.pay(payment.offer.payload)
        await till.deliver()
        await till.settle()

        # then
        after = await till.payments.get("order-1")
        assert (after.status, after.received) == (PaymentStatus.PARTIALLY_PAID, Money("119.99", "USDC"))
        assert Anomaly.UNDERPAID in after.anomalies
        assert till.paid == []


async def test_a_lost_refund_is_one_refund(till: Till, vendor: CoinbaseSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    vendor.faults.on("coinbase", "refunds.create").script(*[Reset()] * 4)

    # when
    with pytest.raises(OutcomeUnknown):
        await till.refund("order-1", Money("20.00", "USDC"), key="r1", reason="ill")
    await till.clock.advance(120)
    await till.refresh("order-1")
    [waiting] = await till.payments.refunds("order-1")
    [checkout] = vendor.checkouts.values()
    [made] = checkout.refunds
    vendor.complete_refund(made.id)
    await till.deliver()
    await till.settle()

    # then
    [done] = await till.payments.refunds("order-1")
    assert (waiting.status, done.status) == (RefundStatus.PENDING, RefundStatus.SUCCEEDED)
    vendor.ledger.exactly_once(refund(reference="order-1", amount=Money("20.00", "USDC")))


async def test_a_refund_that_comes_back_is_told(till: Till, vendor: CoinbaseSimulator) -> None:
    payment = await till.create("order-1", Money("80.00", "EUR"))
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    await till.refund("order-1", key="r1")
    [checkout] = vendor.checkouts.values()
    vendor.complete_refund(checkout.refunds[0].id, failed=True)
    await till.deliver()
    await till.settle()

    [came_back] = await till.payments.refunds("order-1")
    assert (came_back.status, came_back.money) == (RefundStatus.FAILED, Money("80.00", "EUR"))
    assert (await till.payments.get("order-1")).status is PaymentStatus.PAID


async def test_all_of_it_goes_back_and_the_payment_stays_paid(till: Till, vendor: CoinbaseSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    await till.refund("order-1", key="r1")
    [checkout] = vendor.checkouts.values()
    vendor.complete_refund(checkout.refunds[0].id)
    await till.deliver()
    await till.settle()

    after = await till.payments.get("order-1")
    assert (checkout.status, after.status) == ("REFUNDED", PaymentStatus.PAID)
    assert not after.anomalies - {Anomaly.TEST_MODE}
    vendor.ledger.exactly_once(refund(reference="order-1", amount=DUE))


async def test_a_lie_in_a_signed_body_changes_nothing(till: Till, vendor: CoinbaseSimulator) -> None:
    payment = await till.create("order-1", DUE)
    body = event(id=payment.attempts[0].vendor_id)
    now = till.clock.now()
    assert await till.post(f"{DOOR}/coinbase", signed(body, at=now), body) == 200
    assert await till.post(f"{DOOR}/coinbase", signed(body, "another", at=now), body) == 401
    await till.settle()
    assert (await till.payments.get("order-1")).status is PaymentStatus.PENDING


async def test_every_forgery_is_refused_and_nothing_is_counted_twice(till: Till, vendor: CoinbaseSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    assert {*forgeries(vendor, vendor.outbox[0])} == {
        Manner.WRONG_KEY,
        Manner.ALTERED_BYTE,
        Manner.STALE,
        Manner.MISSING_HEADER,
        Manner.OLD_VERSION,
        Manner.RESERIALISED,
    }

    # when
    accepted = []
    for seed in range(20):
        webhook = vendor.outbox[0]
        mischief = Mischief(forge=1, duplicate=1, lie=1, skew=1)
        post = WebhookSimulator([vendor], till.post, mischief=mischief, seed=seed, clock=till.clock)
        await till.run(post.deliver())
        accepted += post.accepted_forgeries
        vendor.owe(webhook)
    await till.settle()

    # then
    assert accepted == []
    assert len(till.paid) == 1


async def test_no_secret_is_in_any_signal_or_error(
    till: Till, vendor: CoinbaseSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    caplog.set_level("DEBUG")
    vendor.api_key_id = "another"

    # when
    with pytest.raises(CallFailed) as caught:
        await till.create("order-1", DUE)

    # then
    told = f"{caught.value} {till.signals} {caplog.text} {coinbase()}"
    bearer = vendor.requests[0].header("authorization") or ""
    for secret in (KEYS.credentials["api_key_secret"], SECRET, bearer.removeprefix("Bearer ")):
        assert secret
        assert secret not in told


async def test_it_works_over_real_sockets() -> None:
    vendor = CoinbaseSimulator()
    async with Edge(vendor) as edge:
        provider = coinbase(base_url=f"{edge.url}/api/v1")
        http = Http(provider, HttpxTransport(), Unguarded(), SystemClock())  # type: ignore[arg-type]  # no guard
        made = await provider.create(http, wanted(expires_at=datetime.now(UTC) + timedelta(minutes=15)))
        assert made.offer is not None
        vendor.pay(made.offer.payload)
        found = await provider.find(http, replace(attempt(""), claimed_at=datetime.now(UTC)))
        await http.aclose()

    assert found is not None
    assert (found.status, found.received) == (PaymentStatus.PAID, DUE)


# The simulator


async def test_the_sandbox_has_paths_of_its_own_and_the_same_keys(
    vendor: CoinbaseSimulator, clock: ManualClock
) -> None:
    ours = coinbase(base_url="http://127.0.0.1/sandbox/api/v1")
    http = Http(ours, InProcess(vendor), Unguarded(), clock)  # type: ignore[arg-type]  # no guard
    made = await ours.create(http, wanted())
    assert vendor.checkouts[made.vendor_id].network == "base-sepolia"
    assert (await ours.revoke(http, attempt(made.vendor_id))).status is PaymentStatus.CANCELED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount": "1.005"}, "at most 2 decimal places"),
        ({"amount": "0.00"}, "between 0.01"),
        ({"amount": "100000000.01"}, "between 0.01"),
        ({"amount": 12}, "between 0.01"),
        ({"currency": "CHF"}, "CHF is not supported"),
        ({"description": "x" * 501}, "at most 500"),
        ({"metadata": {str(number): "x" for number in range(21)}}, "at most 20"),
        ({"metadata": {"a": "x" * 101}}, "100 characters"),
        ({"successRedirectUrl": "http://shop.example"}, "HTTPS"),
        ({"expiresAt": "2026-03-02T11:59:59Z"}, "future"),
        ({"expiresAt": "tomorrow"}, "RFC 3339"),
    ],
)
async def test_the_simulator_refuses_what_the_pages_say_is_refused(
    http: Http, changes: dict[str, JsonOut], words: str
) -> None:
    body: dict[str, JsonOut] = {"amount": "1.00", "currency": "USDC"}
    with pytest.raises(Rejected, match=words) as caught:
        await http.post("/checkouts", None, operation="create", effect=Effect.ONCE, json=body | changes)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


@pytest.mark.parametrize("key", ["6d0c1f0a-6d1e-5c39-ad55-1f2f6b9d6a01", ATTEMPT, "order-1"])
async def test_the_simulator_takes_no_key_but_a_uuid_of_version_4(http: Http, key: str) -> None:
    headers = {"x-idempotency-key": key}
    with pytest.raises(Rejected, match="UUID v4"):
        await http.post("/checkouts", None, operation="create", effect=Effect.ONCE, json={}, headers=headers)


async def test_the_simulator_counts_the_calls_of_an_hour(clock: ManualClock) -> None:
    vendor = CoinbaseSimulator(clock=clock, calls_per_hour=2)
    http = Http(coinbase(), InProcess(vendor), Unguarded(), clock)  # type: ignore[arg-type]  # no guard
    made = await coinbase().create(http, wanted(expires_at=NOON + timedelta(days=1)))
    await coinbase().fetch(http, made.vendor_id)
    with pytest.raises(Throttled, match="Too many requests"):
        await coinbase().fetch(http, made.vendor_id)
    await clock.advance(3600)
    assert (await coinbase().fetch(http, made.vendor_id)).status is PaymentStatus.PENDING


async def test_the_simulator_has_other_checkouts_than_ours(http: Http) -> None:
    for path in ("/checkouts/nonsense", f"/checkouts/{ID}", "/invoices"):
        with pytest.raises(Rejected):
            await http.get(path, Checkout, operation="fetch")


def test_the_simulator_forgets_everything_when_it_starts_anew(vendor: CoinbaseSimulator) -> None:
    before: Mapping[str, str] = dict(vendor.credentials)
    vendor.reset()
    assert (vendor.checkouts, dict(vendor.credentials)) == ({}, before)
