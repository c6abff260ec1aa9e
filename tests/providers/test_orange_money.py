"""Orange Money: a page of ten minutes, a status only who has the token can ask for, a notification nobody signs."""

import json
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

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
from holdfast.http.tokens import TokenVendor
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.outcome import Effect
from holdfast.payments.models import PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Lookup,
    OfferRequest,
    PaymentProvider,
    SupportsLookup,
    SupportsRefunds,
    SupportsRevoking,
    WebhookTrust,
)
from holdfast.providers.orange_money import CURRENCIES, OrangeMoney, attempt_of, order_id_of
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import AuthExpired, BadJson, Dns, Fault, Html, Latency, Reset, Stage, Status, Truncate
from holdfast.testing.intents import charge, offer
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.orange_money import OrangeMoneySimulator
from holdfast.values import Money, Secret
from holdfast.webhooks.door import ReceivesWebhooks
from tests.providers.connection import NOON, Unguarded, canned, connection, incoming, offer_request
from tests.providers.till import Till

ATTEMPT = "6d0c1f0a6d1e5c39ad551f2f6b9d6a01"
ORDER = "nugb6ctndzodtlkvd4xwxhlkae"
DUE = Money(50_000, "GNF")
HOME = "https://shop.example/thanks"
MADE: dict[str, JsonOut] = {
    "status": 201,
    "message": "OK",
    "pay_token": "pay-token",
    "payment_url": "https://webpayment.orange-money.com/payment/pay_token/pay-token",
    "notif_token": "dd497bda3b250e536186fc0663f32f40",
}


def orange(**changes: object) -> OrangeMoney:
    facts: dict[str, object] = {
        "client_id": "orange-client",
        "client_secret": Secret("orange-client-secret"),
        "merchant_key": Secret("orange-merchant-key"),
        "country": "gn",
        "home_url": HOME,
        "base_url": "http://127.0.0.1",
    }
    return OrangeMoney(**facts | changes)  # type: ignore[arg-type]  # its own fields


def wanted(price: Money = DUE, **changes: object) -> OfferRequest:
    return offer_request(price, **{"attempt_id": ATTEMPT} | changes)


class Signed:
    """A connection with a token, and no guard."""

    def __init__(self, vendor: OrangeMoneySimulator) -> None:
        self._inner = InProcess(vendor)
        vendor.tokens["token"] = vendor.clock.now() + timedelta(days=1)

    async def send(self, request: HttpRequest) -> HttpResponse:
        headers = (*request.headers, ("authorization", "Bearer token"))
        return await self._inner.send(
            HttpRequest(method=request.method, url=request.url, headers=headers, content=request.content)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> OrangeMoneySimulator:
    return OrangeMoneySimulator(clock=clock, country="gn", currency="GNF")


@pytest.fixture
def http(vendor: OrangeMoneySimulator) -> Http:
    return connection(orange(), Signed(vendor))


@pytest.fixture
async def till(vendor: OrangeMoneySimulator, clock: ManualClock) -> AsyncGenerator[Till]:
    async with Till(vendor, orange(), clock=clock) as till:
        yield till


# Facts


def test_it_makes_a_page_that_cannot_be_found_again_nor_taken_back() -> None:
    provider: PaymentProvider = orange()
    door: ReceivesWebhooks = orange()
    able = provider.capabilities

    assert isinstance(provider, TokenVendor)
    for cannot in (SupportsLookup, SupportsRefunds, SupportsRevoking):
        assert not isinstance(provider, cannot)
    assert (able.create_effect, able.lookup, able.payer_visible, able.payer) == (Effect.ONCE, Lookup.NONE, False, False)
    assert able.minimum_expiry == timedelta(minutes=10)
    assert (door.scheme, able.webhook_trust) == (None, WebhookTrust.KEYED_URL)


@pytest.mark.parametrize(("country", "currency"), CURRENCIES.items())
def test_a_country_has_one_currency(country: str, currency: str) -> None:
    assert orange(country=country).capabilities.currencies == frozenset({currency})


def test_a_currency_can_be_named_and_has_to_be_where_we_know_none() -> None:
    assert orange(country="mg", currency="MGA").capabilities.currencies == frozenset({"MGA"})
    with pytest.raises(ConfigurationError, match=r"of mg.*currency="):
        orange(country="mg")


@pytest.mark.parametrize(
    ("country", "base_url", "live"),
    [
        ("gn", "https://api.orange.com", True),
        ("dev", "https://api.orange.com", False),
        ("gn", "http://127.0.0.1", False),
    ],
)
def test_money_is_real_outside_the_sandbox(country: str, base_url: str, live: bool) -> None:
    assert orange(country=country, base_url=base_url).live is live


NAMES = ("ORANGE_CLIENT_ID", "ORANGE_CLIENT_SECRET", "ORANGE_MERCHANT_KEY", "ORANGE_COUNTRY")


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{name}-to-hide")
    monkeypatch.setenv("ORANGE_CLIENT_ID", "client")
    monkeypatch.setenv("ORANGE_COUNTRY", "ci")

    made = OrangeMoney.from_env()

    assert (made.country, made.base_url) == ("ci", "https://api.orange.com")
    assert "to-hide" not in repr(made)


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "dev")
    monkeypatch.delenv(missing)
    with pytest.raises(MissingCredential, match=missing):
        OrangeMoney.from_env()


# What is sent


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    answer = canned(MADE, 201)
    snapshot = await orange().create(connection(orange(), answer), wanted())

    [asked] = answer.requests
    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/orange-money-webpay/gn/v1/webpayment")
    assert json.loads(asked.content) == {
        "merchant_key": "orange-merchant-key",
        "currency": "GNF",
        "order_id": ORDER,
        "amount": 50000,
        "return_url": HOME,
        "cancel_url": HOME,
        "notif_url": "https://api.example.ch/webhooks/vendor",
        "lang": "fr",
        "reference": "consultation-4711",
    }
    assert (snapshot.vendor_id, snapshot.status) == (f"{ORDER}:50000:pay-token", PaymentStatus.PENDING)
    assert snapshot.offer is not None
    assert snapshot.offer.checkout_url == MADE["payment_url"]


def test_an_attempts_id_fits_into_their_thirty_characters_and_comes_back() -> None:
    assert order_id_of(ATTEMPT) == ORDER
    assert attempt_of(ORDER) == ATTEMPT
    for attempt in ("0" * 32, "f" * 32):
        assert attempt_of(order_id_of(attempt)) == attempt
        assert len(order_id_of(attempt)) == 26


async def test_in_the_sandbox_everything_is_in_its_own_currency() -> None:
    answer = canned(MADE, 201)
    dev = orange(country="dev", currency="GNF")
    await dev.create(connection(dev, answer), wanted())
    assert json.loads(answer.requests[0].content)["currency"] == "OUV"
    assert answer.requests[0].url.endswith("/orange-money-webpay/dev/v1/webpayment")


@pytest.mark.parametrize(
    ("price", "sent"),
    [
        (Money(5_000, "XOF"), 5000),
        (Money(1, "XAF"), 1),
        (Money(50_000, "GNF"), 50000),
        (Money("1500.00", "MGA"), 1500),
        (Money("3.000", "KWD"), 3),
    ],
    ids=str,
)
async def test_an_amount_is_a_whole_number(price: Money, sent: int) -> None:
    answer, there = canned(MADE, 201), orange(currency=price.currency)
    await there.create(connection(there, answer), wanted(price))
    assert json.loads(answer.requests[0].content)["amount"] == sent


async def test_another_currency_than_the_countrys_is_refused_before_anything_is_sent() -> None:
    answer = canned(MADE, 201)
    with pytest.raises(InvalidMoney, match="one currency in gn"):
        await orange().create(connection(orange(), answer), wanted(Money(5_000, "XOF")))
    assert not answer.requests


@pytest.mark.parametrize("price", [Money("1500.50", "MGA"), Money("0.001", "KWD")], ids=str)
async def test_a_fraction_is_refused_before_anything_is_sent(price: Money) -> None:
    answer, there = canned(MADE, 201), orange(currency=price.currency)
    with pytest.raises(InvalidMoney, match="whole amounts"):
        await there.create(connection(there, answer), wanted(price))
    assert not answer.requests


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"webhook_url": "https://shop.example/" + "w" * 100}, "public_url"),
        ({"return_url": "https://shop.example/" + "r" * 100}, "return_url"),
    ],
)
async def test_addresses_they_would_not_take_are_refused_before_anything_is_sent(
    changes: dict[str, object], words: str
) -> None:
    answer = canned(MADE, 201)
    with pytest.raises(InvalidInput, match=words):
        await orange().create(connection(orange(), answer), wanted(DUE, **changes))
    with pytest.raises(InvalidInput, match="home_url"):
        await orange(home_url="").create(connection(orange(), answer), wanted())
    assert not answer.requests


async def test_a_long_reference_is_cut_and_a_merchants_name_stands_above_it() -> None:
    answer = canned(MADE, 201)
    http = connection(orange(), answer)
    await orange().create(http, wanted(reference="r" * 64))
    await orange(merchant="Clinique Ambroise").create(http, wanted())
    assert [json.loads(asked.content)["reference"] for asked in answer.requests] == ["r" * 30, "Clinique Ambroise"]


@pytest.mark.parametrize(("minutes", "shown"), [(5, 5), (10, 10), (15, 10), (60, 10)])
async def test_an_offer_ends_with_its_page(minutes: int, shown: int) -> None:
    asked = wanted(expires_in=timedelta(minutes=minutes), expires_at=NOON + timedelta(minutes=minutes))
    snapshot = await orange().create(connection(orange(), canned(MADE, 201)), asked)
    assert snapshot.offer is not None
    assert snapshot.offer.expires_at == NOON + timedelta(minutes=shown)


async def test_the_token_is_asked_for_with_basic_credentials_in_a_form() -> None:
    answer = canned({"access_token": "secret-token", "token_type": "Bearer", "expires_in": "7776000"})
    token = await orange().fetch_token(connection(orange(), answer))

    [asked] = answer.requests
    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/oauth/v3/token")
    assert asked.content == b"grant_type=client_credentials"
    assert ("authorization", "Basic b3JhbmdlLWNsaWVudDpvcmFuZ2UtY2xpZW50LXNlY3JldA==") in asked.headers
    assert (token.value.reveal(), token.expires_in) == ("secret-token", 7776000)


# What is answered


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("INITIATED", PaymentStatus.PENDING),
        ("PENDING", PaymentStatus.PROCESSING),
        ("EXPIRED", PaymentStatus.EXPIRED),
        ("SUCCESS", PaymentStatus.PAID),
        ("FAILED", PaymentStatus.FAILED),
        ("INVENTED", PaymentStatus.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_table_says(theirs: str, ours: PaymentStatus) -> None:
    answer = canned({"status": theirs, "order_id": ORDER, "txnid": "MP150709.1341.A00073"}, 201)
    snapshot = await orange().fetch(connection(orange(), answer), f"{ORDER}:50000:pay-token")

    assert json.loads(answer.requests[0].content) == {
        "order_id": ORDER,
        "amount": 50000,
        "pay_token": "pay-token",
    }
    assert (snapshot.status, snapshot.attempt_id) == (ours, ATTEMPT)
    assert snapshot.received == (DUE if ours is PaymentStatus.PAID else None)


async def test_the_status_of_another_order_is_a_mismatch() -> None:
    answer = canned({"status": "SUCCESS", "order_id": "another"}, 201)
    with pytest.raises(Mismatch):
        await orange().fetch(connection(orange(), answer), f"{ORDER}:50000:pay-token")


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"code": 24, "message": "Invalid body field"}, Rejected),
        (401, {"code": 42, "message": "Expired credentials"}, CredentialRefused),
        (403, {"code": 50, "message": "Access denied"}, CredentialRefused),
        (403, {"code": 53, "message": "Too many requests"}, Throttled),
        (404, {"code": 60, "message": "Resource not found"}, Rejected),
        (429, {}, Throttled),
        (500, {"code": 1, "message": "Internal error"}, OutcomeUnknown),
        (503, {"code": 5, "message": "The service is temporarily unavailable"}, OutcomeUnknown),
        (201, {"status": 201, "message": "OK"}, OutcomeUnknown),
    ],
)
async def test_an_error_means_what_the_table_says(status: int, answer: JsonOut, error: type[CallFailed]) -> None:
    with pytest.raises(error) as caught:
        await orange().create(connection(orange(), canned(answer, status)), wanted())
    assert type(caught.value) is error
    assert "orange-merchant-key" not in str(caught.value)


# Notifications


def test_a_notification_is_a_hint_and_their_token_is_kept_as_a_digest() -> None:
    body = encode_json({"status": "SUCCESS", "notif_token": "a-token-to-hide", "txnid": "MP1"})

    [told] = orange().parse(incoming(body))
    [again] = orange().parse(incoming(body + b" "))

    assert (told.type, told.vendor_id, told.recognised) == ("SUCCESS", "", True)
    assert told.dedup_key == again.dedup_key
    assert "to-hide" not in told.dedup_key


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b'{"status":"SUCCESS"}', b"\xff"])
def test_a_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        orange().parse(incoming(body))


# The whole way, through `Payments`


async def test_a_page_is_paid_told_and_paid_once(till: Till, vendor: OrangeMoneySimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    assert payment.offer.checkout_url is not None
    vendor.confirm(payment.offer.checkout_url)
    assert (await till.refresh("order-1")).status is PaymentStatus.PROCESSING

    # when
    vendor.pay(payment.offer.checkout_url)
    statuses = [one.status for one in await till.deliver()]
    await till.settle()

    # then
    assert statuses == [200]
    assert [(one.reference, one.due) for one in till.paid] == [("order-1", DUE)]
    vendor.ledger.exactly_once(charge(reference="order-1", amount=DUE))
    vendor.ledger.no_orphans()
    assert not till.flagged


async def test_without_a_door_the_sweep_notices_it(vendor: OrangeMoneySimulator, clock: ManualClock) -> None:
    async with Till(vendor, orange(), clock=clock, webhooks=False) as till:
        payment = await till.create("order-1", DUE)
        assert payment.offer is not None
        vendor.pay(payment.offer.payload)
        await clock.advance(31)
        await till.settle()

    assert [one.reference for one in till.paid] == ["order-1"]
    assert [one.notif_url for one in vendor.orders.values()] == [HOME]


async def test_a_notification_that_says_more_than_happened_changes_nothing(
    till: Till, vendor: OrangeMoneySimulator
) -> None:
    # given
    await till.create("order-1", DUE)
    [order] = vendor.orders.values()
    lie = encode_json({"status": "SUCCESS", "notif_token": order.notif_token, "txnid": "MP1"})

    # when: at the address only they know, then at a guessed one
    assert await till.post(order.notif_url, [], lie) == 200
    assert await till.post(order.notif_url.rpartition(".")[0] + "." + "0" * 32, [], lie) == 404
    await till.settle()

    # then
    assert (await till.payments.get("order-1")).status is PaymentStatus.PENDING
    assert not till.paid


async def test_a_page_nobody_paid_is_over_in_the_end_and_there_is_another(
    till: Till, vendor: OrangeMoneySimulator
) -> None:
    await till.create("order-1", DUE)
    await till.clock.advance(18 * 60)
    assert (await till.refresh("order-1")).status is PaymentStatus.EXPIRED

    again = await till.run(till.payments.renew("order-1"))

    assert (again.status, len(vendor.orders)) == (PaymentStatus.PENDING, 2)
    vendor.ledger.never_two_offers()


async def test_a_wallet_that_says_no_fails_the_payment(till: Till, vendor: OrangeMoneySimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.fail(payment.offer.payload)
    await till.deliver()
    await till.settle()
    assert (await till.payments.get("order-1")).status is PaymentStatus.FAILED
    vendor.ledger.never(charge(reference="order-1"))


async def test_what_cannot_be_revoked_is_canceled_by_waiting(till: Till, vendor: OrangeMoneySimulator) -> None:
    await till.create("order-1", DUE)
    with pytest.raises(Rejected, match="cannot be revoked"):
        await till.run(till.payments.renew("order-1"))
    waiting = await till.run(till.payments.cancel("order-1"))
    await till.clock.advance(18 * 60)
    over = await till.refresh("order-1")
    assert (waiting.status, over.status) == (PaymentStatus.PENDING, PaymentStatus.CANCELED)


@pytest.mark.parametrize(
    "fault",
    [Dns(), AuthExpired(), Status(429, retry_after=1), Latency(1, 2)],
    ids=lambda one: str(one.name),
)
async def test_what_provably_did_nothing_is_asked_again(till: Till, vendor: OrangeMoneySimulator, fault: Fault) -> None:
    vendor.faults.on("orange-money", "payments.create").script(fault)
    payment = await till.create("order-1", DUE)
    assert payment.status is PaymentStatus.PENDING
    vendor.ledger.exactly_once(offer(reference="order-1", amount=DUE))


@pytest.mark.parametrize(
    "fault",
    [Status(500, stage=Stage.AFTER_EFFECT), Status(503), Reset(), Truncate(), Html(), BadJson()],
    ids=lambda one: str(one.name),
)
async def test_a_lost_answer_is_never_repeated_and_falls_over_to_another(
    vendor: OrangeMoneySimulator, clock: ManualClock, fault: Fault
) -> None:
    # given: two accounts at the same vendor
    other = orange(name="orange-money-2")
    async with Till(vendor, orange(), other, clock=clock) as till:
        vendor.faults.on("orange-money", "payments.create").script(fault)

        # when
        payment = await till.create("order-1", DUE)

        # then: the page of the first was shown to nobody
        assert payment.route == ("orange-money:unknown", "orange-money-2:offered")
        assert payment.offer is not None
        vendor.pay(payment.offer.payload)
        await till.deliver()
        await till.settle()
        assert len(till.paid) == 1
        vendor.ledger.exactly_once(charge(reference="order-1"))


async def test_a_lost_answer_without_another_is_unknown_until_the_page_is_over(
    till: Till, vendor: OrangeMoneySimulator
) -> None:
    vendor.faults.on("orange-money", "payments.create").script(Reset())
    with pytest.raises(OutcomeUnknown):
        await till.create("order-1", DUE, expires_in=timedelta(minutes=10))
    with pytest.raises(OutcomeUnknown):
        await till.create("order-1", DUE, expires_in=timedelta(minutes=10))
    assert len(vendor.orders) == 1

    await till.clock.advance(13 * 60)
    await till.settle()
    payment = await till.create("order-1", DUE)

    assert payment.route == ("orange-money:closed", "orange-money:offered")
    vendor.ledger.never_two_offers()


async def test_money_goes_back_by_hand(till: Till, vendor: OrangeMoneySimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer is not None
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    refund = await till.refund("order-1", key="r1")
    assert refund.status is RefundStatus.MANUAL_REQUIRED


async def test_one_token_serves_many_and_a_new_one_comes_when_it_ends(till: Till, vendor: OrangeMoneySimulator) -> None:
    for number in range(3):
        await till.create(f"order-{number}", DUE)
    assert len(vendor.tokens) == 1
    await till.clock.advance(3600)
    await till.create("order-9", DUE)
    assert len(vendor.tokens) == 2


async def test_no_secret_is_in_any_signal_or_error(
    till: Till, vendor: OrangeMoneySimulator, caplog: pytest.LogCaptureFixture
) -> None:
    vendor.client_secret = "another"
    with pytest.raises(CallFailed) as caught:
        await till.create("order-1", DUE)
    told = f"{caught.value} {till.signals} {caplog.text} {orange()}"
    for secret in ("orange-client-secret", "orange-merchant-key", "Basic"):
        assert secret not in told


async def test_it_works_over_real_sockets() -> None:
    # given
    vendor = OrangeMoneySimulator(country="gn", currency="GNF")
    async with Edge(vendor) as edge:
        provider = orange(base_url=edge.url)
        transport = HttpxTransport()
        http = Http(provider, transport, Unguarded(), SystemClock())  # type: ignore[arg-type]  # no guard
        token = (await provider.fetch_token(http)).value

        class Held:
            value, generation = token, 1

            async def current(self) -> "Held":
                return self

            async def newer(self, refused: object) -> "Held":
                return self

        http = Http(provider, transport, Unguarded(), SystemClock(), tokens=Held())  # type: ignore[arg-type]

        # when
        made = await provider.create(http, wanted())
        vendor.pay(ORDER)
        found = await provider.fetch(http, made.vendor_id)
        await http.aclose()

    # then
    assert (found.status, found.received) == (PaymentStatus.PAID, DUE)


# The simulator


async def test_the_simulator_tells_a_status_only_to_who_has_the_token(http: Http) -> None:
    made = await orange().create(http, wanted())
    assert (await orange().fetch(http, made.vendor_id)).status is PaymentStatus.PENDING
    for wrong in (made.vendor_id + "x", made.vendor_id.replace(":50000:", ":5:")):
        with pytest.raises(Rejected) as caught:
            await orange().fetch(http, wrong)
        assert caught.value.status == 404


async def test_the_simulator_takes_an_order_id_once(http: Http) -> None:
    await orange().create(http, wanted())
    with pytest.raises(Rejected, match="order_id"):
        await orange().create(http, wanted())


async def test_the_simulator_throttles_as_the_vendor_does(http: Http) -> None:
    made = await orange().create(http, wanted())
    for _ in range(24):
        await orange().fetch(http, made.vendor_id)
    with pytest.raises(Throttled):
        await orange().fetch(http, made.vendor_id)
