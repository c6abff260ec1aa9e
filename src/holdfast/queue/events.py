"""Facts of ours, who wants to hear them, and the jobs that carry them."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import TypeAdapter

from holdfast.errors import ConfigurationError
from holdfast.queue.handled import ENTERED, Handled
from holdfast.queue.threads import Threads
from holdfast.stores.store import Job, NewJob

QUEUE = "events"

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

    def handled_in(self, session: object) -> Handled:
        """Make the handler's effect exactly once: one row in your own transaction, beside your own change.

        `async with session.begin(), event.handled_in(session): …`. Works with sqlite3 connections (`with` and
        `async with`) and SQLAlchemy's `Session` and `AsyncSession`; `holdfast.handled_ddl` gives the table.

        Raises:
            AlreadyHandled: On entry, when it was done before; let it pass, the worker records the job as done.
            CallInsideTransaction: A vendor is called while the block is open.
        """
        return Handled(self.id, self.handler or "direct", session)


EventT = TypeVar("EventT", bound=Event)
Handler = Callable[[Any], Awaitable[None] | None]  # of its own event type; Subscriptions.on checks the pair


@dataclass(frozen=True, slots=True)
class Subscription:
    """One handler of one event type, under the name that identifies it."""

    event: type[Event]
    name: str
    handler: Handler
    threads: Threads
    require: Requirement | None = None

    async def deliver(self, job: Job) -> bool:
        """Hand the job's event to the handler: awaited, or in a thread where it is a plain function.

        False: it returned without what it requires.
        """
        event = replace(decode(self.event, job.body), handler=self.name)
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


class Subscriptions:
    """Which handlers want which events: one job per event and handler, so that one's failure never re-runs another."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._all: dict[tuple[str, str], Subscription] = {}

    def on(
        self,
        event: type[EventT],
        handler: Callable[[EventT], Awaitable[None] | None],
        *,
        name: str = "",
        require: Requirement | None = None,
    ) -> None:
        """Register a handler; without a name it is `module:qualname`, so renaming it makes another handler.

        Raises:
            ConfigurationError: The name is taken for this event, or nothing of this kind can be required.
        """
        if require not in (None, "handled_in"):
            raise ConfigurationError(f'require is "handled_in" or nothing, not {require!r}')
        name = name or f"{handler.__module__}:{handler.__qualname__}"
        if (event.type, name) in self._all:
            raise ConfigurationError(f"two handlers of {event.type} are named {name}; give one another name=")
        self._all[event.type, name] = Subscription(event, name, handler, self._threads, require)

    def find(self, event: str, name: str) -> Subscription | None:
        """The handler of that name, if the program still has it."""
        return self._all.get((event, name))

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
            )
            for event in events
            for name in (self._names(event) or [""])
        ]

    def _names(self, event: Event) -> list[str]:
        return [name for kind, name in self._all if kind == event.type]


def encode(event: Event) -> bytes:
    """The event as JSON."""
    return _adapter(type(event)).dump_json(event, exclude={"handler"})


def decode(kind: type[EventT], body: bytes) -> EventT:
    """The event from JSON."""
    return _adapter(kind).validate_json(body)


_ADAPTERS: dict[type[Event], TypeAdapter[Any]] = {}


def _adapter(kind: type[EventT]) -> TypeAdapter[EventT]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
