"""The core, broken on purpose: the oracle has to object to each of these, or it proves nothing."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from holdfast.errors import NotSent
from holdfast.payments import client, desk, facts, keys, machine, offering, planning, refunding, refunds, submitting
from holdfast.payments.models import Attempt, AttemptState, Payment, PaymentStatus
from holdfast.payments.provider import Capabilities, OfferRequest, RefundRequest
from holdfast.queue.inbox import Arrived
from holdfast.stores.memory import MemoryRecords
from holdfast.values import Money

Patch = pytest.MonkeyPatch


def fallback_on_unknown_of_a_payer_visible_create(patch: Patch) -> None:
    """Where the vendor has asked the payer perhaps, another one is asked."""
    todo = planning.todo

    def careless(
        payment: Payment, order: Sequence[str], able: Mapping[str, Capabilities], **more: Any
    ) -> planning.Action:
        return todo(payment, order, {name: replace(one, payer_visible=False) for name, one in able.items()}, **more)

    patch.setattr(offering, "todo", careless)


def a_fresh_key_on_resubmission(patch: Patch) -> None:
    """Asked once more, the vendor is given another key."""
    request = submitting.SubmitDesk._request  # pyright: ignore[reportPrivateUsage]

    def fresh(self: submitting.SubmitDesk, payment: Payment, attempt: Attempt) -> OfferRequest:
        asked = request(self, payment, attempt)
        return replace(asked, attempt_id=keys.derive(asked.attempt_id, attempt.claim))

    patch.setattr(submitting.SubmitDesk, "_request", fresh)


def trust_in_the_body(patch: Patch) -> None:
    """What a webhook says is believed."""
    ask, arrived = desk.Desk.ask, client.Payments.arrived
    said: set[str] = set()

    async def read(self: client.Payments, delivery: Arrived) -> bool:
        if json.loads(delivery.body).get("status") == "paid":
            said.add(delivery.vendor_id)
        return await arrived(self, delivery)

    async def believe(self: desk.Desk, attempt: Attempt, vendor_id: str) -> facts.Looked:
        fact = await ask(self, attempt, vendor_id)
        if fact.snapshot and vendor_id in said:
            return replace(fact, snapshot=replace(fact.snapshot, status=PaymentStatus.PAID))
        return fact

    patch.setattr(client.Payments, "arrived", read)
    patch.setattr(desk.Desk, "ask", believe)


def a_lost_orphan(patch: Patch) -> None:
    """What may exist is not looked for."""
    look = planning._attempt_look  # pyright: ignore[reportPrivateUsage]

    def forget(attempt: Attempt, *rest: Any) -> datetime | None:
        return None if attempt.state is AttemptState.UNKNOWN else look(attempt, *rest)

    patch.setattr(planning, "_attempt_look", forget)


def a_second_offer_without_revocation(patch: Patch) -> None:
    """What we do not show any more is taken for what cannot be paid any more."""
    withdraw = machine._withdraw  # pyright: ignore[reportPrivateUsage]

    def closed(payment: Payment, fact: facts.Withdrawn) -> machine.Step:
        return withdraw(payment, replace(fact, capabilities=replace(fact.capabilities, captures=True)))

    patch.setattr(machine, "_withdraw", closed)


def a_refund_under_a_fresh_key(patch: Patch) -> None:
    """Asked once more, the vendor is given another key."""
    request = refunding.RefundDesk._request  # pyright: ignore[reportPrivateUsage]

    def fresh(self: refunding.RefundDesk, payment: Payment, item: refunds.Refund) -> RefundRequest:
        asked = request(self, payment, item)
        claim = item.move.claim if item.move else 0
        return asked if claim < 2 else replace(asked, key=keys.derive(asked.key, claim))

    patch.setattr(refunding.RefundDesk, "_request", fresh)


def a_capture_twice(patch: Patch) -> None:
    """A capture without an answer is asked for anew."""
    start = machine._start_capture  # pyright: ignore[reportPrivateUsage]

    def anew(payment: Payment, fact: facts.CaptureStarted) -> Payment:
        attempt = replace(payment.attempts[fact.number - 1], capture=None)
        attempts = (*payment.attempts[: fact.number - 1], attempt, *payment.attempts[fact.number :])
        return start(replace(payment, attempts=attempts), fact)

    patch.setattr(machine, "_start_capture", anew)


def a_refund_sum_that_is_not_checked(patch: Patch) -> None:
    """Each refund is taken for the first."""
    patch.setattr(refunds.Refunds, "of", lambda self, number, currency: Money.from_minor(0, currency))


def unknown_taken_for_failed(patch: Patch) -> None:
    """An answer that was lost is taken for a no."""
    fail = machine._fail  # pyright: ignore[reportPrivateUsage]
    patch.setattr(machine, "_fail", lambda payment, fact: fail(payment, replace(fact, error=NotSent("no answer"))))


def a_refund_without_an_answer_taken_for_failed(patch: Patch) -> None:
    """The same of money that was to go back."""
    fail = refunds._fail  # pyright: ignore[reportPrivateUsage]
    patch.setattr(refunds, "_fail", lambda items, fact: fail(items, replace(fact, error=NotSent("no answer"))))


def writing_over_others(patch: Patch) -> None:
    """Records are written whoever wrote them in between."""
    apply = MemoryRecords.apply

    async def overwrite(self: MemoryRecords, kind: str, key: str, expected: int, *rest: Any, **more: Any) -> object:
        current = await self.get(kind, key)
        return await apply(self, kind, key, current.version if current else 0, *rest, **more)

    patch.setattr(MemoryRecords, "apply", overwrite)


def believing_what_is_about_something_else(patch: Patch) -> None:
    """Nobody compares what came back with what was asked for."""
    patch.setattr(machine, "_difference", lambda attempt, snapshot: "")


def no_late_looks(patch: Patch) -> None:
    """What ended unpaid is never looked at again."""
    look = planning._attempt_look  # pyright: ignore[reportPrivateUsage]

    def forget(attempt: Attempt, *rest: Any) -> datetime | None:
        return None if attempt.state is AttemptState.CLOSED else look(attempt, *rest)

    patch.setattr(planning, "_attempt_look", forget)


def an_offer_nobody_wants_any_more(patch: Patch) -> None:
    """What was canceled is offered, where the answer comes after that."""

    def careless(payment: Payment, attempt: Attempt) -> bool:
        paid = payment.status in (PaymentStatus.PAID, PaymentStatus.HELD)
        return attempt.number != len(payment.attempts) or paid

    patch.setattr(machine, "_superseded", careless)


def money_that_stays_set_aside(patch: Patch) -> None:
    """Nobody lets go of what is set aside, unless it is canceled then."""
    unwanted = planning.is_unwanted

    def careless(payment: Payment, attempt: Attempt, able: Capabilities) -> bool:
        return attempt.status is not PaymentStatus.AUTHORIZED and unwanted(payment, attempt, able)

    patch.setattr(planning, "is_unwanted", careless)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (
    fallback_on_unknown_of_a_payer_visible_create,
    a_fresh_key_on_resubmission,
    trust_in_the_body,
    a_lost_orphan,
    a_second_offer_without_revocation,
    a_refund_under_a_fresh_key,
    a_capture_twice,
    a_refund_sum_that_is_not_checked,
    unknown_taken_for_failed,
    a_refund_without_an_answer_taken_for_failed,
    writing_over_others,
    believing_what_is_about_something_else,
    no_late_looks,
    an_offer_nobody_wants_any_more,
    money_that_stays_set_aside,
)
