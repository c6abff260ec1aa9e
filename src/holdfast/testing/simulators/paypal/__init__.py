"""PayPal, simulated: orders that wait for our capture, signed deliveries, a sandbox account."""

from holdfast.testing.simulators.paypal.simulator import PayPalSimulator

__all__ = ["PayPalSimulator"]
