"""The figures on the pages are those measured last, and the words around them agree."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.conformance.breaker import EXTENDED, SEVEN
from scripts import bench_table
from tests.docs.pages import DOCS, PAGES, name

PEERS = (DOCS / "explanation" / "why-not-tenacity-and-pybreaker.md").read_text()
PAGE = "before\n<!-- figures of {} -->\nold\n<!-- end of figures -->\nafter\n"


def keep(results: Path, name: str, *figures: dict[str, float], **more: Any) -> None:
    runs = [
        {"name": name, "figures": each, "versions": {"python": "3.11.7", "peer": "1.0"}, **more} for each in figures
    ]
    (results / f"{name}.json").write_text(json.dumps(runs))


@pytest.mark.parametrize("page", [page for page in PAGES if bench_table.BLOCK.search(page.read_text())], ids=name)
def test_the_figures_on_a_page_are_current(page: Path) -> None:
    written = page.read_text(encoding="utf-8")

    assert bench_table.filled(written, bench_table.RESULTS) == written, "run: python scripts/bench_table.py"


def test_of_several_runs_the_median_is_told_and_how_far_they_lie_apart(tmp_path: Path) -> None:
    keep(tmp_path, "guard", *({"ours_us": each, "ratio_card": 20.0} for each in (2.31, 2.0, 2.101, 2.05, 2.2)))

    page = bench_table.filled(PAGE.format("guard"), tmp_path)

    assert "| holdfast: every layer, two circuits | 2.1 (2 to 2.31) µs |" in page
    assert "`asyncio.timeout` | 20 times ours |" in page
    assert "Median of 5 runs, in brackets the lowest and the highest; python 3.11.7, peer 1.0." in page


def test_only_what_is_between_the_marks_is_rewritten(tmp_path: Path) -> None:
    keep(tmp_path, "cancel", {"leaked": 0})

    page = bench_table.filled(PAGE.format("cancel, by hand no more"), tmp_path)

    assert page.startswith("before\n<!-- figures of cancel, by hand no more -->\n\n| what |")
    assert page.endswith("<!-- end of figures -->\nafter\n")
    assert "old" not in page
    assert bench_table.filled(page, tmp_path) == page


def test_what_was_not_measured_is_said_to_be_so(tmp_path: Path) -> None:
    page = bench_table.filled(PAGE.format("stampede"), tmp_path)

    assert "Not measured yet: `make results NAME=stampede`." in page


def test_a_benchmark_without_words_shows_all_its_figures(tmp_path: Path) -> None:
    keep(tmp_path, "weight", {"packages": 9, "megabytes": 8.456})

    page = bench_table.filled(PAGE.format("weight"), tmp_path)

    assert "| `packages` | 9 |\n| `megabytes` | 8.46 |\n" in page


def test_figures_of_a_busy_machine_are_marked(tmp_path: Path) -> None:
    keep(tmp_path, "cancel", {"leaked": 0}, noisy=True)

    assert "The machine was busy in 1 of them" in bench_table.filled(PAGE.format("cancel"), tmp_path)


def test_the_best_breaker_comes_first_and_its_worst_run_counts(tmp_path: Path) -> None:
    runs: list[dict[str, float]] = [
        {"other": 7, "other_extended": 3, "peer_half": 7, "peer_half_extended": more} for more in (6, 5)
    ]
    keep(tmp_path, "conformance", *runs)

    page = bench_table.filled(PAGE.format("conformance"), tmp_path)

    assert "| peer, half | 7 | 5 |\n| other | 7 | 3 |\n" in page


@pytest.mark.parametrize("benchmark", sorted(bench_table.FIGURES))
def test_every_figure_with_words_is_one_the_benchmark_has(benchmark: str) -> None:
    runs = json.loads((bench_table.RESULTS / f"{benchmark}.json").read_text())

    assert bench_table.FIGURES[benchmark].keys() <= runs[0]["figures"].keys()


def test_the_scenarios_on_the_page_are_those_played_and_add_up_to_what_was_measured() -> None:
    [head] = re.findall(r"^\| scenario .*\|$", PEERS, re.MULTILINE)
    rows = re.findall(r"^\| .* (?:yes|no) \|$", PEERS, re.MULTILINE)
    breakers = [cell.strip() for cell in head.strip("|").split("|")][1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    [measured, *_] = json.loads((bench_table.RESULTS / "conformance.json").read_text())

    passed = {breaker: sum(row[1 + at] == "yes" for row in cells) for at, breaker in enumerate(breakers)}

    assert [row[0] for row in cells] == [scenario.rule for scenario in SEVEN]
    assert passed == {breaker: measured["figures"][breaker] for breaker in breakers}
    assert (len(SEVEN), len(EXTENDED)) == (bench_table.SEVEN, bench_table.ELEVEN)
