"""The guard beneath an httpx2 client you already have."""

from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, cast

from holdfast.clock import Clock
from holdfast.errors import MissingExtra
from holdfast.http.pools import CountedBody, Shards
from holdfast.http.retrofit import Retrofit
from holdfast.http.retrofit_bodies import AsyncBody, SyncBody
from holdfast.http.retrofit_exchange import Library
from holdfast.resilience.policy import Policy
from holdfast.telemetry import Telemetry

try:
    import httpx2
except ImportError as error:
    raise MissingExtra("httpx2") from error

if TYPE_CHECKING:
    import httpx


class _CountedBody(CountedBody, httpx2.AsyncByteStream):
    """A body as httpx2 knows it."""


class _ShardedTransport(Shards, httpx2.AsyncBaseTransport):
    """What `httpx2.AsyncHTTPTransport` is, over small pools."""

    library: ClassVar[ModuleType] = httpx2
    counted: ClassVar[type[CountedBody]] = _CountedBody

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return cast("httpx2.Response", await self.send(cast("httpx.Request", request)))

    async def aclose(self) -> None:
        await self.close_all()


class _AsyncBody(AsyncBody, httpx2.AsyncByteStream):
    """A body as `httpx2.AsyncClient` knows it."""


class _SyncBody(SyncBody, httpx2.SyncByteStream):
    """A body as `httpx2.Client` knows it."""


class GuardedTransport(Retrofit, httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """`holdfast.GuardedTransport` for `httpx2.AsyncClient` and `httpx2.Client`, with the errors of httpx2."""

    _library: ClassVar[Library] = Library(
        module=httpx2, pool=_ShardedTransport, async_body=_AsyncBody, sync_body=_SyncBody
    )

    def __init__(
        self,
        name: str | None = None,
        policy: Policy | None = None,
        *,
        inner: httpx2.AsyncBaseTransport | httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__(name, policy, inner, clock, telemetry, random)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request of an `AsyncClient`, guarded. Raises httpx2.TransportError that is also CallFailed."""
        return cast("httpx2.Response", await self._send(cast("httpx.Request", request)))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request of a `Client`, guarded. Raises httpx2.TransportError that is also CallFailed."""
        return cast("httpx2.Response", self._send_sync(cast("httpx.Request", request)))

    async def aclose(self) -> None:
        """Close every connection of coroutines; closing twice is harmless."""
        await self._close_async()

    def close(self) -> None:
        """Close every connection of threads; closing twice is harmless."""
        self._close_sync()
