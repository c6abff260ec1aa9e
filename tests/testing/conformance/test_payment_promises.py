"""The suite notices what it is for: each of these providers breaks one promise, and is told so."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast.errors import CallFailed, NotSent, OutcomeUnknown, Rejected
from holdfast.http.session import Http
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    OfferRequest,
    PaymentProvider,
    PaymentSnapshot,
    RefundRequest,
    RefundSnapshot,
    StatementLine,
)
from holdfast.providers import BTCPay, LNbits, Lnd, PayPal, Paystack, SwissBitcoinPay
from holdfast.providers.lnbits import Payments
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments import Finding, PaymentConformance, examine
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.values import Money, Secrets
from holdfast.webhooks.request import Delivery, RawRequest
from holdfast.webhooks.signatures import Verdict
from tests.testing.conformance import test_payment_providers as ours


class RepeatsByItself(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        with suppress(OutcomeUnknown):
            return await super().create(http, request)
        return await super().create(http, request)


class WaitsByItself(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        await asyncio.sleep(0.001)
        return await super().create(http, request)


class OnlyLooksItSays(LNbits):
    capabilities = replace(LNbits.capabilities, create_effect=Effect.READ)


class TakesFailureForAbsence(LNbits):
    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        with suppress(CallFailed):
            return await super().find(http, attempt)
        return None


class FindsAnybodys(LNbits):
    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        return PaymentSnapshot(vendor_id="somebody-elses", status=PaymentStatus.PENDING)


class FindsItUnderAnyId(LNbits):
    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        [first, *_] = (await http.get("/api/v1/payments", Payments, operation="find")).root
        return replace(first.to_snapshot(), attempt_id=attempt.id)


class ClaimsTooMuch(LNbits):
    capabilities = replace(LNbits.capabilities, revocable=True)


class ConfusesItsUnits(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        whole = Money.from_minor(request.price.minor_units * 1000, request.price.currency)
        return await super().create(http, replace(request, price=whole))


class RoundsSilently(SwissBitcoinPay):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        price = request.price
        cents = Money.from_minor(price.minor_units // 10 * 10, price.currency)
        return await super().create(http, replace(request, price=cents))


class ExpiresLater(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        return await super().create(http, replace(request, expires_in=request.expires_in + timedelta(days=1)))


class CallsFailureARefusal(SwissBitcoinPay):
    causes = SwissBitcoinPay.causes | {500: Cause.REJECTED}


class CallsALossNotSent(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        try:
            return await super().create(http, request)
        except OutcomeUnknown as error:
            raise NotSent(str(error), provider=self.name) from error


class ForgetsItsKey(PayPal):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        fresh = hashlib.sha256(f"{request.attempt_id}{request.price}{id(request.key_valid)}".encode()).hexdigest()[:32]
        return replace(await super().create(http, replace(request, attempt_id=fresh)), attempt_id=request.attempt_id)


class LeavesTheKeysLifeOut(PayPal):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        return await super().create(http, replace(request, key_valid=None))


class RefundsUnderAnyKey(PayPal):
    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        key = f"{request.key}-{len(http._guard.asked)}"  # type: ignore[attr-defined]  # how often anything was asked
        return await super().refund(http, replace(request, key=key))


class FindsAnyRefund(Paystack):
    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        return RefundSnapshot(vendor_id="1", status=RefundStatus.SUCCEEDED, money=request.money, key=request.key)


class SaysTheMoneyWentBack(BTCPay):
    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        return replace(await super().refund(http, request), status=RefundStatus.SUCCEEDED)


class TakesAnyStatusForPaid(LNbits):
    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        seen = await super().fetch(http, vendor_id)
        unsure = seen.status is PaymentStatus.UNKNOWN
        return replace(seen, status=PaymentStatus.PAID, received=seen.price) if unsure else seen


class BelievesAnyObject(LNbits):
    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        return replace(await super().fetch(http, vendor_id), vendor_id=vendor_id, attempt_id="")


class BelievesAnyStore(BTCPay):
    def _own(self, invoice: Any, operation: str) -> Any:
        return invoice


class BelievesAnyAmount(LNbits):
    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        seen = await super().fetch(http, vendor_id)
        due = Money.from_sat(21_000)
        return replace(seen, price=due, received=due if seen.received else None)


class CallsAbsenceExpired(LNbits):
    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        try:
            return await super().fetch(http, vendor_id)
        except Rejected:
            return PaymentSnapshot(vendor_id=vendor_id, status=PaymentStatus.EXPIRED)


class ReadsTooTrustingly(LNbits):
    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        seen = await super().fetch(http, vendor_id)
        ends = timedelta(milliseconds=seen.price.minor_units if seen.price else 0)  # which not every number fits
        return replace(seen, reason=str(ends))


class RevokesInNameOnly(Lnd):
    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        return PaymentSnapshot(vendor_id=attempt.vendor_id, status=PaymentStatus.CANCELED)


class BelievesEverybody(SwissBitcoinPay):
    class Credulous:
        def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
            return Verdict(valid=True)

    scheme = Credulous()  # type: ignore[assignment]  # it must not be one


class StumblesOverBodies(SwissBitcoinPay):
    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        quoted = request.body[0] == ord('"')  # of an empty body there is no first byte
        return [] if quoted else super().parse(request)


class TellsOneThingTwice(LNbits):
    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        async for delivery in super().list_deliveries(http, since):
            yield replace(delivery, dedup_key=f"listed/{delivery.dedup_key}")


class StatesTwice(LNbits):
    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        async for line in super().statement(http, since, until):
            yield line
            yield line


class ShowsItsKey(LNbits):
    def __repr__(self) -> str:
        return f"LNbits({self.invoice_key.reveal()})"


class LogsItsKey(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        logging.getLogger("lnbits").debug("asking with %s", self.invoice_key.reveal())
        return await super().create(http, request)


class Remembers(LNbits):
    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        made = await super().create(http, request)
        object.__setattr__(self, "latest", made.vendor_id)
        return made


Case = tuple[type[PaymentConformance[Any]], type[PaymentProvider], str]
CASES: list[Case] = [
    (ours.TestLNbits, RepeatsByItself, "tells_the_cause_and_does_nothing_twice[create-reset]"),
    (ours.TestLNbits, WaitsByItself, "creates_one_offer_in_one_exchange"),
    (ours.TestLNbits, OnlyLooksItSays, "creates_one_offer_in_one_exchange"),
    (ours.TestLNbits, TakesFailureForAbsence, "never_overlooks_what_exists[500]"),
    (ours.TestLNbits, FindsAnybodys, "finds_nothing_where_there_is_nothing"),
    (ours.TestLNbits, FindsItUnderAnyId, "finds_nobody_elses"),
    (ours.TestLNbits, ClaimsTooMuch, "claims_what_it_has"),
    (ours.TestLNbits, ConfusesItsUnits, "takes_exact_amounts"),
    (ours.TestSwissBitcoinPay, RoundsSilently, "takes_exact_amounts[3 decimals]"),
    (ours.TestLNbits, ExpiresLater, "offers_end_when_they_are_said_to"),
    (ours.TestSwissBitcoinPay, CallsFailureARefusal, "tells_the_cause_and_does_nothing_twice[create-500_after]"),
    (ours.TestLNbits, CallsALossNotSent, "tells_the_cause_and_does_nothing_twice[create-hang]"),
    (ours.TestLNbits, CallsALossNotSent, "is_paid_once_though_answers_are_lost"),
    (ours.TestPayPal, ForgetsItsKey, "another_body_under_one_key_is_no_second_offer"),
    (ours.TestPayPal, LeavesTheKeysLifeOut, "creates_one_offer_in_one_exchange"),
    (ours.TestPayPal, RefundsUnderAnyKey, "tells_the_cause_and_does_nothing_twice[refund-reset]"),
    (ours.TestPaystack, FindsAnyRefund, "finds_a_refund_by_its_key_alone"),
    (ours.TestBTCPay, SaysTheMoneyWentBack, "sends_a_part_back_once"),
    (ours.TestLNbits, TakesAnyStatusForPaid, "an_unknown_word_is_an_unknown_status"),
    (ours.TestLNbits, BelievesAnyObject, "another_object_is_noticed"),
    (ours.TestBTCPay, BelievesAnyStore, "another_recipient_is_a_mismatch"),
    (ours.TestLNbits, BelievesAnyAmount, "another_amount_is_noticed"),
    (ours.TestLNbits, CallsAbsenceExpired, "what_is_not_there_is_a_404"),
    (ours.TestLNbits, ReadsTooTrustingly, "any_answer_is_read_or_refused[pending]"),
    (ours.TestLnd, RevokesInNameOnly, "what_is_revoked_cannot_be_paid"),
    (ours.TestSwissBitcoinPay, BelievesEverybody, "believes_nobody_else"),
    (ours.TestSwissBitcoinPay, BelievesEverybody, "judges_any_request"),
    (ours.TestSwissBitcoinPay, StumblesOverBodies, "reads_any_webhook_or_says_why_not"),
    (ours.TestLNbits, TellsOneThingTwice, "lists_what_webhooks_tell"),
    (ours.TestLNbits, StatesTwice, "states_what_the_ledger_has"),
    (ours.TestLNbits, ShowsItsKey, "shows_no_secret"),
    (ours.TestLNbits, LogsItsKey, "quotes_no_secret[400-json]"),
    (ours.TestLNbits, Remembers, "is_a_frozen_value"),
]


@pytest.mark.parametrize(("like", "kind", "promise"), CASES, ids=[f"{kind.__name__}-{name}" for _, kind, name in CASES])
async def test_a_broken_promise_is_noticed(
    like: type[PaymentConformance[Any]], kind: type[PaymentProvider], promise: str
) -> None:
    assert [finding for finding in await tried(like(), promise) if not finding.kept] == []

    findings = await tried(broken(like, kind), promise)

    assert any(finding.happened for finding in findings if not finding.kept)


async def test_for_what_a_provider_cannot_do_there_is_no_test() -> None:
    lnbits, paypal = (
        {promise.name for promise in suite.promises()} for suite in (ours.TestLNbits(), ours.TestPayPal())
    )

    assert not any("refund" in name or "captur" in name or "revoke" in name for name in lnbits)
    assert {"sends_a_part_back_once", "captures_a_part", "what_was_let_go_cannot_be_captured"} <= paypal
    assert "one_key_is_one_offer" in paypal - lnbits
    assert "finds_nothing_where_there_is_nothing" in lnbits - paypal


async def test_every_promise_says_its_rule_in_a_sentence() -> None:
    suites = [suite() for name, suite in vars(ours).items() if name.startswith("Test")]
    promises = [promise for suite in suites for promise in suite.promises()]

    assert len(suites) >= 11
    assert [promise.name for promise in promises if not promise.rule.endswith(".")] == []


async def test_whoever_does_not_say_how_both_are_made_is_told_so() -> None:
    class Unfinished(PaymentConformance[LNbitsSimulator]): ...

    with pytest.raises(NotImplementedError, match="Unfinished does not say how its simulator is made"):
        list(Unfinished().promises())


async def tried(suite: PaymentConformance[Any], promise: str) -> Sequence[Finding]:
    """What becomes of the promises of this name."""
    chosen = [one for one in suite.promises() if one.name.startswith(promise)]
    assert chosen
    return await examine(suite, promises=chosen)


def broken(like: type[PaymentConformance[Any]], kind: Callable[..., PaymentProvider]) -> PaymentConformance[Any]:
    """The suite of one of our vendors, with a provider of this kind in the place of its own."""
    whole = like()

    class Broken(PaymentConformance[Any]):
        def simulator(self, clock: ManualClock) -> Any:
            return whole.simulator(clock)

        def provider(self, simulator: Any) -> PaymentProvider:
            made: Any = whole.provider(simulator)
            return kind(**{field.name: getattr(made, field.name) for field in fields(made) if field.init})

    return Broken()
