"""The door for Flask, Django and every other WSGI server."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooSlow
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol

from holdfast.errors import StoreError, WrongLoop

PATIENCE = 15.0
"""Seconds until the server's thread is given back, whatever the store does."""

TRY_AGAIN = [(b"content-type", b"application/json"), (b"content-length", b"22"), (b"retry-after", b"5")]

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Opened(Protocol):
    """What has to be open while the door is; a loop it is already open in is used."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> bool | None: ...


class WsgiReceiver:
    """The receiver as a WSGI app, made by `hub.receiver.wsgi`; mount it where `public_url` points.

    Flask: `app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/webhooks": hub.receiver.wsgi})`, with the middleware
    of `werkzeug.middleware.dispatcher`. Django: wrap `get_wsgi_application()` in wsgi.py in the same way. It opens the
    hub at the first request, in a thread with an event loop of its own, in each process a server forks. Handlers do
    not run there: `holdfast worker` runs them.
    """

    def __init__(self, app: App, opened: Opened, *, max_body: int) -> None:
        self._app = app
        self._opened = opened
        self._max_body = max_body
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """WSGI."""
        sent: list[Message] = []
        body = _body(environ, self._max_body)
        try:
            self._run(lambda: self._answer(environ, body, sent))
        except (StoreError, TooSlow):
            sent = [{"status": 503, "headers": TRY_AGAIN}, {"body": b'{"error": "try again"}'}]
        start, content = sent
        status = HTTPStatus(start["status"])
        headers = [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in start["headers"]]
        start_response(f"{status.value} {status.phrase}", headers)
        return [content["body"]]

    def close(self) -> None:
        """Close the hub that the first request opened; another request opens it again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.pid == os.getpid():
            thread.stop()

    async def _answer(self, environ: dict[str, Any], body: bytes, sent: list[Message]) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(_scope(environ), receive, send)

    def _run(self, work: Callable[[], Any]) -> None:
        loop = self._loop()
        if loop is _running_loop():
            raise WrongLoop("this thread runs the hub's event loop; mount hub.receiver there, which is ASGI")
        answering = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            answering.result(PATIENCE)
        except TooSlow:
            answering.cancel()
            raise

    def _loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._thread is not None and self._thread.pid == os.getpid():
                return self._thread.loop
            loop = self._opened.loop
            if loop is not None and loop.is_running():
                return loop
            self._thread = _LoopThread(self._opened)
            return self._thread.loop


class _LoopThread:
    """An event loop in a thread, in which something is open; of the process it was made in."""

    def __init__(self, opened: AbstractAsyncContextManager[object]) -> None:
        """Raises what opening raised."""
        self.pid = os.getpid()
        self._begun = Future[asyncio.AbstractEventLoop]()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._work, args=[opened], name="holdfast-loop", daemon=True)
        self._thread.start()
        self.loop = self._begun.result(PATIENCE)

    def stop(self) -> None:
        """Close it, and wait for that."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def _work(self, opened: AbstractAsyncContextManager[object]) -> None:
        asyncio.run(self._keep(opened))

    async def _keep(self, opened: AbstractAsyncContextManager[object]) -> None:
        try:
            async with opened:
                self._begun.set_result(asyncio.get_running_loop())
                await self._stop.wait()
        except BaseException as error:  # the border of a thread: it belongs to whose request opened it
            if self._begun.done():
                raise
            self._begun.set_exception(error)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _body(environ: dict[str, Any], most: int) -> bytes:
    """What was sent; one byte more than `most` of what is longer."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if length.isdecimal():
        wanted = min(int(length), most + 1)
    else:
        wanted = most + 1 if environ.get("wsgi.input_terminated") else 0
    chunks: list[bytes] = []
    while wanted > 0 and (chunk := environ["wsgi.input"].read(wanted)):
        chunks.append(chunk)
        wanted -= len(chunk)
    return b"".join(chunks)


def _scope(environ: dict[str, Any]) -> Message:
    headers = [
        (
            name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"),
            str(value).encode("latin-1", "replace"),
        )
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    ]
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace"),
        "root_path": "",
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", ""), 0),
    }
