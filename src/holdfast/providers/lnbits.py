"""LNbits: Lightning invoices into your own wallet, on a server you choose."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Self, cast

from pydantic import AfterValidator, BaseModel, Field, RootModel, ValidationError

from holdfast.errors import CredentialRefused, Mismatch, Refused
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonIn, JsonOut, VendorError, decode_json, encode_json, one_line, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Offer, PaymentStatus, Quote
from holdfast.payments.provider import (
    Capabilities,
    LineKind,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.values import BTC, Money, Secret, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest

# Expired is none of their statuses: an invoice past its `expiry` stays pending, and may even still be paid. The
# payment's own machine ends it, a grace after `offer.expires_at`.
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "pending": PaymentStatus.PENDING,
    "success": PaymentStatus.PAID,
    "failed": PaymentStatus.FAILED,
}
LONGEST_MEMO: Final = 640
PAGE_SIZE: Final = 100
NO_RATE: Final = ("Could not get exchange rate", "Could not fetch any Bitcoin price")
"""Their 400 when none of their own sources answers: nothing of ours was wrong."""
SATS_PER_BTC_DIGITS: Final = 8


def _instant(time: datetime | None) -> datetime | None:
    return time if time and time.tzinfo else None


# The answer to a creation has its times in the server's local time without an offset (1.6.2, measured); the others in
# UTC. Without an offset it is no instant, so it is not used.
Instant = Annotated[datetime | None, AfterValidator(_instant)]


class Extra(BaseModel):
    """What we sent along, echoed."""

    reference: str = ""


class Payment(BaseModel):
    """An invoice, as LNbits writes it."""

    payment_hash: str = Field(min_length=1)
    amount: int
    """In millisatoshi, although requests say satoshi."""
    fee: int | None = None
    """In millisatoshi; with a minus where it was paid."""
    bolt11: str = Field(min_length=1)
    status: str = "pending"
    expiry: Instant = None
    preimage: str | None = Field(default=None, repr=False)
    external_id: str | None = None
    extra: Extra | None = None

    def to_snapshot(self) -> PaymentSnapshot:
        """In our words; money only with a preimage that fits, where there is one."""
        status = STATUSES.get(self.status, PaymentStatus.UNKNOWN)
        price = Money.from_minor(self.amount, BTC)
        if status is PaymentStatus.PAID:
            self.prove()
        return PaymentSnapshot(
            vendor_id=self.payment_hash,
            status=status,
            price=price,
            received=price if status is PaymentStatus.PAID else None,
            fee=_fee(self.fee) if status is PaymentStatus.PAID else None,
            attempt_id=self.external_id or "",
            offer=Offer(bolt11=self.bolt11, expires_at=self.expiry),
        )

    def prove(self) -> None:
        """Check that the preimage hashes to the payment hash; some wallets tell none, or zeros.

        Raises:
            Mismatch: It does not.
        """
        if not self.preimage or not self.preimage.strip("0"):
            return
        try:
            found = hashlib.sha256(bytes.fromhex(self.preimage)).hexdigest()
        except ValueError:
            found = ""
        if found != self.payment_hash.lower():
            raise Mismatch(f"the preimage of invoice {self.payment_hash} does not prove its payment", reason="preimage")


class Status(BaseModel):
    """The answer to `GET /api/v1/payments/{payment_hash}`."""

    paid: bool
    details: Payment | None = None
    """Only for the key of the invoice's own wallet."""


class Payments(RootModel[list[Payment]]):
    """The answer to `GET /api/v1/payments`."""


class Happened(BaseModel):
    """What of a listed payment makes it a delivery; one that is not ours may lack the rest."""

    payment_hash: str = Field(min_length=1)
    amount: int
    fee: int | None = None
    status: str
    updated_at: Instant = None
    external_id: str | None = None
    extra: Extra | None = None

    @property
    def digest(self) -> str:
        """Of what a delivery says; the list writes the same payment otherwise than the webhook."""
        return hashlib.sha256(f"{self.payment_hash}:{self.status}:{self.amount}".encode()).hexdigest()

    def to_delivery(self, body: bytes) -> Delivery:
        return Delivery(
            type=self.status,
            dedup_key=f"{self.payment_hash}:{self.status}",
            vendor_id=self.payment_hash,
            reference=self.extra.reference if self.extra else "",
            recognised=self.status in STATUSES,
            body=body,
            digest=self.digest,
            facts={"attempt_id": self.external_id} if self.external_id else None,
        )

    def to_line(self, at: datetime) -> StatementLine:
        return StatementLine(
            kind=LineKind.PAYMENT,
            vendor_id=self.payment_hash,
            payment_id=self.payment_hash,
            money=Money.from_minor(self.amount, BTC),
            at=at,
            fee=_fee(self.fee),
            attempt_id=self.external_id or "",
            reference=self.extra.reference if self.extra else "",
        )


class Page(RootModel[list[object]]):
    """The answer to `GET /api/v1/payments`, where one payment we cannot read must not hide the others."""


class Rate(BaseModel):
    """The answer to `GET /api/v1/rate/{currency}`."""

    rate: Decimal
    """Satoshi per unit of the currency; zero where no source answered."""


@dataclass(frozen=True, kw_only=True)
class LNbits:
    """Take Lightning payments with LNbits.

    `invoice_key` is the wallet's "Invoice/read key": it creates and reads invoices and cannot spend.
    """

    base_url: str
    invoice_key: Secret
    name: str = "lnbits"

    # No idempotency key: the same `external_id` twice makes two invoices, but they can be found by it. An invoice
    # cannot be cancelled. Webhooks are not signed (lnbits/lnbits#1192), so their address carries our own proof.
    capabilities = Capabilities(
        currencies=frozenset({BTC}),
        create_effect=Effect.ONCE,
        lookup=Lookup.AUTHORITATIVE,
        revocable=False,
        webhook_trust=WebhookTrust.KEYED_URL,
    )
    causes = CAUSES | {
        520: Cause.REJECTED,  # their ordinary "payment error", not an outage
        (404, "Wallet not found."): Cause.CREDENTIAL,  # what an unknown key gets
    }
    scheme = None
    webhook_secrets = None
    private_fields = frozenset({"extra", "wallet_id", "webhook"})

    @classmethod
    def from_env(cls) -> Self:
        """With LNBITS_URL and LNBITS_INVOICE_KEY from the environment.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "LNBITS_URL": "the address of your LNbits server",
                "LNBITS_INVOICE_KEY": "the wallet's invoice key, which cannot spend",
            }
        )
        return cls(base_url=secret_from_env("LNBITS_URL").reveal(), invoice_key=secret_from_env("LNBITS_INVOICE_KEY"))

    @property
    def live(self) -> bool:
        """Whether money is real: everywhere but on this machine."""
        return not is_loopback(self.base_url)

    def headers(self) -> Mapping[str, str]:
        return {"x-api-key": self.invoice_key.reveal()}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"detail": "…"}`, or a list of what is wrong with the request; they have no codes but their sentences."""
        body = decode_json(response.content)
        detail = body.get("detail") if isinstance(body, dict) else None
        if isinstance(detail, str) and detail.startswith(NO_RATE):
            return VendorError(message=detail, reason="no_rate", cause=Cause.REFUSED)
        if isinstance(detail, str):
            return VendorError(code=one_line(detail), message=detail)
        return VendorError(message="; ".join(_complaints(detail)))

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /api/v1/payments` with `out: false`.

        Raises:
            InvalidMoney: Not bitcoin, or a fraction of a satoshi, which they would silently cut off.
        """
        body: dict[str, JsonOut] = {
            "out": False,
            "amount": request.price.sat,
            "unit": "sat",
            "memo": (request.description or request.reference)[:LONGEST_MEMO],
            "expiry": max(request.expires_in // timedelta(seconds=1), 1),
            "external_id": request.attempt_id,
            "extra": {"reference": request.reference},
        }
        if request.webhook_url:
            body["webhook"] = request.webhook_url
        payment = await http.post("/api/v1/payments", Payment, operation="create", effect=Effect.ONCE, json=body)
        return replace(payment.to_snapshot(), offer=Offer(bolt11=payment.bolt11, expires_at=request.expires_at))

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /api/v1/payments/{payment_hash}`.

        Raises:
            CredentialRefused: The key is not of this invoice's wallet; they answer anybody, but without the invoice.
            Mismatch: The key is of the wallet that paid it.
        """
        status = await http.get(f"/api/v1/payments/{segment(vendor_id)}", Status, operation="fetch")
        if status.details is None:
            raise CredentialRefused(
                f"{self.name}: fetch was answered without the invoice: the key belongs to another wallet, or to none",
                provider=self.name,
                operation="fetch",
            )
        if status.details.amount <= 0:
            # On one server both wallets have a payment of this hash; the key shows what its own wallet did.
            text = f"{self.name}: invoice {vendor_id} is another wallet's: this one paid it"
            raise Mismatch(text, provider=self.name, operation="fetch", reason="recipient")
        return status.details.to_snapshot()

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """`GET /api/v1/payments?external_id=…`: the paid one, should there be several."""
        answer = await http.get("/api/v1/payments", Payments, operation="find", params={"external_id": attempt.id})
        # A server that does not know the filter answers with everything; what was paid out has a negative amount.
        found = [payment for payment in answer.root if payment.external_id == attempt.id and payment.amount > 0]
        found.sort(key=lambda payment: payment.status != "success")
        return found[0].to_snapshot() if found else None

    async def quote(self, http: Http, due: Money, *, at: datetime) -> Quote:
        """`GET /api/v1/rate/{currency}`, rounded up to a whole satoshi.

        Raises:
            Refused: The server has no rate now.
        """
        answer = await http.get(f"/api/v1/rate/{segment(due.currency)}", Rate, operation="quote")
        if answer.rate <= 0:
            raise Refused(
                f"{self.name}: quote: the server has no rate for {due.currency} now",
                provider=self.name,
                operation="quote",
                reason="no_rate",
            )
        return Quote.of(due, answer.rate.scaleb(-SATS_PER_BTC_DIGITS), BTC, source=self.name, at=at)

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """The invoice, once it is paid; up to 1.6 as a JSON text that holds JSON, and each twice."""
        body = decode_json(request.body)
        happened = Happened.model_validate(decode_json(body.encode()) if isinstance(body, str) else body)
        return [happened.to_delivery(request.body)]

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """What came in, for somebody who names what it is for."""
        async for happened, row in self._came_in(http, since, "list"):
            if happened.external_id:
                yield happened.to_delivery(encode_json(cast(JsonOut, row)))

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """All that came in, by when it last changed: they tell no other time of it. What was paid out is left out."""
        async for happened, _ in self._came_in(http, since, "statement"):
            if happened.updated_at is not None and happened.updated_at < until:
                yield happened.to_line(happened.updated_at)

    async def _came_in(self, http: Http, since: datetime, operation: str) -> AsyncIterator[tuple[Happened, object]]:
        """`GET /api/v1/payments?status=success`, what changed last first, page by page back to `since`.

        What is paid while it is listed moves what follows down, so that some come twice and none is passed over.
        """
        params: dict[str, str | int] = {"status": "success", "sortby": "updated_at", "direction": "desc"}
        offset = 0
        while True:
            page = await http.get(
                "/api/v1/payments", Page, operation=operation, params=params | {"limit": PAGE_SIZE, "offset": offset}
            )
            for row in page.root:
                try:
                    happened = Happened.model_validate(row)
                except ValidationError:
                    continue
                if happened.updated_at is not None and happened.updated_at < since:
                    return
                if happened.amount > 0:
                    yield happened, row
            if len(page.root) < PAGE_SIZE:
                return
            offset += PAGE_SIZE


def _fee(msat: int | None) -> Money | None:
    return None if msat is None else Money.from_minor(abs(msat), BTC)


def _complaints(detail: JsonIn) -> list[str]:
    """FastAPI's `[{"loc": ["body", "amount"], "msg": "…"}]`, in words."""
    rows = [row for row in detail if isinstance(row, dict)] if isinstance(detail, list) else []
    return [f"{_path(row.get('loc'))}: {row.get('msg')}" for row in rows]


def _path(loc: JsonIn) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) else ""
