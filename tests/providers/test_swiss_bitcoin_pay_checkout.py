"""Swiss Bitcoin Pay's serverless checkout, by the package itself over simulated relays, wallet and explorers."""

import asyncio
import base64
import logging
import pickle
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import swissbitcoinpay_checkout as package

from holdfast import Holdfast, Payments
from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    CredentialRefused,
    InvalidInput,
    InvalidMoney,
    Mismatch,
    MissingCredential,
    MissingExtra,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
)
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Anomaly, Attempt, AttemptState, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Lookup,
    OfferRequest,
    PaymentProvider,
    SupportsCapture,
    SupportsLookup,
    SupportsQuotes,
    SupportsRefunds,
    SupportsRevoking,
)
from holdfast.payments.rates import FixedRates
from holdfast.providers import LNbits, SwissBitcoinPayCheckout, find_provider
from holdfast.providers import swiss_bitcoin_pay_checkout as module
from holdfast.queue.reconciliation import SupportsListing
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Html, Reset, Status, Truncate
from holdfast.testing.faults import Refused as NoConnection
from holdfast.testing.intents import charge, offer
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout import SwissBitcoinPayCheckoutSimulator
from holdfast.testing.vendors import Fakes
from holdfast.values import Money, Secret
from holdfast.webhooks.door import ReceivesWebhooks
from tests.providers.connection import NOON, Unguarded, offer_request
from tests.providers.till import Till

S = PaymentStatus
VENDOR = "swiss-bitcoin-pay-checkout"
DUE = Money.from_sat(21_000)
ATTEMPT_ID = "5f2c" * 8
ERRORS: dict[type[package.SwissBitcoinPayError], Callable[[], package.SwissBitcoinPayError]] = {
    package.InvalidKeyError: lambda: package.InvalidKeyError("no key"),
    package.InvalidOptionError: lambda: package.InvalidOptionError("no option", param="now"),
    package.InvalidOrderError: lambda: package.InvalidOrderError("no order", param="sats"),
    package.RevokedError: lambda: package.RevokedError("removed"),
    package.ChannelNotFoundError: lambda: package.ChannelNotFoundError("not there", newer_format=False),
    package.NetworkError: lambda: package.NetworkError("no answer"),
    package.InvalidInvoiceError: lambda: package.InvalidInvoiceError("wrong", check="amount"),
    package.UnsupportedCurrencyError: lambda: package.UnsupportedCurrencyError("no price", currency="CHF"),
    package.RateError: lambda: package.RateError("too old"),
    package.CheckoutUnavailableError: lambda: package.CheckoutUnavailableError("no page"),
    package.OnchainUnavailableError: lambda: package.OnchainUnavailableError("no address"),
}
ANSWERS = {package.InvoicePendingError, package.OrderPaidError}


def provider(vendor: SwissBitcoinPayCheckoutSimulator, **settings: Any) -> SwissBitcoinPayCheckout:
    facts: dict[str, Any] = {"key": Secret(vendor.key)}
    return SwissBitcoinPayCheckout(**(facts | settings))


def wanted(price: Money = DUE, **changes: Any) -> OfferRequest:
    return offer_request(price, **({"attempt_id": ATTEMPT_ID} | changes))


def attempt(id: str = ATTEMPT_ID) -> Attempt:
    return Attempt(
        number=1,
        id=id,
        provider=VENDOR,
        state=AttemptState.UNKNOWN,
        claim=1,
        price=DUE,
        claimed_at=NOON,
        claimed_until=NOON,
        expires_at=NOON + timedelta(minutes=15),
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def vendor(clock: ManualClock) -> SwissBitcoinPayCheckoutSimulator:
    return SwissBitcoinPayCheckoutSimulator(clock=clock, lot=3)


@pytest.fixture
def checkout(vendor: SwissBitcoinPayCheckoutSimulator) -> SwissBitcoinPayCheckout:
    return provider(vendor)


def connected(vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout) -> Http:
    return Http(checkout, InProcess(vendor), Unguarded(), vendor.clock)


@pytest.fixture
def http(vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout) -> Http:
    return connected(vendor, checkout)


@pytest.fixture
async def till(vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock) -> AsyncIterator[Till]:
    async with Till(vendor, provider(vendor), clock=clock) as till:
        yield till


# What it is


def test_it_is_found_by_its_name_and_can_do_what_its_protocols_say(checkout: SwissBitcoinPayCheckout) -> None:
    anything: object = checkout
    assert find_provider(VENDOR) is SwissBitcoinPayCheckout
    assert isinstance(anything, PaymentProvider)
    assert isinstance(anything, SupportsLookup)
    absent = (SupportsRevoking, SupportsCapture, SupportsRefunds, SupportsQuotes, SupportsListing, ReceivesWebhooks)
    assert not any(isinstance(anything, protocol) for protocol in absent)


def test_its_capabilities_are_what_their_readme_says(checkout: SwissBitcoinPayCheckout) -> None:
    able = checkout.capabilities
    assert (able.currencies, able.create_effect, able.lookup) == ({"BTC"}, Effect.KEYED, Lookup.AUTHORITATIVE)
    assert (able.revocable, able.payer_visible, able.refunding.value) == (False, False, "none")
    assert (able.grace, able.minimum_expiry) == (timedelta(seconds=120), timedelta(seconds=60))
    assert able.key_window == timedelta(seconds=180)


def test_without_the_package_the_extra_is_named_at_construction(
    vendor: SwissBitcoinPayCheckoutSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "swissbitcoinpay_checkout", None)
    with pytest.raises(MissingExtra, match=r"holdfast\[swiss-bitcoin-pay-checkout\]"):
        provider(vendor)


@pytest.mark.parametrize("cut", [slice(5, None), slice(None, -1), slice(None, 60)])
def test_what_is_no_key_is_refused_and_not_shown(vendor: SwissBitcoinPayCheckoutSimulator, cut: slice) -> None:
    wrong = vendor.key[cut]
    with pytest.raises(ConfigurationError) as caught:
        SwissBitcoinPayCheckout(key=Secret(wrong))
    assert wrong not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_comes_from_the_environment(
    vendor: SwissBitcoinPayCheckoutSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SBP_CHECKOUT_KEY", raising=False)
    with pytest.raises(MissingCredential):
        SwissBitcoinPayCheckout.from_env()
    monkeypatch.setenv("SBP_CHECKOUT_KEY", vendor.key)
    assert SwissBitcoinPayCheckout.from_env() == provider(vendor)


def test_money_is_real_unless_no_relay_can_exist(clock: ManualClock) -> None:
    def live(*relays: str) -> bool:
        return provider(SwissBitcoinPayCheckoutSimulator(clock=clock, relays=relays)).live

    assert live("relay.example.ch", "relay.test")
    assert live("relay.test.example.ch:4443/nostr")
    assert not live("relay-one.test", "relay-two.test:4443/nostr")


def test_the_key_is_in_no_text_of_the_provider(checkout: SwissBitcoinPayCheckout) -> None:
    assert checkout.key.reveal() not in repr(checkout) + str(checkout)


# Creating


async def test_an_order_gets_an_invoice_and_an_address_under_the_attempts_id(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    created = await checkout.create(http, wanted())

    [order] = vendor.orders.values()
    assert (created.vendor_id, created.attempt_id, created.status) == (ATTEMPT_ID, ATTEMPT_ID, S.PENDING)
    assert (created.price, created.received) == (DUE, None)
    assert created.offer
    assert (created.offer.bolt11, created.offer.address in vendor.lot) == (order.bolt11, True)
    assert created.offer.expires_at == NOON + timedelta(minutes=15)
    assert order.note == "Consultation"
    vendor.ledger.exactly_once(offer(reference="Consultation"))


async def test_an_order_asked_for_again_is_handed_out_again(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    created = await checkout.create(http, wanted())
    again = await checkout.create(connected(vendor, checkout), wanted())

    assert again == created
    assert len(vendor.minted) == 1
    vendor.ledger.exactly_once(offer(reference="Consultation"))


async def test_an_order_that_was_paid_is_found_and_no_failure(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    vendor.pay(created.offer.payload)

    again = await checkout.create(http, wanted())

    assert (again.status, again.received, again.vendor_id) == (S.PAID, DUE, ATTEMPT_ID)
    assert len(vendor.minted) == 1


async def test_an_order_that_is_being_confirmed_after_its_end_is_found(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, clock: ManualClock
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    assert created.offer.address
    vendor.pay_onchain(created.offer.address, 21_000)
    await checkout.fetch(http, ATTEMPT_ID)
    await clock.advance(18 * 60)

    again = await checkout.create(http, wanted())

    assert (again.status, again.offer) == (S.PENDING, created.offer)
    assert (await checkout.fetch(http, ATTEMPT_ID)).status is S.PROCESSING


@pytest.mark.parametrize(
    ("sats", "lightning", "on_chain"),
    [(1, True, False), (999, True, False), (1000, True, True), (1_000_000, True, True), (1_000_001, False, True)],
)
async def test_the_amount_decides_by_what_it_can_be_paid(
    vendor: SwissBitcoinPayCheckoutSimulator,
    checkout: SwissBitcoinPayCheckout,
    http: Http,
    sats: int,
    lightning: bool,
    on_chain: bool,
) -> None:
    created = await checkout.create(http, wanted(Money.from_sat(sats)))
    seen = await checkout.fetch(http, ATTEMPT_ID)

    assert created.offer
    assert (bool(created.offer.bolt11), bool(created.offer.address)) == (lightning, on_chain)
    assert (created.price, seen.price, seen.offer) == (Money.from_sat(sats), Money.from_sat(sats), created.offer)
    vendor.ledger.exactly_once(offer(reference="Consultation"))


@pytest.mark.parametrize("price", [Money("120.00", "CHF"), Money.from_minor(1500, "BTC"), Money("1200", "JPY")])
async def test_what_is_no_whole_satoshi_is_refused_before_anything_is_sent(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, price: Money
) -> None:
    with pytest.raises(InvalidMoney):
        await checkout.create(http, wanted(price))
    assert not vendor.requests


async def test_more_than_an_hour_is_refused_before_anything_is_sent(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    with pytest.raises(InvalidInput, match="an hour at most"):
        await checkout.create(http, wanted(expires_in=timedelta(hours=1, seconds=1)))
    assert not vendor.requests


@pytest.mark.parametrize(("asked", "given"), [(1, 60), (60, 60), (61, 61), (3600, 3600)])
async def test_an_invoice_lasts_as_long_as_was_asked_and_a_minute_at_least(
    checkout: SwissBitcoinPayCheckout, http: Http, asked: int, given: int
) -> None:
    created = await checkout.create(http, wanted(expires_in=timedelta(seconds=asked)))
    assert created.offer
    assert created.offer.expires_at == NOON + timedelta(seconds=given)


@pytest.mark.parametrize(
    ("description", "note"),
    [
        ("  Röntgen\tund\nMRI\x7f ", "Röntgen und MRI"),
        ("x" * 101, "x" * 100),
        ("half \ud83d of it", "half ? of it"),
        ("", "consultation-4711"),
        (" \n ", "consultation-4711"),
    ],
)
async def test_any_description_becomes_a_note(
    vendor: SwissBitcoinPayCheckoutSimulator,
    checkout: SwissBitcoinPayCheckout,
    http: Http,
    description: str,
    note: str,
) -> None:
    await checkout.create(http, wanted(description=description))
    assert [order.note for order in vendor.orders.values()] == [note]


async def test_a_page_is_made_where_it_is_asked_for_and_the_merchant_has_one(clock: ManualClock) -> None:
    # given
    vendor = SwissBitcoinPayCheckoutSimulator(clock=clock, page="https://pay.example.ch")
    checkout = provider(vendor, page=True)
    http = connected(vendor, checkout)

    # when
    first = await checkout.create(http, wanted(return_url="https://shop.example/thanks"))
    again = await checkout.create(http, wanted(return_url="https://shop.example/thanks"))
    plain = await provider(vendor).create(http, wanted(attempt_id="other", return_url="https://shop.example/thanks"))

    # then
    for snapshot in (first, again):
        assert snapshot.offer
        assert str(snapshot.offer.checkout_url).startswith("https://pay.example.ch/pay#")
    assert plain.offer
    assert plain.offer.checkout_url is None


# Looking


async def test_all_that_a_look_needs_is_in_the_registry(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    """A process that knows nothing but the id sees the offer, by id and by attempt."""
    created = await checkout.create(http, wanted())
    fresh = provider(vendor)

    fetched = await fresh.fetch(connected(vendor, fresh), created.vendor_id)
    found = await fresh.find(connected(vendor, fresh), attempt())

    assert fetched == created
    assert found == created


async def test_nothing_is_found_where_there_is_nothing_and_no_look_proves_it(
    checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    await checkout.create(http, wanted())
    assert await checkout.find(http, attempt("another")) is None
    with pytest.raises(Rejected, match="no invoice") as caught:
        await checkout.fetch(http, "another")
    assert (caught.value.status, caught.value.reason) == (None, "absent")


async def test_paid_over_lightning_is_paid_in_full(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, clock: ManualClock
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    vendor.pay(created.offer.payload)
    seen = [await checkout.fetch(http, ATTEMPT_ID)]
    await clock.advance(2 * 86_400)
    seen.append(await checkout.fetch(http, ATTEMPT_ID))
    assert [(snapshot.status, snapshot.received, snapshot.price) for snapshot in seen] == [(S.PAID, DUE, DUE)] * 2


async def test_an_on_chain_payment_is_paid_at_three_confirmations(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, clock: ManualClock
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    assert created.offer.address
    vendor.pay_onchain(created.offer.address, 21_500)

    seen = [await checkout.fetch(http, ATTEMPT_ID)]
    for _ in range(3):
        await clock.advance(1200)
        vendor.mine()
        seen.append(await checkout.fetch(http, ATTEMPT_ID))

    assert [snapshot.status for snapshot in seen] == [S.PROCESSING, S.PROCESSING, S.PROCESSING, S.PAID]
    assert {snapshot.received for snapshot in seen} == {Money.from_sat(21_500)}


async def test_too_little_is_partly_paid_and_its_rest_completes_it(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    assert created.offer.address
    vendor.pay_onchain(created.offer.address, 20_000)

    short = await checkout.fetch(http, ATTEMPT_ID)
    [_, rest] = vendor.minted.values()
    vendor.pay(rest.bolt11)
    vendor.mine(3)
    whole = await checkout.fetch(http, ATTEMPT_ID)

    assert (short.status, short.received, short.price) == (S.PARTIALLY_PAID, Money.from_sat(20_000), DUE)
    assert rest.sats == 1000
    assert (whole.status, whole.received) == (S.PAID, DUE)
    assert vendor.ledger.captured("Consultation", "BTC") == DUE


async def test_what_the_merchant_tolerates_is_paid(clock: ManualClock) -> None:
    vendor = SwissBitcoinPayCheckoutSimulator(clock=clock, lot=1, tolerance=100)
    checkout = provider(vendor)
    http = connected(vendor, checkout)
    created = await checkout.create(http, wanted())
    assert created.offer
    assert created.offer.address
    vendor.pay_onchain(created.offer.address, 20_800)
    vendor.mine(3)

    seen = await checkout.fetch(http, ATTEMPT_ID)

    assert (seen.status, seen.received) == (S.PAID, DUE)


async def test_an_order_nobody_pays_ends_with_its_grace(
    checkout: SwissBitcoinPayCheckout, http: Http, clock: ManualClock
) -> None:
    await checkout.create(http, wanted())
    await clock.advance(16 * 60)
    assert (await checkout.fetch(http, ATTEMPT_ID)).status is S.PENDING
    await clock.advance(61)
    assert (await checkout.fetch(http, ATTEMPT_ID)).status is S.EXPIRED


async def test_money_of_an_order_that_ended_is_told(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, clock: ManualClock
) -> None:
    created = await checkout.create(http, wanted())
    assert created.offer
    assert created.offer.address
    vendor.pay_onchain(created.offer.address, 5000)
    await checkout.fetch(http, ATTEMPT_ID)
    await clock.advance(18 * 60)
    seen = await checkout.fetch(http, ATTEMPT_ID)
    assert (seen.status, seen.received) == (S.EXPIRED, Money.from_sat(5000))


async def test_an_unheard_of_state_is_unknown(
    checkout: SwissBitcoinPayCheckout, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    await checkout.create(http, wanted())

    async def tomorrow(*_: object) -> package.PaymentStatus:
        return package.PaymentStatus("frozen", received=7)  # type: ignore[arg-type]

    monkeypatch.setattr(package.AsyncClient, "get_status", tomorrow)
    assert (await checkout.fetch(http, ATTEMPT_ID)).status is S.UNKNOWN


async def test_of_several_invoices_the_furthest_counts_with_all_that_came_in(
    vendor: SwissBitcoinPayCheckoutSimulator,
    checkout: SwissBitcoinPayCheckout,
    http: Http,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that failed half-way may leave a second invoice; money on either is never lost."""
    # given: two orders, which the registry is made to show as one
    for id in ("one", "two"):
        await checkout.create(http, wanted(attempt_id=id))
    find = package.AsyncClient.find_invoices

    async def both(client: package.AsyncClient, ref: str) -> list[package.DeclaredInvoice]:
        return [*(await find(client, "one")), *(await find(client, "two"))]

    monkeypatch.setattr(package.AsyncClient, "find_invoices", both)
    first, second = vendor.minted.values()

    # when, then
    assert (await checkout.fetch(http, "one")).status is S.PENDING
    vendor.pay(second.bolt11)
    once = await checkout.fetch(http, "one")
    assert (once.status, once.received, once.vendor_id) == (S.PAID, DUE, "one")
    vendor.pay(first.bolt11)
    assert (await checkout.fetch(http, "one")).received == DUE + DUE


# Failing


def test_every_error_of_the_package_has_a_cause_or_is_an_answer() -> None:
    kinds = {
        kind
        for kind in vars(package).values()
        if isinstance(kind, type) and issubclass(kind, package.SwissBitcoinPayError)
    } - {package.SwissBitcoinPayError}

    assert kinds == set(ERRORS) | ANSWERS
    assert {kind.code for kind in ERRORS} == set(module.CAUSES)


@pytest.mark.parametrize(
    ("kind", "creating", "looking"),
    [
        (package.InvalidKeyError, Cause.CREDENTIAL, Cause.CREDENTIAL),
        (package.InvalidOptionError, Cause.REJECTED, Cause.REJECTED),
        (package.InvalidOrderError, Cause.REJECTED, Cause.REJECTED),
        (package.RevokedError, Cause.CREDENTIAL, Cause.CREDENTIAL),
        (package.ChannelNotFoundError, Cause.REFUSED, Cause.REFUSED),
        (package.NetworkError, Cause.NOT_SENT, Cause.NOT_SENT),
        (package.InvalidInvoiceError, Cause.REFUSED, Cause.MISMATCH),
        (package.UnsupportedCurrencyError, Cause.REJECTED, Cause.REJECTED),
        (package.RateError, Cause.REFUSED, Cause.REFUSED),
        (package.CheckoutUnavailableError, Cause.REFUSED, Cause.REFUSED),
        (package.OnchainUnavailableError, Cause.REFUSED, Cause.REFUSED),
    ],
)
async def test_every_code_has_its_cause(
    checkout: SwissBitcoinPayCheckout,
    http: Http,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[package.SwissBitcoinPayError],
    creating: Cause,
    looking: Cause,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ERRORS[kind]()

    for verb in ("create_invoice", "find_invoices"):
        monkeypatch.setattr(package.AsyncClient, verb, fail)

    causes: list[Cause] = []
    for call in (checkout.create(http, wanted()), checkout.fetch(http, ATTEMPT_ID), checkout.find(http, attempt())):
        with pytest.raises(CallFailed) as caught:
            await call
        error = caught.value
        causes.append(error.cause)
        assert (error.code, error.provider) == (kind.code, VENDOR)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        if kind.retryable:
            assert error.cause in (Cause.NOT_SENT, Cause.REFUSED, Cause.UNKNOWN)
    assert causes == [creating, looking, looking]


async def test_a_record_of_a_newer_format_is_said_to_be_one(
    checkout: SwissBitcoinPayCheckout, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise package.ChannelNotFoundError("update", newer_format=True)

    monkeypatch.setattr(package.AsyncClient, "find_invoices", fail)
    with pytest.raises(Refused) as caught:
        await checkout.fetch(http, ATTEMPT_ID)
    assert caught.value.reason == "newer_format"


async def test_what_the_package_does_not_name_may_have_happened(
    checkout: SwissBitcoinPayCheckout, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise KeyError("sbp_ck_secret")

    monkeypatch.setattr(package.AsyncClient, "create_invoice", fail)
    with pytest.raises(OutcomeUnknown, match="KeyError") as caught:
        await checkout.create(http, wanted())
    assert "sbp_ck_secret" not in str(caught.value)


async def test_a_removed_integration_is_a_refused_credential(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    vendor.revoke()
    with pytest.raises(CredentialRefused, match="removed the integration"):
        await checkout.create(http, wanted())


async def test_an_integration_the_relays_do_not_know_is_refused(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock
) -> None:
    stranger = provider(SwissBitcoinPayCheckoutSimulator(clock=clock, seed=1))
    with pytest.raises(Refused) as caught:
        await stranger.create(connected(vendor, stranger), wanted())
    assert caught.value.code == "channel_not_found"


async def test_without_an_address_or_a_page_another_provider_may_be_asked(clock: ManualClock) -> None:
    vendor = SwissBitcoinPayCheckoutSimulator(clock=clock)
    for checkout, price, code in (
        (provider(vendor), Money.from_sat(1_000_001), "onchain_unavailable"),
        (provider(vendor, page=True), DUE, "checkout_unavailable"),
    ):
        with pytest.raises(Refused) as caught:
            await checkout.create(connected(vendor, checkout), wanted(price))
        assert caught.value.code == code


async def test_an_amount_the_wallet_does_not_take_is_rejected(clock: ManualClock) -> None:
    vendor = SwissBitcoinPayCheckoutSimulator(clock=clock, sendable=(500, 1000))
    checkout = provider(vendor)
    with pytest.raises(Rejected) as caught:
        await checkout.create(connected(vendor, checkout), wanted(Money.from_sat(499)))
    assert (caught.value.code, caught.value.reason) == ("invalid_order", "sats")


async def test_an_id_that_is_no_reference_is_rejected(checkout: SwissBitcoinPayCheckout, http: Http) -> None:
    with pytest.raises(Rejected) as caught:
        await checkout.fetch(http, "no reference")
    assert (caught.value.code, caught.value.reason) == ("invalid_order", "ref")


@pytest.mark.parametrize("down", [1, 2, 3])
async def test_a_majority_of_the_relays_is_enough_and_less_is_proven_not_sent(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, down: int
) -> None:
    vendor.down = set(list(vendor.relays)[:down])
    if down == 1:
        assert (await checkout.create(http, wanted())).status is S.PENDING
        assert (await checkout.fetch(http, ATTEMPT_ID)).status is S.PENDING
        return
    with pytest.raises(NotSent, match="nothing was sent") as caught:
        await checkout.create(http, wanted())
    assert (caught.value.code, caught.value.hard) == ("network", True)
    assert not [request for request in vendor.requests if request.method == "EVENT"]


@pytest.mark.parametrize("fault", [NoConnection(), Reset(), Status(503), BadJson(), Html(), Truncate()])
async def test_a_wallet_without_terms_publishes_nothing(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http, fault: Fault
) -> None:
    """Where it answered, it is not told as proven; where it did not, it is."""
    vendor.faults.on(VENDOR, "payments.terms").script(fault)
    with pytest.raises(CallFailed) as caught:
        await checkout.create(http, wanted())
    unanswered = isinstance(fault, NoConnection | Reset | Truncate)
    assert caught.value.cause is (Cause.NOT_SENT if unanswered else Cause.UNKNOWN)
    assert not [request for request in vendor.requests if request.method == "EVENT"]


@pytest.mark.parametrize("operation", ["payments.create", "payments.publish"])
@pytest.mark.parametrize("fault", [Reset(), Status(503), Truncate(), Reset().before_effect()])
async def test_after_the_first_answer_a_failure_is_unknown_and_asking_again_makes_one_invoice(
    vendor: SwissBitcoinPayCheckoutSimulator,
    checkout: SwissBitcoinPayCheckout,
    http: Http,
    operation: str,
    fault: Fault,
) -> None:
    # given
    vendor.faults.on(VENDOR, operation).script(*[fault] * (3 if operation == "payments.publish" else 1))

    # when
    with pytest.raises(OutcomeUnknown):
        await checkout.create(http, wanted())
    again = await checkout.create(http, wanted())

    # then
    assert again.status is S.PENDING
    assert again == await checkout.find(http, attempt())
    vendor.ledger.exactly_once(offer(reference="Consultation"))


async def test_an_invoice_whose_last_answer_was_lost_is_found(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    # given: no address, so that the declaration is all that is published
    vendor.faults.on(VENDOR, "payments.publish").script(Reset(), Reset(), Reset())
    with pytest.raises(OutcomeUnknown):
        await checkout.create(http, wanted(Money.from_sat(500)))
    [minted] = vendor.minted.values()

    # when
    found = await checkout.find(http, attempt())
    again = await checkout.create(http, wanted(Money.from_sat(500)))

    # then
    assert found
    assert found.offer
    assert (found.offer.bolt11, again, len(vendor.minted)) == (minted.bolt11, found, 1)


async def test_a_lost_answer_is_asked_for_again_only_while_the_order_is_remembered(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, clock: ManualClock
) -> None:
    http = Http(checkout, InProcess(vendor), Guard(VENDOR, Policy(), clock=clock), clock)
    vendor.faults.on(VENDOR, "payments.create").script(Reset(), Reset())

    async with Till(vendor, clock=clock) as till:
        with pytest.raises(OutcomeUnknown):
            await till.run(checkout.create(http, wanted(key_valid=lambda: not vendor.minted)))
        asked = len(vendor.minted)
        again = await till.run(checkout.create(http, wanted(key_valid=lambda: True)))

    assert (asked, again.status) == (1, S.PENDING)
    vendor.ledger.exactly_once(offer(reference="Consultation"))


async def test_a_wallet_that_answers_about_another_invoice_is_a_mismatch(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, http: Http
) -> None:
    await checkout.create(http, wanted(Money.from_sat(500)))
    [minted] = vendor.minted.values()
    minted.settled, minted.preimage = True, "00" * 32
    with pytest.raises(Mismatch, match="preimage"):
        await checkout.fetch(http, ATTEMPT_ID)


async def test_a_wallet_that_makes_a_wrong_invoice_is_refused_and_nothing_is_shown(
    vendor: SwissBitcoinPayCheckoutSimulator, checkout: SwissBitcoinPayCheckout, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = InProcess(vendor)

    class Greedy(InProcess):
        async def send(self, request: HttpRequest) -> HttpResponse:
            twice = request.url.replace("amount=21000000", "amount=42000000")
            return await inner.send(HttpRequest(method="GET", url=twice, headers=request.headers))

    with pytest.raises(Refused) as caught:
        await checkout.create(Http(checkout, Greedy(vendor), Unguarded(), vendor.clock), wanted())
    assert (caught.value.code, caught.value.reason) == ("invalid_invoice", "amount")
    assert not vendor.ledger.entries()


async def test_no_secret_is_in_a_log_line_or_an_error(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = vendor.key.split(".")[1]
    vendor.faults.on(VENDOR, "payments.create").always(Status(400, body=vendor.key.encode()))

    async with Till(vendor, provider(vendor), clock=clock) as till:
        with pytest.raises(CallFailed) as caught:
            await till.create("order-1", DUE)

    sent = "".join(f"{request.target}{request.headers}{request.body!r}" for request in vendor.requests)
    told = caplog.text + str(caught.value) + repr(caught.value) + sent
    assert secret not in told
    assert base64.urlsafe_b64decode(secret + "==").hex() not in told


# With the test kit


async def test_it_works_with_fakes_alone() -> None:
    fakes = Fakes(clock=ManualClock(NOON), seed=3)
    checkout = fakes.provider(VENDOR)
    http = Http(checkout, fakes.transport(checkout), Unguarded(), fakes.clock)

    created = await checkout.create(http, wanted())
    fakes.swiss_bitcoin_pay_checkout().pay(created.offer.bolt11)

    assert (await checkout.fetch(http, created.vendor_id)).status is S.PAID
    fakes.ledger.exactly_once(charge(reference="Consultation"))


# Through the client


async def test_a_payment_is_paid_by_sweep_alone(till: Till, vendor: SwissBitcoinPayCheckoutSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer
    vendor.pay(payment.offer.payload)

    # when
    await till.clock.advance(31)
    await till.settle()

    # then
    paid = await till.payments.get("order-1")
    assert (paid.status, paid.received, paid.anomalies) == (S.PAID, DUE, frozenset())
    assert [event.reference for event in till.paid] == ["order-1"]
    vendor.ledger.exactly_once(charge(reference="order-1"))


async def test_who_waits_sees_it_paid(till: Till, vendor: SwissBitcoinPayCheckoutSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer
    vendor.pay(payment.offer.payload)

    async def sweep_and_wait() -> PaymentStatus:
        await till.clock.sleep(31)
        await till.hub.settle()
        return (await till.payments.wait("order-1", timeout=60)).status

    assert await till.run(sweep_and_wait()) is S.PAID


async def test_francs_are_converted_at_a_rate_frozen_before_anything_is_sent(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock
) -> None:
    # given
    rates = FixedRates({("CHF", "BTC"): "0.0000125"}, source="treasury")
    hub = Holdfast(
        store=MemoryStore(clock=clock),
        payments=Payments([provider(vendor)], rates=rates),
        clock=clock,
        transport=lambda _: InProcess(vendor),
    )

    # when
    async with Till(vendor, clock=clock) as till, hub:
        payment = await till.run(hub.payments.create("order-1", Money("120.00", "CHF")))
        assert payment.offer
        vendor.pay(payment.offer.payload)
        paid = await till.run(hub.payments.refresh("order-1"))

    # then
    [attempt] = paid.attempts
    assert attempt.quote
    assert (attempt.price, attempt.quote.rate, attempt.quote.source) == (
        Money.from_sat(150_000),
        "0.0000125",
        "treasury",
    )
    assert (paid.status, paid.received) == (S.PAID, Money("120.00", "CHF"))


async def test_after_lost_answers_there_is_one_invoice_and_it_is_shown(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    vendor.lot.clear()
    vendor.tell()
    vendor.faults.on(VENDOR, "payments.publish").script(Reset(), Reset(), Reset())

    payment = await till.create("order-1", DUE)

    assert payment.route == (f"{VENDOR}:offered",)
    assert payment.offer
    [minted] = vendor.minted.values()
    assert payment.offer.bolt11 == minted.bolt11
    vendor.ledger.exactly_once(offer(reference="order-1"))
    vendor.pay(payment.offer.payload)
    assert (await till.refresh("order-1")).status is S.PAID


async def test_a_process_that_died_before_it_knew_leaves_one_invoice_to_find(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock
) -> None:
    store = MemoryStore(clock=clock)
    async with store:
        # given: a process that was killed after the vendor had acted, and before it could write down the answer
        async with Till(vendor, provider(vendor), clock=clock, store=_shared(store)) as first:
            vendor.lot.clear()
            vendor.tell()
            vendor.faults.on(VENDOR, "payments.publish").script(Hang(3600), Hang(3600), Hang(3600))
            killed = asyncio.ensure_future(first.payments.create("order-1", DUE))
            while not vendor.orders:
                await clock.advance(0)
            killed.cancel()
            await asyncio.wait([killed])
        assert killed.cancelled()

        # when
        async with Till(vendor, provider(vendor), clock=clock, store=_shared(store)) as second:
            await clock.advance(60)
            await second.settle()
            payment = await second.create("order-1", DUE)
            assert payment.offer
            vendor.pay(payment.offer.payload)
            await clock.advance(60)
            await second.settle()
            paid = await second.payments.get("order-1")

    # then
    assert (paid.status, len(paid.attempts), len(vendor.minted)) == (S.PAID, 1, 1)
    vendor.ledger.exactly_once(charge(reference="order-1"))


async def test_a_payment_is_followed_by_a_process_that_has_only_its_record(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock
) -> None:
    store = MemoryStore(clock=clock)
    async with store:
        async with Till(vendor, provider(vendor), clock=clock, store=_shared(store)) as first:
            payment = await first.create("order-1", DUE)
        assert payment.offer
        assert payment.offer.address
        vendor.pay_onchain(payment.offer.address, DUE.sat)
        vendor.mine(3)
        async with Till(vendor, provider(vendor), clock=clock, store=_shared(store)) as second:
            await clock.advance(31)
            await second.settle()
            paid = await second.payments.get("order-1")
    assert (paid.status, [event.reference for event in second.paid]) == (S.PAID, ["order-1"])


async def test_what_nobody_pays_expires_after_its_grace(till: Till) -> None:
    await till.create("order-1", DUE)
    await till.clock.advance(16 * 60)
    await till.settle()
    assert (await till.payments.get("order-1")).status is S.PENDING
    await till.clock.advance(2 * 60)
    await till.settle()
    assert (await till.payments.get("order-1")).status is S.EXPIRED


async def test_lightning_paid_in_the_grace_is_in_time_and_later_it_is_late(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    # given
    in_time, late = await till.create("order-1", DUE), await till.create("order-2", DUE)
    assert in_time.offer
    assert late.offer

    # when
    await till.clock.advance(15 * 60 + 30)
    vendor.pay(in_time.offer.payload, late=True)
    await till.settle()
    await till.clock.advance(5 * 60)
    await till.settle()
    vendor.pay(late.offer.payload, late=True)
    await till.clock.advance(10 * 60)
    await till.settle()

    # then
    first, second = [await till.payments.get(reference) for reference in ("order-1", "order-2")]
    assert (first.status, first.anomalies) == (S.PAID, frozenset())
    assert (second.status, second.anomalies) == (S.PAID, {Anomaly.LATE})
    assert [(event.reference, event.late) for event in till.paid] == [("order-1", False), ("order-2", True)]


async def test_an_underpayment_is_flagged_and_completed(till: Till, vendor: SwissBitcoinPayCheckoutSimulator) -> None:
    # given
    payment = await till.create("order-1", DUE)
    assert payment.offer
    assert payment.offer.address
    vendor.pay_onchain(payment.offer.address, 20_000)

    # when
    short = await till.refresh("order-1")
    vendor.pay_onchain(payment.offer.address, 1000)
    vendor.mine(3)
    whole = await till.refresh("order-1")

    # then
    assert (short.status, short.received, short.anomalies) == (
        S.PARTIALLY_PAID,
        Money.from_sat(20_000),
        {Anomaly.UNDERPAID},
    )
    assert (whole.status, whole.received) == (S.PAID, DUE)


async def test_money_of_an_offer_that_ended_is_flagged_and_never_lost(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer
    assert payment.offer.address
    vendor.pay_onchain(payment.offer.address, 5000)
    await till.clock.advance(60)
    await till.settle()
    await till.clock.advance(17 * 60)
    await till.settle()

    ended = await till.payments.get("order-1")

    assert (ended.status, ended.received, ended.anomalies) == (
        S.EXPIRED,
        Money.from_sat(5000),
        {Anomaly.UNDERPAID},
    )
    assert [(flag.anomaly, flag.received) for flag in till.flagged] == [(Anomaly.UNDERPAID, Money.from_sat(5000))]
    assert not till.paid


async def test_money_first_seen_after_the_end_is_flagged_too(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    """Nobody looked while it came: what the explorers remember still counts as in time."""
    payment = await till.create("order-1", DUE)
    assert payment.offer
    assert payment.offer.address
    vendor.pay_onchain(payment.offer.address, 5000)
    await till.clock.advance(18 * 60)
    await till.settle()
    ended = await till.payments.get("order-1")
    assert (ended.status, ended.anomalies, ended.received) == (S.EXPIRED, {Anomaly.UNDERPAID}, Money.from_sat(5000))


async def test_what_is_on_its_way_at_the_end_is_waited_for(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer
    assert payment.offer.address
    vendor.pay_onchain(payment.offer.address, DUE.sat)
    await till.clock.advance(20 * 60)
    await till.settle()
    assert (await till.payments.get("order-1")).status is S.PROCESSING
    vendor.mine(3)
    await till.clock.advance(5 * 60)
    await till.settle()
    paid = await till.payments.get("order-1")
    assert (paid.status, paid.anomalies) == (S.PAID, frozenset())


async def test_after_an_offer_that_ended_another_attempt_is_another_order(
    till: Till, vendor: SwissBitcoinPayCheckoutSimulator
) -> None:
    first = await till.create("order-1", DUE)
    with pytest.raises(Rejected, match="cannot be revoked"):
        await till.run(till.payments.renew("order-1"))
    await till.clock.advance(18 * 60)
    await till.settle()
    second = await till.run(till.payments.renew("order-1"))
    assert second.route == (f"{VENDOR}:closed", f"{VENDOR}:offered")
    assert second.attempts[1].vendor_id != first.attempts[0].vendor_id
    assert second.attempts[1].vendor_id == second.attempts[1].id


async def test_a_canceled_payment_ends_with_its_offer(till: Till) -> None:
    await till.create("order-1", DUE)
    asked = await till.run(till.payments.cancel("order-1"))
    assert (asked.canceling, asked.offer) == (True, None)
    await till.clock.advance(18 * 60)
    await till.settle()
    assert (await till.payments.get("order-1")).status is S.CANCELED


async def test_money_goes_back_by_hand(till: Till, vendor: SwissBitcoinPayCheckoutSimulator) -> None:
    payment = await till.create("order-1", DUE)
    assert payment.offer
    vendor.pay(payment.offer.payload)
    await till.refresh("order-1")
    refund = await till.refund("order-1", key="r1")
    assert refund.status is RefundStatus.MANUAL_REQUIRED


async def test_without_relays_another_provider_is_asked(
    vendor: SwissBitcoinPayCheckoutSimulator, clock: ManualClock
) -> None:
    # given
    spare = LNbitsSimulator(clock=clock)
    lnbits = LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret(spare.invoice_key))
    wires = {VENDOR: InProcess(vendor), "lnbits": InProcess(spare)}
    vendor.down = set(vendor.relays)

    # when
    async with Till(vendor, provider(vendor), lnbits, clock=clock, wire=lambda one: wires[one.name]) as till:
        payment = await till.create("order-1", DUE)

    # then
    assert payment.route == (f"{VENDOR}:failed", "lnbits:offered")
    assert not vendor.ledger.entries()


async def test_an_offer_longer_than_an_hour_is_refused_to_the_caller(till: Till) -> None:
    with pytest.raises(InvalidInput, match="pass a shorter expires_in"):
        await till.create("order-1", DUE, expires_in=timedelta(hours=2))


def _shared(store: MemoryStore) -> Any:
    """The store, which does not end with the process that uses it."""

    class Shared:
        durable = False

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def __aenter__(self) -> "Shared":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    return Shared()
