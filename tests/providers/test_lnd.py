"""LND: the hash is known before the answer, so nothing is made twice; money only with the preimage that proves it."""

import asyncio
import base64
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast import Holdfast
from holdfast.errors import (
    CallFailed,
    ConfigurationError,
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
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.wire import JsonOut, decode_json
from holdfast.outcome import Effect
from holdfast.payments.models import Anomaly, Attempt, AttemptState, PaymentStatus
from holdfast.payments.provider import (
    Lookup,
    PaymentProvider,
    SupportsLookup,
    SupportsQuotes,
    SupportsRevoking,
    SupportsStatements,
    WebhookTrust,
)
from holdfast.providers import Lnd
from holdfast.providers.lnd import read_request
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Html, Reset, Status, Truncate
from holdfast.testing.faults import Refused as NoConnection
from holdfast.testing.intents import charge
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnd import LndSimulator, payment_request
from holdfast.testing.simulators.simulator import Request
from holdfast.testing.vendors import Fakes
from holdfast.values import Money, Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from tests.providers.connection import NOON, Canned, canned, connection, offer_request
from tests.providers.till import Till

S = PaymentStatus
MACAROON = "0201036c6e64" + "ab" * 60
KEY, OTHER_KEY = "a-preimage-key-to-hide-from-everybody", "another-preimage-key-to-hide-as-well!"
DUE = Money.from_sat(2100)
ATTEMPT_ID = "att_5f2c"
PREIMAGE = b"\x11" * 32
HASH = hashlib.sha256(PREIMAGE).digest()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


INVOICE: dict[str, JsonOut] = {
    "memo": "Consultation",
    "r_preimage": encoded(PREIMAGE),
    "r_hash": encoded(HASH),
    "value": "2100",
    "value_msat": "2100000",
    "settled": False,
    "creation_date": str(int(NOON.timestamp())),
    "settle_date": "0",
    "payment_request": "lnbcrt21u1pexample",
    "expiry": "900",
    "amt_paid_msat": "0",
    "state": "OPEN",
}
PAID = INVOICE | {"state": "SETTLED", "amt_paid_msat": "2100000", "settle_date": str(int(NOON.timestamp()))}


def provider(**settings: Any) -> Lnd:
    facts: dict[str, Any] = {
        "base_url": "https://node.example.ch:8080",
        "macaroon": Secret(MACAROON),
        "preimage_key": Secrets(KEY),
        "network": "regtest",
    }
    return Lnd(**(facts | settings))


def said(code: int, message: str) -> dict[str, JsonOut]:
    return {"code": code, "message": message, "details": []}


def attempt(id: str = ATTEMPT_ID, vendor_id: str = "") -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="lnd",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON + timedelta(minutes=15),
        vendor_id=vendor_id,
    )


@pytest.fixture
def lnd() -> Lnd:
    return provider()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def node(clock: ManualClock) -> LndSimulator:
    return LndSimulator(macaroon=MACAROON, network="regtest", clock=clock)


@pytest.fixture
async def till(node: LndSimulator, clock: ManualClock) -> AsyncIterator[Till]:
    async with Till(node, provider(), clock=clock) as till:
        yield till


# Facts


def test_it_says_what_a_node_can_do(lnd: Lnd) -> None:
    vendor: PaymentProvider = lnd
    able = vendor.capabilities
    assert isinstance(vendor, SupportsLookup)
    assert isinstance(vendor, SupportsRevoking)
    assert isinstance(vendor, SupportsStatements)
    assert isinstance(vendor, SupportsListing)
    assert not isinstance(vendor, SupportsQuotes)
    assert not isinstance(vendor, ReceivesWebhooks)
    assert (able.create_effect, able.key_window, able.lookup) == (Effect.KEYED, None, Lookup.AUTHORITATIVE_ABSENCE)
    assert (able.revocable, able.webhook_trust) == (True, WebhookTrust.NONE)
    assert able.currencies == frozenset({"BTC"})


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("LND_URL", "https://127.0.0.1:8080")
    monkeypatch.setenv("LND_MACAROON", MACAROON)
    monkeypatch.setenv("LND_PREIMAGE_KEY", f"{KEY},{OTHER_KEY}")
    monkeypatch.delenv("LND_CERTIFICATE", raising=False)
    monkeypatch.delenv("LND_NETWORK", raising=False)

    # when
    lnd = Lnd.from_env()

    # then: also a node on this machine takes real money
    assert (lnd.base_url, lnd.live, lnd.certificate) == ("https://127.0.0.1:8080", True, None)
    assert lnd.headers() == {"grpc-metadata-macaroon": MACAROON}
    assert len(lnd.preimage_key) == 2
    assert not any(secret in repr(lnd) for secret in (MACAROON, KEY, OTHER_KEY))


@pytest.mark.parametrize("missing", ["LND_URL", "LND_MACAROON", "LND_PREIMAGE_KEY"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LND_URL", "LND_MACAROON", "LND_PREIMAGE_KEY"):
        monkeypatch.setenv(name, "a-text-that-is-long-enough-for-a-key")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        Lnd.from_env()


def test_the_network_in_the_environment_says_whether_money_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LND_URL", "https://node.example.ch:8080")
    monkeypatch.setenv("LND_MACAROON", MACAROON)
    monkeypatch.setenv("LND_PREIMAGE_KEY", KEY)
    monkeypatch.setenv("LND_NETWORK", "signet")
    assert not Lnd.from_env().live


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"preimage_key": Secrets("short")}, "shorter than 32"),
        ({"preimage_key": Secrets(KEY, "short")}, "shorter than 32"),
        ({"network": "moon"}, "no network moon"),
        ({"certificate": b""}, "neither PEM nor DER"),
        ({"certificate": b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"}, "neither PEM nor DER"),
        ({"certificate": b"\xff\x00"}, "neither PEM nor DER"),
    ],
)
def test_what_would_be_unsafe_is_refused_at_once(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        provider(**settings)
    assert "short" not in str(caught.value).replace("shorter", "")


# The preimage


async def preimage_of(lnd: Lnd, attempt_id: str) -> bytes:
    answering = canned(said(2, "memo too large: 1 bytes (maxsize=0)"), 500)
    with pytest.raises(Rejected):
        await lnd.create(connection(lnd, answering), offer_request(DUE, attempt_id=attempt_id))
    sent = decode_json(answering.requests[0].content)
    assert isinstance(sent, dict)
    return base64.b64decode(str(sent["r_preimage"]))


async def test_the_same_attempt_has_the_same_preimage_and_nobody_else_can_tell_it() -> None:
    mine = await preimage_of(provider(), ATTEMPT_ID)

    assert len(mine) == 32
    assert await preimage_of(provider(), ATTEMPT_ID) == mine
    assert await preimage_of(provider(), "att_other") != mine
    assert await preimage_of(provider(preimage_key=Secrets(OTHER_KEY)), ATTEMPT_ID) != mine
    assert mine not in {hashlib.sha256(told.encode()).digest() for told in (ATTEMPT_ID, "consultation-4711", KEY)}


async def test_the_preimage_is_in_no_snapshot_no_delivery_and_no_repr(lnd: Lnd, node: LndSimulator) -> None:
    # given
    http = connection(lnd, InProcess(node))
    created = await lnd.create(http, offer_request(DUE))
    [invoice] = node.invoices.values()
    node.pay(created.vendor_id)

    # when
    fetched = await lnd.fetch(http, created.vendor_id)
    [delivery] = [found async for found in lnd.list_deliveries(http, NOON)]

    # then
    told = repr((created, fetched, delivery, delivery.body))
    assert invoice.preimage.hex() not in told
    assert encoded(invoice.preimage) not in told


# Creating


async def test_the_request_on_the_wire_is_exactly_this(lnd: Lnd) -> None:
    # given
    preimage = await preimage_of(lnd, ATTEMPT_ID)
    answer: JsonOut = {
        "r_hash": encoded(hashlib.sha256(preimage).digest()),
        "payment_request": "lnbcrt21u1pexample",
        "add_index": "1",
        "payment_addr": encoded(b"\x01" * 32),
    }
    answering = canned(answer)

    # when
    snapshot = await lnd.create(connection(lnd, answering), offer_request(DUE))

    # then
    [request] = answering.requests
    assert (request.method, request.url) == ("POST", "https://node.example.ch:8080/v1/invoices")
    assert dict(request.headers)["grpc-metadata-macaroon"] == MACAROON
    assert decode_json(request.content) == {
        "memo": "Consultation",
        "r_preimage": encoded(preimage),
        "value_msat": "2100000",
        "expiry": "900",
        "private": False,
    }
    assert (snapshot.price, snapshot.status, snapshot.live) == (DUE, S.PENDING, False)
    assert (snapshot.vendor_id, snapshot.attempt_id) == (hashlib.sha256(preimage).hexdigest(), ATTEMPT_ID)
    assert snapshot.offer
    assert (snapshot.offer.bolt11, snapshot.offer.expires_at) == ("lnbcrt21u1pexample", NOON + timedelta(minutes=15))


@pytest.mark.parametrize("msat", [1, 999, 1000, 2_100_500, 100_000_000, 10**11, 21_000_000 * 10**11 // 1000])
async def test_an_amount_is_exact_to_the_millisatoshi(lnd: Lnd, node: LndSimulator, msat: int) -> None:
    price = Money.from_minor(msat, "BTC")
    created = await lnd.create(connection(lnd, InProcess(node)), offer_request(price))
    assert created.price == price
    assert (await lnd.fetch(connection(lnd, InProcess(node)), created.vendor_id)).price == price


@pytest.mark.parametrize("price", [Money(120, "CHF"), Money(1, "XOF"), Money("1.001", "KWD"), Money(0, "BTC")], ids=str)
async def test_what_is_no_amount_of_bitcoin_is_refused_before_anything_is_sent(lnd: Lnd, price: Money) -> None:
    answering = canned({})
    with pytest.raises(InvalidMoney):
        await lnd.create(connection(lnd, answering), offer_request(price))
    assert not answering.requests


async def test_a_description_is_cut_where_an_invoice_has_no_room_and_not_within_a_letter(
    lnd: Lnd, node: LndSimulator
) -> None:
    await lnd.create(connection(lnd, InProcess(node)), offer_request(DUE, description="é" * 400))
    [invoice] = node.invoices.values()
    assert invoice.memo == "é" * 319


async def test_an_offer_lasts_thirty_days_at_most(lnd: Lnd, node: LndSimulator) -> None:
    far = timedelta(days=400)
    request = offer_request(DUE, expires_in=far, expires_at=NOON + far)
    created = await lnd.create(connection(lnd, InProcess(node)), request)
    assert created.offer
    assert created.offer.expires_at == NOON + timedelta(days=30)


async def test_private_channels_are_named_on_request(node: LndSimulator) -> None:
    lnd = provider(private_channels=True)
    await lnd.create(connection(lnd, InProcess(node)), offer_request(DUE))
    [invoice] = node.invoices.values()
    assert invoice.private


async def test_an_invoice_that_exists_is_shown_and_not_made_again(lnd: Lnd, node: LndSimulator) -> None:
    http = connection(lnd, InProcess(node))

    first, second = [await lnd.create(http, offer_request(DUE)) for _ in range(2)]

    assert len(node.invoices) == 1
    assert (second.vendor_id, second.offer, second.attempt_id) == (first.vendor_id, first.offer, ATTEMPT_ID)


async def test_an_invoice_that_exists_but_is_not_shown_may_have_been_made(lnd: Lnd, node: LndSimulator) -> None:
    # given
    http = connection(lnd, InProcess(node))
    await lnd.create(http, offer_request(DUE))
    node.faults.on("lnd", "payments.fetch").script(NoConnection())

    # when, then: a failure that says "nothing happened" would send the payer elsewhere
    with pytest.raises(OutcomeUnknown, match="exists"):
        await lnd.create(http, offer_request(DUE))


@pytest.mark.parametrize(
    ("hash", "bolt11", "text"),
    [
        (b"\x22" * 32, "lnbcrt21u1pexample", "another payment hash"),
        (None, "lntb21u1pexample", "an invoice of testnet"),
        (None, "lnbc21u1pexample", "an invoice of mainnet"),
        (None, "bc1qexample", "no network we know"),
    ],
)
async def test_an_answer_about_something_else_is_a_mismatch(
    lnd: Lnd, hash: bytes | None, bolt11: str, text: str
) -> None:
    ours = hashlib.sha256(await preimage_of(lnd, ATTEMPT_ID)).digest()
    answering = canned({"r_hash": encoded(hash or ours), "payment_request": bolt11})
    with pytest.raises(Mismatch, match=text):
        await lnd.create(connection(lnd, answering), offer_request(DUE))


async def test_an_invoice_over_another_amount_shows_as_another_price(lnd: Lnd) -> None:
    ours = hashlib.sha256(await preimage_of(lnd, ATTEMPT_ID)).digest()
    answering = canned({"r_hash": encoded(ours), "payment_request": "lnbcrt21m1pexample"})
    snapshot = await lnd.create(connection(lnd, answering), offer_request(DUE))
    assert snapshot.price == Money.from_sat(2_100_000)


@pytest.mark.parametrize(
    ("text", "network", "msat"),
    [
        ("lnbc2500u1pvjluezpp5", "mainnet", 250_000_000),  # the amounts of BOLT 11's own examples
        ("lnbc20m1pvjluezhp58", "mainnet", 2_000_000_000),
        ("lntb20m1pvjluezhp58", "testnet", 2_000_000_000),
        ("lnbc9678785340p1pwmna7lpp5", "mainnet", 967_878_534),
        ("LNBC25M1PVJLUEZ", "mainnet", 2_500_000_000),
        ("lntbs1u1p", "signet", 100_000),
        ("lnbcrt11p", "regtest", 100_000_000_000),
        ("lnbc1pvjluezpp5", "mainnet", None),
        ("lnbc2500000001p1p", "mainnet", None),  # a tenth of a millisatoshi
        ("lnxy20m1p", "", None),
        ("", "", None),
    ],
)
def test_a_payment_request_says_its_network_and_amount(text: str, network: str, msat: int | None) -> None:
    price = None if msat is None else Money.from_minor(msat, "BTC")
    assert read_request(text) == (network, price)


def test_the_simulators_payment_requests_are_as_short_as_they_can_be() -> None:
    written = [payment_request("mainnet", msat, Random(1)).rpartition("1")[0] for msat in (2_100_000, 1, 10**11, 1500)]
    assert written == ["lnbc21u", "lnbc10p", "lnbc1", "lnbc15n"]


# Fetching


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("OPEN", S.PENDING),
        ("ACCEPTED", S.PROCESSING),
        ("SETTLED", S.PAID),
        ("CANCELED", S.EXPIRED),
        ("INVENTED_TOMORROW", S.UNKNOWN),
    ],
)
async def test_a_state_means_what_the_table_says(lnd: Lnd, theirs: str, ours: PaymentStatus) -> None:
    answering = canned(PAID | {"state": theirs})

    snapshot = await lnd.fetch(connection(lnd, answering), HASH.hex())

    assert answering.requests[0].url == f"https://node.example.ch:8080/v1/invoice/{HASH.hex()}"
    assert (snapshot.status, snapshot.price, snapshot.live) == (ours, DUE, False)
    assert snapshot.received == (DUE if ours is S.PAID else None)


@pytest.mark.parametrize("preimage", [encoded(b"\x22" * 32), encoded(PREIMAGE[:-1]), ""])
async def test_money_without_the_preimage_that_proves_it_is_a_mismatch(lnd: Lnd, preimage: str) -> None:
    with pytest.raises(Mismatch, match="does not prove"):
        await lnd.fetch(connection(lnd, canned(PAID | {"r_preimage": preimage})), HASH.hex())


async def test_another_invoice_than_was_asked_for_is_a_mismatch(lnd: Lnd) -> None:
    with pytest.raises(Mismatch, match="another invoice"):
        await lnd.fetch(connection(lnd, canned(INVOICE)), "ab" * 32)


async def test_what_is_real_money_is_told_by_the_invoice(lnd: Lnd) -> None:
    real = canned(INVOICE | {"payment_request": "lnbc21u1pexample"})
    assert (await lnd.fetch(connection(lnd, real), HASH.hex())).live is True


@pytest.mark.parametrize(
    "changes",
    [
        {"r_hash": "no base64!"},
        {"r_hash": 7},
        {"r_hash": encoded(b"short")},
        {"value_msat": "2.5"},
        {"creation_date": str(10**14)},
    ],
)
async def test_an_answer_that_cannot_be_read_is_no_answer(lnd: Lnd, changes: dict[str, JsonOut]) -> None:
    with pytest.raises(OutcomeUnknown):
        await lnd.fetch(connection(lnd, canned(INVOICE | changes)), HASH.hex())


# Looking up


async def test_a_lost_answer_is_found_by_the_hash_that_it_must_have(lnd: Lnd, node: LndSimulator) -> None:
    node.faults.on("lnd", "payments.create").script(Reset())
    http = connection(lnd, InProcess(node))
    with pytest.raises(OutcomeUnknown):
        await lnd.create(http, offer_request(DUE))

    found, missing = await lnd.find(http, attempt()), await lnd.find(http, attempt("att_other"))

    assert found is not None
    assert (found.price, found.attempt_id, found.vendor_id) == (DUE, ATTEMPT_ID, next(iter(node.invoices)).hex())
    assert missing is None


async def test_an_invoice_made_with_the_old_key_is_found_while_it_is_replaced(node: LndSimulator) -> None:
    old, new = provider(), provider(preimage_key=Secrets(OTHER_KEY, KEY))
    created = await old.create(connection(old, InProcess(node)), offer_request(DUE))

    found = await new.find(connection(new, InProcess(node)), attempt())

    assert found is not None
    assert found.vendor_id == created.vendor_id


@pytest.mark.parametrize(
    "answer", [canned(said(5, "Not Found"), 404), Canned(status=404, content=b"<html>"), canned({}, 404)]
)
async def test_a_404_that_is_not_the_nodes_own_word_proves_no_absence(lnd: Lnd, answer: Canned) -> None:
    with pytest.raises(OutcomeUnknown):
        await lnd.find(connection(lnd, answer), attempt())


# Revoking


async def test_a_canceled_invoice_can_no_longer_be_paid(lnd: Lnd, node: LndSimulator) -> None:
    http = connection(lnd, InProcess(node))
    created = await lnd.create(http, offer_request(DUE))

    revoked = [await lnd.revoke(http, attempt(vendor_id=created.vendor_id)) for _ in range(2)]

    assert [snapshot.status for snapshot in revoked] == [S.CANCELED, S.CANCELED]
    with pytest.raises(LookupError):
        node.pay(created.vendor_id)


async def test_what_was_paid_before_it_was_revoked_is_paid(lnd: Lnd, node: LndSimulator) -> None:
    http = connection(lnd, InProcess(node))
    created = await lnd.create(http, offer_request(DUE))
    node.pay(created.vendor_id)
    snapshot = await lnd.revoke(http, attempt(vendor_id=created.vendor_id))
    assert (snapshot.status, snapshot.received) == (S.PAID, DUE)


async def test_a_node_that_forgets_what_it_canceled_proves_it_by_that(lnd: Lnd, clock: ManualClock) -> None:
    node = LndSimulator(macaroon=MACAROON, network="regtest", clock=clock, forgets_canceled=True)
    http = connection(lnd, InProcess(node))
    created = await lnd.create(http, offer_request(DUE))

    revoked = [await lnd.revoke(http, attempt(vendor_id=created.vendor_id)) for _ in range(2)]

    assert [snapshot.status for snapshot in revoked] == [S.CANCELED, S.CANCELED]


async def test_an_invoice_we_never_learned_of_is_not_revoked_by_being_absent(lnd: Lnd, node: LndSimulator) -> None:
    with pytest.raises(Rejected) as caught:
        await lnd.revoke(connection(lnd, InProcess(node)), attempt())
    assert caught.value.reason == "absent"


class Scripted(Canned):
    """Answers one after the other."""

    def __init__(self, *answers: Canned) -> None:
        super().__init__()
        self.answers = list(answers)

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return await self.answers.pop(0).send(request)


async def test_what_the_node_refuses_to_show_is_neither_absent_nor_canceled(lnd: Lnd) -> None:
    refused, done = canned(said(3, "no"), 400), canned({})
    known = attempt(vendor_id=HASH.hex())

    with pytest.raises(Rejected, match="no"):
        await lnd.find(connection(lnd, Scripted(refused)), attempt())
    for answers in ((refused,), (done, refused)):
        with pytest.raises(Rejected, match="no"):
            await lnd.revoke(connection(lnd, Scripted(*answers)), known)


async def test_an_existing_invoice_that_is_another_is_a_mismatch(lnd: Lnd) -> None:
    exists = canned(said(2, "invoice with payment hash already exists"), 500)
    with pytest.raises(Mismatch, match="another invoice"):
        await lnd.create(connection(lnd, Scripted(exists, canned(INVOICE))), offer_request(DUE))


# Errors


@pytest.mark.parametrize(
    ("status", "answer", "error", "reason"),
    [
        (500, said(2, "wallet locked, unlock it to enable full RPC access"), Refused, "not_ready"),
        (500, said(2, "wallet not created, create one to enable full RPC access"), Refused, "not_ready"),
        (500, said(2, "waiting to start, RPC services not available"), Refused, "not_ready"),
        (500, said(2, "the RPC server is in the process of starting up, but not yet ready"), Refused, "not_ready"),
        (500, said(2, "server is still in the process of starting"), Refused, "not_ready"),
        (500, said(2, "expected 1 macaroon, got 0"), CredentialRefused, ""),
        (500, said(2, "cannot get macaroon: root key with id 0 doesn't exist"), CredentialRefused, ""),
        (500, said(2, "verification failed: signature mismatch"), CredentialRefused, ""),
        (500, said(2, "permission denied"), CredentialRefused, ""),
        (500, said(2, "memo too large: 1025 bytes (maxsize=1024)"), Rejected, ""),
        (400, said(3, 'proto: (line 1:2): unknown field "moon"'), Rejected, ""),
        (429, said(8, "slow down"), Throttled, ""),
        (501, said(12, "unknown service invoicesrpc.Invoices"), Rejected, ""),
        (500, said(2, "database is closed"), OutcomeUnknown, ""),
        (500, {"code": 2, "message": 7}, OutcomeUnknown, ""),
        (500, [], OutcomeUnknown, ""),
        (503, said(14, "connection error"), OutcomeUnknown, ""),
    ],
)
async def test_an_error_means_what_the_table_says(
    lnd: Lnd, status: int, answer: JsonOut, error: type[CallFailed], reason: str
) -> None:
    with pytest.raises(error) as caught:
        await lnd.create(connection(lnd, canned(answer, status)), offer_request(DUE))
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert MACAROON not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [Reset(), Truncate(), Hang(0), BadJson(), Html(), Status(500)], ids=lambda one: one.name
)
async def test_a_lost_answer_is_unknown(lnd: Lnd, node: LndSimulator, fault: Fault) -> None:
    node.faults.on("lnd", "payments.create").script(fault)
    with pytest.raises(OutcomeUnknown):
        await lnd.create(connection(lnd, InProcess(node)), offer_request(DUE))


async def test_nothing_is_asked_where_there_is_no_connection(lnd: Lnd, node: LndSimulator) -> None:
    node.faults.on("lnd", "payments.create").script(NoConnection())
    with pytest.raises(NotSent):
        await lnd.create(connection(lnd, InProcess(node)), offer_request(DUE))
    assert not node.invoices


@pytest.mark.parametrize("macaroon", ["cd" * 60, "no hexadecimal digits"])
async def test_a_wrong_macaroon_is_told_apart_from_a_missing_invoice(node: LndSimulator, macaroon: str) -> None:
    stranger, owner = provider(macaroon=Secret(macaroon)), provider()
    with pytest.raises(CredentialRefused):
        await stranger.fetch(connection(stranger, InProcess(node)), HASH.hex())
    with pytest.raises(Rejected) as caught:
        await owner.fetch(connection(owner, InProcess(node)), HASH.hex())
    assert (caught.value.status, caught.value.reason) == (404, "absent")


async def test_a_locked_node_is_refused_for_now(lnd: Lnd, node: LndSimulator) -> None:
    node.locked = True
    with pytest.raises(Refused):
        await lnd.create(connection(lnd, InProcess(node)), offer_request(DUE))
    assert not node.invoices


# Lists


async def test_a_list_goes_back_page_by_page_to_what_may_still_have_been_paid(
    lnd: Lnd, node: LndSimulator, clock: ManualClock
) -> None:
    # given: six a day for forty days, each paid at once
    http = connection(lnd, InProcess(node))
    for number in range(251):
        created = await lnd.create(http, offer_request(DUE, attempt_id=f"att_{number}"))
        node.pay(created.vendor_id)
        await clock.advance(86_400 * 40 / 251)
    node.requests.clear()

    # when
    everything = [delivery async for delivery in lnd.list_deliveries(http, NOON)]
    pages = len(node.requests)
    node.requests.clear()
    the_last_days = [delivery async for delivery in lnd.list_deliveries(http, clock.now() - timedelta(days=2))]

    # then
    assert len({delivery.dedup_key for delivery in everything}) == 251
    assert pages == 3
    assert len(the_last_days) == 12


async def test_what_was_made_long_ago_and_paid_just_now_is_listed(
    lnd: Lnd, node: LndSimulator, clock: ManualClock
) -> None:
    month = timedelta(days=30)
    http = connection(lnd, InProcess(node))
    created = await lnd.create(http, offer_request(DUE, expires_in=month, expires_at=NOON + month))
    await clock.advance(29 * 86_400)
    node.pay(created.vendor_id)

    found = [delivery async for delivery in lnd.list_deliveries(http, clock.now() - timedelta(hours=1))]

    assert [(one.vendor_id, one.type, one.recognised) for one in found] == [(created.vendor_id, "SETTLED", True)]


async def test_a_node_that_shows_the_same_page_for_ever_is_left(lnd: Lnd) -> None:
    answering = canned({"invoices": [PAID] * 100, "last_index_offset": "600", "first_index_offset": "500"})
    found = [delivery async for delivery in lnd.list_deliveries(connection(lnd, answering), NOON)]
    assert len({delivery.dedup_key for delivery in found}) == 1
    assert len(answering.requests) == 2


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (PAID, 1),
        (PAID | {"htlcs": [], "features": {}, "is_keysend": False}, 1),
        (PAID | {"payment_request": ""}, 0),
        (PAID | {"settle_date": str(int(NOON.timestamp()) - 1)}, 0),
        (INVOICE, 0),
        (PAID | {"state": "CANCELED"}, 0),
        (PAID | {"r_hash": ""}, 0),
        ("no invoice", 0),
    ],
    ids=["settled", "more told", "no invoice of ours", "too early", "open", "canceled", "unreadable", "nonsense"],
)
async def test_a_list_may_hold_anything(lnd: Lnd, row: JsonOut, count: int) -> None:
    answering = canned({"invoices": [row], "first_index_offset": "1"})
    assert len([found async for found in lnd.list_deliveries(connection(lnd, answering), NOON)]) == count


async def test_a_statement_has_what_was_settled_in_its_time(lnd: Lnd, node: LndSimulator, clock: ManualClock) -> None:
    http = connection(lnd, InProcess(node))
    paid, later, _open = [await lnd.create(http, offer_request(DUE, attempt_id=f"att_{n}")) for n in range(3)]
    node.pay(paid.vendor_id)
    await clock.advance(600)
    node.pay(later.vendor_id, msat=2_100_007)

    everything = [line async for line in lnd.statement(http, NOON, NOON + timedelta(days=1))]
    [early] = [line async for line in lnd.statement(http, NOON, NOON + timedelta(minutes=10))]

    assert (early.vendor_id, early.money, early.at) == (paid.vendor_id, DUE, NOON)
    assert [line.money for line in everything] == [Money.from_minor(2_100_007, "BTC"), DUE]


# The simulator


def ask(node: LndSimulator, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
    headers = [("Grpc-Metadata-macaroon", node.macaroon)]
    answer = node.handle(Request(method=method, target=target, headers=headers, body=body))
    return answer.status, decode_json(answer.body)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"value":"1","value_msat":"1000"}', 500, "sat and msat arguments are mutually exclusive"),
        (b'{"value_msat":"-1"}', 500, "amount cannot be negative"),
        (b'{"r_preimage":"AAAA"}', 500, "invalid preimage length of 3, want 32"),
        (b'{"expiry":"31536001"}', 500, "expiry of 31536001 seconds greater than max expiry of 31536000 seconds"),
        (b'{"moon":1}', 400, 'proto: (line 1:2): unknown field "moon"'),
        (b"not json", 400, "proto: syntax error (line 1:1): unexpected token"),
        (b'{"value_msat":"much"}', 400, "proto: (line 1:2): invalid value for int64 field value_msat: much"),
    ],
)
def test_the_simulated_node_complains_as_a_node_does(
    node: LndSimulator, body: bytes, status: int, message: str
) -> None:
    assert ask(node, "POST", "/v1/invoices", body) == (status, said(2 if status == 500 else 3, message))


def test_the_simulated_node_pages_both_ways(node: LndSimulator) -> None:
    for _ in range(5):
        ask(node, "POST", "/v1/invoices", b'{"value":"1"}')

    def page(query: str) -> list[str]:
        return [invoice["add_index"] for invoice in ask(node, "GET", f"/v1/invoices?{query}")[1]["invoices"]]

    assert page("num_max_invoices=2") == ["1", "2"]
    assert page("num_max_invoices=2&index_offset=2") == ["3", "4"]
    assert page("num_max_invoices=2&reversed=true") == ["4", "5"]
    assert page("num_max_invoices=2&reversed=true&index_offset=4") == ["2", "3"]
    assert page(f"creation_date_start={int(NOON.timestamp()) + 1}") == []


def test_what_expires_is_canceled_by_the_node(node: LndSimulator) -> None:
    _, added = ask(node, "POST", "/v1/invoices", b'{"value":"1","expiry":"60"}')
    node.clock = ManualClock(NOON + timedelta(seconds=60))
    _, invoice = ask(node, "GET", f"/v1/invoice/{base64.b64decode(added['r_hash']).hex()}")
    assert invoice["state"] == "CANCELED"


# The whole way, through the shop


async def test_a_payment_is_found_by_the_sweep_alone(till: Till, node: LndSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer
    node.pay(payment.offer.payload)

    await till.clock.advance(60)
    await till.settle()

    paid = await till.payments.get("order-1")
    assert (paid.status, paid.received, paid.route) == (S.PAID, DUE, ("lnd:closed",))
    assert [event.reference for event in till.paid] == ["order-1"]
    node.ledger.exactly_once(charge(reference="order-1"))


async def test_a_payment_is_found_by_asking_for_what_was_settled(till: Till, node: LndSimulator) -> None:
    # given: a payment of ours, and one of another program on the same node
    payment = await till.create("order-1", DUE)
    node.pay(payment.attempts[0].vendor_id)
    _, foreign = ask(node, "POST", "/v1/invoices", b'{"value":"1"}')
    node.pay(foreign["payment_request"])

    # when
    await till.run(till.hub.reconcile())
    await till.settle()

    # then
    assert [event.reference for event in till.paid] == ["order-1"]
    assert not till.flagged


async def test_after_a_lost_answer_there_is_one_invoice_and_it_is_shown(till: Till, node: LndSimulator) -> None:
    node.faults.on("lnd", "payments.create").script(Reset())

    payment = await till.create("order-1", DUE)

    assert payment.route == ("lnd:offered",)
    assert payment.offer
    assert len(node.invoices) == 1
    node.pay(payment.offer.payload)
    assert (await till.refresh("order-1")).status is S.PAID
    node.ledger.exactly_once(charge(reference="order-1"))


async def test_another_node_is_asked_and_the_lost_request_is_proven_lost(clock: ManualClock) -> None:
    # given
    first, second = [LndSimulator(macaroon=MACAROON, network="regtest", clock=clock, seed=seed) for seed in (1, 2)]
    nodes = {"lnd": InProcess(first), "spare": InProcess(second)}
    first.faults.on("lnd", "payments.create").always(Status(503))
    spare = provider(name="spare", preimage_key=Secrets(OTHER_KEY))

    # when
    async with Till(first, provider(), spare, clock=clock, wire=lambda vendor: nodes[vendor.name]) as till:
        payment = await till.create("order-1", DUE)
        await clock.advance(60)
        await till.settle()
        settled = await till.payments.get("order-1")

    # then
    assert payment.route == ("lnd:unknown", "spare:offered")
    assert settled.route == ("lnd:failed", "spare:offered")
    assert (len(first.invoices), len(second.invoices)) == (0, 1)


async def test_what_nobody_pays_expires(till: Till, node: LndSimulator) -> None:
    await till.create("order-1", DUE)
    await till.clock.advance(16 * 60)
    await till.settle()
    assert (await till.payments.get("order-1")).status is S.EXPIRED


async def test_a_payment_is_canceled_with_proof(till: Till, node: LndSimulator) -> None:
    await till.create("order-1", DUE)
    canceled = await till.run(till.payments.cancel("order-1"))
    assert canceled.status is S.CANCELED
    assert [invoice.state for invoice in node.invoices.values()] == ["CANCELED"]


async def test_a_second_offer_is_made_once_the_first_is_revoked(till: Till, node: LndSimulator) -> None:
    await till.create("order-1", DUE)
    second = await till.run(till.payments.renew("order-1"))
    assert second.route == ("lnd:closed", "lnd:offered")
    assert sorted(invoice.state for invoice in node.invoices.values()) == ["CANCELED", "OPEN"]


async def test_too_much_is_paid_and_flagged(till: Till, node: LndSimulator) -> None:
    payment = await till.create("order-1", DUE)
    node.pay(payment.attempts[0].vendor_id, msat=2_500_000)
    paid = await till.refresh("order-1")
    assert (paid.status, paid.received) == (S.PAID, Money.from_sat(2500))
    assert paid.anomalies == {Anomaly.OVERPAID}


async def test_no_secret_is_in_a_log_line_or_an_error(
    till: Till, node: LndSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Status(400, body=f'{{"code": 3, "message": "header {MACAROON} and {KEY}"}}'.encode())
    node.faults.on("lnd", "payments.create").always(echo)

    with pytest.raises(CallFailed) as caught:
        await till.create("order-1", DUE)

    told = caplog.text + str(caught.value) + repr(caught.value)
    assert MACAROON not in told
    assert KEY not in told


# Over sockets


async def test_an_invoice_is_created_paid_and_fetched_over_sockets(node: LndSimulator) -> None:
    async with Edge(node) as edge:
        lnd = provider(base_url=edge.url)
        http = connection(lnd, HttpxTransport())
        created = await lnd.create(http, offer_request(DUE))
        again = await lnd.create(http, offer_request(DUE))
        node.pay(created.vendor_id)
        snapshot = await lnd.fetch(http, created.vendor_id)
        await http.aclose()

    assert (again.vendor_id, len(node.invoices)) == (created.vendor_id, 1)
    assert (snapshot.status, snapshot.received) == (S.PAID, DUE)


def self_signed(folder: Path, name: str) -> tuple[bytes, ssl.SSLContext]:
    """A certificate as a node makes one, and what serves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return pem, context


async def answer_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"code":5,"message":"unable to locate invoice","details":[]}'
    writer.write(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


async def answer_locked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    await reader.readexactly(length)
    body = b'{"code":2,"message":"wallet locked, unlock it to enable full RPC access","details":[]}'
    writer.write(b"HTTP/1.1 500 Error\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("form", ["PEM", "DER"])
async def test_the_nodes_own_certificate_is_trusted_and_no_other(tmp_path: Path, form: str) -> None:
    # given
    pem, serving = self_signed(tmp_path, "node")
    other, _ = self_signed(tmp_path, "other")
    server = await asyncio.start_server(answer_open, "127.0.0.1", 0, ssl=serving)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    own = pem if form == "PEM" else ssl.PEM_cert_to_DER_cert(pem.decode())

    async def look(certificate: bytes | None) -> HttpResponse:
        lnd = provider(base_url=url, certificate=certificate)
        transport = HttpxTransport(verify=lnd.ssl_context() or True)
        try:
            return await transport.send(HttpRequest(method="GET", url=f"{url}/v1/invoice/{HASH.hex()}"))
        finally:
            await transport.aclose()

    # when, then
    async with server:
        assert (await look(own)).status == 404
        for certificate in (other, None):
            with pytest.raises(NotSent):
                await look(certificate)


async def test_the_test_kit_makes_the_provider_from_the_simulated_account() -> None:
    # given
    fakes = Fakes(seed=7, clock=ManualClock(NOON))
    lnd = fakes.provider("lnd")
    http = connection(lnd, fakes.transport(lnd))

    # when
    created = await lnd.create(http, offer_request(DUE))
    fakes.vendor("lnd").pay(created.vendor_id)
    snapshot = await lnd.fetch(http, created.vendor_id)

    # then
    assert (snapshot.status, snapshot.live, lnd.live) == (S.PAID, False, False)
    fakes.ledger.exactly_once(charge(vendor="lnd", amount=DUE))


@pytest.mark.parametrize(("own", "error"), [(True, Refused), (False, NotSent)])
async def test_a_hub_trusts_the_nodes_own_certificate_by_itself(
    tmp_path: Path, own: bool, error: type[CallFailed]
) -> None:
    # given: a locked node, and a hub that has its certificate or another
    pem, serving = self_signed(tmp_path, "node")
    other, _ = self_signed(tmp_path, "other")
    server = await asyncio.start_server(answer_locked, "127.0.0.1", 0, ssl=serving)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    lnd = provider(base_url=url, certificate=pem if own else other)

    # when, then
    async with server, Holdfast(store="memory://", secret=Secrets("hub-secret"), payments=[lnd]) as hub:
        with pytest.raises(error) as caught:
            await hub.payments.create("order-1", DUE)
    assert type(caught.value) is error
