"""A protected client has the type it had."""

from typing import assert_type

import requests
import stripe
from slack_sdk import WebClient
from slack_sdk.web.async_client import AsyncWebClient

from holdfast import Effect, Guard, Policy
from holdfast.resilience.protect import guard_of, protect


async def protected() -> None:
    shop = protect(stripe.StripeClient("sk_test_4711"), "stripe", Policy(deadline=5))
    assert_type(shop, stripe.StripeClient)
    assert_type(await shop.v1.payment_intents.retrieve_async("pi_1"), stripe.PaymentIntent)
    assert_type(protect(WebClient("xoxb-4711", retry_handlers=[]), "slack"), WebClient)
    assert_type(
        protect(AsyncWebClient("xoxb-4711", retry_handlers=[]), "slack", effects={"reactions.add": Effect.IDEMPOTENT}),
        AsyncWebClient,
    )
    with protect(requests.Session(), "crm") as session:
        assert_type(session.get("https://crm.example"), requests.Response)
    assert_type(guard_of(shop), Guard)
