"""What the first page claims in figures is what the page it points to has, and it stays a page."""

import re

from tests.docs.pages import DOCS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_figures_of_the_shoot_out_are_those_of_its_page() -> None:
    page = (DOCS / "explanation" / "shoot-out.md").read_text(encoding="utf-8")
    doubled = {
        name: int(count)
        for name, count in re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| (\d+) \|$", page, re.MULTILINE)
    }
    [(said, orders)] = re.findall(r"charge (\d+) of (\d+) orders\s+twice", README)

    assert doubled["httpx and tenacity"] == int(said)
    assert doubled["holdfast, killed twice"] == 0
    assert f"A shop wants to charge {orders} orders" in page


def test_the_first_program_is_on_the_first_screen() -> None:
    before = README[: README.index("```python")]

    assert len(before.splitlines()) < 25


def test_the_tables_can_be_read_as_plain_text() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]

    assert rows
    assert len({len(row) for row in rows}) == 1
    assert max(map(len, rows)) <= 110
