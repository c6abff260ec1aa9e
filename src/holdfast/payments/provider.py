"""What a payment provider is: facts, and verbs that each make one exchange.

Every provider creates and fetches. What else a vendor can do is a protocol of its own beside that: look up by our id,
revoke, capture, refund, list disputes, list what it moved, quote.
"""

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, runtime_checkable

from holdfast.http.session import Http, HttpVendor
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, Capture, Method, Offer, Payer, PaymentStatus, Quote, RefundStatus
from holdfast.values import Money, Secret


class WebhookTrust(StrEnum):
    """What a webhook of this vendor proves."""

    SIGNED_BODY = "signed_body"
    KEYED_URL = "keyed_url"
    NONE = "none"


class Lookup(StrEnum):
    """What finding nothing by our own id proves."""

    NONE = "none"
    """The vendor cannot be asked."""
    AUTHORITATIVE = "authoritative"
    """What is found exists; nothing found proves nothing."""
    AUTHORITATIVE_ABSENCE = "authoritative_absence"
    """Nothing found proves that nothing exists."""


class Refunding(StrEnum):
    """How money goes back to a payer."""

    NONE = "none"
    """The vendor has no way."""
    API = "api"
    """It does when asked."""
    MANUAL = "manual"
    """A person has to do it, or the payer has to claim it: of bitcoin nobody knows where it came from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fee:
    """What a vendor takes of a payment: a share of it and a fixed amount, as its price list said on a day."""

    percent: Decimal
    fixed: Money | None = None
    as_of: date
    source: str
    """The page of the price list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an account at a vendor can do, as data."""

    currencies: frozenset[str] | None
    """In which it can be asked for money; None: in any. What is due in another needs a quote."""
    methods: frozenset[Method] = frozenset()
    create_effect: Effect = Effect.ONCE
    key_window: timedelta | None = None
    """How long the vendor remembers the key of a KEYED creation; None: for ever, or it has no keys."""
    lookup: Lookup = Lookup.NONE
    revocable: bool = False
    """`revoke` proves that an offer can no longer be paid."""
    open_ended: bool = False
    """An offer does not end by itself: when its time is over it can be paid until it is revoked."""
    payer_visible: bool = False
    """Creating it reaches the payer by itself: an unknown outcome never falls over."""
    payer: bool = False
    """It has to be told who pays."""
    manual_capture: bool = False
    """It can set money aside until it is captured."""
    captures: bool = False
    """What the payer approved moves only when we capture it, whatever was asked for."""
    authorizes: bool = False
    """What is to be captured by hand is set aside only when we ask for it, once the payer approved."""
    releasable: bool = False
    """`revoke` lets go of what is set aside, also where it cannot take back an offer."""
    capture_effect: Effect = Effect.ONCE
    capture_key_window: timedelta | None = None
    refunding: Refunding = Refunding.NONE
    refund_effect: Effect = Effect.ONCE
    refund_key_window: timedelta | None = None
    fee: Fee | None = None
    webhook_trust: WebhookTrust = WebhookTrust.NONE
    grace: timedelta = timedelta(minutes=2)
    """How long after its expiry an offer may still be paid in the ordinary course."""
    expiry_is_final: bool = False
    """What the vendor calls expired can no longer be paid, and no money comes late."""
    late_looks: Sequence[timedelta] = field(
        default=(timedelta(minutes=10), timedelta(hours=1), timedelta(hours=24)),
    )
    """When, after expiry and grace, it is looked at again for money that came late."""
    minimum_expiry: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferRequest:
    """What a provider is asked to create."""

    reference: str
    attempt_id: str
    price: Money
    description: str
    expires_in: timedelta
    expires_at: datetime
    webhook_url: str | None
    """Where the vendor should call us; already carries the MAC for vendors that do not sign."""
    return_url: str | None
    capture: Capture = Capture.AUTO
    payer: Payer | None = None
    """Only where the vendor has to be told, or the caller wants the vendor to write to them."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    key_valid: Callable[[], bool] | None = None
    """For a KEYED creation, under the key `attempt_id`: whether the vendor still remembers it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaymentSnapshot:
    """What the vendor says of one of its objects, in our words."""

    vendor_id: str
    status: PaymentStatus
    price: Money | None = None
    """What the vendor thinks is due; None when it does not say."""
    received: Money | None = None
    attempt_id: str = ""
    """Our attempt's id as the vendor echoes it; empty when it does not."""
    offer: Offer | None = None
    live: bool | None = None
    """False: test money."""
    refunded: Money | None = None
    """What went back of it so far, in the currency of the price; None when it does not say."""
    disputed: Money | None = None
    """What the payer's bank has asked back, or taken; None when it does not say."""
    fee: Money | None = None
    """What the vendor kept of it."""
    reason: str = ""
    """Why it failed, in the vendor's code: `card_declined`."""
    by_hand: bool = False
    """A person at the vendor's marked it so; no money was seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundRequest:
    """What a provider is asked to send back."""

    reference: str
    attempt_id: str
    vendor_id: str
    """The vendor's id of what was paid."""
    key: str
    """Ours, of this refund and its amount: the vendor's idempotency key, or what it echoes."""
    money: Money
    """In the currency of the attempt's price."""
    reason: str = ""
    key_valid: Callable[[], bool] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundSnapshot:
    """What the vendor says of one refund, in our words."""

    vendor_id: str
    status: RefundStatus
    money: Money | None = None
    key: str = ""
    """Ours, as the vendor echoes it; empty when it does not."""
    claim_url: str | None = None
    """Where the payer claims it, for vendors that cannot send by themselves."""
    reason: str = ""


class DisputeStatus(StrEnum):
    """Where a dispute stands."""

    OPEN = "open"
    """An answer is due from us."""
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class DisputeSnapshot:
    """What the vendor says of one dispute, in our words."""

    vendor_id: str
    status: DisputeStatus
    money: Money
    reason: str = ""
    answer_by: datetime | None = None


class LineKind(StrEnum):
    """What a line of a statement is about."""

    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"
    FEE = "fee"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementLine:
    """Money that moved at a vendor, as its own list has it."""

    kind: LineKind
    vendor_id: str
    payment_id: str
    """The vendor's id of the payment it belongs to; of a payment, its own."""
    money: Money
    at: datetime
    fee: Money | None = None
    attempt_id: str = ""
    """Our id, as the vendor echoes it; empty when it does not."""
    reference: str = ""


@runtime_checkable
class PaymentProvider(HttpVendor, Protocol):
    """One account at one vendor that takes payments."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """Create the offer: one exchange; its `offer` is set."""
        ...

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """The object as the vendor has it now. Raises Rejected with status 404: it has none."""
        ...


@runtime_checkable
class SupportsLookup(Protocol):
    """The vendor can be asked for what we created, by our own id."""

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """The object of this attempt, if the vendor shows one."""
        ...


@runtime_checkable
class SupportsLocating(Protocol):
    """A delivery may name only a part of what was paid, such as the charge that is disputed."""

    async def locate(self, http: Http, facts: Mapping[str, str]) -> str:
        """The id of our attempt, as what these facts of a delivery name echoes it; empty: it is none of ours."""
        ...


@runtime_checkable
class SupportsRevoking(Protocol):
    """An offer can be taken back."""

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """The object once it can no longer be paid, or as it stands, where it was paid before that."""
        ...


@runtime_checkable
class SupportsAuthorizing(Protocol):
    """What the payer approved is set aside when we say so."""

    async def authorize(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """The object with the money set aside; asked again, it sets nothing more aside."""
        ...


@runtime_checkable
class SupportsClientSecret(Protocol):
    """The payer can pay in a form of the caller's own, in a page or an app."""

    async def client_secret(self, http: Http, attempt: Attempt) -> Secret:
        """What lets that form pay this offer and nothing else: read for each showing of it, kept nowhere.

        Raises Rejected: there is nothing to be paid any more.
        """
        ...


@runtime_checkable
class SupportsCapture(Protocol):
    """What the payer agreed to moves when we say so."""

    async def capture(
        self, http: Http, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        """The object with the money moved: one exchange, under our key."""
        ...


@runtime_checkable
class SupportsRefunds(Protocol):
    """Money can be sent back."""

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """Ask for it: one exchange, under our key."""
        ...

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """The refund as the vendor has it now."""
        ...


@runtime_checkable
class SupportsRefundLookup(Protocol):
    """A refund whose answer was lost can be found again."""

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """The refund of this key, if the vendor shows one."""
        ...


@runtime_checkable
class SupportsDisputes(Protocol):
    """The vendor tells what payers asked back through their banks."""

    async def disputes(self, http: Http, attempt: Attempt) -> Sequence[DisputeSnapshot]:
        """Those of this payment."""
        ...


@runtime_checkable
class SupportsStatements(Protocol):
    """The vendor lists what it moved."""

    def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterable[StatementLine]:
        """Every payment, refund and dispute of that time that it has, page by page, in any order."""
        ...


@runtime_checkable
class SupportsQuotes(Protocol):
    """The vendor names the price of an amount in a currency it takes."""

    async def quote(self, http: Http, due: Money, *, at: datetime) -> Quote:
        """`due` in the provider's currency, rounded up."""
        ...
