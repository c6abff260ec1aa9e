"""`holdfast receive`: the door in a small process of its own, which a deploy of the app does not close."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli.hubs import JsonLines, hub, log_to_stderr, tell
from holdfast.errors import MissingExtra

if TYPE_CHECKING:
    from holdfast.hub import Holdfast

SWITCH_INTERVAL: Final = 0.0005


def receive_command(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on.")] = 8000,
    json: Annotated[bool, typer.Option("--json", help="Print what arrives, as lines of JSON.")] = False,
) -> None:
    """Receive webhooks on the store of your hub, until SIGTERM or SIGINT.

    Nothing is handled here: `holdfast worker`, or your app, does that. A proxy in front of it speaks TLS.
    """
    log_to_stderr()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_receive(hub(target), host, port, json))


async def _receive(found: Holdfast, host: str, port: int, as_json: bool) -> None:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise MissingExtra("receive") from error

    if as_json:
        found.telemetry.add(JsonLines())
    config = uvicorn.Config(
        _below(found.receiver.root_path, found.receiver),
        host=host,
        port=port,
        interface="asgi3",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)  # the server stops on it, and raises it once more afterwards
    # A store's thread asks for the interpreter several times per commit, and by default waits 5 ms for it each time.
    sys.setswitchinterval(SWITCH_INTERVAL)
    async with found:
        gc.collect()
        gc.freeze()  # to look through all that is loaded, again and again, would make a hundredth of the requests wait
        tell(as_json, "holdfast.receiver.started", pid=os.getpid(), host=host, port=port)
        await uvicorn.Server(config).serve()
    tell(as_json, "holdfast.receiver.stopped", pid=os.getpid())


def _ignore(number: int, frame: object) -> None:
    """Not SIG_IGN, which the server could not tell from never having been told."""


def _below(root: str, app: Callable[..., Awaitable[None]]) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """The app where vendors call it, whether the proxy in front leaves the path as it is or takes the root off."""

    def mounted(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        scope["root_path"] = root  # the server made it for us alone
        return app(scope, receive, send)

    return mounted


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
