"""Stripe's simulator: what it charges once, what it refuses, what it says about it to whom."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Latency, Reset, Status
from holdfast.testing.intents import charge, offer
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.simulator import Headers, Request, Response
from holdfast.testing.simulators.stripe import Limits, StripeSimulator
from holdfast.testing.simulators.webhooks import WebhookSimulator
from holdfast.values import Money

FIXTURES = Path(__file__).parents[3] / "shared" / "specs" / "payments" / "stripe" / "fixtures3.json"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = 86_400
INTENT = {"amount": 1000, "currency": "usd", "metadata[reference]": "o1", "payment_method_types[]": "card"}
PAID = INTENT | {"confirm": "true", "payment_method": "pm_card_visa"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def stripe(clock: ManualClock) -> StripeSimulator:
    return StripeSimulator(seed=7, clock=clock, limits=Limits(calls=0), webhook_url="https://shop.test/stripe")


Form = dict[str, Any]


def request(stripe: StripeSimulator, method: str, path: str, form: Form | None = None, **more: str) -> Request:
    headers = {"authorization": f"Bearer {stripe.api_key}", "content-type": "application/x-www-form-urlencoded"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    body = urlencode(form or {}).encode()
    return Request(method=method, target=f"/v1/{path}", headers=tuple(headers.items()), body=body)


def say(stripe: StripeSimulator, method: str, path: str, form: Form | None = None, **more: str) -> Response:
    return stripe.handle(request(stripe, method, path, form, **more))


def post(stripe: StripeSimulator, path: str, form: Form | None = None, **more: str) -> Any:
    return json.loads(say(stripe, "POST", path, form, **more).body)


def get(stripe: StripeSimulator, path: str, **more: str) -> Any:
    return json.loads(say(stripe, "GET", path, None, **more).body)


def page(stripe: StripeSimulator, **more: Any) -> Any:
    line = {"price_data[currency]": "chf", "price_data[unit_amount]": 5000, "price_data[product_data][name]": "Lesson"}
    form = {f"line_items[0][{name.replace('[', '][', 1) if '[' in name else name + ']'}": v for name, v in line.items()}
    form |= {"mode": "payment", "success_url": "https://shop.test", "client_reference_id": "o1"}
    return post(stripe, "checkout/sessions", form | more)


def events(stripe: StripeSimulator) -> list[str]:
    return [webhook.event for webhook in stripe.outbox]


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulator("stripe") is StripeSimulator


# Idempotency


def test_the_same_key_and_parameters_are_one_payment(stripe: StripeSimulator) -> None:
    first = say(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")
    again = say(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")

    assert again.body == first.body
    headers = [dict(answer.headers) for answer in (first, again)]
    assert headers[1]["idempotent-replayed"] == "true"
    assert headers[1]["original-request"] == headers[0]["request-id"] != headers[1]["request-id"]
    assert headers[1]["idempotency-key"] == "k1"
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


@pytest.mark.parametrize(
    ("path", "form", "words"),
    [
        ("payment_intents", PAID | {"amount": 999}, "with the same parameters"),
        ("customers", {}, "for the same endpoint"),
    ],
)
def test_a_key_is_for_one_request_only(stripe: StripeSimulator, path: str, form: dict[str, Any], words: str) -> None:
    say(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")

    answer = say(stripe, "POST", path, form, idempotency_key="k1")

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"], words in error["message"]) == (400, "idempotency_error", True)
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


async def test_a_key_in_flight_is_in_use_until_its_answer_is_out(stripe: StripeSimulator, clock: ManualClock) -> None:
    # given
    stripe.faults.on("stripe", "payments.create").script(Latency(3, 3))
    asked = request(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")

    # when
    first = stripe.exchange(asked)
    during = stripe.exchange(asked)
    await clock.advance(3)
    after = stripe.exchange(asked)

    # then
    assert first.response
    assert during.response
    assert after.response
    assert (first.delay, during.response.status) == (3, 409)
    assert json.loads(during.response.body)["error"]["code"] == "idempotency_key_in_use"
    assert after.response.body == first.response.body


async def test_a_key_is_pruned_after_a_day(stripe: StripeSimulator, clock: ManualClock) -> None:
    first = post(stripe, "payment_intents", INTENT, idempotency_key="k1")
    await clock.advance(DAY)
    assert post(stripe, "payment_intents", INTENT, idempotency_key="k1")["id"] != first["id"]


def test_what_was_refused_before_it_began_leaves_the_key_free(stripe: StripeSimulator) -> None:
    assert say(stripe, "POST", "payment_intents", {"amount": 10}, idempotency_key="k1").status == 400
    assert say(stripe, "POST", "payment_intents", PAID, idempotency_key="k1").status == 200


def test_a_decline_is_replayed(stripe: StripeSimulator) -> None:
    declined = PAID | {"payment_method": "pm_card_chargeDeclined"}
    answers = [say(stripe, "POST", "payment_intents", declined, idempotency_key="k1") for _ in range(2)]
    assert [answer.status for answer in answers] == [402, 402]
    assert len([one for one in stripe.resources.values() if one["object"] == "charge"]) == 1


def test_a_failure_after_the_effect_is_what_the_key_answers_for_ever(stripe: StripeSimulator) -> None:
    # given
    after = Status(500, stage=Reset().stage)
    stripe.faults.on("stripe", "payments.create").script(after)
    asked = request(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")

    # when
    answers = [stripe.exchange(asked).response for _ in range(2)]

    # then
    assert [answer.status for answer in answers if answer] == [500, 500]
    assert [dict(answer.headers)["stripe-should-retry"] for answer in answers if answer] == ["false", "false"]
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


def test_a_failure_before_the_effect_leaves_the_key_free(stripe: StripeSimulator) -> None:
    stripe.faults.on("stripe", "payments.create").script(Status(503))
    asked = request(stripe, "POST", "payment_intents", PAID, idempotency_key="k1")
    answers = [stripe.exchange(asked).response for _ in range(2)]
    assert [answer.status for answer in answers if answer] == [503, 200]


def test_a_key_longer_than_255_characters_is_refused(stripe: StripeSimulator) -> None:
    assert say(stripe, "POST", "customers", {}, idempotency_key="k" * 256).status == 400


# Refusals


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({"amount": "1.5", "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": "1000"}, "parameter_missing", "currency"),
        ({"amount": 49, "currency": "usd"}, "amount_too_small", "amount"),
        ({"amount": 100_000_000, "currency": "usd"}, "amount_too_large", "amount"),
        ({"amount": 1000, "currency": "xxq"}, None, "currency"),
        ({"amount": 1001, "currency": "kwd"}, None, "amount"),
        ({"amount": 1050, "currency": "ugx"}, None, "amount"),
        ({"amount": 1000, "currency": "usd", "amont": 1}, "parameter_unknown", "amont"),
        ({"amount": 1000, "currency": "usd", "customer": "cus_none"}, "resource_missing", "customer"),
        ({"amount": 1000, "currency": "usd", "payment_method": "pm_none"}, "resource_missing", "payment_method"),
        (INTENT | {"metadata[a]": "x" * 501}, None, "metadata[a]"),
        ({"amount": 1000, "currency": "usd", "confirm": "true"}, "payment_intent_unexpected_state", None),
    ],
)
def test_a_wrong_intent_is_refused_and_nothing_is_made(
    stripe: StripeSimulator, form: dict[str, Any], code: str | None, param: str | None
) -> None:
    answer = say(stripe, "POST", "payment_intents", form)

    error = json.loads(answer.body)["error"]
    assert (answer.status in (400, 404), error.get("code"), error.get("param")) == (True, code, param)
    assert (len(stripe.ledger), events(stripe)) == (0, [])


def test_a_new_version_wants_a_return_url_and_an_old_one_does_not(stripe: StripeSimulator) -> None:
    form = {"amount": 1000, "currency": "usd", "confirm": "true", "payment_method": "pm_card_visa"}

    assert "return_url" in post(stripe, "payment_intents", form)["error"]["message"]
    paid = post(stripe, "payment_intents", form, stripe_version="2022-08-01")
    assert paid["charges"]["data"][0]["status"] == "succeeded"
    assert "latest_charge" not in paid


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer sk_test_of_somebody_else"}, 401),
        ({"stripe_version": "tomorrow"}, 400),
    ],
)
def test_a_call_without_the_key_or_of_no_version_is_refused(
    stripe: StripeSimulator, headers: dict[str, str], status: int
) -> None:
    answer = say(stripe, "GET", "balance", None, **headers)
    assert answer.status == status
    assert dict(answer.headers)["request-id"].startswith("req_")
    assert stripe.api_key not in answer.body.decode()


async def test_so_many_a_second_and_not_one_more(clock: ManualClock) -> None:
    stripe = StripeSimulator(clock=clock, limits=Limits(calls=25))

    statuses = [say(stripe, "GET", "balance").status for _ in range(26)]
    await clock.advance(0.999)
    statuses.append(say(stripe, "GET", "balance").status)
    await clock.advance(0.001)
    statuses.append(say(stripe, "GET", "balance").status)

    assert statuses == [200] * 25 + [429, 429, 200]


def test_a_path_there_is_not_is_named(stripe: StripeSimulator) -> None:
    answer = say(stripe, "GET", "nonsense")
    assert (answer.status, b"Unrecognized request URL (GET: /v1/nonsense)" in answer.body) == (404, True)


# Lists and expansions


def test_pages_follow_one_another_in_both_directions(stripe: StripeSimulator) -> None:
    ids = [post(stripe, "customers")["id"] for _ in range(5)][::-1]

    def listed(query: str) -> tuple[list[str], bool]:
        found = get(stripe, f"customers?{query}")
        return [one["id"] for one in found["data"]], found["has_more"]

    assert listed("limit=2") == (ids[:2], True)
    assert listed(f"limit=2&starting_after={ids[1]}") == (ids[2:4], True)
    assert listed(f"limit=2&starting_after={ids[3]}") == (ids[4:], False)
    assert listed(f"limit=2&ending_before={ids[4]}") == (ids[2:4], True)
    assert listed(f"created[gte]={int(NOW.timestamp()) + 1}") == ([], False)
    assert get(stripe, "customers?starting_after=cus_none")["error"]["code"] == "resource_missing"
    assert "100" in get(stripe, "customers?limit=101")["error"]["message"]


def test_what_is_expanded_is_whole_and_the_rest_an_id(stripe: StripeSimulator) -> None:
    id = post(stripe, "payment_intents", PAID)["id"]

    found = get(stripe, f"payment_intents/{id}?expand[]=latest_charge.balance_transaction")
    listed = get(stripe, "payment_intents?expand[]=data.latest_charge")

    assert found["latest_charge"]["balance_transaction"]["net"] == 1000 - 29 - 30
    assert listed["data"][0]["latest_charge"]["balance_transaction"].startswith("txn_")
    assert "cannot be expanded" in get(stripe, f"payment_intents/{id}?expand[]=amount")["error"]["message"]


async def test_a_search_finds_what_is_old_enough(stripe: StripeSimulator, clock: ManualClock) -> None:
    post(stripe, "payment_intents", INTENT)
    query = urlencode({"query": "metadata['reference']:'o1' AND amount>999"})

    early = get(stripe, f"payment_intents/search?{query}")["data"]
    await clock.advance(60)

    assert (len(early), len(get(stripe, f"payment_intents/search?{query}")["data"])) == (0, 1)
    assert get(stripe, "payment_intents/search?query=nonsense")["error"]["param"] == "query"


def test_metadata_is_merged_and_emptied(stripe: StripeSimulator) -> None:
    id = post(stripe, "customers", {"metadata[a]": "1", "metadata[b]": "2"})["id"]
    assert post(stripe, f"customers/{id}", {"metadata[a]": "", "metadata[c]": "3"})["metadata"] == {"b": "2", "c": "3"}
    assert post(stripe, f"customers/{id}", {"metadata": ""})["metadata"] == {}


# Payments


def test_a_payment_on_a_page_completes_it(stripe: StripeSimulator) -> None:
    session = page(stripe, **{"payment_intent_data[metadata][a]": "b"})

    stripe.pay(session["url"])

    found = get(stripe, f"checkout/sessions/{session['id']}?expand[]=payment_intent")
    assert (found["status"], found["payment_status"], found["url"]) == ("complete", "paid", None)
    assert (found["payment_intent"]["amount_received"], found["payment_intent"]["metadata"]) == (5000, {"a": "b"})
    assert stripe.ledger.exactly_once(offer(reference="o1")).money == Money("50.00", "CHF")
    assert stripe.ledger.exactly_once(charge(reference="o1")).money == Money("50.00", "CHF")
    assert events(stripe)[-2:] == ["payment_intent.succeeded", "checkout.session.completed"]
    with pytest.raises(LookupError, match="complete"):
        stripe.pay(session["url"])


def test_a_payer_sees_the_page_without_a_key(stripe: StripeSimulator) -> None:
    session = page(stripe)
    answer = stripe.handle(Request(method="GET", target=f"/c/pay/{session['id']}"))
    assert (answer.status, b"50.00 CHF: open" in answer.body) == (200, True)


def test_a_declined_payer_may_try_again_on_the_same_page(stripe: StripeSimulator) -> None:
    session = page(stripe)

    stripe.decline(session["id"], "insufficient_funds")
    stripe.pay(session["id"])

    charges = get(stripe, "charges")["data"]
    assert [charge["status"] for charge in charges] == ["succeeded", "failed"]
    assert charges[1]["outcome"]["reason"] == "insufficient_funds"
    assert len({charge["payment_intent"] for charge in charges}) == 1
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


@pytest.mark.parametrize(("succeeds", "status"), [(True, "succeeded"), (False, "requires_payment_method")])
def test_a_challenged_payer_answers_the_bank(stripe: StripeSimulator, succeeds: bool, status: str) -> None:
    intent = post(stripe, "payment_intents", INTENT)
    stripe.pay_with(intent["client_secret"], "4000000000003220")
    challenged = get(stripe, f"payment_intents/{intent['id']}")

    stripe.authenticate(intent["id"], succeeds=succeeds)

    found = get(stripe, f"payment_intents/{intent['id']}")
    assert (challenged["status"], challenged["next_action"]["type"]) == ("requires_action", "use_stripe_sdk")
    assert (found["status"], found["next_action"]) == (status, None)
    with pytest.raises(LookupError):
        stripe.authenticate(intent["id"])


def test_a_challenge_sends_the_payer_to_the_bank_and_back(stripe: StripeSimulator) -> None:
    form = PAID | {"payment_method": "pm_card_threeDSecure2Required", "return_url": "https://shop.test/back"}

    challenged = post(stripe, "payment_intents", form)
    stripe.authenticate(challenged["id"])

    assert challenged["status"] == "requires_action"
    assert challenged["next_action"]["redirect_to_url"]["return_url"] == "https://shop.test/back"
    assert stripe.ledger.exactly_once(charge(reference="o1")).money == Money("10.00", "USD")


def test_a_card_may_be_declined_after_the_challenge(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", INTENT)["id"]
    stripe.pay_with(intent, "4000008400001629")
    stripe.authenticate(intent)
    assert get(stripe, f"payment_intents/{intent}")["last_payment_error"]["decline_code"] == "generic_decline"


def test_a_challenge_nobody_can_answer_is_a_decline(stripe: StripeSimulator) -> None:
    form = PAID | {"payment_method": "pm_card_authenticationRequired", "off_session": "true"}
    assert post(stripe, "payment_intents", form)["error"]["code"] == "authentication_required"


async def test_a_page_expires_and_takes_its_intent_with_it(stripe: StripeSimulator, clock: ManualClock) -> None:
    # given
    session = page(stripe, expires_at=int(NOW.timestamp()) + 1800)
    stripe.decline(session["id"])

    # when
    await clock.advance(1800)
    stripe.tick()

    # then
    assert get(stripe, f"checkout/sessions/{session['id']}")["status"] == "expired"
    assert events(stripe)[-2:] == ["payment_intent.canceled", "checkout.session.expired"]
    with pytest.raises(LookupError, match="expired"):
        stripe.pay(session["id"])
    assert say(stripe, "POST", f"checkout/sessions/{session['id']}/expire").status == 400


def test_a_page_asked_to_expire_cannot_be_paid(stripe: StripeSimulator) -> None:
    session = page(stripe)
    assert post(stripe, f"checkout/sessions/{session['id']}/expire")["status"] == "expired"
    with pytest.raises(LookupError):
        stripe.pay(session["id"])


@pytest.mark.parametrize(("succeeds", "payment_status"), [(True, "paid"), (False, "unpaid")])
def test_a_bank_debit_is_complete_long_before_it_is_paid(
    stripe: StripeSimulator, succeeds: bool, payment_status: str
) -> None:
    session = page(stripe)

    stripe.pay_later(session["id"])
    before = get(stripe, f"checkout/sessions/{session['id']}")
    stripe.settle(session["id"], succeeds=succeeds)

    after = get(stripe, f"checkout/sessions/{session['id']}")
    assert (before["status"], before["payment_status"]) == ("complete", "unpaid")
    assert after["payment_status"] == payment_status
    assert events(stripe)[-1].startswith("checkout.session.async_payment_")
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == succeeds


def test_a_part_is_captured_and_the_rest_given_free(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", PAID | {"capture_method": "manual"})

    too_much = say(stripe, "POST", f"payment_intents/{intent['id']}/capture", {"amount_to_capture": 1001})
    captured = post(stripe, f"payment_intents/{intent['id']}/capture", {"amount_to_capture": 700})
    twice = say(stripe, "POST", f"payment_intents/{intent['id']}/capture")

    assert (intent["status"], intent["amount_capturable"]) == ("requires_capture", 1000)
    assert (too_much.status, twice.status) == (400, 400)
    assert (captured["status"], captured["amount_received"], captured["amount_capturable"]) == ("succeeded", 700, 0)
    assert stripe.ledger.captured("o1", "USD") == Money("7.00", "USD")


async def test_an_authorization_lives_for_a_week(stripe: StripeSimulator, clock: ManualClock) -> None:
    intent = post(stripe, "payment_intents", PAID | {"capture_method": "manual"})
    await clock.advance(7 * DAY)
    assert get(stripe, f"payment_intents/{intent['id']}")["status"] == "canceled"
    assert "charge.expired" in events(stripe)


@pytest.mark.parametrize(("form", "status"), [(INTENT, 200), (PAID, 400), (PAID | {"capture_method": "manual"}, 200)])
def test_canceling_revokes_what_is_not_paid(stripe: StripeSimulator, form: dict[str, Any], status: int) -> None:
    intent = post(stripe, "payment_intents", form)
    assert say(stripe, "POST", f"payment_intents/{intent['id']}/cancel").status == status


def test_refunds_never_exceed_what_was_captured(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", PAID)["id"]
    asked = {"payment_intent": intent, "amount": 600}

    answers = [say(stripe, "POST", "refunds", form) for form in (asked, asked, asked | {"amount": 400}, asked)]

    assert [answer.status for answer in answers] == [200, 400, 200, 400]
    assert json.loads(answers[-1].body)["error"]["code"] == "charge_already_refunded"
    assert stripe.ledger.captured("o1", "USD") == Money("0.00", "USD")
    assert get(stripe, "balance")["pending"][0]["amount"] == -59


def test_a_refund_may_fail_days_later(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", PAID | {"payment_method": "pm_card_pendingRefund"})["id"]
    refund = post(stripe, "refunds", {"payment_intent": intent})

    stripe.settle_refund(refund["id"], succeeds=False)

    assert (refund["status"], get(stripe, f"refunds/{refund['id']}")["status"]) == ("pending", "failed")
    assert stripe.ledger.captured("o1", "USD") == Money("10.00", "USD")
    assert events(stripe)[-1] == "refund.failed"


def test_a_dispute_takes_the_money_until_it_is_won(stripe: StripeSimulator) -> None:
    # given
    intent = post(stripe, "payment_intents", PAID | {"payment_method": "pm_card_createDispute"})["id"]
    [dispute] = get(stripe, f"disputes?payment_intent={intent}")["data"]

    # when
    refused = say(stripe, "POST", "refunds", {"payment_intent": intent})
    contested = post(stripe, f"disputes/{dispute['id']}", {"evidence[uncategorized_text]": "They were there."})
    stripe.close_dispute(dispute["id"], won=True)

    # then
    assert (refused.status, contested["status"]) == (400, "under_review")
    assert get(stripe, f"disputes/{dispute['id']}")["status"] == "won"
    assert [entry.money for entry in stripe.ledger.entries(Kind.DISPUTE, key="o1")] == [Money("10.00", "USD")]
    assert [kind for kind in events(stripe) if "dispute" in kind] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]


@pytest.mark.parametrize(
    ("currency", "amount", "money"),
    [
        ("jpy", 500, "500"),
        ("usd", 1234, "12.34"),
        ("kwd", 1230, "1.230"),
        ("mga", 1000, "1000"),
        ("ugx", 10_000, "100"),
    ],
)
def test_amounts_are_counted_as_stripe_counts_them(
    stripe: StripeSimulator, currency: str, amount: int, money: str
) -> None:
    post(stripe, "payment_intents", INTENT | {"amount": amount, "currency": currency})
    assert stripe.ledger.exactly_once(offer(reference="o1")).money == Money(money, currency.upper())


# Around a payment


def test_a_customer_is_found_changed_and_deleted(stripe: StripeSimulator) -> None:
    # given
    customer = post(stripe, "customers", {"email": "ann@example.com", "name": "Ann"})
    path = f"customers/{customer['id']}"
    post(stripe, "customers", {"email": "bob@example.com"})

    # then
    assert [one["name"] for one in get(stripe, "customers?email=ann@example.com")["data"]] == ["Ann"]
    assert post(stripe, path, {"name": ""})["name"] is None
    assert json.loads(say(stripe, "DELETE", path).body) == {"id": customer["id"], "object": "customer", "deleted": True}
    assert get(stripe, path)["deleted"]
    assert len(get(stripe, "customers")["data"]) == 1
    assert post(stripe, path, {"name": "Ann"})["error"]["code"] == "resource_missing"


def test_a_card_is_kept_with_its_customer(stripe: StripeSimulator) -> None:
    # given
    customer = post(stripe, "customers")["id"]
    card = post(stripe, "payment_methods", {"type": "card", "card[number]": "4242 4242 4242 4242"})["id"]

    # when
    attached = post(stripe, f"payment_methods/{card}/attach", {"customer": customer})
    paid = post(stripe, "payment_intents", PAID | {"payment_method": card, "customer": customer, "off_session": "true"})

    # then
    assert (attached["customer"], attached["card"]["last4"]) == (customer, "4242")
    assert (paid["status"], paid["payment_method"]) == ("succeeded", card)
    assert [one["id"] for one in get(stripe, f"payment_methods?customer={customer}")["data"]] == [card]
    assert [one["id"] for one in get(stripe, f"payment_intents?customer={customer}")["data"]] == [paid["id"]]
    assert post(stripe, f"payment_methods/{card}/detach")["customer"] is None


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"type": "card", "card[number]": "4242424242424241"}, 402),
        ({"type": "card", "card[token]": "tok_visa"}, 200),
        ({"type": "sepa_debit"}, 400),
    ],
)
def test_a_payment_method_is_a_card_with_a_true_number(stripe: StripeSimulator, form: Form, status: int) -> None:
    assert say(stripe, "POST", "payment_methods", form).status == status


def test_a_page_sells_what_has_a_price(stripe: StripeSimulator) -> None:
    # given
    product = post(stripe, "products", {"name": "Lesson"})["id"]
    price = post(stripe, "prices", {"product": product, "currency": "chf", "unit_amount": 5000})["id"]
    form = {"mode": "payment", "success_url": "https://shop.test", "line_items[0][price]": price}

    # when
    session = post(stripe, "checkout/sessions", form | {"line_items[0][quantity]": 3})

    # then
    items = get(stripe, f"checkout/sessions/{session['id']}/line_items")["data"]
    assert [(one["description"], one["quantity"], one["amount_total"]) for one in items] == [("Lesson", 3, 15_000)]
    assert (
        get(stripe, f"checkout/sessions/{session['id']}?expand[]=line_items")["line_items"]["data"][0]["quantity"] == 3
    )
    assert get(stripe, f"prices/{price}")["product"] == get(stripe, f"products/{product}")["id"]


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"mode": ""}, "mode"),
        ({"mode": "subscription"}, "mode"),
        ({"success_url": None}, "success_url"),
        ({"expires_at": "1"}, "expires_at"),
        ({"line_items[0][price]": "price_none"}, "line_items[0][price]"),
        ({"line_items[1][quantity]": 1}, "line_items[1][price]"),
        ({"line_items[0][price_data][unit_amount]": 49}, None),
    ],
)
def test_a_wrong_page_is_refused(stripe: StripeSimulator, form: Form, param: str | None) -> None:
    line = {"[currency]": "usd", "[unit_amount]": 5000, "[product_data][name]": "Lesson"}
    asked: Form = {f"line_items[0][price_data]{name}": value for name, value in line.items()}
    asked |= {"mode": "payment", "success_url": "https://shop.test"} | form

    answer = say(
        stripe, "POST", "checkout/sessions", {name: value for name, value in asked.items() if value is not None}
    )

    assert (answer.status in (400, 404), json.loads(answer.body)["error"].get("param")) == (True, param)
    assert len(stripe.ledger) == 0


def test_a_page_of_an_old_version_has_its_intent_from_the_start(stripe: StripeSimulator) -> None:
    line = {"[currency]": "usd", "[unit_amount]": 5000, "[product_data][name]": "Lesson"}
    form: Form = {f"line_items[0][price_data]{name}": value for name, value in line.items()}
    form |= {"mode": "payment", "success_url": "https://shop.test"}

    session = post(stripe, "checkout/sessions", form, stripe_version="2020-08-27")
    canceled = post(stripe, f"payment_intents/{session['payment_intent']}/cancel")

    assert "created by a Checkout Session" in canceled["error"]["message"]
    stripe.pay(session["payment_intent"])
    assert (
        get(stripe, f"checkout/sessions?payment_intent={session['payment_intent']}")["data"][0]["status"] == "complete"
    )


def test_what_is_not_paid_may_still_change(stripe: StripeSimulator) -> None:
    # given
    intent = post(stripe, "payment_intents", INTENT)["id"]
    session = page(stripe)["id"]

    # when
    changed = post(stripe, f"payment_intents/{intent}", {"amount": 2000, "payment_method": "pm_card_visa"})
    paid = post(stripe, f"payment_intents/{intent}/confirm")

    # then
    assert (changed["amount"], changed["status"], paid["amount_received"]) == (2000, "requires_confirmation", 2000)
    assert "status of succeeded" in post(stripe, f"payment_intents/{intent}", {"amount": 1})["error"]["message"]
    assert "status of succeeded" in post(stripe, f"payment_intents/{intent}/confirm")["error"]["message"]
    assert post(stripe, f"checkout/sessions/{session}", {"metadata[a]": "b"})["metadata"] == {"a": "b"}
    charge = paid["latest_charge"]
    assert post(stripe, f"charges/{charge}", {"description": "d"})["description"] == "d"
    assert post(stripe, f"charges/{charge}/capture")["error"]["code"] == "charge_already_captured"
    assert get(stripe, f"charges?payment_intent={intent}")["data"][0]["id"] == charge


def test_a_charge_is_captured_or_given_free_by_its_own_id(stripe: StripeSimulator) -> None:
    held = [post(stripe, "payment_intents", PAID | {"capture_method": "manual"})["latest_charge"] for _ in range(2)]

    captured = post(stripe, f"charges/{held[0]}/capture", {"amount": 400})
    released = post(stripe, "refunds", {"charge": held[1]})

    assert (captured["amount_captured"], captured["amount_refunded"]) == (400, 600)
    assert get(stripe, f"charges/{held[1]}")["refunded"]
    assert post(stripe, f"refunds/{released['id']}", {"metadata[a]": "b"})["metadata"] == {"a": "b"}
    assert stripe.ledger.captured("o1", "USD") == Money("4.00", "USD")


@pytest.mark.parametrize(
    "form", [{}, {"payment_intent": "pi_none"}, {"charge": "ch_none"}, {"charge": "$charge", "amount": 0}]
)
def test_a_wrong_refund_is_refused(stripe: StripeSimulator, form: Form) -> None:
    charge = post(stripe, "payment_intents", PAID)["latest_charge"]
    asked = {name: charge if value == "$charge" else value for name, value in form.items()}
    assert say(stripe, "POST", "refunds", asked).status in (400, 404)
    assert stripe.ledger.entries(Kind.REFUND) == []


def test_a_refund_that_the_bank_sends_back_is_the_merchants_again(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", PAID | {"payment_method": "pm_card_refundFail"})["id"]
    assert post(stripe, "refunds", {"payment_intent": intent})["status"] == "failed"
    assert stripe.ledger.captured("o1", "USD") == Money("10.00", "USD")


def test_a_dispute_given_in_to_is_lost(stripe: StripeSimulator) -> None:
    intent = post(stripe, "payment_intents", PAID)["id"]
    dispute = stripe.dispute(intent, amount=500, reason="duplicate")
    assert post(stripe, f"disputes/{dispute}/close")["status"] == "lost"
    assert get(stripe, f"balance_transactions?source={dispute}")["data"][0]["net"] == -500 - 1500
    with pytest.raises(LookupError):
        stripe.dispute(post(stripe, "payment_intents", INTENT)["id"])


async def test_money_is_available_after_two_days(stripe: StripeSimulator, clock: ManualClock) -> None:
    post(stripe, "payment_intents", PAID)
    await clock.advance(2 * DAY)
    balance = get(stripe, "balance")
    assert (balance["available"][0]["amount"], balance["pending"][0]["amount"]) == (941, 0)


@pytest.mark.parametrize("offer", ["pi_none", "https://checkout.test/c/pay/cs_none", ""])
def test_nobody_can_pay_what_there_is_not(stripe: StripeSimulator, offer: str) -> None:
    with pytest.raises(LookupError):
        stripe.pay(offer)


# Events


def test_an_endpoint_that_is_disabled_or_deleted_hears_nothing(stripe: StripeSimulator) -> None:
    # given
    stripe.webhook_url = ""
    paths = [
        f"webhook_endpoints/{post(stripe, 'webhook_endpoints', {'url': url, 'enabled_events[]': '*'})['id']}"
        for url in ("https://shop.test/1", "https://shop.test/2", "https://shop.test/3")
    ]

    # when
    post(stripe, paths[0], {"disabled": "true"})
    deleted = json.loads(say(stripe, "DELETE", paths[1]).body)
    post(stripe, paths[2], {"enabled_events[]": "customer.created", "url": "https://shop.test/4"})
    post(stripe, "payment_intents", INTENT)
    post(stripe, "customers")

    # then
    assert deleted["deleted"]
    assert [(webhook.url, webhook.event) for webhook in stripe.outbox] == [("https://shop.test/4", "customer.created")]
    assert len(get(stripe, "webhook_endpoints")["data"]) == 2


def test_a_key_may_be_the_user_of_basic_authorization(stripe: StripeSimulator) -> None:
    basic = base64.b64encode(f"{stripe.api_key}:".encode()).decode()
    assert say(stripe, "GET", "balance", None, authorization=f"Basic {basic}").status == 200
    assert say(stripe, "GET", "balance", None, authorization="Basic !").status == 401


@pytest.mark.parametrize(("status", "kind"), [(429, "invalid_request_error"), (500, "api_error")])
def test_a_planned_failure_has_stripes_shape(stripe: StripeSimulator, status: int, kind: str) -> None:
    stripe.faults.on("stripe").script(Status(status))
    answer = stripe.exchange(request(stripe, "GET", "balance")).response
    assert answer is not None
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (status, kind)
    assert dict(answer.headers)["request-id"].startswith("req_")


def test_an_endpoint_hears_what_it_wants_under_its_own_secret(stripe: StripeSimulator) -> None:
    # given
    stripe.webhook_url = ""
    form = {"url": "https://shop.test/own", "enabled_events[0]": "payment_intent.succeeded"}
    endpoint = post(stripe, "webhook_endpoints", form)

    # when
    post(stripe, "payment_intents", PAID)

    # then
    [webhook] = stripe.outbox
    assert (webhook.url, webhook.event, webhook.key) == ("https://shop.test/own", "payment_intent.succeeded", "o1")
    assert webhook.secret == endpoint["secret"] != stripe.webhook_secret
    assert webhook.secret not in repr(webhook)
    assert "secret" not in get(stripe, f"webhook_endpoints/{endpoint['id']}")


async def test_an_endpoint_is_sent_what_its_own_secret_signed(stripe: StripeSimulator) -> None:
    # given
    stripe.webhook_url = ""
    endpoint = post(stripe, "webhook_endpoints", {"url": "https://shop.test/own", "enabled_events[]": "*"})
    post(stripe, "customers")
    came: list[tuple[Headers, bytes]] = []

    async def take(url: str, headers: Headers, body: bytes) -> int:
        came.append((headers, body))
        return 200

    # when
    await WebhookSimulator([stripe], take, clock=stripe.clock).deliver()

    # then
    [(headers, body)] = came
    assert set(stripe.sign(body, secret=endpoint["secret"], at=NOW)) <= set(headers)


async def test_an_event_is_a_snapshot_and_kept_for_thirty_days(stripe: StripeSimulator, clock: ManualClock) -> None:
    post(stripe, "payment_intents", INTENT, idempotency_key="k1")
    told = json.loads(stripe.outbox[0].body)
    intent = told["data"]["object"]["id"]
    post(stripe, f"payment_intents/{intent}/cancel")

    kept = get(stripe, f"events/{told['id']}")
    await clock.advance(30 * DAY)

    assert kept["data"]["object"]["status"] == "requires_payment_method"
    assert kept["request"]["idempotency_key"] == "k1"
    assert get(stripe, f"events/{told['id']}")["error"]["code"] == "resource_missing"
    assert get(stripe, "events")["data"] == []


def test_a_lie_claims_a_payment_nobody_made(stripe: StripeSimulator) -> None:
    session = page(stripe)
    post(stripe, "payment_intents", INTENT)

    lie = stripe.untrue(stripe.outbox[-1])

    assert lie is not None
    told = json.loads(lie.body)
    assert told["data"]["object"]["payment_status"] == "paid"
    assert get(stripe, f"events/{told['id']}")["error"]["code"] == "resource_missing"
    assert get(stripe, f"checkout/sessions/{session['id']}")["payment_status"] == "unpaid"


def test_two_runs_with_one_seed_are_the_same(clock: ManualClock) -> None:
    def run() -> tuple[bytes, list[bytes]]:
        stripe = StripeSimulator(seed=7, clock=clock, webhook_url="https://shop.test/stripe")
        answer = say(stripe, "POST", "payment_intents", PAID)
        return answer.body, [webhook.body for webhook in stripe.outbox]

    assert run() == run()


def test_a_reset_simulator_has_forgotten_everything(stripe: StripeSimulator) -> None:
    post(stripe, "payment_intents", PAID, idempotency_key="k1")

    stripe.reset()

    assert get(stripe, "payment_intents")["data"] == []
    assert say(stripe, "POST", "customers", idempotency_key="k1").status == 200


# Charges without an intent


TOKEN: dict[str, Any] = {"amount": 1000, "currency": "usd", "source": "tok_visa", "metadata[order_id]": "o1"}


def test_a_charge_of_a_token_is_money_taken_and_no_intent_is_seen(stripe: StripeSimulator) -> None:
    made = post(stripe, "charges", TOKEN)
    refund = post(stripe, "refunds", {"charge": made["id"], "amount": 300})

    assert (made["status"], made["captured"], made["payment_intent"]) == ("succeeded", True, None)
    assert (made["source"]["object"], made["source"]["brand"], made["source"]["last4"]) == ("card", "Visa", "4242")
    assert refund["payment_intent"] is None
    assert get(stripe, "payment_intents")["data"] == []
    assert stripe.ledger.exactly_once(charge(reference="o1")).money == Money("10.00", "USD")
    assert stripe.ledger.captured("o1", "USD") == Money("7.00", "USD")
    assert events(stripe) == ["charge.succeeded", "charge.refunded", "refund.created"]


def test_the_same_key_charges_a_token_once(stripe: StripeSimulator) -> None:
    first, again = (post(stripe, "charges", TOKEN, idempotency_key="k1") for _ in range(2))

    assert first == again
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


async def test_a_charge_that_is_not_captured_can_be_for_a_week(stripe: StripeSimulator, clock: ManualClock) -> None:
    # given
    first, other = (post(stripe, "charges", TOKEN | {"capture": "false"})["id"] for _ in range(2))
    assert stripe.ledger.entries(Kind.CAPTURE) == []

    # when
    captured = post(stripe, f"charges/{first}/capture", {"amount": 400})
    await clock.advance(7 * DAY)
    expired = get(stripe, f"charges/{other}")

    # then
    assert (captured["captured"], captured["amount_captured"], captured["amount_refunded"]) == (True, 400, 600)
    assert (expired["captured"], expired["refunded"]) == (False, True)
    assert stripe.ledger.captured("o1", "USD") == Money("4.00", "USD")
    assert not any(event.startswith("payment_intent.") for event in events(stripe))


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("tok_chargeDeclined", 402, "card_declined"),
        ("tok_threeDSecure2Required", 402, "authentication_required"),
        ("tok_nobody", 400, "resource_missing"),
        ("", 400, "parameter_missing"),
    ],
)
def test_a_charge_that_cannot_be_made_is_refused(stripe: StripeSimulator, source: str, status: int, code: str) -> None:
    answer = say(stripe, "POST", "charges", TOKEN | {"source": source})

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert stripe.ledger.entries() == []
    assert events(stripe) == (["charge.failed"] if status == 402 else [])


def test_a_charge_of_a_token_can_be_disputed(stripe: StripeSimulator) -> None:
    post(stripe, "charges", TOKEN | {"source": "tok_createDispute"})

    [entry] = stripe.ledger.entries(Kind.DISPUTE)
    assert entry.key == "o1"


# Cards that are kept


KEPT: dict[str, Any] = {"payment_method": "pm_card_visa", "confirm": "true", "payment_method_types[]": "card"}


def test_a_card_that_is_set_up_is_the_customer_s_and_can_be_charged_alone(stripe: StripeSimulator) -> None:
    # given
    customer = post(stripe, "customers", {"email": "a@example.com"})["id"]

    # when
    setup = post(stripe, "setup_intents", KEPT | {"customer": customer})
    method = setup["payment_method"]
    alone = {"off_session": "true", "customer": customer, "payment_method": method}
    paid = post(stripe, "payment_intents", PAID | alone)

    # then
    assert (setup["status"], paid["status"]) == ("succeeded", "succeeded")
    assert get(stripe, f"payment_methods?customer={customer}")["data"][0]["id"] == method
    assert get(stripe, f"setup_intents?customer={customer}")["data"] == [setup]
    assert events(stripe)[1:4] == ["setup_intent.created", "payment_method.attached", "setup_intent.succeeded"]
    assert len(stripe.ledger.entries(Kind.CAPTURE)) == 1


@pytest.mark.parametrize(("succeeds", "status"), [(True, "succeeded"), (False, "requires_payment_method")])
def test_the_bank_may_ask_before_a_card_is_kept(stripe: StripeSimulator, succeeds: bool, status: str) -> None:
    # given
    setup = post(stripe, "setup_intents", {"payment_method_types[]": "card"})
    assert setup["status"] == "requires_payment_method"
    asked = {"payment_method": "pm_card_threeDSecure2Required", "return_url": "https://shop.test/back"}

    # when
    confirmed = post(stripe, f"setup_intents/{setup['id']}/confirm", asked)
    stripe.authenticate_setup(setup["client_secret"], succeeds=succeeds)

    # then
    assert confirmed["status"] == "requires_action"
    assert confirmed["next_action"]["redirect_to_url"]["return_url"] == "https://shop.test/back"
    after = get(stripe, f"setup_intents/{setup['id']}")
    assert (after["status"], after["last_setup_error"] is None) == (status, succeeds)
    with pytest.raises(LookupError, match="nobody asks anybody"):
        stripe.authenticate_setup(setup["id"])


def test_a_card_that_is_declined_is_not_kept(stripe: StripeSimulator) -> None:
    answer = say(stripe, "POST", "setup_intents", KEPT | {"payment_method": "pm_card_chargeDeclined"})

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (402, "card_declined")
    assert error["setup_intent"]["status"] == "requires_payment_method"
    assert error["setup_intent"]["last_setup_error"]["decline_code"] == "generic_decline"
    assert events(stripe) == ["setup_intent.created", "setup_intent.setup_failed"]


@pytest.mark.parametrize("verb", ["confirm", "cancel"])
def test_a_setup_that_is_over_is_neither_confirmed_nor_canceled(stripe: StripeSimulator, verb: str) -> None:
    done = post(stripe, "setup_intents", KEPT)["id"]
    given_up = post(stripe, "setup_intents", {"payment_method_types[]": "card"})["id"]
    assert post(stripe, f"setup_intents/{given_up}/cancel", {})["status"] == "canceled"

    for setup in (done, given_up):
        answer = say(stripe, "POST", f"setup_intents/{setup}/{verb}", {})
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "setup_intent_unexpected_state")


def test_a_setup_without_a_card_or_a_way_back_is_not_confirmed(stripe: StripeSimulator) -> None:
    bare = post(stripe, "setup_intents", {"payment_method_types[]": "card"})["id"]

    without_card = say(stripe, "POST", f"setup_intents/{bare}/confirm", {})
    without_way_back = say(stripe, "POST", "setup_intents", {"payment_method": "pm_card_visa", "confirm": "true"})

    assert json.loads(without_card.body)["error"]["code"] == "setup_intent_unexpected_state"
    assert "return_url" in json.loads(without_way_back.body)["error"]["message"]
    assert len(get(stripe, "setup_intents")["data"]) == 1


# The published examples


def test_what_it_answers_has_the_fields_of_the_published_examples(stripe: StripeSimulator) -> None:
    # given
    if not FIXTURES.exists():
        pytest.skip("the published API descriptions are not here")
    published = json.loads(FIXTURES.read_text())["resources"]
    customer = post(stripe, "customers", {"email": "a@example.com"})["id"]
    intent = post(stripe, "payment_intents", PAID | {"payment_method": "pm_card_createDispute", "customer": customer})
    stripe.pay(page(stripe)["id"])
    other = post(stripe, "payment_intents", PAID)["id"]
    post(stripe, "refunds", {"payment_intent": other, "amount": 10})
    direct = post(stripe, "charges", TOKEN)
    post(stripe, "setup_intents", {"customer": customer})
    post(stripe, "setup_intents", KEPT | {"automatic_payment_methods[enabled]": "true", "return_url": "https://a.test"})
    post(stripe, "webhook_endpoints", {"url": "https://shop.test", "enabled_events[]": "*"})

    # then
    paths = "payment_intents setup_intents charges refunds disputes customers checkout/sessions events prices"
    paths += f" balance_transactions products webhook_endpoints payment_methods?customer={customer}"
    answers = [one for path in paths.split() for one in get(stripe, path)["data"]]
    answers += [get(stripe, "balance"), get(stripe, f"payment_methods/{intent['payment_method']}"), direct["source"]]
    assert {one["object"] for one in answers} >= {"payment_intent", "charge", "refund", "checkout.session", "dispute"}
    for answer in answers:
        example = published[answer["object"]]
        missing = example.keys() - answer.keys() - NOT_EVERYWHERE
        assert (answer["object"], missing, answer.keys() - example.keys()) == (answer["object"], set(), set())
        for name, value in answer.items():
            if value is not None and example[name] is not None:
                assert (name, type(value)) == (name, type(example[name]))


NOT_EVERYWHERE = frozenset(
    (
        "connect_reserved",  # of platforms
        "customer_account",
        "managed_payments",
        "payment_method",
        "refunds",  # since 2022-11-15 only when expanded
        "customer",
    )
)
