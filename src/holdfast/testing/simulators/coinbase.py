"""Coinbase Business, simulated: checkouts in USDC, a signed token for each request, refunds, signed events.

https://docs.cdp.coinbase.com/api-reference/business-api/rest-api/checkouts/introduction
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from re import ASCII, compile
from typing import TYPE_CHECKING, ClassVar, Final, cast
from urllib.parse import urlsplit
from uuid import UUID

from holdfast.clock import Clock
from holdfast.errors import MissingExtra
from holdfast.testing.faults import Faults, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.idempotency import Conflict, IdempotencyKeys
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route
from holdfast.values import USDC, Money

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PRICES: Final[Mapping[str, Decimal]] = {
    **{USDC: Decimal(1), "USD": Decimal(1), "EUR": Decimal("1.0857")},
    **{"GBP": Decimal("1.2641"), "SGD": Decimal("0.7412")},
}
"""Made up: how much USDC one of each is."""
FEE: Final = Decimal("0.0125")
"""As in their examples."""
TOKEN_LIFE: Final = 120
KEY_WINDOW: Final = 24 * 3600.0
"""https://docs.cdp.coinbase.com/api-reference/v2/idempotency"""
CALLS_PER_HOUR: Final = 10_000
"""https://docs.cdp.coinbase.com/coinbase-business/api-architecture/rate-limiting"""
DEFAULT_LIFE: Final = timedelta(hours=24)
LEAST: Final = Decimal("0.01")
MOST: Final = Decimal(100_000_000)
LONGEST_TEXT: Final = 500
LONGEST_URL: Final = 2048
MOST_FIELDS: Final = 20
LONGEST_FIELD: Final = 100
DEFAULT_PAGE: Final = 20
LARGEST_PAGE: Final = 100
_CENT: Final = Decimal("0.01")
_AMOUNT: Final = compile(r"[0-9]+(\.[0-9]{1,2})?", ASCII)
_ID: Final = compile(r"[0-9a-f]{24}", ASCII)


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is no success."""

    status: int
    type: str
    message: str

    def to_response(self) -> Response:
        told = {"errorType": self.type, "errorMessage": self.message, "correlationId": "8a1f0c64c1d3a5b0"}
        return Response.json(told, status=self.status)


@dataclass(kw_only=True, slots=True)
class Refund:
    """One refund of a checkout."""

    id: str
    checkout: "Checkout"
    usdc: Decimal
    asked: Money
    reason: str | None
    created_at: datetime
    status: str = "PENDING"
    completed_at: datetime | None = None

    def to_json(self) -> dict[str, object]:
        told: dict[str, object] = {
            "id": self.id,
            "checkoutId": self.checkout.id,
            "amount": f"{self.usdc:f}",
            "currency": USDC,
            "status": self.status,
            "reason": self.reason,
            "createdAt": _text(self.created_at),
            "completedAt": _text(self.completed_at) if self.completed_at else None,
        }
        if self.asked.currency != USDC:
            told |= {"fiatAmount": f"{self.asked.amount:.2f}", "fiatCurrency": self.asked.currency}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(kw_only=True, slots=True)
class Checkout:
    """One checkout, as their database may hold it."""

    id: str
    url: str
    price: Money
    usdc: Decimal
    address: str
    network: str
    description: str | None
    metadata: Mapping[str, object]
    success_url: str | None
    fail_url: str | None
    created_at: datetime
    expires_at: datetime
    updated_at: datetime
    status: str = "ACTIVE"
    transaction: str = ""
    refunds: list[Refund] = field(default_factory=list[Refund])

    @property
    def key(self) -> str:
        """The merchant's reference, where it told one."""
        return str(self.metadata.get("reference") or self.id)

    def to_json(self) -> dict[str, object]:
        told: dict[str, object] = {
            "id": self.id,
            "url": self.url,
            "status": self.status,
            "amount": f"{self.usdc:f}",
            "currency": USDC,
            "network": self.network,
            "address": self.address,
            "tokenAddress": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "description": self.description,
            "metadata": dict(self.metadata) or None,
            "successRedirectUrl": self.success_url,
            "failRedirectUrl": self.fail_url,
            "createdAt": _text(self.created_at),
            "updatedAt": _text(self.updated_at),
            "expiresAt": _text(self.expires_at),
        }
        if self.price.currency != USDC:
            told |= {"fiatAmount": f"{self.price.amount:.2f}", "fiatCurrency": self.price.currency}
        if self.transaction:
            fee = _cents(self.usdc * FEE)
            parts = {"totalAmount": self.usdc, "feeAmount": fee, "netAmount": self.usdc - fee}
            told["settlement"] = {name: f"{value:f}" for name, value in parts.items()} | {"currency": USDC}
            told["transactionHash"] = self.transaction
        if self.refunds:
            told["refundedAmount"] = f"{self.back('COMPLETED'):f}"
            told["refunds"] = [refund.to_json() for refund in self.refunds]
        return {name: value for name, value in told.items() if value is not None}

    def back(self, *statuses: str) -> Decimal:
        """USDC of the refunds that stand so."""
        return sum((refund.usdc for refund in self.refunds if refund.status in statuses), Decimal("0.00"))


class ApiKey:
    """A Secret API key of one of the two kinds they give out: EdDSA or ES256."""

    def __init__(self, seed: bytes, algorithm: str) -> None:
        """Raises MissingExtra: the package `cryptography` is not installed."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise MissingExtra("testing") from error
        self.algorithm = algorithm
        self._key: Ed25519PrivateKey | EllipticCurvePrivateKey = (
            Ed25519PrivateKey.from_private_bytes(seed)
            if algorithm == "EdDSA"
            else derive_private_key(int.from_bytes(seed[1:], "big") + 1, SECP256R1())
        )

    def secret(self) -> str:
        """As the portal shows it, once: seed and public key in base64, or PEM."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        if isinstance(self._key, Ed25519PrivateKey):
            private = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            return base64.b64encode(private + public).decode()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()

    def read(self, token: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Header and claims of a token that it signed; nothing of any other."""
        from cryptography.exceptions import InvalidSignature

        signed, _, signature = token.rpartition(".")
        header, _, claims = signed.partition(".")
        try:
            self._verify(_unbase64(signature), signed.encode())
            told = _mapping(_json(_unbase64(header)))
            if told.get("alg") == self.algorithm:
                return told, _mapping(_json(_unbase64(claims)))
        except (InvalidSignature, ValueError):
            pass
        return {}, {}

    def _verify(self, signature: bytes, signed: bytes) -> None:
        """Raises InvalidSignature; a token has both numbers of ES256 one after the other."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        public = self._key.public_key()
        if isinstance(public, Ed25519PublicKey):
            public.verify(signature, signed)
            return
        numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(encode_dss_signature(*numbers), signed, ECDSA(SHA256()))


class CoinbaseSimulator(Simulator):
    """One account and one Secret API key; its sandbox has paths of its own.

    In the ledger a checkout's key is the reference in its metadata. How often their webhooks are tried again is not
    told: the schedule is that of Hook0, by which they are signed.
    """

    vendor: ClassVar[str] = "coinbase"
    hosts: ClassVar[tuple[str, ...]] = ("business.coinbase.com",)
    schemes: ClassVar[tuple[str, str] | None] = ("v1", "v9")
    # https://documentation.hook0.com/explanation/webhook-retry-logic
    retries: ClassVar[tuple[float, ...]] = (3.0, 10.0, 180.0, 1800.0, 3600.0, 10800.0, 18000.0, *(36000.0,) * 17)
    patience: ClassVar[float] = 15

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
        api_key_id: str = "3d1f9a52-7c0e-4b7e-9d55-0a6f2b9d6a01",
        algorithm: str = "EdDSA",
        prices: Mapping[str, Decimal] = PRICES,
        calls_per_hour: int = CALLS_PER_HOUR,
    ) -> None:
        """`algorithm`: EdDSA or ES256, the two kinds of keys they give out."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.api_key_id = api_key_id
        self.key = ApiKey(chance(seed, self.vendor, "key").randbytes(32), algorithm)
        self.prices = prices
        self.checkouts: dict[str, Checkout] = {}
        self._calls_per_hour = calls_per_hour
        self._start()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "api_key_id": self.api_key_id,
            "api_key_secret": self.key.secret(),
            "webhook_secret": self.webhook_secret,
        }

    def reset(self) -> None:
        super().reset()
        self.checkouts.clear()
        self._start()

    def _start(self) -> None:
        self._calls = self.window(self._calls_per_hour, 3600)
        self._keys = IdempotencyKeys(self.clock, window=KEY_WINDOW)

    def idempotency_key(self, request: Request) -> str | None:
        return request.header("x-idempotency-key")

    # Webhooks

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """`t`, the headers that are covered, and an HMAC: https://docs.cdp.coinbase.com/webhooks/verify-signatures"""
        event = _mapping(_json(body)).get("eventType", "")
        told = {"x-event-id": str(UUID(bytes=hashlib.sha256(body).digest()[:16])), "x-event-type": str(event)}
        covered = {"content-type": "application/json", **told}
        names, values, time = " ".join(covered), ".".join(covered.values()), int(at.timestamp())
        signed = f"{time}.{names}.{values}.".encode() + body
        signature = f"t={time},h={names},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
        return (*told.items(), ("x-hook0-signature", signature))

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another checkout, still open, is called paid."""
        candidates = [one for one in self.checkouts.values() if one.status == "ACTIVE"]
        if not candidates:
            return None
        lie = self.random().choice(candidates)
        return self._webhook(lie, "checkout.payment.success", {"status": "COMPLETED"})

    # Every call

    def answer(self, request: Request) -> Response:
        try:
            self._admit(request)
            if wait := self._calls.wait():
                return self.limited(wait)
            self._calls.take()
            return self._once(request)
        except Refusal as refusal:
            return refusal.to_response()

    def limited(self, wait: float) -> Response:
        told = {"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}
        return Response.json(told, status=429)

    def not_found(self, request: Request) -> Response:
        return Refusal(404, "not_found", "The requested resource was not found.").to_response()

    def _once(self, request: Request) -> Response:
        """What was done under a key is not done again."""
        key = self.idempotency_key(request)
        if key is None or request.method != "POST":
            return super().answer(request)
        if not _is_version_4(key):
            raise Refusal(400, "invalid_request", "X-Idempotency-Key must be a valid UUID v4.")
        kept = self._keys.look(key, request.path, request.body)
        if isinstance(kept, Conflict):
            raise Refusal(422, "idempotency_error", "Idempotency key was already used with different parameters.")
        if kept is None:
            kept = super().answer(request)
            self._keys.keep(key, request.path, request.body, kept)
        return kept

    def _admit(self, request: Request) -> None:
        """Whether the token is signed with the account's key, for this very request, and now."""
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        header, claims = self.key.read(token if scheme == "Bearer" else "")
        now, uris = self.clock.now().timestamp(), claims.get("uris")
        asked = [claims.get("uri"), *(cast(list[object], uris) if isinstance(uris, list) else ())]
        since, until = claims.get("nbf"), claims.get("exp")
        good = (
            header.get("kid") == claims.get("sub") == self.api_key_id
            and bool(header.get("nonce"))
            and claims.get("iss") == "cdp"
            and isinstance(since, int)
            and isinstance(until, int)
            and since <= now < until <= since + TOKEN_LIFE
            and any(self._is_for(request, str(uri)) for uri in asked)
        )
        if not good:
            raise Refusal(401, "unauthorized", "The request is not properly authenticated.")

    def _is_for(self, request: Request, uri: str) -> bool:
        """The host is the one that the request names; where it names none, one of theirs or this machine."""
        method, _, rest = uri.partition(" ")
        host, _, path = rest.partition("/")
        named, here = request.header("host"), {*self.hosts, urlsplit(self.base_url).hostname, "127.0.0.1"}
        at_home = host == named if named else host.partition(":")[0] in here
        return at_home and (method, f"/{path}") == (request.method, request.path)

    # Checkouts

    @route("POST", "/api/v1/checkouts", "payments.create")
    @route("POST", "/sandbox/api/v1/checkouts", "payments.create")
    def create(self, request: Request) -> Response:
        """A page for one payment."""
        asked, now = request.json(), self.clock.now()
        price, metadata = self._price(asked), _mapping(asked.get("metadata"))
        if len(metadata) > MOST_FIELDS or any(len(str(value)) > LONGEST_FIELD for value in metadata.values()):
            raise _invalid(f"metadata has at most {MOST_FIELDS} fields of {LONGEST_FIELD} characters")
        for name in ("successRedirectUrl", "failRedirectUrl"):
            url = asked.get(name)
            if url is not None and not (str(url).startswith("https://") and len(str(url)) <= LONGEST_URL):
                raise _invalid(f"{name} must use HTTPS")
        expires_at = _time(asked.get("expiresAt")) if asked.get("expiresAt") else now + DEFAULT_LIFE
        if expires_at <= now:
            raise _invalid("expiresAt must be a future timestamp")
        random, sandbox = self.random(), request.path.startswith("/sandbox/")
        id = f"{random.getrandbits(96):024x}"
        checkout = Checkout(
            id=id,
            url=f"{self.base_url}/payment-links/pl_{random.getrandbits(128):032x}",
            price=price,
            usdc=_cents(price.amount * self.prices[price.currency]),
            address=f"0x{random.getrandbits(160):040x}",
            network="base-sepolia" if sandbox else "base",
            description=_optional(asked, "description", LONGEST_TEXT),
            metadata=metadata,
            success_url=_optional(asked, "successRedirectUrl", LONGEST_URL),
            fail_url=_optional(asked, "failRedirectUrl", LONGEST_URL),
            created_at=now,
            updated_at=now,
            expires_at=expires_at,
        )
        self.checkouts[id] = checkout
        facts = {"expires_at": expires_at.isoformat()}
        self.ledger.record(Kind.OFFER, vendor=self.vendor, id=id, key=checkout.key, money=price, facts=facts)
        return Response.json(checkout.to_json(), status=201)

    @route("GET", "/api/v1/checkouts", "payments.list")
    @route("GET", "/sandbox/api/v1/checkouts", "payments.list")
    def list_checkouts(self, request: Request) -> Response:
        """Newest first, which is not told."""
        asked = request.query
        size, start = int(asked.get("pageSize", str(DEFAULT_PAGE))), int(asked.get("pageToken", "0"))
        if not 1 <= size <= LARGEST_PAGE:
            raise _invalid(f"pageSize must be between 1 and {LARGEST_PAGE}")
        found = [one for one in reversed(self.checkouts.values()) if asked.get("status") in (None, one.status)]
        page: dict[str, object] = {"checkouts": [one.to_json() for one in found[start : start + size]]}
        if start + size < len(found):
            page["nextPageToken"] = str(start + size)
        return Response.json(page)

    @route("GET", "/api/v1/checkouts/{id}", "payments.fetch")
    @route("GET", "/sandbox/api/v1/checkouts/{id}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        return Response.json(self._checkout(request).to_json())

    @route("POST", "/api/v1/checkouts/{id}/deactivate", "payments.revoke")
    @route("POST", "/sandbox/api/v1/checkouts/{id}/deactivate", "payments.revoke")
    def deactivate(self, request: Request) -> Response:
        """Of an active one only."""
        checkout = self._checkout(request)
        if checkout.status != "ACTIVE":
            raise _invalid("Only ACTIVE checkouts can be deactivated.")
        self._turn(checkout, "DEACTIVATED")
        self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=checkout.id, key=checkout.key)
        return Response.json(checkout.to_json())

    @route("POST", "/api/v1/checkouts/{id}/refund", "refunds.create")
    @route("POST", "/sandbox/api/v1/checkouts/{id}/refund", "refunds.create")
    def refund(self, request: Request) -> Response:
        """Of a paid one, as much as is left; it takes a while."""
        checkout, asked = self._checkout(request), request.json()
        if checkout.status not in ("COMPLETED", "PARTIALLY_REFUNDED"):
            raise _invalid("Only COMPLETED or PARTIALLY_REFUNDED checkouts can be refunded.")
        money = self._price({"currency": checkout.price.currency} | asked)
        own = money.currency == checkout.price.currency
        rate = checkout.usdc / checkout.price.amount if own else self.prices[money.currency]
        usdc = _cents(money.amount * rate)
        if usdc + checkout.back("PENDING", "COMPLETED") > checkout.usdc:
            raise _invalid("Refund amount exceeds the remaining refundable amount.")
        refund = Refund(
            id=f"{self.random().getrandbits(96):024x}",
            checkout=checkout,
            usdc=usdc,
            asked=money,
            reason=_optional(asked, "reason", LONGEST_TEXT),
            created_at=self.clock.now(),
        )
        checkout.refunds.append(refund)
        facts = {"charge": checkout.id}
        self.ledger.record(Kind.REFUND, vendor=self.vendor, id=refund.id, key=checkout.key, money=money, facts=facts)
        return Response.json({"checkout": checkout.to_json(), "refund": refund.to_json()})

    # What people do

    def pay(self, offer: str) -> None:
        """Somebody pays on the page, named by its address or the checkout's id."""
        checkout = self._open(offer)
        checkout.transaction = f"0x{self.random().getrandbits(256):064x}"
        self._turn(checkout, "COMPLETED")
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=checkout.id, key=checkout.key, money=checkout.price)
        self._tell(checkout, "checkout.payment.success")

    def begin(self, offer: str) -> None:
        """The payment is on its way: `pay` or `fail` is how it ends."""
        self._turn(self._open(offer), "PROCESSING")

    def fail(self, offer: str) -> None:
        """The payment fails, and with it the checkout."""
        checkout = self._open(offer)
        self._turn(checkout, "FAILED")
        self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=checkout.id, key=checkout.key)
        self._tell(checkout, "checkout.payment.failed")

    def complete_refund(self, refund: str, *, failed: bool = False) -> None:
        """It arrived, or came back."""
        found = next(one for checkout in self.checkouts.values() for one in checkout.refunds if one.id == refund)
        checkout, now = found.checkout, self.clock.now()
        found.status, found.completed_at = ("FAILED", None) if failed else ("COMPLETED", now)
        if failed:
            self.ledger.record(Kind.REFUND_FAILED, vendor=self.vendor, id=refund, key=checkout.key, money=found.asked)
        else:
            all_of_it = checkout.back("COMPLETED") == checkout.usdc
            self._turn(checkout, "REFUNDED" if all_of_it else "PARTIALLY_REFUNDED")
        self._tell(checkout, "checkout.refund.failed" if failed else "checkout.refund.success")

    def tick(self) -> None:
        """What nobody paid in time expires."""
        for checkout in self.checkouts.values():
            if checkout.status == "ACTIVE" and checkout.expires_at <= self.clock.now():
                self._turn(checkout, "EXPIRED")
                self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=checkout.id, key=checkout.key)
                self._tell(checkout, "checkout.payment.expired")

    # Small things

    def _price(self, asked: Mapping[str, object]) -> Money:
        text, currency = asked.get("amount"), str(asked.get("currency", ""))
        if currency not in self.prices:
            raise _invalid(f"currency {currency} is not supported")
        if not isinstance(text, str) or not _AMOUNT.fullmatch(text) or not LEAST <= Decimal(text) <= MOST:
            raise _invalid("amount must be between 0.01 and 100000000, with at most 2 decimal places")
        return Money(text, currency)

    def _checkout(self, request: Request) -> Checkout:
        id = request.params["id"]
        if not _ID.fullmatch(id):
            raise _invalid("id must be 24 hexadecimal characters")
        if id not in self.checkouts:
            raise Refusal(404, "not_found", "The checkout was not found.")
        return self.checkouts[id]

    def _open(self, offer: str) -> Checkout:
        self.tick()
        found = next((one for one in self.checkouts.values() if offer in (one.id, one.url)), None)
        if found is None:
            raise LookupError(f"{self.vendor} has no checkout {offer}")
        if found.status not in ("ACTIVE", "PROCESSING"):
            raise LookupError(f"{self.vendor}: {found.id} is {found.status}")
        return found

    def _turn(self, checkout: Checkout, status: str) -> None:
        checkout.status, checkout.updated_at = status, self.clock.now()

    def _tell(self, checkout: Checkout, event: str) -> None:
        if self.webhook_url:
            self.owe(self._webhook(checkout, event, {}))

    def _webhook(self, checkout: Checkout, event: str, changes: Mapping[str, object]) -> Webhook:
        body = json.dumps({**checkout.to_json(), "eventType": event, **changes}, separators=(",", ":")).encode()
        return Webhook(
            vendor=self.vendor, url=self.webhook_url, event=event, about=checkout.id, key=checkout.key, body=body
        )


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _json(body: bytes) -> object:
    try:
        return cast(object, json.loads(body))
    except ValueError:
        return None


def _mapping(value: object) -> Mapping[str, object]:
    empty: Mapping[str, object] = {}
    return cast(Mapping[str, object], value) if isinstance(value, dict) else empty


def _optional(asked: Mapping[str, object], name: str, longest: int) -> str | None:
    value = asked.get(name)
    if value is not None and not (isinstance(value, str) and len(value) <= longest):
        raise _invalid(f"{name} is a string of at most {longest} characters")
    return value


def _time(value: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise _invalid("expiresAt must be in RFC 3339 format")
    return found


def _is_version_4(key: str) -> bool:
    try:
        return str(UUID(key)) == key and UUID(key).version == 4
    except ValueError:
        return False


def _invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_request", message)


def _cents(amount: Decimal) -> Decimal:
    try:
        return amount.quantize(_CENT, ROUND_HALF_UP)
    except InvalidOperation as error:
        raise _invalid("amount is too large") from error


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
