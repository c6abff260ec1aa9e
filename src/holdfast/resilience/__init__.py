"""Resilience for any async call: it knows no HTTP, no vendor, no store."""

from holdfast.resilience.breaker import Circuit, CircuitSnapshot, CircuitState
from holdfast.resilience.decide import decide
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy, Retry

__all__ = ["Breaker", "Circuit", "CircuitSnapshot", "CircuitState", "Guard", "Policy", "Retry", "decide"]
