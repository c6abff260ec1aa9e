"""Paystack, simulated: transactions under the merchant's references, refunds, disputes, events signed with the key."""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

from holdfast.clock import Clock
from holdfast.errors import InvalidInput
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Headers, Reply, Request, Response, Simulator, Webhook, route
from holdfast.values import Money

Resource = dict[str, Any]

UNITS: Final[Mapping[str, int]] = {"GHS": 100, "KES": 100, "NGN": 100, "USD": 100, "XOF": 100, "ZAR": 100}
"""How many of their units one of each currency is; that of XOF is not in their description."""
FEE_PER_MILLE: Final = 15
"""Made up but for Nigeria, where it is 1.5 %."""
LIVE_RETRIES: Final = (180.0,) * 4 + (3600.0,) * 72
TEST_RETRIES: Final = (3600.0,) * 72
REFERENCE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.,=")


_BESIDE_A_TRANSACTION: Final[Mapping[str, object]] = {
    **dict.fromkeys(("receipt_number", "log", "fees_split", "plan", "order_id", "pos_transaction_data", "source")),
    **dict.fromkeys(("fees_breakdown", "connect", "paidAt", "createdAt", "transaction_date")),
    **{name: {} for name in ("authorization", "split", "plan_object", "subaccount")},
    "ip_address": "197.210.45.12",
}
"""What else they tell, of which the simulator knows nothing."""
_BESIDE_A_REFUND: Final[Mapping[str, object]] = {
    **dict.fromkeys(("dispute", "settlement", "refunded_at", "bank_reference", "reason", "channel", "session_id")),
    **dict.fromkeys(("expected_at", "updatedAt")),
    "deducted_amount": 0,
    "fully_deducted": False,
    "refund_channel": "card",
    "collect_account_number": False,
}


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is no success."""

    status: int
    message: str
    code: str
    next_step: str = ""

    def to_response(self) -> Response:
        body = {"status": False, "message": self.message, "meta": {"nextStep": self.next_step}}
        return Response.json(body | {"type": "validation_error", "code": self.code}, status=self.status)


class PaystackSimulator(Simulator):
    """One integration; `sk_test_…` and `sk_live_…` are its two domains.

    In the ledger a transaction's id is its reference, its key the reference in its metadata.
    https://github.com/PaystackOSS/openapi
    """

    vendor: ClassVar[str] = "paystack"
    hosts: ClassVar[tuple[str, ...]] = ("api.paystack.co",)

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
        api_key: str = "sk_test_7e1f0c64c1d3a5b0f1c2d3e4f5061728394a5b6c",
        currencies: Iterable[str] = UNITS,
    ) -> None:
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret or api_key,
            webhook_url=webhook_url,
        )
        self.currencies = frozenset(currencies)
        """Those enabled for this integration."""
        self.transactions: dict[str, Resource] = {}
        """By reference."""
        self.refunds: dict[int, Resource] = {}
        self.disputes: dict[int, Resource] = {}
        self._codes: dict[str, str] = {}
        """The reference of each access code; nobody is told it twice."""

    @property
    def api_key(self) -> str:
        """The secret key of today: webhooks are signed with it."""
        return self.webhook_secret

    @property
    def domain(self) -> str:
        return "live" if self.api_key.startswith("sk_live_") else "test"

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"api_key": self.api_key, "email": "shop@example.org"}

    def new_secret(self) -> str:
        return f"sk_{self.domain}_{self.random().getrandbits(160):040x}"

    def reset(self) -> None:
        super().reset()
        for held in (self.transactions, self.refunds, self.disputes, self._codes):
            held.clear()

    # Webhooks

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """HMAC-SHA512 of the body with the secret key: https://paystack.com/docs/payments/webhooks/"""
        return (("x-paystack-signature", hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()),)

    def retry_after(self, number: int, reply: Reply) -> float | None:
        waits = LIVE_RETRIES if self.domain == "live" else TEST_RETRIES
        return waits[number - 1] if number <= len(waits) else None

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another transaction, still open, is called a success."""
        candidates = [one for one in self.transactions.values() if one["status"] == "abandoned"]
        if not candidates:
            return None
        lie = self.random().choice(candidates)
        return self._webhook("charge.success", lie | {"status": "success"}, lie["reference"], _key(lie))

    # Every call

    def answer(self, request: Request) -> Response:
        if request.header("authorization") != f"Bearer {self.api_key}":
            body = {"status": False, "message": "Invalid key", "type": "validation_error", "code": "invalid_Key"}
            return Response.json(body, status=401)
        try:
            return super().answer(request)
        except Refusal as refusal:
            return refusal.to_response()

    # Transactions

    @route("POST", "/transaction/initialize", "payments.create")
    def initialize(self, request: Request) -> Response:
        """A page under the merchant's reference, which is good for one transaction."""
        asked = request.json()
        reference = str(asked.get("reference") or f"{self.random().getrandbits(64):016x}")
        if "@" not in str(asked.get("email", "")):
            raise Refusal(400, "Invalid Email Address Passed", "invalid_email_address")
        if set(reference) - REFERENCE:
            raise Refusal(400, "Transaction reference includes an invalid character", "invalid_reference")
        if reference in self.transactions:
            step = "Try and create the Transaction or Charge with a new reference"
            raise Refusal(400, "Duplicate Transaction Reference", "duplicate_reference", step)
        amount, currency = asked.get("amount"), str(asked.get("currency", "NGN"))
        if currency not in self.currencies:
            raise Refusal(403, "Currency not supported by merchant", "unsupported_currency")
        if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
            raise Refusal(400, "Invalid Amount Sent", "invalid_amount")
        code = f"{self.random().getrandbits(60):015x}"
        made: Resource = {
            "id": self.random().randrange(10**9, 10**10),
            "domain": self.domain,
            "status": "abandoned",
            "reference": reference,
            "amount": amount,
            "requested_amount": amount,
            "message": None,
            "gateway_response": "The transaction was not completed",
            "paid_at": None,
            "created_at": self._now(),
            "channel": "card",
            "currency": currency,
            "metadata": asked.get("metadata", ""),
            "fees": None,
            "customer": self._customer(str(asked["email"])),
            **_BESIDE_A_TRANSACTION,
        }
        self.transactions[reference], self._codes[code] = made, reference
        self.ledger.record(
            Kind.OFFER, vendor=self.vendor, id=reference, key=_key(made), money=self._money(amount, currency)
        )
        data = {"authorization_url": f"{self.base_url}/{code}", "access_code": code, "reference": reference}
        return _success("Authorization URL created", data)

    @route("GET", "/transaction/verify/{reference}", "payments.fetch")
    def verify(self, request: Request) -> Response:
        return _success("Verification successful", self._transaction(unquote(request.params["reference"])))

    @route("GET", "/transaction", "payments.list")
    def list_transactions(self, request: Request) -> Response:
        """Newest first."""
        status = request.query.get("status")
        found = [one for one in self.transactions.values() if status in (None, one["status"])]
        return self._page(request, found, lambda one: str(one["created_at"]))

    # Refunds

    @route("POST", "/refund", "refunds.create")
    def create_refund(self, request: Request) -> Response:
        """Pending at first; without an amount, all of it."""
        asked = request.json()
        wanted = str(asked.get("transaction"))
        paid = next(
            (one for one in self.transactions.values() if wanted in (one["reference"], str(one["id"]))), None
        ) or self._transaction(wanted)
        amount = asked.get("amount", paid["amount"])
        if paid["status"] not in ("success", "reversed"):
            raise Refusal(400, "Transaction has not been paid", "transaction_not_paid")
        back = sum(one["amount"] for one in self._refunds_of(paid) if one["status"] != "failed")
        if not isinstance(amount, int) or amount <= 0 or amount + back > paid["amount"]:
            raise Refusal(400, "Refund amount cannot be more than what is left", "invalid_amount")
        made: Resource = {
            "id": self.random().randrange(10**6, 10**8),
            "integration": 463433,
            "domain": self.domain,
            "transaction": paid["id"],
            "transaction_reference": paid["reference"],
            "amount": amount,
            "currency": paid["currency"],
            "status": "pending",
            "merchant_note": asked.get("merchant_note"),
            "customer_note": asked.get("customer_note"),
            "createdAt": self._now(),
            "customer": paid["customer"],
            "refunded_by": "shop@example.org",
            "initiated_by": "shop@example.org",
            "refund_type": "full" if amount == paid["amount"] else "partial",
            "transaction_amount": paid["amount"],
            **_BESIDE_A_REFUND,
        }
        self.refunds[made["id"]] = made
        self.ledger.record(
            Kind.REFUND,
            vendor=self.vendor,
            id=str(made["id"]),
            key=_key(paid),
            money=self._money(amount, paid["currency"]),
            facts={"charge": paid["reference"]},
        )
        self._tell_refund(made)
        return _success("Refund has been queued for processing", made | {"transaction": paid})

    @route("GET", "/refund", "refunds.list")
    def list_refunds(self, request: Request) -> Response:
        wanted = request.query.get("transaction")
        found = [one for one in self.refunds.values() if wanted in (None, str(one["transaction"]))]
        return self._page(request, found, lambda one: str(one["createdAt"]))

    @route("GET", "/refund/{id}", "refunds.fetch")
    def read_refund(self, request: Request) -> Response:
        found = self.refunds.get(int(request.params["id"])) if request.params["id"].isdigit() else None
        if found is None:
            raise Refusal(404, "Refund not found", "refund_not_found")
        return _success("Refund retrieved", found)

    # Disputes

    @route("GET", "/dispute", "disputes.list")
    def list_disputes(self, request: Request) -> Response:
        wanted = request.query.get("transaction")
        found = [one for one in self.disputes.values() if wanted in (None, str(one["transaction"]["id"]))]
        return self._page(request, found, lambda one: str(one["createdAt"]))

    # What people do

    def pay(self, offer: str) -> None:
        """Somebody pays on the page, named by its address, its access code or its reference."""
        found = self._open(offer)
        found |= {
            "status": "success",
            "gateway_response": "Successful",
            "paid_at": self._now(),
            "fees": found["amount"] * FEE_PER_MILLE // 1000,
        }
        self.ledger.record(
            Kind.CAPTURE,
            vendor=self.vendor,
            id=found["reference"],
            key=_key(found),
            money=self._money(found["amount"], found["currency"]),
        )
        self._tell("charge.success", found, found["reference"], _key(found))

    def decline(self, offer: str, reason: str = "Declined") -> None:
        """The card is declined; the payer may try again on the same page."""
        self._open(offer).update(status="failed", gateway_response=reason)

    def process_refund(self, refund: int, status: str = "processed") -> None:
        """It arrived, `failed`, or `needs-attention`."""
        found = self.refunds[refund]
        found["status"] = status
        paid = self.transactions[found["transaction_reference"]]
        if status == "failed":
            self.ledger.record(
                Kind.REFUND_FAILED,
                vendor=self.vendor,
                id=str(refund),
                key=_key(paid),
                money=self._money(found["amount"], paid["currency"]),
            )
        done = sum(one["amount"] for one in self._refunds_of(paid) if one["status"] == "processed")
        if done == paid["amount"]:
            paid["status"] = "reversed"
        self._tell_refund(found)

    def dispute(self, offer: str) -> int:
        """The payer's bank asks for it back; the id of the dispute."""
        paid = self._transaction(self._reference(offer))
        made: Resource = {
            "id": self.random().randrange(10**5, 10**7),
            "domain": self.domain,
            "status": "awaiting-merchant-feedback",
            "resolution": None,
            "category": "chargeback",
            "refund_amount": paid["amount"],
            "currency": paid["currency"],
            "transaction": paid,
            "dueAt": None,
            "createdAt": self._now(),
        }
        self.disputes[made["id"]] = made
        self.ledger.record(
            Kind.DISPUTE,
            vendor=self.vendor,
            id=str(made["id"]),
            key=_key(paid),
            money=self._money(paid["amount"], paid["currency"]),
            facts={"charge": paid["reference"]},
        )
        self._tell("charge.dispute.create", made, str(made["id"]), _key(paid))
        return int(made["id"])

    def resolve_dispute(self, dispute: int, *, won: bool) -> None:
        """It is decided."""
        found = self.disputes[dispute]
        found |= {"status": "resolved", "resolution": "declined" if won else "merchant-accepted"}
        self._tell("charge.dispute.resolve", found, str(dispute), _key(found["transaction"]))

    # Small things

    def _customer(self, email: str) -> Resource:
        names = ("first_name", "last_name", "phone", "metadata", "international_format_phone")
        return {
            "id": self.random().randrange(10**7, 10**8),
            "email": email,
            "customer_code": f"CUS_{self.random().getrandbits(60):015x}",
            "risk_action": "default",
            **dict.fromkeys(names),
        }

    def _transaction(self, reference: str) -> Resource:
        if reference not in self.transactions:
            step = "Ensure that you're passing the reference of a transaction that exists on this integration"
            raise Refusal(404, "Transaction reference not found.", "transaction_not_found", step)
        return self.transactions[reference]

    def _refunds_of(self, paid: Resource) -> list[Resource]:
        return [one for one in self.refunds.values() if one["transaction"] == paid["id"]]

    def _reference(self, offer: str) -> str:
        code = offer.rpartition("/")[2]
        return self._codes.get(code, code)

    def _open(self, offer: str) -> Resource:
        found = self.transactions.get(self._reference(offer))
        if found is None:
            raise LookupError(f"{self.vendor} has no transaction {offer}")
        if found["status"] not in ("abandoned", "failed"):
            raise LookupError(f"{self.vendor}: {found['reference']} is {found['status']}")
        return found

    def _page(self, request: Request, found: list[Resource], at: Callable[[Resource], str]) -> Response:
        asked = request.query
        first, last = asked.get("from", ""), asked.get("to", "9999")
        within = [one for one in reversed(found) if first <= at(one) <= last]
        size, page = int(asked.get("perPage", "50")), int(asked.get("page", "1"))
        meta = {"total": len(within), "perPage": size, "page": page}
        return _success("Retrieved", within[(page - 1) * size : page * size], meta=meta)

    def _tell_refund(self, refund: Resource) -> None:
        paid = self.transactions[refund["transaction_reference"]]
        about = {name: refund[name] for name in ("id", "status", "transaction_reference", "amount", "currency")}
        self._tell(f"refund.{refund['status']}", about, str(refund["id"]), _key(paid))

    def _tell(self, event: str, data: Resource, about: str, key: str) -> None:
        if self.webhook_url:
            self.owe(self._webhook(event, data, about, key))

    def _webhook(self, event: str, data: Resource, about: str, key: str) -> Webhook:
        body = json.dumps({"event": event, "data": data}, separators=(",", ":")).encode()
        webhook = Webhook(vendor=self.vendor, url=self.webhook_url, event=event, about=about, key=key, body=body)
        return replace(webhook, headers=(("content-type", "application/json"), ("user-agent", "Paystack/2.0")))

    def _money(self, amount: int, currency: str) -> Money:
        try:
            return Money.from_minor(amount * Money(1, currency).minor_units // UNITS[currency], currency)
        except InvalidInput as error:
            raise Refusal(400, str(error), "invalid_amount") from error

    def _now(self) -> str:
        return f"{self.clock.now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"


def _key(transaction: Resource) -> str:
    """The merchant's reference of the order, where it told one, else of the transaction."""
    metadata: object = transaction["metadata"]
    told = cast(Mapping[str, object], metadata).get("reference") if isinstance(metadata, dict) else None
    return str(told or transaction["reference"])


def _success(message: str, data: object, **more: object) -> Response:
    return Response.json({"status": True, "message": message, "data": data, **more})
