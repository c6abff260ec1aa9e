"""Connections that work through what callers hand them, several callers' work in one transaction.

A caller only waits for its answer: when it is cancelled meanwhile, no connection is left in the middle of anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

from psycopg import errors

from holdfast.errors import StoreUnavailable
from holdfast.stores.postgres_connection import Address, Connection, answering, usable

T = TypeVar("T")
W = TypeVar("W")

TRIES: Final = 3
"""Times a transaction runs that lost against another one and was undone."""


class _Work(Generic[W]):
    """What one caller wants, and the future it waits for, if it does."""

    __slots__ = ("_answer", "_committed", "what")

    def __init__(self, what: W, answer: asyncio.Future[Any] | None, committed: Callable[[], None] | None) -> None:
        self.what = what
        self._answer = answer
        self._committed = committed

    def settle(self, result: object) -> None:
        """Give the caller its result, or raise it there."""
        refused = isinstance(result, Exception)
        if self._committed is not None and not refused:
            self._committed()
        if self._answer is None or self._answer.done():
            return
        if isinstance(result, Exception):
            self._answer.set_exception(result)
        else:
            self._answer.set_result(result)


class Lane(Generic[W]):
    """A few connections that do one kind of work.

    `process` does a group of it and returns one result per piece, an exception for one that was refused; when it
    raises, nothing was done.
    """

    def __init__(
        self,
        address: Address,
        process: Callable[[Connection, Sequence[W]], Awaitable[Sequence[object]]],
        *,
        connections: int = 1,
        group: int = 1,
    ) -> None:
        self._address = address
        self._process = process
        self._group = group
        self._waiting = asyncio.Queue[_Work[W] | None]()
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(connections)]

    async def do(self, what: W, *, committed: Callable[[], None] | None = None) -> Any:
        """The result, once it is committed; `committed` is called then, even when the caller was cancelled."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Work(what, answer, committed))
        return await answer

    def send(self, what: W) -> None:
        """Have it done, if that is possible, and wait for nothing."""
        self._waiting.put_nowait(_Work(what, None, None))

    async def stop(self) -> None:
        """Do what is waiting, and disconnect."""
        for _ in self._tasks:
            self._waiting.put_nowait(None)
        await asyncio.wait(self._tasks)

    async def _serve(self) -> None:
        line = _Line(self._address)
        try:
            while group := await self._next_group():
                await self._attempt(line, group)
        finally:
            await line.close()

    async def _next_group(self) -> list[_Work[W]]:
        """Empty: it is time to stop."""
        group: list[_Work[W]] = []
        work = await self._waiting.get()
        while work is not None:
            group.append(work)
            if len(group) == self._group or self._waiting.empty():
                return group
            work = self._waiting.get_nowait()
        if group:
            self._waiting.put_nowait(None)
        return group

    async def _attempt(self, line: "_Line", group: Sequence[_Work[W]]) -> None:
        try:
            await line.connect()
        except Exception as error:  # a border: those who wait behind would each only wait for the same
            self._refuse([*group, *self._drained()], error)
            return
        try:
            results = await line.run(partial(self._do, [work.what for work in group]))
        except Exception as error:  # a border: the table of errors tells them apart
            if len(group) == 1 or isinstance(self._address.translate(error), StoreUnavailable):
                self._refuse(group, error)
            else:
                for work in group:
                    await self._attempt(line, [work])
        else:
            for work, result in zip(group, results, strict=True):
                work.settle(result)

    async def _do(self, group: Sequence[W], connection: Connection) -> Sequence[object]:
        return await self._process(connection, group)

    def _refuse(self, group: Sequence[_Work[W]], error: Exception) -> None:
        for work in group:
            work.settle(self._address.translate(error))

    def _drained(self) -> list[_Work[W]]:
        drained = [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
        for _ in range(drained.count(None)):
            self._waiting.put_nowait(None)
        return [work for work in drained if work is not None]


class _Line:
    """One connection, made again when it is lost."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None

    async def connect(self) -> None:
        if self._connection is not None and not usable(self._connection):
            await self.close()
        if self._connection is None:
            self._connection = await self._address.connect()

    async def run(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """What the body returns; it runs again when it lost against another transaction."""
        for _ in range(TRIES - 1):
            with suppress(errors.DeadlockDetected, errors.SerializationFailure):
                return await self._watched(body)
        return await self._watched(body)

    async def _watched(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        assert self._connection is not None
        with answering(self._connection):
            return await body(self._connection)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
