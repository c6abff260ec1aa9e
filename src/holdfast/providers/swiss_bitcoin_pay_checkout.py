"""Swiss Bitcoin Pay without a server: invoices made with the merchant's own wallet and relays, by their package.

The package swissbitcoinpay-checkout on PyPI, version 0.1.0; "their README" below is the text on its page there.
"""

from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Final, Protocol, Self, TypeVar, cast
from urllib.parse import urlsplit

from holdfast.clock import Clock
from holdfast.errors import CallFailed, ConfigurationError, InvalidInput, MissingExtra
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, OpensWebSockets, Transport
from holdfast.http.vendor import HttpDefaults
from holdfast.http.wire import one_line
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup, OfferRequest, PaymentSnapshot, WebhookTrust
from holdfast.values import BTC, Money, Secret, require_env, secret_from_env

T = TypeVar("T")

EXTRA: Final = "swiss-bitcoin-pay-checkout"

# Their README, "Payments and their states".
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "open": PaymentStatus.PENDING,
    "unconfirmed": PaymentStatus.PROCESSING,
    "paid": PaymentStatus.PAID,
    "expired": PaymentStatus.EXPIRED,
}

# Their README, "Errors": after any of them there is nothing to show. `invoice_pending` and `order_paid` are answers,
# and read as such. What stands in the way of this vendor only is refused, so that another provider may be asked.
CAUSES: Final[Mapping[str, Cause]] = {
    "invalid_key": Cause.CREDENTIAL,
    "revoked": Cause.CREDENTIAL,
    "channel_not_found": Cause.REFUSED,
    "rate": Cause.REFUSED,
    "onchain_unavailable": Cause.REFUSED,
    "checkout_unavailable": Cause.REFUSED,
    "unsupported_currency": Cause.REJECTED,
    "invalid_option": Cause.REJECTED,
    "invalid_order": Cause.REJECTED,
    "invalid_invoice": Cause.MISMATCH,
    "network": Cause.UNKNOWN,
}

SECOND: Final = timedelta(seconds=1)
SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(hours=1)
GRACE: Final = timedelta(seconds=120)
LONGEST_NOTE: Final = 100
REQUEST_TIMEOUT: Final = 4_000
"""Milliseconds that one relay or one server has for an answer; their own 10 s outlast a whole creation here."""
_LONGEST_TEXT: Final = 200
_CONTROL: Final = dict.fromkeys((*range(0x20), 0x7F), " ")
_FURTHEST: Final = (
    PaymentStatus.PAID,
    PaymentStatus.PROCESSING,
    PaymentStatus.PARTIALLY_PAID,
    PaymentStatus.UNKNOWN,
    PaymentStatus.PENDING,
    PaymentStatus.EXPIRED,
)


# What we use of the package, so that types are known where it is not installed.


class Invoice(Protocol):
    """An invoice, as it is made and as the merchant's registry has it."""

    ref: str
    bolt11: str | None
    onchain_address: str | None
    sats: int
    expires_at: int


class Made(Invoice, Protocol):
    """An invoice that was just made."""

    checkout_url: str | None


class Status(Protocol):
    """How an invoice stands."""

    state: str
    received: int | None
    """Satoshi; None where it was paid over Lightning, which takes no other amount."""


class Client(Protocol):
    """Their `AsyncClient`."""

    async def create_invoice(
        self, *, ref: str, sats: int, duration_seconds: int, note: str, checkout: bool, redirect_url: str | None
    ) -> Made: ...
    async def find_invoices(self, ref: str) -> Sequence[Invoice]: ...
    async def get_status(self, invoice: Invoice) -> Status: ...


class Said(Protocol):
    """One of their errors."""

    code: str
    retryable: bool


class Earlier(Protocol):
    """One of their errors that say that the order has an invoice already."""

    invoice: Invoice
    checkout_url: str | None
    """A new link to its page, where one was asked for; only as long as it may be paid."""
    status: Status
    """Only of one that was paid."""


class Package(Protocol):
    """Their package."""

    AsyncClient: Callable[..., Client]
    HttpResponse: Callable[[int, bytes], object]
    SwissBitcoinPayError: type[Exception]
    InvalidKeyError: type[Exception]
    InvoicePendingError: type[Exception]
    OrderPaidError: type[Exception]


def load_package() -> Package:
    """Raises MissingExtra: it is not installed."""
    try:
        return cast(Package, import_module("swissbitcoinpay_checkout"))
    except ImportError:
        raise MissingExtra(EXTRA) from None


class Courier:
    """Their HTTP over our transport: no redirects, no threads. It knows whether anybody answered."""

    def __init__(self, transport: Transport, answer: Callable[[int, bytes], object]) -> None:
        self._transport = transport
        self._answer = answer
        self.answered = False

    async def __call__(self, url: str, *, headers: Mapping[str, str], socket_timeout: float, max_bytes: int) -> object:
        """One GET, which the package itself ends after its time, and whose answer it measures."""
        response = await self._transport.send(HttpRequest(method="GET", url=url, headers=tuple(headers.items())))
        self.answered = True
        return self._answer(response.status, response.content)


@dataclass(frozen=True, kw_only=True)
class SwissBitcoinPayCheckout(HttpDefaults):
    """Take payments with Swiss Bitcoin Pay's serverless checkout.

    `key` is an integration key, `sbp_ck_…`, which the merchant makes in the app: it makes invoices and cannot spend.
    One key is for one shop. There is nobody to send webhooks: payments are found by looking.
    """

    key: Secret
    page: bool = False
    """Also make a link to the merchant's own page, which sends the payer back to `return_url`."""
    name: str = "swiss-bitcoin-pay-checkout"

    base_url = "https://swiss-bitcoin-pay.ch"  # where nothing is ever asked: there is no server

    # An order whose invoice can still be paid gets no second one, and is handed out again: until its end and 120 s
    # after, of which the shortest lasts 60. What a majority of the relays does not show may still lie on the others.
    # Money does not go back: the key cannot spend.
    capabilities = Capabilities(
        currencies=frozenset({BTC}),
        methods=frozenset({Method.LIGHTNING, Method.ON_CHAIN}),
        create_effect=Effect.KEYED,
        key_window=SHORTEST + GRACE,
        lookup=Lookup.AUTHORITATIVE,
        revocable=False,
        webhook_trust=WebhookTrust.NONE,
        grace=GRACE,
        minimum_expiry=SHORTEST,
    )
    private_fields = frozenset({"bolt11", "onchain_address", "note"})

    def __post_init__(self) -> None:
        """Raises MissingExtra: the package is not installed; ConfigurationError: the key is none."""
        package = load_package()
        try:
            package.AsyncClient(self.key.reveal(), http=load_package)  # any function: its own would set up TLS first
        except package.InvalidKeyError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None

    @classmethod
    def from_env(cls) -> Self:
        """With SBP_CHECKOUT_KEY from the environment.

        Raises:
            MissingCredential: It is unset or empty.
            MissingExtra: The package is not installed.
            ConfigurationError: It is no integration key.
        """
        require_env(
            {
                "SBP_CHECKOUT_KEY": "the integration's key from the Swiss Bitcoin Pay app, sbp_ck_...",
            }
        )
        return cls(key=secret_from_env("SBP_CHECKOUT_KEY"))

    @property
    def live(self) -> bool:
        """Whether money is real: there is no test network, but under `.test` (RFC 6761) nobody can have a relay."""
        relays = urlsafe_b64decode(self.key.reveal().rpartition(".")[2] + "==").decode()
        return not all(str(urlsplit(f"//{relay}").hostname).endswith(".test") for relay in relays.split(","))

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`create_invoice`; an invoice of the attempt that was made before is found, and no second one made.

        Their reference is the attempt's id: an order there has one price and is paid once, as an attempt is, while a
        reference of ours may need several.

        Raises:
            InvalidMoney: Not bitcoin, or a fraction of a satoshi.
            InvalidInput: Longer than an hour.
        """
        sats = request.price.sat
        if request.expires_in > LONGEST:
            raise InvalidInput(
                f"{self.name}: an invoice lasts an hour at most, and {request.expires_in} were asked for; "
                "pass a shorter expires_in="
            )

        async def ask(client: Client) -> PaymentSnapshot:
            package = load_package()
            try:
                made = await client.create_invoice(
                    ref=request.attempt_id,
                    sats=sats,
                    duration_seconds=max(request.expires_in, SHORTEST) // SECOND,
                    note=_note(request.description) or request.reference,
                    checkout=self.page,
                    redirect_url=request.return_url if self.page else None,
                )
            except package.InvoicePendingError as error:
                earlier = cast(Earlier, error)
                return _snapshot(earlier.invoice, PaymentStatus.PENDING, None, page=earlier.checkout_url)
            except package.OrderPaidError as error:
                earlier = cast(Earlier, error)
                return _told(earlier.invoice, earlier.status)
            return _snapshot(made, PaymentStatus.PENDING, None, page=made.checkout_url)

        return await self._run(
            http, ask, operation="create", effect=self.capabilities.create_effect, key_valid=request.key_valid
        )

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`find_invoices`, then `get_status`: all that a check needs is in the merchant's registry.

        Raises:
            Rejected: The relays show no invoice; not as a 404, for they prove no absence.
        """

        async def ask(client: Client) -> PaymentSnapshot:
            found = await self._look(client, vendor_id)
            if found is None:
                raise self._failed(Cause.REJECTED, "fetch", "the relays show no invoice of this order", reason="absent")
            return found

        return await self._run(http, ask, operation="fetch", effect=Effect.READ)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """The same by the attempt's id, which is their reference."""

        async def ask(client: Client) -> PaymentSnapshot | None:
            return await self._look(client, attempt.id)

        return await self._run(http, ask, operation="find", effect=Effect.READ)

    async def _look(self, client: Client, ref: str) -> PaymentSnapshot | None:
        """The order: its invoice, or the one of several that came furthest, with all that came in."""
        invoices = await client.find_invoices(ref)
        told = [_told(invoice, await client.get_status(invoice)) for invoice in invoices]
        if len(told) < 2:
            return told[0] if told else None
        # A call that failed half-way may leave a second invoice, which nobody was shown.
        came = sum(each.received.minor_units for each in told if each.received)
        furthest = min(told, key=lambda each: _FURTHEST.index(each.status))
        return PaymentSnapshot(
            vendor_id=ref,
            status=furthest.status,
            price=furthest.price,
            received=Money.from_minor(came, BTC) if came else None,
            attempt_id=ref,
            offer=furthest.offer,
        )

    async def _run(
        self,
        http: Http,
        ask: Callable[[Client], Awaitable[T]],
        *,
        operation: str,
        effect: Effect,
        key_valid: Callable[[], bool] | None = None,
    ) -> T:
        """One exchange of the package, with a client of its own: it keeps nothing between calls but its options."""
        package = load_package()

        async def exchange(transport: Transport, clock: Clock) -> T:
            courier = Courier(transport, package.HttpResponse)
            client = package.AsyncClient(
                self.key.reveal(),
                http=courier,
                websocket=transport.websocket if isinstance(transport, OpensWebSockets) else None,
                relay_timeout_ms=REQUEST_TIMEOUT,
                http_timeout_ms=REQUEST_TIMEOUT,
                now=lambda: clock.now().timestamp(),
            )
            try:
                return await ask(client)
            except CallFailed:
                raise
            except package.SwissBitcoinPayError as error:
                raise self._understood(error, operation, effect, answered=courier.answered) from error
            except Exception as error:  # a border: what the package does not name may have happened after an effect
                text = f"failed in swissbitcoinpay-checkout: {type(error).__name__}"
                raise self._failed(Cause.UNKNOWN, operation, text) from error

        return await http.run(exchange, operation=operation, effect=effect, key_valid=key_valid)

    def _understood(self, error: Exception, operation: str, effect: Effect, *, answered: bool) -> CallFailed:
        said = cast(Said, error)
        cause = CAUSES.get(said.code, Cause.UNKNOWN)
        if cause is Cause.UNKNOWN and said.code == "network" and not answered:
            # Only the merchant's Lightning address says what can be paid how: without its answer nothing is published.
            cause = Cause.NOT_SENT
        if cause is Cause.MISMATCH and effect is not Effect.READ:
            cause = Cause.REFUSED  # the Lightning address made a wrong invoice, which is not published then
        reason = getattr(error, "param", "") or getattr(error, "check", "") or ""
        if getattr(error, "newer_format", False):
            reason = "newer_format"
        hard = cause is Cause.NOT_SENT
        return self._failed(cause, operation, str(error), code=said.code, reason=str(reason), hard=hard)

    def _failed(self, cause: Cause, operation: str, text: str, **facts: object) -> CallFailed:
        short = one_line(text)[:_LONGEST_TEXT]
        nothing = "; nothing was sent" if cause is Cause.NOT_SENT else ""
        return CallFailed.of(
            cause, f"{self.name}: {operation}: {short}{nothing}", provider=self.name, operation=operation, **facts
        )


def _told(invoice: Invoice, status: Status) -> PaymentSnapshot:
    """What the status says of the invoice."""
    ours = STATUSES.get(status.state, PaymentStatus.UNKNOWN)
    received = status.received or 0
    if ours is PaymentStatus.PENDING and received:
        ours = PaymentStatus.PARTIALLY_PAID
    if ours is PaymentStatus.PAID:
        received = max(received, invoice.sats)  # less is paid where the merchant set a tolerance in the app
    return _snapshot(invoice, ours, Money.from_sat(received) if received else None)


def _snapshot(
    invoice: Invoice, status: PaymentStatus, received: Money | None, *, page: str | None = None
) -> PaymentSnapshot:
    return PaymentSnapshot(
        vendor_id=invoice.ref,
        status=status,
        price=Money.from_sat(invoice.sats),
        received=received,
        attempt_id=invoice.ref,
        offer=Offer(
            checkout_url=page,
            bolt11=invoice.bolt11,
            address=invoice.onchain_address,
            expires_at=datetime.fromtimestamp(invoice.expires_at, UTC),
        ),
    )


def _note(text: str) -> str:
    """What the merchant's app shows: no control characters, no half characters, and no longer than it may be."""
    return text.translate(_CONTROL).encode(errors="replace").decode().strip(" ")[:LONGEST_NOTE]
