"""What is asked about an offer that exists: each verb commits what it will do, does it, and commits what it learned."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from holdfast.errors import CallFailed, Mismatch, Rejected
from holdfast.outcome import Cause
from holdfast.payments import facts
from holdfast.payments.book import Book
from holdfast.payments.facts import Decision, Fact
from holdfast.payments.keys import derive, key_until, key_valid
from holdfast.payments.models import Attempt, AttemptState, Payment
from holdfast.payments.planning import Check, Chore, MoveMoney, Revoke, SetAside, chores, next_look
from holdfast.payments.provider import (
    Capabilities,
    PaymentProvider,
    PaymentSnapshot,
    SupportsAuthorizing,
    SupportsCapture,
    SupportsLookup,
    SupportsRevoking,
)
from holdfast.resilience.context import deadline_scope
from holdfast.runtime import Runtime
from holdfast.telemetry import OutcomeBecameUnknown
from holdfast.values import Money

MOVE_WITHIN: Final = 20.0
"""Seconds a vendor has to move money, all tries together."""


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
        screen: Screen | None,
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._providers = providers
        self._poll = poll
        self._screen = screen

    @property
    def capabilities(self) -> Mapping[str, Capabilities]:
        """Of every provider, by its name."""
        return {name: provider.capabilities for name, provider in self._providers.items()}

    def now(self) -> datetime:
        """By the runtime's clock."""
        return self._runtime.clock.now()

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
        try:
            snapshot = await provider.find(self._runtime.http(asked), attempt)
        except Mismatch as error:
            return self._seen(asked, attempt.number, None, asked_at, mismatch=str(error))
        return facts.LookedUp(
            at=asked_at,
            number=attempt.number,
            snapshot=snapshot,
            capabilities=asked.capabilities,
            live=self._runtime.live(asked),
            screen=self._screen is not None,
        )

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
        return self._seen(provider, attempt.number, snapshot, asked_at, mismatch=mismatch)

    async def pass_time(self, payment: Payment) -> Payment:
        """What time alone changes."""
        return await self._book.commit(payment, facts.Passed(at=self.now(), capabilities=self.capabilities))

    async def tend(self, payment: Payment, *, everything: bool) -> Payment:
        """Look at each attempt that is due, or at all that can still change; then do what is to be done."""
        payment = await self.pass_time(payment)
        for attempt in payment.attempts:
            due = self._due(payment, attempt)
            if due is None or (not everything and due > self.now()):
                continue
            if attempt.vendor_id or attempt.state in (AttemptState.UNKNOWN, AttemptState.CLOSED):
                payment = await self.look_up(payment, attempt.number)
        return await self.do_chores(await self.pass_time(payment))

    async def postpone(self, payment: Payment) -> None:
        """Count what is due as looked at in vain, so that it is due later."""
        for attempt in payment.attempts:
            due = self._due(payment, attempt)
            if due is not None and due <= self.now():
                payment = await self._book.commit(payment, facts.Unreachable(at=self.now(), number=attempt.number))

    def _due(self, payment: Payment, attempt: Attempt) -> datetime | None:
        return next_look(replace(payment, attempts=(attempt,)), self.capabilities, self._poll)

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
        asked_at, snapshot = self.now(), None
        try:
            snapshot = await provider.revoke(self._runtime.http(provider), attempt)
        except Rejected as error:
            if error.status != 404:
                raise
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
        able, now, timeout = provider.capabilities, self.now(), timedelta(seconds=MOVE_WITHIN)
        fact = facts.CaptureStarted(
            at=now,
            number=number,
            key=derive(attempt.id, "capture", money, attempt.captures),
            money=money,
            timeout=timeout,
            key_until=key_until(able.capture_effect, able.capture_key_window, at=now, timeout=timeout),
        )
        claimed = await self._book.claim(payment, fact)
        if claimed is None:
            return await self._book.get(payment.reference)
        payment, move = claimed, claimed.attempts[number - 1].capture
        assert move is not None
        http, valid = self._runtime.http(provider), key_valid(self._runtime.clock, move.key_until)
        try:
            snapshot = await provider.capture(http, attempt, move.money, key=move.key, key_valid=valid)
        except CallFailed as error:
            failed = facts.CaptureFailed(at=self.now(), number=number, claim=move.claim, error=error)
            await self._book.commit(payment, failed)
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(provider.name, "capture", payment.reference))
            raise
        return await self._book.commit(payment, self._seen(provider, number, snapshot, self.now()))

    def _seen(
        self,
        provider: PaymentProvider,
        number: int,
        snapshot: PaymentSnapshot | None,
        at: datetime,
        *,
        mismatch: str = "",
    ) -> facts.Looked:
        return facts.Looked(
            at=at,
            number=number,
            snapshot=snapshot,
            capabilities=provider.capabilities,
            live=self._runtime.live(provider),
            mismatch=mismatch,
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
