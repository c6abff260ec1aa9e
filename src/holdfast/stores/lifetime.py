"""Open or closed, and in which event loop."""

import asyncio

from holdfast.errors import ConfigurationError, NotOpen, WrongLoop


class Lifetime:
    """Binds a store to the loop that opened it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_open(self) -> bool:
        return self._loop is not None

    def open(self) -> asyncio.AbstractEventLoop:
        """Raises ConfigurationError: it is open already."""
        if self._loop is not None:
            raise ConfigurationError(f"{self._what} is open already; share the opened one")
        self._loop = asyncio.get_running_loop()
        return self._loop

    def check(self) -> None:
        """Raises NotOpen, WrongLoop."""
        if self._loop is None:
            raise NotOpen(
                f"{self._what} is not open; use it inside `async with hub:`, or give hub.lifespan to your app"
            )
        if self._loop is not asyncio.get_running_loop():
            raise WrongLoop(
                f"{self._what} was opened in another event loop; make a hub per loop, or come from another thread by "
                "asyncio.run_coroutine_threadsafe(…, loop)"
            )

    def close(self) -> None:
        self._loop = None
