"""The one table: cause and effect decide, cell by cell."""

from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.errors import CallFailed, CircuitOpen
from holdfast.outcome import Cause, Effect
from holdfast.resilience.breaker import Result
from holdfast.resilience.decide import Again, Circumstances, Decision, Next, Raise, Resolve, counts_as, decide

EFFECTS = (Effect.READ, Effect.IDEMPOTENT, Effect.KEYED, Effect.ONCE)

ALONE = Circumstances()
REPEAT = Circumstances(attempts_left=1)
MOVE = Circumstances(providers_left=1)
BOTH = Circumstances(attempts_left=1, providers_left=1)
IN_TIME = Circumstances(attempts_left=1, retry_after=7, remaining=7.5)
TOO_LATE = Circumstances(attempts_left=1, retry_after=7, remaining=7)
TOO_LATE_HERE = Circumstances(attempts_left=1, providers_left=1, retry_after=7, remaining=7)
LOCAL = Circumstances(attempts_left=1, local=True)
LOCAL_BOTH = Circumstances(attempts_left=1, providers_left=1, local=True)
FRESH = Circumstances(attempts_left=1, refreshable=True)
FORGOTTEN = Circumstances(attempts_left=1, key_valid=False)
FORGOTTEN_BOTH = Circumstances(attempts_left=1, providers_left=1, key_valid=False)
LISTED = Circumstances(providers_left=1, elsewhere=True)
MAY_MOVE = Circumstances(providers_left=1, unknown_may_move=True)
DOUBT = Circumstances(unsettled=True)
DOUBT_REPEAT = Circumstances(attempts_left=1, unsettled=True)
DOUBT_MOVE = Circumstances(providers_left=1, unsettled=True)
DOUBT_LISTED = Circumstances(providers_left=1, unsettled=True, elsewhere=True)
DOUBT_MAY_MOVE = Circumstances(providers_left=1, unsettled=True, unknown_may_move=True)
DOUBT_FRESH = Circumstances(attempts_left=1, unsettled=True, refreshable=True)
NO_TIME = Circumstances(attempts_left=1, remaining=0)

A, N, R, V = Again(), Next(), Raise(), Resolve()

Row = tuple[Decision, Decision, Decision, Decision]


def same(decision: Decision) -> Row:
    return decision, decision, decision, decision


# The four decisions of a row are for READ, IDEMPOTENT, KEYED, ONCE.
TABLE: dict[Cause, list[tuple[Circumstances, Row]]] = {
    Cause.NOT_SENT: [
        (ALONE, same(R)),
        (REPEAT, same(A)),
        (MOVE, same(N)),
        (BOTH, same(A)),
        (LOCAL, same(R)),
        (LOCAL_BOTH, same(N)),
        (IN_TIME, same(A)),
        (TOO_LATE, same(A)),
        (NO_TIME, same(R)),
        (FORGOTTEN, (A, A, R, A)),
        (DOUBT, (R, V, V, V)),
        (DOUBT_REPEAT, (A, A, A, V)),
        (DOUBT_MOVE, (N, V, V, V)),
        (DOUBT_MAY_MOVE, same(N)),
    ],
    Cause.THROTTLED: [
        (ALONE, same(R)),
        (REPEAT, same(A)),
        (MOVE, same(N)),
        (BOTH, same(A)),
        (IN_TIME, same(Again(7))),
        (TOO_LATE, same(R)),
        (TOO_LATE_HERE, same(N)),
        (NO_TIME, same(R)),
        (FORGOTTEN, (A, A, R, A)),
        (DOUBT, (R, V, V, V)),
        (DOUBT_REPEAT, (A, A, A, V)),
        (DOUBT_MOVE, (N, V, V, V)),
        (DOUBT_MAY_MOVE, same(N)),
    ],
    Cause.REFUSED: [
        (ALONE, same(R)),
        (REPEAT, same(A)),
        (MOVE, same(N)),
        (BOTH, same(A)),
        (IN_TIME, same(Again(7))),
        (TOO_LATE, same(R)),
        (TOO_LATE_HERE, same(N)),
        (NO_TIME, same(R)),
        (FORGOTTEN, (A, A, R, A)),
        (DOUBT, (R, V, V, V)),
        (DOUBT_REPEAT, (A, A, A, V)),
        (DOUBT_MOVE, (N, V, V, V)),
        (DOUBT_MAY_MOVE, same(N)),
    ],
    Cause.CREDENTIAL: [
        (ALONE, same(R)),
        (REPEAT, same(R)),
        (MOVE, same(N)),
        (BOTH, same(N)),
        (FRESH, same(Again(0))),
        (IN_TIME, same(R)),
        (DOUBT, (R, V, V, V)),
        (DOUBT_FRESH, (Again(0), Again(0), Again(0), V)),
        (DOUBT_MOVE, (N, V, V, V)),
    ],
    Cause.REJECTED: [
        (ALONE, same(R)),
        (REPEAT, same(R)),
        (MOVE, same(R)),
        (BOTH, same(R)),
        (LISTED, same(N)),
        (DOUBT, same(R)),
        (DOUBT_LISTED, (N, R, R, R)),
        (DOUBT_MAY_MOVE, same(R)),
    ],
    Cause.UNKNOWN: [
        (ALONE, (R, V, V, V)),
        (REPEAT, (A, A, A, V)),
        (MOVE, (N, V, V, V)),
        (BOTH, (A, A, A, V)),
        (IN_TIME, (Again(7), Again(7), Again(7), V)),
        (TOO_LATE, (R, V, V, V)),
        (TOO_LATE_HERE, (N, V, V, V)),
        (NO_TIME, (R, V, V, V)),
        (FORGOTTEN, (A, A, V, V)),
        (FORGOTTEN_BOTH, (A, A, V, V)),
        (MAY_MOVE, same(N)),
        (DOUBT_REPEAT, (A, A, A, V)),
    ],
    Cause.MISMATCH: [
        (ALONE, same(R)),
        (REPEAT, same(R)),
        (MOVE, same(R)),
        (BOTH, same(R)),
        (LISTED, same(R)),
        (MAY_MOVE, same(R)),
        (FRESH, same(R)),
        (DOUBT_MAY_MOVE, same(R)),
    ],
}


@pytest.mark.parametrize(
    ("cause", "effect", "here", "decision"),
    [
        pytest.param(cause, effect, here, row[EFFECTS.index(effect)], id=f"{cause}-{effect}-{number}")
        for cause, rows in TABLE.items()
        for number, (here, row) in enumerate(rows)
        for effect in EFFECTS
    ],
)
def test_the_table(cause: Cause, effect: Effect, here: Circumstances, decision: Decision) -> None:
    assert decide(cause, effect, here) == decision


def test_the_table_has_every_cause() -> None:
    assert set(TABLE) == set(Cause)


@pytest.mark.parametrize(
    ("cause", "effect", "here", "why"),
    [
        (Cause.REJECTED, Effect.READ, BOTH, "final"),
        (Cause.NOT_SENT, Effect.READ, LOCAL, "final"),
        (Cause.CREDENTIAL, Effect.READ, REPEAT, "final"),
        (Cause.UNKNOWN, Effect.ONCE, REPEAT, "unsafe"),
        (Cause.UNKNOWN, Effect.KEYED, FORGOTTEN, "unsafe"),
        (Cause.UNKNOWN, Effect.READ, ALONE, "attempts"),
        (Cause.THROTTLED, Effect.ONCE, TOO_LATE, "deadline"),
    ],
)
def test_a_refusal_to_repeat_says_why(cause: Cause, effect: Effect, here: Circumstances, why: str) -> None:
    decision = decide(cause, effect, here)

    assert isinstance(decision, Raise | Resolve)
    assert decision.why == why


@pytest.mark.parametrize("nonsense", [-1.0, float("nan"), -inf])
def test_a_retry_after_that_makes_no_sense_is_as_none(nonsense: float) -> None:
    assert decide(Cause.THROTTLED, Effect.READ, Circumstances(attempts_left=1, retry_after=nonsense)) == Again(None)


def test_an_endless_retry_after_is_never_waited_for() -> None:
    assert decide(Cause.THROTTLED, Effect.READ, Circumstances(attempts_left=1, retry_after=inf)) == Raise()


CAUSES = st.sampled_from(Cause)
ANY_EFFECT = st.sampled_from(Effect)
SECONDS = st.floats(min_value=0, allow_nan=False)
ANY = st.builds(
    Circumstances,
    attempts_left=st.integers(-1, 3),
    providers_left=st.integers(-1, 3),
    remaining=SECONDS,
    retry_after=st.none() | SECONDS,
    local=st.booleans(),
    key_valid=st.booleans(),
    refreshable=st.booleans(),
    elsewhere=st.booleans(),
    unknown_may_move=st.booleans(),
    unsettled=st.booleans(),
)


@given(cause=CAUSES, here=ANY)
def test_what_may_have_happened_once_is_never_repeated(cause: Cause, here: Circumstances) -> None:
    assume(cause is Cause.UNKNOWN or here.unsettled)

    assert not isinstance(decide(cause, Effect.ONCE, here), Again)


@given(cause=CAUSES, here=ANY)
def test_a_forgotten_key_is_never_used_again(cause: Cause, here: Circumstances) -> None:
    assume(not here.key_valid)

    assert not isinstance(decide(cause, Effect.KEYED, here), Again)


@given(cause=CAUSES, effect=ANY_EFFECT, here=ANY)
def test_nothing_is_repeated_beyond_the_attempts_or_the_deadline(
    cause: Cause, effect: Effect, here: Circumstances
) -> None:
    decision = decide(cause, effect, here)

    if isinstance(decision, Again):
        assert here.attempts_left > 0
        assert (decision.after or 0) < here.remaining


@given(cause=CAUSES, effect=ANY_EFFECT, here=ANY)
def test_another_provider_is_asked_only_if_there_is_one_and_no_doubt(
    cause: Cause, effect: Effect, here: Circumstances
) -> None:
    if isinstance(decide(cause, effect, here), Next):
        doubt = effect is not Effect.READ and (cause is Cause.UNKNOWN or here.unsettled)
        assert here.providers_left > 0
        assert here.unknown_may_move or not doubt


@given(effect=ANY_EFFECT, here=ANY)
def test_a_mismatch_always_reaches_the_caller(effect: Effect, here: Circumstances) -> None:
    assert decide(Cause.MISMATCH, effect, here) == Raise()


@given(effect=ANY_EFFECT, here=ANY)
def test_a_refusal_by_the_payer_arrives_as_itself(effect: Effect, here: Circumstances) -> None:
    assume(not here.elsewhere)

    assert decide(Cause.REJECTED, effect, here) == Raise()


@given(cause=CAUSES, here=ANY)
def test_looking_never_needs_to_be_resolved(cause: Cause, here: Circumstances) -> None:
    assert not isinstance(decide(cause, Effect.READ, here), Resolve)


@given(cause=CAUSES, effect=ANY_EFFECT, here=ANY)
def test_a_doubt_is_never_told_as_nothing_happened(cause: Cause, effect: Effect, here: Circumstances) -> None:
    assume(effect is not Effect.READ and (cause is Cause.UNKNOWN or here.unsettled))
    assume(cause not in (Cause.MISMATCH, Cause.REJECTED))

    assert not isinstance(decide(cause, effect, here), Raise)


@pytest.mark.parametrize(
    ("failure", "result"),
    [
        (CallFailed.of(Cause.UNKNOWN, ""), Result.FAILURE),
        (CallFailed.of(Cause.REJECTED, "", status=404), Result.SUCCESS),
        (CallFailed.of(Cause.NOT_SENT, "", hard=True), Result.FAILURE),
        (CallFailed.of(Cause.NOT_SENT, ""), Result.NEUTRAL),
        (CallFailed.of(Cause.NOT_SENT, "", hard=True, local=True), Result.NEUTRAL),
        (CircuitOpen("", local=True), Result.NEUTRAL),
        (CallFailed.of(Cause.REFUSED, "", status=503), Result.FAILURE),
        (CallFailed.of(Cause.REFUSED, "", status=403), Result.NEUTRAL),
        (CallFailed.of(Cause.THROTTLED, "", status=429), Result.NEUTRAL),
        (CallFailed.of(Cause.CREDENTIAL, "", status=401), Result.NEUTRAL),
        (CallFailed.of(Cause.MISMATCH, "", status=200), Result.NEUTRAL),
    ],
)
def test_what_a_failure_says_about_the_provider(failure: CallFailed, result: Result) -> None:
    assert counts_as(failure) is result
