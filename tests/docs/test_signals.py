"""The reference of signals is the signals: none missing, none invented, with its name, level and fields."""

import inspect
import logging
import re
from typing import Any

import pytest

from holdfast import telemetry
from holdfast.queue import signals as queue_signals
from holdfast.telemetry import Signal
from tests.docs.pages import DOCS

PAGE = (DOCS / "reference" / "signals.md").read_text()
SIGNALS = [
    kind
    for module in (telemetry, queue_signals)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, Signal) and kind is not Signal
]
CHOOSING = [kind for kind in SIGNALS if "severity" in vars(kind)]
"""Those grave for one result and ordinary for another."""


def rows() -> dict[str, list[str]]:
    """Each signal's other cells: name, level, fields, when."""
    found = (row.split(" | ") for row in re.findall(r"^\| (`[A-Z].*) \|$", PAGE, re.MULTILINE))
    return {signal.strip("`"): cells for signal, *cells in found}


def codes(cell: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", cell)


def test_the_reference_has_every_signal_and_no_other() -> None:
    assert set(rows()) == {kind.__name__ for kind in SIGNALS}


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_has_its_name_level_and_fields(kind: type[Signal]) -> None:
    name, level, fields, _ = rows()[kind.__name__]

    assert codes(name) == [kind.name]
    assert codes(level)[0] == logging.getLevelName(kind.level)
    assert codes(fields) == list(inspect.signature(kind).parameters)


@pytest.mark.parametrize("kind", CHOOSING)
def test_a_level_that_depends_on_the_result_is_told_with_the_results(kind: Any) -> None:
    _, level, fields, when = rows()[kind.__name__]
    [decisive] = {"result", "state"} & set(codes(fields))

    told = {result: codes(part)[0] for part in level.split(";") for result in codes(part)[1:]}
    told |= {result: codes(level)[0] for result in codes(when) if result not in told}
    signals = {result: kind(**dict.fromkeys(codes(fields), "") | {decisive: result}) for result in told}

    assert len(told) > 1
    assert told == {result: logging.getLevelName(signal.severity) for result, signal in signals.items()}
