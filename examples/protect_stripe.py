"""Stripe's own client in a guard: a lost answer is asked for again with the same key, a declined card is final."""

import requests
import stripe

from examples.unreliable import LOST, vendor
from holdfast import Policy
from holdfast.resilience.protect import protect


def main() -> None:
    """Charge once though the first answer is lost; then see a card declined."""
    paid = {"id": "pi_1", "object": "payment_intent", "status": "succeeded"}
    declined = {"error": {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}}
    with vendor(LOST, (200, paid), (402, declined)) as (url, seen), requests.Session() as session:
        client = stripe.StripeClient(
            "sk_test_example", base_addresses={"api": url}, http_client=stripe.RequestsClient(session=session)
        )
        shop = protect(client, "stripe", Policy(deadline=10))

        intent = shop.v1.payment_intents.create({"amount": 12000, "currency": "chf"})
        print(intent.status, "after", len(seen), "requests with", len({key for _, key in seen}), "key")

        try:
            shop.v1.payment_intents.create({"amount": 12000, "currency": "chf"})
        except stripe.CardError as error:  # as ever; it is holdfast's Rejected too
            print(type(error).__name__, error.user_message)


if __name__ == "__main__":
    main()
