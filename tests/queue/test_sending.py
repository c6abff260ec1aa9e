"""The life of a call that must not be made twice, as a table and as any sequence of facts."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.queue.calls import OnUnknown
from holdfast.queue.sending import (
    WAITS,
    Action,
    Began,
    Cancelled,
    Checked,
    Claimed,
    Fact,
    Finish,
    Held,
    Hold,
    LookUp,
    Lost,
    NotSent,
    Send,
    Sending,
    SendingState,
    Sent,
    Skip,
    Stop,
    step,
    todo,
)

S = SendingState


def after(*facts: Fact) -> Sending:
    sending = Sending()
    for fact in facts:
        sending = step(sending, fact)
    return sending


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ([], S.READY),
        ([Claimed(0, 1), Began(1)], S.SENDING),
        ([Claimed(0, 1), Began(1), Sent(1)], S.SENT),
        ([Claimed(0, 1), Began(1), NotSent(1)], S.READY),
        ([Claimed(0, 1), Began(1), Lost(1)], S.UNKNOWN),
        ([Began(1), Claimed(0, 1)], S.SENDING),
        ([Began(1), Claimed(0, 2)], S.UNKNOWN),
        ([Began(1), Claimed(0, 2), NotSent(1)], S.READY),
        ([Began(1), Claimed(0, 2), Sent(1)], S.SENT),
        ([Began(1), Claimed(0, 2), Began(2), Sent(1)], S.SENDING),
        ([Began(1), Claimed(0, 2), Began(2), NotSent(1)], S.SENDING),
        ([Began(1), Sent(1), Lost(1)], S.SENT),
        ([Began(1), Sent(1), Claimed(0, 2)], S.SENT),
        ([Began(1), Sent(1), Claimed(1, 2)], S.READY),
        ([Began(1), Lost(1), Checked(True)], S.SENT),
        ([Began(1), Lost(1), Checked(False)], S.READY),
        ([Began(1), Lost(1), Checked(None)], S.UNKNOWN),
        ([Began(1), Checked(True)], S.SENDING),
        ([Began(1), Lost(1), Held(), Claimed(1, 2)], S.READY),
        ([Began(1), Lost(1), Held(), Sent(1), Claimed(1, 2)], S.SENT),
        ([Cancelled()], S.CANCELLED),
        ([Began(1), Cancelled()], S.SENDING),
        ([Began(1), Lost(1), Cancelled()], S.UNKNOWN),
        ([Began(1), NotSent(1), Cancelled()], S.CANCELLED),
        ([Cancelled(), Claimed(1, 1)], S.READY),
    ],
)
def test_what_is_learned_makes_the_state(facts: Sequence[Fact], state: SendingState) -> None:
    assert after(*facts).state is state


@pytest.mark.parametrize(
    ("state", "on_unknown", "action"),
    [
        (S.READY, "hold", Send()),
        (S.SENT, "hold", Finish()),
        (S.CANCELLED, "hold", Skip()),
        (S.SENDING, "resend", Stop()),
        (S.UNKNOWN, "hold", Hold()),
        (S.UNKNOWN, "resend", Send()),
        (S.UNKNOWN, "check", LookUp()),
        (S.HELD, "hold", Hold()),
        (S.HELD, "check", Hold()),
    ],
)
def test_the_state_and_the_policy_decide(state: SendingState, on_unknown: OnUnknown, action: Action) -> None:
    assert todo(Sending(state=state, token=1), 1, on_unknown) == action


def test_a_run_that_was_overtaken_stops() -> None:
    assert todo(Sending(state=S.READY, token=2), 1, "resend") == Stop()


def test_look_ups_that_cannot_tell_come_to_an_end() -> None:
    assert todo(Sending(state=S.UNKNOWN, checks=len(WAITS) - 1), 0, "check") == LookUp()
    assert todo(Sending(state=S.UNKNOWN, checks=len(WAITS)), 0, "check") == Hold()


tokens = st.integers(1, 4)
facts = st.one_of(
    st.builds(Began, tokens),
    st.builds(Sent, tokens),
    st.builds(NotSent, tokens),
    st.builds(Lost, tokens),
    st.builds(Claimed, st.just(0), tokens),
    st.builds(Checked, st.sampled_from([None, False])),
    st.just(Held()),
    st.just(Cancelled()),
)


@given(st.lists(facts, max_size=12))
def test_nothing_is_forgotten_that_was_sent_and_nothing_old_counts(history: list[Fact]) -> None:
    sending = Sending()
    for fact in history:
        before, sending = sending, step(sending, fact)

        if before.state is S.SENT and not isinstance(fact, Began):
            assert sending == before
        if isinstance(fact, Sent | NotSent | Lost) and fact.token != before.token:
            assert sending == before
        if before.state in (S.SENDING, S.UNKNOWN, S.HELD) and sending.state is S.READY:
            assert isinstance(fact, NotSent | Checked)
