"""What becomes of a payment at Stripe: tried, challenged, declined, captured, given back, expired."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.forms import Nested
from holdfast.testing.simulators.simulator import Request
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.account import StripeAccount
from holdfast.testing.simulators.stripe.api import Refusal, mapping, metadata, path_of
from holdfast.testing.simulators.stripe.cards import CARDS, DECLINES, Card, Decline
from holdfast.testing.simulators.stripe.resources import Resource

OF_LATE_INTENTS: Final = "2022-08-01"
"""Since this version a payment page makes its intent when somebody pays, not before."""
OF_AUTOMATIC_METHODS: Final = "2023-08-16"
"""Since this version an intent takes every method of the account unless told otherwise, redirects included."""
CONFIRMABLE: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE: Final = (
    "requires_payment_method",
    "requires_capture",
    "requires_confirmation",
    "requires_action",
    "processing",
)
COPIED: Final = (
    "description",
    "customer",
    "receipt_email",
    "setup_future_usage",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "capture_method",
    "transfer_group",
)


class StripeCharging(StripeAccount):
    """The life of intents, pages and charges."""

    def _forget(self) -> None:
        super()._forget()
        self._items: dict[str, list[Resource]] = {}
        """What a page asks money for."""
        self._intent_data: dict[str, Nested] = {}
        """What a page's intent will be made of."""
        self._tried: dict[str, str] = {}
        """The intent of each page somebody tried to pay."""
        self._behind: dict[str, Resource] = {}
        """The intent that nobody sees, of each charge that was made without one."""

    # What becomes of an intent

    def _drafted_intent(self, amount: int, currency: str, asked: Mapping[str, object]) -> Resource:
        """An intent nobody knows yet."""
        id, now = self._id("pi_3"), self._unix()
        intent = resources.payment_intent(id, now, amount=amount, currency=currency, secret=self._made_up(25))
        self._describe(intent, asked)
        wants_all = mapping(asked.get("automatic_payment_methods"))
        if "payment_method_types" in asked:
            intent["payment_method_types"] = asked["payment_method_types"]
        elif wants_all.get("enabled") == "true" or (not wants_all and self._version >= OF_AUTOMATIC_METHODS):
            redirects = wants_all.get("allow_redirects", "always")
            intent["automatic_payment_methods"] = {"allow_redirects": redirects, "enabled": True}
        return intent

    def _describe(self, intent: Resource, asked: Mapping[str, object]) -> None:
        intent |= {name: asked[name] or None for name in COPIED if name in asked}
        intent["metadata"] = metadata(intent["metadata"], asked.get("metadata", {}))

    def _check_confirmable(self, intent: Resource, asked: Mapping[str, object]) -> None:
        if intent["status"] not in CONFIRMABLE:
            text = f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}."
            raise self._unexpected(intent, text)
        if intent["payment_method"] is None:
            text = (
                "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update "
                "the PaymentIntent with a payment method and then confirm it again, or confirm it again directly with "
                "a payment method or ConfirmationToken."
            )
            raise self._unexpected(intent, text)
        self._check_return_url(intent, asked)

    def _check_return_url(self, intent: Resource, asked: Mapping[str, object]) -> None:
        redirects = mapping(intent["automatic_payment_methods"]).get("allow_redirects")
        if redirects == "always" and "return_url" not in asked and asked.get("off_session") != "true":
            text = (
                "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of "
                "these payment methods might redirect your customer off of your page, you must provide a `return_url`. "
                "If you don't want to accept redirect-based payment methods, set "
                "`automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` to "
                "`never` when creating Setup Intents and Payment Intents."
            )
            raise Refusal(400, text)

    def _confirm(self, intent: Resource, asked: Mapping[str, object]) -> None:
        card = self._card(intent)
        alone = "true" in (asked.get("off_session"), asked.get("error_on_requires_action"))
        decline = DECLINES["authentication_required"] if card.challenged and alone else card.decline
        if card.challenged and not alone:
            self._challenge(intent, str(asked.get("return_url", "")))
        elif decline is not None:
            failed = self._fail(intent, card, decline)
            error = {**decline.to_json(), "charge": failed["id"]}
            message = error.pop("message")
            raise Refusal(402, message, began=True, **error, payment_intent=self._written(intent, self._version))
        else:
            self._succeed(intent, card)

    def _challenge(self, intent: Resource, return_url: str) -> None:
        intent |= {"status": "requires_action", "next_action": self._next_action(intent, {"return_url": return_url})}
        self.happen("payment_intent.requires_action", intent)

    def _next_action(self, intent: Resource, asked: Mapping[str, object]) -> Resource:
        """Where the bank asks: on a page that comes back, or within the shop's own."""
        return_url = str(asked.get("return_url") or "")
        page = f"{self.base_url}/3d_secure_2/hosted?{intent['object']}={intent['id']}"
        if return_url:
            return {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": page}}
        return {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": page}}

    def _fail(self, intent: Resource, card: Card, decline: Decline) -> Resource:
        charge = self._new_charge(intent)
        self._mark_failed(charge, decline)
        method = self.resources.get(intent["payment_method"] or "")
        error = {**decline.to_json(), "charge": charge["id"], "payment_method": method}
        intent |= {"status": "requires_payment_method", "payment_method": None, "next_action": None}
        intent["last_payment_error"] = error
        self.happen("charge.failed", charge)
        self.happen("payment_intent.payment_failed", intent)
        return charge

    def _mark_failed(self, charge: Resource, decline: Decline) -> None:
        charge |= {"status": "failed", "paid": False, "failure_code": decline.code, "failure_message": decline.message}
        charge["outcome"] |= {
            "network_status": "declined_by_network",
            "reason": decline.decline_code or decline.code,
            "seller_message": "The bank did not return any further details with this decline.",
            "type": "issuer_declined",
        }

    def _succeed(self, intent: Resource, card: Card) -> None:
        charge = self._new_charge(intent)
        intent |= {"next_action": None, "last_payment_error": None}
        if intent["capture_method"] == "manual":
            intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
            self.happen("charge.succeeded", charge)
            self.happen("payment_intent.amount_capturable_updated", intent)
        else:
            self._take(intent, charge, intent["amount"])
            self.happen("charge.succeeded", charge)
            self.happen("payment_intent.succeeded", intent)
        if self._page_is_open(intent):
            self._complete_page(intent)
        if card.disputed:
            self.dispute(charge["id"])

    def _capture(self, intent: Resource, charge: Resource, amount: int) -> None:
        rest = charge["amount"] - amount
        self._take(intent, charge, amount)
        charge["amount_refunded"] = rest  # what was not captured counts as given back
        if (page := self._page_of(intent)) is not None:
            page["payment_status"] = "paid"
        self.happen("charge.captured", charge)
        self._happen_to_intent("payment_intent.succeeded", intent)

    def _take(self, intent: Resource, charge: Resource, amount: int) -> None:
        charge |= {"captured": True, "amount_captured": amount}
        charge["balance_transaction"] = self._move(charge, "charge", amount, fee=amount * 29 // 1000 + 30)["id"]
        intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0}
        facts = {"charge": charge["id"]}
        if charge["payment_intent"] is not None:
            facts["payment_intent"] = intent["id"]
        if (page := self._page_of(intent)) is not None:
            facts["checkout_session"] = page["id"]
        self._record(
            Kind.CAPTURE,
            charge["id"],
            self._key_of_charge(charge),
            amount,
            charge["currency"],
            facts,
        )

    def _new_charge(self, intent: Resource) -> Resource:
        if intent["payment_method"] is None:
            intent["payment_method"] = self._new_method(CARDS["4242424242424242"])["id"]
        method = self.resources[intent["payment_method"]]
        charge = self._new(resources.charge(self._id("ch_3"), self._unix(), intent, method, self.base_url))
        intent["latest_charge"] = charge["id"]
        return charge

    def _cancel(self, intent: Resource, reason: object) -> None:
        if intent["status"] == "requires_capture":
            charge = self.resources[intent["latest_charge"]]
            charge |= {"refunded": True, "amount_refunded": charge["amount"]}
            self.happen("charge.refunded", charge)
        intent |= {"status": "canceled", "canceled_at": self._unix(), "cancellation_reason": reason}
        intent |= {"amount_capturable": 0, "next_action": None}
        if intent["id"] not in self._behind:
            self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=intent["id"], key=self._key_of(intent))
        self._happen_to_intent("payment_intent.canceled", intent)

    def _happen_to_intent(self, kind: str, intent: Resource) -> None:
        """The same, unless it is one that nobody sees."""
        if intent["id"] not in self._behind:
            self.happen(kind, intent)

    # What becomes of a page

    def _intent_for(self, page: Resource) -> Resource:
        """The intent of a page, made when somebody first tries to pay."""
        if (tried := self._tried.get(page["id"])) is not None:
            return self.resources[tried]
        asked = {"customer": page["customer"], **self._intent_data[page["id"]]}
        intent = self._new(self._drafted_intent(page["amount_total"], page["currency"], asked))
        self._tried[page["id"]] = intent["id"]
        if self._version < OF_LATE_INTENTS:
            page["payment_intent"] = intent["id"]
        self.happen("payment_intent.created", intent)
        return intent

    def _complete_page(self, intent: Resource) -> None:
        page = self._page_of(intent)
        if page is not None:
            paid = "paid" if intent["status"] == "succeeded" else "unpaid"
            page |= {"status": "complete", "payment_status": paid, "url": None, "payment_intent": intent["id"]}
            page["customer_details"] = {
                "address": resources.address(),
                "business_name": None,
                "email": page["customer_email"] or "payer@example.com",
                "individual_name": None,
                "name": "Somebody",
                "phone": None,
                "tax_exempt": "none",
                "tax_ids": [],
            }
            self.happen("checkout.session.completed", page)

    def _expire(self, page: Resource) -> None:
        page |= {"status": "expired", "url": None}
        self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=page["id"], key=self._key_of_page(page))
        intent = self.resources.get(page["payment_intent"] or self._tried.get(page["id"], ""))
        if intent is not None and intent["status"] in CANCELABLE:
            self._cancel(intent, "automatic")
        self.happen("checkout.session.expired", page)

    # What goes back

    def _refund(self, charge: Resource, amount: int, asked: Mapping[str, object]) -> Resource:
        refund = self._new(resources.refund(self._id("re_3"), self._unix(), charge, amount))
        refund |= {"reason": asked.get("reason"), "metadata": metadata({}, asked.get("metadata", {}))}
        method = self._cards.get(charge["payment_method"])
        refund["status"] = method.refund_status if method and method.refund_status == "pending" else "succeeded"
        if charge["captured"]:
            charge["amount_refunded"] += amount
            charge["refunded"] = charge["amount_refunded"] >= charge["amount"]
            refund["balance_transaction"] = self._move(refund, "refund", -amount)["id"]
            facts = {"charge": charge["id"], "reference": str(refund["metadata"].get("reference", ""))}
            self._record(
                Kind.REFUND,
                refund["id"],
                self._key_of_charge(charge),
                amount,
                charge["currency"],
                facts,
            )
            self.happen("charge.refunded", charge)
        self.happen("refund.created", refund)
        if method and method.refund_status == "failed":
            self._fail_refund(refund)
        return refund

    def _fail_refund(self, refund: Resource) -> None:
        """The payer's bank sends it back, days later; the money is the merchant's again."""
        charge = self.resources[refund["charge"]]
        refund |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        refund["failure_balance_transaction"] = self._move(refund, "refund_failure", refund["amount"])["id"]
        charge["amount_refunded"] -= refund["amount"]
        charge["refunded"] = False
        facts = {"charge": charge["id"]}
        self._record(
            Kind.REFUND_FAILED,
            refund["id"],
            self._key_of_charge(charge),
            refund["amount"],
            charge["currency"],
            facts,
        )
        self.happen("refund.failed", refund)

    def dispute(self, offer: str, *, amount: int | None = None, reason: str = "fraudulent") -> str:
        """The payer complains at the bank, which takes the money; the dispute's id."""
        charge = self._charge_of(offer)
        wanted = charge["amount_captured"] if amount is None else amount
        dispute = resources.dispute(self._id("du_1"), self._unix(), charge, amount=wanted, reason=reason)
        self._new(dispute)
        charge["disputed"] = True
        dispute["balance_transactions"] = [self._move(dispute, "adjustment", -wanted, fee=1500)]
        facts = {"charge": charge["id"], "reason": reason}
        self._record(
            Kind.DISPUTE,
            dispute["id"],
            self._key_of_charge(charge),
            wanted,
            charge["currency"],
            facts,
        )
        self.happen("charge.dispute.created", dispute)
        self.happen("charge.dispute.funds_withdrawn", dispute)
        return str(dispute["id"])

    def close_dispute(self, dispute: str, *, won: bool) -> None:
        """The bank decides."""
        found = self.resources[dispute]
        found["status"] = "won" if won else "lost"
        if won:
            found["balance_transactions"].append(self._move(found, "adjustment", found["amount"]))
            self.happen("charge.dispute.funds_reinstated", found)
        self.happen("charge.dispute.closed", found)

    def settle_refund(self, refund: str, *, succeeds: bool = True) -> None:
        """A pending refund arrives, or comes back."""
        found = self.resources[refund]
        if succeeds:
            found["status"] = "succeeded"
            self.happen("refund.updated", found)
        else:
            self._fail_refund(found)

    # Finding things

    def _intent(self, request: Request) -> Resource:
        return self._get("payment_intent", request.params["id"], param="intent")

    def _session(self, request: Request) -> Resource:
        return self._get("checkout.session", request.params["id"], param="session")

    def _card(self, intent: Resource) -> Card:
        return self._cards[intent["payment_method"]]

    def _page_of(self, intent: Resource) -> Resource | None:
        page = next((page for page, tried in self._tried.items() if tried == intent["id"]), None)
        return self.resources[page] if page is not None else None

    def _page_is_open(self, intent: Resource) -> bool:
        page = self._page_of(intent)
        return page is not None and page["status"] == "open"

    def _intent_of(self, offer: str) -> Resource:
        """By a page's address or id, an intent's id or client secret, or a charge."""
        id = path_of(offer).rstrip("/").rpartition("/")[2].partition("_secret_")[0]
        found = self.resources.get(id)
        if found is not None and found["object"] == "checkout.session":
            return self._intent_for(found)
        if found is not None and found["object"] == "charge":
            return self._intent_behind(found)
        if found is None or found["object"] != "payment_intent":
            raise LookupError(f"{self.vendor} has nothing to pay at {offer}")
        return found

    def _payable(self, offer: str) -> Resource:
        self.tick()
        page = self.resources.get(path_of(offer).rstrip("/").rpartition("/")[2])
        if page is not None and page["object"] == "checkout.session" and page["status"] != "open":
            raise LookupError(f"{self.vendor}: the page {page['id']} is {page['status']}")
        intent = self._intent_of(offer)
        if intent["status"] not in CONFIRMABLE:
            raise LookupError(f"{self.vendor}: {intent['id']} is {intent['status']}")
        return intent

    def _charge_of(self, offer: str) -> Resource:
        charge = self.resources.get(self._intent_of(offer)["latest_charge"] or "")
        if charge is None or not charge["captured"]:
            raise LookupError(f"{self.vendor}: nothing was paid for {offer}")
        return charge

    # Small things

    def _unexpected(self, intent: Resource, text: str) -> Refusal:
        written = self._written(intent, self._version)
        return Refusal(400, text, code="payment_intent_unexpected_state", payment_intent=written)

    def _key_of(self, intent: Resource) -> str:
        """The caller's name of what the intent is for: its page's, where a page made it."""
        page = self._page_of(intent)
        return self._key_of_page(page) if page is not None else self.reference(intent)

    def _key_of_charge(self, charge: Resource) -> str:
        return self._key_of(self._intent_behind(charge))

    def _intent_behind(self, charge: Resource) -> Resource:
        id = charge["payment_intent"]
        return self._behind[charge["id"]] if id is None else self.resources[id]

    def _key_of_page(self, page: Resource) -> str:
        named = self.reference(page)
        return named if named != page["id"] else self.reference({**self._intent_data[page["id"]], "id": page["id"]})

    def _offer(self, resource: Resource, amount: int, currency: str) -> None:
        facts = {"kind": str(resource["object"]), "attempt": self._key or ""}
        is_page = resource["object"] == "checkout.session"
        if is_page:
            facts["expires_at"] = datetime.fromtimestamp(resource["expires_at"], UTC).isoformat()
        key = self._key_of_page(resource) if is_page else self.reference(resource)
        self._record(Kind.OFFER, resource["id"], key, amount, currency, facts)
