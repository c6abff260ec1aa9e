"""One random life of a shop: what its callers, payers, vendors and persons do, decided by a seed, and then judged."""

import json
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from math import inf
from random import Random
from typing import Any

from holdfast.errors import NotSent, Refused, Throttled
from holdfast.payments import record as payment_record
from holdfast.payments import refunds as refund_record
from holdfast.payments.accounts import Retired
from holdfast.payments.facts import Decision, Verdict
from holdfast.payments.models import Attempt, AttemptState, Capture, MoveState, Payment, PaymentStatus, RefundStatus
from holdfast.payments.provider import Lookup, Refunding
from holdfast.payments.refunds import Refund, Refunds
from holdfast.queue.inbox import Arrived
from holdfast.resilience.guard import Guard
from holdfast.stores.memory import MemoryStore
from holdfast.stores.store import Job, JobFilter
from holdfast.values import Money
from tests.payments.model.processes import Killed, ModelClock, Process, Work
from tests.payments.model.vendors import Line, Note, Thing, Traits, Vendor, Weather, draw, provider

ORDERS = ("order-1", "order-2")
DUE = Money("120.00", "CHF")
STEPS = range(24, 40)
END = timedelta(days=4)
ROUNDS = 300
LEAPS = (60.0, 300.0, 700.0, 1500.0, 4000.0, 20_000.0, 90_000.0)


@dataclass(frozen=True)
class Plan:
    """What the shop asks for under one reference, whoever asks."""

    expires_in: timedelta
    capture: Capture


@dataclass(kw_only=True)
class History:
    """One life of a shop."""

    seed: int
    traits: list[Traits] | None = None
    log: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    shown: dict[str, list[Thing]] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.chance = chance = Random(self.seed)
        self.clock = ModelClock()
        self.store = MemoryStore(clock=self.clock)
        self.weather = Weather(chance, self.clock)
        traits = self.traits or [draw(chance, number) for number in range(chance.choice((2, 2, 3, 4)))]
        self.vendors = {one.name: Vendor(one, self.clock, chance) for one in traits}
        for vendor in self.vendors.values():
            vendor.made.append(self._made)
        self.echo = chance.choice((0.0, 0.0, 0.2))
        self.screens = chance.random() < 0.25
        able = any(one.manual_capture for one in traits)
        self.plans = {
            order: Plan(
                timedelta(minutes=chance.choice((5, 15))),
                Capture.MANUAL if able and chance.random() < 0.4 else Capture.AUTO,
            )
            for order in ORDERS
        }
        self.retired: set[str] = set()
        self.renewed = Counter[str]()
        self.over: set[str] = set()
        """Orders whose caller was told that they are canceled, and has not asked for another offer since."""
        self.happened: set[str] = set()
        """What kinds of thing happened in it, for the test that the histories hold every trouble."""

    # The shop.

    def _process(self) -> Process:
        return Process(
            self.store,
            self.clock,
            self.chance,
            [self._account(vendor) for vendor in self.vendors.values()],
            self._dial,
            screen=self._screen if self.screens else None,
            echo=self.echo,
        )

    def _account(self, vendor: Vendor) -> Any:
        account = provider(vendor, self.chance)
        return Retired(account) if vendor.name in self.retired else account

    def _dial(self, provider: Any, guard: Guard) -> Line:
        return Line(self.vendors[provider.name], self.weather, guard)

    async def _screen(self, payment: Payment) -> Decision:
        return self.chance.choice((Decision.ALLOW, Decision.ALLOW, Decision.HOLD, Decision.DENY))

    async def run(self) -> list[str]:
        """Live it; what is wrong with it in the end, in sentences."""
        async with self.store:
            self.processes = [self._process(), self._process()]
            try:
                for _ in range(self.chance.choice(STEPS)):
                    self._act()
                    self.steps += 1
                self._to_the_end()
                self._judge(await self._events())
            except Exception:  # whatever the code under test raises that it should not
                self.wrong.append(traceback.format_exc(limit=-6))
            for process in self.processes:
                self._crash(process)
        return self.wrong

    def _act(self) -> None:
        before = len(self.log)
        while len(self.log) == before:  # what there is no occasion for is no step
            [action] = self.chance.choices([one for one, _ in _ACTIONS], [weight for _, weight in _ACTIONS])
            action(self)
        self._watch()

    def _begin(
        self, what: str, call: Callable[[Process], Coroutine[Any, Any, Any]], then: Callable[[Any], object]
    ) -> None:
        """Have some process do it: all of it, or only the beginning."""
        process = self.chance.choice(self.processes)
        work = Work(what, process, call(process), then)
        process.works.append(work)
        self._say(f"{self.processes.index(process)}: {what}")
        if len(process.works) > 3 or self.chance.random() < 0.6:
            self._finish(work)
        else:
            for _ in range(self.chance.randrange(8)):
                self._step(work)

    def _step(self, work: Work) -> None:
        if work.done:
            return
        if work.at.until is not None and work.at.until > self.clock.seconds:
            self._pass(work.at.until - self.clock.seconds)
        if not work.done:
            work.step()
            if work.failure is not None:
                self._say(f"   {work.what}: {type(work.failure).__name__}: {work.failure}")
                self._told(work)
            elif work.done:
                self._say(f"   {work.what}: done")

    def _finish(self, work: Work) -> None:
        for _ in range(2000):
            if work.done:
                return
            self._step(work)
        self.wrong.append(f"{work.what} never ends")
        work.die(Killed())

    def _works(self) -> list[Work]:
        return [work for process in self.processes for work in process.works]

    def _pass(self, seconds: float) -> None:
        """Time passes: what is on the wire goes on in its time, and processes that stand still do not notice."""
        target = self.clock.seconds + seconds
        while True:
            flying = [work for work in self._works() if not work.at.pause]
            work = min(flying, key=lambda one: one.at.until or 0.0, default=None)
            first = max(self.clock.seconds, work.at.until or 0.0) if work else inf
            landing = min((at for at, _ in self.weather.later), default=inf)
            if min(first, landing) > target:
                break
            if landing < first or work is None:
                self.clock.seconds = max(self.clock.seconds, landing)
            else:
                self.clock.seconds = first
                work.step()
            self.weather.land()
        self.clock.seconds = target
        self.weather.land()

    def _crash(self, process: Process) -> None:
        for work in list(process.works):
            self._say(f"   {work.what}: killed")
            work.die(Killed())

    # What may happen.

    def _create(self) -> None:
        order = self.chance.choice(ORDERS)
        plan = self.plans[order]
        self._begin(
            f"create {order}",
            lambda process: process.payments.create(order, DUE, expires_in=plan.expires_in, capture=plan.capture),
            self._saw,
        )

    def _renew(self) -> None:
        if known := self._known():
            self.over.discard(known)
            self.renewed[known] += 1
            self._begin(f"renew {known}", lambda process: process.payments.renew(known), self._saw)

    def _cancel(self) -> None:
        if known := self._known():
            renewed = self.renewed[known]
            self._begin(
                f"cancel {known}",
                lambda process: process.payments.cancel(known),
                lambda payment: self._canceled(payment, renewed),
            )

    def _canceled(self, payment: Payment, renewed: int) -> None:
        renewing = any(work.what == f"renew {payment.reference}" for work in self._works())
        if payment.status is PaymentStatus.CANCELED and not renewing and self.renewed[payment.reference] == renewed:
            self.over.add(payment.reference)
        self._saw(payment)

    def _get(self) -> None:
        if known := self._known():
            self._begin(f"get {known}", lambda process: process.payments.get(known), self._saw)

    def _refresh(self) -> None:
        if known := self._known():
            self._begin(f"refresh {known}", lambda process: process.payments.refresh(known), self._saw)

    def _where(self, fits: Callable[[Attempt], bool]) -> str:
        """An order with such an attempt; now and then any."""
        orders = self._orders()
        if self.chance.random() > 0.1:
            orders = [
                one for one in orders for payment in [self.payment(one)] if payment and any(map(fits, payment.attempts))
            ]
        return self.chance.choice(orders) if orders else ""

    def _capture(self) -> None:
        if known := self._where(lambda attempt: attempt.status is PaymentStatus.AUTHORIZED):
            share = self.chance.choice((None, None, Money("50.00", "CHF")))
            self._begin(f"capture {known} {share}", lambda process: process.payments.capture(known, share), self._saw)

    def _refund(self) -> None:
        if known := self._where(lambda attempt: attempt.received is not None):
            key = self.chance.choice(("refund-1", "refund-2", "refund-3"))
            money = self.chance.choice((None, Money("50.00", "CHF"), Money("80.00", "CHF")))
            number = self.chance.choice((None, None, None, 1, 2))
            self._begin(
                f"refund {known} {key} {money} {number}",
                lambda process: process.payments.refund(known, money, key=key, number=number),
                lambda _: self.happened.add("refund"),
            )

    def _sweep(self) -> None:
        self._begin("sweep", lambda process: process.payments.sweep(), lambda _: None)

    def _switch(self) -> None:
        name, on = self.chance.choice(list(self.vendors)), self.chance.random() < 0.7
        self._begin(
            f"switch {name} {on}",
            lambda process: process.payments.switch(name, on=on, actor="a person", reason="a reason"),
            lambda _: None,
        )

    def _reconcile(self) -> None:
        until = self.clock.now()
        self._begin(
            "reconcile",
            lambda process: process.payments.reconcile(until - timedelta(days=3), until),
            lambda _: self.happened.add("reconciled"),
        )

    def _retire(self) -> None:
        """The shop wants no more of a vendor, or wants it again: its processes start anew."""
        name = self.chance.choice(list(self.vendors))
        self.retired ^= {name}
        if len(self.retired) == len(self.vendors):
            self.retired.discard(name)
            return
        self._say(f"retired: {', '.join(sorted(self.retired))}")
        for place in range(len(self.processes)):
            self._crash(self.processes[place])
            self.processes[place] = self._process()

    def _set_clock(self) -> None:
        """A machine's clock is set: a little ahead, or back."""
        place = self.chance.randrange(len(self.processes))
        skew = self.chance.uniform(-5.0, 5.0)
        self.processes[place].clock.skew = skew
        self._say(f"{place}: its clock is {skew:.1f} s off")

    def _step_one(self) -> None:
        if works := self._works():
            work = self.chance.choice(works)
            self._say(f"on with {work.what}")
            for _ in range(self.chance.randrange(1, 6)):
                self._step(work)

    def _die(self) -> None:
        place = self.chance.randrange(len(self.processes))
        self._say(f"{place}: dies")
        self._crash(self.processes[place])
        self.processes[place] = self._process()

    def _tick(self) -> None:
        self._pass(self.chance.uniform(0.1, 20.0))
        self._say(f"until {self.clock.now():%H:%M:%S}")

    def _to_next(self) -> None:
        moment = self._next_due()
        if moment is not None:
            self._pass(max(0.0, moment - self.clock.seconds) + 0.1)
            self._say(f"until {self.clock.now():%H:%M:%S}")

    def _leap(self) -> None:
        seconds = self.chance.choice(LEAPS)
        self._pass(seconds)
        self._say(f"leap of {seconds} s, until {self.clock.now():%d. %H:%M:%S}")

    def _pay(self) -> None:
        """A payer pays what they were shown, whenever it was."""
        offers = [thing for seen in self.shown.values() for thing in seen]
        if offers:
            self._pay_for(self.chance.choice(offers[-2:] if self.chance.random() < 0.7 else offers))

    def _leak(self) -> None:
        """Somebody pays what nobody was shown, where anybody can tell us of it."""
        things = [
            thing
            for vendor in self.vendors.values()
            for thing in vendor.things.values()
            if vendor.traits.webhooks or self._is_asked_about(thing)
        ]
        if things:
            self._pay_for(self.chance.choice(things))

    def _pay_for(self, thing: Thing) -> None:
        share = Decimal(1)
        if thing.vendor.traits.partial:
            share = self.chance.choice((Decimal(1), Decimal(1), Decimal("0.5"), Decimal("1.5")))
        if thing.vendor.pay(thing, share):
            self._say(f"{thing.id} of {thing.reference}: {share} paid, {thing.status}")
            self.happened.add(str(thing.status))

    def _go_on(self) -> None:
        for vendor in self.vendors.values():
            for thing in vendor.things.values():
                if self.chance.random() < 0.5:
                    self._say(f"goes on: {thing.id}")
                    vendor.go_on(thing, well=self.chance.random() < 0.8)

    def _deliver(self) -> None:
        """One webhook: late, out of order, twice, or never."""
        notes = [note for vendor in self.vendors.values() for note in vendor.owed]
        if not notes:
            return
        note = self.chance.choice(notes)
        if self.chance.random() < 0.2 and self._may_be_lost(note):
            note.vendor.owed.remove(note)
            self._say(f"lost: webhook about {note.thing.id}")
            return
        self._arrive(note)

    def _arrive(self, note: Note) -> None:
        def taken(ours: bool) -> None:
            # What was taken for strange comes again: reconciliation lists it, where the vendor does not.
            if ours and note in note.vendor.owed:
                note.vendor.owed.remove(note)

        self._post(note.thing, then=taken)

    def _lie(self) -> None:
        """A webhook that says paid of what is not."""
        things = [thing for one in self.vendors.values() if one.traits.webhooks for thing in one.things.values()]
        if things:
            self._post(self.chance.choice(things), then=lambda _: self.happened.add("lie"))

    def _mix_up(self) -> None:
        """A rightly signed webhook that names several objects at once."""
        vendors = [one for one in self.vendors.values() if one.traits.webhooks and one.traits.echoes and one.things]
        if vendors:
            vendor = self.chance.choice(vendors)
            first, second = (self.chance.choice(list(vendor.things.values())) for _ in range(2))
            attempt = self.chance.choice(("", second.attempt, "f" * 32))
            order = self.chance.choice(("", *ORDERS))
            self._post(first, attempt=attempt, reference=order, then=lambda _: self.happened.add("mix-up"))

    def _post(
        self, thing: Thing, *, then: Callable[[bool], object], attempt: str | None = None, reference: str | None = None
    ) -> None:
        if attempt is None:
            attempt = thing.attempt if thing.vendor.traits.names_attempt else ""
        arrived = Arrived(
            id="1",
            provider=thing.vendor.name,
            type="paid",
            vendor_id=thing.id,
            attempt_id=attempt,
            reference=thing.reference if reference is None else reference,
            recognised=True,
            body=json.dumps({"status": "paid", "id": thing.id}).encode(),
            facts={},
            attempts=0,
        )
        self._begin(f"webhook {thing.id} {attempt[:4]}", lambda process: process.payments.arrived(arrived), then)

    def _resolve(self) -> None:
        """A person who looked at the vendor closes what only a person can."""
        for order in self._orders():
            payment = self.payment(order)
            assert payment is not None
            verdict, number, moves = Verdict.RELEASE, 0, False
            if payment.status is PaymentStatus.HELD:
                verdict = self.chance.choice((Verdict.RELEASE, Verdict.REFUSE))
            else:
                unknown = [one for one in payment.attempts if one.state is AttemptState.UNKNOWN or _unmoved(one)]
                if not unknown or self.weather.later:
                    continue
                number = unknown[-1].number
                things = [
                    one for one in self.vendors[unknown[-1].provider].things.values() if one.attempt == unknown[-1].id
                ]
                moves = _unmoved(unknown[-1])
                if any(thing.captures or (not moves and thing.live(self.clock.now())) for thing in things):
                    continue
                if not moves and any(thing.received for thing in things):
                    continue
                verdict = Verdict.NEVER_HAPPENED if moves or not things else Verdict.ABANDON
            busy = ("create", "capture", "sweep", "web", "refresh") if moves else ("create",)
            if any(work.what.startswith(busy) for work in self._works()):
                continue  # what is on its way cannot be seen at the vendor
            version = payment.version
            self._begin(
                f"resolve {order} {verdict} {number}",
                partial(self._have_resolved, order, verdict, number, version),
                lambda _: self.happened.add("resolved"),
            )
            return

    async def _have_resolved(
        self, order: str, verdict: Verdict, number: int, version: int, process: Process
    ) -> Payment:
        page = f"the vendor's page, {self.clock.seconds}"
        return await process.payments.resolve(
            order, verdict, actor="a person", reason="a reason", evidence=page, expected=version, number=number
        )

    async def _have_settled(self, order: str, key: str, sent: bool, process: Process) -> Refund:
        return await process.payments.settle_refund(order, key=key, actor="a person", evidence="the bank", sent=sent)

    def _settle(self) -> None:
        """A person says what became of a refund."""
        for order in self._orders():
            payment, refunds = self.payment(order), self.refunds(order)
            assert payment is not None
            for item in refunds.items:
                if item.status not in (RefundStatus.UNKNOWN, RefundStatus.MANUAL_REQUIRED) or self.weather.later:
                    continue
                vendor = self.vendors[item.provider]
                sent = [
                    one
                    for thing in vendor.things.values()
                    for one in thing.refunds
                    if item.move and one.key == item.move.key
                ]
                by_hand = vendor.traits.refunding is Refunding.NONE
                going = [work for work in self._works() if work.what.startswith(("refund", "sweep", "refresh", "web"))]
                if going or any(one.status not in (RefundStatus.SUCCEEDED, RefundStatus.FAILED) for one in sent):
                    continue
                happened = by_hand or any(one.status is RefundStatus.SUCCEEDED for one in sent)
                self._begin(
                    f"settle {order} {item.key} {happened}",
                    partial(self._have_settled, order, item.key, happened),
                    lambda _: self.happened.add("settled"),
                )
                return

    # What is seen of it.

    def payment(self, order: str) -> Payment | None:
        """As stored."""
        for record in self.store.records._records("payment", self._keys("payment", order)):  # pyright: ignore[reportPrivateUsage]
            return payment_record.decode(record)
        return None

    def refunds(self, order: str) -> Refunds:
        """As stored."""
        for record in self.store.records._records("refunds", self._keys("refunds", order)):  # pyright: ignore[reportPrivateUsage]
            return refund_record.decode(record)
        return Refunds(reference=order)

    def _keys(self, kind: str, order: str) -> list[str]:
        return [order] if order in self.store.records._documents[kind] else []  # pyright: ignore[reportPrivateUsage]

    def _payments(self) -> list[Payment]:
        return [payment for order in self._orders() for payment in [self.payment(order)] if payment]

    def _orders(self) -> list[str]:
        return [order for order in ORDERS if self._keys("payment", order)]

    def _known(self) -> str:
        orders = self._orders()
        return self.chance.choice(orders) if orders else ""

    def _next_due(self) -> float | None:
        moments = [
            document.due_at
            for kind in ("payment", "refunds")
            for document in self.store.records._documents[kind].values()  # pyright: ignore[reportPrivateUsage]
            if document.due_at
        ]
        start = self.clock.now() - timedelta(seconds=self.clock.seconds)
        return min(((moment - start).total_seconds() for moment in moments), default=None)

    def _may_be_lost(self, note: Note) -> bool:
        """Somebody else can tell us of it."""
        return self._is_asked_about(note.thing)

    def _is_asked_about(self, thing: Thing) -> bool:
        """By its id, by ours, or in a list; of what a person gave up only a webhook or a list can tell."""
        payment, traits = self.payment(thing.reference), thing.vendor.traits
        sought = (
            (AttemptState.SENDING, AttemptState.UNKNOWN, AttemptState.CLOSED)
            if traits.lookup is not Lookup.NONE
            else ()
        )
        ours = [one for one in payment.attempts if one.id == thing.attempt] if payment else []
        return traits.lists or any(one.vendor_id == thing.id or one.state in sought for one in ours)

    def _say(self, text: str) -> None:
        self.log.append(text)

    async def _events(self) -> list[Job]:
        return list(await self.store.jobs.list(JobFilter(queue="events"), limit=10_000))

    # What must never be.

    def _saw(self, payment: Payment) -> None:
        """A caller got this, and shows its offer to the payer."""
        if payment.offer is not None:
            attempt = next(one for one in reversed(payment.attempts) if one.offer == payment.offer)
            thing = self.vendors[attempt.provider].things.get(attempt.vendor_id)
            if thing is None or thing.attempt != attempt.id:
                self.wrong.append(f"{payment.reference}: shown what is not its own: {attempt.vendor_id}")
            else:
                self._show(thing)
        self._believes(payment)

    def _told(self, work: Work) -> None:
        """A caller who is told that nothing happened can believe it."""
        verb, _, rest = work.what.partition(" ")
        nothing = isinstance(work.failure, NotSent | Throttled | Refused)
        if verb not in ("create", "renew") or not nothing or len(self._works()) > 0:
            return
        payment = self.payment(rest)
        if payment and payment.attempts and payment.attempts[-1].state is AttemptState.UNKNOWN:
            self.wrong.append(f"{rest}: told {type(work.failure).__name__}, and {payment.route}")

    def _made(self, thing: Thing) -> None:
        if thing.vendor.name in self.retired and not self.weather.landing:
            self.wrong.append(f"{thing.reference}: {thing.id} is made by who is retired")
        if thing.vendor.traits.payer_visible:
            self._show(thing)

    def _show(self, thing: Thing) -> None:
        seen, now = self.shown.setdefault(thing.reference, []), self.clock.now()
        payment = self.payment(thing.reference)
        if thing in seen:
            return
        if thing.live(now) and not _given_up(thing, payment):
            live = [other for other in seen if other.live(now) and not _given_up(other, payment)]
            if live:
                self.wrong.append(f"{thing.reference}: shown {thing.id} beside {', '.join(one.id for one in live)}")
        self._say(f"   shown: {thing.id} for {thing.reference}")
        seen.append(thing)

    def _believes(self, payment: Payment) -> None:
        """What we say is paid, was."""
        for attempt in payment.attempts:
            thing = self.vendors[attempt.provider].things.get(attempt.vendor_id)
            if attempt.paid and not (thing and thing.paid and thing.attempt == attempt.id):
                self.wrong.append(f"{payment.reference}: taken for paid by {attempt.provider} {attempt.vendor_id}")
            if attempt.state is AttemptState.CLOSED and thing is not None and attempt.shown_at is not None:
                aside = thing.status is PaymentStatus.AUTHORIZED and thing.vendor._status(thing) is thing.status  # pyright: ignore[reportPrivateUsage]
                if aside and not payment.canceling and not attempt.withdrawn and not _given_up(thing, payment):
                    self.wrong.append(f"{payment.reference}: {thing.id} is set aside, and was given up")

    def _watch(self) -> None:
        """The vendors' own books, and ours, after each step."""
        for payment in self._payments():
            if payment.offer and any(attempt.paid for attempt in payment.attempts):
                self.wrong.append(f"{payment.reference}: an offer is shown though money came in: {payment.route}")
            if payment.offer and payment.reference in self.over:
                self.wrong.append(f"{payment.reference}: an offer is shown though it was canceled: {payment.route}")
        for order in ORDERS:
            things = [
                one for vendor in self.vendors.values() for one in vendor.things.values() if one.reference == order
            ]
            captures = [(thing.id, key) for thing in things for key in thing.captures]
            failed = sum(thing.status is PaymentStatus.FAILED for thing in things if thing.captures)
            if len(captures) > 1 + failed:  # what failed in the end may be asked for once more
                self.wrong.append(f"{order}: captured {len(captures)} times: {captures}")
            for thing in things:
                if thing.given_back > thing.received:
                    self.wrong.append(f"{thing.id}: {thing.given_back} given back of {thing.received}")
                if thing.captures and thing.received > thing.price.minor_units:
                    self.wrong.append(f"{thing.id}: {thing.received} captured of {thing.price.minor_units}")

    # The end.

    def _to_the_end(self) -> None:
        """Everything under way ends or dies; then it is calm, the post comes, and time runs on."""
        for work in self._works():
            if self.chance.random() < 0.5:
                self._finish(work)
        for process in self.processes:
            self._crash(process)
        for process in self.processes:
            process.clock.skew = 0.0
        survivor = self._process()
        self.processes.insert(0, survivor)
        self._pass(60.0)
        self.weather.calm = True
        end = self.clock.seconds + END.total_seconds()
        self._run_on(end)
        begin, until = self.clock.now() - timedelta(seconds=self.clock.seconds), self.clock.now()
        versions = [payment.version for payment in self._payments()]
        work = self._now("reconcile", lambda process: process.payments.reconcile(begin, until))
        if work.failure is not None:
            self.wrong.append(f"reconcile: {work.failure}")
        if [payment.version for payment in self._payments()] != versions:
            self._run_on(end)
        self._watch()
        for process in self.processes:
            self.wrong += process.runtime.unexpected

    def _run_on(self, end: float) -> None:
        for number in range(ROUNDS):
            for vendor in self.vendors.values():
                for thing in vendor.things.values():
                    vendor.go_on(thing, well=number % 2 == 0)
                for note in list(vendor.owed):
                    work = self._now(f"webhook {note.thing.id}", self._delivery(note))
                    if work.failure is None:
                        vendor.owed.remove(note)
            self._now("sweep", lambda process: process.payments.sweep())
            for order in self._orders():
                payment = self.payment(order)
                assert payment is not None
                self._believes(payment)
            moment = self._next_due()
            if moment is None or moment > end or self.wrong:
                break
            waits = any(self._aside(one) for payment in self._payments() for one in payment.attempts)
            self._pass(max(20_000.0 if waits else 0.0, moment - self.clock.seconds) + 0.1)
        else:
            self.wrong.append("it never comes to rest")

    def _delivery(self, note: Note) -> Callable[[Process], Coroutine[Any, Any, Any]]:
        thing = note.thing
        arrived = Arrived(
            id="1",
            provider=thing.vendor.name,
            type="paid",
            vendor_id=thing.id,
            attempt_id=thing.attempt if thing.vendor.traits.names_attempt else "",
            reference=thing.reference,
            recognised=True,
            body=b"{}",
            facts={},
            attempts=0,
        )
        return lambda process: process.payments.arrived(arrived)

    def _now(self, what: str, call: Callable[[Process], Coroutine[Any, Any, Any]]) -> Work:
        process = self.processes[0]
        work = Work(what, process, call(process))
        process.works.append(work)
        self._finish(work)
        return work

    def _judge(self, events: list[Job]) -> None:
        for order in ORDERS:
            things = [
                one for vendor in self.vendors.values() for one in vendor.things.values() if one.reference == order
            ]
            payment = self.payment(order)
            if payment is None:
                self.wrong += [f"{order}: {thing.id} is on no record" for thing in things]
                continue
            told = [json.loads(job.body) | {"kind": job.kind} for job in events]
            told = [event for event in told if event["reference"] == order]
            self.happened |= {event.get("anomaly", event["kind"]) for event in told}
            self._judge_money(payment, things, told)
            self._judge_rest(payment, told)
            self._judge_refunds(payment, told)

    def _judge_money(self, payment: Payment, things: list[Thing], told: list[dict[str, Any]]) -> None:
        order = payment.reference
        attempts = {attempt.id: attempt for attempt in payment.attempts}
        flags = [event for event in told if event["kind"] == "payment.flagged"]
        for thing in things:
            if thing.attempt not in attempts:
                self.wrong.append(f"{order}: {thing.id} is not on record")
                continue
            attempt = attempts[thing.attempt]
            if self._quarantined(attempt, flags):
                return
            known = attempt.received.minor_units if attempt.received else 0
            if thing.received != known:
                self.wrong.append(f"{order}: {thing.id} received {thing.received}, on record {known}")
        paid = [thing for thing in things if thing.paid and thing.received]
        events = [event for event in told if event["kind"] == "payment.paid"]
        held = PaymentStatus.HELD in (payment.status,) or any("refuse by" in line.note for line in payment.history)
        if len(events) > 1 or (not held and len(events) != bool(paid)) or (events and not paid):
            self.wrong.append(f"{order}: paid {len(paid)} times, told {len(events)} times")
        if not held and (payment.status is PaymentStatus.PAID) != bool(paid):
            self.wrong.append(f"{order}: {payment.status}, paid {len(paid)} times")
        doubles = {event["vendor_id"] for event in flags if event["anomaly"] == "duplicate"}
        if len(doubles) != max(0, len(paid) - 1):
            self.wrong.append(f"{order}: paid {len(paid)} times, {len(doubles)} doubles are flagged")
        short = [thing for thing in things if thing.status is PaymentStatus.PARTIALLY_PAID]
        if short and not any(event["anomaly"] == "underpaid" for event in flags):
            self.wrong.append(f"{order}: money that does not suffice is not flagged")
        if any(event["anomaly"] == "underpaid" for event in flags) and not any(thing.short for thing in things):
            self.wrong.append(f"{order}: money that suffices is flagged as too little")

    def _quarantined(self, attempt: Attempt, flags: list[dict[str, Any]]) -> bool:
        """The last look there was going to be told of something else: a person was told that."""
        last = attempt.expires_at + timedelta(hours=24)
        strange = any(flag["anomaly"] == "mismatch" and flag["provider"] == attempt.provider for flag in flags)
        closed = attempt.state is AttemptState.CLOSED and not attempt.paid
        return closed and strange and attempt.looked_at is not None and attempt.looked_at >= last

    def _judge_rest(self, payment: Payment, told: list[dict[str, Any]]) -> None:
        order, open_ = payment.reference, (AttemptState.SENDING, AttemptState.UNKNOWN, AttemptState.OFFERED)
        if any(attempt.state in open_ and not self._aside(attempt) for attempt in payment.attempts):
            self.wrong.append(f"{order}: left undecided: {payment.route}")
        over = (PaymentStatus.PAID, PaymentStatus.EXPIRED, PaymentStatus.FAILED, PaymentStatus.CANCELED)
        flags = {event["anomaly"] for event in told if event["kind"] == "payment.flagged"}
        aside = [attempt for attempt in payment.attempts if self._aside(attempt)]
        for attempt in aside:
            able = self.vendors[attempt.provider].traits
            unwanted = attempt.withdrawn or payment.status in (PaymentStatus.PAID, PaymentStatus.CANCELED)
            if unwanted and (able.revocable or able.authorizes):
                self.wrong.append(f"{order}: {attempt.vendor_id} is set aside, and nobody lets go of it")
        waits_for_somebody = payment.status in (PaymentStatus.HELD, PaymentStatus.CREATED) or aside
        if payment.status not in over and not waits_for_somebody:
            self.wrong.append(f"{order}: left {payment.status}: {payment.route}")
        for attempt in payment.attempts:
            thing = self.vendors[attempt.provider].things.get(attempt.vendor_id)
            if attempt.capture is None or thing is None:
                continue
            heard = "capture_unknown" in flags and attempt.capture.told
            if attempt.capture.state in ("sending", "unknown") and not heard:
                self.wrong.append(f"{order}: a capture is left {attempt.capture.state}, and nobody was told")
            came_to_nothing = thing.status is PaymentStatus.FAILED  # its money was refused after all
            if (attempt.capture.state == "failed") and thing.captures and not came_to_nothing:
                self.wrong.append(f"{order}: a capture that happened is called failed")
            if (attempt.capture.state == "done") and not thing.captures:
                self.wrong.append(f"{order}: a capture that did not happen is called done")

    def _aside(self, attempt: Attempt) -> bool:
        """Its money is set aside at the vendor's, and waits for somebody."""
        vendor = self.vendors[attempt.provider]
        thing = vendor.things.get(attempt.vendor_id)
        return thing is not None and vendor._status(thing) is PaymentStatus.AUTHORIZED  # pyright: ignore[reportPrivateUsage]

    def _judge_refunds(self, payment: Payment, told: list[dict[str, Any]]) -> None:
        order, refunds = payment.reference, self.refunds(payment.reference)
        for item in refunds.items:
            sent = [
                one
                for thing in self.vendors[item.provider].things.values()
                for one in thing.refunds
                if item.move and one.key == item.move.key
            ]
            done = [one for one in sent if one.status is RefundStatus.SUCCEEDED]
            if len(done) > 1:
                self.wrong.append(f"{order}: refund {item.key} was sent {len(done)} times")
            if done and item.status in (RefundStatus.FAILED, RefundStatus.CANCELED):
                self.wrong.append(f"{order}: refund {item.key} is {item.status}, and was sent")
            if item.status is RefundStatus.SUCCEEDED and item.move and not done and not item.note:
                self.wrong.append(f"{order}: refund {item.key} is {item.status}, and was not sent")
            flagged = any(
                (event["kind"] == "payment.refund_by_hand" and event["key"] == item.key)
                or event.get("anomaly") == "refund_unknown"
                for event in told
            )
            waits = item.status in (RefundStatus.CREATED, RefundStatus.PENDING, RefundStatus.UNKNOWN)
            if (waits or item.status is RefundStatus.MANUAL_REQUIRED) and not flagged:
                self.wrong.append(f"{order}: refund {item.key} is left {item.status}, and nobody was told")
            if item.status is RefundStatus.FAILED and not any(
                event["kind"] == "payment.refund_failed" and event["key"] == item.key for event in told
            ):
                self.wrong.append(f"{order}: refund {item.key} failed, and nobody was told")


def _unmoved(attempt: Attempt) -> bool:
    """Whether its money moved, nobody knows."""
    return attempt.capture is not None and attempt.capture.state is MoveState.UNKNOWN


def _given_up(thing: Thing, payment: Payment | None) -> bool:
    """Only we could move its money, and we never will."""
    attempts = payment.attempts if payment else ()
    attempt = next((one for one in attempts if one.vendor_id == thing.id), None)
    closed = attempt is not None and (attempt.withdrawn or attempt.state is AttemptState.CLOSED)
    return thing.vendor.traits.captures and closed and not thing.captures


_ACTIONS: tuple[tuple[Callable[[History], None], int], ...] = (
    (History._create, 20),  # pyright: ignore[reportPrivateUsage]
    (History._pay, 16),  # pyright: ignore[reportPrivateUsage]
    (History._deliver, 12),  # pyright: ignore[reportPrivateUsage]
    (History._step_one, 12),  # pyright: ignore[reportPrivateUsage]
    (History._sweep, 6),  # pyright: ignore[reportPrivateUsage]
    (History._tick, 6),  # pyright: ignore[reportPrivateUsage]
    (History._to_next, 5),  # pyright: ignore[reportPrivateUsage]
    (History._leap, 4),  # pyright: ignore[reportPrivateUsage]
    (History._refund, 6),  # pyright: ignore[reportPrivateUsage]
    (History._capture, 8),  # pyright: ignore[reportPrivateUsage]
    (History._renew, 5),  # pyright: ignore[reportPrivateUsage]
    (History._cancel, 2),  # pyright: ignore[reportPrivateUsage]
    (History._refresh, 3),  # pyright: ignore[reportPrivateUsage]
    (History._get, 2),  # pyright: ignore[reportPrivateUsage]
    (History._leak, 2),  # pyright: ignore[reportPrivateUsage]
    (History._go_on, 3),  # pyright: ignore[reportPrivateUsage]
    (History._lie, 2),  # pyright: ignore[reportPrivateUsage]
    (History._mix_up, 2),  # pyright: ignore[reportPrivateUsage]
    (History._resolve, 2),  # pyright: ignore[reportPrivateUsage]
    (History._settle, 2),  # pyright: ignore[reportPrivateUsage]
    (History._die, 2),  # pyright: ignore[reportPrivateUsage]
    (History._switch, 1),  # pyright: ignore[reportPrivateUsage]
    (History._reconcile, 1),  # pyright: ignore[reportPrivateUsage]
    (History._retire, 1),  # pyright: ignore[reportPrivateUsage]
    (History._set_clock, 1),  # pyright: ignore[reportPrivateUsage]
)
