"""The provider: its facts and its verbs."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from os import environ
from typing import ClassVar, Final, Self, cast

from holdfast.errors import CallFailed, InvalidInput, NotSent, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http, Params
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES, cause_of
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_json, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Capture, Method, PaymentStatus
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
from holdfast.providers.stripe.amounts import CURRENCIES, to_wire
from holdfast.providers.stripe.objects import (
    EVENTS,
    About,
    Dispute,
    Echo,
    Event,
    Intent,
    Line,
    Refund,
    Rows,
    Session,
    Wrongs,
    read,
)
from holdfast.values import Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacPairs

KEPT_FOR: Final = timedelta(hours=24)
"""Keys may be pruned once they are this old. https://docs.stripe.com/api/idempotent_requests"""
SHORTEST: Final = timedelta(minutes=35)
"""A page lives 30 minutes at least from when they make it, which is later than we ask, and later still if asked again.

https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at"""
LONGEST: Final = timedelta(hours=23, minutes=55)
"""And 24 hours at most, by their clock."""
CLOCKS_DIFFER: Final = timedelta(minutes=1)
LONGEST_DESCRIPTION: Final = 1000
LONGEST_METADATA: Final = 500
PAGE_SIZE: Final = 100


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """Take payments with Stripe, on its own page; `StripeIntents` are for a form of yours.

    `api_key` is the account's secret key, or a restricted one that may write Checkout Sessions, PaymentIntents and
    refunds and read disputes, events and the balance; `webhook_secret` is that of the endpoint, `whsec_…`.
    """

    api_key: Secret
    webhook_secret: Secrets
    return_url: str | None = None
    """Where the payer goes afterwards, unless the payment says it; Stripe has to know one."""
    name: str = "stripe"
    base_url: str = "https://api.stripe.com"
    api_version: str = "2026-10-28.endive"
    """In whose shape answers come; webhooks come in that of their endpoint, and only their ids are read."""

    # Sessions cannot be searched for; they can be listed, and lists are not behind as searches are:
    # https://docs.stripe.com/search#data-freshness. What is not there may still be on its way, so it proves nothing.
    # An expired page can never be paid, so nobody looks for late money.
    capabilities = Capabilities(
        currencies=CURRENCIES,
        methods=frozenset({Method.CARD}),
        create_effect=Effect.KEYED,
        key_window=KEPT_FOR,
        lookup=Lookup.AUTHORITATIVE,
        revocable=True,
        manual_capture=True,
        capture_effect=Effect.KEYED,
        capture_key_window=KEPT_FOR,
        refunding=Refunding.API,
        refund_effect=Effect.KEYED,
        refund_key_window=KEPT_FOR,
        webhook_trust=WebhookTrust.SIGNED_BODY,
        late_looks=(),
        minimum_expiry=SHORTEST,
    )
    # https://docs.stripe.com/api/errors
    causes = CAUSES | {
        403: Cause.CREDENTIAL,  # "The API key doesn't have permissions to perform the request"
        409: Cause.UNKNOWN,  # "perhaps due to using the same idempotent key": the other request may have its effect
        424: Cause.UNKNOWN,  # "a failure in a dependency external to Stripe", before or after the effect
        # https://docs.stripe.com/rate-limits#object-lock-timeouts: of one object, and no limit of the account's
        (429, "lock_timeout"): Cause.REFUSED,
    }
    private_fields = frozenset(
        {
            "billing_details",
            "client_secret",
            "collected_information",
            "customer_details",
            "customer_email",
            "evidence",
            "payment_method_details",
            "receipt_email",
            "receipt_url",
            "shipping",
        }
    )
    scheme = HmacPairs("stripe-signature")
    offers: ClassVar[str] = "checkout.session"
    """What kind of object an offer is."""
    events: ClassVar[Sequence[str]] = EVENTS
    """What is listened to, and listed."""

    @classmethod
    def from_env(cls) -> Self:
        """With STRIPE_API_KEY and STRIPE_WEBHOOK_SECRET from the environment; several secrets, newest first, by commas.

        Where they are set, STRIPE_RETURN_URL, and STRIPE_URL, which replaces the address of their API.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "STRIPE_API_KEY": "a secret or restricted key of your Stripe account",
                "STRIPE_WEBHOOK_SECRET": "the signing secret of your webhook endpoint, whsec_...",
            }
        )
        return cls(
            api_key=secret_from_env("STRIPE_API_KEY"),
            webhook_secret=Secrets.from_env("STRIPE_WEBHOOK_SECRET"),
            return_url=environ.get("STRIPE_RETURN_URL", "").strip() or None,
            base_url=environ.get("STRIPE_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: with any key but a sandbox's, `sk_test_…` or `rk_test_…`, except on this machine."""
        return "_test_" not in self.api_key.reveal()[:8] and not is_loopback(self.base_url)

    @property
    def webhook_secrets(self) -> Secrets:
        return self.webhook_secret

    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.api_key.reveal()}", "stripe-version": self.api_version}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"error": {"type": "card_error", "code": "card_declined", "decline_code": "lost_card", "message": "…"}}`.

        `Stripe-Should-Retry` stands above the table: https://docs.stripe.com/error-low-level
        """
        wrong = Wrongs.model_validate(decode_json(response.content)).error
        code, again = wrong.code or wrong.type, response.header("stripe-should-retry")
        cause, wait = None, None
        if again == "true" and cause_of(self.causes, response.status, code) is Cause.REJECTED:
            cause = Cause.UNKNOWN
        if again == "false" and response.status >= 500 and response.header("idempotency-key"):
            # The answer is stored, and is what this key gets for as long as it lives: look, ask neither with it again
            # nor with another. https://docs.stripe.com/api/idempotent_requests
            wait = KEPT_FOR.total_seconds()
        return VendorError(
            code=code,
            message=wrong.message or "",
            reason=wrong.decline_code or (code if wrong.type == "card_error" else ""),
            cause=cause,
            retry_after=wait,
        )

    # Offers.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /v1/checkout/sessions`; neither the caller's metadata nor, unless there is a payer, an e-mail is sent.

        Raises:
            InvalidMoney: A currency Stripe does not take, or an amount it has no exact number for.
            InvalidInput: Neither the payment nor the provider says where the payer goes afterwards.
        """
        amount, return_url = to_wire(request.price), request.return_url or self.return_url
        if not return_url:
            raise InvalidInput("Stripe sends the payer somewhere afterwards: create(…, return_url=…) or Stripe(…)")
        description = (request.description or request.reference)[:LONGEST_DESCRIPTION]
        begun = request.expires_at - request.expires_in
        form: dict[str, str | int] = {
            "mode": "payment",
            "client_reference_id": request.reference,
            "success_url": return_url,
            "expires_at": int((begun + min(request.expires_in, LONGEST)).timestamp()),
            "line_items[0][quantity]": 1,
            "line_items[0][price_data][currency]": request.price.currency.lower(),
            "line_items[0][price_data][unit_amount]": amount,
            "line_items[0][price_data][product_data][name]": description,
            "payment_intent_data[description]": description,
        }
        for name, value in (("attempt", request.attempt_id), ("reference", request.reference)):
            form[f"metadata[{name}]"] = form[f"payment_intent_data[metadata][{name}]"] = value
        if request.capture is Capture.MANUAL:
            form["payment_intent_data[capture_method]"] = "manual"
        if request.payer and request.payer.email:
            form["customer_email"] = form["payment_intent_data[receipt_email]"] = request.payer.email
        session = await http.post(
            "/v1/checkout/sessions",
            Session,
            operation="create",
            effect=Effect.KEYED,
            form=form,
            headers={"idempotency-key": request.attempt_id},
            key_valid=request.key_valid,
        )
        return session.to_snapshot()

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /v1/checkout/sessions/{id}` with its intent and charge; of a disputed one, its disputes too."""
        session = await http.get(
            _path(vendor_id),
            Session,
            operation="fetch",
            params={"expand[0]": "payment_intent.latest_charge.balance_transaction"},
        )
        snapshot = session.to_snapshot()
        return await self._with_disputes(http, snapshot, session.intent) if session.intent else snapshot

    async def _with_disputes(self, http: Http, snapshot: PaymentSnapshot, intent: Intent) -> PaymentSnapshot:
        if intent.charge is None or not intent.charge.disputed:
            return snapshot
        asked = [one.money for one in await self._disputes(http, intent.id) if one.status is not DisputeStatus.WON]
        return replace(snapshot, disputed=sum(asked[1:], asked[0]) if asked else None)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """`GET /v1/checkout/sessions` of the time it was asked for; the completed one, should there be several."""
        params: Params = {
            "created[gte]": int((attempt.claimed_at - CLOCKS_DIFFER).timestamp()),
            "created[lte]": int((attempt.claimed_until + CLOCKS_DIFFER).timestamp()),
            "expand[0]": "data.payment_intent",
        }
        rows = self._list(http, "/v1/checkout/sessions", "find", params)
        found = [page async for row in rows if (page := read(Session, row)) and page.metadata.attempt == attempt.id]
        found.sort(key=lambda page: page.status != "complete")
        return found[0].to_snapshot() if found else None

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /v1/checkout/sessions/{id}/expire`, or, of money set aside, `POST /v1/payment_intents/{id}/cancel`."""
        path = f"{_path(attempt.vendor_id)}/expire"
        try:
            session = await http.post(path, Session, operation="revoke", effect=Effect.IDEMPOTENT)
            return session.to_snapshot()
        except Rejected as error:
            if error.status != 400:
                raise
            snapshot = await self.fetch(http, attempt.vendor_id)  # a page that is open no more cannot be expired
            if snapshot.status is PaymentStatus.PENDING:
                raise
        return await self._release(http, snapshot) if snapshot.status is PaymentStatus.AUTHORIZED else snapshot

    async def _release(self, http: Http, held: PaymentSnapshot) -> PaymentSnapshot:
        """Let go of what is set aside; who captured it meanwhile was first."""
        path = f"/v1/payment_intents/{segment(await self._intent_of(http, held.vendor_id, 'revoke'))}/cancel"
        try:
            intent = await http.post(path, Intent, operation="revoke", effect=Effect.IDEMPOTENT)
        except Rejected as error:
            if error.code != "payment_intent_unexpected_state":
                raise
            return await self.fetch(http, held.vendor_id)
        return intent.to_snapshot(held.vendor_id)

    # Money.

    async def capture(
        self, http: Http, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        """`POST /v1/payment_intents/{id}/capture`; the rest is let go of."""
        intent_id = await self._intent_of(http, attempt.vendor_id, "capture")
        try:
            intent = await http.post(
                f"/v1/payment_intents/{segment(intent_id)}/capture",
                Intent,
                operation="capture",
                effect=Effect.KEYED,
                form={"amount_to_capture": to_wire(money)},
                headers={"idempotency-key": key},
                key_valid=key_valid,
            )
        except Rejected as error:
            if error.code != "payment_intent_unexpected_state":
                raise
            snapshot = await self.fetch(http, attempt.vendor_id)
            if snapshot.status is not PaymentStatus.PAID:
                raise
            return snapshot  # somebody captured it in the dashboard
        return self._snapshot(intent, attempt.vendor_id)

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """`POST /v1/refunds`; the reason goes into its metadata, for Stripe has three words of its own."""
        form: dict[str, str | int] = {
            "payment_intent": await self._intent_of(http, request.vendor_id, "refund"),
            "amount": to_wire(request.money),
            "metadata[attempt]": request.attempt_id,
            "metadata[reference]": request.reference,
            "metadata[key]": request.key,
        }
        form |= self._signature()
        if request.reason:
            form["metadata[reason]"] = request.reason[:LONGEST_METADATA]
        try:
            refund = await http.post(
                "/v1/refunds",
                Refund,
                operation="refund",
                effect=Effect.KEYED,
                form=form,
                headers={"idempotency-key": request.key},
                key_valid=request.key_valid,
            )
        except Rejected as error:
            found = await self.find_refund(http, request) if error.code == "charge_already_refunded" else None
            if found is None:
                raise
            return found
        return refund.to_snapshot()

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """`GET /v1/refunds/{id}`."""
        refund = await http.get(f"/v1/refunds/{segment(vendor_id)}", Refund, operation="fetch_refund")
        return refund.to_snapshot()

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """`GET /v1/refunds?payment_intent=…`, by our key in the metadata."""
        params = {"payment_intent": await self._intent_of(http, request.vendor_id, "find_refund")}
        rows = self._list(http, "/v1/refunds", "find_refund", params)
        found = [one async for row in rows if (one := read(Refund, row)) and one.key == request.key]
        return found[0].to_snapshot() if found else None

    async def disputes(self, http: Http, attempt: Attempt) -> Sequence[DisputeSnapshot]:
        """`GET /v1/disputes?payment_intent=…`."""
        session = await http.get(_path(attempt.vendor_id), Session, operation="disputes")
        return await self._disputes(http, session.intent_id) if session.intent_id else ()

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """`GET /v1/balance_transactions`: what went back has a minus, and so has what a bank took.

        They know nothing of pages, so that the id of a payment is its intent's. What was not asked for by us, such as a
        dispute, has no metadata of ours: whose it is, its intent says.
        """
        params: Params = {
            "created[gte]": int(since.timestamp()),
            "created[lt]": int(until.timestamp()),
            "expand[0]": "data.source",
        }
        known: dict[str, Intent] = {}
        async for row in self._list(http, "/v1/balance_transactions", "statement", params):
            moved = read(Line, row)
            line = moved.to_line() if moved else None
            if line is None or (line.attempt_id and moved and not self._is_ours(moved.echo)):
                continue
            if line.payment_id and not line.attempt_id and line.kind is not LineKind.PAYMENT:
                intent = known.get(line.payment_id)
                if intent is None:
                    path = f"/v1/payment_intents/{segment(line.payment_id)}"
                    intent = known[line.payment_id] = await http.get(path, Intent, operation="statement")
                line = replace(line, attempt_id=intent.metadata.attempt, reference=intent.metadata.reference)
                if line.attempt_id and not self._is_ours(intent.metadata):
                    continue
            yield line

    async def _disputes(self, http: Http, intent_id: str) -> Sequence[DisputeSnapshot]:
        rows = self._list(http, "/v1/disputes", "disputes", {"payment_intent": intent_id})
        return [one.to_snapshot() async for row in rows if (one := read(Dispute, row))]

    async def _intent_of(self, http: Http, vendor_id: str, operation: str) -> str:
        """The intent behind a page: read first, so that a failure to read it has moved nothing."""
        try:
            session = await http.get(_path(vendor_id), Session, operation=operation)
        except CallFailed as error:
            if error.cause is not Cause.UNKNOWN:
                raise
            text = f"{self.name}: {operation} was not asked for, since its page could not be read: {error}"
            raise NotSent(text, provider=self.name, operation=operation, status=error.status) from error
        if not session.intent_id:
            text = f"{self.name}: {operation} failed: nobody has paid on page {vendor_id}"
            raise Rejected(text, provider=self.name, operation=operation, reason="unpaid")
        return session.intent_id

    async def _list(self, http: Http, path: str, operation: str, params: Params) -> AsyncIterator[object]:
        """Every row, newest first, page by page. https://docs.stripe.com/api/pagination"""
        asked: dict[str, str | int] = {**params, "limit": PAGE_SIZE}
        while True:
            page = await http.get(path, Rows, operation=operation, params=asked)
            for row in page.data:
                yield row
            last = read(About, page.data[-1]) if page.data else None
            if not page.has_more or last is None or not last.id:
                return
            asked["starting_after"] = last.id

    # Webhooks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """One event; what it holds is the object as it was then, so that nothing but ids is read from it."""
        return [self._delivery(Event.model_validate(decode_json(request.body)), request.body)]

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """`GET /v1/events` of the kinds a look can learn from; they are kept for thirty days."""
        params: dict[str, str | int] = {"created[gte]": int(since.timestamp())}
        params |= {f"types[{place}]": kind for place, kind in enumerate(self.events)}
        async for row in self._list(http, "/v1/events", "list", params):
            event = read(Event, row)
            if event is not None:
                yield self._delivery(event, encode_json(cast(JsonOut, row)))

    def _delivery(self, event: Event, body: bytes) -> Delivery:
        about = event.data.object
        perhaps = self._is_ours(about.metadata) if about.metadata.attempt else bool(about.payment_intent)
        return event.to_delivery(body, offers=self.offers, ours=event.type in self.events and perhaps)

    async def locate(self, http: Http, facts: Mapping[str, str]) -> str:
        """`GET /v1/payment_intents/{id}`: whose it is that was disputed, or given back in the dashboard."""
        intent_id = facts.get("intent")
        if not intent_id:
            return ""
        try:
            intent = await http.get(f"/v1/payment_intents/{segment(intent_id)}", Intent, operation="locate")
        except Rejected as error:
            if error.status != 404:
                raise
            return ""
        return intent.metadata.attempt if self._is_ours(intent.metadata) else ""

    # What an intent of a page is; those of a form of the caller's own are their own.

    def _snapshot(self, intent: Intent, vendor_id: str) -> PaymentSnapshot:
        return intent.to_snapshot(vendor_id)

    def _signature(self) -> Mapping[str, str]:
        """What metadata says beside the attempt, so that two providers of one account know their own."""
        return {}

    def _is_ours(self, echo: Echo) -> bool:
        return echo.provider in ("", self.name)


def _path(vendor_id: str) -> str:
    return f"/v1/checkout/sessions/{segment(vendor_id)}"
