"""What happened to each operation, as plain integers: nothing is computed until a collector reads them."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from statistics import median

from holdfast.resilience.breaker import Circuit

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds, in seconds, of the buckets of durations: OpenTelemetry's advice for HTTP clients."""
KEPT = 64
"""The last successes a usual duration is taken from."""
ENOUGH = 5
"""Fewer durations than this say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSnapshot:
    """One operation's counts since the guard was made."""

    outcomes: dict[str, int]
    """Calls by how they ended: `ok`, a cause, `cancelled`, `error`."""
    attempts: int
    """Exchanges with the provider that ended, repeats included."""
    retries: int
    rejected: int
    """Attempts that ended here: circuit, hold, rate, concurrency, deadline."""
    durations: tuple[int, ...]
    """Attempts that went well, by duration: the n-th took at most `BOUNDS[n]` seconds, the last one longer."""
    seconds: float
    """Of all those together."""
    usual: float
    """The median of the last successes, in seconds; 0 while there are too few."""


class Operation:
    """One operation of a provider: its counters, its usual duration, its circuit where it has one."""

    __slots__ = ("circuit", "durations", "failed", "last", "name", "outcomes", "rejected", "retries", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.circuit: Circuit | None = None
        self.failed = self.retries = self.rejected = 0
        self.outcomes: dict[str, int] = {}
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.last: deque[float] = deque(maxlen=KEPT)

    def succeeded(self, seconds: float) -> None:
        """A call went well, its last attempt in so many seconds."""
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.last.append(seconds)

    def turned_away(self) -> None:
        """A call was rejected, and ended with that."""
        self.rejected += 1
        self.outcomes["not_sent"] = self.outcomes.get("not_sent", 0) + 1

    def ended(self, outcome: str) -> None:
        """A call ended otherwise than well."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def usual(self) -> float:
        """The median duration; 0 after too few successes, for then nothing is too short."""
        return median(self.last) if len(self.last) >= ENOUGH else 0.0

    def slowest(self) -> float:
        """What nineteen of twenty took at most; 0 after too few successes."""
        known = sorted(self.last)
        return known[int(len(known) * 0.95)] if len(known) >= 4 * ENOUGH else 0.0

    def snapshot(self) -> OperationSnapshot:
        """The counts as they stand."""
        well = sum(self.durations)
        return OperationSnapshot(
            outcomes={"ok": well, **self.outcomes} if well else dict(self.outcomes),
            attempts=well + self.failed,
            retries=self.retries,
            rejected=self.rejected,
            durations=tuple(self.durations),
            seconds=self.seconds,
            usual=self.usual(),
        )
