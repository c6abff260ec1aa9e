"""Coinbase Business: checkouts on a page of theirs, paid in USDC.

Its Checkouts API stands in for Payment Links, whose objects it has under another path, and for Coinbase Commerce:
https://docs.cdp.coinbase.com/coinbase-business/checkout-apis/overview
"""

import base64
import re
import secrets as entropy
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from os import environ
from typing import Annotated, Final, Self, cast
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from holdfast.errors import ConfigurationError, InvalidInput, InvalidMoney, Mismatch, MissingExtra, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_json, one_line, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    RefundRequest,
    RefundSnapshot,
    WebhookTrust,
)
from holdfast.values import USDC, Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacPairs, Verdict

SANDBOX: Final = "https://business.coinbase.com/sandbox/api/v1"
"""Where the same keys move USDC of a test network."""

# https://docs.cdp.coinbase.com/api-reference/business-api/rest-api/checkouts/introduction
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "ACTIVE": PaymentStatus.PENDING,
    "PROCESSING": PaymentStatus.PROCESSING,
    "COMPLETED": PaymentStatus.PAID,
    "PARTIALLY_REFUNDED": PaymentStatus.PAID,
    "REFUNDED": PaymentStatus.PAID,
    "DEACTIVATED": PaymentStatus.CANCELED,
    "EXPIRED": PaymentStatus.EXPIRED,
    "FAILED": PaymentStatus.FAILED,
}
REFUNDS: Final[Mapping[str, RefundStatus]] = {
    "PENDING": RefundStatus.PENDING,
    "COMPLETED": RefundStatus.SUCCEEDED,
    "FAILED": RefundStatus.FAILED,
}
PAID_EVENT: Final = "checkout.payment.success"
FAILED_EVENT: Final = "checkout.payment.failed"
EXPIRED_EVENT: Final = "checkout.payment.expired"
# https://docs.cdp.coinbase.com/coinbase-business/checkout-apis/webhooks
REFUND_EVENTS: Final[Mapping[str, str]] = {"checkout.refund.success": "COMPLETED", "checkout.refund.failed": "FAILED"}
"""The status of the refunds that each tells of."""
EVENTS: Final = frozenset({PAID_EVENT, FAILED_EVENT, EXPIRED_EVENT, *REFUND_EVENTS})

ECHO: Final = "holdfast_attempt"
"""The field of a checkout's metadata that has our attempt's id."""
REFERENCE: Final = "reference"
KEY_USED: Final = "idempotency_error"
HEADER: Final = "x-hook0-signature"
NETWORK: Final = "base"
TOKEN_LIFE: Final = 120
"""Seconds. https://docs.cdp.coinbase.com/get-started/authentication/jwt-authentication"""
KEY_WINDOW: Final = timedelta(hours=24)
"""https://docs.cdp.coinbase.com/api-reference/v2/idempotency"""
LONGEST_TEXT: Final = 500
MOST_HEADERS: Final = 16
"""That a signature covers: each costs us work before we know who sends it."""
PAGE_SIZE: Final = 100
MOST_PAGES: Final = 100
DAY: Final = timedelta(days=1)
ED25519_SIZE: Final = 64
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NOTED_KEY: Final = re.compile(r"\[([0-9a-f]{32})\]\Z", re.ASCII)

CAPABILITIES: Final = Capabilities(
    # https://docs.cdp.coinbase.com/api-reference/business-api/rest-api/checkouts/create-checkout
    currencies=frozenset({USDC, "USD", "EUR", "GBP", "SGD"}),
    methods=frozenset({Method.STABLECOIN}),
    create_effect=Effect.KEYED,
    key_window=KEY_WINDOW,
    lookup=Lookup.AUTHORITATIVE,
    revocable=True,
    refunding=Refunding.API,
    refund_effect=Effect.KEYED,
    refund_key_window=KEY_WINDOW,
    webhook_trust=WebhookTrust.SIGNED_BODY,
)

Amount = Annotated[Decimal, Field(max_digits=40)]


class Wire(BaseModel):
    """Whatever they write is in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class Settlement(Wire):
    """What came of a payment, and what they kept of it."""

    total_amount: Amount
    fee_amount: Amount
    currency: str


class Refund(Wire):
    """One refund of a checkout; what was asked for in another currency than USDC has it beside the USDC."""

    id: str = Field(min_length=1)
    status: str
    amount: Amount
    currency: str = USDC
    reason: str | None = None
    fiat_amount: Amount | None = None
    fiat_currency: str | None = None

    @property
    def key(self) -> str:
        """Ours, which we wrote behind the reason."""
        noted = _NOTED_KEY.search(self.reason or "")
        return noted[1] if noted else ""

    def money(self, currency: str) -> Money | None:
        """What goes back, in this currency; None where it does not say."""
        told = {self.currency: self.amount}
        if self.fiat_currency and self.fiat_amount is not None:
            told[self.fiat_currency] = self.fiat_amount
        return _money(told[currency], currency) if currency in told else None


class Checkout(Wire):
    """A checkout, as answered, listed and delivered."""

    id: str = Field(min_length=1)
    url: str = Field(min_length=1)
    status: str
    amount: Annotated[Decimal, Field(max_digits=40, gt=0)]
    currency: str
    network: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    metadata: Mapping[str, object] | None = None
    settlement: Settlement | None = None
    fiat_amount: Amount | None = None
    """What was asked for, where that was no USDC."""
    fiat_currency: str | None = None
    refunds: list[Refund] | None = None

    @property
    def price(self) -> Money:
        """In the currency it was asked for."""
        if self.fiat_currency and self.fiat_amount is not None:
            return _money(self.fiat_amount, self.fiat_currency)
        return _money(self.amount, self.currency)

    @property
    def received(self) -> Money | None:
        """What came, in the currency of the price at the checkout's own rate, rounded down."""
        if STATUSES.get(self.status) is not PaymentStatus.PAID:
            return None
        if self.settlement is None or self.settlement.currency != self.currency:
            return self.price
        came, due = _money(self.settlement.total_amount, self.currency), _money(self.amount, self.currency)
        return Money.from_minor(self.price.minor_units * came.minor_units // due.minor_units, self.price.currency)

    @property
    def refunded(self) -> Money | None:
        """What went back, in the currency of the price; None where it does not say."""
        currency = self.price.currency
        back = [refund.money(currency) for refund in self.refunds or () if refund.status == "COMPLETED"]
        total = sum(money.minor_units for money in back if money)
        return Money.from_minor(total, currency) if back and None not in back else None

    def echo(self, name: str) -> str:
        """What we sent along, as it comes back."""
        found = (self.metadata or {}).get(name)
        return found if isinstance(found, str) else ""

    def to_snapshot(self) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        status = STATUSES.get(self.status, PaymentStatus.UNKNOWN)
        kept = self.settlement
        return PaymentSnapshot(
            vendor_id=self.id,
            status=status,
            price=self.price,
            received=self.received,
            attempt_id=self.echo(ECHO),
            offer=Offer(checkout_url=self.url, expires_at=self.expires_at),
            refunded=self.refunded,
            fee=_money(kept.fee_amount, kept.currency) if kept else None,
            reason=self.status if status is PaymentStatus.FAILED else "",
        )


class Refunded(Wire):
    """The answer to a refund."""

    refund: Refund


class Page(Wire):
    """A page of the list; one checkout that we cannot read must not hide the others."""

    checkouts: list[object]
    next_page_token: str | None = None

    def read(self) -> list[tuple[Checkout, object]]:
        """Those that can be read, each with its own text."""
        found: list[tuple[Checkout, object]] = []
        for row in self.checkouts:
            try:
                found.append((Checkout.model_validate(row), row))
            except ValidationError:
                continue
        return found


class Ended(BaseModel):
    """A refund, of which an event needs to know no more."""

    id: str = ""
    status: str = ""


class Event(Wire):
    """A webhook: the checkout as it is then, and what happened to it."""

    event_type: str
    id: str = Field(min_length=1)
    metadata: Mapping[str, object] | None = None
    refunds: list[Ended] | None = None

    @property
    def dedup_key(self) -> str:
        """The payment of a checkout ends once; refunds are told apart by those that ended the same way by then."""
        key = f"{self.event_type}:{self.id}"
        if self.event_type not in REFUND_EVENTS:
            return key
        ended = REFUND_EVENTS[self.event_type]
        ids = sorted(refund.id for refund in self.refunds or () if refund.status == ended)
        return f"{key}:{sha256(' '.join(ids).encode()).hexdigest()[:32]}"

    def to_delivery(self, body: bytes) -> Delivery:
        """A hint of what to look at."""
        told = {name: value for name, value in (self.metadata or {}).items() if isinstance(value, str)}
        return Delivery(
            type=self.event_type,
            dedup_key=self.dedup_key,
            vendor_id=self.id,
            reference=told.get(REFERENCE, ""),
            recognised=self.event_type in EVENTS,
            body=body,
            digest=sha256(self.dedup_key.encode()).hexdigest(),
            facts={"attempt_id": told[ECHO]} if ECHO in told else None,
        )


@dataclass(frozen=True, slots=True)
class Hook0Signature:
    """`X-Hook0-Signature: t=<seconds>,h=<names>,v1=<hex>`: an HMAC of time, the headers named, and the raw body.

    Where there is no `v1`, `v0` covers the time and the body; beside a wrong `v1` a right one counts for nothing.
    https://docs.cdp.coinbase.com/webhooks/verify-signatures
    """

    tolerance: float = 300

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        pairs = [pair.strip().partition("=") for pair in (request.header(HEADER) or "").split(",")]
        if not any(name == "v1" for name, _, _ in pairs):
            return HmacPairs(HEADER, signature="v0", tolerance=self.tolerance).verify(request, secrets)
        covered = [value for name, _, value in pairs if name == "h"]
        values = self._values(request, covered[0].split(" ")) if len(covered) == 1 else _malformed("has not one h=")
        if isinstance(values, Verdict):
            return values
        signed = f"{{timestamp}}.{covered[0]}.{'.'.join(values)}.{{body}}"
        return HmacPairs(HEADER, signed=signed, tolerance=self.tolerance).verify(request, secrets)

    def _values(self, request: RawRequest, names: Sequence[str]) -> list[str] | Verdict:
        """What the headers say, in the order in which they are named."""
        if len(names) > MOST_HEADERS or not all(_HEADER_NAME.fullmatch(name) for name in names):
            return _malformed("names what no header is called, or too many")
        found: list[str] = []
        for name in names:
            values = set(request.all(name))
            if not values:
                hint = f"{name} is signed and did not arrive: a proxy dropped the header"
                return Verdict(valid=False, reason="missing_header", hint=hint)
            value = values.pop()
            # A brace would be taken for one of ours, where the text to be signed is put together.
            if values or not value.isascii() or "{" in value:
                return _malformed(f"signs {name}, which came twice or holds what it never does")
            found.append(value)
        return found


@dataclass(frozen=True, kw_only=True)
class Coinbase:
    """Take payments in USDC with Coinbase Business.

    `api_key_id` and `api_key_secret` are a Secret API key of portal.cdp.coinbase.com, Ed25519 or ECDSA, in the form in
    which it is given out. Every request carries a token of its own, signed with it. `webhook_secret` is the secret of
    the webhook subscription.

    Raises:
        MissingExtra: The extra `jwt` is not installed.
        ConfigurationError: The key's secret is neither kind of key.
    """

    api_key_id: str
    api_key_secret: Secret
    webhook_secret: Secrets
    currencies: frozenset[str] = field(default_factory=lambda: CAPABILITIES.currencies or frozenset())
    """In which your account may ask; whichever it is, USDC comes in."""
    name: str = "coinbase"
    base_url: str = "https://business.coinbase.com/api/v1"
    capabilities: Capabilities = field(init=False, repr=False, compare=False, default=CAPABILITIES)

    _key: object = field(init=False, repr=False, compare=False)
    _algorithm: str = field(init=False, repr=False, compare=False)

    # Which answers may say that a key was used with other parameters is not told; something exists under it then.
    causes = CAUSES | dict.fromkeys([(400, KEY_USED), (409, KEY_USED), (422, KEY_USED)], Cause.UNKNOWN)
    scheme = Hook0Signature()
    private_fields = frozenset({"address", "description", "failRedirectUrl", "successRedirectUrl", "url", "x402_url"})

    def __post_init__(self) -> None:
        key, algorithm = _load(self.name, self.api_key_secret)  # parsed once: it costs more than signing
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_algorithm", algorithm)
        object.__setattr__(self, "capabilities", replace(CAPABILITIES, currencies=frozenset(self.currencies)))

    @classmethod
    def from_env(cls) -> Self:
        """With CDP_API_KEY_ID, CDP_API_KEY_SECRET and COINBASE_WEBHOOK_SECRET from the environment.

        Line ends in the key may be written as `\\n`. Where they are set, COINBASE_CURRENCIES are those your account
        may ask in, by commas, and COINBASE_URL replaces the address of their API, with that of the sandbox for one.

        Raises:
            MissingCredential: One of the three is unset or empty.
        """
        require_env(
            {
                "CDP_API_KEY_ID": "the id of your Secret API key at Coinbase",
                "CDP_API_KEY_SECRET": "that key",
                "COINBASE_WEBHOOK_SECRET": "the secret of the webhook subscription",
            }
        )
        currencies = [text.strip() for text in environ.get("COINBASE_CURRENCIES", "").split(",") if text.strip()]
        return cls(
            api_key_id=secret_from_env("CDP_API_KEY_ID").reveal(),
            api_key_secret=Secret(secret_from_env("CDP_API_KEY_SECRET").reveal().replace("\\n", "\n")),
            webhook_secret=Secrets.from_env("COINBASE_WEBHOOK_SECRET"),
            currencies=frozenset(currencies or CAPABILITIES.currencies or ()),
            base_url=environ.get("COINBASE_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: neither on this machine nor in their sandbox."""
        return not (is_loopback(self.base_url) or urlsplit(self.base_url).path.startswith("/sandbox/"))

    @property
    def webhook_secrets(self) -> Secrets:
        return self.webhook_secret

    def headers(self) -> Mapping[str, str]:
        return {}

    def sign(self, method: str, url: str, content: bytes, now: datetime) -> Mapping[str, str]:
        """A token for this one request, good for two minutes.

        Their pages write what it is for as `uri`, their SDK as the list `uris`:
        https://docs.cdp.coinbase.com/coinbase-business/authentication-authorization/api-key-authentication,
        https://github.com/coinbase/cdp-sdk/blob/main/python/cdp/auth/utils/jwt.py
        """
        asked, at = urlsplit(url), int(now.timestamp())
        uri = f"{method} {asked.netloc}{asked.path}"
        claims: dict[str, object] = {
            "iss": "cdp",
            "sub": self.api_key_id,
            "nbf": at,
            "exp": at + TOKEN_LIFE,
            "uri": uri,
            "uris": [uri],
        }
        return {"authorization": f"Bearer {_jwt(claims, self._key, self._algorithm, self.api_key_id)}"}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"errorType": "…", "errorMessage": "…"}`, or `{"errors": [{"id": "…", "message": "…"}]}`."""
        try:
            body = decode_json(response.content)
        except ValueError:
            return VendorError()
        said = body if isinstance(body, dict) else {}
        listed = said.get("errors")
        first = listed[0] if isinstance(listed, list) and listed else None
        told = first if isinstance(first, dict) else {}
        code, message = said.get("errorType") or told.get("id"), said.get("errorMessage") or told.get("message")
        return VendorError(
            code=one_line(code) if isinstance(code, str) else "",
            message=one_line(message) if isinstance(message, str) else "",
        )

    # Payments.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /checkouts`.

        Raises:
            InvalidMoney: Another currency than theirs, or more than two decimals, also of USDC.
        """
        body: dict[str, JsonOut] = {
            **self._wire(request.price),
            "description": (request.description or request.reference)[:LONGEST_TEXT],
            "expiresAt": f"{request.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "metadata": {**request.metadata, REFERENCE: request.reference, ECHO: request.attempt_id},
        }
        if request.return_url:
            body |= {"successRedirectUrl": request.return_url, "failRedirectUrl": request.return_url}
        made = await http.post(
            "/checkouts",
            Checkout,
            operation="create",
            effect=Effect.KEYED,
            json=body,
            headers=_keyed(request.attempt_id),
            key_valid=request.key_valid,
        )
        if made.echo(ECHO) != request.attempt_id:
            raise Mismatch(f"asked for {request.attempt_id}, got checkout {made.id} of another", operation="create")
        return self._snapshot(made)

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /checkouts/{id}`."""
        return self._snapshot(await self._fetch(http, vendor_id, "fetch"))

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """`GET /checkouts`, page by page, for the one that has our attempt's id in its metadata."""
        async for checkout, _ in self._listed(http, "find", attempt.claimed_at - DAY):
            if checkout.echo(ECHO) == attempt.id:
                return self._snapshot(checkout)
        return None

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /checkouts/{id}/deactivate`, then the checkout; only an active one lets itself be deactivated."""
        path = f"/checkouts/{segment(attempt.vendor_id)}/deactivate"
        try:
            await http.post(path, None, operation="revoke", effect=Effect.IDEMPOTENT)
        except Rejected:
            return await self.fetch(http, attempt.vendor_id)  # it has ended, or is being paid, or the answer says why
        return await self.fetch(http, attempt.vendor_id)

    # Refunds.

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """`POST /checkouts/{id}/refund`; our key is behind the reason too, so that it is found when theirs is gone."""
        noted = f"{request.reason[: LONGEST_TEXT - len(request.key) - 3]} [{request.key}]".lstrip()
        made = await http.post(
            f"/checkouts/{segment(request.vendor_id)}/refund",
            Refunded,
            operation="refund",
            effect=Effect.KEYED,
            json=self._wire(request.money) | {"reason": noted},
            headers=_keyed(request.key),
            key_valid=request.key_valid,
        )
        return _refund(made.refund, request)

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """Of `GET /checkouts/{id}`, which tells all its refunds.

        Raises:
            Rejected: It has no such refund.
        """
        for refund in await self._refunds(http, request, "fetch_refund"):
            if refund.id == vendor_id:
                return _refund(refund, request)
        raise Rejected(
            f"{self.name}: fetch_refund: checkout {request.vendor_id} has no refund {vendor_id}",
            provider=self.name,
            operation="fetch_refund",
            status=404,
        )

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """The same by our own key."""
        found = [one for one in await self._refunds(http, request, "find_refund") if one.key == request.key]
        return _refund(found[0], request) if found else None

    async def _refunds(self, http: Http, request: RefundRequest, operation: str) -> list[Refund]:
        return (await self._fetch(http, request.vendor_id, operation)).refunds or []

    # Webhooks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """One event."""
        return [Event.model_validate(decode_json(request.body)).to_delivery(request.body)]

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """`GET /checkouts`: what the webhooks told of those that changed since then."""
        async for checkout, row in self._listed(http, "list", since - DAY):
            if (checkout.updated_at or checkout.created_at) < since or not checkout.echo(ECHO):
                continue
            for name in _events(checkout):
                told = cast(dict[str, JsonOut], row) | {"eventType": name}
                yield Event.model_validate(told).to_delivery(encode_json(told))

    # Small things.

    async def _fetch(self, http: Http, vendor_id: str, operation: str) -> Checkout:
        found = await http.get(f"/checkouts/{segment(vendor_id)}", Checkout, operation=operation)
        if found.id != vendor_id:
            raise Mismatch(f"asked for {vendor_id}, got {found.id}", operation=operation)
        return found

    async def _listed(self, http: Http, operation: str, since: datetime) -> AsyncIterator[tuple[Checkout, object]]:
        """Those made since then.

        No page says in which order they are listed; where it is seen to be the newest first, the list is left where it
        gets older than that.
        """
        params: dict[str, str | int] = {"pageSize": PAGE_SIZE}
        for _ in range(MOST_PAGES):
            page = await http.get("/checkouts", Page, operation=operation, params=params)
            found = page.read()
            for checkout, row in found:
                if checkout.created_at >= since:
                    yield checkout, row
            times = [checkout.created_at for checkout, _ in found]
            if not page.next_page_token or (times and times[0] > times[-1] and times[-1] < since):
                return
            params["pageToken"] = page.next_page_token

    def _snapshot(self, checkout: Checkout) -> PaymentSnapshot:
        """Raises Mismatch: real money on another network than the one there is."""
        if self.live and checkout.network is not None and checkout.network.lower() != NETWORK:
            raise Mismatch(f"checkout {checkout.id} is paid on {checkout.network}, not {NETWORK}", reason="network")
        return checkout.to_snapshot()

    def _wire(self, money: Money) -> dict[str, JsonOut]:
        """A decimal text with two decimals."""
        if money.currency not in self.currencies:
            raise InvalidMoney(f"{self.name} is not asked for {money.currency}; see currencies=")
        text = f"{money.amount:.2f}"
        if Money(text, money.currency) != money:
            raise InvalidMoney(f"{self.name} takes two decimals, and {money} has more; round it yourself")
        return {"amount": text, "currency": money.currency}


def _events(checkout: Checkout) -> list[str]:
    """The webhooks that told how it is."""
    statuses = {refund.status for refund in checkout.refunds or ()}
    told = [name for name, ended in REFUND_EVENTS.items() if ended in statuses]
    match STATUSES.get(checkout.status):
        case PaymentStatus.PAID:
            return [PAID_EVENT, *told]
        case PaymentStatus.FAILED:
            return [FAILED_EVENT]
        case PaymentStatus.EXPIRED:
            return [EXPIRED_EVENT]
        case _:
            return []


def _refund(refund: Refund, request: RefundRequest) -> RefundSnapshot:
    """In our words. Raises Mismatch: it is of other money."""
    money = refund.money(request.money.currency)
    if money not in (None, request.money):
        raise Mismatch(f"refund {refund.id} is of {money}, not {request.money}", reason="amount")
    status = REFUNDS.get(refund.status, RefundStatus.UNKNOWN)
    return RefundSnapshot(vendor_id=refund.id, status=status, money=money, key=refund.key)


def _money(amount: Decimal, currency: str) -> Money:
    try:
        return Money(amount, currency)
    except InvalidInput as error:
        raise Mismatch(f"an amount that we cannot read: {error}", reason="amount") from error


def _keyed(key: str) -> dict[str, str]:
    """They take no key but a UUID of version 4."""
    return {"x-idempotency-key": str(UUID(hex=key, version=4))}


def _malformed(what: str) -> Verdict:
    return Verdict(valid=False, reason="malformed_header", hint=f"{HEADER} {what}")


def _load(name: str, secret: Secret) -> tuple[object, str]:
    """The key and what it signs with: 64 bytes of Ed25519 in base64, or an EC key in PEM."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingExtra("jwt") from error
    text = secret.reveal().strip()
    try:
        if text.startswith("-----"):
            key = load_pem_private_key(text.encode(), password=None)
            if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
                return key, "ES256"
        elif len(raw := base64.b64decode(text, validate=True)) == ED25519_SIZE:
            return Ed25519PrivateKey.from_private_bytes(raw[: ED25519_SIZE // 2]), "EdDSA"  # the public half follows
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass  # what is wrong with it may quote the key
    raise ConfigurationError(f"{name}: api_key_secret is neither an Ed25519 key in base64 nor an ECDSA key in PEM")


def _jwt(claims: dict[str, object], key: object, algorithm: str, kid: str) -> str:
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("jwt") from error
    headers = {"kid": kid, "nonce": entropy.token_hex(16)}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)  # type: ignore[arg-type]  # see _load
