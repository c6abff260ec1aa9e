"""What people write on the command line, read: durations, and objects of their own modules."""

import os
import re
import sys
from datetime import timedelta
from importlib import import_module
from typing import Final

import typer

_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def duration(text: str) -> timedelta:
    """`10m`, `30s`, `500ms`, `1h30m`. Raises typer.BadParameter."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text!r} is no duration; write a number and d, h, m, s or ms: 10m, 30s, 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than any duration") from None


def from_module(text: str) -> object:
    """The object behind `package.module:name`, found from the current directory, too. Raises typer.BadParameter."""
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        raise typer.BadParameter(f"{text!r} names no object; write package.module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and misses something itself
        raise typer.BadParameter(f"there is no module {error.name!r}, here or installed") from None
    for name in path.split("."):
        if not hasattr(found, name):
            raise typer.BadParameter(f"{module_name} has no {path!r}")
        found = getattr(found, name)
    return found
