"""Answers that are lost, late, garbled or refused: the cause is told as it is, and nothing happens twice."""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from holdfast.errors import CallFailed
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Capture, PaymentStatus
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    PaymentProvider,
    PaymentSnapshot,
    RefundSnapshot,
    SupportsAuthorizing,
    SupportsCapture,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
)
from holdfast.testing.conformance.payments.bench import Bench
from holdfast.testing.conformance.payments.promise import Promise, demand
from holdfast.testing.entries import Kind
from holdfast.testing.faults import (
    AuthExpired,
    BadChunk,
    BadGzip,
    BadJson,
    Bandwidth,
    ClockSkew,
    Close,
    ConflictingLengths,
    Dns,
    Dribble,
    Fault,
    GarbageStatus,
    Hang,
    Html,
    HugeHeader,
    Latency,
    RateLimited,
    Refused,
    Reset,
    Stage,
    Stall,
    Status,
    TlsError,
    Truncate,
    WrongType,
)
from holdfast.values import Money

NOT_SENT: Final[dict[str, Fault]] = {"dns": Dns(0), "refused": Refused(0), "tls_error": TlsError()}
REFUSED: Final[dict[str, Fault]] = {
    "auth_expired": AuthExpired(),
    "rate_limited": RateLimited(7),
    "rate_limited_without_a_word": RateLimited(7, "none"),
}
SAID_NO: Final[dict[str, Fault]] = {f"{status}": Status(status) for status in (400, 403, 409, 422)}
FAILED: Final[dict[str, Fault]] = {f"{status}": Status(status) for status in (408, 500, 502, 503, 504, 599)}
UNDONE: Final[dict[str, Fault]] = {
    f"{fault.kind}_before": fault.before_effect() for fault in (Reset(), Hang(20), Close())
}
LOST: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "reset_halfway": Reset(20),
    "hang": Hang(20),
    "close": Close(),
    "500_after": Status(500).after_effect(),
    "stall": Stall(10, 20),
}
GARBLED: Final[dict[str, Fault]] = {
    "truncate": Truncate(),
    "bad_json": BadJson(),
    "array": WrongType("array"),
    "text": WrongType("string"),
    "html": Html(),
    "bad_gzip": BadGzip(),
    "huge_header": HugeHeader(),
    "bad_chunk": BadChunk(),
    "garbage_status": GarbageStatus(),
    "conflicting_lengths": ConflictingLengths(),
}
LATE: Final[dict[str, Fault]] = {
    "latency": Latency.constant(20),
    "bandwidth": Bandwidth(100),
    "dribble": Dribble(0.01),
    "clock_skew": ClockSkew(7200),
}
FAULTS: Final[dict[str, Fault]] = NOT_SENT | REFUSED | SAID_NO | FAILED | UNDONE | LOST | GARBLED | LATE
PROXY: Final = Status(404, body=b"<html>404: there is no such backend</html>", content_type="text/html")
"""A 404 that is not the vendor's."""
MOVED: Final = frozenset({PaymentStatus.PAID, PaymentStatus.PROCESSING})
ENDED: Final = frozenset({PaymentStatus.CANCELED, PaymentStatus.EXPIRED, PaymentStatus.FAILED})

Answer = PaymentSnapshot | RefundSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One effect, about to be asked for."""

    ask: Callable[[], Coroutine[Any, Any, Answer]]
    """Under the same key each time."""
    right: Callable[[Answer], bool]
    """Whether the answer is what was asked for."""
    attempt: Attempt
    find: Callable[[], Coroutine[Any, Any, Answer | None]] | None = None
    """Asks for it by our own key, where that can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One thing a provider can have a vendor do."""

    name: str
    leaves: Kind
    """What it leaves in the ledger."""
    effect: Effect
    once: bool
    """The ledger counts it."""
    prepare: Callable[[Bench], Coroutine[Any, Any, Case]]


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of every verb that has an effect, with every fault there is."""
    for verb in verbs(provider):
        for named, fault in FAULTS.items():
            yield Promise.of(tells_the_cause_and_does_nothing_twice, verb, fault, named=f"{verb.name}-{named}")
    if isinstance(provider, SupportsLookup):
        for named, fault in FAULTS.items():
            yield Promise.of(never_overlooks_what_exists, fault, named=named)
        if provider.capabilities.lookup is Lookup.AUTHORITATIVE_ABSENCE:
            yield Promise.of(never_overlooks_what_exists, PROXY, named="404 of a proxy")
        yield Promise.of(finds_nothing_where_there_is_nothing)
        yield Promise.of(finds_nobody_elses)
    for named, fault in FAULTS.items():
        yield Promise.of(looks_again_after_any_failure, fault, named=named)


def verbs(provider: PaymentProvider) -> Iterator[Verb]:
    """Those this provider has."""
    able = provider.capabilities
    yield Verb(name="create", leaves=Kind.OFFER, effect=able.create_effect, once=True, prepare=_creating)
    if isinstance(provider, SupportsCapture):
        ways = (Capture.AUTO,) if able.captures else ()
        for way in (*ways, *((Capture.MANUAL,) if able.manual_capture else ())):
            name = "capture" if way is Capture.AUTO else "capture_later"
            prepare = partial(_capturing, way)
            yield Verb(name=name, leaves=Kind.CAPTURE, effect=able.capture_effect, once=True, prepare=prepare)
    if isinstance(provider, SupportsRefunds):
        yield Verb(
            name="refund", leaves=Kind.REFUND, effect=able.refund_effect, once=_counted(able), prepare=_refunding
        )
    if isinstance(provider, SupportsAuthorizing):
        effect = Effect.IDEMPOTENT
        yield Verb(name="authorize", leaves=Kind.CAPTURE, effect=effect, once=False, prepare=_authorizing)
    if isinstance(provider, SupportsRevoking):
        effect = Effect.IDEMPOTENT
        yield Verb(name="revoke", leaves=Kind.OFFER_CLOSED, effect=effect, once=False, prepare=_revoking)


async def tells_the_cause_and_does_nothing_twice(verb: Verb, fault: Fault, bench: Bench) -> None:
    """A fault is told by its cause, a lost effect is found again, and asking again under a key does it once."""
    case = await verb.prepare(bench)
    await bench.sign_in()
    before, reached = len(bench.entries(verb.leaves)), len(bench.vendor.requests)
    bench.wire.fault = fault

    outcome = await bench.outcome(case.ask())

    done = len(bench.entries(verb.leaves)) - before
    _judge(bench, fault, case, outcome)
    if fault.stage is Stage.BEFORE_SEND and len(bench.witness.asked) == 1:
        demand(len(bench.vendor.requests) == reached, "nothing was sent, and the vendor heard of it")
    if verb.once:
        happened = fault.stage not in (Stage.BEFORE_SEND, Stage.BEFORE_EFFECT)
        demand(done == int(happened), f"{verb.name}: it happened {done} times")
    if isinstance(outcome, CallFailed) and outcome.cause is Cause.UNKNOWN:
        await _recovers(bench, verb, fault, case, before)


async def never_overlooks_what_exists(fault: Fault, bench: Bench) -> None:
    """While something exists under our id, no failure makes it look as if nothing did."""
    assert isinstance(bench.provider, SupportsLookup)
    request = bench.request()
    await bench.create(request)
    bench.wire.fault, bench.wire.strikes_looks = fault, True

    found = await bench.outcome(bench.provider.find(bench.http, bench.attempt(request)))

    demand(found is not None, "the offer exists, and is said not to")
    if isinstance(found, PaymentSnapshot):
        demand(found.attempt_id == request.attempt_id, f"what is found is of attempt {found.attempt_id or 'unknown'}")


async def finds_nothing_where_there_is_nothing(bench: Bench) -> None:
    """Nothing is found under an id that was never used, whoever else's offers there are."""
    assert isinstance(bench.provider, SupportsLookup)
    await bench.create(bench.request())

    found = await bench.outcome(bench.provider.find(bench.http, bench.attempt(bench.request())))

    demand(found is None, f"nothing was created, and {found!r} is found")


async def finds_nobody_elses(bench: Bench) -> None:
    """Asked for one attempt and answered with another's object, it says whose it is, or finds nothing."""
    assert isinstance(bench.provider, SupportsLookup)
    request = bench.request()
    await bench.create(request)
    bench.wire.answers.clear()
    await bench.provider.find(bench.http, bench.attempt(request))
    answers = iter(list(bench.wire.answers))
    bench.wire.forge = lambda answer: next(answers, answer)

    found = await bench.outcome(bench.provider.find(bench.http, bench.attempt(bench.request())))

    if isinstance(found, PaymentSnapshot):
        demand(found.attempt_id == request.attempt_id, f"another attempt's offer is found as ours: {found!r}")


async def looks_again_after_any_failure(fault: Fault, bench: Bench) -> None:
    """A look that fails is told by its cause, is never taken for an absence, and the next one sees what is there."""
    request = bench.request()
    made = await bench.create(request)
    bench.wire.fault, bench.wire.strikes_looks = fault, True

    failed = await bench.outcome(bench.fetch(made.vendor_id))
    seen = await bench.fetch(made.vendor_id)

    attempt = bench.attempt(request, made)
    case = Case(ask=lambda: bench.fetch(made.vendor_id), right=partial(_is_offer, attempt), attempt=attempt)
    _judge(bench, fault, case, failed)
    demand(not (isinstance(failed, CallFailed) and failed.status == 404), "it is there, and told as absent")
    demand(_is_offer(attempt, seen), f"it was looked at again as {seen!r}")


# What is asked for


async def _creating(bench: Bench) -> Case:
    request = bench.request()
    attempt = bench.attempt(request)
    finder = bench.provider
    return Case(
        ask=lambda: bench.create(request),
        right=partial(_is_offer, attempt),
        attempt=attempt,
        find=(lambda: finder.find(bench.http, attempt)) if isinstance(finder, SupportsLookup) else None,
    )


async def _capturing(way: Capture, bench: Bench) -> Case:
    attempt, key = await bench.agreed(capture=way), bench.id()
    provider = bench.provider
    assert isinstance(provider, SupportsCapture)
    bench.witness.asked.clear()
    return Case(
        ask=lambda: provider.capture(bench.http, attempt, attempt.price, key=key, key_valid=lambda: True),
        right=lambda answer: answer.status in MOVED,
        attempt=attempt,
    )


async def _refunding(bench: Bench) -> Case:
    attempt, key = await bench.paid(), bench.id()
    provider: PaymentProvider = bench.provider
    assert isinstance(provider, SupportsRefunds)
    request = bench.refund_request(attempt, part(attempt.price), key)
    finder: object = provider
    bench.witness.asked.clear()
    return Case(
        ask=lambda: provider.refund(bench.http, request),
        right=lambda answer: isinstance(answer, RefundSnapshot) and answer.money in (None, request.money),
        attempt=attempt,
        find=(lambda: finder.find_refund(bench.http, request)) if isinstance(finder, SupportsRefundLookup) else None,
    )


async def _authorizing(bench: Bench) -> Case:
    request = bench.request(capture=Capture.MANUAL)
    made = await bench.create(request)
    bench.pay(made)
    attempt = bench.attempt(request, await bench.fetch(made.vendor_id))
    provider = bench.provider
    assert isinstance(provider, SupportsAuthorizing)
    return Case(
        ask=lambda: provider.authorize(bench.http, attempt),
        right=lambda answer: answer.status is PaymentStatus.AUTHORIZED,
        attempt=attempt,
    )


async def _revoking(bench: Bench) -> Case:
    if bench.able.revocable:
        request = bench.request()
        attempt = bench.attempt(request, await bench.create(request))
    else:
        attempt = await bench.agreed(capture=Capture.MANUAL)
    provider = bench.provider
    assert isinstance(provider, SupportsRevoking)
    bench.witness.asked.clear()
    return Case(
        ask=lambda: provider.revoke(bench.http, attempt), right=lambda answer: answer.status in ENDED, attempt=attempt
    )


def part(money: Money) -> Money:
    """A quarter of it."""
    return Money.from_minor(money.minor_units // 4, money.currency)


def _counted(able: Capabilities) -> bool:
    """Whether the money goes back at once; where the payer has to claim it, nothing has moved yet."""
    return able.refunding.value == "api"


# What must come of it


def _judge(bench: Bench, fault: Fault, case: Case, outcome: Answer | CallFailed) -> None:
    """Raises Broken: neither a right answer where there may be one, nor the cause that the fault has."""
    causes = expected(bench.provider, fault)
    if isinstance(outcome, CallFailed):
        demand(outcome.cause in causes, f"{fault} is told as {outcome.cause}: {outcome}")
        demand(outcome.provider == bench.name, f"the error names {outcome.provider or 'nobody'} as its provider")
        waits = next((answer.header("retry-after") for answer in bench.wire.answers[-1:]), None)
        if isinstance(fault, RateLimited) and waits:
            demand(outcome.retry_after is not None, "the vendor says how long to wait, and it is not told")
    elif not _as_it_stood(case, fault, outcome):
        open_to_all = isinstance(fault, AuthExpired) and bench.witness.asked[-1].effect is Effect.READ
        may_succeed = fault.stage in (Stage.BODY, Stage.TIME) or isinstance(fault, Stall) or open_to_all
        demand(may_succeed, f"{fault} is taken for a success: {outcome!r}")
        demand(case.right(outcome), f"{fault} makes a wrong answer of it: {outcome!r}")


def _as_it_stood(case: Case, fault: Fault, outcome: Answer) -> bool:
    """Refused, and answered with the object as nothing happened to it: that is no lie."""
    return fault in SAID_NO.values() and outcome.status is case.attempt.status


def expected(provider: PaymentProvider, fault: Fault) -> frozenset[Cause]:
    """The causes that a fault may be told by; none: all has to go well."""
    match fault:
        case Dns() | Refused() | TlsError():
            return frozenset({Cause.NOT_SENT})
        case RateLimited():
            return frozenset({Cause.THROTTLED, Cause.REFUSED})
        case AuthExpired():
            return frozenset({Cause.CREDENTIAL})
        case Status():
            rows = {
                cause
                for key, cause in provider.causes.items()
                if (key if isinstance(key, int) else key[0]) == fault.status
            }
            usual = Cause.REJECTED if fault.status in (400, 403, 409, 422) else Cause.UNKNOWN
            return frozenset({usual} | (rows if fault.stage is Stage.BEFORE_EFFECT else set()))
        case Latency() | Bandwidth() | ClockSkew() | Dribble():
            return frozenset()
        case _:
            return frozenset({Cause.UNKNOWN})


async def _recovers(bench: Bench, verb: Verb, fault: Fault, case: Case, before: int) -> None:
    """After an outcome nobody knows: by our own key, and by asking again where the vendor keeps it."""
    happened = fault.stage is not Stage.BEFORE_EFFECT
    if case.find is not None:
        found = await bench.outcome(case.find())
        demand(not isinstance(found, CallFailed), f"looking for it fails: {found}")
        demand((found is not None) == happened, f"it {'happened' if happened else 'never was'}, and {found!r} is found")
    if verb.effect in (Effect.KEYED, Effect.IDEMPOTENT):
        again = await bench.outcome(case.ask())
        done = len(bench.entries(verb.leaves)) - before
        demand(not verb.once or done == 1, f"{verb.name}: asked again under one key it happened {done} times")
        if isinstance(again, CallFailed):
            demand(again.cause is Cause.UNKNOWN, f"{verb.name}: asked again it is told as {again.cause}: {again}")
        else:
            demand(case.right(again), f"{verb.name}: asked again it is {again!r}")


def _is_offer(attempt: Attempt, answer: Answer) -> bool:
    return (
        isinstance(answer, PaymentSnapshot)
        and answer.price in (None, attempt.price)
        and answer.attempt_id in ("", attempt.id)
        and answer.vendor_id in (attempt.vendor_id or answer.vendor_id,)
        and answer.status not in ENDED | MOVED - {PaymentStatus.PROCESSING}
    )
