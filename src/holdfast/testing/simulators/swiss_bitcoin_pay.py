"""Swiss Bitcoin Pay, simulated: both shapes of its checkout, its signature, its silence about retries."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal
from typing import Final, Literal, cast
from uuid import UUID

from holdfast.clock import Clock
from holdfast.errors import InvalidInput
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.invoices import Invoice, make_invoice
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route
from holdfast.values import BTC, Money

Shape = Literal["status", "boolean"]

SATS_PER_UNIT: Final = Decimal(1250)
"""Made up: so many satoshi per unit of any fiat currency."""
ONCHAIN_CONFIRMATIONS: Final = 1


@dataclass(kw_only=True, slots=True)
class Checkout:
    """One checkout, as their database may hold it."""

    id: str
    title: str
    price: Money
    unit: str
    amount: Decimal
    sats: int
    delay: int
    created_at: datetime
    invoice: Invoice
    address: str | None
    webhook: str | None
    webhook_headers: Mapping[str, str]
    redirect: str | None
    extra: Mapping[str, object]
    status: str = "open"
    paid_at: datetime | None = None
    received_sats: int = 0

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(minutes=self.delay)

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return str(self.extra.get("reference") or self.id)

    def to_json(self, shape: Shape, page: str) -> dict[str, object]:
        """As `GET /checkout/{id}` and the webhook write it."""
        common: dict[str, object] = {
            "id": self.id,
            "title": self.title,
            "createdAt": int(self.created_at.timestamp()),
            "delay": self.delay,
            "extra": dict(self.extra),
            "checkoutUrl": page,
        }
        paid_at = int(self.paid_at.timestamp()) if self.paid_at else None
        if self.redirect and self.status == "settled":
            common["redirectAfterPaid"] = self.redirect
        if shape == "boolean":
            return common | {
                "pr": self.invoice.bolt11,
                "hash": self.invoice.payment_hash,
                "amount": _number(self.amount),
                "btcAmount": f"{Decimal(self.sats).scaleb(-8):.8f}",
                "unit": self.unit,
                "isPaid": self.status == "settled",
                "isInit": True,
                "isExpired": self.status == "expired",
                "isPending": self.status == "unconfirmed",
                "paymentMethod": "lightning" if self.status == "settled" else None,
                "paidAt": paid_at,
                "onChainAddr": self.address,
            }
        lightning: dict[str, object] = {
            "network": "lightning",
            "paymentRequest": self.invoice.bolt11,
            "hash": self.invoice.payment_hash,
        }
        if self.received_sats:
            lightning |= {"amount": self.received_sats, "paidAt": paid_at}
        return common | {
            "merchantName": "Simulated merchant",
            "tag": "invoice",
            "description": "",
            "expiry": int(self.expires_at.timestamp()),
            "amount": self.sats,
            "status": self.status,
            "paidAt": paid_at,
            "input": {"unit": self.unit, "amount": _number(self.amount)},
            "paymentDetails": [lightning],
        }


class SwissBitcoinPaySimulator(Simulator):
    """One merchant's account; `shape` is the generation of the server that answers."""

    vendor = "swiss-bitcoin-pay"
    hosts = ("api.swiss-bitcoin-pay.ch",)
    schemes = ("sha256", "sha1")

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
        api_key: str = "sbp-api-key",
        shape: Shape = "status",
    ) -> None:
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.api_key = api_key
        self.shape: Shape = shape
        self.checkouts: dict[str, Checkout] = {}

    @route("POST", "/checkout", "payments.create")
    def create(self, request: Request) -> Response:
        """Needs the key; the answer is 201."""
        if request.header("api-key") != self.api_key:
            return _reason("invalid_api_key", 401)
        signature = request.header("sbp-sig")
        if signature is not None and not hmac.compare_digest(signature, self._signature(request.body)):
            return _reason("invalid_signature", 401)
        asked = request.json()
        try:
            checkout = self._checkout(asked)
        except (InvalidInput, TypeError, ValueError) as error:
            return _reason(str(error), 400)
        self.checkouts[checkout.id] = checkout
        facts = {"attempt": str(checkout.extra.get("attempt", "")), "expires_at": checkout.expires_at.isoformat()}
        self.ledger.record(
            Kind.OFFER, vendor=self.vendor, id=checkout.id, key=checkout.key, money=checkout.price, facts=facts
        )
        answer = {"id": checkout.id, "pr": checkout.invoice.bolt11, "checkoutUrl": self._page(checkout)}
        return Response.json(answer | ({"onChainAddr": checkout.address} if checkout.address else {}), status=201)

    @route("GET", "/checkout/{id}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        """Needs no key."""
        checkout = self.checkouts.get(request.params["id"])
        return self._answer(checkout) if checkout else _reason("invoice_not_found", 404)

    @route("POST", "/hmac-check", "account.check")
    def check(self, request: Request) -> Response:
        """Whether key and secret are right."""
        right = request.header("api-key") == self.api_key
        signed = hmac.compare_digest(request.header("sbp-sig") or "", self._signature(request.body))
        return (
            Response.json({"accountName": "Simulated merchant"}) if right and signed else _reason("unauthorized", 401)
        )

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"api_key": self.api_key, "webhook_secret": self.webhook_secret}

    def pay(self, offer: str) -> None:
        """Over Lightning, in full; the webhook says `settled`."""
        checkout = self._payable(offer)
        checkout.received_sats = checkout.sats
        self._settle(checkout)

    def underpay(self, offer: str, sats: int) -> None:
        """So many satoshi come in, and they are too few."""
        checkout = self._payable(offer)
        checkout.received_sats = sats
        checkout.paid_at = self.clock.now()
        self._become(checkout, "underpaid")

    def see_onchain(self, offer: str) -> None:
        """A transaction is seen and not confirmed yet; `confirm` confirms it, even after the expiry."""
        self._become(self._payable(offer), "unconfirmed")

    def confirm(self, offer: str) -> None:
        """The transaction seen is confirmed."""
        checkout = self._find(offer)
        checkout.received_sats = checkout.sats
        self._settle(checkout)

    def tick(self) -> None:
        """What was not paid in time expires."""
        for checkout in self.checkouts.values():
            if checkout.status == "open" and checkout.expires_at <= self.clock.now():
                self._become(checkout, "expired")

    def reset(self) -> None:
        super().reset()
        self.checkouts.clear()

    def not_found(self, request: Request) -> Response:
        return _reason("not_found", 404)

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """`sbp-sig`: no time in it, so an old one still verifies."""
        return (("sbp-sig", f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"),)

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another checkout, still open, is called settled."""
        candidates = [found for found in self.checkouts.values() if found.status == "open" and found.webhook]
        if not candidates:
            return None
        unpaid = self.random().choice(candidates)
        claimed = replace(unpaid, status="settled", paid_at=self.clock.now(), received_sats=unpaid.sats)
        return self._webhook(claimed)

    def _checkout(self, asked: Mapping[str, object]) -> Checkout:
        title, amount, unit = asked.get("title"), asked.get("amount"), str(asked.get("unit", "CHF"))
        if not isinstance(title, str) or not title:
            raise ValueError("title is required")
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal) or amount <= 0:
            raise ValueError("amount must be a number")
        price = _price(Decimal(amount), unit)
        sats = price.sat if price.currency == BTC else int((price.amount * SATS_PER_UNIT).to_integral_value(ROUND_UP))
        random = self.random()
        webhook, headers = _webhook_target(asked.get("webhook"))
        redirect = asked.get("redirectAfterPaid")
        return Checkout(
            id=str(UUID(int=random.getrandbits(128), version=4)),
            title=title,
            price=price,
            unit=unit,
            amount=Decimal(amount),
            sats=sats,
            delay=_minutes(asked.get("delay", 10)),
            created_at=self.clock.now(),
            invoice=make_invoice(sats, random),
            address=f"bc1q{random.getrandbits(160):040x}" if asked.get("onChain") else None,
            webhook=webhook,
            webhook_headers=headers,
            redirect=redirect if isinstance(redirect, str) else None,
            extra=_mapping(asked.get("extra")),
        )

    def _find(self, offer: str) -> Checkout:
        id = offer.rstrip("/").rpartition("/")[2]
        for checkout in self.checkouts.values():
            if id == checkout.id or offer in (checkout.invoice.bolt11, checkout.address):
                return checkout
        raise LookupError(f"{self.vendor} has no checkout {offer}")

    def _payable(self, offer: str) -> Checkout:
        self.tick()
        checkout = self._find(offer)
        if checkout.status != "open":
            raise LookupError(f"{self.vendor}: checkout {checkout.id} is {checkout.status}")
        return checkout

    def _settle(self, checkout: Checkout) -> None:
        checkout.paid_at = self.clock.now()
        self.ledger.record(
            Kind.CAPTURE,
            vendor=self.vendor,
            id=checkout.id,
            key=checkout.key,
            money=checkout.price,
            facts={"sats": str(checkout.received_sats)},
        )
        self._become(checkout, "settled")

    def _become(self, checkout: Checkout, status: str) -> None:
        checkout.status = status
        if checkout.webhook:
            self.owe(self._webhook(checkout))

    def _webhook(self, checkout: Checkout) -> Webhook:
        body = json.dumps(checkout.to_json(self.shape, self._page(checkout)), separators=(",", ":")).encode()
        return Webhook(
            vendor=self.vendor,
            url=checkout.webhook or "",
            event=checkout.status,
            about=checkout.id,
            key=checkout.key,
            body=body,
            headers=(("content-type", "application/json"), *checkout.webhook_headers.items()),
        )

    def _answer(self, checkout: Checkout) -> Response:
        return Response.json(checkout.to_json(self.shape, self._page(checkout)))

    def _page(self, checkout: Checkout) -> str:
        return f"{self.base_url}/pay/{checkout.id}"

    def _signature(self, body: bytes) -> str:
        return self.sign(body, secret=self.webhook_secret, at=self.clock.now())[0][1]


def _reason(text: str, status: int) -> Response:
    return Response.json({"reason": text}, status=status)


def _price(amount: Decimal, unit: str) -> Money:
    return Money(amount.scaleb(-8), BTC) if unit in ("sat", "sats") else Money(amount, unit)


def _minutes(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("delay must be a number of minutes")
    return value


def _webhook_target(value: object) -> tuple[str | None, Mapping[str, str]]:
    """An object with a url, as documented, or the bare address that several official plugins send."""
    if isinstance(value, str):
        return value, {}
    target = _mapping(value)
    url = target.get("url")
    headers = {name: str(text) for name, text in _mapping(target.get("headers")).items()}
    return (url, headers) if isinstance(url, str) else (None, {})


def _mapping(value: object) -> Mapping[str, object]:
    return cast(Mapping[str, object], value) if isinstance(value, dict) else {}


def _number(amount: Decimal) -> float | int:
    # JSON numbers of these sizes survive a float's shortest text, which is what a JavaScript server writes.
    return int(amount) if amount == amount.to_integral_value() else float(amount)
