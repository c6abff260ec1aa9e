"""What would this policy do in an outage: the real guard on time that never waits, and a provider that goes down."""

import asyncio
import selectors
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from math import inf, isfinite
from random import Random
from typing import Final

from holdfast.clock import SystemClock
from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy, Seconds
from holdfast.telemetry import CallFinished, CallRejected, CircuitChanged, Signal, Telemetry

AFTERWARDS: Final = 60.0
"""The run goes on for so long after the last moment at which a probe can be due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """How the provider fails while it is down; without arguments: every call is answered with a 500."""

    share: float = 1.0
    """Of the calls, at random; the others succeed."""
    cause: Cause | None = Cause.UNKNOWN
    """None: it succeeds, only after another time."""
    status: int | None = 500
    hard: bool = True
    retry_after: float | None = None
    after: Seconds | None = None
    """When the answer comes; None: when a healthy one would; infinite: never."""

    def error(self) -> CallFailed | None:
        """The failure as a provider's table would tell it."""
        if self.cause is None:
            return None
        return CallFailed.of(self.cause, "simulated", status=self.status, hard=self.hard, retry_after=self.retry_after)


ERRORS: Final = Failure()
UNREACHABLE: Final = Failure(cause=Cause.NOT_SENT, status=None, after=0)
SILENT: Final = Failure(status=None, after=inf)


@dataclass(slots=True, kw_only=True)
class Second:
    """What happened in one second."""

    offered: int = 0
    """Calls the program made."""
    sent: int = 0
    """Submissions that reached the provider, repeats included."""
    succeeded: int = 0
    rejected: int = 0
    """Calls that ended here: the circuit was open, or no time was left."""
    retried: int = 0
    """Of `sent`, those that were repeats."""
    state: CircuitState = CircuitState.CLOSED
    """The circuit at the end of it; of several, the one that lets least through."""


@dataclass(frozen=True, slots=True)
class Change:
    """A circuit changed its state, so many seconds after the start."""

    at: float
    signal: CircuitChanged


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """What the policy did."""

    rps: float
    outage: range
    """The seconds in which the provider was down."""
    seconds: tuple[Second, ...]
    changes: tuple[Change, ...]
    probes_at_once: int
    """The most submissions under way at once while the circuit was half-open."""

    @property
    def offered(self) -> int:
        """Calls made during the outage."""
        return sum(self.seconds[at].offered for at in self.outage)

    @property
    def sent(self) -> int:
        """Submissions that reached the provider during the outage."""
        return sum(self.seconds[at].sent for at in self.outage)

    @property
    def sent_over_offered(self) -> float:
        """What the provider saw of the calls made during the outage; above 1 where retries outnumber rejections."""
        return self.sent / max(1, self.offered)

    @property
    def amplification(self) -> float:
        """Submissions per call that was let through at all, during the outage."""
        return self.sent / max(1, self.sent - sum(self.seconds[at].retried for at in self.outage))

    @property
    def recovery(self) -> float | None:
        """Seconds from the end of the outage until every circuit was closed for good; None: not within the run."""
        last = {change.signal.operation: change.signal.after for change in self.changes}
        if any(state != CircuitState.CLOSED for state in last.values()):
            return None
        return max(
            (change.at - self.outage.stop for change in self.changes if change.at > self.outage.stop), default=0.0
        )

    @property
    def longest_open(self) -> float:
        """The longest open period: an outage that ends right at its beginning is noticed that much later."""
        return max((change.signal.open_for for change in self.changes), default=0.0)

    def summary(self) -> str:
        """The figures in two sentences."""
        recovered = "not within the run" if self.recovery is None else f"{self.recovery:.1f} s after its end"
        return (
            f"During the outage {self.sent:,} submissions of {self.offered:,} calls reached the provider "
            f"({self.sent_over_offered:.2%}), {self.amplification:.2f} per call let through.\n"
            f"The circuit was closed {recovered}; its longest open period was {self.longest_open:.1f} s."
        )

    def chart(self, width: int = 68) -> str:
        """The run as text for a terminal, `width` columns of time."""
        columns = _columns(len(self.seconds), width)
        highest = max(1.0, max(self._mean(name, column) for name in _SERIES for column in columns))
        lines = [f"{'outage':<10}" + "".join("×" if self._is_down(column) else "·" for column in columns)]
        lines += [
            f"{name:<10}" + "".join(_bar(self._mean(name, column) / highest) for column in columns) for name in _SERIES
        ]
        lines.append(f"{'circuit':<10}" + "".join(_STATE_SIGN[self._state(column)] for column in columns))
        lines.append(" " * 10 + _scale(columns))
        lines.append(
            f"\n· closed, ▒ half-open, █ open; a column is {len(columns[0])} s, a full one {highest:.3g} a second"
        )
        return "\n".join(line.rstrip() for line in lines) + "\n" + self.summary()

    def svg(self, width: int = 720, height: int = 260) -> str:
        """The run as a picture, complete in itself."""
        left, top, right, bottom = 44, 34, width - 12, height - 46
        columns = _columns(len(self.seconds), right - left)
        across, down = (right - left) / len(self.seconds), bottom - top
        highest = max(1.0, max(self._mean(name, column) for name in _COLOURS for column in columns))
        shapes = [
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            f'<rect x="{left + self.outage.start * across:.1f}" y="{top}" width="{len(self.outage) * across:.1f}" '
            f'height="{down}" fill="#fdecea"/>',
            f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>',
            f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">{highest:.3g}/s</text>',
            f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
        ]
        for name, colour in _COLOURS.items():
            points = " ".join(
                f"{left + column.start * across:.1f},{bottom - down * self._mean(name, column) / highest:.1f}"
                for column in columns
            )
            shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for column in columns:
            colour = _STATE_COLOUR[self._state(column)]
            x, wide = left + column.start * across, len(column) * across
            shapes.append(f'<rect x="{x:.1f}" y="{bottom + 4}" width="{wide:.2f}" height="8" fill="{colour}"/>')
        for at in _ticks(len(self.seconds)):
            x = left + at * across
            shapes.append(f'<text x="{x:.1f}" y="{bottom + 26}" text-anchor="middle">{_minutes(at)}</text>')
        legend = [*_COLOURS.items(), ("circuit closed", _CLOSED), ("half-open", _HALF_OPEN), ("open", _OPEN)]
        for number, (name, colour) in enumerate(legend):
            shapes.append(f'<text x="{left + number * 96}" y="18" fill="{colour}">■ {name}</text>')
        summary = self.summary().replace("\n", " ")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="sans-serif" font-size="11">\n<title>{summary}</title>\n' + "\n".join(shapes) + "\n</svg>\n"
        )

    def _mean(self, name: str, column: range) -> float:
        total: int = sum(getattr(self.seconds[at], name) for at in column)
        return total / len(column)

    def _state(self, column: range) -> CircuitState:
        return Counter(self.seconds[at].state for at in column).most_common(1)[0][0]

    def _is_down(self, column: range) -> bool:
        return column.start < self.outage.stop and self.outage.start < column.stop


def simulate(
    policy: Policy,
    *,
    rps: float,
    outage: Seconds,
    start: Seconds = 60,
    duration: Seconds | None = None,
    latency: Seconds = 0.1,
    failure: Failure = ERRORS,
    effect: Effect = Effect.READ,
    seed: int = 0,
) -> Simulation:
    """Run `rps` calls a second through a guard with this policy, past an outage from `start` on.

    Takes seconds, not the minutes it is about, and may be called anywhere, also while an event loop runs. The same
    seed gives the same run. A healthy answer takes half to one and a half times `latency`. Without `duration` the run
    goes on until the last possible probe, and a minute. Whole seconds are counted; calls under way at the end are not.

    Raises:
        InvalidInput: A number that makes no run.
    """
    begins, lasts = _whole_seconds("start", start), _whole_seconds("outage", outage)
    longest_open = policy.breaker.seconds("open_cap") if policy.breaker else 0.0
    total = begins + lasts + longest_open + AFTERWARDS if duration is None else _whole_seconds("duration", duration)
    if not 0 < rps <= 100_000:
        raise InvalidInput(f"rps is above 0 and up to 100,000 calls a second, not {rps:g}")
    if not 0 < begins + lasts <= total:
        raise InvalidInput(
            f"the outage ends after {begins + lasts} s, above 0, and the run after it, not after {total:g} s"
        )
    if not 0 <= failure.share <= 1:
        raise InvalidInput(f"failure.share is from 0 to 1, not {failure.share:g}")
    _number("failure.after", failure.after or 0)
    down = range(begins, begins + lasts)
    run = _Run(policy, rps, down, int(total), _number("latency", latency), failure, effect, seed)
    with ThreadPoolExecutor(1, "holdfast-simulate") as thread:  # the caller's thread may have a loop of its own
        return thread.submit(run.play).result()


class _Run:
    """One run: the program that calls, the guard between, and the provider."""

    def __init__(
        self,
        policy: Policy,
        rps: float,
        down: range,
        duration: int,
        latency: float,
        failure: Failure,
        effect: Effect,
        seed: int,
    ) -> None:
        self._rps, self._down, self._latency, self._failure, self._effect = rps, down, latency, failure, effect
        self._chance = Random(f"provider {seed}")
        self._loop = _SkippingLoop()
        telemetry = Telemetry([self._hear])
        self._guard = Guard(
            "simulated", policy, clock=_LoopClock(self._loop), random=Random(f"guard {seed}"), telemetry=telemetry
        )
        self._seconds = [Second() for _ in range(duration)]
        self._changes: list[Change] = []
        self._probing = self._probes_at_once = 0

    def play(self) -> Simulation:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._calls())
        self._fill_states()
        return Simulation(
            rps=self._rps,
            outage=self._down,
            seconds=tuple(self._seconds),
            changes=tuple(self._changes),
            probes_at_once=self._probes_at_once,
        )

    async def _calls(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(len(self._seconds)), asyncio.TaskGroup() as calls:
                for number in range(int(len(self._seconds) * self._rps)):
                    await asyncio.sleep(number / self._rps - self._loop.time())
                    self._now.offered += 1
                    calls.create_task(self._call())

    async def _call(self) -> None:
        sent = 0

        async def exchange() -> None:
            nonlocal sent
            sent += 1
            self._now.sent += 1
            self._now.retried += sent > 1
            await self._provider()

        with suppress(CallFailed):
            await self._guard.run(exchange, effect=self._effect, operation="call")

    async def _provider(self) -> None:
        """Answer as the provider does at this moment."""
        is_probe = any(one.state is CircuitState.HALF_OPEN for one in self._guard.snapshot().values())
        self._probing += is_probe
        self._probes_at_once = max(self._probes_at_once, self._probing)
        try:
            takes = self._latency * self._chance.uniform(0.5, 1.5)
            down = int(self._loop.time() + _TICK) in self._down and self._chance.random() < self._failure.share
            if down and self._failure.after is not None:
                takes = _number("after", self._failure.after)
            await asyncio.sleep(takes)
            error = self._failure.error() if down else None
            if error is not None:
                raise error
        finally:
            self._probing -= is_probe

    def _hear(self, signal: Signal) -> None:
        match signal:
            case CallFinished(outcome="ok"):
                self._now.succeeded += 1
            case CallRejected():
                self._now.rejected += 1
            case CircuitChanged():
                self._changes.append(Change(self._loop.time(), signal))
            case _:
                pass

    @property
    def _now(self) -> Second:
        return self._seconds[min(int(self._loop.time() + _TICK), len(self._seconds) - 1)]

    def _fill_states(self) -> None:
        states: dict[str, CircuitState] = {}
        changes = iter([*self._changes, None])
        change = next(changes)
        for at, second in enumerate(self._seconds):
            while change is not None and change.at < at + 1:
                states[change.signal.operation] = CircuitState(change.signal.after)
                change = next(changes)
            second.state = max(states.values(), key=_STRICTNESS.index, default=CircuitState.CLOSED)


class _SkippingSelector(selectors.SelectSelector):
    """Waits for nothing: what would be waited passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.elapsed += timeout or 0.0
        return []


class _SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves to the next timer as soon as nothing is left to do."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.elapsed


class _LoopClock(SystemClock):
    """The time of a loop, as the guard's clock; to sleep and to time out are the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()


_TICK: Final = 1e-6
"""A timer for the full second may ring a rounding error before it."""
_STRICTNESS: Final = (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN)
_SERIES: Final = tuple(field.name for field in fields(Second) if field.name != "state")
_CLOSED, _HALF_OPEN, _OPEN = "#2e7d32", "#f9a825", "#c62828"
_COLOURS: Final = {"offered": "#9e9e9e", "sent": "#1565c0", "succeeded": "#2e7d32", "rejected": "#ef6c00"}
_STATE_COLOUR: Final = {CircuitState.CLOSED: _CLOSED, CircuitState.HALF_OPEN: _HALF_OPEN, CircuitState.OPEN: _OPEN}
_STATE_SIGN: Final = {CircuitState.CLOSED: "·", CircuitState.HALF_OPEN: "▒", CircuitState.OPEN: "█"}


def _number(name: str, seconds: Seconds) -> float:
    number = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    if not number >= 0:
        raise InvalidInput(f"{name} is 0 or more seconds, not {number:g}")
    return number


def _whole_seconds(name: str, seconds: Seconds) -> int:
    number = _number(name, seconds)
    if number > 86_400 or number != int(number):
        raise InvalidInput(f"{name} is a whole number of seconds up to a day, not {number:g}")
    return int(number)


def _columns(seconds: int, most: int) -> list[range]:
    """The seconds in at most so many equal columns; the last may be shorter."""
    each = -(-seconds // most)
    return [range(at, min(at + each, seconds)) for at in range(0, seconds, each)]


def _bar(share: float) -> str:
    """A column of text; the least there is shows."""
    return " ▁▂▃▄▅▆▇█"[min(8, -int(-share * 8 // 1))] if isfinite(share) else "█"


def _ticks(seconds: int) -> range:
    return range(0, seconds, max(60, -(-seconds // 8 // 60) * 60))


def _scale(columns: list[range]) -> str:
    line = ""
    for at in _ticks(columns[-1].stop):
        line = line.ljust(at // len(columns[0])) + _minutes(at)
    return line


def _minutes(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02}"
