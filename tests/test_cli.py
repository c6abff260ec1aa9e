"""The command line: what it prints where, how it ends, and what it says when something is wrong."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from holdfast import Policy, __version__, errors
from holdfast.cli import main, output
from holdfast.cli.app import COMMANDS, app
from holdfast.cli.exit_codes import ExitCode, exit_code
from holdfast.cli.values import duration, from_module
from holdfast.errors import CircuitOpen, HoldfastError, InvalidInput, MissingExtra, ReferenceConflict, StoreUnavailable
from holdfast.resilience.simulate import Failure, simulate

SHORT = ("simulate", "--outage", "1m", "--rps", "5")
MINE = """
from holdfast import Guard, Policy, Retry

careful = Policy(retry=None, breaker=None)
weather = Guard("weather", careful)
class shop:
    policy = careful
number = 7
"""


def run(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(
        app, arguments, env={"COLUMNS": "200", "NO_COLOR": None, "FORCE_COLOR": None} | (env or {})
    )


def figures(*arguments: str) -> dict[str, object]:
    result = run(*SHORT, *arguments, "--json")
    assert result.exit_code == 0, result.output
    value: dict[str, object] = json.loads(result.stdout)
    return value


def called(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, encoding="utf-8", env=env | environment, timeout=60
    )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the directory he is in."""
    name = "policies_of_mine"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


# What it prints.


def test_the_chart_goes_to_stdout_and_nothing_to_stderr() -> None:
    result = run(*SHORT)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("1 min of outage at 5 calls a second\n\noutage ")
    assert result.stdout.rstrip() == (
        "1 min of outage at 5 calls a second\n\n" + simulate(Policy(), rps=5, outage=60).chart(110)
    )


def test_json_is_one_line_with_the_figures_and_every_second() -> None:
    expected = simulate(Policy(), rps=5, outage=60, seed=3)

    result = run(*SHORT, "--seed", "3", "--json")

    told = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert told["outage"] == {"start": 60, "seconds": 60}
    for name in ("rps", "offered", "sent", "sent_over_offered", "amplification", "recovery", "longest_open"):
        assert told[name] == getattr(expected, name)
    assert [each["at"] for each in told["changes"]] == [change.at for change in expected.changes]
    assert len(told["seconds"]) == len(expected.seconds)
    assert told["seconds"][60] == {
        name: getattr(expected.seconds[60], name)
        for name in ("offered", "sent", "succeeded", "rejected", "retried", "state")
    }


def test_the_picture_is_written_beside_the_chart_and_said_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "out.svg"

    result = run(*SHORT, "--svg", str(file))

    assert file.read_text(encoding="utf-8") == simulate(Policy(), rps=5, outage=60).svg()
    assert result.stderr == f"drawn to {file}\n"
    assert result.stdout == run(*SHORT).stdout


@pytest.mark.parametrize(("columns", "longest"), [("40", 40), ("90", 90), ("500", 120), ("5", 30)])
def test_the_chart_is_as_wide_as_the_terminal_within_reason(columns: str, longest: int) -> None:
    lines = run(*SHORT, env={"COLUMNS": columns}).stdout.splitlines()[2:9]

    assert longest * 0.6 < max(map(len, lines)) <= longest


def test_colours_are_for_those_who_see_them_and_want_them() -> None:
    assert "\x1b[" not in run(*SHORT).stdout
    assert "\x1b[31m" in run(*SHORT, env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout
    assert "\x1b[" not in run(*SHORT, env={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}).stdout


class Terminal(io.StringIO):
    """Somebody watches."""

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_while_a_person_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[float, str] = {}
    for patience in (-1.0, 60.0):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(output, "_PATIENCE", patience)
        monkeypatch.setenv("TERM", "xterm")

        with output.progress("simulating") as show:
            show(0.5)
        shown[patience] = terminal.getvalue()

    assert "simulating" in shown[-1.0]
    assert "simulating" not in shown[60.0]


@pytest.mark.parametrize("somebody", [True, False])
def test_who_waits_is_told_for_what(monkeypatch: pytest.MonkeyPatch, somebody: bool) -> None:
    screen = Terminal() if somebody else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")

    with output.waiting("looking through the store"):
        pass

    assert ("looking through the store" in screen.getvalue()) == somebody


def test_nobody_who_is_not_there_is_shown_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(output, "_PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")

    with output.progress("simulating") as show:
        show(0.5)

    assert file.getvalue() == ""


# What it is told.


def test_attempts_and_timeout_change_the_policy() -> None:
    repeated, single = figures("--failure", "40%"), figures("--failure", "40%", "--attempts", "1")
    patient, brisk = figures("--failure", "silent"), figures("--failure", "silent", "--timeout", "500ms")

    assert single["amplification"] == 1.0
    assert isinstance(repeated["amplification"], float)
    assert repeated["amplification"] > 1.0
    assert isinstance(patient["sent"], int)
    assert isinstance(brisk["sent"], int)
    assert patient["sent"] > 2 * brisk["sent"]


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("errors", Failure()),
        ("unreachable", Failure(cause=errors.NotSent.cause, status=None, after=0)),
        ("silent", Failure(status=None, after=float("inf"))),
        ("40%", Failure(share=0.4)),
        ("2.5%", Failure(share=0.025)),
    ],
)
def test_every_kind_of_failure_has_its_word(word: str, failure: Failure) -> None:
    expected = simulate(Policy(), rps=5, outage=60, failure=failure)

    assert figures("--failure", word)["sent"] == expected.sent


@pytest.mark.parametrize("name", ["careful", "weather", "shop.policy"])
def test_a_policy_of_mine_is_found_in_the_directory_i_am_in(mine: str, name: str) -> None:
    told = figures("--policy", f"{mine}:{name}")

    assert told["sent"] == told["offered"]
    assert told["changes"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", timedelta(minutes=10)),
        ("30s", timedelta(seconds=30)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(milliseconds=1500)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


# What it refuses.


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-1m", "10x", "1m2", "1,5s", "infs", "9" * 30 + "d"])
def test_anything_else_is_no_duration_and_is_told_what_would_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"write a number and d, h, m, s or ms|longer than any"):
        duration(text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--outage", "10", "--rps", "5"], "Invalid value for '--outage': '10' is no duration"),
        (["--rps", "5"], "Missing option '--outage'"),
        (["--outage", "1m", "--rps", "5", "--failure", "often"], "'often' is none of errors, unreachable, silent"),
        (["--outage", "1m", "--rps", "5", "--failure", "140%"], "no share of calls such as 40%"),
        (["--outage", "1m", "--rps", "5", "--policy", "nowhere"], "write package.module:name"),
        (["--outage", "1m", "--rps", "5", "--policy", "nowhere.at_all:it"], "there is no module 'nowhere'"),
        (["--outage", "1m", "--rps", "5", "--policy", "json:it"], "json has no 'it'"),
        (["--outage", "1m", "--rps", "5", "--policy", "json:dumps"], "is a function, and neither a Policy nor a Guard"),
        (["--outage", "1m", "--rps", "5", "--svg", "no/such/place.svg"], "there is no directory 'no/such'"),
        (["--outage", "1m", "--rps", "5", "--svg", "a" * 300], "cannot be written: File name too long"),
    ],
)
def test_wrong_usage_is_explained_on_stderr_and_ends_with_2(arguments: list[str], complaint: str) -> None:
    result = run("simulate", *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert complaint in result.stderr


def test_what_a_module_of_mine_misses_itself_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "misses_something.py").write_text("import surely_not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        from_module("misses_something:policy")


def test_an_error_of_ours_is_one_sentence_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["holdfast", "simulate", "--outage", "1m", "--rps", "0"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == ExitCode.USAGE
    assert capsys.readouterr().err == "Error: rps is above 0 and up to 100,000 calls a second, not 0\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MissingExtra("redis"), 2),
        (InvalidInput("no"), 2),
        (CircuitOpen("not now"), 3),
        (StoreUnavailable("down"), 3),
        (errors.Rejected("no"), 4),
        (ReferenceConflict("payment", "a", "other money"), 4),
        (HoldfastError("anything else"), 1),
    ],
)
def test_an_error_decides_how_the_command_ends(error: HoldfastError, code: int) -> None:
    assert exit_code(error) == code


# As a process.


def test_the_module_is_the_command() -> None:
    ended = called(["-m", "holdfast", *SHORT, "--json"])

    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["offered"] == 300


def test_where_only_ascii_can_be_written_only_ascii_is() -> None:
    ended = called(["-m", "holdfast", *SHORT], PYTHONIOENCODING="ascii:strict")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.isascii()
    assert "\noutage    ..." in ended.stdout


@pytest.mark.parametrize("package", ["rich", "typer"])
def test_without_the_extra_it_says_how_to_install_it(package: str) -> None:
    without = f"import sys; sys.modules['{package}'] = None; from holdfast.cli import main; main()"

    ended = called(["-c", without, *SHORT])

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == f"holdfast: {MissingExtra('cli')}\n"
    assert 'pip install "holdfast[cli]"' in ended.stderr


def test_a_module_of_the_users_that_misses_a_part_of_the_extra_is_not_told_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "shop_of_parts.py").write_text("import rich.nothing\n")

    ended = called(["-m", "holdfast", "inbox", "list", "shop_of_parts:hub"], PYTHONPATH=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stderr.endswith("ModuleNotFoundError: No module named 'rich.nothing'\n")


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"{__version__}\n"


def test_the_help_names_every_command_and_the_exit_codes() -> None:
    result = run("--help")

    assert result.exit_code == 0
    assert "simulate" in result.stdout
    assert "2 wrong usage" in result.stdout


# What it costs.

IMPORTED = """
import atexit, sys
sys.argv[0] = "holdfast"
atexit.register(lambda: print(*sorted(sys.modules), sep="\\n", file=open({file!r}, "w")))
from holdfast.cli import main
main()
"""
HEAVY = {"asyncio", "httpx", "pydantic", "rich", "sqlite3", "tenacity"}


def imported(folder: Path, *arguments: str) -> set[str]:
    """The modules this command line needed."""
    file = str(folder / "modules")
    called(["-c", IMPORTED.format(file=file), *arguments])
    return set(Path(file).read_text().split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("wroker",), ()])
def test_help_and_a_word_that_is_no_command_import_no_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    modules = imported(tmp_path, *arguments)

    ours = {name for name in modules if name.partition(".")[0] == "holdfast"}
    assert ours == {
        "holdfast",
        *(f"holdfast.{name}" for name in ("cli", "cli.app", "cli.exit_codes", "errors", "outcome")),
    }
    assert modules.isdisjoint(HEAVY - ({"pydantic"} if arguments == ("--version",) else set()))


@pytest.mark.parametrize("arguments", [("--help",), ("--wrong",)])
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"drift", "fake"}))
def test_a_command_is_explained_without_the_hub_it_works_on(
    tmp_path: Path, command: str, arguments: tuple[str, ...]
) -> None:
    modules = imported(tmp_path, command, *arguments)

    assert f"holdfast.cli.{command}" in modules
    assert modules.isdisjoint({"holdfast.hub", "holdfast.http", "httpx", "rich"})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_says_of_a_command_what_the_command_says_of_itself(command: str) -> None:
    said = " ".join(run(command, "--help").stdout.split())

    assert f" {COMMANDS[command][1].removesuffix('.')}" in said
