"""A vendor, simulated: what it remembers, what it answers, whom it owes a webhook."""

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import count
from random import Random
from typing import ClassVar, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import BadJson, Fault, Faults, Hang, Html, Refused, Reset, Stage, Status, Truncate, chance
from holdfast.testing.ledger import Ledger

Headers = Sequence[tuple[str, str]]
_STAMPS = count()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the vendor was asked, as bytes."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Headers = ()
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the route's `{names}` matched."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> dict[str, object]:
        """The body, where it is a JSON object, numbers with a point as Decimal; else an empty one."""
        try:
            found: object = json.loads(self.body or b"{}", parse_float=Decimal)
        except ValueError:
            return {}
        return cast(dict[str, object], found) if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What the vendor answers."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""

    @classmethod
    def json(cls, data: object, *, status: int = 200, headers: Headers = ()) -> "Response":
        """The data as JSON."""
        body = json.dumps(data, separators=(",", ":")).encode()
        return cls(status=status, headers=(("content-type", "application/json"), *headers), body=body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """A call the vendor owes its customer, not signed yet."""

    vendor: str
    url: str
    event: str
    about: str
    """The vendor's id of the object."""
    key: str
    """The business object, where the vendor knows it."""
    body: bytes
    headers: Headers = (("content-type", "application/json"),)
    secret: str = field(default="", repr=False)
    """What it is signed with, where that is not the account's own secret."""
    stamp: int = field(default_factory=_STAMPS.__next__, compare=False, repr=False)
    """Rises with each one made, over all vendors: which was owed before which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a receiver answered to a webhook."""

    status: int
    """0: there was no answer."""
    headers: Headers = ()
    body: bytes = b""
    failure: str = ""
    """Why there was no answer, `timeout` where it took too long; or what the app raised."""

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Ending(StrEnum):
    """How an exchange ends on the wire."""

    ANSWERED = "answered"
    REFUSED = "refused"
    RESET = "reset"
    HANG = "hang"
    TRUNCATED = "truncated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """What becomes of one request: the answer, if any, and how the wire ends."""

    ending: Ending = Ending.ANSWERED
    response: Response | None = None
    delay: float = 0.0
    """Seconds until it ends."""
    seconds: float = 0.0
    """How long it hangs, or refuses."""
    after_bytes: int = 0
    """How much of the answer a reset lets through."""


SimulatorT = TypeVar("SimulatorT", bound="Simulator")
_ROUTES = "_routes_of_method"


def route(
    method: str, path: str, operation: str
) -> Callable[[Callable[[SimulatorT, Request], Response]], Callable[[SimulatorT, Request], Response]]:
    """The method answers `method path`; `{name}` in the path becomes `request.params["name"]`.

    `operation` is what faults are planned for, in the family's words. A method may answer several.
    """

    def mark(method_of: Callable[[SimulatorT, Request], Response]) -> Callable[[SimulatorT, Request], Response]:
        setattr(method_of, _ROUTES, (*getattr(method_of, _ROUTES, ()), (method, path, operation)))
        return method_of

    return mark


class Simulator:
    """One account at one vendor: stateful, with true ids, true errors and one ledger.

    A vendor's simulator is a subclass with `vendor`, methods marked with `@route`, and, where the vendor signs
    its webhooks, `sign`. It knows the vendor's documentation and nothing of holdfast's providers.
    """

    vendor: ClassVar[str]
    copies: ClassVar[int] = 1
    """How often this vendor sends each webhook, by itself."""
    retries: ClassVar[tuple[float, ...]] = ()
    """Seconds to wait before each new try of a webhook that was not answered 2xx."""
    patience: ClassVar[float] = 10
    """Seconds this vendor waits for the answer to a webhook."""
    schemes: ClassVar[tuple[str, str] | None] = None
    """The name of the way it signs, as its header writes it, and one that nobody checks."""
    signs_with_both: ClassVar[bool] = False
    """While a secret is rolled both sign; other vendors change over at once."""
    largest_body: ClassVar[int] = 1024 * 1024
    """Bytes; on sockets what is larger is answered 413."""
    _routes: ClassVar[Sequence[tuple[str, re.Pattern[str], str, str]]] = ()

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
    ) -> None:
        self.seed = seed
        self.clock: Clock = clock or SystemClock()
        self.ledger = ledger if ledger is not None else Ledger(self.clock)
        self.faults = faults if faults is not None else Faults(seed)
        self.webhook_secret = webhook_secret or f"{self.vendor}-webhook-secret"
        self.webhook_url = webhook_url
        """Where this account's webhooks go, for vendors that are told once and not with every object."""
        self.old_secret = ""
        """The webhook secret before it was rolled, until it is retired."""
        self.retired_secrets: list[str] = []
        """Webhook secrets that count no more."""
        self.base_url = f"https://{self.vendor}.test"
        """Where this vendor says it lives, in links it gives out; the edge sets its own address."""
        self.outbox: deque[Webhook] = deque()
        self.requests: deque[Request] = deque(maxlen=10_000)
        """The requests that reached the vendor, in order; the last ten thousand."""
        self._drawn = 0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        marked = [(name, route) for name, value in vars(cls).items() for route in getattr(value, _ROUTES, ())]
        own = [(method, _pattern(path), operation, name) for name, (method, path, operation) in marked]
        cls._routes = (*own, *cls._routes)

    # What a vendor's own file says

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """The headers that prove a webhook is this vendor's; none where the vendor does not sign."""
        return ()

    def sign_with(self, body: bytes, *, secrets: Sequence[str], at: datetime, url: str = "") -> Headers:
        """The same with several secrets, newest first, where the vendor signs with both while one is rolled."""
        return self.sign(body, secret=secrets[0], at=at, url=url)

    def retry_after(self, number: int, reply: Reply) -> float | None:
        """Seconds until the `number`-th new try, after this reply to the one before; None: the vendor gives up."""
        return self.retries[number - 1] if number <= len(self.retries) else None

    def retry_headers(self, number: int, reply: Reply) -> Headers:
        """What the vendor adds to its `number`-th new try, after this reply to the one before."""
        return ()

    def challenge(self) -> Webhook | None:
        """The request by which the vendor makes sure of an endpoint; None: it takes an address as it is."""
        return None

    def refute(self, challenge: Webhook, reply: Reply) -> str:
        """What is wrong with the answer to the challenge; empty: the endpoint has proven itself."""
        return "" if reply.accepted else f"it answered {reply.status}"

    def new_secret(self) -> str:
        """A webhook secret of the form this vendor gives out."""
        return f"{self.random().getrandbits(128):032x}"

    def failure(self, fault: Status) -> Response:
        """How the vendor says that it fails with this status, where the fault does not say it word by word."""
        return _error(fault)

    def not_found(self, request: Request) -> Response:
        """The vendor's answer to a path it does not have."""
        return Response.json({"error": "not found"}, status=404)

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """The same webhook with a body that claims more than happened; None where it cannot."""
        return None

    def pay(self, offer: str) -> None:
        """Somebody pays the offer, named by what a payer sees of it: its id, its invoice or its page.

        Raises:
            LookupError: There is no such offer here, or it can no longer be paid.
        """
        raise LookupError(f"{self.vendor} takes no payments")

    @property
    def credentials(self) -> Mapping[str, str]:
        """What a customer of this account would be given, in the vendor's words."""
        return {}

    def tick(self) -> None:
        """Do what time alone makes happen; before every request, and while webhooks are delivered."""

    def reset(self) -> None:
        """Forget everything."""
        self.outbox.clear()
        self.requests.clear()
        self._drawn = 0

    # What every simulator does

    def operation(self, request: Request) -> str:
        """What the request asks for, in the family's words; `unknown` where no route matches."""
        found = self._match(request)
        return found[0] if found else "unknown"

    def handle(self, request: Request) -> Response:
        """Do what the request asks, and answer: the vendor on a good day."""
        self.requests.append(request)
        self.tick()
        return self.answer(request)

    def answer(self, request: Request) -> Response:
        """What the matching route says; vendors that refuse before they look do it here."""
        found = self._match(request)
        if found is None:
            return self.not_found(request)
        _, name, params = found
        method: Callable[[Request], Response] = getattr(self, name)
        return method(replace(request, params=params))

    def exchange(self, request: Request) -> Exchange:
        """The same with the faults planned for this call."""
        drawn = self.faults.draw(self.vendor, self.operation(request), path=request.target, body=request.body)
        return replace(self._suffer(request, drawn.fault), delay=drawn.delay)

    def roll_secret(self) -> str:
        """Give the account a new webhook secret; the old one is known as `old_secret` until it is retired."""
        self.retire_secret()
        self.old_secret, self.webhook_secret = self.webhook_secret, self.new_secret()
        return self.webhook_secret

    def retire_secret(self) -> None:
        """The secret before the last one counts no more."""
        if self.old_secret:
            self.retired_secrets.append(self.old_secret)
            self.old_secret = ""

    def owe(self, webhook: Webhook) -> None:
        """Put a webhook into the outbox; who delivers it takes it from there."""
        self.outbox.append(webhook)

    def random(self) -> Random:
        """A source of chance for the next thing this vendor makes up."""
        self._drawn += 1
        return chance(self.seed, self.vendor, "made-up", self._drawn)

    def _match(self, request: Request) -> tuple[str, str, Mapping[str, str]] | None:
        for method, pattern, operation, name in self._routes:
            found = pattern.fullmatch(request.path) if method == request.method else None
            if found:
                return operation, name, found.groupdict()
        return None

    def _suffer(self, request: Request, fault: Fault | None) -> Exchange:
        if isinstance(fault, Refused):
            return Exchange(ending=Ending.REFUSED, seconds=fault.seconds)
        response = self.handle(request) if fault is None or fault.stage is not Stage.BEFORE_EFFECT else None
        match fault:
            case Reset():
                return Exchange(ending=Ending.RESET, response=response, after_bytes=fault.after_bytes)
            case Hang():
                return Exchange(ending=Ending.HANG, seconds=fault.seconds)
            case Truncate():
                return Exchange(ending=Ending.TRUNCATED, response=response)
            case Status():
                return Exchange(response=_error(fault) if fault.body else self.failure(fault))
            case BadJson():
                return Exchange(response=replace(_success(response), body=_success(response).body[:-2] or b"{"))
            case Html():
                page = b"<!doctype html><title>Welcome</title>"
                return Exchange(response=Response(headers=(("content-type", "text/html"),), body=page))
            case _:
                return Exchange(response=response)


def _error(fault: Status) -> Response:
    wait = () if fault.retry_after is None else (("retry-after", f"{fault.retry_after:g}"),)
    return Response(status=fault.status, headers=(("content-type", fault.content_type), *wait), body=fault.body)


def _success(response: Response | None) -> Response:
    return response or Response()


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
