"""A payment vendor in memory, which does what a test tells it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from holdfast.errors import Rejected
from holdfast.http.session import Http
from holdfast.http.vendor import HttpDefaults
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, Offer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    RefundRequest,
    RefundSnapshot,
)
from holdfast.values import Money, Secrets
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody, Scheme

_numbers = itertools.count(1)


@dataclass(kw_only=True, eq=False)
class Vendor(HttpDefaults):
    """Keeps offers; `before` and `after` run before and after the effect of a creation, and may raise."""

    name: str = "vendor"
    base_url: str = "http://127.0.0.1:9"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(currencies=None))
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    held: dict[str, PaymentSnapshot] = field(default_factory=dict)
    requests: list[OfferRequest] = field(default_factory=list)
    fetches: int = 0

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        self.requests.append(request)
        self.before()
        vendor_id = f"{self.name}-{next(_numbers)}"
        self.held[vendor_id] = PaymentSnapshot(
            vendor_id=vendor_id,
            status=PaymentStatus.PENDING,
            price=request.price,
            attempt_id=request.attempt_id,
            offer=Offer(checkout_url=f"https://{self.name}.example/{vendor_id}"),
        )
        self.after()
        return self.held[vendor_id]

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        self.fetches += 1
        if vendor_id not in self.held:
            raise Rejected("no such object", provider=self.name, status=404)
        return self.held[vendor_id]

    def pay(self, vendor_id: str) -> None:
        """Somebody pays."""
        self.held[vendor_id] = replace(
            self.held[vendor_id], status=PaymentStatus.PAID, received=self.held[vendor_id].price
        )


@dataclass(kw_only=True, eq=False)
class SearchableVendor(Vendor):
    """One that can be asked by our own id."""

    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(currencies=None, lookup=Lookup.AUTHORITATIVE)
    )
    finds: int = 0

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        self.finds += 1
        return next((held for held in self.held.values() if held.attempt_id == attempt.id), None)


@dataclass(kw_only=True, eq=False)
class SigningVendor(Vendor):
    """One that signs its webhooks: `{"id": …}`."""

    scheme: Scheme | None = field(default_factory=lambda: HmacBody("x-signature"))
    webhook_secrets: Secrets | None = field(default_factory=lambda: Secrets("webhook-secret"))

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        vendor_id = request.body.decode().strip()
        if vendor_id.startswith("{"):
            raise ValueError("not an id")
        return [Delivery(type="paid", dedup_key=f"{vendor_id}/paid", vendor_id=vendor_id)]


@dataclass(kw_only=True, eq=False)
class UnsignedVendor(SigningVendor):
    """One that signs nothing, so that the URL it was given carries our MAC."""

    scheme: Scheme | None = None
    webhook_secrets: Secrets | None = None


@dataclass(kw_only=True, eq=False)
class AbleVendor(Vendor):
    """One that keeps keys, sets money aside, revokes, and sends money back; each verb may fail before or after."""

    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(
            currencies=None,
            create_effect=Effect.KEYED,
            key_window=timedelta(hours=24),
            revocable=True,
            manual_capture=True,
            capture_effect=Effect.KEYED,
            refunding=Refunding.API,
            refund_effect=Effect.KEYED,
        )
    )
    captured: dict[str, Money] = field(default_factory=dict)
    refunded: dict[str, RefundSnapshot] = field(default_factory=dict)
    refund_status: RefundStatus = RefundStatus.SUCCEEDED

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        known = [held for held in self.held.values() if held.attempt_id == request.attempt_id]
        if not known:
            return await super().create(http, request)
        self.requests.append(request)
        return known[0]

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        self.before()
        held = self.held[attempt.vendor_id]
        if held.status in (PaymentStatus.PENDING, PaymentStatus.AUTHORIZED):
            held = self.held[attempt.vendor_id] = replace(held, status=PaymentStatus.CANCELED)
        self.after()
        return held

    async def authorize(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        self.before()
        held = self.held[attempt.vendor_id]
        if held.status is PaymentStatus.APPROVED:
            held = self.held[attempt.vendor_id] = replace(held, status=PaymentStatus.AUTHORIZED)
        self.after()
        return held

    async def locate(self, http: Http, facts: Mapping[str, str]) -> str:
        return next((held.attempt_id for held in self.held.values() if held.vendor_id == facts.get("part_of")), "")

    async def capture(
        self, http: Http, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        self.before()
        self.captured.setdefault(key, money)
        held = self.held[attempt.vendor_id]
        self.held[attempt.vendor_id] = replace(held, status=PaymentStatus.PAID, received=money)
        self.after()
        return self.held[attempt.vendor_id]

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        self.before()
        new = RefundSnapshot(
            vendor_id=f"refund-{len(self.refunded)}", status=self.refund_status, money=request.money, key=request.key
        )
        refund = self.refunded.setdefault(request.key, new)
        self.after()
        return refund

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        return next(refund for refund in self.refunded.values() if refund.vendor_id == vendor_id)

    def agree(self, vendor_id: str, status: PaymentStatus = PaymentStatus.AUTHORIZED) -> None:
        """The payer lets the money be taken."""
        self.held[vendor_id] = replace(self.held[vendor_id], status=status)
