"""One request of a guarded client, as often as it is sent: what both drivers share."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from types import ModuleType
from typing import Any

import httpx

from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.http.errors import shows_request
from holdfast.http.pools import Shards
from holdfast.http.retrofit_bodies import MOMENT, AsyncBody, SyncBody
from holdfast.http.retrofit_errors import raised_beneath
from holdfast.http.retrofit_meaning import REPEATABLE, effect_of, refusal_of
from holdfast.outcome import Cause
from holdfast.resilience.call import Call
from holdfast.resilience.context import deadline
from holdfast.resilience.holds import REFUSED_FOR


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The client's own classes: those of httpx, or of what has its names and shapes."""

    module: ModuleType
    pool: type[Shards]
    async_body: type[AsyncBody]
    sync_body: type[SyncBody]


class Exchange:
    """One request; `answer` is what is returned if the guard gives up, an answer that is a failure."""

    def __init__(self, library: Library, name: str, request: httpx.Request, clock: Clock) -> None:
        self.request = request
        self.effect = effect_of(request.method, request.headers)
        self.repeatable = isinstance(request.stream, library.module.ByteStream)
        """A body that is no bytes can be read only once, so it can be sent only once."""
        self.answer: httpx.Response | None = None
        self._library = library
        self._name = name
        self._clock = clock
        self._body: AsyncBody | SyncBody | None = None
        self._final: CallFailed | None = None

    @contextmanager
    def translated(self) -> Generator[None]:
        """Turn what breaks into our error that is still the client's; anything else is the caller's own."""
        try:
            yield
        except CallFailed:  # a guarded transport beneath has said it all
            raise
        except (self._library.module.TransportError, OSError) as error:
            if getattr(error, "filename", None) is not None:  # about a file the caller sends
                raise
            failure = raised_beneath(
                error, self._library.module, name=self._name, method=self.request.method, effect=self.effect
            )
            raise failure from (None if shows_request(error) else error)

    def refusal(self, response: httpx.Response) -> CallFailed | None:
        """The failure that an answer is, if it may go away by asking again; a final one counts when its body ends."""
        refusal = refusal_of(
            response.status_code,
            response.headers,
            name=self._name,
            method=self.request.method,
            now=self._clock.now(),
        )
        if refusal is None or refusal.cause in REPEATABLE:
            self._final = None
            return refusal
        self._final = refusal
        return None

    def async_body(self, response: httpx.Response) -> AsyncBody | None:
        """Have the answer's body read within the deadline; None: a mock's, read already."""
        self._body = None
        if response.is_closed:
            return None
        source: Any = response.stream
        assert isinstance(source, self._library.module.AsyncByteStream)
        self._body = body = self._library.async_body(source, self._clock, deadline(), self.translated)
        response.stream = body  # type: ignore[assignment]  # a stream of the library's by its other base
        return body

    def sync_body(
        self, response: httpx.Response, timeouts: dict[str, float | None], read_timeout: float | None
    ) -> SyncBody | None:
        """Have the answer's body read within the deadline; None: a mock's, read already."""
        self._body = None
        if response.is_closed:
            return None
        source: Any = response.stream
        assert isinstance(source, self._library.module.SyncByteStream)
        self._body = body = self._library.sync_body(
            source, self._clock, deadline(), self.translated, timeouts, read_timeout
        )
        response.stream = body  # type: ignore[assignment]  # a stream of the library's by its other base
        return body

    def stands(self, response: httpx.Response, call: Call) -> httpx.Response:
        """The answer is the client's; the attempt ends with its body."""
        if self._final is not None and self._final.cause is Cause.CREDENTIAL and call.options.credential:
            call.hold(call.options.credential, REFUSED_FOR)
        if self._body is None:
            call.end(self._final)
        else:
            self._body.hold(call, self._final)
        return response

    def take_answer(self) -> httpx.Response | None:
        """The answer nobody will read, to be closed."""
        answer, self.answer = self.answer, None
        return answer


def shortened(timeouts: Mapping[str, float | None], limit: float | None) -> dict[str, float | None]:
    """The client's own timeouts, none longer than `limit`."""
    most = inf if limit is None else max(limit, MOMENT)
    shorter = {name: min(_number(timeouts.get(name)), most) for name in ("connect", "read", "write", "pool")}
    return {name: value if value < inf else None for name, value in shorter.items()}


def _number(seconds: float | None) -> float:
    return inf if seconds is None else seconds
