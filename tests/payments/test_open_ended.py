"""Offers that end only when they are revoked, where revoking does not go as it should."""

from dataclasses import replace
from datetime import timedelta

from holdfast import Money
from holdfast.errors import Rejected
from holdfast.http.session import Http
from holdfast.payments.client import Payments
from holdfast.payments.models import Attempt, PaymentStatus
from holdfast.payments.provider import PaymentSnapshot
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import AbleVendor

S = PaymentStatus
DUE = Money("120.00", "CHF")
LATER = timedelta(minutes=20).total_seconds()


class OpenEnded(AbleVendor):
    """One whose offers never end by themselves; `broken` is its way to revoke them."""

    broken = False

    def __init__(self, name: str = "vendor") -> None:
        super().__init__(name=name)
        self.capabilities = replace(self.capabilities, open_ended=True)

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        if self.broken:
            raise Rejected("this credential may not", provider=self.name, status=403)
        if attempt.vendor_id not in self.held:
            raise Rejected("no such object", provider=self.name, status=404)
        if self.held[attempt.vendor_id].status is S.FAILED:
            self.agree(attempt.vendor_id, S.CANCELED)
        return await super().revoke(http, attempt)


async def test_what_its_vendor_has_forgotten_is_over() -> None:
    clock, vendor = ManualClock(), OpenEnded()
    async with Payments([vendor], runtime=Runtime("memory://", clock=clock)) as payments:
        await payments.create("order-1", DUE)
        vendor.held.clear()
        await clock.advance(LATER)
        await payments.sweep()

        assert (await payments.get("order-1")).status is S.EXPIRED


async def test_money_is_noticed_though_the_offer_cannot_be_revoked() -> None:
    clock, vendor = ManualClock(), OpenEnded()
    vendor.broken = True
    async with Payments([vendor], runtime=Runtime("memory://", clock=clock)) as payments:
        offered = await payments.create("order-1", DUE)
        await clock.advance(LATER)
        await payments.sweep()
        waiting = await payments.get("order-1")
        vendor.pay(offered.attempts[0].vendor_id)
        await clock.advance(LATER)
        await payments.sweep()

        assert waiting.status is S.PENDING
        assert (await payments.get("order-1")).status is S.PAID
