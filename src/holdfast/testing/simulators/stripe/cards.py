"""Stripe's test cards: what each number does when it is charged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Decline:
    """What the bank says when it says no."""

    code: str
    message: str
    decline_code: str = ""

    def to_json(self) -> dict[str, str]:
        """As part of an error, or of a `last_payment_error`."""
        described = {
            "type": "card_error",
            "code": self.code,
            "message": self.message,
            "decline_code": self.decline_code,
        }
        return {name: value for name, value in described.items() if value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card by what becomes of its payments."""

    number: str
    brand: str = "visa"
    decline: Decline | None = None
    challenged: bool = False
    """The bank asks the payer (3-D Secure) before it says yes."""
    disputed: bool = False
    refund_status: str = "succeeded"


GENERIC: Final = Decline(code="card_declined", message="Your card was declined.", decline_code="generic_decline")
DECLINES: Final[Mapping[str, Decline]] = {
    "generic_decline": GENERIC,
    "insufficient_funds": Decline(
        code="card_declined", message="Your card has insufficient funds.", decline_code="insufficient_funds"
    ),
    "lost_card": Decline(code="card_declined", message="Your card was declined.", decline_code="lost_card"),
    "expired_card": Decline(code="expired_card", message="Your card has expired.", decline_code="expired_card"),
    "incorrect_cvc": Decline(
        code="incorrect_cvc", message="Your card's security code is incorrect.", decline_code="incorrect_cvc"
    ),
    "processing_error": Decline(
        code="processing_error",
        message="An error occurred while processing your card. Try again in a little bit.",
        decline_code="processing_error",
    ),
    "authentication_required": Decline(
        code="authentication_required",
        message="Your card was declined. This transaction requires authentication.",
        decline_code="authentication_required",
    ),
}
"""By decline code."""

AUTHENTICATION_FAILED: Final = Decline(
    code="payment_intent_authentication_failure",
    message="The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
    "PaymentMethod to attempt to fulfill this PaymentIntent again.",
)

_CARDS = (
    Card(number="4242424242424242"),
    Card(number="5555555555554444", brand="mastercard"),
    Card(number="378282246310005", brand="amex"),
    Card(number="4000000000000077"),
    Card(number="4000000000000002", decline=GENERIC),
    Card(number="4000000000009995", decline=DECLINES["insufficient_funds"]),
    Card(number="4000000000009987", decline=DECLINES["lost_card"]),
    Card(number="4000000000000069", decline=DECLINES["expired_card"]),
    Card(number="4000000000000127", decline=DECLINES["incorrect_cvc"]),
    Card(number="4000000000000119", decline=DECLINES["processing_error"]),
    Card(number="4000000000003220", challenged=True),
    Card(number="4000002760003184", challenged=True),
    Card(number="4000008400001629", challenged=True, decline=GENERIC),
    Card(number="4000000000000259", disputed=True),
    Card(number="4000000000007726", refund_status="pending"),
    Card(number="4000000000005126", refund_status="failed"),
)
CARDS: Final[Mapping[str, Card]] = {card.number: card for card in _CARDS}
"""By number. https://docs.stripe.com/testing"""

NAMED: Final[Mapping[str, str]] = {
    "visa": "4242424242424242",
    "mastercard": "5555555555554444",
    "amex": "378282246310005",
    "bypassPending": "4000000000000077",
    "chargeDeclined": "4000000000000002",
    "visa_chargeDeclined": "4000000000000002",
    "chargeDeclinedInsufficientFunds": "4000000000009995",
    "visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "visa_chargeDeclinedLostCard": "4000000000009987",
    "chargeDeclinedExpiredCard": "4000000000000069",
    "chargeDeclinedIncorrectCvc": "4000000000000127",
    "chargeDeclinedProcessingError": "4000000000000119",
    "threeDSecure2Required": "4000000000003220",
    "authenticationRequired": "4000002760003184",
    "authenticationRequiredChargeDeclinedInsufficientFunds": "4000008400001629",
    "createDispute": "4000000000000259",
    "pendingRefund": "4000000000007726",
    "refundFail": "4000000000005126",
}
"""Numbers by what follows `pm_card_`, or `tok_`, in the names Stripe gives them."""


def named_card(name: str) -> Card | None:
    """The card of `pm_card_visa`, `tok_visa` and the like."""
    number = NAMED.get(name.removeprefix("pm_card_").removeprefix("tok_"))
    return CARDS[number] if number else None
