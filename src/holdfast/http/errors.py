"""What every exception of httpx, and of httpx2 by the same names, means to us: a table, complete by test."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import httpx

from holdfast.errors import CallFailed
from holdfast.outcome import Cause


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one class of exception proves, and the words for it."""

    cause: Cause
    text: str
    hard: bool = False
    reason: str = ""


def _not_sent(text: str, *, hard: bool = False, reason: str = "") -> Meaning:
    return Meaning(Cause.NOT_SENT, text, hard=hard, reason=reason)


def _unknown(text: str, *, hard: bool = True, reason: str = "") -> Meaning:
    return Meaning(Cause.UNKNOWN, text, hard=hard, reason=reason)


_CONFIG: Final = "could not be written as HTTP: check the base URL and the credential's characters"

# Measured against httpx 0.28 with a byte server: in every row but the not-sent ones the server had read the request.
MEANINGS: Final[dict[type[Exception], Meaning]] = {
    # The request never left.
    httpx.ConnectError: _not_sent("could not connect", hard=True, reason="connect"),
    httpx.ConnectTimeout: _not_sent("could not connect in time", hard=True, reason="connect"),
    httpx.ProxyError: _not_sent("was refused by the proxy", hard=True, reason="proxy"),
    httpx.PoolTimeout: _not_sent("found no free connection in time", reason="pool"),  # ours, so not hard
    httpx.UnsupportedProtocol: _not_sent(_CONFIG, reason="config"),
    httpx.LocalProtocolError: _not_sent(_CONFIG, reason="config"),
    httpx.InvalidURL: _not_sent(_CONFIG, reason="config"),
    # The vendor may have acted, its answer is missing.
    httpx.ReadError: _unknown("lost the connection before the whole answer", reason="reset"),
    httpx.WriteError: _unknown("lost the connection while sending", reason="reset"),
    httpx.CloseError: _unknown("lost the connection while closing it", reason="reset"),
    httpx.ReadTimeout: _unknown("got no answer in time", reason="timeout"),
    httpx.WriteTimeout: _unknown("could not be sent in time", reason="timeout"),
    httpx.RemoteProtocolError: _unknown("got an answer that is not HTTP, or half of one", reason="protocol"),
    # It answered, and we cannot read it.
    httpx.DecodingError: _unknown("got an answer that does not decompress", hard=False, reason="unreadable"),
    httpx.TooManyRedirects: _unknown("was redirected too often", hard=False, reason="redirect"),
    httpx.HTTPStatusError: _unknown("got an answer that is no success", hard=False),
    httpx.CookieConflict: _unknown("got contradictory cookies", hard=False, reason="unreadable"),
    httpx.StreamError: _unknown("could not read the answer", hard=False, reason="unreadable"),
    httpx.StreamConsumed: _unknown("could not read the answer", hard=False, reason="unreadable"),
    httpx.StreamClosed: _unknown("could not read the answer", hard=False, reason="unreadable"),
    httpx.ResponseNotRead: _unknown("could not read the answer", hard=False, reason="unreadable"),
    httpx.RequestNotRead: _unknown("could not read the request", hard=False, reason="unreadable"),
    # Roots: what a later httpx may derive from them proves nothing.
    httpx.HTTPError: _unknown("failed without saying where"),
    httpx.RequestError: _unknown("failed without saying where"),
    httpx.TransportError: _unknown("failed without saying where"),
    httpx.TimeoutException: _unknown("ran out of time", reason="timeout"),
    httpx.NetworkError: _unknown("lost the connection", reason="reset"),
    httpx.ProtocolError: _unknown("broke the HTTP protocol", reason="protocol"),
    # What escapes httpx untranslated from its own parts.
    OSError: _unknown("lost the connection", reason="reset"),
    TimeoutError: _unknown("ran out of time", reason="timeout"),
}


_BY_NAME: Final = {kind.__name__: row for kind, row in MEANINGS.items() if kind.__module__ == "httpx"}


def meaning(error: Exception) -> Meaning:
    """The row of the nearest class; an exception nobody knows proves nothing."""
    for kind in type(error).__mro__:
        row = MEANINGS.get(kind) or (_BY_NAME.get(kind.__name__) if kind.__module__ == "httpx2" else None)
        if row is not None:
            return row
    return _unknown("failed without saying where")


def translate(error: Exception) -> CallFailed:
    """Our error for one of httpx's or httpx2's; raise it `from` the original, unless that one `shows_request`."""
    row = meaning(error)
    text, reason = row.text, row.reason
    if row is MEANINGS[httpx.ConnectError]:
        text, reason = _why_not_connected(error)
    return CallFailed.of(row.cause, text, reason=reason, hard=row.hard)


def shows_request(error: Exception) -> bool:
    """Whether the exception's text may quote a header or the address, and with it a secret."""
    return meaning(error).reason == "config"


def _why_not_connected(error: Exception) -> tuple[str, str]:
    """httpx has one class for them all; what lies beneath tells them apart."""
    causes = tuple(_beneath(error))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "could not connect: the TLS handshake failed", "tls"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "could not connect: the host name was not found", "dns"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "could not connect: the connection was refused", "refused"
    return "could not connect", "connect"


def _beneath(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
        yield from _beneath(error.__cause__ or error.__context__)
        if isinstance(error, BaseExceptionGroup):  # anyio: one for each address of the host
            for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
                yield from _beneath(inner)
