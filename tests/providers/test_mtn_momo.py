"""MTN MoMo: one prompt per attempt for ever, its 404 is proof, its callback only a hint."""

import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

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
from holdfast.http.tokens import TokenVendor
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.http.wire import JsonOut, encode_json
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, AttemptState, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Lookup,
    OfferRequest,
    PaymentProvider,
    SupportsLookup,
    SupportsRevoking,
    WebhookTrust,
)
from holdfast.providers.mtn_momo import CURRENCIES, PRODUCTION_URL, SANDBOX_URL, MtnMomo, reference_id
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import AuthExpired, BadJson, Dns, Fault, Html, Latency, Reset, Stage, Status, Truncate
from holdfast.testing.intents import charge, offer
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.mtn_momo import MtnMomoSimulator
from holdfast.testing.simulators.simulator import Request
from holdfast.values import Money, Secret
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import RawRequest
from tests.providers.connection import NOON, Unguarded, canned, connection, incoming, offer_request
from tests.providers.till import Till

ATTEMPT = "6d0c1f0a6d1e5c39ad551f2f6b9d6a01"
REFERENCE = "6d0c1f0a-6d1e-4c39-ad55-1f2f6b9d6a01"
MSISDN = "224660000000"
PAYER = Payer(msisdn=MSISDN)
DUE = Money(50_000, "GNF")
GUINEA = "mtnguineaconakry"

REQUEST: dict[str, JsonOut] = {
    "externalId": ATTEMPT,
    "amount": "50000",
    "currency": "GNF",
    "payer": {"partyIdType": "MSISDN", "partyId": MSISDN},
    "payerMessage": "Consultation",
    "payeeNote": "consultation-4711",
    "status": "PENDING",
}


def momo(**changes: object) -> MtnMomo:
    facts: dict[str, object] = {
        "subscription_key": Secret("momo-subscription-key"),
        "api_user": "c72025f5-5cd1-4630-99e4-8ba4722fad56",
        "api_key": Secret("momo-api-key-of-the-user"),
        "environment": GUINEA,
        "base_url": "http://127.0.0.1",
    }
    return MtnMomo(**facts | changes)  # type: ignore[arg-type]  # its own fields


def wanted(price: Money = DUE, **changes: object) -> OfferRequest:
    return offer_request(price, **{"attempt_id": ATTEMPT, "payer": PAYER} | changes)


def attempt(id: str = ATTEMPT) -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider="mtn-momo",
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON + timedelta(minutes=15),
    )


class Signed:
    """A connection with a token, and no guard."""

    def __init__(self, vendor: MtnMomoSimulator) -> None:
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
def vendor(clock: ManualClock) -> MtnMomoSimulator:
    return MtnMomoSimulator(clock=clock, environment=GUINEA, currency="GNF")


@pytest.fixture
def http(vendor: MtnMomoSimulator) -> Http:
    return connection(momo(), Signed(vendor))


@pytest.fixture
async def till(vendor: MtnMomoSimulator, clock: ManualClock) -> AsyncGenerator[Till]:
    async with Till(vendor, momo(), clock=clock) as till:
        yield till


# Facts


def test_it_prompts_a_payer_under_a_key_for_ever_and_absence_is_proof() -> None:
    provider: PaymentProvider = momo()
    door: ReceivesWebhooks = momo()
    able = provider.capabilities

    assert isinstance(provider, SupportsLookup)
    assert isinstance(provider, TokenVendor)
    assert not isinstance(provider, SupportsRevoking)
    assert (able.payer_visible, able.payer, able.create_effect, able.key_window) == (True, True, Effect.KEYED, None)
    assert able.lookup is Lookup.AUTHORITATIVE_ABSENCE
    assert (door.scheme, able.webhook_trust) == (None, WebhookTrust.KEYED_URL)


@pytest.mark.parametrize(("environment", "currency"), CURRENCIES.items())
def test_an_environment_has_one_currency(environment: str, currency: str) -> None:
    assert momo(environment=environment).capabilities.currencies == frozenset({currency})


def test_a_currency_can_be_named_and_has_to_be_where_we_know_none() -> None:
    assert momo(environment="mtnliberia", currency="USD").capabilities.currencies == frozenset({"USD"})
    assert momo(environment="mtnatlantis", currency="EUR").capabilities.currencies == frozenset({"EUR"})
    with pytest.raises(ConfigurationError, match=r"mtnatlantis.*currency="):
        momo(environment="mtnatlantis")


@pytest.mark.parametrize(
    ("environment", "base_url", "home", "live"),
    [
        ("sandbox", "", SANDBOX_URL, False),
        (GUINEA, "", PRODUCTION_URL, True),
        (GUINEA, "http://127.0.0.1:5000", "http://127.0.0.1:5000", False),
        ("mtnrwanda", "https://momo.example.rw", "https://momo.example.rw", True),
    ],
)
def test_money_is_real_outside_the_sandbox(environment: str, base_url: str, home: str, live: bool) -> None:
    provider = momo(environment=environment, base_url=base_url)
    assert (provider.base_url, provider.live) == (home, live)


NAMES = ("MOMO_SUBSCRIPTION_KEY", "MOMO_API_USER", "MOMO_API_KEY", "MOMO_ENVIRONMENT")


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{name}-to-hide")
    monkeypatch.setenv("MOMO_ENVIRONMENT", "mtnuganda")

    made = MtnMomo.from_env()

    assert (made.environment, made.base_url) == ("mtnuganda", PRODUCTION_URL)
    assert made.headers() == {
        "ocp-apim-subscription-key": "MOMO_SUBSCRIPTION_KEY-to-hide",
        "x-target-environment": "mtnuganda",
    }
    assert "KEY-to-hide" not in repr(made)


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "sandbox")
    monkeypatch.delenv(missing)

    with pytest.raises(MissingCredential, match=missing):
        MtnMomo.from_env()


# What is sent


async def test_the_request_on_the_wire_is_exactly_this() -> None:
    answer = canned({}, 202)
    await momo().create(connection(momo(), answer), wanted(webhook_url="https://shop.example/webhooks/mtn-momo/a.b"))

    [asked] = answer.requests
    headers = dict(asked.headers)
    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/collection/v1_0/requesttopay")
    assert headers["x-reference-id"] == REFERENCE
    assert headers["x-target-environment"] == GUINEA
    assert headers["x-callback-url"] == "https://shop.example/webhooks/mtn-momo/a.b"
    assert asked.content == (
        b'{"amount":"50000","currency":"GNF","externalId":"6d0c1f0a6d1e5c39ad551f2f6b9d6a01",'
        b'"payer":{"partyIdType":"MSISDN","partyId":"224660000000"},'
        b'"payerMessage":"Consultation","payeeNote":"consultation-4711"}'
    )


def test_an_attempts_id_becomes_a_uuid_of_version_4_and_always_the_same() -> None:
    # given: what we make ids of is of version 5, which they answer with 400
    assert UUID(hex=ATTEMPT).version == 5

    # then
    assert reference_id(ATTEMPT) == reference_id(ATTEMPT) == REFERENCE
    assert UUID(REFERENCE).version == 4
    assert reference_id(ATTEMPT[:-1] + "2") != REFERENCE


async def test_nobody_is_called_back_who_does_not_want_it() -> None:
    answer = canned({}, 202)
    await momo(callbacks=False).create(connection(momo(), answer), wanted())
    assert "x-callback-url" not in dict(answer.requests[0].headers)


@pytest.mark.parametrize("payer", [None, Payer(), Payer(email="a@b.ch"), Payer(msisdn="+224 660"), Payer(msisdn="７")])
async def test_without_a_number_nothing_is_sent(payer: Payer | None) -> None:
    answer = canned({}, 202)
    with pytest.raises(InvalidInput, match="payer's number"):
        await momo().create(connection(momo(), answer), wanted(payer=payer))
    assert not answer.requests


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("L'été à Conakry", "L ete a Conakry"),
        ("a" * 200, "a" * 160),
        ("<b>&\n", "b"),
        ("会诊", "consultation-4711"),
        ("", "consultation-4711"),
    ],
)
async def test_a_note_is_plain_text_of_160_characters(said: str, sent: str) -> None:
    answer = canned({}, 202)
    await momo().create(connection(momo(), answer), wanted(description=said))
    assert json.loads(answer.requests[0].content)["payerMessage"] == sent


@pytest.mark.parametrize(
    ("price", "sent"),
    [
        (Money(5_000, "XOF"), "5000"),
        (Money(1, "XAF"), "1"),
        (Money(50_000, "GNF"), "50000"),
        (Money(3_500, "UGX"), "3500"),
        (Money(700, "RWF"), "700"),
        (Money("12.50", "EUR"), "12.50"),
        (Money("12.00", "GHS"), "12"),
        (Money("0.05", "ZMW"), "0.05"),
        (Money("1.234", "KWD"), "1.234"),
    ],
    ids=str,
)
async def test_an_amount_is_exact_and_has_decimals_only_where_there_are_any(price: Money, sent: str) -> None:
    answer, there = canned({}, 202), momo(currency=price.currency)
    await there.create(connection(there, answer), wanted(price))
    assert json.loads(answer.requests[0].content)["amount"] == sent

    told = canned(REQUEST | {"amount": sent, "currency": price.currency})
    assert (await momo().fetch(connection(momo(), told), REFERENCE)).price == price


async def test_another_currency_than_the_environments_is_refused_before_anything_is_sent() -> None:
    answer = canned({}, 202)
    with pytest.raises(InvalidMoney, match="one currency in mtnguineaconakry"):
        await momo().create(connection(momo(), answer), wanted(Money(5_000, "XOF")))
    assert not answer.requests


@pytest.mark.parametrize("currency", ["XOF", "XAF", "GNF", "UGX", "RWF"])
def test_where_there_are_no_decimals_there_is_no_fraction_to_send(currency: str) -> None:
    with pytest.raises(InvalidInput):
        Money("10.50", currency)


async def test_the_token_is_asked_for_with_basic_credentials_and_no_body() -> None:
    answer = canned({"access_token": "secret-token", "token_type": "access_token", "expires_in": 3600})
    token = await momo().fetch_token(connection(momo(), answer))

    [asked] = answer.requests
    assert (asked.method, asked.url, asked.content) == ("POST", "http://127.0.0.1/collection/token/", b"")
    basic = "Basic YzcyMDI1ZjUtNWNkMS00NjMwLTk5ZTQtOGJhNDcyMmZhZDU2Om1vbW8tYXBpLWtleS1vZi10aGUtdXNlcg=="
    assert dict(asked.headers)["authorization"] == basic
    assert (token.value.reveal(), token.expires_in) == ("secret-token", 3600)


# What is answered


@pytest.mark.parametrize(
    ("status", "reason", "ours"),
    [
        ("PENDING", None, PaymentStatus.PROCESSING),
        ("SUCCESSFUL", None, PaymentStatus.PAID),
        ("FAILED", {"code": "EXPIRED"}, PaymentStatus.EXPIRED),
        ("FAILED", "EXPIRED", PaymentStatus.EXPIRED),
        ("FAILED", {"code": "APPROVAL_REJECTED", "message": "no"}, PaymentStatus.FAILED),
        ("FAILED", {"code": "NOT_ENOUGH_FUNDS"}, PaymentStatus.FAILED),
        ("FAILED", "PAYER_NOT_FOUND", PaymentStatus.FAILED),
        ("FAILED", None, PaymentStatus.FAILED),
        ("INVENTED", None, PaymentStatus.UNKNOWN),
    ],
)
async def test_a_status_means_what_the_table_says(status: str, reason: JsonOut, ours: PaymentStatus) -> None:
    snapshot = await momo().fetch(connection(momo(), canned(REQUEST | {"status": status, "reason": reason})), REFERENCE)

    assert (snapshot.status, snapshot.price, snapshot.attempt_id) == (ours, DUE, ATTEMPT)
    assert snapshot.received == (DUE if ours is PaymentStatus.PAID else None)
    assert snapshot.reason == (reason["code"] if isinstance(reason, dict) else reason or "")


@pytest.mark.parametrize("changes", [{"amount": "50000.5"}, {"currency": "FRANC"}])
async def test_an_amount_that_is_none_is_a_mismatch(changes: dict[str, JsonOut]) -> None:
    with pytest.raises(Mismatch, match="cannot read"):
        await momo().fetch(connection(momo(), canned(REQUEST | changes)), REFERENCE)


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"code": "REQUEST_REJECTED", "message": "Bad request"}, Rejected),
        (401, {"statusCode": 401, "message": "Access denied due to invalid subscription key."}, CredentialRefused),
        (403, {"message": "Forbidden IP"}, CredentialRefused),
        (404, {"statusCode": 404, "message": "Resource not found"}, Rejected),
        (409, {"code": "SOMETHING_ELSE"}, OutcomeUnknown),
        (429, {"statusCode": 429}, Throttled),
        (500, {"code": "NOT_ALLOWED"}, CredentialRefused),
        (500, {"code": "NOT_ALLOWED_TARGET_ENVIRONMENT"}, CredentialRefused),
        (500, {"code": "INVALID_CALLBACK_URL_HOST"}, Rejected),
        (500, {"code": "INVALID_CURRENCY"}, Rejected),
        (500, {"code": "INTERNAL_PROCESSING_ERROR"}, OutcomeUnknown),
        (503, {"code": "SERVICE_UNAVAILABLE"}, OutcomeUnknown),
        (202, "<html>", None),
    ],
)
async def test_an_error_means_what_the_table_says(status: int, answer: JsonOut, error: type[CallFailed] | None) -> None:
    http = connection(momo(), canned(answer, status))
    if error is None:
        assert (await momo().create(http, wanted())).status is PaymentStatus.PROCESSING
        return
    with pytest.raises(error) as caught:
        await momo().create(http, wanted())
    assert type(caught.value) is error


async def test_a_page_instead_of_an_answer_is_unknown() -> None:
    answer = canned({}, 202)
    answer.content = b"<html>Request Rejected</html>"
    with pytest.raises(OutcomeUnknown):
        await momo().create(connection(momo(), answer), wanted())


# It exists already, and it was never accepted


async def test_what_exists_already_is_fetched_and_returned(http: Http, vendor: MtnMomoSimulator) -> None:
    # given
    first = await momo().create(http, wanted())

    # when
    again = await momo().create(http, wanted())

    # then
    assert (again.vendor_id, again.status, again.price) == (first.vendor_id, PaymentStatus.PROCESSING, DUE)
    assert again.offer == first.offer
    vendor.ledger.exactly_once(offer(reference="consultation-4711"))


@pytest.mark.parametrize(
    "fault", [Dns(), Status(404), Status(429), Status(401), Status(500), Reset()], ids=lambda one: str(one.name)
)
async def test_what_exists_and_cannot_be_read_is_never_as_if_nothing_had_happened(
    http: Http, vendor: MtnMomoSimulator, fault: Fault
) -> None:
    # given
    await momo().create(http, wanted())
    vendor.faults.on("mtn-momo", "payments.fetch").script(fault)

    # then
    with pytest.raises(OutcomeUnknown) as caught:
        await momo().create(http, wanted())
    assert caught.value.reason == "exists"


async def test_404_on_look_up_is_proof_of_absence(http: Http) -> None:
    assert await momo().find(http, attempt()) is None


async def test_what_was_accepted_is_found(http: Http) -> None:
    await momo().create(http, wanted())
    found = await momo().find(http, attempt())
    assert found is not None
    assert (found.vendor_id, found.status, found.price) == (REFERENCE, PaymentStatus.PROCESSING, DUE)


@pytest.mark.parametrize(
    "answer", [{}, {"statusCode": 404, "message": "Resource not found"}, "Not Found", {"code": "ELSE"}]
)
async def test_a_404_of_somebody_else_proves_nothing(answer: JsonOut) -> None:
    with pytest.raises(Rejected):
        await momo().find(connection(momo(), canned(answer, 404)), attempt())


# Callbacks


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_callback_is_a_hint_of_what_it_is_about(method: str) -> None:
    body = encode_json(REQUEST | {"status": "SUCCESSFUL", "financialTransactionId": "363440463"})
    request = RawRequest(
        method=method, url="https://shop.example/webhooks/mtn-momo/a.b", headers=(), body=body, received_at=NOON
    )

    [told] = momo().parse(request)

    assert (told.type, told.vendor_id, told.reference) == ("SUCCESSFUL", REFERENCE, "consultation-4711")
    assert told.facts == {"attempt_id": ATTEMPT}
    assert told.recognised


@pytest.mark.parametrize("external_id", ["", "order-1", ATTEMPT.upper(), ATTEMPT + "0"])
def test_a_callback_of_others_names_no_object_of_ours(external_id: str) -> None:
    [told] = momo().parse(incoming(encode_json(REQUEST | {"externalId": external_id})))
    assert (told.vendor_id, told.facts) == ("", None)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"7", b"\xff", b'{"amount":"x","currency":"XOF"}'])
def test_a_body_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them is kept as `unparsed`
        momo().parse(incoming(body))


# The whole way, through `Payments`


async def pay(till: Till, **wishes: Any) -> None:
    wishes = {"payer": PAYER} | wishes
    await till.create("order-1", DUE, **wishes)


async def test_a_prompt_is_approved_called_back_and_paid_once(till: Till, vendor: MtnMomoSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE, payer=PAYER)
    assert (payment.status, payment.route) == (PaymentStatus.PROCESSING, ("mtn-momo:offered",))
    assert payment.offer is not None
    assert payment.offer.expires_at is not None

    # when
    vendor.pay(MSISDN)
    sent = await till.deliver()
    await till.settle()

    # then
    assert [one.status for one in sent] == [200]
    assert [paid.reference for paid in till.paid] == ["order-1"]
    vendor.ledger.exactly_once(charge(reference="order-1", amount=DUE))
    vendor.ledger.no_orphans()
    assert not till.flagged


async def test_without_any_callback_the_sweep_notices_it(vendor: MtnMomoSimulator, clock: ManualClock) -> None:
    async with Till(vendor, momo(), clock=clock, webhooks=False) as till:
        await pay(till)
        vendor.pay(MSISDN)
        assert not vendor.outbox
        await clock.advance(31)
        await till.settle()

    assert [paid.reference for paid in till.paid] == ["order-1"]


async def test_a_callback_that_says_more_than_happened_changes_nothing(till: Till, vendor: MtnMomoSimulator) -> None:
    # given
    await pay(till)
    [prompt] = vendor.prompts.values()
    lie = encode_json(REQUEST | {"externalId": prompt.external_id, "status": "SUCCESSFUL"})

    # when
    assert await till.post(prompt.callback or "", [], lie) == 200
    assert await till.post((prompt.callback or "").rpartition(".")[0] + "." + "0" * 32, [], lie) == 404
    await till.settle()

    # then
    assert (await till.payments.get("order-1")).status is PaymentStatus.PROCESSING
    assert not till.paid


@pytest.mark.parametrize(
    ("reason", "status"),
    [("APPROVAL_REJECTED", PaymentStatus.FAILED), ("EXPIRED", PaymentStatus.EXPIRED)],
)
async def test_what_the_payer_does_not_approve_is_over(
    till: Till, vendor: MtnMomoSimulator, reason: str, status: PaymentStatus
) -> None:
    await pay(till)
    vendor.fail(MSISDN, reason)
    await till.deliver()
    await till.settle()
    assert (await till.payments.get("order-1")).status is status
    vendor.ledger.never(charge(reference="order-1"))


async def test_after_a_prompt_that_lapsed_there_is_another(till: Till, vendor: MtnMomoSimulator) -> None:
    # given
    await pay(till)
    await till.clock.advance(18 * 60)
    assert (await till.refresh("order-1")).status is PaymentStatus.EXPIRED

    # when
    again = await till.run(till.payments.renew("order-1"))

    # then
    assert (again.status, len(vendor.prompts)) == (PaymentStatus.PROCESSING, 2)
    vendor.ledger.never_two_offers()


async def test_an_open_prompt_cannot_be_renewed_and_is_canceled_by_waiting(
    till: Till, vendor: MtnMomoSimulator
) -> None:
    await pay(till)
    with pytest.raises(Rejected, match="cannot be revoked"):
        await till.run(till.payments.renew("order-1"))

    waiting = await till.run(till.payments.cancel("order-1"))
    await till.clock.advance(18 * 60)
    over = await till.refresh("order-1")

    assert (waiting.status, over.status) == (PaymentStatus.PROCESSING, PaymentStatus.CANCELED)
    assert len(vendor.prompts) == 1


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
        AuthExpired(),
        Status(429, retry_after=1),
        Latency(1, 2),
    ],
    ids=lambda one: f"{one.name}-{one.stage}",
)
async def test_whatever_goes_wrong_once_there_is_one_prompt(till: Till, vendor: MtnMomoSimulator, fault: Fault) -> None:
    vendor.faults.on("mtn-momo", "payments.create").script(fault)

    payment = await till.create("order-1", DUE, payer=PAYER)

    assert payment.status is PaymentStatus.PROCESSING
    vendor.ledger.exactly_once(offer(reference="order-1", amount=DUE))


async def test_404_on_look_up_proof_of_absence_the_attempt_may_be_repeated(
    till: Till, vendor: MtnMomoSimulator
) -> None:
    # given: no request is ever accepted, no answer says so, and nobody can be asked
    vendor.faults.on("mtn-momo", "payments.create").always(Status(500))
    with pytest.raises(CallFailed):
        await till.create("order-1", DUE, payer=PAYER)
    assert (await till.payments.get("order-1")).route == ("mtn-momo:unknown",)
    assert not vendor.prompts

    # when
    vendor.faults.calm()
    await till.clock.advance(60)
    await till.settle()
    [first] = (await till.payments.get("order-1")).attempts
    payment = await till.create("order-1", DUE, payer=PAYER)

    # then
    assert (first.state, first.cause) == (AttemptState.FAILED, Cause.NOT_SENT)
    assert payment.route == ("mtn-momo:failed", "mtn-momo:offered")
    assert payment.status is PaymentStatus.PROCESSING
    vendor.ledger.exactly_once(offer(reference="order-1"))


async def test_a_404_that_is_not_theirs_lets_nothing_be_repeated(till: Till, vendor: MtnMomoSimulator) -> None:
    # given: accepted, every answer lost, and a proxy that knows no such page
    vendor.faults.on("mtn-momo", "payments.create").always(Reset())
    vendor.faults.on("mtn-momo", "payments.fetch").always(Status(404))
    with pytest.raises(CallFailed):
        await till.create("order-1", DUE, payer=PAYER)

    # when
    await till.clock.advance(60)
    await till.settle()

    # then
    assert (await till.payments.get("order-1")).route == ("mtn-momo:unknown",)
    vendor.ledger.exactly_once(offer(reference="order-1"))


async def test_an_unknown_outcome_never_falls_over_while_it_may_have_prompted(
    vendor: MtnMomoSimulator, clock: ManualClock
) -> None:
    # given: accepted, every answer lost, and looking is impossible
    other = momo(name="mtn-momo-2")
    async with Till(vendor, momo(), other, clock=clock) as till:
        vendor.faults.on("mtn-momo", "payments.create").always(Reset())
        vendor.faults.on("mtn-momo", "payments.fetch").always(Status(503))

        # when
        with pytest.raises(CallFailed):
            await till.create("order-1", DUE, payer=PAYER)

        # then
        assert (await till.payments.get("order-1")).route == ("mtn-momo:unknown",)
        vendor.ledger.exactly_once(offer(reference="order-1"))

        # and once the vendor can be asked again, the payer's approval counts
        vendor.faults.calm()
        vendor.pay(MSISDN)
        await clock.advance(400)
        await till.settle()
        assert [paid.reference for paid in till.paid] == ["order-1"]


async def test_without_a_payer_nobody_is_asked(till: Till, vendor: MtnMomoSimulator) -> None:
    with pytest.raises(InvalidInput, match="told who pays"):
        await till.create("order-1", DUE)
    assert not vendor.requests


async def test_money_goes_back_by_hand(till: Till, vendor: MtnMomoSimulator) -> None:
    await pay(till)
    vendor.pay(MSISDN)
    await till.refresh("order-1")

    refund = await till.refund("order-1", Money(10_000, "GNF"), key="r1")
    settled = await till.run(
        till.payments.settle_refund("order-1", key="r1", actor="ada", evidence="transfer 1", sent=True)
    )

    assert (refund.status, settled.status) == (RefundStatus.MANUAL_REQUIRED, RefundStatus.SUCCEEDED)


async def test_another_amount_than_was_asked_is_quarantined(till: Till, vendor: MtnMomoSimulator) -> None:
    await pay(till)
    [prompt] = vendor.prompts.values()
    prompt.amount = "5"
    vendor.pay(MSISDN)

    payment = await till.refresh("order-1")

    assert payment.status is PaymentStatus.PROCESSING
    await till.settle()
    assert [flagged.anomaly for flagged in till.flagged] == ["mismatch"]


async def test_one_token_serves_many_and_a_new_one_comes_when_it_ends(till: Till, vendor: MtnMomoSimulator) -> None:
    for number in range(3):
        await till.create(f"order-{number}", DUE, payer=PAYER)
    assert len(vendor.tokens) == 1

    await till.clock.advance(3600)
    await till.create("order-9", DUE, payer=PAYER)
    assert len(vendor.tokens) == 2


async def test_no_secret_and_no_number_is_in_any_signal_or_error(
    till: Till, vendor: MtnMomoSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    vendor.api_key = "another"

    # when
    with pytest.raises(CallFailed) as caught:
        await till.create("order-1", DUE, payer=PAYER)

    # then
    told = f"{caught.value} {till.signals} {caplog.text} {momo()}"
    for secret in ("momo-subscription-key", "momo-api-key-of-the-user", "Basic", MSISDN):
        assert secret not in told


async def test_it_works_over_real_sockets() -> None:
    # given
    vendor = MtnMomoSimulator(environment=GUINEA, currency="GNF")
    async with Edge(vendor) as edge:
        provider = momo(base_url=edge.url)
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
        vendor.pay(made.vendor_id)
        found = await provider.fetch(http, made.vendor_id)
        await http.aclose()

    # then
    assert (found.status, found.received) == (PaymentStatus.PAID, DUE)


# The simulator


def test_the_simulator_refuses_a_reference_id_of_another_version(vendor: MtnMomoSimulator) -> None:
    vendor.tokens["t"] = vendor.clock.now() + timedelta(hours=1)
    headers = [
        ("authorization", "Bearer t"),
        ("ocp-apim-subscription-key", vendor.subscription_key),
        ("x-target-environment", GUINEA),
        ("x-reference-id", str(UUID(hex=ATTEMPT))),
    ]
    answer = vendor.handle(
        Request(method="POST", target="/collection/v1_0/requesttopay", headers=headers, body=encode_json(REQUEST))
    )
    assert (answer.status, len(vendor.prompts)) == (400, 0)


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        ("46733123450", "FAILED", "INTERNAL_PROCESSING_ERROR"),
        ("46733123451", "FAILED", "APPROVAL_REJECTED"),
        ("46733123452", "FAILED", "EXPIRED"),
        ("46733123453", "SUCCESSFUL", ""),
        ("46733123454", "PENDING", ""),
    ],
)
async def test_the_test_numbers_decide_by_themselves(
    http: Http, vendor: MtnMomoSimulator, clock: ManualClock, number: str, status: str, reason: str
) -> None:
    made = await momo().create(http, wanted(payer=Payer(msisdn=number)))
    assert vendor.prompts[made.vendor_id].status == "PENDING"
    await clock.advance(600)
    vendor.tick()
    assert (vendor.prompts[made.vendor_id].status, vendor.prompts[made.vendor_id].reason) == (status, reason)


async def test_the_simulator_calls_nobody_but_the_registered_host(clock: ManualClock) -> None:
    vendor = MtnMomoSimulator(clock=clock, environment=GUINEA, currency="GNF", callback_host="shop.example")
    http = connection(momo(), Signed(vendor))
    with pytest.raises(Rejected, match="INVALID_CALLBACK_URL_HOST"):
        await momo().create(http, wanted(webhook_url="https://else.example/a"))
    assert (await momo().create(http, wanted(webhook_url="https://shop.example/a"))).vendor_id == REFERENCE


async def test_an_environment_that_is_not_the_accounts_is_refused(clock: ManualClock) -> None:
    vendor = MtnMomoSimulator(clock=clock, environment="mtnbenin", currency="XOF")
    with pytest.raises(CredentialRefused, match="NOT_ALLOWED_TARGET_ENVIRONMENT"):
        await momo().create(connection(momo(), Signed(vendor)), wanted())
