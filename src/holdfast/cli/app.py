"""The commands, and what becomes of an error that one of them raises."""

from typing import Annotated

import typer

from holdfast import __version__
from holdfast.cli.dlq import dlq
from holdfast.cli.drift import drift
from holdfast.cli.exit_codes import exit_code
from holdfast.cli.fake import fake
from holdfast.cli.inbox import inbox
from holdfast.cli.output import complain
from holdfast.cli.receive import receive_command
from holdfast.cli.reconcile import reconcile_command
from holdfast.cli.simulate import simulate_command
from holdfast.cli.store import store
from holdfast.cli.switch import switch_command
from holdfast.cli.worker import worker_command
from holdfast.errors import HoldfastError

app = typer.Typer(name="holdfast", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(dlq)
app.add_typer(drift)
app.add_typer(fake)
app.add_typer(inbox)
app.command("receive")(receive_command)
app.command("reconcile")(reconcile_command)
app.command("simulate")(simulate_command)
app.add_typer(store)
app.command("switch")(switch_command)
app.command("worker")(worker_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Payments, meetings and notifications that survive other people's outages.

    Data goes to stdout, messages to stderr.

    Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 3 unreachable,
    4 refused or in conflict.
    """


def run() -> None:
    """Do what the command line says; an error of ours becomes a sentence on stderr and an exit code."""
    try:
        app(prog_name="holdfast")
    except HoldfastError as error:
        complain(str(error))
        raise SystemExit(exit_code(error)) from error
