"""A simulation as text for a terminal, and how its time is divided and named."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, Final

from holdfast.resilience.breaker import CircuitState

if TYPE_CHECKING:
    from holdfast.resilience.simulate import Simulation, Span

LABEL: Final = 10
"""Columns of text before those of time."""
SERIES: Final = ("offered", "sent", "succeeded", "rejected", "retried")

_LEVELS: Final = " ▁▂▃▄▅▆▇█"
_UP, _DOWN = "·", "×"
_SIGNS: Final = {CircuitState.CLOSED: "·", CircuitState.HALF_OPEN: "▒", CircuitState.OPEN: "█"}
BEYOND_ASCII: Final = _LEVELS[1:] + "×·▒"
"""A stream that cannot encode these wants the plain chart."""
_PLAIN: Final = str.maketrans(BEYOND_ASCII, ".:-=+*%#" + "x.~")

_GREY, _RED, _GREEN, _YELLOW, _CYAN = "90", "31", "32", "33", "36"  # SGR: terminals have a theme for them
_COLOURS: Final = {"offered": _GREY, "sent": _CYAN, "succeeded": _GREEN, "rejected": _YELLOW, "retried": _CYAN}
_SIGN_COLOURS: Final = {_UP: _GREEN, _DOWN: _RED, "▒": _YELLOW, "█": _RED}


def text_chart(simulation: "Simulation", width: int, *, plain: bool = False, colour: bool = False) -> str:
    """A row for each series, between those of the outage and the circuit; a scale and a legend below."""
    columns = equal_columns(len(simulation.seconds), width)
    highest = max(1.0, max(mean(simulation, name, column) for name in SERIES for column in columns))
    paint = _painted if colour else _unpainted
    outage = "".join(_DOWN if _is_down(simulation.outage, column) else _UP for column in columns)
    spans = simulation.spans()
    circuit = "".join(_SIGNS[_state(spans, column)] for column in columns)
    rows = {"outage": _signs(outage, paint)}
    for name in SERIES:
        bars = "".join(_bar(mean(simulation, name, column) / highest) for column in columns)
        rows[name] = paint(bars.rstrip(), _COLOURS[name])
    rows |= {"circuit": _signs(circuit, paint), "": _scale(columns)}
    lines = [f"{name:<{LABEL}}{row}".rstrip() for name, row in rows.items()]
    legend = f"· closed, ▒ half-open, █ open; a column is {len(columns[0])} s, a full one {highest:.3g} a second"
    chart = "\n".join([*lines, "", legend])
    return chart.translate(_PLAIN) if plain else chart


def equal_columns(seconds: int, most: int) -> list[range]:
    """The seconds in at most so many equal columns; the last may be shorter."""
    each = ceil(seconds / most)
    return [range(at, min(at + each, seconds)) for at in range(0, seconds, each)]


def mean(simulation: "Simulation", name: str, column: range) -> float:
    """What a series was in each second of the column."""
    total: int = sum(getattr(simulation.seconds[at], name) for at in column)
    return total / len(column)


def ticks(seconds: int) -> range:
    """Full minutes, at most nine of them."""
    return range(0, seconds, max(60, ceil(seconds / 8 / 60) * 60))


def clock_time(seconds: int) -> str:
    """`12:30`, as the scale says it."""
    return f"{seconds // 60}:{seconds % 60:02}"


def in_words(seconds: float) -> str:
    """`59.7 s`, `10 min`, `1 h 30 min`."""
    if seconds < 60:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def _is_down(outage: range, column: range) -> bool:
    return column.start < outage.stop and outage.start < column.stop


def _state(spans: Sequence["Span"], column: range) -> CircuitState:
    """What it was for longest; but a probe shows, however short it was."""
    shares: defaultdict[CircuitState, float] = defaultdict(float)
    for span in spans:
        if span.start < column.stop and column.start < span.stop:
            shares[span.state] += min(span.stop, column.stop) - max(span.start, column.start)
    return CircuitState.HALF_OPEN if CircuitState.HALF_OPEN in shares else max(shares, key=shares.__getitem__)


def _bar(share: float) -> str:
    """The least there is shows."""
    return _LEVELS[min(8, ceil(share * 8))]


def _scale(columns: Sequence[range]) -> str:
    line = ""
    for at in ticks(columns[-1].stop):
        line = line.ljust(at // len(columns[0])) + clock_time(at)
    return line


def _signs(row: str, paint: Callable[[str, str], str]) -> str:
    return "".join(paint("".join(run), _SIGN_COLOURS[sign]) for sign, run in groupby(row))


def _painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if text else ""


def _unpainted(text: str, _: str) -> str:
    return text
