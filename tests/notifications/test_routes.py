"""Messages over routes and switches: who is handed them, why, and what stays as safe as it was."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from holdfast.errors import InvalidInput, NotSent, OutcomeUnknown, ReferenceConflict, Rejected
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Dispatch, DispatchState, Message, Recipient
from holdfast.routing import ByRule, Cheapest, Route, Rule, Weighted
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from tests.notifications.test_client import Vendor, mail, telegram

ADA = Recipient(telegram="1", email="ada@example.org")
SAID: dict[str, Any] = {"actor": "ada", "reason": "their incident"}
IN_SWITZERLAND = ByRule([Rule(["smtp"], regions=frozenset({"CH"}))])
REFUSED = NotSent("connection refused", hard=True)
GONE = Rejected("blocked", reason="recipient_gone")


class Office:
    """Notifications over some vendors and a route, on one store and one clock."""

    def __init__(self, *vendors: Vendor, route: Route | None = None) -> None:
        self.clock = ManualClock()
        self.store = open_store("memory://", clock=self.clock)
        self.runtime = Runtime(self.store, clock=self.clock)
        self.notifications = Notifications(vendors, runtime=self.runtime, route=route)

    async def __aenter__(self) -> Notifications:
        return await self.notifications.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.runtime.__aexit__(None, None, None)


def whys(dispatch: Dispatch) -> list[tuple[str, str]]:
    return [(one.provider, one.why) for one in dispatch.submissions]


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (None, ("telegram", "preference 1")),
        (Cheapest({"telegram": Decimal("0.02"), "smtp": Decimal(0)}), ("smtp", "costs 0")),
        (Weighted({"smtp": 1}), ("smtp", "1 of 1 parts")),
        (ByRule([Rule(["smtp"])]), ("smtp", "rule 1, preference 1")),
    ],
    ids=str,
)
async def test_the_route_decides_who_is_handed_it_and_its_reason_is_kept(
    route: Route | None, expected: tuple[str, str]
) -> None:
    async with Office(telegram(), mail(), route=route) as notifications:
        await notifications.send("hello", to=ADA, key="k")
        stored = await notifications.get("k")

    assert whys(stored) == [expected]


async def test_the_route_orders_only_who_reaches_the_recipient() -> None:
    async with Office(telegram(), mail(), route=Weighted({"smtp": 1})) as notifications:
        dispatch = await notifications.send("hello", to=Recipient(telegram="1"), key="k")

    assert whys(dispatch) == [("telegram", "no share of its own")]


async def test_an_unknown_send_of_a_message_told_once_moves_to_nobody_whatever_the_route() -> None:
    first, second = telegram(OutcomeUnknown("connection reset", hard=True)), mail()
    office = Office(first, second, route=Weighted({"telegram": 1, "smtp": 0}))
    async with office as notifications:
        dispatch = await notifications.send(Message("hello", once=True), to=ADA, key="k")
        await notifications.switch("telegram", on=False, **SAID)
        await office.clock.advance(3600)
        await notifications.sweep()
        again = await notifications.send(Message("hello", once=True), to=ADA, key="k")

    assert dispatch.state is again.state is DispatchState.UNKNOWN
    assert second.calls == []


async def test_data_stays_in_its_region_also_when_it_is_told_later() -> None:
    abroad, at_home = telegram(), mail(REFUSED)
    office = Office(abroad, at_home, route=IN_SWITZERLAND)
    async with office as notifications:
        queued = await notifications.send("hello", to=ADA, key="k", region="CH")
        await office.clock.advance(60)
        await notifications.sweep()
        told = await notifications.get("k")

    assert (queued.state, told.state, told.provider) == (DispatchState.QUEUED, DispatchState.ACCEPTED, "smtp")
    assert abroad.calls == []


async def test_a_key_does_not_change_its_region() -> None:
    async with Office(telegram(), mail(), route=IN_SWITZERLAND) as notifications:
        await notifications.send("hello", to=ADA, key="k", region="CH")
        with pytest.raises(ReferenceConflict, match=r"another region \(CH\)"):
            await notifications.send("hello", to=ADA, key="k")


async def test_rules_that_allow_nobody_are_told_before_anything_is_kept() -> None:
    office = Office(telegram(), mail(), route=IN_SWITZERLAND)
    async with office as notifications:
        with pytest.raises(NotSent, match="leaves no provider for dispatch k; its rules allow none"):
            await notifications.send("hello", to=Recipient(telegram="1"), key="k", region="CH")

        assert await office.store.records.get("dispatch", "k") is None


async def test_who_is_off_is_handed_nothing() -> None:
    first, second = telegram(), mail()
    async with Office(first, second) as notifications:
        await notifications.switch("telegram", on=False, **SAID)
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.provider == "smtp"
    assert first.calls == []


async def test_what_only_somebody_who_is_off_could_take_waits_until_they_are_on() -> None:
    vendor = telegram()
    office = Office(vendor)
    async with office as notifications:
        await notifications.switch("telegram", on=False, **SAID, ttl=timedelta(minutes=10))
        waiting = await notifications.send("hello", to=ADA, key="k")
        for _ in range(20):
            await office.clock.advance(60)
            await notifications.sweep()
        told = await notifications.get("k")

    assert (waiting.state, waiting.submissions) == (DispatchState.QUEUED, ())
    assert told.state is DispatchState.ACCEPTED
    assert len(vendor.calls) == 1


async def test_who_is_off_for_now_is_waited_for_when_the_others_said_no() -> None:
    second = mail()
    office = Office(telegram(GONE), second)
    async with office as notifications:
        await notifications.switch("smtp", on=False, **SAID)
        waiting = await notifications.send("hello", to=ADA, key="k")
        await notifications.switch("smtp", on=True, actor="ada", reason="they are back")
        await office.clock.advance(60)
        await notifications.sweep()
        told = await notifications.get("k")

    assert (waiting.state, told.provider) == (DispatchState.QUEUED, "smtp")


async def test_who_is_off_and_said_no_before_is_not_waited_for() -> None:
    office = Office(telegram(GONE))
    async with office as notifications:
        with pytest.raises(Rejected):
            await notifications.send("hello", to=ADA, key="k")
        await notifications.switch("telegram", on=False, **SAID)
        with pytest.raises(Rejected):
            await notifications.send("hello", to=ADA, key="k")


async def test_only_a_notification_provider_is_switched() -> None:
    async with Office(telegram()) as notifications:
        with pytest.raises(InvalidInput, match="no notification provider zoom; there are telegram"):
            await notifications.switch("zoom", on=False, **SAID)
        assert (await notifications.switches()).changes == ()
