"""The pages on payments, meetings, notifications and the queue are the code: every field, status and verb, no other."""

import ast
import inspect
import re
import textwrap
from enum import StrEnum
from typing import Any, get_args

import pytest

from holdfast import Meetings, Message, Notifications, Payments, Recipient, errors
from holdfast.meetings.models import Feature, Meeting, MeetingAttempt, MeetingStatus, TryState
from holdfast.notifications.models import Channel, Dispatch, DispatchState, Submission
from holdfast.payments import events
from holdfast.payments.machine import ALLOWED
from holdfast.payments.models import Anomaly, Attempt, AttemptState, Offer, Payment, PaymentStatus, RefundStatus
from holdfast.payments.refunds import Refund
from holdfast.queue.events import Event
from holdfast.queue.operations import Queue
from holdfast.stores.store import Job, JobFilter, JobState
from tests.docs.pages import DOCS

RECORDS = [
    ("payments", Payment),
    ("payments", Offer),
    ("payments", Attempt),
    ("payments", Refund),
    ("meetings", Meeting),
    ("meetings", MeetingAttempt),
    ("notifications", Message),
    ("notifications", Recipient),
    ("notifications", Dispatch),
    ("notifications", Submission),
    ("queue", Job),
    ("queue", JobFilter),
]
WORDS: list[tuple[str, str, str, set[str]]] = [
    ("payments", "Statuses", "status", set(PaymentStatus)),
    ("payments", "Flags", "flag", set(Anomaly)),
    ("payments", "`Attempt`", "state", set(AttemptState)),
    ("payments", "`Refund`", "status", set(RefundStatus)),
    ("meetings", "Statuses", "status", set(MeetingStatus)),
    ("meetings", "`Meeting`", "feature", set(Feature)),
    ("meetings", "`MeetingAttempt`", "state", set(TryState)),
    ("notifications", "States", "state", set(DispatchState)),
    ("notifications", "`Recipient`", "channel", set(get_args(Channel))),
    ("queue", "States", "state", set(JobState)),
]
VERBS = [("payments", Payments), ("meetings", Meetings), ("notifications", Notifications), ("queue", Queue)]
OF_THE_LIBRARY = {"bind", "check_providers", "arrived", "tend"}
"""Verbs that the hub and its worker call, and nobody else."""

Table = dict[str, list[str]]


def table(page: str, heading: str, column: str) -> Table:
    """The rows of the table under a heading whose first column is so called: the first cell's code, and the others."""
    text = (DOCS / "reference" / f"{page}.md").read_text()
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    [rows] = re.findall(rf"^\| {column} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section, re.M)
    cells = [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows.splitlines()]
    return {word: others for first, *others in cells for word in codes(first)}


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def members(record: type) -> dict[str, str]:
    """Fields and properties in the order of the code, each with its type as the pages write it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(record)))
    [written] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found: dict[str, str] = {}
    for node in written.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = said(node.annotation)
        if isinstance(node, ast.FunctionDef) and any(isinstance(d, ast.Name) for d in node.decorator_list):
            assert node.returns is not None
            found[node.name] = said(node.returns)
    return found


def said(annotation: ast.expr) -> str:
    text, _, nothing = ast.unparse(annotation).partition(" | ")
    return f"`{text}`" + " or none" * bool(nothing)


def verbs(family: type) -> dict[str, Any]:
    """What callers call, as the pages write it: arguments by place, those that must be named, and `…` for the rest."""
    public = {name: verb for name, verb in vars(family).items() if inspect.iscoroutinefunction(verb)}
    return {call(name, verb): verb for name, verb in public.items() if name[0] != "_" and name not in OF_THE_LIBRARY}


def call(name: str, verb: Any) -> str:
    given = [one for one in inspect.signature(verb).parameters.values() if one.name != "self"]
    by_place = [one.name for one in given if one.kind is not one.KEYWORD_ONLY]
    required = [f"{one.name}=" for one in given if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    others = ["…"] if len(by_place) + len(required) < len(given) else []
    return f"{name}({', '.join([*by_place, *required, *others])})"


def raised(verb: Any) -> set[str]:
    """The errors that the docstring names."""
    lines = re.findall(r"Raises ([^;.:]+)|^ +(\w+(?:, \w+)*): ", inspect.getdoc(verb) or "", re.M)
    words = {word for line in lines for part in line for word in re.findall(r"\w+", part)}
    return {word for word in words if hasattr(errors, word)}


@pytest.mark.parametrize(("page", "record"), RECORDS)
def test_a_record_is_told_field_by_field(page: str, record: type) -> None:
    rows = table(page, f"`{record.__name__}`", "field")

    assert {field: cells[0] for field, cells in rows.items()} == members(record)
    assert list(rows) == list(members(record))
    assert all(cells[1] for cells in rows.values())


@pytest.mark.parametrize(("page", "heading", "column", "words"), WORDS)
def test_every_status_and_flag_is_told(page: str, heading: str, column: str, words: set[StrEnum | str]) -> None:
    rows = table(page, heading, column)

    assert set(rows) == set(map(str, words))
    assert all(cells[0] for cells in rows.values())


def test_what_may_become_of_a_status_is_what_the_machine_allows() -> None:
    every = set(PaymentStatus)

    for status, cells in table("payments", "Statuses", "status").items():
        told = cells[2]
        named = {PaymentStatus(word) for word in codes(told)}
        if told.startswith("any"):
            named = every - named - {PaymentStatus(status)}
        assert named == ALLOWED[PaymentStatus(status)], status


@pytest.mark.parametrize(("page", "family"), VERBS)
def test_every_verb_is_told_with_what_it_takes_and_raises(page: str, family: type) -> None:
    rows = table(page, "Verbs", "verb")

    assert set(rows) == set(verbs(family))
    for verb, method in verbs(family).items():
        assert set(codes(rows[verb][1])) == raised(method), verb


def test_every_event_of_payments_is_told_with_its_fields() -> None:
    rows = table("payments", "Events", "event")
    kinds = [kind for kind in vars(events).values() if inspect.isclass(kind) and issubclass(kind, Event)]

    own = {kind.__name__: [name for name in members(kind) if name != "type"] for kind in kinds if kind is not Event}

    assert {event: codes(cells[0]) for event, cells in rows.items()} == own
