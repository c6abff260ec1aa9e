"""Stripe: cards, and whatever else an account has switched on, paid on Stripe's own page or in a form of yours."""

from holdfast.providers.stripe.intents import StripeIntents
from holdfast.providers.stripe.provider import Stripe

__all__ = ["Stripe", "StripeIntents"]
