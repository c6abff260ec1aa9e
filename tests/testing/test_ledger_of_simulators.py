"""The ledger and the journal as the simulated vendors write them."""

import asyncio

import pytest

from holdfast.errors import CallFailed
from holdfast.http.transports import HttpRequest
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Faults, Latency, Reset, Status
from holdfast.testing.intents import charge, offer
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.secrets import assert_no_secrets
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.timeline import Timeline

INTENT = b"amount=12000&currency=chf&metadata[reference]=o1"
PAID = INTENT + b"&payment_method=pm_card_visa&confirm=true&return_url=https://shop.test"
PAGE = (
    b"mode=payment&client_reference_id=o1&success_url=https://shop.test&line_items[0][quantity]=1"
    b"&line_items[0][price_data][currency]=chf&line_items[0][price_data][unit_amount]=12000"
    b"&line_items[0][price_data][product_data][name]=Talk"
)


class Shop:
    """A program that calls Stripe in process."""

    def __init__(self) -> None:
        self.clock, self.faults = ManualClock(), Faults(7)
        self.journal = Journal(self.clock)
        self.ledger = Ledger(journal=self.journal)
        self.stripe = StripeSimulator(
            ledger=self.ledger, faults=self.faults, clock=self.clock, journal=self.journal, seed=7
        )
        self.transport = InProcess(self.stripe)

    async def post(self, path: str, body: bytes = b"", *, key: str = "k1", method: str = "POST") -> int:
        headers = [
            ("authorization", f"Bearer {self.stripe.api_key}"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("idempotency-key", key),
        ]
        url = f"https://api.stripe.com/v1/{path}"
        request = HttpRequest(method=method, url=url, headers=headers if body else headers[:1], content=body)
        return (await self.transport.send(request)).status


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_a_charge_whose_answer_was_lost_is_an_orphan_until_it_is_asked_for_again_under_its_key(
    shop: Shop,
) -> None:
    # given
    shop.faults.on("stripe", "payments.create").script(Reset(), Status(429), None)
    with pytest.raises(CallFailed):
        await shop.post("payment_intents", PAID)
    with pytest.raises(AssertionError, match="capture of o1: stripe ch_"):
        shop.ledger.no_orphans()

    # when
    statuses = [await shop.post("payment_intents", PAID) for _ in range(2)]

    # then
    assert statuses == [429, 200]
    shop.ledger.no_orphans()
    shop.ledger.exactly_once(charge(reference="o1"))
    assert shop.journal.calls("stripe", "payments.create").assert_same_key().statuses == [None, 429, 200]


async def test_a_shop_that_asks_again_under_a_new_key_is_caught_thrice(shop: Shop) -> None:
    # given
    shop.faults.on("stripe", "payments.create").script(Reset(), None)
    with pytest.raises(CallFailed):
        await shop.post("payment_intents", PAID, key="k1")

    # when
    await shop.post("payment_intents", PAID, key="k2")

    # then
    with pytest.raises(AssertionError, match="charge of o1 happened 2 times"):
        shop.ledger.exactly_once(charge(reference="o1"))
    with pytest.raises(AssertionError, match="capture of o1"):
        shop.ledger.no_orphans()
    with pytest.raises(AssertionError, match="two keys, k1 and k2"):
        shop.journal.calls().assert_same_key()


async def test_an_answer_the_program_did_not_wait_for_has_told_it_nothing(shop: Shop) -> None:
    # given
    shop.faults.on("stripe", "payments.create").always(Latency(median=9, p99=9))

    # when
    asking = asyncio.ensure_future(shop.post("payment_intents", PAID))
    await shop.clock.advance(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    # then
    with pytest.raises(AssertionError, match="given up on after 9s: 200 lost"):
        shop.ledger.no_orphans()


async def test_a_cancelled_offer_makes_room_for_another(shop: Shop) -> None:
    # given
    await shop.post("payment_intents", INTENT, key="k1")
    first = shop.ledger.exactly_once(offer(reference="o1"))

    # when
    await shop.post(f"payment_intents/{first.id}/cancel", b"cancellation_reason=abandoned", key="k2")
    await shop.post("payment_intents", INTENT, key="k3")

    # then
    shop.ledger.never_two_offers()
    await shop.post("payment_intents", INTENT, key="k4")
    with pytest.raises(AssertionError, match="two offers of one reference"):
        shop.ledger.never_two_offers()


async def test_a_page_ends_by_itself_and_by_its_payment(shop: Shop) -> None:
    # given
    assert await shop.post("checkout/sessions", PAGE, key="k1") == 200

    # when
    await shop.clock.advance(24 * 3600)
    assert await shop.post("checkout/sessions", PAGE, key="k2") == 200
    shop.stripe.pay(shop.ledger.entries(Kind.OFFER)[-1].id)
    assert await shop.post("checkout/sessions", PAGE, key="k3") == 200

    # then
    assert len(shop.ledger.at_least_one(offer(reference="o1"))) == 3
    shop.ledger.never_two_offers()


async def test_money_nobody_was_told_of_is_an_orphan_until_somebody_looks(shop: Shop) -> None:
    # given
    await shop.post("checkout/sessions", PAGE)
    page = shop.ledger.exactly_once(offer(reference="o1")).id
    shop.stripe.pay(page)
    with pytest.raises(AssertionError, match="capture of o1"):
        shop.ledger.no_orphans()

    # when
    await shop.post(f"checkout/sessions/{page}", method="GET")

    # then
    shop.ledger.no_orphans()


async def test_a_timeline_of_true_calls_shows_no_credential(shop: Shop) -> None:
    await shop.post("payment_intents", PAID)
    assert "capture of o1 over 120.00 CHF" in Timeline(shop.journal).render()
    assert_no_secrets(shop.journal, shop.ledger, secrets=shop.stripe)
