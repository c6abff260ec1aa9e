"""What every call at PayPal has in common: tokens, keys, limits, errors, events and their signatures."""

import hmac
import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar, Final
from urllib.parse import parse_qs, urlencode
from uuid import NAMESPACE_URL, uuid5

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.idempotency import IdempotencyKeys
from holdfast.testing.simulators.paypal.certificates import signer
from holdfast.testing.simulators.paypal.resources import Resource, link, mapping, zulu
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route

HOUR: Final = 3600
DAY: Final = 24 * HOUR
ALPHABET: Final = "0123456789ABCDEFGHJKLMNPRSTUVWXY"
CERTIFICATE: Final = "CERT-360caa42-fca2a594-5a3d5ae1"
CERTIFICATES: Final = "/v1/notifications/certs/"
NO_TOKEN: Final = frozenset({"token", "certificates"})
"""What is asked without one."""
NAMES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("INVALID_REQUEST", "Request is not well-formed, syntactically incorrect, or violates schema."),
    403: ("NOT_AUTHORIZED", "Authorization failed due to insufficient permissions."),
    404: ("RESOURCE_NOT_FOUND", "The specified resource does not exist."),
    409: ("RESOURCE_CONFLICT", "The server has detected a conflict while processing this request."),
    422: (
        "UNPROCESSABLE_ENTITY",
        "The requested action could not be performed, semantically incorrect, or failed business validation.",
    ),
    429: ("RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting."),
    500: ("INTERNAL_SERVER_ERROR", "An internal server error has occurred."),
    503: ("SERVICE_UNAVAILABLE", "Service Unavailable."),
}


class Refusal(Exception):
    """PayPal says no."""

    def __init__(self, status: int, issue: str = "", description: str = "", *, field: str = "") -> None:
        super().__init__(issue)
        self.status = status
        self.issue = issue
        self.description = description
        self.field = field

    def to_json(self, debug_id: str) -> Resource:
        name, message = NAMES.get(self.status, NAMES[500])
        said: Resource = {"name": name, "message": message, "debug_id": debug_id, "links": []}
        if self.issue:
            detail: Resource = {"issue": self.issue, "description": self.description or self.issue}
            said["details"] = [detail | ({"field": self.field} if self.field else {})]
        return said


class Unauthorized(Exception):
    """PayPal does not know who asks, and says so as OAuth does."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.said: Resource = {"error": error, "error_description": description}


class PayPalApi(Simulator):
    """One sandbox account with one REST app and one webhook, without what can be bought and paid in it."""

    vendor: ClassVar[str] = "paypal"
    hosts: ClassVar[tuple[str, ...]] = ("api-m.sandbox.paypal.com", "api.sandbox.paypal.com", "api-m.paypal.com")
    retries: ClassVar[tuple[float, ...]] = (3 * DAY / 25,) * 25
    """Twenty-five times over three days; how they are spread is made up."""
    client_id: ClassVar[str] = "paypal-client"
    client_secret: ClassVar[str] = "paypal-client-secret"
    merchant_id: ClassVar[str] = "C7CYMKZDG8D6E"

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        token_life: int = 9 * HOUR,
        calls: int = 0,
        history_lag: float = 3 * HOUR,
    ) -> None:
        """The webhook's id stands in for `webhook_secret`; `calls` are let through per second, 0 for any number.

        `history_lag` is how many seconds pass until the account's history has what happened.
        """
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.webhook_secret = webhook_secret or self.new_secret()
        self.token_life = token_life
        self.history_lag = history_lag
        self.calls = calls
        self._forget()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "webhook_id": self.webhook_secret,
            "merchant_id": self.merchant_id,
        }

    @property
    def root(self) -> bytes:
        """The authority to trust so that deliveries verify, as PEM."""
        return signer().root

    def reset(self) -> None:
        super().reset()
        self._forget()

    def _forget(self) -> None:
        self.tokens_issued = 0
        self.events: list[Resource] = []
        """Everything that happened, oldest first."""
        self._tokens: dict[str, datetime] = {}
        self._order_keys = IdempotencyKeys(self.clock, window=6 * HOUR)
        self._payment_keys = IdempotencyKeys(self.clock, window=45 * DAY)
        self._window = self.window(self.calls)

    # Every call

    def idempotency_key(self, request: Request) -> str | None:
        return request.header("paypal-request-id")

    def answer(self, request: Request) -> Response:
        debug_id = f"{self.random().getrandbits(52):013x}"
        try:
            self._admit(request)
            response = super().answer(request)
        except Refusal as refusal:
            response = Response.json(refusal.to_json(debug_id), status=refusal.status)
        except Unauthorized as refusal:
            response = Response.json(refusal.said, status=401)
        return replace(response, headers=(*response.headers, ("paypal-debug-id", debug_id)))

    def not_found(self, request: Request) -> Response:
        raise Refusal(404)

    def failure(self, fault: Status) -> Response:
        if fault.status == 401:
            return Response.json(_INVALID_TOKEN.said, status=401)
        wait = () if fault.retry_after is None else (("retry-after", f"{fault.retry_after:g}"),)
        said = Refusal(fault.status).to_json(f"{self.random().getrandbits(52):013x}")
        return Response.json(said, status=fault.status, headers=wait)

    def expire(self, request: Request) -> bool:
        return self._tokens.pop(_bearer(request), None) is not None

    def revoke(self) -> None:
        """End the life of every token there is."""
        self._tokens.clear()

    def _admit(self, request: Request) -> None:
        if self.operation(request) in NO_TOKEN:
            return
        until = self._tokens.get(_bearer(request))
        if until is None or until <= self.clock.now():
            raise _INVALID_TOKEN
        if self._window.wait():
            raise Refusal(429)
        self._window.take()

    def _once(
        self, request: Request, keys: IdempotencyKeys, make: Callable[[], str], show: Callable[[str], Resource]
    ) -> Response:
        """What is made under a key is made once: asked again, it is shown as it is now, with 200."""
        key = self.idempotency_key(request)
        kept = keys.look(f"{request.path} {key}", "", "") if key else None
        if isinstance(kept, Response):
            return Response.json(self._shown(request, show(kept.body.decode())))
        id = make()
        if key:
            keys.keep(f"{request.path} {key}", "", "", Response(body=id.encode()))
        return Response.json(self._shown(request, show(id)), status=201)

    def _shown(self, request: Request, resource: Resource) -> Resource:
        if request.header("prefer") == "return=representation":
            return resource
        return {name: resource[name] for name in ("id", "status", "links") if name in resource}

    # Tokens. https://developer.paypal.com/api/rest/authentication/

    @route("POST", "/v1/oauth2/token", "token")
    def issue(self, request: Request) -> Response:
        """A new token; those before it go on until they expire."""
        given = _basic(request.header("authorization"))
        if not hmac.compare_digest(given.encode(), f"{self.client_id}:{self.client_secret}".encode()):
            raise Unauthorized("invalid_client", "Client Authentication failed")
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            said = {"error": "unsupported_grant_type", "error_description": "Grant Type is not supported"}
            return Response.json(said, status=400)
        self.tokens_issued += 1
        token = f"A21AA{self.random().getrandbits(320):080x}"
        self._tokens[token] = self.clock.now() + timedelta(seconds=self.token_life)
        return Response.json(
            {
                "scope": "https://uri.paypal.com/services/payments/payment",
                "access_token": token,
                "token_type": "Bearer",
                "app_id": "APP-80W284485P519543T",
                "expires_in": self.token_life,
                "nonce": f"{zulu(self.clock.now())}{self._id(22)}",
            }
        )

    # Events. https://developer.paypal.com/docs/api/webhooks/v1/

    def happen(self, kind: str, resource_type: str, resource: Resource, *, key: str) -> Resource:
        """Write the event down, and owe it to the webhook."""
        event: Resource = {
            "id": f"WH-{self._id(17)}-{self._id(17)}",
            "event_version": "1.0",
            "create_time": zulu(self.clock.now()),
            "resource_type": resource_type,
            "resource_version": "2.0",
            "event_type": kind,
            "summary": f"{kind} happened",
            "resource": resource,
        }
        path = f"{self.base_url}/v1/notifications/webhooks-events/{event['id']}"
        event["links"] = [link(path, "self"), link(f"{path}/resend", "resend", "POST")]
        self.events.append(event)
        if self.webhook_url:
            self.owe(self._webhook(event, key))
        return event

    def _webhook(self, event: Resource, key: str) -> Webhook:
        about = mapping(event["resource"])
        return Webhook(
            vendor=self.vendor,
            url=self.webhook_url,
            event=str(event["event_type"]),
            about=str(about.get("id") or about.get("dispute_id")),
            key=key,
            body=Response.json(event).body,
        )

    def new_secret(self) -> str:
        return self._id(17)

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """Over the id of the transmission, its time, the webhook's id, and the CRC32 of the body.

        https://developer.paypal.com/api/rest/webhooks/rest/
        """
        transmission, time = str(uuid5(NAMESPACE_URL, f"{zlib.crc32(body)}|{at.isoformat()}")), zulu(at)
        message = f"{transmission}|{time}|{secret}|{zlib.crc32(body)}"
        return (
            ("paypal-transmission-id", transmission),
            ("paypal-transmission-time", time),
            ("paypal-transmission-sig", signer().sign(message.encode())),
            ("paypal-cert-url", self.certificate_url),
            ("paypal-auth-algo", "SHA256withRSA"),
        )

    @property
    def certificate_url(self) -> str:
        """Where the certificate is: here, once this account is served on this machine; else where PayPal has its."""
        here = self.base_url.startswith("http://")
        return f"{self.base_url if here else 'https://api.sandbox.paypal.com'}{CERTIFICATES}{CERTIFICATE}"

    @route("GET", "/v1/notifications/certs/{id}", "certificates")
    def certificate(self, request: Request) -> Response:
        """As PEM, to anybody."""
        if request.params["id"] != CERTIFICATE:
            raise Refusal(404)
        return Response(headers=(("content-type", "application/x-pem-file"),), body=signer().certificate)

    @route("GET", "/v1/notifications/webhooks-events", "events.find")
    def list_events(self, request: Request) -> Response:
        """Newest first, in pages; of the last thirty days."""
        asked = request.query
        since = max(asked.get("start_time", ""), zulu(self.clock.now() - timedelta(days=30)))
        until, size = asked.get("end_time", "9999"), int(asked.get("page_size", "10"))
        found = [event for event in reversed(self.events) if since <= str(event["create_time"]) <= until]
        first = int(asked.get("next_page", "0"))
        links: list[Resource] = []
        if first + size < len(found):
            query = urlencode({**asked, "next_page": str(first + size)})
            links = [link(f"https://api.sandbox.paypal.com{request.path}?{query}", "next")]
        return Response.json({"events": found[first : first + size], "count": len(found), "links": links})

    @route("GET", "/v1/notifications/webhooks-events/{id}", "events.fetch")
    def read_event(self, request: Request) -> Response:
        return Response.json(self._event(request.params["id"]))

    @route("POST", "/v1/notifications/webhooks-events/{id}/resend", "events.resend")
    def resend(self, request: Request) -> Response:
        """Owe it once more."""
        event = self._event(request.params["id"])
        if self.webhook_url:
            self.owe(self._webhook(event, str(event["id"])))
        return Response.json(event, status=202)

    @route("POST", "/v1/notifications/verify-webhook-signature", "webhooks.verify")
    def verify(self, request: Request) -> Response:
        """Over the bytes of `webhook_event` as they stand in the body."""
        asked = request.json()
        found = re.search(rb'"webhook_event"\s*:\s*', request.body)
        if found is None:
            raise Refusal(400, "MISSING_REQUIRED_PARAMETER", field="/webhook_event")
        text = request.body[found.end() :].decode()
        end = json.JSONDecoder().raw_decode(text)[1]
        names = ("transmission_id", "transmission_time", "webhook_id")
        message = "|".join([*(str(asked.get(name)) for name in names), str(zlib.crc32(text[:end].encode()))])
        right = (
            asked.get("webhook_id") == self.webhook_secret
            and asked.get("cert_url") == self.certificate_url
            and hmac.compare_digest(
                str(asked.get("transmission_sig")).encode(), signer().sign(message.encode()).encode()
            )
        )
        return Response.json({"verification_status": "SUCCESS" if right else "FAILURE"})

    def _event(self, id: str) -> Resource:
        for event in self.events:
            if event["id"] == id:
                return event
        raise Refusal(404, "INVALID_RESOURCE_ID")

    def _id(self, length: int) -> str:
        return "".join(self.random().choices(ALPHABET, k=length))


_INVALID_TOKEN: Final = Unauthorized("invalid_token", "Token signature verification failed")


def _bearer(request: Request) -> str:
    kind, _, token = (request.header("authorization") or "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def _basic(header: str | None) -> str:
    kind, _, encoded = (header or "").partition(" ")
    try:
        return b64decode(encoded).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""
