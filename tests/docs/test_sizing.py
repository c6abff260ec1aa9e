"""The sizes on the page are those the measured figures give, and what was not measured is said to be assumed."""

import json
from pathlib import Path

from scripts import sizing

PAGE = "before\n<!-- inputs, written by scripts/sizing.py -->\nold\n<!-- end of inputs -->\nafter\n"


def given(**values: float) -> dict[str, sizing.Found]:
    return {name: sizing.Found(values.get(name, each.assumed), measured=True) for name, each in sizing.INPUTS.items()}


def keep(results: Path, name: str, *figures: dict[str, float]) -> None:
    (results / f"{name}.json").write_text(json.dumps([{"figures": each} for each in figures]))


def test_the_sizes_on_the_page_are_current() -> None:
    written = sizing.PAGE.read_text(encoding="utf-8")

    assert sizing.filled(written, sizing.inputs(sizing.RESULTS)) == written, "run: python scripts/sizing.py"


def test_an_input_is_the_median_of_its_runs(tmp_path: Path) -> None:
    keep(tmp_path, "http_ingest", {"per_s": 9000}, {"per_s": 12000}, {"per_s": 10000})

    found = sizing.inputs(tmp_path)["receiver"]

    assert found == sizing.Found(10000, measured=True)


def test_what_was_not_measured_is_said_to_be_assumed(tmp_path: Path) -> None:
    page = sizing.filled(PAGE, sizing.inputs(tmp_path))

    assert page.startswith("before\n<!-- inputs")
    assert page.endswith("<!-- end of inputs -->\nafter\n")
    assert page.count("assumed, not measured yet") == len(sizing.INPUTS)


def test_half_of_what_was_measured_is_used_and_an_event_is_two_jobs() -> None:
    figures = given(redis_add=40_000, redis_work=40_000)

    assert sizing.capacity("redis", figures) == 5_000


def test_workers_are_enough_for_the_work_and_for_handlers_that_wait() -> None:
    quick, slow = given(redis_work=1_000), given(redis_work=1_000_000)

    assert sizing.workers(1_000, "redis", quick) == 4
    assert sizing.workers(1_000, "redis", slow) == 2
