"""What a vendor over HTTP has to say about itself."""

import ssl
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from holdfast.http.transports import HttpResponse
from holdfast.http.wire import VendorError, read_json_error
from holdfast.outcome import Cause
from holdfast.telemetry import Redactor
from holdfast.values import Secret, Secrets

Causes = Mapping[int | tuple[int, str], Cause]

CAUSES: Final[dict[int | tuple[int, str], Cause]] = {
    401: Cause.CREDENTIAL,
    408: Cause.UNKNOWN,
    429: Cause.THROTTLED,
}
"""What a status means where the vendor's own table does not say otherwise."""


class HttpVendor(Protocol):
    """The facts the HTTP connection needs; `HttpDefaults` has most of them."""

    @property
    def name(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def causes(self) -> Causes:
        """What (status, vendor code) or a status means; a row for 2xx says that this vendor fails with 2xx too."""
        ...

    def headers(self) -> Mapping[str, str]:
        """What every request to `base_url` carries; the one place where a secret is revealed."""
        ...

    def read_error(self, response: HttpResponse) -> VendorError:
        """What an answer that is no success says; empty where it says nothing."""
        ...


@runtime_checkable
class TrustsCertificate(Protocol):
    """A vendor whose server may have a certificate of its own making: a machine of one's own."""

    def ssl_context(self) -> ssl.SSLContext | None:
        """What connections to it trust; None: what the system trusts."""
        ...


@runtime_checkable
class SignsRequests(Protocol):
    """A vendor that wants every request signed for itself: a token of its own each, or a MAC of what it asks."""

    def sign(self, method: str, url: str, content: bytes, now: datetime) -> Mapping[str, str]:
        """What this one request to `base_url` carries beside `headers`; made anew for each attempt."""
        ...


class HttpDefaults:
    """What most vendors share: the usual table, no headers of their own, errors as JSON."""

    causes: Causes = CAUSES

    def headers(self) -> Mapping[str, str]:
        return {}

    def read_error(self, response: HttpResponse) -> VendorError:
        return read_json_error(response)


def cause_of(causes: Causes, status: int, code: str) -> Cause:
    """The cause of an answer that is no success: the vendor's rows first, the finer one before the coarser."""
    for key in ((status, code), status):
        if (cause := causes.get(key)) is not None:
            return cause
    if status in CAUSES:
        return CAUSES[status]
    return Cause.REJECTED if 400 <= status < 500 else Cause.UNKNOWN


_SHORTEST_SECRET = 4
_NAMES_OF_SECRETS = ("authorization", "cookie", "token", "secret", "api-key", "apikey", "password", "signature")


class Blotter:
    """Blots a vendor's secrets out of its texts, in every form they travel in, and the credentials it was sent."""

    def __init__(self, vendor: HttpVendor) -> None:
        self._vendor = vendor
        self._held = frozenset[str]()
        self._redactor = Redactor()

    def blot(self, text: str, headers: Mapping[str, str]) -> str:
        """The text without them; `headers` are those of the request it answers."""
        held = frozenset(_secrets(self._vendor, headers))
        if held != self._held:  # anew, not more: tokens come and go
            self._held, self._redactor = held, Redactor()
            self._redactor.learn([Secret(text) for text in held])
        for secret in sorted(held, key=len, reverse=True):  # the redactor leaves the shortest
            text = text.replace(secret, "***")
        return self._redactor.redact(text)


def _secrets(vendor: HttpVendor, headers: Mapping[str, str]) -> set[str]:
    held = {value for field in _fields(vendor) for value in _revealed(getattr(vendor, field, None))}
    for name, value in headers.items():
        if any(word in name.lower() for word in _NAMES_OF_SECRETS):
            held |= {value, value.rpartition(" ")[2]}
    return {text for text in held if len(text) >= _SHORTEST_SECRET}


def _fields(vendor: object) -> list[str]:
    return [field.name for field in fields(vendor)] if is_dataclass(vendor) else list(vars(vendor))


def _revealed(value: object) -> list[str]:
    match value:
        case Secret():
            return [value.reveal()]
        case Secrets():
            return [secret.reveal() for secret in value]
        case _:
            return []
