"""The adversarial cases of payments that Swiss Bitcoin Pay and LNbits can bring about, through the whole hub.

Of the ten, 3, 4, 8 and 9 are other vendors' own, and so is 1 where it is about a capture. What they prove is
proven here with a lie that is rightly signed, and with vendors in memory that behave as those do.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from holdfast import Money, PaymentStatus
from holdfast.errors import Exhausted, HoldfastError, InvalidMoney, Mismatch, OutcomeUnknown, Refused
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import HttpVendor
from holdfast.payments.client import Payments
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Capture
from holdfast.payments.provider import Capabilities, Lookup, OfferRequest, PaymentSnapshot
from holdfast.runtime import Runtime
from holdfast.stores import JobFilter
from holdfast.telemetry import Security
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Hang, Reset, Status, Truncate
from holdfast.testing.faults import Refused as ConnectionRefused
from holdfast.testing.intents import offer
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.webhooks import Manner, Mischief
from tests.payments.vendors import AbleVendor, SearchableVendor, Vendor
from tests.payments.world import DOOR, DUE, LNBITS, SBP, Process, World

DOWN = Status(503, body=b'{"reason":"service_unavailable"}')


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("fault", [Reset(), Hang(), Truncate(), BadJson(), Status(500)])
async def test_1_a_creation_whose_answer_was_lost_is_one_effect_found_by_our_own_id(world: World, fault: Fault) -> None:
    world.faults.on(LNBITS, "payments.create").script(fault)
    async with Process(world, order=[LNBITS, SBP]) as shop:
        payment = await shop.create("order-1")

        made = world.ledger.exactly_once(offer(reference="order-1"))
        assert payment.provider == (SBP if isinstance(fault, Status) else LNBITS)
        assert made.facts["attempt"] == payment.attempts[-1].id
        assert payment.offer is not None


async def test_1_a_creation_that_can_be_neither_found_nor_repeated_falls_over_and_is_kept_as_an_orphan(
    world: World,
) -> None:
    world.faults.on(SBP, "payments.create").script(Reset())
    async with Process(world) as shop:
        payment = await shop.create("order-1")

    assert payment.route == ("swiss-bitcoin-pay:unknown", "lnbits:offered")
    assert len(world.ledger.entries(Kind.OFFER, vendor=SBP)) == 1
    assert payment.attempts[0].shown_at is None


@pytest.mark.parametrize("seed", range(5))
async def test_2_doubled_and_reordered_webhooks_are_one_event_and_no_step_back(seed: int) -> None:
    print("seed", seed)
    world = World(seed=seed)
    async with Process(world) as shop:
        payment = await shop.create("order-1")
        checkout = payment.attempts[0].vendor_id
        world.sbp.see_onchain(checkout)
        world.sbp.confirm(checkout)
        world.sbp.outbox.reverse()
        await shop.deliver(Mischief(duplicate=1, delay=0.5), seed=seed)
        await shop.settle()
        after = await shop.get("order-1")

        assert after is not None
        assert after.status is PaymentStatus.PAID
        assert len(await world.jobs("payment.paid")) == 1
        assert [paid.reference for paid in world.told] == ["order-1"]


@pytest.mark.parametrize("vendor", [SBP, LNBITS])
async def test_3_and_4_a_lie_that_is_rightly_signed_changes_nothing(world: World, vendor: str) -> None:
    async with Process(world, order=[vendor]) as shop:
        await shop.create("order-1")
        other = await shop.create("order-2")
        world.vendors[vendor].pay(other.attempts[0].vendor_id)
        sent = await shop.deliver(Mischief(lie=1))
        await shop.settle()
        believed = await shop.get("order-1")

        assert [one.status for one in sent if one.manner is Manner.LIE][:1] == [200]
        assert believed is not None
        assert believed.status is PaymentStatus.PENDING
        assert [paid.reference for paid in world.told] == ["order-2"]


async def test_what_a_lie_took_from_the_genuine_webhook_the_sweep_gives_back(world: World) -> None:
    """LNbits' webhooks have no identity, so one that comes before the money makes the genuine one its duplicate."""
    async with Process(world, order=[LNBITS]) as shop:
        first = await shop.create("order-1")
        other = await shop.create("order-2")
        world.lnbits.pay(other.attempts[0].vendor_id)
        await shop.deliver(Mischief(lie=1))
        await shop.settle()
        world.lnbits.pay(first.attempts[0].vendor_id)
        await shop.deliver()
        await shop.settle()
        at_once = sorted(paid.reference for paid in world.told)
        await world.clock.advance(300)
        await shop.settle()

        assert at_once == ["order-2"]
        assert sorted(paid.reference for paid in world.told) == ["order-1", "order-2"]


@pytest.mark.parametrize("vendor", [SBP, LNBITS])
async def test_a_forged_webhook_is_refused_and_leaves_no_trace(world: World, vendor: str) -> None:
    async with Process(world, order=[vendor]) as shop:
        payment = await shop.create("order-1")
        world.vendors[vendor].pay(payment.attempts[0].vendor_id)
        sent = await shop.deliver(Mischief(forge=1, drop=1))

        assert [one.status for one in sent] == [401 if vendor == SBP else 404]
        assert await world.store.jobs.list(JobFilter(queue="deliveries")) == []


async def test_5_the_body_lnbits_encodes_twice_and_sends_twice_is_one_paid(world: World) -> None:
    async with Process(world, order=[LNBITS]) as shop:
        payment = await shop.create("order-1")
        assert payment.offer is not None
        assert payment.offer.bolt11 is not None
        world.lnbits.pay(payment.offer.bolt11)
        assert isinstance(json.loads(world.lnbits.outbox[0].body), str)
        sent = await shop.deliver()
        await shop.settle()

        assert [one.status for one in sent] == [200, 200]
        assert len(await world.store.jobs.list(JobFilter(queue="deliveries"))) == 1
        assert [paid.reference for paid in world.told] == ["order-1"]


def confusing(world: World, factor: Decimal, *, method: str) -> Callable[[HttpVendor], Transport]:
    """LNbits on a server that mistakes its own unit, in the answers to one method."""

    class Confused(InProcess):
        async def send(self, request: HttpRequest) -> HttpResponse:
            response = await super().send(request)
            body = json.loads(response.content)
            found = body.get("details", body) if isinstance(body, dict) else {}
            if request.method == method and "amount" in found:
                found["amount"] = int(found["amount"] * factor)
                return replace(response, content=json.dumps(body).encode())
            return response

    return lambda vendor: Confused(world.vendors[vendor.name])


@pytest.mark.parametrize("factor", [Decimal(1000), Decimal("0.001")])
async def test_6_an_offer_in_another_unit_than_asked_for_is_never_shown(world: World, factor: Decimal) -> None:
    async with Process(world, order=[LNBITS], wire=confusing(world, factor, method="POST")) as shop:
        with pytest.raises(Mismatch):
            await shop.create("order-1")
        await shop.settle()
        payment = await shop.get("order-1")

        assert payment is not None
        assert payment.offer is None
        assert payment.anomalies == {Anomaly.MISMATCH}
        assert [flag.anomaly for flag in world.flagged] == [Anomaly.MISMATCH]
        with pytest.raises(HoldfastError):
            await shop.create("order-1")
    world.ledger.exactly_once(offer(reference="order-1"))


@pytest.mark.parametrize("factor", [Decimal(1000), Decimal("0.001")])
async def test_6_money_in_another_unit_than_asked_for_is_never_taken_for_paid(world: World, factor: Decimal) -> None:
    async with Process(world, order=[LNBITS], wire=confusing(world, factor, method="GET")) as shop:
        payment = await shop.create("order-1")
        world.lnbits.pay(payment.attempts[0].vendor_id)
        await shop.deliver()
        await shop.settle()
        await shop.settle()
        after = await shop.get("order-1")

        assert after is not None
        assert after.status is PaymentStatus.PENDING
        assert world.told == []
        assert [flag.anomaly for flag in world.flagged] == [Anomaly.MISMATCH]


@pytest.mark.parametrize("vendor", [SBP, LNBITS])
async def test_6_a_fraction_of_a_satoshi_is_refused_not_rounded(world: World, vendor: str) -> None:
    async with Process(world, order=[vendor]) as shop:
        with pytest.raises(InvalidMoney, match="whole number of satoshi"):
            await shop.create("order-1", Money("0.00000000001", "BTC"))
        whole = await shop.create("order-2", Money("0.00000001", "BTC"))

    assert whole.attempts[0].price == Money.from_sat(1)
    assert world.ledger.exactly_once(offer(reference="order-2")).money == Money.from_sat(1)
    assert world.ledger.entries(Kind.OFFER, key="order-1") == []


async def fallen_over(world: World, shop: Process) -> tuple[str, str]:
    """Order 1 offered by LNbits, after Swiss Bitcoin Pay did it too and its answer was lost: both objects' ids."""
    world.faults.on(SBP, "payments.create").script(Reset())
    payment = await shop.create("order-1")
    return next(iter(world.sbp.checkouts)), payment.attempts[-1].vendor_id


@pytest.mark.parametrize("orphan_first", [True, False])
async def test_7_money_on_both_offers_after_a_fallback_is_paid_once_and_flagged(
    world: World, orphan_first: bool
) -> None:
    async with Process(world) as shop:
        orphan, shown = await fallen_over(world, shop)
        payments = [(world.sbp, orphan), (world.lnbits, shown)]
        for vendor, offer in payments if orphan_first else reversed(payments):
            vendor.pay(offer)
            await shop.deliver()
            await shop.settle()
        payment = await shop.get("order-1")

        assert payment is not None
        assert Anomaly.DUPLICATE in payment.anomalies
        assert len(world.told) == 1
        assert [flag.vendor_id for flag in world.flagged if flag.anomaly is Anomaly.DUPLICATE] == [
            shown if orphan_first else orphan
        ]


async def test_7_money_on_the_orphan_takes_the_other_offer_off_the_page(world: World) -> None:
    async with Process(world) as shop:
        orphan, _ = await fallen_over(world, shop)
        world.sbp.pay(orphan)
        await shop.deliver()
        await shop.settle()
        payment = await shop.create("order-1")

    assert payment.status is PaymentStatus.PAID
    assert payment.offer is None
    assert payment.anomalies == {Anomaly.ORPHAN_PAID}


async def test_7_money_that_comes_after_the_end_is_never_unnoticed_though_no_webhook_came(world: World) -> None:
    async with Process(world, order=[LNBITS]) as shop:
        payment = await shop.create("order-1")
        await world.clock.advance(timedelta(minutes=18).total_seconds())
        await shop.settle()
        world.lnbits.pay(payment.attempts[0].vendor_id)
        world.lnbits.outbox.clear()
        await world.clock.advance(timedelta(minutes=60).total_seconds())
        await shop.settle()

        assert [paid.late for paid in world.told] == [True]
        assert [flag.anomaly for flag in world.flagged] == [Anomaly.LATE]


async def test_7_an_orphan_that_can_be_asked_for_is_found_though_its_vendor_was_down_until_its_end(
    world: World,
) -> None:
    world.faults.on(LNBITS, "payments.create").script(Reset())
    world.faults.on(LNBITS, "payments.find").always(DOWN)
    async with Process(world, order=[LNBITS, SBP]) as shop:
        payment = await shop.create("order-1")
        assert payment.route == ("lnbits:unknown", "swiss-bitcoin-pay:offered")
        for _ in range(6):
            await world.clock.advance(300)
            await shop.settle()
        world.faults.calm()
        world.lnbits.pay(next(iter(world.lnbits.payments)))
        world.lnbits.outbox.clear()
        await world.clock.advance(3600)
        await shop.settle()

        assert [paid.provider for paid in world.told] == [LNBITS]
        assert {flag.anomaly for flag in world.flagged} == {Anomaly.ORPHAN_PAID, Anomaly.LATE}


async def test_a_leaked_address_with_a_strange_id_in_the_body_binds_nothing(world: World) -> None:
    world.faults.on(LNBITS, "payments.create").script(Reset())
    world.faults.on(LNBITS, "payments.find").script(DOWN, DOWN, DOWN)
    async with Process(world, order=[LNBITS, SBP]) as shop:
        await shop.create("order-1")
        other = await shop.create("order-2")
        [ours] = [found for found in world.lnbits.payments.values() if found.key == "order-1"]
        strange = json.dumps(json.dumps({"payment_hash": "00", "amount": 1, "bolt11": "lnbc1", "status": "success"}))
        webhook = ours.webhook or ""
        assert await shop.post(webhook, [], strange.encode()) == 200
        assert await shop.post(webhook.replace("/lnbits/", "/swiss-bitcoin-pay/"), [], b"{}") == 401
        assert await shop.post(f"{DOOR}/lnbits/{other.attempts[0].id}.{'0' * 32}", [], strange.encode()) == 404
        await shop.settle()
        before = await shop.get("order-1")
        await world.clock.advance(60)
        await shop.settle()
        after = await shop.get("order-1")

        assert before is not None
        assert after is not None
        assert before.attempts[0].vendor_id == ""
        assert after.attempts[0].vendor_id == ours.invoice.payment_hash
        assert any(isinstance(signal, Security) for signal in world.signals)


@pytest.mark.parametrize(
    ("money", "rate_known"),
    [("5000 XOF", True), ("980 JPY", True), ("1.234 KWD", False), ("120.05 CHF", True)],
)
@pytest.mark.parametrize("vendor", [SBP, LNBITS])
async def test_10_currencies_of_none_and_three_decimals_are_exact_or_refused(
    world: World, vendor: str, money: str, rate_known: bool
) -> None:
    due = Money(*money.split())
    async with Process(world, order=[vendor]) as shop:
        if vendor == LNBITS and not rate_known:
            with pytest.raises(Refused, match="no rate"):
                await shop.create("order-1", due)
            assert world.ledger.entries() == []
            return
        payment = await shop.create("order-1", due)
        world.vendors[vendor].pay(payment.attempts[0].vendor_id)
        await shop.deliver()
        await shop.settle()

        offered = world.ledger.exactly_once(offer(reference="order-1")).money
        assert offered == payment.attempts[0].price
        assert [paid.received for paid in world.told] == [due]
        if vendor == SBP:
            assert offered == due
        else:
            exact = due.amount / world.lnbits.prices[due.currency] * 100_000_000
            assert offered is not None
            assert 0 <= offered.sat - exact < 1  # never less than what is due, never a whole satoshi more


@pytest.mark.parametrize("amount", ["5000.50 XOF", "980.1 JPY", "1.2345 KWD", "120.005 CHF"])
def test_10_decimals_a_currency_does_not_have_are_refused(amount: str) -> None:
    with pytest.raises(InvalidMoney):
        Money(*amount.split())


async def test_when_both_vendors_are_down_nothing_is_offered_and_the_caller_hears_of_each(world: World) -> None:
    world.faults.on(SBP).always(ConnectionRefused())
    world.faults.on(LNBITS).always(ConnectionRefused())
    async with Process(world) as shop:
        with pytest.raises(Exhausted) as raised:
            await shop.create("order-1")
        world.faults.calm()
        payment = await shop.create("order-1")

    assert [failure.provider for failure in raised.value.failures] == [SBP, LNBITS]
    assert payment.attempts[-1].state is AttemptState.OFFERED
    assert payment.due == DUE
    world.ledger.exactly_once(offer(reference="order-1"))


def alone(vendor: Vendor, clock: ManualClock) -> Payments:
    """Payments over one vendor in memory."""
    return Payments([vendor], runtime=Runtime("memory://", clock=clock))


async def test_1_a_capture_whose_answer_was_lost_is_one_effect_under_one_key() -> None:
    clock, vendor = ManualClock(), AbleVendor()
    async with alone(vendor, clock) as payments:
        payment = await payments.create("order-1", DUE, capture=Capture.MANUAL)
        vendor.agree(payment.attempts[0].vendor_id)
        await payments.refresh("order-1")
        losses = [OutcomeUnknown("the answer was lost")]
        vendor.after = lambda: raised(losses)
        with pytest.raises(OutcomeUnknown):
            await payments.capture("order-1")
        vendor.after = lambda: None
        await payments.refresh("order-1")
        after = await payments.capture("order-1")

    assert after.status is PaymentStatus.PAID
    assert list(vendor.captured.values()) == [DUE]


def raised(errors: list[OutcomeUnknown]) -> None:
    """The next of them, if there is one."""
    if errors:
        raise errors.pop()


class Remembering(AbleVendor):
    """One that did it, failed to say so, and says the same 500 to whoever asks under that key again."""

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        await super().create(http, request)
        raise OutcomeUnknown("the stored 500", status=500, provider=self.name)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        return next((held for held in self.held.values() if held.attempt_id == attempt.id), None)


async def test_8_a_stored_failure_replayed_under_the_same_key_is_read_and_never_asked_for_under_another() -> None:
    vendor = Remembering(capabilities=replace(AbleVendor().capabilities, lookup=Lookup.AUTHORITATIVE))
    async with alone(vendor, ManualClock()) as payments:
        payment = await payments.create("order-1", DUE)

    assert payment.offer is not None
    assert len(vendor.held) == 1
    assert len({request.attempt_id for request in vendor.requests}) == 1


async def test_9_not_found_by_our_own_id_is_proof_of_absence_and_the_creation_may_be_repeated() -> None:
    able = Capabilities(currencies=None, payer_visible=True, lookup=Lookup.AUTHORITATIVE_ABSENCE)
    clock, vendor = ManualClock(), SearchableVendor(capabilities=able)
    losses = [OutcomeUnknown("the request was lost")]
    vendor.before = lambda: raised(losses)
    async with alone(vendor, clock) as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)
        nothing = dict(vendor.held)
        await clock.advance(30)
        payment = await payments.refresh("order-1")
        assert payment.attempts[0].state is AttemptState.FAILED
        payment = await payments.create("order-1", DUE)

    assert nothing == {}
    assert payment.offer is not None
    assert len(vendor.held) == 1
