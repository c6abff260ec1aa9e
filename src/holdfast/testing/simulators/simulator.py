"""A vendor, simulated: what it remembers, what it answers, whom it owes a webhook."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, ClassVar, TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import Drawn, Faults, Stage, Status, chance
from holdfast.testing.faults.draws import GOES_WELL
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.messages import Ending as Ending
from holdfast.testing.simulators.messages import Exchange as Exchange
from holdfast.testing.simulators.messages import Headers as Headers
from holdfast.testing.simulators.messages import Reply as Reply
from holdfast.testing.simulators.messages import Request as Request
from holdfast.testing.simulators.messages import Response as Response
from holdfast.testing.simulators.messages import Webhook as Webhook
from holdfast.testing.simulators.rates import Rate, SlidingWindow
from holdfast.testing.simulators.strike import spoken, struck, timed, unconnected

if TYPE_CHECKING:
    from holdfast.testing.journal import Journal

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
    hosts: ClassVar[tuple[str, ...]] = ()
    """Where the vendor's API truly is."""
    asked_for_events: ClassVar[bool] = False
    """Its customers ask what happened, as long as it has no address to send webhooks to."""
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
    operations: ClassVar[frozenset[str]] = frozenset()
    """What can be asked of it, in the family's words."""
    _routes: ClassVar[Sequence[tuple[str, re.Pattern[str], str, str]]] = ()

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: "Journal | None" = None,
        webhook_secret: str = "",
        webhook_url: str = "",
    ) -> None:
        self.seed = seed
        self.clock: Clock = clock or SystemClock()
        self.ledger = ledger if ledger is not None else Ledger(self.clock, journal=journal)
        self.journal = journal if journal is not None else self.ledger.journal
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
        self.at_most = None
        self.outbox: deque[Webhook] = deque()
        self.requests: deque[Request] = deque(maxlen=10_000)
        """The requests that reached the vendor, in order; the last ten thousand."""
        self._drawn = 0
        self._matched: tuple[Request, tuple[str, str, Mapping[str, str]] | None] | None = None
        self.faults.meet(self.vendor, self.operations, self.clock)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        marked = [(name, route) for name, value in vars(cls).items() for route in getattr(value, _ROUTES, ())]
        own = [(method, _pattern(path), operation, name) for name, (method, path, operation) in marked]
        cls._routes = (*own, *cls._routes)
        cls.operations = frozenset(operation for _, _, operation, _ in cls._routes)

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
        return spoken(fault)

    def limited(self, wait: float) -> Response:
        """How the vendor says that these are too many calls, and that one more passes in so many seconds."""
        return self.failure(Status(429))

    def expire(self, request: Request) -> bool:
        """End the life of the token that the request carries; whether it was one that this vendor issued."""
        return False

    def idempotency_key(self, request: Request) -> str | None:
        """What the request says so that it is done once only; None where it says nothing of the kind."""
        for name, value in request.headers:
            if len(name) == 15 and name.lower() == "idempotency-key":
                return value
        return None

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
        self.at_most = self.at_most

    # What every simulator does

    @property
    def at_most(self) -> Rate | None:
        """How many calls it lets through, whatever they ask, in place of its vendor's own limits.

        None: the vendor's own, as they are. `Rate(0)`: no limits at all.
        """
        return self._at_most

    @at_most.setter
    def at_most(self, rate: Rate | None) -> None:
        self._at_most = rate
        self._let_through = None if rate is None else SlidingWindow.of(rate, self.clock)

    def window(self, limit: int, seconds: float = 1) -> SlidingWindow:
        """A limit of the vendor's own, which holds as long as `at_most` says nothing."""
        return SlidingWindow(self.clock, limit, seconds, holds=lambda: self._at_most is None)

    def operation(self, request: Request) -> str:
        """What the request asks for, in the family's words; `unknown` where no route matches."""
        found = self._route(request)
        return found[0] if found else "unknown"

    def handle(self, request: Request) -> Response:
        """Do what the request asks, and answer: the vendor on a good day."""
        self.requests.append(request)
        self.tick()
        if self._let_through is not None:
            if wait := self._let_through.wait():
                return self.limited(wait)
            self._let_through.take()
        return self.answer(request)

    def answer(self, request: Request) -> Response:
        """What the matching route says; vendors that refuse before they look do it here."""
        found = self._route(request)
        if found is None:
            return self.not_found(request)
        _, name, params = found
        method: Callable[[Request], Response] = getattr(self, name)
        return method(replace(request, params=params))

    def exchange(self, request: Request) -> Exchange:
        """The same with the faults planned for this call; the one way every transport goes."""
        operation, key = self.operation(request), self.idempotency_key(request)
        drawn = self.faults.draw(
            self.vendor,
            operation,
            path=request.target,
            body=request.body,
            method=request.method,
            headers=request.headers,
            key=key,
        )
        number = self.journal.begin()
        exchange = Exchange(ending=Ending.CLOSED)  # what is written down of a request that the simulator fails at
        try:
            exchange = self._suffer(request, drawn)
        finally:
            response = exchange.response
            record = self.journal.call(
                self.vendor,
                operation,
                request,
                fault=drawn.fault,
                ending=exchange.ending,
                status=None if response is None else response.status,
                delay=drawn.delay,
                key=key,
                answer=b"" if response is None else response.body,
                number=number,
            )
        return replace(exchange, record=record)

    def connection(self) -> Exchange | None:
        """What becomes of a new connection that a plan for `connect` is about; None: it is made."""
        drawn = self.faults.draw(self.vendor, "connect")
        return None if drawn.fault is None else replace(unconnected(drawn.fault), delay=drawn.delay)

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

    def _route(self, request: Request) -> tuple[str, str, Mapping[str, str]] | None:
        if self._matched is None or self._matched[0] is not request:
            self._matched = request, self._match(request)
        return self._matched[1]

    def _match(self, request: Request) -> tuple[str, str, Mapping[str, str]] | None:
        path = request.path
        for method, pattern, operation, name in self._routes:
            found = pattern.fullmatch(path) if method == request.method else None
            if found:
                return operation, name, found.groupdict()
        return None

    def _suffer(self, request: Request, drawn: Drawn) -> Exchange:
        if drawn is GOES_WELL:
            return Exchange(response=self.handle(request))
        fault = drawn.fault
        if fault is None:
            exchange = Exchange(response=self.handle(request))
        elif fault.stage is Stage.BEFORE_SEND:
            exchange = unconnected(fault)
        elif fault.stage is Stage.BEFORE_EFFECT:
            exchange = struck(self, request, fault, None)
        else:
            exchange = struck(self, request, fault, self.handle(request))
        return timed(exchange, drawn, self.clock)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
