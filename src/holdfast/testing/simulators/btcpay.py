"""BTCPay Server, simulated: one store, its invoices from new to late, pull payments, webhooks in indented JSON.

Anchored in https://docs.btcpayserver.org/API/Greenfield/v1/ and, for what that leaves open, in the server's own source.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, ROUND_UP, Decimal, InvalidOperation
from random import Random
from typing import Final, cast
from urllib.parse import parse_qsl, urlsplit

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.invoices import Invoice as Bolt11
from holdfast.testing.simulators.invoices import make_invoice
from holdfast.testing.simulators.simulator import Headers, Reply, Request, Response, Simulator, Webhook, route
from holdfast.values import BTC, Money

PRICES: Final[Mapping[str, int]] = {
    **{"BTC": 1, "SATS": 100_000_000, "CHF": 80_000, "EUR": 85_000, "USD": 92_000},
    **{"XOF": 55_700_000, "JPY": 14_200_000, "KWD": 28_000},
}
"""Made up: what one bitcoin costs."""
SATS: Final = 100_000_000
LEAST_EXPIRY: Final = timedelta(seconds=30)
EXPIRY: Final = timedelta(minutes=15)
MONITORING: Final = timedelta(minutes=1440)
LONGEST_SEARCH: Final = 512
LIGHTNING: Final = "BTC-LN"
ON_CHAIN: Final = "BTC-CHAIN"
VIEW_INVOICES: Final = "btcpay.store.canviewinvoices"
CREATE_INVOICE: Final = "btcpay.store.cancreateinvoice"
MODIFY_INVOICES: Final = "btcpay.store.canmodifyinvoices"
VIEW_STORE: Final = "btcpay.store.canviewstoresettings"
MODIFY_WEBHOOKS: Final = "btcpay.store.webhooks.canmodifywebhooks"
CREATE_PULL_PAYMENTS: Final = "btcpay.store.cancreatenonapprovedpullpayments"
VIEW_PULL_PAYMENTS: Final = "btcpay.store.canviewpullpayments"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


@dataclass(kw_only=True, slots=True)
class Payment:
    """Money that came for an invoice."""

    id: str
    method: str
    sats: int
    at: datetime
    settled: bool

    def to_json(self, destination: str) -> dict[str, object]:
        return {
            "id": self.id,
            "receivedDate": _unix(self.at),
            "value": _btc(self.sats),
            "fee": "0.0",
            "status": "Settled" if self.settled else "Processing",
            "destination": destination,
        }


@dataclass(kw_only=True, slots=True)
class Invoice:
    """One invoice, as their database may hold it."""

    id: str
    amount: str
    currency: str
    price: Money
    sats: int
    metadata: Mapping[str, object]
    terms: tuple[str, ...]
    methods: tuple[str, ...]
    tolerance: Decimal
    created_at: datetime
    expires_at: datetime
    monitored_until: datetime
    bolt11: Bolt11
    address: str
    status: str = "New"
    additional: str = "None"
    archived: bool = False
    payments: list[Payment] = field(default_factory=list[Payment])

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return str(self.metadata.get("orderId") or self.id)

    @property
    def received(self) -> int:
        return sum(payment.sats for payment in self.payments)

    @property
    def enough(self) -> bool:
        return bool(self.received) and self.received >= self.sats * (1 - self.tolerance / 100)

    def destination(self, method: str) -> str:
        return self.bolt11.bolt11 if method == LIGHTNING else self.address


@dataclass(kw_only=True, slots=True)
class PullPayment:
    """Money set aside for whoever has the link."""

    id: str
    invoice: Invoice
    name: str
    description: str
    amount: Decimal
    currency: str
    archived: bool = False


@dataclass(kw_only=True, slots=True)
class Payout:
    """A claim on it."""

    id: str
    pull_payment: PullPayment
    at: datetime
    amount: Decimal
    state: str = "AwaitingApproval"

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "revision": 0,
            "pullPaymentId": self.pull_payment.id,
            "date": _unix(self.at),
            "destination": "lnbc1payout",
            "originalCurrency": self.pull_payment.currency,
            "originalAmount": f"{self.amount:f}",
            "payoutCurrency": BTC,
            "payoutMethodId": LIGHTNING,
            "state": self.state,
            "metadata": {},
        }


@dataclass(kw_only=True, slots=True)
class Delivery:
    """A webhook they sent, as their list has it."""

    id: str
    at: datetime
    event: dict[str, object]
    pruned: bool = False


class BTCPaySimulator(Simulator):
    """One store on one server, with a Lightning node and a wallet.

    `webhook_url` is where its one webhook goes; `permissions`, where given, are all that the API key has.
    """

    vendor = "btcpay"
    schemes = ("sha256", "sha1")
    retries = (10, 60, 600, 600, 600, 600, 600, 600)
    patience = 100

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        api_key: str = "",
        store_id: str = "",
        permissions: frozenset[str] | None = None,
        prices: Mapping[str, int] = PRICES,
    ) -> None:
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        made_up = chance(seed, self.vendor, "store")
        self.api_key = api_key or f"{made_up.getrandbits(160):040x}"
        self.store_id = store_id or _text(made_up, _BASE58, 44)
        self.webhook_id = _text(made_up, _BASE58, 22)
        self.permissions = permissions
        self.prices = prices
        """What one bitcoin costs; a currency that is not there has no rate."""
        self.invoices: dict[str, Invoice] = {}
        self.pull_payments: dict[str, PullPayment] = {}
        self.payouts: dict[str, Payout] = {}
        self.deliveries: list[Delivery] = []

    # Invoices

    @route("POST", "/api/v1/stores/{store}/invoices", "payments.create")
    def create(self, request: Request) -> Response:
        """No idempotency key: the same twice makes two."""
        if (refusal := self._refuse(request, CREATE_INVOICE)) is not None:
            return refusal
        asked = request.json()
        wrong, checkout = _complaints(asked), _mapping(asked.get("checkout"))
        if wrong:
            return _invalid(wrong)
        currency = str(asked.get("currency") or "USD")
        if currency not in self.prices:
            return _error(
                "generic-error", f"Error retrieving a matching payment method or rate.\nNo rate for {currency}"
            )
        invoice = self._invoice(asked, checkout, currency)
        self.invoices[invoice.id] = invoice
        facts = {"attempt": next(iter(invoice.terms), ""), "expires_at": invoice.expires_at.isoformat()}
        self.ledger.record(
            Kind.OFFER, vendor=self.vendor, id=invoice.id, key=invoice.key, money=invoice.price, facts=facts
        )
        self._tell(invoice, "InvoiceCreated")
        return Response.json(self._to_json(invoice))

    @route("GET", "/api/v1/stores/{store}/invoices", "payments.find")
    def list(self, request: Request) -> Response:
        """Newest first; archived ones only when asked for."""
        if (refusal := self._refuse(request, VIEW_INVOICES)) is not None:
            return refusal
        asked, orders = request.query, _values(request, "orderId")
        since, until = int(asked.get("startDate", "0")), int(asked.get("endDate", str(2**40)))
        search = asked.get("textSearch", "")[:LONGEST_SEARCH]
        found = [
            invoice
            for invoice in reversed(self.invoices.values())
            if since <= _unix(invoice.created_at) <= until
            and (not orders or invoice.key in orders)
            and (not search or any(term.startswith(search) for term in (*invoice.terms, invoice.key, invoice.id)))
            and (not invoice.archived or asked.get("includeArchived") == "true")
        ]
        skip, take = int(asked.get("skip", "0")), int(asked.get("take", str(len(found))))
        return Response.json([self._to_json(invoice) for invoice in found[skip : skip + take]])

    @route("GET", "/api/v1/stores/{store}/invoices/{id}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        """One invoice."""
        return self._with(request, VIEW_INVOICES, lambda invoice: Response.json(self._to_json(invoice)))

    @route("GET", "/api/v1/stores/{store}/invoices/{id}/payment-methods", "payments.methods")
    def methods(self, request: Request) -> Response:
        """How it can be paid, and what came."""
        return self._with(
            request,
            VIEW_INVOICES,
            lambda invoice: Response.json([self._method(invoice, method) for method in invoice.methods]),
        )

    @route("POST", "/api/v1/stores/{store}/invoices/{id}/status", "payments.mark")
    def mark(self, request: Request) -> Response:
        """By hand: it stops nobody from paying."""

        def marked(invoice: Invoice) -> Response:
            status = str(request.json().get("status"))
            if status not in ("Invalid", "Settled") or (invoice.status, invoice.additional) == (status, "Marked"):
                return _invalid(
                    [("status", "Status can only be marked to invalid or settled within certain conditions.")]
                )
            invoice.status, invoice.additional = status, "Marked"
            self._tell(invoice, f"Invoice{status}", manuallyMarked=True)
            return Response.json(self._to_json(invoice))

        return self._with(request, MODIFY_INVOICES, marked)

    # Refunds

    @route("POST", "/api/v1/stores/{store}/invoices/{id}/refund", "payments.refund")
    def refund(self, request: Request) -> Response:
        """A link; no money moves before it is claimed."""
        return self._with(request, CREATE_PULL_PAYMENTS, lambda invoice: self._refund(invoice, request.json()))

    @route("GET", "/api/v1/stores/{store}/pull-payments", "payments.find_refund")
    def list_pull_payments(self, request: Request) -> Response:
        """All of the store."""
        if (refusal := self._refuse(request, VIEW_PULL_PAYMENTS)) is not None:
            return refusal
        archived = request.query.get("includeArchived") == "true"
        return Response.json(
            [self._pull_payment(one) for one in self.pull_payments.values() if archived or not one.archived]
        )

    @route("GET", "/api/v1/pull-payments/{id}", "payments.fetch_refund")
    def fetch_pull_payment(self, request: Request) -> Response:
        """For anybody who knows its id."""
        found = self.pull_payments.get(request.params["id"])
        return Response.json(self._pull_payment(found)) if found else _no_pull_payment()

    @route("GET", "/api/v1/pull-payments/{id}/payouts", "payments.fetch_refund")
    def list_claims(self, request: Request) -> Response:
        """For anybody who knows its id; without those that were cancelled."""
        if request.params["id"] not in self.pull_payments:
            return _no_pull_payment()
        claims = [one for one in self.payouts.values() if one.pull_payment.id == request.params["id"]]
        return Response.json([claim.to_json() for claim in claims if claim.state != "Cancelled"])

    @route("GET", "/api/v1/stores/{store}/payouts", "payments.payouts")
    def list_payouts(self, request: Request) -> Response:
        """All claims of the store, without those that were cancelled."""
        if (refusal := self._refuse(request, VIEW_PULL_PAYMENTS)) is not None:
            return refusal
        return Response.json([one.to_json() for one in self.payouts.values() if one.state != "Cancelled"])

    # The store

    @route("GET", "/api/v1/stores/{store}/rates", "payments.quote")
    def rates(self, request: Request) -> Response:
        """What a bitcoin costs."""
        if (refusal := self._refuse(request, VIEW_STORE)) is not None:
            return refusal
        return Response.json([self._rate(pair) for pair in _values(request, "currencyPair")])

    @route("GET", "/api/v1/stores/{store}/webhooks", "webhooks.list")
    def list_webhooks(self, request: Request) -> Response:
        """The one there is, if there is one."""
        if (refusal := self._refuse(request, MODIFY_WEBHOOKS)) is not None:
            return refusal
        webhook: dict[str, object] = {
            "id": self.webhook_id,
            "enabled": True,
            "automaticRedelivery": True,
            "url": self.webhook_url,
            "authorizedEvents": {"everything": True, "specificEvents": []},
        }
        return Response.json([webhook] if self.webhook_url else [])

    @route("GET", "/api/v1/stores/{store}/webhooks/{webhook}/deliveries", "webhooks.deliveries")
    def list_sent(self, request: Request) -> Response:
        """The latest so many, the most recent first."""
        if (refusal := self._refuse_webhook(request)) is not None:
            return refusal
        count = int(request.query.get("count", "0")) or len(self.deliveries)
        listed: list[dict[str, object]] = [
            {"id": sent.id, "timestamp": _unix(sent.at), "deliveryTime": _unix(sent.at), "status": "HttpSuccess"}
            for sent in reversed(self.deliveries)
        ]
        return Response.json(listed[:count])

    @route("GET", "/api/v1/stores/{store}/webhooks/{webhook}/deliveries/{id}/request", "webhooks.request")
    def read_sent(self, request: Request) -> Response:
        """What was sent, unless it was pruned."""
        if (refusal := self._refuse_webhook(request)) is not None:
            return refusal
        sent = self._sent(request.params["id"])
        if sent is None:
            return _error("webhookdelivery-not-found", "The webhook delivery was not found", 404)
        if sent.pruned:
            return _error("webhookdelivery-pruned", "This webhook delivery has been pruned", 409)
        return Response(headers=(("content-type", "application/json"),), body=_body(sent.event))

    @route("POST", "/api/v1/stores/{store}/webhooks/{webhook}/deliveries/{id}/redeliver", "webhooks.redeliver")
    def redeliver(self, request: Request) -> Response:
        """The same once more, under an id of its own."""
        if (refusal := self._refuse_webhook(request)) is not None:
            return refusal
        sent = self._sent(request.params["id"])
        if sent is None:
            return _error("webhookdelivery-not-found", "The webhook delivery was not found", 404)
        return Response.json(self._send(sent.event | {"isRedelivery": True}))

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "store_id": self.store_id,
            "api_key": self.api_key,
            "webhook_secret": self.webhook_secret,
            "webhook_id": self.webhook_id,
        }

    # What payers and operators do

    def pay(self, offer: str) -> None:
        """Over Lightning, what is left of it; only until the invoice expires."""
        invoice = self._find(offer)
        if invoice.status != "New":
            raise LookupError(f"{self.vendor}: invoice {invoice.id} is {invoice.status}")
        self._receive(invoice, LIGHTNING, invoice.sats - invoice.received, settled=True)

    def see_onchain(self, offer: str, sats: int | None = None) -> None:
        """A transaction is seen, over all that is due or so many satoshi; at any time, for an address stays one."""
        invoice = self._find(offer)
        if invoice.monitored_until <= self.clock.now():
            return  # nobody looks any more
        self._receive(invoice, ON_CHAIN, invoice.sats - invoice.received if sats is None else sats, settled=False)

    def confirm(self, offer: str) -> None:
        """What was seen is confirmed."""
        invoice = self._find(offer)
        for payment in invoice.payments:
            if not payment.settled:
                self._settle(invoice, payment)
        self._update(invoice)

    def double_spend(self, offer: str) -> None:
        """What was seen is replaced by a transaction to somebody else."""
        invoice = self._find(offer)
        invoice.payments = [payment for payment in invoice.payments if payment.settled]
        self._update(invoice)

    def claim(self, pull_payment: str, amount: Decimal | None = None) -> str:
        """The payer names where a refund is to go: all of it, or so much; the id of the payout."""
        held = self.pull_payments[pull_payment]
        payout = Payout(
            id=_text(self.random(), _BASE58, 22), pull_payment=held, at=self.clock.now(), amount=amount or held.amount
        )
        self.payouts[payout.id] = payout
        return payout.id

    def pay_out(self, payout: str) -> None:
        """A claim is approved and paid."""
        claim = self.payouts[payout]
        claim.state = "Completed"
        held = claim.pull_payment
        self.ledger.record(
            Kind.REFUND,
            vendor=self.vendor,
            id=held.id,
            key=held.invoice.key,
            money=_money(claim.amount, held.currency),
        )

    def archive(self, pull_payment: str) -> None:
        """The operator takes a refund back: what was claimed and not paid is cancelled."""
        self.pull_payments[pull_payment].archived = True
        for payout in self.payouts.values():
            if payout.pull_payment.id == pull_payment and payout.state != "Completed":
                payout.state = "Cancelled"

    def tick(self) -> None:
        """What was not paid in time expires; what is not confirmed in a day is invalid."""
        for invoice in self.invoices.values():
            self._update(invoice)

    def reset(self) -> None:
        super().reset()
        self.invoices.clear()
        self.pull_payments.clear()
        self.payouts.clear()
        self.deliveries.clear()

    # How webhooks are sent

    def not_found(self, request: Request) -> Response:
        return Response(status=404)

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """`BTCPay-Sig`: no time in it, so an old one still verifies."""
        return (("BTCPay-Sig", f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"),)

    def retry_after(self, number: int, reply: Reply) -> float | None:
        """Other 4xx are final."""
        again = reply.status in (0, 408, 429) or 500 <= reply.status < 600
        return super().retry_after(number, reply) if again else None

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another invoice, still new, is called settled."""
        candidates = [found for found in self.invoices.values() if found.status == "New"]
        if not candidates:
            return None
        unpaid = self.random().choice(candidates)
        event = self._event(unpaid, "InvoiceSettled") | {"manuallyMarked": False, "overPaid": False}
        return self._webhook(event)

    # How invoices live

    def _invoice(self, asked: Mapping[str, object], checkout: Mapping[str, object], currency: str) -> Invoice:
        random, now = self.random(), self.clock.now()
        amount = _decimal(asked.get("amount"))
        sats = int((amount * SATS / self.prices[currency]).to_integral_value(ROUND_UP))
        expires_at = now + _minutes(checkout.get("expirationMinutes"), EXPIRY)
        terms = asked.get("additionalSearchTerms")
        methods = checkout.get("paymentMethods")
        return Invoice(
            id=_text(random, _BASE58, 22),
            amount=f"{amount:f}",
            currency=currency,
            price=_money(amount, currency),
            sats=sats,
            metadata=_mapping(asked.get("metadata")),
            terms=tuple(map(str, cast("list[object]", terms))) if isinstance(terms, list) else (),
            methods=tuple(map(str, cast("list[object]", methods))) if methods else (ON_CHAIN, LIGHTNING),
            tolerance=_decimal(checkout.get("paymentTolerance") or 0),
            created_at=now,
            expires_at=expires_at,
            monitored_until=expires_at + _minutes(checkout.get("monitoringMinutes"), MONITORING),
            bolt11=make_invoice(sats, random),
            address=f"bc1q{_text(random, _BECH32, 38)}",
        )

    def _receive(self, invoice: Invoice, method: str, sats: int, *, settled: bool) -> None:
        payment = Payment(
            id=f"{self.random().getrandbits(256):064x}", method=method, sats=sats, at=self.clock.now(), settled=False
        )
        self._update(invoice)
        invoice.payments.append(payment)
        self._tell_payment(invoice, payment, "InvoiceReceivedPayment")
        self._update(invoice)
        if settled:
            self._settle(invoice, payment)
            self._update(invoice)

    def _settle(self, invoice: Invoice, payment: Payment) -> None:
        payment.settled = True
        money = invoice.price if payment.sats == invoice.sats else self._value(invoice, payment.sats)
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=invoice.id, key=invoice.key, money=money)
        self._tell_payment(invoice, payment, "InvoicePaymentSettled")

    def _update(self, invoice: Invoice) -> None:
        """What their watcher does with an invoice whenever something may have changed."""
        if invoice.status == "New" and invoice.expires_at <= self.clock.now():
            invoice.status = "Expired"
            self._tell(invoice, "InvoiceExpired", partiallyPaid=bool(invoice.payments))
        if invoice.status == "Processing" and not invoice.enough:
            invoice.status, invoice.additional = "New", "PaidPartial" if invoice.received else "None"
        if invoice.status in ("New", "Expired"):
            self._count(invoice)
        if invoice.status == "Processing":
            self._confirm(invoice)

    def _count(self, invoice: Invoice) -> None:
        if not invoice.enough:
            invoice.additional = "PaidPartial" if invoice.received else invoice.additional
        elif invoice.status == "New":
            invoice.status = "Processing"
            invoice.additional = "PaidOver" if invoice.received > invoice.sats else "None"
            self._tell(invoice, "InvoiceProcessing", overPaid=invoice.additional == "PaidOver")
        elif invoice.additional != "PaidLate":
            invoice.additional = "PaidLate"
            self._tell(invoice, "InvoicePaidAfterExpiration")

    def _confirm(self, invoice: Invoice) -> None:
        if all(payment.settled for payment in invoice.payments):
            invoice.status = "Settled"
            over = invoice.additional == "PaidOver"
            self._tell(invoice, "InvoiceSettled", manuallyMarked=False, overPaid=over)
        elif invoice.monitored_until <= self.clock.now():
            invoice.status = "Invalid"
            self._tell(invoice, "InvoiceInvalid", manuallyMarked=False)

    def _value(self, invoice: Invoice, sats: int) -> Money:
        worth, unit = self._worth(invoice, sats), _money(Decimal(1), invoice.currency)
        return Money.from_minor(int((worth * unit.minor_units).to_integral_value(ROUND_DOWN)), unit.currency)

    def _worth(self, invoice: Invoice, sats: int) -> Decimal:
        return Decimal(sats) * self.prices[invoice.currency] / SATS

    def _refund(self, invoice: Invoice, asked: Mapping[str, object]) -> Response:
        if not invoice.payments and invoice.additional != "Marked":
            return _error("non-refundable", "Cannot refund this invoice")
        if asked.get("refundVariant") != "Custom":
            return _invalid([("refundVariant", "`refundVariant` is mandatory; only Custom is simulated")])
        amount, currency = _decimal(asked.get("customAmount")), str(asked.get("customCurrency"))
        if amount <= 0:
            return _invalid([("refundVariant", "Amount must be greater than 0")])
        if currency not in self.prices:
            return _invalid([("refundVariant", "Invalid currency")])
        held = PullPayment(
            id=_text(self.random(), _BASE58, 22),
            invoice=invoice,
            name=str(asked.get("name") or f"Refund {invoice.id}"),
            description=str(asked.get("description") or ""),
            amount=amount,
            currency=currency,
        )
        self.pull_payments[held.id] = held
        return Response.json(self._pull_payment(held))

    # What is written

    def _to_json(self, invoice: Invoice) -> dict[str, object]:
        return {
            "id": invoice.id,
            "storeId": self.store_id,
            "amount": invoice.amount,
            "paidAmount": f"{self._worth(invoice, invoice.received):f}",
            "currency": invoice.currency,
            "type": "Standard",
            "checkoutLink": f"{self.base_url}/i/{invoice.id}",
            "createdTime": _unix(invoice.created_at),
            "expirationTime": _unix(invoice.expires_at),
            "monitoringExpiration": _unix(invoice.monitored_until),
            "status": invoice.status,
            "additionalStatus": invoice.additional,
            "availableStatusesForManualMarking": ["Settled", "Invalid"],
            "archived": invoice.archived,
            "metadata": dict(invoice.metadata),
            "checkout": {"paymentMethods": list(invoice.methods)},
            "receipt": {},
        }

    def _method(self, invoice: Invoice, method: str) -> dict[str, object]:
        destination = invoice.destination(method)
        scheme = "lightning" if method == LIGHTNING else "bitcoin"
        mine = [payment for payment in invoice.payments if payment.method == method]
        return {
            "activated": True,
            "paymentMethodId": method,
            "currency": BTC,
            "destination": destination,
            "paymentLink": f"{scheme}:{destination}",
            "rate": f"{self.prices[invoice.currency]}",
            "paymentMethodPaid": _btc(sum(payment.sats for payment in mine)),
            "totalPaid": _btc(invoice.received),
            "due": _btc(invoice.sats - invoice.received),
            "amount": _btc(invoice.sats),
            "paymentMethodFee": "0.0",
            "payments": [payment.to_json(destination) for payment in mine],
            "additionalData": {},
        }

    def _pull_payment(self, held: PullPayment) -> dict[str, object]:
        return {
            "id": held.id,
            "name": held.name,
            "description": held.description,
            "currency": held.currency,
            "amount": f"{held.amount:f}",
            "BOLT11Expiration": "30",
            "autoApproveClaims": False,
            "archived": held.archived,
            "viewLink": f"{self.base_url}/pull-payments/{held.id}",
        }

    def _rate(self, pair: str) -> dict[str, object]:
        price = self.prices.get(pair.partition("_")[2])
        if price is None:
            return {"currencyPair": pair, "errors": ["RateProviderException"], "rate": None}
        return {"currencyPair": pair, "errors": [], "rate": f"{price}"}

    # What is told

    def _event(self, invoice: Invoice, type: str) -> dict[str, object]:
        id = _text(self.random(), _BASE58, 22)
        return {
            "deliveryId": id,
            "webhookId": self.webhook_id,
            "originalDeliveryId": id,
            "isRedelivery": False,
            "type": type,
            "timestamp": _unix(self.clock.now()),
            "storeId": self.store_id,
            "invoiceId": invoice.id,
            "metadata": dict(invoice.metadata),
        }

    def _tell(self, invoice: Invoice, type: str, **more: object) -> None:
        if self.webhook_url:
            event = self._event(invoice, type) | more
            self.deliveries.append(Delivery(id=str(event["deliveryId"]), at=self.clock.now(), event=event))
            self.owe(self._webhook(event))

    def _tell_payment(self, invoice: Invoice, payment: Payment, type: str) -> None:
        self._tell(
            invoice,
            type,
            afterExpiration=invoice.status in ("Expired", "Invalid"),
            paymentMethodId=payment.method,
            payment=payment.to_json(invoice.destination(payment.method)),
        )

    def _send(self, event: dict[str, object]) -> str:
        id = _text(self.random(), _BASE58, 22)
        again = event | {"deliveryId": id}
        self.deliveries.append(Delivery(id=id, at=self.clock.now(), event=again))
        self.owe(self._webhook(again))
        return id

    def _webhook(self, event: Mapping[str, object]) -> Webhook:
        invoice = self.invoices[str(event["invoiceId"])]
        return Webhook(
            vendor=self.vendor,
            url=self.webhook_url,
            event=str(event["type"]),
            about=invoice.id,
            key=invoice.key,
            body=_body(event),
        )

    # Who may ask

    def _find(self, offer: str) -> Invoice:
        self.tick()
        wanted = offer.rstrip("/").rpartition("/")[2].removeprefix("bitcoin:")
        for invoice in self.invoices.values():
            if wanted in (invoice.id, invoice.address) or wanted.lower().endswith(invoice.bolt11.bolt11):
                return invoice
        raise LookupError(f"{self.vendor} has no invoice {offer}")

    def _sent(self, id: str) -> Delivery | None:
        return next((sent for sent in self.deliveries if sent.id == id), None)

    def _with(self, request: Request, permission: str, answer: Callable[[Invoice], Response]) -> Response:
        if (refusal := self._refuse(request, permission)) is not None:
            return refusal
        invoice = self.invoices.get(request.params["id"])
        return answer(invoice) if invoice else _error("invoice-not-found", "The invoice was not found", 404)

    def _refuse_webhook(self, request: Request) -> Response | None:
        if (refusal := self._refuse(request, MODIFY_WEBHOOKS)) is not None:
            return refusal
        if request.params["webhook"] == self.webhook_id and self.webhook_url:
            return None
        return _error("webhook-not-found", "The webhook was not found", 404)

    def _refuse(self, request: Request, permission: str) -> Response | None:
        if request.header("authorization") != f"token {self.api_key}":
            return _error("unauthenticated", "Authentication is required for accessing this endpoint", 401)
        allowed = self.permissions is None or permission in self.permissions
        if request.params["store"] == self.store_id and allowed:
            return None
        text = f'Insufficient API Permissions. Please use an API key with permission "{permission}".'
        missing = {"code": "missing-permission", "message": text, "missingPermission": permission}
        return Response.json(missing, status=403)


def _complaints(asked: Mapping[str, object]) -> list[tuple[str, str]]:
    """What their validation finds wrong with a new invoice."""
    wrong: list[tuple[str, str]] = []
    checkout = _mapping(asked.get("checkout"))
    if _decimal(asked.get("amount"), default=Decimal(-1)) < 0:
        wrong.append(("amount", "The amount should be 0 or more."))
    methods = checkout.get("paymentMethods") or ()
    for number, method in enumerate(cast("Sequence[object]", methods)):
        if method not in (LIGHTNING, ON_CHAIN):
            wrong.append((f"checkout.paymentMethods[{number}]", "Invalid PaymentMethodId"))
    if _minutes(checkout.get("expirationMinutes"), EXPIRY) < LEAST_EXPIRY:
        wrong.append(("checkout.expirationMinutes", "Expiration time must be at least 30 seconds"))
    if not 0 <= _decimal(checkout.get("paymentTolerance") or 0) <= 100:
        wrong.append(("checkout.paymentTolerance", "PaymentTolerance can only be between 0 and 100 percent"))
    return wrong


def _error(code: str, message: str, status: int = 400) -> Response:
    return Response.json({"code": code, "message": message}, status=status)


def _invalid(wrong: Sequence[tuple[str, str]]) -> Response:
    """422 in the server's code, although its description says 400."""
    return Response.json([{"path": path, "message": message} for path, message in wrong], status=422)


def _no_pull_payment() -> Response:
    return _error("pullpayment-not-found", "The pull payment was not found", 404)


def _body(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, indent=2, ensure_ascii=False).encode()


def _values(request: Request, name: str) -> list[str]:
    return [value for key, value in parse_qsl(urlsplit(request.target).query) if key == name]


def _money(amount: Decimal, currency: str) -> Money:
    return Money(amount.scaleb(-8), BTC) if currency == "SATS" else Money(amount, currency)


def _decimal(value: object, default: Decimal = Decimal(0)) -> Decimal:
    try:
        return Decimal(value) if isinstance(value, str | int | Decimal) else default
    except InvalidOperation:
        return default


def _minutes(value: object, default: timedelta) -> timedelta:
    return timedelta(minutes=float(value)) if isinstance(value, int | Decimal) else default


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _text(random: Random, letters: str, length: int) -> str:
    return "".join(random.choice(letters) for _ in range(length))


def _btc(sats: int) -> str:
    return f"{Decimal(sats).scaleb(-8):f}"


def _unix(at: datetime) -> int:
    return int(at.timestamp())
