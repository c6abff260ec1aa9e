"""Run benchmarks several times in a row and keep every run: `make results NAME=guard`."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"
TRIES: Final = 5
"""A run the machine was too busy for is made again, so many times at most."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks._runs", description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--force", action="store_true", help="keep runs of a busy machine as well, marked as such")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in options.names:
        runs = [run(name, number + 1, options.runs, force=options.force) for number in range(options.runs)]
        (RESULTS / f"{name}.json").write_text(json.dumps(runs, indent=1) + "\n")


def run(name: str, number: int, of: int, *, force: bool) -> dict[str, object]:
    """One run; what it was refused for counts as none."""
    for _ in range(TRIES):
        print(f"{name}: run {number} of {of}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *["--force"] * force]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode == 0:
            found: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
            return found
    sys.exit(f"{name}: no run in {TRIES} tries; the machine is busy, or the benchmark fails")


if __name__ == "__main__":
    main()
