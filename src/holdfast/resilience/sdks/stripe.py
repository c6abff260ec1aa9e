"""stripe: `StripeClient`, with or without async."""

from typing import Any

from holdfast.outcome import Cause, Effect
from holdfast.resilience.sdks.kinds import is_any
from holdfast.resilience.sdks.sdk import Asked, Facts, Row, Sdk, loaded

_LOOKS = frozenset({"find", "list", "pdf", "preview", "retrieve", "retrieve_current", "search"})
# "Sending idempotency keys in GET and DELETE requests has no effect because these requests are idempotent by
# definition": https://docs.stripe.com/api/idempotent_requests
_DELETES = frozenset({"delete", "delete_discount"})
_METHODS = {"get": Effect.READ, "delete": Effect.IDEMPOTENT}
_RAW = frozenset({"raw_request", "raw_request_async"})
_LOCAL = frozenset({"authorize_url"})


class Stripe(Sdk):
    """Stripe's own client: every POST carries a key, so all of them may be repeated."""

    name = "stripe"
    clients = frozenset({"stripe.StripeClient"})
    parts = frozenset({"stripe.StripeService"})
    packages = frozenset({"stripe"})
    takes_keys = True
    status, code, headers, request_id = ("http_status",), ("code",), ("headers",), ("request_id",)
    rows = (
        Row("stripe.CardError", Cause.REJECTED, reason="card_declined"),
        # An older 400 with the code rate_limit arrives as this too.
        Row("stripe.RateLimitError", Cause.THROTTLED),
        # The key's first request is under way, so this one did nothing: https://docs.stripe.com/api/errors
        Row("stripe.APIError", Cause.REFUSED, status=409),
        # "The API key doesn't have permissions to perform the request": https://docs.stripe.com/api/errors
        Row("stripe.PermissionError", Cause.CREDENTIAL),
        Row("stripe.SignatureVerificationError", None),
    )

    def is_exchange(self, owner: object, name: str) -> bool:
        return name not in _LOCAL if is_any(owner, self.parts) else name in _RAW

    def effect(self, asked: Asked) -> Effect:
        if asked.name in _RAW:
            return _METHODS.get(str(asked.argument("method_")).lower(), Effect.KEYED)
        if asked.name in _LOOKS:
            return Effect.READ
        if asked.path.startswith("oauth."):  # https://docs.stripe.com/connect/oauth-reference names no key
            return Effect.ONCE
        return Effect.IDEMPOTENT if asked.name in _DELETES else Effect.KEYED

    def key(self, asked: Asked) -> str:
        return str(_options(asked).get("idempotency_key") or "")

    def keyed(self, asked: Asked, key: str) -> Asked:
        return _with(asked, idempotency_key=key)

    def once_more(self, asked: Asked) -> Asked:
        return _with(asked, max_network_retries=0)

    def retries(self, client: Any) -> str:
        return ""  # turned off call by call

    def may_repeat(self, facts: Facts) -> bool:
        # A stored 500 is replayed for its key for ever; the header says so: https://docs.stripe.com/error-low-level
        return facts.header("stripe-should-retry").lower() != "false"

    def failed(self, text: str) -> Exception:
        return loaded("stripe", "APIConnectionError")(text)


def _options(asked: Asked) -> dict[str, Any]:
    return asked.kwargs if asked.name in _RAW else dict(asked.argument("options") or {})


def _with(asked: Asked, **options: Any) -> Asked:
    if asked.name in _RAW:
        return asked.given(**options)
    return asked.given(options=_options(asked) | options)
