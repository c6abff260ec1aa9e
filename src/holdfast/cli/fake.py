"""`holdfast fake`: simulated vendors for official SDKs, other languages, and whole applications."""

import asyncio
import json as json_text
import os
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.hubs import log_to_stderr
from holdfast.cli.output import complain, data, messages, print_json
from holdfast.testing.faults import Latency
from holdfast.testing.scenario import SCENARIOS, load_scenario
from holdfast.testing.simulators.server import PortTaken, Server, UnknownVendor, check_vendors, known_vendors

fake = typer.Typer(
    name="fake", no_args_is_help=True, rich_markup_mode=None, help="Simulated vendors, on sockets of this machine."
)

LONGEST_LATENCY: Final = 600
_HERE: Final = frozenset(("127.0.0.1", "localhost", "::1"))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        check_vendors(names)
    except UnknownVendor as error:
        raise typer.BadParameter(str(error), param_hint="'--providers'") from None
    return names or known_vendors()


def _latency(text: str) -> Latency:
    median, _, p99 = text.partition(",")
    try:
        found = Latency(float(median), float(p99 or median))
    except ValueError:
        found = None
    if found is None or found.p99 > LONGEST_LATENCY:
        raise typer.BadParameter(f"{text!r}: write seconds, the median and the 99th percentile, as in 0.25,1.5")
    return found


def _web_address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{text!r} is no address; write it whole: http://127.0.0.1:8000/webhooks")
    return text


@fake.command("serve")
def serve_command(
    providers: Annotated[
        str, typer.Option(metavar="NAMES", help="Which vendors, by commas; by default all there are.")
    ] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The first vendor's; the others, then the admin, have the next ones.")
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Decides ids, faults, delays and what happens to webhooks; 0 by default.")
    ] = None,
    scenario: Annotated[str, typer.Option(metavar="FILE|NAME", help=f"A file, or {' or '.join(SCENARIOS)}.")] = "calm",
    latency: Annotated[
        Latency | None,
        typer.Option(parser=_latency, metavar="MEDIAN,P99", help="Of every answer, in seconds: 0.25,1.5."),
    ] = None,
    webhook_base: Annotated[
        str | None,
        typer.Option(
            parser=_web_address, metavar="URL", help="Account-wide webhooks go to this address, / and the vendor."
        ),
    ] = None,
    hold_webhooks: Annotated[
        bool, typer.Option("--hold-webhooks", help="Send none before POST /__fake/deliver asks for them.")
    ] = False,
    port_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write all addresses to this file, once all listen."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    json: Annotated[bool, typer.Option("--json", help="Print all addresses as one line of JSON.")] = False,
) -> None:
    """Serve simulated vendors until SIGTERM or SIGINT, each on a port of its own.

    Official SDKs work against them: only their base address is set. Every port has doors under /__fake/ for whoever
    runs the simulation: the ledger, faults, webhooks, verdicts. They need no password, so stay on this machine.
    """
    log_to_stderr()
    try:
        server = Server(
            _names(providers),
            seed=seed,
            scenario=load_scenario(scenario),
            latency=latency,
            webhook_base=webhook_base or "",
            hold_webhooks=hold_webhooks,
            host=host,
            port=port,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if host not in _HERE:
        messages().print(f"Warning: whoever reaches {host} can use these vendors, and every door under /__fake/")
    try:
        asyncio.run(_serve(server, port_file, as_json=json))
    except PortTaken as error:
        complain(f"{error.strerror}")
        raise typer.Exit(ExitCode.USAGE) from error


async def _serve(server: Server, port_file: Path | None, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        where = server.to_json() | {"pid": os.getpid()}
        if port_file is not None:
            _write(port_file, where)
        if as_json:
            print_json(where)
        else:
            _print(server)
        await stop.wait()


def _print(server: Server) -> None:
    console = data()
    width = max(map(len, server.vendors))
    for name, served in server.vendors.items():
        console.print(f"{name:{width}}  {served.url}")
        for part, text in served.credentials.items():
            console.print(f"{'':{width}}    {part} = {text}")
        console.print(f"{'':{width}}  > {served.client}")
    console.print(f"{'admin':{width}}  {server.admin}/__fake/  (page: {server.admin}/__fake/page)")
    messages().print(f"seed {server.seed}; Ctrl-C ends it")


def _write(path: Path, where: dict[str, object]) -> None:
    """All at once, so that a reader never sees half of it."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.write_text(json_text.dumps(where))
        draft.replace(path)
    except OSError as error:
        raise typer.BadParameter(
            f"{str(path)!r} cannot be written: {error.strerror}", param_hint="'--port-file'"
        ) from error
