"""What pages have pytest run is run by pytest, step by step as they show it, and says what they show."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import holdfast.providers
import holdfast.testing
from holdfast.testing.simulators import installed_simulators, load_simulator
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, fences, is_run_by_pytest, name

# A suite in this process would import anew what is not here yet, which pydantic's core does not survive.
for module in ("fastapi", "hypothesis", "respx", "yaml", "holdfast.testing.fake_server", "holdfast.testing.strategies"):
    import_module(module)
packages: tuple[ModuleType, ...] = (holdfast, holdfast.providers, holdfast.testing)
for package in packages:
    for public in package.__all__:
        getattr(package, public)
for vendor in installed_simulators():
    load_simulator(vendor)

pytest_plugins = ["pytester"]

SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = -p no:cacheprovider -p no:randomly
filterwarnings = error
"""
TUTORIAL = DOCS / "tutorial" / "find-a-double-charge.md"
NAMED = re.compile(r"# (?P<file>[\w-]+\.(?:py|ini|yaml))\n")
REST = "test_page.py"
"""Where the Python goes that names no file."""


@dataclass
class Reader:
    """Somebody who does what a page says, from its top to its bottom."""

    suite: pytest.Pytester
    files: dict[str, str] = field(default_factory=dict[str, str])
    new: set[str] = field(default_factory=set[str])
    """The tests that were written and not run since."""

    def read(self, page: str) -> None:
        printed: list[str] = []
        for language, text, output in fences(page):
            named = NAMED.match(text)
            match language:
                case "python" | "ini" | "yaml" if named:
                    self.write(named["file"], text)
                case "python":
                    self.write(REST, f"{self.files.get(REST, '')}\n\n{text}")
                    printed += [] if output is None else [output]
                case "diff":
                    self.change(text)
                case "sh" if text.startswith("pytest"):
                    self.run(text, output)
                case _:
                    pass
        if self.new:
            self.run(f"pytest -rP {shlex.join(sorted(self.new))}", "".join(printed))

    def write(self, file: str, text: str) -> None:
        self.files[file] = text
        (self.suite.path / file).write_text(text)
        self.new |= {test for test in self.files if test.startswith("test_")}

    def change(self, diff: str) -> None:
        """As the diff says, in the one file that has what it takes away."""
        before, after = (
            "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in kept) for kept in (" -", " +")
        )
        [(file, text)] = [found for found in self.files.items() if before in found[1]]
        self.write(file, text.replace(before, after))

    def run(self, command: str, output: str | None) -> None:
        """It prints what is shown; where nothing is shown, it succeeds."""
        arguments = shlex.split(command)[1:]
        files = {one.partition("::")[0] for one in arguments if not one.startswith("-")}
        self.new -= files or self.new
        result = self.suite.runpytest(*arguments)
        lacks = missing(output or "", result.outlines)
        assert lacks is None, f"{command!r} did not print: {lacks}"
        assert not result.ret or "failed" in (output or ""), f"{command!r} fails"


def missing(shown: str, said: Sequence[str]) -> str | None:
    """The first line that was not said, or not in this order; `…` stands for anything, alone on a line for lines."""
    lines = iter(map(_plain, said))
    for line in shown.splitlines():
        wanted = ".*".join(map(re.escape, _plain(line).split("…")))
        if wanted not in ("", ".*") and not any(re.fullmatch(wanted, one) for one in lines):
            return line
    return None


def _plain(line: str) -> str:
    """Without what pytest puts before an error, and the width of columns."""
    return " ".join(re.sub(r"^E( |$)", "", line).split())


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(SETTINGS)
    pytester.syspathinsert()
    return pytester


@pytest.mark.usefixtures("offline", "own_environment")
@pytest.mark.parametrize("page", [page for page in PAGES if is_run_by_pytest(page.read_text())], ids=name)
def test_the_tests_of_a_page_run_and_print_what_it_shows(page: Path, suite: pytest.Pytester) -> None:
    Reader(suite).read(page.read_text())


@pytest.mark.usefixtures("offline", "own_environment")
def test_the_test_in_the_readme_finds_the_double_charge_of_the_tutorial(suite: pytest.Pytester) -> None:
    shop = next(block.text for block in blocks(TUTORIAL.read_text()) if block.text.startswith("# shop.py"))
    [test] = [block for block in blocks((ROOT / "README.md").read_text()) if "from shop import" in block.text]

    reader = Reader(suite)
    reader.write("shop.py", shop)
    reader.write("test_shop.py", test.text)
    reader.run("pytest test_shop.py", re.sub(r"history \d+", "history …", f"{test.output}… 1 failed in …"))


@pytest.mark.parametrize(
    ("shown", "lacks"),
    [("a 1\nb", None), ("a …\n…\nc", None), ("c\na 1", "a 1"), ("b\nd", "d")],
)
def test_what_is_shown_was_printed_in_this_order(shown: str, lacks: str | None) -> None:
    assert missing(shown, ["E   a   1", "b", "c"]) == lacks


def test_a_page_is_done_from_its_top_to_its_bottom(suite: pytest.Pytester) -> None:
    Reader(suite).read(
        """
```python
# shop.py
PRICE = 2
```

```python
# test_shop.py
from shop import PRICE

def test_price():
    print("it is", PRICE)
    assert PRICE == 3
```

```sh
pytest test_shop.py
```

```text
assert 2 == 3
… 1 failed in …
```

```diff
-PRICE = 2
+PRICE = 3
```

```python
def test_more():
    print("more")
```

```text
more
```
"""
    )

    assert (suite.path / "shop.py").read_text() == "# shop.py\nPRICE = 3\n"


def test_a_run_that_fails_in_silence_fails(suite: pytest.Pytester) -> None:
    with pytest.raises(AssertionError):
        Reader(suite).read("```python\ndef test_it():\n    assert 0\n```\n")
