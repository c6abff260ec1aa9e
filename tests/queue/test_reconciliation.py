"""What webhooks did not tell is found at the vendor, and handled exactly once all the same."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random
from typing import cast

import httpx
import pytest

from holdfast import Holdfast, Money, PaymentPaid, Payments, Secrets
from holdfast.errors import CallFailed, OutcomeUnknown, StoreUnavailable
from holdfast.http.session import Http
from holdfast.providers import LNbits
from holdfast.queue.reconciliation import BATCH, Counts, Reconciliation, SupportsListing
from holdfast.queue.signals import DeliveriesMissed, Reconciled
from holdfast.stores import Store, open_store
from holdfast.stores.store import JobFilter, JobState
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Headers
from holdfast.testing.simulators.webhooks import Mischief, WebhookSimulator
from holdfast.values import Secret
from holdfast.webhooks.request import Delivery

PUBLIC = "https://shop.example/webhooks"
HOUR = 3600.0
ORDERS = [f"order-{number}" for number in range(7)]


class Shop:
    """A hub with LNbits behind it, whose sweeps come too late for anything."""

    def __init__(self, store: str = "memory://") -> None:
        self.clock = ManualClock()
        self.lnbits = LNbitsSimulator(clock=self.clock, invoice_key="k" * 32)
        self.webhooks = WebhookSimulator([self.lnbits], self.post, clock=self.clock)
        provider = LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("k" * 32))
        self.hub = Holdfast(
            store=store,
            secret=Secrets("hub-secret"),
            public_url=PUBLIC,
            payments=Payments([provider], poll=[timedelta(days=20)]),
            clock=self.clock,
            transport=lambda _: InProcess(self.lnbits),
            fleet=False,
        )
        self.told: list[str] = []
        self.hub.on(PaymentPaid, name="tell")(self.tell)

    async def tell(self, paid: PaymentPaid) -> None:
        self.told.append(paid.reference)

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.hub.receiver)) as client:
            answer = await client.post(url.replace("/webhooks/", "/"), content=body, headers=list(headers))
        return answer.status_code

    async def sell(self, *orders: str) -> None:
        for order in orders:
            payment = await self.hub.payments.create(order, Money.from_sat(2100), expires_in=timedelta(days=20))
            assert payment.offer
            self.lnbits.pay(payment.offer.bolt11 or "")

    def deaf(self) -> None:
        """No webhook arrives from now on."""
        self.webhooks = WebhookSimulator([self.lnbits], self.post, clock=self.clock, mischief=Mischief(drop=1))


@pytest.fixture(params=["memory://", "sqlite"])
def shop(request: pytest.FixtureRequest, tmp_path: object) -> Shop:
    return Shop(request.param if request.param != "sqlite" else f"sqlite:///{tmp_path}/holdfast.db")


async def test_when_every_webhook_of_an_hour_is_lost_each_payment_is_still_handled_once(shop: Shop) -> None:
    shop.deaf()
    async with shop.hub:
        await shop.sell(*ORDERS)
        await shop.webhooks.deliver()
        await shop.clock.advance(HOUR)
        await shop.hub.settle()
        assert shop.told == []

        found = await shop.hub.reconcile()
        await shop.hub.settle()

        assert found == {"lnbits": Counts(seen=7, missed=7)}
        assert sorted(shop.told) == ORDERS


async def test_a_second_look_and_a_late_webhook_change_nothing(shop: Shop) -> None:
    async with shop.hub:
        await shop.sell(*ORDERS)
        await shop.hub.reconcile()
        await shop.hub.settle()

        again = await shop.hub.reconcile()
        late = await shop.webhooks.deliver()
        await shop.hub.settle()

        assert again == {"lnbits": Counts(seen=7, missed=0)}
        assert [sent.status for sent in late] == [200] * 14
        assert sorted(shop.told) == ORDERS
        assert await shop.hub.store.jobs.list(JobFilter(state=JobState.DEAD)) == []
        deliveries = await shop.hub.store.jobs.list(JobFilter(queue="deliveries"))
        assert [job.conflicts for job in deliveries] == [0] * 7, "the list and the webhook say the same"


async def test_only_what_a_webhook_did_not_tell_counts_as_missed(shop: Shop) -> None:
    heard: list[Signal] = []
    shop.hub.telemetry.add(heard.append)
    async with shop.hub:
        await shop.sell("told-1", "told-2")
        await shop.webhooks.deliver()
        shop.deaf()
        await shop.sell("lost")
        await shop.webhooks.deliver()

        found = await shop.hub.reconcile()

    assert found == {"lnbits": Counts(seen=3, missed=1)}
    assert [signal for signal in heard if isinstance(signal, Reconciled | DeliveriesMissed)] == [
        Reconciled("lnbits", 3, 1),
        DeliveriesMissed("lnbits", 1),
    ]


async def test_a_payment_made_long_after_its_invoice_is_found(shop: Shop) -> None:
    async with shop.hub:
        payment = await shop.hub.payments.create("slow", Money.from_sat(2100), expires_in=timedelta(days=20))
        assert payment.offer
        await shop.clock.advance(10 * 24 * HOUR)
        await shop.hub.reconcile()
        await shop.clock.advance(HOUR)
        shop.lnbits.pay(payment.offer.bolt11 or "")

        assert await shop.hub.reconcile() == {"lnbits": Counts(seen=1, missed=1)}


async def test_a_vendor_that_is_down_is_asked_again_from_the_same_moment(shop: Shop) -> None:
    async with shop.hub:
        await shop.hub.reconcile()
        await shop.sell("order")
        await shop.clock.advance(HOUR)
        key, shop.lnbits.invoice_key = shop.lnbits.invoice_key, "another one"
        with pytest.raises(CallFailed):
            await shop.hub.reconcile()
        await shop.clock.advance(HOUR)
        shop.lnbits.invoice_key = key

        assert await shop.hub.reconcile() == {"lnbits": Counts(seen=1, missed=1)}


class Vendor:
    """Lists what it is told to, and remembers since when it was asked."""

    def __init__(self, name: str = "vendor", happened: Iterable[str] = ()) -> None:
        self.name = name
        self.happened = list(happened)
        self.since: list[datetime] = []
        self.failure: Exception | None = None

    async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
        self.since.append(since)
        for each in self.happened:
            yield Delivery(type="paid", dedup_key=each, vendor_id=each, body=each.encode())
        if self.failure:
            raise self.failure


class Fleet:
    """Reconciliation of one vendor, in one process of those that share the store."""

    def __init__(self, vendor: Vendor, clock: ManualClock, store: Store) -> None:
        self.vendor, self.clock, self.store = vendor, clock, store
        self.leader = True
        self.heard: list[Signal] = []

    def process(self, *vendors: Vendor, every: float = 300) -> Reconciliation:
        return Reconciliation(
            {vendor.name: vendor for vendor in vendors or (self.vendor,)},
            self.store,
            lambda _: cast(Http, None),
            self._lease,
            self._each,
            every=every,
            clock=self.clock,
            chance=Random(1),
            telemetry=Telemetry([self.heard.append]),
        )

    async def _lease(self) -> object:
        return "lease" if self.leader else None

    async def _each(self, work: Iterable[Awaitable[object]]) -> None:
        for item in work:
            await item


@pytest.fixture
async def fleet() -> AsyncGenerator[Fleet]:
    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        yield Fleet(Vendor(), clock, store)


@asynccontextmanager
async def running(*processes: Reconciliation) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(process.run()) for process in processes]
        yield
        for task in tasks:
            task.cancel()


async def test_the_first_look_goes_a_day_back_and_each_later_one_a_little_behind_the_last(fleet: Fleet) -> None:
    first = fleet.clock.now()
    await fleet.process().look()
    await fleet.clock.advance(HOUR)
    await fleet.process().look()

    assert fleet.vendor.since == [first - timedelta(days=1), first - timedelta(minutes=10)]


async def test_no_look_goes_farther_back_than_a_month(fleet: Fleet) -> None:
    await fleet.process().look()
    await fleet.clock.advance(90 * 24 * HOUR)
    await fleet.process().look()

    assert fleet.vendor.since[1] == fleet.clock.now() - timedelta(days=30)


async def test_the_watermark_is_when_a_look_began_since_it_misses_what_happens_meanwhile(fleet: Fleet) -> None:
    began = fleet.clock.now()

    class Slow(Vendor):
        async def list_deliveries(self, http: Http, since: datetime) -> AsyncIterator[Delivery]:
            self.since.append(since)
            await fleet.clock.advance(HOUR)
            yield Delivery(type="paid", dedup_key="a")

    vendor = Slow()
    await fleet.process(vendor).look()
    await fleet.process(vendor).look()

    assert vendor.since[1] == began - timedelta(minutes=10)


async def test_many_are_added_in_batches_and_what_was_added_stays_when_the_vendor_fails(fleet: Fleet) -> None:
    fleet.vendor.happened = [str(number) for number in range(2 * BATCH + 5)]
    fleet.vendor.failure = OutcomeUnknown("it hung up")

    with pytest.raises(OutcomeUnknown):
        await fleet.process().look()
    kept = await fleet.store.jobs.count()
    fleet.vendor.failure = None
    found = await fleet.process().look()

    assert kept == {("deliveries", JobState.READY): 2 * BATCH}
    assert found == {"vendor": Counts(seen=2 * BATCH + 5, missed=5)}


async def test_one_vendor_that_fails_does_not_keep_the_others_from_being_asked(fleet: Fleet) -> None:
    broken, well = Vendor("broken"), Vendor("well", ["a"])
    broken.failure = OutcomeUnknown("it hung up")

    with pytest.raises(OutcomeUnknown):
        await fleet.process(broken, well).look()

    assert await fleet.store.jobs.count() == {("deliveries", JobState.READY): 1}


async def test_of_several_processes_one_looks_each_time(fleet: Fleet) -> None:
    async with running(*(fleet.process(every=300) for _ in range(3))):
        await fleet.clock.advance(HOUR)

    assert 9 <= len(fleet.vendor.since) <= 16


async def test_who_does_not_hold_the_lease_does_not_look(fleet: Fleet) -> None:
    fleet.leader = False
    async with running(fleet.process()):
        await fleet.clock.advance(HOUR)

    assert fleet.vendor.since == []


async def test_a_vendor_or_a_store_that_is_down_does_not_end_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.vendor.failure = OutcomeUnknown("it hung up")
    async with running(fleet.process(every=300)):
        await fleet.clock.advance(900)
        fleet.vendor.failure = None

        async def down(*_: object) -> None:
            raise StoreUnavailable("down")

        with monkeypatch.context() as outage:
            outage.setattr(fleet.store.records, "get", down)
            await fleet.clock.advance(900)
        before = len(fleet.vendor.since)
        await fleet.clock.advance(900)

    assert len(fleet.vendor.since) > before


async def test_it_can_be_switched_off(fleet: Fleet) -> None:
    async with running(fleet.process(every=0)):
        await fleet.clock.advance(HOUR)

    assert fleet.vendor.since == []


async def test_a_hub_at_work_reconciles_by_itself() -> None:
    shop = Shop()
    shop.deaf()
    async with shop.hub, asyncio.TaskGroup() as group:
        await shop.sell("order")
        await shop.webhooks.deliver()
        work = group.create_task(shop.hub.work())
        for _ in range(30):
            await shop.clock.advance(1)
        work.cancel()

    assert shop.told == ["order"]


def test_a_provider_says_that_it_lists_by_having_the_verb() -> None:
    assert isinstance(LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("k")), SupportsListing)
