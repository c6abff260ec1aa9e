"""BTCPay Server: Lightning and on-chain checkout on a server you choose, priced in fiat or bitcoin."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal
from os import environ
from typing import Annotated, Final, Literal, Self, cast

from pydantic import AliasChoices, BaseModel, Field, RootModel, ValidationError

from holdfast.errors import CallFailed, InvalidInput, Mismatch, Refused, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import (
    JsonIn,
    JsonOut,
    VendorError,
    decode_json,
    encode_json,
    one_line,
    read_json_error,
    segment,
)
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, PaymentStatus, Quote, RefundStatus
from holdfast.payments.provider import (
    Capabilities,
    LineKind,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    RefundRequest,
    RefundSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.values import BTC, Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody

Speed = Literal["HighSpeed", "MediumSpeed", "LowMediumSpeed", "LowSpeed"]
"""Confirmations before on-chain money counts: 0 (1 where it can be replaced), 1, 2, 6."""

# By status, and where it matters by the additional one.
# https://docs.btcpayserver.org/API/Greenfield/v1/#operation/Invoices_GetInvoice
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "New": PaymentStatus.PENDING,
    "New/PaidPartial": PaymentStatus.PARTIALLY_PAID,
    "Processing": PaymentStatus.PROCESSING,
    "Settled": PaymentStatus.PAID,
    "Expired": PaymentStatus.EXPIRED,
    "Expired/PaidLate": PaymentStatus.PROCESSING,  # in full, but it stays "Expired" when it is confirmed: see fetch
    "Invalid": PaymentStatus.FAILED,
    "Invalid/Marked": PaymentStatus.CANCELED,
}
EVENTS: Final = frozenset(
    {
        "InvoiceCreated",
        "InvoiceReceivedPayment",
        "InvoicePaymentSettled",
        "InvoiceProcessing",
        "InvoiceExpired",
        "InvoiceExpiredPaidPartial",
        "InvoicePaidAfterExpiration",
        "InvoiceSettled",
        "InvoiceInvalid",
    }
)
# What the payer's wallet is shown, by payment method; the second name of each is that of 1.x.
PAYMENT_CODES: Final[Mapping[str, str]] = {
    "BTC-LN": "bolt11",
    "BTC-LightningNetwork": "bolt11",
    "BTC-CHAIN": "address",
    "BTC": "address",
}
LIGHTNING: Final = frozenset({"BTC-LN", "BTC-LNURL", "BTC-LightningNetwork", "BTC-LNURLPAY"})
PAYOUTS_UNDER_WAY: Final = frozenset({"AwaitingApproval", "AwaitingPayment", "InProgress"})
TEST_HOSTS: Final = ("https://testnet.demo.btcpayserver.org",)
ECHO: Final = "holdfastAttempt"
"""The field of an invoice's metadata that has our attempt's id."""
MONITORED: Final = timedelta(days=1)
"""How long after its expiry an invoice is watched for money; asked for with every invoice."""
OLDEST_INVOICE: Final = timedelta(days=8)
"""How long before its money came an invoice was made, at most: a week on offer, and a day of monitoring."""
PAGE_SIZE: Final = 100
MOST_DELIVERIES: Final = 12_800
MINUTE: Final = timedelta(minutes=1)
SAT_DIGITS: Final = 8
# Their 400 when no payment method could be set up: a rate or a node is out of reach, and nothing of ours is wrong.
NO_RATE: Final = "Error retrieving a matching payment method or rate"
_DOWN: Final = Context(prec=40, rounding=ROUND_DOWN)

Amount = Annotated[Decimal, Field(max_digits=40)]
"""As many digits as their own decimals have, and some more; a longer one would fill our memory."""


class Metadata(BaseModel):
    """What was sent along with an invoice, echoed; any program may have sent anything."""

    order_id: object = Field(alias="orderId", default=None)
    attempt_id: object = Field(alias=ECHO, default=None)

    @property
    def reference(self) -> str:
        return self.order_id if isinstance(self.order_id, str) else ""

    @property
    def attempt(self) -> str:
        return self.attempt_id if isinstance(self.attempt_id, str) else ""


class Invoice(BaseModel):
    """An invoice, as BTCPay Server writes it; amounts are texts in decimals of its currency."""

    id: str = Field(min_length=1)
    store_id: str = Field(alias="storeId", default="")
    amount: Amount
    paid_amount: Amount | None = Field(alias="paidAmount", default=None)
    """In the currency of the invoice; servers before 2.1 do not say."""
    currency: str
    status: str
    additional_status: str = Field(alias="additionalStatus", default="None")
    checkout_link: str | None = Field(alias="checkoutLink", default=None)
    expiration_time: datetime = Field(alias="expirationTime")
    metadata: Metadata = Metadata()

    @property
    def price(self) -> Money:
        return _money(self.amount, self.currency, self.id)

    @property
    def paid(self) -> Money | None:
        """What came in, at the rates it came at, rounded down; it need not be confirmed."""
        if self.paid_amount is None:
            return None
        return _floored(self.paid_amount, self.currency, self.id)

    @property
    def word(self) -> str:
        """Both statuses in one: `Settled/None`, `Expired/PaidLate`."""
        return f"{self.status}/{self.additional_status}"

    @property
    def late(self) -> bool:
        """All of it came, after the end; whether it is confirmed only its payments tell."""
        return self.word == "Expired/PaidLate"

    @property
    def state(self) -> PaymentStatus:
        status = STATUSES.get(self.word) or STATUSES.get(self.status, PaymentStatus.UNKNOWN)
        if status is PaymentStatus.CANCELED and self.paid:
            return PaymentStatus.FAILED  # somebody gave up on money that was seen
        return status

    @property
    def received(self) -> Money | None:
        """What surely came in; None where it may yet be less.

        Settled is settled: the rates of several payments may round to a little less, and who marked it by hand says
        that they have the money. Only "PaidOver" means more.
        """
        match self.state:
            case PaymentStatus.PAID if self.additional_status == "PaidOver" and self.paid:
                return max(self.paid, self.price)
            case PaymentStatus.PAID:
                return self.price
            case PaymentStatus.PARTIALLY_PAID | PaymentStatus.EXPIRED:
                return self.paid or None
            case _:
                return None

    def to_snapshot(self) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        return PaymentSnapshot(
            vendor_id=self.id,
            status=self.state,
            price=self.price,
            received=self.received,
            attempt_id=self.metadata.attempt,
            offer=Offer(checkout_url=self.checkout_link, expires_at=self.expiration_time),
            reason=self.word if "Invalid" in self.word or "Marked" in self.word else "",
            by_hand=self.word == "Settled/Marked",
        )


class Invoices(RootModel[list[Invoice]]):
    """The answer to `GET …/invoices`, of invoices that are ours."""


class Page(RootModel[list[object]]):
    """The answer to `GET …/invoices`, where one invoice we cannot read must not hide the others."""


class Received(BaseModel):
    """One payment to an invoice."""

    received_date: datetime = Field(alias="receivedDate")
    status: str


class PaymentMethod(BaseModel):
    """One way in which an invoice can be paid, and what came by it."""

    id: str = Field(validation_alias=AliasChoices("paymentMethodId", "paymentMethod"))
    destination: str | None = None
    payments: list[Received] = []


class PaymentMethods(RootModel[list[PaymentMethod]]):
    """The answer to `GET …/payment-methods`."""

    @property
    def payments(self) -> list[Received]:
        return [payment for method in self.root for payment in method.payments]

    @property
    def confirmed(self) -> bool:
        """Every payment is final."""
        return bool(self.payments) and all(payment.status == "Settled" for payment in self.payments)

    @property
    def codes(self) -> Mapping[str, str]:
        """`bolt11` and `address`, as far as there are any; a method the payer has yet to choose has none."""
        shown = [method for method in self.root if method.id in PAYMENT_CODES]
        return {PAYMENT_CODES[method.id]: method.destination for method in shown if method.destination}


class Rate(BaseModel):
    """What one bitcoin costs."""

    currency_pair: str = Field(alias="currencyPair")
    rate: Amount | None = None


class Rates(RootModel[list[Rate]]):
    """The answer to `GET …/rates`."""


class PullPayment(BaseModel):
    """Money set aside that whoever has the link may claim."""

    id: str = Field(min_length=1)
    name: str | None = None
    currency: str
    amount: Amount
    archived: bool = False
    view_link: str | None = Field(alias="viewLink", default=None)

    @property
    def money(self) -> Money:
        return _money(self.amount, self.currency, self.id)

    @property
    def names(self) -> tuple[str, str]:
        """The invoice and the key, where it is a refund we asked for; else nothing."""
        word, _, rest = (self.name or "").partition(" ")
        invoice, _, key = rest.partition(" ")
        return (invoice, key) if word == "Refund" and key else ("", "")

    def to_snapshot(self, key: str, payouts: "Sequence[Payout]" = ()) -> RefundSnapshot:
        """In our words: it is for the payer to claim, until they have."""
        claimed = sum((payout.amount for payout in payouts if payout.state == "Completed"), Decimal(0))
        status = RefundStatus.MANUAL_REQUIRED
        if claimed >= self.amount:
            status = RefundStatus.SUCCEEDED
        elif any(payout.state in PAYOUTS_UNDER_WAY for payout in payouts):
            status = RefundStatus.PENDING
        elif self.archived and not claimed:
            status = RefundStatus.CANCELED
        return RefundSnapshot(vendor_id=self.id, status=status, money=self.money, key=key, claim_url=self.view_link)


class PullPayments(RootModel[list[PullPayment]]):
    """The answer to `GET …/pull-payments`."""


class Payout(BaseModel):
    """One claim on a pull payment."""

    id: str
    date: datetime
    pull_payment_id: str | None = Field(alias="pullPaymentId", default=None)
    state: str
    amount: Amount = Field(validation_alias=AliasChoices("originalAmount", "amount"))
    """In the currency of the pull payment; the second name is that of 1.x."""


class Payouts(RootModel[list[Payout]]):
    """The answer to `GET …/payouts`."""


class Webhook(BaseModel):
    """An address of the store's that they call."""

    id: str


class Webhooks(RootModel[list[Webhook]]):
    """The answer to `GET …/webhooks`."""


class Sent(BaseModel):
    """A delivery in their own list."""

    id: str
    timestamp: datetime


class SentList(RootModel[list[Sent]]):
    """The answer to `GET …/deliveries`."""


class Body(RootModel[dict[str, object]]):
    """What a delivery said."""


class Event(BaseModel):
    """The envelope of every webhook."""

    type: str
    delivery_id: str = Field(alias="deliveryId", min_length=1)
    original_delivery_id: str | None = Field(alias="originalDeliveryId", default=None)
    """The same for every new try, which has an id of its own."""
    store_id: str = Field(alias="storeId", default="")
    invoice_id: str = Field(alias="invoiceId", default="")
    metadata: Metadata | None = None

    def to_delivery(self, body: bytes) -> Delivery:
        """A store has one webhook for whatever is sold in it: without our mark it is none of ours."""
        key = self.original_delivery_id or self.delivery_id
        echo = self.metadata or Metadata()
        return Delivery(
            type=self.type,
            dedup_key=key,
            vendor_id=self.invoice_id,
            reference=echo.reference,
            recognised=self.type in EVENTS and bool(echo.attempt),
            body=body,
            digest=hashlib.sha256(f"{key}:{self.type}:{self.store_id}:{self.invoice_id}".encode()).hexdigest(),
            facts={"attempt_id": echo.attempt} if echo.attempt else None,
        )


@dataclass(frozen=True, kw_only=True)
class BTCPay:
    """Take payments with BTCPay Server.

    `api_key` is made under Account > API Keys, limited to the store, with the permissions
    `btcpay.store.cancreateinvoice` and `btcpay.store.canviewinvoices`; the page of this provider names those that
    further verbs need. `webhook_secret` is that of the store's webhook, which you set up once.
    """

    base_url: str
    store_id: str
    api_key: Secret
    webhook_secret: Secrets
    webhook_id: str = ""
    """Of the store's webhook, so that its deliveries alone are asked for what was missed; empty: all of the store."""
    payment_methods: tuple[str, ...] = ()
    """Such as `BTC-LN` and `BTC-CHAIN`; empty: all that the store has."""
    payment_codes: bool = False
    """Look up the Lightning invoice and the address of each offer too, for a page of your own: one more exchange."""
    speed: Speed | None = None
    """None: as the store has it."""
    notify_payer: bool = False
    """Send the payer's e-mail address along, to which the store may write; else nobody is told it."""
    name: str = "btcpay"

    # No idempotency key: after a lost answer the invoice is searched for by our id. Marking an invoice as invalid does
    # not stop who pays on chain, so no offer can be revoked. Money goes back as a pull payment, which the payer claims.
    capabilities = Capabilities(
        currencies=None,
        methods=frozenset({Method.LIGHTNING, Method.ON_CHAIN}),
        create_effect=Effect.ONCE,
        lookup=Lookup.AUTHORITATIVE,
        revocable=False,
        refunding=Refunding.MANUAL,
        refund_effect=Effect.ONCE,
        webhook_trust=WebhookTrust.SIGNED_BODY,
        grace=MONITORED,
        late_looks=(timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6), MONITORED, timedelta(hours=25)),
    )
    # https://docs.btcpayserver.org/API/Greenfield/v1/ names the permission of each call; without it the answer is this.
    causes = CAUSES | {(403, "missing-permission"): Cause.CREDENTIAL}
    private_fields = frozenset(
        {"buyerAddress1", "buyerAddress2", "buyerEmail", "buyerName", "buyerPhone", "destination", "paymentLink"}
    )
    scheme = HmacBody(header="btcpay-sig", prefix="sha256=")

    def __post_init__(self) -> None:
        if self.payment_methods and LIGHTNING.issuperset(self.payment_methods):
            # A Lightning invoice ends with its offer; only an address can be paid a day later.
            able = replace(self.capabilities, methods=frozenset({Method.LIGHTNING}), grace=timedelta(minutes=2))
            object.__setattr__(self, "capabilities", able)

    @classmethod
    def from_env(cls) -> Self:
        """With BTCPAY_URL, BTCPAY_STORE_ID, BTCPAY_API_KEY and BTCPAY_WEBHOOK_SECRET from the environment.

        Of the webhook's secret there may be several, newest first, by commas. BTCPAY_WEBHOOK_ID may be set too.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "BTCPAY_URL": "the address of your BTCPay Server",
                "BTCPAY_STORE_ID": "the store, from its settings",
                "BTCPAY_API_KEY": "an API key limited to the store",
                "BTCPAY_WEBHOOK_SECRET": "the secret of the store's webhook",
            }
        )
        return cls(
            base_url=secret_from_env("BTCPAY_URL").reveal(),
            store_id=secret_from_env("BTCPAY_STORE_ID").reveal(),
            api_key=secret_from_env("BTCPAY_API_KEY"),
            webhook_secret=Secrets.from_env("BTCPAY_WEBHOOK_SECRET"),
            webhook_id=environ.get("BTCPAY_WEBHOOK_ID", "").strip(),
        )

    @property
    def live(self) -> bool:
        """Whether money is real: everywhere but on this machine, and on the project's own test server."""
        return not (is_loopback(self.base_url) or self.base_url.lower().rstrip("/") in TEST_HOSTS)

    @property
    def webhook_secrets(self) -> Secrets:
        return self.webhook_secret

    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"token {self.api_key.reveal()}"}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"code": "…", "message": "…"}`, or of what is wrong with a request `[{"path": "…", "message": "…"}]`."""
        body = decode_json(response.content)
        if isinstance(body, list):
            return VendorError(message=one_line("; ".join(_complaints(body))))
        said = read_json_error(response)
        if said.message.startswith(NO_RATE):
            return replace(said, reason="no_rate", cause=Cause.REFUSED)
        return said

    # Offers.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /api/v1/stores/{storeId}/invoices`.

        Raises:
            InvalidMoney: A fraction of a satoshi.
        """
        metadata: dict[str, JsonOut] = {
            **request.metadata,
            "orderId": request.reference,
            "itemDesc": request.description or request.reference,
            ECHO: request.attempt_id,
        }
        if self.notify_payer and request.payer and request.payer.email:
            metadata["buyerEmail"] = request.payer.email
        checkout: dict[str, JsonOut] = {
            "expirationMinutes": max(request.expires_in // MINUTE, 1),
            "monitoringMinutes": MONITORED // MINUTE,
            "paymentTolerance": 0,  # else a store's own would have less than the price settle it
        }
        if self.payment_methods:
            checkout["paymentMethods"] = self.payment_methods
        if self.speed:
            checkout["speedPolicy"] = self.speed
        if request.return_url:
            checkout["redirectURL"] = request.return_url
        body: dict[str, JsonOut] = {
            "amount": _wire(request.price),
            "currency": request.price.currency,
            "metadata": metadata,
            "checkout": checkout,
            "additionalSearchTerms": [request.attempt_id],
        }
        invoice = await http.post(
            self._path("invoices"), Invoice, operation="create", effect=self.capabilities.create_effect, json=body
        )
        return await self._offered(http, invoice, "create")

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET …/invoices/{invoiceId}`; of one that was paid late its payments too, for it never settles by itself.

        Raises:
            Mismatch: It is another store's.
        """
        invoice = await http.get(self._path("invoices", vendor_id), Invoice, operation="fetch")
        return await self._seen(http, invoice, "fetch")

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """`GET …/invoices?textSearch=…` for the search term it was given; archived or not."""
        params = {"textSearch": attempt.id, "includeArchived": "true"}
        answer = await http.get(self._path("invoices"), Invoices, operation="find", params=params)
        found = [invoice for invoice in answer.root if invoice.metadata.attempt == attempt.id]
        if not found:
            return None
        found.sort(key=lambda invoice: invoice.paid_amount or 0, reverse=True)
        offered = await self._offered(http, found[0], "find")
        return replace(await self._seen(http, found[0], "find"), offer=offered.offer)

    async def _seen(self, http: Http, invoice: Invoice, operation: str) -> PaymentSnapshot:
        snapshot = self._own(invoice, operation).to_snapshot()
        if not invoice.late:
            return snapshot
        methods = await self._methods(http, invoice.id, operation)
        if not methods.confirmed:
            return snapshot
        return replace(snapshot, status=PaymentStatus.PAID, received=max(invoice.paid or invoice.price, invoice.price))

    async def _offered(self, http: Http, invoice: Invoice, operation: str) -> PaymentSnapshot:
        """With what the payer's wallet is shown, where that is wanted; without it there is still the page."""
        snapshot = self._own(invoice, operation).to_snapshot()
        if not (self.payment_codes and snapshot.offer):
            return snapshot
        try:
            codes = (await self._methods(http, invoice.id, "payment_codes")).codes
        except CallFailed:
            return snapshot
        offer = replace(snapshot.offer, bolt11=codes.get("bolt11"), address=codes.get("address"))
        return replace(snapshot, offer=offer)

    async def _methods(self, http: Http, invoice_id: str, operation: str) -> PaymentMethods:
        path = f"{self._path('invoices', invoice_id)}/payment-methods"
        return await http.get(path, PaymentMethods, operation=operation)

    def _own(self, invoice: Invoice, operation: str) -> Invoice:
        if invoice.store_id not in ("", self.store_id):
            raise Mismatch(
                f"{self.name}: invoice {invoice.id} belongs to another store",
                provider=self.name,
                operation=operation,
                reason="recipient",
            )
        return invoice

    # Refunds.

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """`POST …/invoices/{invoiceId}/refund`: a pull payment, whose link you hand to the payer."""
        body: dict[str, JsonOut] = {
            "name": _name(request),
            "description": request.reason or f"Refund of {request.reference}",
            "refundVariant": "Custom",
            "customAmount": _wire(request.money),
            "customCurrency": request.money.currency,
        }
        path = f"{self._path('invoices', request.vendor_id)}/refund"
        effect = self.capabilities.refund_effect
        made = await http.post(path, PullPayment, operation="refund", effect=effect, json=body)
        return made.to_snapshot(request.key)

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """`GET /api/v1/pull-payments/{pullPaymentId}`, and the payouts that were claimed of it."""
        path = f"/api/v1/pull-payments/{segment(vendor_id)}"
        held = await http.get(path, PullPayment, operation="fetch_refund")
        claims = await http.get(f"{path}/payouts", Payouts, operation="fetch_refund")
        return held.to_snapshot(request.key, claims.root)

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """`GET …/pull-payments`, by the name we gave it."""
        held = await self._pull_payments(http, "find_refund")
        found = next((one for one in held if one.name == _name(request)), None)
        return await self.fetch_refund(http, request, found.id) if found else None

    async def _pull_payments(self, http: Http, operation: str) -> list[PullPayment]:
        params = {"includeArchived": "true"}
        return (await http.get(self._path("pull-payments"), PullPayments, operation=operation, params=params)).root

    # Rates.

    async def quote(self, http: Http, due: Money, *, at: datetime) -> Quote:
        """`GET …/rates?currencyPair=BTC_…`: what it is in bitcoin, rounded up to a whole satoshi.

        Raises:
            Refused: The store has no rate now.
        """
        pair = f"{BTC}_{due.currency}"
        answer = await http.get(self._path("rates"), Rates, operation="quote", params={"currencyPair": pair})
        price = next((rate.rate for rate in answer.root if rate.currency_pair == pair), None)
        if price is None or price <= 0:
            raise Refused(
                f"{self.name}: quote: the store has no rate for {due.currency} now",
                provider=self.name,
                operation="quote",
                reason="no_rate",
            )
        return Quote.of(due, _DOWN.divide(Decimal(1), price), BTC, source=self.name, at=at)

    # Webhooks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        event = Event.model_validate(decode_json(request.body))
        return [event.to_delivery(request.body)]

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """What their own list of deliveries says was sent since; what they have pruned is left out."""
        for webhook in await self._webhooks(http):
            path = f"{self._path('webhooks', webhook)}/deliveries"
            for sent in await self._sent(http, path, since):
                if (delivery := await self._delivery(http, f"{path}/{segment(sent)}/request")) is not None:
                    yield delivery

    async def _delivery(self, http: Http, path: str) -> Delivery | None:
        try:
            said = await http.get(path, Body, operation="list")
            return Event.model_validate(said.root).to_delivery(encode_json(cast(JsonOut, said.root)))
        except ValidationError:
            return None
        except Rejected as error:
            if error.status not in (404, 409):  # 409: webhookdelivery-pruned
                raise
            return None

    async def _webhooks(self, http: Http) -> list[str]:
        if self.webhook_id:
            return [self.webhook_id]
        answer = await http.get(self._path("webhooks"), Webhooks, operation="list")
        return [webhook.id for webhook in answer.root]

    async def _sent(self, http: Http, path: str, since: datetime) -> list[str]:
        """The ids of deliveries since then: there are no pages, only the latest so many."""
        count = PAGE_SIZE
        while True:
            listed = (await http.get(path, SentList, operation="list", params={"count": count})).root
            recent = [sent.id for sent in listed if sent.timestamp >= since]
            if len(recent) < count or count >= MOST_DELIVERIES:
                return recent
            count *= 2

    # Statements.

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """Invoices by when their last payment came, and refunds by when they were claimed."""
        async for invoice in self._invoices(http, since - OLDEST_INVOICE, until):
            if not invoice.paid:
                continue
            money = (await self._seen(http, invoice, "statement")).received
            came = [payment.received_date for payment in (await self._methods(http, invoice.id, "statement")).payments]
            at = max(came, default=None)
            if money is None or at is None or not since <= at < until:
                continue
            yield StatementLine(
                kind=LineKind.PAYMENT,
                vendor_id=invoice.id,
                payment_id=invoice.id,
                money=money,
                at=at,
                attempt_id=invoice.metadata.attempt,
                reference=invoice.metadata.reference,
            )
        for line in await self._refunded(http):
            if since <= line.at < until:
                yield line

    async def _invoices(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[Invoice]:
        params: dict[str, str | int] = {"startDate": int(since.timestamp()), "endDate": int(until.timestamp())}
        params |= {"includeArchived": "true", "take": PAGE_SIZE}
        skip = 0
        while True:
            page = await http.get(self._path("invoices"), Page, operation="statement", params=params | {"skip": skip})
            for row in page.root:
                try:
                    yield Invoice.model_validate(row)
                except ValidationError:
                    continue
            if len(page.root) < PAGE_SIZE:
                return
            skip += PAGE_SIZE

    async def _refunded(self, http: Http) -> list[StatementLine]:
        held = {one.id: one for one in await self._pull_payments(http, "statement")}
        claims = await http.get(self._path("payouts"), Payouts, operation="statement")
        lines: list[StatementLine] = []
        for claim in claims.root:
            pull_payment = held.get(claim.pull_payment_id or "")
            if claim.state != "Completed" or pull_payment is None or not pull_payment.names[0]:
                continue
            lines.append(
                StatementLine(
                    kind=LineKind.REFUND,
                    vendor_id=pull_payment.id,
                    payment_id=pull_payment.names[0],
                    money=_money(claim.amount, pull_payment.currency, claim.id),
                    at=claim.date,
                )
            )
        return lines

    def _path(self, kind: str, id: str = "") -> str:
        # Newer servers also have these paths without the store; all have them with it.
        path = f"/api/v1/stores/{segment(self.store_id)}/{kind}"
        return f"{path}/{segment(id)}" if id else path


def _name(request: RefundRequest) -> str:
    return f"Refund {request.vendor_id} {request.key}"


def _wire(money: Money) -> str:
    """The amount in decimals of its currency, never in minor units; bitcoin in whole satoshi."""
    amount = Decimal(money.sat).scaleb(-SAT_DIGITS) if money.currency == BTC else money.amount
    return f"{amount:f}"


def _money(amount: Decimal, currency: str, about: str) -> Money:
    try:
        if currency == "SATS":
            return Money(amount.scaleb(-SAT_DIGITS), BTC)
        return Money(amount, currency)
    except InvalidInput as error:
        raise Mismatch(f"{about} has an amount we cannot read: {error}", reason="amount") from error


def _floored(amount: Decimal, currency: str, about: str) -> Money:
    """The same in whole minor units, which a sum of converted payments rarely is."""
    unit = _money(Decimal(1), currency, about)
    return Money.from_minor(int(_DOWN.multiply(amount, Decimal(unit.minor_units))), unit.currency)


def _complaints(rows: list[JsonIn]) -> list[str]:
    return [f"{row.get('path')}: {row.get('message')}" for row in rows if isinstance(row, dict)]
