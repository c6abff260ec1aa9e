"""Duplicates, out of order, from many connections to two receivers, some of them with another body."""

import asyncio
import time
from typing import Any

from chaos.producer import Connection, Producer
from chaos.stage import Found, Stage

CONFLICTS = 0.05


async def storm(stage: Stage, *, ids: int = 5000, connections: int = 32) -> Found:
    """Each id comes one to five times, in any order; two workers handle meanwhile."""
    begun = time.monotonic()
    producer = stage.producer(ports=2)
    for number in range(2):
        await stage.ready("receiver", number=number)
        await stage.ready("worker")
    copies = _copies(stage, producer, ids)
    shares = [copies[number::connections] for number in range(connections)]
    await asyncio.gather(
        *(_send(producer, stage.ports[number % 2], share) for number, share in enumerate(shares)),
    )
    producer.sync()
    stage.notes["requests_per_s"] = round(len(copies) / (time.monotonic() - begun))
    await stage.quiet()
    await stage.end()
    stage.notes["copies"] = len(copies)
    return await stage.collect("storm", begun)


def _copies(stage: Stage, producer: Producer, ids: int) -> list[dict[str, Any]]:
    copies: list[dict[str, Any]] = []
    for _ in range(ids):
        fact = producer.fact()
        times = stage.chance.randint(1, 5)
        if times > 1 and stage.chance.random() < CONFLICTS * 5 / 4:  # of those that come once, none can be in conflict
            both = {"variants": ["", "other"]}
            copies += [fact | both] * (times - 1) + [fact | both | {"variant": "other"}]
        else:
            copies += [fact] * times
    stage.chance.shuffle(copies)
    return copies


async def _send(producer: Producer, port: int, copies: list[dict[str, Any]]) -> None:
    connection = Connection(port)
    for copy in copies:
        await producer.insist(connection, copy)
    connection.close()
