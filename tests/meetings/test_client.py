"""Meetings over a real store and vendors that fail in every way."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    Exhausted,
    InvalidInput,
    InvalidReference,
    NaiveDatetime,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Refused,
    Rejected,
)
from holdfast.meetings.client import Meetings
from holdfast.meetings.models import Feature, Meeting, MeetingStatus, TryState
from holdfast.meetings.record import token
from holdfast.queue.inbox import Arrived
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Secret, Secrets
from tests.meetings.vendors import LocalVendor, Vendor

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
HALF_AN_HOUR = timedelta(minutes=30)
LOST = OutcomeUnknown("connection reset", hard=True)


def failing(error: CallFailed) -> Callable[[], Awaitable[object]]:
    async def fail() -> None:
        raise error

    return fail


class Practice:
    """Meetings over some vendors, on one store and one clock."""

    def __init__(
        self,
        *vendors: Vendor | LocalVendor,
        clock: ManualClock | None = None,
        deadline: float = 1.5,
    ) -> None:
        self.clock = clock or ManualClock()
        self.store = open_store("memory://", clock=self.clock)
        self.runtime = Runtime(self.store, secret=Secrets("hub-secret"), clock=self.clock)
        self.meetings = Meetings(vendors, runtime=self.runtime, deadline=deadline)

    async def __aenter__(self) -> Meetings:
        return await self.meetings.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.meetings.__aexit__(None, None, None)


async def book(meetings: Meetings, reference: object = "booking-1", **wishes: object) -> Meeting:
    facts: dict[str, object] = {"starts_at": START, "duration": HALF_AN_HOUR}
    return await meetings.create(reference, **facts | wishes)  # type: ignore[arg-type]  # create's own arguments


async def test_a_meeting_is_made_once_however_often_it_is_asked_for() -> None:
    vendor = Vendor()
    async with Practice(vendor) as meetings:
        first = await book(meetings)
        second = await book(meetings)

    assert first == second
    assert first.join_url == "https://vendor.example/vendor-1"
    assert len(vendor.requests) == 1


async def test_two_calls_at_once_make_one_meeting() -> None:
    clock = ManualClock()
    vendor = Vendor(before=lambda: clock.sleep(0.3))
    async with Practice(vendor, LocalVendor(), clock=clock) as meetings, asyncio.TaskGroup() as group:
        both = [group.create_task(book(meetings)) for _ in range(2)]
        await clock.advance(0.5)

    assert both[0].result() == both[1].result()
    assert len(vendor.requests) == 1


async def test_the_attempt_is_on_record_before_the_first_byte() -> None:
    practice = Practice(vendor := Vendor())
    seen: list[object] = []

    async def look() -> None:
        attempt = (await practice.meetings.get("booking-1")).attempts[0]
        seen.extend((attempt.state, attempt.token == vendor.requests[0].token))

    vendor.before = look
    async with practice as meetings:
        await book(meetings)

    assert seen == [TryState.SENDING, True]


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"starts_at": datetime(2026, 3, 2, 12)}, NaiveDatetime),
        ({"duration": timedelta(seconds=59)}, InvalidInput),
        ({"duration": timedelta(hours=24, seconds=1)}, InvalidInput),
        ({"topic": " "}, InvalidInput),
        ({"topic": "x" * 201}, InvalidInput),
        ({"reference": "no spaces"}, InvalidReference),
        ({"require": {Feature.CLOUD_RECORDING}}, ConfigurationError),
    ],
)
async def test_what_cannot_be_right_is_refused_before_anything_is_sent(
    wishes: dict[str, object], error: type[Exception]
) -> None:
    vendor = Vendor()
    async with Practice(vendor) as meetings:
        with pytest.raises(error):
            await book(meetings, **wishes)

    assert vendor.requests == []


async def test_a_start_in_any_zone_is_the_same_instant() -> None:
    async with Practice(vendor := Vendor()) as meetings:
        meeting = await book(meetings, starts_at=START.astimezone(ZoneInfo("Europe/Zurich")))
        same = await book(meetings)

    assert (meeting.starts_at, meeting.time_zone) == (START, "Europe/Zurich")
    assert meeting.ends_at == START + HALF_AN_HOUR
    assert vendor.requests[0].time_zone == "Europe/Zurich"
    assert same == meeting


@pytest.mark.parametrize(
    "other", [{"starts_at": START + HALF_AN_HOUR}, {"duration": timedelta(hours=1)}, {"host": "ada@example.org"}]
)
async def test_the_same_reference_for_another_meeting_is_refused(other: dict[str, object]) -> None:
    async with Practice(vendor := Vendor()) as meetings:
        await book(meetings)
        with pytest.raises(ReferenceConflict):
            await book(meetings, **other)

    assert len(vendor.requests) == 1


@pytest.mark.parametrize("error", [NotSent("refused", hard=True), Refused("quota", status=429, reason="host_quota")])
async def test_a_vendor_that_provably_made_nothing_is_followed_by_the_next(error: CallFailed) -> None:
    async with Practice(Vendor(before=failing(error)), LocalVendor()) as meetings:
        meeting = await book(meetings)

    assert meeting.provider == "local"
    assert meeting.route == ("vendor:failed", "local:made")


async def test_a_vendor_that_hangs_leaves_time_for_the_next() -> None:
    clock = ManualClock()
    first, second = (Vendor(name=name, before=lambda: clock.sleep(60)) for name in ("first", "second"))
    async with Practice(first, second, LocalVendor(), clock=clock) as meetings, asyncio.TaskGroup() as group:
        booking = group.create_task(book(meetings))
        await clock.advance(1.5)
        assert booking.done()

    meeting = booking.result()
    assert meeting.provider == "local"
    assert [attempt.state for attempt in meeting.attempts] == [TryState.UNKNOWN, TryState.UNKNOWN, TryState.MADE]


async def test_a_lost_answer_is_searched_for_and_adopted() -> None:
    vendor = Vendor(after=failing(LOST))
    async with Practice(vendor, LocalVendor()) as meetings:
        meeting = await book(meetings)

    assert (meeting.provider, meeting.vendor_id) == ("vendor", "vendor-1")
    assert vendor.finds == 1


async def test_an_orphan_is_found_and_deleted_by_the_sweep_and_never_the_current_meeting() -> None:
    clock = ManualClock()
    vendor = Vendor(after=failing(LOST), looking=failing(LOST))
    async with Practice(vendor, LocalVendor(), clock=clock) as meetings:
        meeting = await book(meetings)
        assert (meeting.provider, len(vendor.live)) == ("local", 1)
        vendor.looking = Vendor().looking

        await clock.advance(29)
        assert await meetings.sweep() == 0
        await clock.advance(1)
        assert await meetings.sweep() == 1
        swept = await meetings.get("booking-1")
        assert await meetings.sweep() == 0

    assert vendor.deleted == ["vendor-1"]
    assert swept.join_url == meeting.join_url
    assert swept.attempts[0].state is TryState.DELETED


async def test_an_orphan_that_cannot_be_deleted_now_is_deleted_later() -> None:
    clock = ManualClock()
    vendor = Vendor(after=failing(LOST), looking=failing(LOST), deleting=failing(LOST))
    async with Practice(vendor, LocalVendor(), clock=clock) as meetings:
        await book(meetings)
        vendor.looking = Vendor().looking
        await clock.advance(30)
        await meetings.tend("booking-1")
        vendor.deleting = Vendor().deleting
        await clock.advance(30)
        await meetings.tend("booking-1")

    assert vendor.live == {}


async def test_an_answer_that_comes_after_another_vendor_won_is_swept() -> None:
    clock = ManualClock()
    slow = Vendor(before=lambda: clock.sleep(3))
    practice = Practice(slow, clock=clock, deadline=10)
    hurried = Meetings([LocalVendor()], runtime=practice.runtime)
    async with practice as first, asyncio.TaskGroup() as group:
        late = group.create_task(book(first))
        await clock.advance(1)
        hurry = group.create_task(book(hurried))
        await clock.advance(1.8)
        assert hurry.done()
        await clock.advance(1)
        meeting = await late
        await first.tend("booking-1")

    assert meeting.provider == hurry.result().provider == "local"
    assert slow.deleted == ["vendor-1"]


async def test_after_a_crash_the_next_call_goes_on_where_the_first_stopped() -> None:
    clock = ManualClock()
    vendor = Vendor(after=lambda: clock.sleep(60))
    async with Practice(vendor, clock=clock) as meetings, asyncio.TaskGroup() as group:
        killed = group.create_task(book(meetings))
        await clock.advance(0.1)
        killed.cancel()
        await clock.advance(0.1)
        again = group.create_task(book(meetings))
        await clock.advance(5)

    assert again.result().vendor_id == "vendor-1"
    assert len(vendor.requests) == 1


async def test_an_unknown_outcome_without_another_vendor_is_said_and_found_out() -> None:
    clock = ManualClock()
    vendor = Vendor(after=failing(LOST), looking=failing(LOST))
    async with Practice(vendor, clock=clock) as meetings:
        with pytest.raises(OutcomeUnknown):
            await book(meetings)
        with pytest.raises(OutcomeUnknown, match="being found out"):
            await book(meetings)
        assert (await meetings.get("booking-1")).status is MeetingStatus.UNKNOWN
        vendor.looking = Vendor().looking
        await clock.advance(30)
        await meetings.sweep()
        meeting = await book(meetings)

    assert meeting.vendor_id == "vendor-1"
    assert len(vendor.requests) == 1


async def test_two_failures_are_one_error_with_both() -> None:
    first = Vendor(name="first", before=failing(NotSent("refused", provider="first")))
    second = Vendor(name="second", before=failing(Refused("quota", provider="second")))
    async with Practice(first, second) as meetings:
        with pytest.raises(Exhausted) as caught:
            await book(meetings)
        assert (await meetings.get("booking-1")).status is MeetingStatus.FAILED
        second.before = Vendor().before
        meeting = await book(meetings)

    assert [failure.provider for failure in caught.value.failures] == ["first", "second"]
    assert meeting.provider == "second"


async def test_what_every_vendor_would_refuse_is_not_asked_elsewhere() -> None:
    local = LocalVendor()
    async with Practice(Vendor(before=failing(Rejected("wrong topic", code="300"))), local) as meetings:
        with pytest.raises(Rejected, match="wrong topic"):
            await book(meetings)


async def test_what_is_required_passes_vendors_over_and_what_is_preferred_is_told() -> None:
    zoom = Vendor(name="zoom", before=failing(NotSent("down")))
    async with Practice(LocalVendor(), zoom) as meetings:
        preferred = await book(meetings, "booking-1", prefer={Feature.WAITING_ROOM})
        assert preferred.provider == "local"
        assert preferred.degraded == {Feature.WAITING_ROOM}
        with pytest.raises(NotSent):
            await book(meetings, "booking-2", require={Feature.WAITING_ROOM})

    assert zoom.requests[0].features == {Feature.WAITING_ROOM}


async def test_a_canceled_meeting_is_deleted_and_cannot_be_made_again() -> None:
    async with Practice(vendor := Vendor()) as meetings:
        await book(meetings)
        canceled = await meetings.cancel("booking-1")
        assert await meetings.cancel("booking-1") == canceled
        with pytest.raises(ReferenceConflict):
            await book(meetings)
        with pytest.raises(NotFound):
            await meetings.host_url("booking-1")

    assert canceled.status is MeetingStatus.CANCELED
    assert vendor.deleted == ["vendor-1"]


async def test_canceling_while_the_vendor_is_down_succeeds_and_is_done_by_the_sweep() -> None:
    clock = ManualClock()
    vendor = Vendor(deleting=failing(LOST))
    async with Practice(vendor, clock=clock) as meetings:
        await book(meetings)
        assert (await meetings.cancel("booking-1")).status is MeetingStatus.CANCELED
        vendor.deleting = Vendor().deleting
        await clock.advance(30)
        await meetings.sweep()

    assert vendor.live == {}


async def test_a_local_meeting_is_canceled_without_a_call() -> None:
    async with Practice(LocalVendor()) as meetings:
        await book(meetings)
        canceled = await meetings.cancel("booking-1")
        assert await meetings.sweep() == 0

    assert canceled.attempts[0].state is TryState.DELETED


async def test_the_hosts_link_is_fetched_when_asked_for_and_never_stored() -> None:
    practice = Practice(Vendor())
    async with practice as meetings:
        await book(meetings)
        url = await meetings.host_url("booking-1")
        stored = await practice.store.records.get("meeting", "booking-1")

    assert url.reveal() == "https://vendor.example/vendor-1?host=yes"
    assert "host=yes" not in repr((url, stored))


async def test_a_local_vendor_signs_the_hosts_link_for_the_meetings_own_time() -> None:
    async with Practice(LocalVendor()) as meetings:
        await book(meetings)
        assert (await meetings.host_url("booking-1")).reveal().endswith("?until=1230")


async def test_a_delivery_is_ours_when_it_names_one_of_our_meetings() -> None:
    def delivery(vendor_id: str) -> Arrived:
        return Arrived(
            id="1",
            provider="vendor",
            type="meeting.started",
            vendor_id=vendor_id,
            attempt_id="",
            reference="",
            recognised=True,
            body=b"",
            facts={},
            attempts=0,
        )

    async with Practice(Vendor()) as meetings:
        await book(meetings)
        assert [await meetings.arrived(delivery(name)) for name in ("vendor-1", "vendor-2", "")] == [True, False, False]


async def test_an_orphan_of_a_vendor_that_left_the_configuration_waits_for_it() -> None:
    clock = ManualClock()
    vendor = Vendor(after=failing(LOST), looking=failing(LOST))
    practice = Practice(vendor, LocalVendor(), clock=clock)
    without = Meetings([LocalVendor()], runtime=practice.runtime)
    async with practice as meetings:
        await book(meetings)
        vendor.looking = Vendor().looking
        await clock.advance(30)
        assert await without.sweep() == 1
        assert len(vendor.live) == 1
        await clock.advance(30)
        await meetings.sweep()

    assert vendor.live == {}


async def test_once_the_deadline_is_over_only_what_needs_no_call_is_asked() -> None:
    vendor = Vendor()
    async with Practice(vendor, deadline=0) as meetings:
        with pytest.raises(NotSent, match="deadline"):
            await book(meetings)
        with pytest.raises(NotFound):
            await meetings.get("booking-1")
    async with Practice(vendor, LocalVendor(), deadline=0) as meetings:
        assert (await book(meetings)).provider == "local"

    assert vendor.requests == []


@pytest.mark.parametrize("vendor", [Vendor(), LocalVendor()])
async def test_of_two_calls_that_see_nothing_yet_one_begins_and_both_get_its_meeting(
    vendor: Vendor | LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    practice = Practice(vendor)
    records = practice.store.records
    apply = records.apply
    rivals: list[Meeting] = []

    async def overtaken(*arguments: object, **options: object) -> object:
        if not rivals:
            monkeypatch.setattr(records, "apply", apply)
            rivals.append(await book(practice.meetings))
        return await apply(*arguments, **options)  # type: ignore[arg-type]  # passed on as they came

    async with practice as meetings:
        monkeypatch.setattr(records, "apply", overtaken)
        meeting = await book(meetings)

    assert [meeting] == rivals
    assert len(meeting.attempts) == 1


async def test_a_meeting_at_a_vendor_that_left_the_configuration_says_so_and_is_canceled_later() -> None:
    clock = ManualClock()
    vendor = Vendor()
    practice = Practice(vendor, clock=clock)
    without = Meetings([LocalVendor()], runtime=practice.runtime)
    async with practice as meetings:
        await book(meetings)
        with pytest.raises(ConfigurationError, match="vendor"):
            await without.host_url("booking-1")
        await without.cancel("booking-1")
        assert len(vendor.live) == 1
        await clock.advance(30)
        await meetings.sweep()

    assert vendor.live == {}


async def test_a_meeting_nobody_made_is_not_found() -> None:
    async with Practice(Vendor()) as meetings:
        for ask in (meetings.get, meetings.cancel, meetings.tend, meetings.host_url):
            with pytest.raises(NotFound):
                await ask("booking-1")


def test_two_vendors_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="share a name"):
        Meetings([Vendor(), Vendor()])


async def test_meetings_without_a_store_say_so() -> None:
    with pytest.raises(ConfigurationError, match="store="):
        await book(Meetings([Vendor()]))


def test_a_token_is_keyed_and_each_attempts_own() -> None:
    tokens = {
        token(Secret(key), reference, provider, number)
        for key in ("a", "b")
        for reference in ("booking-1", "booking-2")
        for provider in ("zoom", "jaas")
        for number in (1, 2)
    }

    assert len(tokens) == 16
    assert {len(each) for each in tokens} == {26}
    assert set("".join(tokens)) <= set("0123456789abcdefghijklmnopqrstuv")
