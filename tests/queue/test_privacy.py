"""What is stored about a reference can be given out, and forgotten: by the live store and by every copy of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import pytest

from holdfast import Holdfast, KeyRing, Message, Money, PaymentPaid, PaymentStatus, Recipient, Secret, Secrets
from holdfast.errors import ConfigurationError, InsecureSetup, InvalidInput, ReferenceConflict
from holdfast.notifications.models import DispatchState
from holdfast.payments.provider import PaymentProvider
from holdfast.providers import LNbits, SwissBitcoinPay
from holdfast.queue import calls, inbox
from holdfast.queue.audit import AuditLog
from holdfast.queue.privacy import Erasure, of_job
from holdfast.queue.subjects import of_key
from holdfast.stores import Draft, JobState, NewJob, open_store
from holdfast.stores.backup import back_up, restore
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.sealed import SealedJob, key_id_of, subject_of
from holdfast.stores.store import Job, JobFilter, Record
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Faults
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Headers, Simulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.testing.simulators.webhooks import WebhookSimulator
from holdfast.webhooks.request import Delivery, RawRequest

KEY = "b2xkIGtleSwgMzIgYnl0ZXMgb2YgYmFzZTY0ISEhISE="
NEWER = "bmV3IGtleSwgMzIgYnl0ZXMgb2YgYmFzZTY0ISEhISE="
ADA = "ada@example.org"


class Why(TypedDict):
    """Who does it, and why."""

    by: str
    reason: str


WHY: Why = {"by": "grace", "reason": "she asked"}

T = TypeVar("T")


class Shop:
    """A hub with everything in it, over a file, or in memory."""

    def __init__(self, path: Path | None, *, encryption: KeyRing | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.wallet, self.mail = FakePayments(), FakeNotifications()
        self.confirmed: list[str] = []
        self.hub = Holdfast(
            store=f"sqlite:///{path}" if path else "memory://",
            secret=Secrets("a secret of the shop's own"),
            payments=[self.wallet],
            meetings=[FakeMeetings()],
            notifications=[self.mail],
            clock=self.clock,
            encryption=encryption,
            **options,
        )

        @self.hub.on(PaymentPaid, name="confirm")
        async def confirm(paid: PaymentPaid) -> None:
            self.confirmed.append(paid.reference)

    async def sell(self, reference: str) -> None:
        """A payment, a meeting and a message about one booking of Ada's."""
        await self.hub.payments.create(
            reference, Money("120.00", "CHF"), description=f"for {ADA}", metadata={"email": ADA}
        )
        starts_at = self.clock.now() + timedelta(days=1)
        await self.hub.meetings.create(reference, starts_at=starts_at, duration=timedelta(minutes=30), topic=ADA)
        await self.hub.notifications.send(Message(f"Dear {ADA}"), to=Recipient(email=ADA), key=f"link:{reference}")

    async def pay(self, reference: str) -> None:
        self.wallet.pay(reference)
        await self.hub.payments.refresh(reference)

    async def forget(self, reference: str) -> Erasure:
        return await self.run(self.hub.forget(reference, **WHY))

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await it while time passes as far as it must."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.clock.advance(0.25)
        return task.result()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncGenerator[Shop]:
    shop = Shop(tmp_path / "holdfast.db", encryption=KeyRing(KEY))
    async with shop.hub:
        yield shop


# Forgetting.


async def test_nothing_of_the_person_is_found_any_more_and_the_books_stay(shop: Shop) -> None:
    await shop.sell("order-1")
    await shop.pay("order-1")
    await shop.hub.settle()

    erasure = await shop.forget("order-1")

    payment = await shop.hub.payments.get("order-1")
    meeting = await shop.hub.meetings.get("order-1")
    export = await shop.hub.export("order-1")
    assert ADA not in json.dumps(export)
    assert erasure == Erasure(reference="order-1", records=3, dropped=1, pending=0)
    assert (payment.status, payment.due, payment.received) == (PaymentStatus.PAID, *[Money("120.00", "CHF")] * 2)
    assert [attempt.vendor_id for attempt in payment.attempts] == ["fake-payments-1"]
    assert meeting.topic == "Meeting"
    assert meeting.attempts[0].vendor_id


async def test_a_job_that_did_not_run_ends_as_ignored_and_no_handler_sees_it(shop: Shop) -> None:
    await shop.sell("order-1")
    await shop.pay("order-1")

    erasure = await shop.forget("order-1")
    await shop.hub.settle()

    [job] = await shop.hub.store.jobs.list(JobFilter(queue="events"))
    assert shop.confirmed == []
    assert erasure.pending == 1
    assert job.state is JobState.IGNORED
    assert isinstance(job, SealedJob)


async def test_a_dry_run_counts_what_would_be_forgotten_and_forgets_nothing(shop: Shop) -> None:
    await shop.sell("order-1")
    await shop.pay("order-1")
    await shop.hub.settle()
    await shop.sell("order-2")
    await shop.pay("order-2")
    before = await shop.hub.export("order-1")

    done = await shop.run(shop.hub.forget("order-1", **WHY, dry_run=True))
    waits = await shop.run(shop.hub.forget("order-2", **WHY, dry_run=True))

    assert done == Erasure(reference="order-1", records=3, dropped=1, pending=0)
    assert waits == Erasure(reference="order-2", records=3, dropped=0, pending=1)
    assert await shop.hub.export("order-1") | {"at": before["at"]} == before
    assert await AuditLog(shop.hub.store.records).list() == []
    assert done == await shop.forget("order-1")
    assert waits == await shop.forget("order-2")


async def test_others_are_not_touched(shop: Shop) -> None:
    for reference in ("order-1", "order-2"):
        await shop.sell(reference)
        await shop.pay(reference)

    await shop.forget("order-1")
    await shop.hub.settle()

    assert shop.confirmed == ["order-2"]
    assert (await shop.hub.payments.get("order-2")).metadata == {"email": ADA}


async def test_a_copy_of_the_store_is_worth_nothing_without_the_keys_that_are_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "holdfast.db", encryption=KeyRing(KEY), subject_keys=f"sqlite:///{tmp_path}/keys.db")
    async with shop.hub:
        await shop.sell("order-1")
        store = shop.hub.store
        assert isinstance(store, EncryptedStore)
        backup = [await store.inner.records.get(kind, "order-1") for kind in ("payment", "meeting")]
        backup.append(await store.inner.records.get("dispatch", "link:order-1"))
        copies = [record for record in backup if record is not None]
        before = await store.records.opened(copies)

        await shop.forget("order-1")
        after = await store.records.opened(copies)

    assert len(before) == 3
    assert all(ADA in json.dumps(dict(record.value)) for record in before if not isinstance(record, Exception))
    assert [type(problem).__name__ for problem in after] == ["Forgotten"] * 3


async def test_a_message_that_waits_is_not_sent_any_more(shop: Shop) -> None:
    shop.mail.down = True
    queued = await shop.run(
        shop.hub.notifications.send(Message(f"Dear {ADA}"), to=Recipient(email=ADA), key="link:order-1")
    )

    await shop.forget("order-1")
    shop.mail.down = False
    await shop.clock.advance(3600)
    await shop.hub.settle()

    dispatch = await shop.hub.notifications.get("link:order-1")
    assert queued.state is DispatchState.QUEUED
    assert shop.mail.sent == []
    assert (dispatch.state, dispatch.reason) == (DispatchState.FAILED, "forgotten")
    with pytest.raises(ReferenceConflict):
        await shop.hub.notifications.send(Message("Dear Ada"), to=Recipient(email=ADA), key="link:order-1")


async def test_an_open_payment_that_was_forgotten_is_still_found_and_told_of(shop: Shop) -> None:
    await shop.sell("order-1")

    await shop.forget("order-1")
    await shop.pay("order-1")
    await shop.hub.settle()

    payment = await shop.hub.payments.get("order-1")
    assert payment.status is PaymentStatus.PAID
    assert payment.metadata == {}
    assert shop.confirmed == ["order-1"]


async def test_a_change_that_was_read_before_does_not_bring_anything_back(shop: Shop) -> None:
    await shop.sell("order-1")
    store = shop.hub.store
    stale = await store.records.get("payment", "order-1")
    assert stale is not None

    await shop.forget("order-1")

    with pytest.raises(Exception, match="changed meanwhile"):
        await store.records.apply("payment", "order-1", stale.version, Draft(value=stale.value, subject="order-1"))
    assert (await shop.hub.payments.get("order-1")).metadata == {}


async def test_what_was_being_written_when_its_key_was_retired_is_scrubbed_and_not_lost() -> None:
    shop = Shop(None, encryption=KeyRing(KEY))
    async with shop.hub:
        await shop.sell("order-1")
        store = shop.hub.store
        assert isinstance(store, EncryptedStore)
        find, retired = store.subject_keys.for_sealing, await store.subject_keys.for_sealing(["order-1"])

        async def found_before(subjects: Iterable[str]) -> Any:
            return retired if set(subjects) == {"order-1"} else await find(subjects)

        forgetting = asyncio.ensure_future(shop.hub.forget("order-1", **WHY))
        await shop.clock.advance(1)
        now = await find(["order-1"])
        store.subject_keys.for_sealing = found_before  # type: ignore[method-assign]
        await shop.hub.notifications.send(Message(f"Dear {ADA}"), to=Recipient(email=ADA), key="late:order-1")
        store.subject_keys.for_sealing = find  # type: ignore[method-assign]
        erasure = await shop.run(_done(forgetting))
        dispatch = await shop.hub.notifications.get("late:order-1")

    assert now["order-1"][0] > retired["order-1"][0]  # so it was written after the key was retired
    assert erasure.records == 4
    assert dispatch.recipient.on("email") == "forgotten"


async def _done(task: asyncio.Future[T]) -> T:
    return await task


async def test_forgetting_again_forgets_what_came_since(shop: Shop) -> None:
    await shop.sell("order-1")
    await shop.forget("order-1")
    await shop.hub.notifications.send(Message(f"Dear {ADA}"), to=Recipient(email=ADA), key="news:order-1")

    await shop.forget("order-1")

    assert ADA not in json.dumps(await shop.hub.export("order-1"))


async def test_what_a_backup_brought_back_without_its_keys_is_nobodys_and_its_jobs_are_dropped(tmp_path: Path) -> None:
    options: dict[str, Any] = {"encryption": KeyRing(KEY), "subject_keys": f"sqlite:///{tmp_path / 'keys.db'}"}
    before, url = Shop(tmp_path / "holdfast.db", **options), f"sqlite:///{tmp_path / 'holdfast.db'}"
    async with before.hub:
        await before.sell("order-1")
        await before.pay("order-1")
        await before.hub.settle()
        await back_up(url, tmp_path / "backup.zip")
        await before.forget("order-1")
    await restore(tmp_path / "backup.zip", url, replace=True)

    after = Shop(tmp_path / "holdfast.db", **options)
    async with after.hub:
        export = await after.hub.export("order-1")
        erasure = await after.forget("order-1")

        assert await after.hub.queue.list() == []

    assert export["records"] == []
    assert ADA not in json.dumps(export)
    assert erasure == Erasure(reference="order-1", records=0, dropped=1, pending=0)


async def test_what_was_kept_before_encryption_is_forgotten_too(tmp_path: Path) -> None:
    plain = Shop(tmp_path / "holdfast.db")
    async with plain.hub:
        await plain.sell("order-1")
        await plain.pay("order-1")
        job = NewJob(queue=calls.QUEUE, key="invoice/pdf:order-1", kind="invoice", body=ADA.encode())
        await plain.hub.store.jobs.add([job])

    shop = Shop(tmp_path / "holdfast.db", encryption=KeyRing(KEY))
    async with shop.hub:
        erasure = await shop.forget("order-1")
        jobs = await shop.hub.store.jobs.list()
        claimed = await shop.hub.store.jobs.claim(["events", calls.QUEUE], owner="w", limit=9, lease=10)

    assert (erasure.records, erasure.pending) == (3, 2)
    assert all(isinstance(job, SealedJob) for job in jobs)
    assert claimed == []


async def test_it_is_audited_who_forgot_and_why(shop: Shop) -> None:
    await shop.sell("order-1")
    await shop.forget("order-1")

    [entry] = await AuditLog(shop.hub.store.records).list()

    assert (entry.what, entry.by, entry.reason) == ("forget", "grace", "she asked")
    assert entry.facts == {"reference": "order-1", "records": 3, "dropped": 0, "pending": 0}


async def test_without_keys_nothing_can_be_forgotten_and_that_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "holdfast.db")
    async with shop.hub:
        with pytest.raises(ConfigurationError, match="KeyRing"):
            await shop.hub.forget("order-1", **WHY)
        with pytest.raises(ConfigurationError, match="not encrypted"):
            await shop.hub.rotate()


@pytest.mark.parametrize(("reference", "by"), [("", "grace"), ("order-1", " ")])
async def test_who_forgets_says_what_and_who_he_is(shop: Shop, reference: str, by: str) -> None:
    with pytest.raises(InvalidInput):
        await shop.hub.forget(reference, by=by, reason="asked")


async def test_forgetting_interrupted_anywhere_keeps_the_books_and_is_done_by_asking_again() -> None:
    for changes in range(40):
        shop = Shop(None, encryption=KeyRing(KEY))
        async with shop.hub:
            await shop.sell("order-1")
            await shop.pay("order-1")
            store = shop.hub.store
            assert isinstance(store, EncryptedStore)
            interrupted = await _forget_until(shop, store, changes)

            halfway = await shop.hub.payments.get("order-1")
            await shop.forget("order-1")
            export = await shop.hub.export("order-1")
            payment = await shop.hub.payments.get("order-1")

        assert halfway.due == payment.due == Money("120.00", "CHF")
        assert ADA not in json.dumps(export)
        if not interrupted:
            break
    else:
        pytest.fail("it never came to its end")
    assert changes > 10


class Interrupted(Exception):
    """The process ended here."""


async def _forget_until(shop: Shop, store: EncryptedStore, changes: int) -> bool:
    """Forget, and end after so many changes of records; whether that was before the end."""
    apply, left = store.inner.records.apply, [changes]

    async def counted(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        return await apply(*args, **options)

    store.inner.records.apply = counted  # type: ignore[method-assign]
    try:
        await shop.forget("order-1")
    except Interrupted:
        return True
    finally:
        store.inner.records.apply = apply  # type: ignore[method-assign]
    return False


# Giving out.


async def test_all_that_is_stored_about_somebody_is_given_out(shop: Shop) -> None:
    for reference in ("order-1", "order-2"):
        await shop.sell(reference)
        await shop.pay(reference)
    await shop.hub.settle()

    export = await shop.hub.export("order-1")

    text = json.dumps(export)
    records: Any = export["records"]
    jobs: Any = export["jobs"]
    assert [record["kind"] for record in records] == ["payment", "meeting", "dispatch"]
    assert records[0]["value"]["metadata"] == {"email": ADA}
    assert records[2]["value"]["recipient"]["addresses"][0]["value"] == ADA
    assert [job["body"]["reference"] for job in jobs] == ["order-1"]
    assert export["handled"] == [
        {"event": jobs[0]["body"]["id"], "handler": "confirm", "generation": 0},
    ]
    assert "order-2" not in text


async def test_who_gives_it_out_is_written_down_where_he_says_so(shop: Shop) -> None:
    await shop.sell("order-1")

    plain = await shop.hub.export("order-1")
    assert await AuditLog(shop.hub.store.records).list() == []

    assert await shop.hub.export("order-1", **WHY) == plain
    [entry] = await AuditLog(shop.hub.store.records).list()
    assert (entry.what, entry.by, entry.reason) == ("export", "grace", "she asked")
    assert entry.facts == {"reference": "order-1", "records": 3, "jobs": 0}
    with pytest.raises(InvalidInput):
        await shop.hub.export("order-1", by="grace")


async def test_no_secret_is_given_out(shop: Shop) -> None:
    await shop.hub.payments.create(
        "order-1", Money("1.00", "CHF"), metadata={"note": "a secret of the shop's own", "key": KEY}
    )

    text = json.dumps(await shop.hub.export("order-1"))

    assert "a secret of the shop's own" not in text
    assert KEY not in text


async def test_what_is_given_out_needs_no_encryption(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "holdfast.db")
    async with shop.hub:
        await shop.sell("order-1")
        await shop.pay("order-1")

        export = await shop.hub.export("order-1")
        with pytest.raises(InvalidInput):
            await shop.hub.export("")

    assert [len(value) for value in export.values() if isinstance(value, list)] == [3, 1, 0]


# Whose a delivery is.


class Door:
    """A hub with two vendors in memory: one signs, one does not and gets a URL for each attempt."""

    def __init__(self, provider: str) -> None:
        self.clock = ManualClock()
        common: dict[str, Any] = {"ledger": Ledger(self.clock), "faults": Faults(0), "clock": self.clock}
        self.sbp = SwissBitcoinPaySimulator(**common, webhook_secret="the secret of sbp")
        self.lnbits = LNbitsSimulator(**common)
        self.vendors: dict[str, Simulator] = {"swiss-bitcoin-pay": self.sbp, "lnbits": self.lnbits}
        credentials = self.lnbits.credentials
        providers: dict[str, PaymentProvider] = {
            "swiss-bitcoin-pay": SwissBitcoinPay(
                api_key=Secret(self.sbp.api_key),
                webhook_secret=Secrets("the secret of sbp"),
                base_url="http://127.0.0.1:1",
            ),
            "lnbits": LNbits(base_url="http://127.0.0.1:2", invoice_key=Secret(credentials["invoice_key"])),
        }
        self.hub = Holdfast(
            store="memory://",
            secret=Secrets("hub-secret"),
            public_url="https://shop.example/webhooks",
            payments=[providers[provider]],
            clock=self.clock,
            encryption=KeyRing(KEY),
            transport=lambda vendor: InProcess(self.vendors[vendor.name]),
        )

    async def post(self, url: str, headers: Headers, body: bytes) -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        path = url.removeprefix("https://shop.example/webhooks")
        await self.hub.receiver({"type": "http", "method": "POST", "path": path, "headers": pairs}, receive, send)
        return statuses[0]

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.clock.advance(0.25)
        return task.result()


@pytest.mark.parametrize("provider", ["swiss-bitcoin-pay", "lnbits"])
async def test_a_delivery_is_forgotten_with_the_payment_it_is_about(provider: str) -> None:
    door = Door(provider)
    async with door.hub:
        payment = await door.run(door.hub.payments.create("order-1", Money("120.00", "CHF")))
        [attempt] = payment.attempts
        door.vendors[provider].pay(attempt.vendor_id)
        post = WebhookSimulator(list(door.vendors.values()), door.post, clock=door.clock)
        await door.run(post.deliver())
        store = door.hub.store
        assert isinstance(store, EncryptedStore)
        resting = await store.inner.jobs.list(JobFilter(queue=inbox.QUEUE))

        erasure = await door.run(door.hub.forget("order-1", **WHY))
        jobs = await store.jobs.list(JobFilter(queue=inbox.QUEUE))
        export = await door.hub.export("order-1")

    assert resting
    assert all(subject_of(job) for job in resting)
    assert erasure.pending == len(resting)
    assert all(isinstance(job, SealedJob) for job in jobs)
    told: Any = export["jobs"]
    assert all("unreadable" in job["body"] for job in told)


async def test_a_delivery_that_names_no_reference_is_found_through_the_payment(shop: Shop) -> None:
    await shop.sell("order-1")
    [attempt] = (await shop.hub.payments.get("order-1")).attempts
    request = RawRequest(method="POST", url="", headers=[], body=ADA.encode(), received_at=shop.clock.now())
    deliveries = {
        "by attempt": (Delivery(type="paid", dedup_key="1"), attempt.id),
        "by vendor's id": (Delivery(type="paid", dedup_key="2", vendor_id=attempt.vendor_id), ""),
        "of another": (Delivery(type="paid", dedup_key="3", vendor_id="another"), ""),
    }
    await shop.hub.store.jobs.add(
        [
            inbox.to_job("fake-payments", delivery, request, attempt_id=attempt_id)
            for delivery, attempt_id in deliveries.values()
        ]
    )

    before = await shop.hub.export("order-1")
    erasure = await shop.forget("order-1")
    left = [job.key for job in await shop.hub.store.jobs.list() if not isinstance(job, SealedJob)]

    found: Any = before["jobs"]
    assert [job["body"] for job in found] == [ADA, ADA]
    assert erasure.pending == 2
    assert left == ["fake-payments/3"]


def _delivery(**headers: str) -> Job:
    now = ManualClock().now()
    return Job(
        id="1",
        queue=inbox.QUEUE,
        key="k",
        kind="stripe",
        handler="",
        body=b"",
        headers={"type": "", "vendor_id": "", "attempt_id": "", "reference": ""} | headers,
        ordering_key="",
        state=JobState.READY,
        token=0,
        attempts=0,
        losses=0,
        generation=0,
        arrivals=1,
        conflicts=0,
        created_at=now,
        due_at=now,
        error="",
        reason="",
    )


@pytest.mark.parametrize(
    ("headers", "subject"),
    [
        ({"reference": "order-1", "attempt_id": "a", "vendor_id": "v"}, "order-1"),
        ({"attempt_id": "a", "vendor_id": "v"}, "stripe/a"),
        ({"vendor_id": "v"}, "stripe/v"),
        ({}, ""),
    ],
)
def test_a_delivery_is_about_its_reference_else_its_attempt_else_the_vendors_object(
    headers: dict[str, str], subject: str
) -> None:
    assert of_job(_delivery(**headers)) == subject


@pytest.mark.parametrize(
    ("key", "reference"), [("link:order-1", "order-1"), ("order-1", "order-1"), ("a:b:c", "b:c"), ("link:", "link:")]
)
def test_a_key_names_its_reference_behind_the_colon(key: str, reference: str) -> None:
    assert of_key(key) == reference


# Setting up.


async def test_a_rotation_puts_what_was_plain_under_its_subjects_key(tmp_path: Path) -> None:
    plain = Shop(tmp_path / "holdfast.db")
    async with plain.hub:
        await plain.sell("order-1")
        await plain.pay("order-1")

    shop = Shop(tmp_path / "holdfast.db", encryption=KeyRing(NEWER, KEY))
    async with shop.hub:
        done = await shop.run(shop.hub.rotate())
        store = shop.hub.store
        assert isinstance(store, EncryptedStore)
        jobs = await store.inner.jobs.list()
        records = [await store.inner.records.list(kind) for kind in ("payment", "meeting", "dispatch")]
        await shop.hub.settle()

    resting: list[Job | Record] = [*jobs, *(record for page in records for record in page)]
    assert done.complete
    assert {subject_of(row) for row in resting} == {"order-1"}
    assert {key_id_of(row) for row in resting} == {""}
    assert shop.confirmed == ["order-1"]


def test_keys_of_subjects_must_outlive_the_process_as_the_store_does(tmp_path: Path) -> None:
    with pytest.raises(InsecureSetup, match="subject_keys"):
        Shop(tmp_path / "holdfast.db", encryption=KeyRing(KEY), subject_keys="memory://")
    with pytest.raises(ConfigurationError, match="encryption="):
        Shop(tmp_path / "holdfast.db", subject_keys=open_store("memory://"))
