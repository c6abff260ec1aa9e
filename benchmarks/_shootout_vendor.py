"""A vendor with a script: it loses answers, is unavailable, is slow, and sends its webhooks twice and out of order.

`POST /charges` takes `{"order", "reference", "cents", "currency", "webhook"}` and charges at once. Its answer says
`processing`; the money is there a moment later, which a webhook tells. A status of 503 means that nothing was done.
With `Idempotency-Key`, a vendor that honours keys gives the first answer again; one that does not charges again.
`GET /charges?reference=…` shows every charge of a reference, from the moment it was made. `POST /messages` takes
`{"title", "message"}` and tells somebody.

    python -m benchmarks._shootout_vendor --edges a:keys,b:no_keys --intents 200 --port-file ports.json

The port file is JSON, written once everybody listens: the address of each edge, which has a ledger of its own.
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

from benchmarks._intents import KEYS, TIMEOUT, orders
from holdfast.clock import Clock
from holdfast.testing.faults import Fault, Latency, Match, Reset, Status
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.idempotency import Conflict, IdempotencyKeys
from holdfast.testing.simulators.post import Poster
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route
from holdfast.testing.simulators.webhooks import Mischief, WebhookSimulator
from holdfast.values import Money

SEED: Final = 7
SECRET: Final = "what the scripted vendor signs its webhooks with"
ANSWER: Final = 0.02
"""Seconds an answer takes after its effect on a good day."""
PAID_AFTER: Final = 0.3
"""Seconds from a charge to its money."""
DAY: Final = 86_400.0
SLOW: Final = Latency.constant(3 * TIMEOUT)
LOST, UNAVAILABLE = Reset(), Status(503)
TROUBLES: Final[Mapping[str, tuple[int, tuple[Fault, ...]]]] = {
    "lost": (40, (LOST,)),
    "unavailable": (30, (UNAVAILABLE,)),
    "slow": (20, (SLOW,)),
    "lost, then unavailable": (10, (LOST, UNAVAILABLE)),
}
"""How many of 200 orders, and what becomes of the first calls for each; all calls after these go well."""
OF: Final = 200
WEBHOOKS: Final = Mischief(duplicate=0.25, delay=0.25, up_to=3 * PAID_AFTER)
"""A held-back webhook is overtaken by the next one of the same charge."""


def script(intents: int, *, seed: int = SEED) -> dict[str, tuple[Fault, ...]]:
    """What happens to the first calls for each order, decided by the seed alone."""
    dealt = [faults for count, faults in TROUBLES.values() for _ in range(count * intents // OF)]
    dealt += [()] * (intents - len(dealt))
    Random(seed).shuffle(dealt)
    return dict(zip(orders(intents), dealt, strict=True))


def _order(body: Mapping[str, object]) -> str:
    return str(body.get("order") or body.get("title"))


@dataclass(kw_only=True, slots=True)
class Charge:
    """One charge, as their database may hold it."""

    id: str
    order: str
    reference: str
    money: Money
    webhook: str
    paid_at: float
    is_paid: bool = False

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "order": self.order,
            "reference": self.reference,
            "cents": self.money.minor_units,
            "currency": self.money.currency,
            "status": "paid" if self.is_paid else "processing",
        }


class ScriptedVendor(Simulator):
    """Charges and messages; whether it honours idempotency keys is its owner's choice."""

    vendor = "scripted"
    retries = (0.3, 0.6, 1.2, 2.4, 4.8)

    def __init__(self, *, honours_keys: bool, seed: int = SEED, clock: Clock | None = None) -> None:
        super().__init__(seed=seed, clock=clock, webhook_secret=SECRET)
        self.honours_keys = honours_keys
        self._keys = IdempotencyKeys(self.clock, window=DAY)
        self._charges: dict[str, Charge] = {}
        self._by_reference: dict[str, list[Charge]] = {}
        self._processing: list[Charge] = []

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        return (("scripted-signature", hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()),)

    def tick(self) -> None:
        """The money of a charge arrives."""
        now = self.clock.monotonic()
        while self._processing and self._processing[0].paid_at <= now:
            charge = self._processing.pop(0)
            charge.is_paid = True
            self._tell(charge, "charge.paid")

    @route("POST", "/charges", "payments.create")
    def create_charge(self, request: Request) -> Response:
        """Charge, or answer as before to a key that is honoured."""
        return self._once(request, self._charge)

    @route("POST", "/messages", "messages.send")
    def send_message(self, request: Request) -> Response:
        """Tell somebody, or answer as before to a key that is honoured."""
        return self._once(request, self._send)

    @route("GET", "/charges", "payments.find")
    def find_charges(self, request: Request) -> Response:
        """Every charge of a reference."""
        found = self._by_reference.get(request.query.get("reference", ""), [])
        return Response.json({"charges": [charge.to_json() for charge in found]})

    @route("GET", "/charges/{id}", "payments.fetch")
    def read_charge(self, request: Request) -> Response:
        """One charge."""
        charge = self._charges.get(request.params["id"])
        return Response.json(charge.to_json()) if charge else self.not_found(request)

    @route("GET", "/__fake/effects", "read")
    def count_effects(self, request: Request) -> Response:
        """How often each order was charged, or told of: by the ledger."""
        return Response.json(Counter(entry.key for entry in self.ledger))

    def _once(self, request: Request, do: Callable[[Request], Response]) -> Response:
        key = request.header("idempotency-key") if self.honours_keys else None
        if key is None:
            return do(request)
        name = f"{request.header('authorization')}/{key}"  # keys are those of an account
        known = self._keys.look(name, request.path, request.body)
        if isinstance(known, Conflict):
            return Response.json({"error": f"this key was used already: {known.value}"}, status=409)
        if known is None:
            known = do(request)
            self._keys.keep(name, request.path, request.body, known)
        return known

    def _charge(self, request: Request) -> Response:
        asked = request.json()
        charge = Charge(
            id=f"ch_{self.random().getrandbits(64):016x}",
            order=_order(asked),
            reference=str(asked["reference"]),
            money=Money.from_minor(int(str(asked["cents"])), str(asked["currency"])),
            webhook=str(asked.get("webhook") or ""),
            paid_at=self.clock.monotonic() + PAID_AFTER,
        )
        self._charges[charge.id] = charge
        self._by_reference.setdefault(charge.reference, []).append(charge)
        self._processing.append(charge)
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=charge.id, key=charge.order, money=charge.money)
        self._tell(charge, "charge.created")
        return Response.json(charge.to_json(), status=201)

    def _send(self, request: Request) -> Response:
        id = f"msg_{self.random().getrandbits(64):016x}"
        self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=id, key=_order(request.json()))
        return Response.json({"id": id}, status=201)

    def _tell(self, charge: Charge, event: str) -> None:
        if charge.webhook:
            about = {"id": f"evt_{self.random().getrandbits(64):016x}", "type": event, "charge": charge.to_json()}
            body = json.dumps(about).encode()
            self.owe(
                Webhook(
                    vendor=self.vendor, url=charge.webhook, event=event, about=charge.id, key=charge.order, body=body
                )
            )


def scripted(*, honours_keys: bool, intents: int, seed: int = SEED) -> ScriptedVendor:
    """The vendor with its script: it goes by the order a call is about, whoever else calls meanwhile."""
    vendor = ScriptedVendor(honours_keys=honours_keys, seed=seed)
    for operation in ("payments.create", "messages.send"):
        calls = vendor.faults.on(vendor.vendor, operation)
        calls.always(Latency.constant(ANSWER))
        for order, faults in script(intents, seed=seed).items():
            if faults:
                calls.when(Match(body_contains=f'"{order}"')).script(*faults)
    return vendor


class Options(argparse.Namespace):
    """What the command line says."""

    edges: str
    intents: int
    port_file: Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._shootout_vendor", description=__doc__)
    parser.add_argument("--edges", required=True, help="name:keys or name:no_keys, by commas")
    parser.add_argument("--intents", type=int, default=OF)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the addresses, as JSON")
    asyncio.run(serve(parser.parse_args(namespace=Options())))


async def serve(options: Options) -> None:
    """Open every edge, write the port file, deliver webhooks; until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    urls: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        posting: list[asyncio.Task[None]] = []
        for name in options.edges.split(","):
            vendor = scripted(honours_keys=name.endswith(f":{KEYS}"), intents=options.intents)
            edge = await stack.enter_async_context(Edge(vendor))
            posting.append(tasks.create_task(_deliver(vendor)))
            urls[name] = edge.url
        _write(options.port_file, urls)
        await stop.wait()
        for task in posting:
            task.cancel()


async def _deliver(vendor: ScriptedVendor) -> None:
    while not vendor.outbox:  # most of them will never owe one, and delivering is a loop that looks often
        await vendor.clock.sleep(PAID_AFTER)
    await WebhookSimulator([vendor], Poster(), mischief=WEBHOOKS, seed=vendor.seed).run()


def _write(path: Path, urls: Mapping[str, str]) -> None:
    """All at once, so that a reader never sees half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(urls))
    draft.replace(path)


if __name__ == "__main__":
    main()
