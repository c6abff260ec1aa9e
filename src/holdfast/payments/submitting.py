"""One creation asked of one vendor: it is committed, sent, and what came of it is committed."""

from collections.abc import Mapping
from datetime import timedelta

from holdfast.errors import CallFailed, InvalidInput, Mismatch, NotSent
from holdfast.outcome import Cause
from holdfast.payments import facts
from holdfast.payments.book import Book
from holdfast.payments.keys import derive, key_until, key_valid
from holdfast.payments.models import Attempt, Payment
from holdfast.payments.provider import Lookup, OfferRequest, PaymentProvider
from holdfast.payments.quoting import Quotes
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.runtime import Runtime
from holdfast.telemetry import OutcomeBecameUnknown


class SubmitDesk:
    """The two verbs: ask, and ask for the same once more."""

    def __init__(self, runtime: Runtime, book: Book, providers: Mapping[str, PaymentProvider], quotes: Quotes) -> None:
        self._runtime = runtime
        self._book = book
        self._providers = providers
        self._quotes = quotes

    async def start(self, payment: Payment, name: str, share: float, *, why: str = "") -> Payment:
        """Commit the attempt, then make its first submission. Raises CallFailed, already recorded."""
        provider, clock = self._providers[name], self._runtime.clock
        able = provider.capabilities
        with deadline_scope(share, clock):
            quote = await self._quotes.price(provider, payment.due)
            number = len(payment.attempts) + 1
            now, timeout = clock.now(), timedelta(seconds=max(0.0, remaining(clock)))
            fact = facts.Started(
                at=now,
                provider=name,
                attempt_id=derive(payment.reference, number, name, self._runtime.nonce()),
                price=quote.price if quote else payment.due,
                quote=quote,
                timeout=timeout,
                expires_in=max(payment.expires_in, able.minimum_expiry),
                key_until=key_until(able.create_effect, able.key_window, at=now, timeout=timeout),
                why=why,
            )
            return await self._submit(payment, fact, number)

    async def resubmit(self, payment: Payment, number: int, share: float) -> Payment:
        """Ask for the same once more, under the same key. Raises CallFailed, already recorded."""
        clock = self._runtime.clock
        with deadline_scope(share, clock):
            timeout = timedelta(seconds=max(0.0, remaining(clock)))
            return await self._submit(
                payment, facts.Resubmitted(at=clock.now(), number=number, timeout=timeout), number
            )

    async def _submit(self, payment: Payment, fact: facts.Started | facts.Resubmitted, number: int) -> Payment:
        claimed = await self._book.claim(payment, fact)
        if claimed is None:
            return await self._book.get(payment.reference)  # another process was first: its attempt counts
        return await self._send(claimed, number)

    async def _send(self, payment: Payment, number: int) -> Payment:
        attempt, now = payment.attempts[number - 1], self._runtime.clock.now
        name, provider = attempt.provider, self._providers[attempt.provider]
        try:
            snapshot = await provider.create(self._runtime.http(provider), self._request(payment, attempt))
        except InvalidInput as error:
            unsent = NotSent(str(error), provider=name, operation="create", local=True)
            await self._book.commit(payment, facts.Failed(at=now(), number=number, claim=attempt.claim, error=unsent))
            raise
        except CallFailed as error:
            lost = facts.Failed(at=now(), number=number, claim=attempt.claim, error=error)
            payment = await self._book.commit(payment, lost)
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(name, "create", payment.reference))
                if provider.capabilities.lookup is not Lookup.NONE and remaining(self._runtime.clock) > 0:
                    return payment  # it is looked up before anybody else is asked
            raise
        answer = facts.Answered(at=now(), number=number, claim=attempt.claim, snapshot=snapshot)
        payment = await self._book.commit(payment, answer)
        attempt = payment.attempts[number - 1]
        if attempt.cause is Cause.MISMATCH:
            raise Mismatch(f"{name}: {attempt.error}", provider=name, operation="create")
        return payment

    def _request(self, payment: Payment, attempt: Attempt) -> OfferRequest:
        """The same bytes for every submission of an attempt, whenever it is made."""
        provider = self._providers[attempt.provider]
        return OfferRequest(
            reference=payment.reference,
            attempt_id=attempt.id,
            price=attempt.price,
            description=payment.description or payment.reference,
            expires_in=attempt.expires_at - attempt.claimed_at,
            expires_at=attempt.expires_at,
            webhook_url=self._runtime.webhook_url(provider, attempt.id),
            return_url=payment.return_url,
            capture=payment.capture,
            payer=payment.payer,
            metadata=payment.metadata,
            key_valid=key_valid(self._runtime.clock, attempt.key_until),
        )
