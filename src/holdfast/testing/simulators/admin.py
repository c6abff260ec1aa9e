"""The doors under `/__fake/`: for whoever runs the simulation, in any language. They never fail on purpose."""

import inspect
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast.errors import HoldfastError
from holdfast.http.origin import is_loopback
from holdfast.testing.entries import Kind
from holdfast.testing.faults import FaultPlan
from holdfast.testing.simulators.courier import Sent
from holdfast.testing.simulators.page import page
from holdfast.testing.simulators.simulator import Request, Response, Simulator
from holdfast.testing.simulators.verdicts import verdicts
from holdfast.testing.timeline import Timeline

if TYPE_CHECKING:
    from holdfast.testing.simulators.server import Server

PREFIX: Final = "/__fake/"
MOST: Final = 1000
"""Records shown at once, unless more are asked for."""
_DOOR: Final = "_door_of_method"
_HEADERS: Final = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))
_PAGE: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)

_Door = Callable[["Admin", Request], Awaitable[Response]]
DoorT = TypeVar("DoorT", bound=_Door)


class Delivery(BaseModel):
    """How webhooks are to be delivered; the words are those of `Door.deliver`."""

    model_config = ConfigDict(extra="forbid")

    to: str = ""
    vendor: str | None = None
    again: bool = False
    duplicate: int = Field(default=0, ge=0, le=100)
    shuffle: bool = False
    late: float | str | None = None
    drop: bool | list[int] = False
    forge: str | list[str] | None = None
    reserialise: bool = False
    lie: bool = False
    rotate: Literal["during", "after"] | None = None
    together: bool = False
    skew: float | str | None = None


class Unclear(Exception):
    """What was asked for makes no sense; the text is the answer."""


def door(method: str, name: str) -> Callable[[DoorT], DoorT]:
    """The coroutine method answers `method /__fake/name`."""

    def mark(answer: DoorT) -> DoorT:
        setattr(answer, _DOOR, (method, f"{PREFIX}{name}"))
        return answer

    return mark


class Admin(Simulator):
    """Beside every vendor of a server, and on a port of its own."""

    vendor = "admin"

    def __init__(self, server: "Server") -> None:
        super().__init__(clock=server.clock)
        self._server = server

    def not_found(self, request: Request) -> Response:
        """Whoever opened the admin's address without a path is told where the doors are."""
        return Response.json({"error": f"nothing but the doors listed under {PREFIX} is here"}, status=404)

    async def respond(self, request: Request) -> Response:
        """What is behind the door that was knocked at."""
        if request.header("sec-fetch-site") in ("cross-site", "same-site"):
            return _refusal(403, "a web page from elsewhere has no business here")
        name = _DOORS.get((request.method, request.path))
        if name is None:
            allowed = sorted(method for method, path in _DOORS if path == request.path)
            if allowed:
                return _refusal(405, f"{request.path} answers {', '.join(allowed)}")
            return _refusal(404, f"no such door; they are listed under {PREFIX}")
        answer: _Door = getattr(type(self), name)
        try:
            response = await answer(self, request)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return _refusal(400, ": ".join([*map(str, first["loc"]), first["msg"]]))
        except (Unclear, HoldfastError, ValueError) as error:
            return _refusal(400, str(error))
        return Response(status=response.status, headers=(*response.headers, *_HEADERS), body=response.body)

    # Looking

    @door("GET", "")
    async def list_doors(self, request: Request) -> Response:
        """Every door, with a sentence."""
        return Response.json(
            {
                f"{method} {path}": (inspect.getdoc(getattr(self, name)) or "").partition("\n\n")[0].replace("\n", " ")
                for (method, path), name in sorted(_DOORS.items(), key=lambda item: item[0][::-1])
            }
        )

    @door("GET", "page")
    async def read_page(self, request: Request) -> Response:
        """The timeline, the ledger and the faults, to be read by people; `?last=200` shows more of it."""
        text = page(self._server, last=_number(request, "last", 100))
        return Response(headers=_PAGE, body=text.encode())

    @door("GET", "vendors")
    async def read_vendors(self, request: Request) -> Response:
        """Where each vendor is, the credentials of its account, and the line that points a client at it."""
        return Response.json(self._server.to_json())

    @door("GET", "state")
    async def read_state(self, request: Request) -> Response:
        """What each vendor has seen and done: calls by operation, effects by kind, webhooks it still owes."""
        calls: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for call in self._server.journal.calls():
            calls[call.vendor][call.operation] += 1
        effects: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for entry in self._server.ledger:
            effects[entry.vendor][str(entry.kind)] += 1
        simulators = self._server.simulators
        return Response.json(
            {
                name: {
                    "calls": dict(sorted(calls[name].items())),
                    "effects": dict(sorted(effects[name].items())),
                    "webhooks_owed": len(simulators[name].outbox) if name in simulators else 0,
                }
                for name in self._server.vendors
            }
        )

    @door("GET", "ledger")
    async def read_ledger(self, request: Request) -> Response:
        """Everything that happened, in order; `?vendor=`, `?kind=` and `?key=` narrow it down."""
        asked = request.query
        kind = asked.get("kind")
        if kind is not None and kind not in {*Kind}:
            raise Unclear(f"there is no kind {kind!r}; there are {', '.join(Kind)}")
        found = self._server.ledger.entries(
            Kind(kind) if kind else None, vendor=asked.get("vendor"), key=asked.get("key")
        )
        return Response.json([entry.to_json() for entry in found])

    @door("GET", "journal")
    async def read_journal(self, request: Request) -> Response:
        """Calls, effects, webhooks and notes, in order, without secrets: the last thousand, or `?last=` so many."""
        journal, last = self._server.journal, _number(request, "last", MOST)
        records = sorted(journal.records, key=lambda record: record.number)[-last:]
        told: list[dict[str, object]] = []
        for record in records:
            line = record.line()
            words = {"kind": line.kind, "vendor": line.vendor, "what": line.what, "outcome": line.outcome}
            facts = {name: journal.redact(text) for name, text in words.items()}
            told.append({"number": record.number, "at": record.at.isoformat(), **facts})
        return Response.json({"forgotten": journal.forgotten, "records": told})

    @door("GET", "timeline")
    async def read_timeline(self, request: Request) -> Response:
        """The same as text in columns; `?last=` so many lines."""
        text = Timeline(self._server.journal).render(last=_number(request, "last", MOST))
        return Response(headers=(("content-type", "text/plain; charset=utf-8"),), body=text.encode() + b"\n")

    @door("GET", "faults")
    async def read_faults(self, request: Request) -> Response:
        """What is planned, how often each fault fired, by `vendor.fault`, and which rules have not struck yet."""
        faults = self._server.faults
        fired = dict(sorted(faults.fired.items()))
        return Response.json({"plan": faults.value().to_json(), "fired": fired, "idle": faults.idle})

    @door("GET", "webhooks")
    async def read_webhooks(self, request: Request) -> Response:
        """How many webhooks were sent in which manner, how they were answered, and whether a forgery was accepted."""
        sent = self._server.sent
        first: dict[str, str] = {}
        for one in sent:
            if one.accepted and not one.manner.forged and one.manner != "lie":
                first.setdefault(one.webhook.key, one.at.isoformat())
        return Response.json(
            {
                "sent": Counter(str(one.manner) for one in sent),
                "statuses": Counter(str(one.status) for one in sent),
                "dropped": len(self._server.dropped),
                "accepted_forgeries": sum(one.manner.forged and one.accepted for one in sent),
                "owed": sum(len(simulator.outbox) for simulator in self._server.simulators.values()),
                "first_accepted": first,
            }
        )

    @door("POST", "verdicts")
    async def judge(self, request: Request) -> Response:
        """Whether what should be true is: `["no_orphans", {"exactly_once": {"charge": {"reference": "o1"}}}]`.

        The demands are those of the ledger: `exactly_once`, `at_least_one`, `at_most_once` and `never`, of a `charge`,
        `refund`, `offer`, `meeting` or `message`; and `no_orphans`, `never_two_offers`, `refunded_at_most_captured`.
        The answer is `{"holds": …, "verdicts": [{"demand": …, "holds": …, "why": …}]}`.
        """
        asked = _json(request)
        demands = cast(Sequence[object], asked) if isinstance(asked, list) else [asked]
        return Response.json(verdicts(self._server.ledger, demands))

    # Acting

    @door("POST", "faults")
    async def plan_faults(self, request: Request) -> Response:
        """Plan more faults: `{"rules": [{"vendor": "stripe", "plan": {"kind": "first", "n": 1, "fault": "reset"}}]}`.

        The body is a fault plan, as in a scenario file, or its rules, or one of them. The answer is the whole plan.
        """
        self._server.plan(FaultPlan.from_json(_whole_plan(_json(request))))
        return await self.read_faults(request)

    @door("DELETE", "faults")
    async def calm(self, request: Request) -> Response:
        """No faults from now on, and nothing happens to webhooks; the counts stay."""
        self._server.calm()
        return await self.read_faults(request)

    @door("POST", "pay")
    async def pay_offer(self, request: Request) -> Response:
        """Somebody pays: `{"offer": "…"}`, as a payer sees it; with `"vendor"`, that vendor's."""
        asked = request.json()
        offer, vendor = str(asked.get("offer", "")), asked.get("vendor")
        reasons: list[str] = []
        for name, simulator in self._server.simulators.items():
            if vendor in (None, name):
                try:
                    simulator.pay(offer)
                except LookupError as error:
                    reasons.append(str(error))
                else:
                    return Response.json({"vendor": name})
        return Response.json({"error": f"nobody can pay {offer!r}", "reasons": reasons}, status=404)

    @door("POST", "deliver")
    async def deliver(self, request: Request) -> Response:
        """Send now what is owed, each to its own address: `{"duplicate": 2, "shuffle": true, "forge": "wrong_key"}`.

        `to` is another address on this machine, `vendor` the only one whose webhooks are sent. With `again` all that
        was sent before is sent once more. The rest is `duplicate`, `shuffle`, `late`, `drop` (all, or these numbers),
        `forge` (a name, several, or `all`), `reserialise`, `lie`, `rotate` (`during`, `after`), `together` and `skew`.
        Nobody waits: what is late comes later, and of a vendor's tries only the first ten are made.
        """
        how = Delivery.model_validate_json(request.body or b"{}")
        if how.to and not is_loopback(how.to):
            raise Unclear(f"{how.to!r} is no address on this machine")
        if how.vendor is not None and how.vendor not in self._server.simulators:
            raise Unclear(f"no vendor {how.vendor!r} here; there are {', '.join(self._server.simulators)}")
        waiting = [webhook for webhook in self._server.webhooks.waiting if how.vendor in (None, webhook.vendor)]
        before = {sent.webhook.stamp: sent.webhook for sent in self._server.sent if sent.manner != "lie"}
        once_more = [one for one in before.values() if how.again and how.vendor in (None, one.vendor)]
        try:
            sent = await self._server.webhooks.to(how.to).deliver(
                [*once_more, *waiting],
                duplicate=how.duplicate,
                shuffle=how.shuffle,
                late=how.late,
                drop=how.drop,
                forge=how.forge,
                reserialise=how.reserialise,
                lie=how.lie,
                rotate=how.rotate,
                together=how.together,
                skew=how.skew,
                expect="any",
            )
        except ValueError:  # something impossible was asked for, and nothing was sent
            for webhook in waiting:
                self._server.simulators[webhook.vendor].outbox.append(webhook)
            raise
        return Response.json([_sent(one) for one in sent])

    @door("POST", "seed")
    async def reseed(self, request: Request) -> Response:
        """Start over with another seed: `{"seed": 8}`; plans, addresses and credentials stay."""
        seed = request.json().get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise Unclear('say which: {"seed": 8}')
        self._server.reset(seed=seed)
        return Response.json({"seed": seed})

    @door("POST", "reset")
    async def start_over(self, request: Request) -> Response:
        """Forget everything that happened; plans, addresses and credentials stay."""
        self._server.reset()
        return Response.json({})


_DOORS: Final[Mapping[tuple[str, str], str]] = {
    getattr(answer, _DOOR): name for name, answer in vars(Admin).items() if hasattr(answer, _DOOR)
}
"""The method behind each."""


def _sent(sent: Sent) -> dict[str, object]:
    webhook = sent.webhook
    return {
        "vendor": webhook.vendor,
        "event": webhook.event,
        "about": webhook.about,
        "key": webhook.key,
        "number": sent.number,
        "manner": str(sent.manner),
        "tries": sent.tries,
        "status": sent.status,
        "accepted": sent.accepted,
        "failure": sent.failure,
        "at": sent.at.isoformat(),
    }


def _json(request: Request) -> object:
    try:
        found: object = json.loads(request.body)
    except ValueError:
        raise Unclear("the body is not JSON") from None
    return found


def _whole_plan(asked: object) -> object:
    kind = type(asked)
    if kind is dict and "rules" in cast(Mapping[str, object], asked):
        return asked
    return {"rules": asked if kind is list else [asked]}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= 1_000_000:
        raise Unclear(f"{name} is a number from 1 to 1000000")
    return int(text)


def _refusal(status: int, text: str) -> Response:
    return Response.json({"error": text}, status=status, headers=_HEADERS)
