"""PayPal: orders that the payer approves at PayPal and we capture."""

from holdfast.providers.paypal.provider import PayPal
from holdfast.providers.paypal.signatures import LocalVerification

__all__ = ["LocalVerification", "PayPal"]
