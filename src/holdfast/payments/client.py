"""Payments: create an offer once, follow it to the end, tell about the money once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from types import TracebackType
from typing import Final, Self, cast

from pydantic import RootModel

from holdfast.errors import (
    ConfigurationError,
    InvalidInput,
    InvalidMoney,
    NaiveDatetime,
    ReferenceConflict,
    VersionConflict,
)
from holdfast.http.session import Params
from holdfast.http.wire import JsonIn, JsonOut
from holdfast.outcome import Effect
from holdfast.payments import accounts, facts
from holdfast.payments.accounts import Retired
from holdfast.payments.book import Book
from holdfast.payments.choosing import Choosing
from holdfast.payments.desk import Desk, Screen
from holdfast.payments.facts import Verdict
from holdfast.payments.following import FollowDesk
from holdfast.payments.machine import can_resolve
from holdfast.payments.models import Capture, Change, Payer, Payment, PaymentStatus
from holdfast.payments.offering import OfferDesk
from holdfast.payments.provider import Capabilities, PaymentProvider, SupportsCapture, SupportsClientSecret
from holdfast.payments.quoting import Quotes
from holdfast.payments.rates import Rates
from holdfast.payments.reconcile import MoneyReport
from holdfast.payments.reconciling import ReconcileDesk
from holdfast.payments.record import KIND
from holdfast.payments.refunding import RefundDesk
from holdfast.payments.refunds import Refund
from holdfast.payments.spend import Meter, Spend, SpendLimits, limits_of, spends
from holdfast.payments.submitting import SubmitDesk
from holdfast.payments.velocity import Velocity
from holdfast.queue.inbox import Arrived
from holdfast.resilience.context import deadline_scope
from holdfast.resilience.policy import Rate
from holdfast.routing import Route, Router, Switch, Switched
from holdfast.runtime import Runtime
from holdfast.settings import check_providers, check_seconds
from holdfast.values import Money, Reference, Secret, Secrets

POLL: Final = tuple(timedelta(seconds=after) for after in (30, 60, 120, 300))
OVER: Final = (PaymentStatus.PAID, PaymentStatus.EXPIRED, PaymentStatus.FAILED, PaymentStatus.CANCELED)


class _Document(RootModel[object]):
    """Any JSON, as it is read."""


class Payments:
    """Collect amounts due, over providers in order of preference.

    Alone: `async with Payments([...], store="sqlite:///shop.db") as payments`; in a hub, pass it as `payments=`.
    """

    def __init__(
        self,
        providers: Sequence[PaymentProvider | Retired],
        *,
        store: str | None = None,
        secret: Secrets | None = None,
        public_url: str | None = None,
        deadline: float = 8.0,
        resolve: float = 8.0,
        poll: Sequence[timedelta] = POLL,
        rates: Rates | None = None,
        rates_for: float = 15.0,
        screen: Screen | None = None,
        route: Route | None = None,
        spend_limits: SpendLimits | None = None,
        velocity: Rate | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """`deadline` is one `create`, in seconds; `resolve` how much longer it finds out what became of an offer before
        it says that it does not know; `poll` the growing waits between looks at an open offer; a rate is
        used again for `rates_for` seconds. `rates` replaces the providers' own. `screen` is asked before the first
        offer is made and before money that came in counts. `route` puts providers into order; without it yours counts.
        `spend_limits` are fees of a day, by provider, at which you are told; `velocity` is how many payments one
        customer may begin in a while.

        Raises:
            ConfigurationError: What is given is no list of providers, two share a name, a limit names none of them, or
                a time is out of its range.
        """
        check_providers("payments", accounts.not_retired(providers), Capabilities)
        taken = [one.provider if isinstance(one, Retired) else one for one in providers]
        self.providers = {provider.name: provider for provider in taken}
        if len(self.providers) != len(taken):
            raise ConfigurationError("two payment providers share a name; give each account its own name=")
        self._retired = frozenset(one.provider.name for one in providers if isinstance(one, Retired))
        self.spend_limits = limits_of(spend_limits or {})
        if strange := sorted(set(self.spend_limits) - set(self.providers)):
            raise ConfigurationError(f"spend_limits names {', '.join(strange)}, which is no payment provider")
        check_seconds("deadline", deadline, above=0)
        check_seconds("resolve", resolve)
        check_seconds("rates_for", rates_for)
        self._poll = tuple(poll)
        are_times = all(isinstance(wait, timedelta) for wait in self._poll)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not self._poll or not are_times or min(self._poll) <= timedelta():
            raise ConfigurationError("poll is the growing waits between looks, above zero: [timedelta(seconds=5), …]")
        self._deadline = deadline
        self._resolve = resolve
        self._rates = rates
        self._rates_for = timedelta(seconds=rates_for)
        self._screen = screen
        self._route = route
        self._rate = velocity
        self._owned = Runtime(store, secret=secret, public_url=public_url) if store and not runtime else None
        self._bound = runtime or self._owned
        if self._bound:
            self.bind(self._bound)

    def bind(self, runtime: Runtime) -> Self:
        """Use the hub's runtime; called by the hub."""
        self._bound = runtime
        for provider in self.providers.values():
            runtime.admit(provider)
        capabilities = {name: provider.capabilities for name, provider in self.providers.items()}
        self._meter = Meter(capabilities, self.spend_limits, runtime)
        self._book = Book(runtime, capabilities, self._poll, self._meter)
        self._desk = Desk(runtime, self._book, self.providers, poll=self._poll, screen=self._screen)
        self._refunds = RefundDesk(runtime, self.providers)
        self._following = FollowDesk(runtime, self._book, self._desk, self._refunds, self.providers)
        self._reconcile = ReconcileDesk(runtime, self._book, self._refunds, self.providers, self._following.learn)
        self._velocity = Velocity(self._rate, runtime.store) if self._rate else None
        self._router = Router(
            KIND,
            "create",
            self._route,
            self.providers,
            lambda name: runtime.guard(self.providers[name]),
            store=runtime.store,
            clock=runtime.clock,
        )
        quotes = Quotes(runtime, self._rates, self._rates_for)
        self._offers = OfferDesk(
            runtime,
            self._book,
            self._desk,
            SubmitDesk(runtime, self._book, self.providers, quotes),
            Choosing(self.providers, self._retired, quotes, self._router),
            self.providers,
            deadline=self._deadline,
            resolve=self._resolve,
        )
        return self

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        try:
            await self.check_providers()
        except BaseException as error:
            await self._runtime.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def check_providers(self) -> None:
        """Called once it is open, also by the hub.

        Raises:
            ConfigurationError: Payments are open at a provider that is not there.
        """
        if self.providers and self._runtime.store.durable:  # what forgets has never known another provider
            await accounts.check(self._runtime.store.records, self.providers)

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
        capture: Capture = Capture.AUTO,
        payer: Payer | None = None,
        region: str = "",
        customer: str = "",
        tenant: str = "",
    ) -> Payment:
        """Make one offer for what is due; asked again with the same reference, the stored payment comes back.

        A provider that fails provably, or whose offer nobody was shown, is followed by the next one. With
        `Capture.MANUAL` money is set aside until `capture`; `payer` is for vendors that have to be told who pays,
        `region` for a route that cares where data stays. `customer` is your name of who pays, for `velocity`; `tenant`
        is whose accounts take it, made by `for_tenant`.

        Raises:
            InvalidInput, InvalidReference, InvalidMoney: Before anything is sent.
            ReferenceConflict: The reference names a payment of other money, another tenant or another region.
            Throttled: The customer began too many payments; nothing was sent, and `retry_after` says when the next may.
            NotSent: Nobody could be asked, or is there to be asked; nothing of it was sent, by this call or another.
            ConfigurationError: No provider takes the currency; of what is stored, only where it needs another offer.
            Rejected: The vendor said no, for a reason no other vendor would see otherwise.
            OutcomeUnknown: No offer within the deadline, and one may exist at a vendor; it is being found out.
            Exhausted: Two or more providers failed; one failure is raised as itself.
        """
        _check_kind("metadata", metadata, Mapping, 'metadata={"booking": "4711"}')
        _check_kind("payer", payer, Payer, 'payer=Payer(email="ada@example.org")')
        said = dict(metadata or {})
        texts: list[object] = [description, return_url or "", region, customer, tenant, *said, *said.values()]
        if not all(isinstance(text, str) for text in texts):
            names = "description, return_url, region, customer, tenant and metadata"
            raise InvalidInput(f"{names} are texts; write str(…) around what is none")
        is_time = isinstance(expires_in, timedelta)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_time or expires_in <= timedelta():
            raise InvalidInput(f"expires_in is a time above zero, not {expires_in!r}: timedelta(minutes=15)")
        wanted = Payment(
            reference=Reference(reference),
            due=self._checked(due),
            description=description,
            return_url=return_url,
            expires_in=expires_in,
            metadata=said,
            capture=capture,
            payer=payer,
            tenant=tenant,
            region=region,
            created_at=self._runtime.clock.now(),
        )
        with deadline_scope(self._deadline + self._resolve, self._runtime.clock):
            stored = await self._book.load(wanted.reference)
            if stored and stored.due != wanted.due:
                raise ReferenceConflict(KIND, reference, f"{stored.due} due")
            if stored and stored.tenant != tenant:
                raise ReferenceConflict(KIND, reference, "another tenant")
            if stored and stored.region != region:
                raise ReferenceConflict(KIND, reference, f"region {stored.region or 'none'}")
            if self._velocity and not stored:
                await self._velocity.begin(customer, wanted.reference)
            return await self._offers.make(stored or wanted)

    async def get(self, reference: str) -> Payment:
        """The payment as last known. Raises NotFound."""
        return await self._book.get(Reference(reference))

    async def wait(self, reference: str, *, timeout: float) -> Payment:
        """The payment once it is paid or over, or as it stands after `timeout` seconds. Raises NotFound."""
        clock = self._runtime.clock
        until = clock.monotonic() + timeout
        while True:
            payment = await self.get(reference)
            if payment.status in OVER or clock.monotonic() >= until:
                return payment
            await clock.sleep(min(0.1, max(0.0, until - clock.monotonic())))

    async def refresh(self, reference: str) -> Payment:
        """Ask the vendors how the payment stands, now; one that cannot be asked changes nothing. Raises NotFound."""
        return await self._following.refresh(await self.get(reference))

    async def client_secret(self, reference: str) -> Secret:
        """What a form of your own needs to have the current offer paid; ask for it whenever the form is shown.

        It is read from the vendor every time, because it is kept nowhere: in no record and no log. Who has it can see
        this one payment and pay it, so hand it to its payer alone.

        Raises:
            NotFound: There is no such payment.
            InvalidInput: It has no offer that could be paid now, or one that is paid elsewhere.
            Rejected: The vendor says that there is nothing to be paid any more.
            CallFailed: The vendor could not be asked.
        """
        payment = await self.get(reference)
        attempt = payment.offered
        if attempt is None or attempt.status is not PaymentStatus.PENDING or self._desk.now() >= attempt.expires_at:
            raise InvalidInput(f"payment {reference} is {payment.status}: it has no offer that could be paid now")
        provider = self.providers.get(attempt.provider)
        if not (attempt.offer and attempt.offer.embedded and isinstance(provider, SupportsClientSecret)):
            raise InvalidInput(
                f"{attempt.provider}: the offer for payment {reference} has no client secret, because it is not paid "
                "in a form of your own; show its checkout_url, or its code"
            )
        with deadline_scope(self._deadline, self._runtime.clock):
            return await provider.client_secret(self._runtime.http(provider), attempt)

    async def capture(self, reference: str, money: Money | None = None) -> Payment:
        """Move what the payer set aside: all of it, or as much as is said; asked again, it moves nothing more.

        Raises:
            NotFound: There is no such payment.
            InvalidInput: Nothing is set aside for it, or less than that.
            Rejected: The vendor said no.
            OutcomeUnknown: The money may have moved; it is being found out, and asked for again under the same key.
        """
        payment = await self.get(reference)
        found = [a for a in payment.attempts if a.status is PaymentStatus.AUTHORIZED and not a.withdrawn]
        if payment.status is PaymentStatus.PAID:
            return payment
        provider = self.providers.get(found[-1].provider) if found else None
        if not found or not isinstance(provider, SupportsCapture):
            raise InvalidInput(f"payment {reference} is {payment.status}: nothing is set aside that could be captured")
        wanted = found[-1].price if money is None else money
        if wanted.currency != found[-1].price.currency or not 0 < wanted.minor_units <= found[-1].price.minor_units:
            raise InvalidInput(
                f"{found[-1].price} is set aside for payment {reference}, so {wanted} cannot be captured"
            )
        return await self._desk.capture(payment, found[-1].number, wanted)

    async def cancel(self, reference: str) -> Payment:
        """Want nothing more of a payment: its offer is not shown any more, and revoked where the vendor can.

        What cannot be revoked can be paid until it ends, so the payment is canceled only then; what comes in until then
        makes it paid, and flagged as late. A payment that is paid stays so.

        Raises:
            NotFound: There is no such payment.
            CallFailed: The vendor was asked to revoke the offer, and did not say that it is; ask again.
        """
        return await self._offers.withdraw(await self.get(reference), final=True)

    async def renew(self, reference: str) -> Payment:
        """Make another offer: after one that ended, or instead of one that is revoked first, with proof.

        After `cancel`, too: whoever renews wants it again. What a person refused stays so, before an offer and after
        money came in: a mistake is put right under another reference.

        Raises:
            NotFound: There is no such payment.
            Rejected: The current offer cannot be revoked and can still be paid, and `retry_after` says how long; or the
                reason is `refused`, by a person's `Verdict.REFUSE`.
            CallFailed: The current offer was not revoked, or the one provider that was asked for another failed.
            OutcomeUnknown: As for `create`.
            Exhausted: Two or more providers failed.
        """
        return await self._offers.renew(await self.get(reference))

    async def refund(
        self, reference: str, money: Money | None = None, *, key: str, reason: str = "", number: int | None = None
    ) -> Refund:
        """Send money back by the vendor it came from: so much of it, or all that is left.

        `key` is your name of this refund: asked again with it, the same refund comes back, and never a second one.
        `number` names the attempt, where money came in by more than one. What the vendor cannot send by itself is
        `manual_required`, and `RefundByHand` tells of it; `settle_refund` says that a person did it.

        Raises:
            NotFound: There is no such payment.
            InvalidInput: More than came in and has not gone back.
            ReferenceConflict: The key names a refund of other money.
            Rejected: The vendor said no.
            OutcomeUnknown: The money may have gone back; it is being found out under the same key.
        """
        return await self._refunds.refund(await self.get(reference), money, key=key, reason=reason, number=number)

    async def refunds(self, reference: str) -> Sequence[Refund]:
        """All refunds of a payment, in the order they were asked for. Raises NotFound."""
        return (await self._refunds.load((await self.get(reference)).reference)).items

    async def settle_refund(self, reference: str, *, key: str, actor: str, evidence: str, sent: bool = True) -> Refund:
        """Say what became of a refund that only a person can know of: it was sent by other means, or it never was.

        What the vendor holds for the payer to claim is looked at all the same, until it is claimed or comes back. Where
        that is not what was said, it is flagged as `refund_unknown`, and can be settled once more.

        Raises:
            NotFound: There is no such refund.
            InvalidInput: Actor or evidence is empty, or the vendor itself tells what becomes of this one.
        """
        if not (actor.strip() and evidence.strip()):
            raise InvalidInput("who decided, and on what evidence, has to be said")
        return await self._refunds.settle(Reference(reference), key, sent=sent, note=f"{actor}: {evidence}")

    async def reconcile(self, since: datetime, until: datetime) -> MoneyReport:
        """Hold our books of that time against what each vendor lists that it moved.

        What our books had missed is taken into them; whatever else differs is in the findings. It changes nothing at
        any vendor.

        Raises:
            NaiveDatetime: A time without its zone.
            InvalidInput: The time ends before it begins.
        """
        for argument, at in (("since", since), ("until", until)):
            if at.tzinfo is None:
                raise NaiveDatetime(argument)
        if since >= until:
            raise InvalidInput(f"from {since} to {until} there is no time to compare")
        return await self._reconcile.report(since.astimezone(UTC), until.astimezone(UTC))

    async def spend(self, day: date) -> Sequence[Spend]:
        """What each vendor kept of the payments of that day in UTC: as it said, else by its price list."""
        begin = datetime.combine(day, time(), UTC)
        paid = {one.reference: one async for one in self._book.paid_between(begin, begin + timedelta(days=1))}
        return spends(paid.values(), self._desk.capabilities, day)

    async def request(
        self,
        provider: str,
        method: str,
        path: str,
        *,
        effect: Effect,
        operation: str = "request",
        json: JsonOut = None,
        form: Params | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        answer: bool = True,
    ) -> JsonIn:
        """Call a vendor for what holdfast has no verb for: its JSON, numbers with a point as Decimal.

        It goes through the provider's guard, with its credential, and is told like every other call. `effect` decides
        whether it is tried again: a KEYED one carries the vendor's own key in `headers`. `answer=False` is for what is
        answered with nothing. What it changes, no payment of ours knows of before the vendor is next looked at.

        Raises:
            InvalidInput: There is no such provider, or the path is not one of its own, beginning with /.
            CallFailed: By its cause.
        """
        vendor = self.providers.get(provider)
        if vendor is None:
            raise InvalidInput(f"there is no payment provider {provider}; there are {', '.join(self.providers)}")
        if not path.startswith("/"):
            raise InvalidInput(f"{provider}: give the path alone, beginning with /; it is asked of {vendor.base_url}")
        document = await self._runtime.http(vendor).request(
            method,
            path,
            _Document if answer else None,
            effect=effect,
            operation=operation,
            json=json,
            form=form,
            params=params,
            headers=headers,
            timeout=timeout,
        )
        return cast(JsonIn, document.root) if document else None

    async def switch(
        self,
        provider: str,
        *,
        on: bool | None = None,
        weight: int | None = None,
        reset: bool = False,
        actor: str,
        reason: str,
        ttl: timedelta | None = None,
    ) -> Switch:
        """Change a provider for every process on the store, until it is switched again or `ttl` is over.

        Who is off is asked for no new offers; what it already holds is looked after as before. `weight` is its share
        where the route is `Weighted`, in place of the program's; with 0 it comes after all who have one. `reset` takes
        both back.

        Raises:
            InvalidInput: There is no such provider, nothing is switched, or actor or reason is empty.
        """
        return await self._router.switch(
            provider, on=on, weight=weight, reset=reset, actor=actor, reason=reason, ttl=ttl
        )

    async def switches(self) -> Switched:
        """Who is off, whose weight was set, and the last hundred changes: by whom, why, when."""
        return await self._router.switched()

    async def history(self, reference: str) -> Sequence[Change]:
        """What was learned of a payment, in order. Raises NotFound."""
        return (await self.get(reference)).history

    async def resolve(
        self,
        reference: str,
        verdict: Verdict,
        *,
        actor: str,
        reason: str,
        evidence: str,
        expected: int,
        number: int = 0,
    ) -> Payment:
        """Close what only a person can: an attempt without an answer, or money that is held.

        `expected` is the `version` of the payment as that person saw it; `number` names the attempt. It is written into
        the history. Money that came in is never undone by it. Said twice, it counts once.

        Raises:
            NotFound: There is no such payment.
            InvalidInput: Actor, reason or evidence is empty, or the verdict does not fit how the payment stands.
            VersionConflict: The payment has changed since it was seen.
        """
        if not (actor.strip() and reason.strip() and evidence.strip()):
            raise InvalidInput("who decided, why, and on what evidence has to be said")
        payment = await self.get(reference)
        fact = facts.Resolved(
            at=self._desk.now(), verdict=verdict, number=number, actor=actor, reason=reason, evidence=evidence
        )
        said = facts.note(fact)
        if any(line.what == "resolved" and line.number == number and line.note == said for line in payment.history):
            return payment
        if payment.version != expected:
            raise VersionConflict(KIND, reference)
        if not can_resolve(payment, verdict, number):
            raise InvalidInput(f"payment {reference} is {payment.status}: {verdict} does not fit that")
        return await self._book.commit(payment, fact)

    # What the worker asks for.

    async def arrived(self, delivery: Arrived) -> bool:
        """Look at the object a delivery is about; False: it is none of ours.

        Raises:
            NotFound: No payment of ours names it, yet: the delivery may have overtaken our own commit.
            CallFailed: The vendor could not be asked; the delivery is to be tried again.
        """
        return await self._following.arrived(delivery)

    async def sweep(self, *, limit: int = 100) -> int:
        """Look at every payment that wants to be looked at; how many there were."""
        looked_at = await self._following.sweep(limit)
        await self._meter.look()
        return looked_at

    # Small things.

    @property
    def _runtime(self) -> Runtime:
        if self._bound is None:
            raise ConfigurationError("these payments have no store: pass store=, or give them to a hub")
        return self._bound

    def _checked(self, due: Money) -> Money:
        if not isinstance(due, Money):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidMoney(f'what is due is a Money, not {type(due).__name__}: Money("120.00", "CHF")')
        if due.minor_units <= 0:
            raise InvalidMoney(f"{due} cannot be due; an amount is above zero")
        return due


def _check_kind(name: str, value: object, kind: type, example: str) -> None:
    """Raises InvalidInput: it is of another type; what is in it is not told."""
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"{name} is of the wrong type, {type(value).__name__}; write {example}")
