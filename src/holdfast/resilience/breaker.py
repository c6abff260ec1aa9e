"""The circuit: closed, open, half-open; a synchronous object that is told the time and never waits."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from random import Random

from holdfast.resilience.policy import Breaker

BUCKETS = 10
LONGEST_ASKED = 900.0
"""A vendor's own Retry-After keeps a circuit open for so many seconds at most."""


class CircuitState(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"
    METRICS_ONLY = "metrics_only"


class Result(StrEnum):
    """What a call says of the provider's health; neutral says nothing: cancelled, or throttled."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state."""

    before: CircuitState
    after: CircuitState
    reason: str
    open_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; its result counts only in the generation that gave it."""

    generation: int
    probe: int
    """The number of this probe; 0 for an ordinary call."""
    change: Transition | None = None
    """What asking for leave changed: the first probe makes an open circuit half-open."""


@dataclass(frozen=True, slots=True)
class Denied:
    """No leave; `retry_after` says in how many seconds to ask again, None: nobody can say."""

    retry_after: float | None
    change: Transition | None = None


class Window:
    """Exact counts of the last seconds, in ten buckets."""

    __slots__ = ("_calls", "_failures", "_per_second", "_slow", "_tick", "calls", "edge", "failures", "slow", "well")

    def __init__(self, seconds: float) -> None:
        self._per_second = BUCKETS / seconds
        self.clear(0.0)

    def clear(self, now: float) -> None:
        """Count from zero."""
        self._calls, self._failures, self._slow = [0] * BUCKETS, [0] * BUCKETS, [0] * BUCKETS
        self.calls = self.failures = self.slow = 0
        self.well = 0
        """Good calls of the current bucket that are not in `calls` yet: adding one is all that most calls cost."""
        self._tick = int(now * self._per_second)
        self.edge = (self._tick + 1) / self._per_second

    def add(self, now: float, *, failure: bool, slow: bool) -> None:
        """Count one call."""
        self.roll(now)
        slot = self._tick % BUCKETS
        self._calls[slot] += 1
        self.calls += 1
        if failure:
            self._failures[slot] += 1
            self.failures += 1
        if slow:
            self._slow[slot] += 1
            self.slow += 1

    def roll(self, now: float) -> None:
        """Forget what is older than the window."""
        self._calls[self._tick % BUCKETS] += self.well
        self.calls += self.well
        self.well = 0
        tick = int(now * self._per_second)
        if tick <= self._tick:
            return
        for passed in range(self._tick + 1, min(tick, self._tick + BUCKETS) + 1):
            slot = passed % BUCKETS
            self.calls -= self._calls[slot]
            self.failures -= self._failures[slot]
            self.slow -= self._slow[slot]
            self._calls[slot] = self._failures[slot] = self._slow[slot] = 0
        self._tick = tick
        self.edge = (tick + 1) / self._per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSnapshot:
    """A circuit as it stands, for people and gauges."""

    state: CircuitState
    generation: int
    calls: int
    failures: int
    slow: int
    retry_after: float | None
    """Seconds until a call may be admitted: 0 when one may be now, None when nobody can say."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process knows of a circuit; its times are seconds ago or to go, for clocks differ."""

    generation: int
    calls: int
    failures: int
    slow: int
    closed: bool
    failing: bool
    """It is not closed, because calls of this process failed."""
    opened: float
    """Since when it is not closed."""
    left: float
    """Until a probe is due."""
    reopened: int
    """How many doublings its open period has grown by."""
    passed: float | None
    """Since when the probes ran that closed it; None where it was not closed by probes of this process."""


class Circuit:
    """One circuit. `now` is monotonic seconds throughout; every change is in what the method returns."""

    def __init__(self, options: Breaker, random: Random) -> None:
        self._options = options
        self._random = random
        self._slow_counts = options.slow_after is not None
        self.window = Window(options.seconds("window"))
        self._state = CircuitState.CLOSED
        self._reason = ""
        self._generation = 1
        self.consecutive = 0
        """Hard failures in a row."""
        self._reopened = 0
        self._until = 0.0
        self._hastened = False
        self._probe = 0
        self._leases: dict[int, float] = {}  # of the probes under way, until when
        self._probes_passed = 0
        self._healthy_since = 0.0
        self._opened_at = -inf
        self.closed_since = -inf
        """When it was closed last, by probes or otherwise."""
        self._half_opened_at = -inf
        self._passed_since: float | None = None
        self._failing = False
        self._elected_until = -inf
        self._elsewhere_until = -inf
        self._override: CircuitState | None = None
        self._override_reason = ""
        self._override_until = inf
        self.standing: Permit | None = Permit(1, 0)
        """The permit every call gets while the circuit is closed; None: ask `admit`."""
        self.shut_until = -inf
        """Until then it is open by itself, and rejects every call."""

    def state(self, now: float) -> CircuitState:
        """The state that decides about the next call."""
        return self._overridden(now) or self._state

    @property
    def reason(self) -> str:
        """Why it is not closed."""
        return self._reason if self._override is None else self._override_reason

    def admit(self, now: float, *, lease: float) -> Permit | Denied:
        """Leave for a call that ends within `lease` seconds; a probe that does not is forgotten then."""
        ended = self._end_override(now)
        wait = self.refuses(now)
        if wait is not None:
            return Denied(wait if isfinite(wait) else None, ended)
        if self._state is CircuitState.CLOSED or self._override is CircuitState.METRICS_ONLY:
            return Permit(self._generation, 0, ended)
        opened = self._half_open(now)
        self._probe += 1
        self._leases = {number: until for number, until in self._leases.items() if until > now}
        self._leases[self._probe] = now + lease
        return Permit(self._generation, self._probe, opened or ended)

    def refuses(self, now: float) -> float | None:
        """Seconds until a call may be admitted, or None when one may be now; changes nothing."""
        override = self._overridden(now)
        if override is CircuitState.ISOLATED:
            return self._override_until - now
        if override is CircuitState.METRICS_ONLY or self._state is CircuitState.CLOSED:
            return None
        elsewhere = self._elsewhere_until - now if now < self._elsewhere_until else None
        if self._state is CircuitState.OPEN:
            return self._until - now if now < self._until else elsewhere
        running = [until for until in list(self._leases.values()) if until > now]  # who only looks takes no lock
        if self._options.probes is None or len(running) < self._options.probes:
            return elsewhere
        return min(min(running) - now, self._options.seconds("open_for"))  # a probe rarely needs its lease

    def record(
        self,
        permit: Permit,
        result: Result,
        now: float,
        *,
        hard: bool = False,
        slow: bool = False,
        open_at_least: float = 0.0,
    ) -> Transition | None:
        """Count a result; the change of state it brought, if any. One from an earlier generation says nothing."""
        ended = self._end_override(now)
        if permit.generation != self._generation:
            return ended
        if permit.probe:
            return self._record_probe(permit, result, now, slow, open_at_least)
        if result is Result.NEUTRAL:
            return None
        failed = result is Result.FAILURE
        self.window.add(now, failure=failed, slow=slow)
        if not failed:
            self.consecutive = 0
        elif hard:
            self.consecutive += 1
        if self._override is not None or not (failed or slow):
            return None  # only watched; and what went well opens nothing
        reason = self._why_open()
        return self._open(now, reason, open_at_least) if reason else None

    def hasten(self, now: float) -> None:
        """An open circuit lets its probe through now: where all others are open too, waiting helps nobody."""
        if self._state is CircuitState.OPEN:
            self._hastened = now < self._until
            self._until = self.shut_until = min(self._until, now)

    def isolate(self, reason: str, now: float, *, ttl: float | None = None) -> Transition:
        """Let nothing through, until `automatic` or for `ttl` seconds."""
        return self._set_override(CircuitState.ISOLATED, reason, now, ttl)

    def metrics_only(self, reason: str, now: float, *, ttl: float | None = None) -> Transition:
        """Let everything through and only count, until `automatic` or for `ttl` seconds."""
        return self._set_override(CircuitState.METRICS_ONLY, reason, now, ttl)

    def close(self, reason: str, now: float) -> Transition:
        """Close now; from here on it opens by itself as ever."""
        before = self.state(now)
        self._override = None
        self._close(now)
        return Transition(before, CircuitState.CLOSED, reason)

    def automatic(self, now: float) -> Transition:
        """End an override."""
        before = self.state(now)
        self._override = None
        self._next_generation()
        return Transition(before, self._state, "automatic")

    # Among several processes: one of them probes, and what it finds holds for all.

    def undecided(self, now: float) -> bool:
        """Whether a probe is due, and it is open which process makes it."""
        tried_out = self._state in (CircuitState.OPEN, CircuitState.HALF_OPEN) and self._overridden(now) is None
        return tried_out and now >= self._elected_until and self.refuses(now) is None

    def elect(self, until: float) -> None:
        """The probes are made here; `-inf`: from now on no more."""
        self._elected_until, self._elsewhere_until = until, -inf

    def stand_back(self, until: float) -> None:
        """Another process makes the probes: until then every call is rejected, unless that closes the circuit."""
        self._elsewhere_until = until
        if self.shut_until > -inf:
            self.shut_until = max(self._until, until)

    def probing(self, now: float) -> bool:
        """Whether a probe is under way."""
        return any(until > now for until in list(self._leases.values()))

    def doubtful(self, now: float) -> bool:
        """Whether what few calls there were went badly enough to believe another process that they would all fail."""
        if self._overridden(now) is not None or self._state is not CircuitState.CLOSED:
            return False
        options, window = self._options, self.window
        window.roll(now)
        failing = 0 < window.failures >= options.failure_rate * window.calls
        slow = self._slow_counts and 0 < window.slow >= options.slow_rate * window.calls
        return failing or slow or self.consecutive > 1

    def trip(self, reason: str, now: float, *, open_for: float, reopened: int = 0) -> Transition | None:
        """Open a closed circuit on the word of others, for nearly as long as theirs; None: it is not closed."""
        if self._overridden(now) is not None or self._state is not CircuitState.CLOSED:
            return None
        self._reopened = max(self._reopened, reopened)
        return self._shut(now, reason, self._jittered(open_for), failing=False)

    def follow(self, now: float, *, open_for: float, reopened: int) -> Transition | None:
        """Another process found that it still fails: try it out no sooner than nearly as long from now."""
        closed = self._state is CircuitState.CLOSED or self._overridden(now) is not None
        if closed or self.probing(now):
            return None
        self._reopened = max(self._reopened, reopened)
        until = now + self._jittered(open_for)
        if self._state is CircuitState.HALF_OPEN:
            return self._shut(now, "a probe of another process failed", until - now, failing=self._failing)
        self._until = max(self._until, until)
        if self.shut_until > -inf:
            self.shut_until = max(self._until, self._elsewhere_until)
        return None

    def recover(self, now: float, *, since: float) -> Transition | None:
        """The probes of another process passed: close, unless this process has found failures `since` they began."""
        closed = self._state is CircuitState.CLOSED or self._overridden(now) is not None
        if closed or self._opened_at > since:
            return None
        before = self._state
        self._close(now)
        return Transition(before, CircuitState.CLOSED, "probes of another process passed")

    def report(self, now: float) -> Report:
        """What others may want to know."""
        self.window.roll(now)
        shut = self._state is not CircuitState.CLOSED
        return Report(
            generation=self._generation,
            calls=self.window.calls,
            failures=self.window.failures,
            slow=self.window.slow,
            closed=not shut,
            failing=shut and self._failing,
            opened=now - self._opened_at if shut else 0.0,
            left=max(0.0, self._until - now) if shut else 0.0,
            reopened=self._reopened,
            passed=None if shut or self._passed_since is None else now - self._passed_since,
        )

    def snapshot(self, now: float) -> CircuitSnapshot:
        """How it stands."""
        self.window.roll(now)
        wait = self.refuses(now) or 0.0
        return CircuitSnapshot(
            state=self.state(now),
            generation=self._generation,
            calls=self.window.calls,
            failures=self.window.failures,
            slow=self.window.slow,
            retry_after=wait if isfinite(wait) else None,
            reason=self.reason,
        )

    def _record_probe(
        self, permit: Permit, result: Result, now: float, slow: bool, open_at_least: float
    ) -> Transition | None:
        if self._leases.pop(permit.probe, None) is None:
            return None  # its lease ran out and another probe decides
        if result is Result.NEUTRAL:
            return None
        if result is Result.FAILURE or slow:
            # A probe before its time proves only that waiting was right: it must not make the next wait longer.
            self._reopened += 0 if self._hastened else 1
            return self._open(now, "probe failed" if result is Result.FAILURE else "probe was slow", open_at_least)
        self._probes_passed += 1
        if self._probes_passed < self._options.probes_to_close:
            return None
        self._close(now)
        self._passed_since = self._half_opened_at
        return Transition(CircuitState.HALF_OPEN, CircuitState.CLOSED, "probes passed")

    def _why_open(self) -> str:
        options, window = self._options, self.window
        if self.consecutive >= options.consecutive:
            return f"{self.consecutive} hard failures in a row"
        if window.calls < options.minimum_calls:
            return ""
        if window.failures >= options.failure_rate * window.calls:
            return f"{window.failures} of {window.calls} calls failed"
        if self._slow_counts and window.slow >= options.slow_rate * window.calls:
            return f"{window.slow} of {window.calls} calls were slow"
        return ""

    def _open(self, now: float, reason: str, at_least: float) -> Transition:
        if self._state is CircuitState.CLOSED:  # each healthy window takes back one doubling
            healthy = int((now - self._healthy_since) / self._options.seconds("window"))
            self._reopened = max(0, self._reopened - healthy)
        longest = self._options.seconds("open_cap")
        full = min(longest, self._options.seconds("open_for") * 2.0 ** min(self._reopened, 32))
        return self._shut(now, reason, max(self._jittered(full), min(at_least, LONGEST_ASKED)), failing=True)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.5, 1.0)

    def _shut(self, now: float, reason: str, open_for: float, *, failing: bool) -> Transition:
        before = self._state
        self._state, self._reason, self._until = CircuitState.OPEN, reason, now + open_for
        self._opened_at, self._failing, self._passed_since = now, failing, None
        self._hastened = False
        self._next_generation()
        return Transition(before, CircuitState.OPEN, reason, open_for)

    def _half_open(self, now: float) -> Transition | None:
        if self._state is CircuitState.HALF_OPEN:
            return None
        self._state, self._probes_passed, self._half_opened_at = CircuitState.HALF_OPEN, 0, now
        self._next_generation()
        return Transition(CircuitState.OPEN, CircuitState.HALF_OPEN, "a probe is due")

    def _close(self, now: float) -> None:
        self._state, self._reason, self.consecutive = CircuitState.CLOSED, "", 0
        self._healthy_since = self.closed_since = now
        self._passed_since, self._elsewhere_until = None, -inf
        self.window.clear(now)
        self._next_generation()

    def _next_generation(self) -> None:
        self._generation += 1
        self._leases.clear()
        closed = self._state is CircuitState.CLOSED and self._override is None
        self.standing = Permit(self._generation, 0) if closed else None
        open_by_itself = self._state is CircuitState.OPEN and self._override is None
        self.shut_until = self._until if open_by_itself else -inf

    def _set_override(self, state: CircuitState, reason: str, now: float, ttl: float | None) -> Transition:
        before = self.state(now)
        self._override, self._override_reason = state, reason
        self._override_until = inf if ttl is None else now + ttl
        self._next_generation()
        return Transition(before, state, reason)

    def _overridden(self, now: float) -> CircuitState | None:
        return self._override if now < self._override_until else None

    def _end_override(self, now: float) -> Transition | None:
        """Notice that an override's time is over."""
        if self._override is None or now < self._override_until:
            return None
        before, self._override = self._override, None
        self._next_generation()
        return Transition(before, self._state, "override ended")
