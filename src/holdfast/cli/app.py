"""The commands, and what becomes of an error that one of them raises."""

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from holdfast import __version__
from holdfast.cli.exit_codes import exit_code
from holdfast.errors import HoldfastError

COMMANDS: Final = {
    "dlq": ("dlq:dlq", "Look at dead letters, run them again, or give them up."),
    "drift": ("drift:drift", "Notice when a vendor's answers change their shape."),
    "export": ("export:export_command", "Print all that is stored about somebody."),
    "fake": ("fake:fake", "Simulated vendors, on sockets of this machine."),
    "forget": ("forget:forget_command", "Make all that is stored about somebody unreadable, for good."),
    "inbox": ("inbox:inbox", "Look at deliveries and events, and replay them."),
    "receive": ("receive:receive_command", "Receive webhooks on the store of your hub."),
    "reconcile": (
        "reconcile:reconcile_command",
        "Ask every vendor that can be asked what happened, and compare your books.",
    ),
    "simulate": ("simulate:simulate_command", "Show what a policy does while a provider is down."),
    "store": ("store:store", "Back up, restore and examine the store."),
    "switch": ("switch:switch_command", "Switch a provider for every process on the store."),
    "worker": ("worker:worker_command", "Run deliveries, handlers and sweeps."),
}
"""Where each command is, and what it does: the list of them imports none, as most of them need the whole package."""


class Lazy(TyperGroup):
    """Imports the one command that is run, completed or explained."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is no command before any option is read: to read one, typer imports pydantic."""
        if args and not args[0].startswith("-"):
            super().resolve_command(ctx, list(args))
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant, in place of the line that stands for it in the list."""
        name, line, rest = super().resolve_command(ctx, args)
        return name, None if line is None or name is None else _load(name), rest


def _load(name: str) -> Any:
    """A group as it is, or a function as a command."""
    home, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"holdfast.cli.{home}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(found)
    return typer.main.get_command(alone)


# Help in plain text: what draws boxes around it takes longer to import than all that is in them.
app = typer.Typer(
    name="holdfast", cls=Lazy, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _listed() -> None:
    """Stands for a command in the list."""


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(_listed)


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
        from holdfast.cli.output import complain  # what is needed for help and wrong usage only needs no colours

        complain(str(error))
        raise SystemExit(exit_code(error)) from error
