"""What a guard does, as a frozen value whose options are checked when it is made."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from holdfast.errors import InvalidPolicy

Seconds = float | int | timedelta
Strategy = Callable[[Any], Any]
"""A tenacity `wait_*` or `stop_*` object, or any function of its retry state."""


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
    probes_to_close: int = 2

    def __post_init__(self) -> None:
        _share("failure_rate", self.failure_rate)
        _share("slow_rate", self.slow_rate)
        for name in ("minimum_calls", "consecutive"):
            _whole(name, getattr(self, name), 1, 100_000)
        _whole("probes_to_close", self.probes_to_close, 1, 100)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Everything a guard does; a part that is None is off."""

    deadline: Seconds | None = None
    """For the whole call, waits included."""
    timeout: Seconds | None = 30.0
    """For each attempt."""
    retry: Retry | None = field(default_factory=Retry)
    breaker: Breaker | None = field(default_factory=Breaker)

    def __post_init__(self) -> None:
        for name in ("deadline", "timeout"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _seconds(name, value, 0.001, 86_400.0))
        for name, kind in (("retry", Retry), ("breaker", Breaker)):
            part = getattr(self, name)
            if part is not None and not isinstance(part, kind):
                raise InvalidPolicy(f"{name} is a {kind.__name__} or None, not {part!r}")

    def explain(self) -> str:
        """The order in which a call passes through, in words."""
        retry, breaker = self.retry, self.breaker
        lines = [
            f"1. deadline: {_said(self.deadline, 'none')}",
            f"2. retry: {_attempts(retry)}, {_waits(retry)}" if retry else "2. retry: off",
            f"3. circuit: opens at {breaker.failure_rate:.0%} failures of {breaker.minimum_calls} or more calls in "
            f"{breaker.window} s, or {breaker.consecutive} hard failures in a row; first for {breaker.open_for} s"
            if breaker
            else "3. circuit: off",
            f"4. attempt timeout: {_said(self.timeout, 'none')}",
            "5. the call",
        ]
        return "\n".join(lines)


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


def _share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InvalidPolicy(f"{name} is above 0 and up to 1, not {value!r}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidPolicy(f"{name} is a whole number from {least} to {most}, not {value!r}")
