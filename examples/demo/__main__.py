"""`make demo`: consultations through a storm, a table against the targets, and the oracle's verdict."""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from examples.demo import report
from examples.demo.customers import Customers
from examples.demo.oracle import Verdict, confirm_times, gather, judge
from examples.demo.real_lnbits import RealLNbits
from examples.demo.sabotage import SABOTAGES
from examples.demo.stores import STORES, started
from examples.demo.world import LEASE, World
from holdfast.stores import Store, open_store

COUNT = 200
PER_SECOND = 3.5
LEAST_PAID = 150
LEAST_FIRED = 3
DRAIN = 75.0
"""Seconds at most until everything paid is confirmed and every orphan is swept."""


class Options(argparse.Namespace):
    """What the command line says."""

    seed: int | None
    json: bool
    sabotage: str
    keep: Path | None
    real_lnbits: bool
    store: str


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="any number; the same one makes the same storm")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument(
        "--sabotage", choices=sorted(SABOTAGES), default="", help="break one part; the oracle must object"
    )
    parser.add_argument("--keep", type=Path, default=None, help="leave databases and logs in this directory")
    parser.add_argument("--real-lnbits", action="store_true", help="the Lightning leg on a real LNbits from PyPI")
    parser.add_argument(
        "--store", choices=STORES, default="sqlite", help="on what holdfast runs; a server is started for it"
    )
    return parser.parse_args(namespace=Options())


async def torment(world: World) -> dict[str, int]:
    """Kill the receiver with SIGKILL once, and stop it for longer than its lease once."""
    length = COUNT / PER_SECOND
    await asyncio.sleep(length * 0.3)
    world.kill()
    await asyncio.sleep(0.5)
    world.restart()
    await asyncio.sleep(length * 0.35)
    world.freeze()
    await asyncio.sleep(LEASE + 0.6)
    world.thaw()
    return {"kill9": 1, "sigstop": 1}


async def drain(
    world: World, store: Store, customers: Customers, view: "report.View", admin: httpx.AsyncClient
) -> None:
    """Wait until nothing is left to happen."""
    until = time.monotonic() + DRAIN
    while time.monotonic() < until:
        verdict = judge(await gather(world, store, await ledger(admin, world), customers.visits))
        view.update(customers, verdict, "sweeping up")
        if verdict.paid >= customers.paid and not verdict.objections:
            return
        await asyncio.sleep(1)


async def ledger(admin: httpx.AsyncClient, world: World) -> Sequence[Mapping[str, Any]]:
    """What happened at the vendors."""
    entries: list[Mapping[str, Any]] = (await admin.get(f"{world.admin}/__fake/ledger")).json()
    if world.real_lnbits is not None:
        entries += await world.real_lnbits.entries(admin)
    return entries


async def watch(
    world: World, store: Store, customers: Customers, view: "report.View", admin: httpx.AsyncClient
) -> None:
    """Keep the display alive."""
    while True:
        evidence = await gather(world, store, await ledger(admin, world), customers.visits)
        view.update(customers, judge(evidence), "storm")
        await asyncio.sleep(0.5)


async def run(world: World, seed: int, console: Console) -> dict[str, Any]:
    """The whole demo, as the object of the last line."""
    begun = time.monotonic()
    customers = Customers(world, count=COUNT, per_second=PER_SECOND, seed=seed)
    async with open_store(world.store) as store, httpx.AsyncClient(timeout=30) as admin:
        with report.View(console, COUNT) as view:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(watch(world, store, customers, view, admin))
                tormenting = group.create_task(torment(world))
                await customers.come()
                process = await tormenting
                watching.cancel()
            await drain(world, store, customers, view, admin)
        evidence = await gather(world, store, await ledger(admin, world), customers.visits)
        faults = (await admin.get(f"{world.admin}/__fake/faults")).json()["fired"]
        webhooks = (await admin.get(f"{world.admin}/__fake/webhooks")).json()
    verdict = judge(evidence)
    confirmed, swept = confirm_times(evidence, webhooks["first_accepted"])
    targets = report.measure(world, customers.visits, confirmed)
    faults = {name: count for name, count in faults.items() if not name.endswith(".latency")}
    objections = [*verdict.objections, *_shortcomings(verdict, customers, faults, webhooks, targets)]
    return {
        "ok": not objections,
        "seed": seed,
        "store": world.store.partition("://")[0],
        "seconds": round(time.monotonic() - begun, 1),
        "targets": targets,
        "oracle": {name: value for name, value in asdict(verdict).items() if name != "objections"},
        "faults": faults,
        "process": process,
        "confirmed_by_sweep": swept,
        "errors_seen": sorted({error for visit in customers.visits for error in visit.errors})[:5],
        "objections": objections,
    }


REQUIRED = (
    "swiss-bitcoin-pay.refused",
    "swiss-bitcoin-pay.status_503",
    "swiss-bitcoin-pay.reset",
    "zoom.reset",
    "zoom.host_quota",
    "telegram.rate_limited",
    "webhook_duplicate",
    "webhook_delay",
    "webhook_forge",
    "webhook_drop",
)
"""Faults that must have struck, or the run proves nothing; those without a vendor count over all of them."""


def _shortcomings(
    verdict: Verdict,
    customers: Customers,
    faults: Mapping[str, int],
    webhooks: Mapping[str, Any],
    targets: Mapping[str, float],
) -> list[str]:
    """Why the run would prove nothing, or broke a promise to the customers."""
    found: list[str] = []
    if verdict.paid < LEAST_PAID:
        found.append(f"only {verdict.paid} of {COUNT} were paid, {LEAST_PAID} are needed")
    if ended_badly := [visit.reference for visit in customers.visits if not visit.ended_well]:
        found.append(f"{len(ended_badly)} bookings ended in an error: {', '.join(ended_badly[:5])}")
    if webhooks["accepted_forgeries"]:
        found.append(f"{webhooks['accepted_forgeries']} forged webhooks were accepted")
    for name in REQUIRED:
        fired = sum(count for fault, count in faults.items() if fault == name or fault.endswith(f".{name}"))
        least = 1 if name == "zoom.host_quota" else LEAST_FIRED  # after one such answer the host is not asked again
        if fired < least:
            found.append(f"the fault {name} struck {fired} times, {least} are needed")
    for name, limit in report.TARGETS.items():
        if targets[name] > limit:
            found.append(f"{name} is {targets[name]}, the target is {limit}")
    return found


def main() -> int:
    """0 when everything holds, 1 when anything does not."""
    wanted = options()
    seed = secrets.randbelow(1_000_000) if wanted.seed is None else wanted.seed
    console = Console(stderr=wanted.json)
    report.introduce(console, seed, wanted.sabotage, COUNT, PER_SECOND)
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as temporary:
        directory = wanted.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lnbits = stack.enter_context(RealLNbits(directory)) if wanted.real_lnbits else None
            store = stack.enter_context(started(wanted.store, directory))
            world = World(directory=directory, seed=seed, store=store, sabotage=wanted.sabotage, real_lnbits=lnbits)
            stack.enter_context(world)
            result = asyncio.run(run(world, seed, console))
    report.conclude(console, result)
    if wanted.json:
        print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
