"""A store in memory that outlives the programs that open it, as a database outlives its clients."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, Self, cast

from holdfast.clock import Clock
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Bus, Counters, Jobs, Leases, Records


class KeptStore:
    """For `Holdfast(store=…)` in programs that crash: made outside of them, opened by each.

    A database is asked over a wire: before and after each operation there is a place to be killed at.
    """

    durable = False
    """So that only credentials of no live account may stand beside it."""

    def __init__(self, *, clock: Clock) -> None:
        self._store = MemoryStore(clock=clock)
        self._open = False
        self.jobs = cast(Jobs, _Asked(self._store.jobs))
        self.records = cast(Records, _Asked(self._store.records))
        self.leases = cast(Leases, _Asked(self._store.leases))
        self.counters = cast(Counters, _Asked(self._store.counters))
        self.bus = cast(Bus, _Asked(self._store.bus))

    async def __aenter__(self) -> Self:
        if not self._open:
            await self._store.__aenter__()
            self._open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        """It stays: others may be using it, and whoever was killed never said that it left."""

    async def now(self) -> datetime:
        return await self._store.now()


class _Asked:
    """One of the store's protocols, a turn of the loop away."""

    def __init__(self, asked: object) -> None:
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        found: Any = getattr(self._asked, name)
        asked = _over_a_wire(found) if iscoroutinefunction(found) else found
        setattr(self, name, asked)
        return asked


def _over_a_wire(operation: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        answer = await operation(*arguments, **named)
        await asyncio.sleep(0)
        return answer

    return ask
