"""Looking: what is there, as it is; never another's, never further than it is, never back."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Final, cast

from holdfast.errors import CallFailed, Mismatch
from holdfast.http.transports import HttpResponse
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, PaymentStatus
from holdfast.payments.provider import PaymentProvider, PaymentSnapshot, SupportsQuotes
from holdfast.testing.conformance.payments.bench import Bench
from holdfast.testing.conformance.payments.promise import Promise, demand
from holdfast.testing.entries import Kind
from holdfast.values import BTC, Money

UNHEARD_OF: Final = "a_word_of_tomorrow"
ODD: Final[Sequence[object]] = (None, True, -1, 10**40, 0.1, "", "-1", "1e9999", "NaN", [], {"a": 1})
"""What no vendor documents, and some will send."""
PAID: Final = frozenset({PaymentStatus.PAID})
LATER: Final = timedelta(days=2)

Path = tuple[str | int, ...]


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of every provider."""
    yield Promise.of(pending_then_paid_and_never_back)
    yield Promise.of(what_is_not_there_is_a_404)
    yield Promise.of(another_object_is_noticed)
    yield Promise.of(another_recipient_is_a_mismatch)
    yield Promise.of(another_amount_is_noticed)
    yield Promise.of(another_currency_is_noticed)
    yield Promise.of(an_unknown_word_is_an_unknown_status)
    for paid in (False, True):
        yield Promise.of(any_answer_is_read_or_refused, paid, named="paid" if paid else "pending")
    if isinstance(provider, SupportsQuotes):
        yield Promise.of(quotes_what_it_takes)


async def pending_then_paid_and_never_back(bench: Bench) -> None:
    """An offer waits until its payer paid, is paid then, and stays so; looking only looks."""
    attempt = await bench.paid()
    bench.witness.asked.clear()

    seen = [await bench.fetch(attempt.vendor_id)]
    await bench.clock.advance(LATER.total_seconds())
    seen.append(await bench.fetch(attempt.vendor_id))

    for snapshot in seen:
        demand(snapshot.status in PAID, f"it was paid, and is {snapshot.status}")
        demand(snapshot.received == attempt.price, f"{attempt.price} came in, and {snapshot.received} is told")
        demand(snapshot.price in (None, attempt.price), f"over {attempt.price}, and told as over {snapshot.price}")
        demand(snapshot.attempt_id in ("", attempt.id), f"our id came back as {snapshot.attempt_id}")
    demand({asked.effect for asked in bench.witness.asked} == {Effect.READ}, "looking does more than look")
    demand(len(bench.entries(Kind.CAPTURE)) == 1, "the ledger has not one payment")


async def what_is_not_there_is_a_404(bench: Bench) -> None:
    """Of what the vendor does not have, the error says so with status 404."""
    elsewhere = Bench(bench.subject)
    elsewhere.vendor.seed += 1
    made = await elsewhere.create(elsewhere.request())

    outcome = await bench.outcome(bench.fetch(made.vendor_id))

    demand(isinstance(outcome, CallFailed), f"it is not there, and told as {outcome!r}")
    assert isinstance(outcome, CallFailed)
    demand((outcome.cause.value, outcome.status) == ("rejected", 404), f"{outcome.cause}, {outcome.status}: {outcome}")


async def another_object_is_noticed(bench: Bench) -> None:
    """Answered with another of our own objects, it is not taken for the one that was asked for."""
    request = bench.request()
    ours = await bench.create(request)
    other = await bench.paid()
    bench.wire.answers.clear()
    await bench.fetch(other.vendor_id)
    answers = iter(list(bench.wire.answers))
    bench.wire.forge = lambda answer: next(answers, answer)

    outcome = await bench.outcome(bench.fetch(ours.vendor_id))

    if isinstance(outcome, CallFailed):
        demand(isinstance(outcome, Mismatch), f"another object is told as {outcome.cause}")
    else:
        strange = outcome.vendor_id != ours.vendor_id or outcome.attempt_id not in ("", request.attempt_id)
        demand(strange, f"another object is taken for ours: {outcome!r}")


async def another_recipient_is_a_mismatch(bench: Bench) -> None:
    """Where the answer tells the account that gets the money, another account is a mismatch."""
    attempt = await bench.paid()
    accounts = [
        text for text in bench.vendor.credentials.values() if len(text) >= 8 and text not in _of_the_payment(attempt)
    ]
    for path, value in await _leaves(bench, attempt.vendor_id):
        if value in accounts:
            outcome = await _with(bench, attempt.vendor_id, path, "somebody-elses")
            demand(isinstance(outcome, Mismatch), f"another {_name(path)} is taken for ours")


async def another_amount_is_noticed(bench: Bench) -> None:
    """What came in is as much as the vendor says, or, where it does not say, as it was asked about."""
    attempt = await bench.paid()
    leaves = await _leaves(bench, attempt.vendor_id)
    asked = bench.wire.sent[-1]
    noticed = False
    for path, value in leaves:
        other = _doubled(value)
        if other is None:
            continue
        outcome = await _with(bench, attempt.vendor_id, path, other)
        if not isinstance(outcome, CallFailed):
            noticed |= outcome.price not in (None, attempt.price) or outcome.received != attempt.price
        else:
            noticed |= isinstance(outcome, Mismatch)
    told = f"{attempt.price.amount:f}".rstrip("0").rstrip(".") in asked.content.decode() + asked.url
    demand(noticed or told, "whatever amount the vendor says, it is taken for the right one")


async def another_currency_is_noticed(bench: Bench) -> None:
    """Where the answer tells the currency, another one is told, or is a mismatch."""
    attempt = await bench.paid()
    told = noticed = False
    other = "SEK" if attempt.price.currency != "SEK" else "NOK"
    for path, value in await _leaves(bench, attempt.vendor_id):
        if isinstance(value, str) and value.upper() == attempt.price.currency:
            told = True
            spelled = other if value.isupper() else other.lower()
            outcome = await _with(bench, attempt.vendor_id, path, spelled)
            if isinstance(outcome, CallFailed):
                noticed = True
            else:
                moneys = [money for money in (outcome.price, outcome.received) if money]
                noticed |= any(money.currency != attempt.price.currency for money in moneys)
                noticed |= outcome.status not in PAID
    demand(noticed or not told, "the vendor says another currency, and it is taken for ours")


async def an_unknown_word_is_an_unknown_status(bench: Bench) -> None:
    """A status nobody has heard of is unknown, never paid and never an error."""
    request = bench.request()
    made = await bench.create(request)
    waiting = dict(await _leaves(bench, made.vendor_id))
    unheard_of = await _unheard_of(bench, made.vendor_id, waiting)
    for path, outcome in unheard_of.items():
        further = not isinstance(outcome, CallFailed) and outcome.status in PAID
        demand(not further, f"nobody paid, and with an unknown {_name(path)} it is paid")

    await bench.collect(request, made)
    moved = dict(await _leaves(bench, made.vendor_id))
    words = [path for path in waiting if isinstance(moved.get(path), str) and moved[path] != waiting[path]]
    words = [path for path in words if isinstance(waiting[path], str) and _is_a_word(waiting[path])]
    now = await _unheard_of(bench, made.vendor_id, {path: moved[path] for path in words})
    tried = [*(unheard_of[path] for path in words), *now.values()]
    statuses = {outcome.status for outcome in tried if not isinstance(outcome, CallFailed)}
    told = not words or PaymentStatus.UNKNOWN in statuses
    demand(told, f"no unknown word makes it unknown; it is {sorted(statuses) or 'an error'}")


async def any_answer_is_read_or_refused(paid: bool, bench: Bench) -> None:
    """Whatever stands in a field of the answer, it is read, or told as a failure: no other error comes out."""
    vendor_id = (await bench.paid()).vendor_id if paid else (await bench.create(bench.request())).vendor_id
    for path, value in await _leaves(bench, vendor_id):
        for odd in ODD:
            if odd != value:
                outcome = await _with(bench, vendor_id, path, odd)
                further = not paid and not isinstance(outcome, CallFailed) and outcome.status in PAID
                demand(not further or isinstance(value, bool), f"{odd!r} for {_name(path)} makes it paid")


async def quotes_what_it_takes(bench: Bench) -> None:
    """A quote is over what was asked, in a currency it takes, of this moment, and costs nothing to ask."""
    assert isinstance(bench.provider, SupportsQuotes)
    due = Money("120.00", "CHF")

    quote = await bench.provider.quote(bench.http, due, at=bench.clock.now())

    currencies = bench.able.currencies
    demand(currencies is None or quote.price.currency in currencies, f"a quote in {quote.price.currency}")
    demand(bool(quote.price) and quote.at == bench.clock.now() and quote.source == bench.name, f"{quote!r}")
    demand(quote.price.currency != BTC or quote.price.minor_units % 1000 == 0, "a quote of fractions of a satoshi")
    demand({asked.effect for asked in bench.witness.asked} == {Effect.READ}, "asking for a quote does more than look")


# Answers, taken apart


async def _leaves(bench: Bench, vendor_id: str) -> list[tuple[Path, object]]:
    """Every value in the answers to a look, with its place."""
    bench.wire.answers.clear()
    bench.wire.forge = None
    await bench.fetch(vendor_id)
    return [
        ((number, *path), value)
        for number, answer in enumerate(bench.wire.answers)
        for path, value in _values(json.loads(answer.content))
    ]


async def _with(bench: Bench, vendor_id: str, path: Path, value: object) -> PaymentSnapshot | CallFailed:
    """What the look becomes with another value in one place of one answer."""
    bench.wire.forge = _forging(path, value)
    try:
        return await bench.outcome(bench.fetch(vendor_id))
    finally:
        bench.wire.forge = None


async def _unheard_of(
    bench: Bench, vendor_id: str, leaves: Mapping[Path, object]
) -> dict[Path, PaymentSnapshot | CallFailed]:
    """What the look becomes with a word of tomorrow in each place that has a text."""
    places = [path for path, value in leaves.items() if isinstance(value, str)]
    return {path: await _with(bench, vendor_id, path, UNHEARD_OF) for path in places}


def _is_a_word(value: object) -> bool:
    """No time, no amount, no address: something that may be a status."""
    return isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z_ -]*", value) is not None


def _forging(path: Path, value: object) -> Callable[[HttpResponse], HttpResponse]:
    number, *rest = path
    seen = 0

    def forge(answer: HttpResponse) -> HttpResponse:
        nonlocal seen
        seen += 1
        if seen != cast(int, number) + 1:
            return answer
        document = _replaced(json.loads(answer.content), rest, value)
        return replace(answer, content=json.dumps(document).encode())

    return forge


def _values(document: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    match document:
        case dict():
            for key, value in cast(dict[str, object], document).items():
                yield from _values(value, (*path, key))
        case list():
            for index, value in enumerate(cast(list[object], document)):
                yield from _values(value, (*path, index))
        case _:
            yield path, document


def _replaced(document: object, path: Sequence[str | int], value: object) -> object:
    if not path:
        return value
    first, *rest = path
    if isinstance(document, list):
        items = list(cast(list[object], document))
        items[cast(int, first)] = _replaced(items[cast(int, first)], rest, value)
        return items
    held = dict(cast(dict[str, object], document))
    held[cast(str, first)] = _replaced(held[cast(str, first)], rest, value)
    return held


def _doubled(value: object) -> object | None:
    """Twice the number that stands there; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        doubled = Decimal(str(value)) * 2
    except InvalidOperation:
        return None
    if not doubled or not doubled.is_finite():
        return None
    return f"{doubled:f}" if isinstance(value, str) else type(value)(doubled)


def _of_the_payment(attempt: Attempt) -> frozenset[str]:
    """What stands in an answer for the payment's own sake."""
    return frozenset({attempt.id, attempt.vendor_id, attempt.price.currency})


def _name(path: Path) -> str:
    return ".".join(map(str, path[1:]))
