"""What a fault makes of an exchange."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil
from typing import Protocol
from urllib.parse import quote

from holdfast.clock import Clock
from holdfast.testing.faults import (
    AuthExpired,
    BadGzip,
    BadJson,
    Close,
    Dns,
    Drawn,
    Dribble,
    Fault,
    Hang,
    Html,
    RateLimited,
    Refused,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongType,
)
from holdfast.testing.simulators.messages import Ending, Exchange, Headers, Request, Response

_NOBODY = "ZXhwaXJlZDpleHBpcmVk"
"""`expired:expired`, in the letters of basic authentication: a credential that nobody has, of whatever kind."""


class Vendor(Protocol):
    """What faults ask of a vendor's simulator."""

    @property
    def clock(self) -> Clock: ...

    @property
    def credentials(self) -> Mapping[str, str]: ...

    def failure(self, fault: Status) -> Response: ...

    def expire(self, request: Request) -> bool: ...

    def answer(self, request: Request) -> Response: ...


def unconnected(fault: Fault) -> Exchange:
    """What becomes of a connection; of a request, where nothing of it is sent."""
    match fault:
        case Reset():
            return Exchange(ending=Ending.RESET, fault=fault)
        case Close():
            return Exchange(ending=Ending.CLOSED, fault=fault)
        case Hang():
            return Exchange(ending=Ending.HANG, seconds=fault.seconds, fault=fault)
        case Refused() | Dns():
            return Exchange(ending=Ending.REFUSED, seconds=fault.seconds, fault=fault)
        case _:
            return Exchange(ending=Ending.REFUSED, fault=fault)


def struck(vendor: Vendor, request: Request, fault: Fault, response: Response | None) -> Exchange:
    """What becomes of a request; `response` is the vendor's answer, where it has acted."""
    match fault:
        case Reset():
            return Exchange(ending=Ending.RESET, response=response, after_bytes=fault.after_bytes, fault=fault)
        case Hang():
            return Exchange(ending=Ending.HANG, response=response, seconds=fault.seconds, fault=fault)
        case Close():
            return Exchange(ending=Ending.CLOSED, response=response, fault=fault)
        case Truncate():
            return Exchange(ending=Ending.TRUNCATED, response=response, fault=fault)
        case Stall():
            return Exchange(
                ending=Ending.HANG,
                response=response,
                seconds=fault.seconds,
                after_bytes=fault.after_bytes,
                fault=fault,
            )
        case Dribble():
            return Exchange(response=response, pace=fault.seconds_per_byte, fault=fault)
        case Status():
            return Exchange(response=spoken(fault) if fault.body else vendor.failure(fault), fault=fault)
        case RateLimited():
            return Exchange(response=_limited(vendor, fault), fault=fault)
        case AuthExpired():
            return Exchange(response=_unauthorized(vendor, request), fault=fault)
        case BadJson() | WrongType() | Html() | BadGzip():
            return Exchange(response=_unreadable(response or Response(), fault), fault=fault)
        case _:
            return Exchange(ending=Ending.GARBLED, response=response, fault=fault)


def timed(exchange: Exchange, drawn: Drawn, clock: Clock) -> Exchange:
    """The same, as late and as slow as was drawn, by a clock as wrong."""
    response, pace = exchange.response, exchange.pace
    if drawn.skew and response is not None:
        date = ("date", _http_date(clock.now() + timedelta(seconds=drawn.skew)))
        response = replace(response, headers=(*_without(response.headers, "date"), date))
    if drawn.bytes_per_second:
        pace = max(pace, 1 / drawn.bytes_per_second)
    return replace(exchange, response=response, delay=drawn.delay, pace=pace)


def spoken(fault: Status) -> Response:
    """The status as the fault says it, word by word."""
    wait = () if fault.retry_after is None else (("retry-after", f"{fault.retry_after:g}"),)
    return Response(status=fault.status, headers=(("content-type", fault.content_type), *wait), body=fault.body)


def _limited(vendor: Vendor, fault: RateLimited) -> Response:
    response = vendor.failure(Status(429, fault.retry_after))
    if fault.dialect == "vendor":
        return response
    now = vendor.clock.now().astimezone(UTC)
    until = now + timedelta(seconds=fault.retry_after)
    said: Headers
    match fault.dialect:
        case "seconds":
            said = (("retry-after", str(ceil(fault.retry_after))),)
        case "milliseconds":
            said = (("retry-after-ms", str(ceil(fault.retry_after * 1000))),)
        case "http-date":
            whole = until if not until.microsecond else until.replace(microsecond=0) + timedelta(seconds=1)
            said = (("retry-after", _http_date(whole)), ("date", _http_date(now)))
        case "x-ratelimit-reset":
            reset = str(ceil(until.timestamp()))
            said = (("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset))
        case _:
            said = ()
    return replace(response, headers=(*_without(response.headers, "retry-after", *(name for name, _ in said)), *said))


def _unauthorized(vendor: Vendor, request: Request) -> Response:
    """What the vendor says to a token that has expired, or to a key that it does not know."""
    if vendor.expire(request):
        return vendor.answer(request)
    spoiled = _spoiled(request, vendor.credentials)
    return vendor.failure(Status(401)) if spoiled == request else vendor.answer(spoiled)


def _spoiled(request: Request, credentials: Mapping[str, str]) -> Request:
    """The same with a credential that is nobody's, wherever it carries one."""
    secrets = [text for text in credentials.values() if text]
    headers = [(name, _spoiled_header(name, value, secrets)) for name, value in request.headers]
    target = request.target
    for secret in secrets:
        wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        target = target.replace(secret, wrong).replace(quote(secret, safe=""), quote(wrong, safe=""))
    return replace(request, target=target, headers=tuple(headers))


def _spoiled_header(name: str, value: str, secrets: list[str]) -> str:
    if name.lower() == "authorization":
        return f"{value.partition(' ')[0]} {_NOBODY}"
    return _NOBODY if any(secret in value for secret in secrets) else value


def _unreadable(response: Response, fault: Fault) -> Response:
    status = 200 if response.status in (204, 304) else response.status
    match fault:
        case Html():
            page = b"<!doctype html><title>Welcome</title>"
            return Response(status=fault.status, headers=(("content-type", "text/html"),), body=page)
        case BadGzip():
            headers = (*_without(response.headers, "content-encoding"), ("content-encoding", "gzip"))
            return replace(response, status=status, headers=headers, body=response.body or b"{}")
        case WrongType(type="string"):
            body = json.dumps(response.body.decode("utf-8", "replace")).encode()
        case WrongType():
            body = b"{}" if response.body.lstrip()[:1] == b"[" else b"[" + response.body + b"]"
        case _:
            body = response.body[:-2]
            body = b'{"' if _is_json(body) else body
    return replace(response, status=status, body=body)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return not body
    return True


def _without(headers: Headers, *names: str) -> Headers:
    return tuple((name, value) for name, value in headers if name.lower() not in names)


def _http_date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)
