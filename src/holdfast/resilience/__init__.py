"""Resilience for any call: it knows no HTTP, no vendor, no store."""

from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState
from holdfast.resilience.cache import AnswerCache, CacheSnapshot, SharedAnswer, SharedAnswers
from holdfast.resilience.classify import Classify, classify
from holdfast.resilience.context import deadline_scope, priority, remaining
from holdfast.resilience.decide import Again, Circumstances, Next, Raise, Resolve, decide
from holdfast.resilience.fleet import Fleet
from holdfast.resilience.group import never_shut, share
from holdfast.resilience.guard import Guard, GuardSnapshot
from holdfast.resilience.limits import ConcurrencySnapshot, RateSnapshot
from holdfast.resilience.metrics import OperationSnapshot
from holdfast.resilience.policy import (
    Breaker,
    Budget,
    Cache,
    Concurrency,
    Hedge,
    Policy,
    Priority,
    Rate,
    Retry,
)
from holdfast.resilience.protect import guard_of, protect
from holdfast.resilience.sync import SyncGuard, attempt_timeout

__all__ = [
    "Again",
    "AnswerCache",
    "Breaker",
    "Budget",
    "Cache",
    "CacheSnapshot",
    "Circuit",
    "CircuitSnapshot",
    "CircuitState",
    "Circumstances",
    "Classify",
    "Concurrency",
    "ConcurrencySnapshot",
    "Fleet",
    "Guard",
    "GuardSnapshot",
    "Hedge",
    "Next",
    "OperationSnapshot",
    "Policy",
    "Priority",
    "Raise",
    "Rate",
    "RateSnapshot",
    "Resolve",
    "Retry",
    "SharedAnswer",
    "SharedAnswers",
    "SyncGuard",
    "attempt_timeout",
    "classify",
    "deadline_scope",
    "decide",
    "guard_of",
    "never_shut",
    "priority",
    "protect",
    "remaining",
    "share",
]
