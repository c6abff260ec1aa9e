"""`holdfast worker`: handlers and sweeps in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.hubs import JsonLines, hub, log_to_stderr, tell
from holdfast.cli.supervise import Supervisor

if TYPE_CHECKING:
    from holdfast.hub import Holdfast

STOPS = (signal.SIGTERM, signal.SIGINT)


def worker_command(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Your hub: shop.integrations:hub.")],
    processes: Annotated[int, typer.Option(min=1, max=1024, help="How many work, each with its own hub.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print what runs, as lines of JSON.")] = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run deliveries, handlers and sweeps until SIGTERM or SIGINT.

    Then it takes nothing new, finishes what runs within the grace period, and releases the rest. A second signal ends
    it at once. With several processes, one that dies is started again.
    """
    log_to_stderr()
    found = hub(target)
    if processes == 1:
        asyncio.run(_work(found, json, supervised))
        # What a handler left running in a thread must not keep the process: its job was given back.
        _leave(ExitCode.OK)
    command = [sys.executable, "-m", "holdfast", "worker", target, "--supervised", *(["--json"] if json else [])]
    supervisor = Supervisor([command] * processes, tell=partial(tell, json))
    raise typer.Exit(asyncio.run(supervisor.run()))


async def _work(found: Holdfast, as_json: bool, supervised: bool) -> None:
    if as_json:
        found.telemetry.add(JsonLines())
    loop = asyncio.get_running_loop()
    async with found, asyncio.TaskGroup() as group:
        work = group.create_task(found.work())
        for number in STOPS:
            loop.add_signal_handler(number, work.cancel)
        if supervised:
            loop.add_reader(sys.stdin, partial(_orphaned, loop, work))
        tell(as_json, "holdfast.worker.started", pid=os.getpid())
    tell(as_json, "holdfast.worker.stopped", pid=os.getpid())


def _orphaned(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    """The supervisor's end of our input was closed: it is gone."""
    loop.remove_reader(sys.stdin)
    work.cancel()


def _leave(code: ExitCode) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
