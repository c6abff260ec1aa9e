"""The picture of a run: read by a parser, as a browser would."""

from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from holdfast.resilience import Policy
from holdfast.resilience.simulate import Second, Simulation, simulate
from tests.resilience.runs import tiny

SVG = "{http://www.w3.org/2000/svg}"
PLOT = (88.0, 228.0)


@pytest.fixture(scope="module")
def seen() -> Simulation:
    return simulate(Policy(), rps=5, outage=300)


def drawn(simulation: Simulation, width: int = 720) -> Element:
    return ElementTree.fromstring(simulation.svg(width))


def strips(picture: Element) -> list[tuple[str, float, float]]:
    """What each strip says when pointed at, and from where to where it goes."""
    return [
        (strip.findtext(f"{SVG}title", ""), float(strip.attrib["x"]), float(strip.attrib["width"]))
        for strip in picture.iter(f"{SVG}rect")
        if strip.find(f"{SVG}title") is not None
    ]


def levels(path: str) -> list[float]:
    """The heights a line of steps passes."""
    return [float(part.partition("H")[0]) for part in path.split("V")[1:]]


def test_it_stands_alone_and_is_named_and_described(seen: Simulation) -> None:
    picture = drawn(seen)

    assert picture.tag == f"{SVG}svg"
    assert picture.attrib["role"] == "img"
    assert [child.tag for child in picture[:2]] == [f"{SVG}title", f"{SVG}desc"]
    assert picture.findtext(f"{SVG}title") == f"{seen.title}: {seen.verdict}"
    assert picture.findtext(f"{SVG}desc") == seen.summary()
    assert "href" not in seen.svg()
    assert "url(" not in seen.svg()


def test_the_title_has_what_was_tried_and_the_figures(seen: Simulation) -> None:
    assert seen.recovery is not None
    assert seen.title == "5 min of outage at 5 calls a second"
    assert f"amplification {seen.amplification:.2f}" in seen.verdict
    assert "recovered after" in seen.verdict
    assert {seen.title, seen.verdict} <= {text.text for text in drawn(seen).iter(f"{SVG}text")}


def test_it_is_small_however_long_the_run() -> None:
    busy = tuple(Second(offered=at % 7, sent=at % 5, succeeded=at % 3, rejected=at % 2) for at in range(86_400))

    picture = replace(tiny(), seconds=busy, outage=range(600, 1200)).svg()

    assert len(picture) < 25_000


def test_the_outage_and_the_circuit_are_strips_on_one_scale_of_time() -> None:
    found = strips(drawn(tiny()))

    provider, circuit = found[:3], sorted(found[3:], key=lambda strip: strip[1])
    scale = (720 - 64 - 20) / 12
    assert [words.split()[0] for words, _, _ in provider] == ["up", "down", "up"]
    assert [words.split()[0] for words, _, _ in circuit] == [
        *("closed", "open", "half-open", "open", "half-open", "closed"),
    ]
    assert provider[1][1:] == pytest.approx((64 + 3 * scale, 4 * scale), abs=0.2)
    assert circuit[1][1] == pytest.approx(64 + 3.25 * scale, abs=0.2)
    assert circuit[1][0] == "open from 0:03 for 3 s"


def test_a_probe_shows_however_short_it_was(seen: Simulation) -> None:
    probes = [width for words, _, width in strips(drawn(seen)) if words.startswith("half-open")]

    assert len(probes) == sum(change.signal.after == "half_open" for change in seen.changes)
    assert min(probes) >= 2


def test_wide_strips_carry_their_word_and_narrow_ones_none() -> None:
    words = [text.text for text in drawn(tiny()).iter(f"{SVG}text")]

    assert words.count("up") == 2
    assert words.count("down") == 1
    assert words.count("open") == 2
    assert words.count("closed") == 2
    assert words.count("half-open") == 1  # of the legend


def test_everything_drawn_stays_inside_its_frame(seen: Simulation) -> None:
    queued = replace(tiny(), seconds=(*tiny().seconds[:6], Second(offered=4, rejected=40), *tiny().seconds[7:]))
    for simulation in (seen, tiny(), queued):
        paths = [path.attrib["d"] for path in drawn(simulation).iter(f"{SVG}path")]

        heights = [height for path in paths for height in levels(path)]
        assert heights
        assert min(heights) >= PLOT[0]
        assert max(heights) <= PLOT[1]


def test_colours_change_in_the_dark_and_are_there_without_any_style(seen: Simulation) -> None:
    picture = drawn(seen)

    style = picture.findtext(f"{SVG}style", "")
    shown = [each for kind in ("rect", "text") for each in picture.iter(f"{SVG}{kind}")]
    classes = {each.attrib["class"] for each in shown}
    assert style.startswith("@media (prefers-color-scheme: dark)")
    assert all("fill" in each.attrib for each in shown)
    assert {name for name in classes if f".{name}{{" not in style} <= {"white", "black", "unsure"}  # the same on both


@pytest.mark.parametrize("width", [320, 720, 1600])
def test_it_is_as_wide_as_asked_and_any_run_can_be_drawn(width: int) -> None:
    silent = replace(tiny(), seconds=(Second(),) * 12, changes=())

    for simulation in (tiny(), silent):
        assert drawn(simulation, width).attrib["viewBox"].split()[2] == str(width)
