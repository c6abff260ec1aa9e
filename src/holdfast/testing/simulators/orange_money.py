"""Orange Money Web Payment, simulated: pages of ten minutes, a status for who has the token, one notification."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final
from urllib.parse import parse_qs

from holdfast.clock import Clock
from holdfast.errors import InvalidInput
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Response, Simulator, Webhook, route
from holdfast.values import Money

SANDBOX: Final = "dev"
SANDBOX_CURRENCY: Final = "OUV"
LONGEST_NAME: Final = 30
LONGEST_URL: Final = 120
SPIKE: Final = 25
"""Calls a second of one app. https://developer.orange.com/resources/orange-apis-error-handling"""
OPEN: Final = frozenset({"INITIATED", "PENDING"})


@dataclass(kw_only=True, slots=True)
class Order:
    """A web payment, as they hold it."""

    order_id: str
    amount: int
    money: Money
    reference: str
    notif_url: str
    pay_token: str
    notif_token: str
    until: datetime
    status: str = "INITIATED"
    txnid: str = ""

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return self.reference or self.order_id


class OrangeMoneySimulator(Simulator):
    """One merchant in one country, or in the sandbox `dev`, where everything is in `OUV`.

    In the ledger an order's id is its token, which its page and its status are asked by. How they refuse an order id
    that was used before, and what they answer to a wrong token, is made up.
    """

    vendor: ClassVar[str] = "orange-money"
    hosts: ClassVar[tuple[str, ...]] = ("api.orange.com",)

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        country: str = SANDBOX,
        currency: str = "XOF",
        client_id: str = "orange-client",
        client_secret: str = "orange-client-secret",
        merchant_key: str = "orange-merchant-key",
        token_life: int = 3600,
        page_life: float = 600,
    ) -> None:
        """`currency` is the country's; in the sandbox, the one that the ledger counts in."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.country = country
        self.currency = currency
        self.client_id = client_id
        self.client_secret = client_secret
        self.merchant_key = merchant_key
        self.token_life = token_life
        self.page_life = page_life
        self.orders: dict[str, Order] = {}
        """By order id."""
        self.tokens: dict[str, datetime] = {}
        self._calls = self.window(SPIKE)

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "merchant_key": self.merchant_key,
            "country": self.country,
            "currency": self.currency,
        }

    def reset(self) -> None:
        super().reset()
        self.orders.clear()
        self.tokens.clear()

    def not_found(self, request: Request) -> Response:
        return _error(60, "Resource not found", 404)

    def answer(self, request: Request) -> Response:
        if self._calls.wait():
            return self.limited(self._calls.wait())
        self._calls.take()
        return super().answer(request)

    def limited(self, wait: float) -> Response:
        return _error(53, "Too many requests", 403)

    # The token

    @route("POST", "/oauth/v3/token", "token")
    def issue(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return Response.json({"error": "unsupported_grant_type"}, status=400)
        if _basic(request.header("authorization")) != f"{self.client_id}:{self.client_secret}":
            return _error(41, "Invalid credentials", 401)
        token = f"{self.random().getrandbits(160):040x}"
        self.tokens[token] = self.clock.now() + timedelta(seconds=self.token_life)
        return Response.json({"token_type": "Bearer", "access_token": token, "expires_in": self.token_life})

    def expire(self, request: Request) -> bool:
        return self.tokens.pop((request.header("authorization") or "").removeprefix("Bearer "), None) is not None

    # Orders

    @route("POST", "/orange-money-webpay/{country}/v1/webpayment", "payments.create")
    def create(self, request: Request) -> Response:
        """A page, and the two tokens that are told this once."""
        if refusal := self._unauthorized(request):
            return refusal
        asked = request.json()
        if asked.get("merchant_key") != self.merchant_key:
            return _error(52, "Forbidden user", 403)
        try:
            order = self._order(asked)
        except (InvalidInput, ValueError) as error:
            return _error(24, f"Invalid body field: {error}", 400)
        self.orders[order.order_id] = order
        self.ledger.record(
            Kind.OFFER,
            vendor=self.vendor,
            id=order.pay_token,
            key=order.key,
            money=order.money,
            facts={"expires_at": order.until.isoformat()},
        )
        made = {
            "status": 201,
            "message": "OK",
            "pay_token": order.pay_token,
            "payment_url": f"{self.base_url}/payment/pay_token/{order.pay_token}",
            "notif_token": order.notif_token,
        }
        return Response.json(made, status=201)

    @route("POST", "/orange-money-webpay/{country}/v1/transactionstatus", "payments.fetch")
    def status(self, request: Request) -> Response:
        """Only for who says order, amount and token as they belong together."""
        if refusal := self._unauthorized(request):
            return refusal
        asked = request.json()
        order = self.orders.get(str(asked.get("order_id")))
        if order is None or (asked.get("amount"), asked.get("pay_token")) != (order.amount, order.pay_token):
            return _error(60, "Resource not found", 404)
        told = {"status": order.status, "order_id": order.order_id} | ({"txnid": order.txnid} if order.txnid else {})
        return Response.json(told, status=201)

    # What payers do

    def confirm(self, offer: str) -> None:
        """The payer has typed number and code; the wallet is being asked."""
        self._open(offer).status = "PENDING"

    def pay(self, offer: str) -> None:
        """The wallet pays; an order is named by its page, its token, its id or the merchant's reference."""
        order = self._open(offer)
        order.txnid = f"MP{self.clock.now():%y%m%d.%H%M}.A{self.random().randrange(10**5):05d}"
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=order.pay_token, key=order.key, money=order.money)
        self._end(order, "SUCCESS")

    def fail(self, offer: str) -> None:
        """The wallet says no."""
        order = self._open(offer)
        self._close(order)
        self._end(order, "FAILED")

    def tick(self) -> None:
        """What was not paid in time expires; nobody is told."""
        for order in self.orders.values():
            if order.status in OPEN and order.until <= self.clock.now():
                self._close(order)
                order.status = "EXPIRED"

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another order, still open, is called a success; at its own address, with another's token."""
        candidates = [one for one in self.orders.values() if one.status in OPEN]
        if not candidates:
            return None
        return self._notification(self.random().choice(candidates), "SUCCESS", token=f"{0:032x}")

    # Small things

    def _order(self, asked: Mapping[str, object]) -> Order:
        currency = SANDBOX_CURRENCY if self.country == SANDBOX else self.currency
        order_id, amount, reference = str(asked.get("order_id", "")), asked.get("amount"), str(asked.get("reference"))
        if asked.get("currency") != currency:
            raise ValueError("currency")
        if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
            raise ValueError("amount")
        if not order_id or order_id in self.orders:
            raise ValueError("order_id")
        if max(len(order_id), len(reference)) > LONGEST_NAME:
            raise ValueError("order_id, reference")
        for name in ("return_url", "cancel_url", "notif_url"):
            if not 0 < len(str(asked.get(name, ""))) <= LONGEST_URL:
                raise ValueError(name)
        return Order(
            order_id=order_id,
            amount=amount,
            money=Money(amount, self.currency),
            reference=reference,
            notif_url=str(asked["notif_url"]),
            pay_token=f"{self.random().getrandbits(256):064x}",
            notif_token=f"{self.random().getrandbits(128):032x}",
            until=self.clock.now() + timedelta(seconds=self.page_life),
        )

    def _open(self, offer: str) -> Order:
        self.tick()
        name = offer.rpartition("/")[2]
        for order in reversed(self.orders.values()):
            if name in (order.pay_token, order.order_id, order.reference):
                if order.status not in OPEN:
                    raise LookupError(f"{self.vendor}: order {order.order_id} is {order.status}")
                return order
        raise LookupError(f"{self.vendor} has no order {offer}")

    def _close(self, order: Order) -> None:
        self.ledger.record(Kind.OFFER_CLOSED, vendor=self.vendor, id=order.pay_token, key=order.key, money=order.money)

    def _end(self, order: Order, status: str) -> None:
        order.status = status
        self.owe(self._notification(order, status))

    def _notification(self, order: Order, status: str, *, token: str = "") -> Webhook:
        told = {"status": status, "notif_token": token or order.notif_token, "txnid": order.txnid or None}
        return Webhook(
            vendor=self.vendor,
            url=order.notif_url,
            event=status,
            about=order.pay_token,
            key=order.key,
            body=json.dumps(told).encode(),
        )

    def _unauthorized(self, request: Request) -> Response | None:
        header = request.header("authorization")
        if header is None:
            return _error(40, "Missing credentials", 401)
        until = self.tokens.get(header.removeprefix("Bearer "))
        if until is None:
            return _error(41, "Invalid credentials", 401)
        if until <= self.clock.now():
            return _error(42, "Expired credentials", 401)
        return None if request.params["country"] == self.country else _error(50, "Access denied", 403)


def _error(code: int, message: str, status: int) -> Response:
    return Response.json({"code": code, "message": message, "description": message}, status=status)


def _basic(header: str | None) -> str:
    kind, _, encoded = (header or "").partition(" ")
    try:
        return b64decode(encoded).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""
