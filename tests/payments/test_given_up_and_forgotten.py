"""What a vendor forgot is over, and what a person gave up is looked for once more after its end."""

from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast import Money
from holdfast.errors import OutcomeUnknown, Rejected
from holdfast.http.session import Http
from holdfast.payments.client import Payments
from holdfast.payments.facts import Verdict
from holdfast.payments.models import Attempt, PaymentStatus
from holdfast.payments.provider import PaymentSnapshot
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import AbleVendor, SearchableVendor

S = PaymentStatus
DUE = Money("120.00", "CHF")
LATER = timedelta(minutes=20).total_seconds()


async def nothing(http: Http, attempt: Attempt) -> None:
    return None


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


async def test_what_failed_and_was_forgotten_by_its_vendor_keeps_nobody_from_another_offer() -> None:
    clock, vendor = ManualClock(), OpenEnded()
    async with Payments([vendor], runtime=Runtime("memory://", clock=clock)) as payments:
        offered = await payments.create("order-1", DUE)
        vendor.agree(offered.attempts[0].vendor_id, S.FAILED)
        await payments.refresh("order-1")
        vendor.held.clear()
        await clock.advance(LATER)

        assert (await payments.create("order-1", DUE)).status is S.PENDING


async def test_what_a_person_gave_up_is_looked_for_once_after_its_end() -> None:
    vendor = SearchableVendor()

    def lost() -> None:
        raise OutcomeUnknown("no answer", provider="vendor")

    vendor.after = lost
    clock = ManualClock()
    async with Payments([vendor], runtime=Runtime("memory://", clock=clock)) as payments:
        find, vendor.find = vendor.find, nothing  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await payments.create("order-1", DUE)
        stuck = await payments.get("order-1")
        await payments.resolve(
            "order-1", Verdict.ABANDON, actor="a", reason="b", evidence="c", expected=stuck.version, number=1
        )
        vendor.find = find  # type: ignore[method-assign]
        vendor.pay(next(iter(vendor.held)))
        await clock.advance(LATER)
        await payments.sweep()

        assert (await payments.get("order-1")).status is S.PAID
