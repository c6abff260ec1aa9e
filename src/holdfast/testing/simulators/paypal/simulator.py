"""Money at PayPal: orders, captures, authorizations, refunds, disputes, and the people who pay."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar, cast

from holdfast.errors import InvalidInput
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.paypal.api import PayPalApi, Refusal
from holdfast.testing.simulators.paypal.resources import (
    NO_DECIMALS,
    TWO_DECIMALS,
    Authorization,
    Capture,
    Dispute,
    Order,
    Refund,
    Resource,
    amount,
    mapping,
    zulu,
)
from holdfast.testing.simulators.simulator import Request, Response, Webhook, route
from holdfast.values import Money

T = TypeVar("T")

UNAPPROVED: Final = timedelta(hours=3)
APPROVED: Final = timedelta(hours=6)
"""How long an order waits, first for the payer, then for us."""
AUTHORIZED: Final = timedelta(days=29)
TO_ANSWER: Final = timedelta(days=10)
LONGEST_NAME: Final = 127
OPEN: Final = ("CREATED", "PAYER_ACTION_REQUIRED")


NO_CARDS: Final = (
    "The API Caller account is not setup to be able to process card payments. Please contact PayPal customer support."
)


class PayPalSimulator(PayPalApi):
    """A sandbox account: people approve with `pay`, and nothing moves before somebody captures it.

    In the ledger, what happens to an order has its `invoice_id` as key.
    """

    def _forget(self) -> None:
        super()._forget()
        self.orders: dict[str, Order] = {}
        self.disputes: dict[str, Dispute] = {}
        self.refunds_wait = False
        """New refunds stay PENDING until `settle_refund`."""

    # Orders. https://developer.paypal.com/docs/api/orders/v2/

    @route("POST", "/v2/checkout/orders", "payments.create")
    def create(self, request: Request) -> Response:
        asked = request.json()
        if "payment_source" in asked and not self.idempotency_key(request):
            raise Refusal(400, "PAYPAL_REQUEST_ID_REQUIRED", "A PayPal-Request-Id is required.")
        if "card" in mapping(asked.get("payment_source")):  # this account's orders are approved by their payers
            raise Refusal(422, "NOT_ENABLED_FOR_CARD_PROCESSING", NO_CARDS)
        return self._once(request, self._order_keys, lambda: self._new_order(asked).id, self._order_json)

    @route("GET", "/v2/checkout/orders/{id}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        return Response.json(self._order_json(self._order(request.params["id"]).id))

    @route("POST", "/v2/checkout/orders/{id}/capture", "payments.capture")
    def capture(self, request: Request) -> Response:
        order = self._order(request.params["id"])

        def make() -> str:
            self._approved(order, "CAPTURE", "ORDER_ALREADY_CAPTURED")
            self._take(order, order.money)
            order.status = "COMPLETED"
            return order.id

        return self._once(request, self._order_keys, make, self._order_json)

    @route("POST", "/v2/checkout/orders/{id}/authorize", "payments.authorize")
    def authorize(self, request: Request) -> Response:
        order = self._order(request.params["id"])

        def make() -> str:
            self._approved(order, "AUTHORIZE", "ORDER_ALREADY_AUTHORIZED")
            self._check_payer(order)
            now = self.clock.now()
            status, reason = ("PENDING", "PENDING_REVIEW") if order.held else ("CREATED", "")
            until = now + AUTHORIZED
            made = Authorization(
                id=self._id(17), order=order, money=order.money, status=status, reason=reason, at=now, expires_at=until
            )
            order.authorizations.append(made)
            order.status = "COMPLETED"
            self._tell("PAYMENT.AUTHORIZATION.CREATED", "authorization", order, made.to_json(self.base_url))
            return order.id

        return self._once(request, self._order_keys, make, self._order_json)

    # What was authorized, captured and refunded. https://developer.paypal.com/docs/api/payments/v2/

    @route("GET", "/v2/payments/authorizations/{id}", "authorizations.fetch")
    def read_authorization(self, request: Request) -> Response:
        return Response.json(self._authorization(request).to_json(self.base_url))

    @route("POST", "/v2/payments/authorizations/{id}/capture", "authorizations.capture")
    def capture_authorization(self, request: Request) -> Response:
        found, asked = self._authorization(request), request.json()

        def make() -> str:
            if found.status == "VOIDED":
                raise Refusal(422, "AUTHORIZATION_VOIDED")
            if found.status in ("CAPTURED", "PARTIALLY_CAPTURED"):
                raise Refusal(422, "AUTHORIZATION_ALREADY_CAPTURED")
            if found.expires_at <= self.clock.now():
                raise Refusal(422, "AUTHORIZATION_EXPIRED")
            if found.status != "CREATED":
                raise Refusal(422, f"AUTHORIZATION_{found.status}")  # of one under review, this is made up
            money = _money(asked["amount"]) if "amount" in asked else found.money
            if money.currency != found.money.currency:
                raise Refusal(422, "AUTH_CAPTURE_CURRENCY_MISMATCH")
            if money > found.money:
                raise Refusal(422, "MAX_CAPTURE_AMOUNT_EXCEEDED")
            self._check_invoice(found.order)
            taken = self._take(found.order, money)
            found.status = "CAPTURED" if money == found.money else "PARTIALLY_CAPTURED"
            return taken.id

        return self._once(request, self._payment_keys, make, lambda id: self._capture(id).to_json(self.base_url))

    @route("POST", "/v2/payments/authorizations/{id}/void", "authorizations.void")
    def void(self, request: Request) -> Response:
        found = self._authorization(request)
        if found.status in ("CAPTURED", "PARTIALLY_CAPTURED"):
            raise Refusal(422, "PREVIOUSLY_CAPTURED")
        found.status = "VOIDED"
        self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=found.order.id, key=found.order.key)
        self._tell("PAYMENT.AUTHORIZATION.VOIDED", "authorization", found.order, found.to_json(self.base_url))
        return Response(status=204)

    @route("GET", "/v2/payments/captures/{id}", "captures.fetch")
    def read_capture(self, request: Request) -> Response:
        return Response.json(self._capture(request.params["id"]).to_json(self.base_url))

    @route("POST", "/v2/payments/captures/{id}/refund", "payments.refund")
    def refund(self, request: Request) -> Response:
        found, asked = self._capture(request.params["id"]), request.json()

        def show(id: str) -> Resource:
            return self._refund(id).to_json(self.base_url)

        return self._once(request, self._payment_keys, lambda: self._give_back(found, asked).id, show)

    @route("GET", "/v2/payments/refunds/{id}", "refunds.fetch")
    def read_refund(self, request: Request) -> Response:
        return Response.json(self._refund(request.params["id"]).to_json(self.base_url))

    # Disputes. https://developer.paypal.com/docs/api/customer-disputes/v1/

    @route("GET", "/v1/customer/disputes", "disputes.find")
    def list_disputes(self, request: Request) -> Response:
        """A summary of each."""
        wanted = request.query.get("disputed_transaction_id")
        found = [one for one in self.disputes.values() if wanted in (None, one.capture.id)]
        shown = ("dispute_id", "create_time", "update_time", "reason", "status", "dispute_amount")
        items = [{name: one.to_json()[name] for name in shown} for one in found]
        return Response.json({"items": items, "links": []})

    @route("GET", "/v1/customer/disputes/{id}", "disputes.fetch")
    def read_dispute(self, request: Request) -> Response:
        found = self.disputes.get(request.params["id"])
        if found is None:
            raise Refusal(404, "INVALID_RESOURCE_ID")
        return Response.json(found.to_json())

    # The account's history. https://developer.paypal.com/docs/api/transaction-search/v1/

    @route("GET", "/v1/reporting/transactions", "history.find")
    def history(self, request: Request) -> Response:
        asked = request.query
        if "start_date" not in asked or "end_date" not in asked:
            raise Refusal(400, "MISSING_REQUIRED_PARAMETER")
        start, end = datetime.fromisoformat(asked["start_date"]), datetime.fromisoformat(asked["end_date"])
        if end - start > timedelta(days=31):
            raise Refusal(400, "INVALID_PARAMETER_VALUE", "Date range is greater than 31 days", field="end_date")
        shown_until = self.clock.now() - timedelta(seconds=self.history_lag)
        found = [line for at, line in sorted(self._lines(), key=lambda each: each[0]) if start <= at <= end]
        found = [line for line in found if str(line["transaction_initiation_date"]) <= zulu(shown_until)]
        size, page = min(int(asked.get("page_size", "100")), 500), int(asked.get("page", "1"))
        return Response.json(
            {
                "transaction_details": [{"transaction_info": line} for line in found[(page - 1) * size : page * size]],
                "account_number": self.merchant_id,
                "page": page,
                "total_items": len(found),
                "total_pages": max(1, -(-len(found) // size)),
                "links": [],
            }
        )

    # What people do

    def pay(self, offer: str) -> None:
        """The payer approves the order; nothing moves before it is captured."""
        order = self._payable(offer)
        order.status, order.approved_at = "APPROVED", self.clock.now()
        self._tell("CHECKOUT.ORDER.APPROVED", "checkout-order", order, self._order_json(order.id))

    def decline(self, offer: str, issue: str = "INSTRUMENT_DECLINED") -> None:
        """From now on the payer's bank says no to it, or yes again with an empty issue."""
        self._found(offer).declines = issue

    def hold(self, offer: str) -> None:
        """What will be set aside or captured of it is looked at first; `release` or `deny` end that."""
        self._found(offer).held = True

    def release(self, offer: str) -> None:
        """PayPal lets the money pass, and looks at no more of it."""
        self._found(offer).held = False
        if (reviewed := self._reviewed(offer)) is not None:
            reviewed.status, reviewed.reason = "CREATED", ""
            return
        capture = self._pending(offer)
        capture.status, capture.reason = "COMPLETED", ""
        self._record_capture(capture)
        self._tell_capture("PAYMENT.CAPTURE.COMPLETED", capture)

    def deny(self, offer: str) -> None:
        """PayPal does not let it pass."""
        if (reviewed := self._reviewed(offer)) is not None:
            reviewed.status, reviewed.reason = "DENIED", "DECLINED_BY_RISK_FRAUD_FILTERS"
            return
        capture = self._pending(offer)
        capture.status, capture.reason = "DECLINED", "DECLINED_BY_RISK_FRAUD_FILTERS"
        self._tell_capture("PAYMENT.CAPTURE.DENIED", capture)

    def settle_refund(self, refund: str, *, status: str = "COMPLETED") -> None:
        """A refund that waits comes to its end."""
        found = self._refund(refund)
        found.status = status
        if status == "COMPLETED":
            self._record_refund(found)
        self._count_refunds(found.capture)

    def dispute(self, offer: str, reason: str = "MERCHANDISE_OR_SERVICE_NOT_RECEIVED") -> Dispute:
        """The payer asks PayPal for the money."""
        capture, now = self._found(offer).captures[-1], self.clock.now()
        made = Dispute(
            id=f"PP-D-{self.random().randrange(10**5)}",
            capture=capture,
            reason=reason,
            at=now,
            answer_by=now + TO_ANSWER,
        )
        self.disputes[made.id] = made
        order = capture.order
        self.ledger.record(Kind.DISPUTE, vendor=self.vendor, id=made.id, key=order.key, money=capture.money)
        self.happen("CUSTOMER.DISPUTE.CREATED", "dispute", made.to_json(), key=order.key)
        return made

    def resolve(self, dispute: Dispute, outcome: str) -> None:
        """PayPal decides."""
        dispute.status, dispute.outcome = "RESOLVED", outcome
        self.happen("CUSTOMER.DISPUTE.RESOLVED", "dispute", dispute.to_json(), key=dispute.capture.order.key)

    def tick(self) -> None:
        """What nobody approved, or nobody captured, in time is gone."""
        now = self.clock.now()
        for order in self.orders.values():
            waits = order.status == "APPROVED" or order.status in OPEN
            until = order.approved_at + APPROVED if order.approved_at else order.at + UNAPPROVED
            if waits and not order.lapsed and until <= now:
                order.lapsed = True
                self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=order.id, key=order.key)

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another order, not paid, is said to be captured."""
        open_orders = [order for order in self.orders.values() if not order.captures]
        if not open_orders:
            return None
        order, now = self.random().choice(open_orders), self.clock.now()
        claimed = Capture(id=self._id(17), order=order, money=order.money, status="COMPLETED", at=now)
        event: Resource = {
            "id": f"WH-{self._id(17)}-{self._id(17)}",
            "create_time": zulu(now),
            "resource_type": "capture",
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "resource": claimed.to_json(self.base_url) | _related(order),
        }
        return self._webhook(event, order.key)

    # Small things

    def _new_order(self, asked: Mapping[str, object]) -> Order:
        units = asked.get("purchase_units")
        intent = asked.get("intent")
        if intent not in ("CAPTURE", "AUTHORIZE"):
            raise Refusal(400, "INVALID_PARAMETER_VALUE", field="/intent")
        found = cast(list[object], units) if isinstance(units, list) else []
        if len(found) != 1:
            raise Refusal(400, "INVALID_ARRAY_MAX_ITEMS", field="/purchase_units")
        unit = mapping(found[0])
        money = _money(unit.get("amount"))
        if money.minor_units <= 0:
            raise Refusal(422, "CANNOT_BE_ZERO_OR_NEGATIVE", field="/purchase_units/0/amount/value")
        for name in ("custom_id", "invoice_id", "description"):
            if len(str(unit.get(name, ""))) > LONGEST_NAME:
                raise Refusal(400, "INVALID_STRING_LENGTH", field=f"/purchase_units/0/{name}")
        order = Order(
            id=self._id(17),
            intent=str(intent),
            money=money,
            custom_id=str(unit.get("custom_id", "")),
            invoice_id=str(unit.get("invoice_id", "")),
            description=str(unit.get("description", "")),
            payee=self.merchant_id,
            at=self.clock.now(),
            has_source="payment_source" in asked,
        )
        order.status = "PAYER_ACTION_REQUIRED" if order.has_source else "CREATED"
        self.orders[order.id] = order
        facts = {"attempt": order.custom_id}
        self.ledger.record(Kind.OFFER, vendor=self.vendor, id=order.id, key=order.key, money=money, facts=facts)
        return order

    def _approved(self, order: Order, intent: str, already: str) -> None:
        """Raises Refusal: this cannot be done to the order now."""
        if order.intent != intent:
            raise Refusal(422, "ACTION_DOES_NOT_MATCH_INTENT")
        if order.status == "COMPLETED":
            raise Refusal(422, already)
        if order.status != "APPROVED":
            raise Refusal(422, "ORDER_NOT_APPROVED", "Payer has not yet approved the Order for payment.")
        if intent == "CAPTURE":
            self._check_payer(order)
            self._check_invoice(order)

    def _check_payer(self, order: Order) -> None:
        if order.declines:
            raise Refusal(422, order.declines, "The instrument presented was declined by the processor or bank.")

    def _check_invoice(self, order: Order) -> None:
        """An account takes money once for an invoice, unless it was told otherwise."""
        others = [other for other in self.orders.values() if other is not order and other.captures]
        if order.invoice_id and any(other.invoice_id == order.invoice_id for other in others):
            raise Refusal(422, "DUPLICATE_INVOICE_ID", "Duplicate Invoice ID detected.")

    def _take(self, order: Order, money: Money) -> Capture:
        status, reason = ("PENDING", "PENDING_REVIEW") if order.held else ("COMPLETED", "")
        capture = Capture(id=self._id(17), order=order, money=money, status=status, reason=reason, at=self.clock.now())
        order.captures.append(capture)
        if not order.held:
            self._record_capture(capture)
        self._tell_capture(f"PAYMENT.CAPTURE.{status}", capture)
        return capture

    def _give_back(self, capture: Capture, asked: Mapping[str, object]) -> Refund:
        left = capture.money - capture.refunded
        money = _money(asked["amount"]) if "amount" in asked else left
        if capture.status == "PENDING":
            raise Refusal(422, "PENDING_CAPTURE")
        if money.currency != capture.money.currency:
            raise Refusal(422, "REFUND_CAPTURE_CURRENCY_MISMATCH")
        if not left:
            raise Refusal(422, "CAPTURE_FULLY_REFUNDED", "The capture has already been fully refunded.")
        if money > left:
            raise Refusal(422, "REFUND_AMOUNT_EXCEEDED")
        made = Refund(
            id=self._id(17),
            capture=capture,
            money=money,
            custom_id=str(asked.get("custom_id", "")),
            status="PENDING" if self.refunds_wait else "COMPLETED",
            at=self.clock.now(),
        )
        capture.refunds.append(made)
        if not self.refunds_wait:
            self._record_refund(made)
        self._count_refunds(capture)
        self._tell("PAYMENT.CAPTURE.REFUNDED", "refund", capture.order, made.to_json(self.base_url), related=False)
        return made

    def _count_refunds(self, capture: Capture) -> None:
        whole = capture.refunded == capture.money
        capture.status = "REFUNDED" if whole else "PARTIALLY_REFUNDED" if capture.refunded else "COMPLETED"

    def _record_capture(self, capture: Capture) -> None:
        order = capture.order
        facts = {"order": order.id, "attempt": order.custom_id}
        self.ledger.record(
            Kind.CAPTURE, vendor=self.vendor, id=capture.id, key=order.key, money=capture.money, facts=facts
        )

    def _record_refund(self, refund: Refund) -> None:
        order = refund.capture.order
        self.ledger.record(Kind.REFUND, vendor=self.vendor, id=refund.id, key=order.key, money=refund.money)

    def _tell_capture(self, kind: str, capture: Capture) -> None:
        self._tell(kind, "capture", capture.order, capture.to_json(self.base_url))

    def _tell(self, kind: str, resource_type: str, order: Order, resource: Resource, *, related: bool = True) -> None:
        named = related and resource_type != "checkout-order"
        self.happen(kind, resource_type, resource | (_related(order) if named else {}), key=order.key)

    def _lines(self) -> list[tuple[datetime, Resource]]:
        lines: list[tuple[datetime, Resource]] = []
        for order in self.orders.values():
            for capture in order.captures:
                status = "P" if capture.status == "PENDING" else "D" if capture.status == "DECLINED" else "S"
                lines.append(
                    (capture.at, _line(capture.id, order, capture.money, "T0006", capture.at, order.id, status))
                )
                for refund in capture.refunds:
                    back = Money.from_minor(-refund.money.minor_units, refund.money.currency)
                    line = _line(refund.id, order, back, "T1107", refund.at, capture.id, "S")
                    line |= {"paypal_reference_id_type": "TXN", "custom_field": refund.custom_id}
                    lines.append((refund.at, line))
        return lines

    def _order_json(self, id: str) -> Resource:
        return self.orders[id].to_json(self.base_url)

    def _order(self, id: str) -> Order:
        found = self.orders.get(id)
        if found is None or found.lapsed:
            raise Refusal(404, "INVALID_RESOURCE_ID", "Specified resource ID does not exist.")
        return found

    def _authorization(self, request: Request) -> Authorization:
        return self._one(request.params["id"], lambda order: {one.id: one for one in order.authorizations})

    def _capture(self, id: str) -> Capture:
        return self._one(id, lambda order: {one.id: one for one in order.captures})

    def _refund(self, id: str) -> Refund:
        return self._one(id, lambda order: {one.id: one for capture in order.captures for one in capture.refunds})

    def _one(self, id: str, among: Callable[[Order], Mapping[str, T]]) -> T:
        for order in self.orders.values():
            if id in (found := among(order)):
                return found[id]
        raise Refusal(404, "INVALID_RESOURCE_ID", "Specified resource ID does not exist.")

    def _found(self, offer: str) -> Order:
        """The order of this id, or of the page with this address."""
        id = offer.rpartition("token=")[2]
        if id not in self.orders:
            raise LookupError(f"{self.vendor} has no order {offer}")
        return self.orders[id]

    def _payable(self, offer: str) -> Order:
        self.tick()
        order = self._found(offer)
        if order.lapsed or order.status not in OPEN:
            raise LookupError(f"{self.vendor}: order {order.id} is {'gone' if order.lapsed else order.status}")
        return order

    def _reviewed(self, offer: str) -> Authorization | None:
        return next((one for one in self._found(offer).authorizations if one.status == "PENDING"), None)

    def _pending(self, offer: str) -> Capture:
        waiting = [capture for capture in self._found(offer).captures if capture.status == "PENDING"]
        if not waiting:
            raise LookupError(f"{self.vendor}: nothing captured of {offer} is looked at")
        return waiting[0]


def _money(asked: object) -> Money:
    """Raises Refusal: it is no amount PayPal takes."""
    said = mapping(asked)
    currency, value = str(said.get("currency_code", "")), said.get("value")
    if not isinstance(value, str) or not currency:
        raise Refusal(400, "INVALID_PARAMETER_SYNTAX", field="amount/value")
    if currency not in TWO_DECIMALS | NO_DECIMALS:
        raise Refusal(422, "INVALID_CURRENCY_CODE", field="amount/currency_code")
    decimals = len(value.partition(".")[2])
    if decimals > (0 if currency in NO_DECIMALS else 2) or (currency in NO_DECIMALS and "." in value):
        raise Refusal(422, "DECIMAL_PRECISION", field="amount/value")
    try:
        return Money(value, currency)
    except InvalidInput:
        raise Refusal(400, "INVALID_PARAMETER_SYNTAX", field="amount/value") from None


def _related(order: Order) -> Resource:
    return {"supplementary_data": {"related_ids": {"order_id": order.id}}}


def _line(id: str, order: Order, money: Money, code: str, at: datetime, reference: str, status: str) -> Resource:
    return {
        "transaction_id": id,
        "paypal_reference_id": reference,
        "paypal_reference_id_type": "ODR",
        "transaction_event_code": code,
        "transaction_initiation_date": zulu(at),
        "transaction_updated_date": zulu(at),
        "transaction_amount": amount(money),
        "transaction_status": status,
        "invoice_id": order.invoice_id,
        "custom_field": order.custom_id,
    }
