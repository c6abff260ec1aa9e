"""OpenNode, simulated: charges in satoshi, forms that sign nothing but an id, no word on retries.

Anchored in https://developers.opennode.com/docs/creating-a-charge and https://developers.opennode.com/docs/charges-webhooks
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal
from random import Random
from typing import Final, cast
from urllib.parse import urlencode
from uuid import UUID

from holdfast.clock import Clock
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.invoices import Invoice, make_invoice
from holdfast.testing.simulators.simulator import Request, Response, Simulator, Webhook, route
from holdfast.values import BTC, Money

PRICES: Final[Mapping[str, int]] = {
    **{"CHF": 80_000, "EUR": 85_000, "USD": 92_000},
    **{"XOF": 55_700_000, "JPY": 14_200_000, "KWD": 28_000},
}
"""Made up: what one bitcoin costs."""
SATS: Final = 100_000_000
MOST_LIGHTNING: Final = 500_000_000
"""Satoshi; above it there is no Lightning invoice."""
SHORTEST: Final = 10
LONGEST: Final = 1440
"""Minutes, and the default."""
FEE: Final = Decimal("0.01")
"""Made up."""
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


@dataclass(kw_only=True, slots=True)
class Charge:
    """One charge, as their database may hold it."""

    id: str
    price: Money
    currency: str
    asked: Decimal
    sats: int
    ttl: int
    description: str
    order_id: str | None
    callback_url: str | None
    success_url: str | None
    metadata: Mapping[str, object]
    auto_settle: bool
    notif_email: str | None
    created_at: datetime
    invoice: Invoice | None
    address: str
    status: str = "unpaid"
    settled_at: datetime | None = None
    over_lightning: bool = False
    transactions: list[int] = field(default_factory=list[int])

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return self.order_id or self.id

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(minutes=self.ttl)

    @property
    def missing(self) -> int:
        return 0 if self.over_lightning else max(0, self.sats - sum(self.transactions))

    @property
    def fee(self) -> int:
        return int(self.sats * FEE)


class OpenNodeSimulator(Simulator):
    """One account; `api_key` also keys what its webhooks sign."""

    vendor = "opennode"
    hosts = ("api.opennode.com", "dev-api.opennode.com")

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
        api_key: str = "opennode-api-key",
        prices: Mapping[str, int] = PRICES,
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
        self.prices = prices
        """What one bitcoin costs; a currency that is not there is none of theirs."""
        self.charges: dict[str, Charge] = {}

    @route("POST", "/v1/charges", "payments.create")
    def create(self, request: Request) -> Response:
        """No idempotency key: the same twice makes two."""
        if (refusal := self._refuse(request)) is not None:
            return refusal
        asked = request.json()
        amount, currency, ttl = (
            _decimal(asked.get("amount")),
            str(asked.get("currency") or BTC),
            asked.get("ttl", LONGEST),
        )
        if amount <= 0 or (currency == BTC and amount != int(amount)):
            return _failure("Amount is not valid")
        if currency != BTC and currency not in self.prices:
            return _failure("Currency is not supported")
        if not isinstance(ttl, int) or not SHORTEST <= ttl <= LONGEST:
            return _failure(f"ttl must be between {SHORTEST} and {LONGEST}")
        charge = self._charge(asked, amount, currency, ttl)
        self.charges[charge.id] = charge
        facts = {"attempt": "", "expires_at": charge.expires_at.isoformat()}
        self.ledger.record(
            Kind.OFFER, vendor=self.vendor, id=charge.id, key=charge.key, money=charge.price, facts=facts
        )
        return Response.json({"data": self._to_json(charge)}, status=201)

    @route("GET", "/v1/charge/{id}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        """One charge."""
        if (refusal := self._refuse(request)) is not None:
            return refusal
        charge = self.charges.get(request.params["id"])
        return Response.json({"data": self._to_json(charge)}) if charge else _failure("Charge not found", 404)

    @route("GET", "/v1/charges", "payments.list")
    def list(self, request: Request) -> Response:
        """Those that were paid, newest first."""
        if (refusal := self._refuse(request)) is not None:
            return refusal
        paid = [self._to_json(charge) for charge in reversed(self.charges.values()) if charge.status == "paid"]
        return Response.json({"data": paid})

    @route("GET", "/v1/rates", "payments.quote")
    def rates(self, request: Request) -> Response:
        """What a bitcoin costs, and a unit of the currency in bitcoin."""
        rates = {
            f"BTC{currency}": {currency: float(price), "BTC": 1 / price, "currency": currency}
            for currency, price in self.prices.items()
        }
        return self._refuse(request) or Response.json({"data": rates})

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"api_key": self.api_key}

    # What payers do

    def pay(self, offer: str) -> None:
        """Over Lightning, in full; a charge without an invoice cannot be paid so."""
        charge = self._payable(offer)
        if charge.invoice is None:
            raise LookupError(f"{self.vendor}: charge {charge.id} has no Lightning invoice")
        charge.over_lightning = True
        self._settle(charge)

    def see_onchain(self, offer: str, sats: int | None = None) -> None:
        """A transaction is seen, over all that is missing or so many satoshi; of too little only that is told."""
        charge = self._payable(offer)
        charge.transactions.append(charge.missing if sats is None else sats)
        self._become(charge, "underpaid" if charge.missing else "processing")

    def confirm(self, offer: str) -> None:
        """What was seen is confirmed."""
        charge = self._find(offer)
        if charge.status == "processing":
            self._settle(charge)

    def ask_back(self, offer: str) -> None:
        """The payer of too little wants it back instead of sending the rest."""
        charge = self._find(offer)
        self._become(charge, "refunded")

    def tick(self) -> None:
        """What was not paid in time expires."""
        for charge in self.charges.values():
            if charge.status == "unpaid" and charge.expires_at <= self.clock.now():
                self._become(charge, "expired")

    def reset(self) -> None:
        super().reset()
        self.charges.clear()

    # How webhooks are sent

    def not_found(self, request: Request) -> Response:
        return _failure("Not found", 404)

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """The same charge is called paid, or another: the right `hashed_order` is of the id alone."""
        candidates = [found for found in self.charges.values() if found.status == "unpaid" and found.callback_url]
        return self._webhook(replace(self.random().choice(candidates), status="paid")) if candidates else None

    # How charges live

    def _charge(self, asked: Mapping[str, object], amount: Decimal, currency: str, ttl: int) -> Charge:
        random = self.random()
        sats = int(amount if currency == BTC else (amount * SATS / self.prices[currency]).to_integral_value(ROUND_UP))
        return Charge(
            id=str(UUID(int=random.getrandbits(128), version=4)),
            price=Money.from_sat(sats) if currency == BTC else Money(amount, currency),
            currency=currency,
            asked=amount,
            sats=sats,
            ttl=ttl,
            description=str(asked.get("description") or "N/A"),
            order_id=_text(asked.get("order_id")),
            callback_url=_text(asked.get("callback_url")),
            success_url=_text(asked.get("success_url")),
            metadata=cast("Mapping[str, object]", asked.get("metadata") or {}),
            auto_settle=bool(asked.get("auto_settle")),
            notif_email=_text(asked.get("notif_email")),
            created_at=self.clock.now(),
            invoice=make_invoice(sats, random) if sats <= MOST_LIGHTNING else None,
            address=_address(random),
        )

    def _settle(self, charge: Charge) -> None:
        charge.settled_at = self.clock.now()
        extra = max(0, sum(charge.transactions) - charge.sats)
        more = Money.from_minor(charge.price.minor_units * extra // charge.sats, charge.price.currency)
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=charge.id, key=charge.key, money=charge.price + more)
        self._become(charge, "paid")

    def _become(self, charge: Charge, status: str) -> None:
        charge.status = status
        if charge.callback_url:
            self.owe(self._webhook(charge))

    def _to_json(self, charge: Charge) -> dict[str, object]:
        settled = None if charge.settled_at is None else _unix(charge.settled_at)
        fiat = charge.asked if charge.currency != BTC else Decimal(charge.sats) * self.prices["USD"] / SATS
        answer: dict[str, object] = {
            "id": charge.id,
            "description": charge.description,
            "desc_hash": False,
            "created_at": _unix(charge.created_at),
            "status": charge.status,
            "amount": charge.sats,
            "missing_amt": charge.missing,
            "callback_url": charge.callback_url,
            "success_url": charge.success_url,
            "hosted_checkout_url": f"{self.base_url}/{charge.id}",
            "order_id": charge.order_id,
            "currency": charge.currency,
            "source_fiat_value": _number(charge.asked),
            "fiat_value": _number(fiat.quantize(Decimal("0.00000001"))),
            "auto_settle": charge.auto_settle,
            "notif_email": charge.notif_email,
            "address": charge.address,
            "metadata": dict(charge.metadata),
            "chain_invoice": {"address": charge.address, "settled_at": None if charge.over_lightning else settled},
            "uri": f"bitcoin:{charge.address}?amount={Decimal(charge.sats).scaleb(-8):f}",
            "ttl": charge.ttl,
            "lightning_invoice": None,
        }
        if charge.invoice is not None:
            answer["lightning_invoice"] = {
                "expires_at": _unix(charge.expires_at),
                "payreq": charge.invoice.bolt11,
                "settled_at": settled if charge.over_lightning else None,
            }
        if charge.settled_at is not None:
            answer["fee"] = charge.fee
        if charge.transactions:
            answer["transactions"] = [
                {"address": charge.address, "tx": f"{number:064x}", "amount": sats, "settled_at": settled}
                for number, sats in enumerate(charge.transactions)
            ]
        return answer

    def _webhook(self, charge: Charge) -> Webhook:
        """A form, every value a text."""
        form = {
            "id": charge.id,
            "callback_url": charge.callback_url or "",
            "success_url": charge.success_url or "",
            "status": charge.status,
            "order_id": charge.order_id or "N/A",
            "description": charge.description,
            "price": str(charge.sats),
            "fee": str(charge.fee if charge.status == "paid" else 0),
            "auto_settle": "1" if charge.auto_settle else "0",
            "hashed_order": hmac.new(self.api_key.encode(), charge.id.encode(), hashlib.sha256).hexdigest(),
        }
        if charge.transactions:
            form["address"] = charge.address
            if charge.missing:
                form["missing_amt"] = str(charge.missing)
            elif sum(charge.transactions) > charge.sats:
                form["overpaid_by"] = str(sum(charge.transactions) - charge.sats)
            for number, sats in enumerate(charge.transactions):
                form[f"transactions[{number}][amount]"] = str(sats)
        return Webhook(
            vendor=self.vendor,
            url=charge.callback_url or "",
            event=charge.status,
            about=charge.id,
            key=charge.key,
            body=urlencode(form).encode(),
            headers=(("content-type", "application/x-www-form-urlencoded"),),
        )

    def _find(self, offer: str) -> Charge:
        self.tick()
        wanted = offer.rstrip("/").rpartition("/")[2].removeprefix("bitcoin:")
        for charge in self.charges.values():
            bolt11 = charge.invoice.bolt11 if charge.invoice else ""
            if wanted in (charge.id, charge.address) or (bolt11 and wanted.lower().endswith(bolt11)):
                return charge
        raise LookupError(f"{self.vendor} has no charge {offer}")

    def _payable(self, offer: str) -> Charge:
        charge = self._find(offer)
        if charge.status not in ("unpaid", "underpaid"):
            raise LookupError(f"{self.vendor}: charge {charge.id} is {charge.status}")
        return charge

    def _refuse(self, request: Request) -> Response | None:
        if request.header("authorization") == self.api_key:
            return None
        return _failure("Failed to authenticate token", 401)


def _failure(message: str, status: int = 400) -> Response:
    return Response.json({"success": False, "message": message}, status=status)


def _decimal(value: object) -> Decimal:
    return Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else Decimal(0)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _address(random: Random) -> str:
    return f"bc1q{''.join(random.choice(_BECH32) for _ in range(38))}"


def _number(amount: Decimal) -> float | int:
    # JSON numbers of these sizes survive a float's shortest text, which is what a JavaScript server writes.
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _unix(at: datetime) -> int:
    return int(at.timestamp())
