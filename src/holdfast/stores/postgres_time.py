"""The time of the server, so that all processes have the same."""

from typing import Final

from psycopg.types.numeric import Int8

from holdfast.clock import Clock, SystemClock
from holdfast.stores.store_time import StoreTime, micros

MOMENT: Final = """
moment AS MATERIALIZED (
    SELECT coalesce(%(at)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint + %(skew)s::bigint)
        AS now
)
"""
"""One row, for the `WITH` of every statement that needs the time: it is read once, and an index can use it."""


class ServerTime:
    """What statements with `MOMENT` are given: nothing for the server's clock, the time itself for an injected one."""

    def __init__(self, clock: Clock, skew_ms: int) -> None:
        self._injected = None if isinstance(clock, SystemClock) else StoreTime(clock, skew_ms)
        self._skew = Int8(skew_ms * 1000)

    def parameters(self) -> dict[str, Int8 | None]:
        at = None if self._injected is None else Int8(micros(self._injected.now()))
        return {"at": at, "skew": self._skew}


def span(seconds: float) -> Int8:
    """Microseconds."""
    return Int8(round(seconds * 1_000_000))
