"""Every variable that a provider reads from the environment is on its page."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

SOURCES = sorted(
    path
    for path in (ROOT / "src" / "holdfast" / "providers").rglob("*.py")
    if "def from_env" in path.read_text(encoding="utf-8") and path.stem != "discovery"
)
READS = re.compile(r"""(?:from_env|environ\.get|environ\[|require_env)\W*["']([A-Z][A-Z0-9_]+)["']""")


def page_of(source: Path) -> Path:
    vendor = source.parent.name if source.stem == "provider" else source.stem
    return DOCS / "providers" / f"{vendor.replace('_', '-')}.md"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: page_of(path).stem)
def test_every_variable_is_on_the_page(source: Path) -> None:
    variables = set(READS.findall(source.read_text(encoding="utf-8")))
    told = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", page_of(source).read_text(encoding="utf-8")))

    assert variables
    assert variables - told == set()


def test_every_provider_that_reads_the_environment_is_looked_at() -> None:
    pages = {page_of(source) for source in SOURCES}

    assert pages == set((DOCS / "providers").glob("*.md"))
