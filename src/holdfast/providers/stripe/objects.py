"""Stripe's objects as it writes them, each turned into our words by itself."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from holdfast.errors import Mismatch
from holdfast.payments.models import Offer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    DisputeSnapshot,
    DisputeStatus,
    LineKind,
    PaymentSnapshot,
    RefundSnapshot,
    StatementLine,
)
from holdfast.providers.stripe.amounts import from_wire
from holdfast.values import Money, Secret
from holdfast.webhooks.request import Delivery

M = TypeVar("M", bound=BaseModel)

PAGES: Final[Mapping[str, PaymentStatus]] = {
    "open": PaymentStatus.PENDING,
    "expired": PaymentStatus.EXPIRED,
}
"""Of a page nobody has completed. https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-status"""
# https://docs.stripe.com/payments/paymentintents/lifecycle. Of a debit that takes days a page is complete at once; a
# voucher that has yet to be paid `requires_action` all that time; either failed once it requires another method.
COMPLETED: Final[Mapping[str, PaymentStatus]] = {
    "requires_payment_method": PaymentStatus.FAILED,
    "requires_confirmation": PaymentStatus.PROCESSING,
    "requires_action": PaymentStatus.PROCESSING,
    "processing": PaymentStatus.PROCESSING,
    "requires_capture": PaymentStatus.AUTHORIZED,
    "succeeded": PaymentStatus.PAID,
    "canceled": PaymentStatus.CANCELED,
}
"""Of the intent behind a completed page."""
EMBEDDED: Final[Mapping[str, PaymentStatus]] = {
    **COMPLETED,
    "requires_payment_method": PaymentStatus.PENDING,
    "requires_confirmation": PaymentStatus.PENDING,
    "requires_action": PaymentStatus.PENDING,
}
"""Of an intent in a form of the caller's own, where the payer may try again after a try that failed."""
DELAYED: Final = frozenset(
    (
        "acss_debit",
        "au_becs_debit",
        "bacs_debit",
        "boleto",
        "customer_balance",
        "konbini",
        "multibanco",
        "nz_bank_account",
        "oxxo",
        "sepa_debit",
        "us_bank_account",
    )
)
"""Methods of which it is known days later whether they failed, when nobody is at the form any more.

https://docs.stripe.com/payments/payment-methods#payment-notification"""
VOUCHERS: Final = frozenset(
    (
        "boleto_display_details",
        "display_bank_transfer_instructions",
        "konbini_display_details",
        "multibanco_display_details",
        "oxxo_display_details",
        "verify_with_microdeposits",
    )
)
"""Actions the payer has days for, away from the form. https://docs.stripe.com/api/payment_intents/object#payment_intent_object-next_action"""
ABANDONED: Final = "abandoned"
"""Why an intent is canceled whose time is over; not that its payer, or the shop, wanted that."""
SETTLED: Final[Mapping[str, PaymentStatus]] = {"paid": PaymentStatus.PAID, "unpaid": PaymentStatus.PROCESSING}
"""What a completed page says by itself, where its intent is not told."""
REFUNDS: Final[Mapping[str, RefundStatus]] = {
    "pending": RefundStatus.PENDING,
    "requires_action": RefundStatus.MANUAL_REQUIRED,  # they wrote to the payer, who has to say where to send it
    "succeeded": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.CANCELED,
}
"""https://docs.stripe.com/api/refunds/object#refund_object-status"""
DISPUTES: Final[Mapping[str, DisputeStatus]] = {
    "warning_needs_response": DisputeStatus.OPEN,
    "warning_under_review": DisputeStatus.UNDER_REVIEW,
    "warning_closed": DisputeStatus.WON,
    "needs_response": DisputeStatus.OPEN,
    "under_review": DisputeStatus.UNDER_REVIEW,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
    "appeal_needs_response": DisputeStatus.OPEN,
    "appeal_under_review": DisputeStatus.UNDER_REVIEW,
    "prevented": DisputeStatus.WON,
}
"""https://docs.stripe.com/api/disputes/object#dispute_object-status"""
LINES: Final[Mapping[str, LineKind]] = {
    "charge": LineKind.PAYMENT,
    "charge_failure": LineKind.PAYMENT,
    "partial_capture_reversal": LineKind.PAYMENT,
    "refund": LineKind.REFUND,
    "refund_failure": LineKind.REFUND,
    "dispute": LineKind.DISPUTE,
    "dispute_reversal": LineKind.DISPUTE,
    "fee": LineKind.FEE,
    "network_cost": LineKind.FEE,
    "tax": LineKind.FEE,
}
"""By reporting category; the rest, such as payouts, is no payer's money. https://docs.stripe.com/reports/reporting-categories"""
# What a look can learn from, by https://docs.stripe.com/api/events/types; the rest is kept for raw handlers. They list
# at most twenty kinds at once.
EVENTS: Final = (
    "charge.captured",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.expired",
    "charge.refund.updated",
    "charge.refunded",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.processing",
    "payment_intent.succeeded",
    "refund.created",
    "refund.failed",
    "refund.updated",
)
EMBEDDED_EVENTS: Final = (
    *(kind for kind in EVENTS if not kind.startswith("checkout.")),
    "payment_intent.payment_failed",
)


CLIENT_SECRET: Final = re.compile(rb'("client_secret"\s*:\s*)"[^"]*"')
"""In the body of an event, where who pays needs it and nobody who reads it later does."""


class Echo(BaseModel):
    """The metadata we gave to an object, and Stripe to those that follow from it."""

    attempt: str = ""
    reference: str = ""
    key: str = ""
    provider: str = ""
    """Which of our providers asked, where an account has several; those of pages do not say."""


Echoed = Annotated[Echo, BeforeValidator(lambda value: value or {})]
"""Objects without metadata have an empty one, or none."""


class Movement(BaseModel):
    """A balance transaction, as far as a payment's own look tells it."""

    fee: int
    currency: str


class Charge(BaseModel):
    """One try to move the money of an intent."""

    id: str
    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    currency: str
    disputed: bool = False
    balance_transaction: Movement | str | None = None

    @property
    def refunded(self) -> Money:
        """What went back; what was set aside and never captured is no refund, although they count it as one."""
        never_taken = self.amount - self.amount_captured
        return from_wire(max(0, self.amount_refunded - never_taken), self.currency)

    @property
    def fee(self) -> Money | None:
        """What Stripe kept, in the currency it settles in; None before it moved, or where it is not told."""
        moved = self.balance_transaction
        return fee(moved.fee, moved.currency) if isinstance(moved, Movement) else None


class Kind(BaseModel):
    """Anything that says of what kind it is."""

    type: str = ""


class Failure(BaseModel):
    """Why the last try to pay failed."""

    code: str | None = None
    decline_code: str | None = None
    payment_method: Kind | None = None


class Intent(BaseModel):
    """A PaymentIntent: money that is to move, in as many tries as it takes; here its client secret is not even read."""

    id: str = Field(min_length=1)
    status: str
    amount: int
    amount_received: int = 0
    currency: str
    livemode: bool
    metadata: Echoed = Echo()
    latest_charge: Charge | str | None = None
    last_payment_error: Failure | None = None
    next_action: Kind | None = None
    cancellation_reason: str | None = None

    @property
    def charge(self) -> Charge | None:
        """The charge, where it was asked for."""
        return self.latest_charge if isinstance(self.latest_charge, Charge) else None

    @property
    def reason(self) -> str:
        """`insufficient_funds`, `card_declined`; empty where nothing failed."""
        failed = self.last_payment_error or Failure()
        return failed.decline_code or failed.code or ""

    def to_snapshot(self, vendor_id: str) -> PaymentSnapshot:
        """In our words, under the id of the page it belongs to."""
        status = COMPLETED.get(self.status, PaymentStatus.UNKNOWN)
        return self._snapshot(vendor_id, status, ended=status in (PaymentStatus.FAILED, PaymentStatus.CANCELED))

    def to_embedded(self, expires_at: datetime | None = None) -> PaymentSnapshot:
        """In our words, where it is the offer itself: when that ends, only we know."""
        offer = Offer(embedded=True, expires_at=expires_at)
        return replace(self._snapshot(self.id, self._embedded_status(), ended=True), offer=offer)

    def _embedded_status(self) -> PaymentStatus:
        failed = self.last_payment_error
        if self.status == "canceled" and self.cancellation_reason == ABANDONED:
            return PaymentStatus.EXPIRED
        if self.status == "requires_payment_method" and failed and failed.payment_method:
            return PaymentStatus.FAILED if failed.payment_method.type in DELAYED else PaymentStatus.PENDING
        if self.status == "requires_action" and self.next_action and self.next_action.type in VOUCHERS:
            return PaymentStatus.PROCESSING
        return EMBEDDED.get(self.status, PaymentStatus.UNKNOWN)

    def _snapshot(self, vendor_id: str, status: PaymentStatus, *, ended: bool) -> PaymentSnapshot:
        charge = self.charge
        return PaymentSnapshot(
            vendor_id=vendor_id,
            status=status,
            price=from_wire(self.amount, self.currency),
            received=from_wire(self.amount_received, self.currency) if self.amount_received else None,
            attempt_id=self.metadata.attempt,
            live=self.livemode,
            refunded=charge.refunded if charge and charge.amount_captured else None,
            fee=charge.fee if charge else None,
            reason=self.reason if ended else "",
        )


class PayableIntent(Intent):
    """The same, with what lets the payer's form pay it."""

    client_secret: Secret

    @field_validator("client_secret", mode="before")
    @classmethod
    def hide(cls, text: object) -> object:
        """From here on it shows itself to nobody."""
        return Secret(text) if isinstance(text, str) and text else None

    model_config = ConfigDict(arbitrary_types_allowed=True)


class Session(BaseModel):
    """A Checkout Session: a page of Stripe's that waits for its payer."""

    id: str = Field(min_length=1)
    url: str | None = None
    status: str | None = None
    payment_status: str = ""
    amount_total: int | None = None
    currency: str | None = None
    expires_at: int
    livemode: bool
    metadata: Echoed = Echo()
    payment_intent: Intent | str | None = None

    @property
    def intent(self) -> Intent | None:
        """The intent, where it was asked for and somebody has paid, or tried to."""
        return self.payment_intent if isinstance(self.payment_intent, Intent) else None

    @property
    def intent_id(self) -> str:
        """Empty while nobody has paid."""
        return self.intent.id if self.intent else cast(str, self.payment_intent or "")

    @property
    def price(self) -> Money | None:
        """What the page asks for."""
        return from_wire(self.amount_total, self.currency) if self.amount_total is not None and self.currency else None

    def to_snapshot(self) -> PaymentSnapshot:
        """In our words: of the intent, once the page is complete. A status we do not know is `unknown`."""
        completed = self.status == "complete"
        if completed and self.intent:
            snapshot = self.intent.to_snapshot(self.id)
        else:
            word, table = (self.payment_status, SETTLED) if completed else (self.status or "", PAGES)
            status = table.get(word, PaymentStatus.UNKNOWN)
            received = self.price if status is PaymentStatus.PAID else None
            snapshot = PaymentSnapshot(vendor_id=self.id, status=status, received=received)
        return replace(
            snapshot,
            price=self.price,
            attempt_id=self.metadata.attempt,
            offer=Offer(checkout_url=self.url, expires_at=time(self.expires_at)) if self.url else None,
            live=self.livemode,
        )


class Refund(BaseModel):
    """Money on its way back."""

    id: str = Field(min_length=1)
    status: str | None = None
    amount: int
    currency: str
    metadata: Echoed = Echo()
    failure_reason: str | None = None

    @property
    def key(self) -> str:
        """Ours; empty of a refund made elsewhere."""
        return self.metadata.key

    def to_snapshot(self) -> RefundSnapshot:
        """In our words."""
        return RefundSnapshot(
            vendor_id=self.id,
            status=REFUNDS.get(self.status or "", RefundStatus.UNKNOWN),
            money=from_wire(self.amount, self.currency),
            key=self.key,
            reason=self.failure_reason or "",
        )


class Evidence(BaseModel):
    due_by: int | None = None


class Dispute(BaseModel):
    """A payer's bank that asks the money back."""

    id: str = Field(min_length=1)
    status: str
    amount: int
    currency: str
    reason: str = ""
    evidence_details: Evidence | None = None

    def to_snapshot(self) -> DisputeSnapshot:
        """In our words; of a status we do not know, it is still under review."""
        due_by = self.evidence_details.due_by if self.evidence_details else None
        return DisputeSnapshot(
            vendor_id=self.id,
            status=DISPUTES.get(self.status, DisputeStatus.UNDER_REVIEW),
            money=from_wire(self.amount, self.currency),
            reason=self.reason,
            answer_by=time(due_by) if due_by else None,
        )


class Source(BaseModel):
    """What a balance transaction is about, where it is expanded: a charge, a refund, a dispute."""

    id: str
    amount: int = 0
    amount_captured: int | None = None
    currency: str = ""
    payment_intent: str | None = None
    metadata: Echoed = Echo()


class Line(BaseModel):
    """A balance transaction, as listed."""

    id: str
    amount: int
    fee: int = 0
    currency: str
    created: int
    reporting_category: str
    source: Source | str | None = None

    @property
    def echo(self) -> Echo:
        """Our own names, as far as it has any."""
        return self.source.metadata if isinstance(self.source, Source) else Echo()

    @property
    def money(self) -> Money:
        """With its sign, in the currency the payer paid, also where the account settles in another."""
        source = self.source
        if not isinstance(source, Source) or source.currency in ("", self.currency):
            return from_wire(self.amount, self.currency)
        theirs = from_wire(source.amount if source.amount_captured is None else source.amount_captured, source.currency)
        return theirs if self.amount >= 0 else Money.from_minor(-theirs.minor_units, theirs.currency)

    def to_line(self) -> StatementLine | None:
        """In our words; None of what is no payer's money."""
        kind = LINES.get(self.reporting_category)
        if kind is None:
            return None
        source = self.source if isinstance(self.source, Source) else Source(id=self.source or self.id)
        echo, payment = source.metadata, source.payment_intent or ""
        return StatementLine(
            kind=kind,
            vendor_id=payment if kind is LineKind.PAYMENT and payment else source.id,
            payment_id=payment,
            money=self.money,
            at=time(self.created),
            fee=fee(self.fee, self.currency) if self.fee else None,
            attempt_id=echo.attempt,
            reference=echo.reference,
        )


class Rows(BaseModel):
    """A page of a list, where one row we cannot read must not hide the others."""

    data: list[object]
    has_more: bool = False


class About(BaseModel):
    """What an event is about, as it was when that happened."""

    id: str = ""
    object: str = ""
    metadata: Echoed = Echo()
    payment_intent: str | None = None
    """What a dispute, or a refund that was not asked for by us, is a part of."""


class Data(BaseModel):
    object: About = About()


class Event(BaseModel):
    """The envelope of every webhook, and of what is listed; "thin" ones have no object in them."""

    id: str = Field(min_length=1)
    type: str
    data: Data = Data()

    def to_delivery(self, body: bytes, *, offers: str, ours: bool) -> Delivery:
        """A hint of where to look; what belongs to nobody's attempt is only kept.

        `offers` is what kind of object an offer is: no other's id names a payment.
        """
        about = self.data.object
        echo = about.metadata
        facts = {"attempt_id": echo.attempt, "intent": "" if echo.attempt else about.payment_intent or ""}
        return Delivery(
            type=self.type,
            dedup_key=self.id,
            vendor_id=about.id if about.object == offers else "",
            reference=echo.reference,
            recognised=ours,
            body=CLIENT_SECRET.sub(rb"\1null", body),
            # The list counts down `pending_webhooks`, so that its bytes are other than the webhook's.
            digest=hashlib.sha256(f"{self.id}:{self.type}:{about.id}".encode()).hexdigest(),
            facts={name: value for name, value in facts.items() if value} or None,
        )


class Wrong(BaseModel):
    """What an error says."""

    type: str = ""
    code: str | None = None
    decline_code: str | None = None
    message: str | None = None


class Wrongs(BaseModel):
    error: Wrong


def read(model: type[M], row: object) -> M | None:
    """The row as that model; None where it is none."""
    try:
        return model.model_validate(row)
    except ValidationError:
        return None


def fee(amount: int, currency: str) -> Money | None:
    """As money; None of a share in a currency that has no such fractions, for it says nothing of the payment."""
    try:
        return from_wire(amount, currency)
    except Mismatch:
        return None


def time(seconds: int) -> datetime:
    """Unix seconds as an instant.

    Raises:
        Mismatch: One that is in no calendar.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise Mismatch(f"a time of {seconds} seconds is in no calendar", operation="fetch") from error
