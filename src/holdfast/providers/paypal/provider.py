"""PayPal (Orders v2, Payments v2): the payer approves at PayPal, and we move the money."""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import environ
from typing import Final, Self, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from holdfast.clock import Clock
from holdfast.errors import CallFailed, Mismatch, OutcomeUnknown, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.tokens import Token
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_json, read_json_error, segment
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Capture, Method, PaymentStatus
from holdfast.payments.provider import (
    Capabilities,
    DisputeSnapshot,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    RefundRequest,
    RefundSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.providers.paypal import wire
from holdfast.providers.paypal.signatures import (
    HEADERS,
    LocalVerification,
    TransmissionSignature,
    read_transmission,
)
from holdfast.values import Money, Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import Verdict

LIVE: Final = frozenset({"https://api.paypal.com", "https://api-m.paypal.com"})
SANDBOX: Final = frozenset({"https://api.sandbox.paypal.com", "https://api-m.sandbox.paypal.com"})
"""Where the certificates of deliveries are."""
ORDER_KEYS: Final = timedelta(hours=6)
PAYMENT_KEYS: Final = timedelta(days=45)
LONGEST_TEXT: Final = 127
EVENTS_PER_PAGE: Final = 100
LINES_PER_PAGE: Final = 500
LONGEST_HISTORY: Final = timedelta(days=31)
# Each says that the money moved before, or that an order of the same reference took it.
# https://developer.paypal.com/api/rest/reference/orders/v2/errors/
TAKEN: Final = frozenset({"AUTHORIZATION_ALREADY_CAPTURED", "DUPLICATE_INVOICE_ID", "ORDER_ALREADY_CAPTURED"})
LET_GO: Final = frozenset({"PREVIOUSLY_CAPTURED", "PREVIOUSLY_VOIDED"})
GIVEN_BACK: Final = frozenset({"CAPTURE_FULLY_REFUNDED", "REFUND_AMOUNT_EXCEEDED"})
REASONS: Final[Mapping[str, str]] = {
    "DUPLICATE_INVOICE_ID": "duplicate_reference",
    "INSTRUMENT_DECLINED": "declined",
    "PAYER_CANNOT_PAY": "declined",
    "TRANSACTION_REFUSED": "declined",
}


@dataclass(frozen=True, kw_only=True)
class PayPal:
    """Take payments with PayPal.

    `client_id` and `client_secret` are those of a REST app at developer.paypal.com, `webhook_id` the id of its webhook.
    """

    client_id: str
    client_secret: Secret
    webhook_id: Secrets | None = None
    """The webhook's id, for deliveries; while it is replaced several, newest first."""
    merchant_id: str = ""
    """Where it is said, an order of another payee is a mismatch."""
    verification: LocalVerification | None = None
    """With it the door refuses what PayPal did not sign; without, a delivery is no more than a hint to look."""
    name: str = "paypal"
    base_url: str = "https://api-m.paypal.com"
    webhook_tolerance: float = 300
    """Seconds after its sending that a delivery is taken."""

    # An order cannot be looked up by our own id, nor cancelled; nobody but us can move its money.
    capabilities = Capabilities(
        currencies=wire.CURRENCIES,
        methods=frozenset({Method.WALLET, Method.CARD}),
        create_effect=Effect.KEYED,
        key_window=ORDER_KEYS,
        manual_capture=True,
        captures=True,
        authorizes=True,
        releasable=True,
        capture_effect=Effect.KEYED,
        capture_key_window=ORDER_KEYS,  # of an authorization it is 45 days; the shorter one holds for both
        refunding=Refunding.API,
        refund_effect=Effect.KEYED,
        refund_key_window=PAYMENT_KEYS,
        webhook_trust=WebhookTrust.SIGNED_BODY,
    )
    # https://developer.paypal.com/api/rest/responses/. A 403 stays a rejection: what is not ours is forbidden, too, and
    # nobody may put our credential on hold by naming such a thing.
    causes = CAUSES | {
        409: Cause.UNKNOWN,  # PREVIOUS_REQUEST_IN_PROGRESS
        (422, "ORDER_COMPLETION_IN_PROGRESS"): Cause.UNKNOWN,
        (422, "PAYEE_ACCOUNT_LOCKED_OR_CLOSED"): Cause.CREDENTIAL,
        (422, "PAYEE_ACCOUNT_RESTRICTED"): Cause.CREDENTIAL,
    }
    private_fields = frozenset({"email_address", "name", "payer", "payment_source", "phone", "shipping"})

    @classmethod
    def from_env(cls) -> Self:
        """With PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET from the environment.

        Where they are set, PAYPAL_WEBHOOK_ID (several, newest first, by commas), PAYPAL_MERCHANT_ID, and PAYPAL_URL:
        `https://api-m.sandbox.paypal.com` for the sandbox.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "PAYPAL_CLIENT_ID": "the client id of your REST app at PayPal",
                "PAYPAL_CLIENT_SECRET": "the app's secret",
            }
        )
        return cls(
            client_id=secret_from_env("PAYPAL_CLIENT_ID").reveal(),
            client_secret=secret_from_env("PAYPAL_CLIENT_SECRET"),
            webhook_id=Secrets.from_env("PAYPAL_WEBHOOK_ID") if environ.get("PAYPAL_WEBHOOK_ID") else None,
            merchant_id=environ.get("PAYPAL_MERCHANT_ID", "").strip(),
            base_url=environ.get("PAYPAL_URL", "").strip() or cls.base_url,
        )

    @property
    def live(self) -> bool:
        """Whether money is real: everywhere but in the sandbox and on this machine."""
        sandbox = (urlsplit(self.base_url).hostname or "").endswith(".sandbox.paypal.com")
        return not sandbox and not is_loopback(self.base_url)

    def headers(self) -> Mapping[str, str]:
        return {}  # the token is put in by the connection

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"name": …, "details": [{"issue": …, "description": …}]}`: the issue is what to go by, texts change."""
        said = read_json_error(response)
        body = decode_json(response.content)
        fields = body if isinstance(body, dict) else {}
        details = fields.get("details")
        first = details[0] if isinstance(details, list) and details else None
        issue = first.get("issue") if isinstance(first, dict) else None
        code = issue if isinstance(issue, str) and issue else fields.get("name") or said.code
        words = first.get("description") if isinstance(first, dict) else None
        return VendorError(
            code=code if isinstance(code, str) else "",
            message=words if isinstance(words, str) and words else said.message,
            reason=REASONS.get(code, "") if isinstance(code, str) else "",
        )

    # The token. https://developer.paypal.com/api/rest/authentication/

    def token_scope(self) -> str:
        return self.client_id

    async def fetch_token(self, http: Http) -> Token:
        """`POST /v1/oauth2/token`; there is no refresh token."""
        credentials = b64encode(f"{self.client_id}:{self.client_secret.reveal()}".encode()).decode()
        issued = await http.post(
            "/v1/oauth2/token",
            wire.Issued,
            operation="token",
            effect=Effect.IDEMPOTENT,
            form={"grant_type": "client_credentials"},
            headers={"authorization": f"Basic {credentials}"},
        )
        return Token(value=Secret(issued.access_token), expires_in=issued.expires_in)

    # Orders. https://developer.paypal.com/docs/api/orders/v2/

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /v2/checkout/orders`; of two orders with one reference PayPal captures one, by the `invoice_id`.

        Raises:
            InvalidMoney: A currency PayPal does not take, or decimals where it takes none.
        """
        context: dict[str, JsonOut] = {"user_action": "PAY_NOW", "shipping_preference": "NO_SHIPPING"}
        if request.return_url:
            context |= {"return_url": request.return_url, "cancel_url": request.return_url}
        unit: dict[str, JsonOut] = {
            "amount": wire.write_money(request.price),
            "custom_id": request.attempt_id,
            "invoice_id": request.reference,
            "description": (request.description or request.reference)[:LONGEST_TEXT],
        }
        order = await http.post(
            "/v2/checkout/orders",
            wire.Order,
            operation="create",
            effect=Effect.KEYED,
            json={
                "intent": "AUTHORIZE" if request.capture is Capture.MANUAL else "CAPTURE",
                "purchase_units": [unit],
                "payment_source": {"paypal": {"experience_context": context}},
            },
            headers=_keyed(request.attempt_id),
            key_valid=request.key_valid,
        )
        if not order.page:
            raise Mismatch(f"{self.name}: create: order {order.id} has no page to approve it on", provider=self.name)
        return self._checked(order).to_snapshot()

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /v2/checkout/orders/{id}`; an order that lapsed is not found.

        Raises:
            Mismatch: Another payee gets the money.
        """
        return (await self._order(http, vendor_id, "fetch")).to_snapshot()

    async def capture(
        self, http: Http, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        """Move what the payer approved: all of an order, or so much of what was set aside, and release the rest.

        Raises:
            OutcomeUnknown: Also where PayPal says that it moved before, and cannot be asked how.
        """
        try:
            if attempt.status is PaymentStatus.AUTHORIZED:
                return await self._capture_authorized(http, attempt, money, key, key_valid)
            order = await http.post(
                f"/v2/checkout/orders/{segment(attempt.vendor_id)}/capture",
                wire.Order,
                operation="capture",
                effect=Effect.KEYED,
                json={},
                headers=_keyed(key),
                key_valid=key_valid,
            )
        except Rejected as error:
            if error.code not in TAKEN:
                raise
            return await self._as_it_stands(http, attempt, error)
        return self._checked(order).to_snapshot()

    async def authorize(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /v2/checkout/orders/{id}/authorize`: set aside what the payer approved, once, for 29 days."""
        try:
            order = await http.post(
                f"/v2/checkout/orders/{segment(attempt.vendor_id)}/authorize",
                wire.Order,
                operation="authorize",
                effect=Effect.IDEMPOTENT,  # an order is authorized once
                json={},
                headers=_keyed(f"{attempt.id}-authorize"),
            )
        except Rejected as error:
            if error.code != "ORDER_ALREADY_AUTHORIZED":
                raise
            order = await self._order(http, attempt.vendor_id, "authorize")
        return self._checked(order).to_snapshot()

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /v2/payments/authorizations/{id}/void`: let go of what is set aside; an order stays."""
        order = await self._order(http, attempt.vendor_id, "revoke")
        for held in order.payments.authorizations if order.state is PaymentStatus.AUTHORIZED else ():
            path = f"/v2/payments/authorizations/{segment(held.id)}/void"
            try:
                await http.post(path, None, operation="revoke", effect=Effect.IDEMPOTENT, json={})
            except Rejected as error:
                if error.code not in LET_GO:
                    raise
            order = await self._order(http, attempt.vendor_id, "revoke")
        return order.to_snapshot()

    async def _capture_authorized(
        self, http: Http, attempt: Attempt, money: Money, key: str, key_valid: Callable[[], bool] | None
    ) -> PaymentSnapshot:
        order = await self._order(http, attempt.vendor_id, "capture")
        if order.taken:
            return order.to_snapshot()
        if order.state is not PaymentStatus.AUTHORIZED or not order.payments.authorizations:
            raise self._refusal("capture", f"order {order.id} is {order.state}: nothing is set aside")
        capture = await http.post(
            f"/v2/payments/authorizations/{segment(order.payments.authorizations[-1].id)}/capture",
            wire.Capture,
            operation="capture",
            effect=Effect.KEYED,
            json={"amount": wire.write_money(money), "final_capture": True},
            headers=_keyed(key),
            key_valid=key_valid,
        )
        return order.moved(capture).to_snapshot()  # not fetched again: the money has moved, whatever that would meet

    async def _as_it_stands(self, http: Http, attempt: Attempt, refusal: Rejected) -> PaymentSnapshot:
        """The order, if its money has moved; else the refusal was about another one."""
        try:
            found = await self._order(http, attempt.vendor_id, "fetch")
        except CallFailed as error:
            text = f"{self.name}: capture was refused ({refusal.code}): the money may have moved before, so look again"
            raise OutcomeUnknown(text, provider=self.name, operation="capture", code=refusal.code) from error
        if not found.taken:
            raise refusal
        return found.to_snapshot()

    async def _order(self, http: Http, vendor_id: str, operation: str) -> wire.Order:
        order = await http.get(f"/v2/checkout/orders/{segment(vendor_id)}", wire.Order, operation=operation)
        return self._checked(order)

    def _checked(self, order: wire.Order) -> wire.Order:
        payee = order.unit.payee.merchant_id
        if self.merchant_id and payee and payee != self.merchant_id:
            raise Mismatch(f"{self.name}: order {order.id} pays another merchant", provider=self.name, reason="payee")
        return order

    def _refusal(self, operation: str, text: str) -> CallFailed:
        return CallFailed.of(
            Cause.REJECTED, f"{self.name}: {operation}: {text}", provider=self.name, operation=operation
        )

    # Refunds. https://developer.paypal.com/docs/api/payments/v2/

    async def refund(self, http: Http, request: RefundRequest) -> RefundSnapshot:
        """`POST /v2/payments/captures/{id}/refund`, of the order's capture."""
        order = await self._order(http, request.vendor_id, "refund")
        taken = [capture for capture in order.payments.captures if capture.state is PaymentStatus.PAID]
        if not taken:
            raise self._refusal("refund", f"nothing of order {order.id} was captured that could go back")
        try:
            refund = await http.post(
                f"/v2/payments/captures/{segment(taken[-1].id)}/refund",
                wire.Refund,
                operation="refund",
                effect=Effect.KEYED,
                json={"amount": wire.write_money(request.money), "custom_id": _name(request)},
                headers=_keyed(request.key),
                key_valid=request.key_valid,
            )
        except Rejected as error:
            if error.code not in GIVEN_BACK:
                raise
            return await self._refunded(http, request, error)
        return refund.to_snapshot()

    async def fetch_refund(self, http: Http, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        """`GET /v2/payments/refunds/{id}`."""
        refund = await http.get(f"/v2/payments/refunds/{segment(vendor_id)}", wire.Refund, operation="fetch_refund")
        return refund.to_snapshot()

    async def find_refund(self, http: Http, request: RefundRequest) -> RefundSnapshot | None:
        """The refund of our key among those of the order."""
        order = await self._order(http, request.vendor_id, "find_refund")
        found = next((refund for refund in order.payments.refunds if refund.custom_id == _name(request)), None)
        return found.to_snapshot() if found else None

    async def _refunded(self, http: Http, request: RefundRequest, refusal: Rejected) -> RefundSnapshot:
        """The refund of our key, if it was made before; else the refusal stands."""
        try:
            found = await self.find_refund(http, request)
        except CallFailed as error:
            text = f"{self.name}: refund was refused ({refusal.code}): it may have been made before, so look again"
            raise OutcomeUnknown(text, provider=self.name, operation="refund", code=refusal.code) from error
        if found is None:
            raise refusal
        return found

    # Disputes and the account's history.

    async def disputes(self, http: Http, attempt: Attempt) -> Sequence[DisputeSnapshot]:
        """`GET /v1/customer/disputes?disputed_transaction_id=…`, then each of them."""
        order = await self._order(http, attempt.vendor_id, "disputes")
        found: list[DisputeSnapshot] = []
        for capture in order.payments.captures:
            params = {"disputed_transaction_id": capture.id}
            listed = await http.get("/v1/customer/disputes", wire.DisputeList, operation="disputes", params=params)
            for item in listed.items:
                path = f"/v1/customer/disputes/{segment(item.dispute_id)}"
                found.append((await http.get(path, wire.Dispute, operation="disputes")).to_snapshot())
        return found

    async def statement(self, http: Http, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        """`GET /v1/reporting/transactions`, a month at a time; what just happened shows up to three hours later."""
        start = since
        while start < until:
            end = min(start + LONGEST_HISTORY, until)
            async for line in self._history(http, start, end):
                yield line
            start = end + timedelta(seconds=1)  # both ends belong to what is asked for

    async def _history(self, http: Http, start: datetime, end: datetime) -> AsyncIterator[StatementLine]:
        page, pages = 1, 1
        while page <= pages:
            params: dict[str, str | int] = {
                "start_date": _zulu(start),
                "end_date": _zulu(end),
                "fields": "transaction_info",
                "page_size": LINES_PER_PAGE,
                "page": page,
            }
            found = await http.get("/v1/reporting/transactions", wire.History, operation="statement", params=params)
            for row in found.transaction_details:
                try:
                    line = wire.Moved.model_validate(row.get("transaction_info")).to_line()
                except ValidationError:
                    continue
                if line is not None:
                    yield line
            page, pages = page + 1, found.total_pages

    # Webhooks. https://developer.paypal.com/api/rest/webhooks/rest/

    @property
    def scheme(self) -> TransmissionSignature:
        return TransmissionSignature(
            hosts=self._certificate_hosts(), verification=self.verification, tolerance=self.webhook_tolerance
        )

    @property
    def webhook_secrets(self) -> Secrets | None:
        return self.webhook_id

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        said = read_transmission(request)
        event = wire.Event.model_validate(decode_json(request.body))
        return [event.to_delivery(request.body, {} if isinstance(said, Verdict) else said)]

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        """`GET /v1/notifications/webhooks-events`, page by page; PayPal keeps them for 30 days."""
        params: dict[str, str | int] = {"start_time": _zulu(since), "page_size": EVENTS_PER_PAGE}
        asked: list[Mapping[str, str | int]] = []
        while params and params not in asked:
            asked.append(params)
            page = await http.get("/v1/notifications/webhooks-events", wire.EventPage, operation="list", params=params)
            for row in page.events:
                try:
                    event = wire.Event.model_validate(row)
                except ValidationError:
                    continue
                yield event.to_delivery(encode_json(cast(JsonOut, row)), {})
            params = {**page.next_page}

    async def verify_webhook(self, http: Http, body: bytes, facts: Mapping[str, str]) -> bool:
        """Have PayPal say whether it sent this: `POST /v1/notifications/verify-webhook-signature`.

        `body` and `facts` are those of a delivery. The body goes back as it came: written anew, it would no longer fit.
        """
        try:
            is_object = isinstance(decode_json(body.decode().encode()), dict)
        except ValueError:
            is_object = False
        if not is_object or not all(facts.get(name) for name in HEADERS):
            return False  # what is no JSON by itself could say something else between our own words
        for webhook_id in self.webhook_id or ():
            envelope = encode_json({name: facts[name] for name in HEADERS} | {"webhook_id": webhook_id.reveal()})
            said = await http.post(
                "/v1/notifications/verify-webhook-signature",
                wire.Verified,
                operation="verify_webhook",
                effect=Effect.IDEMPOTENT,
                content=envelope[:-1] + b',"webhook_event":' + body + b"}",
                headers={"content-type": "application/json"},
            )
            if said.verification_status == "SUCCESS":
                return True
        return False

    async def upkeep(self, http: Http) -> None:
        """Fetch the certificates that deliveries named: from PayPal's own hosts, without credentials."""
        if self.verification is None:
            return
        verification = self.verification

        async def fetch(url: str) -> None:
            try:
                pem, at = await _certificate(http, url)
            except CallFailed as error:
                if error.cause is not Cause.REJECTED:  # what is not there was made up; all else may be there soon
                    verification.want(url)
                raise
            verification.add(url, pem, at=at)

        await verification.fetch_wanted(fetch)

    def _certificate_hosts(self) -> frozenset[str]:
        if self.live:
            return LIVE
        parts = urlsplit(self.base_url)
        return SANDBOX | {f"{parts.scheme}://{parts.netloc}"} if is_loopback(self.base_url) else SANDBOX


async def _certificate(http: Http, url: str) -> tuple[bytes, datetime]:
    """What is at the address, and when it was fetched; no redirect is followed.

    Raises:
        CallFailed: It is not there, or cannot be had now.
    """

    async def exchange(transport: Transport, clock: Clock) -> tuple[HttpResponse, datetime]:
        request = HttpRequest(method="GET", url=url, headers=(("user-agent", "holdfast"),))
        return await transport.send(request), clock.now()

    response, at = await http.run(exchange, operation="certificate", effect=Effect.READ)
    if response.status == 200:
        return response.content, at
    # Judged out here: whoever makes addresses up must not open the circuit that payments go by.
    again = response.status >= 500 or response.status in (408, 429)
    text = f"the certificate at {url} was answered with {response.status}"
    raise CallFailed.of(Cause.UNKNOWN if again else Cause.REJECTED, text, status=response.status)


def _keyed(key: str) -> dict[str, str]:
    return {"paypal-request-id": key, "prefer": "return=representation"}


def _name(request: RefundRequest) -> str:
    """Of a refund, in the letters that PayPal takes; with the attempt's, so that its events lead to the payment."""
    return f"{request.attempt_id}.{request.key}"


def _zulu(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
