"""What a test asks of the calls a program made."""

import json
from collections.abc import Sequence

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Latency, Reset, Status
from holdfast.testing.journal import Journal
from holdfast.testing.simulators.simulator import Request


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(clock: ManualClock) -> Journal:
    return Journal(clock)


def call(
    journal: Journal,
    key: str | None = "k1",
    *,
    body: bytes = b"reference=o1&amount=12",
    target: str = "/v1/things",
    fault: Fault | None = None,
    status: int | None = 200,
    delay: float = 0,
    operation: str = "payments.create",
    arrived: bool | None = None,
) -> None:
    request = Request(method="POST", target=target, body=body)
    ending = "reset" if isinstance(fault, Reset) else "answered"
    journal.call(
        "stripe", operation, request, fault=fault, ending=ending, status=status, delay=delay, key=key
    ).arrived = arrived


def test_calls_tell_attempts_gaps_keys_statuses_and_faults(journal: Journal, clock: ManualClock) -> None:
    # given
    call(journal, fault=Reset())
    clock.jump(0.5)
    call(journal, fault=Status(429), status=429)
    clock.jump(30)
    call(journal, "k2")

    # then
    calls = journal.calls("stripe", "payments.create")
    assert calls.attempts == len(calls) == 3
    assert calls.gaps == [0.5, 30]
    assert calls.keys == ["k1", "k1", "k2"]
    assert calls.statuses == [None, 429, 200]
    assert calls.faults == ["reset", "status_429", None]
    assert [one.key for one in calls[1:]] == ["k1", "k2"]
    assert calls[0].fault == Reset()


@pytest.mark.parametrize(
    ("fault", "arrived", "statuses"),
    [(BadJson(), True, [None]), (Latency(), True, [200]), (Latency(), False, [None]), (None, None, [200])],
)
def test_a_status_is_what_the_program_got_to_see(
    journal: Journal, fault: Fault | None, arrived: bool | None, statuses: list[int | None]
) -> None:
    call(journal, fault=fault, arrived=arrived)
    assert journal.calls().statuses == statuses


def test_retries_under_one_key_are_one_effect(journal: Journal) -> None:
    call(journal, fault=Reset())
    call(journal, status=503)
    call(journal)
    assert journal.calls().assert_same_key().attempts == 3


@pytest.mark.parametrize("before", [{"fault": Reset()}, {"status": 503}, {"status": 429}, {"status": 409}, {}])
def test_a_retry_under_a_new_key_is_told(journal: Journal, before: dict[str, object]) -> None:
    call(journal, "k1", **before)  # type: ignore[arg-type]  # a table of keyword arguments
    call(journal, "k2")
    with pytest.raises(AssertionError, match=r"one effect was tried under two keys, k1 and k2: stripe payments.create"):
        journal.calls().assert_same_key()


def test_after_a_refusal_for_good_a_new_key_is_another_effect(journal: Journal) -> None:
    call(journal, "k1", status=402)
    call(journal, "k2")
    assert journal.calls().assert_same_key().attempts == 2


def test_a_refusal_that_was_lost_is_none(journal: Journal) -> None:
    call(journal, "k1", status=402, arrived=False)
    call(journal, "k2")
    with pytest.raises(AssertionError, match="two keys"):
        journal.calls().assert_same_key()


def test_one_key_for_two_business_objects_is_told(journal: Journal) -> None:
    call(journal, body=b"reference=o1")
    call(journal, body=b"reference=o2")
    with pytest.raises(AssertionError, match=r"key k1 served two effects; the second: .*reference=o2"):
        journal.calls().assert_same_key()


def test_one_key_for_two_operations_is_told(journal: Journal) -> None:
    call(journal, operation="payments.create")
    call(journal, operation="payments.refund")
    with pytest.raises(AssertionError, match="key k1 served two effects"):
        journal.calls().assert_same_key()


@pytest.mark.parametrize(
    "bodies",
    [
        [b"amount=1&metadata[reference]=o1", b"metadata%5Breference%5D=o1&amount=1&retry=yes"],
        [
            json.dumps({"extra": {"reference": "o1"}}).encode(),
            json.dumps({"extra": {"reference": "o1"}, "n": 2}).encode(),
        ],
        [b"client_reference_id=o1&line_items[0][reference]=a", b"client_reference_id=o1&line_items[0][reference]=b"],
        [b'{"item": {"reference": "a"}, "reference": "o1"}', b'{"reference": "o1", "item": {"reference": "b"}}'],
        [b"no reference at all", b"no reference at all"],
    ],
    ids=["form", "JSON", "the vendor's own field first", "the outermost first", "the same bytes"],
)
def test_tries_of_one_business_object_are_known_by_its_reference(journal: Journal, bodies: Sequence[bytes]) -> None:
    # given
    for number, body in enumerate(bodies):
        call(journal, f"k{number}", body=body, fault=Reset())

    # then
    with pytest.raises(AssertionError, match="two keys, k0 and k1"):
        journal.calls().assert_same_key()


@pytest.mark.parametrize(
    "others",
    [
        {"body": b"reference=o2"},
        {"target": "/v1/others", "body": b"{}"},
        {"body": b"reference=o2&client_reference_id="},
    ],
)
def test_different_business_objects_have_keys_of_their_own(journal: Journal, others: dict[str, object]) -> None:
    call(journal, "k1")
    call(journal, "k2", **others)  # type: ignore[arg-type]  # a table of keyword arguments
    assert journal.calls().assert_same_key().attempts == 2


def test_a_call_without_a_key_is_told(journal: Journal) -> None:
    call(journal, None)
    with pytest.raises(AssertionError, match=r"a call carried no idempotency key: stripe payments.create POST"):
        journal.calls().assert_same_key()


def test_no_calls_carry_no_key(journal: Journal) -> None:
    with pytest.raises(AssertionError, match="no calls were made"):
        journal.calls("stripe", "payments.craete").assert_same_key()


def test_too_many_calls_are_told(journal: Journal) -> None:
    call(journal)
    call(journal)
    assert journal.calls().assert_at_most(2).attempts == 2
    with pytest.raises(AssertionError, match="2 calls were made, not at most 1"):
        journal.calls().assert_at_most(1)


def test_calls_take_from_the_first_to_the_end_of_the_last(journal: Journal, clock: ManualClock) -> None:
    # given
    call(journal, delay=5)
    clock.jump(10)
    call(journal, delay=2)

    # then
    assert journal.calls().assert_within(12).attempts == 2
    with pytest.raises(AssertionError, match=r"2 calls took 12 s, not at most 11.9 s"):
        journal.calls().assert_within(11.9)


def test_a_failure_shows_the_timeline_once(journal: Journal) -> None:
    call(journal)
    with pytest.raises(AssertionError) as failed:
        journal.calls().assert_at_most(0)
    assert str(failed.value).count("what happened:") == 1
    assert "POST /v1/things reference=o1" in str(failed.value)


def test_calls_read_well_in_a_comparison(journal: Journal) -> None:
    call(journal, fault=Reset())
    assert repr(journal.calls()) == (
        "Calls(['stripe payments.create key=k1 POST /v1/things reference=o1&amount=12 → reset: 200 lost'])"
    )
