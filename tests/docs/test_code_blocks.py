"""Every block of Python in the documentation runs, and prints what the page says it prints."""

import ast
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

import pytest

from tests.docs.pages import PAGES, Block, blocks, is_run_by_pytest, name

SECONDS = 120
"""For one page; they take well under one."""
RUN_HERE = [page for page in PAGES if "```python" in page.read_text() and not is_run_by_pytest(page.read_text())]
"""The others are run by `test_pytest_pages.py`."""


@pytest.fixture
def page_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One namespace for the blocks of a page: a real module, for what looks its own module up."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    return module


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the middle of whatever runs too long."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the page ran for more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compiled(block: Block, page: Path) -> object:
    """The block as code that knows its own place, so that a traceback shows the page."""
    tree = ast.parse(block.text, filename=str(page))
    ast.increment_lineno(tree, block.line - 1)
    return compile(tree, str(page), "exec")


def matches(printed: str, said: str) -> bool:
    """Whether they agree but for blanks at the ends of lines; `…` stands for anything within a line."""
    shown, wanted = ("\n".join(map(str.rstrip, text.rstrip().splitlines())) for text in (printed, said))
    return re.fullmatch(".*".join(map(re.escape, wanted.split("…"))), shown) is not None


@pytest.mark.usefixtures("offline", "own_environment")
@pytest.mark.parametrize("page", RUN_HERE, ids=name)
def test_the_examples_of_a_page_run(
    page: Path,
    page_module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with time_limit(SECONDS):
        for block in blocks(page.read_text()):
            code = compiled(block, page)
            if block.not_run:
                continue
            capsys.readouterr()
            exec(code, vars(page_module))  # type: ignore[arg-type]  # a code object
            printed = capsys.readouterr().out
            if block.output is not None:
                assert matches(printed, block.output), f"{name(page)}:{block.line} printed:\n{printed}"


def test_a_block_that_does_not_run_says_why() -> None:
    [block] = blocks("Text.\n\n<!-- not run: needs an account -->\n```python\n1 / 0\n```\n")

    assert block.not_run == "needs an account"
    assert block.line == 5


def test_a_block_is_followed_by_what_it_prints() -> None:
    shown, silent = blocks("```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nx = 1\n```\n")

    assert shown.output == "1\n"
    assert silent.output is None


@pytest.mark.parametrize(("printed", "said", "agree"), [("a7f\nb\n", "a…\nb", True), ("a\nx\nb\n", "a…b", False)])
def test_an_ellipsis_stands_for_the_rest_of_a_line(printed: str, said: str, agree: bool) -> None:
    assert matches(printed, said) is agree
