"""Stripe: cards, and whatever else an account has switched on, paid on Stripe's own page (Checkout Sessions)."""

from holdfast.providers.stripe.provider import Stripe

__all__ = ["Stripe"]
