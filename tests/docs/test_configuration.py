"""The reference of a policy is the policy: every default, and both ends of every range."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

import pytest

from holdfast import Breaker, Budget, Cache, Concurrency, Hedge, Policy, Rate, Retry
from holdfast.errors import InvalidPolicy
from tests.docs.pages import DOCS

PARTS: tuple[type[Any], ...] = (Policy, Retry, Budget, Breaker, Rate, Concurrency, Cache, Hedge)
REQUIRED: dict[type, dict[str, Any]] = {Rate: {"limit": 1}, Concurrency: {"limit": 100_000}, Cache: {"ttl": 1}}
BESIDE: dict[str, dict[str, Any]] = {"open_cap": {"open_for": 0.001}, "open_for": {"open_cap": 86_400}}
"""What else an option needs at the ends of its range."""


def rows(part: type) -> Iterator[list[str]]:
    """The table under the part's heading: option, default, range, what."""
    text = (DOCS / "reference" / "configuration.md").read_text()
    [section] = re.findall(rf"^## {part.__name__}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        option, *cells = row.split(" | ")
        yield [option.strip("`"), *cells]


def default(field: "Field[Any]") -> str:
    """A default as the page writes it."""
    if field.default_factory is not MISSING:
        return f"`{type(field.default_factory()).__name__}()`"
    match field.default:
        case value if value is MISSING:
            return "required"
        case None:
            return "none"
        case bool():
            return "on" if field.default else "off"
        case str():
            return f'`"{field.default}"`'
        case number:
            return f"{number:,g}"


RANGES = [
    (part, option, *found.groups())
    for part in PARTS
    for option, _, words, _ in rows(part)
    if (found := re.fullmatch(r"(above )?([\d.,]+) to ([\d.,]+)", words))
]


def made(part: type, option: str, value: float) -> object:
    number = int(value) if value == int(value) else value
    return part(**{**REQUIRED.get(part, {}), **BESIDE.get(option, {}), option: number})


@pytest.mark.parametrize("part", PARTS)
def test_the_reference_has_every_default(part: type) -> None:
    written = {option: said for option, said, _, _ in rows(part)}

    assert written == {field.name: default(field) for field in fields(part)}


@pytest.mark.parametrize(("part", "option", "above", "least", "most"), RANGES)
def test_the_ends_of_a_range_are_its_ends(part: type, option: str, above: str | None, least: str, most: str) -> None:
    lowest, highest = (float(end.replace(",", "")) for end in (least, most))
    lowest_allowed = lowest + 1e-6 if above else lowest

    assert made(part, option, lowest_allowed)
    assert made(part, option, highest)
    for outside in (lowest if above else lowest - 0.0001, highest + 1):
        with pytest.raises(InvalidPolicy):
            made(part, option, outside)


def test_ranges_are_found() -> None:
    assert len(RANGES) > 25
