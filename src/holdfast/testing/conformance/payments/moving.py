"""Moving money and taking offers back: once per key, never more than there is, with proof."""

from collections.abc import Iterator
from dataclasses import replace

from holdfast.errors import CallFailed
from holdfast.outcome import Effect
from holdfast.payments.models import Capture, PaymentStatus, RefundStatus
from holdfast.payments.provider import (
    PaymentProvider,
    Refunding,
    SupportsCapture,
    SupportsDisputes,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
)
from holdfast.testing.conformance.payments.bench import Bench
from holdfast.testing.conformance.payments.losing import ENDED, MOVED, part
from holdfast.testing.conformance.payments.promise import Broken, Promise, demand
from holdfast.testing.entries import Kind
from holdfast.values import Money

AGREED = frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.APPROVED})
SENT = frozenset({RefundStatus.SUCCEEDED, RefundStatus.PENDING})


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of those that capture, refund, revoke, or tell of disputes."""
    able = provider.capabilities
    if isinstance(provider, SupportsCapture):
        ways = [Capture.AUTO] if able.captures else []
        for way in (*ways, *([Capture.MANUAL] if able.manual_capture else [])):
            yield Promise.of(moves_only_what_is_captured_and_once, way, named=str(way))
    if able.manual_capture:
        yield Promise.of(captures_a_part)
    if able.revocable:
        yield Promise.of(what_is_revoked_cannot_be_paid)
    if isinstance(provider, SupportsRevoking):
        yield Promise.of(what_was_paid_cannot_be_revoked)
    if able.manual_capture and isinstance(provider, SupportsRevoking):
        yield Promise.of(what_was_let_go_cannot_be_captured)
    if isinstance(provider, SupportsRefunds):
        yield Promise.of(sends_a_part_back_once)
        if able.refunding is Refunding.API:
            yield Promise.of(refunds_add_up)
            yield Promise.of(sends_back_no_more_than_came_in)
        if isinstance(provider, SupportsRefundLookup):
            yield Promise.of(finds_a_refund_by_its_key_alone)
    if isinstance(provider, SupportsDisputes):
        yield Promise.of(tells_of_no_dispute_where_there_is_none)


async def moves_only_what_is_captured_and_once(way: Capture, bench: Bench) -> None:
    """What the payer agreed to moves when it is captured, all of it, and once however often that is asked."""
    provider = bench.provider
    assert isinstance(provider, SupportsCapture)
    attempt, key = await bench.agreed(capture=way), bench.id()
    demand(attempt.status in AGREED, f"the payer agreed, and it is {attempt.status}")
    demand(not bench.entries(Kind.CAPTURE), "the money moved before it was captured")
    bench.witness.asked.clear()

    moved = await provider.capture(bench.http, attempt, attempt.price, key=key, key_valid=_valid)
    effects = [asked.effect for asked in bench.witness.asked if asked.effect is not Effect.READ]
    again = await bench.outcome(provider.capture(bench.http, attempt, attempt.price, key=key, key_valid=_valid))

    demand(bench.able.capture_effect in effects, f"it declares {bench.able.capture_effect} and does {effects}")
    demand(all(effect is not Effect.ONCE for effect in effects[:-1]), f"a capture of several effects: {effects}")
    demand(moved.status in MOVED and moved.received == attempt.price, f"captured, it is {moved!r}")
    [entry, *more] = bench.entries(Kind.CAPTURE)
    demand(not more and entry.money == attempt.price, f"{entry.money} moved, {1 + len(more)} times")
    if not isinstance(again, CallFailed):
        demand(again.status in MOVED, f"captured again, it is {again!r}")
    seen = await bench.fetch(attempt.vendor_id)
    demand(seen.status in MOVED and seen.received == attempt.price, f"looked at again, it is {seen!r}")


async def captures_a_part(bench: Bench) -> None:
    """Of what was set aside a part can be captured, and what came in is that part."""
    assert isinstance(bench.provider, SupportsCapture)
    attempt = await bench.agreed(capture=Capture.MANUAL)
    wanted = part(attempt.price)

    moved = await bench.provider.capture(bench.http, attempt, wanted, key=bench.id(), key_valid=_valid)

    demand(moved.received == wanted, f"{wanted} was captured, and {moved.received} is told")
    demand([entry.money for entry in bench.entries(Kind.CAPTURE)] == [wanted], "the ledger has another amount")


async def what_is_revoked_cannot_be_paid(bench: Bench) -> None:
    """Once it is revoked nobody can pay it, and it says so; also when that is asked twice."""
    assert isinstance(bench.provider, SupportsRevoking)
    request = bench.request()
    made = await bench.create(request)
    attempt = bench.attempt(request, made)
    bench.witness.asked.clear()

    revoked = await bench.provider.revoke(bench.http, attempt)
    again = await bench.provider.revoke(bench.http, attempt)

    demand(all(asked.effect is not Effect.ONCE for asked in bench.witness.asked), "revoking twice is declared harmful")
    for snapshot in (revoked, again):
        demand(snapshot.status in ENDED, f"it was revoked, and is {snapshot.status}")
        demand(snapshot.vendor_id == made.vendor_id, f"{made.vendor_id} became {snapshot.vendor_id}")
    try:
        bench.subject.pay(bench.vendor, made)
    except LookupError:
        pass
    else:
        raise Broken("it was revoked, and could be paid")
    demand(not bench.entries(Kind.CAPTURE), "it was revoked, and money came in")
    seen = await bench.outcome(bench.fetch(made.vendor_id))
    gone = isinstance(seen, CallFailed) and seen.status == 404
    demand(gone or (not isinstance(seen, CallFailed) and seen.status in ENDED), f"looked at again, it is {seen!r}")


async def what_was_paid_cannot_be_revoked(bench: Bench) -> None:
    """Who paid before it was revoked has paid: the answer says so, and the money stays."""
    assert isinstance(bench.provider, SupportsRevoking)
    attempt = await bench.paid()

    answer = await bench.provider.revoke(bench.http, attempt)

    demand(answer.status in MOVED, f"it was paid, then revoked, and is {answer.status}")
    demand(len(bench.entries(Kind.CAPTURE)) == 1, "the payment is not in the ledger")


async def what_was_let_go_cannot_be_captured(bench: Bench) -> None:
    """What was set aside and let go of again is the payer's: nothing of it can be captured."""
    provider = bench.provider
    assert isinstance(provider, SupportsCapture)
    assert isinstance(provider, SupportsRevoking)
    attempt = await bench.agreed(capture=Capture.MANUAL)

    released = await provider.revoke(bench.http, attempt)
    outcome = await bench.outcome(provider.capture(bench.http, attempt, attempt.price, key=bench.id()))

    demand(released.status in ENDED, f"it was let go of, and is {released.status}")
    demand(isinstance(outcome, CallFailed) or outcome.status in ENDED, f"let go of and captured, it is {outcome!r}")
    demand(not bench.entries(Kind.CAPTURE), "it was let go of, and the money moved")


async def sends_a_part_back_once(bench: Bench) -> None:
    """A part is sent back once per key, or waits for a person where the vendor cannot do it by itself."""
    provider = bench.provider
    assert isinstance(provider, SupportsRefunds)
    attempt = await bench.paid()
    request = bench.refund_request(attempt, part(attempt.price), bench.id())
    bench.witness.asked.clear()

    refund = await provider.refund(bench.http, request)

    effects = [asked.effect for asked in bench.witness.asked if asked.effect is not Effect.READ]
    demand(effects == [bench.able.refund_effect], f"it declares {bench.able.refund_effect} and does {effects}")
    demand(refund.money in (None, request.money), f"{request.money} goes back, and {refund.money} is told")
    demand(bool(refund.vendor_id), "the vendor's id of the refund is missing")
    demand(refund.key in ("", request.key), f"our key came back as {refund.key}")
    seen = await provider.fetch_refund(bench.http, request, refund.vendor_id)
    demand(seen.vendor_id == refund.vendor_id, f"{refund.vendor_id} became {seen.vendor_id}")
    if bench.able.refunding is Refunding.MANUAL:
        for snapshot in (refund, seen):
            demand(snapshot.status is RefundStatus.MANUAL_REQUIRED, f"nobody did it by hand, and it is {snapshot}")
        demand(not bench.entries(Kind.REFUND), "nobody did it by hand, and money went back")
        return
    if bench.able.refund_effect is Effect.KEYED:
        passed = any(asked.key_valid is request.key_valid for asked in bench.witness.asked)
        demand(passed, "it does not pass on key_valid")
        again = await provider.refund(bench.http, request)
        demand(again.vendor_id == refund.vendor_id, f"asked again, {refund.vendor_id} became {again.vendor_id}")
    demand(refund.status in SENT and seen.status in SENT, f"it is {refund.status}, then {seen.status}")
    moneys = [entry.money for entry in bench.entries(Kind.REFUND)]
    demand(moneys == [request.money], f"the ledger has {moneys}")


async def refunds_add_up(bench: Bench) -> None:
    """Two parts under two keys are two refunds, and what is told as refunded is no more than went back."""
    provider = bench.provider
    assert isinstance(provider, SupportsRefunds)
    attempt = await bench.paid()
    wanted = part(attempt.price)

    for _ in range(2):
        await provider.refund(bench.http, bench.refund_request(attempt, wanted, bench.id()))

    moneys = [entry.money for entry in bench.entries(Kind.REFUND)]
    demand(moneys == [wanted, wanted], f"the ledger has {moneys}")
    seen = await bench.fetch(attempt.vendor_id)
    demand(seen.status in MOVED, f"partly refunded, the payment is {seen.status}")
    demand(seen.refunded is None or seen.refunded <= wanted + wanted, f"{seen.refunded} is told as refunded")


async def sends_back_no_more_than_came_in(bench: Bench) -> None:
    """More than came in is refused, at once and in parts, and nothing of it goes back."""
    provider = bench.provider
    assert isinstance(provider, SupportsRefunds)
    attempt = await bench.paid()
    price = attempt.price
    beyond = Money.from_minor(price.minor_units * 2, price.currency)

    for money, goes in ((beyond, False), (price, True), (part(price), False)):
        outcome = await bench.outcome(provider.refund(bench.http, bench.refund_request(attempt, money, bench.id())))
        demand(isinstance(outcome, CallFailed) is not goes, f"asked for {money} of {price}: {outcome!r}")
        if isinstance(outcome, CallFailed):
            demand(outcome.cause.value == "rejected", f"more than there is is told as {outcome.cause}")

    bench.vendor.ledger.refunded_at_most_captured()


async def finds_a_refund_by_its_key_alone(bench: Bench) -> None:
    """A refund is found by its key, with what it is over; under another key there is none."""
    provider: object = bench.provider
    assert isinstance(provider, SupportsRefundLookup)
    assert isinstance(provider, SupportsRefunds)
    attempt = await bench.paid()
    request = bench.refund_request(attempt, part(attempt.price), bench.id())
    made = await provider.refund(bench.http, request)

    found = await provider.find_refund(bench.http, request)
    other = await provider.find_refund(bench.http, replace(request, key=bench.id()))

    demand(found is not None and found.vendor_id == made.vendor_id, f"{made.vendor_id} is found as {found!r}")
    demand(other is None, f"under a key never used, {other!r} is found")


async def tells_of_no_dispute_where_there_is_none(bench: Bench) -> None:
    """Nobody disputed it, and so it says; a dispute is told with its money, and asking only looks."""
    assert isinstance(bench.provider, SupportsDisputes)
    attempt = await bench.paid()
    bench.witness.asked.clear()

    found = await bench.provider.disputes(bench.http, attempt)

    demand(not found, f"nobody disputed it, and {found!r} is told")
    demand({asked.effect for asked in bench.witness.asked} == {Effect.READ}, "asking for disputes does more than look")
    dispute = getattr(bench.vendor, "dispute", None)
    if callable(dispute) and attempt.offer and attempt.offer.checkout_url:
        dispute(attempt.offer.checkout_url)
        [told] = await bench.provider.disputes(bench.http, attempt)
        demand(told.money <= attempt.price and bool(told.vendor_id), f"the dispute is told as {told!r}")


def _valid() -> bool:
    return True
