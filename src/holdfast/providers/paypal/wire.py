"""What PayPal writes: orders, captures, refunds, events, disputes, lines of the account's history."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Final, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, PlainValidator, model_validator

from holdfast.errors import InvalidMoney
from holdfast.payments.models import Offer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    DisputeSnapshot,
    DisputeStatus,
    LineKind,
    PaymentSnapshot,
    RefundSnapshot,
    StatementLine,
)
from holdfast.values import Money, exponent
from holdfast.webhooks.request import Delivery

# https://developer.paypal.com/api/rest/reference/currency-codes/
# fmt: off
CURRENCIES: Final = frozenset({
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS",
    "JPY", "MXN", "MYR", "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
})
# fmt: on
WHOLE: Final = frozenset({"HUF", "JPY", "TWD"})
"""Taken without decimals only, whatever ISO 4217 says of them."""

ORDERS: Final[Mapping[str, PaymentStatus]] = {
    "CREATED": PaymentStatus.PENDING,
    "SAVED": PaymentStatus.PENDING,
    "PAYER_ACTION_REQUIRED": PaymentStatus.PENDING,
    "APPROVED": PaymentStatus.APPROVED,
    "VOIDED": PaymentStatus.CANCELED,
}
AUTHORIZATIONS: Final[Mapping[str, PaymentStatus]] = {
    "CREATED": PaymentStatus.AUTHORIZED,
    "PENDING": PaymentStatus.PROCESSING,  # the payer agreed, and PayPal looks at it first
    "DENIED": PaymentStatus.FAILED,
    "VOIDED": PaymentStatus.CANCELED,
    "EXPIRED": PaymentStatus.EXPIRED,
}
CAPTURES: Final[Mapping[str, PaymentStatus]] = {
    "COMPLETED": PaymentStatus.PAID,
    "PARTIALLY_REFUNDED": PaymentStatus.PAID,  # what went back is counted apart
    "REFUNDED": PaymentStatus.PAID,
    "PENDING": PaymentStatus.PROCESSING,
    "DECLINED": PaymentStatus.FAILED,
    "FAILED": PaymentStatus.FAILED,
}
REFUNDS: Final[Mapping[str, RefundStatus]] = {
    "PENDING": RefundStatus.PENDING,
    "COMPLETED": RefundStatus.SUCCEEDED,
    "FAILED": RefundStatus.FAILED,
    "CANCELLED": RefundStatus.CANCELED,
}
# https://developer.paypal.com/docs/api/customer-disputes/v1/
DISPUTES: Final[Mapping[str, DisputeStatus]] = {
    "OPEN": DisputeStatus.OPEN,
    "WAITING_FOR_SELLER_RESPONSE": DisputeStatus.OPEN,
    "WAITING_FOR_BUYER_RESPONSE": DisputeStatus.UNDER_REVIEW,
    "UNDER_REVIEW": DisputeStatus.UNDER_REVIEW,
}
OUTCOMES: Final[Mapping[str, DisputeStatus]] = {
    "RESOLVED_SELLER_FAVOUR": DisputeStatus.WON,
    "RESOLVED_WITH_PAYOUT": DisputeStatus.WON,
    "CANCELED_BY_BUYER": DisputeStatus.WON,
    "DENIED": DisputeStatus.WON,
    "RESOLVED_BUYER_FAVOUR": DisputeStatus.LOST,
    "ACCEPTED": DisputeStatus.LOST,
}
# https://developer.paypal.com/docs/transaction-search/transaction-event-codes/, by their beginnings.
LINES: Final[Mapping[str, LineKind]] = {
    "T00": LineKind.PAYMENT,
    "T01": LineKind.FEE,
    "T1106": LineKind.DISPUTE,
    "T1107": LineKind.REFUND,
    "T1201": LineKind.DISPUTE,
}
# https://developer.paypal.com/api/rest/webhooks/event-names/; the rest is kept for raw handlers.
EVENTS: Final = (
    "CHECKOUT.ORDER.",
    "CUSTOMER.DISPUTE.",
    "PAYMENT.AUTHORIZATION.",
    "PAYMENT.CAPTURE.",
    "PAYMENT.REFUND.",
)


def _read_money(said: object) -> Money:
    if not isinstance(said, Mapping):
        raise InvalidMoney("an amount is a currency_code and a value")
    fields = cast(Mapping[str, object], said)
    return Money(cast("str | int | Decimal", fields.get("value")), cast(str, fields.get("currency_code")))


Amount = Annotated[Money, PlainValidator(_read_money)]


def write_money(money: Money) -> dict[str, str]:
    """An amount with just the decimals that PayPal takes of its currency.

    Raises:
        InvalidMoney: A currency that PayPal does not take, or a fraction where it takes none.
    """
    if money.currency not in CURRENCIES:
        raise InvalidMoney(f"PayPal takes no {money.currency}")
    whole, fraction = divmod(money.minor_units, 10 ** exponent(money.currency))
    if money.currency in WHOLE and fraction:
        raise InvalidMoney(f"PayPal takes {money.currency} without decimals only, so {money} cannot be asked for")
    value = str(whole) if money.currency in WHOLE else f"{money.amount:f}"
    return {"currency_code": money.currency, "value": value}


class Said(BaseModel):
    """What PayPal says; what it calls null, it does not say."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, said: object) -> object:
        if not isinstance(said, dict):
            return said
        return {name: value for name, value in cast(dict[str, object], said).items() if value is not None}


class Issued(Said):
    """The answer to `POST /v1/oauth2/token`."""

    access_token: str = Field(min_length=1, repr=False)
    expires_in: int


class Link(Said):
    """Where to go next, and for what."""

    href: str
    rel: str


class Details(Said):
    """Why something is in the status it is in."""

    reason: str = ""


class Breakdown(Said):
    """What became of captured money."""

    paypal_fee: Amount | None = None


class Capture(Said):
    """Money moved, or about to be."""

    id: str
    status: str
    amount: Amount
    custom_id: str = ""
    status_details: Details = Details()
    seller_receivable_breakdown: Breakdown = Breakdown()

    @property
    def state(self) -> PaymentStatus:
        return CAPTURES.get(self.status, PaymentStatus.UNKNOWN)


class Authorization(Said):
    """Money set aside."""

    id: str
    status: str
    status_details: Details = Details()


class Refund(Said):
    """Money sent back; our name of it is its `custom_id`, behind the attempt's."""

    id: str
    status: str
    amount: Amount | None = None
    custom_id: str = ""
    status_details: Details = Details()

    @property
    def key(self) -> str:
        return self.custom_id.rpartition(".")[2]

    def to_snapshot(self) -> RefundSnapshot:
        return RefundSnapshot(
            vendor_id=self.id,
            status=REFUNDS.get(self.status, RefundStatus.UNKNOWN),
            money=self.amount,
            key=self.key,
            reason=self.status_details.reason,
        )


class Payments(Said):
    """What was done with what the payer approved."""

    authorizations: list[Authorization] = []
    captures: list[Capture] = []
    refunds: list[Refund] = []


class Payee(Said):
    """Who gets the money."""

    merchant_id: str = ""


class Unit(Said):
    """The one thing bought with an order of ours."""

    amount: Amount | None = None
    custom_id: str = ""
    payee: Payee = Payee()
    payments: Payments = Payments()


class Order(Said):
    """An order, as created, read and captured."""

    id: str = Field(min_length=1)
    status: str
    intent: str = ""
    purchase_units: list[Unit] = []
    links: list[Link] = []

    @property
    def unit(self) -> Unit:
        return self.purchase_units[0] if self.purchase_units else Unit()

    @property
    def payments(self) -> Payments:
        return self.unit.payments

    @property
    def page(self) -> str:
        """Where the payer approves it: `payer-action` for one with a payment source, else `approve`."""
        pages = {link.rel: link.href for link in self.links}
        return pages.get("payer-action") or pages.get("approve") or ""

    @property
    def state(self) -> PaymentStatus:
        """The money's own state: a completed order only says that there was an attempt to move it."""
        if self.payments.captures:
            states = [capture.state for capture in self.payments.captures]
            ranked = (PaymentStatus.PAID, PaymentStatus.PROCESSING, PaymentStatus.UNKNOWN, PaymentStatus.FAILED)
            return next(state for state in ranked if state in states)
        if self.payments.authorizations:
            return AUTHORIZATIONS.get(self.payments.authorizations[-1].status, PaymentStatus.UNKNOWN)
        return ORDERS.get(self.status, PaymentStatus.UNKNOWN)

    @property
    def taken(self) -> bool:
        """Its money moved, or does; what is only to be set aside, and looked at before that, does not."""
        return bool(self.payments.captures) and self.state in (PaymentStatus.PAID, PaymentStatus.PROCESSING)

    def to_snapshot(self) -> PaymentSnapshot:
        captures = self.payments.captures
        return PaymentSnapshot(
            vendor_id=self.id,
            status=self.state,
            price=self.unit.amount,
            received=_sum(capture.amount for capture in captures if capture.state is PaymentStatus.PAID),
            attempt_id=self.unit.custom_id or next((capture.custom_id for capture in captures), ""),
            offer=Offer(checkout_url=self.page) if self.page else None,
            refunded=self._refunded(),
            fee=_sum(capture.seller_receivable_breakdown.paypal_fee for capture in captures),
            reason=self._reason(),
        )

    def _reason(self) -> str:
        if self.payments.captures:
            return self.payments.captures[-1].status_details.reason
        return self.payments.authorizations[-1].status_details.reason if self.payments.authorizations else ""

    def _refunded(self) -> Money | None:
        """What went back; nothing of what was tried and failed is said to be none."""
        done = _sum(refund.amount for refund in self.payments.refunds if refund.status == "COMPLETED")
        tried = next((refund.amount for refund in self.payments.refunds if refund.amount), None)
        return done or (Money.from_minor(0, tried.currency) if tried else None)

    def moved(self, capture: Capture) -> "Order":
        """The order once this was captured of it."""
        payments = self.payments.model_copy(update={"captures": [*self.payments.captures, capture]})
        return self.model_copy(update={"purchase_units": [self.unit.model_copy(update={"payments": payments})]})


class Transaction(Said):
    """What a dispute is about."""

    seller_transaction_id: str = ""
    invoice_number: str = ""
    custom: str = ""


class Related(Said):
    order_id: str = ""


class Supplementary(Said):
    related_ids: Related = Related()


class Resource(Said):
    """What an event is about: an order, a capture, an authorization, a refund, a dispute."""

    id: str = ""
    custom_id: str = ""
    invoice_id: str = ""
    purchase_units: list["Resource"] = []
    supplementary_data: Supplementary = Supplementary()
    disputed_transactions: list[Transaction] = []


class Event(Said):
    """The envelope of every webhook, and a row of the list of them."""

    id: str = Field(min_length=1)
    event_type: str
    resource: Resource = Resource()

    def to_delivery(self, body: bytes, transmission: Mapping[str, str]) -> Delivery:
        order_id, attempt_id, reference = self._about()
        said = "|".join((self.id, self.event_type, order_id, attempt_id, reference))
        facts = {"attempt_id": attempt_id, **transmission}
        return Delivery(
            type=self.event_type,
            dedup_key=self.id,
            vendor_id=order_id,
            reference=reference,
            recognised=self.event_type.startswith(EVENTS),
            body=body,
            digest=sha256(said.encode("utf-8", "surrogatepass")).hexdigest(),
            facts={name: value for name, value in facts.items() if value},
        )

    def _about(self) -> tuple[str, str, str]:
        """The order, the attempt and the reference, as far as the event names them."""
        about = self.resource
        if about.purchase_units:
            return about.id, about.purchase_units[0].custom_id, about.purchase_units[0].invoice_id
        if about.disputed_transactions:
            disputed = about.disputed_transactions[0]
            return "", disputed.custom, disputed.invoice_number
        order_id = about.supplementary_data.related_ids.order_id
        if self.event_type.startswith("CHECKOUT.ORDER."):
            order_id = about.id
        return order_id, about.custom_id.partition(".")[0], about.invoice_id


class EventPage(Said):
    """The answer to `GET /v1/notifications/webhooks-events`, where one event we cannot read must not hide the rest."""

    events: list[object] = []
    links: list[Link] = []

    @property
    def next_page(self) -> dict[str, str]:
        """What to ask for the next page; only the query, for the link names a host of its own."""
        found = next((link.href for link in self.links if link.rel == "next"), "")
        return dict(parse_qsl(urlsplit(found).query))


class Verified(Said):
    """The answer to `POST /v1/notifications/verify-webhook-signature`."""

    verification_status: str


class DisputeName(Said):
    dispute_id: str


class DisputeList(Said):
    """The answer to `GET /v1/customer/disputes`."""

    items: list[DisputeName] = []


class Outcome(Said):
    outcome_code: str = ""


class Dispute(Said):
    """The answer to `GET /v1/customer/disputes/{id}`."""

    dispute_id: str
    status: str
    reason: str = ""
    dispute_amount: Amount
    dispute_outcome: Outcome = Outcome()
    seller_response_due_date: datetime | None = None

    def to_snapshot(self) -> DisputeSnapshot:
        status = DISPUTES.get(self.status, DisputeStatus.UNDER_REVIEW)
        if self.status == "RESOLVED":
            status = OUTCOMES.get(self.dispute_outcome.outcome_code, DisputeStatus.UNDER_REVIEW)
        return DisputeSnapshot(
            vendor_id=self.dispute_id,
            status=status,
            money=self.dispute_amount,
            reason=self.reason,
            answer_by=self.seller_response_due_date,
        )


class Moved(Said):
    """A line of the account's history."""

    transaction_id: str
    paypal_reference_id: str = ""
    paypal_reference_id_type: str = ""
    transaction_event_code: str
    transaction_initiation_date: datetime
    transaction_amount: Amount
    transaction_status: str = ""
    fee_amount: Amount | None = None
    invoice_id: str = ""
    custom_field: str = ""

    def to_line(self) -> StatementLine | None:
        """Nothing where it is no payment, refund, dispute or fee, or did not happen."""
        kind = next((LINES[prefix] for prefix in LINES if self.transaction_event_code.startswith(prefix)), None)
        if kind is None or self.transaction_status not in ("", "S", "V"):
            return None
        related = self.paypal_reference_id_type in ("ODR", "TXN")
        return StatementLine(
            kind=kind,
            vendor_id=self.transaction_id,
            payment_id=self.paypal_reference_id if related else self.transaction_id,
            money=_positive(self.transaction_amount),
            at=self.transaction_initiation_date,
            fee=_positive(self.fee_amount) if self.fee_amount else None,
            attempt_id=self.custom_field.partition(".")[0],
            reference=self.invoice_id,
        )


class History(Said):
    """The answer to `GET /v1/reporting/transactions`, where one line we cannot read must not hide the rest."""

    transaction_details: list[dict[str, object]] = []
    total_pages: int = 1


def _sum(amounts: Iterable[Money | None]) -> Money | None:
    found: Sequence[Money] = [amount for amount in amounts if amount is not None]
    if not found:
        return None
    total = found[0]
    for amount in found[1:]:
        total += amount
    return total


def _positive(money: Money) -> Money:
    return Money.from_minor(abs(money.minor_units), money.currency)
