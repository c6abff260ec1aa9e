"""Two vendors with incidents, and the payers between them and a shop, whichever client that shop uses."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, RootModel

from holdfast import Money, Secrets
from holdfast.errors import NotSent, OutcomeUnknown
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.http.vendor import CAUSES, HttpDefaults
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Offer, PaymentStatus
from holdfast.payments.provider import Capabilities, Lookup, OfferRequest, PaymentSnapshot, WebhookTrust
from holdfast.testing.virtual_clock import VirtualClock
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody

PUSH, PAGE = "push", "page"
SECRET: Final = "the secret of both vendors"
DAY: Final = 86_400.0
DOWN: Final = 0.01
"""The share of a day that each vendor is not itself."""
INCIDENTS: Final = ("refused",) * 5 + ("connect",) * 2 + ("lost",) * 2 + ("slow",)
"""Of a day, all equally long: 50 % refused, 20 % connect, 20 % lost answers, 10 % slow."""
CONNECT_FAILS_AFTER: Final = 3.0
SLOW: Final = 25.0
EXPIRES: Final = 600.0


@dataclass(frozen=True, slots=True)
class Incident:
    """When a vendor is not itself, and how."""

    kind: str
    since: float
    until: float


def day_of(chance: Random) -> list[Incident]:
    """A vendor's day: its incidents at random times, one after another."""
    kinds = list(INCIDENTS)
    chance.shuffle(kinds)
    each, slot = DAY * DOWN / len(kinds), DAY / len(kinds)
    begins = [number * slot + chance.uniform(0, slot - each) for number in range(len(kinds))]
    return [Incident(kind, begin, begin + each) for kind, begin in zip(kinds, begins, strict=True)]


def hour_of(chance: Random) -> list[Incident]:
    """An hour in which both vendors are ill at the same time, half of it, in the same way."""
    kinds = list(INCIDENTS)
    chance.shuffle(kinds)
    slot = 3600.0 / len(kinds)
    return [Incident(kind, number * slot, number * slot + slot / 2) for number, kind in enumerate(kinds)]


@dataclass(kw_only=True, eq=False)
class Thing:
    """What a vendor holds."""

    id: str
    vendor: "Vendor"
    reference: str
    attempt: str
    amount: str
    at: float
    paid_at: float | None = None


@dataclass(kw_only=True, eq=False)
class Vendor:
    """One vendor: `push` asks the payer at once, and takes a key; `page` has a page to be shown, and takes none."""

    name: str
    clock: VirtualClock
    chance: Random
    incidents: Sequence[Incident]
    things: dict[str, Thing] = field(default_factory=dict)
    calls: int = 0
    asked: Callable[[Thing], object] = lambda thing: None
    """The payer's phone rings."""

    def incident(self) -> Incident | None:
        now = self.clock.elapsed
        return next((one for one in self.incidents if one.since <= now < one.until), None)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """As the network does; what it raises is what both shops' clients make their own error of."""
        self.calls += 1
        incident = self.incident()
        kind = incident.kind if incident else ""
        if kind == "connect":
            await self.clock.sleep(CONNECT_FAILS_AFTER)
            raise NotSent("no connection", hard=True)
        await self.clock.sleep(self.chance.lognormvariate(-1.8, 0.4))
        if kind == "refused":
            return HttpResponse(status=503, content=b'{"code": "unavailable"}')
        response = self._answer(request)
        if kind == "lost":
            raise OutcomeUnknown("the answer was lost", hard=True)
        if kind == "slow":
            await self.clock.sleep(SLOW)
        return response

    async def aclose(self) -> None: ...

    def _answer(self, request: HttpRequest) -> HttpResponse:
        address = urlsplit(request.url)
        last = address.path.rpartition("/")[2]
        if request.method == "POST":
            return _json(201, self._made(json.loads(request.content), dict(request.headers).get("x-key", "")))
        if last == "payments":
            [attempt] = parse_qs(address.query)["attempt"]
            return _json(200, [_wire(thing) for thing in self.things.values() if thing.attempt == attempt])
        thing = self.things.get(last)
        return _json(404, {"code": "unknown"}) if thing is None else _json(200, _wire(thing))

    def _made(self, wanted: dict[str, str], key: str) -> dict[str, object]:
        known = self.things.get(key) if self.name == PUSH and key else None
        if known is None:
            known = Thing(
                id=key if self.name == PUSH and key else f"{self.name}-{len(self.things)}",
                vendor=self,
                reference=wanted["reference"],
                attempt=wanted["attempt"],
                amount=wanted["amount"],
                at=self.clock.elapsed,
            )
            self.things[known.id] = known
            if self.name == PUSH:
                self.asked(known)
        return _wire(known)


def _wire(thing: Thing) -> dict[str, object]:
    over = thing.vendor.clock.elapsed > thing.at + EXPIRES
    status = "paid" if thing.paid_at is not None else "expired" if over else "pending"
    return {
        "id": thing.id,
        "reference": thing.reference,
        "attempt": thing.attempt,
        "amount": thing.amount,
        "status": status,
        "url": f"https://{thing.vendor.name}.example/{thing.id}",
    }


def _json(status: int, body: object) -> HttpResponse:
    return HttpResponse(
        status=status, headers=(("content-type", "application/json"),), content=json.dumps(body).encode()
    )


# Our objects for them.


class Wire(BaseModel):
    """A payment, as both vendors write it."""

    id: str
    reference: str
    attempt: str
    amount: Decimal
    status: str
    url: str

    def to_snapshot(self) -> PaymentSnapshot:
        price = Money(self.amount, "CHF")
        status = {"paid": PaymentStatus.PAID, "expired": PaymentStatus.EXPIRED}.get(self.status, PaymentStatus.PENDING)
        return PaymentSnapshot(
            vendor_id=self.id,
            status=status,
            price=price,
            received=price if status is PaymentStatus.PAID else None,
            attempt_id=self.attempt,
            offer=Offer(checkout_url=self.url),
        )


class Wires(RootModel[list[Wire]]):
    """A list of them."""


@dataclass(frozen=True, kw_only=True)
class Provider(HttpDefaults):
    """An account at one of them."""

    name: str
    base_url: str = "http://127.0.0.1:1"
    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(
            currencies=frozenset({"CHF"}), lookup=Lookup.AUTHORITATIVE, webhook_trust=WebhookTrust.SIGNED_BODY
        )
    )
    causes = CAUSES | {503: Cause.REFUSED}
    scheme = HmacBody("x-signature")
    webhook_secrets = Secrets(SECRET)

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        body = {"reference": request.reference, "attempt": request.attempt_id, "amount": str(request.price.amount)}
        able = self.capabilities
        made = await http.post(
            "/payments",
            Wire,
            operation="create",
            effect=able.create_effect,
            json=body,
            headers={"x-key": request.attempt_id} if able.create_effect is Effect.KEYED else None,
            key_valid=request.key_valid,
        )
        return made.to_snapshot()

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        return (await http.get(f"/payments/{vendor_id}", Wire, operation="fetch")).to_snapshot()

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        found = await http.get("/payments", Wires, operation="find", params={"attempt": attempt.id})
        return found.root[0].to_snapshot() if found.root else None

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        wire = Wire.model_validate_json(request.body)
        return [
            Delivery(
                type=wire.status,
                dedup_key=f"{wire.id}/{wire.status}",
                vendor_id=wire.id,
                reference=wire.reference,
                facts={"attempt_id": wire.attempt},
            )
        ]


def providers() -> list[Provider]:
    """The one that is preferred, and the other."""
    page = Provider(name=PAGE)
    able = replace(
        page.capabilities, create_effect=Effect.KEYED, payer_visible=True, lookup=Lookup.AUTHORITATIVE_ABSENCE
    )
    return [Provider(name=PUSH, capabilities=able), page]


# Payers.

Post = Callable[[Thing, bytes, str], Awaitable[bool]]
"""Hand a vendor's webhook to the shop; False: not taken, come again."""


@dataclass(kw_only=True)
class Payers:
    """What people do: approve what their phone asks, pay what they see, and believe the shop most of the time."""

    clock: VirtualClock
    chance: Random
    spawn: Callable[[Any], object]
    post: Post
    believes_twice: float = 0.5
    """How often somebody who has paid approves another request for the same order, or pays the page they see."""
    believes_error: float = 0.5
    """How often somebody whom the shop told of an error approves all the same."""
    failed: set[str] = field(default_factory=set)
    """Orders of which the shop says that they failed."""
    things: list[Thing] = field(default_factory=list)

    def ring(self, thing: Thing) -> None:
        """The phone rings."""
        self.spawn(self._decide(thing, self.chance.uniform(8, 25)))

    def see(self, thing: Thing) -> None:
        """The page is shown."""
        self.spawn(self._decide(thing, self.chance.uniform(15, 45)))

    async def _decide(self, thing: Thing, after: float) -> None:
        await self.clock.sleep(after)
        if thing.paid_at is not None:
            return
        paid = any(one.reference == thing.reference for one in self.things)
        if paid and self.chance.random() >= self.believes_twice:
            return
        if thing.reference in self.failed and self.chance.random() >= self.believes_error:
            return
        thing.paid_at = self.clock.elapsed
        self.things.append(thing)
        await self._tell(thing)

    async def _tell(self, thing: Thing) -> None:
        """The vendor's webhook: held back while the vendor is ill, repeated until it is taken."""
        body = json.dumps(_wire(thing)).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        wait = self.chance.uniform(0.2, 1.5)
        for _ in range(10):
            await self.clock.sleep(wait)
            incident = thing.vendor.incident()
            if incident is not None:
                await self.clock.sleep(incident.until - self.clock.elapsed)
            if await self.post(thing, body, signature):
                return
            wait = 5.0
