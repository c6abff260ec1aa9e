"""Where webhooks go: an app in this process, called as its server would call it, or an address."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from itertools import pairwise
from random import Random
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote, urlsplit

from holdfast.testing.faults import chance
from holdfast.testing.simulators.post import Poster
from holdfast.testing.simulators.simulator import Headers, Reply

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
"""An ASGI app."""
Factory = Callable[[], App | Awaitable[App]]
"""Makes the app, anew after each crash."""

_IN_PIECES: Final = 0.3
"""How often a body comes in several pieces."""


class Receiver(Protocol):
    """Somebody who takes webhooks."""

    @property
    def paths(self) -> Sequence[str]:
        """Where it takes POST, as far as that can be seen."""
        ...

    async def take(self, url: str, headers: Headers, body: bytes) -> Reply:
        """One request, and its answer."""
        ...

    def restart(self) -> None:
        """Its process has died; the next request meets a new one."""
        ...


def receiver(of: App | Factory | str, *, seed: int) -> Receiver:
    """The receiver meant by an app, by a function that makes one, or by an address.

    What can be called without arguments makes the app.
    """
    if isinstance(of, str):
        return Address(of)
    if _needs_nothing(of):
        return InApp(cast(Factory, of), seed=seed)
    app = cast(App, of)
    return InApp(lambda: app, seed=seed)


class Address:
    """A receiver on a real socket of this machine."""

    def __init__(self, url: str) -> None:
        self._post = Poster(url)
        self.paths: Sequence[str] = ()

    async def take(self, url: str, headers: Headers, body: bytes) -> Reply:
        return await self._post(url, headers, body)

    def restart(self) -> None:
        """Whoever listens there is nobody's to restart."""


class InApp:
    """An ASGI app in this process; its lifespan is not run, and an exception of its is a 500, as with a server."""

    def __init__(self, factory: Factory, *, seed: int) -> None:
        self._factory = factory
        self._app: App | None = None
        self._seed = seed
        self._asked = 0

    @property
    def paths(self) -> Sequence[str]:
        return [] if self._app is None else _paths(self._app)

    async def take(self, url: str, headers: Headers, body: bytes) -> Reply:
        self._asked += 1
        random = chance(self._seed, "body", self._asked)
        app = self._app or await self._make()
        conversation = _Conversation(_pieces(body, random))
        try:
            await app(_scope(app, url, headers, body), conversation.receive, conversation.send)
        except Exception as error:  # the border to somebody else's app
            if not conversation.status:
                return Reply(status=500, failure=f"{type(error).__name__}: {error}")
            return conversation.reply(f"{type(error).__name__}: {error}")
        finally:
            conversation.over.set()
        return conversation.reply() if conversation.status else Reply(status=500, failure="the app gave no answer")

    def restart(self) -> None:
        self._app = None

    async def _make(self) -> App:
        made = self._factory()
        app = await made if inspect.isawaitable(made) else made
        self._app = app = self._app or app  # two may have come at the same moment, and there is one process
        return app


class _Conversation:
    """One request and its answer, in the messages of ASGI."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)
        self.over = asyncio.Event()
        self.status = 0
        self._headers: Headers = ()
        self._body = bytearray()

    async def receive(self) -> Message:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self.over.wait()  # frameworks listen for the end while they answer
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in _headers(message)
            )
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self.over.set()

    def reply(self, failure: str = "") -> Reply:
        return Reply(status=self.status, headers=self._headers, body=bytes(self._body), failure=failure)


def _paths(app: object, below: str = "") -> list[str]:
    """The paths that take POST, of an app that names its routes as Starlette does."""
    found: list[str] = []
    for route in getattr(app, "routes", None) or ():
        path, methods = getattr(route, "path", None), getattr(route, "methods", None)
        if not isinstance(path, str):
            found.append("…")  # a kind of route that keeps to itself where it is
        elif getattr(route, "routes", None):
            found += _paths(route, below + path)
        elif methods is None or "POST" in methods:
            found.append(below + path)
    return found


def _headers(message: Mapping[str, Any]) -> Sequence[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]


def _scope(app: App, url: str, headers: Headers, body: bytes) -> Message:
    parts = urlsplit(url)
    root = getattr(app, "root_path", "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    own = (("host", parts.netloc), ("content-length", str(len(body))))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": parts.scheme,
        "path": unquote(parts.path) or "/",
        "raw_path": parts.path.encode() or b"/",
        "query_string": parts.query.encode(),
        "root_path": root if isinstance(root, str) and root and parts.path.startswith(f"{root}/") else "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*own, *headers)],
        "client": ("127.0.0.1", 50_000),
        "server": (parts.hostname, port),
    }


def _pieces(body: bytes, random: Random) -> list[bytes]:
    """The body, mostly at once; sometimes as a slow network brings it, and with an empty piece at the end."""
    if random.random() >= _IN_PIECES or not body:
        return [body]
    cuts = sorted({0, *(random.randrange(len(body)) for _ in range(3)), len(body)})
    pieces = [body[start:end] for start, end in pairwise(cuts)]
    return [*pieces, b""] if random.random() < 0.5 else pieces


def _needs_nothing(thing: Callable[..., object]) -> bool:
    """Whether it can be called without arguments."""
    needed = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    parameters = inspect.signature(thing).parameters.values()
    return not any(one.kind in needed and one.default is one.empty for one in parameters)
