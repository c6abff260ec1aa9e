"""What would not be read again as it was meant is refused before it is written, and before a vendor is asked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import Holdfast, Message, Money, Recipient
from holdfast.errors import InvalidInput, NotFound, Unreadable
from holdfast.payments.models import Capture, Payer, Payment
from holdfast.payments.record import encode
from holdfast.stores.store import Draft
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments, ManualClock
from holdfast.values import Reference

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
DUE = Money("120.00", "CHF")
NOTHING: Any = None
TEXT: Any = "manual"


async def test_no_vendor_is_asked_for_a_payment_that_could_not_be_read_again() -> None:
    wallet = FakePayments()

    async with Holdfast(store="memory://", payments=[wallet]) as hub:
        with pytest.raises(InvalidInput, match=r"such a payment could not be read again; payer\.email: "):
            await hub.payments.create("o1", DUE, payer=Payer(email=NOTHING))
        with pytest.raises(NotFound):
            await hub.payments.get("o1")

    assert wallet.requests == []


async def test_no_vendor_is_asked_for_a_meeting_that_could_not_be_read_again() -> None:
    rooms = FakeMeetings()

    async with Holdfast(store="memory://", meetings=[rooms]) as hub:
        with pytest.raises(InvalidInput, match="such a meeting could not be read again; region: "):
            await hub.meetings.create("o1", starts_at=NOON, duration=timedelta(minutes=30), region=NOTHING)

    assert rooms.requests == []


async def test_no_message_is_told_that_could_not_be_read_again() -> None:
    mail = FakeNotifications()

    async with Holdfast(store="memory://", notifications=[mail]) as hub:
        with pytest.raises(InvalidInput, match="such a dispatch could not be read again; region: "):
            await hub.notifications.send(Message("hi"), to=Recipient(email="a@b.ch"), key="k", region=NOTHING)

    assert mail.sent == []


async def test_a_text_in_place_of_a_capture_is_refused_for_it_would_move_money_at_once() -> None:
    wallet = FakePayments()

    async with Holdfast(store="memory://", payments=[wallet]) as hub:
        with pytest.raises(InvalidInput, match=r"^capture is a Capture, not a str$"):
            await hub.payments.create("o1", DUE, capture=TEXT)

    assert wallet.requests == []


def test_what_is_under_way_is_written_as_long_as_it_can_be_read() -> None:
    # given
    new = Payment(reference=Reference("o1"), due=DUE, expires_in=timedelta(minutes=15), created_at=NOON, capture=TEXT)

    # when
    draft = encode(replace(new, version=3), due_at=None)

    # then
    assert draft.value["capture"] == Capture.MANUAL


async def test_one_payment_that_cannot_be_read_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock, wallet = ManualClock(), FakePayments()
    async with Holdfast(store="memory://", payments=[wallet], clock=clock) as hub:
        for reference in ("o1", "o2"):
            await hub.payments.create(reference, DUE)
        record = await hub.store.records.get("payment", "o1")
        assert record is not None
        draft = Draft(value=dict(record.value) | {"region": None}, due_at=record.due_at)
        await hub.store.records.apply("payment", "o1", record.version, draft)

        # when
        wallet.pay("o2")
        await clock.advance(60)
        await hub.settle()

        # then
        assert (await hub.payments.get("o2")).status == "paid"
        with pytest.raises(Unreadable, match="payment o1 cannot be opened: region: ") as refused:
            await hub.payments.get("o1")
    assert refused.value.__cause__ is None
    assert "payment o1 cannot be opened: region: " in caplog.text


def test_no_value_is_shown_of_what_is_refused() -> None:
    metadata: Any = {"patient": b"\xff of Ada"}
    new = Payment(reference=Reference("o1"), due=DUE, expires_in=NOTHING, created_at=NOON, metadata=metadata)

    with pytest.raises(InvalidInput) as refused:
        encode(new, due_at=None)

    assert "Ada" not in str(refused.value)
    assert refused.value.__cause__ is None
