"""The life of a meeting, without a single await."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import CallFailed, Mismatch, NotSent, OutcomeUnknown, Refused, Rejected
from holdfast.meetings.machine import (
    AGAIN,
    LOOKS,
    Action,
    Canceled,
    Delete,
    Deleted,
    Fact,
    GiveUp,
    LookedUp,
    LookUp,
    Made,
    Show,
    Start,
    Started,
    TryFailed,
    Unreachable,
    Wait,
    next_look,
    step,
    tidy,
    todo,
)
from holdfast.meetings.models import Feature, Meeting, MeetingSnapshot, MeetingStatus, TryState
from holdfast.meetings.provider import Capabilities, CreateSemantics
from holdfast.values import Reference

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ABLE = {
    "zoom": Capabilities(
        create=CreateSemantics.SEARCHABLE,
        features=frozenset({Feature.PASSCODE, Feature.WAITING_ROOM}),
        elsewhere=frozenset({"1001"}),
    ),
    "other": Capabilities(create=CreateSemantics.SEARCHABLE),
    "blind": Capabilities(create=CreateSemantics.BLIND),
    "jaas": Capabilities(create=CreateSemantics.LOCAL),
}


def new(**facts: object) -> Meeting:
    plan = {"starts_at": NOW + timedelta(days=1), "duration": timedelta(minutes=30), "topic": "Meeting"}
    return Meeting(reference=Reference("booking-1"), created_at=NOW, **plan | facts)  # type: ignore[arg-type]


def started(provider: str = "zoom", *, token: str = "t1", at: datetime = NOW) -> Started:
    return Started(at=at, provider=provider, token=token, timeout=timedelta(seconds=1))


def snapshot(number: int = 1) -> MeetingSnapshot:
    return MeetingSnapshot(vendor_id=f"v{number}", join_url=f"https://meet.example/v{number}", token=f"t{number}")


def made(number: int = 1, *, provider: str = "zoom", at: datetime = NOW) -> Made:
    return Made(at=at, number=number, snapshot=snapshot(number), capabilities=ABLE[provider])


def failed(error: CallFailed, number: int = 1, *, at: datetime = NOW) -> TryFailed:
    return TryFailed(at=at, number=number, error=error)


def looked_up(found: MeetingSnapshot | None, number: int = 1, *, after: timedelta = timedelta(0)) -> LookedUp:
    return LookedUp(at=NOW + after, number=number, snapshot=found, capabilities=ABLE["zoom"])


def run(meeting: Meeting, *facts: Fact) -> Meeting:
    for fact in facts:
        meeting = step(meeting, fact).meeting
    return meeting


def what_next(meeting: Meeting, *order: str, failed: tuple[str, ...] = (), after: timedelta = timedelta(0)) -> Action:
    return todo(meeting, order or ("zoom", "jaas"), ABLE, failed=frozenset(failed), now=NOW + after)


def test_a_new_meeting_starts_with_the_first_provider() -> None:
    assert what_next(new()) == Start("zoom")


def test_an_attempt_is_recorded_as_sending_before_anything_is_sent() -> None:
    meeting = run(new(), started())

    assert meeting.attempts[0].state is TryState.SENDING
    assert meeting.status is MeetingStatus.CREATING
    assert what_next(meeting) == Wait(1, NOW + timedelta(seconds=1))


def test_the_first_attempt_that_is_made_becomes_the_meeting() -> None:
    meeting = run(new(prefer=frozenset({Feature.PASSCODE, Feature.CLOUD_RECORDING})), started(), made())

    assert meeting.status is MeetingStatus.SCHEDULED
    assert (meeting.provider, meeting.vendor_id, meeting.join_url) == ("zoom", "v1", "https://meet.example/v1")
    assert meeting.degraded == {Feature.CLOUD_RECORDING}
    assert what_next(meeting) == Show()
    assert next_look(meeting) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotSent("no route"), Start("jaas")),
        (Refused("quota"), Start("jaas")),
        (OutcomeUnknown("timeout"), LookUp(1)),
        (Rejected("no such user", code="1001"), Start("jaas")),
        (Rejected("wrong topic", code="300"), GiveUp(None)),
        (Mismatch("another one"), LookUp(1)),
    ],
)
def test_what_a_failure_proves_decides_who_is_asked_next(error: CallFailed, expected: Action) -> None:
    meeting = run(new(), started(), failed(error))

    assert what_next(meeting, failed=("zoom",)) == expected


def test_an_unknown_outcome_is_searched_for_once_and_then_moves_on() -> None:
    unknown = run(new(), started(), failed(OutcomeUnknown("timeout")))

    assert what_next(unknown, failed=("zoom",)) == LookUp(1)
    assert what_next(run(unknown, looked_up(None)), failed=("zoom",)) == Start("jaas")
    assert what_next(run(unknown, Unreachable(at=NOW, number=1)), failed=("zoom",)) == Start("jaas")


def test_what_cannot_be_searched_moves_on_at_once() -> None:
    unknown = run(new(), started("blind"), failed(OutcomeUnknown("timeout")))

    assert what_next(unknown, "blind", "jaas", failed=("blind",)) == Start("jaas")


def test_a_search_that_finds_our_token_adopts_the_meeting() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), looked_up(snapshot()))

    assert (meeting.status, meeting.vendor_id) == (MeetingStatus.SCHEDULED, "v1")


def test_a_meeting_with_another_token_is_never_taken_for_ours() -> None:
    meeting = run(new(), started(token="mine"), failed(OutcomeUnknown("timeout")), looked_up(snapshot()))

    assert meeting.vendor_id == ""
    assert meeting.attempts[0].state is TryState.UNKNOWN


def test_a_provider_where_one_may_exist_is_not_asked_again_until_it_was_looked_for() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), looked_up(None))

    assert what_next(meeting, "zoom") == GiveUp(1)

    for look in LOOKS[:2]:
        meeting = run(meeting, looked_up(None, after=look))

    assert what_next(meeting, "zoom", after=LOOKS[1]) == Start("zoom")


def test_a_crash_while_sending_leads_to_a_search_once_the_claim_ran_out() -> None:
    crashed = run(new(), started())

    assert what_next(crashed, after=timedelta(seconds=2)) == LookUp(1)
    assert tidy(crashed, now=NOW + timedelta(seconds=29)) is None
    assert tidy(crashed, now=NOW + timedelta(seconds=30)) == LookUp(1)


def test_an_earlier_calls_failure_does_not_bind_this_call() -> None:
    meeting = run(new(), started(), failed(Rejected("no")))

    assert meeting.status is MeetingStatus.FAILED
    assert what_next(meeting) == Start("zoom")


def test_the_loser_of_a_race_is_deleted_and_the_winner_stays() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), started("jaas", token="t2"))
    meeting = run(meeting, made(2, provider="jaas"), made(1))

    assert (meeting.provider, meeting.vendor_id) == ("jaas", "v2")
    assert tidy(meeting, now=NOW) == Delete(1)
    assert tidy(run(meeting, Deleted(at=NOW, number=1)), now=NOW) is None


def test_an_answer_after_the_orphan_was_deleted_changes_nothing() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), started("jaas", token="t2"))
    meeting = run(meeting, made(2, provider="jaas"), looked_up(snapshot()), Deleted(at=NOW, number=1))

    assert run(meeting, made(1)) == meeting


def test_orphans_are_searched_for_on_schedule_and_then_closed_as_absent() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), started("jaas", token="t2"))
    meeting = run(meeting, made(2, provider="jaas"))
    looks = []

    while (due := next_look(meeting)) is not None:
        looks.append(due - NOW)
        meeting = run(meeting, looked_up(None, after=due - NOW))

    assert tuple(looks) == LOOKS
    assert meeting.attempts[0].state is TryState.ABSENT
    assert meeting.status is MeetingStatus.SCHEDULED


def test_a_look_that_got_no_answer_counts_for_nothing_and_is_repeated() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")))
    due = NOW + LOOKS[-1]

    for _ in range(20):
        meeting = run(meeting, Unreachable(at=due, number=1))
        due = next_look(meeting) or due

    assert meeting.attempts[0].state is TryState.UNKNOWN
    assert due == NOW + LOOKS[-1] + 20 * AGAIN


def test_what_nobody_was_given_is_adopted_by_the_sweep() -> None:
    meeting = run(new(), started(), failed(OutcomeUnknown("timeout")), looked_up(None))
    assert meeting.status is MeetingStatus.UNKNOWN

    meeting = run(meeting, looked_up(snapshot(), after=LOOKS[0]))

    assert (meeting.status, meeting.join_url) == (MeetingStatus.SCHEDULED, "https://meet.example/v1")


def test_a_canceled_meeting_is_deleted_and_stays_canceled_whatever_arrives() -> None:
    meeting = run(new(), started(), Canceled(at=NOW), made())

    assert meeting.status is MeetingStatus.CANCELED
    assert meeting.join_url == ""
    assert tidy(meeting, now=NOW) == Delete(1)
    assert what_next(meeting) == Show()


def test_a_deletion_that_fails_is_tried_again_ever_more_slowly() -> None:
    meeting = run(new(), started(), made(), Canceled(at=NOW))
    now, waits = NOW, []

    for _ in range(7):
        meeting = run(meeting, Unreachable(at=now, number=1))
        due = next_look(meeting)
        assert due is not None
        waits.append(due - now)
        now = due

    assert tuple(waits[:5]) == LOOKS
    assert waits[-1] == LOOKS[-1]


# Histories: any number of callers and sweepers, faults and crashes anywhere, one record with compare-and-set.


@dataclass
class World:
    """A store with one record, and vendors that remember; every actor is a generator, cut anywhere."""

    draw: Callable[..., object]
    order: tuple[str, ...]
    now: datetime = NOW
    meeting: Meeting = field(default_factory=new)
    live: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    given: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    calm: bool = False

    def chance(self, *choices: str) -> str:
        return choices[0] if self.calm else str(self.draw(st.sampled_from(choices)))

    def commit(self, seen: Meeting, fact: Fact) -> Meeting | None:
        """The meeting after the fact, or None: somebody else was first."""
        if seen.version != self.meeting.version:
            return None
        after = step(seen, fact).meeting
        if after != seen:
            assert not seen.vendor_id or after.vendor_id == seen.vendor_id, "the link was changed under the guests"
            self.meeting = after = replace(after, version=seen.version + 1)
        if after.vendor_id:
            self.given.add((after.provider, after.vendor_id))
        return after

    def tell(self, fact: Fact) -> Meeting:
        while (after := self.commit(self.meeting, fact)) is None:
            pass
        return after

    def delete(self, meeting: Meeting, number: int) -> None:
        attempt = meeting.attempts[number - 1]
        mine = (attempt.provider, attempt.vendor_id)
        assert mine not in self.given or self.meeting.status is MeetingStatus.CANCELED, "the guests' meeting is gone"
        self.live.pop(mine, None)

    def find(self, provider: str, token: str) -> MeetingSnapshot | None:
        found = next((key for key, held in self.live.items() if key[0] == provider and held == token), None)
        if found is None or self.chance("listed", "not yet") == "not yet":
            return None
        return MeetingSnapshot(vendor_id=found[1], join_url=f"https://meet.example/{found[1]}", token=token)


def call(world: World) -> Generator[None]:
    """A caller of `create`, to its end."""
    failures: set[str] = set()
    seen = world.meeting
    while True:
        yield
        match todo(seen, world.order, ABLE, failed=frozenset(failures), now=world.now):
            case Show() | GiveUp():
                return
            case Wait(number) if world.chance("wait", "no time") == "no time":
                seen = world.tell(failed(OutcomeUnknown("somebody else's"), number, at=world.now))
            case Wait():
                seen = world.meeting
            case LookUp(number):
                yield from look(world, number)
                seen = world.meeting
            case Start("jaas"):
                seen = begin(world, seen, "jaas", at_once=True) or world.meeting
            case Start(name):
                number = len(seen.attempts) + 1
                if begin(world, seen, name) is None:
                    seen = world.meeting
                    continue
                yield
                yield from attempt(world, name, number, failures)
                seen = world.meeting


def begin(world: World, seen: Meeting, name: str, *, at_once: bool = False) -> Meeting | None:
    number = len(seen.attempts) + 1
    start = started(name, token=f"t{number}", at=world.now)
    if not at_once:
        return world.commit(seen, start)
    begun = step(seen, start).meeting
    return world.commit(begun, made(number, provider=name, at=world.now))


def attempt(world: World, name: str, number: int, failures: set[str]) -> Generator[None]:
    outcome = world.chance("made", "refused", "nothing", "lost")
    if outcome in ("made", "lost"):
        world.live[name, f"v{number}"] = f"t{number}"
    yield
    if outcome == "made":
        world.tell(made(number, provider=name, at=world.now))
        return
    failures.add(name)
    error = Refused("quota") if outcome == "refused" else OutcomeUnknown("reset")
    world.tell(failed(error, number, at=world.now))


def look(world: World, number: int) -> Generator[None]:
    tried = world.meeting.attempts[number - 1]
    if world.chance("up", "down") == "down":
        world.tell(Unreachable(at=world.now, number=number))
        return
    found = world.find(tried.provider, tried.token)
    yield
    world.tell(LookedUp(at=world.now, number=number, snapshot=found, capabilities=ABLE[tried.provider]))


def sweep(world: World) -> Generator[None]:
    seen = world.meeting
    while (chore := tidy(seen, now=world.now)) is not None:
        yield
        match chore:
            case LookUp(number):
                yield from look(world, number)
            case Delete(number) if world.chance("up", "down") == "up":
                world.delete(seen, number)
                yield
                world.tell(Deleted(at=world.now, number=number))
            case Delete(number):
                world.tell(Unreachable(at=world.now, number=number))
        seen = world.meeting


def cancel(world: World) -> Generator[None]:
    yield
    world.tell(Canceled(at=world.now))


ACTORS = {"call": call, "sweep": sweep, "cancel": cancel}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_however_it_goes_one_meeting_at_most_is_left_alive_and_it_is_the_one_guests_have(data: st.DataObject) -> None:
    orders = [("zoom", "jaas"), ("zoom", "other"), ("zoom", "other", "jaas"), ("zoom",)]
    world = World(data.draw, order=data.draw(st.sampled_from(orders)))
    running: list[Generator[None]] = [call(world)]

    for _ in range(data.draw(st.integers(5, 60))):
        what = data.draw(
            st.sampled_from(["go", "go", "go", "go", "call", "sweep", "crash", "wait", "wait long", "cancel"])
        )
        if what in ACTORS:
            running.append(ACTORS[what](world))
        elif what == "wait":
            world.now += timedelta(seconds=data.draw(st.integers(1, 3)))
        elif what == "wait long":
            world.now += timedelta(minutes=data.draw(st.integers(1, 40)))
        elif running:
            chosen = running[data.draw(st.integers(0, len(running) - 1))]
            if what == "crash" or next(chosen, "ended") == "ended":
                running.remove(chosen)
    running.clear()  # the power is cut
    world.calm = True
    rounds = 0
    while (due := next_look(world.meeting)) is not None:
        rounds += 1
        assert rounds < 100, "the sweep never comes to rest"
        world.now = max(world.now, due)
        for _ in sweep(world):
            pass

    held = world.meeting
    scheduled = held.status is MeetingStatus.SCHEDULED and held.provider != "jaas"
    assert set(world.live) == ({(held.provider, held.vendor_id)} if scheduled else set())
    assert len(world.given) <= 1
    assert held.status in (
        MeetingStatus.SCHEDULED,
        MeetingStatus.CANCELED,
        MeetingStatus.FAILED,
        MeetingStatus.CREATING,
    )
    assert held.status is not MeetingStatus.CREATING or not held.attempts
