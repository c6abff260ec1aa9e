"""What people see of a job names nobody and holds no secret."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Holdfast
from holdfast.errors import UnknownKey
from holdfast.providers import LNbits
from holdfast.queue.views import HIDDEN, cleaned, private_fields_of, redacted
from holdfast.stores.sealed import SealedJob
from holdfast.stores.store import Job, JobState
from holdfast.telemetry import Redactor
from holdfast.values import Secret

AT = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    id="7",
    queue="deliveries",
    key="stripe/evt_1",
    kind="stripe",
    handler="",
    body=b"",
    headers={},
    ordering_key="stripe/pi_1",
    state=JobState.DEAD,
    token=3,
    attempts=2,
    losses=0,
    generation=1,
    arrivals=1,
    conflicts=0,
    created_at=AT,
    due_at=AT,
    error="",
    reason="attempts",
)


def shown(body: object, **options: Any) -> Any:
    return redacted(replace(JOB, body=json.dumps(body).encode()), **options)["body"]


def test_it_says_what_the_job_is_and_how_it_stands() -> None:
    view = redacted(JOB)

    assert json.loads(json.dumps(view)) == view
    assert (view["id"], view["state"], view["reason"], view["generation"]) == ("7", "dead", "attempts", 1)


def test_only_listed_headers_are_shown() -> None:
    headers = {"type": "paid", "fact.email": "ada@example.org", "header.user-agent": "x", "reference": "order-1"}

    assert redacted(replace(JOB, headers=headers))["headers"] == {"type": "paid", "reference": "order-1"}


@pytest.mark.parametrize("name", ["email", "firstName", "first_name", "First-Name", "memo", "join_url", "password"])
def test_what_names_somebody_is_hidden_however_deep_it_is_and_however_it_is_written(name: str) -> None:
    body = {"id": "pi_1", "amount": 12000, "payer": None, "details": [{"about": {name: {"anything": ["Ada"]}}}]}

    view = shown(body)

    assert view["id"] == "pi_1"
    assert view["amount"] == 12000
    assert view["details"] == [{"about": {name: HIDDEN}}]


def test_what_a_provider_declares_is_hidden_too() -> None:
    assert shown({"plate": "ZH 1", "id": 1}, private={"plate"}) == {"plate": HIDDEN, "id": 1}


def test_a_hub_shows_a_delivery_without_what_its_provider_calls_private() -> None:
    lnbits = LNbits(base_url="http://127.0.0.1", invoice_key=Secret("an-invoice-key-of-ours"))
    hub = Holdfast(store="memory://", payments=[lnbits])
    body = {"wallet_id": "w", "payment_hash": "h", "note": "x", "key": "an-invoice-key-of-ours"}
    job = replace(JOB, kind="lnbits", body=json.dumps(body).encode())

    assert hub.view(job)["body"] == {"wallet_id": HIDDEN, "payment_hash": "h", "note": HIDDEN, "key": HIDDEN}
    assert private_fields_of(object()) == frozenset()


def test_known_secrets_and_what_looks_like_one_are_blotted_out_everywhere() -> None:
    redactor = Redactor()
    redactor.learn(Secret("hunter2-of-the-shop"))
    job = replace(
        JOB,
        error="refused hunter2-of-the-shop",
        key="stripe/hunter2-of-the-shop",
        headers={"type": "whsec_abcdefgh1234"},
        body=json.dumps({"hunter2-of-the-shop": ["hunter2-of-the-shop", "whsec_abcdefgh1234"]}).encode(),
    )

    text = json.dumps(redacted(job, redact=redactor.redact))

    assert "hunter2" not in text
    assert "whsec_abc" not in text


@pytest.mark.parametrize("body", [b"ada@example.org paid", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_is_not_shown_but_measured(body: bytes) -> None:
    assert redacted(replace(JOB, body=body))["body"] == {"bytes": len(body)}


def test_a_job_that_cannot_be_opened_says_why() -> None:
    columns: Any = {name: getattr(JOB, name) for name in Job.__dataclass_fields__}
    sealed = SealedJob(**columns | {"body": b"sealed"}, problem=UnknownKey("job 7", "3f9a1c02"))

    assert redacted(sealed)["body"] == {
        "unreadable": "job 7 cannot be opened: it is sealed under key 3f9a1c02, "
        "which is not in the key ring; put it back there"
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_for_the_person_it_is_about_nothing_but_secrets_is_taken_out(value: Any) -> None:
    assert cleaned(value, redact=str) == value
