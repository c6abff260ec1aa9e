"""The timeline: what a failed test shows of what happened."""

from dataclasses import fields

import pytest

from holdfast import Secret
from holdfast.telemetry import (
    CallFinished,
    CircuitChanged,
    FellOver,
    JobFinished,
    RetryScheduled,
    Signal,
    Telemetry,
)
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Latency, Reset, Status
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Webhook
from holdfast.testing.simulators.webhooks import Manner, Sent
from holdfast.testing.timeline import Timeline
from holdfast.testing.watch import watch
from holdfast.values import Money


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(clock: ManualClock) -> Journal:
    return Journal(clock)


def test_a_timeline_merges_everything_in_columns(journal: Journal, clock: ManualClock) -> None:
    # given
    ledger = Ledger(journal=journal)
    watch(telemetry := Telemetry(), journal)
    asked = Request(method="POST", target="/v1/payment_intents", body=b"amount=12000")
    owed = Webhook(
        vendor="stripe", url="https://shop.test", event="charge.succeeded", about="ch_1", key="o1", body=b"{}"
    )

    # when
    number = journal.begin()
    ledger.record(Kind.CAPTURE, vendor="stripe", id="ch_1", key="o1", money=Money("120.00", "CHF"))
    journal.call("stripe", "payments.create", asked, fault=Reset(), ending="reset", status=200, key="k1", number=number)
    clock.jump(0.25)
    telemetry.emit(RetryScheduled("stripe", "payments.create", 1, 0.5))
    clock.jump(0.5)
    journal.call("stripe", "payments.create", asked, status=200, key="k1", delay=0.3)
    clock.jump(3600)
    journal.webhook(Sent(webhook=owed, manner=Manner.GENUINE, status=0, at=clock.now()))
    journal.webhook(Sent(webhook=owed, manner=Manner.RETRY, status=200, at=clock.now()))
    journal.note("crash", "at await 17")

    # then
    assert Timeline(journal).render().splitlines() == [
        "   +0.000s  call     stripe  payments.create key=k1 POST /v1/payment_intents amount=12000  reset: 200 lost",
        "   +0.000s  ledger   stripe  capture of o1 over 120.00 CHF                                 ch_1",
        "   +0.250s  retry    stripe  payments.create again in 0.5s, after attempt 1",
        "   +0.750s  call     stripe  payments.create key=k1 POST /v1/payment_intents amount=12000  200 after 0.3s",
        "+3600.750s  webhook  stripe  charge.succeeded of o1                                        no answer",
        "+3600.750s  webhook  stripe  charge.succeeded of o1                                        retry, 200",
        "+3600.750s  crash            at await 17",
    ]


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ({"status": 200}, "200"),
        ({"status": 503, "fault": Status(503)}, "503 (planned)"),
        ({"status": 200, "fault": Latency(), "delay": 1.5}, "200 (latency) after 1.5s"),
        ({"status": 200, "delay": 9.0, "arrived": False}, "given up on after 9s: 200 lost"),
        ({"status": None, "ending": "hang"}, "hang"),
    ],
)
def test_a_call_says_what_came_of_it(journal: Journal, how: dict[str, object], outcome: str) -> None:
    arrived = how.pop("arrived", None)
    call = journal.call("stripe", "payments.create", None, **how)  # type: ignore[arg-type]  # a table of arguments
    call.arrived = None if arrived is None else bool(arrived)
    assert call.line().outcome == outcome


def test_nothing_that_happened_is_said_too(journal: Journal) -> None:
    assert Timeline(journal).render() == "nothing happened"


def test_a_long_timeline_shows_its_end_and_how_much_is_left_out(journal: Journal) -> None:
    for number in range(100):
        journal.note("step", f"{number}")

    lines = Timeline(journal).render(last=60).splitlines()

    assert lines[0] == "… 40 earlier left out"
    assert lines[1].endswith("step    40")
    assert len(lines) == 61


def test_what_the_journal_forgot_is_left_out_too() -> None:
    journal = Journal(ManualClock(), limit=10)
    for number in range(100):
        journal.note("step", f"{number}")
    assert Timeline(journal).render(last=3).splitlines()[0] == "… 97 earlier left out"


def test_a_failed_demand_shows_the_last_sixty_lines(journal: Journal) -> None:
    # given
    for number in range(100):
        journal.note("step", f"{number}")

    # when
    with pytest.raises(AssertionError) as failed:
        journal.calls().assert_same_key()

    # then
    lines = str(failed.value).splitlines()
    assert lines[-61] == "… 40 earlier left out"
    assert lines[-1].endswith("99")


def test_long_bodies_are_cut(journal: Journal) -> None:
    journal.call("stripe", "payments.create", Request(method="POST", target="/v1", body=b"x" * 10_000), status=200)
    line = Timeline(journal).render()
    assert "xxx…" in line
    assert len(line) < 150


def test_nothing_breaks_the_lines(journal: Journal) -> None:
    journal.call("x", "y", Request(method="POST", target="/", body=b"a\r\nb\x1b[31mc\xff"), status=200)
    assert Timeline(journal).render() == "+0.000s  call  x  y POST / a  b [31mc�  200"


def test_secrets_are_blotted_before_anything_is_cut(journal: Journal) -> None:
    # given
    canary = "canary/" + "7" * 40
    journal.conceal(Secret(canary))
    body = b"x" * 40 + canary.encode()

    # when
    journal.call("stripe", "payments.create", Request(method="POST", target="/", body=body), status=200)
    journal.note("step", f"sk_live_{'a' * 24} and {canary}")

    # then
    text = Timeline(journal).render()
    assert "canary" not in text
    assert "sk_live" not in text
    assert text.count("***") == 3


def test_secrets_are_blotted_out_of_what_a_demand_says(journal: Journal) -> None:
    journal.conceal("hunter2hunter2")
    journal.call("stripe", "payments.create", Request(method="POST", target="/?a=hunter2hunter2"), status=200)
    with pytest.raises(AssertionError) as failed:
        journal.calls().assert_same_key()
    assert "hunter2" not in str(failed.value)
    assert str(failed.value).count("/?a=***") == 2


# What holdfast itself tells


def test_a_watched_circuit_tells_its_states(journal: Journal) -> None:
    # given
    watch(telemetry := Telemetry(), journal)
    assert journal.states("stripe") == ["closed"]

    # when
    for before, after in (("closed", "open"), ("open", "half_open"), ("half_open", "closed")):
        telemetry.emit(CircuitChanged("stripe", "", before, after, "failures", 5.0))
    telemetry.emit(CircuitChanged("zoom", "", "closed", "open", "failures", 5.0))

    # then
    assert journal.states("stripe") == ["closed", "open", "half_open", "closed"]
    assert journal.states("zoom") == ["closed", "open"]
    assert journal.states("twilio") == ["closed"]
    assert journal.notes("circuit")[0].text == "closed → open: failures"


def test_circuits_of_one_provider_are_told_apart_by_their_operation(journal: Journal) -> None:
    watch(telemetry := Telemetry(), journal)
    telemetry.emit(CircuitChanged("stripe", "payments.create", "closed", "open", "failures", 5.0))
    telemetry.emit(CircuitChanged("stripe", "payments.fetch", "open", "closed", "isolated", 5.0))
    assert journal.states("stripe.payments.create") == ["closed", "open"]
    assert journal.states("stripe.payments.fetch") == ["open", "closed"]


@pytest.mark.parametrize(
    ("signal", "kind", "vendor", "text"),
    [
        (FellOver("payments.create", "stripe", "lnbits", "unknown"), "fallback", "stripe", "payments.create to lnbits"),
        (JobFinished("events", "PaymentPaid", "confirm", "dead", 8), "job", "", "PaymentPaid confirm: dead, attempt 8"),
    ],
)
def test_signals_become_notes(journal: Journal, signal: Signal, kind: str, vendor: str, text: str) -> None:
    watch(telemetry := Telemetry(), journal)
    telemetry.emit(signal)
    [note] = journal.notes()
    assert (note.kind, note.facts["vendor"]) == (kind, vendor)
    assert text in note.text


def test_every_kind_of_signal_that_is_watched_can_be_put_into_words(journal: Journal) -> None:
    # given
    watch(telemetry := Telemetry(), journal)
    kinds = [
        kind for kind in Signal.__subclasses__() if kind.__module__ == "holdfast.telemetry" and telemetry.hears(kind)
    ]

    # when
    for kind in kinds:
        types = {field.name: field.type for field in fields(kind)}
        telemetry.emit(kind(**{name: 1.5 if type is float else name for name, type in types.items()}))

    # then
    assert len(journal.notes()) == len(kinds) > 10


def test_calls_are_left_to_those_who_answer_them(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    watch(telemetry := Telemetry(), journal)
    telemetry.emit(CallFinished("stripe", "payments.create", "ok", 0.1, 1))
    assert not telemetry.hears(CallFinished)
    assert journal.notes() == []
    assert caplog.records == []
