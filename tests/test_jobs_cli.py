"""`holdfast inbox` and `holdfast dlq`: people look after jobs, and no handler runs meanwhile."""

import asyncio
import base64
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.app import app
from holdfast.cli.exit_codes import ExitCode, exit_code
from holdfast.cli.jobs import moment
from holdfast.errors import AlreadyReplayed, NotFound
from holdfast.stores import Job, JobState, NewJob, Store, open_store

T = TypeVar("T")

HUB = """
from holdfast import Holdfast, PaymentPaid, Secrets
from holdfast.testing import FakePayments

hub = Holdfast(store="sqlite:///{file}", secret=Secrets(["x" * 32]), payments=[FakePayments()])

@hub.on(PaymentPaid, name="confirm")
async def confirm(paid: PaymentPaid) -> None:
    raise AssertionError("no handler runs here")
"""
WHY = ("--reason", "the vendor is back")


class Desk:
    """A hub of the user's, a store with dead letters in it, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'store.db'}"
        self.target = "shop_with_dead_letters:hub"
        (folder / "shop_with_dead_letters.py").write_text(HUB.format(file=folder / "store.db"))

    def __call__(self, group: str, command: str, *arguments: str, columns: int = 250, **options: Any) -> Result:
        env = {"COLUMNS": str(columns), "NO_COLOR": None, "FORCE_COLOR": None, "HOLDFAST_BY": None}
        return CliRunner().invoke(app, [group, command, self.target, *arguments], env=env, **options)

    def lines(self, group: str, command: str, *arguments: str) -> list[dict[str, Any]]:
        result = self(group, command, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_store(self.url) as store:
                return await work(store)

        return asyncio.run(run())

    def jobs(self) -> dict[str, Job]:
        async def found(store: Store) -> dict[str, Job]:
            return {job.key: job for job in await store.jobs.list()}

        return self.store(found)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "shop_with_dead_letters", raising=False)

    async def fill(store: Store) -> None:
        body = b'{"email": "ada@example.com", "amount": 5}'
        headers = {"type": "paid", "fact.pin": "4711"}
        await store.jobs.add(
            [
                NewJob(queue="events", key=key, kind=f"kind.{key}", handler="h", body=body, headers=headers)
                for key in ("a", "b", "c")
            ]
        )
        for job in await store.jobs.claim(["events"], owner="w", limit=10, lease=10):
            await store.jobs.bury(job, reason="attempts", error=f"TimeoutError: \x1b[2J{job.key} was late")
        await store.jobs.add([NewJob(queue="events", key="d", kind="kind.d")])

    desk.store(fill)
    return desk


# Looking.


def test_half_a_character_is_shown_escaped(desk: Desk) -> None:
    async def add(store: Store) -> None:
        await store.jobs.add([NewJob(queue="events", key="half", kind="kind.e", body=b'{"state": "\\ud83d"}')])

    desk.store(add)

    result = desk("inbox", "show", desk.jobs()["half"].id)

    assert result.exit_code == 0
    assert 'body: {"state": "\\ud83d"}' in result.stdout


def test_the_inbox_is_listed_newest_first_and_without_what_jobs_carry(desk: Desk) -> None:
    listed = desk.lines("inbox", "list")

    assert [(job["kind"], job["state"]) for job in listed] == [
        ("kind.d", "ready"),
        ("kind.c", "dead"),
        ("kind.b", "dead"),
        ("kind.a", "dead"),
    ]
    assert not {"body", "headers"} & listed[0].keys()


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ((), "cba"),
        (("--kind", "kind.b"), "b"),
        (("--error", "a was late"), "a"),
        (("--dead-by", "attempts", "--handler", "h", "--queue", "events", "--limit", "2"), "cb"),
        (("--until", "2020-01-01"), ""),
        (("--since", "2020-01-01T00:00+01:00"), "cba"),
    ],
)
def test_dead_letters_are_listed_by_what_is_asked_for(desk: Desk, options: tuple[str, ...], keys: str) -> None:
    assert [job["kind"].removeprefix("kind.") for job in desk.lines("dlq", "list", *options)] == list(keys)


def test_a_list_goes_on_behind_a_job(desk: Desk) -> None:
    first, *rest = desk.lines("dlq", "list")

    assert desk.lines("dlq", "list", "--after", first["id"]) == rest


def test_a_list_for_people_holds_no_body_and_moves_no_cursor(desk: Desk) -> None:
    result = desk("dlq", "list")

    assert result.exit_code == 0
    assert "TimeoutError: \\x1b[2Jb was late" in result.stdout
    assert "\x1b" not in result.stdout
    assert "ada@example.com" not in result.stdout


def test_a_list_for_people_cuts_nothing_off_however_narrow_it_is(desk: Desk) -> None:
    result = desk("dlq", "list", "--kind", "kind.b", columns=40)

    [head, row] = result.stdout.splitlines()
    assert head.split()[:2] == ["id", "queue"]
    job = desk.jobs()["b"]
    assert row.split()[:5] == [job.id, "events", "kind.b", "h", "dead"]
    assert f"{job.created_at:%Y-%m-%d %H:%M:%SZ}" in row
    assert row.endswith("TimeoutError: \\x1b[2Jb was late")


def test_a_job_is_shown_without_what_is_private(desk: Desk) -> None:
    job = desk.jobs()["a"]

    [shown] = desk.lines("inbox", "show", job.id)
    text = desk("inbox", "show", job.id).stdout

    assert shown["body"] == {"email": "***", "amount": 5}
    assert shown["headers"] == {"type": "paid"}
    assert "4711" not in text
    assert "ada@example.com" not in text
    assert 'body: {"email": "***", "amount": 5}' in text
    assert desk.lines("dlq", "audit") == []


def test_a_raw_body_is_shown_to_who_says_why_and_that_is_written_down(desk: Desk) -> None:
    job = desk.jobs()["a"]
    assert desk("inbox", "show", job.id, "--raw").exit_code == ExitCode.USAGE

    result = desk("inbox", "show", job.id, "--raw", "--by", "ada", "--reason", "case 7")
    [as_json] = desk.lines("inbox", "show", job.id, "--raw", "--reason", "case 7")

    assert result.stdout_bytes == job.body
    assert base64.b64decode(as_json["raw"]) == job.body
    mine, hers = desk.lines("dlq", "audit")
    assert (hers["what"], hers["by"], hers["reason"], hers["facts"]["job"]) == ("reveal", "ada", "case 7", job.id)
    assert mine["by"] == getpass.getuser()


# Running again.


def test_a_replay_is_written_down_and_runs_no_handler(desk: Desk) -> None:
    jobs = desk.jobs()

    result = desk("inbox", "replay", jobs["a"].id, jobs["d"].id, "--by", "ada", *WHY)

    assert result.exit_code == 0, result.output
    assert f"job {jobs['a'].id} is ready again, generation 1" in result.stderr
    assert f"job {jobs['d'].id} is ready already, generation 0" in result.stderr
    after = desk.jobs()
    assert [(after[key].state, after[key].generation) for key in "abd"] == [
        (JobState.READY, 1),
        (JobState.DEAD, 0),
        (JobState.READY, 0),
    ]
    assert {entry["facts"]["result"] for entry in desk.lines("dlq", "audit")} == {"replayed", "active"}


def test_a_dry_run_says_how_many_and_changes_nothing(desk: Desk) -> None:
    before = desk.jobs()

    assert desk("dlq", "redrive", "--dry-run", "--error", "late").stdout == "3 jobs fit\n"

    assert desk.jobs() == before
    assert desk.lines("dlq", "audit") == []


def test_a_redrive_says_what_came_of_it_and_repeated_does_nothing(desk: Desk) -> None:
    arguments = ("--id", "friday", "--by", "ada", *WHY, "--kind", "kind.b")

    [first] = desk.lines("dlq", "redrive", *arguments)
    again = desk("dlq", "redrive", *arguments)

    assert first == {"id": "friday", "state": "done", "fits": 1, "replayed": 1, "skipped": 0, "why": ""}
    assert again.stdout == "done, 1 replayed\n"
    assert "go on with --id friday" in again.stderr
    assert {key: job.generation for key, job in desk.jobs().items()} == {"a": 0, "b": 1, "c": 0, "d": 0}
    [entry] = desk.lines("dlq", "audit")
    assert (entry["what"], entry["by"], entry["facts"]["id"]) == ("redrive", "ada", "friday")


def test_a_redrive_of_named_jobs_leaves_the_others(desk: Desk) -> None:
    desk.lines("dlq", "redrive", desk.jobs()["c"].id, *WHY)

    assert {key: job.generation for key, job in desk.jobs().items()} == {"a": 0, "b": 0, "c": 1, "d": 0}


def test_a_canary_nobody_runs_ends_with_a_problem(desk: Desk) -> None:
    result = desk("dlq", "redrive", "--canary", "1", "--canary-timeout", "0.001", *WHY)

    assert result.exit_code == ExitCode.PROBLEM
    assert result.stdout.startswith("stopped, 1 replayed: not done within 0.001 s, still ready: job ")


@pytest.mark.parametrize("command", [("dlq", "redrive"), ("dlq", "drop"), ("inbox", "replay", "1")])
def test_nothing_is_done_for_no_reason(desk: Desk, command: tuple[str, ...]) -> None:
    before = desk.jobs()

    assert desk(*command).exit_code == ExitCode.USAGE

    assert desk.jobs() == before


# Giving up.


def test_dead_letters_are_dropped_when_somebody_says_yes(desk: Desk) -> None:
    refused = desk("dlq", "drop", "--kind", "kind.a", *WHY, input="n\n")
    assert (refused.exit_code, len(desk.jobs())) == (ExitCode.PROBLEM, 4)

    asked = desk("dlq", "drop", "--kind", "kind.a", *WHY, input="y\n")
    assert "Drop 1 dead letters for good?" in asked.stderr
    assert asked.stdout.endswith("dropped 1\n")
    assert desk.lines("dlq", "drop", "--yes", *WHY) == [{"dropped": 2}]

    assert desk.jobs().keys() == {"d"}
    assert [entry["what"] for entry in desk.lines("dlq", "audit")] == ["drop", "drop"]
    assert f"drop by {getpass.getuser()}: the vendor is back" in desk("dlq", "audit").stdout


# What goes wrong.


def test_a_time_is_read_as_utc_unless_it_names_a_zone(desk: Desk) -> None:
    assert moment("2026-02-28") == datetime(2026, 2, 28, tzinfo=UTC)
    assert moment("2026-02-28T14:30+01:00") == datetime(2026, 2, 28, 13, 30, tzinfo=UTC)
    assert desk("dlq", "list", "--since", "yesterday").exit_code == ExitCode.USAGE


def test_a_job_that_is_not_there_is_a_problem_and_one_that_was_replayed_is_a_conflict(desk: Desk) -> None:
    result = desk("inbox", "show", "4711")

    assert isinstance(result.exception, NotFound)
    assert exit_code(result.exception) == ExitCode.PROBLEM
    assert exit_code(AlreadyReplayed("7", 2)) == ExitCode.REFUSED
