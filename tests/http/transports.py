"""Every guarded transport behind one face: an asynchronous client, or a synchronous one in a thread."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from holdfast import GuardedTransport, Policy
from holdfast.aiohttp import AiohttpTransport
from holdfast.clock import Clock
from holdfast.httpx2 import GuardedTransport as GuardedTransport2
from holdfast.resilience import CircuitSnapshot
from tests.http.byte_server import PATIENCE


@dataclass(frozen=True)
class Kind:
    """One of the transports."""

    library: ModuleType
    is_async: bool
    transport: Callable[..., Any]
    inner: Callable[[], Any] = field(default=lambda: None)


KINDS = {
    "httpx": Kind(httpx, True, GuardedTransport),
    "httpx-sync": Kind(httpx, False, GuardedTransport),
    "httpx2": Kind(httpx2, True, GuardedTransport2),
    "httpx2-sync": Kind(httpx2, False, GuardedTransport2),
    "aiohttp": Kind(httpx, True, GuardedTransport, AiohttpTransport),
}
every_transport = pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))


@dataclass
class Client:
    """A client of that kind, and the transport beneath it."""

    kind: Kind
    client: Any
    transport: Any

    async def request(self, method: str, url: str, **options: Any) -> Any:
        """The whole answer."""
        if self.kind.is_async:
            return await self.client.request(method, url, **options)
        return await asyncio.to_thread(self.client.request, method, url, **options)

    async def open(self, method: str, url: str) -> Any:
        """An answer whose body is still to be read."""
        request = self.client.build_request(method, url)
        if self.kind.is_async:
            return await self.client.send(request, stream=True)
        return await asyncio.to_thread(self.client.send, request, stream=True)

    async def read(self, response: Any) -> bytes:
        if self.kind.is_async:
            return bytes(await response.aread())
        return bytes(await asyncio.to_thread(response.read))

    async def close(self, response: Any) -> None:
        if self.kind.is_async:
            await response.aclose()
        else:
            await asyncio.to_thread(response.close)

    def error(self, name: str) -> type[Exception]:
        """The client's own class of that name."""
        kind: type[Exception] = getattr(self.kind.library, name)
        return kind

    def circuit(self) -> CircuitSnapshot:
        """Of its one guard."""
        [guard] = self.transport.snapshot().values()
        circuit: CircuitSnapshot = guard.circuits[""]
        return circuit


@asynccontextmanager
async def client(
    kind: Kind,
    policy: Policy | None = None,
    *,
    name: str | None = "crm",
    timeout: float | None = PATIENCE,
    silence: float | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Client]:
    """A client over a guarded transport of that kind; `silence` is how long it waits for the next bytes."""
    limits = kind.library.Timeout(timeout, read=silence or timeout)
    transport = kind.transport(name, policy, inner=kind.inner(), clock=clock)
    if kind.is_async:
        async with kind.library.AsyncClient(transport=transport, timeout=limits) as made:
            yield Client(kind, made, transport)
    else:
        with kind.library.Client(transport=transport, timeout=limits) as made:
            yield Client(kind, made, transport)
