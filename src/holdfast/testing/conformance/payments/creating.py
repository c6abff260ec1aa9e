"""Creating: one exchange, the exact amount or nothing, an offer that ends, one effect per key."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from holdfast.errors import CallFailed, InvalidInput
from holdfast.iso4217 import EXPONENTS
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import Lookup, OfferRequest, PaymentProvider, PaymentSnapshot
from holdfast.testing.conformance.payments.bench import Bench
from holdfast.testing.conformance.payments.promise import Broken, Promise, demand
from holdfast.testing.entries import Kind
from holdfast.values import BTC, Money, exponent

ANYBODYS: Final = ("CHF", "EUR", "USD", "JPY", "XOF", "KWD", "TND", BTC)
"""Tried with a provider that names no currencies: of every number of decimals there is."""
OPEN: Final = frozenset({PaymentStatus.PENDING, PaymentStatus.PROCESSING})
A_MINUTE: Final = timedelta(minutes=1)


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of every provider, and of those whose vendor keeps a key."""
    able = provider.capabilities
    yield Promise.of(creates_one_offer_in_one_exchange)
    currencies = sorted(ANYBODYS if able.currencies is None else able.currencies)
    for digits, group in groupby(sorted(currencies, key=exponent), exponent):
        yield Promise.of(takes_exact_amounts, tuple(group), named=f"{digits} decimals")
    if able.currencies is not None:
        yield Promise.of(takes_no_other_currency)
    yield Promise.of(offers_end_when_they_are_said_to)
    if able.create_effect is Effect.KEYED:
        yield Promise.of(one_key_is_one_offer)
        yield Promise.of(another_body_under_one_key_is_no_second_offer)


async def creates_one_offer_in_one_exchange(bench: Bench) -> None:
    """Creating is one exchange of the declared effect and leaves one offer, which is told with our own id."""
    request = bench.request()

    await bench.sign_in()
    made = _at_once(bench, request)

    effects = [asked.effect for asked in bench.witness.asked]
    demand(len(bench.wire.sent) == 1, f"it made {len(bench.wire.sent)} exchanges")
    demand(effects == [bench.able.create_effect], f"it declares {bench.able.create_effect} and does {effects}")
    if bench.able.create_effect is Effect.KEYED:
        passed = bench.witness.asked[0].key_valid is request.key_valid
        demand(passed, "it does not pass on key_valid, by which its key is left alone once the vendor forgot it")
    offers = bench.entries(Kind.OFFER)
    demand(len(offers) == 1, f"{len(offers)} offers are in the ledger")
    demand(bool(made.vendor_id), "the vendor's id is missing")
    demand(made.offer is not None, "there is no offer in it")
    demand(made.status in OPEN, f"what was just created is {made.status}")
    seen = await bench.fetch(made.vendor_id)
    demand(seen.vendor_id == made.vendor_id, f"created as {made.vendor_id}, fetched as {seen.vendor_id}")
    demand(seen.status in OPEN, f"what nobody paid is {seen.status}")
    for snapshot in (made, seen):
        demand(snapshot.price in (None, request.price), f"{request.price} became {snapshot.price}")
        demand(snapshot.attempt_id in ("", request.attempt_id), f"our id came back as {snapshot.attempt_id}")
        demand(snapshot.received is None or not snapshot.received, f"nobody paid, and {snapshot.received} came in")
    if bench.able.lookup is not Lookup.NONE:
        echoed = request.attempt_id in (made.attempt_id, seen.attempt_id)
        bound = seen.vendor_id == made.vendor_id
        demand(echoed or bound, "it can be looked up by our id, and never tells it")


async def takes_exact_amounts(currencies: tuple[str, ...], bench: Bench) -> None:
    """An amount arrives as it is, in every currency it takes; where it cannot, nothing is sent."""
    for currency in currencies:
        step = 10 ** exponent(currency)
        whole = Money.from_sat(210_000) if currency == BTC else Money(12_000, currency)
        odd = Money.from_minor(whole.minor_units + (1 if currency == BTC else step // 8), currency)
        taken = await _arrives(bench, whole)
        demand(taken or bench.able.currencies is None, f"it takes {currency}, and not {whole}")
        if odd != whole:
            await _arrives(bench, odd)


async def takes_no_other_currency(bench: Bench) -> None:
    """What is due in a currency it does not take never becomes an offer."""
    others = [code for code in (BTC, *EXPONENTS) if code not in (bench.able.currencies or ())]
    for currency in others[:: max(1, len(others) // 12)]:
        demand(not await _arrives(bench, Money(12_000, currency)), f"it does not take {currency}, and made an offer")


async def offers_end_when_they_are_said_to(bench: Bench) -> None:
    """An offer ends when it was asked to, or before; never later than it says, but for its grace."""
    for wanted in (bench.able.minimum_expiry, max(bench.able.minimum_expiry, timedelta(hours=1))):
        request = bench.request(expires_in=wanted)

        made = await bench.create(request)

        told = made.offer.expires_at if made.offer else None
        if told is not None:
            demand(told > bench.clock.now(), f"it ends at {told}, before it begins")
            demand(told <= request.expires_at + A_MINUTE, f"asked to end at {request.expires_at}, it ends at {told}")
        ends = bench.entries(Kind.OFFER)[-1].facts.get("expires_at")
        last = (told or request.expires_at) + bench.able.grace + A_MINUTE
        if ends:
            demand(
                datetime.fromisoformat(ends) <= last, f"it says that it ends by {last}, and it can be paid to {ends}"
            )


async def one_key_is_one_offer(bench: Bench) -> None:
    """Asked for twice under one key, the vendor makes one offer, and both answers are about it."""
    request = bench.request()

    made = await bench.create(request)
    again = await bench.outcome(bench.create(request))

    _one_offer(bench, made, again)


async def another_body_under_one_key_is_no_second_offer(bench: Bench) -> None:
    """Another amount under a key that was used is no second offer, and never taken for what was asked."""
    request = bench.request()
    other = bench.request(Money.from_minor(request.price.minor_units * 2, request.price.currency))
    other = bench.request(other.price, attempt_id=request.attempt_id)

    made = await bench.create(request)
    again = await bench.outcome(bench.create(other))

    _one_offer(bench, made, again)


def _one_offer(bench: Bench, made: PaymentSnapshot, again: PaymentSnapshot | CallFailed) -> None:
    offers = bench.entries(Kind.OFFER)
    demand(len(offers) == 1, f"{len(offers)} offers are in the ledger")
    if isinstance(again, CallFailed):
        exists = again.cause in (Cause.UNKNOWN, Cause.MISMATCH, Cause.REJECTED)
        demand(exists, f"the vendor has it, and it is told as {again.cause}")
    else:
        demand(again.vendor_id == made.vendor_id, f"{made.vendor_id} became {again.vendor_id}")


def _at_once(bench: Bench, request: OfferRequest) -> PaymentSnapshot:
    """Creating as it is without a guard. Raises Broken: it waits for something of its own."""
    work = bench.provider.create(bench.http, request)
    try:
        while True:
            demand(work.send(None) is None, "it waits by itself, and not for its answer alone")
    except StopIteration as done:
        made: PaymentSnapshot = done.value
        return made
    finally:
        work.close()


async def _arrives(bench: Bench, price: Money) -> bool:
    """Whether the offer was made, over exactly this. Raises Broken: over something else, or refused too late."""
    sent, offers = len(bench.wire.sent), len(bench.entries(Kind.OFFER))
    try:
        made = await bench.create(bench.request(price))
    except InvalidInput:
        demand(len(bench.wire.sent) == sent, f"{price} is refused after something was sent")
        return False
    except CallFailed as error:
        demand(len(bench.entries(Kind.OFFER)) == offers, f"{price} is refused, and offered")
        demand(error.cause in (Cause.REJECTED, Cause.REFUSED), f"{price} is not taken, and told as {error.cause}")
        demand(bench.able.currencies is None, f"{price} is left to the vendor to refuse: {error}")
        return False
    except Exception as error:
        raise Broken(f"{price} is answered with {type(error).__name__}: {error}") from error
    entry = bench.entries(Kind.OFFER)[-1]
    demand(entry.money == price, f"{price} arrived as {entry.money}")
    demand(made.price in (None, price), f"{price} is told as {made.price}")
    seen = await bench.fetch(made.vendor_id)
    demand(seen.price in (None, price), f"{price} is fetched as {seen.price}")
    return True
