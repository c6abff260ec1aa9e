"""The simulated vendors behind respx: its routers, its records, our vendors."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Final

import httpx
import respx

NAME: Final = "holdfast"
"""The name of the one route: `router["holdfast"].calls`."""


def add_vendors(
    router: respx.Router,
    lives: Callable[[str], bool],
    sync: httpx.BaseTransport,
    waiting: httpx.AsyncBaseTransport,
) -> respx.Route:
    """One route for all hosts where somebody lives; a request to any other is left to the router's other routes."""

    def answer(request: httpx.Request) -> httpx.Response | Awaitable[httpx.Response] | None:
        if not lives(request.url.host):
            return None
        method: str | bytes = request.method
        request.method = method.decode() if isinstance(method, bytes) else method  # which respx 0.21 leaves as it was
        return waiting.handle_async_request(request) if _awaits() else sync.handle_request(request)

    return router.route(url__regex="^https?://", name=NAME).mock(side_effect=answer)


def _awaits() -> bool:
    """Whether an asynchronous client asks: respx calls both in the same way, and only its own frame tells."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is respx.Router.aresolve.__code__:
            return True
        if frame.f_code is respx.Router.resolve.__code__:
            return False
        frame = frame.f_back
    return False
