"""What every call at Stripe has in common: keys, versions, idempotency, limits, errors, lists, events."""

import base64
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from string import ascii_letters, digits
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlsplit

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.forms import Nested, nested, pairs
from holdfast.testing.simulators.idempotency import Conflict, IdempotencyKeys
from holdfast.testing.simulators.simulator import Exchange, Headers, Request, Response, Simulator, Webhook
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.resources import Resource

DAY: Final = 86_400
LONGEST_KEY: Final = 255
PAYERS_OWN: Final = re.compile(r"GET /v1/payment_intents/([^/]+)|POST /v1/payment_intents/([^/]+)/confirm")
VERSION: Final = re.compile(r"\d{4}-\d\d-\d\d(\.[a-z]+)?")
OF_CHARGES_LIST: Final = "2022-11-15"
"""Since this version an intent names its latest charge instead of listing all."""
EXPANDABLE: Final = frozenset(
    (
        "balance_transaction",
        "charge",
        "customer",
        "latest_charge",
        "payment_intent",
        "payment_method",
        "product",
        "source",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Calls let through in any second, as for a sandbox; zero switches it off."""

    calls: int = 25


class Refusal(Exception):
    """Stripe says no."""

    def __init__(
        self, status: int, message: str, *, type: str = "invalid_request_error", began: bool = False, **more: object
    ) -> None:
        super().__init__(message)
        self.status = status
        self.began = began
        """Whether execution had begun, so that the answer is kept for the idempotency key."""
        self.error: Resource = {"message": message, "type": type, **more}
        self.headers: Headers = ()


class StripeApi(Simulator):
    """One sandbox account, without what can be bought and paid in it."""

    vendor: ClassVar[str] = "stripe"
    hosts: ClassVar[tuple[str, ...]] = ("api.stripe.com", "checkout.stripe.com")
    retries: ClassVar[tuple[float, ...]] = (3600, 7200, 14_400)
    schemes: ClassVar[tuple[str, str] | None] = ("v1", "v0")
    signs_with_both: ClassVar[bool] = True
    api_version: ClassVar[str] = "2026-10-28.endive"

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
        api_key: str = "",
        limits: Limits = Limits(),
        search_lag: float = 60,
    ) -> None:
        """`search_lag` is how many seconds old an object must be before a search finds it."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.webhook_secret = webhook_secret or f"whsec_{self._made_up(32)}"
        self.api_key = api_key or f"sk_test_51{self._made_up(97)}"
        self.publishable_key = f"pk_test_{self.api_key.rpartition('_')[2]}"
        self.limits = limits
        self.search_lag = search_lag
        self._request_id = ""
        self._version = self.api_version
        self._key: str | None = None
        self._kept = False
        self._forget()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"api_key": self.api_key, "webhook_secret": self.webhook_secret}

    def reset(self) -> None:
        super().reset()
        self._forget()

    def _forget(self) -> None:
        self.resources: dict[str, Resource] = {}
        """Everything this account holds, by id, oldest first."""
        self._secrets: dict[str, str] = {}
        """Of webhook endpoints, by id."""
        self._keys = IdempotencyKeys(self.clock, window=DAY)
        self._calls = self.window(self.limits.calls)

    # Webhooks

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """`t`, `v1`, and a sandbox's `v0`, which nobody can check."""
        return self.sign_with(body, secrets=[secret], at=at)

    def sign_with(self, body: bytes, *, secrets: Sequence[str], at: datetime, url: str = "") -> Headers:
        """One `v1` for each secret: https://docs.stripe.com/webhooks#roll-endpoint-secrets"""
        timestamp = str(int(at.timestamp()))
        signed = timestamp.encode() + b"." + body
        valid = [f"v1={hmac.new(key.encode(), signed, 'sha256').hexdigest()}" for key in secrets]
        decoy = f"v0={hmac.new(b'v0', signed, 'sha256').hexdigest()}"
        return (("stripe-signature", ",".join([f"t={timestamp}", *valid, decoy])),)

    def new_secret(self) -> str:
        return f"whsec_{self._made_up(32)}"

    def happen(self, kind: str, about: Resource, *, before: Resource | None = None) -> Resource:
        """Write the event down, and owe it to whoever wants to hear of it."""
        data: Resource = {"object": self._written(about, self.api_version)}
        if before is not None:
            data["previous_attributes"] = before
        happened = self._new(
            resources.event(
                self._id("evt_1"),
                self._unix(),
                type=kind,
                data=data,
                version=self.api_version,
                request={"id": self._request_id or None, "idempotency_key": self._key},
            )
        )
        listening = [one for one in self._of("webhook_endpoint") if _wants(one, kind)]
        happened["pending_webhooks"] = len(listening) + bool(self.webhook_url)
        if self.webhook_url:
            self.owe(self._webhook(happened, self.webhook_url, ""))
        for endpoint in listening:
            self.owe(self._webhook(happened, endpoint["url"], self._secrets[endpoint["id"]]))
        return happened

    def _webhook(self, happened: Resource, url: str, secret: str) -> Webhook:
        about = happened["data"]["object"]
        headers = (
            ("content-type", "application/json; charset=utf-8"),
            ("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)"),
            ("accept", "*/*; q=0.5, application/xml"),
            ("cache-control", "no-cache"),
        )
        return Webhook(
            vendor=self.vendor,
            url=url,
            event=happened["type"],
            about=about["id"],
            key=self.reference(about),
            body=_text(happened),
            headers=headers,
            secret=secret,
        )

    def reference(self, resource: Resource) -> str:
        """The caller's name of what the resource is about, as far as Stripe was told; else its id."""
        metadata = cast(Resource, resource.get("metadata") or {})
        named = resource.get("client_reference_id") or metadata.get("reference") or metadata.get("order_id")
        return str(named or resource["id"])

    # Every call

    def exchange(self, request: Request) -> Exchange:
        """The same; what a fault makes of the first answer to a key is what the key keeps."""
        self._kept = False
        exchange = super().exchange(request)
        key, response = request.header("idempotency-key"), exchange.response
        if self._kept and key is not None and response is not None:
            failed: Response | None = None
            if response.status >= 500:
                told = (("idempotency-key", key), ("stripe-should-retry", "false"))
                failed = replace(response, headers=(*response.headers, *told))
                exchange = replace(exchange, response=failed)
            self._keys.amend(key, lambda kept: failed or kept, after=exchange.delay)
        return exchange

    def answer(self, request: Request) -> Response:
        if not request.path.startswith("/v1/"):  # what payers open, who have no key
            return super().answer(request)
        self._request_id = f"req_{self._made_up(14)}"
        self._version = request.header("stripe-version") or self.api_version
        self._key = request.header("idempotency-key") if request.method == "POST" else None
        try:
            self._admit(request)
            response = self._once(request) if self._key is not None else super().answer(request)
        except Refusal as refusal:
            response = self._refused(refusal)
        finally:
            request_id, self._request_id, key, self._key = self._request_id, "", self._key, None
        echoed = (("idempotency-key", key),) if key is not None else ()
        return replace(
            response,
            headers=(*response.headers, ("request-id", request_id), ("stripe-version", self._version), *echoed),
        )

    def failure(self, fault: Status) -> Response:
        """Stripe's own errors; of its limits it gives a reason and no time to wait."""
        if fault.status == 429:
            response = self._refused(_too_many())
        else:
            text = "An unknown error occurred"
            response = self._refused(Refusal(fault.status, text, type="api_error"))
        wait = () if fault.retry_after is None else (("retry-after", f"{fault.retry_after:g}"),)
        return replace(response, headers=(*response.headers, *wait, ("request-id", f"req_{self._made_up(14)}")))

    def not_found(self, request: Request) -> Response:
        if not request.path.startswith("/v1/"):
            return Response(status=404, headers=(("content-type", "text/html"),), body=b"<h1>Something went wrong</h1>")
        text = (
            f"Unrecognized request URL ({request.method}: {request.path}). Please see https://stripe.com/docs or we "
            "can help at https://support.stripe.com/."
        )
        raise Refusal(404, text)

    def _admit(self, request: Request) -> None:
        key = _api_key(request)
        if not key:
            text = (
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#"
                "authentication for details, or we can help at https://support.stripe.com/."
            )
            raise Refusal(401, text)
        if self.is_publishable(request):
            self._admit_payer(request)
        elif not hmac.compare_digest(key.encode(), self.api_key.encode()):
            raise Refusal(401, f"Invalid API Key provided: {key[:8]}{'*' * max(4, len(key) - 12)}{key[-4:]}")
        if self._calls.wait():
            raise _too_many()
        self._calls.take()
        if not VERSION.fullmatch(self._version):
            raise Refusal(400, f"Invalid Stripe API version: {self._version}")

    def _admit_payer(self, request: Request) -> None:
        """A browser or an app: it may look at an intent and confirm it, with the intent's own secret."""
        found = PAYERS_OWN.fullmatch(f"{request.method} {request.path}")
        if found is None:
            text = "This API call cannot be made with a publishable API key. Please use a secret API key."
            raise Refusal(403, text, code="secret_key_required")
        intent = self._get("payment_intent", found[1] or found[2], param="intent")
        given = str(self._asked(request).get("client_secret", ""))
        if not hmac.compare_digest(given.encode(), intent["client_secret"].encode()):
            text = "The client_secret provided does not match the client_secret associated with the PaymentIntent."
            raise Refusal(400, text, code="payment_intent_invalid_parameter", param="client_secret")

    def is_publishable(self, request: Request) -> bool:
        """Whether it is asked with the key that may lie in a page."""
        return hmac.compare_digest(_api_key(request).encode(), self.publishable_key.encode())

    def _once(self, request: Request) -> Response:
        key = cast(str, self._key)
        if len(key) > LONGEST_KEY:
            text = f"Idempotency keys may be up to {LONGEST_KEY} characters long, and this one has {len(key)}."
            raise Refusal(400, text, type="idempotency_error")
        target, parameters = request.path, tuple(sorted(pairs(request)))
        found = self._keys.look(key, target, parameters)
        if isinstance(found, Conflict):
            raise _conflict(found, key, target)
        if found is not None:
            return replace(found, headers=(*found.headers, ("idempotent-replayed", "true")))
        try:
            response = super().answer(request)
        except Refusal as refusal:
            if not refusal.began:
                raise
            response = self._refused(refusal)
        response = replace(response, headers=(*response.headers, ("original-request", self._request_id)))
        self._keys.keep(key, target, parameters, response)
        self._kept = True
        return response

    def _refused(self, refusal: Refusal) -> Response:
        error = dict(refusal.error)
        if "code" in error:
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{str(error['code']).replace('_', '-')}"
        if self._request_id:
            error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{self._request_id}?t={self._unix()}"
        basic = (("www-authenticate", 'Basic realm="Stripe"'),) if refusal.status == 401 else ()
        headers = (("content-type", "application/json"), *basic, *refusal.headers)
        return Response(status=refusal.status, headers=headers, body=_text({"error": error}))

    # What is asked

    def _asked(self, request: Request, known: Iterable[str] | None = None) -> Nested:
        """The parameters; those this call does not know are refused, as Stripe does."""
        try:
            asked = nested(pairs(request))
        except ValueError as error:
            raise Refusal(400, f"Invalid hash: {error}") from None
        unknown = sorted(asked.keys() - {*known, "expand"}) if known is not None else []
        if unknown:
            text = f"Received unknown parameter{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}"
            raise Refusal(400, text, code="parameter_unknown", param=unknown[0])
        return asked

    # What is answered

    def _show(self, request: Request, resource: Resource, **more: object) -> Response:
        """The resource, in the version and with the expansions asked for."""
        return _json(self._expanded(request, {**resource, **more}, ""))

    def _page(self, request: Request, found: Sequence[Resource], *, limit: int = 10) -> Response:
        """A page of a list, newest first."""
        asked = self._asked(request)
        newest = [one for one in reversed(found) if _created_within(one, asked.get("created"))]
        wanted = whole(asked, "limit", default=limit)
        if not 1 <= wanted <= 100:
            side = "greater than or equal to 1" if wanted < 1 else "less than or equal to 100"
            raise Refusal(400, f"This value must be {side} (it currently is '{wanted}').", param="limit")
        after, before = asked.get("starting_after"), asked.get("ending_before")
        if after is not None and before is not None:
            raise Refusal(400, "Received both starting_after and ending_before parameters. Please pass in only one.")
        if before is not None:
            rest = newest[: self._place(newest, str(before), "ending_before")]
            page, more = rest[-wanted:], len(rest) > wanted
        else:
            rest = newest[self._place(newest, str(after), "starting_after") + 1 :] if after is not None else newest
            page, more = rest[:wanted], len(rest) > wanted
        data = [self._expanded(request, one, "data.") for one in page]
        return _json({"object": "list", "data": data, "has_more": more, "url": request.path})

    def _found(self, request: Request, kind: str) -> Response:
        """A page of what a search finds, in Stripe's query language as far as `AND`, `:`, `<`, `>` go."""
        asked = self._asked(request)
        holds = _query(str(asked.get("query", "")))
        indexed = [one for one in self._of(kind) if one["created"] <= self._unix() - self.search_lag]
        found = [one for one in reversed(indexed) if holds(one)]
        first, most = int(str(asked.get("page") or "0")), whole(asked, "limit", default=10)
        more = first + most < len(found)
        page = [self._expanded(request, one, "data.") for one in found[first : first + most]]
        answer = {"object": "search_result", "data": page, "has_more": more, "url": request.path}
        return _json({**answer, "next_page": str(first + most) if more else None})

    def _place(self, found: Sequence[Resource], id: str, param: str) -> int:
        for place, one in enumerate(found):
            if one["id"] == id:
                return place
        raise Refusal(400, f"No such object: '{id}'", code="resource_missing", param=param)

    def _expanded(self, request: Request, resource: Resource, prefix: str) -> Resource:
        written = self._written(resource, self._version)
        wanted = self._asked(request).get("expand")
        for path in cast(list[object], wanted) if isinstance(wanted, list) else [wanted] if wanted else []:
            if str(path).startswith(prefix):
                self._expand(written, str(path).removeprefix(prefix).split("."), str(path))
        return written

    def _expand(self, written: Resource, path: Sequence[str], whole_path: str) -> None:
        name, *rest = path
        if name not in written or not (name in EXPANDABLE or isinstance(written[name], dict) or name == "line_items"):
            raise Refusal(400, f"This property cannot be expanded ({whole_path}).")
        if isinstance(written[name], str):
            written[name] = self._written(self.resources[written[name]], self._version)
        if rest and isinstance(written[name], dict):
            self._expand(cast(Resource, written[name]), rest, whole_path)

    def _written(self, resource: Resource, version: str) -> Resource:
        """A copy, in the shape of a version."""
        written = deepcopy(resource)
        if written["object"] == "payment_intent" and version < OF_CHARGES_LIST:
            tried = [one for one in self._of("charge") if one["payment_intent"] == written["id"]]
            url = f"/v1/charges?payment_intent={written['id']}"
            charges = [deepcopy(one) for one in reversed(tried)]
            written["charges"] = {"object": "list", "data": charges, "has_more": False, "url": url}
            del written["latest_charge"]
        return written

    # What is there

    def _get(self, kind: str, id: str, *, param: str = "id") -> Resource:
        found = self.resources.get(id)
        if found is None or found["object"] != kind or found.get("deleted"):
            raise Refusal(404, f"No such {kind}: '{id}'", code="resource_missing", param=param)
        return found

    def _of(self, kind: str) -> list[Resource]:
        return [one for one in self.resources.values() if one["object"] == kind and not one.get("deleted")]

    def _new(self, resource: Resource) -> Resource:
        self.resources[resource["id"]] = resource
        return resource

    def _id(self, prefix: str, length: int = 23) -> str:
        return prefix + self._made_up(length)

    def _made_up(self, length: int) -> str:
        return "".join(self.random().choices(ascii_letters + digits, k=length))

    def _unix(self) -> int:
        return int(self.clock.now().timestamp())


def whole(asked: Mapping[str, object], name: str, *, default: int | None = None) -> int:
    """The parameter as a whole number.

    Raises:
        Refusal: It is missing and has no default, or it is no whole number.
    """
    value = asked.get(name, default)
    if value is None or value == "":
        raise missing(name)
    if not re.fullmatch(r"-?\d+", str(value)):
        raise Refusal(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
    return int(str(value))


def missing(name: str) -> Refusal:
    """What Stripe says when it needs that parameter."""
    return Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def mapping(value: object) -> Nested:
    """The value where it has named parts, else nothing."""
    return cast(Nested, value) if isinstance(value, dict) else {}


def metadata(held: Mapping[str, str], value: object) -> dict[str, str]:
    """What is held with what is asked for: an empty text removes a name, nothing at all removes them all."""
    if value == "":
        return {}
    changed = {**held, **{name: str(text) for name, text in mapping(value).items()}}
    for name, text in changed.items():
        if len(name) > 40:
            shown = (
                f"Metadata keys can have up to 40 characters, but you passed in a key that is {len(name)} characters."
            )
            raise Refusal(400, f"{shown} Invalid key: {name}", param="metadata")
        if len(text) > 500:
            shown = "Metadata values can have up to 500 characters, but you passed in a value that is"
            raise Refusal(400, f"{shown} {len(text)} characters. Invalid value: {text}", param=f"metadata[{name}]")
    if len(changed) > 50:
        raise Refusal(400, f"You can only have 50 metadata keys, and you passed {len(changed)}.", param="metadata")
    return {name: text for name, text in changed.items() if text != ""}


def _text(data: object) -> bytes:
    return json.dumps(data, indent=2, ensure_ascii=False).encode()  # Stripe's JSON is indented, in webhooks too


def _json(data: object) -> Response:
    return Response(headers=(("content-type", "application/json"),), body=_text(data))


def _wants(endpoint: Resource, kind: str) -> bool:
    return endpoint["status"] == "enabled" and not {"*", kind}.isdisjoint(endpoint["enabled_events"])


def _api_key(request: Request) -> str:
    kind, _, given = (request.header("authorization") or "").partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(given).decode().partition(":")[0]
        except ValueError:
            return ""
    return given.strip() if kind.lower() == "bearer" else ""


def _too_many() -> Refusal:
    text = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
    refusal = Refusal(429, text, code="rate_limit")
    refusal.headers = (("stripe-rate-limited-reason", "global-rate"),)
    return refusal


def _conflict(found: Conflict, key: str, target: str) -> Refusal:
    if found is Conflict.IN_FLIGHT:
        text = (
            "There is currently another in-progress request using this Idempotent Key (that probably means you "
            f"submitted twice, and the other request is still going through): {key}. Please try again later."
        )
        return Refusal(409, text, type="idempotency_error", code="idempotency_key_in_use")
    used = "with the same parameters" if found is Conflict.OTHER_PARAMETERS else "for the same endpoint"
    text = (
        f"Keys for idempotent requests can only be used {used} they were first used "
        f"{'with' if found is Conflict.OTHER_PARAMETERS else 'for'}. Try using a key other than '{key}' if you meant "
        "to execute a different request."
    )
    return Refusal(400, text, type="idempotency_error")


def _created_within(resource: Resource, asked: object) -> bool:
    created: int = resource["created"]
    if isinstance(asked, str):
        return created == whole({"created": asked}, "created")
    sides: dict[str, Callable[[int, int], bool]] = {
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
    }
    bounds = mapping(asked)
    return all(holds(created, whole(bounds, side)) for side, holds in sides.items() if side in bounds)


_TERM: Final = re.compile(
    r"""(?P<name>\w+)(?:\[["'](?P<inner>[^"']+)["']\])?(?P<sign>[:<>]=?)["']?(?P<value>[^"']*)["']?"""
)


def _query(text: str) -> Callable[[Resource], bool]:
    terms = [_TERM.fullmatch(term.strip()) for term in re.split(r"\s+AND\s+", text)]
    if not text or None in terms:
        raise Refusal(400, f"We were unable to parse your search query: {text!r}.", param="query")

    def holds(resource: Resource) -> bool:
        return all(_holds(term, resource) for term in terms if term is not None)

    return holds


def _holds(term: re.Match[str], resource: Resource) -> bool:
    value: Any = resource.get(term["name"])
    value = mapping(value).get(term["inner"]) if term["inner"] else value
    if term["sign"] == ":":
        return str(value) == term["value"]
    if not isinstance(value, int):
        return False
    bound = int(term["value"])
    return {"<": value < bound, ">": value > bound, "<=": value <= bound, ">=": value >= bound}[term["sign"]]


def path_of(url: str) -> str:
    """The path of an address, or of an id that stands for itself."""
    return urlsplit(url).path or url
