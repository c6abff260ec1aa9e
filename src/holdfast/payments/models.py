"""What a payment is: the due amount, its attempts, the offers made, and what came in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from holdfast.errors import InvalidInput, MissingExtra
from holdfast.outcome import Cause
from holdfast.payments.keys import is_remembered
from holdfast.values import Money, Reference


class PaymentStatus(StrEnum):
    """Where a payment stands; refunds and disputes are records of their own."""

    CREATED = "created"
    UNKNOWN = "unknown"
    PENDING = "pending"
    AUTHORIZED = "authorized"
    APPROVED = "approved"
    HELD = "held"
    PROCESSING = "processing"
    PARTIALLY_PAID = "partially_paid"
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


class Anomaly(StrEnum):
    """What a person should look at; a flag, never a status."""

    UNDERPAID = "underpaid"
    OVERPAID = "overpaid"
    LATE = "late"
    DUPLICATE = "duplicate"
    MISMATCH = "mismatch"
    TEST_MODE = "test_mode"
    ORPHAN_PAID = "orphan_paid"
    HELD = "held"
    """The money is there, and a check of yours does not let it pass."""
    CAPTURE_UNKNOWN = "capture_unknown"
    """The vendor no longer remembers the key under which money was to be moved, and does not say whether it was."""
    REFUND_UNKNOWN = "refund_unknown"
    """The same of money that was to go back; `settle_refund` says what became of it."""
    MANUAL = "manual"
    """A person at the vendor's marked it as paid: no money was seen."""


class Method(StrEnum):
    """By what money comes in."""

    LIGHTNING = "lightning"
    ON_CHAIN = "on_chain"
    STABLECOIN = "stablecoin"
    CARD = "card"
    WALLET = "wallet"
    """An account with the vendor, such as PayPal's."""
    MOBILE_MONEY = "mobile_money"
    BANK = "bank"


class Capture(StrEnum):
    """When the money moves, once the payer agreed."""

    AUTO = "auto"
    MANUAL = "manual"
    """It is set aside for us, and moves when `capture` says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payer:
    """Who pays, where a vendor has to be told; never in a log."""

    email: str = field(default="", repr=False)
    msisdn: str = field(default="", repr=False)
    """A phone number with its country code, digits only."""


class RefundStatus(StrEnum):
    """Where a refund stands."""

    CREATED = "created"
    UNKNOWN = "unknown"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    MANUAL_REQUIRED = "manual_required"
    """The vendor cannot send money back by itself: a person has to, or the payer has to claim it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """How the payer can pay; at least one of the four."""

    checkout_url: str | None = None
    bolt11: str | None = None
    address: str | None = None
    embedded: bool = False
    """In a form of your own, in a page or an app, which needs what `payments.client_secret(reference)` fetches."""
    expires_at: datetime | None = None

    @property
    def payload(self) -> str:
        """What the QR code says: the Lightning invoice, else the address, else the page."""
        for text, scheme in ((self.bolt11, "lightning:"), (self.address, "bitcoin:")):
            if text:
                return (scheme + text).upper() if scheme == "lightning:" else scheme + text
        return self.checkout_url or ""

    def qr_svg(self, *, scale: int = 4) -> str:
        """The offer as an SVG picture, to put into a page.

        Raises:
            InvalidInput: It is paid in a form of your own, and there is nothing to scan.
            MissingExtra: The extra `qr` is not installed.
        """
        if not self.payload:
            raise InvalidInput("this offer is paid in a form of your own: there is nothing to scan")
        try:
            import segno
        except ImportError:
            raise MissingExtra("qr") from None
        return segno.make(self.payload, micro=False).svg_inline(scale=scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What the due amount is in another currency, frozen for one attempt."""

    price: Money
    rate: str
    """Units of the price's currency per unit of the due's, as an exact decimal."""
    source: str
    at: datetime

    @classmethod
    def of(cls, due: Money, rate: Decimal, currency: str, *, source: str, at: datetime) -> "Quote":
        """`due` at `rate`, rounded up."""
        return cls(price=due.convert(rate, currency), rate=str(rate), source=source, at=at)


class AttemptState(StrEnum):
    """What we know of one effect asked of one provider."""

    SENDING = "sending"
    """Committed before the first byte; past its timeout it is `unknown`, whoever died."""
    OFFERED = "offered"
    """The vendor holds an offer, and we know it."""
    UNKNOWN = "unknown"
    """It may hold one: nobody was shown it."""
    FAILED = "failed"
    """Proven: it holds none."""
    CLOSED = "closed"
    """Over: paid, expired past its grace, or never found."""


class MoveState(StrEnum):
    """What we know of money that a vendor was asked to move."""

    SENDING = "sending"
    UNKNOWN = "unknown"
    DONE = "done"
    FAILED = "failed"
    """Proven: it did not move."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """Money a vendor is asked to move once, under one key, however often its answer is lost."""

    key: str
    money: Money
    state: MoveState = MoveState.SENDING
    claim: int = 1
    """Grows with every submission; an answer retires only its own claim."""
    claimed_until: datetime
    """After this moment a claim without an answer is unknown."""
    key_until: datetime | None = None
    """Until when the vendor surely remembers the key, frozen at the first submission; None: it has none."""
    cause: Cause | None = None
    error: str = ""
    told: bool = False
    """It was flagged: whether the money moved, only a person can find out."""

    def may_be_repeated(self, now: datetime) -> bool:
        """Its answer was lost, and the vendor surely remembers the key: asked again, nothing moves twice."""
        return self.state is MoveState.UNKNOWN and is_remembered(self.key_until, now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A line of a payment's history."""

    at: datetime
    what: str
    """The fact that was learned: `started`, `answered`, `looked`, `resolved`."""
    number: int = 0
    """Of the attempt; 0: of the payment as a whole."""
    status: PaymentStatus
    """Of the payment, after it."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One effect asked of one provider under one key."""

    number: int
    id: str
    """Ours, unguessable, echoed by vendors that echo anything; part of the webhook URL of unsigned vendors."""
    provider: str
    state: AttemptState
    claim: int
    """Grows with every submission; an answer retires only its own claim."""
    why: str = ""
    """Why this provider was asked in its place, in the route's words."""
    price: Money
    """What this provider was asked for, in its own currency."""
    quote: Quote | None = None
    claimed_at: datetime
    claimed_until: datetime
    """After this moment a claim without an answer is unknown."""
    expires_at: datetime
    key_until: datetime | None = None
    """Until when the vendor surely remembers `id` as the key of the creation, frozen at its first submission."""
    vendor_id: str = ""
    offer: Offer | None = None
    shown_at: datetime | None = None
    withdrawn: bool = False
    """Nobody is shown it any more, and we never capture it: it is to be revoked, or waited out."""
    capture: Move | None = None
    captures: int = 0
    """How often the vendor was asked to move the money under a key of its own."""
    status: PaymentStatus = PaymentStatus.CREATED
    """The vendor's own state of it, in our words, as last fetched."""
    received: Money | None = None
    paid_at: datetime | None = None
    """When we learned that all of it had come in."""
    refunded: Money | None = None
    """What went back of it, as the vendor says."""
    disputed: Money | None = None
    fee: Money | None = None
    cause: Cause | None = None
    error: str = ""
    looks: int = 0
    """How often it was looked at since it last changed."""
    looked_at: datetime | None = None
    answered_at: datetime | None = None
    """When the vendor last said anything of it, were it that it shows nothing."""

    @property
    def paid(self) -> bool:
        """The full price came in, as the vendor confirmed on a re-fetch."""
        return self.status is PaymentStatus.PAID


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment:
    """An amount due under a reference, and everything done to collect it."""

    reference: Reference
    due: Money
    description: str = ""
    return_url: str | None = None
    expires_in: timedelta
    capture: Capture = Capture.AUTO
    payer: Payer | None = None
    tenant: str = ""
    """Whose accounts take it; empty: your own."""
    region: str = ""
    """Where the customer's data has to stay, for a route that cares."""
    status: PaymentStatus = PaymentStatus.CREATED
    attempts: tuple[Attempt, ...] = ()
    anomalies: frozenset[Anomaly] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    created_at: datetime
    paid_at: datetime | None = None
    canceling: bool = False
    """The caller wants nothing more of it; it is canceled once its last offer can no longer be paid."""
    screened: bool = False
    """A check of yours has spoken of the money that came in, or a person has."""
    refused: bool = False
    """A person refused it: no other offer is made of it."""
    history: tuple[Change, ...] = ()
    """What was learned, in order."""
    version: int = 0
    """Of the record, as read: every change is one more."""

    @property
    def offer(self) -> Offer | None:
        """The one offer the payer may be shown; None before there is one, and after it ended or money came in."""
        return self.offered.offer if self.offered else None

    @property
    def offered(self) -> Attempt | None:
        """The attempt whose offer that is."""
        if self.status in (PaymentStatus.PAID, PaymentStatus.HELD, PaymentStatus.CANCELED):
            return None
        shown = [attempt for attempt in self.attempts if attempt.shown_at and attempt.state is AttemptState.OFFERED]
        return shown[-1] if shown and not shown[-1].withdrawn else None

    @property
    def provider(self) -> str:
        """The name of the provider that took the money, or makes the current offer."""
        for attempt in reversed(self.attempts):
            if attempt.paid:
                return attempt.provider
        return self.attempts[-1].provider if self.attempts else ""

    @property
    def route(self) -> tuple[str, ...]:
        """Every provider tried, in order, and what became of it: `swiss-bitcoin-pay:unknown`, `lnbits:offered`."""
        return tuple(f"{attempt.provider}:{attempt.state}" for attempt in self.attempts)

    @property
    def received(self) -> Money:
        """What came in over all attempts, in the due currency; at an attempt's frozen quote, rounded down."""
        total = 0
        for attempt in self.attempts:
            if attempt.received:
                total += attempt.received.minor_units * self.due.minor_units // attempt.price.minor_units
        return Money.from_minor(total, self.due.currency)
