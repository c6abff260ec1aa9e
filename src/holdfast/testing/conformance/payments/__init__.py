"""How a payment provider must behave, as promises that are tried on any of them with a simulator of its vendor."""

from holdfast.testing.conformance.payments.promise import Broken, Finding, Promise
from holdfast.testing.conformance.payments.suite import PaymentConformance, examine

__all__ = ["Broken", "Finding", "PaymentConformance", "Promise", "examine"]
