"""A listening socket on this machine that can really refuse, and really reset."""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from holdfast.clock import Clock

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"


class Listener:
    """Accepts connections and gives each to `serve`, until it is left.

    Enter and leave it in the same task; leaving resets what is still connected.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], Awaitable[None]],
        *,
        clock: Clock,
        host: str = HOST,
        port: int = 0,
        connections: int = 500,
    ) -> None:
        self._serve = serve
        self._clock = clock
        self.host = host
        self.port = port
        self.accepted = 0
        """How many connections were accepted."""
        self._limit = connections
        self._socket = socket.socket()
        self._open: dict[socket.socket, asyncio.Task[None]] = {}
        self._idle: set[socket.socket] = set()
        self._tasks = asyncio.TaskGroup()
        self._reopening: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        host = {"0.0.0.0": HOST, "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def refusing(self) -> bool:
        """Whether connections are refused now."""
        return self._reopening is not None

    async def __aenter__(self) -> Self:
        self._socket.close()
        self._socket = _bound(self.host, self.port)
        self.port = self._socket.getsockname()[1]
        await self._tasks.__aenter__()
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listen_no_more()
        for task in (self._reopening, *self._open.values()):
            if task is not None:
                task.cancel()
        await self._tasks.__aexit__(None, None, None)
        self._socket.close()

    def refuse(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        """Refuse connections from now on and for so long, as if nobody were listening; idle connections are reset."""
        if self._reopening is None:
            self._listen_no_more()
            # Bound without listening: the kernel refuses, and nobody else gets the port meanwhile.
            self._socket = _bound(self.host, self.port)
            for connection in tuple(self._idle):
                self._open[connection].cancel()
            self._reopening = self._tasks.create_task(self._reopen_after(seconds, then))

    def idle(self, connection: socket.socket, *, is_idle: bool) -> None:
        """Note whether the connection is between two exchanges."""
        (self._idle.add if is_idle else self._idle.discard)(connection)

    async def _reopen_after(self, seconds: float, then: Callable[[], None] | None) -> None:
        await self._clock.sleep(seconds)
        self._reopening = None
        self._listen()
        if then is not None:
            then()

    def _listen(self) -> None:
        self._socket.listen(128)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _listen_no_more(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # whoever knocked has left
        self.accepted += 1
        connection.setblocking(False)
        if len(self._open) >= self._limit:
            reset(connection)
        else:
            self._open[connection] = task = self._tasks.create_task(self._own(connection))
            task.add_done_callback(partial(self._part, connection))  # also where it never began

    async def _own(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client has left, as clients do
            await self._serve(connection)

    def _part(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._idle.discard(connection)
        self._open.pop(connection, None)
        (reset if task.cancelled() else socket.socket.close)(connection)


def reset(connection: socket.socket) -> None:
    """Close the connection with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
