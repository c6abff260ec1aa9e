"""The command line: one file for each command or group of them, all listed in `app`."""

import sys

from holdfast.errors import MissingExtra


def main() -> None:
    """Run `holdfast`; without its extra, say how to install it."""
    try:
        from holdfast.cli.app import run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"rich", "typer"}:
            raise
        sys.stderr.write(f"holdfast: {MissingExtra('cli')}\n")
        raise SystemExit(2) from None
