"""Where requests may go: https, or this very machine."""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from holdfast.errors import ConfigurationError, InsecureSetup, InvalidInput
from holdfast.http.wire import encode_form

_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
# `?` and `#` would let an id pasted into a path add a query; dot segments would let it leave the path, also quoted
# ones, since some servers undo the quoting before they look.
_UNSAFE = re.compile(
    r"[\x00-\x20\x7f?#\\]|(?:^|/|%2f|%5c)(?:\.|%2e){1,2}(?:/|%2f|%5c|$)",
    re.IGNORECASE,
)


def is_loopback(base_url: str) -> bool:
    """Whether the URL names this machine: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        host = (urlsplit(base_url).hostname or "").rstrip(".")
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_https(base_url: str, provider: str) -> None:
    """Let credentials travel only encrypted, or within this machine.

    Raises:
        InsecureSetup: Plain http to another machine, or no web address at all.
    """
    try:
        scheme, host = urlsplit(base_url).scheme.lower(), urlsplit(base_url).hostname
    except ValueError:
        scheme, host = "", None
    if host and (scheme == "https" or (scheme == "http" and is_loopback(base_url))):
        return
    raise InsecureSetup(f"{provider}: the base URL must begin with https:// (http:// only for localhost)")


def check_public_url(url: str) -> None:
    """Where vendors call: a whole address without a query.

    Raises:
        ConfigurationError: Nobody could call there.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme.lower() in ("https", "http") and parts.hostname and not parts.query and not parts.fragment
    except (ValueError, TypeError, AttributeError):
        fits = False
    if not fits:
        # Without what was given: a query, or a password, may be in it.
        raise ConfigurationError(
            "public_url is where vendors call you, a whole address without a query: https://api.example.ch/webhooks"
        )


def origin(url: str) -> str:
    """Scheme, host and port: what a credential is bound to."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return f"{scheme}://{parts.hostname}:{parts.port or {'https': 443, 'http': 80}.get(scheme)}"


def address(base_url: str, path: str, params: Mapping[str, str | int], provider: str) -> str:
    """The whole URL of `path` under `base_url`; an absolute `path` stands for itself.

    Raises:
        InvalidInput: The path holds a query, a dot segment or a character no path has; quote what you paste into it.
        InsecureSetup: An absolute path without https.
    """
    base, rest = base_url.rstrip("/"), path
    if absolute := _ABSOLUTE.match(path):
        require_https(path, provider)
        base, rest = absolute[0], path[absolute.end() :]
    elif not path.startswith("/"):
        raise InvalidInput(f"{provider}: a path begins with / or https://")
    if _UNSAFE.search(rest):
        raise InvalidInput(
            f"{provider}: the path holds a character that changes its meaning; use segment(...), params="
        )
    return base + rest + (f"?{encode_form(params)}" if params else "")
