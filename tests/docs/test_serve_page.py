"""The page on serving fake vendors: its command, its program with the official SDK, and its doors."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.docs.pages import DOCS, fences
from tests.docs.test_pytest_pages import missing
from tests.servers.environments import environment

PAGE = (DOCS / "how-to" / "serve-fake-vendors.md").read_text()
[(COMMAND, PRINTED)] = [
    (text, output or "") for _, text, output in fences(PAGE) if text.startswith("holdfast fake serve")
]
[(PROGRAM, SAID)] = [(text, output or "") for _, text, output in fences(PAGE) if text.startswith("# buy.py")]
POSTS = re.findall(r"^curl -X POST \$FAKE(\S+) -d '(.+)'$", PAGE, re.M)


@contextmanager
def serving(directory: Path) -> Generator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The page's command, run in this directory; what is in its port file."""
    command = [sys.executable, "-m", "holdfast", *shlex.split(COMMAND)[1:]]
    # Wide enough that no line is broken.
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"COLUMNS": "300"}
    ) as process:
        assert process.stderr is not None
        try:
            assert "Ctrl-C ends it" in process.stderr.readline()
            yield json.loads((directory / "ports.json").read_text()), process
        finally:
            process.terminate()


def test_the_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, process):
        process.terminate()
        printed, _ = process.communicate(timeout=60)

    assert missing(PRINTED, printed.splitlines()) is None
    assert process.returncode == 0


def test_the_program_with_the_official_sdk_prints_what_the_page_shows(tmp_path: Path) -> None:
    # given
    python = environment("sdk-stripe") / "bin" / "python"
    (tmp_path / "buy.py").write_text(PROGRAM)

    # when
    with serving(tmp_path):
        done = subprocess.run([python, "buy.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    # then
    assert (done.stdout, done.stderr) == (SAID, "")


def test_the_doors_answer_what_the_page_sends_them(tmp_path: Path) -> None:
    with serving(tmp_path) as (told, _), httpx.Client(base_url=told["admin"], timeout=30, trust_env=False) as admin:
        answers = [admin.post(path, content=body) for path, body in POSTS]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
