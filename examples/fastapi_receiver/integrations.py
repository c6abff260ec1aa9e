"""The hub: which providers, in which order, and what happens when money comes in."""

import os
from datetime import UTC, timedelta

from examples.fastapi_receiver import shop
from holdfast import (
    Breaker,
    FixedRates,
    Holdfast,
    Meetings,
    Message,
    Notifications,
    PaymentPaid,
    Payments,
    Policy,
    Recipient,
    Secrets,
    WorkerOptions,
)
from holdfast.providers import JaaS, LNbits, Smtp, SwissBitcoinPay, Telegram, Zoom

LEASE = float(os.environ.get("WORKER_LEASE", "10"))
POLL = [timedelta(seconds=float(wait)) for wait in os.environ.get("PAYMENTS_POLL", "30,60,120,300").split(",")]

# A server of your own that has no source of rates gets one from you.
RATES = FixedRates({("CHF", "BTC"): os.environ["CHF_BTC"]}) if "CHF_BTC" in os.environ else None

hub = Holdfast(
    store=os.environ.get("HOLDFAST_STORE", "sqlite:///holdfast.db"),
    secret=Secrets.from_env("HOLDFAST_SECRET"),
    public_url=os.environ["PUBLIC_URL"],
    payments=Payments([SwissBitcoinPay.from_env(), LNbits.from_env()], poll=POLL, rates=RATES),
    meetings=Meetings([Zoom.from_env(), JaaS.from_env()], deadline=1.5),
    notifications=Notifications([Telegram.from_env(), Smtp.from_env()], deadline=4),
    # While a circuit is open confirmations wait, so this one is tried again after a second.
    policies={"swiss-bitcoin-pay": Policy(timeout=5, breaker=Breaker(open_for=1, open_cap=30))},
    worker=WorkerOptions(lease=LEASE, heartbeat=LEASE / 5),
    sweep_every=float(os.environ.get("SWEEP_EVERY", "5")),
)


@hub.on(PaymentPaid, name="confirm")
async def confirm(paid: PaymentPaid) -> None:
    """Give the patient a room and tell them; then confirm the booking, exactly once."""
    booking = await shop.find(paid.reference)
    meeting = await hub.meetings.create(
        paid.reference, starts_at=booking.starts_at.replace(tzinfo=UTC), duration=timedelta(minutes=30)
    )
    await hub.notifications.send(
        Message(f"See you at {meeting.join_url}", subject="Your consultation"),
        to=Recipient(telegram=booking.telegram, email=booking.email),
        key=f"link:{paid.reference}",
    )
    async with shop.Session.begin() as session, paid.handled_in(session):
        await shop.confirm(session, paid.reference, meeting.join_url)
