"""Payments: create an offer once, follow it to the end, tell about the money once."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Self

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    Exhausted,
    InvalidInput,
    InvalidMoney,
    Mismatch,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Rejected,
    StoreError,
    VersionConflict,
)
from holdfast.outcome import Cause
from holdfast.payments import machine
from holdfast.payments.machine import Fact, GiveUp, LookUp, Show, Start, Wait, next_look, step, todo
from holdfast.payments.models import Attempt, AttemptState, Payment, PaymentStatus, Quote
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    OfferRequest,
    PaymentProvider,
    SupportsLookup,
    SupportsQuotes,
)
from holdfast.payments.rates import Rates
from holdfast.payments.record import KIND, decode, encode
from holdfast.queue.inbox import Arrived
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.runtime import Runtime
from holdfast.stores.store import NewJob, Record
from holdfast.telemetry import FellOver, OutcomeBecameUnknown, PaymentChanged, PaymentFlagged, Security
from holdfast.values import BTC, Money, Reference, Secrets

POLL = tuple(timedelta(seconds=after) for after in (30, 60, 120, 300))

_KEYS = uuid.UUID("6d0c1f0a-6d1e-4c39-9d55-1f2f6b9d6a01")  # the namespace attempts' ids are derived in


class Payments:
    """Collect amounts due, over providers in order of preference.

    Alone: `async with Payments([...], store="sqlite:///shop.db") as payments`; in a hub, pass it as `payments=`.
    """

    def __init__(
        self,
        providers: Sequence[PaymentProvider],
        *,
        store: str | None = None,
        secret: Secrets | None = None,
        public_url: str | None = None,
        deadline: float = 8.0,
        resolve: float = 8.0,
        poll: Sequence[timedelta] = POLL,
        rates: Rates | None = None,
        rates_for: float = 15.0,
        runtime: Runtime | None = None,
    ) -> None:
        """`deadline` is one `create`, in seconds; `resolve` how much longer it finds out what became of an offer before
        it says that it does not know; `poll` the growing waits between looks at an open offer; a rate is
        used again for `rates_for` seconds. `rates` replaces the providers' own."""
        self.providers = {provider.name: provider for provider in providers}
        if len(self.providers) != len(providers):
            raise ConfigurationError("two payment providers share a name; give each account its own name=")
        self._deadline = deadline
        self._resolve = resolve
        self._poll = tuple(poll)
        self._rates = rates
        self._rates_for = timedelta(seconds=rates_for)
        self._quotes: dict[tuple[str, str], Quote] = {}
        self._owned = Runtime(store, secret=secret, public_url=public_url) if store and not runtime else None
        self._bound = runtime or self._owned
        if self._bound:
            self.bind(self._bound)

    def bind(self, runtime: Runtime) -> Self:
        """Use the hub's runtime; called by the hub."""
        self._bound = runtime
        for provider in self.providers.values():
            runtime.admit(provider)
        return self

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, at)

    # What callers ask for.

    async def create(
        self,
        reference: str,
        due: Money,
        *,
        description: str = "",
        expires_in: timedelta = timedelta(minutes=15),
        return_url: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Payment:
        """Make one offer for what is due; asked again with the same reference, the stored payment comes back.

        A provider that fails provably, or whose offer nobody was shown, is followed by the next one.

        Raises:
            InvalidInput, InvalidReference, InvalidMoney: Before anything is sent.
            ReferenceConflict: The reference names a payment of other money.
            Rejected: The vendor said no, for a reason no other vendor would see otherwise.
            OutcomeUnknown: No offer within the deadline, and one may exist at a vendor; it is being found out.
            Exhausted: Two or more providers failed; one failure is raised as itself.
        """
        said = dict(metadata or {})
        texts: list[object] = [description, return_url or "", *said, *said.values()]
        if not all(isinstance(text, str) for text in texts):
            raise InvalidInput("description, return_url and metadata are texts; write str(…) around what is none")
        wanted = Payment(
            reference=Reference(reference),
            due=self._checked(due),
            description=description,
            return_url=return_url,
            expires_in=expires_in,
            metadata=said,
            created_at=self._runtime.clock.now(),
        )
        order = self._eligible(due)
        with deadline_scope(self._deadline + self._resolve, self._runtime.clock):
            stored = await self._load(wanted.reference)
            if stored and stored.due != wanted.due:
                raise ReferenceConflict(KIND, reference, f"{stored.due} due")
            return await self._drive(stored or wanted, order)

    async def get(self, reference: str) -> Payment:
        """The payment as last known. Raises NotFound."""
        payment = await self._load(Reference(reference))
        if payment is None:
            raise NotFound(KIND, reference)
        return payment

    async def wait(self, reference: str, *, timeout: float) -> Payment:
        """The payment once it is paid or over, or as it stands after `timeout` seconds."""
        clock = self._runtime.clock
        until = clock.monotonic() + timeout
        while True:
            payment = await self.get(reference)
            over = (PaymentStatus.PAID, PaymentStatus.EXPIRED, PaymentStatus.FAILED, PaymentStatus.CANCELED)
            if payment.status in over or clock.monotonic() >= until:
                return payment
            await clock.sleep(min(0.1, max(0.0, until - clock.monotonic())))

    async def refresh(self, reference: str) -> Payment:
        """Ask the vendors how the payment stands, now."""
        return await self._tend(await self.get(reference), everything=True)

    # What the worker asks for.

    async def arrived(self, delivery: Arrived) -> bool:
        """Look at the object a delivery is about; False: it is none of ours.

        Raises:
            NotFound: No payment of ours names it, yet: the delivery may have overtaken our own commit.
            CallFailed: The vendor could not be asked; the delivery is to be tried again.
        """
        payment, attempt = await self._find(delivery)
        vendor_id = attempt.vendor_id or delivery.vendor_id
        if not vendor_id:
            await self._look_up(payment, attempt.number)
            return True
        if delivery.vendor_id not in ("", vendor_id):
            return self._strange(delivery, payment)
        fact = await self._ask(attempt, vendor_id)
        if not attempt.vendor_id:
            # A delivery is a hint: only the object itself says whose it is.
            if fact.snapshot is None or fact.snapshot.attempt_id not in ("", attempt.id):
                return self._strange(delivery, payment)
            discovered = machine.Discovered(at=self._now(), number=attempt.number, vendor_id=vendor_id)
            payment = await self._commit(payment, discovered)
        await self._commit(payment, fact)
        return True

    def _strange(self, delivery: Arrived, payment: Payment) -> bool:
        self._runtime.telemetry.emit(
            Security("delivery names another object", delivery.provider, f"payment {payment.reference}")
        )
        return False

    async def sweep(self, *, limit: int = 100) -> int:
        """Look at every payment that wants to be looked at; how many there were."""
        due = await self._runtime.store.records.due(KIND, limit=limit)
        await self._runtime.each([self._sweep_one(record) for record in due])
        return len(due)

    async def _sweep_one(self, record: Record) -> None:
        payment = self._decode(record)
        try:
            await self._tend(payment, everything=False)
        except StoreError:
            raise
        except Exception:  # a border: whatever makes one payment fail, it must not stay first in line before all others
            await self._postpone(await self.get(payment.reference))
            raise

    # One step after another.

    async def _drive(self, payment: Payment, order: Sequence[str]) -> Payment:
        failures: dict[str, CallFailed] = {}
        self._runtime.never_shut([self.providers[name] for name in order], "create")
        while True:
            payment = await self._pass_time(payment)
            match todo(payment, order, self._capabilities, failed=frozenset(failures), now=self._now()):
                case Show():
                    return payment
                case Start(provider):
                    self._tell_fallback(failures, provider)
                    try:
                        payment = await self._start(payment, provider, self._share(order, provider))
                    except CallFailed as error:
                        failures[provider] = error
                        payment = await self._load(payment.reference) or payment
                case Wait():
                    payment = await self._await_other(payment)
                case LookUp(number):
                    payment = await self._look_up(payment, number)
                case GiveUp(unknown):
                    raise self._failure(payment, tuple(failures.values()), unknown)

    async def _start(self, payment: Payment, name: str, share: float) -> Payment:
        """Commit the attempt, then make its one submission. Raises CallFailed, already recorded."""
        provider = self.providers[name]
        http = self._runtime.http(provider)
        with deadline_scope(share, self._runtime.clock):
            quote = None
            if not _takes(provider.capabilities, payment.due):
                quote = await self._quote(provider, payment.due)
            number = len(payment.attempts) + 1
            fact = machine.Started(
                at=self._now(),
                provider=name,
                attempt_id=uuid.uuid5(_KEYS, f"{payment.reference}|{number}|{name}|{self._runtime.nonce()}").hex,
                price=quote.price if quote else payment.due,
                quote=quote,
                timeout=timedelta(seconds=max(0.0, remaining(self._runtime.clock))),
                expires_in=max(payment.expires_in, provider.capabilities.minimum_expiry),
            )
            started = step(payment, fact).payment
            try:
                payment = await self._apply(started, payment.version, ())
            except VersionConflict:
                return await self.get(payment.reference)  # another process was first: its attempt counts
            attempt = payment.attempts[-1]
            try:
                snapshot = await provider.create(http, self._request(payment, attempt))
            except InvalidInput as error:
                unsent = NotSent(str(error), provider=name, operation="create", local=True)
                await self._commit(payment, machine.Failed(at=self._now(), number=number, claim=1, error=unsent))
                raise
            except CallFailed as error:
                lost = machine.Failed(at=self._now(), number=number, claim=attempt.claim, error=error)
                payment = await self._commit(payment, lost)
                if error.cause is Cause.UNKNOWN:
                    self._runtime.telemetry.emit(OutcomeBecameUnknown(name, "create", payment.reference))
                    if provider.capabilities.lookup is not Lookup.NONE and remaining(self._runtime.clock) > 0:
                        return payment  # todo() looks it up before anybody else is asked
                raise
        answer = machine.Answered(at=self._now(), number=number, claim=attempt.claim, snapshot=snapshot)
        payment = await self._commit(payment, answer)
        attempt = payment.attempts[number - 1]
        if attempt.cause is Cause.MISMATCH:
            raise Mismatch(f"{name}: {attempt.error}", provider=name, operation="create")
        return payment

    async def _quote(self, provider: PaymentProvider, due: Money) -> Quote:
        """The price in the provider's currency, at a rate of its own that is a few seconds old at most."""
        known, now = self._quotes.get((provider.name, due.currency)), self._now()
        if known and now - known.at < self._rates_for:
            return Quote.of(due, Decimal(known.rate), known.price.currency, source=known.source, at=known.at)
        if self._rates is not None:
            quote = await self._rates.quote(due, _only(provider.capabilities), at=now)
        else:
            assert isinstance(provider, SupportsQuotes)  # _eligible() let no other through
            quote = await provider.quote(self._runtime.http(provider), due, at=now)
        self._quotes[provider.name, due.currency] = quote
        return quote

    async def _tend(self, payment: Payment, *, everything: bool) -> Payment:
        """Look at each attempt that is due, or at all that can still change."""
        payment = await self._pass_time(payment)
        for attempt in payment.attempts:
            due = machine.next_look(replace(payment, attempts=(attempt,)), self._capabilities, self._poll)
            if due is None or (not everything and due > self._now()):
                continue
            if attempt.vendor_id or attempt.state is AttemptState.UNKNOWN:
                payment = await self._look_up(payment, attempt.number)
        return await self._pass_time(payment)

    async def _postpone(self, payment: Payment) -> None:
        """Count what is due as looked at in vain, so that it is due later."""
        for attempt in payment.attempts:
            due = machine.next_look(replace(payment, attempts=(attempt,)), self._capabilities, self._poll)
            if due is not None and due <= self._now():
                payment = await self._commit(payment, machine.Unreachable(at=self._now(), number=attempt.number))

    async def _look_up(self, payment: Payment, number: int) -> Payment:
        """Look at an attempt by the vendor's id, else by our own; who cannot be asked is asked again later."""
        attempt = payment.attempts[number - 1]
        provider = self.providers.get(attempt.provider)
        fact: Fact = machine.Unreachable(at=self._now(), number=number)
        try:
            if provider and attempt.vendor_id:
                fact = await self._ask(attempt, attempt.vendor_id)
            elif isinstance(provider, SupportsLookup):
                snapshot = await provider.find(self._runtime.http(provider), attempt)
                fact = machine.LookedUp(
                    at=self._now(),
                    number=number,
                    snapshot=snapshot,
                    capabilities=provider.capabilities,
                    live=self._runtime.live(provider),
                )
        except CallFailed:
            fact = machine.Unreachable(at=self._now(), number=number)
        return await self._commit(payment, fact)

    async def _ask(self, attempt: Attempt, vendor_id: str) -> machine.Looked:
        """The vendor's object as it is now. Raises CallFailed: the vendor did not say."""
        provider = self.providers[attempt.provider]
        snapshot, mismatch = None, ""
        try:
            snapshot = await provider.fetch(self._runtime.http(provider), vendor_id)
        except Mismatch as error:
            mismatch = str(error)
        except Rejected as error:
            if error.status != 404:
                raise
        return machine.Looked(
            at=self._now(),
            number=attempt.number,
            snapshot=snapshot,
            capabilities=provider.capabilities,
            live=self._runtime.live(provider),
            mismatch=mismatch,
        )

    async def _pass_time(self, payment: Payment) -> Payment:
        return await self._commit(payment, machine.Passed(at=self._now(), capabilities=self._capabilities))

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
        return await self.get(payment.reference)

    # The record.

    async def _load(self, reference: str) -> Payment | None:
        record = await self._runtime.store.records.get(KIND, reference)
        return self._decode(record) if record else None

    async def _commit(self, payment: Payment, fact: Fact) -> Payment:
        """Apply the fact to the payment as stored; on a lost race, read and decide again."""
        while True:
            stepped = step(payment, fact)
            if stepped.payment == payment:
                return payment
            try:
                committed = await self._apply(
                    stepped.payment, payment.version, self._runtime.subscriptions.jobs(stepped.events)
                )
            except VersionConflict:
                payment = await self.get(payment.reference)
                continue
            self._tell(payment, committed)
            return committed

    async def _apply(self, payment: Payment, expected: int, jobs: Sequence[NewJob]) -> Payment:
        draft = encode(payment, due_at=next_look(payment, self._capabilities, self._poll))
        record = await self._runtime.store.records.apply(KIND, payment.reference, expected, draft, jobs=jobs)
        return replace(payment, version=record.version)

    def _decode(self, record: Record) -> Payment:
        return decode(record)

    async def _find(self, delivery: Arrived) -> tuple[Payment, Attempt]:
        """The attempt a delivery is about: by the URL we gave, by the vendor's id, by what the object echoes."""
        records = self._runtime.store.records
        if delivery.attempt_id:
            for record in await records.find(KIND, "attempt", delivery.attempt_id):
                payment = self._decode(record)
                for attempt in payment.attempts:
                    if (attempt.provider, attempt.id) == (delivery.provider, delivery.attempt_id):
                        return payment, attempt
        if delivery.vendor_id:
            for record in await records.find(KIND, "vendor", f"{delivery.provider}/{delivery.vendor_id}"):
                payment = self._decode(record)
                for attempt in payment.attempts:
                    if (attempt.provider, attempt.vendor_id) == (delivery.provider, delivery.vendor_id):
                        return payment, attempt
            if delivery.reference and (echoed := await self._find_by_echo(delivery)):
                return echoed
        raise NotFound(KIND, f"for {delivery.provider} {delivery.vendor_id or delivery.reference}")

    async def _find_by_echo(self, delivery: Arrived) -> tuple[Payment, Attempt] | None:
        """The reference is a hint of where to look; whose the object is, the vendor says when asked."""
        payment = await self._load(delivery.reference)
        unbound = [
            attempt
            for attempt in (payment.attempts if payment else ())
            if attempt.provider == delivery.provider and not attempt.vendor_id
        ]
        if payment is None or not unbound:
            return None
        asked = await self._ask(unbound[0], delivery.vendor_id)
        echo = asked.snapshot.attempt_id if asked.snapshot else ""
        return next(((payment, attempt) for attempt in unbound if attempt.id == echo), None)

    # Small things.

    @property
    def _runtime(self) -> Runtime:
        if self._bound is None:
            raise ConfigurationError("these payments have no store: pass store=, or give them to a hub")
        return self._bound

    @property
    def _capabilities(self) -> Mapping[str, Capabilities]:
        return {name: provider.capabilities for name, provider in self.providers.items()}

    def _now(self) -> datetime:
        return self._runtime.clock.now()

    def _checked(self, due: Money) -> Money:
        if not isinstance(due, Money):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidMoney(f'what is due is a Money, not {type(due).__name__}: Money("120.00", "CHF")')
        if due.minor_units <= 0:
            raise InvalidMoney(f"{due} cannot be due; an amount is above zero")
        return due

    def _eligible(self, due: Money) -> list[str]:
        names = [
            name
            for name, provider in self.providers.items()
            if _takes(provider.capabilities, due) or self._rates or isinstance(provider, SupportsQuotes)
        ]
        if not names:
            raise ConfigurationError(f"no payment provider takes {due.currency}; add one that does")
        return names

    def _share(self, order: Sequence[str], name: str) -> float:
        """This provider's share of what remains of the deadline; after a wait for somebody else, an equal one."""
        left = remaining(self._runtime.clock)
        among = len(order) - order.index(name)
        share = self._runtime.share(self.providers[name], "create", left - self._resolve, among)
        return max(share, min(self._deadline / len(order), left))

    def _request(self, payment: Payment, attempt: Attempt) -> OfferRequest:
        return OfferRequest(
            reference=payment.reference,
            attempt_id=attempt.id,
            price=attempt.price,
            description=payment.description or payment.reference,
            expires_in=attempt.expires_at - attempt.claimed_at,
            expires_at=attempt.expires_at,
            webhook_url=self._runtime.webhook_url(self.providers[attempt.provider], attempt.id),
            return_url=payment.return_url,
        )

    def _failure(self, payment: Payment, failures: tuple[CallFailed, ...], unknown: int | None) -> Exception:
        if len(failures) > 1 and failures[-1].cause is not Cause.REJECTED:
            return Exhausted(f"create payment {payment.reference}", failures)
        if failures:
            return failures[-1]
        if unknown is None:
            return NotSent(f"no provider is left for payment {payment.reference}", operation="create", local=True)
        attempt = payment.attempts[unknown - 1]
        return OutcomeUnknown(
            f"{attempt.provider}: payment {payment.reference} may exist there ({attempt.error}); "
            "it is being found out, do not create another",
            provider=attempt.provider,
            operation="create",
        )

    def _tell_fallback(self, failures: Mapping[str, CallFailed], to: str) -> None:
        if failures:
            name, error = list(failures.items())[-1]
            self._runtime.telemetry.emit(FellOver("payments.create", name, to, error.cause))

    def _tell(self, before: Payment, after: Payment) -> None:
        emit = self._runtime.telemetry.emit
        if before.status is not after.status:
            emit(PaymentChanged(after.reference, after.provider, before.status, after.status))
        for anomaly in after.anomalies - before.anomalies:
            emit(PaymentFlagged(after.reference, after.provider, anomaly))


def _takes(capabilities: Capabilities, due: Money) -> bool:
    return capabilities.currencies is None or due.currency in capabilities.currencies


def _only(capabilities: Capabilities) -> str:
    """The currency a provider that does not take the due one is to be asked in: bitcoin, or its first."""
    currencies = capabilities.currencies or frozenset()
    return BTC if BTC in currencies else min(currencies)
