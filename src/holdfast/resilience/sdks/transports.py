"""What a broken exchange proves, whatever library beneath an SDK reports it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from holdfast.outcome import Cause
from holdfast.resilience.sdks.kinds import kinds_of

_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Broke:
    """What is known of an exchange without an answer."""

    cause: Cause
    reason: str = ""
    hard: bool = True


_NO_CONNECTION = frozenset(
    {
        "aiohttp.ClientConnectorError",
        "aiohttp.ConnectionTimeoutError",
        "botocore.ConnectTimeoutError",
        "botocore.EndpointConnectionError",
        "builtins.ConnectionRefusedError",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        "requests.ConnectTimeout",
        "socket.gaierror",
        "ssl.SSLCertVerificationError",
        "urllib3.ConnectTimeoutError",
        "urllib3.NewConnectionError",
    }
)
"""Proof that nothing was sent."""

_NO_ANSWER_IN_TIME = frozenset(
    {
        "botocore.ReadTimeoutError",
        "builtins.TimeoutError",
        "httpx.TimeoutException",
        "requests.Timeout",
        "urllib3.ReadTimeoutError",
    }
)

_LOST = frozenset(
    {
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "botocore.ConnectionError",
        "botocore.HTTPClientError",
        "builtins.ConnectionError",
        "http.HTTPException",
        "httpx.TransportError",
        "requests.ChunkedEncodingError",
        "requests.ConnectionError",
        "ssl.SSLError",
        "urllib3.ProtocolError",
        "urllib3.SSLError",
    }
)

_TABLE = (
    (frozenset({"httpx.PoolTimeout"}), Broke(Cause.NOT_SENT, "pool", hard=False)),  # ours: the vendor is not at fault
    (_NO_CONNECTION, Broke(Cause.NOT_SENT, "connect")),
    (_NO_ANSWER_IN_TIME, Broke(Cause.UNKNOWN, "timeout")),
    (_LOST, Broke(Cause.UNKNOWN, "reset")),
)


def what_broke(error: BaseException) -> Broke:
    """The strongest thing the error and what it wraps say; without any, nobody knows what happened."""
    kinds = {kind for each in _wrapped(error) for kind in kinds_of(each)}
    for row, broke in _TABLE:
        if not kinds.isdisjoint(row):
            return broke
    return Broke(Cause.UNKNOWN, hard=False)


def _wrapped(error: BaseException, depth: int = 0) -> Iterator[BaseException]:
    """The error and those it was made of. Not its context: what was handled before may belong to another exchange."""
    yield error
    if depth >= _DEEPEST:
        return
    inner: list[object] = [error.__cause__, getattr(error, "reason", None), *error.args]
    kwargs = getattr(error, "kwargs", None)  # where botocore keeps them
    if isinstance(kwargs, Mapping):
        inner += cast(Mapping[str, object], kwargs).values()
    for each in inner:
        if isinstance(each, BaseException) and each is not error:
            yield from _wrapped(each, depth + 1)
