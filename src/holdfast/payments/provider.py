"""What a payment provider is: facts, and verbs that each make one exchange."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from holdfast.http.session import Http, HttpVendor
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, Offer, PaymentStatus, Quote
from holdfast.values import Money


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an account at a vendor can do, as data."""

    currencies: frozenset[str] | None
    """In which it can be asked for money; None: in any. What is due in another needs a quote."""
    create_effect: Effect = Effect.ONCE
    lookup: Lookup = Lookup.NONE
    revocable: bool = False
    payer_visible: bool = False
    """Creating it reaches the payer by itself: an unknown outcome never falls over."""
    webhook_trust: WebhookTrust = WebhookTrust.NONE
    grace: timedelta = timedelta(minutes=2)
    """How long after its expiry an offer may still be paid in the ordinary course."""
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
class SupportsQuotes(Protocol):
    """The vendor names the price of an amount in a currency it takes."""

    async def quote(self, http: Http, due: Money, *, at: datetime) -> Quote:
        """`due` in the provider's currency, rounded up."""
        ...
