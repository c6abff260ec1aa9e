"""Offers made and taken back: one provider after another is asked, until there is one to show."""

from collections.abc import Mapping, Sequence

from holdfast.errors import CallFailed, Exhausted, HoldfastError, NotSent, OutcomeUnknown, Rejected
from holdfast.outcome import Cause
from holdfast.payments import facts
from holdfast.payments.book import Book
from holdfast.payments.choosing import Choosing, Order
from holdfast.payments.desk import Desk
from holdfast.payments.facts import Decision
from holdfast.payments.models import AttemptState, Payment, PaymentStatus
from holdfast.payments.planning import (
    GiveUp,
    LookUp,
    Resubmit,
    Revoke,
    Show,
    Start,
    Wait,
    can_revoke,
    may_be_paid_again,
    todo,
)
from holdfast.payments.provider import Capabilities, PaymentProvider
from holdfast.payments.submitting import SubmitDesk
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.runtime import Runtime
from holdfast.telemetry import FellOver


class OfferDesk:
    """What callers want of an offer: one, another, none."""

    def __init__(
        self,
        runtime: Runtime,
        book: Book,
        desk: Desk,
        submissions: SubmitDesk,
        choosing: Choosing,
        providers: Mapping[str, PaymentProvider],
        *,
        deadline: float,
        resolve: float,
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._desk = desk
        self._submissions = submissions
        self._choosing = choosing
        self._providers = providers
        self._deadline = deadline
        self._resolve = resolve

    async def make(self, payment: Payment) -> Payment:
        """One offer, or the one there is. Raises what `Payments.create` names."""
        order = await self._choosing.order(payment)
        if order.refusal and not payment.version:
            raise order.refusal
        if not payment.attempts and not payment.screened:
            payment = await self._screened(payment)
        return await self._drive(payment, order)

    async def renew(self, payment: Payment) -> Payment:
        """Another offer, once the last one cannot be paid any more. Raises what `Payments.renew` names."""
        if payment.refused:
            raise Rejected(
                f"payment {payment.reference} was refused by a person, so no other offer is made of it; if that was "
                "wrong, create one under another reference",
                operation="renew",
                reason="refused",
            )
        payment = await self.withdraw(payment, final=False)
        payment = await self._book.commit(payment, facts.Renewed(at=self._desk.now()))
        if payment.status in (PaymentStatus.PAID, PaymentStatus.HELD):
            return payment
        open_ = [a for a in payment.attempts if a.shown_at and a.state is AttemptState.OFFERED]
        if open_:
            able = self._desk.capabilities.get(open_[-1].provider) or Capabilities(currencies=None)
            until = open_[-1].expires_at + able.grace
            raise Rejected(
                f"{open_[-1].provider}: the offer for payment {payment.reference} can be paid until {until:%H:%M:%S} "
                "UTC and cannot be revoked; make another after that",
                provider=open_[-1].provider,
                operation="renew",
                reason="not_revocable",
                retry_after=max(0.0, (until - self._desk.now()).total_seconds()),
            )
        with deadline_scope(self._deadline + self._resolve, self._runtime.clock):
            return await self.make(payment)

    async def withdraw(self, payment: Payment, *, final: bool) -> Payment:
        """Show the current offer no more; revoke it, where its vendor can. `final`: no other is wanted."""
        live = [a for a in payment.attempts if a.state in (AttemptState.OFFERED, AttemptState.UNKNOWN) and a.shown_at]
        if not live and not final:
            return payment
        while final and (again := may_be_paid_again(payment, self._desk.capabilities)) is not None:
            payment = await self._end(payment, again, "cancel")
        number = live[-1].number if live else 0
        able = self._desk.capabilities.get(live[-1].provider) if live else None
        fact = facts.Withdrawn(
            at=self._desk.now(), number=number, capabilities=able or Capabilities(currencies=None), final=final
        )
        payment = await self._book.commit(payment, fact)
        attempt = payment.attempts[number - 1] if live else None
        if able and attempt and attempt.state is not AttemptState.CLOSED and can_revoke(able, attempt):
            payment = await self._desk.revoke(payment, number)
        return payment

    async def _screened(self, payment: Payment) -> Payment:
        """Ask the caller's check before anything is offered. Raises Rejected: it said no."""
        said = await self._desk.ask_screen(payment)
        if said.decision is Decision.DENY:
            text = f"payment {payment.reference} was denied before it was offered: {said.reason or 'by your own check'}"
            raise Rejected(text, operation="create", reason="screened")
        return await self._desk.heed(payment, said)

    # One step after another.

    async def _drive(self, payment: Payment, chosen: Order) -> Payment:
        failures: dict[str, CallFailed] = {}
        order = chosen.names
        self._runtime.never_shut([self._providers[name] for name in order], "create")
        while True:
            payment = await self._desk.pass_time(payment)
            match todo(payment, order, self._desk.capabilities, failed=frozenset(failures), now=self._desk.now()):
                case Show():
                    return payment
                case Start(provider):
                    self._tell_fallback(failures, provider)
                    share = self._share(order, provider)
                    try:
                        payment = await self._submissions.start(payment, provider, share, why=chosen.why[provider])
                    except CallFailed as error:
                        failures[provider] = error
                        payment = await self._book.load(payment.reference) or payment
                case Resubmit(number):
                    provider = payment.attempts[number - 1].provider
                    try:
                        payment = await self._submissions.resubmit(payment, number, self._share(order, provider))
                    except CallFailed as error:
                        failures[provider] = error
                        payment = await self._book.get(payment.reference)
                case Wait():
                    payment = await self._await_other(payment)
                case LookUp(number):
                    payment = await self._desk.look_up(payment, number)
                case Revoke(number):
                    payment = await self._end(payment, number, "create")
                case GiveUp(unknown):
                    known = await self._book.load(payment.reference)
                    if known and known.version != payment.version:
                        payment = known  # somebody else went on meanwhile
                        continue
                    raise _failure(payment, tuple(failures.values()), unknown, chosen.refusal)

    async def _await_other(self, payment: Payment) -> Payment:
        """Another call is making the offer; see what became of it."""
        if remaining(self._runtime.clock) <= 0:
            name = payment.attempts[-1].provider
            raise OutcomeUnknown(
                f"{name}: payment {payment.reference} is still being created by another call",
                provider=name,
                operation="create",
            )
        await self._runtime.clock.sleep(0.05)
        return await self._book.get(payment.reference)

    async def _end(self, payment: Payment, number: int, operation: str) -> Payment:
        """Have what failed be over for good. Raises CallFailed: it may go on."""
        payment = await self._desk.revoke(payment, number)
        name = payment.attempts[number - 1].provider
        if may_be_paid_again(payment, self._desk.capabilities) == number:
            raise Rejected(
                f"{name}: the offer for payment {payment.reference} failed, may be paid once more, and was not revoked",
                provider=name,
                operation=operation,
                reason="not_revocable",
            )
        return payment

    def _share(self, order: Sequence[str], name: str) -> float:
        """This provider's share of what remains of the deadline; after a wait for somebody else, an equal one."""
        left = remaining(self._runtime.clock)
        among = len(order) - order.index(name) if name in order else 1
        share = self._runtime.share(self._providers[name], "create", left - self._resolve, among)
        return max(share, min(self._deadline / max(1, len(order)), left))

    def _tell_fallback(self, failures: Mapping[str, CallFailed], to: str) -> None:
        if failures:
            name, error = list(failures.items())[-1]
            self._runtime.telemetry.emit(FellOver("payments.create", name, to, error.cause))


def _failure(
    payment: Payment, failures: tuple[CallFailed, ...], unknown: int | None, refusal: HoldfastError | None
) -> Exception:
    """What the caller is told when nothing is left to try."""
    if unknown is None and not (failures and failures[-1].cause is Cause.REJECTED):
        unknown = _unsure(payment)
    if unknown is not None and not any(one.cause in (Cause.UNKNOWN, Cause.MISMATCH) for one in failures):
        return _still_unknown(payment, unknown)  # what failed now says nothing of what was sent before
    if len(failures) > 1 and failures[-1].cause is not Cause.REJECTED:
        return Exhausted(f"create payment {payment.reference}", failures)
    if failures:
        return failures[-1]
    if unknown is None and refusal is not None:
        return refusal
    if unknown is None:
        return NotSent(f"no provider is left for payment {payment.reference}", operation="create", local=True)
    return _still_unknown(payment, unknown)


def _unsure(payment: Payment) -> int | None:
    """The last attempt, whoever made it, that may exist at its vendor: while there is one, something was sent."""
    unsure = [a.number for a in payment.attempts if a.state in (AttemptState.SENDING, AttemptState.UNKNOWN)]
    return unsure[-1] if unsure else None


def _still_unknown(payment: Payment, number: int) -> OutcomeUnknown:
    """What the caller is told while the outcome is being found out."""
    attempt = payment.attempts[number - 1]
    why = f" ({attempt.error})" if attempt.error else ""
    return OutcomeUnknown(
        f"{attempt.provider}: payment {payment.reference} may exist there{why}; "
        "it is being found out, do not create another",
        provider=attempt.provider,
        operation="create",
    )
