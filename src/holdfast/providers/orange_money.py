"""Orange Money Web Payment: a page of theirs on which a mobile money wallet pays."""

import hashlib
from base64 import b32decode, b32encode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from os import environ
from typing import Final, Self

from pydantic import BaseModel, Field

from holdfast.errors import ConfigurationError, InvalidInput, InvalidMoney, Mismatch
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.tokens import Token
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, read_json_error
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Method, Offer, PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup, OfferRequest, PaymentSnapshot, WebhookTrust
from holdfast.values import Money, Secret, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest

SANDBOX: Final = "dev"
SANDBOX_CURRENCY: Final = "OUV"
"""No money of any country: what is due in the sandbox is due in it, whatever it is called on our side."""
# The countries whose currency has no decimals. https://developer.orange.com/apis/om-webpay
CURRENCIES: Final[Mapping[str, str]] = {
    "bf": "XOF",
    "cf": "XAF",
    "ci": "XOF",
    "cm": "XAF",
    "gn": "GNF",
    "gw": "XOF",
    "ml": "XOF",
    "sn": "XOF",
    SANDBOX: "XOF",
}
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "INITIATED": PaymentStatus.PENDING,
    "PENDING": PaymentStatus.PROCESSING,
    "EXPIRED": PaymentStatus.EXPIRED,
    "SUCCESS": PaymentStatus.PAID,
    "FAILED": PaymentStatus.FAILED,
}
PAGE: Final = timedelta(minutes=10)
"""How long a page can be paid."""
LONGEST_NAME: Final = 30
LONGEST_URL: Final = 120
CAPABILITIES: Final = Capabilities(
    currencies=frozenset(CURRENCIES.values()),
    methods=frozenset({Method.MOBILE_MONEY}),
    create_effect=Effect.ONCE,
    # They tell how an order stands only to who has its token, which is lost with the answer.
    lookup=Lookup.NONE,
    webhook_trust=WebhookTrust.KEYED_URL,
    minimum_expiry=PAGE,
)


class Issued(BaseModel):
    """The answer to `POST /oauth/v3/token`."""

    access_token: str = Field(min_length=1, repr=False)
    expires_in: int


class WebPayment(BaseModel):
    """The answer to `POST /webpayment`; its `notif_token` comes back in the notification."""

    pay_token: str = Field(min_length=1, repr=False)
    payment_url: str = Field(min_length=1)


class TransactionStatus(BaseModel):
    """The answer to `POST /transactionstatus`."""

    status: str
    order_id: str = ""


class Notification(BaseModel):
    """What they tell; it names no order, only the token they gave it."""

    status: str
    notif_token: str = Field(min_length=1, repr=False)
    txnid: str | None = None


@dataclass(frozen=True, kw_only=True)
class OrangeMoney:
    """Take payments from Orange Money wallets.

    `client_id` and `client_secret` are those of an app at developer.orange.com with the API Orange Money Web Payment;
    `merchant_key` is shown once the merchant account is confirmed. `country` is `gn`, `ci`, `sn` …, or `dev` for the
    sandbox.
    """

    client_id: str
    client_secret: Secret
    merchant_key: Secret
    country: str
    merchant: str = ""
    """The name on the page, of 30 characters; by default the payment's reference."""
    home_url: str = ""
    """Where a payer goes back to, for payments without a `return_url`: they want one."""
    language: str = "fr"
    currency: str = ""
    """Where it is not that of the country, or the country is none of those we know."""
    name: str = "orange-money"
    base_url: str = "https://api.orange.com"
    capabilities: Capabilities = field(init=False, repr=False, compare=False, default=CAPABILITIES)

    # https://developer.orange.com/resources/orange-apis-error-handling: 25 requests a second, counted before anything
    # else is looked at; of 403 the other codes say that the app may not.
    causes = CAUSES | {403: Cause.CREDENTIAL, (403, "53"): Cause.THROTTLED}
    scheme = None
    webhook_secrets = None
    private_fields = frozenset({"merchant_key", "notif_token", "pay_token", "payment_url"})

    def __post_init__(self) -> None:
        """Raises ConfigurationError: the country is none we know, and no currency is given."""
        currency = self.currency or CURRENCIES.get(self.country)
        if not currency:
            raise ConfigurationError(f"{self.name}: we know no currency of {self.country}; give it one with currency=")
        object.__setattr__(self, "capabilities", replace(CAPABILITIES, currencies=frozenset({currency})))

    @classmethod
    def from_env(cls) -> Self:
        """With ORANGE_CLIENT_ID, ORANGE_CLIENT_SECRET, ORANGE_MERCHANT_KEY and ORANGE_COUNTRY from the environment.

        Where they are set, ORANGE_MERCHANT, ORANGE_HOME_URL and ORANGE_CURRENCY are `merchant`, `home_url` and
        `currency`, and ORANGE_URL replaces the address of their API.

        Raises:
            MissingCredential: One of them is unset or empty.
            ConfigurationError: The country is none we know, and no currency is given.
        """
        require_env(
            {
                "ORANGE_CLIENT_ID": "the client id of your app at Orange",
                "ORANGE_CLIENT_SECRET": "the app's client secret",
                "ORANGE_MERCHANT_KEY": "the key of your Orange Money merchant account",
                "ORANGE_COUNTRY": "gn, ci, sn, ml, cm, ..., or dev for the sandbox",
            }
        )
        return cls(
            client_id=secret_from_env("ORANGE_CLIENT_ID").reveal(),
            client_secret=secret_from_env("ORANGE_CLIENT_SECRET"),
            merchant_key=secret_from_env("ORANGE_MERCHANT_KEY"),
            country=secret_from_env("ORANGE_COUNTRY").reveal(),
            merchant=environ.get("ORANGE_MERCHANT", "").strip(),
            home_url=environ.get("ORANGE_HOME_URL", "").strip(),
            currency=environ.get("ORANGE_CURRENCY", "").strip(),
            base_url=environ.get("ORANGE_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: in every country, and neither in the sandbox nor on this machine."""
        return self.country != SANDBOX and not is_loopback(self.base_url)

    def headers(self) -> Mapping[str, str]:
        return {}  # the token is put in by the connection

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"code": 41, "message": "…", "description": "…"}`."""
        return read_json_error(response)

    # The token.

    def token_scope(self) -> str:
        return self.client_id

    async def fetch_token(self, http: Http) -> Token:
        """`POST /oauth/v3/token`."""
        credentials = b64encode(f"{self.client_id}:{self.client_secret.reveal()}".encode()).decode()
        issued = await http.post(
            "/oauth/v3/token",
            Issued,
            operation="token",
            effect=Effect.IDEMPOTENT,
            form={"grant_type": "client_credentials"},
            headers={"authorization": f"Basic {credentials}"},
        )
        return Token(value=Secret(issued.access_token), expires_in=issued.expires_in)

    # Payments.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /webpayment`: a page that can be paid for ten minutes, and no longer whatever was asked for.

        Raises:
            InvalidInput: No address to go back to, or one that is too long for them.
            InvalidMoney: A fraction, or another currency than the country's.
        """
        if request.price.currency not in (self.capabilities.currencies or ()):
            raise InvalidMoney(f"{self.name} has one currency in {self.country}, and {request.price} is in another")
        order_id, amount = order_id_of(request.attempt_id), _whole(request.price)
        home = _url(request.return_url or self.home_url, "return_url, or home_url of the provider,")
        body: dict[str, JsonOut] = {
            "merchant_key": self.merchant_key.reveal(),
            "currency": SANDBOX_CURRENCY if self.country == SANDBOX else request.price.currency,
            "order_id": order_id,
            "amount": amount,
            "return_url": home,
            "cancel_url": home,
            # They insist on one. Where there is no door of ours, nobody reads it, and the order is looked at instead.
            "notif_url": _url(request.webhook_url or home, "the public_url of the hub"),
            "lang": self.language,
            "reference": (self.merchant or request.reference)[:LONGEST_NAME],
        }
        made = await http.post(self._path("webpayment"), WebPayment, operation="create", effect=Effect.ONCE, json=body)
        begun = request.expires_at - request.expires_in
        return PaymentSnapshot(
            vendor_id=f"{order_id}:{amount}:{made.pay_token}",
            status=PaymentStatus.PENDING,
            attempt_id=request.attempt_id,
            offer=Offer(checkout_url=made.payment_url, expires_at=min(begun + PAGE, request.expires_at)),
        )

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`POST /transactionstatus`, which only looks; order, amount and token have to fit one another there.

        Raises:
            Mismatch: It is another order.
        """
        order_id, amount, pay_token = vendor_id.split(":", 2)
        found = await http.post(
            self._path("transactionstatus"),
            TransactionStatus,
            operation="fetch",
            effect=Effect.READ,
            json={"order_id": order_id, "amount": int(amount), "pay_token": pay_token},
        )
        if found.order_id not in ("", order_id):
            raise Mismatch(f"asked for order {order_id}, got {found.order_id}", operation="fetch")
        [currency] = self.capabilities.currencies or frozenset()
        status = STATUSES.get(found.status, PaymentStatus.UNKNOWN)
        return PaymentSnapshot(
            vendor_id=vendor_id,
            status=status,
            received=Money(int(amount), currency) if status is PaymentStatus.PAID else None,
            attempt_id=attempt_of(order_id),
        )

    # Notifications.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """Which order it is about, our own proof in the address says; their token is kept as a digest only."""
        told = Notification.model_validate(decode_json(request.body))
        about = hashlib.sha256(told.notif_token.encode()).hexdigest()
        return [
            Delivery(
                type=told.status,
                dedup_key=f"{about}:{told.status}",
                recognised=told.status in STATUSES,
                body=request.body,
            )
        ]

    def _path(self, verb: str) -> str:
        return f"/orange-money-webpay/{self.country}/v1/{verb}"


def order_id_of(attempt_id: str) -> str:
    """The attempt's id in 26 characters: they take 30, and it has 32."""
    return b32encode(bytes.fromhex(attempt_id)).decode().rstrip("=").lower()


def attempt_of(order_id: str) -> str:
    """The attempt's id again. Raises ValueError: it is none of our orders."""
    return b32decode(order_id.upper() + "=" * (-len(order_id) % 8)).hex()


def _whole(price: Money) -> int:
    amount = int(price.amount)
    if amount != price.amount:
        raise InvalidMoney(f"Orange Money takes whole amounts, and {price} is none")
    return amount


def _url(url: str, what: str) -> str:
    if not url or len(url) > LONGEST_URL:
        raise InvalidInput(f"Orange Money wants {what} to make an address of at most {LONGEST_URL} characters")
    return url
