"""What a Stripe account holds besides payments: customers, cards, prices, events, balance, webhook endpoints."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, cast

from holdfast.errors import InvalidInput
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.forms import Nested
from holdfast.testing.simulators.simulator import Request, Response, route
from holdfast.testing.simulators.stripe import resources
from holdfast.testing.simulators.stripe.api import DAY, Refusal, StripeApi, mapping, metadata, missing, whole
from holdfast.testing.simulators.stripe.cards import CARDS, Card, named_card
from holdfast.testing.simulators.stripe.resources import Resource
from holdfast.values import Money

LARGEST: Final = 99_999_999
LISTED_EVENTS: Final = 30 * DAY
CUSTOMER: Final = ("address", "description", "email", "name", "phone", "preferred_locales", "shipping")


class StripeAccount(StripeApi):
    """Everything around a payment."""

    def _forget(self) -> None:
        super()._forget()
        self._cards: dict[str, Card] = {}
        """By payment method."""

    # Customers and their cards

    @route("POST", "/v1/customers", "customers.create")
    def create_customer(self, request: Request) -> Response:
        asked = self._asked(request)
        customer = resources.customer(self._id("cus_", 14), self._unix(), self._made_up(8).upper())
        self._new(customer)
        self._update_customer(customer, asked)
        self.happen("customer.created", customer)
        return self._show(request, customer)

    @route("GET", "/v1/customers", "customers.find")
    def list_customers(self, request: Request) -> Response:
        asked = self._asked(request)
        found = [one for one in self._of("customer") if asked.get("email") in (None, one["email"])]
        return self._page(request, found)

    @route("GET", "/v1/customers/search", "customers.search")
    def search_customers(self, request: Request) -> Response:
        return self._found(request, "customer")

    @route("GET", "/v1/customers/{id}", "customers.fetch")
    def read_customer(self, request: Request) -> Response:
        found = self.resources.get(request.params["id"], {})
        return self._show(request, found if found.get("deleted") else self._get("customer", request.params["id"]))

    @route("POST", "/v1/customers/{id}", "customers.update")
    def update_customer(self, request: Request) -> Response:
        customer = self._get("customer", request.params["id"])
        self._update_customer(customer, self._asked(request))
        self.happen("customer.updated", customer)
        return self._show(request, customer)

    @route("DELETE", "/v1/customers/{id}", "customers.delete")
    def delete_customer(self, request: Request) -> Response:
        customer = self._get("customer", request.params["id"])
        self.happen("customer.deleted", customer)
        deleted = self._new({"id": customer["id"], "object": "customer", "deleted": True})
        return self._show(request, deleted)

    @route("POST", "/v1/payment_methods", "customers.create")
    def create_method(self, request: Request) -> Response:
        return self._show(request, self._method_from(self._asked(request)))

    @route("GET", "/v1/payment_methods", "customers.find")
    def list_methods(self, request: Request) -> Response:
        asked = self._asked(request)
        found = [one for one in self._of("payment_method") if one["customer"] == asked.get("customer", "")]
        return self._page(request, found)

    @route("GET", "/v1/payment_methods/{id}", "customers.fetch")
    def read_method(self, request: Request) -> Response:
        return self._show(request, self._get("payment_method", request.params["id"]))

    @route("POST", "/v1/payment_methods/{id}/attach", "customers.update")
    def attach_method(self, request: Request) -> Response:
        asked = self._asked(request, ("customer", "customer_account"))
        customer = self._get("customer", str(asked.get("customer", "")), param="customer")
        method = self._method(request.params["id"])
        method["customer"] = customer["id"]
        self.happen("payment_method.attached", method)
        return self._show(request, method)

    @route("POST", "/v1/payment_methods/{id}/detach", "customers.update")
    def detach_method(self, request: Request) -> Response:
        method = self._get("payment_method", request.params["id"])
        method["customer"] = None
        return self._show(request, method)

    # What is sold

    @route("POST", "/v1/products", "catalog.create")
    def create_product(self, request: Request) -> Response:
        asked = self._asked(request)
        if "name" not in asked:
            raise missing("name")
        product = self._new(resources.product(self._id("prod_", 14), self._unix(), str(asked["name"])))
        product["metadata"] = metadata({}, asked.get("metadata", {}))
        return self._show(request, product)

    @route("GET", "/v1/products", "catalog.find")
    def list_products(self, request: Request) -> Response:
        return self._page(request, self._of("product"))

    @route("GET", "/v1/products/{id}", "catalog.fetch")
    def read_product(self, request: Request) -> Response:
        return self._show(request, self._get("product", request.params["id"]))

    @route("POST", "/v1/prices", "catalog.create")
    def create_price(self, request: Request) -> Response:
        return self._show(request, self._new(self._price(self._asked(request))))

    @route("GET", "/v1/prices", "catalog.find")
    def list_prices(self, request: Request) -> Response:
        return self._page(request, self._of("price"))

    @route("GET", "/v1/prices/{id}", "catalog.fetch")
    def read_price(self, request: Request) -> Response:
        return self._show(request, self._get("price", request.params["id"]))

    # Events, balance, endpoints

    @route("GET", "/v1/events", "events.find")
    def list_events(self, request: Request) -> Response:
        """Those of the last thirty days."""
        asked = self._asked(request)
        kinds = asked.get("types") or ([asked["type"]] if "type" in asked else None)
        found = [one for one in self._of("event") if one["created"] > self._unix() - LISTED_EVENTS]
        if kinds is not None:
            found = [one for one in found if _names(one["type"], cast(list[str], kinds))]
        return self._page(request, found)

    @route("GET", "/v1/events/{id}", "events.fetch")
    def read_event(self, request: Request) -> Response:
        found = self._get("event", request.params["id"])
        if found["created"] <= self._unix() - LISTED_EVENTS:
            raise Refusal(404, f"No such event: '{found['id']}'", code="resource_missing", param="id")
        return self._show(request, found)

    @route("GET", "/v1/balance", "account.balance")
    def read_balance(self, request: Request) -> Response:
        available: dict[str, int] = {}
        pending: dict[str, int] = {}
        for move in self._of("balance_transaction"):
            side = available if move["available_on"] <= self._unix() else pending
            side[move["currency"]] = side.get(move["currency"], 0) + move["net"]
        currencies = sorted(available.keys() | pending.keys()) or ["usd"]

        def written(side: Mapping[str, int]) -> list[Resource]:
            return [
                {"amount": side.get(name, 0), "currency": name, "source_types": {"card": side.get(name, 0)}}
                for name in currencies
            ]

        balance = {"object": "balance", "available": written(available), "pending": written(pending)}
        return self._show(request, {**balance, "livemode": False})

    @route("GET", "/v1/balance_transactions", "account.find")
    def list_moves(self, request: Request) -> Response:
        asked = self._asked(request)
        found = self._of("balance_transaction")
        for name in ("source", "type", "currency"):
            if name in asked:
                found = [one for one in found if one[name] == asked[name]]
        return self._page(request, found)

    @route("GET", "/v1/balance_transactions/{id}", "account.fetch")
    def read_move(self, request: Request) -> Response:
        return self._show(request, self._get("balance_transaction", request.params["id"]))

    @route("POST", "/v1/webhook_endpoints", "webhooks.create")
    def create_endpoint(self, request: Request) -> Response:
        """Its secret is in this answer and in no other."""
        asked = self._asked(request, ("api_version", "connect", "description", "enabled_events", "metadata", "url"))
        for name in ("url", "enabled_events"):
            if name not in asked:
                raise missing(name)
        kinds = cast(list[str], asked["enabled_events"])
        endpoint = resources.webhook_endpoint(
            self._id("we_1"), self._unix(), url=str(asked["url"]), enabled_events=kinds
        )
        endpoint |= {"description": asked.get("description"), "api_version": asked.get("api_version")}
        endpoint["metadata"] = metadata({}, asked.get("metadata", {}))
        self._new(endpoint)
        self._secrets[endpoint["id"]] = f"whsec_{self._made_up(32)}"
        return self._show(request, endpoint, secret=self._secrets[endpoint["id"]])

    @route("GET", "/v1/webhook_endpoints", "webhooks.find")
    def list_endpoints(self, request: Request) -> Response:
        return self._page(request, self._of("webhook_endpoint"))

    @route("GET", "/v1/webhook_endpoints/{id}", "webhooks.fetch")
    def read_endpoint(self, request: Request) -> Response:
        return self._show(request, self._get("webhook_endpoint", request.params["id"]))

    @route("POST", "/v1/webhook_endpoints/{id}", "webhooks.update")
    def update_endpoint(self, request: Request) -> Response:
        endpoint = self._get("webhook_endpoint", request.params["id"])
        asked = self._asked(request, ("description", "disabled", "enabled_events", "metadata", "url"))
        endpoint |= {name: asked[name] for name in ("description", "enabled_events", "url") if name in asked}
        if "disabled" in asked:
            endpoint["status"] = "disabled" if asked["disabled"] == "true" else "enabled"
        endpoint["metadata"] = metadata(endpoint["metadata"], asked.get("metadata", {}))
        return self._show(request, endpoint)

    @route("DELETE", "/v1/webhook_endpoints/{id}", "webhooks.delete")
    def delete_endpoint(self, request: Request) -> Response:
        endpoint = self._get("webhook_endpoint", request.params["id"])
        del self.resources[endpoint["id"]]
        return self._show(request, {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True})

    # What is asked for

    def _amount(self, asked: Mapping[str, object], *, currency: str = "") -> int:
        amount, currency = whole(asked, "amount"), currency or self._currency(asked)
        if amount < 1:
            raise Refusal(400, "Invalid positive integer", code="parameter_invalid_integer", param="amount")
        least = resources.MINIMUM.get(currency, 1)
        if amount < least:
            text = f"Amount must be at least {self._money(least, currency)}"
            raise Refusal(400, text, code="amount_too_small", param="amount")
        if amount > LARGEST:
            text = f"Amount must be no more than {self._money(LARGEST, currency)}"
            raise Refusal(400, text, code="amount_too_large", param="amount")
        step = resources.STEPS.get(currency, 1)
        if amount % step:
            raise Refusal(400, f"Amounts in {currency} must be multiples of {step}.", param="amount")
        return amount

    def _currency(self, asked: Mapping[str, object]) -> str:
        if "currency" not in asked:
            raise missing("currency")
        currency = str(asked["currency"]).lower()
        try:
            self._money(0, currency)
        except InvalidInput:
            text = f"Invalid currency: {currency}. Stripe currently supports these currencies: usd, aed, afn, all, …"
            raise Refusal(400, text, param="currency") from None
        return currency

    def _price(self, asked: Mapping[str, object]) -> Resource:
        currency, unit_amount = self._currency(asked), whole(asked, "unit_amount")
        now, product = self._unix(), asked.get("product")
        if product is None:
            name = mapping(asked.get("product_data")).get("name")
            if name is None:
                raise missing("product_data[name]")
            product = self._new(resources.product(self._id("prod_", 14), now, str(name)))["id"]
        self._get("product", str(product), param="product")
        return resources.price(
            self._id("price_1"), now, currency=currency, unit_amount=unit_amount, product=str(product)
        )

    def _given_method(self, asked: Mapping[str, object]) -> Resource | None:
        if "payment_method_data" in asked:
            return self._method_from(mapping(asked["payment_method_data"]))
        return self._method(str(asked["payment_method"])) if asked.get("payment_method") else None

    def _method(self, id: str) -> Resource:
        """The method of that id; a new one for a name like `pm_card_visa`."""
        card = named_card(id)
        return self._new_method(card) if card else self._get("payment_method", id, param="payment_method")

    def _method_from(self, asked: Mapping[str, object]) -> Resource:
        if asked.get("type") != "card":
            raise Refusal(400, "The simulator's payment methods are cards.", param="type")
        given = mapping(asked.get("card"))
        card = named_card(str(given.get("token", "")))
        card = card or CARDS.get(str(given.get("number", "")).replace(" ", ""))
        if card is None:
            text = "Your card number is incorrect."
            raise Refusal(402, text, type="card_error", code="incorrect_number", param="number", began=True)
        return self._new_method(card)

    def _new_method(self, card: Card) -> Resource:
        method = self._new(resources.payment_method(self._id("pm_1"), card, self._unix()))
        self._cards[method["id"]] = card
        return method

    def _update_customer(self, customer: Resource, asked: Nested) -> None:
        customer |= {name: asked[name] or None for name in CUSTOMER if name in asked}
        customer["metadata"] = metadata(customer["metadata"], asked.get("metadata", {}))

    # Small things

    def _move(self, source: Resource, kind: str, amount: int, *, fee: int = 0) -> Resource:
        move = resources.balance_transaction(self._id("txn_3"), self._unix(), source, type=kind, amount=amount, fee=fee)
        return self._new(move)

    def _record(self, kind: Kind, id: str, key: str, amount: int, currency: str, facts: Mapping[str, str]) -> None:
        money = self._money(amount, currency)
        self.ledger.record(kind, vendor=self.vendor, id=id, key=key, money=money, facts=facts)

    def _money(self, amount: int, currency: str) -> Money:
        return Money(Decimal(amount).scaleb(-resources.exponent(currency)), currency.upper())


def _names(kind: str, wanted: list[str]) -> bool:
    """Whether it is one of them; `charge.*` names them all."""
    return any(kind == one or (one.endswith("*") and kind.startswith(one[:-1])) for one in wanted)
