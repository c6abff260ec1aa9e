"""What is asked of vendors for one payment: each verb commits what it will do, does it, and commits what it learned."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from holdfast.errors import CallFailed, InvalidInput, Mismatch, NotSent, OutcomeUnknown, Rejected, VersionConflict
from holdfast.outcome import Cause, Effect
from holdfast.payments import facts, planning
from holdfast.payments.book import Book
from holdfast.payments.facts import Decision, Fact
from holdfast.payments.machine import step
from holdfast.payments.models import Attempt, AttemptState, Payment, Quote
from holdfast.payments.planning import Check, Chore, MoveMoney, Revoke, SetAside, chores
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    OfferRequest,
    PaymentProvider,
    PaymentSnapshot,
    SupportsAuthorizing,
    SupportsCapture,
    SupportsLookup,
    SupportsQuotes,
    SupportsRevoking,
)
from holdfast.payments.rates import Rates
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.runtime import Runtime
from holdfast.telemetry import OutcomeBecameUnknown
from holdfast.values import BTC, Money

KEYS: Final = uuid.UUID("6d0c1f0a-6d1e-4c39-9d55-1f2f6b9d6a01")
"""The namespace that ids of attempts and keys of moves are derived in."""

MOVE_WITHIN: Final = 20.0
"""Seconds a vendor has to move money, all tries together."""

FOR_EVER: Final = timedelta(days=3650)
"""A vendor that names no end remembers keys at least as long as a payment matters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What a check of yours says of a payment."""

    decision: Decision
    reason: str = ""


Screen = Callable[[Payment], Awaitable[Screening | Decision]]
"""Your check: asked before the first offer of a payment is made, and once its money came in."""


class Desk:
    """The verbs."""

    def __init__(
        self,
        runtime: Runtime,
        book: Book,
        providers: Mapping[str, PaymentProvider],
        *,
        poll: Sequence[timedelta],
        rates: Rates | None,
        rates_for: timedelta,
        screen: Screen | None,
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._providers = providers
        self._poll = poll
        self._rates = rates
        self._rates_for = rates_for
        self._screen = screen
        self._quotes: dict[tuple[str, str], Quote] = {}

    @property
    def capabilities(self) -> Mapping[str, Capabilities]:
        """Of every provider, by its name."""
        return {name: provider.capabilities for name, provider in self._providers.items()}

    def now(self) -> datetime:
        """By the runtime's clock."""
        return self._runtime.clock.now()

    # Offers.

    async def start(self, payment: Payment, name: str, share: float, *, why: str = "") -> Payment:
        """Commit the attempt, then make its first submission. Raises CallFailed, already recorded."""
        provider = self._providers[name]
        with deadline_scope(share, self._runtime.clock):
            quote = None
            if not takes(provider.capabilities, payment.due):
                quote = await self._quote(provider, payment.due)
            number = len(payment.attempts) + 1
            timeout = timedelta(seconds=max(0.0, remaining(self._runtime.clock)))
            able = provider.capabilities
            fact = facts.Started(
                at=self.now(),
                provider=name,
                attempt_id=uuid.uuid5(KEYS, f"{payment.reference}|{number}|{name}|{self._runtime.nonce()}").hex,
                price=quote.price if quote else payment.due,
                quote=quote,
                timeout=timeout,
                expires_in=max(payment.expires_in, able.minimum_expiry),
                key_until=self._key_until(able.create_effect, able.key_window, timeout),
                why=why,
            )
            started = step(payment, fact).payment
            try:
                payment = await self._book.apply(started, payment.version)
            except VersionConflict:
                return await self._book.get(payment.reference)  # another process was first: its attempt counts
            return await self._submit(payment, number)

    async def resubmit(self, payment: Payment, number: int, share: float) -> Payment:
        """Ask for the same once more, under the same key. Raises CallFailed, already recorded."""
        with deadline_scope(share, self._runtime.clock):
            timeout = timedelta(seconds=max(0.0, remaining(self._runtime.clock)))
            again = step(payment, facts.Resubmitted(at=self.now(), number=number, timeout=timeout)).payment
            if again == payment:
                return payment
            try:
                payment = await self._book.apply(again, payment.version)
            except VersionConflict:
                return await self._book.get(payment.reference)
            return await self._submit(payment, number)

    async def _submit(self, payment: Payment, number: int) -> Payment:
        attempt = payment.attempts[number - 1]
        name, provider = attempt.provider, self._providers[attempt.provider]
        try:
            snapshot = await provider.create(self._runtime.http(provider), self._request(payment, attempt))
        except InvalidInput as error:
            unsent = NotSent(str(error), provider=name, operation="create", local=True)
            await self._book.commit(
                payment, facts.Failed(at=self.now(), number=number, claim=attempt.claim, error=unsent)
            )
            raise
        except CallFailed as error:
            lost = facts.Failed(at=self.now(), number=number, claim=attempt.claim, error=error)
            payment = await self._book.commit(payment, lost)
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(name, "create", payment.reference))
                if provider.capabilities.lookup is not Lookup.NONE and remaining(self._runtime.clock) > 0:
                    return payment  # it is looked up before anybody else is asked
            raise
        answer = facts.Answered(at=self.now(), number=number, claim=attempt.claim, snapshot=snapshot)
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
            key_valid=self._valid(attempt.key_until),
        )

    async def _quote(self, provider: PaymentProvider, due: Money) -> Quote:
        """The price in the provider's currency, at a rate of its own that is a few seconds old at most."""
        known, now = self._quotes.get((provider.name, due.currency)), self.now()
        if known and now - known.at < self._rates_for:
            return Quote.of(due, Decimal(known.rate), known.price.currency, source=known.source, at=known.at)
        if self._rates is not None:
            quote = await self._rates.quote(due, _only(provider.capabilities), at=now)
        else:
            assert isinstance(provider, SupportsQuotes)  # no other is asked for a currency it does not take
            quote = await provider.quote(self._runtime.http(provider), due, at=now)
        self._quotes[provider.name, due.currency] = quote
        return quote

    # Looking.

    async def look_up(self, payment: Payment, number: int) -> Payment:
        """Look at an attempt by the vendor's id, else by our own; who cannot be asked is asked again later."""
        attempt = payment.attempts[number - 1]
        provider, asked_at = self._providers.get(attempt.provider), self.now()
        fact: Fact = facts.Unreachable(at=asked_at, number=number)
        try:
            if provider and attempt.vendor_id:
                fact = await self.ask(attempt, attempt.vendor_id)
            elif isinstance(provider, SupportsLookup):
                fact = await self._find(provider, attempt)
        except CallFailed:
            fact = facts.Unreachable(at=self.now(), number=number)
        return await self._book.commit(payment, fact)

    async def _find(self, provider: SupportsLookup, attempt: Attempt) -> facts.LookedUp | facts.Looked:
        """What the vendor shows by our own id. Raises CallFailed: it did not say."""
        asked, asked_at = self._providers[attempt.provider], self.now()
        about: dict[str, Any] = {
            "at": asked_at,
            "number": attempt.number,
            "capabilities": asked.capabilities,
            "live": self._runtime.live(asked),
            "screen": self._screen is not None,
        }
        try:
            return facts.LookedUp(snapshot=await provider.find(self._runtime.http(asked), attempt), **about)
        except Mismatch as error:
            return facts.Looked(snapshot=None, mismatch=str(error), **about)

    async def ask(self, attempt: Attempt, vendor_id: str) -> facts.Looked:
        """The vendor's object as it is now. Raises CallFailed: the vendor did not say."""
        provider = self._providers[attempt.provider]
        asked_at = self.now()  # an answer is as old as the question, however long this process stood still with it
        snapshot, mismatch = None, ""
        try:
            snapshot = await provider.fetch(self._runtime.http(provider), vendor_id)
        except Mismatch as error:
            mismatch = str(error)
        except Rejected as error:
            if error.status != 404:
                raise
        return facts.Looked(
            at=asked_at,
            number=attempt.number,
            snapshot=snapshot,
            capabilities=provider.capabilities,
            live=self._runtime.live(provider),
            mismatch=mismatch,
            screen=self._screen is not None,
        )

    async def pass_time(self, payment: Payment) -> Payment:
        """What time alone changes."""
        return await self._book.commit(payment, facts.Passed(at=self.now(), capabilities=self.capabilities))

    async def tend(self, payment: Payment, *, everything: bool) -> Payment:
        """Look at each attempt that is due, or at all that can still change; then do what is to be done."""
        payment = await self.pass_time(payment)
        for attempt in payment.attempts:
            due = planning.next_look(replace(payment, attempts=(attempt,)), self.capabilities, self._poll)
            if due is None or (not everything and due > self.now()):
                continue
            if attempt.vendor_id or attempt.state is AttemptState.UNKNOWN:
                payment = await self.look_up(payment, attempt.number)
        return await self.do_chores(await self.pass_time(payment))

    async def postpone(self, payment: Payment) -> None:
        """Count what is due as looked at in vain, so that it is due later."""
        for attempt in payment.attempts:
            due = planning.next_look(replace(payment, attempts=(attempt,)), self.capabilities, self._poll)
            if due is not None and due <= self.now():
                payment = await self._book.commit(payment, facts.Unreachable(at=self.now(), number=attempt.number))

    # What is done without anybody asking for it.

    async def do_chores(self, payment: Payment) -> Payment:
        """Each once; what fails is done at the next look."""
        for chore in chores(payment, self.capabilities, self.now()):
            payment = await self._do(payment, chore)
        return payment

    async def _do(self, payment: Payment, chore: Chore) -> Payment:
        try:
            match chore:
                case Revoke(number):
                    return await self.revoke(payment, number)
                case SetAside(number):
                    return await self.authorize(payment, number)
                case MoveMoney(number):
                    return await self.capture(payment, number, payment.attempts[number - 1].price)
                case Check():
                    return await self.screen(payment)
        except CallFailed:
            return await self._book.get(payment.reference)

    async def revoke(self, payment: Payment, number: int) -> Payment:
        """Take an offer back. Raises CallFailed: whether it can still be paid is not known."""
        attempt = payment.attempts[number - 1]
        provider = self._providers[attempt.provider]
        assert isinstance(provider, SupportsRevoking)
        asked_at = self.now()
        snapshot = await provider.revoke(self._runtime.http(provider), attempt)
        return await self._book.commit(payment, self._seen(provider, number, snapshot, asked_at))

    async def authorize(self, payment: Payment, number: int) -> Payment:
        """Have the vendor set the money aside. Raises CallFailed, already recorded."""
        attempt = payment.attempts[number - 1]
        provider = self._providers[attempt.provider]
        assert isinstance(provider, SupportsAuthorizing)
        try:
            with deadline_scope(MOVE_WITHIN, self._runtime.clock):
                snapshot = await provider.authorize(self._runtime.http(provider), attempt)
        except CallFailed as error:
            await self._book.commit(payment, facts.AuthorizationFailed(at=self.now(), number=number, error=error))
            raise
        return await self._book.commit(payment, self._seen(provider, number, snapshot, self.now()))

    async def capture(self, payment: Payment, number: int, money: Money) -> Payment:
        """Have the vendor move the money; a process that stood still since it said so asks no more.

        Raises:
            CallFailed: Already recorded.
        """
        with deadline_scope(MOVE_WITHIN, self._runtime.clock):
            return await self._capture(payment, number, money)

    async def _capture(self, payment: Payment, number: int, money: Money) -> Payment:
        attempt = payment.attempts[number - 1]
        provider = self._providers[attempt.provider]
        assert isinstance(provider, SupportsCapture)
        able, timeout = provider.capabilities, timedelta(seconds=MOVE_WITHIN)
        fact = facts.CaptureStarted(
            at=self.now(),
            number=number,
            key=uuid.uuid5(KEYS, f"{attempt.id}|capture|{money}|{attempt.captures}").hex,
            money=money,
            timeout=timeout,
            key_until=self._key_until(able.capture_effect, able.capture_key_window, timeout),
        )
        started = step(payment, fact).payment
        if started == payment:
            return payment
        try:
            payment = await self._book.apply(started, payment.version)
        except VersionConflict:
            return await self._book.get(payment.reference)
        move = payment.attempts[number - 1].capture
        assert move is not None
        http, valid = self._runtime.http(provider), self._valid(move.key_until)
        try:
            snapshot = await provider.capture(http, attempt, move.money, key=move.key, key_valid=valid)
        except CallFailed as error:
            failed = facts.CaptureFailed(at=self.now(), number=number, claim=move.claim, error=error)
            await self._book.commit(payment, failed)
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(provider.name, "capture", payment.reference))
            raise
        return await self._book.commit(payment, self._seen(provider, number, snapshot, self.now()))

    def _seen(self, provider: PaymentProvider, number: int, snapshot: PaymentSnapshot, at: datetime) -> facts.Looked:
        return facts.Looked(
            at=at,
            number=number,
            snapshot=snapshot,
            capabilities=provider.capabilities,
            live=self._runtime.live(provider),
            screen=self._screen is not None,
        )

    async def screen(self, payment: Payment) -> Payment:
        """Ask the caller's check about money that came in, and do as it says."""
        return await self.heed(payment, await self.ask_screen(payment))

    async def ask_screen(self, payment: Payment) -> Screening:
        """What the caller's check says; where there is none any more, it lets everything pass."""
        if self._screen is None:
            return Screening(decision=Decision.ALLOW)
        answer = await self._screen(payment)
        return answer if isinstance(answer, Screening) else Screening(decision=answer)

    async def heed(self, payment: Payment, said: Screening) -> Payment:
        """Commit what the check said."""
        return await self._book.commit(
            payment, facts.Screened(at=self.now(), decision=said.decision, reason=said.reason)
        )

    def _key_until(self, effect: Effect, window: timedelta | None, timeout: timedelta) -> datetime | None:
        """Until when a key surely counts: one request's time before the vendor may forget it."""
        return self.now() + (window or FOR_EVER) - timeout if effect is Effect.KEYED else None

    def _valid(self, until: datetime | None) -> Callable[[], bool] | None:
        """Asked right before the bytes leave."""
        return None if until is None else lambda: self.now() < until


def takes(capabilities: Capabilities, due: Money) -> bool:
    """Whether it can be asked for what is due as it is."""
    return capabilities.currencies is None or due.currency in capabilities.currencies


def _only(capabilities: Capabilities) -> str:
    """The currency a provider that does not take the due one is to be asked in: bitcoin, or its first."""
    currencies = capabilities.currencies or frozenset()
    return BTC if BTC in currencies else min(currencies)


def still_unknown(payment: Payment, number: int) -> OutcomeUnknown:
    """What the caller is told while the outcome is being found out."""
    attempt = payment.attempts[number - 1]
    return OutcomeUnknown(
        f"{attempt.provider}: payment {payment.reference} may exist there ({attempt.error}); "
        "it is being found out, do not create another",
        provider=attempt.provider,
        operation="create",
    )
