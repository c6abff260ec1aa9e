"""Sends what httpx prepares by aiohttp: several times as many requests per second of a processor."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final

import httpx

from holdfast.errors import MissingExtra

try:
    import aiohttp
    from yarl import URL
except ImportError as error:
    raise MissingExtra("fast") from error

CONNECTIONS: Final = 100
KEEPALIVE: Final = 5.0
"""Seconds a connection stays open that nobody uses."""
LONGEST_LINE: Final = 64 * 1024
"""Of an answer's head. aiohttp's own limit is 8 KiB, which some vendors' headers exceed."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# In the order of the classes, the finer before the coarser. Nothing was sent only where there was no connection yet.
MEANINGS: Final[tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # refused, DNS, TLS
    (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),  # closed without an answer
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),  # no HTTP, or too much of it
    (TimeoutError, httpx.ReadTimeout),  # aiohttp's SocketTimeoutError is one
    (OSError, httpx.ReadError),  # aiohttp's ClientOSError is one
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),  # half a body
    (aiohttp.ClientError, httpx.ReadError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """What `httpx.AsyncHTTPTransport` is, over aiohttp: HTTP/1.1 only, for coroutines only (extra `fast`).

    `GuardedTransport("crm", inner=AiohttpTransport())`, or under any `httpx.AsyncClient`. It keeps no cookies, follows
    nothing and sends nothing twice. Its errors are those of httpx.
    """

    def __init__(
        self, *, verify: ssl.SSLContext | bool = True, proxy: str | None = None, connections: int = CONNECTIONS
    ) -> None:
        self._verify = verify
        self._proxy = proxy
        self._connections = connections
        self._places = asyncio.Semaphore(connections)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request, sent once. Raises httpx.TransportError."""
        _check(request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}
        places = self._places
        await _take(places, timeouts.get("pool"))
        try:
            with _translated():
                answer = await self._ask(self._session or self._open(), request, timeouts)
        except BaseException:  # also cancelled: what was taken is given back, and the error goes on
            places.release()
            raise
        return httpx.Response(
            answer.status,
            headers=list(answer.raw_headers),
            stream=_Body(answer, places),
            extensions={
                "http_version": b"HTTP/%d.%d" % (answer.version or (1, 1)),
                "reason_phrase": (answer.reason or "").encode("ascii", "ignore"),
            },
        )

    async def aclose(self) -> None:
        """Close every connection; closing twice is harmless."""
        session, self._session = self._session, None
        self._places = asyncio.Semaphore(self._connections)  # the next event loop may be another one
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ssl=self._verify),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            auto_decompress=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            middlewares=(_once,),
        )
        return self._session

    async def _ask(
        self, session: aiohttp.ClientSession, request: httpx.Request, timeouts: dict[str, float | None]
    ) -> aiohttp.ClientResponse:
        url, stream = request.url, request.stream
        headers = request.headers.multi_items()
        data: object = stream
        if isinstance(stream, httpx.ByteStream):
            data = b"".join(stream) or None
        else:
            headers = [(name, value) for name, value in headers if name != "transfer-encoding"]  # aiohttp's to write
        return await session.request(
            request.method,
            # As httpx wrote it: aiohttp would quote it anew, and take a user in it for a second credential.
            URL(f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}", encoded=True),
            headers=headers,
            data=data,
            allow_redirects=False,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(connect=timeouts.get("connect"), sock_read=timeouts.get("read")),
            server_hostname=request.extensions.get("sni_hostname"),
        )


async def _take(places: asyncio.Semaphore, seconds: float | None) -> None:
    """Wait for a place; aiohttp's own limit would count this wait as the vendor's, who let us wait to connect."""
    if not places.locked():
        await places.acquire()
        return
    try:
        async with asyncio.timeout(seconds):
            await places.acquire()
    except TimeoutError as error:
        raise httpx.PoolTimeout("") from error


def _check(request: httpx.Request) -> None:
    """Refuse what would be another request on the wire. Raises httpx.LocalProtocolError, which quotes nothing."""
    if _CONTROL.search(request.method) or any(
        _CONTROL.search(text) for pair in request.headers.items() for text in pair
    ):
        raise httpx.LocalProtocolError("the method or a header holds a control character")


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats GET, PUT and DELETE by itself when a kept connection breaks, but not after an error of httpx."""
    with _translated():
        return await send(request)


class _Body(httpx.AsyncByteStream):
    """An answer's body; its place is free when it is closed."""

    def __init__(self, answer: aiohttp.ClientResponse, places: asyncio.Semaphore) -> None:
        self._answer: aiohttp.ClientResponse | None = answer
        self._chunks = answer.content.iter_any()
        self._places = places

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._chunks:
                yield chunk

    async def aclose(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()  # a connection whose body was read is back in the pool already
            self._places.release()


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except httpx.TransportError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise kind_of(error)(str(error)) from error


def kind_of(error: BaseException) -> type[httpx.TransportError]:
    """The class of httpx that means the same."""
    if isinstance(error, aiohttp.ClientPayloadError) and "ConnectionResetError" in str(error):
        return httpx.ReadError  # what cut the body short is in aiohttp's text only
    return next(theirs for ours, theirs in MEANINGS if isinstance(error, ours))
