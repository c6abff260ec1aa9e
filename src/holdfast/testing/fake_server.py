"""The simulated vendors on loopback sockets, in a thread and an event loop of their own."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from holdfast.testing.simulators.edge import Edge

if TYPE_CHECKING:
    from holdfast.testing.vendors import Fakes

PATIENCE: Final = 10.0
"""Seconds until a socket that does not open is given up."""


class FakeServer:
    """Whoever speaks HTTP can call it: synchronous SDKs, other event loops, other processes.

    It opens a vendor's port when its address is first asked for. `show` gives it other vendors; addresses stay.
    """

    def __init__(self, fakes: "Fakes") -> None:
        self._fakes = fakes
        self._edges: dict[str, Edge] = {}
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="holdfast-fake-server", daemon=True)
        self._ready: Future[None] = Future()

    @property
    def fakes(self) -> "Fakes":
        """The vendors it serves now."""
        return self._fakes

    def url(self, vendor: str) -> str:
        """The vendor's address: `http://127.0.0.1:…`.

        Raises:
            LookupError: There is no simulator of it.
            NotSimulated: The test's `providers` do not name it.
        """
        simulator = self._fakes.vendor(vendor)
        if vendor not in self._edges:
            opened: Future[Edge] = Future()
            self._loop.call_soon_threadsafe(self._wanted.put_nowait, (Edge(simulator), opened))
            self._edges[vendor] = opened.result(PATIENCE)
        return self._edges[vendor].url

    def credentials(self, vendor: str) -> Mapping[str, str]:
        """What a customer of the simulated account would be given; the same in every test of a run."""
        return self._fakes.vendor(vendor).credentials

    def show(self, fakes: "Fakes") -> None:
        """Serve these vendors from now on, at the same addresses."""
        self._fakes = fakes
        for name, edge in self._edges.items():
            if fakes.allows(name):
                edge.simulator = fakes.vendor(name)
                edge.simulator.base_url = edge.url

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._wanted.put_nowait, None)
        self._thread.join(PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wanted: asyncio.Queue[tuple[Edge, Future[Edge]] | None] = asyncio.Queue()
        self._ready.set_result(None)
        async with AsyncExitStack() as stack:
            while (wanted := await self._wanted.get()) is not None:
                edge, opened = wanted
                try:
                    opened.set_result(await stack.enter_async_context(edge))
                except OSError as error:
                    opened.set_exception(error)
