"""What the vendor tells by itself, and what it lists: believed only when it is the vendor's, and never for state."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, cast

from holdfast.errors import MissingExtra
from holdfast.outcome import Effect
from holdfast.payments.provider import LineKind, PaymentProvider, Refunding, SupportsRefunds, SupportsStatements
from holdfast.queue.reconciliation import SupportsListing
from holdfast.testing.conformance.payments.bench import DOOR_SECRET, REFERENCE, START, Bench
from holdfast.testing.conformance.payments.losing import part
from holdfast.testing.conformance.payments.promise import Broken, Promise, demand
from holdfast.testing.entries import Kind
from holdfast.testing.simulators.forgeries import Manner, dress, forgeries
from holdfast.testing.simulators.simulator import Webhook
from holdfast.values import Money, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import Delivery, RawRequest
from holdfast.webhooks.signatures import KeyedUrl, Verdict

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise MissingExtra("testing") from error

EXAMPLES: Final = 60
A_DAY: Final = timedelta(days=1)
SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
)


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of those whose vendor calls, and of those whose vendor lists."""
    if isinstance(provider, ReceivesWebhooks):
        yield Promise.of(believes_the_vendor)
        yield Promise.of(believes_nobody_else)
        yield Promise.of(reads_any_webhook_or_says_why_not)
        yield Promise.of(judges_any_request)
    if isinstance(provider, SupportsListing):
        yield Promise.of(lists_what_webhooks_tell)
    if isinstance(provider, SupportsStatements):
        yield Promise.of(states_what_the_ledger_has)


async def believes_the_vendor(bench: Bench) -> None:
    """The vendor's own webhook is believed, read the same each time, and leads back to the payment."""
    request = bench.request()
    made = await bench.create(request)
    bench.pay(made)
    provider = _door(bench)
    for webhook in _owed(bench):
        raw = _sent(bench, webhook, Manner.GENUINE)

        verdict = _verdict(bench, raw)

        demand(verdict.valid, f"the vendor's own {webhook.event} is refused: {verdict.reason}")
        demand(provider.handshake(raw) is None, f"the vendor's own {webhook.event} is taken for a handshake")
        deliveries = provider.parse(raw)
        demand(bool(deliveries), f"nothing is read in the vendor's own {webhook.event}")
        keys = [delivery.dedup_key for delivery in deliveries]
        demand(all(keys) and len(set(keys)) == len(keys), f"the keys of one request are {keys}")
        demand(keys == [delivery.dedup_key for delivery in provider.parse(raw)], "read again, it has another key")
        for delivery in deliveries:
            by_url = not delivery.vendor_id and provider.scheme is None
            led = by_url or _leads(delivery, made.vendor_id, request.attempt_id)
            demand(led, f"{delivery.type} leads to {delivery.vendor_id}, and not to {made.vendor_id}")
            bench.silent(repr(delivery))


async def believes_nobody_else(bench: Bench) -> None:
    """Whatever a forger changes of a webhook, it is refused, and the reason is told without a secret."""
    made = await bench.create(bench.request())
    bench.pay(made)
    for webhook in _owed(bench):
        manners = forgeries(bench.vendor, webhook)
        demand(bool(manners), "the simulator lets nothing be forged")
        for manner in manners:
            verdict = _verdict(bench, _sent(bench, webhook, manner))
            demand(not verdict.valid, f"a webhook with {manner.value.replace('_', ' ')} is believed")
            demand(bool(verdict.reason), f"{manner} is refused without a reason")
            bench.silent(repr(verdict))


async def reads_any_webhook_or_says_why_not(bench: Bench) -> None:
    """Of any body there are deliveries, or a ValueError: no other error, and no delivery without a key."""
    bench.pay(await bench.create(bench.request()))
    provider, webhook = _door(bench), _owed(bench)[-1]
    genuine = _sent(bench, webhook, Manner.GENUINE)
    places = list(_places(_document(webhook.body)))

    def read(body: bytes) -> None:
        raw = RawRequest(method=genuine.method, url=genuine.url, headers=genuine.headers, body=body, received_at=START)
        try:
            deliveries = provider.parse(raw)
        except ValueError:
            return
        except Exception as error:
            raise Broken(f"{type(error).__name__} comes out of {body!r}: {error}") from error
        _well_formed(deliveries, body)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(st.binary(max_size=60))
    def read_bytes(body: bytes) -> None:
        read(body)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(ANYTHING)
    def read_json(document: object) -> None:
        read(json.dumps(document).encode())

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, len(webhook.body)), st.binary(max_size=3))
    def read_damaged(place: int, other: bytes) -> None:
        read(webhook.body[:place] + other + webhook.body[place + len(other) :])
        read(webhook.body[:place])

    checks = [read_bytes, read_json, read_damaged]
    if places:

        @settings(max_examples=2 * EXAMPLES, deadline=None, database=None, derandomize=True)
        @given(st.sampled_from(places), ANYTHING)
        def read_altered(place: tuple[str | int, ...], other: object) -> None:
            read(json.dumps(_altered(_document(webhook.body), place, other)).encode())

        checks.append(read_altered)
    for check in checks:
        check()


async def judges_any_request(bench: Bench) -> None:
    """Of any request there is a verdict, and it is no: whatever stands in its headers, its address and its body."""
    bench.pay(await bench.create(bench.request()))
    genuine = _sent(bench, _owed(bench)[-1], Manner.GENUINE)
    names = sorted({name.lower() for name, _ in genuine.headers} | {"signature"})
    headers = st.lists(st.tuples(st.sampled_from(names), st.text(max_size=40)), max_size=6)

    @settings(max_examples=2 * EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(headers, st.binary(max_size=40), st.text(max_size=30))
    def judge(headers: Sequence[tuple[str, str]], body: bytes, path: str) -> None:
        url = f"{genuine.url.rpartition('/')[0]}/{path}"
        raw = RawRequest(method="POST", url=url, headers=headers, body=body, received_at=START)
        try:
            verdict = _verdict(bench, raw)
        except Exception as error:
            raise Broken(f"{type(error).__name__} comes out of a request: {error}") from error
        demand(not verdict.valid, f"a request that nobody signed is believed: {raw!r}")

    judge()


async def lists_what_webhooks_tell(bench: Bench) -> None:
    """What a webhook tells is listed under the same key and digest, so that whichever comes second is a duplicate."""
    provider: object = bench.provider
    assert isinstance(provider, SupportsListing)
    attempt = await bench.paid()
    told = {one.dedup_key: one for one in _told(bench)}
    await bench.clock.advance(60)
    bench.witness.asked.clear()

    listed = {one.dedup_key: one async for one in provider.list_deliveries(bench.http, START - A_DAY)}

    demand({asked.effect for asked in bench.witness.asked} == {Effect.READ}, "listing does more than look")
    demand(bool(listed), "money came in, and nothing is listed")
    leads = (_leads(one, attempt.vendor_id, attempt.id) for one in listed.values())
    demand(any(leads), "nothing that is listed leads to the payment")
    common = told.keys() & listed.keys()
    demand(bool(common) or not told, f"webhooks have the keys {sorted(told)}, the list {sorted(listed)}")
    for key in common:
        demand(_digest(told[key]) == _digest(listed[key]), f"{key} has another digest in the list")
    await bench.clock.advance(timedelta(days=40).total_seconds())
    late = [one async for one in provider.list_deliveries(bench.http, bench.clock.now() - timedelta(minutes=1))]
    demand(len(late) <= len(listed), "of a later time, more is listed")


async def states_what_the_ledger_has(bench: Bench) -> None:
    """The statement of a time has each payment and refund that moved in it, once, and nothing that did not."""
    provider: PaymentProvider = bench.provider
    listing: object = provider
    assert isinstance(listing, SupportsStatements)
    attempt = await bench.paid()
    await bench.create(bench.request())  # nobody pays it
    sent_back = None
    if isinstance(provider, SupportsRefunds) and bench.able.refunding is Refunding.API:
        refund = bench.refund_request(attempt, part(attempt.price), bench.id())
        sent_back = await provider.refund(bench.http, refund)
    await bench.clock.advance(A_DAY.total_seconds())  # some tell it hours later
    bench.witness.asked.clear()

    lines = [line async for line in listing.statement(bench.http, START - A_DAY, bench.clock.now())]

    demand({asked.effect for asked in bench.witness.asked} == {Effect.READ}, "a statement does more than look")
    payments = [line for line in lines if line.kind is LineKind.PAYMENT]
    refunds = [line for line in lines if line.kind is LineKind.REFUND]
    came = [entry.money for entry in bench.entries(Kind.CAPTURE)]
    went = [entry.money for entry in bench.entries(Kind.REFUND)]
    demand([line.money for line in payments] == came, f"{came} came in, the statement has {payments}")
    demand([_size(line.money) for line in refunds] == list(map(_size, went)), f"{went} went back, it has {refunds}")
    for line in payments:
        ours = attempt.vendor_id in (line.vendor_id, line.payment_id) or line.attempt_id == attempt.id
        demand(ours or line.reference == REFERENCE, f"{line!r} leads to no payment")
        demand(START - timedelta(seconds=1) <= line.at <= bench.clock.now(), f"it moved at {line.at}")
    for line in refunds:
        told = sent_back is not None and line.vendor_id == sent_back.vendor_id
        demand(told, f"the refund is stated as {line.vendor_id}")
    before = [line async for line in listing.statement(bench.http, START - 2 * A_DAY, START - A_DAY)]
    demand(not before, f"before anything moved, the statement has {before}")


# Webhooks


def _door(bench: Bench) -> ReceivesWebhooks:
    provider: object = bench.provider
    assert isinstance(provider, ReceivesWebhooks)
    return provider


def _owed(bench: Bench) -> list[Webhook]:
    owed = list(bench.vendor.outbox)
    demand(bool(owed), "it was paid, and the simulator owes no webhook: Simulator.owe() is what sends one")
    return owed


def _told(bench: Bench) -> list[Delivery]:
    """What the webhooks tell that the vendor owes by now."""
    provider: object = bench.provider
    if not isinstance(provider, ReceivesWebhooks):
        return []
    return [one for webhook in _owed(bench) for one in provider.parse(_sent(bench, webhook, Manner.GENUINE))]


def _sent(bench: Bench, webhook: Webhook, manner: Manner) -> RawRequest:
    """As it arrives."""
    url, headers, body = dress(bench.vendor, webhook, manner, bench.clock.now())
    lower = [(name.lower(), value) for name, value in headers]
    return RawRequest(method="POST", url=url, headers=lower, body=body, received_at=bench.clock.now())


def _verdict(bench: Bench, raw: RawRequest) -> Verdict:
    door = _door(bench)
    if door.scheme is None:
        return KeyedUrl(bench.name).verify(raw, Secrets(DOOR_SECRET))
    demand(door.webhook_secrets is not None, "its webhooks are signed, and there is no secret to verify them with")
    assert door.webhook_secrets is not None
    return door.scheme.verify(raw, door.webhook_secrets)


def _well_formed(deliveries: Sequence[Delivery], body: bytes) -> None:
    for one in deliveries:
        texts = (one.type, one.dedup_key, one.vendor_id, one.reference)
        demand(all(type(text) is str for text in texts), f"{body!r} is read as {one!r}")
        demand(bool(one.dedup_key), f"{body!r} is read without a key")


def _leads(delivery: Delivery, vendor_id: str, attempt_id: str) -> bool:
    """Whether it is about this payment, by the vendor's id, ours, or the reference."""
    named = (delivery.facts or {}).get("attempt_id") == attempt_id
    return delivery.vendor_id == vendor_id or named or delivery.reference == REFERENCE


def _digest(delivery: Delivery) -> str:
    return delivery.digest or sha256(delivery.body).hexdigest()


def _size(money: Money | None) -> int:
    return abs(money.minor_units) if money else 0


# Bodies, taken apart


def _document(body: bytes) -> object:
    try:
        document: object = json.loads(body)
    except ValueError:
        return None
    return _document(document.encode()) if isinstance(document, str) else document


def _places(document: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield place
    if isinstance(document, dict):
        for key, value in cast(dict[str, object], document).items():
            yield from _places(value, (*place, key))
    elif isinstance(document, list):
        for index, value in enumerate(cast(list[object], document)):
            yield from _places(value, (*place, index))


def _altered(document: object, place: Sequence[str | int], other: object) -> object:
    if not place:
        return other
    first, *rest = place
    held = cast(dict[str | int, object], document)
    held[first] = _altered(held[first], rest, other)
    return held
