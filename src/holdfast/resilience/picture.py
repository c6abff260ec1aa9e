"""A simulation as an SVG picture: complete in itself, on light and on dark, for eyes and for screen readers."""

from collections.abc import Iterator, Sequence
from math import floor, log10
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.chart import clock_time, equal_columns, in_words, mean, ticks

if TYPE_CHECKING:
    from holdfast.resilience.simulate import Simulation

_COLOURS: Final = {  # told apart also by eyes that take red for green
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "grid": ("#d8dee4", "#30363d"),
    "succeeded": ("#b4e5c5", "#1b5233"),
    "rejected": ("#ffdcae", "#6b420f"),
    "sent": ("#0550ae", "#79c0ff"),
    "good": ("#1a7f37", "#238636"),
    "bad": ("#bc2f0c", "#c9340e"),
    "unsure": ("#f2cc60", "#f2cc60"),
    "white": ("#ffffff", "#ffffff"),
    "black": ("#1f2328", "#1f2328"),
}
"""On light, on dark."""
_DARK: Final = "".join(
    f".holdfast .{name}{{fill:{dark}}}.holdfast .{name}-line{{stroke:{dark}}}"
    for name, (light, dark) in _COLOURS.items()
    if light != dark
)
_STATES: Final = {
    CircuitState.CLOSED: ("good", "white"),
    CircuitState.HALF_OPEN: ("unsure", "black"),
    CircuitState.OPEN: ("bad", "white"),
}

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 88, 228
"""The plot: how far from the left and from the right, and its upper and lower edge."""
_PROVIDER, _CIRCUIT, _HEIGHT = 256, 280, 314
_STRIP, _NARROWEST, _LETTER = 18, 2.0, 6.8
"""Of a strip: its height, the least width that shows, and what a letter in it takes."""


def picture(simulation: "Simulation", width: int = 720) -> str:
    """The picture as the text of an SVG file."""
    plot = _Plot(simulation, width)
    shapes = [*_heading(simulation), *plot.grid(), *plot.series(), *plot.strips()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" class="holdfast" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">\n'
        f"<title>{escape(simulation.title)}: {escape(simulation.verdict)}</title>\n"
        f"<desc>{escape(simulation.summary())}</desc>\n"
        f"<style>@media (prefers-color-scheme: dark) {{{_DARK}}}</style>\n"
        f'<rect width="{width}" height="{_HEIGHT}" rx="8" {_fill("paper")}/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


class _Plot:
    """Where things are, and what is drawn there."""

    def __init__(self, simulation: "Simulation", width: int) -> None:
        self.simulation, self.right = simulation, width - _RIGHT
        self.columns = equal_columns(len(simulation.seconds), (self.right - _LEFT) // 3)
        self.offered, self.sent, self.succeeded, rejected = (
            [mean(simulation, name, column) for column in self.columns]
            for name in ("offered", "sent", "succeeded", "rejected")
        )
        self.ended = [sum(both) for both in zip(self.succeeded, rejected, strict=True)]
        self.highest = _round_number(max(*self.offered, *self.sent, *self.ended))

    def grid(self) -> Iterator[str]:
        """Three lines of a rate, and the time."""
        for rate, words in ((self.highest, f"{self.highest:.3g} / s"), (self.highest / 2, ""), (0.0, "0")):
            y = self._y(rate)
            yield f'<path d="M{_LEFT} {y:g}H{self.right}" {_line("grid")}/>'
            yield _text(words, _LEFT - 8, y + 4, "faint", anchor="end")
        for at in ticks(len(self.simulation.seconds)):
            yield _text(clock_time(at), self._x(at), _BOTTOM + 18, "faint", anchor="middle")

    def series(self) -> Iterator[str]:
        """Areas, one on the other, of calls that succeeded and were rejected; lines of those offered and sent."""
        yield f'<path d="{self._steps(self.ended)}V{_BOTTOM}H{_LEFT}Z" {_fill("rejected")}/>'
        yield f'<path d="{self._steps(self.succeeded)}V{_BOTTOM}H{_LEFT}Z" {_fill("succeeded")}/>'
        for edge in (self.simulation.outage.start, self.simulation.outage.stop):
            yield f'<path d="M{self._x(edge):g} {_TOP}V{_BOTTOM}" stroke-dasharray="1 3" {_line("faint")}/>'
        yield f'<path d="{self._steps(self.offered)}" {_OFFERED}/>'
        yield f'<path d="{self._steps(self.sent, least=4)}" {_SENT}/>'

    def strips(self) -> Iterator[str]:
        """Below one another: whether the provider was up, and the circuit's states."""
        down, end = self.simulation.outage, len(self.simulation.seconds)
        yield _text("provider", _LEFT - 8, _PROVIDER + 13, "faint", anchor="end")
        yield from self._strip(0, down.start, _PROVIDER, "up", "good", "white")
        yield from self._strip(down.start, down.stop, _PROVIDER, "down", "bad", "white")
        yield from self._strip(down.stop, end, _PROVIDER, "up", "good", "white")
        yield _text("circuit", _LEFT - 8, _CIRCUIT + 13, "faint", anchor="end")
        spans = sorted(self.simulation.spans(), key=lambda span: span.state is CircuitState.HALF_OPEN)  # these on top
        for span in spans:
            yield from self._strip(span.start, span.stop, _CIRCUIT, _words(span.state), *_STATES[span.state])

    def _strip(self, start: float, stop: float, y: int, word: str, name: str, ink: str) -> Iterator[str]:
        x, wide = self._x(start), max(self._x(stop) - self._x(start), _NARROWEST)
        yield (
            f'<rect x="{x:g}" y="{y}" width="{wide:.3g}" height="{_STRIP}" {_fill(name)}>'
            f"<title>{word} from {clock_time(int(start))} for {in_words(stop - start)}</title></rect>"
        )
        if wide > _LETTER * len(word):
            yield _text(word, x + wide / 2, y + 13, ink, anchor="middle")

    def _steps(self, rates: Sequence[float], least: float = 0) -> str:
        """A line in steps; with `least`, a rate shows at least so high unless it is nothing."""
        heights = [min(self._y(rate), _BOTTOM - least) if rate else float(_BOTTOM) for rate in rates]
        path = f"M{_LEFT} {heights[0]:g}"
        for before, height, column in zip(heights, heights[1:], self.columns[1:], strict=False):
            if height != before:
                path += f"H{self._x(column.start):g}V{height:g}"
        return f"{path}H{self.right}"

    def _x(self, second: float) -> float:
        return round(_LEFT + second / len(self.simulation.seconds) * (self.right - _LEFT), 1)

    def _y(self, rate: float) -> float:
        return round(_BOTTOM - rate / self.highest * (_BOTTOM - _TOP), 1)


def _heading(simulation: "Simulation") -> Iterator[str]:
    yield _text(simulation.title, _LEFT, 28, "ink", 'font-size="16" font-weight="600"')
    yield _text(simulation.verdict, _LEFT, 48, "faint")
    x = _LEFT
    for words, sample in _LEGEND.items():
        yield f'<g transform="translate({x} 65)">{sample}</g>{_text(words, x + 20, 74, "ink")}'
        x += 44 + 6 * len(words)


def _words(state: CircuitState) -> str:
    return state.value.replace("_", "-")


def _round_number(rate: float) -> float:
    """The next one that reads well on a scale: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 and so on."""
    power = 10.0 ** floor(log10(max(rate, 1.0)))
    return power * next(step for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= rate)


def _text(words: str, x: float, y: float, name: str, attributes: str = "", *, anchor: str = "") -> str:
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}"{anchored} {attributes} {_fill(name)}>{escape(words)}</text>'.replace("  ", " ")


def _fill(name: str) -> str:
    """The light colour stands in an attribute, so that it shows also where no style is read."""
    return f'class="{name}" fill="{_COLOURS[name][0]}"'


def _line(name: str, width: float = 1) -> str:
    return f'class="{name}-line" fill="none" stroke="{_COLOURS[name][0]}" stroke-width="{width:g}"'


_OFFERED: Final = f'stroke-dasharray="4 3" {_line("faint", 1.5)}'
_SENT: Final = f'stroke-linejoin="round" {_line("sent", 1.5)}'
_LEGEND: Final = {
    "offered": f'<path d="M0 5H14" {_OFFERED}/>',
    "sent to the provider": f'<path d="M0 5H14" {_SENT}/>',
    "succeeded": f'<rect width="14" height="10" rx="2" {_fill("succeeded")}/>',
    "rejected here": f'<rect width="14" height="10" rx="2" {_fill("rejected")}/>',
    "half-open": f'<rect width="14" height="10" rx="2" {_fill("unsure")}/>',
}
