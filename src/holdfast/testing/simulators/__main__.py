"""The simulated vendors as one process.

    python -m holdfast.testing.simulators --vendors lnbits,zoom,smtp --seed 7 --port-file ports.json

The port file is JSON, written once everybody listens: each vendor's `url` and `credentials`, and the `admin` address.
SIGTERM and SIGINT end it.
"""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from holdfast.testing.faults import Faults, Latency
from holdfast.testing.ledger import Ledger
from holdfast.testing.scenario import SCENARIOS
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.admin import Admin
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.post import Poster
from holdfast.testing.simulators.simulator import Simulator
from holdfast.testing.simulators.smtp import SmtpSimulator
from holdfast.testing.simulators.webhooks import WebhookSimulator


class Options(argparse.Namespace):
    """What the command line says."""

    vendors: str
    seed: int
    port_file: Path
    webhook_base: str
    scenario: str
    latency: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.simulators", description=__doc__)
    parser.add_argument("--vendors", required=True, help=f"by commas, of: {', '.join((*installed_simulators(), 'smtp'))}")
    parser.add_argument("--seed", type=int, default=0, help="decides ids, faults, delays and the order of webhooks")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the addresses, as JSON")
    parser.add_argument("--webhook-base", default="", help="account-wide webhooks go to this address plus /vendor")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="calm")
    parser.add_argument("--latency", default="", metavar="MEDIAN,P99", help="lognormal, in seconds: 0.25,1.5")
    asyncio.run(serve(parser.parse_args(arguments, Options())))


async def serve(options: Options) -> None:
    """Open every vendor's socket, write the port file, deliver webhooks; until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    faults, ledger = Faults(options.seed), Ledger()
    names = [name.strip() for name in options.vendors.split(",") if name.strip()]
    scenario = SCENARIOS[options.scenario]
    scenario.plan(faults)
    mischief = scenario.mischief(names)
    if options.latency:
        median, p99 = map(float, options.latency.split(","))
        for name in names:
            faults.on(name).always(Latency(median, p99))
    simulators = [_simulator(name, options, ledger, faults) for name in names if name != SmtpSimulator.vendor]
    webhooks = WebhookSimulator(simulators, Poster(), mischief=mischief, seed=options.seed)
    admin = Admin(simulators, ledger=ledger, faults=faults, webhooks=webhooks)
    async with AsyncExitStack() as stack:
        served: dict[str, object] = {}
        for simulator in simulators:
            edge = await stack.enter_async_context(Edge(simulator))
            served[simulator.vendor] = {"url": edge.url, "credentials": dict(simulator.credentials)}
        if SmtpSimulator.vendor in names:
            mail = await stack.enter_async_context(SmtpSimulator(seed=options.seed, ledger=ledger, faults=faults))
            served[SmtpSimulator.vendor] = {"url": mail.url, "credentials": {}}
        door = await stack.enter_async_context(Edge(admin))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        delivering = tasks.create_task(webhooks.run())
        _write(options.port_file, {"admin": door.url, "vendors": served, "pid": os.getpid()})
        await stop.wait()
        delivering.cancel()


def _simulator(name: str, options: Options, ledger: Ledger, faults: Faults) -> Simulator:
    url = f"{options.webhook_base.rstrip('/')}/{name}" if options.webhook_base else ""
    return load_simulator(name)(seed=options.seed, ledger=ledger, faults=faults, webhook_url=url)


def _write(path: Path, found: dict[str, object]) -> None:
    """All at once, so that a reader never sees half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(path)


if __name__ == "__main__":
    main()
