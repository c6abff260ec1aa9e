"""An answer's body, read within the deadline; what its attempt holds is held until the body is closed."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from math import inf
from typing import Final

from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.resilience.call import Call

KEPT: Final = 64 * 1024
"""So much of a failure's body is read at once: its connection is then free while the guard waits."""
MOMENT: Final = 0.001
"""A socket with no time at all would not even take what is there already."""

Translated = Callable[[], AbstractContextManager[None]]
"""Turns what breaks in the block into the client's errors."""


class _Held:
    """The end of the attempt, which the body's end is."""

    def __init__(self, clock: Clock, until: float, translated: Translated) -> None:
        self._clock = clock
        self._until = until
        self._translated = translated
        self._kept: list[bytes] = []
        self._call: Call | None = None
        self._refusal: CallFailed | None = None

    def hold(self, call: Call, refusal: CallFailed | None) -> None:
        """The attempt ends with this body; `refusal` is what the answer's status says of it."""
        self._call, self._refusal = call, refusal

    def _is_short(self) -> bool:
        return sum(map(len, self._kept)) <= KEPT

    def _end(self, error: BaseException | None) -> None:
        if self._call is not None:
            self._call.end(error)


class AsyncBody(_Held):
    """Read by coroutines."""

    def __init__(self, source: AsyncIterable[bytes], clock: Clock, until: float, translated: Translated) -> None:
        super().__init__(clock, until, translated)
        self._source = source
        self._chunks = aiter(source)

    async def keep(self) -> None:
        """Read it while it is short, and let go of its connection."""
        try:
            while self._is_short():
                chunk = await self._read()
                if chunk is None:
                    return await self.aclose()
                self._kept.append(chunk)
        except BaseException:  # whatever ends the reading, the connection is closed
            await self.aclose()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for kept in self._kept:
            yield kept
        while (chunk := await self._next()) is not None:
            yield chunk

    async def aclose(self) -> None:
        """Close it; the attempt is over."""
        try:
            await self._source.aclose()  # type: ignore[attr-defined]  # every client's async stream has it
        finally:
            self._end(self._refusal)

    async def _next(self) -> bytes | None:
        try:
            with self._translated():
                return await self._read()
        except BaseException as error:  # also cancelled, or the reader's own mistake
            self._end(error)
            raise

    async def _read(self) -> bytes | None:
        if self._until == inf:
            return await anext(self._chunks, None)
        async with self._clock.timeout(max(0.0, self._until - self._clock.monotonic())):
            return await anext(self._chunks, None)


class SyncBody(_Held):
    """Read by plain functions: a read is cut off by its own timeout only, the deadline is held between chunks."""

    def __init__(
        self,
        source: Iterable[bytes],
        clock: Clock,
        until: float,
        translated: Translated,
        timeouts: dict[str, float | None],
        read_timeout: float | None,
    ) -> None:
        """`timeouts` are those the transport beneath sends with, `read_timeout` is what the client wanted."""
        super().__init__(clock, until, translated)
        self._source = source
        self._chunks = iter(source)
        self._timeouts = timeouts
        self._read_timeout = read_timeout

    def hold(self, call: Call, refusal: CallFailed | None) -> None:
        super().hold(call, refusal)
        self._timeouts["read"] = self._read_timeout  # the attempt's own timeout ends with the headers

    def keep(self) -> None:
        """Read it while it is short, and let go of its connection."""
        try:
            while self._is_short():
                chunk = self._read()
                if chunk is None:
                    return self.close()
                self._kept.append(chunk)
        except BaseException:  # whatever ends the reading, the connection is closed
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield from self._kept
        while (chunk := self._next()) is not None:
            yield chunk

    def close(self) -> None:
        """Close it; the attempt is over."""
        try:
            self._source.close()  # type: ignore[attr-defined]  # every client's stream has it
        finally:
            self._end(self._refusal)

    def _next(self) -> bytes | None:
        try:
            with self._translated():
                return self._read()
        except BaseException as error:  # also the reader's own mistake
            self._end(error)
            raise

    def _read(self) -> bytes | None:
        if self._until < inf:
            left = self._until - self._clock.monotonic()
            if left <= 0:
                raise TimeoutError
            self._timeouts["read"] = min(self._timeouts["read"] or inf, max(left, MOMENT))
        return next(self._chunks, None)
