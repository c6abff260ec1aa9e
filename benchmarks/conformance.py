"""How breakers behave: scenarios passed of the kit's seven and of its further ones, by ours and by others'."""

import asyncio
import logging
import warnings
from collections.abc import Sequence
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._peers import PEERS, VARIANTS
from holdfast.testing.conformance.breaker import EXTENDED, NO_SUCH_NOTION, SEVEN, Finding, GuardUnderTest, Make, examine

BREAKERS: Final[dict[str, Make]] = {"holdfast": GuardUnderTest, **PEERS, **VARIANTS}


def main() -> None:
    parser = arguments("conformance", __doc__)
    parser.add_argument("--open-for", type=float, default=0.05, help="the scale of time, in seconds (default 0.05)")
    options = parser.parse_args()
    # What libraries log or warn of is not what is measured.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore", DeprecationWarning)

    found = asyncio.run(play(options.open_for))

    figures: dict[str, float] = {}
    remarks: dict[str, str] = {}
    for name, findings in found.items():
        seven, extended = findings[: len(SEVEN)], findings[len(SEVEN) :]
        figures[name], figures[f"{name}_extended"] = passed(seven), passed(extended)
        remarks[name], remarks[f"{name}_extended"] = f"of {len(seven)}", f"of {len(extended)}{missing(extended)}"
    publish(
        Report(
            name="conformance",
            figures=figures,
            versions=versions("holdfast", *PEERS),
            remarks=remarks,
            lines=details(found),
        ),
        options,
    )


async def play(open_for: float) -> dict[str, Sequence[Finding]]:
    return {name: await examine(make, open_for=open_for, scenarios=SEVEN + EXTENDED) for name, make in BREAKERS.items()}


def passed(findings: Sequence[Finding]) -> int:
    return sum(finding.passed for finding in findings)


def missing(findings: Sequence[Finding]) -> str:
    """What there was no such notion of."""
    names = [finding.scenario for finding in findings if finding.happened == NO_SUCH_NOTION]
    return f"; {NO_SUCH_NOTION}: {', '.join(names)}" if names else ""


def details(found: dict[str, Sequence[Finding]]) -> list[str]:
    """Every scenario, and what became of it with each breaker."""
    lines: list[str] = []
    for number, scenario in enumerate(SEVEN + EXTENDED):
        lines += ["", f"  {scenario.name}: {scenario.rule}"]
        for name, findings in found.items():
            finding = findings[number]
            lines.append(f"    {'+' if finding.passed else '-'} {name}: {finding.happened}")
    return [*lines, ""]


if __name__ == "__main__":
    main()
