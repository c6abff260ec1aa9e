"""What the commands print: data on stdout, messages on stderr; colours and bars for people only."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

_PATIENCE = 0.5
"""Seconds that pass before a bar shows."""


def data() -> Console:
    """Stdout, as wide and as colourful as it is; `NO_COLOR` is heeded."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def messages() -> Console:
    """Stderr."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


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
    messages().print(Text.assemble(("Error: ", "bold red"), words))


@contextmanager
def progress(words: str) -> Generator[Callable[[float], None]]:
    """A bar on stderr while the body runs, told the share that is done; only for a person who has to wait."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = Progress(TextColumn(words), BarColumn(), TimeRemainingColumn(), console=messages(), transient=True)
    with bar:
        task = bar.add_task(words, total=1.0, visible=False)

        def show(share: float) -> None:
            bar.update(task, completed=share, visible=(bar.tasks[task].elapsed or 0.0) > _PATIENCE)

        yield show
