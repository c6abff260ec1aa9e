"""The door in a flood: nobody's flood closes it for vendors that sign, and memory stays bounded."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from hmac import digest
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import Holdfast, Secrets
from holdfast.errors import ConfigurationError
from holdfast.queue.backlog import Backlog, BacklogLimits
from holdfast.queue.intake import MOST_ADDRESSES, Intake, Meter, ReceiverLimits
from holdfast.queue.patience import Patience
from holdfast.queue.signals import BacklogHigh
from holdfast.stores.store import JobState
from holdfast.telemetry import DeliveryArrived, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.values import Secret
from holdfast.webhooks.signatures import sign_path
from tests.payments.vendors import SigningVendor, UnsignedVendor

HUB = "the-hubs-own-secret"
UNSIGNED = sign_path(Secret(HUB), "unsigned", "attempt-1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Door:
    """The receiver as a server calls it, with time in our hands."""

    def __init__(self, clock: ManualClock, limits: ReceiverLimits) -> None:
        self.signals: list[Signal] = []
        self.vendors = [SigningVendor(name="signed"), SigningVendor(name="other"), UnsignedVendor(name="unsigned")]
        self.hub = Holdfast(
            store="memory://",
            secret=Secrets(HUB),
            payments=self.vendors,
            receiver=limits,
            clock=clock,
            telemetry=Telemetry([self.signals.append]),
        )

    async def post(
        self,
        path: str,
        body: bytes = b"object",
        *,
        client: str = "192.0.2.1",
        receive: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        secret: bytes = b"webhook-secret",
    ) -> tuple[int, dict[bytes, bytes]]:
        sent: list[Any] = []

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-signature", digest(secret, body, "sha256").hex().encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": (client, 1)}
        await self.hub.receiver(scope, receive or whole, send)
        return sent[0]["status"], dict(sent[0]["headers"])

    async def statuses(self, path: str, times: int, **more: Any) -> list[int]:
        return [(await self.post(path, **more))[0] for _ in range(times)]

    @property
    def reasons(self) -> set[str]:
        return {signal.reason for signal in self.signals if isinstance(signal, DeliveryArrived)} - {""}


# A second.


async def test_a_flood_at_an_unsigned_door_leaves_room_for_vendors_that_sign(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(rate=100, address=1000))
    async with door.hub:
        flood = await door.statuses(UNSIGNED, 200)
        signed = await door.statuses("/signed", 20)

    assert (flood.count(200), flood.count(503)) == (80, 120)
    assert signed == [200] * 20
    assert door.reasons == {"rate"}


async def test_a_flood_at_one_signed_door_leaves_room_for_the_others(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(rate=100))
    async with door.hub:
        flood = await door.statuses("/signed", 200, secret=b"of somebody else")
        other = await door.statuses("/other", 20)

    assert (flood.count(401), flood.count(503)) == (80, 120)
    assert other == [200] * 20


async def test_one_client_of_an_unsigned_door_leaves_room_for_the_others(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(address=10))
    async with door.hub:
        flood = await door.statuses(UNSIGNED, 30)
        others = [(await door.post(UNSIGNED, client=f"192.0.2.{number}"))[0] for number in range(2, 10)]

    assert flood.count(200) == 10
    assert others == [200] * 8


async def test_one_who_owns_an_ipv6_network_is_one_client(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(address=5))
    async with door.hub:
        same = [(await door.post(UNSIGNED, client=f"2001:db8::{number:x}"))[0] for number in range(1, 10)]
        other = await door.post(UNSIGNED, client="2001:db8:1::1")
        mapped = [(await door.post(UNSIGNED, client=f"::ffff:192.0.2.{number}"))[0] for number in range(1, 10)]
        strange = await door.post(UNSIGNED, client="fe80::zz%1")

    assert same.count(200) == 5
    assert other[0] == strange[0] == 200
    assert mapped == [200] * 9


async def test_who_does_not_know_the_url_takes_nothing_from_who_does(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(rate=10, address=10))

    async def never() -> dict[str, Any]:
        raise AssertionError("a stranger's body was read")

    async with door.hub:
        strangers = await door.statuses(f"/unsigned/attempt-1.{'0' * 32}", 100, receive=never)
        known = await door.statuses(UNSIGNED, 8)

    assert strangers == [404] * 100
    assert known == [200] * 8


async def test_the_vendor_is_told_when_there_is_room_again(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(rate=0.01))
    async with door.hub:
        await door.post("/signed")
        status, headers = await door.post("/signed")
        await clock.advance(float(headers[b"retry-after"]))
        again, _ = await door.post("/signed")

    assert (status, again) == (503, 200)
    assert int(headers[b"retry-after"]) > 100


async def test_a_rate_is_what_it_says_over_time(clock: ManualClock) -> None:
    meter = Meter(10)

    taken = sum(meter.take(0.001 * tick) == 0.0 for tick in range(10_000))

    assert taken == pytest.approx(10 + 10 * 10, abs=1)


def test_so_many_addresses_are_remembered() -> None:
    intake = Intake(ReceiverLimits())
    first = intake.address("first")
    for number in range(MOST_ADDRESSES - 1):
        intake.address(f"10.{number}")

    assert intake.address("first") is first
    intake.address("one more")
    assert intake.address("first") is first
    assert len(intake._addresses) == MOST_ADDRESSES  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("limit", ["rate", "address", "memory", "reading", "max_body"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    with pytest.raises(ConfigurationError):
        ReceiverLimits(**{limit: 0})


# Memory, and bodies that do not come.


async def test_bodies_in_memory_are_bounded_and_a_part_is_kept_for_vendors_that_sign(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(clock, ReceiverLimits(memory=100))
    storing: list[asyncio.Future[None]] = []

    async def slow(jobs: Any) -> Any:
        storing.append(asyncio.get_running_loop().create_future())
        await storing[-1]
        return []

    async with door.hub:
        monkeypatch.setattr(door.hub.store.jobs, "add", slow)
        async with asyncio.TaskGroup() as group:
            for size in (40, 40):
                group.create_task(door.post(UNSIGNED, b"x" * size))
            await clock.advance(0)
            refused, _ = await door.post(UNSIGNED, b"x" * 10)
            signed = group.create_task(door.post("/signed", b"x" * 20))
            await clock.advance(0)
            full, _ = await door.post("/other", b"x")
            for future in storing:
                future.set_result(None)
        monkeypatch.undo()
        after = await door.statuses(UNSIGNED, 1, body=b"x" * 80)

    assert (refused, full, signed.result()[0], after) == (503, 503, 200, [200])
    assert door.reasons == {"memory"}


async def test_of_too_many_bodies_that_do_not_come_the_slowest_gives_way(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits(reading=3))

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async with door.hub:
        lorises = [asyncio.ensure_future(door.post("/signed", receive=never)) for _ in range(5)]
        await clock.advance(0)
        vendor = await door.post("/signed")
        await clock.advance(0)
        given_up = [loris.done() for loris in lorises]
        await clock.advance(10)
        ended = [(await loris)[0] for loris in lorises]

    assert vendor[0] == 200
    assert given_up == [True, True, True, False, False]
    assert ended == [503] * 5


async def test_a_vendor_that_hangs_up_left_nothing(clock: ManualClock) -> None:
    door = Door(clock, ReceiverLimits())
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]

    async def half() -> dict[str, Any]:
        return messages.pop(0)

    async with door.hub:
        assert (await door.post("/signed", receive=half))[0] == 503

    assert door.reasons == {"hung_up"}


async def test_patience_ends_only_its_own_wait(clock: ManualClock) -> None:
    patience = Patience(1.0, clock)

    async def wait() -> str:
        try:
            with patience.limit():
                await clock.sleep(5)
        except TimeoutError:
            await clock.sleep(0.1)  # it goes on afterwards
            return "too long"
        return "done"

    waiting, cancelled = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
    await clock.advance(0.5)
    cancelled.cancel()
    await clock.advance(0.7)

    assert waiting.result() == "too long"
    assert cancelled.cancelled()
    assert len(patience) == 0


async def test_who_is_cancelled_while_time_is_up_stays_cancelled(clock: ManualClock) -> None:
    patience = Patience(1.0, clock)

    async def wait() -> None:
        with patience.limit():
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await clock.advance(0.5)
    waiting.cancel()
    patience.give_up_oldest()
    await clock.advance(0)

    assert waiting.cancelled()


# What waits.


class Store:
    """So many jobs wait, in a file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.waiting = 0

    async def count(self) -> dict[tuple[str, JobState], int]:
        return {("deliveries", JobState.READY): self.waiting, ("deliveries", JobState.DONE): 10_000_000}


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store(str(tmp_path / "holdfast.db"))


def backlog(store: Store, clock: ManualClock, signals: list[Signal], **limits: int) -> Backlog:
    return Backlog(
        lambda: store,  # type: ignore[arg-type, return-value]
        asyncio.ensure_future,
        limits=BacklogLimits(**limits),
        clock=clock,
        telemetry=Telemetry([signals.append]),
        store=store,
    )


async def looked(backlog: Backlog, clock: ManualClock) -> tuple[str, str]:
    """What it refuses signed and unsigned vendors for, once it has counted."""
    await clock.advance(2)
    backlog.refuses(signed=True)
    await clock.advance(0)
    return backlog.refuses(signed=True), backlog.refuses(signed=False)


async def test_a_fifth_of_the_backlog_is_kept_for_vendors_that_sign(clock: ManualClock, store: Store) -> None:
    signals: list[Signal] = []
    waits = backlog(store, clock, signals, soft=50, hard=100)
    found = []
    for store.waiting in (79, 80, 100, 10):
        found.append(await looked(waits, clock))

    assert found == [("", ""), ("", "backlog"), ("backlog", "backlog"), ("", "")]
    assert signals == [BacklogHigh(79, "high", "backlog"), BacklogHigh(100, "refusing", "backlog")]


async def test_a_few_large_bodies_are_too_much_too(clock: ManualClock, store: Store) -> None:
    signals: list[Signal] = []
    waits = backlog(store, clock, signals, bytes=1000)
    waits.took(4, 400)
    store.waiting = 9
    before = await looked(waits, clock)
    waits.took(50, 10_000)
    after = await looked(waits, clock)

    assert (before, after) == (("", "bytes"), ("bytes", "bytes"))
    assert signals == [BacklogHigh(9, "refusing", "bytes")]


@pytest.mark.parametrize(
    ("blocks", "free", "refused"),
    [
        (100_000, 4_999, "disk"),  # of 400 MB a twentieth
        (100_000, 5_001, ""),
        (10_000_000, 65_535, "disk"),  # of 40 GB 256 MiB
        (10_000_000, 65_537, ""),
    ],
)
async def test_on_a_full_disk_nothing_is_taken_while_there_is_room_to_finish(
    clock: ManualClock, store: Store, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, refused: str
) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=4096, f_blocks=blocks)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)

    assert await looked(backlog(store, clock, []), clock) == (refused, refused)


async def test_a_disk_that_says_nothing_closes_no_door(clock: ManualClock, store: Store) -> None:
    store.path = "/nowhere/at/all/holdfast.db"

    assert await looked(backlog(store, clock, []), clock) == ("", "")


async def test_the_disk_of_a_sqlite_file_is_looked_at(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=1000))
    hub = Holdfast(store=f"sqlite:///{tmp_path}/holdfast.db", payments=[SigningVendor(name="signed")], clock=clock)
    door = Door(clock, ReceiverLimits())
    door.hub = hub
    async with hub:
        await door.post("/signed", b"1")
        while not (counted := hub.receiver.quarantine.counts):
            await asyncio.sleep(0)
            await clock.advance(1)
            await door.post("/signed", b"1")

    assert set(counted) == {("signed", "disk")}
