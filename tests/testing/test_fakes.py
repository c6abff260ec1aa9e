"""The fakes in a hub: a program's own test, without accounts or sockets."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.errors import Exhausted, NotSent, Rejected
from holdfast.hub import Holdfast
from holdfast.meetings.provider import LocalMeetingProvider
from holdfast.notifications.models import DispatchState, Message, Recipient
from holdfast.payments.events import PaymentPaid
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import PaymentProvider
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments, ManualClock
from holdfast.values import Money

DUE = Money("120.00", "CHF")
ADA = Recipient(email="ada@example.org")


def test_fakes_are_providers() -> None:
    assert isinstance(FakePayments(), PaymentProvider)
    assert isinstance(FakeMeetings(), LocalMeetingProvider)


async def test_from_offer_to_message_without_a_socket() -> None:
    clock = ManualClock()
    payments, meetings, notifications = FakePayments(), FakeMeetings(), FakeNotifications()
    hub = Holdfast(
        store="memory://", payments=[payments], meetings=[meetings], notifications=[notifications], clock=clock
    )

    @hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        starts_at = datetime(2026, 2, 1, 9, tzinfo=UTC)
        meeting = await hub.meetings.create(paid.reference, starts_at=starts_at, duration=timedelta(minutes=30))
        text = f"See you at {meeting.join_url}"
        await hub.notifications.send(Message(text), to=ADA, key=f"link:{paid.reference}")

    async with hub:
        offered = await hub.payments.create("consultation-1", DUE)
        payments.pay("consultation-1")
        paid = await hub.payments.refresh("consultation-1")
        await hub.settle()
        await hub.settle()

    assert offered.offer is not None
    assert paid.status is PaymentStatus.PAID
    assert len(meetings.requests) == 1
    ((address, text),) = notifications.sent
    assert address == "ada@example.org"
    assert "https://meet.invalid/" in text


async def test_the_sweep_finds_money_nobody_told_us_about() -> None:
    clock, payments = ManualClock(), FakePayments()
    hub = Holdfast(store="memory://", payments=[payments], clock=clock)

    async with hub:
        await hub.payments.create("consultation-1", DUE)
        payments.pay("consultation-1")
        await clock.advance(60)
        await hub.payments.sweep()
        payment = await hub.payments.get("consultation-1")

    assert payment.status is PaymentStatus.PAID


async def test_too_little_money_is_no_payment() -> None:
    payments = FakePayments()
    hub = Holdfast(store="memory://", payments=[payments], clock=ManualClock())

    async with hub:
        await hub.payments.create("consultation-1", DUE)
        payments.pay("consultation-1", Money("1.00", "CHF"))
        payment = await hub.payments.refresh("consultation-1")

    assert payment.status is PaymentStatus.PARTIALLY_PAID


async def test_what_is_down_is_followed_by_the_next() -> None:
    first, second = FakePayments(name="first", down=True), FakePayments(name="second")
    mail, telegram = FakeNotifications(down=True), FakeNotifications(channel="telegram")
    hub = Holdfast(store="memory://", payments=[first, second], notifications=[mail, telegram], clock=ManualClock())

    async with hub:
        payment = await hub.payments.create("consultation-1", DUE)
        dispatch = await hub.notifications.send("hi", to=Recipient(email="a@b.c", telegram=1), key="k")

    assert payment.provider == "second"
    assert (dispatch.state, dispatch.provider) == (DispatchState.ACCEPTED, "fake-telegram")


async def test_all_down_is_an_error_for_money_and_a_queue_for_messages() -> None:
    hub = Holdfast(
        store="memory://",
        payments=[FakePayments(down=True)],
        notifications=[FakeNotifications(down=True)],
        clock=ManualClock(),
    )

    async with hub:
        with pytest.raises((NotSent, Exhausted)):
            await hub.payments.create("consultation-1", DUE)
        dispatch = await hub.notifications.send("hi", to=ADA, key="k")

    assert dispatch.state is DispatchState.QUEUED


async def test_somebody_who_is_gone_is_told_so() -> None:
    hub = Holdfast(store="memory://", notifications=[FakeNotifications(gone={"ada@example.org"})], clock=ManualClock())

    async with hub:
        with pytest.raises(Rejected) as raised:
            await hub.notifications.send("hi", to=ADA, key="k")

    assert raised.value.reason == "recipient_gone"


def test_nobody_pays_what_was_not_offered() -> None:
    with pytest.raises(LookupError):
        FakePayments().pay("consultation-1")


@pytest.mark.parametrize("name", ["FakePayments", "ManualClock"])
def test_the_test_kit_needs_no_pytest(name: str) -> None:
    code = f"import sys; from holdfast.testing import {name}; sys.exit('pytest' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_test_kit_lists_it_has() -> None:
    import holdfast.testing

    assert sorted(holdfast.testing.__all__) == holdfast.testing.__all__
    assert all(getattr(holdfast.testing, name) for name in holdfast.testing.__all__)
    with pytest.raises(AttributeError):
        _ = holdfast.testing.FakeEverything
