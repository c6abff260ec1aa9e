"""Stripe's SDK, used as its documentation says; only its base address is set."""

import asyncio
import json
import sys

import stripe


def client(given, **options):
    return stripe.StripeClient(given["api_key"], base_addresses={"api": given["url"]}, **options)


def caught(call):
    """What the error says."""
    try:
        call()
    except stripe.StripeError as error:
        about = error.error.to_dict() if error.error else {}
        return {
            "class": type(error).__name__,
            "status": error.http_status,
            "code": error.code,
            "decline_code": about.get("decline_code"),
            "param": about.get("param"),
            "message": error.user_message,
            "has_request_id": (error.request_id or "").startswith("req_"),
        }
    return None


def calls(given):
    api = client(given).v1
    session = api.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.test/thanks",
            "client_reference_id": "order-1",
            "line_items": [
                {
                    "quantity": 2,
                    "price_data": {"currency": "chf", "unit_amount": 6000, "product_data": {"name": "Consultation"}},
                }
            ],
            "payment_intent_data": {"metadata": {"doctor": "Grace"}},
        }
    )
    for number in range(5):
        api.customers.create({"email": f"{number}@example.com", "metadata": {"6735": "a"}})
    key = {"idempotency_key": "order-2"}
    wanted = {"amount": 1000, "currency": "usd", "metadata": {"order_id": "order-2"}, "capture_method": "manual"}
    first, again = (api.payment_intents.create(wanted, key) for _ in range(2))
    here = {"return_url": "https://shop.test/thanks"}
    declined = caught(
        lambda: api.payment_intents.confirm(first.id, {"payment_method": "pm_card_chargeDeclined", **here})
    )
    authorized = api.payment_intents.confirm(first.id, {"payment_method": "pm_card_visa", **here})
    captured = api.payment_intents.capture(
        first.id, {"amount_to_capture": 800, "expand": ["latest_charge.balance_transaction"]}
    )
    refund = api.refunds.create({"payment_intent": first.id, "amount": 300})
    return {
        "session": [session.id, session.url, session.amount_total, session.status],
        "read": api.checkout.sessions.retrieve(session.id, {"expand": ["line_items"]}).line_items.data[0].description,
        "same": first.id == again.id,
        "replayed": again.last_response.headers["Idempotent-Replayed"],
        "statuses": [first.status, authorized.status, captured.status, refund.status],
        "net": captured.latest_charge.balance_transaction.net,
        "declined": declined,
        "other_parameters": caught(lambda: api.payment_intents.create({**wanted, "amount": 2000}, key)),
        "missing": caught(lambda: api.payment_intents.retrieve("pi_none")),
        "unknown": caught(lambda: api.payment_intents.create({**wanted, "amont": 1})),
        "too_much": caught(lambda: api.refunds.create({"payment_intent": first.id, "amount": 501})),
        "wrong_key": caught(lambda: client({**given, "api_key": "sk_test_wrong"}).v1.balance.retrieve()),
        "customers": [one.email for one in api.customers.list({"limit": 2}).auto_paging_iter()],
        "metadata": api.customers.list({"limit": 1}).data[0].metadata.to_dict(),
        "backwards": [
            one.email
            for one in api.customers.list(
                {"limit": 2, "ending_before": api.customers.list().data[-1].id}
            ).auto_paging_iter()
        ],
        "found": [one.id for one in api.payment_intents.search({"query": "metadata['order_id']:'order-2'"}).data]
        == [first.id],
        "events": [one.type for one in api.events.list({"type": "payment_intent.*"}).auto_paging_iter()],
        "pending": api.balance.retrieve().pending[0].to_dict(),
    }


def older(given):
    """A charge of a token, as the module made it before there were intents; and a card that is kept for later."""
    stripe.api_key, stripe.api_base = given["api_key"], given["url"]
    token = {"amount": 1000, "currency": "usd", "source": "tok_visa", "metadata": {"order_id": "order-4"}}
    charges = [stripe.Charge.create(**token, idempotency_key="order-4") for _ in range(2)]
    customer = stripe.Customer.create(email="kept@example.com")
    card = {"payment_method": "pm_card_visa", "payment_method_types": ["card"]}
    setup = stripe.SetupIntent.create(customer=customer.id, confirm=True, **card)
    asked = stripe.SetupIntent.create(payment_method_types=["card"])
    return {
        "charges": [charges[0].id == charges[1].id, charges[0].status, charges[0].source.last4],
        "given_back": stripe.Refund.create(charge=charges[0].id).status,
        "declined": caught(lambda: stripe.Charge.create(**{**token, "source": "tok_chargeDeclined"}))["code"],
        "setup": [setup.status, stripe.SetupIntent.retrieve(setup.id).payment_method == setup.payment_method],
        "kept": [one.id for one in stripe.PaymentMethod.list(customer=customer.id).data] == [setup.payment_method],
        "asked": stripe.SetupIntent.confirm(
            asked.id, payment_method="pm_card_threeDSecure2Required", return_url="https://shop.test"
        ).next_action.type,
        "canceled": stripe.SetupIntent.cancel(asked.id).status,
        "refused": caught(
            lambda: stripe.SetupIntent.create(confirm=True, **{**card, "payment_method": "pm_card_chargeDeclined"})
        )["class"],
    }


def global_style(given):
    """The module as the client, and the asynchronous transport."""
    stripe.api_key, stripe.api_base = given["api_key"], given["url"]
    stripe.default_http_client = stripe.HTTPXClient()

    async def both():
        made = await stripe.Customer.create_async(email="async@example.com")
        return [made.email, (await stripe.Customer.retrieve_async(made.id)).id == made.id]

    return asyncio.run(both())


def limited(given):
    """Calls until Stripe says that it is enough."""
    for number in range(100):
        if error := caught(lambda: client(given).v1.balance.retrieve()):
            return {"after": number, **error}
    return None


def lost_answer(given):
    """The SDK itself tries again, with the key it made up."""
    intent = client(given, max_network_retries=2).v1.payment_intents.create(
        {
            "amount": 1000,
            "currency": "usd",
            "metadata": {"order_id": "order-3"},
            "payment_method": "pm_card_visa",
            "payment_method_types": ["card"],
            "confirm": True,
        }
    )
    return {"status": intent.status, "replayed": intent.last_response.headers.get("Idempotent-Replayed")}


def validate(given):
    """Which webhooks the official validator lets through."""
    found = []
    for header, body, secret in given["webhooks"]:
        try:
            found.append(stripe.Webhook.construct_event(body, header, secret).type)
        except stripe.SignatureVerificationError:
            found.append(None)
    return found


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](json.load(sys.stdin))))
