"""LND: Lightning invoices of a node of your own, over its REST API.

https://lightning.engineering/api-docs/api/lnd/
"""

import base64
import binascii
import hashlib
import hmac
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from os import environ
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from holdfast.errors import CallFailed, ConfigurationError, InvalidMoney, Mismatch, OutcomeUnknown, Rejected
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_json, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, PaymentStatus
from holdfast.payments.provider import (
    Capabilities,
    LineKind,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.values import BTC, Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Delivery

# https://lightning.engineering/api-docs/api/lnd/lightning/lookup-invoice/#lnrpcinvoiceinvoicestate
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "OPEN": PaymentStatus.PENDING,
    "ACCEPTED": PaymentStatus.PROCESSING,
    "SETTLED": PaymentStatus.PAID,
    # LND itself cancels what expires, and does not say which of the two it was. Neither can be paid any more.
    "CANCELED": PaymentStatus.EXPIRED,
}
EXISTS: Final = "exists"
SETTLED: Final = "settled"
ABSENT: Final = "absent"
NOT_READY: Final = "not_ready"

# LND answers most of its errors with 500 and gRPC's code 2, so that only the sentence tells what happened. Those of
# invoices: https://github.com/lightningnetwork/lnd/blob/master/invoices/errors.go, of a node that is not up yet:
# https://github.com/lightningnetwork/lnd/blob/master/rpcperms/interceptor.go, of macaroons:
# https://github.com/lightningnetwork/lnd/blob/master/docs/macaroons.md, of what was asked:
# https://github.com/lightningnetwork/lnd/blob/master/lnrpc/invoicesrpc/addinvoice.go. Each comes before any effect.
SENTENCES: Final[Mapping[str, tuple[Cause, str]]] = {
    "invoice with payment hash already exists": (Cause.REJECTED, EXISTS),
    "invoice already settled": (Cause.REJECTED, SETTLED),
    "unable to locate invoice": (Cause.REJECTED, ABSENT),
    "there are no existing invoices": (Cause.REJECTED, ABSENT),
    "wallet locked": (Cause.REFUSED, NOT_READY),
    "wallet not created": (Cause.REFUSED, NOT_READY),
    "waiting to start": (Cause.REFUSED, NOT_READY),
    "the RPC server is in the process of starting up": (Cause.REFUSED, NOT_READY),
    "server is still in the process of starting": (Cause.REFUSED, NOT_READY),
    "expected 1 macaroon": (Cause.CREDENTIAL, ""),
    "cannot get macaroon": (Cause.CREDENTIAL, ""),
    "verification failed": (Cause.CREDENTIAL, ""),
    "permission denied": (Cause.CREDENTIAL, ""),
    "encoding/hex": (Cause.CREDENTIAL, ""),
    "cannot determine data format of binary-encoded macaroon": (Cause.CREDENTIAL, ""),
    "memo too large": (Cause.REJECTED, ""),
    "invoice amount": (Cause.REJECTED, ""),
    "expiry of": (Cause.REJECTED, ""),
}
NETWORKS: Final[Mapping[str, str]] = {
    "bc": "mainnet",
    "tb": "testnet",
    "tbs": "signet",
    "bcrt": "regtest",
    "sb": "simnet",
}
"""What BOLT 11 calls them: https://github.com/lightning/bolts/blob/master/11-payment-encoding.md."""
TENTHS: Final[Mapping[str, int]] = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}
"""Of a millisatoshi, per unit of BOLT 11's multipliers."""
LONGEST_MEMO: Final = 639
"""Bytes; BOLT 11 has no room for more."""
LONGEST: Final = timedelta(days=30)
"""Of an invoice's life, so that a list of what came in has an end to go back to."""
SHORTEST_KEY: Final = 32
PAGE_SIZE: Final = 100
YEAR_3000: Final = 32_503_680_000
SECOND: Final = timedelta(seconds=1)
_HRP: Final = re.compile(r"ln(bcrt|bc|tbs|tb|sb)(?:(\d{1,20})([munp]?))?")


def _decode(text: object) -> object:
    """REST writes bytes in base64."""
    if not isinstance(text, str):
        raise ValueError("not a text")  # pydantic reports a ValueError as a misfit, no TypeError
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


Bytes = Annotated[bytes, BeforeValidator(_decode)]
Hash = Annotated[Bytes, Field(min_length=32, max_length=32)]
Seconds = Annotated[int, Field(ge=0, le=YEAR_3000)]


class Added(BaseModel):
    """The answer to `POST /v1/invoices`."""

    r_hash: Hash
    payment_request: str = Field(min_length=1)


class Invoice(BaseModel):
    """An invoice, as LND writes it; its 64-bit numbers are texts."""

    r_hash: Hash
    payment_request: str
    """Empty for what came without an invoice of ours."""
    state: str
    value_msat: int
    amt_paid_msat: int = 0
    """May be more than was asked for, never less."""
    creation_date: Seconds
    expiry: Seconds
    settle_date: Seconds = 0
    r_preimage: Bytes = Field(default=b"", repr=False)
    """Told before payment too: who knows it can take the payment on its way."""

    @property
    def id(self) -> str:
        """The payment hash, in hexadecimal digits."""
        return self.r_hash.hex()

    @property
    def settled_at(self) -> datetime:
        return datetime.fromtimestamp(self.settle_date, UTC)

    @property
    def made_at(self) -> datetime:
        return datetime.fromtimestamp(self.creation_date, UTC)

    @property
    def received(self) -> Money:
        return Money.from_minor(self.amt_paid_msat, BTC)

    def to_snapshot(self, attempt_id: str = "") -> PaymentSnapshot:
        """In our words; money only with the preimage that proves it."""
        status = STATUSES.get(self.state, PaymentStatus.UNKNOWN)
        if status is PaymentStatus.PAID:
            self.prove()
        network, _ = read_request(self.payment_request)
        return PaymentSnapshot(
            vendor_id=self.id,
            status=status,
            price=Money.from_minor(self.value_msat, BTC),
            received=self.received if status is PaymentStatus.PAID else None,
            attempt_id=attempt_id,
            offer=Offer(bolt11=self.payment_request, expires_at=self.made_at + self.expiry * SECOND),
            live=network == "mainnet" if network else None,
        )

    def prove(self) -> None:
        """Check that the preimage hashes to the payment hash.

        Raises:
            Mismatch: It does not.
        """
        if hashlib.sha256(self.r_preimage).digest() != self.r_hash:
            raise Mismatch(f"the preimage of invoice {self.id} does not prove its payment", reason="preimage")

    def to_delivery(self) -> Delivery:
        """That it was settled; without the preimage, which nobody needs to keep."""
        key = f"{self.id}:{self.state}"
        told = {"payment_hash": self.id, "state": self.state, "amt_paid_msat": str(self.amt_paid_msat)}
        return Delivery(
            type=self.state,
            dedup_key=key,
            vendor_id=self.id,
            recognised=True,
            body=encode_json(told),
            digest=hashlib.sha256(key.encode()).hexdigest(),
        )

    def to_line(self) -> StatementLine:
        return StatementLine(
            kind=LineKind.PAYMENT, vendor_id=self.id, payment_id=self.id, money=self.received, at=self.settled_at
        )


class Page(BaseModel):
    """The answer to `GET /v1/invoices`, where one invoice we cannot read must not hide the others."""

    invoices: list[object]
    first_index_offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Lnd:
    """Take Lightning payments with an LND node of your own.

    `macaroon` is the node's `invoice.macaroon` in hexadecimal digits: it makes and reads invoices and cannot spend.

    `preimage_key` is a random text of yours, 32 characters or more, that the node never sees. The secret of each
    invoice is derived from it and the attempt's id, so that an invoice can be asked for by its hash before the node
    has answered, and no second one is made of it. Whoever has this key can take payments on their way: keep it as you
    keep the macaroon. While it is replaced there may be several, newest first; keep the old one as long as attempts
    made with it are open.
    """

    base_url: str
    macaroon: Secret
    preimage_key: Secrets
    certificate: bytes | None = None
    """The node's `tls.cert`, PEM or DER: the one certificate that is accepted. None: those the system trusts are."""
    network: str = "mainnet"
    """Else `testnet`, `signet`, `regtest` or `simnet`, where no money is real."""
    private_channels: bool = False
    """Name the node's private channels in its invoices: for a node that has hardly any public ones."""
    name: str = "lnd"

    # No webhooks: it is asked. No way back: a refund is a payment of its own, which this macaroon cannot make.
    capabilities = Capabilities(
        currencies=frozenset({BTC}),
        methods=frozenset({Method.LIGHTNING}),
        create_effect=Effect.KEYED,
        key_window=None,
        lookup=Lookup.AUTHORITATIVE_ABSENCE,
        revocable=True,
        webhook_trust=WebhookTrust.NONE,
    )
    # A 404 without LND's own sentence is a proxy's, and proves no absence; 501: the node has no `invoicesrpc`.
    causes = CAUSES | {404: Cause.UNKNOWN, 501: Cause.REJECTED}

    def __post_init__(self) -> None:
        """Raises ConfigurationError: no such network, a key that could be guessed, a certificate that is none."""
        if self.network not in NETWORKS.values():
            raise ConfigurationError(f"{self.name}: there is no network {self.network}; {', '.join(NETWORKS.values())}")
        if any(len(key.reveal()) < SHORTEST_KEY for key in self.preimage_key):
            raise ConfigurationError(
                f"{self.name}: preimage_key is shorter than {SHORTEST_KEY} characters; "
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        self.ssl_context()

    @classmethod
    def from_env(cls) -> Self:
        """With LND_URL, LND_MACAROON and LND_PREIMAGE_KEY from the environment.

        Where they are set, LND_CERTIFICATE is the text of the node's `tls.cert`, and LND_NETWORK another network.

        Raises:
            MissingCredential: One of the first three is unset or empty.
            ConfigurationError: No such network, a key that could be guessed, a certificate that is none.
        """
        require_env(
            {
                "LND_URL": "the address of your node's REST API",
                "LND_MACAROON": "the node's invoice macaroon, in hexadecimal digits",
                "LND_PREIMAGE_KEY": "a random text of your own, from which the secrets of invoices are made",
            }
        )
        return cls(
            base_url=secret_from_env("LND_URL").reveal(),
            macaroon=secret_from_env("LND_MACAROON"),
            preimage_key=Secrets.from_env("LND_PREIMAGE_KEY"),
            certificate=environ.get("LND_CERTIFICATE", "").strip().encode() or None,
            network=environ.get("LND_NETWORK", "").strip() or cls.network,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: on mainnet, also where the node stands on this machine."""
        return self.network == "mainnet"

    def headers(self) -> Mapping[str, str]:
        return {"grpc-metadata-macaroon": self.macaroon.reveal()}

    def ssl_context(self) -> ssl.SSLContext | None:
        """What connections to the node trust: its own certificate and no other; None: what the system trusts.

        Raises:
            ConfigurationError: The certificate cannot be read.
        """
        if self.certificate is None:
            return None
        is_pem = self.certificate.lstrip().startswith(b"-----BEGIN")
        try:
            if not self.certificate.strip():  # which would mean: all that the system trusts
                raise ValueError("empty")
            context = ssl.create_default_context(cadata=self.certificate.decode() if is_pem else self.certificate)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(f"{self.name}: certificate is neither PEM nor DER") from error
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not have signed itself
        return context

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"code": 2, "message": "…", "details": []}`: gRPC's code, and a sentence."""
        body = decode_json(response.content)
        if not isinstance(body, dict):
            return VendorError()
        message = body.get("message")
        text = message if isinstance(message, str) else ""
        known = next((meaning for start, meaning in SENTENCES.items() if text.startswith(start)), None)
        cause, reason = known or (None, "")
        return VendorError(code=str(body.get("code", "")), message=text, reason=reason, cause=cause)

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /v1/invoices` with a preimage of ours: asked for twice, LND refuses the second, and the first is read.

        Raises:
            InvalidMoney: Not bitcoin, or nothing; LND would let the payer choose the amount.
        """
        if request.price.currency != BTC or request.price.minor_units <= 0:
            raise InvalidMoney(f"{request.price} is no amount of bitcoin that an invoice can be over")
        preimage = self._preimages(request.attempt_id)[0]
        body: dict[str, JsonOut] = {
            "memo": _cut(request.description or request.reference),
            "r_preimage": _encode(preimage),
            "value_msat": str(request.price.minor_units),
            "expiry": str(max(min(request.expires_in, LONGEST) // SECOND, 1)),
            "private": self.private_channels,
        }
        try:
            added = await http.post(
                "/v1/invoices",
                Added,
                operation="create",
                effect=self.capabilities.create_effect,
                json=body,
                key_valid=request.key_valid,
            )
        except Rejected as error:
            if error.reason != EXISTS:
                raise
            return await self._existing(http, preimage, request.attempt_id)
        return self._added(added, preimage, request)

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /v1/invoice/{payment hash}`, in hexadecimal digits here, and only here.

        Raises:
            Mismatch: The invoice is another, or its preimage does not prove that it was paid.
        """
        return (await self._read(http, vendor_id, "fetch")).to_snapshot()

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """By the hash that the attempt's invoice must have, under each key it may have been made with."""
        for preimage in self._preimages(attempt.id):
            try:
                invoice = await self._read(http, hashlib.sha256(preimage).hexdigest(), "find")
            except Rejected as error:
                if error.reason != ABSENT:
                    raise
                continue
            return invoice.to_snapshot(attempt.id)
        return None

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /v2/invoices/cancel`, then the invoice as it is: canceled, or paid before that.

        Raises:
            Rejected: We never learned of an invoice, and there is none to cancel.
        """
        vendor_id = attempt.vendor_id or hashlib.sha256(self._preimages(attempt.id)[0]).hexdigest()
        gone = False
        try:
            body = {"payment_hash": _encode(bytes.fromhex(vendor_id))}
            await http.post("/v2/invoices/cancel", None, operation="revoke", effect=Effect.IDEMPOTENT, json=body)
        except Rejected as error:
            gone = error.reason == ABSENT and bool(attempt.vendor_id)
            if error.reason != SETTLED and not gone:
                raise
        try:
            snapshot = (await self._read(http, vendor_id, "revoke")).to_snapshot(attempt.id)
        except Rejected as error:
            if error.reason != ABSENT:
                raise
            # With --gc-canceled-invoices-on-the-fly, or -on-startup, a node keeps none that it canceled.
            return PaymentSnapshot(vendor_id=vendor_id, status=PaymentStatus.CANCELED, attempt_id=attempt.id)
        ended = snapshot.status is PaymentStatus.EXPIRED
        return replace(snapshot, status=PaymentStatus.CANCELED) if ended else snapshot

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """What was settled of the node's own invoices, whoever made them."""
        async for invoice in self._settled(http, since, "list"):
            if invoice.payment_request:
                yield invoice.to_delivery()

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """All that came in, by when it was settled; what the node paid is left out."""
        async for invoice in self._settled(http, since, "statement"):
            if invoice.settled_at < until:
                yield invoice.to_line()

    def _preimages(self, attempt_id: str) -> Sequence[bytes]:
        """The secret of the attempt's invoice, under each of our keys; nobody without the key can tell it."""
        told = b"holdfast/lnd/preimage/" + attempt_id.encode()
        return [hmac.digest(key.reveal().encode(), told, "sha256") for key in self.preimage_key]

    def _added(self, added: Added, preimage: bytes, request: OfferRequest) -> PaymentSnapshot:
        if added.r_hash != hashlib.sha256(preimage).digest():
            raise self._mismatch("create was answered with an invoice of another payment hash", "id")
        network, price = read_request(added.payment_request)
        if network != self.network:
            raise self._mismatch(f"create was answered with an invoice of {network or 'no network we know'}", "network")
        return PaymentSnapshot(
            vendor_id=added.r_hash.hex(),
            status=PaymentStatus.PENDING,
            price=price,
            attempt_id=request.attempt_id,
            offer=Offer(bolt11=added.payment_request, expires_at=_end(request)),
            live=self.live,
        )

    async def _existing(self, http: Http, preimage: bytes, attempt_id: str) -> PaymentSnapshot:
        """The invoice of an earlier submission."""
        try:
            invoice = await self._read(http, hashlib.sha256(preimage).hexdigest(), "create")
        except Mismatch:
            raise
        except CallFailed as error:  # whatever became of the question: the invoice is there
            raise OutcomeUnknown(
                f"{self.name}: create: the invoice exists, but was not shown: {error}",
                provider=self.name,
                operation="create",
                status=error.status,
                retry_after=error.retry_after,
            ) from error
        return invoice.to_snapshot(attempt_id)

    async def _read(self, http: Http, vendor_id: str, operation: str) -> Invoice:
        invoice = await http.get(f"/v1/invoice/{segment(vendor_id)}", Invoice, operation=operation)
        if invoice.id != vendor_id:
            raise self._mismatch(f"{operation} was answered with another invoice", "id")
        return invoice

    async def _settled(self, http: Http, since: datetime, operation: str) -> AsyncIterator[Invoice]:
        """`GET /v1/invoices`, the newest first, back to what may still have been paid since.

        They are in order of creation: in order of settlement there is only a stream.
        """
        params: dict[str, str | int] = {"reversed": "true", "num_max_invoices": PAGE_SIZE}
        before = 0
        while True:
            page = await http.get("/v1/invoices", Page, operation=operation, params=params)
            for row in reversed(page.invoices):
                try:
                    invoice = Invoice.model_validate(row)
                except ValidationError:
                    continue
                if invoice.made_at < since - LONGEST:
                    return
                if invoice.state == "SETTLED" and invoice.settled_at >= since:
                    yield invoice
            first = page.first_index_offset
            if len(page.invoices) < PAGE_SIZE or first <= 1 or (before and first >= before):
                return
            params["index_offset"] = before = first

    def _mismatch(self, text: str, reason: str) -> Mismatch:
        return Mismatch(f"{self.name}: {text}", provider=self.name, reason=reason)


def read_request(payment_request: str) -> tuple[str, Money | None]:
    """The network and the amount that a BOLT 11 invoice names; empty and None where it names none that we know."""
    found = _HRP.fullmatch(payment_request.lower().rpartition("1")[0])
    if found is None:
        return "", None
    network, digits, multiplier = found.groups()
    if digits is None:
        return NETWORKS[network], None
    msat, rest = divmod(int(digits) * TENTHS[multiplier], 10)
    return NETWORKS[network], None if rest else Money.from_minor(msat, BTC)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cut(text: str) -> str:
    """So much of it as fits, and no half character."""
    return text.encode()[:LONGEST_MEMO].decode(errors="ignore")


def _end(request: OfferRequest) -> datetime:
    """When the invoice ends that was asked for."""
    return request.expires_at - max(request.expires_in - LONGEST, timedelta())
