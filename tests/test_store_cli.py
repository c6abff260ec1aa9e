"""`holdfast store` and `holdfast reconcile`: what they print where, and how they end."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.app import app
from holdfast.cli.exit_codes import ExitCode, exit_code
from holdfast.errors import HoldfastError
from holdfast.stores import NewJob, open_store


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'here.db'}"

    async def fill() -> None:
        async with open_store(url) as store:
            await store.jobs.add([NewJob(queue="deliveries", key=str(each), kind="lnbits") for each in range(3)])

    asyncio.run(fill())
    return url


@pytest.fixture
def backup(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "backup.zip"
    assert run("backup", str(file), "--store", url).exit_code == 0
    return file


def run(*arguments: str, **env: str | None) -> Result:
    quiet = {"COLUMNS": "200", "NO_COLOR": None, "FORCE_COLOR": None, "HOLDFAST_STORE": None}
    return CliRunner().invoke(app, ["store", *arguments], env=quiet | env)


def ended(result: Result) -> int:
    """With what the process would have ended."""
    if isinstance(result.exception, HoldfastError):
        return exit_code(result.exception)
    return result.exit_code


def test_a_backup_says_what_is_in_it(url: str, tmp_path: Path) -> None:
    shown = run("backup", str(tmp_path / "a.zip"), "--store", url)
    told = run("backup", str(tmp_path / "b.zip"), "--store", url, "--json")

    assert "deliveries/ready" in shown.stdout
    assert str(tmp_path / "a.zip") in shown.stderr
    assert json.loads(told.stdout)["jobs"] == {"deliveries/ready": 3}


def test_the_store_may_come_from_the_environment_where_its_password_shows_less(url: str, tmp_path: Path) -> None:
    result = run("backup", str(tmp_path / "a.zip"), HOLDFAST_STORE=url)

    assert result.exit_code == ExitCode.OK


def test_a_restored_store_is_the_same(backup: Path, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path / 'there.db'}"

    restored = run("restore", str(backup), "--store", there, "--json")
    verified = run("verify", "--store", there, "--json")

    assert json.loads(restored.stdout)["engine"] == "sqlite"
    assert json.loads(verified.stdout) == {"ok": True, "findings": []}
    assert "restored" in restored.stderr


def test_a_file_that_is_not_there_is_told_apart_from_one_that_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "letter.zip").write_text("Dear Ada")

    absent = run("verify", str(tmp_path / "absent.zip"))
    letter = run("verify", str(tmp_path / "letter.zip"))

    assert str(absent.exception) == f"{tmp_path / 'absent.zip'} cannot be read: No such file or directory"
    assert "is no backup, or only a part of one" in str(letter.exception)
    assert ended(absent) == ended(letter) == ExitCode.PROBLEM


def test_a_store_that_is_not_empty_is_refused_unless_it_is_to_be_replaced(backup: Path, url: str) -> None:
    refused = run("restore", str(backup), "--store", url)
    replaced = run("restore", str(backup), "--store", url, "--replace")

    assert ended(refused) == ExitCode.REFUSED
    assert replaced.exit_code == ExitCode.OK


def test_a_sound_backup_is_verified(backup: Path) -> None:
    shown, told = run("verify", str(backup)), run("verify", str(backup), "--json")

    assert "nothing is wrong" in shown.stdout
    assert (shown.exit_code, told.exit_code) == (ExitCode.OK, ExitCode.OK)
    assert json.loads(told.stdout)["backup"]["jobs"] == {"deliveries/ready": 3}


def test_damage_is_a_problem_and_is_told_with_examples(url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "here.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM payloads WHERE number > 1")

    shown, told = run("verify", "--store", url), run("verify", "--store", url, "--json")

    assert "2 x jobs without a payload: 2, 3" in shown.stdout
    assert shown.exit_code == ExitCode.PROBLEM
    assert json.loads(told.stdout)["findings"] == [
        {"what": "jobs without a payload", "count": 2, "examples": ["2", "3"]}
    ]


def test_what_is_no_backup_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no zip")

    assert ended(run("verify", str(tmp_path / "a.zip"))) == ExitCode.PROBLEM


def test_verify_wants_a_backup_or_a_store() -> None:
    assert run("verify").exit_code == ExitCode.USAGE


@pytest.mark.parametrize("store", ["memory://", "mysql://shop:hunter2@db/x", "nothing"])
def test_what_cannot_be_backed_up_is_wrong_usage_and_shows_no_password(store: str, tmp_path: Path) -> None:
    result = run("backup", str(tmp_path / "a.zip"), "--store", store)

    assert ended(result) == ExitCode.USAGE
    assert "hunter2" not in str(result.exception)


def test_a_store_that_is_down_is_unreachable(tmp_path: Path) -> None:
    result = run("backup", str(tmp_path / "a.zip"), "--store", "redis://127.0.0.1:1")

    assert ended(result) == ExitCode.UNREACHABLE
    assert list(tmp_path.iterdir()) == []


def test_a_drill_says_how_long_each_step_took(backup: Path, tmp_path: Path) -> None:
    shown = run("drill", str(backup), "--store", f"sqlite:///{tmp_path / 'one.db'}")
    told = run("drill", str(backup), "--store", f"sqlite:///{tmp_path / 'two.db'}", "--json")

    assert "recovery time" in shown.stdout
    found = json.loads(told.stdout)
    assert found["ok"]
    assert found["rows"] == 3
    assert found["recovery_seconds"] > 0


HUB = """
from collections.abc import AsyncIterator
from holdfast import Holdfast
from holdfast.testing import FakePayments
from holdfast.webhooks.request import Delivery

class Listing(FakePayments):
    async def list_deliveries(self, http, since) -> AsyncIterator[Delivery]:
        yield Delivery(type="paid", dedup_key="a")

deaf = Holdfast(store="memory://", payments=[FakePayments()])
hub = Holdfast(store="memory://", payments=[Listing()])
"""


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the directory he is in."""
    (tmp_path / "hubs_of_mine.py").write_text(HUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "hubs_of_mine"


def test_vendors_are_asked_by_hand_what_was_missed(hubs: str) -> None:
    told = CliRunner().invoke(app, ["reconcile", f"{hubs}:hub", "--json"])
    shown = CliRunner().invoke(app, ["reconcile", f"{hubs}:hub"])
    nobody = CliRunner().invoke(app, ["reconcile", f"{hubs}:deaf"])

    assert list(json.loads(told.stdout)["deliveries"].values()) == [{"seen": 1, "missed": 1}]
    assert "1 seen, 0 of them missed" in shown.stdout  # the first time brought it in
    assert "no vendor of this hub can be asked" in nobody.stdout


def test_an_error_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "holdfast", "store", "verify", str(tmp_path / "none.zip")],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"NO_COLOR": "1"},
        timeout=60,
    )

    assert said.returncode == ExitCode.PROBLEM
    assert said.stderr.startswith("Error: ")
    assert "Traceback" not in said.stderr
