"""The written pages, as the tests read them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
ALONE: Final = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES: Final = [*ALONE, *sorted(DOCS.rglob("*.md"))]

_FENCE: Final = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_BY_PYTEST: Final = "<!-- run by pytest -->"
_NOT_RUN: Final = re.compile(r"<!-- not run: (?P<reason>[^>]+?) -->\s*\Z")
_HEADING: Final = re.compile(r"^#{1,6} +(?P<text>.+?) *$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_INLINE_CODE: Final = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block of Python."""

    line: int
    """Where its first line is on the page, from 1."""
    text: str
    not_run: str = ""
    """Why it is compiled only; empty for one that runs."""
    output: str | None = None
    """What the page says it prints, in a block of text right after it; None where the page does not say."""


def name(page: Path) -> str:
    """The page as people name it."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[Block]:
    """The Python on a page, in order."""
    fences = list(_FENCE.finditer(text))
    for fence, after in zip(fences, [*fences[1:], None], strict=False):
        if fence["language"] != "python":
            continue
        marked = _NOT_RUN.search(text[: fence.start()])
        follows = after is not None and after["language"] == "text" and not text[fence.end() : after.start()].strip()
        yield Block(
            line=text.count("\n", 0, fence.start("text")) + 1,
            text=fence["text"],
            not_run=marked["reason"] if marked else "",
            output=after["text"] if after is not None and follows else None,
        )


def is_run_by_pytest(text: str) -> bool:
    """Whether the page's tests need fixtures, so that pytest runs what is on it."""
    return _BY_PYTEST in text


def fences(text: str) -> Iterator[tuple[str, str, str | None]]:
    """The language and the text of every block that is not left out, and the output in a block right after it."""
    found = list(_FENCE.finditer(text))
    for fence, after in zip(found, [*found[1:], None], strict=False):
        follows = after is not None and after["language"] == "text" and not text[fence.end() : after.start()].strip()
        if not _NOT_RUN.search(text[: fence.start()]):
            yield fence["language"], fence["text"], after["text"] if after is not None and follows else None


def prose(text: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", text)


def headings(text: str) -> list[str]:
    """The words of every heading, in order."""
    return [found["text"] for found in _HEADING.finditer(prose(text))]


def anchors(text: str) -> set[str]:
    """What a link to a place on the page may end in."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    """The targets of all links to other pages, and to places on this one."""
    targets = [found["target"] for found in _LINK.finditer(_INLINE_CODE.sub("", prose(text)))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]
