"""Meetings over routes and switches: who is asked, why, and what stays as safe as it was."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.errors import InvalidInput, NotSent, OutcomeUnknown, ReferenceConflict
from holdfast.meetings.client import Meetings
from holdfast.meetings.models import Feature, Meeting, MeetingStatus, TryState
from holdfast.meetings.record import encode
from holdfast.routing import ByRule, Fastest, Healthiest, Route, Rule, Weighted
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Secrets
from tests.meetings.vendors import LocalVendor, Vendor

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
SAID: dict[str, Any] = {"actor": "ada", "reason": "their incident"}
IN_SWITZERLAND = ByRule([Rule(["swiss"], regions=frozenset({"CH"}))])


class Practice:
    """Meetings over some vendors and a route, on one store and one clock."""

    def __init__(self, *vendors: Vendor | LocalVendor, route: Route | None = None) -> None:
        self.clock = ManualClock()
        self.store = open_store("memory://", clock=self.clock)
        self.runtime = Runtime(self.store, secret=Secrets("hub-secret"), clock=self.clock)
        self.meetings = Meetings(vendors, runtime=self.runtime, route=route)

    async def __aenter__(self) -> Meetings:
        return await self.meetings.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.meetings.__aexit__(None, None, None)


async def book(meetings: Meetings, reference: str = "booking-1", **wishes: Any) -> Meeting:
    return await meetings.create(reference, starts_at=START, duration=timedelta(minutes=30), **wishes)


async def lost() -> None:
    raise OutcomeUnknown("connection reset", hard=True)


def whys(meeting: Meeting) -> list[tuple[str, str]]:
    return [(attempt.provider, attempt.why) for attempt in meeting.attempts]


async def test_without_a_route_yours_counts_and_is_told() -> None:
    async with Practice(Vendor(name="first"), Vendor(name="second")) as meetings:
        meeting = await book(meetings)

    assert whys(meeting) == [("first", "preference 1")]


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (Fastest(), ("local", "makes no call")),
        (Healthiest(), ("first", "0% of recent calls failed")),
        (Weighted({"local": 1}), ("local", "1 of 1 parts")),
        (ByRule([Rule(["local"])], then=Fastest()), ("local", "rule 1, makes no call")),
    ],
    ids=str,
)
async def test_the_route_decides_who_is_asked_and_its_reason_is_kept(route: Route, expected: tuple[str, str]) -> None:
    async with Practice(Vendor(name="first"), LocalVendor(), route=route) as meetings:
        await book(meetings)
        stored = await meetings.get("booking-1")

    assert whys(stored) == [expected]


async def test_what_the_route_puts_first_still_has_to_do_what_is_required() -> None:
    able = Vendor(name="able")
    async with Practice(LocalVendor(), able, route=Fastest()) as meetings:
        meeting = await book(meetings, require={Feature.WAITING_ROOM})

    assert meeting.provider == "able"


async def test_data_stays_in_its_region_even_when_nobody_there_can_be_reached() -> None:
    swiss, other = Vendor(name="swiss"), Vendor(name="other")

    async def down() -> None:
        raise NotSent("connection refused", hard=True)

    async with Practice(other, swiss, route=IN_SWITZERLAND) as meetings:
        anywhere = await book(meetings, "booking-1")
        at_home = await book(meetings, "booking-2", region="CH")
        swiss.before = down
        with pytest.raises(NotSent):
            await book(meetings, "booking-3", region="CH")

    assert (anywhere.provider, at_home.provider) == ("other", "swiss")
    assert whys(at_home) == [("swiss", "rule 1, preference 1")]
    assert len(other.requests) == 1


async def test_a_booking_does_not_change_its_region() -> None:
    async with Practice(Vendor(name="swiss"), route=IN_SWITZERLAND) as meetings:
        await book(meetings, region="CH")
        with pytest.raises(ReferenceConflict, match=r"another region \(CH\)"):
            await book(meetings)


async def test_rules_that_allow_nobody_are_told_before_anything_is_kept() -> None:
    nowhere = ByRule([Rule([], regions=frozenset({"CH"}))])
    practice = Practice(Vendor(name="other"), route=nowhere)
    async with practice as meetings:
        with pytest.raises(NotSent, match="leaves no provider for meeting booking-1; its rules allow none"):
            await book(meetings, region="CH")

        assert await practice.store.records.get("meeting", "booking-1") is None


async def test_who_is_off_is_asked_for_nothing_new_and_tidied_up_as_before() -> None:
    first, second = Vendor(name="first"), Vendor(name="second")
    async with Practice(first, second) as meetings:
        before = await book(meetings, "booking-1")
        await meetings.switch("first", on=False, **SAID)
        after = await book(meetings, "booking-2")
        canceled = await meetings.cancel("booking-1")
        await meetings.switch("second", on=False, actor="bob", reason="theirs, too")
        again = await book(meetings, "booking-2")
        with pytest.raises(NotSent, match=r"first is off: their incident \(ada\); second is off: theirs, too"):
            await book(meetings, "booking-3")
        off = (await meetings.switches()).off

    assert (before.provider, after.provider, again) == ("first", "second", after)
    assert canceled.attempts[0].state is TryState.DELETED
    assert set(off) == {"first", "second"}


async def test_a_lost_meeting_at_who_is_off_is_searched_for_and_never_doubled() -> None:
    first = Vendor(name="first", after=lost, looking=lost)
    practice = Practice(first)
    async with practice as meetings:
        with pytest.raises(OutcomeUnknown):
            await book(meetings)
        await meetings.switch("first", on=False, **SAID)
        with pytest.raises(OutcomeUnknown):
            await book(meetings)

        async def answers() -> None:
            """It can be reached again."""

        first.looking = answers
        await practice.clock.advance(60)
        found = await book(meetings)

    assert found.status is MeetingStatus.SCHEDULED
    assert len(first.requests) == 1


async def test_only_a_meeting_provider_is_switched() -> None:
    async with Practice(Vendor(name="first")) as meetings:
        with pytest.raises(InvalidInput, match="no meeting provider stripe; there are first"):
            await meetings.switch("stripe", on=False, **SAID)


async def test_meetings_kept_before_there_were_routes_are_read() -> None:
    practice = Practice(Vendor(name="first"))
    async with practice as meetings:
        draft = encode(await book(meetings, "booking-1"))
        old: dict[str, Any] = {name: value for name, value in draft.value.items() if name != "region"}
        for attempt in old["attempts"]:
            del attempt["why"]
        record = await practice.store.records.get("meeting", "booking-1")
        assert record is not None
        await practice.store.records.rewrite(record, old)

        meeting = await book(meetings, "booking-1")

    assert (meeting.region, whys(meeting)) == ("", [("first", "")])
