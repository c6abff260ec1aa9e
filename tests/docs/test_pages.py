"""The pages hang together: links lead somewhere, shelves are listed, references are complete."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from holdfast import (
    Breaker,
    Budget,
    Cache,
    Concurrency,
    Guard,
    GuardedTransport,
    Hedge,
    Holdfast,
    Meetings,
    Notifications,
    Payments,
    Policy,
    Rate,
    Retry,
    WorkerOptions,
    errors,
)
from tests.docs.pages import ALONE, DOCS, PAGES, anchors, blocks, headings, links, name

PROVIDER_PAGES = sorted((DOCS / "providers").glob("*.md"))
PROVIDER_HEADINGS = [
    "Credentials",
    "Quick start",
    "What is supported",
    "Webhooks",
    "Errors",
    "Limits",
    "Testing",
    "Vendor links",
]
CONFIGURATION = (DOCS / "reference" / "configuration.md").read_text()
BOUND = {"self", "runtime"}
"""Arguments of a family that are the hub's business."""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in links(page.read_text()):
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (place and place not in anchors(target.read_text())):
            broken.append(link)

    assert broken == []


def test_the_index_lists_every_page() -> None:
    index = DOCS / "index.md"

    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(index.read_text())}

    assert set(PAGES) - set(ALONE) - {index} <= listed


@pytest.mark.parametrize("page", PROVIDER_PAGES, ids=name)
def test_every_provider_page_has_the_same_headings(page: Path) -> None:
    found = [heading for heading in headings(page.read_text()) if heading in PROVIDER_HEADINGS]

    assert found == PROVIDER_HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_begins_with_its_one_title(page: Path) -> None:
    text = page.read_text()

    assert text.startswith("# ")
    assert len(re.findall(r"^# ", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)) == 1


def test_the_reference_has_every_error() -> None:
    text = (DOCS / "reference" / "errors.md").read_text()
    ours = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.HoldfastError)]

    assert [kind.__name__ for kind in ours if f"`{kind.__name__}`" not in text] == []


def test_the_reference_has_every_field_of_a_failed_call() -> None:
    text = (DOCS / "reference" / "errors.md").read_text()
    given = set(inspect.signature(errors.CallFailed).parameters) - {"message"}

    assert {field for field in given if not re.search(rf"^\| [^|]*`{field}`", text, re.M)} == set()


@pytest.mark.parametrize("kind", [Holdfast, Payments, Meetings, Notifications, Guard, GuardedTransport])
def test_the_reference_has_every_option_of(kind: type) -> None:
    options = set(inspect.signature(kind).parameters) - BOUND

    assert options == _documented(kind.__name__)


@pytest.mark.parametrize("kind", [WorkerOptions, Policy, Retry, Budget, Breaker, Rate, Concurrency, Cache, Hedge])
def test_the_reference_has_every_field_and_default_of(kind: type) -> None:
    assert {field.name for field in fields(kind)} == _documented(kind.__name__)


def _documented(heading: str) -> set[str]:
    """The first column of the table under a heading."""
    section = re.split(r"^## ", CONFIGURATION, flags=re.M)
    [text] = [part for part in section if part.startswith(f"{heading}\n")]
    return set(re.findall(r"^\| `(\w+)` \|", text, re.M))


def test_no_example_is_left_out_without_a_reason() -> None:
    reasons = [block.not_run for page in PAGES for block in blocks(page.read_text()) if block.not_run]

    assert all(len(reason.split()) >= 3 for reason in reasons)
