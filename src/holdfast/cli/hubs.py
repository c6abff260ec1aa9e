"""The hub a command line names, and what is told while it runs."""

import json
import logging
from dataclasses import fields

import typer

import holdfast
from holdfast.cli.environment import all_missing
from holdfast.cli.values import from_module
from holdfast.clock import SystemClock
from holdfast.errors import MissingCredential
from holdfast.telemetry import Redactor, Signal


def hub(text: str) -> "holdfast.Holdfast":
    """The hub behind `package.module:name`. Raises typer.BadParameter.

    Raises:
        MissingCredential: Environment variables are not set that its module reads; it names them all.
    """
    try:
        found = from_module(text)
    except MissingCredential as error:
        if not error.variables:
            raise
        raise all_missing(error) from error
    if not isinstance(found, holdfast.Holdfast):
        raise typer.BadParameter(f"{text} is a {type(found).__name__}, and no Holdfast")
    return found


def tell(as_json: bool, happening: str, **facts: object) -> None:
    """Something a person or a log collector wants to know of this process."""
    if as_json:
        line = {"time": SystemClock().now().isoformat(), "signal": happening, **facts}
        typer.echo(json.dumps(line, default=str))
    else:
        words = " ".join(f"{name}={value}" for name, value in facts.items())
        typer.echo(f"{happening} {words}".rstrip(), err=True)


def log_to_stderr() -> None:
    """Warnings and errors of the library, unless the program set its own logging up."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonLines:
    """A sink: every signal as one line of JSON on stdout."""

    def __init__(self) -> None:
        self._redactor = Redactor()

    def __call__(self, signal: Signal) -> None:
        facts = {field.name: self._safe(getattr(signal, field.name)) for field in fields(signal)}
        tell(True, signal.name, level=logging.getLevelName(signal.severity), **facts)

    def _safe(self, value: object) -> object:
        return self._redactor.redact(value) if isinstance(value, str) else value
