"""The types a user sees: checked by mypy and pyright, never run."""

from datetime import datetime, timedelta
from typing import assert_type

from holdfast import (
    Dispatch,
    Guard,
    Holdfast,
    Meeting,
    Message,
    Money,
    Offer,
    Payment,
    PaymentPaid,
    PaymentStatus,
    Policy,
    Recipient,
    Secrets,
)
from holdfast.providers import JaaS, LNbits, Smtp, SwissBitcoinPay, Telegram, Zoom
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments

hub = Holdfast(
    store="sqlite:///holdfast.db",
    secret=Secrets("secret"),
    payments=[SwissBitcoinPay.from_env(), LNbits.from_env()],
    meetings=[Zoom.from_env(), JaaS.from_env()],
    notifications=[Telegram.from_env(), Smtp.from_env()],
    policies={"zoom": Policy(timeout=2)},
)
fakes = Holdfast(
    store="memory://", payments=[FakePayments()], meetings=[FakeMeetings()], notifications=[FakeNotifications()]
)


@hub.on(PaymentPaid, name="confirm")
async def confirm(paid: PaymentPaid) -> None:
    assert_type(paid.due, Money)
    async with paid.handled_in(object()):
        pass


@hub.on(PaymentPaid)
def confirm_synchronously(paid: PaymentPaid) -> None:
    with paid.handled_in(object()):
        pass


async def families(starts_at: datetime) -> None:
    payment = await hub.payments.create("order-1", Money("120.00", "CHF"))
    assert_type(payment, Payment)
    assert_type(payment.status, PaymentStatus)
    assert_type(payment.offer, Offer | None)
    meeting = await hub.meetings.create("order-1", starts_at=starts_at, duration=timedelta(minutes=30))
    assert_type(meeting, Meeting)
    assert_type(await hub.notifications.send(Message("hello"), to=Recipient(email="a@b.ch"), key="k"), Dispatch)


async def forecast(city: str, *, days: int = 1) -> list[float]:
    return []


async def guarded() -> None:
    weather = Guard("weather", Policy(deadline=timedelta(seconds=3)))
    assert_type(await weather.read(forecast, "Zürich", days=2), list[float])
    assert_type(await weather.keyed("key", forecast, "Zürich"), list[float])
    await weather.read(forecast, 8001)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Money(1.20, "CHF")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
