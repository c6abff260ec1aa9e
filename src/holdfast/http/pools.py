"""Connections in several small pools: httpx looks at all of a pool's on every request, which makes big ones slow."""

import ssl
from collections.abc import AsyncIterable, AsyncIterator
from operator import attrgetter
from types import ModuleType
from typing import Any, ClassVar, Final

import httpx

from holdfast.clock import Clock, SystemClock

SHARDS: Final = 16
CONNECTIONS: Final = 8
"""Of each shard. 64 requests at once cost under half of what they cost over one pool."""
KEEPALIVE: Final = 5.0
"""Seconds a connection stays open that nobody uses."""


class Shard:
    """One small pool, and how many requests are under way in it."""

    __slots__ = ("running", "transport", "used_at")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.running = 0
        self.used_at = 0.0


class Shards:
    """Sends each request over the pool with the fewest, of equals the first: sequential ones share a warm connection.

    A pool is opened when all others are in use, and closed when it was the last one and idle for a while.
    """

    library: ClassVar[ModuleType]
    counted: "ClassVar[type[CountedBody]]"

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        proxy: str | None = None,
        trust_env: bool = True,
        clock: Clock | None = None,
    ) -> None:
        # One for all pools: to load the authorities takes long.
        context = self.library.create_ssl_context(verify=verify, trust_env=trust_env)
        self._options = {"verify": context, "proxy": proxy, "trust_env": trust_env}
        self.monotonic = (clock or SystemClock()).monotonic
        self.shards: list[Shard] = []

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The answer; its request is under way until it is closed."""
        await self._retire()
        shard = self._least_loaded()
        shard.running += 1
        try:
            response: httpx.Response = await shard.transport.handle_async_request(request)
        except BaseException:  # also cancelled: what was taken is given back, and the error goes on
            shard.running -= 1
            raise
        response.stream = self.counted(response.stream, shard, self)  # type: ignore[assignment,arg-type]
        return response

    async def close_all(self) -> None:
        """Close every pool; closing twice is harmless."""
        while self.shards:
            await self.shards.pop().transport.aclose()

    def _least_loaded(self) -> Shard:
        found = min(self.shards, key=attrgetter("running"), default=None)
        if found is None or (found.running and len(self.shards) < SHARDS):
            found = Shard(self._open())
            self.shards.append(found)
        return found

    async def _retire(self) -> None:
        last = self.shards[-1] if len(self.shards) > 1 else None
        if last is not None and not last.running and self.monotonic() - last.used_at > KEEPALIVE:
            await self.shards.pop().transport.aclose()

    def _open(self) -> Any:
        limits = self.library.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEPALIVE
        )
        return self.library.AsyncHTTPTransport(limits=limits, retries=0, **self._options)


class CountedBody:
    """An answer's body, whose request is over when it is closed."""

    def __init__(self, source: AsyncIterable[bytes], shard: Shard, shards: Shards) -> None:
        self._source = source
        self._shard: Shard | None = shard
        self._monotonic = shards.monotonic

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._source)

    async def aclose(self) -> None:
        try:
            await self._source.aclose()  # type: ignore[attr-defined]  # every client's async stream has it
        finally:
            shard, self._shard = self._shard, None
            if shard is not None:
                shard.running -= 1
                shard.used_at = self._monotonic()


class _CountedBody(CountedBody, httpx.AsyncByteStream):
    """A body as httpx knows it."""


class ShardedTransport(Shards, httpx.AsyncBaseTransport):
    """What `httpx.AsyncHTTPTransport` is, over small pools, with up to 128 connections."""

    library: ClassVar[ModuleType] = httpx
    counted: ClassVar[type[CountedBody]] = _CountedBody

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.send(request)

    async def aclose(self) -> None:
        await self.close_all()
