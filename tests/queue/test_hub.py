"""The whole way: a webhook or a sweep, one event, a handler, an effect exactly once."""

import asyncio
import hashlib
import hmac
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from holdfast import Holdfast, Money, PaymentPaid, Secrets, handled_ddl
from holdfast.errors import (
    AlreadyHandled,
    CallInsideTransaction,
    ConfigurationError,
    InsecureSetup,
    NotOpen,
    Permanent,
    RetryLater,
    StoreUnavailable,
    WrongLoop,
)
from holdfast.queue.inbox import Arrived
from holdfast.stores.store import JobFilter, JobState
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import SigningVendor

DUE = Money("120.00", "CHF")


class Shop:
    """A hub over one vendor, and a database of its own."""

    def __init__(self, tmp_path: Path, store: str = "memory://") -> None:
        self.clock = ManualClock()
        self.vendor = SigningVendor()
        self.hub = Holdfast(
            store=store,
            secret=Secrets("hub-secret"),
            public_url="https://shop.example/webhooks",
            payments=[self.vendor],
            clock=self.clock,
        )
        self.path = tmp_path / "shop.db"
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("CREATE TABLE confirmed (reference TEXT)")
            database.execute(handled_ddl("sqlite"))

    @property
    def confirmed(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as database:
            return [row[0] for row in database.execute("SELECT reference FROM confirmed")]

    async def sell(self, reference: str = "order-1") -> str:
        payment = await self.hub.payments.create(reference, DUE)
        return payment.attempts[0].vendor_id

    async def webhook(self, vendor_id: str, times: int = 1) -> None:
        signature = hmac.new(b"webhook-secret", vendor_id.encode(), hashlib.sha256).hexdigest()
        transport = httpx.ASGITransport(self.hub.receiver)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            for _ in range(times):
                answer = await client.post("/vendor", content=vendor_id, headers={"x-signature": signature})
                assert answer.status_code == 200


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(params=["memory", "sqlite"])
def any_shop(tmp_path: Path, request: pytest.FixtureRequest) -> Shop:
    return Shop(tmp_path, "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/holdfast.db")


async def test_one_payment_is_told_once_whatever_revealed_it(any_shop: Shop) -> None:
    told: list[str] = []

    @any_shop.hub.on(PaymentPaid, name="tell")
    async def tell(paid: PaymentPaid) -> None:
        told.append(paid.id)

    async with any_shop.hub:
        vendor_id = await any_shop.sell()
        any_shop.vendor.pay(vendor_id)
        await any_shop.webhook(vendor_id, times=3)
        await any_shop.hub.settle()
        await any_shop.hub.payments.refresh("order-1")
        await any_shop.clock.advance(3600)
        await any_shop.hub.settle()

    assert told == ["payment/order-1/3/payment.paid"]


async def test_a_webhook_is_only_a_reason_to_look(shop: Shop) -> None:
    told: list[PaymentPaid] = []
    shop.hub.on(PaymentPaid, name="tell")(told.append)

    async with shop.hub:
        vendor_id = await shop.sell()
        await shop.webhook(vendor_id)
        await shop.hub.settle()

    assert told == []
    assert shop.vendor.fetches == 1


async def test_a_delivery_that_overtakes_our_own_commit_is_tried_again(shop: Shop) -> None:
    told: list[PaymentPaid] = []
    shop.hub.on(PaymentPaid, name="tell")(told.append)

    async with shop.hub:
        await shop.webhook("vendor-early")
        await shop.hub.settle()
        waiting = await shop.hub.store.jobs.list(JobFilter(queue="deliveries", state=JobState.READY))

    assert len(waiting) == 1
    assert waiting[0].attempts == 1


async def test_a_delivery_nobody_ever_claims_is_kept_as_ignored(shop: Shop) -> None:
    async with shop.hub:
        await shop.webhook("somebody-elses")
        for _ in range(10):
            await shop.hub.settle()
            await shop.clock.advance(3600)
        jobs = await shop.hub.store.jobs.list(JobFilter(queue="deliveries"))

    assert [job.state for job in jobs] == [JobState.IGNORED]


async def test_each_handler_fails_alone(shop: Shop) -> None:
    ran: list[str] = []

    @shop.hub.on(PaymentPaid, name="good")
    async def good(paid: PaymentPaid) -> None:
        ran.append("good")

    @shop.hub.on(PaymentPaid, name="bad")
    async def bad(paid: PaymentPaid) -> None:
        ran.append("bad")
        raise ValueError("not today")

    async with shop.hub:
        shop.vendor.pay(await shop.sell())
        await shop.hub.payments.refresh("order-1")
        for _ in range(3):
            await shop.hub.settle()
            await shop.clock.advance(60)

    assert ran.count("good") == 1
    assert ran.count("bad") == 3


async def test_a_handler_may_ask_for_later_and_may_give_up(shop: Shop) -> None:
    @shop.hub.on(PaymentPaid, name="later")
    async def later(paid: PaymentPaid) -> None:
        raise RetryLater("the calendar is closed", after=30)

    @shop.hub.on(PaymentPaid, name="never")
    async def never(paid: PaymentPaid) -> None:
        raise Permanent("no such booking")

    async with shop.hub:
        shop.vendor.pay(await shop.sell())
        await shop.hub.payments.refresh("order-1")
        await shop.hub.settle()
        jobs = {job.handler: job for job in await shop.hub.store.jobs.list(JobFilter(queue="events"))}

    assert (jobs["later"].state, jobs["later"].attempts) == (JobState.READY, 0)
    assert (jobs["never"].state, jobs["never"].reason) == (JobState.DEAD, "permanent")


async def test_an_event_nobody_wants_is_kept(shop: Shop) -> None:
    async with shop.hub:
        shop.vendor.pay(await shop.sell())
        await shop.hub.payments.refresh("order-1")
        jobs = await shop.hub.store.jobs.list(JobFilter(queue="events"))

    assert [(job.kind, job.state) for job in jobs] == [("payment.paid", JobState.IGNORED)]


async def test_an_effect_in_sqlite3_happens_exactly_once_though_the_handler_runs_twice(any_shop: Shop) -> None:
    runs: list[str] = []

    @any_shop.hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        with closing(sqlite3.connect(any_shop.path)) as database, database:
            async with paid.handled_in(database):
                runs.append(paid.reference)
                database.execute("INSERT INTO confirmed VALUES (?)", (paid.reference,))
        if len(runs) == 1:
            raise ConnectionError("killed after the commit")

    async with any_shop.hub:
        any_shop.vendor.pay(await any_shop.sell())
        await any_shop.hub.payments.refresh("order-1")
        for _ in range(3):
            await any_shop.hub.settle()
            await any_shop.clock.advance(60)
        jobs = await any_shop.hub.store.jobs.list(JobFilter(queue="events"))

    assert any_shop.confirmed == ["order-1"]
    assert [job.state for job in jobs] == [JobState.DONE]


async def test_an_effect_rolls_back_with_its_proof(shop: Shop) -> None:
    failures = [RuntimeError("before the commit")]

    @shop.hub.on(PaymentPaid, name="confirm")
    async def confirm(paid: PaymentPaid) -> None:
        with closing(sqlite3.connect(shop.path)) as database, database:
            async with paid.handled_in(database):
                database.execute("INSERT INTO confirmed VALUES (?)", (paid.reference,))
                if failures:
                    raise failures.pop()

    async with shop.hub:
        shop.vendor.pay(await shop.sell())
        await shop.hub.payments.refresh("order-1")
        await shop.hub.settle()
        first = shop.confirmed
        await shop.clock.advance(60)
        await shop.hub.settle()

    assert first == []
    assert shop.confirmed == ["order-1"]


def paid_event() -> PaymentPaid:
    clock = ManualClock()
    return PaymentPaid(
        id="payment/order-1/3/payment.paid",
        reference="order-1",
        at=clock.now(),
        due=DUE,
        received=DUE,
        provider="vendor",
    )


def test_a_sync_sqlalchemy_session_takes_it_too(shop: Shop) -> None:
    engine = create_engine(f"sqlite:///{shop.path}")
    for expected in ("first", "again"):
        with Session(engine) as session:
            try:
                with session.begin(), paid_event().handled_in(session):
                    session.execute(text("INSERT INTO confirmed VALUES ('order-1')"))
                    assert expected == "first"
            except AlreadyHandled:
                assert expected == "again"
    engine.dispose()

    assert shop.confirmed == ["order-1"]


async def test_an_async_sqlalchemy_session_takes_it_too(shop: Shop) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{shop.path}")
    async with AsyncSession(engine) as session, session.begin(), paid_event().handled_in(session):
        await session.execute(text("INSERT INTO confirmed VALUES ('order-1')"))
    with pytest.raises(AlreadyHandled, match="has handled payment/order-1/3"):
        async with AsyncSession(engine) as session, session.begin(), paid_event().handled_in(session):
            pytest.fail("entered twice")
    await engine.dispose()

    assert shop.confirmed == ["order-1"]


async def test_no_vendor_is_called_while_the_transaction_is_open(shop: Shop) -> None:
    async with shop.hub:
        vendor_id = await shop.sell()
        guard = shop.hub._runtime.guard(shop.vendor)  # pyright: ignore[reportPrivateUsage]
        with closing(sqlite3.connect(shop.path)) as database, database:
            async with paid_event().handled_in(database):
                with pytest.raises(CallInsideTransaction, match="before or after the transaction"):
                    await guard.read(shop.vendor.fetch, None, vendor_id)  # type: ignore[arg-type]


def test_handled_in_takes_no_stranger() -> None:
    with pytest.raises(ConfigurationError, match="not dict"), paid_event().handled_in({}):
        pytest.fail("entered")


def test_a_connection_in_autocommit_is_refused(shop: Shop) -> None:
    database = sqlite3.connect(shop.path, isolation_level=None)
    with pytest.raises(ConfigurationError, match="BEGIN"), paid_event().handled_in(database):
        pytest.fail("entered")
    database.close()


def test_there_is_a_table_for_each_dialect_and_none_for_others() -> None:
    assert "holdfast_handled" in handled_ddl("postgresql")
    with pytest.raises(ConfigurationError, match="no table for 'oracle'"):
        handled_ddl("oracle")


async def test_raw_deliveries_have_a_door_of_their_own(shop: Shop) -> None:
    arrived: list[Arrived] = []

    @shop.hub.on_delivery("vendor", "paid")
    async def keep(delivery: Arrived) -> None:
        arrived.append(delivery)

    async with shop.hub:
        await shop.webhook(await shop.sell())
        await shop.hub.settle()

    assert [delivery.type for delivery in arrived] == ["paid"]


def test_two_handlers_of_one_name_are_refused(shop: Shop) -> None:
    shop.hub.on(PaymentPaid, name="confirm")(print)
    with pytest.raises(ConfigurationError, match="named confirm"):
        shop.hub.on(PaymentPaid, name="confirm")(print)


async def test_a_hub_that_is_not_open_says_so(shop: Shop) -> None:
    with pytest.raises(NotOpen, match="async with"):
        await shop.hub.payments.create("order-1", DUE)


def test_a_hub_open_in_one_loop_refuses_another(shop: Shop) -> None:
    async def use() -> None:
        with pytest.raises(WrongLoop, match="another event loop"):
            await shop.hub.payments.create("order-1", DUE)

    async def in_one_loop() -> None:
        async with shop.hub:
            await asyncio.to_thread(asyncio.run, use())

    asyncio.run(in_one_loop())


def test_a_live_credential_needs_a_store_that_survives() -> None:
    with pytest.raises(InsecureSetup, match="survives the process"):
        Holdfast(store="memory://", payments=[SigningVendor(base_url="https://api.vendor.example")])


def test_a_live_credential_never_travels_in_clear(tmp_path: Path) -> None:
    with pytest.raises(InsecureSetup, match="https://"):
        Holdfast(store=f"sqlite:///{tmp_path}/x.db", payments=[SigningVendor(base_url="http://api.vendor.example")])


async def test_the_lifespan_works_in_the_background_and_stops(tmp_path: Path) -> None:
    vendor = SigningVendor()
    hub = Holdfast(store=f"sqlite:///{tmp_path}/holdfast.db", secret=Secrets("s3cret"), payments=[vendor])
    told = asyncio.Event()

    @hub.on(PaymentPaid, name="tell")
    async def tell(paid: PaymentPaid) -> None:
        told.set()

    async with hub.lifespan(), asyncio.timeout(30):
        payment = await hub.payments.create("order-1", DUE)
        vendor.pay(payment.attempts[0].vendor_id)
        await hub.payments.refresh("order-1")
        await told.wait()


async def test_a_sweep_that_fails_neither_ends_the_work_nor_stops_the_other_families(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    shop.hub.on(PaymentPaid, name="tell")(lambda paid: told.set())
    swept: list[str] = []

    async def locked(*, limit: int = 100) -> int:
        swept.append("payments")
        raise StoreUnavailable("locked")

    async def meetings(*, limit: int = 100) -> int:
        swept.append("meetings")
        return 0

    monkeypatch.setattr(shop.hub.payments, "sweep", locked)
    monkeypatch.setattr(shop.hub.meetings, "sweep", meetings)

    async with shop.hub.lifespan():
        await shop.clock.advance(20)
        shop.vendor.pay(await shop.sell())
        await shop.hub.payments.refresh("order-1")
        await shop.clock.advance(2)

    assert told.is_set()
    assert swept.count("payments") >= 2
    assert swept.count("meetings") >= 2


@pytest.mark.parametrize("way", ["hub", "lifespan"])
async def test_what_the_program_raises_inside_the_hub_arrives_as_itself(shop: Shop, way: str) -> None:
    with pytest.raises(ValueError, match="my own"):
        async with shop.hub if way == "hub" else shop.hub.lifespan():
            raise ValueError("my own")


async def test_a_hub_that_could_not_be_opened_can_be_opened_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, down = type(shop.hub.store).__aenter__, [StoreUnavailable("not up yet")]

    async def fail_once(store: object) -> object:
        if down:
            raise down.pop()
        return await opened(store)  # type: ignore[arg-type]

    monkeypatch.setattr(type(shop.hub.store), "__aenter__", fail_once)

    with pytest.raises(StoreUnavailable):
        await shop.hub.__aenter__()
    async with shop.hub:
        assert await shop.sell()


async def test_the_hubs_own_secret_is_redacted_too(shop: Shop) -> None:
    assert shop.hub._runtime.redactor.redact("key hub-secret here") == "key *** here"  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has had autocommit= since 3.12")
def test_a_connection_in_the_autocommit_of_python_3_12_is_refused(shop: Shop) -> None:
    database = sqlite3.connect(shop.path, autocommit=True)
    with pytest.raises(ConfigurationError, match="BEGIN"), paid_event().handled_in(database):
        pytest.fail("entered")
    database.close()


async def test_stopping_lets_a_running_handler_finish(shop: Shop) -> None:
    begun, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @shop.hub.on(PaymentPaid, name="slow")
    async def slow(paid: PaymentPaid) -> None:
        begun.set()
        await go_on.wait()
        finished.set()

    async def live() -> None:
        async with shop.hub.lifespan():
            shop.vendor.pay(await shop.sell())
            await shop.hub.payments.refresh("order-1")
            await shop.clock.advance(2)

    living = asyncio.ensure_future(live())
    await shop.clock.advance(5)
    assert begun.is_set()
    assert not living.done()
    go_on.set()
    await living

    assert finished.is_set()
    async with shop.hub:
        assert [job.state for job in await shop.hub.store.jobs.list(JobFilter(queue="events"))] == [JobState.DONE]
