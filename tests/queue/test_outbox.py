"""Calls that are kept first and made later: each at its time, in its order, and never after its end."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from holdfast import Call, Holdfast, Message, Recipient, WorkerOptions, handled_ddl
from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    InvalidInput,
    NaiveDatetime,
    OutcomeUnknown,
    Permanent,
    ReferenceConflict,
    Rejected,
    RetryLater,
)
from holdfast.queue.sending import WAITS
from holdfast.queue.signals import DeferredCallExpired, DeferredCallUnknown
from holdfast.resilience.context import remaining
from holdfast.stores.store import Job, JobFilter, JobState
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing import FakeNotifications, ManualClock


class Invoice(BaseModel):
    """A payload as users write them."""

    number: int
    to: str = "ann@example.org"


@dataclass
class Reminder:
    """A payload of the standard library's kind."""

    booking: str
    at: datetime


class Shop:
    """A hub whose time and signals are ours."""

    def __init__(self, store: str) -> None:
        self.clock = ManualClock()
        self.signals: list[Signal] = []
        self.notifier = FakeNotifications()
        self.hub = Holdfast(
            store=store,
            clock=self.clock,
            notifications=[self.notifier],
            telemetry=Telemetry([self.signals.append]),
            worker=WorkerOptions(attempts=4),
            fleet=False,
        )

    async def jobs(self) -> dict[str, Job]:
        return {job.key: job for job in await self.hub.store.jobs.list(JobFilter())}

    async def later(self, seconds: float = 3600.0) -> None:
        await self.clock.advance(seconds)
        await self.hub.settle()

    def told(self, kind: type[Signal]) -> list[Signal]:
        return [signal for signal in self.signals if isinstance(signal, kind)]


@pytest.fixture(params=["memory", "sqlite"])
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    shop = Shop("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/holdfast.db")
    async with shop.hub:
        yield shop


# What is kept.


async def test_a_call_is_made_with_what_was_kept(shop: Shop) -> None:
    made: list[object] = []

    @shop.hub.call("send-invoice")
    async def send_invoice(call: Call[Invoice]) -> None:
        made.append(call.payload)

    @shop.hub.call("remind")
    def remind(call: Call[Reminder]) -> None:
        made.append(call.payload)

    @shop.hub.call("ping")
    async def ping() -> None:
        made.append("ping")

    reminder = Reminder("booking-1", datetime(2026, 5, 1, tzinfo=UTC))
    await shop.hub.outbox.add("send-invoice", Invoice(number=1), key="invoice:1")
    await shop.hub.outbox.add("remind", reminder, key="booking-1")
    await shop.hub.outbox.add("ping", key="now")
    await shop.hub.settle()

    assert sorted(made, key=str) == sorted([Invoice(number=1), reminder, "ping"], key=str)
    assert {job.state for job in (await shop.jobs()).values()} == {JobState.DONE}


async def test_a_key_is_kept_once_per_name(shop: Shop) -> None:
    made: list[str] = []
    shop.hub.call("invoice")(lambda call: made.append(call.key))
    shop.hub.call("archive")(lambda call: made.append(call.key))

    answers = [await shop.hub.outbox.add(name, [1], key="4711") for name in ("invoice", "invoice", "archive")]
    await shop.hub.settle()
    again = await shop.hub.outbox.add("invoice", [1], key="4711")

    assert (answers, again) == ([True, False, True], False)
    assert made == ["4711", "4711"]


async def test_a_key_that_means_another_payload_is_refused(shop: Shop) -> None:
    shop.hub.call("invoice", payload=Invoice)(lambda call: None)
    await shop.hub.outbox.add("invoice", Invoice(number=1), key="4711")

    with pytest.raises(ReferenceConflict, match="another payload"):
        await shop.hub.outbox.add("invoice", Invoice(number=2), key="4711")


async def test_the_order_of_a_json_objects_names_makes_no_other_payload(shop: Shop) -> None:
    shop.hub.call("invoice")(lambda call: None)

    assert await shop.hub.outbox.add("invoice", {"a": 1, "b": 2}, key="1")
    assert not await shop.hub.outbox.add("invoice", {"b": 2, "a": 1}, key="1")


class Card(BaseModel):
    """It would be stored as stars."""

    number: SecretStr


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"number": "one"}, Invoice),
        (Reminder("booking-1", datetime(2026, 1, 1, tzinfo=UTC)), Invoice),
        (None, Invoice),
        (Card(number=SecretStr("4242")), Card),
        ((1, 2), None),
        (float("nan"), None),
        (object(), None),
        ("half \ud800 of a pair", None),
        (Invoice.model_construct(number="one"), Invoice),
        (Reminder(booking=7, at=datetime(2026, 1, 1, tzinfo=UTC)), Reminder),  # type: ignore[arg-type]  # meant
    ],
)
async def test_a_payload_the_handler_could_not_read_is_refused_when_it_is_added(
    shop: Shop, payload: object, kind: type[object] | None
) -> None:
    shop.hub.call("invoice", payload=kind)(lambda call: None)

    with pytest.raises(InvalidInput):
        await shop.hub.outbox.add("invoice", payload, key="1")
    assert await shop.jobs() == {}


@pytest.mark.parametrize("key", ["", "a b", "a/b", "x" * 129, "é", None])
async def test_a_bad_key_is_refused(shop: Shop, key: str) -> None:
    shop.hub.call("invoice")(lambda call: None)

    with pytest.raises(InvalidInput, match="is no key"):
        await shop.hub.outbox.add("invoice", key=key)


async def test_a_call_nobody_makes_is_refused_when_it_is_added(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match=r"hub\.call\('invoice'\)"):
        await shop.hub.outbox.add("invoice", key="1")


@pytest.mark.parametrize(
    "options",
    [
        {"on_unknown": "hold"},
        {"check": lambda call: None},
        {"once": True, "on_unknown": "check"},
        {"once": True, "on_unknown": "hold", "check": lambda call: None},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object]) -> None:
    hub = Holdfast(store="memory://")

    with pytest.raises(ConfigurationError):
        hub.call("invoice", **options)(lambda call: None)  # type: ignore[arg-type]  # meant


@pytest.mark.parametrize(
    "register",
    [
        lambda hub: hub.call("invoice")(lambda call: None),
        lambda hub: hub.every(timedelta(hours=1), name="close")(lambda: None),
        lambda hub: hub.relay(lambda: None),
    ],
)
async def test_what_the_workers_would_not_look_for_is_refused(register: Callable[[Holdfast], object]) -> None:
    hub = Holdfast(store="memory://", clock=ManualClock())

    async with hub.lifespan():
        await asyncio.sleep(0)
        with pytest.raises(ConfigurationError, match="comes too late"):
            register(hub)
    register(hub)


def test_a_name_has_one_handler() -> None:
    hub = Holdfast(store="memory://")
    hub.call("invoice")(lambda call: None)

    with pytest.raises(ConfigurationError, match="two handlers"):
        hub.call("invoice")(lambda call: None)


# Versions.


async def test_a_later_programs_payload_waits_for_a_later_program(tmp_path: Path) -> None:
    made: list[object] = []
    store = f"sqlite:///{tmp_path}/holdfast.db"
    old, new = Shop(store), Shop(store)
    old.hub.call("invoice")(lambda call: made.append("read by the old one"))
    new.hub.call("invoice", version=2)(lambda call: made.append(call.payload))

    async with old.hub, new.hub:
        await new.hub.outbox.add("invoice", {"lines": []}, key="1")
        await old.hub.settle()
        [failed] = (await old.jobs()).values()
        await new.clock.advance(60)
        await new.hub.settle()

    assert (failed.state, failed.attempts) == (JobState.READY, 1)
    assert "version 2" in failed.error
    assert made == [{"lines": []}]


async def test_an_earlier_programs_payload_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    class Longer(BaseModel):
        number: int
        to: str
        language: str = "de"

    made: list[object] = []
    store = f"sqlite:///{tmp_path}/holdfast.db"
    old, new = Shop(store), Shop(store)
    old.hub.call("invoice", payload=Invoice)(lambda call: None)
    new.hub.call("invoice", payload=Longer, version=2)(lambda call: made.append(call.payload))

    async with old.hub, new.hub:
        await old.hub.outbox.add("invoice", Invoice(number=1), key="1")
        await new.hub.settle()

    assert made == [Longer(number=1, to="ann@example.org", language="de")]


# When it is made.


@pytest.mark.parametrize("how", [timedelta(minutes=10), datetime(2026, 1, 1, 0, 10, tzinfo=UTC)])
async def test_a_call_is_not_made_before_its_time(shop: Shop, how: datetime | timedelta) -> None:
    made: list[datetime] = []
    shop.hub.call("remind")(lambda call: made.append(shop.clock.now()))

    await shop.hub.outbox.add("remind", key="1", not_before=how)
    await shop.later(599)
    early = list(made)
    await shop.later(1)

    assert early == []
    assert made == [datetime(2026, 1, 1, 0, 10, tzinfo=UTC)]


async def test_a_call_whose_end_has_come_is_never_made_and_says_so(shop: Shop) -> None:
    made: list[str] = []
    shop.hub.call("otp")(lambda call: made.append(call.key))

    await shop.hub.outbox.add("otp", "123456", key="1", expires_at=timedelta(minutes=5))
    await shop.later(300)

    assert made == []
    assert (await shop.jobs())["otp/1"].state is JobState.IGNORED
    assert shop.told(DeferredCallExpired) == [DeferredCallExpired("otp", "otp/1")]


@pytest.mark.parametrize("once", [False, True])
async def test_what_fails_until_its_end_is_not_made_after_it(shop: Shop, once: bool) -> None:
    made: list[float] = []

    @shop.hub.call("otp", once=once)
    async def otp(call: Call[str]) -> None:
        made.append(shop.clock.monotonic())
        raise RetryLater("the network is down", after=20)

    await shop.hub.outbox.add("otp", "123456", key="1", expires_at=timedelta(seconds=50))
    for _ in range(10):
        await shop.later(10)

    assert made == [10.0, 30.0]
    assert (await shop.jobs())["otp/1"].state is JobState.IGNORED


async def test_a_message_a_handler_sends_is_not_sent_after_the_calls_end(shop: Shop) -> None:
    left: list[float] = []

    @shop.hub.call("otp")
    async def otp(call: Call[str]) -> None:
        left.append(remaining(shop.clock))

    await shop.hub.outbox.add("otp", "123456", key="1", expires_at=timedelta(seconds=50))
    await shop.later(20)

    assert left == [pytest.approx(30.0)]


@pytest.mark.parametrize(
    "times",
    [
        {"expires_at": timedelta(0)},
        {"expires_at": datetime(2025, 12, 31, tzinfo=UTC)},
        {"not_before": timedelta(minutes=5), "expires_at": timedelta(minutes=5)},
    ],
)
async def test_a_call_that_could_never_be_made_is_refused(shop: Shop, times: dict[str, timedelta]) -> None:
    shop.hub.call("otp")(lambda call: None)

    with pytest.raises(InvalidInput, match="before the call may begin"):
        await shop.hub.outbox.add("otp", key="1", **times)  # type: ignore[arg-type]  # as named


async def test_a_moment_needs_a_time_zone(shop: Shop) -> None:
    shop.hub.call("otp")(lambda call: None)

    with pytest.raises(NaiveDatetime, match="not_before"):
        await shop.hub.outbox.add("otp", key="1", not_before=datetime(2026, 1, 1))  # meant


# Order and urgency.


async def test_calls_of_one_ordering_key_are_made_in_order_and_others_do_not_wait(shop: Shop) -> None:
    made: list[str] = []

    @shop.hub.call("tell")
    async def tell(call: Call[None]) -> None:
        if call.key == "a1" and not call.attempts:
            raise ValueError("not at once")
        made.append(call.key)

    for key in ("a1", "a2", "b1", "a3"):
        await shop.hub.outbox.add("tell", key=key, ordering_key=f"customer:{key[0]}")
    await shop.hub.settle()
    first = list(made)
    await shop.later(60)

    assert first == ["b1"]
    assert made == ["b1", "a1", "a2", "a3"]


async def test_an_urgent_call_does_not_wait_behind_a_backlog(tmp_path: Path) -> None:
    made: list[str] = []
    blocked, told = asyncio.Event(), asyncio.Event()
    hub = Holdfast(store=f"sqlite:///{tmp_path}/holdfast.db", worker=WorkerOptions(concurrency=4))

    @hub.call("report")
    async def report(call: Call[None]) -> None:
        await blocked.wait()
        made.append("report")

    @hub.call("otp", urgent=True)
    async def otp(call: Call[None]) -> None:
        made.append("otp")
        told.set()

    async with hub.lifespan():
        for number in range(50):
            await hub.outbox.add("report", key=str(number))
        await hub.outbox.add("otp", key="1")
        async with asyncio.timeout(30):
            await told.wait()
        blocked.set()

    assert made[0] == "otp"


# What the handler has of it.


async def test_a_call_has_the_same_key_in_every_run_and_a_greater_number(shop: Shop) -> None:
    runs: list[Call[None]] = []

    @shop.hub.call("charge")
    async def charge(call: Call[None]) -> None:
        runs.append(call)
        if len(runs) < 3:
            raise ConnectionError("reset")

    await shop.hub.outbox.add("charge", key="1")
    for _ in range(3):
        await shop.later()
    [job] = (await shop.jobs()).values()
    await shop.hub.store.jobs.replay(job.id)
    await shop.hub.settle()

    assert [run.attempts for run in runs] == [0, 1, 2, 0]
    assert len({run.idempotency_key for run in runs[:3]}) == 1
    assert runs[3].idempotency_key != runs[0].idempotency_key
    assert [run.fencing_token for run in runs] == sorted({run.fencing_token for run in runs})


async def test_a_calls_effect_in_the_users_database_happens_exactly_once(shop: Shop, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "shop.db")
    database.execute("CREATE TABLE sent (key TEXT)")
    database.execute(handled_ddl("sqlite"))
    runs: list[str] = []

    @shop.hub.call("send")
    async def send(call: Call[None]) -> None:
        runs.append(call.key)
        with database:
            async with call.handled_in(database):
                database.execute("INSERT INTO sent VALUES (?)", (call.key,))
        if len(runs) == 1:
            raise ConnectionError("killed after the commit")

    await shop.hub.outbox.add("send", key="1")
    await shop.later()
    await shop.later()
    sent = database.execute("SELECT key FROM sent").fetchall()
    database.close()

    assert (sent, runs) == ([("1",)], ["1", "1"])
    assert (await shop.jobs())["send/1"].state is JobState.DONE


async def test_a_message_sent_from_a_call_is_one_message_however_often_the_call_runs(shop: Shop) -> None:
    @shop.hub.call("tell")
    async def tell(call: Call[str]) -> None:
        await shop.hub.notifications.send(Message("paid"), to=Recipient(email=call.payload), key=call.key)
        if not call.attempts:
            raise ConnectionError("killed after it was sent")

    await shop.hub.outbox.add("tell", "ann@example.org", key="told:1")
    await shop.later()
    await shop.later()

    assert len(shop.notifier.sent) == 1


# Cancelling.


async def test_what_has_not_begun_can_be_cancelled(shop: Shop) -> None:
    made: list[str] = []
    shop.hub.call("remind")(lambda call: made.append(call.key))
    shop.hub.call("charge", once=True)(lambda call: made.append(call.key))
    for name in ("remind", "charge"):
        await shop.hub.outbox.add(name, key="1", not_before=timedelta(minutes=5))
        await shop.hub.outbox.add(name, key="2", not_before=timedelta(minutes=5))

    cancelled = [await shop.hub.outbox.cancel(name, key="1") for name in ("remind", "charge")]
    await shop.later()

    assert cancelled == [True, True]
    assert made == ["2", "2"]
    assert (await shop.jobs())["remind/1"].state is JobState.IGNORED


async def test_what_waits_for_its_next_attempt_can_be_cancelled(shop: Shop) -> None:
    runs: list[int] = []

    @shop.hub.call("remind")
    async def remind(call: Call[None]) -> None:
        runs.append(call.attempts)
        raise ValueError("not now")

    await shop.hub.outbox.add("remind", key="1")
    await shop.hub.settle()
    cancelled = await shop.hub.outbox.cancel("remind", key="1")
    await shop.later()

    assert (cancelled, runs) == (True, [0])


@pytest.mark.parametrize("once", [False, True])
async def test_what_is_being_made_or_over_or_unheard_of_cannot_be_cancelled(shop: Shop, once: bool) -> None:
    answers: list[bool] = []

    @shop.hub.call("remind", once=once)
    async def remind(call: Call[None]) -> None:
        answers.append(await shop.hub.outbox.cancel("remind", key=call.key))

    await shop.hub.outbox.add("remind", key="1")
    await shop.hub.settle()
    answers.append(await shop.hub.outbox.cancel("remind", key="1"))
    answers.append(await shop.hub.outbox.cancel("remind", key="2"))

    assert answers == [False, False, False]


async def test_a_cancelled_call_that_is_replayed_is_made(shop: Shop) -> None:
    made: list[str] = []
    shop.hub.call("remind")(lambda call: made.append(call.key))
    await shop.hub.outbox.add("remind", key="1", not_before=timedelta(minutes=5))
    await shop.hub.outbox.cancel("remind", key="1")
    await shop.later()

    await shop.hub.store.jobs.replay((await shop.jobs())["remind/1"].id)
    await shop.hub.settle()

    assert made == ["1"]


# Once.


async def lose_the_worker(shop: Shop, hangs: asyncio.Event) -> None:
    """A worker claims what is due, is cancelled in the middle of it, and gives back what it had."""
    working = asyncio.ensure_future(shop.hub.settle())
    async with asyncio.timeout(30):
        await hangs.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await shop.clock.advance(11)


async def test_a_call_cut_off_in_the_middle_is_held_and_not_made_again(shop: Shop) -> None:
    runs: list[str] = []
    hangs = asyncio.Event()

    @shop.hub.call("page", once=True)
    async def page(call: Call[None]) -> None:
        runs.append(call.key)
        hangs.set()
        await asyncio.Event().wait()

    await shop.hub.outbox.add("page", key="1")
    await lose_the_worker(shop, hangs)
    await shop.hub.settle()
    await shop.later()

    job = (await shop.jobs())["page/1"]
    assert runs == ["1"]
    assert (job.state, job.reason) == (JobState.DEAD, "unknown")
    assert shop.told(DeferredCallUnknown) == [DeferredCallUnknown("page", "page/1", "hold")]


async def test_a_person_who_replays_a_held_call_has_it_made_again(shop: Shop) -> None:
    runs: list[str] = []

    @shop.hub.call("page", once=True)
    async def page(call: Call[None]) -> None:
        runs.append(call.key)
        if len(runs) == 1:
            raise TimeoutError

    await shop.hub.outbox.add("page", key="1")
    await shop.hub.settle()
    await shop.hub.store.jobs.replay((await shop.jobs())["page/1"].id)
    await shop.hub.settle()

    assert runs == ["1", "1"]
    assert (await shop.jobs())["page/1"].state is JobState.DONE


async def test_with_resend_a_call_cut_off_in_the_middle_is_made_again(shop: Shop) -> None:
    runs: list[str] = []
    hangs = asyncio.Event()

    @shop.hub.call("page", once=True, on_unknown="resend")
    async def page(call: Call[None]) -> None:
        runs.append(call.key)
        if len(runs) == 1:
            hangs.set()
            await asyncio.Event().wait()

    await shop.hub.outbox.add("page", key="1")
    await lose_the_worker(shop, hangs)
    await shop.hub.settle()

    assert runs == ["1", "1"]
    assert (await shop.jobs())["page/1"].state is JobState.DONE


async def test_with_resend_a_lost_answer_is_an_ordinary_failure(shop: Shop) -> None:
    ran: list[int] = []

    @shop.hub.call("page", once=True, on_unknown="resend")
    async def page(call: Call[None]) -> None:
        ran.append(call.attempts)
        if len(ran) == 1:
            raise OutcomeUnknown("no answer")

    await shop.hub.outbox.add("page", key="1")
    await shop.hub.settle()
    error = (await shop.jobs())["page/1"].error
    await shop.later()

    assert error == "OutcomeUnknown: no answer"
    assert ran == [0, 1]
    assert (await shop.jobs())["page/1"].state is JobState.DONE


@pytest.mark.parametrize(("happened", "runs"), [(True, 1), (False, 2)])
async def test_a_look_up_decides_about_a_call_cut_off_in_the_middle(shop: Shop, happened: bool, runs: int) -> None:
    ran: list[str] = []
    asked: list[str] = []

    async def check(call: Call[None]) -> bool:
        asked.append(call.idempotency_key)
        return happened

    @shop.hub.call("page", once=True, check=check)
    async def page(call: Call[None]) -> None:
        ran.append(call.idempotency_key)
        if len(ran) == 1:
            raise OutcomeUnknown("no answer")

    await shop.hub.outbox.add("page", key="1")
    await shop.hub.settle()
    await shop.later()

    assert len(ran) == runs
    assert asked == ran[:1]
    assert (await shop.jobs())["page/1"].state is JobState.DONE


async def test_a_look_up_that_cannot_tell_is_asked_again_and_at_last_left_to_a_person(shop: Shop) -> None:
    ran: list[str] = []
    asked: list[float] = []

    async def check(call: Call[None]) -> bool | None:
        asked.append(shop.clock.monotonic())
        if len(asked) == 1:
            raise ConnectionError("the vendor is down")
        return None

    @shop.hub.call("page", once=True, check=check)
    async def page(call: Call[None]) -> None:
        ran.append(call.key)
        raise ConnectionError("reset in the middle")

    await shop.hub.outbox.add("page", key="1")
    for _ in range(len(WAITS) + 3):
        await shop.later()

    job = (await shop.jobs())["page/1"]
    assert len(ran) == 1
    assert len(asked) == len(WAITS)
    assert (job.state, job.reason, job.attempts) == (JobState.DEAD, "unknown", 0)


@pytest.mark.parametrize(
    ("error", "runs", "state"),
    [
        (Rejected("no such number"), 4, JobState.DEAD),
        (RetryLater("closed", after=5), 4, JobState.READY),
        (Permanent("no such booking"), 1, JobState.DEAD),
        (OutcomeUnknown("no answer"), 1, JobState.DEAD),
        (ConnectionError("reset"), 1, JobState.DEAD),
        (KeyError("a bug"), 1, JobState.DEAD),
    ],
)
async def test_only_what_proves_that_nothing_happened_lets_a_call_be_made_again(
    shop: Shop, error: Exception, runs: int, state: JobState
) -> None:
    ran: list[str] = []

    @shop.hub.call("page", once=True)
    async def page(call: Call[None]) -> None:
        ran.append(call.key)
        raise error

    await shop.hub.outbox.add("page", key="1")
    await shop.hub.settle()
    for _ in range(3):
        await shop.later()

    job = (await shop.jobs())["page/1"]
    proven = isinstance(error, Permanent | RetryLater) or (
        isinstance(error, CallFailed) and not isinstance(error, OutcomeUnknown)
    )
    assert (len(ran), job.state) == (runs, state)
    assert (job.reason == "unknown") is not proven


async def test_a_call_that_was_made_is_not_made_again_when_only_the_queue_forgot(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    shop.hub.call("page", once=True)(lambda call: ran.append(call.key))
    await shop.hub.outbox.add("page", key="1")
    [claimed] = await shop.hub.store.jobs.claim(["calls"], owner="dies", limit=1, lease=10)
    await shop.hub.outbox.perform(claimed)

    await shop.later(11)

    assert ran == ["1"]
    assert (await shop.jobs())["page/1"].state is JobState.DONE


async def test_a_run_that_lost_its_lease_does_not_begin(shop: Shop) -> None:
    ran: list[int] = []
    shop.hub.call("page", once=True)(lambda call: ran.append(call.fencing_token))
    await shop.hub.outbox.add("page", key="1")
    [late] = await shop.hub.store.jobs.claim(["calls"], owner="stands still", limit=1, lease=10)
    await shop.later(11)

    await asyncio.gather(shop.hub.outbox.perform(late), return_exceptions=True)

    assert len(ran) == 1


async def test_a_result_that_comes_after_all_spares_the_replayed_call(shop: Shop) -> None:
    ran: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    @shop.hub.call("page", once=True)
    async def page(call: Call[None]) -> None:
        ran.append(call.key)
        begun.set()
        await go_on.wait()

    await shop.hub.outbox.add("page", key="1")
    [claimed] = await shop.hub.store.jobs.claim(["calls"], owner="stands still", limit=1, lease=10)
    late = asyncio.ensure_future(shop.hub.outbox.perform(claimed))
    await begun.wait()
    await shop.later(11)
    held = (await shop.jobs())["page/1"]
    go_on.set()
    await late
    await shop.hub.store.jobs.replay(held.id)
    await shop.hub.settle()

    assert held.reason == "unknown"
    assert ran == ["1"]
    assert (await shop.jobs())["page/1"].state is JobState.DONE
