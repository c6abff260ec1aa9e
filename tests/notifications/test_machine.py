"""The life of a dispatch, without a clock or a vendor."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.errors import CallFailed
from holdfast.notifications import machine
from holdfast.notifications.machine import (
    CLAIM_MARGIN,
    WAITS,
    Began,
    Defer,
    Deferred,
    Failed,
    GivenUp,
    GiveUp,
    Passed,
    Redirected,
    Show,
    Start,
    Took,
    Wait,
    next_look,
    step,
    todo,
)
from holdfast.notifications.models import Dispatch, DispatchState, Message, Recipient
from holdfast.notifications.provider import Capabilities
from holdfast.outcome import Cause, Effect

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CHAIN = ("telegram", "smtp")
TIMEOUT = timedelta(seconds=5)


def new(*, once: bool = False) -> Dispatch:
    return Dispatch(
        key="k",
        message=Message("hello", once=once),
        recipient=Recipient(telegram="1", email="a@example.org"),
        created_at=T0,
        expires_at=T0 + timedelta(hours=24),
    )


def begin(dispatch: Dispatch, provider: str = "telegram", *, at: datetime = T0) -> Dispatch:
    channel = "telegram" if provider == "telegram" else "email"
    return step(dispatch, Began(at=at, provider=provider, channel=channel, address="1", timeout=TIMEOUT))  # type: ignore[arg-type]


def fail(
    dispatch: Dispatch, cause: Cause, *, at: datetime = T0, reason: str = "", retry_after: float | None = None
) -> Dispatch:
    error = CallFailed.of(cause, "no", reason=reason, retry_after=retry_after)
    return step(dispatch, Failed(at=at, number=len(dispatch.submissions), error=error))


def tried(cause: Cause, provider: str = "telegram", *, once: bool = False, **facts: object) -> Dispatch:
    return fail(begin(new(once=once), provider), cause, **facts)  # type: ignore[arg-type]


def test_the_first_of_the_chain_is_asked_first() -> None:
    assert todo(new(), CHAIN, failed=set(), now=T0) == Start("telegram", 2)


def test_what_one_provider_took_is_over() -> None:
    taken = step(begin(new()), Took(at=T0, number=1, vendor_id="1/7"))

    assert taken.state is DispatchState.ACCEPTED
    assert taken.provider == "telegram"
    assert todo(taken, CHAIN, failed=set(), now=T0) == Show()
    assert next_look(taken) is None


def test_while_one_submission_runs_nobody_starts_another() -> None:
    running = begin(new())

    assert todo(running, CHAIN, failed=set(), now=T0) == Wait()
    assert next_look(running) == T0 + TIMEOUT + CLAIM_MARGIN


@pytest.mark.parametrize(
    "cause", [Cause.NOT_SENT, Cause.THROTTLED, Cause.REFUSED, Cause.CREDENTIAL, Cause.REJECTED, Cause.UNKNOWN]
)
def test_a_failure_is_followed_by_the_next_channel(cause: Cause) -> None:
    assert todo(tried(cause), CHAIN, failed={"telegram"}, now=T0) == Start("smtp", 1)


def test_what_must_not_be_told_twice_stops_at_an_unknown_outcome() -> None:
    unknown = tried(Cause.UNKNOWN, once=True)

    assert unknown.state is DispatchState.UNKNOWN
    assert todo(unknown, CHAIN, failed={"telegram"}, now=T0) == Show()
    assert next_look(unknown) is None


@pytest.mark.parametrize("cause", [Cause.NOT_SENT, Cause.THROTTLED, Cause.REFUSED, Cause.REJECTED])
def test_what_must_not_be_told_twice_moves_on_when_it_was_provably_not_told(cause: Cause) -> None:
    assert todo(tried(cause, once=True), CHAIN, failed={"telegram"}, now=T0) == Start("smtp", 1)


@pytest.mark.parametrize(
    ("cause", "action"),
    [
        (Cause.NOT_SENT, Defer()),
        (Cause.THROTTLED, Defer()),
        (Cause.REFUSED, Defer()),
        (Cause.UNKNOWN, Defer()),
        (Cause.CREDENTIAL, GiveUp()),
        (Cause.REJECTED, GiveUp()),
        (Cause.MISMATCH, GiveUp()),
    ],
)
def test_the_last_failure_queues_it_where_it_may_work_later(cause: Cause, action: object) -> None:
    assert todo(tried(cause), ("telegram",), failed={"telegram"}, now=T0) == action


def test_one_temporary_failure_in_the_chain_is_enough_to_queue() -> None:
    both = fail(begin(tried(Cause.THROTTLED), "smtp"), Cause.REJECTED)

    assert todo(both, CHAIN, failed=set(CHAIN), now=T0) == Defer()


def test_a_refused_credential_waits_for_the_operator_once_the_message_is_queued() -> None:
    queued = step(tried(Cause.NOT_SENT), Deferred(at=T0))
    refused = fail(begin(queued), Cause.CREDENTIAL)

    assert todo(refused, ("telegram",), failed={"telegram"}, now=T0) == Defer()


def test_who_said_no_is_not_asked_in_the_next_round() -> None:
    both = fail(begin(tried(Cause.REJECTED), "smtp"), Cause.NOT_SENT)

    assert todo(both, CHAIN, failed=set(), now=T0) == Start("smtp", 1)


def test_who_asked_for_patience_is_not_asked_before_its_time() -> None:
    throttled = tried(Cause.THROTTLED, retry_after=30)

    assert todo(throttled, CHAIN, failed=set(), now=T0 + timedelta(seconds=29)) == Start("smtp", 1)
    assert todo(throttled, CHAIN, failed=set(), now=T0 + timedelta(seconds=30)) == Start("telegram", 2)


def test_a_message_whose_providers_are_gone_from_the_program_waits_for_them() -> None:
    assert todo(tried(Cause.NOT_SENT), (), failed=set(), now=T0) == Defer()


def test_between_two_submissions_a_crash_leaves_it_to_the_sweep() -> None:
    between = tried(Cause.NOT_SENT)

    assert between.state is DispatchState.QUEUED
    assert next_look(between) == T0 + WAITS[0]


def test_waits_grow_and_the_last_one_repeats() -> None:
    dispatch, waits = tried(Cause.NOT_SENT), []
    for _ in range(len(WAITS) + 2):
        dispatch = step(dispatch, Deferred(at=T0))
        assert dispatch.retry_at is not None
        waits.append(dispatch.retry_at - T0)

    assert tuple(waits) == (*WAITS, WAITS[-1], WAITS[-1])


def test_the_next_round_waits_as_long_as_everybody_asked_for() -> None:
    queued = step(tried(Cause.THROTTLED, retry_after=40), Deferred(at=T0))

    assert queued.retry_at == T0 + timedelta(seconds=40)


def test_the_next_round_does_not_wait_for_one_of_several() -> None:
    both = fail(begin(tried(Cause.THROTTLED, retry_after=3600), "smtp"), Cause.NOT_SENT)

    assert step(both, Deferred(at=T0)).retry_at == T0 + WAITS[0]


def test_a_submission_without_an_outcome_past_its_margin_is_unknown() -> None:
    running = begin(new())

    still = step(running, Passed(at=T0 + TIMEOUT + CLAIM_MARGIN))
    lost = step(running, Passed(at=T0 + TIMEOUT + CLAIM_MARGIN + timedelta(milliseconds=1)))

    assert still == running
    assert lost.submissions[0].outcome == Cause.UNKNOWN
    assert lost.state is DispatchState.QUEUED


def test_a_lost_submission_of_what_must_not_be_told_twice_is_never_repeated() -> None:
    lost = step(begin(new(once=True)), Passed(at=T0 + timedelta(minutes=1)))

    assert lost.state is DispatchState.UNKNOWN
    assert todo(lost, CHAIN, failed=set(), now=T0) == Show()


def test_what_is_heard_twice_changes_nothing() -> None:
    failed = tried(Cause.REJECTED, reason="recipient_gone")

    assert fail(failed, Cause.UNKNOWN) == failed
    assert step(failed, Redirected(at=T0, number=1, address="2")) == failed


def test_a_late_failure_elsewhere_does_not_undo_what_was_taken() -> None:
    lost = begin(step(begin(new()), Passed(at=T0 + timedelta(minutes=1))), "smtp")
    taken = step(lost, Took(at=T0, number=1, vendor_id="1/7"))

    assert fail(taken, Cause.NOT_SENT).state is DispatchState.ACCEPTED


def test_an_answer_after_we_gave_up_waiting_still_counts() -> None:
    lost = step(begin(new(once=True)), Passed(at=T0 + timedelta(minutes=1)))
    late = step(lost, Took(at=T0 + timedelta(minutes=2), number=1, vendor_id="1/7"))

    assert late.state is DispatchState.ACCEPTED


def test_a_failure_after_we_gave_up_waiting_changes_nothing() -> None:
    lost = step(begin(new(once=True)), Passed(at=T0 + timedelta(minutes=1)))

    assert fail(lost, Cause.REJECTED) == lost


def test_an_expired_message_is_told_no_more() -> None:
    queued = step(tried(Cause.NOT_SENT), Deferred(at=T0))
    expired = step(queued, Passed(at=queued.expires_at))

    assert (expired.state, expired.reason) == (DispatchState.FAILED, "expired")
    assert todo(expired, CHAIN, failed=set(), now=queued.expires_at) == GiveUp()
    assert step(expired, GivenUp(at=queued.expires_at)) == expired


def test_an_expired_message_that_may_have_been_told_says_so() -> None:
    queued = step(tried(Cause.UNKNOWN), Deferred(at=T0))

    assert step(queued, Passed(at=queued.expires_at)).state is DispatchState.UNKNOWN


def test_waiting_ends_when_the_message_expires() -> None:
    late = T0 + timedelta(hours=24) - timedelta(seconds=1)
    queued = step(tried(Cause.NOT_SENT, at=late), Deferred(at=late))

    assert queued.retry_at == queued.expires_at


def test_a_moved_recipient_is_asked_again_at_the_new_address() -> None:
    moved = step(begin(new()), Redirected(at=T0, number=1, address="-1002"))

    assert moved.moved == {"telegram": "-1002"}
    assert machine.address_of(moved, "telegram") == "-1002"
    assert machine.address_of(moved, "email") == "a@example.org"
    assert todo(moved, CHAIN, failed=set(), now=T0) == Start("telegram", 2)


def test_a_recipient_that_moves_twice_is_given_up() -> None:
    moved = begin(step(begin(new()), Redirected(at=T0, number=1, address="-1002")))
    again = step(moved, Redirected(at=T0, number=2, address="-1003"))

    assert again.submissions[1].reason == "recipient_moved"
    assert todo(again, CHAIN, failed=set(), now=T0) == Start("smtp", 1)


def test_giving_up_keeps_the_reason() -> None:
    given_up = step(tried(Cause.REJECTED, reason="recipient_gone"), GivenUp(at=T0))

    assert (given_up.state, given_up.reason) == (DispatchState.FAILED, "recipient_gone")


@pytest.mark.parametrize(
    ("declared", "once", "effect"),
    [
        (Effect.ONCE, False, Effect.IDEMPOTENT),
        (Effect.ONCE, True, Effect.ONCE),
        (Effect.KEYED, False, Effect.KEYED),
        (Effect.KEYED, True, Effect.KEYED),
    ],
)
def test_only_what_must_not_be_told_twice_is_sent_once(declared: Effect, once: bool, effect: Effect) -> None:
    able = Capabilities(channel="telegram", max_length=10, effect=declared)

    assert machine.effect_of(new(once=once), able) is effect


def test_every_fact_cut_anywhere_leaves_something_to_look_at_or_an_end() -> None:
    """Whatever was committed last before a crash, the sweep finds it, unless it is over."""
    over = (DispatchState.ACCEPTED, DispatchState.UNKNOWN, DispatchState.FAILED)
    history = [begin(new())]
    history.append(fail(history[-1], Cause.THROTTLED))
    history.append(begin(history[-1], "smtp"))
    history.append(fail(history[-1], Cause.UNKNOWN))
    history.append(step(history[-1], Deferred(at=T0)))
    history.append(begin(history[-1]))
    history.append(step(history[-1], Redirected(at=T0, number=3, address="2")))
    history.append(begin(history[-1]))
    history.append(step(history[-1], Took(at=T0, number=4, vendor_id="x")))

    for dispatch in history:
        assert dispatch.state in over or next_look(dispatch) is not None
    assert replace(history[-1]).route == ("telegram:throttled", "smtp:unknown", "telegram:moved", "telegram:accepted")
