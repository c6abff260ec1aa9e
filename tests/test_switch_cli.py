"""`holdfast switch`: what it changes for everybody, what it lists, and how it ends."""

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from holdfast import Holdfast, Secrets
from holdfast.cli.app import app
from holdfast.cli.exit_codes import ExitCode
from holdfast.errors import InvalidInput
from holdfast.routing import Switched
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments

HUB = """
from holdfast import Holdfast, Secrets
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments

hub = Holdfast(
    store="sqlite:///{path}",
    secret=Secrets("s"),
    payments=[FakePayments(name="stripe"), FakePayments(name="lnbits")],
    meetings=[FakeMeetings(name="jaas")],
    notifications=[FakeNotifications(channel="email", name="smtp")],
)
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "holdfast.db"
    # A module of its own name for each test: Python keeps those it has seen.
    module = f"switched_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(HUB.format(path=path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP", module)
    monkeypatch.setenv("HOLDFAST_BY", "ada")
    return path


def switch(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["switch", f"{os.environ['SHOP']}:hub", *arguments])


def another_process(path: Path) -> dict[str, Switched]:
    async def look() -> dict[str, Switched]:
        hub = Holdfast(
            store=f"sqlite:///{path}",
            secret=Secrets("s"),
            payments=[FakePayments(name="stripe"), FakePayments(name="lnbits")],
            meetings=[FakeMeetings(name="jaas")],
            notifications=[FakeNotifications(channel="email", name="smtp")],
        )
        async with hub:
            return {
                "payments": await hub.payments.switches(),
                "meetings": await hub.meetings.switches(),
                "notifications": await hub.notifications.switches(),
            }

    return asyncio.run(look())


def test_a_provider_is_off_for_every_process_until_its_time_is_over(path: Path) -> None:
    said = switch("payments", "lnbits", "--off", "--reason", "their incident", "--ttl", "1h")

    [off] = another_process(path)["payments"].off.values()
    assert said.exit_code == ExitCode.OK
    assert said.stderr.startswith("payments lnbits: off until 20")
    assert said.stderr.rstrip().endswith("UTC, by ada: their incident")
    assert (off.name, off.actor, off.reason) == ("lnbits", "ada", "their incident")
    assert off.until == off.at + timedelta(hours=1)


def test_every_family_has_switches(path: Path) -> None:
    assert switch("meetings", "jaas", "--off", "--reason", "r").exit_code == ExitCode.OK
    assert switch("notifications", "smtp", "--weight", "0", "--reason", "r").exit_code == ExitCode.OK

    there = another_process(path)
    assert set(there["meetings"].off) == {"jaas"}
    assert there["notifications"].weights["smtp"].weight == 0
    assert there["payments"] == Switched()


def test_what_was_switched_is_taken_back(path: Path) -> None:
    switch("payments", "lnbits", "--off", "--weight", "5", "--reason", "r")
    switch("payments", "lnbits", "--reset", "--reason", "it is over", "--by", "bob")

    board = another_process(path)["payments"]
    assert (board.off, board.weights) == ({}, {})
    assert [change.actor for change in board.changes] == ["bob", "ada"]


def test_without_a_provider_it_lists_them_all() -> None:
    switch("payments", "lnbits", "--off", "--reason", "their \x1b[31mincident")
    switch("payments", "lnbits", "--weight", "5", "--reason", "a canary", "--by", "bob")

    shown = switch()
    [row] = [line for line in shown.stdout.splitlines() if "lnbits" in line]
    assert shown.exit_code == ExitCode.OK
    assert row.split(maxsplit=3) == [
        "payments",
        "lnbits",
        "off",
        "off, by ada: their \\x1b[31mincident; weight 5, by bob: a canary",
    ]
    assert [line.split() for line in shown.stdout.splitlines() if line != row] == [
        ["payments", "stripe", "on"],
        ["meetings", "jaas", "on"],
        ["notifications", "smtp", "on"],
    ]
    assert "jaas" not in switch("payments").stdout


def test_a_program_gets_one_object_for_each_provider() -> None:
    changed = switch("payments", "lnbits", "--off", "--weight", "5", "--reason", "r", "--json")
    told = [json.loads(line) for line in switch("payments", "--json").stdout.splitlines()]

    said = json.loads(changed.stdout)
    assert (said["family"], said["provider"], said["on"], said["weight"]) == ("payments", "lnbits", False, 5)
    assert datetime.fromisoformat(said["at"]).tzinfo is not None
    assert [(one["provider"], one["on"], one["weight"]) for one in told] == [
        ("stripe", True, None),
        ("lnbits", False, 5),
    ]
    assert [one["reason"] for one in told[1]["because"]] == ["r"]


def test_what_was_changed_is_listed_the_newest_first() -> None:
    switch("payments", "lnbits", "--off", "--reason", "their incident")
    switch("payments", "lnbits", "--on", "--reason", "they are back", "--by", "bob")

    rows = switch("payments", "--past").stdout.splitlines()
    told = [json.loads(line) for line in switch("--past", "--json").stdout.splitlines()]
    assert [row.split("lnbits")[1].strip() for row in rows] == [
        "on, by bob: they are back",
        "off, by ada: their incident",
    ]
    assert [(one["family"], one["on"]) for one in told] == [("payments", True), ("payments", False)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["payments", "lnbits", "--off"], "say why with --reason"),
        (["payments", "lnbits"], "say what is switched"),
        (["--off", "--reason", "r"], "name the family and the provider"),
        (["payments", "--off", "--reason", "r"], "name the family and the provider"),
        (["payments", "lnbits", "--off", "--reason", "r", "--ttl", "soon"], "is no duration"),
        (["games", "lnbits", "--off", "--reason", "r"], "games"),
    ],
    ids=str,
)
def test_what_means_nothing_is_wrong_usage(arguments: list[str], words: str) -> None:
    said = switch(*arguments)

    assert said.exit_code == ExitCode.USAGE
    assert words in " ".join(said.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["payments", "zoom", "--off"], "no payment provider zoom; there are stripe, lnbits"),
        (["payments", "lnbits", "--off", "--reset"], "reset alone"),
        (["payments", "lnbits", "--weight", "-1"], "a weight is a whole number from 0"),
        (["payments", "lnbits", "--reset", "--ttl", "1h"], "ttl"),
    ],
    ids=str,
)
def test_what_the_family_refuses_is_wrong_usage_too(arguments: list[str], words: str) -> None:
    said = switch(*arguments, "--reason", "r")

    assert isinstance(said.exception, InvalidInput)  # `run` makes a sentence and an exit code of it
    assert words in str(said.exception)
