"""Calls to be made later: what they carry, who makes them, and the jobs they travel in."""

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from holdfast.errors import ConfigurationError, InvalidInput, NaiveDatetime
from holdfast.queue import subjects
from holdfast.queue.events import idempotency_key
from holdfast.queue.handled import Handled
from holdfast.queue.threads import Threads
from holdfast.stores.store import Job, NewJob

QUEUE = "calls"
URGENT = "calls-urgent"

PayloadT = TypeVar("PayloadT")
When = datetime | timedelta
"""A moment, or a time from now."""
OnUnknown = Literal["hold", "resend", "check"]
Check = Callable[[Any], Awaitable[bool | None]]
Handler = Callable[..., Awaitable[None] | None]

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Call(Generic[PayloadT]):
    """A call whose time has come, as its handler sees it."""

    name: str
    key: str
    payload: PayloadT
    idempotency_key: str = field(repr=False)
    """The same for every run of this call, until it is replayed: for whom you call."""
    fencing_token: int
    """Greater with every run. What keeps the greatest it saw can turn late ones away."""
    attempts: int
    """How often it failed."""
    expires_at: datetime | None

    def handled_in(self, session: object) -> Handled:
        """Make the handler's effect in your own database exactly once, as `event.handled_in` does.

        Raises:
            AlreadyHandled: On entry, when it was done before; let it pass, the worker records the call as done.
            ConfigurationError: On entry, when no transaction is open, or this is no session we know.
            CallInsideTransaction: A vendor is called while the block is open.
        """
        return Handled(f"call/{self.name}/{self.key}", self.name, session)


@dataclass(frozen=True, kw_only=True, slots=True)
class Callee:
    """Who makes the calls of one name, and how."""

    name: str
    handler: Handler
    payload: TypeAdapter[Any]
    version: int = 1
    urgent: bool = False
    once: bool = False
    on_unknown: OnUnknown = "hold"
    check: Check | None = None
    threads: Threads
    takes: bool
    """The handler takes the call; else nothing."""

    @property
    def queue(self) -> str:
        """Where its calls wait. It depends on the name alone, for a key deduplicates within one queue."""
        return URGENT if self.urgent else QUEUE

    def job(
        self, payload: object, *, key: str, not_before: When | None, expires_at: When | None, order: str, now: datetime
    ) -> NewJob:
        """The call as a job. Raises InvalidInput: it could not be made from what is given."""
        begins, ends = _moment(not_before, "not_before", now), _moment(expires_at, "expires_at", now)
        if ends is not None and ends <= max(begins or now, now):
            raise InvalidInput("expires_at is over before the call may begin")
        body = self._encode(payload)
        return NewJob(
            queue=self.queue,
            key=f"{self.name}/{checked(key, 'key')}",
            kind=self.name,
            body=body,
            headers={"version": str(self.version)} | ({"expires": ends.isoformat()} if ends else {}),
            digest=_digest(self.name, body),
            ordering_key=checked(order, "ordering_key") if order else "",
            delay=max(0.0, (begins - now).total_seconds()) if begins else 0.0,
            subject=subjects.of_key(key),
        )

    def call(self, job: Job) -> Call[Any]:
        """The call again. Raises InvalidInput: this program cannot read it."""
        written = int(job.headers.get("version", "1"))
        if written > self.version:
            raise InvalidInput(f"the payload of {job.key} has version {written}, this program reads {self.version}")
        try:
            payload = self.payload.validate_json(job.body)
        except ValidationError as error:
            raise InvalidInput(
                f"the payload of {job.key} (version {written}) cannot be read: {_first(error)}"
            ) from None
        key = job.key.removeprefix(f"{self.name}/")
        expires = job.headers.get("expires")
        return Call(
            name=self.name,
            key=key,
            payload=payload,
            idempotency_key=idempotency_key(f"call/{job.key}", self.name, job.generation),
            fencing_token=job.token,
            attempts=job.attempts,
            expires_at=datetime.fromisoformat(expires) if expires else None,
        )

    async def run(self, call: Call[Any]) -> None:
        """Hand the call to the handler: awaited, or in a thread where it is a plain function."""
        arguments = (call,) if self.takes else ()
        waits = inspect.iscoroutinefunction(self.handler)
        result = self.handler(*arguments) if waits else await self.threads.run(self.handler, *arguments)
        if inspect.isawaitable(result):
            await result

    def _encode(self, payload: object) -> bytes:
        """The payload as JSON that reads back as the same."""
        try:
            body = self.payload.dump_json(payload, warnings="error")
            same = self.payload.validate_json(body) == payload
        except (ValidationError, PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidInput(f"{self.name} does not take this payload: {_first(error)}") from None
        if not same:
            raise InvalidInput(f"{self.name} would not get this payload back as it is given")
        return body


class Callees:
    """Who makes which calls, by name."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._all: dict[str, Callee] = {}

    def add(
        self,
        name: str,
        handler: Handler,
        *,
        payload: Any = None,
        version: int = 1,
        urgent: bool = False,
        once: bool = False,
        on_unknown: OnUnknown | None = None,
        check: Check | None = None,
    ) -> None:
        """Register who makes calls of this name.

        Raises:
            ConfigurationError: The name is taken or none, or the options contradict each other.
        """
        if name in self._all:
            raise ConfigurationError(f"two handlers make the call {name}; a call has one")
        if not once and (on_unknown or check):
            raise ConfigurationError("on_unknown and check are for calls with once=True; others are made again")
        policy = on_unknown or ("check" if check else "hold")
        if (policy == "check") != (check is not None):
            raise ConfigurationError('on_unknown="check" and check= belong together')
        self._all[_named(name)] = Callee(
            name=name,
            handler=handler,
            payload=TypeAdapter(payload if payload is not None else _payload_of(handler)),
            version=version,
            urgent=urgent,
            once=once,
            on_unknown=policy,
            check=check,
            threads=self._threads,
            takes=bool(inspect.signature(handler).parameters),
        )

    def get(self, name: str) -> Callee:
        """Raises ConfigurationError: this program makes no calls of that name."""
        if name not in self._all:
            raise ConfigurationError(f"no handler makes the call {name!r}; register one with hub.call({name!r})")
        return self._all[name]

    def queues(self, *, urgent: bool) -> list[str]:
        """The queues its calls wait in."""
        return sorted({callee.queue for callee in self._all.values() if callee.urgent == urgent})


def checked(text: object, what: str) -> str:
    """Raises InvalidInput: outside 1 to 128 of `A-Z a-z 0-9 . _ : -`."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise InvalidInput(f"{text!r} is no {what}: use 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return text


def _named(name: str) -> str:
    try:
        return checked(name, "name")
    except InvalidInput as error:
        raise ConfigurationError(str(error)) from None


def _moment(when: When | None, argument: str, now: datetime) -> datetime | None:
    if isinstance(when, timedelta):
        return now + when
    if when is not None and when.tzinfo is None:
        raise NaiveDatetime(argument)
    return when.astimezone(UTC) if when is not None else None


def _digest(name: str, body: bytes) -> str:
    canonical = json.dumps([name, json.loads(body)], sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()


def _first(error: Exception) -> str:
    """What is wrong, without the value, which may be nobody else's business."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in error.errors()[:3])
    return type(error).__name__


def _payload_of(handler: Handler) -> Any:
    """What the handler's first argument says it carries: `Call[Invoice]`; without a word, any JSON value."""
    try:
        first = next(iter(inspect.signature(handler).parameters), None)
        hint = get_type_hints(handler).get(first) if first else None
    except NameError as error:
        raise ConfigurationError(f"the annotation of {handler!r} cannot be read ({error}); pass payload=") from None
    except TypeError:  # a partial or a callable object, which has no hints of its own
        hint = None
    arguments = get_args(hint) if get_origin(hint) is Call else ()
    return arguments[0] if arguments and not isinstance(arguments[0], TypeVar) else Any
