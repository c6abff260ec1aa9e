"""What a PayPal account holds, and how PayPal writes it: the published descriptions of Orders v2 and Payments v2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, cast

from holdfast.values import Money, exponent

Resource = dict[str, object]

# https://developer.paypal.com/api/rest/reference/currency-codes/
# fmt: off
TWO_DECIMALS: Final = frozenset({
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "ILS", "MXN",
    "MYR", "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "USD",
})
# fmt: on
NO_DECIMALS: Final = frozenset({"HUF", "JPY", "TWD"})
FEE_PERCENT: Final = 3
"""Made up."""


@dataclass(kw_only=True)
class Refund:
    """Money on its way back."""

    id: str
    capture: "Capture"
    money: Money
    custom_id: str
    status: str
    at: datetime

    def to_json(self, base_url: str) -> Resource:
        written: Resource = {
            "id": self.id,
            "amount": amount(self.money),
            "invoice_id": self.capture.order.invoice_id,
            "seller_payable_breakdown": {
                "gross_amount": amount(self.money),
                "total_refunded_amount": amount(self.capture.refunded),
            },
            "status": self.status,
            "create_time": zulu(self.at),
            "update_time": zulu(self.at),
            "links": [
                link(f"{base_url}/v2/payments/refunds/{self.id}", "self"),
                link(f"{base_url}/v2/payments/captures/{self.capture.id}", "up"),
            ],
        }
        return written | ({"custom_id": self.custom_id} if self.custom_id else {})


@dataclass(kw_only=True)
class Capture:
    """Money moved, or held for review."""

    id: str
    order: "Order"
    money: Money
    status: str
    at: datetime
    reason: str = ""
    refunds: list[Refund] = field(default_factory=list[Refund])

    @property
    def refunded(self) -> Money:
        total = Money.from_minor(0, self.money.currency)
        for refund in self.refunds:
            if refund.status in ("COMPLETED", "PENDING"):
                total += refund.money
        return total

    def to_json(self, base_url: str) -> Resource:
        fee = Money.from_minor(self.money.minor_units * FEE_PERCENT // 100, self.money.currency)
        if self.money.currency in NO_DECIMALS:
            unit = 10 ** exponent(self.money.currency)
            fee = Money.from_minor(fee.minor_units // unit * unit, self.money.currency)
        written: Resource = {
            "id": self.id,
            "status": self.status,
            "amount": amount(self.money),
            "final_capture": True,
            "seller_protection": {"status": "ELIGIBLE", "dispute_categories": ["ITEM_NOT_RECEIVED"]},
            "seller_receivable_breakdown": {
                "gross_amount": amount(self.money),
                "paypal_fee": amount(fee),
                "net_amount": amount(self.money - fee),
            },
            "invoice_id": self.order.invoice_id,
            "custom_id": self.order.custom_id,
            "links": [
                link(f"{base_url}/v2/payments/captures/{self.id}", "self"),
                link(f"{base_url}/v2/payments/captures/{self.id}/refund", "refund", "POST"),
                link(f"{base_url}/v2/checkout/orders/{self.order.id}", "up"),
            ],
            "create_time": zulu(self.at),
            "update_time": zulu(self.at),
        }
        return written | ({"status_details": {"reason": self.reason}} if self.reason else {})


@dataclass(kw_only=True)
class Authorization:
    """Money set aside."""

    id: str
    order: "Order"
    money: Money
    status: str
    at: datetime
    expires_at: datetime
    reason: str = ""

    def to_json(self, base_url: str) -> Resource:
        path = f"{base_url}/v2/payments/authorizations/{self.id}"
        written: Resource = {
            "id": self.id,
            "status": self.status,
            "amount": amount(self.money),
            "invoice_id": self.order.invoice_id,
            "custom_id": self.order.custom_id,
            "expiration_time": zulu(self.expires_at),
            "create_time": zulu(self.at),
            "update_time": zulu(self.at),
            "links": [
                link(path, "self"),
                link(f"{path}/capture", "capture", "POST"),
                link(f"{path}/void", "void", "POST"),
                link(f"{base_url}/v2/checkout/orders/{self.order.id}", "up"),
            ],
        }
        return written | ({"status_details": {"reason": self.reason}} if self.reason else {})


@dataclass(kw_only=True)
class Order:
    """An order, and what became of it."""

    id: str
    intent: str
    money: Money
    custom_id: str
    invoice_id: str
    description: str
    payee: str
    at: datetime
    has_source: bool
    status: str = "CREATED"
    approved_at: datetime | None = None
    lapsed: bool = False
    declines: str = ""
    """The issue with which its capture is refused."""
    held: bool = False
    """What is captured of it is looked at first."""
    authorizations: list[Authorization] = field(default_factory=list[Authorization])
    captures: list[Capture] = field(default_factory=list[Capture])

    @property
    def key(self) -> str:
        """The merchant's name of it, as far as PayPal was told."""
        return self.invoice_id or self.id

    def links(self, base_url: str) -> Sequence[Resource]:
        path, move = f"{base_url}/v2/checkout/orders/{self.id}", self.intent.lower()
        found = [link(path, "self")]
        if self.status in ("CREATED", "PAYER_ACTION_REQUIRED"):
            page = f"{base_url}/checkoutnow?token={self.id}"
            found.append(link(page, "payer-action" if self.has_source else "approve"))
        if self.status == "APPROVED":
            found.append(link(f"{path}/{move}", move, "POST"))
        return found

    def to_json(self, base_url: str) -> Resource:
        unit: Resource = {
            "reference_id": "default",
            "amount": amount(self.money),
            "payee": {"merchant_id": self.payee, "email_address": "merchant@example.org"},
            "description": self.description,
        }
        named = {"custom_id": self.custom_id, "invoice_id": self.invoice_id}
        unit |= {name: value for name, value in named.items() if value}
        done: Resource = {
            "authorizations": [one.to_json(base_url) for one in self.authorizations],
            "captures": [one.to_json(base_url) for one in self.captures],
            "refunds": [one.to_json(base_url) for capture in self.captures for one in capture.refunds],
        }
        if any(done.values()):
            unit["payments"] = {name: found for name, found in done.items() if found}
        written: Resource = {
            "id": self.id,
            "intent": self.intent,
            "status": self.status,
            "purchase_units": [unit],
            "create_time": zulu(self.at),
            "links": self.links(base_url),
        }
        if self.approved_at:
            written["payer"] = {"payer_id": "QYR5Z8XDVJNXQ", "email_address": "payer@example.org"}
        return written


@dataclass(kw_only=True)
class Dispute:
    """A payer who wants the money back."""

    id: str
    capture: Capture
    reason: str
    at: datetime
    answer_by: datetime
    status: str = "WAITING_FOR_SELLER_RESPONSE"
    outcome: str = ""

    def to_json(self) -> Resource:
        order = self.capture.order
        written: Resource = {
            "dispute_id": self.id,
            "create_time": zulu(self.at),
            "update_time": zulu(self.at),
            "disputed_transactions": [
                {
                    "buyer_transaction_id": self.capture.id[::-1],
                    "seller_transaction_id": self.capture.id,
                    "invoice_number": order.invoice_id,
                    "custom": order.custom_id,
                    "gross_amount": amount(self.capture.money),
                }
            ],
            "reason": self.reason,
            "status": self.status,
            "dispute_amount": amount(self.capture.money),
            "dispute_life_cycle_stage": "INQUIRY",
            "seller_response_due_date": zulu(self.answer_by),
        }
        return written | ({"dispute_outcome": {"outcome_code": self.outcome}} if self.outcome else {})


def amount(money: Money) -> Resource:
    """As PayPal writes it."""
    value = f"{int(money.amount)}" if money.currency in NO_DECIMALS else f"{money.amount:f}"
    return {"currency_code": money.currency, "value": value}


def link(href: str, rel: str, method: str = "GET") -> Resource:
    """One of the links that every resource carries."""
    return {"href": href, "rel": rel, "method": method}


def zulu(time: datetime) -> str:
    """An instant, as PayPal writes it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def mapping(value: object) -> Mapping[str, object]:
    """The value, where it is a JSON object; else an empty one."""
    return cast(Mapping[str, object], value) if isinstance(value, dict) else {}
