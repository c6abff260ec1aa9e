"""What carries the bytes: one request out, one whole answer back, nothing repeated, nothing followed."""

import ssl
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import httpx

from holdfast.errors import CallFailed
from holdfast.http.errors import shows_request, translate
from holdfast.http.pools import ShardedTransport
from holdfast.outcome import Cause

C = TypeVar("C", bound=Callable[..., object])

MAX_BODY = 2 * 1024 * 1024

# Connecting has a limit of its own, below the usual attempt timeout: a host that swallows packets is then proven
# not to have been reached. The rest is the guard's to limit, since only it knows the whole deadline.
CONNECT_TIMEOUT = 3.0
IDLE_TIMEOUT = 60.0
_POOL_TIMEOUT = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """What to send, complete; it shows neither address nor headers, which may hold secrets."""

    method: str
    url: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpResponse:
    """What came back, complete and decompressed."""

    status: int
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """In the order they came; names in lower case."""
    content: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case; None when there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), None)


class Transport(Protocol):
    """Sends one request and reads the whole answer."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The answer, whatever its status.

        Raises:
            CallFailed: There is none; NotSent only where nothing left this machine.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; closing twice is harmless."""
        ...


class WebSocket(Protocol):
    """A connection over which texts go both ways."""

    async def send(self, message: str) -> None: ...

    async def recv(self) -> str | bytes:
        """The next message; whatever it raises, there is none any more."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class OpensWebSockets(Protocol):
    """A transport that takes a vendor's own package also where it speaks WebSocket: into a simulator, by a proxy."""

    async def websocket(self, url: str) -> WebSocket:
        """A connection to this address. Raises OSError: there is none."""
        ...


_SIMULATED = "reaches_no_vendor"


def simulated(connect: C) -> C:
    """Mark what makes transports into simulated vendors: no credential is live behind it, and no money real."""
    setattr(connect, _SIMULATED, True)
    return connect


def is_simulated(connect: object) -> bool:
    """Whether it was marked so."""
    return bool(getattr(connect, _SIMULATED, False))


class HttpxTransport:
    """Over httpx, beneath its client: no cookies, no redirects, no retries, and no log line holding the address.

    `inner` replaces the sockets: `AiohttpTransport`, `httpx.MockTransport`, `httpx.ASGITransport`, or your own.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        verify: ssl.SSLContext | bool = True,
        proxy: str | None = None,
        trust_env: bool = False,
        max_body: int = MAX_BODY,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._inner = inner or ShardedTransport(verify=verify, proxy=proxy, trust_env=trust_env)
        self._max_body = max_body
        self._timeouts = httpx.Timeout(idle_timeout, connect=connect_timeout, pool=_POOL_TIMEOUT).as_dict()

    async def send(self, request: HttpRequest) -> HttpResponse:
        wire = self._build(request)
        try:
            response = await self._inner.handle_async_request(wire)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            raise translate(error) from (None if shows_request(error) else error)
        response.request = wire
        try:
            async with aclosing(response):
                content = await self._read(response)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise translate(error) from error
        return HttpResponse(status=response.status_code, headers=tuple(response.headers.multi_items()), content=content)

    def _build(self, request: HttpRequest) -> httpx.Request:
        try:
            return httpx.Request(
                request.method,
                request.url,
                headers=list(request.headers),
                content=request.content,
                extensions={"timeout": self._timeouts},
            )
        except (httpx.InvalidURL, ValueError, TypeError):  # their texts quote the header or address they refuse
            raise CallFailed.of(
                Cause.NOT_SENT,
                "could not be written as HTTP: a header or the address holds a character that HTTP cannot carry",
                reason="config",
            ) from None

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_body:
                raise CallFailed.of(
                    Cause.UNKNOWN,
                    f"answered more than {self._max_body} bytes, the rest was not read",
                    status=response.status_code,
                    reason="too_large",
                )
        return bytes(body)

    async def aclose(self) -> None:
        await self._inner.aclose()
