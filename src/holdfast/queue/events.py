"""Facts of ours, who wants to hear them, and the jobs that carry them."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from math import inf
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import TypeAdapter

from holdfast.errors import ConfigurationError, InvalidInput
from holdfast.queue.handled import ENTERED, Handled
from holdfast.queue.threads import Threads
from holdfast.stores.store import Job, NewJob

QUEUE = "events"

SET_BY_WORKER = {"handler", "fencing_token", "idempotency_key"}
"""Fields of an event that are not part of the fact."""

Requirement = Literal["handled_in"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact of ours, born of one change of one record; it has one id however it was discovered."""

    type: ClassVar[str]

    id: str
    """`payment/consultation-4711/3/payment.paid`: the record, its version, and what it means."""
    reference: str
    at: datetime
    handler: str = field(default="", repr=False, compare=False)
    """Set by the worker: which handler this copy is for."""
    fencing_token: int = field(default=0, repr=False, compare=False)
    """Set by the worker: greater with every run of the job. What keeps the greatest it saw can turn late ones away."""
    idempotency_key: str = field(default="", repr=False, compare=False)
    """Set by the worker: the same for every run of this handler for this event, until the job is replayed."""

    def handled_in(self, session: object) -> Handled:
        """Make the handler's effect exactly once: one row in your own transaction, beside your own change.

        `async with session.begin(), event.handled_in(session): …`. Takes connections of sqlite3, aiosqlite, psycopg
        and asyncpg, sessions and connections of SQLAlchemy, and Django's `connection`; synchronous ones by `with`, all
        by `async with`. `holdfast.handled_ddl` gives the table.

        Raises:
            AlreadyHandled: On entry, when it was done before; let it pass, the worker records the job as done.
            ConfigurationError: On entry, when no transaction is open, or this is no session we know.
            CallInsideTransaction: A vendor is called while the block is open.
        """
        return Handled(self.id, self.handler or "direct", session)


EventT = TypeVar("EventT", bound=Event)
Handler = Callable[..., Awaitable[None] | None]  # of its own event type, and of a connection where it is transactional


@dataclass(frozen=True, kw_only=True, slots=True)
class HandlerRetry:
    """How often and when a handler that failed is run again; what is not given is as the worker's options say."""

    attempts: int | None = None
    """Failures after which its job is a dead letter."""
    base: float | None = None
    """Seconds before the second attempt, doubled for each later one."""
    cap: float | None = None
    """The longest wait."""

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise InvalidInput("attempts is at least 1: the first run is an attempt")
        if any(seconds is not None and not 0 <= seconds < inf for seconds in (self.base, self.cap)):
            raise InvalidInput("base and cap are seconds, and not negative")


@dataclass(frozen=True, slots=True)
class Subscription:
    """One handler of one event type, under the name that identifies it."""

    event: type[Event]
    name: str
    handler: Handler
    threads: Threads
    require: Requirement | None = None
    transactional: bool = False
    """It takes a connection too, and runs in the transaction that ends its job."""
    retry: HandlerRetry | None = None

    def event_of(self, job: Job) -> Event:
        """The event the job carries, as this handler is to see it."""
        event = decode(self.event, job.body)
        set_field = object.__setattr__  # it is nobody's yet, and `replace` takes longer than reading it
        set_field(event, "handler", self.name)
        set_field(event, "fencing_token", job.token)
        set_field(event, "idempotency_key", idempotency_key(event.id, self.name, job.generation))
        return event

    async def deliver(self, job: Job) -> bool:
        """Hand the job's event to the handler: awaited, or in a thread where it is a plain function.

        False: it returned without what it requires.
        """
        event = self.event_of(job)
        entered: list[str] = []
        mark = ENTERED.set(entered)
        try:
            waits = inspect.iscoroutinefunction(self.handler)
            result = self.handler(event) if waits else await self.threads.run(self.handler, event)
            if inspect.isawaitable(result):
                await result
        finally:
            ENTERED.reset(mark)
        return self.require is None or event.id in entered


def check_event(event: object) -> None:
    """Raises ConfigurationError: it is not the class of an event."""
    if Event not in getattr(event, "__mro__", ()):
        raise ConfigurationError(f"on() takes the class of an event, such as PaymentPaid, not {event!r}")


def _check_handler(event: type[Event], handler: Handler, takes: str) -> None:
    """Raises ConfigurationError: it cannot be called with what it is given."""
    if not callable(handler):
        raise ConfigurationError(f"a handler of {event.type} is a function, not {handler!r}")
    try:
        # As it is, and not as what it wraps: a decorator may give the rest, such as a session.
        inspect.signature(handler, follow_wrapped=False).bind(*takes.split(", "))
    except TypeError:
        name = getattr(handler, "__name__", handler)
        raise ConfigurationError(f"the handler {name} is called with ({takes}), and does not take that") from None
    except ValueError:  # of some callables nobody can tell
        return


class Subscriptions:
    """Which handlers want which events: one job per event and handler, so that one's failure never re-runs another."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._all: dict[tuple[str, str], Subscription] = {}

    def on(
        self,
        event: type[EventT],
        handler: Handler,
        *,
        name: str = "",
        require: Requirement | None = None,
        transactional: bool = False,
        retry: HandlerRetry | None = None,
    ) -> None:
        """Register a handler; without a name it is `module:qualname`, so renaming it makes another handler.

        Raises:
            ConfigurationError: It is no event, the name is taken for it, or nothing of this kind can be required.
        """
        check_event(event)
        if require not in (None, "handled_in"):
            raise ConfigurationError(f'require is "handled_in" or nothing, not {require!r}')
        _check_handler(event, handler, "event, connection" if transactional else "event")
        name = name or f"{handler.__module__}:{handler.__qualname__}"
        if (event.type, name) in self._all:
            raise ConfigurationError(f"two handlers of {event.type} are named {name}; give one another name=")
        self._all[event.type, name] = Subscription(event, name, handler, self._threads, require, transactional, retry)

    def find(self, event: str, name: str) -> Subscription | None:
        """The handler of that name, if the program still has it."""
        return self._all.get((event, name))

    def wants(self, event: type[Event]) -> bool:
        """Whether any handler wants these."""
        return any(kind == event.type for kind, _ in self._all)

    def retry_of(self, job: Job) -> HandlerRetry | None:
        """How the job's handler is to be run again; None: as the worker's options say."""
        subscription = self.find(job.kind, job.handler) if job.queue == QUEUE else None
        return subscription.retry if subscription else None

    def jobs(self, events: Sequence[Event]) -> list[NewJob]:
        """One job per event and handler; an event nobody wants is kept too, and can be replayed."""
        return [
            NewJob(
                queue=QUEUE,
                key=f"{event.id}/{name}",
                kind=event.type,
                handler=name,
                body=encode(event),
                ordering_key=f"{event.reference}/{name}" if name else "",
                ignored=not name,
                subject=event.reference,
            )
            for event in events
            for name in (self._names(event) or [""])
        ]

    def _names(self, event: Event) -> list[str]:
        return [name for kind, name in self._all if kind == event.type]


def idempotency_key(event: str, handler: str, generation: int) -> str:
    """One name for what a handler does about an event, to hand to whom it calls: 64 hexadecimal digits."""
    return sha256(f"[{quoted(event)}, {quoted(handler)}, {generation}]".encode()).hexdigest()


def encode(event: Event) -> bytes:
    """The event as JSON."""
    return _adapter(type(event)).dump_json(event, exclude=SET_BY_WORKER)


def decode(kind: type[EventT], body: bytes) -> EventT:
    """The event from JSON."""
    return _adapter(kind).validate_json(body)


_ADAPTERS: dict[type[Event], TypeAdapter[Any]] = {}


def _adapter(kind: type[EventT]) -> TypeAdapter[EventT]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
