"""OpenNode: Lightning and on-chain charges, priced in fiat or bitcoin."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal
from os import environ
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, ValidationError

from holdfast.errors import InvalidInput, Mismatch, Refused
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, encode_form, read_json_error, segment
from holdfast.outcome import Effect
from holdfast.payments.models import Method, Offer, PaymentStatus, Quote
from holdfast.payments.provider import (
    Capabilities,
    LineKind,
    OfferRequest,
    PaymentSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.values import BTC, Money, Secrets, require_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest

# https://developers.opennode.com/docs/charges-webhooks
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "unpaid": PaymentStatus.PENDING,
    "processing": PaymentStatus.PROCESSING,
    "underpaid": PaymentStatus.PARTIALLY_PAID,
    "paid": PaymentStatus.PAID,
    "refunded": PaymentStatus.FAILED,  # it was underpaid, and the payer asked for the money back
    "expired": PaymentStatus.EXPIRED,
    "failed": PaymentStatus.FAILED,
}
ECHO: Final = "holdfast_attempt"
"""The field of a charge's metadata that has our attempt's id."""
TEST_HOST: Final = "dev-api.opennode.com"
NOTHING: Final = ("", "N/A")
"""What they write for an order id that was not given."""
SHORTEST: Final = timedelta(minutes=10)
LONGEST: Final = timedelta(days=1)
"""Of a charge's life."""
MOST_FIELDS: Final = 1000
MINUTE: Final = timedelta(minutes=1)
_DOWN: Final = Context(prec=40, rounding=ROUND_DOWN)


class Lightning(BaseModel):
    """How a charge is paid over Lightning; there is none above 5 BTC."""

    payreq: str | None = None
    settled_at: datetime | None = None


class Chain(BaseModel):
    """How it is paid on chain."""

    address: str | None = None
    settled_at: datetime | None = None


class Transaction(BaseModel):
    """What came on chain."""

    amount: int
    """In satoshi."""


class Charge(BaseModel):
    """A charge, as OpenNode writes it."""

    id: str = Field(min_length=1)
    amount: int = Field(gt=0)
    """What is due, in satoshi."""
    status: str
    currency: str | None = None
    """In which it was asked for; BTC where that was in satoshi."""
    source_fiat_value: Decimal | None = Field(default=None, max_digits=40)
    """What was asked for; of one asked for in satoshi nothing sure."""
    missing_amt: int | None = None
    """Satoshi that have not come; all of them while nothing has."""
    fee: int | None = None
    created_at: datetime
    ttl: int | None = None
    """Minutes."""
    order_id: str | None = None
    metadata: Mapping[str, object] | None = None
    hosted_checkout_url: str | None = None
    address: str | None = None
    lightning_invoice: Lightning | None = None
    chain_invoice: Chain | None = None
    transactions: list[Transaction] | None = None

    @property
    def price(self) -> Money | None:
        """In the currency it was asked for; None where it does not say."""
        if self.currency in (None, BTC):
            return Money.from_sat(self.amount)
        if self.source_fiat_value is None:
            return None
        try:
            return Money(self.source_fiat_value, self.currency)
        except InvalidInput as error:
            raise Mismatch(f"charge {self.id} has a price we cannot read: {error}", reason="amount") from error

    @property
    def came(self) -> int:
        """Satoshi that came, as far as it says."""
        sent = sum(transaction.amount for transaction in self.transactions or ())
        if self.status == "paid":
            return max(sent, self.amount)
        return max(0, self.amount - self.missing_amt) if self.missing_amt is not None else sent

    @property
    def received(self) -> Money | None:
        """What came in, in the currency of the price at the charge's own rate, rounded down; None: it may be less."""
        price = self.price
        if price is None or self.status not in ("paid", "underpaid", "refunded", "expired") or not self.came:
            return None
        share = price.minor_units * self.came // self.amount
        return Money.from_minor(share, price.currency)

    @property
    def echo(self) -> str:
        """Our attempt's id."""
        found = (self.metadata or {}).get(ECHO)
        return found if isinstance(found, str) else ""

    @property
    def settled_at(self) -> datetime:
        """When its money came; when it was made, where it does not say."""
        told = (self.lightning_invoice, self.chain_invoice)
        return next((way.settled_at for way in told if way and way.settled_at), self.created_at)

    @property
    def ends_at(self) -> datetime | None:
        """None also where it is beyond any calendar."""
        try:
            return None if self.ttl is None else self.created_at + self.ttl * MINUTE
        except OverflowError:
            return None

    @property
    def offer(self) -> Offer:
        """What the payer is shown."""
        return Offer(
            checkout_url=self.hosted_checkout_url,
            bolt11=self.lightning_invoice.payreq if self.lightning_invoice else None,
            address=self.address or (self.chain_invoice.address if self.chain_invoice else None),
            expires_at=self.ends_at,
        )

    def to_snapshot(self) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        return PaymentSnapshot(
            vendor_id=self.id,
            status=STATUSES.get(self.status, PaymentStatus.UNKNOWN),
            price=self.price,
            received=self.received,
            attempt_id=self.echo,
            offer=self.offer,
            refunded=self.received if self.status == "refunded" else None,
            fee=Money.from_sat(self.fee) if self.fee else None,
            reason=self.status if self.status in ("refunded", "failed") else "",
        )

    def to_delivery(self) -> Delivery:
        """As the webhook of its present status is."""
        reference = "" if self.order_id in (None, *NOTHING) else str(self.order_id)
        return _delivery(self.id, self.status, reference, body=encode_form({"id": self.id, "status": self.status}))


class One(BaseModel):
    """Every answer about one charge."""

    data: Charge


class Listed(BaseModel):
    """The answer to `GET /charges`, where one charge we cannot read must not hide the others."""

    data: list[object]


class Rates(BaseModel):
    """The answer to `GET /rates`: `{"BTCUSD": {"USD": …}}`, and other things beside it."""

    data: dict[str, dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class OpenNode:
    """Take payments with OpenNode.

    `api_key` is made at app.opennode.com under Integrations, with the permission to create charges ("Invoices"). While
    it is replaced there may be several, newest first: the webhooks of a charge are signed with the one that made it.
    """

    api_key: Secrets
    auto_settle: bool = False
    """Convert what comes into the account's own currency."""
    notify_payer: bool = False
    """Have them send a receipt to the payer's e-mail address; else they never learn it."""
    name: str = "opennode"
    base_url: str = "https://api.opennode.com/v1"

    # No idempotency key and nothing to look an unpaid charge up by: a charge whose answer was lost is an orphan nobody
    # was shown. No cancelling. A refund needs an address of the payer's, and exists for what is underpaid only.
    # Webhooks sign no more than the charge's id, so their address carries our own proof.
    capabilities = Capabilities(
        currencies=None,
        methods=frozenset({Method.LIGHTNING, Method.ON_CHAIN}),
        create_effect=Effect.ONCE,
        revocable=False,
        webhook_trust=WebhookTrust.KEYED_URL,
        minimum_expiry=SHORTEST,
    )
    causes = CAUSES
    private_fields = frozenset({"callback_url", "customer_email", "customer_name", "notif_email", "success_url"})
    scheme = None
    webhook_secrets = None

    @classmethod
    def from_env(cls) -> Self:
        """With OPENNODE_API_KEY from the environment; several keys, newest first, by commas.

        OPENNODE_URL, where it is set, replaces the address of their API.

        Raises:
            MissingCredential: It is unset or empty.
        """
        require_env(
            {
                "OPENNODE_API_KEY": "an API key of OpenNode that may create charges",
            }
        )
        return cls(
            api_key=Secrets.from_env("OPENNODE_API_KEY"),
            base_url=environ.get("OPENNODE_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: everywhere but on this machine, and on their test network."""
        return not (is_loopback(self.base_url) or urlsplit(self.base_url).hostname == TEST_HOST)

    def headers(self) -> Mapping[str, str]:
        return {"authorization": self.api_key.current.reveal()}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"success": false, "message": "…"}`; they have no codes."""
        return read_json_error(response)

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /charges`; from 10 minutes to a day.

        Raises:
            InvalidMoney: A fraction of a satoshi.
        """
        body: dict[str, JsonOut] = {
            **_wire(request.price),
            "description": request.description or request.reference,
            "order_id": request.reference,
            "ttl": min(max(request.expires_in, SHORTEST), LONGEST) // MINUTE,
            "auto_settle": self.auto_settle,
            "metadata": {**request.metadata, ECHO: request.attempt_id},
        }
        if request.webhook_url:
            body["callback_url"] = request.webhook_url
        if request.return_url:
            body["success_url"] = request.return_url
        if self.notify_payer and request.payer and request.payer.email:
            body["notif_email"] = request.payer.email
        effect = self.capabilities.create_effect
        made = await http.post("/charges", One, operation="create", effect=effect, json=body)
        return made.data.to_snapshot()

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /charge/{id}`."""
        return (await http.get(f"/charge/{segment(vendor_id)}", One, operation="fetch")).data.to_snapshot()

    async def quote(self, http: Http, due: Money, *, at: datetime) -> Quote:
        """`GET /rates`: what it is in bitcoin, rounded up to a whole satoshi.

        Raises:
            Refused: They have no rate for it.
        """
        rates = (await http.get("/rates", Rates, operation="quote")).data
        price = rates.get(f"{BTC}{due.currency}", {}).get(due.currency)
        if not isinstance(price, int | Decimal) or price <= 0:
            raise Refused(
                f"{self.name}: quote: there is no rate for {due.currency}",
                provider=self.name,
                operation="quote",
                reason="no_rate",
            )
        return Quote.of(due, _DOWN.divide(Decimal(1), Decimal(price)), BTC, source=self.name, at=at)

    # Webhooks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """A form. `hashed_order` is of the id alone: whoever saw one can write any status beside it."""
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
        id, status, order = form.get("id", ""), form.get("status", ""), form.get("order_id", "")
        if not id or not status:
            raise ValueError("neither a charge's id nor its status")
        reference = "" if order in NOTHING else order
        return [
            _delivery(id, status, reference, body=request.body, proven=self._made(id, form.get("hashed_order", "")))
        ]

    def _made(self, id: str, hashed_order: str) -> bool:
        """Whether the charge was made with one of our keys."""
        given = hashed_order.encode()
        keys = [key.reveal().encode() for key in self.api_key]
        expected = [hmac.new(key, id.encode(), hashlib.sha256).hexdigest().encode() for key in keys]
        return sum(hmac.compare_digest(given, one) for one in expected) > 0  # with each, so that the time tells nothing

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """`GET /charges`, which has those that were paid; what could have been paid since then is told."""
        async for charge in self._charges(http, "list"):
            if charge.status in STATUSES and charge.created_at >= since - LONGEST:
                yield charge.to_delivery()

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """`GET /charges`, which has those that were paid."""
        async for charge in self._charges(http, "statement"):
            if charge.status != "paid" or charge.received is None or not since <= charge.settled_at < until:
                continue
            yield StatementLine(
                kind=LineKind.PAYMENT,
                vendor_id=charge.id,
                payment_id=charge.id,
                money=charge.received,
                at=charge.settled_at,
                fee=Money.from_sat(charge.fee) if charge.fee else None,
                attempt_id=charge.echo,
                reference=charge.to_delivery().reference,
            )

    async def _charges(self, http: Http, operation: str) -> AsyncIterator[Charge]:
        for row in (await http.get("/charges", Listed, operation=operation)).data:
            try:
                yield Charge.model_validate(row)
            except ValidationError:
                continue


def _wire(price: Money) -> dict[str, JsonOut]:
    """Satoshi without a currency, anything else as a JSON number in decimals of its currency."""
    if price.currency == BTC:
        return {"amount": price.sat}
    return {"amount": price.amount, "currency": price.currency}


def _delivery(id: str, status: str, reference: str, *, body: str | bytes, proven: bool = True) -> Delivery:
    key = f"{id}:{status}"
    return Delivery(
        type=status,
        dedup_key=key,
        vendor_id=id,
        reference=reference,
        recognised=status in STATUSES and proven,
        body=body.encode() if isinstance(body, str) else body,
        digest=hashlib.sha256(key.encode()).hexdigest(),
    )
