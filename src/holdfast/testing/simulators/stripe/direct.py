"""Charges without an intent, as they were made before there were intents: https://docs.stripe.com/payments/charges-api"""

from collections.abc import Mapping
from typing import Final

from holdfast.testing.simulators.simulator import Request, Response, route
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.api import Refusal, mapping
from holdfast.testing.simulators.stripe.cards import CARDS, DECLINES, named_card
from holdfast.testing.simulators.stripe.charging import StripeCharging
from holdfast.testing.simulators.stripe.resources import Resource

CHARGE: Final = """
    amount application_fee_amount capture currency customer description metadata on_behalf_of radar_options
    receipt_email shipping source statement_descriptor statement_descriptor_suffix transfer_data transfer_group
"""


class StripeDirect(StripeCharging):
    """A charge is made in one call, of a token; behind it is an intent that nobody sees."""

    @route("POST", "/v1/charges", "payments.create")
    def create_charge(self, request: Request) -> Response:
        asked = self._asked(request, CHARGE.split())
        amount, currency = self._amount(asked), self._currency(asked)
        if asked.get("customer"):
            self._get("customer", str(asked["customer"]), param="customer")
        method = self._method_of_source(asked)
        later = asked.get("capture") == "false"
        intent = self._drafted_intent(amount, currency, {**asked, "capture_method": "manual" if later else "automatic"})
        intent["payment_method"] = method["id"]
        charge = self._new_charge(intent)
        charge |= {"payment_intent": None, "source": resources.card(self._id("card_1"), method, intent["customer"])}
        self._behind[charge["id"]] = intent | {"id": charge["id"]}
        self._decide(self._behind[charge["id"]], charge)
        return self._show(request, charge)

    def _decide(self, intent: Resource, charge: Resource) -> None:
        """What the bank makes of it. Raises Refusal: it says no."""
        card = self._card(intent)
        decline = DECLINES["authentication_required"] if card.challenged else card.decline
        if decline is not None:
            self._mark_failed(charge, decline)
            self.happen("charge.failed", charge)
            error = decline.to_json()
            raise Refusal(402, error.pop("message"), began=True, **error, charge=charge["id"])
        if intent["capture_method"] == "manual":
            intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        else:
            self._take(intent, charge, intent["amount"])
        self.happen("charge.succeeded", charge)
        if card.disputed:
            self.dispute(charge["id"])

    def _method_of_source(self, asked: Mapping[str, object]) -> Resource:
        """The card of `tok_visa`, or one whose number is given."""
        source = asked.get("source")
        if not source:
            raise Refusal(400, "Must provide source or customer.", code="parameter_missing")
        number = str(mapping(source).get("number", "")).replace(" ", "")
        card = named_card(str(source)) if isinstance(source, str) and source.startswith("tok_") else CARDS.get(number)
        if card is None:
            raise Refusal(400, f"No such token: '{source}'", code="resource_missing", param="source")
        return self._new_method(card)
