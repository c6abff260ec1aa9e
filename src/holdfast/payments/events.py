"""What happens to payments, as events a backend handles."""

from dataclasses import dataclass
from datetime import date
from typing import ClassVar

from holdfast.payments.models import Anomaly
from holdfast.queue.events import Event
from holdfast.values import Money


@dataclass(frozen=True, kw_only=True)
class PaymentPaid(Event):
    """The due amount came in: one per payment, whether a webhook, a sweep or a poll revealed it."""

    type: ClassVar[str] = "payment.paid"

    due: Money
    received: Money
    provider: str
    late: bool = False
    """It came after the offer's end; the booking may be gone."""


@dataclass(frozen=True, kw_only=True)
class PaymentExpired(Event):
    """The offer ended unpaid; money may still come late."""

    type: ClassVar[str] = "payment.expired"


@dataclass(frozen=True, kw_only=True)
class PaymentAuthorized(Event):
    """The money is set aside for us; `capture` moves it."""

    type: ClassVar[str] = "payment.authorized"

    due: Money
    provider: str


@dataclass(frozen=True, kw_only=True)
class PaymentFailed(Event):
    """The payer's money was refused, in the vendor's words; another offer may be made with `renew`."""

    type: ClassVar[str] = "payment.failed"

    provider: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PaymentCanceled(Event):
    """It was canceled, and can no longer be paid in the ordinary course."""

    type: ClassVar[str] = "payment.canceled"


@dataclass(frozen=True, kw_only=True)
class PaymentFlagged(Event):
    """Something a person should look at: paid twice, late, to an offer nobody was shown, or other than asked."""

    type: ClassVar[str] = "payment.flagged"

    anomaly: Anomaly
    provider: str
    vendor_id: str
    received: Money | None = None


@dataclass(frozen=True, kw_only=True)
class PaymentRefunded(Event):
    """Money of a payment went back to the payer: one per refund."""

    type: ClassVar[str] = "payment.refunded"

    key: str
    money: Money
    provider: str


@dataclass(frozen=True, kw_only=True)
class RefundFailed(Event):
    """The vendor did not send the money back, in its words; ask again under another key."""

    type: ClassVar[str] = "payment.refund_failed"

    key: str
    money: Money
    provider: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class RefundByHand(Event):
    """The vendor cannot send the money back by itself: a person has to, or the payer has to claim it."""

    type: ClassVar[str] = "payment.refund_by_hand"

    key: str
    money: Money
    provider: str
    claim_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class PaymentDisputed(Event):
    """The payer's bank asks money back, or took it; what is disputed is the sum so far."""

    type: ClassVar[str] = "payment.disputed"

    money: Money
    provider: str


@dataclass(frozen=True, kw_only=True)
class SpendLimitReached(Event):
    """The fees a vendor kept on one day, in UTC, reached a limit of yours: one per vendor, day and limit."""

    type: ClassVar[str] = "payment.spend_limit"

    provider: str
    day: date
    spent: Money
    limit: Money
    channel: str = ""
    """By which channel the limit is to be told; empty: by any."""
