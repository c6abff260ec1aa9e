"""What would this policy do in an outage: the real guard on time that never waits, and a provider that goes down."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, inf
from random import Random
from typing import Final

from holdfast.clock import SystemClock
from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.chart import in_words, text_chart
from holdfast.resilience.guard import Guard
from holdfast.resilience.picture import picture
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
class Span:
    """A time in which the circuit was in one state, in seconds after the start."""

    start: float
    stop: float
    state: CircuitState


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

    @property
    def title(self) -> str:
        """What was tried."""
        return f"{in_words(len(self.outage))} of outage at {self.rps:,g} calls a second"

    @property
    def verdict(self) -> str:
        """What came of it, in one line."""
        match self.recovery:
            case _ if not self.changes:
                recovered = "the circuit never opened"
            case None:
                recovered = "no recovery within the run"
            case seconds:
                recovered = f"recovered after {in_words(seconds)}"
        seen = f"the provider saw {self.sent_over_offered:.2%} of the calls"
        return f"{seen} · amplification {self.amplification:.2f} · {recovered}"

    def summary(self) -> str:
        """The figures in two sentences."""
        longest = f"its longest open period was {self.longest_open:.1f} s"
        match self.recovery:
            case _ if not self.changes:
                circuit = "never opened."
            case None:
                circuit = f"was not closed again within the run; {longest}."
            case seconds:
                circuit = f"was closed {seconds:.1f} s after its end; {longest}."
        return (
            f"During the outage {self.sent:,} submissions of {self.offered:,} calls reached the provider "
            f"({self.sent_over_offered:.2%}), {self.amplification:.2f} per call let through.\nThe circuit {circuit}"
        )

    def spans(self) -> list[Span]:
        """The circuit's states, one after the other; of several circuits, the one that lets least through."""
        states: dict[str, CircuitState] = {}
        spans = [Span(0.0, float(len(self.seconds)), CircuitState.CLOSED)]
        for change in self.changes:
            states[change.signal.operation] = CircuitState(change.signal.after)
            state = max(states.values(), key=_STRICTNESS.index)
            if state is not spans[-1].state:
                last = spans.pop()
                spans += [Span(last.start, change.at, last.state), Span(change.at, last.stop, state)]
        return spans

    def chart(self, width: int = 68, *, plain: bool = False, colour: bool = False) -> str:
        """The run as text for a terminal, `width` columns of time; `plain` is ASCII, `colour` adds ANSI colours."""
        return text_chart(self, width, plain=plain, colour=colour) + "\n" + self.summary()

    def svg(self, width: int = 720) -> str:
        """The run as a picture that stands alone, readable on light and on dark."""
        return picture(self, width)


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
    progress: Callable[[float], object] | None = None,
) -> Simulation:
    """Run `rps` calls a second through a guard with this policy, past an outage from `start` on.

    Takes seconds, not the minutes it is about, and may be called anywhere, also while an event loop runs. The same
    seed gives the same run. A healthy answer takes half to one and a half times `latency`. Without `duration` the run
    goes on until the last possible probe, and a minute. Whole seconds are counted; calls under way at the end are not.
    `progress` is called, in the thread of the run, with the share of it that is done.

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
    run = _Run(policy, rps, down, int(total), _number("latency", latency), failure, effect, seed, progress)
    with ThreadPoolExecutor(1, "holdfast-simulate") as thread:  # the caller's thread may have a loop of its own
        try:
            return thread.submit(run.play).result()
        except BaseException:  # of Ctrl-C, too: leaving the block waits for the thread
            run.stop()
            raise


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
        progress: Callable[[float], object] | None,
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
        self._states: dict[str, str] = {}
        self._probing = self._probes_at_once = 0
        self._progress, self._told, self._stopped = progress, 0.0, False

    def play(self) -> Simulation:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._calls())
        simulation = Simulation(
            rps=self._rps,
            outage=self._down,
            seconds=tuple(self._seconds),
            changes=tuple(self._changes),
            probes_at_once=self._probes_at_once,
        )
        for span in simulation.spans():
            for at in range(int(span.start), ceil(span.stop)):
                self._seconds[at].state = span.state
        return simulation

    def stop(self) -> None:
        """Give up at the next call; from another thread."""
        self._stopped = True

    async def _calls(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(len(self._seconds)), asyncio.TaskGroup() as calls:
                for number in range(int(len(self._seconds) * self._rps)):
                    await asyncio.sleep(number / self._rps - self._loop.time())
                    self._tell()
                    self._now.offered += 1
                    calls.create_task(self._call())

    def _tell(self) -> None:
        """Report progress, once a second."""
        if self._stopped:
            raise asyncio.CancelledError
        now = self._loop.time()
        if self._progress is not None and now >= self._told + 1:
            self._told = now
            self._progress(now / len(self._seconds))

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
        is_probe = CircuitState.HALF_OPEN in self._states.values()
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
                self._states[signal.operation] = signal.after
            case _:
                pass

    @property
    def _now(self) -> Second:
        return self._seconds[min(int(self._loop.time() + _TICK), len(self._seconds) - 1)]


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
