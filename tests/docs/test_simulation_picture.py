"""The picture of an outage is the one that the command beside it draws today."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app
from tests.docs.pages import DOCS

PAGE = DOCS / "how-to" / "try-a-policy.md"


def test_the_picture_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [command] = re.findall(r"^holdfast (simulate .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, command.split())

    drawn = (tmp_path / "outage.svg").read_text(encoding="utf-8")
    assert result.exit_code == 0
    assert drawn == PAGE.with_name("outage.svg").read_text(encoding="utf-8"), f"in {PAGE.parent}: holdfast {command}"
