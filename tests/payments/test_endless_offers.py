"""Offers that do not end by themselves: only revoking them is an end, and what failed may be paid once more."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

import pytest

from holdfast import Money
from holdfast.errors import OutcomeUnknown, Refused, Rejected
from holdfast.http.session import Http
from holdfast.payments.client import Payments
from holdfast.payments.facts import Answered, Fact, Looked, Renewed, Started
from holdfast.payments.machine import step
from holdfast.payments.models import Attempt, AttemptState, Offer, Payment, PaymentStatus
from holdfast.payments.planning import Action, GiveUp, Revoke, Start, chores, todo
from holdfast.payments.provider import Capabilities, Lookup, PaymentSnapshot
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Reference
from tests.payments.model.history import History
from tests.payments.model.vendors import Traits
from tests.payments.vendors import AbleVendor, Vendor

S = PaymentStatus
NOW = ManualClock().now()
DUE = Money("120.00", "CHF")
ENDLESS = Capabilities(currencies=None, revocable=True, open_ended=True)
ENDING = replace(ENDLESS, open_ended=False)
OVER = NOW + timedelta(minutes=15) + ENDLESS.grace


def said(status: S, received: Money | None = None) -> PaymentSnapshot:
    return PaymentSnapshot(vendor_id="v1", status=status, price=DUE, received=received, offer=Offer(embedded=True))


def looked(status: S | None, at: datetime = NOW, able: Capabilities = ENDLESS, received: Money | None = None) -> Looked:
    return Looked(at=at, number=1, snapshot=said(status, received) if status else None, capabilities=able)


def live(*facts: Fact) -> Payment:
    """A payment whose offer is shown, and what happened to it since."""
    payment = Payment(reference=Reference("order-1"), due=DUE, expires_in=timedelta(minutes=15), created_at=NOW)
    started = Started(
        at=NOW,
        provider="first",
        attempt_id="a1",
        price=DUE,
        quote=None,
        timeout=timedelta(seconds=8),
        expires_in=timedelta(minutes=15),
    )
    for fact in (started, Answered(at=NOW, number=1, claim=1, snapshot=said(S.PENDING)), *facts):
        payment = step(payment, fact).payment
    return payment


def next_action(payment: Payment, able: Capabilities = ENDLESS) -> Action:
    return todo(payment, ["first", "second"], {"first": able, "second": ENDING}, failed=frozenset(), now=NOW)


@pytest.mark.parametrize(
    ("able", "now", "expected"),
    [
        (ENDLESS, OVER, [Revoke(1)]),
        (ENDLESS, OVER - timedelta(seconds=1), []),
        (ENDING, OVER, []),
        (replace(ENDLESS, revocable=False), OVER, []),
    ],
)
def test_an_offer_is_revoked_once_its_time_and_grace_are_over(
    able: Capabilities, now: datetime, expected: list[Revoke]
) -> None:
    assert chores(live(), {"first": able}, now) == expected


@pytest.mark.parametrize("status", [S.PROCESSING, S.AUTHORIZED, S.PAID, S.CANCELED])
def test_what_the_payer_acted_on_in_time_is_not_revoked(status: S) -> None:
    assert chores(live(looked(status)), {"first": ENDLESS}, OVER) == []


@pytest.mark.parametrize("word", [S.PENDING, S.UNKNOWN, S.CREATED])
def test_time_alone_does_not_end_it(word: S) -> None:
    late = OVER + timedelta(days=30)

    assert live(looked(word, late)).status is S.PENDING
    assert live(looked(word, late, ENDING)).status is S.EXPIRED


@pytest.mark.parametrize(("word", "status"), [(S.CANCELED, S.CANCELED), (S.EXPIRED, S.EXPIRED), (None, S.EXPIRED)])
def test_the_vendors_own_word_ends_it(word: S | None, status: S) -> None:
    ended = live(looked(word, OVER + timedelta(seconds=1)))

    assert (ended.status, ended.attempts[0].state) == (status, AttemptState.CLOSED)


def test_money_that_was_on_its_way_and_did_not_come_leaves_an_offer_that_can_be_paid() -> None:
    payment = live(looked(S.PROCESSING), looked(S.PENDING, OVER))

    assert payment.attempts[0].status is S.PENDING
    assert chores(payment, {"first": ENDLESS}, OVER) == [Revoke(1)]


@pytest.mark.parametrize("word", [S.PENDING, S.FAILED, S.CANCELED, S.EXPIRED])
def test_money_that_was_on_its_way_and_did_not_come_is_not_kept_as_received(word: S) -> None:
    on_its_way = live(looked(S.PROCESSING, received=DUE))

    assert on_its_way.received == DUE
    assert step(on_its_way, looked(word)).payment.attempts[0].received is None


@pytest.mark.parametrize("word", [S.CANCELED, S.FAILED])
def test_an_old_answer_brings_back_no_money_that_was_on_its_way(word: S) -> None:
    able = ENDING if word is S.FAILED else ENDLESS
    payment = live(looked(word, able=able), looked(S.PROCESSING, able=able, received=DUE))

    assert (payment.attempts[0].status, payment.attempts[0].received) == (word, None)


def test_what_failed_is_revoked_before_anybody_is_asked_for_another_offer() -> None:
    failed = live(looked(S.FAILED))

    assert next_action(failed) == Revoke(1)
    assert next_action(failed, ENDING) == Start("first")


@pytest.mark.parametrize("word", [S.CANCELED, S.EXPIRED])
@pytest.mark.parametrize("renewed", [[], [Renewed(at=NOW)]], ids=["asked again", "renewed"])
def test_once_it_is_revoked_another_offer_is_made(word: S, renewed: list[Fact]) -> None:
    failed = live(looked(S.FAILED), *renewed)

    revoked = step(failed, looked(word))

    assert next_action(revoked.payment) == Start("first")
    assert (revoked.payment.status, revoked.events) == (failed.status, ())


@pytest.mark.parametrize("at", [NOW, OVER + timedelta(seconds=1)], ids=["in time", "after its end"])
def test_what_failed_and_waits_to_be_paid_again_is_not_taken_for_over(at: datetime) -> None:
    assert next_action(live(looked(S.FAILED), looked(S.PENDING, at))) == Revoke(1)


@pytest.mark.parametrize("word", [S.PROCESSING, S.PARTIALLY_PAID])
def test_what_failed_and_is_being_paid_again_is_neither_revoked_nor_offered_beside(word: S) -> None:
    assert next_action(live(looked(S.FAILED), looked(word))) == GiveUp(1)
    assert next_action(live(looked(S.FAILED, able=ENDING), looked(word, able=ENDING)), ENDING) == Start("first")


@dataclass(kw_only=True, eq=False)
class EndlessVendor(AbleVendor):
    """One whose offers are paid, once more too, until they are revoked."""

    name: str = "first"
    capabilities: Capabilities = field(default_factory=lambda: ENDLESS)
    deaf: bool = False

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        if not self.deaf and self.held[attempt.vendor_id].status is S.FAILED:
            self.before()
            self.agree(attempt.vendor_id, S.CANCELED)
        return await super().revoke(http, attempt)


@pytest.fixture
def vendor() -> EndlessVendor:
    return EndlessVendor()


@pytest.fixture
def other() -> Vendor:
    return Vendor(name="second")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def payments(vendor: EndlessVendor, other: Vendor, clock: ManualClock) -> AsyncGenerator[Payments]:
    """One payment, whose payer's bank refused in the end."""
    runtime = Runtime(open_store("memory://", clock=clock), clock=clock)
    async with Payments([vendor, other], runtime=runtime) as payments:
        payment = await payments.create("order-1", DUE)
        vendor.agree(payment.attempts[0].vendor_id, S.FAILED)
        await payments.refresh("order-1")
        yield payments


def refuse() -> object:
    raise Refused("not now", provider="first", operation="revoke")


async def test_what_cannot_be_revoked_is_followed_by_no_other_offer(
    payments: Payments, vendor: EndlessVendor, other: Vendor
) -> None:
    vendor.before = refuse

    for verb in (payments.renew, payments.cancel):
        with pytest.raises(Refused):
            await verb("order-1")
    with pytest.raises(Refused):
        await payments.create("order-1", DUE)

    assert (len(vendor.requests), len(other.requests)) == (1, 0)
    assert (await payments.get("order-1")).status is not S.CANCELED


async def test_a_vendor_that_revokes_nothing_and_says_so_is_followed_by_no_other_offer(
    payments: Payments, vendor: EndlessVendor, other: Vendor
) -> None:
    vendor.deaf = True

    for _ in range(2):
        with pytest.raises(Rejected, match="was not revoked"):
            await payments.create("order-1", DUE)

    assert (len(vendor.requests), len(other.requests)) == (1, 0)


async def test_what_turns_out_to_be_on_its_way_again_is_followed_by_no_other_offer(
    payments: Payments, vendor: EndlessVendor, other: Vendor
) -> None:
    payment = await payments.get("order-1")
    vendor.agree(payment.attempts[0].vendor_id, S.PROCESSING)

    with pytest.raises(OutcomeUnknown, match="it is being found out"):
        await payments.create("order-1", DUE)

    vendor.pay(payment.attempts[0].vendor_id)
    assert (await payments.refresh("order-1")).status is S.PAID
    assert (len(vendor.requests), len(other.requests)) == (1, 0)


async def test_what_is_revoked_is_followed_by_another_offer(payments: Payments, vendor: EndlessVendor) -> None:
    payment = await payments.create("order-1", DUE)

    assert (payment.status, len(payment.attempts)) == (S.PENDING, 2)
    assert vendor.held[payment.attempts[0].vendor_id].status is S.CANCELED


async def test_an_offer_that_cannot_be_revoked_stays_open_and_is_revoked_at_a_later_look(
    payments: Payments, vendor: EndlessVendor, clock: ManualClock
) -> None:
    payment = await payments.create("order-2", DUE)
    vendor.before = refuse
    await clock.advance(17 * 60 + 1)
    await payments.sweep()
    during = await payments.get("order-2")

    vendor.before = lambda: None
    await clock.advance(301)
    await payments.sweep()

    assert (during.status, (await payments.get("order-2")).status) == (S.PENDING, S.CANCELED)
    assert vendor.held[payment.attempts[0].vendor_id].status is S.CANCELED


async def test_what_was_canceled_on_its_way_and_failed_is_revoked_all_the_same(
    payments: Payments, vendor: EndlessVendor
) -> None:
    # given
    offered = await payments.create("order-2", DUE)
    vendor_id = offered.attempts[0].vendor_id
    vendor.agree(vendor_id, S.PROCESSING)
    on_its_way = await payments.cancel("order-2")

    # when
    vendor.agree(vendor_id, S.FAILED)
    over = await payments.refresh("order-2")

    # then
    assert (on_its_way.status, over.status) == (S.PROCESSING, S.CANCELED)
    assert vendor.held[vendor_id].status is S.CANCELED


def endless(chance: Random, number: int) -> Traits:
    """A vendor of the model check whose offers never end, and whose money takes its time and may not come."""
    return Traits(
        name=f"vendor-{number}",
        lookup=chance.choice(list(Lookup)),
        revocable=True,
        open_ended=True,
        slow_money=True,
        partial=chance.random() < 0.3,
        echoes=True,
        webhooks=chance.random() < 0.8,
        manual_capture=chance.random() < 0.3,
    )


async def test_a_shop_that_has_only_such_vendors_never_shows_two_offers_that_can_be_paid() -> None:
    for seed in range(280, 380):  # in 316 a debit fails and another offer is asked for
        chance = Random(seed)
        history = History(seed=seed, traits=[endless(chance, number) for number in range(2)])

        assert await history.run() == [], "\n".join(history.log)
