"""Cards that are kept for later: setup intents. https://docs.stripe.com/api/setup_intents"""

from collections.abc import Mapping
from typing import Final

from holdfast.testing.simulators.simulator import Request, Response, route
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.api import Refusal, mapping, metadata
from holdfast.testing.simulators.stripe.cards import AUTHENTICATION_FAILED, Decline
from holdfast.testing.simulators.stripe.charging import OF_AUTOMATIC_METHODS
from holdfast.testing.simulators.stripe.direct import StripeDirect
from holdfast.testing.simulators.stripe.resources import Resource

SETUP: Final = """
    attach_to_self automatic_payment_methods confirm confirmation_token customer customer_account description
    excluded_payment_method_types flow_directions mandate_data metadata on_behalf_of payment_method
    payment_method_configuration payment_method_data payment_method_options payment_method_types return_url single_use
    usage use_stripe_sdk
"""
UNFINISHED: Final = ("requires_payment_method", "requires_confirmation", "requires_action")


class StripeSetup(StripeDirect):
    """No money moves, and the ledger hears nothing of it."""

    @route("POST", "/v1/setup_intents", "setups.create")
    def create_setup(self, request: Request) -> Response:
        asked = self._asked(request, SETUP.split())
        if asked.get("customer"):
            self._get("customer", str(asked["customer"]), param="customer")
        setup = resources.setup_intent(self._id("seti_1"), self._unix(), secret=self._made_up(25))
        self._describe_setup(setup, asked)
        wants_all = mapping(asked.get("automatic_payment_methods"))
        if "payment_method_types" in asked:
            setup["payment_method_types"] = asked["payment_method_types"]
        elif wants_all.get("enabled") == "true" or (not wants_all and self._version >= OF_AUTOMATIC_METHODS):
            redirects = wants_all.get("allow_redirects", "always")
            setup["automatic_payment_methods"] = {"allow_redirects": redirects, "enabled": True}
        if asked.get("confirm") == "true":
            self._check_setup(setup, asked)
        self._new(setup)
        self.happen("setup_intent.created", setup)
        if asked.get("confirm") == "true":
            self._set_up(setup, asked)
        return self._show(request, setup)

    @route("GET", "/v1/setup_intents", "setups.find")
    def list_setups(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("setup_intent")
        for name in ("customer", "payment_method"):
            found = [one for one in found if name not in asked or one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/setup_intents/{id}", "setups.fetch")
    def read_setup(self, request: Request) -> Response:
        return self._show(request, self._setup(request))

    @route("POST", "/v1/setup_intents/{id}", "setups.update")
    def update_setup(self, request: Request) -> Response:
        setup = self._setup(request)
        self._describe_setup(setup, self._asked(request, SETUP.split()))
        return self._show(request, setup)

    @route("POST", "/v1/setup_intents/{id}/confirm", "setups.confirm")
    def confirm_setup(self, request: Request) -> Response:
        setup, asked = self._setup(request), self._asked(request, SETUP.split())
        if setup["status"] in UNFINISHED:
            self._describe_setup(setup, asked)
        self._check_setup(setup, asked)
        self._set_up(setup, asked)
        return self._show(request, setup)

    @route("POST", "/v1/setup_intents/{id}/cancel", "setups.cancel")
    def cancel_setup(self, request: Request) -> Response:
        setup, asked = self._setup(request), self._asked(request, ("cancellation_reason",))
        if setup["status"] not in UNFINISHED:
            raise self._unexpected_setup(setup, "cancel")
        setup |= {"status": "canceled", "cancellation_reason": asked.get("cancellation_reason"), "next_action": None}
        self.happen("setup_intent.canceled", setup)
        return self._show(request, setup)

    def authenticate_setup(self, setup_intent: str, *, succeeds: bool = True) -> None:
        """The customer answers the bank's challenge about a card that is to be kept, by the intent's id or secret."""
        setup = self.resources.get(setup_intent.partition("_secret_")[0])
        if setup is None or setup["object"] != "setup_intent" or setup["status"] != "requires_action":
            raise LookupError(f"{self.vendor}: nobody asks anybody about {setup_intent}")
        card = self._cards[setup["payment_method"]]
        decline = card.decline if succeeds else AUTHENTICATION_FAILED
        if decline:
            self._fail_setup(setup, decline)
        else:
            self._keep(setup)

    def _setup(self, request: Request) -> Resource:
        return self._get("setup_intent", request.params["id"], param="intent")

    def _describe_setup(self, setup: Resource, asked: Mapping[str, object]) -> None:
        setup |= {name: asked[name] or None for name in ("customer", "description", "usage") if name in asked}
        setup["metadata"] = metadata(setup["metadata"], asked.get("metadata", {}))
        if (given := self._given_method(asked)) is not None:
            setup |= {"payment_method": given["id"], "status": "requires_confirmation"}

    def _check_setup(self, setup: Resource, asked: Mapping[str, object]) -> None:
        if setup["status"] not in UNFINISHED:
            raise self._unexpected_setup(setup, "confirm")
        if setup["payment_method"] is None:
            text = (
                "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent "
                "with a payment method and then confirm it again."
            )
            raise Refusal(400, text, code="setup_intent_unexpected_state")
        self._check_return_url(setup, asked)

    def _set_up(self, setup: Resource, asked: Mapping[str, object]) -> None:
        card = self._cards[setup["payment_method"]]
        if card.challenged:
            setup |= {"status": "requires_action", "next_action": self._next_action(setup, asked)}
            self.happen("setup_intent.requires_action", setup)
        elif card.decline is not None:
            self._fail_setup(setup, card.decline)
            error = card.decline.to_json()
            written = self._written(setup, self._version)
            raise Refusal(402, error.pop("message"), began=True, **error, setup_intent=written)
        else:
            self._keep(setup)

    def _keep(self, setup: Resource) -> None:
        setup |= {"status": "succeeded", "next_action": None, "last_setup_error": None}
        if setup["customer"] is not None:
            method = self.resources[setup["payment_method"]]
            method["customer"] = setup["customer"]
            self.happen("payment_method.attached", method)
        self.happen("setup_intent.succeeded", setup)

    def _fail_setup(self, setup: Resource, decline: Decline) -> None:
        method = self.resources[setup["payment_method"]]
        setup |= {"status": "requires_payment_method", "payment_method": None, "next_action": None}
        setup["last_setup_error"] = {**decline.to_json(), "payment_method": method}
        self.happen("setup_intent.setup_failed", setup)

    def _unexpected_setup(self, setup: Resource, verb: str) -> Refusal:
        text = f"You cannot {verb} this SetupIntent because it has a status of {setup['status']}."
        written = self._written(setup, self._version)
        return Refusal(400, text, code="setup_intent_unexpected_state", setup_intent=written)
