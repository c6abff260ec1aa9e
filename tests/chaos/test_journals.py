"""What is written down, and read again."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from chaos import history
from chaos.journal import Journal, read
from chaos.points import VARIABLE, Points, every


def _write_much(path: Path, name: str) -> None:
    journal = Journal(path)
    for number in range(200):
        journal.write("line", name=name, number=number, padding="x" * 300)


def test_processes_that_write_at_once_write_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_much, args=(tmp_path / "j", name)) for name in "ab"]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    lines = read(tmp_path / "j")
    assert sorted((line["name"], line["number"]) for line in lines) == [(n, i) for n in "ab" for i in range(200)]


def test_nobody_wrote_means_no_lines(tmp_path: Path) -> None:
    assert read(tmp_path / "missing") == []


def test_the_vendor_knows_each_delivery_with_all_its_answers(tmp_path: Path) -> None:
    notes = Journal(tmp_path / "vendor.jsonl")
    for status in (None, 503, 200):
        notes.write("sent", id="e1", order="o", seq=4, mode="plain")
        notes.write("answer", id="e1", status=status)
    notes.write("sent", id="e2", order="", seq=0, mode="slow", variants=["", "other"])
    notes.sync()
    notes.close()

    found = history.sent(tmp_path / "vendor.jsonl")

    assert found["e1"].answers == (None, 503, 200)
    assert found["e1"].acked
    assert (found["e2"].acked, found["e2"].variants) == (False, ("", "other"))


def test_a_run_without_an_end_is_one_whose_process_died() -> None:
    about = {"pid": 7, "job": "1", "token": 1}
    start = {"what": "start", "at": 1.0, "queue": "events", "key": "chaos/e1/count", **about}
    start |= {"generation": 0, "attempts": 0, "losses": 0}
    again = start | {"at": 2.0, "token": 2, "pid": 8}
    end = {"what": "end", "at": 2.5, "outcome": "done", "job": "1", "token": 2, "pid": 8}
    claim = {"what": "claim", "asked": 0.8, "at": 0.9, **about}

    runs, claims, changes = history.work([again, start, end, claim, {"what": "ready"}])

    assert [(run.id, run.ended, run.outcome) for run in runs] == [("e1", None, ""), ("e1", 2.5, "done")]
    assert [(each.job, each.token) for each in claims] == [("1", 1)]
    assert changes == []


def test_faults_are_read_from_those_who_did_them_and_from_those_who_died() -> None:
    lines = [{"what": "died", "pid": 3, "at": 1.5, "how": "mark.after"}, {"what": "outage", "at": 2.0, "until": 3.0}]

    died, outage = history.faults([*lines, {"what": "sent"}])

    assert (died.what, died.pid, died.how) == ("died", 3, "mark.after")
    assert (outage.at, outage.until) == (2.0, 3.0)


def _reach(path: Path, place: str, times: int) -> None:
    points = Points.from_environment(Journal(path))
    for _ in range(times):
        points.reach("claim.before")
        points.reach(place)


@pytest.mark.parametrize(("times", "ended"), [(2, 0), (3, -signal.SIGKILL)])
def test_a_process_dies_the_third_time_it_is_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, ended: int
) -> None:
    monkeypatch.setenv(VARIABLE, "mark.after:3")
    process = multiprocessing.get_context("spawn").Process(target=_reach, args=(tmp_path / "j", "mark.after", times))

    process.start()
    process.join()

    assert process.exitcode == ended
    assert [line["how"] for line in read(tmp_path / "j")] == ["mark.after"] * (ended != 0)


def test_without_the_variable_nobody_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    Points.from_environment(Journal(tmp_path / "j")).reach("mark.after")

    assert read(tmp_path / "j") == []
    assert os.getpid() > 0


def test_every_place_has_two_sides() -> None:
    assert every(("mark", "ack")) == ["mark.before", "mark.after", "ack.before", "ack.after"]
    assert json.dumps(every(())) == "[]"


def test_who_died_while_it_purged_may_have_purged() -> None:
    begun: dict[str, object] = {"what": "purging"}
    nothing: dict[str, object] = {"what": "purged", "jobs": 0}

    assert not history.may_have_purged([])
    assert not history.may_have_purged([begun, nothing, begun, nothing])
    assert history.may_have_purged([begun, nothing, begun])
    assert history.may_have_purged([begun, {"what": "purged", "jobs": 3}])
