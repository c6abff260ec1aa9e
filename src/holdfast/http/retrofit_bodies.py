"""An answer's body, read within the deadline; what its attempt holds is held until the body is closed."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from math import inf
from typing import Final

from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.resilience.call import Call

KEPT: Final = 64 * 1024
"""So much of a failure's body is read at once: its connection is then free while the guard waits."""
MOMENT: Final = 0.001
"""A socket with no time at all would not wait for what is there already."""

Translate = Callable[[BaseException], BaseException]
"""What breaks a body, as the client is to see it; what is the reader's own stays as it is."""


class _Held:
    """The end of the attempt, which the body's end is."""

    def __init__(self, clock: Clock, until: float, translate: Translate) -> None:
        self._clock = clock
        self._until = until
        self._translate = translate
        self._kept: list[bytes] = []
        self._call: Call | None = None
        self._refusal: CallFailed | None = None

    def hold(self, call: Call, refusal: CallFailed | None) -> None:
        """The attempt ends with this body, and `refusal` is what its status says of it."""
        self._call, self._refusal = call, refusal

    def _enough(self) -> bool:
        return sum(map(len, self._kept)) > KEPT

    def _end(self, error: BaseException | None = None) -> None:
        if self._call is not None:
            self._call.end(error or self._refusal)


class AsyncBody(_Held):
    """Of a client with an event loop."""

    def __init__(self, source: AsyncIterable[bytes], clock: Clock, until: float, translate: Translate) -> None:
        super().__init__(clock, until, translate)
        self._source = source
        self._chunks = aiter(source)

    async def keep(self) -> None:
        """Read it while it is short, and let go of its connection."""
        try:
            while not self._enough():
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
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._end()

    async def _next(self) -> bytes | None:
        try:
            return await self._read()
        except BaseException as error:  # also cancelled, or the reader's own mistake
            seen = self._translate(error)
            self._end(seen)
            if seen is error:
                raise
            raise seen from seen.__cause__

    async def _read(self) -> bytes | None:
        if self._until == inf:
            return await anext(self._chunks, None)
        async with self._clock.timeout(max(0.0, self._until - self._clock.monotonic())):
            return await anext(self._chunks, None)


class SyncBody(_Held):
    """Of a client without a loop: nothing cuts a read off but its own timeout, which is shortened before the first."""

    def __init__(
        self,
        source: Iterable[bytes],
        clock: Clock,
        until: float,
        translate: Translate,
        timeouts: dict[str, float | None],
        read_timeout: float | None,
    ) -> None:
        super().__init__(clock, until, translate)
        self._source = source
        self._chunks = iter(source)
        self._timeouts = timeouts
        self._read_timeout = inf if read_timeout is None else read_timeout

    def keep(self) -> None:
        """Read it while it is short, and let go of its connection."""
        try:
            while not self._enough():
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
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _next(self) -> bytes | None:
        try:
            return self._read()
        except BaseException as error:  # also the reader's own mistake
            seen = self._translate(error)
            self._end(seen)
            if seen is error:
                raise
            raise seen from seen.__cause__

    def _read(self) -> bytes | None:
        left = self._until - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        limit = min(self._read_timeout, max(left, MOMENT))
        self._timeouts["read"] = limit if limit < inf else None
        return next(self._chunks, None)
