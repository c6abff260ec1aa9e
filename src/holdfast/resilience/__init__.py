"""Resilience for any async call: it knows no HTTP, no vendor, no store."""

from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState
from holdfast.resilience.decide import Again, Circumstances, Next, Raise, Resolve, decide
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy, Retry

__all__ = [
    "Again",
    "Breaker",
    "Circuit",
    "CircuitSnapshot",
    "CircuitState",
    "Circumstances",
    "Guard",
    "Next",
    "Policy",
    "Raise",
    "Resolve",
    "Retry",
    "decide",
]
