"""What a provider has to look after in every process that receives, such as the certificates it verifies with."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, Protocol, runtime_checkable

from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.http.session import Http
from holdfast.queue.signals import UpkeepFailed
from holdfast.resilience import Priority, priority
from holdfast.telemetry import Telemetry

EVERY: Final = 60.0


@runtime_checkable
class SupportsUpkeep(Protocol):
    """The provider keeps something in memory that has to be fetched now and then."""

    @property
    def name(self) -> str: ...

    async def upkeep(self, http: Http) -> None:
        """Fetch what is missing. Called every minute or so; whatever it raises is told, and it is called again."""
        ...


class Upkeep:
    """Looks after one provider in this process, from its first request on: who receives none needs nothing."""

    def __init__(
        self,
        provider: SupportsUpkeep,
        http: Callable[[], Http],
        accompany: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        *,
        redact: Callable[[str], str],
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
    ) -> None:
        """`accompany` runs what goes on until the hub closes."""
        self._provider = provider
        self._http = http
        self._accompany = accompany
        self._redact = redact
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """A request was judged: look after the provider at once, and from now on, unless that goes on already."""
        if self._task is not None and not self._task.done():
            return
        running = self._run()
        try:
            self._task = Context().run(self._accompany, running)  # the request's deadline is not its own
        except HoldfastError:  # the hub is closed or closing, and the request was answered so
            running.close()

    async def look(self) -> None:
        """Once; never raises."""
        try:
            with priority(Priority.BULK):  # it waits for nobody, and nobody is to wait for it
                await self._provider.upkeep(self._http())
        except Exception as error:  # the border to a provider: the next time it may succeed
            why = self._redact(f"{type(error).__name__}: {error}")[:500]
            self._telemetry.emit(UpkeepFailed(self._provider.name, why))

    async def _run(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(EVERY * self._chance.uniform(0.8, 1.2))
