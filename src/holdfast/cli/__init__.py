"""The command line: one file for each command or group of them, all listed in `app`."""

import sys
from importlib.util import find_spec

from holdfast.errors import MissingExtra


def main() -> None:
    """Run `holdfast`; without its extra, say how to install it."""
    try:
        from holdfast.cli.app import run

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"rich", "typer"} or find_spec(package) is not None:
            raise  # it is there: a module of the user's asks it for something that it does not have
        sys.stderr.write(f"holdfast: {MissingExtra('cli')}\n")
        raise SystemExit(2) from None
