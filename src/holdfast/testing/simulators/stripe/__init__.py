"""Stripe, simulated: payment intents, payment pages, cards that decline, refunds, disputes, and their events."""

from holdfast.testing.simulators.stripe.api import Limits
from holdfast.testing.simulators.stripe.simulator import StripeSimulator

__all__ = ["Limits", "StripeSimulator"]
