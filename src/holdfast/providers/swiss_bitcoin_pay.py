"""Swiss Bitcoin Pay: Lightning and on-chain checkout, priced in fiat or bitcoin."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from os import environ
from typing import Final, Self

from pydantic import BaseModel, Field

from holdfast.errors import InvalidInput, Mismatch
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_json, read_json_error, segment
from holdfast.outcome import Effect
from holdfast.payments.models import Offer, PaymentStatus
from holdfast.payments.provider import Capabilities, OfferRequest, PaymentSnapshot, WebhookTrust
from holdfast.values import BTC, Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody

# Their documentation says `paid`, every official plugin expects `settled`: both are meant.
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "draft": PaymentStatus.PENDING,
    "open": PaymentStatus.PENDING,
    "unconfirmed": PaymentStatus.PROCESSING,
    "underpaid": PaymentStatus.PARTIALLY_PAID,
    "settled": PaymentStatus.PAID,
    "paid": PaymentStatus.PAID,
    "expired": PaymentStatus.EXPIRED,
    "canceled": PaymentStatus.CANCELED,
    "reserved": PaymentStatus.PROCESSING,
    "paying": PaymentStatus.PROCESSING,
}
MINUTE: Final = timedelta(minutes=1)


class Created(BaseModel):
    """The answer to `POST /checkout`."""

    id: str = Field(min_length=1)
    pr: str | None = None
    checkout_url: str | None = Field(alias="checkoutUrl", default=None)
    on_chain_address: str | None = Field(alias="onChainAddr", default=None)


class Input(BaseModel):
    """The price, as it was asked for."""

    unit: str
    amount: Decimal


class Detail(BaseModel):
    """One way in which money came, or may come."""

    amount: Decimal | None = None
    """In satoshi."""
    paid_at: int | None = Field(alias="paidAt", default=None)


class Extra(BaseModel):
    """What we sent along, echoed."""

    reference: str = ""
    attempt: str = ""


class Checkout(BaseModel):
    """A checkout, as read and as delivered; servers answer in either of two shapes.

    The boolean shape (their 1.2.1) has `amount` in `unit`, `isPaid` and `isExpired`; the status shape (1.3.0) has
    `amount` in satoshi, the price in `input`, and `status`.
    """

    id: str = ""
    status: str | None = None
    amount: Decimal | None = None
    unit: str | None = None
    input: Input | None = None
    details: list[Detail] = Field(alias="paymentDetails", default=[])
    is_paid: bool = Field(alias="isPaid", default=False)
    is_expired: bool = Field(alias="isExpired", default=False)
    is_pending: bool = Field(alias="isPending", default=False)
    id_pending: bool = Field(alias="idPending", default=False)  # spelt so in be-BOP's client
    extra: Extra | None = None

    @property
    def word(self) -> str:
        """The status in the words of the status shape."""
        if self.status is not None:
            return self.status
        if self.is_paid:
            return "paid"
        if self.is_expired:
            return "expired"
        return "unconfirmed" if self.is_pending or self.id_pending else "open"

    @property
    def price(self) -> Money | None:
        """What is due; None where the answer does not name a unit."""
        if self.input is not None:
            return _money(self.input.amount, self.input.unit)
        if self.amount is not None and self.unit is not None:
            return _money(self.amount, self.unit)
        return None

    @property
    def received(self) -> Money | None:
        """What came in, in the currency of the price; at the checkout's own rate, rounded down."""
        price, status = self.price, STATUSES.get(self.word)
        came = sum((detail.amount for detail in self.details if detail.paid_at and detail.amount), Decimal(0))
        if price is None or status not in (PaymentStatus.PAID, PaymentStatus.PARTIALLY_PAID):
            return None
        if self.input is None or not self.amount or not came:
            return price if status is PaymentStatus.PAID else None
        share = int((price.minor_units * came / self.amount).to_integral_value(ROUND_DOWN))
        return Money.from_minor(
            max(share, price.minor_units) if status is PaymentStatus.PAID else share, price.currency
        )

    def to_snapshot(self, vendor_id: str) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        return PaymentSnapshot(
            vendor_id=self.id or vendor_id,
            status=STATUSES.get(self.word, PaymentStatus.UNKNOWN),
            price=self.price,
            received=self.received,
            attempt_id=self.extra.attempt if self.extra else "",
        )


@dataclass(frozen=True, kw_only=True)
class SwissBitcoinPay:
    """Take payments with Swiss Bitcoin Pay.

    `api_key` and `webhook_secret` are in the dashboard at dashboard.swiss-bitcoin-pay.ch; the secret is there called
    HMAC or API secret. It never asks them to e-mail the payer.
    """

    api_key: Secret
    webhook_secret: Secrets
    name: str = "swiss-bitcoin-pay"
    base_url: str = "https://api.swiss-bitcoin-pay.ch"
    on_chain: bool = False
    """Also offer an address, paid after one confirmation."""

    # They publish no list of their fiat units, hence None. There is no idempotency key, no search and no way to
    # cancel: a lost answer to `POST /checkout` leaves an offer nobody was shown.
    capabilities = Capabilities(
        currencies=None, create_effect=Effect.ONCE, revocable=False, webhook_trust=WebhookTrust.SIGNED_BODY
    )
    causes = CAUSES
    private_fields = frozenset({"extra", "onChainAddr", "title"})
    scheme = HmacBody(header="sbp-sig", prefix="sha256=")

    @classmethod
    def from_env(cls) -> Self:
        """With SBP_API_KEY and SBP_WEBHOOK_SECRET from the environment; several secrets, newest first, by commas.

        SBP_URL, where it is set, replaces the address of their API.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "SBP_API_KEY": "the API key of your Swiss Bitcoin Pay account",
                "SBP_WEBHOOK_SECRET": "its HMAC secret, which signs webhooks",
            }
        )
        return cls(
            api_key=secret_from_env("SBP_API_KEY"),
            webhook_secret=Secrets.from_env("SBP_WEBHOOK_SECRET"),
            base_url=environ.get("SBP_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: they have no sandbox, so everywhere but on this machine."""
        return not is_loopback(self.base_url)

    @property
    def webhook_secrets(self) -> Secrets:
        return self.webhook_secret

    def headers(self) -> Mapping[str, str]:
        return {"api-key": self.api_key.reveal()}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"reason": "…"}`, in words or as the key of a translation."""
        return read_json_error(response)

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /checkout`.

        Raises:
            InvalidMoney: A fraction of a satoshi.
        """
        minutes = max(request.expires_in // MINUTE, 1)
        amount, unit = _wire(request.price)
        body: dict[str, JsonOut] = {
            "title": request.description or request.reference,
            "amount": amount,
            "unit": unit,
            "delay": minutes,
            "onChain": self.on_chain,
            "extra": {"reference": request.reference, "attempt": request.attempt_id},
        }
        if request.webhook_url:
            body["webhook"] = {"url": request.webhook_url}
        if request.return_url:
            body["redirectAfterPaid"] = request.return_url
        content = encode_json(body)
        created = await http.post(
            "/checkout",
            Created,
            operation="create",
            effect=Effect.ONCE,
            content=content,
            headers={"content-type": "application/json", "sbp-sig": self._signature(content)},
        )
        offer = Offer(
            checkout_url=created.checkout_url,
            bolt11=created.pr,
            address=created.on_chain_address,
            expires_at=request.expires_at - request.expires_in + minutes * MINUTE,
        )
        return PaymentSnapshot(vendor_id=created.id, status=PaymentStatus.PENDING, offer=offer)

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /checkout/{id}`."""
        checkout = await http.get(f"/checkout/{segment(vendor_id)}", Checkout, operation="fetch")
        return checkout.to_snapshot(vendor_id)

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """The whole checkout, without an event's id or time: the same bytes are the same happening."""
        checkout = Checkout.model_validate(decode_json(request.body))
        digest = hashlib.sha256(request.body).hexdigest()
        return [
            Delivery(
                type=checkout.word,
                dedup_key=f"{checkout.id}:{checkout.word}:{digest}",
                vendor_id=checkout.id,
                reference=checkout.extra.reference if checkout.extra else "",
                recognised=checkout.word in STATUSES,
                body=request.body,
            )
        ]

    def _signature(self, content: bytes) -> str:
        # Requests may be signed as webhooks are: their wix-plugin does; `isCheckoutSecure` accounts may insist on it.
        secret = self.webhook_secret.current.reveal().encode()
        return f"sha256={hmac.new(secret, content, hashlib.sha256).hexdigest()}"


def _wire(price: Money) -> tuple[Decimal | int, str]:
    """The amount as a JSON number in decimals of its unit, never in minor units; bitcoin in whole satoshi."""
    return (price.sat, "sat") if price.currency == BTC else (price.amount, price.currency)


def _money(amount: Decimal, unit: str) -> Money:
    try:
        if unit.lower() in ("sat", "sats"):
            return Money(amount.scaleb(-8), BTC)
        return Money(amount, unit.upper())
    except InvalidInput as error:
        raise Mismatch(f"the checkout has a price we cannot read: {error}", operation="fetch") from error
