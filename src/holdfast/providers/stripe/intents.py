"""The provider for a form of the caller's own: Stripe's elements in a page, its SDK in an app (PaymentIntents)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar, Final

from holdfast.errors import Mismatch, Rejected
from holdfast.http.session import Http, Params
from holdfast.http.wire import segment
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, Capture, PaymentStatus
from holdfast.payments.provider import DisputeSnapshot, OfferRequest, PaymentSnapshot
from holdfast.providers.stripe.amounts import to_wire
from holdfast.providers.stripe.objects import ABANDONED, EMBEDDED_EVENTS, Echo, Intent, PayableIntent, read
from holdfast.providers.stripe.provider import CLOCKS_DIFFER, LONGEST_DESCRIPTION, Stripe
from holdfast.values import Secret

UNWANTED: Final = "requested_by_customer"
"""https://docs.stripe.com/api/payment_intents/cancel#cancel_payment_intent-cancellation_reason"""
PAYABLE: Final = frozenset({PaymentStatus.PENDING, PaymentStatus.FAILED})
"""Of a debit that failed the intent stays, and its payer may try another way."""


@dataclass(frozen=True, kw_only=True)
class StripeIntents(Stripe):
    """Take payments with Stripe in a form of your own: its elements in a page, its SDK in an app.

    An offer is an intent. Your form needs its secret: `payments.client_secret(reference)`, whenever the form is shown.
    Where the payer goes afterwards your form says, so `return_url` is not used.
    """

    # An intent never ends by itself: https://docs.stripe.com/payments/paymentintents/lifecycle. When its time is over,
    # it is canceled, which is proof, so that nobody looks for late money.
    capabilities = replace(Stripe.capabilities, open_ended=True, minimum_expiry=timedelta(minutes=1))
    offers: ClassVar[str] = "payment_intent"
    events: ClassVar[Sequence[str]] = EMBEDDED_EVENTS

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /v1/payment_intents`, for all methods the account has switched on, which is what they do unless told.

        Raises:
            InvalidMoney: A currency Stripe does not take, or an amount it has no exact number for.
        """
        form: dict[str, str | int] = {
            "amount": to_wire(request.price),
            "currency": request.price.currency.lower(),
            "description": (request.description or request.reference)[:LONGEST_DESCRIPTION],
            "metadata[attempt]": request.attempt_id,
            "metadata[reference]": request.reference,
            **self._signature(),
        }
        if request.capture is Capture.MANUAL:
            form["capture_method"] = "manual"
        if request.payer and request.payer.email:
            form["receipt_email"] = request.payer.email
        intent = await http.post(
            "/v1/payment_intents",
            Intent,
            operation="create",
            effect=Effect.KEYED,
            form=form,
            headers={"idempotency-key": request.attempt_id},
            key_valid=request.key_valid,
        )
        return intent.to_embedded(request.expires_at)

    async def client_secret(self, http: Http, attempt: Attempt) -> Secret:
        """`GET /v1/payment_intents/{id}`: for a payer who has yet to pay, and what they were told they would pay.

        Raises:
            Rejected: Nobody can pay it any more, or somebody has.
            Mismatch: It is not the one that was asked for, or was changed since.
        """
        intent = await http.get(_path(attempt.vendor_id), PayableIntent, operation="client_secret")
        said = intent.to_embedded()
        if (said.vendor_id, said.attempt_id, said.price) != (attempt.vendor_id, attempt.id, attempt.price):
            text = f"{self.name}: the intent {intent.id} is not the one that was asked for, or was changed"
            raise Mismatch(text, provider=self.name, operation="client_secret")
        if said.status is not PaymentStatus.PENDING:
            text = f"{self.name}: there is nothing to be paid at {intent.id}: it is {intent.status}"
            raise Rejected(text, provider=self.name, operation="client_secret", reason=intent.status)
        return intent.client_secret

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /v1/payment_intents/{id}` with its charge; of a disputed one, its disputes too."""
        params = {"expand[0]": "latest_charge.balance_transaction"}
        intent = await http.get(_path(vendor_id), Intent, operation="fetch", params=params)
        return await self._with_disputes(http, intent.to_embedded(), intent)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """`GET /v1/payment_intents` of the time it was asked for; one somebody paid, should there be several."""
        params: Params = {
            "created[gte]": int((attempt.claimed_at - CLOCKS_DIFFER).timestamp()),
            "created[lte]": int((attempt.claimed_until + CLOCKS_DIFFER).timestamp()),
        }
        rows = self._list(http, "/v1/payment_intents", "find", params)
        intents = [one async for row in rows if (one := read(Intent, row)) and one.metadata.attempt == attempt.id]
        found = [one.to_embedded(attempt.expires_at) for one in intents]
        found.sort(key=lambda one: one.status is PaymentStatus.PENDING)
        return found[0] if found else None

    async def revoke(self, http: Http, attempt: Attempt) -> PaymentSnapshot:
        """`POST /v1/payment_intents/{id}/cancel`, which lets go of money that is set aside.

        Unless the caller wants nothing more of it, who paid at the last moment has paid. Of one that cannot be canceled
        it is told how it stands: captured, canceled before, set aside, or on its way.

        Raises:
            Rejected: It can still be paid.
        """
        if attempt.status is PaymentStatus.PENDING and not attempt.withdrawn:
            snapshot = await self.fetch(http, attempt.vendor_id)
            if snapshot.status is not PaymentStatus.PENDING:
                return snapshot
        try:
            intent = await http.post(
                f"{_path(attempt.vendor_id)}/cancel",
                Intent,
                operation="revoke",
                effect=Effect.IDEMPOTENT,
                form={"cancellation_reason": UNWANTED if attempt.withdrawn else ABANDONED},
            )
        except Rejected as error:
            if error.code != "payment_intent_unexpected_state":
                raise
            snapshot = await self.fetch(http, attempt.vendor_id)  # canceled before, captured, or on its way
            if snapshot.status in PAYABLE:
                raise
            return snapshot
        return intent.to_embedded()

    async def disputes(self, http: Http, attempt: Attempt) -> Sequence[DisputeSnapshot]:
        """`GET /v1/disputes?payment_intent=…`."""
        return await self._disputes(http, attempt.vendor_id)

    async def _intent_of(self, http: Http, vendor_id: str, operation: str) -> str:
        return vendor_id

    def _snapshot(self, intent: Intent, vendor_id: str) -> PaymentSnapshot:
        return intent.to_embedded()

    def _signature(self) -> Mapping[str, str]:
        return {"metadata[provider]": self.name}

    def _is_ours(self, echo: Echo) -> bool:
        return echo.provider == self.name


def _path(vendor_id: str) -> str:
    return f"/v1/payment_intents/{segment(vendor_id)}"
