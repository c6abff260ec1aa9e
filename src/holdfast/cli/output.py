"""What the commands print: data on stdout, messages on stderr; colours and bars for people only.

What draws them is imported with the first line that needs it: help and wrong usage do not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PATIENCE = 0.5
"""Seconds that pass before a bar shows."""


def data() -> Console:
    """Stdout, as wide and as colourful as it is; `NO_COLOR` is heeded."""
    return _console(stderr=False)


def messages() -> Console:
    """Stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """Rows under these columns, for `data().print`."""
    from rich.table import Table

    return Table(*columns)


def can_encode(console: Console, letters: str) -> bool:
    """Whether what it prints to has these letters."""
    try:
        letters.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def print_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    typer.echo(json.dumps(value, allow_nan=False))


def complain(words: str) -> None:
    """Say on stderr what went wrong."""
    from rich.text import Text

    messages().print(Text.assemble(("Error: ", "bold red"), words))


@contextmanager
def waiting(words: str) -> Generator[None]:
    """A line on stderr while the body runs, for a person who waits."""
    if not sys.stderr.isatty():
        yield
        return
    with messages().status(words):
        yield


@contextmanager
def progress(words: str) -> Generator[Callable[[float], None]]:
    """A bar on stderr while the body runs, told the share that is done; only for a person who has to wait."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(TextColumn(words), BarColumn(), TimeRemainingColumn(), console=messages(), transient=True)
    with bar:
        task = bar.add_task(words, total=1.0, visible=False)

        def show(share: float) -> None:
            bar.update(task, completed=share, visible=(bar.tasks[task].elapsed or 0.0) > _PATIENCE)

        yield show
