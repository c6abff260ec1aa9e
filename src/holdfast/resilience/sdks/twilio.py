"""twilio: `Client`, with or without async."""

from typing import Any

from holdfast.outcome import Cause, Effect
from holdfast.resilience.sdks.kinds import is_any
from holdfast.resilience.sdks.requests import EFFECTS, retrying_adapter
from holdfast.resilience.sdks.sdk import Asked, Facts, Row, Sdk, loaded

_VERBS = {
    "create": Effect.ONCE,  # "POST requests are not idempotent": https://www.twilio.com/docs/api/errors/20500
    "update": Effect.ONCE,
    "patch": Effect.ONCE,
    "delete": Effect.IDEMPOTENT,
    "fetch": Effect.READ,
    "list": Effect.READ,
    "page": Effect.READ,
    "get_page": Effect.READ,
}
_RESOURCES = frozenset({"twilio.ListResource", "twilio.InstanceContext"})
_RAW = frozenset({"request", "request_async"})


class Twilio(Sdk):
    """Twilio's own client: it knows no idempotency key, so what is created is created once."""

    name = "twilio"
    clients = frozenset({"twilio.ClientBase"})
    parts = _RESOURCES | {"twilio.Domain", "twilio.Version"}
    packages = frozenset({"twilio", "requests", "aiohttp", "urllib3"})
    status, code = ("status",), ("code",)
    rows = (
        # https://www.twilio.com/docs/api/errors
        Row("twilio.TwilioException", Cause.CREDENTIAL, codes=frozenset({"20003"})),
        Row("twilio.TwilioException", Cause.THROTTLED, codes=frozenset({"20429"})),
        Row(
            "twilio.TwilioException",
            Cause.REJECTED,
            codes=frozenset({"21211", "21217", "21610", "21614"}),
            reason="recipient_gone",
        ),
        # It was answered with a success that could not be read.
        Row("json.JSONDecodeError", Cause.UNKNOWN),
    )

    def is_exchange(self, owner: object, name: str) -> bool:
        if is_any(owner, _RESOURCES):
            return _verb(name) in _VERBS
        return name in _RAW and is_any(owner, self.clients)

    def effect(self, asked: Asked) -> Effect:
        if asked.name in _RAW:
            return EFFECTS.get(str(asked.argument("method")).upper(), Effect.ONCE)
        return _VERBS[_verb(asked.name)]

    def answer(self, answer: object) -> Facts | None:
        status = getattr(answer, "status_code", None)
        if not isinstance(status, int) or status < 400:
            return None
        return Facts(status=status, headers=getattr(answer, "headers", None) or {})

    def retries(self, client: Any) -> str:
        session: object = client.http_client.session
        if is_any(session, frozenset({"aiohttp_retry.RetryClient"})):
            return "AsyncTwilioHttpClient() without max_retries"
        return "TwilioHttpClient() without max_retries" if retrying_adapter(session) else ""

    def failed(self, text: str) -> Exception:
        return loaded("twilio.base.exceptions", "TwilioException")(text)


def _verb(name: str) -> str:
    return name.removesuffix("_async").removesuffix("_with_http_info")
