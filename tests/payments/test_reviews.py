"""Money that its vendor reviews before it is set aside: it is on its way until the vendor says otherwise."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from holdfast import Money
from holdfast.errors import InvalidInput, Rejected
from holdfast.http.session import Http
from holdfast.payments.models import Anomaly, Attempt, Capture, PaymentStatus
from holdfast.payments.provider import Capabilities, PaymentSnapshot
from tests.payments.test_verbs import Shop
from tests.payments.vendors import AbleVendor, Vendor

S = PaymentStatus
DUE = Money("120.00", "CHF")
LATER = timedelta(days=3).total_seconds()


def setting_aside() -> Capabilities:
    able = AbleVendor().capabilities
    return replace(able, captures=True, authorizes=True, revocable=False, releasable=True)


@dataclass(kw_only=True, eq=False)
class Reviewing(AbleVendor):
    """One that looks at what it is to set aside before it does."""

    capabilities: Capabilities = field(default_factory=setting_aside)

    async def authorize(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        self.agree(attempt.vendor_id, S.PROCESSING)
        return self.held[attempt.vendor_id]


@pytest.fixture
def vendor() -> Reviewing:
    return Reviewing()


@pytest.fixture
async def shop(vendor: Reviewing) -> AsyncGenerator[Shop]:
    """A payment under review."""
    shop = Shop(vendor, Vendor(name="other"))
    async with shop:
        created = await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)
        vendor.agree(created.attempts[0].vendor_id, S.APPROVED)
        await shop.payments.refresh("order-1")
        yield shop


async def vendor_id(shop: Shop) -> str:
    return (await shop.payments.get("order-1")).attempts[0].vendor_id


async def swept(shop: Shop, seconds: float) -> None:
    await shop.clock.advance(seconds)
    await shop.payments.sweep()


async def test_it_is_on_its_way_and_is_not_captured(shop: Shop, vendor: Reviewing) -> None:
    payment = await shop.payments.get("order-1")

    assert (payment.status, shop.events) == (S.PROCESSING, [])
    with pytest.raises(InvalidInput, match="nothing is set aside"):
        await shop.payments.capture("order-1")


async def test_no_clock_of_ours_ends_it(shop: Shop) -> None:
    for _ in range(4):
        await swept(shop, LATER)

    assert (await shop.payments.get("order-1")).status is S.PROCESSING
    assert shop.events == []


@pytest.mark.parametrize("days", [0, 3])
async def test_what_passes_is_set_aside_and_captured_when_the_caller_says_so(
    shop: Shop, vendor: Reviewing, days: int
) -> None:
    await swept(shop, days * 86_400)
    vendor.agree(await vendor_id(shop))
    await swept(shop, 300)
    passed = await shop.payments.get("order-1")
    paid = await shop.payments.capture("order-1")

    assert (passed.status, paid.status) == (S.AUTHORIZED, S.PAID)
    assert shop.events == ["payment.authorized", "payment.paid"]


async def test_what_does_not_pass_failed(shop: Shop, vendor: Reviewing) -> None:
    vendor.agree(await vendor_id(shop), S.FAILED)
    await swept(shop, LATER)

    assert (await shop.payments.get("order-1")).status is S.FAILED
    assert shop.events == ["payment.failed"]


async def test_what_is_canceled_meanwhile_is_let_go_of_once_it_passed(shop: Shop, vendor: Reviewing) -> None:
    # given
    canceling = await shop.payments.cancel("order-1")
    with pytest.raises(Rejected, match="cannot be revoked"):
        await shop.payments.renew("order-1")

    # when
    vendor.agree(await vendor_id(shop))
    await swept(shop, LATER)

    # then
    assert (canceling.status, canceling.offer) == (S.PROCESSING, None)
    assert vendor.held[await vendor_id(shop)].status is S.CANCELED
    assert not vendor.captured
    assert (await shop.payments.get("order-1")).status is S.CANCELED


async def test_what_is_canceled_and_does_not_pass_is_canceled(shop: Shop, vendor: Reviewing) -> None:
    await shop.payments.cancel("order-1")
    vendor.agree(await vendor_id(shop), S.FAILED)
    await swept(shop, LATER)

    assert (await shop.payments.get("order-1")).status is S.CANCELED
    assert shop.events == ["payment.canceled"]


async def test_no_other_offer_is_made_beside_it(shop: Shop, vendor: Reviewing) -> None:
    again = await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)

    assert (again.status, len(again.attempts)) == (S.PROCESSING, 1)


class Slow(Reviewing):
    """One whose captured money takes its time."""

    async def capture(
        self, http: Http, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        self.agree(attempt.vendor_id, S.PROCESSING)
        return self.held[attempt.vendor_id]


async def test_money_that_moves_is_not_set_aside_again_by_an_older_answer() -> None:
    vendor = Slow()
    shop = Shop(vendor)
    async with shop:
        # given
        created = await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)
        vendor.agree(created.attempts[0].vendor_id)
        await shop.payments.refresh("order-1")
        moving = await shop.payments.capture("order-1")

        # when
        vendor.agree(created.attempts[0].vendor_id)
        old = await shop.payments.refresh("order-1")

    # then
    assert (moving.status, old.status) == (S.PROCESSING, S.PROCESSING)
    assert shop.events == ["payment.authorized"]


class Late(Reviewing):
    """One whose answers are late: what it did comes to light when the offer is over."""

    async def authorize(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        return self.held[attempt.vendor_id]


async def expired(shop: Shop, vendor: Reviewing) -> str:
    """An offer that is over, of which it comes to light that its money is under review."""
    created = await shop.payments.create("order-1", DUE, capture=Capture.MANUAL)
    await swept(shop, 20 * 60)
    assert (await shop.payments.get("order-1")).status is S.EXPIRED
    vendor.agree(created.attempts[0].vendor_id, S.PROCESSING)
    await swept(shop, 3600)
    assert (await shop.payments.get("order-1")).status is S.PROCESSING
    return created.attempts[0].vendor_id


@pytest.mark.parametrize(("word", "status"), [(S.CANCELED, S.CANCELED), (S.EXPIRED, S.EXPIRED), (S.FAILED, S.FAILED)])
@pytest.mark.parametrize("passed", [True, False])
async def test_late_money_under_review_comes_to_an_end_too(word: S, status: S, passed: bool) -> None:
    vendor = Late()
    shop = Shop(vendor)
    async with shop:
        id = await expired(shop, vendor)
        if passed:
            vendor.agree(id)
            await swept(shop, 3600)
            assert (await shop.payments.get("order-1")).status is S.AUTHORIZED
        vendor.agree(id, word)
        await swept(shop, 3600)

        assert (await shop.payments.get("order-1")).status is status


async def test_late_money_that_passed_is_captured_or_let_go_of_as_the_caller_says() -> None:
    for verb in ("capture", "cancel"):
        vendor = Late()
        shop = Shop(vendor)
        async with shop:
            id = await expired(shop, vendor)
            vendor.agree(id)
            await swept(shop, 3600)
            await getattr(shop.payments, verb)("order-1")
            await swept(shop, 3600)
            payment = await shop.payments.get("order-1")

        told = (S.PAID, S.PAID) if verb == "capture" else (S.CANCELED, S.CANCELED)
        assert (payment.status, vendor.held[id].status) == told
        assert (Anomaly.LATE in payment.anomalies) is (verb == "capture")
