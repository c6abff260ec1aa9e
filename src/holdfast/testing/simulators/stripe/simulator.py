"""Payments at Stripe: intents, pages, charges, refunds, disputes, and the people who pay."""

from collections.abc import Mapping
from typing import Final, cast

from holdfast.testing.simulators.simulator import Request, Response, Webhook, route
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.api import DAY, Refusal, mapping, metadata, missing, whole
from holdfast.testing.simulators.stripe.cards import AUTHENTICATION_FAILED, CARDS, DECLINES, Decline
from holdfast.testing.simulators.stripe.charging import CANCELABLE, CONFIRMABLE, OF_LATE_INTENTS
from holdfast.testing.simulators.stripe.resources import Resource
from holdfast.testing.simulators.stripe.setup import StripeSetup

CAPTURE_WITHIN: Final = 7 * DAY
CANCELED_BECAUSE: Final = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
INTENT: Final = """
    amount amount_details application_fee_amount automatic_payment_methods capture_method confirm confirmation_method
    confirmation_token currency customer customer_account description error_on_requires_action
    excluded_payment_method_types hooks mandate mandate_data metadata off_session on_behalf_of payment_details
    payment_method payment_method_configuration payment_method_data payment_method_options payment_method_types
    radar_options receipt_email return_url setup_future_usage shipping statement_descriptor
    statement_descriptor_suffix transfer_data transfer_group use_stripe_sdk
"""
"""The parameters of an intent; of any other name Stripe says that it is unknown."""
SEEN_BY_PAYERS: Final = """
    id object amount amount_details automatic_payment_methods canceled_at cancellation_reason capture_method
    client_secret confirmation_method created currency description last_payment_error livemode next_action
    payment_method payment_method_types processing receipt_email setup_future_usage shipping source status
"""
"""What a publishable key shows of an intent."""
SESSION: Final = """
    adaptive_pricing after_expiration allow_promotion_codes automatic_tax billing_address_collection branding_settings
    cancel_url client_reference_id consent_collection currency custom_fields custom_text customer customer_account
    customer_creation customer_email customer_update discounts excluded_payment_method_types expires_at
    invoice_creation line_items locale metadata mode name_collection optional_items origin_context
    payment_intent_data payment_method_collection payment_method_configuration payment_method_data
    payment_method_options payment_method_types permissions phone_number_collection redirect_on_completion return_url
    saved_payment_method_options setup_intent_data shipping_address_collection shipping_options submit_type
    subscription_data success_url tax_id_collection ui_mode wallet_options
"""
REFUND: Final = (
    "amount charge instructions_email metadata payment_intent reason refund_application_fee reverse_transfer"
)


class StripeSimulator(StripeSetup):
    """A sandbox: intents, pages, charges, refunds, disputes, customers, setups, prices, events, balance, endpoints.

    In the ledger an offer is an intent or a page that asks for money; its key is the page's `client_reference_id`, or
    `reference` or `order_id` in the metadata, or the id. A payer finds a page by its address, its id or its intent, and
    pays an intent of the caller's own form with its client secret: `pay`, or over the API with the `publishable_key`.
    """

    # What people do

    def pay(self, offer: str) -> None:
        """With a card that works."""
        self._try(offer, "4242424242424242")

    def pay_with(self, offer: str, number: str) -> None:
        """With the test card of that number: it may be declined, or challenged."""
        self._try(offer, number)

    def decline(self, offer: str, code: str = "generic_decline") -> None:
        """The payer tries a card, and its bank says no, for the reason of that decline code."""
        self._try(offer, "4242424242424242", decline=DECLINES[code])

    def authenticate(self, offer: str, *, succeeds: bool = True) -> None:
        """The payer answers the bank's challenge."""
        intent = self._intent_of(offer)
        if intent["status"] != "requires_action":
            raise LookupError(f"{self.vendor}: nobody asks the payer of {intent['id']} for anything")
        card = self._card(intent)
        if not succeeds:
            self._fail(intent, card, AUTHENTICATION_FAILED)
        elif card.decline:
            self._fail(intent, card, card.decline)
        else:
            self._succeed(intent, card)

    def pay_later(self, offer: str) -> None:
        """By a bank debit that takes days; `settle` says how it ended."""
        intent = self._payable(offer)
        method = self._new(resources.bank_account(self._id("pm_1"), self._unix()))
        intent |= {"status": "processing", "payment_method": method["id"], "payment_method_types": ["us_bank_account"]}
        self.happen("payment_intent.processing", intent)
        self._complete_page(intent)

    def settle(self, offer: str, *, succeeds: bool = True) -> None:
        """What was paid later arrives, or does not."""
        intent = self._intent_of(offer)
        if intent["status"] != "processing":
            raise LookupError(f"{self.vendor}: nothing is under way for {intent['id']}")
        card = CARDS["4242424242424242"]
        if succeeds:
            self._succeed(intent, card)
        else:
            self._fail(intent, card, DECLINES["insufficient_funds"])
        page = self._page_of(intent)
        if page is not None:
            page["payment_status"] = "paid" if succeeds else "unpaid"
            self.happen(f"checkout.session.async_payment_{'succeeded' if succeeds else 'failed'}", page)

    def tick(self) -> None:
        """Pages and authorizations that waited too long expire."""
        now = self._unix()
        for page in self._of("checkout.session"):
            if page["status"] == "open" and page["expires_at"] <= now:
                self._expire(page)
        for charge in self._of("charge"):
            if charge["status"] == "succeeded" and not charge["captured"] and not charge["refunded"]:
                intent = self._intent_behind(charge)
                if intent["status"] == "requires_capture" and charge["created"] + CAPTURE_WITHIN <= now:
                    self.happen("charge.expired", charge)
                    self._cancel(intent, "automatic")

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Something still unpaid is called paid, in an event nobody can look up."""
        page = next((one for one in self._of("checkout.session") if one["status"] == "open"), None)
        intent = next((one for one in self._of("payment_intent") if one["status"] in CANCELABLE), None)
        if page is not None:
            kind, claimed = "checkout.session.completed", {**page, "status": "complete", "payment_status": "paid"}
        elif intent is not None:
            kind = "payment_intent.succeeded"
            claimed = {**intent, "status": "succeeded", "amount_received": intent["amount"]}
        else:
            return None
        happened = resources.event(
            self._id("evt_1"),
            self._unix(),
            type=kind,
            data={"object": claimed},
            version=self.api_version,
            request={"id": None, "idempotency_key": None},
        )
        return self._webhook(happened, webhook.url, webhook.secret)

    def _try(self, offer: str, number: str, *, decline: Decline | None = None) -> None:
        """A payer's try on the page, or with the intent's client secret."""
        intent, card = self._payable(offer), CARDS[number]
        intent["payment_method"] = self._new_method(card)["id"]
        if decline or (card.decline and not card.challenged):
            self._fail(intent, card, decline or cast(Decline, card.decline))
        elif card.challenged:
            self._challenge(intent, "")
        else:
            self._succeed(intent, card)

    # Payment intents

    @route("POST", "/v1/payment_intents", "payments.create")
    def create_intent(self, request: Request) -> Response:
        asked = self._asked(request, INTENT.split())
        amount, currency = self._amount(asked), self._currency(asked)
        if asked.get("customer"):
            self._get("customer", str(asked["customer"]), param="customer")
        given = self._given_method(asked)
        intent = self._drafted_intent(amount, currency, asked)
        if given is not None:
            intent |= {"payment_method": given["id"], "status": "requires_confirmation"}
        if asked.get("confirm") == "true":
            self._check_confirmable(intent, asked)
        self._new(intent)
        self._offer(intent, amount, currency)
        self.happen("payment_intent.created", intent)
        if asked.get("confirm") == "true":
            self._confirm(intent, asked)
        return self._show(request, intent)

    @route("GET", "/v1/payment_intents", "payments.find")
    def list_intents(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("payment_intent")
        if customer := asked.get("customer"):
            found = [one for one in found if one["customer"] == customer]
        return self._page(request, found)

    @route("GET", "/v1/payment_intents/search", "payments.search")
    def search_intents(self, request: Request) -> Response:
        return self._found(request, "payment_intent")

    @route("GET", "/v1/payment_intents/{id}", "payments.fetch")
    def read_intent(self, request: Request) -> Response:
        return self._show_intent(request, self._intent(request))

    @route("POST", "/v1/payment_intents/{id}", "payments.update")
    def update_intent(self, request: Request) -> Response:
        intent, asked = self._intent(request), self._asked(request, INTENT.split())
        if "amount" in asked and intent["status"] in ("succeeded", "canceled", "requires_capture", "processing"):
            text = f"This PaymentIntent's amount could not be updated because it has a status of {intent['status']}."
            raise self._unexpected(intent, text)
        if "amount" in asked:
            intent["amount"] = self._amount(asked, currency=intent["currency"])
        self._describe(intent, asked)
        if (given := self._given_method(asked)) is not None:
            intent |= {"payment_method": given["id"], "status": "requires_confirmation"}
        return self._show(request, intent)

    @route("POST", "/v1/payment_intents/{id}/confirm", "payments.confirm")
    def confirm_intent(self, request: Request) -> Response:
        intent, asked = self._intent(request), self._asked(request, (*INTENT.split(), "client_secret"))
        if (given := self._given_method(asked)) is not None and intent["status"] in CONFIRMABLE:
            intent["payment_method"] = given["id"]
        self._check_confirmable(intent, asked)
        self._confirm(intent, asked)
        return self._show_intent(request, intent)

    @route("POST", "/v1/payment_intents/{id}/capture", "payments.capture")
    def capture_intent(self, request: Request) -> Response:
        intent = self._intent(request)
        asked = self._asked(
            request,
            (
                "amount_to_capture",
                "final_capture",
                "metadata",
                "statement_descriptor",
                "statement_descriptor_suffix",
                "application_fee_amount",
                "transfer_data",
            ),
        )
        if intent["status"] != "requires_capture":
            text = f"This PaymentIntent could not be captured because it has a status of {intent['status']}."
            if intent["status"] == "succeeded":
                text = "This PaymentIntent could not be captured because it has already been captured."
            raise self._unexpected(intent, text)
        amount = whole(asked, "amount_to_capture", default=intent["amount_capturable"])
        if not 0 < amount <= intent["amount_capturable"]:
            text = (
                f"The provided capture amount ({amount}) must be greater than 0 and not greater than the amount that "
                f"can be captured ({intent['amount_capturable']})."
            )
            raise Refusal(400, text, code="amount_too_large", param="amount_to_capture")
        intent["metadata"] = metadata(intent["metadata"], asked.get("metadata", {}))
        self._capture(intent, self.resources[intent["latest_charge"]], amount)
        return self._show(request, intent)

    @route("POST", "/v1/payment_intents/{id}/cancel", "payments.cancel")
    def cancel_intent(self, request: Request) -> Response:
        intent, asked = self._intent(request), self._asked(request, ("cancellation_reason",))
        if "cancellation_reason" in asked and asked["cancellation_reason"] not in CANCELED_BECAUSE:
            text = f"Invalid cancellation_reason: must be one of {', '.join(CANCELED_BECAUSE)}"
            raise Refusal(400, text, param="cancellation_reason")
        if intent["status"] not in CANCELABLE:
            text = (
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a "
                f"PaymentIntent with one of the following statuses may be canceled: {', '.join(CANCELABLE)}."
            )
            raise self._unexpected(intent, text)
        page = self._page_of(intent)
        if page is not None and page["status"] == "open":
            text = "You cannot cancel this PaymentIntent because it was created by a Checkout Session. Expire that."
            raise self._unexpected(intent, text)
        self._cancel(intent, asked.get("cancellation_reason"))
        return self._show(request, intent)

    def _show_intent(self, request: Request, intent: Resource) -> Response:
        """All of it; to who has only the publishable key, what a payer may see."""
        seen = {name: intent[name] for name in SEEN_BY_PAYERS.split()} if self.is_publishable(request) else intent
        return self._show(request, seen)

    # Payment pages

    @route("POST", "/v1/checkout/sessions", "payments.create")
    def create_session(self, request: Request) -> Response:
        asked = self._asked(request, SESSION.split())
        mode = asked.get("mode")
        if mode is None:
            raise missing("mode")
        if mode != "payment":
            raise Refusal(400, f"The simulator's pages take mode=payment, not {mode}.", param="mode")
        hosted = asked.get("ui_mode", "hosted") == "hosted"
        if hosted and "success_url" not in asked:
            raise missing("success_url")
        items = self._line_items(asked)
        now, id = self._unix(), self._id("cs_test_a1", 56)
        expires_at = whole(asked, "expires_at", default=now + DAY)
        if not now + 1800 <= expires_at <= now + DAY:
            text = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."
            raise Refusal(400, text, param="expires_at")
        total, currency = sum(item["amount_total"] for item in items), items[0]["currency"]
        if total < (least := resources.MINIMUM.get(currency, 1)):
            text = f"The Checkout Session's total amount must convert to at least {self._money(least, currency)}."
            raise Refusal(400, text, code="amount_too_small")
        session = resources.checkout_session(
            id,
            now,
            amount=total,
            currency=currency,
            url=f"{self.base_url}/c/pay/{id}",
            expires_at=expires_at,
        )
        for name in (
            "success_url",
            "cancel_url",
            "client_reference_id",
            "customer",
            "customer_email",
            "locale",
            "submit_type",
        ):
            session[name] = asked.get(name)
        if not hosted:
            session |= {"url": None, "ui_mode": asked["ui_mode"], "client_secret": f"{id}_secret_{self._made_up(24)}"}
            session["return_url"] = asked.get("return_url")
        session["metadata"] = metadata({}, asked.get("metadata", {}))
        self._new(session)
        self._items[id] = items
        self._intent_data[id] = mapping(asked.get("payment_intent_data"))
        if self._version < OF_LATE_INTENTS:
            self._intent_for(session)
        self._offer(session, session["amount_total"], session["currency"])
        return self._show_session(request, session)

    @route("GET", "/v1/checkout/sessions", "payments.find")
    def list_sessions(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("checkout.session")
        for name in ("payment_intent", "customer", "status"):
            if name in asked:
                found = [one for one in found if one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/checkout/sessions/{id}", "payments.fetch")
    def read_session(self, request: Request) -> Response:
        return self._show_session(request, self._session(request))

    @route("POST", "/v1/checkout/sessions/{id}", "payments.update")
    def update_session(self, request: Request) -> Response:
        session = self._session(request)
        asked = self._asked(request, ("metadata", "collected_information", "line_items", "shipping_options"))
        session["metadata"] = metadata(session["metadata"], asked.get("metadata", {}))
        return self._show_session(request, session)

    @route("POST", "/v1/checkout/sessions/{id}/expire", "payments.cancel")
    def expire_session(self, request: Request) -> Response:
        session = self._session(request)
        if session["status"] != "open":
            text = (
                f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status '
                f"of `{session['status']}`."
            )
            raise Refusal(400, text)
        self._expire(session)
        return self._show_session(request, session)

    @route("GET", "/v1/checkout/sessions/{id}/line_items", "payments.fetch")
    def list_line_items(self, request: Request) -> Response:
        items = self._items[self._session(request)["id"]]
        return self._page(request, [{**item, "created": 0} for item in reversed(items)])

    @route("GET", "/c/pay/{id}", "page")
    def show_page(self, request: Request) -> Response:
        """What the payer sees; `pay` and its siblings are what the payer does."""
        session = self.resources.get(request.params["id"])
        if session is None or session["object"] != "checkout.session":
            return Response(status=404, headers=(("content-type", "text/html"),), body=b"<h1>Something went wrong</h1>")
        money = self._money(session["amount_total"], session["currency"])
        text = f"<!doctype html><title>Checkout</title><p>{money}: {session['status']}, {session['payment_status']}</p>"
        return Response(headers=(("content-type", "text/html"),), body=text.encode())

    def _line_items(self, asked: Mapping[str, object]) -> list[Resource]:
        wanted = asked.get("line_items")
        if not isinstance(wanted, list) or not wanted:
            raise missing("line_items")
        items: list[Resource] = []
        for place, one in enumerate(cast(list[object], wanted)):
            line = mapping(one)
            if "price" in line:
                price = self._get("price", str(line["price"]), param=f"line_items[{place}][price]")
            elif "price_data" in line:
                price = self._price(mapping(line["price_data"]))
            else:
                raise missing(f"line_items[{place}][price]")
            name = self.resources[price["product"]]["name"]
            quantity = whole(line, "quantity", default=1)
            items.append(resources.line_item(self._id("li_1"), description=name, quantity=quantity, price=price))
        if len({item["currency"] for item in items}) > 1:
            raise Refusal(400, "All prices on a Checkout Session must have the same currency.", param="line_items")
        return items

    def _show_session(self, request: Request, session: Resource) -> Response:
        items = self._items[session["id"]]
        url = f"/v1/checkout/sessions/{session['id']}/line_items"
        whole_list = {"object": "list", "data": items, "has_more": False, "url": url}
        asks = "line_items" in cast(list[str], self._asked(request).get("expand") or [])
        return self._show(request, session, **({"line_items": whole_list} if asks else {}))

    # Charges, refunds, disputes

    @route("GET", "/v1/charges", "payments.find")
    def list_charges(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("charge")
        for name in ("payment_intent", "customer"):
            if name in asked:
                found = [one for one in found if one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/charges/search", "payments.search")
    def search_charges(self, request: Request) -> Response:
        return self._found(request, "charge")

    @route("GET", "/v1/charges/{id}", "payments.fetch")
    def read_charge(self, request: Request) -> Response:
        return self._show(request, self._get("charge", request.params["id"]))

    @route("POST", "/v1/charges/{id}", "payments.update")
    def update_charge(self, request: Request) -> Response:
        charge = self._get("charge", request.params["id"])
        asked = self._asked(
            request,
            ("description", "metadata", "receipt_email", "customer", "fraud_details", "shipping", "transfer_group"),
        )
        charge["metadata"] = metadata(charge["metadata"], asked.get("metadata", {}))
        charge["description"] = asked.get("description", charge["description"])
        return self._show(request, charge)

    @route("POST", "/v1/charges/{id}/capture", "payments.capture")
    def capture_charge(self, request: Request) -> Response:
        charge, asked = self._get("charge", request.params["id"]), self._asked(request, ("amount", "receipt_email"))
        if charge["captured"] or charge["refunded"]:
            text = f"Charge {charge['id']} has already been captured."
            raise Refusal(400, text, code="charge_already_captured")
        amount = whole(asked, "amount", default=charge["amount"])
        if not 0 < amount <= charge["amount"]:
            raise Refusal(400, "Amount is greater than the authorized amount.", code="amount_too_large", param="amount")
        self._capture(self._intent_behind(charge), charge, amount)
        return self._show(request, charge)

    @route("POST", "/v1/refunds", "payments.refund")
    def create_refund(self, request: Request) -> Response:
        asked = self._asked(request, REFUND.split())
        charge = self._refundable(asked)
        left = charge["amount"] - charge["amount_refunded"]  # a part never captured counts as refunded
        amount = whole(asked, "amount", default=left)
        if amount < 1:
            text = "Invalid positive integer" if amount < 0 else "This value must be greater than or equal to 1."
            raise Refusal(400, text, code="parameter_invalid_integer", param="amount")
        if amount > left:
            asked_for, unrefunded = (self._money(cents, charge["currency"]) for cents in (amount, left))
            text = f"Refund amount ({asked_for}) is greater than unrefunded amount on charge ({unrefunded})"
            raise Refusal(400, text, param="amount")
        if not charge["captured"]:
            self._cancel(self._intent_behind(charge), None)
        refund = self._refund(charge, amount, asked)
        return self._show(request, refund)

    @route("GET", "/v1/refunds", "payments.find")
    def list_refunds(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("refund")
        for name in ("payment_intent", "charge"):
            if name in asked:
                found = [one for one in found if one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/refunds/{id}", "payments.fetch")
    def read_refund(self, request: Request) -> Response:
        return self._show(request, self._get("refund", request.params["id"]))

    @route("POST", "/v1/refunds/{id}", "payments.update")
    def update_refund(self, request: Request) -> Response:
        refund, asked = self._get("refund", request.params["id"]), self._asked(request, ("metadata",))
        refund["metadata"] = metadata(refund["metadata"], asked.get("metadata", {}))
        return self._show(request, refund)

    @route("GET", "/v1/disputes", "payments.find")
    def list_disputes(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("dispute")
        for name in ("payment_intent", "charge"):
            if name in asked:
                found = [one for one in found if one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/disputes/{id}", "payments.fetch")
    def read_dispute(self, request: Request) -> Response:
        return self._show(request, self._get("dispute", request.params["id"]))

    @route("POST", "/v1/disputes/{id}", "payments.update")
    def answer_dispute(self, request: Request) -> Response:
        dispute, asked = (
            self._get("dispute", request.params["id"]),
            self._asked(request, ("evidence", "metadata", "submit")),
        )
        dispute["metadata"] = metadata(dispute["metadata"], asked.get("metadata", {}))
        dispute["evidence"] |= mapping(asked.get("evidence"))
        dispute["evidence_details"]["has_evidence"] = any(
            isinstance(text, str) and text for text in dispute["evidence"].values()
        )
        if asked.get("submit", "true") == "true":
            dispute["status"] = "under_review"
            dispute["evidence_details"]["submission_count"] += 1
        self.happen("charge.dispute.updated", dispute)
        return self._show(request, dispute)

    @route("POST", "/v1/disputes/{id}/close", "payments.update")
    def give_in(self, request: Request) -> Response:
        dispute = self._get("dispute", request.params["id"])
        self.close_dispute(dispute["id"], won=False)
        return self._show(request, dispute)

    def _refundable(self, asked: Mapping[str, object]) -> Resource:
        if "charge" in asked:
            charge = self._get("charge", str(asked["charge"]), param="charge")
        elif "payment_intent" in asked:
            intent = self._get("payment_intent", str(asked["payment_intent"]), param="payment_intent")
            if intent["latest_charge"] is None or intent["status"] not in ("succeeded", "requires_capture"):
                text = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
                raise Refusal(400, text, param="payment_intent")
            charge = self.resources[intent["latest_charge"]]
        else:
            raise Refusal(
                400, "One of the following params should be provided for this request: payment_intent or charge."
            )
        if charge["refunded"]:
            text = f"Charge {charge['id']} has already been refunded."
            raise Refusal(400, text, code="charge_already_refunded")
        if charge["disputed"]:
            text = f"Charge {charge['id']} has been charged back; cannot issue a refund."
            raise Refusal(400, text, code="charge_disputed")
        return charge
