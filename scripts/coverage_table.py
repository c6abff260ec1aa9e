"""Print how much of each package the tests ran, by lines and branches: python scripts/coverage_table.py.

It reads `.coverage`. What no test ran, by file and line, goes to `.cache/coverage.txt`.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path, PurePath
from typing import Final

DETAILS: Final = Path(".cache/coverage.txt")
COUNTED: Final = ("num_statements", "missing_lines", "num_branches", "missing_branches")


def main() -> None:
    """Needs a run of the tests with `--cov` before it."""
    DETAILS.parent.mkdir(exist_ok=True)
    DETAILS.write_text(_coverage("report"))
    packages: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTED))
    for name, file in json.loads(_coverage("json", "-o", "-", "-q"))["files"].items():
        for package in (".".join(PurePath(name).parent.parts[1:3]), "all"):
            for place, what in enumerate(COUNTED):
                packages[package][place] += file["summary"][what]
    everything = packages.pop("all")
    print(f"{'covered':24}{'lines':>8}{'missed':>8}{'branches':>10}{'missed':>8}{'':>8}")
    for package, numbers in [*sorted(packages.items()), ("all", everything)]:
        lines, lines_missed, branches, branches_missed = numbers
        share = 1 - (lines_missed + branches_missed) / (lines + branches)
        print(f"{package:24}{lines:8}{lines_missed:8}{branches:10}{branches_missed:8}{share:8.1%}")
    print(f"what no test ran: {DETAILS}")


def _coverage(*arguments: str) -> str:
    command = [sys.executable, "-m", "coverage", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
