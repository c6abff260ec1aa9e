"""The listeners of this process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from holdfast.stores.documents import decode
from holdfast.stores.store import Json

BACKLOG = 1000


class Listeners:
    """Hands each fact to everyone who listens to its topic."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)

    def tell(self, topic: str, fact: str) -> None:
        """Give the fact, as JSON text, to each listener; one who is too far behind misses it."""
        for queue in self._queues.get(topic, ()):
            with suppress(asyncio.QueueFull):
                queue.put_nowait(fact)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncGenerator[AsyncIterator[Mapping[str, Json]]]:
        queue = asyncio.Queue[str](BACKLOG)
        self._queues[topic].add(queue)
        try:
            yield _facts(queue)
        finally:
            self._queues[topic].discard(queue)
            if not self._queues[topic]:
                del self._queues[topic]


async def _facts(queue: asyncio.Queue[str]) -> AsyncIterator[Mapping[str, Json]]:
    while True:
        yield decode(await queue.get())
