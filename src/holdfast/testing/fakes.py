"""Providers in memory, for programs that use holdfast and want neither accounts nor sockets in their tests.

hub = Holdfast(
    store="memory://",
    payments=[FakePayments()],
    meetings=[FakeMeetings()],
    notifications=[FakeNotifications()],
)
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from holdfast.errors import NotSent, Rejected
from holdfast.http.session import Http
from holdfast.http.vendor import HttpDefaults
from holdfast.meetings.models import Feature, MeetingRequest, MeetingSnapshot
from holdfast.meetings.provider import Capabilities as MeetingCapabilities
from holdfast.meetings.provider import CreateSemantics
from holdfast.notifications.models import Accepted, Channel, Message
from holdfast.notifications.provider import Capabilities as NotificationCapabilities
from holdfast.notifications.provider import Wire
from holdfast.outcome import Effect
from holdfast.payments.models import Offer, PaymentStatus
from holdfast.payments.provider import Capabilities as PaymentCapabilities
from holdfast.payments.provider import OfferRequest, PaymentSnapshot
from holdfast.values import Money, Secret


@dataclass(kw_only=True)
class FakePayments(HttpDefaults):
    """Takes payments from nobody: `pay(reference)` is the payer, the next sweep or `refresh` finds the money."""

    name: str = "fake-payments"
    base_url: str = "http://127.0.0.1"
    """Never called; it says that no money is real."""
    down: bool = False
    """True: connections are refused."""
    requests: list[OfferRequest] = field(default_factory=list[OfferRequest])
    """Every offer asked for, in order."""

    capabilities = PaymentCapabilities(currencies=None)

    def __post_init__(self) -> None:
        self._offers: dict[str, PaymentSnapshot] = {}
        self._latest: dict[str, str] = {}

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """An offer with a page that does not exist."""
        _require(self.name, "create", up=not self.down)
        self.requests.append(request)
        vendor_id = f"{self.name}-{len(self.requests)}"
        snapshot = PaymentSnapshot(
            vendor_id=vendor_id,
            status=PaymentStatus.PENDING,
            price=request.price,
            attempt_id=request.attempt_id,
            offer=Offer(checkout_url=f"https://pay.invalid/{vendor_id}", expires_at=request.expires_at),
        )
        self._offers[vendor_id] = snapshot
        self._latest[request.reference] = vendor_id
        return snapshot

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """The offer as it stands."""
        _require(self.name, "fetch", up=not self.down)
        if vendor_id not in self._offers:
            raise Rejected(f"{self.name}: there is no offer {vendor_id}", provider=self.name, status=404)
        return self._offers[vendor_id]

    def pay(self, reference: str, amount: Money | None = None) -> None:
        """Pay the latest offer for this reference: its price, or another amount.

        Raises:
            LookupError: No offer was made for it.
        """
        if reference not in self._latest:
            raise LookupError(f"{self.name} made no offer for {reference}")
        vendor_id = self._latest[reference]
        offer = self._offers[vendor_id]
        received = amount or offer.price
        enough = offer.price is None or (received is not None and received >= offer.price)
        status = PaymentStatus.PAID if enough else PaymentStatus.PARTIALLY_PAID
        self._offers[vendor_id] = replace(offer, status=status, received=received)


@dataclass(kw_only=True)
class FakeMeetings:
    """Holds meetings nowhere: a link of its own for each booking."""

    name: str = "fake-meetings"
    requests: list[MeetingRequest] = field(default_factory=list[MeetingRequest])
    """Every meeting asked for, in order."""

    capabilities = MeetingCapabilities(create=CreateSemantics.LOCAL, features=frozenset(Feature))

    def create(self, request: MeetingRequest, *, now: datetime) -> MeetingSnapshot:
        """A room that does not exist."""
        self.requests.append(request)
        return MeetingSnapshot(
            vendor_id=request.token,
            join_url=f"https://meet.invalid/{request.token}",
            token=request.token,
            starts_at=request.starts_at,
        )

    def host_url(self, vendor_id: str, *, starts_at: datetime, ends_at: datetime, now: datetime) -> Secret:
        """The same room, as its host."""
        return Secret(f"https://meet.invalid/{vendor_id}?host")


@dataclass(kw_only=True)
class FakeNotifications:
    """Tells nobody: what would have been told is in `sent`."""

    channel: Channel = "email"
    name: str = ""
    """By default after its channel: `fake-email`."""
    down: bool = False
    """True: connections are refused."""
    gone: set[str] = field(default_factory=set[str])
    """Addresses that do not work any more."""
    sent: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Address and text of every message, in order."""
    messages: list[Message] = field(default_factory=list[Message])

    wire = Wire.NONE

    def __post_init__(self) -> None:
        self.name = self.name or f"fake-{self.channel}"

    @property
    def capabilities(self) -> NotificationCapabilities:
        return NotificationCapabilities(channel=self.channel, max_length=100_000)

    async def send(self, wire: object, message: Message, address: str, *, key: str, effect: Effect) -> Accepted:
        """Keep it."""
        _require(self.name, "send", up=not self.down)
        if address in self.gone:
            text = f"{self.name}: nobody is there any more"
            raise Rejected(text, provider=self.name, operation="send", reason="recipient_gone")
        self.sent.append((address, message.text))
        self.messages.append(message)
        return Accepted(vendor_id=f"{self.name}-{len(self.sent)}")


def _require(provider: str, operation: str, *, up: bool) -> None:
    """Raises NotSent while the provider is down."""
    if not up:
        text = f"{provider}: {operation} could not connect: the connection was refused; nothing was sent"
        raise NotSent(text, provider=provider, operation=operation, hard=True)
