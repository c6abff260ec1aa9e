"""A process that sells dies at every await in turn; then time runs to its end, and the vendors' own books are read."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast import Arrived, Payment, PaymentStatus
from holdfast.errors import HoldfastError, NotSent
from holdfast.payments import book, client, desk, facts, machine, offering, planning
from holdfast.payments.models import Anomaly, Attempt, AttemptState
from holdfast.stores.memory import MemoryRecords
from holdfast.stores.store import JobFilter, JobState
from holdfast.testing.faults import BadJson, Fault, Hang, Refused, Reset, Status, chance
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.webhooks import Mischief
from tests.payments.world import DUE, LNBITS, SBP, Process, World

pytestmark = pytest.mark.unmeasured

SEEDS = (4, 12, 18, 23, 24)
"""Chosen because together they hold every trouble there is; a test below says so."""
ORDERS = ("order-1", "order-2")
MISCHIEF = Mischief(duplicate=0.3, delay=0.3, lie=1, forge=0.3)
ROUNDS = 60
END = timedelta(days=3)

CREATION: tuple[Fault | None, ...] = (None, None, Reset(), Reset(), Status(503), Refused(), BadJson(), Hang())
LOOKING: tuple[Fault | None, ...] = (None, None, Status(500), Reset())


class Killed(BaseException):
    """What `kill -9` is to a coroutine: no clean-up of ours catches it."""


@dataclass(kw_only=True)
class History:
    """One life of a shop, decided by its seed and by where its first process dies."""

    seed: int
    dies_at: int | None = None
    by: type[BaseException] = Killed
    make_world: Callable[..., World] = World
    world: World = field(init=False)
    steps: int = 0
    shown: dict[str, list[str]] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = self.make_world(seed=self.seed)
        looking = {"find": LOOKING, "fetch": LOOKING}
        for vendor, trouble in ((SBP, {"fetch": LOOKING}), (LNBITS, looking)):
            for operation, faults in {"create": CREATION, **trouble}.items():
                luck = chance(self.seed, vendor, operation)
                script = [luck.choice(faults) for _ in range(3)]
                self.world.faults.on(vendor, f"payments.{operation}").script(*script)

    def chance(self, *what: object) -> float:
        return chance(self.seed, *what).random()

    async def run(self) -> list[str]:
        """Live it; what is wrong with it in the end, in sentences."""
        order = [SBP, LNBITS] if self.chance("order") < 0.5 else [LNBITS, SBP]
        async with Process(self.world, order=order, number=2) as survivor:
            with contextlib.suppress(Killed, asyncio.CancelledError, BaseExceptionGroup):
                async with Process(self.world, order=order, step=self._step, number=1) as first:
                    await self._live(first, survivor)
            await self._live(survivor)
            await self._to_the_end(survivor)
            await self._judge(survivor)
        return self.wrong

    async def _step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise self.by

    async def _live(self, shop: Process, rival: Process | None = None) -> None:
        """Ask for offers, pay some of them, take in the webhooks, and ask again as callers do."""
        for reference in ORDERS:
            if rival and self.chance("rival", reference) < 0.3:
                both = asyncio.gather(self._buy(shop, reference), self._buy(rival, reference), return_exceptions=True)
                ends = await self.world.run(_all(both))
                for end in ends:
                    if isinstance(end, BaseException):
                        raise end
            else:
                await self.world.run(self._buy(shop, reference))
            if self.chance("pays", reference) < 0.5:
                self._pay_shown(reference)
        await self._deliver(shop)
        await shop.settle()
        for reference in ORDERS:
            await self.world.run(self._buy(shop, reference))

    async def _buy(self, shop: Process, reference: str) -> None:
        try:
            payment = await shop.payments.create(reference, DUE)
        except HoldfastError:
            return
        if payment.offer is not None:
            self._show(payment)

    def _show(self, payment: Payment) -> None:
        attempt = next(one for one in reversed(payment.attempts) if one.offer == payment.offer)
        seen = self.shown.setdefault(payment.reference, [])
        if attempt.vendor_id not in seen:
            seen.append(attempt.vendor_id)
        live = [one for one in payment.attempts if one.shown_at and one.state is AttemptState.OFFERED]
        if len(live) > 1:
            self.wrong.append(f"{payment.reference}: {len(live)} offers count as shown: {payment.route}")
        if len(seen) > 1:
            self.wrong.append(f"{payment.reference}: the payer was shown {len(seen)} offers: {payment.route}")

    def _pay_shown(self, reference: str) -> None:
        for offer in self.shown.get(reference, []):
            self._pay(offer)

    def _pay(self, offer: str) -> None:
        for vendor in self.world.vendors.values():
            with contextlib.suppress(LookupError):
                vendor.pay(offer)

    async def _deliver(self, shop: Process) -> None:
        """The post; some is lost, but never the only word there will be of an object nobody can ask for."""
        owed = {vendor: list(simulator.outbox) for vendor, simulator in self.world.vendors.items()}
        known = await self._known(shop)
        for vendor, simulator in self.world.vendors.items():
            simulator.outbox.clear()
            for number, webhook in enumerate(owed[vendor]):
                if webhook.about not in known or self.chance("lost", vendor, webhook.about, number) > 0.3:
                    simulator.outbox.append(webhook)
        try:
            await shop.deliver(MISCHIEF, seed=self.seed)
        except BaseException:
            for vendor, simulator in self.world.vendors.items():
                simulator.outbox.extend(owed[vendor])  # nobody answered, so it comes again
            raise

    async def _known(self, shop: Process) -> set[str]:
        """What sweeps must find without any webhook: by the vendor's id, and at LNbits by our own."""
        watched = {record.key for record in await self.world.store.records.list("payment") if record.due_at}
        payments = [await shop.get(reference) for reference in watched]
        ours = {offer.id for key in watched for offer in self.world.ledger.entries(Kind.OFFER, key=key, vendor=LNBITS)}
        return ours | {attempt.vendor_id for payment in payments if payment for attempt in payment.attempts}

    async def _to_the_end(self, shop: Process) -> None:
        """Sweep whenever something is due; at some moment the orphans are paid too, if only to see it noticed."""
        clock, end = self.world.clock, self.world.clock.now() + END
        leak = int(self.chance("leak") * 10)
        for number in range(ROUNDS):
            if number == leak:
                for place, offer in enumerate(self.world.ledger):
                    if offer.kind is Kind.OFFER and self.chance("leaks", offer.vendor, place) < 0.6:
                        self._pay(offer.id)
            await self._deliver(shop)
            await shop.settle()
            moments = [record.due_at for record in await self.world.store.records.list("payment") if record.due_at]
            moments += [job.due_at for job in await self.world.store.jobs.list(JobFilter(state=JobState.READY))]
            leased = await self.world.store.jobs.list(JobFilter(state=JobState.LEASED))
            moments += [clock.now() + timedelta(seconds=11) for _ in leased]
            moments = [moment for moment in moments if moment < end]
            if not moments and number > leak:
                return
            await clock.advance(max(0.1, (min(moments, default=clock.now()) - clock.now()).total_seconds() + 0.1))
        self.wrong.append("it never comes to rest")

    async def _judge(self, shop: Process) -> None:
        ledger = self.world.ledger
        for reference in ORDERS:
            payment = await shop.get(reference)
            attempts = {attempt.id: attempt for attempt in payment.attempts} if payment else {}
            for offer in ledger.entries(Kind.OFFER, key=reference):
                if offer.facts["attempt"] not in attempts:
                    self.wrong.append(f"{reference}: {offer.vendor} holds an offer that is not on record")
            captured = ledger.entries(Kind.CAPTURE, key=reference)
            told = [job for job in await self.world.jobs("payment.paid") if _reference(job.body) == reference]
            if len(told) != bool(captured):
                self.wrong.append(f"{reference}: captured {len(captured)} times, told {len(told)} times")
            if payment is None:
                continue
            flags = [flag for flag in self.world.flagged if flag.reference == reference]
            doubles = {flag.vendor_id for flag in flags if flag.anomaly is Anomaly.DUPLICATE}
            if len(doubles) != max(0, len(captured) - 1):
                self.wrong.append(f"{reference}: captured {len(captured)} times, flagged {len(doubles)} doubles")
            if any(attempt.state in (AttemptState.SENDING, AttemptState.UNKNOWN) for attempt in attempts.values()):
                self.wrong.append(f"{reference}: left undecided: {payment.route}")
            if (payment.status is PaymentStatus.PAID) != bool(captured):
                self.wrong.append(f"{reference}: {payment.status}, captured {len(captured)} times")
        for job in await self.world.store.jobs.list(limit=1000):
            if job.state not in (JobState.DONE, JobState.IGNORED):
                self.wrong.append(f"job {job.key} ended {job.state}: {job.error}")


async def _all(both: "asyncio.Future[list[object]]") -> list[object]:
    return await both


def _reference(body: bytes) -> object:
    return json.loads(body)["reference"]


async def calm(seed: int) -> History:
    """The history in which nobody dies."""
    history = History(seed=seed)
    assert await history.run() == [], f"seed {seed}, without a crash"
    return history


@pytest.mark.parametrize("seed", SEEDS)
async def test_wherever_a_process_is_killed_no_money_is_asked_for_twice_lost_or_told_twice(seed: int) -> None:
    await die_everywhere(seed, Killed)


@pytest.mark.parametrize("seed", SEEDS[:3])
async def test_wherever_a_process_is_cancelled_no_money_is_asked_for_twice_lost_or_told_twice(seed: int) -> None:
    await die_everywhere(seed, asyncio.CancelledError)


async def die_everywhere(seed: int, by: type[BaseException]) -> None:
    steps = (await calm(seed)).steps
    print(f"seed {seed}: {steps} steps")
    for step in range(1, steps + 1):
        history = History(seed=seed, dies_at=step, by=by)
        assert await history.run() == [], f"seed {seed}, {by.__name__} at step {step} of {steps}"


async def test_the_histories_hold_every_trouble_they_are_meant_to_survive() -> None:
    histories = [await calm(seed) for seed in SEEDS]

    flags = {flag.anomaly for history in histories for flag in history.world.flagged}
    fired = {name.partition(".")[2] for history in histories for name in history.world.faults.fired}
    assert flags == {Anomaly.DUPLICATE, Anomaly.LATE, Anomaly.ORPHAN_PAID}
    assert fired >= {"reset", "hang", "refused", "status_503", "webhook_lie", "webhook_duplicate"}
    assert sum(len(history.world.ledger.entries(Kind.CAPTURE)) for history in histories) > len(SEEDS)


# The oracle must object to each of these, or it proves nothing.


def a_second_offer_beside_the_first(patch: pytest.MonkeyPatch) -> None:
    """Falls over although an offer was shown."""
    todo = planning.todo

    def restless(payment: Payment, order: Sequence[str], *rest: Any, **more: Any) -> planning.Action:
        left = [name for name in order if name not in {attempt.provider for attempt in payment.attempts}]
        shown = payment.attempts and payment.attempts[-1].state is AttemptState.OFFERED
        return planning.Start(left[0]) if shown and left else todo(payment, order, *rest, **more)

    patch.setattr(offering, "todo", restless)


def telling_again(patch: pytest.MonkeyPatch) -> None:
    """Every look that finds money tells of it."""
    step = machine.step

    def forgetful(payment: Payment, fact: facts.Fact) -> machine.Step:
        before = replace(payment, status=PaymentStatus.PENDING) if payment.status is PaymentStatus.PAID else payment
        if isinstance(fact, facts.Looked) and before.attempts[fact.number - 1].paid:
            number = fact.number - 1
            unpaid = replace(before.attempts[number], status=PaymentStatus.PENDING)
            before = replace(before, attempts=(*before.attempts[:number], unpaid, *before.attempts[number + 1 :]))
        return step(before, fact)

    patch.setattr(book, "step", forgetful)


def trusting_the_body(patch: pytest.MonkeyPatch) -> None:
    """What a webhook says is believed."""
    ask = desk.Desk.ask
    arrived = client.Payments.arrived
    said: dict[str, PaymentStatus] = {}

    async def read(self: client.Payments, delivery: Arrived) -> bool:
        body = json.loads(delivery.body)
        body = json.loads(body) if isinstance(body, str) else body
        if body.get("status") in ("settled", "success"):
            said[delivery.vendor_id] = PaymentStatus.PAID
        return await arrived(self, delivery)

    async def believe(self: desk.Desk, attempt: Attempt, vendor_id: str) -> facts.Looked:
        fact = await ask(self, attempt, vendor_id)
        if fact.snapshot and vendor_id in said:
            fact = replace(fact, snapshot=replace(fact.snapshot, status=PaymentStatus.PAID))
        return fact

    patch.setattr(client.Payments, "arrived", read)
    patch.setattr(desk.Desk, "ask", believe)


def forgetting_orphans(patch: pytest.MonkeyPatch) -> None:
    """What may exist is not looked for."""
    look = planning._attempt_look  # pyright: ignore[reportPrivateUsage]

    def forget(attempt: Attempt, *rest: Any) -> datetime | None:
        return None if attempt.state is AttemptState.UNKNOWN else look(attempt, *rest)

    patch.setattr(planning, "_attempt_look", forget)


def taking_unknown_for_failed(patch: pytest.MonkeyPatch) -> None:
    """An answer that was lost is taken for a no."""
    fail = machine._fail  # pyright: ignore[reportPrivateUsage]
    patch.setattr(machine, "_fail", lambda payment, fact: fail(payment, replace(fact, error=NotSent("no answer"))))


def writing_over_others(patch: pytest.MonkeyPatch) -> None:
    """Records are written whoever wrote them in between."""
    apply = MemoryRecords.apply

    async def overwrite(self: MemoryRecords, kind: str, key: str, expected: int, *rest: Any, **more: Any) -> object:
        current = await self.get(kind, key)
        return await apply(self, kind, key, current.version if current else 0, *rest, **more)

    patch.setattr(MemoryRecords, "apply", overwrite)


@pytest.mark.parametrize(
    "mutation",
    [
        a_second_offer_beside_the_first,
        telling_again,
        trusting_the_body,
        forgetting_orphans,
        taking_unknown_for_failed,
        writing_over_others,
    ],
)
async def test_the_oracle_objects_to_broken_code(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)

    for dies_at in (None, *range(1, 60, 6)):
        for seed in SEEDS:
            if await History(seed=seed, dies_at=dies_at).run():
                return
    pytest.fail("nobody noticed")
