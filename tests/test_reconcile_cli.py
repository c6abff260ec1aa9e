"""`holdfast reconcile`: what it prints of deliveries and money, and how it ends."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.app import app
from holdfast.cli.exit_codes import ExitCode

HUBS = """
import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from holdfast import Holdfast, Money, Secrets
from holdfast.errors import NotSent
from holdfast.payments.provider import LineKind, StatementLine
from holdfast.testing import FakeMeetings, FakePayments

LONG_AGO = datetime(2026, 1, 5, 12, tzinfo=UTC)

class Listing(FakePayments):
    lines = ()

    async def list_deliveries(self, http, since):
        if self.down:
            raise NotSent(f"{self.name}: connection refused")
        return
        yield

    async def statement(self, http, since, until) -> AsyncIterator[StatementLine]:
        if self.down:
            raise NotSent(f"{self.name}: connection refused")
        for line in self.lines:
            yield line

def line(id, money, at=None, kind=LineKind.PAYMENT):
    at = at or datetime.now(UTC) - timedelta(minutes=1)
    due, reference = Money(money, "CHF"), "order\\x1b[31m-9"
    return StatementLine(kind=kind, vendor_id=id, payment_id=id, money=due, at=at, reference=reference)

def hub(*providers):
    return Holdfast(store="memory://", payments=list(providers), secret=Secrets("s"))

fine = hub(Listing(name="a"), FakePayments(name="b"))
orphaned = hub(Listing(name="a"))
orphaned.payments.providers["a"].lines = [line("p1", "120.00")]
older = hub(Listing(name="a"))
older.payments.providers["a"].lines = [line("p1", "120.00", LONG_AGO)]
down = hub(Listing(name="a", down=True))
class Listless(Listing):
    async def list_deliveries(self, http, since):
        return
        yield

listless = hub(Listless(name="a", down=True))
half = hub(Listing(name="a", down=True), Listing(name="c"))
half.payments.providers["c"].lines = [line("p1", "120.00")]
meeting = Holdfast(store="memory://", meetings=[FakeMeetings()], secret=Secrets("s"))
"""


@pytest.fixture(autouse=True)
def _hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the directory he is in."""
    (tmp_path / "hubs_with_money.py").write_text(HUBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def reconcile(name: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["reconcile", f"hubs_with_money:{name}", *options])


def test_books_that_agree_end_well() -> None:
    shown = reconcile("fine")

    assert shown.exit_code == ExitCode.OK
    assert "a: 0 seen, 0 of them missed" in shown.stdout
    assert "b: has no list of what it moved" in shown.stdout
    assert "0 of 0 differences are for a person to look at" in shown.stderr


def test_what_a_person_has_to_look_at_ends_with_a_problem() -> None:
    shown = reconcile("orphaned")

    assert shown.exit_code == ExitCode.PROBLEM
    assert "a: payment 120.00 CHF in 1" in shown.stdout
    [row] = [line for line in shown.stdout.splitlines() if "orphan" in line]
    assert row.startswith("LOOK  orphan  a  payment p1  of no payment known  ours -  theirs 120.00 CHF  2026-")
    assert "1 of 1 differences are for a person to look at" in shown.stderr


def test_a_vendors_words_move_no_cursor() -> None:
    assert "\x1b[31m" not in reconcile("orphaned").stdout


def test_a_program_gets_one_object() -> None:
    told = reconcile("orphaned", "--json")

    money = json.loads(told.stdout)["money"]
    [finding] = money["findings"]
    assert told.exit_code == ExitCode.PROBLEM
    assert money["needs_person"] is True
    assert (finding["kind"], finding["provider"], finding["theirs"], finding["settled"]) == (
        "orphan",
        "a",
        "120.00 CHF",
        False,
    )
    assert money["totals"] == [{"provider": "a", "kind": "payment", "money": "120.00 CHF", "lines": 1}]


def test_another_time_may_be_asked_for() -> None:
    day = reconcile("older")
    then = reconcile("older", "--since", "2026-01-05", "--until", "2026-01-06")
    backwards = reconcile("older", "--since", "2026-01-06", "--until", "2026-01-05")

    assert day.exit_code == ExitCode.OK
    assert then.exit_code == ExitCode.PROBLEM
    assert "money from 2026-01-05 00:00 UTC until 2026-01-06 00:00 UTC" in then.stdout
    assert "no time to compare" in str(backwards.exception)


def test_a_vendor_that_cannot_be_asked_is_told_and_the_others_are_compared() -> None:
    down = reconcile("down", "--json")
    half = reconcile("half")
    listless = reconcile("listless")

    assert listless.exit_code == ExitCode.UNREACHABLE
    assert "a: connection refused" in str(down.exception)  # `run` makes a sentence and an exit code of it
    assert json.loads(down.stdout)["money"]["unreachable"] == {"a": "a: connection refused"}
    assert half.exit_code == ExitCode.PROBLEM
    assert "payment p1" in half.stdout
    assert "a could not be asked: a: connection refused" in half.stderr


def test_a_hub_without_payments_has_no_money_to_compare() -> None:
    shown = reconcile("meeting")
    told = reconcile("meeting", "--json")

    assert shown.exit_code == ExitCode.OK
    assert "money" not in shown.stdout
    assert json.loads(told.stdout) == {"deliveries": {}, "money": None}
