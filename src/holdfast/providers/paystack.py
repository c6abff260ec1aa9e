"""Paystack: cards, banks and mobile money in Africa, on a page of theirs."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import environ
from types import MappingProxyType
from typing import Final, Self, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError, field_validator

from holdfast.errors import CallFailed, ConfigurationError, InvalidInput, InvalidMoney, Mismatch, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonIn, JsonOut, VendorError, decode_json, encode_json, read_json_error, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    Capabilities,
    DisputeSnapshot,
    DisputeStatus,
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
from holdfast.values import Money, Secrets, require_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody

M = TypeVar("M", bound=BaseModel)

SUBUNITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "GHS": 100,
        "KES": 100,
        "NGN": 100,
        "USD": 100,
        "ZAR": 100,
        "XOF": 100,  # not in their description, and not verified: there too in hundredths, though it has none
    }
)
"""How many of their units one of each currency is. https://github.com/PaystackOSS/openapi"""
# https://paystack.com/docs/payments/verify-payments/. `reversed`: it was paid, and all of it went back.
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "abandoned": PaymentStatus.PENDING,
    "ongoing": PaymentStatus.PENDING,
    "pending": PaymentStatus.PENDING,
    "processing": PaymentStatus.PENDING,
    "queued": PaymentStatus.PENDING,
    "success": PaymentStatus.PAID,
    "failed": PaymentStatus.FAILED,
    "reversed": PaymentStatus.PAID,
}
# https://paystack.com/docs/payments/refunds/. `needs-attention`: they have no account to send it to.
REFUNDS: Final[Mapping[str, RefundStatus]] = {
    "pending": RefundStatus.PENDING,
    "processing": RefundStatus.PENDING,
    "needs-attention": RefundStatus.MANUAL_REQUIRED,
    "processed": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
}
DISPUTES: Final[Mapping[str, DisputeStatus]] = {
    "awaiting-merchant-feedback": DisputeStatus.OPEN,
    "awaiting-bank-feedback": DisputeStatus.UNDER_REVIEW,
    "pending": DisputeStatus.UNDER_REVIEW,
}
WON: Final = "declined"
"""The resolution of a dispute whose claim was declined."""
EVENTS: Final = frozenset(
    {
        "charge.success",
        "charge.dispute.create",
        "charge.dispute.remind",
        "charge.dispute.resolve",
        "refund.pending",
        "refund.processing",
        "refund.processed",
        "refund.failed",
        "refund.needs-attention",
    }
)
DUPLICATE: Final = "duplicate_reference"
ABSENT: Final = "transaction_not_found"
# Older answers have no code but their sentence. https://paystack.com/docs/api/errors/
SENTENCES: Final[Mapping[str, str]] = {
    "duplicate transaction reference": DUPLICATE,
    "transaction reference not found": ABSENT,
}
ATTEMPT: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
TEST_KEY: Final = "sk_test_"
PAGE_SIZE: Final = 100
CAPABILITIES: Final = Capabilities(
    currencies=frozenset(SUBUNITS),
    methods=frozenset({Method.CARD, Method.BANK, Method.MOBILE_MONEY}),
    create_effect=Effect.KEYED,  # the reference is unique on their side, for ever
    lookup=Lookup.AUTHORITATIVE,
    payer=True,
    refunding=Refunding.API,
    refund_effect=Effect.ONCE,
    webhook_trust=WebhookTrust.SIGNED_BODY,
)


class Page(BaseModel):
    """Where a new transaction can be paid."""

    authorization_url: str = Field(min_length=1)
    reference: str = Field(min_length=1)


class Initialized(BaseModel):
    """The answer to `POST /transaction/initialize`."""

    data: Page


class Echo(BaseModel):
    """What we sent along, echoed."""

    reference: str = ""


class Transaction(BaseModel):
    """A transaction, as verified, listed and delivered."""

    id: int
    reference: str
    status: str
    amount: int
    requested_amount: int | None = None
    """What was asked for, where the payer bears the fee or paid in part."""
    currency: str
    domain: str = ""
    fees: int | None = None
    metadata: Echo = Echo()
    gateway_response: str | None = None
    created_at: datetime | None = None
    paid_at: datetime | None = None

    @field_validator("metadata", mode="before")
    @classmethod
    def _read_metadata(cls, value: object) -> object:
        """An object as sent; at times it comes back as its text, as a number, or as nothing."""
        if isinstance(value, str):
            try:
                value = decode_json(value.encode())
            except ValueError:
                return {}
        return _mapping(value)

    @property
    def attempt_id(self) -> str:
        """Ours, if it is one of ours."""
        return self.reference if ATTEMPT.fullmatch(self.reference) else ""


class Verified(BaseModel):
    """The answer to `GET /transaction/verify/{reference}`."""

    data: Transaction


class Refund(BaseModel):
    """A refund, as created, read and listed."""

    id: int
    status: str
    amount: int
    currency: str
    domain: str = ""
    merchant_note: str | None = None
    transaction_reference: str | None = None
    created_at: datetime | None = Field(alias="createdAt", default=None)


class Refunded(BaseModel):
    """The answer to `POST /refund` and `GET /refund/{id}`."""

    data: Refund


class Disputed(BaseModel):
    """A dispute, as listed."""

    id: int
    status: str | None = None
    resolution: str | None = None
    category: str | None = None
    refund_amount: int | None = None
    currency: str | None = None
    transaction: Transaction | None = None
    due_at: datetime | None = Field(alias="dueAt", default=None)


class Listed(BaseModel):
    """A page of a list; one row that we cannot read must not hide the others."""

    data: list[object]


class About(BaseModel):
    """What an event is about, of the little that all kinds have in common."""

    id: int | str = ""
    reference: str | None = None
    transaction_reference: str | None = None
    refund_reference: str | None = None
    status: str | None = None
    transaction: object = None
    metadata: object = None

    @property
    def transactions(self) -> str:
        """The reference of the transaction it is about."""
        found = self.transaction_reference or _mapping(self.transaction).get("reference") or self.reference
        return found if isinstance(found, str) else ""


class Event(BaseModel):
    """The envelope of every webhook."""

    event: str
    data: About

    @property
    def dedup_key(self) -> str:
        """Events have no id: what happened to which object, and which status it has since."""
        about = self.data
        own = about.id or about.refund_reference or about.reference or about.transactions
        return f"{self.event}:{own}:{about.status or ''}"


@dataclass(frozen=True, kw_only=True)
class Paystack:
    """Take payments with Paystack.

    `api_key` is the secret key at dashboard.paystack.com, `sk_live_…` or `sk_test_…`. Webhooks are signed with it, so
    that of several, newest first, the first is used and each verifies.
    """

    api_key: Secrets
    email: str = ""
    """An address of yours for payments that name no payer; without it they have to, since Paystack wants one."""
    currencies: frozenset[str] = field(default_factory=lambda: frozenset(SUBUNITS))
    """Those your account may take."""
    subunits: Mapping[str, int] = field(default_factory=lambda: SUBUNITS, hash=False)
    name: str = "paystack"
    base_url: str = "https://api.paystack.co"
    capabilities: Capabilities = field(init=False, repr=False, compare=False, default=CAPABILITIES)

    # https://paystack.com/docs/api/errors/
    causes = CAUSES | {(400, DUPLICATE): Cause.REJECTED}  # but see `create`
    scheme = HmacBody("x-paystack-signature", algorithm="sha512")
    private_fields = frozenset(
        {"access_code", "account_name", "authorization", "authorization_url", "customer", "email", "ip_address"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigurationError: a currency without subunits."""
        if unknown := sorted(self.currencies - self.subunits.keys()):
            raise ConfigurationError(f"{self.name}: subunits= lacks {', '.join(unknown)}")
        able = replace(CAPABILITIES, currencies=frozenset(self.currencies), payer=not self.email)
        object.__setattr__(self, "capabilities", able)

    @classmethod
    def from_env(cls) -> Self:
        """With PAYSTACK_SECRET_KEY from the environment; several, newest first, by commas.

        Where they are set, PAYSTACK_EMAIL is `email`, PAYSTACK_CURRENCIES are those your account may take, by commas,
        and PAYSTACK_URL replaces the address of their API.

        Raises:
            MissingCredential: The key is unset or empty.
        """
        require_env(
            {
                "PAYSTACK_SECRET_KEY": "the secret key of your Paystack account",
            }
        )
        currencies = [text.strip() for text in environ.get("PAYSTACK_CURRENCIES", "").split(",") if text.strip()]
        return cls(
            api_key=Secrets.from_env("PAYSTACK_SECRET_KEY"),
            email=environ.get("PAYSTACK_EMAIL", "").strip(),
            currencies=frozenset(currencies or SUBUNITS),
            base_url=environ.get("PAYSTACK_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: neither with a test key nor on this machine."""
        return not (self.api_key.current.reveal().startswith(TEST_KEY) or is_loopback(self.base_url))

    @property
    def webhook_secrets(self) -> Secrets:
        return self.api_key

    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.api_key.current.reveal()}"}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"status": false, "message": "…", "type": "validation_error", "code": "duplicate_reference"}`."""
        said = read_json_error(response)
        code = said.code or SENTENCES.get(said.message.rstrip(".").lower(), "")
        return VendorError(code=code, message=said.message)

    # Payments.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /transaction/initialize` under the attempt's id as the reference.

        Raises:
            InvalidInput: Nobody has an e-mail address.
            InvalidMoney: A currency or an amount that they have no whole units for.
            OutcomeUnknown: Also where it was made before: only its first answer tells the page, so it is looked up.
        """
        email = (request.payer.email if request.payer else "") or self.email
        if not email:
            raise InvalidInput(f"{self.name} wants the payer's e-mail address: Payer(email=…), or email= of yours")
        body: dict[str, JsonOut] = {
            "email": email,
            "amount": self._units(request.price),
            "currency": request.price.currency,
            "reference": request.attempt_id,
            "metadata": {**request.metadata, "reference": request.reference},
        }
        if request.return_url:
            body["callback_url"] = request.return_url
        try:
            made = await http.post(
                "/transaction/initialize",
                Initialized,
                operation="create",
                effect=Effect.KEYED,
                json=body,
                key_valid=request.key_valid,
            )
        except Rejected as error:
            if error.code != DUPLICATE:
                raise
            return await self._existing(http, request.attempt_id)
        if made.data.reference != request.attempt_id:
            raise Mismatch(f"asked for {request.attempt_id}, got {made.data.reference}", operation="create")
        return PaymentSnapshot(
            vendor_id=made.data.reference,
            status=PaymentStatus.PENDING,
            attempt_id=made.data.reference,
            offer=Offer(checkout_url=made.data.authorization_url, expires_at=request.expires_at),
        )

    async def _existing(self, http: Http, reference: str) -> PaymentSnapshot:
        """What is there under this reference; raises OutcomeUnknown while it can be of no use to anybody."""
        text = "the transaction exists there, without its page"
        try:
            found = await self._verify(http, reference)
        except CallFailed as error:
            text = f"{text}: {error}"
        else:
            if STATUSES.get(found.status) is PaymentStatus.PAID:
                return self._snapshot(found)
        raise CallFailed.of(
            Cause.UNKNOWN, f"{self.name}: create: {text}", provider=self.name, operation="create", reason="exists"
        )

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /transaction/verify/{reference}`."""
        found = await self._verify(http, vendor_id)
        if found.reference != vendor_id:
            raise Mismatch(f"asked for {vendor_id}, got {found.reference}", operation="fetch")
        return self._snapshot(found)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """The same by our own id.

        Verifying does not tell the page. Of a transaction whose answer was lost nobody knows it, so nobody can pay it:
        unless it was paid, it is over.
        """
        try:
            snapshot = await self.fetch(http, attempt.id)
        except Rejected as error:
            if error.status == 404 or error.code == ABSENT:
                return None
            raise
        lost = snapshot.status in (PaymentStatus.PENDING, PaymentStatus.FAILED)
        return replace(snapshot, status=PaymentStatus.EXPIRED, reason="page_lost") if lost else snapshot

    # Refunds.

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """`POST /refund`; they have no key for it, so ours is the note by which it is found again."""
        body: dict[str, JsonOut] = {
            "transaction": request.vendor_id,
            "amount": self._units(request.money),
            "currency": request.money.currency,
            "merchant_note": request.key,
        }
        if request.reason:
            body["customer_note"] = request.reason
        made = await http.post("/refund", Refunded, operation="refund", effect=Effect.ONCE, json=body)
        return self._refund(made.data, request)

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """`GET /refund/{id}`."""
        found = await http.get(f"/refund/{segment(vendor_id)}", Refunded, operation="fetch_refund")
        return self._refund(found.data, request)

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """`GET /refund?transaction={id}`, page by page, for the one that has our key as its note."""
        transaction = await self._verify(http, request.vendor_id)
        async for row in self._rows(http, "/refund", Refund, "find_refund", {"transaction": transaction.id}):
            if row.merchant_note == request.key:
                return self._refund(row, request)
        return None

    # What else they tell.

    async def disputes(self, http: Http, attempt: Attempt) -> Sequence[DisputeSnapshot]:
        """`GET /dispute?transaction={id}`."""
        transaction = await self._verify(http, attempt.vendor_id)
        params = {"transaction": transaction.id}
        rows = [row async for row in self._rows(http, "/dispute", Disputed, "disputes", params)]
        return [
            DisputeSnapshot(
                vendor_id=str(row.id),
                status=_dispute_status(row),
                money=self._money(row.refund_amount or 0, row.currency or transaction.currency),
                reason=row.category or "",
                answer_by=row.due_at,
            )
            for row in rows
            if row.transaction is None or row.transaction.id == transaction.id
        ]

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """`GET /transaction?status=success`, then `GET /refund`, of that time, page by page."""
        within = {"from": _zulu(since), "to": _zulu(until)}
        async for paid in self._rows(http, "/transaction", Transaction, "statement", within | {"status": "success"}):
            at = paid.paid_at or paid.created_at
            if at is not None:
                yield StatementLine(
                    kind=LineKind.PAYMENT,
                    vendor_id=paid.reference,
                    payment_id=paid.reference,
                    money=self._money(paid.amount, paid.currency),
                    at=at,
                    fee=self._fee(paid),
                    attempt_id=paid.attempt_id,
                    reference=paid.metadata.reference,
                )
        async for back in self._rows(http, "/refund", Refund, "statement", within):
            if back.created_at is not None and REFUNDS.get(back.status) is not RefundStatus.FAILED:
                reference = back.transaction_reference or ""
                yield StatementLine(
                    kind=LineKind.REFUND,
                    vendor_id=str(back.id),
                    payment_id=reference,
                    money=self._money(back.amount, back.currency),
                    at=back.created_at,
                    attempt_id=reference if ATTEMPT.fullmatch(reference) else "",
                )

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """`GET /transaction?status=success`: what `charge.success` told."""
        params = {"from": _zulu(since), "status": "success"}
        async for row in self._raw_rows(http, "/transaction", "list", params):
            try:
                event = Event.model_validate({"event": "charge.success", "data": row})
            except ValidationError:
                continue
            if ATTEMPT.fullmatch(event.data.transactions):
                yield _delivery(event, encode_json({"event": event.event, "data": cast(JsonOut, row)}))

    # Webhooks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        return [_delivery(Event.model_validate(decode_json(request.body)), request.body)]

    # Small things.

    async def _verify(self, http: Http, reference: str) -> Transaction:
        path = f"/transaction/verify/{segment(reference)}"
        return (await http.get(path, Verified, operation="fetch")).data

    def _snapshot(self, found: Transaction) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        status = STATUSES.get(found.status, PaymentStatus.UNKNOWN)
        came = self._money(found.amount, found.currency)
        asked = came if found.requested_amount is None else self._money(found.requested_amount, found.currency)
        return PaymentSnapshot(
            vendor_id=found.reference,
            status=status,
            price=asked,
            received=came if status is PaymentStatus.PAID else None,
            refunded=came if found.status == "reversed" else None,
            attempt_id=found.attempt_id,
            live={"live": True, "test": False}.get(found.domain),
            fee=self._fee(found),
            reason=(found.gateway_response or "") if status is PaymentStatus.FAILED else "",
        )

    def _refund(self, found: Refund, request: RefundRequest) -> RefundSnapshot:
        money = self._money(found.amount, found.currency)
        if money != request.money:
            raise Mismatch(f"asked for a refund of {request.money}, the vendor says {money}", operation="refund")
        return RefundSnapshot(
            vendor_id=str(found.id),
            status=REFUNDS.get(found.status, RefundStatus.UNKNOWN),
            money=money,
            key=found.merchant_note or "",
            reason=found.status,
        )

    def _units(self, money: Money) -> int:
        """In their whole units. Raises InvalidMoney."""
        factor = self.subunits.get(money.currency, 0)
        units, rest = divmod(money.minor_units * factor, _minor_units(money.currency))
        if not factor or rest:
            raise InvalidMoney(f"{self.name} has no whole units for {money}")
        return units

    def _money(self, units: int, currency: str) -> Money:
        """Raises Mismatch: it is no amount of that currency."""
        factor = self.subunits.get(currency)
        minor, rest = divmod(units * _minor_units(currency), factor) if factor else (0, 1)
        if rest:
            raise Mismatch(f"the vendor says {units} units of {currency}, which we cannot read", operation="fetch")
        return Money.from_minor(minor, currency)

    def _fee(self, found: Transaction) -> Money | None:
        """None also where it is a fraction that the currency has no coin for."""
        try:
            return None if found.fees is None else self._money(found.fees, found.currency)
        except Mismatch:
            return None

    async def _rows(
        self, http: Http, path: str, model: type[M], operation: str, params: Mapping[str, str | int]
    ) -> AsyncIterator[M]:
        async for row in self._raw_rows(http, path, operation, params):
            try:
                yield model.model_validate(row)
            except ValidationError:
                continue

    async def _raw_rows(
        self, http: Http, path: str, operation: str, params: Mapping[str, str | int]
    ) -> AsyncIterator[JsonIn]:
        page = 1
        while True:
            asked = {**params, "perPage": PAGE_SIZE, "page": page}
            found = await http.get(path, Listed, operation=operation, params=asked)
            for row in found.data:
                yield cast(JsonIn, row)
            if len(found.data) < PAGE_SIZE:
                return
            page += 1


def _delivery(event: Event, body: bytes) -> Delivery:
    about = event.data.transactions
    reference = _mapping(event.data.metadata).get("reference")
    said = f"{event.dedup_key}:{about}"
    return Delivery(
        type=event.event,
        dedup_key=event.dedup_key,
        vendor_id=about,
        reference=reference if isinstance(reference, str) else "",
        recognised=event.event in EVENTS,
        body=body,
        digest=hashlib.sha256(said.encode()).hexdigest(),
        facts={"attempt_id": about} if ATTEMPT.fullmatch(about) else None,
    )


def _dispute_status(row: Disputed) -> DisputeStatus:
    closed = DisputeStatus.WON if row.resolution == WON else DisputeStatus.LOST
    return DISPUTES.get(row.status or "", closed)


def _mapping(value: object) -> Mapping[str, object]:
    return cast(Mapping[str, object], value) if isinstance(value, dict) else {}


def _minor_units(currency: str) -> int:
    """How many of ours one of the currency is."""
    return Money(1, currency).minor_units


def _zulu(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
