"""What a guard does, as a frozen value whose options are checked when it is made."""

import inspect
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Any, Literal, TypeGuard

from holdfast.errors import InvalidPolicy

Seconds = float | int | timedelta
Strategy = Callable[[Any], Any]
"""A tenacity `wait_*` or `stop_*` object, or any function of its retry state."""
Key = ContextVar[str] | Callable[[], str]
"""Whom a call is for: a context variable, or a function that says so."""


class Priority(IntEnum):
    """Who goes first where there is not room for all."""

    BULK = 0
    WEBHOOK = 1
    INTERACTIVE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often and when an exchange is repeated; whether it may be is decided by its effect and the failure's cause.

    `wait` and `stop` take tenacity's strategies, which then replace the numbers; they are asked on failure only.
    """

    attempts: int = 3
    """Submissions in all, the first included: 1 to 100."""
    base: Seconds = 0.1
    """The first wait is drawn from 0 to this; each next one from 0 to twice as much (full jitter)."""
    throttled_base: Seconds = 1.0
    cap: Seconds = 20.0
    wait: Strategy | None = None
    stop: Strategy | None = None

    def __post_init__(self) -> None:
        _whole("attempts", self.attempts, 1, 100)
        for name in ("base", "throttled_base", "cap"):
            object.__setattr__(self, name, _seconds(name, getattr(self, name), 0.0, 3600.0))
        for name in ("wait", "stop"):
            strategy = getattr(self, name)
            if strategy is not None and (not callable(strategy) or _is_async(strategy)):
                raise InvalidPolicy(f"{name} is a tenacity {name}_* strategy that is not async, not {strategy!r}")

    def seconds(self, name: str) -> float:
        """A duration as a number; they all are once the value is made."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """When a circuit opens, and how it closes again."""

    failure_rate: float = 0.5
    """Opens when this share of the calls in the window failed: above 0, up to 1."""
    slow_rate: float = 0.8
    slow_after: Seconds | None = None
    """A call that took longer is slow; None: slowness is not counted."""
    minimum_calls: int = 20
    """Calls in the window before a rate means anything: 1 to 100,000."""
    consecutive: int = 5
    """Opens after so many hard failures in a row (connect, DNS, TLS, timeout, 5xx): 1 to 100,000."""
    window: Seconds = 10.0
    open_for: Seconds = 5.0
    """The first open period; each one after a failed probe is twice as long, each shortened by up to half at random."""
    open_cap: Seconds = 300.0
    probes: int | None = 1
    """Calls let through at once while half-open: 1 to 100; None: all of them, as most other breakers do."""
    probes_to_close: int = 2

    def __post_init__(self) -> None:
        _share("failure_rate", self.failure_rate)
        _share("slow_rate", self.slow_rate)
        for name in ("minimum_calls", "consecutive"):
            _whole(name, getattr(self, name), 1, 100_000)
        _whole("probes_to_close", self.probes_to_close, 1, 100)
        if self.probes is not None:
            _whole("probes", self.probes, 1, 100)
        for name, most in (("window", 3600.0), ("open_for", 3600.0), ("open_cap", 86_400.0)):
            object.__setattr__(self, name, _seconds(name, getattr(self, name), 0.001, most))
        if self.slow_after is not None:
            object.__setattr__(self, "slow_after", _seconds("slow_after", self.slow_after, 0.001, 3600.0))
        if self.seconds("open_cap") < self.seconds("open_for"):
            raise InvalidPolicy("open_cap is below open_for")

    def seconds(self, name: str) -> float:
        """A duration as a number; they all are once the value is made."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, slots=True)
class Budget:
    """How many repeats there may be in all: of a guard's retries and hedges together."""

    share: float = 0.2
    """Of the first attempts of the last ten seconds: 0 to 1."""
    _: KW_ONLY
    reserve: float = 1.0
    """Repeats a second that are allowed however few first attempts there are: 0 to 1,000."""

    def __post_init__(self) -> None:
        _between("share", self.share, 0, 1)
        _between("reserve", self.reserve, 0, 1000)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` calls in any `per` seconds: a sliding window, exact whatever the network does."""

    limit: int
    """1 to 1,000,000."""
    _: KW_ONLY
    per: Seconds = 1.0
    key: Key | None = None
    """Each key has a window of its own: `Rate(5, per=60, key=user_id)`; None: there is one for all calls."""
    counted_from: Literal["answer", "start"] = "answer"
    """A slot comes free one window after the answer, which no jitter can break, or after the start, which is faster."""
    max_waiting: int = 1000
    """Calls that wait for a slot; a further one is rejected at once: 0 to 1,000,000."""

    def __post_init__(self) -> None:
        _whole("limit", self.limit, 1, 1_000_000)
        _whole("max_waiting", self.max_waiting, 0, 1_000_000)
        object.__setattr__(self, "per", _seconds("per", self.per, 0.001, 31 * 86_400.0))
        if self.counted_from not in ("answer", "start"):
            raise InvalidPolicy(f'counted_from is "answer" or "start", not {self.counted_from!r}')
        if self.key is not None and not isinstance(self.key, ContextVar) and not callable(self.key):
            raise InvalidPolicy(f"key is a ContextVar or a function without arguments, not {self.key!r}")

    def seconds(self, name: str) -> float:
        """A duration as a number; they all are once the value is made."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` calls at once (a bulkhead)."""

    limit: int
    """1 to 100,000."""
    _: KW_ONLY
    adaptive: bool = False
    """Move the limit between `least` and `limit`: down after timeouts and throttling, up while it is all in use."""
    least: int = 1
    webhook_share: float = 0.9
    """Of the limit, what calls of `Priority.WEBHOOK` and below may use together: above 0, up to 1."""
    bulk_share: float = 0.5
    """Of the limit, what calls of `Priority.BULK` may use: above 0, up to 1."""
    max_waiting: int = 1000
    """Calls that wait for a place, 0 to 1,000,000; of more, the latest of the lowest priority is rejected."""

    def __post_init__(self) -> None:
        _whole("limit", self.limit, 1, 100_000)
        _whole("least", self.least, 1, self.limit)
        _whole("max_waiting", self.max_waiting, 0, 1_000_000)
        _share("webhook_share", self.webhook_share)
        _share("bulk_share", self.bulk_share)


@dataclass(frozen=True, slots=True)
class Cache:
    """Answers of `read` calls, kept for `ttl` seconds; one call at a time asks for what is not there."""

    ttl: Seconds
    _: KW_ONLY
    stale: Seconds = 0.0
    """For so many seconds more an old answer is better than a failure."""
    max_entries: int = 1024
    """What was not used for longest goes first: 1 to 1,000,000."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ttl", _seconds("ttl", self.ttl, 0.001, 31 * 86_400.0))
        object.__setattr__(self, "stale", _seconds("stale", self.stale, 0.0, 31 * 86_400.0))
        _whole("max_entries", self.max_entries, 1, 1_000_000)

    def seconds(self, name: str) -> float:
        """A duration as a number; they all are once the value is made."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, slots=True)
class Hedge:
    """A second `read` beside one that takes longer than usual; the first answer wins, and the budget pays."""

    after: Seconds | None = None
    """When to ask again; None: after the operation's 95th percentile, at least 50 ms."""

    def __post_init__(self) -> None:
        if self.after is not None:
            object.__setattr__(self, "after", _seconds("after", self.after, 0.001, 3600.0))

    def seconds(self, name: str) -> float:
        """A duration as a number; they all are once the value is made."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Everything a guard does; a part that is None is off."""

    deadline: Seconds | None = None
    """For the whole call, waits included."""
    cache: Cache | None = None
    hedge: Hedge | None = None
    retry: Retry | None = field(default_factory=Retry)
    budget: Budget | None = field(default_factory=Budget)
    """None: repeats are limited by their number alone."""
    rate: Rate | tuple[Rate, ...] | None = None
    """Several nest: a call needs a slot of each."""
    concurrency: Concurrency | int | None = None
    breaker: Breaker | None = field(default_factory=Breaker)
    timeout: Seconds | None = 30.0
    """For each attempt."""

    def __post_init__(self) -> None:
        for name in ("deadline", "timeout"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _seconds(name, value, 0.001, 86_400.0))
        if isinstance(self.rate, Rate):
            object.__setattr__(self, "rate", (self.rate,))
        if isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool):
            _whole("concurrency", self.concurrency, 1, 100_000)
            object.__setattr__(self, "concurrency", Concurrency(self.concurrency))
        for name, kind in _PARTS:
            part = getattr(self, name)
            if part is not None and not isinstance(part, kind):
                raise InvalidPolicy(f"{name} is a {kind.__name__} or None, not {part!r}")
        if any(type(rate) is not Rate for rate in self.rates):
            raise InvalidPolicy(f"rate is a Rate, a tuple of them or None, not {self.rate!r}")

    @property
    def rates(self) -> tuple[Rate, ...]:
        """All of `rate`; none when it is off."""
        return self.rate if isinstance(self.rate, tuple) else ()

    def explain(self) -> str:
        """The order in which a call passes through, in words."""
        retry, breaker, cache, hedge, places = self.retry, self.breaker, self.cache, self.hedge, self.concurrency
        usual = "after what 19 of 20 calls take"
        lines = [
            f"deadline: {_said(self.deadline, 'none')}",
            "cache, of reads: "
            + (f"for {cache.ttl:g} s, up to {cache.stale:g} s longer rather than fail" if cache else "off"),
            f"hedge, of reads: {_said(hedge.after, usual) if hedge else 'off'}",
            f"retry: {_attempts(retry)}, {_waits(retry)}, {_allowed(self.budget)}" if retry else "retry: off",
            "circuit open? rejected at once",
            "hold: waits while the vendor asked this credential to pause",
            f"rate: {' and '.join(map(_pace, self.rates)) or 'unlimited'}",
            "concurrency: "
            + (f"{places.limit} at once{', adaptive' * places.adaptive}" if _is_places(places) else "unlimited"),
            f"circuit: opens at {breaker.failure_rate:.0%} failures of {breaker.minimum_calls} or more calls in "
            f"{breaker.window} s, or {breaker.consecutive} hard failures in a row; first for {breaker.open_for} s"
            if breaker
            else "circuit: off",
            f"attempt timeout: {_said(self.timeout, 'none')}",
            "the call",
        ]
        return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


_PARTS = (
    ("cache", Cache),
    ("hedge", Hedge),
    ("retry", Retry),
    ("budget", Budget),
    ("rate", tuple),
    ("concurrency", Concurrency),
    ("breaker", Breaker),
)


def _is_places(value: object) -> TypeGuard[Concurrency]:
    return isinstance(value, Concurrency)


def _pace(rate: Rate) -> str:
    return f"{rate.limit} per {rate.per:g} s{' and key' if rate.key else ''}"


def _allowed(budget: Budget | None) -> str:
    return f"for {budget.share:.0%} of the calls" if budget else "for any share of the calls"


def _attempts(retry: Retry) -> str:
    return f"{retry.attempts} attempts" if retry.stop is None else f"until {_strategy(retry.stop)}"


def _waits(retry: Retry) -> str:
    if retry.wait is not None:
        return f"waits by {_strategy(retry.wait)}"
    return f"waits of 0 to {retry.base} s doubling up to {retry.cap} s"


def _strategy(strategy: Strategy) -> str:
    return getattr(strategy, "__name__", type(strategy).__name__)


def _is_async(strategy: Strategy) -> bool:
    return inspect.iscoroutinefunction(strategy) or inspect.iscoroutinefunction(type(strategy).__call__)


def _said(seconds: Seconds | None, nothing: str) -> str:
    return nothing if seconds is None else f"{seconds:g} s"


def _number(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidPolicy(f"{name} is a number of seconds or a timedelta, not {value!r}")
    return float(value)


def _seconds(name: str, value: object, least: float, most: float) -> float:
    number = _number(name, value)
    if not least <= number <= most:
        raise InvalidPolicy(f"{name} is between {least:g} and {most:g} seconds, not {number:g}")
    return number


def _between(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidPolicy(f"{name} is from {least:g} to {most:g}, not {value!r}")


def _share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InvalidPolicy(f"{name} is above 0 and up to 1, not {value!r}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidPolicy(f"{name} is a whole number from {least} to {most}, not {value!r}")
