"""The page of guarantees: its words are the template's, and only a whole and good run may fill it."""

from typing import Any

import pytest

from chaos import guarantees, mutations
from chaos.tiers import ENGINES

FACTS: dict[str, Any] = {
    "level": "synchronous",
    "kills": 3,
    "by_kind": {"worker at random": 3},
    "places": 16,
    "sent": 1200,
    "acked": 1100,
    "refused": 7,
    "effects": 1100,
    "lost": 0,
    "doubled": 0,
    "reruns": 12,
    "recovery_p50_s": 0.2,
    "recovery_max_s": 2.1,
    "idle_recovery_max_s": 0.3,
}
FOUND: dict[str, Any] = {
    "kills": 9,
    "acked": 3300,
    "lost": 0,
    "doubled": 0,
    "engines": dict.fromkeys(ENGINES, FACTS),
    "mutations": dict.fromkeys(mutations.EXPECTED, True),
    "broken": [],
    "seconds": 200,
    "seed": 7,
}


def test_the_page_has_the_words_of_the_template() -> None:
    page = guarantees.PAGE.read_text(encoding="utf-8")

    missing = [words for words in guarantees.fixed() if words.strip() not in page]

    assert missing == [], "run: make chaos ARGS=--write-docs"


def test_the_figures_of_a_run_are_told() -> None:
    page = guarantees.page(FOUND)

    assert "| kills | 3: 3 worker at random |" in page
    assert "| **accepted and lost** | **0** |" in page
    assert '`make chaos ARGS="--seed 7"`' in page


def test_everything_that_is_taken_out_has_words() -> None:
    assert set(guarantees.WITHOUT) == set(mutations.EXPECTED)


@pytest.mark.parametrize(
    "wrong",
    [{"broken": ["sqlite, storm: I1"]}, {"engines": {"sqlite": FACTS}}, {"mutations": {}}],
    ids=["broken", "one engine", "no proof"],
)
def test_a_run_that_is_not_whole_or_not_good_writes_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a whole run"):
        guarantees.write(FOUND | wrong)
