"""requests: `Session`."""

from typing import Any
from urllib.parse import urlsplit

from holdfast.outcome import Cause, Effect
from holdfast.resilience.sdks.sdk import Asked, Facts, Row, Sdk, loaded
from holdfast.resilience.sync import attempt_timeout

EFFECTS = {
    "GET": Effect.READ,
    "HEAD": Effect.READ,
    "OPTIONS": Effect.READ,
    "PUT": Effect.IDEMPOTENT,
    "DELETE": Effect.IDEMPOTENT,
}
_SENDING = frozenset({"get", "head", "options", "put", "delete", "post", "patch", "request", "send"})
_KEY = "Idempotency-Key"


class Requests(Sdk):
    """A session of requests: an answer is returned whatever its status, so it is judged before that."""

    name = "requests"
    clients = frozenset({"requests.Session"})
    packages = frozenset({"requests", "urllib3"})
    takes_keys = True
    status, headers = ("response", "status_code"), ("response", "headers")
    rows = (
        # Found before anything is sent.
        Row("requests.InvalidURL", None),
        Row("requests.InvalidSchema", None),
        Row("requests.MissingSchema", None),
        Row("requests.URLRequired", None),
        Row("requests.InvalidHeader", None),
        Row("requests.InvalidJSONError", None),
        Row("requests.UnrewindableBodyError", None),
        Row("requests.TooManyRedirects", Cause.UNKNOWN, reason="redirect"),
    )

    def is_exchange(self, owner: object, name: str) -> bool:
        return name in _SENDING

    def operation(self, asked: Asked) -> str:
        return _method(asked)

    def effect(self, asked: Asked) -> Effect:
        return EFFECTS.get(_method(asked), Effect.KEYED if self.key(asked) else Effect.ONCE)

    def scope(self, asked: Asked) -> str:
        return urlsplit(_url(asked)).hostname or ""  # a session may call several

    def key(self, asked: Asked) -> str:
        given = _headers(asked)
        return next((str(given[name] or "") for name in given if str(name).lower() == _KEY.lower()), "")

    def keyed(self, asked: Asked, key: str) -> Asked:
        if asked.name != "send":
            return asked.given(headers=_headers(asked) | {_KEY: key})
        request = asked.argument("request").copy()
        request.headers[_KEY] = key
        return asked.given(request=request)

    def once_more(self, asked: Asked) -> Asked:
        given = asked.argument("timeout")
        if given is not None and not isinstance(given, int | float):
            return asked
        return asked.given(timeout=attempt_timeout(given))

    def sendable_again(self, asked: Asked) -> bool:
        if asked.name == "send":
            return isinstance(asked.argument("request").body, str | bytes | None)
        return super().sendable_again(asked)

    def answer(self, answer: object) -> Facts | None:
        status: int = getattr(answer, "status_code", 0)
        return Facts(status=status, headers=getattr(answer, "headers", {})) if status >= 400 else None

    def is_elsewhere(self, asked: Asked, error: BaseException) -> bool:
        request: Any = getattr(error, "request", None)
        if request is None or not request.url:
            return False
        wanted, reached = urlsplit(_url(asked)), urlsplit(str(request.url))
        there = [(url.hostname, url.port, url.path or "/") for url in (wanted, reached)]
        return there[0] != there[1] or request.method != _method(asked)

    def retries(self, client: Any) -> str:
        return "the adapters with max_retries=0" if retrying_adapter(client) else ""

    def failed(self, text: str) -> Exception:
        return loaded("requests", "ConnectionError")(text)


def retrying_adapter(session: Any) -> bool:
    """Whether an adapter of a session of requests repeats by itself."""
    found = getattr(session, "adapters", {}).values()
    return any(getattr(getattr(each, "max_retries", None), "total", 0) for each in found)


def _method(asked: Asked) -> str:
    match asked.name:
        case "send":
            return str(asked.argument("request").method).upper()
        case "request":
            return str(asked.argument("method")).upper()
        case name:
            return name.upper()


def _url(asked: Asked) -> str:
    return str(asked.argument("request").url if asked.name == "send" else asked.argument("url"))


def _headers(asked: Asked) -> dict[str, Any]:
    return dict((asked.argument("request").headers if asked.name == "send" else asked.argument("headers")) or {})
