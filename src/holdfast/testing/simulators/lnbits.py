"""LNbits, simulated: one wallet, satoshi in, millisatoshi out, unsigned webhooks twice and encoded twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final, cast

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.invoices import Invoice, make_invoice
from holdfast.testing.simulators.simulator import Request, Response, Simulator, Webhook, route
from holdfast.values import Money

PRICES: Final[Mapping[str, int]] = {"CHF": 80_000, "EUR": 85_000, "USD": 92_000, "XOF": 55_700_000, "JPY": 14_200_000}
"""Made up: what one bitcoin costs."""
MSAT: Final = 1000
DEFAULT_EXPIRY: Final = 3600
LONGEST_MEMO: Final = 640
UTC_OFFSET: Final = timedelta(hours=1)
"""Where the server stands."""


@dataclass(kw_only=True, slots=True)
class Payment:
    """One incoming payment, as their database holds it."""

    invoice: Invoice
    sats: int
    memo: str
    expiry: datetime
    created_at: datetime
    webhook: str | None
    external_id: str | None
    extra: Mapping[str, object]
    updated_at: datetime
    status: str = "pending"
    webhook_status: str | None = None

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return str(self.extra.get("reference") or self.external_id or self.invoice.payment_hash)

    def to_json(self, wallet: str) -> dict[str, object]:
        """As every answer and the webhook write it. FakeWallet tells the preimage before it is paid for."""
        time = self.created_at.isoformat()
        return {
            "checking_id": self.invoice.payment_hash,
            "payment_hash": self.invoice.payment_hash,
            "wallet_id": wallet,
            "amount": self.sats * MSAT,
            "fee": 0,
            "bolt11": self.invoice.bolt11,
            "payment_request": self.invoice.bolt11,
            "fiat_provider": None,
            "status": self.status,
            "memo": self.memo,
            "expiry": self.expiry.isoformat(),
            "webhook": self.webhook,
            "webhook_status": self.webhook_status,
            "preimage": self.invoice.preimage,
            "tag": None,
            "extension": None,
            "time": time,
            "created_at": time,
            "updated_at": self.updated_at.isoformat(),
            "labels": [],
            "extra": dict(self.extra),
            "external_id": self.external_id,
        }


class LNbitsSimulator(Simulator):
    """One wallet on one server, with the FakeWallet backend."""

    vendor = "lnbits"
    copies = 2  # measured with 1.6.2: each internal payment is delivered twice, whatever the first was answered

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
        invoice_key: str = "",
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
        made_up = chance(seed, self.vendor, "wallet")
        self.wallet = f"{made_up.getrandbits(128):032x}"
        self.admin_key = f"{made_up.getrandbits(128):032x}"
        self.invoice_key = invoice_key or f"{made_up.getrandbits(128):032x}"
        self.prices = prices
        """What one bitcoin costs; a currency that is not there has no rate."""
        self.payments: dict[str, Payment] = {}

    @route("POST", "/api/v1/payments", "payments.create")
    def create(self, request: Request) -> Response:
        """Make an invoice; paying out is not simulated."""
        if (refusal := self._refuse_key(request)) is not None:
            return refusal
        asked = request.json()
        if asked.get("out", True):
            return _detail("Invoice (or Admin) key required.", 401)
        amount, memo = asked.get("amount"), asked.get("memo") or "LNbits"
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal) or amount < 0:
            return _invalid("amount", "value is not a valid float", "type_error.float")
        if not isinstance(memo, str) or len(memo) > LONGEST_MEMO:
            return _invalid("memo", f"ensure this value has at most {LONGEST_MEMO} characters", "value_error")
        sats = self._sats(amount, str(asked.get("unit", "sat")))
        if sats is None:
            return _detail(f"Could not get exchange rate for {asked.get('unit')}.", 400)
        if sats == 0:
            return _detail("Amountless invoices not supported.", 520)
        payment = self._payment(asked, sats, memo)
        self.payments[payment.invoice.payment_hash] = payment
        facts = {"attempt": payment.external_id or "", "expires_at": payment.expiry.isoformat()}
        self.ledger.record(
            Kind.OFFER,
            vendor=self.vendor,
            id=payment.invoice.payment_hash,
            key=payment.key,
            money=Money.from_sat(sats),
            facts=facts,
        )
        # Measured with 1.6.2: here, and only here, the server's local time without an offset.
        local = payment.expiry.astimezone(timezone(UTC_OFFSET)).replace(tzinfo=None, microsecond=0)
        return Response.json(payment.to_json(self.wallet) | {"expiry": local.isoformat()}, status=201)

    @route("GET", "/api/v1/payments", "payments.find")
    def list(self, request: Request) -> Response:
        """Newest first, or by `updated_at`; `external_id` filters and is not unique. As measured, 10 unless asked."""
        if (refusal := self._refuse_key(request)) is not None:
            return refusal
        asked = request.query
        wanted, status = asked.get("external_id"), asked.get("status")
        found = [
            payment
            for payment in reversed(self.payments.values())
            if wanted in (None, payment.external_id) and status in (None, payment.status)
        ]
        if asked.get("sortby") == "updated_at":
            found.sort(key=lambda payment: payment.updated_at, reverse=asked.get("direction") == "desc")
        first, most = int(asked.get("offset", "0")), min(1000, int(asked.get("limit", "10")) or 1000)
        return Response.json([payment.to_json(self.wallet) for payment in found[first : first + most]])

    @route("GET", "/api/v1/payments/{payment_hash}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        """Anybody may ask; the invoice itself is for the wallet's own key."""
        payment = self.payments.get(request.params["payment_hash"])
        if payment is None:
            return _detail("Payment does not exist.", 404)
        paid = payment.status == "success"
        answer: dict[str, object] = {"paid": paid, "preimage": payment.invoice.preimage}
        if not paid:
            answer["status"] = payment.status
        if self._known(request):
            answer["details"] = payment.to_json(self.wallet)
        return Response.json(answer)

    @route("GET", "/api/v1/rate/{currency}", "payments.quote")
    def rate(self, request: Request) -> Response:
        """Satoshi per unit, and what a bitcoin costs; zeros where no source answers."""
        price = self.prices.get(request.params["currency"].upper(), 0)
        return Response.json({"rate": 100_000_000 / price if price else 0.0, "price": float(price)})

    @route("POST", "/api/v1/payments/cancel", "payments.cancel")
    def cancel(self, request: Request) -> Response:
        """Ordinary invoices cannot be cancelled."""
        return self._refuse_key(request) or _detail("Hold invoices are not supported by this wallet.", 520)

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"invoice_key": self.invoice_key, "admin_key": self.admin_key}

    def pay(self, offer: str) -> None:
        """From another wallet of the same server, in full. As measured, even after the expiry."""
        payment = self._find(offer)
        if payment.status == "success":
            raise LookupError("Internal invoice already paid.")
        payment.status, payment.updated_at = "success", self.clock.now()
        self.ledger.record(
            Kind.CAPTURE,
            vendor=self.vendor,
            id=payment.invoice.payment_hash,
            key=payment.key,
            money=Money.from_sat(payment.sats),
        )
        if payment.webhook:
            self.owe(self._webhook(payment))

    def reset(self) -> None:
        super().reset()
        self.payments.clear()

    def not_found(self, request: Request) -> Response:
        return _detail("Not Found", 404)

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another invoice, still pending, is called paid; at its own true address."""
        candidates = [found for found in self.payments.values() if found.status == "pending" and found.webhook]
        return self._webhook(replace(self.random().choice(candidates), status="success")) if candidates else None

    def _payment(self, asked: Mapping[str, object], sats: int, memo: str) -> Payment:
        expiry, extra = asked.get("expiry"), asked.get("extra")
        webhook, external_id = asked.get("webhook"), asked.get("external_id")
        now = self.clock.now()
        return Payment(
            invoice=make_invoice(sats, self.random()),
            sats=sats,
            memo=memo,
            expiry=now + timedelta(seconds=expiry if isinstance(expiry, int) else DEFAULT_EXPIRY),
            created_at=now,
            updated_at=now,
            webhook=webhook if isinstance(webhook, str) else None,
            external_id=external_id if isinstance(external_id, str) else None,
            extra=cast(Mapping[str, object], extra) if isinstance(extra, dict) else {},
        )

    def _sats(self, amount: int | Decimal, unit: str) -> int | None:
        if unit == "sat":
            return int(amount)  # 10.7 becomes 10 without a word, as measured
        price = self.prices.get(unit.upper())
        return int(amount * 100_000_000 / price) if price else None

    def _webhook(self, payment: Payment) -> Webhook:
        body = json.dumps(json.dumps(payment.to_json(self.wallet))).encode()
        return Webhook(
            vendor=self.vendor,
            url=payment.webhook or "",
            event=payment.status,
            about=payment.invoice.payment_hash,
            key=payment.key,
            body=body,
        )

    def _find(self, offer: str) -> Payment:
        wanted = offer.lower().removeprefix("lightning:")
        for payment in self.payments.values():
            if wanted in (payment.invoice.payment_hash, payment.invoice.bolt11):
                return payment
        raise LookupError(f"{self.vendor} has no invoice {offer}")

    def _known(self, request: Request) -> bool:
        return request.header("x-api-key") in (self.invoice_key, self.admin_key)

    def _refuse_key(self, request: Request) -> Response | None:
        if request.header("x-api-key") is None:
            return _detail("No Api Key provided.", 401)
        return None if self._known(request) else _detail("Wallet not found.", 404)


def _detail(text: str, status: int) -> Response:
    failed = {"detail": text, "status": "failed"} if status == 520 else {"detail": text}
    return Response.json(failed, status=status)


def _invalid(name: str, text: str, kind: str) -> Response:
    return Response.json({"detail": [{"loc": ["body", name], "msg": text, "type": kind}]}, status=400)
