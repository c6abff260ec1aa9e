"""Histories as words."""

import pytest

from holdfast.testing.explore import CallFails, Crash, History, WebhookComes
from holdfast.testing.explore.history import HOWS, KINDS
from holdfast.testing.faults import Reset, Status


def test_a_history_reads_and_writes_as_one_line() -> None:
    line = "crash@17 stripe.payments.create#0=reset webhook#2=twice swiss-bitcoin-pay.payments.create#11=bad_json"

    history = History.parse(line, seed=7)

    assert history == History(
        7,
        (
            Crash(17),
            CallFails("stripe", "payments.create", 0, "reset"),
            WebhookComes(2, "twice"),
            CallFails("swiss-bitcoin-pay", "payments.create", 11, "bad_json"),
        ),
    )
    assert str(history) == line


@pytest.mark.parametrize("word", [*(f"zoom.meetings.create#3={kind}" for kind in KINDS), "crash@0"])
def test_every_step_is_read_as_it_is_written(word: str) -> None:
    assert str(History.parse(word)) == word


def test_a_fault_can_be_moved_before_or_after_the_effect() -> None:
    before, after = History.parse("a.b#0=reset-before a.b#1=status_500-after").steps

    assert isinstance(before, CallFails)
    assert before.fault == Reset().before_effect()
    assert isinstance(after, CallFails)
    assert after.fault == Status(500).after_effect()


@pytest.mark.parametrize("how", HOWS)
def test_every_fate_of_a_webhook_is_read_as_it_is_written(how: str) -> None:
    assert str(History.parse(f"webhook#0={how}")) == f"webhook#0={how}"


def test_a_history_without_steps_is_an_empty_line() -> None:
    assert History.parse("") == History(0, ())
    assert str(History(7)) == ""


def test_steps_may_be_parted_by_commas() -> None:
    assert History.parse("crash@1, crash@2").crashes == {1, 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crash", "'crash' is no step"),
        ("crash@-1", "stripe.payments.create#0=reset"),
        ("crash@seventeen", "is no step"),
        ("stripe#0=reset", "is no step"),
        ("stripe.payments.create=reset", "is no step"),
        ("stripe.payments.create#0=gone", "gone"),
        ("stripe.payments.create#0=bad_json-after", "only reset, hang, close"),
        ("stripe.payments.create#0=reset-never", "only reset, hang, close"),
        ("webhook#2=thrice", "a webhook comes twice, together"),
        ("crash@1 crash@1", "two steps of one history strike at the same place"),
        ("webhook#0=late webhook#0=twice", "two steps of one history strike at the same place"),
        ("a.b#0=reset a.b#0=hang", "two steps of one history strike at the same place"),
    ],
)
def test_nonsense_is_refused_with_what_would_have_been_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="^.*" + says.replace("(", r"\(")):
        History.parse(text)
